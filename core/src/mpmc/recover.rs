//! Repairing what the dead held.

use super::claim::Claimed;
use super::word::{Lap, MAX_ATTEMPTS, SlotWord, State};
use super::{PopError, Ring};
use crate::owner::{MAX_PARTICIPANTS, OwnerId};
use crate::prim::Ordering;
use crate::wait::{Liveness, Wait};

/// One in the upper half of `returned`; the carry out of it is lost, and the lower half untouched.
const RAISED: u64 = 1 << 32;

/// Whether this value of `returned` says that an item may have been returned.
#[inline]
pub(super) const fn is_raised(returned: u64) -> bool {
    returned >> 32 != returned & (RAISED - 1)
}

/// `returned` once somebody has looked in vain.
pub(super) const fn looked_at(returned: u64) -> u64 {
    returned & !(RAISED - 1) | returned >> 32
}

/// What one call of `recover` repaired. Others may have been faster, and where the proof of a death itself leads to repairs,
/// as in `crosslane-shm`, there may be nothing left for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Slots that the dead were writing: skipped, the items lost with their producers.
    pub skipped: u32,
    /// Items that the dead were reading: to be delivered again.
    pub returned: u32,
    /// Items that the dead were reading and that had been delivered often enough: dead letters.
    pub dead_letters: u32,
}

impl Ring<'_> {
    /// Repairs what `owner` held, if it is proven dead, and wakes everybody. Idempotent; any number of processes may do
    /// it at once. Reads every slot. A living owner: nothing is done.
    ///
    /// # Crash
    /// A process killed inside leaves the rest to the next who calls.
    pub fn recover<E: Wait + Liveness>(&self, owner: OwnerId, env: &E) -> Recovered {
        if env.is_dead(owner) { self.recover_dead(owner, env) } else { Recovered::default() }
    }

    /// Repairs what everybody held whom `life` says to be dead, and wakes everybody. Idempotent; any number of processes
    /// may do it at once. Reads every slot.
    ///
    /// # Crash
    /// As [`recover`](Self::recover).
    pub fn reap<L: Liveness, W: Wait>(&self, life: &L, wait: &W) {
        self.recover_holders(life, wait);
        // Also if nobody was found: an earlier recoverer may have died before it came so far.
        self.raise_returned();
        self.wake_all(wait);
    }

    /// Raises the hint if an item waits that was returned: whoever returned it may have died before it did that itself.
    pub(super) fn find_returned(&self) -> bool {
        let found = self.slots_in(|state| state == State::Returned).next().is_some();
        if found {
            self.raise_returned();
        }
        found
    }

    /// Probes every participant that holds a slot, each once, and repairs what the dead ones held. `true` if one was dead.
    pub(super) fn recover_holders<L: Liveness, W: Wait>(&self, life: &L, wait: &W) -> bool {
        self.header().not_empty.0.forget_dead(life);
        let (mut living, mut found) = (Living::new(), false);
        for slot in self.slots_in(|state| matches!(state, State::Writing | State::Reading)) {
            // ORDERING: Relaxed. The CAS of the repair takes exactly this word or none. What a dead owner holds stays as it
            // is until somebody repairs it, so one pass finds all of it.
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            let Some(owner) = word.owner() else { continue };
            if Some(owner) == life.me() || living.contains(owner) {
                continue;
            }
            if life.is_dead(owner) {
                self.repair(slot, word, &mut Recovered::default());
                found = true;
            } else {
                living.add(owner);
            }
        }
        if found {
            self.raise_returned();
            self.wake_all(wait);
        }
        found
    }

    /// Whether a participant other than this process holds a slot.
    pub(super) fn is_held_by_others(&self, me: OwnerId) -> bool {
        self.slots_in(|state| matches!(state, State::Writing | State::Reading)).any(|slot| {
            let owner = SlotWord(self.word(slot).load(Ordering::Relaxed)).owner();
            owner.is_some_and(|owner| owner != me)
        })
    }

    /// What a closed queue in which no item was found may still deliver: `None` if nothing, but for what this process
    /// holds itself. Each slot that is seen free stays so, hence one pass is enough.
    pub(super) fn rest(&self, me: OwnerId) -> Option<PopError> {
        let mut rest = None;
        for slot in self.slots_in(|state| !matches!(state, State::Free | State::DeadLetter)) {
            // ORDERING: Relaxed. Says only whether to look again; that the queue is closed was acquired before.
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            match (word.state(), word.owner()) {
                (Some(State::Writing | State::Reading), Some(owner)) if owner != me => {
                    return Some(PopError::Busy(owner));
                }
                (Some(State::Full | State::Returned), _) => rest = Some(PopError::Empty),
                _ => {}
            }
        }
        rest
    }

    /// Gives an item back to be delivered again, or makes it a dead letter.
    pub(super) fn give_back<W: Wait>(&self, claimed: Claimed, wait: &W) {
        self.return_as(self.after_delivery(claimed.lap, claimed.attempts), claimed, wait);
    }

    /// Gives an item back that was only looked at.
    pub(super) fn put_back<W: Wait>(&self, claimed: Claimed, wait: &W) {
        self.return_as(SlotWord::new(claimed.lap, State::Returned, claimed.attempts), claimed, wait);
    }

    fn return_as<W: Wait>(&self, word: SlotWord, claimed: Claimed, wait: &W) {
        // ORDERING mpmc.full: Release. Pairs with the Acquire in `claim_item`. mpmc.free: and with the one in
        // `claim_to_write`, if it is a letter that is dropped.
        // A plain store ends the producer's release of the payload, so this one publishes it anew.
        self.word_of(claimed.slot).store(word.0, Ordering::Release);
        self.raise_returned();
        self.header().not_empty.0.event.wake(1, self.mode, wait);
        if word.state() == Some(State::DeadLetter) {
            // Its slot is room for whoever needs it.
            self.header().not_full.0.wake(1, self.mode, wait);
        }
    }

    fn recover_dead<W: Wait>(&self, owner: OwnerId, wait: &W) -> Recovered {
        self.header().not_empty.0.forget(owner);
        let mut done = Recovered::default();
        for slot in self.slots_in(|state| matches!(state, State::Writing | State::Reading)) {
            // ORDERING: Relaxed, as above.
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            if word.owner() == Some(owner) {
                self.repair(slot, word, &mut done);
            }
        }
        self.raise_returned();
        self.wake_all(wait);
        done
    }

    /// Recover 1 of one slot, whose word names somebody who is proven dead.
    fn repair(&self, slot: u64, word: SlotWord, done: &mut Recovered) {
        let (after, count) = match word.state() {
            Some(State::Writing) => (SlotWord::new(word.lap().next(), State::Free, 0), &mut done.skipped),
            Some(State::Reading) => {
                let after = self.after_delivery(word.lap(), word.attempts());
                let dead_letter = after.state() == Some(State::DeadLetter);
                (after, if dead_letter { &mut done.dead_letters } else { &mut done.returned })
            }
            _ => return,
        };
        // ORDERING mpmc.free: Release. Pairs with the Acquire in `claim_to_write`.
        // Publishes what the proof of death showed: the dead one's last accesses to the payload. As a
        // read-modify-write it continues the producer's release of the payload. Failure: Relaxed, somebody else
        // has recovered the slot.
        let cas = self.word(slot).compare_exchange(word.0, after.0, Ordering::Release, Ordering::Relaxed);
        if cas.is_ok() {
            *count += 1;
        }
    }

    fn after_delivery(&self, lap: Lap, attempts: u32) -> SlotWord {
        // ORDERING: Relaxed. Written before the queue was shared.
        let max = self.rare().max_attempts.load(Ordering::Relaxed).clamp(1, MAX_ATTEMPTS);
        // A dead letter that was only looked at keeps its number.
        let attempts = (attempts + 1).min(max);
        let state = if attempts >= max { State::DeadLetter } else { State::Returned };
        SlotWord::new(lap, state, attempts)
    }

    /// Says that a slot is RETURNED. Never waits for anybody.
    fn raise_returned(&self) {
        // ORDERING mpmc.returned: Release. Pairs with the Acquire in `claim_returned`.
        // Publishes that a slot is RETURNED.
        self.rare().returned.fetch_add(RAISED, Ordering::Release);
    }
}

/// Whom one call has found alive, by index: nobody is probed twice, whatever the slots say.
struct Living([u16; MAX_PARTICIPANTS as usize]);

impl Living {
    const fn new() -> Self {
        Self([0; MAX_PARTICIPANTS as usize])
    }

    fn contains(&self, owner: OwnerId) -> bool {
        u32::from(self.0[owner.index() as usize]) == owner.generation()
    }

    #[expect(clippy::cast_possible_truncation, reason = "a generation has 12 bits")]
    fn add(&mut self, owner: OwnerId) {
        self.0[owner.index() as usize] = owner.generation() as u16;
    }
}

//! Claiming slots: the loops of push 1-6 and pop 1-6.

use super::recover::{is_raised, looked_at};
use super::word::{SlotWord, State};
use super::{PopError, PushError, Ring};
use crate::owner::OwnerId;
use crate::prim::Ordering;

/// Compare-and-swaps that may be lost before the words count as corrupt: each loss is somebody else's success, so no
/// honest queue comes near.
const MAX_RETRIES: u32 = 1 << 20;

/// A slot that this process has claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub(super) position: u64,
    /// The slot's lap; for a slot that was read out of turn not that of `position`.
    pub(super) lap: u64,
    /// Earlier deliveries of the item.
    pub(super) attempts: u32,
}

/// What a consumer's candidate is.
enum Candidate {
    Take { word: SlotWord, in_turn: bool },
    Behind(u64),
    Nothing(PopError),
}

impl Ring<'_> {
    /// Claims the next slot for writing.
    pub(super) fn claim_to_write(&self, me: OwnerId) -> Result<Claimed, PushError> {
        let tail = &self.header().tail.0;
        // ORDERING mpmc.hint: Acquire. Pairs with the Release where it is stored: the slots up to there are seen claimed.
        let mut position = tail.load(Ordering::Acquire);
        let mut budget = Budget::new(self.capacity);
        while budget.left() {
            let lap = self.lap(position);
            // ORDERING: Relaxed. The CAS acquires what it was decided on.
            let word = SlotWord(self.word(position).load(Ordering::Relaxed));
            let (ahead, Some(state)) = (word.ahead_of(lap), word.state()) else { return Err(PushError::Corrupt) };
            match (ahead, state) {
                (0, State::Free) => {
                    let claim = SlotWord::new(lap, State::Writing, 0).owned(me);
                    // ORDERING mpmc.free: Acquire. Pairs with the Release in `free`: the payload's last reader or writer
                    // is done with it. Failure: Relaxed, the loop reads again.
                    let cas =
                        self.word(position).compare_exchange(word.0, claim.0, Ordering::Acquire, Ordering::Relaxed);
                    if cas.is_ok() {
                        // ORDERING mpmc.hint: Release. Pairs with the Acquires of `tail`.
                        // Publishes that the slots up to here are claimed. It may go back: others walk on from it.
                        tail.store(position.wrapping_add(1), Ordering::Release);
                        return Ok(Claimed { position, lap, attempts: 0 });
                    }
                    budget.retry();
                }
                // Claimed in lap `ahead`, or free for it: the positions up to there are taken.
                (1.., State::Free) => position = self.onward(position, ahead - 1, &mut budget),
                (0.., _) => position = self.onward(position, ahead, &mut budget),
                (-1, State::DeadLetter) => self.drop_letter(position, word, &mut budget),
                (-1, State::Writing | State::Reading) => return Err(PushError::Full(word.owner())),
                (-1, State::Full | State::Returned) => return Err(PushError::Full(None)),
                // Behind a hint there are no such words.
                _ => return Err(PushError::Corrupt),
            }
        }
        Err(PushError::Corrupt)
    }

    /// Claims the next item for reading. `skip_busy`: an item behind one that is still being written may be taken.
    pub(super) fn claim_to_read(&self, me: OwnerId, skip_busy: bool) -> Result<Claimed, PopError> {
        if let Some(claimed) = self.claim_returned(me) {
            return Ok(claimed);
        }
        let head = &self.header().head.0;
        // ORDERING mpmc.hint: Acquire. Pairs with the Release where it is stored: the slots up to there are seen claimed.
        let mut position = head.load(Ordering::Acquire);
        let (mut budget, mut skipped) = (Budget::new(self.capacity), None);
        while budget.left() {
            match self.candidate(position) {
                Candidate::Take { word, in_turn } => match self.claim_item(position, word, me) {
                    Some(claimed) => {
                        if in_turn && skipped.is_none() {
                            // ORDERING mpmc.hint: Release. Pairs with the Acquires of `head`.
                            // Publishes that the slots up to here are claimed. It may go back: others walk on from it.
                            head.store(position.wrapping_add(1), Ordering::Release);
                        }
                        return Ok(claimed);
                    }
                    None => budget.retry(),
                },
                Candidate::Behind(ahead) => {
                    #[expect(clippy::cast_possible_wrap, reason = "a distance of 36 bits")]
                    let laps = ahead as i64;
                    position = self.onward(position, laps, &mut budget);
                }
                Candidate::Nothing(error @ PopError::Busy(_)) if skip_busy => {
                    skipped.get_or_insert(error);
                    position = self.onward(position, 0, &mut budget);
                    if budget.steps > self.capacity {
                        break;
                    }
                }
                Candidate::Nothing(error) => return Err(skipped.unwrap_or(error)),
            }
        }
        Err(skipped.unwrap_or(PopError::Corrupt))
    }

    /// Whether a pop would find an item, or a reason other than `Empty` or `Busy` to return. Claims nothing.
    pub(super) fn may_pop(&self) -> bool {
        // ORDERING: Relaxed. Only decides whether to look again.
        if is_raised(self.rare().returned.load(Ordering::Relaxed)) {
            return true;
        }
        // ORDERING: Relaxed. Only decides whether to look again.
        let mut position = self.header().head.0.load(Ordering::Relaxed);
        let mut budget = Budget::new(self.capacity);
        while budget.left() {
            match self.candidate(position) {
                Candidate::Behind(laps) => {
                    #[expect(clippy::cast_possible_wrap, reason = "a distance of 36 bits")]
                    let laps = laps as i64;
                    position = self.onward(position, laps, &mut budget);
                }
                Candidate::Nothing(PopError::Empty | PopError::Busy(_)) => return false,
                Candidate::Take { .. } | Candidate::Nothing(_) => return true,
            }
        }
        true
    }

    /// Whether a push would find room, or a reason other than `Full` to return. Claims nothing.
    pub(super) fn may_push(&self) -> bool {
        // ORDERING: Relaxed. Only decides whether to look again.
        let mut position = self.header().tail.0.load(Ordering::Relaxed);
        let mut budget = Budget::new(self.capacity);
        while budget.left() {
            let word = SlotWord(self.word(position).load(Ordering::Relaxed));
            match (word.ahead_of(self.lap(position)), word.state()) {
                (1.., Some(State::Free)) => {
                    position = self.onward(position, word.ahead_of(self.lap(position)) - 1, &mut budget);
                }
                (0, Some(State::Free)) | (_, None) => return true,
                (ahead @ 0.., _) => position = self.onward(position, ahead, &mut budget),
                (-1, Some(State::Writing | State::Reading | State::Full | State::Returned)) => return false,
                _ => return true,
            }
        }
        true
    }

    /// Ends a claim: the slot is free for the next lap.
    #[inline]
    pub(super) fn free(&self, claimed: Claimed) {
        let word = SlotWord::new(claimed.lap.wrapping_add(1), State::Free, 0);
        // ORDERING mpmc.free: Release. Pairs with the Acquire in `claim_to_write`.
        // Publishes that this process no longer touches the payload.
        self.word(claimed.position).store(word.0, Ordering::Release);
    }

    /// Ends a claim to write: the item is there.
    #[inline]
    pub(super) fn fill(&self, claimed: Claimed) {
        let word = SlotWord::new(claimed.lap, State::Full, 0);
        // ORDERING mpmc.full: Release. Pairs with the Acquire in `claim_item`.
        // Publishes the payload of this slot.
        self.word(claimed.position).store(word.0, Ordering::Release);
    }

    fn candidate(&self, position: u64) -> Candidate {
        // ORDERING: Relaxed. The CAS of `claim_item` acquires what it was decided on.
        let word = SlotWord(self.word(position).load(Ordering::Relaxed));
        let (ahead, Some(state)) = (word.ahead_of(self.lap(position)), word.state()) else {
            return Candidate::Nothing(PopError::Corrupt);
        };
        let busy = || word.owner().map_or(PopError::Corrupt, PopError::Busy);
        match (ahead, state) {
            (0, State::Free) => Candidate::Nothing(PopError::Empty),
            (0, State::Writing) => Candidate::Nothing(busy()),
            (0, State::Full) => Candidate::Take { word, in_turn: true },
            (0, State::Reading | State::Returned | State::DeadLetter) => Candidate::Behind(0),
            // The slot's position in the lap before the word's has been popped. An item can be popped out of turn, by
            // less than a lap: only what lies a lap before it is sure to be claimed.
            (1.., State::Free | State::Writing | State::Full) => {
                Candidate::Behind(ahead.unsigned_abs().saturating_sub(2))
            }
            (1.., _) => Candidate::Behind(ahead.unsigned_abs() - 1),
            // The slot's earlier lap is unfinished, so nobody has pushed to this position.
            (-1, State::Reading) => Candidate::Nothing(busy()),
            (-1, State::Returned) => Candidate::Take { word, in_turn: false },
            (-1, State::DeadLetter) => Candidate::Nothing(PopError::Empty),
            // Behind a hint there are no such words.
            _ => Candidate::Nothing(PopError::Corrupt),
        }
    }

    /// FULL, RETURNED or DEADLETTER to READING.
    fn claim_item(&self, position: u64, word: SlotWord, me: OwnerId) -> Option<Claimed> {
        let claim = SlotWord::new(word.lap(), State::Reading, word.attempts()).owned(me);
        // ORDERING mpmc.full: Acquire. Pairs with the Release in `fill`: the payload is whole. Later states of the slot
        // come from read-modify-writes, which continue that release. Failure: Relaxed, the caller looks again.
        let cas = self.word(position).compare_exchange(word.0, claim.0, Ordering::Acquire, Ordering::Relaxed);
        cas.is_ok().then_some(Claimed { position, lap: word.lap(), attempts: word.attempts() })
    }

    /// Claims every dead letter, one after the other.
    pub(super) fn claim_letters(&self, me: OwnerId) -> impl Iterator<Item = Claimed> {
        self.slots_in(|state| state == State::DeadLetter).filter_map(move |slot| {
            // ORDERING: Relaxed. The claim acquires exactly this word.
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            if word.state() == Some(State::DeadLetter) { self.claim_item(slot, word, me) } else { None }
        })
    }

    /// Pop 1: an item that a consumer returned or left behind in dying.
    fn claim_returned(&self, me: OwnerId) -> Option<Claimed> {
        // ORDERING mpmc.returned: Acquire. Pairs with the Release in `raise_returned`: who sees the hint sees the slot, and
        // so does not take the hint back too early.
        let hint = self.rare().returned.load(Ordering::Acquire);
        if is_raised(hint) { self.claim_returned_slow(hint, me) } else { None }
    }

    #[cold]
    fn claim_returned_slow(&self, hint: u64, me: OwnerId) -> Option<Claimed> {
        for slot in self.slots_in(|state| state == State::Returned) {
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            if word.state() == Some(State::Returned)
                && let Some(claimed) = self.claim_item(slot, word, me)
            {
                return Some(claimed);
            }
        }
        // Nothing left: take the hint back, unless somebody has raised it again.
        let _ = self.rare().returned.compare_exchange(hint, looked_at(hint), Ordering::Relaxed, Ordering::Relaxed);
        None
    }

    fn drop_letter(&self, position: u64, word: SlotWord, budget: &mut Budget) {
        budget.retry();
        let free = SlotWord::new(word.lap().wrapping_add(1), State::Free, 0);
        // ORDERING: Relaxed. The letter's last reader published that it was done with the payload when it gave the slot
        // up, and this read-modify-write continues that release.
        let cas = self.word(position).compare_exchange(word.0, free.0, Ordering::Relaxed, Ordering::Relaxed);
        if cas.is_ok() {
            self.rare().dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next candidate when the slot of `position` is known to be claimed `laps` laps later too.
    fn onward(&self, position: u64, laps: i64, budget: &mut Budget) -> u64 {
        budget.steps += 1;
        position.wrapping_add(laps.unsigned_abs().wrapping_mul(u64::from(self.capacity))).wrapping_add(1)
    }
}

/// Bounds a walk, so that hostile words make no endless loop.
struct Budget {
    steps: u32,
    max_steps: u32,
    retries: u32,
}

impl Budget {
    fn new(capacity: u32) -> Self {
        // An honest hint lags by what others claim meanwhile; a walk jumps over whole laps, so two are enough, and the
        // rest is for what is claimed during the walk.
        Self { steps: 0, max_steps: capacity * 8 + 64, retries: 0 }
    }

    fn left(&self) -> bool {
        self.steps < self.max_steps && self.retries < MAX_RETRIES
    }

    fn retry(&mut self) {
        self.retries += 1;
    }
}

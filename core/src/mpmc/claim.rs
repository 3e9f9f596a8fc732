//! Claiming slots: the loops of push 1-6 and pop 1-6.

use super::recover::{is_raised, looked_at};
use super::word::{Lap, SlotWord, State};
use super::{PopError, PushError, Ring, SlotStart};
use crate::owner::OwnerId;
use crate::prim::{Ordering, back_off, prefetch};
use crate::wait::Liveness;

/// Compare-and-swaps that may be lost before the words count as corrupt: each loss is somebody else's success, so no
/// honest queue comes near.
const MAX_RETRIES: u32 = 1 << 16;

/// Claimed slots behind the hint that count as somebody at work, whether or not the hint moves meanwhile. The pauses after
/// them come to some 4 us; with fewer, two producers stay in each other's way.
const SURE_MEETINGS: u32 = 8;

/// The most slots that one process claims before it fills or frees the first of them: what others walk over while it is
/// at work, and what is lost or delivered again if it dies.
const MAX_RUN: usize = 16;

/// A slot that this process has claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    /// Where the slot begins.
    pub(super) slot: SlotStart,
    /// The slot's lap.
    pub(super) lap: Lap,
    /// Earlier deliveries of the item.
    pub(super) attempts: u32,
}

/// Slots in a row that this process has claimed: the first as it was found, the others in turn and never delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    first: Claimed,
    position: u64,
    len: u64,
}

impl Run {
    /// One slot.
    pub(super) fn of(first: Claimed) -> Self {
        Self { first, position: 0, len: 1 }
    }

    /// How many slots: 1 to `MAX_RUN`.
    #[expect(clippy::cast_possible_truncation, reason = "at most `MAX_RUN`")]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(super) fn claims(self, ring: Ring<'_>) -> impl Iterator<Item = Claimed> {
        let behind = (1..self.len).map(move |i| ring.in_turn(self.position.wrapping_add(i)));
        core::iter::once(self.first).chain(behind)
    }
}

/// What a consumer's candidate is.
enum Candidate {
    Take {
        in_turn: bool,
    },
    /// The position is claimed, and those of so many laps behind it.
    Behind(i64),
    Nothing(PopError),
}

/// The candidate that could not be claimed at once, and the word that it had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    position: u64,
    word: SlotWord,
}

impl Ring<'_> {
    /// Push 1-3 where nothing is in the way.
    #[inline]
    pub(super) fn claim_to_write_at_once(&self, me: OwnerId) -> Result<Claimed, Seen> {
        let position = self.tail_hint();
        let claimed = self.claim_if_free(position, me)?;
        self.hint_tail(position.wrapping_add(1));
        Ok(claimed)
    }

    /// Claims the next slot for writing.
    pub(super) fn claim_to_write(&self, me: OwnerId) -> Result<Claimed, PushError> {
        self.claim_to_write_at_once(me).or_else(|seen| self.claim_to_write_slow(me, seen))
    }

    /// Push 1-6 from the candidate on that was seen.
    #[inline(never)]
    pub(super) fn claim_to_write_slow(&self, me: OwnerId, seen: Seen) -> Result<Claimed, PushError> {
        let Seen { mut position, mut word } = seen;
        let mut budget = Budget::new(self.capacity);
        while budget.left() {
            let (ahead, Some(state)) = (word.ahead_of(self.lap(position)), word.state()) else {
                return Err(PushError::Corrupt);
            };
            match (ahead, state) {
                (0, State::Free) => match self.claim_slot(position, word, me) {
                    Ok(claimed) => {
                        self.hint_tail(position.wrapping_add(1));
                        return Ok(claimed);
                    }
                    Err(_) => {
                        budget.retry();
                        position = later(position, self.tail_hint());
                    }
                },
                // Claimed in lap `ahead`, or free for it: the positions up to there are taken.
                (1.., State::Free) => position = self.onward(position, ahead - 1, &mut budget),
                (0.., _) => {
                    position = self.onward(position, ahead, &mut budget);
                    position = budget.meet(position, || self.tail_hint());
                }
                (-1, State::DeadLetter) => self.drop_letter(position, word, &mut budget),
                (-1, State::Writing | State::Reading) => return Err(PushError::Full(word.owner())),
                (-1, State::Full | State::Returned) => return Err(PushError::Full(None)),
                // Behind a hint there are no such words.
                _ => return Err(PushError::Corrupt),
            }
            word = self.look(position);
        }
        Err(PushError::Corrupt)
    }

    /// Push 1-3 for up to `most` slots, and at most `MAX_RUN`: each is claimed as by itself, and the hint is stored once.
    #[inline]
    pub(super) fn claim_run_to_write(&self, me: OwnerId, most: usize) -> Result<Run, Seen> {
        let position = self.tail_hint();
        let run = self.claim_run(position, most, |position| self.claim_if_free(position, me))?;
        self.hint_tail(position.wrapping_add(run.len));
        Ok(run)
    }

    /// Pop 1-3 where nothing is in the way. `Err(None)`: an item may have been returned.
    #[inline]
    pub(super) fn claim_to_read_at_once(&self, me: OwnerId) -> Result<Claimed, Option<Seen>> {
        if is_raised(self.returned_hint()) {
            return Err(None);
        }
        let position = self.head_hint();
        let claimed = self.claim_if_full(position, me)?;
        self.hint_head(position.wrapping_add(1));
        Ok(claimed)
    }

    /// Claims the next item for reading. `skip_busy`: an item behind one that is still being written may be taken.
    pub(super) fn claim_to_read(&self, me: OwnerId, skip_busy: bool) -> Result<Claimed, PopError> {
        self.claim_to_read_at_once(me).or_else(|seen| self.claim_to_read_slow(me, skip_busy, seen))
    }

    /// Pop 1-6 from the candidate on that was seen, or from the beginning.
    #[inline(never)]
    pub(super) fn claim_to_read_slow(
        &self,
        me: OwnerId,
        skip_busy: bool,
        seen: Option<Seen>,
    ) -> Result<Claimed, PopError> {
        let Seen { mut position, mut word } = match seen {
            Some(seen) => seen,
            None => match self.claim_returned(me) {
                Some(claimed) => return Ok(claimed),
                None => self.seen(self.head_hint()),
            },
        };
        let (mut budget, mut skipped) = (Budget::new(self.capacity), None);
        while budget.left() {
            match self.candidate(position, word) {
                Candidate::Take { in_turn } => match self.claim_item(position, word, me) {
                    Ok(claimed) => {
                        if in_turn && skipped.is_none() {
                            self.hint_head(position.wrapping_add(1));
                        }
                        return Ok(claimed);
                    }
                    Err(_) => {
                        budget.retry();
                        if skipped.is_none() {
                            position = later(position, self.head_hint());
                        }
                    }
                },
                Candidate::Behind(laps) => {
                    position = self.onward(position, laps, &mut budget);
                    if skipped.is_none() {
                        position = budget.meet(position, || self.head_hint());
                    }
                }
                Candidate::Nothing(error @ PopError::Busy(_)) if skip_busy => {
                    skipped.get_or_insert(error);
                    // Ends at the latest a lap on, where this very slot shows that nobody has pushed there.
                    position = self.onward(position, 0, &mut budget);
                }
                Candidate::Nothing(error) => return Err(skipped.unwrap_or(error)),
            }
            word = self.look(position);
        }
        Err(skipped.unwrap_or(PopError::Corrupt))
    }

    /// Pop 1-3 for up to `most` items, and at most `MAX_RUN`: each is claimed as by itself, and the hint is stored once.
    #[inline]
    pub(super) fn claim_run_to_read(&self, me: OwnerId, most: usize) -> Result<Run, Option<Seen>> {
        if is_raised(self.returned_hint()) {
            return Err(None);
        }
        let position = self.head_hint();
        let run = self.claim_run(position, most, |position| self.claim_if_full(position, me))?;
        self.hint_head(position.wrapping_add(run.len));
        Ok(run)
    }

    /// Claims the position, which somebody has to have, and those behind it as far as they can be had.
    #[inline]
    fn claim_run(&self, position: u64, most: usize, claim: impl Fn(u64) -> Result<Claimed, Seen>) -> Result<Run, Seen> {
        let most = most.min(MAX_RUN) as u64;
        let slots_of_a_line = (8 / self.stride).max(1) as usize;
        let first = claim(position)?;
        for ahead in (1..most).step_by(slots_of_a_line) {
            prefetch(self.place(self.slot(position.wrapping_add(ahead))));
        }
        let behind = (1..most).take_while(|i| claim(position.wrapping_add(*i)).is_ok()).count() as u64;
        Ok(Run { first, position, len: 1 + behind })
    }

    /// The claim of `position` as it is when its item was not delivered before.
    #[inline]
    fn in_turn(&self, position: u64) -> Claimed {
        Claimed { slot: self.slot(position), lap: self.lap(position), attempts: 0 }
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
            match self.candidate(position, self.look(position)) {
                Candidate::Behind(laps) => position = self.onward(position, laps, &mut budget),
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
        let word = SlotWord::new(claimed.lap.next(), State::Free, 0);
        // ORDERING mpmc.free: Release. Pairs with the Acquire in `claim_to_write`.
        // Publishes that this process no longer touches the payload.
        self.word_of(claimed.slot).store(word.0, Ordering::Release);
    }

    /// Ends a claim to write: the item is there.
    #[inline]
    pub(super) fn fill(&self, claimed: Claimed) {
        let word = SlotWord::new(claimed.lap, State::Full, 0);
        // ORDERING mpmc.full: Release. Pairs with the Acquire in `claim_item`.
        // Publishes the payload of this slot.
        self.word_of(claimed.slot).store(word.0, Ordering::Release);
    }

    fn candidate(&self, position: u64, word: SlotWord) -> Candidate {
        let (ahead, Some(state)) = (word.ahead_of(self.lap(position)), word.state()) else {
            return Candidate::Nothing(PopError::Corrupt);
        };
        let busy = || word.owner().map_or(PopError::Corrupt, PopError::Busy);
        match (ahead, state) {
            (0, State::Free) => Candidate::Nothing(PopError::Empty),
            (0, State::Writing) => Candidate::Nothing(busy()),
            (0, State::Full) => Candidate::Take { in_turn: true },
            (0, State::Reading | State::Returned | State::DeadLetter) => Candidate::Behind(0),
            // The slot's position in the lap before the word's has been popped. An item can be popped out of turn, by
            // less than a lap: only what lies a lap before it is sure to be claimed.
            (1.., State::Free | State::Writing | State::Full) => Candidate::Behind((ahead - 2).max(0)),
            (1.., _) => Candidate::Behind(ahead - 1),
            // The slot's earlier lap is unfinished, so nobody has pushed to this position.
            (-1, State::Reading) => Candidate::Nothing(busy()),
            (-1, State::Returned) => Candidate::Take { in_turn: false },
            (-1, State::DeadLetter) => Candidate::Nothing(PopError::Empty),
            // Behind a hint there are no such words.
            _ => Candidate::Nothing(PopError::Corrupt),
        }
    }

    /// Every position before the one returned is claimed.
    #[inline]
    pub(super) fn tail_hint(&self) -> u64 {
        // ORDERING mpmc.hint: Acquire. Pairs with the Release in `hint_tail`: the slots up to there are seen claimed.
        self.header().tail.0.load(Ordering::Acquire)
    }

    /// Says that every position before `position` is claimed.
    #[inline]
    pub(super) fn hint_tail(&self, position: u64) {
        // ORDERING mpmc.hint: Release. Pairs with the Acquire in `tail_hint`.
        // Publishes that the slots up to there are claimed. It may go back: others walk on from it.
        self.header().tail.0.store(position, Ordering::Release);
    }

    /// As [`tail_hint`](Self::tail_hint), of claims for reading.
    #[inline]
    pub(super) fn head_hint(&self) -> u64 {
        // ORDERING mpmc.hint: Acquire. Pairs with the Release in `hint_head`: the slots up to there are seen claimed.
        self.header().head.0.load(Ordering::Acquire)
    }

    /// As [`hint_tail`](Self::hint_tail), of claims for reading.
    #[inline]
    pub(super) fn hint_head(&self, position: u64) {
        // ORDERING mpmc.hint: Release. Pairs with the Acquire in `head_hint`.
        // Publishes that the slots up to there are claimed. It may go back: others walk on from it.
        self.header().head.0.store(position, Ordering::Release);
    }

    #[inline]
    fn look(&self, position: u64) -> SlotWord {
        // ORDERING: Relaxed. The CAS of a claim acquires what it was decided on.
        SlotWord(self.word(position).load(Ordering::Relaxed))
    }

    fn seen(&self, position: u64) -> Seen {
        Seen { position, word: self.look(position) }
    }

    /// Claims the slot of `position` for writing, if it is free for that. Looks first, because a CAS that fails takes the
    /// line from whoever is at work on it.
    #[inline]
    fn claim_if_free(&self, position: u64, me: OwnerId) -> Result<Claimed, Seen> {
        let (word, free) = (self.look(position), SlotWord::new(self.lap(position), State::Free, 0));
        let done = if word == free { self.claim_slot(position, free, me) } else { Err(word) };
        done.map_err(|word| Seen { position, word })
    }

    /// Claims the item of `position`, if it is there and was never delivered. Looks first, as above.
    #[inline]
    fn claim_if_full(&self, position: u64, me: OwnerId) -> Result<Claimed, Seen> {
        let (word, full) = (self.look(position), SlotWord::new(self.lap(position), State::Full, 0));
        let done = if word == full { self.claim_item(position, full, me) } else { Err(word) };
        done.map_err(|word| Seen { position, word })
    }

    /// FREE to WRITING. Not the word that was there: the one that is.
    #[inline]
    fn claim_slot(&self, position: u64, free: SlotWord, me: OwnerId) -> Result<Claimed, SlotWord> {
        let slot = self.slot(position);
        let claim = SlotWord::new(free.lap(), State::Writing, 0).owned(me);
        // ORDERING mpmc.free: Acquire. Pairs with the Release in `free`: the payload's last reader or writer is done with
        // it. Failure: Relaxed, the caller looks again.
        let cas = self.word_of(slot).compare_exchange(free.0, claim.0, Ordering::Acquire, Ordering::Relaxed);
        cas.map(|_| Claimed { slot, lap: free.lap(), attempts: 0 }).map_err(SlotWord)
    }

    /// FULL, RETURNED or DEADLETTER to READING. Not the word that was there: the one that is.
    #[inline]
    fn claim_item(&self, position: u64, word: SlotWord, me: OwnerId) -> Result<Claimed, SlotWord> {
        let slot = self.slot(position);
        let claim = SlotWord::new(word.lap(), State::Reading, word.attempts()).owned(me);
        // ORDERING mpmc.full: Acquire. Pairs with the Release in `fill`: the payload is whole. Later states of the slot
        // come from read-modify-writes, which continue that release. Failure: Relaxed, the caller looks again.
        let cas = self.word_of(slot).compare_exchange(word.0, claim.0, Ordering::Acquire, Ordering::Relaxed);
        cas.map(|_| Claimed { slot, lap: word.lap(), attempts: word.attempts() }).map_err(SlotWord)
    }

    /// Claims every dead letter, one after the other, as long as this process is `me`.
    pub(super) fn claim_letters<L: Liveness>(&self, me: OwnerId, life: &L) -> impl Iterator<Item = Claimed> {
        let letters = self.slots_in(|state| state == State::DeadLetter).take_while(move |_| life.is_still(me));
        letters.filter_map(move |slot| {
            // ORDERING: Relaxed. The claim acquires exactly this word.
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            if word.state() == Some(State::DeadLetter) { self.claim_item(slot, word, me).ok() } else { None }
        })
    }

    /// Pop 1: an item that a consumer returned or left behind in dying.
    fn claim_returned(&self, me: OwnerId) -> Option<Claimed> {
        let hint = self.returned_hint();
        if is_raised(hint) { self.claim_returned_slow(hint, me) } else { None }
    }

    #[inline]
    fn returned_hint(&self) -> u64 {
        // ORDERING mpmc.returned: Acquire. Pairs with the Release in `raise_returned`: who sees the hint sees the slot, and
        // so does not take the hint back too early.
        self.rare().returned.load(Ordering::Acquire)
    }

    #[cold]
    fn claim_returned_slow(&self, hint: u64, me: OwnerId) -> Option<Claimed> {
        for slot in self.slots_in(|state| state == State::Returned) {
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            if word.state() == Some(State::Returned)
                && let Ok(claimed) = self.claim_item(slot, word, me)
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
        let free = SlotWord::new(word.lap().next(), State::Free, 0);
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

/// The further of two positions.
fn later(a: u64, b: u64) -> u64 {
    #[expect(clippy::cast_possible_wrap, reason = "the wrapping distance is meant")]
    let ahead = b.wrapping_sub(a) as i64;
    if ahead > 0 { b } else { a }
}

/// Bounds a walk, so that hostile words make no endless loop.
struct Budget {
    steps: u32,
    max_steps: u32,
    retries: u32,
    /// Others met who are at work.
    met: u32,
    is_moving: bool,
}

impl Budget {
    fn new(capacity: u32) -> Self {
        // An honest hint lags by what others claim meanwhile; a walk jumps over whole laps, so two are enough, and the
        // rest is for what is claimed during the walk.
        Self { steps: 0, max_steps: capacity * 8 + 64, retries: 0, met: 0, is_moving: true }
    }

    fn left(&self) -> bool {
        self.steps < self.max_steps && self.retries < MAX_RETRIES
    }

    /// A compare-and-swap was lost to somebody who is at the same words: each loss in a row leaves them alone for twice
    /// as long.
    fn retry(&mut self) {
        back_off(self.retries);
        self.retries += 1;
    }

    /// The slot before `position` was claimed since the hint was stored: by somebody at work there, who is left alone for
    /// a while, each time for twice as long; or the hint lags and moves no more, and the walk goes on at once. Returns
    /// where it goes on.
    #[inline]
    fn meet(&mut self, position: u64, hint: impl Fn() -> u64) -> u64 {
        if self.is_moving || self.met < SURE_MEETINGS {
            back_off(self.met);
            self.met += 1;
        }
        let hint = hint();
        let onward = later(position, hint);
        self.is_moving = onward != position;
        onward
    }
}

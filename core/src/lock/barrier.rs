//! A meeting point of a fixed number of parties, which breaks when one of them dies, instead of hanging.
//!
//! # What
//! A phase word, a place word for each party, and two [`EventWord`]s: `turned` for those who wait for the round to end,
//! `left` for those who wait for a place. A round is an *attempt*; attempts are numbered, and a reset begins a new one.
//!
//! | phase: `attempt:26`, `completed:26`, `state:2`, `actor:10` | state |
//! |---|---|
//! | FILLING | parties arrive |
//! | ACTING | all have arrived; the party at place `actor` does what is to be done before they go on |
//! | BROKEN | nobody gets through until a reset |
//!
//! `completed` is 1 more than the attempt that was completed last; 0: none.
//!
//! | place: `attempt:32`, `INSIDE:1`, `FREED:1`, `owner:30` | state |
//! |---|---|
//! | 0 | free, and nobody was ever here |
//! | FREED | free, and somebody was here in that attempt |
//! | owner, INSIDE | a thread of that process has arrived in that attempt, and has not left yet |
//! | owner | that process was here last, in that attempt; it is a *registered* party, and its death breaks the barrier |
//!
//! A party that was never here is not known, so its death before its first arrival is not seen. An arrival takes a place of
//! its own process, else a free one, else one that another process is registered at: parties may change, and there may be more
//! of them than meet in one round.
//!
//! # Protocol
//! Wait ([`Barrier::wait`]):
//! 1. the phase is BROKEN: `Broken`. FILLING in attempt a: CAS(a place that is not INSIDE -> (a, INSIDE, me)). No such
//!    place: sleep on `left`, and again. Then the phase is in another attempt, and somebody had been at this place in
//!    attempt a or later: a was over before this arrival, which so counts for nothing: CAS(the place -> what it was); wake who
//!    waits for a place; again;
//! 2. the phase says what became of a: `completed` = a + 1: through. BROKEN, or another attempt: `Broken`;
//! 3. FILLING and every place is INSIDE in attempt a: CAS(phase -> ACTING by me); then the action;
//!    CAS(phase -> FILLING in attempt a + 1, `completed` = a + 1); wake all: through, as leader. A panic of the action:
//!    CAS(phase -> BROKEN); wake all;
//! 4. else announce at `turned`; full fence; the phase has changed, or all have arrived: again from 2. This look is
//!    needed: the last two to arrive may each miss the other at 3, but not both behind their fences. Otherwise sleep, at
//!    most for a 10 ms slice; then probe the owners of all places, up to 16: one is proven dead:
//!    CAS(phase -> BROKEN), if it still is attempt a; wake all. At the deadline likewise, and `TimedOut`. Again from 2;
//! 5. leave: CAS(my place -> registered); wake who waits for a place.
//!
//! A party that is killed after its arrival has done its part: the round may end with it, and the next one breaks.
//! Any party can do 3 for one that was killed after the last arrival. Nobody completes attempt a + 1 before every party of
//! a has left, so `completed` stays what they need to see; only 2^26 resets during one sleep could deceive them.
//!
//! The look behind the CAS of 1 is needed: a party may read the phase, be overtaken by a whole round of others, and then find
//! a place that one of these has left.
//!
//! Abort: CAS(phase of whichever attempt -> BROKEN); wake all. Reset: free the places of the dead; CAS(phase -> FILLING in
//! a + 1); wake all. Recover a participant that is *proven* dead and has a place: CAS(phase of attempt a -> BROKEN), with the
//! attempt read before the place; wake all.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `barrier.place` | CAS in `claim` | load in `all_arrived` | what the party did before it arrived | `barrier` |
//! | `barrier.left` | CAS in `leave` | CAS in `claim` | how far the phase was when this place was left | `barrier` |
//! | `barrier.phase` | CAS in `turn` | full fence in `leave`, behind the load in `phase` | what all parties did before they arrived, and the action | `barrier` |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | wait 1, CAS and look | a dead owner at a place, in an attempt that may be over: broken |
//! | wait 1 and 5: a party that waits | a dead owner at a place: one who waits breaks the barrier, within a slice for each 16 parties; with nobody who waits, the last to arrive ends the round with it, and the next one is broken |
//! | wait 1, as the last, and 3 | all have arrived: another one goes on with 3, or breaks it |
//! | wait 3, at the action | ACTING with a dead actor: broken |
//! | wait 3, CAS and wake | the next attempt; sleepers see it when their slices end |
//! | after 5, when it does not come again | a dead registered party: broken |
//! | reset, anywhere | still BROKEN, or the next attempt with sleepers who see it when their slices end |
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::event::{EventWord, Slept};
use crate::owner::OwnerId;
use crate::prim::{AtomicU64, Ordering, fence_after_rmw};
use crate::probe::Prober;
use crate::table::{Table, TableError};
use crate::wait::{Liveness, Slice, Wait, WakeMode};

/// The most parties of one barrier.
pub const MAX_PARTIES: u32 = 1 << 10;

const ATTEMPT_MASK: u64 = (1 << 26) - 1;
const COMPLETED_SHIFT: u32 = 12;
const ATTEMPT_SHIFT: u32 = 38;
const STATE_SHIFT: u32 = 10;
const FILLING: u64 = 0;
const ACTING: u64 = 1;
const BROKEN: u64 = 2;
/// Bit 31 of a place: its party has not left.
const INSIDE: u64 = 1 << 31;
/// Bit 30 of a place: it is nobody's, and once was somebody's.
const FREED: u64 = 1 << 30;
/// Looks that find something in a row before a party sleeps all the same, and so looks at its deadline. Peers that keep to
/// the protocol let it sleep or go on long before that.
const READY_IN_A_ROW: u32 = 64;

#[derive(Debug, Default)]
#[repr(C)]
struct Header {
    phase: AtomicU64,
    turned: EventWord,
    left: EventWord,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 16);

/// A barrier in shared memory. Made by [`init`](Self::init); all zero is a valid start.
#[derive(Debug, Clone, Copy)]
pub struct Barrier<'m>(Table<'m, Header, AtomicU64>);

/// How a party got through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// A number below the number of parties, different for each party of one round.
    pub index: u32,
    /// Whether this party ended the round and did the action: true for one of them.
    pub is_leader: bool,
}

/// Why a party did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierError {
    /// A party died, gave up, aborted, or panicked in its action; or the barrier was reset while this one waited.
    Broken,
    /// The deadline has passed. If this party had arrived, the barrier is broken for all.
    TimedOut,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The words hold what no process writes that keeps to the protocol.
    Corrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Phase(u64);

impl Phase {
    const fn new(attempt: u64, completed: u64, state: u64, actor: u64) -> Self {
        let (attempt, completed) = (attempt & ATTEMPT_MASK, completed & ATTEMPT_MASK);
        Self(attempt << ATTEMPT_SHIFT | completed << COMPLETED_SHIFT | state << STATE_SHIFT | actor)
    }
    const fn attempt(self) -> u64 {
        self.0 >> ATTEMPT_SHIFT
    }
    const fn completed(self) -> u64 {
        self.0 >> COMPLETED_SHIFT & ATTEMPT_MASK
    }
    const fn state(self) -> u64 {
        self.0 >> STATE_SHIFT & 3
    }
    const fn turned_to(self, state: u64, actor: u64) -> Self {
        Self::new(self.attempt(), self.completed(), state, actor)
    }
    const fn next(self) -> Self {
        Self::new(self.attempt() + 1, self.attempt() + 1, FILLING, 0)
    }
    const fn reset(self) -> Self {
        Self::new(self.attempt() + 1, self.completed(), FILLING, 0)
    }
    /// What became of `attempt`, if that is decided.
    fn outcome(self, attempt: u64) -> Option<Result<(), BarrierError>> {
        if self.completed() == (attempt + 1) & ATTEMPT_MASK {
            Some(Ok(()))
        } else if self.attempt() != attempt || self.state() == BROKEN {
            Some(Err(BarrierError::Broken))
        } else if self.state() > BROKEN {
            Some(Err(BarrierError::Corrupt))
        } else {
            None
        }
    }
}

impl<'m> Barrier<'m> {
    /// The memory that a barrier of `parties` takes, 1..=[`MAX_PARTIES`].
    ///
    /// # Errors
    /// [`TableError::Count`].
    pub fn layout(parties: u32) -> Result<Layout, TableError> {
        Table::<Header, AtomicU64>::layout(parties, MAX_PARTIES)
    }

    /// Writes a barrier of `parties` at which nobody is.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes during `'m`, and nobody else uses it yet.
    pub unsafe fn init(memory: NonNull<u8>, len: usize, parties: u32) -> Result<Self, TableError> {
        let (header, place) = (Header::default(), || AtomicU64::new(0));
        // SAFETY: the caller's contract.
        unsafe { Table::init(memory, len, parties, MAX_PARTIES, header, place) }.map(Self)
    }

    /// The barrier of `parties` that lies in `memory`.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes during `'m`; whoever writes it does so by atomic accesses.
    pub unsafe fn attach(memory: NonNull<u8>, len: usize, parties: u32) -> Result<Self, TableError> {
        // SAFETY: the caller's contract; header and places are atomic integers.
        unsafe { Table::attach(memory, len, parties, MAX_PARTIES) }.map(Self)
    }

    /// How many parties meet.
    #[must_use]
    pub fn parties(&self) -> u32 {
        u32::try_from(self.0.words.len()).unwrap_or(MAX_PARTIES)
    }

    /// How many parties wait: old by the time it is known.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let attempt = self.phase().attempt();
        // ORDERING: Relaxed. A number that may be old.
        let arrived = self.0.words.iter().filter(|place| has_arrived(place.load(Ordering::Relaxed), attempt)).count();
        u32::try_from(arrived).unwrap_or(MAX_PARTIES)
    }

    /// Whether nobody gets through until a reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.phase().state() == BROKEN
    }

    /// Arrives, and waits for the others until the deadline; one of them calls its `action` before any goes on.
    ///
    /// # Errors
    /// [`BarrierError::Broken`], [`BarrierError::TimedOut`], [`BarrierError::Forked`], [`BarrierError::Corrupt`].
    ///
    /// # Panics
    /// If `action` does; the barrier is broken then.
    ///
    /// # Crash
    /// A process killed inside breaks the barrier, or has got through.
    pub fn wait<E: Wait + Liveness>(
        &self,
        env: &E,
        deadline: E::Deadline,
        action: impl FnOnce(),
    ) -> Result<Passed, BarrierError> {
        let me = env.me().ok_or(BarrierError::Forked)?;
        let (place, attempt) = self.enter(me, env, deadline)?;
        let party = Party { barrier: self, env, me, place, attempt };
        let is_leader = party.stay(deadline, action)?;
        let index = u32::try_from(place).unwrap_or(MAX_PARTIES);
        Ok(Passed { index, is_leader })
    }

    /// Breaks the barrier: who waits, and who comes before a reset, gets `Broken`. Does not block.
    pub fn abort<W: Wait>(&self, wait: &W) {
        let mut phase = self.phase();
        while phase.state() < BROKEN {
            match self.turn(phase, phase.turned_to(BROKEN, 0)) {
                Ok(()) => return self.wake_all(wait),
                Err(now) => phase = now,
            }
        }
    }

    /// Makes the barrier new: who waits gets `Broken`; parties that are proven dead are forgotten. Does not block; probes
    /// the owner of each place.
    ///
    /// # Crash
    /// A process killed inside has reset the barrier or has not.
    pub fn reset<E: Wait + Liveness>(&self, env: &E) {
        for place in self.0.words {
            // ORDERING: Relaxed. The CAS takes exactly this word, whose owner is proven dead.
            let seen = place.load(Ordering::Relaxed);
            if owner_of(seen).is_some_and(|owner| env.me() != Some(owner) && env.is_dead(owner)) {
                let _ = place.compare_exchange(seen, freed(seen), Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        let mut phase = self.phase();
        while let Err(now) = self.turn(phase, phase.reset()) {
            phase = now;
        }
        self.wake_all(env);
    }

    /// Forgets this process as a party where none of its threads waits, so that its end breaks nothing.
    pub fn withdraw<E: Wait + Liveness>(&self, env: &E) {
        let Some(me) = env.me() else { return };
        for place in self.0.words {
            // ORDERING: Relaxed, here and below. Publishes nothing.
            let seen = place.load(Ordering::Relaxed);
            if seen & INSIDE == 0 && owner_of(seen) == Some(me) {
                let _ = place.compare_exchange(seen, freed(seen), Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Breaks the barrier if `owner` is a party and proven dead, and wakes everybody. Idempotent.
    pub fn recover<E: Wait + Liveness>(&self, owner: OwnerId, env: &E) {
        if !env.is_dead(owner) {
            return;
        }
        let attempt = self.phase().attempt();
        // ORDERING: Relaxed. The proof of death made what the dead one wrote visible.
        if self.0.words.iter().any(|place| owner_of(place.load(Ordering::Relaxed)) == Some(owner)) {
            self.break_attempt(attempt, env);
        }
        self.wake_all(env);
    }

    /// As [`recover`](Self::recover), for everybody whom `life` knows to be dead.
    pub fn reap<L: Liveness, W: Wait>(&self, life: &L, wait: &W) {
        let attempt = self.phase().attempt();
        // ORDERING: Relaxed. As in `recover`.
        let is_dead =
            |place: &AtomicU64| owner_of(place.load(Ordering::Relaxed)).is_some_and(|owner| life.is_dead(owner));
        if self.0.words.iter().any(is_dead) {
            self.break_attempt(attempt, wait);
        }
        self.wake_all(wait);
    }

    /// Wait 1: the place, and the attempt.
    fn enter<E: Wait + Liveness>(
        &self,
        me: OwnerId,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<(usize, u64), BarrierError> {
        let (mut prober, mut ready) = (Prober::default(), 0);
        loop {
            let phase = self.phase();
            let attempt = phase.attempt();
            match phase.state() {
                FILLING => {
                    if let Some((place, before)) = self.claim(attempt, me) {
                        // ORDERING: Relaxed, in `phase`. `claim` has acquired how far it was when somebody left this place.
                        if self.phase().attempt() == attempt || is_before(before, attempt) {
                            return Ok((place, attempt));
                        }
                        self.leave(place, arrived(attempt, me), before, env);
                    }
                }
                ACTING => {}
                BROKEN => return Err(BarrierError::Broken),
                _ => return Err(BarrierError::Corrupt),
            }
            let slept = self.0.header.left.sleep_unless(WakeMode::Fenced, Slice::Owner, deadline, env, || {
                // ORDERING: Relaxed. The loop looks again.
                let has_room = || self.0.words.iter().any(|place| place.load(Ordering::Relaxed) & INSIDE == 0);
                ready < READY_IN_A_ROW
                    && (self.0.header.phase.load(Ordering::Relaxed) != phase.0
                        || phase.state() == FILLING && has_room())
            });
            ready = if slept == Slept::Ready { ready + 1 } else { 0 };
            match slept {
                Slept::Ready => continue,
                Slept::Expired => return Err(BarrierError::TimedOut),
                Slept::Again => {}
            }
            self.break_if_dead(&mut prober, attempt, me, env);
        }
    }

    /// CAS of a place that nobody is inside to (attempt, INSIDE, me): which, and what it was.
    fn claim(&self, attempt: u64, me: OwnerId) -> Option<(usize, u64)> {
        let mine = |seen: u64| seen & INSIDE == 0 && owner_of(seen) == Some(me);
        let free = |seen: u64| seen & INSIDE == 0 && owner_of(seen).is_none();
        let left = |seen: u64| seen & INSIDE == 0;
        let arrived = arrived(attempt, me);
        let takes = |(at, place): (usize, &AtomicU64), fits: &dyn Fn(u64) -> bool| {
            // ORDERING: Relaxed. The CAS takes exactly this word.
            let seen = place.load(Ordering::Relaxed);
            // ORDERING barrier.place: AcqRel. Pairs with the Acquire in `all_arrived`. Publishes what this party did before it
            // arrived. And barrier.left: AcqRel. Pairs with the Release in `leave`: the phase that is read next is no older
            // than the one with which this place was left. Failure: Relaxed, nothing is read.
            let taken =
                fits(seen) && place.compare_exchange(seen, arrived, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            taken.then_some((at, seen))
        };
        let preferences: [&dyn Fn(u64) -> bool; 3] = [&mine, &free, &left];
        preferences.iter().find_map(|fits| self.0.words.iter().enumerate().find_map(|place| takes(place, fits)))
    }

    /// CAS of a place that is `arrived` to `after`, and the wake of who waits for one.
    fn leave<W: Wait>(&self, place: usize, arrived: u64, after: u64, wait: &W) {
        let word = &self.0.words[place];
        // ORDERING barrier.left: Release. Pairs with the AcqRel in `claim`. Publishes the phase that this party has seen.
        // Failure: Relaxed, nothing is read.
        let _ = word.compare_exchange(arrived, after, Ordering::Release, Ordering::Relaxed);
        // ORDERING event.announce: SeqCst fence. Pairs with the fence in `heavy`: either this party sees the flag, or the
        // one that waits for a place sees it. And barrier.phase: SeqCst fence. Pairs with the Release in `turn`: what all
        // parties did, and the action, is visible to this one when it goes on.
        fence_after_rmw(Ordering::SeqCst);
        self.0.header.left.wake_fenced(u32::MAX, wait);
    }

    fn all_arrived(&self, attempt: u64) -> bool {
        // ORDERING barrier.place: Acquire. Pairs with the Release in `claim`.
        self.0.words.iter().all(|place| has_arrived(place.load(Ordering::Acquire), attempt))
    }

    fn phase(&self) -> Phase {
        // ORDERING: Relaxed. Who goes on fences when it leaves its place; the CASes take exactly what was read.
        Phase(self.0.header.phase.load(Ordering::Relaxed))
    }

    /// CAS of the phase.
    fn turn(&self, from: Phase, to: Phase) -> Result<(), Phase> {
        // ORDERING barrier.phase: Release. Pairs with the fence in `leave`.
        // Publishes what the parties did, which `all_arrived` acquired, and the action. Failure: Relaxed, the callers
        // that go on look again.
        let cas = self.0.header.phase.compare_exchange(from.0, to.0, Ordering::Release, Ordering::Relaxed);
        cas.map(|_| ()).map_err(Phase)
    }

    /// CAS to BROKEN, if the phase is that attempt's and neither completed nor broken; whether this call did it.
    fn break_attempt<W: Wait>(&self, attempt: u64, wait: &W) -> bool {
        let mut phase = self.phase();
        while phase.attempt() == attempt && phase.state() < BROKEN {
            match self.turn(phase, phase.turned_to(BROKEN, 0)) {
                Ok(()) => {
                    self.wake_all(wait);
                    return true;
                }
                Err(now) => phase = now,
            }
        }
        false
    }

    /// Breaks the attempt if one of those who have a place, and are asked about, is dead.
    fn break_if_dead<E: Wait + Liveness>(&self, prober: &mut Prober, attempt: u64, me: OwnerId, env: &E) {
        // ORDERING: Relaxed. Only names whom to probe.
        let owner_at = |at: usize| owner_of(self.0.words[at].load(Ordering::Relaxed));
        if prober.find_dead(self.0.words.len(), me, env, owner_at).is_some() {
            self.break_attempt(attempt, env);
        }
    }

    fn wake_all<W: Wait>(&self, wait: &W) {
        self.0.header.turned.wake_all(wait);
        self.0.header.left.wake_all(wait);
    }
}

/// A thread that has arrived; leaves its place when dropped.
struct Party<'a, 'm, E: Wait + Liveness> {
    barrier: &'a Barrier<'m>,
    env: &'a E,
    me: OwnerId,
    place: usize,
    attempt: u64,
}

impl<E: Wait + Liveness> Party<'_, '_, E> {
    /// Wait 2 to 4: whether this party was the one that ended the round.
    fn stay(&self, deadline: E::Deadline, action: impl FnOnce()) -> Result<bool, BarrierError> {
        let (barrier, mut prober, mut action) = (self.barrier, Prober::default(), Some(action));
        let mut ready = 0;
        loop {
            let phase = barrier.phase();
            if let Some(outcome) = phase.outcome(self.attempt) {
                return outcome.map(|()| false);
            }
            let looks_on = ready < READY_IN_A_ROW;
            if looks_on && phase.state() == FILLING && barrier.all_arrived(self.attempt) {
                let acting = phase.turned_to(ACTING, self.place as u64);
                if barrier.turn(phase, acting).is_ok()
                    && let Some(action) = action.take()
                {
                    return self.act(acting, action).map(|()| true);
                }
                ready += 1;
                continue;
            }
            let slept =
                barrier.0.header.turned.sleep_unless(WakeMode::Fenced, Slice::Owner, deadline, self.env, || {
                    // ORDERING: Relaxed. The loop looks again.
                    let has_changed = barrier.0.header.phase.load(Ordering::Relaxed) != phase.0;
                    looks_on && (has_changed || phase.state() == FILLING && barrier.all_arrived(self.attempt))
                });
            ready = if slept == Slept::Ready { ready + 1 } else { 0 };
            if slept == Slept::Expired && barrier.break_attempt(self.attempt, self.env) {
                return Err(BarrierError::TimedOut);
            }
            if slept == Slept::Again {
                barrier.break_if_dead(&mut prober, self.attempt, self.me, self.env);
            }
        }
    }

    /// Wait 3, after its first step.
    fn act(&self, acting: Phase, action: impl FnOnce()) -> Result<(), BarrierError> {
        let breaks = BreaksUnlessForgotten(self);
        action();
        core::mem::forget(breaks);
        let turned = self.barrier.turn(acting, acting.next());
        self.barrier.wake_all(self.env);
        turned.map_err(|_| BarrierError::Broken)
    }
}

impl<E: Wait + Liveness> Drop for Party<'_, '_, E> {
    fn drop(&mut self) {
        // A fork child's copy is the parent's.
        if self.env.me() != Some(self.me) {
            return;
        }
        let inside = arrived(self.attempt, self.me);
        self.barrier.leave(self.place, inside, inside & !INSIDE, self.env);
    }
}

/// Breaks the barrier when the action unwinds.
struct BreaksUnlessForgotten<'a, 'b, 'm, E: Wait + Liveness>(&'a Party<'b, 'm, E>);

impl<E: Wait + Liveness> Drop for BreaksUnlessForgotten<'_, '_, '_, E> {
    fn drop(&mut self) {
        self.0.barrier.break_attempt(self.0.attempt, self.0.env);
    }
}

/// The word of a place at which `me` has arrived in `attempt`.
const fn arrived(attempt: u64, me: OwnerId) -> u64 {
    attempt << 32 | INSIDE | me.to_word() as u64
}

/// The word of a place that was `seen` and is free from here on.
const fn freed(seen: u64) -> u64 {
    seen >> 32 << 32 | FREED
}

/// Whether nobody had been at a place that was `seen` since `attempt` began. Attempts go round: 2^25 of them are as far back as
/// a place may have been left alone.
const fn is_before(seen: u64, attempt: u64) -> bool {
    let ago = attempt.wrapping_sub(seen >> 32) & ATTEMPT_MASK;
    seen == 0 || ago != 0 && ago <= ATTEMPT_MASK / 2
}

const fn has_arrived(place: u64, attempt: u64) -> bool {
    place & INSIDE != 0 && place >> 32 == attempt
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn owner_of(place: u64) -> Option<OwnerId> {
    OwnerId::from_word(place as u32)
}

impl core::fmt::Display for BarrierError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Broken => "the barrier is broken",
            Self::TimedOut => "the others did not come in time",
            Self::Forked => "this process is a fork child that has not joined",
            Self::Corrupt => "the shared words of the barrier are corrupt",
        })
    }
}

impl core::error::Error for BarrierError {}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_completed_broken_or_reset_and_nothing_else() {
        let last = ATTEMPT_MASK;
        for attempt in [0, 1, last] {
            let filling = Phase::new(attempt, attempt, FILLING, 0);
            assert_eq!((filling.attempt(), filling.completed(), filling.state()), (attempt, attempt, FILLING));
            assert_eq!(filling.outcome(attempt), None);
            let acting = filling.turned_to(ACTING, 1023);
            assert_eq!((acting.attempt(), acting.state(), acting.outcome(attempt)), (attempt, ACTING, None));
            assert_eq!(acting.next().outcome(attempt), Some(Ok(())));
            assert_eq!(acting.next().reset().reset().outcome(attempt), Some(Ok(())));
            assert_eq!(acting.next().turned_to(BROKEN, 0).outcome(attempt), Some(Ok(())));
            let broken = Some(Err(BarrierError::Broken));
            assert_eq!(filling.turned_to(BROKEN, 0).outcome(attempt), broken);
            assert_eq!(filling.reset().outcome(attempt), broken);
            assert_eq!(filling.turned_to(3, 0).outcome(attempt), Some(Err(BarrierError::Corrupt)));
        }
    }

    #[test]
    fn a_place_keeps_the_attempt_in_which_somebody_was_here_last() {
        let me = OwnerId::new(3, 1).unwrap();
        for attempt in [0, 1, ATTEMPT_MASK] {
            let left = arrived(attempt, me) & !INSIDE;
            let next = (attempt + 1) & ATTEMPT_MASK;
            for seen in [left, freed(left), freed(arrived(attempt, me))] {
                assert!(
                    !is_before(seen, attempt) && is_before(seen, next) && !is_before(left, attempt.wrapping_sub(1))
                );
            }
            assert!(is_before(0, attempt));
            assert_eq!((owner_of(left), owner_of(freed(left)), freed(left) & INSIDE), (Some(me), None, 0));
        }
    }
}

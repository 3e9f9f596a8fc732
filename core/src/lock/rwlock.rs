//! A lock for many readers or one writer, each of which names itself, so that a dead reader is not waited for and a dead
//! writer is reported.
//!
//! # What
//! A *gate*, which is a [`LockWord`]; a table of reader words; `writing`, which says whose changes may be half done; an
//! [`EventWord`] on which the writer at the gate sleeps until the readers have left.
//!
//! | gate | state |
//! |---|---|
//! | 0 | open: readers come in without it |
//! | `POISON` | open, but the value is broken: readers pass through it one by one, so that each hears of it |
//! | held | a writer waits for the readers to leave, or writes; or a reader passes through |
//!
//! | reader word, `count:10` above `owner:22` | state |
//! |---|---|
//! | 0 | free |
//! | owner and n, not 0 | that process has n readers inside |
//! | anything else | corrupt: no process writes it that keeps to the protocol, and no writer gets in |
//!
//! | `writing` | state |
//! |---|---|
//! | 0 | the value is whole |
//! | an owner | that writer is at the value, or died or gave up there; the gate is held or poisoned |
//!
//! A process has one reader word for all its threads, or a second one above 1,023 readers. When no word is free, a new
//! reader is told so (`Full`): the table must have as many words as processes read at once.
//!
//! *Preference:* a writer that has the gate keeps new readers out, so readers that overlap without end do not starve
//! it. At the gate, writers and the readers that had to wait are equals, and whoever runs may overtake who sleeps.
//!
//! # Protocol
//! Read ([`RwWords::read`]):
//! 1. the gate is not 0: go to 4;
//! 2. CAS a reader word: (me, n) -> (me, n + 1), or 0 -> (me, 1) after raising `used` above it; full fence;
//! 3. the gate is 0: inside. Otherwise a writer came between: leave again, and
//! 4. lock the gate as [`crate::mutex`] does, do the CAS of 2, unlock the gate, poisoned if it was; inside.
//!
//! Leave: CAS (me, n) -> (me, n - 1), or 0; full fence; wake the writer, if one sleeps.
//!
//! Write ([`RwWords::write`]):
//! 1. lock the gate; full fence;
//! 2. for each reader word below `used`: wait until it is 0, in slices of 10 ms, after each probing its owner; proven dead:
//!    CAS(its word -> 0). At the deadline: unlock the gate as it was, and give up;
//! 3. `writing` = me; inside.
//!
//! Unlock: unless the value is broken, `writing` = 0; then unlock the gate, poisoned if it is broken.
//!
//! Whoever gets the gate from a dead owner looks at `writing`: 0: a reader died there, or a writer before its 3 or after
//! its end, and the value is whole. Otherwise `OwnerDied`. A poisoned gate always comes with `writing` not 0, so that a
//! reader that dies while it passes through hides nothing.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `rwlock.gate` | full fence in `enter_open` | full fence in `enter_to_write`, `try_write` | none; store-load order: either the reader sees the gate held, or the writer sees the reader's word (and `used`) | `rwlock` |
//! | `rwlock.reader` | CAS in `leave` | load in `enter_to_write`, `drain`, `try_write` | that the reader does not look at the value any more | `rwlock` |
//!
//! What a writer changed reaches readers through the gate: `lock.word`. The fence of leave is one half of
//! `event.announce`. Stores to `writing` and to the value stay in program order, which is all that a kill looks at.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | read 2 and its end: a reader | a word of a dead owner: a writer frees it within a slice; other readers go on |
//! | read 4, at the gate | a gate with a dead owner, `writing` as it was: the next one takes over, and nothing is broken |
//! | leave, CAS and wake | a word less; a sleeping writer sees it when its slice ends |
//! | write 1 and 3 | as read 4 |
//! | write 3 and unlock | `OwnerDied` to the next one, reader or writer; `Poisoned` after that until a writer repairs |
//! | unlock, `writing` and gate | a gate with a dead owner and a whole value |

use crate::event::{EventWord, Slept};
use crate::mutex::{Acquired, LockError, LockWord, TryLockError};
use crate::owner::OwnerId;
use crate::prim::{AtomicU32, Ordering, fence_after_rmw, in_program_order, pause};
use crate::probe::Prober;
use crate::wait::{Liveness, Slice, Wait, WakeMode};

const OWNER_BITS: u32 = 22;
const OWNER_MASK: u32 = (1 << OWNER_BITS) - 1;
const ONE: u32 = 1 << OWNER_BITS;
/// The most readers that one word counts.
const MAX_COUNT: u32 = u32::MAX >> OWNER_BITS;

/// The shared words, with places for `READERS` processes that read at once. All zero is a valid start: open.
#[derive(Debug)]
#[repr(C)]
pub struct RwWords<const READERS: usize> {
    gate: LockWord,
    writing: AtomicU32,
    drained: EventWord,
    /// Reader words from here on were never used. Only grows.
    used: AtomicU32,
    readers: [AtomicU32; READERS],
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<RwWords<64>>() == 272);

/// Which reader word a reader of this process stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadPlace(usize);

impl ReadPlace {
    /// The place as a number, to be remembered as a hint.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a table has fewer places")]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Where to look first; any number is right.
    #[must_use]
    pub const fn hint(number: u32) -> Self {
        Self(number as usize)
    }
}

/// Why the lock was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RwLockError {
    /// The deadline has passed, or the call is one that does not block; who was in the way at the last look, if anybody
    /// was.
    Held(Option<OwnerId>),
    /// Every reader word is another living process's.
    Full,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The words hold what no process writes that keeps to the protocol.
    Corrupt,
}

impl<const READERS: usize> Default for RwWords<READERS> {
    #[track_caller]
    fn default() -> Self {
        Self {
            gate: LockWord::new(),
            writing: AtomicU32::new(0),
            drained: EventWord::new(),
            used: AtomicU32::new(0),
            readers: core::array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

impl<const READERS: usize> RwWords<READERS> {
    /// An open lock.
    #[must_use]
    #[cfg(not(crosslane_loom))]
    pub const fn new() -> Self {
        Self {
            gate: LockWord::new(),
            writing: AtomicU32::new(0),
            drained: EventWord::new(),
            used: AtomicU32::new(0),
            readers: [const { AtomicU32::new(0) }; READERS],
        }
    }

    /// Lets a reader in; waits for the writer, or the proof of its death, until the deadline. `hint` is where this process
    /// stood last.
    ///
    /// Costs one compare-and-swap when no writer is there.
    ///
    /// # Errors
    /// [`RwLockError::Held`] when the deadline has passed, [`RwLockError::Full`], [`RwLockError::Forked`],
    /// [`RwLockError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside, or as a reader, is found by the next writer that waits for it.
    #[inline]
    pub fn read<E: Wait + Liveness>(
        &self,
        hint: ReadPlace,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<(ReadPlace, Acquired), RwLockError> {
        let me = env.me().ok_or(RwLockError::Forked)?;
        if let Some(place) = self.enter_open(me, hint, env) {
            return Ok((place, Acquired::Clean));
        }
        let acquired = self.lock_gate(me, env, deadline)?;
        self.pass_through_slow(acquired, me, hint, env)
    }

    /// As [`read`](Self::read), without blocking. May find a reader that passes through the gate in its way.
    ///
    /// # Errors
    /// As `read`.
    #[inline]
    pub fn try_read<E: Wait + Liveness>(&self, hint: ReadPlace, env: &E) -> Result<(ReadPlace, Acquired), RwLockError> {
        let me = env.me().ok_or(RwLockError::Forked)?;
        if let Some(place) = self.enter_open(me, hint, env) {
            return Ok((place, Acquired::Clean));
        }
        let acquired = self.gate.try_lock(env).map_err(RwLockError::from)?;
        self.pass_through_slow(acquired, me, hint, env)
    }

    /// Ends the reading that `read` began at `place`, and wakes a writer that waits for it. Does not block.
    ///
    /// Nothing happens if the place is not this process's: a `fork()` child that drops an inherited guard leaves its
    /// parent's reading alone.
    #[inline]
    pub fn unlock_read<E: Wait + Liveness>(&self, place: ReadPlace, env: &E) {
        if let (Some(me), Some(word)) = (env.me(), self.readers.get(place.0)) {
            self.leave(word, me, env);
        }
    }

    /// Lets a writer in; waits for the others, or the proof of their deaths, until the deadline.
    ///
    /// # Errors
    /// As [`read`](Self::read), but never `Full`.
    ///
    /// # Crash
    /// A process killed inside leaves a gate that the next one takes over; one killed at the value, `OwnerDied`.
    #[inline]
    pub fn write<E: Wait + Liveness>(&self, env: &E, deadline: E::Deadline) -> Result<Acquired, RwLockError> {
        let me = env.me().ok_or(RwLockError::Forked)?;
        if self.gate.is_taken(me) {
            self.enter_to_write(Acquired::Clean, me, env, deadline)
        } else {
            self.write_slow(me, env, deadline)
        }
    }

    /// As [`write`](Self::write), without blocking. Each process that reads is probed, so this is not for loops.
    ///
    /// # Errors
    /// As `write`.
    pub fn try_write<E: Wait + Liveness>(&self, env: &E) -> Result<Acquired, RwLockError> {
        let me = env.me().ok_or(RwLockError::Forked)?;
        let acquired = self.gate.try_lock(env).map_err(RwLockError::from)?;
        // ORDERING rwlock.gate: SeqCst fence. As in `enter_to_write`.
        fence_after_rmw(Ordering::SeqCst);
        let acquired = self.look_behind(acquired);
        for word in &self.readers[..self.used()] {
            // ORDERING rwlock.reader: Acquire. Pairs with the Release in `leave`.
            let seen = word.load(Ordering::Acquire);
            if seen != 0 && !is_freed_of_dead(word, seen, env) {
                self.gate.unlock(env, acquired != Acquired::Clean);
                return Err(in_the_way(seen));
            }
        }
        self.begin_to_write(me);
        Ok(acquired)
    }

    /// Ends the writing; `poison` tells the next ones that the value is broken. Does not block.
    ///
    /// Nothing happens in a `fork()` child that drops an inherited guard.
    #[inline]
    pub fn unlock_write<E: Wait + Liveness>(&self, env: &E, poison: bool) {
        if !env.me().is_some_and(|me| self.gate.is_held_by(me)) {
            return;
        }
        if !poison {
            in_program_order();
            // ORDERING: Relaxed. Read by whoever has the gate next.
            self.writing.store(0, Ordering::Relaxed);
        }
        self.gate.give_up(env, poison);
    }

    /// Frees the reader words of `owner`, if it is proven dead, and wakes a writer that waits; the gate comes to whoever
    /// wants it next. Idempotent.
    ///
    /// # Crash
    /// A process killed inside leaves the rest to the next who calls.
    pub fn recover<E: Wait + Liveness>(&self, owner: OwnerId, env: &E) {
        if !env.is_dead(owner) {
            return;
        }
        for word in &self.readers {
            // ORDERING: Relaxed. The CAS takes exactly this word.
            let seen = word.load(Ordering::Relaxed);
            if reader_of(seen) == Some(owner) {
                is_freed_of_dead(word, seen, env);
            }
        }
        self.drained.wake_all(env);
    }

    /// As [`recover`](Self::recover), for everybody whom `life` knows to be dead; wakes one who waits at the gate too.
    pub fn reap<L: Liveness, W: Wait>(&self, life: &L, wait: &W) {
        for word in &self.readers {
            // ORDERING: Relaxed. The CAS takes exactly this word.
            let seen = word.load(Ordering::Relaxed);
            if seen != 0 {
                is_freed_of_dead(word, seen, life);
            }
        }
        self.drained.wake_all(wait);
        self.gate.wake_one(wait);
    }

    /// Read 1 to 3; `None`: by way of the gate, which also says whether the words are full.
    #[inline]
    fn enter_open<E: Wait + Liveness>(&self, me: OwnerId, hint: ReadPlace, env: &E) -> Option<ReadPlace> {
        if !self.gate.is_clean() {
            return None;
        }
        let place = self.enter(me, hint)?;
        // ORDERING rwlock.gate: SeqCst fence. Pairs with the one in `enter_to_write`; see there.
        fence_after_rmw(Ordering::SeqCst);
        if self.gate.is_clean() {
            return Some(place);
        }
        self.leave(&self.readers[place.0], me, env);
        None
    }

    #[inline]
    fn lock_gate<E: Wait + Liveness>(
        &self,
        me: OwnerId,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Acquired, RwLockError> {
        if self.gate.is_taken(me) { Ok(Acquired::Clean) } else { Ok(self.gate.lock_slow(me, env, deadline)?) }
    }

    /// Read 4, with the gate just locked.
    #[cold]
    fn pass_through_slow<E: Wait + Liveness>(
        &self,
        acquired: Acquired,
        me: OwnerId,
        hint: ReadPlace,
        env: &E,
    ) -> Result<(ReadPlace, Acquired), RwLockError> {
        let acquired = self.look_behind(acquired);
        let entered = self.enter(me, hint).or_else(|| self.enter_for_dead(me, hint, env));
        self.gate.unlock(env, acquired != Acquired::Clean);
        entered.map(|place| (place, acquired)).ok_or(RwLockError::Full)
    }

    /// The CAS of a reader word; `None` if there is none to be had.
    #[inline]
    fn enter(&self, me: OwnerId, hint: ReadPlace) -> Option<ReadPlace> {
        if self.readers.get(hint.0).is_some_and(|word| is_entered(word, me)) {
            return Some(hint);
        }
        if hint.0 == 0 && self.used() == 1 && self.is_claimed(0, me) {
            return Some(hint);
        }
        self.enter_slow(me)
    }

    #[inline(never)]
    fn enter_slow(&self, me: OwnerId) -> Option<ReadPlace> {
        let mine = |word: &AtomicU32| word.load(Ordering::Relaxed) != 0 && is_entered(word, me);
        // ORDERING: Relaxed. Only this process makes its own words, and the CAS takes exactly what was seen.
        if let Some(place) = self.readers[..self.used()].iter().position(mine) {
            return Some(ReadPlace(place));
        }
        (0..READERS).find(|&place| self.is_claimed(place, me)).map(ReadPlace)
    }

    /// CAS(0 -> (me, 1)) at `place`, below `used`.
    #[inline]
    fn is_claimed(&self, place: usize, me: OwnerId) -> bool {
        let word = &self.readers[place];
        // ORDERING: Relaxed. The CAS takes exactly this word.
        if word.load(Ordering::Relaxed) != 0 {
            return false;
        }
        self.raise_used(place);
        // ORDERING: Relaxed. The gate orders the value; the fence in `enter_open`, or the gate itself, orders this step
        // against the writer's looks. Failure: Relaxed, nothing is read.
        word.compare_exchange(0, ONE | me.to_word(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a table has fewer places")]
    fn raise_used(&self, place: usize) {
        let least = place as u32 + 1;
        // ORDERING: Relaxed, here and below. As the CAS in `is_claimed`, which comes after it.
        let mut used = self.used.load(Ordering::Relaxed);
        while used < least {
            match self.used.compare_exchange_weak(used, least, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => used = now,
            }
        }
    }

    /// Frees dead readers' words until one is to be had.
    fn enter_for_dead<E: Wait + Liveness>(&self, me: OwnerId, hint: ReadPlace, env: &E) -> Option<ReadPlace> {
        let mut prober = Prober::default();
        // ORDERING: Relaxed. Only names whom to probe.
        let owner_at = |at: usize| reader_of(self.readers[at].load(Ordering::Relaxed));
        for _ in 0..=READERS / 16 {
            if let Some(dead) = prober.find_dead(READERS, me, env, owner_at) {
                self.recover(dead, env);
                return self.enter(me, hint);
            }
        }
        None
    }

    /// CAS (me, n) -> (me, n - 1) or 0, and the writer's wake.
    #[inline]
    fn leave<W: Wait>(&self, word: &AtomicU32, me: OwnerId, wait: &W) {
        // ORDERING: Relaxed. The CAS takes exactly this word.
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            if seen & OWNER_MASK != me.to_word() || seen < ONE {
                return;
            }
            let left = if seen < 2 * ONE { 0 } else { seen - ONE };
            // ORDERING rwlock.reader: Release. Pairs with the Acquires in `enter_to_write`, `drain` and `try_write`.
            // Publishes that this reader has done its looks at the value. Failure: Relaxed, the loop tries again.
            match word.compare_exchange_weak(seen, left, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // ORDERING event.announce: SeqCst fence. Pairs with the fence in `heavy`: either this process sees the flag, or
        // the writer sees the word.
        fence_after_rmw(Ordering::SeqCst);
        self.drained.wake_fenced(1, wait);
    }

    /// Waits until `word` is 0.
    ///
    /// # Errors
    /// `Held` by whose it still is at the deadline; `Corrupt` if it is nobody's who could leave or die.
    #[cold]
    fn drain<E: Wait + Liveness>(&self, word: &AtomicU32, env: &E, deadline: E::Deadline) -> Result<(), RwLockError> {
        let mut spins = env.spins();
        loop {
            // ORDERING rwlock.reader: Acquire. Pairs with the Release in `leave`: this writer's changes come after the
            // reader's looks.
            let seen = word.load(Ordering::Acquire);
            if seen == 0 {
                return Ok(());
            }
            if spins > 0 {
                spins -= 1;
                pause();
                continue;
            }
            let slept = self.drained.sleep_unless(WakeMode::Fenced, Slice::Owner, deadline, env, || {
                // ORDERING: Relaxed. The loop looks again.
                word.load(Ordering::Relaxed) != seen
            });
            let is_there = slept != Slept::Ready && word.load(Ordering::Relaxed) == seen;
            if is_there && !is_freed_of_dead(word, seen, env) {
                let error = in_the_way(seen);
                if slept == Slept::Expired || error == RwLockError::Corrupt {
                    return Err(error);
                }
            }
        }
    }

    /// What the gate's last owner left, by `writing`.
    #[inline]
    fn look_behind(&self, acquired: Acquired) -> Acquired {
        // ORDERING: Relaxed. The gate, or the proof of death, orders.
        match acquired {
            Acquired::OwnerDied if self.writing.load(Ordering::Relaxed) == 0 => Acquired::Clean,
            acquired => acquired,
        }
    }

    #[cold]
    fn write_slow<E: Wait + Liveness>(
        &self,
        me: OwnerId,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Acquired, RwLockError> {
        let acquired = self.gate.lock_slow(me, env, deadline)?;
        self.enter_to_write(acquired, me, env, deadline)
    }

    /// Write 2 and 3, with the gate just locked.
    #[inline]
    fn enter_to_write<E: Wait + Liveness>(
        &self,
        acquired: Acquired,
        me: OwnerId,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Acquired, RwLockError> {
        // ORDERING rwlock.gate: SeqCst fence. Pairs with the one in `enter_open`. Forbids: this writer's looks at the
        // reader words pass its step at the gate, while a reader's look at the gate passes its step at its word, so that
        // both are inside.
        fence_after_rmw(Ordering::SeqCst);
        let acquired = self.look_behind(acquired);
        for word in &self.readers[..self.used()] {
            // ORDERING rwlock.reader: Acquire. Pairs with the Release in `leave`, as in `drain`.
            if word.load(Ordering::Acquire) != 0
                && let Err(error) = self.drain(word, env, deadline)
            {
                self.gate.unlock(env, acquired != Acquired::Clean);
                return Err(error);
            }
        }
        self.begin_to_write(me);
        Ok(acquired)
    }

    #[inline]
    fn begin_to_write(&self, me: OwnerId) {
        // ORDERING: Relaxed. Read by whoever has the gate next.
        self.writing.store(me.to_word(), Ordering::Relaxed);
        in_program_order();
    }

    #[inline]
    fn used(&self) -> usize {
        // ORDERING: Relaxed. The fences order it with the words; any value is safe.
        (self.used.load(Ordering::Relaxed) as usize).min(READERS)
    }
}

/// CAS of one reader more, if `word` is of this process and can count it.
#[inline]
fn is_entered(word: &AtomicU32, me: OwnerId) -> bool {
    // ORDERING: Relaxed, here and below. As in `is_claimed`.
    let mut seen = word.load(Ordering::Relaxed);
    while seen & OWNER_MASK == me.to_word() && (1..MAX_COUNT).contains(&(seen >> OWNER_BITS)) {
        match word.compare_exchange_weak(seen, seen + ONE, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// CAS(`seen` -> 0) if the process that it names is proven dead; whether the word is that process's no more.
fn is_freed_of_dead<L: Liveness>(word: &AtomicU32, seen: u32, life: &L) -> bool {
    // ORDERING: Relaxed. The proof of death made everything visible, and frees only words that the dead one wrote.
    reader_of(seen).is_some_and(|owner| life.me() != Some(owner) && life.is_dead(owner))
        && word.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Why a writer does not get in while a reader word is `seen`, not 0.
const fn in_the_way(seen: u32) -> RwLockError {
    match reader_of(seen) {
        Some(reader) if seen >= ONE => RwLockError::Held(Some(reader)),
        _ => RwLockError::Corrupt,
    }
}

const fn reader_of(word: u32) -> Option<OwnerId> {
    OwnerId::from_word(word & OWNER_MASK)
}

impl From<LockError> for RwLockError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::TimedOut(owner) => Self::Held(owner),
            LockError::Forked => Self::Forked,
            LockError::Corrupt => Self::Corrupt,
        }
    }
}

impl From<TryLockError> for RwLockError {
    fn from(error: TryLockError) -> Self {
        match error {
            TryLockError::Held(owner) => Self::Held(Some(owner)),
            TryLockError::Forked => Self::Forked,
            TryLockError::Corrupt => Self::Corrupt,
        }
    }
}

impl core::fmt::Display for RwLockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Held(Some(owner)) => write!(f, "{owner} is in the way"),
            Self::Held(None) => f.write_str("the lock could not be had in time"),
            Self::Full => f.write_str("every reader's place is another process's"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the lock are corrupt"),
        }
    }
}

impl core::error::Error for RwLockError {}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::wait::Spin;

    #[test]
    fn a_reader_word_that_is_nobodys_lets_no_writer_wait_for_ever() {
        let env = Spin::new(OwnerId::new(0, 1).unwrap());
        let other = OwnerId::new(1, 1).unwrap().to_word();
        for (word, error) in [
            (ONE, RwLockError::Corrupt),
            (other, RwLockError::Corrupt),
            (ONE | 7, RwLockError::Corrupt),
            (ONE | other, RwLockError::Held(OwnerId::from_word(other))),
        ] {
            let lock = RwWords::<2>::new();
            lock.used.store(2, Ordering::Relaxed);
            lock.readers[1].store(word, Ordering::Relaxed);
            assert_eq!(lock.try_write(&env), Err(error));
            assert_eq!(lock.write(&env, env.after(Duration::ZERO)), Err(error));
            if error == RwLockError::Corrupt {
                assert_eq!(lock.write(&env, env.never()), Err(error));
            }
            assert!(lock.read(ReadPlace::default(), &env, env.never()).is_ok(), "readers go on");
        }
    }
}

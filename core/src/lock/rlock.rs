//! A lock that the thread which holds it may take again, and that names its owner as [`LockWord`] does.
//!
//! # What
//! Three words. The lock word names the process that holds the lock; `holder` names the thread, so that this thread gets
//! in again; `depth` counts how often it is in.
//!
//! | `holder` | meaning |
//! |---|---|
//! | 0 | no thread is in, or one is between its lock and its store here |
//! | owner id << 32 and thread | that thread of that process is in, or was when the process died |
//!
//! | `depth` | meaning |
//! |---|---|
//! | n | the holder is in n times; without a holder, left over |
//! | n and `BROKEN` (bit 31) | and what the lock guards is broken: the outermost unlock poisons the lock |
//!
//! The owner id stands in `holder` beside the thread, because a killed process leaves its word behind, and threads of
//! different processes may have the same number.
//!
//! # Protocol
//! Lock ([`RLockWords::lock`]), with me = (owner id, thread):
//! 1. `holder` is me: add 1 to `depth`: done;
//! 2. take the lock word: [`crate::mutex`];
//! 3. `depth` = 1, and `BROKEN` if the lock word came from a dead owner or poisoned;
//! 4. `holder` = me.
//!
//! Unlock ([`RLockWords::unlock`]):
//! 1. `holder` is not me: `NotOwner`;
//! 2. `depth` above 1: subtract 1: done;
//! 3. `holder` = 0;
//! 4. give the lock word up, poisoned if `BROKEN`.
//!
//! # Orderings
//! None of its own: `holder` and `depth` are relaxed. Only the thread that wrote its own id into `holder` ever finds it
//! there, and reads `depth` then; everybody else takes the lock word first, which orders (`lock.word`).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | lock 2 and unlock 4 | a lock word with a dead owner: one of them takes over as `OwnerDied` and overwrites both other words |
//! | lock 2 and 4, as the one that takes over | the same again |
//! | unlock 4, swap and wake | as [`crate::mutex`] |

use core::num::NonZeroU32;

use crate::mutex::{Acquired, LockError, LockWord, TryLockError};
use crate::owner::OwnerId;
use crate::prim::{AtomicU32, AtomicU64, Ordering};
use crate::wait::{Liveness, Wait};

/// Bit 31 of `depth`: what the lock guards is broken.
const BROKEN: u32 = 1 << 31;
/// The most times that one thread can be in at once.
pub const MAX_DEPTH: u32 = BROKEN - 1;

/// The shared words. All zero is a valid start: free.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RLockWords {
    holder: AtomicU64,
    lock: LockWord,
    depth: AtomicU32,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<RLockWords>() == 16);

/// Why a lock was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RLockError {
    /// The deadline has passed, or the call is one that does not block; who held the lock at the last look, if anybody
    /// did. May be another thread of this process.
    Held(Option<OwnerId>),
    /// This thread is in [`MAX_DEPTH`] times already.
    TooDeep,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The words hold what no process writes that keeps to the protocol.
    Corrupt,
}

/// The calling thread does not hold the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOwner;

impl RLockWords {
    /// A free lock.
    #[must_use]
    #[cfg(not(crosslane_loom))]
    pub const fn new() -> Self {
        Self { holder: AtomicU64::new(0), lock: LockWord::new(), depth: AtomicU32::new(0) }
    }

    /// A free lock.
    #[must_use]
    #[cfg(crosslane_loom)]
    #[track_caller]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the lock, once more if `thread` of this process holds it; waits until it is free, or its owner proven dead,
    /// or until the deadline.
    ///
    /// `thread` tells the threads of this process apart, for as long as they hold locks.
    ///
    /// # Errors
    /// [`RLockError::Held`] when the deadline has passed, [`RLockError::TooDeep`], [`RLockError::Forked`] in a fork
    /// child, [`RLockError::Corrupt`] if the words hold nonsense.
    ///
    /// # Crash
    /// As [`LockWord::lock`]; the next owner starts at depth 1, however deep the dead one was.
    #[inline]
    pub fn lock<E: Wait + Liveness>(
        &self,
        thread: NonZeroU32,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Acquired, RLockError> {
        let owner = env.me().ok_or(RLockError::Forked)?;
        let me = holder(owner, thread);
        if self.is_held_by(me) {
            return self.enter_again();
        }
        if self.lock.is_taken(owner) {
            return Ok(self.enter(me, Acquired::Clean));
        }
        self.lock_slow(owner, me, env, deadline)
    }

    #[cold]
    fn lock_slow<E: Wait + Liveness>(
        &self,
        owner: OwnerId,
        me: u64,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Acquired, RLockError> {
        let acquired = self.lock.lock_slow(owner, env, deadline).map_err(|error| match error {
            LockError::TimedOut(owner) => RLockError::Held(owner),
            LockError::Forked => RLockError::Forked,
            LockError::Corrupt => RLockError::Corrupt,
        })?;
        Ok(self.enter(me, acquired))
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`.
    #[inline]
    pub fn try_lock<L: Liveness>(&self, thread: NonZeroU32, life: &L) -> Result<Acquired, RLockError> {
        let me = holder(life.me().ok_or(RLockError::Forked)?, thread);
        if self.is_held_by(me) {
            return self.enter_again();
        }
        let acquired = self.lock.try_lock(life).map_err(|error| match error {
            TryLockError::Held(owner) => RLockError::Held(Some(owner)),
            TryLockError::Forked => RLockError::Forked,
            TryLockError::Corrupt => RLockError::Corrupt,
        })?;
        Ok(self.enter(me, acquired))
    }

    /// Undoes one `lock` of `thread`; the last one gives the lock up and wakes one waiter, if any may sleep. Does not
    /// block.
    ///
    /// # Errors
    /// [`NotOwner`] if `thread` of this process does not hold the lock; nothing has happened then. A `fork()` child that
    /// inherited a guard gets this.
    ///
    /// # Crash
    /// As [`LockWord::unlock`].
    #[inline]
    pub fn unlock<E: Wait + Liveness>(&self, thread: NonZeroU32, env: &E) -> Result<(), NotOwner> {
        let owner = self.check_owner(thread, env)?;
        // ORDERING: Relaxed, here and below. This thread wrote the word.
        let depth = self.depth.load(Ordering::Relaxed);
        if depth & MAX_DEPTH > 1 {
            self.depth.store(depth - 1, Ordering::Relaxed);
            return Ok(());
        }
        self.holder.store(0, Ordering::Relaxed);
        if self.lock.is_held_by(owner) {
            self.lock.give_up(env, depth & BROKEN != 0);
        }
        Ok(())
    }

    /// Wakes one who waits, to look whether the owner died.
    pub fn wake_one<W: Wait>(&self, wait: &W) {
        self.lock.wake_one(wait);
    }

    /// Says whether what the lock guards is broken; the outermost unlock poisons the lock if the last word was yes.
    ///
    /// # Errors
    /// [`NotOwner`], as [`unlock`](Self::unlock).
    pub fn set_broken<L: Liveness>(&self, broken: bool, thread: NonZeroU32, life: &L) -> Result<(), NotOwner> {
        self.check_owner(thread, life)?;
        // ORDERING: Relaxed. This thread wrote the word.
        let depth = self.depth.load(Ordering::Relaxed) & MAX_DEPTH;
        self.depth.store(if broken { depth | BROKEN } else { depth }, Ordering::Relaxed);
        Ok(())
    }

    /// Whether what the lock guards is broken, for whoever holds the lock.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        // ORDERING: Relaxed. The holder wrote the word.
        self.depth.load(Ordering::Relaxed) & BROKEN != 0
    }

    #[inline]
    fn check_owner<L: Liveness>(&self, thread: NonZeroU32, life: &L) -> Result<OwnerId, NotOwner> {
        let owner = life.me().ok_or(NotOwner)?;
        if self.is_held_by(holder(owner, thread)) { Ok(owner) } else { Err(NotOwner) }
    }

    #[inline]
    fn is_held_by(&self, me: u64) -> bool {
        // ORDERING: Relaxed. Only this thread writes this value, and it takes it back before the lock goes.
        self.holder.load(Ordering::Relaxed) == me
    }

    #[inline]
    fn enter_again(&self) -> Result<Acquired, RLockError> {
        // ORDERING: Relaxed. This thread wrote the word.
        let depth = self.depth.load(Ordering::Relaxed);
        if depth & MAX_DEPTH == MAX_DEPTH {
            return Err(RLockError::TooDeep);
        }
        self.depth.store(depth + 1, Ordering::Relaxed);
        Ok(if depth & BROKEN == 0 { Acquired::Clean } else { Acquired::Poisoned })
    }

    #[inline]
    fn enter(&self, me: u64, acquired: Acquired) -> Acquired {
        // ORDERING: Relaxed. Read by this thread, and by others after they have taken the lock word.
        self.depth.store(if acquired == Acquired::Clean { 1 } else { 1 | BROKEN }, Ordering::Relaxed);
        self.holder.store(me, Ordering::Relaxed);
        acquired
    }
}

#[inline]
fn holder(owner: OwnerId, thread: NonZeroU32) -> u64 {
    u64::from(owner.to_word()) << 32 | u64::from(thread.get())
}

impl core::fmt::Display for RLockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Held(Some(owner)) => write!(f, "the lock is held by {owner}"),
            Self::Held(None) => f.write_str("the lock could not be had in time"),
            Self::TooDeep => write!(f, "this thread holds the lock {MAX_DEPTH} times already"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the lock are corrupt"),
        }
    }
}

impl core::fmt::Display for NotOwner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("this thread does not hold the lock")
    }
}

impl core::error::Error for RLockError {}
impl core::error::Error for NotOwner {}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use super::*;
    use crate::wait::Spin;

    fn env(index: u32) -> Spin {
        Spin::new(OwnerId::new(index, 1).unwrap())
    }

    fn thread(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn the_same_thread_gets_in_again_and_nobody_else_does() {
        let (lock, a, b) = (RLockWords::new(), env(0), env(1));
        for _ in 0..3 {
            assert_eq!(lock.try_lock(thread(7), &a), Ok(Acquired::Clean));
        }
        let held = Err(RLockError::Held(a.me()));
        assert_eq!(lock.try_lock(thread(8), &a), held);
        assert_eq!(lock.try_lock(thread(7), &b), held);
        assert_eq!((lock.unlock(thread(7), &a), lock.unlock(thread(7), &a)), (Ok(()), Ok(())));
        assert_eq!(lock.try_lock(thread(7), &b), held);
        assert_eq!(lock.unlock(thread(7), &a), Ok(()));
        assert_eq!(lock.try_lock(thread(7), &b), Ok(Acquired::Clean));
    }

    #[test]
    fn who_does_not_hold_the_lock_cannot_give_it_up() {
        let (lock, a) = (RLockWords::new(), env(0));
        assert_eq!(lock.unlock(thread(1), &a), Err(NotOwner));
        let _ = lock.try_lock(thread(1), &a).unwrap();
        assert_eq!(lock.unlock(thread(2), &a), Err(NotOwner));
        assert_eq!(lock.unlock(thread(1), &env(1)), Err(NotOwner));
        assert_eq!(lock.set_broken(true, thread(2), &a), Err(NotOwner));
        assert_eq!(lock.unlock(thread(1), &a), Ok(()));
        assert_eq!(lock.unlock(thread(1), &a), Err(NotOwner));
    }

    #[test]
    fn what_is_broken_at_the_outermost_unlock_is_poisoned_for_the_next() {
        let (lock, a) = (RLockWords::new(), env(0));
        let _ = lock.try_lock(thread(1), &a).unwrap();
        lock.set_broken(true, thread(1), &a).unwrap();
        assert_eq!(lock.try_lock(thread(1), &a), Ok(Acquired::Poisoned));
        lock.unlock(thread(1), &a).unwrap();
        assert!(lock.is_broken());
        lock.unlock(thread(1), &a).unwrap();
        assert_eq!(lock.try_lock(thread(1), &env(1)), Ok(Acquired::Poisoned));
        lock.set_broken(false, thread(1), &env(1)).unwrap();
        lock.unlock(thread(1), &env(1)).unwrap();
        assert_eq!(lock.try_lock(thread(1), &a), Ok(Acquired::Clean));
    }

    #[test]
    fn a_depth_that_cannot_grow_is_an_error_and_a_hostile_one_does_not_underflow() {
        let (lock, a) = (RLockWords::new(), env(0));
        let _ = lock.try_lock(thread(1), &a).unwrap();
        lock.depth.store(MAX_DEPTH, Ordering::Relaxed);
        assert_eq!(lock.try_lock(thread(1), &a), Err(RLockError::TooDeep));
        lock.depth.store(0, Ordering::Relaxed);
        assert_eq!(lock.unlock(thread(1), &a), Ok(()));
        assert_eq!(lock.try_lock(thread(1), &a), Ok(Acquired::Clean));
    }
}

//! A lock that its thread may take again, around a value that is copied in and out.
//!
//! Protocol and crash table: [`crosslane_core::lock::rlock`].
//!
//! Since one thread can hold several guards at once, a guard lends nothing: [`get`](RLockGuard::get) and
//! [`set`](RLockGuard::set) copy, as those of a `Cell` do. So no trust in the peers is needed.
//!
//! # Crash
//! | a process is killed | the next one that locks gets |
//! |---|---|
//! | before it has the lock, or after the last unlock | `Ok` |
//! | with guards in hand, however many | `OwnerDied`, with the values that it had set; torn, if it died inside `set` |
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::time::Duration;
use std::thread;

use crosslane_core::lock::rlock::{RLockError, RLockWords};
use crosslane_core::mutex::Acquired;
use crosslane_core::{Liveness, Plain, Wait};

use crate::deadline::Deadline;
use crate::mutex::LockError;
use crate::thread_number;
use crate::value::Shared;

/// The words of a reentrant lock and a value, as they lie in shared memory.
///
/// The value stands at offset 16, or at its alignment if that is larger, and takes whole 8-byte words. All zero is a
/// valid start: unlocked, with the value of zero bytes.
#[repr(C, align(8))]
pub struct RLockCell<T> {
    lock: RLockWords,
    value: UnsafeCell<MaybeUninit<T>>,
}

const _: () = assert!(size_of::<RLockCell<u8>>() == 24);
const _: () = assert!(core::mem::offset_of!(RLockCell<u8>, value) == 16);

// SAFETY: the value is only reached through an `RLock`, by atomic words.
unsafe impl<T: Plain> Sync for RLockCell<T> {}

impl<T: Plain> RLockCell<T> {
    /// An unlocked cell that holds `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { lock: RLockWords::new(), value: UnsafeCell::new(MaybeUninit::new(value)) }
    }
}

impl<T> fmt::Debug for RLockCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockCell").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// A handle to a value in shared memory behind a lock that its thread may take again.
///
/// Threads share a handle, processes have one each. `E` waits, knows who is dead, and keeps the memory mapped. Dropping
/// the handle does not unlock.
#[derive(Debug)]
pub struct RLock<T, E> {
    lock: NonNull<RLockWords>,
    value: Shared<T>,
    env: E,
}

// SAFETY: the words are atomics and the value is copied by atomic words, by any thread; `env` goes along.
unsafe impl<T: Plain, E: Send> Send for RLock<T, E> {}
// SAFETY: as above.
unsafe impl<T: Plain, E: Sync> Sync for RLock<T, E> {}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> RLock<T, E> {
    /// A handle to `cell` in the surroundings `env`.
    ///
    /// # Safety
    /// - `cell` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves;
    /// - this process reaches the cell through such handles alone.
    pub const unsafe fn new(cell: NonNull<RLockCell<T>>, env: E) -> Self {
        // SAFETY: inside the cell that the caller vouches for.
        let value = unsafe { cell.byte_add(core::mem::offset_of!(RLockCell<T>, value)) };
        // SAFETY: the cell is aligned to 8, the value starts at a multiple of 8 in it, and the cell's size is a multiple
        // of 8, so the value's last word ends inside; the rest is the caller's contract.
        let value = unsafe { Shared::new(value.cast()) };
        Self { lock: cell.cast(), value, env }
    }

    /// Takes the lock, once more if this thread holds it; blocks until it is free or its owner proven dead.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the guard holds the lock; put the value in order and call
    ///   [`RLockGuard::mark_consistent`], or the lock stays poisoned. A thread that is in already gets `Poisoned` for as
    ///   long as the value is not marked;
    /// - [`LockError::Full`]: this thread holds the lock 2^31 - 1 times already;
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    ///
    /// # Crash
    /// A process killed inside, or with guards in hand, leaves `OwnerDied` to the next one.
    #[inline(always)]
    pub fn lock(&self) -> Result<RLockGuard<'_, T, E>, LockError<RLockGuard<'_, T, E>>> {
        self.guarded(self.words().lock(thread_number::current(), &self.env, Deadline::never()), LockError::TimedOut)
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_, T, E>, LockError<RLockGuard<'_, T, E>>> {
        let deadline = Deadline::after(timeout);
        self.guarded(self.words().lock(thread_number::current(), &self.env, deadline), LockError::TimedOut)
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    #[inline]
    pub fn try_lock(&self) -> Result<RLockGuard<'_, T, E>, LockError<RLockGuard<'_, T, E>>> {
        self.guarded(self.words().try_lock(thread_number::current(), &self.env), LockError::WouldBlock)
    }

    #[inline]
    fn guarded<'a>(
        &'a self,
        locked: Result<Acquired, RLockError>,
        held: fn(Option<crosslane_core::OwnerId>) -> LockError<RLockGuard<'a, T, E>>,
    ) -> Result<RLockGuard<'a, T, E>, LockError<RLockGuard<'a, T, E>>> {
        if locked == Ok(Acquired::Clean) { Ok(self.guard()) } else { self.guarded_slow(locked, held) }
    }

    #[cold]
    fn guarded_slow<'a>(
        &'a self,
        locked: Result<Acquired, RLockError>,
        held: fn(Option<crosslane_core::OwnerId>) -> LockError<RLockGuard<'a, T, E>>,
    ) -> Result<RLockGuard<'a, T, E>, LockError<RLockGuard<'a, T, E>>> {
        match locked {
            Ok(Acquired::Clean) => Ok(self.guard()),
            Ok(Acquired::OwnerDied) => Err(LockError::OwnerDied(self.guard())),
            Ok(Acquired::Poisoned) => Err(LockError::Poisoned(self.guard())),
            Err(RLockError::Held(owner)) => Err(held(owner)),
            Err(RLockError::TooDeep) => Err(LockError::Full),
            Err(RLockError::Forked) => Err(LockError::Forked),
            Err(_) => Err(LockError::Corrupt),
        }
    }

    #[inline]
    fn guard(&self) -> RLockGuard<'_, T, E> {
        RLockGuard { lock: self, panicking: usize::from(thread::panicking()), not_send: PhantomData }
    }

    #[inline]
    fn words(&self) -> &RLockWords {
        // SAFETY: `new`'s contract: valid while `self.env` lives; atomics inside, so a shared reference stays right
        // whatever other processes write.
        unsafe { self.lock.as_ref() }
    }
}

/// The lock, held once more by this thread. Dropping it unlocks as often as it was taken: once.
///
/// A panic while it is held poisons the lock. Forgotten, it holds the lock until the process ends. In a raw `fork()`
/// child an inherited guard unlocks nothing.
#[must_use = "dropping the guard unlocks at once"]
#[derive(Debug)]
pub struct RLockGuard<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness> {
    lock: &'a RLock<T, E>,
    /// Whether the thread was panicking when it took the lock, 0 or 1: a whole word, as in
    /// [`MutexGuard`](crate::MutexGuard).
    panicking: usize,
    // Only the thread that locked may unlock.
    not_send: PhantomData<*mut T>,
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> RLockGuard<'_, T, E> {
    /// A copy of the value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> T {
        self.lock.value.get()
    }

    /// Writes the value.
    ///
    /// # Crash
    /// A process killed inside leaves `OwnerDied` to the next one, with a value that may be torn.
    #[inline]
    pub fn set(&self, value: T) {
        self.lock.value.set(&value);
    }

    /// Says that the value is whole again, so that the lock is not poisoned when the last guard goes.
    pub fn mark_consistent(&mut self) {
        // Not the owner: an inherited guard in a fork child, which has no say.
        let _ = self.lock.words().set_broken(false, thread_number::current(), &self.lock.env);
    }

    /// Whether the lock will be poisoned when the last guard goes.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.lock.words().is_broken()
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> RLockGuard<'_, T, E> {
    #[cold]
    fn break_slow(&self) {
        // Not the owner: as in `drop`.
        let _ = self.lock.words().set_broken(true, thread_number::current(), &self.lock.env);
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> Drop for RLockGuard<'_, T, E> {
    #[inline]
    fn drop(&mut self) {
        let (words, thread) = (self.lock.words(), thread_number::current());
        if self.panicking == 0 && thread::panicking() {
            self.break_slow();
        }
        // Not the owner: an inherited guard in a fork child, or a hostile peer has overwritten the words.
        let _ = words.unlock(thread, &self.lock.env);
    }
}

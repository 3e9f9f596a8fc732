//! A value behind a lock for many readers or one writer.
//!
//! Protocol, preference and crash table: [`crosslane_core::lock::rwlock`].
//!
//! As with [`Mutex`](crate::Mutex), an untrusted handle copies ([`RwLock::get`], [`RwLock::update`]) and a [`Trusted`] one
//! also lends ([`RwLock::read`], [`RwLock::write`]).
//!
//! # Crash
//! | a process is killed | the next ones get |
//! |---|---|
//! | while it reads | `Ok`; a writer waits for it until its death is proven, within 10 ms |
//! | with a write guard, or inside `update` | `OwnerDied` with whatever it had written, and then `Poisoned` until a writer repairs it |
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::thread;

use crosslane_core::lock::rwlock::{ReadPlace, RwLockError, RwWords};
use crosslane_core::mutex::Acquired;
use crosslane_core::{Liveness, OwnerId, Plain, Trust, Trusted, Untrusted, Wait};

use crate::deadline::Deadline;
use crate::mutex::{BROKEN, LockError, PANICKING};
use crate::value::Shared;

/// Processes that can read at once, unless the type says otherwise.
pub const READERS: usize = 64;

/// The words of a reader-writer lock, with places for `N` processes that read at once, and a value, as they lie in shared
/// memory.
///
/// The value stands behind the words, at a multiple of 8 and of its alignment, and takes whole 8-byte words. All zero is
/// a valid start: unlocked, with the value of zero bytes.
#[repr(C, align(8))]
pub struct RwLockCell<T, const N: usize = READERS> {
    words: RwWords<N>,
    value: Padded<T>,
}

#[repr(C, align(8))]
struct Padded<T>(UnsafeCell<MaybeUninit<T>>);

const _: () = assert!(core::mem::offset_of!(RwLockCell<u8>, value) == 272);
const _: () = assert!(size_of::<RwLockCell<u8>>() == 280);
const _: () = assert!(core::mem::offset_of!(RwLockCell<u8, 1>, value) == 24);

// SAFETY: the value is only reached through an `RwLock`, whose words decide who may.
unsafe impl<T: Plain, const N: usize> Sync for RwLockCell<T, N> {}

impl<T: Plain, const N: usize> RwLockCell<T, N> {
    /// An unlocked cell that holds `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { words: RwWords::new(), value: Padded(UnsafeCell::new(MaybeUninit::new(value))) }
    }
}

impl<T, const N: usize> fmt::Debug for RwLockCell<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockCell").finish_non_exhaustive()
    }
}

/// A handle to a value in shared memory behind a reader-writer lock.
///
/// `E` waits, knows who is dead, and keeps the memory mapped; `K` says whether the peers are trusted. Threads share a
/// handle, processes have one each. Dropping the handle does not unlock.
pub struct RwLock<T, E, K = Untrusted, const N: usize = READERS> {
    words: NonNull<RwWords<N>>,
    value: Shared<T>,
    env: E,
    /// Where this process stood last as a reader.
    hint: AtomicU32,
    kind: PhantomData<K>,
}

// SAFETY: a `T: Plain` may go anywhere, and the lock orders who touches it; `env` goes along.
unsafe impl<T: Plain, E: Send, K, const N: usize> Send for RwLock<T, E, K, N> {}
// SAFETY: as above; threads that share the handle exclude each other by the lock.
unsafe impl<T: Plain, E: Sync, K, const N: usize> Sync for RwLock<T, E, K, N> {}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> RwLock<T, E, Untrusted, N> {
    /// A handle to `cell` in the surroundings `env`.
    ///
    /// # Safety
    /// - `cell` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves;
    /// - this process reaches the value through such handles alone;
    /// - the [`Liveness`] of `env` keeps its contract: a participant that it calls dead never runs again.
    pub const unsafe fn new(cell: NonNull<RwLockCell<T, N>>, env: E) -> Self {
        // SAFETY: inside the cell that the caller vouches for.
        let value = unsafe { cell.byte_add(core::mem::offset_of!(RwLockCell<T, N>, value)) };
        // SAFETY: `Padded` is aligned to 8 and takes a multiple of 8 bytes; the rest is the caller's contract.
        let value = unsafe { Shared::new(value.cast()) };
        Self { words: cell.cast(), value, env, hint: AtomicU32::new(0), kind: PhantomData }
    }

    /// The handle, with the calls that lend the value in place.
    ///
    /// # Safety
    /// Every process that can write the memory, for as long as the handle lives, touches the value only while it holds the
    /// lock, and gives the lock's words their meaning.
    pub unsafe fn trust_peers(self) -> RwLock<T, E, Trusted, N> {
        // SAFETY: the caller's contract.
        unsafe { self.with_trust() }
    }

    /// The handle, lending if `K` is [`Trusted`]; for code that is generic over whom it trusts.
    ///
    /// # Safety
    /// If `K` is `Trusted`: as [`trust_peers`](Self::trust_peers).
    pub unsafe fn with_trust<K: Trust>(self) -> RwLock<T, E, K, N> {
        RwLock { words: self.words, value: self.value, env: self.env, hint: self.hint, kind: PhantomData }
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> RwLock<T, E, K, N> {
    /// A copy of the value, made as a reader; blocks while a writer is there.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: with the copy of what was found. Nothing is held;
    /// - [`LockError::Full`]: `N` other processes read at this moment;
    /// - [`LockError::Forked`], [`LockError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside is a dead reader.
    pub fn get(&self) -> Result<T, LockError<T>> {
        let (place, acquired) = self.reading(Deadline::never()).map_err(refused)?;
        let copy = self.value.get();
        self.words().unlock_read(place, &self.env);
        held(acquired, copy)
    }

    /// Changes the value: copies it out under the write lock, calls `change` on the copy, and writes the copy back.
    ///
    /// If `change` panics, nothing is written, the lock is released unpoisoned, and the panic goes on.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: `change` was not called. The [`RwRepair`] holds the lock and a
    ///   copy of what was found;
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    ///
    /// # Crash
    /// A process killed inside leaves `OwnerDied`, with the old value, or with a torn one if it was killed while the copy
    /// was written back.
    pub fn update<O>(&self, change: impl FnOnce(&mut T) -> O) -> Result<O, LockError<RwRepair<'_, T, E, K, N>>> {
        let acquired = self.words().write(&self.env, Deadline::never()).map_err(refused)?;
        let writing = Writing { lock: self, poison: acquired != Acquired::Clean };
        let mut copy = self.value.get();
        match acquired {
            Acquired::Clean => {}
            Acquired::OwnerDied => return Err(LockError::OwnerDied(RwRepair { writing, copy })),
            Acquired::Poisoned => return Err(LockError::Poisoned(RwRepair { writing, copy })),
        }
        let output = change(&mut copy);
        self.value.set(&copy);
        Ok(output)
    }

    /// Frees the places of `owner`, if it is proven dead. Who waits does so by itself; a parent that sees its child die
    /// calls this to be faster.
    pub fn recover(&self, owner: OwnerId) {
        self.words().recover(owner, &self.env);
    }

    #[inline(always)]
    fn reading(&self, deadline: Deadline) -> Result<(ReadPlace, Acquired), RwLockError> {
        // ORDERING: Relaxed. Any value is right.
        let hint = self.hint.load(Ordering::Relaxed);
        let (place, acquired) = self.words().read(ReadPlace::hint(hint), &self.env, deadline)?;
        self.remember(place, hint);
        Ok((place, acquired))
    }

    #[inline]
    fn remember(&self, place: ReadPlace, hint: u32) {
        if place.number() != hint {
            self.hint.store(place.number(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn words(&self) -> &RwWords<N> {
        // SAFETY: `new`'s contract: valid while `self.env` lives; atomics inside, so a shared reference stays right
        // whatever other processes write.
        unsafe { self.words.as_ref() }
    }
}

type ReadResult<'a, T, E, const N: usize> = Result<RwReadGuard<'a, T, E, N>, LockError<RwReadGuard<'a, T, E, N>>>;
type WriteResult<'a, T, E, const N: usize> = Result<RwWriteGuard<'a, T, E, N>, LockError<RwWriteGuard<'a, T, E, N>>>;

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> RwLock<T, E, Trusted, N> {
    /// Lends the value to read; blocks while a writer is there, until it leaves or is proven dead.
    ///
    /// A thread that reads already may deadlock with a writer that came between; one that writes waits for itself.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the guard reads a value that may be half changed;
    /// - [`LockError::Full`]: `N` other processes read at this moment;
    /// - [`LockError::Forked`], [`LockError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside, or with the guard in hand, is found by the next writer.
    #[inline(always)]
    pub fn read(&self) -> ReadResult<'_, T, E, N> {
        self.lent(self.reading(Deadline::never()), refused)
    }

    /// As [`read`](Self::read), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `read`, and [`LockError::TimedOut`].
    pub fn read_timeout(&self, timeout: Duration) -> ReadResult<'_, T, E, N> {
        self.lent(self.reading(Deadline::after(timeout)), refused)
    }

    /// As [`read`](Self::read), without blocking.
    ///
    /// # Errors
    /// As `read`, and [`LockError::WouldBlock`].
    pub fn try_read(&self) -> ReadResult<'_, T, E, N> {
        let hint = self.hint.load(Ordering::Relaxed);
        let entered = self.words().try_read(ReadPlace::hint(hint), &self.env);
        if let Ok((place, _)) = entered {
            self.remember(place, hint);
        }
        self.lent(entered, would_block)
    }

    /// Lends the value to change; blocks until readers and writers have left or are proven dead. New readers wait
    /// meanwhile.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the guard holds the lock; repair the value and call
    ///   [`RwWriteGuard::mark_consistent`], or the lock stays poisoned;
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    ///
    /// # Crash
    /// A process killed with the guard in hand leaves `OwnerDied` to the next one.
    #[inline(always)]
    pub fn write(&self) -> WriteResult<'_, T, E, N> {
        self.lent_mut(self.words().write(&self.env, Deadline::never()), refused)
    }

    /// As [`write`](Self::write), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `write`, and [`LockError::TimedOut`].
    pub fn write_timeout(&self, timeout: Duration) -> WriteResult<'_, T, E, N> {
        self.lent_mut(self.words().write(&self.env, Deadline::after(timeout)), refused)
    }

    /// As [`write`](Self::write), without blocking.
    ///
    /// # Errors
    /// As `write`, and [`LockError::WouldBlock`].
    pub fn try_write(&self) -> WriteResult<'_, T, E, N> {
        self.lent_mut(self.words().try_write(&self.env), would_block)
    }

    #[inline(always)]
    fn lent<'a>(
        &'a self,
        entered: Result<(ReadPlace, Acquired), RwLockError>,
        error: fn(RwLockError) -> LockError<RwReadGuard<'a, T, E, N>>,
    ) -> ReadResult<'a, T, E, N> {
        match entered {
            Ok((place, Acquired::Clean)) => Ok(RwReadGuard { lock: self, place, not_send: PhantomData }),
            entered => self.lent_slow(entered, error),
        }
    }

    #[cold]
    fn lent_slow<'a>(
        &'a self,
        entered: Result<(ReadPlace, Acquired), RwLockError>,
        error: fn(RwLockError) -> LockError<RwReadGuard<'a, T, E, N>>,
    ) -> ReadResult<'a, T, E, N> {
        let (place, acquired) = entered.map_err(error)?;
        held(acquired, RwReadGuard { lock: self, place, not_send: PhantomData })
    }

    #[inline(always)]
    fn lent_mut<'a>(
        &'a self,
        entered: Result<Acquired, RwLockError>,
        error: fn(RwLockError) -> LockError<RwWriteGuard<'a, T, E, N>>,
    ) -> WriteResult<'a, T, E, N> {
        match entered {
            Ok(Acquired::Clean) => Ok(self.guard(0)),
            entered => self.lent_mut_slow(entered, error),
        }
    }

    #[cold]
    fn lent_mut_slow<'a>(
        &'a self,
        entered: Result<Acquired, RwLockError>,
        error: fn(RwLockError) -> LockError<RwWriteGuard<'a, T, E, N>>,
    ) -> WriteResult<'a, T, E, N> {
        let acquired = entered.map_err(error)?;
        held(acquired, self.guard(if acquired == Acquired::Clean { 0 } else { BROKEN }))
    }

    /// The guard of a lock that was just acquired.
    #[inline]
    fn guard(&self, flags: usize) -> RwWriteGuard<'_, T, E, N> {
        let flags = if thread::panicking() { flags | PANICKING } else { flags };
        RwWriteGuard { lock: self, flags, not_send: PhantomData }
    }
}

impl<T, E: fmt::Debug, K, const N: usize> fmt::Debug for RwLock<T, E, K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("env", &self.env).finish_non_exhaustive()
    }
}

/// The write lock, held while its holder works on a copy; given up when dropped.
struct Writing<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> {
    lock: &'a RwLock<T, E, K, N>,
    poison: bool,
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> Drop for Writing<'_, T, E, K, N> {
    fn drop(&mut self) {
        self.lock.words().unlock_write(&self.lock.env, self.poison);
    }
}

/// The value, lent to read. In a raw `fork()` child an inherited guard gives up nothing.
#[must_use = "dropping the guard unlocks at once"]
pub struct RwReadGuard<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize = READERS> {
    lock: &'a RwLock<T, E, Trusted, N>,
    place: ReadPlace,
    not_send: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives `&T` alone, and `T: Plain` is `Sync`.
unsafe impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness + Sync, const N: usize> Sync
    for RwReadGuard<'_, T, E, N>
{
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> Deref for RwReadGuard<'_, T, E, N> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY:
        // - valid and aligned by `new`'s contract, and every bit pattern is a `T`;
        // - nobody writes it: this guard has a reader's place, and `trust_peers` promised that the peers respect it.
        unsafe { self.lock.value.ptr().as_ref() }
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> Drop for RwReadGuard<'_, T, E, N> {
    #[inline]
    fn drop(&mut self) {
        self.lock.words().unlock_read(self.place, &self.lock.env);
    }
}

impl<T: Plain + fmt::Debug, E: Wait<Deadline = Deadline> + Liveness, const N: usize> fmt::Debug
    for RwReadGuard<'_, T, E, N>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RwReadGuard").field(&**self).finish()
    }
}

/// The value, lent to change. A panic while it is held poisons the lock. In a raw `fork()` child an inherited guard
/// unlocks nothing.
#[must_use = "dropping the guard unlocks at once"]
pub struct RwWriteGuard<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize = READERS> {
    lock: &'a RwLock<T, E, Trusted, N>,
    /// `BROKEN` and `PANICKING`, as in [`MutexGuard`](crate::MutexGuard).
    flags: usize,
    not_send: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives `&T` alone, and `T: Plain` is `Sync`.
unsafe impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness + Sync, const N: usize> Sync
    for RwWriteGuard<'_, T, E, N>
{
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> RwWriteGuard<'_, T, E, N> {
    /// Says that the value is whole again, so that the lock is not poisoned when this guard goes.
    pub fn mark_consistent(&mut self) {
        self.flags &= !BROKEN;
    }

    /// Whether the lock will be poisoned when this guard goes.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.flags & BROKEN != 0
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> Deref for RwWriteGuard<'_, T, E, N> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in `RwReadGuard`; this guard has the write lock.
        unsafe { self.lock.value.ptr().as_ref() }
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> DerefMut for RwWriteGuard<'_, T, E, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the write lock is exclusive.
        unsafe { self.lock.value.ptr().as_mut() }
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, const N: usize> Drop for RwWriteGuard<'_, T, E, N> {
    #[inline]
    fn drop(&mut self) {
        let poison = self.flags & BROKEN != 0 || (self.flags & PANICKING == 0 && thread::panicking());
        self.lock.words().unlock_write(&self.lock.env, poison);
    }
}

impl<T: Plain + fmt::Debug, E: Wait<Deadline = Deadline> + Liveness, const N: usize> fmt::Debug
    for RwWriteGuard<'_, T, E, N>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwWriteGuard").field("value", &**self).field("broken", &self.is_broken()).finish()
    }
}

/// A private copy of a value that may be broken, while the write lock is held.
///
/// [`commit`](Self::commit) writes the copy back and unlocks. Dropping it leaves the value as it was found and the lock
/// poisoned.
#[must_use = "dropping it leaves the lock poisoned"]
pub struct RwRepair<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize = READERS> {
    writing: Writing<'a, T, E, K, N>,
    copy: T,
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> RwRepair<'_, T, E, K, N> {
    /// Writes the copy back as the value, and unlocks unpoisoned.
    pub fn commit(mut self) {
        self.writing.lock.value.set(&self.copy);
        self.writing.poison = false;
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> Deref for RwRepair<'_, T, E, K, N> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.copy
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> DerefMut for RwRepair<'_, T, E, K, N> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.copy
    }
}

impl<T: Plain + fmt::Debug, E: Wait<Deadline = Deadline> + Liveness, K, const N: usize> fmt::Debug
    for RwRepair<'_, T, E, K, N>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwRepair").field("copy", &self.copy).finish_non_exhaustive()
    }
}

#[inline]
fn held<G>(acquired: Acquired, guard: G) -> Result<G, LockError<G>> {
    match acquired {
        Acquired::Clean => Ok(guard),
        Acquired::OwnerDied => Err(LockError::OwnerDied(guard)),
        Acquired::Poisoned => Err(LockError::Poisoned(guard)),
    }
}

fn refused<G>(error: RwLockError) -> LockError<G> {
    match error {
        RwLockError::Held(owner) => LockError::TimedOut(owner),
        RwLockError::Full => LockError::Full,
        RwLockError::Forked => LockError::Forked,
        _ => LockError::Corrupt,
    }
}

fn would_block<G>(error: RwLockError) -> LockError<G> {
    match refused(error) {
        LockError::TimedOut(owner) => LockError::WouldBlock(owner),
        error => error,
    }
}

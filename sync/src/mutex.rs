//! A value behind a process-shared lock.
//!
//! Two ways in, by how far the peers are trusted:
//! - [`Mutex::update`] works on a private copy of the value and writes it back under the lock. Nothing is lent, so it
//!   is right whatever other processes do with the memory.
//! - [`Mutex::lock`] and its kin lend the value in place, as std's mutex does. They exist on [`Trusted`] handles, whose
//!   peers keep to the protocol.
//!
//! # Crash
//! | a process is killed | the next one that locks gets |
//! |---|---|
//! | before it has the lock, or after the unlock | `Ok` |
//! | inside `update`, before the copy is written back | `OwnerDied` with the old value |
//! | inside `update`, while the copy is written back | `OwnerDied` with a torn value |
//! | with a guard in hand | `OwnerDied` with whatever it had written |
//! | with a guard or [`Repair`] of its own from `OwnerDied` | `OwnerDied` again |
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;
use std::thread;

use crosslane_core::mutex::{Acquired, LockWord};
use crosslane_core::prim::{AtomicU32, Word, copy_in, copy_out};
use crosslane_core::{Liveness, OwnerId, Plain, Trust, Trusted, Untrusted, Wait};

use crate::deadline::Deadline;
use crate::lease_lock::LeaseLock;
use crate::raw_lock::{NotAcquired, RawLock};

/// A lock word and a value, as they lie in shared memory.
///
/// The value stands at offset 8, or at its alignment if that is larger, and takes whole 8-byte words. All zero is a
/// valid start: unlocked, with the value of zero bytes.
#[repr(C, align(8))]
pub struct MutexCell<T> {
    lock: LockWord,
    reserved: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

const _: () = assert!(size_of::<MutexCell<u8>>() == 16);
const _: () = assert!(size_of::<MutexCell<[u64; 3]>>() == 32);
const _: () = assert!(core::mem::offset_of!(MutexCell<u8>, lock) == 0);
const _: () = assert!(core::mem::offset_of!(MutexCell<u8>, value) == 8);

// SAFETY: the value is only reached through a `Mutex`, whose lock decides who may.
unsafe impl<T: Plain> Sync for MutexCell<T> {}

impl<T: Plain> MutexCell<T> {
    /// An unlocked cell that holds `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { lock: LockWord::new(), reserved: AtomicU32::new(0), value: UnsafeCell::new(MaybeUninit::new(value)) }
    }
}

impl<T> fmt::Debug for MutexCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexCell").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// A handle to a value in shared memory behind a lock.
///
/// `R` is the lock, `K` says whether the peers are trusted. Threads share a handle, processes have one each. Dropping
/// the handle drops `R`, which may unmap the memory; it does not unlock.
pub struct Mutex<T, R, K = Untrusted> {
    value: NonNull<Word>,
    raw: R,
    kind: PhantomData<(T, K)>,
}

// SAFETY: a `T: Plain` may go anywhere, and the lock orders who touches it; `raw` goes along.
unsafe impl<T: Plain, R: Send, K> Send for Mutex<T, R, K> {}
// SAFETY: as above; threads that share the handle exclude each other by the lock.
unsafe impl<T: Plain, R: Sync, K> Sync for Mutex<T, R, K> {}

/// Why a value could not be had, with a guard where the lock is held all the same.
#[non_exhaustive]
pub enum LockError<G> {
    /// The last owner died while it held the lock, so the value may be half changed. The lock is held through the
    /// guard; unless that says that the value was repaired, the lock is poisoned afterwards.
    OwnerDied(G),
    /// An earlier owner left the value broken, and nobody has repaired it since. As [`OwnerDied`](Self::OwnerDied).
    Poisoned(G),
    /// Somebody holds the lock, and the call is one that does not block; who, if the lock can tell.
    WouldBlock(Option<OwnerId>),
    /// The time is over, and somebody still holds the lock; who, if the lock can tell.
    TimedOut(Option<OwnerId>),
    /// The lock has no place for one more holder: other processes have every reader's place of a reader-writer lock, or
    /// this thread holds a reentrant one 2^31 - 1 times.
    Full,
    /// This process is a raw `fork()` child and has no part in the lock.
    Forked,
    /// The shared words of the lock hold what no process writes that keeps to the protocol.
    Corrupt,
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> Mutex<T, LeaseLock<E>> {
    /// A handle to `cell` in the surroundings `env`.
    ///
    /// # Safety
    /// - `cell` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves;
    /// - this process reaches the value through mutexes alone: no reference to the cell's value exists meanwhile;
    /// - the [`Liveness`] of `env` keeps its contract: a participant that it calls dead never runs again.
    pub const unsafe fn new(cell: NonNull<MutexCell<T>>, env: E) -> Self {
        // SAFETY: inside the cell that the caller vouches for.
        let value = unsafe { cell.byte_add(core::mem::offset_of!(MutexCell<T>, value)) };
        // SAFETY: the lock word is the first field of a `repr(C)` struct; the rest is the caller's contract.
        let raw = unsafe { LeaseLock::new(cell.cast(), env) };
        // SAFETY: the cell is aligned to 8 and to `T`, the value starts at a multiple of 8 in it, and the cell's size is
        // a multiple of 8, so the value's last word ends inside; the rest is the caller's contract.
        unsafe { Self::from_raw_parts(value.cast(), raw) }
    }
}

impl<T: Plain, R: RawLock> Mutex<T, R> {
    /// A handle to the value at `value`, which `raw` guards.
    ///
    /// # Safety
    /// - `value` is valid for reads and writes, for the size of `T` rounded up to 8, as long as `raw` lives;
    /// - it is aligned to 8 and to `T`;
    /// - this process reaches the value through mutexes over the same lock alone.
    pub const unsafe fn from_raw_parts(value: NonNull<Word>, raw: R) -> Self {
        Self { value, raw, kind: PhantomData }
    }

    /// The handle, with the calls that lend the value in place.
    ///
    /// # Safety
    /// Every process that can write the memory, for as long as the handle lives, touches the value only while it holds
    /// the lock, and gives the lock word its meaning.
    pub unsafe fn trust_peers(self) -> Mutex<T, R, Trusted> {
        // SAFETY: the caller's contract.
        unsafe { self.with_trust() }
    }

    /// The handle, lending if `K` is [`Trusted`]; for code that is generic over whom it trusts.
    ///
    /// # Safety
    /// If `K` is `Trusted`: as [`trust_peers`](Self::trust_peers).
    pub unsafe fn with_trust<K: Trust>(self) -> Mutex<T, R, K> {
        Mutex { value: self.value, raw: self.raw, kind: PhantomData }
    }
}

impl<T: Plain, R: RawLock, K> Mutex<T, R, K> {
    /// Changes the value: copies it out under the lock, calls `change` on the copy, and writes the copy back.
    ///
    /// Blocks until the lock is free or its owner proven dead. If `change` panics, nothing is written, the lock is
    /// released unpoisoned, and the panic goes on. `change` must not lock the same mutex: it would wait for itself.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: `change` was not called. The [`Repair`] holds the lock and a
    ///   copy of what was found; [`Repair::commit`] writes it back and clears the state, dropping it leaves the value as
    ///   it is and the lock poisoned.
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    ///
    /// # Crash
    /// A process killed inside leaves `OwnerDied` to the next one, with the old value, or with a torn one if it was
    /// killed while the copy was written back.
    #[inline]
    pub fn update<O>(&self, change: impl FnOnce(&mut T) -> O) -> Result<O, LockError<Repair<'_, T, R>>> {
        self.changed(self.raw.lock(Deadline::never()).map_err(timed_out), change)
    }

    /// As [`update`](Self::update), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `update`, and [`LockError::TimedOut`].
    pub fn update_timeout<O>(
        &self,
        timeout: Duration,
        change: impl FnOnce(&mut T) -> O,
    ) -> Result<O, LockError<Repair<'_, T, R>>> {
        self.changed(self.raw.lock(Deadline::after(timeout)).map_err(timed_out), change)
    }

    /// As [`update`](Self::update), without blocking.
    ///
    /// # Errors
    /// As `update`, and [`LockError::WouldBlock`].
    pub fn try_update<O>(&self, change: impl FnOnce(&mut T) -> O) -> Result<O, LockError<Repair<'_, T, R>>> {
        self.changed(self.raw.try_lock().map_err(would_block), change)
    }

    /// A copy of the value, taken under the lock. Blocks as [`update`](Self::update) does.
    ///
    /// # Errors
    /// As `update`.
    pub fn read(&self) -> Result<T, LockError<Repair<'_, T, R>>> {
        let (held, acquired) = self.held(self.raw.lock(Deadline::never()).map_err(timed_out))?;
        let copy = self.copy_value();
        held_or_repair(held, acquired, copy, self.value).map(|_held| copy)
    }

    #[inline]
    fn changed<'a, O>(
        &'a self,
        locked: Result<Acquired, LockError<Repair<'a, T, R>>>,
        change: impl FnOnce(&mut T) -> O,
    ) -> Result<O, LockError<Repair<'a, T, R>>> {
        let (held, acquired) = self.held(locked)?;
        let mut copy = self.copy_value();
        // Unlocks when it goes, also when `change` panics.
        let _held = held_or_repair(held, acquired, copy, self.value)?;
        let output = change(&mut copy);
        // SAFETY: `from_raw_parts`' contract, and the lock is held.
        unsafe { write_value(self.value, &copy) };
        Ok(output)
    }

    /// The lock, held until what this returns is dropped.
    pub(crate) fn lock_until(&self, deadline: Deadline) -> Result<Held<'_, R>, LockError<Repair<'_, T, R>>> {
        let (held, acquired) = self.held(self.raw.lock(deadline).map_err(timed_out))?;
        held_or_repair(held, acquired, self.copy_value(), self.value)
    }

    /// Writes `copy` as the value, with the lock held.
    pub(crate) fn write_back(&self, copy: &T) {
        // SAFETY: `from_raw_parts`' contract.
        unsafe { write_value(self.value, copy) };
    }

    pub(crate) const fn raw(&self) -> &R {
        &self.raw
    }

    #[inline]
    fn held<G>(&self, locked: Result<Acquired, LockError<G>>) -> Result<(Held<'_, R>, Acquired), LockError<G>> {
        locked.map(|acquired| (Held { raw: &self.raw, poison: false }, acquired))
    }

    pub(crate) fn copy_value(&self) -> T {
        let mut copy = MaybeUninit::<T>::uninit();
        // SAFETY: `copy` is ours; the shared words are valid by `from_raw_parts`' contract, and a peer that writes
        // meanwhile makes garbage bytes.
        unsafe { copy_out(copy.as_mut_ptr().cast(), self.value, size_of::<T>()) };
        // SAFETY: every byte was written, and every bit pattern is a `T`.
        unsafe { copy.assume_init() }
    }
}

impl<T: Plain, R: RawLock> Mutex<T, R, Trusted> {
    /// Takes the lock and lends the value; blocks until the lock is free or its owner proven dead.
    ///
    /// Not fair, and not reentrant: a thread that holds the guard and locks again waits for itself.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the guard holds the lock; repair the value and call
    ///   [`MutexGuard::mark_consistent`], or the lock stays poisoned;
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    ///
    /// # Crash
    /// A process killed inside, or with the guard in hand, leaves `OwnerDied` to the next one.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T, R>, LockError<MutexGuard<'_, T, R>>> {
        self.lent(self.raw.lock(Deadline::never()).map_err(timed_out))
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T, R>, LockError<MutexGuard<'_, T, R>>> {
        self.lent(self.raw.try_lock().map_err(would_block))
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    #[inline]
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T, R>, LockError<MutexGuard<'_, T, R>>> {
        self.lent(self.raw.lock(Deadline::after(timeout)).map_err(timed_out))
    }

    #[inline]
    fn lent<'a>(
        &'a self,
        locked: Result<Acquired, LockError<MutexGuard<'a, T, R>>>,
    ) -> Result<MutexGuard<'a, T, R>, LockError<MutexGuard<'a, T, R>>> {
        match locked {
            Ok(Acquired::Clean) => Ok(self.guard(false)),
            locked => self.lent_slow(locked),
        }
    }

    #[cold]
    fn lent_slow<'a>(
        &'a self,
        locked: Result<Acquired, LockError<MutexGuard<'a, T, R>>>,
    ) -> Result<MutexGuard<'a, T, R>, LockError<MutexGuard<'a, T, R>>> {
        match locked? {
            Acquired::Clean => Ok(self.guard(false)),
            Acquired::OwnerDied => Err(LockError::OwnerDied(self.guard(true))),
            Acquired::Poisoned => Err(LockError::Poisoned(self.guard(true))),
        }
    }

    /// The guard of a lock that was just acquired.
    #[inline]
    fn guard(&self, broken: bool) -> MutexGuard<'_, T, R> {
        let panicking = if thread::panicking() { PANICKING } else { 0 };
        let flags = if broken { BROKEN | panicking } else { panicking };
        MutexGuard { raw: &self.raw, value: self.value.cast(), flags, not_send: PhantomData }
    }
}

/// The lock, held; gives it up when dropped.
pub(crate) struct Held<'a, R: RawLock> {
    raw: &'a R,
    poison: bool,
}

impl<R: RawLock> Drop for Held<'_, R> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made only by `Mutex::held` from a successful lock, and dropped once.
        unsafe { self.raw.unlock(self.poison) };
    }
}

/// The value may be half changed.
pub(crate) const BROKEN: usize = 1;
/// The thread was panicking when it took the lock.
pub(crate) const PANICKING: usize = 2;

/// The value, lent in place while the lock is held. Dropping it unlocks.
///
/// A panic while it is held poisons the lock, as std's does. Forgotten, it holds the lock until the process ends.
/// In a raw `fork()` child an inherited guard unlocks nothing, and the value belongs to the parent.
#[must_use = "dropping the guard unlocks at once"]
pub struct MutexGuard<'a, T: Plain, R: RawLock> {
    raw: &'a R,
    value: NonNull<T>,
    /// `BROKEN` and `PANICKING`. One word: two flags side by side are stored apart and copied together, and the copy of
    /// a guard then waits for the stores, which costs more than the lock.
    flags: usize,
    // Locks of other kinds must be unlocked by the thread that locked them.
    not_send: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives `&T` alone, and `T: Plain` is `Sync`.
unsafe impl<T: Plain, R: RawLock + Sync> Sync for MutexGuard<'_, T, R> {}

impl<T: Plain, R: RawLock> MutexGuard<'_, T, R> {
    /// Says that the value is whole again, so that the lock is not poisoned when this guard goes.
    pub fn mark_consistent(&mut self) {
        self.flags &= !BROKEN;
    }

    /// Whether the lock will be poisoned when this guard goes: it came with `OwnerDied` or `Poisoned`, and nobody has
    /// called [`mark_consistent`](Self::mark_consistent).
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.flags & BROKEN != 0
    }
}

impl<T: Plain, R: RawLock> Deref for MutexGuard<'_, T, R> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY:
        // - valid and aligned by `from_raw_parts`' contract, and every bit pattern is a `T`;
        // - nobody writes it: this guard holds the lock, and `trust_peers` promised that the peers respect it.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Plain, R: RawLock> DerefMut for MutexGuard<'_, T, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is borrowed mutably.
        unsafe { self.value.as_mut() }
    }
}

impl<T: Plain, R: RawLock> Drop for MutexGuard<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        let poison = self.flags & BROKEN != 0 || (self.flags & PANICKING == 0 && thread::panicking());
        // SAFETY: made only by `Mutex::guard` after a successful lock, and dropped once.
        unsafe { self.raw.unlock(poison) };
    }
}

impl<T: Plain + fmt::Debug, R: RawLock> fmt::Debug for MutexGuard<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard").field("value", &**self).field("broken", &self.is_broken()).finish()
    }
}

/// A private copy of a value that may be broken, while the lock is held.
///
/// [`commit`](Self::commit) writes the copy back and unlocks. Dropping it leaves the value as it was found and the lock
/// poisoned.
#[must_use = "dropping it leaves the lock poisoned"]
pub struct Repair<'a, T: Plain, R: RawLock> {
    held: Held<'a, R>,
    value: NonNull<Word>,
    copy: T,
    not_send: PhantomData<*mut T>,
}

impl<T: Plain, R: RawLock> Repair<'_, T, R> {
    /// Writes the copy back as the value, and unlocks unpoisoned.
    ///
    /// # Crash
    /// A process killed inside leaves `OwnerDied` to the next one, with a value that may be torn.
    pub fn commit(mut self) {
        // SAFETY: `from_raw_parts`' contract, and `self.held` holds the lock.
        unsafe { write_value(self.value, &self.copy) };
        self.held.poison = false;
    }
}

impl<T: Plain, R: RawLock> Deref for Repair<'_, T, R> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.copy
    }
}

impl<T: Plain, R: RawLock> DerefMut for Repair<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.copy
    }
}

impl<T: Plain + fmt::Debug, R: RawLock> fmt::Debug for Repair<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repair").field("copy", &self.copy).finish_non_exhaustive()
    }
}

/// `held` back if the value is whole, else a repair of `copy`.
fn held_or_repair<T: Plain, R: RawLock>(
    mut held: Held<'_, R>,
    acquired: Acquired,
    copy: T,
    value: NonNull<Word>,
) -> Result<Held<'_, R>, LockError<Repair<'_, T, R>>> {
    if acquired == Acquired::Clean {
        return Ok(held);
    }
    held.poison = true;
    let repair = Repair { held, value, copy, not_send: PhantomData };
    Err(match acquired {
        Acquired::OwnerDied => LockError::OwnerDied(repair),
        _ => LockError::Poisoned(repair),
    })
}

/// Writes `copy` to the shared words.
///
/// # Safety
/// `value` is valid for the size of `T` rounded up to 8, as shared words.
unsafe fn write_value<T: Plain>(value: NonNull<Word>, copy: &T) {
    // SAFETY: `copy` is a private `T` without padding; the words are the caller's contract.
    unsafe { copy_in(value, core::ptr::from_ref(copy).cast(), size_of::<T>()) };
}

fn timed_out<G>(error: NotAcquired) -> LockError<G> {
    match error {
        NotAcquired::Held(owner) => LockError::TimedOut(owner),
        NotAcquired::Forked => LockError::Forked,
        NotAcquired::Corrupt => LockError::Corrupt,
    }
}

fn would_block<G>(error: NotAcquired) -> LockError<G> {
    match timed_out(error) {
        LockError::TimedOut(owner) => LockError::WouldBlock(owner),
        error => error,
    }
}

impl<T, R: fmt::Debug, K> fmt::Debug for Mutex<T, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("raw", &self.raw).finish_non_exhaustive()
    }
}

impl<G> LockError<G> {
    /// The same error with another guard.
    pub fn map<H>(self, wrap: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            Self::OwnerDied(guard) => LockError::OwnerDied(wrap(guard)),
            Self::Poisoned(guard) => LockError::Poisoned(wrap(guard)),
            Self::WouldBlock(owner) => LockError::WouldBlock(owner),
            Self::TimedOut(owner) => LockError::TimedOut(owner),
            Self::Full => LockError::Full,
            Self::Forked => LockError::Forked,
            Self::Corrupt => LockError::Corrupt,
        }
    }

    /// The same error without the guard, which is dropped: `'static`, so that `?` can carry it out of the function that
    /// the lock lives in. With the guard it borrows from the lock, and is to be dealt with while that lives.
    ///
    /// A lock that is held through the guard is released, and the value, which nobody has repaired, stays
    /// [`Poisoned`](Self::Poisoned).
    ///
    /// # Examples
    /// ```
    /// use crosslane_sync::{LockError, Mutex, RawLock};
    ///
    /// fn book(balance: Mutex<i64, impl RawLock>, euros: i64) -> Result<(), Box<dyn std::error::Error>> {
    ///     // `update(..)?` would return what borrows from `balance`, which ends here.
    ///     balance.update(|balance| *balance += euros).map_err(LockError::without_guard)?;
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn without_guard(self) -> LockError<()> {
        self.map(drop)
    }

    /// The guard, if the lock is held.
    #[must_use]
    pub fn into_guard(self) -> Option<G> {
        match self {
            Self::OwnerDied(guard) | Self::Poisoned(guard) => Some(guard),
            _ => None,
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("OwnerDied(..)"),
            Self::Poisoned(_) => f.write_str("Poisoned(..)"),
            Self::WouldBlock(owner) => f.debug_tuple("WouldBlock").field(owner).finish(),
            Self::TimedOut(owner) => f.debug_tuple("TimedOut").field(owner).finish(),
            Self::Full => f.write_str("Full"),
            Self::Forked => f.write_str("Forked"),
            Self::Corrupt => f.write_str("Corrupt"),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => {
                f.write_str("the last owner died while it held the lock: repair the value that comes with this error")
            }
            Self::Poisoned(_) => {
                f.write_str("an earlier owner left the value broken: repair the value that comes with this error")
            }
            Self::WouldBlock(Some(owner)) => write!(f, "the lock is held by {owner}"),
            Self::WouldBlock(None) => f.write_str("the lock is held"),
            Self::TimedOut(Some(owner)) => write!(f, "the time is over, and the lock is held by {owner}"),
            Self::TimedOut(None) => f.write_str("the time is over, and the lock is held"),
            Self::Full => f.write_str("the lock has no place for one more holder"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the lock are corrupt"),
        }
    }
}

impl<G> core::error::Error for LockError<G> {}

//! Locks with one holder, or one writer and many readers, and the values inside them.

use std::fmt;
use std::time::Duration;

use super::{LockError, handle};
use crate::error::Result;
use crate::place::{self, Placed};
use crate::shm::{self, Env, Slabs};
use crate::sync::{self, LeaseLock};
use crate::{Plain, Trusted};

handle! {
    /// A value of type `T` behind a lock, as std's `Mutex`, between processes.
    ///
    /// Uncontended, a lock and its unlock cost what std's do. Not fair, and not reentrant ([`RLock`] is).
    ///
    /// # Crash
    /// If a process is killed with the guard in hand, the next one to lock gets [`LockError::OwnerDied`] with the guard:
    /// the value may be half changed, and stays poisoned unless the new holder says
    /// [`mark_consistent`](sync::MutexGuard::mark_consistent).
    ///
    /// # Examples
    /// ```
    /// use crosslane::{LockError, Mutex, Plain};
    ///
    /// #[derive(Clone, Copy, Plain)]
    /// #[repr(C)]
    /// struct Account {
    ///     euros: i64,
    ///     bookings: u64,
    /// }
    ///
    /// let account = Mutex::new(Account { euros: 100, bookings: 0 })?;
    /// let same = account.clone(); // or sent to another process
    /// match same.lock() {
    ///     Ok(mut account) => {
    ///         account.euros -= 30;
    ///         account.bookings += 1;
    ///     }
    ///     // Somebody was killed in the middle: put the value in order, say so, and go on.
    ///     Err(LockError::OwnerDied(mut torn) | LockError::Poisoned(mut torn)) => torn.mark_consistent(),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// assert_eq!(account.lock()?.euros, 70);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Mutex<T> is shm::Mutex<T, Trusted>
}

/// The value of a [`Mutex`], lent while its lock is held. Dropping it unlocks.
pub type MutexGuard<'a, T> = sync::MutexGuard<'a, T, LeaseLock<Env>>;

impl<T: Plain> Mutex<T> {
    /// An unlocked mutex that holds `value`.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): there is no memory for it, it does not fit into a slab of 64 KiB, or its
    /// alignment is above 128 bytes.
    pub fn new(value: T) -> Result<Self> {
        Ok(Self(Placed::new(shm::Mutex::in_slab(Slabs::family(), value)?)))
    }

    /// Takes the lock and lends the value; blocks until the lock is free or its holder proven dead.
    ///
    /// A thread that holds the guard and locks again waits for itself.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the guard holds the lock; repair the value and call
    ///   `mark_consistent`, or the lock stays poisoned;
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        self.0.lock()
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        self.0.try_lock()
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    #[inline]
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        self.0.lock_timeout(timeout)
    }
}

handle! {
    /// A lock around something that it does not hold: a file, a terminal, several arrays.
    ///
    /// Python's `Lock`, but that only its holder gives it back, by dropping the guard; for a lock that one process takes and
    /// another gives back, use a [`Semaphore`](super::Semaphore) of 1. A value of one's own goes into a [`Mutex`].
    ///
    /// # Crash
    /// As a [`Mutex`]'s: what the lock protects may be half changed when its holder is killed.
    ///
    /// # Examples
    /// ```
    /// let lock = crosslane::Lock::new()?;
    /// {
    ///     let _guard = lock.lock()?;
    ///     println!("one line at a time");
    /// }
    /// assert!(lock.try_lock().is_ok());
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Lock is LockWord
}

struct LockWord(shm::Mutex<[u8; 0], Trusted>);

place::renamed!("Lock": LockWord(shm::Mutex<[u8; 0], Trusted>));

/// A [`Lock`], held. Dropping it unlocks; a panic meanwhile poisons the lock.
#[must_use = "dropping the guard unlocks at once"]
pub struct LockGuard<'a>(MutexGuard<'a, [u8; 0]>);

impl Lock {
    /// An unlocked lock.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): there is no memory for it.
    pub fn new() -> Result<Self> {
        Ok(Self(Placed::new(LockWord(shm::Mutex::in_slab(Slabs::family(), [])?))))
    }

    /// Takes the lock; blocks until it is free or its holder proven dead. A thread that holds it and locks again waits for
    /// itself.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    #[inline]
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.0.0.lock().map(LockGuard).map_err(|error| error.map(LockGuard))
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    #[inline]
    #[doc(alias = "try_acquire")]
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.0.0.try_lock().map(LockGuard).map_err(|error| error.map(LockGuard))
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    #[doc(alias = "acquire_timeout")]
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.0.0.lock_timeout(timeout).map(LockGuard).map_err(|error| error.map(LockGuard))
    }
}

impl LockGuard<'_> {
    /// Says that what the lock protects is whole again, so that the lock is not poisoned when this guard goes.
    pub fn mark_consistent(&mut self) {
        self.0.mark_consistent();
    }

    /// Whether the lock will be poisoned when this guard goes.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("broken", &self.is_broken()).finish()
    }
}

handle! {
    /// A lock that the thread which holds it may take again, as Python's `RLock`: it is free when each of the guards is gone.
    ///
    /// # Crash
    /// As a [`Mutex`]'s, however many guards the killed process had.
    ///
    /// # Examples
    /// ```
    /// let lock = crosslane::RLock::new()?;
    /// let outer = lock.lock()?;
    /// let inner = lock.lock()?;
    /// drop((outer, inner));
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    RLock is shm::RLock<[u8; 0], Trusted>
}

/// An [`RLock`], held once more by this thread. Dropping it unlocks as often as it was taken: once. It cannot leave its
/// thread.
#[must_use = "dropping the guard unlocks at once"]
#[derive(Debug)]
pub struct RLockGuard<'a>(sync::RLockGuard<'a, [u8; 0], Env>);

impl RLock {
    /// An unlocked lock.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): there is no memory for it.
    pub fn new() -> Result<Self> {
        Ok(Self(Placed::new(shm::RLock::in_slab(Slabs::family(), [])?)))
    }

    /// Takes the lock, once more if this thread holds it; blocks until it is free or its holder proven dead.
    ///
    /// # Errors
    /// As [`Mutex::lock`]; a thread that is in already gets `Poisoned` for as long as a broken lock is not marked
    /// consistent. [`LockError::Full`]: this thread holds the lock 2^31 - 1 times already.
    #[inline]
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.0.lock().map(RLockGuard).map_err(|error| error.map(RLockGuard))
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    #[inline]
    #[doc(alias = "try_acquire")]
    pub fn try_lock(&self) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.0.try_lock().map(RLockGuard).map_err(|error| error.map(RLockGuard))
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    #[doc(alias = "acquire_timeout")]
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.0.lock_timeout(timeout).map(RLockGuard).map_err(|error| error.map(RLockGuard))
    }
}

impl RLockGuard<'_> {
    /// Says that what the lock protects is whole again, so that the lock is not poisoned when the last guard goes.
    pub fn mark_consistent(&mut self) {
        self.0.mark_consistent();
    }

    /// Whether the lock will be poisoned when the last guard goes.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

handle! {
    /// A value of type `T` behind a lock for many readers, of up to 64 processes at once, or one writer.
    ///
    /// A waiting writer keeps new readers out.
    ///
    /// # Crash
    /// A writer waits for no dead reader. If a writer is killed, the next ones get [`LockError::OwnerDied`] and then
    /// `Poisoned`, until a writer says [`mark_consistent`](sync::RwWriteGuard::mark_consistent).
    ///
    /// # Examples
    /// ```
    /// let lock = crosslane::RwLock::new([0_u64; 2])?;
    /// lock.write()?[1] = 5;
    /// let (a, b) = (lock.read()?, lock.read()?);
    /// assert_eq!((a[1], b[1]), (5, 5));
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    RwLock<T> is shm::RwLock<T, Trusted>
}

/// The value of an [`RwLock`], lent to read. Dropping it gives the reader's place up.
pub type RwReadGuard<'a, T> = sync::RwReadGuard<'a, T, Env>;

/// The value of an [`RwLock`], lent to change. Dropping it unlocks.
pub type RwWriteGuard<'a, T> = sync::RwWriteGuard<'a, T, Env>;

impl<T: Plain> RwLock<T> {
    /// An unlocked lock that holds `value`.
    ///
    /// # Errors
    /// As [`Mutex::new`].
    pub fn new(value: T) -> Result<Self> {
        Ok(Self(Placed::new(shm::RwLock::in_slab(Slabs::family(), value)?)))
    }

    /// Lends the value to read; blocks while a writer is there, until it leaves or is proven dead.
    ///
    /// A thread that reads already may deadlock with a writer that came between; one that writes waits for itself.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the guard reads a value that may be half changed;
    /// - [`LockError::Full`]: 64 other processes read at this moment;
    /// - [`LockError::Forked`], [`LockError::Corrupt`].
    pub fn read(&self) -> Result<RwReadGuard<'_, T>, LockError<RwReadGuard<'_, T>>> {
        self.0.read()
    }

    /// As [`read`](Self::read), without blocking.
    ///
    /// # Errors
    /// As `read`, and [`LockError::WouldBlock`].
    pub fn try_read(&self) -> Result<RwReadGuard<'_, T>, LockError<RwReadGuard<'_, T>>> {
        self.0.try_read()
    }

    /// As [`read`](Self::read), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `read`, and [`LockError::TimedOut`].
    pub fn read_timeout(&self, timeout: Duration) -> Result<RwReadGuard<'_, T>, LockError<RwReadGuard<'_, T>>> {
        self.0.read_timeout(timeout)
    }

    /// Lends the value to change; blocks until readers and writers have left or are proven dead.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn write(&self) -> Result<RwWriteGuard<'_, T>, LockError<RwWriteGuard<'_, T>>> {
        self.0.write()
    }

    /// As [`write`](Self::write), without blocking.
    ///
    /// # Errors
    /// As `write`, and [`LockError::WouldBlock`].
    pub fn try_write(&self) -> Result<RwWriteGuard<'_, T>, LockError<RwWriteGuard<'_, T>>> {
        self.0.try_write()
    }

    /// As [`write`](Self::write), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `write`, and [`LockError::TimedOut`].
    pub fn write_timeout(&self, timeout: Duration) -> Result<RwWriteGuard<'_, T>, LockError<RwWriteGuard<'_, T>>> {
        self.0.write_timeout(timeout)
    }
}

handle! {
    /// A value of type `T` behind a lock, for whose changes processes wait: Python's `Condition`, with what it is about
    /// inside, so that nobody can forget the lock.
    ///
    /// Notifiers wait for nobody, and killed waiters leave nothing behind. A wait may end without a notification, and does
    /// so once a second: the guard's [`wait_while`](sync::CondvarGuard::wait_while) looks again each time.
    ///
    /// # Crash
    /// As a [`Mutex`]'s; a notifier that is killed before it notifies costs the waiters 1 s at most.
    ///
    /// # Examples
    /// ```
    /// let ready = crosslane::Condvar::new(0_u64)?;
    /// let same = ready.clone(); // or sent to another process
    /// let other = std::thread::spawn(move || {
    ///     *same.lock().unwrap() = 7;
    ///     same.notify_all();
    /// });
    /// let guard = ready.lock()?.wait_while(|n| *n == 0)?;
    /// assert_eq!(*guard, 7);
    /// # drop(guard);
    /// # other.join().unwrap();
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Condvar<T> is shm::Condvar<T, Trusted>
}

/// The value of a [`Condvar`], lent while its lock is held, by which one waits. Dropping it unlocks.
pub type CondvarGuard<'a, T> = sync::CondvarGuard<'a, T, Env>;

impl<T: Plain> Condvar<T> {
    /// An unlocked condition that holds `value`.
    ///
    /// # Errors
    /// As [`Mutex::new`].
    pub fn new(value: T) -> Result<Self> {
        Ok(Self(Placed::new(shm::Condvar::in_slab(Slabs::family(), value)?)))
    }

    /// Takes the lock and lends the value, as [`Mutex::lock`]. The guard waits for changes.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<CondvarGuard<'_, T>, LockError<CondvarGuard<'_, T>>> {
        self.0.lock()
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    pub fn try_lock(&self) -> Result<CondvarGuard<'_, T>, LockError<CondvarGuard<'_, T>>> {
        self.0.try_lock()
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<CondvarGuard<'_, T>, LockError<CondvarGuard<'_, T>>> {
        self.0.lock_timeout(timeout)
    }

    /// Wakes one of those who wait, if anybody does. No system call while nobody does. Does not block.
    #[doc(alias = "notify")]
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who wait. Does not block.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

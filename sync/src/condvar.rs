//! A value behind a lock, and a condition on it that processes wait for.
//!
//! Protocol and crash table: [`crosslane_core::lock::condvar`].
//!
//! A [`Condvar`] has its mutex inside: its guards are a type of their own and carry it along, so a wait can never be given
//! another lock's guard.
#![allow(unsafe_code)]

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;

use crosslane_core::lock::condvar::CondvarWord;
use crosslane_core::{Liveness, Plain, Trust, Trusted, Untrusted, Wait};

use crate::deadline::Deadline;
use crate::lease_lock::LeaseLock;
use crate::mutex::{LockError, Mutex, MutexCell, MutexGuard, Repair};

/// A mutex with its value, and the word of a condition, as they lie in shared memory. All zero is a valid start.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct CondvarCell<T> {
    condition: CondvarWord,
    reserved: [u32; 1],
    mutex: MutexCell<T>,
}

const _: () = assert!(core::mem::offset_of!(CondvarCell<u8>, mutex) == 8);
const _: () = assert!(size_of::<CondvarCell<u8>>() == 24);

impl<T: Plain> CondvarCell<T> {
    /// An unlocked cell that holds `value`, for whose changes nobody waits.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { condition: CondvarWord::new(), reserved: [0], mutex: MutexCell::new(value) }
    }
}

/// A handle to a value in shared memory behind a lock, for whose changes processes wait.
///
/// A notifier never waits for a waiter, and waiters leave nothing behind: killed ones cost the next notification a system
/// call at most. Every wait may end without a notification, and does so once a second, so a notifier that is killed
/// before it notifies costs the waiters no more than that.
///
/// On a trusted handle [`lock`](Condvar::lock) lends the value; on any, [`update`](Condvar::update) and
/// [`update_when`](Condvar::update_when) work on a copy. Threads share a handle, processes have one each. `E` waits, knows
/// who is dead, and keeps the memory mapped.
pub struct Condvar<T, E, K = Untrusted> {
    mutex: Mutex<T, LeaseLock<E>, K>,
    condition: NonNull<CondvarWord>,
}

// SAFETY: the word is an atomic that any thread may use; the mutex goes along.
unsafe impl<T: Plain, E: Send, K> Send for Condvar<T, E, K> {}
// SAFETY: as above.
unsafe impl<T: Plain, E: Sync, K> Sync for Condvar<T, E, K> {}

/// Whether a wait ended because its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was over. What is waited for may have come all the same.
    #[must_use]
    pub const fn timed_out(self) -> bool {
        self.0
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> Condvar<T, E> {
    /// A handle to `cell` in the surroundings `env`.
    ///
    /// # Safety
    /// As [`Mutex::new`].
    pub const unsafe fn new(cell: NonNull<CondvarCell<T>>, env: E) -> Self {
        // SAFETY: inside the cell that the caller vouches for.
        let mutex = unsafe { cell.byte_add(core::mem::offset_of!(CondvarCell<T>, mutex)) };
        // SAFETY: the caller's contract.
        let mutex = unsafe { Mutex::new(mutex.cast(), env) };
        Self { mutex, condition: cell.cast() }
    }

    /// The handle, with the calls that lend the value in place.
    ///
    /// # Safety
    /// As [`Mutex::trust_peers`].
    pub unsafe fn trust_peers(self) -> Condvar<T, E, Trusted> {
        // SAFETY: the caller's contract.
        unsafe { self.with_trust() }
    }

    /// The handle, lending if `K` is [`Trusted`]; for code that is generic over whom it trusts.
    ///
    /// # Safety
    /// If `K` is `Trusted`: as [`trust_peers`](Self::trust_peers).
    pub unsafe fn with_trust<K: Trust>(self) -> Condvar<T, E, K> {
        // SAFETY: the caller's contract.
        Condvar { mutex: unsafe { self.mutex.with_trust() }, condition: self.condition }
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness, K> Condvar<T, E, K> {
    /// Wakes one of those who wait, if anybody does. No system call while nobody does. Does not block.
    ///
    /// # Crash
    /// If the woken one is killed before it acts, the others look again within 1 s.
    #[inline]
    pub fn notify_one(&self) {
        self.condition().notify(1, self.env());
    }

    /// Wakes all who wait. Does not block.
    #[inline]
    pub fn notify_all(&self) {
        self.condition().notify(u32::MAX, self.env());
    }

    /// Changes the value on a copy, as [`Mutex::update`], and notifies nobody.
    ///
    /// # Errors
    /// As [`Mutex::update`].
    pub fn update<O>(&self, change: impl FnOnce(&mut T) -> O) -> Result<O, LockError<Repair<'_, T, LeaseLock<E>>>> {
        self.mutex.update(change)
    }

    /// Waits until `change` gives something: it is called on a copy of the value under the lock, which is written back when
    /// it does, at once and after each change that somebody notifies of.
    ///
    /// # Errors
    /// As [`Mutex::update`].
    pub fn update_when<O>(
        &self,
        change: impl FnMut(&mut T) -> Option<O>,
    ) -> Result<O, LockError<Repair<'_, T, LeaseLock<E>>>> {
        self.update_until(Deadline::never(), change)
    }

    /// As [`update_when`](Self::update_when), at most for `timeout`, which counts for the waiting and for the lock.
    ///
    /// # Errors
    /// As `update_when`, and [`LockError::TimedOut`].
    pub fn update_when_timeout<O>(
        &self,
        timeout: Duration,
        change: impl FnMut(&mut T) -> Option<O>,
    ) -> Result<O, LockError<Repair<'_, T, LeaseLock<E>>>> {
        self.update_until(Deadline::after(timeout), change)
    }

    fn update_until<O>(
        &self,
        deadline: Deadline,
        mut change: impl FnMut(&mut T) -> Option<O>,
    ) -> Result<O, LockError<Repair<'_, T, LeaseLock<E>>>> {
        let mut over = false;
        loop {
            let mut locked = Some(self.mutex.lock_until(deadline)?);
            let mut copy = self.mutex.copy_value();
            if let Some(output) = change(&mut copy) {
                self.mutex.write_back(&copy);
                return Ok(output);
            }
            if over {
                return Err(LockError::TimedOut(None));
            }
            over = !self.condition().wait(self.env(), deadline, || drop(locked.take()));
        }
    }

    fn env(&self) -> &E {
        self.mutex.raw().env()
    }

    #[inline]
    fn condition(&self) -> &CondvarWord {
        // SAFETY: `new`'s contract: valid while the surroundings in the mutex live; an atomic inside, so a shared
        // reference stays right whatever other processes write.
        unsafe { self.condition.as_ref() }
    }
}

type GuardResult<'a, T, E> = Result<CondvarGuard<'a, T, E>, LockError<CondvarGuard<'a, T, E>>>;
type TimedGuard<'a, T, E> = (CondvarGuard<'a, T, E>, WaitTimeoutResult);

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> Condvar<T, E, Trusted> {
    /// Takes the lock and lends the value, as [`Mutex::lock`].
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    #[inline]
    pub fn lock(&self) -> GuardResult<'_, T, E> {
        guarded(self, self.mutex.lock())
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As [`Mutex::try_lock`].
    pub fn try_lock(&self) -> GuardResult<'_, T, E> {
        guarded(self, self.mutex.try_lock())
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As [`Mutex::lock_timeout`].
    pub fn lock_timeout(&self, timeout: Duration) -> GuardResult<'_, T, E> {
        guarded(self, self.mutex.lock_timeout(timeout))
    }
}

impl<T, E: fmt::Debug, K> fmt::Debug for Condvar<T, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").field("mutex", &self.mutex).finish_non_exhaustive()
    }
}

/// The value of a [`Condvar`], lent in place while its lock is held. Dropping it unlocks, as with [`MutexGuard`].
#[must_use = "dropping the guard unlocks at once"]
pub struct CondvarGuard<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness> {
    condvar: &'a Condvar<T, E, Trusted>,
    guard: MutexGuard<'a, T, LeaseLock<E>>,
}

impl<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness> CondvarGuard<'a, T, E> {
    /// Unlocks, waits for a notification, and locks again. May end without one: look at the condition in a loop, or use
    /// [`wait_while`](Self::wait_while).
    ///
    /// # Errors
    /// As [`Condvar::lock`]: whoever held the lock last may have died, and the guard is in the error.
    ///
    /// # Crash
    /// A process killed inside leaves nothing behind.
    pub fn wait(self) -> GuardResult<'a, T, E> {
        let condvar = self.condvar;
        self.sleep(Deadline::never());
        condvar.lock()
    }

    /// As [`wait`](Self::wait), at most for `timeout`. Locking again afterwards may take longer.
    ///
    /// # Errors
    /// As `wait`.
    pub fn wait_timeout(self, timeout: Duration) -> Result<TimedGuard<'a, T, E>, LockError<Self>> {
        let condvar = self.condvar;
        let timed_out = !self.sleep(Deadline::after(timeout));
        condvar.lock().map(|guard| (guard, WaitTimeoutResult(timed_out)))
    }

    /// Waits for as long as `condition` is true of the value.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); `condition` is not asked about a value that may be broken.
    pub fn wait_while(mut self, mut condition: impl FnMut(&mut T) -> bool) -> GuardResult<'a, T, E> {
        while condition(&mut self) {
            self = self.wait()?;
        }
        Ok(self)
    }

    /// As [`wait_while`](Self::wait_while), at most for `timeout`: `timed_out` says that the condition is still true.
    ///
    /// # Errors
    /// As `wait_while`.
    pub fn wait_timeout_while(
        mut self,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<TimedGuard<'a, T, E>, LockError<Self>> {
        let (condvar, deadline) = (self.condvar, Deadline::after(timeout));
        let mut over = false;
        while condition(&mut self) {
            if over {
                return Ok((self, WaitTimeoutResult(true)));
            }
            over = !self.sleep(deadline);
            self = condvar.lock()?;
        }
        Ok((self, WaitTimeoutResult(false)))
    }

    /// Says that the value is whole again: see [`MutexGuard::mark_consistent`].
    pub fn mark_consistent(&mut self) {
        self.guard.mark_consistent();
    }

    /// Whether the lock will be poisoned when this guard goes: see [`MutexGuard::is_broken`].
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.guard.is_broken()
    }

    /// Announces, unlocks, sleeps; `false` at the deadline.
    fn sleep(self, deadline: Deadline) -> bool {
        let (condvar, guard) = (self.condvar, self.guard);
        condvar.condition().wait(condvar.env(), deadline, || drop(guard))
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> Deref for CondvarGuard<'_, T, E> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: Plain, E: Wait<Deadline = Deadline> + Liveness> DerefMut for CondvarGuard<'_, T, E> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: Plain + fmt::Debug, E: Wait<Deadline = Deadline> + Liveness> fmt::Debug for CondvarGuard<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CondvarGuard").field(&self.guard).finish()
    }
}

type MutexResult<'a, T, E> = Result<MutexGuard<'a, T, LeaseLock<E>>, LockError<MutexGuard<'a, T, LeaseLock<E>>>>;

fn guarded<'a, T: Plain, E: Wait<Deadline = Deadline> + Liveness>(
    condvar: &'a Condvar<T, E, Trusted>,
    locked: MutexResult<'a, T, E>,
) -> GuardResult<'a, T, E> {
    match locked {
        Ok(guard) => Ok(CondvarGuard { condvar, guard }),
        Err(error) => Err(error.map(|guard| CondvarGuard { condvar, guard })),
    }
}

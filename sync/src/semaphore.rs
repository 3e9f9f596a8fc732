//! Semaphores: [`BoundedSemaphore`], whose permits come back when their holder dies, and [`Semaphore`], which nobody owns.
//!
//! Protocols and crash tables: [`crosslane_core::lock::permits`] and [`crosslane_core::lock::semaphore`].
#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::time::Duration;

use crosslane_core::lock::permits::{AcquireError, OverRelease, Permits, Place};
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::{Liveness, OwnerId, Wait};

use crate::deadline::Deadline;

/// A handle to a semaphore with a fixed number of permits, each of which names the process that holds it.
///
/// Threads share a handle, processes have one each. `E` waits, knows who is dead, and keeps the memory mapped.
#[derive(Debug, Clone)]
pub struct BoundedSemaphore<'m, E> {
    permits: Permits<'m>,
    env: E,
}

impl<'m, E: Wait<Deadline = Deadline> + Liveness> BoundedSemaphore<'m, E> {
    /// A handle to `permits` in the surroundings `env`.
    #[must_use]
    pub const fn new(permits: Permits<'m>, env: E) -> Self {
        Self { permits, env }
    }

    /// Takes a permit; blocks until one is free or a holder proven dead. Not fair.
    ///
    /// # Errors
    /// [`AcquireError::Forked`].
    ///
    /// # Crash
    /// The permits of a killed process come back within 10 ms for each 16 holders, once somebody waits.
    #[inline]
    pub fn acquire(&self) -> Result<Permit<'_, 'm, E>, AcquireError> {
        self.permit(self.permits.acquire(&self.env, Deadline::never()))
    }

    /// As [`acquire`](Self::acquire), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `acquire`, and [`AcquireError::TimedOut`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_, 'm, E>, AcquireError> {
        self.permit(self.permits.acquire(&self.env, Deadline::after(timeout)))
    }

    /// As [`acquire`](Self::acquire), without blocking. May miss a permit that changes hands at this very moment.
    ///
    /// # Errors
    /// As `acquire`, and [`AcquireError::WouldBlock`].
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_, 'm, E>, AcquireError> {
        self.permit(self.permits.try_acquire(&self.env))
    }

    /// Gives back one permit of this process that was [detached](Permit::detach) from its guard.
    ///
    /// # Errors
    /// [`OverRelease`] if this process has none.
    pub fn release(&self) -> Result<(), OverRelease> {
        self.permits.release_any(&self.env)
    }

    /// How many permits there are, free or not.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.permits.limit()
    }

    /// How many permits were free a moment ago. Reads every permit's word.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.permits.available()
    }

    /// Frees what `owner` held, if it is proven dead; returns how many permits that were. Who waits does so by itself; a
    /// parent that sees its child die calls this to be faster.
    pub fn recover(&self, owner: OwnerId) -> u32 {
        self.permits.recover(owner, &self.env)
    }

    #[inline]
    fn permit(&self, place: Result<Place, AcquireError>) -> Result<Permit<'_, 'm, E>, AcquireError> {
        place.map(|place| Permit { semaphore: self, place })
    }
}

/// A permit of a [`BoundedSemaphore`]. Dropping it gives it back.
///
/// It may go to another thread of this process. Forgotten, it is held until the process ends. In a raw `fork()` child an
/// inherited permit is the parent's, and dropping it does nothing.
#[must_use = "dropping the permit gives it back at once"]
#[derive(Debug)]
pub struct Permit<'a, 'm, E: Wait<Deadline = Deadline> + Liveness> {
    semaphore: &'a BoundedSemaphore<'m, E>,
    place: Place,
}

impl<E: Wait<Deadline = Deadline> + Liveness> Permit<'_, '_, E> {
    /// Leaves the permit to the process: [`BoundedSemaphore::release`] gives it back, from any thread.
    ///
    /// # Errors
    /// [`OverRelease`] if this process does not hold it: in a `fork()` child.
    pub fn detach(self) -> Result<(), OverRelease> {
        let permit = ManuallyDrop::new(self);
        permit.semaphore.permits.detach(permit.place, &permit.semaphore.env)
    }
}

impl<E: Wait<Deadline = Deadline> + Liveness> Drop for Permit<'_, '_, E> {
    #[inline]
    fn drop(&mut self) {
        // Not ours: inherited by a fork child, or a hostile peer has overwritten the word.
        let _ = self.semaphore.permits.release(self.place, &self.semaphore.env);
    }
}

/// A handle to a count that any process may raise and lower.
///
/// A permit that a killed process had acquired is lost, because nothing says that it had one. Where permits must come
/// back, use [`BoundedSemaphore`].
#[derive(Debug)]
pub struct Semaphore<E> {
    words: NonNull<SemaphoreWords>,
    env: E,
}

// SAFETY: the words are atomics that any thread may use; `env` goes along.
unsafe impl<E: Send> Send for Semaphore<E> {}
// SAFETY: as above.
unsafe impl<E: Sync> Sync for Semaphore<E> {}

impl<E: Wait<Deadline = Deadline>> Semaphore<E> {
    /// A handle to `words` in the surroundings `env`.
    ///
    /// # Safety
    /// `words` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves; whoever writes it
    /// does so by atomic accesses.
    pub const unsafe fn new(words: NonNull<SemaphoreWords>, env: E) -> Self {
        Self { words, env }
    }

    /// Takes a permit; blocks until there is one. Not fair. The caller, or anybody else, gives it back by
    /// [`release`](Self::release).
    ///
    /// # Errors
    /// None today: the signature is that of the other semaphore.
    ///
    /// # Crash
    /// A process killed with a permit has taken it along. One that was killed when it was just woken costs the other
    /// waiters at most 1 s.
    #[inline]
    pub fn acquire(&self) -> Result<(), AcquireError> {
        self.words().acquire(&self.env, Deadline::never())
    }

    /// As [`acquire`](Self::acquire), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), AcquireError> {
        self.words().acquire(&self.env, Deadline::after(timeout))
    }

    /// As [`acquire`](Self::acquire), without blocking.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`].
    #[inline]
    pub fn try_acquire(&self) -> Result<(), AcquireError> {
        self.words().try_acquire()
    }

    /// Adds `permits` and wakes as many waiters. Does not block.
    ///
    /// # Errors
    /// [`OverRelease`] if the count would exceed 2^31 - 1; nothing has happened then.
    #[inline]
    pub fn release(&self, permits: u32) -> Result<(), OverRelease> {
        self.words().release(permits, &self.env)
    }

    /// How many permits there were a moment ago.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.words().available()
    }

    #[inline]
    fn words(&self) -> &SemaphoreWords {
        // SAFETY: `new`'s contract: valid while `self.env` lives; atomics inside, so a shared reference stays right
        // whatever other processes write.
        unsafe { self.words.as_ref() }
    }
}

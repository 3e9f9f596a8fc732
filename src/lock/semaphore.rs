//! Semaphores.

use std::time::Duration;

use super::handle;
use crate::Trusted;
use crate::error::Result;
use crate::place::Placed;
use crate::shm::{self, Env, Slabs};
use crate::sync::{self, AcquireError, OverRelease};

handle! {
    /// A number of permits, each of which one holder has at a time; those of a killed process come back.
    ///
    /// [`acquire`](Self::acquire) gives a guard, so a permit is given back exactly once. For permits that one process takes
    /// and another gives back, use [`Semaphore`].
    ///
    /// # Examples
    /// ```
    /// let seats = crosslane::BoundedSemaphore::new(2)?;
    /// let taken = (seats.acquire()?, seats.acquire()?);
    /// assert!(seats.try_acquire().is_err());
    /// drop(taken);
    /// assert_eq!(seats.available(), 2);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    BoundedSemaphore is shm::BoundedSemaphore<Trusted>
}

/// A permit of a [`BoundedSemaphore`]: dropping it gives it back.
pub type Permit<'a> = sync::Permit<'a, 'static, Env>;

impl BoundedSemaphore {
    /// A semaphore with `permits` free permits, 1 to 65,536.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): another number, or no memory for it.
    pub fn new(permits: u32) -> Result<Self> {
        Ok(Self(Placed::new(shm::BoundedSemaphore::in_slab(Slabs::family(), permits)?)))
    }

    /// Takes a permit; blocks until one is free or a holder proven dead. Not fair.
    ///
    /// # Errors
    /// [`AcquireError::Forked`].
    ///
    /// # Crash
    /// The permits of a killed process come back within 10 ms for each 16 holders, once somebody waits.
    pub fn acquire(&self) -> Result<Permit<'_>, AcquireError> {
        self.0.acquire()
    }

    /// As [`acquire`](Self::acquire), without blocking.
    ///
    /// # Errors
    /// As `acquire`, and [`AcquireError::WouldBlock`].
    pub fn try_acquire(&self) -> Result<Permit<'_>, AcquireError> {
        self.0.try_acquire()
    }

    /// As [`acquire`](Self::acquire), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// As `acquire`, and [`AcquireError::TimedOut`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, AcquireError> {
        self.0.acquire_timeout(timeout)
    }

    /// Gives back a permit of this process that was [detached](sync::Permit::detach) from its guard.
    ///
    /// # Errors
    /// [`OverRelease`] if this process has none: unlike Python's, it never gives back what another process holds.
    pub fn release(&self) -> Result<(), OverRelease> {
        self.0.release()
    }

    /// How many permits there are, free or not.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.0.limit()
    }

    /// How many permits were free a moment ago.
    #[must_use]
    #[doc(alias = "get_value")]
    pub fn available(&self) -> u32 {
        self.0.available()
    }
}

handle! {
    /// A count that any process raises and lowers.
    ///
    /// Nobody owns a permit: what a killed process had acquired is lost. Where permits must come back, use
    /// [`BoundedSemaphore`].
    ///
    /// # Examples
    /// ```
    /// let items = crosslane::Semaphore::new(0)?;
    /// items.release(1)?; // as a rule in another process
    /// items.acquire()?;
    /// assert!(items.try_acquire().is_err());
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Semaphore is shm::Semaphore<Trusted>
}

impl Semaphore {
    /// A semaphore with `count` permits, 0 to 2^31 - 1.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): a larger count, or no memory for it.
    pub fn new(count: u32) -> Result<Self> {
        Ok(Self(Placed::new(shm::Semaphore::in_slab(Slabs::family(), count)?)))
    }

    /// Takes a permit; blocks until there is one. Not fair.
    ///
    /// # Errors
    /// None today: the signature is that of the other semaphore.
    ///
    /// # Crash
    /// A process killed with a permit has taken it along. One that was killed when it was just woken costs the other
    /// waiters at most 1 s.
    pub fn acquire(&self) -> Result<(), AcquireError> {
        self.0.acquire()
    }

    /// As [`acquire`](Self::acquire), without blocking.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`].
    pub fn try_acquire(&self) -> Result<(), AcquireError> {
        self.0.try_acquire()
    }

    /// As [`acquire`](Self::acquire), blocking for at most `timeout`; zero does not block, and `Duration::MAX` never ends.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), AcquireError> {
        self.0.acquire_timeout(timeout)
    }

    /// Adds `permits` and wakes as many waiters. Does not block.
    ///
    /// # Errors
    /// [`OverRelease`] if the count would exceed 2^31 - 1; nothing has happened then.
    pub fn release(&self, permits: u32) -> Result<(), OverRelease> {
        self.0.release(permits)
    }

    /// How many permits there were a moment ago.
    #[must_use]
    #[doc(alias = "get_value")]
    pub fn available(&self) -> u32 {
        self.0.available()
    }
}

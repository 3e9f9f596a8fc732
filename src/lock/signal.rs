//! What processes wait for: flags, meetings, work done once.

use std::time::Duration;

use super::handle;
use crate::Trusted;
use crate::error::Result;
use crate::place::Placed;
use crate::shm::{self, Slabs};
use crate::sync::{BarrierError, OnceError, OnceState, Passed};

handle! {
    /// A flag that processes set, clear and wait for.
    ///
    /// Nobody waits for a waiter: however many were killed while they waited, `set` goes on at once.
    ///
    /// # Examples
    /// ```
    /// let stop = crosslane::Event::new()?;
    /// let same = stop.clone(); // or sent to another process
    /// same.set();
    /// stop.wait();
    /// assert!(stop.is_set());
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Event is shm::Event<Trusted>
}

impl Event {
    /// A flag that is not set.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): there is no memory for it.
    pub fn new() -> Result<Self> {
        Ok(Self(Placed::new(shm::Event::in_slab(Slabs::family())?)))
    }

    /// Whether the flag is set: old by the time it is known.
    #[must_use]
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Sets the flag and wakes everybody who waits. Does not block, and may be called in a signal handler.
    ///
    /// # Crash
    /// A process killed inside has set the flag or has not; who sleeps sees it within 1 s.
    #[inline]
    pub fn set(&self) {
        self.0.set();
    }

    /// Clears the flag. Does not block.
    #[inline]
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Waits until the flag is set, or has been set since the call and cleared again.
    #[inline]
    pub fn wait(&self) {
        self.0.wait();
    }

    /// As [`wait`](Self::wait), at most for `timeout`: whether the flag was set. Zero does not block, and `Duration::MAX`
    /// never ends.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.0.wait_timeout(timeout)
    }
}

handle! {
    /// A meeting point of a fixed number of parties: each waits until all are there.
    ///
    /// A party is a thread of any process. A process is known from its first arrival on; if it dies after that, the barrier
    /// breaks for all, at once if somebody waits, instead of hanging. A process that drops its handle and its clones has left
    /// in order; so has one that got the barrier twice and drops one of the two, until it arrives again.
    ///
    /// # Examples
    /// ```
    /// let start = crosslane::Barrier::new(2)?;
    /// let same = start.clone(); // or sent to another process
    /// let other = std::thread::spawn(move || same.wait());
    /// let (mine, theirs) = (start.wait()?, other.join().unwrap()?);
    /// assert_ne!(mine.is_leader, theirs.is_leader);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Barrier is shm::Barrier<Trusted>
}

impl Barrier {
    /// A barrier for so many parties, 1 to 1,024.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): another number (also 0, which Python accepts), or no memory for it.
    pub fn new(parties: u32) -> Result<Self> {
        Ok(Self(Placed::new(shm::Barrier::in_slab(Slabs::family(), parties)?)))
    }

    /// Arrives, and blocks until all parties have. One of them is told that it is the leader.
    ///
    /// # Errors
    /// [`BarrierError::Broken`] if a party died, gave up, aborted or panicked, or the barrier was reset meanwhile;
    /// [`BarrierError::Forked`], [`BarrierError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside breaks the barrier for the others within 10 ms for each 16 parties, or has got through.
    pub fn wait(&self) -> Result<Passed, BarrierError> {
        self.0.wait()
    }

    /// As [`wait`](Self::wait), and one of the parties calls its `action` when all have arrived, before any goes on.
    ///
    /// # Errors
    /// As `wait`.
    ///
    /// # Panics
    /// If `action` does; the barrier is broken then.
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<Passed, BarrierError> {
        self.0.wait_with(action)
    }

    /// As [`wait`](Self::wait), at most for `timeout`, after which the barrier is broken for all.
    ///
    /// # Errors
    /// As `wait`, and [`BarrierError::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Passed, BarrierError> {
        self.0.wait_timeout(timeout)
    }

    /// Breaks the barrier: who waits, and who comes before a reset, gets `Broken`. Does not block.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Makes the barrier new: who waits gets `Broken`, the dead are forgotten. Does not block.
    pub fn reset(&self) {
        self.0.reset();
    }

    /// How many parties meet.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.0.parties()
    }

    /// How many parties waited a moment ago.
    #[must_use]
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> u32 {
        self.0.waiting()
    }

    /// Whether nobody gets through until a reset.
    #[must_use]
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

handle! {
    /// Lets one of many processes do something, once; if it dies at it, the next one does.
    ///
    /// # Examples
    /// ```
    /// let once = crosslane::Once::new()?;
    /// assert_eq!(once.call_once(|_| ()), Ok(true));
    /// assert_eq!(once.call_once(|_| unreachable!()), Ok(false));
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    Once is shm::Once<Trusted>
}

impl Once {
    /// Nobody has done it yet.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): there is no memory for it.
    pub fn new() -> Result<Self> {
        Ok(Self(Placed::new(shm::Once::in_slab(Slabs::family())?)))
    }

    /// Whether the work is done; what it did is visible then.
    #[must_use]
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.0.is_completed()
    }

    /// Does `work`, unless it is done; blocks while another thread or process is at it. Whether this call did it.
    ///
    /// `work` is told how it was left before. It must not call this again: it would wait for itself.
    ///
    /// # Errors
    /// [`OnceError::Forked`], [`OnceError::Corrupt`].
    ///
    /// # Panics
    /// If `work` does; the next one is told [`OnceState::Poisoned`].
    ///
    /// # Crash
    /// A process killed inside leaves the work to the next one, within 10 ms, which is told [`OnceState::OwnerDied`].
    pub fn call_once(&self, work: impl FnOnce(OnceState)) -> Result<bool, OnceError> {
        self.0.call_once(work)
    }

    /// As [`call_once`](Self::call_once), blocking for at most `timeout`; the work itself may take longer.
    ///
    /// # Errors
    /// As `call_once`, and [`OnceError::TimedOut`].
    pub fn call_once_timeout(&self, timeout: Duration, work: impl FnOnce(OnceState)) -> Result<bool, OnceError> {
        self.0.call_once_timeout(timeout, work)
    }
}

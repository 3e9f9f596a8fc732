//! A counting semaphore that nobody owns: any process may release it, whoever acquired.
//!
//! # What
//! A count of 0..=2^31 - 1 and an [`EventWord`]. A permit that a dead process had acquired does not come back, because
//! nothing says that it had one: for permits that do, see [`crate::lock::permits`].
//!
//! # Protocol
//! Acquire ([`SemaphoreWords::acquire`]):
//! 1. the count is above 0: CAS(count -> count - 1): done; lost: again;
//! 2. spin a while;
//! 3. announce at the event word, and 1 again; nothing: sleep, at most for a slice of 1 s; again from 1.
//!
//! Release ([`SemaphoreWords::release`]) of n:
//! 1. CAS(count -> count + n), unless that is too much;
//! 2. full fence; the event word's flag is set: wake n.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `semaphore.count` | CAS in `release` | CAS in `take` | what the releasing processes did before; a CAS of either kind continues the release | `semaphore` |
//!
//! The fence of release 2 is one half of `event.announce` ([`crate::event`]).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | acquire 1 and the release that was to follow | a permit less, for good: by definition |
//! | acquire 3, asleep | a stale flag |
//! | just woken, before its 1 | the count; the other waiters find it when their slices end, after at most 1 s |
//! | release 1 and 2 | the same |

use crate::event::{EventWord, Slept};
use crate::lock::permits::{AcquireError, OverRelease};
use crate::prim::{AtomicU32, Ordering, fence_after_rmw, pause};
use crate::wait::{Slice, Wait, WakeMode};

/// The largest count.
pub const MAX_COUNT: u32 = i32::MAX as u32;

/// The shared words. All zero is a valid start: no permits.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SemaphoreWords {
    count: AtomicU32,
    event: EventWord,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<SemaphoreWords>() == 8);

impl SemaphoreWords {
    /// A semaphore of `count` permits, at most [`MAX_COUNT`].
    ///
    /// # Errors
    /// [`OverRelease`] if that is too many.
    pub fn new(count: u32) -> Result<Self, OverRelease> {
        if count > MAX_COUNT {
            return Err(OverRelease);
        }
        Ok(Self { count: AtomicU32::new(count), event: EventWord::default() })
    }

    /// How many permits there were: old by the time it is known.
    #[must_use]
    pub fn available(&self) -> u32 {
        // ORDERING: Relaxed. A number that may be old.
        self.count.load(Ordering::Relaxed).min(MAX_COUNT)
    }

    /// Takes a permit if there is one. Does not block.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`].
    ///
    /// # Crash
    /// A process killed after this has taken the permit along.
    #[inline]
    pub fn try_acquire(&self) -> Result<(), AcquireError> {
        if self.take() { Ok(()) } else { Err(AcquireError::WouldBlock) }
    }

    /// Takes a permit; waits until there is one, or until the deadline. Not fair.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`].
    ///
    /// # Crash
    /// As [`try_acquire`](Self::try_acquire); one that was just woken costs the other waiters at most 1 s.
    #[inline]
    pub fn acquire<W: Wait>(&self, wait: &W, deadline: W::Deadline) -> Result<(), AcquireError> {
        if self.take() {
            return Ok(());
        }
        self.acquire_slow(wait, deadline)
    }

    /// Adds `permits` and wakes as many waiters, if any may sleep. Does not block.
    ///
    /// # Errors
    /// [`OverRelease`] if the count would exceed [`MAX_COUNT`]; nothing has happened then.
    #[inline]
    pub fn release<W: Wait>(&self, permits: u32, wait: &W) -> Result<(), OverRelease> {
        // ORDERING: Relaxed. The CAS takes exactly this value.
        let mut count = self.count.load(Ordering::Relaxed);
        loop {
            let more = count.checked_add(permits).filter(|more| *more <= MAX_COUNT).ok_or(OverRelease)?;
            // ORDERING semaphore.count: Release. Pairs with the Acquire in `take`.
            // Publishes what this process did before. Failure: Relaxed, the loop tries again.
            match self.count.compare_exchange_weak(count, more, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => count = now,
            }
        }
        // ORDERING event.announce: SeqCst fence. Pairs with the fence in `heavy`: either this process sees the flag, or
        // the waiter sees the count.
        fence_after_rmw(Ordering::SeqCst);
        self.event.wake_fenced(permits, wait);
        Ok(())
    }

    /// Wakes everybody to look again: what is left to do for a process that died here.
    pub fn recover<W: Wait>(&self, wait: &W) {
        self.event.wake_all(wait);
    }

    #[cold]
    fn acquire_slow<W: Wait>(&self, wait: &W, deadline: W::Deadline) -> Result<(), AcquireError> {
        for _ in 0..wait.spins() {
            if self.take() {
                return Ok(());
            }
            pause();
        }
        loop {
            let mut taken = false;
            let slept = self.event.sleep_unless(WakeMode::Fenced, Slice::Unowned, deadline, wait, || {
                taken = self.take();
                taken
            });
            if taken || self.take() {
                return Ok(());
            }
            if slept == Slept::Expired {
                return Err(AcquireError::TimedOut);
            }
        }
    }

    /// Takes a permit, if there is one.
    #[inline]
    fn take(&self) -> bool {
        // ORDERING: Relaxed. The CAS takes exactly this value.
        let mut count = self.count.load(Ordering::Relaxed);
        // A count that no release makes is a hostile peer's, and no permit.
        while (1..=MAX_COUNT).contains(&count) {
            // ORDERING semaphore.count: Acquire. Pairs with the Release in `release`: what the releasing processes did is
            // visible. Failure: Relaxed, the loop tries again.
            match self.count.compare_exchange_weak(count, count - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }
}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use super::*;
    use crate::owner::OwnerId;
    use crate::wait::Spin;

    #[test]
    fn a_count_neither_overflows_nor_underflows() {
        let wait = Spin::new(OwnerId::new(0, 1).unwrap());
        assert!(SemaphoreWords::new(MAX_COUNT + 1).is_err());
        let semaphore = SemaphoreWords::new(MAX_COUNT).unwrap();
        assert_eq!(semaphore.release(1, &wait), Err(OverRelease));
        assert_eq!(semaphore.try_acquire(), Ok(()));
        assert_eq!(semaphore.release(2, &wait), Err(OverRelease));
        assert_eq!(semaphore.release(1, &wait), Ok(()));
        let semaphore = SemaphoreWords::default();
        assert_eq!(semaphore.try_acquire(), Err(AcquireError::WouldBlock));
        assert_eq!(semaphore.acquire(&wait, wait.after(core::time::Duration::ZERO)), Err(AcquireError::TimedOut));
        assert_eq!(semaphore.release(u32::MAX, &wait), Err(OverRelease));
        assert_eq!(semaphore.available(), 0);
    }

    #[test]
    fn a_hostile_count_gives_no_permits() {
        let semaphore = SemaphoreWords::default();
        semaphore.count.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(semaphore.try_acquire(), Err(AcquireError::WouldBlock));
    }
}

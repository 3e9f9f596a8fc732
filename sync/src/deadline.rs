//! When to stop waiting: a point on the monotonic clock, or never.
#![allow(unsafe_code)]

use core::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A point in time after which a wait gives up, or never.
///
/// On the kernel's monotonic clock (`CLOCK_MONOTONIC`): it does not move when somebody sets the date, and stands still
/// while the machine is suspended. Arithmetic saturates: a deadline more than 584 years after the boot is never.
///
/// # Examples
/// ```
/// use crosslane_sync::Deadline;
/// use std::time::Duration;
///
/// assert!(Deadline::after(Duration::ZERO).has_passed());
/// assert!(!Deadline::after(Duration::from_secs(60)).has_passed());
/// assert_eq!(Deadline::after(Duration::MAX), Deadline::never());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline {
    // Nanoseconds since the clock's start; `u64::MAX` is never.
    nanos: u64,
}

impl Deadline {
    /// The deadline that never passes.
    #[must_use]
    pub const fn never() -> Self {
        Self { nanos: u64::MAX }
    }

    /// The present moment: already passed. Costs 30 ns.
    #[must_use]
    pub fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec of ours to write to. The clock exists on every Linux, so the call cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self { nanos: seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos) }
    }

    /// The deadline `timeout` from now; never, if that is too far away to count.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self::now().plus(timeout)
    }

    /// The deadline `more` after this one. Saturates to never.
    #[must_use]
    pub fn plus(self, more: Duration) -> Self {
        let more = u64::try_from(more.as_nanos()).unwrap_or(u64::MAX);
        Self { nanos: self.nanos.saturating_add(more) }
    }

    /// Whether this is the deadline that never passes.
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.nanos == u64::MAX
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        !self.is_never() && self <= Self::now()
    }

    /// The time left: zero once it has passed, `None` if it never does.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        (!self.is_never()).then(|| Duration::from_nanos(self.nanos.saturating_sub(Self::now().nanos)))
    }

    /// Nanoseconds since this moment; 0 if it is yet to come.
    pub(crate) fn passed_nanos(self) -> u64 {
        Self::now().nanos.saturating_sub(self.nanos)
    }

    /// Whole seconds and the nanoseconds beyond them, for the kernel; `None` for never.
    pub(crate) fn parts(self) -> Option<(u64, i32)> {
        // A remainder of a division by 10^9 fits 31 bits.
        (!self.is_never()).then_some((self.nanos / NANOS_PER_SECOND, (self.nanos % NANOS_PER_SECOND) as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_after_everything_and_arithmetic_saturates() {
        let soon = Deadline::after(Duration::from_secs(1));
        assert!(soon < Deadline::never() && Deadline::now() < soon);
        assert_eq!(soon.plus(Duration::MAX), Deadline::never());
        assert_eq!(Deadline::never().plus(Duration::from_secs(1)), Deadline::never());
        assert_eq!(Deadline::never().remaining(), None);
        assert!(!Deadline::never().has_passed());
    }

    #[test]
    fn parts_carry_nanoseconds_into_seconds() {
        let deadline = Deadline { nanos: 1_730_000_000 }.plus(Duration::from_millis(730));
        assert_eq!(deadline.parts(), Some((2, 460_000_000)));
        assert_eq!(Deadline::never().parts(), None);
    }

    #[test]
    fn a_passed_deadline_has_no_time_left() {
        let now = Deadline::now();
        assert!(now.has_passed());
        assert_eq!(now.remaining(), Some(Duration::ZERO));
    }
}

//! Surroundings that see lost wake-ups.
//!
//! A sleep that ended because its slice was over, and not by a wake, although the peer had *finished* the very operation
//! that this side slept for a while before: that peer found nobody to wake. Sleepers are few and wakes are system calls,
//! so the kernel's own answer to the sleeper is exact, however busy the machine.

use core::cell::Cell;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_shm::Env;
use crosslane_sync::futex::{self, Woken};
use crosslane_sync::{Deadline, membarrier, waiter};

use crate::page::Page;

/// Items between an operation and the next that uses its stamp: the ring's capacity.
pub(crate) const STAMPS: u64 = 64;
/// How much earlier than the slice's end the peer must have finished. More than the clock differs between CPUs.
const MARGIN: Duration = Duration::from_millis(1);

/// When each of the last operations of one side was finished.
#[derive(Clone, Copy)]
pub(crate) struct Stamps<'a> {
    page: &'a Page,
    first: usize,
}

impl<'a> Stamps<'a> {
    pub(crate) fn new(page: &'a Page, first: usize) -> Self {
        Self { page, first }
    }

    fn place(&self, number: u64) -> usize {
        self.first + 2 * usize::try_from(number % STAMPS).unwrap_or(0)
    }

    /// Operation `number` has been finished: its wake, if it had one, too.
    pub(crate) fn stamp(&self, number: u64) {
        let place = self.place(number);
        self.page.set(place + 1, now_ns());
        self.page.set(place, number + 1);
    }

    /// Whether operation `number` was finished before `time`.
    fn was_finished(&self, number: u64, time: u64) -> bool {
        let place = self.place(number);
        self.page.get(place) == number + 1 && self.page.get(place + 1) < time
    }
}

/// What the surroundings provide; all but the first are controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fences {
    /// Those that the wake mode asks for.
    Real,
    /// None in asymmetric mode, on either side.
    None,
    /// The fences are there, and the wakes are not.
    NoWakes,
}

/// The segment's surroundings, watched.
pub(crate) struct Watched<'a> {
    pub(crate) env: Env,
    pub(crate) peer: Stamps<'a>,
    /// The peer's operation that this side needs next.
    pub(crate) needs: &'a Cell<u64>,
    pub(crate) fences: Fences,
    pub(crate) slept: &'a Cell<u64>,
    pub(crate) lost: &'a Cell<u64>,
}

impl Wait for Watched<'_> {
    type Deadline = Deadline;

    fn never(&self) -> Deadline {
        Deadline::never()
    }

    fn after(&self, timeout: Duration) -> Deadline {
        Deadline::after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        let (length, start) = (waiter::length(slice), now_ns());
        let woken = futex::wait(word, expected, Deadline::after(length).min(deadline));
        self.slept.set(self.slept.get() + 1);
        let end = start + nanos(length) - nanos(MARGIN);
        // Short slices are those of a mode without wakes.
        if woken == Woken::TimedOut && slice != Slice::Short && self.peer.was_finished(self.needs.get(), end) {
            self.lost.set(self.lost.get() + 1);
        }
        if deadline.has_passed() { Parked::Expired } else { Parked::Again }
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        if self.fences == Fences::NoWakes { count } else { futex::wake(word, count) }
    }

    /// Hardly any, so that there are many sleeps.
    fn spins(&self) -> u32 {
        2
    }

    fn in_heavy_barriers(&self) -> bool {
        self.fences == Fences::None || membarrier::is_registered()
    }

    fn heavy_barrier(&self) -> bool {
        self.fences == Fences::None || membarrier::heavy()
    }
}

impl Liveness for Watched<'_> {
    fn me(&self) -> Option<OwnerId> {
        self.env.me()
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        self.env.is_dead(owner)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

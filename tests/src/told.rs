//! Surroundings without leases: whoever is reported dead is dead.
//!
//! For sweeps of `crosslane-core` alone. The driver reports a victim after it has reaped it, which is proof enough.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};

use crate::mapping::Mapping;

/// The dead of one domain, in shared memory. All zero: everybody lives.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Graveyard([AtomicU64; 16]);

impl Graveyard {
    /// The graveyard at byte `offset` of `mapping`, which nothing else uses.
    #[must_use]
    pub fn of(mapping: &Mapping, offset: usize) -> &Self {
        // SAFETY: only atomic integers: every bit pattern is one.
        unsafe { mapping.at(offset) }
    }

    /// `owner` is dead from here on. The caller has reaped the process, or plays it.
    pub fn bury(&self, owner: OwnerId) {
        let bit = 1 << (owner.index() % 64);
        self.0[owner.index() as usize / 64].fetch_or(bit, SeqCst);
    }

    /// Everybody lives.
    pub fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, SeqCst));
    }

    fn holds(&self, owner: OwnerId) -> bool {
        self.0[owner.index() as usize / 64].load(SeqCst) >> (owner.index() % 64) & 1 == 1
    }
}

/// `crosslane-core`'s surroundings for participant `me`: futexes, and the dead of a [`Graveyard`].
///
/// Its slices are shorter than the longest that [`Slice`] allows, so that a sweep of many sleepers takes seconds.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    me: OwnerId,
    dead: &'a Graveyard,
    sleeps: bool,
}

impl<'a> Told<'a> {
    /// Surroundings for participant number `index`, generation 1.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn new(index: u32, dead: &'a Graveyard) -> Self {
        Self { me: owner(index), dead, sleeps: true }
    }

    /// The same for [`pairs`](crate::pairs), where nobody else runs: who would sleep finds its deadline passed.
    #[must_use]
    pub fn sleepless(index: u32, dead: &'a Graveyard) -> Self {
        Self { sleeps: false, ..Self::new(index, dead) }
    }
}

/// Participant number `index`, generation 1.
///
/// # Panics
/// If `index` is out of range.
#[must_use]
pub fn owner(index: u32) -> OwnerId {
    OwnerId::new(index, 1).expect("an index below 1024")
}

impl Wait for Told<'_> {
    /// Nanoseconds of CLOCK_MONOTONIC.
    type Deadline = Option<u64>;

    fn never(&self) -> Self::Deadline {
        None
    }

    fn after(&self, timeout: Duration) -> Self::Deadline {
        Some(now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked {
        if !self.sleeps {
            return Parked::Expired;
        }
        let slice = match slice {
            Slice::Short => Duration::from_micros(500),
            Slice::Owner => Duration::from_micros(500),
            Slice::Long | Slice::Unowned => Duration::from_millis(20),
        };
        let left = deadline.map_or(slice, |at| Duration::from_nanos(at.saturating_sub(now_ns())));
        if left.is_zero() {
            return Parked::Expired;
        }
        crate::futex::futex_wait(word, expected, slice.min(left));
        Parked::Again
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        if self.sleeps { crate::futex::futex_wake(word, count) } else { 0 }
    }

    fn spins(&self) -> u32 {
        0
    }

    fn in_heavy_barriers(&self) -> bool {
        false
    }

    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for Told<'_> {
    fn me(&self) -> Option<OwnerId> {
        Some(self.me)
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        self.dead.holds(owner)
    }
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

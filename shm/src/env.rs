//! What a ring or lock in a segment runs in: it keeps the memory mapped, sleeps on futexes, and proves deaths by leases.

use std::sync::Arc;
use std::time::Duration;

use crosslane_core::prim::{AtomicU32, Ordering};
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_sync::{Deadline, Deaths, futex, membarrier, spin, waiter};

use crate::domain::{Domain, Probe};
use crate::mapping::Mapping;
use crate::reaper;

/// The surroundings of an object in a segment, for `crosslane-core`'s and `crosslane-sync`'s handles.
///
/// Each clone keeps the segment mapped and this process in its lease domain.
#[derive(Debug)]
pub struct Env {
    /// In front: what the fast paths read.
    me: &'static AtomicU32,
    spins: u32,
    /// The value of the `deaths` word before whoever uses this last looked who is dead.
    seen: AtomicU32,
    domain: Domain,
    map: Arc<Mapping>,
}

impl Env {
    pub(crate) fn new(domain: Domain, map: Arc<Mapping>) -> Self {
        // ORDERING: Relaxed, here and in `park`. Decides only when to look; the proof of death orders.
        let seen = AtomicU32::new(domain.deaths().load(Ordering::Relaxed));
        Self { me: domain.me_word(), spins: spin::budget(), seen, domain, map }
    }

    /// The lease domain.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl Clone for Env {
    fn clone(&self) -> Self {
        Self::new(self.domain.clone(), Arc::clone(&self.map))
    }
}

impl Wait for Env {
    type Deadline = Deadline;

    fn never(&self) -> Deadline {
        Deadline::never()
    }

    fn after(&self, timeout: Duration) -> Deadline {
        Deadline::after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        let deaths = self.domain.deaths();
        let seen = self.seen.load(Ordering::Relaxed);
        let parked = waiter::park(word, expected, slice, deadline, Some(Deaths { word: deaths, seen }));
        // The caller looks after this, so a bump that comes from here on ends the next sleep.
        let bumped = deaths.load(Ordering::Relaxed);
        if bumped != seen {
            self.seen.store(bumped, Ordering::Relaxed);
            reaper::keep_up(&self.domain);
        }
        parked
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        futex::wake(word, count)
    }

    fn spins(&self) -> u32 {
        self.spins
    }

    #[inline]
    fn in_heavy_barriers(&self) -> bool {
        membarrier::is_registered()
    }

    fn heavy_barrier(&self) -> bool {
        membarrier::heavy()
    }
}

impl Liveness for Env {
    #[inline]
    fn me(&self) -> Option<OwnerId> {
        // ORDERING: Relaxed. Set before this value existed; a fork child reads 0.
        OwnerId::from_private_word(self.me.load(Ordering::Relaxed))
    }

    #[inline]
    fn is_still(&self, owner: OwnerId) -> bool {
        // ORDERING: Relaxed, as in `me`.
        self.me.load(Ordering::Relaxed) == owner.to_word()
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        matches!(self.domain.probe(owner), Ok(Probe::Dead))
    }
}

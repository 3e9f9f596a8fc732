//! Surroundings without an operating system, in which every wait is bounded and everybody may be called dead.

use core::cell::Cell;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};

/// Calls that one operation may make of its surroundings. Rings of at most 64 slots and waits of at most 255 parks need
/// far fewer; more is an endless loop.
const MOST_CALLS: u32 = 20_000;

/// What all ends of one run share: time, which passes with each park, and the dead.
#[derive(Debug, Default)]
pub struct World {
    parks: Cell<u64>,
    calls: Cell<u32>,
    dead: Cell<u128>,
}

impl World {
    /// Starts the count of calls anew: called before each operation.
    pub fn next_operation(&self) {
        self.calls.set(0);
    }

    /// `index`, in 0..128, is dead from here on.
    pub fn bury(&self, index: u32) {
        self.dead.set(self.dead.get() | 1 << (index % 128));
    }

    /// Whether participant `index` is dead. Everybody above 127 is.
    #[must_use]
    pub fn is_buried(&self, index: u32) -> bool {
        index >= 128 || self.dead.get() >> index & 1 == 1
    }

    fn count(&self) {
        self.calls.set(self.calls.get() + 1);
        assert!(self.calls.get() < MOST_CALLS, "an endless loop");
    }
}

/// One participant's view of a [`World`]: generation 1. A deadline counts parks: 1 ns of timeout is one park.
#[derive(Debug, Clone, Copy)]
pub struct Env<'w> {
    world: &'w World,
    index: u32,
}

impl<'w> Env<'w> {
    /// The surroundings of participant `index`.
    #[must_use]
    pub fn new(world: &'w World, index: u32) -> Self {
        Self { world, index }
    }

    /// The participant's id.
    ///
    /// # Panics
    /// If the index is out of range.
    #[must_use]
    pub fn id(&self) -> OwnerId {
        OwnerId::new(self.index, 1).expect("in range")
    }
}

impl Wait for Env<'_> {
    type Deadline = u64;
    fn never(&self) -> u64 {
        u64::MAX
    }
    fn after(&self, timeout: Duration) -> u64 {
        self.world.parks.get().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
    }
    fn park(&self, _: &AtomicU32, _: u32, _: Slice, deadline: u64) -> Parked {
        self.world.count();
        self.world.parks.set(self.world.parks.get() + 1);
        if self.world.parks.get() >= deadline { Parked::Expired } else { Parked::Again }
    }
    fn wake(&self, _: &AtomicU32, _: u32) -> u32 {
        self.world.count();
        0
    }
    fn spins(&self) -> u32 {
        2
    }
    fn in_heavy_barriers(&self) -> bool {
        true
    }
    fn heavy_barrier(&self) -> bool {
        self.world.count();
        true
    }
}

impl Liveness for Env<'_> {
    fn me(&self) -> Option<OwnerId> {
        Some(self.id())
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.world.count();
        owner.generation() != 1 || self.world.is_buried(owner.index())
    }
}

//! Surroundings of those who have a segment open for reading only.

use std::time::Duration;

use crosslane_core::prim::AtomicU32;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_sync::Deadline;
use crosslane_sync::FutexWait;

use crate::segment::Segment;

/// The surroundings of a reader that takes no part in the lease domain: it sleeps, but nobody can name it, it cannot tell
/// who is dead, and nobody wakes it. Keeps the segment mapped and its name from being swept.
#[derive(Debug)]
pub struct Spectator {
    wait: FutexWait<'static>,
    segment: Segment,
}

impl Spectator {
    pub(crate) fn new(segment: Segment) -> Self {
        Self { wait: FutexWait::new(), segment }
    }
}

impl Clone for Spectator {
    fn clone(&self) -> Self {
        Self::new(self.segment.clone())
    }
}

impl Wait for Spectator {
    type Deadline = Deadline;

    fn never(&self) -> Deadline {
        self.wait.never()
    }

    fn after(&self, timeout: Duration) -> Deadline {
        self.wait.after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        self.wait.park(word, expected, slice, deadline)
    }

    fn wake(&self, _: &AtomicU32, _: u32) -> u32 {
        0
    }

    fn spins(&self) -> u32 {
        self.wait.spins()
    }

    fn in_heavy_barriers(&self) -> bool {
        false
    }

    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for Spectator {
    fn me(&self) -> Option<OwnerId> {
        None
    }

    fn is_dead(&self, _: OwnerId) -> bool {
        false
    }
}

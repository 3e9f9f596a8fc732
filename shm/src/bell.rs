//! Surroundings that ring a sleeper which waits for more than one thing.
//!
//! Protocol, orderings and crash table: [`crosslane_core::bell`].

use std::fmt;
use std::time::Duration;

use crosslane_core::bell::BellWord;
use crosslane_core::prim::AtomicU32;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_sync::Deadline;

use crate::env::Env;

/// What a waker rings for a sleeper that sleeps elsewhere than on a futex.
pub trait Bell: Send + Sync + 'static {
    /// Makes the sleeper look again, now or when it falls asleep. Does not block.
    fn ring(&self);
}

/// The surroundings of an end whose wakes ring a bell, if one hangs.
pub struct Belled<B> {
    env: Env,
    /// In the memory that `env` keeps mapped.
    bell: &'static BellWord,
    ringer: B,
}

impl<B> Belled<B> {
    pub(crate) fn new(env: Env, bell: &'static BellWord, ringer: B) -> Self {
        Self { env, bell, ringer }
    }
}

impl<B: Bell> Wait for Belled<B> {
    type Deadline = Deadline;

    fn never(&self) -> Deadline {
        self.env.never()
    }

    fn after(&self, timeout: Duration) -> Deadline {
        self.env.after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        self.env.park(word, expected, slice, deadline)
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        let woken = self.env.wake(word, count);
        if !self.bell.ring() {
            return woken;
        }
        self.ringer.ring();
        woken.saturating_add(1)
    }

    fn spins(&self) -> u32 {
        self.env.spins()
    }

    #[inline]
    fn in_heavy_barriers(&self) -> bool {
        self.env.in_heavy_barriers()
    }

    fn heavy_barrier(&self) -> bool {
        self.env.heavy_barrier()
    }
}

impl<B> Liveness for Belled<B> {
    #[inline]
    fn me(&self) -> Option<OwnerId> {
        self.env.me()
    }

    #[inline]
    fn is_still(&self, owner: OwnerId) -> bool {
        self.env.is_still(owner)
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        self.env.is_dead(owner)
    }
}

impl<B> fmt::Debug for Belled<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Belled").field("env", &self.env).finish_non_exhaustive()
    }
}

//! A meeting point of a fixed number of threads, in any processes.
//!
//! Protocol and crash table: [`crosslane_core::lock::barrier`].

use core::time::Duration;

use crosslane_core::lock::barrier::{self, BarrierError, Passed};
use crosslane_core::{Liveness, OwnerId, Wait};

use crate::deadline::Deadline;

/// A handle to a barrier in shared memory.
///
/// A party is known from its first arrival on; if it dies after that, the barrier breaks for all, at once if somebody
/// waits, instead of hanging. One that dies after it has arrived in a round has done its part in that one: if nobody waits who
/// would find it dead, the others' arrival ends the round, and the next one breaks. There may be more threads than parties: as
/// many as there are parties go through at a time. Dropping the handle withdraws this process as a party, so that its end breaks nothing.
/// Threads share a handle, processes have one each. `E` waits, knows who is dead, and keeps the memory mapped.
#[derive(Debug)]
pub struct Barrier<'m, E: Wait<Deadline = Deadline> + Liveness> {
    barrier: barrier::Barrier<'m>,
    env: E,
}

impl<'m, E: Wait<Deadline = Deadline> + Liveness> Barrier<'m, E> {
    /// A handle to `barrier` in the surroundings `env`.
    #[must_use]
    pub const fn new(barrier: barrier::Barrier<'m>, env: E) -> Self {
        Self { barrier, env }
    }

    /// Arrives, and blocks until all parties have.
    ///
    /// # Errors
    /// [`BarrierError::Broken`] if a party died, gave up, aborted or panicked, or the barrier was reset meanwhile;
    /// [`BarrierError::Forked`], [`BarrierError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside breaks the barrier for the others within 10 ms for each 16 parties, or has got through.
    pub fn wait(&self) -> Result<Passed, BarrierError> {
        self.barrier.wait(&self.env, Deadline::never(), || ())
    }

    /// As [`wait`](Self::wait), and one of the parties calls its `action` when all have arrived, before any goes on.
    ///
    /// # Errors
    /// As `wait`.
    ///
    /// # Panics
    /// If `action` does; the barrier is broken then.
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<Passed, BarrierError> {
        self.barrier.wait(&self.env, Deadline::never(), action)
    }

    /// As [`wait`](Self::wait), at most for `timeout`, after which the barrier is broken for all.
    ///
    /// # Errors
    /// As `wait`, and [`BarrierError::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Passed, BarrierError> {
        self.barrier.wait(&self.env, Deadline::after(timeout), || ())
    }

    /// Breaks the barrier: who waits, and who comes before a reset, gets `Broken`. Does not block.
    pub fn abort(&self) {
        self.barrier.abort(&self.env);
    }

    /// Makes the barrier new: who waits gets `Broken`, the dead are forgotten. Does not block.
    pub fn reset(&self) {
        self.barrier.reset(&self.env);
    }

    /// How many parties meet.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.barrier.parties()
    }

    /// How many parties waited a moment ago.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.barrier.waiting()
    }

    /// Whether nobody gets through until a reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.barrier.is_broken()
    }

    /// Breaks the barrier if `owner` is a party and proven dead. Who waits does so by itself; a parent that sees its child
    /// die calls this to be faster.
    pub fn recover(&self, owner: OwnerId) {
        self.barrier.recover(owner, &self.env);
    }
}

impl<E: Wait<Deadline = Deadline> + Liveness> Drop for Barrier<'_, E> {
    fn drop(&mut self) {
        self.barrier.withdraw(&self.env);
    }
}

//! Work that one process does, once, and that the next one takes up if it dies.
//!
//! # What
//! A word that says whether the work is done, and a [`LockWord`] for who does it.
//!
//! | done | lock | state |
//! |---|---|---|
//! | 0 | free | not begun, or given up before it began |
//! | 0 | held | its owner is at it, or died |
//! | 0 | `POISON` | begun, and left by a panic |
//! | 1 | any | done |
//! | else | any | corrupt: counts as not done |
//!
//! # Protocol
//! Begin ([`OnceWords::begin`]): 1. done: nothing to do. 2. Take the lock. 3. Done by now: unlock. Otherwise the work is the
//! caller's, told how the last one left it.
//!
//! Finish ([`OnceWords::finish`]): 1. done = 1, if it is. 2. Unlock; poisoned if it is not.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `once.done` | store in `finish` | load in `is_done` | everything that the work did | `once` |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | begin 2 and finish 1 | a lock with a dead owner: one of those who wait begins anew, told `OwnerDied` |
//! | finish 1 and 2 | done |

use crate::mutex::{Acquired, LockError, LockWord};
use crate::prim::{AtomicU32, Ordering};
use crate::wait::{Liveness, Wait};

const DONE: u32 = 1;

/// The shared words. All zero is a valid start: not begun.
#[derive(Debug, Default)]
#[repr(C)]
pub struct OnceWords {
    done: AtomicU32,
    lock: LockWord,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<OnceWords>() == 8);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Begun {
    /// Nothing: it is done.
    Done,
    /// The work is the caller's, who calls [`OnceWords::finish`] after it. `Clean`: nobody has begun before.
    /// `OwnerDied`, `Poisoned`: somebody has, and died or panicked.
    Mine(Acquired),
}

impl OnceWords {
    /// Whether the work is done; what it did is visible then.
    #[must_use]
    #[inline]
    pub fn is_done(&self) -> bool {
        // ORDERING once.done: Acquire. Pairs with the Release in `finish`.
        self.done.load(Ordering::Acquire) == DONE
    }

    /// Asks for the work; waits for who is at it, or the proof of its death, until the deadline.
    ///
    /// A thread that is at it already waits for itself.
    ///
    /// # Errors
    /// As [`LockWord::lock`].
    ///
    /// # Crash
    /// A process killed inside or at the work leaves it to the next one.
    #[inline]
    pub fn begin<E: Wait + Liveness>(&self, env: &E, deadline: E::Deadline) -> Result<Begun, LockError> {
        if self.is_done() { Ok(Begun::Done) } else { self.begin_slow(env, deadline) }
    }

    #[cold]
    fn begin_slow<E: Wait + Liveness>(&self, env: &E, deadline: E::Deadline) -> Result<Begun, LockError> {
        let acquired = self.lock.lock(env, deadline)?;
        // The last owner may have died after its last step but one.
        if self.is_done() {
            self.lock.unlock(env, false);
            return Ok(Begun::Done);
        }
        Ok(Begun::Mine(acquired))
    }

    /// Wakes one who waits, to look whether the one who is at it died.
    pub fn wake_one<W: Wait>(&self, wait: &W) {
        self.lock.wake_one(wait);
    }

    /// Ends what `begin` gave: `done`, or left for somebody else, who is told.
    ///
    /// Nothing happens in a `fork()` child that inherited the work.
    pub fn finish<E: Wait + Liveness>(&self, done: bool, env: &E) {
        if !env.me().is_some_and(|me| self.lock.is_held_by(me)) {
            return;
        }
        if done {
            // ORDERING once.done: Release. Pairs with the Acquire in `is_done`. Publishes everything that the work did.
            self.done.store(DONE, Ordering::Release);
        }
        self.lock.unlock(env, !done);
    }
}

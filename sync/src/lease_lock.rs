//! The lock word of `crosslane-core`, with its surroundings: our [`RawLock`].
#![allow(unsafe_code)]

use core::ptr::NonNull;

use crosslane_core::mutex::{Acquired, LockError, LockWord, TryLockError};
use crosslane_core::{Liveness, Wait};

use crate::deadline::Deadline;
use crate::raw_lock::{NotAcquired, RawLock};

/// A [`LockWord`] in shared memory and the surroundings `E` that wait and know who is dead.
///
/// `E` keeps the memory mapped: dropping it may unmap the word.
#[derive(Debug)]
pub struct LeaseLock<E> {
    word: NonNull<LockWord>,
    env: E,
}

// SAFETY: the word is an atomic that any thread may use; `env` goes along.
unsafe impl<E: Send> Send for LeaseLock<E> {}
// SAFETY: the word is an atomic that any thread may use; `env` is only shared.
unsafe impl<E: Sync> Sync for LeaseLock<E> {}

impl<E> LeaseLock<E> {
    /// The lock at `word`.
    ///
    /// # Safety
    /// - `word` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves;
    /// - every process that uses the word does so through a [`LockWord`], or the one that does not is not trusted;
    /// - the [`Liveness`] of `env` keeps its contract: a participant that it calls dead never runs again.
    pub const unsafe fn new(word: NonNull<LockWord>, env: E) -> Self {
        Self { word, env }
    }

    /// The surroundings.
    #[must_use]
    pub const fn env(&self) -> &E {
        &self.env
    }

    #[inline]
    fn word(&self) -> &LockWord {
        // SAFETY: `new`'s contract: valid while `self.env` lives; an atomic inside, so a shared reference stays right
        // whatever other processes write.
        unsafe { self.word.as_ref() }
    }
}

// SAFETY:
// - exclusion, order and death: the protocol of `crosslane_core::mutex`, with the liveness that `new` asks for;
// - a fork child is not the participant that the word names, so its `unlock` changes nothing;
// - the lock word never panics.
unsafe impl<E: Wait<Deadline = Deadline> + Liveness> RawLock for LeaseLock<E> {
    #[inline]
    fn lock(&self, deadline: Deadline) -> Result<Acquired, NotAcquired> {
        self.word().lock(&self.env, deadline).map_err(|error| match error {
            LockError::TimedOut(owner) => NotAcquired::Held(owner),
            LockError::Forked => NotAcquired::Forked,
            _ => NotAcquired::Corrupt,
        })
    }

    #[inline]
    fn try_lock(&self) -> Result<Acquired, NotAcquired> {
        self.word().try_lock(&self.env).map_err(|error| match error {
            TryLockError::Held(owner) => NotAcquired::Held(Some(owner)),
            TryLockError::Forked => NotAcquired::Forked,
            _ => NotAcquired::Corrupt,
        })
    }

    #[inline]
    unsafe fn unlock(&self, poison: bool) {
        self.word().unlock(&self.env, poison);
    }
}

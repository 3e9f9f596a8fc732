//! A flag that processes wait for.
//!
//! Protocol and crash table: [`crosslane_core::lock::flag`].
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::time::Duration;

use crosslane_core::Wait;
use crosslane_core::lock::flag::FlagWord;

use crate::deadline::Deadline;

/// A handle to a flag in shared memory that processes set, clear and wait for.
///
/// Nobody waits for a waiter: killed ones cost the next `set` a system call at most. `E` waits, and keeps the memory
/// mapped.
#[derive(Debug)]
pub struct Event<E> {
    word: NonNull<FlagWord>,
    env: E,
}

// SAFETY: the word is an atomic that any thread may use; `env` goes along.
unsafe impl<E: Send> Send for Event<E> {}
// SAFETY: as above.
unsafe impl<E: Sync> Sync for Event<E> {}

impl<E: Wait<Deadline = Deadline>> Event<E> {
    /// A handle to `word` in the surroundings `env`.
    ///
    /// # Safety
    /// `word` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves; whoever writes it
    /// does so by atomic accesses.
    pub const unsafe fn new(word: NonNull<FlagWord>, env: E) -> Self {
        Self { word, env }
    }

    /// Whether the flag is set: old by the time it is known.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.word().is_set()
    }

    /// Sets the flag and wakes everybody who waits. Does not block, takes no lock, and may be called in a signal handler.
    ///
    /// # Crash
    /// A process killed inside has set the flag or has not; who sleeps sees it within 1 s.
    #[inline]
    pub fn set(&self) {
        self.word().set(&self.env);
    }

    /// Clears the flag. Does not block.
    #[inline]
    pub fn clear(&self) {
        self.word().clear();
    }

    /// Waits until the flag is set, or has been set since the call and cleared again.
    #[inline]
    pub fn wait(&self) {
        self.word().wait(&self.env, Deadline::never());
    }

    /// As [`wait`](Self::wait), at most for `timeout`: whether the flag was set. Zero does not block, and `Duration::MAX`
    /// never ends.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.word().wait(&self.env, Deadline::after(timeout))
    }

    #[inline]
    fn word(&self) -> &FlagWord {
        // SAFETY: `new`'s contract: valid while `self.env` lives; an atomic inside, so a shared reference stays right
        // whatever other processes write.
        unsafe { self.word.as_ref() }
    }
}

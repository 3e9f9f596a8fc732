//! Work that one of many processes does, once.
//!
//! Protocol and crash table: [`crosslane_core::lock::once`].
#![allow(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::mutex::{Acquired, LockError};
use crosslane_core::{Liveness, OwnerId, Wait};

use crate::deadline::Deadline;

/// A handle to a word in shared memory that lets one process do something, once.
///
/// A process that dies at it leaves the work to the next one, which is told so. `E` waits, knows who is dead, and keeps the
/// memory mapped.
#[derive(Debug)]
pub struct Once<E> {
    words: NonNull<OnceWords>,
    env: E,
}

/// How the work was left by whoever began it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnceState {
    /// Nobody has begun it.
    Fresh,
    /// A process died at it: it may be half done.
    OwnerDied,
    /// It panicked: it may be half done.
    Poisoned,
}

/// Why the work is not known to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnceError {
    /// The time is over, and somebody is at it; who, if it was seen.
    TimedOut(Option<OwnerId>),
    /// This process is a raw `fork()` child and has no part in it.
    Forked,
    /// The shared words hold what no process writes that keeps to the protocol.
    Corrupt,
}

// SAFETY: the words are atomics that any thread may use; `env` goes along.
unsafe impl<E: Send> Send for Once<E> {}
// SAFETY: as above.
unsafe impl<E: Sync> Sync for Once<E> {}

impl<E: Wait<Deadline = Deadline> + Liveness> Once<E> {
    /// A handle to `words` in the surroundings `env`.
    ///
    /// # Safety
    /// `words` is valid for reads and writes and aligned, as long as `env` lives, also when `env` moves; whoever writes it
    /// does so by atomic accesses.
    pub const unsafe fn new(words: NonNull<OnceWords>, env: E) -> Self {
        Self { words, env }
    }

    /// Whether the work is done; what it did is visible then.
    #[inline]
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.words().is_done()
    }

    /// Does `work`, unless it is done; blocks while another thread or process is at it. Whether this call did it.
    ///
    /// `work` is told how it was left before: unlike std's `call_once`, this one goes on after a panic or a death, as
    /// `call_once_force` does. `work` must not call this again: it would wait for itself.
    ///
    /// # Errors
    /// [`OnceError::Forked`], [`OnceError::Corrupt`].
    ///
    /// # Panics
    /// If `work` does; the next one is told [`OnceState::Poisoned`].
    ///
    /// # Crash
    /// A process killed inside leaves the work to the next one, within 10 ms.
    #[inline]
    pub fn call_once(&self, work: impl FnOnce(OnceState)) -> Result<bool, OnceError> {
        self.call_until(Deadline::never(), work)
    }

    /// As [`call_once`](Self::call_once), blocking for at most `timeout`; the work itself may take longer.
    ///
    /// # Errors
    /// As `call_once`, and [`OnceError::TimedOut`].
    pub fn call_once_timeout(&self, timeout: Duration, work: impl FnOnce(OnceState)) -> Result<bool, OnceError> {
        self.call_until(Deadline::after(timeout), work)
    }

    #[inline]
    fn call_until(&self, deadline: Deadline, work: impl FnOnce(OnceState)) -> Result<bool, OnceError> {
        let state = match self.words().begin(&self.env, deadline) {
            Ok(Begun::Done) => return Ok(false),
            Ok(Begun::Mine(Acquired::Clean)) => OnceState::Fresh,
            Ok(Begun::Mine(Acquired::OwnerDied)) => OnceState::OwnerDied,
            Ok(Begun::Mine(Acquired::Poisoned)) => OnceState::Poisoned,
            Err(LockError::TimedOut(owner)) => return Err(OnceError::TimedOut(owner)),
            Err(LockError::Forked) => return Err(OnceError::Forked),
            Err(_) => return Err(OnceError::Corrupt),
        };
        let mut finish = Finish { once: self, done: false };
        work(state);
        finish.done = true;
        Ok(true)
    }

    #[inline]
    fn words(&self) -> &OnceWords {
        // SAFETY: `new`'s contract: valid while `self.env` lives; atomics inside, so a shared reference stays right
        // whatever other processes write.
        unsafe { self.words.as_ref() }
    }
}

/// Ends the work, also when it panics.
struct Finish<'a, E: Wait<Deadline = Deadline> + Liveness> {
    once: &'a Once<E>,
    done: bool,
}

impl<E: Wait<Deadline = Deadline> + Liveness> Drop for Finish<'_, E> {
    fn drop(&mut self) {
        self.once.words().finish(self.done, &self.once.env);
    }
}

impl fmt::Display for OnceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(Some(owner)) => write!(f, "the time is over, and {owner} is at it"),
            Self::TimedOut(None) => f.write_str("the time is over"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words are corrupt"),
        }
    }
}

impl core::error::Error for OnceError {}

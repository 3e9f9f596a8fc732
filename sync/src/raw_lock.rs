//! What stands behind a [`Mutex`](crate::Mutex).
#![allow(unsafe_code)]

use crosslane_core::OwnerId;
use crosslane_core::mutex::Acquired;

use crate::deadline::Deadline;

/// A lock that can stand behind a [`Mutex`](crate::Mutex).
///
/// Ours is [`LeaseLock`](crate::LeaseLock). The trait exists so that a segment which another program shares, with a
/// lock of its own kind in it (a robust pthread mutex, the mutex of another crate), can be used under the same guards.
/// Such a lock tells what it knows: one that cannot see a dead owner never says [`Acquired::OwnerDied`] and may wait
/// for ever, and one without room for a poison mark forgets it.
///
/// # Safety
/// - From a successful `lock` or `try_lock` to the next `unlock`, no other call succeeds, in any thread of any process,
///   unless the process that made the first one is dead; then the next success says [`Acquired::OwnerDied`], if the
///   lock can tell.
/// - What was done before an `unlock`, or by a dead owner, happens before what follows the next success.
/// - `unlock` in a process that does not hold the lock (a `fork()` child of the one that does) changes nothing.
/// - No method panics or unwinds.
pub unsafe trait RawLock {
    /// Takes the lock, blocking until `deadline` at most.
    ///
    /// # Errors
    /// [`NotAcquired`]; `Held` means that the deadline has passed.
    fn lock(&self, deadline: Deadline) -> Result<Acquired, NotAcquired>;

    /// Takes the lock if it can be had at once. Does not block.
    ///
    /// # Errors
    /// [`NotAcquired`].
    fn try_lock(&self) -> Result<Acquired, NotAcquired>;

    /// Gives the lock up; `poison` asks that the next owner be told that what the lock guards is broken. Does not block.
    ///
    /// # Safety
    /// The caller got the lock from `lock` or `try_lock` of this value, and has not given it up since.
    unsafe fn unlock(&self, poison: bool);
}

/// Why a lock was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotAcquired {
    /// Somebody holds it; who, if the lock can tell.
    Held(Option<OwnerId>),
    /// This process is a raw `fork()` child and has no part in the lock.
    Forked,
    /// The shared words of the lock hold nonsense, or the operating system refuses them.
    Corrupt,
}

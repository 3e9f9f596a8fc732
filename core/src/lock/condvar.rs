//! Waiting for a change of what a lock guards, without leaving a trace that anybody depends on.
//!
//! # What
//! An [`EventWord`]: a sequence and a flag that somebody may sleep. A notifier never waits for a waiter, and counts none.
//!
//! # Protocol
//! Wait ([`CondvarWord::wait`]), with the lock held:
//! 1. announce at the event word; full fence;
//! 2. unlock;
//! 3. park while the word holds what 1 left there, at most for a slice of 1 s;
//! 4. lock again, and look at the condition again.
//!
//! Notify ([`CondvarWord::notify`]), in whose critical section the condition became true, or after it: full fence; the
//! flag is set: the sequence goes on; wake.
//!
//! Since 1 comes before 2, a notifier that has changed the condition under the lock after this waiter looked at it finds
//! the flag. A wait may return without a notification, and does so once a second: a notifier that was killed between its
//! change and its notification, or a woken waiter that was killed before it acted, costs the others no more than that.
//!
//! # Orderings
//! None of its own: the lock orders the condition; the fences are those of [`crate::event`].
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | wait 1 and 2 | the lock's dead owner; a stale flag |
//! | wait 2 and 4 | a stale flag |
//! | wait 4, just woken | the condition; other waiters look again when their slices end |
//! | change and notify; notify, sequence and wake | the same |

use crate::event::{EventWord, Slept};
use crate::wait::{Slice, Wait, WakeMode};

/// The shared word. All zero is a valid start.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct CondvarWord(EventWord);

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<CondvarWord>() == 4);

impl CondvarWord {
    /// A word on which nobody waits.
    #[must_use]
    #[cfg(not(crosslane_loom))]
    pub const fn new() -> Self {
        Self(EventWord::new())
    }

    /// Announces a waiter, calls `unlock`, and sleeps: until it is notified, at most for a second, and until the deadline,
    /// which has passed if this returns `false`. The caller locks again and looks at its condition.
    pub fn wait<W: Wait>(&self, wait: &W, deadline: W::Deadline, unlock: impl FnOnce()) -> bool {
        let slept = self.0.sleep_unless(WakeMode::Fenced, Slice::Unowned, deadline, wait, || {
            unlock();
            false
        });
        slept != Slept::Expired
    }

    /// Wakes `waiters` of those who wait. No system call while nobody does.
    #[inline]
    pub fn notify<W: Wait>(&self, waiters: u32, wait: &W) {
        self.0.wake(waiters, WakeMode::Fenced, wait);
    }

    /// Wakes everybody to look again: what is left to do for a process that died here.
    pub fn recover<W: Wait>(&self, wait: &W) {
        self.0.wake_all(wait);
    }
}

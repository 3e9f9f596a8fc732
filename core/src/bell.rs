//! A flag that says that a sleeper of an [`EventWord`](crate::event::EventWord) sleeps elsewhere than on that word.
//!
//! # What
//! A `u32`, 1 while somebody who has announced itself on the event word beside it waits for something that its waker must
//! ring: a byte in a socket, because it waits for other sockets as well. Who is woken by the word alone never sets it, and a
//! waker looks at it only when the event word has told it that somebody may sleep: it costs a fast path nothing.
//!
//! # Protocol
//! Waiter:
//! 1. [`BellWord::hang`]: `bell = 1`; full fence;
//! 2. announces itself on the event word ([`EventWord::announce`](crate::event::EventWord::announce)) and looks again:
//!    found something: 4;
//! 3. sleeps until it is rung, at most for a slice;
//! 4. [`BellWord::take_down`]: `bell = 0`; looks again.
//!
//! Waker, in its [`Wait::wake`](crate::Wait::wake), which the event word calls when it has seen the announcement:
//! 1. wakes who sleeps on the word;
//! 2. full fence; `bell.swap(0)`: it was 1: rings, and counts one woken more.
//!
//! A ring in vain (the waiter had found something in step 2) is a byte that the next sleep finds: it looks once more. A bell
//! is never rung twice for one `hang`, so the socket does not fill up.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `bell.hung` | fence in `hang`, before the announcement | fence in `ring`, after the announcement was seen | that the bell hangs | `bell` |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | waiter 1 and 4 | a bell that rings once, in a socket that nobody reads |
//! | publish and waker 2 | the item; the waiter finds it when its slice ends, or sooner if its socket tells it of the death |
//! | waker's `swap` and ringing | the same |

use crate::prim::{AtomicU32, Ordering, fence};

/// The shared word. All zero is a valid start: no bell hangs.
#[derive(Debug)]
#[repr(transparent)]
pub struct BellWord(AtomicU32);

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<BellWord>() == 4);

impl Default for BellWord {
    #[track_caller]
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl BellWord {
    /// Waiter's step 1.
    pub fn hang(&self) {
        // ORDERING: Relaxed. The fence orders it before the announcement. A swap, like all changes of the word, so that
        // each follows upon the one before.
        self.0.swap(1, Ordering::Relaxed);
        // ORDERING bell.hung: SeqCst fence. Pairs with the fence in `ring`. Forbids: a waker sees the announcement that
        // follows and not the bell, so that it wakes nobody and takes the announcement away.
        fence(Ordering::SeqCst);
    }

    /// Waiter's step 4.
    pub fn take_down(&self) {
        // ORDERING: Relaxed. A ring that comes all the same is one in vain.
        self.0.swap(0, Ordering::Relaxed);
    }

    /// Waker's step 2: whether to ring.
    #[must_use]
    pub fn ring(&self) -> bool {
        // ORDERING bell.hung: SeqCst fence. Pairs with the fence in `hang`.
        fence(Ordering::SeqCst);
        // ORDERING: Relaxed, both. The fences order the load; the swap makes it one ring.
        self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::Relaxed) != 0
    }
}

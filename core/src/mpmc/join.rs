//! Waiting until everything that was pushed is done.
//!
//! # What
//! Who takes a message and keeps its claim until it has dealt with it holds its slot in READING. So nothing is left to be
//! done when no slot is FULL, READING or RETURNED: there is no counter that a killed process could leave wrong. A slot that is
//! WRITING holds no message yet; a dead letter is one that nobody will deal with.
//!
//! # Protocol
//! Look ([`Ring::is_done`]): pass over all slots twice; each pass adds up the words. Done, if no pass met an unfinished slot
//! and both sums are the same: a word of a slot that is not unfinished only grows until it is so again, so no word changed
//! between the passes, and at that moment all of them were as they were seen. (One pass is not enough: whoever is dealing
//! with a message behind may push another one before, and end its own.)
//!
//! Joiner: 1. looks; 2. sleeps on the event word `all_done` unless a second look finds that all is done, in slices, after which
//! it repairs what the dead held.
//!
//! Whoever is done with a message: 1. frees the slot; 2. somebody may sleep on `all_done`: looks; 3. done: wakes all joiners.
//! Of several that free the last slots at once the last one to look sees the others' steps: each has a full fence between 1
//! and 2.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | take and 1 | an unfinished message, which is delivered again once the death is proven |
//! | 1 and 3 | a joiner finds it when its slice ends (at most 1 s), or the reaper wakes it |

use core::mem::ManuallyDrop;
use core::time::Duration;

use super::bytes::{Bytes, BytesDelivery};
use super::claim::Claimed;
use super::word::{SlotWord, State};
use super::{PopError, Ring};
use crate::event::Slept;
use crate::prim::Ordering;
use crate::wait::{Liveness, Slice, Wait};

/// Looks at words that somebody changes meanwhile, before the answer is that not all is done. It is so at that moment.
const LOOKS: u32 = 16;

/// A message that was taken and is kept without borrowing its queue. Forgetting it keeps its slot until this process ends.
#[derive(Debug)]
#[must_use = "the message stays taken until it is resumed"]
pub struct HeldMessage {
    claimed: Claimed,
    len_bytes: usize,
}

impl Ring<'_> {
    /// Whether nothing that was pushed is left to be done. Reads every slot twice.
    pub(super) fn is_done(&self) -> bool {
        let Some(mut sum) = self.sum_if_done() else { return false };
        for _ in 0..LOOKS {
            match self.sum_if_done() {
                None => return false,
                Some(again) if again == sum => return true,
                Some(again) => sum = again,
            }
        }
        false
    }

    /// One pass: the sum of all words, if none is unfinished.
    fn sum_if_done(&self) -> Option<u64> {
        (0..u64::from(self.capacity)).try_fold(0_u64, |sum, slot| {
            // ORDERING mpmc.free: Acquire. Pairs with the Release in `free`: what was done with the message, and what was
            // pushed meanwhile, is visible.
            let word = SlotWord(self.word(slot).load(Ordering::Acquire));
            match word.state() {
                Some(State::Free | State::Writing | State::DeadLetter) => Some(sum.wrapping_add(word.progress())),
                _ => None,
            }
        })
    }
}

impl<'m, E: Wait + Liveness, K> Bytes<'m, E, K> {
    /// Waits until nothing that was pushed is left to be done: no message waits, and nobody holds one. For queues whose
    /// consumers [take](Self::take) a message, deal with it, and then say [`done`](BytesDelivery::done).
    ///
    /// Repairs what dead participants held, within 10 ms of their death: their messages are delivered again. A dead letter
    /// counts as done.
    ///
    /// # Errors
    /// [`PopError::Forked`].
    pub fn join(&self) -> Result<(), PopError> {
        self.join_until(self.handle.env.never())
    }

    /// As [`join`](Self::join), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`join`](Self::join), and [`PopError::TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), PopError> {
        self.join_until(self.handle.env.after(timeout))
    }

    fn join_until(&self, deadline: E::Deadline) -> Result<(), PopError> {
        let (ring, env) = (&self.handle.ring, &self.handle.env);
        loop {
            let me = env.me().ok_or(PopError::Forked)?;
            if ring.is_done() {
                return Ok(());
            }
            let slice = if ring.is_held_by_others(me) { Slice::Owner } else { Slice::Long };
            match ring.rare().all_done.sleep_unless(ring.mode, slice, deadline, env, || ring.is_done()) {
                Slept::Ready => return Ok(()),
                Slept::Again => {
                    ring.recover_holders(env, env);
                }
                Slept::Expired => return if ring.is_done() { Ok(()) } else { Err(PopError::TimedOut) },
            }
        }
    }

    /// The delivery of a message that was [held](BytesDelivery::hold).
    ///
    /// # Safety
    /// `held` came from this handle, or a clone of it.
    pub unsafe fn resume(&self, held: HeldMessage) -> BytesDelivery<'_, 'm, E, K> {
        BytesDelivery { queue: self, claimed: held.claimed, len_bytes: held.len_bytes }
    }

    /// Wakes joiners, if all is done.
    fn tell_joiners(&self) {
        let (handle, word) = (&self.handle, &self.handle.ring.rare().all_done);
        if word.may_be_awaited(handle.light) && handle.ring.is_done() {
            word.wake_after(handle.light, u32::MAX, &handle.env);
        }
    }
}

impl<E: Wait + Liveness, K> BytesDelivery<'_, '_, E, K> {
    /// As [`ack`](Self::ack), and wakes those who [join](Bytes::join) the queue, if this was the last message.
    pub fn done(self) {
        let queue = self.queue;
        self.ack();
        queue.tell_joiners();
    }

    /// Gives the message back, as dropping does, and wakes those who [join](Bytes::join) the queue, if it has become a dead
    /// letter, and was the last.
    pub fn give_back(self) {
        let queue = self.queue;
        drop(self);
        queue.tell_joiners();
    }

    /// Keeps the message taken without borrowing its queue.
    pub fn hold(self) -> HeldMessage {
        let this = ManuallyDrop::new(self);
        HeldMessage { claimed: this.claimed, len_bytes: this.len_bytes }
    }
}

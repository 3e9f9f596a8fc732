//! Ends on their way from one process to another.
//!
//! # What
//! An end is handed over by its word ([`end`](crate::end)): the sender's name stays in it until the receiver has put its own
//! there. But an end may come back, so the sender's name alone does not say that it is still on its *first* way. Therefore
//! each side counts its claims, and a [`Handover`] says how many there had been.
//!
//! # Protocol
//! Whoever claims an end or takes it over: 1. the word; 2. `claims + 1`; 3. everything else.
//!
//! Withdraw ([`Ring::withdraw_writer`], [`Ring::withdraw_reader`]), once the process that was to take the end over is proven
//! dead, or is done with the message that the end was in: 1. `claims` is what it was, so the receiver did not get as far as to hand the end on: 2. CAS(sender -> CLOSED), and
//! wake the peer.
//!
//! The proof of death shows whatever the dead one stored, so step 1 needs no ordering of its own; and the dead one takes
//! nothing over between the two steps. So it is if the message came through a ring, and the receiver has released it
//! ([`Writer::is_released`](super::Writer::is_released)): it takes what is in a message over before that, or never.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | taking over 1 and 2 | an end with a dead owner |
//! | withdraw 1 and 2 | an end with a dead owner, the sender |
//! | withdraw 2 and its wake | `CLOSED`; a sleeping peer sees it when its slice ends |

use super::{Ring, Side};
use crate::end::ClaimError;
use crate::owner::OwnerId;
use crate::prim::Ordering;
use crate::wait::{Liveness, Wait};

/// An end that is on its way to another process, as its sender describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// The sender.
    pub from: OwnerId,
    /// How often the end had been claimed.
    pub claims: u32,
}

impl Side {
    /// Step 2 of a claim.
    pub(super) fn count_claim(&self) {
        // ORDERING: Relaxed. Read behind a proof of death, or by the end's owner.
        self.claims.fetch_add(1, Ordering::Relaxed);
    }

    /// Steps 1 and 2 for an end that was handed over.
    pub(super) fn take_over<L: Liveness>(&self, from: OwnerId, life: &L) -> Result<(), ClaimError> {
        self.end.take_over(from, life)?;
        self.count_claim();
        Ok(())
    }

    pub(super) fn hand_over(&self, from: OwnerId) -> Result<Handover, ClaimError> {
        // ORDERING: Relaxed. Only the end's owner changes it, which is `from`.
        let claims = self.claims.load(Ordering::Relaxed);
        if self.end.hand_over(from) { Ok(Handover { from, claims }) } else { Err(ClaimError::Corrupt) }
    }

    /// Withdraws the end; `peer` is the other side.
    fn withdraw<W: Wait>(&self, handover: Handover, peer: &Self, ring: &Ring<'_>, wait: &W) {
        // ORDERING: Relaxed. The caller's proof of death shows what the dead one counted.
        if self.claims.load(Ordering::Relaxed) == handover.claims {
            self.end.close(handover.from);
            peer.event.wake(1, ring.mode, wait);
        }
    }
}

impl Ring<'_> {
    /// Closes the writer's end, which this process handed over to one that is proven dead, unless that one had taken it.
    ///
    /// `wait` wakes the reader, by its [bell](crate::bell) too, if it has one.
    pub fn withdraw_writer<W: Wait>(&self, handover: Handover, wait: &W) {
        self.header().writer.withdraw(handover, &self.header().reader, self, wait);
    }

    /// Closes the reader's end, as [`withdraw_writer`](Self::withdraw_writer) does the writer's.
    pub fn withdraw_reader<W: Wait>(&self, handover: Handover, wait: &W) {
        self.header().reader.withdraw(handover, &self.header().writer, self, wait);
    }
}

//! Ends on their way from one process to another.
//!
//! # What
//! An end is handed over by its word ([`end`](crate::end)): the sender's name stays in it until the receiver has put its own
//! there. But an end may come back, so the sender's name alone does not say that it is still on its *first* way. Therefore
//! each side counts its claims, and a [`Handover`] says how many there had been. The top bit of the count says that the end
//! is on its way: that nobody uses it. A peer that can ask whether the message still is need not wait for it: whoever sends
//! gives it a *pass*, which is there as long as anybody can take the message, and which the count tells from the next one.
//!
//! # Protocol
//! Whoever claims an end: 1. the word; 2. `claims + 1`; 3. everything else.
//!
//! Hand over: 1. the word is the sender's; 2. CAS(claims -> claims, leaving). Back again, for a message that is not sent
//! ([`Ring::keep_writer`], [`Ring::keep_reader`]): the opposite CAS.
//!
//! Take over: 1. `claims` is what it was, and leaving; 2. the word; 3. CAS(claims, leaving -> claims + 1), which one of those
//! wins who have been given the same hand-over in one process; 4. everything else.
//!
//! Lost ([`Ring::is_writer_lost`], [`Ring::is_reader_lost`]), asked by anybody: 1. `claims`, leaving; 2. there is no pass of that
//! count; 3. `claims` is what it was. The sender has the pass before it hands over, and the receiver gives it back behind step 3
//! of taking over; who asks is told by what orders these (a lock of the kernel's).
//!
//! Withdraw ([`Ring::withdraw_writer`], [`Ring::withdraw_reader`]), once the process that was to take the end over is proven
//! dead, or is done with the message that the end was in: 1. `claims` is what it was, so the receiver did not get as far as
//! to hand the end on: 2. CAS(sender -> CLOSED), and wake the peer.
//!
//! The proof of death shows whatever the dead one stored, so step 1 needs no ordering of its own; and the dead one takes
//! nothing over between the two steps. So it is if the message came through a ring, and the receiver has released it
//! ([`Writer::is_released`](super::Writer::is_released)): it takes what is in a message over before that, or never.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | claiming 1 and 2, taking over 2 and 3 | an end with a dead owner |
//! | hand over 2 and the message | the same |
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

/// In `claims`, beside the count: the end is on its way.
const LEAVING: u32 = 1 << 31;

/// The count after this one.
fn following(claims: u32) -> u32 {
    claims.wrapping_add(1) & !LEAVING
}

impl Side {
    /// Step 2 of a claim.
    pub(super) fn count_claim(&self) {
        // ORDERING: Relaxed, both. Read behind a proof of death, or by the end's owner, which this is.
        self.claims.store(following(self.claims.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Takes over an end that was handed over.
    pub(super) fn take_over<L: Liveness>(&self, handover: Handover, life: &L) -> Result<(), ClaimError> {
        let leaving = handover.claims | LEAVING;
        // ORDERING: Relaxed. The message has brought what the sender stored.
        if self.claims.load(Ordering::Relaxed) != leaving {
            return Err(ClaimError::EndTaken(handover.from));
        }
        self.end.take_over(handover.from, life)?;
        // ORDERING: Relaxed, both. The word orders; this decides between two of one process only.
        let counted = self.claims.compare_exchange(leaving, following(leaving), Ordering::Relaxed, Ordering::Relaxed);
        counted.map(drop).map_err(|_| ClaimError::EndTaken(handover.from))
    }

    pub(super) fn hand_over(&self, from: OwnerId) -> Result<Handover, ClaimError> {
        if !self.end.hand_over(from) {
            return Err(ClaimError::Corrupt);
        }
        // ORDERING: Relaxed, here and in the CAS. Only the end's owner changes it, which is `from`; one of its threads wins.
        let claims = self.claims.load(Ordering::Relaxed) & !LEAVING;
        let left = self.claims.compare_exchange(claims, claims | LEAVING, Ordering::Relaxed, Ordering::Relaxed);
        left.map(|_| Handover { from, claims }).map_err(|_| ClaimError::EndTaken(from))
    }

    fn keep(&self, handover: Handover) {
        // ORDERING: Relaxed, both. As in `hand_over`.
        let leaving = handover.claims | LEAVING;
        let _ = self.claims.compare_exchange(leaving, handover.claims, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn claims(&self) -> u32 {
        // ORDERING: Relaxed. Only the end's owner changes it, which asks.
        self.claims.load(Ordering::Relaxed) & !LEAVING
    }

    fn is_lost(&self, has_pass: impl FnOnce(u32) -> bool) -> bool {
        // ORDERING: Relaxed, both. Where there is no pass any more, whoever gave it back has counted before.
        let claims = self.claims.load(Ordering::Relaxed);
        if claims & LEAVING == 0 || has_pass(claims & !LEAVING) {
            return false;
        }
        self.claims.load(Ordering::Relaxed) == claims
    }

    /// Withdraws the end; `peer` is the other side.
    fn withdraw<W: Wait>(&self, handover: Handover, peer: &Self, ring: &Ring<'_>, wait: &W) {
        // ORDERING: Relaxed. The caller's proof of death shows what the dead one counted.
        if self.claims.load(Ordering::Relaxed) == handover.claims | LEAVING {
            self.end.close(handover.from);
            peer.event.wake(1, ring.mode, wait);
        }
    }
}

impl Ring<'_> {
    /// The writer's end was handed over, and the message that it was for is not sent: it is this process's as before.
    pub fn keep_writer(&self, handover: Handover) {
        self.header().writer.keep(handover);
    }

    /// As [`keep_writer`](Self::keep_writer), of the reader's end.
    pub fn keep_reader(&self, handover: Handover) {
        self.header().reader.keep(handover);
    }

    /// How often the writer's end has been claimed: what the [`Handover`] will say, if its owner hands it over.
    #[must_use]
    pub fn writer_claims(&self) -> u32 {
        self.header().writer.claims()
    }

    /// As [`writer_claims`](Self::writer_claims), of the reader's end.
    #[must_use]
    pub fn reader_claims(&self) -> u32 {
        self.header().reader.claims()
    }

    /// Whether the writer's end has been handed over, and nobody can take it over any more: of a [`Handover`] with so many
    /// claims `has_pass` says whether its message is still there.
    #[must_use]
    pub fn is_writer_lost(&self, has_pass: impl FnOnce(u32) -> bool) -> bool {
        self.header().writer.is_lost(has_pass)
    }

    /// As [`is_writer_lost`](Self::is_writer_lost), of the reader's end.
    #[must_use]
    pub fn is_reader_lost(&self, has_pass: impl FnOnce(u32) -> bool) -> bool {
        self.header().reader.is_lost(has_pass)
    }

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

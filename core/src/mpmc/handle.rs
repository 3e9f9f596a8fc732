//! A process's access to a queue: claims that wait.

use core::time::Duration;

use super::claim::{Claimed, Run, Seen};
use super::{PopError, PushError, Ring};
use crate::event::{Light, Slept};
use crate::owner::OwnerId;
use crate::prim::pause;
use crate::wait::{Liveness, Slice, Wait};

/// Second looks that may find something in a row, and the claim then nothing, before a waiter sleeps all the same and so
/// looks at its deadline. Peers that keep to the protocol take turns long before that.
const IN_VAIN_IN_A_ROW: u32 = 64;

/// The ring and the surroundings in which this process uses it.
///
/// A fast path works on a copy of the ring: what is read through a handle is read anew after each atomic access, and that
/// was a tenth of its instructions.
#[derive(Debug, Clone)]
pub(super) struct Handle<'m, E> {
    pub(super) ring: Ring<'m>,
    pub(super) env: E,
    pub(super) light: Light,
}

/// How long a claim may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    Try,
    TrySkippingBusy,
    Timeout(Duration),
    Forever,
}

impl<'m, E: Wait + Liveness> Handle<'m, E> {
    pub(super) fn new(ring: Ring<'m>, env: E) -> Self {
        let light = Light::of(ring.mode, &env);
        Self { ring, env, light }
    }

    /// `ring` is this handle's, here and below. `Err(None)`: nothing was looked at.
    #[inline]
    pub(super) fn claim_to_write_at_once(&self, ring: Ring<'m>) -> Result<Claimed, Option<Seen>> {
        let me = self.env.me().ok_or(None)?;
        if ring.is_closed() {
            return Err(None);
        }
        ring.claim_to_write_at_once(me).map_err(Some)
    }

    /// After [`claim_to_write_at_once`](Self::claim_to_write_at_once).
    #[cold]
    pub(super) fn claim_to_write_slow(&self, seen: Option<Seen>, patience: Patience) -> Result<Claimed, PushError> {
        let me = self.env.me().ok_or(PushError::Forked)?;
        if self.ring.is_closed() {
            return Err(PushError::Closed);
        }
        let done = seen.map_or_else(|| self.ring.claim_to_write(me), |seen| self.ring.claim_to_write_slow(me, seen));
        match (done, patience) {
            (Err(PushError::Full(_)), Patience::Forever) => self.wait_to_write(me, self.env.never()),
            (Err(PushError::Full(_)), Patience::Timeout(time)) => self.wait_to_write(me, self.env.after(time)),
            (done, _) => done,
        }
    }

    pub(super) fn claim_to_write(&self, patience: Patience) -> Result<Claimed, PushError> {
        self.claim_to_write_at_once(self.ring).or_else(|seen| self.claim_to_write_slow(seen, patience))
    }

    /// As [`claim_to_write_at_once`](Self::claim_to_write_at_once).
    #[inline]
    pub(super) fn claim_to_read_at_once(&self, ring: Ring<'m>) -> Result<Claimed, Option<Seen>> {
        ring.claim_to_read_at_once(self.env.me().ok_or(None)?)
    }

    /// After [`claim_to_read_at_once`](Self::claim_to_read_at_once).
    #[cold]
    pub(super) fn claim_to_read_slow(&self, seen: Option<Seen>, patience: Patience) -> Result<Claimed, PopError> {
        let me = self.env.me().ok_or(PopError::Forked)?;
        let skip_busy = matches!(patience, Patience::TrySkippingBusy);
        match (self.ring.claim_to_read_slow(me, skip_busy, seen), patience) {
            (Err(PopError::Empty | PopError::Busy(_)), Patience::Forever) => self.wait_to_read(me, self.env.never()),
            (Err(PopError::Empty | PopError::Busy(_)), Patience::Timeout(time)) => {
                self.wait_to_read(me, self.env.after(time))
            }
            (Err(PopError::Empty), _) if self.ring.is_closed() => self.drained(me),
            (done, _) => done,
        }
    }

    pub(super) fn claim_to_read(&self, patience: Patience) -> Result<Claimed, PopError> {
        self.claim_to_read_at_once(self.ring).or_else(|seen| self.claim_to_read_slow(seen, patience))
    }

    /// Claims an item that will be kept for a while: somebody of those who sleep looks after it.
    pub(super) fn claim_to_keep(&self, patience: Patience) -> Result<Claimed, PopError> {
        let claimed = self.claim_to_read(patience)?;
        if let Some(me) = self.env.me() {
            self.ring.header().not_empty.0.call_watch(me, self.light, &self.env);
        }
        Ok(claimed)
    }

    /// Claims at least one slot and at most `most`, in a row.
    #[inline]
    pub(super) fn claim_run_to_write(&self, ring: Ring<'m>, most: usize) -> Result<Run, PushError> {
        let me = self.env.me().ok_or(PushError::Forked)?;
        if ring.is_closed() {
            return Err(PushError::Closed);
        }
        let one = |seen| self.claim_to_write_slow(Some(seen), Patience::Try).map(Run::of);
        ring.claim_run_to_write(me, most).or_else(one)
    }

    /// Claims at least one item and at most `most`, in a row.
    #[inline]
    pub(super) fn claim_run_to_read(&self, ring: Ring<'m>, most: usize) -> Result<Run, PopError> {
        let me = self.env.me().ok_or(PopError::Forked)?;
        let one = |seen| self.claim_to_read_slow(seen, Patience::Try).map(Run::of);
        ring.claim_run_to_read(me, most).or_else(one)
    }

    #[inline]
    pub(super) fn wake_consumers(&self, items: u32) {
        self.ring.header().not_empty.0.event.wake_after(self.light, items, &self.env);
    }

    #[inline]
    pub(super) fn wake_producers(&self, slots: u32) {
        self.ring.header().not_full.0.wake_after(self.light, slots, &self.env);
    }

    /// Deliveries have ended. Whoever waits for room has some, and whoever waits for the end of a closed queue looks again.
    #[inline]
    pub(super) fn done_reading(&self, items: u32) {
        if self.light == Light::Polling {
            return;
        }
        self.wake_producers(items);
        if self.ring.is_closed() {
            self.wake_consumers(u32::MAX);
        }
    }

    /// Ends a claim to write with nothing written. A fork child's copy of a claim is the parent's.
    pub(super) fn abandon(&self, claimed: Claimed) {
        if self.env.me().is_some() {
            self.ring.free(claimed);
            self.wake_producers(1);
            // Consumers that waited behind this slot have something to look at.
            self.wake_consumers(1);
        }
    }

    /// Ends a claim to write with the item there. A fork child's copy of a claim is the parent's.
    pub(super) fn commit(&self, claimed: Claimed) {
        if self.env.me().is_some() {
            self.ring.fill(claimed);
            self.wake_consumers(1);
        }
    }

    /// Ends a delivery for good. A fork child's copy of one is the parent's.
    pub(super) fn ack(&self, claimed: Claimed) {
        if self.env.me().is_some() {
            self.ring.free(claimed);
            self.done_reading(1);
        }
    }

    /// Ends a delivery that was not acknowledged. A fork child's copy of one is the parent's.
    pub(super) fn give_back(&self, claimed: Claimed) {
        if self.env.me().is_some() {
            self.ring.give_back(claimed, &self.env);
        }
    }

    /// The queue was found empty and then closed: closed for good, if it is still empty and nobody holds what may come
    /// back.
    fn drained(&self, me: OwnerId) -> Result<Claimed, PopError> {
        match self.ring.claim_to_read(me, false) {
            Err(PopError::Empty) => Err(self.ring.rest(me).unwrap_or(PopError::Closed)),
            done => done,
        }
    }

    #[cold]
    fn wait_to_write(&self, me: OwnerId, deadline: E::Deadline) -> Result<Claimed, PushError> {
        let ring = &self.ring;
        for _ in 0..self.env.spins() {
            if ring.may_push() {
                break;
            }
            pause();
        }
        let (mut slept, mut is_to_repair, mut in_vain) = (false, false, 0);
        loop {
            if ring.is_closed() {
                return Err(PushError::Closed);
            }
            match ring.claim_to_write(me) {
                Err(PushError::Full(_)) => {}
                done => return self.pass_on_room(slept, done),
            }
            // Once for each sleep, so that a peer that feigns dead holders for ever does not hold this process here.
            if core::mem::take(&mut is_to_repair) && ring.recover_holders(&self.env, &self.env) {
                continue;
            }
            let is_patient = in_vain < IN_VAIN_IN_A_ROW;
            let slice = if is_patient { self.slice(me) } else { Slice::Short };
            let ready = || is_patient && (ring.may_push() || ring.is_closed());
            match ring.header().not_full.0.sleep_unless(ring.mode, slice, deadline, &self.env, ready) {
                Slept::Ready => in_vain += 1,
                Slept::Again => (slept, is_to_repair, in_vain) = (true, true, 0),
                Slept::Expired => {
                    ring.recover_holders(&self.env, &self.env);
                    return match ring.claim_to_write(me) {
                        Err(PushError::Full(_)) => Err(PushError::TimedOut),
                        done => done,
                    };
                }
            }
            if self.env.me() != Some(me) {
                return Err(PushError::Forked);
            }
        }
    }

    #[cold]
    fn wait_to_read(&self, me: OwnerId, deadline: E::Deadline) -> Result<Claimed, PopError> {
        let ring = &self.ring;
        for _ in 0..self.env.spins() {
            if ring.may_pop() {
                break;
            }
            pause();
        }
        let (mut slept, mut is_to_repair, mut in_vain) = (false, false, 0);
        loop {
            // Read before the look: what was pushed before the close is then seen by the look.
            let closed = ring.is_closed();
            match ring.claim_to_read(me, false) {
                Err(PopError::Empty) if closed && ring.rest(me).is_none() => return Err(PopError::Closed),
                Err(PopError::Empty | PopError::Busy(_)) => {}
                done => return self.pass_on_items(slept, done),
            }
            // Once for each sleep, as above.
            if core::mem::take(&mut is_to_repair) && ring.recover_holders(&self.env, &self.env) | ring.find_returned() {
                continue;
            }
            let is_patient = in_vain < IN_VAIN_IN_A_ROW;
            let news = || ring.may_pop() || ring.is_closed() != closed || closed && ring.rest(me).is_none();
            let look = || match is_patient {
                true if news() => None,
                true => Some(ring.stand_watch(me, &self.env)),
                false => Some(Slice::Short),
            };
            match ring.header().not_empty.0.sleep(me, ring.mode, deadline, &self.env, look) {
                Slept::Ready => in_vain += 1,
                Slept::Again => (slept, is_to_repair, in_vain) = (true, true, 0),
                Slept::Expired => {
                    ring.recover_holders(&self.env, &self.env);
                    ring.find_returned();
                    return match ring.claim_to_read(me, false) {
                        Err(PopError::Empty | PopError::Busy(_)) => Err(PopError::TimedOut),
                        done => done,
                    };
                }
            }
            if self.env.me() != Some(me) {
                return Err(PopError::Forked);
            }
        }
    }

    /// A woken waiter may have been meant for two: if there is more, it passes the wake on.
    fn pass_on_items(&self, slept: bool, done: Result<Claimed, PopError>) -> Result<Claimed, PopError> {
        if slept && self.ring.may_pop() {
            self.wake_consumers(1);
        }
        done
    }

    fn pass_on_room(&self, slept: bool, done: Result<Claimed, PushError>) -> Result<Claimed, PushError> {
        if slept && self.ring.may_push() {
            self.wake_producers(1);
        }
        done
    }

    /// Whoever holds a slot counts as named: it may be dead, and what it held may be what is waited for.
    fn slice(&self, me: OwnerId) -> Slice {
        if self.ring.is_held_by_others(me) { Slice::Owner } else { Slice::Long }
    }
}

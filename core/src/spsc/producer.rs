//! The producer's end.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use super::{LOOK_AHEAD, MAX_FLIPS, PushError, Ring, Seen, slice_behind};
use crate::end::End;
use crate::event::{Light, Slept};
use crate::owner::OwnerId;
use crate::plain::Plain;
use crate::prim::{InPlace, pause};
use crate::trust::{Trusted, Untrusted};
use crate::wait::{Liveness, Wait};

/// The producer's end. Dropping it closes the end: the consumer drains the ring and then sees `Closed`.
///
/// `E` is what the end parks with, and what keeps the memory mapped.
#[derive(Debug)]
#[must_use = "dropping the end closes it"]
pub struct Producer<'m, T: Plain, E: Wait + Liveness, K = Untrusted> {
    pub(super) ring: Ring<'m, T>,
    pub(super) env: E,
    pub(super) me: OwnerId,
    pub(super) light: Light,
    pub(super) position: u64,
    /// The slots from `position` up to this one are known to be free. Never below `position`.
    pub(super) free_until: u64,
    /// How many slots ahead the next look goes, 1..=`LOOK_AHEAD`.
    pub(super) look: u64,
    pub(super) trust: PhantomData<fn() -> K>,
}

impl<'m, T: Plain, E: Wait + Liveness, K> Producer<'m, T, E, K> {
    /// Pushes an item if there is room. Wait-free but for the wake of a sleeping consumer (one system call).
    ///
    /// # Errors
    /// [`PushError::Full`], [`PushError::Forked`], [`PushError::Corrupt`]; nothing was pushed.
    ///
    /// # Crash
    /// A process killed inside has pushed the item or has not; the ring goes on either way.
    #[inline]
    pub fn try_push(&mut self, item: T) -> Result<(), PushError> {
        self.alive()?;
        self.find_room()?;
        self.ring.write(self.position, &item);
        self.publish(1);
        Ok(())
    }

    /// Pushes an item, waiting for room as long as the consumer lives.
    ///
    /// # Errors
    /// [`PushError::Closed`] or [`PushError::PeerDied`] if the ring is full and nobody is left to empty it,
    /// [`PushError::Forked`], [`PushError::Corrupt`].
    ///
    /// # Crash
    /// As [`try_push`](Self::try_push). The consumer's death is noticed within 10 ms.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), PushError> {
        loop {
            match self.try_push(item) {
                Err(PushError::Full) => self.wait_for_room(self.env.never())?,
                done => return done,
            }
        }
    }

    /// Pushes an item, waiting for room at most for `timeout`.
    ///
    /// # Errors
    /// As [`push`](Self::push), and [`PushError::TimedOut`].
    #[inline]
    pub fn push_timeout(&mut self, item: T, timeout: Duration) -> Result<(), PushError> {
        let mut deadline = None;
        loop {
            match self.try_push(item) {
                Err(PushError::Full) => {
                    self.wait_for_room(*deadline.get_or_insert_with(|| self.env.after(timeout)))?;
                }
                done => return done,
            }
        }
    }

    /// Pushes as many of `items` as there is room for, in order, and wakes the consumer once. Returns how many.
    ///
    /// # Errors
    /// [`PushError::Full`] if `items` is not empty and none fits, [`PushError::Forked`], [`PushError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside has pushed a prefix of what it would have pushed.
    pub fn push_slice(&mut self, items: &[T]) -> Result<usize, PushError> {
        self.alive()?;
        let wanted = items.len().min(self.ring.capacity as usize);
        if wanted == 0 {
            return Ok(0);
        }
        // The consumer frees in order: if the last slot of the batch is free, so are those before it.
        let end = self.position + wanted as u64;
        let count = if end <= self.free_until || self.ring.producer_sees(end - 1) == Seen::Mine {
            wanted
        } else {
            self.free_slots(wanted)?
        };
        for (position, item) in (self.position..).zip(&items[..count]) {
            self.ring.write(position, item);
            self.ring.publish(position);
        }
        self.position += count as u64;
        self.free_until = self.free_until.max(self.position);
        #[expect(clippy::cast_possible_truncation, reason = "at most the capacity, a u32")]
        self.ring.header().not_empty.0.wake_after(self.light, count as u32, &self.env);
        Ok(count)
    }

    /// Whether a push would find no room now. May be stale at once: the consumer may be making room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ring.producer_sees(self.position) != Seen::Mine
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.ring.capacity
    }

    /// Items pushed through this end so far, by this process and those before it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the other end's word says now.
    #[must_use]
    pub fn peer(&self) -> End {
        self.ring.consumer_end()
    }

    /// The same end, allowed to lend references into the ring.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned end lives.
    pub unsafe fn trust_peers(self) -> Producer<'m, T, E, Trusted> {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment moves exactly once.
        let env = unsafe { core::ptr::read(&raw const this.env) };
        let Self { ring, me, light, position, free_until, look, .. } = *this;
        Producer { ring, env, me, light, position, free_until, look, trust: PhantomData }
    }

    #[inline]
    fn alive(&self) -> Result<(), PushError> {
        if self.env.is_still(self.me) { Ok(()) } else { Err(PushError::Forked) }
    }

    /// Makes sure that the slot at the position is free.
    #[inline]
    fn find_room(&mut self) -> Result<(), PushError> {
        if self.position == self.free_until {
            self.look_ahead()?;
        }
        if self.position + Ring::<T>::AHEAD < self.free_until {
            self.ring.ask_ahead(self.position);
        }
        Ok(())
    }

    /// Looks twice as far each time that the furthest slot is free, and half as far each time that it is not, so that a
    /// producer with room hardly ever reads what its consumer writes.
    #[inline(never)]
    fn look_ahead(&mut self) -> Result<(), PushError> {
        let end = self.position + self.look;
        if self.ring.producer_sees(end - 1) == Seen::Mine {
            self.free_until = end;
            self.look = (self.look * 2).min(LOOK_AHEAD).min(u64::from(self.ring.capacity / 2));
            return Ok(());
        }
        self.look = (self.look / 2).max(1);
        self.room()?;
        self.free_until = self.position + 1;
        Ok(())
    }

    #[inline]
    fn room(&self) -> Result<(), PushError> {
        match self.ring.producer_sees(self.position) {
            Seen::Mine => Ok(()),
            Seen::Theirs => Err(PushError::Full),
            Seen::Nonsense => Err(PushError::Corrupt),
        }
    }

    /// The slot's payload is written: publish it and wake the consumer.
    #[inline]
    fn publish(&mut self, items: u32) {
        self.ring.publish(self.position);
        self.position += 1;
        self.ring.header().not_empty.0.wake_after(self.light, items, &self.env);
    }

    fn free_slots(&self, wanted: usize) -> Result<usize, PushError> {
        self.room()?;
        let more = (self.position + 1..).take(wanted - 1);
        Ok(1 + more.take_while(|p| self.ring.producer_sees(*p) == Seen::Mine).count())
    }

    /// Waits until `room` no longer says `Full`.
    #[cold]
    fn wait_for_room(&self, deadline: E::Deadline) -> Result<(), PushError> {
        for _ in 0..self.env.spins() {
            match self.room() {
                Err(PushError::Full) => pause(),
                other => return other,
            }
        }
        let end = &self.ring.header().ends.0.consumer;
        let (mut slept, mut flips) = (false, 0);
        loop {
            let peer = end.peer();
            let gone = self.ring.gone(end, peer, slept, &self.env);
            // A peer that ended or died may have made room as its last step, and its word was read before this look.
            match (self.room(), gone) {
                (Err(PushError::Full), Some(gone)) => return Err(gone.into()),
                (Err(PushError::Full), None) => {}
                (other, _) => return other,
            }
            let ready = || self.room() != Err(PushError::Full) || (flips < MAX_FLIPS && end.peer() != peer);
            let event = &self.ring.header().not_full.0;
            match event.sleep_unless(self.ring.mode, slice_behind(peer), deadline, &self.env, ready) {
                Slept::Ready | Slept::Again => self.alive()?,
                Slept::Expired => {
                    let gone = self.ring.gone(end, end.peer(), true, &self.env).map_or(PushError::TimedOut, Into::into);
                    return self.room().map_err(|error| if error == PushError::Full { gone } else { error });
                }
            }
            // Room comes before the probe of its consumer, which costs a system call.
            match self.room() {
                Err(PushError::Full) => {}
                other => return other,
            }
            (slept, flips) = (true, flips + 1);
        }
    }
}

impl<'m, T: Plain, E: Wait + Liveness> Producer<'m, T, E, Trusted> {
    /// Lends the next slot, to be filled in place and committed: no copy, whatever the item's size.
    ///
    /// The slot holds what an earlier lap left there. Dropping the loan pushes nothing.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    ///
    /// # Crash
    /// A process killed while it holds the loan has pushed nothing.
    pub fn loan(&mut self) -> Result<Loan<'_, 'm, T, E>, PushError> {
        self.alive()?;
        self.find_room()?;
        // SAFETY:
        // - the slot has room for a `T` at `PAYLOAD`, which is aligned for it, since slots are aligned to `STRIDE`;
        // - it is free, so by the protocol, to which the peers keep (`trust_peers`), nobody else touches it until it is
        //   published, and the loan borrows this end until then.
        let item = unsafe { InPlace::new(self.ring.payload(self.position)) };
        Ok(Loan { producer: self, item })
    }
}

impl<T: Plain, E: Wait + Liveness, K> Drop for Producer<'_, T, E, K> {
    fn drop(&mut self) {
        if self.alive().is_ok() {
            self.ring.header().ends.0.producer.close(self.me);
            self.ring.header().not_empty.0.wake_after(self.light, 1, &self.env);
        }
    }
}

/// A free slot on loan from the ring.
#[derive(Debug)]
#[must_use = "dropping the loan pushes nothing"]
pub struct Loan<'a, 'm, T: Plain, E: Wait + Liveness> {
    producer: &'a mut Producer<'m, T, E, Trusted>,
    item: InPlace<T>,
}

impl<T: Plain, E: Wait + Liveness> Loan<'_, '_, T, E> {
    /// Publishes the slot.
    ///
    /// # Errors
    /// [`PushError::Forked`] in a `fork()` child that inherited the loan: the slot is its parent's.
    pub fn commit(mut self) -> Result<(), PushError> {
        self.producer.alive()?;
        self.item.write_back();
        self.producer.publish(1);
        Ok(())
    }
}

impl<T: Plain, E: Wait + Liveness> Deref for Loan<'_, '_, T, E> {
    type Target = T;
    fn deref(&self) -> &T {
        self.item.get()
    }
}

impl<T: Plain, E: Wait + Liveness> DerefMut for Loan<'_, '_, T, E> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.get_mut()
    }
}

//! The consumer's end.

use core::marker::PhantomData;
use core::ops::Deref;
use core::time::Duration;

use super::{MAX_FLIPS, PopError, Ring, Seen, slice_behind};
use crate::end::End;
use crate::event::{Light, Slept};
use crate::owner::OwnerId;
use crate::plain::Plain;
use crate::prim::{InPlace, pause};
use crate::trust::{Trusted, Untrusted};
use crate::wait::{Liveness, Wait};

/// The consumer's end. Dropping it closes the end: a producer that finds the ring full sees `Closed`.
///
/// `E` is what the end parks with, and what keeps the memory mapped.
#[derive(Debug)]
#[must_use = "dropping the end closes it"]
pub struct Consumer<'m, T: Plain, E: Wait + Liveness, K = Untrusted> {
    pub(super) ring: Ring<'m, T>,
    pub(super) env: E,
    pub(super) me: OwnerId,
    pub(super) light: Light,
    pub(super) position: u64,
    pub(super) trust: PhantomData<fn() -> K>,
}

impl<'m, T: Plain, E: Wait + Liveness, K> Consumer<'m, T, E, K> {
    /// Pops the oldest item, if there is one. Wait-free but for the wake of a sleeping producer (one system call).
    ///
    /// # Errors
    /// [`PopError::Empty`]; [`PopError::Closed`] once the ring is drained and its producer has ended;
    /// [`PopError::Forked`], [`PopError::Corrupt`]. A producer's death is not looked for: [`pop`](Self::pop) does.
    ///
    /// # Crash
    /// A process killed inside has popped the item, or leaves it to its successor.
    #[inline]
    pub fn try_pop(&mut self) -> Result<T, PopError> {
        self.alive()?;
        match self.ring.consumer_sees(self.position) {
            Seen::Mine => Ok(self.take()),
            seen => self.nothing(seen),
        }
    }

    /// Pops the oldest item, waiting for one as long as the producer lives.
    ///
    /// # Errors
    /// [`PopError::Closed`] or [`PopError::PeerDied`] once the ring is drained and nobody is left to fill it,
    /// [`PopError::Forked`], [`PopError::Corrupt`].
    ///
    /// # Crash
    /// As [`try_pop`](Self::try_pop). The producer's death is noticed within 10 ms.
    #[inline]
    pub fn pop(&mut self) -> Result<T, PopError> {
        loop {
            match self.try_pop() {
                Err(PopError::Empty) => self.wait_for_item(self.env.never())?,
                done => return done,
            }
        }
    }

    /// Pops the oldest item, waiting for one at most for `timeout`.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), and [`PopError::TimedOut`].
    #[inline]
    pub fn pop_timeout(&mut self, timeout: Duration) -> Result<T, PopError> {
        let mut deadline = None;
        loop {
            match self.try_pop() {
                Err(PopError::Empty) => {
                    self.wait_for_item(*deadline.get_or_insert_with(|| self.env.after(timeout)))?;
                }
                done => return done,
            }
        }
    }

    /// Pops up to `items.len()` items into `items`, in order, and wakes the producer once. Returns how many.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop), if `items` is not empty and nothing is there.
    ///
    /// # Crash
    /// A process killed inside leaves what it has not released to its successor.
    pub fn pop_slice(&mut self, items: &mut [T]) -> Result<usize, PopError> {
        self.alive()?;
        let wanted = items.len().min(self.ring.capacity as usize);
        if wanted == 0 {
            return Ok(0);
        }
        // The producer publishes in order: if the last slot of the batch is filled, so are those before it.
        let count = match self.ring.consumer_sees(self.position + wanted as u64 - 1) {
            Seen::Mine => wanted,
            _ => match self.filled_slots(wanted) {
                0 => {
                    // One may have come meanwhile, and is taken then.
                    items[0] = self.nothing(self.ring.consumer_sees(self.position))?;
                    return Ok(1);
                }
                count => count,
            },
        };
        for (position, item) in (self.position..).zip(&mut items[..count]) {
            *item = self.ring.read(position);
            self.ring.free(position);
        }
        self.position += count as u64;
        #[expect(clippy::cast_possible_truncation, reason = "at most the capacity, a u32")]
        self.ring.header().not_full.0.wake_after(self.light, count as u32, &self.env);
        Ok(count)
    }

    /// Whether a pop would find nothing now. May be stale at once: the producer may be pushing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.consumer_sees(self.position) != Seen::Mine
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.ring.capacity
    }

    /// Items popped through this end so far, by this process and those before it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the other end's word says now.
    #[must_use]
    pub fn peer(&self) -> End {
        self.ring.producer_end()
    }

    /// The same end, allowed to lend references into the ring.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned end lives.
    pub unsafe fn trust_peers(self) -> Consumer<'m, T, E, Trusted> {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment moves exactly once.
        let env = unsafe { core::ptr::read(&raw const this.env) };
        let Self { ring, me, light, position, .. } = *this;
        Consumer { ring, env, me, light, position, trust: PhantomData }
    }

    #[inline]
    fn alive(&self) -> Result<(), PopError> {
        if self.env.is_still(self.me) { Ok(()) } else { Err(PopError::Forked) }
    }

    /// The slot is filled: copy the item and free the slot.
    #[inline]
    fn take(&mut self) -> T {
        self.ring.ask_ahead(self.position);
        let item = self.ring.read(self.position);
        self.release();
        item
    }

    #[inline]
    fn release(&mut self) {
        self.ring.free(self.position);
        self.position += 1;
        self.ring.header().not_full.0.wake_after(self.light, 1, &self.env);
    }

    /// No item at the position: empty, drained for good, or corrupt; or an item that came in this moment.
    fn nothing(&mut self, seen: Seen) -> Result<T, PopError> {
        if seen == Seen::Nonsense {
            return Err(PopError::Corrupt);
        }
        if self.peer() != End::Closed {
            return Err(PopError::Empty);
        }
        // The producer may have pushed its last item and closed since the first look.
        match self.ring.consumer_sees(self.position) {
            Seen::Mine => Ok(self.take()),
            Seen::Theirs => Err(PopError::Closed),
            Seen::Nonsense => Err(PopError::Corrupt),
        }
    }

    fn filled_slots(&self, wanted: usize) -> usize {
        (self.position..).take(wanted).take_while(|p| self.ring.consumer_sees(*p) == Seen::Mine).count()
    }

    /// Waits until the slot at the position is no longer the producer's turn.
    #[cold]
    fn wait_for_item(&self, deadline: E::Deadline) -> Result<(), PopError> {
        let empty = || self.ring.consumer_sees(self.position) == Seen::Theirs;
        for _ in 0..self.env.spins() {
            if !empty() {
                return Ok(());
            }
            pause();
        }
        let end = &self.ring.header().ends.0.producer;
        let (mut slept, mut flips) = (false, 0);
        loop {
            let peer = end.peer();
            let gone = self.ring.gone(end, peer, slept, &self.env);
            // A peer that ended or died may have pushed as its last step, and its word was read before this look.
            if !empty() {
                return Ok(());
            }
            if let Some(gone) = gone {
                return Err(gone.into());
            }
            let ready = || !empty() || (flips < MAX_FLIPS && end.peer() != peer);
            let event = &self.ring.header().not_empty.0;
            match event.sleep_unless(self.ring.mode, slice_behind(peer), deadline, &self.env, ready) {
                Slept::Ready | Slept::Again => self.alive()?,
                Slept::Expired => {
                    let gone = self.ring.gone(end, end.peer(), true, &self.env).map_or(PopError::TimedOut, Into::into);
                    return if empty() { Err(gone) } else { Ok(()) };
                }
            }
            // An item comes before the probe of its producer, which costs a system call.
            if !empty() {
                return Ok(());
            }
            (slept, flips) = (true, flips + 1);
        }
    }
}

impl<'m, T: Plain, E: Wait + Liveness> Consumer<'m, T, E, Trusted> {
    /// Lends the oldest item in place. Dropping the guard pops it; [`Front::keep`] leaves it.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    ///
    /// # Crash
    /// A process killed while it holds the guard leaves the item to its successor.
    pub fn front(&mut self) -> Result<Front<'_, 'm, T, E>, PopError> {
        self.alive()?;
        match self.ring.consumer_sees(self.position) {
            Seen::Mine => {}
            Seen::Nonsense => return Err(PopError::Corrupt),
            Seen::Theirs if self.peer() != End::Closed => return Err(PopError::Empty),
            Seen::Theirs if self.ring.consumer_sees(self.position) == Seen::Mine => {}
            Seen::Theirs => return Err(PopError::Closed),
        }
        // SAFETY:
        // - the slot has room for a `T` at `PAYLOAD`, which is aligned for it, since slots are aligned to `STRIDE`;
        // - it is filled, so by the protocol, to which the peers keep (`trust_peers`), nobody else touches it until it
        //   is freed, and the guard borrows this end until then.
        let item = unsafe { InPlace::new(self.ring.payload(self.position)) };
        Ok(Front { consumer: self, item })
    }
}

impl<T: Plain, E: Wait + Liveness, K> Drop for Consumer<'_, T, E, K> {
    fn drop(&mut self) {
        if self.alive().is_ok() {
            self.ring.header().ends.0.consumer.close(self.me);
            self.ring.header().not_full.0.wake_after(self.light, 1, &self.env);
        }
    }
}

/// The oldest item of a ring, in place.
#[derive(Debug)]
#[must_use = "dropping the guard pops the item"]
pub struct Front<'a, 'm, T: Plain, E: Wait + Liveness> {
    consumer: &'a mut Consumer<'m, T, E, Trusted>,
    item: InPlace<T>,
}

impl<T: Plain, E: Wait + Liveness> Front<'_, '_, T, E> {
    /// Leaves the item in the ring.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<T: Plain, E: Wait + Liveness> Deref for Front<'_, '_, T, E> {
    type Target = T;
    fn deref(&self) -> &T {
        self.item.get()
    }
}

impl<T: Plain, E: Wait + Liveness> Drop for Front<'_, '_, T, E> {
    fn drop(&mut self) {
        // A fork child's copy is its parent's.
        if self.consumer.alive().is_ok() {
            self.consumer.release();
        }
    }
}

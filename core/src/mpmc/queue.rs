//! Items of a fixed type.

use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use super::claim::{Claimed, Seen};
use super::handle::{Handle, Patience};
use super::{Payload, PopError, PushError, Recovered, Ring, RingError};
use crate::owner::OwnerId;
use crate::plain::Plain;
use crate::prim::{InPlace, copy_in, copy_out};
use crate::trust::{Trust, Trusted, Untrusted};
use crate::wait::{Liveness, Wait};

/// A process's handle to a queue of `T`: threads share it by reference, processes have one each.
///
/// `E` is what it parks with and what says who is dead; it also keeps the memory mapped.
#[derive(Debug, Clone)]
pub struct Queue<'m, T, E, K = Untrusted> {
    handle: Handle<'m, E>,
    items: PhantomData<fn(T) -> T>,
    trust: PhantomData<fn() -> K>,
}

impl<'m, T: Plain, E: Wait + Liveness> Queue<'m, T, E> {
    /// A handle to `ring`.
    ///
    /// # Errors
    /// [`RingError::Payload`] if the slots of `ring` do not hold a `T`.
    pub fn new(ring: Ring<'m>, env: E) -> Result<Self, RingError> {
        let (first, stride) = Payload::of::<T>()?.words();
        if first > ring.payload || stride - first > ring.stride - ring.payload || first > 1 && ring.payload != first {
            return Err(RingError::Payload { len_bytes: size_of::<T>() as u64 });
        }
        Ok(Self { handle: Handle::new(ring, env), items: PhantomData, trust: PhantomData })
    }

    /// The same handle, allowed to lend references into the queue.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned handle, or a clone of it, lives.
    pub unsafe fn trust_peers(self) -> Queue<'m, T, E, Trusted> {
        // SAFETY: the caller's contract.
        unsafe { self.with_trust() }
    }

    /// The handle, lending if `K` is [`Trusted`]; for code that is generic over whom it trusts.
    ///
    /// # Safety
    /// If `K` is `Trusted`: as [`trust_peers`](Self::trust_peers).
    pub unsafe fn with_trust<K: Trust>(self) -> Queue<'m, T, E, K> {
        Queue { handle: self.handle, items: PhantomData, trust: PhantomData }
    }
}

impl<'m, T: Plain, E: Wait + Liveness, K> Queue<'m, T, E, K> {
    /// Slots of the queue.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.handle.ring.capacity()
    }

    /// Items that wait: see [`Ring::len`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.handle.ring.len()
    }

    /// Whether nothing waits: see [`Ring::is_empty`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handle.ring.is_empty()
    }

    /// Dead letters that wait to be taken: see [`Ring::dead_letters`].
    #[must_use]
    pub fn dead_letters(&self) -> usize {
        self.handle.ring.dead_letters()
    }

    /// Dead letters that were dropped: see [`Ring::dropped_letters`].
    #[must_use]
    pub fn dropped_letters(&self) -> u32 {
        self.handle.ring.dropped_letters()
    }

    /// Whether the queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.ring.is_closed()
    }

    /// Pushes an item if there is room. Lock-free; one system call if a consumer sleeps.
    ///
    /// # Errors
    /// [`PushError::Full`], which names who holds the slot that is next, if somebody does; [`PushError::Closed`],
    /// [`PushError::Forked`], [`PushError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside has pushed the item or has not. Not: its slot is `Busy` until somebody who waits, or who
    /// calls [`recover`](Self::recover), proves the death; then it is skipped.
    #[inline]
    pub fn try_push(&self, item: T) -> Result<(), PushError> {
        self.push_with(item, Patience::Try)
    }

    /// Pushes an item, waiting for room.
    ///
    /// Repairs what dead participants held when it meets them: within 10 ms of their death, and within 1 s if it fell
    /// asleep before they held anything.
    ///
    /// # Errors
    /// [`PushError::Closed`], [`PushError::Forked`], [`PushError::Corrupt`].
    ///
    /// # Crash
    /// As [`try_push`](Self::try_push).
    #[inline]
    pub fn push(&self, item: T) -> Result<(), PushError> {
        self.push_with(item, Patience::Forever)
    }

    /// Pushes an item, waiting for room at most for `timeout`.
    ///
    /// # Errors
    /// As [`push`](Self::push), and [`PushError::TimedOut`].
    #[inline]
    pub fn push_timeout(&self, item: T, timeout: Duration) -> Result<(), PushError> {
        self.push_with(item, Patience::Timeout(timeout))
    }

    /// Pushes as many of `items` as there is room for, in order, and wakes consumers once. Returns how many.
    ///
    /// Other producers' items may come between.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push), if nothing was pushed.
    ///
    /// # Crash
    /// A process killed inside has pushed a prefix; up to 16 slots behind that are `Busy` until recovered.
    pub fn push_slice(&self, items: &[T]) -> Result<usize, PushError> {
        let (ring, mut pushed) = (self.handle.ring, 0);
        while pushed < items.len() {
            match self.handle.claim_run_to_write(ring, items.len() - pushed) {
                Ok(run) => {
                    for (claimed, item) in run.claims(ring).zip(&items[pushed..]) {
                        Self::write(ring, claimed, item);
                    }
                    run.claims(ring).for_each(|claimed| ring.fill(claimed));
                    pushed += run.len();
                }
                Err(error) if pushed == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.handle.wake_consumers(u32::try_from(pushed).unwrap_or(u32::MAX));
        Ok(pushed)
    }

    /// Pops the oldest item, if there is one. Lock-free; one system call if a producer sleeps.
    ///
    /// # Errors
    /// [`PopError::Empty`]; [`PopError::Busy`] if the oldest item is still being written; [`PopError::Closed`],
    /// [`PopError::Forked`], [`PopError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside has popped the item, or it is delivered again after somebody has proven the death.
    #[inline]
    pub fn try_pop(&self) -> Result<T, PopError> {
        self.pop_with(Patience::Try)
    }

    /// As [`try_pop`](Self::try_pop), but takes an item behind one that is still being written: out of turn rather than
    /// not at all. Items of one producer may then overtake each other.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    pub fn try_pop_skip_busy(&self) -> Result<T, PopError> {
        self.pop_with(Patience::TrySkippingBusy)
    }

    /// Pops the oldest item, waiting for one.
    ///
    /// Repairs what dead participants held when it meets them: within 10 ms of their death; within 1 s if it fell asleep
    /// before they held anything, but for items that were [taken](Self::take) to be kept: who takes one wakes somebody
    /// to look after it.
    ///
    /// # Errors
    /// [`PopError::Closed`] once the queue is closed and drained, [`PopError::Forked`], [`PopError::Corrupt`].
    ///
    /// # Crash
    /// As [`try_pop`](Self::try_pop).
    #[inline]
    pub fn pop(&self) -> Result<T, PopError> {
        self.pop_with(Patience::Forever)
    }

    /// Pops the oldest item, waiting for one at most for `timeout`.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), and [`PopError::TimedOut`].
    #[inline]
    pub fn pop_timeout(&self, timeout: Duration) -> Result<T, PopError> {
        self.pop_with(Patience::Timeout(timeout))
    }

    /// Pops up to `items.len()` items, and wakes producers once. Returns how many.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop), if nothing was popped.
    ///
    /// # Crash
    /// What a process killed inside had copied and not released is delivered again.
    pub fn pop_slice(&self, items: &mut [T]) -> Result<usize, PopError> {
        let (ring, mut popped) = (self.handle.ring, 0);
        while popped < items.len() {
            match self.handle.claim_run_to_read(ring, items.len() - popped) {
                Ok(run) => {
                    for (claimed, item) in run.claims(ring).zip(&mut items[popped..]) {
                        *item = Self::read(ring, claimed);
                    }
                    run.claims(ring).for_each(|claimed| ring.free(claimed));
                    popped += run.len();
                }
                Err(error) if popped == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.handle.done_reading(u32::try_from(popped).unwrap_or(u32::MAX));
        Ok(popped)
    }

    /// Takes the oldest item and keeps its slot until the delivery is acknowledged, so that it is delivered again if
    /// this process dies before. Waits for an item. One system call if other consumers sleep and nobody yet looks after
    /// what is kept.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn take(&self) -> Result<Delivery<'_, 'm, T, E, K>, PopError> {
        self.take_with(Patience::Forever)
    }

    /// As [`take`](Self::take), without waiting.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    pub fn try_take(&self) -> Result<Delivery<'_, 'm, T, E, K>, PopError> {
        self.take_with(Patience::Try)
    }

    /// As [`take`](Self::take), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`pop_timeout`](Self::pop_timeout).
    pub fn take_timeout(&self, timeout: Duration) -> Result<Delivery<'_, 'm, T, E, K>, PopError> {
        self.take_with(Patience::Timeout(timeout))
    }

    /// The dead letters: items that were delivered as often as the queue allows, in the order of their slots. Each is
    /// this process's while its delivery lives: [`ack`](Delivery::ack) takes the letter out, and a drop leaves it where it
    /// is. Does not block; reads every slot.
    ///
    /// # Errors
    /// [`PopError::Forked`].
    ///
    /// # Crash
    /// A process killed inside leaves the letter where it is, once its death is proven.
    pub fn letters(&self) -> Result<impl Iterator<Item = Delivery<'_, 'm, T, E, K>>, PopError> {
        let me = self.handle.env.me().ok_or(PopError::Forked)?;
        let claims = self.handle.ring.claim_letters(me, &self.handle.env);
        Ok(claims.map(|claimed| Delivery { item: Self::read(self.handle.ring, claimed), queue: self, claimed }))
    }

    /// Takes a dead letter out. `None`: there is none.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    ///
    /// # Crash
    /// As [`letters`](Self::letters).
    pub fn take_dead_letter(&self) -> Result<Option<T>, PopError> {
        Ok(self.letters()?.next().map(Delivery::ack))
    }

    /// Repairs what `owner` held, if it is proven dead, and wakes everybody. Waiting calls do this by themselves; a
    /// parent that sees its child die calls it to be faster. Reads every slot.
    ///
    /// # Crash
    /// A process killed inside leaves the rest to the next who calls.
    pub fn recover(&self, owner: OwnerId) -> Recovered {
        self.handle.ring.recover(owner, &self.handle.env)
    }

    /// Closes the queue: see [`Ring::close`].
    pub fn close(&self) {
        self.handle.ring.close(&self.handle.env);
    }

    #[inline]
    fn push_with(&self, item: T, patience: Patience) -> Result<(), PushError> {
        let ring = self.handle.ring;
        match self.handle.claim_to_write_at_once(ring) {
            Ok(claimed) => {
                self.fill(ring, claimed, &item);
                Ok(())
            }
            Err(seen) => self.push_slow(item, seen, patience),
        }
    }

    #[cold]
    fn push_slow(&self, item: T, seen: Option<Seen>, patience: Patience) -> Result<(), PushError> {
        let claimed = self.handle.claim_to_write_slow(seen, patience)?;
        self.fill(self.handle.ring, claimed, &item);
        Ok(())
    }

    #[inline]
    fn pop_with(&self, patience: Patience) -> Result<T, PopError> {
        let ring = self.handle.ring;
        match self.handle.claim_to_read_at_once(ring) {
            Ok(claimed) => Ok(self.finish(ring, claimed)),
            Err(seen) => self.pop_slow(seen, patience),
        }
    }

    #[cold]
    fn pop_slow(&self, seen: Option<Seen>, patience: Patience) -> Result<T, PopError> {
        let claimed = self.handle.claim_to_read_slow(seen, patience)?;
        Ok(self.finish(self.handle.ring, claimed))
    }

    fn take_with(&self, patience: Patience) -> Result<Delivery<'_, 'm, T, E, K>, PopError> {
        let claimed = self.handle.claim_to_keep(patience)?;
        Ok(Delivery { item: Self::read(self.handle.ring, claimed), queue: self, claimed })
    }

    #[inline]
    fn fill(&self, ring: Ring<'m>, claimed: Claimed, item: &T) {
        Self::write(ring, claimed, item);
        ring.fill(claimed);
        self.handle.wake_consumers(1);
    }

    #[inline]
    fn finish(&self, ring: Ring<'m>, claimed: Claimed) -> T {
        let item = Self::read(ring, claimed);
        ring.free(claimed);
        self.handle.done_reading(1);
        item
    }

    #[inline]
    fn write(ring: Ring<'m>, claimed: Claimed, item: &T) {
        // SAFETY: `item` is private, and `new` checked that a slot of a handle's ring has room for a `T` rounded up to words.
        unsafe { copy_in(ring.payload(claimed.slot), core::ptr::from_ref(item).cast(), size_of::<T>()) };
    }

    #[inline]
    fn read(ring: Ring<'m>, claimed: Claimed) -> T {
        let mut item = MaybeUninit::<T>::uninit();
        // SAFETY: `item` is private, and `new` checked that a slot of a handle's ring has room for a `T` rounded up to words.
        unsafe { copy_out(item.as_mut_ptr().cast(), ring.payload(claimed.slot), size_of::<T>()) };
        // SAFETY: all bytes were written, and every bit pattern is a `T` because `T` is `Plain`.
        unsafe { item.assume_init() }
    }
}

impl<'m, T: Plain, E: Wait + Liveness> Queue<'m, T, E, Trusted> {
    /// Claims the next slot, to be filled in place and committed. Waits for room.
    ///
    /// The slot holds what an earlier item left there. Until the claim ends consumers find the queue `Busy` here.
    /// Dropping it, also in a panic, pushes nothing: the slot is skipped. Forgetting it keeps the queue busy until
    /// this process ends.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    ///
    /// # Crash
    /// A process killed while it holds the claim has pushed nothing; the slot is skipped once its death is proven.
    pub fn reserve(&self) -> Result<Reservation<'_, 'm, T, E>, PushError> {
        self.reserve_with(Patience::Forever)
    }

    /// As [`reserve`](Self::reserve), without waiting.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    pub fn try_reserve(&self) -> Result<Reservation<'_, 'm, T, E>, PushError> {
        self.reserve_with(Patience::Try)
    }

    fn reserve_with(&self, patience: Patience) -> Result<Reservation<'_, 'm, T, E>, PushError> {
        let claimed = self.handle.claim_to_write(patience)?;
        // SAFETY:
        // - `new` checked that a slot has room for a `T`, aligned for it;
        // - the slot is WRITING and ours, so by the protocol, to which the peers keep (`trust_peers`), nobody else
        //   touches it until the claim ends, which this value does.
        let item = unsafe { InPlace::new(self.handle.ring.payload(claimed.slot)) };
        Ok(Reservation { queue: self, claimed, item })
    }
}

/// An item that was taken and not yet acknowledged.
///
/// Dropping it without [`ack`](Self::ack), also in a panic, gives the item back to be delivered again, or makes it a
/// dead letter after as many deliveries as the queue allows. Forgetting it keeps the slot until this process ends.
#[derive(Debug)]
#[must_use = "dropping a delivery gives the item back"]
pub struct Delivery<'a, 'm, T: Plain, E: Wait + Liveness, K = Untrusted> {
    queue: &'a Queue<'m, T, E, K>,
    claimed: Claimed,
    item: T,
}

impl<T: Plain, E: Wait + Liveness, K> Delivery<'_, '_, T, E, K> {
    /// Earlier deliveries of this item, whose consumers died or gave it back: 0..=6, of a dead letter 1..=7.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.claimed.attempts
    }

    /// Done: the slot is free. Returns the item. In a child of a raw `fork()` the slot stays the parent's.
    pub fn ack(self) -> T {
        let this = ManuallyDrop::new(self);
        this.queue.handle.ack(this.claimed);
        this.item
    }
}

impl<T: Plain, E: Wait + Liveness, K> Deref for Delivery<'_, '_, T, E, K> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T: Plain, E: Wait + Liveness, K> Drop for Delivery<'_, '_, T, E, K> {
    fn drop(&mut self) {
        self.queue.handle.give_back(self.claimed);
    }
}

/// A claimed slot, to be filled in place.
#[derive(Debug)]
#[must_use = "dropping a reservation pushes nothing"]
pub struct Reservation<'a, 'm, T: Plain, E: Wait + Liveness> {
    queue: &'a Queue<'m, T, E, Trusted>,
    claimed: Claimed,
    item: InPlace<T>,
}

impl<T: Plain, E: Wait + Liveness> Reservation<'_, '_, T, E> {
    /// Pushes what the slot holds. In a child of a raw `fork()` the claim stays the parent's, and nothing is pushed.
    pub fn commit(self) {
        let mut this = ManuallyDrop::new(self);
        this.item.write_back();
        this.queue.handle.commit(this.claimed);
    }
}

impl<T: Plain, E: Wait + Liveness> Deref for Reservation<'_, '_, T, E> {
    type Target = T;
    fn deref(&self) -> &T {
        self.item.get()
    }
}

impl<T: Plain, E: Wait + Liveness> DerefMut for Reservation<'_, '_, T, E> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.get_mut()
    }
}

impl<T: Plain, E: Wait + Liveness> Drop for Reservation<'_, '_, T, E> {
    fn drop(&mut self) {
        self.queue.handle.abandon(self.claimed);
    }
}

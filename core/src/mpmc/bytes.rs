//! Messages of bytes, up to a length that the queue states. Each slot has storage for the longest, so a message lies in
//! the queue's own memory and outlives its sender; there is no allocator to repair.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::time::Duration;

use super::claim::Claimed;
use super::handle::{Handle, Patience};
use super::{Payload, PopError, PushError, Recovered, Ring, RingError};
use crate::owner::OwnerId;
use crate::prim::{Ordering, Word, copy_in, copy_out};
use crate::wait::{Liveness, Wait};

/// A process's handle to a queue of byte messages: threads share it by reference, processes have one each.
#[derive(Debug, Clone)]
pub struct Bytes<'m, E> {
    handle: Handle<'m, E>,
    max_len_bytes: u32,
}

/// Bytes of the length word before each message.
const LENGTH_BYTES: u32 = 8;

impl Bytes<'_, ()> {
    /// The payload of a slot for messages of up to `max_len_bytes`: a length word and the bytes.
    ///
    /// # Errors
    /// [`RingError::Payload`] if that is too long for a slot.
    pub fn payload(max_len_bytes: u32) -> Result<Payload, RingError> {
        match max_len_bytes.checked_add(LENGTH_BYTES) {
            Some(len_bytes @ ..=super::MAX_PAYLOAD_BYTES) => Ok(Payload { len_bytes, align: LENGTH_BYTES }),
            _ => Err(RingError::Payload { len_bytes: u64::from(max_len_bytes) + u64::from(LENGTH_BYTES) }),
        }
    }
}

impl<'m, E: Wait + Liveness> Bytes<'m, E> {
    /// A handle to `ring`, whose messages have at most `max_len_bytes`.
    ///
    /// # Errors
    /// [`RingError::Payload`] if the slots of `ring` do not hold that much.
    pub fn new(ring: Ring<'m>, max_len_bytes: u32, env: E) -> Result<Self, RingError> {
        let (_, stride) = Bytes::payload(max_len_bytes)?.words();
        if stride - 1 > ring.stride - ring.payload {
            return Err(RingError::Payload { len_bytes: u64::from(max_len_bytes) });
        }
        Ok(Self { handle: Handle { ring, env }, max_len_bytes })
    }

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

    /// The longest message, in bytes.
    #[must_use]
    pub fn max_len_bytes(&self) -> usize {
        self.max_len_bytes as usize
    }

    /// Pushes a message if there is room. Lock-free; one system call if a consumer sleeps.
    ///
    /// # Errors
    /// [`PushError::TooLong`]; else as [`Queue::try_push`](super::Queue::try_push).
    ///
    /// # Crash
    /// As [`Queue::try_push`](super::Queue::try_push).
    pub fn try_push(&self, message: &[u8]) -> Result<(), PushError> {
        self.push_with(message, Patience::Try)
    }

    /// Pushes a message, waiting for room.
    ///
    /// # Errors
    /// [`PushError::TooLong`]; else as [`Queue::push`](super::Queue::push).
    pub fn push(&self, message: &[u8]) -> Result<(), PushError> {
        self.push_with(message, Patience::Forever)
    }

    /// Pushes a message, waiting for room at most for `timeout`.
    ///
    /// # Errors
    /// [`PushError::TooLong`]; else as [`Queue::push_timeout`](super::Queue::push_timeout).
    pub fn push_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PushError> {
        self.push_with(message, Patience::Timeout(timeout))
    }

    /// Pops the oldest message into `buffer` and returns its length. A message that does not fit is put back, to be the
    /// next that somebody gets.
    ///
    /// # Errors
    /// [`PopError::BufferTooShort`]; else as [`Queue::try_pop`](super::Queue::try_pop).
    pub fn try_pop_into(&self, buffer: &mut [u8]) -> Result<usize, PopError> {
        self.pop_with(buffer, Patience::Try)
    }

    /// As [`try_pop_into`](Self::try_pop_into), waiting for a message.
    ///
    /// # Errors
    /// [`PopError::BufferTooShort`]; else as [`Queue::pop`](super::Queue::pop).
    pub fn pop_into(&self, buffer: &mut [u8]) -> Result<usize, PopError> {
        self.pop_with(buffer, Patience::Forever)
    }

    /// As [`try_pop_into`](Self::try_pop_into), waiting for a message at most for `timeout`.
    ///
    /// # Errors
    /// [`PopError::BufferTooShort`]; else as [`Queue::pop_timeout`](super::Queue::pop_timeout).
    pub fn pop_into_timeout(&self, buffer: &mut [u8], timeout: Duration) -> Result<usize, PopError> {
        self.pop_with(buffer, Patience::Timeout(timeout))
    }

    /// As [`try_pop_into`](Self::try_pop_into), but takes a message behind one that is still being written.
    ///
    /// # Errors
    /// As [`try_pop_into`](Self::try_pop_into).
    pub fn try_pop_skip_busy_into(&self, buffer: &mut [u8]) -> Result<usize, PopError> {
        self.pop_with(buffer, Patience::TrySkippingBusy)
    }

    /// Takes the oldest message and keeps its slot until the delivery is acknowledged. Waits for a message.
    ///
    /// # Errors
    /// As [`Queue::pop`](super::Queue::pop).
    pub fn take(&self) -> Result<BytesDelivery<'_, 'm, E>, PopError> {
        self.take_with(Patience::Forever)
    }

    /// As [`take`](Self::take), without waiting.
    ///
    /// # Errors
    /// As [`Queue::try_pop`](super::Queue::try_pop).
    pub fn try_take(&self) -> Result<BytesDelivery<'_, 'm, E>, PopError> {
        self.take_with(Patience::Try)
    }

    /// As [`take`](Self::take), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Queue::pop_timeout`](super::Queue::pop_timeout).
    pub fn take_timeout(&self, timeout: Duration) -> Result<BytesDelivery<'_, 'm, E>, PopError> {
        self.take_with(Patience::Timeout(timeout))
    }

    /// The dead letters: see [`Queue::letters`](super::Queue::letters).
    ///
    /// # Errors
    /// [`PopError::Forked`].
    pub fn letters(&self) -> Result<impl Iterator<Item = BytesDelivery<'_, 'm, E>>, PopError> {
        let me = self.handle.env.me().ok_or(PopError::Forked)?;
        Ok(self.handle.ring.claim_letters(me).map(|claimed| self.delivery(claimed)))
    }

    /// Repairs what `owner` held, if it is proven dead: see [`Queue::recover`](super::Queue::recover).
    pub fn recover(&self, owner: OwnerId) -> Recovered {
        self.handle.ring.recover(owner, &self.handle.env)
    }

    /// Closes the queue: see [`Ring::close`].
    pub fn close(&self) {
        self.handle.ring.close(&self.handle.env);
    }

    fn push_with(&self, message: &[u8], patience: Patience) -> Result<(), PushError> {
        if message.len() > self.max_len_bytes() {
            return Err(PushError::TooLong { len: message.len(), max: self.max_len_bytes() });
        }
        let claimed = self.handle.claim_to_write(patience)?;
        // ORDERING: Relaxed. Published, like the bytes, by the slot's word.
        self.length(claimed).store(message.len() as u64, Ordering::Relaxed);
        // SAFETY: `message` is private, and `new` checked that a slot has room for a length word and the longest message.
        unsafe { copy_in(self.storage(claimed), message.as_ptr(), message.len()) };
        self.handle.ring.fill(claimed);
        self.handle.wake_consumers(1);
        Ok(())
    }

    fn pop_with(&self, buffer: &mut [u8], patience: Patience) -> Result<usize, PopError> {
        let delivery = self.take_with(patience)?;
        let needed = delivery.len_bytes();
        if let Some(room) = buffer.get_mut(..needed) {
            delivery.copy_to(room);
            delivery.ack();
            return Ok(needed);
        }
        let delivery = ManuallyDrop::new(delivery);
        self.handle.ring.put_back(delivery.claimed, &self.handle.env);
        Err(PopError::BufferTooShort { needed })
    }

    fn take_with(&self, patience: Patience) -> Result<BytesDelivery<'_, 'm, E>, PopError> {
        Ok(self.delivery(self.handle.claim_to_read(patience)?))
    }

    fn delivery(&self, claimed: Claimed) -> BytesDelivery<'_, 'm, E> {
        // ORDERING: Relaxed. Ordered by the claim. Clamped, whatever a peer wrote.
        let len = self.length(claimed).load(Ordering::Relaxed).min(u64::from(self.max_len_bytes));
        #[expect(clippy::cast_possible_truncation, reason = "at most `max_len_bytes`, a u32")]
        let len_bytes = len as usize;
        BytesDelivery { queue: self, claimed, len_bytes }
    }

    fn length(&self, claimed: Claimed) -> &'m Word {
        // SAFETY: the first word of the payload, valid for 'm.
        unsafe { self.handle.ring.payload(claimed.position).as_ref() }
    }

    fn storage(&self, claimed: Claimed) -> NonNull<Word> {
        // SAFETY: `new` checked that the payload is longer than its length word, or the message has no bytes.
        unsafe { self.handle.ring.payload(claimed.position).add(1) }
    }
}

/// A message that was taken and not yet acknowledged.
///
/// Dropping it without [`ack`](Self::ack), also in a panic, gives the message back to be delivered again, or makes it a
/// dead letter after as many deliveries as the queue allows.
#[derive(Debug)]
#[must_use = "dropping a delivery gives the message back"]
pub struct BytesDelivery<'a, 'm, E: Wait + Liveness> {
    queue: &'a Bytes<'m, E>,
    claimed: Claimed,
    len_bytes: usize,
}

impl<E: Wait + Liveness> BytesDelivery<'_, '_, E> {
    /// The message's length, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Earlier deliveries of this message, 0..=6.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.claimed.attempts
    }

    /// Copies the first `out.len()` bytes of the message.
    ///
    /// # Panics
    /// If `out` is longer than the message.
    pub fn copy_to(&self, out: &mut [u8]) {
        assert!(out.len() <= self.len_bytes, "{} bytes of a message of {}", out.len(), self.len_bytes);
        // SAFETY: `out` is private and no longer than the message, which is no longer than the slot's storage.
        unsafe { copy_out(out.as_mut_ptr(), self.queue.storage(self.claimed), out.len()) };
    }

    /// Done: the slot is free.
    pub fn ack(self) {
        let this = ManuallyDrop::new(self);
        this.queue.handle.ring.free(this.claimed);
        this.queue.handle.wake_producers(1);
    }
}

impl<E: Wait + Liveness> Drop for BytesDelivery<'_, '_, E> {
    fn drop(&mut self) {
        // A fork child's copy is the parent's.
        if self.queue.handle.env.me().is_some() {
            self.queue.handle.ring.give_back(self.claimed, &self.queue.handle.env);
        }
    }
}

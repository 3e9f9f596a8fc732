//! Messages of bytes, up to a length that the queue states. Each slot has storage for the longest, so a message lies in
//! the queue's own memory and outlives its sender; there is no allocator to repair.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::time::Duration;

use super::claim::Claimed;
use super::handle::{Handle, Patience};
use super::{Payload, PopError, PushError, Recovered, Ring, RingError};
use crate::owner::OwnerId;
use crate::prim::{Ordering, Word, copy_in, copy_out};
use crate::trust::{Trust, Trusted, Untrusted};
use crate::wait::{Liveness, Wait};

/// A process's handle to a queue of byte messages: threads share it by reference, processes have one each.
#[derive(Debug, Clone)]
pub struct Bytes<'m, E, K = Untrusted> {
    pub(super) handle: Handle<'m, E>,
    max_len_bytes: u32,
    trust: PhantomData<fn() -> K>,
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
        Ok(Self { handle: Handle::new(ring, env), max_len_bytes, trust: PhantomData })
    }

    /// The same handle, allowed to lend references into the queue.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned handle, or a clone of it, lives.
    pub unsafe fn trust_peers(self) -> Bytes<'m, E, Trusted> {
        // SAFETY: the caller's contract.
        unsafe { self.with_trust() }
    }

    /// The handle, lending if `K` is [`Trusted`]; for code that is generic over whom it trusts.
    ///
    /// # Safety
    /// If `K` is `Trusted`: as [`trust_peers`](Self::trust_peers).
    pub unsafe fn with_trust<K: Trust>(self) -> Bytes<'m, E, K> {
        Bytes { handle: self.handle, max_len_bytes: self.max_len_bytes, trust: PhantomData }
    }
}

impl<'m, E: Wait + Liveness, K> Bytes<'m, E, K> {
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
    pub fn take(&self) -> Result<BytesDelivery<'_, 'm, E, K>, PopError> {
        self.take_with(Patience::Forever)
    }

    /// As [`take`](Self::take), without waiting.
    ///
    /// # Errors
    /// As [`Queue::try_pop`](super::Queue::try_pop).
    pub fn try_take(&self) -> Result<BytesDelivery<'_, 'm, E, K>, PopError> {
        self.take_with(Patience::Try)
    }

    /// As [`try_take`](Self::try_take), but takes a message behind one that is still being written.
    ///
    /// # Errors
    /// As [`try_take`](Self::try_take).
    pub fn try_take_skip_busy(&self) -> Result<BytesDelivery<'_, 'm, E, K>, PopError> {
        self.take_with(Patience::TrySkippingBusy)
    }

    /// As [`take`](Self::take), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Queue::pop_timeout`](super::Queue::pop_timeout).
    pub fn take_timeout(&self, timeout: Duration) -> Result<BytesDelivery<'_, 'm, E, K>, PopError> {
        self.take_with(Patience::Timeout(timeout))
    }

    /// The dead letters: see [`Queue::letters`](super::Queue::letters).
    ///
    /// # Errors
    /// [`PopError::Forked`].
    pub fn letters(&self) -> Result<impl Iterator<Item = BytesDelivery<'_, 'm, E, K>>, PopError> {
        let me = self.handle.env.me().ok_or(PopError::Forked)?;
        Ok(self.handle.ring.claim_letters(me, &self.handle.env).map(|claimed| self.delivery(claimed)))
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
        self.check(message.len())?;
        let claimed = self.handle.claim_to_write(patience)?;
        // SAFETY: `message` is private, and `new` checked that a slot has room for a length word and the longest message.
        unsafe { copy_in(self.storage(claimed), message.as_ptr(), message.len()) };
        self.finish(claimed, message.len());
        Ok(())
    }

    fn check(&self, len: usize) -> Result<(), PushError> {
        let max = self.max_len_bytes();
        if len > max { Err(PushError::TooLong { len, max }) } else { Ok(()) }
    }

    fn finish(&self, claimed: Claimed, len_bytes: usize) {
        // ORDERING: Relaxed. Published, like the bytes, by the slot's word.
        self.length(claimed).store(len_bytes as u64, Ordering::Relaxed);
        self.handle.commit(claimed);
    }

    fn pop_with(&self, buffer: &mut [u8], patience: Patience) -> Result<usize, PopError> {
        let delivery = self.delivery(self.handle.claim_to_read(patience)?);
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

    fn take_with(&self, patience: Patience) -> Result<BytesDelivery<'_, 'm, E, K>, PopError> {
        Ok(self.delivery(self.handle.claim_to_keep(patience)?))
    }

    fn delivery(&self, claimed: Claimed) -> BytesDelivery<'_, 'm, E, K> {
        // ORDERING: Relaxed. Ordered by the claim. Clamped, whatever a peer wrote.
        let len = self.length(claimed).load(Ordering::Relaxed).min(u64::from(self.max_len_bytes));
        #[expect(clippy::cast_possible_truncation, reason = "at most `max_len_bytes`, a u32")]
        let len_bytes = len as usize;
        BytesDelivery { queue: self, claimed, len_bytes }
    }

    fn length(&self, claimed: Claimed) -> &'m Word {
        // SAFETY: the first word of the payload, valid for 'm.
        unsafe { self.handle.ring.payload(claimed.slot).as_ref() }
    }

    fn storage(&self, claimed: Claimed) -> NonNull<Word> {
        // SAFETY: `new` checked that the payload is longer than its length word, or the message has no bytes.
        unsafe { self.handle.ring.payload(claimed.slot).add(1) }
    }
}

/// A message that was taken and not yet acknowledged.
///
/// Dropping it without [`ack`](Self::ack), also in a panic, gives the message back to be delivered again, or makes it a
/// dead letter after as many deliveries as the queue allows.
#[derive(Debug)]
#[must_use = "dropping a delivery gives the message back"]
pub struct BytesDelivery<'a, 'm, E: Wait + Liveness, K = Untrusted> {
    pub(super) queue: &'a Bytes<'m, E, K>,
    pub(super) claimed: Claimed,
    pub(super) len_bytes: usize,
}

impl<E: Wait + Liveness, K> BytesDelivery<'_, '_, E, K> {
    /// The message's length, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Earlier deliveries of this message: 0..=6, of a dead letter 1..=7.
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

    /// Done: the slot is free. In a child of a raw `fork()` the slot stays the parent's.
    pub fn ack(self) {
        let this = ManuallyDrop::new(self);
        this.queue.handle.ack(this.claimed);
    }
}

#[cfg(not(crosslane_loom))]
impl<E: Wait + Liveness> BytesDelivery<'_, '_, E, Trusted> {
    /// The message in place.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        let bytes = NonNull::slice_from_raw_parts(self.queue.storage(self.claimed).cast(), self.len_bytes);
        // SAFETY:
        // - inside the slot's storage, whose words are initialised and valid for `'m`;
        // - the slot is READING and ours while `self` lives, so the peers, which `trust_peers` vouches for, do not write.
        unsafe { bytes.as_ref() }
    }
}

impl<E: Wait + Liveness, K> Drop for BytesDelivery<'_, '_, E, K> {
    fn drop(&mut self) {
        self.queue.handle.give_back(self.claimed);
    }
}

impl<'m, E: Wait + Liveness> Bytes<'m, E, Trusted> {
    /// Claims the next slot, for a message of `len_bytes` that is written in place and committed. Waits for room.
    ///
    /// The room holds what earlier messages left there. Until the claim ends consumers find the queue `Busy` here.
    /// Dropping it, also in a panic, pushes nothing: the slot is skipped.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    ///
    /// # Crash
    /// A process killed while it holds the claim has pushed nothing; the slot is skipped once its death is proven.
    pub fn reserve(&self, len_bytes: usize) -> Result<BytesReservation<'_, 'm, E>, PushError> {
        self.reserve_with(len_bytes, Patience::Forever)
    }

    /// As [`reserve`](Self::reserve), without waiting.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    pub fn try_reserve(&self, len_bytes: usize) -> Result<BytesReservation<'_, 'm, E>, PushError> {
        self.reserve_with(len_bytes, Patience::Try)
    }

    fn reserve_with(&self, len_bytes: usize, patience: Patience) -> Result<BytesReservation<'_, 'm, E>, PushError> {
        self.check(len_bytes)?;
        Ok(BytesReservation { queue: self, claimed: self.handle.claim_to_write(patience)?, len_bytes })
    }
}

/// Room for a message, to be written in place.
#[derive(Debug)]
#[must_use = "dropping a reservation pushes nothing"]
pub struct BytesReservation<'a, 'm, E: Wait + Liveness> {
    queue: &'a Bytes<'m, E, Trusted>,
    claimed: Claimed,
    len_bytes: usize,
}

impl<E: Wait + Liveness> BytesReservation<'_, '_, E> {
    /// The room in place.
    #[cfg(not(crosslane_loom))]
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let mut bytes = NonNull::slice_from_raw_parts(self.queue.storage(self.claimed).cast(), self.len_bytes);
        // SAFETY:
        // - inside the slot's storage, whose words are initialised and valid for `'m`;
        // - the slot is WRITING and ours while `self` lives, so the peers, which `trust_peers` vouches for, stay away,
        //   and `self` is borrowed for as long as the slice lives.
        unsafe { bytes.as_mut() }
    }

    /// Pushes the message. In a child of a raw `fork()` the claim stays the parent's, and nothing is pushed.
    pub fn commit(self) {
        let this = ManuallyDrop::new(self);
        this.queue.finish(this.claimed, this.len_bytes);
    }
}

impl<E: Wait + Liveness> Drop for BytesReservation<'_, '_, E> {
    fn drop(&mut self) {
        self.queue.handle.abandon(self.claimed);
    }
}

//! What the kinds of queue have in common: values in the slots of a [`Messages`], encoded by their caller and decoded where
//! they lie.
//!
//! A value is encoded into memory of this thread before a slot is claimed: an encoding error leaves the queue as it was,
//! and nobody waits behind a value that takes long to encode. A value that *is* its bytes is copied from where it is.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crosslane_core::mpmc::HeldMessage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::place::Placed;
use crate::shm::messages::Delivery;
use crate::shm::{Messages, Options};
use crate::wire::{self, Portable};
use crate::{CreateError, Trusted, blob};

use super::{PopError, PushError, PutError};

/// The longest message, in bytes, of a queue of values that own memory (a `String`, a `Vec`), unless it is stated.
pub(super) const DEFAULT_MAX_BYTES: u32 = 16 << 10;

/// What a slot holds beside the message, in bytes: its word, and the message's length.
const SLOT_OVERHEAD_BYTES: usize = 16;
/// Slots of small messages are whole cache lines, in bytes.
const LINE_BYTES: usize = 64;
/// What the encoding of a value that owns no memory may add to twice its size: tags, lengths, texts of dates.
const SPARE_BYTES: usize = 32;

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    Try,
    Timeout(Duration),
    Forever,
}

/// A queue's messages, as values.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(super) struct Channel<T> {
    messages: Placed<Messages<Trusted>>,
    #[serde(skip)]
    item: PhantomData<fn(T) -> T>,
}

impl<T: Portable> Channel<T> {
    pub(super) fn new(items: usize, max_bytes: u32) -> Result<Self> {
        let slots = match u32::try_from(items).ok().filter(|items| *items > 0).and_then(u32::checked_next_power_of_two)
        {
            Some(slots) => slots.max(2),
            None => {
                let slots = u32::try_from(items).unwrap_or(u32::MAX);
                return Err(CreateError::Queue(crosslane_core::mpmc::RingError::Capacity { slots }).into());
            }
        };
        let messages = Messages::anonymous(slots, max_bytes, &Options::new())?;
        Ok(Self { messages: Placed::new(messages), item: PhantomData })
    }

    /// How long the encoding of a `T` may be, if nobody states it: for one that owns no memory enough, and as little.
    pub(super) fn default_max_bytes() -> u32 {
        if std::mem::needs_drop::<T>() {
            return DEFAULT_MAX_BYTES;
        }
        let slot = (2 * size_of::<T>() + SPARE_BYTES + SLOT_OVERHEAD_BYTES).next_multiple_of(LINE_BYTES);
        u32::try_from(slot - SLOT_OVERHEAD_BYTES).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn put(&self, value: T, patience: Patience) -> Result<(), PutError<T>> {
        self.put_ref(&value, patience).map_err(|error| PutError { value, error })
    }

    #[inline]
    pub(super) fn put_ref(&self, value: &T, patience: Patience) -> Result<()> {
        if let Some(bytes) = blob::as_raw(value) {
            return self.push(bytes, patience);
        }
        let mut small = [0; wire::SMALL_BYTES];
        match wire::pack_small(value, &mut small) {
            Some(len) => self.push(&small[..len], patience),
            None => self.encode_and_push(value, patience),
        }
    }

    fn encode_and_push(&self, value: &T, patience: Patience) -> Result<()> {
        let mut scratch = wire::Scratch::take();
        wire::pack_for_queue(value, &mut scratch.0)?;
        self.push(&scratch.0, patience)
    }

    #[inline]
    fn push(&self, bytes: &[u8], patience: Patience) -> Result<()> {
        let pushed = match patience {
            Patience::Try => self.messages.try_push(bytes),
            Patience::Timeout(timeout) => self.messages.push_timeout(bytes, timeout),
            Patience::Forever => self.messages.push(bytes),
        };
        pushed.map_err(Error::from)
    }

    #[inline]
    pub(super) fn take(&self, patience: Patience) -> Result<Delivery<'_, Trusted>> {
        let taken = match patience {
            Patience::Try => self.messages.try_take_skip_busy(),
            Patience::Timeout(timeout) => self.messages.take_timeout(timeout),
            Patience::Forever => self.messages.take(),
        };
        taken.map_err(Error::from)
    }

    #[inline]
    pub(super) fn get(&self, patience: Patience) -> Result<T> {
        self.get_by(patience, wire::unpack_plain)
    }

    pub(super) fn get_into(&self, value: &mut T, patience: Patience) -> Result<()> {
        self.get_by(patience, |bytes| wire::unpack_plain_into(bytes, value))
    }

    #[inline]
    fn get_by<O>(&self, patience: Patience, unpack: impl FnOnce(&[u8]) -> Result<O>) -> Result<O> {
        let delivery = self.take(patience)?;
        let unpacked = unpack(delivery.as_slice());
        // Also what cannot be decoded is done with, or it would come again.
        delivery.ack();
        unpacked
    }

    /// As [`get`](Self::get), and the message stays taken, to be resumed.
    pub(super) fn get_and_hold(&self, patience: Patience) -> Result<(T, HeldMessage)> {
        let delivery = self.take(patience)?;
        match wire::unpack_plain(delivery.as_slice()) {
            Ok(value) => Ok((value, delivery.hold())),
            // It cannot be dealt with by anybody.
            Err(error) => {
                delivery.done();
                Err(error)
            }
        }
    }

    pub(super) fn join(&self, patience: Patience) -> Result<()> {
        let joined = match patience {
            Patience::Try => self.messages.join_timeout(Duration::ZERO),
            Patience::Timeout(timeout) => self.messages.join_timeout(timeout),
            Patience::Forever => self.messages.join(),
        };
        joined.map_err(Error::from)
    }

    pub(super) fn dead_letters(&self) -> usize {
        self.messages.dead_letters()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn capacity(&self) -> usize {
        self.messages.capacity() as usize
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.messages.max_len_bytes()
    }

    pub(super) fn close(&self) {
        self.messages.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }
}

impl<T> Channel<T> {
    /// The messages themselves.
    pub(super) fn messages(&self) -> &Messages<Trusted> {
        &self.messages
    }
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), item: PhantomData }
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.messages.fmt(f)
    }
}

impl From<PushError> for Error {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Full(_) => Self::Full,
            PushError::TimedOut => Self::TimedOut,
            PushError::Closed => Self::Closed,
            PushError::TooLong { len, max } => Self::TooLarge { len_bytes: len as u64, limit_bytes: max as u64 },
            PushError::Forked => Self::Forked,
            _ => Self::Corrupt,
        }
    }
}

impl From<PopError> for Error {
    fn from(error: PopError) -> Self {
        match error {
            PopError::Empty | PopError::Busy(_) => Self::Empty,
            PopError::TimedOut => Self::TimedOut,
            PopError::Closed => Self::Closed,
            PopError::Forked => Self::Forked,
            _ => Self::Corrupt,
        }
    }
}

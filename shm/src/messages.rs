//! The queue of byte messages of `crosslane-core` in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::mpmc`]. Each slot has room for the longest message, so a message
//! lies in the queue and outlives its sender. The header says how long that is, as the size of an element.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crosslane_core::mpmc::{self, Bytes};
use crosslane_core::{Trust, Trusted, Untrusted};

use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::queue::{new_ring, ring};
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// A message that was taken and not yet acknowledged.
pub type Delivery<'a, K = Untrusted> = mpmc::BytesDelivery<'a, 'static, Env, K>;
/// Room for a message, to be written in place.
pub type Reservation<'a> = mpmc::BytesReservation<'a, 'static, Env>;

/// A queue of byte messages in shared memory, each up to a length that its creator states, with any number of producers
/// and consumers in any processes; each message goes to one of them. Its calls are those of [`Bytes`].
///
/// A killed producer loses at most the message that it was pushing. What a killed consumer had taken and not
/// acknowledged is delivered again ([`Options::max_deliveries`]).
///
/// `K` says whether messages may be written and read in place: an anonymous queue's may ([`Trusted`]), because its memory
/// only goes to one's own family; a named one copies in and out unless it is told otherwise
/// ([`trust_peers`](Messages::trust_peers)).
///
/// # Examples
/// ```
/// use crosslane_shm::{Messages, Name, Options};
///
/// let (name, options) = (Name::random(), Options::new());
/// let queue = Messages::create(&name, 64, 1000, &options)?;
/// queue.push(b"of up to 1,000 bytes")?;
///
/// // In another program, by name:
/// let queue = Messages::open(&name, &options)?;
/// let mut room = vec![0; queue.max_len_bytes()];
/// assert_eq!(queue.pop_into(&mut room)?, 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Messages<K = Untrusted> {
    queue: Bytes<'static, Env, K>,
    place: Place<K>,
}

impl Messages {
    /// Creates an empty queue under `name`. `capacity_slots` is a power of two in 2..=2^26; each slot has room for
    /// `max_len_bytes`.
    ///
    /// Wake mode if the options leave it open: `Fenced`.
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Queue`].
    pub fn create(
        name: &Name,
        capacity_slots: u32,
        max_len_bytes: u32,
        options: &Options,
    ) -> Result<Owner<Self>, CreateError> {
        new(capacity_slots, max_len_bytes, options)?.named(name, options)
    }

    /// Opens the queue `name`, whatever its longest message is.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`], [`OpenError::Queue`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Creates an empty queue for this process's family; it travels as a file descriptor ([`AsFd`]).
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Queue`].
    pub fn anonymous(
        capacity_slots: u32,
        max_len_bytes: u32,
        options: &Options,
    ) -> Result<Messages<Trusted>, CreateError> {
        new(capacity_slots, max_len_bytes, options)?.anonymous(options)
    }

    /// Opens a queue that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`], and [`OpenError::Queue`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Messages<Trusted>, OpenError> {
        place::from_fd(fd, options)
    }

    /// Another handle, with the calls that lend messages in place.
    ///
    /// # Errors
    /// As [`Segment::rejoin`] in a `fork()` child; none elsewhere.
    ///
    /// # Safety
    /// Every process that can write the segment keeps to the queue's protocol for as long as the handle lives.
    pub unsafe fn trust_peers(&self) -> Result<Messages<Trusted>, OpenError> {
        // SAFETY: the caller's contract.
        Messages::attach(unsafe { self.place.rejoin()?.trust_peers() })
    }
}

impl<K: Trust> Messages<K> {
    /// Creates an empty queue in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of its own. Of the
    /// options the wake mode and the deliveries count.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Queue`], and for `Slabs` as [`anonymous`](Messages::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the queue.
    pub fn in_slab(
        slab: &impl Carve<Trust = K>,
        capacity_slots: u32,
        max_len_bytes: u32,
        options: &Options,
    ) -> Result<Self, CreateError> {
        new(capacity_slots, max_len_bytes, options)?.in_slab(slab)
    }

    /// Opens the queue `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one, [`OpenError::Queue`].
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }

    /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.place.id()
    }

    /// The segment that the queue lives in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }

    /// In a `fork()` child: this queue with a membership of the child's own. Elsewhere another handle.
    ///
    /// # Errors
    /// As [`Segment::rejoin`].
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        Self::attach(self.place.rejoin()?)
    }
}

impl<K> Deref for Messages<K> {
    type Target = Bytes<'static, Env, K>;
    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl<K> AsFd for Messages<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<K> fmt::Debug for Messages<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("segment", self.place.segment()).finish_non_exhaustive()
    }
}

impl<K: Trust> Object for Messages<K> {
    type Trust = K;

    fn expected(options: &Options) -> Expected {
        Expected { kind: Kind::MESSAGES, elem_size: None, wake: options.wake, ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let env = place.env()?;
        let max_len_bytes = place.content().elem_size;
        let ring = ring(&place, Bytes::payload(max_len_bytes)?)?;
        let queue = Bytes::new(ring, max_len_bytes, env)?;
        // SAFETY: a place is `Trusted` only if the peers are.
        Ok(Self { queue: unsafe { queue.with_trust() }, place })
    }
}

fn new(capacity_slots: u32, max_len_bytes: u32, options: &Options) -> Result<New<impl Init>, CreateError> {
    let content = Content { kind: Kind::MESSAGES, elem_size: max_len_bytes, ..Content::bytes(0) };
    new_ring(content, capacity_slots, Bytes::payload(max_len_bytes)?, options)
}

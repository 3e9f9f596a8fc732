//! The queue of many producers and consumers of `crosslane-core` in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::mpmc`]. The header says what is in the segment (type, capacity
//! and wake mode), the queue's own memory how often an item is delivered at most. What a killed process held names it, and
//! its lease says that it is dead.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crosslane_core::mpmc::{self, Payload, Ring, RingError};
use crosslane_core::{Plain, Trust, Trusted, Untrusted, WakeMode};

use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// An item that was taken and not yet acknowledged.
pub type Delivery<'a, T, K = Untrusted> = mpmc::Delivery<'a, 'static, T, Env, K>;
/// A claimed slot, to be filled in place.
pub type Reservation<'a, T> = mpmc::Reservation<'a, 'static, T, Env>;

/// A queue of items of type `T` in shared memory, with any number of producers and consumers in any processes; each item
/// goes to one of them. Its calls are those of [`crosslane_core::mpmc::Queue`].
///
/// A killed producer loses at most the item that it was pushing. What a killed consumer had taken and not acknowledged is
/// delivered again ([`Options::max_deliveries`]).
///
/// The queue ends by [`close`](mpmc::Queue::close) alone. Deaths do not end it: a consumer whose producers have all been
/// killed waits for others to come.
///
/// Who keeps the jobs: the name goes with the [`Owner`], and the memory with the last who has it open. A producer that
/// creates the queue, pushes and ends before a worker has come takes its jobs along, unless it says [`Owner::keep`]; and
/// `create` over the name of a dead queue starts an empty one, unless [`Options::leave_dead`] is set, which makes it an
/// error, and one opens it instead.
///
/// `K` says whether slots may be filled in place: an anonymous queue's may ([`Trusted`]), because its memory only goes to
/// one's own family; a named one copies in and out unless it is told otherwise ([`trust_peers`](Queue::trust_peers)).
///
/// # Examples
/// ```
/// use crosslane_shm::{Name, Options, Queue};
///
/// let (name, options) = (Name::random(), Options::new());
/// let queue = Queue::<u64>::create(&name, 1024, &options)?;
/// queue.push(7)?;
///
/// // In another program, by name; should it be killed before it acknowledges, somebody else gets the item:
/// let queue = Queue::<u64>::open(&name, &options)?;
/// let delivery = queue.take()?;
/// assert_eq!((*delivery, delivery.attempts()), (7, 0));
/// delivery.ack();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<T: Plain, K = Untrusted> {
    queue: mpmc::Queue<'static, T, Env, K>,
    place: Place<K>,
}

impl<T: Plain> Queue<T> {
    /// Creates an empty queue under `name`. `capacity_slots` is a power of two in 2..=2^26.
    ///
    /// Wake mode if the options leave it open: `Fenced`.
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Queue`].
    pub fn create(name: &Name, capacity_slots: u32, options: &Options) -> Result<Owner<Self>, CreateError> {
        new::<T>(capacity_slots, options)?.named(name, options)
    }

    /// Opens the queue `name`.
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
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, Queue};
    ///
    /// let queue = Queue::<[u8; 1024]>::anonymous(16, &Options::new())?;
    /// let mut slot = queue.reserve()?;
    /// slot.fill(5);
    /// slot.commit();
    /// assert_eq!(queue.pop()?[..], [5; 1024]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn anonymous(capacity_slots: u32, options: &Options) -> Result<Queue<T, Trusted>, CreateError> {
        new::<T>(capacity_slots, options)?.anonymous(options)
    }

    /// Opens a queue that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`], and [`OpenError::Queue`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Queue<T, Trusted>, OpenError> {
        place::from_fd(fd, options)
    }

    /// Another handle, with the calls that lend slots.
    ///
    /// # Errors
    /// As [`Segment::rejoin`] in a `fork()` child; none elsewhere.
    ///
    /// # Safety
    /// Every process that can write the segment keeps to the queue's protocol for as long as the handle lives.
    pub unsafe fn trust_peers(&self) -> Result<Queue<T, Trusted>, OpenError> {
        // SAFETY: the caller's contract.
        Queue::attach(unsafe { self.place.rejoin()?.trust_peers() })
    }
}

impl<T: Plain, K: Trust> Queue<T, K> {
    /// Creates an empty queue in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of its own. Of the
    /// options the wake mode and the deliveries count.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Queue`], and for `Slabs` as [`anonymous`](Queue::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the queue.
    pub fn in_slab(slab: &impl Carve<Trust = K>, capacity_slots: u32, options: &Options) -> Result<Self, CreateError> {
        new::<T>(capacity_slots, options)?.in_slab(slab)
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

impl<T: Plain, K> Deref for Queue<T, K> {
    type Target = mpmc::Queue<'static, T, Env, K>;
    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl<T: Plain, K> AsFd for Queue<T, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<T: Plain, K> fmt::Debug for Queue<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("segment", self.place.segment()).finish_non_exhaustive()
    }
}

impl<T: Plain, K: Trust> Object for Queue<T, K> {
    type Trust = K;

    fn expected(options: &Options) -> Expected {
        Expected { kind: Kind::QUEUE, wake: options.wake, ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let env = place.env()?;
        let ring = ring(&place, Payload::of::<T>()?)?;
        let queue = mpmc::Queue::new(ring, env)?;
        // SAFETY: a place is `Trusted` only if the peers are.
        Ok(Self { queue: unsafe { queue.with_trust() }, place })
    }
}

/// The ring of slots at `place`, for a handle that keeps the place or an [`Env`] of it, which `place` must have.
pub(crate) fn ring<K>(place: &Place<K>, payload: Payload) -> Result<Ring<'static>, OpenError> {
    let &Content { capacity, wake, .. } = place.content();
    let capacity = u32::try_from(capacity).map_err(|_| RingError::Capacity { slots: u32::MAX })?;
    let (memory, len) = place.memory();
    // SAFETY:
    // - the object's memory stays mapped while the place or an `Env` of it lives, and every handle holds one;
    // - it is mapped for writing: a place that has an `Env` is;
    // - the header says that the object is such a queue, so processes that keep to the protocol access it so, and the
    //   others' writes are met by the ring's own checks.
    let ring = unsafe { Ring::attach(memory, len, capacity, payload, wake) }?;
    place::register(wake);
    Ok(ring)
}

/// A queue of slots of `payload`; `content` lacks what all queues have in common.
pub(crate) fn new_ring(
    content: Content,
    capacity_slots: u32,
    payload: Payload,
    options: &Options,
) -> Result<New<impl Init + use<>>, CreateError> {
    let (wake, max_deliveries) = (options.wake.unwrap_or(WakeMode::Fenced), options.max_deliveries);
    let len_bytes = Ring::layout(capacity_slots, payload)?.size() as u64;
    let init = move |memory, len| {
        // SAFETY: `New::init`: 128-aligned, `len` long, and nobody else can reach it yet.
        unsafe { Ring::init(memory, len, capacity_slots, payload, max_deliveries, wake) }?;
        Ok(())
    };
    Ok(New { content: Content { capacity: capacity_slots.into(), len_bytes, wake, ..content }, init })
}

fn new<T: Plain>(capacity_slots: u32, options: &Options) -> Result<New<impl Init>, CreateError> {
    let content = Content { kind: Kind::QUEUE, ..Content::value::<T>() };
    new_ring(content, capacity_slots, Payload::of::<T>()?, options)
}

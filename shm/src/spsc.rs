//! The single-producer single-consumer ring of `crosslane-core` in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::spsc`]. The header says what is in the segment (type, capacity
//! and wake mode); each end is claimed by a lease, so a killed producer's or consumer's successor goes on where it stopped.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crosslane_core::end::{ClaimError, End};
use crosslane_core::spsc::{self, Ring};
use crosslane_core::{Plain, Trust, Trusted, Untrusted, WakeMode};

use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// The producer's end; keeps the segment mapped.
pub type Producer<T, K = Untrusted> = spsc::Producer<'static, T, Env, K>;
/// The consumer's end; keeps the segment mapped.
pub type Consumer<T, K = Untrusted> = spsc::Consumer<'static, T, Env, K>;

/// A ring of items of type `T` in shared memory, with one producer and one consumer in any two processes.
///
/// `K` says whether handles may lend items in place: an anonymous ring's may ([`Trusted`]), because its memory only goes
/// to one's own family; a named one's must be told so by their `trust_peers`.
///
/// # Examples
/// ```
/// use crosslane_shm::{Name, Options, Spsc};
///
/// let (name, options) = (Name::random(), Options::new());
/// let ring = Spsc::<u64>::create(&name, 1024, &options)?;
/// let mut producer = ring.producer()?;
/// producer.push(7)?;
///
/// // In another program, by name:
/// let ring = Spsc::<u64>::open(&name, &options)?;
/// assert_eq!(ring.consumer()?.pop(), Ok(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Spsc<T, K = Untrusted> {
    place: Place<K>,
    capacity: u32,
    items: PhantomData<fn(T) -> T>,
}

impl<T: Plain> Spsc<T> {
    /// Creates an empty ring under `name`. `capacity_slots` is a power of two in 2..=2^30.
    ///
    /// Wake mode if the options leave it open: `Asymmetric`, which registers this process for barriers at its first use
    /// (50 us, 5-13 ms once threads run).
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Spsc`].
    pub fn create(name: &Name, capacity_slots: u32, options: &Options) -> Result<Owner<Self>, CreateError> {
        new::<T>(capacity_slots, options)?.named(name, options)
    }

    /// Opens the ring `name`.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`], [`OpenError::Spsc`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Creates an empty ring for this process's family; it travels as a file descriptor ([`AsFd`]).
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Spsc`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, Spsc};
    ///
    /// let ring = Spsc::<u32>::anonymous(16, &Options::new())?;
    /// let (mut producer, mut consumer) = (ring.producer()?, ring.consumer()?);
    /// let mut loan = producer.loan()?;
    /// *loan = 5;
    /// loan.commit()?;
    /// assert_eq!(consumer.pop(), Ok(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn anonymous(capacity_slots: u32, options: &Options) -> Result<Spsc<T, Trusted>, CreateError> {
        new::<T>(capacity_slots, options)?.anonymous(options)
    }

    /// Opens a ring that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`], and [`OpenError::Spsc`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Spsc<T, Trusted>, OpenError> {
        place::from_fd(fd, options)
    }
}

impl<T: Plain, K: Trust> Spsc<T, K> {
    /// Creates an empty ring in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of its own. Of the
    /// options only the wake mode counts.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Spsc`], and for `Slabs` as [`anonymous`](Spsc::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the ring.
    pub fn in_slab(slab: &impl Carve<Trust = K>, capacity_slots: u32, options: &Options) -> Result<Self, CreateError> {
        new::<T>(capacity_slots, options)?.in_slab(slab)
    }

    /// Opens the ring `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one, [`OpenError::Spsc`].
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }
}

impl<T: Plain, K> Spsc<T, K> {
    /// The ring; callers give it handles that hold an [`Env`], or use it while `self` lives.
    fn ring(&self) -> Result<Ring<'static, T>, spsc::RingError> {
        let (memory, len) = self.place.memory();
        // SAFETY:
        // - the object's memory stays mapped while the place or an `Env` of it lives, and every handle holds one;
        // - it is mapped for writing: read-only segments are refused in `attach`;
        // - the header says that the object is such a ring, so processes that keep to the protocol access it so, and the
        //   others' writes are met by the ring's own checks.
        unsafe { Ring::attach(memory, len, self.capacity, self.place.content().wake) }
    }

    /// Ring and surroundings; both were there when this value was made.
    fn parts(&self) -> Result<(Ring<'static, T>, Env), ClaimError> {
        let ring = self.ring().map_err(|_| ClaimError::Corrupt)?;
        Ok((ring, self.place.env().map_err(|_| ClaimError::Corrupt)?))
    }

    fn claim_producer(&self) -> Result<Producer<T>, ClaimError> {
        let (ring, env) = self.parts()?;
        ring.producer(env)
    }

    fn claim_consumer(&self) -> Result<Consumer<T>, ClaimError> {
        let (ring, env) = self.parts()?;
        ring.consumer(env)
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity_slots(&self) -> u32 {
        self.capacity
    }

    /// Who holds the producer's end. The answer may be stale by the time it is read; an owner may be dead.
    #[must_use]
    pub fn producer_end(&self) -> End {
        self.ring().map_or(End::Corrupt, |ring| ring.producer_end())
    }

    /// Who holds the consumer's end. The answer may be stale by the time it is read; an owner may be dead.
    #[must_use]
    pub fn consumer_end(&self) -> End {
        self.ring().map_or(End::Corrupt, |ring| ring.consumer_end())
    }

    /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.place.id()
    }

    /// The segment that the ring lives in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }

    /// In a `fork()` child: this ring with a membership of the child's own. Elsewhere another handle.
    ///
    /// # Errors
    /// As [`Segment::rejoin`].
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        Ok(Self { place: self.place.rejoin()?, ..*self })
    }
}

impl<T: Plain> Spsc<T, Untrusted> {
    /// Claims the producer's end; takes over from a producer that is proven dead. Does not block; reads every slot.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn producer(&self) -> Result<Producer<T>, ClaimError> {
        self.claim_producer()
    }

    /// Claims the consumer's end; takes over from a consumer that is proven dead. Does not block; reads every slot.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn consumer(&self) -> Result<Consumer<T>, ClaimError> {
        self.claim_consumer()
    }
}

impl<T: Plain> Spsc<T, Trusted> {
    /// Claims the producer's end; takes over from a producer that is proven dead. Does not block; reads every slot.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn producer(&self) -> Result<Producer<T, Trusted>, ClaimError> {
        // SAFETY: an anonymous segment, whose memory goes only to processes of one's own family.
        Ok(unsafe { self.claim_producer()?.trust_peers() })
    }

    /// Claims the consumer's end; takes over from a consumer that is proven dead. Does not block; reads every slot.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn consumer(&self) -> Result<Consumer<T, Trusted>, ClaimError> {
        // SAFETY: an anonymous segment, whose memory goes only to processes of one's own family.
        Ok(unsafe { self.claim_consumer()?.trust_peers() })
    }
}

impl<T, K> AsFd for Spsc<T, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<T, K> fmt::Debug for Spsc<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spsc").field("capacity", &self.capacity).field("segment", self.place.segment()).finish()
    }
}

impl<T: Plain, K: Trust> Object for Spsc<T, K> {
    type Trust = K;

    fn expected(options: &Options) -> Expected {
        Expected { kind: Kind::SPSC, wake: options.wake, ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        place.env()?;
        let &Content { capacity, wake, .. } = place.content();
        let capacity = u32::try_from(capacity).map_err(|_| spsc::RingError::Capacity { slots: u32::MAX })?;
        let ring = Self { place, capacity, items: PhantomData };
        ring.ring()?;
        place::register(wake);
        Ok(ring)
    }
}

fn new<T: Plain>(capacity_slots: u32, options: &Options) -> Result<New<impl Init>, CreateError> {
    let wake = options.wake.unwrap_or(WakeMode::Asymmetric);
    let content = Content {
        kind: Kind::SPSC,
        capacity: capacity_slots.into(),
        len_bytes: Ring::<T>::layout(capacity_slots)?.size() as u64,
        wake,
        ..Content::value::<T>()
    };
    let init = move |memory, len| {
        // SAFETY: `New::init`: 128-aligned, `len` long, and nobody else can reach it yet.
        unsafe { Ring::<T>::init(memory, len, capacity_slots, wake) }?;
        Ok(())
    };
    Ok(New { content, init })
}

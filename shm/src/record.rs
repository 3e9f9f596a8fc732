//! The ring of variable-length records of `crosslane-core` in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::record`]. The header says what is in the segment (capacity and
//! wake mode); each end is claimed by a lease, so a killed writer's or reader's successor goes on where it stopped.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crosslane_core::end::{ClaimError, End};
use crosslane_core::record::{self, Handover, Ring};
use crosslane_core::{Trust, Trusted, Untrusted, WakeMode};

use crate::bell::{Bell, Belled};
use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// The writer's end; keeps the segment mapped.
pub type Writer<K = Untrusted> = record::Writer<'static, Env, K>;
/// The reader's end; keeps the segment mapped.
pub type Reader<K = Untrusted> = record::Reader<'static, Env, K>;
/// A writer's end that rings a bell as well: see [`Record::belled_writer`].
pub type BelledWriter<B> = record::Writer<'static, Belled<B>, Trusted>;

/// A ring of byte records of any length in shared memory, with one writer and one reader in any two processes.
///
/// `K` says whether handles may lend records in place: an anonymous ring's may ([`Trusted`]), because its memory only
/// goes to one's own family; a named one's must be told so by their `trust_peers`.
///
/// # Examples
/// ```
/// use crosslane_shm::{Name, Options, Record};
///
/// let (name, options) = (Name::random(), Options::new());
/// let ring = Record::create(&name, 4096, &options)?;
/// let mut writer = ring.writer()?;
/// writer.push(b"a record")?;
///
/// // In another program, by name:
/// let ring = Record::open(&name, &options)?;
/// let mut buffer = [0; 64];
/// assert_eq!(ring.reader()?.pop_into(&mut buffer), Ok(8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Record<K = Untrusted> {
    place: Place<K>,
    capacity: u32,
}

impl Record {
    /// Creates an empty ring under `name`. `capacity_bytes` is a power of two in 64..=2^31.
    ///
    /// Wake mode if the options leave it open: `Asymmetric`, which registers this process for barriers at its first use
    /// (50 us, 5-13 ms once threads run).
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Record`].
    pub fn create(name: &Name, capacity_bytes: u32, options: &Options) -> Result<Owner<Self>, CreateError> {
        new(capacity_bytes, options)?.named(name, options)
    }

    /// Opens the ring `name`.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`], [`OpenError::Record`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Creates an empty ring for this process's family; it travels as a file descriptor ([`AsFd`]).
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Record`].
    pub fn anonymous(capacity_bytes: u32, options: &Options) -> Result<Record<Trusted>, CreateError> {
        new(capacity_bytes, options)?.anonymous(options)
    }

    /// Opens a ring that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`], and [`OpenError::Record`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Record<Trusted>, OpenError> {
        place::from_fd(fd, options)
    }
}

impl<K: Trust> Record<K> {
    /// Creates an empty ring in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of its own. Of the
    /// options only the wake mode counts.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Record`], and for `Slabs` as [`anonymous`](Record::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the ring.
    pub fn in_slab(slab: &impl Carve<Trust = K>, capacity_bytes: u32, options: &Options) -> Result<Self, CreateError> {
        new(capacity_bytes, options)?.in_slab(slab)
    }

    /// Opens the ring `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one, [`OpenError::Record`].
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }
}

impl<K> Record<K> {
    /// The ring; callers give it handles that hold an [`Env`], or use it while `self` lives.
    fn ring(&self) -> Result<Ring<'static>, record::RingError> {
        let (memory, len) = self.place.memory();
        // SAFETY:
        // - the object's memory stays mapped while the place or an `Env` of it lives, and every handle holds one;
        // - it is mapped for writing: read-only segments are refused in `attach`;
        // - the header says that the object is such a ring, so processes that keep to the protocol access it so, and the
        //   others' writes are met by the ring's own checks.
        unsafe { Ring::attach(memory, len, self.capacity, self.place.content().wake) }
    }

    /// Ring and surroundings; both were there when this value was made.
    fn parts(&self) -> Result<(Ring<'static>, Env), ClaimError> {
        let ring = self.ring().map_err(|_| ClaimError::Corrupt)?;
        Ok((ring, self.place.env().map_err(|_| ClaimError::Corrupt)?))
    }

    fn claim_writer(&self) -> Result<Writer, ClaimError> {
        let (ring, env) = self.parts()?;
        ring.writer(env)
    }

    fn claim_reader(&self) -> Result<Reader, ClaimError> {
        let (ring, env) = self.parts()?;
        ring.reader(env)
    }

    /// Bytes that records and their length words share.
    #[must_use]
    pub fn capacity_bytes(&self) -> u32 {
        self.capacity
    }

    /// Who holds the writer's end. The answer may be stale by the time it is read; an owner may be dead.
    #[must_use]
    pub fn writer_end(&self) -> End {
        self.ring().map_or(End::Corrupt, |ring| ring.writer_end())
    }

    /// Who holds the reader's end. The answer may be stale by the time it is read; an owner may be dead.
    #[must_use]
    pub fn reader_end(&self) -> End {
        self.ring().map_or(End::Corrupt, |ring| ring.reader_end())
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

impl Record<Untrusted> {
    /// Claims the writer's end; takes over from a writer that is proven dead. Does not block; reads the length word of each record at most.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn writer(&self) -> Result<Writer, ClaimError> {
        self.claim_writer()
    }

    /// Claims the reader's end; takes over from a reader that is proven dead. Does not block; reads the length word of each record at most.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn reader(&self) -> Result<Reader, ClaimError> {
        self.claim_reader()
    }
}

impl Record<Trusted> {
    /// Claims the writer's end; takes over from a writer that is proven dead. Does not block; reads the length word of each record at most.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn writer(&self) -> Result<Writer<Trusted>, ClaimError> {
        // SAFETY: an anonymous segment, whose memory goes only to processes of one's own family.
        Ok(unsafe { self.claim_writer()?.trust_peers() })
    }

    /// Claims the reader's end; takes over from a reader that is proven dead. Does not block; reads the length word of each record at most.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn reader(&self) -> Result<Reader<Trusted>, ClaimError> {
        // SAFETY: an anonymous segment, whose memory goes only to processes of one's own family.
        Ok(unsafe { self.claim_reader()?.trust_peers() })
    }
}

impl Record<Trusted> {
    /// As [`writer`](Self::writer), and its wakes ring the [bell](crosslane_core::bell) of a reader that
    /// [listens](record::Reader::listen).
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn belled_writer<B: Bell>(&self, ringer: B) -> Result<BelledWriter<B>, ClaimError> {
        let (ring, env) = self.belled(ringer)?;
        // SAFETY: an anonymous segment, whose memory goes only to processes of one's own family.
        Ok(unsafe { ring.writer(env)?.trust_peers() })
    }

    /// Takes the writer's end over from the process that has [handed it over](record::Writer::hand_over); as
    /// [`belled_writer`](Self::belled_writer). Does not block.
    ///
    /// # Errors
    /// [`ClaimError`].
    ///
    /// # Safety
    /// As [`Ring::take_over_writer`].
    pub unsafe fn take_over_writer<B: Bell>(
        &self,
        handover: Handover,
        ringer: B,
    ) -> Result<BelledWriter<B>, ClaimError> {
        let (ring, env) = self.belled(ringer)?;
        // SAFETY: the caller's contract.
        let writer = unsafe { ring.take_over_writer(handover, env) }?;
        // SAFETY: as in `belled_writer`.
        Ok(unsafe { writer.trust_peers() })
    }

    /// Takes the reader's end over from the process that has [handed it over](record::Reader::hand_over). Does not block.
    ///
    /// # Errors
    /// [`ClaimError`].
    ///
    /// # Safety
    /// As [`Ring::take_over_reader`].
    pub unsafe fn take_over_reader(&self, handover: Handover) -> Result<Reader<Trusted>, ClaimError> {
        let (ring, env) = self.parts()?;
        // SAFETY: the caller's contract.
        let reader = unsafe { ring.take_over_reader(handover, env) }?;
        // SAFETY: as in `belled_writer`.
        Ok(unsafe { reader.trust_peers() })
    }

    /// As [`Ring::keep_writer`].
    pub fn keep_writer(&self, handover: Handover) {
        if let Ok((ring, _)) = self.parts() {
            ring.keep_writer(handover);
        }
    }

    /// As [`Ring::keep_reader`].
    pub fn keep_reader(&self, handover: Handover) {
        if let Ok((ring, _)) = self.parts() {
            ring.keep_reader(handover);
        }
    }

    /// As [`Ring::writer_claims`].
    #[must_use]
    pub fn writer_claims(&self) -> u32 {
        self.ring().map_or(0, |ring| ring.writer_claims())
    }

    /// As [`Ring::reader_claims`].
    #[must_use]
    pub fn reader_claims(&self) -> u32 {
        self.ring().map_or(0, |ring| ring.reader_claims())
    }

    /// As [`Ring::is_writer_lost`].
    #[must_use]
    pub fn is_writer_lost(&self, has_pass: impl FnOnce(u32) -> bool) -> bool {
        self.ring().is_ok_and(|ring| ring.is_writer_lost(has_pass))
    }

    /// As [`Ring::is_reader_lost`].
    #[must_use]
    pub fn is_reader_lost(&self, has_pass: impl FnOnce(u32) -> bool) -> bool {
        self.ring().is_ok_and(|ring| ring.is_reader_lost(has_pass))
    }

    /// Closes the writer's end, which this process handed over to one that is proven dead: see [`Ring::withdraw_writer`].
    pub fn withdraw_writer(&self, handover: Handover) {
        if let Ok((ring, env)) = self.parts() {
            ring.withdraw_writer(handover, &env);
        }
    }

    /// Closes the reader's end, which this process handed over to one that is proven dead: see [`Ring::withdraw_reader`].
    pub fn withdraw_reader(&self, handover: Handover) {
        if let Ok((ring, env)) = self.parts() {
            ring.withdraw_reader(handover, &env);
        }
    }

    fn belled<B: Bell>(&self, ringer: B) -> Result<(Ring<'static>, Belled<B>), ClaimError> {
        let (ring, env) = self.parts()?;
        // The bell lies in the memory that the env keeps mapped.
        Ok((ring, Belled::new(env, ring.reader_bell(), ringer)))
    }
}

impl<K> AsFd for Record<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<K> fmt::Debug for Record<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("capacity", &self.capacity).field("segment", self.place.segment()).finish()
    }
}

impl<K: Trust> Object for Record<K> {
    type Trust = K;

    fn expected(options: &Options) -> Expected {
        Expected { kind: Kind::RECORD, wake: options.wake, ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        place.env()?;
        let &Content { capacity, wake, .. } = place.content();
        let capacity = u32::try_from(capacity).map_err(|_| record::RingError::Capacity { bytes: u32::MAX })?;
        let ring = Self { place, capacity };
        ring.ring()?;
        place::register(wake);
        Ok(ring)
    }
}

fn new(capacity_bytes: u32, options: &Options) -> Result<New<impl Init>, CreateError> {
    let wake = options.wake.unwrap_or(WakeMode::Asymmetric);
    let content = Content {
        kind: Kind::RECORD,
        capacity: capacity_bytes.into(),
        len_bytes: Ring::layout(capacity_bytes)?.size() as u64,
        wake,
        ..Content::bytes(0)
    };
    let init = move |memory, len| {
        // SAFETY: `New::init`: 128-aligned, `len` long, and nobody else can reach it yet.
        unsafe { Ring::init(memory, len, capacity_bytes, wake) }?;
        Ok(())
    };
    Ok(New { content, init })
}

//! Where an object lies in shared memory, and how each kind of object comes to lie there.
//!
//! An object type says what stands in the header ([`New::content`], [`Object::expected`]), writes its first bytes
//! ([`New::init`]) and makes a handle from a [`Place`] ([`Object::attach`]); where the memory comes from is told here,
//! once for all of them.
//!
//! What this process knows at a place is noted in the mapping (`slab/notes.rs`): a peer that rewrites a header or a slab's
//! directory cannot make it open two objects over each other.
//!
//! A `Place<Trusted>` exists only for memory that goes to one's own family, or by [`Place::trust_peers`]; so `attach` may
//! take the type's word for it.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use crosslane_core::{Trust, Trusted, Untrusted, WakeMode};
use crosslane_sync::membarrier;

use crate::content::{Content, Expected, Kind};
use crate::domain::Domain;
use crate::env::Env;
use crate::header::{Header, HeaderError};
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::notes::Find;
use crate::slab::{self, CarveError, Carver, Image, LookError, ObjectId};
use crate::sys::call::OsError;

/// The memory of one object, mapped for as long as this lives, or an [`Env`] of it.
pub(crate) struct Place<K> {
    segment: Segment,
    /// Where the object starts, in bytes from the segment's start.
    offset: u64,
    content: Content,
    /// Its name in the slab that the segment is, if it has no segment to itself.
    id: Option<ObjectId>,
    trust: PhantomData<fn() -> K>,
}

/// A kind of object that can be opened.
pub(crate) trait Object: Sized {
    /// Whether the handle lends references.
    type Trust: Trust;
    /// In a slab the object starts at a multiple of so many bytes, a power of two in 8..=128; with a segment to itself, of
    /// 128. The kinds that let several processes write often have lines of their own.
    const ALIGN: u32 = 128;

    /// What must stand in the header.
    fn expected(options: &Options) -> Expected;

    /// A handle to the object at `place`, whose content is as expected. Lengths and capacity are the creator's word, and
    /// checked here.
    fn attach(place: Place<Self::Trust>) -> Result<Self, OpenError>;
}

/// An object to be made: what it is, and how its memory is filled.
pub(crate) struct New<F> {
    /// What will stand in the header.
    pub(crate) content: Content,
    /// Writes the object into memory that is all zero, aligned to 128 bytes, `content.len_bytes` long, and private.
    pub(crate) init: F,
}

/// Fills memory: given its start and its length in bytes.
pub(crate) trait Init: FnOnce(NonNull<u8>, usize) -> Result<(), CreateError> {}

impl<F: FnOnce(NonNull<u8>, usize) -> Result<(), CreateError>> Init for F {}

impl<F: Init> New<F> {
    /// Makes it in a segment of its own, under `name`.
    pub(crate) fn named<O: Object<Trust = Untrusted>>(
        self,
        name: &Name,
        options: &Options,
    ) -> Result<Owner<O>, CreateError> {
        let owner = Segment::create_with(name, self.content, options, self.init)?;
        owner.try_map(|segment| attach_whole(segment).map_err(own))
    }

    /// Makes it in a segment of its own, for this process's family.
    pub(crate) fn anonymous<O: Object<Trust = Trusted>>(self, options: &Options) -> Result<O, CreateError> {
        let segment = Segment::anonymous_with(self.content, options, &Domain::family()?, self.init)?;
        attach_whole(segment).map_err(own)
    }

    /// Makes it in a slab.
    pub(crate) fn in_slab<O: Object>(self, slab: &impl Carver<Trust = O::Trust>) -> Result<O, CreateError> {
        O::attach(slab.carve(&Image::new(self)?, O::ALIGN)?).map_err(own)
    }
}

/// Opens the object that has the segment `name` to itself.
pub(crate) fn open<O: Object<Trust = Untrusted>>(name: &Name, options: &Options) -> Result<Attached<O>, OpenError> {
    let attached = Segment::open(name, &O::expected(options), options)?;
    attached.try_map(attach_whole)
}

/// Opens an object whose segment came as a file descriptor from a process of this family, which is trusted with it.
pub(crate) fn from_fd<O: Object<Trust = Trusted>>(fd: OwnedFd, options: &Options) -> Result<O, OpenError> {
    attach_whole(Segment::from_fd(fd, &O::expected(options), options)?)
}

/// The object that has `segment` to itself; refused if the header said otherwise when this process first looked.
fn attach_whole<O: Object>(segment: Segment) -> Result<O, OpenError> {
    let place = Place::whole(segment.clone());
    let (offset, content) = (place.offset, place.content);
    let object = O::attach(place)?;
    // What lies in a slab is noted piece by piece.
    let used = if content.kind == Kind::SLAB { slab::front(&content) } else { content };
    if segment.note(offset, &used, Find::Any) {
        Ok(object)
    } else {
        let total = segment.header().total_len_bytes;
        Err(HeaderError::Layout { found: total, expected: total }.into())
    }
}

impl<K> Place<K> {
    /// All of a segment's object. `Trusted` is for the segments that only the family gets.
    fn whole(segment: Segment) -> Self {
        let &Header { object_offset: offset, content, .. } = segment.header();
        Self { segment, offset, content, id: None, trust: PhantomData }
    }

    /// The object `id` of the slab that has this place, at `offset` from the segment's start; `None` if it does not lie in
    /// the segment, or this process knows another object there. Trusted as the slab is.
    pub(crate) fn piece(&self, id: ObjectId, offset: u64, content: Content, find: Find) -> Option<Self> {
        let is_inside = self.segment.at(offset, content.len_bytes).is_some();
        (is_inside && self.segment.note(offset, &content, find)).then(|| Self {
            segment: self.segment.clone(),
            offset,
            content,
            id: Some(id),
            trust: PhantomData,
        })
    }

    /// What the object is, as its creator said and its opener has checked.
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Start and length (bytes) of the object; aligned to [`Object::ALIGN`].
    pub(crate) fn memory(&self) -> (NonNull<u8>, usize) {
        // Both were checked when this value was made; an empty range is the answer that can do no harm.
        let start = self.segment.at(self.offset, self.content.len_bytes);
        start.map_or((NonNull::dangling(), 0), |start| (start, usize::try_from(self.content.len_bytes).unwrap_or(0)))
    }

    /// In bytes from the segment's start.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The object's name in its slab; `None` if it has a segment to itself.
    pub(crate) fn id(&self) -> Option<ObjectId> {
        self.id
    }

    /// Surroundings for a handle. An object has calls that write, so a segment that is open for reading only is refused.
    pub(crate) fn env(&self) -> Result<Env, OpenError> {
        self.segment.env().ok_or(OpenError::ReadOnly)
    }

    /// The segment that the object lies in.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// In a `fork()` child: this place with a membership of the child's own. Elsewhere a clone.
    pub(crate) fn rejoin(&self) -> Result<Self, OpenError> {
        Ok(Self { segment: self.segment.rejoin()?, ..self.clone() })
    }

    /// The same place, for handles that lend what lies there.
    ///
    /// # Safety
    /// Every process that can write the memory, for as long as a handle to it lives, keeps to the object's protocol.
    pub(crate) unsafe fn trust_peers(self) -> Place<Trusted> {
        let Self { segment, offset, content, id, .. } = self;
        Place { segment, offset, content, id, trust: PhantomData }
    }
}

impl<K> Clone for Place<K> {
    fn clone(&self) -> Self {
        Self { segment: self.segment.clone(), ..*self }
    }
}

impl<K> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("segment", &self.segment).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Makes this process's wakes cheap where the object's mode allows it; where the kernel cannot, they fence.
pub(crate) fn register(wake: WakeMode) {
    if wake == WakeMode::Asymmetric {
        membarrier::register();
    }
}

/// An error of attaching to what this process has just created for writing: the other reasons do not apply.
fn own(error: OpenError) -> CreateError {
    match error {
        OpenError::Spsc(error) => CreateError::Spsc(error),
        OpenError::Record(error) => CreateError::Record(error),
        OpenError::Lock(error) => CreateError::Lock(error),
        OpenError::Queue(error) => CreateError::Queue(error),
        OpenError::Array(error) => CreateError::Array(error),
        OpenError::Latest(error) => CreateError::Latest(error),
        OpenError::Slab(LookError::Corrupt) => CreateError::Slab(CarveError::Corrupt),
        OpenError::Domain(error) => CreateError::Domain(error),
        OpenError::Os(error) => CreateError::Os(error),
        _ => CreateError::Os(OsError { call: "mmap", errno: libc::EFAULT }),
    }
}

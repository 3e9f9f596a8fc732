//! Slabs: one segment for many small objects, so that a lock costs neither an fd nor a page of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::slab`]. Objects are carved one behind the other, and no byte is
//! used twice: the kernel frees a slab as a whole when the last process has unmapped it, so there is nothing that a
//! killed process could leave wrong but the bytes that it had just taken.
//!
//! An object in a slab has a name among the slab's users, its [`ObjectId`]: `Mutex::in_slab` and its kin make one,
//! `Mutex::from_slab` opens it where the id arrived. [`Slabs`] is the set that a process family needs no thought for.
//!
//! # Trust
//! The directory is a peer's word. Each entry is taken once and checked: its object lies in the slab, at the alignment
//! that its kind needs, with the type that the opener insists on; and it lies apart from the directory and from every
//! other object that this process has carved from the slab or opened in it, so that two handles of one process never
//! disagree about what a byte is (`notes.rs`). An object's own words are then met as those of an object with a segment to
//! itself.
#![allow(unsafe_code)]

mod family;
mod image;
pub(crate) mod notes;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

pub use crosslane_core::slab::{CarveError, LookError};
use crosslane_core::slab::{Description, Directory, Entry, Extent, Head};
use crosslane_core::{Trust, Trusted, Untrusted};

pub use self::family::Slabs;
pub(crate) use self::image::Image;
use self::notes::Find;
use crate::content::{Content, Expected, Kind};
use crate::domain::DomainError;
use crate::header::{self, HeaderError};
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, New, Object, Place};
use crate::segment::{self, CreateError, OpenError, Segment};

/// Length of a slab's segment if the options do not say, in bytes.
pub const DEFAULT_SLAB_BYTES: u32 = 64 << 10;
/// The shortest and the longest segment of a slab, in bytes.
pub const SLAB_BYTES: std::ops::RangeInclusive<u32> = 8 << 10..=1 << 30;

/// One entry of the directory for so many bytes of a slab: a lock on a line of its own takes 64 and an entry of 48.
const BYTES_FOR_EACH_ENTRY: u32 = 128;
/// Where the directory starts, in bytes: behind the head, which has a line of its own.
const DIRECTORY_OFFSET: u32 = 64;
/// Alignment of the room, and so the largest of an object, in bytes.
const ROOM_ALIGN: u32 = 128;

/// What a slab starts with.
#[derive(Debug)]
#[repr(C)]
struct Front {
    head: Head,
    reserved: [AtomicU64; 7],
}

const ENTRY_BYTES: u32 = 48;

const _: () = assert!(size_of::<Front>() == DIRECTORY_OFFSET as usize);
const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES as usize);

/// Names an object among the users of its slab: a number, counted from 0 in the order of carving. A carver that is killed
/// leaves a number without an object, which is not used again; nor is an object's, as objects live as long as their slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(u32);

/// Many small objects in one segment of [`Options::slab_bytes`], a part of which is the directory: 510 locks fit into
/// the default 64 KiB, or 477 into those of a named slab, which begins with its lease domain.
///
/// An anonymous slab's objects are [`Trusted`], because its memory only goes to one's own family; a named one's are not.
/// Cheap to clone; each object keeps the slab mapped.
///
/// # Examples
/// ```
/// use std::os::fd::AsFd;
/// use crosslane_shm::{Mutex, Options, Slab};
///
/// let slab = Slab::anonymous(&Options::new())?;
/// let lock = Mutex::in_slab(&slab, 40_u64)?;
/// let id = lock.object_id().expect("in a slab");
///
/// // In another process of the family, which was sent the fd and the id:
/// let slab = Slab::from_fd(slab.as_fd().try_clone_to_owned()?, &Options::new())?;
/// let same = Mutex::<u64, _>::from_slab(&slab, id)?;
/// *same.lock().unwrap() += 2;
/// assert_eq!(*lock.lock().unwrap(), 42);
///
/// // By name, for programs that agree upon the ids: the first object is 0.
/// use crosslane_shm::{Name, ObjectId};
/// let (name, options) = (Name::random(), Options::new());
/// let slab = Slab::create(&name, &options)?;
/// let lock = Mutex::in_slab(&slab, 40_u64)?;
/// // In another program:
/// let slab = Slab::open(&name, &options)?;
/// let same = Mutex::<u64>::from_slab(&slab, ObjectId::new(0))?;
/// same.update(|n| *n += 2).unwrap();
/// assert_eq!(lock.read().unwrap(), 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Slab<K = Untrusted> {
    place: Place<K>,
    entries: u32,
}

/// Where small objects can be carved: a [`Slab`], also a named one as it is created ([`Owner`]) or opened ([`Attached`]),
/// or [`Slabs`]. Not to be implemented elsewhere.
pub trait Carve: Carver {}

impl<K: Trust> Carve for Slab<K> {}
impl Carve for Slabs {}
impl<S: Carve> Carve for Owner<S> {}
impl<S: Carve> Carve for Attached<S> {}

pub(crate) use self::sealed::Carver;

mod sealed {
    use crosslane_core::Trust;

    /// The part of [`Carve`](super::Carve) that stays in this crate.
    #[expect(private_interfaces, reason = "sealed: nobody outside can name or call it")]
    pub trait Carver {
        /// Whether objects there lend references.
        type Trust: Trust;

        /// Makes the object of `image` there, at a multiple of `align_bytes`.
        #[doc(hidden)]
        fn carve(
            &self,
            image: &super::Image,
            align_bytes: u32,
        ) -> Result<super::Place<Self::Trust>, super::CreateError>;
    }
}

impl Slab {
    /// Creates an empty slab under `name`.
    ///
    /// # Errors
    /// As [`Segment::create`].
    pub fn create(name: &Name, options: &Options) -> Result<Owner<Self>, CreateError> {
        new(options, header::OBJECT_OFFSET_WITH_TABLE).named(name, options)
    }

    /// Opens the slab `name`.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Creates an empty slab for this process's family; it travels as a file descriptor ([`AsFd`]).
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`].
    pub fn anonymous(options: &Options) -> Result<Slab<Trusted>, CreateError> {
        new(options, header::OBJECT_OFFSET).anonymous(options)
    }

    /// Opens a slab that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Slab<Trusted>, OpenError> {
        place::from_fd(fd, options)
    }
}

impl<K: Trust> Slab<K> {
    /// The objects that can be seen: what each is, in the order of their carving. Those of carvers that were killed are
    /// not among them. An object that is carved meanwhile may or may not be. Does not block.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, Content)> + '_ {
        let taken = self.directory().map_or(0, |(directory, _)| directory.taken());
        (0..taken).filter_map(|index| {
            let (_, content) = self.look(ObjectId(index)).ok()?;
            Some((ObjectId(index), content))
        })
    }

    /// Bytes of the room for objects that are not taken. May be too many by the time it is read.
    #[must_use]
    pub fn free_bytes(&self) -> u32 {
        let (_, room) = place_of(self.entries, self.place.content().len_bytes);
        self.directory().map_or(0, |(directory, _)| room.saturating_sub(directory.used_bytes()))
    }

    /// The segment that the slab has to itself.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }

    /// In a `fork()` child: this slab with a membership of the child's own. Elsewhere another handle.
    ///
    /// # Errors
    /// As [`Segment::rejoin`].
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        Ok(Self { place: self.place.rejoin()?, ..*self })
    }

    fn is_used(&self) -> bool {
        self.directory().is_some_and(|(directory, _)| directory.taken() > 0)
    }

    /// The directory, and where the room starts from the slab's start; `None` cannot be, since `attach` has looked.
    fn directory(&self) -> Option<(Directory<'_>, u32)> {
        let (memory, len) = self.place.memory();
        let (room_offset, room_bytes) = place_of(self.entries, len as u64);
        if room_bytes == 0 {
            return None;
        }
        // SAFETY: the slab's first bytes: inside the mapping, 128-aligned, and made of atomics only.
        let front = unsafe { memory.cast::<Front>().as_ref() };
        // SAFETY: in front of the room, which `place_of` has found inside the slab.
        let first = unsafe { memory.add(DIRECTORY_OFFSET as usize) };
        // SAFETY: as above: `entries` of them are inside, 64-aligned, and made of atomics only.
        let entries = unsafe { NonNull::slice_from_raw_parts(first.cast::<Entry>(), self.entries as usize).as_ref() };
        Some((Directory::new(&front.head, entries, room_bytes), room_offset))
    }

    /// What the entry of `id` says, checked as far as a slab can; not noted.
    fn look(&self, id: ObjectId) -> Result<(u64, Content), OpenError> {
        let (directory, room_offset) = self.directory().ok_or(LookError::Corrupt)?;
        let (extent, found) = directory.look(id.0)?;
        let wake = header::wake_mode(found.wake.into());
        let content = Content {
            kind: Kind::custom(found.kind),
            elem_size: found.elem_size,
            elem_align: found.elem_align,
            fingerprint: found.fingerprint,
            capacity: found.capacity,
            len_bytes: extent.len_bytes.into(),
            wake: wake.ok_or(HeaderError::WakeMode { found: None, expected: None })?,
        };
        Ok((self.offset_of(extent, room_offset), content))
    }

    /// From the start of the segment.
    fn offset_of(&self, extent: Extent, room_offset: u32) -> u64 {
        self.place.offset() + u64::from(room_offset) + u64::from(extent.offset_bytes)
    }
}

/// Opens the object `id` of `slab`.
pub(crate) fn open<O: Object>(slab: &Slab<O::Trust>, id: ObjectId) -> Result<O, OpenError> {
    // The capacity and the wake mode are the entry's to say.
    let expected = O::expected(&Options::new());
    let (offset, content) = slab.look(id)?;
    header::expect(&content, &expected)?;
    if !offset.is_multiple_of(O::ALIGN.into()) {
        return Err(LookError::Corrupt.into());
    }
    let place = slab.place.piece(id, offset, content, Find::Any).ok_or(LookError::Corrupt)?;
    O::attach(place)
}

impl<K: Trust> Carver for Slab<K> {
    type Trust = K;

    #[expect(private_interfaces, reason = "sealed: nobody outside can name or call it")]
    fn carve(&self, image: &Image, align_bytes: u32) -> Result<Place<K>, CreateError> {
        let domain = self.place.segment().domain().ok_or(CreateError::Slab(CarveError::Corrupt))?;
        if domain.is_forked() {
            return Err(DomainError::Forked.into());
        }
        let content = *image.content();
        let len_bytes = u32::try_from(content.len_bytes).map_err(|_| CarveError::Full)?;
        let (directory, room_offset) = self.directory().ok_or(CarveError::Corrupt)?;
        let claim = directory.carve(len_bytes, align_bytes)?;
        let (id, offset) = (ObjectId(claim.index()), self.offset_of(claim.extent(), room_offset));
        let place = self.place.piece(id, offset, content, Find::New).ok_or(CarveError::Corrupt)?;
        image.copy_to(place.memory().0);
        claim.commit(&description(&content));
        Ok(place)
    }
}

impl<S: Carve> Carver for Owner<S> {
    type Trust = S::Trust;

    #[expect(private_interfaces, reason = "sealed: nobody outside can name or call it")]
    fn carve(&self, image: &Image, align_bytes: u32) -> Result<Place<S::Trust>, CreateError> {
        (**self).carve(image, align_bytes)
    }
}

impl<S: Carve> Carver for Attached<S> {
    type Trust = S::Trust;

    #[expect(private_interfaces, reason = "sealed: nobody outside can name or call it")]
    fn carve(&self, image: &Image, align_bytes: u32) -> Result<Place<S::Trust>, CreateError> {
        (**self).carve(image, align_bytes)
    }
}

impl<K: Trust> Object for Slab<K> {
    type Trust = K;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::SLAB, ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        place.env()?;
        let &Content { capacity, len_bytes, .. } = place.content();
        let entries = u32::try_from(capacity).unwrap_or(u32::MAX);
        let (room_offset, room_bytes) = place_of(entries, len_bytes);
        if room_bytes == 0 {
            return Err(HeaderError::TooSmall { found: len_bytes, expected: room_offset.into() }.into());
        }
        Ok(Self { place, entries })
    }
}

fn new(options: &Options, object_offset: u64) -> New<impl place::Init> {
    let len_bytes = u64::from(options.slab_bytes) - object_offset;
    let content = Content {
        kind: Kind::SLAB,
        capacity: options.slab_objects.map_or(len_bytes / u64::from(BYTES_FOR_EACH_ENTRY), u64::from),
        len_bytes,
        ..Content::bytes(0)
    };
    New { content, init: segment::zeroed }
}

/// What the slab's own handles use of a slab: its head and its directory.
pub(crate) fn front(slab: &Content) -> Content {
    let (room_offset, _) = place_of(u32::try_from(slab.capacity).unwrap_or(u32::MAX), slab.len_bytes);
    Content { len_bytes: room_offset.into(), ..*slab }
}

/// Where the room of a slab of `len_bytes` starts, and its length; 0 if `entries` do not fit.
fn place_of(entries: u32, len_bytes: u64) -> (u32, u32) {
    let directory = entries.saturating_mul(ENTRY_BYTES);
    let start = directory.saturating_add(DIRECTORY_OFFSET).checked_next_multiple_of(ROOM_ALIGN).unwrap_or(u32::MAX);
    // Whole words, so that an object's last word ends inside.
    let room = len_bytes.saturating_sub(start.into()) & !7;
    (start, u32::try_from(room).ok().filter(|_| len_bytes <= u64::from(*SLAB_BYTES.end())).unwrap_or(0))
}

fn description(content: &Content) -> Description {
    Description {
        kind: content.kind.number(),
        wake: u32::try_from(header::wake_number(content.wake)).unwrap_or(u32::MAX),
        elem_size: content.elem_size,
        elem_align: content.elem_align,
        fingerprint: content.fingerprint,
        capacity: content.capacity,
    }
}

impl ObjectId {
    /// The id that `number` stands for, as it was sent.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number that stands for it, to be sent along with the slab.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl<K> Clone for Slab<K> {
    fn clone(&self) -> Self {
        Self { place: self.place.clone(), entries: self.entries }
    }
}

impl<K> AsFd for Slab<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<K> fmt::Debug for Slab<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("segment", self.place.segment()).finish_non_exhaustive()
    }
}

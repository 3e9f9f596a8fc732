//! Frozen segments: memory that nobody can write any more, so that every reader may borrow it as it is.
//!
//! # What
//! A memfd with a header, the elements, and nothing that lives: no leases, no words. The kernel's seals, which nobody can
//! take off again, forbid every write and every change of size (`F_SEAL_WRITE`, `F_SEAL_SHRINK`, `F_SEAL_GROW`). A
//! reader looks at the seals before it looks at a byte, so it needs to trust neither the sender nor the header, and
//! need not belong to the sender's family: the fd may come over any socket.
//!
//! # Protocol
//! Freezer: 1. the header says what the elements are; 2. unmap; 3. seal. The kernel refuses 3 while anybody has the memory
//! mapped for writing. Reader: 1. seals; 2. map, read-only; 3. header; 4. elements.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | freezer 1 and 3 | who has the fd or a mapping: the segment as it was, which opens as nothing but a segment of kind frozen that is not sealed: `NotSealed` |
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crosslane_core::Plain;

use crate::content::{Content, Expected, Kind};
use crate::header::{Header, HeaderError};
use crate::mapping::Mapping;
use crate::options::Options;
use crate::segment::{self, CreateError, OpenError, Parts, Segment};
use crate::sys::call::OsError;
use crate::sys::file;

/// The lease domain of a frozen segment, whose readers nobody asks after.
const NO_DOMAIN: [u8; 16] = [0; 16];
/// The largest alignment of an element, in bytes: that of a segment's object.
const MAX_ALIGN: usize = 128;

/// Elements of type `T` that never change again, for any number of readers in any processes. Derefs to `&[T]`; cheap to
/// clone.
///
/// Travels as a file descriptor ([`AsFd`]), to anybody. The memory is freed with the last fd and the last mapping.
///
/// # Examples
/// ```
/// use std::os::fd::AsFd;
/// use crosslane_shm::{Frozen, Options};
///
/// let table = Frozen::new(&[1.5_f64, 2.5], &Options::new())?;
/// // In another process, which was sent the fd:
/// let same = Frozen::<f64>::from_fd(table.as_fd().try_clone_to_owned()?, &Options::new())?;
/// assert_eq!(same[1], 2.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Frozen<T> {
    elements: NonNull<T>,
    len: usize,
    /// Keeps the elements mapped.
    _map: Arc<Mapping>,
    fd: Arc<OwnedFd>,
    kind: PhantomData<T>,
}

// SAFETY: `&[T]` of memory that nobody writes, and `T: Plain` may go anywhere.
unsafe impl<T: Plain> Send for Frozen<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Frozen<T> {}

/// Why a segment was not frozen. Gives it back, unchanged.
#[derive(Debug)]
pub struct FreezeError {
    reason: Unfrozen,
    segment: Option<Box<Segment>>,
}

/// What kept a segment from being frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfrozen {
    /// This process has other handles to the segment, or into it.
    InUse,
    /// Another process has it mapped for writing: one that was sent it, or a `fork()` child that inherited it.
    Busy,
    /// The segment has a name, or is open for reading only: only an anonymous one can be frozen.
    Named,
    /// The segment holds an object, whose users write.
    Object(Kind),
    /// Its length is no whole number of elements, or their alignment is above 128 bytes.
    Element {
        /// The segment's length, in bytes.
        len_bytes: u64,
        /// An element's size, in bytes.
        elem_size: usize,
    },
    /// A system call failed.
    Os(OsError),
}

impl FreezeError {
    /// What kept the segment from being frozen.
    #[must_use]
    pub fn reason(&self) -> Unfrozen {
        self.reason
    }

    /// The segment, as it was; `None` if it could not be mapped again, for lack of address space or memory.
    #[must_use]
    pub fn into_segment(self) -> Option<Segment> {
        self.segment.map(|segment| *segment)
    }
}

impl<T: Plain> Frozen<T> {
    /// Freezes a copy of `elements`. Blocks for the reservation of the memory (0.4 us for each page) and the copy.
    ///
    /// # Errors
    /// [`CreateError`].
    ///
    /// # Crash
    /// Nothing can be left behind: the kernel frees the memory with its last fd.
    pub fn new(elements: &[T], options: &Options) -> Result<Self, CreateError> {
        if align_of::<T>() > MAX_ALIGN {
            return Err(CreateError::Alignment { align: align_of::<T>() });
        }
        let content = content::<T>(elements.len() as u64, size_of_val(elements) as u64);
        let (header, fd) = segment::reserve_file(
            Header::new(content, Some(NO_DOMAIN)),
            options,
            segment::Pages::Reserved,
            file::memfd,
        )?;
        // A `fork()` child that had the mapping would keep it from being sealed.
        let map = Mapping::not_inherited(fd.as_fd(), header.total_len_bytes, options.prefault)?;
        segment::fill(&header, &map, |memory, len| {
            // SAFETY: as long as the content says, which is the elements' length; nobody else can reach it yet.
            unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr().cast(), memory.as_ptr(), len) };
            Ok(())
        })?;
        drop(map);
        file::seal(fd.as_fd(), file::FROZEN_SEALS)?;
        Self::map(Arc::new(fd), options).map_err(|error| match error {
            OpenError::Os(error) => CreateError::Os(error),
            _ => CreateError::Os(OsError { call: "mmap", errno: libc::EFAULT }),
        })
    }

    /// Opens frozen elements that came as a file descriptor from anybody. Does not block; [`Options::prefault`] applies.
    ///
    /// # Errors
    /// [`OpenError::NotSealed`] if anybody could still write or shorten the memory; [`OpenError::Header`] if it is another
    /// segment or holds other elements; [`OpenError::Os`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Self, OpenError> {
        Self::map(Arc::new(fd), options)
    }

    fn map(fd: Arc<OwnedFd>, options: &Options) -> Result<Self, OpenError> {
        let found = file::seals(fd.as_fd())?;
        if found & file::FROZEN_SEALS != file::FROZEN_SEALS {
            return Err(OpenError::NotSealed { found });
        }
        let len_bytes = file::stat(fd.as_fd())?.len_bytes;
        // Before Linux 6.7 a sealed file is mapped only through a description that could not write it.
        let reading = file::reopen(fd.as_fd(), true)?;
        let map = Mapping::new(reading.as_fd(), len_bytes, true, options.prefault)?;
        let header = Header::read(&map, len_bytes)?;
        let &Content { capacity, len_bytes, .. } = &header.content;
        header.expect(&Expected { kind: Kind::FROZEN, ..Expected::value::<T>() })?;
        let wrong = HeaderError::Layout { found: len_bytes, expected: capacity.saturating_mul(size_of::<T>() as u64) };
        if capacity.checked_mul(size_of::<T>() as u64) != Some(len_bytes) || align_of::<T>() > MAX_ALIGN {
            return Err(wrong.into());
        }
        let elements = map.at(header.object_offset, len_bytes).ok_or(wrong)?.cast();
        let len = usize::try_from(capacity).map_err(|_| wrong)?;
        Ok(Self { elements, len, _map: Arc::new(map), fd, kind: PhantomData })
    }
}

impl Segment {
    /// Freezes the segment's bytes as elements of type `T`: from here on nobody can write them, in whatever process. Does
    /// not block.
    ///
    /// For anonymous segments of [bytes](Kind::BYTES) or of a [kind](Kind::custom) of the caller's own. Whoever else has the
    /// segment mapped for writing must let it go first.
    ///
    /// # Errors
    /// [`FreezeError`], with the segment as it was.
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, Segment};
    ///
    /// let segment = Segment::anonymous(16, &Options::new())?;
    /// segment.copy_in(8, &7_u64.to_ne_bytes()).unwrap();
    /// let frozen = segment.freeze::<u64>().unwrap();
    /// assert_eq!(frozen[..], [0, 7]);
    /// # Ok::<(), crosslane_shm::CreateError>(())
    /// ```
    pub fn freeze<T: Plain>(self) -> Result<Frozen<T>, FreezeError> {
        let refuse = |reason, segment| Err(FreezeError { reason, segment: Some(Box::new(segment)) });
        let before = self.header().content;
        if before.kind.is_object() {
            return refuse(Unfrozen::Object(before.kind), self);
        }
        let elem_size = size_of::<T>();
        let count = if elem_size == 0 { 0 } else { before.len_bytes / elem_size as u64 };
        if count * elem_size as u64 != before.len_bytes || align_of::<T>() > MAX_ALIGN {
            return refuse(Unfrozen::Element { len_bytes: before.len_bytes, elem_size }, self);
        }
        match file::seals(self.as_fd()) {
            Ok(seals) if seals & file::SIZE_SEALS == file::SIZE_SEALS && !self.is_read_only() => {}
            Ok(_) => return refuse(Unfrozen::Named, self),
            Err(error) => return refuse(Unfrozen::Os(error), self),
        }
        let (parts, map) = match self.into_parts() {
            Ok(parts) => parts,
            Err(segment) => return refuse(Unfrozen::InUse, *segment),
        };
        Header { content: content::<T>(count, before.len_bytes), ..parts.header }.write(&map);
        drop(map);
        let sealed = file::seal(parts.fd.as_fd(), file::FROZEN_SEALS);
        let frozen = sealed.map_err(OpenError::from).and_then(|()| Frozen::map(Arc::clone(&parts.fd), &Options::new()));
        frozen.map_err(|error| give_back(error, parts))
    }
}

/// Maps the segment again, with the header that it had.
fn give_back(error: OpenError, parts: Parts) -> FreezeError {
    let reason = match error {
        OpenError::Os(OsError { errno: libc::EBUSY, .. }) => Unfrozen::Busy,
        OpenError::Os(error) | OpenError::PermissionDenied(error) => Unfrozen::Os(error),
        _ => Unfrozen::Os(OsError { call: "mmap", errno: libc::EFAULT }),
    };
    let map = Mapping::new(parts.fd.as_fd(), parts.header.total_len_bytes, false, false);
    let segment = map.ok().map(|map| {
        parts.header.write(&map);
        Box::new(Segment::from_parts(parts, map))
    });
    FreezeError { reason, segment }
}

fn content<T: Plain>(count: u64, len_bytes: u64) -> Content {
    Content { kind: Kind::FROZEN, capacity: count, len_bytes, ..Content::value::<T>() }
}

impl<T: Plain> Deref for Frozen<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY:
        // - `map` checked that the elements lie in the mapping, which this value keeps, aligned to `T`;
        // - the seals, which were seen before a byte was, forbid every write and every change of size, to everybody and for
        //   ever; so the bytes do not change while the borrow lives;
        // - every bit pattern is a `T`.
        unsafe { NonNull::slice_from_raw_parts(self.elements, self.len).as_ref() }
    }
}

impl<T> AsFd for Frozen<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T> fmt::Debug for Frozen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Display for FreezeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Unfrozen::InUse => f.write_str("this process has other handles to the segment"),
            Unfrozen::Busy => f.write_str("another process has the segment mapped for writing"),
            Unfrozen::Named => f.write_str("only an anonymous segment that is open for writing can be frozen"),
            Unfrozen::Object(kind) => write!(f, "the segment holds {kind}, whose users write"),
            Unfrozen::Element { len_bytes, elem_size } => {
                write!(
                    f,
                    "{len_bytes} bytes are no whole number of elements of {elem_size} bytes aligned to at most 128"
                )
            }
            Unfrozen::Os(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FreezeError {}

//! Segments: a header, perhaps a participant table, and one object, in memory that several processes map.
//!
//! # Protocol
//! Create, the same for both kinds of memory ([`anonymous`](crate::anonymous), [`named`](crate::named)):
//! 1. compare the size with the memory there is;
//! 2. an empty file that nobody else can reach;
//! 3. reserve every page, so that a shortage is an error value here and never a SIGBUS later (not of a memfd that is to be
//!    [sparse](crate::Options::sparse): there is no SIGBUS in one, as no file system bounds it);
//! 4. map;
//! 5. the object, then the header, its magic last;
//! 6. hand it out: by fd, or by linking a name.
//!
//! # Crash
//! Until 6 the kernel frees everything with the process; 6 is one system call.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crosslane_core::lock::TableError;
use crosslane_core::prim::{WORD_BYTES, copy_in, copy_out};
use crosslane_core::slab::{CarveError, LookError};
use crosslane_core::{OwnerId, array, latest, mpmc, record, spsc};

use crate::content::{Content, Kind};
use crate::domain::{Domain, DomainError, Probe};
use crate::env::Env;
use crate::header::{Header, HeaderError};
use crate::lease::Lease;
use crate::mapping::Mapping;
use crate::memory::{self, Shortage};
use crate::options::Options;
use crate::reaper;
use crate::slab::notes::Find;
use crate::sys::call::OsError;
use crate::sys::{file, gate};

/// A segment that this process has mapped. Cheap to clone; unmapped when the last clone and the last handle into it are
/// gone.
#[derive(Clone)]
pub struct Segment {
    header: Header,
    map: Arc<Mapping>,
    hold: Hold,
    fd: Arc<OwnedFd>,
}

/// What tells others that this process uses the segment.
#[derive(Clone)]
pub(crate) enum Hold {
    /// It takes part in the segment's lease domain.
    Member(Domain),
    /// It only reads: a shared lock that keeps a named segment from being swept.
    Reader(#[expect(dead_code, reason = "held for its drop")] Arc<Reader>),
}

/// The lease of a read-only opener.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) lease: Lease,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.lease.end(&mut gate::enter());
    }
}

/// Why a segment was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The name is taken: by a segment that somebody has open, by one that is just being opened or removed, or by a file
    /// that is none of ours.
    NameInUse {
        /// The pid of the process that created the segment, in its own pid namespace (it may have ended, and others
        /// have the segment open); `None` for a file that is no segment of this format.
        creator: Option<u32>,
    },
    /// The name leads to a segment that nobody has open, and [`Options::leave_dead`] says to leave such a one as it is:
    /// open it, or remove it with [`sweep`](crate::sweep()).
    NameLeft {
        /// The pid of the process that created the segment, in its own pid namespace.
        creator: u32,
    },
    /// The machine, a control group or the cap of [`Options::memory_cap_bytes`] has less. No page was touched.
    NotEnoughMemory {
        /// Bytes asked for, header and all.
        wanted: u64,
        /// Bytes available.
        available: u64,
    },
    /// The file system is full; or this process may make no file that long (`RLIMIT_FSIZE`, which also counts for memory
    /// files), and to try would have been a SIGXFSZ.
    NoSpace {
        /// Bytes asked for, header and all.
        wanted: u64,
        /// Bytes that it says it has, where it says so; or the limit.
        available: Option<u64>,
    },
    /// This process may not create files there.
    PermissionDenied(OsError),
    /// The file system or kernel lacks what segments need (`O_TMPFILE`, `memfd_create`, `/proc`).
    Unsupported(OsError),
    /// The capacity or the element type does not make a ring.
    Spsc(spsc::RingError),
    /// A semaphore, a barrier or calls cannot have so many places.
    Lock(TableError),
    /// The capacity does not make a ring of records.
    Record(record::RingError),
    /// Length and element type do not make an array.
    Array(array::ArrayError),
    /// Cells and value type do not make a newest value.
    Latest(latest::CellsError),
    /// Capacity, element type or deliveries do not make a queue.
    Queue(mpmc::RingError),
    /// The slab has no room for the object, or its words are corrupt. The one slab that was named, or an empty one of
    /// [`Slabs`](crate::Slabs), which then is too small: the object needs a segment of its own.
    Slab(CarveError),
    /// The value's alignment is above 128 bytes.
    Alignment {
        /// The alignment, in bytes.
        align: usize,
    },
    /// The lease domain could not be joined.
    Domain(DomainError),
    /// Another system call failed.
    Os(OsError),
}

/// Why a segment was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such name.
    NotFound,
    /// This process may not open it.
    PermissionDenied(OsError),
    /// Another process was taking the name away, or opening it, for all of [`Options::open_timeout`].
    Busy,
    /// It is not the segment that was asked for.
    Header(HeaderError),
    /// The memory behind the fd is not sealed against being cut short, so no segment of ours that travels by fd; or not
    /// against being written, so not frozen.
    NotSealed {
        /// The seals found.
        found: i32,
    },
    /// The object has calls that write, and [`Options::read_only`] is set. [`Array`](crate::Array) and
    /// [`Latest`](crate::Latest) have an `open_view`.
    ReadOnly,
    /// The segment's capacity and length do not make a ring.
    Spsc(spsc::RingError),
    /// The segment's capacity and length do not make a semaphore, a barrier or calls.
    Lock(TableError),
    /// The segment's capacity and length do not make a ring of records.
    Record(record::RingError),
    /// The segment's capacity and length do not make an array.
    Array(array::ArrayError),
    /// The segment's capacity and length do not make a newest value.
    Latest(latest::CellsError),
    /// The segment's capacity, element and length do not make a queue.
    Queue(mpmc::RingError),
    /// A header-less segment is no whole number of elements long, empty, or not of the expected length.
    Length {
        /// Its length, in bytes.
        len_bytes: u64,
        /// An element's size, in bytes.
        elem_size: u64,
        /// The number of elements asked for, if one was.
        expected: Option<u64>,
    },
    /// The name that was opened as header-less memory leads to a segment of this project's: open it as what it holds.
    /// Whoever wrote elements there would overwrite its header and its leases.
    HasHeader {
        /// What it says that it holds.
        kind: Kind,
    },
    /// A header-less segment has pages that nobody has reserved, and the machine, a control group or the cap of
    /// [`Options::memory_cap_bytes`] has less memory. No page was touched.
    NotEnoughMemory {
        /// Bytes of these pages.
        wanted: u64,
        /// Bytes available.
        available: u64,
    },
    /// The slab has no such object, or its entry is corrupt.
    Slab(LookError),
    /// The lease domain could not be joined.
    Domain(DomainError),
    /// Another system call failed.
    Os(OsError),
}

/// Why bytes were not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyError {
    /// The range does not lie in the object.
    OutOfBounds {
        /// Where it ends, in bytes from the object's start.
        end: u64,
        /// Length of the object, in bytes.
        len_bytes: u64,
    },
    /// Offset or length is no multiple of 8 bytes.
    Unaligned,
    /// The segment was opened for reading only.
    ReadOnly,
    /// The segment holds an object of this project's, whose handles may lend its memory: only they touch it.
    Object(Kind),
}

/// A segment without its mapping.
pub(crate) struct Parts {
    pub(crate) header: Header,
    pub(crate) fd: Arc<OwnedFd>,
    hold: Hold,
}

impl Segment {
    /// Takes the mapping off, if nobody else in this process has it.
    pub(crate) fn into_parts(self) -> Result<(Parts, Mapping), Box<Self>> {
        let Self { header, map, hold, fd } = self;
        match Arc::try_unwrap(map) {
            Ok(map) => Ok((Parts { header, fd, hold }, map)),
            Err(map) => Err(Box::new(Self { header, map, hold, fd })),
        }
    }

    pub(crate) fn from_parts(parts: Parts, map: Mapping) -> Self {
        let Parts { header, fd, hold } = parts;
        Self { header, map: Arc::new(map), hold, fd }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.map.is_read_only()
    }

    pub(crate) fn new(header: Header, map: Arc<Mapping>, hold: Hold, fd: Arc<OwnedFd>) -> Self {
        if let Hold::Member(domain) = &hold {
            domain.mapped().note(&map, &header);
        }
        Self { header, map, hold, fd }
    }

    /// The header, as it was checked when this process created or opened the segment.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Length of the object, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.header.content.len_bytes
    }

    /// Start and length (bytes) of the object; aligned to 128 bytes. Mapped as long as this segment, a clone, or an
    /// [`Env`] of it lives; for reading only if it was opened so.
    ///
    /// Peers may write it at any time: access it through `crosslane-core`, or atomically.
    #[must_use]
    pub fn object(&self) -> (NonNull<u8>, usize) {
        let (offset, len_bytes) = (self.header.object_offset, self.len_bytes());
        // Both were checked against the mapping's length at open; an empty range is the answer that can do no harm.
        let start = self.map.at(offset, len_bytes);
        start.map_or((NonNull::dangling(), 0), |start| (start, usize::try_from(len_bytes).unwrap_or(0)))
    }

    /// The byte at `offset` from the segment's start; `None` if `len_bytes` from there are not inside.
    pub(crate) fn at(&self, offset: u64, len_bytes: u64) -> Option<NonNull<u8>> {
        self.map.at(offset, len_bytes)
    }

    /// Notes an object of a slab at `offset` from the segment's start; `false` if that cannot be, by what this process knows.
    pub(crate) fn note(&self, offset: u64, content: &Content, find: Find) -> bool {
        let mut gate = gate::enter();
        self.map.notes().get(&mut gate).note(offset, content, find)
    }

    /// Notes the segment's bytes, if it holds no object, whose handles note themselves; `false` as of [`note`](Self::note).
    pub(crate) fn note_bytes(&self) -> bool {
        let &Header { object_offset, content, .. } = &self.header;
        content.kind.is_object() || self.note(object_offset, &content, Find::Any)
    }

    /// Surroundings for handles into this segment; `None` if it was opened for reading only.
    #[must_use]
    pub fn env(&self) -> Option<Env> {
        match &self.hold {
            Hold::Member(domain) => Some(Env::new(domain.clone(), Arc::clone(&self.map))),
            Hold::Reader(_) => None,
        }
    }

    /// The segment's lease domain; `None` if it was opened for reading only.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match &self.hold {
            Hold::Member(domain) => Some(domain),
            Hold::Reader(_) => None,
        }
    }

    /// In a `fork()` child: this segment with a membership of the child's own. Elsewhere a clone.
    ///
    /// If all who had a named segment open died before this, its name may have been swept; the memory is whole.
    ///
    /// # Errors
    /// [`OpenError::Domain`], and [`OpenError::ReadOnly`]: open it again.
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        let domain = self.domain().ok_or(OpenError::ReadOnly)?.rejoin()?;
        Ok(Self::new(self.header, Arc::clone(&self.map), Hold::Member(domain), Arc::clone(&self.fd)))
    }

    /// Repairs what `owner` held in this segment, if it is proven dead, and wakes everybody who waits in it. Reads every
    /// slot of a queue; does not block.
    ///
    /// Seldom needed: waiting calls find the dead whom they wait for, and [`Domain::reap`] repairs all that a process has
    /// mapped. Idempotent; any number of processes may do it at once.
    ///
    /// # Errors
    /// As [`Domain::probe`], and [`DomainError::ReadOnly`].
    ///
    /// # Crash
    /// A process killed inside leaves the rest to the next who calls, and to the waiting.
    pub fn reap(&self, owner: OwnerId) -> Result<Probe, DomainError> {
        let domain = self.domain().ok_or(DomainError::ReadOnly)?;
        let probed = domain.probe(owner)?;
        if probed == Probe::Dead {
            reaper::segment(&self.map, &self.header, domain);
        }
        Ok(probed)
    }

    /// Copies bytes of the object out, which are [bytes](Kind::BYTES) or of a [kind](Kind::custom) of the caller's own.
    /// Does not block; a peer that writes meanwhile means a mixture.
    ///
    /// # Errors
    /// [`CopyError::OutOfBounds`]; [`CopyError::Unaligned`] unless offset and length are multiples of 8 bytes;
    /// [`CopyError::Object`] for a ring's or a lock's segment.
    pub fn copy_out(&self, offset_bytes: u64, out: &mut [u8]) -> Result<(), CopyError> {
        let src = self.words(offset_bytes, out.len())?;
        // SAFETY: `words` checked that the range lies in the mapping, whole words; `out` is private.
        unsafe { copy_out(out.as_mut_ptr(), src.cast(), out.len()) };
        Ok(())
    }

    /// Copies bytes into the object. Does not block; a peer that reads meanwhile sees a mixture.
    ///
    /// # Errors
    /// As [`copy_out`](Self::copy_out), and [`CopyError::ReadOnly`].
    ///
    /// # Crash
    /// A process killed inside leaves a part of the bytes written.
    pub fn copy_in(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), CopyError> {
        if self.map.is_read_only() {
            return Err(CopyError::ReadOnly);
        }
        let dst = self.words(offset_bytes, bytes.len())?;
        // SAFETY: `words` checked that the range lies in the mapping, whole words; `bytes` is private.
        unsafe { copy_in(dst.cast(), bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn words(&self, offset: u64, len: usize) -> Result<NonNull<u8>, CopyError> {
        // By this process's copy of the header: a handle made from it may lend `&T` and `&mut T` to this memory.
        let kind = self.header.content.kind;
        if kind.is_object() {
            return Err(CopyError::Object(kind));
        }
        let (end, len_bytes) = (offset.saturating_add(len as u64), self.len_bytes());
        if end > len_bytes {
            return Err(CopyError::OutOfBounds { end, len_bytes });
        }
        if !offset.is_multiple_of(WORD_BYTES as u64) || !len.is_multiple_of(WORD_BYTES) {
            return Err(CopyError::Unaligned);
        }
        let start = self.map.at(self.header.object_offset.saturating_add(offset), len as u64);
        start.ok_or(CopyError::OutOfBounds { end, len_bytes })
    }
}

impl AsFd for Segment {
    /// The segment's file: for handing an anonymous segment to a child. A named one is handed on by its name.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a new segment has all its pages from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    Reserved,
    Sparse,
}

/// Steps 1, 3 and 4 of creation, around `make_file`, which is step 2.
pub(crate) fn reserve(
    header: Option<Header>,
    options: &Options,
    pages: Pages,
    make_file: impl FnOnce() -> Result<OwnedFd, OsError>,
) -> Result<(Header, OwnedFd, Mapping), CreateError> {
    let (header, fd) = reserve_file(header, options, pages, make_file)?;
    let map = Mapping::new(fd.as_fd(), header.total_len_bytes, false, options.prefault)?;
    Ok((header, fd, map))
}

/// Steps 1 and 3 of creation, around `make_file`, which is step 2.
pub(crate) fn reserve_file(
    header: Option<Header>,
    options: &Options,
    pages: Pages,
    make_file: impl FnOnce() -> Result<OwnedFd, OsError>,
) -> Result<(Header, OwnedFd), CreateError> {
    let wanted = header.as_ref().map_or(u64::MAX, |header| header.total_len_bytes);
    check_size(wanted, options)?;
    let header = header.ok_or(CreateError::NotEnoughMemory { wanted, available: u64::MAX })?;
    let fd = make_file()?;
    let sized = match pages {
        Pages::Reserved => file::reserve(fd.as_fd(), wanted),
        Pages::Sparse => file::set_len(fd.as_fd(), wanted),
    };
    sized.map_err(|error| no_space(error, wanted, fd.as_fd()))?;
    Ok((header, fd))
}

/// Step 1 of creation: checks that there are `wanted` bytes, and that a file may be that long.
pub(crate) fn check_size(wanted: u64, options: &Options) -> Result<(), CreateError> {
    memory::check(wanted, options.memory_cap_bytes)
        .map_err(|Shortage { available }| CreateError::NotEnoughMemory { wanted, available })?;
    let limit = file::len_limit();
    if wanted > limit {
        return Err(CreateError::NoSpace { wanted, available: Some(limit) });
    }
    Ok(())
}

/// More bytes are wanted than any memory has.
#[cold]
pub(crate) fn not_enough(wanted: u64) -> CreateError {
    CreateError::NotEnoughMemory { wanted, available: memory::available() }
}

/// What `error` of a reservation says.
pub(crate) fn no_space(error: OsError, wanted: u64, fd: BorrowedFd<'_>) -> CreateError {
    match error.errno {
        libc::ENOSPC | libc::ENOMEM | libc::EFBIG => CreateError::NoSpace { wanted, available: file::free_bytes(fd) },
        _ => error.into(),
    }
}

/// Step 5 of creation.
pub(crate) fn fill(
    header: &Header,
    map: &Mapping,
    init: impl FnOnce(NonNull<u8>, usize) -> Result<(), CreateError>,
) -> Result<(), CreateError> {
    let len = header.content.len_bytes;
    if let (Some(object), Ok(len)) = (map.at(header.object_offset, len), usize::try_from(len)) {
        init(object, len)?;
    }
    header.write(map);
    Ok(())
}

/// For objects whose valid start is all zero, which new memory is.
pub(crate) fn zeroed(_: NonNull<u8>, _: usize) -> Result<(), CreateError> {
    Ok(())
}

/// What an object's creator wants to hold: the content of a segment of bytes.
pub(crate) fn bytes(len_bytes: u64) -> Content {
    Content::bytes(len_bytes)
}

impl From<OsError> for CreateError {
    fn from(error: OsError) -> Self {
        match error.errno {
            _ if error.is_permission() => Self::PermissionDenied(error),
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EISDIR => Self::Unsupported(error),
            _ => Self::Os(error),
        }
    }
}

impl From<OsError> for OpenError {
    fn from(error: OsError) -> Self {
        match error.errno {
            _ if error.is_permission() => Self::PermissionDenied(error),
            libc::ENOENT => Self::NotFound,
            _ => Self::Os(error),
        }
    }
}

impl From<DomainError> for CreateError {
    fn from(error: DomainError) -> Self {
        Self::Domain(error)
    }
}

impl From<DomainError> for OpenError {
    fn from(error: DomainError) -> Self {
        Self::Domain(error)
    }
}

impl From<HeaderError> for OpenError {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

impl From<TableError> for CreateError {
    fn from(error: TableError) -> Self {
        Self::Lock(error)
    }
}

impl From<TableError> for OpenError {
    fn from(error: TableError) -> Self {
        Self::Lock(error)
    }
}

impl From<spsc::RingError> for CreateError {
    fn from(error: spsc::RingError) -> Self {
        Self::Spsc(error)
    }
}

impl From<spsc::RingError> for OpenError {
    fn from(error: spsc::RingError) -> Self {
        Self::Spsc(error)
    }
}

impl From<record::RingError> for CreateError {
    fn from(error: record::RingError) -> Self {
        Self::Record(error)
    }
}

impl From<array::ArrayError> for CreateError {
    fn from(error: array::ArrayError) -> Self {
        Self::Array(error)
    }
}

impl From<array::ArrayError> for OpenError {
    fn from(error: array::ArrayError) -> Self {
        Self::Array(error)
    }
}

impl From<latest::CellsError> for CreateError {
    fn from(error: latest::CellsError) -> Self {
        Self::Latest(error)
    }
}

impl From<latest::CellsError> for OpenError {
    fn from(error: latest::CellsError) -> Self {
        Self::Latest(error)
    }
}

impl From<mpmc::RingError> for CreateError {
    fn from(error: mpmc::RingError) -> Self {
        Self::Queue(error)
    }
}

impl From<record::RingError> for OpenError {
    fn from(error: record::RingError) -> Self {
        Self::Record(error)
    }
}

impl From<mpmc::RingError> for OpenError {
    fn from(error: mpmc::RingError) -> Self {
        Self::Queue(error)
    }
}

impl From<CarveError> for CreateError {
    fn from(error: CarveError) -> Self {
        Self::Slab(error)
    }
}

impl From<LookError> for OpenError {
    fn from(error: LookError) -> Self {
        Self::Slab(error)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = if self.header.has_table { "named" } else { "anonymous" };
        let Content { kind, len_bytes, .. } = self.header.content;
        let mut all = f.debug_struct("Segment");
        all.field("kind", &kind).field("len_bytes", &len_bytes).field("memory", &format_args!("{memory}"));
        match &self.hold {
            Hold::Member(domain) => all.field("me", &domain.me()),
            Hold::Reader(_) => all.field("me", &format_args!("reader")),
        }
        .finish()
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameInUse { creator: Some(pid) } => {
                write!(f, "the name is in use by a living process (created by process {pid}, which may have ended)")
            }
            Self::NameLeft { creator } => write!(
                f,
                "the name leads to a dead segment (created by process {creator}), and `Options::leave_dead` keeps it: \
                 open it, or sweep it away"
            ),
            Self::NameInUse { creator: None } => f.write_str("the name is in use by something that is no segment"),
            Self::NotEnoughMemory { wanted, available } => {
                write!(f, "{wanted} bytes wanted, and {available} bytes of memory are available")
            }
            Self::NoSpace { wanted, available: Some(available) } => {
                write!(f, "{wanted} bytes wanted, and the file system has {available} left")
            }
            Self::NoSpace { wanted, available: None } => write!(f, "{wanted} bytes wanted, and there is no space"),
            Self::PermissionDenied(error) | Self::Os(error) => error.fmt(f),
            Self::Unsupported(error) => write!(f, "the system lacks what segments need: {error}"),
            Self::Spsc(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Record(error) => error.fmt(f),
            Self::Array(error) => error.fmt(f),
            Self::Latest(error @ latest::CellsError::Cells { .. }) => write!(f, "`Options::cells`: {error}"),
            Self::Latest(error) => error.fmt(f),
            Self::Queue(error @ mpmc::RingError::Attempts { .. }) => write!(f, "`Options::max_deliveries`: {error}"),
            Self::Queue(error) => error.fmt(f),
            Self::Slab(error) => error.fmt(f),
            Self::Alignment { align } => write!(f, "a value aligned to {align} bytes: at most 128 is possible"),
            Self::Domain(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no segment of that name"),
            Self::Busy => f.write_str("another process is opening or removing the name"),
            Self::Header(error) => error.fmt(f),
            Self::NotSealed { found } => write!(f, "the memory is not sealed as it must be (seals {found:#x})"),
            Self::NotEnoughMemory { wanted, available } => {
                write!(f, "{wanted} bytes wanted, and {available} bytes of memory are available")
            }
            Self::Length { len_bytes, elem_size, expected: Some(expected) } => {
                write!(f, "{len_bytes} bytes found, {expected} elements of {elem_size} bytes expected")
            }
            Self::Length { len_bytes, elem_size, expected: None } => {
                write!(f, "{len_bytes} bytes are no whole number of elements of {elem_size} bytes, or none")
            }
            Self::HasHeader { kind } => write!(f, "a crosslane segment, which holds {kind}, and no header-less memory"),
            Self::ReadOnly => f.write_str(
                "this object cannot be used with `Options::read_only`; an array or a newest value can, by `open_view`",
            ),
            Self::Spsc(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Record(error) => error.fmt(f),
            Self::Array(error) => error.fmt(f),
            Self::Latest(error) => error.fmt(f),
            Self::Queue(error) => error.fmt(f),
            Self::Slab(error) => error.fmt(f),
            Self::Domain(error) => error.fmt(f),
            Self::PermissionDenied(error) | Self::Os(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { end, len_bytes } => write!(f, "byte {end} of an object of {len_bytes} bytes"),
            Self::Unaligned => f.write_str("offset and length must be multiples of 8 bytes"),
            Self::Object(kind) => write!(f, "the segment holds {kind}, whose memory only its handles touch"),
            Self::ReadOnly => f.write_str("the segment is open for reading only"),
        }
    }
}

impl std::error::Error for CreateError {}
impl std::error::Error for OpenError {}
impl std::error::Error for CopyError {}

//! Anonymous segments: memory without a name, which travels by file descriptor and is freed with its last user.
//!
//! A memfd with its size sealed, so that nobody can cut it short under a mapping. Leases: the domain of the process
//! family, which itself is such a segment with nothing but a participant table in it.
//!
//! # Crash
//! Nothing can be left behind: the kernel frees the memory when the last fd and the last mapping are gone.

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::content::{Content, Expected, Kind};
use crate::domain::{Domain, DomainError, Ground};
use crate::header::{Header, HeaderError, TABLE_OFFSET};
use crate::mapping::Mapping;
use crate::options::Options;
use crate::segment::{self, CreateError, Hold, OpenError, Pages, Segment};
use crate::sys::call::OsError;
use crate::sys::file;
use crate::sys::gate::{self, Gated};

static FAMILY: Gated<Option<Domain>> = Gated::new(None);
/// The family that this process is to join when it first needs one.
static EXPECTED: Gated<Option<Arc<OwnedFd>>> = Gated::new(None);

const DOMAIN: Content = Content { kind: Kind::DOMAIN, ..Content::bytes(0) };

impl Segment {
    /// Creates a segment of `len_bytes` zero bytes in the family's domain.
    ///
    /// Blocks for the reservation of the memory (0.4 us for each page); small ones take about as long as the bare system
    /// calls (10 us).
    ///
    /// # Errors
    /// [`CreateError`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, Segment};
    ///
    /// let segment = Segment::anonymous(1024, &Options::new())?;
    /// segment.copy_in(8, b"8 bytes.").unwrap();
    /// # Ok::<(), crosslane_shm::CreateError>(())
    /// ```
    pub fn anonymous(len_bytes: u64, options: &Options) -> Result<Self, CreateError> {
        Self::anonymous_with(segment::bytes(len_bytes), options, &Domain::family()?, segment::zeroed)
    }

    /// Creates a segment with `content` in `domain`; `init` is given the object's memory, all zero and aligned to 128
    /// bytes, before anybody else can reach it.
    ///
    /// # Errors
    /// [`CreateError`], also the one that `init` returns.
    pub fn anonymous_with(
        content: Content,
        options: &Options,
        domain: &Domain,
        init: impl FnOnce(NonNull<u8>, usize) -> Result<(), CreateError>,
    ) -> Result<Self, CreateError> {
        let pages = if options.sparse { Pages::Sparse } else { Pages::Reserved };
        let header = Header::new(content, Some(domain.id()));
        let (header, fd, map) = segment::reserve(header, options, pages, file::memfd)?;
        file::seal_size(fd.as_fd())?;
        segment::fill(&header, &map, init)?;
        Ok(Self::new(header, Arc::new(map), Hold::Member(domain.clone()), Arc::new(fd)))
    }

    /// Opens a segment that came as a file descriptor from a process of this family.
    ///
    /// Trust in the sender is part of the contract. The checks catch an accident: another kind, type or family. They
    /// cannot catch a sender that writes the memory of a ring or lock against its protocol, and `Mutex::from_fd`,
    /// `Spsc::from_fd` and `Record::from_fd` give handles that lend that memory in place: pass them only fds that this
    /// family's processes made by the same types. A segment that comes from elsewhere is for the named objects, which
    /// work on copies.
    ///
    /// # Errors
    /// [`OpenError::NotSealed`], [`OpenError::Header`] (also `WrongDomain`), [`OpenError::Domain`], [`OpenError::Os`].
    pub fn from_fd(fd: OwnedFd, expected: &Expected, options: &Options) -> Result<Self, OpenError> {
        let domain = Domain::family().map_err(|error| match error {
            CreateError::Domain(error) => OpenError::Domain(error),
            CreateError::Os(error) | CreateError::Unsupported(error) | CreateError::PermissionDenied(error) => {
                OpenError::Os(error)
            }
            _ => OpenError::Os(crate::OsError { call: "memfd_create", errno: libc::ENOMEM }),
        })?;
        Self::from_fd_in(fd, expected, options, &domain)
    }

    /// As [`from_fd`](Self::from_fd), for a segment of `domain`.
    ///
    /// # Errors
    /// As `from_fd`.
    pub fn from_fd_in(fd: OwnedFd, expected: &Expected, options: &Options, domain: &Domain) -> Result<Self, OpenError> {
        let (header, map) = open_sealed(&fd, options)?;
        header.expect(expected)?;
        header.expect_domain(domain.id())?;
        Ok(Self::new(header, Arc::new(map), Hold::Member(domain.clone()), Arc::new(fd)))
    }
}

impl Domain {
    /// The lease domain of this process's family: the one that was joined by [`join_family`](Self::join_family), else
    /// the one that is [expected](Self::expect_family), or a new one at the first call. In a `fork()` child: the
    /// parent's, joined anew.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn family() -> Result<Self, CreateError> {
        let known = known_family();
        match known {
            Some(domain) if !domain.is_forked() => Ok(domain),
            Some(domain) => Ok(adopt(domain.rejoin()?)),
            None => match expected_family() {
                Some(fd) => join_expected(&fd),
                None => Ok(adopt(new_family()?)),
            },
        }
    }

    /// Says which family this process belongs to, by the file descriptor of its domain, without joining it: the first
    /// use of the [family](Self::family) joins. A process that never uses it pays a descriptor and nothing else.
    ///
    /// For the start of a child process. A process that has a family keeps it.
    pub fn expect_family(fd: OwnedFd) {
        // Bound outside the gate, and so closed there.
        let _unused = replace_expected(Some(Arc::new(fd)));
    }

    /// Joins the family whose domain came as a file descriptor. To be called before anything else makes this process's
    /// own family.
    ///
    /// # Errors
    /// [`DomainError::OtherFamily`] if this process belongs to another one already; else as [`Segment::from_fd`].
    pub fn join_family(fd: OwnedFd) -> Result<Self, OpenError> {
        let (header, map) = open_sealed(&fd, &Options::new())?;
        header.expect(&Expected { kind: Kind::DOMAIN, ..Expected::bytes() })?;
        header.expect_domain(header.segment_id)?;
        if !header.has_table {
            let (found, expected) = (header.object_offset, header.total_len_bytes);
            return Err(HeaderError::Layout { found, expected }.into());
        }
        if let Some(known) = known_family()
            && known.id() != header.domain_id
        {
            return Err(DomainError::OtherFamily.into());
        }
        let family = adopt(join(fd, map, &header)?);
        if family.id() == header.domain_id { Ok(family) } else { Err(DomainError::OtherFamily.into()) }
    }
}

fn known_family() -> Option<Domain> {
    FAMILY.get(&mut gate::enter()).clone()
}

fn expected_family() -> Option<Arc<OwnedFd>> {
    EXPECTED.get(&mut gate::enter()).clone()
}

fn replace_expected(fd: Option<Arc<OwnedFd>>) -> Option<Arc<OwnedFd>> {
    let mut gate = gate::enter();
    mem::replace(EXPECTED.get(&mut gate), fd)
}

/// Joins the family that is expected. It stays expected until then, so that no other thread makes a family meanwhile.
fn join_expected(fd: &OwnedFd) -> Result<Domain, CreateError> {
    let duplicate = fd.try_clone().map_err(|error| OsError {
        call: "fcntl(F_DUPFD_CLOEXEC)",
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    })?;
    let family = Domain::join_family(duplicate).map_err(|error| match error {
        OpenError::Domain(error) => CreateError::Domain(error),
        OpenError::Os(error) => CreateError::Os(error),
        // Whatever came is no family's domain.
        _ => CreateError::Domain(DomainError::OtherFamily),
    })?;
    let _unused = replace_expected(None);
    Ok(family)
}

/// Makes `domain` this process's family, unless another thread was faster; returns what is.
fn adopt(domain: Domain) -> Domain {
    // Bound outside the gate: a domain's last drop enters it.
    let (family, _unused) = replace_family(domain);
    family
}

fn replace_family(domain: Domain) -> (Domain, Option<Domain>) {
    let mut gate = gate::enter();
    let family = FAMILY.get(&mut gate);
    match family {
        Some(known) if !known.is_forked() => (known.clone(), Some(domain)),
        _ => (domain.clone(), family.replace(domain)),
    }
}

fn new_family() -> Result<Domain, CreateError> {
    let (header, fd, map) = segment::reserve(Header::new(DOMAIN, None), &Options::new(), Pages::Reserved, file::memfd)?;
    file::seal_size(fd.as_fd())?;
    segment::fill(&header, &map, segment::zeroed)?;
    Ok(join(fd, map, &header)?)
}

fn join(fd: OwnedFd, map: Mapping, header: &Header) -> Result<Domain, DomainError> {
    let key = file::stat(fd.as_fd())?.key;
    let (fd, map) = (Arc::new(fd), Arc::new(map));
    Domain::join(Ground { fd, map, key, table_offset: TABLE_OFFSET, domain_id: header.domain_id })
}

/// Maps a segment that came as a file descriptor, after checking its seals.
fn open_sealed(fd: &OwnedFd, options: &Options) -> Result<(Header, Mapping), OpenError> {
    let found = file::seals(fd.as_fd())?;
    if found & file::SIZE_SEALS != file::SIZE_SEALS {
        return Err(OpenError::NotSealed { found });
    }
    let len_bytes = file::stat(fd.as_fd())?.len_bytes;
    let map = Mapping::new(fd.as_fd(), len_bytes, false, options.prefault)?;
    let header = Header::read(&map, len_bytes)?;
    Ok((header, map))
}

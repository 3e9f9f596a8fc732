//! Named segments: unrelated processes meet by a name.
//!
//! # What
//! A file in `/dev/shm` that is a lease domain of its own: two programs need nothing but the name. The name appears only
//! when the segment is whole and its creator's lease is held, and it is removed by the [`Owner`]'s drop, by
//! [`sweep`](crate::sweep()), or by the next creator of the name after everybody who had it open is dead.
//!
//! # Protocol
//! Creator:
//! 1. large segments: the name leads to a living segment: `NameInUse`, before any memory is reserved;
//! 2. `O_TMPFILE`: a file without a name; reserve, map, object, header;
//! 3. take the lease;
//! 4. `linkat`: the name appears, in one step;
//! 5. the name exists: take it away from a dead leftover (`takeover.rs`) and go to 4; from a living
//!    one: `NameInUse`; a dead one that is to be left alone: `NameLeft`; somebody opens or removes it: wait, until the deadline.
//!
//! Opener: see `takeover.rs`.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | creator 2 and 4 | nothing: the kernel frees the file |
//! | creator 5, taken away, and 4 | no such name |
//! | creator after 4 | a name whose leases are free when the last user is gone: swept, or replaced by the next creator |
//! | an owner's drop | the name, or no name; in both cases the users go on |

use std::ffi::CString;
use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::{Content, Expected};
use crate::domain::{Domain, DomainError, Ground};
use crate::header::{Header, HeaderError, MAGIC, TABLE_OFFSET};
use crate::lease::{Lease, Window};
use crate::mapping::Mapping;
use crate::name::Name;
use crate::options::Options;
use crate::segment::{self, CreateError, Hold, OpenError, Reader, Segment};
use crate::sys::call::OsError;
use crate::sys::file::{self, FileKey, Stat};
use crate::sys::gate::{self, Entered};
use crate::sys::lock::{Bytes, Mode};
use crate::sys::slot::Slot;
use crate::takeover::{self, Takeover, Vacated};

/// Up to this size a creator finds out by step 4 alone that its name is taken: reserving costs no more than looking.
const CHEAP_BYTES: u64 = 64 << 10;

/// Not 0, and no participant's id: what a reader's slot says.
const READER: u32 = u32::MAX;

/// What a process has that created a named segment: dropping it removes the name. Whoever has the segment open goes on.
///
/// A drop in a `fork()` child removes nothing, nor does one after the name has come to lead to another segment. If the
/// process is killed, the name stays until the last user is gone and somebody sweeps or creates it anew.
#[must_use = "dropping the owner removes the name"]
pub struct Owner<T> {
    attached: Attached<T>,
    tie: Tie,
}

/// What a process has that opened a named segment: dropping it never removes the name.
#[must_use]
pub struct Attached<T> {
    object: T,
    name: Name,
}

/// The name's file, for an owner to remove.
struct Tie {
    path: CString,
    domain: Domain,
    is_kept: bool,
}

impl Drop for Tie {
    fn drop(&mut self) {
        if !self.is_kept && !self.domain.is_forked() {
            // A drop cannot report; the name is left to a sweep.
            let _ = takeover::unlink_own(&self.path, self.domain.key());
        }
    }
}

impl<T> Owner<T> {
    /// Gives up the duty to remove the name: it stays until the last user is gone and somebody sweeps.
    pub fn keep(mut self) -> Attached<T> {
        self.tie.is_kept = true;
        self.attached
    }

    /// The same segment seen as another object.
    pub(crate) fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Owner<U>, E> {
        let Self { attached, tie } = self;
        Ok(Owner { attached: attached.try_map(f)?, tie })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.attached.name
    }
}

impl<T> Attached<T> {
    /// The same segment seen as another object.
    pub(crate) fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Attached<U>, E> {
        Ok(Attached { object: f(self.object)?, name: self.name })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl<T: fmt::Debug> fmt::Debug for Owner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attached { object, name } = &self.attached;
        f.debug_struct("Owner").field("name", &name.as_str()).field("object", object).finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Attached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("name", &self.name.as_str()).field("object", &self.object).finish()
    }
}

impl<T> Deref for Owner<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.attached.object
    }
}

impl<T> Deref for Attached<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.object
    }
}

impl Segment {
    /// Creates a segment of `len_bytes` zero bytes under `name`.
    ///
    /// A dead leftover of that name is replaced, unless [`Options::leave_dead`] is set. Blocks for the reservation of the
    /// memory, and while another process is opening or removing the name, at most for [`Options::open_timeout`].
    ///
    /// # Errors
    /// [`CreateError`].
    ///
    /// # Crash
    /// A process killed inside leaves nothing, or the whole segment under its name.
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Expected, Name, Options, Segment};
    ///
    /// let (name, options) = (Name::random(), Options::new());
    /// let owner = Segment::create(&name, 64, &options)?;
    /// let attached = Segment::open(&name, &Expected::bytes(), &options)?;
    /// owner.copy_in(0, b"shared!!")?;
    /// let mut seen = [0; 8];
    /// attached.copy_out(0, &mut seen)?;
    /// assert_eq!(&seen, b"shared!!");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &Name, len_bytes: u64, options: &Options) -> Result<Owner<Self>, CreateError> {
        Self::create_with(name, segment::bytes(len_bytes), options, segment::zeroed)
    }

    /// As [`create`](Self::create), with `content`; `init` is given the object's memory, all zero and aligned to 128
    /// bytes, before anybody else can reach it.
    ///
    /// # Errors
    /// [`CreateError`], also the one that `init` returns.
    pub fn create_with(
        name: &Name,
        content: Content,
        options: &Options,
        init: impl FnOnce(NonNull<u8>, usize) -> Result<(), CreateError>,
    ) -> Result<Owner<Self>, CreateError> {
        let path = path(name, options)?;
        let deadline = deadline(options);
        if content.len_bytes > CHEAP_BYTES && file::stat_path(&path)?.is_some() {
            make_room(&path, options, deadline)?;
        }
        let make_file = || file::tmpfile(&options.directory, options.mode);
        let (header, fd, map) =
            segment::reserve(Header::new(content, None), options, segment::Pages::Reserved, make_file)?;
        segment::fill(&header, &map, init)?;
        let key = file::stat(fd.as_fd())?.key;
        let (fd, map) = (Arc::new(fd), Arc::new(map));
        let ground = ground(&fd, &map, key, &header);
        let domain = Domain::join(ground)?;
        loop {
            match file::link(fd.as_fd(), &path) {
                Ok(()) => break,
                Err(error) if error.errno == libc::EEXIST => make_room(&path, options, deadline)?,
                Err(error) => return Err(error.into()),
            }
        }
        let tie = Tie { path, domain: domain.clone(), is_kept: false };
        let segment = Self::new(header, map, Hold::Member(domain), fd);
        // A new mapping: nothing else is known there.
        segment.note_bytes();
        Ok(Owner { attached: Attached { object: segment, name: name.clone() }, tie })
    }

    /// Opens the segment `name`, and joins its lease domain (with [`Options::read_only`]: only keeps it from being
    /// swept).
    ///
    /// A segment whose users are all dead can be opened as long as nobody has swept it. A second open in a process shares
    /// the first one's membership and mapping. Blocks while another process is removing the name, at most for
    /// [`Options::open_timeout`], and while there is no such name for [`Options::name_timeout`].
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Crash
    /// A process killed inside leaves no trace.
    pub fn open(name: &Name, expected: &Expected, options: &Options) -> Result<Attached<Self>, OpenError> {
        let path = path(name, options)?;
        let mut deadline = deadline(options);
        let name_deadline = Instant::now().checked_add(options.name_timeout);
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| Instant::now() >= deadline);
        loop {
            match try_open(&path, expected, options) {
                Ok(Some(object)) if object.note_bytes() => return Ok(Attached { object, name: name.clone() }),
                // The header said otherwise when this process first looked.
                Ok(Some(object)) => {
                    let total = object.header().total_len_bytes;
                    return Err(HeaderError::Layout { found: total, expected: total }.into());
                }
                Ok(None) if is_over(deadline) => return Err(OpenError::Busy),
                Ok(None) => std::thread::sleep(takeover::RETRY),
                Err(OpenError::NotFound) if !is_over(name_deadline) => {
                    std::thread::sleep(NAME_LOOK);
                    // Nobody is in the way of a name that is not there.
                    deadline = self::deadline(options);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// How often an open looks for a name that is not there yet.
const NAME_LOOK: Duration = Duration::from_millis(2);

/// Where `name` leads to, whatever this process's current directory will be when the owner removes it.
fn path(name: &Name, options: &Options) -> Result<CString, OsError> {
    let path = std::path::absolute(options.directory.join(name.as_str()));
    file::c_path(&path.map_err(|error| OsError::from_io("getcwd", &error))?)
}

/// When to give up; `None` is never.
fn deadline(options: &Options) -> Option<Instant> {
    Instant::now().checked_add(options.open_timeout)
}

fn ground(fd: &Arc<OwnedFd>, map: &Arc<Mapping>, key: FileKey, header: &Header) -> Ground {
    Ground { fd: Arc::clone(fd), map: Arc::clone(map), key, table_offset: TABLE_OFFSET, domain_id: header.domain_id }
}

/// Step 5 of creation: returns when the name may be free.
fn make_room(path: &CString, options: &Options, deadline: Option<Instant>) -> Result<(), CreateError> {
    loop {
        let creator = match takeover::vacate(path, options.leave_dead)? {
            Vacated::Removed | Vacated::Gone => return Ok(()),
            Vacated::Living { creator } => return Err(CreateError::NameInUse { creator: Some(creator) }),
            Vacated::Left { creator } => return Err(CreateError::NameLeft { creator }),
            Vacated::Foreign => return Err(CreateError::NameInUse { creator: None }),
            Vacated::Busy { creator } => creator,
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(CreateError::NameInUse { creator: Some(creator) });
        }
        std::thread::sleep(takeover::RETRY);
    }
}

/// One round of opening; `None`: start over.
fn try_open(path: &CString, expected: &Expected, options: &Options) -> Result<Option<Segment>, OpenError> {
    let fd = file::open(path, options.read_only)?;
    let stat = file::stat(fd.as_fd())?;
    if !stat.is_file {
        return Err(HeaderError::NotACrosslaneSegment { found: 0, expected: MAGIC }.into());
    }
    if !options.read_only
        && let Some(domain) = Domain::of_file(stat.key)
    {
        // This process's own lease keeps the segment from being swept.
        let header = checked_header(domain.map(), &stat, expected)?;
        let (map, fd) = (Arc::clone(domain.map()), Arc::clone(domain.fd()));
        return Ok(Some(Segment::new(header, map, Hold::Member(domain), fd)));
    }
    let map = Arc::new(Mapping::new(fd.as_fd(), stat.len_bytes, options.read_only, options.prefault)?);
    let header = checked_header(&map, &stat, expected)?;
    let fd = Arc::new(fd);
    let hold = hold(path, &ground(&fd, &map, stat.key, &header), options.read_only)?;
    Ok(hold.map(|hold| Segment::new(header, map, hold, fd)))
}

fn checked_header(map: &Mapping, stat: &Stat, expected: &Expected) -> Result<Header, HeaderError> {
    let header = Header::read(map, stat.len_bytes)?;
    header.expect(expected)?;
    // A named segment is its own domain.
    header.expect_domain(header.segment_id)?;
    if header.has_table {
        Ok(header)
    } else {
        Err(HeaderError::Layout { found: header.object_offset, expected: header.total_len_bytes })
    }
}

/// Steps 2 to 5 of opening; `None`: start over.
fn hold(path: &CString, ground: &Ground, read_only: bool) -> Result<Option<Hold>, OpenError> {
    // Declared before the gate, so dropped behind it, on every way out: last drops enter the gate themselves.
    let mut stale = None;
    let mut taken;
    let mut gate = gate::enter();
    // Declared behind the gate, so unlocked inside it.
    let Some(_byte) = Takeover::try_lock(&gate, ground.fd.as_fd(), Mode::Read)? else { return Ok(None) };
    taken = Some(take(&mut gate, ground, read_only, &mut stale)?);
    let is_there = takeover::leads_to(path, ground.key)?;
    Ok(if is_there { taken.take() } else { None })
}

fn take(gate: &mut Entered, ground: &Ground, read_only: bool, stale: &mut Option<Domain>) -> Result<Hold, OpenError> {
    if read_only {
        return Ok(Hold::Reader(Arc::new(Reader { lease: read_lease(gate, &ground.fd)? })));
    }
    Ok(Hold::Member(Domain::join_or_share(gate, ground.clone(), stale)?))
}

fn read_lease(gate: &mut Entered, fd: &OwnedFd) -> Result<Lease, DomainError> {
    let slot = Slot::take(gate)?;
    let page = (|| {
        let window = Window::open(gate, fd.as_fd(), Mode::Read)?;
        if window.try_lock(Bytes::READERS)? {
            window.into_page()
        } else {
            Err(OsError { call: "fcntl(F_OFD_SETLK)", errno: libc::EAGAIN })
        }
    })();
    match page {
        Ok(page) => Ok(Lease::new(page, slot, READER)),
        Err(error) => {
            slot.give_back(gate);
            Err(error.into())
        }
    }
}

//! How to create and open segments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crosslane_core::WakeMode;
use crosslane_core::latest::DEFAULT_CELLS;

use crate::slab::{DEFAULT_SLAB_BYTES, SLAB_BYTES};

/// Mappings longer than this are not prefaulted as a whole, in bytes.
pub const MAX_PREFAULT_BYTES: u64 = 256 << 20;

/// How to create or open a segment; `Options::new()` is right for most.
///
/// # Examples
/// ```
/// use crosslane_shm::Options;
///
/// let options = Options::new().mode(0o660).prefault(true);
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) directory: PathBuf,
    pub(crate) mode: u32,
    pub(crate) prefault: bool,
    pub(crate) sparse: bool,
    pub(crate) read_only: bool,
    pub(crate) memory_cap_bytes: Option<u64>,
    pub(crate) open_timeout: Duration,
    pub(crate) name_timeout: Duration,
    pub(crate) wake: Option<WakeMode>,
    pub(crate) max_deliveries: u32,
    pub(crate) leave_dead: bool,
    pub(crate) slab_bytes: u32,
    pub(crate) slab_objects: Option<u32>,
    pub(crate) cells: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Directory `/dev/shm`, mode 0600, every page allocated and no prefault, read and write, no cap, an open timeout of 1 s, no wait for a name, the wake mode that
    /// the object likes best, 3 deliveries, slabs of 64 KiB, 3 cells.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: PathBuf::from("/dev/shm"),
            mode: 0o600,
            prefault: false,
            sparse: false,
            read_only: false,
            memory_cap_bytes: None,
            open_timeout: Duration::from_secs(1),
            name_timeout: Duration::ZERO,
            wake: None,
            max_deliveries: 3,
            leave_dead: false,
            slab_bytes: DEFAULT_SLAB_BYTES,
            slab_objects: None,
            cells: DEFAULT_CELLS,
        }
    }

    /// Where named segments live: a directory on a file system that supports `O_TMPFILE` and shared mappings, best a
    /// tmpfs.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = directory.as_ref().to_path_buf();
        self
    }

    /// Permission bits of a named segment's file, taken as they are: the umask does not apply.
    ///
    /// Whoever may write may also disturb: block an open, hide a death by locks, cut the file short (SIGBUS).
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Map with every page present (`MAP_POPULATE`), up to [`MAX_PREFAULT_BYTES`]: 0.13-0.18 us for each page at once
    /// in place of 1.0 us at its first use.
    #[must_use]
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// An anonymous segment's pages are allocated one by one, each at its first use, and not all at creation: for one of
    /// which little may ever be used. A page costs some 0.7 us then, and a shortage of memory ends a process, as it does for
    /// memory of `malloc`, where it would be an error of the creation. The size is compared with what there is all the same.
    ///
    /// Named segments do not heed it: there a shortage would be a SIGBUS.
    #[must_use]
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// Open for reading only: the opener keeps the segment from being swept, and can own nothing in it. Only for
    /// segments as such, and what has an `open_view` ([`Array`](crate::Array), [`Latest`](crate::Latest)); not for rings and
    /// locks.
    ///
    /// No protection against this process's own user, who can open the file again for writing.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The largest segment that may be created, in bytes, whatever memory there is; and the most that opening a
    /// [`RawSegment`](crate::RawSegment) may reserve.
    #[must_use]
    pub fn memory_cap_bytes(mut self, cap: u64) -> Self {
        self.memory_cap_bytes = Some(cap);
        self
    }

    /// How long an open waits for a name that is not there yet, before it says
    /// [`NotFound`](crate::OpenError::NotFound): it looks every 2 ms. Zero, the default, does not wait; `Duration::MAX` never
    /// gives up.
    #[must_use]
    pub fn name_timeout(mut self, timeout: Duration) -> Self {
        self.name_timeout = timeout;
        self
    }

    /// How long an open, or a create over an existing name, waits while another process takes that name away or opens
    /// it. Such a process needs microseconds, unless it is stopped in the middle. For a name that is not there yet, see
    /// [`name_timeout`](Self::name_timeout).
    #[must_use]
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Length of a new [`Slab`](crate::Slab)'s segment, in bytes: header, directory and room for objects. Taken to the
    /// nearest in [`SLAB_BYTES`], a whole number of pages.
    #[must_use]
    pub fn slab_bytes(mut self, bytes: u32) -> Self {
        self.slab_bytes = bytes.clamp(*SLAB_BYTES.start(), *SLAB_BYTES.end()).next_multiple_of(4096);
        self
    }

    /// How many objects a new [`Slab`](crate::Slab) can hold at most, 1 or more; each takes 48 bytes of its directory. If
    /// nobody says, one for each 128 bytes, which suits locks; a slab of fewer, larger objects has more room for them.
    #[must_use]
    pub fn slab_objects(mut self, objects: u32) -> Self {
        self.slab_objects = Some(objects.max(1));
        self
    }

    /// Creating a [`Latest`](crate::Latest): how many cells it has, 2..=255. A reader of large values whose writer is fast
    /// is disturbed less often with more. Written into the segment; nothing to an opener.
    #[must_use]
    pub fn cells(mut self, cells: u32) -> Self {
        self.cells = cells;
        self
    }

    /// Creating under a name: a segment that nobody has open any more keeps it, and the creation fails with
    /// [`NameLeft`](crate::CreateError::NameLeft), where it would be replaced.
    ///
    /// For what outlives its users, like the jobs in a queue: open it, and only if there is none create it. Somebody else may
    /// create it, use it and end between the two.
    #[must_use]
    pub fn leave_dead(mut self, leave: bool) -> Self {
        self.leave_dead = leave;
        self
    }

    /// How wakers find sleepers. Creating: written into the segment (left out: what the object likes best).
    /// Opening: what must be found (left out: any).
    #[must_use]
    pub fn wake_mode(mut self, mode: WakeMode) -> Self {
        self.wake = Some(mode);
        self
    }

    /// Creating a [`Queue`](crate::Queue) or [`Messages`](crate::Messages): how often an item is delivered, 1..=7, to
    /// consumers that die with it or give it back, before it is a dead letter. Written into the segment; nothing to an
    /// opener.
    #[must_use]
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.max_deliveries = deliveries;
        self
    }
}

//! Shared memory without a header, for neighbours: Python's `multiprocessing.shared_memory.SharedMemory`, the
//! `shared_memory` crate, and whoever else maps what `shm_open` names.
//!
//! # What
//! A file in `/dev/shm` that is nothing but an array of `T` ([`crosslane_core::array`]). Nothing says what is in it and
//! nobody says who uses it: type and length are what the programs have agreed upon, there are no leases, and
//! [`sweep`](crate::sweep()) leaves it alone. The neighbours' locks are not robust: agree by words of the array, or
//! by something else than shared memory.
//!
//! Only who created a segment removes it, by dropping its [`RawOwner`]; opening and leaving deletes nothing here, whoever
//! made it.
//!
//! # Protocol
//! Create: 1. compare the size with the memory there is; 2. a file without a name, with every page reserved; 3. link the
//! name: it leads to whole memory from the first moment. Open: 1. open the name; a file of length 0 is one whose
//! creator stands between its `shm_open` and its `ftruncate`: wait and start over, until the deadline; 2. check the
//! length; 3. compare what is missing with the memory there is, and reserve every page, which such creators do not, so that
//! a full file system is an error value here and no later SIGBUS (not when opening for reading only); 4. map.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | create 1 and 3 | nothing: the kernel frees the file |
//! | after create 3 | the name and its memory, until somebody [removes](RawSegment::remove) it |
//! | open, anywhere | nothing |
//!
//! # Python
//! ```python
//! from multiprocessing import resource_tracker, shared_memory
//!
//! def attach(name):
//!     try:
//!         return shared_memory.SharedMemory(name=name, track=False)  # from Python 3.13 on
//!     except TypeError:
//!         shm = shared_memory.SharedMemory(name=name)
//!         resource_tracker.unregister(shm._name, "shared_memory")
//!         return shm
//!
//! shm = attach("prices")
//! prices = shm.buf.cast("d")  # an array of f64
//! ```
//! Without `track=False` Python's resource tracker takes every segment that a process attaches for that process's own, and
//! removes its name when the process ends, though another made it: a fault of Python's (its issue 82300). The owner sees that
//! by [`RawOwner::is_named`]; whoever has the segment mapped goes on.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::time::Instant;

use crosslane_core::Plain;
use crosslane_core::array::{Array, View};

use crate::array;
use crate::content::Kind;
use crate::header::{self, HEADER_BYTES};
use crate::mapping::Mapping;
use crate::memory::{self, Shortage};
use crate::name::Name;
use crate::options::Options;
use crate::segment::{CreateError, OpenError, check_size, no_space};
use crate::sys::call::OsError;
use crate::sys::file::{self, FileKey};
use crate::sys::gate;
use crate::sys::slot::Slot;
use crate::takeover;

/// A header-less segment as an array of `T`, mapped by this process. Dropping it deletes nothing.
///
/// Each handle has a mapping of its own, so that a program may look at the same bytes as two types, by two handles.
///
/// A peer can cut the file short, and whoever touches the lost part gets SIGBUS: as with every shared file that is not
/// sealed.
pub struct RawSegment<T> {
    map: Mapping,
    len: u64,
    name: Name,
    key: FileKey,
    elements: PhantomData<fn(T) -> T>,
}

/// What a process has that created a header-less segment: dropping it removes the name. Whoever has it mapped goes on.
///
/// A drop in a `fork()` child removes nothing, nor does one after the name has come to lead to another file. A process that
/// is killed leaves the name behind, and nothing in the memory can say so: [`RawSegment::remove`].
#[must_use = "dropping the owner removes the name"]
pub struct RawOwner<T> {
    segment: RawSegment<T>,
    tie: Tie,
}

/// The name's file, for an owner to remove.
struct Tie {
    path: CString,
    key: FileKey,
    /// Says 1; a `fork()` child finds 0.
    slot: Slot,
    is_kept: bool,
}

impl Drop for Tie {
    fn drop(&mut self) {
        if !self.is_kept && !self.slot.is_forked() {
            // A drop cannot report.
            let _ = takeover::unlink_own(&self.path, self.key);
        }
        self.slot.give_back(&mut gate::enter());
    }
}

impl<T: Plain> RawSegment<T> {
    /// Creates `len` elements of zero bytes under `name`, in `/dev/shm` unless the options name another directory, which
    /// then no `shm_open` sees.
    ///
    /// Does not wait; blocks for the reservation of the memory (0.4 us for each page).
    ///
    /// # Errors
    /// [`CreateError::NameInUse`] whatever the name leads to, since nothing says whether its users live;
    /// [`CreateError::Array`] if `T` is aligned to more than 128 bytes or `len` is 0 or beyond the address space; the
    /// others as of [`Segment::create`](crate::Segment::create).
    ///
    /// # Crash
    /// A process killed inside leaves nothing, or the whole segment under its name.
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Name, Options, RawSegment};
    ///
    /// let name = Name::random();
    /// let prices = RawSegment::<f64>::create(&name, 1000, &Options::new())?;
    /// prices.elements().write_slice(0, &[1.5, 2.5]);
    ///
    /// // In another program, which may be one in Python:
    /// let same = RawSegment::<f64>::open(&name, &Options::new())?;
    /// assert_eq!((same.len(), same.elements().get(1)), (1000, 2.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &Name, len: u64, options: &Options) -> Result<RawOwner<T>, CreateError> {
        let wanted = array::layout::<T>(len)?.size() as u64;
        if wanted == 0 {
            return Err(CreateError::Array(crosslane_core::array::ArrayError::TooShort { needed: 1, found: 0 }));
        }
        check_size(wanted, options)?;
        let path = path(name, options)?;
        let fd = file::tmpfile(&options.directory, options.mode)?;
        file::reserve(fd.as_fd(), wanted).map_err(|error| no_space(error, wanted, fd.as_fd()))?;
        let map = Mapping::new(fd.as_fd(), wanted, false, options.prefault)?;
        let key = file::stat(fd.as_fd())?.key;
        let slot = Slot::take(&mut gate::enter())?;
        slot.set(1);
        // From here on a drop gives the slot back, and removes nothing that is not ours.
        let tie = Tie { path, key, slot, is_kept: false };
        match file::link(fd.as_fd(), &tie.path) {
            Ok(()) => {}
            Err(error) if error.errno == libc::EEXIST => return Err(CreateError::NameInUse { creator: None }),
            Err(error) => return Err(error.into()),
        }
        let segment = Self { map, len, name: name.clone(), key, elements: PhantomData };
        Ok(RawOwner { segment, tie })
    }

    /// Opens what `name` leads to as an array of `T`: with as many elements as the file holds, which are a whole number and
    /// not 0. [`Options::read_only`] and [`Options::prefault`] apply.
    ///
    /// Waits for a creator that has made the name and not yet the memory, at most for [`Options::open_timeout`].
    ///
    /// # Errors
    /// [`OpenError::NotFound`]; [`OpenError::HasHeader`] of a segment that is not header-less, so also of one whose elements
    /// begin with the eight bytes "xlaneSEG" and two of this format's number; [`OpenError::Length`]; [`OpenError::Array`] if `T` is aligned to
    /// more than 128 bytes;
    /// [`OpenError::NotEnoughMemory`] if the pages that its creator did not reserve are more than there is memory for;
    /// [`OpenError::PermissionDenied`]; [`OpenError::Os`], with ENOSPC if the file's pages cannot all be had.
    pub fn open(name: &Name, options: &Options) -> Result<Self, OpenError> {
        Self::open_some(name, None, options)
    }

    /// As [`open`](Self::open), and the file must hold exactly `len` elements.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_exact(name: &Name, len: u64, options: &Options) -> Result<Self, OpenError> {
        Self::open_some(name, Some(len), options)
    }

    fn open_some(name: &Name, expected: Option<u64>, options: &Options) -> Result<Self, OpenError> {
        let path = path(name, options)?;
        let (fd, file::Stat { key, len_bytes, allocated_bytes, .. }) = open_whole(&path, options)?;
        let file = File::from(fd);
        if let Some(kind) = held(&file)? {
            return Err(OpenError::HasHeader { kind });
        }
        let elem_size = size_of::<T>() as u64;
        let len = len_bytes.checked_div(elem_size).unwrap_or(0);
        if len == 0 || len * elem_size != len_bytes || expected.is_some_and(|expected| expected != len) {
            return Err(OpenError::Length { len_bytes, elem_size, expected });
        }
        Array::<T>::layout(len)?;
        if !options.read_only {
            let wanted = len_bytes.saturating_sub(allocated_bytes);
            memory::check(wanted, options.memory_cap_bytes)
                .map_err(|Shortage { available }| OpenError::NotEnoughMemory { wanted, available })?;
            file::reserve(file.as_fd(), len_bytes)?;
        }
        let map = Mapping::new(file.as_fd(), len_bytes, options.read_only, options.prefault)?;
        Ok(Self { map, len, name: name.clone(), key, elements: PhantomData })
    }

    /// The elements, to be read and written. They are zero at first; what a neighbour stores is a value.
    ///
    /// # Panics
    /// If the segment was opened for reading only: see [`view`](Self::view).
    #[must_use]
    #[track_caller]
    pub fn elements(&self) -> Array<'_, T> {
        assert!(!self.map.is_read_only(), "the segment is open for reading only: use view()");
        // SAFETY:
        // - the memory stays mapped while `self` lives, from which the array is borrowed, and it is mapped for writing;
        // - this process accesses this mapping as an array of `T` alone: `memory` is for those who answer for more;
        // - what other programs do to it is met by the array's own accesses: whatever they store is a value.
        let array = unsafe { Array::attach(self.map.start(), self.len_usize(), self.len) };
        array.expect("`create` or `open` has checked length and alignment")
    }

    /// The elements, to be read.
    ///
    /// # Panics
    /// Never: what could make it fail was checked when the segment was opened.
    #[must_use]
    pub fn view(&self) -> View<'_, T> {
        // SAFETY: as in `elements`, but for reading only.
        let view = unsafe { View::attach(self.map.start(), self.len_usize(), self.len) };
        view.expect("`create` or `open` has checked length and alignment")
    }

    /// Removes the name, whoever made it and whoever uses it: for what a killed program left. `false` if there is none.
    /// Whoever has the segment mapped goes on.
    ///
    /// # Errors
    /// [`OpenError::PermissionDenied`], [`OpenError::Os`].
    pub fn remove(name: &Name, options: &Options) -> Result<bool, OpenError> {
        match file::unlink(&path(name, options)?) {
            Ok(()) => Ok(true),
            Err(error) if error.errno == libc::ENOENT => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl<T> RawSegment<T> {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a mapping has an element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name: `SharedMemory(name=..)` in Python, the os_id of the `shared_memory` crate with a `/` before it.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Start and length (bytes) of the memory, aligned to a page; mapped as long as this value lives, for reading only if
    /// it was opened so. For protocols of one's own, such as a ring of `crosslane-core`.
    ///
    /// Neighbours may write it at any time. Whoever uses it answers for it that this process accesses each byte in one way:
    /// not as elements too.
    #[must_use]
    pub fn memory(&self) -> (NonNull<u8>, usize) {
        (self.map.start(), self.len_usize())
    }

    fn len_usize(&self) -> usize {
        usize::try_from(self.map.len_bytes()).unwrap_or(0)
    }
}

impl<T> RawOwner<T> {
    /// Gives up the duty to remove the name.
    pub fn keep(mut self) -> RawSegment<T> {
        self.tie.is_kept = true;
        self.segment
    }

    /// Whether the name still leads to this segment. May be wrong by the time it is read.
    ///
    /// # Errors
    /// [`OsError`] if that cannot be seen.
    pub fn is_named(&self) -> Result<bool, OsError> {
        takeover::leads_to(&self.tie.path, self.segment.key)
    }
}

impl<T> Deref for RawOwner<T> {
    type Target = RawSegment<T>;
    fn deref(&self) -> &RawSegment<T> {
        &self.segment
    }
}

fn path(name: &Name, options: &Options) -> Result<CString, OsError> {
    let path = std::path::absolute(options.directory.join(name.as_str()));
    file::c_path(&path.map_err(|error| OsError::from_io("getcwd", &error))?)
}

/// What the file holds if it is a segment with a header; one that is too short for a header is none.
fn held(file: &File) -> Result<Option<Kind>, OsError> {
    let mut bytes = [0; HEADER_BYTES as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(header::kind_of(&bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(OsError::from_io("pread", &error)),
    }
}

/// Opens a file that has a length.
fn open_whole(path: &CString, options: &Options) -> Result<(OwnedFd, file::Stat), OpenError> {
    let deadline = Instant::now().checked_add(options.open_timeout);
    loop {
        let fd = file::open(path, options.read_only)?;
        let stat = file::stat(fd.as_fd())?;
        let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if stat.len_bytes > 0 || !stat.is_file || is_late {
            return Ok((fd, stat));
        }
        std::thread::sleep(takeover::RETRY);
    }
}

impl<T> fmt::Debug for RawSegment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSegment").field("name", &self.name).field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for RawOwner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawOwner").field("segment", &self.segment).finish_non_exhaustive()
    }
}

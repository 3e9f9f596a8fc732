//! A value behind a lock, in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::mutex`] for the lock word, [`crosslane_sync::Mutex`] for the
//! value. The lease of this segment's domain tells a dead owner from a slow one.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crosslane_core::{Plain, Trust, Trusted, Untrusted};
use crosslane_sync::{LeaseLock, MutexCell};

use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::header::HeaderError;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{self, CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// The largest alignment of a value, in bytes: that of a segment's object.
const MAX_ALIGN: usize = 128;

/// A value of type `T` in shared memory behind a lock that survives its owner's death: [`update`] and [`read`] on a named
/// one; [`lock`] on an anonymous one or after [`trust_peers`](Mutex::trust_peers).
///
/// Its calls are those of [`crosslane_sync::Mutex`]. `K` says whether guards may lend the value in place: an anonymous
/// mutex's may ([`Trusted`]), because its memory only goes to one's own family; a named one works on copies unless it is
/// told otherwise.
///
/// [`update`]: crosslane_sync::Mutex::update
/// [`read`]: crosslane_sync::Mutex::read
/// [`lock`]: crosslane_sync::Mutex::lock
///
/// # Examples
/// ```
/// use crosslane_shm::{Mutex, Name, Options};
/// use crosslane_sync::LockError;
///
/// let (name, options) = (Name::random(), Options::new());
/// let counter = Mutex::create(&name, 40_u64, &options)?;
/// // In another program, by name:
/// let same = Mutex::<u64>::open(&name, &options)?;
/// // `without_guard`, because the error's guard borrows from the mutex, which ends here.
/// same.update(|n| *n += 2).map_err(LockError::without_guard)?;
/// assert_eq!(counter.read().map_err(LockError::without_guard)?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mutex<T: Plain, K = Untrusted> {
    inner: crosslane_sync::Mutex<T, LeaseLock<Env>, K>,
    place: Place<K>,
}

impl<T: Plain> Mutex<T> {
    /// Creates an unlocked mutex that holds `value`, under `name`.
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Alignment`].
    pub fn create(name: &Name, value: T, options: &Options) -> Result<Owner<Self>, CreateError> {
        new(value)?.named(name, options)
    }

    /// Creates an unlocked mutex under `name` whose value is all zero bytes, without the value ever being on a stack:
    /// for large ones. Fresh pages are zero, so none is touched.
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Alignment`].
    pub fn create_zeroed(name: &Name, options: &Options) -> Result<Owner<Self>, CreateError> {
        New { content: content::<T>()?, init: segment::zeroed }.named(name, options)
    }

    /// Opens the mutex `name`.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Creates an unlocked mutex that holds `value`, for this process's family; it travels as a file descriptor.
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Alignment`].
    pub fn anonymous(value: T, options: &Options) -> Result<Mutex<T, Trusted>, CreateError> {
        new(value)?.anonymous(options)
    }

    /// Opens a mutex that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Mutex<T, Trusted>, OpenError> {
        place::from_fd(fd, options)
    }

    /// Another handle, with the calls that lend the value in place.
    ///
    /// # Errors
    /// As [`Segment::rejoin`] in a `fork()` child; none elsewhere.
    ///
    /// # Safety
    /// Every process that can write the segment, for as long as the handle lives, touches the value only while it holds
    /// the lock, and gives the lock word its meaning. This process reaches the value through the new handle alone
    /// while a guard of it lives.
    pub unsafe fn trust_peers(&self) -> Result<Mutex<T, Trusted>, OpenError> {
        // SAFETY: the caller's contract.
        Mutex::attach(unsafe { self.place.rejoin()?.trust_peers() })
    }
}

impl<T: Plain, K> Mutex<T, K> {
    /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.place.id()
    }

    /// The segment that the mutex lives in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }
}

impl<T: Plain, K: Trust> Mutex<T, K> {
    /// Creates an unlocked mutex that holds `value` in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of its own.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Alignment`], and for `Slabs` as [`anonymous`](Mutex::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the mutex.
    pub fn in_slab(slab: &impl Carve<Trust = K>, value: T) -> Result<Self, CreateError> {
        new(value)?.in_slab(slab)
    }

    /// Opens the mutex `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one.
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }

    /// In a `fork()` child: this mutex with a membership of the child's own. Elsewhere another handle.
    ///
    /// # Errors
    /// As [`Segment::rejoin`].
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        Self::attach(self.place.rejoin()?)
    }
}

impl<T: Plain, K> Deref for Mutex<T, K> {
    type Target = crosslane_sync::Mutex<T, LeaseLock<Env>, K>;
    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl<T: Plain, K> AsFd for Mutex<T, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<T: Plain, K> fmt::Debug for Mutex<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("segment", self.place.segment()).finish_non_exhaustive()
    }
}

impl<T: Plain, K: Trust> Object for Mutex<T, K> {
    type Trust = K;
    // A cache line, which the mutex shares with nobody.
    const ALIGN: u32 = if align_of::<T>() > 64 { 128 } else { 64 };

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::MUTEX, capacity: Some(1), ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let env = place.env()?;
        let (memory, found) = place.memory();
        let expected = size_of::<MutexCell<T>>();
        if found < expected || align_of::<T>() > MAX_ALIGN {
            return Err(HeaderError::TooSmall { found: found as u64, expected: expected as u64 }.into());
        }
        // SAFETY:
        // - the object is aligned to `ALIGN`, long enough, mapped for writing and for as long as `env` or `place` lives;
        // - the header says that it is such a cell, and no reference to its inside is made elsewhere in this crate;
        // - `Env::is_dead` says true of proven deaths only.
        let lock = unsafe { crosslane_sync::Mutex::new(memory.cast(), env) };
        // SAFETY: a place is `Trusted` only if the peers are.
        Ok(Self { inner: unsafe { lock.with_trust() }, place })
    }
}

fn new<T: Plain>(value: T) -> Result<New<impl Init>, CreateError> {
    let init = move |memory: NonNull<u8>, len| {
        if len < size_of::<MutexCell<T>>() {
            return Err(CreateError::Alignment { align: align_of::<T>() });
        }
        // SAFETY: 128-aligned, `T`'s alignment was checked to be no more, and long enough; nobody else can reach it yet.
        unsafe { memory.cast::<MutexCell<T>>().write(MutexCell::new(value)) };
        Ok(())
    };
    Ok(New { content: content::<T>()?, init })
}

fn content<T: Plain>() -> Result<Content, CreateError> {
    if align_of::<T>() > MAX_ALIGN {
        return Err(CreateError::Alignment { align: align_of::<T>() });
    }
    Ok(Content { kind: Kind::MUTEX, len_bytes: size_of::<MutexCell<T>>() as u64, ..Content::value::<T>() })
}

//! One value in shared memory that every process uses in place: an `Arc` across processes.
//!
//! No protocol of its own: a [`Share`] is made of atomics, and what they mean together is its users' affair. Who wants a
//! value that is not takes a [`Mutex`](crate::Mutex).
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crosslane_core::{Share, Trust, Trusted, Untrusted};

use crate::content::{Content, Expected, Kind, element};
use crate::header::HeaderError;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// The largest alignment of a value, in bytes: that of a segment's object.
const MAX_ALIGN: usize = 128;

/// A value of type `T` in shared memory, borrowed as it lies there. Cheap to clone; the value lives as long as any process
/// has a handle, and is never dropped.
///
/// Nothing blocks and nothing can be left behind by a killed process but the stores that it did. A peer may store any
/// bytes; whatever they are is a value. `K` is only that of the slab or segment: nothing more is lent on trust.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use crosslane_shm::{Name, Options, Shared};
///
/// let (name, options) = (Name::random(), Options::new());
/// let hits = Shared::create(&name, AtomicU64::new(41), &options)?;
///
/// // In another program, by name:
/// let same = Shared::<AtomicU64>::open(&name, &options)?;
/// same.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(hits.load(Ordering::Relaxed), 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A struct of several, with feature `derive` of `crosslane-core`:
/// ```
/// # mod with_derive {
/// use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
/// use crosslane_core::{plain::Fingerprint, Share};
/// use crosslane_shm::{Shared, Slabs};
///
/// #[derive(Default)] // and `Share`
/// #[repr(C)]
/// struct Progress {
///     done: AtomicU64,
///     failed: AtomicU32,
///     phase: AtomicU32,
/// }
/// # // SAFETY: what the derive would write.
/// # unsafe impl Share for Progress {
/// #     const FINGERPRINT: u64 = Fingerprint::of_struct("Progress", 16, 8).finish();
/// # }
///
/// # pub fn run() -> Result<(), crosslane_shm::CreateError> {
/// let progress = Shared::in_slab(Slabs::family(), Progress::default())?;
/// progress.done.fetch_add(1, Ordering::Relaxed);
/// # Ok(())
/// # }
/// # }
/// # with_derive::run().unwrap();
/// ```
pub struct Shared<T, K = Untrusted> {
    value: NonNull<T>,
    place: Place<K>,
}

// SAFETY: a `T: Share` may be used by every thread at once, and the place keeps it mapped.
unsafe impl<T: Share, K> Send for Shared<T, K> {}
// SAFETY: as above.
unsafe impl<T: Share, K> Sync for Shared<T, K> {}

impl<T: Share> Shared<T> {
    /// Puts `value` into a segment of its own, under `name`.
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Alignment`].
    pub fn create(name: &Name, value: T, options: &Options) -> Result<Owner<Self>, CreateError> {
        new(value)?.named(name, options)
    }

    /// Opens the value `name`.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`]: a borrowed atomic can be stored to.
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Puts `value` into a segment for this process's family; it travels as a file descriptor.
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Alignment`].
    pub fn anonymous(value: T, options: &Options) -> Result<Shared<T, Trusted>, CreateError> {
        new(value)?.anonymous(options)
    }

    /// Opens a value that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Shared<T, Trusted>, OpenError> {
        place::from_fd(fd, options)
    }
}

impl<T: Share, K: Trust> Shared<T, K> {
    /// Puts `value` into `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of its own, on
    /// a cache line that it shares with nobody.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Alignment`], and for `Slabs` as [`anonymous`](Shared::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the value.
    pub fn in_slab(slab: &impl Carve<Trust = K>, value: T) -> Result<Self, CreateError> {
        new(value)?.in_slab(slab)
    }

    /// Opens the value `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one.
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }
}

impl<T, K> Shared<T, K> {
    /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.place.id()
    }

    /// The segment that the value lives in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }
}

impl<T: Share, K> Deref for Shared<T, K> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY:
        // - aligned, long enough and mapped for writing as long as `place` lives: checked in `attach`;
        // - every bit pattern is a `T`, all of whose accesses are atomic, so other processes may write meanwhile;
        // - this process knows no other object there (`Place`).
        unsafe { self.value.as_ref() }
    }
}

impl<T, K> Clone for Shared<T, K> {
    fn clone(&self) -> Self {
        Self { value: self.value, place: self.place.clone() }
    }
}

impl<T, K> AsFd for Shared<T, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<T: Share + fmt::Debug, K> fmt::Debug for Shared<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Share, K: Trust> Object for Shared<T, K> {
    type Trust = K;
    // A cache line, which the value shares with nobody.
    const ALIGN: u32 = if align_of::<T>() > 64 { 128 } else { 64 };

    fn expected(_: &Options) -> Expected {
        let (elem_size, elem_align) = element::<T>();
        Expected {
            kind: Kind::SHARED,
            capacity: Some(1),
            elem_size: Some(elem_size),
            elem_align,
            fingerprint: T::FINGERPRINT,
            type_name: std::any::type_name::<T>(),
            ..Expected::bytes()
        }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        place.env()?;
        let (memory, found) = place.memory();
        if found < size_of::<T>() || align_of::<T>() > MAX_ALIGN {
            return Err(HeaderError::TooSmall { found: found as u64, expected: size_of::<T>() as u64 }.into());
        }
        Ok(Self { value: memory.cast(), place })
    }
}

fn new<T: Share>(value: T) -> Result<New<impl Init>, CreateError> {
    if align_of::<T>() > MAX_ALIGN {
        return Err(CreateError::Alignment { align: align_of::<T>() });
    }
    let (elem_size, elem_align) = element::<T>();
    let (fingerprint, len_bytes) = (T::FINGERPRINT, size_of::<T>() as u64);
    let content = Content { kind: Kind::SHARED, elem_size, elem_align, fingerprint, len_bytes, ..Content::bytes(1) };
    let init = move |memory: NonNull<u8>, _| {
        // SAFETY: `New::init`: 128-aligned and as long as the content says; nobody else can reach it yet.
        unsafe { memory.cast::<T>().write(value) };
        Ok(())
    };
    Ok(New { content, init })
}

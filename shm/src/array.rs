//! The typed array of `crosslane-core` in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::array`]. The header says what is in the segment: type and length.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crosslane_core::array::{self, ArrayError, OutOfBounds, Part, View};
use crosslane_core::{Plain, Trust, Trusted, Untrusted};

use crate::content::{Content, Expected, Kind};
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{self, CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};

/// An array of elements of type `T` in shared memory, which any processes read and write: one element at a time, atomically
/// if its size is 1, 2, 4 or 8 bytes, or ranges copied in and out. No lock, and nothing to repair after a death.
///
/// The most common calls are here, and all of them at [`elements`](Self::elements): updates (`fetch_add`,
/// `compare_exchange`), subarrays, disjoint parts.
///
/// `K` says whether this process may have a part to itself, as a slice: in memory that only goes to one's own family
/// ([`Trusted`]) it may, by [`own`](Array::own).
///
/// # Examples
/// ```
/// use crosslane_shm::{Array, Name, Options};
///
/// let (name, options) = (Name::random(), Options::new());
/// let sums = Array::<f64>::create(&name, 1000, &options)?;
/// sums.set(7, 1.5);
///
/// // In another program, by name:
/// let sums = Array::<f64>::open(&name, &options)?;
/// sums.elements().fetch_add_float(7, 2.0)?;
/// assert_eq!((sums.len(), sums.get(7)), (1000, 3.5));
///
/// // In a third one, which may only read:
/// let view = Array::<f64>::open_view(&name, &options)?;
/// let mut first = [0.0; 8];
/// view.read_slice(0, &mut first);
/// assert_eq!(first[7], 3.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Array<T, K = Untrusted> {
    array: array::Array<'static, T>,
    place: Place<K>,
}

impl<T: Plain> Array<T> {
    /// Creates an array of `len` elements of zero bytes under `name`.
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Array`].
    pub fn create(name: &Name, len: u64, options: &Options) -> Result<Owner<Self>, CreateError> {
        new::<T>(len)?.named(name, options)
    }

    /// Opens the array `name`, for writing and reading.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`], [`OpenError::Array`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Opens the array `name` for reading only: this process takes no part in its domain and cannot write the memory.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::Array`].
    pub fn open_view(name: &Name, options: &Options) -> Result<Attached<ArrayView<T>>, OpenError> {
        let attached = Segment::open(name, &Self::expected(options), &options.clone().read_only(true))?;
        attached.try_map(ArrayView::attach)
    }

    /// Creates an array of `len` elements of zero bytes for this process's family; it travels as a file descriptor
    /// ([`AsFd`]).
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Array`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Array, Options};
    ///
    /// let array = Array::<u32>::anonymous(100, &Options::new())?;
    /// // SAFETY: nobody else uses this array.
    /// let (mut front, mut back) = unsafe { array.own(0..100) }.split_at(50);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| front.fill(1));
    ///     scope.spawn(|| back.fill(2));
    /// });
    /// assert_eq!((front[49], back[0]), (1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn anonymous(len: u64, options: &Options) -> Result<Array<T, Trusted>, CreateError> {
        new::<T>(len)?.anonymous(options)
    }

    /// Opens an array that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`], and [`OpenError::Array`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Array<T, Trusted>, OpenError> {
        place::from_fd(fd, options)
    }

    /// Another handle, by which this process may have parts to itself.
    ///
    /// # Errors
    /// As [`Segment::rejoin`] in a `fork()` child; none elsewhere.
    ///
    /// # Safety
    /// Every process that can write the segment leaves alone what [`own`](Array::own) gives to others, for as long as the
    /// handle lives.
    pub unsafe fn trust_peers(&self) -> Result<Array<T, Trusted>, OpenError> {
        // SAFETY: the caller's contract.
        Array::attach(unsafe { self.place.rejoin()?.trust_peers() })
    }
}

impl<T: Plain, K: Trust> Array<T, K> {
    /// Creates an array of `len` elements of zero bytes in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a
    /// segment, an fd or a page of its own.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Array`], and for `Slabs` as [`anonymous`](Array::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the array.
    pub fn in_slab(slab: &impl Carve<Trust = K>, len: u64) -> Result<Self, CreateError> {
        new::<T>(len)?.in_slab(slab)
    }

    /// Opens the array `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one, [`OpenError::Array`].
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }
}

impl<T: Plain> Array<T, Trusted> {
    /// The elements of `range` as memory that this process has to itself, which can be borrowed as slices, split and
    /// joined.
    ///
    /// # Panics
    /// If the range is out of bounds, or ends before it starts.
    ///
    /// # Safety
    /// While the part, or a part of it, lives, no other process and nobody else in this one accesses these elements.
    #[must_use]
    #[track_caller]
    pub unsafe fn own(&self, range: Range<usize>) -> Part<'_, T> {
        // SAFETY: the caller's contract.
        unsafe { self.array.slice(range).own() }
    }
}

impl<T: Plain, K> Array<T, K> {
    /// The elements, with all calls: updates, subarrays, disjoint parts.
    #[must_use]
    #[inline]
    pub fn elements(&self) -> array::Array<'_, T> {
        self.array
    }

    /// How many elements there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.array.is_empty()
    }

    /// Element `index`. Never torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[must_use]
    #[inline]
    #[track_caller]
    pub fn get(&self, index: usize) -> T {
        self.array.get(index)
    }

    /// Sets element `index`. Readers never see it torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn set(&self, index: usize, value: T) {
        self.array.set(index, value);
    }

    /// As [`get`](Self::get).
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_get(&self, index: usize) -> Result<T, OutOfBounds> {
        self.array.try_get(index)
    }

    /// As [`set`](Self::set).
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_set(&self, index: usize, value: T) -> Result<(), OutOfBounds> {
        self.array.try_set(index, value)
    }

    /// Copies the elements from `start` on out, as many as `out` has.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[inline]
    #[track_caller]
    pub fn read_slice(&self, start: usize, out: &mut [T]) {
        self.array.read_slice(start, out);
    }

    /// Copies `items` in, from element `start` on.
    ///
    /// # Panics
    /// If the range is out of bounds.
    ///
    /// # Crash
    /// A process killed inside has written some of the elements.
    #[inline]
    #[track_caller]
    pub fn write_slice(&self, start: usize, items: &[T]) {
        self.array.write_slice(start, items);
    }

    /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.place.id()
    }

    /// The segment that the array lives in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }

    /// In a `fork()` child: this array with a membership of the child's own. Elsewhere another handle.
    ///
    /// # Errors
    /// As [`Segment::rejoin`].
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        Ok(Self { place: self.place.rejoin()?, ..*self })
    }
}

/// An array of elements of type `T` in a segment that is open for reading only. The most common calls are here, and all
/// of them at [`elements`](Self::elements).
#[derive(Debug)]
pub struct ArrayView<T> {
    view: View<'static, T>,
    segment: Segment,
}

impl<T: Plain> ArrayView<T> {
    fn attach(segment: Segment) -> Result<Self, OpenError> {
        let (memory, len_bytes) = segment.object();
        // SAFETY: as in `Array::attach`, but for reading only; elements are borrowed from `self`, which holds the segment.
        let view = unsafe { View::attach(memory, len_bytes, segment.header().content.capacity) }?;
        Ok(Self { view, segment })
    }

    /// The elements.
    #[must_use]
    #[inline]
    pub fn elements(&self) -> View<'_, T> {
        self.view
    }

    /// How many elements there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.view.is_empty()
    }

    /// Element `index`. Never torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[must_use]
    #[inline]
    #[track_caller]
    pub fn get(&self, index: usize) -> T {
        self.view.get(index)
    }

    /// As [`get`](Self::get).
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_get(&self, index: usize) -> Result<T, OutOfBounds> {
        self.view.try_get(index)
    }

    /// Copies the elements from `start` on out, as many as `out` has.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[inline]
    #[track_caller]
    pub fn read_slice(&self, start: usize, out: &mut [T]) {
        self.view.read_slice(start, out);
    }

    /// The segment that the array lives in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl<T, K> AsFd for Array<T, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<T, K> fmt::Debug for Array<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.place.content().capacity;
        f.debug_struct("Array").field("len", &len).field("segment", self.place.segment()).finish()
    }
}

impl<T: Plain, K: Trust> Object for Array<T, K> {
    type Trust = K;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::ARRAY, ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        place.env()?;
        let (memory, len_bytes) = place.memory();
        // SAFETY:
        // - the object's memory stays mapped while the place lives; elements are borrowed from `self`, which holds it;
        // - it is mapped for writing, as it has an `Env`;
        // - the header says that the object is an array of this type, so processes that keep to the protocol access it so,
        //   and whatever the others write is a value;
        // - who makes a `Part` of it answers for its being alone.
        let array = unsafe { array::Array::attach(memory, len_bytes, place.content().capacity) }?;
        Ok(Self { array, place })
    }
}

/// Size and alignment of the memory of `len` elements.
///
/// # Errors
/// [`CreateError::NotEnoughMemory`] if no memory can be so long; [`CreateError::Array`].
pub(crate) fn layout<T: Plain>(len: u64) -> Result<Layout, CreateError> {
    array::Array::<T>::layout(len).map_err(|error| match error {
        ArrayError::TooShort { needed, .. } => segment::not_enough(needed),
        error => error.into(),
    })
}

/// Memory that is all zero holds elements of zero bytes.
fn new<T: Plain>(len: u64) -> Result<New<impl Init + use<T>>, CreateError> {
    let len_bytes = layout::<T>(len)?.size() as u64;
    let content = Content { kind: Kind::ARRAY, capacity: len, len_bytes, ..Content::value::<T>() };
    Ok(New { content, init: |_, _| Ok(()) })
}

//! Arrays that processes share.
//!
//! An [`Array`] is for many processes at once: elements one by one, or ranges copied in and out. It lends no slices, since
//! others may write at any time. One that is in a single process's hands at a time, and so gives slices, is
//! [`OwnedArray`](crate::OwnedArray).

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[doc(inline)]
pub use crosslane_core::array::{Array as Elements, Contended, OutOfBounds, Part, Parts, View};
#[doc(inline)]
pub use crosslane_core::array::{Element, Float, Integer};

use crate::error::Result;
use crate::place::Placed;
use crate::shm::{self, Env, Options, Slabs};
use crate::sync::{LeaseLock, LockError, MutexGuard};
use crate::{Plain, Trusted};

/// The largest array that lies in a slab beside other small objects, in bytes. A larger one has a segment, and so a
/// descriptor, of its own.
pub const MAX_SMALL_BYTES: usize = 4096;

/// An array that processes share: each clone, and what arrives where it was sent, is the same one.
///
/// Reading and writing takes no lock and never blocks. An element whose size is 1, 2, 4 or 8 bytes is never torn; a larger
/// one may be read half old, half new. Who needs several accesses to be one takes the array's [`lock`](Self::lock), or calls
/// [`update`](Self::update): that keeps out others who do so too, and nobody else.
///
/// Up to [4 KiB](MAX_SMALL_BYTES) it lies in a slab, without a descriptor of its own; larger ones are segments.
///
/// # Crash
/// A process that is killed while it writes a range has written a part of it. If it had the lock, the next one to take it
/// is told by [`LockError::OwnerDied`].
///
/// # Examples
/// ```
/// use crosslane::Array;
///
/// let sums = Array::<f64>::zeroed(1 << 20)?;
/// let same = sums.clone(); // or sent to another process
/// sums.set(7, 1.5);
/// same.update(6..8, |slice| slice.reverse())?;
/// assert_eq!((sums.get(6), sums.get(7)), (1.5, 0.0));
/// # Ok::<(), crosslane::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Array<T: Plain> {
    elements: Placed<shm::Array<T, Trusted>>,
    lock: Placed<Latch>,
}

type Latch = shm::Mutex<[u8; 0], Trusted>;

impl<T: Plain> Array<T> {
    /// An array of `len` elements of zero bytes. None of a large one's pages is touched; all are reserved.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): there is not so much memory (with the bytes wanted and available), or the
    /// element's alignment is above 128 bytes.
    pub fn zeroed(len: usize) -> Result<Self> {
        let slabs = Slabs::family();
        let elements = if len.saturating_mul(size_of::<T>()) <= MAX_SMALL_BYTES {
            shm::Array::in_slab(slabs, len as u64)?
        } else {
            shm::Array::anonymous(len as u64, &Options::new())?
        };
        Ok(Self { elements: Placed::new(elements), lock: Placed::new(shm::Mutex::in_slab(slabs, [])?) })
    }

    /// An array of these elements.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn from_slice(items: &[T]) -> Result<Self> {
        let array = Self::zeroed(items.len())?;
        array.write_slice(0, items);
        Ok(array)
    }

    /// How many elements there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index`. Never torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds; [`try_get`](Self::try_get) gives an error instead.
    #[must_use]
    #[inline]
    #[track_caller]
    pub fn get(&self, index: usize) -> T {
        self.elements.get(index)
    }

    /// Sets element `index`. Readers never see it torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds; [`try_set`](Self::try_set) gives an error instead.
    #[inline]
    #[track_caller]
    pub fn set(&self, index: usize, value: T) {
        self.elements.set(index, value);
    }

    /// As [`get`](Self::get).
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_get(&self, index: usize) -> Result<T, OutOfBounds> {
        self.elements.try_get(index)
    }

    /// As [`set`](Self::set).
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_set(&self, index: usize, value: T) -> Result<(), OutOfBounds> {
        self.elements.try_set(index, value)
    }

    /// Copies the elements from `start` on out, as many as `out` has.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[inline]
    #[track_caller]
    #[doc(alias = "copy_to")]
    pub fn read_slice(&self, start: usize, out: &mut [T]) {
        self.elements.read_slice(start, out);
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
    #[doc(alias = "copy_from")]
    pub fn write_slice(&self, start: usize, items: &[T]) {
        self.elements.write_slice(start, items);
    }

    /// A copy of all elements.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.copy(0..self.len())
    }

    /// Copies of the elements, each made when its turn comes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + DoubleEndedIterator + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Sets every element to `value`, one after the other.
    pub fn fill(&self, value: T) {
        self.elements.elements().fill(value);
    }

    /// The elements, with all atomic calls: swaps, bits, updates by a closure.
    #[must_use]
    #[inline]
    pub fn elements(&self) -> Elements<'_, T> {
        self.elements.elements()
    }

    /// Changes a range: calls `change` on a copy of it, made under the array's lock, and then writes the copy back.
    ///
    /// Blocks until the lock is free or its holder proven dead. Whoever writes elements in the range without the lock
    /// meanwhile is overwritten. If `change` panics, nothing is written, and the lock is poisoned. `change` must not take
    /// the lock: it would wait for itself.
    ///
    /// # Errors
    /// As [`lock`](Self::lock); `change` was not called.
    ///
    /// # Panics
    /// If the range is out of bounds, or ends before it starts.
    ///
    /// # Crash
    /// A process killed inside has written the range, nothing, or a part of it; the next one gets
    /// [`LockError::OwnerDied`].
    #[track_caller]
    pub fn update<O>(
        &self,
        range: impl RangeBounds<usize>,
        change: impl FnOnce(&mut [T]) -> O,
    ) -> Result<O, LockError<ArrayGuard<'_, T>>> {
        let range = within(range, self.len());
        Ok(self.lock()?.change(range, change))
    }

    /// Takes the array's lock, as Python's `get_lock` does: it keeps out others who take it, or call
    /// [`update`](Self::update), not those who get and set elements without.
    ///
    /// Not fair, and not reentrant: a thread that holds the guard and locks again waits for itself.
    ///
    /// # Errors
    /// - [`LockError::OwnerDied`], [`LockError::Poisoned`]: the last holder was killed, or panicked, and may have left
    ///   elements half changed. The guard holds the lock: put them in order and call
    ///   [`mark_consistent`](ArrayGuard::mark_consistent), or the lock stays poisoned;
    /// - [`LockError::Forked`], [`LockError::Corrupt`]: the lock is not held.
    ///
    /// # Crash
    /// A process killed with the guard in hand leaves `OwnerDied` to the next one.
    #[doc(alias("get_lock", "acquire"))]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.guarded(self.lock.lock())
    }

    /// As [`lock`](Self::lock), without blocking.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::WouldBlock`].
    pub fn try_lock(&self) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.guarded(self.lock.try_lock())
    }

    /// As [`lock`](Self::lock), blocking for at most `timeout`.
    ///
    /// # Errors
    /// As `lock`, and [`LockError::TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.guarded(self.lock.lock_timeout(timeout))
    }

    fn guarded<'a>(
        &'a self,
        locked: Result<Held<'a>, LockError<Held<'a>>>,
    ) -> Result<ArrayGuard<'a, T>, LockError<ArrayGuard<'a, T>>> {
        let guard = |held| ArrayGuard { array: self, held };
        locked.map(guard).map_err(|error| error.map(guard))
    }

    fn copy(&self, range: Range<usize>) -> Vec<T> {
        let Ok(first) = self.try_get(range.start) else { return Vec::new() };
        let mut out = vec![first; range.len()];
        self.read_slice(range.start, &mut out);
        out
    }
}

/// Wait-free: one instruction. Arithmetic wraps, as that of std's atomics does.
impl<T: Integer> Array<T> {
    /// Adds to element `index` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_add(&self, index: usize, value: T) -> T {
        self.elements().fetch_add(index, value)
    }
}

impl<T: Float> Array<T> {
    /// Adds to element `index` and returns what was there. Does not block.
    ///
    /// # Errors
    /// [`Contended`]: others have changed the element at each of 65,536 tries; nothing was added.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_add_float(&self, index: usize, value: T) -> Result<T, Contended> {
        self.elements().fetch_add_float(index, value)
    }
}

type Held<'a> = MutexGuard<'a, [u8; 0], LeaseLock<Env>>;

/// An array whose lock this thread holds. Dropping it unlocks; a panic meanwhile poisons the lock.
#[must_use = "dropping the guard unlocks at once"]
pub struct ArrayGuard<'a, T: Plain> {
    array: &'a Array<T>,
    held: Held<'a>,
}

impl<T: Plain> ArrayGuard<'_, T> {
    /// As [`Array::update`], under the lock that is held.
    ///
    /// # Panics
    /// If the range is out of bounds, or ends before it starts.
    #[track_caller]
    pub fn update<O>(&mut self, range: impl RangeBounds<usize>, change: impl FnOnce(&mut [T]) -> O) -> O {
        self.change(within(range, self.array.len()), change)
    }

    /// Says that the elements are in order again, so that the lock is not poisoned when this guard goes.
    pub fn mark_consistent(&mut self) {
        self.held.mark_consistent();
    }

    /// Whether the lock will be poisoned when this guard goes.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.held.is_broken()
    }

    fn change<O>(&self, range: Range<usize>, change: impl FnOnce(&mut [T]) -> O) -> O {
        let start = range.start;
        let mut copy = self.array.copy(range);
        let output = change(&mut copy);
        self.array.write_slice(start, &copy);
        output
    }
}

/// The range as numbers, which lies in `0..len`.
#[track_caller]
pub(crate) fn within(range: impl RangeBounds<usize>, len: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(start <= end, "a range starts at {start} but ends at {end}");
    assert!(end <= len, "range {start}..{end} is out of bounds, the len is {len}");
    start..end
}

impl<T: Plain> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self { elements: self.elements.clone(), lock: self.lock.clone() }
    }
}

impl<T: Plain> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T: Plain> Deref for ArrayGuard<'_, T> {
    type Target = Array<T>;

    fn deref(&self) -> &Array<T> {
        self.array
    }
}

impl<T: Plain> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayGuard").field("array", self.array).field("broken", &self.is_broken()).finish()
    }
}

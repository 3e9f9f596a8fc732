//! Disjoint parts of an array: as views, and as slices for whoever has a part to itself.

#[cfg(not(crosslane_loom))]
use core::ops::{Deref, DerefMut};

use super::Array;
use crate::plain::Plain;

impl<'m, T: Plain> Array<'m, T> {
    /// The elements before `mid`, and the others.
    ///
    /// # Panics
    /// If `mid` is above the length.
    #[must_use]
    #[track_caller]
    pub fn split_at(&self, mid: usize) -> (Self, Self) {
        (self.slice(0..mid), self.slice(mid..self.len()))
    }

    /// `count` disjoint parts in order that together are the array, whose lengths differ by 1 at most: the longer ones
    /// first. So process `i` of `count` works on `parts(count).nth(i)`.
    #[must_use]
    pub fn parts(&self, count: usize) -> Parts<'m, T> {
        Parts { rest: *self, left: count }
    }

    /// This array as memory that this process has to itself: it may be borrowed as slices.
    ///
    /// # Safety
    /// While the part, or a part of it, lives, no other process and nobody else in this one accesses its elements,
    /// through whatever handle.
    #[cfg(not(crosslane_loom))]
    #[must_use]
    pub unsafe fn own(&self) -> Part<'m, T> {
        Part { array: *self, whole: *self }
    }
}

/// The parts of an array, in order.
#[derive(Debug, Clone)]
pub struct Parts<'m, T> {
    rest: Array<'m, T>,
    left: usize,
}

impl<'m, T: Plain> Iterator for Parts<'m, T> {
    type Item = Array<'m, T>;

    fn next(&mut self) -> Option<Array<'m, T>> {
        if self.left == 0 {
            return None;
        }
        let (part, rest) = self.rest.split_at(self.rest.len().div_ceil(self.left));
        (self.rest, self.left) = (rest, self.left - 1);
        Some(part)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Plain> ExactSizeIterator for Parts<'_, T> {}

/// Elements of an array that this process has to itself: a slice in shared memory. Not `Clone`.
///
/// What was written is visible to whoever learns, by an edge of some other object (a queue, a lock, an array's element),
/// that this part was given up.
#[cfg(not(crosslane_loom))]
#[derive(Debug)]
pub struct Part<'m, T: Plain> {
    array: Array<'m, T>,
    /// What was owned at first, of which this is a part.
    whole: Array<'m, T>,
}

#[cfg(not(crosslane_loom))]
impl<'m, T: Plain> Part<'m, T> {
    /// The elements before `mid`, and the others.
    ///
    /// # Panics
    /// If `mid` is above the length.
    #[must_use]
    #[track_caller]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (front, back) = self.array.split_at(mid);
        (Self { array: front, ..self }, Self { array: back, ..self })
    }

    /// As [`Array::parts`], each to be owned by itself.
    pub fn parts(self, count: usize) -> impl ExactSizeIterator<Item = Self> {
        self.array.parts(count).map(move |array| Self { array, ..self })
    }

    /// The part that `self` and `next`, which begins where `self` ends, were split from.
    ///
    /// # Errors
    /// Both, if they do not lie side by side in what was owned at first.
    pub fn unsplit(self, next: Self) -> Result<Self, (Self, Self)> {
        let (whole, start) = (self.whole, self.start());
        if next.whole.base != whole.base || next.whole.len() != whole.len() || next.start() != start + self.len() {
            return Err((self, next));
        }
        Ok(Self { array: whole.slice(start..start + self.len() + next.len()), whole })
    }

    /// Elements of `whole` before this part.
    fn start(&self) -> usize {
        let bytes = self.array.base.addr().get() - self.whole.base.addr().get();
        bytes.checked_div(size_of::<T>()).unwrap_or(0)
    }

    /// Gives the part up: from here on others may access it.
    #[must_use]
    pub fn give_up(self) -> Array<'m, T> {
        self.array
    }
}

#[cfg(not(crosslane_loom))]
impl<T: Plain> Deref for Part<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: so many elements, whose size and alignment `attach` checked; nobody else accesses them (`own`), and
        // every bit pattern is a `T`.
        unsafe { core::slice::from_raw_parts(self.array.base.cast().as_ptr(), self.array.len()) }
    }
}

#[cfg(not(crosslane_loom))]
impl<T: Plain> DerefMut for Part<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and mapped for writing, as it comes of an `Array`; borrowed mutably through `self`.
        unsafe { core::slice::from_raw_parts_mut(self.array.base.cast().as_ptr(), self.array.len()) }
    }
}

/// Writes the model's atomic of unit `index`.
///
/// # Safety
/// `memory` is the caller's alone and has room for it.
#[cfg(crosslane_loom)]
pub(super) unsafe fn init_unit(memory: core::ptr::NonNull<u8>, index: usize, unit: usize) {
    use crate::prim::{Atom, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
    fn place<A: Atom>(memory: core::ptr::NonNull<u8>, index: usize) {
        // SAFETY: the caller's contract; the model's atomics are all of one size.
        let place = unsafe { memory.cast::<A>().add(index) };
        // SAFETY: as above.
        unsafe { place.write(A::zero()) };
    }
    match unit {
        1 => place::<AtomicU8>(memory, index),
        2 => place::<AtomicU16>(memory, index),
        4 => place::<AtomicU32>(memory, index),
        _ => place::<AtomicU64>(memory, index),
    }
}

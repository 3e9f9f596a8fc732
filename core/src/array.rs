//! A typed array in memory that several processes map: elements that are read and written one by one, or copied in and
//! out many at a time.
//!
//! # What
//! Nothing but the elements: no lock, no word of its own, nothing to repair after a death. All zero is a valid start.
//!
//! The memory is accessed in *units*: the largest of 1, 2, 4 and 8 bytes that divides an element's size. A unit is always
//! read and written whole. So an element whose size is 1, 2, 4 or 8 bytes is never torn, whoever writes it at the same
//! time; a larger one may come as a mixture of two. Integers and floats ([`Element`]) have atomic updates besides.
//!
//! Reads and writes of ranges go through one copy. On x86-64 that is an opaque block of vector moves, as fast as memcpy;
//! the CPUs of today move its units whole too, but their manuals promise it for 8 bytes only: where that must be relied
//! upon, use the calls for single elements.
//!
//! # Protocol
//! - read: load the units; acquire fence;
//! - write: release fence; store the units;
//! - update (`swap`, `compare_exchange`, `fetch_*`): one atomic instruction that acquires and releases.
//!
//! [`Array::fetch_update`] and [`Array::fetch_add_float`] are loops of compare-and-swap, which fail only because somebody
//! else succeeded; after [`TRIES`] failures they give up, so that a hostile peer cannot hold them for ever. Integer
//! updates are single instructions and always succeed.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `array.element` | fence of a write, update | fence of a read, update | everything that the writer did before: who reads a value sees what its writer had done | `array` |
//!
//! The loads of a read are relaxed with a fence behind them because only relaxed loads are allowed in memory that is
//! mapped for reading only.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | two units of one element | an element that is part old, part new; never one of 1, 2, 4 or 8 bytes |
//! | two elements of a range | some elements old, some new |
//! | the swaps of an update's loop | the element as it was |
#![allow(unsafe_code)]

mod element;
mod error;
mod part;
mod update;

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, Range};
use core::ptr::NonNull;

pub use element::{Element, Float, Integer};
pub use error::{ArrayError, Contended, OutOfBounds};
#[cfg(not(crosslane_loom))]
pub use part::Part;
pub use part::Parts;
pub use update::TRIES;

use crate::plain::Plain;
use crate::prim::{Ordering, fence, unit_bytes, unit_stride, units_in, units_out};

/// The largest alignment of an element, in bytes.
pub const MAX_ALIGN: usize = 128;

/// An array in shared memory that may be mapped for reading only. Cheap to copy; owns nothing.
#[derive(Debug)]
pub struct View<'m, T> {
    base: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'m ()>,
    elements: PhantomData<fn(T) -> T>,
}

/// An array in shared memory that is mapped for reading and writing. Cheap to copy; owns nothing. Reads are those of
/// [`View`].
#[derive(Debug)]
pub struct Array<'m, T>(View<'m, T>);

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<T> Clone for Array<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Array<'_, T> {}

// SAFETY: the pointer leads to shared memory that is only touched by units; `attach`'s contract keeps it mapped for 'm.
unsafe impl<T> Send for View<'_, T> {}
// SAFETY: as above.
unsafe impl<T> Sync for View<'_, T> {}

impl<'m, T> Deref for Array<'m, T> {
    type Target = View<'m, T>;
    fn deref(&self) -> &View<'m, T> {
        &self.0
    }
}

impl<'m, T: Plain> View<'m, T> {
    /// Bytes of a unit.
    const UNIT: usize = unit_bytes(size_of::<T>());
    /// Bytes from one element to the next.
    const STRIDE: usize = size_of::<T>() / Self::UNIT * unit_stride(Self::UNIT);

    /// Size and alignment (128) of the memory of `len` elements.
    ///
    /// # Errors
    /// [`ArrayError::Alignment`]; [`ArrayError::TooShort`] if no address space of this target holds it, with the bytes needed
    /// (`u64::MAX` if they are more) and the most that one holds.
    pub fn layout(len: u64) -> Result<Layout, ArrayError> {
        if align_of::<T>() > MAX_ALIGN {
            return Err(ArrayError::Alignment { align: align_of::<T>() });
        }
        let needed = len.saturating_mul(Self::STRIDE as u64);
        usize::try_from(needed)
            .ok()
            .and_then(|bytes| Layout::from_size_align(bytes, MAX_ALIGN).ok())
            .ok_or(ArrayError::TooShort { needed, found: isize::MAX as u64 })
    }

    /// Attaches to `len` elements.
    ///
    /// Looks at nothing but the memory's size: whoever keeps the memory (a segment's header) must know that there are
    /// so many `T` in it.
    ///
    /// # Errors
    /// [`ArrayError`] if the memory cannot hold so many.
    ///
    /// # Safety
    /// - `memory` is valid for reads of `len_bytes` bytes for all of `'m`;
    /// - meanwhile every process accesses it through this crate and as an array of this `T`, or not at all;
    /// - whatever a [`Part`] of it covers is accessed through that part alone.
    pub unsafe fn attach(memory: NonNull<u8>, len_bytes: usize, len: u64) -> Result<Self, ArrayError> {
        let layout = Self::layout(len)?;
        if layout.size() > len_bytes {
            return Err(ArrayError::TooShort { needed: layout.size() as u64, found: len_bytes as u64 });
        }
        if !memory.addr().get().is_multiple_of(layout.align()) {
            return Err(ArrayError::Misaligned);
        }
        #[expect(clippy::cast_possible_truncation, reason = "`layout` found it addressable")]
        let len = len as usize;
        Ok(Self { base: memory, len, memory: PhantomData, elements: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `index`. Never torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn get(&self, index: usize) -> T {
        // No closure, in which the panic would have its place: here it is the caller's.
        match self.try_get(index) {
            Ok(value) => value,
            Err(error) => error.panic(),
        }
    }

    /// Element `index`. Never torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_get(&self, index: usize) -> Result<T, OutOfBounds> {
        let place = self.element(index)?;
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: one element, which `element` checked; `value` is private.
        unsafe { self.read(place, value.as_mut_ptr(), 1) };
        // SAFETY: all bytes were written, and every bit pattern is a `T` because `T` is `Plain`.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies the elements from `start` on out, as many as `out` has.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[inline]
    #[track_caller]
    pub fn read_slice(&self, start: usize, out: &mut [T]) {
        match self.try_read_slice(start, out) {
            Ok(()) => {}
            Err(error) => error.panic(),
        }
    }

    /// Copies the elements from `start` on out, as many as `out` has.
    ///
    /// # Errors
    /// [`OutOfBounds`]; nothing was copied.
    #[inline]
    pub fn try_read_slice(&self, start: usize, out: &mut [T]) -> Result<(), OutOfBounds> {
        let place = self.elements(start, out.len())?;
        // SAFETY: so many elements, which `elements` checked; `out` is private, and every bit pattern is a `T`.
        unsafe { self.read(place, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// A part of the array.
    ///
    /// # Panics
    /// If the range is out of bounds, or ends before it starts.
    #[must_use]
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let len = range.end.checked_sub(range.start).expect("a range ends behind its start");
        match self.elements(range.start, len) {
            Ok(base) => Self { base, len, ..*self },
            Err(error) => error.panic(),
        }
    }

    /// The place of element `index`.
    #[inline]
    fn element(&self, index: usize) -> Result<NonNull<u8>, OutOfBounds> {
        if index < self.len {
            // SAFETY: inside the elements, whose size `attach` checked.
            Ok(unsafe { self.base.add(index * Self::STRIDE) })
        } else {
            Err(OutOfBounds { start: index, end: None, len: self.len })
        }
    }

    /// The place of `count` elements from `start` on.
    #[inline]
    fn elements(&self, start: usize, count: usize) -> Result<NonNull<u8>, OutOfBounds> {
        match start.checked_add(count) {
            // SAFETY: inside the elements or at their end, and `attach` checked their size.
            Some(end) if end <= self.len => Ok(unsafe { self.base.add(start * Self::STRIDE) }),
            _ => Err(OutOfBounds { start, end: Some(start.saturating_add(count)), len: self.len }),
        }
    }

    /// # Safety
    /// `place` has `count` elements, and `out` is private memory for as many.
    #[inline]
    unsafe fn read(&self, place: NonNull<u8>, out: *mut T, count: usize) {
        // SAFETY: the caller's contract; elements are whole numbers of units.
        unsafe { units_out(out.cast(), place, count * size_of::<T>(), Self::UNIT) };
        // ORDERING array.element: Acquire fence. Pairs with the Release fence in `write`, and with updates: what the
        // writer of a value that was read above had done before is visible from here on.
        fence(Ordering::Acquire);
    }
}

impl<'m, T: Plain> Array<'m, T> {
    /// Size and alignment (128) of the memory of `len` elements.
    ///
    /// # Errors
    /// As [`View::layout`].
    pub fn layout(len: u64) -> Result<Layout, ArrayError> {
        View::<T>::layout(len)
    }

    /// Writes `len` elements of zero bytes into memory and attaches to them.
    ///
    /// Memory that is all zero holds them already: [`attach`](Self::attach) is enough for it.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Safety
    /// As [`attach`](Self::attach), and nobody else uses the memory until this returns.
    pub unsafe fn init(memory: NonNull<u8>, len_bytes: usize, len: u64) -> Result<Self, ArrayError> {
        // SAFETY: the caller's contract.
        let array = unsafe { Self::attach(memory, len_bytes, len) }?;
        #[cfg(not(crosslane_loom))]
        // SAFETY: inside the memory, as `attach` checked, which is the caller's alone.
        unsafe {
            memory.write_bytes(0, array.len * View::<T>::STRIDE);
        }
        #[cfg(crosslane_loom)]
        for unit in 0..array.len * (size_of::<T>() / View::<T>::UNIT) {
            // SAFETY: as above.
            unsafe { part::init_unit(memory, unit, View::<T>::UNIT) };
        }
        Ok(array)
    }

    /// Attaches to `len` elements, in memory that this process may write.
    ///
    /// # Errors
    /// As [`View::attach`].
    ///
    /// # Safety
    /// As [`View::attach`], and `memory` is valid for writes too.
    pub unsafe fn attach(memory: NonNull<u8>, len_bytes: usize, len: u64) -> Result<Self, ArrayError> {
        // SAFETY: the caller's contract.
        unsafe { View::attach(memory, len_bytes, len) }.map(Self)
    }

    /// The same elements, to be read only.
    #[must_use]
    pub fn view(&self) -> View<'m, T> {
        self.0
    }

    /// Sets element `index`. Readers never see it torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn set(&self, index: usize, value: T) {
        match self.try_set(index, value) {
            Ok(()) => {}
            Err(error) => error.panic(),
        }
    }

    /// Sets element `index`. Readers never see it torn if its size is 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline]
    pub fn try_set(&self, index: usize, value: T) -> Result<(), OutOfBounds> {
        let place = self.element(index)?;
        // SAFETY: one element, which `element` checked; `value` is private.
        unsafe { self.write(place, &raw const value, 1) };
        Ok(())
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
        match self.try_write_slice(start, items) {
            Ok(()) => {}
            Err(error) => error.panic(),
        }
    }

    /// Copies `items` in, from element `start` on.
    ///
    /// # Errors
    /// [`OutOfBounds`]; nothing was copied.
    #[inline]
    pub fn try_write_slice(&self, start: usize, items: &[T]) -> Result<(), OutOfBounds> {
        let place = self.elements(start, items.len())?;
        // SAFETY: so many elements, which `elements` checked; `items` is private.
        unsafe { self.write(place, items.as_ptr(), items.len()) };
        Ok(())
    }

    /// Sets every element to `value`.
    pub fn fill(&self, value: T) {
        (0..self.len).for_each(|index| self.set(index, value));
    }

    /// A part of the array.
    ///
    /// # Panics
    /// If the range is out of bounds, or ends before it starts.
    #[must_use]
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self(self.0.slice(range))
    }

    /// # Safety
    /// `place` has room for `count` elements, and `items` is private memory with as many.
    #[inline]
    unsafe fn write(&self, place: NonNull<u8>, items: *const T, count: usize) {
        // ORDERING array.element: Release fence. Pairs with the Acquire fence in `read`, and with updates: who reads a
        // value that is written below sees what this process did before.
        fence(Ordering::Release);
        // SAFETY: the caller's contract; elements are whole numbers of units.
        unsafe { units_in(place, items.cast(), count * size_of::<T>(), View::<T>::UNIT) };
    }
}

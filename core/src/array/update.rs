//! Atomic updates of single elements.

use super::{Array, Contended, Element, Float, Integer};
use crate::prim::{Atom, Ordering};

/// Swaps that an update's loop may lose before it gives up. Each loss means that somebody else's update came between a look
/// and a swap some 10 ns later, so honest contention loses a few in a row, and hundreds only where this process is
/// starved of the cache line.
pub const TRIES: u32 = 1 << 16;

type Bits<T> = <<T as Element>::Atom as Atom>::Bits;

// The instructions stand in functions of their own at the end, so that a model's mutants name their lines and not those of
// the callers, whom a panic names.

impl<'m, T: Element> Array<'m, T> {
    /// Sets element `index` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn swap(&self, index: usize, value: T) -> T {
        T::of_bits(swap::<T>(self.at(index), value.to_bits()))
    }

    /// Sets element `index` to `new` if it is `current`, compared bit by bit: `-0.0` is not `0.0`, and a NaN is itself.
    ///
    /// # Errors
    /// What was found, if that was not `current`.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn compare_exchange(&self, index: usize, current: T, new: T) -> Result<(), T> {
        exchange::<T>(self.at(index), current.to_bits(), new.to_bits()).map_err(T::of_bits)
    }

    /// Sets element `index` to what `update` makes of it and returns what was there. Lock-free: a lost swap means that
    /// another process's update succeeded; `update` is called again then.
    ///
    /// # Errors
    /// [`Contended`] after [`TRIES`] lost swaps; the element was not updated.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    ///
    /// # Crash
    /// A process killed inside has updated the element or has not.
    #[inline]
    #[track_caller]
    pub fn fetch_update(&self, index: usize, mut update: impl FnMut(T) -> T) -> Result<T, Contended> {
        let place = self.at(index);
        // ORDERING: Relaxed. The swap below acquires what was read here, and each lost one what it found.
        let mut found = place.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            match exchange::<T>(place, found, update(T::of_bits(found)).to_bits()) {
                Ok(()) => return Ok(T::of_bits(found)),
                Err(newer) => found = newer,
            }
        }
        Err(Contended)
    }

    #[inline]
    #[track_caller]
    fn at(&self, index: usize) -> &'m T::Atom {
        match self.element(index) {
            // SAFETY: an element is one unit of this very atomic; valid for 'm by the contract of `attach`.
            Ok(place) => unsafe { place.cast::<T::Atom>().as_ref() },
            Err(error) => error.panic(),
        }
    }
}

/// Wait-free: one instruction each. Arithmetic wraps.
impl<T: Integer> Array<'_, T> {
    /// Adds to element `index` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_add(&self, index: usize, value: T) -> T {
        T::of_bits(add::<T>(self.at(index), value.to_bits()))
    }

    /// Subtracts from element `index` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_sub(&self, index: usize, value: T) -> T {
        self.fetch_add(index, value.negated())
    }

    /// Ands element `index` with `value` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_and(&self, index: usize, value: T) -> T {
        T::of_bits(and::<T>(self.at(index), value.to_bits()))
    }

    /// Ors element `index` with `value` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_or(&self, index: usize, value: T) -> T {
        T::of_bits(or::<T>(self.at(index), value.to_bits()))
    }

    /// Xors element `index` with `value` and returns what was there.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_xor(&self, index: usize, value: T) -> T {
        T::of_bits(xor::<T>(self.at(index), value.to_bits()))
    }
}

impl<T: Float> Array<'_, T> {
    /// Adds to element `index` and returns what was there. A loop of compare-and-swap: see
    /// [`fetch_update`](Self::fetch_update).
    ///
    /// # Errors
    /// [`Contended`] after [`TRIES`] lost swaps; nothing was added.
    ///
    /// # Panics
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn fetch_add_float(&self, index: usize, value: T) -> Result<T, Contended> {
        self.fetch_update(index, |found| found + value)
    }
}

#[inline]
fn swap<T: Element>(place: &T::Atom, new: Bits<T>) -> Bits<T> {
    // ORDERING array.element: AcqRel. Pairs with the fences in `read` and `write`, and with other updates.
    place.swap(new, Ordering::AcqRel)
}

#[inline]
fn add<T: Element>(place: &T::Atom, bits: Bits<T>) -> Bits<T> {
    // ORDERING array.element: AcqRel. As in `swap`.
    place.fetch_add(bits, Ordering::AcqRel)
}

#[inline]
fn and<T: Element>(place: &T::Atom, bits: Bits<T>) -> Bits<T> {
    // ORDERING array.element: AcqRel. As in `swap`.
    place.fetch_and(bits, Ordering::AcqRel)
}

#[inline]
fn or<T: Element>(place: &T::Atom, bits: Bits<T>) -> Bits<T> {
    // ORDERING array.element: AcqRel. As in `swap`.
    place.fetch_or(bits, Ordering::AcqRel)
}

#[inline]
fn xor<T: Element>(place: &T::Atom, bits: Bits<T>) -> Bits<T> {
    // ORDERING array.element: AcqRel. As in `swap`.
    place.fetch_xor(bits, Ordering::AcqRel)
}

#[inline]
fn exchange<T: Element>(place: &T::Atom, current: Bits<T>, new: Bits<T>) -> Result<(), Bits<T>> {
    // ORDERING array.element: AcqRel, and Acquire if it fails, because the caller goes by what was found. Pairs with the
    // fences in `read` and `write`, and with other updates.
    place.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
}

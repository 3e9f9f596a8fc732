//! Memory in units of 1, 2, 4 or 8 bytes, each accessed in that width only: what arrays are made of.

use core::ptr::NonNull;

use super::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// An atomic integer of one width.
pub trait Atom: 'static {
    /// The integer.
    type Bits: Copy + PartialEq + core::fmt::Debug;

    /// An atomic that holds 0.
    fn zero() -> Self;
    /// Reads.
    fn load(&self, order: Ordering) -> Self::Bits;
    /// Writes.
    fn store(&self, bits: Self::Bits, order: Ordering);
    /// Writes and returns what was there.
    fn swap(&self, bits: Self::Bits, order: Ordering) -> Self::Bits;
    /// Replaces `current` by `new`.
    ///
    /// # Errors
    /// What was found, if it was not `current`.
    fn compare_exchange(
        &self,
        current: Self::Bits,
        new: Self::Bits,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Bits, Self::Bits>;
    /// Adds, wrapping, and returns what was there.
    fn fetch_add(&self, bits: Self::Bits, order: Ordering) -> Self::Bits;
    /// Ands and returns what was there.
    fn fetch_and(&self, bits: Self::Bits, order: Ordering) -> Self::Bits;
    /// Ors and returns what was there.
    fn fetch_or(&self, bits: Self::Bits, order: Ordering) -> Self::Bits;
    /// Xors and returns what was there.
    fn fetch_xor(&self, bits: Self::Bits, order: Ordering) -> Self::Bits;
}

macro_rules! atoms {
    ($($atomic:ident $bits:ident)*) => {$(
        impl Atom for $atomic {
            type Bits = $bits;

            #[track_caller]
            fn zero() -> Self {
                Self::new(0)
            }
            #[inline(always)]
            #[track_caller]
            fn load(&self, order: Ordering) -> $bits {
                self.load(order)
            }
            #[inline(always)]
            #[track_caller]
            fn store(&self, bits: $bits, order: Ordering) {
                self.store(bits, order);
            }
            #[inline(always)]
            #[track_caller]
            fn swap(&self, bits: $bits, order: Ordering) -> $bits {
                self.swap(bits, order)
            }
            #[inline(always)]
            #[track_caller]
            fn compare_exchange(
                &self,
                current: $bits,
                new: $bits,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$bits, $bits> {
                self.compare_exchange(current, new, success, failure)
            }
            #[inline(always)]
            #[track_caller]
            fn fetch_add(&self, bits: $bits, order: Ordering) -> $bits {
                self.fetch_add(bits, order)
            }
            #[inline(always)]
            #[track_caller]
            fn fetch_and(&self, bits: $bits, order: Ordering) -> $bits {
                self.fetch_and(bits, order)
            }
            #[inline(always)]
            #[track_caller]
            fn fetch_or(&self, bits: $bits, order: Ordering) -> $bits {
                self.fetch_or(bits, order)
            }
            #[inline(always)]
            #[track_caller]
            fn fetch_xor(&self, bits: $bits, order: Ordering) -> $bits {
                self.fetch_xor(bits, order)
            }
        }
    )*};
}

atoms!(AtomicU8 u8 AtomicU16 u16 AtomicU32 u32 AtomicU64 u64);

/// Bytes of a unit where elements have `size_bytes`: the largest of 1, 2, 4, 8 that divides them.
pub(crate) const fn unit_bytes(size_bytes: usize) -> usize {
    let twos = size_bytes.trailing_zeros();
    if twos < 3 { 1 << twos } else { 8 }
}

/// Bytes from one unit of `unit_bytes` to the next: as many, but in the model, whose atomics are larger.
pub(crate) const fn unit_stride(unit_bytes: usize) -> usize {
    if cfg!(crosslane_loom) { size_of::<AtomicU64>() } else { unit_bytes }
}

/// From this size on the compiler-opaque copy is faster than a loop over units.
#[cfg(all(target_arch = "x86_64", not(crosslane_loom), not(crosslane_tsan), not(miri)))]
const OPAQUE_BYTES: usize = 32;

/// Copies private bytes into shared units of `unit` bytes.
///
/// # Safety
/// - `src` is valid for reads of `len` bytes that nobody writes meanwhile; `len` is a multiple of `unit`;
/// - `dst` is valid for `len / unit` units, aligned to `unit`, which is 1, 2, 4 or 8.
#[inline]
#[track_caller]
pub(crate) unsafe fn units_in(dst: NonNull<u8>, src: *const u8, len: usize, unit: usize) {
    #[cfg(all(target_arch = "x86_64", not(crosslane_loom), not(crosslane_tsan), not(miri)))]
    if len >= OPAQUE_BYTES {
        // SAFETY: the caller's contract; private and shared memory do not overlap.
        return unsafe { super::bulk::copy(dst.as_ptr(), src, len) };
    }
    #[cfg(crosslane_tsan)]
    if true {
        // SAFETY: the caller's contract; plain on purpose, so that the sanitizer sees the access.
        return unsafe { core::ptr::copy_nonoverlapping(src, dst.as_ptr(), len) };
    }
    match unit {
        // SAFETY: the caller's contract, here and below.
        1 => unsafe { each_in::<AtomicU8>(dst, src, len) },
        // SAFETY: as above.
        2 => unsafe { each_in::<AtomicU16>(dst, src, len / 2) },
        // SAFETY: as above.
        4 => unsafe { each_in::<AtomicU32>(dst, src, len / 4) },
        // SAFETY: as above.
        _ => unsafe { each_in::<AtomicU64>(dst, src, len / 8) },
    }
}

/// Copies shared units of `unit` bytes out.
///
/// # Safety
/// - `dst` is valid for writes of `len` bytes that nobody else touches meanwhile; `len` is a multiple of `unit`;
/// - `src` is valid for reads of `len / unit` units, aligned to `unit`, which is 1, 2, 4 or 8.
#[inline]
#[track_caller]
pub(crate) unsafe fn units_out(dst: *mut u8, src: NonNull<u8>, len: usize, unit: usize) {
    #[cfg(all(target_arch = "x86_64", not(crosslane_loom), not(crosslane_tsan), not(miri)))]
    if len >= OPAQUE_BYTES {
        // SAFETY: the caller's contract; private and shared memory do not overlap.
        return unsafe { super::bulk::copy(dst, src.as_ptr(), len) };
    }
    #[cfg(crosslane_tsan)]
    if true {
        // SAFETY: the caller's contract; plain on purpose, so that the sanitizer sees the access.
        return unsafe { core::ptr::copy_nonoverlapping(src.as_ptr(), dst, len) };
    }
    match unit {
        // SAFETY: the caller's contract, here and below.
        1 => unsafe { each_out::<AtomicU8>(dst, src, len) },
        // SAFETY: as above.
        2 => unsafe { each_out::<AtomicU16>(dst, src, len / 2) },
        // SAFETY: as above.
        4 => unsafe { each_out::<AtomicU32>(dst, src, len / 4) },
        // SAFETY: as above.
        _ => unsafe { each_out::<AtomicU64>(dst, src, len / 8) },
    }
}

/// # Safety
/// As `units_in`'s, for `count` units of `A`.
#[inline(always)]
#[track_caller]
unsafe fn each_in<A: Atom>(dst: NonNull<u8>, src: *const u8, count: usize) {
    for i in 0..count {
        // SAFETY: inside the private bytes that the caller vouches for.
        let from = unsafe { src.cast::<A::Bits>().add(i) };
        // SAFETY: as above; of any alignment.
        let bits = unsafe { from.read_unaligned() };
        // SAFETY: inside the shared units.
        let unit = unsafe { dst.cast::<A>().add(i) };
        // SAFETY: as above; atomic, so that peers may access it too.
        let unit = unsafe { unit.as_ref() };
        // ORDERING: Relaxed. The caller fences.
        unit.store(bits, Ordering::Relaxed);
    }
}

/// # Safety
/// As `units_out`'s, for `count` units of `A`.
#[inline(always)]
#[track_caller]
unsafe fn each_out<A: Atom>(dst: *mut u8, src: NonNull<u8>, count: usize) {
    for i in 0..count {
        // SAFETY: inside the shared units.
        let unit = unsafe { src.cast::<A>().add(i) };
        // SAFETY: as above; atomic, so that peers may access it too.
        let unit = unsafe { unit.as_ref() };
        // ORDERING: Relaxed. The caller fences.
        let bits = unit.load(Ordering::Relaxed);
        // SAFETY: inside the private bytes that the caller vouches for.
        let to = unsafe { dst.cast::<A::Bits>().add(i) };
        // SAFETY: as above; of any alignment.
        unsafe { to.write_unaligned(bits) };
    }
}

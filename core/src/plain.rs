//! Types that may lie in shared memory.
//!
//! # What
//! [`Plain`] is the bound of every payload: whatever bytes another process wrote are a value of it. Its
//! [`FINGERPRINT`](Plain::FINGERPRINT) is what a segment's header carries, so that two binaries which were built from
//! different versions of a struct refuse each other at open and do not read each other's fields.
//!
//! # Fingerprint
//! 64-bit FNV-1a (Fowler, Noll, Vo) over a description of the type, then the finalizer of MurmurHash3 (Appleby):
//! - a scalar: its name and its size. Not its alignment, which differs between targets for the same bytes (`u64` on
//!   32-bit x86): where alignment matters, it shows in the offsets and the alignment of the struct around it;
//! - an array: its length and its element's fingerprint;
//! - a struct: its name without path or generics, size, alignment, and each field's name, offset and fingerprint.
//!
//! It tells versions of a type apart; it is no proof against somebody who looks for a collision, and memory safety does
//! not rest on it.
#![allow(unsafe_code)]

#[cfg(feature = "bytemuck")]
mod bytemuck;
#[cfg(feature = "zerocopy")]
mod zerocopy;

#[cfg(feature = "bytemuck")]
pub use self::bytemuck::Bytemuck;
#[cfg(feature = "zerocopy")]
pub use self::zerocopy::Zerocopy;

/// A type whose every bit pattern is a value, with no padding, no pointer and no destructor, so that bytes which
/// another process wrote are always a value of it.
///
/// Implemented for the fixed-width integers and floats up to 64 bits and for arrays of `Plain`; `#[derive(Plain)]` of
/// `crosslane-derive` (feature `derive` of this crate) does it for `#[repr(C)]` structs. Types that have the traits of
/// `zerocopy` or `bytemuck` already come along in `plain::Zerocopy` and `plain::Bytemuck` (features of those names).
///
/// Not implemented for:
/// - `usize` and `isize`: their size differs between builds;
/// - `u128` and `i128`: their alignment changed from 8 to 16 between compilers, so that two builds may lay the same
///   struct out differently; use `[u64; 2]`;
/// - `bool`, `char` and enums: most bit patterns are no value of them;
/// - references and pointers: they mean nothing in another process.
///
/// # Safety
/// - every pattern of `size_of::<Self>()` bytes is a valid value;
/// - there are no padding bytes, no pointers and no interior mutability;
/// - `FINGERPRINT` differs between types that do not mean the same bytes, as far as 64 bits can.
#[diagnostic::on_unimplemented(
    message = "`{Self}` may not lie in shared memory: it is not `Plain`",
    note = "`Plain` are u8 to u64, i8 to i64, f32, f64, arrays of them, and `#[repr(C)]` structs with `#[derive(Plain)]`"
)]
pub unsafe trait Plain: Copy + Send + Sync + 'static {
    /// Identifies the type's layout and field names.
    const FINGERPRINT: u64;
}

/// Computes a [`Plain::FINGERPRINT`]: begin with the kind of type, add what distinguishes it, finish.
///
/// `#[derive(Plain)]` uses it; so does an `unsafe impl Plain` by hand.
///
/// # Examples
/// ```
/// use core::mem::offset_of;
/// use crosslane_core::Plain;
/// use crosslane_core::plain::Fingerprint;
///
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// struct Tick {
///     price: f64,
///     volume: u64,
/// }
///
/// // SAFETY: two 8-byte fields at offsets 0 and 8, each `Plain`, nothing between or after them.
/// unsafe impl Plain for Tick {
///     const FINGERPRINT: u64 = Fingerprint::of_struct("Tick", size_of::<Tick>(), align_of::<Tick>())
///         .field("price", offset_of!(Tick, price), f64::FINGERPRINT)
///         .field("volume", offset_of!(Tick, volume), u64::FINGERPRINT)
///         .finish();
/// }
/// assert_ne!(Tick::FINGERPRINT, <[u64; 2]>::FINGERPRINT);
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Fingerprint(u64);

/// FNV-1a's start and multiplier for 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// What a description begins with, so that types of different kinds never have the same one.
const SCALAR: u64 = 1;
const ARRAY: u64 = 2;
const STRUCT: u64 = 3;
#[cfg(any(feature = "zerocopy", feature = "bytemuck"))]
const ADAPTER: u64 = 4;

impl Fingerprint {
    /// A scalar: its name and size in bytes.
    pub const fn of_scalar(name: &str, size_bytes: usize) -> Self {
        Self(FNV_OFFSET).number(SCALAR).text(name).number(size_bytes as u64)
    }

    /// An array of `len` elements that have the fingerprint `element`.
    pub const fn of_array(len: usize, element: u64) -> Self {
        Self(FNV_OFFSET).number(ARRAY).number(len as u64).number(element)
    }

    /// A struct: its name without path, its size and alignment in bytes. Its fields follow in the order of their offsets.
    pub const fn of_struct(name: &str, size_bytes: usize, align_bytes: usize) -> Self {
        Self(FNV_OFFSET).number(STRUCT).text(name).number(size_bytes as u64).number(align_bytes as u64)
    }

    /// A type of which only another crate's traits are known: the crate's name, the version that its user gives it, its
    /// size and alignment in bytes.
    #[cfg(any(feature = "zerocopy", feature = "bytemuck"))]
    const fn of_adapter(name: &str, version: u64, size_bytes: usize, align_bytes: usize) -> Self {
        let described = Self(FNV_OFFSET).number(ADAPTER).text(name).number(version);
        described.number(size_bytes as u64).number(align_bytes as u64)
    }

    /// Adds a field: its name, its offset in bytes and its type's fingerprint.
    pub const fn field(self, name: &str, offset_bytes: usize, fingerprint: u64) -> Self {
        self.text(name).number(offset_bytes as u64).number(fingerprint)
    }

    /// The fingerprint. Every bit of the description changes about half of its bits.
    #[must_use]
    pub const fn finish(self) -> u64 {
        let mut hash = self.0;
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }

    /// The length goes first, so that no text runs into what follows it.
    const fn text(self, text: &str) -> Self {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// Always little-endian and 64 bits wide, so that 32-bit and 64-bit builds agree.
    const fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self.0 = (self.0 ^ bytes[i] as u64).wrapping_mul(FNV_PRIME);
            i += 1;
        }
        self
    }
}

macro_rules! scalars {
    ($($scalar:ident)*) => {$(
        // SAFETY:
        // - every bit pattern of an integer or a float is a value (a NaN keeps whatever payload it has);
        // - it is one block of bytes: no padding, no pointer, no cell;
        // - the name is in the fingerprint.
        unsafe impl Plain for $scalar {
            const FINGERPRINT: u64 =
                Fingerprint::of_scalar(stringify!($scalar), size_of::<$scalar>()).finish();
        }
    )*};
}

scalars!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

// SAFETY:
// - an array's elements stand side by side without padding (its stride is the element's size), and each is `Plain`;
// - length and element are in the fingerprint.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const FINGERPRINT: u64 = Fingerprint::of_array(N, T::FINGERPRINT).finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_of_scalars_and_arrays_are_all_different() {
        let mut all = [
            u8::FINGERPRINT,
            u16::FINGERPRINT,
            u32::FINGERPRINT,
            u64::FINGERPRINT,
            i8::FINGERPRINT,
            i16::FINGERPRINT,
            i32::FINGERPRINT,
            i64::FINGERPRINT,
            f32::FINGERPRINT,
            f64::FINGERPRINT,
            <[u8; 8]>::FINGERPRINT,
            <[u8; 4]>::FINGERPRINT,
            <[u32; 2]>::FINGERPRINT,
            <[u8; 0]>::FINGERPRINT,
            <[[u8; 2]; 4]>::FINGERPRINT,
            <[[u8; 4]; 2]>::FINGERPRINT,
        ];
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:x?}");
    }

    /// What a segment of an earlier build carries: a change of these numbers makes old and new binaries refuse each other.
    #[test]
    fn fingerprints_stay_what_they_were() {
        assert_eq!(u64::FINGERPRINT, 0xf7d2_b28c_7f24_318a);
        assert_eq!(<[f32; 3]>::FINGERPRINT, 0xd515_ace3_2721_f524);
        let tick = Fingerprint::of_struct("Tick", 16, 8).field("price", 0, 1).field("volume", 8, 2).finish();
        assert_eq!(tick, 0x7113_0b73_bb01_d5d4);
    }

    #[test]
    fn a_name_does_not_run_into_the_next() {
        let one = Fingerprint::of_struct("A", 1, 1).field("bc", 0, 0).finish();
        let two = Fingerprint::of_struct("Ab", 1, 1).field("c", 0, 0).finish();
        assert_ne!(one, two);
    }
}

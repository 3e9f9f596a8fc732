//! Elements with atomic updates: integers and floats.

use crate::plain::Plain;
use crate::prim::{Atom, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

mod sealed {
    /// Only the types of this module are elements: their atomics are what the array accesses.
    pub trait Sealed {}
}

/// An integer or float of 1, 2, 4 or 8 bytes: an element with atomic updates.
pub trait Element: Plain + sealed::Sealed {
    /// Its atomic.
    #[doc(hidden)]
    type Atom: Atom;
    /// Its bits.
    #[doc(hidden)]
    fn to_bits(self) -> <Self::Atom as Atom>::Bits;
    /// The value of these bits.
    #[doc(hidden)]
    fn of_bits(bits: <Self::Atom as Atom>::Bits) -> Self;
}

/// An integer: updates are single instructions.
pub trait Integer: Element {
    /// `0 - self`, wrapping.
    #[doc(hidden)]
    fn negated(self) -> Self;
}

/// A float: updates are loops of compare-and-swap.
pub trait Float: Element + core::ops::Add<Output = Self> {}

macro_rules! integers {
    ($($integer:ident $atomic:ident $bits:ident)*) => {$(
        impl sealed::Sealed for $integer {}
        impl Element for $integer {
            type Atom = $atomic;
            #[inline(always)]
            fn to_bits(self) -> $bits {
                $bits::from_ne_bytes(self.to_ne_bytes())
            }
            #[inline(always)]
            fn of_bits(bits: $bits) -> Self {
                Self::from_ne_bytes(bits.to_ne_bytes())
            }
        }
        impl Integer for $integer {
            #[inline(always)]
            fn negated(self) -> Self {
                self.wrapping_neg()
            }
        }
    )*};
}

integers!(
    u8 AtomicU8 u8 u16 AtomicU16 u16 u32 AtomicU32 u32 u64 AtomicU64 u64
    i8 AtomicU8 u8 i16 AtomicU16 u16 i32 AtomicU32 u32 i64 AtomicU64 u64
);

macro_rules! floats {
    ($($float:ident $atomic:ident $bits:ident)*) => {$(
        impl sealed::Sealed for $float {}
        impl Element for $float {
            type Atom = $atomic;
            #[inline(always)]
            fn to_bits(self) -> $bits {
                self.to_bits()
            }
            #[inline(always)]
            fn of_bits(bits: $bits) -> Self {
                Self::from_bits(bits)
            }
        }
        impl Float for $float {}
    )*};
}

floats!(f32 AtomicU32 u32 f64 AtomicU64 u64);

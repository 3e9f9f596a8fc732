//! Types that several processes may use in place: atomics, and structs of them.
//!
//! # What
//! [`Share`] is the bound of what may be *borrowed* from shared memory whoever else writes it: every access that safe code
//! can make through a `&T` is an atomic one, and every bit pattern is a value. What is not made for that is
//! [`Plain`](crate::Plain) and travels by copy.
//!
//! The fingerprint is made as that of [`Plain`](crate::plain), so that two binaries which were built from different
//! versions of a struct refuse each other.
#![allow(unsafe_code)]

use crate::plain::Fingerprint;
use crate::prim::shared;

/// A type that several processes may use in place, through `&T`, while any of them writes any bytes into it.
///
/// Implemented for the standard atomics of fixed width and for arrays of `Share`; `#[derive(Share)]` of `crosslane-derive`
/// (feature `derive` of this crate) does it for `#[repr(C)]` structs of them. Not for `AtomicBool`, most bytes of which are
/// no value, `AtomicUsize` and `AtomicIsize`, whose size differs between builds, nor `AtomicPtr`.
///
/// # Safety
/// - every pattern of `size_of::<Self>()` bytes is a valid value;
/// - there are no padding bytes and no pointers, and dropping does nothing;
/// - every byte is accessed atomically, in one size, by everything that safe code can do with a `&Self`;
/// - `FINGERPRINT` differs between types that do not mean the same bytes, as far as 64 bits can.
#[diagnostic::on_unimplemented(
    message = "`{Self}` may not be borrowed from shared memory: it is not `Share`",
    note = "`Share` are AtomicU8 to AtomicU64, AtomicI8 to AtomicI64, arrays of them, and `#[repr(C)]` structs with \
            `#[derive(Share)]`"
)]
pub unsafe trait Share: Send + Sync + 'static {
    /// Identifies the type's layout and field names.
    const FINGERPRINT: u64;
}

macro_rules! atomics {
    ($($bits:literal: $($atomic:ident)*),*) => {$($(
        // SAFETY:
        // - every bit pattern of an integer is a value, and it is one block of bytes;
        // - all accesses through `&` are atomic and as wide as the type;
        // - the name is in the fingerprint.
        #[cfg(target_has_atomic = $bits)]
        unsafe impl Share for shared::$atomic {
            const FINGERPRINT: u64 =
                Fingerprint::of_scalar(stringify!($atomic), size_of::<shared::$atomic>()).finish();
        }
    )*)*};
}

atomics!("8": AtomicU8 AtomicI8, "16": AtomicU16 AtomicI16, "32": AtomicU32 AtomicI32, "64": AtomicU64 AtomicI64);

// SAFETY:
// - an array's elements stand side by side without padding (its stride is the element's size), and each is `Share`;
// - length and element are in the fingerprint.
unsafe impl<T: Share, const N: usize> Share for [T; N] {
    const FINGERPRINT: u64 = Fingerprint::of_array(N, T::FINGERPRINT).finish();
}

// SAFETY:
// - `#[repr(transparent)]` over an `AtomicU32`, any of whose values it takes;
// - all accesses through `&` are atomic and as wide as the type;
// - the name is in the fingerprint.
#[cfg(not(crosslane_loom))]
unsafe impl Share for crate::event::EventWord {
    const FINGERPRINT: u64 = Fingerprint::of_scalar("EventWord", size_of::<Self>()).finish();
}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use super::*;
    use crate::Plain;

    #[test]
    fn atomics_are_told_apart_from_each_other_and_from_what_is_copied() {
        let all = [
            shared::AtomicU32::FINGERPRINT,
            shared::AtomicI32::FINGERPRINT,
            shared::AtomicU8::FINGERPRINT,
            <[shared::AtomicU8; 4]>::FINGERPRINT,
            <[shared::AtomicU16; 2]>::FINGERPRINT,
            u32::FINGERPRINT,
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one), "{i}");
        }
    }
}

//! Atomics, payload words and fences: the only place that names `core::sync::atomic`, `UnsafeCell` or loom.
//!
//! Three faces of one interface:
//! - ordinary builds: `core`'s atomics; payload bytes travel as relaxed atomic words (an opaque copy in assembly for
//!   large ones), so a peer that writes meanwhile means garbage bytes and never undefined behaviour;
//! - `--cfg crosslane_loom`: loom's atomics with a schedule point before each access, payload in loom's `UnsafeCell`s,
//!   orderings that a mutant may weaken, and a fuel that kills a thread before its k-th access;
//! - `--cfg crosslane_tsan`: payload copies are plain, so that the thread sanitizer sees a missing edge.
#![allow(unsafe_code)]

#[cfg(not(crosslane_loom))]
mod real;
#[cfg(not(crosslane_loom))]
use real as face;

#[cfg(all(target_arch = "x86_64", not(crosslane_loom), not(crosslane_tsan), not(miri)))]
mod bulk;
#[cfg(target_has_atomic = "64")]
mod units;

#[cfg(crosslane_loom)]
pub(crate) mod modelled;
#[cfg(crosslane_loom)]
use modelled as face;

pub use core::sync::atomic::Ordering;
#[cfg(target_has_atomic = "64")]
pub(crate) use face::{AtomicU8, AtomicU16, back_off, prefetch, race_in, race_out, show_fence};
pub use face::{AtomicU32, fence};
#[cfg(target_has_atomic = "64")]
pub use face::{AtomicU64, InPlace, Word, copy_in, copy_out};
pub(crate) use face::{compiler_fence, fence_after_rmw, in_program_order, pause};
#[cfg(target_has_atomic = "64")]
pub use units::Atom;
#[cfg(target_has_atomic = "64")]
pub(crate) use units::{unit_bytes, unit_stride, units_in, units_out};

/// The standard atomics as they lie in shared memory, whichever face is on: what users borrow is theirs to model.
pub(crate) mod shared {
    #[cfg(target_has_atomic = "8")]
    pub(crate) use core::sync::atomic::{AtomicI8, AtomicU8};
    #[cfg(target_has_atomic = "16")]
    pub(crate) use core::sync::atomic::{AtomicI16, AtomicU16};
    #[cfg(target_has_atomic = "32")]
    pub(crate) use core::sync::atomic::{AtomicI32, AtomicU32};
    #[cfg(target_has_atomic = "64")]
    pub(crate) use core::sync::atomic::{AtomicI64, AtomicU64};
}

/// Bytes of payload that one [`Word`] carries.
#[cfg(target_has_atomic = "64")]
pub const WORD_BYTES: usize = 8;

/// Whether `word` still holds `expected`; for implementations of [`Wait::park`](crate::Wait::park) without a kernel.
#[must_use]
pub fn is_still(word: &AtomicU32, expected: u32) -> bool {
    // ORDERING: Relaxed. Only decides whether to look again; the look itself acquires.
    word.load(Ordering::Relaxed) == expected
}

//! What `#[derive(Share)]` accepts, and what its fingerprints tell apart.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicI16, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crosslane_core::Share;

#[derive(Default, Share)]
#[repr(C)]
struct Stats {
    total: AtomicU64,
    worst: AtomicU32,
    flags: [AtomicU16; 2],
}

#[derive(Default, Share)]
#[repr(C)]
struct Nested {
    each: [Stats; 2],
    last: AtomicI16,
    rest: [AtomicU8; 6],
}

mod swapped {
    use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

    #[derive(crosslane_core::Share)]
    #[repr(C)]
    pub(super) struct Stats {
        total: AtomicU64,
        flags: [AtomicU16; 2],
        worst: AtomicU32,
    }
}

mod renamed {
    use crosslane_core as lanes;

    #[derive(lanes::Share)]
    #[share(crate = lanes)]
    #[repr(transparent)]
    pub(super) struct Stats(core::sync::atomic::AtomicU64);
}

#[test]
fn structs_of_atomics_are_share_and_versions_differ() {
    let all = [
        Stats::FINGERPRINT,
        swapped::Stats::FINGERPRINT,
        renamed::Stats::FINGERPRINT,
        Nested::FINGERPRINT,
        <[Stats; 2]>::FINGERPRINT,
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| other != one), "{i}");
    }
    assert_eq!(size_of::<Nested>(), 40);
}

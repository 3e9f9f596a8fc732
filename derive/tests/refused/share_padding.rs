use core::sync::atomic::{AtomicU32, AtomicU64};
use crosslane_core::Share;

#[derive(Share)]
#[repr(C)]
struct Counter {
    narrow: AtomicU32,
    wide: AtomicU64,
}

fn main() {}

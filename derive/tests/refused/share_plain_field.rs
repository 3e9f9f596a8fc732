use core::sync::atomic::AtomicU64;
use crosslane_core::Share;

#[derive(Share)]
#[repr(C)]
struct Counter {
    shared: AtomicU64,
    plain: u64,
}

fn main() {}

use core::sync::atomic::AtomicUsize;
use crosslane_core::Share;

#[derive(Share)]
#[repr(C)]
struct Counter {
    count: AtomicUsize,
}

fn main() {}

use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[plain(skip)]
#[repr(C)]
struct Optional {
    a: u64,
}

fn main() {}

use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Tail {
    len: u64,
    kind: u32,
}

fn main() {}

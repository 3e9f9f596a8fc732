use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Node {
    next: *const u8,
}

fn main() {}

use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Gap {
    kind: u8,
    len: u32,
}

fn main() {}

use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Borrowed {
    text: &'static u8,
}

fn main() {}

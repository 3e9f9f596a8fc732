use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Wide {
    id: u128,
}

fn main() {}

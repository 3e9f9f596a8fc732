use crosslane_core::Plain;

#[derive(Plain)]
#[repr(C)]
struct Moved {
    a: u64,
}

fn main() {}

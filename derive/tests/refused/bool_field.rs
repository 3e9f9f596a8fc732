use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Flag {
    on: bool,
}

fn main() {}

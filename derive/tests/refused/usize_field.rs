use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Count {
    items: usize,
}

fn main() {}

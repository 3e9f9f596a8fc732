use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Pair<T: Plain> {
    a: T,
    b: T,
}

fn main() {}

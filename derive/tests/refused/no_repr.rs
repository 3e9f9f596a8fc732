use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
struct Rusty {
    a: u64,
    b: u64,
}

fn main() {}

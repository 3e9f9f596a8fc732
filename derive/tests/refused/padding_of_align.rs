use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C, align(64))]
struct Line {
    word: u64,
}

fn main() {}

use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(transparent)]
struct Marked(u64, [u8; 0]);

fn main() {}

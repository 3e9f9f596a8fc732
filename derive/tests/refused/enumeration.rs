use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(u32)]
enum Side {
    Buy,
    Sell,
}

fn main() {}

use crosslane_core::Share;

#[derive(Share)]
#[repr(u32)]
enum Phase {
    First,
}

fn main() {}

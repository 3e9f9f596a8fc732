use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
union Either {
    a: u32,
    b: f32,
}

fn main() {}

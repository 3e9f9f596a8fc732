//! Types that have the traits of `zerocopy` or `bytemuck` are payloads as they are.

use bytemuck::{Pod, Zeroable};
use crosslane_core::Plain;
use crosslane_core::plain::{Bytemuck, Zerocopy};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, Pod, Zeroable)]
#[repr(C)]
struct Tick {
    price: f64,
    volume: u32,
    flags: [u8; 4],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, Pod, Zeroable)]
#[repr(C)]
struct Longer {
    tick: Tick,
    venue: u64,
}

fn fingerprint<T: Plain>() -> u64 {
    T::FINGERPRINT
}

#[test]
fn adapters_are_plain_and_the_value_is_reached_through_them() {
    let tick = Tick { price: 1.0, volume: 2, flags: [3; 4] };
    let mut z: Zerocopy<Tick> = tick.into();
    z.volume += 1;
    let mut b: Bytemuck<Tick> = Bytemuck(tick);
    b.volume += 1;
    assert_eq!((z.0, z.volume), (*b, 3));
    assert_eq!(size_of::<Zerocopy<Tick>>(), size_of::<Tick>());
}

#[test]
fn fingerprints_know_size_adapter_and_version() {
    let mut all = [
        fingerprint::<Zerocopy<Tick>>(),
        fingerprint::<Zerocopy<Tick, 1>>(),
        fingerprint::<Zerocopy<Longer>>(),
        fingerprint::<Bytemuck<Tick>>(),
        fingerprint::<Bytemuck<Tick, 1>>(),
        fingerprint::<Bytemuck<Longer>>(),
        fingerprint::<[u64; 2]>(),
    ];
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:x?}");
    // As documented: what the other crates' traits do not tell.
    assert_eq!(fingerprint::<Zerocopy<Tick>>(), fingerprint::<Zerocopy<[u64; 2]>>());
}

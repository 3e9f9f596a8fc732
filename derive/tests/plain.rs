//! What `#[derive(Plain)]` accepts, and what its fingerprints tell apart.
#![forbid(unsafe_code)]

use crosslane_core::Plain;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Tick {
    price: f64,
    volume: u64,
}

mod elsewhere {
    pub(super) mod deeper {
        #[derive(Clone, Copy, crosslane_core::Plain)]
        #[repr(C)]
        pub(in super::super) struct Tick {
            price: f64,
            volume: u64,
        }
    }
}

/// Variants of `Tick`, each with the name `Tick`.
macro_rules! variant {
    ($module:ident, $($attribute:meta)?, { $($field:ident: $type:ty),* }) => {
        mod $module {
            #[derive(Clone, Copy, crosslane_core::Plain)]
            #[repr(C)]
            $(#[$attribute])?
            pub(super) struct Tick { $($field: $type),* }
        }
    };
}

variant!(swapped, , { volume: u64, price: f64 });
variant!(renamed, , { price: f64, amount: u64 });
variant!(retyped, , { price: f64, volume: i64 });
variant!(widened, , { price: f64, volume: u64, venue: u64 });
variant!(split, , { price: f64, volume: [u32; 2] });
variant!(aligned, repr(align(16)), { price: f64, volume: u64 });

#[test]
fn the_path_of_a_type_is_not_part_of_its_fingerprint() {
    assert_eq!(Tick::FINGERPRINT, elsewhere::deeper::Tick::FINGERPRINT);
}

#[test]
fn same_size_and_swapped_fields_differ() {
    assert_eq!(size_of::<Tick>(), size_of::<swapped::Tick>());
    assert_ne!(Tick::FINGERPRINT, swapped::Tick::FINGERPRINT);
}

#[test]
fn every_change_of_a_field_or_of_the_layout_differs() {
    let all = [
        Tick::FINGERPRINT,
        swapped::Tick::FINGERPRINT,
        renamed::Tick::FINGERPRINT,
        retyped::Tick::FINGERPRINT,
        widened::Tick::FINGERPRINT,
        split::Tick::FINGERPRINT,
        aligned::Tick::FINGERPRINT,
    ];
    let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn a_change_deep_inside_shows_outside() {
    mod one {
        use super::Tick;
        #[derive(Clone, Copy, crosslane_core::Plain)]
        #[repr(C)]
        pub(super) struct Book {
            best: [Tick; 2],
        }
    }
    mod two {
        use super::renamed::Tick;
        #[derive(Clone, Copy, crosslane_core::Plain)]
        #[repr(C)]
        pub(super) struct Book {
            best: [Tick; 2],
        }
    }
    assert_ne!(one::Book::FINGERPRINT, two::Book::FINGERPRINT);
    assert_ne!(<[Tick; 2]>::FINGERPRINT, <[Tick; 3]>::FINGERPRINT);
}

#[test]
fn the_fingerprint_is_the_documented_one() {
    use crosslane_core::plain::Fingerprint;
    let expected = Fingerprint::of_struct("Tick", 16, 8)
        .field("price", 0, f64::FINGERPRINT)
        .field("volume", 8, u64::FINGERPRINT)
        .finish();
    assert_eq!(Tick::FINGERPRINT, expected);
}

#[test]
fn tuple_packed_transparent_and_raw_names_are_accepted() {
    #[derive(Clone, Copy, Plain)]
    #[repr(C)]
    struct Pair(u32, f32);

    #[derive(Clone, Copy, Plain)]
    #[repr(C, packed(1))]
    struct Wire {
        kind: u8,
        len: u32,
    }

    #[derive(Clone, Copy, Plain)]
    #[repr(transparent)]
    struct Celsius(f32);

    #[derive(Clone, Copy, Plain)]
    #[repr(C)]
    struct Raw {
        r#type: u64,
    }

    #[derive(Clone, Copy, Plain)]
    #[repr(C)]
    struct Nothing;

    let all = [
        Pair::FINGERPRINT,
        Wire::FINGERPRINT,
        Celsius::FINGERPRINT,
        Raw::FINGERPRINT,
        Nothing::FINGERPRINT,
        f32::FINGERPRINT,
    ];
    let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn core_may_have_another_path() {
    mod facade {
        pub(crate) mod __private {
            pub(crate) use crosslane_core::{Plain, plain};
        }
    }

    #[derive(Clone, Copy, Plain)]
    #[plain(crate = facade::__private)]
    #[repr(C)]
    struct Point {
        x: f64,
        y: f64,
    }
    assert_ne!(Point::FINGERPRINT, <[f64; 2]>::FINGERPRINT);
}

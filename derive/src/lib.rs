//! `#[derive(Plain)]` and `#[derive(Share)]`: prove that a struct may lie in shared memory, to be copied (`Plain`) or
//! borrowed as it is (`Share`, whose fields are atomics), and fingerprint its layout.
//!
//! Reached as `crosslane_core::Plain` and `crosslane_core::Share` with feature `derive` of `crosslane-core`.
//!
//! ```text
//!   #[repr(C)] struct          this crate, at build time              at run time
//!   +----------------+      +---------------------------+     +--------------------------+
//!   | price: f64     | ---> | each field, each gap:     | --> | FINGERPRINT in a header: |
//!   | volume: u32    |      | refused by its name, or a |     | another binary's struct  |
//!   | venue: [u8; 4] |      | hash of names and offsets |     | is refused at open       |
//!   +----------------+      +---------------------------+     +--------------------------+
//! ```
//!
//! # Which type do I want
//!
//! | the struct | take | its fields |
//! |---|---|---|
//! | travels, or is copied in and out: an item, an element, the value behind a lock | `Plain` | fixed-width numbers, arrays, `Plain` structs |
//! | is used in place by every process at once: `crosslane_shm::Shared` | `Share` | atomics, arrays of them, `Share` structs |
//! | has the traits of `zerocopy` or `bytemuck` already | `crosslane_core::plain::Zerocopy<T>`, `Bytemuck<T>` | no derive of this crate |
//!
//! # What is checked
//! - the struct is `#[repr(C)]`, or `#[repr(transparent)]` around one field: the order of its fields is the written one;
//! - every field is `Plain`, or `Share`;
//! - there is no padding before, between or after the fields. The error names the field next to the gap; fill it with a
//!   field of your own (`_pad: [u8; 4]`), whose bytes then have a value like any other;
//! - no generics: whether `(u8, T)` has padding depends on `T`, and only a concrete struct can be checked where it stands.
//!
//! Enums and unions are refused: most bit patterns are no value of an enum, and a union has no one list of fields.
//!
//! # Examples
//! ```
//! use crosslane_core::Plain;
//!
//! #[derive(Clone, Copy, Plain)]
//! #[repr(C)]
//! struct Tick {
//!     price: f64,
//!     volume: u32,
//!     venue: [u8; 4],
//! }
//!
//! // A later version, of the same size: whoever maps the one as the other is refused.
//! mod next {
//!     # use crosslane_core::Plain;
//!     #[derive(Clone, Copy, Plain)]
//!     #[repr(C)]
//!     pub struct Tick {
//!         price: f64,
//!         venue: [u8; 4],
//!         volume: u32,
//!     }
//! }
//! assert_ne!(Tick::FINGERPRINT, next::Tick::FINGERPRINT);
//! ```
//!
//! # Path to core
//! The expansion names `::crosslane_core`, or `::crosslane::crosslane_core` for `crosslane::Plain`. A crate that reaches core under another path says so:
//! ```
//! use crosslane_core as lanes;
//!
//! #[derive(Clone, Copy, lanes::Plain)]
//! #[plain(crate = lanes)]
//! #[repr(transparent)]
//! struct Celsius(f32);
//! ```

mod plain;

use proc_macro::TokenStream;

/// Implements `crosslane_core::Plain` for a `#[repr(C)]` struct without padding whose fields are all `Plain`.
///
/// The struct must also be `Copy`. `#[plain(crate = path)]` names another path to `crosslane_core`. See the crate's
/// documentation for what is checked.
#[proc_macro_derive(Plain, attributes(plain))]
pub fn derive_plain(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let core = syn::parse_quote!(::crosslane_core);
    plain::expand(&plain::PLAIN, &input, core).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `crosslane_core::Share` for a `#[repr(C)]` struct without padding whose fields are all `Share`: atomics,
/// arrays of them, and such structs.
///
/// `#[share(crate = path)]` names another path to `crosslane_core`. See the crate's documentation for what is checked.
#[proc_macro_derive(Share, attributes(share))]
pub fn derive_share(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let core = syn::parse_quote!(::crosslane_core);
    plain::expand(&plain::SHARE, &input, core).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// As `derive(Plain)`, for users of the crate `crosslane`, who reach `crosslane_core` through it.
#[doc(hidden)]
#[proc_macro_derive(PlainInFacade, attributes(plain))]
pub fn derive_plain_in_facade(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let core = syn::parse_quote!(::crosslane::crosslane_core);
    plain::expand(&plain::PLAIN, &input, core).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// As `derive(Share)`, for users of the crate `crosslane`, who reach `crosslane_core` through it.
#[doc(hidden)]
#[proc_macro_derive(ShareInFacade, attributes(share))]
pub fn derive_share_in_facade(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let core = syn::parse_quote!(::crosslane::crosslane_core);
    plain::expand(&plain::SHARE, &input, core).unwrap_or_else(syn::Error::into_compile_error).into()
}

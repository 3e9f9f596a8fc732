//! What the fuzz targets do with their input. `fuzz/` runs these bodies under cargo-fuzz; the replay test of this crate
//! runs them over the committed corpora with any compiler.
//!
//! Two kinds:
//! - *operations*: a ring and a model of it out of std get the same sequence of operations, and must answer the same;
//! - *hostile*: a peer overwrites the shared words with anything, before or while the operations run. The answers may
//!   be wrong, but every call must return, soon, and touch nothing outside of its memory.
//!
//! Each target has a *planted* bug, in a wrapper or reader of this crate and never in what ships, that is on only when
//! the fuzzer is to show that it finds it.

use arbitrary::{Arbitrary, Unstructured};

pub mod arena;
pub mod array_ops;
pub mod call_ops;
pub mod hostile_frozen;
pub mod hostile_locks;
pub mod hostile_mpmc;
pub mod hostile_raw;
pub mod hostile_record;
pub mod hostile_slab;
pub mod hostile_spsc;
pub mod hostile_words;
pub mod latest_ops;
pub mod lock_ops;
pub mod mpmc_ops;
pub mod names;
pub mod record_ops;
pub mod scribble;
pub mod segment_open;
pub mod spsc_ops;
pub mod surroundings;

/// A target: its name, which is that of its corpus, and its body. The body gets the input and whether the planted bug
/// is on; it panics when it finds a fault.
pub type Target = (&'static str, fn(&[u8], bool));

/// Every target.
pub const TARGETS: [Target; 18] = [
    ("spsc_ops", spsc_ops::run),
    ("record_ops", record_ops::run),
    ("mpmc_ops", mpmc_ops::run),
    ("hostile_spsc", hostile_spsc::run),
    ("hostile_record", hostile_record::run),
    ("hostile_mpmc", hostile_mpmc::run),
    ("hostile_words", hostile_words::run),
    ("scribble", scribble::run),
    ("segment_open", segment_open::run),
    ("names", names::run),
    ("hostile_slab", hostile_slab::run),
    ("hostile_frozen", hostile_frozen::run),
    ("hostile_raw", hostile_raw::run),
    ("array_ops", array_ops::run),
    ("latest_ops", latest_ops::run),
    ("lock_ops", lock_ops::run),
    ("hostile_locks", hostile_locks::run),
    ("call_ops", call_ops::run),
];

/// Decodes an input; `None` if it is too short to mean anything.
pub(crate) fn decode<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}

/// Mode number `number`, taken round.
pub(crate) fn mode(number: u8) -> crosslane_core::WakeMode {
    use crosslane_core::WakeMode::{Asymmetric, Fenced, Polling};
    [Fenced, Asymmetric, Polling][usize::from(number) % 3]
}

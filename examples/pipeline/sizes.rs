//! How much the table holds.

pub(crate) const MAX_COUNTERS: usize = 16;
/// Entries of the table, a power of two; at most three quarters are filled.
pub(crate) const ENTRIES: usize = 1 << 20;
/// Bytes for the text of all words.
pub(crate) const TEXT_BYTES: usize = 16 << 20;
/// A serialised histogram of two digits up to a minute takes about 10 KiB.
pub(crate) const HISTOGRAM_BYTES: usize = 32 << 10;

//! What the processes of a case report to the driver: words in a mapping of their own, beside the segment under test.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crosslane_tests::mapping::Mapping;

const WORDS: usize = 512;

/// Shared 64-bit words, all 0 at first.
pub(crate) struct Page(Mapping);

impl Page {
    pub(crate) fn new() -> Self {
        Self(Mapping::new(WORDS * 8))
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: an atomic integer: every bit pattern is one.
        unsafe { self.0.at(index * 8) }
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        self.word(index).load(SeqCst)
    }

    pub(crate) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, SeqCst);
    }

    pub(crate) fn add(&self, index: usize, value: u64) {
        self.word(index).fetch_add(value, SeqCst);
    }
}

//! The table of totals that all processes share, behind a mutex.

use std::collections::HashMap;
use std::hash::BuildHasher;

use crosslane_core::{Plain, Trusted};
use crosslane_shm::{Env, Mutex, OpenError};
use crosslane_sync::{LeaseLock, LockError, MutexGuard};
use foldhash::fast::FixedState;

use crate::failure::Failure;

pub(crate) const MAX_COUNTERS: usize = 16;
/// Entries of the table, a power of two; at most three quarters are filled.
const ENTRIES: usize = 1 << 20;
/// Bytes for the text of all words.
const TEXT_BYTES: usize = 16 << 20;
/// A serialised histogram of two digits up to a minute takes about 10 KiB.
const HISTOGRAM_BYTES: usize = 32 << 10;

/// What the processes of a pipeline find out together. All zero: nothing yet.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
pub(crate) struct Table {
    /// Lines and bytes that were counted.
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    /// What the reader met.
    pub(crate) files: u64,
    pub(crate) binary_files: u64,
    pub(crate) unreadable_files: u64,
    distinct: u64,
    text_used: u64,
    /// When the first line was sent and the last one was counted, in ns of the monotonic clock.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    counters: [Latency; MAX_COUNTERS],
    entries: [Entry; ENTRIES],
    text: [u8; TEXT_BYTES],
}

/// The times that records spent in one ring, as a serialised histogram.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
struct Latency {
    len_bytes: u64,
    histogram: [u8; HISTOGRAM_BYTES],
}

/// A word: `count` is 0 while the entry is free.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
struct Entry {
    count: u64,
    offset: u32,
    len_bytes: u32,
}

/// The counts of one counter since it last merged them.
pub(crate) type Counts = HashMap<Box<[u8]>, u64, FixedState>;

/// The table as the processes hold it.
pub(crate) type Shared = Mutex<Table, Trusted>;
type Guard<'a> = MutexGuard<'a, Table, LeaseLock<Env>>;

/// The handle, allowed to lend the table in place.
pub(crate) fn trusted(table: &Mutex<Table>) -> Result<Shared, OpenError> {
    // SAFETY: the processes of a pipeline all run this program, which touches the table only under its lock, through
    // this handle.
    unsafe { table.trust_peers() }
}

/// Locks the table; a table that somebody left half changed is a failure.
pub(crate) fn lock(table: &Shared) -> Result<Guard<'_>, Failure> {
    table.lock().map_err(|error| {
        Failure::TableBroken(match error {
            LockError::OwnerDied(_) => "a process died while it merged its counts",
            LockError::Poisoned(_) => "a process left it half changed",
            _ => "its lock is corrupt",
        })
    })
}

impl Table {
    /// Adds a counter's counts.
    pub(crate) fn merge(&mut self, counts: &Counts) -> Result<(), Failure> {
        counts.iter().try_for_each(|(word, count)| self.add(word, *count))
    }

    /// The words and their counts.
    ///
    /// Offsets that point nowhere (no process of ours writes such) give an empty word.
    pub(crate) fn words(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.entries.iter().filter(|entry| entry.count > 0).map(|entry| (self.word(entry), entry.count))
    }

    /// Sets the histogram of counter `index`.
    pub(crate) fn set_latency(&mut self, index: usize, histogram: &[u8]) -> Result<(), Failure> {
        let latency = &mut self.counters[index];
        let room =
            latency.histogram.get_mut(..histogram.len()).ok_or(Failure::TableBroken("a histogram is too long"))?;
        room.copy_from_slice(histogram);
        latency.len_bytes = histogram.len() as u64;
        Ok(())
    }

    /// The serialised histograms of those counters that have set one.
    pub(crate) fn latencies(&self) -> impl Iterator<Item = &[u8]> {
        self.counters.iter().filter(|latency| latency.len_bytes > 0).map(|latency| {
            let len = usize::try_from(latency.len_bytes).unwrap_or(usize::MAX);
            latency.histogram.get(..len).unwrap_or_default()
        })
    }

    fn word(&self, entry: &Entry) -> &[u8] {
        let start = entry.offset as usize;
        self.text.get(start..start + entry.len_bytes as usize).unwrap_or_default()
    }

    fn add(&mut self, word: &[u8], count: u64) -> Result<(), Failure> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose an entry")]
        let mut index = FixedState::default().hash_one(word) as usize;
        for _ in 0..ENTRIES {
            index %= ENTRIES;
            let entry = self.entries[index];
            if entry.count == 0 {
                return self.insert(index, word, count);
            }
            if self.word(&entry) == word {
                self.entries[index].count += count;
                return Ok(());
            }
            index += 1;
        }
        Err(self.full())
    }

    fn insert(&mut self, index: usize, word: &[u8], count: u64) -> Result<(), Failure> {
        let start = usize::try_from(self.text_used).unwrap_or(usize::MAX);
        if self.distinct >= ENTRIES as u64 / 4 * 3 || TEXT_BYTES.saturating_sub(start) < word.len() {
            return Err(self.full());
        }
        self.text[start..start + word.len()].copy_from_slice(word);
        self.text_used += word.len() as u64;
        self.distinct += 1;
        #[expect(clippy::cast_possible_truncation, reason = "both are below TEXT_BYTES")]
        let (offset, len_bytes) = (start as u32, word.len() as u32);
        self.entries[index] = Entry { count, offset, len_bytes };
        Ok(())
    }

    fn full(&self) -> Failure {
        Failure::TableFull { words: usize::try_from(self.distinct).unwrap_or(usize::MAX) }
    }
}

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

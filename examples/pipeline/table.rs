//! The table of totals that all processes share, behind a mutex; exact also if counters are killed.
//!
//! # Exactness
//! A counter holds the records that it has read in its ring ([`hold_batch`]) until they are in the table. To put a batch
//! there, with the lock held, it
//! 1. writes the *redo record*: the absolute value that each touched entry and each total is to have, among them
//!    `applied[ring]`, the ring's position behind the batch; new words' text goes behind `text_used`;
//! 2. commits it by one store: `redo.batch` = the batch's number;
//! 3. copies the values into the table;
//! 4. stores `redo.batch` = 0, and unlocks;
//! 5. releases the records in the ring.
//!
//! | killed between | the table, for whoever locks next (`OwnerDied`) | the records, for the counter's successor |
//! |---|---|---|
//! | 1 and 2 | as before: only the redo record and unused text have changed | come again, from `applied` on: counted once |
//! | 2 and 4 | step 3 is done again from its start; absolute values may be copied any number of times | come again, before `applied`: skipped |
//! | 4 and 5 | whole | come again, before `applied`: skipped |
//! | after 5 | whole | gone |
//!
//! So each record is counted exactly once: the store of step 2 decides, and it decides for the counts and for the position
//! in the ring together. That the rest goes to somebody is the library's part: the lock comes as `OwnerDied`, and a
//! record that was not released comes again. `tests/crash/pipeline.rs` kills a counter at every instruction of this.
//!
//! [`hold_batch`]: crosslane_core::record::Reader::hold_batch

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{Ordering, compiler_fence};

use crosslane_core::{Plain, Trusted};
use crosslane_shm::OpenError;
use crosslane_sync::{LockError, MutexGuard, RawLock};
use foldhash::fast::FixedState;

use super::batch::Batch;
use super::failure::Failure;
use super::sizes::{ENTRIES, HISTOGRAM_BYTES, MAX_COUNTERS, TEXT_BYTES};

/// What the processes of a pipeline find out together. All zero: nothing yet.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
pub(crate) struct Table {
    pub(crate) totals: Totals,
    /// What the reader met.
    pub(crate) files: u64,
    pub(crate) binary_files: u64,
    pub(crate) unreadable_files: u64,
    /// When the first line was sent and the last one was counted, in ns of the monotonic clock.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    counters: [Latency; MAX_COUNTERS],
    entries: [Entry; ENTRIES],
    text: [u8; TEXT_BYTES],
    redo: Redo,
}

/// What changes with each batch besides the entries.
#[derive(Debug, Clone, Copy, Default, Plain)]
#[repr(C)]
pub(crate) struct Totals {
    /// Lines and bytes that were counted.
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    batches: u64,
    distinct: u64,
    text_used: u64,
    /// The position in each ring up to which its records are in the table.
    pub(crate) applied: [u64; MAX_COUNTERS],
}

/// The last batch, to be applied once more if its counter died meanwhile.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
struct Redo {
    /// The batch's number; 0: there is nothing to be done again.
    batch: u64,
    len: u64,
    totals: Totals,
    entries: [Change; ENTRIES],
}

/// The entry at `index` is to be `entry`.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
struct Change {
    index: u64,
    entry: Entry,
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

/// Words and how often they came.
pub(crate) type Counts = HashMap<Box<[u8]>, u64, FixedState>;

/// The table as the processes hold it.
pub(crate) type Shared = crosslane_shm::Mutex<Table, Trusted>;
/// The same behind any lock that tells of a dead owner.
pub(crate) type Locked<R> = crosslane_sync::Mutex<Table, R, Trusted>;

/// The handle, allowed to lend the table in place.
pub(crate) fn trusted(table: &crosslane_shm::Mutex<Table>) -> Result<Shared, OpenError> {
    // SAFETY: the processes of a pipeline all run this program, which touches the table only under its lock, through
    // this handle.
    unsafe { table.trust_peers() }
}

/// Locks the table. A batch that a killed process left half applied is applied first.
pub(crate) fn lock<R: RawLock>(table: &Locked<R>) -> Result<MutexGuard<'_, Table, R>, Failure> {
    match table.lock() {
        Ok(guard) => Ok(guard),
        Err(LockError::OwnerDied(mut guard)) => {
            guard.redo()?;
            guard.mark_consistent();
            Ok(guard)
        }
        Err(LockError::Poisoned(_)) => Err(Failure::TableBroken("a process left it half changed")),
        Err(_) => Err(Failure::TableBroken("its lock is corrupt")),
    }
}

impl Table {
    /// Adds the batch of ring `ring` that ends at `position`: see the module's steps 1 to 4.
    pub(crate) fn add(&mut self, batch: &Batch, ring: usize, position: u64) -> Result<(), Failure> {
        self.prepare(batch, ring, position)?;
        self.commit();
        self.redo()
    }

    /// Step 1.
    pub(super) fn prepare(&mut self, batch: &Batch, ring: usize, position: u64) -> Result<(), Failure> {
        let mut totals = self.totals;
        totals.lines += batch.lines;
        totals.bytes += batch.bytes;
        totals.batches += 1;
        totals.applied[ring] = position;
        let mut new = HashSet::with_hasher(FixedState::default());
        for (change, (word, count)) in batch.counts.iter().enumerate() {
            let index = self.find(word, &new).ok_or_else(|| full(&totals))?;
            let mut entry = self.entries[index];
            if entry.count == 0 {
                entry = self.text_of(word, &mut totals)?;
                new.insert(index);
            }
            entry.count += count;
            *self.redo.entries.get_mut(change).ok_or_else(|| full(&totals))? = Change { index: index as u64, entry };
        }
        self.redo.len = batch.counts.len() as u64;
        self.redo.totals = totals;
        Ok(())
    }

    /// Step 2.
    pub(super) fn commit(&mut self) {
        self.set_batch(self.redo.totals.batches);
    }

    /// Steps 3 and 4, if step 2 was done.
    pub(super) fn redo(&mut self) -> Result<(), Failure> {
        if self.redo.batch == 0 {
            return Ok(());
        }
        self.apply()?;
        self.set_batch(0);
        Ok(())
    }

    /// Step 3.
    pub(super) fn apply(&mut self) -> Result<(), Failure> {
        let broken = Failure::TableBroken("its redo record is corrupt");
        let len = usize::try_from(self.redo.len).unwrap_or(usize::MAX);
        let Some(changes) = self.redo.entries.get(..len) else { return Err(broken) };
        for Change { index, entry } in changes {
            let slot = usize::try_from(*index).ok().and_then(|index| self.entries.get_mut(index));
            let Some(slot) = slot else { return Err(broken) };
            *slot = *entry;
        }
        self.totals = self.redo.totals;
        Ok(())
    }

    /// One store, after everything that stands before it. A process that is killed has done everything before some
    /// instruction and nothing behind it, so the order of its instructions is all that counts.
    pub(super) fn set_batch(&mut self, batch: u64) {
        compiler_fence(Ordering::SeqCst);
        self.redo.batch = batch;
        compiler_fence(Ordering::SeqCst);
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
        compiler_fence(Ordering::SeqCst);
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

    /// Where `word` stands, or is to stand: a free entry that is not one of `new`.
    fn find(&self, word: &[u8], new: &HashSet<usize, FixedState>) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose an entry")]
        let start = FixedState::default().hash_one(word) as usize;
        (0..ENTRIES).map(|step| start.wrapping_add(step) % ENTRIES).find(|index| {
            let entry = &self.entries[*index];
            if entry.count == 0 { !new.contains(index) } else { self.word(entry) == word }
        })
    }

    /// Puts a new word's text behind what is in use.
    fn text_of(&mut self, word: &[u8], totals: &mut Totals) -> Result<Entry, Failure> {
        let start = usize::try_from(totals.text_used).unwrap_or(usize::MAX);
        if totals.distinct >= ENTRIES as u64 / 4 * 3 || TEXT_BYTES.saturating_sub(start) < word.len() {
            return Err(full(totals));
        }
        self.text[start..start + word.len()].copy_from_slice(word);
        totals.text_used += word.len() as u64;
        totals.distinct += 1;
        #[expect(clippy::cast_possible_truncation, reason = "both are below TEXT_BYTES")]
        let (offset, len_bytes) = (start as u32, word.len() as u32);
        Ok(Entry { count: 0, offset, len_bytes })
    }
}

fn full(totals: &Totals) -> Failure {
    Failure::TableFull { words: usize::try_from(totals.distinct).unwrap_or(usize::MAX) }
}

//! Batches: records that a counter holds in its ring until their counts are in the table.

use std::time::Duration;

use crosslane_core::record::{HeldBatch, PopError, Reader};
use crosslane_core::{Liveness, Wait};
use crosslane_sync::RawLock;

use super::failure::Failure;
use super::table::{self, Counts, Locked};

/// How long a batch waits for another record before it is added as it is.
const PATIENCE: Duration = Duration::from_millis(1);

/// Records of one ring, counted.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) counts: Counts,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// Moves the records of one ring to the table.
#[derive(Debug)]
pub(crate) struct Mover {
    /// Which ring.
    pub(crate) ring: usize,
    /// The position in it up to which a predecessor has added the records; those that it did not release come again.
    pub(crate) applied: u64,
    /// The most that a batch takes.
    pub(crate) most_bytes: u64,
    pub(crate) most_records: u64,
    /// As long as the longest record.
    pub(crate) buffer: Vec<u8>,
    pub(crate) batch: Batch,
}

impl Mover {
    /// Takes the next records, adds them to `table`, and releases them. Why in this order: see [`table`].
    pub(crate) fn pass_on<E: Wait + Liveness, K, R: RawLock>(
        &mut self,
        reader: &mut Reader<'_, E, K>,
        table: &Locked<R>,
        count: impl FnMut(&mut Batch, &[u8]),
    ) -> Result<(), Failure> {
        let mut held = reader.hold_batch();
        self.take(&mut held, count)?;
        // All of it was added already: nothing to say, and `applied` must not go back.
        if held.position() > self.applied {
            table::lock(table)?.add(&self.batch, self.ring, held.position())?;
        }
        held.release();
        Ok(())
    }

    /// Takes what is there, or comes in time, and counts what no predecessor has added.
    pub(crate) fn take<E: Wait + Liveness, K>(
        &mut self,
        held: &mut HeldBatch<'_, '_, E, K>,
        mut count: impl FnMut(&mut Batch, &[u8]),
    ) -> Result<(), Failure> {
        let Self { applied, batch, buffer, .. } = self;
        batch.clear();
        while held.held_bytes() < self.most_bytes && batch.lines < self.most_records {
            let position = held.position();
            let popped = match held.try_pop_into(buffer) {
                Err(PopError::Empty) => held.pop_into_timeout(buffer, PATIENCE),
                popped => popped,
            };
            match popped {
                Ok(len) if position >= *applied => count(batch, &buffer[..len]),
                Ok(_) => {}
                Err(PopError::TimedOut | PopError::Closed) => break,
                Err(error) => return Err(Failure::Pop(error)),
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Counts a line of these words.
    pub(crate) fn count<'w>(&mut self, line: &[u8], words: impl Iterator<Item = &'w [u8]>) {
        self.lines += 1;
        self.bytes += line.len() as u64 + 1;
        for word in words {
            match self.counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    self.counts.insert(word.into(), 1);
                }
            }
        }
    }

    fn clear(&mut self) {
        self.counts.clear();
        (self.lines, self.bytes) = (0, 0);
    }
}

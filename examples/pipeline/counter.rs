//! A counter: takes records from its ring, counts their words, and adds its counts to the table from time to time.
//!
//! It releases records only when their counts are in the table, so one that is killed loses none and counts none twice:
//! see [`table`].

use std::time::Duration;

use crosslane_core::record::PopError;
use crosslane_shm::Record;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use crate::Args;
use crate::failure::Failure;
use crate::files;
use crate::reader::{STAMP_BYTES, open_table};
use crate::table::{self, Batch, now_ns};

/// Records between two batches: some milliseconds of work, against tens of microseconds for adding a batch.
const BATCH_RECORDS: u64 = 1 << 16;

/// How long a batch waits for another record before it is added as it is.
const PATIENCE: Duration = Duration::from_millis(1);

/// A histogram of the nanoseconds that records spend in a ring: two digits, up to a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("constant bounds")
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let name = args.ring(args.index)?;
    let what = || format!("ring {name}");
    let ring = Record::open(&name, &args.options()).map_err(|error| Failure::Open { what: what(), error })?;
    let mut reader = ring.reader().map_err(|error| Failure::Claim { what: what(), error })?;
    let table = open_table(args)?;

    let ring = args.index as usize;
    let applied = table::lock(&table)?.totals.applied[ring];
    // Half of the ring stays with the reader.
    let most_bytes = u64::from(args.ring_bytes / 2);
    let most_records = args.kill_every.map_or(BATCH_RECORDS, |thousands| BATCH_RECORDS.min(thousands.get() * 500));

    let mut latency = histogram();
    let mut batch = Batch::default();
    let mut record = vec![0; args.ring_bytes as usize];
    loop {
        // Waits for a record, and leaves it where it is.
        match reader.read() {
            Ok(record) => record.keep(),
            Err(PopError::Closed) => break,
            Err(error) => return Err(Failure::Pop(error)),
        }
        let mut held = reader.hold_batch();
        while held.held_bytes() < most_bytes && batch.lines < most_records {
            let position = held.position();
            let popped = match held.try_pop_into(&mut record) {
                Err(PopError::Empty) => held.pop_into_timeout(&mut record, PATIENCE),
                popped => popped,
            };
            match popped {
                // What a predecessor has added and not released comes again.
                Ok(len) if position >= applied => batch.count(&record[..len], &mut latency),
                Ok(_) => {}
                Err(PopError::TimedOut | PopError::Closed) => break,
                Err(error) => return Err(Failure::Pop(error)),
            }
        }
        // All of it was added already: nothing to say, and `applied` must not go back.
        if held.position() > applied {
            table::lock(&table)?.add(&batch, ring, held.position())?;
        }
        held.release();
        batch.clear();
    }
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(&latency, &mut bytes).map_err(|_| Failure::TableBroken("a histogram is too long"))?;
    let mut table = table::lock(&table)?;
    table.last_ns = table.last_ns.max(now_ns());
    table.set_latency(args.index as usize, &bytes)
}

impl Batch {
    fn count(&mut self, record: &[u8], latency: &mut Histogram<u64>) {
        let Some((stamp, line)) = record.split_first_chunk::<STAMP_BYTES>() else { return };
        latency.saturating_record(now_ns().saturating_sub(u64::from_ne_bytes(*stamp)));
        self.lines += 1;
        self.bytes += line.len() as u64 + 1;
        for word in files::words(line) {
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

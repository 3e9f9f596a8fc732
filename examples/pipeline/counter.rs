//! A counter: takes records from its ring, counts their words, and adds its counts to the table from time to time.
//!
//! It releases records only when their counts are in the table, so one that is killed loses none and counts none twice:
//! see [`table`].

use crosslane_core::record::PopError;
use crosslane_shm::Record;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use super::Args;
use super::batch::{Batch, Mover};
use super::clock::now_ns;
use super::failure::Failure;
use super::files;
use super::reader::{STAMP_BYTES, open_table};
use super::table;

/// Records between two batches: some milliseconds of work, against tens of microseconds for adding a batch.
const BATCH_RECORDS: u64 = 1 << 16;

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

    let index = args.index as usize;
    let mut mover = Mover {
        ring: index,
        applied: table::lock(&table)?.totals.applied[index],
        // Half of the ring stays with the reader.
        most_bytes: u64::from(args.ring_bytes / 2),
        most_records: args.kill_every.map_or(BATCH_RECORDS, |thousands| BATCH_RECORDS.min(thousands.get() * 500)),
        buffer: vec![0; args.ring_bytes as usize],
        batch: Batch::default(),
    };
    let mut latency = histogram();
    loop {
        // Waits for a record, and leaves it where it is.
        match reader.read() {
            Ok(record) => record.keep(),
            Err(PopError::Closed) => break,
            Err(error) => return Err(Failure::Pop(error)),
        }
        mover.pass_on(&mut reader, &table, |batch, record| {
            let Some((stamp, line)) = record.split_first_chunk::<STAMP_BYTES>() else { return };
            latency.saturating_record(now_ns().saturating_sub(u64::from_ne_bytes(*stamp)));
            batch.count(line, files::words(line));
        })?;
    }
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(&latency, &mut bytes).map_err(|_| Failure::TableBroken("a histogram is too long"))?;
    let mut table = table::lock(&table)?;
    table.last_ns = table.last_ns.max(now_ns());
    table.set_latency(index, &bytes)
}

//! A counter: takes records from its ring, counts their words, and merges its counts into the table from time to time.

use crosslane_core::record::PopError;
use crosslane_shm::Record;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use crate::Args;
use crate::failure::Failure;
use crate::files;
use crate::reader::{STAMP_BYTES, open_table};
use crate::table::{self, Counts, Shared, now_ns};

/// Records between two merges: some milliseconds of work, against tens of microseconds for a merge.
const MERGE_EVERY: u64 = 1 << 16;

/// What a counter knows and the table does not.
struct Pending {
    counts: Counts,
    lines: u64,
    bytes: u64,
}

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

    let mut latency = histogram();
    let mut pending = Pending { counts: Counts::default(), lines: 0, bytes: 0 };
    let mut record = vec![0; args.ring_bytes as usize];
    loop {
        match reader.pop_into(&mut record) {
            Ok(len) => pending.count(&record[..len], &mut latency),
            Err(PopError::Closed) => break,
            Err(error) => return Err(Failure::Pop(error)),
        }
        if pending.lines == MERGE_EVERY || (reader.is_empty() && pending.lines > MERGE_EVERY / 16) {
            pending.merge(&table)?;
        }
    }
    pending.merge(&table)?;
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(&latency, &mut bytes).map_err(|_| Failure::TableBroken("a histogram is too long"))?;
    let mut table = table::lock(&table)?;
    table.last_ns = table.last_ns.max(now_ns());
    table.set_latency(args.index as usize, &bytes)
}

impl Pending {
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

    fn merge(&mut self, table: &Shared) -> Result<(), Failure> {
        let mut table = table::lock(table)?;
        table.merge(&self.counts)?;
        table.lines += self.lines;
        table.bytes += self.bytes;
        drop(table);
        self.counts.clear();
        (self.lines, self.bytes) = (0, 0);
        Ok(())
    }
}

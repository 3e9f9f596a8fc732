//! The reader: sends every line as a record, in turn to each counter's ring.

use std::thread;
use std::time::{Duration, Instant};

use crosslane_core::record::PushError;
use crosslane_shm::{Mutex, Record, record};

use super::Args;
use super::clock::now_ns;
use super::failure::Failure;
use super::files::{self, Files, Read};
use super::table;

/// A record is the time of its sending, in ns of the monotonic clock, and the line.
pub(crate) const STAMP_BYTES: usize = 8;

/// Lines that go to one ring before the next has its turn, so that a wake pays for several.
const TURN: u64 = 64;

/// How long the successor of a killed counter may take to come, and how often it is looked for.
const SUCCESSION: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let found = Files::below(&args.path, args.all)?;
    let table = open_table(args)?;
    let mut rings = (0..args.counters).map(|index| writer(args, index)).collect::<Result<Vec<_>, _>>()?;
    table::lock(&table)?.first_ns = now_ns();

    let (mut sent, mut binary, mut unreadable) = (0_u64, 0, found.unreadable);
    let mut record = Vec::new();
    for (path, _) in &found.readable {
        let read = files::lines(path, |line, number| {
            record.clear();
            record.extend_from_slice(&now_ns().to_ne_bytes());
            record.extend_from_slice(line);
            let turn = usize::try_from(sent / TURN).unwrap_or(0) % rings.len();
            sent += 1;
            send(&mut rings[turn], &record, args.kill_every.is_some()).map_err(|error| match error {
                PushError::TooLong { len, max } => Failure::LineTooLong {
                    path: path.clone(),
                    line: number,
                    len: len - STAMP_BYTES,
                    max: max - STAMP_BYTES,
                },
                error => Failure::Push(error),
            })
        });
        match read {
            Ok(done) => match done? {
                Read::Text => {}
                Read::Binary if *path == args.path => return Err(Failure::Binary { path: path.clone() }),
                Read::Binary => binary += 1,
            },
            Err(error) if *path == args.path => return Err(Failure::Path { path: path.clone(), error }),
            Err(error) => unreadable.push((path.clone(), error)),
        }
    }
    for (path, error) in &unreadable {
        eprintln!("pipeline: left out {}: {error}", path.display());
    }
    let mut table = table::lock(&table)?;
    table.files = found.readable.len() as u64;
    table.binary_files = binary;
    table.unreadable_files = unreadable.len() as u64;
    Ok(())
}

/// Pushes a record. Where counters are killed on purpose, a dead one's successor is waited for.
fn send(ring: &mut record::Writer, record: &[u8], replaced: bool) -> Result<(), PushError> {
    let start = Instant::now();
    loop {
        match ring.push(record) {
            Err(PushError::PeerDied(_)) if replaced && start.elapsed() < SUCCESSION => thread::sleep(TICK),
            done => return done,
        }
    }
}

fn writer(args: &Args, index: u32) -> Result<record::Writer, Failure> {
    let name = args.ring(index)?;
    let what = || format!("ring {name}");
    let ring = Record::open(&name, &args.options()).map_err(|error| Failure::Open { what: what(), error })?;
    ring.writer().map_err(|error| Failure::Claim { what: what(), error })
}

pub(crate) fn open_table(args: &Args) -> Result<table::Shared, Failure> {
    let name = args.table()?;
    let fail = |error| Failure::Open { what: format!("table {name}"), error };
    table::trusted(&*Mutex::open(&name, &args.options()).map_err(fail)?).map_err(fail)
}

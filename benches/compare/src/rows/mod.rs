//! The rows, one file per family. A new family is a file with a `rows(scale) -> Vec<Row>`, and a line in [`all`].

mod array;
mod batches;
mod blocking;
mod call;
mod condvar;
mod contended;
mod handed;
mod large;
mod latest;
mod lock;
mod locks_family;
mod mpmc;
mod one_by_one;
mod pool;
mod pool_bounds;
pub mod processes;
mod pthread;
mod record;
mod recovery;
mod ring;
mod rival;
mod round_trip;
mod segment;
mod value;
mod vyukov;
mod wake_modes;

use crate::row::Row;

/// Every row; `scale` shortens the measurements of a quick run.
pub fn all(scale: f64) -> Vec<Row> {
    [
        round_trip::rows,
        one_by_one::rows,
        wake_modes::rows,
        batches::rows,
        large::rows,
        blocking::rows,
        lock::rows,
        value::rows,
        locks_family::rows,
        contended::rows,
        condvar::rows,
        call::rows,
        record::rows,
        segment::rows,
        mpmc::rows,
        recovery::rows,
        latest::rows,
        array::rows,
        processes::rows,
        handed::rows,
        pool::rows,
        pool_bounds::rows,
    ]
    .into_iter()
    .flat_map(|family| family(scale))
    .collect()
}

/// How far the two CPUs are from each other now: a bare two-line ping-pong, in nanoseconds for both ways.
pub fn distance_nanos() -> f64 {
    round_trip::distance_nanos()
}

/// `operations` of a full run, shortened.
fn scaled(operations: u64, scale: f64) -> u64 {
    ((operations as f64 * scale) as u64).max(1)
}

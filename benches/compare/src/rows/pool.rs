//! Pools: trivial tasks one by one and in chunks, one call and its answer, and the whole life of a pool. Nobody is pinned.

use std::time::Instant;

use crosslane::Pool;
use rayon::prelude::*;

use super::scaled;
use crate::python;
use crate::row::{Row, Unit};
use crate::sides::{unpin, watchdog};

const ONE_BY_ONE: &str = "crosslane Pool::map, chunks of 1";
const IMAP: &str = "crosslane Pool::imap";
const CHUNKS: &str = "crosslane Pool::map";
const THREADS: &str = "rayon, 2 threads";
const APPLY: &str = "crosslane Pool::apply, 1 worker";
const LIFE: &str = "crosslane Pool of 2, one map, dropped";
const SPAWNS: &str = "crosslane, two processes spawned and joined";

pub fn rows(scale: f64) -> Vec<Row> {
    let (singles, items, calls) = (scaled(100_000, scale), scaled(4_000_000, scale), scaled(20_000, scale));
    let (few, many) = (scaled(5_000, scale), scaled(300_000, scale));
    let lives = scaled(20, scale);
    vec![
        Row::new("pool of 2, trivial tasks, one by one", Unit::Nanos, singles)
            .contestant(ONE_BY_ONE, move || map(singles, Some(1)))
            .contestant(IMAP, move || imap(singles))
            .contestant(THREADS, move || threads(singles))
            .within(ONE_BY_ONE, 1000.0)
            .versus(ONE_BY_ONE, THREADS)
            .python(IMAP, "Python Pool.imap, chunks of 1", few, &[few, 1], python::POOL)
            .python(ONE_BY_ONE, "Python ProcessPoolExecutor.map", few, &[few], python::EXECUTOR),
        Row::new("pool of 2, trivial tasks, default chunks", Unit::Nanos, items)
            .contestant(CHUNKS, move || map(items, None))
            .contestant(THREADS, move || threads(items))
            .within(CHUNKS, 50.0)
            .versus(CHUNKS, THREADS)
            .python(CHUNKS, "Python Pool.map", many, &[many, 0], python::POOL),
        Row::new("pool of 1, one call and its answer, spinning", Unit::Nanos, calls)
            .contestant(APPLY, move || apply(calls))
            .within(APPLY, 2000.0)
            .python(APPLY, "Python Pool.apply", few, &[few, u64::MAX >> 1], python::POOL),
        Row::new("the life of a pool of 2", Unit::Nanos, lives)
            .contestant(LIFE, move || timed(|| (0..lives).for_each(|_| life())))
            .contestant(SPAWNS, move || timed(|| (0..lives).for_each(|_| spawns())))
            .goal(LIFE, SPAWNS, 1.3),
    ]
}

fn timed(work: impl FnOnce()) -> f64 {
    watchdog();
    unpin();
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn pool(workers: usize) -> Pool {
    watchdog();
    unpin();
    let pool = Pool::new(workers).expect("processes");
    // All workers are up.
    pool.broadcast(|()| (), &()).expect("an answer");
    pool
}

fn map(items: u64, chunk: Option<usize>) -> f64 {
    let pool = pool(2);
    timed(|| {
        let job = pool.job();
        let job = chunk.into_iter().fold(job, |job, chunk| job.chunk_size(chunk));
        let squares = job.map(|n: u64| n.wrapping_mul(n), 0..items).expect("results");
        assert_eq!(squares.len() as u64, items);
    })
}

fn imap(items: u64) -> f64 {
    let pool = pool(2);
    timed(|| {
        let results = pool.imap(|n: u64| n.wrapping_mul(n), 0..items);
        let squares: Vec<u64> = results.map(|result| result.expect("a result")).collect();
        assert_eq!(squares.len() as u64, items);
    })
}

fn threads(items: u64) -> f64 {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    timed(|| {
        let squares: Vec<u64> = threads.install(|| (0..items).into_par_iter().map(|n| n.wrapping_mul(n)).collect());
        assert_eq!(squares.len() as u64, items);
    })
}

fn apply(calls: u64) -> f64 {
    let pool = pool(1);
    timed(|| (0..calls).for_each(|n| assert_eq!(pool.apply(|n: u64| n + 1, n).expect("an answer"), n + 1)))
}

fn life() {
    let pool = Pool::new(2).expect("processes");
    assert_eq!(pool.map(|n: u64| n + 1, 0..2).expect("results"), [1, 2]);
}

fn spawns() {
    let both = [1, 2].map(|n| crosslane::spawn(|n: u64| n + 1, n).expect("a process"));
    assert_eq!(both.map(|process| process.join().expect("a result")), [2, 3]);
}

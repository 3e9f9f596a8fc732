//! Pools beside what bounds them: a call and its answer beside a bare futex, large arguments beside a bare copy, and work on
//! a large array beside two bare threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crosslane::{ArrayPart, OwnedArray, Pool, spawn};
use rayon::prelude::*;

use super::{blocking, scaled};
use crate::row::{Row, Unit};
use crate::shared::{Memory, Shared};
use crate::sides::{Kind, pin, race, spin, unpin, watchdog};

const APPLY: &str = "crosslane Pool::apply, 1 worker";
const PROCSPAWN: &str = "procspawn Pool";
const SUBMIT: &str = "crosslane Pool::submit, 2 workers";
const ARGUMENTS: &str = "crosslane Pool::map, 1 worker";
const COPY: &str = "bare memcpy in and out, into memory that is kept";
const FRESH: &str = "bare memcpy in and out, each into a new Vec";
const PARTS: &str = "crosslane Pool::map of two ArrayParts";
const THREADS: &str = "bare, two threads";
const RAYON: &str = "rayon, 2 threads";

const MIB: usize = 1 << 20;
/// Messages that are on their way at once at most.
const SLOTS: u32 = 4;
/// Numbers of 8 bytes in the array.
const NUMBERS: usize = (256 << 20) / 8;
/// How often each number is changed: that takes much longer than to read and write it.
const STEPS: u32 = 80;

pub fn rows(scale: f64) -> Vec<Row> {
    let (blocked, tasks, few) = (scaled(5_000, scale), scaled(50_000, scale), scaled(3_000, scale));
    let (large, numbers) = (scaled(64, scale), scaled(NUMBERS as u64, scale));
    vec![
        Row::new("pool of 1, one call and its answer, asleep each time", Unit::Nanos, blocked)
            .contestant(blocking::BARE_ASLEEP, move || blocking::bare_asleep(blocked))
            .contestant(APPLY, move || apply_asleep(blocked))
            .goal(APPLY, blocking::BARE_ASLEEP, 1.4)
            .rival(APPLY, PROCSPAWN, few, move || procspawn_apply(few)),
        Row::new("pool of 2, trivial tasks submitted and awaited", Unit::Nanos, tasks)
            .contestant(SUBMIT, move || submit(tasks))
            .contestant(RAYON, move || rayon_spawns(tasks))
            .versus(SUBMIT, RAYON)
            .rival(SUBMIT, PROCSPAWN, few, move || procspawn_tasks(few))
            .python(SUBMIT, "Python Pool.apply_async", few, &[few], POOL)
            .python(SUBMIT, "Python ProcessPoolExecutor.submit", few, &[few], EXECUTOR),
        Row::new("pool of 1, arguments of 1 MiB", Unit::Nanos, large)
            .contestant(COPY, move || copy(large, false))
            .contestant(FRESH, move || copy(large, true))
            .contestant(ARGUMENTS, move || arguments(large))
            // Each argument comes out of a vector of its own, and the function is given a new one; the copies of one vector that
            // stays in the cache, into another that does too, are no bound of that.
            .goal(ARGUMENTS, FRESH, 1.25)
            .versus(ARGUMENTS, COPY)
            .rival(ARGUMENTS, "procspawn Pool, one at a time", large, move || procspawn_arguments(large))
            .python(ARGUMENTS, "Python Pool.map", large, &[large], ARGUMENTS_OF_PYTHON),
        Row::new("work on an array of 256 MiB, two halves", Unit::Nanos, numbers)
            .slow(THREADS, numbers, 15, move || threads(numbers))
            .slow(PARTS, numbers, 15, move || parts(numbers))
            .slow(RAYON, numbers, 5, move || rayon_halves(numbers))
            .goal(PARTS, THREADS, 1.05)
            .versus(PARTS, RAYON),
    ]
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// In a process that may use one CPU when it starts, as its worker may: so neither spins. Then the worker moves to the other.
fn apply_asleep(calls: u64) -> f64 {
    let ask = |calls: u64| {
        watchdog();
        let pool = Pool::new(1).expect("a process");
        pool.apply(|cpu: u64| pin(cpu as usize), 1).expect("an answer");
        timed(|| (0..calls).for_each(|n| assert_eq!(pool.apply(|n: u64| n + 1, n).expect("an answer"), n + 1)))
    };
    watchdog();
    pin(0);
    spawn(ask, calls).and_then(crosslane::Process::join).expect("its time")
}

fn procspawn_pool(workers: usize) -> procspawn::Pool {
    watchdog();
    unpin();
    let pool = procspawn::Pool::new(workers).expect("processes");
    let each: Vec<_> = (0..4 * workers as u64).map(|n| pool.spawn(n, |n| n)).collect();
    each.into_iter().for_each(|task| assert!(task.join().is_ok()));
    pool
}

fn procspawn_apply(calls: u64) -> f64 {
    let pool = procspawn_pool(1);
    timed(|| (0..calls).for_each(|n| assert_eq!(pool.spawn(n, |n| n + 1).join().expect("an answer"), n + 1)))
}

fn procspawn_tasks(tasks: u64) -> f64 {
    let pool = procspawn_pool(2);
    timed(|| {
        let tasks: Vec<_> = (0..tasks).map(|n| pool.spawn(n, |n| n + 1)).collect();
        for (n, task) in (1..).zip(tasks) {
            assert_eq!(task.join().expect("an answer"), n);
        }
    })
}

/// One after the other: it hands over a result only when somebody joins, and submits only when there is room, so several
/// large ones wait for each other for ever.
fn procspawn_arguments(times: u64) -> f64 {
    let pool = procspawn_pool(1);
    let vectors: Vec<_> = (0..times).map(|_| vec![1_u8; MIB]).collect();
    timed(|| {
        for vector in vectors {
            assert_eq!(pool.spawn(vector, |vector| vector.len()).join().expect("an answer"), MIB);
        }
    })
}

fn pool(workers: usize) -> Pool {
    watchdog();
    unpin();
    let pool = Pool::new(workers).expect("processes");
    // All workers are up.
    pool.broadcast(|()| (), &()).expect("an answer");
    pool
}

fn submit(tasks: u64) -> f64 {
    let pool = pool(2);
    timed(|| {
        let tasks: Vec<_> = (0..tasks).map(|n| pool.submit(|n: u64| n + 1, n).expect("an open pool")).collect();
        for (n, task) in (1..).zip(tasks) {
            assert_eq!(task.result().expect("an answer"), n);
        }
    })
}

/// Each answer by a channel of its own.
fn rayon_spawns(tasks: u64) -> f64 {
    let pool = rayon_pool();
    timed(|| {
        let spawned = |n: u64| {
            let (tx, rx) = std::sync::mpsc::sync_channel(1);
            pool.spawn(move || tx.send(n + 1).expect("who asked"));
            rx
        };
        let tasks: Vec<_> = (0..tasks).map(spawned).collect();
        for (n, task) in (1..).zip(tasks) {
            assert_eq!(task.recv().expect("an answer"), n);
        }
    })
}

fn rayon_pool() -> rayon::ThreadPool {
    watchdog();
    unpin();
    rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads")
}

/// The vectors are made before the clock starts; pool and worker have used as much memory as they need.
fn arguments(times: u64) -> f64 {
    let pool = pool(1);
    let vectors = |times| (0..times).map(|_| vec![1_u8; MIB]).collect::<Vec<_>>();
    let map = |vectors: Vec<Vec<u8>>| {
        let lengths = pool.job().chunk_size(1).map(|vector: Vec<u8>| vector.len(), vectors).expect("results");
        assert!(lengths.iter().all(|len| *len == MIB));
    };
    map(vectors(times));
    let vectors = vectors(times);
    timed(|| map(vectors))
}

/// One side copies each message into shared memory, the other one out of it. `fresh`: each out of a vector of its own and
/// into a new one, whose memory `malloc` may have from the last one or not.
fn copy(times: u64, fresh: bool) -> f64 {
    let memory = Memory::new(SLOTS as usize * MIB);
    let (written, read) = (Shared::<AtomicU32>::new(), Shared::<AtomicU32>::new());
    let times = u32::try_from(times).expect("few") + SLOTS;
    let slot = |n: u32| memory.start().as_ptr().wrapping_add((n % SLOTS) as usize * MIB);
    race(
        Kind::Processes,
        |start| {
            let messages: Vec<_> = (0..if fresh { times } else { 1 }).map(|_| vec![1_u8; MIB]).collect();
            for n in 0..times {
                if n == SLOTS {
                    start.go();
                }
                let message = &messages[n as usize % messages.len()];
                spin(|| (n - read.load(Ordering::Acquire) < SLOTS).then_some(()));
                // SAFETY: a slot of `MIB` bytes, which the other side has read.
                unsafe { slot(n).copy_from_nonoverlapping(message.as_ptr(), MIB) };
                written.store(n + 1, Ordering::Release);
            }
        },
        |start| {
            let mut message = vec![2_u8; MIB];
            for n in 0..times {
                if n == SLOTS {
                    start.go();
                }
                spin(|| (written.load(Ordering::Acquire) > n).then_some(()));
                if fresh {
                    message = Vec::with_capacity(MIB);
                }
                // SAFETY: a slot of `MIB` bytes, which the other side has written, into room for as many.
                unsafe { message.as_mut_ptr().copy_from_nonoverlapping(slot(n), MIB) };
                std::hint::black_box(message.as_ptr());
                read.store(n + 1, Ordering::Release);
            }
        },
    )
}

/// Changes each number [`STEPS`] times.
fn compute(numbers: &mut [u64]) {
    for number in numbers {
        let mut x = *number | 1;
        for _ in 0..STEPS {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        *number = x;
    }
}

/// What a number that was 0 has become.
fn computed() -> u64 {
    let mut one = [0];
    compute(&mut one);
    one[0]
}

fn parts(numbers: u64) -> f64 {
    let pool = pool(2);
    let mut array = OwnedArray::<u64>::zeroed(numbers as usize).expect("memory");
    // Its memory is there: no measurement counts that.
    array.as_mut_slice().fill(0);
    let mut done = Vec::new();
    let seconds = timed(|| {
        let work = |mut part: ArrayPart<u64>| {
            compute(part.as_mut_slice());
            part
        };
        done = pool.job().chunk_size(1).map(work, array.split(2)).expect("the parts");
    });
    let mut array = OwnedArray::unsplit(done).expect("all parts");
    let is_right = array.as_mut_slice().iter().all(|number| *number == computed());
    assert!(is_right);
    seconds
}

fn halves(numbers: u64, both: impl FnOnce(&mut [u64], usize)) -> f64 {
    let mut array = vec![0_u64; numbers as usize];
    array.fill(std::hint::black_box(0));
    let seconds = timed(|| both(&mut array, numbers.div_ceil(2) as usize));
    assert!(array.iter().all(|number| *number == computed()));
    seconds
}

fn threads(numbers: u64) -> f64 {
    watchdog();
    unpin();
    halves(numbers, |array, half| {
        let (left, right) = array.split_at_mut(half);
        std::thread::scope(|scope| {
            scope.spawn(|| compute(left));
            scope.spawn(|| compute(right));
        });
    })
}

fn rayon_halves(numbers: u64) -> f64 {
    let pool = rayon_pool();
    halves(numbers, |array, half| pool.install(|| array.par_chunks_mut(half).for_each(compute)))
}

/// Submits a trivial call to a `Pool` of two, again and again, and then waits for all; argument: times.
const POOL: &str = r#"
import multiprocessing as mp, sys, time
times = int(sys.argv[1])
with mp.get_context("fork").Pool(2) as pool:
    pool.map(abs, range(10))
    start = time.perf_counter()
    for task in [pool.apply_async(abs, (n,)) for n in range(times)]: task.get()
    print(time.perf_counter() - start)
"#;

/// The same with a `ProcessPoolExecutor`.
const EXECUTOR: &str = r#"
import multiprocessing as mp, sys, time
from concurrent.futures import ProcessPoolExecutor
times = int(sys.argv[1])
with ProcessPoolExecutor(2, mp_context=mp.get_context("fork")) as executor:
    list(executor.map(abs, range(10)))
    start = time.perf_counter()
    for task in [executor.submit(abs, n) for n in range(times)]: task.result()
    print(time.perf_counter() - start)
"#;

/// Maps `len` over arguments of 1 MiB in a `Pool` of one; argument: times.
const ARGUMENTS_OF_PYTHON: &str = r#"
import multiprocessing as mp, sys, time
messages = [bytes(1 << 20) for _ in range(int(sys.argv[1]))]
with mp.get_context("fork").Pool(1) as pool:
    pool.map(len, messages[:8], 1)
    start = time.perf_counter()
    pool.map(len, messages, 1)
    print(time.perf_counter() - start)
"#;

//! The queue of many producers and consumers: throughput with one and with two of each, batches, and its cost when
//! nobody else is there.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use crosslane_core::WakeMode;

use super::ring::QueueHome;
use super::scaled;
use super::vyukov::Vyukov;
use crate::python;
use crate::row::{Row, Unit};
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::sides::{Kind, Side, Start, alone, race_all, spin, spin_in_turns};

const SLOTS: u32 = 1024;
const BATCH: usize = 16;

const OURS: &str = "crosslane mpmc, processes";
const ASYMMETRIC: &str = "crosslane mpmc, processes, asymmetric";
const FENCED: &str = "crosslane mpmc, processes, fenced";
const THREADS: &str = "crosslane mpmc, threads";
const CROSSBEAM: &str = "crossbeam ArrayQueue, threads";
const CROSSFIRE: &str = "crossfire, threads";
const VYUKOV: &str = "bare Vyukov queue, threads";
const SINGLES: &str = "one by one";
const BATCHES: &str = "in batches of 16";
const POLLING_SINGLES: &str = "one by one, polling";
const POLLING_BATCHES: &str = "in batches of 16, polling";

const LONELY: &str = "crosslane mpmc";
const LONELY_ASYMMETRIC: &str = "crosslane mpmc, asymmetric";
const LONELY_FENCED: &str = "crosslane mpmc, fenced";
const LONELY_CROSSBEAM: &str = "crossbeam ArrayQueue";
const LONELY_CROSSFIRE: &str = "crossfire";
const LONELY_VYUKOV: &str = "bare Vyukov queue";

pub fn rows(scale: f64) -> Vec<Row> {
    let items = scaled(1_000_000, scale);
    let row = |name, pairs: usize, goal| {
        let each = items / pairs as u64;
        Row::new(name, Unit::Millions, each * pairs as u64)
            .contestant(OURS, move || crosslane(Kind::Processes, WakeMode::Polling, pairs, each))
            .contestant(ASYMMETRIC, move || crosslane(Kind::Processes, WakeMode::Asymmetric, pairs, each))
            .contestant(FENCED, move || crosslane(Kind::Processes, WakeMode::Fenced, pairs, each))
            .contestant(THREADS, move || crosslane(Kind::Threads, WakeMode::Polling, pairs, each))
            .contestant(CROSSBEAM, move || crossbeam(pairs, each))
            .contestant(CROSSFIRE, move || crossfire(pairs, each))
            .contestant(VYUKOV, move || vyukov(pairs, each))
            .goal(OURS, CROSSBEAM, goal)
            .versus(ASYMMETRIC, CROSSBEAM)
            .versus(FENCED, CROSSBEAM)
            .versus(THREADS, CROSSBEAM)
            .versus(OURS, CROSSFIRE)
            .versus(OURS, VYUKOV)
    };
    let in_batches = |name, pairs: usize, goal: Option<f64>| {
        let each = items / pairs as u64;
        let row = Row::new(name, Unit::Millions, each * pairs as u64)
            .contestant(BATCHES, move || batches(WakeMode::Fenced, pairs, each))
            .contestant(SINGLES, move || crosslane(Kind::Processes, WakeMode::Fenced, pairs, each))
            .contestant(POLLING_BATCHES, move || batches(WakeMode::Polling, pairs, each))
            .contestant(POLLING_SINGLES, move || crosslane(Kind::Processes, WakeMode::Polling, pairs, each));
        let row = match goal {
            Some(goal) => row.goal(BATCHES, SINGLES, goal),
            None => row.versus(BATCHES, SINGLES),
        };
        row.versus(POLLING_BATCHES, POLLING_SINGLES)
    };
    let times = scaled(1_000_000, scale);
    let (some, few) = (scaled(100_000, scale), scaled(20_000, scale));
    vec![
        row("mpmc, 1 producer 1 consumer, u64, 1,024 slots", 1, 0.8),
        row("mpmc, 2 producers 2 consumers, u64, 1,024 slots", 2, 0.9)
            .rival(OURS, "cloudtoid-interprocess, processes", some, move || cloudtoid(2, some / 2))
            .python(OURS, "Python multiprocessing.Queue", few, &[2, few / 2], python::QUEUE),
        in_batches("mpmc in batches, 1 producer 1 consumer, u64, 1,024 slots", 1, Some(1.5)),
        in_batches("mpmc in batches, 2 producers 2 consumers, u64, 1,024 slots", 2, None),
        Row::new("mpmc push and pop, uncontended, u64", Unit::Nanos, times)
            .contestant(LONELY, move || alone_crosslane(WakeMode::Polling, times))
            .contestant(LONELY_ASYMMETRIC, move || alone_crosslane(WakeMode::Asymmetric, times))
            .contestant(LONELY_FENCED, move || alone_crosslane(WakeMode::Fenced, times))
            .contestant(LONELY_CROSSBEAM, move || alone_crossbeam(times))
            .contestant(LONELY_CROSSFIRE, move || alone_crossfire(times))
            .contestant(LONELY_VYUKOV, move || alone_vyukov(times))
            .goal(LONELY, LONELY_CROSSBEAM, 1.6)
            .versus(LONELY_ASYMMETRIC, LONELY_CROSSBEAM)
            .versus(LONELY_FENCED, LONELY_CROSSBEAM)
            .versus(LONELY, LONELY_CROSSFIRE)
            .versus(LONELY, LONELY_VYUKOV),
    ]
}

/// What the consumers saw.
#[derive(Default)]
#[repr(align(128))]
struct Account {
    sum: AtomicU64,
}

/// Runs `pairs` producers and as many consumers, each with `each` items, half of them on either CPU. `join` is called
/// by each side for its own way to the queue, before the clock starts.
fn run<Q>(
    kind: Kind,
    pairs: usize,
    each: u64,
    join: impl Fn() -> Q + Sync,
    produce: impl Fn(&Q, std::ops::Range<u64>) + Sync,
    consume: impl Fn(&Q, u64) -> u64 + Sync,
) -> f64 {
    let account = Shared::<Account>::new();
    let producer = |start: Start<'_>, number: u64| {
        let queue = join();
        start.go();
        produce(&queue, number * each..(number + 1) * each);
    };
    let consumer = |start: Start<'_>| {
        let queue = join();
        start.go();
        account.sum.fetch_add(consume(&queue, each), Ordering::Relaxed);
    };
    // Of two pairs, each CPU has a producer of one and the consumer of the other.
    let mut others: Vec<Side<'_>> = vec![(1, Box::new(consumer))];
    if pairs == 2 {
        others.push((1, Box::new(|start| producer(start, 1))));
        others.push((0, Box::new(consumer)));
    }
    let seconds = race_all(kind, |start| producer(start, 0), others);
    let items = each * pairs as u64;
    assert_eq!(account.sum.load(Ordering::Relaxed), items * (items - 1) / 2, "each item comes once");
    seconds
}

/// The singles of any queue: `push` says whether there was room.
fn singles<Q>(
    kind: Kind,
    pairs: usize,
    each: u64,
    join: impl Fn() -> Q + Sync,
    push: impl Fn(&Q, u64) -> Option<()> + Sync,
    pop: impl Fn(&Q) -> Option<u64> + Sync,
) -> f64 {
    // With more sides than CPUs, who waits must let another one run.
    let crowded = pairs > 1;
    run(
        kind,
        pairs,
        each,
        join,
        |queue, items| {
            for i in items {
                if crowded { spin_in_turns(|| push(queue, i)) } else { spin(|| push(queue, i)) }
            }
        },
        |queue, count| {
            let pop = || pop(queue);
            (0..count).map(|_| if crowded { spin_in_turns(pop) } else { spin(pop) }).sum()
        },
    )
}

fn crosslane(kind: Kind, mode: WakeMode, pairs: usize, each: u64) -> f64 {
    let home = QueueHome::<u64>::new(SLOTS, mode);
    singles(kind, pairs, each, || home.here(), |queue, i| queue.try_push(i).ok(), |queue| queue.try_pop().ok())
}

fn crossbeam(pairs: usize, each: u64) -> f64 {
    let queue = ArrayQueue::<u64>::new(SLOTS as usize);
    singles(Kind::Threads, pairs, each, || (), |(), i| queue.push(i).ok(), |()| queue.pop())
}

fn crossfire(pairs: usize, each: u64) -> f64 {
    let (to, from) = crossfire::mpmc::bounded_blocking::<u64>(SLOTS as usize);
    singles(
        Kind::Threads,
        pairs,
        each,
        || (to.clone(), from.clone()),
        |(to, _), i| to.try_send(i).ok(),
        |(_, from)| from.try_recv().ok(),
    )
}

fn vyukov(pairs: usize, each: u64) -> f64 {
    let queue = Vyukov::new(SLOTS);
    singles(Kind::Threads, pairs, each, || (), |(), i| queue.push(i).then_some(()), |()| queue.pop())
}

fn cloudtoid(pairs: usize, each: u64) -> f64 {
    use cloudtoid_interprocess::{Publisher, Subscriber};
    let scratch = Scratch::new();
    // A message takes 8 bytes more than its own.
    let options = scratch.cloudtoid(SLOTS as usize * 16);
    let _keeps_it = Subscriber::open(&options).expect("a queue");
    let join = || (Publisher::open(&options).expect("a queue"), Subscriber::open(&options).expect("a queue"));
    let pop = |(_, from): &(Publisher, Subscriber)| {
        let mut bytes = [0; 8];
        from.try_recv_into(&mut bytes).expect("a queue").map(|_| u64::from_ne_bytes(bytes))
    };
    singles(Kind::Processes, pairs, each, join, |(to, _), i| to.try_send(&i.to_ne_bytes()).ok(), pop)
}

fn batches(mode: WakeMode, pairs: usize, each: u64) -> f64 {
    let home = QueueHome::<u64>::new(SLOTS, mode);
    let crowded = pairs > 1;
    run(
        Kind::Processes,
        pairs,
        each,
        || home.here(),
        |queue, mut items| {
            let mut batch = [0; BATCH];
            while !items.is_empty() {
                let count = batch.iter_mut().zip(&mut items).map(|(place, i)| *place = i).count();
                let mut rest = black_box(&batch[..count]);
                while !rest.is_empty() {
                    let push = || queue.push_slice(rest).ok();
                    let pushed = if crowded { spin_in_turns(push) } else { spin(push) };
                    rest = &rest[pushed..];
                }
            }
        },
        |queue, count| {
            let (mut batch, mut left, mut sum) = ([0; BATCH], count, 0);
            while left > 0 {
                let room = &mut batch[..left.min(BATCH as u64) as usize];
                let pop = || queue.pop_slice(room).ok();
                let popped = if crowded { spin_in_turns(pop) } else { spin(pop) };
                sum += black_box(&batch[..popped]).iter().sum::<u64>();
                left -= popped as u64;
            }
            sum
        },
    )
}

/// One push and one pop, again and again.
fn in_turn(times: u64, mut push: impl FnMut(u64), mut pop: impl FnMut() -> Option<u64>) -> f64 {
    alone(|| {
        for i in 0..times {
            push(black_box(i));
            assert_eq!(black_box(pop()), Some(i));
        }
    })
}

fn alone_crosslane(mode: WakeMode, times: u64) -> f64 {
    let queue = QueueHome::<u64>::new(SLOTS, mode).here();
    in_turn(times, |i| queue.try_push(i).expect("room"), || queue.try_pop().ok())
}

fn alone_crossbeam(times: u64) -> f64 {
    let queue = ArrayQueue::<u64>::new(SLOTS as usize);
    in_turn(times, |i| queue.push(i).expect("room"), || queue.pop())
}

fn alone_crossfire(times: u64) -> f64 {
    let (to, from) = crossfire::mpmc::bounded_blocking::<u64>(SLOTS as usize);
    in_turn(times, |i| to.try_send(i).expect("room"), || from.try_recv().ok())
}

fn alone_vyukov(times: u64) -> f64 {
    let queue = Vyukov::new(SLOTS);
    in_turn(times, |i| assert!(queue.push(i), "room"), || queue.pop())
}

//! Queues and pipes of values, between processes that were started for them.

mod large;

use crosslane::{Barrier, Connection, Portable, Process, Queue, pipe, spawn};

use super::rival::{self, Interprocess, IpcChannel};
use super::{blocking, round_trip, scaled};
use crate::python;
use crate::row::{Row, Unit};
use crate::sides::{Kind, now_nanos, pin, unpin, watchdog};

const ITEMS: usize = 1024;
const OURS: &str = "crosslane Queue";
const PIPE: &str = "crosslane Connection";
const SPSC: &str = "crosslane spsc, two processes";
/// The longest time that an item may take so that 5 million go through in a second.
const MOST_NANOS: f64 = 200.0;

pub fn rows(scale: f64) -> Vec<Row> {
    let (items, few) = (scaled(500_000, scale), scaled(20_000, scale));
    let (trips, blocked, large) = (scaled(100_000, scale), scaled(5_000, scale), scaled(64, scale));
    let row = |name, pairs: u64| {
        Row::new(name, Unit::Nanos, items / pairs * pairs)
            .contestant(OURS, move || queue(pairs, items / pairs))
            .within(OURS, MOST_NANOS)
            .python(OURS, "Python multiprocessing.Queue", few, &[pairs, few / pairs], python::QUEUE)
    };
    vec![
        row("Queue of values, 1 to 1, u64", 1)
            .rival(OURS, "ipc-channel", few, move || rival::one_way::<IpcChannel>(1024, few))
            .rival(OURS, "interprocess, unnamed pipe", few, move || rival::one_way::<Interprocess>(1024, few)),
        row("Queue of values, 2 to 2, u64", 2),
        Row::new("round trip of values, asleep each time, two Queues", Unit::Nanos, blocked)
            .contestant(blocking::BARE, move || blocking::bare(blocked))
            .contestant(OURS, move || queues_asleep(blocked))
            .goal(OURS, blocking::BARE, 1.2),
        Row::new("round trip of values, spinning, a pipe", Unit::Nanos, trips)
            .contestant(SPSC, move || round_trip::crosslane(Kind::Processes, trips))
            .contestant(PIPE, move || connection(trips))
            .goal(PIPE, SPSC, 2.0)
            .rival(PIPE, "ipc-channel", few, move || rival::round_trip::<IpcChannel>(1024, few))
            .rival(PIPE, "interprocess, unnamed pipes", few, move || rival::round_trip::<Interprocess>(1024, few))
            .python(PIPE, "Python multiprocessing.Pipe", few, &[few], python::PIPE),
        large::reused(large),
        large::fresh(large),
    ]
}

/// What a side is given: what it works on, where the sides meet, how often it does its work, its CPU.
type Order<T> = (T, Barrier, u64, usize);
/// When a side began and ended.
type Times = (u64, u64);

/// Starts a side.
fn side<T: Portable>(work: fn(Order<T>) -> Times, order: Order<T>) -> Process<Times> {
    spawn(work, order).expect("a process")
}

/// Seconds from the last beginning to the last end.
fn seconds(sides: Vec<Process<Times>>) -> f64 {
    let times: Vec<_> = sides.into_iter().map(|side| side.join().expect("its times")).collect();
    let last = |of: fn(&Times) -> u64| times.iter().map(of).max().unwrap_or(0);
    last(|times| times.1).saturating_sub(last(|times| times.0)) as f64 / 1e9
}

/// Meets the others on this side's CPU, and does the work.
fn timed(gate: &Barrier, cpu: usize, work: impl FnOnce()) -> Times {
    pin(cpu);
    gate.wait().expect("a whole barrier");
    let start = now_nanos();
    work();
    (start, now_nanos())
}

fn gate(sides: u64) -> Barrier {
    watchdog();
    Barrier::new(u32::try_from(sides).expect("few")).expect("a barrier")
}

fn queue(pairs: u64, each: u64) -> f64 {
    let gate = gate(2 * pairs);
    unpin();
    let queue = Queue::<u64>::bounded(ITEMS).expect("a queue");
    let pair = || {
        let produce = |(queue, gate, times, cpu): Order<Queue<u64>>| {
            timed(&gate, cpu, || (0..times).for_each(|n| queue.put(n).expect("an open queue")))
        };
        let consume = |(queue, gate, times, cpu): Order<Queue<u64>>| {
            timed(&gate, cpu, || (0..times).for_each(|_| assert!(queue.get().is_ok())))
        };
        let order = |cpu| (queue.clone(), gate.clone(), each, cpu);
        [side(produce, order(0)), side(consume, order(1))]
    };
    seconds((0..pairs).flat_map(|_| pair()).collect())
}

/// A process that may use one CPU when it starts does not spin, and keeps to that.
fn queues_asleep(trips: u64) -> f64 {
    type Queues = (Queue<u64>, Queue<u64>);
    let gate = gate(2);
    pin(0);
    let [there, back] = [(); 2].map(|()| Queue::<u64>::bounded(ITEMS).expect("a queue"));
    let ask = |((there, back), gate, trips, cpu): Order<Queues>| {
        timed(&gate, cpu, || {
            for n in 0..trips {
                there.put(n).expect("an open queue");
                assert_eq!(back.get().expect("an answer"), n);
            }
        })
    };
    let answer = |((there, back), gate, trips, cpu): Order<Queues>| {
        timed(&gate, cpu, || (0..trips).for_each(|_| back.put(there.get().expect("a number")).expect("an open queue")))
    };
    let order = |cpu| ((there.clone(), back.clone()), gate.clone(), trips, cpu);
    seconds(vec![side(ask, order(0)), side(answer, order(1))])
}

fn connection(trips: u64) -> f64 {
    let gate = gate(2);
    unpin();
    let (a, b) = pipe::<u64, u64>().expect("a pipe");
    let ask = |(mut end, gate, trips, cpu): Order<Connection<u64, u64>>| {
        timed(&gate, cpu, || {
            for n in 0..trips {
                end.send(&n).expect("a peer");
                assert_eq!(end.recv().expect("an answer"), n);
            }
        })
    };
    let answer = |(mut end, gate, trips, cpu): Order<Connection<u64, u64>>| {
        timed(&gate, cpu, || {
            for _ in 0..trips {
                let n = end.recv().expect("a number");
                end.send(&n).expect("a peer");
            }
        })
    };
    seconds(vec![side(ask, (a, gate.clone(), trips, 0)), side(answer, (b, gate, trips, 1))])
}

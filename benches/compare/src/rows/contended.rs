//! A mutex that two sides want at the same time: how often they get it, and how long one of them waits at worst.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane_shm::{Mutex, Options};

use super::{pthread, scaled};
use crate::row::{Row, Unit};
use crate::shared::{Memory, Shared};
use crate::sides::{Kind, Start, now_nanos, race};

const OURS: &str = "crosslane Mutex, two processes";
const STD: &str = "std::sync::Mutex, two threads";
const PARKING_LOT: &str = "parking_lot::Mutex, two threads";
const PTHREAD: &str = "pthread mutex, robust, two processes";
const RAW_SYNC: &str = "raw_sync Mutex, two processes";

/// What a side does between two lockings, in pauses of about 20 ns: little, or the two would seldom meet.
const SOME_WORK: u32 = 4;

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(300_000, scale);
    let lockings = |pauses| Contest { times, pauses, measured: Measured::Throughput };
    let waits = |pauses| Contest { times, pauses, measured: Measured::WorstWait };
    vec![
        row("a mutex that two want, nothing in between", Unit::Millions, 2 * times, lockings(0)),
        row("a mutex that two want, some work in between", Unit::Millions, 2 * times, lockings(SOME_WORK)),
        row("a mutex that two want, nothing in between: the longest locking of a round", Unit::Millis, 1, waits(0)),
        row(
            "a mutex that two want, some work in between: the longest locking of a round",
            Unit::Millis,
            1,
            waits(SOME_WORK),
        ),
    ]
}

fn row(name: &'static str, unit: Unit, operations: u64, contest: Contest) -> Row {
    let row = Row::new(name, unit, operations)
        .contestant(OURS, move || crosslane(contest))
        .contestant(STD, move || std_mutex(contest));
    let row = match contest.measured {
        Measured::Throughput => row.goal(OURS, STD, 0.90),
        Measured::WorstWait => row.versus(OURS, STD),
    };
    row.rival(OURS, PARKING_LOT, operations, move || parking_lot(contest))
        .rival(OURS, PTHREAD, operations, move || pthread(contest))
        .rival(OURS, RAW_SYNC, operations, move || raw_sync(contest))
}

#[derive(Clone, Copy)]
enum Measured {
    /// The seconds that `2 * times` lockings take.
    Throughput,
    /// The seconds that the slowest locking took, of which each is timed.
    WorstWait,
}

/// Two sides lock, add one and unlock until the faster one has done so `times` times; nobody is ever alone.
#[derive(Clone, Copy)]
struct Contest {
    times: u64,
    pauses: u32,
    measured: Measured,
}

#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU64);

#[derive(Default)]
struct Sides {
    over: Line,
    lockings: [Line; 2],
    worst_nanos: [Line; 2],
}

impl Contest {
    /// `lock` makes a side's way to lock, add one and unlock; `value` reads what the sides have added.
    fn run<Lock: FnMut()>(self, kind: Kind, lock: impl Fn() -> Lock + Sync, value: impl Fn() -> u64) -> f64 {
        let sides = Shared::<Sides>::new();
        let side = |which: usize, start: Start<'_>| {
            let lock = lock();
            start.go();
            let (done, worst) = self.side(&sides.over, lock);
            sides.over.0.store(1, Ordering::Relaxed);
            sides.lockings[which].0.store(done, Ordering::Release);
            sides.worst_nanos[which].0.store(worst, Ordering::Release);
        };
        let seconds = race(kind, |start| side(0, start), |start| side(1, start));
        let read = |lines: &[Line; 2]| lines.each_ref().map(|line| line.0.load(Ordering::Acquire));
        let lockings: u64 = read(&sides.lockings).into_iter().sum();
        assert_eq!(value(), lockings, "a lock that does not exclude");
        match self.measured {
            Measured::Throughput => seconds * (2 * self.times) as f64 / lockings as f64,
            Measured::WorstWait => read(&sides.worst_nanos).into_iter().max().unwrap_or(0) as f64 / 1e9,
        }
    }

    /// One side's lockings, and the nanoseconds of the longest.
    fn side(self, over: &Line, mut lock: impl FnMut()) -> (u64, u64) {
        let (mut done, mut worst) = (0, 0);
        while done < self.times && over.0.load(Ordering::Relaxed) == 0 {
            match self.measured {
                Measured::Throughput => lock(),
                Measured::WorstWait => {
                    let before = now_nanos();
                    lock();
                    worst = worst.max(now_nanos() - before);
                }
            }
            done += 1;
            for _ in 0..self.pauses {
                std::hint::spin_loop();
            }
        }
        (done, worst)
    }
}

fn crosslane(contest: Contest) -> f64 {
    let mutex = Mutex::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let lock = || {
        let mutex = mutex.rejoin().expect("a member");
        move || *mutex.lock().expect("a clean lock") += 1
    };
    contest.run(Kind::Processes, lock, || mutex.read().expect("a clean lock"))
}

fn std_mutex(contest: Contest) -> f64 {
    let mutex = &std::sync::Mutex::new(0);
    let lock = || || *mutex.lock().expect("a clean lock") += 1;
    contest.run(Kind::Threads, lock, || *mutex.lock().expect("a clean lock"))
}

fn parking_lot(contest: Contest) -> f64 {
    let mutex = &parking_lot::Mutex::new(0);
    contest.run(Kind::Threads, || || *mutex.lock() += 1, || *mutex.lock())
}

fn pthread(contest: Contest) -> f64 {
    let (mutex, value) = (&pthread::Mutex::new(), &Shared::<Line>::new().0);
    let lock = || {
        || {
            mutex.lock();
            add_one(value);
            mutex.unlock();
        }
    };
    contest.run(Kind::Processes, lock, || value.load(Ordering::Relaxed))
}

fn raw_sync(contest: Contest) -> f64 {
    use raw_sync::locks::{LockInit, Mutex};
    let (memory, value) = (&Memory::new(4096), &Shared::<Line>::new().0);
    let data = || std::ptr::from_ref(value).cast_mut().cast();
    // SAFETY: memory enough for a mutex, and the value's.
    let (made, _) = unsafe { Mutex::new(memory.start().as_ptr(), data()) }.expect("a mutex");
    let lock = || {
        // SAFETY: made above, and mapped as long as the measurement takes.
        let (mutex, _) = unsafe { Mutex::from_existing(memory.start().as_ptr(), data()) }.expect("a mutex");
        move || {
            let _guard = mutex.lock().expect("a lock");
            add_one(value);
        }
    };
    let seconds = contest.run(Kind::Processes, lock, || value.load(Ordering::Relaxed));
    drop(made);
    seconds
}

/// Under a lock: a load and a store, as of a number.
fn add_one(value: &AtomicU64) {
    value.store(value.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

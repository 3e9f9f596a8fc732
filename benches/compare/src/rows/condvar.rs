//! Two sides that take turns by a condition on a value behind a lock; each sleeps until its turn comes.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane_shm::{Condvar, Options};

use super::{blocking, pthread, scaled};
use crate::python;
use crate::row::{Row, Unit};
use crate::shared::Shared;
use crate::sides::{Cpus, Kind, Start, race_on};

const OURS: &str = "crosslane Condvar, two processes";

pub fn rows(scale: f64) -> Vec<Row> {
    let trips = scaled(5_000, scale);
    let on = |name, cpus| {
        Row::new(name, Unit::Nanos, trips)
            .contestant(blocking::BARE, move || blocking::bare_on(cpus, trips))
            .contestant(OURS, move || crosslane(cpus, trips))
            .rival(OURS, "std Condvar, two threads", trips, move || std_condvar(cpus, trips))
            .rival(OURS, "parking_lot Condvar, two threads", trips, move || parking_lot(cpus, trips))
            .rival(OURS, "pthread condition, robust mutex, two processes", trips, move || pthread(cpus, trips))
    };
    let python = &[trips / 5];
    vec![
        on("taking turns by a condition", Cpus::Two).goal(OURS, blocking::BARE, 1.20).python(
            OURS,
            "Python multiprocessing.Condition",
            trips / 5,
            python,
            python::CONDITION,
        ),
        // Without a goal of its own: shows the work of kernel and lock alone, which two CPUs do while they wait for each other.
        on("taking turns by a condition, on one CPU", Cpus::One).versus(OURS, blocking::BARE),
    ]
}

/// `turn` of a side awaits the first number and sets the second, for both sides and `trips` trips.
fn take_turns<Turn: FnMut(u64, u64)>(cpus: Cpus, kind: Kind, trips: u64, turn: impl Fn() -> Turn + Sync) -> f64 {
    let side = |which: u64, start: Start<'_>| {
        let mut turn = turn();
        start.go();
        for i in 0..trips {
            let now = 2 * i + which;
            turn(now, now + 1);
        }
        // The left side has the last word too, so that both directions count.
        if which == 0 {
            turn(2 * trips, 2 * trips);
        }
    };
    race_on(cpus, kind, |start| side(0, start), |start| side(1, start))
}

fn crosslane(cpus: Cpus, trips: u64) -> f64 {
    let home = Condvar::anonymous(0_u64, &Options::new()).expect("memory for a condition");
    take_turns(cpus, Kind::Processes, trips, || {
        let condvar = home.rejoin().expect("a member");
        move |from, to| {
            let mut number = condvar.lock().expect("a clean lock");
            number = number.wait_while(|number| *number != from).expect("a clean lock");
            *number = to;
            drop(number);
            condvar.notify_one();
        }
    })
}

fn std_condvar(cpus: Cpus, trips: u64) -> f64 {
    let (mutex, condvar) = (&std::sync::Mutex::new(0), &std::sync::Condvar::new());
    take_turns(cpus, Kind::Threads, trips, || {
        |from, to| {
            let number = mutex.lock().expect("a clean lock");
            *condvar.wait_while(number, |number| *number != from).expect("a clean lock") = to;
            condvar.notify_one();
        }
    })
}

fn parking_lot(cpus: Cpus, trips: u64) -> f64 {
    let (mutex, condvar) = (&parking_lot::Mutex::new(0), &parking_lot::Condvar::new());
    take_turns(cpus, Kind::Threads, trips, || {
        |from, to| {
            let mut number = mutex.lock();
            condvar.wait_while(&mut number, |number| *number != from);
            *number = to;
            drop(number);
            condvar.notify_one();
        }
    })
}

fn pthread(cpus: Cpus, trips: u64) -> f64 {
    let (mutex, condvar) = (&pthread::Mutex::new(), &pthread::Condvar::new());
    let number = &*Shared::<AtomicU64>::new();
    take_turns(cpus, Kind::Processes, trips, || {
        |from, to| {
            mutex.lock();
            while number.load(Ordering::Relaxed) != from {
                condvar.wait(mutex);
            }
            number.store(to, Ordering::Relaxed);
            mutex.unlock();
            condvar.notify_one();
        }
    })
}

//! Two sides that take turns by a condition on a value behind a lock; each sleeps until its turn comes.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane_shm::{Condvar, Options};

use super::{blocking, pthread, scaled};
use crate::python;
use crate::row::{Row, Unit};
use crate::shared::Shared;
use crate::sides::{Kind, Start, race};

const OURS: &str = "crosslane Condvar, two processes";

pub fn rows(scale: f64) -> Vec<Row> {
    let trips = scaled(5_000, scale);
    vec![
        Row::new("taking turns by a condition", Unit::Nanos, trips)
            .contestant(blocking::BARE, move || blocking::bare(trips))
            .contestant(OURS, move || crosslane(trips))
            .goal(OURS, blocking::BARE, 1.20)
            .rival(OURS, "std Condvar, two threads", trips, move || std_condvar(trips))
            .rival(OURS, "parking_lot Condvar, two threads", trips, move || parking_lot(trips))
            .rival(OURS, "pthread condition, robust mutex, two processes", trips, move || pthread(trips))
            .python(OURS, "Python multiprocessing.Condition", trips / 5, &[trips / 5], python::CONDITION),
    ]
}

/// `turn` of a side awaits the first number and sets the second, for both sides and `trips` trips.
fn take_turns<Turn: FnMut(u64, u64)>(kind: Kind, trips: u64, turn: impl Fn() -> Turn + Sync) -> f64 {
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
    race(kind, |start| side(0, start), |start| side(1, start))
}

fn crosslane(trips: u64) -> f64 {
    let home = Condvar::anonymous(0_u64, &Options::new()).expect("memory for a condition");
    take_turns(Kind::Processes, trips, || {
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

fn std_condvar(trips: u64) -> f64 {
    let (mutex, condvar) = (&std::sync::Mutex::new(0), &std::sync::Condvar::new());
    take_turns(Kind::Threads, trips, || {
        |from, to| {
            let number = mutex.lock().expect("a clean lock");
            *condvar.wait_while(number, |number| *number != from).expect("a clean lock") = to;
            condvar.notify_one();
        }
    })
}

fn parking_lot(trips: u64) -> f64 {
    let (mutex, condvar) = (&parking_lot::Mutex::new(0), &parking_lot::Condvar::new());
    take_turns(Kind::Threads, trips, || {
        |from, to| {
            let mut number = mutex.lock();
            condvar.wait_while(&mut number, |number| *number != from);
            *number = to;
            drop(number);
            condvar.notify_one();
        }
    })
}

fn pthread(trips: u64) -> f64 {
    let (mutex, condvar) = (&pthread::Mutex::new(), &pthread::Condvar::new());
    let number = &*Shared::<AtomicU64>::new();
    take_turns(Kind::Processes, trips, || {
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

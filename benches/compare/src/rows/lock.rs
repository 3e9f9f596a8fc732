//! Lock, add one, unlock; nobody else wants the lock.

use std::hint::black_box;

use crosslane_shm::{Mutex, Options};

use super::{pthread, scaled};
use crate::python;
use crate::row::{Row, Unit};
use crate::shared::Memory;
use crate::sides::alone;

const LOCK: &str = "crosslane Mutex::lock";
const UPDATE: &str = "crosslane Mutex::update";
const STD: &str = "std::sync::Mutex";
const PARKING_LOT: &str = "parking_lot::Mutex";
const PTHREAD: &str = "pthread mutex, robust, process-shared";

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(1_000_000, scale);
    vec![
        Row::new("lock and unlock, uncontended", Unit::Nanos, times)
            .contestant(LOCK, move || crosslane_lock(times))
            .contestant(UPDATE, move || crosslane_update(times))
            .contestant(STD, move || std_mutex(times))
            .contestant(PARKING_LOT, move || parking_lot(times))
            .contestant(PTHREAD, move || pthread(times))
            .goal(LOCK, STD, 1.05)
            .versus(UPDATE, STD)
            .versus(LOCK, PARKING_LOT)
            .versus(LOCK, PTHREAD)
            .rival(LOCK, "raw_sync Mutex", times, move || raw_sync(times))
            .python(LOCK, "Python multiprocessing.Lock", times / 10, &[times / 10], python::LOCK),
    ]
}

fn crosslane_lock(times: u64) -> f64 {
    let mutex = Mutex::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let seconds = alone(|| {
        for _ in 0..times {
            *black_box(&mutex).lock().unwrap_or_else(|_| panic!("a clean lock")) += 1;
        }
    });
    assert_eq!(mutex.read().ok(), Some(times));
    seconds
}

fn crosslane_update(times: u64) -> f64 {
    let mutex = Mutex::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let seconds = alone(|| {
        for _ in 0..times {
            black_box(&mutex).update(|value| *value += 1).unwrap_or_else(|_| panic!("a clean lock"));
        }
    });
    assert_eq!(mutex.read().ok(), Some(times));
    seconds
}

fn std_mutex(times: u64) -> f64 {
    let mutex = std::sync::Mutex::new(0);
    let seconds = alone(|| {
        for _ in 0..times {
            *black_box(&mutex).lock().expect("a clean lock") += 1;
        }
    });
    assert_eq!(mutex.into_inner().ok(), Some(times));
    seconds
}

fn parking_lot(times: u64) -> f64 {
    let mutex = parking_lot::Mutex::new(0);
    let seconds = alone(|| {
        for _ in 0..times {
            *black_box(&mutex).lock() += 1;
        }
    });
    assert_eq!(mutex.into_inner(), times);
    seconds
}

fn raw_sync(times: u64) -> f64 {
    use raw_sync::locks::{LockInit, Mutex};
    let (memory, mut value) = (Memory::new(4096), 0_u64);
    // SAFETY: memory enough for a mutex, and a value that only this thread has.
    let made = unsafe { Mutex::new(memory.start().as_ptr(), (&raw mut value).cast()) };
    let (lock, _) = made.expect("a mutex");
    let seconds = alone(|| {
        for _ in 0..times {
            let guard = black_box(&lock).lock().expect("a lock");
            // SAFETY: the value, under its lock.
            unsafe { *guard.cast::<u64>() += 1 };
        }
    });
    drop(lock);
    assert_eq!(black_box(value), times);
    seconds
}

fn pthread(times: u64) -> f64 {
    let (mutex, mut value) = (pthread::Mutex::new(), 0);
    let seconds = alone(|| {
        for _ in 0..times {
            black_box(&mutex).lock();
            *black_box(&mut value) += 1;
            mutex.unlock();
        }
    });
    assert_eq!(value, times);
    seconds
}

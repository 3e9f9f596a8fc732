//! Every lock that somebody holds, taken and given up; nobody else wants it.

use std::hint::black_box;

use crosslane_shm::{BoundedSemaphore, Mutex, Options, RLock, RwLock, Semaphore};

use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::alone;

const MUTEX: &str = "crosslane Mutex::lock";
const RLOCK: &str = "crosslane RLock::lock";
const AGAIN: &str = "crosslane RLock::lock, held already";
const READ: &str = "crosslane RwLock::read";
const WRITE: &str = "crosslane RwLock::write";
const PERMIT: &str = "crosslane BoundedSemaphore::acquire";
const COUNT: &str = "crosslane Semaphore::acquire";
const STD_READ: &str = "std::sync::RwLock::read";
const STD_WRITE: &str = "std::sync::RwLock::write";
const LOT_READ: &str = "parking_lot::RwLock::read";

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(1_000_000, scale);
    let (std_lock, lot) = (std::sync::RwLock::new(0_u64), parking_lot::RwLock::new(0_u64));
    let std_again = std::sync::RwLock::new(0_u64);
    let mutex = Mutex::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let rlock = RLock::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let again = RLock::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let read = RwLock::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let write = RwLock::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    let permits = BoundedSemaphore::anonymous(4, &Options::new()).expect("memory for a semaphore");
    let count = Semaphore::anonymous(4, &Options::new()).expect("memory for a semaphore");
    vec![
        Row::new("the family of locks, uncontended", Unit::Nanos, times)
            .contestant(MUTEX, move || repeat(times, || drop(black_box(&mutex).lock().expect("clean"))))
            .contestant(RLOCK, move || repeat(times, || drop(black_box(&rlock).lock().expect("clean"))))
            .contestant(AGAIN, move || {
                let _outer = again.lock().expect("clean");
                repeat(times, || drop(black_box(&again).lock().expect("clean")))
            })
            .contestant(READ, move || repeat(times, || drop(black_box(&read).read().expect("clean"))))
            .contestant(WRITE, move || repeat(times, || drop(black_box(&write).write().expect("clean"))))
            .contestant(PERMIT, move || repeat(times, || drop(black_box(&permits).acquire().expect("free"))))
            .contestant(COUNT, move || {
                repeat(times, || {
                    black_box(&count).acquire().expect("free");
                    count.release(1).expect("room");
                })
            })
            .contestant(STD_READ, move || repeat(times, || drop(black_box(&std_lock).read().expect("clean"))))
            .contestant(STD_WRITE, move || repeat(times, || drop(black_box(&std_again).write().expect("clean"))))
            .contestant(LOT_READ, move || repeat(times, || drop(black_box(&lot).read())))
            .goal(RLOCK, MUTEX, 1.3)
            .goal(READ, MUTEX, 1.3)
            .goal(WRITE, MUTEX, 1.3)
            .goal(PERMIT, MUTEX, 1.3)
            .versus(AGAIN, MUTEX)
            .versus(COUNT, MUTEX)
            .versus(READ, STD_READ)
            .versus(WRITE, STD_WRITE)
            .versus(READ, LOT_READ),
    ]
}

fn repeat(times: u64, operation: impl Fn()) -> f64 {
    alone(|| (0..times).for_each(|_| operation()))
}

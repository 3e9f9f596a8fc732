//! The other locks, taken and given up by somebody alone, beside the Mutex.

use std::hint::black_box;

use crosslane_shm::{BoundedSemaphore, Mutex, Options, RLock, RwLock, Semaphore};

use super::{pthread, scaled};
use crate::python;
use crate::row::{Row, Unit};
use crate::shared::Memory;
use crate::sides::alone;

const MUTEX: &str = "crosslane Mutex::lock";
/// What a lock of the family may cost, in Mutexes.
const GOAL: f64 = 1.30;

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(1_000_000, scale);
    vec![rlock(times), rwlock(times), semaphore(times)]
}

fn rlock(times: u64) -> Row {
    const RLOCK: &str = "crosslane RLock::lock";
    const AGAIN: &str = "crosslane RLock::lock, held already";
    let lock = || RLock::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    Row::new("RLock, uncontended", Unit::Nanos, times)
        .contestant(MUTEX, move || mutex(times))
        .contestant(RLOCK, move || {
            let lock = lock();
            repeat(times, || black_box(&lock).lock().expect("a clean lock").get())
        })
        .contestant(AGAIN, move || {
            let lock = lock();
            let _outer = lock.lock().expect("a clean lock");
            repeat(times, || black_box(&lock).lock().expect("a clean lock").get())
        })
        .goal(RLOCK, MUTEX, GOAL)
        .versus(AGAIN, MUTEX)
        .rival(RLOCK, "parking_lot::ReentrantMutex", times, move || {
            let lock = parking_lot::ReentrantMutex::new(0_u64);
            repeat(times, || *black_box(&lock).lock())
        })
        .rival(RLOCK, "pthread mutex, recursive, robust, process-shared", times, move || {
            let lock = pthread::Mutex::recursive();
            repeat(times, || {
                black_box(&lock).lock();
                lock.unlock();
            })
        })
        .python(RLOCK, "Python multiprocessing.RLock", times / 10, &[times / 10], python::RLOCK)
}

fn rwlock(times: u64) -> Row {
    const READ: &str = "crosslane RwLock::read";
    const WRITE: &str = "crosslane RwLock::write";
    let lock = || RwLock::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    Row::new("RwLock, uncontended", Unit::Nanos, times)
        .contestant(MUTEX, move || mutex(times))
        .contestant(READ, move || {
            let lock = lock();
            repeat(times, || *black_box(&lock).read().expect("a clean lock"))
        })
        .contestant(WRITE, move || {
            let lock = lock();
            repeat(times, || *black_box(&lock).write().expect("a clean lock"))
        })
        .goal(READ, MUTEX, GOAL)
        .goal(WRITE, MUTEX, GOAL)
        .rival(READ, "std::sync::RwLock::read", times, move || {
            let lock = std::sync::RwLock::new(0_u64);
            repeat(times, || *black_box(&lock).read().expect("a clean lock"))
        })
        .rival(WRITE, "std::sync::RwLock::write", times, move || {
            let lock = std::sync::RwLock::new(0_u64);
            repeat(times, || *black_box(&lock).write().expect("a clean lock"))
        })
        .rival(READ, "parking_lot::RwLock::read", times, move || {
            let lock = parking_lot::RwLock::new(0_u64);
            repeat(times, || *black_box(&lock).read())
        })
        .rival(WRITE, "parking_lot::RwLock::write", times, move || {
            let lock = parking_lot::RwLock::new(0_u64);
            repeat(times, || *black_box(&lock).write())
        })
        .rival(READ, "pthread rwlock, process-shared, read", times, move || {
            let lock = pthread::RwLock::new();
            repeat(times, || black_box(&lock).read())
        })
        .rival(WRITE, "pthread rwlock, process-shared, write", times, move || {
            let lock = pthread::RwLock::new();
            repeat(times, || black_box(&lock).write())
        })
        .rival(READ, "raw_sync RwLock, read", times, move || {
            raw_sync(times, |lock| drop(lock.rlock().expect("a lock")))
        })
        .rival(WRITE, "raw_sync RwLock, write", times, move || {
            raw_sync(times, |lock| drop(lock.lock().expect("a lock")))
        })
}

fn semaphore(times: u64) -> Row {
    const PERMITS: u32 = 4;
    const BOUNDED: &str = "crosslane BoundedSemaphore::acquire";
    const COUNTING: &str = "crosslane Semaphore::acquire and release";
    Row::new("semaphores, uncontended", Unit::Nanos, times)
        .contestant(MUTEX, move || mutex(times))
        .contestant(BOUNDED, move || {
            let semaphore = BoundedSemaphore::anonymous(PERMITS, &Options::new()).expect("memory for permits");
            repeat(times, || drop(black_box(&semaphore).acquire().expect("a permit")))
        })
        .contestant(COUNTING, move || {
            let semaphore = Semaphore::anonymous(PERMITS, &Options::new()).expect("memory for a count");
            repeat(times, || {
                black_box(&semaphore).acquire().expect("a permit");
                semaphore.release(1).expect("it was taken");
            })
        })
        .goal(BOUNDED, MUTEX, GOAL)
        .goal(COUNTING, MUTEX, GOAL)
        .rival(COUNTING, "sem_t, process-shared", times, move || {
            let semaphore = pthread::Semaphore::new(PERMITS);
            repeat(times, || black_box(&semaphore).acquire_and_release())
        })
        .python(
            BOUNDED,
            "Python multiprocessing.BoundedSemaphore",
            times / 10,
            &[times / 10, PERMITS.into()],
            python::SEMAPHORE,
        )
}

fn mutex(times: u64) -> f64 {
    let mutex = Mutex::anonymous(0_u64, &Options::new()).expect("memory for a lock");
    repeat(times, || *black_box(&mutex).lock().expect("a clean lock"))
}

/// The seconds of `times` times `operation`, whose result is looked at.
fn repeat<T>(times: u64, operation: impl Fn() -> T) -> f64 {
    alone(|| {
        for _ in 0..times {
            black_box(operation());
        }
    })
}

fn raw_sync(times: u64, operation: impl Fn(&dyn raw_sync::locks::LockImpl)) -> f64 {
    use raw_sync::locks::{LockInit, RwLock};
    let (memory, mut value) = (Memory::new(4096), 0_u64);
    // SAFETY: memory enough for a lock, and a value that only this thread has.
    let made = unsafe { RwLock::new(memory.start().as_ptr(), (&raw mut value).cast()) };
    let (lock, _) = made.expect("a lock");
    repeat(times, || operation(black_box(&*lock)))
}

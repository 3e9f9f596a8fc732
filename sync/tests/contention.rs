//! Exclusion under contention, counted: every increment of every process and thread arrives exactly once.

mod family;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use crosslane_core::mutex::Acquired;
use crosslane_core::prim::Word;
use crosslane_sync::{Deadline, LockError, Mutex, NotAcquired, RawLock};
use family::{Family, await_flag, raise};

const ROUNDS: u64 = 20_000;
const WIDTH: usize = 20;

/// Wide enough to be torn (160 bytes), and above the size from which copies are opaque.
type Wide = [u64; WIDTH];

fn step(value: &mut Wide) -> bool {
    let whole = value.iter().all(|n| *n == value[0]);
    value.iter_mut().for_each(|n| *n += 1);
    whole
}

fn increments(family: &Family<Wide>, index: u32, way: u64) -> bool {
    let mutex = family.trusted(index);
    (0..ROUNDS).all(|round| match (round + way) % 3 {
        0 => mutex.update(step).unwrap_or(false),
        1 => mutex.lock().map(|mut guard| step(&mut guard)).unwrap_or(false),
        _ => loop {
            match mutex.lock_timeout(Duration::from_micros(50)) {
                Ok(mut guard) => break step(&mut guard),
                Err(LockError::TimedOut(_)) => {}
                Err(_) => break false,
            }
        },
    })
}

#[test]
fn two_processes_of_two_threads_count_exactly() {
    let family = Family::<Wide>::new();
    let child = family.fork(|| {
        await_flag(family.flag(0));
        increments(&family, 1, 0)
    });
    std::thread::scope(|scope| {
        let threads = [1, 2].map(|way| {
            scope.spawn({
                let family = &family;
                move || {
                    raise(family.flag(0));
                    increments(family, 2, way)
                }
            })
        });
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
    child.join();
    assert_eq!(family.mutex(3).read().unwrap(), [3 * ROUNDS; WIDTH]);
}

/// A lock of another kind: knows no owner, no death and no poison.
struct Foreign<'a>(&'a AtomicU32);

// SAFETY: exclusion by CAS, order by Acquire and Release, no panics; not used across forks.
unsafe impl RawLock for Foreign<'_> {
    fn lock(&self, deadline: Deadline) -> Result<Acquired, NotAcquired> {
        loop {
            match self.try_lock() {
                Err(NotAcquired::Held(_)) if !deadline.has_passed() => std::thread::yield_now(),
                result => return result,
            }
        }
    }
    fn try_lock(&self) -> Result<Acquired, NotAcquired> {
        match self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Acquired::Clean),
            Err(_) => Err(NotAcquired::Held(None)),
        }
    }
    unsafe fn unlock(&self, _poison: bool) {
        self.0.store(0, Ordering::Release);
    }
}

#[test]
fn a_foreign_lock_stands_behind_the_same_guards() {
    let lock = AtomicU32::new(0);
    let words: [Word; WIDTH] = core::array::from_fn(|_| Word::new(0));
    // SAFETY: the words are as large as the value, aligned to 8, live as long as the mutex, and are reached through it
    // alone.
    let mutex = unsafe { Mutex::<Wide, _>::from_raw_parts(core::ptr::NonNull::from(&words).cast(), Foreign(&lock)) };
    // SAFETY: this process alone.
    let mutex = unsafe { mutex.trust_peers() };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    assert!(mutex.update(step).unwrap());
                    assert!(step(&mut mutex.lock().unwrap()));
                }
            });
        }
    });
    let guard = mutex.lock().unwrap();
    assert_eq!(*guard, [4 * ROUNDS; WIDTH]);
    assert!(matches!(mutex.lock_timeout(Duration::from_millis(1)), Err(LockError::TimedOut(None))));
    assert!(matches!(mutex.try_lock(), Err(LockError::WouldBlock(None))));
}

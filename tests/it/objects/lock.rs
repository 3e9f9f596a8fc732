//! Locks around a value, or around something else.

use std::time::{Duration, Instant};

use crosslane::{Condvar, Event, Lock, LockError, Mutex, Plain, RLock, RwLock, Value};

use crate::support::{LIMIT, die, done, killed, run, start, until};

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(C)]
struct Account {
    euros: i64,
    bookings: u64,
}

/// Two calls that are not atomic together are, under a lock.
#[test]
fn one_process_at_a_time_holds_a_lock() {
    let count = Value::new(0_u64).unwrap();
    let add = |(lock, count): (Lock, Value<u64>)| {
        for _ in 0..2_000 {
            let _guard = lock.lock().unwrap();
            count.set(count.get() + 1);
        }
    };
    let lock = Lock::new().unwrap();
    let adders: Vec<_> = (0..4).map(|_| start(add, (lock.clone(), count.clone()))).collect();
    adders.into_iter().for_each(done);
    assert_eq!(count.get(), 8_000);
    let add = |(lock, count): (RLock, Value<u64>)| {
        for _ in 0..2_000 {
            let _outer = lock.lock().unwrap();
            let _inner = lock.lock().unwrap();
            count.set(count.get() + 1);
        }
    };
    let lock = RLock::new().unwrap();
    let adders: Vec<_> = (0..4).map(|_| start(add, (lock.clone(), count.clone()))).collect();
    adders.into_iter().for_each(done);
    assert_eq!(count.get(), 16_000);
}

#[test]
fn plain_structs_of_the_users_lie_behind_locks() {
    let mutex = Mutex::new(Account { euros: 100, bookings: 0 }).unwrap();
    let shared = RwLock::new(Account { euros: 1, bookings: 1 }).unwrap();
    let book = |(mutex, shared): (Mutex<Account>, RwLock<Account>)| {
        for _ in 0..1_000 {
            let mut account = mutex.lock().unwrap();
            account.euros -= 1;
            account.bookings += 1;
            drop(account);
            shared.write().unwrap().euros += 1;
            assert_eq!(shared.read().unwrap().bookings, 1);
        }
    };
    let bookers: Vec<_> = (0..2).map(|_| start(book, (mutex.clone(), shared.clone()))).collect();
    bookers.into_iter().for_each(done);
    assert_eq!(*mutex.lock().unwrap(), Account { euros: -1900, bookings: 2000 });
    assert_eq!(*shared.read().unwrap(), Account { euros: 2001, bookings: 1 });
}

/// Holds `lock` until `done` is set.
fn hold((lock, held, done): (Lock, Event, Event)) {
    let _guard = lock.lock().unwrap();
    held.set();
    done.wait();
}

#[test]
fn a_lock_that_is_held_elsewhere_is_an_error_for_who_does_not_wait_so_long() {
    let (lock, held, free) = (Lock::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let holder = start(hold, (lock.clone(), held.clone(), free.clone()));
    held.wait();
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock(Some(_)))));
    let begin = Instant::now();
    assert!(matches!(lock.lock_timeout(Duration::from_millis(50)), Err(LockError::TimedOut(Some(_)))));
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert!(matches!(lock.lock_timeout(Duration::ZERO), Err(LockError::TimedOut(_))));
    free.set();
    assert!(lock.lock_timeout(LIMIT).is_ok());
    done(holder);
}

/// Python's lock is then locked for ever.
#[test]
fn a_dead_holders_lock_comes_to_the_next_one_who_is_told() {
    let lock = Lock::new().unwrap();
    killed(start(
        |lock: Lock| -> () {
            let _guard = lock.lock().unwrap();
            die();
        },
        lock.clone(),
    ));
    let begin = Instant::now();
    let Err(LockError::OwnerDied(guard)) = lock.lock() else { panic!("the holder died") };
    assert!(begin.elapsed() < Duration::from_secs(30) && guard.is_broken());
    drop(guard);
    let Err(LockError::Poisoned(mut guard)) = lock.lock() else { panic!("nobody has repaired it") };
    guard.mark_consistent();
    drop(guard);
    assert!(lock.lock().is_ok());

    let lock = RLock::new().unwrap();
    killed(start(
        |lock: RLock| -> () {
            let _guards = (lock.lock().unwrap(), lock.lock().unwrap());
            die();
        },
        lock.clone(),
    ));
    let Err(LockError::OwnerDied(mut guard)) = lock.lock() else { panic!("the holder died") };
    guard.mark_consistent();
    drop(guard);
    assert!(lock.lock().is_ok());
}

#[test]
fn a_waiter_gets_the_lock_of_a_holder_that_is_killed_meanwhile() {
    let (mutex, held) = (Mutex::new(1_u64).unwrap(), Event::new().unwrap());
    let holder = start(
        |(mutex, held): (Mutex<u64>, Event)| {
            let mut guard = mutex.lock().unwrap();
            *guard = 2;
            held.set();
            std::thread::park();
        },
        (mutex.clone(), held.clone()),
    );
    held.wait();
    let waiter = start(
        |mutex: Mutex<u64>| match mutex.lock() {
            Err(LockError::OwnerDied(mut torn)) => {
                let found = *torn;
                *torn = 3;
                torn.mark_consistent();
                found
            }
            _ => 0,
        },
        mutex.clone(),
    );
    holder.kill().unwrap();
    assert_eq!(done(waiter), 2);
    assert_eq!(*mutex.lock().unwrap(), 3);
}

#[test]
fn a_panic_under_a_lock_is_poison_for_everybody() {
    let mutex = Mutex::new(0_u8).unwrap();
    let panics = |mutex: Mutex<u8>| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            panic!("under the lock");
        }));
        caught.is_err()
    };
    assert!(run(panics, mutex.clone()));
    assert!(matches!(mutex.lock(), Err(LockError::Poisoned(_))));
}

#[test]
fn an_error_of_a_lock_goes_up_by_a_question_mark() {
    fn add(mutex: &Mutex<u64>) -> crosslane::Result<u64> {
        let mut n = mutex.lock()?;
        *n += 1;
        Ok(*n)
    }
    let mutex = Mutex::new(1_u64).unwrap();
    assert_eq!(add(&mutex).unwrap(), 2);
    killed(start(
        |mutex: Mutex<u64>| -> () {
            std::mem::forget(mutex.lock());
            die()
        },
        mutex.clone(),
    ));
    assert!(matches!(add(&mutex), Err(crosslane::Error::Lock(LockError::OwnerDied(())))));
    assert!(matches!(add(&mutex), Err(crosslane::Error::Lock(LockError::Poisoned(())))));
}

#[test]
fn a_reentrant_lock_is_free_when_each_guard_is_gone() {
    let lock = RLock::new().unwrap();
    let is_free = |lock: RLock| lock.try_lock().is_ok();
    let (outer, inner) = (lock.lock().unwrap(), lock.lock().unwrap());
    assert!(!run(is_free, lock.clone()));
    drop(outer);
    assert!(!run(is_free, lock.clone()));
    drop(inner);
    assert!(run(is_free, lock.clone()));
}

#[test]
fn readers_share_and_writers_do_not() {
    let lock = RwLock::new([1_u64; 4]).unwrap();
    let tries = |lock: RwLock<[u64; 4]>| {
        let reads = lock.try_read().is_ok();
        (reads, lock.try_write().is_ok())
    };
    let reading = lock.read().unwrap();
    assert_eq!(run(tries, lock.clone()), (true, false));
    drop(reading);
    let writing = lock.write().unwrap();
    assert_eq!(run(tries, lock.clone()), (false, false));
    drop(writing);
    assert_eq!(run(tries, lock.clone()), (true, true));
    // Neither a dead reader nor a dead writer is waited for.
    let die_reading = |lock: RwLock<[u64; 4]>| -> () {
        std::mem::forget(lock.read());
        die()
    };
    killed(start(die_reading, lock.clone()));
    lock.write().unwrap()[0] = 2;
    let die_writing = |lock: RwLock<[u64; 4]>| -> () {
        std::mem::forget(lock.write());
        die()
    };
    killed(start(die_writing, lock.clone()));
    let Err(LockError::OwnerDied(mut guard)) = lock.write() else { panic!("the writer died") };
    guard.mark_consistent();
    drop(guard);
    assert_eq!(*lock.read().unwrap(), [2, 1, 1, 1]);
}

#[test]
fn a_condition_is_waited_for_under_its_lock() {
    let turn = Condvar::new(0_u64).unwrap();
    let odd = |turn: Condvar<u64>| {
        for n in (1..200).step_by(2) {
            let mut guard = turn.lock().unwrap().wait_while(|turn| *turn != n).unwrap();
            *guard += 1;
            drop(guard);
            turn.notify_all();
        }
    };
    let other = start(odd, turn.clone());
    for n in (0..200).step_by(2) {
        let mut guard = turn.lock().unwrap().wait_while(|turn| *turn != n).unwrap();
        *guard += 1;
        drop(guard);
        turn.notify_all();
    }
    done(other);
    assert_eq!(*turn.lock().unwrap(), 200);
    let (guard, result) = turn.lock().unwrap().wait_timeout_while(Duration::from_millis(20), |n| *n == 200).unwrap();
    assert!(result.timed_out() && *guard == 200);
}

/// Python's next `notify` hangs then.
#[test]
fn a_killed_waiter_is_notified_without_hanging() {
    let (condition, waits) = (Condvar::new(0_u8).unwrap(), Event::new().unwrap());
    let waiter = start(
        |(condition, waits): (Condvar<u8>, Event)| {
            let guard = condition.lock().unwrap();
            waits.set();
            drop(guard.wait_while(|n| *n == 0));
        },
        (condition.clone(), waits.clone()),
    );
    waits.wait();
    // Once the lock can be had, the waiter sleeps, or is about to.
    drop(condition.lock().unwrap());
    waiter.kill().unwrap();
    until("it has ended", || !waiter.is_alive());
    condition.notify_one();
    condition.notify_all();
    *condition.lock().unwrap() = 1;
}

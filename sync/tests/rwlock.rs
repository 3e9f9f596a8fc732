//! The reader-writer lock between real processes.

mod family;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::panic::catch_unwind;
use std::time::Instant;

use crosslane_core::{Trusted, Untrusted};
use crosslane_sync::{LockError, RwLock, RwLockCell};
use family::{Env, Processes, await_flag, hang, raise, until};

type Pair = [u64; 2];
type Family = Processes<RwLockCell<Pair, 2>>;

fn copying(family: &Family, index: u32) -> RwLock<Pair, Env<'_>, Untrusted, 2> {
    // SAFETY: mapped while `family` lives, which `env` borrows; only reached through such handles; a process is called
    // dead when it was reaped.
    unsafe { RwLock::new(family.cell(), family.env(index)) }
}

fn lock(family: &Family, index: u32) -> RwLock<Pair, Env<'_>, Trusted, 2> {
    // SAFETY: the processes of a test run this file's code alone.
    unsafe { copying(family, index).trust_peers() }
}

#[test]
fn readers_share_and_writers_are_alone() {
    let family = Family::new();
    let (a, b) = (lock(&family, 1), lock(&family, 2));
    let (first, second) = (a.read().unwrap(), b.read().unwrap());
    let again = a.read().unwrap();
    assert_eq!((*first, *second, *again), ([0; 2], [0; 2], [0; 2]));
    assert!(matches!(b.try_write(), Err(LockError::WouldBlock(Some(owner))) if owner.index() == 1));
    drop((first, again));
    let wait = Duration::from_millis(20);
    assert!(matches!(a.write_timeout(wait), Err(LockError::TimedOut(Some(owner))) if owner.index() == 2));
    drop(second);
    let mut writing = a.try_write().unwrap();
    *writing = [1, 1];
    assert!(matches!(b.try_read(), Err(LockError::WouldBlock(Some(_)))));
    assert!(matches!(b.read_timeout(wait), Err(LockError::TimedOut(Some(_)))));
    drop(writing);
    assert_eq!(*b.read().unwrap(), [1, 1]);
    assert_eq!(copying(&family, 3).get().unwrap(), [1, 1]);
}

#[test]
fn nobody_sees_half_a_change_and_none_is_lost() {
    const ROUNDS: u64 = 2_000;
    let family = Family::new();
    let work = |index, writes: bool| {
        let lock = lock(&family, index);
        (0..ROUNDS).all(|_| {
            if writes {
                let mut pair = lock.write().expect("nobody dies");
                pair[0] += 1;
                pair[1] += 1;
                true
            } else {
                let pair = lock.read().expect("nobody dies");
                pair[0] == pair[1]
            }
        })
    };
    let children = [(1, true), (2, false)].map(|(index, writes)| family.fork(move || work(index, writes)));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(work(3, false)));
        scope.spawn(|| assert!(work(3, true)));
    });
    for child in children {
        child.join();
    }
    assert_eq!(*lock(&family, 4).read().unwrap(), [2 * ROUNDS; 2]);
}

#[test]
fn a_killed_reader_does_not_keep_a_writer_out() {
    let family = Family::new();
    let child = family.fork(|| {
        let lock = lock(&family, 1);
        let _first = lock.read().expect("open");
        let _second = lock.read().expect("open");
        raise(family.flag(0));
        hang()
    });
    await_flag(family.flag(0));
    let writer = family.fork(|| {
        raise(family.flag(1));
        lock(&family, 2).write().is_ok()
    });
    await_flag(family.flag(1));
    assert!(lock(&family, 3).try_write().is_err(), "the reader lives");
    family.kill(child, 1);
    writer.join();
    assert!(lock(&family, 3).try_write().is_ok());
}

#[test]
fn a_killed_writer_leaves_owner_died_and_then_poison_until_a_writer_repairs() {
    let family = Family::new();
    let child = family.fork(|| {
        let lock = lock(&family, 1);
        let mut pair = lock.write().expect("open");
        pair[0] = 1;
        raise(family.flag(0));
        hang()
    });
    await_flag(family.flag(0));
    family.kill(child, 1);
    let reader = lock(&family, 2);
    let Err(LockError::OwnerDied(guard)) = reader.read() else { panic!("the writer was killed") };
    assert_eq!(*guard, [1, 0]);
    drop(guard);
    assert!(matches!(reader.try_read(), Err(LockError::Poisoned(_))));
    assert!(matches!(copying(&family, 3).get(), Err(LockError::Poisoned([1, 0]))));
    let Err(LockError::Poisoned(guard)) = reader.write() else { panic!("nobody repaired it") };
    drop(guard);
    let copies = copying(&family, 3);
    let Err(LockError::Poisoned(mut repair)) = copies.update(|_| ()) else { panic!("nobody repaired it") };
    repair[1] = repair[0];
    repair.commit();
    assert_eq!(*reader.read().unwrap(), [1, 1]);
    assert_eq!(copies.update(|pair| pair[0] + pair[1]).unwrap(), 2);
}

#[test]
fn a_reader_without_a_place_is_told_and_a_dead_ones_place_is_free() {
    let family = Family::new();
    let mut children = [1, 2].map(|index| {
        let (family, flag) = (&family, index as usize);
        Some(family.fork(move || {
            let lock = lock(family, index);
            let _guard = lock.read().expect("open");
            raise(family.flag(flag));
            hang()
        }))
    });
    (1..=2).for_each(|i| await_flag(family.flag(i)));
    let third = lock(&family, 3);
    assert!(matches!(third.read(), Err(LockError::Full)));
    assert!(matches!(copying(&family, 4).get(), Err(LockError::Full)));
    family.kill(children[0].take().unwrap(), 1);
    let guard = third.read().unwrap();
    family.kill(children[1].take().unwrap(), 2);
    drop(guard);
    assert!(third.write().is_ok());
}

#[test]
fn a_panic_of_a_writer_poisons_and_one_of_a_reader_or_in_update_does_not() {
    let family = Family::new();
    let lock = lock(&family, 1);
    let panics = |work: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    panics(&|| {
        let _guard = lock.read().unwrap();
        panic!("on purpose");
    });
    panics(&|| copying(&family, 1).update(|_| panic!("on purpose")).unwrap());
    panics(&|| {
        let _guard = lock.write().unwrap();
        panic!("on purpose");
    });
    let Err(LockError::Poisoned(mut guard)) = lock.write() else { panic!("a writer panicked") };
    guard.mark_consistent();
    drop(guard);
    assert!(lock.read().is_ok());
}

#[test]
fn a_fork_child_leaves_its_parents_guards_alone() {
    let family = Family::new();
    let lock = lock(&family, 1);
    let mut reading = Some(lock.read().unwrap());
    family
        .fork(|| {
            drop(reading.take());
            matches!(lock.read(), Err(LockError::Forked)) && matches!(lock.write(), Err(LockError::Forked))
        })
        .join();
    assert!(matches!(copying(&family, 2).get(), Ok([0, 0])));
    let other = self::lock(&family, 2);
    assert!(other.try_write().is_err());
    drop(reading);
    let mut writing = Some(lock.write().unwrap());
    family.fork(|| writing.take().is_some()).join();
    assert!(other.try_read().is_err());
    drop(writing);
    assert!(other.try_read().is_ok());
}

#[test]
fn readers_that_overlap_without_end_do_not_starve_a_writer() {
    let family = Family::new();
    let stop = family.flag(7);
    let readers = [1, 2].map(|index| {
        let family = &family;
        family.fork(move || {
            let lock = lock(family, index);
            let mut guard = lock.read().expect("open");
            while stop.load(Ordering::Relaxed) == 0 {
                // The next one begins before the last one ends, unless a writer is at the gate.
                match lock.try_read() {
                    Ok(next) => guard = next,
                    Err(_) => {
                        drop(guard);
                        guard = lock.read().expect("nobody dies");
                    }
                }
            }
            drop(guard);
            true
        })
    });
    let writer = lock(&family, 3);
    let start = Instant::now();
    for _ in 0..20 {
        writer.write().unwrap()[0] += 1;
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    raise(stop);
    for reader in readers {
        reader.join();
    }
    until(|| writer.try_read().is_ok());
}

//! What a mutex says after its owner was killed, panicked or forked.

mod family;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::Ordering;
use std::panic::catch_unwind;

use crosslane_sync::{LockError, MutexGuard};
use family::{Family, await_flag, hang, raise, until};

type Pair = [u64; 2];

/// Bit 30 of the lock word: a waiter has announced itself.
const WAITERS: u32 = 1 << 30;

/// A child takes the lock through a guard, changes half of the value, and is killed.
fn killed_half_way(family: &Family<Pair>) {
    let child = family.fork(|| {
        let mutex = family.trusted(1);
        let mut guard = mutex.lock().expect("free");
        guard[0] += 1;
        raise(family.flag(0));
        hang()
    });
    await_flag(family.flag(0));
    family.flag(0).store(0, Ordering::Relaxed);
    family.kill(child, 1);
}

#[test]
fn a_killed_owner_leaves_owner_died_then_poison_until_somebody_repairs() {
    let family = Family::<Pair>::new();
    let mutex = family.trusted(2);
    killed_half_way(&family);
    let Err(LockError::OwnerDied(guard)) = mutex.lock() else { panic!("the owner was killed") };
    assert!(guard.is_broken());
    assert_eq!(*guard, [1, 0]);
    drop(guard);
    let Err(LockError::Poisoned(mut guard)) = mutex.try_lock() else { panic!("nobody repaired it") };
    guard[1] += 1;
    guard.mark_consistent();
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), [1, 1]);
}

#[test]
fn try_and_update_find_a_dead_owner_too() {
    for way in 0..2 {
        let family = Family::<Pair>::new();
        let mutex = family.trusted(2);
        killed_half_way(&family);
        if way == 0 {
            let Err(LockError::OwnerDied(mut guard)) = mutex.try_lock() else { panic!("the owner was killed") };
            guard.mark_consistent();
        } else {
            let Err(LockError::OwnerDied(repair)) = mutex.try_update(|_| panic!("not called")) else {
                panic!("the owner was killed")
            };
            repair.commit();
        }
        assert_eq!(*mutex.try_lock().unwrap(), [1, 0]);
    }
}

#[test]
fn an_error_without_its_guard_leaves_the_function_and_the_lock_poisoned() {
    let family = Family::<Pair>::new();
    killed_half_way(&family);
    let add = || -> Result<(), Box<dyn core::error::Error>> {
        let mutex = family.mutex(2);
        mutex.update(|pair| pair[0] += 1).map_err(LockError::without_guard)?;
        Ok(())
    };
    let error = add().unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(LockError::OwnerDied(()))), "{error}");
    assert!(error.to_string().contains("repair the value"), "{error}");
    assert!(matches!(family.mutex(2).try_update(|_| ()), Err(LockError::Poisoned(_))));
}

#[test]
fn a_repair_that_is_dropped_changes_nothing_and_one_that_is_committed_heals() {
    let family = Family::<Pair>::new();
    let mutex = family.mutex(2);
    killed_half_way(&family);
    let Err(LockError::OwnerDied(mut repair)) = mutex.update(|_| ()) else { panic!("the owner was killed") };
    assert_eq!(*repair, [1, 0]);
    repair[1] = 77;
    drop(repair);
    let Err(LockError::Poisoned(mut repair)) = mutex.read() else { panic!("nobody repaired it") };
    assert_eq!(*repair, [1, 0]);
    repair[1] = repair[0];
    repair.commit();
    assert_eq!(mutex.read().unwrap(), [1, 1]);
    assert_eq!(mutex.update(|pair| pair[0] + pair[1]).unwrap(), 2);
}

#[test]
fn a_sleeping_waiter_gets_the_lock_of_a_killed_owner() {
    let family = Family::<Pair>::new();
    let owner = family.fork(|| {
        let mutex = family.trusted(1);
        let _guard = mutex.lock().expect("free");
        raise(family.flag(0));
        hang()
    });
    await_flag(family.flag(0));
    let waiter = family.fork(|| matches!(family.trusted(3).lock(), Err(LockError::OwnerDied(_))));
    until(|| family.word().load(Ordering::Relaxed) & WAITERS != 0);
    family.kill(owner, 1);
    waiter.join();
    assert!(matches!(family.trusted(2).lock(), Err(LockError::Poisoned(_))));
}

#[test]
fn a_killed_waiter_does_not_keep_the_others_from_the_lock() {
    let family = Family::<Pair>::new();
    let mutex = family.trusted(2);
    let guard = mutex.lock().unwrap();
    let first = family.fork(|| family.trusted(1).lock().is_ok());
    until(|| family.word().load(Ordering::Relaxed) & WAITERS != 0);
    let second = family.fork(|| {
        raise(family.flag(0));
        family.trusted(3).lock().is_ok()
    });
    await_flag(family.flag(0));
    family.kill(first, 1);
    drop(guard);
    second.join();
}

#[test]
fn a_fork_child_neither_locks_nor_unlocks_for_its_parent() {
    let family = Family::<Pair>::new();
    let mutex = family.trusted(2);
    let guard = mutex.lock().unwrap();
    let held = family.word().load(Ordering::Relaxed);
    let mut inherited = Some(guard);
    family
        .fork(|| {
            drop(inherited.take());
            matches!(mutex.lock(), Err(LockError::Forked))
                && matches!(mutex.try_lock(), Err(LockError::Forked))
                && matches!(mutex.update(|_| ()), Err(LockError::Forked))
        })
        .join();
    assert_eq!(family.word().load(Ordering::Relaxed), held);
    drop(inherited);
    assert!(family.trusted(3).try_lock().is_ok());
}

#[test]
fn an_owner_that_exits_in_order_but_forgets_its_guard_counts_as_dead() {
    let family = Family::<Pair>::new();
    family.fork(|| family.trusted(1).lock().map(core::mem::forget).is_ok()).join();
    assert!(matches!(family.trusted(2).try_lock(), Err(LockError::WouldBlock(Some(owner))) if owner.index() == 1));
    family.bury(1);
    assert!(matches!(family.trusted(2).try_lock(), Err(LockError::OwnerDied(_))));
}

#[test]
fn a_panic_with_a_guard_poisons_and_one_in_update_does_not() {
    let family = Family::<Pair>::new();
    let mutex = family.trusted(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = mutex.lock().unwrap();
        guard[0] = 5;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let mut guard = mutex.lock().err().and_then(LockError::into_guard).expect("poisoned, and held");
    assert_eq!(*guard, [5, 0]);
    guard.mark_consistent();
    drop(guard);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        mutex.update(|pair| {
            pair[1] = 6;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(mutex.read().unwrap(), [5, 0]);
}

#[test]
fn a_guard_taken_while_a_panic_unwinds_does_not_poison() {
    struct LocksInDrop<'a>(&'a Family<Pair>);
    impl Drop for LocksInDrop<'_> {
        fn drop(&mut self) {
            self.0.trusted(1).lock().unwrap()[0] += 1;
        }
    }
    let family = Family::<Pair>::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _locks = LocksInDrop(&family);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(*family.trusted(1).lock().unwrap(), [1, 0]);
}

#[test]
fn hostile_bytes_in_the_word_are_corrupt_and_stay() {
    let family = Family::<Pair>::new();
    let mutex = family.mutex(1);
    for hostile in [WAITERS, 3 << 30, 1023, u32::MAX] {
        family.word().store(hostile, Ordering::Relaxed);
        assert!(matches!(mutex.update(|_| ()), Err(LockError::Corrupt)));
        assert!(matches!(mutex.try_update(|_| ()), Err(LockError::Corrupt)));
        assert_eq!(family.word().load(Ordering::Relaxed), hostile);
    }
}

#[test]
fn a_guard_whose_word_a_hostile_peer_overwrote_unlocks_nothing() {
    let family = Family::<Pair>::new();
    let mutex = family.trusted(1);
    let guard: MutexGuard<'_, _, _> = mutex.lock().unwrap();
    family.word().store(1 << 10 | 7, Ordering::Relaxed);
    drop(guard);
    assert_eq!(family.word().load(Ordering::Relaxed), 1 << 10 | 7);
}

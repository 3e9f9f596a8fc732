//! The reentrant lock: who gets in, and what its holder's death leaves.

mod family;

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;

use crosslane_sync::{LockError, RLock, RLockCell};
use family::{Env, Processes, await_flag, hang, raise};

type Pair = [u64; 2];
type Family = Processes<RLockCell<Pair>>;

fn rlock(family: &Family, index: u32) -> RLock<Pair, Env<'_>> {
    // SAFETY: mapped while `family` lives, which `env` borrows; only reached through such handles.
    unsafe { RLock::new(family.cell(), family.env(index)) }
}

#[test]
fn its_thread_gets_in_again_and_others_wait_for_the_last_unlock() {
    let family = Family::new();
    let lock = rlock(&family, 1);
    let outer = lock.lock().unwrap();
    let inner = lock.try_lock().unwrap();
    inner.set([1, 2]);
    assert_eq!(outer.get(), [1, 2]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock(Some(owner))) if owner.index() == 1))
        });
    });
    let wait = Duration::from_millis(20);
    assert!(matches!(rlock(&family, 2).lock_timeout(wait), Err(LockError::TimedOut(Some(_)))));
    drop(outer);
    assert!(matches!(rlock(&family, 2).try_lock(), Err(LockError::WouldBlock(_))));
    drop(inner);
    assert_eq!(rlock(&family, 2).try_lock().unwrap().get(), [1, 2]);
}

#[test]
fn threads_and_processes_exclude_each_other() {
    const ROUNDS: u64 = 3_000;
    let family = Family::new();
    let count = |index| {
        let lock = rlock(&family, index);
        for _ in 0..ROUNDS {
            let outer = lock.lock().expect("nobody dies");
            let [a, b] = outer.get();
            outer.set([a + 1, b]);
            let inner = lock.lock().expect("nobody dies");
            inner.set([a + 1, b + 1]);
        }
        true
    };
    let children = [1, 2].map(|index| family.fork(|| count(index)));
    std::thread::scope(|scope| {
        scope.spawn(|| count(3));
        count(3);
    });
    for child in children {
        child.join();
    }
    assert_eq!(rlock(&family, 4).lock().unwrap().get(), [4 * ROUNDS; 2]);
}

#[test]
fn a_holder_killed_two_levels_deep_leaves_owner_died_once_then_poison_until_repaired() {
    let family = Family::new();
    let child = family.fork(|| {
        let lock = rlock(&family, 1);
        let outer = lock.lock().expect("free");
        let _inner = lock.lock().expect("ours");
        outer.set([1, 0]);
        raise(family.flag(0));
        hang()
    });
    await_flag(family.flag(0));
    family.kill(child, 1);
    let lock = rlock(&family, 2);
    let Err(LockError::OwnerDied(guard)) = lock.lock() else { panic!("the owner was killed") };
    assert_eq!((guard.get(), guard.is_broken()), ([1, 0], true));
    let Err(LockError::Poisoned(again)) = lock.lock() else { panic!("it is broken still") };
    drop(again);
    drop(guard);
    let Err(LockError::Poisoned(mut guard)) = lock.try_lock() else { panic!("nobody repaired it") };
    guard.set([1, 1]);
    guard.mark_consistent();
    assert!(lock.lock().is_ok());
    drop(guard);
    assert_eq!(rlock(&family, 3).lock().unwrap().get(), [1, 1]);
}

#[test]
fn a_panic_between_two_levels_poisons_for_the_next() {
    let family = Family::new();
    let lock = rlock(&family, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _outer = lock.lock().unwrap();
        let _inner = lock.lock().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(matches!(rlock(&family, 2).try_lock(), Err(LockError::Poisoned(_))));
}

#[test]
fn a_fork_child_neither_locks_nor_unlocks_for_its_parent() {
    let family = Family::new();
    let lock = rlock(&family, 1);
    let mut inherited = Some(lock.lock().unwrap());
    family
        .fork(|| {
            drop(inherited.take());
            matches!(lock.lock(), Err(LockError::Forked)) && matches!(lock.try_lock(), Err(LockError::Forked))
        })
        .join();
    assert!(matches!(rlock(&family, 2).try_lock(), Err(LockError::WouldBlock(_))));
    drop(inherited);
    assert!(rlock(&family, 2).try_lock().is_ok());
}

//! Conditions between real processes: nobody waits for a waiter, dead or alive.

mod family;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::time::Instant;

use crosslane_core::Trusted;
use crosslane_sync::{Condvar, CondvarCell, LockError};
use family::{Env, Processes, await_flag, hang, raise, until};

type Family = Processes<CondvarCell<u64>>;

fn copying(family: &Family, index: u32) -> Condvar<u64, Env<'_>> {
    // SAFETY: mapped while `family` lives, which `env` borrows; only reached through such handles; a process is called
    // dead when it was reaped.
    unsafe { Condvar::new(family.cell(), family.env(index)) }
}

fn condvar(family: &Family, index: u32) -> Condvar<u64, Env<'_>, Trusted> {
    // SAFETY: the processes of a test run this file's code alone.
    unsafe { copying(family, index).trust_peers() }
}

/// The event word, with which the cell begins: somebody has announced that he waits.
fn somebody_waits(family: &Family) -> bool {
    // SAFETY: an atomic, mapped while `family` lives.
    let word: &AtomicU32 = unsafe { family.cell().cast().as_ref() };
    word.load(Ordering::Relaxed) & 1 == 1
}

#[test]
fn a_ball_goes_to_and_fro() {
    const ROUNDS: u64 = 2_000;
    let family = Family::new();
    let play = |index, parity| {
        let condvar = condvar(&family, index);
        let mut guard = condvar.lock().expect("nobody dies");
        for _ in 0..ROUNDS {
            guard = guard.wait_while(|ball| *ball % 2 != parity).expect("nobody dies");
            *guard += 1;
            condvar.notify_one();
        }
        true
    };
    let other = family.fork(|| play(1, 1));
    assert!(play(2, 0));
    other.join();
    assert_eq!(*condvar(&family, 3).lock().unwrap(), 2 * ROUNDS);
}

#[test]
fn copies_wait_for_changes_too() {
    const ROUNDS: u64 = 1_000;
    let family = Family::new();
    let take = |stock: &mut u64| stock.checked_sub(1).map(|left| *stock = left);
    let consumers = [1, 2].map(|index| {
        let family = &family;
        family.fork(move || {
            let stock = copying(family, index);
            (0..ROUNDS).all(|_| stock.update_when(take).is_ok())
        })
    });
    let stock = copying(&family, 3);
    for _ in 0..ROUNDS {
        stock.update(|stock| *stock += 2).unwrap();
        stock.notify_all();
    }
    for consumer in consumers {
        consumer.join();
    }
    let start = Instant::now();
    let wait = Duration::from_millis(15);
    assert!(matches!(stock.update_when_timeout(wait, take), Err(LockError::TimedOut(_))));
    assert!(start.elapsed() >= wait);
}

#[test]
fn killed_waiters_hang_no_notifier_and_lose_no_notification() {
    let family = Family::new();
    let waiters = [1, 2, 3].map(|index| {
        let family = &family;
        family.fork(move || {
            let condvar = condvar(family, index);
            let guard = condvar.lock().expect("free");
            raise(family.flag(index as usize));
            let _ = guard.wait_while(|n| *n == 0);
            true
        })
    });
    (1..=3).for_each(|i| await_flag(family.flag(i)));
    until(|| somebody_waits(&family));
    for (index, waiter) in (1..).zip(waiters) {
        family.kill(waiter, index);
    }
    let survivor = family.fork(|| {
        let condvar = condvar(&family, 4);
        let guard = condvar.lock().or_else(|error| error.into_guard().ok_or(())).expect("ours");
        raise(family.flag(4));
        guard.wait_while(|n| *n == 0).is_ok()
    });
    await_flag(family.flag(4));
    let condvar = condvar(&family, 5);
    let start = Instant::now();
    let mut guard = condvar.lock().or_else(|error| error.into_guard().ok_or(())).unwrap();
    guard.mark_consistent();
    *guard = 1;
    drop(guard);
    for _ in 0..100 {
        condvar.notify_one();
        condvar.notify_all();
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    survivor.join();
}

#[test]
fn a_holder_killed_while_others_wait_is_told_to_the_woken_one_with_its_guard() {
    let family = Family::new();
    let waiter = family.fork(|| {
        let condvar = condvar(&family, 1);
        let guard = condvar.lock().expect("free");
        raise(family.flag(1));
        match guard.wait_while(|n| *n == 0) {
            Err(LockError::OwnerDied(mut guard)) => {
                *guard += 10;
                guard.mark_consistent();
                true
            }
            _ => false,
        }
    });
    await_flag(family.flag(1));
    let killed = family.fork(|| {
        let condvar = condvar(&family, 2);
        let mut guard = condvar.lock().expect("free once the other waits");
        *guard = 1;
        condvar.notify_all();
        raise(family.flag(2));
        hang()
    });
    await_flag(family.flag(2));
    family.kill(killed, 2);
    waiter.join();
    assert_eq!(*condvar(&family, 3).lock().unwrap(), 11);
}

#[test]
fn a_change_without_a_notification_is_seen_within_a_slice() {
    let family = Family::new();
    let waiter = family.fork(|| {
        let condvar = condvar(&family, 1);
        let guard = condvar.lock().expect("free");
        raise(family.flag(1));
        guard.wait_while(|n| *n == 0).is_ok()
    });
    await_flag(family.flag(1));
    // As a notifier does that is killed before it notifies.
    *condvar(&family, 2).lock().unwrap() = 1;
    waiter.join();
}

#[test]
fn timed_waits_are_never_early_and_say_what_they_found() {
    let family = Family::new();
    let condvar = condvar(&family, 1);
    let wait = Duration::from_millis(25);
    let start = Instant::now();
    let (guard, result) = condvar.lock().unwrap().wait_timeout_while(wait, |n| *n == 0).unwrap();
    assert!(result.timed_out() && start.elapsed() >= wait);
    let (guard, result) = guard.wait_timeout(Duration::ZERO).unwrap();
    assert!(result.timed_out());
    let (guard, result) = guard.wait_timeout_while(Duration::ZERO, |n| *n != 0).unwrap();
    assert!(!result.timed_out());
    drop(guard);
    assert!(condvar.try_lock().is_ok());
}

//! Semaphores between real processes: whose permits come back, and whose do not.

mod family;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::time::Instant;

use crosslane_core::lock::permits::{AcquireError, OverRelease, Permits};
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_sync::{BoundedSemaphore, Semaphore};
use family::{Env, Processes, await_flag, hang, raise, until};

/// Room for the header and 62 permits; all zero: all free.
type Bounded = Processes<[AtomicU32; 64]>;
type Counted = Processes<SemaphoreWords>;

fn bounded(family: &Bounded, permits: u32, index: u32) -> BoundedSemaphore<'_, Env<'_>> {
    // SAFETY: mapped while `family` lives, and all zero is a semaphore.
    let permits = unsafe { Permits::attach(family.cell().cast(), 256, permits) }.unwrap();
    BoundedSemaphore::new(permits, family.env(index))
}

fn counted(family: &Counted, index: u32) -> Semaphore<Env<'_>> {
    // SAFETY: mapped while `family` lives.
    unsafe { Semaphore::new(family.cell(), family.env(index)) }
}

/// Whether somebody has announced that he waits: bit 0 of the first word.
fn somebody_waits(family: &Bounded) -> bool {
    family.page().cell[0].load(Ordering::Relaxed) & 1 == 1
}

#[test]
fn as_many_are_in_as_there_are_permits_and_never_more() {
    let family = Bounded::new();
    let (inside, most) = (family.flag(0), family.flag(1));
    let work = |index| {
        let semaphore = bounded(&family, 2, index);
        for _ in 0..2_000 {
            let _permit = semaphore.acquire().expect("no fork");
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            inside.fetch_sub(1, Ordering::SeqCst);
        }
        true
    };
    let children = [1, 2].map(|index| family.fork(|| work(index)));
    std::thread::scope(|scope| {
        scope.spawn(|| work(3));
        work(3);
    });
    for child in children {
        child.join();
    }
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    assert_eq!(bounded(&family, 2, 4).available(), 2);
}

#[test]
fn a_killed_holders_permits_come_back_to_who_sleeps_and_to_who_tries() {
    let family = Bounded::new();
    let child = family.fork(|| {
        let semaphore = bounded(&family, 3, 1);
        let _first = semaphore.acquire().expect("free");
        let _second = semaphore.acquire().expect("free");
        semaphore.acquire().expect("free").detach().expect("ours");
        raise(family.flag(0));
        hang()
    });
    await_flag(family.flag(0));
    let sleeper = family.fork(|| bounded(&family, 3, 2).acquire().is_ok());
    until(|| somebody_waits(&family));
    let semaphore = bounded(&family, 3, 3);
    assert_eq!(semaphore.try_acquire().unwrap_err(), AcquireError::WouldBlock);
    family.kill(child, 1);
    sleeper.join();
    let all = [(); 3].map(|()| semaphore.try_acquire().unwrap());
    assert_eq!(semaphore.available(), 0);
    drop(all);
    assert_eq!(semaphore.available(), 3);
}

#[test]
fn a_killed_waiter_does_not_keep_the_others_from_the_permit() {
    let family = Bounded::new();
    let semaphore = bounded(&family, 1, 1);
    let permit = semaphore.acquire().unwrap();
    let first = family.fork(|| bounded(&family, 1, 2).acquire().is_ok());
    until(|| somebody_waits(&family));
    let second = family.fork(|| {
        raise(family.flag(0));
        bounded(&family, 1, 3).acquire().is_ok()
    });
    await_flag(family.flag(0));
    family.kill(first, 2);
    drop(permit);
    second.join();
}

#[test]
fn what_is_not_held_cannot_be_released() {
    let family = Bounded::new();
    let (a, b) = (bounded(&family, 2, 1), bounded(&family, 2, 2));
    assert_eq!(a.release(), Err(OverRelease));
    a.acquire().unwrap().detach().unwrap();
    assert_eq!(b.release(), Err(OverRelease));
    assert_eq!((a.release(), a.release()), (Ok(()), Err(OverRelease)));
    assert_eq!(a.available(), 2);
}

#[test]
fn a_fork_child_neither_acquires_nor_gives_its_parents_permit_back() {
    let family = Bounded::new();
    let semaphore = bounded(&family, 2, 1);
    let mut inherited = Some(semaphore.acquire().unwrap());
    family
        .fork(|| {
            drop(inherited.take());
            matches!(semaphore.acquire(), Err(AcquireError::Forked))
                && matches!(semaphore.try_acquire(), Err(AcquireError::Forked))
                && semaphore.release() == Err(OverRelease)
        })
        .join();
    assert_eq!(semaphore.available(), 1);
    drop(inherited);
    assert_eq!(semaphore.available(), 2);
}

#[test]
fn timeouts_are_never_early() {
    let (owned, plain) = (Bounded::new(), Counted::new());
    let (holder, semaphore) = (bounded(&owned, 1, 1), bounded(&owned, 1, 2));
    let _permit = holder.acquire().unwrap();
    for millis in [0, 1, 11, 25] {
        let timeout = Duration::from_millis(millis);
        let start = Instant::now();
        assert_eq!(semaphore.acquire_timeout(timeout).unwrap_err(), AcquireError::TimedOut);
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        assert_eq!(counted(&plain, 1).acquire_timeout(timeout), Err(AcquireError::TimedOut));
        assert!(start.elapsed() >= timeout);
    }
}

#[test]
fn a_count_is_released_by_another_process_than_the_one_that_acquires() {
    let family = Counted::new();
    let consumer = family.fork(|| {
        let semaphore = counted(&family, 1);
        (0..1_000).all(|_| semaphore.acquire().is_ok())
    });
    let semaphore = counted(&family, 2);
    for _ in 0..500 {
        semaphore.release(2).unwrap();
    }
    consumer.join();
    assert_eq!((semaphore.available(), semaphore.try_acquire()), (0, Err(AcquireError::WouldBlock)));
    assert_eq!(semaphore.release(u32::MAX), Err(OverRelease));
}

#[test]
fn a_waiter_killed_asleep_does_not_take_a_count_along() {
    let family = Counted::new();
    let waiter = family.fork(|| counted(&family, 1).acquire().is_ok());
    let somebody_waits = || {
        // SAFETY: both words are atomics, mapped while `family` lives; the second is the event word.
        let words = unsafe { family.cell().cast::<[AtomicU32; 2]>().as_ref() };
        words[1].load(Ordering::Relaxed) & 1 == 1
    };
    until(somebody_waits);
    family.kill(waiter, 1);
    let semaphore = counted(&family, 2);
    semaphore.release(1).unwrap();
    assert_eq!(semaphore.acquire_timeout(Duration::from_secs(30)), Ok(()));
}

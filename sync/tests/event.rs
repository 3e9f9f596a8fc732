//! Flags and work done once, between real processes.

mod family;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::time::Instant;

use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::once::OnceWords;
use crosslane_sync::{Event, Once, OnceError, OnceState};
use family::{Env, Processes, await_flag, hang, raise, until};

fn event(family: &Processes<FlagWord>, index: u32) -> Event<Env<'_>> {
    // SAFETY: mapped while `family` lives, which `env` borrows.
    unsafe { Event::new(family.cell(), family.env(index)) }
}

fn once(family: &Processes<OnceWords>, index: u32) -> Once<Env<'_>> {
    // SAFETY: mapped while `family` lives, which `env` borrows.
    unsafe { Once::new(family.cell(), family.env(index)) }
}

#[test]
fn killed_waiters_hang_no_setter_and_the_others_are_woken() {
    let family = Processes::<FlagWord>::new();
    let wait = |index| {
        event(&family, index).wait();
        true
    };
    let killed = family.fork(|| wait(1));
    // SAFETY: an atomic, mapped while `family` lives. Bit 1: somebody has announced that he waits.
    let word: &AtomicU32 = unsafe { family.cell().cast().as_ref() };
    until(|| word.load(Ordering::Relaxed) & 2 != 0);
    let others = [2, 3].map(|index| family.fork(move || wait(index)));
    family.kill(killed, 1);
    let event = event(&family, 4);
    let start = Instant::now();
    assert!(!event.is_set());
    event.set();
    assert!(start.elapsed() < Duration::from_secs(30));
    for other in others {
        other.join();
    }
    event.wait();
    event.clear();
    let wait = Duration::from_millis(25);
    let start = Instant::now();
    assert!(!event.wait_timeout(wait) && start.elapsed() >= wait);
}

#[test]
fn one_of_many_processes_does_the_work() {
    let family = Processes::<OnceWords>::new();
    let runs = family.flag(0);
    let work = |index| {
        let once = once(&family, index);
        once.call_once(|state| {
            assert_eq!(state, OnceState::Fresh);
            runs.fetch_add(1, Ordering::Relaxed);
        })
        .is_ok()
            && once.is_completed()
            && runs.load(Ordering::Relaxed) == 1
    };
    let children = [1, 2, 3].map(|index| family.fork(move || work(index)));
    assert!(work(4));
    for child in children {
        child.join();
    }
    assert_eq!(once(&family, 5).call_once(|_| panic!("done")), Ok(false));
}

#[test]
fn work_of_a_killed_process_goes_to_one_who_waits_and_of_a_panicked_one_to_the_next() {
    let family = Processes::<OnceWords>::new();
    let child = family.fork(|| {
        let _ = once(&family, 1).call_once(|_| {
            raise(family.flag(0));
            hang()
        });
        true
    });
    await_flag(family.flag(0));
    let wait = Duration::from_millis(20);
    let busy = once(&family, 2).call_once_timeout(wait, |_| panic!("not ours"));
    assert!(matches!(busy, Err(OnceError::TimedOut(Some(owner))) if owner.index() == 1));
    let panics = family.fork(|| {
        catch_unwind(AssertUnwindSafe(|| {
            once(&family, 3).call_once(|state| {
                assert_eq!(state, OnceState::OwnerDied);
                panic!("on purpose")
            })
        }))
        .is_err()
    });
    family.kill(child, 1);
    panics.join();
    let once = once(&family, 4);
    assert!(!once.is_completed());
    assert_eq!(once.call_once(|state| assert_eq!(state, OnceState::Poisoned)), Ok(true));
    family.fork(|| once.call_once(|_| panic!("done")) == Ok(false)).join();
}

#[test]
fn a_fork_child_and_words_that_nobody_writes_are_each_told_as_such_and_nothing_is_done() {
    let family = Processes::<OnceWords>::new();
    let once = once(&family, 1);
    family.fork(|| once.call_once(|_| panic!("the parent's")) == Err(OnceError::Forked)).join();
    // SAFETY: the cell is two such words: whether it is done, and the lock.
    let words: &[AtomicU32; 2] = unsafe { family.cell().cast().as_ref() };
    for hostile in [1 << 30, 3 << 30, 1023, u32::MAX] {
        words[1].store(hostile, Ordering::Relaxed);
        assert_eq!(once.call_once(|_| panic!("nobody's")), Err(OnceError::Corrupt));
        assert_eq!((words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed)), (0, hostile));
    }
    words[1].store(0, Ordering::Relaxed);
    assert_eq!(once.call_once(|_| ()), Ok(true));
}

//! Barriers between real processes: they break, and never hang, when a party dies.

mod family;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::time::Instant;

use crosslane_core::lock::barrier::{self, BarrierError};
use crosslane_sync::Barrier;
use family::{Env, Processes, await_flag, hang, raise, until};

/// Room for the header and 14 parties; all zero: nobody is there.
type Family = Processes<[AtomicU64; 16]>;

fn barrier(family: &Family, parties: u32, index: u32) -> Barrier<'_, Env<'_>> {
    // SAFETY: mapped while `family` lives, and all zero is a barrier.
    let barrier = unsafe { barrier::Barrier::attach(family.cell().cast(), 128, parties) }.unwrap();
    Barrier::new(barrier, family.env(index))
}

#[test]
fn threads_and_processes_meet_again_and_again() {
    const ROUNDS: u32 = 500;
    let family = Family::new();
    let (arrived, led) = (family.flag(0), family.flag(1));
    let meet = |index| {
        let barrier = barrier(&family, 4, index);
        (1..=ROUNDS).all(|round| {
            arrived.fetch_add(1, Ordering::Relaxed);
            let passed = barrier
                .wait_with(|| {
                    assert_eq!(arrived.load(Ordering::Relaxed), 4 * round);
                    led.fetch_add(1, Ordering::Relaxed);
                })
                .expect("nobody dies");
            passed.index < 4 && led.load(Ordering::Relaxed) >= round
        })
    };
    let children = [1, 2].map(|index| family.fork(move || meet(index)));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(meet(3)));
        assert!(meet(4));
    });
    for child in children {
        child.join();
    }
    assert_eq!((led.load(Ordering::Relaxed), barrier(&family, 4, 5).waiting()), (ROUNDS, 0));
}

#[test]
fn each_party_of_a_round_has_an_index_of_its_own_and_one_leads() {
    let family = Family::new();
    let barrier = barrier(&family, 3, 1);
    let passed: Vec<_> = std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(|| barrier.wait().unwrap()));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut indices: Vec<_> = passed.iter().map(|passed| passed.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(passed.iter().filter(|passed| passed.is_leader).count(), 1);
}

#[test]
fn a_party_killed_while_it_waits_breaks_it_for_those_who_wait_with_and_without_a_timeout() {
    let family = Family::new();
    let victim = family.fork(|| barrier(&family, 4, 1).wait().is_ok());
    let others = [2, 3].map(|index| {
        let family = &family;
        family.fork(move || {
            let barrier = barrier(family, 4, index);
            let result = if index == 2 { barrier.wait() } else { barrier.wait_timeout(Duration::from_secs(50)) };
            result == Err(BarrierError::Broken)
        })
    });
    let survivor = barrier(&family, 4, 4);
    until(|| survivor.waiting() == 3);
    family.kill(victim, 1);
    for other in others {
        other.join();
    }
    assert_eq!(survivor.wait(), Err(BarrierError::Broken));
    survivor.reset();
    assert!(!survivor.is_broken());
    assert_eq!((survivor.waiting(), survivor.parties()), (0, 4));
}

#[test]
fn a_party_killed_between_two_rounds_breaks_the_next_and_one_that_withdrew_does_not() {
    let family = Family::new();
    let victim = family.fork(|| {
        let barrier = barrier(&family, 2, 1);
        let passed = barrier.wait().is_ok();
        raise(family.flag(0));
        if passed { hang() } else { false }
    });
    let survivor = barrier(&family, 2, 2);
    assert!(survivor.wait().is_ok());
    await_flag(family.flag(0));
    family.kill(victim, 1);
    assert_eq!(survivor.wait(), Err(BarrierError::Broken));
    survivor.reset();
    for index in [3, 4] {
        let child = family.fork(move || true);
        child.join();
        let party = barrier(&family, 2, index);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| party.wait().is_ok());
            assert!(survivor.wait().is_ok());
            assert!(other.join().unwrap());
        });
        drop(party);
        family.bury(index);
    }
    let late = barrier(&family, 2, 5);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| late.wait().is_ok());
        assert!(survivor.wait().is_ok());
        assert!(other.join().unwrap());
    });
}

#[test]
fn a_timeout_an_abort_and_a_panic_of_the_action_break_it_for_all() {
    let family = Family::new();
    let barrier = barrier(&family, 2, 1);
    let broken = |breaks: &(dyn Fn() + Sync)| {
        barrier.reset();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| barrier.wait());
            until(|| barrier.waiting() >= 1);
            breaks();
            assert_eq!(waiter.join().unwrap(), Err(BarrierError::Broken));
        });
    };
    broken(&|| barrier.abort());
    broken(&|| barrier.reset());
    assert!(!barrier.is_broken());
    let panics = || catch_unwind(AssertUnwindSafe(|| barrier.wait_with(|| panic!("on purpose"))));
    let ends = std::thread::scope(|scope| {
        let other = scope.spawn(panics);
        [panics(), other.join().unwrap()]
    });
    assert_eq!(ends.iter().filter(|end| end.is_err()).count(), 1, "one led, and panicked");
    assert!(ends.iter().flatten().all(|passed| *passed == Err(BarrierError::Broken)));
    assert!(barrier.is_broken());
    barrier.reset();
    let wait = Duration::from_millis(25);
    let start = Instant::now();
    assert_eq!(barrier.wait_timeout(wait), Err(BarrierError::TimedOut));
    assert!(start.elapsed() >= wait);
    assert_eq!(barrier.wait_timeout(wait), Err(BarrierError::Broken));
}

#[test]
fn a_fork_child_does_not_arrive_for_its_parent() {
    let family = Family::new();
    let barrier = barrier(&family, 2, 1);
    family.fork(|| barrier.wait() == Err(BarrierError::Forked)).join();
    assert_eq!(barrier.waiting(), 0);
}

#[test]
fn a_phase_that_nobody_writes_is_corrupt_and_not_broken() {
    let family = Family::new();
    let barrier = barrier(&family, 2, 1);
    // SAFETY: the cell begins with the phase; its state is the two bits above the actor's ten, and 3 is none.
    let phase: &AtomicU64 = unsafe { family.cell().cast().as_ref() };
    phase.store(3 << 10, Ordering::Relaxed);
    assert_eq!(barrier.wait_timeout(Duration::from_millis(1)), Err(BarrierError::Corrupt));
    assert_eq!(barrier.wait(), Err(BarrierError::Corrupt));
    assert!(!barrier.is_broken());
    barrier.reset();
    assert_eq!(barrier.wait_timeout(Duration::from_millis(1)), Err(BarrierError::TimedOut));
}

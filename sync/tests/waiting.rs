//! Timed waits: never early, never late because of a signal, and none at all for a timeout of zero.

mod family;

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use crosslane_sync::{Deadline, LockError, futex};
use family::{Family, until};

/// Bit 30 of the lock word: a waiter has announced itself.
const WAITERS: u32 = 1 << 30;

#[test]
fn a_timeout_names_the_holder_and_is_not_early() {
    let family = Family::<u64>::new();
    let (holder, other) = (family.trusted(1), family.trusted(2));
    let guard = holder.lock().unwrap();
    for millis in [1, 9, 10, 11, 35] {
        let start = Instant::now();
        let timeout = Duration::from_millis(millis);
        assert!(matches!(other.lock_timeout(timeout), Err(LockError::TimedOut(Some(owner))) if owner.index() == 1));
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        assert!(matches!(other.update_timeout(timeout, |_| ()), Err(LockError::TimedOut(Some(_)))));
        assert!(start.elapsed() >= timeout);
    }
    drop(guard);
    assert!(other.lock_timeout(Duration::from_millis(1)).is_ok());
}

#[test]
fn a_timeout_of_zero_and_try_do_not_block() {
    let family = Family::<u64>::new();
    let (holder, other) = (family.trusted(1), family.trusted(2));
    let guard = holder.lock().unwrap();
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(other.lock_timeout(Duration::ZERO), Err(LockError::TimedOut(Some(_)))));
        assert!(matches!(other.try_lock(), Err(LockError::WouldBlock(Some(_)))));
        assert!(matches!(other.try_update(|_| ()), Err(LockError::WouldBlock(Some(_)))));
    }
    // One slice of 10 ms each would take 30 s.
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(guard);
    assert!(other.lock_timeout(Duration::ZERO).is_ok());
}

#[test]
fn the_longest_timeout_waits_for_the_unlock() {
    let family = Family::<u64>::new();
    let (holder, other) = (family.trusted(1), family.trusted(2));
    let guard = holder.lock().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| other.lock_timeout(Duration::MAX).map(|_| ()).is_ok());
        until(|| family.word().load(Ordering::Relaxed) & WAITERS != 0);
        assert!(!waiter.is_finished());
        drop(guard);
        assert!(waiter.join().unwrap());
    });
}

extern "C" fn nothing(_: libc::c_int) {}

/// The least number of signals that are a storm.
const STORM: u32 = 100;

/// Runs `wait` in a thread that gets a signal every few microseconds: once, or on a machine where signals are slow until there
/// were enough.
fn in_a_storm(wait: impl Fn() + Send) {
    // SAFETY: all zero is a valid action: no flags, so interrupted calls are not restarted.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: a handler that does nothing, for a signal that nobody else uses here.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, core::ptr::null_mut()) }, 0);
    let (done, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let target = OnceLock::new();
    std::thread::scope(|scope| {
        scope.spawn({
            let (target, done, sent) = (&target, &done, &sent);
            move || {
                // SAFETY: always allowed.
                target.set(unsafe { libc::pthread_self() }).expect("set once");
                wait();
                while sent.load(Ordering::Relaxed) < STORM {
                    wait();
                }
                done.store(true, Ordering::Release);
                // Stays until the storm is over: nobody may signal a thread that is gone.
                until(|| !done.load(Ordering::Acquire));
            }
        });
        let target = *target.wait();
        while !done.load(Ordering::Acquire) {
            // SAFETY: the thread runs until `done` is taken back below.
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            sent.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(50));
        }
        done.store(false, Ordering::Release);
    });
}

#[test]
fn a_storm_of_signals_makes_no_wait_early_or_late() {
    let family = Family::<u64>::new();
    let (holder, other) = (family.trusted(1), family.trusted(2));
    let guard = holder.lock().unwrap();
    let timeout = Duration::from_millis(300);
    in_a_storm(|| {
        let start = Instant::now();
        assert!(matches!(other.lock_timeout(timeout), Err(LockError::TimedOut(_))));
        assert!(start.elapsed() >= timeout);
    });
    drop(guard);
    in_a_storm(|| {
        let (word, other) = (family.flag(0), family.flag(1));
        let until = Deadline::after(timeout);
        assert_eq!(futex::wait(word, 0, until), futex::Woken::TimedOut);
        assert!(until.has_passed());
        let until = Deadline::after(timeout);
        if let Ok(woken) = futex::wait_either([(word, 0), (other, 0)], until) {
            assert_eq!(woken, futex::Woken::TimedOut);
            assert!(until.has_passed());
        }
    });
}

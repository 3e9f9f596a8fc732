//! The two sides of a contestant: two processes or two threads, on CPUs 0 and 1, that start together.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use crate::shared::Shared;

/// What the two sides are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This process and a `fork()` child of it.
    Processes,
    /// Two threads of this process.
    Threads,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;
/// A measurement that takes longer hangs.
const WATCHDOG_SECONDS: u32 = 120;

/// Where the sides meet, in memory that both map.
#[derive(Default)]
#[repr(C, align(128))]
pub struct Gate {
    arrived: AtomicU32,
    started_nanos: [AtomicU64; 2],
    ended_nanos: [AtomicU64; 2],
}

/// One side's view of the gate.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    gate: &'a Gate,
    side: usize,
}

impl Start<'_> {
    /// Called once by each side when its preparations are done: returns when the other's are too, and starts the clock.
    pub fn go(self) {
        self.gate.arrived.fetch_add(1, Ordering::AcqRel);
        while self.gate.arrived.load(Ordering::Acquire) < 2 {
            std::hint::spin_loop();
        }
        self.gate.started_nanos[self.side].store(now_nanos(), Ordering::Release);
    }

    fn end(self) {
        self.gate.ended_nanos[self.side].store(now_nanos(), Ordering::Release);
    }
}

/// Runs both sides, each of which calls [`Start::go`] once; returns the seconds from the start to the later end.
pub fn race(kind: Kind, left: impl FnOnce(Start<'_>), right: impl FnOnce(Start<'_>) + Send) -> f64 {
    let gate = Shared::<Gate>::new();
    let (left_start, right_start) = (Start { gate: &gate, side: LEFT }, Start { gate: &gate, side: RIGHT });
    watchdog();
    // The right side is born where it stays, and this one moves away: it must not need this one's time to begin.
    pin(RIGHT);
    let right = move || {
        right(right_start);
        right_start.end();
    };
    let left = move || {
        pin(LEFT);
        left(left_start);
        left_start.end();
    };
    match kind {
        Kind::Processes => beside_child(left, right),
        Kind::Threads => thread::scope(|scope| {
            scope.spawn(right);
            left();
        }),
    }
    let nanos = |times: &[AtomicU64; 2]| times.each_ref().map(|time| time.load(Ordering::Acquire)).into_iter().max();
    let (start, end) = (nanos(&gate.started_nanos), nanos(&gate.ended_nanos));
    end.zip(start).map_or(0, |(end, start)| end.saturating_sub(start)) as f64 / 1e9
}

/// Runs `work` on CPU 0; returns the seconds that it took.
pub fn alone(work: impl FnOnce()) -> f64 {
    watchdog();
    pin(LEFT);
    let start = now_nanos();
    work();
    (now_nanos() - start) as f64 / 1e9
}

fn beside_child(left: impl FnOnce(), right: impl FnOnce()) {
    // SAFETY: this process has one thread whenever a measurement begins; the child runs `right` and ends at once.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", io::Error::last_os_error());
    if child == 0 {
        watchdog();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(right)).is_ok();
        // SAFETY: ends the child, without the parent's destructors.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    left();
    let mut status = 0;
    // SAFETY: a child of ours that was not reaped yet; `status` is ours.
    let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((reaped, status), (child, 0), "the other side failed");
}

fn watchdog() {
    // SAFETY: replaces this process's timer; SIGALRM ends it.
    unsafe { libc::alarm(WATCHDOG_SECONDS) };
}

/// Moves the calling thread to a CPU of its own; both sides share what there is where there is only one.
fn pin(cpu: usize) {
    // SAFETY: all zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: far below the 1,024 CPUs of a set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a set of the size that is said.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(done, 0, "two CPUs, 0 and 1, are needed: {}", io::Error::last_os_error());
}

fn now_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours. The clock is the same in all processes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Calls `step` until it returns something, with one pause after each miss: how every spinning contestant waits.
#[inline(always)]
pub fn spin<T>(mut step: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = step() {
            return value;
        }
        std::hint::spin_loop();
    }
}

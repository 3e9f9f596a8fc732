//! The sides of a contestant: processes or threads, two or four, on CPUs 0 and 1, that start together.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use crate::shared::Shared;

/// What the sides are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This process and `fork()` children of it.
    Processes,
    /// Threads of this process.
    Threads,
}

/// Where two sides run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cpus {
    /// One on each.
    Two,
    /// Both on one: who waits lets the other run, and no CPU is ever idle or asked to wake.
    One,
}

/// A side that is born for the measurement: its CPU and what it does.
pub type Side<'a> = (usize, Box<dyn FnOnce(Start<'_>) + Send + 'a>);

const LEFT: usize = 0;
const RIGHT: usize = 1;
const MOST_SIDES: usize = 4;
/// A measurement that takes longer hangs.
const WATCHDOG_SECONDS: u32 = 120;

/// Where the sides meet, in memory that all of them map.
#[derive(Default)]
#[repr(C, align(128))]
pub struct Gate {
    arrived: AtomicU32,
    started_nanos: [AtomicU64; MOST_SIDES],
    ended_nanos: [AtomicU64; MOST_SIDES],
}

/// One side's view of the gate.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    gate: &'a Gate,
    side: usize,
    sides: usize,
    /// Whether some sides need each other's CPU.
    is_crowded: bool,
}

impl Start<'_> {
    /// Called once by each side when its preparations are done: returns when the others' are too, and starts the clock.
    pub fn go(self) {
        self.gate.arrived.fetch_add(1, Ordering::AcqRel);
        while (self.gate.arrived.load(Ordering::Acquire) as usize) < self.sides {
            if self.is_crowded { thread::yield_now() } else { std::hint::spin_loop() }
        }
        self.gate.started_nanos[self.side].store(now_nanos(), Ordering::Release);
    }

    fn end(self) {
        self.gate.ended_nanos[self.side].store(now_nanos(), Ordering::Release);
    }
}

/// Runs two sides, each of which calls [`Start::go`] once; returns the seconds from the start to the later end.
pub fn race(kind: Kind, left: impl FnOnce(Start<'_>), right: impl FnOnce(Start<'_>) + Send) -> f64 {
    race_on(Cpus::Two, kind, left, right)
}

/// As [`race`], on one CPU or two.
pub fn race_on(cpus: Cpus, kind: Kind, left: impl FnOnce(Start<'_>), right: impl FnOnce(Start<'_>) + Send) -> f64 {
    let cpu = if cpus == Cpus::Two { RIGHT } else { LEFT };
    race_all(kind, left, vec![(cpu, Box::new(right))])
}

/// As [`race`], with one side in this thread, on CPU 0, and the others where they say.
pub fn race_all(kind: Kind, left: impl FnOnce(Start<'_>), others: Vec<Side<'_>>) -> f64 {
    let gate = Shared::<Gate>::new();
    let sides = others.len() + 1;
    let is_crowded = others.iter().any(|(cpu, _)| *cpu == LEFT);
    let start = |side| Start { gate: &gate, side, sides, is_crowded };
    watchdog();
    let others = others.into_iter().enumerate().map(|(i, (cpu, work))| {
        let start = start(i + 1);
        (cpu, move || {
            work(start);
            start.end();
        })
    });
    let left = || {
        pin(LEFT);
        left(start(0));
        start(0).end();
    };
    match kind {
        Kind::Processes => {
            let children: Vec<_> = others.map(|(cpu, work)| fork(cpu, work)).collect();
            left();
            children.into_iter().for_each(reap);
        }
        Kind::Threads => thread::scope(|scope| {
            for (cpu, work) in others {
                // As in `fork`.
                pin(cpu);
                scope.spawn(work);
            }
            left();
        }),
    }
    let nanos = |times: &[AtomicU64; MOST_SIDES]| times.iter().map(|time| time.load(Ordering::Acquire)).max();
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

/// Runs `work` in a `fork()` child that is born on `cpu`, so that it does not need this process's time to begin; returns
/// its pid. This process stays on CPU 0.
pub fn fork(cpu: usize, work: impl FnOnce()) -> libc::pid_t {
    pin(cpu);
    // SAFETY: this process has one thread whenever a measurement begins; the child runs `work` and ends at once.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", io::Error::last_os_error());
    if child == 0 {
        watchdog();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
        // SAFETY: ends the child, without the parent's destructors.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    pin(LEFT);
    child
}

/// Waits for a child of [`fork`], which must have done its work.
pub fn reap(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: a child of ours that was not reaped yet; `status` is ours.
    let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((reaped, status), (child, 0), "another side failed");
}

/// Waits for a child of [`fork`] that was killed.
pub fn end(child: libc::pid_t) {
    // SAFETY: a child of ours that was not reaped yet; how it ended is known.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
}

pub fn watchdog() {
    // SAFETY: replaces this process's timer; SIGALRM ends it.
    unsafe { libc::alarm(WATCHDOG_SECONDS) };
}

/// Moves the calling thread to a CPU of its own; both sides share what there is where there is only one.
pub fn pin(cpu: usize) {
    allow(&[cpu]);
}

/// Lets the calling thread, and what it starts, run on both CPUs.
pub fn unpin() {
    allow(&[LEFT, RIGHT]);
}

fn allow(cpus: &[usize]) {
    // SAFETY: all zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: far below the 1,024 CPUs of a set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: a set of the size that is said.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(done, 0, "two CPUs, 0 and 1, are needed: {}", io::Error::last_os_error());
}

pub fn now_nanos() -> u64 {
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

/// As [`spin`], for more sides than CPUs: after each miss another side gets this CPU.
#[inline(always)]
pub fn spin_in_turns<T>(mut step: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = step() {
            return value;
        }
        thread::yield_now();
    }
}

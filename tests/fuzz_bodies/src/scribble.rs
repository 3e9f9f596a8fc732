//! The rings and the locks while a second thread rewrites their memory all the time: what is checked must be what is used.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::thread;

use arbitrary::Arbitrary;
use crosslane_core::{record, spsc};

use crate::arena::{Arena, Poke, Start};
use crate::surroundings::World;
use crate::{hostile_locks, hostile_mpmc, hostile_record, hostile_spsc};

/// Times that the operations are repeated while the scribbler runs.
const ROUNDS: u32 = 24;
/// Pauses for which the scribbler looks for its next job before it sleeps: longer than the time between two inputs.
const IDLE_PAUSES: u32 = 5_000;
/// Pauses for which the operations wait for the scribbler's first round; on a busy machine it may not run at once.
const PATIENCE: u32 = 5_000;

#[derive(Debug, Arbitrary)]
struct Input {
    capacity_log2: u8,
    mode: u8,
    start: Start,
    pokes: Vec<Poke>,
    ring: Ops,
}

#[derive(Debug, Arbitrary)]
enum Ops {
    Spsc(Vec<hostile_spsc::Op>),
    BigItems(Vec<hostile_spsc::Op>),
    Record(Vec<hostile_record::Op>),
    Queue(hostile_mpmc::Shape, Vec<hostile_mpmc::Op>),
    Locks(Vec<hostile_locks::Op>),
}

/// Runs one input. Planted: a reader that checks a length word and then loads it again to use it.
///
/// # Panics
/// When a call does not return, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    match &input.ring {
        Ops::Spsc(ops) => play_spsc::<u64>(&input, ops),
        Ops::BigItems(ops) => play_spsc::<[u8; 160]>(&input, ops),
        Ops::Record(ops) => play_record(&input, ops, planted),
        Ops::Queue(shape, ops) => play_queue(&input, *shape, ops),
        Ops::Locks(ops) => play_locks(&input, ops),
    }
}

fn play_spsc<T: crate::spsc_ops::Item>(input: &Input, ops: &[hostile_spsc::Op]) {
    let (arena, capacity) = hostile_spsc::arena::<T>(input.capacity_log2, input.mode, &input.start);
    let job = Job { arena: &arena, pokes: &input.pokes, narrow_bytes: hostile_spsc::HEADER_BYTES, wide_at: &[] };
    while_scribbling(&job, || {
        let world = World::default();
        // SAFETY: the arena is as long as the ring needs, and the handles end before it.
        let ring = unsafe { spsc::Ring::attach(arena.base(), arena.len_bytes(), capacity, crate::mode(input.mode)) };
        hostile_spsc::play::<T>(ring.expect("fits"), &world, None, ops);
    });
}

fn play_record(input: &Input, ops: &[hostile_record::Op], planted: bool) {
    let (arena, capacity) = hostile_record::arena(input.capacity_log2, input.mode, &input.start);
    let (narrow_bytes, wide_at) = (hostile_record::HEADER_BYTES, hostile_record::HEAD);
    while_scribbling(&Job { arena: &arena, pokes: &input.pokes, narrow_bytes, wide_at }, || {
        let world = World::default();
        // SAFETY: the arena is as long as the ring needs, and the handles end before it.
        let ring = unsafe { record::Ring::attach(arena.base(), arena.len_bytes(), capacity, crate::mode(input.mode)) };
        hostile_record::play(ring.expect("fits"), &world, None, ops);
        if planted {
            fetch_twice(&arena, capacity as usize);
        }
    });
}

fn play_queue(input: &Input, shape: hostile_mpmc::Shape, ops: &[hostile_mpmc::Op]) {
    let arena = hostile_mpmc::arena(shape, &input.start);
    let (narrow_bytes, wide_at) = (hostile_mpmc::HEADER_BYTES, hostile_mpmc::HINTS);
    while_scribbling(&Job { arena: &arena, pokes: &input.pokes, narrow_bytes, wide_at }, || {
        hostile_mpmc::play(shape, &World::default(), &arena, false, ops);
    });
}

fn play_locks(input: &Input, ops: &[hostile_locks::Op]) {
    let arena = hostile_locks::arena(&input.start);
    let (narrow_bytes, wide_at) = (hostile_locks::NARROW_BYTES, hostile_locks::WIDE);
    while_scribbling(&Job { arena: &arena, pokes: &input.pokes, narrow_bytes, wide_at }, || {
        hostile_locks::play(&World::default(), &arena, false, ops);
    });
}

/// What the scribbler does until it is told to stop.
struct Job<'a> {
    arena: &'a Arena,
    pokes: &'a [Poke],
    narrow_bytes: usize,
    wide_at: &'a [usize],
}

/// The scribbler's job, if it has one. Whoever set it waits in [`Withdraw`] until the scribbler has put it back.
static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(null_mut());
/// The job that the scribbler is at.
static AT_WORK: AtomicPtr<Job<'static>> = AtomicPtr::new(null_mut());
/// Rounds that the scribbler has made, over all jobs.
static ROUNDS_MADE: AtomicU64 = AtomicU64::new(0);

/// Calls `work` again and again while another thread pokes; returns when that has stopped. One caller at a time.
fn while_scribbling(job: &Job<'_>, work: impl Fn()) {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    static SCRIBBLER: OnceLock<thread::Thread> = OnceLock::new();
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scribbler = SCRIBBLER.get_or_init(|| thread::spawn(scribble).thread().clone());
    let before = ROUNDS_MADE.load(Ordering::Relaxed);
    JOB.store(core::ptr::from_ref(job).cast_mut().cast(), Ordering::SeqCst);
    scribbler.unpark();
    let _withdraw = Withdraw;
    for _ in 0..PATIENCE {
        if ROUNDS_MADE.load(Ordering::Relaxed) != before {
            break;
        }
        core::hint::spin_loop();
    }
    (0..ROUNDS).for_each(|_| work());
}

/// Takes the job back, also when the work panics, so that it may be dropped.
struct Withdraw;

impl Drop for Withdraw {
    fn drop(&mut self) {
        JOB.store(null_mut(), Ordering::SeqCst);
        while !AT_WORK.load(Ordering::SeqCst).is_null() {
            thread::yield_now();
        }
    }
}

/// The scribbler's thread.
fn scribble() {
    let mut idle = 0;
    loop {
        let job = JOB.load(Ordering::SeqCst);
        AT_WORK.store(job, Ordering::SeqCst);
        // Only if it is still wanted now that its owner can see who uses it. Another job may stand at this very
        // address since: it is wanted then.
        if job.is_null() || JOB.load(Ordering::SeqCst) != job {
            AT_WORK.store(null_mut(), Ordering::SeqCst);
            idle += 1;
            if idle > IDLE_PAUSES {
                thread::park();
                idle = 0;
            }
            core::hint::spin_loop();
            continue;
        }
        idle = 0;
        // SAFETY: its owner keeps it until it has seen `AT_WORK` without it.
        let job = unsafe { &*job };
        let odd = ROUNDS_MADE.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        for poke in job.pokes {
            let old = poke.apply(job.arena, job.narrow_bytes, job.wide_at);
            // In every other round only for a moment: a check before or after finds nothing wrong.
            if odd {
                core::hint::spin_loop();
                old.put_back(job.arena);
            }
        }
    }
}

/// The planted bug: a double fetch, of each word of the ring in turn.
fn fetch_twice(arena: &Arena, capacity: usize) {
    let bytes = vec![0_u8; capacity];
    for index in hostile_record::HEADER_BYTES / 8..arena.len_bytes() / 8 {
        let len = || usize::try_from(arena.word64(index).load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        if len() <= capacity {
            core::hint::spin_loop();
            black_box(&bytes[..len()]);
        }
    }
}

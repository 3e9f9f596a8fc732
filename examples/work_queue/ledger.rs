//! What has become of each job, noted beside the queue by whoever deals with the job.
//!
//! A note is one atomic word for each job, and each step one operation on it, so a kill leaves a job's note in a state that
//! the job was in:
//!
//! | step | note |
//! |---|---|
//! | a producer takes the next number | 0 |
//! | it is about to push the job | its participant id |
//! | the push has returned | `SENT` too |
//! | a worker has done it, and not yet acknowledged it | `DONE` too, and how often it was delivered before |
//! | a worker has refused it; or somebody has seen it among the dead letters | `LETTER` too |
//!
//! So at the end, when the queue is empty, every job that was `SENT` is `DONE` or a `LETTER`, or was a dead letter whose
//! room a producer needed before anybody had looked at it: the queue counts these. A job with a producer and nothing else
//! was lost with that producer, which then must be dead.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crosslane_core::{OwnerId, Plain, Share};
use crosslane_shm::{Domain, Probe};

/// Jobs that a ledger holds.
pub(crate) const MAX_JOBS: u32 = 1 << 16;

/// What goes through the queue.
#[derive(Debug, Clone, Copy, Plain)]
#[repr(C)]
pub(crate) struct Job {
    pub(crate) number: u32,
    /// Not 0: no worker can do it.
    pub(crate) is_refused: u32,
}

/// The notes.
#[derive(Share)]
#[repr(C)]
pub(crate) struct Ledger {
    next: AtomicU64,
    notes: [AtomicU32; MAX_JOBS as usize],
}

const PRODUCER: u32 = (1 << 22) - 1;
const SENT: u32 = 1 << 22;
const DONE: u32 = 1 << 23;
const LETTER: u32 = 1 << 24;
const TAKEN_BACK: u32 = 1 << 25;
const ATTEMPTS_SHIFT: u32 = 29;

/// The accounts at one moment. While processes run, a job may be between two of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accounts {
    /// Jobs that arrived in the queue.
    pub(crate) sent: u64,
    pub(crate) done: u64,
    /// Deliveries before the one that counted, of jobs that are done.
    pub(crate) redelivered: u64,
    pub(crate) dead_letters: u64,
    /// Waiting, or with a worker, or dropped as a dead letter before anybody had seen it.
    pub(crate) open: u64,
    /// Being pushed by a living producer.
    pub(crate) under_way: u64,
    /// Never pushed, because the producer was killed.
    pub(crate) lost: u64,
}

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0), notes: [const { AtomicU32::new(0) }; MAX_JOBS as usize] }
    }

    /// The next job's number, noted as `producer`'s; `None`: the ledger is full.
    pub(crate) fn begin(&self, producer: OwnerId) -> Option<u32> {
        let number =
            u32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).ok().filter(|number| *number < MAX_JOBS)?;
        self.add(number, producer.to_word());
        Some(number)
    }

    pub(crate) fn sent(&self, number: u32) {
        self.add(number, SENT);
    }

    /// The queue was closed before the push.
    pub(crate) fn taken_back(&self, number: u32) {
        self.add(number, TAKEN_BACK);
    }

    pub(crate) fn done(&self, number: u32, attempts: u32) {
        let note = &self.notes[(number % MAX_JOBS) as usize];
        let with_attempts = |old: u32| old & !(7 << ATTEMPTS_SHIFT) | DONE | attempts << ATTEMPTS_SHIFT;
        let _ = note.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(with_attempts(old)));
    }

    pub(crate) fn letter(&self, number: u32) {
        self.add(number, LETTER);
    }

    /// Goes through all notes. `domain` says which producers are dead.
    pub(crate) fn accounts(&self, domain: &Domain) -> Accounts {
        let mut accounts = Accounts::default();
        let begun = usize::try_from(self.next.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        for note in self.notes.iter().take(begun) {
            let note = note.load(Ordering::Relaxed);
            let is_dead =
                || OwnerId::from_word(note & PRODUCER).is_none_or(|producer| domain.probe(producer) == Ok(Probe::Dead));
            let has = |flag| note & flag != 0;
            accounts.sent += u64::from(has(SENT | DONE | LETTER));
            if has(DONE) {
                accounts.done += 1;
                accounts.redelivered += u64::from(note >> ATTEMPTS_SHIFT);
            } else if has(LETTER) {
                accounts.dead_letters += 1;
            } else if has(SENT) {
                accounts.open += 1;
            } else if has(TAKEN_BACK) {
                // As if it had never been begun.
            } else if is_dead() {
                accounts.lost += 1;
            } else {
                accounts.under_way += 1;
            }
        }
        accounts
    }

    fn add(&self, number: u32, flags: u32) {
        // The number of a job came through shared memory.
        self.notes[(number % MAX_JOBS) as usize].fetch_or(flags, Ordering::Relaxed);
    }
}

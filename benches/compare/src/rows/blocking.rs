//! One item there and one back, each side asleep when its turn comes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crosslane_core::end::ClaimError;
use crosslane_core::spsc::Ring;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode};
use crosslane_shm::Env;

use super::ring::Home;
use super::scaled;
use crate::row::{Row, Unit};
use crate::shared::Shared;
use crate::sides::{Kind, race};

const SLOTS: u32 = 1024;
const BARE: &str = "bare futex ping-pong";
const FENCED: &str = "crosslane spsc, fenced";
const ASYMMETRIC: &str = "crosslane spsc, asymmetric";

pub fn rows(scale: f64) -> Vec<Row> {
    let trips = scaled(5_000, scale);
    vec![
        Row::new("round trip, asleep each time, u64, two processes", Unit::Nanos, trips)
            .contestant(BARE, move || bare(trips))
            .contestant(FENCED, move || crosslane(WakeMode::Fenced, trips))
            .contestant(ASYMMETRIC, move || crosslane(WakeMode::Asymmetric, trips))
            .goal(FENCED, BARE, 1.05)
            .versus(ASYMMETRIC, BARE),
    ]
}

#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU32);

impl Line {
    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
        // SAFETY: a live word.
        unsafe { libc::syscall(libc::SYS_futex, &raw const self.0, libc::FUTEX_WAKE, 1) };
    }

    fn await_change(&self, from: u32) {
        while self.0.load(Ordering::Acquire) == from {
            let forever = std::ptr::null::<libc::timespec>();
            // SAFETY: a live word, and no time.
            unsafe { libc::syscall(libc::SYS_futex, &raw const self.0, libc::FUTEX_WAIT, from, forever) };
        }
    }
}

#[derive(Default)]
struct Lines {
    there: Line,
    back: Line,
}

fn bare(trips: u64) -> f64 {
    let trips = u32::try_from(trips).expect("few");
    let lines = Shared::<Lines>::new();
    race(
        Kind::Processes,
        |start| {
            start.go();
            for i in 0..trips {
                lines.there.set(i + 1);
                lines.back.await_change(i);
            }
        },
        |start| {
            start.go();
            for i in 0..trips {
                lines.there.await_change(i);
                lines.back.set(i + 1);
            }
        },
    )
}

fn crosslane(mode: WakeMode, trips: u64) -> f64 {
    let there = Home::<u64>::new(SLOTS, mode);
    let back = Home::<u64>::new(SLOTS, mode);
    race(
        Kind::Processes,
        |start| {
            let (mut to, mut from) = (sleepy(&there, Ring::producer), sleepy(&back, Ring::consumer));
            start.go();
            for i in 0..trips {
                to.push(i).expect("the peer lives");
                assert_eq!(from.pop(), Ok(i));
            }
        },
        |start| {
            let (mut to, mut from) = (sleepy(&back, Ring::producer), sleepy(&there, Ring::consumer));
            start.go();
            for _ in 0..trips {
                let item = from.pop().expect("the peer lives");
                to.push(item).expect("the peer lives");
            }
        },
    )
}

/// An end whose waits do not spin.
fn sleepy<End>(home: &Home<u64>, claim: fn(&Ring<'static, u64>, Sleepy) -> Result<End, ClaimError>) -> End {
    let ring = home.here();
    let segment = ring.segment();
    let (memory, len_bytes) = segment.object();
    let env = Sleepy(segment.env().expect("not for reading only"));
    // SAFETY: the memory of such a ring, mapped as long as the `Env` that the end holds.
    let ring = unsafe { Ring::attach(memory, len_bytes, SLOTS, segment.header().content.wake) };
    claim(&ring.expect("the ring that is there"), env).unwrap_or_else(|error| panic!("{error}"))
}

/// [`Env`], but sleeping at once when there is nothing to do.
struct Sleepy(Env);

impl Wait for Sleepy {
    type Deadline = <Env as Wait>::Deadline;

    fn never(&self) -> Self::Deadline {
        self.0.never()
    }

    fn after(&self, timeout: Duration) -> Self::Deadline {
        self.0.after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked {
        self.0.park(word, expected, slice, deadline)
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        self.0.wake(word, count)
    }

    fn spins(&self) -> u32 {
        0
    }

    fn in_heavy_barriers(&self) -> bool {
        self.0.in_heavy_barriers()
    }

    fn heavy_barrier(&self) -> bool {
        self.0.heavy_barrier()
    }
}

impl Liveness for Sleepy {
    fn me(&self) -> Option<OwnerId> {
        self.0.me()
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        self.0.is_dead(owner)
    }
}

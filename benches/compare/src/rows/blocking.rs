//! One item there and one back, each side asleep when its turn comes.

use std::sync::atomic::{AtomicU32, Ordering};

use crosslane_core::WakeMode;
use crosslane_sync::membarrier;

use super::ring::Home;
use super::scaled;
use crate::row::{Row, Unit};
use crate::shared::{Env, Shared};
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
    assert!(membarrier::register(), "a kernel with membarrier is needed");
    let there = Home::<u64>::new(SLOTS, mode);
    let back = Home::<u64>::new(SLOTS, mode);
    race(
        Kind::Processes,
        |start| {
            let (mut to, mut from) = (there.producer(Env::sleepy(0)), back.consumer(Env::sleepy(0)));
            start.go();
            for i in 0..trips {
                to.push(i).expect("the peer lives");
                assert_eq!(from.pop(), Ok(i));
            }
        },
        |start| {
            let (mut to, mut from) = (back.producer(Env::sleepy(1)), there.consumer(Env::sleepy(1)));
            start.go();
            for _ in 0..trips {
                let item = from.pop().expect("the peer lives");
                to.push(item).expect("the peer lives");
            }
        },
    )
}

//! One item there and one back, both sides spinning.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane_core::WakeMode;

use super::ring::Home;
use super::rival::{Cloudtoid, Iceoryx2, IpcChannel, Ringbuf, ShmemIpc, round_trip};
use super::scaled;
use crate::row::{Row, Unit};
use crate::shared::Shared;
use crate::sides::{Kind, race, spin};

const SLOTS: u32 = 1024;
const OURS: &str = "crosslane spsc, two processes";

pub fn rows(scale: f64) -> Vec<Row> {
    let (trips, some, few) = (scaled(100_000, scale), scaled(20_000, scale), scaled(3_000, scale));
    vec![
        Row::new("round trip, spinning, u64", Unit::Nanos, trips)
            .contestant("bare two-line ping-pong", move || bare(trips))
            .contestant(OURS, move || crosslane(Kind::Processes, trips))
            .contestant("rtrb, two threads", move || rtrb(trips))
            .goal(OURS, "bare two-line ping-pong", 1.10)
            .versus(OURS, "rtrb, two threads")
            .versus("rtrb, two threads", "bare two-line ping-pong")
            .rival(OURS, "ringbuf, two threads", trips, move || round_trip::<Ringbuf>(SLOTS, trips))
            .rival(OURS, "shmem-ipc, two processes", trips, move || round_trip::<ShmemIpc>(SLOTS, trips))
            .rival(OURS, "iceoryx2, two processes", some, move || round_trip::<Iceoryx2>(SLOTS, some))
            .rival(OURS, "cloudtoid-interprocess, two processes", some, move || round_trip::<Cloudtoid>(SLOTS, some))
            .rival(OURS, "ipc-channel, two processes", few, move || round_trip::<IpcChannel>(SLOTS, few)),
    ]
}

pub fn distance_nanos() -> f64 {
    const TRIPS: u64 = 20_000;
    Unit::Nanos.of(TRIPS, bare(TRIPS))
}

#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU64);

#[derive(Default)]
struct Lines {
    there: Line,
    back: Line,
}

fn bare(trips: u64) -> f64 {
    let lines = Shared::<Lines>::new();
    let await_value = |line: &Line, value| spin(|| (line.0.load(Ordering::Acquire) == value).then_some(()));
    race(
        Kind::Processes,
        |start| {
            start.go();
            for i in 1..=trips {
                lines.there.0.store(i, Ordering::Release);
                await_value(&lines.back, i);
            }
        },
        |start| {
            start.go();
            for i in 1..=trips {
                await_value(&lines.there, i);
                lines.back.0.store(i, Ordering::Release);
            }
        },
    )
}

pub(super) fn crosslane(kind: Kind, trips: u64) -> f64 {
    let there = Home::<u64>::new(SLOTS, WakeMode::Polling);
    let back = Home::<u64>::new(SLOTS, WakeMode::Polling);
    race(
        kind,
        |start| {
            let (mut to, mut from) = (there.producer(), back.consumer());
            start.go();
            for i in 0..trips {
                spin(|| to.try_push(i).ok());
                assert_eq!(spin(|| from.try_pop().ok()), i);
            }
        },
        |start| {
            let (mut to, mut from) = (back.producer(), there.consumer());
            start.go();
            for _ in 0..trips {
                let item = spin(|| from.try_pop().ok());
                spin(|| to.try_push(item).ok());
            }
        },
    )
}

fn rtrb(trips: u64) -> f64 {
    let (mut there_in, mut there_out) = rtrb::RingBuffer::<u64>::new(SLOTS as usize);
    let (mut back_in, mut back_out) = rtrb::RingBuffer::<u64>::new(SLOTS as usize);
    race(
        Kind::Threads,
        |start| {
            start.go();
            for i in 0..trips {
                spin(|| there_in.push(i).ok());
                assert_eq!(spin(|| back_out.pop().ok()), i);
            }
        },
        move |start| {
            start.go();
            for _ in 0..trips {
                let item = spin(|| there_out.pop().ok());
                spin(|| back_in.push(item).ok());
            }
        },
    )
}

//! Throughput of single pushes and pops of a u64, both sides spinning.

use crossbeam_queue::ArrayQueue;
use crosslane_core::WakeMode;

use super::ring::Home;
use super::rival::{Cloudtoid, Iceoryx2, IpcChannel, Ringbuf, ShmemIpc, one_way};
use super::scaled;
use crate::python;
use crate::row::{Row, Unit};
use crate::sides::{Kind, race, spin};

const OURS: &str = "crosslane spsc, two processes";
const THREADS: &str = "crosslane spsc, two threads";
const RTRB: &str = "rtrb, two threads";
const CROSSBEAM: &str = "crossbeam ArrayQueue, two threads";

pub fn rows(scale: f64) -> Vec<Row> {
    let items = scaled(3_000_000, scale);
    let row = |name, slots: u32, goal| {
        Row::new(name, Unit::Millions, items)
            .contestant(OURS, move || crosslane(Kind::Processes, WakeMode::Polling, slots, items))
            .contestant(THREADS, move || crosslane(Kind::Threads, WakeMode::Polling, slots, items))
            .contestant(RTRB, move || rtrb(slots, items))
            .contestant(CROSSBEAM, move || crossbeam(slots, items))
            .goal(OURS, RTRB, goal)
            .versus(THREADS, RTRB)
            .versus(OURS, CROSSBEAM)
    };
    let slots = 1 << 10;
    let (half, some, few) = (items / 2, scaled(100_000, scale), scaled(20_000, scale));
    vec![
        row("one by one, spinning, u64, 1,024 slots", slots, 1.5)
            .rival(OURS, "ringbuf, two threads", items, move || one_way::<Ringbuf>(slots, items))
            .rival(OURS, "shmem-ipc, two processes", half, move || one_way::<ShmemIpc>(slots, half))
            .rival(OURS, "iceoryx2, two processes", some, move || one_way::<Iceoryx2>(slots, some))
            .rival(OURS, "cloudtoid-interprocess, two processes", some, move || one_way::<Cloudtoid>(slots, some))
            .rival(OURS, "ipc-channel, two processes", some, move || one_way::<IpcChannel>(slots, some))
            .python(OURS, "Python multiprocessing.Queue", few, &[1, few], python::QUEUE),
        row("one by one, spinning, u64, 65,536 slots", 1 << 16, 3.0),
    ]
}

pub fn crosslane(kind: Kind, mode: WakeMode, slots: u32, items: u64) -> f64 {
    let home = Home::<u64>::new(slots, mode);
    race(
        kind,
        |start| {
            let mut producer = home.producer();
            start.go();
            for i in 0..items {
                spin(|| producer.try_push(i).ok());
            }
        },
        |start| {
            let mut consumer = home.consumer();
            start.go();
            for i in 0..items {
                assert_eq!(spin(|| consumer.try_pop().ok()), i);
            }
        },
    )
}

fn rtrb(slots: u32, items: u64) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<u64>::new(slots as usize);
    race(
        Kind::Threads,
        |start| {
            start.go();
            for i in 0..items {
                spin(|| producer.push(i).ok());
            }
        },
        move |start| {
            start.go();
            for i in 0..items {
                assert_eq!(spin(|| consumer.pop().ok()), i);
            }
        },
    )
}

fn crossbeam(slots: u32, items: u64) -> f64 {
    let queue = ArrayQueue::<u64>::new(slots as usize);
    race(
        Kind::Threads,
        |start| {
            start.go();
            for i in 0..items {
                spin(|| queue.push(i).ok());
            }
        },
        |start| {
            start.go();
            for i in 0..items {
                assert_eq!(spin(|| queue.pop()), i);
            }
        },
    )
}

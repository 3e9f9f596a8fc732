//! Throughput of items of 1 KiB.

use std::hint::black_box;

use crosslane_core::WakeMode;

use super::ring::Home;
use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::{Kind, race, spin};

type Item = [u64; 128];
const SLOTS: u32 = 1024;
const OURS: &str = "crosslane spsc, two processes";
const RTRB: &str = "rtrb, two threads";

pub fn rows(scale: f64) -> Vec<Row> {
    let items = scaled(500_000, scale);
    vec![
        Row::new("1 KiB items, 1,024 slots", Unit::Millions, items)
            .contestant(OURS, move || crosslane(items))
            .contestant(RTRB, move || rtrb(items))
            .goal(OURS, RTRB, 0.95)
            .rival(OURS, "ringbuf, two threads", items, move || ringbuf(items)),
    ]
}

/// The items go through `black_box`, so that every byte of them counts.
fn stamp(item: &mut Item, number: u64) {
    item[0] = number;
    item[127] = !number;
}

fn check(item: &Item, number: u64) {
    assert_eq!((item[0], item[127]), (number, !number));
}

fn crosslane(items: u64) -> f64 {
    let home = Home::<Item>::new(SLOTS, WakeMode::Polling);
    race(
        Kind::Processes,
        |start| {
            let mut producer = home.producer();
            let mut item = [7; 128];
            start.go();
            for i in 0..items {
                stamp(black_box(&mut item), i);
                spin(|| producer.try_push(item).ok());
            }
        },
        |start| {
            let mut consumer = home.consumer();
            start.go();
            for i in 0..items {
                check(black_box(&spin(|| consumer.try_pop().ok())), i);
            }
        },
    )
}

fn rtrb(items: u64) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Item>::new(SLOTS as usize);
    race(
        Kind::Threads,
        |start| {
            let mut item = [7; 128];
            start.go();
            for i in 0..items {
                stamp(black_box(&mut item), i);
                spin(|| producer.push(item).ok());
            }
        },
        move |start| {
            start.go();
            for i in 0..items {
                check(black_box(&spin(|| consumer.pop().ok())), i);
            }
        },
    )
}

fn ringbuf(items: u64) -> f64 {
    use ringbuf::traits::{Consumer, Producer, Split};
    let (mut producer, mut consumer) = ringbuf::HeapRb::<Item>::new(SLOTS as usize).split();
    race(
        Kind::Threads,
        |start| {
            let mut item = [7; 128];
            start.go();
            for i in 0..items {
                stamp(black_box(&mut item), i);
                spin(|| producer.try_push(item).ok());
            }
        },
        move |start| {
            start.go();
            for i in 0..items {
                check(black_box(&spin(|| consumer.try_pop())), i);
            }
        },
    )
}

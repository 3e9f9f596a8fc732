//! Throughput of u64 in batches of 256.

use std::hint::black_box;

use crosslane_core::WakeMode;

use super::ring::Home;
use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::{Kind, race, spin};

const BATCH: usize = 256;
const OURS: &str = "crosslane push_slice and pop_slice, two processes";
const BLOCK: &str = "crosslane, each batch one item of 2 KiB, two processes";
const RTRB: &str = "rtrb chunks, two threads";

pub fn rows(scale: f64) -> Vec<Row> {
    let batches = scaled(40_000, scale);
    let row = |name, slots: u32| {
        Row::new(name, Unit::Millions, batches * BATCH as u64)
            .contestant(OURS, move || crosslane(slots, batches))
            .contestant(BLOCK, move || block(slots / BATCH as u32, batches))
            .contestant(RTRB, move || rtrb(slots, batches))
            .goal(OURS, RTRB, 0.95)
            .versus(BLOCK, RTRB)
    };
    vec![row("batches of 256, u64, 1,024 slots", 1 << 10), row("batches of 256, u64, 65,536 slots", 1 << 16)]
}

/// The batches go through `black_box`, so that every byte of them counts.
fn fill(batch: &mut [u64; BATCH], number: u64) {
    batch[0] = number;
    batch[BATCH - 1] = !number;
}

fn check(batch: &[u64; BATCH], number: u64) {
    assert_eq!((batch[0], batch[BATCH - 1]), (number, !number));
}

fn crosslane(slots: u32, batches: u64) -> f64 {
    let home = Home::<u64>::new(slots, WakeMode::Polling);
    race(
        Kind::Processes,
        |start| {
            let mut producer = home.producer();
            let mut batch = [7; BATCH];
            start.go();
            for i in 0..batches {
                fill(black_box(&mut batch), i);
                let mut rest = &batch[..];
                while !rest.is_empty() {
                    let pushed = spin(|| producer.push_slice(rest).ok());
                    rest = &rest[pushed..];
                }
            }
        },
        |start| {
            let mut consumer = home.consumer();
            let mut batch = [0; BATCH];
            start.go();
            for i in 0..batches {
                let mut rest = &mut batch[..];
                while !rest.is_empty() {
                    let popped = spin(|| consumer.pop_slice(rest).ok());
                    rest = &mut rest[popped..];
                }
                check(black_box(&batch), i);
            }
        },
    )
}

fn block(slots: u32, batches: u64) -> f64 {
    let home = Home::<[u64; BATCH]>::new(slots, WakeMode::Polling);
    race(
        Kind::Processes,
        |start| {
            let mut producer = home.producer();
            let mut batch = [7; BATCH];
            start.go();
            for i in 0..batches {
                fill(black_box(&mut batch), i);
                spin(|| {
                    let mut loan = producer.loan().ok()?;
                    *loan = batch;
                    loan.commit().unwrap();
                    Some(())
                });
            }
        },
        |start| {
            let mut consumer = home.consumer();
            let mut batch = [0; BATCH];
            start.go();
            for i in 0..batches {
                spin(|| {
                    batch = *consumer.front().ok()?;
                    Some(())
                });
                check(black_box(&batch), i);
            }
        },
    )
}

fn rtrb(slots: u32, batches: u64) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<u64>::new(slots as usize);
    race(
        Kind::Threads,
        |start| {
            let mut batch = [7; BATCH];
            start.go();
            for i in 0..batches {
                fill(black_box(&mut batch), i);
                spin(|| {
                    let mut chunk = producer.write_chunk(BATCH).ok()?;
                    let (first, second) = chunk.as_mut_slices();
                    first.copy_from_slice(&batch[..first.len()]);
                    second.copy_from_slice(&batch[first.len()..]);
                    chunk.commit_all();
                    Some(())
                });
            }
        },
        move |start| {
            let mut batch = [0; BATCH];
            start.go();
            for i in 0..batches {
                spin(|| {
                    let chunk = consumer.read_chunk(BATCH).ok()?;
                    let (first, second) = chunk.as_slices();
                    batch[..first.len()].copy_from_slice(first);
                    batch[first.len()..].copy_from_slice(second);
                    chunk.commit_all();
                    Some(())
                });
                check(black_box(&batch), i);
            }
        },
    )
}

//! Throughput of u64 in batches of 256.

use std::hint::black_box;

use crosslane_core::WakeMode;

use super::ring::Home;
use super::rival::{Ringbuf, Rival, ShmemIpc};
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
            .rival(OURS, "ringbuf slices, two threads", batches * BATCH as u64, move || ringbuf(slots, batches))
            .rival(OURS, "shmem-ipc, two processes", batches * BATCH as u64, move || shmem_ipc(slots, batches))
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

fn ringbuf(slots: u32, batches: u64) -> f64 {
    use ringbuf::traits::{Consumer, Producer};
    slices(&Ringbuf::new(slots), batches, |to, rest| to.push_slice(rest), |from, rest| from.pop_slice(rest))
}

fn shmem_ipc(slots: u32, batches: u64) -> f64 {
    slices(
        &ShmemIpc::new(slots),
        batches,
        |to, rest| {
            let mut pushed = 0;
            let write = |place: *mut u64, room: usize| {
                pushed = room.min(rest.len());
                // SAFETY: room for so many, as its contract says, in memory that is not `rest`'s.
                unsafe { place.copy_from_nonoverlapping(rest.as_ptr(), pushed) };
                pushed
            };
            to.sender_mut().send(write).expect("a ring");
            pushed
        },
        |from, rest| {
            let mut popped = 0;
            let read = |place: *const u64, there: usize| {
                popped = there.min(rest.len());
                // SAFETY: so many items, as its contract says, in memory that is not `rest`'s.
                unsafe { rest.as_mut_ptr().copy_from_nonoverlapping(place, popped) };
                popped
            };
            from.receiver_mut().recv(read).expect("a ring");
            popped
        },
    )
}

/// Batches by calls that push or pop part of a slice and say how much.
fn slices<R: Rival + Sync>(
    way: &R,
    batches: u64,
    push: impl Fn(&mut R::Sender, &[u64]) -> usize,
    pop: impl Fn(&mut R::Receiver, &mut [u64]) -> usize + Sync,
) -> f64 {
    let some = |count: usize| (count > 0).then_some(count);
    race(
        R::KIND,
        |start| {
            let (mut to, mut batch) = (way.sender(), [7; BATCH]);
            start.go();
            for i in 0..batches {
                fill(black_box(&mut batch), i);
                let mut rest = &batch[..];
                while !rest.is_empty() {
                    rest = &rest[spin(|| some(push(&mut to, rest)))..];
                }
            }
        },
        |start| {
            let (mut from, mut batch) = (way.receiver(), [0; BATCH]);
            start.go();
            for i in 0..batches {
                let mut rest = &mut batch[..];
                while !rest.is_empty() {
                    let popped = spin(|| some(pop(&mut from, rest)));
                    rest = &mut rest[popped..];
                }
                check(black_box(&batch), i);
            }
        },
    )
}

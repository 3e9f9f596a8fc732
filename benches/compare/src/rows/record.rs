//! Records of 64 bytes through the record ring, and 1 MiB by loan.

use crosslane_core::{Plain, WakeMode};

use super::ring::{Home, RecordHome};
use super::rival::{Cloudtoid, IceReceiver, IceSender, Iceoryx2, Rival};
use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::{Kind, race, spin};

const RING_BYTES: u32 = 1 << 16;
const RECORD: usize = 64;
const OURS: &str = "crosslane record ring, two processes";
const BATCHED: &str = "crosslane record ring, batches of 64, two processes";
const RTRB: &str = "rtrb of bytes, chunks of 64, two threads";

const EIGHT: &str = "8 bytes by loan";
const MEBIBYTE: &str = "1 MiB by loan";
const ICEORYX2: &str = "iceoryx2, 1 MiB by loan";

pub fn rows(scale: f64) -> Vec<Row> {
    let records = scaled(1_000_000, scale);
    let (trips, some) = (scaled(50_000, scale), scaled(100_000, scale));
    vec![
        Row::new("records of 64 bytes, 64 KiB ring", Unit::Millions, records)
            .contestant(OURS, move || one_by_one(records))
            .contestant(BATCHED, move || batched(records))
            .contestant(RTRB, move || rtrb(records))
            .versus(OURS, RTRB)
            .versus(BATCHED, RTRB)
            .rival(OURS, "cloudtoid-interprocess, two processes", some, move || cloudtoid(some)),
        Row::new("round trip by loan, spinning", Unit::Nanos, trips)
            .contestant(EIGHT, move || loan::<u64>(trips, |item, value| *item = value, |item| *item))
            .contestant(MEBIBYTE, move || loan::<[u64; 1 << 17]>(trips, |item, value| item[0] = value, |item| item[0]))
            .goal(MEBIBYTE, EIGHT, 1.10)
            .rival(MEBIBYTE, ICEORYX2, trips / 5, move || iceoryx2_loan(trips / 5)),
    ]
}

fn one_by_one(records: u64) -> f64 {
    let home = RecordHome::new(RING_BYTES);
    race(
        Kind::Processes,
        |start| {
            let mut writer = home.writer();
            let mut record = [7; RECORD];
            start.go();
            for i in 0..records {
                record[..8].copy_from_slice(&i.to_le_bytes());
                spin(|| writer.try_push(&record).ok());
            }
        },
        |start| {
            let mut reader = home.reader();
            let mut record = [0; RECORD];
            start.go();
            for i in 0..records {
                assert_eq!(spin(|| reader.try_pop_into(&mut record).ok()), RECORD);
                assert_eq!(record[..8], i.to_le_bytes());
            }
        },
    )
}

fn batched(records: u64) -> f64 {
    const BATCH: u64 = 64;
    let home = RecordHome::new(RING_BYTES);
    race(
        Kind::Processes,
        |start| {
            let mut writer = home.writer();
            let mut record = [7; RECORD];
            start.go();
            let mut i = 0;
            while i < records {
                let end = records.min(i + BATCH);
                let mut batch = writer.batch();
                while i < end {
                    record[..8].copy_from_slice(&i.to_le_bytes());
                    if batch.try_push(&record).is_err() {
                        break;
                    }
                    i += 1;
                }
            }
        },
        |start| {
            let mut reader = home.reader();
            let mut record = [0; RECORD];
            start.go();
            let mut i = 0;
            while i < records {
                let end = records.min(i + BATCH);
                let mut batch = reader.batch();
                while i < end && batch.try_pop_into(&mut record).is_ok() {
                    assert_eq!(record[..8], i.to_le_bytes());
                    i += 1;
                }
            }
        },
    )
}

fn rtrb(records: u64) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<u8>::new(RING_BYTES as usize);
    race(
        Kind::Threads,
        |start| {
            let mut record = [7; RECORD];
            start.go();
            for i in 0..records {
                record[..8].copy_from_slice(&i.to_le_bytes());
                spin(|| {
                    let mut chunk = producer.write_chunk(RECORD).ok()?;
                    let (first, second) = chunk.as_mut_slices();
                    first.copy_from_slice(&record[..first.len()]);
                    second.copy_from_slice(&record[first.len()..]);
                    chunk.commit_all();
                    Some(())
                });
            }
        },
        move |start| {
            let mut record = [0; RECORD];
            start.go();
            for i in 0..records {
                spin(|| {
                    let chunk = consumer.read_chunk(RECORD).ok()?;
                    let (first, second) = chunk.as_slices();
                    record[..first.len()].copy_from_slice(first);
                    record[first.len()..].copy_from_slice(second);
                    chunk.commit_all();
                    Some(())
                });
                assert_eq!(record[..8], i.to_le_bytes());
            }
        },
    )
}

fn cloudtoid(records: u64) -> f64 {
    // So many messages of 8 bytes take as much memory as the other rings have.
    let way = Cloudtoid::new(RING_BYTES / 16);
    race(
        Kind::Processes,
        |start| {
            let (to, mut record) = (way.sender(), [7; RECORD]);
            start.go();
            for i in 0..records {
                record[..8].copy_from_slice(&i.to_le_bytes());
                spin(|| to.try_send(&record).ok());
            }
        },
        |start| {
            let (from, mut record) = (way.receiver(), [0; RECORD]);
            start.go();
            for i in 0..records {
                assert_eq!(spin(|| from.try_recv_into(&mut record).expect("a queue")), RECORD);
                assert_eq!(record[..8], i.to_le_bytes());
            }
        },
    )
}

/// Its loans are not initialised either; only the first word is written and read.
fn iceoryx2_loan(trips: u64) -> f64 {
    type Item = [u64; 1 << 17];
    let (there, back) = (Iceoryx2::<Item>::make(2), Iceoryx2::<Item>::make(2));
    let send = |to: &IceSender<Item>, value: u64| {
        let mut sample = to.loan_uninit().expect("memory for a loan");
        let first = sample.payload_mut().as_mut_ptr().cast::<u64>();
        // SAFETY: the first word of the loan.
        unsafe { first.write(value) };
        // SAFETY: any bits are words, and the memory was zero or an earlier item.
        unsafe { sample.assume_init() }.send().expect("a connection");
    };
    let receive = |from: &IceReceiver<Item>| spin(|| from.receive().expect("a connection").map(|sample| sample[0]));
    race(
        Kind::Processes,
        |start| {
            let (to, from) = (there.ice_sender(), back.ice_receiver());
            start.go();
            for i in 0..trips {
                send(&to, i);
                assert_eq!(receive(&from), i);
            }
        },
        |start| {
            let (from, to) = (there.ice_receiver(), back.ice_sender());
            start.go();
            for _ in 0..trips {
                send(&to, receive(&from));
            }
        },
    )
}

/// Both directions by loan: the item is filled and read in place, whatever its size.
fn loan<T: Plain>(trips: u64, set: fn(&mut T, u64), get: fn(&T) -> u64) -> f64 {
    let there = Home::<T>::new(2, WakeMode::Polling);
    let back = Home::<T>::new(2, WakeMode::Polling);
    race(
        Kind::Processes,
        |start| {
            let mut to = there.producer();
            let mut from = back.consumer();
            start.go();
            for i in 0..trips {
                let mut item = loop {
                    if let Ok(item) = to.loan() {
                        break item;
                    }
                };
                set(&mut item, i);
                item.commit().unwrap();
                let seen = spin(|| from.front().ok().map(|item| get(&item)));
                assert_eq!(seen, i);
            }
        },
        |start| {
            let mut to = back.producer();
            let mut from = there.consumer();
            start.go();
            for _ in 0..trips {
                let seen = spin(|| from.front().ok().map(|item| get(&item)));
                let mut item = to.loan().expect("the ring has room for both items under way");
                set(&mut item, seen);
                item.commit().unwrap();
            }
        },
    )
}

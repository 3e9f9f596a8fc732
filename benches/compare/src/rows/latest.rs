//! Reading the newest value of 64 bytes; nobody writes meanwhile.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crosslane_shm::{Latest, Options};
use mmap_sync::synchronizer::Synchronizer;

use super::scaled;
use crate::row::{Row, Unit};
use crate::scratch::Scratch;
use crate::sides::alone;

type Value = [u64; 8];
const VALUE: Value = [1, 2, 3, 4, 5, 6, 7, 8];

const OURS: &str = "crosslane Latest::read_into";
const BY_VALUE: &str = "crosslane Latest::read, by value";
const BARE: &str = "bare seqlock";
const MMAP_SYNC: &str = "mmap-sync, unchecked, in place";

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(2_000_000, scale);
    vec![
        Row::new("read the newest value, 64 bytes", Unit::Nanos, times)
            .contestant(BARE, move || bare(times))
            .contestant(OURS, move || crosslane(times, true))
            .contestant(BY_VALUE, move || crosslane(times, false))
            .goal(OURS, BARE, 1.2)
            .versus(BY_VALUE, BARE)
            .rival(OURS, MMAP_SYNC, times / 4, move || mmap_sync(times / 4)),
    ]
}

#[derive(Default)]
struct Seqlock {
    sequence: AtomicU64,
    words: [AtomicU64; 8],
}

impl Seqlock {
    #[inline]
    fn read(&self) -> Value {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let value = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return value;
            }
        }
    }
}

fn bare(times: u64) -> f64 {
    let lock = Seqlock::default();
    for (word, value) in lock.words.iter().zip(VALUE) {
        word.store(value, Ordering::Relaxed);
    }
    alone(|| {
        for _ in 0..times {
            assert_eq!(black_box(black_box(&lock).read())[7], 8);
        }
    })
}

fn crosslane(times: u64, in_place: bool) -> f64 {
    let latest = Latest::<Value>::anonymous(&Options::new()).expect("memory for cells");
    latest.writer().expect("a free end").publish(&VALUE).expect("a live end");
    let mut reader = latest.reader().expect("a reader");
    if in_place {
        let mut value = [0; 8];
        return alone(|| {
            for _ in 0..times {
                black_box(&mut reader).read_into(black_box(&mut value)).expect("a value");
                assert_eq!(black_box(&value)[7], 8);
            }
        });
    }
    alone(|| {
        for _ in 0..times {
            assert_eq!(black_box(black_box(&mut reader).read().expect("a value"))[7], 8);
        }
    })
}

/// It lends the value in place, and checks nothing that it reads.
fn mmap_sync(times: u64) -> f64 {
    let scratch = Scratch::new();
    let path = scratch.path().join("value");
    let mut writer: Synchronizer = Synchronizer::new(path.as_os_str());
    writer.write(&VALUE, Duration::from_secs(1)).expect("a value");
    let mut reader: Synchronizer = Synchronizer::new(path.as_os_str());
    alone(|| {
        for _ in 0..times {
            // SAFETY: nobody writes meanwhile, and what lies there was written above.
            let value = unsafe { reader.read::<Value>(false) }.expect("a value");
            assert_eq!(black_box(*value)[7], 8);
        }
    })
}

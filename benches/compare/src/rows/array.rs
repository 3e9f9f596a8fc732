//! Copies in and out of a shared array, beside memcpy.

use std::hint::black_box;

use crosslane_shm::{Array, Options};

use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::alone;

/// Elements of each row, and how often they are copied.
const ROWS: [(&str, usize, u64); 3] = [
    ("copy an array of 256 B, u64", 32, 4_000_000),
    ("copy an array of 4 KiB, u64", 512, 400_000),
    ("copy an array of 64 KiB, u64", 8192, 20_000),
];

const IN: &str = "crosslane Array::write_slice";
const OUT: &str = "crosslane Array::read_slice";
const MEMCPY: &str = "memcpy";

pub fn rows(scale: f64) -> Vec<Row> {
    let row = |(name, len, times): (&'static str, usize, u64)| {
        let times = scaled(times, scale);
        Row::new(name, Unit::Millions, times * len as u64)
            .contestant(MEMCPY, move || memcpy(len, times))
            .contestant(IN, move || copy_in(len, times))
            .contestant(OUT, move || copy_out(len, times))
            .goal(IN, MEMCPY, 0.9)
            .goal(OUT, MEMCPY, 0.9)
    };
    ROWS.into_iter().map(row).collect()
}

/// The first `len` elements that begin a cache line: where the heap puts short buffers is not what is measured.
fn aligned(buffer: &mut [u64], len: usize) -> &mut [u64] {
    let start = buffer.as_ptr().align_offset(64);
    &mut buffer[start..start + len]
}

fn memcpy(len: usize, times: u64) -> f64 {
    let (mut from, mut to) = (vec![7_u64; len + 8], vec![0_u64; len + 8]);
    let (from, to) = (aligned(&mut from, len), aligned(&mut to, len));
    alone(|| (0..times).for_each(|_| black_box(&mut *to).copy_from_slice(black_box(&*from))))
}

fn copy_in(len: usize, times: u64) -> f64 {
    let array = Array::<u64>::anonymous(len as u64, &Options::new()).expect("memory for an array");
    let mut from = vec![7_u64; len + 8];
    let from = aligned(&mut from, len);
    let seconds = alone(|| (0..times).for_each(|_| array.write_slice(0, black_box(&*from))));
    assert_eq!(array.get(len - 1), 7);
    seconds
}

fn copy_out(len: usize, times: u64) -> f64 {
    let array = Array::<u64>::anonymous(len as u64, &Options::new()).expect("memory for an array");
    array.set(len - 1, 7);
    let mut to = vec![0_u64; len + 8];
    let to = aligned(&mut to, len);
    let seconds = alone(|| (0..times).for_each(|_| array.read_slice(0, black_box(&mut *to))));
    assert_eq!(to[len - 1], 7);
    seconds
}

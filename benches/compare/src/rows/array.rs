//! Copies in and out of a shared array, beside memcpy.

use std::hint::black_box;

use crosslane_shm::{Array, Options};

use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::alone;

/// 64 KiB.
const LEN: usize = 8192;

const IN: &str = "crosslane Array::write_slice";
const OUT: &str = "crosslane Array::read_slice";
const MEMCPY: &str = "memcpy";

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(20_000, scale);
    vec![
        Row::new("copy an array of 64 KiB, u64", Unit::Millions, times * LEN as u64)
            .contestant(MEMCPY, move || memcpy(times))
            .contestant(IN, move || copy_in(times))
            .contestant(OUT, move || copy_out(times))
            .goal(IN, MEMCPY, 0.9)
            .goal(OUT, MEMCPY, 0.9),
    ]
}

fn memcpy(times: u64) -> f64 {
    let (from, mut to) = (vec![7_u64; LEN], vec![0_u64; LEN]);
    alone(|| (0..times).for_each(|_| black_box(&mut to).copy_from_slice(black_box(&from))))
}

fn copy_in(times: u64) -> f64 {
    let array = Array::<u64>::anonymous(LEN as u64, &Options::new()).expect("memory for an array");
    let from = vec![7_u64; LEN];
    let seconds = alone(|| (0..times).for_each(|_| array.write_slice(0, black_box(&from))));
    assert_eq!(array.get(LEN - 1), 7);
    seconds
}

fn copy_out(times: u64) -> f64 {
    let array = Array::<u64>::anonymous(LEN as u64, &Options::new()).expect("memory for an array");
    array.set(LEN - 1, 7);
    let mut to = vec![0_u64; LEN];
    let seconds = alone(|| (0..times).for_each(|_| array.read_slice(0, black_box(&mut to))));
    assert_eq!(to[LEN - 1], 7);
    seconds
}

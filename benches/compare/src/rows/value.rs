//! Add one to a shared value, beside a mutex; nobody else wants it.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crosslane::{Mutex, Plain, Value};

use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::alone;

const MUTEX: &str = "crosslane Mutex<u64>::lock";
const UPDATE: &str = "crosslane Value<u64>::update";
const ADD: &str = "crosslane Value<u64>::fetch_add";
const ATOMIC: &str = "AtomicU64::fetch_add";
const LONG_MUTEX: &str = "crosslane Mutex<[u64; 4]>::lock";
const LONG: &str = "crosslane Value<[u64; 4]>::update";

pub fn rows(scale: f64) -> Vec<Row> {
    let times = scaled(1_000_000, scale);
    vec![
        Row::new("value, one added, uncontended", Unit::Nanos, times)
            .contestant(UPDATE, move || update(times, |n: &mut u64| *n += 1, |n| n))
            .contestant(ADD, move || add(times))
            .contestant(MUTEX, move || lock(times, |n: &mut u64| *n += 1, |n| n))
            .contestant(ATOMIC, move || atomic(times))
            .goal(UPDATE, MUTEX, 1.3)
            .versus(ADD, ATOMIC),
        Row::new("value of 32 bytes, one added, uncontended", Unit::Nanos, times)
            .contestant(LONG, move || update(times, |n: &mut [u64; 4]| n[3] += 1, |n| n[3]))
            .contestant(LONG_MUTEX, move || lock(times, |n: &mut [u64; 4]| n[3] += 1, |n| n[3]))
            .versus(LONG, LONG_MUTEX),
    ]
}

fn update<T: Plain + Default>(times: u64, change: impl Fn(&mut T), count: impl Fn(T) -> u64) -> f64 {
    let value = Value::new(T::default()).expect("memory for a value");
    let seconds = alone(|| {
        for _ in 0..times {
            black_box(&value).update(&change).expect("nobody is in the way");
        }
    });
    assert_eq!(count(value.get()), times);
    seconds
}

fn lock<T: Plain + Default>(times: u64, change: impl Fn(&mut T), count: impl Fn(T) -> u64) -> f64 {
    let mutex = Mutex::new(T::default()).expect("memory for a lock");
    let seconds = alone(|| {
        for _ in 0..times {
            change(&mut black_box(&mutex).lock().unwrap_or_else(|_| panic!("a clean lock")));
        }
    });
    assert_eq!(mutex.lock().ok().map(|value| count(*value)), Some(times));
    seconds
}

fn add(times: u64) -> f64 {
    let value = Value::new(0_u64).expect("memory for a value");
    let seconds = alone(|| {
        for _ in 0..times {
            black_box(&value).fetch_add(1);
        }
    });
    assert_eq!(value.get(), times);
    seconds
}

fn atomic(times: u64) -> f64 {
    let value = AtomicU64::new(0);
    let seconds = alone(|| {
        for _ in 0..times {
            black_box(&value).fetch_add(1, Ordering::AcqRel);
        }
    });
    assert_eq!(value.into_inner(), times);
    seconds
}

//! Memory that several processes share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crosslane::{Array, Lock, Process, Value, spawn};

use crate::report::{Outcome, Report, expect, rate};

static GLOBAL: AtomicU64 = AtomicU64::new(1);

fn join_all(processes: Vec<Process<()>>) -> crosslane::Result<()> {
    processes.into_iter().try_for_each(|process| process.join())
}

pub(crate) fn global_and_shared(_: &mut Report) -> Outcome {
    let (value, array) = (Value::new(1_u64)?, Array::from_slice(&[1_u64, 2, 3])?);
    let change = |(value, array): (Value<u64>, Array<u64>)| {
        GLOBAL.store(42, Ordering::Relaxed);
        value.set(42);
        array.set(1, 42);
    };
    spawn(change, (value.clone(), array.clone()))?.join()?;
    let global = GLOBAL.load(Ordering::Relaxed);
    println!(
        "    the child set all three to 42; here: global {global}, Value {}, Array {:?}",
        value.get(),
        array.to_vec()
    );
    expect("the global", global, 1)?;
    expect("the Value", value.get(), 42)?;
    expect("the Array", array.to_vec(), vec![1, 42, 3])
}

pub(crate) fn array_by_index(_: &mut Report) -> Outcome {
    let numbers = Array::from_slice(&[1_u64, 2, 3, 4, 5, 6, 7])?;
    let square = |(numbers, index): (Array<u64>, usize)| numbers.set(index, numbers.get(index).pow(2));
    let processes =
        (0..numbers.len()).map(|index| spawn(square, (numbers.clone(), index))).collect::<Result<_, _>>()?;
    join_all(processes)?;
    println!("    {:?}", numbers.to_vec());
    expect("squares", numbers.to_vec(), vec![1, 4, 9, 16, 25, 36, 49])
}

pub(crate) fn increments(report: &mut Report) -> Outcome {
    const PROCESSES: u64 = 8;
    const EACH: u64 = 50_000;
    let value = Value::new(0_u64)?;
    let count = |value: Value<u64>| {
        for _ in 0..EACH {
            value.fetch_add(1);
        }
    };
    let begun = Instant::now();
    join_all((0..PROCESSES).map(|_| spawn(count, value.clone())).collect::<Result<_, _>>()?)?;
    report.note("increments of one Value, 8 processes, their start included", rate(PROCESSES * EACH, begun.elapsed()));
    println!("    {PROCESSES} processes, {EACH} each: {}", value.get());
    expect("the Value", value.get(), PROCESSES * EACH)
}

/// Paying in and out as often leaves the balance as it was, if nobody comes between reading and writing.
pub(crate) fn bank(report: &mut Report) -> Outcome {
    const TIMES: u32 = 200_000;
    let (balance, lock) = (Value::new(100_i64)?, Lock::new()?);
    let without = |(balance, by): (Value<i64>, i64)| (0..TIMES).for_each(|_| balance.set(balance.get() + by));
    let with = |(balance, lock, by): (Value<i64>, Lock, i64)| {
        for _ in 0..TIMES {
            let _guard = lock.lock().expect("nobody dies here");
            balance.set(balance.get() + by);
        }
    };
    join_all(vec![spawn(without, (balance.clone(), 1))?, spawn(without, (balance.clone(), -1))?])?;
    println!("    without a lock, 100 became {} (right only by luck)", balance.get());
    balance.set(100);
    let begun = Instant::now();
    join_all(vec![spawn(with, (balance.clone(), lock.clone(), 1))?, spawn(with, (balance.clone(), lock, -1))?])?;
    report.note("the bank with a lock, 2 processes, their start included", rate(2 * u64::from(TIMES), begun.elapsed()));
    println!("    with a lock, 100 stayed {}", balance.get());
    expect("the balance", balance.get(), 100)
}

//! Pools and executors.

use std::time::{Duration, Instant};

use crosslane::{Event, Executor, Pool, as_completed};

use crate::report::{Outcome, Report, expect, rate};

pub(crate) fn squares(report: &mut Report) -> Outcome {
    const MANY: u64 = 500_000;
    for workers in [3, 4] {
        let pool = report.time(&format!("pool of {workers} started"), || Pool::new(workers))?;
        let squares = pool.map(|n: u64| n * n, 0..10)?;
        println!("    {workers} workers: {squares:?}");
        expect("squares", squares, (0..10).map(|n| n * n).collect())?;
        let begun = Instant::now();
        let many = pool.map(|n: u64| n * n, 0..MANY)?;
        report.note(&format!("pool.map of u64 squares, {workers} workers"), rate(MANY, begun.elapsed()));
        expect("the last square", many.last().copied(), Some((MANY - 1) * (MANY - 1)))?;
    }
    Ok(())
}

pub(crate) fn close_and_join(_: &mut Report) -> Outcome {
    let pool = Pool::new(4)?;
    let begun = Instant::now();
    let slow = |n: u32| {
        std::thread::sleep(Duration::from_millis(200));
        n
    };
    let tasks = (0..4).map(|n| pool.submit(slow, n)).collect::<Result<Vec<_>, _>>()?;
    println!("    four tasks of 0.2 s were submitted after {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    // Closing says that nothing more will come, so the workers leave when they have nothing left to do; joining waits
    // for that. Without it, dropping the pool would end them in the middle.
    pool.close();
    pool.join()?;
    println!(
        "    after close and join, {:.2} s later, {} workers are left",
        begun.elapsed().as_secs_f64(),
        pool.worker_pids().len()
    );
    let results = tasks.into_iter().map(|task| task.result()).collect::<Result<Vec<_>, _>>()?;
    expect("results", results, vec![0, 1, 2, 3])?;
    expect("workers", pool.worker_pids().len(), 0)
}

pub(crate) fn as_they_complete(_: &mut Report) -> Outcome {
    let executor = Executor::new(3)?;
    let go = [Event::new()?, Event::new()?, Event::new()?];
    let nap = |(tenths, go): (u32, Event)| {
        std::thread::sleep(Duration::from_millis(100) * tenths);
        // A busy machine wakes some later than others: each ends once the end of the shorter one was seen.
        go.wait();
    };
    let tasks = [3, 2, 1].map(|tenths| {
        let go = go[tenths as usize - 1].clone();
        executor.submit(nap, (tenths, go)).map(|task| (tenths, task))
    });
    go[0].set();
    let mut order = Vec::new();
    for (tenths, result) in as_completed(tasks.into_iter().collect::<Result<Vec<_>, _>>()?) {
        result?;
        println!("    the task of {tenths} tenths is done");
        order.push(tenths);
        go.iter().take(order.len() + 1).for_each(Event::set);
    }
    executor.shutdown(true, false)?;
    expect("the order", order, vec![1, 2, 3])
}

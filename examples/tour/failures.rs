//! What goes wrong, and is told.

use std::time::Duration;

use crosslane::{Array, Error, Pool, spawn};

use crate::report::{Outcome, Report, expect};

pub(crate) fn past_the_end(_: &mut Report) -> Outcome {
    let array = Array::<u32>::zeroed(3)?;
    let in_child = spawn(|array: Array<u32>| array.try_set(3, 1).map_err(|error| error.to_string()), array.clone())?;
    let in_child = in_child.join()?.expect_err("there is no index 3");
    let here = array.try_set(3, 1).expect_err("there is no index 3").to_string();
    println!("    in the child: {in_child}\n    in the parent: {here}");
    expect("the two errors", &in_child, &here)?;
    // `set` panics instead, as a slice would, and the parent is told.
    let panicked = spawn(|array: Array<u32>| array.set(3, 1), array.clone())?.join();
    println!("    by set, the child: {}", panicked.as_ref().expect_err("it panics"));
    expect("a panic", matches!(panicked, Err(Error::Panicked(_))), true)?;
    expect("the array", array.to_vec(), vec![0, 0, 0])
}

pub(crate) fn panic(_: &mut Report) -> Outcome {
    let pool = Pool::new(2)?;
    match pool.apply(|n: u32| 10 / n, 0) {
        Err(Error::Panicked(report)) => {
            println!("    caught: {:?} at {}", report.message, report.location);
            expect("the message", &report.message[..], "attempt to divide by zero")?;
            expect("the file", report.location.contains("failures.rs"), true)?;
        }
        other => return Err(format!("{other:?}").into()),
    }
    expect("the pool goes on", pool.apply(|n: u32| 10 / n, 5)?, 2)
}

pub(crate) fn killed_worker(report: &mut Report) -> Outcome {
    let pool = Pool::builder().workers(2).retries(1).build()?;
    let before = pool.broadcast(|()| std::process::id(), &())?;
    let victim = before[0];
    println!("    workers {before:?}; {victim} will be killed");
    let mut is_killed = false;
    let slow = |n: u64| {
        std::thread::sleep(Duration::from_millis(1));
        n * n
    };
    let job = pool.job().chunk_size(1).progress(|done| {
        if done >= 50 && !is_killed {
            is_killed = true;
            let victim = i32::try_from(victim).ok().and_then(rustix::process::Pid::from_raw);
            let killed = victim.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            assert!(matches!(killed, Some(Ok(()))), "{killed:?}");
        }
    });
    let squares = report.time("map of 200 x 1 ms, a worker killed on the way", || job.map(slow, 0..200))?;
    println!("    all {} squares are there; workers now {:?}", squares.len(), pool.worker_pids());
    expect("a worker was killed", is_killed, true)?;
    expect("squares", squares, (0..200).map(|n| n * n).collect())?;
    expect("the victim is gone", pool.worker_pids().contains(&victim), false)
}

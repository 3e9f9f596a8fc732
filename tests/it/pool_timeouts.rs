//! Calls that take longer than they may: each fails alone, once, and the pool stays as large as it was.

use std::time::{Duration, Instant};

use crosslane::{Array, Error, Event, Pool, Task, Value};

use crate::patience::patiently;
use crate::result_of;
use crate::support::{forever, until};

/// Counts each item in its place; the item that `late` says never ends.
fn counted((runs, late): &(Array<u64>, u32), n: u32) -> u32 {
    runs.fetch_add(n as usize, 1);
    if n == *late {
        forever(());
    }
    n
}

/// The items that timed out, of which all others have their results.
fn late_among(results: &[Result<u32, Error>]) -> Vec<u32> {
    let mut late = Vec::new();
    for (n, result) in (0..).zip(results) {
        match result {
            Ok(found) => assert_eq!(*found, n),
            Err(Error::TimedOut) => late.push(n),
            Err(error) => panic!("{n}: {error}"),
        }
    }
    late
}

fn is_whole<S: 'static>(pool: &Pool<S>, size: usize) {
    until("there are as many workers again", || pool.worker_pids().len() == size);
    assert_eq!(pool.broadcast(|n: u32| n + 1, &1).unwrap(), vec![2; size]);
}

#[test]
fn what_is_queued_behind_a_late_call_runs_once_elsewhere() {
    patiently(|timeout| {
        for size in [1, 2] {
            let pool = Pool::new(size).unwrap();
            let go_on = Event::new().unwrap();
            // All workers but the one that is late are busy: they take nothing over.
            let busy: Vec<_> =
                (1..size).map(|_| pool.submit(|event: Event| event.wait(), go_on.clone()).unwrap()).collect();
            until("all others are busy", || busy.iter().all(Task::is_running));
            let before = pool.worker_pids();
            let runs = Array::<u64>::zeroed(30).unwrap();
            let job = pool.with((runs.clone(), 0)).chunk_size(1).timeout(timeout);
            let mut results = job.window(30).imap(counted, 0..30);
            assert!(matches!(results.next(), Some(Err(Error::TimedOut))));
            go_on.set();
            assert_eq!(results.map(Result::unwrap).collect::<Vec<_>>(), (1..30).collect::<Vec<_>>());
            assert_eq!(runs.to_vec(), [1; 30]);
            busy.into_iter().for_each(|task| result_of(task).unwrap());
            is_whole(&pool, size);
            assert_eq!(pool.worker_pids().iter().filter(|pid| !before.contains(pid)).count(), 1, "one was replaced");
        }
    });
}

#[test]
fn a_call_that_ends_when_its_time_does_ends_one_way_and_alone() {
    let pool = Pool::new(2).unwrap();
    let [begun, ended] = [(); 2].map(|()| Array::<u64>::zeroed(60).unwrap());
    let work = |(n, micros, begun, ended): (u32, u64, Array<u64>, Array<u64>)| {
        begun.fetch_add(n as usize, 1);
        let since = Instant::now();
        while since.elapsed() < Duration::from_micros(micros) {
            std::hint::spin_loop();
        }
        ended.fetch_add(n as usize, 1);
        n
    };
    let submit = |n: u32| {
        // Every other one has a limit and takes about as long as that; the others, which have none, take no time.
        let (job, micros) = if n.is_multiple_of(2) {
            (pool.job(), 0)
        } else {
            (pool.job().timeout(Duration::from_millis(4)), 3_000 + 150 * u64::from(n))
        };
        job.submit(work, (n, micros, begun.clone(), ended.clone())).unwrap()
    };
    let tasks: Vec<_> = (0..60).map(submit).collect();
    let late = late_among(&tasks.into_iter().map(result_of).collect::<Vec<_>>());
    for n in 0..60 {
        let counts = (begun.get(n as usize), ended.get(n as usize));
        // One that is late may have come to any point, as long as nobody has seen its result; and nobody runs it again.
        let is_late = late.contains(&n) && n % 2 == 1 && counts.1 <= counts.0 && counts.0 <= 1;
        assert!(counts == (1, 1) || is_late, "{n}: {counts:?}");
    }
    is_whole(&pool, 2);
}

#[test]
fn a_timeout_is_of_a_whole_piece() {
    patiently(|timeout| {
        let pool = Pool::new(2).unwrap();
        let runs = Array::<u64>::zeroed(12).unwrap();
        let job = || pool.with((runs.clone(), 7)).chunk_size(3).timeout(timeout);
        assert_eq!(late_among(&job().map_all(counted, 0..12).unwrap()), [6, 7, 8]);
        assert_eq!(runs.to_vec(), [1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1], "what is behind the late item was not begun");
        assert!(matches!(job().map(counted, 0..12), Err(Error::TimedOut)));
        is_whole(&pool, 2);
    });
}

#[test]
fn a_late_item_stands_in_its_place_among_those_of_an_imap() {
    patiently(|timeout| {
        let pool = Pool::new(2).unwrap();
        let job = || pool.with((Array::<u64>::zeroed(9).unwrap(), 4)).timeout(timeout);
        assert_eq!(late_among(&job().imap(counted, 0..9).collect::<Vec<_>>()), [4]);
        let (found, late): (Vec<_>, Vec<_>) = job().imap_unordered(counted, 0..9).partition(Result::is_ok);
        let mut found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2, 3, 5, 6, 7, 8]);
        assert!(matches!(late[..], [Err(Error::TimedOut)]));
        is_whole(&pool, 2);
    });
}

#[test]
fn what_was_late_is_not_tried_again() {
    patiently(|timeout| {
        let pool = Pool::builder().workers(1).retries(3).build().unwrap();
        let runs = Array::<u64>::zeroed(3).unwrap();
        let job = pool.with((runs.clone(), 1)).chunk_size(1).retries(5).timeout(timeout);
        assert_eq!(late_among(&job.map_all(counted, 0..3).unwrap()), [1]);
        assert_eq!(runs.to_vec(), [1; 3]);
    });
}

#[test]
fn a_single_call_may_have_a_timeout_of_its_own() {
    let pool = Pool::new(1).unwrap();
    let runs = Value::new(0_u32).unwrap();
    let short = Duration::from_millis(50);
    let late = pool.job().timeout(short).submit(forever, ()).unwrap();
    // As many as fill the lane behind it.
    let behind: Vec<_> = (0..31)
        .map(|_| pool.job().timeout(Duration::from_secs(60)).submit(|runs: Value<u32>| runs.fetch_add(1), runs.clone()))
        .collect();
    assert!(matches!(result_of(late), Err(Error::TimedOut)));
    let mut seen: Vec<_> = behind.into_iter().map(|task| result_of(task.unwrap()).unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..31).collect::<Vec<_>>());
    let begun = Instant::now();
    assert!(matches!(pool.job().timeout(short).apply(forever, ()), Err(Error::TimedOut)));
    assert!(begun.elapsed() >= short);
    is_whole(&pool, 1);
}

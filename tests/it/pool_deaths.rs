//! Pools whose workers are killed, that are many, or that are dropped: nothing is lost, and nothing stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crosslane::{Error, Pool, Value, spawn};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw).unwrap();
    // It may have been replaced in this moment; its id is not given to another process so soon.
    let _ = kill_process(pid, Signal::KILL);
}

/// How many open descriptors, children and threads this process has.
fn possessions() -> (usize, usize, usize) {
    let count = |directory: &str| std::fs::read_dir(directory).unwrap().count();
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap().split_whitespace().count();
    (count("/proc/self/fd"), children, count("/proc/self/task"))
}

#[test]
fn ten_thousand_tasks_while_a_worker_is_killed_every_50_ms() {
    let pool = Pool::builder().workers(2).retries(1000).build().unwrap();
    let (is_over, ran) = (AtomicBool::new(false), Value::new(0_u64).unwrap());
    let busy = |ran: &Value<u64>, n: u64| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        ran.fetch_add(1);
        n * n
    };
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut killed, mut before) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                // Where a worker takes longer than that to come up, none would ever do anything.
                if ran.get() < before + 2 {
                    continue;
                }
                before = ran.get();
                let pids = pool.worker_pids();
                if let Some(&pid) = pids.get(killed % pids.len().max(1)) {
                    kill(pid);
                    killed += 1;
                }
            }
            killed
        });
        let squares = pool.with(ran.clone()).chunk_size(1).map(busy, 0..10_000);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(squares.unwrap(), (0..10_000).map(|n| n * n).collect::<Vec<_>>());
        assert!(killer.join().unwrap() > 5);
    });
}

#[test]
fn without_retries_each_kill_costs_at_most_one_task() {
    let pool = Pool::new(2).unwrap();
    pool.broadcast(|(): ()| (), &()).unwrap();
    let mut killed = 0;
    let results = {
        let job = pool.job().chunk_size(1).progress(|done| {
            if done % 100 == 50
                && let Some(&pid) = pool.worker_pids().first()
            {
                kill(pid);
                killed += 1;
            }
        });
        job.map_all(|n: u64| n + 1, 0..1000).unwrap()
    };
    let lost = results.iter().filter(|result| matches!(result, Err(Error::Died { .. }))).count();
    assert!(lost <= killed, "{lost} of {killed}");
    for (n, result) in (0..).zip(results) {
        if let Ok(found) = result {
            assert_eq!(found, n + 1);
        }
    }
}

#[test]
fn two_hundred_workers_fit_into_1024_descriptors() {
    let many = |()| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(1024), ..limit }).unwrap();
        let pool = Pool::new(200).unwrap();
        let mut pids = pool.broadcast(|(): ()| std::process::id(), &()).unwrap();
        pids.sort_unstable();
        pids.dedup_by_key(|pid| *pid);
        (pids.len(), possessions().0)
    };
    let (workers, descriptors) = spawn(many, ()).unwrap().join().unwrap();
    assert_eq!(workers, 200);
    assert!(descriptors < 3 * 200 + 30, "{descriptors}");
}

#[test]
fn a_hundred_pools_leave_nothing() {
    let run = |()| {
        let use_one = || {
            let pool = Pool::new(2).unwrap();
            assert_eq!(pool.map(|n: u32| n + 1, 0..4).unwrap(), [1, 2, 3, 4]);
            // Its own thread looks for the answer of this one.
            drop(pool.submit(|(): ()| (), ()).unwrap());
        };
        use_one();
        let settled = || {
            // The threads of a dropped pool are on their way out.
            let begun = Instant::now();
            while possessions().2 > 2 && begun.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
            possessions()
        };
        let before = settled();
        (0..100).for_each(|_| use_one());
        (before, settled())
    };
    let (before, after) = spawn(run, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
}

#[test]
fn workers_leave_ctrl_c_to_their_parent() {
    let pool = Pool::new(2).unwrap();
    let before = pool.broadcast(|(): ()| std::process::id(), &()).unwrap();
    for &pid in &before {
        let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }
    assert_eq!(pool.broadcast(|(): ()| std::process::id(), &()).unwrap(), before);
}

#[test]
fn a_kill_that_comes_too_late_hits_no_other_call() {
    let pool = Pool::new(1).unwrap();
    // While this thread makes the items of a map, nobody takes answers for a while.
    let items = (0..20_u32).inspect(|_| {
        let (begun, go_on) = (crosslane::Event::new().unwrap(), crosslane::Event::new().unwrap());
        let first = pool.submit(|(): ()| (), ()).unwrap();
        let hold = |(begun, go_on): (crosslane::Event, crosslane::Event)| {
            begun.set();
            go_on.wait();
        };
        let second = pool.submit(hold, (begun.clone(), go_on.clone())).unwrap();
        begun.wait();
        assert!(!first.is_running() && second.is_running());
        assert!(!first.kill().unwrap(), "it has ended");
        go_on.set();
        first.result().unwrap();
        second.result().unwrap();
    });
    assert_eq!(pool.map(|n: u32| n, items).unwrap().len(), 20);
}

#[test]
fn a_kill_costs_its_call_alone_whenever_it_comes() {
    let pool = Pool::new(2).unwrap();
    for round in 0..25_u64 {
        let busy = |micros: u64| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(micros) {
                std::hint::spin_loop();
            }
            micros
        };
        let mut tasks: Vec<_> = (0..8).map(|n| pool.submit(busy, 20 + 10 * n).unwrap()).collect();
        let victim = tasks.remove(2);
        let begun = Instant::now();
        while !victim.is_running() && !victim.is_done() && begun.elapsed() < Duration::from_micros(60 * round) {}
        let is_killed = victim.kill().unwrap();
        match victim.result() {
            Ok(found) => assert!(!is_killed && found == 40),
            Err(Error::Cancelled) => assert!(is_killed),
            Err(error) => panic!("{error}"),
        }
        for (n, task) in [0, 1, 3, 4, 5, 6, 7].into_iter().zip(tasks) {
            assert_eq!(task.result().unwrap(), 20 + 10 * n);
        }
    }
}

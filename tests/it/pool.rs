//! Pools: maps, tasks, deaths.

mod patience;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crosslane::{Error, Event, Pool, Queue, Task, WaitFor, as_completed, wait_tasks};

use crate::patience::patiently;

/// How long what should come may take.
const WATCHDOG: Duration = Duration::from_secs(60);

fn fib(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fib(n - 1) + fib(n - 2) }
}

#[test]
fn a_map_returns_the_results_in_order() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(|x: u64| x * x, 0..1000).unwrap(), (0..1000).map(|x| x * x).collect::<Vec<_>>());
    assert_eq!(pool.map(fib, []).unwrap(), [0_u64; 0]);
    assert_eq!(pool.starmap(|a: i64, b: u32| a.pow(b), [(2, 10), (3, 3)]).unwrap(), [1024, 27]);
    assert_eq!(pool.job().chunk_size(1).map(fib, 0..20).unwrap()[19], 4181);
}

#[test]
fn a_call_has_its_result() {
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(fib, 20).unwrap(), 6765);
    let tasks: Vec<_> = (0..100).map(|n| pool.submit(|n: u32| n + 1, n).unwrap()).collect();
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(task.result().unwrap(), n + 1);
    }
}

#[test]
fn a_context_is_what_a_closure_would_capture() {
    let pool = Pool::new(2).unwrap();
    let scaled = pool.with((1.5, "s".to_owned())).map(|(a, b), x: f64| format!("{b}{}", a * x), [1.0, 2.0]).unwrap();
    assert_eq!(scaled, ["s1.5", "s3"]);
}

#[test]
fn a_worker_keeps_its_state() {
    let pool = Pool::builder().workers(1).initializer(|start: u64| Box::new(start), 40).build().unwrap();
    let counts = pool
        .map_state(
            |sum: &mut Box<u64>, x: u64| {
                **sum += x;
                **sum
            },
            [1, 1],
        )
        .unwrap();
    assert_eq!(counts, [41, 42]);
}

#[test]
fn a_panic_is_the_error_of_its_call_and_of_no_other() {
    let pool = Pool::new(2).unwrap();
    let results = pool
        .job()
        .chunk_size(1)
        .map_all(
            |x: u32| -> u32 {
                assert!(x != 3, "not {x}");
                x
            },
            0..8,
        )
        .unwrap();
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(found) => assert_eq!(found, x),
            Err(Error::Panicked(report)) => assert_eq!((x, &report.message[..]), (3, "not 3")),
            Err(error) => panic!("{x}: {error}"),
        }
    }
    assert!(matches!(pool.map(|x: u32| -> u32 { panic!("{x}") }, 0..8), Err(Error::Panicked(_))));
    assert_eq!(pool.map(|x: u32| x + 1, 0..8).unwrap().len(), 8);
}

#[test]
fn a_death_loses_the_call_that_died_and_no_other() {
    let pool = Pool::new(2).unwrap();
    let results = pool
        .job()
        .chunk_size(1)
        .map_all(
            |x: u32| {
                if x == 3 {
                    std::process::abort()
                }
                x
            },
            0..100,
        )
        .unwrap();
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(found) => assert_eq!(found, x),
            Err(Error::Died { .. }) => assert_eq!(x, 3),
            Err(error) => panic!("{x}: {error}"),
        }
    }
    assert_eq!(pool.map(|x: u32| x + 1, 0..8).unwrap().len(), 8);
}

#[test]
fn what_a_dead_worker_was_at_is_tried_again_if_it_may_be() {
    let marker = std::env::temp_dir().join(format!("crosslane-pool-{}", std::process::id()));
    let pool = Pool::builder().workers(2).retries(1).build().unwrap();
    let tried = pool.with(marker.clone()).map(
        |marker, x: u32| {
            if x == 3 && std::fs::File::create_new(marker).is_ok() {
                std::process::abort()
            }
            x
        },
        0..100,
    );
    std::fs::remove_file(marker).unwrap();
    assert_eq!(tried.unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn large_arguments_and_results_pass_through_a_small_ring() {
    let pool = Pool::new(2).unwrap();
    let blobs: Vec<Vec<u8>> = (0..8_u8).map(|n| vec![n; 1 << 20]).collect();
    assert!(pool.map(|blob: Vec<u8>| blob, blobs.clone()).unwrap() == blobs);
}

#[test]
fn imap_reads_no_more_than_its_window() {
    let pool = Pool::new(2).unwrap();
    let read = std::cell::Cell::new(0);
    let items = (0..100_000_u32).inspect(|_| read.set(read.get() + 1));
    let mut results = pool.imap(|x: u32| x, items);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    assert!(read.get() <= 4 + 2, "{}", read.get());
    drop(results);
    let mut all: Vec<u32> = pool.imap_unordered(|x: u32| x, 0..100).map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[test]
fn an_initializer_that_fails_ends_the_pool_with_its_reason() {
    let pool = Pool::builder().workers(1).initializer(|(): ()| -> u32 { panic!("no model") }, ()).build().unwrap();
    let Err(Error::NoWorkers(cause)) = pool.map_state(|_, x: u32| x, 0..3) else { panic!() };
    assert!(matches!(&*cause, Error::Panicked(report) if report.message == "no model"), "{cause}");
    // Not all was done.
    assert!(matches!(pool.join(), Err(Error::NoWorkers(_))));
    assert!(matches!(pool.join_timeout(WATCHDOG), Err(Error::NoWorkers(_))));
    assert!(matches!(pool.shutdown(true, false), Err(Error::NoWorkers(_))));
    pool.shutdown(false, true).unwrap();
    pool.terminate();
    assert!(matches!(pool.join(), Err(Error::NoWorkers(_))), "it is the same reason as before");
}

#[test]
fn a_call_is_taken_back_or_killed() {
    let pool = Pool::new(1).unwrap();
    let mut long = pool.submit(|()| std::thread::sleep(Duration::from_secs(1000)), ()).unwrap();
    let short = pool.submit(fib, 3).unwrap();
    while !long.is_running() {
        assert!(long.result_timeout(Duration::from_millis(1)).unwrap().is_none());
    }
    assert!(!short.is_running() && !long.cancel() && short.cancel());
    assert!(matches!(short.result(), Err(Error::Cancelled)));
    let other = pool.submit(fib, 10).unwrap();
    assert!(long.kill().unwrap());
    assert!(matches!(long.result(), Err(Error::Cancelled)));
    assert_eq!(other.result().unwrap(), 55);
}

#[test]
fn a_piece_that_takes_too_long_fails_and_no_other() {
    patiently(|timeout| {
        let pool = Pool::new(2).unwrap();
        let job = pool.job().chunk_size(1).timeout(timeout);
        let results = job
            .map_all(
                |x: u32| {
                    if x == 1 {
                        std::thread::sleep(Duration::from_secs(1000))
                    }
                    x
                },
                0..4,
            )
            .unwrap();
        assert!(matches!(results[1], Err(Error::TimedOut)), "{results:?}");
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    });
}

#[test]
fn who_has_nothing_to_do_takes_the_earliest_call_that_another_has_not_begun() {
    let pool = Pool::new(2).unwrap();
    let go_on = [(); 2].map(|()| Event::new().unwrap());
    let busy = go_on.each_ref().map(|go_on| pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap());
    while !busy.iter().all(Task::is_running) {
        std::thread::yield_now();
    }
    let begun = Queue::bounded(8).unwrap();
    let begin = |(begun, n): (Queue<u32>, u32)| begun.put(n).unwrap();
    let tasks: Vec<_> = (0..8).map(|n| pool.submit(begin, (begun.clone(), n)).unwrap()).collect();
    // Each worker was given about every other one. This one runs its own, and then those of the other one.
    go_on[0].set();
    let order: [u32; 8] = std::array::from_fn(|_| begun.get_timeout(WATCHDOG).unwrap());
    assert!(order.windows(2).filter(|pair| pair[0] > pair[1]).count() <= 1, "{order:?}");
    go_on[1].set();
    tasks.into_iter().chain(busy).for_each(|task| task.result().unwrap());
}

#[test]
fn join_waits_for_what_was_submitted() {
    let pool = Pool::new(2).unwrap();
    let task = pool.submit(fib, 25).unwrap();
    pool.join().unwrap();
    assert_eq!(task.result().unwrap(), 75025);
}

#[test]
fn tasks_come_in_the_order_in_which_they_end() {
    let pool = Pool::new(3).unwrap();
    let ends = [(); 3].map(|()| Event::new().unwrap());
    let tasks = [0, 1, 2].map(|n| (n, pool.submit(|end: Event| end.wait(), ends[n].clone()).unwrap()));
    let mut results = as_completed(tasks);
    for n in [2, 0, 1] {
        ends[n].set();
        let (key, result) = results.next_timeout(WATCHDOG).unwrap();
        assert!(key == n && result.is_ok(), "{key}, not {n}");
    }
    assert!(results.next().is_none());
}

#[test]
fn tasks_of_two_pools_come_too() {
    let pools = [Pool::new(1).unwrap(), Pool::new(1).unwrap()];
    let tasks: Vec<_> = (0..10).map(|n: u32| (n, pools[n as usize % 2].submit(fib, n).unwrap())).collect();
    let mut found: Vec<_> = as_completed(tasks).map(|(n, result)| (n, result.unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, (0..10).map(|n| (n, fib(n))).collect::<Vec<_>>());
}

#[test]
fn a_wait_ends_with_the_first_the_first_error_or_all() {
    let pool = Pool::new(1).unwrap();
    let submit = |fails: bool| pool.submit(|fails: bool| assert!(!fails), fails).unwrap();
    let (done, left) = wait_tasks(vec![submit(false), submit(false)], WaitFor::FirstCompleted, None);
    assert!(!done.is_empty() && done.len() + left.len() == 2);
    let (done, _) = wait_tasks(vec![submit(false), submit(true), submit(false)], WaitFor::FirstError, None);
    assert!(done.len() >= 2, "one worker runs them in order");
    let (done, left) = wait_tasks(vec![submit(true), submit(false), submit(false)], WaitFor::All, None);
    assert_eq!((done.len(), left.len()), (3, 0));
    let long = pool.submit(|()| std::thread::sleep(Duration::from_secs(1000)), ()).unwrap();
    let (done, left) = wait_tasks(vec![long], WaitFor::All, Some(Duration::from_millis(20)));
    assert_eq!((done.len(), left.len()), (0, 1));
}

#[test]
fn a_task_is_a_future_and_calls_back() {
    let pool = Pool::new(1).unwrap();
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut task = std::pin::pin!(pool.submit(fib, 20).unwrap());
    let result = loop {
        match task.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(result) => break result,
            std::task::Poll::Pending => std::thread::park(),
        }
    };
    assert_eq!(result.unwrap(), 6765);
    let (tx, rx) = std::sync::mpsc::channel();
    pool.submit(fib, 10).unwrap().on_done(move |result| tx.send(result.unwrap()).unwrap());
    assert_eq!(rx.recv().unwrap(), 55);
}

#[test]
fn a_broadcast_runs_once_in_each_worker() {
    let pool = Pool::new(3).unwrap();
    let mut found = pool.broadcast(|(): ()| std::process::id(), &()).unwrap();
    let mut pids = pool.worker_pids();
    found.sort_unstable();
    pids.sort_unstable();
    assert_eq!(found, pids);
}

#[test]
fn a_worker_is_replaced_after_so_many_items() {
    let pool = Pool::builder().workers(2).max_tasks_per_worker(5).build().unwrap();
    let mut pids = pool.job().chunk_size(1).map(|_: u32| std::process::id(), 0..50).unwrap();
    pids.sort_unstable();
    pids.dedup_by_key(|pid| *pid);
    assert!((10..=12).contains(&pids.len()), "{pids:?}");
}

#[test]
fn an_idle_worker_leaves_and_comes_back_for_work() {
    let pool = Pool::builder().workers(2).idle_timeout(Duration::from_millis(20)).build().unwrap();
    let first = pool.apply(|(): ()| std::process::id(), ()).unwrap();
    while !pool.worker_pids().is_empty() {
        std::thread::yield_now();
    }
    assert_ne!(pool.apply(|(): ()| std::process::id(), ()).unwrap(), first);
}

#[test]
fn progress_is_told_until_all_is_done() {
    let pool = Pool::new(2).unwrap();
    let mut told = Vec::new();
    pool.job().chunk_size(10).progress(|done| told.push(done)).map(fib, 0..20).unwrap();
    assert_eq!(told, [10, 20]);
}

#[test]
fn a_pool_may_say_how_long_the_pieces_of_its_maps_are() {
    let pool = Pool::builder().workers(2).chunk_size(10).build().unwrap();
    let (mut told, mut told_otherwise) = (Vec::new(), Vec::new());
    pool.job().progress(|done| told.push(done)).map(fib, 0..20).unwrap();
    pool.job().chunk_size(20).progress(|done| told_otherwise.push(done)).map(fib, 0..20).unwrap();
    assert_eq!((told, told_otherwise), (vec![10, 20], vec![20]));
}

#[test]
fn shutdown_may_cancel_what_has_not_begun() {
    let pool = Pool::new(1).unwrap();
    let go_on = Event::new().unwrap();
    let mut tasks: Vec<_> = (0..50).map(|_| pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap()).collect();
    let first = tasks.remove(0);
    while !first.is_running() {
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The first one lasts until the others are known to be cancelled.
            while !tasks.iter().all(Task::is_done) {
                std::thread::yield_now();
            }
            go_on.set();
        });
        pool.shutdown(true, true).unwrap();
    });
    assert!(matches!(pool.submit(fib, 1), Err(Error::PoolClosed)));
    first.result().unwrap();
    tasks.into_iter().for_each(|task| assert!(matches!(task.result(), Err(Error::Cancelled))));
}

#[test]
fn a_task_may_have_a_pool_of_its_own() {
    let pool = Pool::new(2).unwrap();
    let sums = pool
        .map(|n: u64| Pool::new(2).unwrap().map(|x: u64| x * x, 0..n).unwrap().iter().sum::<u64>(), [3, 4])
        .unwrap();
    assert_eq!(sums, [5, 14]);
}

#[test]
fn a_callback_comes_though_only_another_thread_has_waited() {
    let pool = Pool::new(2).unwrap();
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Submitted while the map is waited for, and done after it.
        let (begun, go_on) = (crosslane::Event::new().unwrap(), crosslane::Event::new().unwrap());
        let wait = |(begun, go_on): &(crosslane::Event, crosslane::Event), _: u32| {
            begun.set();
            go_on.wait();
        };
        let events = (begun.clone(), go_on.clone());
        let pool = &pool;
        let map = scope.spawn(move || pool.with(events).map(wait, [0]).unwrap());
        begun.wait();
        let late = pool.submit(|(): ()| std::thread::sleep(Duration::from_millis(200)), ()).unwrap();
        late.on_done(move |result| tx.send(result.is_ok()).unwrap());
        go_on.set();
        map.join().unwrap();
        assert!(rx.recv_timeout(Duration::from_secs(60)).unwrap());
    });
}

#[test]
fn the_items_of_a_map_may_be_the_results_of_tasks() {
    let pool = Pool::new(2).unwrap();
    let (tx, rx) = std::sync::mpsc::channel();
    for n in 0..20 {
        let tx = tx.clone();
        pool.submit(fib, n).unwrap().on_done(move |result| tx.send(result.unwrap()).unwrap());
    }
    drop(tx);
    let mut found = pool.map(|n: u64| n + 1, rx).unwrap();
    found.sort_unstable();
    let mut expected: Vec<_> = (0..20).map(|n| fib(n) + 1).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_timeout_holds_behind_a_piece_that_has_none() {
    let pool = Pool::new(1).unwrap();
    let first = pool.submit(|(): ()| std::thread::sleep(Duration::from_millis(100)), ()).unwrap();
    let job = pool.job().chunk_size(1).timeout(Duration::from_millis(50));
    let results = job.map_all(|_: u32| std::thread::sleep(Duration::from_secs(1000)), 0..2).unwrap();
    assert!(results.iter().all(|result| matches!(result, Err(Error::TimedOut))), "{results:?}");
    first.result().unwrap();
}

#[test]
fn workers_that_left_come_back_in_number() {
    let pool = Pool::builder().workers(2).idle_timeout(Duration::from_millis(20)).build().unwrap();
    while !pool.worker_pids().is_empty() {
        std::thread::yield_now();
    }
    // Each needs the other.
    let barrier = crosslane::Barrier::new(2).unwrap();
    let meet = |barrier: &crosslane::Barrier, _: u32| barrier.wait().is_ok();
    assert_eq!(pool.with(barrier).chunk_size(1).map(meet, 0..2).unwrap(), [true, true]);
}

#[test]
fn a_pool_is_joined_whatever_happens_to_its_workers_meanwhile() {
    for _ in 0..20 {
        let pool = Pool::new(2).unwrap();
        let long = pool.submit(|(): ()| std::thread::sleep(Duration::from_secs(1000)), ()).unwrap();
        while !long.is_running() {
            std::thread::yield_now();
        }
        assert!(long.kill().unwrap());
        assert!(pool.join_timeout(Duration::from_secs(60)).unwrap());
        assert!(pool.worker_pids().is_empty());
    }
}

#[test]
fn a_callback_may_block_panic_and_use_its_pool() {
    let pool = Arc::new(Pool::new(1).unwrap());
    let (tx, rx) = mpsc::channel();
    let (go_on, blocked) = mpsc::channel::<()>();
    pool.submit(fib, 1).unwrap().on_done(move |_| blocked.recv().unwrap());
    // Nothing of the pool's stands still meanwhile, not even the replacing of a worker.
    let long = pool.submit(|()| std::thread::sleep(Duration::from_secs(1000)), ()).unwrap();
    while !long.is_running() {}
    assert!(long.kill().unwrap());
    assert_eq!(pool.apply(fib, 10).unwrap(), 55);
    go_on.send(()).unwrap();
    pool.submit(fib, 2).unwrap().on_done(|_| panic!("a callback's own affair"));
    let done = pool.submit(fib, 3).unwrap();
    while !done.is_done() {}
    let (crew, told) = (Arc::clone(&pool), tx.clone());
    done.on_done(move |result| {
        let name = std::thread::current().name().map(str::to_owned);
        let other = crew.apply(fib, 11).unwrap() + crew.map(fib, 0..3).unwrap().iter().sum::<u64>();
        crew.submit(fib, 4).unwrap().on_done(move |result| told.send((name, result.unwrap() + other)).unwrap());
        assert_eq!(result.unwrap(), 2);
    });
    let (name, sum) = rx.recv_timeout(WATCHDOG).unwrap();
    assert_eq!((name.as_deref(), sum), (Some("crosslane-callbacks"), 3 + 89 + 2));
    // It has the last handle then, and drops the pool.
    let task = pool.submit(fib, 5).unwrap();
    let last = pool.submit(|()| std::thread::sleep(Duration::from_secs(1000)), ()).unwrap();
    let (end, ended) = mpsc::channel::<()>();
    task.on_done(move |result| {
        ended.recv().unwrap_err();
        assert!(pool.join_timeout(Duration::from_millis(1)).is_ok_and(|is_done| !is_done));
        drop(pool);
        tx.send((None, result.unwrap())).unwrap();
    });
    drop(end);
    assert_eq!(rx.recv_timeout(WATCHDOG).unwrap(), (None, 5));
    assert!(matches!(last.result(), Err(Error::Cancelled)));
}

#[test]
fn a_waker_may_block_and_panic() {
    struct Block(Mutex<mpsc::Receiver<()>>);
    impl std::task::Wake for Block {
        fn wake(self: Arc<Self>) {
            let _ = self.0.lock().unwrap().recv();
            panic!("a waker's own affair");
        }
    }
    let pool = Pool::new(1).unwrap();
    let (go_on, blocked) = mpsc::channel();
    let waker = Arc::new(Block(Mutex::new(blocked))).into();
    let mut task = std::pin::pin!(pool.submit(fib, 20).unwrap());
    let mut context = std::task::Context::from_waker(&waker);
    if task.as_mut().poll(&mut context).is_pending() {
        assert_eq!(pool.apply(fib, 10).unwrap(), 55);
        let long = pool.submit(|()| std::thread::sleep(Duration::from_secs(1000)), ()).unwrap();
        while !long.is_running() {}
        assert!(long.kill().unwrap());
        assert_eq!(pool.apply(fib, 10).unwrap(), 55);
        assert!(task.as_mut().poll(&mut context).is_ready());
    }
    drop(go_on);
    let (tx, rx) = mpsc::channel();
    pool.submit(fib, 10).unwrap().on_done(move |result| tx.send(result.unwrap()).unwrap());
    assert_eq!(rx.recv_timeout(WATCHDOG).unwrap(), 55);
}

#[test]
fn progress_may_use_its_pool_and_panic() {
    let pool = Pool::new(2).unwrap();
    let mut sums = Vec::new();
    let squares =
        pool.job().chunk_size(5).progress(|_| sums.push(pool.apply(fib, 10).unwrap())).map(|n: u64| n * n, 0..10);
    assert_eq!(squares.unwrap().len(), 10);
    assert_eq!(sums, [55, 55]);
    let job = pool.job().chunk_size(1).progress(|done| assert!(done < 3, "seen enough"));
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| job.map(fib, 0..10))).is_err());
    assert_eq!(pool.map(fib, 0..3).unwrap(), [0, 1, 1]);
}

//! What Python's `Pool` and concurrent.futures do that is not in `pool.rs`: behaviour by behaviour, with what is different
//! here on purpose.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use crosslane::{Error, Event, Executor, Pool, Queue, Value, WaitFor, as_completed, cpu_count, spawn, wait_tasks};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::patience::patiently;
use crate::support::{LIMIT, forever, is_running, until};
use crate::{one_more, result_of};

/// When it is known that what should come at once does not.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// A pool of one, whose worker waits until the event is set; the tasks behind it have not begun until then.
fn busy() -> (Pool, Event, crosslane::Task<()>) {
    let (pool, go_on) = (Pool::new(1).unwrap(), Event::new().unwrap());
    let first = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
    until("it runs", || first.is_running());
    (pool, go_on, first)
}

// --- How many workers, and which.

#[test]
fn a_pool_has_a_worker_for_each_cpu_unless_told_otherwise() {
    let executor = Executor::default().unwrap();
    for pool in [Pool::builder().build().unwrap(), Pool::default().unwrap(), executor] {
        assert_eq!((pool.size(), pool.worker_pids().len()), (cpu_count(), cpu_count()));
    }
}

#[test]
fn a_pool_that_none_can_be_is_refused() {
    for workers in [0, 1001, usize::MAX] {
        match Pool::new(workers) {
            Err(Error::BadPool { what: "workers", found, least: 1, most: 1000 }) => assert_eq!(found, workers as u64),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(Pool::builder().max_tasks_per_worker(0).build(), Err(Error::BadPool { found: 0, .. })));
}

#[test]
fn a_pool_that_cannot_start_all_workers_starts_none() {
    let few_descriptors = |()| {
        // What the first child of a process makes stays.
        spawn(|()| (), ()).unwrap().join().unwrap();
        let limit = Rlimit { current: Some(24), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        let refused = Pool::new(50).is_err();
        let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap().split_whitespace().count();
        until("no child is left", || children() == 0);
        (refused, Pool::new(1).unwrap().apply(one_more, 1).unwrap())
    };
    assert_eq!(spawn(few_descriptors, ()).unwrap().join().unwrap(), (true, 2));
}

#[test]
fn workers_end_with_a_parent_that_is_killed() {
    let pids = Queue::<u32>::bounded(2).unwrap();
    let program = |pids: Queue<u32>| {
        let pool = Pool::new(2).unwrap();
        let tasks = [(); 2].map(|()| pool.submit(forever, ()).unwrap());
        until("both run", || tasks.iter().all(crosslane::Task::is_running));
        pool.worker_pids().into_iter().for_each(|pid| pids.put(pid).unwrap());
        forever(());
    };
    let parent = spawn(program, pids.clone()).unwrap();
    let pids = [(); 2].map(|()| pids.get_timeout(LIMIT).unwrap());
    parent.kill().unwrap();
    until("no worker is left", || pids.iter().all(|&pid| !is_running(pid)));
}

#[test]
fn workers_have_names_and_an_initializer_runs_once_in_each() {
    let made = Value::new(0_u32).unwrap();
    let pool = Pool::builder()
        .workers(2)
        .name("reader")
        .initializer(|made: Value<u32>| made.fetch_add(1), made.clone())
        .build()
        .unwrap();
    let mut names = pool.broadcast(|()| crosslane::current_process().name().to_owned(), &()).unwrap();
    names.sort();
    assert_eq!(names, ["reader-0", "reader-1"]);
    pool.map_state(|_, _: u32| (), 0..100).unwrap();
    assert_eq!(made.get(), 2);
}

// --- apply, apply_async and their callbacks.

#[test]
fn a_callback_that_panics_stops_nothing() {
    let pool = Pool::new(1).unwrap();
    let (tx, rx) = mpsc::channel();
    pool.submit(one_more, 1).unwrap().on_done(|_| panic!("in the callback: this is meant to happen"));
    pool.submit(one_more, 2).unwrap().on_done(move |result| tx.send(result.unwrap()).unwrap());
    assert_eq!(rx.recv_timeout(LIMIT).unwrap(), 3);
    assert_eq!(pool.apply(one_more, 3).unwrap(), 4);
}

#[test]
fn a_callback_gets_errors_too_and_comes_also_if_the_task_has_ended() {
    let pool = Pool::new(1).unwrap();
    let (tx, rx) = mpsc::channel();
    let errors = tx.clone();
    pool.submit(|()| -> () { panic!("at work") }, ())
        .unwrap()
        .on_done(move |result| errors.send(result.is_err()).unwrap());
    assert!(rx.recv_timeout(LIMIT).unwrap());
    let task = pool.submit(one_more, 1).unwrap();
    until("it has ended", || task.is_done());
    task.on_done(move |result| tx.send(result.is_err()).unwrap());
    assert!(!rx.recv_timeout(LIMIT).unwrap());
}

#[test]
fn a_pool_that_is_joined_has_run_the_callbacks() {
    let pool = Pool::new(2).unwrap();
    let sum = Arc::new(AtomicU64::new(0));
    for n in 1..=50 {
        let sum = Arc::clone(&sum);
        pool.submit(one_more, n).unwrap().on_done(move |result| {
            std::thread::yield_now();
            sum.fetch_add(result.unwrap(), Ordering::Relaxed);
        });
    }
    // One returns later, and one panics.
    let (tx, rx) = mpsc::channel::<()>();
    pool.submit(one_more, 1).unwrap().on_done(move |_| assert!(rx.recv().is_err()));
    pool.submit(one_more, 2).unwrap().on_done(|_| panic!("in the callback: this is meant to happen"));
    assert!(!pool.join_timeout(Duration::from_millis(100)).unwrap(), "a callback has not returned");
    drop(tx);
    pool.join().unwrap();
    assert_eq!(sum.load(Ordering::Relaxed), (2..=51).sum());
}

#[test]
fn a_result_that_was_taken_is_not_waited_for() {
    let pool = Pool::new(1).unwrap();
    let mut task = pool.submit(one_more, 1).unwrap();
    assert_eq!(task.result_timeout(LIMIT).unwrap(), Some(2));
    assert!(matches!(task.result_timeout(LIMIT), Err(Error::Cancelled)));
}

#[test]
fn a_task_whose_handle_is_dropped_runs_all_the_same() {
    let pool = Pool::new(1).unwrap();
    let ran = Event::new().unwrap();
    drop(pool.submit(|ran: Event| ran.set(), ran.clone()).unwrap());
    assert!(ran.wait_timeout(LIMIT));
}

// --- map, starmap, imap.

/// Refuses to be written if it is odd.
#[derive(Deserialize)]
struct Even(u64);

impl Serialize for Even {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(serde::ser::Error::custom("odd"));
        }
        self.0.serialize(serializer)
    }
}

#[test]
fn an_argument_that_cannot_be_written_fails_its_job_and_no_other() {
    let pool = Pool::new(2).unwrap();
    assert!(matches!(pool.submit(|n: Even| n.0, Even(1)), Err(Error::Encode { .. })));
    assert!(matches!(pool.map(|n: Even| n.0, [0, 2, 3, 4].map(Even)), Err(Error::Encode { .. })));
    assert_eq!(pool.map(|n: Even| n.0, [0, 2].map(Even)).unwrap(), [0, 2]);
}

#[test]
fn an_item_that_cannot_be_written_is_an_error_in_its_place() {
    let pool = Pool::new(2).unwrap();
    let mut results = pool.imap(|n: Even| n.0, [0, 2, 4, 5, 6].map(Even));
    for n in [0, 2, 4] {
        assert_eq!(results.next().unwrap().unwrap(), n);
    }
    assert!(matches!(results.next(), Some(Err(Error::Encode { .. }))));
    assert_eq!(results.next().unwrap().unwrap(), 6);
    assert!(results.next().is_none());
    let results: Vec<_> = pool.imap_unordered(|n: Even| n.0, [0, 1].map(Even)).collect();
    let is_known = |result: &Result<u64, Error>| matches!(result, Ok(0) | Err(Error::Encode { .. }));
    assert!(results.len() == 2 && results.iter().all(is_known) && results.iter().any(Result::is_ok));
}

#[test]
fn items_whose_making_panics_leave_the_pool_as_it_was() {
    let pool = Pool::new(2).unwrap();
    let items = || (0..100_u64).inspect(|n| assert!(*n < 50, "in the items: this is meant to happen"));
    let map = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.map(one_more, items())));
    assert!(map.is_err());
    assert_eq!(pool.map(one_more, 0..3).unwrap(), [1, 2, 3]);
}

#[test]
fn a_map_fails_with_the_first_error_and_does_not_begin_the_rest() {
    let pool = Pool::new(1).unwrap();
    let ran = Value::new(0_u32).unwrap();
    let work = |ran: &Value<u32>, n: u32| {
        ran.fetch_add(1);
        assert!(n != 3, "three");
    };
    let failed = pool.with(ran.clone()).chunk_size(1).map(work, 0..10_000);
    assert!(matches!(failed, Err(Error::Panicked(report)) if report.message == "three"));
    assert!(ran.get() < 1000, "{} have run", ran.get());
}

#[test]
fn a_job_may_have_all_outcomes_instead() {
    let pool = Pool::new(2).unwrap();
    for chunk in [1, 3, 100] {
        let work = |n: u32| assert!(![0, 3, 6, 9].contains(&n));
        let results = pool.job().chunk_size(chunk).map_all(work, 0..10).unwrap();
        assert_eq!(results.len(), 10);
        assert!((0..).zip(results).all(|(n, result)| result.is_err() == [0, 3, 6, 9].contains(&n)));
    }
}

#[test]
fn a_context_goes_with_every_kind_of_map() {
    let pool = Pool::new(2).unwrap();
    let divide = |dividend: &u32, n: u32| dividend / n;
    let results = pool.with(12_u32).chunk_size(1).map_all(divide, 0..4).unwrap();
    assert!(matches!(&results[0], Err(Error::Panicked(report)) if report.message.contains("divide by zero")));
    assert_eq!(results.into_iter().skip(1).map(Result::unwrap).collect::<Vec<_>>(), [12, 6, 4]);
    let results = pool.with(12_u32).imap(divide, 1..4);
    assert_eq!(results.map(Result::unwrap).collect::<Vec<_>>(), [12, 6, 4]);
    let results = pool.with(12_u32).imap_unordered(divide, 1..4);
    assert_eq!(results.map(Result::unwrap).sum::<u32>(), 22);
    // What cannot be given to several workers is an error, and the only one.
    let handle = crosslane::OwnedArray::<u8>::zeroed(1).unwrap();
    let mut results = pool.with(handle).imap_unordered(|_, n: u32| n, 0..4);
    assert!(matches!(results.next(), Some(Err(Error::HandleForSeveral { .. }))) && results.next().is_none());
}

#[test]
fn a_context_goes_with_calls_and_pairs_too() {
    let pool = Pool::new(2).unwrap();
    let name = || "n".to_owned();
    assert_eq!(pool.with(name()).apply(|name, n: u32| format!("{name}{n}"), 1).unwrap(), "n1");
    let task = pool.with(name()).submit(|name, n: u32| format!("{name}{n}"), 2).unwrap();
    assert_eq!(result_of(task).unwrap(), "n2");
    let pair = |name: &String, a: u32, b: char| format!("{name}{a}{b}");
    assert_eq!(pool.with(name()).starmap(pair, [(1, 'a'), (2, 'b')]).unwrap(), ["n1a", "n2b"]);
    let divide = |dividend: &u32, a: u32, b: u32| dividend / (a - b);
    let results = pool.with(12).chunk_size(2).starmap_all(divide, [(3, 1), (1, 1), (2, 1)]).unwrap();
    assert!(matches!(results[..], [Ok(6), Err(Error::Panicked(_)), Ok(12)]), "{results:?}");
}

#[test]
fn the_state_goes_with_every_kind_of_call_and_map() {
    let pool = Pool::builder().workers(1).initializer(|start: u64| Box::new(start), 10).build().unwrap();
    let add = |sum: &mut Box<u64>, n: u64| {
        **sum += n;
        **sum
    };
    assert_eq!(pool.with_state().apply(add, 1).unwrap(), 11);
    assert_eq!(result_of(pool.with_state().submit(add, 1).unwrap()).unwrap(), 12);
    assert_eq!(result_of(pool.submit_state(add, 1).unwrap()).unwrap(), 13);
    assert_eq!(pool.map_state(add, [1, 1]).unwrap(), [14, 15]);
    assert_eq!(pool.job().chunk_size(1).map_state(add, [1, 1]).unwrap(), [16, 17]);
    assert_eq!(pool.with_state().map(add, [1, 1]).unwrap(), [18, 19]);
    assert_eq!(
        pool.with_state().imap(|sum, n: u64| **sum + n, [1, 2]).map(Result::unwrap).collect::<Vec<_>>(),
        [20, 21]
    );
    assert_eq!(pool.with_state().imap_unordered(add, [1, 1]).map(Result::unwrap).sum::<u64>(), 20 + 21);
    let check = |sum: &mut Box<u64>, n: u64| assert_eq!(**sum, n);
    let results = pool.with_state().chunk_size(3).map_all(check, [21, 0, 21]).unwrap();
    assert!(matches!(results[..], [Ok(()), Err(Error::Panicked(_)), Ok(())]), "{results:?}");
    let scale = |sum: &mut Box<u64>, a: u64, b: u64| {
        **sum = a * b;
        **sum
    };
    assert_eq!(pool.with_state().starmap(scale, [(2, 3), (3, 4)]).unwrap(), [6, 12]);
    let divide = |sum: &mut Box<u64>, a: u64, b: u64| **sum / (a - b);
    let results = pool.with_state().chunk_size(2).starmap_all(divide, [(3, 1), (1, 1)]).unwrap();
    assert!(matches!(results[..], [Ok(6), Err(Error::Panicked(_))]), "{results:?}");
}

/// Arrives as what it is not.
#[derive(Deserialize)]
struct Garbled {
    _is_it: bool,
}

impl Serialize for Garbled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        7_u8.serialize(serializer)
    }
}

#[test]
fn what_cannot_be_decoded_is_named_context_or_item() {
    let pool = Pool::new(2).unwrap();
    let garbled = || Garbled { _is_it: true };
    let is_of =
        |error: &Error, name: &str| matches!(error, Error::Decode { type_name, .. } if type_name.ends_with(name));
    let check = |results: Vec<Result<u32, Error>>, count: usize, name: &str| {
        assert!(results.len() == count, "{results:?}");
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|error| is_of(error, name))), "{results:?}");
    };
    let of_context = |_: &Garbled, n: u32| n;
    check(pool.with(garbled()).chunk_size(3).map_all(of_context, 0..6).unwrap(), 6, "Garbled");
    check(pool.with(garbled()).imap(of_context, 0..3).collect(), 3, "Garbled");
    check(vec![pool.with(garbled()).map(of_context, 0..3).map(|_| 0)], 1, "Garbled");
    check(vec![pool.with(garbled()).apply(of_context, 1)], 1, "Garbled");
    check(vec![result_of(pool.with(garbled()).submit(of_context, 1).unwrap())], 1, "Garbled");
    let of_pairs = |_: &Garbled, a: u32, b: u32| a + b;
    check(pool.with(garbled()).starmap_all(of_pairs, [(1, 2)]).unwrap(), 1, "Garbled");
    check(vec![pool.with(3_u64).apply(|_, _: Garbled| 0, garbled())], 1, "Garbled");
    check(vec![pool.apply(|_: Garbled| 0, garbled())], 1, "Garbled");
}

/// Notes where it is dropped.
#[derive(Serialize, Deserialize)]
struct Noted(Queue<u32>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.put(std::process::id()).unwrap();
    }
}

#[test]
fn a_worker_keeps_the_context_of_a_call_no_longer_than_the_call() {
    let pool = Pool::new(1).unwrap();
    let dropped = Queue::bounded(8).unwrap();
    let call = || pool.with(Noted(dropped.clone())).submit(|_, n: u64| n + 1, 1).unwrap();
    let task = call();
    assert_eq!(dropped.get_timeout(LIMIT).unwrap(), std::process::id(), "it is sent");
    assert_eq!(result_of(task).unwrap(), 2);
    assert_eq!(vec![dropped.get_timeout(LIMIT).unwrap()], pool.worker_pids());
    // Whether or not somebody wants the result.
    drop(call());
    assert_eq!(dropped.get_timeout(LIMIT).unwrap(), std::process::id());
    assert_eq!(vec![dropped.get_timeout(LIMIT).unwrap()], pool.worker_pids());
}

/// Counts how often it arrived, and how often that was dropped.
struct Counted {
    arrived: Value<u64>,
    dropped: Value<u64>,
    has_travelled: bool,
}

impl Counted {
    fn new() -> Self {
        Self { arrived: Value::new(0).unwrap(), dropped: Value::new(0).unwrap(), has_travelled: false }
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.arrived, &self.dropped).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (arrived, dropped) = <(Value<u64>, Value<u64>)>::deserialize(deserializer)?;
        arrived.fetch_add(1);
        Ok(Self { arrived, dropped, has_travelled: true })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.has_travelled {
            self.dropped.fetch_add(1);
        }
    }
}

#[test]
fn a_context_is_sent_to_each_worker_once() {
    let pool = Pool::new(2).unwrap();
    let context = Counted::new();
    let (arrived, dropped) = (context.arrived.clone(), context.dropped.clone());
    let (job, next) = (pool.with(context), |_: &Counted, n: u64| n + 1);
    let tasks: Vec<_> = (0..200).map(|n| job.submit(next, n).unwrap()).collect();
    assert!((1..).zip(tasks).all(|(n, task)| result_of(task).unwrap() == n));
    assert_eq!(job.apply(next, 1).unwrap(), 2);
    assert!(arrived.get() <= 2, "{} workers", arrived.get());
    // Each function has its own. What cannot be sent is not waited for.
    let other = |_: &Counted, _: Sendable| ();
    job.apply(other, Sendable::Yes).unwrap();
    assert!(matches!(job.submit(other, Sendable::No), Err(Error::Encode { .. })));
    let panics = std::panic::AssertUnwindSafe(|| job.submit(other, Sendable::Panics));
    assert!(std::panic::catch_unwind(panics).is_err());
    drop(job);
    until("it is forgotten", || dropped.get() == arrived.get());
    let context = Counted::new();
    let arrived = context.arrived.clone();
    assert_eq!(pool.with(context).chunk_size(1).map(|_, n: u64| n, 0..200).unwrap().len(), 200);
    assert!((1..=2).contains(&arrived.get()));
}

#[derive(Clone, Copy, Deserialize)]
enum Sendable {
    Yes,
    No,
    Panics,
}

impl Serialize for Sendable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes => 0_u32.serialize(serializer),
            Self::No => Err(serde::ser::Error::custom("no")),
            Self::Panics => panic!("as it is serialised"),
        }
    }
}

#[test]
fn calls_outlive_their_job_and_then_it_is_forgotten() {
    let (pool, go_on, first) = busy();
    let context = Counted::new();
    let (arrived, dropped) = (context.arrived.clone(), context.dropped.clone());
    let job = pool.with(context);
    // More than are sent at a time.
    let tasks: Vec<_> = (0..100).map(|n| job.submit(|_, n: u64| n + 1, n).unwrap()).collect();
    drop(job);
    go_on.set();
    result_of(first).unwrap();
    assert!((1..).zip(tasks).all(|(n, task)| result_of(task).unwrap() == n));
    until("it is forgotten", || arrived.get() == 1 && dropped.get() == 1);
}

#[test]
fn calls_of_one_job_may_be_made_otherwise_after_the_first() {
    patiently(|timeout| {
        let pool = Pool::new(1).unwrap();
        let nap = |_: &u32, millis: u64| std::thread::sleep(Duration::from_millis(millis));
        let job = pool.with(0_u32);
        job.apply(nap, 0).unwrap();
        let job = job.timeout(timeout);
        assert!(matches!(job.apply(nap, 600_000), Err(Error::TimedOut)));
        job.apply(nap, 0).unwrap();
        let job = pool.with(crosslane::OwnedArray::<u8>::zeroed(1).unwrap());
        for _ in 0..2 {
            assert!(matches!(job.apply(|_, n: u64| n, 0), Err(Error::HandleForSeveral { .. })));
        }
    });
}

#[test]
fn a_chunk_of_no_items_is_one_of_one() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.job().chunk_size(0).map(one_more, 0..3).unwrap(), [1, 2, 3]);
    assert_eq!(pool.job().chunk_size(usize::MAX).map(one_more, 0..3).unwrap(), [1, 2, 3]);
    let results = pool.job().chunk_size(7).imap(one_more, 0..20);
    assert_eq!(results.map(Result::unwrap).collect::<Vec<_>>(), (1..21).collect::<Vec<_>>());
}

#[test]
fn the_next_result_may_be_waited_for_with_a_timeout_and_is_not_lost() {
    let pool = Pool::new(1).unwrap();
    let go_on = Event::new().unwrap();
    let wait_at_1 = |go_on: &Event, n: u64| {
        if n == 1 {
            go_on.wait();
        }
        n
    };
    let mut results = pool.with(go_on.clone()).imap(wait_at_1, 0..2);
    assert!(matches!(results.next_timeout(LIMIT), Poll::Ready(Some(Ok(0)))));
    for _ in 0..3 {
        assert!(results.next_timeout(Duration::from_millis(5)).is_pending());
    }
    go_on.set();
    assert!(matches!(results.next_timeout(LIMIT), Poll::Ready(Some(Ok(1)))));
    assert!(matches!(results.next_timeout(LIMIT), Poll::Ready(None)) && results.next().is_none());

    let mut results = pool.imap_unordered(|go_on: Event| go_on.wait(), [Event::new().unwrap()]);
    assert!(results.next_timeout(Duration::ZERO).is_pending());
}

#[test]
fn results_that_nobody_takes_any_more_are_not_made() {
    let pool = Pool::new(1).unwrap();
    let ran = Value::new(0_u32).unwrap();
    let work = |ran: &Value<u32>, _: u64| ran.fetch_add(1);
    let mut results = pool.with(ran.clone()).imap(work, 0_u64..);
    results.next().unwrap().unwrap();
    drop(results);
    pool.join().unwrap();
    assert!(ran.get() <= 3, "{} have run", ran.get());
}

#[test]
fn a_result_that_is_there_is_given_before_another_item_is_waited_for() {
    let pool = Pool::new(1).unwrap();
    for is_ordered in [true, false] {
        let (tx, rx) = mpsc::channel();
        let is_given = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (begun, tx) = (Instant::now(), tx);
                while !is_given.load(Ordering::Relaxed) && begun.elapsed() < GIVEN_UP {
                    tx.send(1).unwrap();
                    // It has a result when what was submitted behind it has one.
                    pool.apply(one_more, 1).unwrap();
                }
            });
            let job = pool.job().window(usize::MAX);
            let begun = Instant::now();
            let (first, rest) = if is_ordered {
                let mut results = job.imap(one_more, rx);
                (results.next(), Box::new(results) as Box<dyn Iterator<Item = Result<u64, Error>>>)
            } else {
                let mut results = job.imap_unordered(one_more, rx);
                (results.next(), Box::new(results) as _)
            };
            is_given.store(true, Ordering::Relaxed);
            assert_eq!(first.unwrap().unwrap(), 2);
            assert!(begun.elapsed() < GIVEN_UP, "it came with the last item");
            assert!(rest.map(Result::unwrap).all(|n| n == 2_u64));
        });
    }
}

#[test]
fn with_a_window_of_one_an_item_may_be_made_of_the_result_before() {
    let (done, is_done) = mpsc::channel();
    // If it waits for an item that nobody makes, it does so for ever.
    std::thread::spawn(move || {
        let pool = Pool::new(2).unwrap();
        for chunk_size in [1, 7] {
            let (tx, rx) = mpsc::channel();
            tx.send(0).unwrap();
            let mut results = pool.job().chunk_size(chunk_size).window(1).imap(one_more, rx);
            for n in 1..100 {
                assert_eq!(results.next().unwrap().unwrap(), n);
                tx.send(n).unwrap();
            }
            drop(tx);
            assert_eq!(results.next().unwrap().unwrap(), 100);
            assert!(results.next().is_none());
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(LIMIT).unwrap();
}

#[test]
fn workers_are_kept_busy_while_nobody_takes_a_result_of_items_that_are_at_hand() {
    let pool = Pool::new(1).unwrap();
    let ran = Value::new(0_u64).unwrap();
    let work = |ran: &Value<u64>, n: u64| {
        ran.fetch_add(1);
        n
    };
    let mut results = pool.with(ran.clone()).window(4).imap(work, 0..100);
    for n in 0..10 {
        assert_eq!(results.next().unwrap().unwrap(), n);
        until("the window is done", || ran.get() == n + 4);
    }
}

#[test]
fn items_are_read_in_the_thread_that_takes_the_results() {
    let pool = Pool::new(2).unwrap();
    // A `Cell` may not be used by another thread.
    let read = Cell::new(0);
    let total: u64 =
        pool.imap_unordered(one_more, (0..50).inspect(|_| read.set(read.get() + 1))).map(Result::unwrap).sum();
    assert_eq!((total, read.get()), (1275, 50));
}

// --- Results and errors.

#[test]
fn a_timeout_loses_no_result() {
    let (_pool, go_on, mut first) = busy();
    assert!(!first.is_done());
    assert!(first.result_timeout(Duration::ZERO).unwrap().is_none());
    assert!(first.result_timeout(Duration::from_millis(5)).unwrap().is_none());
    go_on.set();
    assert!(first.result_timeout(LIMIT).unwrap().is_some());
}

#[test]
fn a_panic_comes_with_its_message_its_place_and_its_trace() {
    let pool = Pool::new(1).unwrap();
    let line = line!() + 1;
    let Err(Error::Panicked(report)) = pool.apply(|n: u32| assert!(n > 1, "{n} is small"), 1) else { panic!() };
    assert_eq!(report.message, "1 is small");
    assert!(report.location.contains(&format!("pool_behaviours.rs:{line}")), "{}", report.location);
    assert_eq!(vec![report.pid], pool.worker_pids());
    assert!(!report.backtrace.is_empty());
    // What `unwrap` prints is short: the place, and no trace.
    let printed = format!("{report:?}");
    assert!(printed.contains("1 is small") && !printed.contains("backtrace"), "{printed}");
}

#[test]
fn an_error_that_a_function_returns_is_a_value() {
    let pool = Pool::new(1).unwrap();
    let parse = |text: String| text.parse::<u32>().map_err(|error| error.to_string());
    assert_eq!(pool.apply(parse, "7".into()).unwrap(), Ok(7));
    assert!(pool.apply(parse, "seven".into()).unwrap().unwrap_err().contains("invalid digit"));
}

// --- close, terminate, join, shutdown, and the end of a `with`.

#[test]
fn a_closed_pool_refuses_more_and_does_what_it_has() {
    let (pool, go_on, first) = busy();
    let behind = pool.submit(one_more, 1).unwrap();
    pool.close();
    assert!(matches!(pool.submit(one_more, 1), Err(Error::PoolClosed)));
    assert!(matches!(pool.apply(one_more, 1), Err(Error::PoolClosed)));
    assert!(matches!(pool.map(one_more, 0..3), Err(Error::PoolClosed)));
    assert!(matches!(pool.imap(one_more, 0..3).next(), Some(Err(Error::PoolClosed))));
    assert!(!pool.join_timeout(Duration::from_millis(20)).unwrap(), "the first one still runs");
    go_on.set();
    assert!(pool.join_timeout(LIMIT).unwrap());
    assert!(pool.worker_pids().is_empty());
    result_of(first).unwrap();
    assert_eq!(result_of(behind).unwrap(), 2);
}

#[test]
fn terminate_and_drop_end_workers_and_tasks() {
    for is_dropped in [false, true] {
        let (pool, _go_on, first) = busy();
        let behind = pool.submit(one_more, 1).unwrap();
        let worker = pool.worker_pids()[0];
        if is_dropped {
            drop(pool);
        } else {
            pool.terminate();
            pool.terminate();
            assert!(matches!(pool.submit(one_more, 1), Err(Error::PoolClosed)));
            assert!(pool.join_timeout(LIMIT).unwrap());
        }
        assert!(!is_running(worker), "it was killed and reaped");
        assert!(matches!(result_of(first), Err(Error::Cancelled)));
        assert!(matches!(result_of(behind), Err(Error::Cancelled)));
    }
}

#[test]
fn a_shutdown_may_be_repeated_and_need_not_wait() {
    let (executor, go_on, first): (Executor, _, _) = busy();
    let behind = executor.submit(one_more, 1).unwrap();
    executor.shutdown(false, false).unwrap();
    assert!(!first.is_done());
    executor.shutdown(false, true).unwrap();
    assert!(matches!(result_of(behind), Err(Error::Cancelled)));
    go_on.set();
    executor.shutdown(true, false).unwrap();
    executor.shutdown(true, true).unwrap();
    result_of(first).unwrap();
}

// --- Futures: states, cancelling, waiting for several.

#[test]
fn a_task_is_cancelled_while_it_has_not_begun_and_only_then() {
    let (pool, go_on, first) = busy();
    let behind = pool.submit(one_more, 1).unwrap();
    assert!(first.is_running() && !first.is_done() && !behind.is_running() && !behind.is_done());
    assert!(!first.cancel());
    assert!(behind.cancel() && behind.is_done() && !behind.is_running());
    assert!(!behind.cancel(), "it has ended");
    assert!(matches!(result_of(behind), Err(Error::Cancelled)));
    go_on.set();
    until("it has ended", || first.is_done());
    assert!(!first.cancel() && !first.is_running() && !first.kill().unwrap());
    result_of(first).unwrap();
}

#[test]
fn waiting_for_nothing_ends_at_once() {
    let none = || Vec::<crosslane::Task<u64>>::new();
    for what in [WaitFor::FirstCompleted, WaitFor::FirstError, WaitFor::All] {
        let (done, left) = wait_tasks(none(), what, None);
        assert!(done.is_empty() && left.is_empty());
    }
    assert!(as_completed(none().into_iter().map(|task| ((), task))).next().is_none());
}

#[test]
fn what_has_ended_is_known_to_those_that_wait_later() {
    let (pool, go_on, first) = busy();
    let cancelled = pool.submit(|_: u64| (), 1).unwrap();
    assert!(cancelled.cancel());
    let (done, left) = wait_tasks(vec![first, cancelled], WaitFor::FirstError, None);
    assert_eq!((done.len(), left.len()), (1, 1), "a cancelled one counts as failed");
    let all = done.into_iter().chain(left).collect();
    let (done, left) = wait_tasks(all, WaitFor::All, Some(Duration::from_millis(5)));
    assert_eq!((done.len(), left.len()), (1, 1), "the time is up");
    go_on.set();
    let mut all = as_completed(done.into_iter().chain(left).enumerate());
    let (key, result) = all.next_timeout(LIMIT).unwrap();
    assert!(key == 0 && matches!(result, Err(Error::Cancelled)));
    let (key, result) = all.next_timeout(LIMIT).unwrap();
    assert!(key == 1 && result.is_ok());
    assert!(all.next_timeout(LIMIT).is_none() && all.next().is_none());
}

#[test]
fn as_completed_may_be_given_up_waiting_and_loses_nothing() {
    let (_pool, go_on, first) = busy();
    let mut results = as_completed([("first", first)]);
    let begun = Instant::now();
    assert!(results.next_timeout(Duration::from_millis(10)).is_none());
    assert!(begun.elapsed() >= Duration::from_millis(10));
    assert_eq!(results.size_hint(), (1, Some(1)));
    go_on.set();
    assert!(matches!(results.next(), Some(("first", Ok(())))));
    assert!(results.next().is_none());
}

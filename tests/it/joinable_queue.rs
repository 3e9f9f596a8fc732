//! `JoinableQueue`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Error, JoinableQueue, spawn};

use crate::{LIMIT, Watchdog};

#[test]
fn a_join_waits_until_every_task_is_done() {
    let _watchdog = Watchdog::new();
    let queue = JoinableQueue::<u32>::bounded(8).unwrap();
    queue.join().unwrap();
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for task in &queue {
                    // A task may bring another one before it is done.
                    if let task @ 1.. = task.unwrap() {
                        queue.put(task - 1).unwrap();
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    queue.task_done().unwrap();
                }
            });
        }
        for round in 1..=100 {
            queue.put(3).unwrap();
            queue.join().unwrap();
            assert_eq!(done.load(Ordering::Relaxed), 4 * round);
        }
        queue.close();
    });
}

#[test]
fn a_task_that_was_got_is_not_done_yet() {
    let queue = JoinableQueue::bounded(2).unwrap();
    queue.put("a task".to_owned()).unwrap();
    assert_eq!(queue.get().unwrap(), "a task");
    assert!(queue.is_empty());
    let start = Instant::now();
    assert!(matches!(queue.join_timeout(Duration::from_millis(20)), Err(Error::TimedOut)));
    assert!((Duration::from_millis(20)..LIMIT).contains(&start.elapsed()));
    queue.task_done().unwrap();
    queue.join_timeout(LIMIT).unwrap();
}

#[test]
fn more_done_than_got_is_an_error() {
    let queue = JoinableQueue::bounded(2).unwrap();
    assert!(matches!(queue.task_done(), Err(Error::NoTask)));
    queue.put(1).unwrap();
    queue.get().unwrap();
    queue.task_done().unwrap();
    assert!(matches!(queue.task_done(), Err(Error::NoTask)));
}

#[test]
fn a_thread_is_done_with_its_own_task_first() {
    let queue = JoinableQueue::bounded(4).unwrap();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(queue.get().unwrap(), 2);
            queue.task_done().unwrap();
            // And with another thread's, if it has none.
            queue.task_done().unwrap();
        });
    });
    queue.join_timeout(LIMIT).unwrap();
}

#[test]
fn tasks_that_a_dropped_handle_has_not_done_are_delivered_again() {
    let _watchdog = Watchdog::new();
    let queue = JoinableQueue::bounded(4).unwrap();
    for task in 0..3_u32 {
        queue.put(task).unwrap();
    }
    let first = |queue: JoinableQueue<u32>| {
        assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (0, 1));
        queue.task_done().unwrap();
    };
    spawn(first, queue.clone()).unwrap().join().unwrap();
    let mut rest = [queue.get().unwrap(), queue.get().unwrap()];
    rest.sort_unstable();
    assert_eq!(rest, [1, 2]);
    queue.task_done().unwrap();
    queue.task_done().unwrap();
    queue.join().unwrap();
}

fn get_and_hang(queue: JoinableQueue<u32>) {
    queue.get().unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_workers_task_is_delivered_again_and_given_up_after_three() {
    let _watchdog = Watchdog::new();
    let queue = JoinableQueue::bounded(4).unwrap();
    queue.put(7).unwrap();
    for _ in 0..3 {
        let worker = spawn(get_and_hang, queue.clone()).unwrap();
        crate::until("the worker has the task", || queue.is_empty() && queue.given_up() == 0);
        assert!(matches!(queue.join_timeout(Duration::ZERO), Err(Error::TimedOut)));
        worker.kill().unwrap();
        assert!(worker.join().is_err());
        crate::until("the task is back", || {
            let _ = queue.join_timeout(Duration::from_millis(15));
            !queue.is_empty() || queue.given_up() == 1
        });
    }
    assert_eq!(queue.given_up(), 1);
    queue.join().unwrap();
    assert!(matches!(queue.try_get(), Err(Error::Empty)));
}

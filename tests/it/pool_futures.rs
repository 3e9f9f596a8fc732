//! Tasks as futures: any runtime awaits them.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use crosslane::{Error, Event, Pool};

use crate::one_more;
use crate::support::{LIMIT, forever, until};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least that a runtime is.
fn block_on<F: Future>(future: F) -> F::Output {
    let (waker, mut future) = (Waker::from(Arc::new(Unpark(std::thread::current()))), pin!(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn a_bare_block_on_awaits_tasks_one_after_the_other() {
    let pool = Pool::new(2).unwrap();
    let sum = block_on(async {
        let mut sum = 0;
        for n in 0..100 {
            sum = pool.submit(|(sum, n): (u64, u64)| sum + n, (sum, n)).unwrap().await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 4950);
}

#[test]
fn tokio_awaits_many_tasks_at_once() {
    let pool = Pool::new(2).unwrap();
    let found = runtime().block_on(async {
        let tasks: Vec<_> = (0..200).map(|n| tokio::spawn(pool.submit(one_more, n).unwrap())).collect();
        let mut found = Vec::new();
        for task in tasks {
            found.push(task.await.unwrap().unwrap());
        }
        found
    });
    assert_eq!(found, (1..201).collect::<Vec<_>>());
}

#[test]
fn what_fails_fails_the_future() {
    let pool = Pool::new(1).unwrap();
    runtime().block_on(async {
        let panics = pool.submit(|()| -> () { panic!("at work") }, ()).unwrap();
        assert!(matches!(panics.await, Err(Error::Panicked(report)) if report.message == "at work"));
        let dies = pool.submit(|()| -> () { std::process::abort() }, ()).unwrap();
        assert!(matches!(dies.await, Err(Error::Died { .. })));
        let (long, behind) = (pool.submit(forever, ()).unwrap(), pool.submit(forever, ()).unwrap());
        until("it runs", || long.is_running());
        assert!(behind.cancel() && matches!(behind.await, Err(Error::Cancelled)));
        pool.terminate();
        assert!(matches!(long.await, Err(Error::Cancelled)));
    });
}

#[test]
fn a_timeout_of_the_runtime_leaves_the_task_as_it_is() {
    let pool = Pool::new(1).unwrap();
    let go_on = Event::new().unwrap();
    let mut task = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
    runtime().block_on(async {
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut task).await.is_err());
        go_on.set();
        tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
    });
}

#[test]
fn the_newest_waker_is_woken_and_once() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (old, new) = (Arc::new(Count(AtomicUsize::new(0))), Arc::new(Count(AtomicUsize::new(0))));
    let pool = Pool::new(1).unwrap();
    let go_on = Event::new().unwrap();
    let mut task = pin!(pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap());
    for waker in [&old, &new] {
        let waker = Waker::from(Arc::clone(waker));
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    go_on.set();
    until("it is woken", || new.0.load(Ordering::Relaxed) > 0);
    assert!(matches!(task.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))));
    assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (0, 1));
}

//! Signals interrupt no call: it goes on, and takes as long as it was told to.

use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Barrier, Error, Event, Lock, Queue, Semaphore, pipe, pipe_with_capacity, spawn, wait};

use crate::Watchdog;

extern "C" fn nothing(_: libc::c_int) {}

/// A signal every millisecond from here on, whose handler lets system calls return.
fn disturb() {
    // SAFETY: all zero is a valid sigaction: no flags (and so no SA_RESTART), empty mask.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: a handler that does nothing.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a timer of this process.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

const TIME: Duration = Duration::from_millis(30);

/// `call` is over after [`TIME`], and not before.
#[track_caller]
fn takes_its_time<R>(call: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = call();
    assert!(start.elapsed() >= TIME, "{:?}", start.elapsed());
    result
}

#[test]
fn calls_with_a_deadline_end_at_it() {
    let disturbed = |()| {
        disturb();
        let queue = Queue::<u8>::bounded(1).unwrap();
        assert!(takes_its_time(|| queue.get_timeout(TIME)).is_err());
        while queue.try_put(1).is_ok() {}
        assert!(takes_its_time(|| queue.put_timeout(2, TIME)).is_err());
        let (mut a, b) = pipe_with_capacity::<Vec<u8>, ()>(64).unwrap();
        assert!(matches!(takes_its_time(|| a.recv_timeout(TIME)), Err(Error::TimedOut)));
        a.send_bytes(&[0; 40]).unwrap();
        assert!(matches!(takes_its_time(|| a.send_timeout(&vec![0; 40], TIME)), Err(Error::TimedOut)));
        assert_eq!(takes_its_time(|| wait(&[&a], Some(TIME))).unwrap(), []);
        drop(b);
        let lock = Lock::new().unwrap();
        let held = lock.lock().unwrap();
        thread::scope(|scope| {
            // In this thread, which the signals go to, the lock is waited for.
            let (taken, when) = std::sync::mpsc::channel();
            let (until, enough) = std::sync::mpsc::channel::<()>();
            let other = Lock::new().unwrap();
            let same = other.clone();
            scope.spawn(move || {
                let _held = same.lock().unwrap();
                taken.send(()).unwrap();
                // Until the other end is gone.
                let _ = enough.recv();
            });
            when.recv().unwrap();
            assert!(takes_its_time(|| other.lock_timeout(TIME)).is_err());
            drop(until);
        });
        drop(held);
        assert!(takes_its_time(|| Semaphore::new(0).unwrap().acquire_timeout(TIME)).is_err());
        assert!(!takes_its_time(|| Event::new().unwrap().wait_timeout(TIME)));
        assert!(takes_its_time(|| Barrier::new(2).unwrap().wait_timeout(TIME)).is_err());
        let go_on = Event::new().unwrap();
        let mut child = spawn(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
        assert!(takes_its_time(|| child.wait_timeout(TIME)).unwrap().is_none());
        assert!(takes_its_time(|| child.join_timeout(TIME)).unwrap().is_none());
        go_on.set();
        child.join().unwrap();
    };
    let _watchdog = Watchdog::new();
    spawn(disturbed, ()).unwrap().join().unwrap();
}

#[test]
fn calls_without_one_end_when_there_is_something() {
    let disturbed = |(queue, event): (Queue<u64>, Event)| {
        disturb();
        event.wait();
        let sum: u64 = (0..50).map(|_| queue.get().unwrap()).sum();
        let (mut a, b) = pipe::<Vec<u8>, usize>().unwrap();
        let echo = |mut b: crosslane::Connection<usize, Vec<u8>>| {
            while let Ok(bytes) = b.recv() {
                b.send(&bytes.len()).unwrap();
            }
        };
        let child = spawn(echo, b).unwrap();
        for len in (0..60_000).step_by(1500) {
            a.send(&vec![1; len]).unwrap();
            assert_eq!(a.recv().unwrap(), len);
        }
        drop(a);
        child.join().unwrap();
        // The frame of a large argument, and of a large result.
        let large = spawn(|bytes: Vec<u8>| bytes, vec![3; 1 << 20]).unwrap().join().unwrap();
        assert_eq!(large.len(), 1 << 20);
        sum
    };
    let _watchdog = Watchdog::new();
    let (queue, event) = (Queue::bounded(1).unwrap(), Event::new().unwrap());
    let child = spawn(disturbed, (queue.clone(), event.clone())).unwrap();
    thread::sleep(TIME);
    event.set();
    for n in 0..50 {
        if n % 10 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        queue.put(n).unwrap();
    }
    assert_eq!(child.join().unwrap(), 1225);
}

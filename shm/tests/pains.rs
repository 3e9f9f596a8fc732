//! What people who use Python's `multiprocessing` meet again and again, each with its number in the list of such pains that this
//! project began with; here none of them may be.

mod family;

use std::time::{Duration, Instant};

use crosslane_core::lock::TableError;
use crosslane_core::lock::barrier::BarrierError;
use crosslane_core::mpmc::{PopError, PushError};
use crosslane_shm::{
    Array, Barrier, BoundedSemaphore, Condvar, CreateError, Event, Messages, Mutex, Options, Queue, RLock, RwLock,
};
use crosslane_sync::LockError;
use family::{Child, Parent, fork};

const PATIENCE: Duration = Duration::from_secs(60);

/// A child that does `hold` and is killed when it has.
fn killed(hold: impl FnOnce(&mut dyn FnMut())) {
    let mut child: Child = fork(|parent: &mut Parent| {
        hold(&mut || {
            parent.tell(1);
            parent.forever()
        });
    });
    assert_eq!(child.hear(), 1);
    child.kill();
}

/// "A lock held by a dead process is locked for ever": its next owner gets it, and is told.
#[test]
fn pain_2_a_lock_of_a_killed_process_is_not_locked_for_ever() {
    let options = Options::new();
    let start = Instant::now();
    let mutex = Mutex::anonymous(0_u64, &options).unwrap();
    killed(|held| {
        let mutex = mutex.rejoin().unwrap();
        let _guard = mutex.lock().unwrap();
        held();
    });
    assert!(matches!(mutex.lock_timeout(PATIENCE), Err(LockError::OwnerDied(_))));
    let rlock = RLock::anonymous(0_u64, &options).unwrap();
    killed(|held| {
        let rlock = rlock.rejoin().unwrap();
        let _guards = (rlock.lock().unwrap(), rlock.lock().unwrap());
        held();
    });
    assert!(matches!(rlock.lock_timeout(PATIENCE), Err(LockError::OwnerDied(_))));
    let rwlock = RwLock::anonymous(0_u64, &options).unwrap();
    killed(|held| {
        let rwlock = rwlock.rejoin().unwrap();
        let _guard = rwlock.write().unwrap();
        held();
    });
    assert!(matches!(rwlock.write_timeout(PATIENCE), Err(LockError::OwnerDied(_))));
    let permits = BoundedSemaphore::anonymous(1, &options).unwrap();
    killed(|held| {
        let permits = permits.rejoin().unwrap();
        let _permit = permits.acquire().unwrap();
        held();
    });
    assert!(permits.acquire_timeout(PATIENCE).is_ok());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// "Condition, Event, Barrier hang after a waiter is killed": notify, set and wait return; a broken barrier says so.
#[test]
fn pain_3_nobody_hangs_after_a_waiter_was_killed() {
    let options = Options::new();
    let condvar = Condvar::anonymous(0_u64, &options).unwrap();
    let event = Event::anonymous(&options).unwrap();
    let barrier = Barrier::anonymous(3, &options).unwrap();
    let waits: [&dyn Fn(); 3] = [
        &|| drop(condvar.rejoin().unwrap().lock().unwrap().wait_while(|n| *n == 0)),
        &|| event.rejoin().unwrap().wait(),
        &|| _ = barrier.rejoin().unwrap().wait(),
    ];
    for wait in waits {
        let child = fork(|_| wait());
        child.await_asleep();
        child.kill();
    }
    let start = Instant::now();
    condvar.notify_one();
    condvar.notify_all();
    *condvar.lock().unwrap() = 1;
    event.set();
    assert!(event.wait_timeout(PATIENCE));
    assert_eq!(barrier.wait_timeout(PATIENCE), Err(BarrierError::Broken), "Python hangs despite the timeout");
    barrier.reset();
    let others = [(); 2].map(|()| fork(|_| assert!(barrier.rejoin().unwrap().wait().is_ok())));
    barrier.wait_timeout(PATIENCE).unwrap();
    others.into_iter().for_each(Child::join);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// "empty(), qsize() and full() lie": right after a push, in this process and in another, the queue has that item; full is
/// full; closed is something else.
#[test]
fn pain_19_a_queue_knows_right_after_a_push_what_is_in_it() {
    let queue = Queue::<u64>::anonymous(4, &Options::new()).unwrap();
    let mut other = fork(|parent| {
        let queue = queue.rejoin().unwrap();
        for _ in 0..200 {
            let pushed = parent.hear();
            assert_eq!((queue.is_empty(), queue.len()), (false, pushed as usize));
            parent.tell(pushed);
        }
    });
    for round in 0..200_u32 {
        let items = 1 + round % 4;
        for item in 0..items as usize {
            assert!(queue.try_push(7).is_ok());
            assert_eq!((queue.is_empty(), queue.len()), (false, item + 1));
        }
        other.tell(items);
        assert_eq!(other.hear(), items);
        let expected = if items == 4 { Err(PushError::Full(None)) } else { Ok(()) };
        assert_eq!(queue.try_push(9), expected);
        while queue.try_pop().is_ok() {}
        assert_eq!((queue.is_empty(), queue.try_pop()), (true, Err(PopError::Empty)));
    }
    other.join();
    queue.try_push(1).unwrap();
    queue.close();
    assert_eq!((queue.is_closed(), queue.is_empty(), queue.try_push(2)), (true, false, Err(PushError::Closed)));
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(1), Err(PopError::Closed)));
}

/// "Silent wrong results": additions by four processes are all there, nothing is cut off, what makes no sense is refused.
#[test]
fn pain_25_nothing_goes_wrong_in_silence() {
    const TIMES: u64 = 10_000;
    let options = Options::new();
    let (array, value) = (Array::<u64>::anonymous(1, &options).unwrap(), Mutex::anonymous(0_u64, &options).unwrap());
    let children = [(); 4].map(|()| {
        fork(|_| {
            let (array, value) = (array.rejoin().unwrap(), value.rejoin().unwrap());
            for _ in 0..TIMES {
                array.elements().fetch_add(0, 1);
                value.update(|sum| *sum += 1).unwrap();
            }
        })
    });
    children.into_iter().for_each(Child::join);
    assert_eq!((array.get(0), value.read().unwrap()), (4 * TIMES, 4 * TIMES), "Python: 39145 of 40000");
    assert!(array.try_get(1).is_err() && array.try_set(1, 1).is_err());
    // Stored with their lengths, so that nothing is taken for padding; too long is an error, at once.
    let messages = Messages::anonymous(2, 8, &options).unwrap();
    messages.try_push(b"ab\0\0").unwrap();
    let mut buffer = [9; 8];
    assert_eq!((messages.try_pop_into(&mut buffer), &buffer[..5]), (Ok(4), &b"ab\0\0\x09"[..]));
    assert!(matches!(messages.try_push(&[0; 9]), Err(PushError::TooLong { .. })), "it does not vanish");
    assert!(messages.is_empty());
    let refused = |error| matches!(error, CreateError::Lock(TableError::Count { asked: 0, .. }));
    assert!(refused(Barrier::anonymous(0, &options).unwrap_err()), "Python accepts it, and its wait never ends");
}

//! What programs do to locks that they should not: guards that cross a fork, timeouts of nothing and of for ever, releases too
//! many, deaths on top of panics, more threads than parties.

mod family;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crosslane_core::call::{CallError, ConnectError, ServeError};
use crosslane_core::end::ClaimError;
use crosslane_core::lock::barrier::BarrierError;
use crosslane_shm::{Barrier, BoundedSemaphore, Calls, Condvar, Event, Mutex, Once, Options, RLock, RwLock, Semaphore};
use crosslane_sync::{AcquireError, LockError, OnceError, OnceState, OverRelease};
use family::{await_death, fork, watchdog};

const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_guard_that_crossed_a_fork_leaves_what_the_child_holds_itself_alone() {
    let options = Options::new();
    let mutex = Mutex::anonymous(0_u64, &options).unwrap();
    let rlock = RLock::anonymous(0_u64, &options).unwrap();
    let rwlock = RwLock::anonymous(0_u64, &options).unwrap();
    let other = RwLock::anonymous(0_u64, &options).unwrap();
    let condvar = Condvar::anonymous(0_u64, &options).unwrap();
    let permits = BoundedSemaphore::anonymous(1, &options).unwrap();
    let mut guards = Some((
        (mutex.lock().unwrap(), rlock.lock().unwrap(), rwlock.write().unwrap()),
        (other.read().unwrap(), condvar.lock().unwrap(), permits.acquire().unwrap()),
    ));
    let mut child = fork(|parent| {
        // The parent has given all of them up; the child takes them by handles of its own, in the same places.
        assert_eq!(parent.hear(), 1);
        let (mine, again) = (mutex.rejoin().unwrap(), rlock.rejoin().unwrap());
        let (writes, reads) = (rwlock.rejoin().unwrap(), other.rejoin().unwrap());
        let (waits, permit) = (condvar.rejoin().unwrap(), permits.rejoin().unwrap());
        let _held = (mine.lock().unwrap(), again.lock().unwrap(), writes.write().unwrap());
        let _more = (reads.read().unwrap(), waits.lock().unwrap(), permit.acquire().unwrap());
        drop(guards.take());
        assert!(matches!(mutex.lock(), Err(LockError::Forked)) && matches!(rlock.try_lock(), Err(LockError::Forked)));
        assert!(matches!(other.write(), Err(LockError::Forked)) && matches!(rwlock.read(), Err(LockError::Forked)));
        assert_eq!(permits.try_acquire().unwrap_err(), AcquireError::Forked);
        assert_eq!(permits.release(), Err(OverRelease));
        parent.tell(2);
        assert_eq!(parent.hear(), 3);
    });
    drop(guards.take());
    child.tell(1);
    assert_eq!(child.hear(), 2);
    assert!(matches!(mutex.lock_timeout(LOOK), Err(LockError::TimedOut(Some(_)))));
    assert!(matches!(rlock.lock_timeout(LOOK), Err(LockError::TimedOut(Some(_)))));
    assert!(matches!(rwlock.read_timeout(LOOK), Err(LockError::TimedOut(Some(_)))));
    assert!(matches!(other.write_timeout(LOOK), Err(LockError::TimedOut(Some(_)))));
    assert!(matches!(condvar.lock_timeout(LOOK), Err(LockError::TimedOut(Some(_)))));
    assert_eq!(permits.acquire_timeout(LOOK).unwrap_err(), AcquireError::TimedOut);
    child.tell(3);
    child.join();
    assert!(mutex.lock().is_ok() && rlock.lock().is_ok() && condvar.lock().is_ok(), "given back in order");
    assert!(rwlock.read().is_ok() && other.write().is_ok() && permits.acquire().is_ok());
}

#[test]
fn no_time_does_not_block_and_for_ever_ends_with_what_is_waited_for() {
    watchdog();
    let options = Options::new();
    let rlock = RLock::anonymous(0_u64, &options).unwrap();
    let rwlock = RwLock::anonymous(0_u64, &options).unwrap();
    let condvar = Condvar::anonymous(0_u64, &options).unwrap();
    let permits = BoundedSemaphore::anonymous(1, &options).unwrap();
    let semaphore = Semaphore::anonymous(0, &options).unwrap();
    let event = Event::anonymous(&options).unwrap();
    let barrier = Barrier::anonymous(2, &options).unwrap();
    let once = Once::anonymous(&options).unwrap();
    let (none, ever) = (Duration::ZERO, Duration::MAX);
    let held = (rlock.lock().unwrap(), rwlock.write().unwrap(), permits.acquire().unwrap());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let start = Instant::now();
            assert!(matches!(rlock.lock_timeout(none), Err(LockError::TimedOut(Some(_)))));
            assert!(matches!(rlock.try_lock(), Err(LockError::WouldBlock(Some(_)))));
            assert!(matches!(rwlock.read_timeout(none), Err(LockError::TimedOut(Some(_)))));
            assert!(matches!(rwlock.write_timeout(none), Err(LockError::TimedOut(Some(_)))));
            assert_eq!(permits.acquire_timeout(none).unwrap_err(), AcquireError::TimedOut);
            assert_eq!(semaphore.acquire_timeout(none), Err(AcquireError::TimedOut));
            assert!(!event.wait_timeout(none));
            assert_eq!(barrier.wait_timeout(none), Err(BarrierError::TimedOut));
            assert!(condvar.lock().unwrap().wait_timeout(none).unwrap().1.timed_out());
            assert!(matches!(condvar.update_when_timeout(none, |_| None::<()>), Err(LockError::TimedOut(None))));
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
            barrier.reset();
            event.set();
            assert!(rlock.lock_timeout(ever).is_ok() && rwlock.write_timeout(ever).is_ok());
            assert!(permits.acquire_timeout(ever).is_ok() && semaphore.acquire_timeout(ever).is_ok());
            assert!(barrier.wait_timeout(ever).is_ok());
            assert_eq!(once.call_once_timeout(ever, |_| ()), Ok(true));
            let guard = condvar.lock().unwrap();
            assert!(!guard.wait_timeout_while(ever, |n| *n == 0).unwrap().1.timed_out());
        });
        assert!(event.wait_timeout(ever));
        drop(held);
        semaphore.release(1).unwrap();
        barrier.wait_timeout(ever).unwrap();
        *condvar.lock().unwrap() = 1;
        condvar.notify_all();
        waits.join().unwrap();
    });
}

#[test]
fn what_was_never_taken_is_not_released_and_nothing_changes() {
    let options = Options::new();
    let permits = BoundedSemaphore::anonymous(2, &options).unwrap();
    let semaphore = Semaphore::anonymous(1, &options).unwrap();
    assert_eq!(permits.release(), Err(OverRelease), "Python: ValueError");
    permits.acquire().unwrap().detach().unwrap();
    let _guarded = permits.acquire().unwrap();
    assert_eq!((permits.release(), permits.release(), permits.available()), (Ok(()), Err(OverRelease), 1));
    assert_eq!(semaphore.release(i32::MAX as u32), Err(OverRelease));
    assert_eq!((semaphore.release(0), semaphore.available()), (Ok(()), 1));
    assert_eq!((semaphore.release(i32::MAX as u32 - 1), semaphore.release(1)), (Ok(()), Err(OverRelease)));
}

#[test]
fn two_threads_of_one_process_exclude_each_other_however_deep_they_are() {
    watchdog();
    let lock = RLock::anonymous(0_u64, &Options::new()).unwrap();
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for depth in [1, 7] {
            let (lock, inside) = (&lock, &inside);
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let guards: Vec<_> = (0..depth).map(|_| lock.lock().unwrap()).collect();
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    guards[0].set(guards[0].get() + 1);
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(lock.lock().unwrap().get(), 4_000);
}

/// What `lock` gives: how the last owner left it.
fn kind<G>(locked: &Result<G, LockError<G>>) -> &'static str {
    match locked {
        Ok(_) => "clean",
        Err(LockError::OwnerDied(_)) => "owner died",
        Err(LockError::Poisoned(_)) => "poisoned",
        Err(_) => "other",
    }
}

#[test]
fn a_death_on_top_of_a_panic_is_a_death_and_a_repair_heals_both() {
    let options = Options::new();
    let rlock = RLock::anonymous(0_u64, &options).unwrap();
    let rwlock = RwLock::anonymous(0_u64, &options).unwrap();
    let once = Once::anonymous(&options).unwrap();
    let mut child = fork(|parent| {
        let (rlock, rwlock, once) = (rlock.rejoin().unwrap(), rwlock.rejoin().unwrap(), once.rejoin().unwrap());
        let me = rlock.segment().domain().unwrap().me().unwrap();
        let panics = |work: &dyn Fn()| {
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work();
                std::panic::resume_unwind(Box::new("out of here"))
            }));
            assert!(unwound.is_err());
        };
        let outer = rlock.lock().unwrap();
        panics(&|| {
            let _inner = rlock.lock().unwrap();
            std::panic::resume_unwind(Box::new("inside"));
        });
        panics(&|| {
            let _guard = rwlock.write().unwrap();
            std::panic::resume_unwind(Box::new("inside"));
        });
        panics(&|| _ = once.call_once(|_| std::panic::resume_unwind(Box::new("at work"))));
        assert!(outer.is_broken());
        let poisoned = rwlock.write();
        assert_eq!(kind(&poisoned), "poisoned");
        let _ = once.call_once(|state| {
            assert_eq!(state, OnceState::Poisoned);
            parent.tell(me.to_word());
            parent.forever();
        });
    });
    let dead = child.id();
    assert!(matches!(once.call_once_timeout(LOOK, |_| ()), Err(OnceError::TimedOut(Some(owner))) if owner == dead));
    child.kill();
    await_death(rlock.segment().domain().unwrap(), dead);
    let (first, read) = (rlock.lock(), rwlock.read());
    assert_eq!((kind(&first), kind(&read)), ("owner died", "owner died"));
    drop((first, read));
    let (second, mut write) = (rlock.lock(), rwlock.write());
    assert_eq!((kind(&second), kind(&write)), ("poisoned", "poisoned"));
    second.unwrap_or_else(|error| error.into_guard().unwrap()).mark_consistent();
    if let Err(LockError::Poisoned(guard)) = &mut write {
        guard.mark_consistent();
    }
    drop(write);
    assert_eq!((kind(&rlock.lock()), kind(&rwlock.read())), ("clean", "clean"));
    assert_eq!(once.call_once(|state| assert_eq!(state, OnceState::OwnerDied)), Ok(true));
}

#[test]
fn a_writer_killed_at_the_gate_keeps_neither_readers_nor_writers_out() {
    let lock = RwLock::anonymous(7_u64, &Options::new()).unwrap();
    for _ in 0..5 {
        let reading = lock.read().unwrap();
        let mut writer = fork(|parent| {
            let lock = lock.rejoin().unwrap();
            parent.tell(lock.segment().domain().unwrap().me().unwrap().to_word());
            let _ = lock.write();
        });
        let dead = writer.id();
        writer.await_asleep();
        assert!(
            matches!(lock.try_read(), Err(LockError::WouldBlock(Some(owner))) if owner == dead),
            "it is at the gate"
        );
        writer.kill();
        assert_eq!(*lock.read_timeout(PATIENCE).unwrap(), 7, "nothing is broken");
        drop(reading);
        assert_eq!(*lock.write_timeout(PATIENCE).unwrap(), 7);
    }
}

#[test]
fn of_three_threads_at_a_barrier_of_two_a_pair_gets_through_at_a_time() {
    watchdog();
    let barrier = Barrier::anonymous(2, &Options::new()).unwrap();
    let passed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while barrier.wait().is_ok() {
                    // In one round after the other: who is overtaken waits for the next.
                    if passed.fetch_add(1, Ordering::Relaxed) > 4_000 {
                        barrier.abort();
                    }
                }
            });
        }
    });
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed.is_multiple_of(2) && passed > 4_000, "{passed} got through, two at a time");
}

#[test]
fn an_abort_ends_all_who_meet_again_and_again() {
    watchdog();
    let barrier = Barrier::anonymous(2, &Options::new()).unwrap();
    for _ in 0..200 {
        std::thread::scope(|scope| {
            let parties = [0, 1].map(|_| scope.spawn(|| while barrier.wait().is_ok() {}));
            barrier.abort();
            // Hangs if the abort was over with a round that ended just then.
            parties.into_iter().for_each(|party| party.join().unwrap());
        });
        assert!(barrier.is_broken());
        barrier.reset();
    }
}

#[test]
fn a_barrier_of_one_is_always_full_and_runs_its_action_each_time() {
    let barrier = Barrier::anonymous(1, &Options::new()).unwrap();
    let mut acted = 0;
    for _ in 0..3 {
        let passed = barrier.wait_with(|| acted += 1).unwrap();
        assert!(passed.is_leader && passed.index == 0);
    }
    assert_eq!((acted, barrier.parties(), barrier.waiting()), (3, 1, 0));
    barrier.abort();
    assert_eq!(
        (barrier.wait_timeout(PATIENCE), barrier.wait()),
        (Err(BarrierError::Broken), Err(BarrierError::Broken))
    );
}

#[test]
fn a_raw_fork_child_neither_asks_nor_answers_by_what_it_inherits() {
    let calls = Calls::anonymous(3, &Options::new()).unwrap();
    let (mut client, mut server) = (calls.client().unwrap(), calls.server().unwrap());
    fork(|_| {
        assert_eq!(client.call(b"mine?"), Err(CallError::Forked));
        assert_eq!(client.call_timeout(b"mine?", LOOK), Err(CallError::Forked));
        assert_eq!(server.try_recv().unwrap_err(), ServeError::Forked);
        assert_eq!(calls.client().unwrap_err(), ConnectError::Forked);
        assert_eq!(calls.server().unwrap_err(), ClaimError::Forked);
    })
    .join();
    assert_eq!(server.try_recv().unwrap_err(), ServeError::Empty, "nothing was asked");
    // What the child dropped closed nothing.
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(server.recv().unwrap().respond(b"yes").unwrap()));
        assert_eq!(client.call(b"mine?").unwrap(), *b"yes");
    });
}

//! The family of locks in segments and slabs, between processes that are forked and killed; who died is what the leases say.

mod family;

use std::os::fd::AsFd;
use std::time::Duration;

use crosslane_core::lock::TableError;
use crosslane_core::lock::barrier::BarrierError;
use crosslane_core::{OwnerId, Trusted};
use crosslane_shm::{
    Barrier, BoundedSemaphore, Condvar, CreateError, Domain, Event, HeaderError, Once, OpenError, Options, RLock,
    RwLock, Semaphore, Slab,
};
use crosslane_sync::{AcquireError, LockError, OnceState};
use family::{Child, Dir, Parent, await_death, fork, name};

const TIMEOUT: Duration = Duration::from_secs(60);

/// One of each, for this process's family.
struct All {
    rlock: RLock<u64, Trusted>,
    rwlock: RwLock<u64, Trusted>,
    condvar: Condvar<u64, Trusted>,
    bounded: BoundedSemaphore<Trusted>,
    semaphore: Semaphore<Trusted>,
    event: Event<Trusted>,
    barrier: Barrier<Trusted>,
    once: Once<Trusted>,
}

impl All {
    fn anonymous() -> Self {
        let options = Options::new();
        Self {
            rlock: RLock::anonymous(1, &options).unwrap(),
            rwlock: RwLock::anonymous(2, &options).unwrap(),
            condvar: Condvar::anonymous(0, &options).unwrap(),
            bounded: BoundedSemaphore::anonymous(2, &options).unwrap(),
            semaphore: Semaphore::anonymous(1, &options).unwrap(),
            event: Event::anonymous(&options).unwrap(),
            barrier: Barrier::anonymous(3, &options).unwrap(),
            once: Once::anonymous(&options).unwrap(),
        }
    }

    fn in_slab(slab: &Slab<Trusted>) -> Self {
        Self {
            rlock: RLock::in_slab(slab, 1).unwrap(),
            rwlock: RwLock::in_slab(slab, 2).unwrap(),
            condvar: Condvar::in_slab(slab, 0).unwrap(),
            bounded: BoundedSemaphore::in_slab(slab, 2).unwrap(),
            semaphore: Semaphore::in_slab(slab, 1).unwrap(),
            event: Event::in_slab(slab).unwrap(),
            barrier: Barrier::in_slab(slab, 3).unwrap(),
            once: Once::in_slab(slab).unwrap(),
        }
    }

    fn rejoin(&self) -> Self {
        Self {
            rlock: self.rlock.rejoin().unwrap(),
            rwlock: self.rwlock.rejoin().unwrap(),
            condvar: self.condvar.rejoin().unwrap(),
            bounded: self.bounded.rejoin().unwrap(),
            semaphore: self.semaphore.rejoin().unwrap(),
            event: self.event.rejoin().unwrap(),
            barrier: self.barrier.rejoin().unwrap(),
            once: self.once.rejoin().unwrap(),
        }
    }

    fn me(&self) -> OwnerId {
        self.rlock.segment().domain().unwrap().me().unwrap()
    }

    /// A child that is in each of them when it tells its id, and waits to be killed.
    fn holder(&self) -> Child {
        fork(|parent: &mut Parent| {
            let all = self.rejoin();
            let _rlock = (all.rlock.lock().unwrap(), all.rlock.lock().unwrap());
            let _reader = all.rwlock.read().unwrap();
            let _value = all.condvar.lock().unwrap();
            let _permits = (all.bounded.acquire().unwrap(), all.bounded.acquire().unwrap());
            all.semaphore.acquire().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| all.barrier.wait());
                while all.barrier.waiting() == 0 {
                    std::thread::yield_now();
                }
                let _ = all.once.call_once(|_| {
                    parent.tell(all.me().to_word());
                    parent.forever()
                });
            });
        })
    }

    /// What the survivors of a killed holder get.
    fn assert_recovered(&self) {
        let Err(LockError::OwnerDied(mut guard)) = self.rlock.lock() else { panic!("its holder was killed") };
        guard.mark_consistent();
        drop(guard);
        assert_eq!(*self.rwlock.write().unwrap(), 2, "a dead reader breaks nothing");
        let Err(LockError::OwnerDied(mut guard)) = self.condvar.lock() else { panic!("its holder was killed") };
        guard.mark_consistent();
        drop(guard);
        drop((self.bounded.acquire_timeout(TIMEOUT).unwrap(), self.bounded.acquire_timeout(TIMEOUT).unwrap()));
        assert_eq!(self.semaphore.try_acquire(), Err(AcquireError::WouldBlock), "nobody knows whose it was");
        assert_eq!(self.barrier.wait_timeout(TIMEOUT), Err(BarrierError::Broken));
        assert_eq!(self.once.call_once(|state| assert_eq!(state, OnceState::OwnerDied)), Ok(true));
    }
}

#[test]
fn what_a_killed_process_held_comes_to_the_others_from_segments_and_from_a_slab() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    for all in [All::anonymous(), All::in_slab(&slab)] {
        let mut holder = all.holder();
        let dead = holder.id();
        assert!(matches!(all.rlock.try_lock(), Err(LockError::WouldBlock(Some(owner))) if owner == dead));
        assert!(matches!(all.rwlock.try_write(), Err(LockError::WouldBlock(Some(owner))) if owner == dead));
        assert_eq!(all.bounded.try_acquire().unwrap_err(), AcquireError::WouldBlock);
        holder.kill();
        await_death(all.rlock.segment().domain().unwrap(), dead);
        all.assert_recovered();
    }
}

#[test]
fn who_sleeps_behind_a_killed_process_goes_on_at_once_when_its_parent_sees_the_death() {
    let all = All::anonymous();
    let mut holder = all.holder();
    let dead = holder.id();
    let mut sleepers = [0, 1, 2, 3].map(|which| {
        fork(|parent| {
            let all = all.rejoin();
            parent.tell(0);
            match which {
                0 => assert!(matches!(all.rlock.lock(), Err(LockError::OwnerDied(_)))),
                1 => assert!(all.rwlock.write().is_ok()),
                2 => assert!(all.bounded.acquire().is_ok()),
                _ => assert_eq!(all.barrier.wait(), Err(BarrierError::Broken)),
            }
        })
    });
    sleepers.iter_mut().for_each(|sleeper| assert_eq!(sleeper.hear(), 0));
    holder.kill();
    let family = Domain::family().unwrap();
    await_death(&family, dead);
    family.reap().unwrap();
    assert_eq!(
        all.bounded.available() + u32::from(all.bounded.available() < 2),
        2,
        "reaped, and one was taken at most"
    );
    sleepers.into_iter().for_each(Child::join);
}

#[test]
fn programs_that_know_the_name_meet_in_each_of_them() {
    let dir = Dir::new();
    let options = dir.options();
    let rlock = RLock::create(&name("rlock"), 5_u64, &options).unwrap();
    let rwlock = RwLock::create(&name("rwlock"), 6_u64, &options).unwrap();
    let condvar = Condvar::create(&name("condvar"), 0_u64, &options).unwrap();
    let bounded = BoundedSemaphore::create(&name("bounded"), 3, &options).unwrap();
    let semaphore = Semaphore::create(&name("semaphore"), 0, &options).unwrap();
    let event = Event::create(&name("event"), &options).unwrap();
    let barrier = Barrier::create(&name("barrier"), 2, &options).unwrap();
    let once = Once::create(&name("once"), &options).unwrap();
    let child = fork(|_| {
        let guard = RLock::<u64>::open(&name("rlock"), &options).unwrap();
        guard.lock().unwrap().set(50);
        RwLock::<u64>::open(&name("rwlock"), &options).unwrap().update(|n| *n = 60).unwrap();
        Barrier::open(&name("barrier"), &options).unwrap().wait().unwrap();
        let condvar = Condvar::<u64>::open(&name("condvar"), &options).unwrap();
        condvar.update(|n| *n = 70).unwrap();
        condvar.notify_all();
        let bounded = BoundedSemaphore::open(&name("bounded"), &options).unwrap();
        assert_eq!((bounded.limit(), bounded.available()), (3, 3));
        Semaphore::open(&name("semaphore"), &options).unwrap().release(4).unwrap();
        assert_eq!(Once::open(&name("once"), &options).unwrap().call_once(|_| ()), Ok(true));
        Event::open(&name("event"), &options).unwrap().set();
    });
    barrier.wait().unwrap();
    let taken = condvar.update_when_timeout(TIMEOUT, |n| (*n != 0).then(|| std::mem::take(n))).unwrap();
    assert!(event.wait_timeout(TIMEOUT));
    assert_eq!((rlock.lock().unwrap().get(), rwlock.get().unwrap(), taken), (50, 60, 70));
    assert_eq!((semaphore.available(), once.is_completed(), bounded.available()), (4, true, 3));
    child.join();
    let wrong = Event::open(&name("once"), &options);
    assert!(matches!(wrong, Err(OpenError::Header(HeaderError::WrongKind { .. }))), "{wrong:?}");
    let wrong = RLock::<u32>::open(&name("rlock"), &options);
    assert!(matches!(wrong, Err(OpenError::Header(_))), "{wrong:?}");
}

#[test]
fn a_family_hands_them_on_as_file_descriptors() {
    let options = Options::new();
    let (event, barrier) = (Event::anonymous(&options).unwrap(), Barrier::anonymous(1, &options).unwrap());
    let again = Event::from_fd(event.as_fd().try_clone_to_owned().unwrap(), &options).unwrap();
    again.set();
    assert!(event.is_set());
    let again = Barrier::from_fd(barrier.as_fd().try_clone_to_owned().unwrap(), &options).unwrap();
    assert_eq!((again.parties(), again.wait().unwrap().index), (1, 0));
}

#[test]
fn what_makes_no_lock_is_refused() {
    let options = Options::new();
    let refused = |error| matches!(error, CreateError::Lock(TableError::Count { asked, .. }) if asked != 1);
    assert!(refused(Barrier::anonymous(0, &options).unwrap_err()), "Python accepts it");
    assert!(refused(Barrier::anonymous(1025, &options).unwrap_err()));
    assert!(refused(BoundedSemaphore::anonymous(0, &options).unwrap_err()));
    assert!(refused(BoundedSemaphore::anonymous((1 << 16) + 1, &options).unwrap_err()));
    assert!(refused(Semaphore::anonymous(1 << 31, &options).unwrap_err()));
}

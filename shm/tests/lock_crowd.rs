//! Locks with a crowd of processes, with a holder or a waiter that is stopped, and with waiters that are killed.

mod family;

use std::time::{Duration, Instant};

use crosslane_core::call::CallError;
use crosslane_core::lock::barrier::BarrierError;
use crosslane_core::{OwnerId, Trusted};
use crosslane_shm::{
    Barrier, BoundedSemaphore, Calls, Condvar, Domain, Event, Mutex, Once, Options, Probe, RLock, RwLock, Semaphore,
};
use crosslane_sync::{AcquireError, LockError};
use family::{Child, await_death, fork};

const CROWD: u32 = 64;
const LOOK: Duration = Duration::from_millis(20);
/// How long a holder is stopped.
const STOPPED: Duration = Duration::from_millis(600);

/// A crowd of processes that have said that they are about to wait, and that sleep.
fn crowd(wait: impl Fn(u32)) -> Vec<Child> {
    let mut children: Vec<_> = (0..CROWD)
        .map(|n| {
            fork(|parent| {
                parent.tell(n);
                wait(n);
            })
        })
        .collect();
    for (n, child) in (0..).zip(&mut children) {
        assert_eq!(child.hear(), n);
        child.await_asleep();
    }
    children
}

#[test]
fn each_of_a_crowd_of_sleepers_gets_the_lock_and_no_change_is_lost() {
    let options = Options::new();
    let mutex = Mutex::anonymous(0_u32, &options).unwrap();
    let rlock = RLock::anonymous(0_u32, &options).unwrap();
    let rwlock = RwLock::anonymous(0_u32, &options).unwrap();
    let held = (mutex.lock().unwrap(), rlock.lock().unwrap(), rwlock.write().unwrap());
    let children = crowd(|n| {
        let (mutex, rlock, rwlock) = (mutex.rejoin().unwrap(), rlock.rejoin().unwrap(), rwlock.rejoin().unwrap());
        // Some sleep at each of the locks first.
        for step in 0..3 {
            match (n + step) % 3 {
                0 => *mutex.lock().unwrap() += 1,
                1 => {
                    let guard = rlock.lock().unwrap();
                    guard.set(guard.get() + 1);
                }
                _ => *rwlock.write().unwrap() += 1,
            }
        }
        assert!(*rwlock.read().unwrap() > 0);
    });
    drop(held);
    children.into_iter().for_each(Child::join);
    let counted = (*mutex.lock().unwrap(), rlock.lock().unwrap().get(), *rwlock.read().unwrap());
    assert_eq!(counted, (CROWD, CROWD, CROWD));
}

#[test]
fn each_of_a_crowd_of_sleepers_gets_a_permit_a_count_and_the_work_done_once() {
    let options = Options::new();
    let bounded = BoundedSemaphore::anonymous(2, &options).unwrap();
    let semaphore = Semaphore::anonymous(0, &options).unwrap();
    let event = Event::anonymous(&options).unwrap();
    let condvar = Condvar::anonymous(0_u32, &options).unwrap();
    let barrier = Barrier::anonymous(CROWD + 1, &options).unwrap();
    let once = Once::anonymous(&options).unwrap();
    let held = (bounded.acquire().unwrap(), bounded.acquire().unwrap());
    let children = crowd(|_| {
        let (bounded, semaphore, event) =
            (bounded.rejoin().unwrap(), semaphore.rejoin().unwrap(), event.rejoin().unwrap());
        let (condvar, barrier, once) = (condvar.rejoin().unwrap(), barrier.rejoin().unwrap(), once.rejoin().unwrap());
        drop(bounded.acquire().unwrap());
        semaphore.acquire().unwrap();
        let mut guard = condvar.lock().unwrap();
        *guard += 1;
        condvar.notify_all();
        // Until all are in.
        drop(guard.wait_while(|n| *n < CROWD).unwrap());
        once.call_once(|_| *condvar.lock().unwrap() += 100).unwrap();
        barrier.wait().unwrap();
        event.wait();
    });
    drop(held);
    semaphore.release(CROWD).unwrap();
    barrier.wait().unwrap();
    children.iter().for_each(Child::await_asleep);
    event.set();
    children.into_iter().for_each(Child::join);
    assert_eq!(*condvar.lock().unwrap(), CROWD + 100);
    assert_eq!((bounded.available(), semaphore.available(), barrier.waiting()), (2, 0, 0));
}

#[test]
fn each_of_a_crowd_of_clients_gets_its_own_response() {
    let calls = Calls::anonymous(CROWD, &Options::new()).unwrap();
    let mut server = calls.server().unwrap();
    let children = crowd(|n| {
        let mut client = calls.rejoin().unwrap().client().unwrap();
        assert_eq!(client.call(&n.to_ne_bytes()).unwrap(), (!n).to_ne_bytes());
    });
    for _ in 0..CROWD {
        let request = server.recv().unwrap();
        let n = u32::from_ne_bytes(request.to_array().unwrap());
        assert!(request.respond(&(!n).to_ne_bytes()).unwrap());
    }
    children.into_iter().for_each(Child::join);
}

#[test]
fn killed_waiters_hang_nobody_who_notifies_sets_or_meets() {
    let options = Options::new();
    let condvar = Condvar::anonymous(0_u32, &options).unwrap();
    let event = Event::anonymous(&options).unwrap();
    let barrier = Barrier::anonymous(3, &options).unwrap();
    for round in 1..=5 {
        let killed = [0, 1, 2].map(|which| {
            let child = fork(|_| match which {
                // Any death in the family may end a wait once.
                0 => drop(condvar.rejoin().unwrap().lock().unwrap().wait_while(|_| true)),
                1 => event.rejoin().unwrap().wait(),
                _ => drop(barrier.rejoin().unwrap().wait()),
            });
            child.await_asleep();
            child
        });
        let alive = [0, 1].map(|which| {
            let child = fork(|_| match which {
                0 => drop(condvar.rejoin().unwrap().lock().unwrap().wait_while(|n| *n < round).unwrap()),
                _ => event.rejoin().unwrap().wait(),
            });
            child.await_asleep();
            child
        });
        while barrier.waiting() == 0 {
            std::thread::yield_now();
        }
        killed.into_iter().for_each(Child::kill);
        let start = Instant::now();
        *condvar.lock().unwrap() = round;
        condvar.notify_one();
        condvar.notify_all();
        event.set();
        alive.into_iter().for_each(Child::join);
        assert_eq!(barrier.wait_timeout(Duration::from_secs(30)), Err(BarrierError::Broken));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        event.clear();
        barrier.reset();
    }
}

/// One of each that a process can hold.
struct Held {
    mutex: Mutex<u64, Trusted>,
    rlock: RLock<u64, Trusted>,
    rwlock: RwLock<u64, Trusted>,
    condvar: Condvar<u64, Trusted>,
    bounded: BoundedSemaphore<Trusted>,
    barrier: Barrier<Trusted>,
    once: Once<Trusted>,
}

impl Held {
    fn new() -> Self {
        let options = Options::new();
        Self {
            mutex: Mutex::anonymous(0, &options).unwrap(),
            rlock: RLock::anonymous(0, &options).unwrap(),
            rwlock: RwLock::anonymous(0, &options).unwrap(),
            condvar: Condvar::anonymous(0, &options).unwrap(),
            bounded: BoundedSemaphore::anonymous(1, &options).unwrap(),
            barrier: Barrier::anonymous(2, &options).unwrap(),
            once: Once::anonymous(&options).unwrap(),
        }
    }

    fn rejoin(&self) -> Self {
        Self {
            mutex: self.mutex.rejoin().unwrap(),
            rlock: self.rlock.rejoin().unwrap(),
            rwlock: self.rwlock.rejoin().unwrap(),
            condvar: self.condvar.rejoin().unwrap(),
            bounded: self.bounded.rejoin().unwrap(),
            barrier: self.barrier.rejoin().unwrap(),
            once: self.once.rejoin().unwrap(),
        }
    }

    /// A child that has all of them, and gives them back when it is told to; it arrives at the barrier then.
    fn holder(&self) -> Child {
        fork(|parent| {
            let all = self.rejoin();
            let guards = (all.mutex.lock().unwrap(), all.rlock.lock().unwrap(), all.condvar.lock().unwrap());
            let more = (all.rwlock.write().unwrap(), all.bounded.acquire().unwrap());
            let once = all.once.call_once(|_| {
                parent.tell(all.mutex.segment().domain().unwrap().me().unwrap().to_word());
                parent.hear();
            });
            assert_eq!(once, Ok(true));
            drop((guards, more));
            all.barrier.wait().unwrap();
        })
    }

    /// Nobody gets anything of what `holder` has, and everybody is told who has it.
    fn assert_held(&self, holder: OwnerId) {
        let is = |error: Option<OwnerId>| assert_eq!(error, Some(holder));
        match self.mutex.lock_timeout(LOOK) {
            Err(LockError::TimedOut(owner)) => is(owner),
            other => panic!("{other:?}"),
        }
        match self.rlock.lock_timeout(LOOK) {
            Err(LockError::TimedOut(owner)) => is(owner),
            other => panic!("{other:?}"),
        }
        match self.condvar.lock_timeout(LOOK) {
            Err(LockError::TimedOut(owner)) => is(owner),
            other => panic!("{other:?}"),
        }
        match self.rwlock.read_timeout(LOOK) {
            Err(LockError::TimedOut(owner)) => is(owner),
            other => panic!("{other:?}"),
        }
        match self.rwlock.write_timeout(LOOK) {
            Err(LockError::TimedOut(owner)) => is(owner),
            other => panic!("{other:?}"),
        }
        assert_eq!(self.bounded.acquire_timeout(LOOK).unwrap_err(), AcquireError::TimedOut);
        self.once.call_once_timeout(LOOK, |_| panic!("its work is under way")).unwrap_err();
    }

    /// What the holder gave back is there, as if it had never been stopped.
    fn assert_given_back(&self) {
        self.barrier.wait().unwrap();
        *self.mutex.lock().unwrap() += 1;
        self.rlock.lock().unwrap().set(1);
        *self.condvar.lock().unwrap() += 1;
        assert_eq!(*self.rwlock.read().unwrap(), 0);
        drop(self.bounded.acquire().unwrap());
        assert!(self.once.is_completed());
    }
}

/// Whoever ended in an earlier test is not news; `holder`, which is stopped, must never be.
fn assert_nobody_died(holder: OwnerId) {
    let dead = Domain::family().unwrap().reap().unwrap();
    assert!(!dead.contains(&holder));
}

#[test]
fn a_stopped_holder_keeps_each_lock_until_it_goes_on() {
    let all = Held::new();
    let mut holder = all.holder();
    let id = holder.id();
    holder.signal(libc::SIGSTOP);
    let start = Instant::now();
    while start.elapsed() < STOPPED || holder.state() != 'T' {
        all.assert_held(id);
        assert_nobody_died(id);
    }
    holder.signal(libc::SIGCONT);
    holder.tell(0);
    all.assert_given_back();
    holder.join();
}

#[test]
fn a_stopped_party_and_a_stopped_server_are_waited_for() {
    let options = Options::new();
    let (barrier, calls) = (Barrier::anonymous(2, &options).unwrap(), Calls::anonymous(2, &options).unwrap());
    let mut party = fork(|parent| {
        let (barrier, calls) = (barrier.rejoin().unwrap(), calls.rejoin().unwrap());
        let mut server = calls.server().unwrap();
        parent.tell(calls.segment().domain().unwrap().me().unwrap().to_word());
        while let Ok(request) = server.recv() {
            if *request == *b"last" {
                assert!(request.respond(b"bye").unwrap());
                break;
            }
        }
        barrier.wait().unwrap();
    });
    let id = party.id();
    let mut client = calls.client().unwrap();
    party.await_asleep();
    party.signal(libc::SIGSTOP);
    let start = Instant::now();
    while start.elapsed() < STOPPED || party.state() != 'T' {
        assert_eq!(client.call_timeout(b"are you there", LOOK), Err(CallError::TimedOut));
        assert_nobody_died(id);
    }
    let sleeper = fork(|_| {
        barrier.rejoin().unwrap().wait().unwrap();
    });
    sleeper.await_asleep();
    assert_nobody_died(id);
    party.signal(libc::SIGCONT);
    assert_eq!(client.call(b"last").unwrap(), *b"bye");
    sleeper.join();
    party.join();
    assert!(!barrier.is_broken());
}

/// One of each that a process can wait for without naming anybody, and three locks.
struct Awaited {
    event: Event<Trusted>,
    semaphore: Semaphore<Trusted>,
    condvar: Condvar<u32, Trusted>,
    barrier: Barrier<Trusted>,
    mutex: Mutex<u32, Trusted>,
    rwlock: RwLock<u32, Trusted>,
    bounded: BoundedSemaphore<Trusted>,
}

const BARRIER: usize = 3;

impl Awaited {
    const KINDS: u32 = 7;

    fn new() -> Self {
        let options = Options::new();
        Self {
            event: Event::anonymous(&options).unwrap(),
            semaphore: Semaphore::anonymous(0, &options).unwrap(),
            condvar: Condvar::anonymous(0, &options).unwrap(),
            barrier: Barrier::anonymous(3, &options).unwrap(),
            mutex: Mutex::anonymous(0, &options).unwrap(),
            rwlock: RwLock::anonymous(0, &options).unwrap(),
            bounded: BoundedSemaphore::anonymous(1, &options).unwrap(),
        }
    }

    /// A child that waits for one kind, and then says which number the barrier gave it; and who it is.
    fn waiter(&self, kind: u32) -> (Child, OwnerId) {
        let mut child = fork(|parent| {
            let mutex = self.mutex.rejoin().unwrap();
            parent.tell(mutex.segment().domain().unwrap().me().unwrap().to_word());
            let mut index = 0;
            match kind {
                0 => self.event.rejoin().unwrap().wait(),
                1 => self.semaphore.rejoin().unwrap().acquire().unwrap(),
                2 => {
                    let condvar = self.condvar.rejoin().unwrap();
                    *condvar.lock().unwrap().wait_while(|tickets| *tickets == 0).unwrap() -= 1;
                }
                3 => index = self.barrier.rejoin().unwrap().wait().unwrap().index,
                4 => *mutex.lock().unwrap() += 1,
                5 => *self.rwlock.rejoin().unwrap().write().unwrap() += 1,
                _ => drop(self.bounded.rejoin().unwrap().acquire().unwrap()),
            }
            parent.tell(index);
        });
        let id = child.id();
        child.await_asleep();
        (child, id)
    }

    fn waiters(&self) -> (Vec<Child>, Vec<OwnerId>) {
        (0..Self::KINDS).map(|kind| self.waiter(kind)).unzip()
    }

    /// One permit and one ticket.
    fn give_one(&self) {
        self.semaphore.release(1).unwrap();
        *self.condvar.lock().unwrap() += 1;
        self.condvar.notify_one();
    }

    /// That so many waiters got each lock, and that no permit and no ticket was had twice or lost.
    fn assert_got(&self, times: u32) {
        assert_eq!((*self.mutex.lock().unwrap(), *self.rwlock.read().unwrap()), (times, times));
        assert_eq!((self.semaphore.available(), *self.condvar.lock().unwrap()), (0, 0));
        assert_eq!(self.bounded.available(), 1);
        assert!(!self.barrier.is_broken());
    }
}

/// What waiters say at their end: their numbers at the barrier.
fn ended(children: Vec<Child>) -> Vec<u32> {
    let end = |mut child: Child| {
        let index = child.hear();
        child.join();
        index
    };
    children.into_iter().map(end).collect()
}

/// The kernel takes who is stopped out of its queue, so no wake is spent on it; when it goes on, it asks to sleep again, on a
/// word that has changed meanwhile.
#[test]
fn a_waiter_that_is_stopped_over_the_release_holds_up_nobody_and_gets_its_own_when_it_goes_on() {
    let all = Awaited::new();
    let held = (all.mutex.lock().unwrap(), all.rwlock.write().unwrap(), all.bounded.acquire().unwrap());
    let (stopped, ids) = all.waiters();
    for child in &stopped {
        child.signal(libc::SIGSTOP);
        while child.state() != 'T' {
            std::thread::yield_now();
        }
    }
    let (others, _) = all.waiters();
    let start = Instant::now();
    all.event.set();
    all.give_one();
    drop(held);
    let mine = all.barrier.wait().unwrap().index;
    let others = ended(others);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    all.assert_got(1);
    // Who goes on finds the flag cleared again.
    all.event.clear();
    assert!(stopped.iter().all(|child| child.state() == 'T'));
    let domain = Domain::family().unwrap();
    assert!(ids.iter().all(|&id| domain.probe(id).unwrap() == Probe::NotProven));
    stopped.iter().for_each(|child| child.signal(libc::SIGCONT));
    all.give_one();
    let stopped = ended(stopped);
    all.assert_got(2);
    let mut indices = [mine, others[BARRIER], stopped[BARRIER]];
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2]);
    // That proof can be had at all.
    ids.iter().for_each(|&id| await_death(&domain, id));
}

//! Every interleaving of a condition, its lock, its waiters and its notifiers.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::condvar::CondvarWord;
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::mutex::{Acquired, LockWord};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

/// A count of tickets behind a lock.
struct World {
    lock: LockWord,
    condvar: CondvarWord,
    tickets: Word,
    peers: Arc<Peers>,
}

impl World {
    fn new(processes: u32) -> Arc<Self> {
        let (lock, condvar) = (LockWord::new(), CondvarWord::default());
        Arc::new(Self { lock, condvar, tickets: Word::new(0), peers: Peers::new(processes) })
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }

    fn lock(&self, process: &Process) -> Acquired {
        self.lock.lock(process, process.never()).expect("no deadline")
    }

    /// Changes the count by what `change` says, with the lock held.
    fn update(&self, change: impl FnOnce(u64) -> u64) {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.tickets), 8) };
        value = change(value);
        // SAFETY: eight private bytes and one word.
        unsafe { copy_in(NonNull::from(&self.tickets), (&raw const value).cast(), 8) };
    }

    fn take(&self, process: &Process) {
        let _ = self.lock(process);
        loop {
            let mut taken = false;
            self.update(|tickets| {
                taken = tickets > 0;
                tickets.saturating_sub(1)
            });
            if taken {
                break;
            }
            self.condvar.wait(process, process.never(), || self.lock.unlock(process, false));
            let _ = self.lock(process);
        }
        self.lock.unlock(process, false);
    }

    fn give(&self, count: u64, process: &Process) {
        let _ = self.lock(process);
        self.update(|tickets| tickets + count);
        self.lock.unlock(process, false);
        self.condvar.notify(u32::try_from(count).unwrap(), process);
    }
}

#[test]
fn a_waiter_never_sleeps_through_its_notification() {
    check("condvar.one", Some(3), 760, || {
        let world = World::new(2);
        let waiter = world.spawn(1, |world, process| world.take(process));
        world.give(1, &Process::new(&world.peers, 0));
        waiter.join().unwrap();
    });
}

#[test]
fn two_waiters_share_one_notification_of_two_or_two_of_one() {
    check("condvar.two", Some(1), 210, || {
        let world = World::new(3);
        let waiters = [1, 2].map(|i| world.spawn(i, |world, process| world.take(process)));
        let process = Process::new(&world.peers, 0);
        world.give(1, &process);
        world.give(1, &process);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_notifier_killed_at_any_access_leaves_waiters_that_look_again() {
    check_deaths("condvar.notifier_killed", Some(1), 10, 180, |k| {
        let world = World::new(2);
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || world.give(1, process));
            world.peers.kill(process.id());
        });
        let process = Process::new(&world.peers, 0);
        let _ = world.lock(&process);
        // As long as a slice: sleeps end after a death.
        world.condvar.wait(&process, true, || world.lock.unlock(&process, false));
        victim.join().unwrap();
        let _ = world.lock(&process);
        world.update(|tickets| {
            assert!(tickets <= 1);
            tickets + 1
        });
        world.lock.unlock(&process, false);
        world.take(&process);
    });
}

#[test]
fn a_waiter_killed_at_any_access_costs_the_notifier_nothing() {
    check_deaths("condvar.waiter_killed", Some(1), 10, 560, |k| {
        let world = World::new(2);
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || world.take(process));
            world.peers.kill(process.id());
        });
        let process = Process::new(&world.peers, 0);
        world.give(2, &process);
        world.take(&process);
        victim.join().unwrap();
        assert!(world.peers.wake_calls() <= 8, "a notification is a few system calls at most");
    });
}

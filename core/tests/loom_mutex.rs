//! Every interleaving of the lock word: exclusion, takeover, and a kill at every access of every role.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::OwnerId;
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::mutex::{Acquired, LockError, LockWord, TryLockError};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

/// A lock and two counters that are equal whenever nobody is inside; loom fails the model if two threads touch them
/// without an order between them.
struct World {
    lock: LockWord,
    counters: [Word; 2],
    peers: Arc<Peers>,
}

fn id(index: u32, generation: u32) -> OwnerId {
    OwnerId::new(index, generation).unwrap()
}

impl World {
    fn new(processes: u32) -> Arc<Self> {
        Self::of(Peers::new(processes))
    }

    fn of(peers: Arc<Peers>) -> Arc<Self> {
        Arc::new(Self { lock: LockWord::new(), counters: [Word::new(0), Word::new(0)], peers })
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn get(&self, i: usize) -> u64 {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.counters[i]), 8) };
        value
    }

    fn set(&self, i: usize, value: u64) {
        // SAFETY: eight private bytes and one word.
        unsafe { copy_in(NonNull::from(&self.counters[i]), (&raw const value).cast(), 8) };
    }

    /// The critical section: repairs what a dead owner left, then counts.
    fn count(&self, acquired: Acquired) {
        let first = self.get(0);
        if acquired == Acquired::Clean {
            assert_eq!(first, self.get(1), "a clean lock guards whole values");
        }
        self.set(0, first + 1);
        self.set(1, first + 1);
    }

    fn lock(&self, process: &Process) -> Acquired {
        self.lock.lock(process, process.never()).expect("no deadline, no fork, no hostile bytes")
    }

    /// One turn: lock, count, unlock.
    fn turn(&self, process: &Process) -> Acquired {
        let acquired = self.lock(process);
        self.count(acquired);
        self.lock.unlock(process, false);
        acquired
    }

    /// One turn by `try_lock`, if that succeeds.
    fn try_turn(&self, process: &Process) -> Option<Acquired> {
        match self.lock.try_lock(process) {
            Ok(acquired) => {
                self.count(acquired);
                self.lock.unlock(process, false);
                Some(acquired)
            }
            Err(TryLockError::Held(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Leaves the lock in the hands of `owner`, dead, with one counter ahead.
    fn die_inside(&self, owner: &Process) {
        let acquired = self.lock(owner);
        assert_eq!(acquired, Acquired::Clean);
        self.set(0, self.get(0) + 1);
        self.peers.kill(owner.id());
    }

    /// A turn that is killed at its access number `k`; the death is published.
    fn killed_turn(&self, process: &Process, k: u32) {
        until_killed(k, || self.turn(process));
        self.peers.kill(process.id());
    }

    /// In a thread of its own, `work` as participant `index`.
    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        self.spawn_as(id(index, 1), work)
    }

    fn spawn_as<R: 'static>(
        self: &Arc<Self>,
        me: OwnerId,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::of(&world.peers, me)))
    }
}

#[test]
fn two_threads_exclude_each_other() {
    check("mutex.two", Some(3), 13_500, || {
        let world = World::new(2);
        let other = world.spawn(1, |world, process| {
            let _ = world.turn(process);
            let _ = world.turn(process);
        });
        let process = world.process(0);
        let _ = world.turn(&process);
        let _ = world.turn(&process);
        other.join().unwrap();
        assert_eq!((world.turn(&process), world.get(0)), (Acquired::Clean, 5));
    });
}

#[test]
fn three_threads_exclude_each_other_and_nobody_sleeps_for_ever() {
    check("mutex.three", Some(2), 4_300, || {
        let world = World::new(3);
        let others = [1, 2].map(|i| world.spawn(i, |world, process| world.turn(process)));
        let process = world.process(0);
        assert_eq!(world.turn(&process), Acquired::Clean);
        for other in others {
            assert_eq!(other.join().unwrap(), Acquired::Clean);
        }
        assert_eq!((world.turn(&process), world.get(0)), (Acquired::Clean, 4));
    });
}

#[test]
fn an_owner_killed_at_any_access_hands_the_lock_on() {
    check_deaths("mutex.owner_killed", Some(2), 15, 1_300, |k| {
        let world = World::new(3);
        let victim = world.spawn(1, move |world, process| world.killed_turn(process, k));
        let process = world.process(0);
        let first = world.turn(&process);
        victim.join().unwrap();
        let second = world.turn(&process);
        assert!(first == Acquired::Clean || second == Acquired::Clean, "one death is reported at most once");
        assert_eq!(world.turn(&process), Acquired::Clean);
    });
}

#[test]
fn a_waiter_killed_at_any_access_costs_the_others_no_more_than_a_slice() {
    check_deaths("mutex.waiter_killed", Some(2), 21, 60_000, |k| {
        let world = World::new(3);
        let holder = world.process(0);
        let _ = world.lock(&holder);
        let victim = world.spawn(1, move |world, process| world.killed_turn(process, k));
        let waiter = world.spawn(2, |world, process| world.turn(process));
        world.count(Acquired::Clean);
        world.lock.unlock(&holder, false);
        let _ = waiter.join().unwrap();
        victim.join().unwrap();
        let _ = world.turn(&holder);
        assert_eq!(world.turn(&holder), Acquired::Clean);
    });
}

#[test]
fn one_of_two_recoverers_gets_the_dead_owners_lock() {
    check("mutex.recoverers", Some(3), 19_000, || {
        let world = World::new(3);
        world.die_inside(&world.process(0));
        let other = world.spawn(1, |world, process| world.turn(process));
        let process = world.process(2);
        let results = [world.turn(&process), other.join().unwrap()];
        assert_eq!(results.iter().filter(|r| **r == Acquired::OwnerDied).count(), 1, "{results:?}");
        assert_eq!(world.get(0), 3);
        assert_eq!(world.get(1), 3);
    });
}

#[test]
fn try_lock_recovers_beside_a_waiter() {
    check("mutex.try", Some(3), 7_800, || {
        let world = World::new(3);
        world.die_inside(&world.process(0));
        let other = world.spawn(1, |world, process| world.turn(process));
        let process = world.process(2);
        let tried = world.try_turn(&process);
        let results = [tried, Some(other.join().unwrap())];
        assert_eq!(results.iter().filter(|r| **r == Some(Acquired::OwnerDied)).count(), 1, "{results:?}");
        assert_eq!(world.get(0), if tried.is_some() { 3 } else { 2 });
    });
}

#[test]
fn a_recoverer_killed_at_any_access_is_recovered_from() {
    check_deaths("mutex.recoverer_killed", Some(2), 29, 23_000, |k| {
        let world = World::new(3);
        world.die_inside(&world.process(0));
        let victim = world.spawn(1, move |world, process| world.killed_turn(process, k));
        let process = world.process(2);
        let _ = world.turn(&process);
        victim.join().unwrap();
        let _ = world.turn(&process);
        assert_eq!(world.turn(&process), Acquired::Clean);
    });
}

#[test]
fn a_recoverer_paused_while_the_index_is_reused_leaves_the_new_owner_alone() {
    check("mutex.generations", Some(2), 2_500, || {
        let (dead, reborn) = (id(0, 1), id(0, 2));
        let world = World::of(Peers::of([dead, id(1, 1), reborn]));
        world.die_inside(&Process::of(&world.peers, dead));
        let reborn = world.spawn_as(reborn, |world, process| (world.turn(process), world.turn(process)));
        let process = world.process(1);
        let mine = world.turn(&process);
        let (first, second) = reborn.join().unwrap();
        let results = [mine, first, second];
        assert_eq!(results.iter().filter(|r| **r == Acquired::OwnerDied).count(), 1, "{results:?}");
        assert_eq!(world.get(0), 4);
    });
}

#[test]
fn poison_survives_waiters_and_deaths_until_it_is_cleared() {
    check_deaths("mutex.poison", Some(2), 17, 4_800, |k| {
        let world = World::new(3);
        let process = world.process(0);
        let _ = world.lock(&process);
        let victim = world.spawn(1, move |world, victim| {
            until_killed(k, || {
                let acquired = world.lock(victim);
                assert_eq!(acquired, Acquired::Poisoned);
                world.lock.unlock(victim, true);
            });
            world.peers.kill(victim.id());
        });
        world.lock.unlock(&process, true);
        let acquired = world.lock(&process);
        assert_ne!(acquired, Acquired::Clean);
        world.lock.unlock(&process, true);
        victim.join().unwrap();
        let acquired = world.lock(&process);
        assert_ne!(acquired, Acquired::Clean);
        world.lock.unlock(&process, false);
        assert_eq!(world.lock(&process), Acquired::Clean);
    });
}

#[test]
fn a_waiter_that_gives_up_does_not_take_anothers_wake_along() {
    check("mutex.deadline", Some(2), 3_200, || {
        let world = World::new(3);
        let holder = world.process(0);
        let _ = world.lock(&holder);
        let patient = world.spawn(1, |world, process| world.turn(process));
        let hasty = world.spawn(2, |world, process| match world.lock.lock(process, true) {
            Ok(acquired) => {
                world.count(acquired);
                world.lock.unlock(process, false);
            }
            Err(LockError::TimedOut(_)) => {}
            Err(error) => panic!("{error}"),
        });
        world.count(Acquired::Clean);
        world.lock.unlock(&holder, false);
        assert_eq!(patient.join().unwrap(), Acquired::Clean);
        hasty.join().unwrap();
        assert_eq!(world.turn(&holder), Acquired::Clean);
    });
}

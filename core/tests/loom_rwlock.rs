//! Every interleaving of the reader-writer lock: nobody reads what is being written, and nobody waits for the dead.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::rwlock::{ReadPlace, RwWords};
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::mutex::Acquired;
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

/// A lock with two reader words, and two counters that are equal whenever no writer is inside.
struct World {
    lock: RwWords<2>,
    counters: [Word; 2],
    peers: Arc<Peers>,
}

impl World {
    fn new(processes: u32) -> Arc<Self> {
        let counters = [Word::new(0), Word::new(0)];
        Arc::new(Self { lock: RwWords::default(), counters, peers: Peers::new(processes) })
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

    /// One look at both counters.
    fn look(&self, process: &Process) -> (Acquired, u64) {
        let (place, acquired) = self.lock.read(ReadPlace::default(), process, process.never()).expect("no deadline");
        let first = self.get(0);
        if acquired == Acquired::Clean {
            assert_eq!(first, self.get(1), "a clean lock guards whole values");
        }
        self.lock.unlock_read(place, process);
        (acquired, first)
    }

    /// Repairs what a dead writer left, and counts.
    fn count(&self, process: &Process) -> Acquired {
        let acquired = self.lock.write(process, process.never()).expect("no deadline");
        let first = self.get(0);
        if acquired == Acquired::Clean {
            assert_eq!(first, self.get(1), "a clean lock guards whole values");
        }
        self.set(0, first + 1);
        self.set(1, first + 1);
        self.lock.unlock_write(process, false);
        acquired
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }
}

#[test]
fn a_reader_and_a_writer_exclude_each_other() {
    check("rwlock.reader_writer", Some(2), 11_000, || {
        let world = World::new(2);
        let writer = world.spawn(1, |world, process| (world.count(process), world.count(process)));
        let process = Process::new(&world.peers, 0);
        assert_eq!(world.look(&process).0, Acquired::Clean);
        assert_eq!(world.look(&process).0, Acquired::Clean);
        assert_eq!(writer.join().unwrap(), (Acquired::Clean, Acquired::Clean));
        assert_eq!(world.look(&process), (Acquired::Clean, 2));
    });
}

#[test]
fn two_readers_of_one_process_and_a_writer() {
    check("rwlock.three", Some(1), 3_300, || {
        let world = World::new(2);
        let reader = world.spawn(0, |world, process| world.look(process).0);
        let writer = world.spawn(1, |world, process| world.count(process));
        let process = Process::new(&world.peers, 0);
        assert_eq!(world.look(&process).0, Acquired::Clean);
        assert_eq!(reader.join().unwrap(), Acquired::Clean);
        assert_eq!(writer.join().unwrap(), Acquired::Clean);
        assert_eq!(world.count(&process), Acquired::Clean);
        assert_eq!(world.look(&process).1, 2);
    });
}

#[test]
fn writers_exclude_each_other() {
    check("rwlock.writers", Some(2), 170, || {
        let world = World::new(2);
        let other = world.spawn(1, |world, process| world.count(process));
        let process = Process::new(&world.peers, 0);
        let tried = match world.lock.try_write(&process) {
            Ok(acquired) => {
                assert_eq!(acquired, Acquired::Clean);
                world.set(0, world.get(0) + 1);
                world.set(1, world.get(1) + 1);
                world.lock.unlock_write(&process, false);
                1
            }
            Err(_) => 0,
        };
        let _ = other.join().unwrap();
        assert_eq!(world.look(&process), (Acquired::Clean, 1 + tried));
    });
}

#[test]
fn one_that_tries_to_write_finds_the_reader_or_nobody() {
    check("rwlock.try_write", Some(3), 4_500, || {
        let world = World::new(2);
        let reader = world.spawn(1, |world, process| world.look(process));
        let process = Process::new(&world.peers, 0);
        if let Ok(acquired) = world.lock.try_write(&process) {
            assert_eq!(acquired, Acquired::Clean);
            world.set(0, 1);
            world.set(1, 1);
            world.lock.unlock_write(&process, false);
        }
        assert_eq!(reader.join().unwrap().0, Acquired::Clean);
    });
}

#[test]
fn a_reader_killed_at_any_access_does_not_keep_the_writer_out() {
    check_deaths("rwlock.reader_killed", Some(1), 10, 1_600, |k| {
        let world = World::new(2);
        let process = Process::new(&world.peers, 0);
        assert_eq!(world.count(&process), Acquired::Clean);
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || world.look(process));
            world.peers.kill(process.id());
        });
        assert_eq!(world.count(&process), Acquired::Clean);
        victim.join().unwrap();
        assert_eq!(world.count(&process), Acquired::Clean);
        assert_eq!(world.look(&process), (Acquired::Clean, 3));
    });
}

#[test]
fn a_writer_killed_at_any_access_is_reported_when_it_was_at_the_value() {
    check_deaths("rwlock.writer_killed", Some(1), 15, 510, |k| {
        let world = World::new(2);
        let victim = world.spawn(1, move |world, process| {
            let done = until_killed(k, || world.count(process)).is_some();
            world.peers.kill(process.id());
            done
        });
        let process = Process::new(&world.peers, 0);
        let (first, _) = world.look(&process);
        let done = victim.join().unwrap();
        let (second, _) = world.look(&process);
        let (third, _) = world.look(&process);
        assert!(first == Acquired::Clean || second != Acquired::Clean, "readers repair nothing");
        assert!(second == Acquired::Clean || third != Acquired::Clean, "readers repair nothing");
        assert!(!done || second == Acquired::Clean, "a writer that has ended is no dead owner");
        let repaired = world.count(&process);
        assert_eq!(repaired == Acquired::Clean, third == Acquired::Clean);
        assert_eq!(world.look(&process).0, Acquired::Clean);
    });
}

#[test]
fn a_reader_killed_while_it_passes_a_broken_value_on_hides_nothing() {
    check_deaths("rwlock.passing_killed", Some(0), 10, 200, |k| {
        let world = World::new(3);
        let dead = Process::new(&world.peers, 0);
        assert_eq!(world.lock.write(&dead, dead.never()), Ok(Acquired::Clean));
        world.set(0, 1);
        world.peers.kill(dead.id());
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || assert_ne!(world.look(process).0, Acquired::Clean));
            world.peers.kill(process.id());
        });
        let process = Process::new(&world.peers, 2);
        assert_ne!(world.look(&process).0, Acquired::Clean);
        victim.join().unwrap();
        assert_ne!(world.count(&process), Acquired::Clean);
        assert_eq!(world.look(&process), (Acquired::Clean, 2));
    });
}

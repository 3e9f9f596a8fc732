//! Every interleaving of the reentrant lock: threads of one process exclude each other, and a dead holder's thread is
//! nobody's.
#![cfg(crosslane_loom)]

use core::num::NonZeroU32;
use core::ptr::NonNull;

use crosslane_core::lock::rlock::{NotOwner, RLockWords};
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::mutex::Acquired;
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

/// A lock and two counters that are equal whenever nobody is inside.
struct World {
    lock: RLockWords,
    counters: [Word; 2],
    peers: Arc<Peers>,
}

fn number(thread: u32) -> NonZeroU32 {
    NonZeroU32::new(thread).unwrap()
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: RLockWords::new(), counters: [Word::new(0), Word::new(0)], peers: Peers::new(2) })
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

    fn lock(&self, thread: u32, process: &Process) -> Acquired {
        self.lock.lock(number(thread), process, process.never()).expect("no deadline, no fork, no hostile bytes")
    }

    /// Two levels deep: one counter on each; repairs what a dead holder left.
    fn turn(&self, thread: u32, process: &Process) -> Acquired {
        let acquired = self.lock(thread, process);
        let first = self.get(0);
        if acquired == Acquired::Clean {
            assert_eq!(first, self.get(1), "a clean lock guards whole values");
        } else {
            self.lock.set_broken(false, number(thread), process).expect("it is ours");
        }
        self.set(0, first + 1);
        assert_eq!(self.lock(thread, process), Acquired::Clean);
        self.set(1, first + 1);
        assert_eq!(self.lock.unlock(number(thread), process), Ok(()));
        assert_eq!(self.lock.unlock(number(thread), process), Ok(()));
        acquired
    }
}

#[test]
fn two_threads_of_one_process_exclude_each_other() {
    check("rlock.threads", Some(2), 560, || {
        let world = World::new();
        let other = thread::spawn({
            let world = world.clone();
            move || world.turn(8, &Process::new(&world.peers, 0))
        });
        let process = Process::new(&world.peers, 0);
        assert_eq!(world.turn(7, &process), Acquired::Clean);
        assert_eq!(other.join().unwrap(), Acquired::Clean);
        assert_eq!(world.lock.unlock(number(7), &process), Err(NotOwner));
        assert_eq!((world.turn(7, &process), world.get(0)), (Acquired::Clean, 3));
    });
}

#[test]
fn a_holder_killed_at_any_access_hands_the_lock_on_to_a_thread_of_the_same_number() {
    check_deaths("rlock.killed", Some(1), 22, 1_400, |k| {
        let world = World::new();
        let victim = thread::spawn({
            let world = world.clone();
            move || {
                let process = Process::new(&world.peers, 1);
                until_killed(k, || world.turn(7, &process));
                world.peers.kill(process.id());
            }
        });
        let process = Process::new(&world.peers, 0);
        let first = world.turn(7, &process);
        victim.join().unwrap();
        let second = world.turn(7, &process);
        assert!(first == Acquired::Clean || second == Acquired::Clean, "one death is reported at most once");
        assert_eq!(world.turn(8, &process), Acquired::Clean);
    });
}

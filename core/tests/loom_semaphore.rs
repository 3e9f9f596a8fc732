//! Every interleaving of the semaphore that nobody owns.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::permits::AcquireError;
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

struct World {
    semaphore: SemaphoreWords,
    payload: [Word; 2],
    peers: Arc<Peers>,
}

impl World {
    fn new(count: u32) -> Arc<Self> {
        let semaphore = SemaphoreWords::new(count).unwrap();
        Arc::new(Self { semaphore, payload: [Word::new(0), Word::new(0)], peers: Peers::new(3) })
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }

    fn acquire(&self, process: &Process) {
        self.semaphore.acquire(process, process.never()).expect("no deadline");
    }

    fn get(&self, i: usize) -> u64 {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.payload[i]), 8) };
        value
    }

    fn set(&self, i: usize, value: u64) {
        // SAFETY: eight private bytes and one word.
        unsafe { copy_in(NonNull::from(&self.payload[i]), (&raw const value).cast(), 8) };
    }
}

#[test]
fn a_release_publishes_what_came_before_and_wakes() {
    check("semaphore.publish", Some(3), 6_500, || {
        let world = World::new(0);
        let other = world.spawn(1, |world, process| {
            world.set(0, 7);
            world.semaphore.release(1, process).unwrap();
            world.set(1, 8);
            world.semaphore.release(1, process).unwrap();
        });
        let process = Process::new(&world.peers, 0);
        world.acquire(&process);
        assert_eq!(world.get(0), 7);
        world.acquire(&process);
        assert_eq!(world.get(1), 8);
        assert_eq!(world.semaphore.try_acquire(), Err(AcquireError::WouldBlock));
        other.join().unwrap();
    });
}

#[test]
fn two_waiters_are_both_woken_by_one_release_of_two() {
    check("semaphore.two", Some(2), 2_700, || {
        let world = World::new(0);
        let waiters = [1, 2].map(|i| world.spawn(i, |world, process| world.acquire(process)));
        let process = Process::new(&world.peers, 0);
        world.semaphore.release(2, &process).unwrap();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!(world.semaphore.available(), 0);
    });
}

#[test]
fn a_waiter_killed_at_any_access_costs_the_others_no_more_than_a_slice() {
    check_deaths("semaphore.waiter_killed", Some(1), 8, 2_200, |k| {
        let world = World::new(0);
        let victim = world.spawn(1, move |world, process| {
            let done = until_killed(k, || world.acquire(process)).is_some();
            world.peers.kill(process.id());
            done
        });
        let waiter = world.spawn(2, |world, process| world.acquire(process));
        let process = Process::new(&world.peers, 0);
        world.semaphore.release(1, &process).unwrap();
        world.semaphore.release(1, &process).unwrap();
        waiter.join().unwrap();
        let took = victim.join().unwrap();
        assert!(world.semaphore.available() <= 1 && !(took && world.semaphore.available() == 1));
    });
}

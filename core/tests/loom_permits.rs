//! Every interleaving of a semaphore whose permits name their holders.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::permits::{AcquireError, Permits};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

/// A semaphore, and a counter that is touched by whoever has the only permit.
struct World {
    memory: Memory,
    permits: u32,
    counter: Word,
    peers: Arc<Peers>,
}

impl World {
    fn new(permits: u32, processes: u32) -> Arc<Self> {
        let memory = Memory::new(Permits::layout(permits).unwrap().size());
        // SAFETY: the memory is ours, and nobody else uses it yet.
        let _ = unsafe { Permits::init(memory.ptr(), memory.len_bytes(), permits) }.unwrap();
        Arc::new(Self { memory, permits, counter: Word::new(0), peers: Peers::new(processes) })
    }

    fn permits(&self) -> Permits<'_> {
        // SAFETY: the memory lives as long as `self`, and only semaphores of this layout use it.
        unsafe { Permits::attach(self.memory.ptr(), self.memory.len_bytes(), self.permits) }.unwrap()
    }

    /// With the only permit in hand.
    fn count(&self) -> u64 {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.counter), 8) };
        value += 1;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_in(NonNull::from(&self.counter), (&raw const value).cast(), 8) };
        value
    }

    fn turn(&self, process: &Process) -> u64 {
        let permits = self.permits();
        let place = permits.acquire(process, process.never()).expect("no deadline");
        let count = if self.permits == 1 { self.count() } else { 0 };
        permits.release(place, process).expect("it is ours");
        count
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }

    fn killed_turn(&self, process: &Process, k: u32) {
        until_killed(k, || self.turn(process));
        self.peers.kill(process.id());
    }
}

#[test]
fn one_permit_excludes_and_its_release_wakes() {
    check("permits.one", Some(3), 17_000, || {
        let world = World::new(1, 2);
        let other = world.spawn(1, |world, process| world.turn(process));
        let process = Process::new(&world.peers, 0);
        world.turn(&process);
        other.join().unwrap();
        assert_eq!(world.turn(&process), 3);
    });
}

#[test]
fn two_sleepers_get_the_permit_in_turn() {
    check("permits.sleepers", Some(1), 6_200, || {
        let world = World::new(1, 3);
        let process = Process::new(&world.peers, 0);
        let place = world.permits().acquire(&process, process.never()).unwrap();
        let others = [1, 2].map(|i| world.spawn(i, |world, process| world.turn(process)));
        world.count();
        world.permits().release(place, &process).unwrap();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(world.count(), 4);
    });
}

#[test]
fn no_more_permits_are_out_than_there_are() {
    check("permits.two", Some(2), 1_800, || {
        let world = World::new(2, 3);
        let process = Process::new(&world.peers, 0);
        let mine = world.permits().acquire(&process, process.never()).unwrap();
        let other = world.spawn(1, |world, process| world.turn(process));
        let tried = world.spawn(2, |world, process| {
            let permits = world.permits();
            match permits.try_acquire(process) {
                Ok(place) => permits.release(place, process).expect("it is ours"),
                Err(error) => assert_eq!(error, AcquireError::WouldBlock),
            }
        });
        other.join().unwrap();
        tried.join().unwrap();
        assert_eq!(world.permits().available(), 1);
        world.permits().release(mine, &process).unwrap();
        assert!(world.permits().release(mine, &process).is_err(), "given back already");
        assert_eq!(world.permits().available(), 2);
    });
}

#[test]
fn a_holder_killed_at_any_access_gives_its_permit_back() {
    check_deaths("permits.holder_killed", Some(1), 11, 1_100, |k| {
        let world = World::new(1, 2);
        let victim = world.spawn(1, move |world, process| world.killed_turn(process, k));
        let process = Process::new(&world.peers, 0);
        world.turn(&process);
        victim.join().unwrap();
        assert!((2..=3).contains(&world.turn(&process)));
        assert_eq!(world.permits().available(), 1);
    });
}

#[test]
fn a_waiter_killed_at_any_access_costs_the_others_no_more_than_a_slice() {
    check_deaths("permits.waiter_killed", Some(0), 16, 810, |k| {
        let world = World::new(1, 3);
        let holder = Process::new(&world.peers, 0);
        let place = world.permits().acquire(&holder, holder.never()).unwrap();
        let victim = world.spawn(1, move |world, process| world.killed_turn(process, k));
        let waiter = world.spawn(2, |world, process| world.turn(process));
        world.count();
        world.permits().release(place, &holder).unwrap();
        waiter.join().unwrap();
        victim.join().unwrap();
        world.permits().recover(Process::new(&world.peers, 1).id(), &holder);
        assert_eq!(world.permits().available(), 1);
    });
}

#[test]
fn a_recoverer_killed_at_any_access_is_recovered_from() {
    check_deaths("permits.recoverer_killed", Some(1), 7, 1_000, |k| {
        let world = World::new(2, 3);
        let dead = Process::new(&world.peers, 0);
        for _ in 0..2 {
            let _ = world.permits().acquire(&dead, dead.never()).unwrap();
        }
        world.peers.kill(dead.id());
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || world.permits().recover(dead.id(), process));
            world.peers.kill(process.id());
        });
        let process = Process::new(&world.peers, 2);
        world.turn(&process);
        victim.join().unwrap();
        world.permits().recover(Process::new(&world.peers, 0).id(), &process);
        assert_eq!(world.permits().available(), 2);
    });
}

#[test]
fn a_stale_recoverer_leaves_the_next_holder_alone() {
    check("permits.stale_recoverer", Some(3), 4_200, || {
        let world = World::new(1, 3);
        let dead = Process::new(&world.peers, 0);
        let _ = world.permits().acquire(&dead, dead.never()).unwrap();
        world.peers.kill(dead.id());
        let other = world.spawn(1, {
            let dead = dead.id();
            move |world, process| world.permits().recover(dead, process)
        });
        let process = Process::new(&world.peers, 2);
        let place = world.permits().acquire(&process, process.never()).unwrap();
        other.join().unwrap();
        world.permits().release(place, &process).expect("nobody took it away");
    });
}

//! Every interleaving of a barrier of two.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::barrier::{Barrier, BarrierError, Passed};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

/// A barrier of two, and a word that each party writes before it arrives and the other reads after it got through.
struct World {
    memory: Memory,
    words: [Word; 3],
    peers: Arc<Peers>,
}

impl World {
    fn new() -> Arc<Self> {
        let memory = Memory::new(Barrier::layout(2).unwrap().size());
        // SAFETY: the memory is ours, and nobody else uses it yet.
        let _ = unsafe { Barrier::init(memory.ptr(), memory.len_bytes(), 2) }.unwrap();
        Arc::new(Self { memory, words: [Word::new(0), Word::new(0), Word::new(0)], peers: Peers::new(3) })
    }

    fn barrier(&self) -> Barrier<'_> {
        // SAFETY: the memory lives as long as `self`, and only barriers of this layout use it.
        unsafe { Barrier::attach(self.memory.ptr(), self.memory.len_bytes(), 2) }.unwrap()
    }

    fn get(&self, i: usize) -> u64 {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.words[i]), 8) };
        value
    }

    fn set(&self, i: usize, value: u64) {
        // SAFETY: eight private bytes and one word.
        unsafe { copy_in(NonNull::from(&self.words[i]), (&raw const value).cast(), 8) };
    }

    fn round(&self, i: usize, process: &Process) -> Result<Passed, BarrierError> {
        self.set(i, self.get(i) + 1);
        let passed = self.barrier().wait(process, process.never(), || {
            assert_eq!(self.get(0), self.get(1), "all came");
            self.set(2, self.get(2) + 1);
        });
        if passed.is_ok() {
            assert_eq!((self.get(0), self.get(1)), (self.get(2), self.get(2)), "all came, and the action was done");
        }
        passed
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
fn two_meet_and_one_does_the_action() {
    check("barrier.one", Some(2), 5_900, || {
        let world = World::new();
        let other = world.spawn(1, |world, process| world.round(1, process).unwrap());
        let mine = world.round(0, &Process::new(&world.peers, 0)).unwrap();
        let other = other.join().unwrap();
        assert_eq!(mine.index + other.index, 1);
        assert!(mine.is_leader != other.is_leader);
        assert_eq!(world.barrier().waiting(), 0);
    });
}

#[test]
fn they_meet_again_and_nobody_overtakes_a_round() {
    check("barrier.two", Some(1), 880, || {
        let world = World::new();
        let meet = |world: &World, process: &Process| {
            for _ in 0..2 {
                world.barrier().wait(process, process.never(), || world.set(2, world.get(2) + 1)).unwrap();
            }
        };
        let other = world.spawn(1, meet);
        meet(&world, &Process::new(&world.peers, 0));
        other.join().unwrap();
        assert_eq!(world.get(2), 2);
    });
}

#[test]
fn a_party_killed_at_any_access_breaks_it_or_has_got_through() {
    check_deaths("barrier.killed", Some(1), 10, 1_700, |k| {
        let world = World::new();
        // Comes, gives up, and so is a party that the barrier knows; then everything is new.
        let known = Process::new(&world.peers, 1);
        assert_eq!(world.barrier().wait(&known, true, || ()), Err(BarrierError::TimedOut));
        world.barrier().reset(&known);
        let victim = world.spawn(1, move |world, process| {
            let passed = until_killed(k, || world.barrier().wait(process, process.never(), || ()));
            world.peers.kill(process.id());
            passed.is_some()
        });
        let process = Process::new(&world.peers, 0);
        let mine = world.barrier().wait(&process, process.never(), || ());
        if victim.join().unwrap() {
            assert!(mine.is_ok());
        }
        if mine.is_err() {
            assert_eq!(mine, Err(BarrierError::Broken));
            assert!(world.barrier().is_broken());
        }
        world.barrier().reset(&process);
        assert!(!world.barrier().is_broken());
        assert_eq!(world.barrier().wait(&process, true, || ()), Err(BarrierError::TimedOut));
        assert_eq!(world.barrier().wait(&process, true, || ()), Err(BarrierError::Broken));
    });
}

#[test]
fn one_that_gives_up_breaks_it_for_the_other_or_neither() {
    check("barrier.timeout", Some(2), 4_300, || {
        let world = World::new();
        let hasty = world.spawn(1, |world, process| world.barrier().wait(process, true, || ()));
        let process = Process::new(&world.peers, 0);
        let mine = world.barrier().wait(&process, process.never(), || ());
        let other = hasty.join().unwrap();
        assert_eq!(mine.is_ok(), other.is_ok());
        assert!(mine.is_ok() || (mine, other) == (Err(BarrierError::Broken), Err(BarrierError::TimedOut)));
    });
}

/// A world with one that has arrived, and goes no further.
fn with_one_that_waits() -> Arc<World> {
    let world = World::new();
    let waits = Process::new(&world.peers, 2);
    assert!(until_killed(8, || world.barrier().wait(&waits, waits.never(), || ())).is_none());
    assert_eq!(world.barrier().waiting(), 1);
    world
}

#[test]
fn of_more_than_meet_one_gets_through_with_the_one_that_waits() {
    check("barrier.crowd", Some(2), 10_000, || {
        let world = with_one_that_waits();
        let come = |world: &World, process: &Process| world.barrier().wait(process, true, || ()).is_ok();
        let other = world.spawn(1, come);
        let mine = come(&world, &Process::new(&world.peers, 0));
        let other = other.join().unwrap();
        assert!(!(mine && other), "two got through with one that waits");
    });
}

#[test]
fn an_abort_that_meets_the_end_of_a_round_breaks_the_next() {
    check("barrier.abort", Some(2), 500, || {
        let world = with_one_that_waits();
        let other = world.spawn(1, |world, process| world.barrier().wait(process, process.never(), || ()));
        world.barrier().abort(&Process::new(&world.peers, 0));
        assert_ne!(other.join().unwrap(), Err(BarrierError::TimedOut));
        assert!(world.barrier().is_broken());
    });
}

//! Every interleaving of work that is done once.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::mutex::Acquired;
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

struct World {
    once: OnceWords,
    runs: Word,
    peers: Arc<Peers>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { once: OnceWords::default(), runs: Word::new(0), peers: Peers::new(3) })
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }

    fn runs(&self) -> u64 {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.runs), 8) };
        value
    }

    /// Does the work if it is this process's; how it was left, if it was; how often it has run.
    fn turn(&self, process: &Process) -> (Option<Acquired>, u64) {
        match self.once.begin(process, process.never()).expect("no deadline") {
            Begun::Done => (None, self.runs()),
            Begun::Mine(left) => {
                assert!(!self.once.is_done(), "what is done is not given out again");
                let value = self.runs() + 1;
                // SAFETY: eight private bytes and one word.
                unsafe { copy_in(NonNull::from(&self.runs), (&raw const value).cast(), 8) };
                self.once.finish(true, process);
                (Some(left), value)
            }
        }
    }
}

#[test]
fn one_of_three_does_the_work_and_the_others_see_it() {
    check("once.three", Some(2), 10_000, || {
        let world = World::new();
        let others = [1, 2].map(|i| world.spawn(i, |world, process| world.turn(process)));
        let mut results = vec![world.turn(&Process::new(&world.peers, 0))];
        results.extend(others.into_iter().map(|other| other.join().unwrap()));
        assert_eq!(results.iter().filter(|(left, _)| *left == Some(Acquired::Clean)).count(), 1, "{results:?}");
        assert!(results.iter().all(|(_, runs)| *runs == 1), "{results:?}");
    });
}

#[test]
fn one_killed_at_any_access_leaves_the_work_to_the_next() {
    check_deaths("once.killed", Some(2), 8, 2_300, |k| {
        let world = World::new();
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || world.turn(process));
            world.peers.kill(process.id());
        });
        let process = Process::new(&world.peers, 0);
        let (left, runs) = world.turn(&process);
        victim.join().unwrap();
        assert!((1..=2).contains(&runs));
        assert!(left != Some(Acquired::Poisoned));
        assert!(runs == 1 || left == Some(Acquired::OwnerDied), "begun twice only after a death: {left:?}");
        assert!(world.once.is_done());
        assert_eq!(world.turn(&process).0, None);
    });
}

//! Every interleaving of the flag: nobody sleeps through it, and what came before it is visible.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::lock::flag::FlagWord;
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::wait::Wait;

struct World {
    flag: FlagWord,
    payload: Word,
    peers: Arc<Peers>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { flag: FlagWord::default(), payload: Word::new(0), peers: Peers::new(3) })
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }

    fn publish(&self, process: &Process) {
        let value = 7_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_in(NonNull::from(&self.payload), (&raw const value).cast(), 8) };
        self.flag.set(process);
    }

    fn await_it(&self, process: &Process) {
        assert!(self.flag.wait(process, process.never()));
        self.look();
    }

    fn look(&self) {
        let mut value = 0_u64;
        // SAFETY: eight private bytes and one word.
        unsafe { copy_out((&raw mut value).cast(), NonNull::from(&self.payload), 8) };
        assert_eq!(value, 7);
    }
}

#[test]
fn every_sleeper_is_woken_and_sees_what_came_before() {
    check("flag.two", Some(2), 2_100, || {
        let world = World::new();
        let waiters = [1, 2].map(|i| world.spawn(i, |world, process| world.await_it(process)));
        world.publish(&Process::new(&world.peers, 0));
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert!(world.flag.is_set());
    });
}

#[test]
fn a_flag_that_goes_up_and_down_wakes_its_waiter_at_last() {
    check("flag.pulse", Some(3), 1_100, || {
        let world = World::new();
        let waiter = world.spawn(1, |world, process| world.await_it(process));
        let process = Process::new(&world.peers, 0);
        world.publish(&process);
        world.flag.clear();
        world.flag.set(&process);
        waiter.join().unwrap();
        assert!(world.flag.is_set());
    });
}

#[test]
fn who_finds_it_set_without_waiting_sees_what_came_before() {
    check("flag.look", None, 12, || {
        let world = World::new();
        let setter = world.spawn(1, |world, process| world.publish(process));
        if world.flag.is_set() {
            world.look();
        }
        setter.join().unwrap();
        assert!(world.flag.is_set());
    });
}

#[test]
fn a_setter_killed_at_any_access_has_set_it_or_not() {
    check_deaths("flag.setter_killed", Some(2), 3, 5_200, |k| {
        let world = World::new();
        let victim = world.spawn(1, move |world, process| {
            let done = until_killed(k, || world.publish(process)).is_some();
            world.peers.kill(process.id());
            done
        });
        let waiter = world.spawn(2, |world, process| world.flag.wait(process, process.never()));
        let done = victim.join().unwrap();
        assert!(!done || world.flag.is_set());
        world.flag.set(&Process::new(&world.peers, 0));
        assert!(waiter.join().unwrap());
    });
}

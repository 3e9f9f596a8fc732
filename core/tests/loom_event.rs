//! Every interleaving of wakers and waiters of an event word, some of them killed at every access.
#![cfg(crosslane_loom)]

use crosslane_core::event::{EventWord, Slept};
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{AtomicU32, Ordering};
use crosslane_core::{Slice, Wait, WakeMode};

/// Items without a place: a count that only the event word's fences order.
struct World {
    items: AtomicU32,
    event: EventWord,
    peers: Arc<Peers>,
    mode: WakeMode,
}

impl World {
    fn new(mode: WakeMode) -> Arc<Self> {
        Arc::new(Self { items: AtomicU32::new(0), event: EventWord::new(), peers: Peers::new(3), mode })
    }

    fn process(&self, index: u32) -> Process {
        let process = Process::new(&self.peers, index);
        if self.mode == WakeMode::Asymmetric { process.asymmetric() } else { process }
    }

    fn publish(&self, process: &Process) {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.event.wake(1, self.mode, process);
    }

    fn look(&self) -> bool {
        self.items.load(Ordering::Relaxed) != 0
    }

    fn take(&self) -> bool {
        let mut items = self.items.load(Ordering::Relaxed);
        while items != 0 {
            match self.items.compare_exchange(items, items - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => items = found,
            }
        }
        false
    }

    fn sleep(&self, process: &Process, ready: impl FnOnce() -> bool) -> Slept {
        self.event.sleep_unless(self.mode, Slice::Long, process.never(), process, ready)
    }

    /// Takes one item, sleeping until there is one, and passes the wake on if there are more.
    fn wait_and_take(&self, process: &Process) {
        while !self.take() && self.sleep(process, || self.take()) != Slept::Ready {}
        if self.look() {
            self.event.wake(1, self.mode, process);
        }
    }
}

fn waiting(world: &Arc<World>, index: u32) -> thread::JoinHandle<()> {
    let (world, process) = (world.clone(), world.process(index));
    thread::spawn(move || world.wait_and_take(&process))
}

fn one_waiter(name: &str, mode: WakeMode) {
    check(name, Some(3), 300, move || {
        let world = World::new(mode);
        let waiter = waiting(&world, 1);
        world.publish(&world.process(0));
        waiter.join().unwrap();
    });
}

#[test]
fn a_waiter_gets_what_is_published_meanwhile() {
    one_waiter("event.fenced", WakeMode::Fenced);
}

#[test]
fn a_waiter_gets_what_is_published_meanwhile_asymmetric() {
    one_waiter("event.asymmetric", WakeMode::Asymmetric);
}

/// Where one announced alone and slept, its wake takes the flag away. Who looked again without seeing the item announced twice,
/// and is taken for two.
#[test]
fn one_who_was_woken_costs_no_wake_in_vain() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static SLEPT_ONCE: AtomicUsize = AtomicUsize::new(0);
    check("event.alone", Some(3), 250, || {
        let world = World::new(WakeMode::Fenced);
        let waiter = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || {
                let mut announced = 0;
                while !world.take() {
                    announced += 1;
                    if world.sleep(&process, || world.take()) == Slept::Ready {
                        break;
                    }
                }
                announced
            })
        };
        let me = world.process(0);
        world.publish(&me);
        let announced = waiter.join().unwrap();
        world.publish(&me);
        if announced == 1 && world.peers.sleeps() == 1 {
            SLEPT_ONCE.fetch_add(1, Relaxed);
            assert_eq!(world.peers.wake_calls(), 1, "nobody sleeps when the second item comes");
        }
    });
    assert!(SLEPT_ONCE.load(Relaxed) > 20, "{SLEPT_ONCE:?}");
}

/// Others have announced and left, and a wake comes whose item somebody else took: who announces beside it is not hidden by
/// the flags that it takes away.
fn beside_a_wake_for_nothing(name: &str, announced_before: u32) {
    check(name, Some(3), 4_000, move || {
        let world = World::new(WakeMode::Fenced);
        let me = world.process(0);
        for _ in 0..announced_before {
            world.event.announce(world.mode, &me);
        }
        let waiter = waiting(&world, 1);
        world.event.wake(1, world.mode, &me);
        world.publish(&me);
        waiter.join().unwrap();
    });
}

#[test]
fn a_wake_for_nothing_hides_nobody_where_one_had_announced() {
    beside_a_wake_for_nothing("event.for_nothing.one", 1);
}

#[test]
fn a_wake_for_nothing_hides_nobody_where_several_had_announced() {
    beside_a_wake_for_nothing("event.for_nothing.several", 2);
}

#[test]
fn two_waiters_get_one_item_each() {
    check("event.two_waiters", Some(2), 16_000, || {
        let world = World::new(WakeMode::Fenced);
        let waiters = [waiting(&world, 1), waiting(&world, 2)];
        let me = world.process(0);
        world.publish(&me);
        world.publish(&me);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// The same where both sleep before the first item comes.
#[test]
fn two_who_sleep_get_one_item_each() {
    check("event.two_sleepers", Some(1), 400, || {
        let world = World::new(WakeMode::Fenced);
        let waiters = [waiting(&world, 1), waiting(&world, 2)];
        while world.peers.sleeps() < 2 {
            thread::yield_now();
        }
        let me = world.process(0);
        world.publish(&me);
        world.publish(&me);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn two_wakers_do_not_hide_each_others_items() {
    check("event.two_wakers", Some(2), 4_300, || {
        let world = World::new(WakeMode::Fenced);
        let waker = {
            let world = world.clone();
            thread::spawn(move || world.publish(&world.process(2)))
        };
        let waiter = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || {
                world.wait_and_take(&process);
                world.wait_and_take(&process);
            })
        };
        world.publish(&world.process(0));
        waker.join().unwrap();
        waiter.join().unwrap();
    });
}

/// A waiter dies before each of its accesses: another still gets the item, and the flag that the dead one left behind costs
/// one wake in vain.
#[test]
fn a_dead_waiter_costs_one_wake_in_vain() {
    check_deaths("event.dead_waiter", Some(2), 11, 45_000, |death| {
        let world = World::new(WakeMode::Fenced);
        let victim = {
            let (world, process) = (world.clone(), world.process(2));
            thread::spawn(move || {
                let _ = until_killed(death, || {
                    world.sleep(&process, || world.look());
                    world.event.wake(1, world.mode, &process);
                });
                world.peers.kill(process.id());
            })
        };
        let waiter = waiting(&world, 1);
        let me = world.process(0);
        world.publish(&me);
        waiter.join().unwrap();
        // If the victim lives and found that item gone, it sleeps.
        world.publish(&me);
        victim.join().unwrap();
        world.publish(&me);
        let calls = world.peers.wake_calls();
        world.publish(&me);
        assert_eq!(world.peers.wake_calls(), calls, "the flag has healed");
    });
}

/// A waker dies before each of its accesses, among them between publishing and waking; whoever finds out wakes everybody.
#[test]
fn a_dead_wakers_item_is_found_after_wake_all() {
    check_deaths("event.dead_waker", Some(2), 6, 1_000, |death| {
        let world = World::new(WakeMode::Fenced);
        let waiter = waiting(&world, 1);
        let me = world.process(0);
        let victim = world.process(2);
        let _ = until_killed(death, || world.publish(&victim));
        if !world.look() {
            world.items.fetch_add(1, Ordering::Relaxed);
        }
        world.event.wake_all(&me);
        waiter.join().unwrap();
    });
}

#[test]
fn a_repair_is_seen_by_whoever_falls_asleep_meanwhile() {
    check("event.wake_all", Some(3), 230, || {
        let world = World::new(WakeMode::Fenced);
        let waiter = waiting(&world, 1);
        world.items.fetch_add(1, Ordering::Relaxed);
        world.event.wake_all(&world.process(0));
        waiter.join().unwrap();
    });
}

#[test]
fn two_waiters_share_a_batch() {
    check("event.batch", Some(2), 5_900, || {
        let world = World::new(WakeMode::Fenced);
        let waiters = [waiting(&world, 1), waiting(&world, 2)];
        world.items.fetch_add(2, Ordering::Relaxed);
        world.event.wake(2, world.mode, &world.process(0));
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn an_unregistered_waker_beside_a_registered_one_loses_no_wake() {
    check("event.unregistered", Some(2), 4_500, || {
        let world = World::new(WakeMode::Asymmetric);
        let registered = {
            let world = world.clone();
            thread::spawn(move || world.publish(&world.process(2)))
        };
        let waiter = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || {
                world.wait_and_take(&process);
                world.wait_and_take(&process);
            })
        };
        world.publish(&Process::new(&world.peers, 0));
        registered.join().unwrap();
        waiter.join().unwrap();
    });
}

/// A waiter dies before each access of a whole turn, so also just woken while the other sleeps, or before it passes the
/// wake on.
#[test]
fn a_waiter_killed_with_the_wake_in_hand_leaves_the_item_to_the_other() {
    check_deaths("event.woken_waiter", Some(1), 14, 5_500, |death| {
        let world = World::new(WakeMode::Fenced);
        let victim = {
            let (world, process) = (world.clone(), world.process(2));
            thread::spawn(move || {
                let _ = until_killed(death, || world.wait_and_take(&process));
                world.peers.kill(process.id());
            })
        };
        let waiter = waiting(&world, 1);
        let me = world.process(0);
        world.publish(&me);
        world.publish(&me);
        victim.join().unwrap();
        waiter.join().unwrap();
    });
}

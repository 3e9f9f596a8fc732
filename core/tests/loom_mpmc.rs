//! Every interleaving of small mpmc queues, with producers, consumers and recoverers killed at every access.
#![cfg(crosslane_loom)]

use core::time::Duration;
use std::sync::Arc;

use crosslane_core::model::{Memory, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::mpmc::{Bytes, Payload, PopError, PushError, Queue, Recovered, Ring};
use crosslane_core::prim::{AtomicU32, Ordering};
use crosslane_core::{Liveness, OwnerId, WakeMode};

const SLOTS: u32 = 2;

/// A queue of two slots and its participants.
struct World {
    ring: Ring<'static>,
    peers: Arc<Peers>,
    _memory: Memory,
}

type Q = Queue<'static, u64, Process>;

impl World {
    fn with(mode: WakeMode, payload: Payload, max_attempts: u32) -> Arc<Self> {
        let memory = Memory::new(Ring::layout(SLOTS, payload).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), SLOTS, payload, max_attempts, mode) }.unwrap();
        let ids = [(0, 1), (1, 1), (2, 1), (3, 1), (1, 2)]
            .map(|(index, generation)| OwnerId::new(index, generation).unwrap());
        Arc::new(Self { ring, peers: Peers::of(ids), _memory: memory })
    }

    fn new(mode: WakeMode) -> Arc<Self> {
        Self::with(mode, Payload::of::<u64>().unwrap(), 7)
    }

    fn polling() -> Arc<Self> {
        Self::new(WakeMode::Polling)
    }

    fn queue(&self, index: u32) -> Q {
        Queue::new(self.ring, self.process(index)).unwrap()
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    /// Runs an operation of participant `index`, killed at its access `death`; a death is published at the end.
    fn victim<R>(&self, index: u32, death: u32, operation: impl FnOnce(&Q) -> R) -> Option<R> {
        let queue = self.queue(index);
        let done = until_killed(death, || operation(&queue));
        if done.is_none() {
            self.peers.kill(self.process(index).id());
        }
        done
    }

    /// Repairs what participant `index` held, if it is dead.
    fn recover(&self, index: u32, by: u32) -> Recovered {
        self.queue(by).recover(self.process(index).id())
    }

    /// Nothing is left, and the ring is whole: as many pushes fit as there are slots, and come back in order.
    fn assert_whole(&self, by: u32) {
        let queue = self.queue(by);
        queue.try_push(100).unwrap();
        queue.try_push(101).unwrap();
        assert!(matches!(queue.try_push(0), Err(PushError::Full(None))));
        assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(100), Ok(101)));
    }
}

fn drain(queue: &Q) -> Vec<u64> {
    std::iter::from_fn(|| queue.try_pop().ok()).collect()
}

fn sorted(mut items: Vec<u64>) -> Vec<u64> {
    items.sort_unstable();
    items
}

#[test]
fn two_producers_and_a_consumer_pass_each_item_once() {
    check("mpmc.two_producers", Some(2), 11_800, || {
        let world = World::polling();
        let pushing = [1, 2].map(|i| {
            let queue = world.queue(i);
            thread::spawn(move || queue.try_push(u64::from(i) * 10).unwrap())
        });
        let queue = world.queue(3);
        let mut got: Vec<u64> = (0..2).filter_map(|_| queue.try_pop().ok()).collect();
        for thread in pushing {
            thread.join().unwrap();
        }
        got.extend(drain(&queue));
        assert_eq!(sorted(got), [10, 20]);
        world.assert_whole(3);
    });
}

#[test]
fn a_producer_and_two_consumers_pass_each_item_once_over_a_wrap() {
    check("mpmc.two_consumers", Some(1), 1_200, || {
        let world = World::polling();
        let popping = [1, 2].map(|i| {
            let queue = world.queue(i);
            thread::spawn(move || queue.try_pop().ok())
        });
        let queue = world.queue(3);
        let pushed: Vec<u64> = [10, 20, 30].into_iter().filter(|item| queue.try_push(*item).is_ok()).collect();
        let mut got: Vec<u64> = popping.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        got.extend(drain(&queue));
        assert_eq!(sorted(got), pushed);
        world.assert_whole(3);
    });
}

#[test]
fn items_of_one_producer_stay_in_order() {
    check("mpmc.fifo", Some(2), 1_700, || {
        let world = World::polling();
        let queue = world.queue(1);
        let pushing = thread::spawn(move || (1..=3).take_while(|i| queue.try_push(*i).is_ok()).count() as u64);
        let queue = world.queue(2);
        let mut got: Vec<u64> = (0..3).filter_map(|_| queue.try_pop().ok()).collect();
        let pushed = pushing.join().unwrap();
        got.extend(drain(&queue));
        assert_eq!(got, (1..=pushed).collect::<Vec<_>>());
    });
}

/// A producer dies at every step beside a living one, and a consumer that recovers as soon as the death is proven.
#[test]
fn a_killed_producers_slot_is_skipped_and_nobody_elses_item_lost() {
    check_deaths("mpmc.producer_killed", Some(2), 11, 24_700, |death| {
        let world = World::polling();
        let victim = {
            let world = world.clone();
            thread::spawn(move || world.victim(1, death, |queue| queue.try_push(10)).is_some())
        };
        let living = {
            let queue = world.queue(2);
            thread::spawn(move || queue.try_push(20).unwrap())
        };
        let queue = world.queue(3);
        let mut got = Vec::new();
        match queue.try_pop() {
            Ok(item) => got.push(item),
            Err(PopError::Busy(owner)) => drop(queue.recover(owner)),
            Err(_) => {}
        }
        let finished = victim.join().unwrap();
        living.join().unwrap();
        let recovered = world.recover(1, 3);
        assert!(recovered.skipped <= 1 && recovered.returned == 0);
        got.extend(drain(&queue));
        got.sort_unstable();
        if finished {
            assert_eq!(got, [10, 20]);
        } else {
            // Killed after it had published: the item is there. Before: it never was.
            assert!(got == [20] || got == [10, 20], "{got:?}");
        }
        world.assert_whole(3);
    });
}

/// A consumer dies at every step; its item comes again unless it had let go of the slot.
#[test]
fn a_killed_consumers_item_is_delivered_again() {
    check_deaths("mpmc.consumer_killed", Some(2), 11, 6_100, |death| {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        queue.try_push(20).unwrap();
        let victim = {
            let world = world.clone();
            thread::spawn(move || world.victim(1, death, |queue| queue.try_pop().ok()).flatten())
        };
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                world.recover(1, 2);
                world.queue(2).try_pop().ok()
            })
        };
        let mut got: Vec<u64> = victim.join().unwrap().into_iter().chain(other.join().unwrap()).collect();
        world.recover(1, 3);
        got.extend(drain(&queue));
        got.sort_unstable();
        // Killed after it had let go of the slot, and before it could tell: the item was delivered, to the dead.
        assert!(got == [10, 20] || got == [10] || got == [20], "{got:?}");
        world.assert_whole(3);
    });
}

/// The same, with the account kept in the item's slot: a delivery that was not acknowledged always comes again.
#[test]
fn a_delivery_that_was_not_acknowledged_comes_again() {
    check_deaths("mpmc.delivery_killed", Some(2), 8, 1_400, |death| {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        let victim = {
            let world = world.clone();
            thread::spawn(move || {
                world.victim(1, death, |queue| {
                    if let Ok(delivery) = queue.try_take() {
                        // Killed or forgotten with the item in its hands.
                        std::mem::forget(delivery);
                    }
                });
                world.peers.kill(world.process(1).id());
            })
        };
        world.recover(1, 3);
        let early = queue.try_take().map(|delivery| (delivery.attempts(), delivery.ack())).ok();
        victim.join().unwrap();
        world.recover(1, 3);
        let late = queue.try_take().map(|delivery| (delivery.attempts(), delivery.ack())).ok();
        let (attempts, item) = early.or(late).expect("the item comes");
        assert!(early.is_none() || late.is_none(), "once");
        assert!(item == 10 && attempts <= 1, "{attempts}");
        world.assert_whole(3);
    });
}

/// Nobody joins the dead producer before its slot is used again: only the proof of death orders its last store.
#[test]
fn a_dead_producers_slot_is_used_again_at_once() {
    check_deaths("mpmc.producer_reuse", Some(2), 11, 14_300, |death| {
        let world = World::polling();
        let victim = {
            let world = world.clone();
            thread::spawn(move || world.victim(1, death, |queue| queue.try_push(10)).is_some())
        };
        let queue = world.queue(3);
        let recovered = world.recover(1, 3);
        let pushed: Vec<u64> = [100, 101].into_iter().filter(|item| queue.try_push(*item).is_ok()).collect();
        victim.join().unwrap();
        world.recover(1, 3);
        let got: Vec<u64> = drain(&queue).into_iter().filter(|item| *item >= 100).collect();
        assert_eq!(got, pushed);
        assert!(recovered.skipped == 0 || pushed.len() == 2);
        world.assert_whole(3);
    });
}

/// A consumer sits on slot 0 while the others wrap: neither a hang, nor an overtaken tail, nor a bare `Empty`.
#[test]
fn the_head_wraps_to_a_slow_reader() {
    check_deaths("mpmc.slow_reader", Some(1), 15, 70_000, |death| {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        queue.try_push(20).unwrap();
        let victim = {
            let world = world.clone();
            thread::spawn(move || world.victim(1, death, |queue| queue.try_pop().ok()).flatten())
        };
        let mut got: Vec<u64> = (0..2).filter_map(|_| queue.try_pop().ok()).collect();
        let pushed: Vec<u64> = [30].into_iter().filter(|item| queue.try_push(*item).is_ok()).collect();
        got.extend(queue.try_pop().ok());
        got.extend(victim.join().unwrap());
        world.recover(1, 3);
        got.extend(drain(&queue));
        let all = [vec![10, 20], pushed].concat();
        let unique: std::collections::BTreeSet<u64> = got.iter().copied().collect();
        assert_eq!(unique.len(), got.len(), "no item twice: {got:?}");
        let missing = all.iter().filter(|item| !got.contains(item)).count();
        assert!(missing <= 1, "only what was delivered to the dead may be missing: {got:?} of {all:?}");
        world.assert_whole(3);
    });
}

/// A reader holds slot 0 for ever, the queue wraps: who pops learns behind whom it is.
#[test]
fn a_held_slot_is_busy_and_full_behind_its_owner() {
    check("mpmc.held", Some(2), 190, || {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        queue.try_push(20).unwrap();
        let holder = world.queue(1);
        let held = holder.try_take().unwrap();
        let other = {
            let queue = world.queue(2);
            thread::spawn(move || queue.try_pop())
        };
        let mine = queue.try_pop();
        let theirs = other.join().unwrap();
        assert_eq!(mine.is_ok() as u32 + theirs.is_ok() as u32, 1, "{mine:?} {theirs:?}");
        let owner = holder_id(&world);
        assert_eq!(queue.try_pop(), Err(PopError::Busy(owner)));
        assert_eq!(queue.try_push(30), Err(PushError::Full(Some(owner))));
        assert_eq!(held.ack(), 10);
        world.assert_whole(3);
    });
}

fn holder_id(world: &World) -> OwnerId {
    world.process(1).me().unwrap()
}

#[test]
fn two_recoverers_of_one_death_repair_it_once() {
    check("mpmc.two_recoverers", Some(2), 4_200, || {
        let world = World::polling();
        let queue = world.queue(3);
        // Killed between its claim and FULL.
        assert!(world.victim(1, 5, |queue| queue.try_push(10)).is_none());
        let other = {
            let world = world.clone();
            thread::spawn(move || world.recover(1, 2))
        };
        let mine = world.recover(1, 3);
        let pushed: Vec<u64> = [100, 101].into_iter().filter(|item| queue.try_push(*item).is_ok()).collect();
        let theirs = other.join().unwrap();
        assert_eq!(mine.skipped + theirs.skipped, 1);
        assert_eq!(pushed, [100, 101]);
        assert_eq!(drain(&queue), pushed);
        world.assert_whole(3);
    });
}

/// A producer and a consumer die, each at every step.
#[test]
fn both_sides_may_die() {
    // Death 4 is behind the last access of a push that wins its first compare-and-swap.
    for (producer_death, consumer_death) in [(2, 3), (3, 4), (3, 5), (4, 4), (5, 3)] {
        check("mpmc.both_killed", Some(2), 70, move || {
            let world = World::polling();
            world.queue(3).try_push(20).unwrap();
            let producer = {
                let world = world.clone();
                thread::spawn(move || world.victim(1, producer_death, |queue| queue.try_push(10)).is_some())
            };
            let consumer = {
                let world = world.clone();
                thread::spawn(move || world.victim(2, consumer_death, |queue| queue.try_pop().ok()).flatten())
            };
            let pushed = producer.join().unwrap();
            let mut got: Vec<u64> = consumer.join().unwrap().into_iter().collect();
            world.recover(1, 3);
            world.recover(2, 3);
            got.extend(drain(&world.queue(3)));
            let got = sorted(got);
            assert!(got.iter().all(|item| [10, 20].contains(item)) && got.len() <= 2, "{got:?}");
            // What was pushed is there, but for the one item that may have been delivered to the dead.
            assert!(got.len() >= usize::from(pushed), "{got:?}");
            world.assert_whole(3);
        });
    }
}

/// A recoverer dies at every step; the next one does the rest, and the item comes exactly once more.
#[test]
fn a_killed_recoverers_work_is_finished_by_the_next() {
    check_deaths("mpmc.recoverer_killed", Some(2), 12, 350, |death| {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        let delivery = world.queue(1);
        std::mem::forget(delivery.try_take().unwrap());
        world.peers.kill(world.process(1).id());
        let recoverer = {
            let world = world.clone();
            thread::spawn(move || {
                let dead = world.process(1).id();
                world.victim(2, death, |queue| queue.recover(dead));
            })
        };
        let mut got: Vec<u64> = queue.try_pop().ok().into_iter().collect();
        recoverer.join().unwrap();
        world.recover(1, 3);
        got.extend(drain(&queue));
        assert_eq!(got, [10]);
        world.assert_whole(3);
    });
}

/// A recoverer has proven (1, generation 1) dead and is paused; the index goes to a living process of generation 2,
/// which claims the same slot. The recoverer must not touch its claim.
#[test]
fn a_paused_recoverer_does_not_touch_the_next_generation() {
    check("mpmc.generations", Some(2), 1_100, || {
        let world = World::polling();
        let queue = world.queue(3);
        assert!(world.victim(1, 5, |queue| queue.try_push(10)).is_none());
        let paused = {
            let world = world.clone();
            thread::spawn(move || world.recover(1, 2))
        };
        world.recover(1, 3);
        let reborn = Queue::<u64, _>::new(world.ring, Process::of(&world.peers, OwnerId::new(1, 2).unwrap())).unwrap();
        // SAFETY: both sides run this crate.
        let reborn = unsafe { reborn.trust_peers() };
        let mut mine = reborn.try_reserve().unwrap();
        *mine = 77;
        paused.join().unwrap();
        mine.commit();
        assert_eq!(queue.try_pop(), Ok(77));
        world.assert_whole(3);
    });
}

/// Items that are given back while others look for them: the hint never hides one for good.
#[test]
fn an_item_given_back_is_found() {
    check("mpmc.given_back", Some(2), 550, || {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        let giver = {
            let queue = world.queue(1);
            thread::spawn(move || drop(queue.try_take()))
        };
        let taker = {
            let queue = world.queue(2);
            thread::spawn(move || queue.try_pop().ok())
        };
        giver.join().unwrap();
        let mut got: Vec<u64> = taker.join().unwrap().into_iter().collect();
        got.extend(drain(&queue));
        assert_eq!(got, [10]);
        world.assert_whole(3);
    });
}

/// Somebody dies while it gives an item back: between the slot and the hint nothing names it, and who waits finds the item
/// all the same.
#[test]
fn an_item_whose_giver_died_is_found_by_who_waits() {
    check_deaths("mpmc.giver_killed", Some(2), 10, 2_500, |death| {
        let world = World::polling();
        let queue = world.queue(2);
        queue.try_push(10).unwrap();
        let giver = {
            let world = world.clone();
            thread::spawn(move || world.victim(1, death, |queue| drop(queue.try_take())))
        };
        let early = queue.pop_timeout(Duration::ZERO).ok();
        giver.join().unwrap();
        let late = queue.pop_timeout(Duration::ZERO).ok();
        assert!(early.xor(late) == Some(10), "{early:?} {late:?}");
        world.assert_whole(2);
    });
}

#[test]
fn the_last_attempt_makes_a_dead_letter_that_can_be_taken_or_is_overwritten() {
    check("mpmc.dead_letter", Some(2), 270, || {
        let world = World::with(WakeMode::Polling, Payload::of::<u64>().unwrap(), 1);
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        drop(queue.try_take().unwrap());
        assert_eq!((queue.dead_letters(), queue.try_pop()), (1, Err(PopError::Empty)));
        queue.try_push(20).unwrap();
        let taking = {
            let queue = world.queue(1);
            thread::spawn(move || queue.take_dead_letter().unwrap())
        };
        // This slot is the letter's.
        let pushed = queue.try_push(30).is_ok();
        let taken = taking.join().unwrap();
        let dropped = queue.dropped_letters();
        assert_eq!(u32::from(taken == Some(10)) + dropped, 1, "taken or overwritten, and counted");
        assert_eq!(drain(&queue), if pushed { vec![20, 30] } else { vec![20] });
        world.assert_whole(3);
    });
}

#[test]
fn an_item_behind_a_busy_one_can_be_had_out_of_turn() {
    check("mpmc.skip_busy", Some(2), 420, || {
        let world = World::polling();
        let queue = world.queue(3);
        let writer = world.queue(1);
        // SAFETY: both sides run this crate.
        let writer = unsafe { writer.trust_peers() };
        let mut first = writer.try_reserve().unwrap();
        *first = 10;
        queue.try_push(20).unwrap();
        let other = {
            let queue = world.queue(2);
            thread::spawn(move || queue.try_pop_skip_busy().ok())
        };
        let mut got: Vec<u64> = queue.try_pop_skip_busy().ok().into_iter().collect();
        first.commit();
        got.extend(other.join().unwrap());
        got.extend(drain(&queue));
        assert_eq!(sorted(got), [10, 20]);
        world.assert_whole(3);
    });
}

#[test]
fn an_abandoned_slot_is_skipped() {
    check("mpmc.abandoned", Some(2), 1_200, || {
        let world = World::polling();
        let writer = world.queue(1);
        // SAFETY: both sides run this crate.
        let writer = unsafe { writer.trust_peers() };
        let abandoning = thread::spawn(move || drop(writer.try_reserve().unwrap()));
        let queue = world.queue(3);
        queue.try_push(20).unwrap();
        let mut got: Vec<u64> = queue.try_pop().ok().into_iter().collect();
        abandoning.join().unwrap();
        got.extend(drain(&queue));
        assert_eq!(got, [20]);
        world.assert_whole(3);
    });
}

#[test]
fn batches_pass_each_item_once() {
    check("mpmc.batches", Some(1), 700, || {
        let world = World::polling();
        let pushing = {
            let queue = world.queue(1);
            thread::spawn(move || queue.push_slice(&[1, 2]).unwrap_or(0))
        };
        let queue = world.queue(3);
        let alone = queue.try_push(10).is_ok();
        let mut got = [0; 2];
        let n = queue.pop_slice(&mut got).unwrap_or(0);
        let pushed = pushing.join().unwrap();
        let got = sorted([got[..n].to_vec(), drain(&queue)].concat());
        let mut expected: Vec<u64> = (1..=pushed as u64).collect();
        expected.extend(alone.then_some(10));
        assert_eq!(got, expected);
        world.assert_whole(3);
    });
}

#[test]
fn a_batch_is_read_before_its_slots_are_free() {
    check("mpmc.batch_read", Some(2), 10, || {
        let world = World::polling();
        let queue = world.queue(3);
        assert_eq!(queue.push_slice(&[10, 20]), Ok(2));
        let popping = {
            let queue = world.queue(1);
            thread::spawn(move || {
                let mut room = [0; 2];
                let n = queue.pop_slice(&mut room).unwrap();
                room[..n].to_vec()
            })
        };
        let beside = queue.try_push(30).is_ok();
        let got = [popping.join().unwrap(), drain(&queue)].concat();
        assert_eq!(got, [10, 20, 30][..2 + usize::from(beside)]);
        world.assert_whole(3);
    });
}

/// A batch is claimed as a whole before its first item is there; what its producer's death leaves of it is a prefix.
#[test]
fn a_killed_producers_batch_ends_at_some_item() {
    check_deaths("mpmc.batch_producer_killed", Some(2), 12, 410, |death| {
        let world = World::polling();
        let victim = {
            let world = world.clone();
            thread::spawn(move || world.victim(1, death, |queue| queue.push_slice(&[10, 20])))
        };
        let queue = world.queue(3);
        let mut got: Vec<u64> = queue.try_pop().ok().into_iter().collect();
        let done = victim.join().unwrap();
        world.recover(1, 3);
        got.extend(drain(&queue));
        let expected = done.map_or(got.len(), |pushed| pushed.unwrap());
        assert_eq!(got, [10, 20][..expected]);
        world.assert_whole(3);
    });
}

/// What a batch's consumer had not released comes again when it dies: a suffix, because it releases in order.
#[test]
fn a_killed_consumers_batch_comes_again_from_some_item_on() {
    check_deaths("mpmc.batch_consumer_killed", Some(2), 12, 340, |death| {
        let world = World::polling();
        let queue = world.queue(3);
        assert_eq!(queue.push_slice(&[10, 20]), Ok(2));
        let victim = {
            let world = world.clone();
            thread::spawn(move || {
                let mut room = [0; 2];
                world.victim(1, death, |queue| queue.pop_slice(&mut room)).map(|n| room[..n.unwrap_or(0)].to_vec())
            })
        };
        let beside = queue.try_push(30).is_ok();
        let done = victim.join().unwrap();
        world.recover(1, 3);
        let mut got = drain(&queue);
        if beside {
            assert_eq!(got.pop(), Some(30));
        }
        let released = done.map_or(2 - got.len(), |batch| batch.len());
        assert_eq!(got, [10, 20][released..]);
        world.assert_whole(3);
    });
}

#[test]
fn messages_of_bytes_arrive_whole() {
    check("mpmc.bytes", Some(2), 50, || {
        let world = World::with(WakeMode::Polling, Bytes::payload(12).unwrap(), 7);
        let queue = |i| Bytes::new(world.ring, 12, world.process(i)).unwrap();
        let pushing = {
            let queue = queue(1);
            thread::spawn(move || queue.try_push(b"hello, world").unwrap())
        };
        let queue = queue(3);
        assert_eq!(queue.try_push(&[0; 13]), Err(PushError::TooLong { len: 13, max: 12 }));
        let mut room = [0; 12];
        let early = queue.try_pop_into(&mut room);
        pushing.join().unwrap();
        let len = if early.is_ok() { early } else { queue.try_pop_into(&mut room) };
        assert_eq!((len, &room), (Ok(12), b"hello, world"));
    });
}

/// Two sleepers and two items: no wake is lost, and one wake meant for two is passed on.
#[test]
fn sleeping_consumers_get_their_items() {
    check("mpmc.sleepers", Some(0), 350, || {
        let world = World::new(WakeMode::Fenced);
        let popping = [1, 2].map(|i| {
            let queue = world.queue(i);
            thread::spawn(move || queue.pop().unwrap())
        });
        let queue = world.queue(3);
        assert_eq!(queue.push_slice(&[10, 20]), Ok(2));
        assert_eq!(sorted(popping.map(|thread| thread.join().unwrap()).into()), [10, 20]);
    });
}

#[test]
fn a_sleeping_producer_gets_its_slot() {
    check("mpmc.full", Some(1), 2_600, || {
        let world = World::new(WakeMode::Fenced);
        let queue = world.queue(3);
        queue.push_slice(&[1, 2]).unwrap();
        let pushing = {
            let queue = world.queue(1);
            thread::spawn(move || queue.push(3).unwrap())
        };
        assert_eq!(queue.pop(), Ok(1));
        assert_eq!(queue.pop(), Ok(2));
        assert_eq!(queue.pop(), Ok(3));
        pushing.join().unwrap();
    });
}

/// A consumer sleeps behind a producer that dies at every step: it gets every living item, and never hangs.
#[test]
fn a_consumer_asleep_behind_a_dead_producer_goes_on() {
    check_deaths("mpmc.asleep_behind_dead", Some(1), 12, 13_800, |death| {
        let world = World::new(WakeMode::Fenced);
        let popping = {
            let queue = world.queue(2);
            thread::spawn(move || {
                let mut got = Vec::new();
                while got.last() != Some(&20) {
                    got.push(queue.pop().unwrap());
                }
                got
            })
        };
        let finished = world.victim(1, death, |queue| queue.try_push(10)).is_some();
        world.queue(3).push(20).unwrap();
        let got = popping.join().unwrap();
        assert!(got == [20] && !finished || got == [10, 20], "{got:?}");
    });
}

#[test]
fn closing_wakes_sleepers_and_what_was_pushed_before_is_drained() {
    check("mpmc.closed", Some(1), 280, || {
        let world = World::new(WakeMode::Fenced);
        let popping = {
            let queue = world.queue(2);
            thread::spawn(move || (queue.pop(), queue.pop()))
        };
        let queue = world.queue(1);
        queue.try_push(10).unwrap();
        queue.close();
        assert_eq!(queue.try_push(20), Err(PushError::Closed));
        assert_eq!(popping.join().unwrap(), (Ok(10), Err(PopError::Closed)));
    });
}

/// The last item of a closed queue is taken by one who acknowledges it: whoever waits is told of the end.
#[test]
fn the_end_of_a_closed_queue_comes_with_the_last_acknowledgement() {
    check("mpmc.closed_held", Some(2), 3_500, || {
        let world = World::new(WakeMode::Fenced);
        let queue = world.queue(1);
        queue.try_push(10).unwrap();
        queue.close();
        let taking = {
            let queue = world.queue(2);
            thread::spawn(move || queue.try_take().map(|item| item.ack()))
        };
        let got = queue.pop();
        let taken = taking.join().unwrap();
        assert_eq!([got, taken].iter().flatten().collect::<Vec<_>>(), [&10]);
        assert!(got.is_ok() || got == Err(PopError::Closed), "{got:?}");
    });
}

/// The last item of a closed queue is taken by one who gives it back, or dies at any access: it is delivered all the same.
#[test]
fn a_closed_queue_ends_only_when_nobody_can_give_an_item_back() {
    check_deaths("mpmc.closed_killed", Some(1), 8, 2_000, |death| {
        let world = World::new(WakeMode::Fenced);
        let queue = world.queue(1);
        queue.try_push(10).unwrap();
        queue.close();
        let taking = {
            let world = world.clone();
            thread::spawn(move || {
                world.victim(2, death, |queue| drop(queue.try_take()));
            })
        };
        assert_eq!(queue.pop(), Ok(10));
        taking.join().unwrap();
        world.recover(2, 1);
        assert_eq!(queue.try_pop(), Err(PopError::Closed));
    });
}

/// Who sees another's hint sees the slots before it claimed: else it would meet words there that nobody writes.
#[test]
fn a_producer_behind_anothers_hint_sees_its_claims() {
    check("mpmc.tail_hint", Some(2), 1_000, || {
        let world = World::polling();
        let pushing = {
            let queue = world.queue(1);
            thread::spawn(move || [10, 20].map(|item| queue.try_push(item).is_ok()))
        };
        let pushed = world.queue(2).try_push(30);
        assert!(matches!(pushed, Ok(()) | Err(PushError::Full(_))), "{pushed:?}");
        let [first, second] = pushing.join().unwrap();
        assert_eq!(u32::from(first) + u32::from(second) + u32::from(pushed.is_ok()), SLOTS);
    });
}

#[test]
fn a_consumer_behind_anothers_hint_sees_its_claims() {
    check("mpmc.head_hint", Some(2), 1_000, || {
        let world = World::polling();
        let queue = world.queue(3);
        queue.push_slice(&[10, 20]).unwrap();
        let popping = {
            let queue = world.queue(1);
            thread::spawn(move || [queue.try_pop(), queue.try_pop()])
        };
        let mine = queue.try_pop();
        let theirs = popping.join().unwrap();
        let all = [mine, theirs[0], theirs[1]];
        assert!(all.iter().all(|got| matches!(got, Ok(_) | Err(PopError::Empty | PopError::Busy(_)))), "{all:?}");
        assert_eq!(sorted(all.into_iter().flatten().collect()), [10, 20]);
    });
}

#[test]
fn who_sees_the_queue_closed_sees_what_was_pushed_before() {
    check("mpmc.closed_try", Some(2), 100, || {
        let world = World::polling();
        let closing = {
            let queue = world.queue(1);
            thread::spawn(move || {
                queue.try_push(10).unwrap();
                queue.close();
            })
        };
        let queue = world.queue(2);
        let early = queue.try_pop();
        assert!(matches!(early, Ok(10) | Err(PopError::Empty | PopError::Busy(_))), "{early:?}");
        closing.join().unwrap();
        assert_eq!(queue.try_pop(), if early.is_ok() { Err(PopError::Closed) } else { Ok(10) });
    });
}

/// Only the recoverer proves the death. Another producer gets the slot through the slot's word alone, and must not race
/// with the dead one's last store.
#[test]
fn a_recovered_slot_passes_to_a_producer_that_knows_of_no_death() {
    check("mpmc.recovered_for_another", Some(1), 180, || {
        let world = World::polling();
        // One thread is the victim and then the recoverer: what the first did is known to the second, as by the proof.
        let victim = {
            let world = world.clone();
            thread::spawn(move || {
                // Killed with the payload written, before FULL, if its first compare-and-swap wins.
                world.victim(1, 6, |queue| queue.try_push(10));
                world.recover(1, 2);
            })
        };
        let queue = world.queue(3);
        let pushed: Vec<u64> = [100, 101].into_iter().filter(|item| queue.try_push(*item).is_ok()).collect();
        victim.join().unwrap();
        assert_eq!(drain(&queue), pushed);
        world.assert_whole(3);
    });
}

/// A letter is taken with nothing but its slot's word between the taker and the producer, whom the giver alone has met.
#[test]
fn a_dead_letter_comes_whole_to_who_met_only_its_giver() {
    check("mpmc.letter_for_another", Some(2), 380, || {
        let world = World::with(WakeMode::Polling, Payload::of::<u64>().unwrap(), 1);
        let pushing = {
            let queue = world.queue(1);
            thread::spawn(move || queue.try_push(10).unwrap())
        };
        let giving = {
            let queue = world.queue(2);
            thread::spawn(move || queue.try_take().is_ok())
        };
        let queue = world.queue(3);
        let early = queue.take_dead_letter().unwrap();
        assert!(matches!(early, None | Some(10)), "{early:?}");
        pushing.join().unwrap();
        let given = giving.join().unwrap();
        let late = queue.take_dead_letter().unwrap();
        assert_eq!(early.or(late), given.then_some(10));
        assert!(early.is_none() || late.is_none());
    });
}

/// A hint that nobody's item stands behind is taken back while a recoverer raises it again.
#[test]
fn a_hint_taken_back_late_hides_no_item() {
    check("mpmc.hint_taken_back", Some(2), 160, || {
        let world = World::polling();
        let queue = world.queue(3);
        queue.try_push(10).unwrap();
        std::mem::forget(world.queue(1).try_take().unwrap());
        for index in [0, 1] {
            world.peers.kill(world.process(index).id());
        }
        // It held nothing, and the hint is raised all the same.
        world.recover(0, 3);
        let recoverer = {
            let world = world.clone();
            thread::spawn(move || world.recover(1, 2))
        };
        let early = queue.try_pop().ok();
        recoverer.join().unwrap();
        assert_eq!(early.or(queue.try_pop().ok()), Some(10));
        world.assert_whole(3);
    });
}

/// A worker that pushes another message while it deals with one, and joiners that may look between the two.
#[test]
fn a_join_ends_when_everything_is_done_and_not_before() {
    check("mpmc.join", Some(2), 8_000, || {
        let world = World::with(WakeMode::Fenced, Bytes::payload(8).unwrap(), 7);
        let queue = |i| Bytes::new(world.ring, 8, world.process(i)).unwrap();
        let done = Arc::new(AtomicU32::new(0));
        let (worker, joiner) = (queue(1), queue(2));
        // The message lies in the second slot, and the one that follows from it comes to lie in the first.
        joiner.try_push(&[0]).unwrap();
        worker.try_take().unwrap().ack();
        joiner.try_push(&[1]).unwrap();
        let working = {
            let done = done.clone();
            thread::spawn(move || {
                let first = worker.try_take().unwrap();
                worker.try_push(&[2]).unwrap();
                first.done();
                let second = worker.try_take().unwrap();
                done.store(1, Ordering::Relaxed);
                second.done();
            })
        };
        joiner.join().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 1);
        working.join().unwrap();
    });
}

#[test]
fn the_last_of_two_workers_wakes_who_joins() {
    check("mpmc.join_two", Some(2), 7_700, || {
        let world = World::with(WakeMode::Fenced, Bytes::payload(8).unwrap(), 7);
        let queue = |i| Bytes::new(world.ring, 8, world.process(i)).unwrap();
        let joiner = queue(3);
        joiner.try_push(&[1]).unwrap();
        joiner.try_push(&[2]).unwrap();
        let workers = [queue(1), queue(2)].map(|queue| {
            let held = queue.try_take().unwrap().hold();
            // SAFETY: it came from this handle.
            thread::spawn(move || unsafe { queue.resume(held) }.done())
        });
        joiner.join().unwrap();
        assert!(joiner.is_empty() && matches!(joiner.try_take(), Err(PopError::Empty)));
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

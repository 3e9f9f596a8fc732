//! Every interleaving of small spsc rings, with either side killed at every access.
#![cfg(crosslane_loom)]

use std::time::Duration;

use crosslane_core::WakeMode;
use crosslane_core::end::{ClaimError, End};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::spsc::{Consumer, PopError, Producer, PushError, Ring};

const SLOTS: u32 = 2;

/// A ring of two slots and its participants.
struct World {
    ring: Ring<'static, u64>,
    peers: Arc<Peers>,
    _memory: Memory,
}

type P = Producer<'static, u64, Process>;
type C = Consumer<'static, u64, Process>;

impl World {
    fn new(mode: WakeMode) -> std::sync::Arc<Self> {
        Self::of(SLOTS, mode)
    }

    fn of(slots: u32, mode: WakeMode) -> std::sync::Arc<Self> {
        let memory = Memory::new(Ring::<u64>::layout(slots).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), slots, mode) }.unwrap();
        std::sync::Arc::new(Self { ring, peers: Peers::new(4), _memory: memory })
    }

    fn polling() -> std::sync::Arc<Self> {
        Self::new(WakeMode::Polling)
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn producer(&self, index: u32) -> P {
        self.ring.producer(self.process(index)).unwrap()
    }

    fn consumer(&self, index: u32) -> C {
        self.ring.consumer(self.process(index)).unwrap()
    }
}

fn drain(consumer: &mut C, into: &mut Vec<u64>) {
    while let Ok(item) = consumer.try_pop() {
        into.push(item);
    }
}

#[test]
fn items_arrive_whole_and_in_order_over_a_wrap() {
    check("spsc.wrap", Some(3), 700, || {
        let world = World::polling();
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        let pushing = thread::spawn(move || {
            let pushed = (1..=3).take_while(|i| producer.try_push(*i).is_ok()).count() as u64;
            (pushed, producer)
        });
        let mut got = Vec::new();
        for _ in 0..3 {
            got.extend(consumer.try_pop().ok());
        }
        let (pushed, _producer) = pushing.join().unwrap();
        drain(&mut consumer, &mut got);
        assert_eq!(got, (1..=pushed).collect::<Vec<_>>());
    });
}

/// Four slots, so that a producer looks two slots ahead, into what its consumer frees meanwhile.
#[test]
fn a_producer_that_looks_ahead_overwrites_nothing() {
    check("spsc.look_ahead", Some(3), 700, || {
        let world = World::of(4, WakeMode::Polling);
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        for i in 1..=3 {
            producer.try_push(i).unwrap();
        }
        let pushing = thread::spawn(move || {
            let pushed = (4..=6).take_while(|i| producer.try_push(*i).is_ok()).count() as u64;
            (pushed, producer)
        });
        let mut got = Vec::new();
        for _ in 0..2 {
            got.extend(consumer.try_pop().ok());
        }
        let (pushed, _producer) = pushing.join().unwrap();
        drain(&mut consumer, &mut got);
        assert_eq!(got, (1..=3 + pushed).collect::<Vec<_>>());
    });
}

#[test]
fn batches_arrive_whole_and_in_order() {
    check("spsc.batch", Some(3), 3_800, || {
        let world = World::polling();
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        let pushing = thread::spawn(move || {
            let first = producer.push_slice(&[1, 2]).unwrap();
            let second = producer.push_slice(&[3, 4]).unwrap_or(0);
            (first, second, producer)
        });
        let mut got = Vec::new();
        let mut room = [0; 2];
        for _ in 0..2 {
            if let Ok(n) = consumer.pop_slice(&mut room) {
                got.extend_from_slice(&room[..n]);
            }
        }
        let (first, second, _producer) = pushing.join().unwrap();
        drain(&mut consumer, &mut got);
        assert_eq!(first, 2, "an empty ring takes a whole batch");
        assert_eq!(got, (1..=(first + second) as u64).collect::<Vec<_>>());
    });
}

#[test]
fn a_batch_that_is_asked_for_while_the_producer_closes_loses_nothing() {
    check("spsc.last_batch", Some(3), 1_100, || {
        let world = World::polling();
        let (mut producer, mut consumer) = (world.producer(0), world.consumer(1));
        let pushing = thread::spawn(move || producer.try_push(1).unwrap());
        let (mut got, mut room) = (Vec::new(), [0; 2]);
        let mut end = Ok(());
        for _ in 0..2 {
            match consumer.pop_slice(&mut room) {
                Ok(n) => got.extend_from_slice(&room[..n]),
                Err(error) => end = Err(error),
            }
        }
        if end == Err(PopError::Closed) {
            assert_eq!(got, [1], "closed is behind the last item");
        }
        pushing.join().unwrap();
        drain(&mut consumer, &mut got);
        assert_eq!(got, [1]);
    });
}

#[test]
fn a_lent_slot_is_not_overwritten_while_the_other_wraps() {
    check("spsc.loans", Some(3), 350, || {
        let world = World::polling();
        // SAFETY: both sides run this crate.
        let mut producer = unsafe { world.producer(0).trust_peers() };
        // SAFETY: as above.
        let mut consumer = unsafe { world.consumer(1).trust_peers() };
        producer.try_push(1).unwrap();
        let pushing = thread::spawn(move || {
            let mut pushed = 1;
            for i in 2..=3 {
                if let Ok(mut loan) = producer.loan() {
                    *loan = i;
                    loan.commit().unwrap();
                    pushed += 1;
                }
            }
            (pushed, producer)
        });
        let front = consumer.front().unwrap();
        assert_eq!(*front, 1);
        drop(front);
        if let Ok(front) = consumer.front() {
            front.keep();
        }
        let (pushed, _producer) = pushing.join().unwrap();
        let mut got = vec![1];
        while let Ok(front) = consumer.front() {
            got.push(*front);
        }
        assert_eq!(got, (1..=pushed).collect::<Vec<_>>());
    });
}

/// The victim noted `pushed` after its last push returned: everything up to there arrived, and at most one item more,
/// which was published in the step at which the victim died.
fn published_prefix(got: &[u64], pushed: u64) {
    let len = got.len() as u64;
    assert_eq!(got, (1..=len).collect::<Vec<_>>());
    assert!(len == pushed || len == pushed + 1, "{len} arrived, {pushed} were pushed");
}

/// The producer is killed before each of its accesses; its successor goes on while the consumer moves.
#[test]
fn a_killed_producer_is_succeeded_while_the_consumer_moves_on() {
    check_deaths("spsc.producer_killed", Some(2), 15, 4_000, |death| {
        let world = World::polling();
        let mut consumer = world.consumer(1);
        // A slot of the lap before, so that the rebuild sees a freed one too.
        let mut first = world.producer(3);
        first.try_push(1).unwrap();
        assert_eq!(consumer.try_pop(), Ok(1));
        drop(first);
        let pushing = {
            let world = world.clone();
            thread::spawn(move || {
                let mut pushed = 1;
                let _ = until_killed(death, || {
                    let Ok(mut producer) = world.ring.producer(world.process(0)) else { return };
                    for i in 2..=3 {
                        if producer.try_push(i).is_ok() {
                            pushed = i;
                        }
                    }
                    std::mem::forget(producer);
                });
                world.peers.kill(world.process(0).id());
                pushed
            })
        };
        let mut got = vec![1];
        got.extend(consumer.try_pop().ok());
        match world.ring.producer(world.process(2)) {
            // The victim is dead, or has not come yet and will find the end taken.
            Ok(mut successor) => {
                let early = successor.try_push(100).is_ok();
                drain(&mut consumer, &mut got);
                drop(successor);
                pushing.join().unwrap();
                if early {
                    assert_eq!(got.pop(), Some(100));
                }
                let len = got.len() as u64;
                assert_eq!(got, (1..=len).collect::<Vec<_>>());
            }
            Err(ClaimError::EndTaken(_)) => {
                let pushed = pushing.join().unwrap();
                let mut successor = world.producer(2);
                drain(&mut consumer, &mut got);
                published_prefix(&got, pushed);
                successor.try_push(100).unwrap();
                successor.try_push(101).unwrap();
                assert_eq!(successor.try_push(102), Err(PushError::Full));
                assert_eq!(consumer.try_pop(), Ok(100));
                assert_eq!(consumer.try_pop(), Ok(101));
            }
            Err(error) => panic!("{error}"),
        }
    });
}

/// Nothing is lost: the successor starts at most at the item after the last that the victim is known to have had, and
/// nothing that was released comes again.
fn redelivered_suffix(got: &[u64], popped: u64, last: u64) {
    let first = got.first().copied().unwrap_or(last + 1);
    assert_eq!(got, (first..=last).collect::<Vec<_>>());
    assert!(first <= popped + 2, "item {} is lost", popped + 1);
    assert!(first > popped, "item {first} was released and comes again");
}

/// The consumer is killed before each of its accesses; its successor gets everything that was not released, in order.
#[test]
fn a_killed_consumer_is_succeeded_while_the_producer_moves_on() {
    check_deaths("spsc.consumer_killed", Some(2), 13, 3_000, |death| {
        let world = World::polling();
        let mut producer = world.producer(0);
        producer.try_push(1).unwrap();
        producer.try_push(2).unwrap();
        let popping = {
            let world = world.clone();
            thread::spawn(move || {
                let mut popped = 0;
                let _ = until_killed(death, || {
                    let Ok(mut consumer) = world.ring.consumer(world.process(1)) else { return };
                    for _ in 0..2 {
                        if let Ok(item) = consumer.try_pop() {
                            assert_eq!(item, popped + 1);
                            popped = item;
                        }
                    }
                    std::mem::forget(consumer);
                });
                world.peers.kill(world.process(1).id());
                popped
            })
        };
        let mut last = 2;
        while last < 4 && producer.try_push(last + 1).is_ok() {
            last += 1;
        }
        let mut got = Vec::new();
        let early = world.ring.consumer(world.process(2));
        let before = early.is_ok();
        if let Ok(mut successor) = early {
            drain(&mut successor, &mut got);
            drop(successor);
        }
        let popped = popping.join().unwrap();
        if !before {
            let mut successor = world.consumer(2);
            drain(&mut successor, &mut got);
            redelivered_suffix(&got, popped, last);
            producer.try_push(100).unwrap();
            producer.try_push(101).unwrap();
            assert_eq!(producer.try_push(102), Err(PushError::Full));
            assert_eq!(successor.try_pop(), Ok(100));
        } else if popped == 0 {
            // The successor may have come first and the victim after it: then the victim found nothing.
            let first = got.first().copied().unwrap_or(last + 1);
            assert_eq!(got, (first..=last).collect::<Vec<_>>());
            assert!(first <= 2, "item 1 is lost");
        } else {
            redelivered_suffix(&got, popped, last);
        }
    });
}

fn sleepers(name: &str, mode: WakeMode, asymmetric: bool) {
    check(name, Some(2), 5_700, move || {
        let world = World::new(mode);
        let process = |i| if asymmetric { world.process(i).asymmetric() } else { world.process(i) };
        let mut producer = world.ring.producer(process(0)).unwrap();
        let mut consumer = world.ring.consumer(process(1)).unwrap();
        let popping = thread::spawn(move || (0..3).map(|_| consumer.pop().unwrap()).collect::<Vec<_>>());
        for i in 1..=3 {
            producer.push(i).unwrap();
        }
        assert_eq!(popping.join().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn no_wake_is_lost_fenced() {
    sleepers("spsc.sleep_fenced", WakeMode::Fenced, false);
}

#[test]
fn no_wake_is_lost_asymmetric() {
    sleepers("spsc.sleep_asymmetric", WakeMode::Asymmetric, true);
}

#[test]
fn a_sleeping_consumer_drains_and_then_sees_closed() {
    check("spsc.closed", Some(3), 13_000, || {
        let world = World::new(WakeMode::Fenced);
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        let popping = thread::spawn(move || (consumer.pop(), consumer.pop(), consumer.try_pop()));
        producer.push(1).unwrap();
        drop(producer);
        assert_eq!(popping.join().unwrap(), (Ok(1), Err(PopError::Closed), Err(PopError::Closed)));
    });
}

#[test]
fn a_sleeping_producer_sees_that_its_consumer_has_ended() {
    check("spsc.consumer_closed", Some(3), 11_000, || {
        let world = World::new(WakeMode::Fenced);
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        producer.try_push(1).unwrap();
        producer.try_push(2).unwrap();
        let pushing = thread::spawn(move || (producer.push(3), producer.push(4)));
        assert_eq!(consumer.pop(), Ok(1));
        drop(consumer);
        let (third, fourth) = pushing.join().unwrap();
        assert_eq!((third, fourth), (Ok(()), Err(PushError::Closed)));
    });
}

/// The producer dies before each of its accesses, among them between publishing and waking.
#[test]
fn a_sleeping_consumer_gets_the_last_item_of_a_dead_producer_and_then_its_death() {
    check_deaths("spsc.peer_died", Some(2), 17, 18_000, |death| {
        let world = World::new(WakeMode::Fenced);
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        let dead = world.process(0).id();
        let popping = thread::spawn(move || {
            let mut got = Vec::new();
            loop {
                match consumer.pop() {
                    Ok(item) => got.push(item),
                    Err(end) => return (got, end),
                }
            }
        });
        let mut pushed = 0;
        let _ = until_killed(death, || {
            for i in 1..=2 {
                producer.try_push(i).unwrap();
                pushed = i;
            }
        });
        std::mem::forget(producer);
        world.peers.kill(dead);
        let (got, end) = popping.join().unwrap();
        assert_eq!(end, PopError::PeerDied(dead));
        let len = got.len() as u64;
        assert_eq!(got, (1..=len).collect::<Vec<_>>());
        assert!(len == pushed || len == pushed + 1);
    });
}

#[test]
fn a_deadline_ends_a_wait_on_either_side() {
    check("spsc.deadline", Some(2), 1, || {
        let world = World::new(WakeMode::Fenced);
        let mut producer = world.producer(0);
        let mut consumer = world.consumer(1);
        assert_eq!(consumer.pop_timeout(Duration::ZERO), Err(PopError::TimedOut));
        producer.try_push(1).unwrap();
        producer.try_push(2).unwrap();
        assert_eq!(producer.push_timeout(3, Duration::ZERO), Err(PushError::TimedOut));
        assert!(matches!(world.ring.producer_end(), End::Owned(_)));
    });
}

//! The spsc ring against a `VecDeque`: every operation, ends that close, die and are replaced.
#![allow(unsafe_code)]

use core::fmt::Debug;
use core::time::Duration;
use std::collections::VecDeque;

use arbitrary::Arbitrary;
use crosslane_core::end::ClaimError;
use crosslane_core::spsc::{Consumer, PopError, Producer, PushError, Ring};
use crosslane_core::{Plain, Trusted};

use crate::arena::Arena;
use crate::surroundings::{Env, World};

/// What travels, made from a number.
pub(crate) trait Item: Plain + PartialEq + Debug {
    fn make(number: u64) -> Self;
}

impl Item for u64 {
    fn make(number: u64) -> Self {
        number
    }
}

impl<const N: usize> Item for [u8; N] {
    fn make(number: u64) -> Self {
        let bytes = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        core::array::from_fn(|i| bytes[i % 8].wrapping_add(bytes[i / 8 % 8]))
    }
}

#[derive(Debug, Arbitrary)]
struct Input {
    capacity_log2: u8,
    mode: u8,
    item: u8,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Push,
    PushTimeout(u8),
    PushSlice(u8),
    Pop,
    PopTimeout(u8),
    PopSlice(u8),
    Loan { commit: bool },
    Front { keep: bool },
    ClaimProducer,
    ClaimConsumer,
    CloseProducer,
    CloseConsumer,
    KillProducer,
    KillConsumer,
}

/// What the other side knows of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Vacant,
    Open(u32),
    Closed,
    Dead(u32),
}

/// Runs one input. Planted: a producer that says `Ok` and pushes nothing, at one position in three laps.
///
/// # Panics
/// When ring and model differ.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    match input.item % 4 {
        0 => Play::<u64>::start(&input, planted),
        1 => Play::<[u8; 5]>::start(&input, planted),
        2 => Play::<[u8; 56]>::start(&input, planted),
        _ => Play::<[u8; 160]>::start(&input, planted),
    }
}

struct Play<'m, T: Item> {
    ring: Ring<'m, T>,
    world: &'m World,
    producer: Option<Producer<'m, T, Env<'m>, Trusted>>,
    consumer: Option<Consumer<'m, T, Env<'m>, Trusted>>,
    seats: (Seat, Seat),
    queue: VecDeque<T>,
    pushed: u64,
    popped: u64,
    participants: u32,
    planted: bool,
}

impl<T: Item> Play<'_, T> {
    fn start(input: &Input, planted: bool) {
        let capacity = 2 << (input.capacity_log2 % 4);
        let layout = Ring::<T>::layout(capacity).expect("a power of two");
        let (arena, world) = (Arena::new(layout.size(), input.mode & 0x80 != 0), World::default());
        // SAFETY: the arena is as long as the layout says, and the handles end before it.
        let ring = unsafe { Ring::init(arena.base(), arena.len_bytes(), capacity, crate::mode(input.mode)) };
        let mut play = Play::<T> {
            ring: ring.expect("fits"),
            world: &world,
            producer: None,
            consumer: None,
            seats: (Seat::Vacant, Seat::Vacant),
            queue: VecDeque::new(),
            pushed: 0,
            popped: 0,
            participants: 0,
            planted,
        };
        play.claim_producer();
        play.claim_consumer();
        for op in &input.ops {
            world.next_operation();
            play.step(*op);
        }
        play.drain();
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Push => self.push(None),
            Op::PushTimeout(parks) => self.push(Some(parks)),
            Op::PushSlice(items) => self.push_slice(items.into()),
            Op::Pop => self.pop(None),
            Op::PopTimeout(parks) => self.pop(Some(parks)),
            Op::PopSlice(items) => self.pop_slice(items.into()),
            Op::Loan { commit } => self.loan(commit),
            Op::Front { keep } => self.front(keep),
            Op::ClaimProducer => self.claim_producer(),
            Op::ClaimConsumer => self.claim_consumer(),
            Op::CloseProducer if self.producer.take().is_some() => self.seats.0 = Seat::Closed,
            Op::CloseConsumer if self.consumer.take().is_some() => self.seats.1 = Seat::Closed,
            Op::KillProducer => {
                if let (Some(end), Seat::Open(index)) = (self.producer.take(), self.seats.0) {
                    core::mem::forget(end);
                    self.world.bury(index);
                    self.seats.0 = Seat::Dead(index);
                }
            }
            Op::KillConsumer => {
                if let (Some(end), Seat::Open(index)) = (self.consumer.take(), self.seats.1) {
                    core::mem::forget(end);
                    self.world.bury(index);
                    self.seats.1 = Seat::Dead(index);
                }
            }
            Op::CloseProducer | Op::CloseConsumer => {}
        }
        self.compare();
    }

    /// A participant who has not been here; `None` when all that a world can tell apart are used up.
    fn newcomer(&mut self) -> Option<u32> {
        self.participants += 1;
        (self.participants < 128).then_some(self.participants)
    }

    fn claim_producer(&mut self) {
        let Some(index) = self.newcomer() else { return };
        match (self.ring.producer(Env::new(self.world, index)), self.seats.0) {
            (Err(ClaimError::EndTaken(owner)), Seat::Open(index)) => assert_eq!(owner.index(), index),
            (Ok(end), Seat::Vacant | Seat::Closed | Seat::Dead(_)) => {
                // SAFETY: both ends are this module's.
                self.producer = Some(unsafe { end.trust_peers() });
                self.seats.0 = Seat::Open(index);
            }
            (claimed, seat) => panic!("{claimed:?} of a seat that is {seat:?}"),
        }
    }

    fn claim_consumer(&mut self) {
        let Some(index) = self.newcomer() else { return };
        match (self.ring.consumer(Env::new(self.world, index)), self.seats.1) {
            (Err(ClaimError::EndTaken(owner)), Seat::Open(index)) => assert_eq!(owner.index(), index),
            (Ok(end), Seat::Vacant | Seat::Closed | Seat::Dead(_)) => {
                // SAFETY: both ends are this module's.
                self.consumer = Some(unsafe { end.trust_peers() });
                self.seats.1 = Seat::Open(index);
            }
            (claimed, seat) => panic!("{claimed:?} of a seat that is {seat:?}"),
        }
    }

    fn is_full(&self) -> bool {
        self.queue.len() == self.ring.capacity() as usize
    }

    fn went_in(&mut self, item: T) {
        self.queue.push_back(item);
        self.pushed += 1;
    }

    /// Pushes; without `parks`, by the call that does not block.
    fn push(&mut self, parks: Option<u8>) {
        let (full, item) = (self.is_full(), T::make(self.pushed));
        let planted = self.planted && self.pushed % (3 * u64::from(self.ring.capacity())) == 4;
        let Some(end) = &mut self.producer else { return };
        let pushed = match parks {
            _ if planted && !full => Ok(()),
            None => end.try_push(item),
            Some(parks) => end.push_timeout(item, Duration::from_nanos(parks.into())),
        };
        let expected = match (full, parks, self.seats.1) {
            (false, _, _) => Ok(()),
            (true, None, _) => Err(PushError::Full),
            (true, _, Seat::Closed) => Err(PushError::Closed),
            (true, _, Seat::Dead(index)) => Err(PushError::PeerDied(Env::new(self.world, index).id())),
            (true, _, Seat::Vacant | Seat::Open(_)) => Err(PushError::TimedOut),
        };
        assert_eq!(pushed, expected);
        if pushed.is_ok() {
            self.went_in(item);
        }
    }

    fn push_slice(&mut self, items: usize) {
        let room = self.ring.capacity() as usize - self.queue.len();
        let items: Vec<T> = (self.pushed..).take(items).map(T::make).collect();
        let Some(end) = &mut self.producer else { return };
        let pushed = end.push_slice(&items);
        let expected = if items.is_empty() || room > 0 { Ok(room.min(items.len())) } else { Err(PushError::Full) };
        assert_eq!(pushed, expected);
        for item in &items[..pushed.unwrap_or(0)] {
            self.went_in(*item);
        }
    }

    fn loan(&mut self, commit: bool) {
        let (full, item) = (self.is_full(), T::make(self.pushed));
        let Some(end) = &mut self.producer else { return };
        match end.loan() {
            Ok(mut loan) => {
                assert!(!full);
                *loan = item;
                if commit {
                    loan.commit().unwrap();
                    self.went_in(item);
                }
            }
            Err(error) => assert_eq!((error, full), (PushError::Full, true)),
        }
    }

    /// What an empty ring says to a consumer that does not block.
    fn nothing(&self) -> PopError {
        if self.seats.0 == Seat::Closed { PopError::Closed } else { PopError::Empty }
    }

    fn pop(&mut self, parks: Option<u8>) {
        let nothing = match (parks, self.seats.0) {
            (None, _) | (_, Seat::Closed) => self.nothing(),
            (_, Seat::Dead(index)) => PopError::PeerDied(Env::new(self.world, index).id()),
            (_, Seat::Vacant | Seat::Open(_)) => PopError::TimedOut,
        };
        let Some(end) = &mut self.consumer else { return };
        let popped = match parks {
            None => end.try_pop(),
            Some(parks) => end.pop_timeout(Duration::from_nanos(parks.into())),
        };
        assert_eq!(popped, self.queue.pop_front().ok_or(nothing));
        self.popped += u64::from(popped.is_ok());
    }

    fn pop_slice(&mut self, wanted: usize) {
        let nothing = self.nothing();
        let Some(end) = &mut self.consumer else { return };
        let mut items = vec![T::make(u64::MAX); wanted];
        let popped = end.pop_slice(&mut items);
        let count = wanted.min(self.queue.len());
        assert_eq!(popped, if wanted == 0 || count > 0 { Ok(count) } else { Err(nothing) });
        for item in &items[..count] {
            assert_eq!(Some(*item), self.queue.pop_front());
        }
        self.popped += count as u64;
    }

    fn front(&mut self, keep: bool) {
        let nothing = self.nothing();
        let Some(end) = &mut self.consumer else { return };
        match end.front() {
            Ok(front) => {
                assert_eq!(Some(&*front), self.queue.front());
                if keep {
                    front.keep();
                } else {
                    drop(front);
                    self.queue.pop_front();
                    self.popped += 1;
                }
            }
            Err(error) => assert_eq!((error, self.queue.len()), (nothing, 0)),
        }
    }

    fn compare(&self) {
        if let Some(end) = &self.producer {
            assert_eq!((end.position(), end.is_full()), (self.pushed, self.is_full()));
        }
        if let Some(end) = &self.consumer {
            assert_eq!((end.position(), end.is_empty()), (self.popped, self.queue.is_empty()));
        }
    }

    /// Whatever happened, a successor of the consumer gets the rest.
    fn drain(&mut self) {
        self.world.next_operation();
        if self.consumer.is_none() {
            self.claim_consumer();
        }
        while self.consumer.is_some() && !self.queue.is_empty() {
            self.pop(None);
        }
        self.compare();
    }
}

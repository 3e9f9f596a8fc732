//! The queue of many producers and consumers against a list of its positions: every operation, of items and of messages, by
//! processes that keep claims, give them back, die with them and are recovered.
#![allow(unsafe_code)]

use core::fmt::Debug;
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::mpmc::{
    Bytes, BytesDelivery, BytesReservation, Delivery, Payload, PopError, PushError, Queue, Recovered, Reservation, Ring,
};
use crosslane_core::{OwnerId, Trusted};

use crate::arena::Arena;
use crate::spsc_ops::Item;
use crate::surroundings::{Env, World};

/// Processes at a time.
const PLACES: usize = 3;
/// Processes in all: as many as a world can tell apart.
const PARTICIPANTS: u32 = 120;
/// The longest message, in bytes.
const MESSAGE_BYTES: u32 = 52;
const MAX_ATTEMPTS: u32 = 7;

#[derive(Debug, Arbitrary)]
struct Input {
    capacity_log2: u8,
    mode: u8,
    item: u8,
    max_attempts: u8,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Push { who: u8 },
    PushTimeout { who: u8, parks: u8 },
    PushSlice { who: u8, items: u8 },
    Pop { who: u8 },
    PopTimeout { who: u8, parks: u8 },
    PopSlice { who: u8, items: u8 },
    PopSkipping { who: u8 },
    PopShort { who: u8, room: u8 },
    Take { who: u8 },
    Reserve { who: u8 },
    Settle { which: u8 },
    Drop { which: u8 },
    Letters { who: u8, settle: u8 },
    Kill { who: u8 },
    Recover { who: u8, index: u8 },
    Close { who: u8 },
}

/// Runs one input. Planted: a consumer that acknowledges instead of giving an item back the second time.
///
/// # Panics
/// When queue and model differ.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    match input.item % 5 {
        0 => start::<u64>(&input, false, planted),
        1 => start::<[u8; 5]>(&input, false, planted),
        2 => start::<[u8; 56]>(&input, false, planted),
        3 => start::<[u8; 160]>(&input, false, planted),
        _ => start::<u64>(&input, true, planted),
    }
}

fn start<T: Item>(input: &Input, messages: bool, planted: bool) {
    let capacity = 2 << (input.capacity_log2 % 4);
    let max_attempts = u32::from(input.max_attempts % 7) + 1;
    let payload = if messages { Bytes::payload(MESSAGE_BYTES) } else { Payload::of::<T>() }.expect("short");
    let layout = Ring::layout(capacity, payload).expect("a power of two");
    let (arena, world) = (Arena::new(layout.size(), input.mode & 0x80 != 0), World::default());
    let mode = crate::mode(input.mode);
    // SAFETY: the arena is as long as the layout says, and the handles end before it.
    let ring = unsafe { Ring::init(arena.base(), arena.len_bytes(), capacity, payload, max_attempts, mode) };
    let ring = ring.expect("fits");
    let hands: Vec<Hand<'_, T>> =
        (0..PARTICIPANTS).map(|index| Hand::new(ring, Env::new(&world, index), messages)).collect();
    let model = Model { cells: Vec::new(), capacity: capacity as usize, max_attempts, dropped: 0, closed: false };
    let mut play =
        Play { world: &world, hands: &hands, places: [0, 1, 2], next: 3, claims: Vec::new(), model, made: 0, planted };
    for op in &input.ops {
        world.next_operation();
        play.step(*op);
        play.compare(ring);
    }
    play.finish(ring);
}

/// What came out, to be compared with what went in.
#[derive(Debug, PartialEq)]
enum Seen<T> {
    Item(T),
    Message(Vec<u8>),
}

fn message(number: u64) -> Vec<u8> {
    let len = usize::try_from(number.wrapping_mul(7) % u64::from(MESSAGE_BYTES + 1)).unwrap_or(0);
    (0..len as u64).map(|i| number.wrapping_mul(i | 1).wrapping_add(i).to_le_bytes()[0]).collect()
}

/// A process's handle.
enum Hand<'m, T: Item> {
    Items(Queue<'m, T, Env<'m>, Trusted>),
    Messages(Bytes<'m, Env<'m>, Trusted>),
}

/// A claim of the real queue.
enum Real<'a, 'm, T: Item> {
    Item(Delivery<'a, 'm, T, Env<'m>, Trusted>),
    Message(BytesDelivery<'a, 'm, Env<'m>, Trusted>),
    Slot(Reservation<'a, 'm, T, Env<'m>>),
    Room(BytesReservation<'a, 'm, Env<'m>>),
}

impl<T: Item> Real<'_, '_, T> {
    fn settle(self) {
        match self {
            Self::Item(delivery) => _ = delivery.ack(),
            Self::Message(delivery) => delivery.ack(),
            Self::Slot(slot) => slot.commit(),
            Self::Room(room) => room.commit(),
        }
    }

    fn seen(&self) -> (Seen<T>, u32) {
        match self {
            Self::Item(delivery) => (Seen::Item(**delivery), delivery.attempts()),
            Self::Message(delivery) => (Seen::Message(delivery.as_slice().to_vec()), delivery.attempts()),
            Self::Slot(_) | Self::Room(_) => panic!("nothing was taken"),
        }
    }
}

impl<'m, T: Item> Hand<'m, T> {
    fn new(ring: Ring<'m>, env: Env<'m>, messages: bool) -> Self {
        if messages {
            let queue = Bytes::new(ring, MESSAGE_BYTES, env).expect("of this payload");
            // SAFETY: all handles are this module's.
            Self::Messages(unsafe { queue.trust_peers() })
        } else {
            let queue = Queue::new(ring, env).expect("of this payload");
            // SAFETY: all handles are this module's.
            Self::Items(unsafe { queue.trust_peers() })
        }
    }

    fn make(&self, number: u64) -> Seen<T> {
        match self {
            Self::Items(_) => Seen::Item(T::make(number)),
            Self::Messages(_) => Seen::Message(message(number)),
        }
    }

    fn push(&self, number: u64, time: Option<Duration>) -> Result<(), PushError> {
        match (self, time) {
            (Self::Items(queue), None) => queue.try_push(T::make(number)),
            (Self::Items(queue), Some(time)) => queue.push_timeout(T::make(number), time),
            (Self::Messages(queue), None) => queue.try_push(&message(number)),
            (Self::Messages(queue), Some(time)) => queue.push_timeout(&message(number), time),
        }
    }

    fn push_slice(&self, numbers: core::ops::Range<u64>) -> Result<usize, PushError> {
        match self {
            Self::Items(queue) => queue.push_slice(&numbers.map(T::make).collect::<Vec<T>>()),
            Self::Messages(queue) => {
                for (pushed, number) in numbers.clone().enumerate() {
                    match queue.try_push(&message(number)) {
                        Err(error) if pushed == 0 => return Err(error),
                        Err(_) => return Ok(pushed),
                        Ok(()) => {}
                    }
                }
                Ok(numbers.count())
            }
        }
    }

    fn pop(&self, time: Option<Duration>) -> Result<Seen<T>, PopError> {
        let mut buffer = [0; MESSAGE_BYTES as usize];
        match (self, time) {
            (Self::Items(queue), None) => queue.try_pop().map(Seen::Item),
            (Self::Items(queue), Some(time)) => queue.pop_timeout(time).map(Seen::Item),
            (Self::Messages(queue), None) => {
                queue.try_pop_into(&mut buffer).map(|len| Seen::Message(buffer[..len].to_vec()))
            }
            (Self::Messages(queue), Some(time)) => {
                queue.pop_into_timeout(&mut buffer, time).map(|len| Seen::Message(buffer[..len].to_vec()))
            }
        }
    }

    fn pop_slice(&self, wanted: usize) -> Result<Vec<Seen<T>>, PopError> {
        let mut seen = Vec::new();
        if let Self::Items(queue) = self {
            let mut items = vec![T::make(u64::MAX); wanted];
            let count = queue.pop_slice(&mut items)?;
            seen.extend(items[..count].iter().map(|item| Seen::Item(*item)));
            return Ok(seen);
        }
        while seen.len() < wanted {
            match self.pop(None) {
                Ok(item) => seen.push(item),
                Err(error) if seen.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(seen)
    }

    fn pop_skipping(&self) -> Result<Seen<T>, PopError> {
        let mut buffer = [0; MESSAGE_BYTES as usize];
        match self {
            Self::Items(queue) => queue.try_pop_skip_busy().map(Seen::Item),
            Self::Messages(queue) => {
                queue.try_pop_skip_busy_into(&mut buffer).map(|len| Seen::Message(buffer[..len].to_vec()))
            }
        }
    }

    fn take(&self) -> Result<Real<'_, 'm, T>, PopError> {
        match self {
            Self::Items(queue) => queue.try_take().map(Real::Item),
            Self::Messages(queue) => queue.try_take().map(Real::Message),
        }
    }

    fn reserve(&self, number: u64) -> Result<Real<'_, 'm, T>, PushError> {
        match self {
            Self::Items(queue) => {
                let mut slot = queue.try_reserve()?;
                *slot = T::make(number);
                Ok(Real::Slot(slot))
            }
            Self::Messages(queue) => {
                let message = message(number);
                let mut room = queue.try_reserve(message.len())?;
                room.as_mut_slice().copy_from_slice(&message);
                Ok(Real::Room(room))
            }
        }
    }

    /// The letters; the first `settle` are taken out.
    fn letters(&self, settle: usize) -> Vec<(Seen<T>, u32)> {
        let look = |(i, letter): (usize, Real<'_, 'm, T>)| {
            let seen = letter.seen();
            if i < settle {
                letter.settle();
            }
            seen
        };
        match self {
            Self::Items(queue) => queue.letters().expect("no fork").map(Real::Item).enumerate().map(look).collect(),
            Self::Messages(queue) => {
                queue.letters().expect("no fork").map(Real::Message).enumerate().map(look).collect()
            }
        }
    }

    fn recover(&self, owner: OwnerId) -> Recovered {
        match self {
            Self::Items(queue) => queue.recover(owner),
            Self::Messages(queue) => queue.recover(owner),
        }
    }

    fn close(&self) {
        match self {
            Self::Items(queue) => queue.close(),
            Self::Messages(queue) => queue.close(),
        }
    }
}

/// What a position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Writing { owner: u32, number: u64 },
    Full { number: u64 },
    Reading { owner: u32, number: u64, attempts: u32 },
    Returned { number: u64, attempts: u32 },
    Letter { number: u64, attempts: u32 },
    Done,
}

impl Cell {
    fn holder(self) -> Option<u32> {
        match self {
            Self::Writing { owner, .. } | Self::Reading { owner, .. } => Some(owner),
            _ => None,
        }
    }
}

/// Every position from the first on.
struct Model {
    cells: Vec<Cell>,
    capacity: usize,
    max_attempts: u32,
    dropped: u32,
    closed: bool,
}

fn id(index: u32) -> OwnerId {
    OwnerId::new(index, 1).expect("in range")
}

impl Model {
    /// The positions that may be anything but done: those that still have their slots.
    fn window(&self) -> core::ops::Range<usize> {
        self.cells.len().saturating_sub(self.capacity)..self.cells.len()
    }

    /// Those for which `wanted` holds, in the order of their slots.
    fn by_slot(&self, wanted: impl Fn(Cell) -> bool) -> Vec<usize> {
        let mut found: Vec<usize> = self.window().filter(|at| wanted(self.cells[*at])).collect();
        found.sort_by_key(|at| at % self.capacity);
        found
    }

    fn claim_to_write(&mut self, owner: u32, number: u64) -> Result<usize, PushError> {
        if self.closed {
            return Err(PushError::Closed);
        }
        if let Some(before) = self.cells.len().checked_sub(self.capacity) {
            match self.cells[before] {
                Cell::Done => {}
                Cell::Letter { .. } => {
                    self.cells[before] = Cell::Done;
                    self.dropped += 1;
                }
                Cell::Writing { owner, .. } | Cell::Reading { owner, .. } => {
                    return Err(PushError::Full(Some(id(owner))));
                }
                Cell::Full { .. } | Cell::Returned { .. } => return Err(PushError::Full(None)),
            }
        }
        self.cells.push(Cell::Writing { owner, number });
        Ok(self.cells.len() - 1)
    }

    fn push(&mut self, number: u64) -> Result<(), PushError> {
        self.claim_to_write(0, number).map(|at| self.cells[at] = Cell::Full { number })
    }

    /// The position whose item is next.
    fn next(&self, skips: bool, me: u32) -> Result<usize, PopError> {
        if let Some(at) = self.by_slot(|cell| matches!(cell, Cell::Returned { .. })).first() {
            return Ok(*at);
        }
        let mut busy = None;
        for at in self.window() {
            match self.cells[at] {
                Cell::Full { .. } => return Ok(at),
                Cell::Writing { owner, .. } => {
                    busy.get_or_insert(owner);
                    if !skips {
                        break;
                    }
                }
                _ => {}
            }
        }
        // Nobody has pushed to the slot that is next, and its last item may still be read.
        if let (None, Some(before)) = (busy, self.cells.len().checked_sub(self.capacity))
            && let Cell::Reading { owner, .. } = self.cells[before]
        {
            busy = Some(owner);
        }
        Err(match busy {
            Some(owner) => PopError::Busy(id(owner)),
            None if self.closed => {
                match self.by_slot(|cell| cell.holder().is_some_and(|holder| holder != me)).first() {
                    Some(at) => PopError::Busy(id(self.cells[*at].holder().expect("found by it"))),
                    None => PopError::Closed,
                }
            }
            None => PopError::Empty,
        })
    }

    fn claim_to_read(&mut self, owner: u32, skips: bool) -> Result<(usize, u64, u32), PopError> {
        let at = self.next(skips, owner)?;
        let (number, attempts) = match self.cells[at] {
            Cell::Full { number } => (number, 0),
            Cell::Returned { number, attempts } => (number, attempts),
            cell => panic!("{cell:?} is no item"),
        };
        self.cells[at] = Cell::Reading { owner, number, attempts };
        Ok((at, number, attempts))
    }

    fn pop(&mut self, owner: u32, skips: bool) -> Result<u64, PopError> {
        self.claim_to_read(owner, skips).map(|(at, number, _)| {
            self.cells[at] = Cell::Done;
            number
        })
    }

    /// A delivery, or a reservation, ends with nothing done.
    fn give_up(&mut self, at: usize) {
        self.cells[at] = match self.cells[at] {
            Cell::Reading { number, attempts, .. } => {
                let attempts = (attempts + 1).min(MAX_ATTEMPTS);
                let is_letter = attempts >= self.max_attempts;
                if is_letter { Cell::Letter { number, attempts } } else { Cell::Returned { number, attempts } }
            }
            _ => Cell::Done,
        };
    }

    /// Repairs what those for whom `is_dead` holds had claimed.
    fn recover(&mut self, is_dead: impl Fn(u32) -> bool) -> Recovered {
        let mut found = Recovered::default();
        for at in self.window() {
            match self.cells[at] {
                Cell::Writing { owner, .. } if is_dead(owner) => found.skipped += 1,
                Cell::Reading { owner, .. } if is_dead(owner) => {}
                _ => continue,
            }
            self.give_up(at);
            found.returned += u32::from(matches!(self.cells[at], Cell::Returned { .. }));
            found.dead_letters += u32::from(matches!(self.cells[at], Cell::Letter { .. }));
        }
        found
    }
}

struct Claim<'a, 'm, T: Item> {
    real: Real<'a, 'm, T>,
    at: usize,
    owner: u32,
}

struct Play<'a, 'm, T: Item> {
    world: &'m World,
    hands: &'a [Hand<'m, T>],
    places: [u32; PLACES],
    /// The participant that comes next.
    next: u32,
    claims: Vec<Claim<'a, 'm, T>>,
    model: Model,
    made: u64,
    planted: bool,
}

impl<'a, 'm, T: Item> Play<'a, 'm, T> {
    fn hand(&self, who: u8) -> (u32, &'a Hand<'m, T>) {
        let index = self.places[usize::from(who) % PLACES];
        (index, &self.hands[index as usize])
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Push { who } => self.push(who, None),
            Op::PushTimeout { who, parks } => self.push(who, Some(parks)),
            Op::PushSlice { who, items } => self.push_slice(who, items.into()),
            Op::Pop { who } => self.pop(who, None),
            Op::PopTimeout { who, parks } => self.pop(who, Some(parks)),
            Op::PopSlice { who, items } => self.pop_slice(who, items.into()),
            Op::PopSkipping { who } => {
                let (me, hand) = self.hand(who);
                assert_eq!(hand.pop_skipping(), self.model.pop(me, true).map(|number| hand.make(number)));
            }
            Op::PopShort { who, room } => self.pop_short(who, room.into()),
            Op::Take { who } => self.take(who),
            Op::Reserve { who } => self.reserve(who),
            Op::Settle { which } => self.settle(which),
            Op::Drop { which } => self.give_up(which),
            Op::Letters { who, settle } => self.letters(who, settle.into()),
            Op::Kill { who } => self.kill(who),
            Op::Recover { who, index } => {
                let (index, world) = (u32::from(index) % PARTICIPANTS, self.world);
                let expected = self.model.recover(|owner| owner == index && world.is_buried(index));
                assert_eq!(self.hand(who).1.recover(id(index)), expected);
            }
            Op::Close { who } => {
                self.hand(who).1.close();
                self.model.closed = true;
            }
        }
    }

    fn push(&mut self, who: u8, parks: Option<u8>) {
        let (number, world) = (self.number(), self.world);
        let pushed = self.hand(who).1.push(number, parks.map(|n| Duration::from_nanos(n.into())));
        let mut expected = self.model.push(number);
        if let (Some(_), Err(PushError::Full(_))) = (parks, expected) {
            self.model.recover(|owner| world.is_buried(owner));
            expected = self.model.push(number).map_err(|_| PushError::TimedOut);
        }
        assert_eq!(pushed, expected);
    }

    fn push_slice(&mut self, who: u8, items: u64) {
        let first = self.made + 1;
        self.made += items;
        let pushed = self.hand(who).1.push_slice(first..first + items);
        let mut expected = Ok(0);
        for number in first..first + items {
            match (self.model.push(number), &mut expected) {
                (Ok(()), Ok(count)) => *count += 1,
                (Err(error), Ok(0)) => expected = Err(error),
                _ => {}
            }
            if expected.is_err() || expected != Ok(usize::try_from(number - first + 1).unwrap_or(0)) {
                break;
            }
        }
        assert_eq!(pushed, expected);
    }

    fn pop(&mut self, who: u8, parks: Option<u8>) {
        let ((me, hand), world) = (self.hand(who), self.world);
        let popped = hand.pop(parks.map(|n| Duration::from_nanos(n.into())));
        let mut expected = self.model.pop(me, false);
        if let (Some(_), Err(PopError::Empty | PopError::Busy(_))) = (parks, expected) {
            self.model.recover(|owner| world.is_buried(owner));
            expected = match (self.model.pop(me, false), &popped) {
                // The deadline may pass before a closed queue is seen to be drained.
                (Err(PopError::Closed), Err(error)) if matches!(error, PopError::Closed | PopError::TimedOut) => {
                    Err(*error)
                }
                (Err(_), _) => Err(PopError::TimedOut),
                (done, _) => done,
            };
        }
        assert_eq!(popped, expected.map(|number| hand.make(number)));
    }

    fn pop_slice(&mut self, who: u8, wanted: usize) {
        let (me, hand) = self.hand(who);
        let popped = hand.pop_slice(wanted);
        let (mut numbers, mut stopped) = (Vec::new(), None);
        while numbers.len() < wanted && stopped.is_none() {
            match self.model.pop(me, false) {
                Ok(number) => numbers.push(hand.make(number)),
                Err(error) => stopped = Some(error),
            }
        }
        match stopped {
            Some(error) if numbers.is_empty() => assert_eq!(popped, Err(error)),
            _ => assert_eq!(popped, Ok(numbers)),
        }
    }

    /// A message that does not fit is the next that somebody gets, and counts as not delivered.
    fn pop_short(&mut self, who: u8, room: usize) {
        let (me, Hand::Messages(queue)) = self.hand(who) else { return };
        let mut buffer = vec![0; room % MESSAGE_BYTES as usize];
        let popped = queue.try_pop_into(&mut buffer);
        let expected = self.model.claim_to_read(me, false).and_then(|(at, number, attempts)| {
            let message = message(number);
            if message.len() > buffer.len() {
                self.model.cells[at] = Cell::Returned { number, attempts };
                return Err(PopError::BufferTooShort { needed: message.len() });
            }
            self.model.cells[at] = Cell::Done;
            assert_eq!(buffer[..message.len()], message);
            Ok(message.len())
        });
        assert_eq!(popped, expected);
    }

    fn take(&mut self, who: u8) {
        let (owner, hand) = self.hand(who);
        match (hand.take(), self.model.claim_to_read(owner, false)) {
            (Ok(real), Ok((at, number, attempts))) => {
                assert_eq!(real.seen(), (hand.make(number), attempts));
                self.claims.push(Claim { real, at, owner });
            }
            (real, expected) => assert_eq!(real.err(), expected.err()),
        }
    }

    fn reserve(&mut self, who: u8) {
        let (number, (owner, hand)) = (self.number(), self.hand(who));
        match (hand.reserve(number), self.model.claim_to_write(owner, number)) {
            (Ok(real), Ok(at)) => self.claims.push(Claim { real, at, owner }),
            (real, expected) => assert_eq!(real.err(), expected.err()),
        }
    }

    fn pick(&mut self, which: u8) -> Option<Claim<'a, 'm, T>> {
        let count = self.claims.len();
        (count > 0).then(|| self.claims.swap_remove(usize::from(which) % count))
    }

    fn settle(&mut self, which: u8) {
        let Some(claim) = self.pick(which) else { return };
        let cell = &mut self.model.cells[claim.at];
        *cell = if let Cell::Writing { number, .. } = *cell { Cell::Full { number } } else { Cell::Done };
        claim.real.settle();
    }

    fn give_up(&mut self, which: u8) {
        let Some(claim) = self.pick(which) else { return };
        let again = matches!(self.model.cells[claim.at], Cell::Reading { attempts: 1, .. });
        self.model.give_up(claim.at);
        if self.planted && again { claim.real.settle() } else { drop(claim) }
    }

    fn letters(&mut self, who: u8, settle: usize) {
        let (hand, mut expected) = (self.hand(who).1, Vec::new());
        for (i, at) in self.model.by_slot(|cell| matches!(cell, Cell::Letter { .. })).into_iter().enumerate() {
            let Cell::Letter { number, attempts } = self.model.cells[at] else { continue };
            expected.push((hand.make(number), attempts));
            let again = Cell::Letter { number, attempts: (attempts + 1).min(MAX_ATTEMPTS) };
            self.model.cells[at] = if i < settle { Cell::Done } else { again };
        }
        assert_eq!(hand.letters(settle), expected);
    }

    /// Somebody dies with all its claims, and somebody else comes in its place.
    fn kill(&mut self, who: u8) {
        if self.next == PARTICIPANTS {
            return;
        }
        let place = usize::from(who) % PLACES;
        let dead = self.places[place];
        self.world.bury(dead);
        let (of_the_dead, others) =
            core::mem::take(&mut self.claims).into_iter().partition(|claim| claim.owner == dead);
        self.claims = others;
        let of_the_dead: Vec<_> = of_the_dead;
        of_the_dead.into_iter().for_each(core::mem::forget);
        self.places[place] = self.next;
        self.next += 1;
    }

    fn compare(&self, ring: Ring<'_>) {
        let count =
            |wanted: fn(&Cell) -> bool| self.model.cells[self.model.window()].iter().filter(|c| wanted(c)).count();
        let items = count(|cell| matches!(cell, Cell::Full { .. } | Cell::Returned { .. }));
        let letters = count(|cell| matches!(cell, Cell::Letter { .. }));
        assert_eq!((ring.len(), ring.is_empty()), (items, items == 0));
        assert_eq!((ring.dead_letters(), ring.dropped_letters()), (letters, self.model.dropped));
        assert_eq!(ring.is_closed(), self.model.closed);
    }

    /// All claims end, the dead are repaired, and everything comes out.
    fn finish(mut self, ring: Ring<'_>) {
        self.world.next_operation();
        while !self.claims.is_empty() {
            self.give_up(0);
        }
        for index in 0..self.next {
            let expected = self.model.recover(|owner| owner == index && self.world.is_buried(index));
            assert_eq!(self.hands[0].recover(id(index)), expected);
            self.world.next_operation();
        }
        while self.model.cells[self.model.window()].iter().any(|cell| !matches!(cell, Cell::Done | Cell::Letter { .. }))
        {
            self.world.next_operation();
            self.pop(0, Some(0));
        }
        self.letters(0, usize::MAX);
        self.compare(ring);
    }
}

//! Queues of many producers and consumers under one face, so that each is swept by the same scenes: numbered items, taken
//! and settled.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::mpmc::{self, Bytes, BytesDelivery, Delivery, Payload, PopError, PushError, Recovered, Ring};
use crosslane_core::{Liveness, OwnerId, Trusted, Wait, WakeMode};
use crosslane_tests::mapping::Mapping;

use crate::channel::{Stop, broken, mirror, whole};

/// Items that fit into each queue.
pub(crate) const ROOM: u64 = 4;
/// Slots, the same number.
pub(crate) const SLOTS: u32 = 4;

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Committed, acknowledged.
    Settle,
    /// Dropped: nothing is pushed, or the item is given back.
    Drop,
    /// Neither: its owner is about to die with it.
    Forget,
}

/// An item, and how often it was delivered before.
pub(crate) type Taken = (u64, u32);

/// A queue in shared memory.
pub(crate) trait Work<'m> {
    /// A process's access to it.
    type Hand<E: Wait + Liveness>: Hand;
    /// Makes an empty queue in zeroed memory, which delivers an item so many times.
    fn make(memory: &'m Mapping, max_attempts: u32) -> Self;
    fn hand<E: Wait + Liveness>(&self, env: E) -> Self::Hand<E>;
}

/// What a process does with a queue. Without `time` a call does not wait.
pub(crate) trait Hand {
    fn push(&self, item: u64, time: Option<Duration>) -> Result<(), Stop>;
    /// Takes an item and works on it before it is settled.
    fn take(&self, time: Option<Duration>, then: Then, work: impl FnOnce(u64)) -> Result<Taken, Stop>;
    /// Takes an item and is done with it at once.
    fn pop(&self, time: Option<Duration>) -> Result<u64, Stop>;
    fn push_two(&self, _: u64) -> Result<(), Stop> {
        Err(broken("no batches"))
    }
    fn pop_two(&self) -> Result<[u64; 2], Stop> {
        Err(broken("no batches"))
    }
    fn reserve(&self, _: u64, _: Then) -> Result<(), Stop> {
        Err(broken("no reservations"))
    }
    /// Pops, past what is still being written.
    fn pop_skipping(&self) -> Result<u64, Stop> {
        Err(broken("no skipping"))
    }
    /// Pops into a buffer that is too short for the message, which stays.
    fn pop_in_vain(&self) -> Result<(), Stop> {
        Err(broken("no lengths"))
    }
    fn take_letter(&self) -> Result<Option<u64>, Stop> {
        Ok(None)
    }
    /// Looks at each dead letter, and leaves it where it is.
    fn list_letters(&self) -> Result<Vec<u64>, Stop> {
        Ok(Vec::new())
    }
    fn recover(&self, _: OwnerId) -> Recovered {
        Recovered::default()
    }
    /// Dead letters that wait, and that were dropped.
    fn letters(&self) -> (u64, u64) {
        (0, 0)
    }
    fn len(&self) -> u64;
    /// Whether the slot that is next holds something.
    fn is_full(&self) -> bool {
        self.len() == ROOM
    }
    fn is_closed(&self) -> bool {
        false
    }
    fn close(&self) {}
}

fn no_push(error: PushError) -> Stop {
    match error {
        PushError::Full(_) => Stop::NotNow,
        PushError::TimedOut => Stop::TimedOut,
        PushError::Closed => Stop::Closed,
        other => broken(other),
    }
}

fn no_pop(error: PopError) -> Stop {
    match error {
        PopError::Empty | PopError::Busy(_) => Stop::NotNow,
        PopError::TimedOut => Stop::TimedOut,
        PopError::Closed => Stop::Closed,
        other => broken(other),
    }
}

fn settle<E: Wait + Liveness>(
    taken: Result<Delivery<'_, '_, [u64; 2], E, Trusted>, PopError>,
    then: Then,
    work: impl FnOnce(u64),
) -> Result<Taken, Stop> {
    let delivery = taken.map_err(no_pop)?;
    let taken = (whole(delivery[0], delivery[1])?, delivery.attempts());
    work(taken.0);
    match then {
        Then::Settle => _ = delivery.ack(),
        Then::Drop => drop(delivery),
        Then::Forget => core::mem::forget(delivery),
    }
    Ok(taken)
}

/// Where the slots begin, and how long each is, in words, and where the lap and the state are in a slot's first: see the
/// layout of `mpmc`.
pub(crate) const SLOTS_AT: usize = 640 / 8;
pub(crate) const SLOT_WORDS: usize = 4;
pub(crate) const LAP_SHIFT: u32 = 28;
pub(crate) const OWNER: u64 = (1 << 22) - 1;
pub(crate) const STATE: u64 = 7 << 22;
pub(crate) const READING: u64 = 3 << 22;

/// The words of a queue's memory, seen past the library.
pub(crate) type Raw = [AtomicU64; SLOTS_AT + SLOT_WORDS * SLOTS as usize];

fn raw(memory: &Mapping) -> &Raw {
    // SAFETY: integers in atomics: every bit pattern is one.
    unsafe { memory.at(0) }
}

/// Whether the first position from the tail on that nobody has claimed lies in a slot that still holds something.
fn is_full(raw: &Raw) -> bool {
    let tail = raw[0].load(SeqCst);
    (tail..tail + 2 * ROOM).find_map(|position| {
        let word = raw[SLOTS_AT + SLOT_WORDS * usize::try_from(position % ROOM).unwrap_or(0)].load(SeqCst);
        match (word >> LAP_SHIFT).cmp(&(position / ROOM)) {
            core::cmp::Ordering::Less => Some(true),
            core::cmp::Ordering::Equal if word & STATE == 0 => Some(false),
            _ => None,
        }
    }) == Some(true)
}

/// A handle of `crosslane-core` itself, where others have one that leads to it.
#[derive(Debug)]
pub(crate) struct Bare<T>(T);

impl<T> Deref for Bare<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A handle of `crosslane-core` to a queue of fixed items.
pub(crate) type Items<'m, E> = mpmc::Queue<'m, [u64; 2], E, Trusted>;

/// The queue of fixed items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed<'m>(Ring<'m>, pub(crate) &'m Raw);

/// A handle that leads to [`Items`]; with its memory, where that can be looked at.
#[derive(Debug)]
pub(crate) struct FixedHand<'m, Q>(pub(crate) Q, pub(crate) Option<&'m Raw>);

impl<'m> Work<'m> for Fixed<'m> {
    type Hand<E: Wait + Liveness> = FixedHand<'m, Bare<Items<'m, E>>>;

    fn make(memory: &'m Mapping, max_attempts: u32) -> Self {
        let (payload, len_bytes) = (Payload::of::<[u64; 2]>().expect("short"), memory.len_bytes());
        // SAFETY: the mapping outlives the queue by its borrow, and its scene uses it for nothing else.
        let ring = unsafe { Ring::init(memory.base(), len_bytes, SLOTS, payload, max_attempts, WakeMode::Fenced) };
        Self(ring.expect("a mapping is large and aligned enough"), raw(memory))
    }

    fn hand<E: Wait + Liveness>(&self, env: E) -> Self::Hand<E> {
        let queue = mpmc::Queue::new(self.0, env).expect("of this payload");
        // SAFETY: every process of the scene uses the queue through this crate.
        FixedHand(Bare(unsafe { queue.trust_peers() }), Some(self.1))
    }
}

impl<'q, E: Wait + Liveness, Q: Deref<Target = Items<'q, E>>> FixedHand<'_, Q> {
    /// Claims a slot, fills it and commits it after `work`.
    pub(crate) fn reserve_while(&self, item: u64, work: impl FnOnce()) -> Result<(), Stop> {
        let mut slot = self.0.try_reserve().map_err(no_push)?;
        *slot = [item, mirror(item)];
        work();
        slot.commit();
        Ok(())
    }
}

impl<'q, E: Wait + Liveness, Q: Deref<Target = Items<'q, E>>> Hand for FixedHand<'_, Q> {
    fn push(&self, item: u64, time: Option<Duration>) -> Result<(), Stop> {
        let whole = [item, mirror(item)];
        match time {
            None => self.0.try_push(whole),
            Some(time) => self.0.push_timeout(whole, time),
        }
        .map_err(no_push)
    }

    fn take(&self, time: Option<Duration>, then: Then, work: impl FnOnce(u64)) -> Result<Taken, Stop> {
        match time {
            None => settle(self.0.try_take(), then, work),
            Some(time) => settle(self.0.take_timeout(time), then, work),
        }
    }

    fn pop(&self, time: Option<Duration>) -> Result<u64, Stop> {
        let popped = match time {
            None => self.0.try_pop(),
            Some(time) => self.0.pop_timeout(time),
        };
        popped.map_err(no_pop).and_then(|[item, mirrored]| whole(item, mirrored))
    }

    fn push_two(&self, item: u64) -> Result<(), Stop> {
        match self.0.push_slice(&[[item, mirror(item)], [item + 1, mirror(item + 1)]]) {
            Ok(2) => Ok(()),
            other => Err(broken(other)),
        }
    }

    fn pop_two(&self) -> Result<[u64; 2], Stop> {
        let mut items = [[0; 2]; 2];
        match self.0.pop_slice(&mut items) {
            Ok(2) => Ok([whole(items[0][0], items[0][1])?, whole(items[1][0], items[1][1])?]),
            other => Err(broken(other)),
        }
    }

    fn reserve(&self, item: u64, then: Then) -> Result<(), Stop> {
        let mut slot = self.0.try_reserve().map_err(no_push)?;
        *slot = [item, mirror(item)];
        match then {
            Then::Settle => slot.commit(),
            Then::Drop => drop(slot),
            Then::Forget => core::mem::forget(slot),
        }
        Ok(())
    }

    fn pop_skipping(&self) -> Result<u64, Stop> {
        self.0.try_pop_skip_busy().map_err(no_pop).and_then(|[item, mirrored]| whole(item, mirrored))
    }

    fn take_letter(&self) -> Result<Option<u64>, Stop> {
        match self.0.take_dead_letter().map_err(no_pop)? {
            Some([item, mirrored]) => whole(item, mirrored).map(Some),
            None => Ok(None),
        }
    }

    fn list_letters(&self) -> Result<Vec<u64>, Stop> {
        self.0.letters().map_err(no_pop)?.map(|letter| whole(letter[0], letter[1])).collect()
    }

    fn recover(&self, owner: OwnerId) -> Recovered {
        self.0.recover(owner)
    }

    fn letters(&self) -> (u64, u64) {
        (self.0.dead_letters() as u64, self.0.dropped_letters().into())
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn is_full(&self) -> bool {
        self.1.map_or(self.len() == ROOM, is_full)
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&self) {
        self.0.close();
    }
}

/// Bytes of a message: no multiple of 8.
const MESSAGE_BYTES: usize = 13;
/// The longest message, in bytes.
pub(crate) const MOST_BYTES: u32 = 15;

fn encode(item: u64) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    bytes[..8].copy_from_slice(&item.to_le_bytes());
    bytes[8..].copy_from_slice(&mirror(item).to_le_bytes()[..MESSAGE_BYTES - 8]);
    bytes
}

fn decode(len: usize, bytes: [u8; MESSAGE_BYTES]) -> Result<u64, Stop> {
    let item = bytes[..8].try_into().map(u64::from_le_bytes).map_err(broken)?;
    if len == MESSAGE_BYTES && bytes == encode(item) {
        Ok(item)
    } else {
        Err(Stop::Broken(format!("torn message of {len} bytes: {bytes:02x?}")))
    }
}

/// A handle of `crosslane-core` to a queue of messages.
pub(crate) type Texts<'m, E> = Bytes<'m, E, Trusted>;

/// The queue of messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages<'m>(Ring<'m>, &'m Raw);

/// A handle that leads to [`Texts`]; with its memory, where that can be looked at.
#[derive(Debug)]
pub(crate) struct MessagesHand<'m, Q>(pub(crate) Q, pub(crate) Option<&'m Raw>);

impl<'m> Work<'m> for Messages<'m> {
    type Hand<E: Wait + Liveness> = MessagesHand<'m, Bare<Texts<'m, E>>>;

    fn make(memory: &'m Mapping, max_attempts: u32) -> Self {
        let (payload, len_bytes) = (Bytes::payload(MOST_BYTES).expect("short"), memory.len_bytes());
        // SAFETY: the mapping outlives the queue by its borrow, and its scene uses it for nothing else.
        let ring = unsafe { Ring::init(memory.base(), len_bytes, SLOTS, payload, max_attempts, WakeMode::Fenced) };
        Self(ring.expect("a mapping is large and aligned enough"), raw(memory))
    }

    fn hand<E: Wait + Liveness>(&self, env: E) -> Self::Hand<E> {
        let queue = Bytes::new(self.0, MOST_BYTES, env).expect("of this payload");
        // SAFETY: every process of the scene uses the queue through this crate.
        MessagesHand(Bare(unsafe { queue.trust_peers() }), Some(self.1))
    }
}

fn read<E: Wait + Liveness>(delivery: &BytesDelivery<'_, '_, E, Trusted>) -> Result<u64, Stop> {
    let mut bytes = [0; MESSAGE_BYTES];
    let len = delivery.len_bytes();
    delivery.copy_to(&mut bytes[..len.min(MESSAGE_BYTES)]);
    decode(len, bytes)
}

impl<'q, E: Wait + Liveness, Q: Deref<Target = Texts<'q, E>>> Hand for MessagesHand<'_, Q> {
    fn push(&self, item: u64, time: Option<Duration>) -> Result<(), Stop> {
        match time {
            None => self.0.try_push(&encode(item)),
            Some(time) => self.0.push_timeout(&encode(item), time),
        }
        .map_err(no_push)
    }

    fn take(&self, time: Option<Duration>, then: Then, work: impl FnOnce(u64)) -> Result<Taken, Stop> {
        let taken = match time {
            None => self.0.try_take(),
            Some(time) => self.0.take_timeout(time),
        };
        let delivery = taken.map_err(no_pop)?;
        let taken = (read(&delivery)?, delivery.attempts());
        work(taken.0);
        match then {
            Then::Settle => delivery.ack(),
            Then::Drop => drop(delivery),
            Then::Forget => core::mem::forget(delivery),
        }
        Ok(taken)
    }

    fn pop(&self, time: Option<Duration>) -> Result<u64, Stop> {
        let mut bytes = [0; MESSAGE_BYTES];
        let len = match time {
            None => self.0.try_pop_into(&mut bytes),
            Some(time) => self.0.pop_into_timeout(&mut bytes, time),
        };
        len.map_err(no_pop).and_then(|len| decode(len, bytes))
    }

    fn reserve(&self, item: u64, then: Then) -> Result<(), Stop> {
        let mut slot = self.0.try_reserve(MESSAGE_BYTES).map_err(no_push)?;
        slot.as_mut_slice().copy_from_slice(&encode(item));
        match then {
            Then::Settle => slot.commit(),
            Then::Drop => drop(slot),
            Then::Forget => core::mem::forget(slot),
        }
        Ok(())
    }

    fn pop_skipping(&self) -> Result<u64, Stop> {
        let mut bytes = [0; MESSAGE_BYTES];
        self.0.try_pop_skip_busy_into(&mut bytes).map_err(no_pop).and_then(|len| decode(len, bytes))
    }

    fn pop_in_vain(&self) -> Result<(), Stop> {
        match self.0.try_pop_into(&mut [0; 5]) {
            Err(PopError::BufferTooShort { needed: MESSAGE_BYTES }) => Ok(()),
            other => Err(broken(other)),
        }
    }

    fn take_letter(&self) -> Result<Option<u64>, Stop> {
        let Some(letter) = self.0.letters().map_err(no_pop)?.next() else { return Ok(None) };
        let item = read(&letter)?;
        letter.ack();
        Ok(Some(item))
    }

    fn list_letters(&self) -> Result<Vec<u64>, Stop> {
        self.0.letters().map_err(no_pop)?.map(|letter| read(&letter)).collect()
    }

    fn recover(&self, owner: OwnerId) -> Recovered {
        self.0.recover(owner)
    }

    fn letters(&self) -> (u64, u64) {
        (self.0.dead_letters() as u64, self.0.dropped_letters().into())
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn is_full(&self) -> bool {
        self.1.map_or(self.len() == ROOM, is_full)
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&self) {
        self.0.close();
    }
}

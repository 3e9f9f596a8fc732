//! Rings under one face, so that each is swept by the same scenes: numbered items, one producer, one consumer. And a toy
//! ring with bugs that the sweep must find.

use core::fmt::Debug;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::end::{ClaimError, End, EndWord};
use crosslane_core::record;
use crosslane_core::spsc;
use crosslane_core::{Liveness, Parked, Slice, Trusted, Wait, WakeMode};
use crosslane_tests::mapping::Mapping;

/// Why a ring gave or took nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Full or empty.
    NotNow,
    /// The same, until the deadline.
    TimedOut,
    /// The peer ended in order.
    Closed,
    /// The peer is proven dead.
    PeerDied,
    /// What must never be.
    Broken(String),
}

/// A ring of numbered items.
pub(crate) trait Channel<'m>: Copy {
    /// Items that fit.
    const ROOM: u64;
    /// Whether two items that are popped at once are released at once.
    const WHOLE_BATCHES: bool = false;
    /// The producing end.
    type Producer<E: Wait + Liveness>;
    /// The consuming end.
    type Consumer<E: Wait + Liveness>;

    /// Makes an empty ring in zeroed memory.
    fn make(memory: &'m Mapping) -> Self;
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError>;
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError>;
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop>;
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop>;
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop>;
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop>;

    /// Pushes two items, in a batch where the ring has them.
    fn push_two<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        Self::push(end, item)?;
        Self::push(end, item + 1)
    }

    /// Pops two items, in a batch where the ring has them.
    fn pop_two<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<(), Stop> {
        Self::pop(end)?;
        Self::pop(end).map(|_| ())
    }

    /// Holds two items, gives them back, and pops one.
    fn give_back<E: Wait + Liveness>(_: &mut Self::Consumer<E>) -> Result<(), Stop> {
        Err(broken("it holds nothing"))
    }

    /// Pops up to `count` items, in whatever ways the ring has.
    fn pop_some<E: Wait + Liveness>(end: &mut Self::Consumer<E>, count: u64) {
        for _ in 0..count {
            let _ = Self::pop(end);
        }
    }

    /// Pushes the last item and closes the end.
    fn finish<E: Wait + Liveness>(mut end: Self::Producer<E>, item: u64) -> Result<(), Stop> {
        Self::push(&mut end, item)
    }
}

/// An item's second half, by which a torn one shows.
pub(crate) fn mirror(item: u64) -> u64 {
    !item.rotate_left(17)
}

pub(crate) fn whole(item: u64, mirrored: u64) -> Result<u64, Stop> {
    if mirror(item) == mirrored { Ok(item) } else { Err(Stop::Broken(format!("torn item {item:#x} {mirrored:#x}"))) }
}

pub(crate) fn broken(error: impl Debug) -> Stop {
    Stop::Broken(format!("{error:?}"))
}

fn spsc_push(result: Result<(), spsc::PushError>) -> Result<(), Stop> {
    result.map_err(|error| match error {
        spsc::PushError::Full => Stop::NotNow,
        spsc::PushError::TimedOut => Stop::TimedOut,
        spsc::PushError::Closed => Stop::Closed,
        spsc::PushError::PeerDied(_) => Stop::PeerDied,
        other => broken(other),
    })
}

fn spsc_pop(result: Result<[u64; 2], spsc::PopError>) -> Result<u64, Stop> {
    let [item, mirrored] = result.map_err(|error| match error {
        spsc::PopError::Empty => Stop::NotNow,
        spsc::PopError::TimedOut => Stop::TimedOut,
        spsc::PopError::Closed => Stop::Closed,
        spsc::PopError::PeerDied(_) => Stop::PeerDied,
        other => broken(other),
    })?;
    whole(item, mirrored)
}

fn spsc_ring(memory: &Mapping) -> spsc::Ring<'_, [u64; 2]> {
    // SAFETY: the mapping outlives the ring by its borrow, and its scene uses it for nothing else.
    let ring = unsafe { spsc::Ring::init(memory.base(), memory.len_bytes(), 4, WakeMode::Fenced) };
    ring.expect("a mapping is large and aligned enough")
}

/// The spsc ring, items by copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spsc<'m>(spsc::Ring<'m, [u64; 2]>);

impl<'m> Channel<'m> for Spsc<'m> {
    const ROOM: u64 = 4;
    type Producer<E: Wait + Liveness> = spsc::Producer<'m, [u64; 2], E>;
    type Consumer<E: Wait + Liveness> = spsc::Consumer<'m, [u64; 2], E>;

    fn make(memory: &'m Mapping) -> Self {
        Self(spsc_ring(memory))
    }
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError> {
        self.0.producer(env)
    }
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError> {
        self.0.consumer(env)
    }
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        spsc_push(end.try_push([item, mirror(item)]))
    }
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop> {
        spsc_push(end.push_timeout([item, mirror(item)], time))
    }
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop> {
        spsc_pop(end.try_pop())
    }
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop> {
        spsc_pop(end.pop_timeout(time))
    }
    fn push_two<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        let count = end.push_slice(&[[item, mirror(item)], [item + 1, mirror(item + 1)]]).map_err(broken)?;
        if count == 2 { Ok(()) } else { Err(broken(count)) }
    }
    fn pop_two<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<(), Stop> {
        let mut items = [[0; 2]; 2];
        let count = end.pop_slice(&mut items).map_err(broken)?;
        if count == 2 { Ok(()) } else { Err(broken(count)) }
    }
}

/// The spsc ring, items in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpscLoans<'m>(spsc::Ring<'m, [u64; 2]>);

impl<'m> Channel<'m> for SpscLoans<'m> {
    const ROOM: u64 = 4;
    type Producer<E: Wait + Liveness> = spsc::Producer<'m, [u64; 2], E, Trusted>;
    type Consumer<E: Wait + Liveness> = spsc::Consumer<'m, [u64; 2], E, Trusted>;

    fn make(memory: &'m Mapping) -> Self {
        Self(spsc_ring(memory))
    }
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError> {
        // SAFETY: every process of the scene uses the ring through this crate.
        self.0.producer(env).map(|end| unsafe { end.trust_peers() })
    }
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError> {
        // SAFETY: every process of the scene uses the ring through this crate.
        self.0.consumer(env).map(|end| unsafe { end.trust_peers() })
    }
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        let mut loan = match end.loan() {
            Ok(loan) => loan,
            Err(error) => return spsc_push(Err(error)),
        };
        loan[0] = item;
        loan[1] = mirror(item);
        loan.commit().unwrap();
        Ok(())
    }
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop> {
        spsc_push(end.push_timeout([item, mirror(item)], time))
    }
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop> {
        match end.front() {
            Ok(front) => whole(front[0], front[1]),
            Err(error) => spsc_pop(Err(error)),
        }
    }
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop> {
        spsc_pop(end.pop_timeout(time))
    }
}

/// Bytes of a record: no multiple of 8, and rounded up no divisor of the capacity, so that records wrap.
pub(crate) const RECORD_BYTES: usize = 13;
/// Bytes of memory for the record ring.
pub(crate) const RECORD_RING_BYTES: usize = 1024;
/// Bytes of the record ring: five records of 8 + 16, and 8.
const CAPACITY_BYTES: u32 = 128;

pub(crate) fn encode(item: u64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&item.to_le_bytes());
    bytes[8..].copy_from_slice(&mirror(item).to_le_bytes()[..RECORD_BYTES - 8]);
    bytes
}

pub(crate) fn decode(len: usize, bytes: [u8; RECORD_BYTES]) -> Result<u64, Stop> {
    let (item, _) = bytes.split_at(8);
    let item = item.try_into().map(u64::from_le_bytes).map_err(broken)?;
    if len == RECORD_BYTES && bytes == encode(item) {
        Ok(item)
    } else {
        Err(Stop::Broken(format!("torn record of {len} bytes: {bytes:02x?}")))
    }
}

pub(crate) fn record_push(error: record::PushError) -> Stop {
    match error {
        record::PushError::Full => Stop::NotNow,
        record::PushError::TimedOut => Stop::TimedOut,
        record::PushError::Closed => Stop::Closed,
        record::PushError::PeerDied(_) => Stop::PeerDied,
        other => broken(other),
    }
}

pub(crate) fn record_pop(error: record::PopError) -> Stop {
    match error {
        record::PopError::Empty => Stop::NotNow,
        record::PopError::TimedOut => Stop::TimedOut,
        record::PopError::Closed => Stop::Closed,
        record::PopError::PeerDied(_) => Stop::PeerDied,
        other => broken(other),
    }
}

pub(crate) fn record_ring(memory: &Mapping) -> record::Ring<'_> {
    // SAFETY: the mapping outlives the ring by its borrow, and its scene uses it for nothing else.
    let ring = unsafe { record::Ring::init(memory.base(), memory.len_bytes(), CAPACITY_BYTES, WakeMode::Fenced) };
    ring.expect("a mapping is large and aligned enough")
}

/// The record ring, records by copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'m>(record::Ring<'m>);

impl<'m> Channel<'m> for Record<'m> {
    const ROOM: u64 = 5;
    type Producer<E: Wait + Liveness> = record::Writer<'m, E>;
    type Consumer<E: Wait + Liveness> = record::Reader<'m, E>;

    fn make(memory: &'m Mapping) -> Self {
        Self(record_ring(memory))
    }
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError> {
        self.0.writer(env)
    }
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError> {
        self.0.reader(env)
    }
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        end.try_push(&encode(item)).map_err(record_push)
    }
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop> {
        end.push_timeout(&encode(item), time).map_err(record_push)
    }
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop> {
        let mut bytes = [0; RECORD_BYTES];
        let len = end.try_pop_into(&mut bytes).map_err(record_pop)?;
        decode(len, bytes)
    }
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop> {
        let mut bytes = [0; RECORD_BYTES];
        let len = end.pop_into_timeout(&mut bytes, time).map_err(record_pop)?;
        decode(len, bytes)
    }
    fn push_two<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        let mut batch = end.batch();
        batch.try_push(&encode(item)).map_err(record_push)?;
        batch.try_push(&encode(item + 1)).map_err(record_push)
    }
    fn pop_two<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<(), Stop> {
        let mut batch = end.batch();
        let mut bytes = [0; RECORD_BYTES];
        for _ in 0..2 {
            let len = batch.try_pop_into(&mut bytes).map_err(record_pop)?;
            decode(len, bytes)?;
        }
        Ok(())
    }
}

/// The record ring, records reserved and filled in pieces, and read in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordPieces<'m>(record::Ring<'m>);

impl<'m> Channel<'m> for RecordPieces<'m> {
    const ROOM: u64 = 5;
    type Producer<E: Wait + Liveness> = record::Writer<'m, E>;
    type Consumer<E: Wait + Liveness> = record::Reader<'m, E>;

    fn make(memory: &'m Mapping) -> Self {
        Self(record_ring(memory))
    }
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError> {
        self.0.writer(env)
    }
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError> {
        self.0.reader(env)
    }
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        let bytes = encode(item);
        let mut room = end.try_reserve(RECORD_BYTES + 2).map_err(record_push)?;
        room.copy_from(0, &bytes[..5]);
        room.copy_from(5, &bytes[5..]);
        room.commit_len(RECORD_BYTES).map_err(record_push)
    }
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop> {
        let mut room = end.reserve_timeout(RECORD_BYTES, time).map_err(record_push)?;
        room.copy_from(0, &encode(item));
        room.commit().map_err(record_push)
    }
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop> {
        let record = end.try_read().map_err(record_pop)?;
        let mut bytes = [0; RECORD_BYTES];
        record.copy_to(0, &mut bytes[..6]);
        record.copy_to(6, &mut bytes[6..]);
        decode(record.len_bytes(), bytes)
    }
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop> {
        let record = end.read_timeout(time).map_err(record_pop)?;
        let mut bytes = [0; RECORD_BYTES];
        record.copy_to(0, &mut bytes);
        decode(record.len_bytes(), bytes)
    }
}

/// No bug: what finds the others must not find this one.
pub(crate) const SOUND: u8 = 0;
/// Publishes the index before the item.
pub(crate) const INDEX_FIRST: u8 = 3;
/// Closes its end before it pushes the last item.
pub(crate) const CLOSE_FIRST: u8 = 1;
/// A successor of the consumer takes the item that the dead one was at as read.
pub(crate) const SKIPS: u8 = 2;

/// A ring of two indices (Lamport's), correct but for its bug.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ToyWords {
    ends: [EndWord; 2],
    head: AtomicU64,
    tail: AtomicU64,
    items: [[AtomicU64; 2]; 4],
    bell: AtomicU32,
    spare: AtomicU32,
}

/// The toy ring with bug number `BUG`.
#[derive(Debug)]
pub(crate) struct Toy<'m, const BUG: u8>(&'m ToyWords);

impl<const BUG: u8> Clone for Toy<'_, BUG> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<const BUG: u8> Copy for Toy<'_, BUG> {}

/// An end of the toy ring: which, and who has it.
#[derive(Debug)]
pub(crate) struct ToyEnd<'m, E: Wait + Liveness> {
    words: &'m ToyWords,
    which: usize,
    env: E,
}

impl<E: Wait + Liveness> Drop for ToyEnd<'_, E> {
    fn drop(&mut self) {
        if let Some(me) = self.env.me() {
            self.words.ends[self.which].close(me);
        }
    }
}

impl<E: Wait + Liveness> ToyEnd<'_, E> {
    /// Repeats `attempt` until it has an answer, the peer is gone, or the time is over.
    fn wait<R>(&mut self, time: Duration, mut attempt: impl FnMut(&mut Self) -> Result<R, Stop>) -> Result<R, Stop> {
        let deadline = self.env.after(time);
        loop {
            let peer = self.words.ends[1 - self.which].peer();
            match attempt(self) {
                Err(Stop::NotNow) => {}
                done => return done,
            }
            match peer {
                End::Closed => return Err(Stop::Closed),
                End::Owned(owner) if self.env.is_dead(owner) => return Err(Stop::PeerDied),
                _ => {}
            }
            if self.env.park(&self.words.bell, 0, Slice::Owner, deadline) == Parked::Expired {
                return Err(Stop::TimedOut);
            }
        }
    }
}

impl<'m, const BUG: u8> Channel<'m> for Toy<'m, BUG> {
    const ROOM: u64 = 4;
    type Producer<E: Wait + Liveness> = ToyEnd<'m, E>;
    type Consumer<E: Wait + Liveness> = ToyEnd<'m, E>;

    fn make(memory: &'m Mapping) -> Self {
        // SAFETY: only integers in atomics: every bit pattern is one.
        Self(unsafe { memory.at(0) })
    }
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError> {
        self.0.ends[0].claim(&env)?;
        Ok(ToyEnd { words: self.0, which: 0, env })
    }
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError> {
        let heir = matches!(self.0.ends[1].peer(), End::Owned(_));
        self.0.ends[1].claim(&env)?;
        if BUG == SKIPS && heir && self.0.tail.load(SeqCst) < self.0.head.load(SeqCst) {
            self.0.tail.fetch_add(1, SeqCst);
        }
        Ok(ToyEnd { words: self.0, which: 1, env })
    }
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        let words = end.words;
        let head = words.head.load(SeqCst);
        if head - words.tail.load(SeqCst) == Self::ROOM {
            return Err(Stop::NotNow);
        }
        if BUG == INDEX_FIRST {
            words.head.store(head + 1, SeqCst);
        }
        let slot = &words.items[usize::try_from(head % Self::ROOM).unwrap_or(0)];
        slot[0].store(item, SeqCst);
        slot[1].store(mirror(item), SeqCst);
        words.head.store(head + 1, SeqCst);
        Ok(())
    }
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop> {
        end.wait(time, |end| Self::push(end, item))
    }
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop> {
        let words = end.words;
        let tail = words.tail.load(SeqCst);
        let closed = words.ends[0].peer() == End::Closed;
        if words.head.load(SeqCst) == tail {
            return Err(if closed { Stop::Closed } else { Stop::NotNow });
        }
        let slot = &words.items[usize::try_from(tail % Self::ROOM).unwrap_or(0)];
        let item = whole(slot[0].load(SeqCst), slot[1].load(SeqCst));
        words.tail.store(tail + 1, SeqCst);
        item
    }
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop> {
        end.wait(time, Self::pop)
    }
    fn finish<E: Wait + Liveness>(mut end: Self::Producer<E>, item: u64) -> Result<(), Stop> {
        if BUG == CLOSE_FIRST
            && let Some(me) = end.env.me()
        {
            end.words.ends[0].close(me);
        }
        Self::push(&mut end, item)
    }
}

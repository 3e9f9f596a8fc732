//! A bounded queue with any number of producers and consumers, each item to one consumer, in memory that processes map
//! which may be killed at any instruction.
//!
//! # What
//! Every claim of a slot names its owner in the slot's own word, by one compare-and-swap, *before* any shared position
//! moves. So when a process is killed, whoever can prove its death finds in the slots exactly what it held: a slot that
//! it was writing is skipped, an item that it was reading is delivered again. `head` and `tail` are hints that may lag
//! and never lead; nobody waits for their owner. Claiming the slot first and letting others help the index along is due
//! to Shann, Huang and Chen (2000) and to Tsigas and Zhang (2001); the owner in the word is a futex idea (TID words).
//!
//! Order: first in, first out for each producer, but for items that are delivered again.
//!
//! # Words
//! `slot.word` = `lap:36 | attempts:3 | state:3 | owner:22` (generation:12, index:10); a position `p` is slot
//! `p mod capacity` in lap `p / capacity`; laps compare by wrapping distance.
//!
//! | state | meaning | owner | next |
//! |---|---|---|---|
//! | FREE | lap not yet claimed | none | WRITING |
//! | WRITING | a producer fills it | the producer | FULL; abandoned or dead: FREE of the next lap |
//! | FULL | an item | none | READING |
//! | READING | a consumer has it | the consumer | FREE of the next lap; returned or dead: RETURNED or DEADLETTER |
//! | RETURNED | an item to be delivered again | none | READING |
//! | DEADLETTER | an item that was delivered `max_attempts` times | none | READING (taken), or FREE of the next lap (dropped) |
//!
//! # Protocol
//! Push, with candidate `t` from `tail`:
//! 1. load the word of slot `t`;
//! 2. FREE in lap(t): CAS to WRITING with my id; lost: again from 1;
//! 3. `tail` = t + 1 (hint); write the payload; store FULL;
//! 4. wake a consumer if one may sleep.
//! 5. else, the word is in a lap >= lap(t): somebody has claimed `t`; go on behind the position that the word proves;
//! 6. else the slot's earlier lap is unfinished: a dead letter is dropped; anything else is `Full`.
//!
//! Pop, with candidate `h` from `head`:
//! 1. somebody may have returned an item (`returned` hint): scan for RETURNED first;
//! 2. load the word of slot `h`; in lap(h): FREE: empty; WRITING: busy; FULL: CAS to READING with my id; lost: again;
//! 3. `head` = h + 1 (hint); copy the payload; store FREE of the next lap;
//! 4. wake a producer if one may sleep.
//! 5. the word is in a later lap, or READING, RETURNED or DEADLETTER in this one: somebody has claimed `h`; go on behind it;
//! 6. the word is in an earlier lap: `h` was never claimed by a producer. Its reader still has it: busy; RETURNED: take it;
//!    else empty.
//! 7. empty, and the queue was closed before 2: closed for good, if no slot is WRITING or READING in another's name, FULL or
//!    RETURNED; else somebody may still fill it or give it back.
//!
//! Give an item back: store RETURNED, or DEADLETTER, which is room for who needs it; raise the hint; wake a consumer, and
//! after DEADLETTER a producer.
//!
//! Take, which keeps the slot: pop 1 and 2; wake a sleeping consumer to look after it, unless one does (`watch.rs`); read; and
//! in the end pop 3 and 4, or give the item back.
//!
//! Batches: 1 and 2 for up to 16 slots in a row, the hint once, all payloads, then FULL (FREE) slot by slot in order.
//!
//! Who loses a CAS, or meets a slot that somebody has just claimed, leaves the others alone for a while, each time for twice
//! as long, and goes on from the hint if that has moved beyond.
//!
//! Recover a participant that is *proven* dead:
//! 1. for each slot that names it: WRITING: CAS to FREE of the next lap; READING: CAS to RETURNED with one attempt more,
//!    or to DEADLETTER;
//! 2. raise the `returned` hint, also when no slot was found: an earlier recoverer may have died before it did;
//! 3. wake everybody.
//!
//! The hint: `returned` = `raised:32 | looked:32`. To raise it is one addition to `raised`, which no peer can hold up and
//! no kill can cut in two. Who scans in vain takes it back by a CAS of exactly the value that it read before the scan to
//! `looked = raised`; if somebody has raised it meanwhile, that fails. A consumer that has slept in vain looks for RETURNED
//! slots whatever the hint says, because whoever returned one may have been killed before it raised the hint.
//!
//! Any number of recoverers may run at once and each may be killed: every step is a CAS of the exact dead word, and the
//! steps are repeated by the next.
//!
//! Waiting until everything that was pushed is done: `join.rs`.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `mpmc.full` | push 3, FULL | pop 2, CAS to READING (also of RETURNED and DEADLETTER: read-modify-writes continue the release sequence) | the payload | `mpmc` |
//! | `mpmc.free` | pop 3, FREE; abandon; recover 1 | push 2, CAS to WRITING; a joiner's look | that nobody touches the payload any more | `mpmc` |
//! | `mpmc.hint` | push 3, pop 3: `tail`, `head` | loads of them | that every slot before it is claimed: a slot's word is never older than the hint | `mpmc` |
//! | `mpmc.returned` | recover 2, and whoever returns an item | pop 1 | that a slot is RETURNED | `mpmc` |
//! | `mpmc.closed` | `close` | pop, before it says closed | what the closing process pushed before | `mpmc` |
//!
//! A dead owner's stores are visible through the proof of death. A *false* death would put two writers into one payload,
//! and no CAS protects bytes: hence never by timeout.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | push 1 and 2 | nothing |
//! | push 2 and FULL | WRITING with a dead owner: `Busy` until recovered, then skipped; the item is lost with its producer |
//! | push FULL and 4 | the item; sleepers find it when their slice ends or the recoverer wakes them |
//! | pop 2 and FREE | READING with a dead owner: delivered again once recovered |
//! | pop FREE and 4 | a free slot; sleepers as above |
//! | a batch's first CAS and its last FULL | a prefix of its items; the slots behind as after push 2 |
//! | a batch's first CAS and its last FREE | a prefix of free slots; the items behind as after pop 2 |
//! | before a hint is stored | a hint that lags: others walk |
//! | returning an item (giving it back, or recover 1) and raising the hint | RETURNED without a hint: the next consumer whose sleep ends finds it, or the next recoverer says so, or the head comes round to it |
//! | recover, elsewhere | a prefix of its work; the next recoverer does the rest |
//! | dropping a dead letter, after its CAS | a free slot |
#![allow(unsafe_code)]

mod bytes;
mod claim;
mod handle;
mod join;
mod queue;
mod recover;
mod watch;
mod word;

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;

pub use bytes::{Bytes, BytesDelivery, BytesReservation};
pub use join::HeldMessage;
pub use queue::{Delivery, Queue, Reservation};
pub use recover::Recovered;

use crate::event::EventWord;
use crate::owner::OwnerId;
use crate::prim::{AtomicU32, AtomicU64, Ordering, WORD_BYTES, Word};
use crate::wait::{Wait, WakeMode};
use watch::Consumers;
use word::{Lap, MAX_ATTEMPTS, SlotWord, State};

/// The largest capacity, in slots.
pub const MAX_CAPACITY: u32 = 1 << 26;
/// The longest payload of a slot, in bytes.
pub const MAX_PAYLOAD_BYTES: u32 = 1 << 26;

/// Keeps what different sides write in different pairs of cache lines.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line<T>(T);

/// What is read at every operation and written seldom.
#[derive(Debug, Default)]
#[repr(C)]
struct Rare {
    /// `raised << 32 | looked`: how often items were returned, and up to which of these somebody has looked in vain.
    /// They differ: somebody may have returned an item. Both wrap.
    returned: AtomicU64,
    /// 1 once the queue is closed.
    closed: AtomicU32,
    /// How often an item is delivered before it becomes a dead letter, 1..=7.
    max_attempts: AtomicU32,
    /// Dead letters that were overwritten. Wraps.
    dropped: AtomicU32,
    /// Where those sleep who wait until everything is done.
    all_done: EventWord,
}

#[derive(Debug, Default)]
#[repr(C)]
struct Header {
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    rare: Line<Rare>,
    not_empty: Line<Consumers>,
    not_full: Line<EventWord>,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 640);

/// Why memory does not make a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The capacity is no power of two in 2..=[`MAX_CAPACITY`].
    Capacity {
        /// What was asked for, in slots.
        slots: u32,
    },
    /// The payload is longer than [`MAX_PAYLOAD_BYTES`], or aligned to more than 64 bytes.
    Payload {
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// The most deliveries of an item are not in 1..=7.
    Attempts {
        /// What was asked for.
        attempts: u32,
    },
    /// The memory is too short, or the queue's size does not fit this target's address space.
    TooShort {
        /// Bytes that the queue needs (`u64::MAX`: more than can be addressed).
        needed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The memory is not aligned to 128 bytes.
    Misaligned,
}

impl core::fmt::Display for RingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Capacity { slots } => write!(f, "{slots} slots: a power of two in 2..={MAX_CAPACITY} is needed"),
            Self::Payload { len_bytes } => {
                write!(f, "a payload of {len_bytes} bytes: at most {MAX_PAYLOAD_BYTES} is possible")
            }
            Self::Attempts { attempts } => write!(f, "{attempts} deliveries: 1 to {MAX_ATTEMPTS} are possible"),
            Self::TooShort { needed, found } => write!(f, "the queue needs {needed} bytes and the memory has {found}"),
            Self::Misaligned => f.write_str("the memory is not aligned to 128 bytes"),
        }
    }
}

impl core::error::Error for RingError {}

/// Why nothing was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// The slot that is next holds an item; or it is held by the participant named, which fills or reads it.
    Full(Option<OwnerId>),
    /// The queue stayed full until the deadline.
    TimedOut,
    /// The queue was closed.
    Closed,
    /// The message is longer than a slot's storage.
    TooLong {
        /// Its length, in bytes.
        len: usize,
        /// The longest possible, in bytes.
        max: usize,
    },
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// A slot holds what no process writes that keeps to the protocol.
    Corrupt,
}

/// Why nothing was popped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PopError {
    /// No item is there.
    Empty,
    /// The oldest item is still being written, or the slot that is next is still being read, by the participant named; or
    /// the queue is closed, and that participant holds what it may still give back.
    Busy(OwnerId),
    /// Nothing came until the deadline.
    TimedOut,
    /// The queue was closed, and nothing can come any more: no item waits, and nobody but this process holds one.
    Closed,
    /// The message is longer than the buffer, and stays where it is.
    BufferTooShort {
        /// Its length, in bytes.
        needed: usize,
    },
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// A slot holds what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for PushError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full(None) => f.write_str("the queue is full"),
            Self::Full(Some(owner)) => write!(f, "the queue is full behind a slot that {owner} holds"),
            Self::TimedOut => f.write_str("the queue stayed full until the deadline"),
            Self::Closed => f.write_str("the queue is closed"),
            Self::TooLong { len, max } => write!(f, "a message of {len} bytes, where {max} are the most"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the queue are corrupt"),
        }
    }
}

impl core::fmt::Display for PopError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("the queue is empty"),
            Self::Busy(owner) => write!(f, "{owner} still holds the slot that is next"),
            Self::TimedOut => f.write_str("nothing came until the deadline"),
            Self::Closed => f.write_str("the queue is empty and closed"),
            Self::BufferTooShort { needed } => write!(f, "the message has {needed} bytes, more than the buffer"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the queue are corrupt"),
        }
    }
}

impl core::error::Error for PushError {}
impl core::error::Error for PopError {}

/// A queue's memory: slots of a payload of so many bytes each. Cheap to copy; owns nothing.
#[derive(Debug, Clone, Copy)]
pub struct Ring<'m> {
    header: NonNull<Header>,
    words: NonNull<Word>,
    capacity: u32,
    /// The capacity is 2 to this power.
    lap_shift: u32,
    /// Words from one slot to the next.
    stride: u32,
    /// The word of a slot at which its payload starts.
    payload: u32,
    mode: WakeMode,
    memory: PhantomData<&'m ()>,
}

// SAFETY: the pointers lead to shared words that are only touched through atomics and word copies; `attach`'s contract
// keeps them mapped for 'm.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

/// Where a slot of this ring begins, in words from the first slot. Only `Ring::slot` makes one.
#[derive(Debug, Clone, Copy)]
struct SlotStart(usize);

/// Length and alignment of the payload of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// In bytes.
    pub len_bytes: u32,
    /// In bytes, a power of two up to 64.
    pub align: u32,
}

impl Payload {
    /// The payload of one `T`.
    ///
    /// # Errors
    /// [`RingError::Payload`].
    pub fn of<T>() -> Result<Self, RingError> {
        let error = RingError::Payload { len_bytes: size_of::<T>() as u64 };
        match (u32::try_from(size_of::<T>()), u32::try_from(align_of::<T>())) {
            (Ok(len_bytes @ ..=MAX_PAYLOAD_BYTES), Ok(align @ ..=64)) => Ok(Self { len_bytes, align }),
            _ => Err(error),
        }
    }

    /// First word of the payload, and words from slot to slot: 2, 4, 8 or a multiple of 8, so that a slot shares its
    /// cache line with no part of another unless both fit whole.
    fn words(self) -> (u32, u32) {
        #[expect(clippy::cast_possible_truncation, reason = "it is 8")]
        let word = WORD_BYTES as u32;
        let first = (self.align / word).max(1);
        let words = first + self.len_bytes.div_ceil(word);
        (first, if words <= 8 { words.next_power_of_two().max(2) } else { words.next_multiple_of(8) })
    }
}

impl<'m> Ring<'m> {
    /// Size and alignment (128) of the memory of a queue.
    ///
    /// # Errors
    /// [`RingError::Capacity`], [`RingError::Payload`], [`RingError::TooShort`] if no address space holds it.
    pub fn layout(capacity: u32, payload: Payload) -> Result<Layout, RingError> {
        if !capacity.is_power_of_two() || !(2..=MAX_CAPACITY).contains(&capacity) {
            return Err(RingError::Capacity { slots: capacity });
        }
        if payload.len_bytes > MAX_PAYLOAD_BYTES || !payload.align.is_power_of_two() || payload.align > 64 {
            return Err(RingError::Payload { len_bytes: u64::from(payload.len_bytes) });
        }
        let (_, stride) = payload.words();
        let slots =
            (stride as usize).checked_mul(size_of::<Word>()).and_then(|slot| slot.checked_mul(capacity as usize));
        slots
            .and_then(|bytes| bytes.checked_add(size_of::<Header>()))
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<Header>()).ok())
            .ok_or(RingError::TooShort { needed: u64::MAX, found: usize::MAX as u64 })
    }

    /// Writes an empty queue into memory and attaches to it. An item is delivered at most `max_attempts` times (1..=7)
    /// to consumers that die or return it, and is a dead letter then.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`RingError::Attempts`].
    ///
    /// # Safety
    /// As [`attach`](Self::attach), and nobody else uses the memory until this returns.
    pub unsafe fn init(
        memory: NonNull<u8>,
        len_bytes: usize,
        capacity: u32,
        payload: Payload,
        max_attempts: u32,
        mode: WakeMode,
    ) -> Result<Self, RingError> {
        if !(1..=MAX_ATTEMPTS).contains(&max_attempts) {
            return Err(RingError::Attempts { attempts: max_attempts });
        }
        // SAFETY: the caller's contract.
        let ring = unsafe { Self::attach(memory, len_bytes, capacity, payload, mode) }?;
        // SAFETY: `attach` checked that the header fits and is aligned; the memory is the caller's alone.
        unsafe { ring.header.write(Header::default()) };
        ring.rare().max_attempts.store(max_attempts, Ordering::Relaxed);
        for index in 0..capacity as usize * ring.stride as usize {
            // SAFETY: inside the slots, whose size `attach` checked.
            let place = unsafe { ring.words.add(index) };
            // SAFETY: as above, and the memory is the caller's alone. FREE in lap 0 is 0.
            unsafe { place.write(Word::new(0)) };
        }
        Ok(ring)
    }

    /// Attaches to a queue that [`init`](Self::init) wrote, here or in another process.
    ///
    /// Looks at nothing but the memory's size: whoever keeps the memory must know that there is such a queue in it.
    ///
    /// # Errors
    /// [`RingError`] if the memory cannot hold such a queue.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of `len_bytes` bytes for all of `'m`, and for as long as any handle made
    ///   from this ring lives;
    /// - meanwhile every process accesses it through this crate, or atomically.
    pub unsafe fn attach(
        memory: NonNull<u8>,
        len_bytes: usize,
        capacity: u32,
        payload: Payload,
        mode: WakeMode,
    ) -> Result<Self, RingError> {
        let layout = Self::layout(capacity, payload)?;
        if layout.size() > len_bytes {
            return Err(RingError::TooShort { needed: layout.size() as u64, found: len_bytes as u64 });
        }
        if !memory.addr().get().is_multiple_of(layout.align()) {
            return Err(RingError::Misaligned);
        }
        // SAFETY: the header's size is part of the layout's, which fits.
        let words = unsafe { memory.add(size_of::<Header>()) }.cast();
        let (payload, stride) = payload.words();
        let lap_shift = capacity.trailing_zeros();
        Ok(Self { header: memory.cast(), words, capacity, lap_shift, stride, payload, mode, memory: PhantomData })
    }

    /// Slots of the queue.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Wakes whoever sleeps on either side, so that it looks again.
    pub fn wake_all<W: Wait>(&self, wait: &W) {
        self.header().not_empty.0.event.wake_all(wait);
        self.header().not_full.0.wake_all(wait);
        self.rare().all_done.wake_all(wait);
    }

    /// Items that wait, those that were returned among them; not those that somebody is writing or reading. Exact while
    /// nobody pushes or pops; otherwise each item that comes or goes meanwhile may be missed or counted. Reads every slot.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots_in(|state| matches!(state, State::Full | State::Returned)).count()
    }

    /// Whether [`len`](Self::len) is 0. Right for items of this process's own: after its own push it is `false` until
    /// somebody pops that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots_in(|state| matches!(state, State::Full | State::Returned)).next().is_none()
    }

    /// Dead letters that wait to be taken. Exactness and cost as of [`len`](Self::len).
    #[must_use]
    pub fn dead_letters(&self) -> usize {
        self.slots_in(|state| state == State::DeadLetter).count()
    }

    /// Dead letters that were dropped because their slot was needed. Wraps at 2^32.
    #[must_use]
    pub fn dropped_letters(&self) -> u32 {
        self.rare().dropped.load(Ordering::Relaxed)
    }

    /// Whether the queue was closed.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        // ORDERING mpmc.closed: Acquire. Pairs with the Release in `close`: who sees it closed sees what was pushed
        // before.
        self.rare().closed.load(Ordering::Acquire) != 0
    }

    /// Closes the queue: later pushes get `Closed`, pops drain it and then get `Closed`. While another participant holds an
    /// item, which it may give back or leave behind in dying, a pop that waits goes on waiting, and one that does not gets
    /// `Busy`. A push that runs meanwhile may still succeed, and its item waits for whoever pops next.
    ///
    /// # Crash
    /// A process killed inside has closed the queue or not; sleepers see it when their slice ends (at most 1 s).
    pub fn close<W: Wait>(&self, wait: &W) {
        // ORDERING mpmc.closed: Release. Pairs with the Acquire in `is_closed`.
        // Publishes that what this process pushed before is there.
        self.rare().closed.store(1, Ordering::Release);
        self.wake_all(wait);
    }

    fn slots_in(&self, wanted: impl Fn(State) -> bool) -> impl Iterator<Item = u64> {
        (0..u64::from(self.capacity)).filter(move |slot| {
            // ORDERING: Relaxed. A count, or a place to look at again.
            SlotWord(self.word(*slot).load(Ordering::Relaxed)).state().is_some_and(&wanted)
        })
    }

    #[inline]
    fn header(&self) -> &'m Header {
        // SAFETY: valid for 'm by the contract of `attach`; all its fields are atomics.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn rare(&self) -> &'m Rare {
        &self.header().rare.0
    }

    #[inline]
    fn slot(&self, position: u64) -> SlotStart {
        #[expect(clippy::cast_possible_truncation, reason = "below the capacity, which `layout` found addressable")]
        let index = (position & u64::from(self.capacity - 1)) as usize;
        SlotStart(index * self.stride as usize)
    }

    #[inline]
    fn place(&self, slot: SlotStart) -> NonNull<Word> {
        // SAFETY: made by `slot` from an index below the capacity, and `attach` checked that `capacity` slots of `stride`
        // words fit.
        unsafe { self.words.add(slot.0) }
    }

    #[inline]
    fn word_of(&self, slot: SlotStart) -> &'m Word {
        // SAFETY: the first word of a slot, valid for 'm.
        unsafe { self.place(slot).as_ref() }
    }

    #[inline]
    fn word(&self, position: u64) -> &'m Word {
        self.word_of(self.slot(position))
    }

    #[inline]
    fn payload(&self, slot: SlotStart) -> NonNull<Word> {
        // SAFETY: `payload < stride`, inside the slot.
        unsafe { self.place(slot).add(self.payload as usize) }
    }

    #[inline]
    fn lap(&self, position: u64) -> Lap {
        Lap::of(position, self.lap_shift)
    }
}

//! A ring of fixed-size items with one producer and one consumer, in memory that two processes map.
//!
//! # What
//! Each slot holds its own sequence number beside its payload, in one cache line where both fit, so an item costs the
//! transfer of one line. Positions are private to their side and can be rebuilt from the slots: when either side is
//! killed, its successor goes on where it stopped. The idea of the sequence number in the slot is Dmitry Vyukov's (bounded
//! MPMC queue); keeping no shared index at all, and rebuilding from the slots, is ours.
//!
//! Delivery is exactly once while both sides live. A consumer killed between its copy and its release leaves the item
//! for its successor: at least once. Nothing that was pushed is lost, and nothing half-written is ever delivered.
//!
//! # Protocol
//! `capacity` slots, a power of two >= 2; position `q` lives in slot `q mod capacity`; `seq` of slot `i` starts as `i`.
//!
//! Producer at position `p`:
//! 1. `seq == p`: free; else full. Or the same of a slot further on: slots become free in order, so when that one is
//!    free, so are those before it, and nothing is asked until `p` comes there;
//! 2. write the payload;
//! 3. `seq.store(p + 1)`: published; `p += 1`;
//! 4. wake the consumer if it may sleep.
//!
//! Consumer at position `c`:
//! 1. `seq == c + 1`: filled; else empty;
//! 2. copy the payload;
//! 3. `seq.store(c + capacity)`: free for the next lap; `c += 1`;
//! 4. wake the producer if it may sleep.
//!
//! Successor of a dead end, after it has claimed the end (module [`end`](crate::end)): each slot contributes a lower
//! bound, and what the living side does meanwhile does not change it:
//! - producer: `p` = max over slots of (filled: `seq`; free: `seq - capacity + 1`, at least 0);
//! - consumer: `c` = min over slots of (filled: `seq - 1`; free: `seq`).
//!
//! Given `p` (or `c`) every slot's contribution is determined; a slot that disagrees is `Corrupt`.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `spsc.filled` | producer 3 | consumer 1 | the payload | `spsc` |
//! | `spsc.freed` | consumer 3 | producer 1 | that the payload has been read | `spsc` |
//!
//! The ends' own edge is `end.word`; sleeping and waking is `event.announce`.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | producer 1 and 2, 2 and 3 | a free slot: its successor writes the same position again |
//! | producer 3 and 4 | the item; a sleeping consumer finds it when its slice ends (at most 10 ms) |
//! | consumer 1 and 2, 2 and 3 | a filled slot: its successor gets the item again |
//! | consumer 3 and 4 | a free slot; a sleeping producer finds it when its slice ends |
//! | a batch, between two publications | a prefix of the batch |
//! | claim and rebuild, or the wake after it | an owner that is proven dead: the next claimant rebuilds; a peer that went to sleep before the claim, behind nobody, looks again after up to 1 s |
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;

use crate::end::{ClaimError, End, EndWord};
use crate::event::{EventWord, Light, Slept};
use crate::owner::OwnerId;
use crate::plain::Plain;
use crate::prim::{InPlace, Ordering, WORD_BYTES, Word, copy_in, copy_out, pause, prefetch};
use crate::trust::{Trusted, Untrusted};
use crate::wait::{Liveness, Slice, Wait, WakeMode};

/// The largest capacity, in slots.
pub const MAX_CAPACITY: u32 = 1 << 30;
/// The largest alignment of an item, in bytes: that of a slot.
pub const MAX_ALIGN: usize = 64;

/// The furthest that a producer looks ahead for free slots; never further than half of the ring. Far enough that a look
/// costs nothing for each item, and near enough that what it asks for is still cached when it is needed.
const LOOK_AHEAD: u64 = 256;

/// Changes of its peer's end that a waiter looks into before it parks all the same, and so looks at its deadline: a
/// hostile peer could otherwise change it for ever.
const MAX_FLIPS: u32 = 64;

/// Keeps what one side writes out of the other side's cache lines, and out of their neighbours, which x86 fetches in
/// pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line<T>(T);

#[derive(Debug, Default)]
#[repr(C)]
struct Ends {
    producer: EndWord,
    consumer: EndWord,
}

#[derive(Debug, Default)]
#[repr(C)]
struct Header {
    ends: Line<Ends>,
    not_empty: Line<EventWord>,
    not_full: Line<EventWord>,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 384);

/// Why memory does not make a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The capacity is no power of two in 2..=[`MAX_CAPACITY`].
    Capacity {
        /// What was asked for, in slots.
        slots: u32,
    },
    /// The items' alignment is above [`MAX_ALIGN`].
    Alignment {
        /// The items' alignment, in bytes.
        align: usize,
    },
    /// The memory is too short, or the ring's size does not fit this target's address space.
    TooShort {
        /// Bytes that the ring needs (`u64::MAX`: more than can be addressed).
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
            Self::Alignment { align } => write!(f, "items aligned to {align} bytes: at most {MAX_ALIGN} is possible"),
            Self::TooShort { needed, found } => write!(f, "the ring needs {needed} bytes and the memory has {found}"),
            Self::Misaligned => f.write_str("the memory is not aligned to 128 bytes"),
        }
    }
}

impl core::error::Error for RingError {}

/// Why nothing was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// Every slot holds an item that has not been popped.
    Full,
    /// The ring stayed full until the deadline.
    TimedOut,
    /// The ring is full and its consumer has ended in order.
    Closed,
    /// The ring is full and its consumer is proven dead; a successor may claim its end.
    PeerDied(OwnerId),
    /// This process is a raw `fork()` child of the one that claimed the end.
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
    /// The ring stayed empty until the deadline.
    TimedOut,
    /// Every item has been popped and the producer has ended in order.
    Closed,
    /// Every item has been popped and the producer is proven dead; a successor may claim its end.
    PeerDied(OwnerId),
    /// This process is a raw `fork()` child of the one that claimed the end.
    Forked,
    /// A slot holds what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for PushError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full"),
            Self::TimedOut => f.write_str("the ring stayed full until the deadline"),
            Self::Closed => f.write_str("the ring is full and its consumer has ended"),
            Self::PeerDied(id) => write!(f, "the ring is full and its consumer, {id}, has died"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::fmt::Display for PopError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("the ring is empty"),
            Self::TimedOut => f.write_str("the ring stayed empty until the deadline"),
            Self::Closed => f.write_str("the ring is empty and its producer has ended"),
            Self::PeerDied(id) => write!(f, "the ring is empty and its producer, {id}, has died"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::error::Error for PushError {}
impl core::error::Error for PopError {}

/// A ring in shared memory, from which each side claims its end. Cheap to copy; owns nothing.
#[derive(Debug)]
pub struct Ring<'m, T> {
    header: NonNull<Header>,
    words: NonNull<Word>,
    capacity: u32,
    mode: WakeMode,
    memory: PhantomData<&'m ()>,
    items: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Ring<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ring<'_, T> {}

// SAFETY: the pointers lead to shared words that are only touched through atomics and word copies; `attach`'s contract
// keeps them mapped for 'm.
unsafe impl<T> Send for Ring<'_, T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Ring<'_, T> {}

impl<'m, T: Plain> Ring<'m, T> {
    /// The word of a slot at which the payload starts; word 0 is the sequence number.
    const PAYLOAD: usize = if align_of::<T>() > WORD_BYTES { align_of::<T>() / WORD_BYTES } else { 1 };

    /// Words from one slot to the next: 2, 4, 8 or a multiple of 8, so that a slot shares its line with no part of
    /// another unless both fit whole.
    const STRIDE: usize = {
        let words = Self::PAYLOAD + size_of::<T>().div_ceil(WORD_BYTES);
        if words <= 8 { if words <= 2 { 2 } else { words.next_power_of_two() } } else { words.next_multiple_of(8) }
    };

    /// How far ahead of its position a side asks for a slot's line: 256 bytes, or one slot if that is more. Nearer hides
    /// less of the way between two cores; further takes lines away from the other side, which is still at them.
    const AHEAD: u64 = if Self::STRIDE < 32 { 32 / Self::STRIDE as u64 } else { 1 };

    /// Size and alignment (128) of the memory of a ring of `capacity` slots.
    ///
    /// # Errors
    /// [`RingError::Capacity`] unless `capacity` is a power of two in 2..=2^30; [`RingError::Alignment`];
    /// [`RingError::TooShort`] if no address space of this target holds it.
    pub fn layout(capacity: u32) -> Result<Layout, RingError> {
        if !capacity.is_power_of_two() || !(2..=MAX_CAPACITY).contains(&capacity) {
            return Err(RingError::Capacity { slots: capacity });
        }
        if align_of::<T>() > MAX_ALIGN {
            return Err(RingError::Alignment { align: align_of::<T>() });
        }
        let slots = usize::try_from(capacity).ok().and_then(|n| n.checked_mul(Self::STRIDE * size_of::<Word>()));
        slots
            .and_then(|bytes| bytes.checked_add(size_of::<Header>()))
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<Header>()).ok())
            .ok_or(RingError::TooShort { needed: u64::MAX, found: usize::MAX as u64 })
    }

    /// Writes an empty ring into memory and attaches to it.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Safety
    /// As [`attach`](Self::attach), and nobody else uses the memory until this returns.
    pub unsafe fn init(
        memory: NonNull<u8>,
        len_bytes: usize,
        capacity: u32,
        mode: WakeMode,
    ) -> Result<Self, RingError> {
        // SAFETY: the caller's contract.
        let ring = unsafe { Self::attach(memory, len_bytes, capacity, mode) }?;
        // SAFETY: `attach` checked that the header fits and is aligned; the memory is the caller's alone.
        unsafe { ring.header.write(Header::default()) };
        for slot in 0..u64::from(capacity) {
            for word in 0..Self::STRIDE {
                // SAFETY: inside the slots, whose size `attach` checked.
                let place = unsafe { ring.slot(slot).add(word) };
                // SAFETY: as above, and the memory is the caller's alone.
                unsafe { place.write(Word::new(if word == 0 { slot } else { 0 })) };
            }
        }
        Ok(ring)
    }

    /// Attaches to a ring that [`init`](Self::init) wrote, here or in another process.
    ///
    /// Looks at nothing but the memory's size: whoever keeps the memory (a segment's header) must know that there is a
    /// ring of `T` in it. `mode` must be the one that the ring was made with.
    ///
    /// # Errors
    /// [`RingError`] if the memory cannot hold such a ring.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of `len_bytes` bytes for all of `'m`, and for as long as any handle made
    ///   from this ring lives;
    /// - meanwhile every process accesses it through this crate, or atomically;
    /// - the [`Liveness`] of whoever claims an end keeps its contract.
    pub unsafe fn attach(
        memory: NonNull<u8>,
        len_bytes: usize,
        capacity: u32,
        mode: WakeMode,
    ) -> Result<Self, RingError> {
        let layout = Self::layout(capacity)?;
        if layout.size() > len_bytes {
            return Err(RingError::TooShort { needed: layout.size() as u64, found: len_bytes as u64 });
        }
        if !memory.addr().get().is_multiple_of(layout.align()) {
            return Err(RingError::Misaligned);
        }
        // SAFETY: the header's size is part of the layout's, which fits.
        let words = unsafe { memory.add(size_of::<Header>()) }.cast();
        Ok(Self { header: memory.cast(), words, capacity, mode, memory: PhantomData, items: PhantomData })
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Claims the producer's end for this process; takes over from a producer that is proven dead. Does not block;
    /// reads every slot once or twice.
    ///
    /// # Errors
    /// [`ClaimError`]: a living participant holds the end, this is a fork child, or the slots contradict each other.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the next claimant.
    pub fn producer<E: Wait + Liveness>(&self, env: E) -> Result<Producer<'m, T, E>, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        self.header().ends.0.producer.claim(&env)?;
        let light = Light::of(self.mode, &env);
        let mut producer =
            Producer { ring: *self, env, me, light, position: 0, free_until: 0, look: 1, trust: PhantomData };
        producer.position = self.rebuild(Rebuild::Producer)?;
        producer.free_until = producer.position;
        // A consumer that sleeps behind nobody learns behind whom it sleeps, and so probes in time.
        self.header().not_empty.0.wake_after(light, 1, &producer.env);
        Ok(producer)
    }

    /// Claims the consumer's end for this process; takes over from a consumer that is proven dead. Does not block;
    /// reads every slot once or twice.
    ///
    /// # Errors
    /// [`ClaimError`]: a living participant holds the end, this is a fork child, or the slots contradict each other.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the next claimant.
    pub fn consumer<E: Wait + Liveness>(&self, env: E) -> Result<Consumer<'m, T, E>, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        self.header().ends.0.consumer.claim(&env)?;
        let light = Light::of(self.mode, &env);
        let mut consumer = Consumer { ring: *self, env, me, light, position: 0, trust: PhantomData };
        consumer.position = self.rebuild(Rebuild::Consumer)?;
        // A producer that sleeps behind nobody learns behind whom it sleeps, and so probes in time.
        self.header().not_full.0.wake_after(light, 1, &consumer.env);
        Ok(consumer)
    }

    /// What the producer's word says now. The answer may be stale by the time it is read.
    #[must_use]
    pub fn producer_end(&self) -> End {
        self.header().ends.0.producer.peer()
    }

    /// What the consumer's word says now. The answer may be stale by the time it is read.
    #[must_use]
    pub fn consumer_end(&self) -> End {
        self.header().ends.0.consumer.peer()
    }

    /// Wakes whoever sleeps on either side, so that it looks again: for a reaper that has proven a death.
    pub fn wake_all<W: Wait>(&self, wait: &W) {
        self.header().not_empty.0.wake_all(wait);
        self.header().not_full.0.wake_all(wait);
    }

    #[inline]
    fn header(&self) -> &'m Header {
        // SAFETY: valid for 'm by the contract of `attach`; all its fields are atomics.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn slot(&self, position: u64) -> NonNull<Word> {
        #[expect(clippy::cast_possible_truncation, reason = "below the capacity, which `layout` found addressable")]
        let index = (position & u64::from(self.capacity - 1)) as usize;
        // SAFETY: `index < capacity`, and `attach` checked that `capacity` slots of `STRIDE` words fit.
        unsafe { self.words.add(index * Self::STRIDE) }
    }

    #[inline]
    fn seq(&self, position: u64) -> &'m Word {
        // SAFETY: the first word of a slot, valid for 'm.
        unsafe { self.slot(position).as_ref() }
    }

    #[inline]
    fn payload(&self, position: u64) -> NonNull<Word> {
        // SAFETY: `PAYLOAD < STRIDE`, inside the slot.
        unsafe { self.slot(position).add(Self::PAYLOAD) }
    }

    #[inline]
    fn write(&self, position: u64, item: &T) {
        // SAFETY: `item` is private and the slot has room for a `T` rounded up to words.
        unsafe { copy_in(self.payload(position), core::ptr::from_ref(item).cast(), size_of::<T>()) };
    }

    #[inline]
    fn read(&self, position: u64) -> T {
        let mut item = MaybeUninit::<T>::uninit();
        // SAFETY: `item` is private and the slot has room for a `T` rounded up to words.
        unsafe { copy_out(item.as_mut_ptr().cast(), self.payload(position), size_of::<T>()) };
        // SAFETY: all bytes were written, and every bit pattern is a `T` because `T` is `Plain`.
        unsafe { item.assume_init() }
    }

    /// What the producer at `position` finds in its slot.
    #[inline]
    fn producer_sees(&self, position: u64) -> Seen {
        // ORDERING spsc.freed: Acquire. Pairs with the Release in `free`: the consumer has read the payload that the
        // producer is about to overwrite.
        let seq = self.seq(position).load(Ordering::Acquire);
        if seq == position {
            Seen::Mine
        } else if seq == position.wrapping_add(1).wrapping_sub(u64::from(self.capacity)) {
            Seen::Theirs
        } else {
            Seen::Nonsense
        }
    }

    /// What the consumer at `position` finds in its slot.
    #[inline]
    fn consumer_sees(&self, position: u64) -> Seen {
        // ORDERING spsc.filled: Acquire. Pairs with the Release in `publish`: the payload is whole.
        let seq = self.seq(position).load(Ordering::Acquire);
        if seq == position + 1 {
            Seen::Mine
        } else if seq == position {
            Seen::Theirs
        } else {
            Seen::Nonsense
        }
    }

    /// Asks for the line of the slot that this side comes to soon.
    ///
    /// Without it the lines come one after the other, each for the full way between two cores: where the position lies in
    /// memory and not in a register, the CPU hardly runs ahead of the line that it waits for.
    #[inline]
    fn ask_ahead(&self, position: u64) {
        prefetch(self.slot(position + Self::AHEAD));
    }

    #[inline]
    fn publish(&self, position: u64) {
        // ORDERING spsc.filled: Release. Pairs with the Acquire in `consumer_sees`.
        // Publishes the payload of this slot.
        self.seq(position).store(position + 1, Ordering::Release);
    }

    #[inline]
    fn free(&self, position: u64) {
        // ORDERING spsc.freed: Release. Pairs with the Acquire in `producer_sees`.
        // Publishes that the payload of this slot has been read.
        self.seq(position).store(position.wrapping_add(u64::from(self.capacity)), Ordering::Release);
    }

    /// Whether `end`, the other one, said in `peer` that nothing more comes from there, and still does. Costs a probe if
    /// `probe`.
    fn gone<L: Liveness>(&self, end: &EndWord, peer: End, probe: bool, life: &L) -> Option<Gone> {
        match peer {
            End::Closed => Some(Gone::Closed),
            // A successor may have taken the end meanwhile.
            End::Owned(id) if probe && life.is_dead(id) && end.peer() == peer => Some(Gone::Died(id)),
            End::Corrupt => Some(Gone::Corrupt),
            End::Owned(_) | End::Vacant => None,
        }
    }

    /// The position of an end from what the slots say. See the module's protocol for why this is stable while the
    /// other end moves.
    fn rebuild(&self, end: Rebuild) -> Result<u64, ClaimError> {
        let slots = u64::from(self.capacity);
        let mut position = match end {
            Rebuild::Producer => 0,
            Rebuild::Consumer => u64::MAX,
        };
        for slot in 0..slots {
            let bound = self.contribution(slot, end)?;
            position = match end {
                Rebuild::Producer => position.max(bound),
                Rebuild::Consumer => position.min(bound),
            };
        }
        // Positions advance by one for each item, so 2^62 is out of reach of an honest ring.
        if position > u64::MAX / 4 {
            return Err(ClaimError::Corrupt);
        }
        for slot in 0..slots {
            let expected = match end {
                // One past the last position below `position` that lives in this slot; 0 if there is none.
                Rebuild::Producer => {
                    let back = position.wrapping_sub(slot).wrapping_sub(1) & (slots - 1);
                    position.saturating_sub(back)
                }
                // The first position from `position` on that lives in this slot.
                Rebuild::Consumer => position + (slot.wrapping_sub(position) & (slots - 1)),
            };
            if self.contribution(slot, end)? != expected {
                return Err(ClaimError::Corrupt);
            }
        }
        Ok(position)
    }

    fn contribution(&self, slot: u64, end: Rebuild) -> Result<u64, ClaimError> {
        let slots = u64::from(self.capacity);
        // ORDERING: Relaxed. Only a position is computed; the slot is acquired again before its payload is touched. What
        // the predecessor stored last is visible through its death or its close.
        let seq = self.seq(slot).load(Ordering::Relaxed);
        let filled = match seq.wrapping_sub(slot) & (slots - 1) {
            0 => false,
            1 => true,
            _ => return Err(ClaimError::Corrupt),
        };
        Ok(match (end, filled) {
            (Rebuild::Producer, true) => seq,
            (Rebuild::Producer, false) => (seq.wrapping_add(1)).saturating_sub(slots),
            (Rebuild::Consumer, true) => seq.wrapping_sub(1),
            (Rebuild::Consumer, false) => seq,
        })
    }
}

/// Why nothing more comes from the other end.
#[derive(Debug, Clone, Copy)]
enum Gone {
    Closed,
    Died(OwnerId),
    Corrupt,
}

impl From<Gone> for PushError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Closed => Self::Closed,
            Gone::Died(id) => Self::PeerDied(id),
            Gone::Corrupt => Self::Corrupt,
        }
    }
}

impl From<Gone> for PopError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Closed => Self::Closed,
            Gone::Died(id) => Self::PeerDied(id),
            Gone::Corrupt => Self::Corrupt,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Rebuild {
    Producer,
    Consumer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The slot is this side's turn.
    Mine,
    /// The slot is the other side's turn.
    Theirs,
    /// Neither: somebody scribbled.
    Nonsense,
}

/// The producer's end. Dropping it closes the end: the consumer drains the ring and then sees `Closed`.
///
/// `E` is what the end parks with, and what keeps the memory mapped.
#[derive(Debug)]
#[must_use = "dropping the end closes it"]
pub struct Producer<'m, T: Plain, E: Wait + Liveness, K = Untrusted> {
    ring: Ring<'m, T>,
    env: E,
    me: OwnerId,
    light: Light,
    position: u64,
    /// The slots from `position` up to this one are known to be free. Never below `position`.
    free_until: u64,
    /// How many slots ahead the next look goes, 1..=`LOOK_AHEAD`.
    look: u64,
    trust: PhantomData<fn() -> K>,
}

impl<'m, T: Plain, E: Wait + Liveness, K> Producer<'m, T, E, K> {
    /// Pushes an item if there is room. Wait-free but for the wake of a sleeping consumer (one system call).
    ///
    /// # Errors
    /// [`PushError::Full`], [`PushError::Forked`], [`PushError::Corrupt`]; nothing was pushed.
    ///
    /// # Crash
    /// A process killed inside has pushed the item or has not; the ring goes on either way.
    #[inline]
    pub fn try_push(&mut self, item: T) -> Result<(), PushError> {
        self.alive()?;
        self.find_room()?;
        self.ring.write(self.position, &item);
        self.publish(1);
        Ok(())
    }

    /// Pushes an item, waiting for room as long as the consumer lives.
    ///
    /// # Errors
    /// [`PushError::Closed`] or [`PushError::PeerDied`] if the ring is full and nobody is left to empty it,
    /// [`PushError::Forked`], [`PushError::Corrupt`].
    ///
    /// # Crash
    /// As [`try_push`](Self::try_push). The consumer's death is noticed within 10 ms.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), PushError> {
        loop {
            match self.try_push(item) {
                Err(PushError::Full) => self.wait_for_room(self.env.never())?,
                done => return done,
            }
        }
    }

    /// Pushes an item, waiting for room at most for `timeout`.
    ///
    /// # Errors
    /// As [`push`](Self::push), and [`PushError::TimedOut`].
    #[inline]
    pub fn push_timeout(&mut self, item: T, timeout: Duration) -> Result<(), PushError> {
        let mut deadline = None;
        loop {
            match self.try_push(item) {
                Err(PushError::Full) => {
                    self.wait_for_room(*deadline.get_or_insert_with(|| self.env.after(timeout)))?;
                }
                done => return done,
            }
        }
    }

    /// Pushes as many of `items` as there is room for, in order, and wakes the consumer once. Returns how many.
    ///
    /// # Errors
    /// [`PushError::Full`] if `items` is not empty and none fits, [`PushError::Forked`], [`PushError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside has pushed a prefix of what it would have pushed.
    pub fn push_slice(&mut self, items: &[T]) -> Result<usize, PushError> {
        self.alive()?;
        let wanted = items.len().min(self.ring.capacity as usize);
        if wanted == 0 {
            return Ok(0);
        }
        // The consumer frees in order: if the last slot of the batch is free, so are those before it.
        let end = self.position + wanted as u64;
        let count = if end <= self.free_until || self.ring.producer_sees(end - 1) == Seen::Mine {
            wanted
        } else {
            self.free_slots(wanted)?
        };
        for (position, item) in (self.position..).zip(&items[..count]) {
            self.ring.write(position, item);
            self.ring.publish(position);
        }
        self.position += count as u64;
        self.free_until = self.free_until.max(self.position);
        #[expect(clippy::cast_possible_truncation, reason = "at most the capacity, a u32")]
        self.ring.header().not_empty.0.wake_after(self.light, count as u32, &self.env);
        Ok(count)
    }

    /// Whether a push would find no room now. May be stale at once: the consumer may be making room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ring.producer_sees(self.position) != Seen::Mine
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.ring.capacity
    }

    /// Items pushed through this end so far, by this process and those before it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the other end's word says now.
    #[must_use]
    pub fn peer(&self) -> End {
        self.ring.consumer_end()
    }

    /// The same end, allowed to lend references into the ring.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned end lives.
    pub unsafe fn trust_peers(self) -> Producer<'m, T, E, Trusted> {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment moves exactly once.
        let env = unsafe { core::ptr::read(&raw const this.env) };
        let Self { ring, me, light, position, free_until, look, .. } = *this;
        Producer { ring, env, me, light, position, free_until, look, trust: PhantomData }
    }

    #[inline]
    fn alive(&self) -> Result<(), PushError> {
        if self.env.is_still(self.me) { Ok(()) } else { Err(PushError::Forked) }
    }

    /// Makes sure that the slot at the position is free.
    #[inline]
    fn find_room(&mut self) -> Result<(), PushError> {
        if self.position == self.free_until {
            self.look_ahead()?;
        }
        if self.position + Ring::<T>::AHEAD < self.free_until {
            self.ring.ask_ahead(self.position);
        }
        Ok(())
    }

    /// Looks twice as far each time that the furthest slot is free, and half as far each time that it is not, so that a
    /// producer with room hardly ever reads what its consumer writes.
    #[inline(never)]
    fn look_ahead(&mut self) -> Result<(), PushError> {
        let end = self.position + self.look;
        if self.ring.producer_sees(end - 1) == Seen::Mine {
            self.free_until = end;
            self.look = (self.look * 2).min(LOOK_AHEAD).min(u64::from(self.ring.capacity / 2));
            return Ok(());
        }
        self.look = (self.look / 2).max(1);
        self.room()?;
        self.free_until = self.position + 1;
        Ok(())
    }

    #[inline]
    fn room(&self) -> Result<(), PushError> {
        match self.ring.producer_sees(self.position) {
            Seen::Mine => Ok(()),
            Seen::Theirs => Err(PushError::Full),
            Seen::Nonsense => Err(PushError::Corrupt),
        }
    }

    /// The slot's payload is written: publish it and wake the consumer.
    #[inline]
    fn publish(&mut self, items: u32) {
        self.ring.publish(self.position);
        self.position += 1;
        self.ring.header().not_empty.0.wake_after(self.light, items, &self.env);
    }

    fn free_slots(&self, wanted: usize) -> Result<usize, PushError> {
        self.room()?;
        let more = (self.position + 1..).take(wanted - 1);
        Ok(1 + more.take_while(|p| self.ring.producer_sees(*p) == Seen::Mine).count())
    }

    /// Waits until `room` no longer says `Full`.
    #[cold]
    fn wait_for_room(&self, deadline: E::Deadline) -> Result<(), PushError> {
        for _ in 0..self.env.spins() {
            match self.room() {
                Err(PushError::Full) => pause(),
                other => return other,
            }
        }
        let end = &self.ring.header().ends.0.consumer;
        let (mut slept, mut flips) = (false, 0);
        loop {
            let peer = end.peer();
            let gone = self.ring.gone(end, peer, slept, &self.env);
            // A peer that ended or died may have made room as its last step, and its word was read before this look.
            match (self.room(), gone) {
                (Err(PushError::Full), Some(gone)) => return Err(gone.into()),
                (Err(PushError::Full), None) => {}
                (other, _) => return other,
            }
            let ready = || self.room() != Err(PushError::Full) || (flips < MAX_FLIPS && end.peer() != peer);
            let event = &self.ring.header().not_full.0;
            match event.sleep_unless(self.ring.mode, slice_behind(peer), deadline, &self.env, ready) {
                Slept::Ready | Slept::Again => self.alive()?,
                Slept::Expired => {
                    let gone = self.ring.gone(end, end.peer(), true, &self.env).map_or(PushError::TimedOut, Into::into);
                    return self.room().map_err(|error| if error == PushError::Full { gone } else { error });
                }
            }
            // Room comes before the probe of its consumer, which costs a system call.
            match self.room() {
                Err(PushError::Full) => {}
                other => return other,
            }
            (slept, flips) = (true, flips + 1);
        }
    }
}

impl<'m, T: Plain, E: Wait + Liveness> Producer<'m, T, E, Trusted> {
    /// Lends the next slot, to be filled in place and committed: no copy, whatever the item's size.
    ///
    /// The slot holds what an earlier lap left there. Dropping the loan pushes nothing.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    ///
    /// # Crash
    /// A process killed while it holds the loan has pushed nothing.
    pub fn loan(&mut self) -> Result<Loan<'_, 'm, T, E>, PushError> {
        self.alive()?;
        self.find_room()?;
        // SAFETY:
        // - the slot has room for a `T` at `PAYLOAD`, which is aligned for it, since slots are aligned to `STRIDE`;
        // - it is free, so by the protocol, to which the peers keep (`trust_peers`), nobody else touches it until it is
        //   published, and the loan borrows this end until then.
        let item = unsafe { InPlace::new(self.ring.payload(self.position)) };
        Ok(Loan { producer: self, item })
    }
}

impl<T: Plain, E: Wait + Liveness, K> Drop for Producer<'_, T, E, K> {
    fn drop(&mut self) {
        if self.alive().is_ok() {
            self.ring.header().ends.0.producer.close(self.me);
            self.ring.header().not_empty.0.wake_after(self.light, 1, &self.env);
        }
    }
}

/// A free slot on loan from the ring.
#[derive(Debug)]
#[must_use = "dropping the loan pushes nothing"]
pub struct Loan<'a, 'm, T: Plain, E: Wait + Liveness> {
    producer: &'a mut Producer<'m, T, E, Trusted>,
    item: InPlace<T>,
}

impl<T: Plain, E: Wait + Liveness> Loan<'_, '_, T, E> {
    /// Publishes the slot.
    ///
    /// # Errors
    /// [`PushError::Forked`] in a `fork()` child that inherited the loan: the slot is its parent's.
    pub fn commit(mut self) -> Result<(), PushError> {
        self.producer.alive()?;
        self.item.write_back();
        self.producer.publish(1);
        Ok(())
    }
}

impl<T: Plain, E: Wait + Liveness> Deref for Loan<'_, '_, T, E> {
    type Target = T;
    fn deref(&self) -> &T {
        self.item.get()
    }
}

impl<T: Plain, E: Wait + Liveness> DerefMut for Loan<'_, '_, T, E> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.get_mut()
    }
}

/// The consumer's end. Dropping it closes the end: a producer that finds the ring full sees `Closed`.
///
/// `E` is what the end parks with, and what keeps the memory mapped.
#[derive(Debug)]
#[must_use = "dropping the end closes it"]
pub struct Consumer<'m, T: Plain, E: Wait + Liveness, K = Untrusted> {
    ring: Ring<'m, T>,
    env: E,
    me: OwnerId,
    light: Light,
    position: u64,
    trust: PhantomData<fn() -> K>,
}

impl<'m, T: Plain, E: Wait + Liveness, K> Consumer<'m, T, E, K> {
    /// Pops the oldest item, if there is one. Wait-free but for the wake of a sleeping producer (one system call).
    ///
    /// # Errors
    /// [`PopError::Empty`]; [`PopError::Closed`] once the ring is drained and its producer has ended;
    /// [`PopError::Forked`], [`PopError::Corrupt`]. A producer's death is not looked for: [`pop`](Self::pop) does.
    ///
    /// # Crash
    /// A process killed inside has popped the item, or leaves it to its successor.
    #[inline]
    pub fn try_pop(&mut self) -> Result<T, PopError> {
        self.alive()?;
        match self.ring.consumer_sees(self.position) {
            Seen::Mine => Ok(self.take()),
            seen => self.nothing(seen),
        }
    }

    /// Pops the oldest item, waiting for one as long as the producer lives.
    ///
    /// # Errors
    /// [`PopError::Closed`] or [`PopError::PeerDied`] once the ring is drained and nobody is left to fill it,
    /// [`PopError::Forked`], [`PopError::Corrupt`].
    ///
    /// # Crash
    /// As [`try_pop`](Self::try_pop). The producer's death is noticed within 10 ms.
    #[inline]
    pub fn pop(&mut self) -> Result<T, PopError> {
        loop {
            match self.try_pop() {
                Err(PopError::Empty) => self.wait_for_item(self.env.never())?,
                done => return done,
            }
        }
    }

    /// Pops the oldest item, waiting for one at most for `timeout`.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), and [`PopError::TimedOut`].
    #[inline]
    pub fn pop_timeout(&mut self, timeout: Duration) -> Result<T, PopError> {
        let mut deadline = None;
        loop {
            match self.try_pop() {
                Err(PopError::Empty) => {
                    self.wait_for_item(*deadline.get_or_insert_with(|| self.env.after(timeout)))?;
                }
                done => return done,
            }
        }
    }

    /// Pops up to `items.len()` items into `items`, in order, and wakes the producer once. Returns how many.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop), if `items` is not empty and nothing is there.
    ///
    /// # Crash
    /// A process killed inside leaves what it has not released to its successor.
    pub fn pop_slice(&mut self, items: &mut [T]) -> Result<usize, PopError> {
        self.alive()?;
        let wanted = items.len().min(self.ring.capacity as usize);
        if wanted == 0 {
            return Ok(0);
        }
        // The producer publishes in order: if the last slot of the batch is filled, so are those before it.
        let count = match self.ring.consumer_sees(self.position + wanted as u64 - 1) {
            Seen::Mine => wanted,
            _ => match self.filled_slots(wanted) {
                0 => return self.nothing(self.ring.consumer_sees(self.position)).map(|_: T| 0),
                count => count,
            },
        };
        for (position, item) in (self.position..).zip(&mut items[..count]) {
            *item = self.ring.read(position);
            self.ring.free(position);
        }
        self.position += count as u64;
        #[expect(clippy::cast_possible_truncation, reason = "at most the capacity, a u32")]
        self.ring.header().not_full.0.wake_after(self.light, count as u32, &self.env);
        Ok(count)
    }

    /// Whether a pop would find nothing now. May be stale at once: the producer may be pushing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.consumer_sees(self.position) != Seen::Mine
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.ring.capacity
    }

    /// Items popped through this end so far, by this process and those before it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the other end's word says now.
    #[must_use]
    pub fn peer(&self) -> End {
        self.ring.producer_end()
    }

    /// The same end, allowed to lend references into the ring.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned end lives.
    pub unsafe fn trust_peers(self) -> Consumer<'m, T, E, Trusted> {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment moves exactly once.
        let env = unsafe { core::ptr::read(&raw const this.env) };
        let Self { ring, me, light, position, .. } = *this;
        Consumer { ring, env, me, light, position, trust: PhantomData }
    }

    #[inline]
    fn alive(&self) -> Result<(), PopError> {
        if self.env.is_still(self.me) { Ok(()) } else { Err(PopError::Forked) }
    }

    /// The slot is filled: copy the item and free the slot.
    #[inline]
    fn take(&mut self) -> T {
        self.ring.ask_ahead(self.position);
        let item = self.ring.read(self.position);
        self.release();
        item
    }

    #[inline]
    fn release(&mut self) {
        self.ring.free(self.position);
        self.position += 1;
        self.ring.header().not_full.0.wake_after(self.light, 1, &self.env);
    }

    /// No item at the position: empty, drained for good, or corrupt; or an item that came in this moment.
    fn nothing(&mut self, seen: Seen) -> Result<T, PopError> {
        if seen == Seen::Nonsense {
            return Err(PopError::Corrupt);
        }
        if self.peer() != End::Closed {
            return Err(PopError::Empty);
        }
        // The producer may have pushed its last item and closed since the first look.
        match self.ring.consumer_sees(self.position) {
            Seen::Mine => Ok(self.take()),
            Seen::Theirs => Err(PopError::Closed),
            Seen::Nonsense => Err(PopError::Corrupt),
        }
    }

    fn filled_slots(&self, wanted: usize) -> usize {
        (self.position..).take(wanted).take_while(|p| self.ring.consumer_sees(*p) == Seen::Mine).count()
    }

    /// Waits until the slot at the position is no longer the producer's turn.
    #[cold]
    fn wait_for_item(&self, deadline: E::Deadline) -> Result<(), PopError> {
        let empty = || self.ring.consumer_sees(self.position) == Seen::Theirs;
        for _ in 0..self.env.spins() {
            if !empty() {
                return Ok(());
            }
            pause();
        }
        let end = &self.ring.header().ends.0.producer;
        let (mut slept, mut flips) = (false, 0);
        loop {
            let peer = end.peer();
            let gone = self.ring.gone(end, peer, slept, &self.env);
            // A peer that ended or died may have pushed as its last step, and its word was read before this look.
            if !empty() {
                return Ok(());
            }
            if let Some(gone) = gone {
                return Err(gone.into());
            }
            let ready = || !empty() || (flips < MAX_FLIPS && end.peer() != peer);
            let event = &self.ring.header().not_empty.0;
            match event.sleep_unless(self.ring.mode, slice_behind(peer), deadline, &self.env, ready) {
                Slept::Ready | Slept::Again => self.alive()?,
                Slept::Expired => {
                    let gone = self.ring.gone(end, end.peer(), true, &self.env).map_or(PopError::TimedOut, Into::into);
                    return if empty() { Err(gone) } else { Ok(()) };
                }
            }
            // An item comes before the probe of its producer, which costs a system call.
            if !empty() {
                return Ok(());
            }
            (slept, flips) = (true, flips + 1);
        }
    }
}

impl<'m, T: Plain, E: Wait + Liveness> Consumer<'m, T, E, Trusted> {
    /// Lends the oldest item in place. Dropping the guard pops it; [`Front::keep`] leaves it.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    ///
    /// # Crash
    /// A process killed while it holds the guard leaves the item to its successor.
    pub fn front(&mut self) -> Result<Front<'_, 'm, T, E>, PopError> {
        self.alive()?;
        match self.ring.consumer_sees(self.position) {
            Seen::Mine => {}
            Seen::Nonsense => return Err(PopError::Corrupt),
            Seen::Theirs if self.peer() != End::Closed => return Err(PopError::Empty),
            Seen::Theirs if self.ring.consumer_sees(self.position) == Seen::Mine => {}
            Seen::Theirs => return Err(PopError::Closed),
        }
        // SAFETY:
        // - the slot has room for a `T` at `PAYLOAD`, which is aligned for it, since slots are aligned to `STRIDE`;
        // - it is filled, so by the protocol, to which the peers keep (`trust_peers`), nobody else touches it until it
        //   is freed, and the guard borrows this end until then.
        let item = unsafe { InPlace::new(self.ring.payload(self.position)) };
        Ok(Front { consumer: self, item })
    }
}

impl<T: Plain, E: Wait + Liveness, K> Drop for Consumer<'_, T, E, K> {
    fn drop(&mut self) {
        if self.alive().is_ok() {
            self.ring.header().ends.0.consumer.close(self.me);
            self.ring.header().not_full.0.wake_after(self.light, 1, &self.env);
        }
    }
}

/// The oldest item of a ring, in place.
#[derive(Debug)]
#[must_use = "dropping the guard pops the item"]
pub struct Front<'a, 'm, T: Plain, E: Wait + Liveness> {
    consumer: &'a mut Consumer<'m, T, E, Trusted>,
    item: InPlace<T>,
}

impl<T: Plain, E: Wait + Liveness> Front<'_, '_, T, E> {
    /// Leaves the item in the ring.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<T: Plain, E: Wait + Liveness> Deref for Front<'_, '_, T, E> {
    type Target = T;
    fn deref(&self) -> &T {
        self.item.get()
    }
}

impl<T: Plain, E: Wait + Liveness> Drop for Front<'_, '_, T, E> {
    fn drop(&mut self) {
        // A fork child's copy is its parent's.
        if self.consumer.alive().is_ok() {
            self.consumer.release();
        }
    }
}

/// A sleeper behind a named participant probes it after each slice.
fn slice_behind(peer: End) -> Slice {
    if matches!(peer, End::Owned(_)) { Slice::Owner } else { Slice::Long }
}

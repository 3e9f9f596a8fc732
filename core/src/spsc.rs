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

mod consumer;
mod error;
mod producer;

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

pub use consumer::{Consumer, Front};
pub use error::{PopError, PushError, RingError};
pub use producer::{Loan, Producer};

use crate::end::{ClaimError, End, EndWord};
use crate::event::{EventWord, Light};
use crate::owner::OwnerId;
use crate::plain::Plain;
use crate::prim::{Ordering, WORD_BYTES, Word, copy_in, copy_out, prefetch};
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

/// A sleeper behind a named participant probes it after each slice.
fn slice_behind(peer: End) -> Slice {
    if matches!(peer, End::Owned(_)) { Slice::Owner } else { Slice::Long }
}

//! A ring of variable-length byte records: one writer, one reader, either of which may be killed at any instruction
//! and replaced by a successor.
//!
//! # What
//! `head`, the position of the oldest record that the reader has not released, and `capacity` bytes of words.
//! Positions count bytes from the ring's first record on, are multiples of 8 and never wrap in practice; position `p`
//! lies at byte `p % capacity`. A record is a length word and its bytes, rounded up to 8; it may wrap around the end
//! of the buffer. The length word holds `len + 1` in its low half and, in its high half, a stamp: the low 32 bits of
//! `p / 8`. So a stale or foreign word is told from a length, and 0 means "nothing committed here yet".
//!
//! Invariant: **the word at the tail is 0 before the record in front of it can be seen**. So walking from `head` over
//! length words ends at the tail, and no tail is stored anywhere. It costs 8 bytes: a record takes
//! `8 + round8(len)`, and needs 8 more to be free for the next length word, hence [`Ring::max_len_bytes`] is
//! `capacity - 16`. A record of that length fits whenever the ring is empty.
//!
//! # Protocol
//! Writer at tail `p`, for a record of `len` bytes that ends at `e = p + 8 + round8(len)`:
//! 1. `e + 8 - head <= capacity`, with the `head` read last; if not, read `head` anew; if still not: full;
//! 2. write the bytes at `p + 8`;
//! 3. `word[e] = 0`;
//! 4. `word[p] = stamp(p) | len + 1`: the record is committed;
//! 5. wake the reader ([`EventWord`]).
//!
//! Reader at `c`:
//! 1. load `word[c]`: 0: nothing there; check stamp and length;
//! 2. copy the bytes out;
//! 3. `head = e`: the record is released; inside a [`ReadBatch`] this step is put off, for a quarter of the ring at
//!    the most, inside a [`HeldBatch`] until its user says so;
//! 4. wake the writer.
//!
//! Successor of the writer: claims the end ([`EndWord`]) and walks from `head` over length words to the 0 word, which is
//! the tail. A living reader moves `head` on meanwhile, which harms nothing: only a writer overwrites.
//!
//! Successor of the reader: claims the end and starts at `head`. A record (or the records of a batch) that its
//! predecessor read and did not release comes again: delivery is *at least once* across a reader's death, and exactly
//! once otherwise.
//!
//! An end that is handed over: `end.rs`, and `handover.rs` for an end that comes back. A reader that waits for several
//! things at once: `bell.rs`.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `record.length` | store of `word[p]` in `Ring::commit` | load in `Ring::length` | the bytes of the record and the 0 behind it | `record` |
//! | `record.head` | store in `Ring::release` | load in `Ring::released` | the end of the reader's reads: the words may be overwritten | `record` |
//!
//! A predecessor's stores are visible to its successor through the claim of the end or the proof of death, so the
//! walk and the first read of `head` are Relaxed. A successor of the writer takes nothing as released until it has
//! read `head` through the edge.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | writer 1 and 4 | bytes behind the tail, which nobody looks at; a successor starts at the same `p` |
//! | writer 4 and 5 | the record; a sleeping reader finds it when its slice ends or the reaper wakes all |
//! | writer, claim and end of its walk | an end with a dead owner; nothing was stored |
//! | reader 1 and 3 | nothing; the record comes to the successor, once more |
//! | reader 3 and 4 | the room; a sleeping writer finds it when its slice ends or the reaper wakes all |
//! | reader, in a batch, before 3 | nothing; the records since the last release come to the successor, once more |
//! | either, before it closes its end | a dead owner; the peer drains (or fills) and gets `PeerDied` |
#![allow(unsafe_code)]

mod error;
mod handover;
mod reader;
mod writer;

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::bell::BellWord;
use crate::end::{ClaimError, End, EndWord};
use crate::event::EventWord;
use crate::prim::{AtomicU32, AtomicU64, Ordering, WORD_BYTES, Word, copy_in, copy_out, prefetch};
use crate::wait::{Liveness, Slice, Wait, WakeMode};

pub use error::{PopError, PushError, RingError};
pub use handover::Handover;
pub use reader::{HeldBatch, ReadBatch, Reader, RecordRef};
pub use writer::{Reservation, WriteBatch, Writer};

/// The smallest capacity in bytes.
pub const MIN_CAPACITY_BYTES: u32 = 64;

/// The largest capacity in bytes: positions, counted in words, stay unique over several laps in 32 bits, and lengths
/// fit the address space of 32-bit targets.
pub const MAX_CAPACITY_BYTES: u32 = 1 << 31;

/// Bytes of a length word, as a distance between positions.
const LENGTH_BYTES: u64 = WORD_BYTES as u64;

/// What one end owns. Written at claims and sleeps only, so the peer's looks at it stay in the peer's cache.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Side {
    /// Who holds the end.
    end: EndWord,
    /// What the end sleeps on.
    event: EventWord,
    /// Whether it sleeps elsewhere.
    bell: BellWord,
    /// How often the end was claimed or taken over. Wraps.
    claims: AtomicU32,
}

/// The reader's released position, on a line of its own.
#[derive(Debug)]
#[repr(C, align(128))]
struct Head(AtomicU64);

/// What stands in front of the words.
#[derive(Debug)]
#[repr(C)]
struct Header {
    writer: Side,
    reader: Side,
    head: Head,
}

#[cfg(not(crosslane_loom))]
const _: () = {
    assert!(size_of::<Header>() == 384 && align_of::<Header>() == 128);
    assert!(core::mem::offset_of!(Header, writer) == 0);
    assert!(core::mem::offset_of!(Header, reader) == 128);
    assert!(core::mem::offset_of!(Header, head) == 256);
    assert!(core::mem::offset_of!(Side, end) == 0);
    assert!(core::mem::offset_of!(Side, event) == 4);
    assert!(core::mem::offset_of!(Side, bell) == 8);
    assert!(core::mem::offset_of!(Side, claims) == 12);
    assert!(size_of::<Word>() == WORD_BYTES);
};

/// A ring of byte records in shared memory, from which each side claims its end. Cheap to copy; owns nothing.
///
/// # Examples
/// ```
/// use core::ptr::NonNull;
/// use crosslane_core::record::{PopError, Ring};
/// use crosslane_core::wait::Spin;
/// use crosslane_core::{OwnerId, WakeMode};
///
/// #[repr(align(128))]
/// struct Memory([u8; 512]);
/// let mut memory = Memory([0; 512]);
/// let start = NonNull::from(&mut memory).cast();
/// // SAFETY: used for nothing but the ring while that is in use.
/// let ring = unsafe { Ring::init(start, 512, 128, WakeMode::Fenced) }?;
///
/// let mut writer = ring.writer(Spin::new(OwnerId::new(0, 1).unwrap()))?;
/// let mut reader = ring.reader(Spin::new(OwnerId::new(1, 1).unwrap()))?;
/// writer.push(b"a record")?;
/// let mut buffer = [0; 32];
/// assert_eq!(reader.pop_into(&mut buffer)?, 8);
/// assert_eq!(&buffer[..8], b"a record");
/// drop(writer);
/// assert_eq!(reader.pop_into(&mut buffer), Err(PopError::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Ring<'m> {
    header: NonNull<Header>,
    words: NonNull<Word>,
    capacity: u32,
    mode: WakeMode,
    memory: PhantomData<&'m ()>,
}

// SAFETY: the pointers lead to shared words that are only touched through atomics and word copies; `attach`'s contract
// keeps them mapped for 'm.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

/// The shared words hold what no process writes that keeps to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Corrupt;

impl<'m> Ring<'m> {
    /// How far in front of its tail the writer asks for a line, in bytes: the next line of small records.
    const AHEAD: u64 = 64;

    /// Size and alignment (128) of the memory of a ring of `capacity` bytes.
    ///
    /// # Errors
    /// [`RingError::Capacity`] unless `capacity` is a power of two in 64..=2^31; [`RingError::TooShort`] if no address
    /// space of this target holds it.
    pub fn layout(capacity: u32) -> Result<Layout, RingError> {
        if !capacity.is_power_of_two() || !(MIN_CAPACITY_BYTES..=MAX_CAPACITY_BYTES).contains(&capacity) {
            return Err(RingError::Capacity { bytes: capacity });
        }
        let words = usize::try_from(capacity).ok().map(|bytes| bytes / WORD_BYTES);
        words
            .and_then(|words| words.checked_mul(size_of::<Word>()))
            .and_then(|bytes| bytes.checked_add(size_of::<Header>()))
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<Header>()).ok())
            .ok_or(RingError::TooShort { needed: u64::MAX, found: usize::MAX as u64 })
    }

    /// Writes an empty ring into memory and attaches to it. Touches the header and the first word only.
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
        let header = Header { writer: Side::default(), reader: Side::default(), head: Head(AtomicU64::new(0)) };
        // SAFETY: `attach` checked that the header fits and is aligned; the memory is the caller's alone.
        unsafe { ring.header.write(header) };
        // A zero at position 0 is an empty ring. The model's words are objects, all of which must be made.
        let made = if cfg!(crosslane_loom) { capacity as usize / WORD_BYTES } else { 1 };
        for i in 0..made {
            // SAFETY: inside the words, whose size `attach` checked.
            let place = unsafe { ring.words.add(i) };
            // SAFETY: as above, and the memory is the caller's alone.
            unsafe { place.write(Word::new(0)) };
        }
        Ok(ring)
    }

    /// Attaches to a ring that [`init`](Self::init) wrote, here or in another process.
    ///
    /// Looks at nothing but the memory's size: whoever keeps the memory (a segment's header) must know that there is a
    /// ring of `capacity` bytes in it. `capacity` and `mode` must be those that the ring was made with; otherwise
    /// operations return `Corrupt` or wrong records, or sleep for longer than they should, and nothing worse.
    ///
    /// # Errors
    /// [`RingError`] if the memory cannot hold such a ring.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of `len_bytes` bytes, which are initialised, to anything, for all of
    ///   `'m`, and for as long as any handle made from this ring lives;
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
        Ok(Self { header: memory.cast(), words, capacity, mode, memory: PhantomData })
    }

    /// Claims the writer's end for this process; takes over from a writer that is proven dead. Does not block; reads
    /// the length word of each record that the reader has not released.
    ///
    /// # Errors
    /// [`ClaimError`]: a living participant holds the end, this is a fork child, or the shared words make no sense.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the next claimant.
    pub fn writer<E: Wait + Liveness>(&self, env: E) -> Result<Writer<'m, E>, ClaimError> {
        Writer::claim(*self, env)
    }

    /// Claims the reader's end for this process; takes over from a reader that is proven dead, and whatever that one
    /// has read and not released comes again. Does not block.
    ///
    /// # Errors
    /// [`ClaimError`]: a living participant holds the end, this is a fork child, or the shared words make no sense.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the next claimant.
    pub fn reader<E: Wait + Liveness>(&self, env: E) -> Result<Reader<'m, E>, ClaimError> {
        Reader::claim(*self, env)
    }

    /// Takes the writer's end over from the process that has [handed it over](Writer::hand_over). Does not block.
    ///
    /// # Errors
    /// [`ClaimError`]: the end was taken over before, is not the sender's any more, or was kept; this is a fork child, or
    /// the shared words make no sense.
    ///
    /// # Safety
    /// If this process is the sender: the [`Writer`] that was handed over is not used any more, but to be left.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the sender, or to the next claimant.
    pub unsafe fn take_over_writer<E: Wait + Liveness>(
        &self,
        handover: Handover,
        env: E,
    ) -> Result<Writer<'m, E>, ClaimError> {
        Writer::take_over(*self, handover, env)
    }

    /// Takes the reader's end over from the process that has [handed it over](Reader::hand_over). Does not block.
    ///
    /// # Errors
    /// [`ClaimError`]: the end was taken over before, is not the sender's any more, or was kept; this is a fork child, or
    /// the shared words make no sense.
    ///
    /// # Safety
    /// If this process is the sender: the [`Reader`] that was handed over is not used any more, but to be left.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the sender, or to the next claimant.
    pub unsafe fn take_over_reader<E: Wait + Liveness>(
        &self,
        handover: Handover,
        env: E,
    ) -> Result<Reader<'m, E>, ClaimError> {
        Reader::take_over(*self, handover, env)
    }

    /// The reader's bell, for the writer's surroundings: see [`bell`](crate::bell).
    #[must_use]
    pub fn reader_bell(&self) -> &'m BellWord {
        &self.header().reader.bell
    }

    /// The longest record, in bytes: the capacity less two length words. It fits when the ring is empty.
    #[must_use]
    #[inline]
    pub fn max_len_bytes(&self) -> usize {
        self.capacity as usize - 2 * WORD_BYTES
    }

    /// Bytes that records and their length words share.
    #[must_use]
    #[inline]
    pub fn capacity_bytes(&self) -> u32 {
        self.capacity
    }

    /// What the writer's word says now. The answer may be stale by the time it is read.
    #[must_use]
    pub fn writer_end(&self) -> End {
        self.header().writer.end.peer()
    }

    /// What the reader's word says now. The answer may be stale by the time it is read.
    #[must_use]
    pub fn reader_end(&self) -> End {
        self.header().reader.end.peer()
    }

    /// Wakes whoever sleeps on either side, so that it looks again: for a reaper that has proven a death.
    pub fn wake_all<W: Wait>(&self, wait: &W) {
        self.header().writer.event.wake_all(wait);
        self.header().reader.event.wake_all(wait);
    }

    #[inline]
    fn header(&self) -> &'m Header {
        // SAFETY: valid for 'm by the contract of `attach`; all its fields are atomics.
        unsafe { self.header.as_ref() }
    }

    /// The most bytes that unreleased records take: the word at the tail is always free.
    #[inline]
    fn max_used(&self) -> u64 {
        u64::from(self.capacity) - LENGTH_BYTES
    }

    /// The byte of the buffer at `position`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "below the capacity, a u32")]
    fn byte(&self, position: u64) -> usize {
        (position & u64::from(self.capacity - 1)) as usize
    }

    #[inline]
    fn words_at(&self, position: u64) -> NonNull<Word> {
        // SAFETY: the index is below `capacity / 8`, and `attach` checked that as many words fit.
        unsafe { self.words.add(self.byte(position) / WORD_BYTES) }
    }

    #[inline]
    fn word(&self, position: u64) -> &'m Word {
        // SAFETY: a word of the ring, valid for 'm.
        unsafe { self.words_at(position).as_ref() }
    }

    /// Reader's step 1: the length of the record at `position`, `None` if none is committed there.
    #[inline]
    fn length(&self, position: u64) -> Result<Option<u32>, Corrupt> {
        // ORDERING record.length: Acquire. Pairs with the Release in `commit`: the record's bytes and the 0 behind it
        // are visible.
        let word = self.word(position).load(Ordering::Acquire);
        self.decode(position, word)
    }

    /// What `word`, read at `position`, says.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a word")]
    fn decode(&self, position: u64, word: u64) -> Result<Option<u32>, Corrupt> {
        if word == 0 {
            return Ok(None);
        }
        let len = (word as u32).wrapping_sub(1);
        // A low half of 0 gives the length u32::MAX, which is above every maximum.
        if word & !u64::from(u32::MAX) != stamp(position) || len as usize > self.max_len_bytes() {
            return Err(Corrupt);
        }
        Ok(Some(len))
    }

    /// Writer's steps 3 and 4; returns the position behind the record.
    #[inline]
    fn commit(&self, position: u64, len: u32) -> u64 {
        let next = behind(position, len);
        // ORDERING: Relaxed. The Release below orders it, as it does the bytes.
        self.word(next).store(0, Ordering::Relaxed);
        let word = stamp(position) | (u64::from(len) + 1);
        // ORDERING record.length: Release. Pairs with the Acquire in `length`.
        // Publishes the bytes of the record and the 0 behind it.
        self.word(position).store(word, Ordering::Release);
        // Where the record after the next one ends: the next commit would else wait for that line before it is seen.
        prefetch(self.words_at(next.wrapping_add(Self::AHEAD)));
        next
    }

    /// What the reader has released, for a writer at `tail` that knows of `known`.
    #[inline]
    fn released(&self, tail: u64, known: u64) -> Result<u64, Corrupt> {
        // ORDERING record.head: Acquire. Pairs with the Release in `release`: the reader's reads of what lies before
        // are over, and it may be overwritten.
        let head = self.header().head.0.load(Ordering::Acquire);
        let plausible = tail.wrapping_sub(head) <= tail.wrapping_sub(known) && head.is_multiple_of(LENGTH_BYTES);
        if plausible { Ok(head) } else { Err(Corrupt) }
    }

    /// Reader's step 3.
    #[inline]
    fn release(&self, position: u64) {
        // ORDERING record.head: Release. Pairs with the Acquire in `released`.
        // Publishes that this reader has done with everything before `position`.
        self.header().head.0.store(position, Ordering::Release);
    }

    /// Where a successor of the reader starts.
    fn find_head(&self) -> Result<u64, Corrupt> {
        // ORDERING: Relaxed. Only readers write it, and the claim made the predecessor's last store visible.
        let head = self.header().head.0.load(Ordering::Relaxed);
        if head.is_multiple_of(LENGTH_BYTES) { Ok(head) } else { Err(Corrupt) }
    }

    /// Where a successor of the writer starts: at the first 0 from `head` on.
    fn find_tail(&self) -> Result<u64, Corrupt> {
        // ORDERING: Relaxed. The claim made visible every `head` that the predecessor had read, so none is read here
        // that it has written over; and nothing is written on the strength of this one.
        let head = self.header().head.0.load(Ordering::Relaxed);
        if !head.is_multiple_of(LENGTH_BYTES) {
            return Err(Corrupt);
        }
        let mut tail = head;
        // Each step is 8 bytes at least, so the loop ends after as many steps as there are words.
        loop {
            // ORDERING: Relaxed. Only writers write lengths, and the claim made the predecessor's visible.
            let word = self.word(tail).load(Ordering::Relaxed);
            let Some(len) = self.decode(tail, word)? else { return Ok(tail) };
            tail = behind(tail, len);
            if tail.wrapping_sub(head) > self.max_used() {
                return Err(Corrupt);
            }
        }
    }

    /// How many of the `len` bytes at `position` lie before the end of the buffer; the rest lies at its start.
    #[inline]
    fn front_bytes(&self, position: u64, len: usize) -> usize {
        len.min(self.capacity as usize - self.byte(position))
    }

    /// Writes `bytes` at `position`, a multiple of 8, and zeros up to the end of the last word.
    #[inline]
    fn write(&self, position: u64, bytes: &[u8]) {
        debug_assert!(position.is_multiple_of(LENGTH_BYTES) && bytes.len() <= self.capacity as usize);
        let (front, back) = bytes.split_at(self.front_bytes(position, bytes.len()));
        // SAFETY: `front` is private, and as many bytes, rounded up to words, lie before the end of the buffer.
        unsafe { copy_in(self.words_at(position), front.as_ptr(), front.len()) };
        if !back.is_empty() {
            // SAFETY: `back` is private and shorter than the buffer, `bytes` being no longer than that.
            unsafe { copy_in(self.words, back.as_ptr(), back.len()) };
        }
    }

    /// Reads the bytes at `position`, a multiple of 8.
    #[inline]
    fn read(&self, position: u64, out: &mut [u8]) {
        debug_assert!(position.is_multiple_of(LENGTH_BYTES) && out.len() <= self.capacity as usize);
        let (front, back) = out.split_at_mut(self.front_bytes(position, out.len()));
        // SAFETY: `front` is private, and as many bytes, rounded up to words, lie before the end of the buffer.
        unsafe { copy_out(front.as_mut_ptr(), self.words_at(position), front.len()) };
        if !back.is_empty() {
            // SAFETY: `back` is private and shorter than the buffer, `out` being no longer than that.
            unsafe { copy_out(back.as_mut_ptr(), self.words, back.len()) };
        }
    }

    /// The two parts of the `len` bytes at `position`, to be lent.
    #[cfg(not(crosslane_loom))]
    #[inline]
    fn parts(&self, position: u64, len: usize) -> (NonNull<[u8]>, NonNull<[u8]>) {
        let front = self.front_bytes(position, len);
        (
            NonNull::slice_from_raw_parts(self.words_at(position).cast(), front),
            NonNull::slice_from_raw_parts(self.words.cast(), len - front),
        )
    }
}

/// The high half of the length word at `position`.
#[inline]
fn stamp(position: u64) -> u64 {
    (position / LENGTH_BYTES) << 32
}

/// The position behind a record of `len` bytes at `position`.
#[inline]
fn behind(position: u64, len: u32) -> u64 {
    position.wrapping_add(LENGTH_BYTES + u64::from(len).next_multiple_of(LENGTH_BYTES))
}

/// A sleeper behind a named participant probes it after each slice.
fn slice_behind(peer: End) -> Slice {
    if matches!(peer, End::Owned(_)) { Slice::Owner } else { Slice::Long }
}

impl From<Corrupt> for PushError {
    fn from(_: Corrupt) -> Self {
        Self::Corrupt
    }
}

impl From<Corrupt> for PopError {
    fn from(_: Corrupt) -> Self {
        Self::Corrupt
    }
}

impl From<Corrupt> for ClaimError {
    fn from(_: Corrupt) -> Self {
        Self::Corrupt
    }
}

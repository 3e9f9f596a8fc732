//! The newest value of something: one writer, any number of readers, in memory that processes map which may be killed at
//! any instruction.
//!
//! # What
//! A few cells, each big enough for a value, and one word that says which cell holds the newest. The writer fills a cell
//! that is not the newest and then points the word at it, so a reader never waits for the writer, and a writer that is
//! killed half-way leaves the newest value as it was. A reader that was overtaken while it copied notices and copies
//! again. In a seqlock, by contrast, a writer killed in its copy leaves every reader spinning for ever.
//!
//! Values may be skipped: a reader gets the newest one, not each one. Every value that is returned is whole, and a
//! reader never goes back to an older one.
//!
//! # Protocol
//! `n` cells, 2..=255, 3 by default; `newest` = version << 8 | cell, 0 at first: nothing was ever published.
//!
//! Writer, which knows the word's value because only it writes it:
//! 1. the next cell is the one after the newest, taken round; release fence;
//! 2. write the value into it;
//! 3. `newest.store(version + 1, that cell)`;
//! 4. wake the readers that sleep.
//!
//! Reader:
//! 1. load `newest`; version 0: nothing there; acquire fence;
//! 2. copy the value out of its cell;
//! 3. acquire fence; load `newest` again; if its version has moved by `n - 1` or more, the writer may have come round to
//!    the cell that was being read: again from 1, at most [`TRIES`] times, then `Busy`.
//!
//! The writer touches the cell of version `v` again for version `v + n`, after it has published `v + n - 1`: hence the
//! `n - 1`. With three cells a reader is disturbed only if two values are published while it copies one.
//!
//! Successor of a dead writer, after it has claimed the end (module [`end`](crate::end)): its position is the word.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `latest.published` | writer 3 | fence of reader 1 | the value in the cell | `latest` |
//! | `latest.overwritten` | fence of writer 1 | fence of reader 3 | the word as it was before the cell is written: who sees a byte of version `v + n` sees that `v + n - 1` was published | `latest` |
//!
//! The writer's end has its own edge, `end.word`; sleeping and waking is `event.announce`. The loads of `newest` are relaxed
//! with a fence behind them because only relaxed loads are allowed in memory that is mapped for reading only.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | writer 1 and 2, 2 and 3 | the newest value, untouched; the successor writes the same cell again |
//! | writer 3 and 4 | the new value; sleeping readers find it when their slice ends (at most 10 ms) |
//! | claim and the wake after it | an owner that is proven dead: the next claimant takes over |
//! | reader, anywhere | nothing: readers write nothing but the sleepers' flag |
#![allow(unsafe_code)]

mod error;
mod reader;
mod writer;

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

pub use error::{CellsError, PublishError, ReadError};
pub use reader::Reader;
pub use writer::Writer;

use crate::end::{ClaimError, End, EndWord};
use crate::event::{EventWord, Light};
use crate::plain::Plain;
use crate::prim::{Ordering, WORD_BYTES, Word, fence, race_in, race_out, show_fence};
use crate::wait::{Liveness, Wait, WakeMode};

/// Cells where nobody asks for another number.
pub const DEFAULT_CELLS: u32 = 3;
/// The most cells.
pub const MAX_CELLS: u32 = 255;
/// The largest alignment of a value, in bytes: that of a cell.
pub const MAX_ALIGN: usize = 64;
/// Copies that a read makes before it says `Busy`, each of which the writer has overtaken by `cells - 1` values.
pub const TRIES: u32 = 64;

const CELL_BITS: u32 = 8;
const CELL_MASK: u64 = (1 << CELL_BITS) - 1;
/// The word's version has 56 bits: at a value each nanosecond it takes two years to count to this, which a successor still
/// accepts; one that is above was written by nobody who keeps to the protocol.
const MAX_VERSION: u64 = (u64::MAX >> CELL_BITS) - (1 << 40);

/// Keeps what one side writes out of the other side's cache lines, and out of their neighbours, which x86 fetches in
/// pairs.
#[derive(Debug)]
#[repr(C, align(128))]
struct Line<T>(T);

#[derive(Debug)]
#[repr(C)]
struct Header {
    newest: Line<Word>,
    writer: Line<EndWord>,
    newer: Line<EventWord>,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 384);

/// What `newest` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Newest {
    version: u64,
    cell: u32,
}

impl Newest {
    #[inline]
    fn of(word: u64) -> Self {
        Self { version: word >> CELL_BITS, cell: (word & CELL_MASK) as u32 }
    }

    #[inline]
    fn word(self) -> u64 {
        self.version << CELL_BITS | u64::from(self.cell)
    }
}

/// The cells of one value in shared memory that is mapped for reading and writing. Cheap to copy; owns nothing.
#[derive(Debug)]
pub struct Cells<'m, T>(View<'m, T>);

/// The cells of one value in shared memory that may be mapped for reading only: whence readers come that poll. Cheap to
/// copy; owns nothing.
#[derive(Debug)]
pub struct View<'m, T> {
    header: NonNull<Header>,
    words: NonNull<Word>,
    cells: u32,
    mode: WakeMode,
    memory: PhantomData<&'m ()>,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Cells<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cells<'_, T> {}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

// SAFETY: the pointers lead to shared words that are only touched through atomics and word copies; `attach`'s contract
// keeps them mapped for 'm.
unsafe impl<T> Send for View<'_, T> {}
// SAFETY: as above.
unsafe impl<T> Sync for View<'_, T> {}

impl<'m, T: Plain> Cells<'m, T> {
    /// Size and alignment (128) of the memory of so many cells.
    ///
    /// # Errors
    /// [`CellsError::Cells`] unless `cells` is in 2..=255; [`CellsError::Alignment`]; [`CellsError::TooShort`] if no
    /// address space of this target holds them.
    pub fn layout(cells: u32) -> Result<Layout, CellsError> {
        if !(2..=MAX_CELLS).contains(&cells) {
            return Err(CellsError::Cells { cells });
        }
        if align_of::<T>() > MAX_ALIGN {
            return Err(CellsError::Alignment { align: align_of::<T>() });
        }
        (cells as usize)
            .checked_mul(View::<T>::STRIDE * size_of::<Word>())
            .and_then(|bytes| bytes.checked_add(size_of::<Header>()))
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<Header>()).ok())
            .ok_or(CellsError::TooShort { needed: u64::MAX, found: usize::MAX as u64 })
    }

    /// Writes cells in which nothing was published yet into memory and attaches to them.
    ///
    /// Memory that is all zero holds such cells already: [`attach`](Self::attach) is enough for it.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Safety
    /// As [`attach`](Self::attach), and nobody else uses the memory until this returns.
    pub unsafe fn init(memory: NonNull<u8>, len_bytes: usize, cells: u32, mode: WakeMode) -> Result<Self, CellsError> {
        // SAFETY: the caller's contract.
        let this = unsafe { Self::attach(memory, len_bytes, cells, mode) }?;
        let header =
            Header { newest: Line(Word::new(0)), writer: Line(EndWord::default()), newer: Line(EventWord::new()) };
        // SAFETY: `attach` checked that the header fits and is aligned; the memory is the caller's alone.
        unsafe { this.0.header.write(header) };
        for word in 0..cells as usize * View::<T>::STRIDE {
            // SAFETY: inside the cells, whose size `attach` checked.
            let place = unsafe { this.0.words.add(word) };
            // SAFETY: as above, and the memory is the caller's alone.
            unsafe { place.write(Word::new(0)) };
        }
        Ok(this)
    }

    /// Attaches to cells that [`init`](Self::init) wrote, here or in another process.
    ///
    /// Looks at nothing but the memory's size: whoever keeps the memory (a segment's header) must know that there are
    /// so many cells of `T` in it. `mode` must be the one that they were made with.
    ///
    /// # Errors
    /// [`CellsError`] if the memory cannot hold such cells.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of `len_bytes` bytes for all of `'m`, and for as long as any handle made
    ///   from this value lives;
    /// - meanwhile every process accesses it through this crate, or atomically;
    /// - the [`Liveness`] of whoever claims the writer's end keeps its contract.
    pub unsafe fn attach(
        memory: NonNull<u8>,
        len_bytes: usize,
        cells: u32,
        mode: WakeMode,
    ) -> Result<Self, CellsError> {
        // SAFETY: the caller's contract, which asks for more.
        let mut view = unsafe { View::attach(memory, len_bytes, cells) }?;
        view.mode = mode;
        Ok(Self(view))
    }

    /// Claims the writer's end for this process; takes over from a writer that is proven dead. Does not block.
    ///
    /// # Errors
    /// [`ClaimError`]: a living participant holds the end, this is a fork child, or the shared words are corrupt.
    ///
    /// # Crash
    /// A process killed inside leaves the end to the next claimant.
    pub fn writer<E: Wait + Liveness>(&self, env: E) -> Result<Writer<'m, T, E>, ClaimError> {
        Writer::claim(self.0, env)
    }

    /// A reader, which sleeps until it is woken when it waits for a newer value.
    pub fn reader<E: Wait + Liveness>(&self, env: E) -> Reader<'m, T, E> {
        Reader::new(self.0, env, true)
    }

    /// The same cells, for readers that poll.
    #[must_use]
    pub fn view(&self) -> View<'m, T> {
        self.0
    }

    /// How many cells there are.
    #[must_use]
    pub fn cells(&self) -> u32 {
        self.0.cells
    }

    /// How many values have been published; stale at once while the writer goes on.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// What the writer's word says now. The answer may be stale by the time it is read.
    #[must_use]
    pub fn writer_end(&self) -> End {
        self.0.header().writer.0.peer()
    }

    /// Wakes whoever sleeps, so that it looks again: for a reaper that has proven a death.
    pub fn wake_all<W: Wait>(&self, wait: &W) {
        self.0.header().newer.0.wake_all(wait);
    }
}

impl<'m, T: Plain> View<'m, T> {
    /// Words from one cell to the next: whole cache lines, so that the writer's next cell shares no line with the newest.
    const STRIDE: usize = {
        let words = size_of::<T>().div_ceil(WORD_BYTES);
        if words <= 8 { 8 } else { words.next_multiple_of(8) }
    };

    /// Attaches to cells in memory that may be mapped for reading only.
    ///
    /// # Errors
    /// As [`Cells::attach`].
    ///
    /// # Safety
    /// As [`Cells::attach`], but that the memory need not be valid for writes.
    pub unsafe fn attach(memory: NonNull<u8>, len_bytes: usize, cells: u32) -> Result<Self, CellsError> {
        let layout = Cells::<T>::layout(cells)?;
        if layout.size() > len_bytes {
            return Err(CellsError::TooShort { needed: layout.size() as u64, found: len_bytes as u64 });
        }
        if !memory.addr().get().is_multiple_of(layout.align()) {
            return Err(CellsError::Misaligned);
        }
        // SAFETY: the header's size is part of the layout's, which fits.
        let words = unsafe { memory.add(size_of::<Header>()) }.cast();
        let mode = WakeMode::Polling;
        Ok(Self { header: memory.cast(), words, cells, mode, memory: PhantomData, values: PhantomData })
    }

    /// A reader that writes nothing at all: when it waits for a newer value, it looks every millisecond.
    pub fn reader<E: Wait + Liveness>(&self, env: E) -> Reader<'m, T, E> {
        Reader::new(*self, env, false)
    }

    /// How many cells there are.
    #[must_use]
    pub fn cells(&self) -> u32 {
        self.cells
    }

    /// How many values have been published; stale at once while the writer goes on.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.newest().version
    }

    #[inline]
    fn header(&self) -> &'m Header {
        // SAFETY: valid for 'm by the contract of `attach`; all its fields are atomics.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn newest(&self) -> Newest {
        // ORDERING: Relaxed. Whoever reads the cell, or answers for the order of two looks, fences behind this.
        Newest::of(self.header().newest.0.load(Ordering::Relaxed))
    }

    /// The value's place; `None` if there is no such cell.
    #[inline]
    fn cell(&self, cell: u32) -> Option<NonNull<Word>> {
        // SAFETY: `cell < cells`, and `attach` checked that so many cells of `STRIDE` words fit.
        (cell < self.cells).then(|| unsafe { self.words.add(cell as usize * Self::STRIDE) })
    }

    /// Copies the newest value into `value` and returns its version; `Busy` if the writer overtook the copy. On an error
    /// `value` holds any bytes.
    #[inline(always)]
    fn read_once(&self, value: &mut MaybeUninit<T>) -> Result<u64, ReadError> {
        let before = self.newest();
        if before.version == 0 {
            return Err(ReadError::Empty);
        }
        let Some(cell) = self.cell(before.cell) else { return Err(ReadError::Corrupt) };
        // ORDERING latest.published: Acquire fence. Pairs with the Release store of `newest` in `publish`: the value in the
        // cell is visible to the copy below.
        fence(Ordering::Acquire);
        show_fence(&self.header().newest.0);
        // SAFETY: `value` is private, and a cell has room for a `T` rounded up to words.
        unsafe { race_out(value.as_mut_ptr().cast(), cell, size_of::<T>()) };
        // ORDERING latest.overwritten: Acquire fence. Pairs with the Release fence in `write`. Forbids: the copy takes bytes
        // of version `v + n`, and the load below does not yet see that `v + n - 1` was published.
        fence(Ordering::Acquire);
        if self.newest().version.wrapping_sub(before.version) < u64::from(self.cells - 1) {
            Ok(before.version)
        } else {
            Err(ReadError::Busy)
        }
    }

    /// As [`read_once`](Self::read_once), after it was overtaken once.
    #[cold]
    #[inline(never)]
    fn read_slow(&self, value: &mut MaybeUninit<T>) -> Result<u64, ReadError> {
        let tries = (1..TRIES).map(|_| self.read_once(value));
        tries.into_iter().find(|read| *read != Err(ReadError::Busy)).unwrap_or(Err(ReadError::Busy))
    }

    /// Writes `value` into `cell`, after everything that was published.
    #[inline]
    fn write(&self, cell: NonNull<Word>, value: &T) {
        // ORDERING latest.overwritten: Release fence. Pairs with the second Acquire fence in `read`. Forbids: a reader of
        // an old value takes bytes that are written below, and does not yet see the value that was published before.
        fence(Ordering::Release);
        // SAFETY: `value` is private, and a cell has room for a `T` rounded up to words.
        unsafe { race_in(cell, core::ptr::from_ref(value).cast(), size_of::<T>()) };
    }

    #[inline]
    fn publish(&self, newest: Newest) {
        // ORDERING latest.published: Release. Pairs with the first Acquire fence in `read`.
        // Publishes the value in the cell.
        self.header().newest.0.store(newest.word(), Ordering::Release);
    }
}

//! The newest value against a `Vec` of all that was published: readers of both kinds, writers that close, die and are
//! replaced; and the same calls on memory that a hostile peer writes.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::sync::atomic::Ordering;
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::end::ClaimError;
use crosslane_core::latest::{Cells, ReadError, Reader, Writer};

use crate::arena::{Arena, Poke, Start};
use crate::spsc_ops::Item;
use crate::surroundings::{Env, World};

/// Bytes in front of the cells: the newest word, the writer's end and the event word, each in lines of its own.
const HEADER_BYTES: usize = 384;
/// The newest word is 64 bits wide, and so is all of its lines.
const NEWEST: usize = 0;
const READERS: usize = 3;

#[derive(Debug, Arbitrary)]
struct Input {
    cells: u8,
    mode: u8,
    value: u8,
    /// Whether the peer is hostile, and with what it begins.
    hostile: Option<Start>,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Publish,
    Read(u8),
    ReadInto(u8),
    TryReadNewer(u8),
    ReadNewer(u8, u8),
    Claim,
    Close,
    Kill,
    Poke(Poke),
    WakeAll,
}

/// Runs one input. Planted: a writer that says `Ok` and publishes nothing, every seventh time; or, if the peer is hostile,
/// a reader that uses the cell's number without a check.
///
/// # Panics
/// When cells and model differ, or a call does not return.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    match input.value % 4 {
        0 => Play::<u64>::start(&input, planted),
        1 => Play::<[u8; 5]>::start(&input, planted),
        2 => Play::<[u8; 56]>::start(&input, planted),
        _ => Play::<[u8; 160]>::start(&input, planted),
    }
}

/// What is known of the writer's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Vacant,
    Open(u32),
    Closed,
    Dead(u32),
}

struct Play<'m, T: Item> {
    cells: Cells<'m, T>,
    world: &'m World,
    arena: &'m Arena,
    writer: Option<Writer<'m, T, Env<'m>>>,
    readers: [Reader<'m, T, Env<'m>>; READERS],
    seat: Seat,
    published: u64,
    participants: u32,
    hostile: bool,
    planted: bool,
}

impl<T: Item> Play<'_, T> {
    fn start(input: &Input, planted: bool) {
        let count = 2 + u32::from(input.cells % 6);
        let layout = Cells::<T>::layout(count).expect("a few cells");
        let (arena, world) = (Arena::new(layout.size(), input.mode & 0x80 != 0), World::default());
        // SAFETY: the arena is as long as the layout says, and the handles end before it.
        let cells = unsafe { Cells::<T>::init(arena.base(), arena.len_bytes(), count, crate::mode(input.mode)) };
        let cells = cells.expect("fits");
        if let Some(Start::Bytes(bytes)) = &input.hostile {
            arena.flood(bytes);
        }
        let env = |index| Env::new(&world, index);
        let readers = [cells.reader(env(100)), cells.view().reader(env(101)), cells.reader(env(102))];
        let mut play = Play::<T> {
            cells,
            world: &world,
            arena: &arena,
            writer: None,
            readers,
            seat: Seat::Vacant,
            published: 0,
            participants: 0,
            hostile: input.hostile.is_some(),
            planted,
        };
        for op in &input.ops {
            world.next_operation();
            play.step(*op);
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Publish => self.publish(),
            Op::Read(reader) => {
                let reader = self.reader(reader);
                let value = self.readers[reader].read();
                self.compare(reader, value, (self.published == 0).then_some(ReadError::Empty));
            }
            Op::ReadInto(reader) => {
                let (reader, mut value) = (self.reader(reader), T::make(0));
                let read = self.readers[reader].read_into(&mut value);
                self.compare(reader, read.map(|()| value), (self.published == 0).then_some(ReadError::Empty));
            }
            Op::TryReadNewer(reader) => {
                let reader = self.reader(reader);
                let seen = self.readers[reader].version() == self.published;
                let value = self.readers[reader].try_read_newer();
                self.compare(reader, value, seen.then_some(ReadError::NothingNew));
            }
            Op::ReadNewer(reader, parks) => {
                let reader = self.reader(reader);
                let seen = self.readers[reader].version() == self.published;
                let value = self.readers[reader].read_newer_timeout(Duration::from_nanos(parks.into()));
                self.compare(reader, value, seen.then(|| self.end_seen_by(reader)));
            }
            Op::Claim => self.claim(),
            Op::Close if self.writer.take().is_some() => self.seat = Seat::Closed,
            Op::Kill => {
                if let (Some(end), Seat::Open(index)) = (self.writer.take(), self.seat) {
                    core::mem::forget(end);
                    self.world.bury(index);
                    self.seat = Seat::Dead(index);
                }
            }
            Op::Poke(poke) if self.hostile => {
                let _ = poke.apply(self.arena, HEADER_BYTES, &[NEWEST]);
                if self.planted {
                    unchecked_cell(self.arena);
                }
            }
            Op::WakeAll => self.cells.wake_all(&Env::new(self.world, 99)),
            Op::Close | Op::Poke(_) => {}
        }
    }

    fn reader(&self, number: u8) -> usize {
        usize::from(number) % READERS
    }

    /// What a reader that waits in vain is told. The one of the view (the second) cannot tell who is dead.
    fn end_seen_by(&self, reader: usize) -> ReadError {
        match self.seat {
            Seat::Closed => ReadError::Closed,
            Seat::Dead(index) if reader != 1 => ReadError::WriterDied(Env::new(self.world, index).id()),
            Seat::Vacant | Seat::Open(_) | Seat::Dead(_) => ReadError::TimedOut,
        }
    }

    fn compare(&self, reader: usize, found: Result<T, ReadError>, error: Option<ReadError>) {
        if self.hostile {
            black_box(found.ok());
            return;
        }
        assert_eq!(found, error.map_or(Ok(T::make(self.published)), Err));
        if found.is_ok() {
            assert_eq!(self.readers[reader].version(), self.published);
        }
    }

    fn publish(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        self.published += 1;
        if !(self.planted && self.published.is_multiple_of(7)) {
            assert_eq!(writer.publish(&T::make(self.published)), Ok(()));
        }
        assert!(self.hostile || self.planted || writer.version() == self.published);
    }

    fn claim(&mut self) {
        self.participants += 1;
        if self.participants >= 90 {
            return;
        }
        let claimed = self.cells.writer(Env::new(self.world, self.participants));
        if self.hostile {
            if let Ok(end) = claimed {
                self.seat = Seat::Open(self.participants);
                self.writer = Some(end);
            }
            return;
        }
        match (claimed, self.seat) {
            (Err(ClaimError::EndTaken(owner)), Seat::Open(index)) => assert_eq!(owner.index(), index),
            (Ok(end), Seat::Vacant | Seat::Closed | Seat::Dead(_)) => {
                assert!(self.planted || end.version() == self.published);
                self.writer = Some(end);
                self.seat = Seat::Open(self.participants);
            }
            (claimed, seat) => panic!("{claimed:?} of a seat that is {seat:?}"),
        }
    }
}

/// The planted bug: a table by a number that a peer wrote.
fn unchecked_cell(arena: &Arena) {
    let cells = vec![0_u8; 255];
    let cell = arena.word64(NEWEST / 8).load(Ordering::Relaxed) & 0xff;
    black_box(cells[usize::try_from(cell).unwrap_or(usize::MAX)]);
}

//! The record ring against a `VecDeque`: every operation, ends that close, die and are replaced; room to the byte.
#![allow(unsafe_code)]

use core::time::Duration;
use std::collections::VecDeque;

use arbitrary::Arbitrary;
use crosslane_core::Trusted;
use crosslane_core::end::ClaimError;
use crosslane_core::record::{HeldBatch, PopError, PushError, ReadBatch, Reader, Ring, WriteBatch, Writer};

use crate::arena::Arena;
use crate::surroundings::{Env, World};

#[derive(Debug, Arbitrary)]
struct Input {
    capacity_log2: u8,
    mode: u8,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Arbitrary)]
enum Op {
    Push(u16),
    PushTimeout(u16, u8),
    Reserve { len: u16, commit: Option<u16>, parts: Vec<u8> },
    ReserveInPlace(u16),
    WriteBatch(Vec<u16>),
    Pop { buffer: u16 },
    PopTimeout { buffer: u16, parks: u8 },
    Read { at: u16, len: u16, keep: bool },
    ReadBatch { reads: u8, in_place: bool },
    ClaimWriter,
    ClaimReader,
    CloseWriter,
    CloseReader,
    KillWriter,
    KillReader,
    HoldBatch { reads: u8, release: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Vacant,
    Open(u32),
    Closed,
    Dead(u32),
}

/// Runs one input. Planted: a reader that gives back one wrong byte of records of a length that wrap around the end.
///
/// # Panics
/// When ring and model differ.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let capacity = 64 << (input.capacity_log2 % 4);
    let layout = Ring::layout(capacity).expect("a power of two");
    let (arena, world) = (Arena::new(layout.size(), input.mode & 0x80 != 0), World::default());
    // SAFETY: the arena is as long as the layout says, and the handles end before it.
    let ring = unsafe { Ring::init(arena.base(), arena.len_bytes(), capacity, crate::mode(input.mode)) };
    let mut play = Play {
        ring: ring.expect("fits"),
        world: &world,
        writer: None,
        reader: None,
        seats: (Seat::Vacant, Seat::Vacant),
        queue: VecDeque::new(),
        tail: 0,
        position: 0,
        released: 0,
        made: 0,
        participants: 0,
        planted,
    };
    play.claim_writer();
    play.claim_reader();
    for op in &input.ops {
        world.next_operation();
        play.step(op);
    }
    play.drain();
}

struct Play<'m> {
    ring: Ring<'m>,
    world: &'m World,
    writer: Option<Writer<'m, Env<'m>, Trusted>>,
    reader: Option<Reader<'m, Env<'m>, Trusted>>,
    seats: (Seat, Seat),
    /// Records that are committed and not released, from `released` on.
    queue: VecDeque<Vec<u8>>,
    tail: u64,
    position: u64,
    released: u64,
    made: u64,
    participants: u32,
    planted: bool,
}

/// Bytes that a record takes.
fn taken(len: usize) -> u64 {
    8 + (len as u64).next_multiple_of(8)
}

impl<'m> Play<'m> {
    fn step(&mut self, op: &Op) {
        match op {
            Op::Push(len) => self.push(*len, None),
            Op::PushTimeout(len, parks) => self.push(*len, Some(*parks)),
            Op::Reserve { len, commit, parts } => self.reserve(*len, *commit, parts),
            Op::ReserveInPlace(len) => self.reserve_in_place(*len),
            Op::WriteBatch(lens) => self.write_batch(lens),
            Op::Pop { buffer } => self.pop(*buffer, None),
            Op::PopTimeout { buffer, parks } => self.pop(*buffer, Some(*parks)),
            Op::Read { at, len, keep } => self.read(*at, *len, *keep),
            Op::ReadBatch { reads, in_place } => self.read_batch(*reads, *in_place),
            Op::HoldBatch { reads, release } => self.hold_batch(*reads, *release),
            Op::ClaimWriter => self.claim_writer(),
            Op::ClaimReader => self.claim_reader(),
            Op::CloseWriter if self.writer.take().is_some() => self.seats.0 = Seat::Closed,
            Op::CloseReader if self.reader.take().is_some() => self.seats.1 = Seat::Closed,
            Op::KillWriter => {
                if let (Some(end), Seat::Open(index)) = (self.writer.take(), self.seats.0) {
                    core::mem::forget(end);
                    self.world.bury(index);
                    self.seats.0 = Seat::Dead(index);
                }
            }
            Op::KillReader => {
                if let (Some(end), Seat::Open(index)) = (self.reader.take(), self.seats.1) {
                    core::mem::forget(end);
                    self.world.bury(index);
                    self.seats.1 = Seat::Dead(index);
                }
            }
            Op::CloseWriter | Op::CloseReader => {}
        }
        self.compare();
    }

    fn newcomer(&mut self) -> Option<u32> {
        self.participants += 1;
        (self.participants < 128).then_some(self.participants)
    }

    fn claim_writer(&mut self) {
        let Some(index) = self.newcomer() else { return };
        match (self.ring.writer(Env::new(self.world, index)), self.seats.0) {
            (Err(ClaimError::EndTaken(owner)), Seat::Open(index)) => assert_eq!(owner.index(), index),
            (Ok(end), Seat::Vacant | Seat::Closed | Seat::Dead(_)) => {
                // SAFETY: both ends are this module's.
                self.writer = Some(unsafe { end.trust_peers() });
                self.seats.0 = Seat::Open(index);
            }
            (claimed, seat) => panic!("{claimed:?} of a seat that is {seat:?}"),
        }
    }

    fn claim_reader(&mut self) {
        let Some(index) = self.newcomer() else { return };
        match (self.ring.reader(Env::new(self.world, index)), self.seats.1) {
            (Err(ClaimError::EndTaken(owner)), Seat::Open(index)) => assert_eq!(owner.index(), index),
            (Ok(end), Seat::Vacant | Seat::Closed | Seat::Dead(_)) => {
                // SAFETY: both ends are this module's.
                self.reader = Some(unsafe { end.trust_peers() });
                self.seats.1 = Seat::Open(index);
            }
            (claimed, seat) => panic!("{claimed:?} of a seat that is {seat:?}"),
        }
    }

    /// A record of `len` bytes, up to a little above the maximum.
    fn make(&mut self, len: u16) -> Vec<u8> {
        self.made += 1;
        let len = usize::from(len) % (self.ring.max_len_bytes() + 9);
        (0..len as u64).map(|i| (self.made.wrapping_mul(31).wrapping_add(i * 7)).to_le_bytes()[0]).collect()
    }

    /// What a push of `len` bytes says, with `full` where there is no room.
    fn room(&self, len: usize, full: PushError) -> Result<(), PushError> {
        let max = self.ring.max_len_bytes();
        if len > max {
            Err(PushError::TooLong { len, max })
        } else if self.seats.1 == Seat::Closed {
            Err(PushError::Closed)
        } else if self.tail + taken(len) + 8 - self.released > u64::from(self.ring.capacity_bytes()) {
            Err(full)
        } else {
            Ok(())
        }
    }

    fn went_in(&mut self, record: Vec<u8>) {
        self.tail += taken(record.len());
        self.queue.push_back(record);
    }

    fn push(&mut self, len: u16, parks: Option<u8>) {
        let record = self.make(len);
        let full = match (parks, self.seats.1) {
            (None, _) => PushError::Full,
            (_, Seat::Dead(index)) => PushError::PeerDied(Env::new(self.world, index).id()),
            _ => PushError::TimedOut,
        };
        let expected = self.room(record.len(), full);
        let Some(end) = &mut self.writer else { return };
        let pushed = match parks {
            None => end.try_push(&record),
            Some(parks) => end.push_timeout(&record, Duration::from_nanos(parks.into())),
        };
        assert_eq!(pushed, expected);
        if pushed.is_ok() {
            self.went_in(record);
        }
    }

    /// Reserves, fills in pieces of the lengths in `parts`, and commits all or a part, or nothing.
    fn reserve(&mut self, len: u16, commit: Option<u16>, parts: &[u8]) {
        let mut record = self.make(len);
        let expected = self.room(record.len(), PushError::Full);
        let Some(end) = &mut self.writer else { return };
        match end.try_reserve(record.len()) {
            Ok(mut room) => {
                assert_eq!((Ok(()), room.len_bytes()), (expected, record.len()));
                let mut at = 0;
                for part in parts.iter().map(|p| usize::from(*p)).chain([record.len()]) {
                    let to = record.len().min(at + part);
                    room.copy_from(at, &record[at..to]);
                    at = to;
                }
                if let Some(commit) = commit {
                    let commit = usize::from(commit) % (record.len() + 1);
                    room.commit_len(commit).expect("not forked");
                    record.truncate(commit);
                    self.went_in(record);
                }
            }
            Err(error) => assert_eq!(Err(error), expected),
        }
    }

    fn reserve_in_place(&mut self, len: u16) {
        let record = self.make(len);
        let expected = self.room(record.len(), PushError::Full);
        let Some(end) = &mut self.writer else { return };
        match end.try_reserve(record.len()) {
            Ok(mut room) => {
                assert_eq!(Ok(()), expected);
                let (front, back) = room.as_mut_slices();
                front.copy_from_slice(&record[..front.len()]);
                back.copy_from_slice(&record[front.len()..]);
                room.commit().expect("not forked");
                self.went_in(record);
            }
            Err(error) => assert_eq!(Err(error), expected),
        }
    }

    fn write_batch(&mut self, lens: &[u16]) {
        let Some(mut end) = self.writer.take() else { return };
        let mut batch: WriteBatch<'_, '_, _, _> = end.batch();
        for len in lens {
            let record = self.make(*len);
            let expected = self.room(record.len(), PushError::Full);
            assert_eq!(batch.try_push(&record), expected);
            if expected.is_ok() {
                self.went_in(record);
            }
        }
        drop(batch);
        self.writer = Some(end);
    }

    /// What a ring without records says to a reader that does not block.
    fn nothing(&self) -> PopError {
        if self.seats.0 == Seat::Closed { PopError::Closed } else { PopError::Empty }
    }

    /// The oldest record was read and released.
    fn went_out(&mut self) {
        let len = self.queue.pop_front().expect("there was one").len();
        self.position += taken(len);
        self.released = self.position;
    }

    fn spoil(&self, bytes: &mut [u8]) {
        let start = self.position % u64::from(self.ring.capacity_bytes());
        let wraps = start + taken(bytes.len()) > u64::from(self.ring.capacity_bytes());
        if self.planted && wraps && bytes.len() % 8 == 5 {
            bytes[3] ^= 1;
        }
    }

    fn pop(&mut self, buffer: u16, parks: Option<u8>) {
        let mut buffer = vec![0; usize::from(buffer) % 600];
        let nothing = match (parks, self.seats.0) {
            (None, _) | (_, Seat::Closed) => self.nothing(),
            (_, Seat::Dead(index)) => PopError::PeerDied(Env::new(self.world, index).id()),
            _ => PopError::TimedOut,
        };
        let Some(end) = &mut self.reader else { return };
        let popped = match parks {
            None => end.try_pop_into(&mut buffer),
            Some(parks) => end.pop_into_timeout(&mut buffer, Duration::from_nanos(parks.into())),
        };
        match (popped, self.queue.front()) {
            (Ok(len), Some(record)) => {
                self.spoil(&mut buffer[..len]);
                assert_eq!(buffer[..len], *record);
                self.went_out();
            }
            (Err(PopError::BufferTooShort { needed }), Some(record)) => {
                assert_eq!(needed, record.len());
                assert!(needed > buffer.len());
            }
            (Err(error), None) => assert_eq!(error, nothing),
            (popped, record) => panic!("{popped:?} where {record:?} is next"),
        }
    }

    fn read(&mut self, at: u16, len: u16, keep: bool) {
        let nothing = self.nothing();
        let Some(end) = &mut self.reader else { return };
        let found = match end.try_read() {
            Ok(found) => found,
            Err(error) => return assert_eq!((error, self.queue.len()), (nothing, 0)),
        };
        let record = self.queue.front().expect("nothing was pushed");
        assert_eq!(found.len_bytes(), record.len());
        let at = usize::from(at) % (record.len() + 1);
        let mut out = vec![0; usize::from(len) % (record.len() - at + 1)];
        found.copy_to(at, &mut out);
        assert_eq!(out, record[at..at + out.len()]);
        let (front, back) = found.as_slices();
        assert_eq!([front, back].concat(), *record);
        if keep {
            found.keep();
        } else {
            found.release();
            self.went_out();
        }
    }

    /// Reads several records, which are released when the batch ends, when it finds nothing, and by quarters.
    fn read_batch(&mut self, reads: u8, in_place: bool) {
        let nothing = self.nothing();
        let Some(mut end) = self.reader.take() else { return };
        let quarter = u64::from(self.ring.capacity_bytes()) / 4;
        let mut batch: ReadBatch<'_, '_, _, _> = end.batch();
        let mut buffer = [0; 600];
        for _ in 0..reads {
            let Some(record) = self.queue.pop_front() else {
                assert_eq!(batch.try_pop_into(&mut buffer), Err(nothing));
                self.released = self.position;
                break;
            };
            if in_place {
                let found = batch.try_read().expect("a record is there");
                found.copy_to(0, &mut buffer[..record.len()]);
                assert_eq!(found.len_bytes(), record.len());
            } else {
                assert_eq!(batch.try_pop_into(&mut buffer), Ok(record.len()));
            }
            assert_eq!(buffer[..record.len()], *record);
            self.position += taken(record.len());
            if self.position - self.released >= quarter {
                self.released = self.position;
            }
        }
        drop(batch);
        self.released = self.position;
        self.reader = Some(end);
    }

    /// Reads several records, which are released together or come again.
    fn hold_batch(&mut self, reads: u8, release: bool) {
        let nothing = self.nothing();
        let Some(end) = &mut self.reader else { return };
        let mut held: HeldBatch<'_, '_, _, _> = end.hold_batch();
        let mut buffer = [0; 600];
        let (mut read, mut bytes) = (0, 0);
        for _ in 0..reads {
            let Some(record) = self.queue.get(read) else {
                assert_eq!(held.try_pop_into(&mut buffer), Err(nothing));
                break;
            };
            assert_eq!(held.try_pop_into(&mut buffer), Ok(record.len()));
            assert_eq!(buffer[..record.len()], *record);
            (read, bytes) = (read + 1, bytes + taken(record.len()));
            assert_eq!((held.held_bytes(), held.position()), (bytes, self.position + bytes));
        }
        if release {
            held.release();
            self.queue.drain(..read);
            self.position += bytes;
            self.released = self.position;
        }
    }

    fn compare(&self) {
        if let Some(end) = &self.writer {
            assert_eq!(end.position(), self.tail);
        }
        if let Some(end) = &self.reader {
            assert_eq!((end.position(), end.is_empty()), (self.position, self.queue.is_empty()));
        }
    }

    /// Whatever happened, a successor of the reader gets the rest.
    fn drain(&mut self) {
        self.world.next_operation();
        if self.reader.is_none() {
            self.claim_reader();
        }
        while self.reader.is_some() && !self.queue.is_empty() {
            self.pop(599, None);
        }
        self.compare();
    }
}

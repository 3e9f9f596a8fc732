//! Every call of the record ring on memory that a hostile peer writes.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::sync::atomic::Ordering;
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::record::{Reader, Ring, Writer};

use crate::arena::{Arena, Poke, Start};
use crate::surroundings::{Env, World};

/// Bytes in front of the words.
pub(crate) const HEADER_BYTES: usize = 384;
/// The one 64-bit word of the header: the reader's released position.
pub(crate) const HEAD: &[usize] = &[256];

#[derive(Debug, Arbitrary)]
struct Input {
    capacity_log2: u8,
    mode: u8,
    start: Start,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Op {
    Poke(Poke),
    ClaimWriter(u8),
    ClaimReader(u8),
    DropWriter,
    DropReader,
    ForgetEnds,
    Bury(u8),
    Push { len: u16, parks: u8 },
    Reserve { len: u16, at: u16, bytes: u8, commit: u16 },
    WriteBatch { len: u16, records: u8 },
    Pop { buffer: u16, parks: u8 },
    Read { at: u16, out: u16, keep: bool },
    ReadBatch { records: u8 },
    Look,
    WakeAll,
    HoldBatch { records: u8, parks: u8, release: bool },
}

/// Runs one input. Planted: a reader that trusts the length word, and reads past the end of the memory.
///
/// # Panics
/// When a call does not return. The planted bug is for the address sanitizer, or the page behind the arena.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let (arena, capacity) = arena(input.capacity_log2, input.mode, &input.start);
    let world = World::default();
    // SAFETY: the arena is as long as the ring needs, and the handles end before it.
    let ring = unsafe { Ring::attach(arena.base(), arena.len_bytes(), capacity, crate::mode(input.mode)) };
    play(ring.expect("fits"), &world, Some(&arena), &input.ops);
    if planted {
        trusting_read(&arena);
    }
}

/// An arena with a ring in it, honest or not, and its capacity.
pub(crate) fn arena(capacity_log2: u8, mode: u8, start: &Start) -> (Arena, u32) {
    let capacity = 64 << (capacity_log2 % 5);
    let layout = Ring::layout(capacity).expect("a power of two");
    let arena = Arena::new(layout.size(), mode & 0x80 != 0);
    // SAFETY: the arena is as long as the layout says; the ring is used after this through another handle.
    unsafe { Ring::init(arena.base(), arena.len_bytes(), capacity, crate::mode(mode)) }.expect("fits");
    if let Start::Bytes(bytes) = start {
        arena.flood(bytes);
    }
    (arena, capacity)
}

/// Runs `ops`; pokes only where there is an `arena` for them.
pub(crate) fn play(ring: Ring<'_>, world: &World, arena: Option<&Arena>, ops: &[Op]) {
    let mut writer: Option<Writer<'_, Env<'_>>> = None;
    let mut reader: Option<Reader<'_, Env<'_>>> = None;
    let (max, bytes) = (ring.max_len_bytes(), [0x5a_u8; 2048]);
    let mut buffer = [0_u8; 2048];
    for op in ops {
        world.next_operation();
        match (op, &mut writer, &mut reader) {
            (Op::Poke(poke), _, _) => {
                if let Some(arena) = arena {
                    let _ = poke.apply(arena, HEADER_BYTES, HEAD);
                }
            }
            (Op::ClaimWriter(index), end @ None, _) => *end = ring.writer(Env::new(world, (*index).into())).ok(),
            (Op::ClaimReader(index), _, end @ None) => *end = ring.reader(Env::new(world, (*index).into())).ok(),
            (Op::DropWriter, end, _) => *end = None,
            (Op::DropReader, _, end) => *end = None,
            (Op::ForgetEnds, _, _) => {
                core::mem::forget(writer.take());
                core::mem::forget(reader.take());
            }
            (Op::Bury(index), _, _) => world.bury((*index).into()),
            (Op::Push { len, parks }, Some(end), _) => push(end, &bytes[..usize::from(*len) % (max + 9)], *parks),
            (Op::Reserve { len, at, bytes: some, commit }, Some(end), _) => {
                reserve(end, usize::from(*len) % (max + 9), *at, &bytes[..usize::from(*some)], *commit);
            }
            (Op::WriteBatch { len, records }, Some(end), _) => {
                let mut batch = end.batch();
                for _ in 0..*records {
                    let _ = batch.try_push(&bytes[..usize::from(*len) % (max + 9)]);
                }
            }
            (Op::Pop { buffer: len, parks }, _, Some(end)) => {
                let buffer = &mut buffer[..usize::from(*len) % 2048];
                assert!(end.try_pop_into(buffer).unwrap_or(0) <= buffer.len().min(max));
                let timeout = Duration::from_nanos(u64::from(*parks % 16));
                assert!(end.pop_into_timeout(buffer, timeout).unwrap_or(0) <= buffer.len().min(max));
            }
            (Op::Read { at, out, keep }, _, Some(end)) => read(end, *at, *out, *keep, &mut buffer),
            (Op::ReadBatch { records }, _, Some(end)) => {
                let mut batch = end.batch();
                for _ in 0..*records {
                    let _ = black_box(batch.try_pop_into(&mut buffer));
                }
            }
            (Op::HoldBatch { records, parks, release }, _, Some(end)) => {
                hold_batch(end, *records, *parks, *release, &mut buffer);
            }
            (Op::Look, _, _) => {
                black_box((ring.writer_end(), ring.reader_end()));
                black_box(writer.as_ref().map(|end| (end.peer(), end.position())));
                black_box(reader.as_ref().map(|end| (end.is_empty(), end.peer(), end.position())));
            }
            (Op::WakeAll, _, _) => ring.wake_all(&Env::new(world, 0)),
            _ => {}
        }
        black_box(&mut buffer);
    }
    world.next_operation();
}

fn push(end: &mut Writer<'_, Env<'_>>, record: &[u8], parks: u8) {
    let _ = end.try_push(record);
    let _ = end.push_timeout(record, Duration::from_nanos(u64::from(parks % 16)));
}

/// Keeps to what the guard says of itself: its calls panic on their caller's fault only.
fn reserve(end: &mut Writer<'_, Env<'_>>, len: usize, at: u16, bytes: &[u8], commit: u16) {
    let Ok(mut room) = end.try_reserve(len) else { return };
    assert_eq!(room.len_bytes(), len);
    let at = usize::from(at) % (len + 1);
    room.copy_from(at, &bytes[..bytes.len().min(len - at)]);
    let _ = room.commit_len(usize::from(commit) % (len + 1));
}

fn read(end: &mut Reader<'_, Env<'_>>, at: u16, out: u16, keep: bool, buffer: &mut [u8]) {
    let max = end.max_len_bytes();
    let Ok(record) = end.try_read() else { return };
    assert!(record.len_bytes() <= max);
    let at = usize::from(at) % (record.len_bytes() + 1);
    record.copy_to(at, &mut buffer[..usize::from(out) % (record.len_bytes() - at + 1)]);
    if keep { record.keep() } else { record.release() }
}

/// Whatever the words say, a held batch only gives back or releases what it has read.
fn hold_batch(end: &mut Reader<'_, Env<'_>>, records: u8, parks: u8, release: bool, buffer: &mut [u8]) {
    let (before, max) = (end.position(), end.max_len_bytes());
    let mut batch = end.hold_batch();
    for _ in 0..records {
        assert!(batch.try_pop_into(buffer).unwrap_or(0) <= max);
    }
    assert!(batch.pop_into_timeout(buffer, Duration::from_nanos(u64::from(parks % 16))).unwrap_or(0) <= max);
    let (after, held) = (batch.position(), batch.held_bytes());
    assert_eq!(after.wrapping_sub(held), before);
    if release {
        batch.release();
        assert_eq!(end.position(), after);
    } else {
        drop(batch);
        assert_eq!(end.position(), before);
    }
}

/// The planted bug: takes the first length word for what it says, if only the stamp is right.
fn trusting_read(arena: &Arena) {
    let word = arena.word64(HEADER_BYTES / 8).load(Ordering::Relaxed);
    let len = (word & 0xffff).saturating_sub(1);
    if word >> 32 == 0 {
        for at in 0..usize::try_from(len).unwrap_or(0) {
            let byte = arena.base().as_ptr().wrapping_add(HEADER_BYTES + 8 + at);
            // SAFETY: none; this is the planted bug, which the fuzzer is to find.
            black_box(unsafe { byte.read_volatile() });
        }
    }
}

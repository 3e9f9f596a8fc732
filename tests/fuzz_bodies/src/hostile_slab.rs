//! A slab whose head, directory and room a hostile peer overwrites while objects are carved and opened.
//!
//! Every call must return; every object must lie in the slab, and apart from every other one that this process has there.

use core::hint::black_box;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use arbitrary::Arbitrary;
use crosslane_core::{Share, Trusted, WakeMode};
use crosslane_shm::{CreateError, Mutex, ObjectId, OpenError, Options, Shared, Slab, Spsc};

/// The shortest slab: 62 entries, and room for some 70 lines.
const SLAB_BYTES: u32 = 8 << 10;
/// Where its parts are in the file, in bytes.
const HEAD_AT: u64 = 256;
const ENTRIES_AT: u64 = HEAD_AT + 64;
const ENTRY_BYTES: usize = 48;
const ROOM_AT: u64 = 3328;
/// More objects than that are not held: their checks against each other take their square.
const MOST_HELD: usize = 64;
const SLOTS: u32 = 4;

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Carve(Kind),
    Open {
        id: u8,
        kind: Kind,
    },
    Poke {
        place: Place,
        value: u64,
        width: u8,
    },
    /// A copy of one entry into another.
    Copy {
        from: u8,
        to: u8,
    },
    Use {
        which: u8,
        with: u8,
    },
    Drop(u8),
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Kind {
    Lock,
    Ring,
    Wide,
    Narrow,
    Bytes,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Place {
    Head(u8),
    Field { entry: u8, field: u8 },
    Room(u16),
}

/// An object that could be had.
enum Held {
    Lock(Mutex<[u64; 3], Trusted>),
    Ring(Spsc<u64, Trusted>),
    Wide(Shared<[AtomicU64; 4], Trusted>),
    Narrow(Shared<[AtomicU32; 5], Trusted>),
    Bytes(Shared<[AtomicU8; 70], Trusted>),
}

/// Runs one input. Planted: a reader that takes where an object lies from its entry, without a look at the slab's length.
///
/// # Panics
/// When a call panics, an object lies where it must not, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(ops) = crate::decode::<Vec<Op>>(data) else { return };
    let slab = Slab::anonymous(&Options::new().slab_bytes(SLAB_BYTES)).expect("a small slab");
    let file = File::from(slab.as_fd().try_clone_to_owned().expect("a descriptor more"));
    let mut held = Vec::new();
    [Kind::Wide, Kind::Lock, Kind::Bytes].into_iter().for_each(|kind| held.extend(carved(&slab, kind)));
    for op in ops {
        if planted {
            believe(&file);
        }
        step(&slab, &file, &mut held, op);
        apart(&slab, &held);
    }
}

fn step(slab: &Slab<Trusted>, file: &File, held: &mut Vec<Held>, op: Op) {
    match op {
        Op::Carve(kind) if held.len() < MOST_HELD => held.extend(carved(slab, kind)),
        Op::Open { id, kind } if held.len() < MOST_HELD => held.extend(opened(slab, kind, ObjectId::new(id.into()))),
        Op::Carve(_) | Op::Open { .. } => {}
        Op::Poke { place, value, width } => {
            let at = match place {
                Place::Head(byte) => HEAD_AT + u64::from(byte % 8),
                Place::Field { entry, field } => entry_at(entry) + 4 * u64::from(field % 12),
                Place::Room(byte) => ROOM_AT + u64::from(byte) % (u64::from(SLAB_BYTES) - ROOM_AT - 8),
            };
            file.write_all_at(&value.to_le_bytes()[..1 + usize::from(width % 8)], at).expect("inside the file");
        }
        Op::Copy { from, to } => {
            let mut entry = [0; ENTRY_BYTES];
            file.read_exact_at(&mut entry, entry_at(from)).expect("inside the file");
            file.write_all_at(&entry, entry_at(to)).expect("inside the file");
        }
        Op::Use { which, with } => {
            let len = held.len().max(1);
            if let Some(object) = held.get(usize::from(which) % len) {
                object.play(with);
            }
        }
        Op::Drop(which) => {
            if !held.is_empty() {
                held.swap_remove(usize::from(which) % held.len());
            }
        }
        Op::List => {
            let most = (u64::from(SLAB_BYTES) - HEAD_AT) / 128;
            assert!(slab.objects().map(black_box).count() as u64 <= most);
            assert!(slab.free_bytes() <= SLAB_BYTES);
        }
    }
}

/// Most often one of the first, which are in use.
fn entry_at(index: u8) -> u64 {
    let index = if index < 200 { index % 6 } else { index };
    ENTRIES_AT + (ENTRY_BYTES * usize::from(index % 62)) as u64
}

fn checked<T>(object: Result<T, impl core::fmt::Display>, make: impl FnOnce(T) -> Held) -> Option<Held> {
    object.map(make).inspect_err(|error| assert!(!error.to_string().is_empty())).ok()
}

fn carved(slab: &Slab<Trusted>, kind: Kind) -> Option<Held> {
    fn value<T: Share>(slab: &Slab<Trusted>, value: T) -> Result<Shared<T, Trusted>, CreateError> {
        Shared::in_slab(slab, value)
    }
    match kind {
        Kind::Lock => checked(Mutex::in_slab(slab, [1; 3]), Held::Lock),
        Kind::Ring => checked(Spsc::in_slab(slab, SLOTS, &Options::new().wake_mode(WakeMode::Fenced)), Held::Ring),
        Kind::Wide => checked(value(slab, core::array::from_fn(|_| AtomicU64::new(1))), Held::Wide),
        Kind::Narrow => checked(value(slab, core::array::from_fn(|_| AtomicU32::new(1))), Held::Narrow),
        Kind::Bytes => checked(value(slab, core::array::from_fn(|_| AtomicU8::new(1))), Held::Bytes),
    }
}

fn opened(slab: &Slab<Trusted>, kind: Kind, id: ObjectId) -> Option<Held> {
    fn value<T: Share>(slab: &Slab<Trusted>, id: ObjectId) -> Result<Shared<T, Trusted>, OpenError> {
        Shared::from_slab(slab, id)
    }
    match kind {
        Kind::Lock => checked(Mutex::from_slab(slab, id), Held::Lock),
        Kind::Ring => checked(Spsc::from_slab(slab, id), Held::Ring),
        Kind::Wide => checked(value(slab, id), Held::Wide),
        Kind::Narrow => checked(value(slab, id), Held::Narrow),
        Kind::Bytes => checked(value(slab, id), Held::Bytes),
    }
}

impl Held {
    fn play(&self, with: u8) {
        match self {
            // On copies: what is lent in place rests on peers that keep to the protocol.
            Self::Lock(lock) => drop(black_box(lock.try_update(|value| value[0] = value[0].wrapping_add(with.into())))),
            Self::Ring(ring) => {
                if let Ok(mut producer) = ring.producer() {
                    let _ = producer.try_push(with.into());
                }
                if let Ok(mut consumer) = ring.consumer() {
                    let _ = black_box(consumer.try_pop());
                }
            }
            Self::Wide(value) => value[usize::from(with % 4)].store(with.into(), Ordering::Relaxed),
            Self::Narrow(value) => drop(black_box(value[usize::from(with % 5)].fetch_add(1, Ordering::Relaxed))),
            Self::Bytes(value) => value[usize::from(with % 70)].store(with, Ordering::Relaxed),
        }
    }

    /// Where a value lies that is borrowed; the others keep that to themselves.
    fn range(&self) -> Option<Range<usize>> {
        fn of<T>(value: &T) -> Range<usize> {
            let start = core::ptr::from_ref(value).addr();
            start..start + size_of::<T>()
        }
        match self {
            Self::Wide(value) => Some(of(&**value)),
            Self::Narrow(value) => Some(of(&**value)),
            Self::Bytes(value) => Some(of(&**value)),
            Self::Lock(_) | Self::Ring(_) => None,
        }
    }
}

/// Each value lies in the slab, and either is another one's whole or shares no byte with it.
fn apart(slab: &Slab<Trusted>, held: &[Held]) {
    let (start, len) = slab.segment().object();
    let room = start.addr().get()..start.addr().get() + len;
    let ranges: Vec<_> = held.iter().filter_map(Held::range).collect();
    for (i, one) in ranges.iter().enumerate() {
        assert!(room.contains(&one.start) && one.end <= room.end, "{one:x?} outside of {room:x?}");
        for other in &ranges[..i] {
            assert!(one == other || one.end <= other.start || other.end <= one.start, "{one:x?} over {other:x?}");
        }
    }
}

/// What must not be done.
fn believe(file: &File) {
    let mut bytes = vec![0; SLAB_BYTES as usize];
    file.read_exact_at(&mut bytes, 0).expect("as long as it was made");
    let entries = bytes[usize::try_from(ENTRIES_AT).expect("small")..].chunks(ENTRY_BYTES).take(62);
    for entry in entries {
        let number = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| entry[at + i])) as usize;
        if number(0) == u32::from_le_bytes(*b"slab") as usize {
            let at = usize::try_from(ROOM_AT).expect("small").wrapping_add(number(4));
            black_box(&bytes[at..at.wrapping_add(number(8))]);
        }
    }
}

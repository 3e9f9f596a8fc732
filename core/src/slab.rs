//! Small objects carved from one piece of memory, and the directory that says what they are.
//!
//! # What
//! A [`Head`] word, a directory of so many [`Entry`]s, and room for objects. Carving takes the next entry and the next
//! bytes of the room in one step, fills both, and commits the entry. Nothing is given back and nothing is used twice: the
//! memory goes as a whole, when its last user has unmapped it, so there are no counts that a killed process could leave
//! wrong. The head is a `u64` = entries taken, above bytes used; all zero is a valid start.
//!
//! # Protocol
//! Carver ([`Directory::carve`], [`Claim::commit`]):
//! 1. load the head; the object begins behind the bytes used, at its alignment, and takes one byte if it has none, so that no
//!    two begin in one place; no entry or too little room: `Full`;
//! 2. CAS(head -> one entry more, bytes up to the object's end); lost: 1;
//! 3. fill the object's bytes, which are zero and nobody else's;
//! 4. fill the entry's fields;
//! 5. `state.store(COMMITTED)`.
//!
//! Reader ([`Directory::look`]):
//! 1. `state.load`; not `COMMITTED`: nothing is there, yet or for ever;
//! 2. take each field once, and check that the object lies in the room.
//!
//! Two carvers never get the same bytes, because the bytes used only grow, by the CAS. That rests on the peers; whoever
//! must not have two objects in one place even if a peer turns the head back, as memory safety asks for, keeps a private
//! note of what it has carved and looked up, and compares.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `slab.entry` | carver 5 | reader 1 | the object's first bytes and the entry's fields | `slab` |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | 1 and 2 | nothing |
//! | 2 and 5 | a hole: an entry that is never committed, and bytes that nobody uses |
//! | after 5 | the object, which nobody may have been told of |

use crate::prim::{AtomicU32, AtomicU64, Ordering};

/// The state of an entry that can be read: "slab". An entry starts as 0.
const COMMITTED: u32 = u32::from_le_bytes(*b"slab");

/// How much of a slab is taken. All zero is a valid start: nothing.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Head(AtomicU64);

/// What one object is, in shared memory. All zero is a valid start: nothing is there.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Entry {
    state: AtomicU32,
    offset: AtomicU32,
    len: AtomicU32,
    kind: AtomicU32,
    elem_size: AtomicU32,
    elem_align: AtomicU32,
    wake: AtomicU32,
    reserved: AtomicU32,
    fingerprint: AtomicU64,
    capacity: AtomicU64,
}

#[cfg(not(crosslane_loom))]
const _: () = {
    assert!(size_of::<Head>() == 8);
    assert!(size_of::<Entry>() == 48);
    assert!(core::mem::offset_of!(Entry, state) == 0);
    assert!(core::mem::offset_of!(Entry, wake) == 24);
    assert!(core::mem::offset_of!(Entry, fingerprint) == 32);
    assert!(core::mem::offset_of!(Entry, capacity) == 40);
};

/// What an object is, as its carver says: numbers that only the floor above gives a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Description {
    /// The kind of object.
    pub kind: u32,
    /// How wakers find sleepers.
    pub wake: u32,
    /// Size of an element, in bytes.
    pub elem_size: u32,
    /// Alignment of an element, in bytes.
    pub elem_align: u32,
    /// Identifies the element's type.
    pub fingerprint: u64,
    /// Elements, or bytes, that the object holds.
    pub capacity: u64,
}

/// Where an object lies in its slab's room. Inside the room, whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the room.
    pub offset_bytes: u32,
    /// Length, in bytes.
    pub len_bytes: u32,
}

/// Why nothing was carved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CarveError {
    /// No entry is left, or not so many bytes; a smaller object may still fit.
    Full,
    /// The head holds, or changes faster than, what processes write that keep to the protocol.
    Corrupt,
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookError {
    /// The directory has no such entry.
    OutOfRange {
        /// The entry asked for, counted from 0.
        index: u32,
        /// How many there are.
        entries: u32,
    },
    /// Nothing is there: not carved, not committed yet, or left by a carver that was killed.
    Vacant {
        /// The entry asked for, counted from 0.
        index: u32,
    },
    /// The entry holds what no process writes that keeps to the protocol.
    Corrupt,
}

/// A slab: its head, its directory, and how much room it has. The room itself is the caller's business.
#[derive(Debug, Clone, Copy)]
pub struct Directory<'m> {
    head: &'m Head,
    entries: &'m [Entry],
    room_bytes: u32,
}

/// A piece of the room that is this caller's, and the entry that will say so. Dropped uncommitted, it is a hole.
#[derive(Debug)]
#[must_use = "a claim that is not committed is lost room"]
pub struct Claim<'m> {
    entry: &'m Entry,
    index: u32,
    extent: Extent,
}

impl<'m> Directory<'m> {
    /// The slab of this head and these entries, with `room_bytes` bytes for objects.
    #[must_use]
    pub const fn new(head: &'m Head, entries: &'m [Entry], room_bytes: u32) -> Self {
        Self { head, entries, room_bytes }
    }

    /// Takes an entry, and `len_bytes` of the room at a multiple of `align_bytes`, a power of two. Does not block: it
    /// starts over only when another carver was faster, at most once for each entry of the directory.
    ///
    /// # Errors
    /// [`CarveError::Full`]; [`CarveError::Corrupt`] if the head holds nonsense, or `align_bytes` is no power of two.
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, or a hole.
    pub fn carve(&self, len_bytes: u32, align_bytes: u32) -> Result<Claim<'m>, CarveError> {
        for _ in 0..=self.entries.len() {
            // ORDERING: Relaxed. The head gives bytes out and publishes none; they are zero since before the slab was.
            let seen = self.head.0.load(Ordering::Relaxed);
            let (index, used) = decode(seen);
            if index as usize > self.entries.len() || used > self.room_bytes || !align_bytes.is_power_of_two() {
                return Err(CarveError::Corrupt);
            }
            let entry = self.entries.get(index as usize).ok_or(CarveError::Full)?;
            let offset = used.checked_next_multiple_of(align_bytes);
            let end =
                offset.and_then(|offset| offset.checked_add(len_bytes.max(1))).filter(|end| *end <= self.room_bytes);
            let (Some(offset_bytes), Some(end)) = (offset, end) else { return Err(CarveError::Full) };
            // ORDERING: Relaxed, success and failure, as above: that one carver wins is all that counts.
            let taken =
                self.head.0.compare_exchange(seen, encode(index + 1, end), Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                return Ok(Claim { entry, index, extent: Extent { offset_bytes, len_bytes } });
            }
        }
        Err(CarveError::Corrupt)
    }

    /// What the entry `index` says. Does not block.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn look(&self, index: u32) -> Result<(Extent, Description), LookError> {
        let entry = self.entries.get(index as usize).ok_or_else(|| LookError::OutOfRange {
            index,
            entries: self.entries.len().try_into().unwrap_or(u32::MAX),
        })?;
        // ORDERING slab.entry: Acquire. Pairs with the Release in `commit`: who sees the state sees the entry and the
        // object's first bytes.
        match entry.state.load(Ordering::Acquire) {
            COMMITTED => {}
            0 => return Err(LookError::Vacant { index }),
            _ => return Err(LookError::Corrupt),
        }
        // ORDERING: Relaxed, in all of them. Ordered by the Acquire above; each field is loaded once.
        let get = |word: &AtomicU32| word.load(Ordering::Relaxed);
        let extent = Extent { offset_bytes: get(&entry.offset), len_bytes: get(&entry.len) };
        let end = extent.offset_bytes.checked_add(extent.len_bytes);
        if end.is_none_or(|end| end > self.room_bytes) {
            return Err(LookError::Corrupt);
        }
        let description = Description {
            kind: get(&entry.kind),
            wake: get(&entry.wake),
            elem_size: get(&entry.elem_size),
            elem_align: get(&entry.elem_align),
            fingerprint: entry.fingerprint.load(Ordering::Relaxed),
            capacity: entry.capacity.load(Ordering::Relaxed),
        };
        Ok((extent, description))
    }

    /// How many entries have been taken, at most all there are: a bound for whoever looks at each. May be too low by the
    /// time it is read.
    #[must_use]
    pub fn taken(&self) -> u32 {
        // ORDERING: Relaxed. What an entry says is acquired by `look`.
        let (index, _) = decode(self.head.0.load(Ordering::Relaxed));
        index.min(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }

    /// How many bytes of the room are taken. May be too low by the time it is read.
    #[must_use]
    pub fn used_bytes(&self) -> u32 {
        // ORDERING: Relaxed, as in `taken`.
        decode(self.head.0.load(Ordering::Relaxed)).1.min(self.room_bytes)
    }
}

impl Claim<'_> {
    /// The bytes that were taken. Zero, unless a peer does not keep to the protocol.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The entry's index: the object's name among peers.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Lets readers see the object, whose bytes are whole. Does not block.
    ///
    /// # Crash
    /// A process killed inside leaves a hole, or the object.
    pub fn commit(self, description: &Description) {
        let Self { entry, extent, .. } = self;
        // ORDERING: Relaxed, in all of them. Published by the Release below.
        let put = |word: &AtomicU32, value| word.store(value, Ordering::Relaxed);
        put(&entry.offset, extent.offset_bytes);
        put(&entry.len, extent.len_bytes);
        put(&entry.kind, description.kind);
        put(&entry.wake, description.wake);
        put(&entry.elem_size, description.elem_size);
        put(&entry.elem_align, description.elem_align);
        entry.fingerprint.store(description.fingerprint, Ordering::Relaxed);
        entry.capacity.store(description.capacity, Ordering::Relaxed);
        // ORDERING slab.entry: Release. Pairs with the Acquire in `look`.
        // Publishes the object's first bytes and the entry's fields.
        entry.state.store(COMMITTED, Ordering::Release);
    }
}

/// (entries taken, bytes used) of a head word.
fn decode(head: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = head.to_le_bytes();
    (u32::from_le_bytes([e, f, g, h]), u32::from_le_bytes([a, b, c, d]))
}

fn encode(taken: u32, used_bytes: u32) -> u64 {
    u64::from(taken) << 32 | u64::from(used_bytes)
}

impl core::fmt::Display for CarveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "the slab has no entry or no room left",
            Self::Corrupt => "the slab's head is corrupt",
        })
    }
}

impl core::fmt::Display for LookError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfRange { index, entries } => write!(f, "object {index} of a slab that has {entries} entries"),
            Self::Vacant { index } => {
                write!(f, "the slab has no object {index}: none was made, or its maker was killed or is not done")
            }
            Self::Corrupt => f.write_str("the slab's entry is corrupt"),
        }
    }
}

impl core::error::Error for CarveError {}
impl core::error::Error for LookError {}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use super::*;

    const KIND: Description =
        Description { kind: 1, wake: 2, elem_size: 3, elem_align: 4, fingerprint: u64::MAX, capacity: 6 };

    fn entries<const N: usize>() -> [Entry; N] {
        core::array::from_fn(|_| Entry::default())
    }

    #[test]
    fn pieces_are_aligned_disjoint_and_named_in_order() {
        let (head, entries) = (Head::default(), entries::<4>());
        let slab = Directory::new(&head, &entries, 256);
        for (i, (len, align, offset)) in (0..).zip([(3, 8, 0), (60, 64, 64), (1, 1, 124), (128, 128, 128)]) {
            let claim = slab.carve(len, align).unwrap();
            assert_eq!(claim.extent(), Extent { offset_bytes: offset, len_bytes: len });
            assert_eq!((claim.index(), slab.look(i)), (i, Err(LookError::Vacant { index: i })));
            claim.commit(&KIND);
            assert_eq!(slab.look(i), Ok((Extent { offset_bytes: offset, len_bytes: len }, KIND)));
        }
        assert_eq!((slab.taken(), slab.used_bytes()), (4, 256));
        assert_eq!(slab.carve(0, 1).unwrap_err(), CarveError::Full);
        assert_eq!(slab.look(4), Err(LookError::OutOfRange { index: 4, entries: 4 }));
    }

    #[test]
    fn objects_without_bytes_begin_in_places_of_their_own() {
        let (head, entries) = (Head::default(), entries::<4>());
        let slab = Directory::new(&head, &entries, 24);
        for offset_bytes in [0, 8, 16] {
            assert_eq!(slab.carve(0, 8).unwrap().extent(), Extent { offset_bytes, len_bytes: 0 });
        }
        assert_eq!(slab.carve(0, 8).unwrap_err(), CarveError::Full);
    }

    #[test]
    fn what_is_too_large_leaves_room_for_what_is_not() {
        let (head, entries) = (Head::default(), entries::<4>());
        let slab = Directory::new(&head, &entries, 128);
        slab.carve(100, 1).unwrap().commit(&KIND);
        for (len, align) in [(29, 1), (u32::MAX, 1), (1, 1 << 31)] {
            assert_eq!(slab.carve(len, align).unwrap_err(), CarveError::Full);
        }
        assert_eq!(slab.carve(28, 4).unwrap().extent().offset_bytes, 100);
        assert_eq!(slab.carve(1, 3).unwrap_err(), CarveError::Corrupt);
    }

    #[test]
    fn hostile_words_are_corrupt() {
        let (head, entries) = (Head::default(), entries::<2>());
        let slab = Directory::new(&head, &entries, 128);
        for word in [u64::MAX, 3 << 32, 129] {
            head.0.store(word, Ordering::Relaxed);
            assert_eq!(slab.carve(8, 8).unwrap_err(), CarveError::Corrupt);
            assert!(slab.taken() <= 2 && slab.used_bytes() <= 128);
        }
        head.0.store(0, Ordering::Relaxed);
        slab.carve(8, 8).unwrap().commit(&KIND);
        for (offset, len) in [(129, 0), (121, 8), (0, 129), (u32::MAX, 1), (8, u32::MAX)] {
            entries[0].offset.store(offset, Ordering::Relaxed);
            entries[0].len.store(len, Ordering::Relaxed);
            assert_eq!(slab.look(0), Err(LookError::Corrupt));
        }
        entries[0].state.store(1, Ordering::Relaxed);
        assert_eq!(slab.look(0), Err(LookError::Corrupt));
    }
}

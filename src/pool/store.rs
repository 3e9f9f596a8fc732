//! The store: shared memory beside the rings, in which large items lie for as long as their piece is under way.
//!
//! Through a ring an item is copied four times: into its piece, into the ring, out of it, into the function's argument. A
//! large one is copied by the pool into a *room* of a segment that the worker has mapped as well, and decoded by the worker
//! where it lies: two copies, of which each runs in a process of its own. In the piece's bytes there is then an [`Address`]: a
//! segment's number and a range.
//!
//! # Protocol
//! Only the pool gives rooms out, by a list of free ranges in its own memory (`extents.rs`), so nothing that is shared says
//! what is free, and no death leaves it wrong. A room belongs to one piece, and a piece is with one worker at a time.
//!
//! | step | who | |
//! |---|---|---|
//! | 1. take a room, and copy the item into it | pool | the lowest that is long enough: its pages are there, and in the cache |
//! | 2. lend the segment, if this worker does not have it: a `Lend` record, its descriptor beside it | pool | once for each worker and segment |
//! | 3. push the piece | pool | behind the `Lend` |
//! | 4. map what is lent | worker | if it cannot, it remembers that |
//! | 5. begin the piece (`lane.rs`) and decode its items where they lie | worker | values own what they are: nothing borrows the room any more |
//! | 5'. if a segment is missing, do not begin it, and say so: an `Unread` record | worker | the pool takes the items out of their rooms, and sends the piece again, through the ring |
//! | 6. answer | worker | |
//! | 7. give the room back | pool | once the piece has ended: answered, taken back before it had begun, or its worker reaped |
//! | 8. give a segment up that nothing lies in, if more are empty than are to be kept; tell who has it: a `Withdraw` record | pool | |
//!
//! Where there is no room (no memory, no descriptor, or [`MAX_SEGMENTS`] of them), an item goes through the ring.
//!
//! A pool that ends (`Ledger::end`) ends its pieces first and its workers then, so a worker may still be reading. So the
//! store is closed before: from then on no room is given to anybody, neither the ones that come back nor new ones.
//!
//! # Orderings
//! None of its own.
//!
//! | what | is published by |
//! |---|---|
//! | an item's bytes, to the worker | the piece's record: `record.length` of the ring of work. A piece that was taken back and is given to another was written under the pool's mutex, or before that was taken |
//! | that they have been read, before the room is used again | the answer's record: `record.length` of the ring of answers; for a worker that was reaped, its end |
//! | that they were never read | the CAS on the piece's word: after it the worker looks at none |
//!
//! # Crash
//! | killed | what is left |
//! |---|---|
//! | worker, anywhere | the pool's list knows the room as taken, until the process is reaped and its pieces end; a successor is lent what it needs |
//! | worker, between 5' and its record | as any piece that was not begun |
//! | pool | the workers end too, and the kernel frees the segments with the last of them |
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crosslane_core::array::Part;

use super::extents::Extents;
use super::lane::FAILED;
use crate::Trusted;
use crate::shm::{Array, Options};

/// Items of so many bytes and more lie in the store. Measured: of 16 KiB the ring costs 1.14 times as much, of 32 KiB 1.4,
/// of 128 KiB 1.7 times; below, that is no longer worth the descriptor and the mapping.
const LARGE_BYTES: usize = 16 << 10;
/// Bytes of a segment, but one for an item that is longer.
const SEGMENT_BYTES: u32 = 16 << 20;
/// Bytes of segments that are kept though nothing lies in them: as many as are in use, but not less than this.
const KEPT_BYTES: u64 = SEGMENT_BYTES as u64;
/// Segments of a store at most: each costs a descriptor here, and one in each worker.
const MAX_SEGMENTS: usize = 64;

/// The pool's side.
#[derive(Debug, Default)]
pub(super) struct Store {
    shelves: Mutex<Shelves>,
    /// Whether some have been given up of which the workers are to be told.
    has_gone: AtomicBool,
}

#[derive(Debug, Default)]
struct Shelves {
    is_closed: bool,
    last_number: u32,
    shelves: Vec<Shelf>,
    /// The numbers of those that have been given up.
    gone: Vec<u32>,
}

#[derive(Debug)]
struct Shelf {
    segment: Arc<Segment>,
    free: Extents,
}

/// A segment of the store.
#[derive(Debug)]
pub(super) struct Segment {
    number: u32,
    memory: Array<u8, Trusted>,
}

/// Bytes in the store, which the holder has to itself until it shares their [`Address`]; dropped, they are free.
#[derive(Debug)]
pub(super) struct Room {
    store: Arc<Store>,
    segment: Arc<Segment>,
    address: Address,
}

/// Where a room is, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) segment: u32,
    pub(super) start: u32,
    pub(super) len: u32,
}

pub(super) const ADDRESS_BYTES: usize = 12;

impl Address {
    pub(super) fn to_bytes(self) -> [u8; ADDRESS_BYTES] {
        let mut bytes = [0; ADDRESS_BYTES];
        for (part, number) in bytes.chunks_exact_mut(4).zip([self.segment, self.start, self.len]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8; ADDRESS_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        let [segment, start, len] = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes);
        Self { segment, start, len }
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A room with a copy of these bytes, if they are so many that they should have one, and there is one.
    #[inline]
    pub(super) fn put(self: &Arc<Self>, bytes: &[u8]) -> Option<Room> {
        if bytes.len() < LARGE_BYTES { None } else { self.put_large(bytes) }
    }

    fn put_large(self: &Arc<Self>, bytes: &[u8]) -> Option<Room> {
        let len = u32::try_from(bytes.len()).ok().filter(|len| len & FAILED == 0)?;
        let (segment, start) = self.find(len)?;
        let address = Address { segment: segment.number, start, len };
        let room = Room { store: Arc::clone(self), segment, address };
        // SAFETY: the list has given the range out, and nobody is told of it before it is full.
        let mut memory = unsafe { room.segment.own(address) }?;
        memory.copy_from_slice(bytes);
        Some(room)
    }

    /// A range that nobody has, which is noted as taken.
    fn find(&self, len: u32) -> Option<(Arc<Segment>, u32)> {
        {
            let mut shelves = self.lock();
            if shelves.is_closed {
                return None;
            }
            if let Some(found) = shelves.shelves.iter_mut().find_map(|shelf| shelf.take(len)) {
                return Some(found);
            }
            if shelves.shelves.len() == MAX_SEGMENTS {
                return None;
            }
        }
        // It may take a while: nobody is to wait for the lock meanwhile.
        let len_bytes = Extents::rounded(len)?.max(SEGMENT_BYTES);
        let memory = Array::anonymous(len_bytes.into(), &Options::new().sparse(true)).ok()?;
        let mut shelves = self.lock();
        if shelves.is_closed || shelves.shelves.len() == MAX_SEGMENTS {
            drop(shelves);
            return None;
        }
        shelves.last_number = shelves.last_number.wrapping_add(1);
        let segment = Arc::new(Segment { number: shelves.last_number, memory });
        let mut shelf = Shelf { segment, free: Extents::new(len_bytes) };
        let found = shelf.take(len);
        shelves.shelves.push(shelf);
        found
    }

    fn give_back(&self, address: Address) {
        let mut shelves = self.lock();
        if shelves.is_closed {
            return;
        }
        let Some(shelf) = shelves.shelves.iter_mut().find(|shelf| shelf.segment.number == address.segment) else {
            return;
        };
        shelf.free.give_back(address.start, address.len);
        let mut given_up = Vec::new();
        while let Some(shelf) = shelves.take_superfluous() {
            shelves.gone.push(shelf.segment.number);
            // ORDERING: Relaxed. The mutex orders what it tells of; whoever misses it looks again.
            self.has_gone.store(true, Ordering::Relaxed);
            given_up.push(shelf);
        }
        // They are unmapped without the lock.
        drop(shelves);
    }

    /// The numbers of the segments that were given up since this was asked last.
    pub(super) fn take_gone(&self) -> Vec<u32> {
        // ORDERING: Relaxed. As in `give_back`.
        if !self.has_gone.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut shelves = self.lock();
        // ORDERING: Relaxed. As in `give_back`.
        self.has_gone.store(false, Ordering::Relaxed);
        mem::take(&mut shelves.gone)
    }

    /// No room is given out any more, also none that comes back.
    pub(super) fn close(&self) {
        let mut shelves = self.lock();
        shelves.is_closed = true;
        let closed = mem::take(&mut shelves.shelves);
        drop(shelves);
        drop(closed);
    }
}

impl Shelves {
    /// Takes out the largest segment that nothing lies in, if more of them are kept than are to be.
    fn take_superfluous(&mut self) -> Option<Shelf> {
        let (mut idle, mut used, mut largest) = (0, 0, None);
        for (at, shelf) in self.shelves.iter().enumerate() {
            let len = u64::from(shelf.free.len());
            if shelf.free.is_whole() {
                idle += len;
                // Of equal ones the last: rooms are looked for in the first.
                largest = largest.max(Some((len, at)));
            } else {
                used += len;
            }
        }
        let (_, at) = largest.filter(|_| idle > used.max(KEPT_BYTES))?;
        Some(self.shelves.remove(at))
    }
}

impl Shelf {
    fn take(&mut self, len: u32) -> Option<(Arc<Segment>, u32)> {
        let start = self.free.take(len)?;
        Some((Arc::clone(&self.segment), start))
    }
}

impl Segment {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// # Safety
    /// As [`own`].
    unsafe fn own(&self, address: Address) -> Option<Part<'_, u8>> {
        // SAFETY: the caller's contract.
        unsafe { own(&self.memory, address) }
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// The bytes at `address`; `None` if it is not inside of this memory.
///
/// # Safety
/// While the part lives, nobody else accesses them.
unsafe fn own(memory: &Array<u8, Trusted>, address: Address) -> Option<Part<'_, u8>> {
    let (start, len) = (usize::try_from(address.start).ok()?, usize::try_from(address.len).ok()?);
    let end = start.checked_add(len).filter(|end| *end <= memory.len())?;
    // SAFETY: the caller's contract.
    Some(unsafe { memory.own(start..end) })
}

impl Room {
    pub(super) fn address(&self) -> Address {
        self.address
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Takes the bytes out again, of an item that no worker is to read in place.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        // SAFETY:
        // - the list has given the range to this room alone, which is consumed here;
        // - its piece is with no worker: its last one has said that it has not read it, and will not.
        let memory = unsafe { self.segment.own(self.address) };
        memory.map_or_else(Vec::new, |memory| memory.to_vec())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.give_back(self.address);
    }
}

/// The worker's side: the segments that it was lent.
#[derive(Debug, Default)]
pub(super) struct Loans {
    segments: HashMap<u32, Array<u8, Trusted>>,
    /// Those that it was to have, and could not map.
    missing: HashSet<u32>,
}

impl Loans {
    /// Maps segment `number`, unless its descriptor did not arrive.
    pub(super) fn lend(&mut self, number: u32, fd: Option<OwnedFd>) {
        match fd.and_then(|fd| Array::from_fd(fd, &Options::new()).ok()) {
            Some(memory) => {
                self.missing.remove(&number);
                self.segments.insert(number, memory);
            }
            None => drop(self.missing.insert(number)),
        }
    }

    pub(super) fn withdraw(&mut self, number: u32) {
        self.segments.remove(&number);
        self.missing.remove(&number);
    }

    /// The first segment of these addresses that it could not map.
    #[inline]
    pub(super) fn missing_of(&self, addresses: impl Iterator<Item = Address>) -> Option<u32> {
        if self.missing.is_empty() { None } else { self.missing_of_slow(addresses) }
    }

    #[cold]
    fn missing_of_slow(&self, mut addresses: impl Iterator<Item = Address>) -> Option<u32> {
        addresses.find(|address| self.missing.contains(&address.segment)).map(|address| address.segment)
    }

    /// What `read` makes of the bytes at `address`, which stands in a piece that this worker has begun and not yet answered;
    /// `None` if it has no such bytes.
    pub(super) fn read<O>(&self, address: Address, read: impl FnOnce(&[u8]) -> O) -> Option<O> {
        // SAFETY:
        // - the pool, which this process's family can trust, has written the range before it sent the piece, and leaves it
        //   alone until that is answered (the module's head);
        // - it is given to nobody else meanwhile, and read by one thread here, within this call.
        let memory = unsafe { own(self.segments.get(&address.segment)?, address) }?;
        Some(read(&memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: usize = SEGMENT_BYTES as usize;

    fn segments(store: &Store) -> usize {
        store.lock().shelves.len()
    }

    #[test]
    fn what_was_put_is_read_by_whom_its_segment_was_lent_and_by_nobody_else() {
        let (store, mut loans) = (Arc::new(Store::default()), Loans::default());
        assert!(store.put(&[1; LARGE_BYTES - 1]).is_none());
        assert_eq!(segments(&store), 0, "small ones cost nothing");
        let rooms = [1, 2].map(|byte| store.put(&[byte; LARGE_BYTES]).unwrap());
        let [one, two] = rooms.each_ref().map(Room::address);
        assert_eq!(loans.read(one, <[u8]>::len), None);
        loans.lend(one.segment, None);
        assert_eq!(loans.missing_of([one].into_iter()), Some(one.segment));
        loans.lend(one.segment, Some(rooms[0].segment().as_fd().try_clone_to_owned().unwrap()));
        assert_eq!(loans.missing_of([one].into_iter()), None);
        assert_eq!(loans.read(two, <[u8]>::to_vec), Some(vec![2; LARGE_BYTES]));
        assert_eq!(loans.read(Address { start: SEGMENT_BYTES - 1, ..two }, <[u8]>::len), None);
        assert_eq!(loans.read(Address { start: u32::MAX, len: u32::MAX, ..two }, <[u8]>::len), None);
        loans.withdraw(one.segment);
        assert_eq!(loans.read(two, <[u8]>::len), None);
        assert_eq!(rooms.map(Room::into_bytes), [vec![1; LARGE_BYTES], vec![2; LARGE_BYTES]]);
    }

    #[test]
    fn an_address_travels() {
        let address = Address { segment: 0x0102_0304, start: 0x0506_0708, len: 0x090a_0b0c };
        assert_eq!(Address::parse(&address.to_bytes()), address);
    }

    #[test]
    fn a_closed_store_gives_no_room_out_whatever_comes_back() {
        let store = Arc::new(Store::default());
        let [kept, dropped] = [7, 8].map(|byte| store.put(&[byte; LARGE_BYTES]).unwrap());
        store.close();
        drop(dropped);
        assert!(store.put(&[1; LARGE_BYTES]).is_none());
        assert_eq!((segments(&store), store.take_gone()), (0, vec![]));
        assert_eq!(kept.into_bytes(), [7; LARGE_BYTES]);
    }

    #[test]
    fn a_pool_that_ends_closes_its_store() {
        let ends: [fn(crate::Pool); 3] =
            [|pool| pool.terminate(), drop, |pool| drop((pool.shutdown(false, true), pool))];
        for end in ends {
            let pool = crate::Pool::new(1).unwrap();
            let store = Arc::clone(pool.crew.store());
            let room = store.put(&[1; LARGE_BYTES]).unwrap();
            end(pool);
            drop(room);
            assert!(store.put(&[1; LARGE_BYTES]).is_none());
        }
    }

    #[test]
    fn as_much_is_kept_as_is_in_use_and_one_segment() {
        let store = Arc::new(Store::default());
        let bytes = vec![1; SEGMENT];
        let [one, two, three] = [1, 2, 3].map(|_| store.put(&bytes).unwrap());
        let numbers = [&one, &two, &three].map(|room| room.address().segment);
        let long = store.put(&vec![2; SEGMENT + 1]).unwrap();
        let number = long.address().segment;
        assert_eq!(segments(&store), 4);
        drop(two);
        drop(long);
        assert_eq!((segments(&store), store.take_gone()), (3, vec![number]), "the longest goes first");
        assert_eq!(store.put(&bytes).unwrap().address().segment, numbers[1], "the first that is free");
        drop((one, three));
        assert_eq!(segments(&store), 1);
        assert_eq!(store.take_gone(), [numbers[1], numbers[2]]);
        assert_eq!((store.take_gone(), store.put(&bytes).unwrap().address().segment), (vec![], numbers[0]));
    }

    #[test]
    fn there_are_so_many_segments_and_no_more() {
        let store = Arc::new(Store::default());
        // Each takes more than half of one.
        let bytes = vec![0; SEGMENT / 2 + 1];
        let (mut rooms, mut count) = (Vec::new(), 0);
        while let Some((segment, start)) = store.find(u32::try_from(bytes.len()).unwrap()) {
            rooms.push(Address { segment: segment.number, start, len: u32::try_from(bytes.len()).unwrap() });
            count += 1;
        }
        assert_eq!((count, segments(&store)), (MAX_SEGMENTS, MAX_SEGMENTS));
        assert!(store.put(&[0; LARGE_BYTES]).is_some(), "what has room in one has it");
        rooms.into_iter().for_each(|address| store.give_back(address));
        assert_eq!((segments(&store), store.take_gone().len()), (1, MAX_SEGMENTS - 1));
    }
}

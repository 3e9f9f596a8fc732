//! Behaviour of the record ring: lengths and wraps, restarts, hostile memory, blocking, and random sequences against a
//! model.
#![cfg_attr(not(crosslane_loom), expect(clippy::cast_possible_truncation, reason = "small numbers of this test"))]
#![cfg(all(not(crosslane_loom), target_has_atomic = "64"))]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use crosslane_core::end::{ClaimError, End};
use crosslane_core::prim::is_still;
use crosslane_core::record::{MAX_CAPACITY_BYTES, PopError, PushError, Reader, Ring, RingError, Writer};
use crosslane_core::wait::Spin;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode};

const HEAD: usize = 256;
const WORDS: usize = 384;

#[derive(Clone)]
#[repr(align(128))]
#[expect(dead_code, reason = "only its address is used")]
struct Line([u8; 128]);

/// Memory of one ring, as a segment would hold it.
struct Memory {
    lines: Vec<Line>,
    start: NonNull<u8>,
    capacity: u32,
}

// SAFETY: after `new` it is only touched through the ring and atomically.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(capacity: u32) -> Self {
        Self::with_mode(capacity, WakeMode::Fenced)
    }

    fn with_mode(capacity: u32, mode: WakeMode) -> Self {
        let size = Ring::layout(capacity).unwrap().size();
        // Not zero: the ring must not depend on it.
        let mut lines = vec![Line([0xa5; 128]); size.div_ceil(128)];
        let start = NonNull::from(lines.as_mut_slice()).cast();
        let memory = Self { lines, start, capacity };
        // SAFETY: this test's own memory, used as this ring only.
        unsafe { Ring::init(memory.start, memory.len(), capacity, mode) }.unwrap();
        memory
    }

    fn len(&self) -> usize {
        self.lines.len() * 128
    }

    fn ring(&self) -> Ring<'_> {
        // SAFETY: `new` made a ring here, and the memory outlives the borrow.
        unsafe { Ring::attach(self.start, self.len(), self.capacity, WakeMode::Fenced) }.unwrap()
    }

    /// The word at byte `offset` of the memory, for a peer that keeps to no protocol.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.len());
        // SAFETY: inside the memory.
        let word = unsafe { self.start.add(offset) };
        // SAFETY: aligned, and only ever accessed atomically.
        unsafe { word.cast::<AtomicU64>().as_ref() }
    }
}

/// What all processes of a test share.
#[derive(Default)]
struct World {
    dead: Mutex<Vec<OwnerId>>,
    sleepers: Mutex<u32>,
    wakes: Condvar,
    wake_calls: AtomicU32,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// One process of a test: sleeps on a condition variable, dies on demand, and may turn into a fork child.
#[derive(Debug, Clone)]
struct Process {
    world: Arc<World>,
    me: OwnerId,
    forked: Arc<AtomicBool>,
}

impl Process {
    fn new(world: &Arc<World>, index: u32) -> Self {
        Self { world: world.clone(), me: OwnerId::new(index, 1).unwrap(), forked: Arc::default() }
    }

    fn die(&self) {
        self.world.dead.lock().unwrap().push(self.me);
    }
}

impl Liveness for Process {
    fn me(&self) -> Option<OwnerId> {
        (!self.forked.load(Ordering::Relaxed)).then_some(self.me)
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.world.dead.lock().unwrap().contains(&owner)
    }
}

impl Wait for Process {
    type Deadline = Option<Instant>;
    fn never(&self) -> Self::Deadline {
        None
    }
    fn after(&self, timeout: Duration) -> Self::Deadline {
        Some(Instant::now() + timeout)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked {
        let mut sleepers = self.world.sleepers.lock().unwrap();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Parked::Expired;
        }
        if !is_still(word, expected) {
            return Parked::Again;
        }
        let slice = match slice {
            Slice::Short => Duration::from_millis(1),
            Slice::Owner => Duration::from_millis(10),
            Slice::Long | Slice::Unowned => Duration::from_secs(1),
        };
        let left = deadline.map_or(slice, |deadline| slice.min(deadline - Instant::now()));
        *sleepers += 1;
        let (mut sleepers, _) = self.world.wakes.wait_timeout(sleepers, left).unwrap();
        *sleepers -= 1;
        Parked::Again
    }
    fn wake(&self, _: &AtomicU32, count: u32) -> u32 {
        self.world.wake_calls.fetch_add(1, Ordering::Relaxed);
        let sleepers = self.world.sleepers.lock().unwrap();
        self.world.wakes.notify_all();
        count.min(*sleepers)
    }
    fn spins(&self) -> u32 {
        20
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

fn id(index: u32) -> OwnerId {
    OwnerId::new(index, 1).unwrap()
}

fn spin(index: u32) -> Spin {
    Spin::new(id(index))
}

fn ends(memory: &Memory) -> (Writer<'_, Spin>, Reader<'_, Spin>) {
    (memory.ring().writer(spin(0)).unwrap(), memory.ring().reader(spin(1)).unwrap())
}

/// Bytes that tell their record and their place in it.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (seed.wrapping_mul(0x9e37_79b9).wrapping_add(i.wrapping_mul(0x0001_010b)) >> 3) as u8)
        .collect()
}

fn pop<E: Wait + Liveness, K>(reader: &mut Reader<'_, E, K>) -> Result<Vec<u8>, PopError> {
    let mut buffer = vec![0xee; 4096];
    let len = reader.try_pop_into(&mut buffer)?;
    assert!(buffer[len..].iter().all(|b| *b == 0xee), "bytes behind the record were touched");
    buffer.truncate(len);
    Ok(buffer)
}

/// Runs `test` and fails if it takes longer than a minute.
fn within_a_minute(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match finished.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => thread.join().unwrap(),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

#[test]
fn layout_refuses_what_is_no_capacity() {
    for bytes in [0, 8, 32, 63, 65, 96, MAX_CAPACITY_BYTES + 1, u32::MAX] {
        assert_eq!(Ring::layout(bytes), Err(RingError::Capacity { bytes }));
    }
    assert_eq!((Ring::layout(64).unwrap().size(), Ring::layout(64).unwrap().align()), (448, 128));
    assert!(Ring::layout(MAX_CAPACITY_BYTES).is_ok());
}

#[test]
fn attach_refuses_memory_that_does_not_hold_the_ring() {
    let memory = Memory::new(64);
    // SAFETY: refused before the memory is looked at.
    let short = unsafe { Ring::attach(memory.start, 447, 64, WakeMode::Fenced) };
    assert_eq!(short.unwrap_err(), RingError::TooShort { needed: 448, found: 447 });
    // SAFETY: inside the memory.
    let odd = unsafe { memory.start.add(64) };
    // SAFETY: refused before the memory is looked at.
    assert_eq!(unsafe { Ring::attach(odd, 448, 64, WakeMode::Fenced) }.unwrap_err(), RingError::Misaligned);
}

#[test]
fn every_length_comes_out_whole_at_every_offset() {
    for capacity in [64, 128] {
        for offset in (0..u64::from(capacity)).step_by(8) {
            for len in 0..=capacity as usize - 16 {
                let memory = Memory::new(capacity);
                let (mut writer, mut reader) = ends(&memory);
                while writer.position() != offset {
                    writer.try_push(&[]).unwrap();
                    assert_eq!(pop(&mut reader), Ok(vec![]));
                }
                let record = bytes(offset, len);
                writer.try_push(&record).unwrap();
                assert_eq!(pop(&mut reader).as_deref(), Ok(&record[..]));
                assert_eq!(pop(&mut reader), Err(PopError::Empty));
            }
        }
    }
}

#[test]
fn the_longest_record_fits_an_empty_ring_and_one_byte_more_never() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    assert_eq!(memory.ring().max_len_bytes(), 48);
    for round in 0..20 {
        assert_eq!(writer.try_push(&[0; 49]), Err(PushError::TooLong { len: 49, max: 48 }));
        assert_eq!(writer.push(&[0; 4096]), Err(PushError::TooLong { len: 4096, max: 48 }));
        let longest = bytes(round, 48);
        writer.try_push(&longest).unwrap();
        assert_eq!(writer.try_push(&[]), Err(PushError::Full));
        assert_eq!(pop(&mut reader), Ok(longest));
        writer.try_push(&[1]).unwrap();
        assert_eq!(writer.try_push(&[0; 48]), Err(PushError::Full));
        assert_eq!(pop(&mut reader), Ok(vec![1]));
    }
    assert_eq!(writer.try_reserve(usize::MAX).unwrap_err(), PushError::TooLong { len: usize::MAX, max: 48 });
}

#[test]
fn a_ring_of_empty_records_holds_one_less_than_it_has_words() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    for _ in 0..9 {
        for _ in 0..7 {
            writer.try_push(&[]).unwrap();
        }
        assert_eq!(writer.try_push(&[]), Err(PushError::Full));
        for _ in 0..7 {
            assert_eq!(pop(&mut reader), Ok(vec![]));
        }
        assert_eq!(pop(&mut reader), Err(PopError::Empty));
        assert!(reader.is_empty());
    }
}

#[test]
fn a_dropped_reservation_publishes_nothing() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    for round in 0..40 {
        let mut space = writer.try_reserve(17).unwrap();
        space.copy_from(0, &[0xff; 17]);
        drop(space);
        drop(writer.try_reserve(40).unwrap());
        assert_eq!(pop(&mut reader), Err(PopError::Empty));
        let record = bytes(round, 11);
        writer.try_push(&record).unwrap();
        assert_eq!(pop(&mut reader), Ok(record));
    }
}

#[test]
fn commit_len_publishes_a_prefix_and_gives_the_rest_back() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    for len in (0..=48).cycle().take(200) {
        let whole = bytes(len as u64, 48);
        let mut space = writer.try_reserve(48).unwrap();
        space.copy_from(0, &whole);
        space.commit_len(len).unwrap();
        assert_eq!(writer.position() % 8, 0);
        assert_eq!(pop(&mut reader).as_deref(), Ok(&whole[..len]));
    }
    let space = writer.try_reserve(3).unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| space.commit_len(4))).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "4 bytes to commit of a reservation of 3");
    assert_eq!(pop(&mut reader), Err(PopError::Empty));
}

#[test]
fn pieces_are_written_and_read_at_any_offset_in_any_order() {
    let mut random = Random(0x5eed);
    let memory = Memory::new(128);
    let (mut writer, mut reader) = ends(&memory);
    for _ in 0..3000 {
        let len = random.below(113) as usize;
        let mut expected = vec![0; len];
        let mut space = writer.try_reserve(len).unwrap();
        space.copy_from(0, &expected);
        for _ in 0..random.below(6) {
            let at = random.below(len as u64 + 1) as usize;
            let piece = bytes(random.next(), random.below((len - at) as u64 + 1) as usize);
            space.copy_from(at, &piece);
            expected[at..at + piece.len()].copy_from_slice(&piece);
        }
        space.commit().unwrap();
        let record = reader.try_read().unwrap();
        assert_eq!(record.len_bytes(), len);
        for _ in 0..3 {
            let at = random.below(len as u64 + 1) as usize;
            let mut piece = vec![0; random.below((len - at) as u64 + 1) as usize];
            record.copy_to(at, &mut piece);
            assert_eq!(piece, expected[at..at + piece.len()]);
        }
        let mut whole = vec![0; len];
        record.copy_to(0, &mut whole);
        assert_eq!(whole, expected);
        record.release();
    }
}

#[test]
#[should_panic(expected = "2 bytes to offset 4 of a reservation of 5")]
fn writing_behind_a_reservation_panics() {
    let memory = Memory::new(64);
    let (mut writer, _reader) = ends(&memory);
    writer.try_reserve(5).unwrap().copy_from(4, &[1, 2]);
}

#[test]
#[should_panic(expected = "1 bytes from offset 6 of a record of 5")]
fn reading_behind_a_record_panics() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    writer.try_push(&[0; 5]).unwrap();
    reader.try_read().unwrap().copy_to(6, &mut [0]);
}

#[test]
fn trusted_ends_lend_the_bytes_in_place() {
    let memory = Memory::new(64);
    let (writer, reader) = ends(&memory);
    // SAFETY: this test's ends are the only ones.
    let mut writer = unsafe { writer.trust_peers() };
    // SAFETY: as above.
    let mut reader = unsafe { reader.trust_peers() };
    let mut wrapped = 0;
    for round in 0..100 {
        let record = bytes(round, (round % 49) as usize);
        let mut space = writer.try_reserve(record.len()).unwrap();
        let (front, back) = space.as_mut_slices();
        front.copy_from_slice(&record[..front.len()]);
        back.copy_from_slice(&record[front.len()..]);
        wrapped += u32::from(!back.is_empty());
        space.commit().unwrap();
        let read = reader.try_read().unwrap();
        let (front, back) = read.as_slices();
        assert_eq!([front, back].concat(), record);
    }
    assert!(wrapped > 10);
    drop(writer);
    assert_eq!(pop(&mut reader), Err(PopError::Closed));
}

#[test]
fn a_record_longer_than_the_buffer_stays() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    writer.try_push(b"seven b").unwrap();
    assert_eq!(reader.try_pop_into(&mut [0; 6]), Err(PopError::BufferTooShort { needed: 7 }));
    assert_eq!(reader.pop_into(&mut []), Err(PopError::BufferTooShort { needed: 7 }));
    assert_eq!(reader.batch().try_pop_into(&mut [0; 6]), Err(PopError::BufferTooShort { needed: 7 }));
    assert_eq!(pop(&mut reader), Ok(b"seven b".to_vec()));
}

#[test]
fn a_kept_record_comes_again() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    writer.try_push(b"again").unwrap();
    reader.try_read().unwrap().keep();
    assert_eq!(memory.word(HEAD).load(Ordering::Relaxed), 0);
    assert_eq!(pop(&mut reader), Ok(b"again".to_vec()));
    assert_eq!(memory.word(HEAD).load(Ordering::Relaxed), 16);
}

#[test]
fn a_writer_knows_which_of_its_records_are_done_with() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    let mut first = 0;
    for lap in 0..20 {
        assert!(writer.is_released(writer.position()), "nothing is on its way");
        writer.try_push(&bytes(lap, 9)).unwrap();
        first = writer.position();
        writer.try_push(&bytes(lap, 1)).unwrap();
        reader.try_read().unwrap().keep();
        assert!(!writer.is_released(first), "it was read and kept");
        reader.try_read().unwrap().release();
        assert!(writer.is_released(first) && !writer.is_released(writer.position()));
        reader.try_read().unwrap().release();
    }
    assert!(writer.is_released(first) && writer.is_released(writer.position()));
}

#[test]
fn a_read_batch_releases_at_its_end_when_empty_and_each_quarter() {
    let memory = Memory::new(256);
    let head = || memory.word(HEAD).load(Ordering::Relaxed);
    let (mut writer, mut reader) = ends(&memory);
    for _ in 0..14 {
        writer.try_push(&[7; 8]).unwrap();
    }
    let mut batch = reader.batch();
    batch.try_read().unwrap().release();
    assert_eq!(batch.try_pop_into(&mut [0; 8]), Ok(8));
    assert_eq!(head(), 0);
    drop(batch);
    assert_eq!(head(), 32);
    let mut batch = reader.batch();
    for expected in [32, 32, 32, 96, 96, 96, 96, 160] {
        batch.try_read().unwrap().release();
        assert_eq!(head(), expected);
    }
    batch.try_read().unwrap().release();
    batch.flush();
    assert_eq!(head(), 176);
    while batch.try_read().is_ok() {}
    assert_eq!(head(), 224);
    drop(batch);
    // A forgotten batch is released with the next record.
    writer.try_push(&[1; 8]).unwrap();
    writer.try_push(&[2; 8]).unwrap();
    let mut batch = reader.batch();
    batch.try_read().unwrap().release();
    std::mem::forget(batch);
    assert_eq!(head(), 224);
    assert_eq!(pop(&mut reader), Ok(vec![2; 8]));
    assert_eq!(head(), 256);
}

#[test]
fn a_held_batch_releases_only_when_told_to() {
    let memory = Memory::new(256);
    let head = || memory.word(HEAD).load(Ordering::Relaxed);
    let (mut writer, mut reader) = ends(&memory);
    let mut buffer = [0; 8];
    for n in 0..14 {
        writer.try_push(&[n; 8]).unwrap();
    }
    // More than a quarter of the ring, and a look that finds nothing.
    let mut held = reader.hold_batch();
    for n in 0..14 {
        assert_eq!(held.position(), u64::from(n) * 16);
        assert_eq!((held.try_pop_into(&mut buffer), buffer), (Ok(8), [n; 8]));
    }
    assert_eq!(held.try_pop_into(&mut buffer), Err(PopError::Empty));
    assert_eq!(held.pop_into_timeout(&mut buffer, Duration::from_micros(1)), Err(PopError::TimedOut));
    assert_eq!((held.held_bytes(), head()), (224, 0));
    assert_eq!(writer.try_push(&[14; 24]), Err(PushError::Full));
    drop(held);
    assert_eq!((reader.position(), head()), (0, 0));
    // Taken back, they come again, in another batch or without one.
    assert_eq!(pop(&mut reader), Ok(vec![0; 8]));
    assert_eq!(head(), 16);
    let mut held = reader.hold_batch();
    assert_eq!((held.pop_into_timeout(&mut buffer, Duration::MAX), buffer), (Ok(8), [1; 8]));
    assert_eq!((held.try_pop_into(&mut buffer), buffer), (Ok(8), [2; 8]));
    held.release();
    assert_eq!((reader.position(), head()), (48, 48));
    // Forgotten, its records are released with the next one; and a batch of the other kind releases as ever.
    let mut held = reader.hold_batch();
    held.try_pop_into(&mut buffer).unwrap();
    std::mem::forget(held);
    assert_eq!(head(), 48);
    drop(reader.batch());
    assert_eq!(head(), 64);
    assert_eq!(pop(&mut reader), Ok(vec![4; 8]));
}

#[test]
fn batches_wake_a_sleeper_once() {
    let memory = Memory::new(1024);
    let world = Arc::<World>::default();
    let mut writer = memory.ring().writer(Process::new(&world, 0)).unwrap();
    // A flag as a sleeping reader leaves it.
    let flag = |memory: &Memory| memory.word(128).fetch_or(1 << 32, Ordering::Relaxed);
    let calls = || world.wake_calls.swap(0, Ordering::Relaxed);
    flag(&memory);
    let mut batch = writer.batch();
    for _ in 0..10 {
        batch.try_push(b"x").unwrap();
    }
    batch.try_reserve(1).unwrap().commit().unwrap();
    assert_eq!(calls(), 0);
    drop(batch);
    assert_eq!(calls(), 1);
    flag(&memory);
    let mut batch = writer.batch();
    batch.push(b"x").unwrap();
    batch.flush();
    assert_eq!(calls(), 1);
    drop(batch);
    writer.try_push(b"x").unwrap();
    assert_eq!(calls(), 0);
}

#[test]
fn an_end_is_held_by_one_and_a_closed_one_can_be_claimed_again() {
    let memory = Memory::new(64);
    let (mut writer, mut reader) = ends(&memory);
    assert_eq!(memory.ring().writer(spin(2)).unwrap_err(), ClaimError::EndTaken(id(0)));
    assert_eq!(memory.ring().reader(spin(2)).unwrap_err(), ClaimError::EndTaken(id(1)));
    writer.try_push(b"1").unwrap();
    drop(writer);
    assert_eq!(reader.peer(), End::Closed);
    let mut writer = memory.ring().writer(spin(2)).unwrap();
    assert_eq!(memory.ring().writer_end(), End::Owned(id(2)));
    writer.try_push(b"2").unwrap();
    assert_eq!(pop(&mut reader), Ok(b"1".to_vec()));
    drop(reader);
    assert_eq!(writer.try_push(b"3"), Err(PushError::Closed));
    assert_eq!(writer.push(b"3"), Err(PushError::Closed));
    assert_eq!(writer.reserve(1).unwrap_err(), PushError::Closed);
    let mut reader = memory.ring().reader(spin(3)).unwrap();
    writer.try_push(b"3").unwrap();
    drop(writer);
    assert_eq!(pop(&mut reader), Ok(b"2".to_vec()));
    assert_eq!(pop(&mut reader), Ok(b"3".to_vec()));
    assert_eq!(pop(&mut reader), Err(PopError::Closed));
    assert_eq!(reader.read().unwrap_err(), PopError::Closed);
}

#[test]
fn a_fork_child_can_do_nothing_and_its_drops_change_nothing() {
    let memory = Memory::new(64);
    let world = Arc::<World>::default();
    let (writer_env, reader_env) = (Process::new(&world, 0), Process::new(&world, 1));
    let mut writer = memory.ring().writer(writer_env.clone()).unwrap();
    let mut reader = memory.ring().reader(reader_env.clone()).unwrap();
    writer.push(b"parent's").unwrap();
    let record = reader.try_read().unwrap();
    reader_env.forked.store(true, Ordering::Relaxed);
    drop(record);
    assert_eq!(reader.try_read().unwrap_err(), PopError::Forked);
    assert_eq!(reader.pop_into(&mut [0; 9]), Err(PopError::Forked));
    let mut batch = reader.batch();
    assert_eq!(batch.try_pop_into(&mut [0; 9]), Err(PopError::Forked));
    drop(batch);
    drop(reader);
    let space = writer.try_reserve(3).unwrap();
    writer_env.forked.store(true, Ordering::Relaxed);
    assert_eq!(space.commit(), Err(PushError::Forked));
    assert_eq!(writer.try_push(b"child's"), Err(PushError::Forked));
    assert_eq!(writer.push_timeout(b"child's", Duration::ZERO), Err(PushError::Forked));
    drop(writer);
    assert_eq!(memory.ring().writer_end(), End::Owned(id(0)));
    assert_eq!(memory.ring().reader_end(), End::Owned(id(1)));
    assert_eq!(memory.word(HEAD).load(Ordering::Relaxed), 0);
    assert_eq!(memory.ring().writer(writer_env).unwrap_err(), ClaimError::Forked);
    assert_eq!(memory.ring().reader(reader_env).unwrap_err(), ClaimError::Forked);
}

#[test]
fn a_successor_of_the_writer_goes_on_behind_the_last_commit() {
    for offset in 0..8 {
        for unread in 0..3 {
            let memory = Memory::new(64);
            let world = Arc::<World>::default();
            let process = Process::new(&world, 0);
            let mut writer = memory.ring().writer(process.clone()).unwrap();
            let mut reader = memory.ring().reader(Process::new(&world, 1)).unwrap();
            for _ in 0..offset {
                writer.push(&[]).unwrap();
                pop(&mut reader).unwrap();
            }
            for i in 0..unread {
                writer.push(&[i; 5]).unwrap();
            }
            // Killed after it wrote bytes and the 0 behind them, before the commit.
            let tail = writer.position() as usize;
            let mut space = writer.try_reserve(9).unwrap();
            space.copy_from(0, &[0xdd; 9]);
            memory.word(WORDS + (tail + 24) % 64).store(0, Ordering::Relaxed);
            std::mem::forget(writer);
            process.die();
            let mut writer = memory.ring().writer(Process::new(&world, 2)).unwrap();
            assert_eq!(writer.position() as usize, tail);
            writer.push(b"successor").unwrap();
            for i in 0..unread {
                assert_eq!(pop(&mut reader), Ok(vec![i; 5]));
            }
            assert_eq!(pop(&mut reader), Ok(b"successor".to_vec()));
            assert_eq!(pop(&mut reader), Err(PopError::Empty));
        }
    }
}

#[test]
fn a_successor_of_a_writer_that_left_a_full_ring_waits_for_room() {
    let memory = Memory::new(64);
    for round in 0..20 {
        let (mut writer, mut reader) = ends(&memory);
        while writer.try_push(&[round; 3]).is_ok() {}
        drop(writer);
        let mut writer = memory.ring().writer(spin(2)).unwrap();
        assert_eq!(writer.try_push(&[0; 3]), Err(PushError::Full));
        assert_eq!(pop(&mut reader), Ok(vec![round; 3]));
        writer.try_push(&[round; 3]).unwrap();
        assert_eq!(writer.try_push(&[0; 3]), Err(PushError::Full));
        for _ in 0..3 {
            assert_eq!(pop(&mut reader), Ok(vec![round; 3]));
        }
        writer.try_push(&[]).unwrap();
        assert_eq!(pop(&mut reader), Ok(vec![]));
    }
}

#[test]
fn a_successor_of_the_reader_gets_what_was_not_released() {
    let memory = Memory::new(256);
    let world = Arc::<World>::default();
    let mut writer = memory.ring().writer(Process::new(&world, 0)).unwrap();
    for i in 0..6 {
        writer.push(&[i; 3]).unwrap();
    }
    let process = Process::new(&world, 1);
    let mut reader = memory.ring().reader(process.clone()).unwrap();
    assert_eq!(pop(&mut reader), Ok(vec![0; 3]));
    let mut batch = reader.batch();
    batch.try_read().unwrap().release();
    let record = batch.try_read().unwrap();
    // Killed in a batch of two, the second of which it was looking at.
    std::mem::forget(record);
    std::mem::forget(batch);
    std::mem::forget(reader);
    process.die();
    let mut reader = memory.ring().reader(Process::new(&world, 2)).unwrap();
    for i in 1..6 {
        assert_eq!(pop(&mut reader), Ok(vec![i; 3]));
    }
    assert_eq!(pop(&mut reader), Err(PopError::Empty));
}

#[test]
fn blocking_calls_time_out() {
    within_a_minute(|| {
        let memory = Memory::new(64);
        let world = Arc::<World>::default();
        let mut writer = memory.ring().writer(Process::new(&world, 0)).unwrap();
        let short = Duration::from_millis(3);
        // Behind nobody.
        writer.push_timeout(&[0; 48], short).unwrap();
        assert_eq!(writer.push_timeout(&[], short), Err(PushError::TimedOut));
        // Behind a living peer.
        let mut reader = memory.ring().reader(Process::new(&world, 1)).unwrap();
        assert_eq!(writer.push_timeout(&[], short), Err(PushError::TimedOut));
        assert_eq!(writer.reserve_timeout(1, short).unwrap_err(), PushError::TimedOut);
        assert_eq!(reader.pop_into_timeout(&mut [0; 48], short), Ok(48));
        assert_eq!(reader.pop_into_timeout(&mut [0; 48], short), Err(PopError::TimedOut));
        assert_eq!(reader.read_timeout(short).unwrap_err(), PopError::TimedOut);
    });
}

#[test]
fn a_dead_peer_is_reported_after_the_ring_is_drained_or_filled() {
    within_a_minute(|| {
        let memory = Memory::new(64);
        let world = Arc::<World>::default();
        let (writer_env, reader_env) = (Process::new(&world, 0), Process::new(&world, 1));
        let mut writer = memory.ring().writer(writer_env.clone()).unwrap();
        writer.push(b"last").unwrap();
        std::mem::forget(writer);
        writer_env.die();
        let mut reader = memory.ring().reader(reader_env.clone()).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(reader.pop_into(&mut buffer), Ok(4));
        assert_eq!(reader.pop_into(&mut buffer), Err(PopError::PeerDied(id(0))));
        assert_eq!(reader.pop_into_timeout(&mut buffer, Duration::ZERO), Err(PopError::PeerDied(id(0))));
        assert_eq!(reader.try_pop_into(&mut buffer), Err(PopError::Empty));
        let mut writer = memory.ring().writer(Process::new(&world, 2)).unwrap();
        std::mem::forget(reader);
        reader_env.die();
        writer.push(&[0; 40]).unwrap();
        assert_eq!(writer.push(&[1; 40]), Err(PushError::PeerDied(id(1))));
        assert_eq!(writer.push_timeout(&[1; 40], Duration::ZERO), Err(PushError::PeerDied(id(1))));
        let mut reader = memory.ring().reader(Process::new(&world, 3)).unwrap();
        assert_eq!(pop(&mut reader), Ok(vec![0; 40]));
        writer.push(&[1; 40]).unwrap();
        assert_eq!(pop(&mut reader), Ok(vec![1; 40]));
    });
}

#[test]
fn a_sleeper_is_woken_by_a_close() {
    within_a_minute(|| {
        let memory = Memory::new(64);
        let world = Arc::<World>::default();
        let writer = memory.ring().writer(Process::new(&world, 0)).unwrap();
        let mut reader = memory.ring().reader(Process::new(&world, 1)).unwrap();
        std::thread::scope(|threads| {
            let sleeper = threads.spawn(move || (reader.read().unwrap_err(), reader));
            while *world.sleepers.lock().unwrap() == 0 {}
            drop(writer);
            let (error, reader) = sleeper.join().unwrap();
            assert_eq!(error, PopError::Closed);
            let mut writer = memory.ring().writer(Process::new(&world, 0)).unwrap();
            writer.push(&[0; 48]).unwrap();
            let sleeper = threads.spawn(move || writer.push(&[]));
            while *world.sleepers.lock().unwrap() == 0 {}
            drop(reader);
            assert_eq!(sleeper.join().unwrap(), Err(PushError::Closed));
        });
    });
}

/// Every single bit of the words that the protocol reads, flipped: an error or a wrong record, never more.
#[test]
fn a_flipped_bit_is_corrupt_or_garbage() {
    let mut corrupt = 0;
    for offset in [0, 128, HEAD, WORDS, WORDS + 24, WORDS + 40] {
        for bit in 0..64 {
            let memory = Memory::new(64);
            let (mut writer, mut reader) = ends(&memory);
            writer.try_push(&[1; 9]).unwrap();
            writer.try_push(&[2; 3]).unwrap();
            memory.word(offset).fetch_xor(1 << bit, Ordering::Relaxed);
            let pushed = writer.try_push(&[3; 20]);
            let popped = pop(&mut reader);
            let ends = [writer.push_timeout(&[3; 48], Duration::ZERO).err().is_some(), pop(&mut reader).is_err()];
            corrupt += u32::from(pushed == Err(PushError::Corrupt)) + u32::from(popped == Err(PopError::Corrupt));
            std::hint::black_box(ends);
            // Whoever is named by the words now is dead: successors claim, or find nonsense.
            std::mem::forget((writer, reader));
            let world = Arc::<World>::default();
            *world.dead.lock().unwrap() = (0..1024).flat_map(|i| [OwnerId::new(i, 1).unwrap()]).collect();
            if let Ok(mut writer) = memory.ring().writer(Process::new(&world, 7)) {
                let _ = writer.push_timeout(&[4; 20], Duration::ZERO);
            }
            if let Ok(mut reader) = memory.ring().reader(Process::new(&world, 8)) {
                while pop(&mut reader).is_ok() {}
            }
        }
    }
    assert!(corrupt > 64, "only {corrupt} corruptions were seen");
}

#[test]
fn hostile_heads_and_lengths_are_corrupt() {
    let length = |position: u64, low: u64| (position / 8) << 32 | low;
    // Wrong stamp, no length, too long, the longest number.
    for word in [length(8, 5), length(0, 0) | 1 << 40, length(0, 50), length(0, 0xffff_ffff), u64::MAX, 1 << 63] {
        let memory = Memory::new(64);
        let (writer, mut reader) = ends(&memory);
        memory.word(WORDS).store(word, Ordering::Relaxed);
        assert_eq!(pop(&mut reader), Err(PopError::Corrupt), "{word:x}");
        assert_eq!(reader.pop_into(&mut [0; 64]), Err(PopError::Corrupt));
        drop(writer);
        assert_eq!(memory.ring().writer(spin(2)).unwrap_err(), ClaimError::Corrupt);
    }
    for head in [1, 4, 8, 56, 64, 1 << 40, 1 << 63, u64::MAX, u64::MAX - 7] {
        let memory = Memory::new(64);
        let (mut writer, reader) = ends(&memory);
        writer.try_push(&[0; 40]).unwrap();
        memory.word(HEAD).store(head, Ordering::Relaxed);
        let expected = if head == 8 { PushError::Full } else { PushError::Corrupt };
        assert_eq!(writer.try_push(&[0; 40]), Err(expected), "{head:x}");
        assert!(writer.push_timeout(&[0; 40], Duration::ZERO).is_err());
        drop((writer, reader));
        if head % 8 != 0 {
            assert_eq!(memory.ring().reader(spin(1)).unwrap_err(), ClaimError::Corrupt);
            assert_eq!(memory.ring().writer(spin(0)).unwrap_err(), ClaimError::Corrupt);
        }
    }
    // A chain of lengths without an end.
    let memory = Memory::new(64);
    for position in (0..64).step_by(8) {
        memory.word(WORDS + position as usize).store(length(position, 1), Ordering::Relaxed);
    }
    assert_eq!(memory.ring().writer(spin(0)).unwrap_err(), ClaimError::Corrupt);
}

/// A peer that scribbles over everything while this one works: any answer, but no panic and no hang.
#[test]
fn a_scribbler_causes_no_panic_and_no_hang() {
    within_a_minute(|| {
        let memory = Memory::new(128);
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut random = Random(77);
                while !stop.load(Ordering::Relaxed) {
                    let offset = random.below(memory.len() as u64 / 8) as usize * 8;
                    let near = memory.word(HEAD).load(Ordering::Relaxed) & !7;
                    let value = match random.below(5) {
                        0 => 0,
                        1 => random.next(),
                        2 => random.below(256),
                        3 => near.wrapping_add(random.below(128)),
                        _ => (near / 8 + random.below(16)) << 32 | random.below(130),
                    };
                    memory.word(offset).store(value, Ordering::Relaxed);
                    for _ in 0..random.below(20) {
                        std::hint::spin_loop();
                    }
                }
            });
            let world = Arc::<World>::default();
            *world.dead.lock().unwrap() = (0..256).map(id).collect();
            let mut random = Random(78);
            let (mut claims, mut records) = (0, 0);
            for _ in 0..20_000 {
                let env = Process::new(&world, 300);
                if random.below(2) == 0 {
                    // An empty ring from time to time: nobody claims an end of one that makes no sense.
                    for offset in (0..memory.len()).step_by(8) {
                        memory.word(offset).store(0, Ordering::Relaxed);
                    }
                }
                if let Ok(mut writer) = memory.ring().writer(env.clone()) {
                    claims += 1;
                    let _ = writer.try_push(&bytes(1, random.below(130) as usize));
                    let _ = writer.push_timeout(&[5; 30], Duration::ZERO);
                }
                if let Ok(mut reader) = memory.ring().reader(env) {
                    claims += 1;
                    for _ in 0..9 {
                        records += u32::from(pop(&mut reader).is_ok());
                    }
                    let mut batch = reader.batch();
                    while let Ok(record) = batch.try_read() {
                        let mut out = vec![0; record.len_bytes()];
                        record.copy_to(0, &mut out);
                        record.release();
                        if random.below(40) == 0 {
                            break;
                        }
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(claims > 300 && records > 300, "{claims} claims and {records} records");
        });
    });
}

/// Random operations on both ends against a queue, with deaths and closes of either end in between.
#[test]
fn random_operations_agree_with_a_queue() {
    for seed in 1..=60 {
        let mut random = Random(seed << 32 | seed);
        let capacity = 64 << random.below(4);
        let memory = Memory::new(capacity);
        let world = Arc::<World>::default();
        let mut next_id = 2;
        let mut writer = Some(memory.ring().writer(Process::new(&world, 0)).unwrap());
        let mut reader = Some(memory.ring().reader(Process::new(&world, 1)).unwrap());
        let mut queue = VecDeque::<Vec<u8>>::new();
        let mut used = 0;
        let size = |record: &[u8]| 8 + record.len().next_multiple_of(8);
        for step in 0..2000 {
            let (w, r) = (writer.as_mut().unwrap(), reader.as_mut().unwrap());
            let longest = memory.ring().max_len_bytes() as u64;
            let bound = if random.below(3) == 0 { longest + 1 } else { 20 };
            let record = bytes(step, random.below(bound) as usize);
            let fits = used + size(&record) + 8 <= capacity as usize;
            match random.below(16) {
                0..=3 => match w.try_push(&record) {
                    Ok(()) => {
                        assert!(fits);
                        used += size(&record);
                        queue.push_back(record);
                    }
                    Err(error) => assert_eq!((error, fits), (PushError::Full, false)),
                },
                4 | 5 => {
                    let Ok(mut space) = w.try_reserve(record.len()) else { continue };
                    assert!(fits);
                    space.copy_from(0, &record);
                    let len = random.below(record.len() as u64 + 1) as usize;
                    space.commit_len(len).unwrap();
                    used += size(&record[..len]);
                    queue.push_back(record[..len].to_vec());
                }
                6 => {
                    let mut batch = w.batch();
                    for i in 0..random.below(9) {
                        let record = bytes(step + i, random.below(30) as usize);
                        if batch.try_push(&record).is_ok() {
                            used += size(&record);
                            queue.push_back(record);
                        }
                    }
                }
                7..=10 => {
                    let popped = pop(r);
                    used -= queue.front().map_or(0, |record| size(record));
                    assert_eq!(popped.ok(), queue.pop_front());
                }
                11 => {
                    let mut batch = r.batch();
                    for _ in 0..random.below(9) {
                        let Ok(record) = batch.try_read() else {
                            assert!(queue.is_empty());
                            break;
                        };
                        let mut out = vec![0; record.len_bytes()];
                        record.copy_to(0, &mut out);
                        assert_eq!(&out, queue.front().unwrap());
                        if random.below(5) == 0 {
                            record.keep();
                        } else {
                            record.release();
                            used -= size(&queue.pop_front().unwrap());
                        }
                    }
                }
                12 => assert_eq!(r.is_empty(), queue.is_empty()),
                kind => {
                    // An end dies or closes, in the midst of something, and a successor takes it over.
                    next_id += 1;
                    let env = Process {
                        me: OwnerId::new(next_id % 1024, next_id / 1024 + 1).unwrap(),
                        ..Process::new(&world, 0)
                    };
                    if kind == 13 {
                        if let Ok(mut space) = w.try_reserve(record.len()) {
                            space.copy_from(0, &record);
                        }
                        end_of_life(writer.take().unwrap(), memory.ring().writer_end(), &world, random.below(2) == 0);
                        writer = Some(memory.ring().writer(env).unwrap());
                    } else {
                        if let Ok(record) = r.try_read() {
                            std::mem::forget(record);
                        }
                        end_of_life(reader.take().unwrap(), memory.ring().reader_end(), &world, random.below(2) == 0);
                        reader = Some(memory.ring().reader(env).unwrap());
                    }
                }
            }
        }
        let mut reader = reader.unwrap();
        for record in queue {
            assert_eq!(pop(&mut reader), Ok(record));
        }
        assert_eq!(pop(&mut reader), Err(PopError::Empty));
    }
}

/// Drops `end` in order, or lets its owner die.
fn end_of_life<T>(end: T, word: End, world: &Arc<World>, dies: bool) {
    if dies {
        let End::Owned(owner) = word else { panic!("{word:?}") };
        world.dead.lock().unwrap().push(owner);
        std::mem::forget(end);
    }
}

/// Streams `count` records of random lengths between two threads and checks every byte.
fn stress(memory: &Memory, mode: WakeMode, count: u64, batched: bool) {
    // SAFETY: `memory` holds a ring and outlives it.
    let ring = unsafe { Ring::attach(memory.start, memory.len(), memory.capacity, mode) }.unwrap();
    let world = Arc::<World>::default();
    let longest = ring.max_len_bytes() as u64;
    let mut writer = ring.writer(Process::new(&world, 0)).unwrap();
    let mut reader = ring.reader(Process::new(&world, 1)).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut random = Random(99);
            let mut batch = writer.batch();
            for i in 0..count {
                let record = bytes(i, random.below(longest + 1) as usize);
                batch.push(&record).unwrap();
                if !batched || i % 7 == 0 {
                    batch.flush();
                }
            }
        });
        let mut random = Random(99);
        let mut i = 0;
        let mut buffer = vec![0; longest as usize];
        while i < count {
            if batched {
                let mut batch = reader.batch();
                while let Ok(len) = batch.try_pop_into(&mut buffer) {
                    assert_eq!(&buffer[..len], bytes(i, random.below(longest + 1) as usize));
                    i += 1;
                }
            }
            if i < count {
                let len = reader.pop_into(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], bytes(i, random.below(longest + 1) as usize));
                i += 1;
            }
        }
        assert_eq!(reader.read().unwrap_err(), PopError::Closed);
    });
}

#[test]
fn two_threads_stream_records_whole_and_in_order() {
    within_a_minute(|| {
        for mode in [WakeMode::Fenced, WakeMode::Asymmetric, WakeMode::Polling] {
            for batched in [false, true] {
                // Nobody wakes a poller, so each of its waits takes a millisecond.
                let count = if mode == WakeMode::Polling { 500 } else { 20_000 };
                stress(&Memory::with_mode(64, mode), mode, count, batched);
                stress(&Memory::with_mode(4096, mode), mode, count / 5, batched);
            }
        }
    });
}

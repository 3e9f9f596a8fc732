//! What an spsc ring promises, in one process.
#![cfg(not(crosslane_loom))]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crosslane_core::end::{ClaimError, End};
use crosslane_core::prim::AtomicU32;
use crosslane_core::spsc::{Consumer, PopError, Producer, PushError, Ring, RingError};
use crosslane_core::wait::Spin;
use crosslane_core::{Liveness, OwnerId, Parked, Plain, Slice, Wait, WakeMode};

struct Memory(NonNull<u8>, Layout);

impl Memory {
    fn new(layout: Layout) -> Self {
        // SAFETY: the layout of a ring is never empty.
        let ptr = unsafe { alloc_zeroed(layout) };
        Self(NonNull::new(ptr).unwrap(), layout)
    }

    fn ring<T: Plain>(&self, slots: u32) -> Ring<'_, T> {
        // SAFETY: freshly allocated for this layout, and borrowed for as long as the ring.
        unsafe { Ring::init(self.0, self.1.size(), slots, WakeMode::Fenced) }.unwrap()
    }

    /// The sequence word of `slot` of a ring of u64, as a hostile peer sees it.
    fn seq(&self, slot: usize) -> &AtomicU64 {
        // SAFETY: header of 384 bytes, slots of 16.
        let seq = unsafe { self.0.add(384 + 16 * slot).cast::<AtomicU64>() };
        // SAFETY: inside the memory; atomics may alias.
        unsafe { seq.as_ref() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.0.as_ptr(), self.1) };
    }
}

// SAFETY: only an allocation.
unsafe impl Sync for Memory {}

fn memory(slots: u32) -> Memory {
    Memory::new(Ring::<u64>::layout(slots).unwrap())
}

fn me(index: u32) -> Spin {
    Spin::new(OwnerId::new(index, 1).unwrap())
}

fn ends<'m, T: Plain>(ring: &Ring<'m, T>) -> (Producer<'m, T, Spin>, Consumer<'m, T, Spin>) {
    (ring.producer(me(0)).unwrap(), ring.consumer(me(1)).unwrap())
}

#[test]
fn pop_returns_items_in_push_order_over_many_laps() {
    let memory = memory(4);
    let (mut producer, mut consumer) = ends(&memory.ring::<u64>(4));
    let mut model = VecDeque::new();
    let mut next = 0;
    for step in 0..10_000_u64 {
        if step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0 {
            match producer.try_push(next) {
                Ok(()) => model.push_back(next),
                Err(error) => assert_eq!((error, model.len()), (PushError::Full, 4)),
            }
            next += 1;
        } else {
            match consumer.try_pop() {
                Ok(item) => assert_eq!(Some(item), model.pop_front()),
                Err(error) => assert_eq!((error, model.len()), (PopError::Empty, 0)),
            }
        }
    }
    assert!(producer.position() > 1_000, "many laps were run");
}

#[test]
fn a_batch_is_cut_to_the_room_and_to_what_is_there() {
    let memory = memory(8);
    let (mut producer, mut consumer) = ends(&memory.ring::<u64>(8));
    assert_eq!(producer.push_slice(&[]), Ok(0));
    assert_eq!(producer.push_slice(&(0..20).collect::<Vec<_>>()), Ok(8));
    assert_eq!(producer.push_slice(&[9]), Err(PushError::Full));
    let mut room = [0; 3];
    assert_eq!(consumer.pop_slice(&mut room), Ok(3));
    assert_eq!(room, [0, 1, 2]);
    assert_eq!(producer.push_slice(&[8, 9, 10, 11]), Ok(3));
    let mut room = [0; 32];
    assert_eq!(consumer.pop_slice(&mut room), Ok(8));
    assert_eq!(room[..8], [3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(consumer.pop_slice(&mut room), Err(PopError::Empty));
}

fn round_trip<T: Plain + PartialEq + core::fmt::Debug>(items: &[T]) {
    let memory = Memory::new(Ring::<T>::layout(4).unwrap());
    let (mut producer, mut consumer) = ends(&memory.ring::<T>(4));
    for item in items {
        producer.try_push(*item).unwrap();
        assert_eq!(consumer.try_pop().unwrap(), *item);
    }
    assert_eq!(producer.push_slice(&items[..2]), Ok(2));
    assert_eq!([consumer.try_pop().unwrap(), consumer.try_pop().unwrap()], items[..2]);
}

#[test]
fn items_of_every_size_travel_whole() {
    round_trip::<u8>(&[1, 2, 255, 4, 5]);
    round_trip::<u32>(&[1, u32::MAX, 3]);
    round_trip::<[u8; 3]>(&[[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    round_trip::<[u16; 7]>(&[[1; 7], [2; 7], [u16::MAX; 7]]);
    round_trip::<[u8; 55]>(&[[1; 55], [2; 55], [3; 55]]);
    round_trip::<[u8; 57]>(&[[1; 57], [2; 57], [3; 57]]);
    round_trip::<[u64; 128]>(&[std::array::from_fn(|i| i as u64), [7; 128], [u64::MAX; 128]]);
    round_trip::<[u8; 133]>(&[std::array::from_fn(|i| u8::try_from(i).unwrap()), [1; 133], [255; 133]]);
}

#[test]
fn slots_share_no_line_unless_both_fit_whole() {
    let per_slot = |layout: Layout| (layout.size() - 384) / 4;
    assert_eq!(per_slot(Ring::<u8>::layout(4).unwrap()), 16);
    assert_eq!(per_slot(Ring::<u64>::layout(4).unwrap()), 16);
    assert_eq!(per_slot(Ring::<[u64; 2]>::layout(4).unwrap()), 32);
    assert_eq!(per_slot(Ring::<[u8; 56]>::layout(4).unwrap()), 64);
    assert_eq!(per_slot(Ring::<[u8; 57]>::layout(4).unwrap()), 128);
    assert_eq!(per_slot(Ring::<[u8; 1024]>::layout(4).unwrap()), 1088);
}

#[test]
fn bad_memory_is_refused() {
    for slots in [0, 1, 3, 1023, u32::MAX] {
        assert_eq!(Ring::<u64>::layout(slots), Err(RingError::Capacity { slots }));
    }
    let memory = memory(4);
    // SAFETY: the memory is as long as is said, or longer.
    let short = unsafe { Ring::<u64>::attach(memory.0, 383, 4, WakeMode::Fenced) };
    assert_eq!(short.unwrap_err(), RingError::TooShort { needed: 448, found: 383 });
    // SAFETY: as above.
    let askew = unsafe { memory.0.add(8) };
    // SAFETY: refused before anything is touched.
    let askew = unsafe { Ring::<u64>::attach(askew, 448, 4, WakeMode::Fenced) };
    assert_eq!(askew.unwrap_err(), RingError::Misaligned);
}

#[test]
fn an_end_has_one_owner_and_can_be_claimed_again() {
    let memory = memory(4);
    let ring = memory.ring::<u64>(4);
    assert_eq!(ring.producer_end(), End::Vacant);
    let mut producer = ring.producer(me(0)).unwrap();
    let taken = ring.producer(me(2)).unwrap_err();
    assert_eq!(taken, ClaimError::EndTaken(OwnerId::new(0, 1).unwrap()));
    producer.try_push(1).unwrap();
    drop(producer);
    assert_eq!(ring.producer_end(), End::Closed);
    let mut producer = ring.producer(me(2)).unwrap();
    assert_eq!(producer.position(), 1);
    producer.try_push(2).unwrap();
    let mut consumer = ring.consumer(me(1)).unwrap();
    assert_eq!((consumer.try_pop(), consumer.try_pop(), consumer.try_pop()), (Ok(1), Ok(2), Err(PopError::Empty)));
    drop(producer);
    assert_eq!(consumer.try_pop(), Err(PopError::Closed));
    assert_eq!(consumer.pop(), Err(PopError::Closed));
}

#[test]
fn positions_are_rebuilt_at_every_fill_and_offset() {
    for start in 0..9 {
        for fill in 0..=4 {
            let memory = memory(4);
            let ring = memory.ring::<u64>(4);
            let (mut producer, mut consumer) = ends(&ring);
            for i in 0..start {
                producer.try_push(i).unwrap();
                consumer.try_pop().unwrap();
            }
            for i in 0..fill {
                producer.try_push(100 + i).unwrap();
            }
            drop((producer, consumer));
            let (mut producer, mut consumer) = ends(&ring);
            assert_eq!((producer.position(), consumer.position()), (start + fill, start), "start {start} fill {fill}");
            let room = 4 - fill;
            for i in 0..room {
                producer.try_push(100 + fill + i).unwrap();
            }
            assert_eq!(producer.try_push(0), Err(PushError::Full));
            for i in 0..4 {
                assert_eq!(consumer.try_pop(), Ok(100 + i));
            }
            assert_eq!(consumer.try_pop(), Err(PopError::Empty));
        }
    }
}

#[test]
fn hostile_sequence_words_are_errors_and_never_more() {
    let hostile = [0, 1, 2, 3, 4, 5, 7, 8, 100, 1 << 40, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    let (mut claims, mut refused) = (0, 0);
    for slot in 0..4 {
        for value in hostile {
            let memory = memory(4);
            let ring = memory.ring::<u64>(4);
            let (mut producer, mut consumer) = ends(&ring);
            producer.push_slice(&[1, 2, 3, 4]).unwrap();
            consumer.try_pop().unwrap();
            memory.seq(slot).store(value, Ordering::Relaxed);
            for _ in 0..9 {
                let _ = producer.try_push(5);
                let _ = consumer.try_pop();
                let _ = producer.push_slice(&[6, 7]);
                let _ = consumer.pop_slice(&mut [0; 3]);
                memory.seq(slot).store(value, Ordering::Relaxed);
            }
            drop((producer, consumer));
            for again in [ring.producer(me(0)).map(drop), ring.consumer(me(1)).map(drop)] {
                claims += 1;
                refused += u32::from(again == Err(ClaimError::Corrupt));
            }
        }
    }
    assert!(refused > claims / 2, "most nonsense is noticed at a claim: {refused} of {claims}");
}

#[test]
fn waits_end_at_their_deadline() {
    let memory = memory(2);
    let (mut producer, mut consumer) = ends(&memory.ring::<u64>(2));
    assert_eq!(consumer.pop_timeout(Duration::from_micros(50)), Err(PopError::TimedOut));
    producer.push(1).unwrap();
    producer.push(2).unwrap();
    assert_eq!(producer.push_timeout(3, Duration::from_micros(50)), Err(PushError::TimedOut));
    assert_eq!(consumer.pop(), Ok(1));
}

#[test]
fn lent_slots_are_filled_and_read_in_place() {
    let memory = Memory::new(Ring::<[u64; 16]>::layout(2).unwrap());
    let ring = memory.ring::<[u64; 16]>(2);
    let (producer, consumer) = ends(&ring);
    // SAFETY: both ends are this test's.
    let mut producer = unsafe { producer.trust_peers() };
    // SAFETY: as above.
    let mut consumer = unsafe { consumer.trust_peers() };
    drop(producer.loan().unwrap());
    assert_eq!(consumer.front().unwrap_err(), PopError::Empty);
    let mut loan = producer.loan().unwrap();
    loan.fill(9);
    loan.commit().unwrap();
    let front = consumer.front().unwrap();
    assert_eq!(*front, [9; 16]);
    front.keep();
    assert_eq!(*consumer.front().unwrap(), [9; 16]);
    assert_eq!(consumer.try_pop(), Err(PopError::Empty));
    assert_eq!(consumer.position(), 1);
}

#[test]
fn two_threads_pass_every_item_once_and_in_order() {
    const ITEMS: u64 = 300_000;
    for slots in [2, 64] {
        let memory = memory(slots);
        let (mut producer, mut consumer) = ends(&memory.ring::<u64>(slots));
        thread::scope(|scope| {
            scope.spawn(move || (0..ITEMS).for_each(|i| producer.push(i).unwrap()));
            for i in 0..ITEMS {
                assert_eq!(consumer.pop(), Ok(i));
            }
            assert_eq!(consumer.pop(), Err(PopError::Closed));
        });
    }
}

/// A process that may turn into a raw `fork()` child of itself.
struct Forking<'a> {
    spin: Spin,
    forked: &'a AtomicBool,
}

impl Wait for Forking<'_> {
    type Deadline = u64;
    fn never(&self) -> u64 {
        self.spin.never()
    }
    fn after(&self, timeout: Duration) -> u64 {
        self.spin.after(timeout)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: u64) -> Parked {
        self.spin.park(word, expected, slice, deadline)
    }
    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        self.spin.wake(word, count)
    }
    fn spins(&self) -> u32 {
        0
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for Forking<'_> {
    fn me(&self) -> Option<OwnerId> {
        if self.forked.load(Ordering::Relaxed) { None } else { self.spin.me() }
    }
    fn is_dead(&self, _: OwnerId) -> bool {
        false
    }
}

#[test]
fn a_fork_child_that_inherits_a_guard_or_a_loan_touches_nothing() {
    let memory = memory(2);
    let ring = memory.ring::<u64>(2);
    let forked = AtomicBool::new(false);
    let env = |index| Forking { spin: me(index), forked: &forked };
    // SAFETY: both ends are this test's.
    let mut producer = unsafe { ring.producer(env(0)).unwrap().trust_peers() };
    // SAFETY: as above.
    let mut consumer = unsafe { ring.consumer(env(1)).unwrap().trust_peers() };
    producer.try_push(1).unwrap();
    let before = [0, 1].map(|slot| memory.seq(slot).load(Ordering::Relaxed));
    let front = consumer.front().unwrap();
    let loan = producer.loan().unwrap();
    forked.store(true, Ordering::Relaxed);
    drop(front);
    assert_eq!(loan.commit(), Err(PushError::Forked));
    assert_eq!([0, 1].map(|slot| memory.seq(slot).load(Ordering::Relaxed)), before, "the slots are the parent's");
    assert_eq!((producer.try_push(2), consumer.try_pop()), (Err(PushError::Forked), Err(PopError::Forked)));
}

#[test]
fn a_wait_that_nobody_wakes_looks_again() {
    let memory = memory(2);
    // SAFETY: freshly allocated for this layout, and borrowed for as long as the ring.
    let ring = unsafe { Ring::<u64>::init(memory.0, memory.1.size(), 2, WakeMode::Polling) }.unwrap();
    let mut producer = ring.producer(me(0)).unwrap();
    let mut consumer = ring.consumer(me(1)).unwrap();
    // SAFETY: the word on which the consumer announces that it sleeps, 128 bytes into the header.
    let announced = unsafe { memory.0.add(128) }.cast::<AtomicU32>();
    // SAFETY: inside the memory; atomics may alias.
    let announced = unsafe { announced.as_ref() };
    thread::scope(|scope| {
        let popping = scope.spawn(move || consumer.pop());
        while announced.load(Ordering::Relaxed) & 1 == 0 {
            thread::yield_now();
        }
        producer.try_push(7).unwrap();
        let start = Instant::now();
        while !popping.is_finished() {
            if start.elapsed() > Duration::from_secs(20) {
                eprintln!("the consumer never looked again");
                std::process::abort();
            }
            thread::yield_now();
        }
        assert_eq!(popping.join().unwrap(), Ok(7));
    });
}

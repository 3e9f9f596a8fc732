//! What a queue of several producers and consumers promises, in one process: order, closing, deliveries, recovery,
//! hostile words.
#![cfg_attr(not(crosslane_loom), expect(clippy::cast_possible_truncation, reason = "small numbers of this test"))]
#![cfg(all(not(crosslane_loom), target_has_atomic = "64"))]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use crosslane_core::mpmc::{Bytes, Payload, PopError, PushError, Queue, Recovered, Ring, RingError};
use crosslane_core::prim::is_still;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode};

const TAIL: usize = 0;
const HEAD: usize = 128;
const RETURNED: usize = 256;
const SLOTS: usize = 640;

#[derive(Clone)]
#[repr(align(128))]
#[expect(dead_code, reason = "only its address is used")]
struct Line([u8; 128]);

/// Memory of one queue, as a segment would hold it, and what its participants share.
struct World {
    lines: Vec<Line>,
    start: NonNull<u8>,
    capacity: u32,
    payload: Payload,
    peers: Arc<Peers>,
}

// SAFETY: after `with` it is only touched through the queue and atomically.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    fn with(capacity: u32, payload: Payload, max_attempts: u32) -> Self {
        let size = Ring::layout(capacity, payload).unwrap().size();
        // Not zero: the queue must not depend on it.
        let mut lines = vec![Line([0xa5; 128]); size.div_ceil(128)];
        let start = NonNull::from(lines.as_mut_slice()).cast();
        // SAFETY: this test's own memory, used as this queue only.
        unsafe { Ring::init(start, lines.len() * 128, capacity, payload, max_attempts, WakeMode::Fenced) }.unwrap();
        Self { lines, start, capacity, payload, peers: Arc::default() }
    }

    fn new(capacity: u32) -> Self {
        Self::with(capacity, Payload::of::<u64>().unwrap(), 7)
    }

    fn ring(&self) -> Ring<'_> {
        self.ring_in(WakeMode::Fenced)
    }

    fn ring_in(&self, mode: WakeMode) -> Ring<'_> {
        // SAFETY: `with` made a queue here, and the memory outlives the borrow.
        unsafe { Ring::attach(self.start, self.lines.len() * 128, self.capacity, self.payload, mode) }.unwrap()
    }

    fn queue(&self, index: u32) -> Queue<'_, u64, Process> {
        Queue::new(self.ring(), Process::new(&self.peers, index)).unwrap()
    }

    /// A queue whose sleeper is helped by wakes alone: no slice ends within a test.
    fn patient_queue(&self, index: u32) -> Queue<'_, u64, Process> {
        let process = Process { owner_slice: Duration::from_secs(60), ..Process::new(&self.peers, index) };
        Queue::new(self.ring(), process).unwrap()
    }

    fn bytes(&self, index: u32, max_len_bytes: u32) -> Bytes<'_, Process> {
        Bytes::new(self.ring(), max_len_bytes, Process::new(&self.peers, index)).unwrap()
    }

    /// The word at byte `offset` of the memory, for a peer that keeps to no protocol.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.lines.len() * 128);
        // SAFETY: inside the memory.
        let word = unsafe { self.start.add(offset) };
        // SAFETY: aligned, and only ever accessed atomically.
        unsafe { word.cast::<AtomicU64>().as_ref() }
    }

    fn kill(&self, index: u32) {
        self.peers.dead.lock().unwrap().push(id(index));
    }
}

/// What all participants of a test share.
#[derive(Debug, Default)]
struct Peers {
    dead: Mutex<Vec<OwnerId>>,
    sleepers: Mutex<u32>,
    wakes: Condvar,
    /// Wakes are lost, as those of a process that is killed before it wakes.
    deaf: AtomicBool,
}

impl Peers {
    fn await_sleeper(&self) {
        let start = Instant::now();
        while *self.sleepers.lock().unwrap() == 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "nobody falls asleep");
            std::thread::yield_now();
        }
    }
}

fn id(index: u32) -> OwnerId {
    OwnerId::new(index, 1).unwrap()
}

/// One participant: sleeps on a condition variable, dies on demand, and may turn into a fork child.
#[derive(Debug, Clone)]
struct Process {
    peers: Arc<Peers>,
    me: OwnerId,
    forked: Arc<AtomicBool>,
    /// How long a sleep behind a named owner lasts.
    owner_slice: Duration,
    /// The hint, if a hostile peer raises it between this process's announcing a sleep and its second look.
    raised_meanwhile: Option<&'static AtomicU64>,
}

impl Process {
    fn new(peers: &Arc<Peers>, index: u32) -> Self {
        Self {
            peers: peers.clone(),
            me: id(index),
            forked: Arc::default(),
            owner_slice: Duration::from_millis(10),
            raised_meanwhile: None,
        }
    }
}

impl Liveness for Process {
    fn me(&self) -> Option<OwnerId> {
        (!self.forked.load(Ordering::Relaxed)).then_some(self.me)
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.peers.dead.lock().unwrap().contains(&owner)
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
        let mut sleepers = self.peers.sleepers.lock().unwrap();
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Parked::Expired;
        }
        if !is_still(word, expected) {
            return Parked::Again;
        }
        let slice = if slice == Slice::Long { Duration::from_secs(60) } else { self.owner_slice };
        *sleepers += 1;
        let left = deadline.map_or(slice, |deadline| slice.min(deadline - now));
        let (mut sleepers, _) = self.peers.wakes.wait_timeout(sleepers, left).unwrap();
        *sleepers -= 1;
        Parked::Again
    }
    fn wake(&self, _: &AtomicU32, count: u32) -> u32 {
        let sleepers = self.peers.sleepers.lock().unwrap();
        if self.peers.deaf.load(Ordering::Relaxed) {
            return count;
        }
        self.peers.wakes.notify_all();
        count.min(*sleepers)
    }
    fn spins(&self) -> u32 {
        20
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        if let Some(hint) = self.raised_meanwhile {
            hint.fetch_add(1 << 32, Ordering::Relaxed);
        }
        false
    }
}

/// Runs `test` and fails if it takes longer.
fn within(seconds: u64, test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match finished.recv_timeout(Duration::from_secs(seconds)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => thread.join().unwrap(),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.next() as usize % choices.len()]
    }
}

#[test]
fn items_come_in_push_order_over_many_laps_and_are_counted() {
    let world = World::new(4);
    let (queue, mut random, mut model, mut next) = (world.queue(0), Random(1), VecDeque::new(), 0);
    for _ in 0..20_000 {
        if random.next() & 1 == 0 {
            match queue.try_push(next) {
                Ok(()) => model.push_back(next),
                Err(error) => assert_eq!((error, model.len()), (PushError::Full(None), 4)),
            }
            next += 1;
        } else {
            match queue.try_pop() {
                Ok(item) => assert_eq!(Some(item), model.pop_front()),
                Err(error) => assert_eq!((error, model.len()), (PopError::Empty, 0)),
            }
        }
        assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
    }
    assert!(world.word(TAIL).load(Ordering::Relaxed) > 1_000, "many laps were run");
}

#[test]
fn a_batch_is_cut_to_the_room_and_to_what_is_there() {
    let world = World::new(8);
    let queue = world.queue(0);
    assert_eq!(queue.push_slice(&[]), Ok(0));
    assert_eq!(queue.push_slice(&(0..20).collect::<Vec<_>>()), Ok(8));
    assert_eq!(queue.push_slice(&[9]), Err(PushError::Full(None)));
    let mut room = [0; 3];
    assert_eq!(queue.pop_slice(&mut room), Ok(3));
    assert_eq!(room, [0, 1, 2]);
    assert_eq!(queue.push_slice(&[8, 9, 10, 11]), Ok(3));
    let mut room = [0; 32];
    assert_eq!(queue.pop_slice(&mut room), Ok(8));
    assert_eq!(room[..8], [3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(queue.pop_slice(&mut room), Err(PopError::Empty));
}

#[test]
fn a_closed_queue_is_drained_and_takes_nothing_more() {
    let world = World::new(4);
    let (queue, other) = (world.queue(0), world.queue(1));
    queue.push_slice(&[1, 2]).unwrap();
    let taken = queue.try_take().unwrap();
    other.close();
    assert!(queue.is_closed());
    assert_eq!(queue.try_push(3), Err(PushError::Closed));
    assert_eq!(queue.push(3), Err(PushError::Closed));
    assert_eq!(queue.push_slice(&[3]), Err(PushError::Closed));
    assert_eq!(other.pop(), Ok(2));
    drop(taken);
    assert_eq!(other.pop(), Ok(1));
    assert_eq!(
        (other.try_pop(), other.pop(), other.pop_timeout(Duration::ZERO), other.take().err()),
        (Err(PopError::Closed), Err(PopError::Closed), Err(PopError::Closed), Some(PopError::Closed))
    );
}

#[test]
fn a_closed_queue_is_not_drained_while_another_holds_an_item() {
    let world = World::new(4);
    let (queue, other) = (world.queue(0), world.queue(1));
    queue.push_slice(&[1, 2]).unwrap();
    let first = queue.try_take().unwrap();
    let second = other.try_take().unwrap();
    queue.close();
    let short = Duration::from_millis(2);
    assert_eq!((other.try_pop(), other.pop_timeout(short)), (Err(PopError::Busy(id(0))), Err(PopError::TimedOut)));
    assert_eq!(queue.try_pop_skip_busy(), Err(PopError::Busy(id(1))));
    // Who holds an item himself waits for the others alone.
    assert_eq!(second.ack(), 2);
    assert_eq!((queue.try_pop(), queue.pop()), (Err(PopError::Closed), Err(PopError::Closed)));
    // Given back, it is delivered; acknowledged, the end is told to whoever waits for it.
    drop(first);
    let again = other.take().unwrap();
    assert_eq!((*again, again.attempts()), (1, 1));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.patient_queue(2).pop());
        world.peers.await_sleeper();
        again.ack();
        assert_eq!(waiting.join().unwrap(), Err(PopError::Closed));
    });
    // So is the item of one who died.
    let world = World::new(2);
    let (queue, victim) = (world.queue(0), world.queue(1));
    queue.try_push(7).unwrap();
    std::mem::forget(victim.try_take().unwrap());
    queue.close();
    world.kill(1);
    assert_eq!((queue.pop(), queue.pop()), (Ok(7), Err(PopError::Closed)));
}

/// Knows who is dead by generation, and counts who asks.
struct Census {
    dead_from: u32,
    asked: std::cell::Cell<u32>,
}

impl Liveness for Census {
    fn me(&self) -> Option<OwnerId> {
        Some(id(0))
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.asked.set(self.asked.get() + 1);
        owner.generation() >= self.dead_from
    }
}

/// However a hostile peer fills the slots with names, a repair passes them once and asks for nobody alive twice.
#[test]
fn a_repair_is_one_pass_whatever_names_stand_in_the_slots() {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        const MANY: u32 = 1 << 16;
        let world = World::new(MANY);
        let held = |slot: u32, generation: u32, index: u32| {
            // WRITING in lap 0.
            let word = 1_u64 << 22 | u64::from(generation) << 10 | u64::from(index);
            world.word(SLOTS + 16 * slot as usize).store(word, Ordering::Relaxed);
        };
        let peer = Process::new(&world.peers, 0);
        (0..MANY).for_each(|slot| held(slot, 64 + slot / 1024, slot % 1024));
        let census = Census { dead_from: 64, asked: 0.into() };
        world.ring().reap(&census, &peer);
        assert_eq!((census.asked.get(), world.ring().len()), (MANY, 0));
        assert_eq!(world.queue(0).try_pop(), Err(PopError::Empty));
        (0..MANY).for_each(|slot| held(slot, 1, 1 + slot % 2));
        let census = Census { dead_from: 2, asked: 0.into() };
        world.ring().reap(&census, &peer);
        assert_eq!(census.asked.get(), 2);
        done.send(()).unwrap();
    });
    match finished.recv_timeout(Duration::from_secs(20)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the repair takes longer than its slots explain"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn deadlines_pass() {
    let world = World::new(2);
    let queue = world.queue(0);
    assert_eq!(queue.pop_timeout(Duration::from_millis(2)), Err(PopError::TimedOut));
    assert!(matches!(queue.take_timeout(Duration::ZERO), Err(PopError::TimedOut)));
    queue.push_slice(&[1, 2]).unwrap();
    assert_eq!(queue.push_timeout(3, Duration::from_millis(2)), Err(PushError::TimedOut));
    assert_eq!((queue.pop_timeout(Duration::ZERO), queue.push_timeout(3, Duration::ZERO)), (Ok(1), Ok(())));
}

#[test]
fn an_unacknowledged_delivery_comes_again_and_then_is_a_dead_letter() {
    let world = World::with(2, Payload::of::<u64>().unwrap(), 3);
    let queue = world.queue(0);
    queue.try_push(10).unwrap();
    for attempts in 0..3 {
        let delivery = queue.try_take().unwrap();
        assert_eq!((*delivery, delivery.attempts()), (10, attempts));
        assert_eq!(queue.len(), 0, "somebody is reading it");
    }
    assert_eq!((queue.dead_letters(), queue.try_pop()), (1, Err(PopError::Empty)));
    assert_eq!(queue.take_dead_letter(), Ok(Some(10)));
    assert_eq!((queue.take_dead_letter(), queue.dropped_letters()), (Ok(None), 0));
    queue.push_slice(&[20, 30]).unwrap();
    assert_eq!(queue.try_take().unwrap().ack(), 20);
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(30), Err(PopError::Empty)));
}

#[test]
fn a_dead_letter_whose_slot_is_needed_is_dropped_and_counted() {
    let world = World::with(2, Payload::of::<u64>().unwrap(), 1);
    let queue = world.queue(0);
    queue.try_push(10).unwrap();
    drop(queue.try_take().unwrap());
    queue.try_push(20).unwrap();
    assert_eq!((queue.dead_letters(), queue.dropped_letters()), (1, 0));
    queue.try_push(30).unwrap();
    assert_eq!((queue.dead_letters(), queue.dropped_letters()), (0, 1));
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(20), Ok(30)));
}

#[test]
fn a_message_keeps_its_length_and_waits_for_a_buffer_that_holds_it() {
    let world = World::with(2, Bytes::payload(20).unwrap(), 2);
    let queue = world.bytes(0, 20);
    assert_eq!(queue.try_push(&[0; 21]), Err(PushError::TooLong { len: 21, max: 20 }));
    for len in 0..=20 {
        let message: Vec<u8> = (1..=len).collect();
        queue.try_push(&message).unwrap();
        let mut room = [0; 20];
        assert_eq!(queue.try_pop_into(&mut room), Ok(message.len()));
        assert_eq!(room[..message.len()], message);
    }
    queue.try_push(b"first").unwrap();
    queue.try_push(b"second").unwrap();
    drop(queue.try_take().unwrap());
    for _ in 0..10 {
        assert_eq!(queue.try_pop_into(&mut [0; 4]), Err(PopError::BufferTooShort { needed: 5 }));
    }
    let delivery = queue.try_take().unwrap();
    let mut start = [0; 3];
    delivery.copy_to(&mut start);
    assert_eq!((delivery.attempts(), delivery.len_bytes(), &start), (1, 5, b"fir"));
    delivery.ack();
    assert_eq!(queue.try_pop_into(&mut [0; 6]), Ok(6));
    assert_eq!(queue.try_pop_into(&mut [0; 6]), Err(PopError::Empty));
}

#[test]
fn a_message_can_be_written_and_read_in_place() {
    let world = World::with(2, Bytes::payload(20).unwrap(), 1);
    // SAFETY: this test keeps to the protocol.
    let queue = unsafe { world.bytes(0, 20).trust_peers() };
    for text in [&b"one"[..], b"", b"twenty bytes, no more"].map(|text| &text[..text.len().min(20)]) {
        let mut room = queue.try_reserve(text.len()).unwrap();
        room.as_mut_slice().copy_from_slice(text);
        assert_eq!(queue.try_pop_into(&mut [0; 20]), Err(PopError::Busy(id(0))));
        room.commit();
        assert_eq!(queue.try_take().unwrap().as_slice(), text);
        let letters: Vec<Vec<u8>> = queue.letters().unwrap().map(|letter| letter.as_slice().to_vec()).collect();
        assert_eq!(letters, [text]);
        queue.letters().unwrap().for_each(|letter| letter.ack());
    }
    assert_eq!(queue.try_reserve(21).unwrap_err(), PushError::TooLong { len: 21, max: 20 });
    drop(queue.try_reserve(1).unwrap());
    assert_eq!((queue.try_pop_into(&mut []), queue.dead_letters()), (Err(PopError::Empty), 0));
}

#[test]
fn a_length_that_a_peer_made_up_is_cut_to_the_longest() {
    let world = World::with(2, Bytes::payload(20).unwrap(), 2);
    let queue = world.bytes(0, 20);
    queue.try_push(b"first").unwrap();
    world.word(SLOTS + 8).store(u64::MAX, Ordering::Relaxed);
    assert_eq!(queue.try_pop_into(&mut [0; 64]), Ok(20));
}

#[test]
fn who_skips_the_busy_gets_what_lies_behind() {
    let world = World::new(2);
    // SAFETY: this test keeps to the protocol.
    let (queue, writer) = (world.queue(0), unsafe { world.queue(1).trust_peers() });
    queue.push_slice(&[1, 2]).unwrap();
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(1), Ok(2)));
    let mut first = writer.try_reserve().unwrap();
    *first = 3;
    assert_eq!(queue.try_pop_skip_busy(), Err(PopError::Busy(id(1))));
    queue.try_push(4).unwrap();
    assert_eq!((queue.try_pop(), queue.try_pop_skip_busy()), (Err(PopError::Busy(id(1))), Ok(4)));
    assert_eq!((queue.try_push(5), queue.try_pop()), (Err(PushError::Full(Some(id(1)))), Err(PopError::Busy(id(1)))));
    // A consumer that was paused since it popped position 0 stores its hint.
    world.word(HEAD).store(1, Ordering::Relaxed);
    assert_eq!(queue.try_pop(), Err(PopError::Busy(id(1))));
    first.commit();
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(3), Err(PopError::Empty)));
}

/// However far the hint lags: positions that the walk to the busy one passes are not what it may skip.
#[test]
fn who_skips_the_busy_gets_what_lies_behind_from_a_hint_that_lags() {
    let world = World::new(4);
    // SAFETY: this test keeps to the protocol.
    let (queue, writer) = (world.queue(0), unsafe { world.queue(1).trust_peers() });
    (0..3).for_each(|_| drop(writer.try_reserve().unwrap()));
    let held = [(); 3].map(|()| writer.try_reserve().unwrap());
    queue.try_push(7).unwrap();
    let [_first, second, _third] = held;
    drop(second);
    assert_eq!((queue.try_pop(), queue.try_pop_skip_busy()), (Err(PopError::Busy(id(1))), Ok(7)));
}

#[test]
fn a_held_slot_is_busy_and_full_behind_its_owner() {
    let world = World::new(2);
    let (queue, holder) = (world.queue(0), world.queue(1));
    queue.push_slice(&[1, 2]).unwrap();
    let held = holder.try_take().unwrap();
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(2), Err(PopError::Busy(id(1)))));
    assert_eq!(queue.try_push(3), Err(PushError::Full(Some(id(1)))));
    assert_eq!(held.ack(), 1);
    assert_eq!((queue.try_pop(), queue.try_push(3), queue.try_pop()), (Err(PopError::Empty), Ok(()), Ok(3)));
}

#[test]
fn hints_that_lag_cost_steps_and_change_nothing() {
    let world = World::new(4);
    let queue = world.queue(0);
    for item in 0..1_000 {
        queue.try_push(item).unwrap();
        queue.try_push(item + 1_000).unwrap();
        if item % 7 == 0 {
            world.word(TAIL).store(0, Ordering::Relaxed);
        }
        assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(item), Ok(item + 1_000)));
        if item % 5 == 0 {
            world.word(HEAD).store(item % 2, Ordering::Relaxed);
        }
        assert_eq!(queue.try_pop(), Err(PopError::Empty));
    }
}

#[test]
fn an_abandoned_reservation_wakes_who_waits_behind_it() {
    within(5, || {
        let world = World::new(2);
        // SAFETY: this test keeps to the protocol.
        let writer = unsafe { world.queue(1).trust_peers() };
        let reserved = writer.reserve().unwrap();
        writer.push(20).unwrap();
        let reader = world.patient_queue(2);
        std::thread::scope(|scope| {
            let popping = scope.spawn(|| reader.pop());
            world.peers.await_sleeper();
            drop(reserved);
            assert_eq!(popping.join().unwrap(), Ok(20));
        });
    });
}

#[test]
fn what_the_dead_held_is_skipped_or_comes_again() {
    let world = World::new(4);
    let queue = world.queue(0);
    // SAFETY: this test keeps to the protocol.
    let victim = unsafe { world.queue(1).trust_peers() };
    queue.try_push(10).unwrap();
    std::mem::forget(victim.try_take().unwrap());
    std::mem::forget(victim.try_reserve().unwrap());
    queue.try_push(20).unwrap();
    assert_eq!(queue.try_pop(), Err(PopError::Busy(id(1))));
    assert_eq!(queue.recover(id(1)), Recovered::default(), "it lives");
    world.kill(1);
    assert_eq!(queue.recover(id(1)), Recovered { skipped: 1, returned: 1, dead_letters: 0 });
    assert_eq!(queue.recover(id(1)), Recovered::default());
    let again = queue.try_take().unwrap();
    assert_eq!((again.attempts(), again.ack()), (1, 10));
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(20), Err(PopError::Empty)));
}

#[test]
fn a_recoverer_finishes_what_a_killed_one_left_unsaid() {
    let world = World::new(2);
    let queue = world.queue(0);
    queue.try_push(10).unwrap();
    std::mem::forget(world.queue(1).try_take().unwrap());
    world.kill(1);
    // Killed between the slot and the hint.
    queue.recover(id(1));
    world.word(RETURNED).store(0, Ordering::Relaxed);
    assert_eq!(queue.try_pop(), Err(PopError::Empty));
    assert_eq!(queue.recover(id(1)), Recovered::default());
    assert_eq!(queue.try_pop(), Ok(10));
}

#[test]
fn an_item_whose_return_was_never_said_is_found_by_who_slept() {
    within(20, || {
        let world = World::new(2);
        let queue = world.queue(0);
        queue.try_push(10).unwrap();
        drop(queue.try_take().unwrap());
        // As if its consumer had been killed between the slot and the hint.
        world.word(RETURNED).store(0, Ordering::Relaxed);
        assert_eq!(queue.try_pop(), Err(PopError::Empty));
        // Somebody else's held slot makes the slices short.
        // SAFETY: this test keeps to the protocol.
        let other = unsafe { world.queue(1).trust_peers() };
        let _held = other.try_reserve().unwrap();
        assert_eq!(queue.pop(), Ok(10));
    });
}

#[test]
fn a_hint_that_a_peer_raises_for_ever_holds_up_no_deadline() {
    within(20, || {
        let world: &'static World = Box::leak(Box::new(World::new(2)));
        let process = Process { raised_meanwhile: Some(world.word(RETURNED)), ..Process::new(&world.peers, 0) };
        let queue = Queue::<u64, _>::new(world.ring_in(WakeMode::Asymmetric), process).unwrap();
        assert_eq!(queue.pop_timeout(Duration::from_millis(20)), Err(PopError::TimedOut));
    });
}

#[test]
fn dead_letters_can_be_looked_at_and_stay() {
    let world = World::with(4, Payload::of::<u64>().unwrap(), 2);
    let queue = world.queue(0);
    for item in [10, 20] {
        queue.try_push(item).unwrap();
        drop(queue.try_take().unwrap());
        drop(queue.try_take().unwrap());
    }
    for _ in 0..3 {
        let seen: Vec<(u64, u32)> = queue.letters().unwrap().map(|letter| (*letter, letter.attempts())).collect();
        assert_eq!((seen, queue.dead_letters()), (vec![(10, 2), (20, 2)], 2));
        assert_eq!(queue.try_pop(), Err(PopError::Empty), "looking delivers nothing");
    }
    let taken: Vec<u64> = queue.letters().unwrap().filter(|letter| **letter == 20).map(|letter| letter.ack()).collect();
    assert_eq!((taken, queue.take_dead_letter(), queue.dead_letters()), (vec![20], Ok(Some(10)), 0));
}

#[test]
fn recovery_wakes_who_sleeps_behind_the_dead() {
    within(5, || {
        let world = World::new(2);
        // SAFETY: this test keeps to the protocol.
        let victim = unsafe { world.queue(1).trust_peers() };
        std::mem::forget(victim.reserve().unwrap());
        victim.push(20).unwrap();
        let reader = world.patient_queue(2);
        std::thread::scope(|scope| {
            let popping = scope.spawn(|| reader.pop());
            world.peers.await_sleeper();
            world.kill(1);
            assert_eq!(world.queue(0).recover(id(1)).skipped, 1);
            assert_eq!(popping.join().unwrap(), Ok(20));
        });
    });
}

#[test]
fn an_item_that_becomes_a_dead_letter_makes_room_for_a_sleeping_producer() {
    within(5, || {
        let world = World::with(2, Payload::of::<u64>().unwrap(), 1);
        let (queue, producer) = (world.queue(0), world.patient_queue(1));
        queue.push_slice(&[10, 20]).unwrap();
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| producer.push(30));
            world.peers.await_sleeper();
            drop(queue.take().unwrap());
            assert_eq!(pushing.join().unwrap(), Ok(()));
        });
        assert_eq!((queue.dropped_letters(), queue.try_pop(), queue.try_pop()), (1, Ok(20), Ok(30)));
    });
}

#[test]
fn a_fork_child_ends_no_claim_of_its_parent() {
    let world = World::new(4);
    let process = Process::new(&world.peers, 0);
    // SAFETY: this test keeps to the protocol.
    let queue = unsafe { Queue::<u64, _>::new(world.ring(), process.clone()).unwrap().trust_peers() };
    queue.push_slice(&[10, 20]).unwrap();
    let (taken, slot, mut letters) = (queue.take().unwrap(), queue.reserve().unwrap(), queue.letters().unwrap());
    process.forked.store(true, Ordering::Relaxed);
    assert_eq!(taken.ack(), 10);
    slot.commit();
    assert!(letters.next().is_none());
    drop(letters);
    process.forked.store(false, Ordering::Relaxed);
    assert_eq!((queue.try_pop(), queue.len()), (Ok(20), 0));
    assert_eq!(queue.try_pop(), Err(PopError::Busy(id(0))), "the slot is still claimed");
    world.kill(0);
    let recovered = world.queue(1).recover(id(0));
    assert_eq!((recovered.skipped, recovered.returned), (1, 1));
}

#[test]
fn a_fork_child_takes_no_dead_letter_in_its_parents_name() {
    let world = World::with(2, Payload::of::<u64>().unwrap(), 1);
    let process = Process::new(&world.peers, 0);
    let queue = Queue::<u64, _>::new(world.ring(), process.clone()).unwrap();
    queue.push_slice(&[10, 20]).unwrap();
    (0..2).for_each(|_| drop(queue.take().unwrap()));
    let mut letters = queue.letters().unwrap();
    assert_eq!(letters.next().map(|letter| *letter), Some(10));
    process.forked.store(true, Ordering::Relaxed);
    assert!(letters.next().is_none());
    assert_eq!(queue.dead_letters(), 2);
}

#[test]
fn a_reaper_repairs_what_all_the_dead_held_and_wakes_those_whom_they_should_have_woken() {
    within(5, || {
        let world = World::new(4);
        let (queue, reaper) = (world.queue(0), Process::new(&world.peers, 0));
        queue.push_slice(&[10, 20]).unwrap();
        for index in [1, 2] {
            std::mem::forget(world.queue(index).try_take().unwrap());
        }
        let living = world.queue(3);
        queue.push(30).unwrap();
        let kept = living.try_take().unwrap();
        world.kill(1);
        world.kill(2);
        world.ring().reap(&reaper, &reaper);
        assert_eq!((queue.len(), queue.try_pop(), queue.try_pop()), (2, Ok(10), Ok(20)));
        assert_eq!(kept.ack(), 30);
        // Now nobody is dead who holds a slot, but the one who pushed died before it woke anybody.
        let reader = world.patient_queue(2);
        std::thread::scope(|scope| {
            let popping = scope.spawn(|| reader.pop());
            world.peers.await_sleeper();
            world.peers.deaf.store(true, Ordering::Relaxed);
            queue.push(40).unwrap();
            world.peers.deaf.store(false, Ordering::Relaxed);
            world.ring().reap(&reaper, &reaper);
            assert_eq!(popping.join().unwrap(), Ok(40));
        });
    });
}

#[test]
fn who_waits_behind_the_dead_goes_on() {
    within(20, || {
        let world = World::new(2);
        // SAFETY: this test keeps to the protocol.
        let victim = unsafe { world.queue(1).trust_peers() };
        victim.push(10).unwrap();
        std::mem::forget(victim.take().unwrap());
        std::mem::forget(victim.reserve().unwrap());
        let queue = world.queue(0);
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| (queue.push(20), queue.push(30)));
            world.peers.await_sleeper();
            world.kill(1);
            let mut got = [queue.pop().unwrap(), queue.pop().unwrap(), queue.pop().unwrap()];
            got.sort_unstable();
            assert_eq!((got, pushing.join().unwrap()), ([10, 20, 30], (Ok(()), Ok(()))));
        });
    });
}

#[test]
fn a_fork_child_touches_nothing() {
    let world = World::new(2);
    let process = Process::new(&world.peers, 0);
    let queue = Queue::<u64, _>::new(world.ring(), process.clone()).unwrap();
    queue.try_push(10).unwrap();
    let delivery = queue.try_take().unwrap();
    process.forked.store(true, Ordering::Relaxed);
    assert_eq!(queue.try_push(20), Err(PushError::Forked));
    assert_eq!((queue.try_pop(), queue.take_dead_letter()), (Err(PopError::Forked), Err(PopError::Forked)));
    drop(delivery);
    process.forked.store(false, Ordering::Relaxed);
    assert_eq!((queue.len(), queue.try_pop()), (0, Err(PopError::Empty)), "the parent still reads it");
}

#[test]
fn memory_that_makes_no_queue_is_refused() {
    let payload = Payload::of::<u64>().unwrap();
    assert_eq!(Ring::layout(3, payload), Err(RingError::Capacity { slots: 3 }));
    assert_eq!(Ring::layout(1, payload), Err(RingError::Capacity { slots: 1 }));
    let long = Payload { len_bytes: u32::MAX, align: 8 };
    assert_eq!(Ring::layout(2, long), Err(RingError::Payload { len_bytes: u64::from(u32::MAX) }));
    assert!(Payload::of::<[u8; (1 << 26) + 1]>().is_err() && Bytes::payload(u32::MAX).is_err());
    let world = World::new(2);
    let needed = Ring::layout(2, payload).unwrap().size() as u64;
    // SAFETY: nothing is made of this memory.
    let short = unsafe { Ring::attach(world.start, 640, 2, payload, WakeMode::Fenced) };
    assert_eq!(short.err(), Some(RingError::TooShort { needed, found: 640 }));
    // SAFETY: as above; the address is inside the memory.
    let (odd, len) = unsafe { (world.start.add(64), needed as usize) };
    // SAFETY: nothing is made of this memory.
    let misaligned = unsafe { Ring::attach(odd, len, 2, payload, WakeMode::Fenced) };
    assert_eq!(misaligned.err(), Some(RingError::Misaligned));
    for attempts in [0, 8] {
        // SAFETY: this test's memory, and nobody uses it.
        let ring = unsafe { Ring::init(world.start, 1024, 2, payload, attempts, WakeMode::Fenced) };
        assert_eq!(ring.err(), Some(RingError::Attempts { attempts }));
    }
    let process = Process::new(&world.peers, 0);
    assert!(Queue::<[u64; 3], _>::new(world.ring(), process.clone()).is_err());
    assert!(Bytes::new(world.ring(), 9, process).is_err());
}

/// Every state in every field, and hints that lead, lag and wrap: an answer or an error, in bounded time.
#[test]
fn hostile_words_give_errors_and_no_panics_or_hangs() {
    within(20, || {
        let (world, mut random, mut corrupt) = (World::new(2), Random(7), 0);
        let queue = world.queue(0);
        world.kill(3);
        let laps = [0, 1, 2, 3, 7, 1 << 35, (1 << 36) - 2, (1 << 36) - 1];
        let owners = [0, 1, id(0).to_word(), id(1).to_word(), id(3).to_word(), (1 << 22) - 1];
        let hints = [0, 1, 2, 3, 4, 15, 1 << 36, (1 << 37) - 1, 1 << 37, 1 << 63, u64::MAX - 1, u64::MAX];
        for round in 0..30_000_u64 {
            for slot in 0..2 {
                let (state, attempts) = (random.next() % 8, random.next() % 8);
                let word = random.of(&laps) << 28 | attempts << 25 | state << 22 | u64::from(random.of(&owners));
                world.word(SLOTS + 16 * slot).store(word, Ordering::Relaxed);
            }
            world.word(TAIL).store(random.of(&hints), Ordering::Relaxed);
            world.word(HEAD).store(random.of(&hints), Ordering::Relaxed);
            world.word(RETURNED).store((random.next() % 4) | ((random.next() % 8 / 7) << 32), Ordering::Relaxed);
            world.word(RETURNED + 8).store(random.next(), Ordering::Relaxed);
            corrupt += u32::from(queue.try_push(round) == Err(PushError::Corrupt));
            corrupt += u32::from(queue.try_pop() == Err(PopError::Corrupt));
            let _ = (queue.try_pop_skip_busy(), queue.pop_slice(&mut [0; 3]), queue.push_slice(&[1, 2, 3]));
            drop(queue.try_take());
            let _ = (queue.push_timeout(1, Duration::ZERO), queue.pop_timeout(Duration::ZERO));
            let _ = (queue.take_dead_letter(), queue.recover(id(3)));
            assert!(queue.len() + queue.dead_letters() <= 2);
        }
        assert!(corrupt > 10_000, "{corrupt}");
    });
}

/// Two producers and two consumers, some items given back on the way: each item is acknowledged once.
#[test]
fn each_item_of_several_producers_reaches_one_of_several_consumers() {
    const EACH: u64 = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
    within(20, || {
        let world = World::new(8);
        let seen: Vec<AtomicU32> = (0..2 * EACH).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            let producers = [0, 1].map(|i| {
                let queue = world.queue(i);
                scope.spawn(move || (0..EACH).for_each(|n| queue.push(u64::from(i) * EACH + n).unwrap()))
            });
            let consumers = [2, 3].map(|i| {
                let (queue, seen) = (world.queue(i), &seen);
                scope.spawn(move || {
                    let (mut got, mut last) = (0, [None; 2]);
                    while let Ok(delivery) = queue.take() {
                        if *delivery % 1_000 == u64::from(i) && delivery.attempts() == 0 {
                            continue;
                        }
                        if delivery.attempts() == 0 {
                            // First in, first out for each producer.
                            let of = &mut last[(*delivery / EACH) as usize];
                            assert!(of.replace(*delivery) < Some(*delivery));
                        }
                        seen[delivery.ack() as usize].fetch_add(1, Ordering::Relaxed);
                        got += 1;
                    }
                    got
                })
            });
            for thread in producers {
                thread.join().unwrap();
            }
            world.queue(0).close();
            let got: [u64; 2] = consumers.map(|thread| thread.join().unwrap());
            assert_eq!(got.iter().sum::<u64>(), 2 * EACH);
        });
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        assert!(world.ring().is_empty());
    });
}

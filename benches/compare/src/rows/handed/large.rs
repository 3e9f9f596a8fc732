//! Vectors of 1 MiB through a queue, beside as many copies by `memcpy` into memory that both sides map.
//!
//! Whether memory is new decides more than who copies: each fresh vector is 256 page faults and as many pages to give
//! back. So there is a row in which both sides of both contestants keep their memory, and one in which both have a new
//! vector for each message; the allocator is told to map each, which it else does until it learns better.

use std::sync::atomic::{AtomicU32, Ordering};

use crosslane::Queue;
use ipc_channel::ipc;

use super::{Order, Times, gate, seconds, side, timed};
use crate::python;
use crate::row::{Row, Unit};
use crate::shared::{Memory, Shared, Untouched};
use crate::sides::{Kind, Start, race, spin, unpin};

const OURS: &str = "crosslane Queue";
const MEMCPY: &str = "bare memcpy in and out";
const MIB: usize = 1 << 20;
/// Messages that are on their way at once at most.
const SLOTS: usize = 4;
/// Messages before the clock starts.
const WARM: u64 = 2 * SLOTS as u64;
const GOAL: f64 = 1.25;

/// Both sides keep their memory.
pub fn reused(times: u64) -> Row {
    let few = (times / 4).max(1);
    Row::new("1 MiB Vec<u8> through a Queue, memory that is kept", Unit::Nanos, times)
        .contestant(MEMCPY, move || memcpy(times))
        .contestant(OURS, move || vectors(times))
        .goal(OURS, MEMCPY, GOAL)
        .rival(OURS, "ipc-channel, bytes", few, move || ipc_channel(few))
        .python(OURS, "Python multiprocessing.Queue", few, &[few], python::LARGE_QUEUE)
}

/// Each message is a new vector on both sides.
pub fn fresh(times: u64) -> Row {
    Row::new("1 MiB Vec<u8> through a Queue, a new one each time", Unit::Nanos, times)
        .contestant(MEMCPY, move || fresh_memcpy(times))
        .contestant(OURS, move || fresh_vectors(times))
        .goal(OURS, MEMCPY, GOAL)
}

/// What a side does with the queue.
type Work = fn(Order<Queue<Vec<u8>>>) -> Times;

fn with_queue(times: u64, work: [Work; 2]) -> f64 {
    let gate = gate(2);
    unpin();
    let queue = Queue::<Vec<u8>>::with_limit(SLOTS, 1 << 20).expect("a queue");
    let order = |cpu| (queue.clone(), gate.clone(), times, cpu);
    seconds(vec![side(work[0], order(0)), side(work[1], order(1))])
}

fn vectors(times: u64) -> f64 {
    let produce = |(queue, gate, times, cpu): Order<Queue<Vec<u8>>>| {
        let vector = vec![1; MIB];
        let put = || queue.put_ref(&vector).expect("an open queue");
        (0..WARM).for_each(|_| put());
        timed(&gate, cpu, || (0..times).for_each(|_| put()))
    };
    let consume = |(queue, gate, times, cpu): Order<Queue<Vec<u8>>>| {
        let mut vector = Vec::new();
        let mut get = || {
            queue.get_into(&mut vector).expect("a vector");
            assert_eq!(std::hint::black_box(&vector).len(), MIB);
        };
        (0..WARM).for_each(|_| get());
        timed(&gate, cpu, || (0..times).for_each(|_| get()))
    };
    with_queue(times, [produce, consume])
}

/// The vectors are made, and the slots have been used, before the clock starts.
fn fresh_vectors(times: u64) -> f64 {
    let produce = |(queue, gate, times, cpu): Order<Queue<Vec<u8>>>| {
        map_each_vector();
        let vectors: Vec<_> = (0..times).map(|_| vec![1; MIB]).collect();
        (0..WARM).for_each(|_| queue.put(vec![2; MIB]).expect("an open queue"));
        timed(&gate, cpu, || vectors.into_iter().for_each(|vector| queue.put(vector).expect("an open queue")))
    };
    let consume = |(queue, gate, times, cpu): Order<Queue<Vec<u8>>>| {
        map_each_vector();
        let get = || assert_eq!(queue.get().expect("a vector").len(), MIB);
        (0..WARM).for_each(|_| get());
        timed(&gate, cpu, || (0..times).for_each(|_| get()))
    };
    with_queue(times, [produce, consume])
}

/// glibc raises the length from which it maps memory of its own once the first of that length is given back.
fn map_each_vector() {
    const FROM_BYTES: libc::c_int = 128 << 10;
    // SAFETY: sets a number of the allocator's.
    assert_eq!(unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_BYTES) }, 1);
}

/// As much memory for as many messages, in and out of which they are copied by `memcpy`.
struct Slots {
    memory: Memory,
    written: Shared<AtomicU32>,
    read: Shared<AtomicU32>,
}

impl Slots {
    fn new() -> Self {
        Self { memory: Memory::new(SLOTS * MIB), written: Shared::new(), read: Shared::new() }
    }

    fn slot(&self, n: u32) -> *mut u8 {
        self.memory.start().as_ptr().wrapping_add(n as usize % SLOTS * MIB)
    }

    fn put(&self, n: u32, message: &[u8]) {
        assert_eq!(message.len(), MIB);
        spin(|| ((n - self.read.load(Ordering::Acquire)) as usize).lt(&SLOTS).then_some(()));
        // SAFETY: a slot of `MIB` bytes, which the other side has read.
        unsafe { self.slot(n).copy_from_nonoverlapping(message.as_ptr(), MIB) };
        self.written.store(n + 1, Ordering::Release);
    }

    fn get(&self, n: u32, message: &mut [u8]) {
        assert_eq!(message.len(), MIB);
        spin(|| (self.written.load(Ordering::Acquire) > n).then_some(()));
        // SAFETY: a slot of `MIB` bytes, which the other side has written, into as much memory.
        unsafe { message.as_mut_ptr().copy_from_nonoverlapping(self.slot(n), MIB) };
        std::hint::black_box(&message);
        self.read.store(n + 1, Ordering::Release);
    }

    /// Calls `one` for each message, and says go when those before the clock are through.
    fn run(start: Start<'_>, times: u64, mut one: impl FnMut(u32)) {
        let warm = u32::try_from(WARM).expect("few");
        (0..warm).for_each(&mut one);
        start.go();
        (warm..warm + u32::try_from(times).expect("few")).for_each(one);
    }
}

fn memcpy(times: u64) -> f64 {
    let slots = Slots::new();
    race(
        Kind::Processes,
        |start| {
            let message = vec![1; MIB];
            Slots::run(start, times, |n| slots.put(n, &message));
        },
        |start| {
            let mut message = vec![2; MIB];
            Slots::run(start, times, |n| slots.get(n, &mut message));
        },
    )
}

/// With memory that is mapped for each message, as the allocator does it when it is told to.
fn fresh_memcpy(times: u64) -> f64 {
    let slots = Slots::new();
    race(
        Kind::Processes,
        |start| {
            let full = || {
                let mut memory = Untouched::new(MIB);
                memory.as_mut_slice().fill(1);
                memory
            };
            let mut messages = (0..WARM + times).map(|_| full()).collect::<Vec<_>>().into_iter();
            Slots::run(start, times, |n| slots.put(n, messages.next().expect("as many").as_mut_slice()));
        },
        |start| Slots::run(start, times, |n| slots.get(n, Untouched::new(MIB).as_mut_slice())),
    )
}

/// It has a channel for bytes, which serialises nothing.
fn ipc_channel(times: u64) -> f64 {
    let (to, from) = ipc::bytes_channel().expect("a channel");
    race(
        Kind::Processes,
        |start| {
            let message = vec![1; MIB];
            Slots::run(start, times, |_| to.send(&message).expect("a receiver"));
        },
        move |start| Slots::run(start, times, |_| assert_eq!(from.recv().expect("a sender").len(), MIB)),
    )
}

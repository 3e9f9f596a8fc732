//! Every call of the spsc ring on memory that a hostile peer writes.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::sync::atomic::Ordering;
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::spsc::{Consumer, Producer, Ring};

use crate::arena::{Arena, Poke, Start};
use crate::spsc_ops::Item;
use crate::surroundings::{Env, World};

/// Bytes in front of the slots: end words and event words, 32 bits each.
pub(crate) const HEADER_BYTES: usize = 384;

#[derive(Debug, Arbitrary)]
struct Input {
    capacity_log2: u8,
    mode: u8,
    item: u8,
    start: Start,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Op {
    Poke(Poke),
    ClaimProducer(u8),
    ClaimConsumer(u8),
    DropProducer,
    DropConsumer,
    ForgetEnds,
    Bury(u8),
    Push(u8),
    PushSlice(u8),
    Pop(u8),
    PopSlice(u8),
    Look,
    WakeAll,
}

/// Runs one input. Planted: a consumer that uses a sequence number as an index without a check.
///
/// # Panics
/// When a call does not return, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    match input.item % 4 {
        0 => start::<u64>(&input, planted),
        1 => start::<[u8; 5]>(&input, planted),
        2 => start::<[u8; 56]>(&input, planted),
        _ => start::<[u8; 160]>(&input, planted),
    }
}

fn start<T: Item>(input: &Input, planted: bool) {
    let (arena, capacity) = arena::<T>(input.capacity_log2, input.mode, &input.start);
    let world = World::default();
    // SAFETY: the arena is as long as the ring needs, and the handles end before it.
    let ring = unsafe { Ring::attach(arena.base(), arena.len_bytes(), capacity, crate::mode(input.mode)) };
    play::<T>(ring.expect("fits"), &world, Some(&arena), &input.ops);
    if planted {
        unchecked_ledger(&arena);
    }
}

/// An arena with a ring of `T` in it, honest or not, and its capacity.
pub(crate) fn arena<T: Item>(capacity_log2: u8, mode: u8, start: &Start) -> (Arena, u32) {
    let capacity = 2 << (capacity_log2 % 5);
    let layout = Ring::<T>::layout(capacity).expect("a power of two");
    let arena = Arena::new(layout.size(), mode & 0x80 != 0);
    // SAFETY: the arena is as long as the layout says; the ring is used after this through another handle.
    unsafe { Ring::<T>::init(arena.base(), arena.len_bytes(), capacity, crate::mode(mode)) }.expect("fits");
    if let Start::Bytes(bytes) = start {
        arena.flood(bytes);
    }
    (arena, capacity)
}

/// Runs `ops`; pokes only where there is an `arena` for them.
pub(crate) fn play<T: Item>(ring: Ring<'_, T>, world: &World, arena: Option<&Arena>, ops: &[Op]) {
    let mut producer: Option<Producer<'_, T, Env<'_>>> = None;
    let mut consumer: Option<Consumer<'_, T, Env<'_>>> = None;
    let parks = |n: u8| Duration::from_nanos(u64::from(n % 16));
    for op in ops {
        world.next_operation();
        match (op, &mut producer, &mut consumer) {
            (Op::Poke(poke), _, _) => {
                if let Some(arena) = arena {
                    let _ = poke.apply(arena, HEADER_BYTES, &[]);
                }
            }
            (Op::ClaimProducer(index), end @ None, _) => *end = ring.producer(Env::new(world, (*index).into())).ok(),
            (Op::ClaimConsumer(index), _, end @ None) => *end = ring.consumer(Env::new(world, (*index).into())).ok(),
            (Op::DropProducer, end, _) => *end = None,
            (Op::DropConsumer, _, end) => *end = None,
            (Op::ForgetEnds, _, _) => {
                core::mem::forget(producer.take());
                core::mem::forget(consumer.take());
            }
            (Op::Bury(index), _, _) => world.bury((*index).into()),
            (Op::Push(n), Some(end), _) => {
                let _ = end.try_push(T::make((*n).into()));
                let _ = end.push_timeout(T::make((*n).into()), parks(*n));
            }
            (Op::PushSlice(n), Some(end), _) => {
                let items: Vec<T> = (0..u64::from(*n)).map(T::make).collect();
                assert!(end.push_slice(&items).unwrap_or(0) <= items.len());
            }
            (Op::Pop(n), _, Some(end)) => {
                let _ = black_box(end.try_pop());
                let _ = black_box(end.pop_timeout(parks(*n)));
            }
            (Op::PopSlice(n), _, Some(end)) => {
                let mut items = vec![T::make(0); (*n).into()];
                assert!(end.pop_slice(&mut items).unwrap_or(0) <= items.len());
                black_box(items);
            }
            (Op::Look, _, _) => {
                black_box((ring.producer_end(), ring.consumer_end()));
                black_box(producer.as_ref().map(|end| (end.is_full(), end.peer(), end.position())));
                black_box(consumer.as_ref().map(|end| (end.is_empty(), end.peer(), end.position())));
            }
            (Op::WakeAll, _, _) => ring.wake_all(&Env::new(world, 0)),
            _ => {}
        }
    }
    world.next_operation();
}

/// The planted bug: keeps a ledger of what was popped, by a sequence number that it does not check.
fn unchecked_ledger(arena: &Arena) {
    let ledger = vec![0_u8; 1 << 16];
    let seq = arena.word64(HEADER_BYTES / 8).load(Ordering::Relaxed);
    black_box(ledger[usize::try_from(seq).unwrap_or(usize::MAX)]);
}

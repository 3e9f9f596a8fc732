//! Every call of the queue of many producers and consumers, of items and of messages, on memory that a hostile peer writes.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::sync::atomic::Ordering;
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::mpmc::{Bytes, BytesDelivery, BytesReservation, Delivery, Payload, Queue, Reservation, Ring};
use crosslane_core::{OwnerId, Trusted};

use crate::arena::{Arena, Poke, Start};
use crate::spsc_ops::Item;
use crate::surroundings::{Env, World};

/// Bytes in front of the slots, in 32-bit words; but for the hints, which are 64-bit ones: tail, head, and returned.
pub(crate) const HEADER_BYTES: usize = 640;
pub(crate) const HINTS: &[usize] = &[0, 128, 256];
/// Processes that use the queue, participants 0, 1 and so on; all others, dead or alive, are the hostile peer's invention.
const HANDS: u32 = 3;
/// Claims that are held at once.
const MOST_CLAIMS: usize = 6;
/// The longest message, in bytes.
const MESSAGE_BYTES: u32 = 52;

#[derive(Debug, Arbitrary)]
struct Input {
    shape: Shape,
    start: Start,
    ops: Vec<Op>,
}

/// The queue's size and kind.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct Shape {
    capacity_log2: u8,
    mode: u8,
    item: u8,
    max_attempts: u8,
}

#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Op {
    Poke(Poke),
    /// A word that means something to a slot.
    Slot {
        slot: u8,
        lap: u8,
        state: u8,
        owner: u8,
        lasts: bool,
    },
    Bury(u8),
    Push {
        who: u8,
        parks: u8,
    },
    PushSlice {
        who: u8,
        items: u8,
    },
    Reserve {
        who: u8,
    },
    Pop {
        who: u8,
        parks: u8,
        room: u8,
    },
    PopSkipping {
        who: u8,
    },
    PopSlice {
        who: u8,
        items: u8,
    },
    Take {
        who: u8,
        parks: u8,
    },
    Settle(u8),
    Drop(u8),
    Forget(u8),
    Letters {
        who: u8,
        settle: bool,
    },
    Recover {
        who: u8,
        index: u8,
        generation: u8,
    },
    Close(u8),
    Look,
    WakeAll,
}

/// Runs one input. Planted: a tally of each owner's slots with 256 rows, indexed by what a slot's word says.
///
/// # Panics
/// When a call does not return, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let arena = arena(input.shape, &input.start);
    play(input.shape, &World::default(), &arena, true, &input.ops);
    if planted {
        tally(&arena, input.shape);
    }
}

fn payload(item: u8) -> Payload {
    match item % 4 {
        0 => Payload::of::<u64>(),
        1 => Payload::of::<[u8; 5]>(),
        2 => Payload::of::<[u8; 56]>(),
        _ => Bytes::payload(MESSAGE_BYTES),
    }
    .expect("short")
}

impl Shape {
    fn capacity(self) -> u32 {
        2 << (self.capacity_log2 % 4)
    }
}

/// An arena with a queue in it, honest or not.
pub(crate) fn arena(shape: Shape, start: &Start) -> Arena {
    let (capacity, payload) = (shape.capacity(), payload(shape.item));
    let layout = Ring::layout(capacity, payload).expect("a power of two");
    let arena = Arena::new(layout.size(), shape.mode & 0x80 != 0);
    let (attempts, mode) = (u32::from(shape.max_attempts % 7) + 1, crate::mode(shape.mode));
    // SAFETY: the arena is as long as the layout says; the queue is used after this through another handle.
    unsafe { Ring::init(arena.base(), arena.len_bytes(), capacity, payload, attempts, mode) }.expect("fits");
    if let Start::Bytes(bytes) = start {
        arena.flood(bytes);
    }
    arena
}

/// Runs `ops`; pokes only if it is this thread that does.
pub(crate) fn play(shape: Shape, world: &World, arena: &Arena, pokes: bool, ops: &[Op]) {
    let (capacity, payload, mode) = (shape.capacity(), payload(shape.item), crate::mode(shape.mode));
    // SAFETY: the arena is as long as the queue needs, and the handles end before it.
    let ring = unsafe { Ring::attach(arena.base(), arena.len_bytes(), capacity, payload, mode) }.expect("fits");
    let table = Table { ring, world, arena, pokes };
    match shape.item % 4 {
        0 => table.items::<u64>(ops),
        1 => table.items::<[u8; 5]>(ops),
        2 => table.items::<[u8; 56]>(ops),
        _ => table.messages(ops),
    }
    world.next_operation();
}

struct Table<'m> {
    ring: Ring<'m>,
    world: &'m World,
    arena: &'m Arena,
    pokes: bool,
}

/// A claim of an item's slot.
enum Claim<'a, 'm, T: Item> {
    Taken(Delivery<'a, 'm, T, Env<'m>, Trusted>),
    Reserved(Reservation<'a, 'm, T, Env<'m>>),
}

/// A claim of a message's slot.
enum Letter<'a, 'm> {
    Taken(BytesDelivery<'a, 'm, Env<'m>, Trusted>),
    Reserved(BytesReservation<'a, 'm, Env<'m>>),
}

fn parks(n: u8) -> Duration {
    Duration::from_nanos(u64::from(n % 16))
}

/// Adds a claim, if one was made and there is room for it.
fn hold<C, D>(claims: &mut Vec<C>, claim: Option<D>, of: impl FnOnce(D) -> C) {
    if claims.len() < MOST_CLAIMS {
        claims.extend(claim.map(of));
    }
}

fn pick<C>(claims: &mut Vec<C>, which: u8) -> Option<C> {
    (!claims.is_empty()).then(|| claims.swap_remove(usize::from(which) % claims.len()))
}

impl Table<'_> {
    /// What all queues have in common; `false`: it is an operation of the kind.
    fn common(&self, op: &Op) -> bool {
        match op {
            Op::Poke(poke) if self.pokes => _ = poke.apply(self.arena, HEADER_BYTES, HINTS),
            Op::Slot { slot, lap, state, owner, lasts } if self.pokes => {
                self.write_slot(*slot, *lap, *state, *owner, *lasts)
            }
            Op::Bury(index) => self.world.bury((*index).into()),
            Op::Look => {
                assert!(self.ring.len() + self.ring.dead_letters() <= self.ring.capacity() as usize);
                black_box((self.ring.is_empty(), self.ring.dropped_letters(), self.ring.is_closed()));
            }
            Op::WakeAll => self.ring.wake_all(&Env::new(self.world, 0)),
            Op::Poke(_) | Op::Slot { .. } => {}
            _ => return false,
        }
        true
    }

    fn write_slot(&self, slot: u8, lap: u8, state: u8, owner: u8, lasts: bool) {
        let slots = self.ring.capacity() as usize;
        let stride = (self.arena.len_bytes() - HEADER_BYTES) / 8 / slots;
        let lap = if lap & 0x80 == 0 { u64::from(lap) } else { (1 << 36) - u64::from(lap & 0x7f) };
        let owner = Env::new(self.world, owner.into()).id().to_word();
        let owner = if matches!(state % 8, 1 | 3) == lasts { u64::from(owner) } else { 0 };
        let word = lap << 28 | u64::from(state / 8 % 8) << 25 | u64::from(state % 8) << 22 | owner;
        self.arena.word64(HEADER_BYTES / 8 + usize::from(slot) % slots * stride).store(word, Ordering::Relaxed);
    }

    fn id(index: u8, generation: u8) -> Option<OwnerId> {
        OwnerId::new(index.into(), generation.into())
    }

    fn items<T: Item>(&self, ops: &[Op]) {
        let mut index = 0;
        let hands = [(); HANDS as usize].map(|()| {
            index += 1;
            let queue = Queue::<T, _>::new(self.ring, Env::new(self.world, index - 1)).expect("of this payload");
            // SAFETY: none; the hostile peer lies. What is lent is only ever bytes of this arena, which no other thread
            // writes unless it is the scribbler, and then nothing is lent (`pokes`).
            unsafe { queue.trust_peers() }
        });
        let hand = |who: u8| &hands[usize::from(who) % hands.len()];
        let mut claims: Vec<Claim<'_, '_, T>> = Vec::new();
        for op in ops {
            self.world.next_operation();
            if self.common(op) {
                continue;
            }
            match op {
                Op::Push { who, parks: n } => {
                    let _ = hand(*who).try_push(T::make((*n).into()));
                    let _ = hand(*who).push_timeout(T::make((*n).into()), parks(*n));
                }
                Op::PushSlice { who, items } => {
                    let items: Vec<T> = (0..u64::from(*items)).map(T::make).collect();
                    assert!(hand(*who).push_slice(&items).unwrap_or(0) <= items.len());
                }
                Op::Reserve { who } if self.pokes => {
                    let reserved = hand(*who).try_reserve().ok().map(|mut slot| {
                        *slot = T::make(7);
                        slot
                    });
                    hold(&mut claims, reserved, Claim::Reserved);
                }
                Op::Pop { who, parks: n, .. } => {
                    let _ = black_box(hand(*who).try_pop());
                    let _ = black_box(hand(*who).pop_timeout(parks(*n)));
                }
                Op::PopSkipping { who } => _ = black_box(hand(*who).try_pop_skip_busy()),
                Op::PopSlice { who, items } => {
                    let mut items = vec![T::make(0); (*items).into()];
                    assert!(hand(*who).pop_slice(&mut items).unwrap_or(0) <= items.len());
                    black_box(items);
                }
                Op::Take { who, parks: n } => {
                    let taken = hand(*who).take_timeout(parks(*n)).ok();
                    assert!(taken.as_ref().is_none_or(|taken| taken.attempts() <= 7));
                    hold(&mut claims, taken, Claim::Taken);
                }
                Op::Settle(which) => match pick(&mut claims, *which) {
                    Some(Claim::Taken(taken)) => _ = black_box(taken.ack()),
                    Some(Claim::Reserved(slot)) => slot.commit(),
                    None => {}
                },
                Op::Drop(which) => drop(pick(&mut claims, *which)),
                Op::Forget(which) => core::mem::forget(pick(&mut claims, *which)),
                Op::Letters { who, settle } => {
                    for letter in hand(*who).letters().expect("no fork") {
                        if *settle { _ = black_box(letter.ack()) } else { drop(letter) }
                    }
                }
                Op::Recover { who, index, generation } => {
                    let found = Self::id(*index, *generation).map(|id| hand(*who).recover(id)).unwrap_or_default();
                    assert!(found.skipped + found.returned + found.dead_letters <= self.ring.capacity());
                }
                Op::Close(who) => hand(*who).close(),
                _ => {}
            }
        }
    }

    fn messages(&self, ops: &[Op]) {
        let mut index = 0;
        let hands = [(); HANDS as usize].map(|()| {
            index += 1;
            let queue = Bytes::new(self.ring, MESSAGE_BYTES, Env::new(self.world, index - 1)).expect("of this payload");
            // SAFETY: as in `items`.
            unsafe { queue.trust_peers() }
        });
        let hand = |who: u8| &hands[usize::from(who) % hands.len()];
        let (text, mut buffer) = ([0x5a; 64], [0; 64]);
        let mut claims: Vec<Letter<'_, '_>> = Vec::new();
        for op in ops {
            self.world.next_operation();
            if self.common(op) {
                continue;
            }
            match op {
                Op::Push { who, parks: n } => {
                    let message = &text[..usize::from(*n) % 64];
                    let _ = hand(*who).try_push(message);
                    let _ = hand(*who).push_timeout(message, parks(*n));
                }
                Op::Reserve { who } if self.pokes => {
                    let reserved = hand(*who).try_reserve(usize::from(*who) % 56).ok().map(|mut slot| {
                        slot.as_mut_slice().fill(3);
                        slot
                    });
                    hold(&mut claims, reserved, Letter::Reserved);
                }
                Op::Pop { who, parks: n, room } => {
                    let room = &mut buffer[..usize::from(*room) % 64];
                    assert!(hand(*who).try_pop_into(room).unwrap_or(0) <= room.len().min(52));
                    assert!(hand(*who).pop_into_timeout(room, parks(*n)).unwrap_or(0) <= room.len().min(52));
                }
                Op::PopSkipping { who } => _ = black_box(hand(*who).try_pop_skip_busy_into(&mut buffer)),
                Op::Take { who, parks: n } => {
                    let taken = hand(*who).take_timeout(parks(*n)).ok();
                    if let Some(taken) = &taken {
                        assert!(taken.len_bytes() <= MESSAGE_BYTES as usize && taken.attempts() <= 7);
                        taken.copy_to(&mut buffer[..taken.len_bytes()]);
                        if self.pokes {
                            black_box(taken.as_slice().iter().copied().fold(0, u8::wrapping_add));
                        }
                    }
                    hold(&mut claims, taken, Letter::Taken);
                }
                Op::Settle(which) => match pick(&mut claims, *which) {
                    Some(Letter::Taken(taken)) => taken.ack(),
                    Some(Letter::Reserved(slot)) => slot.commit(),
                    None => {}
                },
                Op::Drop(which) => drop(pick(&mut claims, *which)),
                Op::Forget(which) => core::mem::forget(pick(&mut claims, *which)),
                Op::Letters { who, settle } => {
                    for letter in hand(*who).letters().expect("no fork") {
                        assert!(letter.len_bytes() <= MESSAGE_BYTES as usize);
                        if *settle { letter.ack() } else { drop(letter) }
                    }
                }
                Op::Recover { who, index, generation } => {
                    let found = Self::id(*index, *generation).map(|id| hand(*who).recover(id)).unwrap_or_default();
                    assert!(found.skipped + found.returned + found.dead_letters <= self.ring.capacity());
                }
                Op::Close(who) => hand(*who).close(),
                _ => {}
            }
            black_box(&mut buffer);
        }
    }
}

/// The planted bug: counts each owner's slots in a table of 256 rows.
fn tally(arena: &Arena, shape: Shape) {
    let slots = shape.capacity() as usize;
    let (mut rows, stride) = (vec![0_u32; 256], (arena.len_bytes() - HEADER_BYTES) / 8 / slots);
    for slot in 0..slots {
        let word = arena.word64(HEADER_BYTES / 8 + slot * stride).load(Ordering::Relaxed);
        if matches!(word >> 22 & 7, 1 | 3) {
            rows[usize::try_from(word & 1023).unwrap_or(0)] += 1;
        }
    }
    black_box(rows);
}

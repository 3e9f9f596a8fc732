//! Vyukov's bounded queue, as bare as it gets: the limit for a queue of many producers and consumers. A process killed
//! inside leaves a hole that nobody can name.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

struct Slot {
    sequence: AtomicU64,
    item: AtomicU64,
}

pub struct Vyukov {
    slots: Box<[Slot]>,
    tail: Line,
    head: Line,
}

impl Vyukov {
    /// `slots` is a power of two.
    pub fn new(slots: u32) -> Self {
        let slot = |i| Slot { sequence: AtomicU64::new(i), item: AtomicU64::new(0) };
        Self { slots: (0..u64::from(slots)).map(slot).collect(), tail: Line::default(), head: Line::default() }
    }

    #[inline]
    fn slot(&self, position: u64) -> &Slot {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    #[inline]
    pub fn push(&self, item: u64) -> bool {
        let mut position = self.tail.0.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(position);
            let ahead = slot.sequence.load(Ordering::Acquire).wrapping_sub(position) as i64;
            if ahead < 0 {
                return false;
            }
            let next = position.wrapping_add(1);
            let claim = |seen| self.tail.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            match if ahead == 0 { claim(position) } else { Err(self.tail.0.load(Ordering::Relaxed)) } {
                Ok(_) => {
                    slot.item.store(item, Ordering::Relaxed);
                    slot.sequence.store(next, Ordering::Release);
                    return true;
                }
                Err(now) => position = now,
            }
        }
    }

    #[inline]
    pub fn pop(&self) -> Option<u64> {
        let mut position = self.head.0.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(position);
            let next = position.wrapping_add(1);
            let ahead = slot.sequence.load(Ordering::Acquire).wrapping_sub(next) as i64;
            if ahead < 0 {
                return None;
            }
            let claim = |seen| self.head.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            match if ahead == 0 { claim(position) } else { Err(self.head.0.load(Ordering::Relaxed)) } {
                Ok(_) => {
                    let item = slot.item.load(Ordering::Relaxed);
                    slot.sequence.store(position + self.slots.len() as u64, Ordering::Release);
                    return Some(item);
                }
                Err(now) => position = now,
            }
        }
    }
}

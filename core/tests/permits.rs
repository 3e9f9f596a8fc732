//! Permits in one thread: limits, over-release, recovery, hostile words.
#![cfg(not(crosslane_loom))]
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use crosslane_core::lock::TableError;
use crosslane_core::lock::permits::{AcquireError, MAX_PERMITS, OverRelease, Permits};
use crosslane_core::prim::AtomicU32 as Word;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};

/// A process of a test: parks do not sleep and say `Expired`; the first `dead` participants are dead.
struct Env {
    index: u32,
    dead: u32,
}

impl Wait for Env {
    type Deadline = ();
    fn never(&self) {}
    fn after(&self, _: Duration) {}
    fn park(&self, _: &Word, _: u32, slice: Slice, (): ()) -> Parked {
        assert_eq!(slice, Slice::Owner);
        Parked::Expired
    }
    fn wake(&self, _: &Word, _: u32) -> u32 {
        0
    }
    fn spins(&self) -> u32 {
        3
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for Env {
    fn me(&self) -> Option<OwnerId> {
        OwnerId::new(self.index, 1)
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        owner.index() < self.dead
    }
}

#[repr(C, align(8))]
struct Memory([AtomicU32; 66]);

impl Memory {
    fn new() -> Self {
        Self([const { AtomicU32::new(u32::MAX) }; 66])
    }

    fn permits(&self, permits: u32) -> Permits<'_> {
        let bytes = NonNull::from(self).cast();
        // SAFETY: atomic words that live as long as `self`, and nobody else uses them yet.
        unsafe { Permits::init(bytes, size_of::<Self>(), permits) }.unwrap()
    }
}

fn env(index: u32) -> Env {
    Env { index, dead: 0 }
}

#[test]
fn as_many_are_out_as_there_are_and_each_comes_back_once() {
    let memory = Memory::new();
    let (permits, a, b) = (memory.permits(3), env(10), env(11));
    let places = [(); 3].map(|()| permits.acquire(&a, ()).unwrap());
    assert_eq!(permits.try_acquire(&b), Err(AcquireError::WouldBlock));
    assert_eq!(permits.acquire(&b, ()), Err(AcquireError::TimedOut));
    assert_eq!(permits.release(places[1], &b), Err(OverRelease));
    assert_eq!(permits.release(places[1], &a), Ok(()));
    assert_eq!(permits.release(places[1], &a), Err(OverRelease));
    assert_eq!(permits.try_acquire(&b), Ok(places[1]));
    assert_eq!((permits.available(), permits.limit()), (0, 3));
}

#[test]
fn a_permit_is_given_back_by_its_guard_or_after_detaching_once() {
    let memory = Memory::new();
    let (permits, a) = (memory.permits(2), env(10));
    let [kept, detached] = [(); 2].map(|()| permits.acquire(&a, ()).unwrap());
    assert_eq!(permits.release_any(&a), Err(OverRelease), "its guard gives it back");
    permits.detach(detached, &a).unwrap();
    assert_eq!(permits.release(detached, &a), Err(OverRelease));
    assert_eq!(permits.release_any(&env(11)), Err(OverRelease));
    assert_eq!(permits.release_any(&a), Ok(()));
    assert_eq!(permits.release_any(&a), Err(OverRelease));
    assert_eq!(permits.release(kept, &a), Ok(()));
    assert_eq!(permits.available(), 2);
}

#[test]
fn the_dead_are_found_among_many_holders() {
    let memory = Memory::new();
    let permits = memory.permits(64);
    for index in 0..64 {
        permits.acquire(&env(index % 62), ()).unwrap();
    }
    let waiter = Env { index: 100, dead: 1 };
    assert!(permits.try_acquire(&waiter).is_ok());
    assert_eq!(permits.recover(OwnerId::new(1, 1).unwrap(), &waiter), 0, "it lives");
    assert_eq!(permits.recover(OwnerId::new(1, 1).unwrap(), &Env { index: 100, dead: 5 }), 2);
    assert_eq!(permits.available(), 3);
}

#[test]
fn what_cannot_be_a_semaphore_is_refused() {
    for permits in [0, MAX_PERMITS + 1] {
        assert_eq!(Permits::layout(permits), Err(TableError::Count { asked: permits, max: MAX_PERMITS }));
    }
    let memory = Memory::new();
    let bytes = NonNull::from(&memory).cast::<u8>();
    // SAFETY: shorter than the memory, which nobody else uses.
    let short = unsafe { Permits::init(bytes, 19, 3) };
    assert!(matches!(short, Err(TableError::TooShort { needed: 20, found: 19 })));
    // SAFETY: one byte in.
    let odd = unsafe { bytes.byte_add(1) };
    // SAFETY: inside the memory, which nobody else uses.
    let odd = unsafe { Permits::init(odd, 24, 3) };
    assert!(matches!(odd, Err(TableError::Misaligned { align: 4 })));
}

#[test]
fn hostile_words_neither_panic_nor_give_permits() {
    let memory = Memory::new();
    let permits = memory.permits(4);
    for hostile in [u32::MAX, 1, 1 << 30, 1 << 31, 4096 << 10] {
        memory.0.iter().for_each(|word| word.store(hostile, Ordering::Relaxed));
        assert_eq!(permits.try_acquire(&env(0)), Err(AcquireError::WouldBlock), "{hostile:#x}");
        assert_eq!(permits.acquire(&env(0), ()), Err(AcquireError::TimedOut), "{hostile:#x}");
        assert_eq!(permits.release_any(&env(0)), Err(OverRelease), "{hostile:#x}");
        assert_eq!(permits.recover(OwnerId::new(0, 1).unwrap(), &Env { index: 1, dead: 1 }), 0, "{hostile:#x}");
    }
}

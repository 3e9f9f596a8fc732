//! Memory that a `fork()` child shares with its parent, and the surroundings of crosslane's rings and locks in it.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_sync::{Deadline, futex, membarrier, spin, waiter};

/// Bytes that both sides map, all zero at first.
pub struct Memory {
    start: NonNull<u8>,
    len_bytes: usize,
}

impl Memory {
    pub fn new(len_bytes: usize) -> Self {
        // SAFETY: a new mapping of our own; populated, so that no measurement counts page faults of its memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { start: NonNull::new(start.cast()).expect("a mapping is never at 0"), len_bytes }
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; borrows of it have ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}

// SAFETY: only an address range; whoever accesses it sees to the order.
unsafe impl Sync for Memory {}

/// A `T` made of atomics in memory that both sides map.
pub struct Shared<T> {
    memory: Memory,
    value: std::marker::PhantomData<T>,
}

impl<T: Default> Shared<T> {
    pub fn new() -> Self {
        let memory = Memory::new(size_of::<T>());
        // SAFETY: large enough, page-aligned, and nobody else's.
        unsafe { memory.start().cast().write(T::default()) };
        Self { memory, value: std::marker::PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: written in `new`, mapped while `self` lives, and made of atomics.
        unsafe { self.memory.start().cast().as_ref() }
    }
}

/// A participant of the domain of one measurement: both sides live until it ends.
pub struct Env {
    me: &'static AtomicU32,
    spins: u32,
}

/// The participants that measurements use, in words as a lease domain keeps them.
static PARTICIPANTS: [AtomicU32; 2] = [AtomicU32::new(1 << 10), AtomicU32::new(1 << 10 | 1)];

impl Env {
    /// Participant 0 or 1.
    pub fn new(side: usize) -> Self {
        Self { me: &PARTICIPANTS[side], spins: spin::budget() }
    }

    /// The same, sleeping at once when there is nothing to do.
    pub fn sleepy(side: usize) -> Self {
        Self { spins: 0, ..Self::new(side) }
    }
}

impl Wait for Env {
    type Deadline = Deadline;

    fn never(&self) -> Deadline {
        Deadline::never()
    }

    fn after(&self, timeout: Duration) -> Deadline {
        Deadline::after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        waiter::park(word, expected, slice, deadline, None)
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        futex::wake(word, count)
    }

    fn spins(&self) -> u32 {
        self.spins
    }

    #[inline]
    fn in_heavy_barriers(&self) -> bool {
        membarrier::is_registered()
    }

    fn heavy_barrier(&self) -> bool {
        membarrier::heavy()
    }
}

impl Liveness for Env {
    #[inline]
    fn me(&self) -> Option<OwnerId> {
        OwnerId::from_word(self.me.load(Ordering::Relaxed))
    }

    fn is_dead(&self, _: OwnerId) -> bool {
        false
    }
}

//! Bare memory that a `fork()` child shares with its parent.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

/// Bytes that both sides map, all zero at first.
pub struct Memory {
    start: NonNull<u8>,
    len_bytes: usize,
}

impl Memory {
    pub fn new(len_bytes: usize) -> Self {
        Self::map(len_bytes, libc::MAP_SHARED)
    }

    /// Bytes of this process alone; none: one.
    pub fn private(len_bytes: usize) -> Self {
        Self::map(len_bytes.max(1), libc::MAP_PRIVATE)
    }

    fn map(len_bytes: usize, sharing: std::ffi::c_int) -> Self {
        // SAFETY: a new mapping of our own; populated, so that no measurement counts page faults of its memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                sharing | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
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

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
        Self::map(len_bytes, libc::MAP_SHARED | libc::MAP_POPULATE)
    }

    /// Bytes of this process alone; none: one.
    pub fn private(len_bytes: usize) -> Self {
        Self::map(len_bytes.max(1), libc::MAP_PRIVATE | libc::MAP_POPULATE)
    }

    /// Where it is populated, no measurement counts page faults of its memory.
    fn map(len_bytes: usize, flags: std::ffi::c_int) -> Self {
        // SAFETY: a new mapping of our own.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_ANONYMOUS,
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

/// Bytes of this process alone, each page of which faults when it is touched first.
pub struct Untouched(Memory);

impl Untouched {
    pub fn new(len_bytes: usize) -> Self {
        Self(Memory::map(len_bytes, libc::MAP_PRIVATE))
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as many bytes, which nobody else refers to.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len_bytes) }
    }
}

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

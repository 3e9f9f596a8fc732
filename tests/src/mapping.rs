//! Memory that forked processes share, and images of it.

use core::ptr::NonNull;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// An anonymous shared mapping, zeroed. Forked children see the same bytes.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
}

impl Mapping {
    /// Maps `len_bytes` bytes (rounded up to whole pages by the kernel).
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn new(len_bytes: usize) -> Self {
        Self::map(len_bytes, libc::MAP_ANONYMOUS, -1)
    }

    /// Maps the first `len_bytes` bytes of `file`, which is made so long if it is shorter: for processes that do not
    /// inherit a mapping.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn of_file(file: &File, len_bytes: usize) -> Self {
        let len = file.metadata().expect("an open file").len().max(len_bytes as u64);
        file.set_len(len).expect("a file that is written to");
        Self::map(len_bytes, 0, file.as_raw_fd())
    }

    fn map(len_bytes: usize, flags: libc::c_int, fd: libc::c_int) -> Self {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe { libc::mmap(core::ptr::null_mut(), len_bytes, prot, flags, fd, 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap of {len_bytes} bytes: {}", io::Error::last_os_error());
        let base = NonNull::new(base.cast()).expect("mmap returned null");
        Self { base, len_bytes }
    }

    /// The first byte; aligned to a page.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length asked for.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The `T` at byte `offset`.
    ///
    /// # Panics
    /// If it does not lie inside, aligned.
    ///
    /// # Safety
    /// All zero bytes, and everything that is ever written here, are a `T`; `T` has only atomics or cells inside.
    #[must_use]
    pub unsafe fn at<T>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.len_bytes && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the mapping, as asserted.
        let place = unsafe { self.base.add(offset) };
        // SAFETY: aligned and inside; valid for as long as the mapping, by the borrow; contents by the caller.
        unsafe { place.cast().as_ref() }
    }

    /// Sets every byte to 0.
    pub fn clear(&self) {
        // SAFETY: the whole mapping is writable; a peer that looks meanwhile is the caller's affair, as with `restore`.
        unsafe { self.base.as_ptr().write_bytes(0, self.len_bytes) };
    }

    /// Overwrites the mapping with `image`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn restore(&self, image: &[u8]) {
        assert_eq!(image.len(), self.len_bytes);
        // SAFETY: lengths are equal, and a private slice cannot overlap the mapping.
        unsafe { self.base.as_ptr().copy_from_nonoverlapping(image.as_ptr(), image.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and borrows of it have ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes) };
    }
}

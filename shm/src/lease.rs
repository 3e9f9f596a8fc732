//! Leases: byte-range locks held by a mapping, which live exactly as long as this address space.
//!
//! # What
//! A lease is a lock on one byte of a domain's file, held by an open file description that nothing but one mapping
//! keeps open. No fd can lose it (`close_range`), a `fork()` child does not inherit it (`MADV_DONTFORK`), `exec` and
//! death end it, and the kernel does that by itself: no timeout, no pid that could be reused, no helper process.
//!
//! # Protocol
//! Take ([`Window`]), inside the process's gate (`sys/gate.rs`):
//! 1. open `/proc/self/fd/N`: an open file description of its own;
//! 2. lock the byte (`F_OFD_SETLK`, does not block); taken: try another, or give up;
//! 3. map one page of the description, without access rights;
//! 4. `MADV_DONTFORK`;
//! 5. close the fd: the mapping alone holds the description.
//!
//! End ([`Lease::end`]): unmap. A fork child, which has no such mapping, must not: its address may be something else's.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | 1 and 2 | nothing |
//! | 2 and 5, or later | the byte free, once the kernel has torn the address space down (microseconds; 12-25 ms at 512 MiB resident) |
//!
//! A `fork()` between 1 and 5 waits at the gate. A `CLONE_VM` child that has not executed its program yet and a core
//! dump being written hold the lease longer: late, never false.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crate::sys::call::{OsError, check};
use crate::sys::file;
use crate::sys::gate::Entered;
use crate::sys::lock::{self, Bytes, Mode};
use crate::sys::slot::Slot;

/// The kernel rounds it up to a page.
const MAPPED_BYTES: usize = 1;

/// The span in which an fd holds what will be a lease; the gate is held all the while.
#[derive(Debug)]
pub(crate) struct Window<'g> {
    file: OwnedFd,
    mode: Mode,
    gate: PhantomData<&'g Entered>,
}

impl<'g> Window<'g> {
    /// Opens a description of its own for the file behind `fd`.
    pub(crate) fn open(_gate: &'g Entered, fd: BorrowedFd<'_>, mode: Mode) -> Result<Self, OsError> {
        Ok(Self { file: file::reopen(fd, mode == Mode::Read)?, mode, gate: PhantomData })
    }

    /// Locks `bytes`; `false` if somebody else has.
    pub(crate) fn try_lock(&self, bytes: Bytes) -> Result<bool, OsError> {
        lock::try_lock(self.file.as_fd(), bytes, self.mode)
    }

    /// Gives `bytes` up again.
    pub(crate) fn unlock(&self, bytes: Bytes) -> Result<(), OsError> {
        lock::unlock(self.file.as_fd(), bytes)
    }

    /// Hands what was locked over to a mapping, and closes the fd.
    pub(crate) fn into_page(self) -> Result<Page, OsError> {
        // SAFETY: a new mapping, without access rights, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), MAPPED_BYTES, libc::PROT_NONE, libc::MAP_SHARED, self.file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(OsError::last("mmap"));
        }
        let page = Page(NonNull::new(at).ok_or(OsError { call: "mmap", errno: libc::EFAULT })?);
        // SAFETY: the page that was just mapped; the kernel rounds its length up.
        match check("madvise(MADV_DONTFORK)", unsafe { libc::madvise(at, MAPPED_BYTES, libc::MADV_DONTFORK) }) {
            Ok(_) => Ok(page),
            Err(error) => {
                page.unmap();
                Err(error)
            }
        }
    }
}

/// The mapped page that holds a lock.
#[derive(Debug)]
pub(crate) struct Page(NonNull<libc::c_void>);

impl Page {
    fn unmap(&self) {
        // SAFETY: the callers unmap each page once, and only in the process that mapped it; nothing points into it.
        unsafe { libc::munmap(self.0.as_ptr(), MAPPED_BYTES) };
    }
}

/// A lock that this address space holds, and the word that says in whose name.
///
/// Its owner calls [`end`](Lease::end): what ends a lease stands inside the gate.
#[derive(Debug)]
pub(crate) struct Lease {
    page: Page,
    slot: Slot,
}

// SAFETY: the page is never accessed, only unmapped, which any thread may do.
unsafe impl Send for Lease {}
// SAFETY: as above.
unsafe impl Sync for Lease {}

impl Lease {
    /// A lease of `page`; `name` is not 0.
    pub(crate) fn new(page: Page, slot: Slot, name: u32) -> Self {
        slot.set(name);
        Self { page, slot }
    }

    /// The word that holds the name, or 0 in a fork child.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Ends the lease; in a fork child, which has none, only forgets it. Called once.
    pub(crate) fn end(&self, gate: &mut Entered) {
        if !self.slot.is_forked() {
            self.page.unmap();
        }
        self.slot.give_back(gate);
    }
}

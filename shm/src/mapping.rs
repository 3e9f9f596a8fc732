//! Shared memory in this address space.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::header::HEADER_BYTES;
use crate::options::MAX_PREFAULT_BYTES;
use crate::slab::notes::Notes;
use crate::sys::call::OsError;
use crate::sys::gate::{self, Gated};

/// Mappings up to this size are always prefaulted: cheaper than the faults of their first use. In bytes.
const ALWAYS_PREFAULT_BYTES: u64 = 64 << 10;

/// A shared mapping of a whole segment; unmapped when dropped.
///
/// Never lent as a slice: peers write it.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
    read_only: bool,
    /// The objects that this process knows here.
    notes: Gated<Notes>,
}

impl Mapping {
    /// Maps `len_bytes` from the start of the file, at least a header's worth.
    pub(crate) fn new(fd: BorrowedFd<'_>, len_bytes: u64, read_only: bool, prefault: bool) -> Result<Self, OsError> {
        let len = usize::try_from(len_bytes.max(HEADER_BYTES.into()));
        let len = len.map_err(|_| OsError { call: "mmap", errno: libc::ENOMEM })?;
        let mut options = MmapOptions::new();
        options.len(len);
        if is_prefaulted(len_bytes, prefault) {
            options.populate();
        }
        let raw = if read_only { options.map_raw_read_only(fd.as_raw_fd()) } else { options.map_raw(fd.as_raw_fd()) };
        let raw = raw.map_err(|error| OsError::from_io("mmap", &error))?;
        Ok(Self { raw, read_only, notes: Gated::new(Notes::new()) })
    }

    /// As [`new`](Self::new), for writing, and with `fork()` children that get nothing of it: there is no moment at which
    /// one could.
    pub(crate) fn not_inherited(fd: BorrowedFd<'_>, len_bytes: u64, prefault: bool) -> Result<Self, OsError> {
        // Forks wait outside until the advice is given.
        let _gate = gate::enter();
        let map = Self::new(fd, len_bytes, false, prefault)?;
        map.raw.advise(Advice::DontFork).map_err(|error| OsError::from_io("madvise(MADV_DONTFORK)", &error))?;
        Ok(map)
    }

    /// The first byte, page-aligned.
    pub(crate) fn start(&self) -> NonNull<u8> {
        // SAFETY: a mapping is never at address 0.
        unsafe { NonNull::new_unchecked(self.raw.as_mut_ptr()) }
    }

    /// The byte at `offset`; `None` if `len_bytes` from there are not inside.
    pub(crate) fn at(&self, offset: u64, len_bytes: u64) -> Option<NonNull<u8>> {
        if offset.checked_add(len_bytes)? > self.len_bytes() {
            return None;
        }
        // SAFETY: `offset` is inside the mapping, or its end, which was just checked.
        Some(unsafe { self.start().add(usize::try_from(offset).ok()?) })
    }

    /// Opens the mapped file anew, where no fd leads to it any more: as `/proc` has it, which needs
    /// `CAP_CHECKPOINT_RESTORE`, or else by the name that it shows. The caller compares the file's key.
    pub(crate) fn reopen(&self) -> Result<OwnedFd, OsError> {
        // SAFETY: takes no memory.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let start = self.start().addr().get();
        let end = start + self.raw.len().next_multiple_of(page);
        let by_range = format!("/proc/self/map_files/{start:x}-{end:x}");
        let open = |path: &Path| {
            std::fs::OpenOptions::new().read(true).write(!self.read_only).custom_flags(libc::O_NONBLOCK).open(path)
        };
        let file = open(by_range.as_ref()).or_else(|_| open(&std::fs::read_link(&by_range)?));
        file.map(OwnedFd::from).map_err(|error| OsError::from_io("open(/proc/self/map_files)", &error))
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.raw.len() as u64
    }

    pub(crate) fn notes(&self) -> &Gated<Notes> {
        &self.notes
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }
}

/// Whether a mapping of `len_bytes` bytes is made with its pages present.
fn is_prefaulted(len_bytes: u64, asked: bool) -> bool {
    len_bytes <= if asked { MAX_PREFAULT_BYTES } else { ALWAYS_PREFAULT_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefaulting_is_capped_and_small_mappings_are_always_whole() {
        assert!(is_prefaulted(MAX_PREFAULT_BYTES, true) && !is_prefaulted(MAX_PREFAULT_BYTES + 1, true));
        assert!(is_prefaulted(64 << 10, false) && !is_prefaulted((64 << 10) + 1, false));
    }
}

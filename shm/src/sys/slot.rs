//! Words that read 0 in a `fork()` child (`MADV_WIPEONFORK`), one for each lease of this process.
//!
//! A lease is not inherited by a fork child, but the memory of whoever holds it is. The holder's id therefore lives
//! in such a word: one load tells whether this is still the process that took the lease.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::call::{OsError, check};
use super::gate::{Entered, Gated};

/// Bytes asked for at a time: a page on most machines, and a divisor of one on the others.
const BLOCK_BYTES: usize = 4096;

static FREE: Gated<Vec<&'static AtomicU32>> = Gated::new(Vec::new());

/// A word of this process that a fork child finds 0. Holds 0 until it is [`set`](Slot::set).
#[derive(Debug)]
pub(crate) struct Slot(&'static AtomicU32);

impl Slot {
    /// Takes a free word; maps more of them when there is none. Blocks are kept for the life of the process.
    pub(crate) fn take(gate: &mut Entered) -> Result<Self, OsError> {
        let free = FREE.get(gate);
        if free.is_empty() {
            let block = map_block()?;
            free.extend(block.iter());
        }
        let word = free.pop().ok_or(OsError { call: "mmap", errno: libc::ENOMEM })?;
        Ok(Self(word))
    }

    /// Makes the slot say `value`, not 0.
    pub(crate) fn set(&self, value: u32) {
        // ORDERING: Relaxed. Only tells this process from a fork child; a handle reaches another thread by that
        // thread's own synchronisation.
        self.0.store(value, Ordering::Relaxed);
    }

    /// The word: what was set, or 0 in a fork child. It stays mapped for ever; it is this slot's until
    /// [`give_back`](Slot::give_back).
    pub(crate) fn word(&self) -> &'static AtomicU32 {
        self.0
    }

    /// Whether this is a fork child of the process that set the slot.
    pub(crate) fn is_forked(&self) -> bool {
        // ORDERING: Relaxed, as in `set`.
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Frees the word for the next taker. Nobody may read it through an old reference afterwards.
    pub(crate) fn give_back(&self, gate: &mut Entered) {
        self.set(0);
        FREE.get(gate).push(self.0);
    }
}

fn map_block() -> Result<&'static [AtomicU32; BLOCK_BYTES / 4], OsError> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new private mapping at an address of the kernel's choice touches no memory of ours.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), BLOCK_BYTES, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(OsError::last("mmap"));
    }
    // SAFETY: the range is the mapping that was just made.
    let advised = check("madvise(MADV_WIPEONFORK)", unsafe { libc::madvise(at, BLOCK_BYTES, libc::MADV_WIPEONFORK) });
    if let Err(error) = advised {
        // SAFETY: the mapping is ours, and nobody knows of it yet.
        unsafe { libc::munmap(at, BLOCK_BYTES) };
        return Err(error);
    }
    let block =
        NonNull::new(at.cast::<[AtomicU32; BLOCK_BYTES / 4]>()).ok_or(OsError { call: "mmap", errno: libc::EFAULT })?;
    // SAFETY: page-aligned, zeroed, `BLOCK_BYTES` long, never unmapped, and atomics may be shared.
    Ok(unsafe { block.as_ref() })
}

//! Byte-range locks that belong to an open file description (`F_OFD_SETLK`), and the bytes that mean something.
//!
//! The bytes lie far behind the end of any file's content that matters; a lock needs no content.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use crosslane_core::owner::MAX_PARTICIPANTS;

use super::call::{OsError, check};

#[cfg(target_env = "gnu")]
type Flock = libc::flock64;
#[cfg(not(target_env = "gnu"))]
type Flock = libc::flock;

/// Offset of participant 0's byte. Below 2^31, so that 32-bit processes can name it too.
const BASE: u32 = 1 << 30;

/// Offset of pass 0's byte, behind all others. Passes end below 2^31 too.
const PASSES: u32 = BASE + (1 << 29);
/// The highest number of a pass.
const MAX_PASS: u32 = (1 << 29) - 1;

/// A range of lockable bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    start: u32,
    len: u32,
}

impl Bytes {
    /// Read-locked by every process that has the segment open read-only.
    pub(crate) const READERS: Self = Self { start: BASE + MAX_PARTICIPANTS, len: 1 };
    /// Held while a name is opened (shared) or taken away (exclusive).
    pub(crate) const TAKEOVER: Self = Self { start: BASE + MAX_PARTICIPANTS + 1, len: 1 };
    /// All participants and the readers' byte: locked anywhere means that somebody has the segment open.
    pub(crate) const EVERY_LEASE: Self = Self { start: BASE, len: MAX_PARTICIPANTS + 1 };

    /// The byte of pass `number`, of which the lowest 29 bits count.
    pub(crate) const fn pass(number: u32) -> Self {
        Self { start: PASSES + (number & MAX_PASS), len: 1 }
    }

    /// The byte of the participant at `index`, 0..1024.
    pub(crate) const fn participant(index: u32) -> Self {
        Self { start: BASE + index, len: 1 }
    }
}

/// Shared or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
}

fn flock(kind: libc::c_int, bytes: Bytes) -> Flock {
    // SAFETY: `flock` is plain data, for which all zero is valid.
    let mut lock: Flock = unsafe { std::mem::zeroed() };
    // The constants are tiny; their C type is `int` and the field's `short`.
    lock.l_type = i16::try_from(kind).unwrap_or_default();
    lock.l_whence = 0;
    lock.l_start = bytes.start.into();
    lock.l_len = bytes.len.into();
    lock
}

const fn kind(mode: Mode) -> libc::c_int {
    match mode {
        Mode::Read => libc::F_RDLCK as libc::c_int,
        Mode::Write => libc::F_WRLCK as libc::c_int,
    }
}

/// Locks `bytes` for the description behind `fd`; `false` if another description is in the way. Does not block.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, bytes: Bytes, mode: Mode) -> Result<bool, OsError> {
    let lock = flock(kind(mode), bytes);
    // SAFETY: `lock` is a valid `flock` for the duration of the call.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match check("fcntl(F_OFD_SETLK)", result) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.errno, libc::EAGAIN | libc::EACCES) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives up what the description behind `fd` holds of `bytes`.
pub(crate) fn unlock(fd: BorrowedFd<'_>, bytes: Bytes) -> Result<(), OsError> {
    let lock = flock(libc::F_UNLCK as libc::c_int, bytes);
    // SAFETY: `lock` is a valid `flock` for the duration of the call.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    check("fcntl(F_OFD_SETLK)", result).map(drop)
}

/// Whether a lock of another description is in the way of locking any of `bytes` in `mode`.
///
/// Asking with [`Mode::Read`] sees exclusive locks only.
pub(crate) fn is_held(fd: BorrowedFd<'_>, bytes: Bytes, mode: Mode) -> Result<bool, OsError> {
    let mut lock = flock(kind(mode), bytes);
    // SAFETY: `lock` is a valid `flock`, writable for the duration of the call.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    check("fcntl(F_OFD_GETLK)", result)?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK as libc::c_int)
}

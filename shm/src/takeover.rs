//! Taking a name away from a segment: from a dead one, to use the name again or to sweep; from one's own, when its owner
//! is dropped. The other half is [`named`](crate::named)'s open.
//!
//! # Protocol
//! Opener (in `named`):
//! 1. open the file; check its header;
//! 2. lock the takeover byte shared, without blocking; held exclusively: wait and start over, until the deadline;
//! 3. take the lease;
//! 4. the name must still lead to this file; else give up what was taken and start over;
//! 5. unlock the byte.
//!
//! Remover:
//! 1. open the file; it must have a header of ours;
//! 2. lock the takeover byte exclusively, without blocking; held: somebody opens or removes it just now;
//! 3. no lease byte may be locked (one question for all of them);
//! 4. the name must still lead to this file;
//! 5. unlink the name;
//! 6. unlock the byte.
//!
//! Owner, dropped ([`unlink_own`]), holding its lease throughout: 1. the name must still lead to its file; 2. unlink.
//!
//! Why nobody is robbed: an opener between its 2 and 5 excludes a remover between its 2 and 6. So either the remover's 3
//! sees the opener's lease, or the opener's 2 waits and its 4 (or its next 1) sees that the name is gone.
//!
//! Why the name cannot come to lead elsewhere between a remover's 4 and 5: only removers and the owner unlink it. Other
//! removers are kept out by the byte. The owner holds its lease while it unlinks, so at the remover's 3 it had finished,
//! and the remover's 4 sees that; nobody can have become an owner since. In the other order, 4 before 3, the owner could
//! unlink and leave between them, and the remover would unlink what somebody has created under the name since. And
//! between the owner's 1 and 2: every remover's 3 sees the owner's lease.
//!
//! Programs that do not keep to the protocol (`rm` and a new file, within microseconds) can break that: as always with
//! files.
//!
//! There is no closing state and no temporary name. The byte is locked through a description that is opened and closed
//! inside the process's gate ([`Takeover`]): a `fork()` does not copy an fd that leads to it. It is unlocked in so many
//! words and not by the close alone, for the children that the gate does not hold off (`vfork`, `posix_spawn`).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | opener 1 and 3 | nothing: the kernel frees the byte |
//! | opener 3 and 5 | nothing: the kernel frees byte and lease |
//! | remover 1 and 5 | nothing: the kernel frees the byte |
//! | remover 5 and 6 | the name gone |

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::header::{self, HEADER_BYTES};
use crate::sys::call::OsError;
use crate::sys::file::{self, FileKey, Stat};
use crate::sys::gate::{self, Entered};
use crate::sys::lock::{self, Bytes, Mode};

/// Between two looks at a takeover byte that somebody else holds.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// What a remover found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vacated {
    /// A dead segment; its name is gone now.
    Removed,
    /// The name led nowhere, or elsewhere in the end.
    Gone,
    /// A dead segment that is to be left alone.
    Left { creator: u32 },
    /// A segment that somebody has open.
    Living { creator: u32 },
    /// Somebody opens or removes it just now.
    Busy { creator: u32 },
    /// No segment of this format.
    Foreign,
}

/// Removes the name `path` if it leads to a segment that nobody has open; with `leave_dead` only looks. Does not block.
pub(crate) fn vacate(path: &CStr, leave_dead: bool) -> Result<Vacated, OsError> {
    let fd = match file::open(path, false) {
        Ok(fd) => std::fs::File::from(fd),
        Err(error) => {
            return match error.errno {
                libc::ENOENT => Ok(Vacated::Gone),
                libc::ELOOP | libc::EISDIR | libc::ENXIO | libc::ENODEV => Ok(Vacated::Foreign),
                _ => Err(error),
            };
        }
    };
    let Stat { key, is_file, .. } = file::stat(fd.as_fd())?;
    let mut bytes = [0; HEADER_BYTES as usize];
    if !is_file || fd.read_exact_at(&mut bytes, 0).is_err() {
        return Ok(Vacated::Foreign);
    }
    let Some(creator) = header::creator_of(&bytes) else { return Ok(Vacated::Foreign) };
    // In this order: the byte is unlocked before the gate is left.
    let gate = gate::enter();
    let Some(_byte) = Takeover::try_lock(&gate, fd.as_fd(), Mode::Write)? else {
        return Ok(Vacated::Busy { creator });
    };
    // The leases first: see the head of this file.
    let is_alive = lock::is_held(fd.as_fd(), Bytes::EVERY_LEASE, Mode::Write)?;
    if !leads_to(path, key)? {
        return Ok(Vacated::Gone);
    }
    if is_alive || leave_dead {
        return Ok(if is_alive { Vacated::Living { creator } } else { Vacated::Left { creator } });
    }
    file::unlink(path)?;
    Ok(Vacated::Removed)
}

/// The takeover byte of a file, locked. To be dropped inside the gate in which it was locked.
#[derive(Debug)]
#[must_use]
pub(crate) struct Takeover(OwnedFd);

impl Takeover {
    /// Locks the byte by a description of its own; `None` if it is held. Does not block.
    pub(crate) fn try_lock(_gate: &Entered, fd: BorrowedFd<'_>, mode: Mode) -> Result<Option<Self>, OsError> {
        let own = file::reopen(fd, mode == Mode::Read)?;
        Ok(lock::try_lock(own.as_fd(), Bytes::TAKEOVER, mode)?.then(|| Self(own)))
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        // A drop cannot report; the close that follows unlocks the byte where nobody has a copy of the fd.
        let _ = lock::unlock(self.0.as_fd(), Bytes::TAKEOVER);
    }
}

/// Removes the name `path` if it still leads to the file `key`, on which the caller holds a lease. Does not block.
pub(crate) fn unlink_own(path: &CStr, key: FileKey) -> Result<(), OsError> {
    if leads_to(path, key)? { file::unlink(path) } else { Ok(()) }
}

/// Whether the name leads to the file `key`.
pub(crate) fn leads_to(path: &CStr, key: FileKey) -> Result<bool, OsError> {
    Ok(file::stat_path(path)?.is_some_and(|stat| stat.key == key))
}

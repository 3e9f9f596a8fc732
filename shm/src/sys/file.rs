//! Files in memory: created without a name, given one, opened, measured and unlinked.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::call::{OsError, check};

/// Reserve at most so much with one call, so that a periodic signal delays a large reservation and does not starve it.
const RESERVE_STEP_BYTES: u64 = 64 << 20;

/// Seals without which a mapping of a memfd could be cut short under us.
pub(crate) const SIZE_SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// Seals under which a memfd's bytes never change again.
pub(crate) const FROZEN_SEALS: i32 = SIZE_SEALS | libc::F_SEAL_WRITE;

/// Which file an fd or a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileKey {
    dev: libc::dev_t,
    ino: libc::ino_t,
}

/// What `fstat` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) key: FileKey,
    pub(crate) len_bytes: u64,
    /// What the file's pages take, which may be less or more than its length.
    pub(crate) allocated_bytes: u64,
    pub(crate) is_file: bool,
}

pub(crate) fn c_path(path: &Path) -> Result<CString, OsError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| OsError { call: "open", errno: libc::EINVAL })
}

fn owned(call: &'static str, fd: libc::c_int) -> Result<OwnedFd, OsError> {
    let fd = check(call, fd)?;
    // SAFETY: the call has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A sealable memory file of length 0.
pub(crate) fn memfd() -> Result<OwnedFd, OsError> {
    let name = c"crosslane";
    // SAFETY: `name` is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    owned("memfd_create", fd)
}

/// A file without a name in `directory`, of length 0.
pub(crate) fn tmpfile(directory: &Path, mode: u32) -> Result<OwnedFd, OsError> {
    let path = c_path(directory)?;
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: `path` is a C string; the mode is the one variadic argument that `O_TMPFILE` asks for.
    let file = owned("open(O_TMPFILE)", unsafe { libc::open(path.as_ptr(), flags, mode) })?;
    // The umask must not take away what the caller asked for by number.
    // SAFETY: takes no memory.
    check("fchmod", unsafe { libc::fchmod(file.as_raw_fd(), mode) })?;
    Ok(file)
}

/// Opens a file that exists, for reading and, unless `read_only`, writing. Follows no symbolic link, waits for no FIFO.
pub(crate) fn open(path: &CStr, read_only: bool) -> Result<OwnedFd, OsError> {
    let access = if read_only { libc::O_RDONLY } else { libc::O_RDWR };
    let flags = access | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: `path` is a C string.
    owned("open", unsafe { libc::open(path.as_ptr(), flags) })
}

/// Opens the file behind `fd` again, with an open file description of its own.
pub(crate) fn reopen(fd: BorrowedFd<'_>, read_only: bool) -> Result<OwnedFd, OsError> {
    let path = ProcPath::new(fd);
    let access = if read_only { libc::O_RDONLY } else { libc::O_RDWR };
    // SAFETY: `path` is a C string.
    owned("open(/proc/self/fd)", unsafe { libc::open(path.as_ptr(), access | libc::O_CLOEXEC) })
}

/// Gives the nameless file behind `fd` the name `path`; fails with `EEXIST` if there is one.
pub(crate) fn link(fd: BorrowedFd<'_>, path: &CStr) -> Result<(), OsError> {
    // SAFETY: both are C strings.
    let direct =
        unsafe { libc::linkat(fd.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), libc::AT_EMPTY_PATH) };
    match check("linkat", direct) {
        // Before Linux 6.10 only for privileged callers; the way through /proc takes longer.
        Err(error) if error.errno == libc::ENOENT => {}
        result => return result.map(drop),
    }
    let from = ProcPath::new(fd);
    // SAFETY: both are C strings.
    let by_proc =
        unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, path.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    check("linkat", by_proc).map(drop)
}

/// Removes the name.
pub(crate) fn unlink(path: &CStr) -> Result<(), OsError> {
    // SAFETY: `path` is a C string.
    check("unlink", unsafe { libc::unlink(path.as_ptr()) }).map(drop)
}

/// How long a file may be that this process makes longer; beyond that the kernel sends it a SIGXFSZ.
pub(crate) fn len_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is writable. After an error, of which none is known, it is unchanged.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    #[allow(clippy::useless_conversion, reason = "it is 32 bits wide on 32-bit targets")]
    let bytes = u64::from(limit.rlim_cur);
    if limit.rlim_cur == libc::RLIM_INFINITY { u64::MAX } else { bytes }
}

/// Makes the file `len_bytes` long with every page allocated, so that no later access is a SIGBUS.
pub(crate) fn reserve(fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), OsError> {
    let mut start = 0;
    while start < len_bytes {
        let step = RESERVE_STEP_BYTES.min(len_bytes - start);
        let too_big = |_| OsError { call: "fallocate", errno: libc::EFBIG };
        let at = libc::off_t::try_from(start).map_err(too_big)?;
        let len = libc::off_t::try_from(step).map_err(too_big)?;
        // SAFETY: takes no memory.
        match check("fallocate", unsafe { libc::fallocate(fd.as_raw_fd(), 0, at, len) }) {
            Ok(_) => start += step,
            Err(e) if e.errno == libc::EINTR => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes the file `len_bytes` long without a page of it.
pub(crate) fn set_len(fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), OsError> {
    let len = libc::off_t::try_from(len_bytes).map_err(|_| OsError { call: "ftruncate", errno: libc::EFBIG })?;
    // SAFETY: takes no memory.
    check("ftruncate", unsafe { libc::ftruncate(fd.as_raw_fd(), len) }).map(drop)
}

/// Forbids every change of a memfd's size, for everybody and for ever.
pub(crate) fn seal_size(fd: BorrowedFd<'_>) -> Result<(), OsError> {
    seal(fd, SIZE_SEALS)
}

/// Adds `seals` to a memfd's, for everybody and for ever; `EBUSY` for the write seal while a writable mapping is left.
pub(crate) fn seal(fd: BorrowedFd<'_>, seals: i32) -> Result<(), OsError> {
    // SAFETY: takes no memory.
    check("fcntl(F_ADD_SEALS)", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// The seals of a file; 0 for files that cannot have any.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> Result<i32, OsError> {
    // SAFETY: takes no memory.
    match check("fcntl(F_GET_SEALS)", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) }) {
        Err(e) if e.errno == libc::EINVAL => Ok(0),
        result => result,
    }
}

pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<Stat, OsError> {
    let mut out = MaybeUninit::uninit();
    // SAFETY: `out` is writable for one `stat`.
    check("fstat", unsafe { libc::fstat(fd.as_raw_fd(), out.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    Ok(decode(unsafe { out.assume_init_ref() }))
}

/// What `path` itself is, no link followed; `None` if there is no such name.
pub(crate) fn stat_path(path: &CStr) -> Result<Option<Stat>, OsError> {
    let mut out = MaybeUninit::uninit();
    // SAFETY: `path` is a C string and `out` is writable for one `stat`.
    match check("lstat", unsafe { libc::lstat(path.as_ptr(), out.as_mut_ptr()) }) {
        Err(e) if e.errno == libc::ENOENT => return Ok(None),
        result => result?,
    };
    // SAFETY: the call succeeded and filled it.
    Ok(Some(decode(unsafe { out.assume_init_ref() })))
}

fn decode(stat: &libc::stat) -> Stat {
    Stat {
        key: FileKey { dev: stat.st_dev, ino: stat.st_ino },
        len_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        // Blocks of 512 bytes, whatever the file system's are.
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        is_file: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
    }
}

/// Bytes that the file system of `fd` has left for this user; `None` if it does not say (a memfd's does not).
pub(crate) fn free_bytes(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut out = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `out` is writable for one `statvfs`.
    if unsafe { libc::fstatvfs(fd.as_raw_fd(), out.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it.
    let vfs = unsafe { out.assume_init() };
    #[allow(clippy::useless_conversion, reason = "the fields are 32 bits wide on 32-bit targets")]
    let (all, free, size) = (u64::from(vfs.f_blocks), u64::from(vfs.f_bavail), u64::from(vfs.f_frsize));
    (all != 0).then(|| free.saturating_mul(size))
}

/// "/proc/self/fd/N" without an allocation.
struct ProcPath([u8; 32]);

impl ProcPath {
    fn new(fd: BorrowedFd<'_>) -> Self {
        const PREFIX: &[u8] = b"/proc/self/fd/";
        let mut path = [0; 32];
        path[..PREFIX.len()].copy_from_slice(PREFIX);
        let (mut number, mut digits, mut len) = (fd.as_raw_fd().unsigned_abs(), [0; 10], 0);
        while len == 0 || number != 0 {
            digits[len] = b'0' + (number % 10).to_le_bytes()[0];
            number /= 10;
            len += 1;
        }
        for (place, digit) in path[PREFIX.len()..].iter_mut().zip(digits[..len].iter().rev()) {
            *place = *digit;
        }
        Self(path)
    }

    fn as_ptr(&self) -> *const libc::c_char {
        self.0.as_ptr().cast()
    }
}

//! System call results: the call's name and the errno.

use std::io;

/// A system call that failed: which, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsError {
    /// The call's name, as in its manual page.
    pub call: &'static str,
    /// The error number.
    pub errno: i32,
}

impl OsError {
    /// The errno that `call` has just left behind.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::from_io(call, &io::Error::last_os_error())
    }

    /// `error` as an error of `call`; errors without a number become `EIO`.
    pub(crate) fn from_io(call: &'static str, error: &io::Error) -> Self {
        Self { call, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }

    /// Whether the caller may not do this.
    pub(crate) fn is_permission(self) -> bool {
        matches!(self.errno, libc::EACCES | libc::EPERM)
    }
}

impl std::fmt::Display for OsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.call, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for OsError {}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> Self {
        Self::from_raw_os_error(error.errno)
    }
}

/// `result` of `call`, which returned -1 on failure.
pub(crate) fn check(call: &'static str, result: libc::c_int) -> Result<libc::c_int, OsError> {
    if result == -1 { Err(OsError::last(call)) } else { Ok(result) }
}

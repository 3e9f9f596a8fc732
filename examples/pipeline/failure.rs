//! What can go wrong, and the exit code for it.

use std::io;
use std::path::PathBuf;

use crosslane_core::end::ClaimError;
use crosslane_core::record;
use crosslane_shm::{CreateError, NameError, OpenError};

/// Why a process of the pipeline ends without its result.
#[derive(Debug)]
pub(crate) enum Failure {
    Differs { words: usize },
    Path { path: PathBuf, error: io::Error },
    Binary { path: PathBuf },
    Unreadable { files: u64 },
    LineTooLong { path: PathBuf, line: u64, len: usize, max: usize },
    Name(NameError),
    Create { what: String, error: CreateError },
    Open { what: String, error: OpenError },
    Claim { what: String, error: ClaimError },
    Push(record::PushError),
    Pop(record::PopError),
    TableFull { words: usize },
    TableBroken(&'static str),
    Role { role: String, code: u8 },
    Start(io::Error),
    Output(io::Error),
    Interrupted,
}

impl Failure {
    /// As listed in `--help`.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Differs { .. } => 1,
            Self::Path { .. } | Self::Binary { .. } | Self::Name(_) => 2,
            Self::Unreadable { .. } => 3,
            Self::LineTooLong { .. } => 4,
            Self::Create { error: CreateError::NameInUse { .. }, .. } => 5,
            Self::Create { error: CreateError::NoSpace { .. } | CreateError::NotEnoughMemory { .. }, .. } => 6,
            Self::TableFull { .. } => 7,
            Self::Push(_) | Self::Pop(_) | Self::Start(_) => 8,
            Self::Create { .. } | Self::Open { .. } | Self::Claim { .. } | Self::TableBroken(_) => 9,
            Self::Role { code, .. } => *code,
            Self::Output(_) => 10,
            Self::Interrupted => 130,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Differs { words } => write!(f, "check: {words} words have another count in one process"),
            Self::Path { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Binary { path } => write!(f, "{}: a binary file (a NUL among its first 8 KiB)", path.display()),
            Self::Unreadable { files } => write!(f, "{files} files could not be read"),
            Self::LineTooLong { path, line, len, max } => write!(
                f,
                "{}:{line}: a line of {len} bytes, where {max} are the most; make the rings larger with --ring-bytes",
                path.display()
            ),
            Self::Name(error) => write!(f, "--name: {error}"),
            Self::Create { what, error: error @ CreateError::NameInUse { .. } } => {
                write!(f, "{what}: {error}; choose another with --name")
            }
            Self::Create { what, error } => write!(f, "{what}: {error}"),
            Self::Open { what, error } => write!(f, "{what}: {error}; is the collector running?"),
            Self::Claim { what, error } => write!(f, "{what}: {error}"),
            Self::Push(error) => write!(f, "{error}"),
            Self::Pop(error) => write!(f, "{error}"),
            Self::TableFull { words } => write!(f, "the table is full at {words} different words"),
            Self::TableBroken(why) => write!(f, "the table: {why}"),
            Self::Role { role, code } => write!(f, "the {role} ended with code {code}"),
            Self::Start(error) => write!(f, "a process of the pipeline could not be started: {error}"),
            Self::Output(error) => write!(f, "the result could not be written: {error}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

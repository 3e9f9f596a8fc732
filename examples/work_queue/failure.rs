//! What can go wrong, and the exit code for it.

use std::io;

use crosslane_core::mpmc::{PopError, PushError};
use crosslane_shm::{CreateError, DomainError, NameError, OpenError, OsError};

/// The exit code of a producer or a worker that came too late.
pub(crate) const CLOSED: u8 = 7;

/// Why a process ends without its result.
#[derive(Debug)]
pub(crate) enum Failure {
    Accounts(Vec<String>),
    Name(NameError),
    Seconds(f64),
    NoQueue { name: String },
    Create { what: String, error: CreateError },
    Open { what: String, error: OpenError },
    Closed { name: String },
    InUse { name: String },
    Remove { what: String, error: OsError },
    Push(PushError),
    Pop(PopError),
    Domain(DomainError),
    Start(io::Error),
    Role { role: &'static str, status: std::process::ExitStatus },
    Interrupted,
}

impl Failure {
    /// As listed in `--help`.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Accounts(_) => 1,
            Self::Name(_) | Self::Seconds(_) => 2,
            Self::NoQueue { .. } => 3,
            Self::Create { .. } | Self::Open { .. } | Self::Remove { .. } => 4,
            Self::Push(_) | Self::Pop(_) | Self::Domain(_) => 5,
            Self::Start(_) | Self::Role { .. } => 6,
            Self::Closed { .. } => CLOSED,
            Self::InUse { .. } => 8,
            Self::Interrupted => 130,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accounts(wrong) => write!(f, "the accounts do not agree: {}", wrong.join("; ")),
            Self::Name(error) => write!(f, "the name: {error}"),
            Self::Seconds(seconds) => write!(f, "--seconds {seconds}: 0 to 3600 are possible"),
            Self::NoQueue { name } => {
                write!(f, "there is no queue of the name {name}; the first `produce` or `work` makes it")
            }
            Self::Create { what, error } => write!(f, "{what} could not be made: {error}"),
            Self::Open { what, error } => write!(f, "{what} could not be opened: {error}"),
            Self::Closed { name } => {
                write!(
                    f,
                    "the queue {name} is closed; once nobody has it open, `remove {name}` makes the name free again"
                )
            }
            Self::InUse { name } => write!(f, "the queue {name} is not removed: somebody has it open"),
            Self::Remove { what, error } => write!(f, "{what} could not be removed: {error}"),
            Self::Push(error) => write!(f, "push: {error}"),
            Self::Pop(error) => write!(f, "take: {error}"),
            Self::Domain(error) => write!(f, "who lives cannot be told: {error}"),
            Self::Start(error) => write!(f, "a process could not be started or stopped: {error}"),
            Self::Role { role, status } => write!(f, "a {role} failed: {status}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        Self::Domain(error)
    }
}

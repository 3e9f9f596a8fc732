//! What can go wrong, for all of the facade.
//!
//! One enum, because what a caller does about an error rarely depends on the call: a child that died is the same news out
//! of `Process::join` as out of a pool. Each variant says which call gives it.

use std::any::type_name;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;

use crosslane_core::end::ClaimError;

use crosslane_core::array::{Contended, OutOfBounds};

use crate::shm::{CreateError, OpenError};
use crate::sync::{AcquireError, BarrierError, LockError, OverRelease};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    Io {
        /// What it was to do, as in "cannot {doing}".
        doing: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The function panicked in the other process.
    Panicked(Box<PanicReport>),
    /// The other process ended before it gave a result: by a signal, or by leaving on its own.
    Died {
        /// The process that ended.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// The function lies in no loaded image, so no other process can find it: it was made at run time.
    NotPortable,
    /// The other process is another build of the program, in which the function cannot be found.
    BuildMismatch {
        /// The build that the other process is.
        found: String,
        /// The build that the function is of.
        expected: String,
    },
    /// A program was started to run a function and did not: its `main` does not begin with [`init`](crate::init) and it has no
    /// hook before that; or it is another program altogether, of [`ProcessBuilder::program`](crate::ProcessBuilder::program).
    /// A process that has gone past its call like that may not start processes itself, or they would do the same without end.
    NotInitialized,
    /// Processes started processes that started processes, deeper than allowed.
    TooDeep {
        /// How deep the new process would lie; the first one has depth 0.
        depth: u32,
        /// The deepest that is allowed.
        limit: u32,
    },
    /// A value could not be encoded.
    Encode {
        /// The value's type.
        type_name: &'static str,
        /// Why not.
        reason: CodecError,
    },
    /// Bytes that came from another process are no value of the type that was expected.
    Decode {
        /// The type that was expected.
        type_name: &'static str,
        /// Why they are not.
        reason: CodecError,
    },
    /// A handle was serialised by something that cannot carry it: handles travel as arguments and results of functions in
    /// other processes, and through a `Connection`.
    HandleOutsideMessage {
        /// The handle's type.
        handle: &'static str,
    },
    /// A handle was put into a queue, from which any process might take it: hand it over as an argument, or through a
    /// `Connection`.
    HandleInQueue {
        /// The handle's type.
        handle: &'static str,
    },
    /// A handle of which there is only one was in something that several processes get a copy of, as a pool's workers do
    /// of its context: hand it over as an item, or as the argument of one call.
    HandleForSeveral {
        /// The handle's type.
        handle: &'static str,
    },
    /// A handle of which there is only one was handed over before, and belongs to the process that got it.
    AlreadySent {
        /// The handle's type.
        handle: &'static str,
    },
    /// An end of a pipe was sent to itself: it receives what is sent there, and so nobody would.
    ThroughItself {
        /// The handle's type.
        handle: &'static str,
    },
    /// A message is longer than the channel takes.
    TooLarge {
        /// The message's length.
        len_bytes: u64,
        /// The longest that the channel takes.
        limit_bytes: u64,
    },
    /// A pool was asked to be what none can be.
    BadPool {
        /// What there was a wrong number of.
        what: &'static str,
        /// How many.
        found: u64,
        /// The least there may be.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The call was taken back, or its pool was ended.
    Cancelled,
    /// The pool takes no more work.
    PoolClosed,
    /// The pool has ended, because its workers do not come up; why the last one did not.
    NoWorkers(Arc<Error>),
    /// A message is longer than the buffer that was given for it. It is still there.
    BufferTooShort {
        /// The message's length.
        needed_bytes: u64,
    },
    /// The time is up. Nothing was consumed.
    TimedOut,
    /// More tasks were said to be done than were got.
    NoTask,
    /// Nothing is there now. Nothing was waited for.
    Empty,
    /// There is no room now. Nothing was waited for.
    Full,
    /// The other side has ended in order, and nothing is left to take; for a sender: nobody will take anything.
    Closed,
    /// The other side has ended in the middle of its work: its process died, or nobody can take what is sent.
    PeerDied,
    /// A limit on open files was met (`RLIMIT_NOFILE`): of this process or of the one that was to get a message's.
    FdLimit,
    /// The other process could not take the arguments or give the result, for a reason that only its own errors know.
    Refused {
        /// The process.
        pid: u32,
        /// Its error, as text.
        message: String,
    },
    /// The other process has ended without a result, and how is not known: somebody else has taken its exit status, by a
    /// `wait` for any child, or by ignoring `SIGCHLD` (before Linux 6.15).
    Vanished {
        /// The process that ended.
        pid: u32,
    },
    /// This process came about by a bare `fork()`, and has no part in what its parent shares: open or receive it anew.
    Forked,
    /// Shared words hold what no process writes that keeps to the protocol.
    Corrupt,
    /// A lock could not be had, or only one whose last holder died. The guard that came with the reason was dropped: the
    /// lock is free, and poisoned if it was held by a process that died.
    Lock(LockError<()>),
    /// A semaphore had no permit.
    Acquire(AcquireError),
    /// A semaphore was given more permits than it takes.
    OverRelease(OverRelease),
    /// A barrier was not passed.
    Barrier(BarrierError),
    /// Others changed a value again and again while this process computed a new one.
    Contended(Contended),
    /// There is no such element of an array.
    OutOfBounds(OutOfBounds),
    /// Parts of an array could not be joined.
    Unsplit(UnsplitReason),
    /// A segment could not be made.
    Create(CreateError),
    /// A segment that came from another process could not be opened.
    Open(OpenError),
}

/// Why a value could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError(pub(crate) Codec);

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Codec {
    Postcard(postcard::Error),
    /// Bytes left over, or too few for whole elements.
    Length {
        len_bytes: usize,
        element_bytes: usize,
    },
    NotUtf8,
    /// What a type says itself.
    Custom(String),
}

/// Why parts could not be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsplitReason {
    /// There are none.
    NoParts,
    /// They are of different arrays.
    OtherArray,
    /// Some were sent to other processes.
    Sent,
    /// Some elements are in none of the parts: these are the first that are missing.
    Missing {
        /// The first.
        start: usize,
        /// Behind the last.
        end: usize,
    },
}

/// A panic in another process.
///
/// Its `Debug`, which `unwrap` and a `main` that returns an error print, leaves the backtrace out.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct PanicReport {
    /// The panic's message; for a payload that is no text, that it is none.
    pub message: String,
    /// File, line and column, as `src/main.rs:3:5`.
    pub location: String,
    /// The thread's name; of a nameless one, `<unnamed>`.
    pub thread: String,
    /// The stack, frame by frame, as [`std::backtrace::Backtrace`] prints it.
    pub backtrace: String,
    /// The process.
    pub pid: u32,
}

impl fmt::Debug for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, location, thread, backtrace: _, pid } = self;
        f.debug_struct("PanicReport")
            .field("message", message)
            .field("location", location)
            .field("thread", thread)
            .field("pid", pid)
            .finish_non_exhaustive()
    }
}

impl Error {
    /// For `map_err`: as [`io`](Self::io), and [`FdLimit`](Self::FdLimit) where a limit on open files was met.
    pub(crate) fn os<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> Self {
        move |source| match source.into() {
            source if is_fd_limit(&source) => Self::FdLimit,
            source => Self::Io { doing, source },
        }
    }

    /// For `map_err`: a value of type `T` that postcard could not write.
    pub(crate) fn encoding<T>() -> impl Fn(postcard::Error) -> Self {
        |error| Self::Encode { type_name: type_name::<T>(), reason: CodecError(Codec::Postcard(error)) }
    }

    /// For `map_err`: bytes that postcard could not read as a `T`.
    pub(crate) fn decoding<T>() -> impl Fn(postcard::Error) -> Self {
        |error| Self::Decode { type_name: type_name::<T>(), reason: CodecError(Codec::Postcard(error)) }
    }

    /// For `map_err`: an end of a ring that was made for this process and cannot be had.
    pub(crate) fn ring(error: ClaimError) -> Self {
        Self::Io { doing: "take the end of a ring", source: io::Error::other(error) }
    }

    /// For `map_err`: an error of the operating system, out of what was to do.
    pub(crate) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Of this process, of the system, or of what may be on its way between processes.
fn is_fd_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Self::Panicked(report) => report.fmt(f),
            Self::Died { pid, status } => write!(f, "process {pid} ended without a result: {status}"),
            Self::NotPortable => f.write_str("the function lies in no loaded image, so no other process has it"),
            Self::BuildMismatch { found, expected } => {
                write!(f, "the other process is build {found}, but the function is of build {expected}")
            }
            Self::NotInitialized => f.write_str(
                "the program that was started to run a function did not: its main must begin with crosslane::init(), and it \
                 must be this program or another copy of it",
            ),
            Self::TooDeep { depth, limit } => write!(f, "process of depth {depth}, where {limit} is the limit"),
            Self::Encode { type_name, reason } => write!(f, "cannot encode a {type_name}: {reason}"),
            Self::Decode { type_name, reason } => write!(f, "cannot decode a {type_name}: {reason}"),
            Self::HandleOutsideMessage { handle } => write!(
                f,
                "a {handle} cannot be serialised by itself: pass it as an argument or result, or send it through a \
                 Connection"
            ),
            Self::HandleInQueue { handle } => write!(
                f,
                "a {handle} cannot be put into a queue: pass it as an argument, or send it through a Connection"
            ),
            Self::HandleForSeveral { handle } => write!(
                f,
                "there is only one of this {handle}, and several processes would get it: hand it over as an item, or as \
                 the argument of one call"
            ),
            Self::AlreadySent { handle } => write!(f, "this {handle} was handed over to another process before"),
            Self::ThroughItself { handle } => write!(f, "this {handle} is what receives what is sent here"),
            Self::TooLarge { len_bytes, limit_bytes } => {
                write!(f, "a message of {len_bytes} bytes, where {limit_bytes} is the limit")
            }
            Self::BadPool { what, found, least, most } => {
                write!(f, "a pool of {found} {what}, where it may be {least} to {most}")
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::PoolClosed => f.write_str("the pool takes no more work"),
            Self::NoWorkers(cause) => write!(f, "the pool's workers do not come up: {cause}"),
            Self::BufferTooShort { needed_bytes } => {
                write!(f, "the message has {needed_bytes} bytes, more than the buffer")
            }
            Self::TimedOut => f.write_str("timed out"),
            Self::NoTask => f.write_str("no task is to be done"),
            Self::Empty => f.write_str("nothing is there"),
            Self::Full => f.write_str("there is no room"),
            Self::Closed => f.write_str("closed"),
            Self::PeerDied => f.write_str("the other side died"),
            Self::FdLimit => f.write_str("more descriptors than a process may have open (RLIMIT_NOFILE)"),
            Self::Refused { pid, message } => write!(f, "process {pid}: {message}"),
            Self::Vanished { pid } => write!(f, "process {pid} ended without a result, and its exit status is lost"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("shared words are corrupt"),
            Self::Lock(error) => error.fmt(f),
            Self::Acquire(error) => error.fmt(f),
            Self::OverRelease(error) => error.fmt(f),
            Self::Barrier(error) => error.fmt(f),
            Self::Contended(error) => error.fmt(f),
            Self::OutOfBounds(error) => error.fmt(f),
            Self::Unsplit(reason) => reason.fmt(f),
            Self::Create(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, location, thread, pid, .. } = self;
        write!(f, "process {pid} panicked at {location}, in thread '{thread}': {message}")
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Codec::Postcard(error) => error.fmt(f),
            Codec::Length { len_bytes, element_bytes } => {
                write!(f, "{len_bytes} bytes, where elements have {element_bytes} each")
            }
            Codec::NotUtf8 => f.write_str("the text is not UTF-8"),
            Codec::Custom(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for UnsplitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoParts => f.write_str("there are no parts to join"),
            Self::OtherArray => f.write_str("the parts are of different arrays"),
            Self::Sent => f.write_str("some of the parts were sent to other processes"),
            Self::Missing { start, end } => write!(f, "elements {start}..{end} are in none of the parts"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Encode { reason, .. } | Self::Decode { reason, .. } => Some(reason),
            Self::NoWorkers(cause) => Some(&**cause),
            Self::Lock(error) => Some(error),
            Self::Acquire(error) => Some(error),
            Self::OverRelease(error) => Some(error),
            Self::Barrier(error) => Some(error),
            Self::Contended(error) => Some(error),
            Self::OutOfBounds(error) => Some(error),
            Self::Unsplit(reason) => Some(reason),
            Self::Create(error) => Some(error),
            Self::Open(error) => Some(error),
            _ => None,
        }
    }
}

impl std::error::Error for CodecError {}
impl std::error::Error for UnsplitReason {}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        Self::Create(error)
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// Drops the guard, if there is one: a lock whose holder died is poisoned then.
impl<G> From<LockError<G>> for Error {
    fn from(error: LockError<G>) -> Self {
        match error.without_guard() {
            LockError::TimedOut(_) => Self::TimedOut,
            LockError::Forked => Self::Forked,
            LockError::Corrupt => Self::Corrupt,
            error => Self::Lock(error),
        }
    }
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::TimedOut => Self::TimedOut,
            AcquireError::Forked => Self::Forked,
            error => Self::Acquire(error),
        }
    }
}

impl From<OverRelease> for Error {
    fn from(error: OverRelease) -> Self {
        Self::OverRelease(error)
    }
}

impl From<BarrierError> for Error {
    fn from(error: BarrierError) -> Self {
        match error {
            BarrierError::TimedOut => Self::TimedOut,
            BarrierError::Forked => Self::Forked,
            BarrierError::Corrupt => Self::Corrupt,
            error => Self::Barrier(error),
        }
    }
}

impl From<Contended> for Error {
    fn from(error: Contended) -> Self {
        Self::Contended(error)
    }
}

impl From<OutOfBounds> for Error {
    fn from(error: OutOfBounds) -> Self {
        Self::OutOfBounds(error)
    }
}

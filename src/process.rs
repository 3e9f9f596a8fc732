//! Processes that run a function: starting them, waiting for them, ending them.
//!
//! | what | file |
//! |---|---|
//! | starting one | `builder.rs` |
//! | functions as addresses that mean the same in another process | `image.rs`, `call.rs` |
//! | the child's side | `child.rs`, `marker.rs`, `constructors.rs` |
//! | its end with its parent | `watch.rs` |
//! | panics | `report.rs` |
//! | how a child ended, and that it leaves nothing | `reap.rs`, `exit.rs` |
//! | who this process is | `tree.rs` |
//!
//! # Waiting for a child
//! Two things are awaited, in any order: the frame with the result, and the end of the process. Whatever has come stays in
//! the handle, so a wait that times out loses nothing, and a frame is taken off the socket while its process is waited for,
//! so a child never waits in vain for somebody to read. A large result travels in memory of its own (`frame.rs`): its
//! child ends whether it is read or not.

mod builder;
mod call;
mod child;
mod constructors;
mod exit;
pub(crate) mod image;
mod marker;
mod reap;
pub(crate) mod report;
mod tree;
mod watch;

use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

pub use builder::ProcessBuilder;
pub use child::init;
pub use exit::at_exit;
pub use tree::{
    ActiveChild, CurrentProcess, ParentProcess, active_children, cpu_count, current_process, parent_process,
};

use self::call::{Failure, Sent, kind};
use self::reap::{Child, End};
use crate::error::{Codec, CodecError, Error, PanicReport, Result};
use crate::frame::{self, Blocking, Received, Receiver};
use crate::wire::{self, Portable};

/// Starts a process that runs `function` with `arguments`, and returns its handle.
///
/// The function is a function, or a closure that captures nothing: what it needs is in its arguments. The child is this
/// program, executed anew: it shares no memory with this process but what is handed to it.
///
/// Blocks until the program is executed, not until the function runs.
///
/// # Errors
/// As [`ProcessBuilder::spawn`].
///
/// # Crash
/// If this process dies, the child is ended within a second, unless it was [detached](Process::detach). If the child dies,
/// [`join`](Process::join) says how.
///
/// # Examples
/// ```
/// let child = crosslane::spawn(|(a, b)| a + b, (1, 2))?;
/// assert_eq!(child.join()?, 3);
/// # Ok::<(), crosslane::Error>(())
/// ```
/// A capture is a compile error, whether it has a size or none:
/// ```compile_fail,E0308
/// let k = 3;
/// crosslane::spawn(|x: u32| k * x, 14);
/// ```
/// ```compile_fail,E0308
/// #[derive(Clone, Copy)]
/// struct Token;
/// let token = Token;
/// crosslane::spawn(move |x: u32| { let _ = token; x }, 14);
/// ```
/// So are arguments that cannot travel:
/// ```compile_fail,E0277
/// crosslane::spawn(|_: std::rc::Rc<u32>| (), std::rc::Rc::new(1));
/// ```
pub fn spawn<A: Portable, R: Portable>(function: fn(A) -> R, arguments: A) -> Result<Process<R>> {
    ProcessBuilder::new().spawn(function, arguments)
}

/// A process that runs a function for this one, and will have a result of type `R`.
///
/// **Dropping the handle kills the process and reaps it**; [`detach`](Self::detach) lets it live on.
///
/// Signals reach exactly this process, never another one that has got its id since. All calls may be made from any thread.
/// A raw `fork()` child of this process has no children: there it gives [`Error::Forked`], and its drop does nothing.
#[derive(Debug)]
#[must_use = "dropping a Process kills it; join it, or detach it"]
pub struct Process<R> {
    child: Arc<Child>,
    socket: UnixStream,
    receiver: Receiver,
    answer: Answer,
    sent: Sent,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    is_detached: bool,
    result: PhantomData<fn() -> R>,
}

/// What the child has answered.
#[derive(Debug)]
enum Answer {
    Awaited,
    Returned(Vec<u8>, Vec<OwnedFd>),
    Panicked(Box<PanicReport>),
    Failed(Failure),
    /// What came was no answer.
    Garbled(Error),
    /// The process was gone before it had one. `true`: and had not even read its call.
    Missing {
        is_unread: bool,
    },
    /// The caller has it.
    Taken,
}

impl<R> Process<R> {
    fn new(
        child: Arc<Child>,
        socket: UnixStream,
        sent: Sent,
        (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
    ) -> Self {
        Self {
            child,
            socket,
            receiver: Receiver::default(),
            answer: Answer::Awaited,
            sent,
            stdout,
            stderr,
            is_detached: false,
            result: PhantomData,
        }
    }

    fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// It has closed its end before its call could be sent.
    fn has_not_taken_its_call(&mut self) {
        self.answer = Answer::Missing { is_unread: true };
    }

    /// Its process id. The kernel may give it to another process once this one was waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.child.name()
    }

    /// Whether it has not ended yet. Does not block.
    ///
    /// It may have returned from its function and still be on its way out.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.child.end().is_none()
    }

    /// How it has ended; `None` while it lives, or if somebody else has taken its status from the kernel (as with
    /// `SIGCHLD` ignored before Linux 6.15). Does not block.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match self.child.end()? {
            End::Known(status) => Some(status),
            End::Unknown => None,
        }
    }

    /// The exit code as Python gives it: 0 after a result, 1 after a panic, what the child has given to
    /// [`std::process::exit`], or `-n` if signal n has ended it. `None` as of [`exit_status`](Self::exit_status).
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        self.exit_status().map(exit::code)
    }

    /// Asks it to end, by `SIGTERM`, which ends it unless it has arranged otherwise. Exit hooks do not run. Its own
    /// children end with it. Does not wait; no effect on a process that has ended.
    ///
    /// # Errors
    /// [`Error::Io`]: it has become another user's. [`Error::Forked`].
    pub fn terminate(&self) -> Result<()> {
        self.child.signal(Signal::TERM)
    }

    /// Ends it, by `SIGKILL`. Does not wait; no effect on a process that has ended.
    ///
    /// # Errors
    /// [`Error::Io`]: it has become another user's. [`Error::Forked`].
    pub fn kill(&self) -> Result<()> {
        self.child.signal(Signal::KILL)
    }

    /// Interrupts it, by `SIGINT`, as Ctrl-C does. Does not wait; no effect on a process that has ended, or that ignores the
    /// signal: what a shell starts in the background does, and its children inherit it.
    ///
    /// # Errors
    /// [`Error::Io`]: it has become another user's. [`Error::Forked`].
    pub fn interrupt(&self) -> Result<()> {
        self.child.signal(Signal::INT)
    }

    /// A descriptor that becomes readable when the process has ended: its pidfd, for `poll` and its like.
    #[must_use]
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    /// The reading end of its standard output, if that is [`piped`](ProcessBuilder::stdout), the first time.
    #[must_use]
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// The reading end of its standard error, if that is [`piped`](ProcessBuilder::stderr), the first time.
    #[must_use]
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    /// Lets it live on without a handle, and even without this process. Its result is thrown away. When it has ended it
    /// is reaped by the next [`spawn`] or [`active_children`].
    pub fn detach(mut self) {
        if self.child.is_ours() {
            // A process that is gone needs no telling.
            let _ = frame::send(self.socket.as_fd(), kind::DETACH, [&[], &[]], &[]);
            reap::detach(Arc::clone(&self.child));
        }
        self.is_detached = true;
    }

    /// Waits until it has ended. Its result stays for [`join`](Self::join).
    ///
    /// # Errors
    /// [`Error::Vanished`], [`Error::Forked`], [`Error::Io`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        // Without a deadline it ends by the process's end only.
        self.settle(None)?;
        self.exit_status().ok_or(Error::Vanished { pid: self.id() })
    }

    /// Waits until it has ended, at most so long; `None`: it has not. Its result stays for [`join`](Self::join).
    ///
    /// # Errors
    /// [`Error::Vanished`], [`Error::Forked`], [`Error::Io`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        if !self.settle(reap::deadline(timeout))? {
            return Ok(None);
        }
        self.exit_status().map(Some).ok_or(Error::Vanished { pid: self.id() })
    }

    /// Waits for the process's end, and takes its answer meanwhile; whether it has ended.
    fn settle(&mut self, deadline: Option<Instant>) -> Result<bool> {
        // The socket is the parent's: what its fork reads there is lost.
        self.child.must_be_ours()?;
        loop {
            self.receive();
            if self.child.end().is_some() {
                // What it has sent at last is there by now.
                self.receive();
                if matches!(self.answer, Answer::Awaited) {
                    // A copy of its end of the socket is still open: perhaps in another child, on its way to its program.
                    self.answer = Answer::Missing { is_unread: reap::is_unread(self.socket.as_fd()) };
                }
                return Ok(true);
            }
            let mut fds =
                [PollFd::from_borrowed_fd(self.child.pidfd(), PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            let awaited = if matches!(self.answer, Answer::Awaited) { 2 } else { 1 };
            if !reap::poll(&mut fds[..awaited], deadline)? {
                return Ok(false);
            }
        }
    }

    /// Takes what is there of the answer. Does not block.
    fn receive(&mut self) {
        if !matches!(self.answer, Answer::Awaited) {
            return;
        }
        self.answer = match self.receiver.receive(self.socket.as_fd(), Blocking::No) {
            Ok(Received::Pending) => return,
            Ok(Received::Frame(frame)) => match frame.kind {
                kind::RETURNED => Answer::Returned(frame.body, frame.fds),
                kind::PANICKED => decoded(&frame.body, |report| Answer::Panicked(Box::new(report))),
                _ => decoded(&frame.body, Answer::Failed),
            },
            Ok(Received::End | Received::Torn) => Answer::Missing { is_unread: false },
            Ok(Received::Unread) => Answer::Missing { is_unread: true },
            Err(error) => Answer::Garbled(error),
        };
    }

    /// Why there is no result, of a process that has ended without an answer.
    fn missing(&self, is_unread: bool) -> Error {
        let pid = self.id();
        match self.exit_status() {
            None => Error::Vanished { pid },
            Some(status) if is_unread && status.signal().is_none() => Error::NotInitialized,
            Some(status) => Error::Died { pid, status },
        }
    }
}

fn decoded<T: serde::de::DeserializeOwned>(body: &[u8], answer: impl FnOnce(T) -> Answer) -> Answer {
    match postcard::from_bytes(body) {
        Ok(value) => answer(value),
        Err(error) => {
            let reason = CodecError(Codec::Postcard(error));
            Answer::Garbled(Error::Decode { type_name: std::any::type_name::<T>(), reason })
        }
    }
}

impl<R: Portable> Process<R> {
    /// Waits until the process has ended, and gives its result.
    ///
    /// # Errors
    /// - [`Error::Panicked`]: the function panicked;
    /// - [`Error::Died`]: the process ended without a result, by a signal or by exiting on its own;
    /// - [`Error::Encode`], [`Error::Decode`], [`Error::Refused`], [`Error::FdLimit`]: the arguments or the result did not
    ///   get through;
    /// - [`Error::BuildMismatch`], [`Error::NotInitialized`]: the program could not run the function;
    /// - [`Error::Closed`]: [`join_timeout`](Self::join_timeout) has given the result already;
    /// - [`Error::Vanished`], [`Error::Forked`], [`Error::Io`].
    pub fn join(mut self) -> Result<R> {
        self.settle(None)?;
        self.take()
    }

    /// Waits until the process has ended, at most so long, and gives its result; `None`: it has not ended, and nothing is
    /// lost.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>> {
        if self.settle(reap::deadline(timeout))? { self.take().map(Some) } else { Ok(None) }
    }

    fn take(&mut self) -> Result<R> {
        match mem::replace(&mut self.answer, Answer::Taken) {
            Answer::Returned(bytes, fds) => wire::unpack(&bytes, fds),
            Answer::Panicked(report) => Err(Error::Panicked(report)),
            Answer::Failed(failure) => Err(self.sent.error(self.id(), failure)),
            Answer::Garbled(error) => Err(error),
            Answer::Missing { is_unread } => {
                self.answer = Answer::Missing { is_unread };
                Err(self.missing(is_unread))
            }
            Answer::Awaited | Answer::Taken => Err(Error::Closed),
        }
    }
}

impl<R> AsFd for Process<R> {
    /// The [sentinel](Self::sentinel).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sentinel()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if self.is_detached || !self.child.is_ours() || self.child.end().is_some() {
            return;
        }
        // A process that cannot be killed is not waited for, but reaped when it ends by itself.
        if self.child.signal(Signal::KILL).is_err() || self.child.wait(None).is_err() {
            reap::detach(Arc::clone(&self.child));
        }
    }
}

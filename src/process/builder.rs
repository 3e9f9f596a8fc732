//! Starting a process.
//!
//! # Protocol
//! 1. the arguments are packed and the function is found in its image: what cannot work fails before anything is started;
//! 2. a socket pair: one end becomes the child's standard input, so that no code runs between `fork` and `exec` and std
//!    may use `posix_spawn` (with 1 GiB resident, a `pre_exec` closure costs 26-39 ms, and its absence 0.6-4 ms);
//! 3. `/proc/self/exe` is executed, with this process's arguments, its environment and the marker: the file that runs here,
//!    even if another one has its path now;
//! 4. a pidfd of the child, which is not yet waited for;
//! 5. one frame: the errand (`child.rs`), the arguments and their descriptors, behind them the family's lease domain, a
//!    pidfd of this process and the standard input.
//!
//! Neither end of the socket nor a pidfd comes to lie at 0, 1 or 2, where a program that has closed its standard streams
//! would write into it.
//!
//! # Crash
//! | killed | others see |
//! |---|---|
//! | parent, before 5 | the child finds the end of the stream and exits |
//! | parent, in 5 | the same: a frame is taken whole or not at all |
//! | child, before it has read 5 | the parent: `Died`; what was to travel comes back |

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;

use super::Process;
use super::call::{Call, Sent, kind};
use super::child::{self, Errand};
use super::image::Program;
use super::marker::{Entry, Marker, VARIABLE};
use super::reap::{self, Child};
use super::tree::{self, Birth};
use crate::error::{Codec, CodecError, Error, Result};
use crate::frame;
use crate::shm::Domain;
use crate::wire::{self, Parcel, Portable};

/// A process that is to be started: its name, its environment, its standard streams.
///
/// Without any of these it is [`spawn`](crate::spawn): the child has this process's environment, working directory, standard
/// output and error, and an empty standard input.
///
/// # Examples
/// ```
/// use crosslane::{ProcessBuilder, current_process};
///
/// let greet = |greeting: String| format!("{greeting} from {} of {}", current_process().name(), std::env::var("TOWN").unwrap());
/// let child = ProcessBuilder::new().name("greeter").env("TOWN", "Ulm").spawn(greet, "hello".to_owned())?;
/// assert_eq!(child.join()?, "hello from greeter of Ulm");
/// # Ok::<(), crosslane::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct ProcessBuilder {
    name: Option<String>,
    program: Option<PathBuf>,
    environment: Vec<Change>,
    directory: Option<PathBuf>,
    stdin: Option<OwnedFd>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

/// A change of the environment.
#[derive(Debug)]
enum Change {
    Clear,
    Set(OsString, OsString),
    Remove(OsString),
}

/// What a child gets to do, apart from the types.
#[derive(Debug)]
struct Order {
    call: Call,
    sent: Sent,
    arguments: Parcel,
}

impl ProcessBuilder {
    /// A process like [`spawn`](crate::spawn)'s.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its name, for [`current_process`](crate::current_process) and the like; the first 15 bytes are what `ps` shows.
    /// Without one: `Process-1`, its first child `Process-1:1`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push(Change::Set(key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.environment.push(Change::Remove(key.as_ref().to_owned()));
        self
    }

    /// Removes all variables from its environment that this process would hand down or that were set before.
    pub fn env_clear(mut self) -> Self {
        self.environment.push(Change::Clear);
        self
    }

    /// Its working directory.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Its standard input: a file, a pipe's reading end, a socket. Without it `/dev/null`, as the terminal is this
    /// process's.
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Its standard output; what is [`Stdio::piped`] is read by [`Process::take_stdout`].
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Its standard error; what is [`Stdio::piped`] is read by [`Process::take_stderr`].
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// The executable file to start: another copy of this program. One that was built otherwise finds no function of
    /// this one's, and `join` says [`BuildMismatch`](Error::BuildMismatch). One that is not of crosslane's runs as itself, with
    /// a socket as its standard input, and when it has ended `join` says [`NotInitialized`](Error::NotInitialized), or
    /// [`Died`](Error::Died) if it had read that.
    pub fn program(mut self, program: impl AsRef<Path>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// Starts the process, which runs `function` with `arguments`.
    ///
    /// Blocks until the program is executed (a third of a millisecond, more with much memory resident), not until the
    /// function runs. Any thread may start any number of processes at once.
    ///
    /// # Errors
    /// Before anything is started: [`Error::Encode`] and the handles' own, [`Error::NotPortable`],
    /// [`Error::NotInitialized`], [`Error::TooDeep`]. From the system: [`Error::FdLimit`], [`Error::Io`],
    /// [`Error::Create`]; [`Error::Vanished`] if the child has ended at once, and somebody else has taken its status.
    /// Nothing is left running then.
    ///
    /// # Crash
    /// If this process dies, the child is ended within a second, unless it was [detached](Process::detach).
    pub fn spawn<A: Portable, R: Portable>(self, function: fn(A) -> R, arguments: A) -> Result<Process<R>> {
        let program = if self.program.is_none() { Program::Same } else { Program::Other };
        let call = Call::new(function, program)?;
        let sent = Sent::new::<A, R>(&call);
        let arguments = wire::pack(&arguments)?;
        self.start(Order { call, sent, arguments })
    }

    fn start<R>(mut self, order: Order) -> Result<Process<R>> {
        reap::reap_detached();
        let birth = Birth::next(self.name.clone())?;
        let family = Domain::family()?;
        let parent = reap::own_pidfd()?;
        let (ours, theirs) = socket_pair()?;
        let entry = if self.program.is_some() { Entry::Any } else { child::entry()? };
        let mut command = self.command(entry, theirs)?;
        let mut started = command.spawn().map_err(Error::os("start a process"))?;
        // The command holds the child's end of the socket, and its end must be seen.
        drop(command);
        let child = match Child::new(started.id(), birth.name.clone()) {
            Ok(child) => Arc::new(child),
            Err(error) => {
                // This frees a descriptor, and tells a child of this program to end.
                drop(ours);
                end(started.id());
                return Err(error);
            }
        };
        reap::register(&child);
        let mut process =
            Process::new(Arc::clone(&child), ours, order.sent, (started.stdout.take(), started.stderr.take()));
        let (has_stdin, spins) = (self.stdin.is_some(), child::known_spins());
        let errand = Errand { call: order.call, birth, has_stdin, spins };
        let first = [family.as_fd(), parent.as_fd()];
        let stdin = self.stdin.as_ref().map(AsFd::as_fd);
        let fds: Vec<_> = first.into_iter().chain(stdin).chain(order.arguments.fds.iter().map(AsFd::as_fd)).collect();
        if !send(process.socket(), &errand, &order.arguments.bytes, &fds)? {
            process.has_not_taken_its_call();
        }
        child.keep(order.arguments.sent());
        Ok(process)
    }

    /// The program, to be executed.
    fn command(&mut self, entry: Entry, socket: OwnedFd) -> Result<Command> {
        let stat = rustix::fs::fstat(&socket).map_err(Error::os("look at a socket"))?;
        let marker = Marker { entry, inode: stat.st_ino, depth: tree::depth() + 1 };
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let mut command = Command::new(self.program.as_deref().unwrap_or(Path::new("/proc/self/exe")));
        command.arg0(name).args(arguments).stdin(socket);
        for change in &self.environment {
            match change {
                Change::Clear => command.env_clear(),
                Change::Set(key, value) => command.env(key, value),
                Change::Remove(key) => command.env_remove(key),
            };
        }
        command.env(VARIABLE, marker.value());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(stdout) = self.stdout.take() {
            command.stdout(stdout);
        }
        if let Some(stderr) = self.stderr.take() {
            command.stderr(stderr);
        }
        Ok(command)
    }
}

/// Ends a process that was started and could not be kept. By a pidfd: its id may be another process's by now.
fn end(pid: u32) {
    if let Ok(child) = Child::new(pid, String::new()) {
        let _ = child.signal(Signal::KILL);
        let _ = child.wait(None);
    }
}

fn socket_pair() -> Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::os("make a socket pair"))?;
    Ok((reap::above_stdio(ours.into())?.into(), reap::above_stdio(theirs.into())?))
}

/// Step 5; whether the child was there to get it.
fn send(socket: &UnixStream, errand: &Errand, arguments: &[u8], fds: &[BorrowedFd<'_>]) -> Result<bool> {
    let errand = postcard::to_extend(errand, Vec::new())
        .map_err(|error| Error::Encode { type_name: "Errand", reason: CodecError(Codec::Postcard(error)) })?;
    match frame::send(socket.as_fd(), kind::CALL, [&errand, arguments], fds) {
        // It has died already: whoever joins it hears how.
        Err(Error::Io { source, .. }) if frame::is_gone(&source) => Ok(false),
        sent => sent.map(|()| true),
    }
}

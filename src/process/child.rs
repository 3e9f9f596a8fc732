//! The child's side: how a program that was started anew becomes the process that runs a function.
//!
//! # Start
//! The child is the program itself, executed again. It takes over in one of two places:
//! - in [`init`], if the parent has called it too: `main` runs up to that line, and the standard library is up;
//! - before `main`, in a constructor of this file (`.init_array`, glibc only): for programs whose `main` is nobody's to
//!   change, as of tests and doctests. Nothing of `main` runs. What std does on the way to it is done here: `SIGPIPE` is
//!   ignored, and standard streams that are closed are opened on `/dev/null`. The message of a stack overflow is missing:
//!   the process dies by `SIGSEGV`.
//!
//! # Protocol
//! 1. the marker in the environment is for this process (`marker.rs`), else the program goes on as what it is;
//! 2. standard input, which is the control socket, moves to a descriptor of its own that no further program inherits;
//! 3. the first frame is received: the function, the arguments, and beside them the family's lease domain and the parent's
//!    pidfd. End of the stream: the parent is dead, exit;
//! 4. the thread that watches the parent starts (`watch.rs`);
//! 5. the function runs; its result, its panic or the failure to decode or encode is sent;
//! 6. exit hooks, standard output, exit: 0 after a result, 1 else.
//!
//! # Crash
//! The parent sees the end of the process before, between or behind its frames, and its status.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::hint;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crosslane_shm::Domain;
use crosslane_sync::spin;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::call::{Call, Failure, kind};
use super::constructors::{self, Arguments, Constructor};
use super::marker::{self, Entry, Marker};
use super::tree::{self, Birth};
use super::{exit, image, report, watch};
use crate::error::{Error, PanicReport, Result};
use crate::frame::{self, Blocking, Received, Receiver};
use crate::wire::Parcel;

/// What a child is told, in front of the arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    pub(crate) call: Call,
    pub(crate) birth: Birth,
    /// Whether a descriptor for the standard input is among the first.
    pub(crate) has_stdin: bool,
    /// What the parent has measured of how long to spin.
    pub(crate) spins: Option<(u32, u32)>,
}

/// What this process has measured of how long to spin, for a child, which inherits the CPUs of the thread that starts it:
/// `None` if nothing was measured, or not for these CPUs.
pub(crate) fn known_spins() -> Option<(u32, u32)> {
    let is_of = |cpus: u32| rustix::thread::sched_getaffinity(None).is_ok_and(|allowed| allowed.count() == cpus);
    spin::known().filter(|(_, cpus)| is_of(*cpus))
}

static INIT_WAS_CALLED: AtomicBool = AtomicBool::new(false);
/// The control socket of a child.
static SOCKET: OnceLock<UnixStream> = OnceLock::new();
/// Held while a frame is sent: where panics abort, any thread may have one to report.
static SENDING: Mutex<()> = Mutex::new(());

/// Makes this program able to run functions for other processes: to be called first in `main`.
///
/// In a process that was started for a function this runs it and does not return. Anywhere else it returns at once.
///
/// With glibc it may be left out: children then start before `main`. It is worth its line all the same: `main` stays in
/// command of what happens before, and the child has all of the standard library (the message of a stack overflow, the
/// name of the main thread). Where there is no such hook, [`spawn`](crate::spawn) gives
/// [`NotInitialized`](crate::Error::NotInitialized) without it. Tests and libraries do not call it.
///
/// # Examples
/// ```
/// fn main() -> Result<(), crosslane::Error> {
///     crosslane::init();
///     let child = crosslane::spawn(|n: u64| n * n, 12)?;
///     assert_eq!(child.join()?, 144);
///     Ok(())
/// }
/// ```
pub fn init() {
    // Another thread's call comes too late to be first in `main`, and must not decide for it.
    if rustix::thread::gettid() == rustix::process::getpid() {
        INIT_WAS_CALLED.store(true, Ordering::Relaxed);
    }
    if !tree::is_child() && Marker::of_this_process().is_some_and(|it| it.entry != Entry::Hook && it.is_for_us()) {
        run();
    }
}

/// Where the children of this process take over.
///
/// # Errors
/// [`Error::NotInitialized`]: nowhere, or this process is itself a child that did not. [`Error::Io`]: the program has
/// rights that its caller lacks, so its children would believe no marker.
pub(crate) fn entry() -> Result<Entry> {
    // Keeps the hook in every program that gets here.
    hint::black_box(&HOOK);
    if !tree::is_child() && Marker::of_this_process().is_some_and(Marker::is_for_us) {
        return Err(Error::NotInitialized);
    }
    if marker::is_privileged() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        return Err(Error::Io { doing: "start a process from a set-user-id program", source });
    }
    if INIT_WAS_CALLED.load(Ordering::Relaxed) {
        return Ok(Entry::Init);
    }
    // Without a dynamic section the constructors behind the hook cannot be found.
    let has_hook = cfg!(target_env = "gnu") && image::main().dynamic.is_some();
    if has_hook { Ok(Entry::Hook) } else { Err(Error::NotInitialized) }
}

#[used]
#[cfg_attr(target_env = "gnu", unsafe(link_section = ".init_array"))]
static HOOK: Constructor = hook;

unsafe extern "C" fn hook(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    if !Marker::of_this_process().is_some_and(|it| it.entry != Entry::Init && it.is_for_us()) {
        return;
    }
    // SAFETY: this is the entry `HOOK`, and `run` does not return.
    unsafe { constructors::run_behind(&HOOK, Arguments { argc, argv, envp }) };
    // SAFETY: an action that is no function; no thread of ours runs.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    open_closed(io::stdout().as_fd());
    open_closed(io::stderr().as_fd());
    run()
}

/// Opens `/dev/null` in place of a closed standard stream, as std does before `main`.
fn open_closed(stream: BorrowedFd<'_>) {
    if rustix::io::fcntl_getfd(stream) == Err(Errno::BADF)
        && let Ok(null) = File::options().read(true).write(true).open("/dev/null")
    {
        // The lowest free descriptor: those below are open.
        let _ = std::os::fd::IntoRawFd::into_raw_fd(null);
    }
}

/// Steps 2 to 6.
fn run() -> ! {
    let Ok(socket) = take_socket() else { exit::at_once() };
    let socket = SOCKET.get_or_init(|| socket);
    report::install(send_report);
    let code = match serve(socket) {
        Ok(()) => 0,
        Err(()) => exit::FAILURE,
    };
    exit::finish(code)
}

fn take_socket() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

/// Steps 3 to 5; `Err`: there was no result.
fn serve(socket: &'static UnixStream) -> Result<(), ()> {
    let answer = match Receiver::default().receive(socket.as_fd(), Blocking::Yes) {
        Ok(Received::Frame(frame)) if frame.kind == kind::CALL => answer(socket, &frame.body, frame.fds),
        Ok(_) => return Err(()),
        Err(error) => Err(error.into()),
    };
    let sent = match answer {
        Ok(parcel) => send_result(socket, parcel),
        Err(failure) => Err(failure),
    };
    sent.map_err(|failure| {
        if let Some(bytes) = encoded(&failure) {
            send(kind::FAILED, &bytes);
        }
    })
}

/// Runs the call that `body` is.
fn answer(socket: &'static UnixStream, body: &[u8], fds: Vec<OwnedFd>) -> Result<Parcel, Failure> {
    // What another version has written can be anything.
    let mismatch = || Failure::Mismatch(image::main().id());
    let (errand, args) = postcard::take_from_bytes::<Errand>(body).map_err(|_| mismatch())?;
    let mut fds = fds.into_iter();
    let (Some(family), Some(parent)) = (fds.next(), fds.next()) else { return Err(mismatch()) };
    if errand.has_stdin {
        let stdin = fds.next().ok_or_else(mismatch)?;
        rustix::stdio::dup2_stdin(stdin).map_err(Error::os("give the child its standard input"))?;
    }
    let parent = Arc::new(parent);
    name_process(&errand.birth.name);
    errand.birth.become_it(Arc::clone(&parent));
    Domain::expect_family(family);
    watch::start(socket, parent)?;
    errand.spins.into_iter().for_each(spin::adopt);
    let fds = fds.collect();
    match panic::catch_unwind(AssertUnwindSafe(|| errand.call.run(args, fds))) {
        Ok(answer) => answer,
        Err(payload) => {
            send_report(&report::caught(&*payload));
            // Its drop may panic again, or wait for ever.
            std::mem::forget(payload);
            exit::finish(exit::FAILURE)
        }
    }
}

/// What `ps` shows; the kernel has called it `exe`.
fn name_process(name: &str) {
    const LIMIT_BYTES: usize = 15;
    let shown: Vec<u8> = name.bytes().take_while(|byte| *byte != 0).take(LIMIT_BYTES).collect();
    if let Ok(shown) = std::ffi::CString::new(shown) {
        let _ = rustix::thread::set_name(&shown);
    }
}

fn send_result(socket: &UnixStream, parcel: Parcel) -> Result<(), Failure> {
    let fds: Vec<_> = parcel.fds.iter().map(AsFd::as_fd).collect();
    let _sending = SENDING.lock().unwrap_or_else(PoisonError::into_inner);
    match frame::send(socket.as_fd(), kind::RETURNED, [&parcel.bytes, &[]], &fds) {
        Ok(()) => {
            // This process ends: nobody takes anything back.
            let _ = parcel.sent();
            Ok(())
        }
        // The parent does not want it: it has detached this process.
        Err(Error::Io { source, .. }) if frame::is_gone(&source) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn send_report(report: &PanicReport) {
    if let Some(bytes) = encoded(report) {
        send(kind::PANICKED, &bytes);
    }
}

/// Sends to the parent; whether it is there to read is not this process's concern.
fn send(kind: u8, bytes: &[u8]) {
    if let Some(socket) = SOCKET.get() {
        let _sending = SENDING.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = frame::send(socket.as_fd(), kind, [bytes, &[]], &[]);
    }
}

fn encoded<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    postcard::to_extend(value, Vec::new()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_knows_what_its_parent_has_measured() {
        let pauses = spin::budget();
        let process = crate::spawn(|()| spin::known(), ()).unwrap();
        let known = process.join().unwrap();
        assert_eq!(known, known_spins());
        // With a quota there are fewer CPUs than it may use, and it measures for itself.
        let is_bounded = rustix::thread::sched_getaffinity(None).unwrap().count() != spin::cpus();
        assert_eq!(known, (!is_bounded).then(|| (pauses, spin::cpus())));
    }
}

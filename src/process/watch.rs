//! A child ends with its parent: a thread of the child's sees to it.
//!
//! # Protocol
//! The thread sleeps until the control socket or the parent's pidfd has news:
//! 1. on the socket a `DETACH` frame: the child is on its own, and the thread ends;
//! 2. the socket's other end is closed: the parent has ended, or has become another program by `exec`: the child ends;
//! 3. the parent has ended, says the pidfd, and nothing is to be read: the child ends. This is for a socket whose other
//!    end lives on in a process that was forked from the parent;
//! 4. anything else (the program has closed these descriptors, as daemons do): nothing can be watched; the thread ends.
//!
//! A program that is allowed fewer descriptors than two may not poll them (`EINVAL`): the socket alone is read then, which 3 misses.
//!
//! 1 comes before 2 and 3: what the parent has sent is there even if it died right behind it.
//!
//! `PR_SET_PDEATHSIG` is no way: it fires when the *thread* that has started the child ends.
//!
//! # Crash
//! The child is ended without its exit hooks and without regard for what other threads hold, as by `SIGKILL`: who shares
//! memory with it recovers as from that.
//!
//! # Cost
//! Every child pays for the thread, and most children are short. So it is a bare one of the C library's, which never
//! allocates (the first allocation of a thread makes an arena for it) and has none of std's thread handle, name and signal
//! stack: 25 us instead of 100. All signals are blocked in it: they are for the function's threads.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags};

use super::call::kind;
use super::{exit, reap};
use crate::error::{Error, Result};
use crate::frame::{Blocking, Received, Receiver};

/// The thread calls nothing that needs more.
const STACK_BYTES: usize = 64 * 1024;

/// What the thread watches.
#[derive(Debug)]
struct Watched {
    socket: &'static UnixStream,
    parent: Arc<OwnedFd>,
}

/// Set before the thread starts; a process has at most one.
static WATCHED: OnceLock<Watched> = OnceLock::new();

/// Starts the thread.
///
/// # Errors
/// [`Error::Io`]: no thread can be had.
pub(crate) fn start(socket: &'static UnixStream, parent: Arc<OwnedFd>) -> Result<()> {
    WATCHED.get_or_init(|| Watched { socket, parent });
    let mask = block_signals();
    let started = match start_with(Some(STACK_BYTES)) {
        // Thread-local variables of the program lie on the stack, and may need more.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => start_with(None),
        started => started,
    };
    restore_signals(&mask);
    started.map_err(Error::io("start the thread that watches the parent"))
}

fn start_with(stack_bytes: Option<usize>) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: writes the attributes, and never fails on Linux.
    unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    if let Some(bytes) = stack_bytes {
        // SAFETY: initialised above. A length that the C library refuses leaves its own.
        unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), bytes) };
    }
    // SAFETY: as above; a constant that is allowed.
    unsafe { libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED) };
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the function takes no argument and touches statics only.
    let errno = unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), watch, std::ptr::null_mut()) };
    // SAFETY: initialised above, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Blocks all signals for this thread, and so for the ones that it starts; returns what was blocked before.
fn block_signals() -> libc::sigset_t {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: writes the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: two sets, the first of which was filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    // SAFETY: written, or all zero, which is the empty set.
    unsafe { before.assume_init() }
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: a set that was taken from this thread.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// The thread.
extern "C" fn watch(_: *mut c_void) -> *mut c_void {
    let _ = rustix::thread::set_name(c"crosslane-watch");
    if WATCHED.get().is_some_and(|watched| is_orphaned(watched.socket, &watched.parent)) {
        exit::at_once();
    }
    std::ptr::null_mut()
}

/// Waits until this process is to end, or is on its own.
fn is_orphaned(socket: &UnixStream, parent: &OwnedFd) -> bool {
    let mut receiver = Receiver::default();
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(parent, PollFlags::IN)];
        let blocking = if reap::poll(&mut fds, None).is_ok() { Blocking::No } else { Blocking::Yes };
        let has_parent_ended = fds[1].revents().contains(PollFlags::IN);
        match receiver.receive(socket.as_fd(), blocking) {
            Ok(Received::Pending) if has_parent_ended => return true,
            Ok(Received::Pending) if fds.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) => return false,
            Ok(Received::Pending) => {}
            Ok(Received::Frame(frame)) if frame.kind == kind::DETACH => return false,
            Ok(Received::Frame(_)) => {}
            Ok(Received::End | Received::Torn | Received::Unread) => return true,
            Err(_) => return false,
        }
    }
}

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
//! 1 comes before 2 and 3: what the parent has sent is there even if it died right behind it.
//!
//! `PR_SET_PDEATHSIG` is no way: it fires when the *thread* that has started the child ends.
//!
//! # Crash
//! The child is ended without its exit hooks and without regard for what other threads hold, as by `SIGKILL`: who shares
//! memory with it recovers as from that.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags};

use super::call::kind;
use super::{exit, reap};
use crate::error::{Error, Result};
use crate::frame::{Blocking, Received, Receiver};

/// The thread calls nothing that needs more.
const STACK_BYTES: usize = 64 * 1024;

/// Starts the thread.
///
/// # Errors
/// [`Error::Io`]: no thread can be had.
pub(crate) fn start(socket: &'static UnixStream, parent: Arc<OwnedFd>) -> Result<()> {
    let thread = thread::Builder::new().name("crosslane-watch".to_owned()).stack_size(STACK_BYTES);
    let started = thread.spawn(move || {
        if is_orphaned(socket, &parent) {
            exit::at_once();
        }
    });
    started.map(drop).map_err(Error::io("start the thread that watches the parent"))
}

/// Waits until this process is to end, or is on its own.
fn is_orphaned(socket: &UnixStream, parent: &OwnedFd) -> bool {
    let mut receiver = Receiver::default();
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(parent, PollFlags::IN)];
        if reap::poll(&mut fds, None).is_err() {
            return false;
        }
        let has_parent_ended = fds[1].revents().contains(PollFlags::IN);
        match receiver.receive(socket.as_fd(), Blocking::No) {
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

//! The descriptors that travel beside pieces of work and their answers, over a pair of sockets.
//!
//! # Protocol
//! 1. The sender puts them into one frame, which goes whole or not at all.
//! 2. When it has gone, it writes the piece into the ring; the last head says how many there are. So who has read that
//!    finds them in the socket, and never waits for them.
//!
//! The pool does not wait either, as it has its mutex: if the socket is full, the piece stays where it is until the worker has
//! taken some frames, which it says by the bell. A worker waits until the pool has taken some, which it does with each answer.
//! However many descriptors a frame has, it is small (`frame.rs`), so what waits never waits for itself.
//!
//! If they cannot be sent, the head says that instead (`is_torn`). What a job is, though, is told once: a worker that did not get
//! the descriptors of a job's context, or could not use them (`Context::decode`), says so with its answers (`lacks_job`), and is
//! told of the job again with the next piece that is sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::lane::Head;
use crate::frame::{self, Blocking, Received, Receiver};

/// Sends `fds` if they have not gone, and notes it in `head`; `false` if the socket is full.
pub(super) fn send_on(socket: BorrowedFd<'_>, fds: &[impl AsFd], head: &mut Head, blocking: Blocking) -> bool {
    if fds.is_empty() || head.fds > 0 || head.is_torn {
        return true;
    }
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    match (frame::send_fds(socket, &fds, blocking), u32::try_from(fds.len())) {
        (Ok(false), _) => return false,
        (Ok(true), Ok(count)) => head.fds = count,
        _ => head.is_torn = true,
    }
    true
}

/// What came of the descriptors that a head tells of.
pub(super) enum Taken {
    All(Vec<OwnedFd>),
    /// They are lost, for want of room here or there. The next ones are not concerned.
    Torn,
    /// They are not there: the other side does not keep to the protocol, or is gone.
    Missing,
}

/// Takes the descriptors that `head` tells of. Does not wait.
pub(super) fn take(receiver: &mut Receiver, socket: BorrowedFd<'_>, head: &Head) -> Taken {
    if head.is_torn {
        return Taken::Torn;
    }
    if head.fds == 0 {
        return Taken::All(Vec::new());
    }
    match receiver.receive(socket, Blocking::No) {
        Ok(Received::Frame(frame)) if frame.fds.len() == head.fds as usize => Taken::All(frame.fds),
        Err(crate::Error::FdLimit) => Taken::Torn,
        _ => Taken::Missing,
    }
}

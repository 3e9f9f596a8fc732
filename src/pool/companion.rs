//! The descriptors that travel beside pieces of work and their answers, over a pair of sockets.
//!
//! # Protocol
//! 1. The sender puts them into frames of at most 253, each of which goes whole or not at all.
//! 2. When all have gone, it writes the piece into the ring; the last head says how many there are. So who has read that
//!    finds them in the socket, and never waits for one.
//!
//! The pool does not wait either, as it has its mutex: if the socket is full, the piece stays where it is until the worker has
//! taken some, which it says by the bell. A worker waits until the pool has taken some, which it does with each answer.
//!
//! If some cannot be sent, the head says that too (`is_torn`), and how many were: the receiver takes those and drops them, and
//! the next piece finds its own. What a job is, though, is told once: a worker that did not get all descriptors of a job's
//! context, or could not use them (`Context::decode`), says so with its answers (`lacks_job`), and is told of the job again with
//! the next piece that is sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::lane::Head;
use crate::frame::{self, Blocking, FDS_AT_ONCE, Received, Receiver};

/// Sends those of `fds` that have not gone, and notes them in `head`; `false` if the socket is full.
pub(super) fn send_on(socket: BorrowedFd<'_>, fds: &[impl AsFd], head: &mut Head, blocking: Blocking) -> bool {
    while let Some(rest) = fds.get(head.fds as usize..).filter(|rest| !rest.is_empty() && !head.is_torn) {
        let part: Vec<_> = rest.iter().take(FDS_AT_ONCE).map(AsFd::as_fd).collect();
        match frame::send_fds(socket, &part, blocking) {
            Ok(true) => head.fds = head.fds.saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX)),
            Ok(false) => return false,
            Err(_) => head.is_torn = true,
        }
    }
    true
}

/// What came of the descriptors that a head tells of.
pub(super) enum Taken {
    All(Vec<OwnedFd>),
    /// Some are lost, for want of room here or there. The next ones are not concerned.
    Torn,
    /// They are not there: the other side does not keep to the protocol, or is gone.
    Missing,
}

/// Takes the descriptors that `head` tells of. Does not wait.
pub(super) fn take(receiver: &mut Receiver, socket: BorrowedFd<'_>, head: &Head) -> Taken {
    let (mut fds, mut count, mut is_torn) = (Vec::new(), 0, head.is_torn);
    while count < head.fds as usize {
        count += FDS_AT_ONCE.min(head.fds as usize - count);
        match receiver.receive(socket, Blocking::No) {
            Ok(Received::Frame(frame)) => fds.extend(frame.fds),
            Err(crate::Error::FdLimit) => is_torn = true,
            _ => return Taken::Missing,
        }
    }
    if is_torn { Taken::Torn } else { Taken::All(fds) }
}

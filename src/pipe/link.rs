//! The socket beside a pipe's rings: for descriptors, for ringing whoever waits for several things, and its end is a sign
//! that the peer is gone.
//!
//! # Protocol
//! Frames (`frame.rs`) of two kinds. Only the sending half writes, and only the receiving half reads: from the moment in which
//! it is being handed over what comes is for whoever gets it, also while a thread here still [waits](crate::wait()) for it.
//! - `DESCRIPTORS`, with the message's tag: sent when the ring has room for the message and before that is committed, so who
//!   reads a message with a tag finds its descriptors here. Those of a message that never came (its sender was killed, or
//!   could not send all of them) have a tag that no message has, and are dropped when a later one is looked for.
//! - `BELL`: look again.
//!
//! What was received and is not asked for yet stands in the inbox, and travels with the receiving half if that is handed over.
//!
//! The halves of an end may go to different processes. Each then has a socket of this side, and the other side sees its end
//! when both are gone; that one of them was killed, a [wait](crate::wait()) over there finds when its slice ends.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | descriptors and commit | descriptors that nobody asks for, and the end of the socket |

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crosslane_sync::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::frame::{self, Blocking, Received};
use crate::shm::Bell;

const DESCRIPTORS: u8 = 1;
const BELL: u8 = 2;
/// The longest sleep for room in the socket before the reader is looked at: as long as anybody sleeps behind another process.
const ROOM_SLICE: Duration = Duration::from_millis(10);

/// This side's socket. Closed when both halves of the end have been handed over.
pub(crate) struct Link {
    parcels: Mutex<[Parcel; 2]>,
    is_closed: [AtomicBool; 2],
    socket: RwLock<Option<Arc<OwnedFd>>>,
    inbox: Mutex<Inbox>,
}

/// The message that has been packed with a half of the end in it. Until it is sent, the half is this process's, and if it is
/// dropped meanwhile, the message's.
#[derive(Debug, Default)]
struct Parcel {
    is_packed: bool,
    is_dropped: bool,
}

/// A half of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Sender,
    Receiver,
}

/// What has been received, and not asked for.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    frames: frame::Receiver,
    /// By the tags of their messages, which grow.
    pub(super) descriptors: VecDeque<(u64, Vec<OwnedFd>)>,
    /// The other side has closed its socket.
    has_ended: bool,
    /// The receiving half is being handed over, or was: nothing is read here any more.
    is_leaving: bool,
    /// Threads that sleep until the socket is readable.
    asleep: usize,
}

impl Link {
    pub(super) fn new(socket: OwnedFd, descriptors: VecDeque<(u64, Vec<OwnedFd>)>) -> Arc<Self> {
        let inbox = Inbox { descriptors, ..Inbox::default() };
        let parcels = Mutex::default();
        Arc::new(Self {
            parcels,
            is_closed: Default::default(),
            socket: RwLock::new(Some(Arc::new(socket))),
            inbox: Mutex::new(inbox),
        })
    }

    /// Whether this half of the end has been handed over.
    #[inline]
    pub(crate) fn is_closed(&self, half: Half) -> bool {
        // ORDERING: Relaxed. Set by the thread that had the half when it was sent.
        self.is_closed[half as usize].load(Ordering::Relaxed)
    }

    /// `None` once both halves have been handed over.
    pub(crate) fn socket(&self) -> Option<Arc<OwnedFd>> {
        self.socket.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These halves have been handed over: what other processes have now must be the only sockets of this side, unless a
    /// half is still here.
    pub(super) fn close(&self, halves: impl Iterator<Item = Half>) {
        for half in halves {
            self.is_closed[half as usize].store(true, Ordering::Relaxed);
        }
        if self.is_closed(Half::Receiver) {
            self.inbox().descriptors.clear();
        }
        if self.is_closed(Half::Sender) && self.is_closed(Half::Receiver) {
            self.socket.write().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// A message is being packed with this half in it. `false`: it is in one already, which may still be sent, or gone. Two
    /// messages, or two copies in one, would hand the same end over twice.
    pub(super) fn pack(&self, half: Half) -> bool {
        let parcel = &mut self.parcels()[half as usize];
        !self.is_closed(half) && !mem::replace(&mut parcel.is_packed, true)
    }

    /// That message will not be sent. Whether the half is nobody's any more.
    pub(super) fn unpack(&self, half: Half) -> bool {
        let parcel = &mut self.parcels()[half as usize];
        parcel.is_packed = false;
        parcel.is_dropped && !self.is_closed(half)
    }

    /// A half is dropped. Whether it is to be left as it is: to the process that it was sent to, or to a message that may
    /// still be sent.
    pub(super) fn leaves(&self, half: Half) -> bool {
        let parcel = &mut self.parcels()[half as usize];
        parcel.is_dropped = true;
        self.is_closed(half) || parcel.is_packed
    }

    fn parcels(&self) -> MutexGuard<'_, [Parcel; 2]> {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the descriptors of message `tag`, waiting for room in the socket for as long as `is_read` finds nothing wrong
    /// with the reader.
    pub(super) fn send(
        &self,
        tag: u64,
        fds: &[OwnedFd],
        deadline: Deadline,
        is_read: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let socket = self.socket().ok_or(Error::AlreadySent { handle: "Connection" })?;
        await_room(socket.as_fd(), deadline, is_read)?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match frame::send(socket.as_fd(), DESCRIPTORS, [&tag.to_le_bytes(), &[]], &fds) {
            Err(Error::Io { source, .. }) if frame::is_gone(&source) => Err(Error::Closed),
            done => done,
        }
    }

    /// The descriptors of message `tag`.
    pub(super) fn take(&self, tag: u64) -> Result<Vec<OwnedFd>> {
        let mut inbox = self.inbox();
        if let Some(socket) = self.socket() {
            inbox.receive(socket.as_fd())?;
        }
        while inbox.descriptors.front().is_some_and(|(at, _)| *at < tag) {
            inbox.descriptors.pop_front();
        }
        // Those of a later message stay in front.
        match inbox.descriptors.pop_front_if(|(at, _)| *at == tag) {
            Some((_, fds)) => Ok(fds),
            // They were sent before the message was committed, so only the kernel can have dropped them.
            None => Err(Error::FdLimit),
        }
    }

    /// Takes what has been received for whoever gets the receiving half, and reads no more. Frames are so short that they go as a
    /// whole.
    pub(super) fn settle(&self) -> Result<MutexGuard<'_, Inbox>> {
        let mut inbox = self.inbox();
        if let Some(socket) = self.socket() {
            inbox.receive(socket.as_fd())?;
        }
        inbox.is_leaving = true;
        Ok(inbox)
    }

    /// The receiving half is not handed over after all.
    pub(super) fn stay(&self) {
        self.inbox().is_leaving = false;
    }

    /// Takes what has been received, so that the socket is readable again when more comes.
    pub(crate) fn drain(&self) -> Result<Drained> {
        let mut inbox = self.inbox();
        // Nothing is taken out of it then, so nobody who sleeps misses it.
        if inbox.asleep > 0 && !inbox.has_ended && !inbox.is_leaving {
            return Ok(Drained::Not);
        }
        if let Some(socket) = self.socket() {
            inbox.receive(socket.as_fd())?;
        }
        Ok(if inbox.has_ended || inbox.is_leaving { Drained::ForGood } else { Drained::ForNow })
    }

    /// From here on this thread may sleep until the socket is readable, and nobody drains it meanwhile.
    pub(crate) fn fall_asleep(&self) {
        self.inbox().asleep += 1;
    }

    /// It sleeps no more. `last` is called if nobody does.
    pub(crate) fn wake_up(&self, last: impl FnOnce()) {
        let mut inbox = self.inbox();
        inbox.asleep -= 1;
        if inbox.asleep == 0 {
            last();
        }
    }
}

/// What a socket says from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Whether more has come.
    ForNow,
    /// Nothing: the other side has closed its own, or what comes is not for this process.
    ForGood,
    /// What it said before: another thread sleeps until it is readable. The kernel lets who sleeps in `poll` look again when it
    /// is woken, and it would find nothing.
    Not,
}

impl Inbox {
    fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<()> {
        while !self.has_ended && !self.is_leaving {
            match self.frames.receive(socket, Blocking::No) {
                Ok(Received::Pending) => return Ok(()),
                received => self.keep(received)?,
            }
        }
        Ok(())
    }

    fn keep(&mut self, received: Result<Received>) -> Result<()> {
        match received {
            Ok(Received::Frame(frame)) => {
                if frame.kind == DESCRIPTORS
                    && let Ok(tag) = frame.body.try_into()
                {
                    self.descriptors.push_back((u64::from_le_bytes(tag), frame.fds));
                }
            }
            Ok(Received::End | Received::Torn | Received::Unread) => self.has_ended = true,
            // Whoever reads their message misses them.
            Ok(Received::Pending) | Err(Error::FdLimit) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The time left until a deadline, for `poll`.
pub(crate) fn timespec(deadline: Deadline) -> Option<Timespec> {
    let left = deadline.remaining()?;
    Some(Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() })
}

/// Whoever reads may drop its receiving half, or die with it, and the other one lives on, and with it the socket.
fn await_room(socket: BorrowedFd<'_>, deadline: Deadline, is_read: impl Fn() -> Result<()>) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
        match rustix::event::poll(&mut fds, timespec(deadline.min(Deadline::after(ROOM_SLICE))).as_ref()) {
            Ok(0) if deadline.has_passed() => return Err(Error::TimedOut),
            Ok(0) | Err(Errno::INTR) => is_read()?,
            Ok(_) => return Ok(()),
            Err(error) => return Err(Error::os("wait for room in a socket")(error)),
        }
    }
}

/// Rings the other side.
#[derive(Debug)]
pub(crate) struct Ringer(pub(super) Arc<Link>);

impl Bell for Ringer {
    fn ring(&self) {
        if let Some(socket) = self.0.socket() {
            frame::signal(socket.as_fd(), BELL);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("socket", &self.socket()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_that_has_ended_says_so_to_who_comes_while_another_thread_sleeps() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours.into(), VecDeque::new());
        link.fall_asleep();
        // Not a drop: a copy may be on its way through a `fork` of another test.
        theirs.shutdown(Shutdown::Both).unwrap();
        assert_eq!(link.drain().unwrap(), Drained::Not, "who sleeps is still being woken");
        link.wake_up(|| ());
        assert_eq!(link.drain().unwrap(), Drained::ForGood);
        // That one sleeps on, for what else it waits for, or until the death is proven.
        link.fall_asleep();
        assert_eq!(link.drain().unwrap(), Drained::ForGood);
    }
}

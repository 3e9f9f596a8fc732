//! The socket beside a pipe's rings: for descriptors, for ringing whoever waits for several things, and its end is a sign
//! that the peer is gone.
//!
//! # Protocol
//! Frames (`frame.rs`) of two kinds. Only the sending half writes, and only the receiving half reads.
//! - `DESCRIPTORS`, with the message's tag: sent when the ring has room for the message and before that is committed, so who
//!   reads a message with a tag finds its descriptors here. Those of a message that never came (its sender was killed, or
//!   could not send all of them) have a tag that no message has, and are dropped when a later one is looked for.
//! - `BELL`: look again.
//!
//! What was received and is not asked for yet stands in the inbox, and travels with the end if that is handed over.
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

/// This side's socket. Closed when the end has been handed over.
pub(crate) struct Link {
    parcel: Mutex<Parcel>,
    is_closed: AtomicBool,
    socket: RwLock<Option<Arc<OwnedFd>>>,
    inbox: Mutex<Inbox>,
}

/// The message that has been packed with the end in it. Until it is sent, the end is this process's, and if it is dropped
/// meanwhile, the message's.
#[derive(Debug, Default)]
struct Parcel {
    is_packed: bool,
    has_dropped_sender: bool,
    has_dropped_receiver: bool,
}

/// A half of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
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
}

impl Link {
    pub(super) fn new(socket: OwnedFd, descriptors: VecDeque<(u64, Vec<OwnedFd>)>) -> Arc<Self> {
        let inbox = Inbox { descriptors, ..Inbox::default() };
        Arc::new(Self {
            parcel: Mutex::default(),
            is_closed: AtomicBool::new(false),
            socket: RwLock::new(Some(Arc::new(socket))),
            inbox: Mutex::new(inbox),
        })
    }

    /// Whether the end has been handed over.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        // ORDERING: Relaxed. Set by the thread that had the end when it was sent.
        self.is_closed.load(Ordering::Relaxed)
    }

    /// `None` once the end has been handed over.
    pub(crate) fn socket(&self) -> Option<Arc<OwnedFd>> {
        self.socket.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The end has been handed over: what another process has now must be the only socket of this side.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.socket.write().unwrap_or_else(PoisonError::into_inner).take();
        self.inbox().descriptors.clear();
    }

    /// A message is being packed with the end in it. `false`: it is in one already, which may still be sent, or gone. Two
    /// messages, or two copies in one, would hand the same end over twice.
    pub(super) fn pack(&self) -> bool {
        let mut parcel = self.parcel();
        !self.is_closed() && !mem::replace(&mut parcel.is_packed, true)
    }

    /// That message will not be sent. Which halves are nobody's any more.
    pub(super) fn unpack(&self) -> impl Iterator<Item = Half> + use<> {
        let mut parcel = self.parcel();
        parcel.is_packed = false;
        let is_here = !self.is_closed();
        let halves = [(Half::Sender, parcel.has_dropped_sender), (Half::Receiver, parcel.has_dropped_receiver)];
        halves.into_iter().filter(move |(_, is_dropped)| is_here && *is_dropped).map(|(half, _)| half)
    }

    /// A half is dropped. Whether it is to be left as it is: to the process that it was sent to, or to a message that may
    /// still be sent.
    pub(super) fn leaves(&self, half: Half) -> bool {
        let mut parcel = self.parcel();
        match half {
            Half::Sender => parcel.has_dropped_sender = true,
            Half::Receiver => parcel.has_dropped_receiver = true,
        }
        self.is_closed() || parcel.is_packed
    }

    fn parcel(&self) -> MutexGuard<'_, Parcel> {
        self.parcel.lock().unwrap_or_else(PoisonError::into_inner)
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
        match inbox.descriptors.pop_front() {
            Some((at, fds)) if at == tag => Ok(fds),
            later => {
                if let Some(later) = later {
                    inbox.descriptors.push_front(later);
                }
                // They were sent before the message was committed, so only the kernel can have dropped them.
                Err(Error::FdLimit)
            }
        }
    }

    /// Takes what has been received, up to the end of a frame, for whoever gets the end that is handed over.
    pub(super) fn settle(&self) -> Result<MutexGuard<'_, Inbox>> {
        let mut inbox = self.inbox();
        if let Some(socket) = self.socket() {
            inbox.receive(socket.as_fd())?;
            while !inbox.has_ended && !inbox.frames.is_between_frames() {
                // A message with hundreds of descriptors is being sent.
                let received = inbox.frames.receive(socket.as_fd(), Blocking::Yes);
                inbox.keep(received)?;
            }
        }
        Ok(inbox)
    }

    /// Takes what has been received, so that the socket is readable again when more comes. `true`: the other side has
    /// closed its socket.
    pub(crate) fn drain(&self) -> Result<bool> {
        let mut inbox = self.inbox();
        if let Some(socket) = self.socket() {
            inbox.receive(socket.as_fd())?;
        }
        Ok(inbox.has_ended)
    }
}

impl Inbox {
    fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<()> {
        while !self.has_ended {
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

/// Whoever reads may drop its receiving half and keep the other one, and with it the socket.
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

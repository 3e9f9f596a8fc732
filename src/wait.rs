//! Waiting for any of several things.
//!
//! # Protocol
//! 1. look at everything: ready is what can be received or polled now;
//! 2. nothing: say that this thread sleeps, and hang the bell of each connection ([`crosslane_core::bell`]), which looks once
//!    more;
//! 3. `poll(2)` on the sockets of the connections and on the other descriptors, at most for a slice;
//! 4. sleep no more, take the bells down, empty the sockets of those that were rung, and go back to 1.
//!
//! Several threads may wait for one end. The bell is for all of them, and so is its ring: the last one that sleeps takes it
//! down, and the socket is emptied when none sleeps any more. Until then all of them are being woken, and who has been looks
//! again after a moment.
//!
//! A socket that has ended says that the peer is gone. If it was killed, its lease is free at about the same time; if that
//! takes a while longer, the socket is left out, which would not let `poll` sleep, and the slices are short. So is the socket
//! of an end that another thread is handing over: what comes there is no longer for this process (`pipe/link.rs`).
//!
//! # Crash
//! A peer that is killed between publishing a message and ringing: its socket ends, and the message is found.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crosslane_sync::Deadline;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::pipe::{Connection, Drained, Link, Receiver, timespec};

/// The longest sleep: nothing that is known of needs it, but a peer that keeps to no protocol must not make a wait eternal.
const SLICE: Duration = Duration::from_secs(1);
/// The sleep while the death of a peer is to be proven, whose socket has ended.
const SHORT_SLICE: Duration = Duration::from_millis(2);
/// How long others that have been woken are waited for.
const MOMENT: Duration = Duration::from_micros(50);

/// What [`wait`] can wait for: a [`Connection`] or its [`Receiver`], and whatever has a file descriptor that gets readable,
/// like the sentinel of a [`Process`](crate::Process), a socket, a pidfd, a timerfd.
pub trait Waitable {
    /// How it is waited for. Made by this crate alone.
    #[doc(hidden)]
    fn waiting(&self) -> Waiting<'_>;
}

/// How something is waited for.
#[doc(hidden)]
#[derive(Debug)]
pub struct Waiting<'a>(Kind<'a>);

#[derive(Debug)]
enum Kind<'a> {
    Descriptor(BorrowedFd<'a>),
    End(&'a dyn Listen),
}

/// The receiving half of a connection, whatever it receives.
trait Listen: std::fmt::Debug {
    fn is_ready(&self) -> bool;
    fn has_died(&self) -> bool;
    fn listen(&self) -> bool;
    fn stop_listening(&self);
    fn link(&self) -> &Link;
}

impl<R> Listen for Receiver<R> {
    fn is_ready(&self) -> bool {
        self.is_ready()
    }
    fn has_died(&self) -> bool {
        self.has_died()
    }
    fn listen(&self) -> bool {
        self.listen()
    }
    fn stop_listening(&self) {
        self.stop_listening();
    }
    fn link(&self) -> &Link {
        self.link()
    }
}

impl<T: AsFd> Waitable for T {
    fn waiting(&self) -> Waiting<'_> {
        Waiting(Kind::Descriptor(self.as_fd()))
    }
}

impl<S, R> Waitable for Connection<S, R> {
    fn waiting(&self) -> Waiting<'_> {
        Waiting(Kind::End(self.receiver()))
    }
}

impl<R> Waitable for Receiver<R> {
    fn waiting(&self) -> Waiting<'_> {
        Waiting(Kind::End(self))
    }
}

/// Waits until at least one of `objects` is ready, and returns the indices of all that are, in order; none if `timeout` is
/// over (`None`: for ever). A zero timeout looks and does not wait.
///
/// A connection is ready when a receive would not wait: a message is there, or the end of them, in order or by a death; its
/// [`try_recv`](Connection::try_recv) then says which. One that another thread hands over meanwhile is ready too: it refuses. A
/// descriptor is ready when it is readable, or has ended or failed. A thing that is ready stays so until it is received or
/// read: nothing is consumed.
///
/// Costs two system calls for each sleep, and one `poll` for descriptors that are ready at once.
///
/// # Errors
/// [`Error::Io`] if the descriptors cannot be polled.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// let (mut a, b) = crosslane::pipe::<u32, u32>()?;
/// let (c, d) = crosslane::pipe::<String, String>()?;
/// a.send(&1)?;
/// assert_eq!(crosslane::wait(&[&d, &b], None)?, [1]);
/// drop(c);
/// assert_eq!(crosslane::wait(&[&d, &b], None)?, [0, 1]);
/// assert_eq!(crosslane::wait(&[&a], Some(Duration::ZERO))?, []);
/// # Ok::<(), crosslane::Error>(())
/// ```
pub fn wait(objects: &[&dyn Waitable], timeout: Option<Duration>) -> Result<Vec<usize>> {
    let deadline = timeout.map_or(Deadline::never(), Deadline::after);
    let mut waiter = Waiter::new(objects);
    loop {
        let ready = waiter.look()?;
        if !ready.is_empty() || deadline.has_passed() {
            return Ok(ready);
        }
        if waiter.is_early {
            // Not a yield, which would keep a thread from its CPU that is less urgent than this one.
            std::thread::sleep(MOMENT);
        } else {
            waiter.sleep(deadline)?;
        }
    }
}

/// All objects of one wait.
struct Waiter<'a> {
    objects: Vec<Object<'a>>,
    /// A slice is over: whoever has been killed is looked for.
    is_overdue: bool,
    /// A socket was left as it is for others that are about to be woken by it.
    is_early: bool,
}

struct Object<'a> {
    kind: Kind<'a>,
    /// Of a connection: its socket; `None` once it has been handed over.
    socket: Option<Arc<OwnedFd>>,
    /// Of a connection: its socket says nothing more, as its peer's is closed, or the end is being handed over.
    is_mute: bool,
}

impl Object<'_> {
    /// What is polled for it.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self.kind {
            Kind::Descriptor(fd) => Some(fd),
            Kind::End(_) if self.is_mute => None,
            Kind::End(_) => self.socket.as_ref().map(|socket| socket.as_fd()),
        }
    }

    fn end(&self) -> Option<&dyn Listen> {
        match self.kind {
            Kind::End(end) => Some(end),
            Kind::Descriptor(_) => None,
        }
    }
}

impl<'a> Waiter<'a> {
    fn new(objects: &[&'a dyn Waitable]) -> Self {
        let object = |object: &&'a dyn Waitable| {
            let Waiting(kind) = object.waiting();
            let socket = match &kind {
                Kind::Descriptor(_) => None,
                Kind::End(end) => end.link().socket(),
            };
            Object { kind, socket, is_mute: false }
        };
        Self { objects: objects.iter().map(object).collect(), is_overdue: false, is_early: false }
    }

    /// Steps 4 and 1: which are ready.
    fn look(&mut self) -> Result<Vec<usize>> {
        let readable = self.poll(Deadline::now())?;
        let is_overdue = self.is_overdue;
        self.is_early = false;
        let mut ready = Vec::new();
        for (index, object) in self.objects.iter_mut().enumerate() {
            let is_readable = readable.contains(&index);
            let is_ready = match object.kind {
                Kind::Descriptor(_) => is_readable,
                Kind::End(end) => {
                    // An end that is being handed over may come back, and its socket with it.
                    if is_readable || object.is_mute {
                        match end.link().drain()? {
                            Drained::ForNow => object.is_mute = false,
                            Drained::ForGood => object.is_mute = true,
                            Drained::Not => self.is_early |= is_readable,
                        }
                    }
                    end.is_ready() || (object.is_mute || is_overdue) && end.has_died()
                }
            };
            if is_ready {
                ready.push(index);
            }
        }
        Ok(ready)
    }

    /// Steps 2 to 4.
    fn sleep(&mut self, deadline: Deadline) -> Result<()> {
        self.ends().for_each(|end| end.link().fall_asleep());
        let is_news = self.ends().fold(false, |news, end| end.listen() | news);
        let slice = if self.objects.iter().any(|object| object.is_mute) { SHORT_SLICE } else { SLICE };
        let slept = if is_news { Ok(vec![0]) } else { self.poll(deadline.min(Deadline::after(slice))) };
        self.ends().for_each(|end| end.link().wake_up(|| end.stop_listening()));
        self.is_overdue = slept?.is_empty();
        Ok(())
    }

    fn ends(&self) -> impl Iterator<Item = &dyn Listen> {
        self.objects.iter().filter_map(Object::end)
    }

    /// Which objects have a descriptor that is readable, waiting for one until the deadline.
    fn poll(&self, deadline: Deadline) -> Result<Vec<usize>> {
        let (indices, mut fds): (Vec<_>, Vec<_>) = (self.objects.iter().enumerate())
            .filter_map(|(index, object)| Some((index, PollFd::from_borrowed_fd(object.descriptor()?, PollFlags::IN))))
            .unzip();
        loop {
            match rustix::event::poll(&mut fds, timespec(deadline).as_ref()) {
                // Before the deadline: its nanoseconds are rounded.
                Ok(0) if !deadline.has_passed() => {}
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::os("wait for descriptors")(error)),
            }
        }
        let readable = indices.into_iter().zip(fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(readable.map(|(index, _)| index).collect())
    }
}

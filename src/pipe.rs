//! Pipes: two ends, each of which sends what the other receives.
//!
//! Underneath are two record rings in one segment, one for each direction ([`crosslane_core::record`]): a message of any
//! kind is a record, and nobody makes a system call while the other side keeps up. Beside them is a pair of sockets for
//! what memory cannot carry (`link.rs`): descriptors, a ring for who [waits](crate::wait()) for several ends, and the news
//! that a process is gone.

mod descriptor;
mod half;
mod link;
mod passage;
mod transit;
mod underway;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crosslane_core::WakeMode;
use crosslane_core::record::{MAX_CAPACITY_BYTES, MIN_CAPACITY_BYTES, RingError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::{Error, Result};
use crate::place::Placed;
use crate::shm::{CreateError, Options, Record, Slab};
use crate::wire::Portable;

pub use descriptor::Descriptor;
pub use half::{Receiver, Sender};
pub(crate) use link::{Drained, Link, timespec};
pub(crate) use underway::settle_after_a_death;

/// Bytes of each direction's ring, unless it is stated: as much as the kernel's pipes hold.
const DEFAULT_CAPACITY_BYTES: usize = 64 << 10;
/// The largest ring, in bytes: two of them, with the directory of their slab, fit into a slab.
const MAX_RING_BYTES: u32 = 1 << 28;
/// What a ring takes beside its capacity, and a slab beside its rings, in bytes: more than enough.
const HEADERS_BYTES: u32 = 1 << 10;

/// One end of a pipe, which sends `S` and receives `R`.
///
/// There is one of each: it cannot be cloned, and belongs to the process that made it until it is handed over, as an
/// argument or result or through another connection, whole or [split](Self::split). What was sent to it meanwhile waits in
/// the pipe. Here it is inert then: its calls give [`Error::AlreadySent`].
///
/// Messages arrive in order, whole, and once. Sending waits only while the ring is full. Sending and receiving a small
/// message takes 0.1 us while both sides run; who waits spins for some 5 us and then sleeps.
///
/// Whatever serde can write may be sent, and handles too: queues, locks, arrays, other connections, and files as
/// [`Descriptor`]s. A pipe costs three descriptors while this process has both ends, and two for one end.
///
/// # Crash
/// A process killed in a send has sent the whole message or nothing. Its peer reads what was sent, and then gets
/// [`Error::PeerDied`], where an end that was dropped gives [`Error::Closed`]. A send to a peer that was killed gives
/// [`Error::PeerDied`] when the ring is full, and succeeds until then.
///
/// An end on its way belongs to its sender: if that dies first, the peer sees [`Error::PeerDied`]. If it never arrives,
/// because who was to get it died, dropped its own end, or could not decode the message, the peer sees [`Error::Closed`],
/// within 10 ms if it waits. So it is for a half that travels alone. As long as somebody lives who could still receive it, the
/// peer waits.
///
/// # Examples
/// ```
/// let (mut here, mut there) = crosslane::pipe::<u32, String>()?;
/// here.send(&7)?;
/// let number = there.recv()?;
/// there.send(&number.to_string())?;
/// assert_eq!(here.recv()?, "7");
/// drop(there);
/// assert!(matches!(here.recv(), Err(crosslane::Error::Closed)));
/// # Ok::<(), crosslane::Error>(())
/// ```
pub struct Connection<S, R> {
    sender: Sender<S>,
    receiver: Receiver<R>,
}

/// Makes a pipe: two connected ends. Each direction has room for 64 KiB, less 8 bytes and what rounds a message up to 8,
/// for each; so the longest message has 65,512 bytes.
///
/// # Errors
/// [`Error::Create`], [`Error::FdLimit`], [`Error::Io`].
pub fn pipe<A: Portable, B: Portable>() -> Result<(Connection<A, B>, Connection<B, A>)> {
    pipe_with_capacity(DEFAULT_CAPACITY_BYTES)
}

/// As [`pipe`], with room for `capacity_bytes` in each direction, rounded up to a power of two in 64..=2^28. The longest
/// message has 24 bytes less ([`Connection::max_bytes`]). The memory is reserved here.
///
/// # Errors
/// As [`pipe`].
pub fn pipe_with_capacity<A: Portable, B: Portable>(
    capacity_bytes: usize,
) -> Result<(Connection<A, B>, Connection<B, A>)> {
    let rounded = capacity_bytes.max(MIN_CAPACITY_BYTES as usize).checked_next_power_of_two();
    let capacity = match rounded.and_then(|bytes| u32::try_from(bytes).ok()) {
        Some(bytes @ ..=MAX_RING_BYTES) => bytes,
        _ => {
            let bytes = u32::try_from(capacity_bytes).unwrap_or(MAX_CAPACITY_BYTES);
            return Err(CreateError::Record(RingError::Capacity { bytes }).into());
        }
    };
    let options = Options::new().wake_mode(WakeMode::Fenced).slab_bytes(slab_bytes(capacity));
    let slab = Slab::anonymous(&options)?;
    let [there, back] = [(); 2].map(|()| Record::in_slab(&slab, capacity, &options).map(Placed::new));
    let (there, back) = (there?, back?);
    let sockets = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (one, other) = sockets.map_err(Error::os("make a pair of sockets"))?;
    let end = |socket| Link::new(socket, VecDeque::new());
    let (one, other) = (end(one), end(other));
    Ok((Connection::new(&there, &back, one)?, Connection::new(&back, &there, other)?))
}

/// A slab's length for two rings: three eighths of it are its directory.
fn slab_bytes(capacity: u32) -> u32 {
    let rings = 2 * (capacity + HEADERS_BYTES);
    rings / 5 * 8 + 8 * HEADERS_BYTES
}

impl<S: Portable, R: Portable> Connection<S, R> {
    fn new(
        outgoing: &Placed<Record<crate::Trusted>>,
        incoming: &Placed<Record<crate::Trusted>>,
        link: Arc<Link>,
    ) -> Result<Self> {
        let sender = Sender::new(outgoing.clone(), Arc::clone(&link), 1, Record::belled_writer)?;
        let receiver = Receiver::new(incoming.clone(), link, Record::<crate::Trusted>::reader)?;
        Ok(Self { sender, receiver })
    }

    /// Sends a message. Waits while the pipe is full.
    ///
    /// # Errors
    /// [`Error::Closed`]: the peer has dropped its end, and will read nothing any more. [`Error::PeerDied`]: the pipe is full
    /// and the peer was killed. [`Error::TooLarge`], [`Error::Encode`], [`Error::AlreadySent`] (this end, or one in the
    /// message), [`Error::ThroughItself`] (the peer is in the message), [`Error::FdLimit`] and [`Error::Io`] for a message with handles; [`Error::Forked`], [`Error::Corrupt`].
    /// After any of them nothing was sent.
    ///
    /// # Crash
    /// A process killed inside has sent the whole message or nothing.
    #[inline]
    pub fn send(&mut self, value: &S) -> Result<()> {
        self.sender.send(value)
    }

    /// Sends a message if there is room. Does not block. If there is none, it looks for a killed peer, every 10 ms at most.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::Full`].
    #[inline]
    pub fn try_send(&mut self, value: &S) -> Result<()> {
        self.sender.try_send(value)
    }

    /// Sends a message, waiting for room at most for `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::TimedOut`].
    pub fn send_timeout(&mut self, value: &S, timeout: Duration) -> Result<()> {
        self.sender.send_timeout(value, timeout)
    }

    /// Sends bytes as they are, for [`recv_bytes`](Self::recv_bytes) or [`recv_bytes_into`](Self::recv_bytes_into) at the
    /// other end. Waits while the pipe is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.sender.send_bytes(bytes)
    }

    /// Receives a message, waiting for one.
    ///
    /// # Errors
    /// [`Error::Closed`]: the peer has dropped its end, and everything was read. [`Error::PeerDied`]: it was killed, and
    /// everything was read. [`Error::Decode`] for a message of another type, and [`Error::FdLimit`] for one whose
    /// descriptors are more than this process may have; both are consumed. [`Error::Open`] and others if a handle in it
    /// cannot be opened. [`Error::AlreadySent`], [`Error::Forked`], [`Error::Corrupt`].
    #[inline]
    pub fn recv(&mut self) -> Result<R> {
        self.receiver.recv()
    }

    /// Receives a message if one is there. Does not block. If none is, it looks for a killed peer, every 10 ms at most; and
    /// always behind a [`wait`](crate::wait()) or another call that found it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Empty`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<R> {
        self.receiver.try_recv()
    }

    /// Receives a message, waiting for one at most for `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R> {
        self.receiver.recv_timeout(timeout)
    }

    /// Receives the bytes of a message, waiting for one: what [`send_bytes`](Self::send_bytes) sent, or the encoding of a
    /// value. Handles in it are closed.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), but for those of decoding.
    pub fn recv_bytes(&mut self) -> Result<Vec<u8>> {
        self.receiver.recv_bytes()
    }

    /// As [`recv_bytes`](Self::recv_bytes), into `buffer`; returns the message's length in bytes.
    ///
    /// # Errors
    /// [`Error::BufferTooShort`], which says how long the message is and leaves it there; else as
    /// [`recv_bytes`](Self::recv_bytes).
    pub fn recv_bytes_into(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.receiver.recv_bytes_into(buffer)
    }

    /// Waits at most for `timeout` until a receive would not wait, because a message is there or the end. Consumes nothing.
    ///
    /// # Errors
    /// [`Error::AlreadySent`], [`Error::Forked`], [`Error::Corrupt`].
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        self.receiver.poll(timeout)
    }

    /// The longest message that this end can send, in bytes of its encoding.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.sender.max_bytes()
    }

    /// Takes the end apart, so that one thread sends and another receives, or one process and another: each half travels as
    /// the whole does.
    ///
    /// If they live in different processes and one of them is killed, or lost on its way, a [`wait`](crate::wait()) of the
    /// peer's sees that within a second; a receive within 10 ms.
    ///
    /// # Examples
    /// ```
    /// let (results, there) = crosslane::pipe::<(), u32>()?;
    /// let (sender, _) = there.split();
    /// let child = crosslane::spawn(|mut sender: crosslane::Sender<u32>| sender.send(&42).unwrap(), sender)?;
    /// assert_eq!(results.split().1.recv()?, 42);
    /// # child.join()?;
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    #[must_use]
    pub fn split(mut self) -> (Sender<S>, Receiver<R>) {
        (self.sender.handle, self.receiver.handle) = (half::SENDER, half::RECEIVER);
        (self.sender, self.receiver)
    }
}

impl<S, R> Connection<S, R> {
    pub(crate) fn receiver(&self) -> &Receiver<R> {
        &self.receiver
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("sender", &self.sender).field("receiver", &self.receiver).finish()
    }
}

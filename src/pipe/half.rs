//! The two halves of an end.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crosslane_core::end::{ClaimError, End};
use crosslane_core::record::{PopError, PushError, RecordRef};
use crosslane_core::{Liveness, Trusted};
use crosslane_sync::Deadline;

use super::link::{Half, Link, Ringer};
use super::passage;
use super::underway::Underway;
use crate::blob;
use crate::error::{Error, Result};
use crate::place::Placed;
use crate::shm::record::{BelledWriter, Reader};
use crate::shm::{Env, OpenError, Record};
use crate::wire::{self, Parcel, Portable};

/// How long calls that do not wait rely on a look at the peer, which costs a system call.
const LOOK_LASTS: Duration = Duration::from_millis(10);
/// Bytes in front of each message: the tag of its descriptors, or 0.
const TAG_BYTES: usize = 8;

pub(super) const HANDLE: &str = "Connection";
pub(super) const SENDER: &str = "Sender";
pub(super) const RECEIVER: &str = "Receiver";

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    Try,
    Timeout(Duration),
    Forever,
}

impl Patience {
    fn deadline(self) -> Deadline {
        match self {
            Self::Try => Deadline::now(),
            Self::Timeout(timeout) => Deadline::after(timeout),
            Self::Forever => Deadline::never(),
        }
    }
}

/// When a call that does not wait looks whether the peer has been killed, or was lost.
#[derive(Debug, Default)]
struct Look {
    next: Option<Instant>,
    /// It was found so, by a call that says so: the next one must not say anything else.
    is_over: AtomicBool,
}

impl Look {
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = *self.is_over.get_mut() || self.next.is_none_or(|next| now >= next);
        if is_due {
            self.next = now.checked_add(LOOK_LASTS);
        }
        is_due
    }

    fn note_end(&self) {
        // ORDERING: Relaxed. Whoever finds it looks for itself.
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The half of a [`Connection`](crate::Connection) that sends. Dropping it tells the peer that nothing more comes.
///
/// It travels as a connection does, also without the other half.
pub struct Sender<S> {
    /// `None` only while it is dropped.
    pub(super) writer: Option<BelledWriter<Ringer>>,
    /// What it is part of, for errors.
    pub(super) handle: &'static str,
    pub(super) ring: Placed<Record<Trusted>>,
    pub(super) link: Arc<Link>,
    /// The tag of the next message with descriptors; from 1.
    pub(super) next_tag: u64,
    /// Ends that were sent and may never arrive.
    underway: Option<Arc<Underway>>,
    look: Look,
    message: PhantomData<fn(S)>,
}

/// The half of a [`Connection`](crate::Connection) that receives. Dropping it tells the peer that nobody reads any more.
///
/// It travels as a connection does, also without the other half.
pub struct Receiver<R> {
    /// `None` only while it is dropped.
    pub(super) reader: Option<Reader<Trusted>>,
    /// What it is part of, for errors.
    pub(super) handle: &'static str,
    pub(super) ring: Placed<Record<Trusted>>,
    pub(super) link: Arc<Link>,
    life: Env,
    look: Look,
    message: PhantomData<fn() -> R>,
}

type Message<'a> = RecordRef<'a, 'static, Env, Trusted>;

impl<S: Portable> Sender<S> {
    pub(super) fn new(
        ring: Placed<Record<Trusted>>,
        link: Arc<Link>,
        next_tag: u64,
        claim: impl FnOnce(&Record<Trusted>, Ringer) -> Result<BelledWriter<Ringer>, ClaimError>,
    ) -> Result<Self> {
        let writer = claim(&ring, Ringer(Arc::clone(&link))).map_err(unclaimed)?;
        let (handle, look) = (HANDLE, Look::default());
        Ok(Self { writer: Some(writer), handle, ring, link, next_tag, underway: None, look, message: PhantomData })
    }

    /// As [`Connection::send`](crate::Connection::send).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send(&mut self, value: &S) -> Result<()> {
        self.send_with(value, Patience::Forever)
    }

    /// As [`Connection::try_send`](crate::Connection::try_send).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_send(&mut self, value: &S) -> Result<()> {
        self.send_with(value, Patience::Try)
    }

    /// As [`Connection::send_timeout`](crate::Connection::send_timeout).
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout(&mut self, value: &S, timeout: Duration) -> Result<()> {
        self.send_with(value, Patience::Timeout(timeout))
    }

    /// As [`Connection::send_bytes`](crate::Connection::send_bytes).
    ///
    /// # Errors
    /// As there.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self.send_in_place(bytes, Patience::Forever);
        self.note(sent)
    }

    /// The longest message, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.max_len_bytes() - TAG_BYTES)
    }

    #[inline]
    fn send_with(&mut self, value: &S, patience: Patience) -> Result<()> {
        let sent = match blob::as_raw(value) {
            Some(bytes) => self.send_in_place(bytes, patience),
            None => self.encode_and_send(value, patience),
        };
        self.note(sent)
    }

    /// Looks after what is on its way, if anything is.
    #[inline]
    fn note(&mut self, sent: Result<()>) -> Result<()> {
        let sent = match sent {
            Err(Error::Full) => Err(self.why_full_slow()),
            sent => sent,
        };
        if self.underway.is_some() {
            self.settle(matches!(sent, Err(Error::PeerDied | Error::Closed)));
        }
        sent
    }

    /// Why there is no room now: if the peer has been killed, or was lost, there never will be.
    #[cold]
    fn why_full_slow(&mut self) -> Error {
        if !self.look.is_due() {
            return Error::Full;
        }
        match is_read(&self.ring) {
            Ok(()) if passage::is_lost(&self.ring, Half::Receiver) => Error::Closed,
            Ok(()) => Error::Full,
            Err(end) => end,
        }
    }

    /// The writer, and whether the peer's end was lost on its way to another process.
    #[inline]
    fn writer(&mut self) -> Result<(&mut BelledWriter<Ringer>, impl Fn() -> bool)> {
        let ring = &self.ring;
        match &mut self.writer {
            Some(writer) if !self.link.is_closed(Half::Sender) => {
                Ok((writer, || passage::is_lost(ring, Half::Receiver)))
            }
            _ => Err(Error::AlreadySent { handle: self.handle }),
        }
    }

    #[inline]
    fn encode_and_send(&mut self, value: &S, patience: Patience) -> Result<()> {
        let _ = self.writer()?;
        // The tag, 0, and the message.
        let mut small = [0; TAG_BYTES + wire::SMALL_BYTES];
        match wire::pack_small(value, &mut small[TAG_BYTES..]) {
            Some(len) => push(self.writer()?, &small[..TAG_BYTES + len], patience),
            None => self.encode_and_send_slow(value, patience),
        }
    }

    /// A value that may have handles in it, or is long.
    fn encode_and_send_slow(&mut self, value: &S, patience: Patience) -> Result<()> {
        let mut memory = wire::Scratch::take();
        memory.0.extend_from_slice(&[0; TAG_BYTES]);
        match wire::pack_without_handles(value, &mut memory.0) {
            Some(Ok(())) => return push(self.writer()?, &memory.0, patience),
            Some(Err(error)) => return Err(error),
            // Once more, with what travels beside.
            None => memory.0.truncate(TAG_BYTES),
        }
        let mut parcel = wire::pack_behind(std::mem::take(&mut memory.0), value)?;
        parcel.bytes[..TAG_BYTES].copy_from_slice(&self.next_tag.to_le_bytes());
        self.send_with_descriptors(parcel, patience)
    }

    #[cold]
    fn send_with_descriptors(&mut self, parcel: Parcel, patience: Patience) -> Result<()> {
        if let Some(handle) = parcel.receives_from(self.ring.place()) {
            return Err(Error::ThroughItself { handle });
        }
        let (deadline, link, ring) = (patience.deadline(), Arc::clone(&self.link), self.ring.clone());
        // Also for a message that is not sent: its descriptors may have been.
        let tag = self.next_tag;
        self.next_tag += 1;
        let len_bytes = parcel.bytes.len();
        let mut room = reserve(self.writer()?, len_bytes, patience)?;
        link.send(tag, &parcel.fds, deadline, || is_read(&ring)).map_err(|error| match (error, patience) {
            (Error::TimedOut, Patience::Try) => Error::Full,
            (error, _) => error,
        })?;
        room.copy_from(0, &parcel.bytes);
        room.commit().map_err(not_pushed)?;
        let (position, in_transit) = (self.writer()?.0.position(), parcel.sent());
        if !in_transit.is_empty() {
            let underway = self.underway.get_or_insert_with(|| Underway::new(ring));
            underway.add(position, in_transit);
        }
        Ok(())
    }

    /// Sends bytes that are copied from where they are.
    #[inline]
    fn send_in_place(&mut self, bytes: &[u8], patience: Patience) -> Result<()> {
        if bytes.len() > wire::SMALL_BYTES {
            return self.send_long(bytes, patience);
        }
        let mut small = [0; TAG_BYTES + wire::SMALL_BYTES];
        let message = &mut small[..TAG_BYTES + bytes.len()];
        message[TAG_BYTES..].copy_from_slice(bytes);
        push(self.writer()?, message, patience)
    }

    fn send_long(&mut self, bytes: &[u8], patience: Patience) -> Result<()> {
        let mut room = reserve(self.writer()?, TAG_BYTES + bytes.len(), patience)?;
        room.copy_from(0, &[0; TAG_BYTES]);
        room.copy_from(TAG_BYTES, bytes);
        room.commit().map_err(not_pushed)
    }
}

impl<S> Sender<S> {
    /// Ends that were sent and will not arrive are closed: the peer is gone, or has done with their message and did not take
    /// them, as when it cannot be decoded. What has arrived is nobody's concern here any more.
    #[cold]
    fn settle(&mut self, is_peer_gone: bool) {
        let (Some(writer), Some(underway)) = (&self.writer, &self.underway) else { return };
        if underway.settle(|position| is_peer_gone || writer.is_released(position)) {
            self.underway = None;
        }
    }
}

/// # Errors
/// [`Error::Closed`], [`Error::PeerDied`]: the peer will read nothing more.
pub(super) fn is_read(ring: &Record<Trusted>) -> Result<()> {
    match ring.reader_end() {
        End::Closed => Err(Error::Closed),
        End::Owned(owner) if ring.segment().env().is_some_and(|env| env.is_dead(owner)) => Err(Error::PeerDied),
        End::Owned(_) | End::Vacant | End::Corrupt => Ok(()),
    }
}

impl<R: Portable> Receiver<R> {
    pub(super) fn new(
        ring: Placed<Record<Trusted>>,
        link: Arc<Link>,
        claim: impl FnOnce(&Record<Trusted>) -> Result<Reader<Trusted>, ClaimError>,
    ) -> Result<Self> {
        let reader = claim(&ring).map_err(unclaimed)?;
        let life = ring.segment().env().ok_or(Error::Open(OpenError::ReadOnly))?;
        let (handle, look) = (HANDLE, Look::default());
        Ok(Self { reader: Some(reader), handle, ring, link, life, look, message: PhantomData })
    }

    /// As [`Connection::recv`](crate::Connection::recv).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> Result<R> {
        self.recv_with(Patience::Forever)
    }

    /// As [`Connection::try_recv`](crate::Connection::try_recv).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_recv(&mut self) -> Result<R> {
        self.recv_with(Patience::Try)
    }

    /// As [`Connection::recv_timeout`](crate::Connection::recv_timeout).
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R> {
        self.recv_with(Patience::Timeout(timeout))
    }

    /// As [`Connection::recv_bytes`](crate::Connection::recv_bytes).
    ///
    /// # Errors
    /// As there.
    pub fn recv_bytes(&mut self) -> Result<Vec<u8>> {
        let link = Arc::clone(&self.link);
        let message = self.next(Patience::Forever)?;
        let mut bytes = vec![0; len_bytes(&message)?];
        message.copy_to(TAG_BYTES, &mut bytes);
        close_descriptors(&message, &link);
        message.release();
        Ok(bytes)
    }

    /// As [`Connection::recv_bytes_into`](crate::Connection::recv_bytes_into).
    ///
    /// # Errors
    /// As there.
    pub fn recv_bytes_into(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let link = Arc::clone(&self.link);
        let message = self.next(Patience::Forever)?;
        let needed = len_bytes(&message)?;
        let Some(room) = buffer.get_mut(..needed) else {
            message.keep();
            return Err(Error::BufferTooShort { needed_bytes: needed as u64 });
        };
        message.copy_to(TAG_BYTES, room);
        close_descriptors(&message, &link);
        message.release();
        Ok(needed)
    }

    /// As [`Connection::poll`](crate::Connection::poll).
    ///
    /// # Errors
    /// As there.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        let found = self.next(Patience::Timeout(timeout)).map(|message| message.keep());
        match found {
            Ok(()) => Ok(true),
            Err(Error::Closed | Error::PeerDied) => {
                self.look.note_end();
                Ok(true)
            }
            Err(Error::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn recv_with(&mut self, patience: Patience) -> Result<R> {
        match self.recv_once(patience) {
            Err(Error::Empty) => self.recv_last_slow(),
            Err(end @ (Error::PeerDied | Error::Closed)) => {
                self.look.note_end();
                Err(end)
            }
            received => received,
        }
    }

    /// Nothing is there: from a peer that has been killed, or was lost, nothing comes any more.
    #[cold]
    fn recv_last_slow(&mut self) -> Result<R> {
        let end = if self.look.is_due() { self.end() } else { None };
        // What it had sent before is there by now.
        match (end, self.recv_once(Patience::Try)) {
            (Some(end), Err(Error::Empty)) => Err(end),
            (_, received) => received,
        }
    }

    #[inline]
    fn recv_once(&mut self, patience: Patience) -> Result<R> {
        let reader = match &mut self.reader {
            Some(reader) if !self.link.is_closed(Half::Receiver) => reader,
            _ => return Err(Error::AlreadySent { handle: self.handle }),
        };
        let message = next(reader, &self.ring, patience)?;
        let (front, back) = message.as_slices();
        let value = match front.split_first_chunk::<TAG_BYTES>() {
            Some((tag, bytes)) if back.is_empty() && *tag == [0; TAG_BYTES] => wire::unpack_plain(bytes),
            _ => unpack_slow(&message, &self.link),
        };
        // Also what cannot be decoded is done with.
        message.release();
        value
    }

    #[inline]
    fn next(&mut self, patience: Patience) -> Result<Message<'_>> {
        match &mut self.reader {
            Some(reader) if !self.link.is_closed(Half::Receiver) => next(reader, &self.ring, patience),
            _ => Err(Error::AlreadySent { handle: self.handle }),
        }
    }
}

/// What [`wait`](crate::wait()) asks of a receiver.
impl<R> Receiver<R> {
    /// Whether a receive would not wait; a killed peer is not looked for.
    pub(crate) fn is_ready(&self) -> bool {
        let Some(reader) = self.reader.as_ref().filter(|_| !self.link.is_closed(Half::Receiver)) else { return true };
        !reader.is_empty() || reader.peer() == End::Closed
    }

    /// Whether the peer has been killed, or was lost on its way to another process.
    pub(crate) fn has_died(&self) -> bool {
        let has_died = self.end().is_some();
        if has_died {
            self.look.note_end();
        }
        has_died
    }

    /// Why a peer that has not closed its end sends nothing more.
    fn end(&self) -> Option<Error> {
        match self.ring.writer_end() {
            End::Owned(owner) if self.life.is_dead(owner) => Some(Error::PeerDied),
            End::Owned(_) if passage::is_lost(&self.ring, Half::Sender) => Some(Error::Closed),
            End::Owned(_) | End::Closed | End::Vacant | End::Corrupt => None,
        }
    }

    /// Asks the peer to ring; `true` if a receive would not wait.
    pub(crate) fn listen(&self) -> bool {
        self.reader.as_ref().is_none_or(Reader::listen)
    }

    pub(crate) fn stop_listening(&self) {
        if let Some(reader) = &self.reader {
            reader.stop_listening();
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }
}

#[inline]
fn push(
    (writer, is_lost): (&mut BelledWriter<Ringer>, impl Fn() -> bool),
    bytes: &[u8],
    patience: Patience,
) -> Result<()> {
    let pushed = match patience {
        Patience::Try => writer.try_push(bytes),
        Patience::Timeout(timeout) => writer.push_unless(bytes, Some(timeout), is_lost),
        Patience::Forever => writer.push_unless(bytes, None, is_lost),
    };
    pushed.map_err(not_pushed)
}

type Room<'a> = crosslane_core::record::Reservation<'a, 'static, crate::shm::Belled<Ringer>, Trusted>;

fn reserve<'w>(
    (writer, is_lost): (&'w mut BelledWriter<Ringer>, impl Fn() -> bool),
    len_bytes: usize,
    patience: Patience,
) -> Result<Room<'w>> {
    let room = match patience {
        Patience::Try => writer.try_reserve(len_bytes),
        Patience::Timeout(timeout) => writer.reserve_unless(len_bytes, Some(timeout), is_lost),
        Patience::Forever => writer.reserve_unless(len_bytes, None, is_lost),
    };
    room.map_err(not_pushed)
}

#[inline]
fn next<'r>(
    reader: &'r mut Reader<Trusted>,
    ring: &Placed<Record<Trusted>>,
    patience: Patience,
) -> Result<Message<'r>> {
    let is_lost = || passage::is_lost(ring, Half::Sender);
    let message = match patience {
        Patience::Try => reader.try_read(),
        Patience::Timeout(timeout) => reader.read_unless(Some(timeout), is_lost),
        Patience::Forever => reader.read_unless(None, is_lost),
    };
    message.map_err(not_popped)
}

/// The message's length without its tag.
fn len_bytes(message: &Message<'_>) -> Result<usize> {
    message.len_bytes().checked_sub(TAG_BYTES).ok_or(Error::Corrupt)
}

/// A message with descriptors, or one that wraps around the end of the ring.
#[cold]
fn unpack_slow<R: Portable>(message: &Message<'_>, link: &Link) -> Result<R> {
    let mut tag = [0; TAG_BYTES];
    let mut memory = wire::Scratch::take();
    memory.0.resize(len_bytes(message)?, 0);
    message.copy_to(0, &mut tag);
    message.copy_to(TAG_BYTES, &mut memory.0);
    match u64::from_le_bytes(tag) {
        0 => wire::unpack_plain(&memory.0),
        tag => wire::unpack(&memory.0, link.take(tag)?),
    }
}

/// Takes what travelled beside a message of which only the bytes are wanted.
fn close_descriptors(message: &Message<'_>, link: &Link) {
    let mut tag = [0; TAG_BYTES];
    message.copy_to(0, &mut tag);
    match u64::from_le_bytes(tag) {
        0 => {}
        // What the kernel has dropped is closed already.
        tag => drop(link.take(tag)),
    }
}

fn not_pushed(error: PushError) -> Error {
    match error {
        PushError::Full => Error::Full,
        PushError::TimedOut => Error::TimedOut,
        PushError::Closed => Error::Closed,
        PushError::PeerDied(_) => Error::PeerDied,
        PushError::TooLong { len, max } => {
            let without_tag = |bytes: usize| bytes.saturating_sub(TAG_BYTES) as u64;
            Error::TooLarge { len_bytes: without_tag(len), limit_bytes: without_tag(max) }
        }
        PushError::Forked => Error::Forked,
        _ => Error::Corrupt,
    }
}

fn not_popped(error: PopError) -> Error {
    match error {
        PopError::Empty => Error::Empty,
        PopError::TimedOut => Error::TimedOut,
        PopError::Closed => Error::Closed,
        PopError::PeerDied(_) => Error::PeerDied,
        PopError::Forked => Error::Forked,
        _ => Error::Corrupt,
    }
}

/// Why an end that should be this process's is not.
pub(super) fn unclaimed(error: ClaimError) -> Error {
    match error {
        ClaimError::Forked => Error::Forked,
        ClaimError::Withdrawn => Error::Closed,
        ClaimError::EndTaken(_) => Error::AlreadySent { handle: HANDLE },
        _ => Error::Corrupt,
    }
}

impl<S> Drop for Sender<S> {
    fn drop(&mut self) {
        if self.underway.is_some() {
            self.settle(is_read(&self.ring).is_err());
        }
        match self.writer.take() {
            Some(writer) if self.link.leaves(Half::Sender) => writer.leave(),
            _ => {}
        }
    }
}

impl<R> Drop for Receiver<R> {
    fn drop(&mut self) {
        match self.reader.take() {
            Some(reader) if self.link.leaves(Half::Receiver) => reader.leave(),
            _ => {}
        }
    }
}

impl<S> fmt::Debug for Sender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Receiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("ring", &self.ring).finish_non_exhaustive()
    }
}

//! Frames: a kind, bytes, and the descriptors that travel beside them, over a stream socket between two processes.
//!
//! # Protocol
//! Send:
//! 1. a body above [`INLINE_BYTES`] is written to a memfd, which becomes the frame's first descriptor;
//! 2. more than 253 descriptors (the kernel's limit) are put into sockets made for that, which travel in their place. So a
//!    frame is small on the socket, whatever is in it, and whoever sends it need not wait for the other side to read it;
//! 3. one `sendmsg` carries the header, the descriptors and the body.
//!
//! Receive: the header, then the body, each exactly, so that descriptors never come with the bytes of an earlier frame. The
//! state is kept between calls: a receiver that does not block may be called again whenever the socket is readable.
//!
//! # Trust
//! The length in a header reserves nothing: memory grows with the bytes that arrive, and a socket of descriptors is read no
//! further than its header says. Descriptors that the receiver has no room for (`RLIMIT_NOFILE`) are dropped by the kernel,
//! which says so; the frame is then received to its end, as [`Error::FdLimit`], and the next one is whole. If the kernel does
//! not let the sender have so many on their way between processes, that gets the same error, and nothing is sent.
//!
//! # Crash
//! A sender killed inside a frame leaves the end of the stream inside a frame: [`Received::Torn`].

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, MemfdFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{Resource, getrlimit};

use crate::error::Error;

/// The longest body that travels through the socket itself: well below any socket's buffer, which holds 208 KiB by default.
const INLINE_BYTES: usize = 32 * 1024;
/// `SCM_MAX_FD` of the kernel.
const FDS_AT_ONCE: usize = 253;
const HEADER_BYTES: usize = 16;
/// First bytes of each header; the last one is the version of the protocol.
const MAGIC: [u8; 2] = [0xC7, 2];
/// In the header's flags: the body lies in the first descriptor.
const IN_MEMFD: u8 = 1;
/// In the header's flags: what came beside the header are sockets, in which the descriptors lie.
const IN_SOCKETS: u8 = 2;
/// The most memory that is reserved before bytes have arrived for it.
const STEP_BYTES: usize = 1 << 20;

/// What was received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// How far a receiver has come.
#[derive(Debug)]
pub(crate) enum Received {
    Frame(Frame),
    /// Nothing more at the moment: only for a receiver that does not block.
    Pending,
    /// The other side has closed its end between two frames.
    End,
    /// The stream ended inside a frame.
    Torn,
    /// The other side has closed its end, and had not read all that was sent to it.
    Unread,
}

/// Whether a call waits for the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocking {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u8,
    is_in_memfd: bool,
    are_in_sockets: bool,
    fds: u32,
    len_bytes: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.kind;
        bytes[3] = (IN_MEMFD * u8::from(self.is_in_memfd)) | (IN_SOCKETS * u8::from(self.are_in_sockets));
        bytes[4..8].copy_from_slice(&self.fds.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len_bytes.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [magic, version, kind, flags, f0, f1, f2, f3, len @ ..] = bytes;
        let fds = u32::from_le_bytes([f0, f1, f2, f3]);
        let (is_in_memfd, are_in_sockets) = (flags & IN_MEMFD != 0, flags & IN_SOCKETS != 0);
        let header = Self { kind, is_in_memfd, are_in_sockets, fds, len_bytes: u64::from_le_bytes(len) };
        ([magic, version] == MAGIC && flags <= IN_MEMFD | IN_SOCKETS).then_some(header)
    }
}

/// Sends a frame whose body is `parts` in a row. Blocks while the socket's buffer is full. A peer that is gone is
/// `BrokenPipe`, never a signal.
///
/// # Errors
/// [`Error::FdLimit`] if this process may not open a memfd or a socket, or not have so many descriptors in flight;
/// [`Error::Io`].
pub(crate) fn send(socket: BorrowedFd<'_>, kind: u8, parts: [&[u8]; 2], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let len_bytes = parts[0].len() + parts[1].len();
    if len_bytes <= INLINE_BYTES {
        return send_parts(socket, header(kind, false, fds.len(), len_bytes)?, parts, fds);
    }
    let memory = spill(parts)?;
    let fds: Vec<_> = std::iter::once(memory.as_fd()).chain(fds.iter().copied()).collect();
    send_parts(socket, header(kind, true, fds.len(), len_bytes)?, [&[], &[]], &fds)
}

/// Sends a frame that is nothing but its kind, unless the socket's buffer is full: then its receiver has enough to look at.
/// Does not block; that the peer is gone is for the receiver to see.
pub(crate) fn signal(socket: BorrowedFd<'_>, kind: u8) {
    let header = Header { kind, is_in_memfd: false, are_in_sockets: false, fds: 0, len_bytes: 0 };
    // As few bytes as these go whole or not at all.
    while rustix::net::send(socket, &header.to_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) == Err(Errno::INTR) {
    }
}

/// Sends a frame of kind 0 that is nothing but its descriptors: all of it, or nothing if the socket's buffer is full and the
/// call may not wait; then `false`.
///
/// # Errors
/// As [`send`].
pub(crate) fn send_fds(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>], blocking: Blocking) -> Result<bool, Error> {
    let header = header(0, false, fds.len(), 0)?;
    // What makes work is begun when it can be ended.
    if header.are_in_sockets && blocking == Blocking::No && !has_room(socket)? {
        return Ok(false);
    }
    let flags = match blocking {
        Blocking::Yes => SendFlags::empty(),
        Blocking::No => SendFlags::DONTWAIT,
    };
    beside(fds, |fds| {
        loop {
            return match send_once(socket, [&header.to_bytes(), &[], &[]], fds, flags) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(false),
                // So few bytes go together.
                sent => sent.map(|_| true).map_err(Error::os("send a frame")),
            };
        }
    })
}

/// Whether more may be sent without waiting.
fn has_room(socket: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
    match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
        Err(Errno::INTR) => Ok(false),
        found => found.map(|count| count > 0).map_err(Error::os("look for room in a socket")),
    }
}

fn header(kind: u8, is_in_memfd: bool, fds: usize, len_bytes: usize) -> Result<Header, Error> {
    let fds = u32::try_from(fds).map_err(|_| Error::FdLimit)?;
    let are_in_sockets = fds as usize > FDS_AT_ONCE;
    Ok(Header { kind, is_in_memfd, are_in_sockets, fds, len_bytes: len_bytes as u64 })
}

/// Writes `parts` to a new memfd.
fn spill(parts: [&[u8]; 2]) -> Result<OwnedFd, Error> {
    let len_bytes = parts.map(|part| part.len() as u64).iter().sum();
    // To write beyond it would be a signal.
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < len_bytes) {
        return Err(Error::os("write a large frame")(Errno::FBIG));
    }
    let memory = rustix::fs::memfd_create("crosslane-frame", MemfdFlags::CLOEXEC)
        .map_err(Error::os("make memory for a large frame"))?;
    let mut file = std::fs::File::from(memory);
    for part in parts {
        io::Write::write_all(&mut file, part).map_err(Error::os("write a large frame"))?;
    }
    Ok(file.into())
}

/// Steps 2 and 3.
fn send_parts(socket: BorrowedFd<'_>, header: Header, parts: [&[u8]; 2], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    beside(fds, |fds| send_all(socket, [&header.to_bytes(), parts[0], parts[1]], fds))
}

/// Calls `f` with what travels beside the header for `fds`.
fn beside<O>(fds: &[BorrowedFd<'_>], f: impl FnOnce(&[BorrowedFd<'_>]) -> Result<O, Error>) -> Result<O, Error> {
    if fds.len() <= FDS_AT_ONCE {
        return f(fds);
    }
    let sockets = pack(fds)?;
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    if sockets.len() <= FDS_AT_ONCE { f(&sockets) } else { Err(Error::FdLimit) }
}

/// Puts descriptors into sockets of which nobody has the other end any more, each as full as it gets.
fn pack(mut fds: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, Error> {
    let mut sockets = Vec::new();
    while !fds.is_empty() {
        let (ours, theirs) = UnixStream::pair().map_err(Error::os("make a pair of sockets"))?;
        let left = fds.len();
        while let part = &fds[..fds.len().min(FDS_AT_ONCE)]
            && !part.is_empty()
        {
            match send_once(ours.as_fd(), [&[0], &[], &[]], part, SendFlags::DONTWAIT) {
                Ok(_) => fds = &fds[part.len()..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if fds.len() < left => break,
                Err(error) => return Err(Error::os("put descriptors into a socket")(error)),
            }
        }
        sockets.push(theirs.into());
    }
    Ok(sockets)
}

/// Sends all bytes, the descriptors beside the first.
fn send_all(socket: BorrowedFd<'_>, mut parts: [&[u8]; 3], mut fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    while parts.iter().any(|part| !part.is_empty()) {
        let mut sent = match send_once(socket, parts, fds, SendFlags::empty()) {
            Err(Errno::INTR) => continue,
            sent => sent.map_err(Error::os("send a frame"))?,
        };
        fds = &[];
        for part in &mut parts {
            let taken = sent.min(part.len());
            (*part, sent) = (&part[taken..], sent - taken);
        }
    }
    Ok(())
}

/// One `sendmsg`, of [`FDS_AT_ONCE`] descriptors at most.
fn send_once(
    socket: BorrowedFd<'_>,
    parts: [&[u8]; 3],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &parts.map(IoSlice::new), &mut control, flags | SendFlags::NOSIGNAL)
}

/// Receives frames, and keeps what has come of one so far.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    header: [u8; HEADER_BYTES],
    /// Bytes of the frame that have come: of its header and its body.
    have: usize,
    fds: Vec<OwnedFd>,
    has_lost_fds: bool,
    body: Vec<u8>,
}

impl Receiver {
    /// Receives on, until a frame is whole or nothing more is there.
    ///
    /// # Errors
    /// [`Error::FdLimit`] if descriptors of this frame were lost; the next frame is not affected. [`Error::Io`], also if
    /// what came is no frame (`InvalidData`).
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, blocking: Blocking) -> Result<Received, Error> {
        loop {
            let wanted = match self.header()? {
                None => HEADER_BYTES,
                Some(header) => HEADER_BYTES + self.make_room(header)?,
            };
            if self.have == wanted
                && let Some(header) = self.header()?
            {
                return self.finish(header).map(Received::Frame);
            }
            match self.read(socket, wanted, blocking) {
                Ok(0) if self.have == 0 => return Ok(Received::End),
                Ok(0) => return Ok(Received::Torn),
                Ok(len) => self.have += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Pending),
                Err(Errno::CONNRESET) => return Ok(Received::Unread),
                Err(error) => return Err(Error::os("receive a frame")(error)),
            }
        }
    }

    /// The header, if all of it is there.
    fn header(&self) -> Result<Option<Header>, Error> {
        if self.have < HEADER_BYTES {
            return Ok(None);
        }
        Header::from_bytes(self.header).map(Some).ok_or_else(|| invalid("read the header of a frame"))
    }

    /// Makes the body as long as it will be on the socket, and returns its length.
    fn make_room(&mut self, header: Header) -> Result<usize, Error> {
        let len = match header.is_in_memfd {
            true => 0,
            false => usize::try_from(header.len_bytes).unwrap_or(usize::MAX),
        };
        if len > INLINE_BYTES {
            return Err(invalid("read as long a frame as its header says"));
        }
        self.body.resize(len, 0);
        Ok(len)
    }

    /// Reads on, up to byte `wanted` of the frame at most.
    fn read(&mut self, socket: BorrowedFd<'_>, wanted: usize, blocking: Blocking) -> Result<usize, Errno> {
        let bytes = match self.have.checked_sub(HEADER_BYTES) {
            None => &mut self.header[self.have..wanted],
            Some(start) => &mut self.body[start..],
        };
        let (len, is_short) = receive_once(socket, bytes, &mut self.fds, blocking)?;
        self.has_lost_fds |= is_short;
        Ok(len)
    }

    /// The frame is whole. The next one begins, whatever this one was.
    fn finish(&mut self, header: Header) -> Result<Frame, Error> {
        let Self { mut fds, has_lost_fds, mut body, .. } = mem::take(self);
        let count = header.fds as usize;
        if fds.len() > count || header.is_in_memfd && count == 0 {
            return Err(invalid("take as many descriptors as a frame's header says"));
        }
        if has_lost_fds {
            return Err(Error::FdLimit);
        }
        if header.are_in_sockets {
            fds = unpack(fds, count)?;
        }
        if fds.len() < count {
            return Err(Error::FdLimit);
        }
        if header.is_in_memfd {
            body = read_spilled(&fds.remove(0), header.len_bytes)?;
        }
        Ok(Frame { kind: header.kind, body, fds })
    }
}

/// One `recvmsg`: the bytes that came, and whether there was no room for all descriptors that did.
fn receive_once(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    blocking: Blocking,
) -> Result<(usize, bool), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = match blocking {
        Blocking::Yes => RecvFlags::CMSG_CLOEXEC,
        Blocking::No => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    };
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    Ok((message.bytes, message.flags.contains(ReturnFlags::CTRUNC)))
}

/// The descriptors that lie in sockets: `count` of them, or fewer.
fn unpack(sockets: Vec<OwnedFd>, count: usize) -> Result<Vec<OwnedFd>, Error> {
    let mut fds = Vec::new();
    for socket in sockets {
        loop {
            let before = fds.len();
            match receive_once(socket.as_fd(), &mut [0], &mut fds, Blocking::No) {
                Ok((0, _)) => break,
                Ok((_, true)) => return Err(Error::FdLimit),
                // Whoever has the other end could go on for ever.
                Ok(_) if fds.len() == before || fds.len() > count => {
                    return Err(invalid("take as many descriptors as a frame's header says"));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::os("take descriptors out of a socket")(error)),
            }
        }
    }
    Ok(fds)
}

/// Whether to read it is to wait for nobody, as with a memfd.
pub(crate) fn is_file(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
}

/// Reads a body from its memfd, which its sender wrote: as far as it really goes.
fn read_spilled(memory: &OwnedFd, len_bytes: u64) -> Result<Vec<u8>, Error> {
    if !is_file(memory) {
        return Err(invalid("read a frame's body, which is no file"));
    }
    let mut body = Vec::new();
    while (body.len() as u64) < len_bytes {
        let left = usize::try_from(len_bytes - body.len() as u64).unwrap_or(usize::MAX);
        let is_reserved = body.try_reserve_exact(left.min(STEP_BYTES.max(body.len())));
        is_reserved.map_err(|_| Error::os("reserve memory for a large frame")(Errno::NOMEM))?;
        let offset = body.len() as u64;
        match rustix::io::pread(memory, spare_capacity(&mut body), offset) {
            Ok(0) => return Err(invalid("read as long a frame as its header says")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::os("read a large frame")(error)),
        }
    }
    body.truncate(usize::try_from(len_bytes).unwrap_or(usize::MAX));
    Ok(body)
}

/// Whether a send failed because the other side is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// What came is none of our frames.
fn invalid(what: &'static str) -> Error {
    Error::Io { doing: what, source: io::Error::from(io::ErrorKind::InvalidData) }
}

#[cfg(test)]
mod tests {
    use rustix::process::Rlimit;

    use super::*;

    fn frame(receiver: &mut Receiver, socket: &UnixStream) -> Frame {
        match receiver.receive(socket.as_fd(), Blocking::Yes) {
            Ok(Received::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn frames_of_every_size_come_whole_and_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let lens = [0, 1, 17, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 3 * STEP_BYTES + 5];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (kind, len) in (0..).zip(lens) {
                    let body = bytes(len);
                    let parts = body.split_at(len / 3);
                    send(ours.as_fd(), kind, [parts.0, parts.1], &[]).unwrap();
                }
            });
            let mut receiver = Receiver::default();
            for (kind, len) in (0..).zip(lens) {
                let frame = frame(&mut receiver, &theirs);
                assert_eq!((frame.kind, frame.fds.len()), (kind, 0));
                assert!(frame.body == bytes(len), "{len}");
            }
        });
    }

    #[test]
    fn a_large_frame_waits_for_no_reader() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for _ in 0..10 {
            send(ours.as_fd(), 1, [&bytes(1 << 20), &[]], &[]).unwrap();
        }
        let mut receiver = Receiver::default();
        for _ in 0..10 {
            assert_eq!(frame(&mut receiver, &theirs).body.len(), 1 << 20);
        }
    }

    #[test]
    fn descriptors_come_with_their_own_frame_however_many() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut receiver = Receiver::default();
        for (count, len) in [(1, 0), (252, 5), (253, 5), (254, 0), (254, INLINE_BYTES + 1), (700, 100)] {
            let fds = vec![theirs.as_fd(); count];
            send(ours.as_fd(), 7, [&[], &[]], &[]).unwrap();
            send(ours.as_fd(), 8, [&bytes(len), &[]], &fds).unwrap();
            send(ours.as_fd(), 9, [&[1], &[2]], &fds[..1]).unwrap();
            assert_eq!(frame(&mut receiver, &theirs).fds.len(), 0);
            let received = frame(&mut receiver, &theirs);
            assert_eq!((received.kind, received.fds.len()), (8, count));
            assert!(received.body == bytes(len));
            let last = frame(&mut receiver, &theirs);
            assert_eq!((last.kind, last.body, last.fds.len()), (9, vec![1, 2], 1));
        }
    }

    #[test]
    fn what_comes_byte_by_byte_is_put_together_without_blocking() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let header = header(3, false, 0, 4).unwrap().to_bytes();
        let stream: Vec<u8> = header.into_iter().chain(*b"body").collect();
        let mut receiver = Receiver::default();
        for (i, byte) in stream.iter().enumerate() {
            let pending = receiver.receive(theirs.as_fd(), Blocking::No).unwrap();
            assert!(matches!(pending, Received::Pending), "{i}: {pending:?}");
            send_all(ours.as_fd(), [&[*byte], &[], &[]], &[]).unwrap();
        }
        assert_eq!(frame(&mut receiver, &theirs).body, b"body");
    }

    #[test]
    fn ends_between_frames_inside_them_and_before_they_were_read_are_told_apart() {
        let end = |sent: &[u8], is_read: bool| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            if !is_read {
                send(theirs.as_fd(), 1, [b"never read", &[]], &[]).unwrap();
            }
            send_all(ours.as_fd(), [sent, &[], &[]], &[]).unwrap();
            drop(ours);
            Receiver::default().receive(theirs.as_fd(), Blocking::Yes).unwrap()
        };
        let header = header(3, false, 0, 4).unwrap().to_bytes();
        assert!(matches!(end(&[], true), Received::End));
        assert!(matches!(end(&header[..5], true), Received::Torn));
        assert!(matches!(end(&header, true), Received::Torn));
        assert!(matches!(end(&[], false), Received::Unread));
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let Err(Error::Io { source, .. }) = send(ours.as_fd(), 1, [&[], &[]], &[]) else { panic!("it is gone") };
        assert!(is_gone(&source));
    }

    #[test]
    fn hostile_headers_are_refused_and_reserve_nothing() {
        let header = |fds, is_in_memfd, len_bytes| {
            Header { kind: 1, is_in_memfd, are_in_sockets: false, fds, len_bytes }.to_bytes()
        };
        let mut other_magic = header(0, false, 0);
        other_magic[1] ^= 0xFF;
        let mut other_flags = header(0, false, 0);
        other_flags[3] = 4;
        for bytes in [other_magic, other_flags, header(0, false, u64::MAX), header(0, true, 9), header(1, true, 9)] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            send_all(ours.as_fd(), [&bytes, &[], &[]], &[]).unwrap();
            assert!(Receiver::default().receive(theirs.as_fd(), Blocking::Yes).is_err(), "{bytes:?}");
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let short = spill([b"short", &[]]).unwrap();
        send_all(ours.as_fd(), [&header(1, true, u64::MAX), &[], &[]], &[short.as_fd()]).unwrap();
        assert!(Receiver::default().receive(theirs.as_fd(), Blocking::Yes).is_err());
    }

    #[test]
    fn what_is_no_socket_of_descriptors_is_refused_and_read_no_further() {
        let refuses = |beside: BorrowedFd<'_>, count: u32| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let header = Header { kind: 1, is_in_memfd: false, are_in_sockets: true, fds: count, len_bytes: 0 };
            send_all(ours.as_fd(), [&header.to_bytes(), &[], &[]], &[beside]).unwrap();
            Receiver::default().receive(theirs.as_fd(), Blocking::Yes).unwrap_err()
        };
        let (keeps, theirs) = UnixStream::pair().unwrap();
        let put = |count: usize| send_all(keeps.as_fd(), [&[0], &[], &[]], &vec![theirs.as_fd(); count]).unwrap();
        put(2);
        assert!(matches!(refuses(theirs.as_fd(), 300), Error::Io { .. }), "more could come");
        put(4);
        assert!(matches!(refuses(theirs.as_fd(), 3), Error::Io { .. }), "it holds more than the header says");
        (0..2).for_each(|_| put(0));
        assert!(matches!(refuses(theirs.as_fd(), 300), Error::Io { .. }), "it could go on for ever");
        let left = receive_once(theirs.as_fd(), &mut [0; 2], &mut Vec::new(), Blocking::No);
        assert_eq!(left, Ok((1, false)), "it is read no further");
        put(2);
        keeps.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(refuses(theirs.as_fd(), 300), Error::FdLimit), "there are fewer");
        assert!(matches!(refuses(spill([b"no socket", &[]]).unwrap().as_fd(), 300), Error::Io { .. }));
    }

    #[test]
    fn descriptors_that_do_not_fit_into_one_socket_lie_in_several() {
        let (fd, _other) = UnixStream::pair().unwrap();
        let packed = |count| pack(&vec![fd.as_fd(); count]);
        let sockets: Vec<_> = [300, 1, 253].into_iter().flat_map(|count| packed(count).unwrap()).collect();
        assert_eq!((sockets.len(), unpack(sockets, 554).unwrap().len()), (3, 554));
        // Without privileges, so many may not be on their way.
        match packed(150_000) {
            Ok(sockets) => assert!((2..100).contains(&sockets.len()), "{}", sockets.len()),
            Err(error) => assert!(matches!(error, Error::FdLimit), "{error}"),
        }
    }

    #[test]
    fn more_descriptors_than_any_process_has_are_an_error_and_wait_for_nobody() {
        // The limit is the process's, and other tests run in it.
        let child = crate::spawn(
            |()| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                // Several sockets full. Without privileges, they may not even be on their way.
                match send(ours.as_fd(), 1, [&[], &[]], &vec![theirs.as_fd(); 150_000]) {
                    Ok(()) => {}
                    Err(Error::FdLimit) => return true,
                    Err(error) => panic!("{error}"),
                }
                let limit = rustix::process::getrlimit(Resource::Nofile);
                rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(1000), ..limit }).unwrap();
                matches!(Receiver::default().receive(theirs.as_fd(), Blocking::Yes), Err(Error::FdLimit))
            },
            (),
        );
        assert!(child.unwrap().join().unwrap());
    }

    #[test]
    fn a_frame_that_is_longer_than_files_may_be_is_an_error_and_no_signal() {
        // The limit is the process's, and other tests run in it.
        let child = crate::spawn(
            |()| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let most = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
                rustix::process::setrlimit(Resource::Fsize, most).unwrap();
                let refused = send(ours.as_fd(), 1, [&bytes((1 << 20) + 1), &[]], &[]).unwrap_err();
                assert!(matches!(refused, Error::Io { ref source, .. } if source.raw_os_error() == Some(libc::EFBIG)));
                send(ours.as_fd(), 2, [&bytes(1 << 20), &[]], &[]).unwrap();
                frame(&mut Receiver::default(), &theirs).body.len()
            },
            (),
        );
        assert_eq!(child.unwrap().join().unwrap(), 1 << 20);
    }

    #[test]
    fn descriptors_above_the_limit_cost_their_frame_and_no_other() {
        // The limit is the process's, and other tests run in it.
        let child = crate::spawn(
            |()| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                send(ours.as_fd(), 1, [b"many", &[]], &vec![theirs.as_fd(); 300]).unwrap();
                send(ours.as_fd(), 2, [b"none", &[]], &[]).unwrap();
                let limit = rustix::process::getrlimit(Resource::Nofile);
                rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(50), ..limit }).unwrap();
                let mut receiver = Receiver::default();
                let lost = receiver.receive(theirs.as_fd(), Blocking::Yes);
                (matches!(lost, Err(Error::FdLimit)), frame(&mut receiver, &theirs).body)
            },
            (),
        );
        assert_eq!(child.unwrap().join().unwrap(), (true, b"none".to_vec()));
    }
}

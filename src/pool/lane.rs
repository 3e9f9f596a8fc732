//! The lane between a pool and one of its workers: a ring each way, and a word for each piece of work on its way.
//!
//! # Protocol
//! A piece of work has one of [`DEPTH`] words for as long as the pool knows it to be with the worker. Pieces go through
//! the ring in order, and each is answered in order, also one that was taken back.
//!
//! | step | who | word |
//! |---|---|---|
//! | 1. write the word, then push the piece | pool | `QUEUED` |
//! | 2. take the piece out of the ring | worker | |
//! | 3. begin | worker | CAS `QUEUED` -> `RUNNING` |
//! | 3'. take it back instead | pool | CAS `QUEUED` -> `TAKEN_BACK` |
//! | 3''. if it cannot be read (`store.rs`), answer that instead of 3; the pool sends it again | worker | |
//! | 4. run and answer; or, where 3' came first, answer that it was not begun | worker | |
//! | 5. read the answer; the word is free | pool | |
//!
//! The word still says `RUNNING` between 4 and 5, when the worker may be at the next piece already. So to end the worker that
//! is at a piece, and to lose no other one, the pool
//!
//! | step | |
//! |---|---|
//! | 1. takes the answers that are there | the piece may be among them |
//! | 2. takes all else back (3'), with its mutex held, so nothing new is sent | the worker begins nothing any more |
//! | 3. compares: is the piece the last one that was not taken back? | else the worker has answered it, and is at another |
//! | 4. kills the worker, and closes the lane | an answer that came meanwhile no longer counts: the caller was told |
//!
//! # Orderings
//! The word decides nothing but who has the piece: the pool keeps a copy of what it pushed, and the bytes that the worker
//! runs are ordered by the ring. So every access is Relaxed; of two CAS on one word one fails.
//!
//! # Crash
//! | worker killed | what the pool does, once the process is reaped |
//! |---|---|
//! | before 2 or between 2 and 3 | the word says `QUEUED`: nobody has begun it, another worker gets it |
//! | between 3 and 4 | the word says `RUNNING`: it is lost with its worker, or tried again if it may be |
//! | inside 4 | as above: a piece whose answer is not whole was not answered |
//! | after 4 | the answer is in the ring, and counts |
//!
//! A pool that is killed takes its workers along: each sees the end of its control socket.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};

use crosslane_core::event::EventWord;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::store::Address;
use crate::Trusted;
use crate::blob::Blob;
use crate::error::{Codec, PanicReport};
use crate::place::Placed;
use crate::shm::{Record, Shared};
use crate::wire::{self, Parcel};

/// Pieces of work that can be with a worker at a time.
pub(super) const DEPTH: usize = 32;
/// Bytes of each ring.
pub(super) const RING_BYTES: u32 = 128 << 10;
/// The longest part that travels in one record; a longer piece travels in several, so that both sides work at once.
pub(super) const PART_BYTES: usize = 32 << 10;

/// The words of a lane.
pub(super) type Words = [AtomicU32; DEPTH];

/// Not begun.
pub(super) const QUEUED: u32 = 1;
pub(super) const RUNNING: u32 = 2;
pub(super) const TAKEN_BACK: u32 = 3;

/// Moves a queued piece to `next`; `false` if the other side was faster.
pub(super) fn advance(word: &AtomicU32, next: u32) -> bool {
    // ORDERING: Relaxed. See the module's docs.
    word.compare_exchange(QUEUED, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// A lane as it is handed to its worker; the pool has the other end of each part.
#[derive(Serialize, Deserialize)]
pub(super) struct Ends {
    /// Work, to the worker.
    pub(super) work: Placed<Record<Trusted>>,
    /// Answers, from it.
    pub(super) answers: Placed<Record<Trusted>>,
    pub(super) words: Placed<Shared<Words, Trusted>>,
    /// What the pool sleeps on while it waits for any worker.
    pub(super) bell: Placed<Shared<EventWord, Trusted>>,
    /// For the descriptors of the handles in work and answers.
    pub(super) companion: Companion,
}

/// One end of a pair of sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Companion(Descriptor);

impl Companion {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(Descriptor(socket.into()))
    }

    pub(super) fn into_socket(self) -> UnixStream {
        self.0.0.into()
    }
}

/// An encoded value inside of another one, with its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Carried {
    bytes: Blob<u8>,
    fds: Vec<Descriptor>,
}

#[derive(Debug)]
struct Descriptor(OwnedFd);

impl Carried {
    pub(super) fn new(parcel: &Parcel) -> std::io::Result<Self> {
        let fds = parcel.fds.iter().map(|fd| fd.try_clone().map(Descriptor)).collect::<Result<_, _>>()?;
        Ok(Self { bytes: Blob(parcel.bytes.clone()), fds })
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<OwnedFd>) {
        (self.bytes.0, self.fds.into_iter().map(|Descriptor(fd)| fd).collect())
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wire::attach::<S::Error>("descriptor", self.0.as_fd())?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        wire::arrived(u32::deserialize(deserializer)?).map(Self)
    }
}

/// What a record begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// To the worker: what job `number` is; behind it a [`Definition`](super::worker::Definition).
    Define = 1,
    /// To the worker: job `number` will not be named again.
    Forget = 2,
    /// To the worker: items of job `number`. From it: their outcomes.
    Items = 3,
    /// From the worker: the piece was taken back before it was begun.
    TakenBack = 4,
    /// From the worker: it is ready for work.
    Ready = 5,
    /// From the worker: its initializer failed, and it leaves; behind it a [`Failure`].
    Unfit = 6,
    /// To the worker: segment `number` of the store, whose descriptor is beside it.
    Lend = 7,
    /// To the worker: segment `number` will not be named again.
    Withdraw = 8,
    /// From the worker: it has not begun the piece, because segment `number` is missing.
    Unread = 9,
}

/// What every record begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// More of the same piece follows.
    pub(super) goes_on: bool,
    /// Whether to go on behind an item that failed.
    pub(super) tries_all: bool,
    /// Among the outcomes is a failure.
    pub(super) has_failed: bool,
    /// The descriptors that belong to it could not be sent.
    pub(super) is_torn: bool,
    /// From the worker: it is to be told again of the job before more of it, because descriptors of its context were lost.
    pub(super) lacks_job: bool,
    /// The word of the piece.
    pub(super) slot: u8,
    /// The job, or the segment.
    pub(super) number: u32,
    pub(super) items: u32,
    /// Descriptors that travel beside the piece: see `companion.rs`.
    pub(super) fds: u32,
}

pub(super) const HEAD_BYTES: usize = 16;

impl Head {
    pub(super) const fn new(kind: Kind, number: u32) -> Self {
        let (goes_on, tries_all, has_failed, is_torn, lacks_job) = (false, false, false, false, false);
        Self { kind, goes_on, tries_all, has_failed, is_torn, lacks_job, slot: 0, number, items: 0, fds: 0 }
    }

    pub(super) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let flags = [self.goes_on, self.tries_all, self.has_failed, self.is_torn, self.lacks_job];
        let flags = flags.into_iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(flag));
        bytes[..4].copy_from_slice(&[self.kind as u8, flags, self.slot, 0]);
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.items.to_le_bytes());
        bytes[12..].copy_from_slice(&self.fds.to_le_bytes());
        bytes
    }

    /// `None` for bytes that no head is.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[kind, flags, slot, _, a, b, c, d, e, f, g, h, i, j, k, l], body) = bytes.split_first_chunk()?;
        let kind = match kind {
            1 => Kind::Define,
            2 => Kind::Forget,
            3 => Kind::Items,
            4 => Kind::TakenBack,
            5 => Kind::Ready,
            6 => Kind::Unfit,
            7 => Kind::Lend,
            8 => Kind::Withdraw,
            9 => Kind::Unread,
            _ => return None,
        };
        let (number, items, fds) = ([a, b, c, d], [e, f, g, h], [i, j, k, l]);
        let [number, items, fds] = [number, items, fds].map(u32::from_le_bytes);
        let [goes_on, tries_all, has_failed, is_torn, lacks_job] = [1, 2, 4, 8, 16].map(|flag| flags & flag != 0);
        Some((Self { kind, goes_on, tries_all, has_failed, is_torn, lacks_job, slot, number, items, fds }, body))
    }
}

/// Why an item has no result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Failure {
    Panicked(PanicReport),
    /// Its bytes are no value of the function's argument.
    Argument(Codec),
    /// The bytes of its job's context are no value of that.
    Context(Codec),
    /// Its result could not be encoded.
    Result(Codec),
    FdLimit,
    /// Its result is longer than it may be.
    TooLarge {
        len_bytes: u64,
        limit_bytes: u64,
    },
    /// The worker is another build than the pool.
    BuildMismatch,
    Other {
        /// The worker.
        pid: u32,
        message: String,
    },
}

/// How an item in a piece begins: its length. How an outcome begins: the same, with this bit for a [`Failure`].
pub(super) const FAILED: u32 = 1 << 31;
/// How an item begins that lies in the store: behind it is its [`Address`].
const STORED: u32 = u32::MAX;

/// An item of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Here(&'a [u8]),
    Stored(Address),
}

/// Splits an item off the front of `bytes`.
pub(super) fn split_item<'a>(bytes: &mut &'a [u8]) -> Option<Item<'a>> {
    let (&len, rest) = bytes.split_first_chunk()?;
    let len = u32::from_le_bytes(len);
    if len == STORED {
        let (address, rest) = rest.split_first_chunk()?;
        *bytes = rest;
        return Some(Item::Stored(Address::parse(address)));
    }
    let (item, rest) = rest.split_at_checked(len as usize)?;
    *bytes = rest;
    Some(Item::Here(item))
}

/// The addresses of a piece's items, of those that lie in the store.
pub(super) fn addresses(mut bytes: &[u8]) -> impl Iterator<Item = Address> {
    let items = std::iter::from_fn(move || split_item(&mut bytes));
    items.filter_map(|item| if let Item::Stored(address) = item { Some(address) } else { None })
}

/// Appends an item, which is shorter than [`FAILED`].
pub(super) fn write_item(bytes: &mut Vec<u8>, item: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(item.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(item);
}

/// Appends an item that lies in the store.
pub(super) fn write_address(bytes: &mut Vec<u8>, address: Address) {
    bytes.extend_from_slice(&STORED.to_le_bytes());
    bytes.extend_from_slice(&address.to_bytes());
}

/// Splits an outcome off the front of `bytes`: [`FAILED`] or 0, and what it is.
pub(super) fn split_outcome<'a>(bytes: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let (&len, rest) = bytes.split_first_chunk()?;
    let len = u32::from_le_bytes(len);
    let (outcome, rest) = rest.split_at_checked((len & !FAILED) as usize)?;
    *bytes = rest;
    Some((len & FAILED, outcome))
}

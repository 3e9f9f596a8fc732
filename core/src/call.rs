//! Request and response in one cache line, between many clients and one server, any of which may be killed at any
//! instruction.
//!
//! # What
//! A cell for each client: one cache line that carries up to 56 bytes there and up to 56 bytes back, so a round trip moves
//! one line twice; beside it, in a line that is seldom read, the client's id. The server's end is an
//! [`EndWord`], so a dead server's successor takes over.
//!
//! | word of a cell | state | who may touch the payload |
//! |---|---|---|
//! | IDLE | no call | the client |
//! | REQUEST, with or without `SLEEPS` | a request; the server may be at it | the server |
//! | RESPONSE | a response | the client |
//! | FAILED | the server died or gave no response | the client |
//! | WITHDRAWN | the client gave up or died; the server may be at it still | the server |
//! | anything else | corrupt | nobody |
//!
//! A call is done at most once: a request that a dead server may have begun is failed, never given to its successor.
//!
//! # Protocol
//! Call ([`Client::call`]):
//! 1. a request of the cell's last client stands there: CAS to WITHDRAWN; it is WITHDRAWN: wait for IDLE; no server is
//!    ready: `NoServer`;
//! 2. write the payload; store REQUEST;
//! 3. full fence; the event word's flag is set: wake the server;
//! 4. spin for another word; then CAS(REQUEST -> REQUEST | `SLEEPS`) and park, in slices of 10 ms, after each probing the
//!    server. It is proven dead, or the deadline has passed: CAS(the word -> WITHDRAWN): `PeerDied`, `TimedOut`;
//! 5. RESPONSE: read the payload. FAILED: `PeerDied`.
//!
//! Serve ([`Server::recv`], [`Request::respond`]):
//! 1. look at the cells in turn: WITHDRAWN: CAS to IDLE. REQUEST: read the payload. None: announce at the event word, full
//!    fence, look again, sleep;
//! 2. write the response; CAS(REQUEST -> RESPONSE); the client sleeps: wake it. It is WITHDRAWN by now: CAS to IDLE.
//!    A request that is dropped: CAS to FAILED instead.
//!
//! Claim the server's end: claim the end word; every REQUEST becomes FAILED, every WITHDRAWN one IDLE: they were the
//! predecessor's; then `ready` = me. Close: `ready` = 0; every REQUEST becomes FAILED; close the end word.
//!
//! Claim a cell: CAS(its owner word: 0 or a proven dead client -> me). A REQUEST of the dead is withdrawn by the first call.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `call.request` | store of REQUEST in `post` | load in `pending` | the request | `call` |
//! | `call.response` | CAS in `turn` | load in `look` | the response; that the server does not touch the payload any more | `call` |
//! | `call.owner` | CAS in `Client::drop` | CAS in `claim` | that the last client does not touch the payload any more | `call` |
//!
//! The fence of call 3 is one half of `event.announce` ([`crate::event`]).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | call 1 and 2: a client | nothing; its cell is free once its death is proven |
//! | call 2 and 5 | a request, which is served for nobody; the cell's next client withdraws it |
//! | serve 1 and 2: the server | its clients prove the death within 10 ms: `PeerDied`; calls that follow: `PeerDied` or `NoServer` until a successor |
//! | serve 2, CAS and wake | a response; the client sees it when its slice ends |
//! | claim of the end, anywhere | as "serve 1 and 2" |
#![allow(unsafe_code)]

mod client;
mod server;

use core::alloc::Layout;
use core::ptr::NonNull;

pub use client::{CallError, Client, ConnectError};
pub use server::{Request, ServeError, Server};

use crate::end::EndWord;
use crate::event::EventWord;
use crate::prim::{AtomicU32, Ordering, WORD_BYTES, Word, copy_in, copy_out};
use crate::table::{Table, TableError};
use crate::wait::{Liveness, Wait};

/// The longest request or response, in bytes.
pub const MAX_BYTES: usize = PAYLOAD_WORDS * WORD_BYTES;
/// The most clients at once.
pub const MAX_CLIENTS: u32 = 1 << 10;

const PAYLOAD_WORDS: usize = 7;

const IDLE: u32 = 0;
const REQUEST: u32 = 1;
const RESPONSE: u32 = 2;
const FAILED: u32 = 3;
const WITHDRAWN: u32 = 4;
/// The client sleeps on the word.
const SLEEPS: u32 = 8;
/// A request or a response of up to [`MAX_BYTES`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    len: usize,
    bytes: [u8; MAX_BYTES],
}

impl core::ops::Deref for Message {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[derive(Debug)]
#[repr(C, align(128))]
struct Cell {
    word: AtomicU32,
    len: AtomicU32,
    payload: [Word; PAYLOAD_WORDS],
    /// The client, in a line of its own.
    owner: AtomicU32,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Cell>() == 128 && core::mem::offset_of!(Cell, owner) == 64);

#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Header {
    server: EndWord,
    /// The server that takes requests; 0: none.
    ready: AtomicU32,
    requests: EventWord,
    /// Cells from here on were never claimed. Only grows.
    used: AtomicU32,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 128);

/// The cells of a server and its clients in shared memory. Made by [`init`](Self::init); all zero is a valid start.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'m>(Table<'m, Header, Cell>);

impl<'m> Calls<'m> {
    /// The memory that cells for `clients` take, 1..=[`MAX_CLIENTS`].
    ///
    /// # Errors
    /// [`TableError::Count`].
    pub fn layout(clients: u32) -> Result<Layout, TableError> {
        Table::<Header, Cell>::layout(clients, MAX_CLIENTS)
    }

    /// Writes cells for `clients`, with nobody there.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes during `'m`, and nobody else uses it yet.
    pub unsafe fn init(memory: NonNull<u8>, len: usize, clients: u32) -> Result<Self, TableError> {
        let cell = || Cell {
            word: AtomicU32::new(IDLE),
            len: AtomicU32::new(0),
            payload: core::array::from_fn(|_| Word::new(0)),
            owner: AtomicU32::new(0),
        };
        // SAFETY: the caller's contract.
        unsafe { Table::init(memory, len, clients, MAX_CLIENTS, Header::default(), cell) }.map(Self)
    }

    /// The cells for `clients` that lie in `memory`.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes during `'m`; whoever writes it does so by atomic accesses.
    pub unsafe fn attach(memory: NonNull<u8>, len: usize, clients: u32) -> Result<Self, TableError> {
        // SAFETY: the caller's contract; header and cells are atomic integers.
        unsafe { Table::attach(memory, len, clients, MAX_CLIENTS) }.map(Self)
    }

    /// How many clients there can be at once.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.0.words.len()).unwrap_or(MAX_CLIENTS)
    }

    /// Wakes everybody to look again, clients too if the server is dead: what is left to do for a process that died here.
    pub fn reap<L: Liveness, W: Wait>(&self, life: &L, wait: &W) {
        if let crate::end::End::Owned(server) = self.0.header.server.peer()
            && life.is_dead(server)
        {
            for cell in self.used() {
                // ORDERING: Relaxed. A stale answer costs a slice.
                if cell.word.load(Ordering::Relaxed) & SLEEPS != 0 {
                    wait.wake(&cell.word, 1);
                }
            }
        }
        self.0.header.requests.wake_all(wait);
    }

    fn used(&self) -> &'m [Cell] {
        // ORDERING: Relaxed. The event word's fences order it with the requests; any value is safe.
        let used = self.0.header.used.load(Ordering::Relaxed) as usize;
        &self.0.words[..used.min(self.0.words.len())]
    }
}

impl Cell {
    /// Writes a message. The caller may touch the payload by the word.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_BYTES")]
    fn write(&self, message: &[u8]) {
        // SAFETY: the message is private and no longer than the payload, which both callers have checked.
        unsafe { copy_in(self.start(), message.as_ptr(), message.len()) };
        // ORDERING: Relaxed. Published by the word.
        self.len.store(message.len() as u32, Ordering::Relaxed);
    }

    /// Reads a message; `None` if its length is none.
    #[inline]
    fn read(&self) -> Option<Message> {
        // ORDERING: Relaxed. Ordered by the Acquire of the word.
        let len = self.len.load(Ordering::Relaxed) as usize;
        if len > MAX_BYTES {
            return None;
        }
        let mut bytes = [0; MAX_BYTES];
        // SAFETY: `bytes` is ours and as long as the payload.
        unsafe { copy_out(bytes.as_mut_ptr(), self.start(), len) };
        Some(Message { len, bytes })
    }

    #[inline]
    fn start(&self) -> NonNull<Word> {
        NonNull::from(&self.payload).cast()
    }

    /// CAS of the word, and what was found.
    #[inline]
    fn turn(&self, from: u32, to: u32) -> Result<u32, u32> {
        // ORDERING call.response: Release. Pairs with the Acquire in `look`.
        // Publishes the response, and that the server does not touch the payload any more. Failure: Relaxed, who goes on
        // looks again.
        self.word.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed)
    }
}

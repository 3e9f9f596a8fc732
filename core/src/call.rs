//! Request and response in one cache line, between many clients and one server, any of which may be killed at any
//! instruction.
//!
//! # What
//! A cell for each client: one cache line with a word of the client's, a word of the server's and 56 bytes, so a round trip of
//! short messages moves one line there and back; beside it, in a line that is seldom read, the client's id. Longer messages,
//! up to what the creator states, lie in a *room* of the cell's own behind all cells. A cell's bytes hold one message at a
//! time: the response takes the place of the request. The server's end is an [`EndWord`], so a dead server's successor takes
//! over.
//!
//! | word of a cell | written by | bits |
//! |---|---|---|
//! | `asked` | the client | `TURN`; `SLEEPS`: it sleeps; `WITHDRAWN`: it has given up; the length of its request in bytes |
//! | `answered` | the server | `TURN`; `FAILED`: there is no response; the length of the response in bytes |
//!
//! | the two `TURN` bits | state | who may touch the message |
//! |---|---|---|
//! | are equal | no call, or an answered one | the client |
//! | differ | a request; the server may be at it | the server |
//!
//! Each word has one writer, so nothing is ever swapped; every bit pattern means something. A call is done at most once: a
//! request that a dead server may have begun is failed, never given to its successor.
//!
//! Why a room and not a record ring for long messages: what lies in a cell's room belongs to whoever the cell says, so a death
//! leaves nothing to find, to free or to rebuild, and long messages add no row to the tables below.
//!
//! # Protocol
//! Call ([`Client::call`]):
//! 1. the turns differ, by a call that was given up or a dead client's: store `WITHDRAWN` and wait until they are equal; no
//!    server is ready: `NoServer`;
//! 2. write the request; store `asked`: the other turn, the length;
//! 3. full fence; the event word's flag is set: wake the server;
//! 4. spin until the turns are equal; then store `SLEEPS`, full fence, look again, and park on `answered`, in slices of 10 ms,
//!    after each probing the server. It is proven dead, or the deadline has passed: store `WITHDRAWN`, look once more, else
//!    `PeerDied`, `TimedOut`;
//! 5. `FAILED`: `PeerDied`. Otherwise the response is the client's to read until its next call.
//!
//! Serve ([`Server::recv`], [`Request::respond`]):
//! 1. look at the cells in turn. The turns differ: a request; `WITHDRAWN`, or of a length that none has: serve 3 with `FAILED`.
//!    None: announce at the event word, full fence, look again, sleep;
//! 2. write the response;
//! 3. store `answered`: the request's turn and the length, or `FAILED` if it was dropped; full fence; the client sleeps: wake it.
//!
//! Claim the server's end: claim the end word; what is asked and not answered was the predecessor's: serve 3 with `FAILED`; then
//! `ready` = me. Close: `ready` = 0; what is asked fails; close the end word.
//!
//! Claim a cell: CAS(its owner word: 0 or a proven dead client -> me); go on at the turn of its `asked`. A request of the dead
//! is withdrawn by the first call.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `call.request` | stores of `asked` | load in `asked_of` | the request | `call` |
//! | `call.response` | store in `answer` | load in `look` | the response; that the server does not touch the message any more | `call` |
//! | `call.owner` | CAS in `Client::drop` | CAS in `claim` | that the last client does not touch the message any more, and its turn | `call` |
//! | `call.asleep` | fence in `announce_sleep` | fence in `answer` | `SLEEPS` before the client looks, against `answered` before the server looks | `call` |
//!
//! The fence of call 3 is one half of `event.announce` ([`crate::event`]).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | call 1 and 2, also in the middle of a request: a client | nothing; its cell is free once its death is proven |
//! | call 2 and 5 | a request, which is served for nobody; the cell's next client withdraws it |
//! | call 5 and its next call | a response that nobody reads, and a free cell |
//! | serve 1 and 3, also in the middle of a response: the server | its clients prove the death within 10 ms: `PeerDied`; calls that follow: `PeerDied` or `NoServer` until a successor |
//! | serve 3, store and wake | a response; the client sees it when its slice ends |
//! | claim of the end, anywhere | as "serve 1 and 3" |
#![allow(unsafe_code)]

mod client;
mod message;
mod server;

use core::alloc::Layout;
use core::ptr::NonNull;

pub use client::{CallError, Client, ConnectError, Draft};
pub use message::Message;
pub use server::{Reply, Request, RespondError, ServeError, Server};

use crate::end::{End, EndWord};
use crate::event::EventWord;
use crate::prim::{AtomicU32, Ordering, WORD_BYTES, Word};
use crate::table::{Table, TableError};
use crate::wait::{Liveness, Wait};

/// Requests and responses of up to so many bytes travel in the cell's own line; there is always room for them.
pub const LINE_BYTES: usize = LINE_WORDS * WORD_BYTES;
/// [`LINE_BYTES`], as lengths stand in shared memory.
const SHORT: u32 = 56;
const _: () = assert!(SHORT as usize == LINE_BYTES);
/// The longest that messages can be, in bytes (256 MiB).
pub const MAX_BYTES: u32 = 1 << 28;
/// The most clients at once.
pub const MAX_CLIENTS: u32 = 1 << 10;

const LINE_WORDS: usize = 7;
/// Rooms begin at multiples of this: two lines, which CPUs fetch together.
const ROOM_ALIGN_BYTES: u32 = 128;

/// Whose turn it is: the two words' bits are equal, the client's; else the server's.
const TURN: u32 = 1 << 31;
/// In `asked`: the client sleeps on `answered`.
const SLEEPS: u32 = 1 << 30;
/// In `asked`: the client has given up.
const WITHDRAWN: u32 = 1 << 29;
/// In `answered`: there is no response.
const FAILED: u32 = 1 << 30;

#[derive(Debug)]
#[repr(C, align(128))]
struct Cell {
    asked: AtomicU32,
    answered: AtomicU32,
    line: [Word; LINE_WORDS],
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
    /// The longest request and response, in bytes; less than [`LINE_BYTES`] counts as that. Never changes.
    max_request: AtomicU32,
    max_response: AtomicU32,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 128);

/// How many clients there can be at once, and how long their messages; fixed when the cells are made. A number of clients alone
/// stands for messages of up to [`LINE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Shape {
    clients: u32,
    max_request_bytes: u32,
    max_response_bytes: u32,
}

impl Shape {
    /// Cells for `clients`, 1..=[`MAX_CLIENTS`], with messages of up to [`LINE_BYTES`] both ways.
    pub const fn new(clients: u32) -> Self {
        Self { clients, max_request_bytes: 0, max_response_bytes: 0 }
    }

    /// With requests of up to so many bytes, at most [`MAX_BYTES`]; below [`LINE_BYTES`] it changes nothing.
    pub const fn max_request_bytes(self, max_request_bytes: u32) -> Self {
        Self { max_request_bytes, ..self }
    }

    /// With responses of up to so many bytes, at most [`MAX_BYTES`]; below [`LINE_BYTES`] it changes nothing.
    pub const fn max_response_bytes(self, max_response_bytes: u32) -> Self {
        Self { max_response_bytes, ..self }
    }

    /// The number of clients.
    #[must_use]
    pub const fn clients(self) -> u32 {
        self.clients
    }

    /// Words of a cell's room: either message fits, and none is there if the line holds both.
    fn room_words(self) -> Result<usize, TableError> {
        let longest = self.max_request_bytes.max(self.max_response_bytes);
        if longest > MAX_BYTES {
            return Err(TableError::Message { len_bytes: longest, max_bytes: MAX_BYTES });
        }
        let in_line = longest as usize <= LINE_BYTES;
        Ok(if in_line { 0 } else { longest.next_multiple_of(ROOM_ALIGN_BYTES) as usize / WORD_BYTES })
    }

    /// Header and cells, and then the rooms: the layout of it all, and where the rooms begin.
    fn layout(self) -> Result<(Layout, usize), TableError> {
        let table = Table::<Header, Cell>::layout(self.clients, MAX_CLIENTS)?;
        let words = self.room_words()?.checked_mul(self.clients as usize);
        let rooms = words.and_then(|words| Layout::array::<Word>(words).ok());
        let whole = rooms.and_then(|rooms| table.extend(rooms).ok());
        let (layout, rooms_at) = whole.ok_or(TableError::TooShort { needed: u64::MAX, found: 0 })?;
        Ok((layout.pad_to_align(), rooms_at))
    }
}

impl From<u32> for Shape {
    fn from(clients: u32) -> Self {
        Self::new(clients)
    }
}

/// The cells of a server and its clients in shared memory. Made by [`init`](Self::init); all zero is a valid start, of messages
/// of up to [`LINE_BYTES`].
#[derive(Debug, Clone, Copy)]
pub struct Calls<'m> {
    header: &'m Header,
    cells: &'m [Cell],
    rooms: &'m [Word],
    /// As they stood in the header when this process first looked, and as the memory has room for.
    max_request: u32,
    max_response: u32,
    room_words: usize,
}

impl<'m> Calls<'m> {
    /// The memory that cells of this shape take.
    ///
    /// # Errors
    /// [`TableError::Count`], [`TableError::Message`]; [`TableError::TooShort`] if no address space of this target holds it.
    pub fn layout(shape: impl Into<Shape>) -> Result<Layout, TableError> {
        Ok(shape.into().layout()?.0)
    }

    /// Writes cells, with nobody there. Does not touch the rooms.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// As [`attach`](Self::attach), and nobody else uses the memory yet.
    pub unsafe fn init(memory: NonNull<u8>, len: usize, shape: impl Into<Shape>) -> Result<Self, TableError> {
        let shape = shape.into();
        let (layout, rooms_at) = shape.layout()?;
        if len < layout.size() {
            return Err(TableError::TooShort { needed: layout.size() as u64, found: len as u64 });
        }
        let cell = || Cell {
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            line: core::array::from_fn(|_| Word::new(0)),
            owner: AtomicU32::new(0),
        };
        let header = Header {
            max_request: AtomicU32::new(shape.max_request_bytes),
            max_response: AtomicU32::new(shape.max_response_bytes),
            ..Header::default()
        };
        // SAFETY: the caller's contract.
        unsafe { Table::init(memory, len, shape.clients, MAX_CLIENTS, header, cell) }?;
        // The model's words are objects, all of which must be made.
        let made = if cfg!(crosslane_loom) { shape.room_words()? * shape.clients as usize } else { 0 };
        for i in 0..made {
            // SAFETY: word `i` of the rooms lies inside the memory by the check above.
            let at = unsafe { memory.byte_add(rooms_at + i * size_of::<Word>()) };
            // SAFETY: as above, and aligned, since the rooms begin at a multiple of a cell's alignment.
            unsafe { at.cast::<Word>().write(Word::new(0)) };
        }
        // SAFETY: the caller's contract; it was just written.
        unsafe { Self::attach(memory, len, shape.clients) }
    }

    /// The cells for `clients` that lie in `memory`. How long messages may be stands there too.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes, which are initialised, to anything, during `'m`; whoever writes it
    /// does so by atomic accesses.
    pub unsafe fn attach(memory: NonNull<u8>, len: usize, clients: u32) -> Result<Self, TableError> {
        // SAFETY: the caller's contract; header and cells are atomic integers.
        let table = unsafe { Table::<Header, Cell>::attach(memory, len, clients, MAX_CLIENTS) }?;
        // ORDERING: Relaxed. Written before anybody else had the memory; any value is checked below.
        let max_of = |word: &AtomicU32| word.load(Ordering::Relaxed);
        let (request, response) = (max_of(&table.header.max_request), max_of(&table.header.max_response));
        let shape = Shape::new(clients).max_request_bytes(request).max_response_bytes(response);
        let (layout, rooms_at) = shape.layout()?;
        if len < layout.size() {
            return Err(TableError::TooShort { needed: layout.size() as u64, found: len as u64 });
        }
        let room_words = shape.room_words()?;
        // SAFETY: the rooms begin inside the memory, or at its end, by the check above.
        let rooms = unsafe { memory.byte_add(rooms_at) }.cast::<Word>();
        // SAFETY: all rooms lie inside the memory by the check above, aligned since they begin at a multiple of a cell's
        // alignment; atomics, so a shared reference stays right whatever others write.
        let rooms = unsafe { core::slice::from_raw_parts(rooms.as_ptr(), room_words * clients as usize) };
        Ok(Self {
            header: table.header,
            cells: table.words,
            rooms,
            max_request: request.max(SHORT),
            max_response: response.max(SHORT),
            room_words,
        })
    }

    /// How many clients there can be at once.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.cells.len()).unwrap_or(MAX_CLIENTS)
    }

    /// The longest request, in bytes.
    #[must_use]
    pub fn max_request_bytes(&self) -> usize {
        self.max_request as usize
    }

    /// The longest response, in bytes.
    #[must_use]
    pub fn max_response_bytes(&self) -> usize {
        self.max_response as usize
    }

    /// Wakes everybody to look again, clients too if the server is dead: what is left to do for a process that died here.
    pub fn reap<L: Liveness, W: Wait>(&self, life: &L, wait: &W) {
        if let End::Owned(server) = self.header.server.peer()
            && life.is_dead(server)
        {
            for cell in self.used() {
                // ORDERING: Relaxed. A stale answer costs a slice.
                if cell.asked.load(Ordering::Relaxed) & SLEEPS != 0 {
                    wait.wake(&cell.answered, 1);
                }
            }
        }
        self.header.requests.wake_all(wait);
    }

    #[inline(always)]
    fn used(&self) -> &'m [Cell] {
        // ORDERING: Relaxed. The event word's fences order it with the requests; any value is safe.
        let used = self.header.used.load(Ordering::Relaxed) as usize;
        &self.cells[..used.min(self.cells.len())]
    }

    /// Where a message of `len_bytes` of cell `at` lies; the caller has checked that there can be such a one.
    fn message(&self, at: usize, len_bytes: u32) -> Message<'m> {
        let len_bytes = len_bytes as usize;
        if len_bytes <= LINE_BYTES {
            Message::new(&self.cells[at].line, len_bytes)
        } else {
            let room = at * self.room_words;
            Message::new(&self.rooms[room..room + self.room_words], len_bytes)
        }
    }
}

/// Whether a request waits for its answer.
#[inline(always)]
fn is_asked(asked: u32, answered: u32) -> bool {
    (asked ^ answered) & TURN != 0
}

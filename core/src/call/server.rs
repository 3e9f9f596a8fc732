//! The side that answers.

use core::mem::ManuallyDrop;
use core::time::Duration;

use super::{Calls, Cell, FAILED, LINE_BYTES, Message, SHORT, SLEEPS, TURN, WITHDRAWN, is_asked};
use crate::end::ClaimError;
use crate::event::Slept;
use crate::owner::OwnerId;
use crate::prim::{Ordering, fence, pause};
use crate::wait::{Liveness, Slice, Wait, WakeMode};

/// The server's end. Dropping it closes it: clients get `PeerDied` and then `NoServer`.
#[derive(Debug)]
pub struct Server<'m, E: Wait + Liveness> {
    calls: Calls<'m>,
    me: OwnerId,
    /// Where the next look begins, so that no client is served before all others forever.
    next: usize,
    env: E,
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeError {
    /// None is there, and the call is one that does not block.
    Empty,
    /// The deadline has passed.
    TimedOut,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
}

/// Why a request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RespondError {
    /// The response is longer than the cells allow. The call has failed, as if the request had been dropped.
    TooLong {
        /// Its length in bytes.
        len_bytes: usize,
        /// The longest response, in bytes.
        max_bytes: usize,
    },
    /// This process is a raw `fork()` child; the request is its parent's.
    Forked,
}

/// A request that waits for its response, as a [`Message`]. Dropping it without one fails the call.
#[derive(Debug)]
#[must_use = "dropping a request fails the call"]
pub struct Request<'a, 'm, E: Wait + Liveness> {
    server: &'a Server<'m, E>,
    cell: &'m Cell,
    /// The cell's number.
    at: usize,
    /// Its client's word.
    asked: u32,
    message: Message<'m>,
}

/// A response that is written in place and then sent. Dropping it fails the call.
#[derive(Debug)]
#[must_use = "dropping a reply fails the call"]
pub struct Reply<'a, 'm, E: Wait + Liveness> {
    request: Request<'a, 'm, E>,
    len_bytes: u32,
}

impl<'m> Calls<'m> {
    /// Claims the server's end. Does not block. Calls that a dead server left are failed.
    ///
    /// # Errors
    /// [`ClaimError::EndTaken`] while a living server holds it, [`ClaimError::Forked`], [`ClaimError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside is a dead server.
    pub fn server<E: Wait + Liveness>(&self, env: E) -> Result<Server<'m, E>, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        self.header.server.claim(&env)?;
        let server = Server { calls: *self, me, next: 0, env };
        server.fail_all();
        // ORDERING: Relaxed. A client that sees it late does not ask; what it asks, the cell's word orders.
        self.header.ready.store(me.to_word(), Ordering::Relaxed);
        Ok(server)
    }
}

impl<'m, E: Wait + Liveness> Server<'m, E> {
    /// A request, if there is one. Does not block.
    ///
    /// # Errors
    /// [`ServeError::Empty`], [`ServeError::Forked`].
    pub fn try_recv(&mut self) -> Result<Request<'_, 'm, E>, ServeError> {
        self.check()?;
        let found = self.pending().ok_or(ServeError::Empty)?;
        Ok(self.taken(found))
    }

    /// A request; waits for one.
    ///
    /// # Errors
    /// [`ServeError::Forked`].
    ///
    /// # Crash
    /// A process killed inside, or before it responds, leaves clients that get `PeerDied`, and an end for a successor.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Request<'_, 'm, E>, ServeError> {
        let never = self.env.never();
        self.recv_until(never)
    }

    /// As [`recv`](Self::recv), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As `recv`, and [`ServeError::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Request<'_, 'm, E>, ServeError> {
        let deadline = self.env.after(timeout);
        self.recv_until(deadline)
    }

    /// As [`recv`](Self::recv), waiting at most until `deadline`.
    ///
    /// # Errors
    /// As `recv`, and [`ServeError::TimedOut`].
    #[inline(always)]
    pub fn recv_until(&mut self, deadline: E::Deadline) -> Result<Request<'_, 'm, E>, ServeError> {
        self.check()?;
        for _ in 0..self.env.spins() {
            if let Some(found) = self.pending() {
                return Ok(self.taken(found));
            }
            pause();
        }
        let found = self.wait_slow(deadline)?;
        Ok(self.taken(found))
    }

    #[cold]
    fn wait_slow(&self, deadline: E::Deadline) -> Result<(usize, u32), ServeError> {
        loop {
            let mut found = None;
            let slept =
                self.calls.header.requests.sleep_unless(WakeMode::Fenced, Slice::Long, deadline, &self.env, || {
                    found = self.pending();
                    found.is_some()
                });
            match found.or_else(|| self.pending()) {
                Some(found) => return Ok(found),
                None if slept == Slept::Expired => return Err(ServeError::TimedOut),
                None => {}
            }
        }
    }

    #[inline(always)]
    fn check(&self) -> Result<(), ServeError> {
        if self.env.is_still(self.me) { Ok(()) } else { Err(ServeError::Forked) }
    }

    /// Serve 1: the first cell with a request, and its client's word.
    #[inline(always)]
    fn pending(&self) -> Option<(usize, u32)> {
        // Read once: an atomic access makes the compiler read again what lies in memory.
        let (cells, max_request, mut at) = (self.calls.used(), self.calls.max_request, self.next);
        for _ in 0..cells.len() {
            at = if at < cells.len() { at } else { 0 };
            if let Some(asked) = asked_of(&cells[at]) {
                if asked & !TURN <= max_request {
                    return Some((at, asked));
                }
                // Given up, or of a length that nobody writes who keeps to the protocol, with `SLEEPS` or without.
                if let Some(asked) = self.sleeper_or_fail(&cells[at], asked) {
                    return Some((at, asked));
                }
            }
            at += 1;
        }
        None
    }

    /// The word of a client that sleeps as if it did not; any other that is no request is failed.
    #[cold]
    fn sleeper_or_fail(&self, cell: &Cell, asked: u32) -> Option<u32> {
        let awake = asked & !SLEEPS;
        if awake & !TURN <= self.calls.max_request {
            return Some(awake);
        }
        self.answer(cell, asked, FAILED);
        None
    }

    #[inline(always)]
    fn taken(&mut self, (at, asked): (usize, u32)) -> Request<'_, 'm, E> {
        self.next = at + 1;
        let (cell, len_bytes) = (&self.calls.cells[at], asked & !TURN);
        let message = if len_bytes <= SHORT {
            Message::new(&cell.line, len_bytes as usize)
        } else {
            self.calls.message(at, len_bytes)
        };
        Request { server: self, cell, at, asked, message }
    }

    /// Serve 3; whether the client was still waiting.
    #[inline(always)]
    fn answer(&self, cell: &Cell, asked: u32, answer: u32) -> bool {
        // ORDERING call.response: Release. Pairs with the Acquire in `look`.
        // Publishes the response, and that the server does not touch the message any more.
        cell.answered.store(asked & TURN | answer, Ordering::Release);
        // ORDERING call.asleep: SeqCst fence. Pairs with the fence in `announce_sleep`; see there.
        fence(Ordering::SeqCst);
        // ORDERING: Relaxed. The fence orders it behind the answer.
        let now = cell.asked.load(Ordering::Relaxed);
        if now & SLEEPS != 0 {
            self.env.wake(&cell.answered, 1);
        }
        (now ^ asked) & TURN != 0 || now & WITHDRAWN == 0
    }

    #[cold]
    fn fill_slow(&self, at: usize, response: &[u8], len_bytes: u32) {
        self.calls.message(at, len_bytes).fill(response);
    }

    fn fail_all(&self) {
        for cell in self.calls.used() {
            if let Some(asked) = asked_of(cell) {
                self.answer(cell, asked, FAILED);
            }
        }
    }
}

/// The client's word, if it has asked and is not answered.
#[inline(always)]
fn asked_of(cell: &Cell) -> Option<u32> {
    // ORDERING call.request: Acquire. Pairs with the Release in `say`: the request is visible.
    let asked = cell.asked.load(Ordering::Acquire);
    // ORDERING: Relaxed. Only servers write it: this one, or those before it, as the claim of the end shows.
    is_asked(asked, cell.answered.load(Ordering::Relaxed)).then_some(asked)
}

impl<'a, 'm, E: Wait + Liveness> Request<'a, 'm, E> {
    /// Responds. `false`: the client was seen to have given up, and nobody reads it; `true` may be wrong, if it gives up or dies
    /// in this moment.
    ///
    /// # Errors
    /// [`RespondError`]. [`max_response_bytes`](Self::max_response_bytes) says beforehand what fits.
    ///
    /// # Crash
    /// A process killed inside has responded, or its client gets `PeerDied`.
    #[inline(always)]
    pub fn respond(self, response: &[u8]) -> Result<bool, RespondError> {
        let len_bytes = self.fits(response.len())?;
        // Its fields alone, so that they stay in registers.
        let Self { server, cell, at, asked, .. } = *ManuallyDrop::new(self);
        if response.len() <= LINE_BYTES {
            Message::new(&cell.line, response.len()).fill(response);
        } else {
            server.fill_slow(at, response, len_bytes);
        }
        Ok(server.answer(cell, asked, len_bytes))
    }

    /// A response of `len_bytes` to be written in place. It takes the place of the request, whose bytes it may hold at first.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn reply(self, len_bytes: usize) -> Result<Reply<'a, 'm, E>, RespondError> {
        let len_bytes = self.fits(len_bytes)?;
        Ok(Reply { request: self, len_bytes })
    }

    /// The longest response, in bytes.
    #[must_use]
    pub fn max_response_bytes(&self) -> usize {
        self.server.calls.max_response_bytes()
    }

    #[inline(always)]
    fn fits(&self, len_bytes: usize) -> Result<u32, RespondError> {
        if self.server.check().is_err() {
            return Err(RespondError::Forked);
        }
        let max_bytes = self.server.calls.max_response;
        match u32::try_from(len_bytes) {
            Ok(len) if len <= max_bytes => Ok(len),
            _ => Err(RespondError::TooLong { len_bytes, max_bytes: max_bytes as usize }),
        }
    }
}

impl<'m, E: Wait + Liveness> core::ops::Deref for Request<'_, 'm, E> {
    type Target = Message<'m>;
    fn deref(&self) -> &Message<'m> {
        &self.message
    }
}

impl<E: Wait + Liveness> Drop for Request<'_, '_, E> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.server.check().is_ok() {
            self.server.answer(self.cell, self.asked, FAILED);
        }
    }
}

impl<E: Wait + Liveness> Reply<'_, '_, E> {
    /// Its length, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes as usize
    }

    /// Writes `bytes` at `offset` and leaves the other bytes as they are.
    ///
    /// # Panics
    /// If `offset + bytes.len()` is more than the reply has.
    pub fn copy_from(&mut self, offset: usize, bytes: &[u8]) {
        let Request { server, at, .. } = &self.request;
        server.calls.message(*at, self.len_bytes).copy_from(offset, bytes);
    }

    /// Sends it: see [`Request::respond`].
    ///
    /// # Errors
    /// [`RespondError::Forked`].
    pub fn send(self) -> Result<bool, RespondError> {
        if self.request.server.check().is_err() {
            return Err(RespondError::Forked);
        }
        let Request { server, cell, asked, .. } = *ManuallyDrop::new(self.request);
        Ok(server.answer(cell, asked, self.len_bytes))
    }
}

impl<E: Wait + Liveness> Drop for Server<'_, E> {
    fn drop(&mut self) {
        // A fork child's copy is the parent's.
        if self.check().is_ok() {
            // ORDERING: Relaxed. A client that sees it late finds the end closed when its slice ends.
            self.calls.header.ready.store(0, Ordering::Relaxed);
            self.fail_all();
            self.calls.header.server.close(self.me);
        }
    }
}

impl core::fmt::Display for ServeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty => "no request is there",
            Self::TimedOut => "no request came in time",
            Self::Forked => "this process is a fork child that has not joined",
        })
    }
}

impl core::fmt::Display for RespondError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong { len_bytes, max_bytes } => {
                write!(f, "a response of {len_bytes} bytes, and the longest has {max_bytes}")
            }
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
        }
    }
}

impl core::error::Error for ServeError {}
impl core::error::Error for RespondError {}

//! The side that answers.

use core::time::Duration;

use super::{Calls, Cell, FAILED, IDLE, MAX_BYTES, Message, REQUEST, RESPONSE, SLEEPS, WITHDRAWN};
use crate::end::ClaimError;
use crate::event::Slept;
use crate::owner::OwnerId;
use crate::prim::{Ordering, pause};
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

/// A request that waits for its response. Dropping it without one fails the call.
#[derive(Debug)]
#[must_use = "dropping a request fails the call"]
pub struct Request<'a, 'm, E: Wait + Liveness> {
    server: &'a Server<'m, E>,
    cell: &'m Cell,
    message: Message,
    answered: bool,
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
        self.0.header.server.claim(&env)?;
        let server = Server { calls: *self, me, next: 0, env };
        server.fail_all();
        // ORDERING: Relaxed. A client that sees it late does not ask; what it asks, the cell's word orders.
        self.0.header.ready.store(me.to_word(), Ordering::Relaxed);
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
    #[inline]
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
    pub fn recv_until(&mut self, deadline: E::Deadline) -> Result<Request<'_, 'm, E>, ServeError> {
        self.check()?;
        let mut spins = self.env.spins();
        loop {
            let mut found = self.pending();
            if found.is_none() && spins > 0 {
                spins -= 1;
                pause();
                continue;
            }
            let mut over = false;
            if found.is_none() {
                let requests = &self.calls.0.header.requests;
                let slept = requests.sleep_unless(WakeMode::Fenced, Slice::Long, deadline, &self.env, || {
                    found = self.pending();
                    found.is_some()
                });
                over = slept == Slept::Expired;
            }
            match found.or_else(|| if over { self.pending() } else { None }) {
                Some(found) => return Ok(self.taken(found)),
                None if over => return Err(ServeError::TimedOut),
                None => {}
            }
        }
    }

    fn check(&self) -> Result<(), ServeError> {
        if self.env.is_still(self.me) { Ok(()) } else { Err(ServeError::Forked) }
    }

    /// Serve 1: the first cell with a request, and that.
    fn pending(&self) -> Option<(usize, Message)> {
        let cells = self.calls.used();
        let next = self.next.min(cells.len());
        let (before, behind) = cells.split_at(next);
        let turns = (next..).zip(behind).chain((0..).zip(before));
        for (at, cell) in turns {
            // ORDERING call.request: Acquire. Pairs with the Release in `post`: the request is visible.
            let word = cell.word.load(Ordering::Acquire);
            match word & !SLEEPS {
                REQUEST => match cell.read() {
                    Some(message) => return Some((at, message)),
                    // A length that nobody writes who keeps to the protocol.
                    None => {
                        self.end(cell, FAILED);
                    }
                },
                WITHDRAWN => {
                    self.end(cell, FAILED);
                }
                _ => {}
            }
        }
        None
    }

    fn taken(&mut self, (at, message): (usize, Message)) -> Request<'_, 'm, E> {
        self.next = at + 1;
        Request { server: self, cell: &self.calls.0.words[at], message, answered: false }
    }

    /// CAS of a request to `end`, which its client is woken for, or of what was withdrawn to IDLE; whether it was the first.
    ///
    /// One pass is enough: a client only ever goes from the first of these words to the second, and to the third.
    fn end(&self, cell: &Cell, end: u32) -> bool {
        if cell.turn(REQUEST, end).is_ok() {
            return true;
        }
        let ended = cell.turn(REQUEST | SLEEPS, end).is_ok();
        if ended || cell.turn(WITHDRAWN, IDLE).is_ok() {
            self.env.wake(&cell.word, 1);
        }
        ended
    }

    fn fail_all(&self) {
        for cell in self.calls.used() {
            self.end(cell, FAILED);
        }
    }
}

impl<E: Wait + Liveness> Request<'_, '_, E> {
    /// Responds. `false`: the client has given up or died, and nobody reads it.
    ///
    /// # Panics
    /// If the response is longer than [`MAX_BYTES`].
    ///
    /// # Crash
    /// A process killed inside has responded, or its client gets `PeerDied`.
    #[inline]
    pub fn respond(mut self, response: &[u8]) -> bool {
        assert!(response.len() <= MAX_BYTES, "a response of {} bytes, and {MAX_BYTES} fit", response.len());
        self.answered = true;
        if self.server.check().is_err() {
            return false;
        }
        self.cell.write(response);
        self.server.end(self.cell, RESPONSE)
    }
}

impl<E: Wait + Liveness> core::ops::Deref for Request<'_, '_, E> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.message
    }
}

impl<E: Wait + Liveness> Drop for Request<'_, '_, E> {
    fn drop(&mut self) {
        if !self.answered && self.server.check().is_ok() {
            self.server.end(self.cell, FAILED);
        }
    }
}

impl<E: Wait + Liveness> Drop for Server<'_, E> {
    fn drop(&mut self) {
        // A fork child's copy is the parent's.
        if self.check().is_ok() {
            // ORDERING: Relaxed. A client that sees it late finds the end closed when its slice ends.
            self.calls.0.header.ready.store(0, Ordering::Relaxed);
            self.fail_all();
            self.calls.0.header.server.close(self.me);
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

impl core::error::Error for ServeError {}

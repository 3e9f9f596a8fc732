//! The side that asks.

use core::time::Duration;

use super::{Calls, Cell, FAILED, LINE_BYTES, Message, SHORT, SLEEPS, TURN, WITHDRAWN, is_asked};
use crate::end::End;
use crate::owner::OwnerId;
use crate::prim::{Ordering, fence, pause};
use crate::probe::Prober;
use crate::wait::{Liveness, Parked, Slice, Wait};

/// A client's cell. One call at a time; a process may have several clients.
#[derive(Debug)]
pub struct Client<'m, E: Wait + Liveness> {
    calls: Calls<'m>,
    cell: &'m Cell,
    at: usize,
    me: OwnerId,
    /// The last word stored to `asked`, which nobody else writes.
    asked: u32,
    env: E,
}

/// A request that is written in place and then asked. Dropping it asks nothing.
#[derive(Debug)]
#[must_use = "nothing is asked before `call`"]
pub struct Draft<'c, 'm, E: Wait + Liveness> {
    client: &'c mut Client<'m, E>,
    len_bytes: u32,
}

/// Why a call gave no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The server died, closed, or dropped the request. It may have been done, once or not at all.
    PeerDied,
    /// Nobody serves. The request was not sent.
    NoServer,
    /// The deadline has passed. The request may be done all the same, once or not at all.
    TimedOut,
    /// The request is longer than the cells allow. It was not sent.
    TooLong {
        /// Its length in bytes.
        len_bytes: usize,
        /// The longest request, in bytes.
        max_bytes: usize,
    },
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The words hold what no process writes that keeps to the protocol.
    Corrupt,
}

/// Why a client that slept waits no more.
#[derive(Debug, Clone, Copy)]
enum GaveUp {
    PeerDied,
    TimedOut,
}

/// Why there is no cell for one more client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// Every cell is a living client's.
    Full,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
}

impl<'m> Calls<'m> {
    /// Claims a cell for a client. Does not block; if none is free, probes the clients there are.
    ///
    /// # Errors
    /// [`ConnectError::Full`], [`ConnectError::Forked`].
    ///
    /// # Crash
    /// A process killed inside leaves a cell that is free once its death is proven.
    pub fn client<E: Wait + Liveness>(&self, env: E) -> Result<Client<'m, E>, ConnectError> {
        let me = env.me().ok_or(ConnectError::Forked)?;
        let cells = self.cells;
        let free = (0..cells.len()).find(|&at| self.claim(at, 0, me));
        let at = free.or_else(|| self.claim_of_dead(me, &env)).ok_or(ConnectError::Full)?;
        let cell = &cells[at];
        // ORDERING: Relaxed. The claim, or the proof of death, shows what the last client stored.
        let asked = cell.asked.load(Ordering::Relaxed);
        Ok(Client { calls: *self, cell, at, me, asked, env })
    }

    /// CAS of the owner word of cell `at`.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most MAX_CLIENTS")]
    fn claim(&self, at: usize, from: u32, me: OwnerId) -> bool {
        let cell = &self.cells[at];
        // ORDERING: Relaxed. The CAS takes exactly this word.
        if cell.owner.load(Ordering::Relaxed) != from {
            return false;
        }
        // ORDERING call.owner: Acquire. Pairs with the Release in `Client::drop`: the last client has done with the
        // message. Failure: Relaxed, nothing is read.
        if cell.owner.compare_exchange(from, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.raise_used(at as u32 + 1);
        true
    }

    fn raise_used(&self, least: u32) {
        let used = &self.header.used;
        // ORDERING: Relaxed, here and below. The fence of the call orders it before the server's look.
        let mut seen = used.load(Ordering::Relaxed);
        while seen < least {
            match used.compare_exchange_weak(seen, least, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// A cell of a client that is proven dead. What it asked is withdrawn by the first call.
    fn claim_of_dead<E: Wait + Liveness>(&self, me: OwnerId, env: &E) -> Option<usize> {
        let cells = self.cells;
        // ORDERING: Relaxed. Only names whom to probe.
        let owner_at = |at: usize| OwnerId::from_word(cells[at].owner.load(Ordering::Relaxed));
        let mut prober = Prober::default();
        for _ in 0..=cells.len() / 16 {
            let Some(dead) = prober.find_dead(cells.len(), me, env, owner_at) else { continue };
            return (0..cells.len()).find(|&at| self.claim(at, dead.to_word(), me));
        }
        None
    }
}

impl<'m, E: Wait + Liveness> Client<'m, E> {
    /// The longest request, in bytes.
    #[must_use]
    pub fn max_request_bytes(&self) -> usize {
        self.calls.max_request_bytes()
    }

    /// Sends `request` and waits for the response, or for the proof that none will come.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Crash
    /// A process killed inside has asked or has not; the server serves on, and the cell is free once the death is proven.
    #[inline(always)]
    pub fn call(&mut self, request: &[u8]) -> Result<Message<'_>, CallError> {
        self.call_until(request, self.env.never())
    }

    /// As [`call`](Self::call), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As `call`, and [`CallError::TimedOut`].
    pub fn call_timeout(&mut self, request: &[u8], timeout: Duration) -> Result<Message<'_>, CallError> {
        self.call_until(request, self.env.after(timeout))
    }

    /// As [`call`](Self::call), waiting at most until `deadline`.
    ///
    /// # Errors
    /// As `call`, and [`CallError::TimedOut`].
    #[inline(always)]
    pub fn call_until(&mut self, request: &[u8], deadline: E::Deadline) -> Result<Message<'_>, CallError> {
        let len_bytes = self.ready(request.len(), deadline)?;
        if request.len() <= LINE_BYTES {
            Message::new(&self.cell.line, request.len()).fill(request);
        } else {
            self.fill_slow(request, len_bytes);
        }
        self.ask(len_bytes);
        self.finish(deadline)
    }

    /// A request of `len_bytes` to be written in place. It holds what earlier messages left there. Waits, like a call, if an
    /// earlier one was given up and the server is at it still.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn draft(&mut self, len_bytes: usize) -> Result<Draft<'_, 'm, E>, CallError> {
        let len_bytes = self.ready(len_bytes, self.env.never())?;
        Ok(Draft { client: self, len_bytes })
    }

    /// As [`draft`](Self::draft), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As `draft`, and [`CallError::TimedOut`].
    pub fn draft_timeout(&mut self, len_bytes: usize, timeout: Duration) -> Result<Draft<'_, 'm, E>, CallError> {
        let len_bytes = self.ready(len_bytes, self.env.after(timeout))?;
        Ok(Draft { client: self, len_bytes })
    }

    #[cold]
    fn fill_slow(&self, request: &[u8], len_bytes: u32) {
        self.calls.message(self.at, len_bytes).fill(request);
    }

    /// Call 1: whether a request of so many bytes can be sent, and its length.
    #[inline(always)]
    fn ready(&self, len_bytes: usize, deadline: E::Deadline) -> Result<u32, CallError> {
        let max_bytes = self.calls.max_request;
        let len = match u32::try_from(len_bytes) {
            Ok(len) if len <= max_bytes => len,
            _ => return Err(CallError::TooLong { len_bytes, max_bytes: max_bytes as usize }),
        };
        if !self.env.is_still(self.me) {
            return Err(CallError::Forked);
        }
        if is_asked(self.asked, look(self.cell)) {
            self.await_turn_slow(deadline)?;
        }
        // ORDERING: Relaxed. A server that was not ready yet fails the request, which is right.
        if self.calls.header.ready.load(Ordering::Relaxed) == 0 {
            return Err(CallError::NoServer);
        }
        Ok(len)
    }

    /// Call 2 and 3, the request being written.
    #[inline(always)]
    fn ask(&mut self, len_bytes: u32) {
        self.asked = !self.asked & TURN | len_bytes;
        self.say(self.asked);
        // ORDERING event.announce: SeqCst fence. Pairs with the fence in `heavy`: either this process sees the flag, or
        // the server sees the request, and that the cell is used.
        fence(Ordering::SeqCst);
        self.calls.header.requests.wake_fenced(1, &self.env);
    }

    #[inline(always)]
    fn say(&self, asked: u32) {
        // ORDERING call.request: Release. Pairs with the Acquire in `asked_of`. Publishes the request.
        self.cell.asked.store(asked, Ordering::Release);
    }

    /// Call 4 and 5.
    #[inline(always)]
    fn finish(&self, deadline: E::Deadline) -> Result<Message<'m>, CallError> {
        match self.spin() {
            Some(answered) => self.response(answered),
            None => match self.wait_slow(deadline) {
                Ok(answered) => self.response(answered),
                Err(GaveUp::PeerDied) => Err(CallError::PeerDied),
                Err(GaveUp::TimedOut) => Err(CallError::TimedOut),
            },
        }
    }

    /// The server's word once the call has ended, if it does so soon.
    #[inline(always)]
    fn spin(&self) -> Option<u32> {
        // Read once: an atomic access makes the compiler read again what lies in memory.
        let (cell, asked) = (self.cell, self.asked);
        for _ in 0..self.env.spins() {
            let answered = look(cell);
            if !is_asked(asked, answered) {
                return Some(answered);
            }
            pause();
        }
        None
    }

    /// Call 4, after the spin: the server's word once the call has ended.
    #[cold]
    fn wait_slow(&self, deadline: E::Deadline) -> Result<u32, GaveUp> {
        self.announce_sleep(0);
        loop {
            let seen = look(self.cell);
            if !is_asked(self.asked, seen) {
                return Ok(seen);
            }
            let parked = self.env.park(&self.cell.answered, seen, Slice::Owner, deadline);
            let gives_up = if self.is_server_gone() {
                GaveUp::PeerDied
            } else if parked == Parked::Expired {
                GaveUp::TimedOut
            } else {
                continue;
            };
            self.say(self.asked | SLEEPS | WITHDRAWN);
            // A response that came after all, and no failure: that may be what the server does with what was withdrawn.
            let now = look(self.cell);
            let has_come = !is_asked(self.asked, now) && self.response(now).is_ok();
            return if has_come { Ok(now) } else { Err(gives_up) };
        }
    }

    /// Says that this client will sleep, before it looks once more.
    fn announce_sleep(&self, withdrawn: u32) {
        self.say(self.asked | SLEEPS | withdrawn);
        // ORDERING call.asleep: SeqCst fence. Forbids: the look that follows passes the store above while the server's look at
        // `asked` passes its store of the answer, so that this client sleeps on an answer that nobody wakes it for. Pairs with
        // the fence in `answer`.
        fence(Ordering::SeqCst);
    }

    /// Waits until the server has done with a call that was given up, or that a dead client has left.
    #[cold]
    fn await_turn_slow(&self, deadline: E::Deadline) -> Result<(), CallError> {
        self.announce_sleep(WITHDRAWN);
        loop {
            let seen = look(self.cell);
            if !is_asked(self.asked, seen) {
                return Ok(());
            }
            if self.is_server_gone() {
                return Err(CallError::NoServer);
            }
            // Who asked may have died before it woke the server.
            self.calls.header.requests.wake_all(&self.env);
            if self.env.park(&self.cell.answered, seen, Slice::Owner, deadline) == Parked::Expired {
                return Err(CallError::TimedOut);
            }
        }
    }

    /// Call 5: what the server's word says of the call, which has ended.
    #[inline(always)]
    fn response(&self, answered: u32) -> Result<Message<'m>, CallError> {
        let len_bytes = answered & !TURN;
        if len_bytes <= SHORT {
            Ok(Message::new(&self.cell.line, len_bytes as usize))
        } else {
            self.response_slow(len_bytes)
        }
    }

    /// A response that is not in the line, or none.
    #[cold]
    fn response_slow(&self, len_bytes: u32) -> Result<Message<'m>, CallError> {
        match len_bytes {
            len_bytes if len_bytes <= self.calls.max_response => Ok(self.calls.message(self.at, len_bytes)),
            FAILED => Err(CallError::PeerDied),
            _ => Err(CallError::Corrupt),
        }
    }

    /// Whether nobody will answer.
    fn is_server_gone(&self) -> bool {
        match self.calls.header.server.peer() {
            End::Owned(server) => server != self.me && self.env.is_dead(server),
            End::Vacant | End::Closed | End::Corrupt => true,
        }
    }
}

/// The server's word.
#[inline(always)]
fn look(cell: &Cell) -> u32 {
    // ORDERING call.response: Acquire. Pairs with the Release in `answer`: the response is visible, and the message is the
    // client's again.
    cell.answered.load(Ordering::Acquire)
}

impl<E: Wait + Liveness> Drop for Client<'_, E> {
    fn drop(&mut self) {
        // A fork child's copy is the parent's.
        if self.env.is_still(self.me) {
            // ORDERING call.owner: Release. Pairs with the Acquire in `claim`: this client has done with the message, and
            // stores no turn any more. Failure: Relaxed, a hostile peer has taken the cell.
            let _ = self.cell.owner.compare_exchange(self.me.to_word(), 0, Ordering::Release, Ordering::Relaxed);
        }
    }
}

impl<'c, E: Wait + Liveness> Draft<'c, '_, E> {
    /// Its length, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes as usize
    }

    /// Writes `bytes` at `offset` and leaves the other bytes as they are.
    ///
    /// # Panics
    /// If `offset + bytes.len()` is more than the draft has.
    pub fn copy_from(&mut self, offset: usize, bytes: &[u8]) {
        self.client.calls.message(self.client.at, self.len_bytes).copy_from(offset, bytes);
    }

    /// Sends it: see [`Client::call`].
    ///
    /// # Errors
    /// As there.
    pub fn call(self) -> Result<Message<'c>, CallError> {
        let never = self.client.env.never();
        self.call_until(never)
    }

    /// As [`call`](Self::call), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Client::call_timeout`].
    pub fn call_timeout(self, timeout: Duration) -> Result<Message<'c>, CallError> {
        let deadline = self.client.env.after(timeout);
        self.call_until(deadline)
    }

    /// As [`call`](Self::call), waiting at most until `deadline`.
    ///
    /// # Errors
    /// As [`Client::call_until`].
    pub fn call_until(self, deadline: E::Deadline) -> Result<Message<'c>, CallError> {
        // A fork child's copy of the draft is the parent's.
        if !self.client.env.is_still(self.client.me) {
            return Err(CallError::Forked);
        }
        self.client.ask(self.len_bytes);
        self.client.finish(deadline)
    }
}

impl core::fmt::Display for CallError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PeerDied => f.write_str("the server died or gave no response"),
            Self::NoServer => f.write_str("nobody serves"),
            Self::TimedOut => f.write_str("no response came in time"),
            Self::TooLong { len_bytes, max_bytes } => {
                write!(f, "a request of {len_bytes} bytes, and the longest has {max_bytes}")
            }
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the calls are corrupt"),
        }
    }
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "every cell is a living client's",
            Self::Forked => "this process is a fork child that has not joined",
        })
    }
}

impl core::error::Error for CallError {}
impl core::error::Error for ConnectError {}

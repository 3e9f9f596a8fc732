//! The side that asks.

use core::time::Duration;

use super::{Calls, Cell, FAILED, IDLE, MAX_BYTES, Message, REQUEST, RESPONSE, SLEEPS, WITHDRAWN};
use crate::end::End;
use crate::owner::OwnerId;
use crate::prim::{Ordering, fence, pause};
use crate::probe::Prober;
use crate::wait::{Liveness, Parked, Slice, Wait};

/// Swaps that a call may lose in a row before it parks all the same, and so looks at its deadline.
const LOST_IN_A_ROW: u32 = 64;

/// A client's cell. One call at a time; a process may have several clients.
#[derive(Debug)]
pub struct Client<'m, E: Wait + Liveness> {
    calls: Calls<'m>,
    cell: &'m Cell,
    me: OwnerId,
    env: E,
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
    /// The request is longer than [`MAX_BYTES`].
    TooLong {
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The words hold what no process writes that keeps to the protocol.
    Corrupt,
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
        let cells = self.0.words;
        let free = (0..cells.len()).find(|&at| self.claim(at, 0, me));
        let at = free.or_else(|| self.claim_of_dead(me, &env)).ok_or(ConnectError::Full)?;
        Ok(Client { calls: *self, cell: &cells[at], me, env })
    }

    /// CAS of the owner word of cell `at`.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most MAX_CLIENTS")]
    fn claim(&self, at: usize, from: u32, me: OwnerId) -> bool {
        let cell = &self.0.words[at];
        // ORDERING: Relaxed. The CAS takes exactly this word.
        if cell.owner.load(Ordering::Relaxed) != from {
            return false;
        }
        // ORDERING call.owner: Acquire. Pairs with the Release in `Client::drop`: the last client has done with the
        // payload. Failure: Relaxed, nothing is read.
        if cell.owner.compare_exchange(from, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.raise_used(at as u32 + 1);
        true
    }

    fn raise_used(&self, least: u32) {
        let used = &self.0.header.used;
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
        let cells = self.0.words;
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

impl<E: Wait + Liveness> Client<'_, E> {
    /// Sends `request`, of at most [`MAX_BYTES`] bytes, and waits for the response, or for the proof that none will come.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Crash
    /// A process killed inside has asked or has not; the server serves on, and the cell is free once the death is proven.
    #[inline]
    pub fn call(&mut self, request: &[u8]) -> Result<Message, CallError> {
        self.call_until(request, self.env.never())
    }

    /// As [`call`](Self::call), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As `call`, and [`CallError::TimedOut`].
    pub fn call_timeout(&mut self, request: &[u8], timeout: Duration) -> Result<Message, CallError> {
        self.call_until(request, self.env.after(timeout))
    }

    /// As [`call`](Self::call), waiting at most until `deadline`.
    ///
    /// # Errors
    /// As `call`, and [`CallError::TimedOut`].
    pub fn call_until(&mut self, request: &[u8], deadline: E::Deadline) -> Result<Message, CallError> {
        if request.len() > MAX_BYTES {
            return Err(CallError::TooLong { len_bytes: request.len() });
        }
        if !self.env.is_still(self.me) {
            return Err(CallError::Forked);
        }
        if !matches!(self.look(), IDLE | RESPONSE | FAILED) {
            self.await_idle_slow(deadline)?;
        }
        // ORDERING: Relaxed. A server that was not ready yet fails the request, which is right.
        if self.calls.0.header.ready.load(Ordering::Relaxed) == 0 {
            return Err(CallError::NoServer);
        }
        self.post(request);
        for _ in 0..self.env.spins() {
            if let Some(ended) = self.ended(self.look()) {
                return ended;
            }
            pause();
        }
        self.wait_slow(deadline)
    }

    /// Call 2 and 3.
    #[inline]
    fn post(&self, request: &[u8]) {
        self.cell.write(request);
        // ORDERING call.request: Release. Pairs with the Acquire in `pending`. Publishes the request.
        self.cell.word.store(REQUEST, Ordering::Release);
        // ORDERING event.announce: SeqCst fence. Pairs with the fence in `heavy`: either this process sees the flag, or
        // the server sees the request, and that the cell is used.
        fence(Ordering::SeqCst);
        self.calls.0.header.requests.wake_fenced(1, &self.env);
    }

    /// Call 4 and 5, after the spin.
    #[cold]
    fn wait_slow(&self, deadline: E::Deadline) -> Result<Message, CallError> {
        let mut lost = 0;
        loop {
            let word = self.look();
            if let Some(ended) = self.ended(word) {
                return ended;
            }
            if word == REQUEST && self.cell.turn(REQUEST, REQUEST | SLEEPS).is_err() && lost < LOST_IN_A_ROW {
                lost += 1;
                continue;
            }
            lost = 0;
            let parked = self.env.park(&self.cell.word, REQUEST | SLEEPS, Slice::Owner, deadline);
            let gives_up = if self.is_server_gone() {
                CallError::PeerDied
            } else if parked == Parked::Expired {
                CallError::TimedOut
            } else {
                continue;
            };
            match self.cell.turn(REQUEST | SLEEPS, WITHDRAWN) {
                Ok(_) => return Err(gives_up),
                // A response came after all, or nothing that could be waited for.
                Err(_) if parked == Parked::Expired => {
                    return self.ended(self.look()).unwrap_or(Err(CallError::TimedOut));
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until the server has seen that an earlier call was withdrawn.
    #[cold]
    fn await_idle_slow(&self, deadline: E::Deadline) -> Result<(), CallError> {
        loop {
            match self.look() {
                IDLE | RESPONSE | FAILED => return Ok(()),
                word @ (WITHDRAWN | REQUEST) => {
                    if word == REQUEST {
                        // Of a dead client, or of a call that unwound.
                        let _ = self.cell.turn(REQUEST, WITHDRAWN);
                    }
                    if self.is_server_gone() {
                        return Err(CallError::NoServer);
                    }
                    self.calls.0.header.requests.wake_all(&self.env);
                    if self.env.park(&self.cell.word, WITHDRAWN, Slice::Owner, deadline) == Parked::Expired {
                        return Err(CallError::TimedOut);
                    }
                }
                word if word == REQUEST | SLEEPS => {
                    let _ = self.cell.turn(word, WITHDRAWN);
                }
                _ => return Err(CallError::Corrupt),
            }
        }
    }

    /// What the word says of the call, if it has ended.
    #[inline]
    fn ended(&self, word: u32) -> Option<Result<Message, CallError>> {
        match word {
            RESPONSE => Some(self.cell.read().ok_or(CallError::Corrupt)),
            FAILED => Some(Err(CallError::PeerDied)),
            word if word & !SLEEPS == REQUEST => None,
            _ => Some(Err(CallError::Corrupt)),
        }
    }

    #[inline]
    fn look(&self) -> u32 {
        // ORDERING call.response: Acquire. Pairs with the Release in `turn`: the response is visible, and the payload is
        // the client's again.
        self.cell.word.load(Ordering::Acquire)
    }

    /// Whether nobody will answer.
    fn is_server_gone(&self) -> bool {
        match self.calls.0.header.server.peer() {
            End::Owned(server) => server != self.me && self.env.is_dead(server),
            End::Vacant | End::Closed | End::Corrupt => true,
        }
    }
}

impl<E: Wait + Liveness> Drop for Client<'_, E> {
    fn drop(&mut self) {
        // A fork child's copy is the parent's.
        if self.env.is_still(self.me) {
            // ORDERING call.owner: Release. Pairs with the Acquire in `claim`: this client has done with the payload.
            // Failure: Relaxed, a hostile peer has taken the cell.
            let _ = self.cell.owner.compare_exchange(self.me.to_word(), 0, Ordering::Release, Ordering::Relaxed);
        }
    }
}

impl core::fmt::Display for CallError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PeerDied => f.write_str("the server died or gave no response"),
            Self::NoServer => f.write_str("nobody serves"),
            Self::TimedOut => f.write_str("no response came in time"),
            Self::TooLong { len_bytes } => write!(f, "{len_bytes} bytes are more than {MAX_BYTES}"),
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

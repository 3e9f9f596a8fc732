//! Who holds an end of a ring: an owner word that outlives its owner.
//!
//! # What
//! A `u32` per end: 0 nobody yet; an [`OwnerId`]; or `CLOSED`, left by an owner that ended in order. An end is claimed
//! by at most one participant; when that one is proven dead the next claimant takes its place.
//!
//! # Protocol
//! Claim ([`EndWord::claim`]):
//! 1. load the word; a living owner: `EndTaken`;
//! 2. vacant, closed, or owned by a participant that is *proven* dead: CAS(what was read -> me); lost: again;
//! 3. rebuild the position from the ring's own words.
//!
//! Close ([`EndWord::close`]): CAS(me -> CLOSED), after the last item was published.
//!
//! Hand over, to a process that is sent the end by other means:
//! 1. [`EndWord::hand_over`]: CAS(me -> me); from here on the sender only withdraws;
//! 2. the message, with the sender's id;
//! 3. [`EndWord::take_over`], in the receiver: CAS(sender -> me), and rebuild the position.
//! 4. The receiver is proven dead: the sender withdraws, which is `close`. One of 3 and 4 succeeds. Who can get an end back
//!    that it handed over has to count the claims: see [`record`](crate::record).
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `end.word` | CAS in `close` | load in `peer`, CAS in `claim` | everything that the closing end did to the ring | `end` |
//! | `end.handed` | CAS in `hand_over` | CAS in `take_over` | everything that the sender did to the ring | `end` |
//!
//! A dead owner's stores are visible through the proof of death ([`Liveness::is_dead`]).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | 1 and 2 | nothing |
//! | 2 and 3, or while it holds the end | an owner that is proven dead: the next claimant takes over, a waiting peer gets `PeerDied` |
//! | last item and close | the same |
//! | close and the peer's wake | `CLOSED`; a sleeping peer sees it when its slice ends |
//! | hand over 1 and 3, the sender | an owner that is proven dead, until the receiver takes the end over |
//! | hand over 1 and 3, the receiver | the sender's end; 4 closes it |

use crate::owner::OwnerId;
use crate::prim::{AtomicU32, Ordering};
use crate::wait::Liveness;

/// Bit 31: the last owner ended in order.
const CLOSED: u32 = 1 << 31;
/// Swaps that a claim may lose before the word counts as corrupt: the first loss to an honest peer leaves a living owner.
const LOST_IN_A_ROW: u32 = 64;

/// The shared word. All zero is a valid start: nobody has claimed the end yet.
#[derive(Debug)]
#[repr(transparent)]
pub struct EndWord(AtomicU32);

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<EndWord>() == 4);

/// What an end's word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nobody has claimed it yet.
    Vacant,
    /// Claimed; the owner may be dead.
    Owned(OwnerId),
    /// Its last owner ended in order, and nobody has claimed it since.
    Closed,
    /// The word holds what no process writes that keeps to the protocol.
    Corrupt,
}

/// Why an end could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimError {
    /// A living participant holds the end; it may be this process.
    EndTaken(OwnerId),
    /// The end was to be taken over, and is nobody's: who sent it has closed it.
    Withdrawn,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The shared words hold what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for ClaimError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::EndTaken(owner) => write!(f, "the end is held by {owner}, which lives"),
            Self::Withdrawn => f.write_str("the end was closed by the process that sent it"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::error::Error for ClaimError {}

impl Default for EndWord {
    #[track_caller]
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl EndWord {
    /// Claims the end for this process. Does not block.
    ///
    /// # Errors
    /// [`ClaimError::EndTaken`] while a living participant holds it, [`ClaimError::Forked`] in a fork child,
    /// [`ClaimError::Corrupt`] if the word holds nonsense.
    ///
    /// # Crash
    /// A process killed inside leaves the end as it was, or owned by a dead participant.
    pub fn claim<L: Liveness>(&self, life: &L) -> Result<(), ClaimError> {
        let me = life.me().ok_or(ClaimError::Forked)?;
        for _ in 0..LOST_IN_A_ROW {
            // ORDERING: Relaxed. The CAS below acquires what was read here.
            let seen = self.0.load(Ordering::Relaxed);
            match decode(seen) {
                End::Vacant | End::Closed => {}
                End::Owned(owner) if life.is_dead(owner) => {}
                End::Owned(owner) => return Err(ClaimError::EndTaken(owner)),
                End::Corrupt => return Err(ClaimError::Corrupt),
            }
            // ORDERING end.word: Acquire. Pairs with the Release in `close`: the predecessor's last steps are visible
            // to the rebuild of the position. Failure: Relaxed, the loop reads again.
            if self.0.compare_exchange(seen, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
        Err(ClaimError::Corrupt)
    }

    /// Gives the end up in order, so that the peer sees `Closed`. Nothing happens if `me` does not hold it.
    pub fn close(&self, me: OwnerId) {
        // ORDERING end.word: Release. Pairs with the Acquires in `peer` and `claim`.
        // Publishes everything that this end did to the ring. Failure: Relaxed, nothing is read.
        let _ = self.0.compare_exchange(me.to_word(), CLOSED, Ordering::Release, Ordering::Relaxed);
    }

    /// Says that the end, which is `me`'s, goes to whoever [takes it over](Self::take_over) from `me`, which then does no
    /// more with it than to close it if that one is proven dead. `false` if `me` does not hold it.
    pub fn hand_over(&self, me: OwnerId) -> bool {
        // ORDERING end.handed: Release. Pairs with the Acquire in `take_over`.
        // Publishes everything that this end did to the ring. Failure: Relaxed, nothing is read.
        self.0.compare_exchange(me.to_word(), me.to_word(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes the end over from `from`, which has [handed it over](Self::hand_over) and may be dead by now. Does not block.
    ///
    /// # Errors
    /// [`ClaimError::EndTaken`] if somebody else holds it, [`ClaimError::Withdrawn`] if nobody does,
    /// [`ClaimError::Forked`], [`ClaimError::Corrupt`].
    ///
    /// # Crash
    /// A process killed inside leaves the end as it was, or owned by a dead participant.
    pub fn take_over<L: Liveness>(&self, from: OwnerId, life: &L) -> Result<(), ClaimError> {
        let me = life.me().ok_or(ClaimError::Forked)?;
        // ORDERING end.handed: Acquire. Pairs with the Release in `hand_over`: the sender's last steps are visible to the
        // rebuild of the position. Failure: Relaxed, only to say why.
        match self.0.compare_exchange(from.to_word(), me.to_word(), Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(seen) => Err(match decode(seen) {
                End::Owned(owner) => ClaimError::EndTaken(owner),
                End::Vacant | End::Closed => ClaimError::Withdrawn,
                End::Corrupt => ClaimError::Corrupt,
            }),
        }
    }

    /// What the other side sees of this end.
    #[must_use]
    pub fn peer(&self) -> End {
        // ORDERING end.word: Acquire. Pairs with the Release in `close`: who sees `Closed` sees the last item.
        decode(self.0.load(Ordering::Acquire))
    }

    /// Whether the other side should ask [`peer`](EndWord::peer) because the end may be closed; for fast paths.
    #[must_use]
    #[inline]
    pub fn looks_closed(&self) -> bool {
        // ORDERING: Relaxed. Who acts on what the closed end did asks `peer`, which acquires.
        self.0.load(Ordering::Relaxed) == CLOSED
    }
}

fn decode(word: u32) -> End {
    match (word, OwnerId::from_word(word)) {
        (0, _) => End::Vacant,
        (CLOSED, _) => End::Closed,
        (_, Some(owner)) if owner.to_word() == word => End::Owned(owner),
        _ => End::Corrupt,
    }
}

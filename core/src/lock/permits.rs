//! A counting semaphore whose permits name their holders, so that a dead holder's come back.
//!
//! # What
//! One word for each permit, an [`EventWord`] for who waits, and a hint where a permit became free last. A permit belongs
//! to a process; its threads may pass it on among each other.
//!
//! | word of a permit | state |
//! |---|---|
//! | 0 | free |
//! | id | held, by a guard of that process |
//! | id and `DETACHED` (bit 30) | held by that process, and any of its threads may give it up |
//! | anything else | counts as held by nobody who could die |
//!
//! There is no count beside the words that could disagree with them: what is free is what is 0.
//!
//! # Protocol
//! Acquire ([`Permits::acquire`]):
//! 1. from the hint on, once round: a word that is 0: CAS(0 -> me): done; lost: the next word;
//! 2. spin a while on the word of the hint;
//! 3. announce at the event word, and 1 again; nothing: sleep, at most for a 10 ms slice;
//! 4. 1 again; nothing: probe the holders, up to 16 after each slice; recover who is dead; again from 3, or give up at the
//!    deadline.
//!
//! Release ([`Permits::release`]):
//! 1. CAS(me -> 0); the word is not that: nothing (a guard that was inherited over a `fork()`);
//! 2. full fence; the event word's flag is set: wake one.
//!
//! Recover a participant that is *proven* dead: CAS(its word -> 0) at each of its words; then wake everybody, also when
//! there was no word: an earlier recoverer may have died before it woke anybody.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `permits.word` | CAS in `free` | CAS in `take` | what the last holder did while it had the permit | `permits` |
//!
//! The fence of release 2 is one half of `event.announce` ([`crate::event`]).
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | acquire 1 and release 1: a holder | words of a dead owner: who waits frees them within a slice for each 16 holders |
//! | acquire 3, asleep | a stale flag |
//! | just woken, before its 1 | a free word; the other waiters find it when their slices end, after at most 10 ms |
//! | release 1 and 2 | the same |
//! | recover, anywhere | a prefix of its work; the next recoverer does the rest |
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::event::{EventWord, Slept};
use crate::owner::OwnerId;
use crate::prim::{AtomicU32, Ordering, fence_after_rmw, pause};
use crate::probe::Prober;
use crate::table::{Table, TableError};
use crate::wait::{Liveness, Slice, Wait, WakeMode};

/// The most permits of one semaphore.
pub const MAX_PERMITS: u32 = 1 << 16;
/// Bit 30 of a permit's word: no guard gives it up.
const DETACHED: u32 = 1 << 30;

#[derive(Debug, Default)]
#[repr(C)]
struct Header {
    event: EventWord,
    /// A word that became free lately. Any value is right.
    hint: AtomicU32,
}

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<Header>() == 8);

/// The words of a semaphore in shared memory. Made by [`init`](Self::init); all zero is a valid start: all free.
#[derive(Debug, Clone, Copy)]
pub struct Permits<'m>(Table<'m, Header, AtomicU32>);

/// Which permit of a semaphore this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// Why no permit was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// None is free, and the call is one that does not block.
    WouldBlock,
    /// The deadline has passed.
    TimedOut,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
}

/// More permits were given back than there are to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverRelease;

impl<'m> Permits<'m> {
    /// The memory that `permits` permits take, 1..=[`MAX_PERMITS`].
    ///
    /// # Errors
    /// [`TableError::Count`].
    pub fn layout(permits: u32) -> Result<Layout, TableError> {
        Table::<Header, AtomicU32>::layout(permits, MAX_PERMITS)
    }

    /// Writes a semaphore of `permits` free permits.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes during `'m`, and nobody else uses it yet.
    pub unsafe fn init(memory: NonNull<u8>, len: usize, permits: u32) -> Result<Self, TableError> {
        let (header, word) = (Header::default(), || AtomicU32::new(0));
        // SAFETY: the caller's contract.
        unsafe { Table::init(memory, len, permits, MAX_PERMITS, header, word) }.map(Self)
    }

    /// The semaphore of `permits` permits that lies in `memory`.
    ///
    /// # Errors
    /// [`TableError`].
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes during `'m`; whoever writes it does so by atomic
    /// accesses.
    pub unsafe fn attach(memory: NonNull<u8>, len: usize, permits: u32) -> Result<Self, TableError> {
        // SAFETY: the caller's contract; header and words are atomic integers.
        unsafe { Table::attach(memory, len, permits, MAX_PERMITS) }.map(Self)
    }

    /// How many permits there are, free or not.
    #[must_use]
    pub fn limit(&self) -> u32 {
        u32::try_from(self.0.words.len()).unwrap_or(MAX_PERMITS)
    }

    /// How many permits were free when they were looked at, one after another: old by the time it is known. Those of dead
    /// holders count as held until somebody recovers them. Reads every word.
    #[must_use]
    pub fn available(&self) -> u32 {
        // ORDERING: Relaxed. A number that may be old.
        let free = self.0.words.iter().filter(|word| word.load(Ordering::Relaxed) == 0).count();
        u32::try_from(free).unwrap_or(MAX_PERMITS)
    }

    /// Takes a permit if one is free. Does not block; if none is free, asks about at most 16 holders whether they died.
    ///
    /// May miss a permit that changes hands at this very moment.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`], [`AcquireError::Forked`].
    ///
    /// # Crash
    /// As [`acquire`](Self::acquire).
    #[inline]
    pub fn try_acquire<E: Wait + Liveness>(&self, env: &E) -> Result<Place, AcquireError> {
        let me = env.me().ok_or(AcquireError::Forked)?;
        if let Some(place) = self.take(me) {
            return Ok(place);
        }
        self.recover_one_slow(me, &mut Prober::default(), env);
        self.take(me).ok_or(AcquireError::WouldBlock)
    }

    /// Takes a permit; waits until one is free, or a holder proven dead, or until the deadline.
    ///
    /// Not fair: a caller that runs may overtake one that sleeps.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], [`AcquireError::Forked`].
    ///
    /// # Crash
    /// A process killed inside, or with the permit, holds it until somebody who waits, or calls
    /// [`recover`](Self::recover), proves the death.
    #[inline]
    pub fn acquire<E: Wait + Liveness>(&self, env: &E, deadline: E::Deadline) -> Result<Place, AcquireError> {
        let me = env.me().ok_or(AcquireError::Forked)?;
        if let Some(place) = self.take(me) {
            return Ok(place);
        }
        self.acquire_slow(me, env, deadline)
    }

    /// Gives the permit at `place` back and wakes one waiter, if any may sleep. Does not block.
    ///
    /// # Errors
    /// [`OverRelease`] if this process does not hold it; nothing has happened then.
    #[inline]
    pub fn release<E: Wait + Liveness>(&self, place: Place, env: &E) -> Result<(), OverRelease> {
        let me = env.me().ok_or(OverRelease)?;
        if !self.free(place.0, me.to_word()) {
            return Err(OverRelease);
        }
        self.freed(place.0, env);
        Ok(())
    }

    /// Leaves the permit at `place` to the process as a whole: [`release_any`](Self::release_any) gives it back.
    ///
    /// # Errors
    /// [`OverRelease`] if this process does not hold it.
    pub fn detach<L: Liveness>(&self, place: Place, life: &L) -> Result<(), OverRelease> {
        let me = life.me().ok_or(OverRelease)?.to_word();
        let word = self.0.words.get(place.0).ok_or(OverRelease)?;
        // ORDERING: Relaxed. The owner stays; whoever takes the permit next acquires what frees it.
        let detached = word.compare_exchange(me, me | DETACHED, Ordering::Relaxed, Ordering::Relaxed);
        detached.map(|_| ()).map_err(|_| OverRelease)
    }

    /// Gives one detached permit of this process back. Reads every word at worst.
    ///
    /// # Errors
    /// [`OverRelease`] if this process has none.
    pub fn release_any<E: Wait + Liveness>(&self, env: &E) -> Result<(), OverRelease> {
        let detached = env.me().ok_or(OverRelease)?.to_word() | DETACHED;
        for (place, word) in self.0.words.iter().enumerate() {
            // ORDERING: Relaxed. The CAS in `free` takes exactly this word.
            if word.load(Ordering::Relaxed) == detached && self.free(place, detached) {
                self.freed(place, env);
                return Ok(());
            }
        }
        Err(OverRelease)
    }

    /// Frees what `owner` held, if it is proven dead, and wakes everybody; returns how many permits that were. Idempotent,
    /// and any number of processes may do it at once. Reads every word.
    ///
    /// # Crash
    /// A process killed inside leaves the rest to the next who calls.
    pub fn recover<E: Wait + Liveness>(&self, owner: OwnerId, env: &E) -> u32 {
        if env.is_dead(owner) { self.recover_dead(owner, env) } else { 0 }
    }

    /// As [`recover`](Self::recover), for everybody whom `life` knows to be dead.
    pub fn reap<L: Liveness, W: Wait>(&self, life: &L, wait: &W) {
        for (i, word) in self.0.words.iter().enumerate() {
            // ORDERING: Relaxed. The CAS in `free` takes exactly this word.
            let word = word.load(Ordering::Relaxed);
            if OwnerId::from_word(word).is_some_and(|owner| life.is_dead(owner)) {
                self.free(i, word);
            }
        }
        self.0.header.event.wake_all(wait);
    }

    fn recover_dead<W: Wait>(&self, owner: OwnerId, wait: &W) -> u32 {
        let mut freed = 0;
        for (i, word) in self.0.words.iter().enumerate() {
            // ORDERING: Relaxed. The CAS in `free` takes exactly this word.
            let word = word.load(Ordering::Relaxed);
            if OwnerId::from_word(word) == Some(owner) && self.free(i, word) {
                freed += 1;
            }
        }
        self.0.header.event.wake_all(wait);
        freed
    }

    #[cold]
    fn acquire_slow<E: Wait + Liveness>(
        &self,
        me: OwnerId,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Place, AcquireError> {
        if let Some(place) = self.spin(me, env.spins()) {
            return Ok(place);
        }
        let mut prober = Prober::default();
        loop {
            let mut taken = None;
            let slept = self.0.header.event.sleep_unless(WakeMode::Fenced, Slice::Owner, deadline, env, || {
                taken = self.take(me);
                taken.is_some()
            });
            if let Some(place) = taken.or_else(|| self.take(me)) {
                return Ok(place);
            }
            let recovered = self.recover_one_slow(me, &mut prober, env);
            if recovered && let Some(place) = self.take(me) {
                return Ok(place);
            }
            if slept == Slept::Expired {
                return Err(AcquireError::TimedOut);
            }
        }
    }

    /// Spins for a free word; `None` when it is time to sleep.
    fn spin(&self, me: OwnerId, pauses: u32) -> Option<Place> {
        for _ in 0..pauses {
            // ORDERING: Relaxed. `take` acquires what was read here.
            if self.0.words[self.hint()].load(Ordering::Relaxed) == 0
                && let Some(place) = self.take(me)
            {
                return Some(place);
            }
            pause();
        }
        None
    }

    /// Frees what one dead holder held, if there is one among those that are asked about.
    #[cold]
    fn recover_one_slow<E: Wait + Liveness>(&self, me: OwnerId, prober: &mut Prober, env: &E) -> bool {
        // ORDERING: Relaxed. Only names whom to probe.
        let owner_at = |at: usize| OwnerId::from_word(self.0.words[at].load(Ordering::Relaxed));
        let dead = prober.find_dead(self.0.words.len(), me, env, owner_at);
        dead.is_some_and(|owner| self.recover_dead(owner, env) > 0)
    }

    fn hint(&self) -> usize {
        // ORDERING: Relaxed. Any value is right.
        self.0.header.hint.load(Ordering::Relaxed) as usize % self.0.words.len()
    }

    #[inline]
    fn take(&self, me: OwnerId) -> Option<Place> {
        let (words, first) = (self.0.words, self.hint());
        (first..words.len()).chain(0..first).find(|&i| is_taken(&words[i], me)).map(Place)
    }

    /// CAS(`held` -> 0) at `place`.
    #[inline]
    fn free(&self, place: usize, held: u32) -> bool {
        // ORDERING permits.word: Release. Pairs with the Acquire in `is_taken`.
        // Publishes what the holder did; in a recovery, what the proof of death showed. Failure: Relaxed, nothing is read.
        let free = |word: &AtomicU32| word.compare_exchange(held, 0, Ordering::Release, Ordering::Relaxed).is_ok();
        self.0.words.get(place).is_some_and(free)
    }

    /// What follows a `free`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a place is below MAX_PERMITS")]
    fn freed<W: Wait>(&self, place: usize, wait: &W) {
        // ORDERING event.announce: SeqCst fence. Pairs with the fence in `heavy`: either this process sees the flag, or
        // the waiter sees the free word.
        fence_after_rmw(Ordering::SeqCst);
        // ORDERING: Relaxed. Any value is right.
        self.0.header.hint.store(place as u32, Ordering::Relaxed);
        self.0.header.event.wake_fenced(1, wait);
    }
}

/// CAS(0 -> `me`), if the word looks free.
#[inline]
fn is_taken(word: &AtomicU32, me: OwnerId) -> bool {
    // ORDERING permits.word: Acquire. Pairs with the Release in `free`: what the last holder did is visible.
    // The load before it and a failure are Relaxed: nothing is read.
    word.load(Ordering::Relaxed) == 0
        && word.compare_exchange(0, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
}

impl core::fmt::Display for AcquireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "no permit is free",
            Self::TimedOut => "no permit became free in time",
            Self::Forked => "this process is a fork child that has not joined",
        })
    }
}

impl core::fmt::Display for OverRelease {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("more permits were given back than there are to give")
    }
}

impl core::error::Error for AcquireError {}
impl core::error::Error for OverRelease {}

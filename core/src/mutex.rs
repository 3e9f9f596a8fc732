//! A lock that names its owner, so that a dead owner's lock comes to the next one instead of hanging.
//!
//! # What
//! A `u32` = [`OwnerId`] word in the low 30 bits | `WAITERS` (bit 30) | `POISON` (bit 31). The owner is a process, not
//! a thread: threads of one process exclude each other through the same word.
//!
//! | word | state |
//! |---|---|
//! | 0 | free |
//! | `POISON` | free; what the lock guards was left broken and nobody has repaired it |
//! | id, with or without `POISON` | held; nobody has announced that he waits; `POISON`: it was poisoned when taken |
//! | id and `WAITERS`, with or without `POISON` | held; somebody may sleep, so the unlock wakes one |
//! | anything else | corrupt: no process writes it that keeps to the protocol |
//!
//! # Protocol
//! Lock ([`LockWord::lock`]):
//! 1. CAS(0 -> me): done. That is the whole fast path.
//! 2. Spin a while for a free word, as long as nobody is known to sleep.
//! 3. Look. Free: CAS(free -> me, `POISON` kept, and `WAITERS` if this waiter has slept); lost: look again.
//! 4. Held: CAS(word -> word | `WAITERS`): announce; lost: look again.
//! 5. Park while the word holds what 4 left there, at most for a 10 ms slice.
//! 6. The word still is what it was: probe the owner. Proven dead: CAS(exactly that word -> me, flags kept), and the
//!    lock is taken as `OwnerDied`. Otherwise look again, or give up at the deadline.
//!
//! A waiter that has slept takes the lock with `WAITERS` set, because the wake that it used up may have been the only
//! one, and others may sleep: its own unlock passes the wake on. At worst that unlock wakes nobody.
//!
//! Try ([`LockWord::try_lock`]): steps 1, 3 and 6, without 4 and 5.
//!
//! Unlock ([`LockWord::unlock`]):
//! 1. the word does not name this process: nothing (the guard was inherited over a `fork()`);
//! 2. swap(0 or `POISON`);
//! 3. `WAITERS` was set: wake one.
//!
//! The generation in the owner id is what makes step 6 right: a recoverer may be paused between its proof and its CAS
//! for as long as it takes the dead owner's index to go to a new process that takes this very lock; the word then
//! differs in the generation and the CAS fails.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `lock.word` | swap in `unlock` | CAS in `take`; load in `is_clean`, for the locks built on this one | everything that the last owner did under the lock | `mutex`, `rwlock` |
//!
//! A dead owner's stores are visible through the proof of death ([`Liveness::is_dead`]), and with them everything that
//! the dead owner had acquired.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | lock 1 or 3 and unlock 2: an owner | an owner that is proven dead: one waiter takes over as `OwnerDied` within a slice, the others wait for that one |
//! | lock 4 and 5, or asleep | `WAITERS`: the unlock wakes another or nobody |
//! | lock 5, just woken, and 3 | a free word and the other waiters asleep: one of them takes it when its slice ends, after at most 10 ms |
//! | lock 6, proof and CAS | nothing: the next prober takes over |
//! | lock 6, CAS and repair | a dead owner again, `OwnerDied` again |
//! | unlock 2 and 3 | a free word and the waiters asleep: as "just woken" |

use crate::owner::OwnerId;
use crate::prim::{AtomicU32, Ordering, pause};
use crate::wait::{Liveness, Parked, Slice, Wait};

/// Bit 30: somebody may sleep on the word.
const WAITERS: u32 = 1 << 30;
/// Bit 31: the last owner left what the lock guards broken.
const POISON: u32 = 1 << 31;
/// Swaps that a call may lose in a row before it parks, and so looks at its deadline, or gives up trying. Peers that
/// keep to the protocol take turns long before that; a hostile one could otherwise change the word for ever.
const LOST_IN_A_ROW: u32 = 64;
/// The most pauses between two looks at a held lock: about 1 us, a tenth of what a sleep and a wake cost.
const MAX_STEP: u32 = 64;

/// The shared word. All zero is a valid start: free.
#[derive(Debug)]
#[repr(transparent)]
pub struct LockWord(AtomicU32);

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<LockWord>() == 4);

/// How a lock was left by its last owner. The lock is held now, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Acquired {
    /// Unlocked in order.
    Clean,
    /// The last owner died while it held the lock: what the lock guards may be half changed.
    OwnerDied,
    /// An earlier owner unlocked and said that what the lock guards is broken; nobody has repaired it since.
    Poisoned,
}

/// Why [`LockWord::try_lock`] did not take the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryLockError {
    /// This participant holds it, and is not proven dead; it may be this process.
    Held(OwnerId),
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The word holds, or changes faster than, what processes write that keep to the protocol.
    Corrupt,
}

/// Why [`LockWord::lock`] did not take the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// The deadline has passed; who held the lock at the last look, if anybody did.
    TimedOut(Option<OwnerId>),
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// The word holds what no process writes that keeps to the protocol.
    Corrupt,
}

impl Default for LockWord {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl LockWord {
    /// A free lock.
    #[must_use]
    #[cfg(not(crosslane_loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A free lock.
    #[must_use]
    #[cfg(crosslane_loom)]
    #[track_caller]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes the lock if nobody who lives holds it. Does not block.
    ///
    /// Costs one compare-and-swap when the lock is free. When another process holds it, its owner is probed each time
    /// (0.6-5 us for a lease): in a loop, use [`lock`](Self::lock) with a deadline.
    ///
    /// # Errors
    /// [`TryLockError::Held`] while a participant holds it that is not proven dead, [`TryLockError::Forked`] in a fork
    /// child, [`TryLockError::Corrupt`] if the word holds nonsense.
    ///
    /// # Crash
    /// A process killed inside leaves the lock as it was, or held by a dead owner.
    #[inline]
    pub fn try_lock<L: Liveness>(&self, life: &L) -> Result<Acquired, TryLockError> {
        let me = life.me().ok_or(TryLockError::Forked)?;
        if self.take(0, me.to_word()) {
            return Ok(Acquired::Clean);
        }
        self.try_lock_slow(me, life)
    }

    /// Takes the lock; blocks until its owner unlocks it or is proven dead, or until the deadline.
    ///
    /// Not fair: a caller that runs may overtake one that sleeps. A thread that already holds the lock waits for
    /// itself. Costs one compare-and-swap when the lock is free.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] when the deadline has passed, [`LockError::Forked`] in a fork child,
    /// [`LockError::Corrupt`] if the word holds nonsense.
    ///
    /// # Crash
    /// A process killed inside leaves the lock as it was, or held by a dead owner; one that was just woken costs the
    /// other waiters at most 10 ms.
    #[inline]
    pub fn lock<E: Wait + Liveness>(&self, env: &E, deadline: E::Deadline) -> Result<Acquired, LockError> {
        let me = env.me().ok_or(LockError::Forked)?;
        if self.take(0, me.to_word()) {
            return Ok(Acquired::Clean);
        }
        self.lock_slow(me, env, deadline)
    }

    /// Takes the lock if it is free and clean: how every locking begins; for locks that are built on this one.
    #[inline]
    pub(crate) fn is_taken(&self, me: OwnerId) -> bool {
        self.take(0, me.to_word())
    }

    /// Gives the lock up and wakes one waiter, if any may sleep; `poison` tells the next owner that what the lock
    /// guards is broken. Does not block; a system call only if somebody may sleep.
    ///
    /// Nothing happens if the word does not name this process: a `fork()` child that drops an inherited guard leaves
    /// its parent's lock alone.
    ///
    /// # Crash
    /// A process killed inside leaves the lock held by a dead owner, or free with its waiters asleep for at most 10 ms.
    #[inline]
    pub fn unlock<E: Wait + Liveness>(&self, env: &E, poison: bool) {
        // ORDERING: Relaxed. If the word names this process, it wrote that itself, and others only add flags.
        let held_by = OwnerId::from_word(self.0.load(Ordering::Relaxed));
        if held_by.is_none() || held_by != env.me() {
            return;
        }
        self.give_up(env, poison);
    }

    /// As [`unlock`](Self::unlock), for locks that are built on this one and have seen that the word names this process.
    #[inline]
    pub(crate) fn give_up<W: Wait>(&self, env: &W, poison: bool) {
        // ORDERING lock.word: Release. Pairs with the Acquire in `take`.
        // Publishes everything that was done under the lock. A swap, which is one instruction where `fetch_and` is a
        // loop.
        let left = self.0.swap(if poison { POISON } else { 0 }, Ordering::Release);
        if left & WAITERS != 0 {
            self.wake_slow(env);
        }
    }

    /// Wakes one waiter, so that it looks again: for whoever learns that a participant is dead, which may have owned the
    /// lock, or owed a waiter a wake. The one that takes the lock over wakes the others in turn. Harmless at any time.
    pub fn wake_one<W: Wait>(&self, wait: &W) {
        self.wake_slow(wait);
    }

    #[cold]
    fn wake_slow<W: Wait>(&self, wait: &W) {
        wait.wake(&self.0, 1);
    }

    /// Whether the lock is free and what it guards is whole; for locks that are built on this one.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        // ORDERING lock.word: Acquire. Pairs with the Release in `unlock`: what the last owner did under the lock is
        // visible.
        self.0.load(Ordering::Acquire) == 0
    }

    /// Whether the word names `me`; for locks that are built on this one.
    #[inline]
    pub(crate) fn is_held_by(&self, me: OwnerId) -> bool {
        // ORDERING: Relaxed. If the word names this process, it wrote that itself, and others only add flags.
        self.0.load(Ordering::Relaxed) & !(WAITERS | POISON) == me.to_word()
    }

    #[cold]
    fn try_lock_slow<L: Liveness>(&self, me: OwnerId, life: &L) -> Result<Acquired, TryLockError> {
        for _ in 0..LOST_IN_A_ROW {
            // ORDERING: Relaxed. `take` acquires what was read here.
            let word = self.0.load(Ordering::Relaxed);
            match decode(word) {
                State::Free(acquired) if self.take(word, me.to_word() | word) => return Ok(acquired),
                State::Free(_) => {}
                State::Held(owner) if owner == me || !life.is_dead(owner) => return Err(TryLockError::Held(owner)),
                State::Held(_) if self.take_over(word, me) => return Ok(Acquired::OwnerDied),
                State::Held(_) => {}
                State::Corrupt => return Err(TryLockError::Corrupt),
            }
        }
        Err(TryLockError::Corrupt)
    }

    /// After [`is_taken`](Self::is_taken).
    #[cold]
    pub(crate) fn lock_slow<E: Wait + Liveness>(
        &self,
        me: OwnerId,
        env: &E,
        deadline: E::Deadline,
    ) -> Result<Acquired, LockError> {
        if let Some(acquired) = self.spin(me, env.spins()) {
            return Ok(acquired);
        }
        let mut slept = 0;
        let mut lost = 0;
        loop {
            // ORDERING: Relaxed. `take` acquires what was read here.
            let word = self.0.load(Ordering::Relaxed);
            let (owner, ready) = match decode(word) {
                State::Free(acquired) if self.take(word, me.to_word() | word | slept) => return Ok(acquired),
                State::Free(_) => (None, false),
                State::Held(owner) => (Some(owner), self.announce(word)),
                State::Corrupt => return Err(LockError::Corrupt),
            };
            lost += 1;
            if !ready && lost < LOST_IN_A_ROW {
                continue;
            }
            // Parking is right even when the announcement was lost: a word equal to `announced` has the flag.
            let announced = word | WAITERS;
            let parked = env.park(&self.0, announced, Slice::Owner, deadline);
            (slept, lost) = (WAITERS, 0);
            if self.is_held_by_dead(announced, me, env) && self.take_over(announced, me) {
                return Ok(Acquired::OwnerDied);
            }
            if parked == Parked::Expired {
                return self.last_look_slow(me, owner);
            }
        }
    }

    /// Spins for a free word; `None` when it is time to sleep.
    ///
    /// Looks less and less often: each look takes the line from whoever works under the lock.
    fn spin(&self, me: OwnerId, mut pauses: u32) -> Option<Acquired> {
        let mut step = 1;
        while pauses > 0 {
            // ORDERING: Relaxed. `take` acquires what was read here.
            let word = self.0.load(Ordering::Relaxed);
            match decode(word) {
                State::Free(acquired) if self.take(word, me.to_word() | word) => return Some(acquired),
                State::Free(_) => {}
                // Somebody sleeps already: the owner is slow, and who spins only overtakes who sleeps.
                State::Held(_) if word & WAITERS != 0 => return None,
                State::Held(_) => {}
                State::Corrupt => return None,
            }
            step = (2 * step).min(pauses).min(MAX_STEP);
            (0..step).for_each(|_| pause());
            pauses -= step;
        }
        None
    }

    /// Sets `WAITERS` in `word`; `false` if the word was no longer that.
    fn announce(&self, word: u32) -> bool {
        // ORDERING: Relaxed. Publishes nothing: `unlock` swaps this same word, and the kernel compares it under its
        // own lock. Not an or, which would put the flag on a word that has become free.
        word & WAITERS != 0
            || self.0.compare_exchange(word, word | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the word still is `word`, and the participant that it names is proven dead.
    fn is_held_by_dead<L: Liveness>(&self, word: u32, me: OwnerId, life: &L) -> bool {
        // ORDERING: Relaxed. Only saves a probe when a wake, and not the end of a slice, ended the sleep.
        self.0.load(Ordering::Relaxed) == word
            && OwnerId::from_word(word).is_some_and(|owner| owner != me && life.is_dead(owner))
    }

    /// The deadline has passed, but the lock may have become free with it; and should the surroundings say `Expired` to
    /// a waiter that was woken, its wake must not be lost to the others.
    fn last_look_slow(&self, me: OwnerId, owner: Option<OwnerId>) -> Result<Acquired, LockError> {
        // ORDERING: Relaxed. `take` acquires what was read here.
        let word = self.0.load(Ordering::Relaxed);
        match decode(word) {
            State::Free(acquired) if self.take(word, me.to_word() | word | WAITERS) => Ok(acquired),
            State::Held(owner) => Err(LockError::TimedOut(Some(owner))),
            State::Free(_) | State::Corrupt => Err(LockError::TimedOut(owner)),
        }
    }

    /// CAS from a free word to `held`.
    #[inline]
    fn take(&self, free: u32, held: u32) -> bool {
        // ORDERING lock.word: Acquire. Pairs with the Release in `unlock`: what the last owner did under the lock is
        // visible to this one. Failure: Relaxed, the callers look again.
        self.0.compare_exchange(free, held, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// CAS from exactly the word that names a proven dead owner; the flags stay.
    fn take_over(&self, dead: u32, me: OwnerId) -> bool {
        let mine = me.to_word() | dead & (WAITERS | POISON);
        // ORDERING: Relaxed. The proof of death made everything visible that the dead owner did or had acquired, and
        // the word still names that owner.
        self.0.compare_exchange(dead, mine, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

enum State {
    Free(Acquired),
    Held(OwnerId),
    Corrupt,
}

fn decode(word: u32) -> State {
    match (word, OwnerId::from_word(word)) {
        (0, _) => State::Free(Acquired::Clean),
        (POISON, _) => State::Free(Acquired::Poisoned),
        (_, Some(owner)) => State::Held(owner),
        _ => State::Corrupt,
    }
}

impl core::fmt::Display for TryLockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Held(owner) => write!(f, "the lock is held by {owner}"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared word of the lock is corrupt"),
        }
    }
}

impl core::fmt::Display for LockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TimedOut(Some(owner)) => write!(f, "the lock is held by {owner}, and the deadline has passed"),
            Self::TimedOut(None) => f.write_str("the deadline has passed"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared word of the lock is corrupt"),
        }
    }
}

impl core::error::Error for TryLockError {}
impl core::error::Error for LockError {}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use core::cell::Cell;
    use core::time::Duration;

    use super::*;

    /// One process of a test: parks do not sleep, and say `Expired` after `parks_left`; the dead are listed.
    struct Env {
        me: Option<OwnerId>,
        dead: [Option<OwnerId>; 2],
        parks_left: Cell<u32>,
        wakes: Cell<u32>,
        at_park: fn(&AtomicU32),
    }

    fn id(index: u32, generation: u32) -> OwnerId {
        OwnerId::new(index, generation).unwrap()
    }

    fn env(index: u32) -> Env {
        Env { me: Some(id(index, 1)), dead: [None; 2], parks_left: Cell::new(3), wakes: Cell::new(0), at_park: |_| {} }
    }

    impl Wait for Env {
        type Deadline = ();
        fn never(&self) {}
        fn after(&self, _: Duration) {}
        fn park(&self, word: &AtomicU32, _: u32, slice: Slice, (): ()) -> Parked {
            assert_eq!(slice, Slice::Owner);
            (self.at_park)(word);
            match self.parks_left.get() {
                0 => Parked::Expired,
                n => {
                    self.parks_left.set(n - 1);
                    Parked::Again
                }
            }
        }
        fn wake(&self, _: &AtomicU32, _: u32) -> u32 {
            self.wakes.set(self.wakes.get() + 1);
            0
        }
        fn spins(&self) -> u32 {
            2
        }
        fn in_heavy_barriers(&self) -> bool {
            false
        }
        fn heavy_barrier(&self) -> bool {
            false
        }
    }

    impl Liveness for Env {
        fn me(&self) -> Option<OwnerId> {
            self.me
        }
        fn is_dead(&self, owner: OwnerId) -> bool {
            self.dead.contains(&Some(owner))
        }
    }

    fn word(lock: &LockWord) -> u32 {
        lock.0.load(Ordering::Relaxed)
    }

    #[test]
    fn an_uncontended_lock_leaves_no_trace_and_wakes_nobody() {
        let (lock, a) = (LockWord::new(), env(0));
        assert_eq!(lock.lock(&a, ()), Ok(Acquired::Clean));
        assert_eq!(word(&lock), a.me.unwrap().to_word());
        assert_eq!(lock.try_lock(&env(1)), Err(TryLockError::Held(id(0, 1))));
        lock.unlock(&a, false);
        assert_eq!((word(&lock), a.wakes.get()), (0, 0));
    }

    #[test]
    fn lock_times_out_naming_the_holder_and_its_announcement_makes_the_unlock_wake() {
        let (lock, a) = (LockWord::new(), env(0));
        let _ = lock.lock(&a, ()).unwrap();
        assert_eq!(lock.lock(&env(1), ()), Err(LockError::TimedOut(a.me)));
        lock.unlock(&a, false);
        assert_eq!((word(&lock), a.wakes.get()), (0, 1));
    }

    #[test]
    fn poison_stays_until_an_unlock_clears_it() {
        let (lock, a) = (LockWord::new(), env(0));
        let _ = lock.lock(&a, ()).unwrap();
        lock.unlock(&a, true);
        assert_eq!(lock.try_lock(&a), Ok(Acquired::Poisoned));
        lock.unlock(&a, true);
        assert_eq!(lock.lock(&a, ()), Ok(Acquired::Poisoned));
        lock.unlock(&a, false);
        assert_eq!(lock.lock(&a, ()), Ok(Acquired::Clean));
    }

    #[test]
    fn a_dead_owners_lock_goes_to_the_next_with_its_flags() {
        for flags in [0, WAITERS, POISON, WAITERS | POISON] {
            let mut b = env(1);
            b.dead[0] = Some(id(0, 7));
            let lock = LockWord(AtomicU32::new(id(0, 7).to_word() | flags));
            assert_eq!(lock.try_lock(&b), Ok(Acquired::OwnerDied));
            assert_eq!(word(&lock), id(1, 1).to_word() | flags);
            let lock = LockWord(AtomicU32::new(id(0, 7).to_word() | flags));
            assert_eq!(lock.lock(&b, ()), Ok(Acquired::OwnerDied));
            assert_eq!(word(&lock), id(1, 1).to_word() | flags | WAITERS);
        }
    }

    #[test]
    fn a_dead_owner_is_found_even_when_the_deadline_has_passed() {
        let mut b = env(1);
        b.dead[0] = Some(id(0, 1));
        b.parks_left.set(0);
        let lock = LockWord(AtomicU32::new(id(0, 1).to_word()));
        assert_eq!(lock.lock(&b, ()), Ok(Acquired::OwnerDied));
    }

    #[test]
    fn a_lock_that_became_free_at_the_deadline_is_taken() {
        let mut b = env(1);
        b.parks_left.set(0);
        b.at_park = |word| word.store(0, Ordering::Relaxed);
        let lock = LockWord(AtomicU32::new(id(0, 1).to_word()));
        assert_eq!(lock.lock(&b, ()), Ok(Acquired::Clean));
        assert_eq!(word(&lock), id(1, 1).to_word() | WAITERS);
    }

    #[test]
    fn a_fork_child_neither_locks_nor_unlocks() {
        let (lock, a) = (LockWord::new(), env(0));
        let child = Env { me: None, ..env(0) };
        assert_eq!(lock.lock(&child, ()), Err(LockError::Forked));
        assert_eq!(lock.try_lock(&child), Err(TryLockError::Forked));
        let _ = lock.lock(&a, ()).unwrap();
        lock.unlock(&child, true);
        lock.unlock(&env(1), true);
        assert_eq!(word(&lock), id(0, 1).to_word());
    }

    #[test]
    fn hostile_words_are_corrupt_or_wait_for_the_deadline() {
        for hostile in [WAITERS, WAITERS | POISON, 1, 1023, 4096 << 10, u32::MAX, u32::MAX >> 2, POISON | 5] {
            let lock = LockWord(AtomicU32::new(hostile));
            assert_eq!(lock.lock(&env(0), ()), Err(LockError::Corrupt), "{hostile:#x}");
            assert_eq!(lock.try_lock(&env(0)), Err(TryLockError::Corrupt), "{hostile:#x}");
            lock.unlock(&env(0), false);
            assert_eq!(word(&lock), hostile);
        }
        let lock = LockWord(AtomicU32::new(id(1023, 4095).to_word() | POISON));
        assert_eq!(lock.lock(&env(0), ()), Err(LockError::TimedOut(Some(id(1023, 4095)))));
        let lock = LockWord(AtomicU32::new(id(0, 1).to_word()));
        assert_eq!(lock.lock(&env(0), ()), Err(LockError::TimedOut(Some(id(0, 1)))));
        assert_eq!(lock.try_lock(&env(0)), Err(TryLockError::Held(id(0, 1))));
    }
}

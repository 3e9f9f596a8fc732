//! Two balances that must be equal whenever their lock is free, behind a lock of one's choice: the real lock word, and
//! broken ones that the sweep must find.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::mutex::{Acquired, LockError, LockWord};
use crosslane_core::{Liveness, OwnerId, Wait};
use crosslane_tests::futex::{futex_wait, futex_wake};

/// What a deposit adds to both balances.
pub(crate) const DEPOSIT: u64 = 5;

/// A lock in shared memory. All zero is free.
pub(crate) trait Lock {
    /// Takes it, waiting at most for `timeout`.
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String>;
    /// Gives it up.
    fn unlock<E: Wait + Liveness>(&self, env: &E);
    /// Whether the balances are repaired after a dead owner.
    const REPAIRS: bool = true;
}

/// The balances. All zero is a valid start.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Account<L> {
    lock: L,
    inside: AtomicU32,
    shared: AtomicU32,
    undo: AtomicU64,
    left: AtomicU64,
    right: AtomicU64,
}

impl<L: Lock> Account<L> {
    /// Takes the lock, repairs what a dead owner left, and opens a transaction.
    pub(crate) fn begin<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<(), String> {
        let acquired = self.lock.lock(env, timeout)?;
        if acquired == Acquired::OwnerDied && L::REPAIRS {
            self.repair();
        }
        let inside = self.inside.swap(me(env), SeqCst);
        if inside != 0 && !is_dead(env, inside) {
            self.shared.store(inside, SeqCst);
        }
        self.undo.store(self.left.load(SeqCst) + 1, SeqCst);
        Ok(())
    }

    /// Deposits and unlocks.
    pub(crate) fn finish<E: Wait + Liveness>(&self, env: &E) {
        self.left.store(self.left.load(SeqCst) + DEPOSIT, SeqCst);
        self.right.store(self.right.load(SeqCst) + DEPOSIT, SeqCst);
        self.undo.store(0, SeqCst);
        self.inside.store(0, SeqCst);
        self.lock.unlock(env);
    }

    /// A whole transaction.
    pub(crate) fn deposit<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<(), String> {
        self.begin(env, timeout)?;
        self.finish(env);
        Ok(())
    }

    /// The balance, if both are equal, no transaction is open, and the lock never had two living owners.
    pub(crate) fn audit(&self) -> Result<u64, String> {
        let (left, right, undo) = (self.left.load(SeqCst), self.right.load(SeqCst), self.undo.load(SeqCst));
        if self.shared.load(SeqCst) != 0 {
            return Err("two living owners at once".into());
        }
        if left == right && undo == 0 { Ok(left) } else { Err(format!("torn: {left} and {right}, undo {undo}")) }
    }

    /// Leaves it as an owner does that was killed between the two balances. The caller holds the lock.
    pub(crate) fn tear(&self) {
        self.left.store(self.left.load(SeqCst) + DEPOSIT, SeqCst);
    }

    /// Idempotent: a recoverer may be killed anywhere in it.
    fn repair(&self) {
        let undo = self.undo.load(SeqCst);
        if undo != 0 {
            self.left.store(undo - 1, SeqCst);
            self.right.store(undo - 1, SeqCst);
            self.undo.store(0, SeqCst);
        }
    }
}

impl Lock for LockWord {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        LockWord::lock(self, env, env.after(timeout)).map_err(|error: LockError| error.to_string())
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        LockWord::unlock(self, env, false);
    }
}

/// The real lock word, used by somebody who ignores `OwnerDied`.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Forgetful(LockWord);

impl Lock for Forgetful {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        Lock::lock(&self.0, env, timeout)
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        Lock::unlock(&self.0, env);
    }
    const REPAIRS: bool = false;
}

/// Seeded: a word that says only that the lock is taken, not by whom.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Ownerless(AtomicU32);

impl Lock for Ownerless {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        let deadline = env.after(timeout);
        while self.0.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
            if env.park(&self.0, 1, crosslane_core::Slice::Owner, deadline) == crosslane_core::Parked::Expired {
                return Err("held for ever by nobody knows whom".into());
            }
        }
        Ok(Acquired::Clean)
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        self.0.store(0, SeqCst);
        env.wake(&self.0, 1);
    }
}

/// Seeded: an owner word whose waiters are woken one by one and sleep without slices, so that a wake that goes to a
/// process which dies is the last one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Unsliced {
    word: AtomicU32,
    waiters: AtomicU32,
}

impl Lock for Unsliced {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        let me = me(env);
        loop {
            let seen = match self.word.compare_exchange(0, me, SeqCst, SeqCst) {
                Ok(_) => return Ok(Acquired::Clean),
                Err(seen) => seen,
            };
            if is_dead(env, seen) && self.word.compare_exchange(seen, me, SeqCst, SeqCst).is_ok() {
                return Ok(Acquired::OwnerDied);
            }
            self.waiters.fetch_add(1, SeqCst);
            futex_wait(&self.word, seen, timeout);
            self.waiters.fetch_sub(1, SeqCst);
        }
    }
    fn unlock<E: Wait + Liveness>(&self, _: &E) {
        self.word.store(0, SeqCst);
        if self.waiters.load(SeqCst) > 0 {
            futex_wake(&self.word, 1);
        }
    }
}

/// Seeded: takes a dead owner's lock over by freeing it first, then taking it like anybody.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct FreesFirst(AtomicU32);

impl Lock for FreesFirst {
    fn lock<E: Wait + Liveness>(&self, env: &E, _: Duration) -> Result<Acquired, String> {
        let mut died = false;
        loop {
            match self.0.compare_exchange(0, me(env), SeqCst, SeqCst) {
                Ok(_) if died => return Ok(Acquired::OwnerDied),
                Ok(_) => return Ok(Acquired::Clean),
                Err(seen) if is_dead(env, seen) => {
                    died = true;
                    self.0.store(0, SeqCst);
                }
                Err(_) => return Err("held".into()),
            }
        }
    }
    fn unlock<E: Wait + Liveness>(&self, _: &E) {
        self.0.store(0, SeqCst);
    }
}

/// Seeded: takes a dead owner's lock over by a plain store, so that two recoverers may both have it.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct PlainTakeover(AtomicU32);

impl Lock for PlainTakeover {
    fn lock<E: Wait + Liveness>(&self, env: &E, _: Duration) -> Result<Acquired, String> {
        match self.0.compare_exchange(0, me(env), SeqCst, SeqCst) {
            Ok(_) => Ok(Acquired::Clean),
            Err(seen) if is_dead(env, seen) => {
                self.0.store(me(env), SeqCst);
                Ok(Acquired::OwnerDied)
            }
            Err(_) => Err("held".into()),
        }
    }
    fn unlock<E: Wait + Liveness>(&self, _: &E) {
        self.0.store(0, SeqCst);
    }
}

fn me(env: &impl Liveness) -> u32 {
    env.me().map_or(0, OwnerId::to_word)
}

fn is_dead(env: &impl Liveness, word: u32) -> bool {
    OwnerId::from_word(word).is_some_and(|owner| env.is_dead(owner))
}

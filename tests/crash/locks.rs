//! The locks that somebody holds, in every role and with every pair of deaths: reentrant, a permit, writing, work to be done
//! once; and ones that are broken on purpose. Reading is in `readers`.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::lock::permits::Permits;
use crosslane_core::lock::rlock::RLockWords;
use crosslane_core::lock::rwlock::RwWords;
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::mutex::{Acquired, LockWord};
use crosslane_core::{Liveness, OwnerId, Wait};
use crosslane_tests::pairs::PairPlan;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role};

use crate::Wanted;
use crate::account::{Account, Lock};
use crate::mutex::{Lying, PATIENCE, leased_play, play, two_deaths};

fn thread() -> core::num::NonZeroU32 {
    // The same number in every process: that must not matter.
    core::num::NonZeroU32::MIN
}

/// Taken twice, and given up twice.
impl Lock for RLockWords {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        let acquired = RLockWords::lock(self, thread(), env, env.after(timeout)).map_err(|error| error.to_string())?;
        let _ = RLockWords::lock(self, thread(), env, env.never()).map_err(|error| error.to_string())?;
        if acquired == Acquired::Poisoned { Err("nobody poisons".into()) } else { Ok(acquired) }
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        // The account repairs itself.
        let _ = self.set_broken(false, thread(), env);
        let _ = RLockWords::unlock(self, thread(), env);
        let _ = RLockWords::unlock(self, thread(), env);
    }
}

impl Lock for RwWords<4> {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        self.write(env, env.after(timeout)).map_err(|error| error.to_string())
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        self.unlock_write(env, false);
    }
}

/// A semaphore of one permit, which is detached while it is held. Its holders repair whatever they find, since nobody tells them of a death.
#[derive(Debug)]
#[repr(C)]
struct OnePermit {
    words: [AtomicU32; 4],
}

impl OnePermit {
    fn permits(&self) -> Permits<'_> {
        let memory = NonNull::from(&self.words).cast();
        // SAFETY: atomic words that live as long as `self`.
        unsafe { Permits::attach(memory, size_of_val(&self.words), 1) }.expect("room for one")
    }
}

impl Lock for OnePermit {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        let permits = self.permits();
        let place = permits.acquire(env, env.after(timeout)).map_err(|error| error.to_string())?;
        permits.detach(place, env).map_err(|error| error.to_string())?;
        Ok(Acquired::OwnerDied)
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        let _ = self.permits().release_any(env);
    }
}

/// Seeded: a semaphore of one permit that nobody owns.
#[derive(Debug)]
#[repr(C)]
struct Unowned {
    semaphore: SemaphoreWords,
    opened: AtomicU32,
}

impl Lock for Unowned {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        if self.opened.swap(1, SeqCst) == 0 {
            self.semaphore.release(1, env).map_err(|error| error.to_string())?;
        }
        self.semaphore.acquire(env, env.after(timeout)).map_err(|error| error.to_string())?;
        Ok(Acquired::OwnerDied)
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        let _ = self.semaphore.release(1, env);
    }
}

/// Work that its holder leaves undone, so that it is the next one's.
impl Lock for OnceWords {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        match self.begin(env, env.after(timeout)).map_err(|error| error.to_string())? {
            // Left in order.
            Begun::Mine(Acquired::Poisoned) => Ok(Acquired::Clean),
            Begun::Mine(acquired) => Ok(acquired),
            Begun::Done => Err("nobody has finished it".into()),
        }
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        self.finish(false, env);
    }
}

/// Seeded: a reentrant lock whose depth goes on where a dead owner left it.
#[derive(Debug)]
#[repr(C)]
struct Deep {
    lock: LockWord,
    depth: AtomicU32,
}

impl Lock for Deep {
    fn lock<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        let acquired = LockWord::lock(&self.lock, env, env.after(timeout)).map_err(|error| error.to_string())?;
        self.depth.fetch_add(2, SeqCst);
        Ok(acquired)
    }
    fn unlock<E: Wait + Liveness>(&self, env: &E) {
        if self.depth.fetch_sub(2, SeqCst) == 2 {
            LockWord::unlock(&self.lock, env, false);
        }
    }
}

/// Seeded: a permit that one who recovers it takes from the dead under a mark that names nobody.
#[derive(Debug)]
#[repr(transparent)]
struct Marked(AtomicU32);

impl Lock for Marked {
    fn lock<E: Wait + Liveness>(&self, env: &E, _: Duration) -> Result<Acquired, String> {
        const MARK: u32 = 1 << 31;
        let me = env.me().map_or(0, OwnerId::to_word);
        let dead = self.0.load(SeqCst);
        let is_dead = dead != MARK && OwnerId::from_word(dead).is_some_and(|owner| env.is_dead(owner));
        if is_dead && self.0.compare_exchange(dead, MARK, SeqCst, SeqCst).is_ok() {
            self.0.store(0, SeqCst);
        }
        let taken = self.0.compare_exchange(0, me, SeqCst, SeqCst).is_ok();
        if taken { Ok(Acquired::OwnerDied) } else { Err("held".into()) }
    }
    fn unlock<E: Wait + Liveness>(&self, _: &E) {
        self.0.store(0, SeqCst);
    }
}

fn every_role<L: Lock>(wanted: &Wanted, table: &mut Table, name: &'static str) {
    let cases = [
        (Plan::new(name, 60), Lying::Free),
        (Plan::new(name, 20).role(Role::PeersAsleep(1)), Lying::WithVictim),
        (Plan::new(name, 40).role(Role::Asleep), Lying::WithDriver),
        (Plan::new(name, 20).role(Role::JustWoken), Lying::WithDriver),
        (Plan::new(name, 20).role(Role::SecondWaiter), Lying::WithDriver),
        (Plan::new(name, 40).paused().cut(Cut::Edges { stride: 5 }), Lying::Free),
    ];
    for (plan, lying) in cases {
        let patience =
            if plan.fate == crosslane_tests::control::Fate::Pause { Duration::from_millis(1) } else { PATIENCE };
        play::<L>(wanted, table, &plan, lying, patience);
    }
}

/// As it was left by somebody who died, and by two in a row.
fn every_death<L: Lock>(wanted: &Wanted, table: &mut Table, name: &'static str) {
    let plan = Plan::new(name, 80).cut(Cut::Edges { stride: 3 });
    play::<L>(wanted, table, &plan, Lying::WithTheDead, PATIENCE);
    two_deaths::<L>(wanted, table, PairPlan { name, floor: 10_000, seeded: false });
}

/// Sweeps of the locks that somebody holds, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    assert_eq!(align_of::<Account<RLockWords>>(), 8);
    every_role::<RLockWords>(wanted, table, "rlock: transaction");
    every_role::<RwWords<4>>(wanted, table, "rwlock: write");
    every_role::<OnePermit>(wanted, table, "permits: transaction");
    every_role::<OnceWords>(wanted, table, "once: turns");
    every_death::<RLockWords>(wanted, table, "rlock: takeover");
    every_death::<RwWords<4>>(wanted, table, "rwlock: takeover");
    every_death::<OnePermit>(wanted, table, "permits: takeover");
    every_death::<OnceWords>(wanted, table, "once: takeover");

    play::<Unowned>(wanted, table, &Plan::new("semaphore without owners", 10).seeded(), Lying::Free, PATIENCE);
    two_deaths::<Deep>(wanted, table, PairPlan { name: "rlock as deep as the dead", floor: 1, seeded: true });
    two_deaths::<Marked>(wanted, table, PairPlan { name: "permit marked by nobody", floor: 1, seeded: true });
}

/// The same by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    leased_role::<RLockWords>(wanted, table, "leased rlock: transaction", Role::Alone, Lying::Free);
    leased_role::<RLockWords>(wanted, table, "leased rlock: transaction", Role::SecondWaiter, Lying::WithDriver);
    leased_role::<RLockWords>(wanted, table, "leased rlock: takeover", Role::Alone, Lying::WithTheDead);
    leased_role::<RwWords<4>>(wanted, table, "leased rwlock: write", Role::PeersAsleep(1), Lying::WithVictim);
    leased_role::<RwWords<4>>(wanted, table, "leased rwlock: write", Role::SecondWaiter, Lying::WithDriver);
    leased_role::<RwWords<4>>(wanted, table, "leased rwlock: takeover", Role::Alone, Lying::WithTheDead);
    leased_role::<OnePermit>(wanted, table, "leased permits: transaction", Role::PeersAsleep(1), Lying::WithVictim);
    leased_role::<OnePermit>(wanted, table, "leased permits: transaction", Role::JustWoken, Lying::WithDriver);
    leased_role::<OnePermit>(wanted, table, "leased permits: takeover", Role::Alone, Lying::WithTheDead);
    leased_role::<OnceWords>(wanted, table, "leased once: takeover", Role::Alone, Lying::WithTheDead);
}

fn leased_role<L: Lock>(wanted: &Wanted, table: &mut Table, name: &'static str, role: Role, lying: Lying) {
    // Long walks, which end in a system call for each who is asked about.
    let stride = if lying == Lying::WithTheDead { 37 } else { 5 };
    leased_play::<L>(wanted, table, &Plan::new(name, 10).role(role).cut(Cut::Edges { stride }), lying);
}

//! The locks that somebody holds, in every role: reentrant, a permit, reading and writing; and ones that count their holders
//! instead of naming them.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::lock::permits::Permits;
use crosslane_core::lock::rlock::RLockWords;
use crosslane_core::lock::rwlock::{ReadPlace, RwWords};
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::mutex::Acquired;
use crosslane_core::{Liveness, Wait};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told};

use crate::Wanted;
use crate::account::{Account, Lock};
use crate::cast::{COMPANION, Cast, DRIVER, ToldCast, VICTIM};
use crate::mutex::{Lying, PATIENCE, play};

/// How long the driver waits: a survivor that gets no lock says so itself.
const SURVIVOR: Duration = Duration::from_millis(500);

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

/// A way to read while nobody writes. All zero: nobody is inside.
trait Readers {
    fn read(&self, env: &Told<'_>, timeout: Duration, look: impl FnOnce()) -> Result<(), String>;
    fn write(&self, env: &Told<'_>, timeout: Duration, change: impl FnOnce()) -> Result<(), String>;
}

impl Readers for RwWords<4> {
    fn read(&self, env: &Told<'_>, timeout: Duration, look: impl FnOnce()) -> Result<(), String> {
        let read = RwWords::read(self, ReadPlace::default(), env, env.after(timeout));
        let (place, acquired) = read.map_err(|error| error.to_string())?;
        look();
        self.unlock_read(place, env);
        if acquired == Acquired::Clean { Ok(()) } else { Err("no writer died".into()) }
    }
    fn write(&self, env: &Told<'_>, timeout: Duration, change: impl FnOnce()) -> Result<(), String> {
        let acquired = RwWords::write(self, env, env.after(timeout)).map_err(|error| error.to_string())?;
        change();
        self.unlock_write(env, false);
        if acquired == Acquired::Clean { Ok(()) } else { Err("no writer died".into()) }
    }
}

/// Seeded: counts its readers, as most reader-writer locks do.
#[derive(Debug)]
#[repr(transparent)]
struct Counting(AtomicU32);

impl Readers for Counting {
    fn read(&self, _: &Told<'_>, _: Duration, look: impl FnOnce()) -> Result<(), String> {
        self.0.fetch_add(1, SeqCst);
        look();
        self.0.fetch_sub(1, SeqCst);
        Ok(())
    }
    fn write(&self, env: &Told<'_>, timeout: Duration, change: impl FnOnce()) -> Result<(), String> {
        let deadline = env.after(timeout);
        while self.0.load(SeqCst) != 0 {
            if env.park(&self.0, self.0.load(SeqCst), crosslane_core::Slice::Owner, deadline)
                == crosslane_core::Parked::Expired
            {
                return Err("the readers stay".into());
            }
        }
        change();
        Ok(())
    }
}

/// A lock for readers, and a number that its writers raise while it is odd to others.
#[derive(Debug)]
#[repr(C)]
struct Page<L> {
    lock: L,
    changes: [AtomicU32; 2],
    torn: AtomicU32,
}

impl<L: Readers> Page<L> {
    fn look(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        self.lock.read(env, timeout, || {
            if self.changes[0].load(SeqCst) != self.changes[1].load(SeqCst) {
                self.torn.store(1, SeqCst);
            }
        })
    }

    fn change(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        self.lock.write(env, timeout, || {
            self.changes[0].fetch_add(1, SeqCst);
            self.changes[1].fetch_add(1, SeqCst);
        })
    }
}

/// The victim reads; who sleeps behind it wants to write.
struct Reading<'a, L> {
    page: &'a Page<L>,
    cast: ToldCast<'a>,
}

impl<L: Readers> Scene for Reading<'_, L> {
    fn operate(&mut self) {
        if let Err(why) = self.page.look(&self.cast.join(VICTIM), PATIENCE) {
            panic!("{why}");
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.page.change(&self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)), PATIENCE)
    }

    fn interlude(&mut self) -> Result<(), String> {
        // A reader that is paused inside keeps writers out; one that is not does not.
        let _ = self.page.change(&self.cast.join(DRIVER), Duration::from_millis(1));
        Ok(())
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        let env = self.cast.join(DRIVER);
        self.page.change(&env, SURVIVOR)?;
        self.page.look(&env, SURVIVOR)?;
        if self.page.torn.load(SeqCst) == 0 { Ok(()) } else { Err("a reader saw half a change".into()) }
    }
}

fn read<L: Readers>(wanted: &Wanted, table: &mut Table, plan: &Plan) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<Page<L>>()), Mapping::new(size_of::<Graveyard>()));
        table.add(sweep(plan, wanted.effort, || {
            memory.clear();
            // SAFETY: only integers in atomics: every bit pattern is one.
            let page: &Page<L> = unsafe { memory.at(0) };
            Reading { page, cast: ToldCast::new(&graves) }
        }));
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

/// Sweeps of the locks that somebody holds, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    assert_eq!(align_of::<Account<RLockWords>>(), 8);
    every_role::<RLockWords>(wanted, table, "rlock: transaction");
    every_role::<RwWords<4>>(wanted, table, "rwlock: write");
    every_role::<OnePermit>(wanted, table, "permits: transaction");
    play::<RLockWords>(wanted, table, &Plan::new("rlock: takeover", 80), Lying::WithTheDead, PATIENCE);
    play::<RwWords<4>>(wanted, table, &Plan::new("rwlock: takeover", 80), Lying::WithTheDead, PATIENCE);
    play::<OnePermit>(wanted, table, &Plan::new("permits: takeover", 80), Lying::WithTheDead, PATIENCE);
    read::<RwWords<4>>(wanted, table, &Plan::new("rwlock: read", 40));
    read::<RwWords<4>>(wanted, table, &Plan::new("rwlock: read", 40).paused());

    play::<Unowned>(wanted, table, &Plan::new("semaphore without owners", 10).seeded(), Lying::Free, PATIENCE);
    read::<Counting>(wanted, table, &Plan::new("rwlock that counts readers", 1).seeded());
}

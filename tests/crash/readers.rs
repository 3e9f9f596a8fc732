//! Reading a reader-writer lock, in every role and with every pair of deaths; and a lock that counts its readers.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::lock::rwlock::{ReadPlace, RwWords};
use crosslane_core::mutex::Acquired;
use crosslane_core::{Liveness, Parked, Slice, Wait};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::awaited::SURVIVOR;
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, PREDECESSOR, ToldCast, VICTIM};
use crate::mutex::PATIENCE;

/// A lock for readers and writers. All zero: nobody is inside.
trait Readers {
    fn enter<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<(ReadPlace, Acquired), String>;
    fn leave<E: Wait + Liveness>(&self, place: ReadPlace, env: &E);
    fn write<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String>;
    fn end<E: Wait + Liveness>(&self, env: &E);
}

impl Readers for RwWords<4> {
    fn enter<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<(ReadPlace, Acquired), String> {
        self.read(ReadPlace::default(), env, env.after(timeout)).map_err(|error| error.to_string())
    }
    fn leave<E: Wait + Liveness>(&self, place: ReadPlace, env: &E) {
        self.unlock_read(place, env);
    }
    fn write<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        RwWords::write(self, env, env.after(timeout)).map_err(|error| error.to_string())
    }
    fn end<E: Wait + Liveness>(&self, env: &E) {
        self.unlock_write(env, false);
    }
}

/// Seeded: counts its readers, as most reader-writer locks do.
#[derive(Debug)]
#[repr(transparent)]
struct Counting(AtomicU32);

impl Readers for Counting {
    fn enter<E: Wait + Liveness>(&self, _: &E, _: Duration) -> Result<(ReadPlace, Acquired), String> {
        self.0.fetch_add(1, SeqCst);
        Ok((ReadPlace::default(), Acquired::Clean))
    }
    fn leave<E: Wait + Liveness>(&self, _: ReadPlace, _: &E) {
        self.0.fetch_sub(1, SeqCst);
    }
    fn write<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<Acquired, String> {
        let deadline = env.after(timeout);
        while self.0.load(SeqCst) != 0 {
            if env.park(&self.0, self.0.load(SeqCst), Slice::Owner, deadline) == Parked::Expired {
                return Err("the readers stay".into());
            }
        }
        Ok(Acquired::Clean)
    }
    fn end<E: Wait + Liveness>(&self, _: &E) {}
}

/// Two numbers that are equal whenever no writer is inside, nor has died there.
#[derive(Debug)]
#[repr(C)]
struct Page<L> {
    lock: L,
    numbers: [AtomicU32; 2],
    torn: AtomicU32,
}

impl<L: Readers> Page<L> {
    /// Reads; whether nobody has told of a writer's death.
    fn look<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<bool, String> {
        let (place, acquired) = self.lock.enter(env, timeout)?;
        self.see(acquired);
        self.lock.leave(place, env);
        Ok(acquired == Acquired::Clean)
    }

    fn see(&self, acquired: Acquired) {
        if acquired == Acquired::Clean && self.numbers[0].load(SeqCst) != self.numbers[1].load(SeqCst) {
            self.torn.store(1, SeqCst);
        }
    }

    fn begin<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<(), String> {
        let acquired = self.lock.write(env, timeout)?;
        self.see(acquired);
        // Repairs what a dead writer left.
        self.numbers[1].store(self.numbers[0].load(SeqCst), SeqCst);
        self.numbers[0].fetch_add(1, SeqCst);
        Ok(())
    }

    fn end<E: Wait + Liveness>(&self, env: &E) {
        self.numbers[1].fetch_add(1, SeqCst);
        self.lock.end(env);
    }

    fn change<E: Wait + Liveness>(&self, env: &E, timeout: Duration) -> Result<(), String> {
        self.begin(env, timeout)?;
        self.end(env);
        Ok(())
    }

    /// A writer gets in, then a reader, who hears of no death; and nobody ever saw half a change.
    fn check<E: Wait + Liveness>(&self, env: &E) -> Result<(), String> {
        self.change(env, SURVIVOR)?;
        match (self.look(env, SURVIVOR)?, self.torn.load(SeqCst)) {
            (true, 0) => Ok(()),
            (clean, torn) => Err(format!("clean: {clean}, torn: {torn}")),
        }
    }
}

/// What the victim finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Open,
    /// It is inside when it is first stepped, and leaves.
    Inside,
    WithWriter,
    WithDeadWriter,
}

/// The victim reads; who sleeps behind it wants to write.
struct Reading<'a, K: Cast, L> {
    page: &'a Page<L>,
    cast: K,
    driver: K::Env,
    victim: Option<(K::Env, ReadPlace)>,
    found: Found,
    driver_writes: bool,
}

impl<'a, K: Cast, L: Readers> Reading<'a, K, L> {
    fn new(memory: &'a Mapping, cast: K, found: Found) -> Self {
        memory.clear();
        // SAFETY: only integers in atomics: every bit pattern is one.
        let page: &Page<L> = unsafe { memory.at(0) };
        let driver = cast.join(DRIVER);
        let driver_writes = found == Found::WithWriter;
        if driver_writes {
            page.begin(&driver, SURVIVOR).expect("it is open");
        }
        if found == Found::WithDeadWriter {
            cast.die_after(|env| page.begin(env, SURVIVOR).expect("it is open"));
        }
        Self { page, cast, driver, victim: None, found, driver_writes }
    }
}

impl<K: Cast, L: Readers> Scene for Reading<'_, K, L> {
    fn prepare(&mut self) {
        let env = self.cast.join(VICTIM);
        let mut place = ReadPlace::default();
        if self.found == Found::Inside {
            place = self.page.lock.enter(&env, SURVIVOR).expect("it is open").0;
        }
        self.victim = Some((env, place));
    }

    fn operate(&mut self) {
        let Some((env, place)) = &self.victim else { return };
        if self.found == Found::Inside {
            return self.page.lock.leave(*place, env);
        }
        match self.page.look(env, PATIENCE) {
            Ok(clean) => assert_eq!(clean, self.found != Found::WithDeadWriter, "whether a writer died"),
            Err(why) => panic!("{why}"),
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.page.change(&self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)), PATIENCE)
    }

    fn rouse(&mut self) {
        self.driver_writes = false;
        self.page.end(&self.driver);
    }

    fn interlude(&mut self) -> Result<(), String> {
        // A reader that is paused inside keeps writers out; one that is not does not.
        let _ = self.page.change(&self.driver, Duration::from_millis(1));
        Ok(())
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        if self.driver_writes {
            self.page.end(&self.driver);
        }
        self.page.check(&self.driver)
    }
}

fn read<L: Readers>(wanted: &Wanted, table: &mut Table, plan: &Plan, found: Found) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<Page<L>>()), Mapping::new(size_of::<Graveyard>()));
        table.add(sweep(plan, wanted.effort, || Reading::<_, L>::new(&memory, ToldCast::new(&graves), found)));
    }
}

/// A dies reading or writing, B too, and C goes on.
struct TwoDeaths<'a, L> {
    page: &'a Page<L>,
    dead: &'a Graveyard,
    start: usize,
}

impl<L: Readers> TwoDeaths<'_, L> {
    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn deed(&self, who: u32, writes: bool) {
        let env = Told::sleepless(who, self.dead);
        let _ = if writes { self.page.change(&env, SURVIVOR) } else { self.page.look(&env, SURVIVOR).map(|_| ()) };
    }
}

impl<L: Readers> Drama for TwoDeaths<'_, L> {
    /// Each reads or writes; a writer died before, or not.
    fn starts(&self) -> usize {
        8
    }

    fn set_up(&mut self, start: usize) {
        self.bury(&[]);
        self.start = start;
        if start & 4 != 0 {
            self.page.begin(&Told::sleepless(PREDECESSOR, self.dead), SURVIVOR).expect("it is open");
        }
    }

    fn first(&mut self) {
        self.bury(&[PREDECESSOR]);
        self.deed(VICTIM, self.start & 1 != 0);
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        self.deed(COMPANION, self.start & 2 != 0);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION]);
        self.page.check(&Told::sleepless(DRIVER, self.dead))
    }
}

fn two_deaths<L: Readers>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<Page<L>>()), Mapping::new(size_of::<Graveyard>()));
        // SAFETY: only integers in atomics: every bit pattern is one.
        let page: &Page<L> = unsafe { memory.at(0) };
        let mut drama = TwoDeaths { page, dead: Graveyard::of(&graves, 0), start: 0 };
        table.add(pairs(plan, wanted.effort, &memory, &mut drama));
    }
}

/// Sweeps of reading, then of a lock that counts.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    type Real = RwWords<4>;
    let plan = |role| Plan::new("rwlock: read", 20).role(role);
    read::<Real>(wanted, table, &plan(Role::Alone), Found::Open);
    read::<Real>(wanted, table, &plan(Role::PeersAsleep(1)), Found::Inside);
    read::<Real>(wanted, table, &plan(Role::Asleep), Found::WithWriter);
    read::<Real>(wanted, table, &plan(Role::JustWoken), Found::WithWriter);
    read::<Real>(wanted, table, &plan(Role::SecondWaiter), Found::WithWriter);
    read::<Real>(wanted, table, &plan(Role::Alone).paused(), Found::Open);
    let plan = Plan::new("rwlock: read after a death", 40).cut(Cut::Edges { stride: 3 });
    read::<Real>(wanted, table, &plan, Found::WithDeadWriter);
    let plan = PairPlan { name: "rwlock: read and write", floor: 10_000, seeded: false };
    two_deaths::<Real>(wanted, table, plan);

    let name = "rwlock that counts readers";
    read::<Counting>(wanted, table, &Plan::new(name, 1).seeded(), Found::Open);
    two_deaths::<Counting>(wanted, table, PairPlan { name, floor: 1, seeded: true });
}

/// The same by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    for (role, found) in [(Role::PeersAsleep(1), Found::Inside), (Role::JustWoken, Found::WithWriter)] {
        let plan = Plan::new("leased rwlock: read", 10).role(role).cut(Cut::Edges { stride: 5 });
        if wanted.is(plan.name) && LeasedHome::lets_sleep(role) {
            let (memory, home) = (Mapping::new(size_of::<Page<RwWords<4>>>()), LeasedHome::new(role));
            let make = || Reading::<_, RwWords<4>>::new(&memory, home.cast(), found);
            table.add(sweep(&plan, wanted.effort, make));
        }
    }
}

//! Where processes wait for each other, in every role and with every pair of deaths: conditions, flags, counts, barriers, and
//! work done once; then ones that are broken on purpose.

use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;

use crosslane_core::Wait;
use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::awaited::{Awaited, By, Condition, Deed, Parties, SURVIVOR, Work};
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, ToldCast, VICTIM};
use crate::mutex::PATIENCE;
use crate::unawaited::{Acknowledged, ClearedByNobody, Flagged, HandedOver, LockedFlag, Unwatched};

type OneWork = Work<{ By::Nobody as u8 }>;
type TheirWork = Work<{ By::Driver as u8 }>;
type HeldWork = Work<{ By::Victim as u8 }>;
type Two = Parties<2, { Deed::Come as u8 }>;
type Three = Parties<3, { Deed::Come as u8 }>;

/// What the victim does, and whether the driver helps the others after its death.
#[derive(Debug, Clone, Copy)]
struct Part {
    gives: bool,
    /// The driver does what the killed one did not. Otherwise who waits for the dead must find out by itself.
    helped: bool,
}

const GIVES: Part = Part { gives: true, helped: true };
const TAKES: Part = Part { gives: false, helped: false };
const GIVES_ALONE: Part = Part { gives: true, helped: false };

struct Play<'a, K: Cast, M> {
    awaited: &'a M,
    cast: K,
    driver: K::Env,
    victim: Option<K::Env>,
    part: Part,
}

impl<'a, K: Cast<Env: Sync>, M: Awaited> Play<'a, K, M> {
    fn new(memory: &'a Mapping, cast: K, part: Part) -> Self {
        memory.clear();
        // SAFETY: only integers in atomics: every bit pattern is one.
        let awaited: &M = unsafe { memory.at(0) };
        let driver = cast.join(DRIVER);
        awaited.lay_out(&driver);
        Self { awaited, cast, driver, victim: None, part }
    }
}

impl<K: Cast<Env: Sync>, M: Awaited> Scene for Play<'_, K, M> {
    fn prepare(&mut self) {
        self.awaited.prepare(self.victim.insert(self.cast.join(VICTIM)));
    }

    fn operate(&mut self) {
        let Some(env) = &self.victim else { return };
        let done = if self.part.gives { self.awaited.give(env) } else { self.awaited.take(env, PATIENCE) };
        if let Err(why) = done {
            panic!("{why}");
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.awaited.take(&self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)), PATIENCE)
    }

    fn rouse(&mut self) {
        self.awaited.help(&self.driver);
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
        if self.part.helped {
            self.awaited.help_after_death(&self.driver);
        }
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        self.awaited.check(&self.driver)
    }
}

fn play<M: Awaited>(wanted: &Wanted, table: &mut Table, plan: &Plan, part: Part) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<M>()), Mapping::new(size_of::<Graveyard>()));
        table.add(sweep(plan, wanted.effort, || Play::<_, M>::new(&memory, ToldCast::new(&graves), part)));
    }
}

fn leased_play<M: Awaited>(wanted: &Wanted, table: &mut Table, plan: &Plan, part: Part) {
    if wanted.is(plan.name) && LeasedHome::lets_sleep(plan.role) {
        let (memory, home) = (Mapping::new(size_of::<M>()), LeasedHome::new(plan.role));
        table.add(sweep(plan, wanted.effort, || Play::<_, M>::new(&memory, home.cast(), part)));
    }
}

/// The victim comes to a barrier of two and gives up at once; while it is stopped on its way, two threads of the driver's come
/// too.
struct Overtaken<'a> {
    two: &'a Two,
    cast: ToldCast<'a>,
    passed: u32,
}

impl Scene for Overtaken<'_> {
    fn operate(&mut self) {
        let env = self.cast.join(VICTIM);
        let passed = self.two.barrier().wait(&env, env.after(Duration::ZERO), || ());
        self.two.note().store(u64::from(passed.is_ok()), SeqCst);
    }

    fn interlude(&mut self) -> Result<(), String> {
        let (barrier, env) = (self.two.barrier(), self.cast.join(DRIVER));
        let come = || u32::from(barrier.wait(&env, env.after(Duration::from_millis(2)), || ()).is_ok());
        self.passed = std::thread::scope(|scope| {
            let other = scope.spawn(come);
            come() + other.join().expect("no panic")
        });
        Ok(())
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        let passed = u64::from(self.passed) + self.two.note().load(SeqCst);
        if matches!(passed, 0 | 2) { Ok(()) } else { Err(format!("{passed} through a barrier of two")) }
    }
}

fn overtaken(wanted: &Wanted, table: &mut Table, plan: &Plan) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<Two>()), Mapping::new(size_of::<Graveyard>()));
        table.add(sweep(plan, wanted.effort, || {
            memory.clear();
            // SAFETY: only integers in atomics: every bit pattern is one.
            let two: &Two = unsafe { memory.at(0) };
            Overtaken { two, cast: ToldCast::new(&graves), passed: 0 }
        }));
    }
}

/// A dies giving or taking, B recovers and dies giving or taking, C goes on.
struct TwoDeaths<'a, M> {
    awaited: &'a M,
    dead: &'a Graveyard,
    start: usize,
}

impl<M: Awaited> TwoDeaths<'_, M> {
    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn deed(&self, who: u32, gives: bool) {
        let env = Told::sleepless(who, self.dead);
        let _ = if gives { self.awaited.give(&env) } else { self.awaited.take(&env, SURVIVOR) };
    }
}

impl<M: Awaited> Drama for TwoDeaths<'_, M> {
    /// Each gives or takes; A is known before, or not.
    fn starts(&self) -> usize {
        8
    }

    fn set_up(&mut self, start: usize) {
        self.bury(&[]);
        self.start = start;
        if start & 4 != 0 {
            self.awaited.prepare(&Told::sleepless(VICTIM, self.dead));
        }
    }

    fn first(&mut self) {
        self.deed(VICTIM, self.start & 1 != 0);
    }

    fn second(&mut self) {
        self.bury(&[VICTIM]);
        self.awaited.recover(owner(VICTIM), &Told::sleepless(COMPANION, self.dead));
        self.deed(COMPANION, self.start & 2 != 0);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[VICTIM, COMPANION]);
        // Is not stepped, and may sleep.
        let env = Told::new(DRIVER, self.dead);
        [VICTIM, COMPANION].iter().for_each(|who| self.awaited.recover(owner(*who), &env));
        self.awaited.check(&env)
    }
}

fn two_deaths<M: Awaited>(wanted: &Wanted, table: &mut Table, name: &'static str, seeded: bool) {
    if wanted.is(name) {
        let (memory, graves) = (Mapping::new(size_of::<M>()), Mapping::new(size_of::<Graveyard>()));
        // SAFETY: only integers in atomics: every bit pattern is one.
        let awaited: &M = unsafe { memory.at(0) };
        let mut drama = TwoDeaths { awaited, dead: Graveyard::of(&graves, 0), start: 0 };
        let plan = PairPlan { name, floor: if seeded { 1 } else { 2_000 }, seeded };
        table.add(pairs(plan, wanted.effort, &memory, &mut drama));
    }
}

fn every_role<M: Awaited>(wanted: &Wanted, table: &mut Table, give: &'static str, take: &'static str) {
    play::<M>(wanted, table, &Plan::new(give, 5), GIVES);
    play::<M>(wanted, table, &Plan::new(give, 5).role(Role::PeersAsleep(1)), GIVES);
    play::<M>(wanted, table, &Plan::new(give, 5).role(Role::PeersAsleep(2)), GIVES);
    waits::<M>(wanted, table, take, Part { helped: true, ..TAKES });
}

fn waits<M: Awaited>(wanted: &Wanted, table: &mut Table, take: &'static str, part: Part) {
    play::<M>(wanted, table, &Plan::new(take, 10).role(Role::Asleep), part);
    play::<M>(wanted, table, &Plan::new(take, 5).role(Role::JustWoken), part);
    play::<M>(wanted, table, &Plan::new(take, 5).role(Role::SecondWaiter), part);
}

fn barriers(wanted: &Wanted, table: &mut Table) {
    type Aborted = Parties<2, { Deed::Abort as u8 }>;
    type Renewed = Parties<2, { Deed::Reset as u8 }>;
    type Withdrawn = Parties<2, { Deed::Withdraw as u8 }>;
    let asleep = |name, floor| Plan::new(name, floor).role(Role::PeersAsleep(1));
    play::<Two>(wanted, table, &asleep("barrier: last party", 60), GIVES_ALONE);
    play::<Three>(wanted, table, &Plan::new("barrier: last of three", 60).role(Role::PeersAsleep(2)), GIVES_ALONE);
    play::<Two>(wanted, table, &Plan::new("barrier: first party", 60).role(Role::Asleep), GIVES_ALONE);
    play::<Two>(wanted, table, &Plan::new("barrier: first party", 20).role(Role::JustWoken), GIVES_ALONE);
    play::<Three>(wanted, table, &Plan::new("barrier: first of three", 20).role(Role::SecondWaiter), GIVES_ALONE);
    play::<Aborted>(wanted, table, &asleep("barrier: abort", 15), GIVES_ALONE);
    play::<Renewed>(wanted, table, &asleep("barrier: reset", 20), GIVES_ALONE);
    play::<Withdrawn>(wanted, table, &Plan::new("barrier: withdraw", 10), GIVES_ALONE);
    overtaken(wanted, table, &Plan::new("barrier: one too many", 60).paused().cut(Cut::Edges { stride: 3 }));
    two_deaths::<Two>(wanted, table, "barrier: coming", false);
    two_deaths::<Aborted>(wanted, table, "barrier: coming or aborting", false);
    two_deaths::<Renewed>(wanted, table, "barrier: coming or making new", false);
}

/// Sweeps of everything that processes wait for, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    every_role::<Condition<true>>(wanted, table, "condvar: notify", "condvar: wait");
    let plan = Plan::new("condvar: notify one", 20).role(Role::PeersAsleep(2)).cut(Cut::Edges { stride: 5 });
    play::<Condition<false>>(wanted, table, &plan, GIVES);
    two_deaths::<Condition<true>>(wanted, table, "condvar: notify and wait", false);
    every_role::<FlagWord>(wanted, table, "flag: set", "flag: wait");
    two_deaths::<FlagWord>(wanted, table, "flag: set and wait", false);
    every_role::<SemaphoreWords>(wanted, table, "semaphore: release", "semaphore: acquire");
    two_deaths::<SemaphoreWords>(wanted, table, "semaphore: release and acquire", false);
    play::<OneWork>(wanted, table, &Plan::new("once: work", 30), GIVES_ALONE);
    let plan = |asleep| Plan::new("once: finish", 10).role(Role::PeersAsleep(asleep));
    play::<HeldWork>(wanted, table, &plan(1), GIVES_ALONE);
    play::<HeldWork>(wanted, table, &plan(2), GIVES_ALONE);
    waits::<TheirWork>(wanted, table, "once: wait", Part { helped: true, ..TAKES });
    two_deaths::<OneWork>(wanted, table, "once: work", false);
    barriers(wanted, table);
    broken(wanted, table);
}

fn broken(wanted: &Wanted, table: &mut Table) {
    let seed = |name| Plan::new(name, 1).seeded();
    play::<Acknowledged>(wanted, table, &seed("condition that is acknowledged").role(Role::Asleep), TAKES);
    play::<LockedFlag>(wanted, table, &seed("flag behind a lock"), GIVES_ALONE);
    play::<HandedOver>(wanted, table, &seed("semaphore that hands over").role(Role::Asleep), TAKES);
    play::<Flagged>(wanted, table, &seed("work without an owner"), GIVES_ALONE);
    play::<Unwatched>(wanted, table, &seed("barrier, leader unwatched").role(Role::PeersAsleep(1)), GIVES_ALONE);
    two_deaths::<Acknowledged>(wanted, table, "condition that is acknowledged", true);
    two_deaths::<LockedFlag>(wanted, table, "flag behind a lock", true);
    two_deaths::<HandedOver>(wanted, table, "semaphore that hands over", true);
    two_deaths::<Flagged>(wanted, table, "work without an owner", true);
    two_deaths::<ClearedByNobody>(wanted, table, "barrier cleared by nobody", true);
}

/// Some of it by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    type Cond = Condition<true>;
    let edges = |name| Plan::new(name, 15).cut(Cut::Edges { stride: 3 });
    let helped = Part { helped: true, ..TAKES };
    leased_play::<Cond>(wanted, table, &edges("leased condvar: notify").role(Role::PeersAsleep(1)), GIVES);
    leased_play::<Cond>(wanted, table, &edges("leased condvar: wait").role(Role::SecondWaiter), helped);
    leased_play::<FlagWord>(wanted, table, &edges("leased flag: wait").role(Role::SecondWaiter), helped);
    leased_play::<SemaphoreWords>(wanted, table, &edges("leased semaphore: acquire").role(Role::SecondWaiter), helped);
    leased_play::<HeldWork>(wanted, table, &edges("leased once: finish").role(Role::PeersAsleep(1)), GIVES_ALONE);
    leased_play::<Two>(wanted, table, &edges("leased barrier: last party").role(Role::PeersAsleep(1)), GIVES_ALONE);
    leased_play::<Two>(wanted, table, &edges("leased barrier: first party").role(Role::Asleep), GIVES_ALONE);
    leased_play::<Three>(wanted, table, &edges("leased barrier: first of 3").role(Role::SecondWaiter), GIVES_ALONE);
}

//! The lock word in every role, and locks that are broken on purpose.

use core::time::Duration;

use crosslane_core::mutex::LockWord;
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::account::{Account, DEPOSIT, Forgetful, FreesFirst, Lock, Ownerless, PlainTakeover, Unsliced};
use crate::cast::{COMPANION, DRIVER, PREDECESSOR, VICTIM};

/// How long anybody waits for the lock: longer than any deadline of the sweep's, so that a hang shows as one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the driver waits: a survivor that gets no lock says so itself.
const SURVIVOR: Duration = Duration::from_millis(250);

/// Where the lock is when the victim begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lying {
    Free,
    WithDriver,
    WithVictim,
    WithTheDead,
}

#[derive(Debug)]
#[repr(C)]
struct World<L> {
    dead: Graveyard,
    account: Account<L>,
}

struct Play<'a, L> {
    world: &'a World<L>,
    lying: Lying,
    companions: u64,
    patience: Duration,
    driver_holds: bool,
    interrupted: bool,
}

impl<'a, L: Lock> Play<'a, L> {
    fn new(mapping: &'a Mapping, lying: Lying, role: Role) -> Self {
        mapping.clear();
        // SAFETY: only atomic integers: every bit pattern is one.
        let world: &World<L> = unsafe { mapping.at(0) };
        let companions = match role {
            Role::PeersAsleep(count) => count as u64,
            Role::SecondWaiter => 1,
            _ => 0,
        };
        let driver_holds = lying == Lying::WithDriver;
        let play = Self { world, lying, companions, patience: PATIENCE, driver_holds, interrupted: false };
        match lying {
            Lying::Free | Lying::WithVictim => {}
            Lying::WithDriver => play.world.account.begin(&play.env(DRIVER), PATIENCE).expect("a free lock"),
            Lying::WithTheDead => {
                play.world.account.begin(&play.env(PREDECESSOR), PATIENCE).expect("a free lock");
                play.world.account.tear();
                play.world.dead.bury(owner(PREDECESSOR));
            }
        }
        play
    }

    fn env(&self, who: u32) -> Told<'a> {
        Told::new(who, &self.world.dead)
    }

    fn deposit(&self, who: u32, patience: Duration) -> Result<(), String> {
        self.world.account.deposit(&self.env(who), patience)
    }
}

impl<L: Lock> Scene for Play<'_, L> {
    fn prepare(&mut self) {
        if self.lying == Lying::WithVictim {
            self.world.account.begin(&self.env(VICTIM), PATIENCE).expect("a free lock");
        }
    }

    fn operate(&mut self) {
        let env = self.env(VICTIM);
        if self.lying == Lying::WithVictim {
            self.world.account.finish(&env);
        } else {
            let _ = self.world.account.deposit(&env, self.patience);
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.deposit(COMPANION + u32::try_from(who).unwrap_or(0), PATIENCE)
    }

    fn rouse(&mut self) {
        self.driver_holds = false;
        self.world.account.finish(&self.env(DRIVER));
    }

    fn interlude(&mut self) -> Result<(), String> {
        // Held by the paused victim: no false death. Otherwise the driver has it while the victim goes on.
        self.interrupted = self.world.account.begin(&self.env(DRIVER), Duration::ZERO).is_ok();
        Ok(())
    }

    fn reap(&mut self) {
        self.world.dead.bury(owner(VICTIM));
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        if self.driver_holds || self.interrupted {
            self.world.account.finish(&self.env(DRIVER));
        }
        self.deposit(DRIVER, SURVIVOR)?;
        let balance = self.world.account.audit()?;
        let by_driver = self.interrupted || self.lying == Lying::WithDriver;
        let by_victim = completed && !self.interrupted;
        let sure = 1 + self.companions + u64::from(by_driver) + u64::from(by_victim);
        if (sure..=sure + 1).contains(&(balance / DEPOSIT)) {
            Ok(())
        } else {
            Err(format!("a balance of {balance} after {sure} or {} deposits", sure + 1))
        }
    }
}

/// Sweeps of the lock word, then of broken locks.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    type Real = LockWord;
    let cases = [
        (Plan::new("mutex: transaction", 60), Lying::Free),
        (Plan::new("mutex: unlock", 20).role(Role::PeersAsleep(1)), Lying::WithVictim),
        (Plan::new("mutex: unlock, 2 waiters", 20).role(Role::PeersAsleep(2)), Lying::WithVictim),
        (Plan::new("mutex: lock", 60).role(Role::Asleep), Lying::WithDriver),
        (Plan::new("mutex: lock", 30).role(Role::JustWoken), Lying::WithDriver),
        (Plan::new("mutex: lock", 30).role(Role::SecondWaiter), Lying::WithDriver),
        (Plan::new("mutex: takeover", 80), Lying::WithTheDead),
    ];
    for (plan, lying) in cases {
        play::<Real>(wanted, table, &plan, lying, PATIENCE);
    }
    let short = Duration::from_millis(4);
    play::<Real>(wanted, table, &Plan::new("mutex: transaction", 60).paused(), Lying::Free, short);
    play::<Real>(wanted, table, &Plan::new("mutex: takeover", 80).paused(), Lying::WithTheDead, short);
    two_deaths::<Real>(wanted, table, PairPlan { name: "mutex: takeover", floor: 10_000, seeded: false });

    let seed = |name| Plan::new(name, 10).seeded();
    play::<Ownerless>(wanted, table, &seed("mutex without an owner"), Lying::Free, PATIENCE);
    play::<Forgetful>(wanted, table, &seed("owner's death ignored"), Lying::Free, PATIENCE);
    let plan = seed("woken once, no slices").role(Role::SecondWaiter);
    play::<Unsliced>(wanted, table, &plan, Lying::WithDriver, PATIENCE);
    let plan = seed("takeover by plain store").paused();
    play::<PlainTakeover>(wanted, table, &plan, Lying::WithTheDead, short);
    let seed = |name| PairPlan { name, floor: 1, seeded: true };
    two_deaths::<FreesFirst>(wanted, table, seed("takeover frees first"));
    two_deaths::<Forgetful>(wanted, table, seed("owner's death ignored"));
}

fn play<L: Lock>(wanted: &Wanted, table: &mut Table, plan: &Plan, lying: Lying, patience: Duration) {
    if wanted.is(plan.name) {
        let mapping = Mapping::new(size_of::<World<L>>());
        let make = || Play::<L> { patience, ..Play::new(&mapping, lying, plan.role) };
        table.add(sweep(plan, wanted.effort, make));
    }
}

/// A dies in a transaction, B in its takeover or its own transaction, C goes on.
struct TwoDeaths<'a, L> {
    account: &'a Account<L>,
    dead: &'a Graveyard,
}

impl<L: Lock> TwoDeaths<'_, L> {
    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn deposit(&self, who: u32) -> Result<(), String> {
        let env = Told::sleepless(who, self.dead);
        self.account.deposit(&env, SURVIVOR)
    }
}

impl<L: Lock> Drama for TwoDeaths<'_, L> {
    fn starts(&self) -> usize {
        2
    }

    fn set_up(&mut self, start: usize) {
        self.bury(&[]);
        // A's lock is free, or was left by somebody else who died.
        let env = Told::sleepless(PREDECESSOR, self.dead);
        self.account.begin(&env, SURVIVOR).expect("a free lock");
        if start == 0 {
            self.account.finish(&env);
        } else {
            self.account.tear();
        }
    }

    fn first(&mut self) {
        self.bury(&[PREDECESSOR]);
        let _ = self.deposit(VICTIM);
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        let _ = self.deposit(COMPANION);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION]);
        self.deposit(DRIVER)?;
        let balance = self.account.audit()?;
        if balance <= 4 * DEPOSIT { Ok(()) } else { Err(format!("a balance of {balance} after at most 4 deposits")) }
    }
}

fn two_deaths<L: Lock>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<Account<L>>()), Mapping::new(size_of::<Graveyard>()));
        // SAFETY: only atomic integers: every bit pattern is one.
        let account = unsafe { memory.at(0) };
        let mut drama = TwoDeaths::<L> { account, dead: Graveyard::of(&graves, 0) };
        table.add(pairs(plan, wanted.effort, &memory, &mut drama));
    }
}

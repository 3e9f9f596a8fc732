//! The lock word in every role, and locks that are broken on purpose.

use core::time::Duration;

use crosslane_core::mutex::LockWord;
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::account::{Account, DEPOSIT, Forgetful, FreesFirst, Lock, Ownerless, PlainTakeover, Unsliced};
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, PREDECESSOR, ToldCast, VICTIM};

/// How long anybody waits for the lock: longer than any deadline of the sweep's, so that a hang shows as one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How long the driver waits: a survivor that gets no lock says so itself.
const SURVIVOR: Duration = Duration::from_millis(500);

/// Where the lock is when the victim begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lying {
    Free,
    WithDriver,
    WithVictim,
    WithTheDead,
}

struct Play<'a, K: Cast, L> {
    account: &'a Account<L>,
    cast: K,
    driver: K::Env,
    victim: Option<K::Env>,
    lying: Lying,
    companions: u64,
    patience: Duration,
    driver_holds: bool,
    interrupted: bool,
}

impl<'a, K: Cast, L: Lock> Play<'a, K, L> {
    fn new(mapping: &'a Mapping, cast: K, lying: Lying, role: Role) -> Self {
        mapping.clear();
        // SAFETY: only atomic integers: every bit pattern is one.
        let account: &Account<L> = unsafe { mapping.at(0) };
        let companions = match role {
            Role::PeersAsleep(count) => count as u64,
            Role::SecondWaiter => 1,
            _ => 0,
        };
        let driver = cast.join(DRIVER);
        match lying {
            Lying::Free | Lying::WithVictim => {}
            Lying::WithDriver => account.begin(&driver, PATIENCE).expect("a free lock"),
            Lying::WithTheDead => cast.die_after(|env| {
                account.begin(env, PATIENCE).expect("a free lock");
                account.tear();
            }),
        }
        let driver_holds = lying == Lying::WithDriver;
        let (patience, interrupted) = (PATIENCE, false);
        Self { account, cast, driver, victim: None, lying, companions, patience, driver_holds, interrupted }
    }
}

impl<K: Cast, L: Lock> Scene for Play<'_, K, L> {
    fn prepare(&mut self) {
        let victim = self.victim.insert(self.cast.join(VICTIM));
        if self.lying == Lying::WithVictim {
            self.account.begin(victim, PATIENCE).expect("a free lock");
        }
    }

    fn operate(&mut self) {
        let Some(victim) = &self.victim else { return };
        if self.lying == Lying::WithVictim {
            self.account.finish(victim);
        } else {
            let _ = self.account.deposit(victim, self.patience);
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.account.deposit(&self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)), PATIENCE)
    }

    fn rouse(&mut self) {
        self.driver_holds = false;
        self.account.finish(&self.driver);
    }

    fn interlude(&mut self) -> Result<(), String> {
        // Held by the paused victim: no false death. Otherwise the driver has it while the victim goes on.
        self.interrupted = self.account.begin(&self.driver, Duration::ZERO).is_ok();
        Ok(())
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        if self.driver_holds || self.interrupted {
            self.account.finish(&self.driver);
        }
        self.account.deposit(&self.driver, SURVIVOR)?;
        let balance = self.account.audit()?;
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
    let short = Duration::from_millis(1);
    let paused = |name| Plan::new(name, 60).paused().cut(Cut::Edges { stride: 3 });
    play::<Real>(wanted, table, &paused("mutex: transaction"), Lying::Free, short);
    play::<Real>(wanted, table, &paused("mutex: takeover"), Lying::WithTheDead, short);
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

pub(crate) fn play<L: Lock>(wanted: &Wanted, table: &mut Table, plan: &Plan, lying: Lying, patience: Duration) {
    if wanted.is(plan.name) {
        let graves = Mapping::new(size_of::<Graveyard>());
        cast_with::<L, _>(wanted, table, plan, lying, patience, || ToldCast::new(&graves));
    }
}

fn cast_with<L: Lock, K: Cast>(
    wanted: &Wanted,
    table: &mut Table,
    plan: &Plan,
    lying: Lying,
    patience: Duration,
    mut cast: impl FnMut() -> K,
) {
    let mapping = Mapping::new(size_of::<Account<L>>());
    let make = || Play::<K, L> { patience, ..Play::new(&mapping, cast(), lying, plan.role) };
    table.add(sweep(plan, wanted.effort, make));
}

/// The lock word in every role, by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    let cases = [
        (Plan::new("leased: transaction", 60), Lying::Free),
        (Plan::new("leased: unlock", 20).role(Role::PeersAsleep(1)), Lying::WithVictim),
        (Plan::new("leased: lock", 60).role(Role::Asleep), Lying::WithDriver),
        (Plan::new("leased: lock", 30).role(Role::JustWoken), Lying::WithDriver),
        (Plan::new("leased: lock", 30).role(Role::SecondWaiter), Lying::WithDriver),
        (Plan::new("leased: takeover", 80).cut(Cut::Edges { stride: 5 }), Lying::WithTheDead),
    ];
    for (plan, lying) in cases {
        leased_play::<LockWord>(wanted, table, &plan, lying);
    }
}

pub(crate) fn leased_play<L: Lock>(wanted: &Wanted, table: &mut Table, plan: &Plan, lying: Lying) {
    if wanted.is(plan.name) && LeasedHome::lets_sleep(plan.role) {
        let home = LeasedHome::new(plan.role);
        cast_with::<L, _>(wanted, table, plan, lying, PATIENCE, || home.cast());
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
        // And somebody else after it, who finds nothing of all that.
        self.deposit(DRIVER)?;
        self.deposit(COMPANION + 1)?;
        let balance = self.account.audit()?;
        if balance <= 5 * DEPOSIT { Ok(()) } else { Err(format!("a balance of {balance} after at most 5 deposits")) }
    }
}

pub(crate) fn two_deaths<L: Lock>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<Account<L>>()), Mapping::new(size_of::<Graveyard>()));
        // SAFETY: only atomic integers: every bit pattern is one.
        let account = unsafe { memory.at(0) };
        let mut drama = TwoDeaths::<L> { account, dead: Graveyard::of(&graves, 0) };
        table.add(pairs(plan, wanted.effort, &memory, &mut drama));
    }
}

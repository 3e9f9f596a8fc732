//! Where processes wait for each other: conditions, flags, barriers, and work done once; and ones that count who is there.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::Wait;
use crosslane_core::lock::barrier::{Barrier, BarrierError};
use crosslane_core::lock::condvar::CondvarWord;
use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::mutex::LockWord;
use crosslane_tests::futex::{futex_wait, futex_wake};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told};

use crate::Wanted;
use crate::cast::{COMPANION, Cast, DRIVER, ToldCast, VICTIM};
use crate::mutex::PATIENCE;

/// How long the driver waits: a survivor that hangs says so itself.
const SURVIVOR: Duration = Duration::from_millis(500);

/// Something that processes wait for. All zero is a valid start.
trait Meeting {
    /// What the victim does before it is stepped.
    fn prepare(&self, _: &Told<'_>) {}
    /// What the victim does when it gives.
    fn give(&self, env: &Told<'_>) -> Result<(), String>;
    /// What a waiter does.
    fn take(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String>;
    /// What the driver does so that the waiters come through; also after the giver was killed.
    fn help(&self, env: &Told<'_>);
    /// What must hold at the end.
    fn check(&self, env: &Told<'_>) -> Result<(), String> {
        self.help(env);
        self.take(env, SURVIVOR)
    }
}

/// A condition: is the number not 0.
#[derive(Debug)]
#[repr(C)]
struct Condition {
    lock: LockWord,
    condvar: CondvarWord,
    number: AtomicU32,
}

impl Condition {
    fn lock(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        self.lock.lock(env, env.after(timeout)).map(|_| ()).map_err(|error| error.to_string())
    }
}

impl Meeting for Condition {
    fn give(&self, env: &Told<'_>) -> Result<(), String> {
        self.lock(env, PATIENCE)?;
        self.number.store(1, SeqCst);
        self.lock.unlock(env, false);
        self.condvar.notify(u32::MAX, env);
        Ok(())
    }

    fn take(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        let deadline = env.after(timeout);
        self.lock(env, timeout)?;
        while self.number.load(SeqCst) == 0 {
            let in_time = self.condvar.wait(env, deadline, || self.lock.unlock(env, false));
            self.lock(env, timeout)?;
            if !in_time && self.number.load(SeqCst) == 0 {
                self.lock.unlock(env, false);
                return Err("the condition never came true".into());
            }
        }
        self.lock.unlock(env, false);
        Ok(())
    }

    fn help(&self, env: &Told<'_>) {
        let _ = self.give(env);
    }
}

impl Meeting for FlagWord {
    fn give(&self, env: &Told<'_>) -> Result<(), String> {
        self.set(env);
        Ok(())
    }
    fn take(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        if self.wait(env, env.after(timeout)) { Ok(()) } else { Err("never set".into()) }
    }
    fn help(&self, env: &Told<'_>) {
        self.set(env);
    }
}

/// Work that leaves how often it was begun and ended.
#[derive(Debug)]
#[repr(C)]
struct Work {
    once: OnceWords,
    begun: AtomicU32,
    ended: AtomicU32,
}

impl Meeting for Work {
    fn give(&self, env: &Told<'_>) -> Result<(), String> {
        self.take(env, PATIENCE)
    }
    fn take(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        if let Begun::Mine(_) = self.once.begin(env, env.after(timeout)).map_err(|error| error.to_string())? {
            self.begun.fetch_add(1, SeqCst);
            self.ended.fetch_add(1, SeqCst);
            self.once.finish(true, env);
        }
        if self.ended.load(SeqCst) == 0 { Err("done without having been done".into()) } else { Ok(()) }
    }
    fn help(&self, env: &Told<'_>) {
        let _ = self.take(env, SURVIVOR);
    }
    fn check(&self, env: &Told<'_>) -> Result<(), String> {
        self.take(env, SURVIVOR)?;
        // One death, so at most two began it.
        match (self.begun.load(SeqCst), self.once.is_done()) {
            (1 | 2, true) => Ok(()),
            other => Err(format!("begun and done: {other:?}")),
        }
    }
}

/// A barrier of two.
#[derive(Debug)]
#[repr(C)]
struct Two {
    words: [AtomicU64; 4],
}

impl Two {
    fn barrier(&self) -> Barrier<'_> {
        let memory = NonNull::from(&self.words).cast();
        // SAFETY: atomic words that live as long as `self`.
        unsafe { Barrier::attach(memory, size_of_val(&self.words), 2) }.expect("room for two")
    }
}

impl Meeting for Two {
    /// Known to the barrier: comes, gives up, and makes it new.
    fn prepare(&self, env: &Told<'_>) {
        let _ = self.barrier().wait(env, env.after(Duration::ZERO), || ());
        self.barrier().reset(env);
    }
    fn give(&self, env: &Told<'_>) -> Result<(), String> {
        self.take(env, PATIENCE)
    }
    fn take(&self, env: &Told<'_>, timeout: Duration) -> Result<(), String> {
        match self.barrier().wait(env, env.after(timeout), || ()) {
            Ok(_) | Err(BarrierError::Broken) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
    fn help(&self, env: &Told<'_>) {
        let _ = self.take(env, SURVIVOR);
    }
    fn check(&self, env: &Told<'_>) -> Result<(), String> {
        self.barrier().reset(env);
        match self.barrier().wait(env, env.after(Duration::from_millis(2)), || ()) {
            Err(BarrierError::TimedOut) if self.barrier().is_broken() => Ok(()),
            other => Err(format!("alone at a new barrier: {other:?}")),
        }
    }
}

/// Seeded: a barrier that counts, as pthread's does.
#[derive(Debug)]
#[repr(C)]
struct CountingBarrier {
    arrived: AtomicU32,
    round: AtomicU32,
}

impl Meeting for CountingBarrier {
    fn give(&self, env: &Told<'_>) -> Result<(), String> {
        self.take(env, PATIENCE)
    }
    fn take(&self, _: &Told<'_>, timeout: Duration) -> Result<(), String> {
        let round = self.round.load(SeqCst);
        if self.arrived.fetch_add(1, SeqCst) == 1 {
            self.arrived.store(0, SeqCst);
            self.round.fetch_add(1, SeqCst);
            futex_wake(&self.round, u32::MAX);
            return Ok(());
        }
        futex_wait(&self.round, round, timeout);
        if self.round.load(SeqCst) == round { Err("the other never came".into()) } else { Ok(()) }
    }
    fn help(&self, _: &Told<'_>) {}
    fn check(&self, _: &Told<'_>) -> Result<(), String> {
        Ok(())
    }
}

struct Play<'a, M> {
    meeting: &'a M,
    cast: ToldCast<'a>,
    gives: bool,
}

impl<M: Meeting> Scene for Play<'_, M> {
    fn prepare(&mut self) {
        self.meeting.prepare(&self.cast.join(VICTIM));
    }

    fn operate(&mut self) {
        let env = self.cast.join(VICTIM);
        let done = if self.gives { self.meeting.give(&env) } else { self.meeting.take(&env, PATIENCE) };
        if let Err(why) = done {
            panic!("{why}");
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.meeting.take(&self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)), PATIENCE)
    }

    fn rouse(&mut self) {
        self.meeting.help(&self.cast.join(DRIVER));
    }

    /// The driver only buries: who waits for the dead must find out, or look again, by itself; what the dead did not give,
    /// the driver does.
    fn reap(&mut self) {
        self.cast.bury_victim();
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        self.meeting.check(&self.cast.join(DRIVER))
    }
}

fn play<M: Meeting>(wanted: &Wanted, table: &mut Table, plan: &Plan, gives: bool) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<M>()), Mapping::new(size_of::<Graveyard>()));
        table.add(sweep(plan, wanted.effort, || {
            memory.clear();
            // SAFETY: only integers in atomics: every bit pattern is one.
            let meeting: &M = unsafe { memory.at(0) };
            Play { meeting, cast: ToldCast::new(&graves), gives }
        }));
    }
}

/// As `Play`, and the driver gives what the killed one did not, so that those who wait for it come through.
struct Given<'a, M>(Play<'a, M>);

impl<M: Meeting> Scene for Given<'_, M> {
    fn operate(&mut self) {
        self.0.operate();
    }
    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.0.companion(who)
    }
    fn rouse(&mut self) {
        self.0.rouse();
    }
    fn reap(&mut self) {
        self.0.reap();
        self.0.rouse();
    }
    fn survive(&mut self, completed: bool) -> Result<(), String> {
        self.0.survive(completed)
    }
}

fn given<M: Meeting>(wanted: &Wanted, table: &mut Table, plan: &Plan, gives: bool) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<M>()), Mapping::new(size_of::<Graveyard>()));
        table.add(sweep(plan, wanted.effort, || {
            memory.clear();
            // SAFETY: only integers in atomics: every bit pattern is one.
            let meeting: &M = unsafe { memory.at(0) };
            Given(Play { meeting, cast: ToldCast::new(&graves), gives })
        }));
    }
}

fn every_role<M: Meeting>(wanted: &Wanted, table: &mut Table, give: &'static str, take: &'static str) {
    given::<M>(wanted, table, &Plan::new(give, 5), true);
    given::<M>(wanted, table, &Plan::new(give, 5).role(Role::PeersAsleep(1)), true);
    given::<M>(wanted, table, &Plan::new(give, 5).role(Role::PeersAsleep(2)), true);
    given::<M>(wanted, table, &Plan::new(take, 10).role(Role::Asleep), false);
    given::<M>(wanted, table, &Plan::new(take, 5).role(Role::JustWoken), false);
    given::<M>(wanted, table, &Plan::new(take, 5).role(Role::SecondWaiter), false);
}

/// Sweeps of everything that processes wait for, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    every_role::<Condition>(wanted, table, "condvar: notify", "condvar: wait");
    every_role::<FlagWord>(wanted, table, "flag: set", "flag: wait");
    play::<Work>(wanted, table, &Plan::new("once: work", 30), true);
    play::<Two>(wanted, table, &Plan::new("barrier: last party", 60).role(Role::PeersAsleep(1)), true);
    play::<Two>(wanted, table, &Plan::new("barrier: first party", 60).role(Role::Asleep), false);
    play::<Two>(wanted, table, &Plan::new("barrier: first party", 20).role(Role::JustWoken), false);

    let seed = Plan::new("barrier that counts", 1).seeded().role(Role::PeersAsleep(1));
    play::<CountingBarrier>(wanted, table, &seed, true);
}

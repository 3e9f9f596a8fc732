//! The event word: wakers and waiters of a counter of tickets.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::event::{EventWord, Slept};
use crosslane_core::{Slice, Wait, WakeMode};
use crosslane_tests::futex::{futex_wait, futex_wake};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told};

use crate::Wanted;
use crate::cast::{COMPANION, Cast, DRIVER, ToldCast, VICTIM};

/// How long a victim or companion waits: longer than any deadline of the sweep's, so that a hang shows as one.
const PATIENCE: Duration = Duration::from_secs(40);
/// Tickets that a waker hands out at once.
const TICKETS: u32 = 2;

/// A way to wait for something and to tell that it is there. All zero: nobody waits.
trait Bell {
    fn wake(&self, items: u32, env: &Told<'_>);
    fn wake_all(&self, env: &Told<'_>);
    /// Sleeps unless `ready`; `false` at the deadline.
    fn sleep_unless(&self, env: &Told<'_>, deadline: Option<u64>, ready: impl FnOnce() -> bool) -> bool;
}

impl Bell for EventWord {
    fn wake(&self, items: u32, env: &Told<'_>) {
        EventWord::wake(self, items, WakeMode::Fenced, env);
    }
    fn wake_all(&self, env: &Told<'_>) {
        EventWord::wake_all(self, env);
    }
    fn sleep_unless(&self, env: &Told<'_>, deadline: Option<u64>, ready: impl FnOnce() -> bool) -> bool {
        self.sleep_unless(WakeMode::Fenced, Slice::Long, deadline, env, ready) != Slept::Expired
    }
}

/// Seeded: counts its sleepers and wakes only if there are any; a sleep has no slices. A waker that is killed between
/// taking the count and waking leaves everybody asleep.
#[derive(Debug)]
#[repr(C)]
struct Counted {
    word: AtomicU32,
    sleepers: AtomicU32,
}

impl Bell for Counted {
    fn wake(&self, _: u32, _: &Told<'_>) {
        if self.sleepers.swap(0, SeqCst) != 0 {
            self.word.fetch_add(1, SeqCst);
            futex_wake(&self.word, u32::MAX);
        }
    }
    fn wake_all(&self, env: &Told<'_>) {
        self.wake(u32::MAX, env);
    }
    fn sleep_unless(&self, _: &Told<'_>, _: Option<u64>, ready: impl FnOnce() -> bool) -> bool {
        let word = self.word.load(SeqCst);
        self.sleepers.fetch_add(1, SeqCst);
        if !ready() {
            futex_wait(&self.word, word, PATIENCE);
        }
        true
    }
}

#[derive(Debug)]
#[repr(C)]
struct World<B> {
    bell: B,
    tickets: AtomicU32,
}

impl<B: Bell> World<B> {
    /// Publishes `count` tickets and wakes as many.
    fn publish(&self, count: u32, env: &Told<'_>) {
        self.tickets.fetch_add(count, SeqCst);
        self.bell.wake(count, env);
    }

    /// Takes a ticket, waiting for one; passes a wake on if it leaves tickets behind.
    fn take(&self, env: &Told<'_>) -> Result<(), String> {
        let deadline = env.after(PATIENCE);
        loop {
            let taken = self.tickets.try_update(SeqCst, SeqCst, |count| count.checked_sub(1));
            match taken {
                Ok(1) => return Ok(()),
                Ok(_) => {
                    self.bell.wake(1, env);
                    return Ok(());
                }
                Err(_) => {}
            }
            if !self.bell.sleep_unless(env, deadline, || self.tickets.load(SeqCst) != 0) {
                return Err("no ticket".into());
            }
        }
    }
}

struct Play<'a, B> {
    world: &'a World<B>,
    cast: ToldCast<'a>,
    wakes: bool,
    companions: u32,
}

impl<B: Bell> Scene for Play<'_, B> {
    fn operate(&mut self) {
        let env = self.cast.join(VICTIM);
        if self.wakes {
            self.world.publish(TICKETS, &env);
        } else if let Err(why) = self.world.take(&env) {
            panic!("{why}");
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        self.world.take(&self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)))
    }

    fn rouse(&mut self) {
        self.world.publish(1, &self.cast.join(DRIVER));
        if self.companions != 0 {
            self.world.publish(self.companions, &self.cast.join(DRIVER));
        }
    }

    /// As a reaper does: wakes all, so that nobody waits for the dead waker; and hands out what it did not.
    fn reap(&mut self) {
        self.cast.bury_victim();
        let env = self.cast.join(DRIVER);
        if self.wakes && self.world.tickets.load(SeqCst) == 0 {
            // Either nothing was published, or everything has been taken: tickets too many harm nobody.
            self.world.publish(TICKETS, &env);
        }
        self.world.bell.wake_all(&env);
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        let env = self.cast.join(DRIVER);
        self.world.publish(1, &env);
        self.world.take(&env)
    }
}

fn play<B: Bell>(wanted: &Wanted, table: &mut Table, plan: &Plan, wakes: bool) {
    if wanted.is(plan.name) {
        let (memory, graves) = (Mapping::new(size_of::<World<B>>()), Mapping::new(size_of::<Graveyard>()));
        let companions = match plan.role {
            Role::PeersAsleep(count) => u32::try_from(count).unwrap_or(0),
            Role::SecondWaiter => 1,
            _ => 0,
        };
        table.add(sweep(plan, wanted.effort, || {
            memory.clear();
            // SAFETY: only integers in atomics: every bit pattern is one.
            let world: &World<B> = unsafe { memory.at(0) };
            Play { world, cast: ToldCast::new(&graves), wakes, companions }
        }));
    }
}

/// Sweeps of the event word, then of a broken one.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    type Real = EventWord;
    play::<Real>(wanted, table, &Plan::new("event: wake", 10), true);
    play::<Real>(wanted, table, &Plan::new("event: wake", 15).role(Role::PeersAsleep(1)), true);
    play::<Real>(wanted, table, &Plan::new("event: wake", 15).role(Role::PeersAsleep(2)), true);
    play::<Real>(wanted, table, &Plan::new("event: sleep", 30).role(Role::Asleep), false);
    play::<Real>(wanted, table, &Plan::new("event: sleep", 15).role(Role::JustWoken), false);
    play::<Real>(wanted, table, &Plan::new("event: sleep", 15).role(Role::SecondWaiter), false);
    let seed = Plan::new("event that counts sleepers", 1).seeded().role(Role::PeersAsleep(1));
    play::<Counted>(wanted, table, &seed, true);
}

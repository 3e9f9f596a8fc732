//! The same sweep over glibc's primitives. What comes of it is counted, and stands beside ours in `docs/crash.md`.
//!
//! A survivor that sleeps while everybody else has finished sleeps for good, and one that spins for longer than some calls
//! take spins for good: that is seen after a few looks, so that the some hundred hangs cost seconds.

use core::time::Duration;

use crosslane_tests::child::{Child, End, panic_quietly};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Plan, Role, Scene, sweep};

use crate::Wanted;
use crate::posix::Posix;

/// How long a survivor may take, when it neither sleeps nor spins.
const BUSY: Duration = Duration::from_secs(2);

type Step = fn(&Posix);

/// Who does what.
#[derive(Clone, Copy)]
struct Part {
    /// The driver, first: takes what the victim waits for, and gives it up in `rouse`, or before it survives.
    hold: Option<Step>,
    rouse: Step,
    /// The victim before it is stepped, and stepped.
    prepare: Step,
    operate: Step,
    companion: Step,
    /// What a killed victim may not have given to the companions.
    help: Option<Step>,
    survive: fn(&Posix) -> Result<(), String>,
}

struct Play<'a> {
    posix: &'a Posix,
    part: Part,
    holds: bool,
    helped: Result<(), String>,
}

impl<'a> Play<'a> {
    fn new(memory: &'a Mapping, part: Part) -> Self {
        memory.clear();
        // SAFETY: integers in cells and atomics: every bit pattern is one.
        let posix: &Posix = unsafe { memory.at(0) };
        posix.init();
        if let Some(hold) = part.hold {
            hold(posix);
        }
        Self { posix, part, holds: part.hold.is_some(), helped: Ok(()) }
    }

    fn let_go(&mut self) {
        if core::mem::take(&mut self.holds) {
            (self.part.rouse)(self.posix);
        }
    }
}

/// A robust mutex that the driver holds is in a list of its thread's.
impl Drop for Play<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Scene for Play<'_> {
    fn prepare(&mut self) {
        (self.part.prepare)(self.posix);
    }

    fn operate(&mut self) {
        (self.part.operate)(self.posix);
    }

    fn companion(&mut self, _: usize) -> Result<(), String> {
        (self.part.companion)(self.posix);
        Ok(())
    }

    fn rouse(&mut self) {
        self.holds = false;
        (self.part.rouse)(self.posix);
    }

    fn reap(&mut self) {
        self.helped = self.part.help.map_or(Ok(()), |help| survivor("who gives instead", self.posix, help));
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        self.let_go();
        self.helped.clone()?;
        (self.part.survive)(self.posix)
    }
}

fn fork(posix: &Posix, step: impl FnOnce(&Posix)) -> Child {
    Child::fork(|| {
        panic_quietly();
        step(posix);
        0
    })
}

fn finish(who: &str, mut child: Child) -> Result<(), String> {
    match child.wait_unless_stuck(0, BUSY) {
        Some(End::Exited(0)) => Ok(()),
        Some(_) => Err(format!("{who} gets an error")),
        None => Err(format!("{who} hangs")),
    }
}

fn survivor(who: &str, posix: &Posix, step: impl FnOnce(&Posix)) -> Result<(), String> {
    finish(who, fork(posix, step))
}

fn lock_again(posix: &Posix) -> Result<(), String> {
    survivor("the next owner", posix, |posix| {
        lock(posix);
        lock(posix);
    })
}

fn write_and_read(posix: &Posix) -> Result<(), String> {
    survivor("the next writer", posix, write)?;
    survivor("the next reader", posix, read)
}

fn acquire_again(posix: &Posix) -> Result<(), String> {
    survivor("the next holder", posix, acquire)?;
    if posix.permits() == 1 { Ok(()) } else { Err("a permit too many".into()) }
}

/// Twice, since a broadcast waits for who was woken by the one before, not by itself.
fn wait_and_notify(posix: &Posix) -> Result<(), String> {
    for number in [2, 3] {
        let mut waiter = fork(posix, |posix| posix.wait_for(number, false));
        if !waiter.wait_asleep(0, BUSY) {
            return Err("the next waiter does not wait".into());
        }
        survivor("the next broadcast", posix, |posix| posix.set(number))?;
        finish("the next waiter", waiter)?;
    }
    Ok(())
}

fn meet_again(posix: &Posix) -> Result<(), String> {
    let mut first = fork(posix, Posix::meet);
    if !first.wait_asleep(0, BUSY) {
        return Err("one of two new parties goes through alone".into());
    }
    survivor("the second of two new parties", posix, Posix::meet)?;
    finish("the first of two new parties", first)
}

fn nothing(_: &Posix) {}

fn lock(posix: &Posix) {
    posix.lock();
    posix.unlock();
}

fn read(posix: &Posix) {
    posix.read();
    posix.leave();
}

fn write(posix: &Posix) {
    posix.write();
    posix.leave();
}

fn acquire(posix: &Posix) {
    posix.acquire();
    posix.release();
}

fn notify(posix: &Posix) {
    posix.set(1);
}

fn wait(posix: &Posix) {
    posix.wait_for(1, false);
}

fn wait_timed(posix: &Posix) {
    posix.wait_for(1, true);
}

/// Something that is taken and given up.
struct Held {
    take: Step,
    give_up: Step,
    both: Step,
    survive: fn(&Posix) -> Result<(), String>,
    /// The names of both, of giving up and of taking; and ours.
    names: [(&'static str, &'static str); 3],
}

const HELD: [Held; 3] = [
    Held {
        take: Posix::lock,
        give_up: Posix::unlock,
        both: lock,
        survive: lock_again,
        names: [
            ("glibc mutex: transaction", "mutex: transaction"),
            ("glibc mutex: unlock", "mutex: unlock"),
            ("glibc mutex: lock", "mutex: lock"),
        ],
    },
    Held {
        take: Posix::write,
        give_up: Posix::leave,
        both: write,
        survive: write_and_read,
        names: [("glibc rwlock: write", "rwlock: write"); 3],
    },
    Held {
        take: Posix::acquire,
        give_up: Posix::release,
        both: acquire,
        survive: acquire_again,
        names: [("glibc semaphore: permit", "permits: transaction"); 3],
    },
];

/// Sweeps of everything that glibc has.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let mut play = |(name, ours): (&'static str, &'static str), role: Role, part: Part| {
        if wanted.is(name) {
            let memory = Mapping::new(size_of::<Posix>());
            let plan = Plan::new(name, 5).role(role).beside(ours);
            table.add(sweep(&plan, wanted.effort, || Play::new(&memory, part)));
        }
    };
    for held in HELD {
        let [both, give_up, take] = held.names;
        let part = Part {
            hold: None,
            rouse: held.give_up,
            prepare: nothing,
            operate: held.both,
            companion: held.both,
            help: None,
            survive: held.survive,
        };
        let waits = Part { hold: Some(held.take), ..part };
        play(both, Role::Alone, part);
        play(give_up, Role::PeersAsleep(1), Part { prepare: held.take, operate: held.give_up, ..part });
        for role in [Role::Asleep, Role::JustWoken, Role::SecondWaiter] {
            play(take, role, waits);
        }
    }
    let part = Part {
        hold: None,
        rouse: nothing,
        prepare: nothing,
        operate: read,
        companion: nothing,
        help: None,
        survive: write_and_read,
    };
    play(("glibc rwlock: read", "rwlock: read"), Role::Alone, part);
    let gives = Part { operate: notify, companion: wait, help: Some(notify), survive: wait_and_notify, ..part };
    for role in [Role::Alone, Role::PeersAsleep(1)] {
        play(("glibc condition: notify", "condvar: notify"), role, gives);
    }
    for (name, operate) in [("glibc condition: wait", wait as Step), ("glibc condition: timed", wait_timed)] {
        for role in [Role::Asleep, Role::JustWoken, Role::SecondWaiter] {
            let waits = Part { rouse: notify, operate, help: None, ..gives };
            play((name, "condvar: wait"), role, waits);
        }
    }
    let meets = Part { rouse: Posix::meet, operate: Posix::meet, companion: Posix::meet, survive: meet_again, ..part };
    play(("glibc barrier: last party", "barrier: last party"), Role::PeersAsleep(1), meets);
    for role in [Role::Asleep, Role::JustWoken] {
        play(("glibc barrier: first party", "barrier: first party"), role, meets);
    }
}

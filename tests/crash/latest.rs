//! The newest value: its writer killed at every instruction of publishing, claiming and closing; readers in every role; and a
//! board that is broken on purpose.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::latest::{Cells, ReadError, Writer};
use crosslane_core::{Liveness, Wait, WakeMode};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, PREDECESSOR, ToldCast, VICTIM};

/// Longer than any deadline of the sweep's, so that a hang shows as one.
const PATIENCE: Duration = Duration::from_secs(40);
const CELLS: u32 = 3;
/// Values published before the scene begins: more than there are cells.
const BEFORE: u64 = 4;
const BOARD_BYTES: usize = 1024;

/// Value `n` is `n` in every word.
type Value = [u64; 3];

/// Where values are shown.
trait Board<'m>: Copy {
    type Writer<E: Wait + Liveness>;
    fn at(memory: &'m Mapping) -> Self;
    fn writer<E: Wait + Liveness>(self, env: E) -> Result<Self::Writer<E>, String>;
    fn publish<E: Wait + Liveness>(writer: &mut Self::Writer<E>, n: u64) -> Result<(), String>;
    fn version<E: Wait + Liveness>(writer: &Self::Writer<E>) -> u64;
    /// The newest value, newer than `seen`, waiting at most for `timeout`.
    fn read<E: Wait + Liveness>(self, env: E, seen: u64, timeout: Duration) -> Result<Value, ReadError>;
}

impl<'m> Board<'m> for Cells<'m, Value> {
    type Writer<E: Wait + Liveness> = Writer<'m, Value, E>;

    fn at(memory: &'m Mapping) -> Self {
        let (start, len) = (memory.base(), memory.len_bytes());
        // SAFETY: the mapping lives for 'm and is used for these cells alone; all zero is a valid start.
        unsafe { Cells::attach(start, len, CELLS, WakeMode::Fenced) }.expect("room for cells")
    }
    fn writer<E: Wait + Liveness>(self, env: E) -> Result<Self::Writer<E>, String> {
        Cells::writer(&self, env).map_err(|error| error.to_string())
    }
    fn publish<E: Wait + Liveness>(writer: &mut Self::Writer<E>, n: u64) -> Result<(), String> {
        writer.publish(&[n; 3]).map_err(|error| error.to_string())
    }
    fn version<E: Wait + Liveness>(writer: &Self::Writer<E>) -> u64 {
        writer.version()
    }
    fn read<E: Wait + Liveness>(self, env: E, seen: u64, timeout: Duration) -> Result<Value, ReadError> {
        let mut reader = self.reader(env);
        if seen != 0 {
            let value = reader.read()?;
            if reader.version() != seen {
                return Ok(value);
            }
        }
        let value = if seen == 0 { reader.read() } else { reader.read_newer_timeout(timeout) }?;
        if value == [reader.version(); 3] { Ok(value) } else { Err(ReadError::Corrupt) }
    }
}

/// Seeded: one cell, written in place, with a version behind it. A writer that is killed in the middle leaves half a value.
#[derive(Clone, Copy)]
struct InPlace<'m>(&'m [AtomicU64; 4]);

impl<'m> Board<'m> for InPlace<'m> {
    type Writer<E: Wait + Liveness> = Self;

    fn at(memory: &'m Mapping) -> Self {
        // SAFETY: only integers in atomics: every bit pattern is one.
        Self(unsafe { NonNull::cast(memory.base()).as_ref() })
    }
    fn writer<E: Wait + Liveness>(self, _: E) -> Result<Self, String> {
        Ok(self)
    }
    fn publish<E: Wait + Liveness>(writer: &mut Self, n: u64) -> Result<(), String> {
        writer.0.iter().for_each(|word| word.store(n, SeqCst));
        Ok(())
    }
    fn version<E: Wait + Liveness>(writer: &Self) -> u64 {
        writer.0[3].load(SeqCst)
    }
    fn read<E: Wait + Liveness>(self, _: E, _: u64, _: Duration) -> Result<Value, ReadError> {
        let value = core::array::from_fn(|i| self.0[i].load(SeqCst));
        if value == [self.0[3].load(SeqCst); 3] { Ok(value) } else { Err(ReadError::Corrupt) }
    }
}

/// The operation under the knife.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Publish,
    PublishAndClose,
    ClaimAndPublish,
    Wait,
}

struct Play<'m, K: Cast, B: Board<'m>> {
    board: B,
    cast: K,
    part: Part,
    victim: Option<K::Env>,
    writer: Option<B::Writer<K::Env>>,
}

impl<'m, K: Cast, B: Board<'m>> Play<'m, K, B> {
    fn new(memory: &'m Mapping, cast: K, part: Part) -> Self {
        memory.clear();
        let board = B::at(memory);
        let mut play = Self { board, cast, part, victim: None, writer: None };
        let mut writer = board.writer(cast.join(DRIVER)).expect("vacant");
        (1..=BEFORE).for_each(|n| B::publish(&mut writer, n).expect("the driver lives"));
        if part == Part::Wait {
            play.writer = Some(writer);
        } else {
            drop(writer);
        }
        if part == Part::ClaimAndPublish {
            cast.die_after(|env| core::mem::forget(board.writer(env.clone()).expect("closed")));
        }
        play
    }

    fn publish_next(&mut self) {
        if let Some(writer) = &mut self.writer {
            B::publish(writer, BEFORE + 1).expect("no fork");
        }
    }
}

impl<'m, K: Cast, B: Board<'m>> Scene for Play<'m, K, B> {
    fn prepare(&mut self) {
        let env = self.cast.join(VICTIM);
        match self.part {
            Part::Publish | Part::PublishAndClose => self.writer = Some(self.board.writer(env).expect("closed")),
            Part::ClaimAndPublish | Part::Wait => self.victim = Some(env),
        }
    }

    fn operate(&mut self) {
        match self.part {
            Part::Publish => self.publish_next(),
            Part::PublishAndClose => {
                self.publish_next();
                drop(self.writer.take());
            }
            Part::ClaimAndPublish => {
                let env = self.victim.take().expect("prepared");
                self.writer = Some(self.board.writer(env).expect("its owner is dead"));
                self.publish_next();
            }
            Part::Wait => {
                let env = self.victim.take().expect("prepared");
                let value = self.board.read(env, BEFORE, PATIENCE).expect("a newer value");
                assert_eq!(value, [BEFORE + 1; 3]);
            }
        }
    }

    /// A reader, asleep behind the writer.
    fn companion(&mut self, who: usize) -> Result<(), String> {
        let env = || self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0));
        let mut seen = BEFORE;
        loop {
            match self.board.read(env(), seen, PATIENCE) {
                Ok([n, ..]) if n == seen + 1 => seen = n,
                Ok(value) => return Err(format!("{value:?} after {seen}")),
                Err(ReadError::WriterDied(_)) => return Ok(()),
                Err(ReadError::Closed) if self.part == Part::PublishAndClose => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn rouse(&mut self) {
        self.publish_next();
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
    }

    /// The old value or the new one, whole; then a successor goes on.
    fn survive(&mut self, completed: bool) -> Result<(), String> {
        let env = self.cast.join(DRIVER);
        let read = |seen| self.board.read(env.clone(), seen, PATIENCE);
        let [found, ..] = read(0).map_err(|error| format!("reading: {error}"))?;
        let oldest = if completed { BEFORE + 1 } else { BEFORE };
        let due = oldest..=BEFORE + 1;
        if !due.contains(&found) {
            return Err(format!("value {found} where {due:?} was due"));
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.board.writer(env.clone())?,
        };
        if B::version(&writer) != found {
            return Err(format!("the successor stands at {}, the value is {found}", B::version(&writer)));
        }
        for n in found + 1..=found + u64::from(CELLS) + 1 {
            B::publish(&mut writer, n)?;
            if read(0) != Ok([n; 3]) {
                return Err(format!("{:?} after {n} was published", read(0)));
            }
        }
        Ok(())
    }
}

fn play<'m, B: Board<'m>>(wanted: &Wanted, table: &mut Table, memory: &'m Mapping, plan: &Plan, part: Part) {
    if wanted.is(plan.name) {
        let graves = Mapping::new(size_of::<Graveyard>());
        table.add(sweep(plan, wanted.effort, || Play::<'m, _, B>::new(memory, ToldCast::new(&graves), part)));
    }
}

/// A claims and publishes two values, B one, and C must find a whole one and go on.
struct Succession<'m, B> {
    memory: &'m Mapping,
    dead: &'m Graveyard,
    before: u64,
    board: Option<B>,
}

impl<'m, B: Board<'m>> Succession<'m, B> {
    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn work(&self, who: u32, count: u64) {
        let Some(Ok(mut writer)) = self.board.map(|board| board.writer(Told::sleepless(who, self.dead))) else {
            return;
        };
        for n in (B::version(&writer) + 1..).take(usize::try_from(count).unwrap_or(0)) {
            let _ = B::publish(&mut writer, n);
        }
        core::mem::forget(writer);
    }
}

impl<'m, B: Board<'m>> Drama for Succession<'m, B> {
    fn starts(&self) -> usize {
        6
    }

    fn set_up(&mut self, start: usize) {
        self.bury(&[]);
        self.before = start as u64 + 1;
        self.board = Some(B::at(self.memory));
        self.work(PREDECESSOR, self.before);
    }

    fn first(&mut self) {
        self.bury(&[PREDECESSOR]);
        self.work(VICTIM, 2);
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        self.work(COMPANION, 1);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION]);
        let board = self.board.ok_or("no board")?;
        let env = || Told::sleepless(DRIVER, self.dead);
        let [found, ..] = board.read(env(), 0, PATIENCE).map_err(|error| format!("reading: {error}"))?;
        if !(self.before..=self.before + 3).contains(&found) {
            return Err(format!("value {found} after {}", self.before));
        }
        let mut writer = board.writer(env())?;
        for n in found + 1..=found + 4 {
            B::publish(&mut writer, n)?;
            let read = board.read(env(), 0, PATIENCE);
            if read != Ok([n; 3]) {
                return Err(format!("{read:?} after {n} was published"));
            }
        }
        Ok(())
    }
}

fn succession<'m, B: Board<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    if wanted.is(plan.name) {
        // The board's lifetime is its caller's choice, so its memory lives as long as the program.
        let memory: &'m Mapping = Box::leak(Box::new(Mapping::new(BOARD_BYTES)));
        let dead: &'m Graveyard = Graveyard::of(Box::leak(Box::new(Mapping::new(size_of::<Graveyard>()))), 0);
        let mut drama = Succession::<B> { memory, dead, before: 0, board: None };
        table.add(pairs(plan, wanted.effort, memory, &mut drama));
    }
}

/// Sweeps of the newest value, then of a broken one.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    use Role::{Alone, Asleep, JustWoken, PeersAsleep};
    type Real<'m> = Cells<'m, Value>;
    let memory = Mapping::new(BOARD_BYTES);
    let cases: [(&str, Part, u64, &[Role]); 4] = [
        ("latest: publish", Part::Publish, 50, &[Alone, PeersAsleep(1), PeersAsleep(2)]),
        ("latest: publish and close", Part::PublishAndClose, 70, &[Alone, PeersAsleep(1)]),
        ("latest: claim and publish", Part::ClaimAndPublish, 150, &[Alone]),
        ("latest: read, waiting", Part::Wait, 100, &[Asleep, JustWoken]),
    ];
    for (name, part, floor, roles) in cases {
        for role in roles {
            play::<Real<'_>>(wanted, table, &memory, &Plan::new(name, floor).role(*role), part);
        }
    }
    succession::<Real<'_>>(wanted, table, PairPlan { name: "latest: succession", floor: 400_000, seeded: false });
    play::<InPlace<'_>>(wanted, table, &memory, &Plan::new("value written in place", 1).seeded(), Part::Publish);
    succession::<InPlace<'_>>(wanted, table, PairPlan { name: "value written in place", floor: 1, seeded: true });
}

/// The same by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    let memory = Mapping::new(BOARD_BYTES);
    let cases = [
        ("leased latest: publish", Part::Publish, Role::PeersAsleep(1)),
        ("leased latest: claim", Part::ClaimAndPublish, Role::Alone),
    ];
    for (name, part, role) in cases {
        if wanted.is(name) && LeasedHome::lets_sleep(role) {
            let home = LeasedHome::new(role);
            // A claim probes the last owner: a walk whose instructions are mostly the kernel's calls and what is around them.
            let cut = if role == Role::Alone { Cut::Edges { stride: 3 } } else { Cut::Every };
            let plan = Plan::new(name, 100).role(role).cut(cut);
            let make = || Play::<'_, _, Cells<'_, Value>>::new(&memory, home.cast(), part);
            table.add(sweep(&plan, wanted.effort, make));
        }
    }
}

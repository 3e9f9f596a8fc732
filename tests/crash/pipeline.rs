//! The pipeline's counter, killed at every instruction of moving a batch: its successor's totals are exact. It runs the
//! example's own sources, and wrong orders of the same steps, each of which must be found.

#[path = "../../examples/pipeline/batch.rs"]
mod batch;
#[expect(dead_code, reason = "what only other roles of the example use")]
#[path = "../../examples/pipeline/failure.rs"]
mod failure;
#[expect(dead_code, reason = "what only other roles of the example use")]
#[path = "../../examples/pipeline/table.rs"]
mod table;

/// A smaller table than the example's, which is pictured at every instruction.
mod sizes {
    pub(crate) const MAX_COUNTERS: usize = 2;
    pub(crate) const ENTRIES: usize = 16;
    pub(crate) const TEXT_BYTES: usize = 64;
    pub(crate) const HISTOGRAM_BYTES: usize = 8;
}

use std::collections::BTreeMap;

use crosslane_core::mutex::{Acquired, LockWord};
use crosslane_core::record::{HeldBatch, Reader, Ring};
use crosslane_core::{Liveness, Trusted, Wait, WakeMode};
use crosslane_shm::{Mutex, ObjectId, Options, Record, Slab, record};
use crosslane_sync::{Deadline, MutexGuard, NotAcquired, RawLock};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table as Report;
use crosslane_tests::sweep::{Cut, Effort, Plan, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use self::batch::{Batch, Mover};
use self::failure::Failure;
use self::table::{Locked, Shared, Table};
use crate::Wanted;
use crate::cast::{COMPANION, DRIVER, PREDECESSOR, VICTIM};
use crate::channel::RECORD_RING_BYTES;

const RING: usize = 1;
const RING_BYTES: u32 = 128;
/// Instructions between two points.
const STRIDE: u64 = 61;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Records are released before their counts are in the table.
    ReleasesFirst,
    /// A successor counts what comes again.
    SkipsNothing,
    /// A successor leaves a batch half applied.
    RedoesNothing,
    /// The redo record is committed after it was applied.
    AppliesFirst,
    /// The redo record is committed before it is whole.
    CommitsFirst,
    /// The redo record is taken back before it is applied again.
    ForgetsFirst,
}

/// The first lines are in the table before the scene begins; the victim moves two more; the last is left to the successor.
const LINES: [&str; 5] = ["the ring", "the table", "the ring", "a fox", "the fox"];
const BEFORE: usize = 2;
const BATCH_LINES: u64 = 2;

fn count(batch: &mut Batch, record: &[u8]) {
    batch.count(record, record.split(|byte| *byte == b' '));
}

/// The table must be as if each line had been counted once.
fn audit(table: &Table, lines: &[&str]) -> Result<(), String> {
    let mut due: BTreeMap<&[u8], u64> = BTreeMap::new();
    for word in lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b' ')) {
        *due.entry(word).or_default() += 1;
    }
    let found: Vec<(&[u8], u64)> = table.words().collect();
    let (len, found) = (found.len(), found.into_iter().collect::<BTreeMap<_, _>>());
    if len != found.len() || found != due {
        let text = |words: &BTreeMap<&[u8], u64>| -> Vec<String> {
            words.iter().map(|(word, n)| format!("{}:{n}", String::from_utf8_lossy(word))).collect()
        };
        return Err(format!("words {:?} of {len}, {:?} were due", text(&found), text(&due)));
    }
    let bytes = lines.iter().map(|line| line.len() as u64 + 1).sum::<u64>();
    let (found, due) = ((table.totals.lines, table.totals.bytes), (lines.len() as u64, bytes));
    if found == due { Ok(()) } else { Err(format!("{found:?} lines and bytes, {due:?} were due")) }
}

fn zeroed() -> Table {
    // SAFETY: `Plain`: every bit pattern is a value.
    unsafe { core::mem::zeroed() }
}

/// Adds a batch as `bug` has it.
fn add(table: &mut Table, batch: &Batch, position: u64, bug: Bug) -> Result<(), Failure> {
    match bug {
        Bug::AppliesFirst => {
            table.prepare(batch, RING, position)?;
            table.apply()?;
            table.commit();
            table.redo()
        }
        Bug::CommitsFirst => {
            table.set_batch(1);
            table.prepare(batch, RING, position)?;
            table.redo()
        }
        Bug::ForgetsFirst => {
            table.prepare(batch, RING, position)?;
            table.commit();
            table.set_batch(0);
            table.apply()
        }
        _ => table.add(batch, RING, position),
    }
}

fn lock<R: RawLock>(table: &Locked<R>, bug: Bug) -> Result<MutexGuard<'_, Table, R>, Failure> {
    if bug != Bug::RedoesNothing {
        return table::lock(table);
    }
    let mut guard = table.lock().or_else(|error| error.into_guard().ok_or(Failure::TableBroken("not locked")))?;
    guard.mark_consistent();
    Ok(guard)
}

/// What the example's counter does from its start to the end of its first batch; but for the bug.
fn move_batch<E: Wait + Liveness, K, R: RawLock>(
    reader: &mut Reader<'_, E, K>,
    table: &Locked<R>,
    bug: Bug,
) -> Result<(), Failure> {
    let applied = lock(table, bug)?.totals.applied[RING];
    let mut mover = Mover {
        ring: RING,
        applied: if bug == Bug::SkipsNothing { 0 } else { applied },
        most_bytes: u64::MAX,
        most_records: BATCH_LINES,
        buffer: vec![0; RING_BYTES as usize],
        batch: Batch::default(),
    };
    if matches!(bug, Bug::None | Bug::SkipsNothing) {
        return mover.pass_on(reader, table, count);
    }
    let mut held = reader.hold_batch();
    mover.take(&mut held, count)?;
    let position = held.position();
    let mut held = Some(held);
    if bug == Bug::ReleasesFirst {
        held.take().into_iter().for_each(HeldBatch::release);
    }
    if position > applied {
        add(&mut *lock(table, bug)?, &mover.batch, position, bug)?;
    }
    held.into_iter().for_each(HeldBatch::release);
    Ok(())
}

/// Moves all that is left, and looks.
fn finish<E: Wait + Liveness, K, R: RawLock>(
    reader: &mut Reader<'_, E, K>,
    table: &Locked<R>,
    bug: Bug,
) -> Result<(), String> {
    while !reader.is_empty() {
        move_batch(reader, table, bug).map_err(|failure| failure.to_string())?;
    }
    audit(&*lock(table, bug).map_err(|failure| failure.to_string())?, &LINES)
}

/// The lock of a table whose processes have no leases.
struct ToldLock<'m> {
    word: &'m LockWord,
    env: Told<'m>,
}

// SAFETY: the protocol of `crosslane_core::mutex`; who is buried never runs again, and nobody forks.
unsafe impl RawLock for ToldLock<'_> {
    fn lock(&self, _: Deadline) -> Result<Acquired, NotAcquired> {
        self.word.lock(&self.env, self.env.never()).map_err(|_| NotAcquired::Corrupt)
    }
    fn try_lock(&self) -> Result<Acquired, NotAcquired> {
        self.word.try_lock(&self.env).map_err(|_| NotAcquired::Corrupt)
    }
    unsafe fn unlock(&self, poison: bool) {
        self.word.unlock(&self.env, poison);
    }
}

/// Three counters of one ring, two of which die anywhere between their first and their last instruction.
struct Succession<'m> {
    memory: &'m Mapping,
    dead: &'m Graveyard,
    bug: Bug,
}

/// Where in the memory the table and its lock are: behind the ring.
const LOCK_AT: usize = RECORD_RING_BYTES;
const TABLE_AT: usize = LOCK_AT + 64;

impl<'m> Succession<'m> {
    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn ring(&self) -> Ring<'m> {
        // SAFETY: the mapping outlives the ring by its borrow; its front is used for nothing else.
        unsafe { Ring::attach(self.memory.base(), RECORD_RING_BYTES, RING_BYTES, WakeMode::Fenced) }.expect("a ring")
    }

    fn table(&self, who: u32) -> Locked<ToldLock<'m>> {
        // SAFETY: an atomic word: every bit pattern is one.
        let word = unsafe { self.memory.at(LOCK_AT) };
        let lock = ToldLock { word, env: Told::sleepless(who, self.dead) };
        // SAFETY: inside the mapping, which has a table's length behind it.
        let value = unsafe { self.memory.base().add(TABLE_AT) };
        // SAFETY: inside the mapping, aligned to a line, and reached through such mutexes alone.
        let table = unsafe { crosslane_sync::Mutex::from_raw_parts(value.cast(), lock) };
        // SAFETY: one process at a time, which keeps to the lock.
        unsafe { table.trust_peers() }
    }

    fn reader(&self, who: u32) -> Reader<'m, Told<'m>> {
        self.ring().reader(Told::sleepless(who, self.dead)).expect("the one before is dead")
    }

    fn move_batch(&self, who: u32, bug: Bug) {
        move_batch(&mut self.reader(who), &self.table(who), bug).expect("two lines");
    }
}

impl Drama for Succession<'_> {
    fn set_up(&mut self, _: usize) {
        self.bury(&[]);
        // SAFETY: as in `ring`.
        unsafe { Ring::init(self.memory.base(), RECORD_RING_BYTES, RING_BYTES, WakeMode::Fenced) }.expect("room");
        let mut writer = self.ring().writer(Told::sleepless(DRIVER, self.dead)).expect("nobody is there");
        for (n, line) in LINES.iter().enumerate() {
            writer.try_push(line.as_bytes()).expect("room");
            if n + 1 == BEFORE {
                let mut reader = self.reader(PREDECESSOR);
                move_batch(&mut reader, &self.table(PREDECESSOR), Bug::None).expect("two lines");
                core::mem::forget(reader);
            }
        }
    }

    fn first(&mut self) {
        self.bury(&[PREDECESSOR]);
        self.move_batch(VICTIM, self.bug);
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        self.move_batch(COMPANION, self.bug);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION]);
        finish(&mut self.reader(DRIVER), &self.table(DRIVER), self.bug)
    }
}

/// Where a case takes place: a slab, for one membership of each process.
struct Home {
    slab: Slab<Trusted>,
    ring: ObjectId,
    table: ObjectId,
}

impl Home {
    fn new() -> Self {
        let slab = Slab::anonymous(&Options::new()).expect("a small segment");
        let ring = Record::in_slab(&slab, RING_BYTES, &Options::new()).expect("room");
        let table = Mutex::in_slab(&slab, zeroed()).expect("room");
        let [ring, table] = [ring.object_id(), table.object_id()].map(|id| id.expect("in a slab"));
        Self { slab, ring, table }
    }

    fn ring(&self, slab: &Slab<Trusted>) -> Record<Trusted> {
        Record::from_slab(slab, self.ring).expect("it was carved")
    }

    fn table(&self, slab: &Slab<Trusted>) -> Shared {
        Mutex::from_slab(slab, self.table).expect("it was carved")
    }
}

/// One batch, moved by the victim; its successor moves what is left.
struct Play<'h> {
    home: &'h Home,
    bug: Bug,
    mine: Option<(record::Reader<Trusted>, Shared)>,
}

impl<'h> Play<'h> {
    /// Empties ring and table, whatever was done to them; then moves the first lines.
    fn new(home: &'h Home, bug: Bug) -> Self {
        let (ring, table) = (home.ring(&home.slab), home.table(&home.slab));
        let mut reader = ring.reader().expect("the one before is dead");
        while let Ok(record) = reader.try_read() {
            record.release();
        }
        let mut guard = table.lock().unwrap_or_else(|error| error.into_guard().expect("a lock"));
        *guard = zeroed();
        guard.totals.applied[RING] = reader.position();
        guard.mark_consistent();
        drop(guard);
        let mut writer = ring.writer().expect("nobody else is there");
        let mut push = |line: &str| writer.try_push(line.as_bytes()).expect("room");
        LINES[..BEFORE].iter().for_each(|line| push(line));
        move_batch(&mut reader, &table, Bug::None).expect("the first lines");
        LINES[BEFORE..].iter().for_each(|line| push(line));
        Self { home, bug, mine: None }
    }
}

impl Scene for Play<'_> {
    fn prepare(&mut self) {
        let slab = self.home.slab.rejoin().expect("places are left");
        let reader = self.home.ring(&slab).reader().expect("the first has ended");
        self.mine = Some((reader, self.home.table(&slab)));
    }

    fn operate(&mut self) {
        let (reader, table) = self.mine.as_mut().expect("prepared");
        move_batch(reader, table, self.bug).expect("two lines");
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        let (ring, table) = (self.home.ring(&self.home.slab), self.home.table(&self.home.slab));
        let mut reader = ring.reader().map_err(|error| format!("the reader: {error}"))?;
        finish(&mut reader, &table, self.bug)
    }
}

/// Sweeps of the example's counter, then of those that do its steps wrongly.
pub(crate) fn run(wanted: &Wanted, report: &mut Report) {
    let seed = |name| PairPlan { name, floor: 1, seeded: true };
    let cases = [
        (PairPlan { name: "pipeline: move a batch", floor: 1_000_000, seeded: false }, Bug::None),
        (seed("batch released first"), Bug::ReleasesFirst),
        (seed("batch counted again"), Bug::SkipsNothing),
        (seed("batch not redone"), Bug::RedoesNothing),
        (seed("batch applied first"), Bug::AppliesFirst),
        (seed("batch committed first"), Bug::CommitsFirst),
        (seed("batch forgotten first"), Bug::ForgetsFirst),
    ];
    let (memory, dead) = (Mapping::new(TABLE_AT + size_of::<Table>()), Mapping::new(size_of::<Graveyard>()));
    for (plan, bug) in cases {
        // Unoptimised, the operation has ten times the instructions: a quick run looks at the bugs alone.
        let is_slow = cfg!(debug_assertions) && wanted.effort == Effort::Quick && bug == Bug::None;
        if wanted.is(plan.name) && !is_slow {
            let mut drama = Succession { memory: &memory, dead: Graveyard::of(&dead, 0), bug };
            report.add(pairs(plan, wanted.effort, &memory, &mut drama));
        }
    }
    let sound = Plan::new("leased pipeline: move a batch", 60);
    let wrong = Plan::new("batch released first", 1).seeded();
    for (plan, bug) in [(sound, Bug::None), (wrong, Bug::ReleasesFirst)] {
        // A quick look at a seeded bug goes no further than system calls, of which there are none here.
        if wanted.is(plan.name) && (wanted.effort == Effort::Full || bug == Bug::None) {
            let home = Home::new();
            report.add(sweep(&plan.cut(Cut::Edges { stride: STRIDE }), wanted.effort, || Play::new(&home, bug)));
        }
    }
}

//! Every operation of both rings, at either end, in every role; and a toy ring that is broken on purpose.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, PREDECESSOR, ToldCast, VICTIM};
use crate::channel::{
    CLOSE_FIRST, Channel, INDEX_FIRST, RECORD_RING_BYTES, Record, RecordPieces, SKIPS, SOUND, Spsc, SpscLoans, Stop,
    Toy,
};

/// How long a victim or companion waits: longer than any deadline of the sweep's, so that a hang shows as one.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the driver waits: a survivor that gets no answer says so itself.
const SURVIVOR: Duration = Duration::from_millis(500);
/// The number of the first item of the driver's last lap, by which it sees that the ring is whole again.
const LAST_LAP: u64 = 1 << 40;

/// The operation under the knife.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Push,
    PushTwo,
    PushWait,
    Finish,
    ClaimProducer,
    Pop,
    PopTwo,
    PopWait,
    CloseConsumer,
    ClaimConsumer,
    GiveBack,
}

impl Part {
    fn produces(self) -> bool {
        matches!(self, Self::Push | Self::PushTwo | Self::PushWait | Self::Finish | Self::ClaimProducer)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PushTwo => "push a batch",
            Self::PushWait => "push, waiting",
            Self::Finish => "push and close",
            Self::ClaimProducer => "claim producer",
            Self::Pop => "pop",
            Self::PopTwo => "pop a batch",
            Self::PopWait => "pop, waiting",
            Self::CloseConsumer => "close consumer",
            Self::ClaimConsumer => "claim consumer",
            Self::GiveBack => "hold, give back",
        }
    }

    /// Items that the operation moves.
    fn moves(self) -> u64 {
        match self {
            Self::PushTwo | Self::PopTwo => 2,
            Self::CloseConsumer => 0,
            _ => 1,
        }
    }

    /// Items that the driver (or a predecessor) has pushed before, of so many that fit.
    fn before(self, room: u64) -> u64 {
        match self {
            Self::PopWait => 0,
            Self::PushWait => room,
            Self::Push | Self::PushTwo | Self::Finish | Self::ClaimProducer => 2,
            Self::Pop | Self::PopTwo | Self::CloseConsumer | Self::ClaimConsumer | Self::GiveBack => 3,
        }
    }
}

/// What companions and the driver have surely moved.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pushed: AtomicU64,
    popped: AtomicU64,
}

struct Play<'m, K: Cast, R: Channel<'m>> {
    ring: R,
    cast: K,
    part: Part,
    notes: &'m Notes,
    victim: Option<K::Env>,
    producer: Option<R::Producer<K::Env>>,
    consumer: Option<R::Consumer<K::Env>>,
}

fn must<T>(result: Result<T, impl core::fmt::Debug>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

impl<'m, K: Cast, R: Channel<'m>> Play<'m, K, R> {
    fn new(memory: &'m Mapping, notes: &'m Mapping, cast: K, part: Part, role: Role) -> Self {
        memory.clear();
        notes.clear();
        // SAFETY: only integers in atomics: every bit pattern is one.
        let notes: &Notes = unsafe { notes.at(0) };
        let companions = if let Role::PeersAsleep(count) = role { count } else { 0 };
        let ring = R::make(memory);
        let mut play = Self { ring, cast, part, notes, victim: None, producer: None, consumer: None };
        // Positions that are not the first lap's.
        let mut producer = must(ring.producer(cast.join(DRIVER)));
        let mut consumer = must(ring.consumer(cast.join(DRIVER)));
        for item in 0..R::ROOM + 1 {
            must(R::push(&mut producer, item));
            must(R::pop(&mut consumer));
        }
        let before = part.before(R::ROOM);
        for item in 0..before {
            must(R::push(&mut producer, item));
        }
        play.notes.pushed.store(before, SeqCst);
        if !part.produces() && companions == 0 {
            play.producer = Some(producer);
        } else {
            drop(producer);
        }
        if part.produces() && companions == 0 {
            play.consumer = Some(consumer);
        } else {
            drop(consumer);
        }
        match part {
            // The end is closed; somebody claims it and dies with it.
            Part::ClaimProducer => cast.die_after(|env| {
                core::mem::forget(must(ring.producer(env.clone())));
            }),
            Part::ClaimConsumer => cast.die_after(|env| {
                let mut consumer = must(ring.consumer(env.clone()));
                must(R::pop(&mut consumer));
                core::mem::forget(consumer);
            }),
            _ => {}
        }
        if part == Part::ClaimConsumer {
            play.notes.popped.store(1, SeqCst);
        }
        play
    }

    /// The producer is dead or has ended: everything that it published comes, in order, then word of its end.
    fn drain_to_its_end(&mut self, completed: bool) -> Result<(), String> {
        let mut consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.ring.consumer(self.cast.join(DRIVER)).map_err(|error| format!("consumer: {error:?}"))?,
        };
        let popped = self.notes.popped.load(SeqCst);
        let mut next = popped;
        let end = loop {
            match R::pop_wait(&mut consumer, SURVIVOR) {
                Ok(item) if item == next => next += 1,
                Ok(item) => return Err(format!("item {item} where {next} was due")),
                Err(stop) => break stop,
            }
        };
        let surely = self.notes.pushed.load(SeqCst) + if completed { self.part.moves() } else { 0 };
        let perhaps = if completed { 0 } else { self.part.moves() };
        if !(surely..=surely + perhaps).contains(&next) {
            return Err(format!("{next} items came, {surely} to {} were pushed", surely + perhaps));
        }
        let closed = self.part == Part::Finish;
        match end {
            Stop::PeerDied if !(completed && closed) => {}
            Stop::Closed if closed && next == surely + perhaps => {}
            // A companion's end saw it all, and its going closed nothing on this side.
            other => return Err(format!("after {next} items of {surely}: {other:?}")),
        }
        self.consumer = Some(consumer);
        let producer = self.ring.producer(self.cast.join(DRIVER)).map_err(|error| format!("producer: {error:?}"))?;
        self.producer = Some(producer);
        Ok(())
    }

    /// The consumer is dead or has ended: the ring takes what fits, then says so; and what the dead one did not release
    /// comes again.
    fn fill_to_its_end(&mut self, completed: bool) -> Result<(), String> {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.ring.producer(self.cast.join(DRIVER)).map_err(|error| format!("producer: {error:?}"))?,
        };
        let mut next = self.notes.pushed.load(SeqCst);
        let end = loop {
            match R::push_wait(&mut producer, next, SURVIVOR) {
                Ok(()) => next += 1,
                Err(stop) => break stop,
            }
        };
        match end {
            Stop::PeerDied => {}
            Stop::Closed if self.part == Part::CloseConsumer => {}
            other => return Err(format!("after {next} items: {other:?}")),
        }
        let mut consumer =
            self.ring.consumer(self.cast.join(DRIVER)).map_err(|error| format!("consumer: {error:?}"))?;
        let surely = self.notes.popped.load(SeqCst) + if completed { self.part.moves() } else { 0 };
        let perhaps = if completed { 0 } else { self.part.moves() };
        let mut due = None;
        loop {
            match R::pop(&mut consumer) {
                Ok(item) if due.is_none_or(|due| due == item) => {
                    let is_due = (surely..=surely + perhaps).contains(&item);
                    let is_half = R::WHOLE_BATCHES && item != surely && item != surely + perhaps;
                    if due.is_none() && (!is_due || is_half) {
                        return Err(format!("item {item} came first, {surely} to {} were due", surely + perhaps));
                    }
                    due = Some(item + 1);
                }
                Ok(item) => return Err(format!("item {item} where {due:?} was due")),
                Err(Stop::NotNow) => break,
                Err(stop) => return Err(format!("draining: {stop:?}")),
            }
        }
        if due.is_some_and(|due| due != next) {
            return Err(format!("{due:?} items came of {next}"));
        }
        self.producer = Some(producer);
        self.consumer = Some(consumer);
        Ok(())
    }

    /// The ring is as good as new: it takes as much as it ever did, gives it back in order, and closes.
    fn last_lap(&mut self) -> Result<(), String> {
        let (Some(mut producer), Some(mut consumer)) = (self.producer.take(), self.consumer.take()) else {
            return Err("the driver has not both ends".into());
        };
        lap::<R, _>(&mut producer, &mut consumer)?;
        drop(producer);
        match R::pop(&mut consumer) {
            Err(Stop::Closed) => Ok(()),
            other => Err(format!("after the end of the last lap: {other:?}")),
        }
    }
}

/// Fills and drains an empty ring once.
fn lap<'m, R: Channel<'m>, E: crosslane_core::Wait + crosslane_core::Liveness>(
    producer: &mut R::Producer<E>,
    consumer: &mut R::Consumer<E>,
) -> Result<(), String> {
    let room = (LAST_LAP..).take_while(|item| R::push(producer, *item) == Ok(())).count() as u64;
    if room != R::ROOM {
        return Err(format!("room for {room} items, once it was {}", R::ROOM));
    }
    for item in LAST_LAP..LAST_LAP + room {
        let got = R::pop(consumer);
        if got != Ok(item) {
            return Err(format!("in the last lap {got:?} where {item} was due"));
        }
    }
    Ok(())
}

impl<'m, K: Cast, R: Channel<'m>> Scene for Play<'m, K, R> {
    fn prepare(&mut self) {
        let env = self.cast.join(VICTIM);
        match self.part {
            Part::ClaimProducer | Part::ClaimConsumer => self.victim = Some(env),
            part if part.produces() => self.producer = Some(must(self.ring.producer(env))),
            _ => self.consumer = Some(must(self.ring.consumer(env))),
        }
    }

    fn operate(&mut self) {
        let item = self.part.before(R::ROOM);
        let mut claimant = || self.victim.take().expect("prepared");
        let done = match (self.part, &mut self.producer, &mut self.consumer) {
            (Part::Push, Some(producer), _) => R::push(producer, item),
            (Part::PushTwo, Some(producer), _) => R::push_two(producer, item),
            (Part::PushWait, Some(producer), _) => R::push_wait(producer, item, PATIENCE),
            (Part::Finish, producer, _) => producer.take().map_or(Ok(()), |producer| R::finish(producer, item)),
            (Part::ClaimProducer, producer, _) => {
                let mut end = must(self.ring.producer(claimant()));
                let done = R::push(&mut end, item);
                *producer = Some(end);
                done
            }
            (Part::Pop, _, Some(consumer)) => R::pop(consumer).map(|_| ()),
            (Part::PopTwo, _, Some(consumer)) => R::pop_two(consumer),
            (Part::GiveBack, _, Some(consumer)) => R::give_back(consumer),
            (Part::PopWait, _, Some(consumer)) => R::pop_wait(consumer, PATIENCE).map(|_| ()),
            (Part::CloseConsumer, _, consumer) => {
                drop(consumer.take());
                Ok(())
            }
            (Part::ClaimConsumer, _, consumer) => {
                let mut end = must(self.ring.consumer(claimant()));
                let done = R::pop(&mut end).map(|_| ());
                *consumer = Some(end);
                done
            }
            _ => Err(Stop::Broken("no end".into())),
        };
        if !matches!(done, Ok(()) | Err(Stop::Closed)) {
            panic!("{:?} by the victim: {done:?}", self.part);
        }
    }

    /// The other end, blocked: a producer that finds no room, or a consumer that finds nothing more.
    fn companion(&mut self, who: usize) -> Result<(), String> {
        let env = self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0));
        let end = if self.part.produces() {
            let mut consumer = must(self.ring.consumer(env));
            loop {
                match R::pop_wait(&mut consumer, PATIENCE) {
                    Ok(item) => {
                        let due = self.notes.popped.fetch_add(1, SeqCst);
                        if item != due {
                            return Err(format!("item {item} where {due} was due"));
                        }
                    }
                    Err(stop) => break stop,
                }
            }
        } else {
            let mut producer = must(self.ring.producer(env));
            loop {
                let item = self.notes.pushed.load(SeqCst);
                match R::push_wait(&mut producer, item, PATIENCE) {
                    Ok(()) => self.notes.pushed.store(item + 1, SeqCst),
                    Err(stop) => break stop,
                }
            }
        };
        match end {
            Stop::PeerDied => Ok(()),
            Stop::Closed if matches!(self.part, Part::Finish | Part::CloseConsumer) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn rouse(&mut self) {
        if let Some(producer) = &mut self.producer {
            must(R::push(producer, 0));
            self.notes.pushed.store(1, SeqCst);
        } else if let Some(consumer) = &mut self.consumer {
            must(R::pop(consumer));
            self.notes.popped.store(1, SeqCst);
        }
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        if self.part.produces() {
            self.drain_to_its_end(completed)?;
        } else {
            self.fill_to_its_end(completed)?;
        }
        self.last_lap()
    }
}

/// Sweeps of one ring: all parts, the least points of each, and the roles.
fn ring<'m, R: Channel<'m>>(wanted: &Wanted, table: &mut Table, memory: &'m Mapping, notes: &'m Mapping, ring: &str) {
    use Role::{Alone, Asleep, JustWoken, PeersAsleep};
    let cases: [(Part, u64, &[Role]); 10] = [
        (Part::Push, 30, &[Alone, PeersAsleep(1)]),
        (Part::PushTwo, 40, &[Alone, PeersAsleep(1)]),
        (Part::PushWait, 30, &[Asleep, JustWoken]),
        (Part::Finish, 30, &[Alone, PeersAsleep(1)]),
        (Part::ClaimProducer, 60, &[Alone]),
        (Part::Pop, 30, &[Alone, PeersAsleep(1)]),
        (Part::PopTwo, 40, &[Alone, PeersAsleep(1)]),
        (Part::PopWait, 30, &[Asleep, JustWoken]),
        (Part::CloseConsumer, 10, &[Alone, PeersAsleep(1)]),
        (Part::ClaimConsumer, 60, &[Alone]),
    ];
    for (part, floor, roles) in cases {
        let name = format!("{ring}: {}", part.name()).leak();
        for role in roles {
            play::<R>(wanted, table, memory, notes, &Plan::new(name, floor).role(*role), part);
        }
    }
}

pub(crate) fn play<'m, R: Channel<'m>>(
    wanted: &Wanted,
    table: &mut Table,
    memory: &'m Mapping,
    notes: &'m Mapping,
    plan: &Plan,
    part: Part,
) {
    if wanted.is(plan.name) {
        let graves = Mapping::new(size_of::<Graveyard>());
        let make = || Play::<'m, _, R>::new(memory, notes, ToldCast::new(&graves), part, plan.role);
        table.add(sweep(plan, wanted.effort, make));
    }
}

/// Both rings by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    let (memory, notes) = (Mapping::new(2048), Mapping::new(size_of::<Notes>()));
    use Role::{Alone, JustWoken, PeersAsleep};
    let cases = [
        (Part::Push, PeersAsleep(1)),
        (Part::PushWait, JustWoken),
        (Part::ClaimProducer, Alone),
        (Part::Finish, PeersAsleep(1)),
        (Part::Pop, PeersAsleep(1)),
        (Part::PopWait, JustWoken),
        (Part::ClaimConsumer, Alone),
    ];
    for (part, role) in cases {
        leased_play::<Spsc<'_>>(wanted, table, &memory, &notes, "spsc", part, role);
        // Who sleeps behind whom is the same code in both.
        if role != PeersAsleep(1) {
            leased_play::<Record<'_>>(wanted, table, &memory, &notes, "record", part, role);
        }
    }
}

fn leased_play<'m, R: Channel<'m>>(
    wanted: &Wanted,
    table: &mut Table,
    memory: &'m Mapping,
    notes: &'m Mapping,
    ring: &str,
    part: Part,
    role: Role,
) {
    let name = format!("leased {ring}: {}", part.name()).leak();
    if wanted.is(name) && LeasedHome::lets_sleep(role) {
        let home = LeasedHome::new(role);
        // A claim probes the last owner: a walk that is mostly around the kernel's calls. Its own steps are swept above, told.
        let is_claim = matches!(part, Part::ClaimProducer | Part::ClaimConsumer);
        let cut = if is_claim { Cut::Edges { stride: 3 } } else { Cut::Every };
        let plan = Plan::new(name, 30).role(role).cut(cut);
        let make = || Play::<'m, _, R>::new(memory, notes, home.cast(), part, role);
        table.add(sweep(&plan, wanted.effort, make));
    }
}

/// Sweeps of both rings, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let (memory, notes) = (Mapping::new(2048), Mapping::new(size_of::<Notes>()));
    let (m, n) = (&memory, &notes);
    ring::<Spsc<'_>>(wanted, table, m, n, "spsc");
    play::<SpscLoans<'_>>(wanted, table, m, n, &Plan::new("spsc: loan", 20), Part::Push);
    play::<SpscLoans<'_>>(wanted, table, m, n, &Plan::new("spsc: front", 20), Part::Pop);
    ring::<Record<'_>>(wanted, table, m, n, "record");
    play::<RecordPieces<'_>>(wanted, table, m, n, &Plan::new("record: reserve", 60), Part::Push);
    play::<RecordPieces<'_>>(wanted, table, m, n, &Plan::new("record: read", 60), Part::Pop);
    let plan = |name| PairPlan { name, floor: 100_000, seeded: false };
    both_ends::<Spsc<'_>>(wanted, table, plan("spsc: both ends"), 1024);
    both_ends::<Record<'_>>(wanted, table, plan("record: both ends"), RECORD_RING_BYTES);

    for part in [Part::Push, Part::Finish, Part::ClaimConsumer] {
        let name = format!("toy ring: {}", part.name()).leak();
        play::<Toy<'_, SOUND>>(wanted, table, m, n, &Plan::new(name, 20), part);
    }
    both_ends::<Toy<'_, SOUND>>(wanted, table, plan("toy ring: both ends"), 256);
    let seed = |name| Plan::new(name, 1).seeded();
    play::<Toy<'_, INDEX_FIRST>>(wanted, table, m, n, &seed("ring publishes first"), Part::Push);
    play::<Toy<'_, CLOSE_FIRST>>(wanted, table, m, n, &seed("ring closes first"), Part::Finish);
    play::<Toy<'_, SKIPS>>(wanted, table, m, n, &seed("ring's successor skips"), Part::ClaimConsumer);
    let plan = |name| PairPlan { name, floor: 1, seeded: true };
    both_ends::<Toy<'_, INDEX_FIRST>>(wanted, table, plan("ring publishes first"), 256);
}

/// A dies at one end, B takes both ends over, works, and dies; then C does.
struct BothEnds<'m, R> {
    memory: &'m Mapping,
    dead: &'m Graveyard,
    start: Start,
    ring: Option<R>,
}

/// Where a play begins: positions, how much is in the ring, and at which end A works.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    turns: u64,
    filled: u64,
    produces: bool,
}

/// Starting positions: more than a lap.
const TURNS: u64 = 6;
/// What A pushes, if it is at the producer's end.
const ITEMS_OF_A: [u64; 2] = [2000, 2001];
/// What B pushes.
const ITEMS_OF_B: [u64; 1] = [3000];

impl<'m, R: Channel<'m>> BothEnds<'m, R> {
    fn env(&self, who: u32) -> Told<'m> {
        Told::sleepless(who, self.dead)
    }

    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn produce(&self, who: u32, items: &[u64]) {
        let Some(Ok(mut end)) = self.ring.map(|ring| ring.producer(self.env(who))) else { return };
        for item in items {
            let _ = R::push(&mut end, *item);
        }
        core::mem::forget(end);
    }

    fn consume(&self, who: u32, count: u64) {
        let Some(Ok(mut end)) = self.ring.map(|ring| ring.consumer(self.env(who))) else { return };
        R::pop_some(&mut end, count);
        core::mem::forget(end);
    }

    /// Whether `items` is what may be left: a suffix of what was there, what A pushed of its items, and B of its.
    fn check(&self, items: &[u64]) -> Result<(), String> {
        let Start { filled, produces, .. } = self.start;
        let popped = if produces { 1 } else { 3 };
        for a in 0..=ITEMS_OF_A.len() {
            for b in 0..=ITEMS_OF_B.len() {
                let all: Vec<u64> =
                    (0..filled).chain(ITEMS_OF_A[..a].to_vec()).chain(ITEMS_OF_B[..b].to_vec()).collect();
                if (produces || a == 0) && all.ends_with(items) && all.len() - items.len() <= popped {
                    return Ok(());
                }
            }
        }
        Err(format!("{items:?} came from {:?}", self.start))
    }
}

impl<'m, R: Channel<'m>> Drama for BothEnds<'m, R> {
    fn starts(&self) -> usize {
        usize::try_from(TURNS * (R::ROOM + 1) * 2).unwrap_or(0)
    }

    fn set_up(&mut self, start: usize) {
        let start = start as u64;
        self.start = Start { turns: start / 2 % TURNS, filled: start / 2 / TURNS, produces: start.is_multiple_of(2) };
        self.bury(&[]);
        let ring = R::make(self.memory);
        let mut producer = must(ring.producer(self.env(DRIVER)));
        let mut consumer = must(ring.consumer(self.env(DRIVER)));
        for item in 0..self.start.turns {
            must(R::push(&mut producer, item));
            must(R::pop(&mut consumer));
        }
        for item in 0..self.start.filled {
            must(R::push(&mut producer, item));
        }
        // Both ends belong to the dead.
        drop((producer, consumer));
        core::mem::forget(must(ring.producer(self.env(PREDECESSOR))));
        core::mem::forget(must(ring.consumer(self.env(PREDECESSOR))));
        self.ring = Some(ring);
    }

    fn first(&mut self) {
        self.bury(&[PREDECESSOR]);
        if self.start.produces {
            self.produce(VICTIM, &ITEMS_OF_A);
        } else {
            self.consume(VICTIM, 2);
        }
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        self.produce(COMPANION, &ITEMS_OF_B);
        self.consume(COMPANION, 1);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION]);
        let ring = self.ring.ok_or("no ring")?;
        let mut consumer = ring.consumer(self.env(DRIVER)).map_err(|error| format!("consumer: {error:?}"))?;
        let mut producer = ring.producer(self.env(DRIVER)).map_err(|error| format!("producer: {error:?}"))?;
        let mut items = Vec::new();
        loop {
            match R::pop(&mut consumer) {
                Ok(item) => items.push(item),
                Err(Stop::NotNow) => break,
                Err(stop) => return Err(format!("{stop:?}")),
            }
        }
        self.check(&items)?;
        lap::<R, _>(&mut producer, &mut consumer)
    }
}

pub(crate) fn both_ends<'m, R: Channel<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan, len_bytes: usize) {
    if wanted.is(plan.name) {
        // The ring's lifetime is its caller's choice, so its memory lives as long as the program.
        let memory: &'m Mapping = Box::leak(Box::new(Mapping::new(len_bytes)));
        let dead: &'m Graveyard = Graveyard::of(Box::leak(Box::new(Mapping::new(size_of::<Graveyard>()))), 0);
        let mut drama = BothEnds::<R> { memory, dead, start: Start::default(), ring: None };
        table.add(pairs(plan, wanted.effort, memory, &mut drama));
    }
}

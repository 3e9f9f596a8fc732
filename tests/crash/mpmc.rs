//! Every operation of the queue of many producers and consumers, in every role; and queues that are broken on purpose.

use core::time::Duration;
use std::time::Instant;

use crosslane_core::mpmc::Recovered;
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, owner};

use crate::Wanted;
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, PREDECESSOR, ToldCast, VICTIM};
use crate::channel::Stop;
use crate::ledger::{Cost, Ledger};
use crate::misfits::{AcksFirst, FreesAll, Tickets};
use crate::queue::{Fixed, Hand, Messages, ROOM, Taken, Then, Work};
use crate::shared::{SharedItems, SharedMessages};

/// How long a victim or companion waits: longer than any deadline of the sweep's, so that a hang shows as one.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the driver waits for companions to go as far as they can without it.
const ALONE: Duration = Duration::from_secs(10);
/// Bytes of a queue.
pub(crate) const QUEUE_BYTES: usize = 1024;
/// The victim's items, the companion's, and the driver's last. The driver's own begin at 0.
const BY_VICTIM: u64 = 16;
const BY_COMPANION: u64 = 24;
const LAST: u64 = 40;
/// The first item of the lap that shows that the queue is as good as new.
const LAST_LAP: u64 = 1 << 40;

/// The operation under the knife.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Push,
    PushTwo,
    PushWait,
    PushBehindDead,
    PushOverLetter,
    Reserve,
    Abandon,
    Pop,
    PopTwo,
    PopWait,
    PopBehindDead,
    PopSkipping,
    PopInVain,
    Take,
    GiveBack,
    GiveUp,
    TakeLetter,
    ListLetters,
    Recover,
    RecoverLetter,
    Close,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PushTwo => "push a batch",
            Self::PushWait => "push, waiting",
            Self::PushBehindDead => "push behind the dead",
            Self::PushOverLetter => "push over a letter",
            Self::Reserve => "reserve, commit",
            Self::Abandon => "reserve, drop",
            Self::Pop => "pop",
            Self::PopTwo => "pop a batch",
            Self::PopWait => "pop, waiting",
            Self::PopBehindDead => "pop behind the dead",
            Self::PopSkipping => "pop, skipping busy",
            Self::PopInVain => "pop, short buffer",
            Self::Take => "take, acknowledge",
            Self::GiveBack => "take, give back",
            Self::GiveUp => "give back, last time",
            Self::TakeLetter => "take dead letter",
            Self::ListLetters => "list dead letters",
            Self::Recover => "recover",
            Self::RecoverLetter => "recover to a letter",
            Self::Close => "close",
        }
    }

    /// Whether consumers may wait for it; else producers.
    fn produces(self) -> bool {
        matches!(
            self,
            Self::Push
                | Self::PushTwo
                | Self::PushWait
                | Self::PushBehindDead
                | Self::PushOverLetter
                | Self::Reserve
                | Self::Abandon
                | Self::Close
        )
    }

    /// Deliveries of an item.
    fn max_attempts(self) -> u32 {
        match self {
            Self::PushOverLetter | Self::GiveUp | Self::TakeLetter | Self::ListLetters | Self::RecoverLetter => 1,
            _ => 7,
        }
    }

    /// What a death in it may cost.
    fn cost(self) -> Cost {
        match self {
            Self::Pop | Self::PopWait | Self::PopBehindDead | Self::PopSkipping | Self::TakeLetter => {
                Cost { lost: 1, again: 0 }
            }
            Self::PopTwo => Cost { lost: 2, again: 0 },
            Self::Take => Cost { lost: 0, again: 1 },
            _ => Cost::default(),
        }
    }
}

struct Play<'m, K: Cast, Q: Work<'m>> {
    queue: Q,
    cast: K,
    part: Part,
    role: Role,
    ledger: &'m Ledger,
    driver: Q::Hand<K::Env>,
    victim: Option<Q::Hand<K::Env>>,
    stuck: Option<String>,
}

fn must<T>(result: Result<T, impl core::fmt::Debug>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

impl<'m, K: Cast, Q: Work<'m>> Play<'m, K, Q> {
    fn new(memory: &'m Mapping, ledger: &'m Mapping, cast: K, part: Part, role: Role) -> Self {
        memory.clear();
        ledger.clear();
        // SAFETY: only integers in atomics: every bit pattern is one.
        let ledger: &Ledger = unsafe { ledger.at(0) };
        let queue = Q::make(memory, part.max_attempts());
        let driver = queue.hand(cast.join(DRIVER));
        let mut play = Self { queue, cast, part, role, ledger, driver, victim: None, stuck: None };
        // Positions that are not the first lap's.
        for item in 0..ROOM + 1 {
            must(play.driver.push(item, None));
            must(play.driver.pop(None));
        }
        play.lay_out();
        play
    }

    fn lay_out(&mut self) {
        match self.part {
            _ if matches!(self.role, Role::PeersAsleep(_)) && !self.part.produces() => self.push(0..ROOM),
            Part::PopWait => {}
            Part::PushWait => self.push(0..ROOM),
            Part::PushBehindDead => {
                self.die_after(|hand| must(hand.reserve(0, Then::Forget)));
                self.push(0..ROOM - 1);
            }
            Part::PopBehindDead | Part::PopSkipping => {
                self.die_after(|hand| must(hand.reserve(0, Then::Forget)));
                self.push(0..2);
            }
            Part::PushOverLetter | Part::TakeLetter | Part::ListLetters => {
                self.push(0..1);
                must(self.driver.take(None, Then::Drop, |_| {}));
                self.push(1..ROOM);
            }
            Part::Recover | Part::RecoverLetter => {
                self.push(0..2);
                self.die_after(|hand| {
                    must(hand.take(None, Then::Forget, |_| {}));
                    // Not every queue lends slots.
                    let _ = hand.reserve(0, Then::Forget);
                });
                self.push(2..3);
            }
            Part::Pop | Part::PopTwo | Part::Take | Part::GiveUp | Part::PopInVain => self.push(0..3),
            _ => self.push(0..2),
        }
    }

    /// Somebody does `deed` and dies.
    fn die_after(&self, deed: impl FnOnce(&Q::Hand<K::Env>)) {
        self.cast.die_after(|env| deed(&self.queue.hand(env.clone())));
    }

    /// The driver's items.
    fn push(&self, items: core::ops::Range<u64>) {
        for item in items {
            self.ledger.begin(item);
            must(self.driver.push(item, None));
            self.ledger.push(item);
        }
    }

    fn waiting(&self) -> usize {
        match self.role {
            Role::PeersAsleep(count) => count,
            Role::SecondWaiter => 1,
            _ => 0,
        }
    }

    /// Whether companions consume. Behind a victim that waits they wait for the same.
    fn companions_consume(&self) -> bool {
        if self.role == Role::SecondWaiter { !self.part.produces() } else { self.part.produces() }
    }

    /// Lets companions go as far as they can by themselves, then gives them what they wait for.
    fn release_companions(&self) -> Result<(), String> {
        let start = Instant::now();
        let went_on = |done: &dyn Fn() -> bool| {
            while !done() {
                if start.elapsed() > ALONE {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            true
        };
        if self.companions_consume() {
            if !went_on(&|| self.driver.len() == 0) {
                return Err(format!("{} items stay, and a consumer waits", self.driver.len()));
            }
            if self.part == Part::Close {
                self.driver.close();
                return Ok(());
            }
            for item in (LAST..).take(self.waiting()) {
                self.ledger.begin(item);
                self.driver.push(item, Some(ALONE)).map_err(|stop| format!("the last item: {stop:?}"))?;
                self.ledger.push(item);
            }
            return Ok(());
        }
        // The dead may have left no room: then the driver makes some, by calls that repair nothing.
        let went_on = went_on(&|| {
            if self.driver.is_full() {
                let _ = self.driver.take(None, Then::Settle, |item| self.ledger.work(item));
            }
            self.ledger.is_pushed(BY_COMPANION)
        });
        if went_on { Ok(()) } else { Err(format!("room beside {} items, and a producer waits", self.driver.len())) }
    }

    /// Everything that is left, in order; then the queue is empty, or closed.
    fn drain(&self) -> Result<Vec<Taken>, String> {
        let mut left = Vec::new();
        for _ in 0..4 * ROOM {
            match self.driver.take(Some(Duration::ZERO), Then::Settle, |_| {}) {
                Ok(taken) => left.push(taken),
                Err(Stop::TimedOut) if !self.driver.is_closed() => return Ok(left),
                Err(Stop::Closed) if self.driver.is_closed() => return Ok(left),
                Err(stop) => return Err(format!("after {left:?}: {stop:?}")),
            }
        }
        Err(format!("no end of items: {left:?}"))
    }

    /// Whether letters are where they must be; those that wait count as left.
    fn letters(&self, completed: bool, left: &mut Vec<Taken>) -> Result<(), String> {
        let (waiting, dropped) = self.driver.letters();
        match self.driver.take_letter() {
            Ok(Some(item)) if waiting == 1 => left.push((item, 1)),
            Ok(None) if waiting == 0 => {}
            other => return Err(format!("{waiting} letters wait: {other:?}")),
        }
        let pushed = left.iter().any(|(item, _)| *item == BY_VICTIM);
        let right = match self.part {
            Part::PushOverLetter if completed => (waiting, dropped) == (0, 1),
            // Its slot is freed before it is counted.
            Part::PushOverLetter => waiting + dropped <= 1 && !(pushed && dropped == 0),
            Part::GiveUp if completed => (waiting, dropped) == (1, 0),
            Part::TakeLetter if completed => (waiting, dropped) == (0, 0),
            Part::RecoverLetter | Part::ListLetters => (waiting, dropped) == (1, 0),
            Part::TakeLetter | Part::GiveUp => waiting <= 1 && dropped == 0,
            _ => (waiting, dropped) == (0, 0),
        };
        // A letter that was dropped to make room is not lost.
        if self.part == Part::PushOverLetter && waiting == 0 {
            self.ledger.work(0);
        }
        if right { Ok(()) } else { Err(format!("{waiting} letters wait, {dropped} dropped")) }
    }

    /// How often the item that was given back or left by a dead consumer counts as delivered.
    fn attempts(&self, completed: bool, left: &[Taken]) -> Result<(), String> {
        let attempts = left.iter().find(|(item, _)| *item == 0).map(|(_, attempts)| *attempts);
        let right = match self.part {
            Part::GiveBack if completed => attempts == Some(1),
            Part::GiveBack | Part::Take => attempts.is_none_or(|n| n <= 1),
            Part::Recover => attempts == Some(1),
            // It was put back without having been read.
            Part::PopInVain if completed => attempts == Some(0),
            _ => true,
        };
        if right { Ok(()) } else { Err(format!("delivered {attempts:?} times before: {left:?}")) }
    }

    /// The queue is as good as new: it takes as much as it ever did, and gives it back in order.
    fn last_lap(&self) -> Result<(), String> {
        let room = (LAST_LAP..).take_while(|item| self.driver.push(*item, None) == Ok(())).count() as u64;
        if self.driver.is_closed() {
            return if room == 0 { Ok(()) } else { Err("a closed queue took more".into()) };
        }
        if room != ROOM {
            return Err(format!("room for {room} items, once it was {ROOM}"));
        }
        for item in LAST_LAP..LAST_LAP + room {
            let got = self.driver.pop(None);
            if got != Ok(item) {
                return Err(format!("in the last lap {got:?} where {item} was due"));
            }
        }
        Ok(())
    }
}

impl<'m, K: Cast, Q: Work<'m>> Scene for Play<'m, K, Q> {
    fn prepare(&mut self) {
        self.victim = Some(self.queue.hand(self.cast.join(VICTIM)));
    }

    fn operate(&mut self) {
        let (Some(victim), ledger) = (&self.victim, self.ledger) else { return };
        let pushing = |items: u64, push: &dyn Fn() -> Result<(), Stop>| {
            (BY_VICTIM..BY_VICTIM + items).for_each(|item| ledger.begin(item));
            push()?;
            (BY_VICTIM..BY_VICTIM + items).for_each(|item| ledger.push(item));
            Ok(())
        };
        let done = |item| ledger.work(item);
        let result = match self.part {
            Part::Push | Part::PushOverLetter => pushing(1, &|| victim.push(BY_VICTIM, None)),
            Part::PushTwo => pushing(2, &|| victim.push_two(BY_VICTIM)),
            Part::PushWait | Part::PushBehindDead => pushing(1, &|| victim.push(BY_VICTIM, Some(PATIENCE))),
            Part::Reserve => pushing(1, &|| victim.reserve(BY_VICTIM, Then::Settle)),
            Part::Abandon => victim.reserve(BY_VICTIM, Then::Drop),
            Part::Pop => victim.pop(None).map(done),
            Part::PopTwo => victim.pop_two().map(|items| items.into_iter().for_each(done)),
            Part::PopWait | Part::PopBehindDead => victim.pop(Some(PATIENCE)).map(done),
            Part::PopSkipping => victim.pop_skipping().map(done),
            Part::PopInVain => victim.pop_in_vain(),
            Part::Take => victim.take(None, Then::Settle, done).map(|_| ()),
            Part::GiveBack | Part::GiveUp => victim.take(None, Then::Drop, |_| {}).map(|_| ()),
            Part::TakeLetter => victim.take_letter().map(|item| item.into_iter().for_each(done)),
            Part::ListLetters => victim.list_letters().map(|letters| assert_eq!(letters, [0])),
            Part::Recover | Part::RecoverLetter => {
                assert_ne!(victim.recover(owner(PREDECESSOR)), Recovered::default());
                Ok(())
            }
            Part::Close => {
                victim.close();
                Ok(())
            }
        };
        must(result);
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        let hand = self.queue.hand(self.cast.join(COMPANION + u32::try_from(who).unwrap_or(0)));
        if !self.companions_consume() {
            self.ledger.begin(BY_COMPANION);
            hand.push(BY_COMPANION, Some(PATIENCE)).map_err(|stop| format!("{stop:?}"))?;
            self.ledger.push(BY_COMPANION);
            return Ok(());
        }
        loop {
            match hand.take(Some(PATIENCE), Then::Settle, |item| self.ledger.work(item)) {
                Ok((LAST.., _)) => return Ok(()),
                Ok(_) => {}
                Err(Stop::Closed) if self.part == Part::Close => return Ok(()),
                Err(stop) => return Err(format!("{stop:?}")),
            }
        }
    }

    fn rouse(&mut self) {
        if self.part.produces() {
            must(self.driver.take(None, Then::Settle, |item| self.ledger.work(item)));
        } else {
            self.push(0..1);
        }
    }

    fn reap(&mut self) {
        self.cast.bury_victim();
        if self.waiting() > 0 {
            self.stuck = self.release_companions().err();
        }
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        if let Some(why) = self.stuck.take() {
            return Err(why);
        }
        // What a parent would call; and what waiters do by themselves must be enough where nobody calls it.
        if completed || self.waiting() == 0 && matches!(self.part, Part::Recover | Part::RecoverLetter | Part::Take) {
            self.driver.recover(owner(VICTIM));
            self.driver.recover(owner(PREDECESSOR));
        }
        let mut left = self.drain()?;
        self.letters(completed, &mut left)?;
        let cost = if completed { Cost::default() } else { self.part.cost() };
        // A message that is put back is nobody's between its slot and the hint: who does not sleep then passes it by.
        let passed_by = |item| self.part == Part::PopInVain && !completed && item == 0;
        self.ledger.check(&left, cost, |item| if passed_by(item) { u64::MAX } else { item / 8 })?;
        if self.part == Part::Abandon && left.iter().any(|(item, _)| *item == BY_VICTIM) {
            return Err("an abandoned item came".into());
        }
        self.attempts(completed, &left)?;
        self.last_lap()
    }
}

fn play<'m, Q: Work<'m>>(
    wanted: &Wanted,
    table: &mut Table,
    memory: &'m Mapping,
    ledger: &'m Mapping,
    plan: &Plan,
    part: Part,
) {
    if wanted.is(plan.name) {
        let graves = Mapping::new(size_of::<Graveyard>());
        let make = || Play::<'m, _, Q>::new(memory, ledger, ToldCast::new(&graves), part, plan.role);
        table.add(sweep(plan, wanted.effort, make));
    }
}

/// Sweeps of both kinds of queue, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    use Role::{Alone, Asleep, JustWoken, PeersAsleep, SecondWaiter};
    let (memory, ledger) = (Mapping::new(QUEUE_BYTES), Mapping::new(size_of::<Ledger>()));
    let (m, l) = (&memory, &ledger);
    let fixed: [(Part, u64, &[Role]); 20] = [
        (Part::Push, 40, &[Alone, PeersAsleep(1)]),
        (Part::PushTwo, 60, &[Alone, PeersAsleep(2)]),
        (Part::PushWait, 40, &[Asleep, JustWoken, SecondWaiter]),
        (Part::PushBehindDead, 100, &[Alone]),
        (Part::PushOverLetter, 60, &[Alone]),
        (Part::Reserve, 40, &[Alone, PeersAsleep(1)]),
        (Part::Abandon, 40, &[Alone, PeersAsleep(1)]),
        (Part::Pop, 40, &[Alone, PeersAsleep(1)]),
        (Part::PopTwo, 60, &[Alone, PeersAsleep(1)]),
        (Part::PopWait, 40, &[Asleep, JustWoken, SecondWaiter]),
        (Part::PopBehindDead, 100, &[Alone]),
        (Part::PopSkipping, 40, &[Alone]),
        (Part::Take, 40, &[Alone, PeersAsleep(1)]),
        (Part::GiveBack, 40, &[Alone]),
        (Part::GiveUp, 40, &[Alone]),
        (Part::TakeLetter, 30, &[Alone]),
        (Part::ListLetters, 30, &[Alone]),
        (Part::Recover, 60, &[Alone]),
        (Part::RecoverLetter, 60, &[Alone]),
        (Part::Close, 10, &[Alone, PeersAsleep(1)]),
    ];
    for (part, floor, roles) in fixed {
        let name = format!("mpmc: {}", part.name()).leak();
        for role in roles {
            let plan = Plan::new(name, floor).role(*role);
            // Walks that are long because they sleep in between, and cost a slice each.
            let plan = match (part, role) {
                (Part::PushBehindDead | Part::PopBehindDead, _) => plan.cut(Cut::Edges { stride: 5 }),
                (Part::ListLetters, _) => plan.cut(Cut::Edges { stride: 3 }),
                (Part::PopTwo | Part::PushTwo, PeersAsleep(_)) => plan.cut(Cut::Edges { stride: 3 }),
                _ => plan,
            };
            play::<Fixed<'_>>(wanted, table, m, l, &plan, part);
        }
    }
    let bytes: [(Part, u64, &[Role]); 19] = [
        (Part::Push, 40, &[Alone, PeersAsleep(1)]),
        (Part::PushWait, 20, &[Asleep, JustWoken, SecondWaiter]),
        (Part::PushBehindDead, 60, &[Alone]),
        (Part::PushOverLetter, 60, &[Alone]),
        (Part::Reserve, 40, &[Alone, PeersAsleep(1)]),
        (Part::Abandon, 40, &[Alone, PeersAsleep(1)]),
        (Part::Pop, 40, &[Alone, PeersAsleep(1)]),
        (Part::PopWait, 30, &[Asleep, JustWoken, SecondWaiter]),
        (Part::PopBehindDead, 60, &[Alone]),
        (Part::PopSkipping, 40, &[Alone]),
        (Part::PopInVain, 40, &[Alone]),
        (Part::Take, 40, &[Alone, PeersAsleep(1)]),
        (Part::GiveBack, 40, &[Alone]),
        (Part::GiveUp, 40, &[Alone]),
        (Part::TakeLetter, 30, &[Alone]),
        (Part::ListLetters, 30, &[Alone]),
        (Part::Recover, 60, &[Alone]),
        (Part::RecoverLetter, 60, &[Alone]),
        (Part::Close, 10, &[Alone, PeersAsleep(1)]),
    ];
    for (part, floor, roles) in bytes {
        let name = format!("mpmc bytes: {}", part.name()).leak();
        for role in roles {
            let plan = Plan::new(name, floor).role(*role);
            let plan = match (part, role) {
                (Part::PushBehindDead | Part::PopBehindDead, _) => plan.cut(Cut::Edges { stride: 17 }),
                (Part::ListLetters, _) => plan.cut(Cut::Edges { stride: 3 }),
                (Part::PushWait | Part::PopWait, Asleep | SecondWaiter) => plan.cut(Cut::Edges { stride: 7 }),
                _ => plan,
            };
            play::<Messages<'_>>(wanted, table, m, l, &plan, part);
        }
    }

    let seed = |name| Plan::new(name, 1).seeded();
    play::<AcksFirst<Fixed<'_>>>(wanted, table, m, l, &seed("queue acknowledges first"), Part::Take);
    play::<FreesAll<'_>>(wanted, table, m, l, &seed("queue frees all"), Part::Take);
    play::<Tickets<'_>>(wanted, table, m, l, &seed("queue of tickets, push"), Part::Push);
    play::<Tickets<'_>>(wanted, table, m, l, &seed("queue of tickets, pop"), Part::Pop);
}

/// The queue by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    use Role::{Alone, JustWoken};
    let (memory, ledger) = (Mapping::new(QUEUE_BYTES), Mapping::new(size_of::<Ledger>()));
    let cases = [
        (Part::Push, Alone),
        (Part::PushWait, JustWoken),
        (Part::PushBehindDead, Alone),
        (Part::Take, Alone),
        (Part::GiveBack, Alone),
        (Part::PopWait, JustWoken),
        (Part::PopBehindDead, Alone),
    ];
    for (part, role) in cases {
        let name = format!("leased mpmc: {}", part.name()).leak();
        if wanted.is(name) && LeasedHome::lets_sleep(role) {
            let home = LeasedHome::new(role);
            let plan = Plan::new(name, 40).role(role);
            let behind = matches!(part, Part::PushBehindDead | Part::PopBehindDead);
            let plan = if behind { plan.cut(Cut::Edges { stride: 37 }) } else { plan };
            let make = || Play::<'_, _, Fixed<'_>>::new(&memory, &ledger, home.cast(), part, role);
            table.add(sweep(&plan, wanted.effort, make));
        }
    }
}

/// The queues of `crosslane-shm` themselves, under a parent that looks who has died; and one that is used wrongly.
pub(crate) fn shared(wanted: &Wanted, table: &mut Table) {
    use Role::{Alone, PeersAsleep};
    for part in [Part::Push, Part::Pop, Part::Take, Part::Close] {
        for role in [Alone, PeersAsleep(1)] {
            if (part, role) != (Part::Take, PeersAsleep(1)) {
                hand_out::<SharedItems>(wanted, table, &Plan::new("shm queue", 40).role(role), part);
                hand_out::<SharedMessages>(wanted, table, &Plan::new("shm messages", 40).role(role), part);
            }
        }
    }
    hand_out::<AcksFirst<SharedItems>>(
        wanted,
        table,
        &Plan::new("shm queue acknowledges first", 1).seeded(),
        Part::Take,
    );
}

fn hand_out<'m, Q: Work<'m>>(wanted: &Wanted, table: &mut Table, plan: &Plan, part: Part) {
    let name = if plan.seeded { plan.name } else { format!("{}: {}", plan.name, part.name()).leak() };
    if wanted.is(name) {
        // As long as the program, because the queue in it chooses its lifetime; these queues bring memory of their own.
        let [memory, ledger] =
            [QUEUE_BYTES, size_of::<Ledger>()].map(|len_bytes| &*Box::leak(Box::new(Mapping::new(len_bytes))));
        let (home, plan) = (LeasedHome::watched(), Plan { name, ..plan.clone() });
        let make = || Play::<'m, _, Q>::new(memory, ledger, home.cast(), part, plan.role);
        table.add(sweep(&plan, wanted.effort, make));
    }
}

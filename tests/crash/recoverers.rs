//! Crash pairs of the queue: A dies in any operation, B dies while it repairs what A and a predecessor held and works on,
//! and C, who knows of all three deaths, must go on with everything accounted for.

use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::cast::{COMPANION, DRIVER, PREDECESSOR, VICTIM};
use crate::channel::Stop;
use crate::ledger::{Cost, Ledger};
use crate::queue::{Fixed, FreesAll, Hand, Messages, ROOM, Then, Tickets, Work};

/// Bytes of the memory, and where in it the ledger is: it dies and comes back with the queue.
const MEMORY_BYTES: usize = 1024;
const LEDGER_AT: usize = MEMORY_BYTES - 64;
/// What A pushes first, B, and C in the end.
const BY_A: u64 = 16;
const BY_B: u64 = 24;
const LAST_LAP: u64 = 1 << 40;

/// What A does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Push,
    Take,
    GiveBack,
    Abandon,
    Recover,
}

const DEEDS: [Deed; 5] = [Deed::Push, Deed::Take, Deed::GiveBack, Deed::Abandon, Deed::Recover];

/// What the predecessor died with.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    Item,
    Slot,
}

const LEFT: [Left; 3] = [Left::Nothing, Left::Item, Left::Slot];

struct ThreeDeaths<'m, Q> {
    memory: &'m Mapping,
    ledger: &'m Ledger,
    dead: &'m Graveyard,
    /// Starting positions.
    turns: usize,
    deed: Deed,
    queue: Option<Q>,
}

impl<'m, Q: Work<'m>> ThreeDeaths<'m, Q> {
    fn hand(&self, who: u32) -> Q::Hand<Told<'m>> {
        self.queue.expect("set up").hand(Told::sleepless(who, self.dead))
    }

    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    fn push(&self, hand: &Q::Hand<Told<'m>>, item: u64) {
        self.ledger.begin(item);
        if hand.push(item, None) == Ok(()) {
            self.ledger.push(item);
        }
    }

    fn take(&self, hand: &Q::Hand<Told<'m>>) {
        let _ = hand.take(None, Then::Settle, |item| self.ledger.work(item));
    }
}

impl<'m, Q: Work<'m>> Drama for ThreeDeaths<'m, Q> {
    fn starts(&self) -> usize {
        self.turns * LEFT.len() * DEEDS.len() * usize::try_from(ROOM).unwrap_or(0)
    }

    fn set_up(&mut self, start: usize) {
        self.deed = DEEDS[start % DEEDS.len()];
        let left = LEFT[start / DEEDS.len() % LEFT.len()];
        let turns = start / DEEDS.len() / LEFT.len() % self.turns;
        let filled = (start / DEEDS.len() / LEFT.len() / self.turns) as u64;
        self.bury(&[]);
        self.queue = Some(Q::make(self.memory, 7));
        let (hand, predecessor) = (self.hand(DRIVER), self.hand(PREDECESSOR));
        for _ in 0..turns {
            hand.push(0, None).expect("room");
            hand.pop(None).expect("the item");
        }
        (0..filled).for_each(|item| self.push(&hand, item));
        let _ = match left {
            Left::Nothing => Ok(()),
            Left::Item => predecessor.take(None, Then::Forget, |_| {}).map(|_| ()),
            Left::Slot => predecessor.reserve(0, Then::Forget),
        };
        // Something behind what the predecessor held.
        self.push(&hand, filled);
    }

    fn first(&mut self) {
        self.bury(&[PREDECESSOR]);
        let hand = self.hand(VICTIM);
        match self.deed {
            Deed::Push => (BY_A..BY_A + 2).for_each(|item| self.push(&hand, item)),
            Deed::Take => (0..2).for_each(|_| self.take(&hand)),
            Deed::GiveBack => _ = hand.take(None, Then::Drop, |_| {}),
            Deed::Abandon => _ = hand.reserve(BY_A, Then::Drop),
            Deed::Recover => {
                hand.recover(owner(PREDECESSOR));
                self.take(&hand);
            }
        }
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        let hand = self.hand(COMPANION);
        hand.recover(owner(VICTIM));
        hand.recover(owner(PREDECESSOR));
        self.take(&hand);
        self.push(&hand, BY_B);
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION]);
        let hand = self.hand(DRIVER);
        for who in [PREDECESSOR, VICTIM, COMPANION] {
            hand.recover(owner(who));
        }
        let mut left = Vec::new();
        loop {
            match hand.take(None, Then::Settle, |_| {}) {
                Ok(taken) if left.len() < 64 => left.push(taken),
                Err(Stop::NotNow) => break,
                other => return Err(format!("after {left:?}: {other:?}")),
            }
        }
        // A and B may each have done an item's work and died before they could say so.
        self.ledger.check(&left, Cost { lost: 0, again: 2 }, |item| item / 8)?;
        if left.iter().any(|(_, attempts)| *attempts > 3) || hand.letters() != (0, 0) {
            return Err(format!("more deliveries than deaths: {left:?}, {:?}", hand.letters()));
        }
        let room = (LAST_LAP..).take_while(|item| hand.push(*item, None) == Ok(())).count() as u64;
        let back = (LAST_LAP..).take_while(|item| hand.pop(None) == Ok(*item)).count() as u64;
        if (room, back) == (ROOM, ROOM) { Ok(()) } else { Err(format!("room for {room} of {ROOM}, {back} came back")) }
    }
}

fn three_deaths<'m, Q: Work<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan, turns: usize) {
    if wanted.is(plan.name) {
        // The queue's lifetime is its caller's choice, so its memory lives as long as the program.
        let memory: &'m Mapping = Box::leak(Box::new(Mapping::new(MEMORY_BYTES)));
        let dead: &'m Graveyard = Graveyard::of(Box::leak(Box::new(Mapping::new(size_of::<Graveyard>()))), 0);
        // SAFETY: only integers in atomics: every bit pattern is one. The queues end before it.
        let ledger: &Ledger = unsafe { memory.at(LEDGER_AT) };
        let mut drama = ThreeDeaths::<Q> { memory, ledger, dead, turns, deed: Deed::Push, queue: None };
        table.add(pairs(plan, wanted.effort, memory, &mut drama));
    }
}

/// Crash pairs of both kinds of queue, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let plan = |name| PairPlan { name, floor: 1_000_000, seeded: false };
    three_deaths::<Fixed<'_>>(wanted, table, plan("mpmc: three deaths"), 3);
    three_deaths::<Messages<'_>>(wanted, table, plan("mpmc bytes: three deaths"), 1);
    let seed = |name| PairPlan { name, floor: 1, seeded: true };
    three_deaths::<FreesAll<'_>>(wanted, table, seed("queue frees all"), 1);
    three_deaths::<Tickets<'_>>(wanted, table, seed("queue of tickets"), 1);
}

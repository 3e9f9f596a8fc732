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
use crate::misfits::{FreesAll, Tickets};
use crate::queue::{Fixed, Hand, Messages, ROOM, Then, Work};

/// Bytes of the memory, and where in it the ledger is: it dies and comes back with the queue.
const MEMORY_BYTES: usize = 1024;
const LEDGER_AT: usize = MEMORY_BYTES - 64;
/// What A pushes first, B, and C in the end.
const BY_A: u64 = 16;
const BY_B: u64 = 24;
/// What is a letter from the beginning.
const LETTER: u64 = 32;
const LAST_LAP: u64 = 1 << 40;

/// What A does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Push,
    Take,
    Skip,
    GiveBack,
    Commit,
    Abandon,
    Recover,
    Close,
    TakeLetter,
    ListLetters,
}

/// Of a queue that delivers items again.
const DEEDS: [Deed; 8] =
    [Deed::Push, Deed::Take, Deed::Skip, Deed::GiveBack, Deed::Commit, Deed::Abandon, Deed::Recover, Deed::Close];
/// Of one that does not.
const DEEDS_ON_LETTERS: [Deed; 5] = [Deed::Push, Deed::GiveBack, Deed::Recover, Deed::TakeLetter, Deed::ListLetters];

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
    deeds: &'static [Deed],
    max_attempts: u32,
    deed: Deed,
    queue: Option<Q>,
}

impl<'m, Q: Work<'m>> ThreeDeaths<'m, Q> {
    fn hand(&self, who: u32) -> Q::Hand<Told<'m>> {
        self.queue.as_ref().expect("set up").hand(Told::sleepless(who, self.dead))
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

    /// Items that may be missing: what A had popped and not worked on, letters that were dropped, and as many as A and B
    /// may have dropped and not counted.
    fn lost(&self, dropped: u64) -> u32 {
        let by_a = u32::from(matches!(self.deed, Deed::Skip | Deed::TakeLetter));
        if self.max_attempts > 1 {
            return by_a;
        }
        let uncounted = 1 + u32::from(matches!(self.deed, Deed::Push));
        by_a + u32::try_from(dropped).unwrap_or(0) + uncounted
    }

    fn take(&self, hand: &Q::Hand<Told<'m>>) {
        let _ = hand.take(None, Then::Settle, |item| self.ledger.work(item));
    }
}

impl<'m, Q: Work<'m>> Drama for ThreeDeaths<'m, Q> {
    fn starts(&self) -> usize {
        self.turns * LEFT.len() * self.deeds.len() * usize::try_from(ROOM).unwrap_or(0)
    }

    fn set_up(&mut self, start: usize) {
        self.deed = self.deeds[start % self.deeds.len()];
        let start = start / self.deeds.len();
        let left = LEFT[start % LEFT.len()];
        let turns = start / LEFT.len() % self.turns;
        let filled = (start / LEFT.len() / self.turns) as u64;
        self.bury(&[]);
        self.queue = Some(Q::make(self.memory, self.max_attempts));
        let (hand, predecessor) = (self.hand(DRIVER), self.hand(PREDECESSOR));
        for _ in 0..turns {
            hand.push(0, None).expect("room");
            hand.pop(None).expect("the item");
        }
        if self.max_attempts == 1 {
            self.push(&hand, LETTER);
            hand.take(None, Then::Drop, |_| {}).expect("the item");
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
            Deed::Skip => _ = hand.pop_skipping().map(|item| self.ledger.work(item)),
            Deed::GiveBack => _ = hand.take(None, Then::Drop, |_| {}),
            Deed::Commit => {
                self.ledger.begin(BY_A);
                if hand.reserve(BY_A, Then::Settle) == Ok(()) {
                    self.ledger.push(BY_A);
                }
            }
            Deed::Abandon => _ = hand.reserve(BY_A, Then::Drop),
            Deed::Recover => {
                hand.recover(owner(PREDECESSOR));
                self.take(&hand);
            }
            Deed::Close => {
                hand.close();
                self.take(&hand);
            }
            Deed::TakeLetter => _ = hand.take_letter().map(|item| item.map(|item| self.ledger.work(item))),
            Deed::ListLetters => _ = hand.list_letters(),
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
        let closed = hand.is_closed();
        let mut left = Vec::new();
        loop {
            match hand.take(None, Then::Settle, |_| {}) {
                Ok(taken) if left.len() < 64 => left.push(taken),
                Err(Stop::Closed) if closed => break,
                Err(Stop::NotNow) if !closed => break,
                other => return Err(format!("after {left:?}: {other:?}")),
            }
        }
        let (waiting, dropped) = hand.letters();
        while let Ok(Some(item)) = hand.take_letter() {
            left.push((item, self.max_attempts));
        }
        // A and B may each have done an item's work and died before they could say so.
        self.ledger.check(&left, Cost { lost: self.lost(dropped), again: 2 }, |item| item / 8)?;
        let letters = left.iter().filter(|(_, attempts)| *attempts >= self.max_attempts).count() as u64;
        if left.iter().any(|(_, attempts)| *attempts > 3) || letters != waiting || self.max_attempts > 1 && dropped > 0
        {
            return Err(format!("more deliveries than deaths: {left:?}, {waiting} letters, {dropped} dropped"));
        }
        let room = (LAST_LAP..).take_while(|item| hand.push(*item, None) == Ok(())).count() as u64;
        let back = (LAST_LAP..).take_while(|item| hand.pop(None) == Ok(*item)).count() as u64;
        if (room, back) == if closed { (0, 0) } else { (ROOM, ROOM) } {
            Ok(())
        } else {
            Err(format!("room for {room} of {ROOM}, {back} came back"))
        }
    }
}

/// Crash pairs from so many starting positions.
fn three_deaths<'m, Q: Work<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan, turns: usize) {
    play::<Q>(wanted, table, plan, (turns, 7, &DEEDS));
}

/// The same of a queue that delivers an item once, and makes it a dead letter then.
fn on_letters<'m, Q: Work<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    play::<Q>(wanted, table, plan, (1, 1, &DEEDS_ON_LETTERS));
}

type How = (usize, u32, &'static [Deed]);

fn play<'m, Q: Work<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan, (turns, max_attempts, deeds): How) {
    if wanted.is(plan.name) {
        // The queue's lifetime is its caller's choice, so its memory lives as long as the program.
        let memory: &'m Mapping = Box::leak(Box::new(Mapping::new(MEMORY_BYTES)));
        let dead: &'m Graveyard = Graveyard::of(Box::leak(Box::new(Mapping::new(size_of::<Graveyard>()))), 0);
        // SAFETY: only integers in atomics: every bit pattern is one. The queues end before it.
        let ledger: &Ledger = unsafe { memory.at(LEDGER_AT) };
        let deed = Deed::Push;
        let mut drama = ThreeDeaths::<Q> { memory, ledger, dead, turns, deeds, max_attempts, deed, queue: None };
        table.add(pairs(plan, wanted.effort, memory, &mut drama));
    }
}

/// Crash pairs of both kinds of queue, then of broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let plan = |name| PairPlan { name, floor: 1_000_000, seeded: false };
    three_deaths::<Fixed<'_>>(wanted, table, plan("mpmc: three deaths"), 2);
    three_deaths::<Messages<'_>>(wanted, table, plan("mpmc bytes: three deaths"), 1);
    on_letters::<Fixed<'_>>(wanted, table, plan("mpmc: three deaths, letters"));
    on_letters::<Messages<'_>>(wanted, table, plan("mpmc bytes: three deaths, letters"));
    let seed = |name| PairPlan { name, floor: 1, seeded: true };
    three_deaths::<FreesAll<'_>>(wanted, table, seed("queue frees all"), 1);
    three_deaths::<Tickets<'_>>(wanted, table, seed("queue of tickets"), 1);
    on_letters::<FreesAll<'_>>(wanted, table, seed("queue frees all, letters"));
}

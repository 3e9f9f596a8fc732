//! Eight producers and eight consumers of one queue, and a killer that ends one of them at random every 20 ms and puts
//! another in its place. Each item whose push returned is processed; twice only if whoever had it died before it said so;
//! each producer's items come in order, but for those that come again; and nobody waits for the dead.

use core::sync::atomic::{AtomicU8, Ordering::SeqCst};
use core::time::Duration;
use std::time::Instant;

use crosslane_core::mpmc::{PopError, PushError};
use crosslane_core::{OwnerId, Trusted};
use crosslane_shm::{Messages, Name, Probe, Queue, Segment};
use crosslane_tests::child::{Child, End};
use crosslane_tests::mapping::Mapping;

use crate::choice::Choice;
use crate::page::Page;
use crate::run::Given;

/// Producers, and as many consumers.
const PLACES: usize = 8;
const SLOTS: u32 = 64;
/// From one kill to the next.
const PACE: Duration = Duration::from_millis(20);
/// Longest that anybody may be seen to get nothing done while everybody else is there.
const LONGEST_STALL: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a call waits before it looks whether it is to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// The fewest items of a run.
const LEAST_ITEMS: u64 = 1_000;
/// Consumers that the control kills between their acknowledging an item and their processing it.
const LEAST_HOLDING: u64 = 5;
/// How much longer a case may take on a busy machine.
const MOST_EXTRA: Duration = Duration::from_secs(20);
/// Bytes of the bitmap of each producer's items.
const BITMAP_BYTES: usize = 4 << 20;
/// The most items of one producer.
const MOST_ITEMS: u64 = 8 * BITMAP_BYTES as u64;
/// Deliveries of an item: more than one is ever killed with, so that nothing becomes a dead letter.
const DELIVERIES: u32 = 7;

/// Words of the page: what all know, then one for each place.
const STOP: usize = 0;
/// Deliveries of items that were delivered before.
const AGAIN: usize = 1;
/// Items that came a second time although the first consumer had processed them.
const TWICE: usize = 2;
/// Items that were processed, for the pace of progress.
const PROCESSED: usize = 3;
/// Pushes of a producer's place that have begun, and that have returned.
const BEGUN: usize = 16;
const PUSHED: usize = 32;
/// What a consumer's place is doing.
const DOING: usize = 48;
/// Who is in a place: producers, then consumers.
const WHO: usize = 64;

/// What a consumer is doing, as it last said itself: taking (it may hold an item), or holding one.
const TAKING: u64 = 1;
const HOLDING: u64 = 2;
/// It may have given it up.
const ACKNOWLEDGING: u64 = 3;

/// An item: its producer's place, and its number there.
type Item = (usize, u64);

/// When an item is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledge {
    /// Once it is processed, which is right.
    Last,
    /// Before, which loses items: the control.
    First,
}

/// A queue of items in a segment.
trait Line {
    fn segment(&self) -> &Segment;
    fn push(&self, item: Item) -> Result<(), PushError>;
    /// Takes an item, hands it to `work` with the number of its earlier deliveries, and then acknowledges it; or before.
    fn take(&self, acknowledge: Acknowledge, work: &mut dyn FnMut(Item, u32)) -> Result<(), PopError>;
    fn close(&self);
    /// Items and dead letters that are there.
    fn left(&self) -> (usize, usize);
}

fn item_of([place, number]: [u64; 2]) -> Item {
    (usize::try_from(place).unwrap_or(usize::MAX), number)
}

impl Line for Queue<[u64; 2]> {
    fn segment(&self) -> &Segment {
        Queue::segment(self)
    }
    fn push(&self, (place, number): Item) -> Result<(), PushError> {
        self.push_timeout([place as u64, number], GLANCE)
    }
    fn take(&self, acknowledge: Acknowledge, work: &mut dyn FnMut(Item, u32)) -> Result<(), PopError> {
        let delivery = self.take_timeout(GLANCE)?;
        let (item, attempts) = (item_of(*delivery), delivery.attempts());
        match acknowledge {
            Acknowledge::First => {
                delivery.ack();
                work(item, attempts);
            }
            Acknowledge::Last => {
                work(item, attempts);
                delivery.ack();
            }
        }
        Ok(())
    }
    fn close(&self) {
        (**self).close();
    }
    fn left(&self) -> (usize, usize) {
        (self.len(), self.dead_letters())
    }
}

/// The longest message, in bytes.
const MOST_BYTES: u32 = 100;

/// A message of a length of its own, filled with what can be known from the item.
fn encode((place, number): Item, bytes: &mut [u8; MOST_BYTES as usize]) -> &[u8] {
    let len = 16 + usize::try_from(number % 80).unwrap_or(0);
    for (i, byte) in bytes[16..len].iter_mut().enumerate() {
        *byte = number.wrapping_mul(i as u64 | 1).to_le_bytes()[1];
    }
    bytes[..8].copy_from_slice(&(place as u64).to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    &bytes[..len]
}

impl Line for Messages<Trusted> {
    fn segment(&self) -> &Segment {
        Messages::segment(self)
    }
    fn push(&self, item: Item) -> Result<(), PushError> {
        self.push_timeout(encode(item, &mut [0; MOST_BYTES as usize]), GLANCE)
    }
    fn take(&self, _: Acknowledge, work: &mut dyn FnMut(Item, u32)) -> Result<(), PopError> {
        let delivery = self.take_timeout(GLANCE)?;
        let (mut bytes, mut due) = ([0; MOST_BYTES as usize], [0; MOST_BYTES as usize]);
        let came = &mut bytes[..delivery.len_bytes()];
        delivery.copy_to(came);
        let word = |at: usize| came[at..at + 8].try_into().map(u64::from_le_bytes).expect("8 bytes");
        let item = item_of([word(0), word(8)]);
        assert_eq!(came, encode(item, &mut due));
        work(item, delivery.attempts());
        delivery.ack();
        Ok(())
    }
    fn close(&self) {
        (**self).close();
    }
    fn left(&self) -> (usize, usize) {
        (self.len(), self.dead_letters())
    }
}

/// A bit for each item that was processed.
struct Bitmap(Mapping);

impl Bitmap {
    fn new() -> Self {
        Self(Mapping::new(PLACES * BITMAP_BYTES))
    }

    fn byte(&self, (place, number): Item) -> &AtomicU8 {
        assert!(place < PLACES && number < MOST_ITEMS, "no such item: {number} of {place}");
        // SAFETY: an atomic integer: every bit pattern is one.
        unsafe { self.0.at(place * BITMAP_BYTES + usize::try_from(number / 8).unwrap_or(usize::MAX)) }
    }

    /// Whether it was there already.
    fn insert(&self, item: Item) -> bool {
        let bit = 1 << (item.1 % 8);
        self.byte(item).fetch_or(bit, SeqCst) & bit != 0
    }

    fn contains(&self, item: Item) -> bool {
        self.byte(item).load(SeqCst) >> (item.1 % 8) & 1 == 1
    }
}

fn produce(line: &impl Line, place: usize, page: &Page, choice: &mut Choice) {
    let mut number = page.get(BEGUN + place);
    while page.get(STOP) == 0 {
        page.set(BEGUN + place, number + 1);
        match line.push((place, number)) {
            Ok(()) => {
                number += 1;
                page.set(PUSHED + place, number);
            }
            Err(PushError::TimedOut) => page.set(BEGUN + place, number),
            Err(error) => panic!("{error}"),
        }
        choice.jitter();
    }
}

fn consume(line: &impl Line, place: usize, acknowledge: Acknowledge, page: &Page, seen: &Bitmap, choice: &mut Choice) {
    let mut next = [0; PLACES];
    loop {
        page.set(DOING + place, TAKING);
        let taken = line.take(acknowledge, &mut |item, attempts| {
            page.add(AGAIN, u64::from(attempts > 0));
            page.set(DOING + place, HOLDING);
            (0..choice.below(3_000)).for_each(|_| core::hint::spin_loop());
            assert!(item.0 < PLACES, "{item:?}");
            if attempts == 0 {
                assert!(item.1 >= next[item.0], "item {item:?} after {}", next[item.0] - 1);
                next[item.0] = item.1 + 1;
            }
            if seen.insert(item) {
                assert!(attempts > 0, "{item:?} was delivered twice, and nobody died");
                page.add(TWICE, 1);
            }
            page.add(PROCESSED, 1);
            page.set(DOING + place, ACKNOWLEDGING);
        });
        match taken {
            Ok(()) | Err(PopError::TimedOut) => {}
            Err(PopError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
        choice.jitter();
    }
}

/// What the killer did and saw.
#[derive(Debug, Default)]
struct Killed {
    producers: u64,
    consumers: u64,
    /// Consumers that held an item, and those that may have.
    holding: u64,
    taking: u64,
    /// Items whose push had begun and not returned.
    doubt: Vec<Item>,
    longest_stall: Duration,
}

/// Calls its argument with a child's own handle.
type Join<'a, L> = dyn Fn(&mut dyn FnMut(&L)) + 'a;

struct Crew<'a, L> {
    line: &'a L,
    join: &'a Join<'a, L>,
    acknowledge: Acknowledge,
    page: Page,
    seen: Bitmap,
}

impl<L: Line> Crew<'_, L> {
    fn fork(&self, who: usize, mut choice: Choice) -> Child {
        Child::fork(|| {
            (self.join)(&mut |line| {
                let me = line.segment().domain().and_then(|domain| domain.me()).expect("a member");
                self.page.set(WHO + who, me.to_word().into());
                match who.checked_sub(PLACES) {
                    None => produce(line, who, &self.page, &mut choice),
                    Some(place) => consume(line, place, self.acknowledge, &self.page, &self.seen, &mut choice),
                }
            });
            0
        })
    }

    fn drive(&self, given: &mut Given) -> Killed {
        let (start, choice) = (Instant::now(), &mut given.choice);
        let mut killed = Killed::default();
        let mut crew: Vec<_> = (0..2 * PLACES).map(|who| self.fork(who, choice.branch(who as u64))).collect();
        let (mut due, mut progress) = (start, (0, start));
        let goes_on = |processed, holding| {
            let has_lost = self.acknowledge == Acknowledge::Last || holding >= LEAST_HOLDING;
            let enough = processed >= LEAST_ITEMS && has_lost;
            start.elapsed() < given.time || !enough && start.elapsed() < given.time + MOST_EXTRA
        };
        while goes_on(progress.0, killed.holding) {
            due += PACE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (processed, now) = (self.page.get(PROCESSED), Instant::now());
            if processed == progress.0 {
                killed.longest_stall = killed.longest_stall.max(now - progress.1);
            } else {
                progress = (processed, now);
            }
            let who = choice.index(2 * PLACES);
            crew[who].signal(libc::SIGKILL);
            assert_eq!(crew[who].wait(PATIENCE), Some(End::Signalled(libc::SIGKILL)), "number {who}");
            self.record(who, &mut killed);
            // What a parent does that learns of it first; the others find out alone.
            if choice.below(2) == 0 {
                let _ = self.line.segment().domain().expect("a member").reap().expect("our own lease is held");
            }
            crew[who] = self.fork(who, choice.branch(killed.producers + killed.consumers));
        }
        self.page.set(STOP, 1);
        let (producers, consumers) = crew.split_at_mut(PLACES);
        producers.iter_mut().for_each(|child| assert_eq!(child.wait(PATIENCE), Some(End::Exited(0)), "a producer"));
        self.line.close();
        consumers.iter_mut().for_each(|child| assert_eq!(child.wait(PATIENCE), Some(End::Exited(0)), "a consumer"));
        // Consumers of a closed queue that looks drained do not wait for what a dead one held.
        self.line.segment().domain().expect("a member").reap().expect("our own lease is held");
        consume(self.line, 0, self.acknowledge, &self.page, &self.seen, choice);
        killed
    }

    fn record(&self, who: usize, killed: &mut Killed) {
        if let Some(place) = who.checked_sub(PLACES) {
            killed.consumers += 1;
            match self.page.get(DOING + place) {
                HOLDING => killed.holding += 1,
                _ => killed.taking += 1,
            }
        } else {
            killed.producers += 1;
            let begun = self.page.get(BEGUN + who);
            if begun != self.page.get(PUSHED + who) {
                killed.doubt.push((who, begun - 1));
                // So that one doubt is one item: the successor counts on from here.
                self.page.set(PUSHED + who, begun);
            }
        }
    }

    /// Items that were pushed, are not in doubt, and were not processed.
    fn lost(&self, doubt: &[Item]) -> u64 {
        let of = |place| {
            let is_lost = |number: &u64| !self.seen.contains((place, *number)) && !doubt.contains(&(place, *number));
            (0..self.page.get(PUSHED + place)).filter(is_lost).count() as u64
        };
        (0..PLACES).map(of).sum()
    }

    /// Nothing and nobody is left.
    fn check_end(&self) {
        assert_eq!(self.line.left(), (0, 0), "items and dead letters that are left");
        let domain = self.line.segment().domain().expect("a member");
        domain.reap().expect("our own lease is held");
        for who in 0..2 * PLACES {
            let id = u32::try_from(self.page.get(WHO + who)).ok().and_then(OwnerId::from_word).expect("it joined");
            assert_eq!(domain.probe(id).ok(), Some(Probe::Dead), "participant {id} is left");
        }
    }

    fn sum_up(&self, killed: &Killed) -> String {
        let pushed: u64 = (0..PLACES).map(|place| self.page.get(PUSHED + place)).sum();
        let [again, twice] = [AGAIN, TWICE].map(|word| self.page.get(word));
        let vanished = killed.doubt.iter().filter(|item| !self.seen.contains(**item)).count();
        assert_eq!(self.lost(&killed.doubt), 0, "items lost");
        assert!(again <= killed.consumers, "{again} redeliveries, {killed:?}");
        // Whoever was killed on the way to an item may have been about to count its redelivery.
        assert!(again + killed.taking >= killed.holding, "{again} redeliveries, {killed:?}");
        assert!(twice <= again, "{twice} of {again} redelivered items had been processed");
        assert!(pushed >= LEAST_ITEMS, "{pushed} pushed");
        assert!(killed.longest_stall < LONGEST_STALL, "nobody got anything done for {:?}", killed.longest_stall);
        format!(
            "{pushed} items, {} producers and {} consumers killed: {} items in doubt, {vanished} of them lost with their \
             producer; {again} redelivered, {twice} of these processed twice; longest stall {} ms",
            killed.producers,
            killed.consumers,
            killed.doubt.len(),
            killed.longest_stall.as_millis()
        )
    }
}

fn queue_with(given: &mut Given, acknowledge: Acknowledge) -> (String, u64) {
    let name = Name::random();
    let options = given.options.clone().max_deliveries(DELIVERIES);
    let queue = Queue::<[u64; 2]>::create(&name, SLOTS, &options).expect("made");
    let join = |run: &mut dyn FnMut(&Queue<[u64; 2]>)| run(&Queue::open(&name, &options).expect("there"));
    let (page, seen) = (Page::new(), Bitmap::new());
    let crew = Crew { line: &*queue, join: &join, acknowledge, page, seen };
    let killed = crew.drive(given);
    crew.check_end();
    match acknowledge {
        Acknowledge::Last => (crew.sum_up(&killed), 0),
        Acknowledge::First => (format!("{} consumers killed", killed.consumers), crew.lost(&killed.doubt)),
    }
}

/// Unrelated processes that meet by a name.
pub(crate) fn queue(mut given: Given) -> String {
    queue_with(&mut given, Acknowledge::Last).0
}

/// A family with a queue of messages.
pub(crate) fn messages(mut given: Given) -> String {
    let options = given.options.clone().max_deliveries(DELIVERIES);
    let queue = Messages::anonymous(SLOTS, MOST_BYTES, &options).expect("made");
    let join = |run: &mut dyn FnMut(&Messages<Trusted>)| run(&queue.rejoin().expect("joined"));
    let (page, seen) = (Page::new(), Bitmap::new());
    let crew = Crew { line: &queue, join: &join, acknowledge: Acknowledge::Last, page, seen };
    let killed = crew.drive(&mut given);
    crew.check_end();
    crew.sum_up(&killed)
}

/// Consumers that acknowledge first must be seen to lose items.
pub(crate) fn acknowledged_first(mut given: Given) -> String {
    let (report, lost) = queue_with(&mut given, Acknowledge::First);
    assert!(lost > 0, "{report}, and no loss was seen");
    format!("{lost} lost, {report}")
}

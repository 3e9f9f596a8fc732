//! A producer and a consumer, nobody dies: everything arrives, once, in order, and every wake-up does.

use core::cell::Cell;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use std::time::Instant;

use crosslane_core::WakeMode;
use crosslane_core::spsc::{PopError, PushError, Ring};
use crosslane_shm::{Name, Record, Spsc};
use crosslane_sync::membarrier;
use crosslane_tests::child::{Child, End};

use crate::choice::Choice;
use crate::page::Page;
use crate::run::Given;
use crate::watched::{Fences, STAMPS, Stamps, Watched};

/// Words of the page: results, then the stamps of either side.
const IN: usize = 0;
const OUT: usize = 1;
const SLEPT: usize = 2;
const LOST: usize = 3;
const PUSHED: usize = 8;
const POPPED: usize = 200;
/// The fewest items of a run: on a busy machine the time may be over before the first.
const LEAST_ITEMS: u64 = 1000;
/// How long a child may take to end once its time is over.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn spsc_fenced(given: Given) -> String {
    watched(given, WakeMode::Fenced, Fences::Real)
}

pub(crate) fn spsc_asymmetric(given: Given) -> String {
    watched(given, WakeMode::Asymmetric, Fences::Real)
}

pub(crate) fn spsc_polling(given: Given) -> String {
    watched(given, WakeMode::Polling, Fences::Real)
}

/// Shows that the watch sees something, where the machine reorders; how much is a matter of luck, so it is only printed.
pub(crate) fn spsc_without_fences(given: Given) -> String {
    watched(given, WakeMode::Asymmetric, Fences::None)
}

/// Nobody is ever woken: the watch must see it.
pub(crate) fn spsc_without_wakes(given: Given) -> String {
    watched(given, WakeMode::Fenced, Fences::NoWakes)
}

/// Singles through blocking calls, over the core's ring in surroundings that see lost wake-ups.
fn watched(mut given: Given, mode: WakeMode, fences: Fences) -> String {
    let slots = u32::try_from(STAMPS).expect("few");
    let spsc = Spsc::<u64>::anonymous(slots, &given.options.clone().wake_mode(mode)).expect("made");
    let page = Page::new();
    let until = Instant::now() + given.time;
    let (mut ours, mut theirs) = (given.choice.branch(1), given.choice.branch(2));
    let producer = Child::fork(|| {
        membarrier::register();
        in_ring(&spsc, mode, &page, POPPED, fences, |ring, watched, needs| {
            let mut end = ring.producer(watched).expect("vacant");
            let mut item: u64 = 0;
            while item < LEAST_ITEMS || Instant::now() < until {
                needs.set(item.saturating_sub(STAMPS));
                end.push(item).expect("the consumer lives");
                Stamps::new(&page, PUSHED).stamp(item);
                item += 1;
                ours.jitter();
            }
            page.set(IN, item);
        })
    });
    let consumer = Child::fork(|| {
        membarrier::register();
        in_ring(&spsc, mode, &page, PUSHED, fences, |ring, watched, needs| {
            let mut end = ring.consumer(watched).expect("vacant");
            let mut item = 0;
            loop {
                needs.set(item);
                match end.pop() {
                    Ok(popped) => assert_eq!(popped, item),
                    Err(error) => break assert_eq!(error, PopError::Closed),
                }
                Stamps::new(&page, POPPED).stamp(item);
                item += 1;
                theirs.jitter();
            }
            page.set(OUT, item);
        })
    });
    disturb_and_join(&mut given.choice, until, [producer, consumer]);
    let (slept, lost) = (page.get(SLEPT), page.get(LOST));
    match fences {
        Fences::Real => assert_eq!(lost, 0, "of {slept} sleeps, so many ended without the wake-up that was due"),
        Fences::NoWakes => assert!(lost > 0, "{slept} sleeps without a wake, and the watch saw nothing"),
        Fences::None => {}
    }
    format!("{}, {slept} sleeps, {lost} wake-ups lost", counted(&page))
}

/// Runs `work` with the ring and watched surroundings, and adds up what they saw.
fn in_ring<T: crosslane_core::Plain>(
    spsc: &Spsc<T, crosslane_core::Trusted>,
    mode: WakeMode,
    page: &Page,
    peer: usize,
    fences: Fences,
    work: impl FnOnce(Ring<'_, T>, Watched<'_>, &Cell<u64>),
) -> i32 {
    let spsc = spsc.rejoin().expect("joined");
    let (memory, len) = spsc.segment().object();
    // SAFETY: mapped while `spsc` lives, which made such a ring in it.
    let ring = unsafe { Ring::attach(memory, len, spsc.capacity_slots(), mode) }.expect("a ring");
    let (needs, slept, lost) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let env = spsc.segment().env().expect("a member");
    let peer = Stamps::new(page, peer);
    work(ring, Watched { env, peer, needs: &needs, fences, slept: &slept, lost: &lost }, &needs);
    page.add(SLEPT, slept.get());
    page.add(LOST, lost.get());
    0
}

/// Slices of random length, through a name, without waiting calls; blocking ones when there is nothing to do.
pub(crate) fn spsc_batches(mut given: Given) -> String {
    let name = Name::random();
    let _owner = Spsc::<[u64; 3]>::create(&name, 128, &given.options).expect("made");
    let page = Page::new();
    let until = Instant::now() + given.time;
    let item = |number: u64| [number, !number, number.rotate_left(17)];
    let (mut ours, mut theirs) = (given.choice.branch(1), given.choice.branch(2));
    let options = &given.options;
    let open = || Spsc::<[u64; 3]>::open(&name, options).expect("there");
    let producer = Child::fork(|| {
        let mut end = open().producer().expect("vacant");
        let mut number = 0;
        while number < LEAST_ITEMS || Instant::now() < until {
            let batch: Vec<_> = (number..).take(1 + ours.index(200)).map(item).collect();
            match end.push_slice(&batch) {
                Ok(count) => number += count as u64,
                Err(PushError::Full) => {
                    end.push(item(number)).expect("the consumer lives");
                    number += 1;
                }
                Err(error) => panic!("{error}"),
            }
            ours.jitter();
        }
        page.set(IN, number);
        0
    });
    let consumer = Child::fork(|| {
        let mut end = open().consumer().expect("vacant");
        let mut number = 0;
        let mut batch = vec![[0; 3]; 200];
        loop {
            let wanted = 1 + theirs.index(200);
            let count = match end.pop_slice(&mut batch[..wanted]) {
                Err(PopError::Empty) => end.pop().map(|only| {
                    batch[0] = only;
                    1
                }),
                popped => popped,
            };
            match count {
                Ok(count) => batch[..count].iter().for_each(|popped| {
                    assert_eq!(*popped, item(number));
                    number += 1;
                }),
                Err(error) => break assert_eq!(error, PopError::Closed),
            }
            theirs.jitter();
        }
        page.set(OUT, number);
        0
    });
    disturb_and_join(&mut given.choice, until, [producer, consumer]);
    counted(&page)
}

pub(crate) fn record(given: Given) -> String {
    records(given, false)
}

pub(crate) fn record_batches(given: Given) -> String {
    records(given, true)
}

/// Record number `number`: its number, bytes that follow from it, and their checksum.
fn make_record(number: u64, len: usize) -> Vec<u8> {
    let mut record = number.to_le_bytes().to_vec();
    let mut bytes = Choice::new(number, "record");
    record.extend((0..len).map(|_| bytes.next().to_le_bytes()[0]));
    record.extend(checksum(&record).to_le_bytes());
    record
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn records(mut given: Given, in_batches: bool) -> String {
    const CAPACITY_BYTES: u32 = 4096;
    let name = Name::random();
    let _owner = Record::create(&name, CAPACITY_BYTES, &given.options).expect("made");
    let page = Page::new();
    let until = Instant::now() + given.time;
    let (mut ours, mut theirs) = (given.choice.branch(1), given.choice.branch(2));
    let options = &given.options;
    let open = || Record::open(&name, options).expect("there");
    let writer = Child::fork(|| {
        let mut end = open().writer().expect("vacant");
        let mut number = 0;
        while number < LEAST_ITEMS || Instant::now() < until {
            let mut batch = end.batch();
            for _ in 0..if in_batches { 1 + ours.below(20) } else { 1 } {
                // Mostly short, now and then as long as can be.
                let len = if ours.below(50) == 0 { 4096 - 16 - 16 } else { ours.index(200) };
                batch.push(&make_record(number, len)).expect("the reader lives");
                number += 1;
            }
            drop(batch);
            ours.jitter();
        }
        page.set(IN, number);
        0
    });
    let reader = Child::fork(|| {
        let mut end = open().reader().expect("vacant");
        let mut number: u64 = 0;
        let mut buffer = vec![0; 4096];
        let mut check = |record: &[u8]| {
            let (bytes, sum) = record.split_at(record.len() - 8);
            assert_eq!(bytes[..8], number.to_le_bytes());
            assert_eq!(sum, checksum(bytes).to_le_bytes(), "record {number}");
            number += 1;
        };
        loop {
            match end.pop_into(&mut buffer) {
                Ok(len) => check(&buffer[..len]),
                Err(error) => break assert_eq!(error, crosslane_core::record::PopError::Closed),
            }
            let mut batch = end.batch();
            while in_batches && let Ok(len) = batch.try_pop_into(&mut buffer) {
                check(&buffer[..len]);
            }
            drop(batch);
            theirs.jitter();
        }
        page.set(OUT, number);
        0
    });
    disturb_and_join(&mut given.choice, until, [writer, reader]);
    counted(&page)
}

fn counted(page: &Page) -> String {
    let (sent, received) = (page.word(IN).load(SeqCst), page.word(OUT).load(SeqCst));
    assert_eq!(sent, received);
    assert!(sent >= LEAST_ITEMS);
    format!("{sent} sent and received")
}

/// Stops and continues the children until their time is over, and waits for their end.
fn disturb_and_join(choice: &mut Choice, until: Instant, mut children: [Child; 2]) {
    while Instant::now() < until {
        std::thread::sleep(choice.micros(500, 8_000));
        let child = &children[choice.index(2)];
        child.signal(libc::SIGSTOP);
        std::thread::sleep(choice.micros(10, 2_000));
        child.signal(libc::SIGCONT);
    }
    for child in &mut children {
        assert_eq!(child.wait(PATIENCE), Some(End::Exited(0)));
    }
}

//! Either end of a ring is killed under load and replaced. Nothing is lost; an item comes again only when a consumer died,
//! and only the one that it had in hand.

use core::time::Duration;
use std::time::Instant;

use crosslane_core::end::ClaimError;
use crosslane_core::{record, spsc};
use crosslane_shm::{Record, Spsc};
use crosslane_tests::child::{Child, End};

use crate::choice::Choice;
use crate::page::Page;
use crate::run::Given;

const PATIENCE: Duration = Duration::from_secs(30);
/// The fewest items of a run.
const LEAST_ITEMS: u64 = 100;
/// How much longer a case may take on a busy machine.
const MOST_EXTRA: Duration = Duration::from_secs(20);
/// How long an end waits for its peer, or its peer's successor, before it looks whether it is to stop.
const GLANCE: Duration = Duration::from_millis(5);

/// Words of the page. What the sending end knows to be in the ring, and what it was about to put there:
const SENT: usize = 0;
const SENDING: usize = 1;
const SENDING_AT: usize = 2;
/// The number of items that were processed, and how often one was again.
const PROCESSED: usize = 3;
const AGAIN: usize = 4;
/// 1: no more is to be sent.
const STOP: usize = 5;
/// Items that a receiver released and never processed: only in the control.
const LOST: usize = 7;
/// How many items there are, once that is known, and 1 more.
const TOTAL: usize = 6;

/// When an item is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// Once it is processed, which is right.
    Last,
    /// Before, which loses items: the control.
    First,
}

pub(crate) fn spsc(given: Given) -> String {
    let (page, killed) = spsc_with(given, Release::Last);
    sum_up(&page, killed)
}

/// A receiver that releases first must be seen to lose items.
pub(crate) fn spsc_released_first(given: Given) -> String {
    let (page, [_, receivers]) = spsc_with(given, Release::First);
    let lost = page.get(LOST);
    assert!(lost > 0, "{receivers} receivers were killed, and no loss was seen");
    format!("{lost} lost, {receivers} receivers killed")
}

fn spsc_with(mut given: Given, release: Release) -> (Page, [u64; 2]) {
    let ring = Spsc::<[u64; 4]>::anonymous(32, &given.options).expect("made");
    let page = Page::new();
    let sender = |mut choice: Choice| {
        Child::fork(|| {
            let ring = ring.rejoin().expect("joined");
            let mut end = claimed(|| ring.producer());
            let mut number = end.position();
            // What the predecessor knew to be in the ring is there, and at most one more.
            assert!((page.get(SENT)..=page.get(SENT) + 1).contains(&number), "{number} after {}", page.get(SENT));
            while page.get(STOP) == 0 {
                match end.push_timeout([number, number + 1, number + 2, number + 3], GLANCE) {
                    Ok(()) => {
                        number += 1;
                        page.set(SENT, number);
                    }
                    Err(spsc::PushError::TimedOut | spsc::PushError::PeerDied(_) | spsc::PushError::Closed) => {
                        choice.jitter();
                    }
                    Err(error) => panic!("{error}"),
                }
                choice.jitter();
            }
            page.set(SENT, number);
            page.set(TOTAL, number + 1);
            0
        })
    };
    let receiver = |mut choice: Choice| {
        Child::fork(|| {
            let ring = ring.rejoin().expect("joined");
            let mut end = claimed(|| ring.consumer());
            if release == Release::First && end.position() > page.get(PROCESSED) {
                page.add(LOST, end.position() - page.get(PROCESSED));
                page.set(PROCESSED, end.position());
            }
            check_begin(&page, end.position());
            loop {
                let number = end.position();
                let item = match end.front() {
                    Ok(item) => item,
                    Err(spsc::PopError::Empty | spsc::PopError::Closed) => {
                        if page.get(TOTAL) == number + 1 {
                            return 0;
                        }
                        std::thread::yield_now();
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(*item, [number, number + 1, number + 2, number + 3]);
                if release == Release::First {
                    drop(item);
                    std::thread::sleep(choice.micros(50, 200));
                    process(&page, number);
                    continue;
                }
                process(&page, number);
                choice.jitter();
                drop(item);
                choice.jitter();
            }
        })
    };
    let goes_on = || if release == Release::First { page.get(LOST) == 0 } else { page.get(PROCESSED) < LEAST_ITEMS };
    let killed = drive(&mut given, &page, goes_on, sender, receiver);
    (page, killed)
}

pub(crate) fn record(mut given: Given) -> String {
    let ring = Record::anonymous(1024, &given.options).expect("made");
    let page = Page::new();
    let make = |number: u64| -> Vec<u8> {
        let len = 8 + number.wrapping_mul(2_654_435_761) % 90;
        (0..len).map(|i| number.wrapping_mul(i + 1).to_le_bytes()[0]).chain(number.to_le_bytes()).collect()
    };
    let sender = |mut choice: Choice| {
        Child::fork(|| {
            let ring = ring.rejoin().expect("joined");
            let mut end = claimed(|| ring.writer());
            // Positions count bytes, so the predecessor said what it was about to put where.
            let mut number = page.get(SENT);
            if page.get(SENDING) == number + 1 && end.position() != page.get(SENDING_AT) {
                number += 1;
            }
            while page.get(STOP) == 0 {
                page.set(SENDING_AT, end.position());
                page.set(SENDING, number + 1);
                match end.push_timeout(&make(number), GLANCE) {
                    Ok(()) => {
                        number += 1;
                        page.set(SENT, number);
                    }
                    Err(record::PushError::TimedOut | record::PushError::PeerDied(_) | record::PushError::Closed) => {
                        choice.jitter();
                    }
                    Err(error) => panic!("{error}"),
                }
                choice.jitter();
            }
            page.set(SENT, number);
            page.set(TOTAL, number + 1);
            0
        })
    };
    let receiver = |mut choice: Choice| {
        Child::fork(|| {
            let ring = ring.rejoin().expect("joined");
            let mut end = claimed(|| ring.reader());
            let mut next = None;
            loop {
                let item = match end.read_timeout(GLANCE) {
                    Ok(item) => item,
                    Err(record::PopError::TimedOut | record::PopError::PeerDied(_) | record::PopError::Closed) => {
                        if page.get(TOTAL) == page.get(PROCESSED) + 1 {
                            return 0;
                        }
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let mut bytes = vec![0; item.len_bytes()];
                item.copy_to(0, &mut bytes);
                let number = u64::from_le_bytes(*bytes.last_chunk().expect("8 bytes at least"));
                assert_eq!(bytes, make(number));
                match next {
                    Some(expected) => assert_eq!(number, expected),
                    None => check_begin(&page, number),
                }
                process(&page, number);
                next = Some(number + 1);
                choice.jitter();
                drop(item);
                choice.jitter();
            }
        })
    };
    let killed = drive(&mut given, &page, || page.get(PROCESSED) < LEAST_ITEMS, sender, receiver);
    sum_up(&page, killed)
}

/// Claims an end; the kernel may need a moment to see the predecessor gone.
fn claimed<T>(claim: impl Fn() -> Result<T, ClaimError>) -> T {
    loop {
        match claim() {
            Ok(end) => return end,
            Err(ClaimError::EndTaken(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A receiver's first item is the next one, or the last one again.
fn check_begin(page: &Page, begun: u64) {
    let processed = page.get(PROCESSED);
    assert!(begun == processed || begun + 1 == processed, "begins at {begun}, {processed} were processed");
}

/// The item is processed: before it is released, so that a death in between brings it again and never loses it.
fn process(page: &Page, number: u64) {
    if number + 1 == page.get(PROCESSED) {
        page.add(AGAIN, 1);
    } else {
        assert_eq!(number, page.get(PROCESSED));
        page.set(PROCESSED, number + 1);
    }
}

/// Runs both ends, kills and replaces either until the time is over, and while `goes_on`; returns how many senders and receivers were killed.
fn drive(
    given: &mut Given,
    page: &Page,
    goes_on: impl Fn() -> bool,
    sender: impl Fn(Choice) -> Child,
    receiver: impl Fn(Choice) -> Child,
) -> [u64; 2] {
    let until = Instant::now() + given.time;
    let choice = &mut given.choice;
    let mut ends = [sender(choice.branch(1)), receiver(choice.branch(2))];
    let mut killed = [0; 2];
    while Instant::now() < until || goes_on() && Instant::now() < until + MOST_EXTRA {
        std::thread::sleep(choice.micros(200, 5_000));
        let side = choice.index(2);
        if choice.below(4) == 0 {
            ends[side].signal(libc::SIGSTOP);
            std::thread::sleep(choice.micros(10, 3_000));
            ends[side].signal(libc::SIGCONT);
            continue;
        }
        ends[side].signal(libc::SIGKILL);
        assert_eq!(ends[side].wait(PATIENCE), Some(End::Signalled(libc::SIGKILL)));
        killed[side] += 1;
        ends[side] = if side == 0 { sender(choice.branch(3)) } else { receiver(choice.branch(4)) };
    }
    page.set(STOP, 1);
    for end in &mut ends {
        assert_eq!(end.wait(PATIENCE), Some(End::Exited(0)));
    }
    killed
}

fn sum_up(page: &Page, [senders, receivers]: [u64; 2]) -> String {
    let (sent, processed, again) = (page.get(SENT), page.get(PROCESSED), page.get(AGAIN));
    assert_eq!(sent, processed);
    assert!(again <= receivers, "{again} items came again, {receivers} receivers were killed");
    assert!(sent >= LEAST_ITEMS, "{sent} sent");
    format!("{sent} sent and processed, {senders} senders and {receivers} receivers killed, {again} came again")
}

//! Four processes count behind one mutex. They are stopped, killed at any point and replaced, and the sum is exact.

use core::hint::spin_loop;
use core::time::Duration;
use std::time::Instant;

use crosslane_core::Trusted;
use crosslane_shm::{Mutex, Name};
use crosslane_sync::LockError;
use crosslane_tests::child::{Child, End};

use crate::choice::Choice;
use crate::page::Page;
use crate::run::Given;

const PROCESSES: usize = 4;
/// Longest work under the lock, twice a round, in pauses: long against the rest, so that most of the killed are owners.
const MOST_PAUSES: u64 = 3_000;
/// The fewest steps of a run.
const LEAST_COUNT: u64 = 100;
/// How much longer a case may take on a busy machine.
const MOST_EXTRA: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);

/// What the lock guards: a total, and what each process's place has added to it. Written in this order, so that a death
/// between the two leaves `by` one ahead.
type Counts = [u64; 1 + PROCESSES];

/// Words of the page: how many owners were found dead, and where each process is.
const OWNER_DIED: usize = 0;
const AT: usize = 8;
const DONE: usize = 16;

/// Where a process is, as it last said itself.
const IDLE: u64 = 0;
/// May hold the lock: it was about to lock.
const LOCKING: u64 = 1;
/// Holds the lock.
const HOLDING: u64 = 2;
/// May hold the lock: it was about to unlock, with everything added.
const UNLOCKING: u64 = 3;

/// What the driver saw of the dead.
#[derive(Debug, Default)]
struct Dead {
    killed: u64,
    held: u64,
    may_have_held: u64,
    /// Whether what the last round of each place added was told.
    untold: u64,
}

pub(crate) fn guards(mut given: Given) -> String {
    let mutex = Mutex::<Counts>::anonymous([0; 1 + PROCESSES], &given.options).expect("made");
    let fork = |place, choice, page: &_, until| {
        Child::fork(|| {
            let mutex = mutex.rejoin().expect("joined");
            count(place, choice, page, until, |at_work| with_guard(&mutex, place, page, at_work))
        })
    };
    let page = Page::new();
    let dead = drive(&mut given, &page, true, fork);
    let total = with_guard_at_end(&mutex, &page);
    sum_up(&dead, &page, total)
}

/// The same, without a lent value: through a name, and on copies.
pub(crate) fn copies(mut given: Given) -> String {
    let name = Name::random();
    let mutex = Mutex::<Counts>::create(&name, [0; 1 + PROCESSES], &given.options).expect("made");
    let options = &given.options.clone();
    let fork = |place, choice, page: &_, until| {
        Child::fork(|| {
            let mutex = Mutex::<Counts>::open(&name, options).expect("there");
            count(place, choice, page, until, |at_work| with_copy(&mutex, place, page, at_work))
        })
    };
    let page = Page::new();
    let dead = drive(&mut given, &page, true, fork);
    with_copy(&mutex, 0, &page, || {});
    let counts = mutex.read().unwrap_or_else(|error| panic!("{error:?}"));
    // The driver's own look added one.
    let total = counts[0] - 1;
    assert_eq!(counts[1..].iter().sum::<u64>(), counts[0]);
    sum_up(&dead, &page, total)
}

/// Nobody is killed, so nobody may be found dead, however long an owner is stopped.
pub(crate) fn stopped(mut given: Given) -> String {
    let mutex = Mutex::<Counts>::anonymous([0; 1 + PROCESSES], &given.options).expect("made");
    let fork = |place, choice, page: &_, until| {
        Child::fork(|| {
            let mutex = mutex.rejoin().expect("joined");
            count(place, choice, page, until, |at_work| with_guard(&mutex, place, page, at_work))
        })
    };
    let page = Page::new();
    let dead = drive(&mut given, &page, false, fork);
    let total = with_guard_at_end(&mutex, &page);
    assert_eq!((dead.killed, page.get(OWNER_DIED)), (0, 0));
    sum_up(&dead, &page, total)
}

/// Nobody locks: the sum must be wrong.
pub(crate) fn without(mut given: Given) -> String {
    const TOTAL: usize = 32;
    let fork = |place, choice, page: &Page, until| {
        Child::fork(|| {
            count(place, choice, page, until, |at_work| {
                let total = page.get(TOTAL);
                at_work();
                page.set(TOTAL, total + 1);
            })
        })
    };
    let page = Page::new();
    drive(&mut given, &page, false, fork);
    let (told, total) = (told(&page), page.get(TOTAL));
    assert!(total < told, "{told} counted without a lock, and not one was lost");
    format!("{told} counted, {} lost", told - total)
}

/// One process: locks, counts and unlocks through `once` until its time is over, and says where it is.
fn count(place: usize, mut choice: Choice, page: &Page, until: Instant, mut once: impl FnMut(&mut dyn FnMut())) -> i32 {
    while Instant::now() < until || told(page) < LEAST_COUNT {
        page.set(AT + place, LOCKING);
        once(&mut || (0..choice.below(MOST_PAUSES)).for_each(|_| spin_loop()));
        page.add(DONE + place, 1);
        page.set(AT + place, IDLE);
        if choice.below(8) == 0 {
            choice.jitter();
        }
    }
    0
}

/// Mends what a dead owner left: takes the total from the places.
fn mend(counts: &mut Counts) {
    let sum = counts[1..].iter().sum::<u64>();
    assert!(sum == counts[0] || sum == counts[0] + 1, "torn by more than one step: {counts:?}");
    counts[0] = sum;
}

fn with_guard(mutex: &Mutex<Counts, Trusted>, place: usize, page: &Page, mut at_work: impl FnMut()) {
    let mut guard = match mutex.lock() {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(mut guard)) => {
            page.add(OWNER_DIED, 1);
            mend(&mut guard);
            guard.mark_consistent();
            guard
        }
        Err(error) => panic!("{error:?}"),
    };
    page.set(AT + place, HOLDING);
    at_work();
    // Volatile, so that the two steps stay two for whoever kills in between.
    let counts: *mut u64 = guard.as_mut_ptr();
    for index in [1 + place, 0] {
        // SAFETY: an index of the array, which the guard lends.
        let place = unsafe { counts.add(index) };
        // SAFETY: as above.
        let value = unsafe { place.read_volatile() };
        // SAFETY: as above.
        unsafe { place.write_volatile(value + 1) };
    }
    at_work();
    page.set(AT + place, UNLOCKING);
}

fn with_guard_at_end(mutex: &Mutex<Counts, Trusted>, page: &Page) -> u64 {
    let (mut counts, died) = match mutex.lock() {
        Ok(guard) => (*guard, 0),
        Err(LockError::OwnerDied(mut guard)) => {
            mend(&mut guard);
            guard.mark_consistent();
            (*guard, 1)
        }
        Err(error) => panic!("{error:?}"),
    };
    page.add(OWNER_DIED, died);
    mend(&mut counts);
    assert_eq!(counts[1..].iter().sum::<u64>(), counts[0]);
    counts[0]
}

/// A copy is written back as a whole but not in one step: a death in between may leave a mixture of two neighbours.
fn with_copy<K>(mutex: &Mutex<Counts, K>, place: usize, page: &Page, mut at_work: impl FnMut()) {
    loop {
        let updated = mutex.update(|counts| {
            page.set(AT + place, HOLDING);
            at_work();
            counts[0] += 1;
            counts[1 + place] += 1;
            page.set(AT + place, UNLOCKING);
        });
        match updated {
            Ok(()) => return,
            Err(LockError::OwnerDied(mut repair)) => {
                page.add(OWNER_DIED, 1);
                let sum = repair[1..].iter().sum::<u64>();
                assert!(sum == repair[0] || sum + 1 == repair[0], "torn by more than one step: {:?}", *repair);
                repair[0] = sum;
                repair.commit();
                page.set(AT + place, LOCKING);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Runs the processes, disturbs them, and replaces those that it kills.
fn drive(given: &mut Given, page: &Page, kills: bool, fork: impl Fn(usize, Choice, &Page, Instant) -> Child) -> Dead {
    let until = Instant::now() + given.time;
    let choice = &mut given.choice;
    let mut dead = Dead::default();
    let mut children: Vec<_> = (0..PROCESSES).map(|i| fork(i, choice.branch(i as u64), page, until)).collect();
    while Instant::now() < until || told(page) < LEAST_COUNT && Instant::now() < until + MOST_EXTRA {
        std::thread::sleep(choice.micros(300, 4_000));
        // Every other time the one that seems to hold the lock.
        let owner = (0..PROCESSES).find(|place| page.get(AT + place) == HOLDING);
        let place = owner.filter(|_| choice.below(2) == 0).unwrap_or_else(|| choice.index(PROCESSES));
        if kills && choice.below(3) > 0 {
            children[place].signal(libc::SIGKILL);
            bury(&mut children[place], place, page, &mut dead);
            children[place] = fork(place, choice.branch(dead.killed), page, until);
        } else {
            children[place].signal(libc::SIGSTOP);
            std::thread::sleep(choice.micros(10, 15_000));
            children[place].signal(libc::SIGCONT);
        }
    }
    for child in &mut children {
        assert_eq!(child.wait(PATIENCE), Some(End::Exited(0)));
    }
    dead
}

fn bury(child: &mut Child, place: usize, page: &Page, dead: &mut Dead) {
    match child.wait(PATIENCE) {
        Some(End::Signalled(libc::SIGKILL)) => {
            let at = page.get(AT + place);
            dead.killed += 1;
            dead.held += u64::from(at == HOLDING);
            dead.may_have_held += u64::from(at != IDLE);
            // It may have added its one and not told.
            dead.untold += u64::from(at != IDLE);
            page.set(AT + place, IDLE);
        }
        // Its time was over just before.
        Some(End::Exited(0)) => {}
        end => panic!("{end:?}"),
    }
}

fn told(page: &Page) -> u64 {
    (0..PROCESSES).map(|place| page.get(DONE + place)).sum()
}

/// The total is what was told, and at most one more for each dead that could not tell; each dead owner was reported.
fn sum_up(dead: &Dead, page: &Page, total: u64) -> String {
    let told = told(page);
    let reported = page.get(OWNER_DIED);
    assert!((told..=told + dead.untold).contains(&total), "{total} counted, {told} told, {dead:?}");
    assert!((dead.held..=dead.may_have_held).contains(&reported), "{reported} owners reported dead, {dead:?}");
    assert!(total >= LEAST_COUNT, "{total} counted");
    format!("{total} counted, {} killed, {} of them surely owners, {reported} reported", dead.killed, dead.held)
}

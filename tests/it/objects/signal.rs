//! Events, barriers, and work that is done once.

use std::time::{Duration, Instant};

use crosslane::lock::{BarrierError, OnceState};
use crosslane::{Array, Barrier, Error, Event, Once, Value};

use crate::support::{LIMIT, die, done, killed, panic_of, run, start, until};

#[test]
fn an_event_wakes_who_waits_in_other_processes() {
    let (go, woken) = (Event::new().unwrap(), Value::new(0_u32).unwrap());
    let wait = |(go, woken): (Event, Value<u32>)| {
        go.wait();
        woken.fetch_add(1);
    };
    let waiters: Vec<_> = (0..3).map(|_| start(wait, (go.clone(), woken.clone()))).collect();
    assert!(!go.is_set());
    assert!(!go.wait_timeout(Duration::from_millis(20)));
    assert_eq!(woken.get(), 0);
    go.set();
    waiters.into_iter().for_each(done);
    assert_eq!(woken.get(), 3);
    assert!(go.wait_timeout(Duration::ZERO));
    go.clear();
    assert!(!run(|go: Event| go.is_set(), go.clone()));
}

/// Python's `set` hangs then.
#[test]
fn an_event_is_set_past_killed_waiters() {
    let (go, waits) = (Event::new().unwrap(), Event::new().unwrap());
    let waiter = start(
        |(go, waits): (Event, Event)| {
            waits.set();
            go.wait();
        },
        (go.clone(), waits.clone()),
    );
    waits.wait();
    waiter.kill().unwrap();
    until("it has ended", || !waiter.is_alive());
    let begin = Instant::now();
    go.set();
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_barrier_lets_all_go_on_together_again_and_again() {
    const ROUNDS: usize = 50;
    let (barrier, arrived) = (Barrier::new(3).unwrap(), Array::<u32>::zeroed(ROUNDS).unwrap());
    let meet = |(barrier, arrived): (Barrier, Array<u32>)| {
        let mut led = 0;
        for round in 0..ROUNDS {
            arrived.fetch_add(round, 1);
            let passed = barrier.wait().unwrap();
            assert_eq!(arrived.get(round), 3);
            assert!(passed.index < 3);
            led += u32::from(passed.is_leader);
        }
        led
    };
    let parties: Vec<_> = (0..2).map(|_| start(meet, (barrier.clone(), arrived.clone()))).collect();
    let led = meet((barrier.clone(), arrived)) + parties.into_iter().map(done).sum::<u32>();
    assert_eq!(led as usize, ROUNDS);
    assert_eq!((barrier.parties(), barrier.waiting(), barrier.is_broken()), (3, 0, false));
}

#[test]
fn one_party_does_what_is_to_be_done_before_all_go_on() {
    let (barrier, count) = (Barrier::new(2).unwrap(), Value::new(0_u32).unwrap());
    let meet = |(barrier, count): (Barrier, Value<u32>)| {
        barrier.wait_with(|| count.set(count.get() + 1)).unwrap();
        count.get()
    };
    let other = start(meet, (barrier.clone(), count.clone()));
    assert_eq!((meet((barrier, count)), done(other)), (1, 1));
}

/// Python's other parties hang then, even with a timeout.
#[test]
fn a_killed_party_breaks_the_barrier() {
    let barrier = Barrier::new(2).unwrap();
    let first = start(
        |barrier: Barrier| {
            _ = barrier.wait();
            std::thread::park()
        },
        barrier.clone(),
    );
    barrier.wait().unwrap();
    first.kill().unwrap();
    until("it has ended", || !first.is_alive());
    assert_eq!(barrier.wait(), Err(BarrierError::Broken));
    assert!(barrier.is_broken());
    barrier.reset();
    let second = start(|barrier: Barrier| barrier.wait().is_ok(), barrier.clone());
    assert!(barrier.wait_timeout(LIMIT).is_ok() && done(second));
}

#[test]
fn a_party_that_gives_up_breaks_the_barrier_for_all() {
    let barrier = Barrier::new(3).unwrap();
    let waits = start(|barrier: Barrier| barrier.wait() == Err(BarrierError::Broken), barrier.clone());
    until("it waits", || barrier.waiting() == 1);
    assert_eq!(barrier.wait_timeout(Duration::from_millis(10)), Err(BarrierError::TimedOut));
    assert!(done(waits));
    barrier.reset();
    let waits = start(|barrier: Barrier| barrier.wait() == Err(BarrierError::Broken), barrier.clone());
    until("it waits", || barrier.waiting() == 1);
    barrier.abort();
    assert!(done(waits));
}

/// Python accepts no parties, and then nobody gets through.
#[test]
fn pain_25_numbers_of_parties_that_make_no_barrier_are_refused() {
    assert!(matches!(Barrier::new(0), Err(Error::Create(_))));
    assert!(matches!(Barrier::new(1_025), Err(Error::Create(_))));
    assert!(Barrier::new(1).unwrap().wait().unwrap().is_leader);
}

#[test]
fn one_process_does_what_is_done_once() {
    let (once, count) = (Once::new().unwrap(), Value::new(0_u32).unwrap());
    let work = |(once, count): (Once, Value<u32>)| once.call_once(|_| _ = count.fetch_add(1)).unwrap();
    let workers: Vec<_> = (0..3).map(|_| start(work, (once.clone(), count.clone()))).collect();
    let did = workers.into_iter().map(done).filter(|did| *did).count();
    assert_eq!((did, count.get(), once.is_completed()), (1, 1, true));
}

#[test]
fn the_next_one_does_what_a_killed_or_panicking_one_began() {
    let once = Once::new().unwrap();
    killed(start(|once: Once| -> () { _ = once.call_once(|_| die()) }, once.clone()));
    let panics = || _ = once.call_once(|state| panic!("{state:?}"));
    assert_eq!(panic_of(panics), "OwnerDied");
    let mut found = None;
    assert_eq!(once.call_once(|state| found = Some(state)), Ok(true));
    assert_eq!(found, Some(OnceState::Poisoned));
}

//! Semaphores: permits that are owned, and a count that is not.

use std::time::Duration;

use crosslane::lock::{AcquireError, OverRelease};
use crosslane::{BoundedSemaphore, Error, Semaphore, Value};

use crate::support::{LIMIT, die, done, killed, run, start};

#[test]
fn no_more_processes_than_permits_are_inside() {
    let seats = BoundedSemaphore::new(2).unwrap();
    let (inside, most) = (Value::new(0_u32).unwrap(), Value::new(0_u32).unwrap());
    let sit = |(seats, inside, most): (BoundedSemaphore, Value<u32>, Value<u32>)| {
        for _ in 0..200 {
            let _permit = seats.acquire().unwrap();
            let now = inside.fetch_add(1) + 1;
            most.update(|most| *most = now.max(*most)).unwrap();
            inside.fetch_sub(1);
        }
    };
    let sitters: Vec<_> = (0..4).map(|_| start(sit, (seats.clone(), inside.clone(), most.clone()))).collect();
    sitters.into_iter().for_each(done);
    assert!((1..=2).contains(&most.get()), "{}", most.get());
    assert_eq!((seats.available(), seats.limit(), inside.get()), (2, 2, 0));
}

#[test]
fn permits_of_a_killed_process_come_back() {
    let seats = BoundedSemaphore::new(3).unwrap();
    let take = |seats: BoundedSemaphore| -> () {
        (0..3).for_each(|_| std::mem::forget(seats.acquire().unwrap()));
        die();
    };
    killed(start(take, seats.clone()));
    let permits: Vec<_> = (0..3).map(|_| seats.acquire_timeout(LIMIT).unwrap()).collect();
    assert_eq!((permits.len(), seats.available()), (3, 0));
}

#[test]
fn more_than_was_taken_is_not_given_back() {
    let seats = BoundedSemaphore::new(1).unwrap();
    assert_eq!(seats.release(), Err(OverRelease));
    seats.acquire().unwrap().detach().unwrap();
    // Another process cannot give back what this one has.
    assert!(run(|seats: BoundedSemaphore| seats.release().is_err(), seats.clone()));
    assert_eq!(seats.try_acquire().err(), Some(AcquireError::WouldBlock));
    seats.release().unwrap();
    assert_eq!(seats.release(), Err(OverRelease));
    let full = Semaphore::new(i32::MAX as u32).unwrap();
    assert_eq!(full.release(1), Err(OverRelease));
    assert_eq!(full.available(), i32::MAX as u32);
}

#[test]
fn a_count_is_raised_in_one_process_and_lowered_in_another() {
    let (items, done_with) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
    let consumer = start(
        |(items, done_with): (Semaphore, Semaphore)| {
            for _ in 0..500 {
                items.acquire().unwrap();
                done_with.release(1).unwrap();
            }
        },
        (items.clone(), done_with.clone()),
    );
    for _ in 0..250 {
        items.release(2).unwrap();
        done_with.acquire().unwrap();
        done_with.acquire().unwrap();
    }
    done(consumer);
    assert_eq!((items.available(), done_with.available()), (0, 0));
    assert_eq!(items.try_acquire(), Err(AcquireError::WouldBlock));
    assert_eq!(items.acquire_timeout(Duration::from_millis(10)), Err(AcquireError::TimedOut));
}

#[test]
fn numbers_that_make_no_semaphore_are_refused() {
    assert!(matches!(Semaphore::new(1 << 31), Err(Error::Create(_))));
    assert!(matches!(BoundedSemaphore::new(0), Err(Error::Create(_))));
    assert!(matches!(BoundedSemaphore::new(65_537), Err(Error::Create(_))));
    assert_eq!(BoundedSemaphore::new(1_000).unwrap().available(), 1_000);
}

//! `wait`.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Connection, Error, Waitable, pipe, spawn, wait};

use crate::{LIMIT, Watchdog};

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn what_is_ready_is_told_by_its_index() {
    let (mut a, b) = pipe::<u8, u8>().unwrap();
    let (c, mut d) = pipe::<u8, u8>().unwrap();
    let (mut tx, rx) = UnixStream::pair().unwrap();
    assert_eq!(wait(&[&b, &c, &rx], NOW).unwrap(), []);
    a.send(&1).unwrap();
    assert_eq!(wait(&[&b, &c, &rx], None).unwrap(), [0]);
    tx.write_all(b"x").unwrap();
    d.send(&2).unwrap();
    assert_eq!(wait(&[&b, &c, &rx], None).unwrap(), [0, 1, 2]);
    assert_eq!(wait(&[&rx, &b], NOW).unwrap(), [0, 1], "nothing was consumed");
    drop(d);
    let (_sender, mut receiver) = c.split();
    assert_eq!(wait(&[&receiver], NOW).unwrap(), [0]);
    assert_eq!(receiver.recv().unwrap(), 2);
    assert_eq!(wait(&[&receiver], NOW).unwrap(), [0], "the end is ready too");
    assert!(matches!(receiver.recv(), Err(Error::Closed)));
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let (_a, b) = pipe::<u8, u8>().unwrap();
    let (_tx, rx) = UnixStream::pair().unwrap();
    for objects in [&[][..], &[&b as &dyn Waitable], &[&rx, &b]] {
        let start = Instant::now();
        assert_eq!(wait(objects, Some(Duration::from_millis(20))).unwrap(), []);
        assert!((20..5_000).contains(&start.elapsed().as_millis()));
    }
}

#[test]
fn each_message_wakes_a_wait_that_sleeps() {
    let _watchdog = Watchdog::new();
    let (mut a, mut b) = pipe::<u32, u32>().unwrap();
    let (mut c, mut d) = pipe::<u32, u32>().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..2_000 {
                let (sender, receiver) = if n % 3 == 0 { (&mut a, &mut c) } else { (&mut c, &mut a) };
                sender.send(&n).unwrap();
                // The other side answers through the pipe that was not used.
                assert_eq!(receiver.recv().unwrap(), n);
            }
        });
        for n in 0..2_000 {
            let ready = wait(&[&b, &d], None).unwrap();
            assert_eq!(ready.len(), 1);
            let (from, to) = if ready == [0] { (&mut b, &mut d) } else { (&mut d, &mut b) };
            assert_eq!(from.recv().unwrap(), n);
            to.send(&n).unwrap();
        }
        while wait(&[&b, &d], Some(LIMIT)).unwrap() != [0, 1] {}
    });
}

#[test]
fn a_wait_does_not_lose_a_stream_of_messages() {
    let _watchdog = Watchdog::new();
    let (mut a, mut b) = pipe::<u32, ()>().unwrap();
    let (_c, d) = pipe::<u32, u32>().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || (0..50_000).for_each(|n| a.send(&n).unwrap()));
        let mut next = 0;
        loop {
            assert_eq!(wait(&[&d, &b], None).unwrap(), [1]);
            match b.try_recv() {
                Ok(n) => assert_eq!(n, std::mem::replace(&mut next, n + 1)),
                Err(Error::Closed) => break,
                Err(error) => panic!("ready, and {error}"),
            }
        }
        assert_eq!(next, 50_000);
    });
}

fn work(mut connection: Connection<u32, ()>) {
    for n in 0..100 {
        connection.send(&n).unwrap();
    }
}

#[test]
fn processes_are_waited_for_with_their_pipes() {
    let _watchdog = Watchdog::new();
    let (mut a, there) = pipe::<(), u32>().unwrap();
    let child = spawn(work, there).unwrap();
    let (mut got, mut has_ended) = (0, false);
    while !has_ended || got < 100 {
        let ready = wait(&[&a, &child.sentinel()], None).unwrap();
        has_ended = ready.contains(&1);
        if ready.contains(&0) && got < 100 {
            assert_eq!(a.recv().unwrap(), got);
            got += 1;
        }
    }
    assert_eq!(wait(&[&child, &a], None).unwrap(), [0, 1]);
    assert!(matches!(a.recv(), Err(Error::Closed)));
    child.join().unwrap();
}

#[test]
fn an_end_that_was_handed_over_is_ready_to_refuse() {
    let (mut carrier, _other) = pipe::<Connection<u8, u8>, ()>().unwrap();
    let (_a, b) = pipe::<u8, u8>().unwrap();
    carrier.send(&b).unwrap();
    assert_eq!(wait(&[&b], NOW).unwrap(), [0]);
}

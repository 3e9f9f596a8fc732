//! `wait`.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Connection, Descriptor, Error, Portable, Process, Receiver, Sender, Waitable, pipe, spawn, wait};

use crate::{LIMIT, Watchdog, until};

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
        assert!((Duration::from_millis(20)..LIMIT).contains(&start.elapsed()));
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

/// Receives whenever a wait says that it can, to the end.
fn drain<R: Portable>(a: &mut Connection<(), R>) -> (Vec<R>, Error) {
    let mut got = Vec::new();
    loop {
        assert_eq!(wait(&[&*a], Some(LIMIT)).unwrap(), [0]);
        match a.try_recv() {
            Ok(message) => got.push(message),
            Err(Error::Empty) => panic!("ready, and empty"),
            Err(end) => {
                assert_eq!(wait(&[&*a], None).unwrap(), [0], "the end stays ready");
                assert!(matches!(
                    (a.try_recv(), &end),
                    (Err(Error::PeerDied), Error::PeerDied) | (Err(Error::Closed), Error::Closed)
                ));
                return (got, end);
            }
        }
    }
}

/// A process that sends two numbers, and then sleeps until it is killed.
fn sleeper(mut sender: Sender<u32>) {
    sender.send(&1).unwrap();
    sender.send(&2).unwrap();
    loop {
        thread::park();
    }
}

fn kill(child: Process<()>) {
    child.kill().unwrap();
    assert!(matches!(child.join(), Err(Error::Died { .. })));
}

#[test]
fn what_is_ready_is_there_of_a_killed_peer_too() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<(), u32>().unwrap();
    let whole = |b: Connection<u32, ()>| {
        let (sender, _receiver) = b.split();
        sleeper(sender);
    };
    let child = spawn(whole, b).unwrap();
    until("a message is there", || a.poll(LIMIT).unwrap());
    kill(child);
    let (got, end) = drain(&mut a);
    // It may have been killed before it sent another one.
    assert!([1, 2].starts_with(&got) && !got.is_empty() && matches!(end, Error::PeerDied), "{got:?} {end:?}");
    // One half, and the other one lives.
    let (mut a, b) = pipe::<(), u32>().unwrap();
    let (sender, _receiver) = b.split();
    let child = spawn(sleeper, sender).unwrap();
    until("a message is there", || a.poll(LIMIT).unwrap());
    kill(child);
    let (got, end) = drain(&mut a);
    // It may have been killed before it sent another one.
    assert!([1, 2].starts_with(&got) && !got.is_empty() && matches!(end, Error::PeerDied), "{got:?} {end:?}");
}

#[test]
fn what_is_ready_is_there_of_an_end_that_was_lost_too() {
    let _watchdog = Watchdog::new();
    let (mut carrier, mut there) = pipe::<Connection<u32, ()>, ()>().unwrap();
    let (mut a, mut b) = pipe::<(), u32>().unwrap();
    b.send(&1).unwrap();
    carrier.send(&b).unwrap();
    // Only the bytes are wanted: the end in it is nobody's.
    there.recv_bytes().unwrap();
    let (got, end) = drain(&mut a);
    assert!(got == [1] && matches!(end, Error::Closed), "{got:?} {end:?}");
}

#[test]
fn who_only_tries_is_told_of_a_death_too() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<u32, u32>().unwrap();
    let full = |mut b: Connection<u32, u32>| {
        b.send(&1).unwrap();
        loop {
            thread::park();
        }
    };
    let child = spawn(full, b).unwrap();
    assert_eq!(a.recv().unwrap(), 1);
    while a.try_send(&1).is_ok() {}
    assert!(matches!((a.try_recv(), a.try_send(&1)), (Err(Error::Empty), Err(Error::Full))));
    kill(child);
    until("it is told", || matches!(a.try_recv(), Err(Error::PeerDied)));
    until("it is told when it sends", || matches!(a.try_send(&1), Err(Error::PeerDied)));
}

#[test]
fn a_wait_for_a_half_that_was_handed_over_takes_nothing_from_it() {
    let _watchdog = Watchdog::new();
    let (mut carrier, mut there) = pipe::<Receiver<Descriptor>, ()>().unwrap();
    let (mut a, b) = pipe::<Descriptor, ()>().unwrap();
    let (_sender, receiver) = b.split();
    carrier.send(&receiver).unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    a.send(&Descriptor(writer.into())).unwrap();
    assert_eq!(wait(&[&receiver], None).unwrap(), [0]);
    there.recv().unwrap().recv().unwrap();
}

#[test]
fn an_end_that_another_thread_waits_for_is_handed_over_whole() {
    const MESSAGES: usize = 200;
    let _watchdog = Watchdog::new();
    let (_reader, writer) = std::io::pipe().unwrap();
    let file = Descriptor(writer.into());
    for _ in 0..50 {
        let (mut carrier, mut there) = pipe::<Connection<(), Descriptor>, ()>().unwrap();
        let (mut a, b) = pipe::<Descriptor, ()>().unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    wait(&[&b], Some(Duration::from_millis(1))).unwrap();
                }
            });
            scope.spawn(|| (0..MESSAGES).for_each(|_| a.send(&file).unwrap()));
            // In the middle of the stream.
            wait(&[&b], None).unwrap();
            carrier.send(&b).unwrap();
            let mut end = there.recv().unwrap();
            let lost = (0..MESSAGES).find_map(|n| Some((n, end.recv().err()?)));
            is_over.store(true, Ordering::Relaxed);
            assert!(lost.is_none(), "{lost:?}");
        });
    }
}

/// The number of this thread, by which the others look for it.
fn own_number() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Whether a thread of this process sleeps in a `poll`.
fn polls(thread: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
    number.is_some_and(|number| [libc::SYS_poll, libc::SYS_ppoll].contains(&number))
}

/// A wait that missed its wake would go on when its slice of a second ends.
#[test]
fn threads_that_wait_for_the_same_end_are_all_woken() {
    const ROUNDS: u32 = 20;
    let _watchdog = Watchdog::new();
    let mut late = 0;
    for _ in 0..ROUNDS {
        let (mut a, b) = pipe::<u32, ()>().unwrap();
        let numbers = [(); 3].map(|()| AtomicI32::new(0));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Another one comes and goes.
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    wait(&[&b], Some(Duration::from_millis(1))).unwrap();
                }
            });
            let waiting = numbers.each_ref().map(|number| {
                scope.spawn(|| {
                    number.store(own_number(), Ordering::Relaxed);
                    assert_eq!(wait(&[&b], None).unwrap(), [0]);
                    Instant::now()
                })
            });
            let sleeps =
                |number: &AtomicI32| number.load(Ordering::Relaxed) > 0 && polls(number.load(Ordering::Relaxed));
            until("all sleep", || numbers.iter().all(sleeps));
            let sent = Instant::now();
            a.send(&1).unwrap();
            let woken = waiting.map(|thread| thread.join().unwrap());
            late += u32::from(woken.iter().any(|woken| *woken - sent > Duration::from_millis(500)));
            is_over.store(true, Ordering::Relaxed);
        });
    }
    // On a machine that does much else, one may be late that was woken.
    assert!(late < ROUNDS / 4, "{late} of {ROUNDS} times");
}

//! The halves of a connection, which travel each by itself.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use crosslane::{Connection, Descriptor, Error, Portable, Receiver, Sender, pipe, spawn, wait};

use crate::{LIMIT, Watchdog, open_fds};

/// In a process of its own, as descriptors are counted.
fn alone(f: fn(())) {
    spawn(f, ()).unwrap().join().unwrap();
}

/// An end, in halves.
fn halves<A: Portable, B: Portable>() -> (Connection<A, B>, Sender<B>, Receiver<A>) {
    let (a, b) = pipe().unwrap();
    let (sender, receiver) = b.split();
    (a, sender, receiver)
}

#[test]
fn halves_work_in_two_processes() {
    let _watchdog = Watchdog::new();
    let (mut a, sender, receiver) = halves::<u64, u64>();
    let (sums, there) = pipe::<(), u64>().unwrap();
    let counter = |mut sender: Sender<u64>| (0..1000).for_each(|n| sender.send(&n).unwrap());
    let adder = |(mut numbers, mut sums): (Receiver<u64>, Sender<u64>)| {
        let mut sum = 0;
        while let Ok(n) = numbers.recv() {
            sum += n;
        }
        sums.send(&sum).unwrap();
    };
    let counter = spawn(counter, sender).unwrap();
    let adder = spawn(adder, (receiver, there.split().0)).unwrap();
    for n in 0..1000 {
        assert_eq!(a.recv().unwrap(), n);
        a.send(&n).unwrap();
    }
    assert!(matches!(a.recv(), Err(Error::Closed)), "the sending half is gone");
    drop(a);
    assert_eq!(sums.split().1.recv().unwrap(), 499_500);
    counter.join().unwrap();
    adder.join().unwrap();
}

#[test]
fn a_half_that_was_sent_is_inert_and_the_other_is_not() {
    alone(|()| {
        let before = open_fds();
        {
            let (mut senders, mut there) = pipe::<Sender<u8>, Receiver<u8>>().unwrap();
            let (mut a, mut sender, mut receiver) = halves::<u8, u8>();
            senders.send(&sender).unwrap();
            assert!(matches!(sender.send(&1), Err(Error::AlreadySent { handle: "Sender" })));
            assert!(matches!(senders.send(&sender), Err(Error::AlreadySent { handle: "Sender" })));
            drop(sender);
            a.send(&2).unwrap();
            assert_eq!(receiver.recv().unwrap(), 2);
            let mut sender = there.recv().unwrap();
            sender.send(&3).unwrap();
            assert_eq!(a.recv().unwrap(), 3);
            // The second one, and through a wait of the peer's.
            there.send(&receiver).unwrap();
            assert!(matches!(receiver.recv(), Err(Error::AlreadySent { handle: "Receiver" })));
            drop(receiver);
            let receiver = senders.recv().unwrap();
            a.send(&4).unwrap();
            assert_eq!(wait(&[&receiver], None).unwrap(), [0]);
            drop(sender);
            assert_eq!(wait(&[&a], None).unwrap(), [0]);
            assert!(matches!(a.recv(), Err(Error::Closed)));
            drop(receiver);
            assert!(matches!(a.send(&5), Err(Error::Closed)));
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn halves_that_are_dropped_with_their_unsent_message_are_closed() {
    let (mut a, sender, receiver) = halves::<u8, u8>();
    let (mut carrier, other) = pipe::<(Sender<u8>, Receiver<u8>), ()>().unwrap();
    drop(other);
    assert!(matches!(carrier.send(&(sender, receiver)), Err(Error::Closed)));
    assert!(matches!(a.recv(), Err(Error::Closed)));
    assert!(matches!(a.send(&1), Err(Error::Closed)));
}

#[test]
fn handles_go_through_halves_in_other_processes() {
    let _watchdog = Watchdog::new();
    let (mut a, sender, receiver) = halves::<Descriptor, Descriptor>();
    let (mut reader, writer) = std::io::pipe().unwrap();
    a.send(&Descriptor(writer.try_clone().unwrap().into())).unwrap();
    // Takes the descriptor out of the socket: it travels with the half.
    assert_eq!(wait(&[&receiver], None).unwrap(), [0]);
    let first = spawn(|mut r: Receiver<Descriptor>| (r.recv().unwrap(), r), receiver).unwrap();
    let second = |(mut sender, file): (Sender<Descriptor>, Descriptor)| sender.send(&file).unwrap();
    spawn(second, (sender, Descriptor(writer.into()))).unwrap().join().unwrap();
    let (came, mut receiver) = first.join().unwrap();
    File::from(came.0).write_all(b"one").unwrap();
    let mut file = File::from(a.recv().unwrap().0);
    file.write_all(b"two").unwrap();
    a.send(&Descriptor(file.into())).unwrap();
    File::from(receiver.recv().unwrap().0).write_all(b"and").unwrap();
    drop((a, receiver));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "onetwoand");
}

/// A process that keeps a half until it is killed.
fn keep<H: Portable>(half: H) -> crosslane::Process<()> {
    let child = |(_half, mut here): (H, Sender<()>)| {
        here.send(&()).unwrap();
        loop {
            thread::park();
        }
    };
    let (a, b) = pipe::<(), ()>().unwrap();
    let child = spawn(child, (half, b.split().0)).unwrap();
    a.split().1.recv().unwrap();
    child
}

fn kill(child: crosslane::Process<()>) {
    child.kill().unwrap();
    assert!(matches!(child.join(), Err(Error::Died { .. })));
}

#[test]
fn the_peer_of_a_killed_half_is_told_though_the_other_lives() {
    let _watchdog = Watchdog::new();
    // One that receives; one that waits, asleep.
    let (mut a, sender, _receiver) = halves::<u8, u8>();
    let receiving = thread::spawn(move || a.recv());
    kill(keep(sender));
    assert!(matches!(receiving.join().unwrap(), Err(Error::PeerDied)));
    let (mut a, sender, _receiver) = halves::<u8, u8>();
    let child = keep(sender);
    let waiting = thread::spawn(move || (wait(&[&a], Some(LIMIT)).unwrap(), a.recv()));
    kill(child);
    let (ready, end) = waiting.join().unwrap();
    assert!(ready == [0] && matches!(end, Err(Error::PeerDied)), "{ready:?} {end:?}");
}

#[test]
fn descriptors_for_a_killed_half_wait_for_no_reader() {
    let _watchdog = Watchdog::new();
    let (mut a, _sender, receiver) = halves::<Descriptor, u8>();
    kill(keep(receiver));
    let (_reader, writer) = std::io::pipe().unwrap();
    let file = Descriptor(writer.into());
    // The socket is full before the ring is, or the kernel wants no more descriptors in flight.
    let end = (0..10_000).find_map(|_| a.send(&file).err());
    assert!(matches!(end, Some(Error::PeerDied | Error::FdLimit)), "{end:?}");
    assert!(matches!(a.send(&file), Err(Error::PeerDied | Error::FdLimit)));
}

#[test]
fn a_half_on_its_way_to_one_that_dies_ends() {
    let _watchdog = Watchdog::new();
    let (mut a, sender, receiver) = halves::<u8, u8>();
    let child = spawn(|_: Sender<u8>| -> () { std::process::abort() }, sender).unwrap();
    assert!(child.join().is_err());
    assert!(matches!(a.recv(), Err(Error::PeerDied | Error::Closed)));
    let (mut carrier, other) = pipe::<Receiver<u8>, ()>().unwrap();
    carrier.send(&receiver).unwrap();
    drop(receiver);
    drop(other);
    assert!(matches!(carrier.recv(), Err(Error::Closed)));
    drop(carrier);
    assert!(matches!(a.send(&1), Err(Error::Closed)));
}

/// Hands `half` to a process that dies before it takes it. Whoever sent it learns nothing of that: that was another one's
/// child, which lives on, and the connection is neither used nor dropped.
fn lose<H: Portable>(half: &H) -> impl Sized {
    let parent = |(end, mut here): (Connection<(), H>, Connection<(), ()>)| {
        let child = |_end: Connection<(), H>| -> () { std::process::abort() };
        assert!(spawn(child, end).unwrap().join().is_err());
        here.send(&()).unwrap();
        let _ = here.recv();
    };
    let (mut carrier, end) = pipe::<H, ()>().unwrap();
    let (mut gate, here) = pipe::<(), ()>().unwrap();
    carrier.send(half).unwrap();
    let parent = spawn(parent, (end, here)).unwrap();
    gate.recv().unwrap();
    (carrier, gate, parent)
}

#[test]
fn the_peer_of_a_half_whose_message_is_lost_is_told() {
    let _watchdog = Watchdog::new();
    let (mut a, sender, receiver) = halves::<u8, u8>();
    let _carrier = lose(&sender);
    assert!(matches!(a.recv(), Err(Error::Closed)));
    assert!(matches!(a.try_recv(), Err(Error::Closed)));
    assert!(a.poll(LIMIT).unwrap());
    assert_eq!(wait(&[&a], None).unwrap(), [0]);
    a.send(&1).unwrap();
    let _other_carrier = lose(&receiver);
    let end = (0..100_000).find_map(|_| a.send(&1).err());
    assert!(matches!(end, Some(Error::Closed)), "{end:?}");
    // Those who sleep meanwhile.
    let (mut a, sender, _receiver) = halves::<u8, u8>();
    let receiving = thread::spawn(move || a.recv());
    let _carrier = lose(&sender);
    assert!(matches!(receiving.join().unwrap(), Err(Error::Closed)));
    let (a, sender, _receiver) = halves::<u8, u8>();
    let waiting = thread::spawn(move || wait(&[&a], Some(LIMIT)).unwrap());
    let _carrier = lose(&sender);
    assert_eq!(waiting.join().unwrap(), [0]);
}

#[test]
fn the_peer_of_a_half_that_is_taken_as_bytes_is_told_and_one_of_a_half_on_its_way_is_not() {
    let _watchdog = Watchdog::new();
    let (mut a, sender, _receiver) = halves::<u8, u8>();
    let (mut carrier, mut there) = pipe::<Sender<u8>, ()>().unwrap();
    carrier.send(&sender).unwrap();
    assert!(!a.poll(std::time::Duration::from_millis(50)).unwrap(), "it is on its way");
    let mut sender = there.recv().unwrap();
    // And on, by the way that it came, with its first message not looked at again by its sender.
    sender.send(&1).unwrap();
    carrier.send(&sender).unwrap();
    assert_eq!(a.recv().unwrap(), 1);
    assert!(!a.poll(std::time::Duration::from_millis(50)).unwrap(), "it is on its way again");
    there.recv_bytes().unwrap();
    assert!(matches!(a.recv(), Err(Error::Closed)));
}

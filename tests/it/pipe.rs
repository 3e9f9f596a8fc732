//! `pipe`.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Connection, Descriptor, Error, Event, Queue, Receiver, pipe, pipe_with_capacity, spawn};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{LIMIT, Watchdog, open_fds, until};

#[test]
fn messages_arrive_whole_and_in_order_on_both_sides() {
    let (mut a, mut b) = pipe::<(u32, String), Vec<u8>>().unwrap();
    for n in 0..100 {
        a.send(&(n, "x".repeat(n as usize))).unwrap();
        b.send(&vec![7; 3 * n as usize]).unwrap();
    }
    for n in 0..100 {
        assert_eq!(b.recv().unwrap(), (n, "x".repeat(n as usize)));
        assert_eq!(a.recv().unwrap(), vec![7; 3 * n as usize]);
    }
    assert!(matches!(a.try_recv(), Err(Error::Empty)));
}

#[test]
fn a_pipe_goes_round_its_ring_with_messages_of_all_lengths() {
    let _watchdog = Watchdog::new();
    let (mut a, mut b) = pipe_with_capacity::<Vec<u8>, ()>(4096).unwrap();
    let max = a.max_bytes();
    assert_eq!(max, 4096 - 24);
    thread::scope(|scope| {
        scope.spawn(move || {
            (0..4 * max).step_by(7).for_each(|n| a.send(&vec![n.to_le_bytes()[0]; n % (max + 1)]).unwrap())
        });
        for n in (0..4 * max).step_by(7) {
            assert_eq!(b.recv().unwrap(), vec![n.to_le_bytes()[0]; n % (max + 1)]);
        }
    });
}

#[test]
fn pain_11_a_message_beyond_the_limit_is_an_error_that_names_both_sizes() {
    let (mut a, mut b) = pipe_with_capacity::<Vec<u8>, Vec<u8>>(1000).unwrap();
    assert_eq!(a.max_bytes(), 1000);
    let refused = a.send(&vec![0; 1001]);
    assert!(matches!(refused, Err(Error::TooLarge { len_bytes: 1001, limit_bytes: 1000 })), "{refused:?}");
    let refused = a.send_bytes(&[0; 1001]);
    assert!(matches!(refused, Err(Error::TooLarge { len_bytes: 1001, limit_bytes: 1000 })), "{refused:?}");
    a.send(&vec![1; 1000]).unwrap();
    assert_eq!(b.recv().unwrap(), [1; 1000]);
    assert!(matches!(pipe_with_capacity::<(), ()>(usize::MAX), Err(Error::Create(_))));
    assert!(matches!(pipe_with_capacity::<(), ()>((1 << 28) + 1), Err(Error::Create(_))));
}

#[test]
fn a_full_pipe_is_full_until_something_is_received() {
    let (mut a, mut b) = pipe_with_capacity::<[u64; 8], ()>(256).unwrap();
    let sent = (0..).take_while(|n| a.try_send(&[u64::MAX - n; 8]).is_ok()).count();
    assert!((1..4).contains(&sent));
    assert!(matches!(a.try_send(&[u64::MAX; 8]), Err(Error::Full)));
    let start = Instant::now();
    assert!(matches!(a.send_timeout(&[u64::MAX; 8], Duration::from_millis(30)), Err(Error::TimedOut)));
    assert!((Duration::from_millis(30)..LIMIT).contains(&start.elapsed()));
    assert_eq!(b.recv().unwrap(), [u64::MAX; 8]);
    a.try_send(&[9; 8]).unwrap();
}

#[test]
fn a_receive_and_a_poll_end_at_their_deadlines() {
    let (mut a, mut b) = pipe::<u8, u8>().unwrap();
    let start = Instant::now();
    assert!(matches!(a.recv_timeout(Duration::from_millis(20)), Err(Error::TimedOut)));
    assert!(!a.poll(Duration::from_millis(20)).unwrap() && !a.poll(Duration::ZERO).unwrap());
    assert!((Duration::from_millis(40)..LIMIT).contains(&start.elapsed()));
    b.send(&5).unwrap();
    assert!(a.poll(Duration::ZERO).unwrap() && a.poll(LIMIT).unwrap(), "it consumes nothing");
    assert_eq!(a.recv().unwrap(), 5);
}

#[test]
fn the_end_and_a_broken_pipe_are_told_apart() {
    let (mut a, mut b) = pipe::<u8, u8>().unwrap();
    b.send(&1).unwrap();
    drop(b);
    assert!(matches!(a.send(&2), Err(Error::Closed)), "nobody reads");
    assert_eq!(a.recv().unwrap(), 1, "what was sent is there");
    assert!(a.poll(Duration::ZERO).unwrap());
    assert!(matches!(a.recv(), Err(Error::Closed)));
    assert!(matches!(a.try_recv(), Err(Error::Closed)));
}

#[test]
fn bytes_are_sent_as_they_are() {
    let (mut a, mut b) = pipe::<u64, u64>().unwrap();
    a.send_bytes(b"").unwrap();
    a.send_bytes(b"as they are").unwrap();
    a.send_bytes(b"and more").unwrap();
    assert_eq!(b.recv_bytes().unwrap(), b"");
    let mut room = [0; 10];
    let refused = b.recv_bytes_into(&mut room);
    assert!(matches!(refused, Err(Error::BufferTooShort { needed_bytes: 11 })), "{refused:?}");
    assert_eq!(b.recv_bytes().unwrap(), b"as they are", "it is still there");
    assert_eq!(b.recv_bytes_into(&mut room).unwrap(), 8);
    assert_eq!(&room[..8], b"and more");
    // A message of another type is consumed.
    a.send_bytes(b"no number, too long").unwrap();
    a.send(&8).unwrap();
    assert!(matches!(b.recv(), Err(Error::Decode { .. })));
    assert_eq!(b.recv().unwrap(), 8);
}

#[test]
fn halves_work_in_two_threads() {
    let _watchdog = Watchdog::new();
    let (a, mut b) = pipe::<u64, u64>().unwrap();
    let (mut sender, mut receiver) = a.split();
    thread::scope(|scope| {
        scope.spawn(move || (0..10_000).for_each(|n| sender.send(&n).unwrap()));
        scope.spawn(move || {
            while let Ok(n) = b.recv() {
                b.send(&(n + 1)).unwrap()
            }
        });
        assert_eq!((0..10_000).map(|_| receiver.recv().unwrap()).sum::<u64>(), (1..=10_000).sum());
        assert!(matches!(receiver.recv(), Err(Error::Closed)), "both halves there are gone");
    });
}

/// Runs a test in a process of its own, where nobody else opens and closes descriptors.
fn alone(test: fn(())) {
    let _watchdog = Watchdog::new();
    spawn(test, ()).unwrap().join().unwrap();
}

fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("crosslane-pipe-{}-{:?}", std::process::id(), thread::current().id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn descriptors_and_handles_travel_inside_messages() {
    alone(|()| {
        type Both = (String, Vec<Descriptor>, Queue<u32>);
        let before = open_fds();
        {
            let (mut a, mut b) = pipe::<Both, ()>().unwrap();
            let (mut file, queue) = (tempfile(), Queue::bounded(4).unwrap());
            let copy = |file: &File| Descriptor(OwnedFd::from(file.try_clone().unwrap()));
            for n in 0..3 {
                let fds = (0..n * 10).map(|_| copy(&file)).collect();
                a.send(&(n.to_string(), fds, queue.clone())).unwrap();
            }
            for n in 0..3 {
                let (name, fds, same) = b.recv().unwrap();
                assert_eq!((name, fds.len()), (n.to_string(), n * 10));
                for fd in fds {
                    File::from(fd.0).write_all(b"x").unwrap();
                }
                same.put(u32::try_from(n).unwrap()).unwrap();
            }
            assert_eq!((0..3).map(|_| queue.get().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text.len(), 30);
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn hundreds_of_descriptors_travel_with_one_message() {
    let (mut a, mut b) = pipe::<Vec<Descriptor>, ()>().unwrap();
    let file = tempfile();
    let fds: Vec<_> = (0..300).map(|_| Descriptor(file.try_clone().unwrap().into())).collect();
    thread::scope(|scope| {
        scope.spawn(|| a.send(&fds).unwrap());
        assert_eq!(b.recv().unwrap().len(), 300);
    });
}

#[test]
fn the_descriptors_of_a_message_that_was_not_sent_go_to_no_other() {
    let (mut a, mut b) = pipe_with_capacity::<(Vec<u8>, Option<Descriptor>), ()>(256).unwrap();
    let file = tempfile();
    let with = || Some(Descriptor(file.try_clone().unwrap().into()));
    a.send(&(vec![0; 200], with())).unwrap();
    assert!(matches!(a.try_send(&(vec![1; 100], with())), Err(Error::Full)));
    assert!(matches!(a.send_timeout(&(vec![2; 100], with()), Duration::from_millis(5)), Err(Error::TimedOut)));
    assert!(b.recv().unwrap().1.is_some());
    a.send(&(vec![3; 100], None)).unwrap();
    a.send(&(vec![4; 20], with())).unwrap();
    let (third, fourth) = (b.recv().unwrap(), b.recv().unwrap());
    assert!(third.1.is_none() && fourth.1.is_some() && fourth.0 == [4; 20]);
}

#[test]
fn descriptors_that_find_no_room_in_the_socket_wait_for_a_reader_and_no_longer() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe_with_capacity::<Descriptor, ()>(1 << 20).unwrap();
    let file = Descriptor(tempfile().into());
    let full = (0..10_000).find_map(|_| a.try_send(&file).err());
    assert!(matches!(full, Some(Error::Full)), "{full:?}");
    assert!(matches!(a.send_timeout(&file, Duration::from_millis(5)), Err(Error::TimedOut)));
    // The half that sends keeps the socket open.
    let (_sender, receiver) = b.split();
    let (tell, told) = std::sync::mpsc::channel();
    let sending = thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
        a.send(&file)
    });
    let state = format!("/proc/self/task/{}/syscall", told.recv().unwrap());
    let poll = [libc::SYS_poll, libc::SYS_ppoll].map(|number| number.to_string());
    until("it waits for room", || {
        let call = std::fs::read_to_string(&state).unwrap_or_default();
        poll.iter().any(|poll| call.split(' ').next() == Some(poll))
    });
    drop(receiver);
    assert!(matches!(sending.join().unwrap(), Err(Error::Closed)));
}

#[test]
fn a_message_that_the_receiver_has_no_descriptors_for_costs_no_other() {
    alone(|()| {
        let (mut a, mut b) = pipe::<Vec<Descriptor>, ()>().unwrap();
        let some = |count| (0..count).map(|_| Descriptor(tempfile().into())).collect::<Vec<_>>();
        a.send(&some(20)).unwrap();
        for _ in 0..3 {
            a.send(&some(1)).unwrap();
        }
        let limit = getrlimit(Resource::Nofile);
        let few = open_fds() as u64 + 6;
        setrlimit(Resource::Nofile, Rlimit { current: Some(few), ..limit }).unwrap();
        assert!(matches!(b.recv(), Err(Error::FdLimit)));
        for _ in 0..3 {
            assert_eq!(b.recv().unwrap().len(), 1);
        }
    });
}

#[test]
fn a_message_of_which_too_many_descriptors_are_on_their_way_costs_no_other() {
    alone(|()| {
        // What a user may have on its way is its limit of open descriptors; root has none.
        // SAFETY: this process is the test's own.
        if rustix::process::geteuid().is_root() && unsafe { libc::setuid(65_534) } != 0 {
            println!("skipped: root that cannot be somebody else");
            return;
        }
        let (mut a, mut b) = pipe::<Vec<Descriptor>, ()>().unwrap();
        let (mut others, _unread) = pipe::<Vec<Descriptor>, ()>().unwrap();
        let file = tempfile();
        let some = |count| (0..count).map(|_| Descriptor(file.try_clone().unwrap().into())).collect::<Vec<_>>();
        let many = some(300);
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(700), ..limit }).unwrap();
        for _ in 0..3 {
            others.send(&some(160)).unwrap();
        }
        assert!(matches!(a.send(&many), Err(Error::FdLimit)), "the first 253 may go, and the others not");
        drop((others, _unread));
        a.send(&some(1)).unwrap();
        assert_eq!(b.recv().unwrap().len(), 1);
    });
}

#[test]
fn bytes_that_are_received_of_a_message_with_descriptors_close_them() {
    let _watchdog = Watchdog::new();
    let (mut a, mut b) = pipe::<Descriptor, ()>().unwrap();
    for is_into in [false, true] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        a.send(&Descriptor(writer.into())).unwrap();
        match is_into {
            true => drop(b.recv_bytes_into(&mut [0; 16]).unwrap()),
            false => drop(b.recv_bytes().unwrap()),
        }
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "nobody can write");
    }
}

#[test]
fn ends_that_have_arrived_cost_their_sender_nothing() {
    alone(|()| {
        let (mut carrier, mut other) = pipe::<Connection<u32, u32>, ()>().unwrap();
        let before = open_fds();
        for _ in 0..20 {
            let (mut a, b) = pipe::<u32, u32>().unwrap();
            carrier.send(&b).unwrap();
            drop(b);
            drop(other.recv().unwrap());
            assert!(matches!(a.recv(), Err(Error::Closed)));
        }
        assert!(open_fds() <= before + 1, "{} {before}", open_fds());
    });
}

/// A value that nobody can read.
struct Unreadable;

impl serde::Serialize for Unreadable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> serde::Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("unreadable"))
    }
}

type End = Connection<u32, u32>;

/// A way in which a message is lost with the end in it.
type Loss = fn(Connection<(Unreadable, End), ()>, Connection<(), (Unreadable, End)>);

const LOSSES: [Loss; 4] = [
    |_carrier, mut other| assert!(matches!(other.recv(), Err(Error::Decode { .. }))),
    |_carrier, mut other| drop(other.recv_bytes().unwrap()),
    |carrier, other| drop((carrier, other)),
    |carrier, other| drop((other, carrier)),
];

#[test]
fn an_end_whose_message_is_lost_is_closed() {
    let _watchdog = Watchdog::new();
    for lose in LOSSES {
        let (mut carrier, other) = pipe().unwrap();
        let (mut a, mut b) = pipe_with_capacity::<u32, u32>(64).unwrap();
        b.send(&1).unwrap();
        let message = (Unreadable, b);
        carrier.send(&message).unwrap();
        drop(message);
        assert!(matches!(a.recv(), Ok(1)));
        assert!(matches!(a.recv_timeout(Duration::from_millis(30)), Err(Error::TimedOut)), "it is on its way");
        lose(carrier, other);
        assert_eq!(crosslane::wait(&[&a], Some(LIMIT)).unwrap(), [0]);
        assert!(a.poll(LIMIT).unwrap());
        assert!(matches!(a.recv(), Err(Error::Closed)));
        let full = (0..100).find_map(|n| a.send(&n).err());
        assert!(matches!(full, Some(Error::Closed)), "{full:?}");
    }
}

#[test]
fn who_waits_for_an_end_whose_message_is_lost_is_told() {
    let _watchdog = Watchdog::new();
    for is_listening in [false, true] {
        let (mut carrier, other) = pipe::<End, ()>().unwrap();
        let (mut a, b) = pipe::<u32, u32>().unwrap();
        carrier.send(&b).unwrap();
        drop(b);
        let waiting = thread::spawn(move || {
            if is_listening {
                assert_eq!(crosslane::wait(&[&a], None).unwrap(), [0]);
            }
            a.recv()
        });
        drop((carrier, other));
        assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
    }
}

/// A value that is written twice, as one behind two `Rc`s would be.
struct Twice(Connection<u32, u32>);

impl serde::Serialize for Twice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.0, &self.0).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Twice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <(Connection<u32, u32>, Connection<u32, u32>)>::deserialize(deserializer).map(|(one, _)| Self(one))
    }
}

#[test]
fn a_message_takes_an_end_once() {
    let (mut carrier, _other) = pipe::<Twice, ()>().unwrap();
    let (mut a, b) = pipe::<u32, u32>().unwrap();
    let mut twice = Twice(b);
    assert!(matches!(carrier.send(&twice), Err(Error::AlreadySent { handle: "Connection" })));
    a.send(&1).unwrap();
    assert_eq!(twice.0.recv().unwrap(), 1, "it was not sent");
}

/// A value that sends a handle through a pipe, and puts one into a queue, while it is being written.
#[derive(serde::Deserialize)]
struct Sends;

impl serde::Serialize for Sends {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = Event::new().unwrap();
        let (mut a, mut b) = pipe::<Event, ()>().unwrap();
        a.send(&inner).unwrap();
        b.recv().unwrap().set();
        assert!(inner.is_set());
        let refused = Queue::bounded(1).unwrap().put(inner).unwrap_err();
        assert!(matches!(refused.error, Error::HandleInQueue { .. }), "{refused:?}");
        serializer.serialize_unit_struct("Sends")
    }
}

#[test]
fn a_message_inside_of_which_others_are_packed_has_its_handles_and_they_have_theirs() {
    let (mut a, mut b) = pipe::<(Event, Sends, Event), ()>().unwrap();
    // All of the same segment.
    let events = [(); 2].map(|()| Event::new().unwrap());
    let [first, last] = events.clone();
    a.send(&(first, Sends, last)).unwrap();
    let (first, Sends, last) = b.recv().unwrap();
    first.set();
    assert_eq!(events.each_ref().map(Event::is_set), [true, false]);
    last.set();
    assert!(events[1].is_set());
}

#[test]
fn a_connection_travels_and_is_inert_here() {
    alone(|()| {
        let before = open_fds();
        {
            let (mut carrier, mut other) = pipe::<Connection<u32, u32>, ()>().unwrap();
            let (mut a, mut b) = pipe::<u32, u32>().unwrap();
            a.send(&1).unwrap();
            b.send(&2).unwrap();
            carrier.send(&b).unwrap();
            assert!(matches!(b.send(&3), Err(Error::AlreadySent { handle: "Connection" })));
            assert!(matches!(b.recv(), Err(Error::AlreadySent { .. })));
            assert!(matches!(b.poll(Duration::ZERO), Err(Error::AlreadySent { .. })));
            assert!(matches!(carrier.send(&b), Err(Error::AlreadySent { .. })));
            drop(b);
            a.send(&4).unwrap();
            let mut b = other.recv().unwrap();
            b.send(&5).unwrap();
            assert_eq!((b.recv().unwrap(), b.recv().unwrap()), (1, 4), "what was sent to it meanwhile");
            assert_eq!((a.recv().unwrap(), a.recv().unwrap()), (2, 5));
            // And once more, with the handle that came.
            carrier.send(&b).unwrap();
            drop(b);
            let mut b = other.recv().unwrap();
            a.send(&6).unwrap();
            assert_eq!(b.recv().unwrap(), 6);
            drop(b);
            assert!(matches!(a.recv(), Err(Error::Closed)));
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_message_that_is_not_sent_leaves_its_connection_alone() {
    let (mut carrier, _other) = pipe_with_capacity::<(Vec<u8>, Connection<u32, u32>), ()>(128).unwrap();
    let (mut a, b) = pipe::<u32, u32>().unwrap();
    let mut message = (vec![0; 500], b);
    assert!(matches!(carrier.send(&message), Err(Error::TooLarge { .. })));
    message.1.send(&1).unwrap();
    assert_eq!(a.recv().unwrap(), 1);
}

#[test]
fn descriptors_that_nobody_asked_for_yet_travel_with_the_end() {
    let (mut carrier, mut other) = pipe::<Connection<(), Descriptor>, ()>().unwrap();
    let (mut a, b) = pipe::<Descriptor, ()>().unwrap();
    a.send(&Descriptor(tempfile().into())).unwrap();
    // Takes the descriptor out of the socket, and not the message out of the ring.
    assert_eq!(crosslane::wait(&[&b], None).unwrap(), [0]);
    carrier.send(&b).unwrap();
    drop(b);
    let mut b = other.recv().unwrap();
    File::from(b.recv().unwrap().0).write_all(b"x").unwrap();
}

fn echo(mut connection: Connection<String, u32>) {
    while let Ok(n) = connection.recv() {
        connection.send(&n.to_string()).unwrap();
    }
}

#[test]
fn an_end_is_handed_to_a_process() {
    let _watchdog = Watchdog::new();
    let (mut ours, theirs) = pipe::<u32, String>().unwrap();
    ours.send(&1).unwrap();
    let child = spawn(echo, theirs).unwrap();
    for n in 1..1000 {
        ours.send(&(n + 1)).unwrap();
        assert_eq!(ours.recv().unwrap(), n.to_string());
    }
    assert_eq!(ours.recv().unwrap(), "1000");
    drop(ours);
    child.join().unwrap();
}

#[test]
fn an_end_comes_back_as_a_result() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<u32, u32>().unwrap();
    let child = spawn(
        |mut b: Connection<u32, u32>| {
            b.send(&1).unwrap();
            b
        },
        b,
    );
    let mut b = child.unwrap().join().unwrap();
    b.send(&2).unwrap();
    a.send(&3).unwrap();
    assert_eq!((a.recv().unwrap(), a.recv().unwrap(), b.recv().unwrap()), (1, 2, 3));
}

#[test]
fn pain_21_a_pipe_costs_three_descriptors_and_its_ends_two() {
    alone(|()| {
        let before = open_fds();
        let (a, b) = pipe::<(), ()>().unwrap();
        assert_eq!(open_fds(), before + 3);
        drop(b);
        assert_eq!(open_fds(), before + 2);
        drop(a);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn an_end_that_is_dropped_with_its_unsent_message_is_closed() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<u8, u8>().unwrap();
    let refused = spawn(|_: (Connection<u8, u8>, Unwritable)| (), (b, Unwritable));
    assert!(matches!(refused, Err(Error::Encode { .. })), "{refused:?}");
    assert!(matches!(a.recv(), Err(Error::Closed)));
}

#[derive(serde::Deserialize)]
struct Unwritable;

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("unwritable"))
    }
}

/// An end of a pipe whose messages are such ends.
#[derive(serde::Serialize, serde::Deserialize)]
struct Nested(Option<Connection<Nested, Nested>>);

#[test]
fn an_end_is_not_sent_to_itself() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<Nested, Nested>().unwrap();
    let to_itself = Nested(Some(b));
    for _ in 0..3 {
        assert!(matches!(a.send(&to_itself), Err(Error::ThroughItself { handle: "Connection" })));
    }
    // It is as it was, and so is the pipe.
    let mut b = to_itself.0.unwrap();
    a.send(&Nested(None)).unwrap();
    assert!(b.recv().unwrap().0.is_none());
    let (c, mut d) = pipe::<Nested, Nested>().unwrap();
    a.send(&Nested(Some(c))).unwrap();
    b.recv().unwrap().0.unwrap().send(&Nested(None)).unwrap();
    assert!(d.recv().unwrap().0.is_none());
    // The other way it works: who has one end gets the other.
    let (mut sender, receiver) = a.split();
    b.send(&Nested(None)).unwrap();
    drop(receiver);
    sender.send(&Nested(None)).unwrap();
    assert!(b.recv().unwrap().0.is_none());
}

/// A half of one.
#[derive(serde::Serialize, serde::Deserialize)]
struct NestedHalf(Option<Receiver<NestedHalf>>);

#[test]
fn a_half_is_not_sent_to_itself() {
    let (a, b) = pipe::<NestedHalf, NestedHalf>().unwrap();
    let ((mut sender, _a), (_b, receiver)) = (a.split(), b.split());
    let to_itself = NestedHalf(Some(receiver));
    assert!(matches!(sender.send(&to_itself), Err(Error::ThroughItself { handle: "Receiver" })));
    sender.send(&NestedHalf(None)).unwrap();
    assert!(to_itself.0.unwrap().recv().unwrap().0.is_none());
}

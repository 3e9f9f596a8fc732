//! Descriptors in messages to a process that may have no more of them.

use std::fs::File;
use std::io::Write;

use crosslane::{Connection, Descriptor, Error, Queue, pipe, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open, setrlimit,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Watchdog, open_fds};

/// In a process of its own, as descriptors are counted and limited.
fn alone(f: fn(())) {
    spawn(f, ()).unwrap().join().unwrap();
}

/// So many descriptors more may this process open.
fn limit(more: usize) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some((open_fds() + more) as u64), ..limit }).unwrap();
}

fn unlimit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn files(count: usize) -> Vec<Descriptor> {
    (0..count).map(|_| Descriptor(File::options().write(true).open("/dev/null").unwrap().into())).collect()
}

type Files = Connection<u32, Vec<Descriptor>>;

#[test]
fn pain_21_descriptors_above_the_receivers_limit_cost_their_message_and_no_other() {
    let _watchdog = Watchdog::new();
    let (mut ours, theirs) = pipe::<Vec<Descriptor>, u32>().unwrap();
    let child = spawn(
        |mut files: Files| {
            limit(8);
            let before = open_fds();
            for wanted in [3, 20, 4, 300, 2, 0] {
                match files.recv() {
                    Ok(came) => assert_eq!(came.len(), wanted),
                    Err(Error::FdLimit) => assert!(wanted > 8),
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(open_fds(), before, "nothing of a message that is lost stays open");
                files.send(&u32::try_from(wanted).unwrap()).unwrap();
            }
            unlimit();
            let whole = files.recv().unwrap();
            (&File::from(whole.into_iter().next_back().unwrap().0)).write_all(b"x").unwrap();
        },
        theirs,
    );
    let child = child.unwrap();
    for count in [3, 20, 4, 300, 2, 0] {
        ours.send(&files(count)).unwrap();
        assert_eq!(ours.recv().unwrap(), u32::try_from(count).unwrap());
    }
    ours.send(&files(300)).unwrap();
    child.join().unwrap();
}

#[test]
fn messages_behind_one_that_is_lost_are_whole_also_if_they_waited() {
    alone(|()| {
        let (mut a, mut b) = pipe::<Vec<Descriptor>, ()>().unwrap();
        let counts = [2, 30, 3, 40, 1];
        counts.iter().for_each(|count| a.send(&files(*count)).unwrap());
        // All that has been sent is taken out of the socket with the first message.
        limit(10);
        let got = counts.map(|_| b.recv().map(|files| files.len()));
        let whole = matches!(got, [Ok(2), Err(Error::FdLimit), Ok(3), Err(Error::FdLimit), Ok(1)]);
        assert!(whole, "{got:?}");
    });
}

#[test]
fn arguments_and_results_with_more_than_the_receiver_may_have_are_an_error() {
    alone(|()| {
        let before = open_fds();
        limit(20);
        let child = spawn(
            |()| {
                unlimit();
                files(40)
            },
            (),
        );
        assert!(matches!(child.unwrap().join(), Err(Error::FdLimit)));
        let child = spawn(|()| files(4), ()).unwrap();
        assert_eq!(child.join().unwrap().len(), 4);
        // The other way round this process has them open itself, so it is the one that is refused.
        unlimit();
        let many = files(40);
        limit(20);
        let refused = spawn(|files: Vec<Descriptor>| files.len(), many);
        assert!(matches!(refused, Err(Error::FdLimit)), "{refused:?}");
        unlimit();
        assert_eq!(spawn(|files: Vec<Descriptor>| files.len(), files(40)).unwrap().join().unwrap(), 40);
        // The family's domain, and a pidfd of this process, are kept.
        assert!(open_fds() <= before + 3, "{} -> {}", before, open_fds());
    });
}

#[test]
fn an_end_in_a_message_that_is_lost_is_closed() {
    alone(|()| {
        let _watchdog = Watchdog::new();
        let (mut carrier, mut other) = pipe::<(Connection<u8, u8>, Vec<Descriptor>), ()>().unwrap();
        let (mut a, b) = pipe::<u8, u8>().unwrap();
        carrier.send(&(b, files(20))).unwrap();
        limit(10);
        assert!(matches!(other.recv(), Err(Error::FdLimit)));
        unlimit();
        let (mut c, d) = pipe::<u8, u8>().unwrap();
        carrier.send(&(d, Vec::new())).unwrap();
        assert!(matches!(a.recv(), Err(Error::Closed)), "its peer is told when the sender knows");
        let (mut d, _) = other.recv().unwrap();
        d.send(&1).unwrap();
        // Bytes are bytes: the end that came with them is closed.
        let (mut e, f) = pipe::<u8, u8>().unwrap();
        carrier.send(&(f, Vec::new())).unwrap();
        assert!(!other.recv_bytes().unwrap().is_empty());
        drop(carrier);
        assert!(matches!(e.recv(), Err(Error::Closed)));
        assert_eq!(c.recv().unwrap(), 1, "what has arrived is its receiver's");
    });
}

#[test]
fn a_connection_through_which_ends_go_keeps_nothing_of_them() {
    alone(|()| {
        let (mut carrier, mut other) = pipe::<Connection<u8, u8>, ()>().unwrap();
        let mut pass = || {
            let (mut a, b) = pipe::<u8, u8>().unwrap();
            carrier.send(&b).unwrap();
            drop(b);
            other.recv().unwrap().send(&1).unwrap();
            assert_eq!(a.recv().unwrap(), 1);
        };
        pass();
        let before = open_fds();
        (0..20).for_each(|_| pass());
        assert_eq!(open_fds(), before);
    });
}

/// Leaves this process's sockets as little room as the kernel allows: for about 1,500 descriptors.
fn narrow_sockets() {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read_link(&path).is_ok_and(|file| file.to_string_lossy().starts_with("socket:")) {
            let fd = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let socket = pidfd_getfd(&this, fd, PidfdGetfdFlags::empty()).unwrap();
            sockopt::set_socket_send_buffer_size(socket, 1).unwrap();
        }
    }
}

#[test]
fn a_message_with_more_descriptors_than_a_socket_has_room_for_waits_for_no_reader() {
    alone(|()| {
        let _watchdog = Watchdog::new();
        unlimit();
        let (mut a, mut b) = pipe::<Vec<Descriptor>, ()>().unwrap();
        narrow_sockets();
        let before = open_fds();
        a.try_send(&files(1700)).unwrap();
        assert_eq!(b.recv().unwrap().len(), 1700);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_result_with_more_descriptors_than_a_socket_has_room_for_waits_for_no_reader() {
    alone(|()| {
        unlimit();
        let child = spawn(
            |()| {
                narrow_sockets();
                files(1700)
            },
            (),
        )
        .unwrap();
        let ends = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&Timespec { tv_sec: 20, tv_nsec: 0 }));
        assert_eq!(ends, Ok(1), "it ends though nobody takes its result");
        assert_eq!(child.join().unwrap().len(), 1700);
        assert_eq!(spawn(|files: Vec<Descriptor>| files.len(), files(1700)).unwrap().join().unwrap(), 1700);
    });
}

/// A file that is left out where it cannot travel.
#[derive(Debug)]
struct Perhaps(Option<Descriptor>);

impl Serialize for Perhaps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_ref().and_then(|file| postcard::to_stdvec(file).ok());
        bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Perhaps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Option::<Vec<u8>>::deserialize(deserializer)?;
        Ok(Self(bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok())))
    }
}

#[test]
fn a_connection_takes_a_handle_that_its_type_leaves_out_elsewhere() {
    let (mut a, mut b) = pipe::<Perhaps, ()>().unwrap();
    a.send(&Perhaps(files(1).pop())).unwrap();
    assert!(b.recv().unwrap().0.is_some());
    a.send(&Perhaps(None)).unwrap();
    assert!(b.recv().unwrap().0.is_none());
    let queue = Queue::bounded(1).unwrap();
    queue.put(Perhaps(files(1).pop())).unwrap();
    assert!(queue.get().unwrap().0.is_none());
}

//! Pools at their limits: of descriptors, of lengths, of what is on its way. Whoever meets one is told, and nobody else.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crosslane::{Error, Event, Pool, spawn};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open, setrlimit,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// How long a process of these tests may take.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `function` in a process of its own, whose limits it may change.
fn alone(function: fn(())) {
    assert_eq!(spawn(function, ()).unwrap().join_timeout(WATCHDOG).unwrap(), Some(()));
}

/// This process's sockets, each by another descriptor.
fn sockets() -> Vec<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let names = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let sockets = names
        .filter(|path| std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:")));
    let numbers: Vec<i32> = sockets.map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
    numbers.into_iter().map(|fd| pidfd_getfd(&this, fd, PidfdGetfdFlags::empty()).unwrap()).collect()
}

fn limit_descriptors(count: Option<u64>) {
    setrlimit(Resource::Nofile, Rlimit { current: count, ..getrlimit(Resource::Nofile) }).unwrap();
}

#[test]
fn a_worker_that_takes_no_descriptors_holds_nobody_up() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        // As little as the kernel allows: room for a few messages.
        sockets().iter().for_each(|socket| sockopt::set_socket_send_buffer_size(socket, 1).unwrap());
        let go_on = Event::new().unwrap();
        let first = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
        while !first.is_running() {
            std::thread::yield_now();
        }
        let set = |(event, n): (Event, u32)| {
            event.set();
            n
        };
        let others: Vec<_> = (0..60).map(|n| pool.submit(set, (Event::new().unwrap(), n)).unwrap()).collect();
        go_on.set();
        first.result().unwrap();
        for (n, task) in (0..).zip(others) {
            assert_eq!(task.result().unwrap(), n);
        }
    });
}

#[test]
fn descriptors_that_cannot_be_sent_fail_their_call_alone() {
    alone(|()| {
        // Who has these may have any number in flight. Threads and what they start get what is left.
        let mut sets = capabilities(None).unwrap();
        sets.effective &= !(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_RESOURCE);
        set_capabilities(None, sets).unwrap();
        let pool = Pool::new(1).unwrap();
        pool.broadcast(|(): ()| (), &()).unwrap();
        let (out, _held) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let (fds, limit) = ([out.as_fd()], getrlimit(Resource::Nofile).current);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&out, &[IoSlice::new(&[0])], &mut control, SendFlags::empty()).unwrap();
        let event = Event::new().unwrap();
        let set = |event: &Event, n: u32| {
            event.set();
            n
        };
        // The context is packed, and not yet sent.
        let items = (0..4).inspect(|_| limit_descriptors(Some(0)));
        let refused = pool.with(event.clone()).map(set, items);
        limit_descriptors(limit);
        assert!(matches!(refused, Err(Error::FdLimit)), "{refused:?}");
        assert!(!event.is_set());
        assert_eq!(pool.with(event.clone()).map(set, 0..4).unwrap(), [0, 1, 2, 3]);
        assert!(event.is_set());
    });
}

#[test]
fn a_result_that_is_too_long_fails_its_call_alone() {
    let pool = Pool::builder().workers(1).max_result_bytes(1000).build().unwrap();
    let lengths = [10, 2000, 20, 998];
    let results = pool.job().chunk_size(4).map_all(|len: usize| vec![7_u32; len / 4], lengths).unwrap();
    for (len, result) in lengths.into_iter().zip(results) {
        match result {
            Ok(found) => assert_eq!(found.len(), len / 4),
            Err(Error::TooLarge { len_bytes, limit_bytes: 1000 }) => assert!(len == 2000 && len_bytes > 1000),
            Err(error) => panic!("{len}: {error}"),
        }
    }
    assert!(matches!(pool.apply(|len: usize| vec![0_u8; len], 2000), Err(Error::TooLarge { .. })));
}

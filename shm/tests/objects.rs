//! Rings and locks in segments, between processes that are forked, executed anew, and killed.

mod family;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crosslane_core::prim::AtomicU32;
use crosslane_core::spsc::{PopError, PushError};
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode, record};
use crosslane_shm::{
    Content, CopyError, CreateError, Domain, Expected, Kind, Mutex, OpenError, Options, Record, Segment, Spsc,
};
use crosslane_sync::LockError;
use family::{Dir, await_death, fork, name};

/// A wait that ends only when its slice does would take at least so long.
const LONG_SLICE: Duration = Duration::from_secs(1);

#[test]
fn an_objects_memory_cannot_be_copied_past_its_handles() {
    let options = Options::new();
    let mutex = Mutex::<u64>::anonymous(1, &options).unwrap();
    let spsc = Spsc::<u64>::anonymous(2, &options).unwrap();
    let record = Record::anonymous(4096, &options).unwrap();
    // The same memory again, as a segment of its own: the header says the same.
    let expected = Expected {
        kind: Kind::MUTEX,
        elem_size: Some(8),
        elem_align: 8,
        fingerprint: mutex.segment().header().content.fingerprint,
        ..Expected::bytes()
    };
    let again = Segment::from_fd(mutex.as_fd().try_clone_to_owned().unwrap(), &expected, &options).unwrap();
    let lent = mutex.lock().unwrap();
    for (segment, kind) in [
        (mutex.segment(), Kind::MUTEX),
        (&again, Kind::MUTEX),
        (spsc.segment(), Kind::SPSC),
        (record.segment(), Kind::RECORD),
    ] {
        assert_eq!(segment.copy_in(8, &[7; 8]), Err(CopyError::Object(kind)));
        assert_eq!(segment.copy_out(8, &mut [0; 8]), Err(CopyError::Object(kind)));
    }
    assert_eq!(*lent, 1);
}

#[test]
fn a_segment_of_a_users_own_kind_can_be_copied() {
    let content = Content { kind: Kind::custom(0x1_0000), ..Content::bytes(64) };
    let domain = Domain::family().unwrap();
    let segment = Segment::anonymous_with(content, &Options::new(), &domain, |_, _| Ok(())).unwrap();
    segment.copy_in(8, &[7; 8]).unwrap();
    let mut seen = [0; 8];
    segment.copy_out(8, &mut seen).unwrap();
    assert_eq!(seen, [7; 8]);
}

#[test]
fn items_cross_in_order_in_every_wake_mode() {
    let dir = Dir::new();
    for mode in [WakeMode::Fenced, WakeMode::Asymmetric, WakeMode::Polling] {
        let ring = Spsc::<u64>::create(&name("ring"), 8, &dir.options().wake_mode(mode)).unwrap();
        let child = fork(|_| {
            let mut consumer = Spsc::<u64>::open(&name("ring"), &dir.options()).unwrap().consumer().unwrap();
            for n in 0..5000 {
                assert_eq!(consumer.pop(), Ok(n));
            }
            assert_eq!(consumer.pop(), Err(PopError::Closed));
        });
        let mut producer = ring.producer().unwrap();
        (0..5000).for_each(|n| producer.push(n).unwrap());
        drop(producer);
        child.join();
    }
}

#[test]
fn a_killed_producers_successor_goes_on_where_it_stopped() {
    let dir = Dir::new();
    let ring = Spsc::<u64>::create(&name("ring"), 16, &dir.options()).unwrap();
    let mut consumer = ring.consumer().unwrap();
    let mut next = 0;
    for round in 0..20 {
        let mut child = fork(|parent| {
            let ring = Spsc::<u64>::open(&name("ring"), &dir.options()).unwrap();
            let mut producer = ring.producer().unwrap();
            parent.tell(ring.segment().domain().unwrap().me().unwrap().to_word());
            for n in producer.position().. {
                producer.push(n).unwrap();
            }
        });
        let dead = child.id();
        for _ in 0..round * 50 {
            assert_eq!(consumer.pop(), Ok(next));
            next += 1;
        }
        child.kill();
        loop {
            match consumer.pop() {
                Ok(n) => assert_eq!(n, next),
                Err(error) => {
                    assert_eq!(error, PopError::PeerDied(dead));
                    break;
                }
            }
            next += 1;
        }
    }
    assert!(next > 1000);
}

#[test]
fn a_killed_consumers_items_are_delivered_again_and_a_full_ring_reports_it() {
    let dir = Dir::new();
    let ring = Spsc::<u64>::create(&name("ring"), 4, &dir.options()).unwrap();
    let mut producer = ring.producer().unwrap();
    let mut child = fork(|parent| {
        let mut consumer = Spsc::<u64>::open(&name("ring"), &dir.options()).unwrap().consumer().unwrap();
        assert_eq!(consumer.pop(), Ok(0));
        parent.tell(0);
        parent.forever();
    });
    producer.push(0).unwrap();
    child.hear();
    (1..5).for_each(|n| producer.push(n).unwrap());
    child.kill();
    assert!(matches!(producer.push(5), Err(PushError::PeerDied(_))));
    let mut consumer = ring.consumer().unwrap();
    (1..5).for_each(|n| assert_eq!(consumer.pop(), Ok(n)));
}

/// How long somebody slept on a word that nobody wakes, while another process was killed, and was seen to be dead.
fn slept_beside_a_death() -> Duration {
    let dir = Dir::new();
    let mutex = Mutex::create(&name("m"), 0_u64, &dir.options()).unwrap();
    let domain = mutex.segment().domain().unwrap();
    let mut victim = fork(|parent| {
        let mutex = Mutex::<u64>::open(&name("m"), &dir.options()).unwrap();
        parent.tell(mutex.segment().domain().unwrap().me().unwrap().to_word());
        parent.forever();
    });
    let dead = victim.id();
    let mut sleeper = fork(|parent| {
        let mutex = Mutex::<u64>::open(&name("m"), &dir.options()).unwrap();
        let env = mutex.segment().env().unwrap();
        parent.tell(0);
        let start = Instant::now();
        let never = AtomicU32::new(0);
        assert_eq!(env.park(&never, 0, Slice::Long, env.never()), Parked::Again);
        parent.tell(u32::try_from(start.elapsed().as_millis()).unwrap());
        assert!(env.is_dead(dead));
    });
    sleeper.hear();
    victim.kill();
    await_death(domain, dead);
    let slept = Duration::from_millis(sleeper.hear().into());
    sleeper.join();
    slept
}

#[test]
fn a_proof_of_death_ends_the_longest_sleep_of_others() {
    let sleeps = [(); 8].map(|()| slept_beside_a_death());
    // Without it all of them would be long; where a machine stands still for some seconds, one or two are.
    let long = sleeps.iter().filter(|slept| **slept >= LONG_SLICE).count();
    assert!(long <= 3, "{sleeps:?}");
}

#[test]
fn records_cross_and_a_killed_writers_successor_goes_on() {
    let dir = Dir::new();
    let ring = Record::create(&name("records"), 4096, &dir.options()).unwrap();
    let mut reader = ring.reader().unwrap();
    let mut buffer = [0; 1024];
    let mut next: u32 = 0;
    for _ in 0..5 {
        let first = next;
        let mut child = fork(|parent| {
            let mut writer = Record::open(&name("records"), &dir.options()).unwrap().writer().unwrap();
            parent.tell(0);
            for n in first.. {
                let text = vec![n.to_le_bytes()[0]; n as usize % 700];
                writer.push(&[&n.to_le_bytes(), &text[..]].concat()).unwrap();
            }
        });
        child.hear();
        while next < first + 300 {
            let len = reader.pop_into(&mut buffer).unwrap();
            assert_eq!(buffer[..4], next.to_le_bytes());
            assert_eq!(len, 4 + next as usize % 700);
            assert!(buffer[4..len].iter().all(|byte| *byte == next.to_le_bytes()[0]));
            next += 1;
        }
        child.kill();
        loop {
            match reader.pop_into(&mut buffer) {
                Ok(_) => next += 1,
                Err(error) => {
                    assert!(matches!(error, record::PopError::PeerDied(_)), "{error}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_killed_lock_holder_is_reported_and_the_value_repaired() {
    let dir = Dir::new();
    let mutex = Mutex::create(&name("m"), [1_u64, 1], &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let mutex = Mutex::<[u64; 2]>::open(&name("m"), &dir.options()).unwrap();
        // SAFETY: this test's processes keep to the protocol.
        let mutex = unsafe { mutex.trust_peers() }.unwrap();
        let mut guard = mutex.lock().unwrap();
        guard[0] = 2;
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    assert!(matches!(mutex.try_update(|_| ()), Err(LockError::WouldBlock(Some(_)))));
    child.kill();
    match mutex.update(|_| ()) {
        Err(LockError::OwnerDied(mut repair)) => {
            assert_eq!(*repair, [2, 1]);
            *repair = [2, 2];
            repair.commit();
        }
        other => panic!("{}", other.is_ok()),
    }
    assert_eq!(mutex.read().unwrap(), [2, 2]);
}

#[test]
fn a_lock_in_an_anonymous_segment_counts_exactly_between_fork_children() {
    const ROUNDS: u64 = 5000;
    let mutex = Mutex::anonymous(0_u64, &Options::new()).unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            fork(|_| {
                assert!(matches!(mutex.update(|_| ()), Err(LockError::Forked)));
                let mutex = mutex.rejoin().unwrap();
                for _ in 0..ROUNDS {
                    *mutex.lock().unwrap() += 1;
                }
            })
        })
        .collect();
    children.into_iter().for_each(family::Child::join);
    assert_eq!(mutex.read().unwrap(), 4 * ROUNDS);
}

#[test]
fn what_does_not_make_an_object_is_refused() {
    let options = Options::new();
    assert!(matches!(Spsc::<u64>::anonymous(3, &options).unwrap_err(), CreateError::Spsc(_)));
    assert!(matches!(Record::anonymous(100, &options).unwrap_err(), CreateError::Record(_)));
    let ring = Spsc::<u64>::anonymous(4, &options).unwrap();
    let fd = ring.as_fd().try_clone_to_owned().unwrap();
    assert!(matches!(Mutex::<u64>::from_fd(fd, &options).unwrap_err(), OpenError::Header(_)));
}

/// A copy of an fd that another program inherits.
fn inheritable(fd: &impl AsFd) -> OwnedFd {
    // SAFETY: takes no memory.
    let copy = unsafe { libc::dup(fd.as_fd().as_raw_fd()) };
    assert!(copy >= 0);
    // SAFETY: just made, and ours.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// This test binary, as another program that runs only the test `entry`.
fn program(entry: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", entry, "--ignored", "--nocapture"]).stdout(Stdio::null());
    command
}

#[test]
fn another_program_of_the_family_opens_by_file_descriptor() {
    let ring = Spsc::<u64>::anonymous(8, &Options::new()).unwrap();
    let family = Domain::family().unwrap();
    let (domain_fd, ring_fd) = (inheritable(&family), inheritable(&ring));
    let fds = format!("{} {}", domain_fd.as_raw_fd(), ring_fd.as_raw_fd());
    let mut consumer = ring.consumer().unwrap();
    let mut child = program("entry_by_fd").env("CROSSLANE_TEST_FDS", fds).spawn().unwrap();
    assert_eq!(consumer.pop_timeout(Duration::from_secs(60)), Ok(41));
    assert_eq!(consumer.pop_timeout(Duration::from_secs(60)), Ok(42));
    let ended = consumer.pop_timeout(Duration::from_secs(60));
    assert_eq!(ended, Err(PopError::Closed));
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the other program of another_program_of_the_family_opens_by_file_descriptor"]
fn entry_by_fd() {
    let Ok(fds) = std::env::var("CROSSLANE_TEST_FDS") else { return };
    let mut fds = fds.split(' ').map(|fd| fd.parse().unwrap());
    let mut next = || {
        // SAFETY: inherited for us, and used once.
        unsafe { OwnedFd::from_raw_fd(fds.next().unwrap()) }
    };
    let family = Domain::join_family(next()).unwrap();
    let ring = Spsc::<u64>::from_fd(next(), &Options::new()).unwrap();
    assert_eq!(ring.segment().domain().unwrap().id(), family.id());
    assert_ne!(family.me(), OwnerId::new(0, 1));
    let mut producer = ring.producer().unwrap();
    producer.push(41).unwrap();
    let mut loan = producer.loan().unwrap();
    *loan = 42;
    loan.commit().unwrap();
}

#[test]
fn another_program_opens_by_name() {
    let dir = Dir::new();
    let mutex = Mutex::create(&name("m"), 1_u64, &dir.options()).unwrap();
    let status = program("entry_by_name").env("CROSSLANE_TEST_DIR", dir.path()).status().unwrap();
    assert!(status.success());
    assert_eq!(mutex.read().unwrap(), 2);
}

#[test]
#[ignore = "the other program of another_program_opens_by_name"]
fn entry_by_name() {
    let Ok(directory) = std::env::var("CROSSLANE_TEST_DIR") else { return };
    let mutex = Mutex::<u64>::open(&name("m"), &Options::new().directory(directory)).unwrap();
    mutex.update(|n| *n += 1).unwrap();
}

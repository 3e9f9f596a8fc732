//! Queues in segments, between processes that are forked, executed anew and killed.

mod family;

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crosslane_core::mpmc::{PopError, PushError, Recovered, RingError};
use crosslane_core::{OwnerId, WakeMode};
use crosslane_shm::header::{Element, HeaderError};
use crosslane_shm::queue::{Delivery, Reservation};
use crosslane_shm::{CreateError, Domain, Kind, Messages, OpenError, Options, Queue};
use family::{Dir, await_death, fork, name};

const LONG: Duration = Duration::from_secs(60);

/// This process's id in the queue's domain.
fn me(queue: &Queue<u64>) -> OwnerId {
    queue.segment().domain().unwrap().me().unwrap()
}

#[test]
fn each_item_goes_to_one_of_several_processes_in_every_wake_mode() {
    const EACH: u64 = 2000;
    let dir = Dir::new();
    for mode in [WakeMode::Fenced, WakeMode::Asymmetric, WakeMode::Polling] {
        let queue = Queue::<u64>::create(&name("q"), 16, &dir.options().wake_mode(mode)).unwrap();
        let sums = Queue::<u64>::create(&name("sums"), 4, &dir.options()).unwrap();
        let work = |_: &mut family::Parent| {
            let queue = Queue::<u64>::open(&name("q"), &dir.options()).unwrap();
            let sum = std::iter::from_fn(|| match queue.pop() {
                Ok(item) => Some(item),
                Err(error) => {
                    assert_eq!(error, PopError::Closed);
                    None
                }
            })
            .sum();
            Queue::<u64>::open(&name("sums"), &dir.options()).unwrap().push(sum).unwrap();
        };
        let workers = [fork(work), fork(work)];
        let producers = [0, 1].map(|first| {
            fork(|_| {
                let queue = Queue::<u64>::open(&name("q"), &dir.options()).unwrap();
                (0..EACH).for_each(|n| queue.push(first + 2 * n).unwrap());
            })
        });
        producers.into_iter().for_each(family::Child::join);
        queue.close();
        workers.into_iter().for_each(family::Child::join);
        let sum: u64 = (0..2).map(|_| sums.pop().unwrap()).sum();
        assert_eq!(sum, (0..2 * EACH).sum(), "{mode:?}");
        assert_eq!((queue.len(), queue.try_push(1)), (0, Err(PushError::Closed)));
    }
}

#[test]
fn a_killed_consumers_item_comes_again_until_it_is_a_dead_letter() {
    let dir = Dir::new();
    let queue = Queue::<u64>::create(&name("q"), 4, &dir.options().max_deliveries(2)).unwrap();
    queue.push(7).unwrap();
    for attempt in 0..2 {
        let mut child = fork(|parent| {
            let queue = Queue::<u64>::open(&name("q"), &dir.options()).unwrap();
            let delivery = queue.take().unwrap();
            assert_eq!((*delivery, delivery.attempts()), (7, attempt));
            parent.tell(me(&queue).to_word());
            parent.forever();
        });
        let dead = child.id();
        assert_eq!((queue.recover(dead), queue.len()), (Recovered::default(), 0), "it lives");
        child.kill();
        await_death(queue.segment().domain().unwrap(), dead);
        queue.recover(dead);
        assert_eq!((queue.len(), queue.dead_letters()), if attempt == 0 { (1, 0) } else { (0, 1) });
    }
    assert_eq!(queue.letters().unwrap().map(|letter| (*letter, letter.attempts())).collect::<Vec<_>>(), [(7, 2)]);
    assert_eq!((queue.take_dead_letter(), queue.dead_letters()), (Ok(Some(7)), 0));
}

#[test]
fn who_waits_behind_a_killed_producer_or_consumer_goes_on() {
    let dir = Dir::new();
    let queue = Queue::<u64>::create(&name("q"), 2, &dir.options()).unwrap();
    queue.push(1).unwrap();
    let mut child = fork(|parent| {
        let queue = Queue::<u64>::open(&name("q"), &dir.options()).unwrap();
        // SAFETY: this test's processes keep to the protocol.
        let queue = unsafe { queue.trust_peers() }.unwrap();
        let _taken = queue.take().unwrap();
        let _reserved = queue.reserve().unwrap();
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    assert_eq!(queue.push_timeout(2, Duration::from_millis(30)), Err(PushError::TimedOut), "it lives");
    assert!(matches!(queue.pop_timeout(Duration::from_millis(30)), Err(PopError::TimedOut)));
    child.kill();
    // The item that comes again has kept its slot, which is the next one to push to.
    assert_eq!(queue.pop_timeout(LONG), Ok(1));
    queue.push_timeout(2, LONG).unwrap();
    assert_eq!(queue.pop_timeout(LONG), Ok(2));
}

/// Both were asleep when the item came, so neither waits for the other; and nobody else learns of the death.
#[test]
fn an_idle_consumer_gets_what_another_took_and_died_with() {
    const ROUNDS: u32 = 8;
    let dir = Dir::new();
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let (jobs, news) = (name(&format!("jobs{round}")), name(&format!("news{round}")));
        let queue = Queue::<u64>::create(&jobs, 4, &dir.options()).unwrap();
        let told = Queue::<u64>::create(&news, 4, &dir.options()).unwrap();
        let worker = |who: u64| {
            let work = |parent: &mut family::Parent| {
                let queue = Queue::<u64>::open(&jobs, &dir.options()).unwrap();
                let told = Queue::<u64>::open(&news, &dir.options()).unwrap();
                let delivery = queue.take().unwrap();
                told.push(who).unwrap();
                if delivery.attempts() == 0 {
                    parent.forever();
                }
                delivery.ack();
            };
            let child = fork(work);
            child.await_asleep();
            child
        };
        let mut workers = vec![worker(0), worker(1)];
        queue.push(7).unwrap();
        let first = told.pop().unwrap();
        let killed = Instant::now();
        workers.remove(usize::try_from(first).unwrap()).kill();
        assert_eq!(told.pop(), Ok(1 - first));
        waits.push(killed.elapsed());
        workers.remove(0).join();
    }
    // Where only a long slice's end helps, each waits for most of one; where a machine stands still for some seconds, one or two do.
    let long = waits.iter().filter(|waited| **waited > Duration::from_millis(300)).count();
    assert!(long <= 3, "{waits:?}");
}

#[test]
fn a_family_fills_slots_in_place_and_its_fork_children_join_anew() {
    let queue = Queue::<[u64; 2]>::anonymous(4, &Options::new()).unwrap();
    let mut child = fork(|parent| {
        assert_eq!(queue.push([0; 2]), Err(PushError::Forked));
        let queue = queue.rejoin().unwrap();
        let mut slot = queue.reserve().unwrap();
        slot[1] = 5;
        parent.tell(0);
        parent.hear();
        slot.commit();
    });
    child.hear();
    let holder = match queue.try_pop() {
        Err(PopError::Busy(holder)) => holder,
        other => panic!("{other:?}"),
    };
    assert_ne!(Some(holder), Domain::family().unwrap().me());
    child.tell(0);
    assert_eq!(queue.pop().unwrap()[1], 5);
    child.join();
    let fd = queue.as_fd().try_clone_to_owned().unwrap();
    let same = Queue::<[u64; 2]>::from_fd(fd, &Options::new()).unwrap();
    same.push([8, 9]).unwrap();
    assert_eq!(queue.pop(), Ok([8, 9]));
}

#[test]
fn a_fork_child_ends_no_claim_of_its_parent() {
    let queue = Queue::<u64>::anonymous(2, &Options::new()).unwrap();
    queue.push(1).unwrap();
    let mut taken = Some(queue.take().unwrap());
    let mut reserved = Some(queue.reserve().unwrap());
    fork(|_| {
        assert_eq!(taken.take().map(Delivery::ack), Some(1));
        reserved.take().into_iter().for_each(Reservation::commit);
    })
    .join();
    assert!(matches!(queue.try_pop(), Err(PopError::Busy(_))));
    let mut slot = reserved.take().unwrap();
    *slot = 5;
    slot.commit();
    drop(taken);
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(1), Ok(5)));
}

#[test]
fn messages_outlive_their_sender_and_their_consumer() {
    let dir = Dir::new();
    let queue = Messages::create(&name("m"), 4, 100, &dir.options()).unwrap();
    fork(|_| {
        let queue = Messages::open(&name("m"), &dir.options()).unwrap();
        assert_eq!(queue.max_len_bytes(), 100);
        queue.push(b"hello").unwrap();
        assert_eq!(queue.push(&[0; 101]), Err(PushError::TooLong { len: 101, max: 100 }));
    })
    .join();
    let mut child = fork(|parent| {
        let queue = Messages::open(&name("m"), &dir.options()).unwrap();
        let _delivery = queue.take().unwrap();
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    child.kill();
    let delivery = queue.take_timeout(LONG).unwrap();
    let mut text = [0; 5];
    delivery.copy_to(&mut text);
    assert_eq!((&text, delivery.attempts()), (b"hello", 1));
    delivery.ack();
    assert_eq!(queue.try_pop_into(&mut []), Err(PopError::Empty));

    let own = Messages::anonymous(2, 10, &Options::new()).unwrap();
    let mut room = own.reserve(3).unwrap();
    room.as_mut_slice().copy_from_slice(b"abc");
    room.commit();
    assert_eq!(own.take().unwrap().as_slice(), b"abc");
}

#[test]
fn what_does_not_make_a_queue_is_refused_at_creation() {
    let options = Options::new();
    let error = |made: Result<Queue<u64, _>, CreateError>| made.unwrap_err();
    assert_eq!(error(Queue::anonymous(3, &options)), CreateError::Queue(RingError::Capacity { slots: 3 }));
    for attempts in [0, 8] {
        assert_eq!(
            error(Queue::anonymous(2, &options.clone().max_deliveries(attempts))),
            CreateError::Queue(RingError::Attempts { attempts })
        );
    }
    assert!(matches!(
        Messages::anonymous(2, u32::MAX, &options).unwrap_err(),
        CreateError::Queue(RingError::Payload { .. })
    ));
    let queue = Queue::<u64>::anonymous(2, &options).unwrap();
    let fd = queue.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(
        Messages::from_fd(fd, &options).unwrap_err(),
        OpenError::Header(HeaderError::WrongKind { found: Kind::QUEUE, expected: Kind::MESSAGES })
    );
}

/// Each hostile number at its place in the header makes an opener refuse, with what it found.
#[test]
fn a_hostile_header_is_a_typed_error() {
    let dir = Dir::new();
    let queue = Queue::<u64>::create(&name("q"), 4, &dir.options()).unwrap();
    let messages = Messages::create(&name("m"), 4, 100, &dir.options()).unwrap();
    let open = |which: &str| -> OpenError {
        if which == "q" {
            Queue::<u64>::open(&name("q"), &dir.options()).unwrap_err()
        } else {
            Messages::open(&name("m"), &dir.options()).unwrap_err()
        }
    };
    let (elem_size, elem_align, capacity) = (56, 60, 64);
    let written = |which: &str, offset: u64, bytes: &[u8]| -> OpenError {
        let file = OpenOptions::new().read(true).write(true).open(dir.file(&name(which))).unwrap();
        let mut before = [0; 8];
        file.read_exact_at(&mut before[..bytes.len()], offset).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        let error = open(which);
        file.write_all_at(&before[..bytes.len()], offset).unwrap();
        error
    };
    for slots in [0, 3, 8, 1 << 27, u64::MAX] {
        for which in ["q", "m"] {
            let error = written(which, capacity, &slots.to_le_bytes());
            assert!(matches!(error, OpenError::Queue(_)), "{which} with {slots} slots: {error}");
        }
    }
    for len in [200, 1 << 26, u32::MAX] {
        let error = written("m", elem_size, &u32::to_le_bytes(len));
        assert!(matches!(error, OpenError::Queue(_)), "messages of {len} bytes: {error}");
    }
    let found = Element { size: 8, align: 64 };
    assert_eq!(
        written("q", elem_align, &64_u32.to_le_bytes()),
        OpenError::Header(HeaderError::WrongElement {
            found,
            expected: Element { size: 8, align: 8 },
            type_name: "u64"
        })
    );
    assert!(matches!(written("m", elem_align, &64_u32.to_le_bytes()), OpenError::Header(_)));
    let error = Queue::<u64>::open(&name("q"), &dir.options().read_only(true)).unwrap_err();
    assert_eq!(error, OpenError::ReadOnly);
    drop((queue, messages));
}

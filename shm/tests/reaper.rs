//! What a dead participant held is repaired by whoever learns of the death, also where nobody waits for it.

mod family;

use std::time::{Duration, Instant};

use crosslane_core::mpmc::PopError;
use crosslane_core::spsc;
use crosslane_shm::{Domain, DomainError, Messages, Mutex, Options, Probe, Queue, Segment, Slab, Spsc};
use crosslane_sync::LockError;
use family::{Child, Dir, Parent, fork, name};

/// The longest sleep of one who waits for nobody in particular: it ends sooner only if somebody wakes it.
const LONG_SLICE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(60);

/// A queue with one item, and a child that has taken it.
fn holder(queue: &Queue<u64, crosslane_core::Trusted>) -> Child {
    queue.push(7).unwrap();
    let mut child = fork(|parent| {
        let queue = queue.rejoin().unwrap();
        let _delivery = queue.take().unwrap();
        parent.tell(Domain::family().unwrap().me().unwrap().to_word());
        parent.forever();
    });
    child.hear();
    child
}

#[test]
fn a_parent_that_sees_its_child_die_repairs_everything_at_once() {
    let options = Options::new();
    let queue = Queue::<u64>::anonymous(4, &options).unwrap();
    let messages = Messages::anonymous(4, 16, &options).unwrap();
    let mutex = Mutex::anonymous(1_u64, &options).unwrap();
    let ring = Spsc::<u64>::anonymous(4, &options).unwrap();
    queue.push(7).unwrap();
    messages.push(b"text").unwrap();
    let mut victim = fork(|parent| {
        let (queue, messages) = (queue.rejoin().unwrap(), messages.rejoin().unwrap());
        let (mutex, ring) = (mutex.rejoin().unwrap(), ring.rejoin().unwrap());
        let _taken = (queue.take().unwrap(), messages.take().unwrap());
        let _reserved = queue.reserve().unwrap();
        let _guard = mutex.lock().unwrap();
        let _end = ring.producer().unwrap();
        parent.tell(queue.segment().domain().unwrap().me().unwrap().to_word());
        parent.forever();
    });
    let dead = victim.id();
    let mut sleepers = [0, 1].map(|which| {
        fork(|parent| {
            let (mutex, ring) = (mutex.rejoin().unwrap(), ring.rejoin().unwrap());
            let mut consumer = (which == 0).then(|| ring.consumer().unwrap());
            parent.tell(0);
            match &mut consumer {
                Some(consumer) => assert_eq!(consumer.pop(), Err(spsc::PopError::PeerDied(dead))),
                None => assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_)))),
            }
        })
    });
    sleepers.iter_mut().for_each(|sleeper| assert_eq!(sleeper.hear(), 0));
    let family = Domain::family().unwrap();
    assert!(!family.reap().unwrap().contains(&dead));
    assert_eq!(queue.len(), 0, "it lives");
    assert!(matches!(queue.try_pop(), Err(PopError::Busy(owner)) if owner == dead));
    victim.kill();
    // Its address space is gone; a sleeper may have proven it already.
    family.reap().unwrap();
    assert_eq!((queue.len(), messages.len()), (1, 1));
    let again = queue.try_take().unwrap();
    assert_eq!((again.attempts(), again.ack()), (1, 7));
    assert_eq!((queue.try_pop(), queue.try_push(8), queue.try_pop()), (Err(PopError::Empty), Ok(()), Ok(8)));
    assert_eq!(messages.try_take().unwrap().as_slice(), b"text");
    sleepers.into_iter().for_each(Child::join);
}

#[test]
fn objects_of_a_slab_are_repaired_too() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let _lock_in_front = Mutex::in_slab(&slab, 1_u64).unwrap();
    let queue = Queue::<u64, _>::in_slab(&slab, 4, &Options::new()).unwrap();
    let victim = holder(&queue);
    victim.kill();
    Domain::family().unwrap().reap().unwrap();
    assert_eq!(queue.try_pop(), Ok(7));
}

#[test]
fn who_proves_a_death_in_waiting_for_a_lock_repairs_what_nobody_waits_for() {
    let options = Options::new();
    let queue = Queue::<u64>::anonymous(4, &options).unwrap();
    let mutex = Mutex::anonymous(1_u64, &options).unwrap();
    queue.push(7).unwrap();
    let mut victim = fork(|parent| {
        let (queue, mutex) = (queue.rejoin().unwrap(), mutex.rejoin().unwrap());
        let _taken = queue.take().unwrap();
        let _guard = mutex.lock().unwrap();
        parent.tell(0);
        parent.forever();
    });
    victim.hear();
    victim.kill();
    assert!(matches!(queue.try_pop(), Err(PopError::Empty | PopError::Busy(_))));
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
    assert_eq!(queue.try_pop(), Ok(7));
}

#[test]
fn who_is_woken_by_a_death_repairs_what_it_alone_has_mapped() {
    let options = Options::new();
    let shared = Queue::<u64>::anonymous(4, &options).unwrap();
    let unknown_to_the_parent = Queue::<u64>::anonymous(4, &options).unwrap();
    let victim = holder(&unknown_to_the_parent);
    let mut sleeper = fork(|parent| {
        let (shared, own) = (shared.rejoin().unwrap(), unknown_to_the_parent.rejoin().unwrap());
        parent.tell(0);
        let start = Instant::now();
        while own.is_empty() {
            // Nobody holds a slot of this queue, so nothing here ends the sleep but the death.
            assert_eq!(shared.pop_timeout(LONG_SLICE / 2), Err(PopError::TimedOut));
            assert!(start.elapsed() < TIMEOUT);
        }
        assert_eq!(own.try_pop(), Ok(7));
    });
    drop(unknown_to_the_parent);
    sleeper.hear();
    victim.kill();
    Domain::family().unwrap().reap().unwrap();
    sleeper.join();
}

#[test]
fn one_segment_can_be_reaped_by_name_of_the_dead() {
    let dir = Dir::new();
    let queue = Queue::<u64>::create(&name("q"), 4, &dir.options()).unwrap();
    queue.push(7).unwrap();
    let mut victim = fork(|parent| {
        let queue = Queue::<u64>::open(&name("q"), &dir.options()).unwrap();
        let _taken = queue.take().unwrap();
        parent.tell(queue.segment().domain().unwrap().me().unwrap().to_word());
        parent.forever();
    });
    let dead = victim.id();
    assert_eq!((queue.segment().reap(dead), queue.len()), (Ok(Probe::NotProven), 0));
    victim.kill();
    while queue.segment().reap(dead).unwrap() == Probe::NotProven {
        std::thread::yield_now();
    }
    assert_eq!(queue.try_pop(), Ok(7));
    let expected = Queue::<u64>::open(&name("q"), &dir.options().read_only(true)).map(|_| ());
    assert!(expected.is_err());
    let segment = Segment::create(&name("s"), 8, &dir.options()).unwrap();
    let reader = Segment::open(&name("s"), &crosslane_shm::Expected::bytes(), &dir.options().read_only(true)).unwrap();
    assert_eq!(reader.reap(dead), Err(DomainError::ReadOnly));
    drop(segment);
}

/// Victims die one after the other while several processes reap as fast as they can; each item comes exactly once in the
/// end, and was delivered once for each of its consumers' deaths.
#[test]
fn any_number_of_reapers_at_once_lose_and_double_nothing() {
    const ITEMS: u64 = 4;
    const DEATHS: u64 = 12;
    let options = Options::new().max_deliveries(7);
    let queue = Queue::<u64>::anonymous(8, &options).unwrap();
    (0..ITEMS).for_each(|item| queue.push(item).unwrap());
    let reap = |parent: &mut Parent| {
        let queue = queue.rejoin().unwrap();
        let domain = queue.segment().domain().unwrap();
        parent.tell(0);
        loop {
            domain.reap().unwrap();
        }
    };
    let mut reapers = [fork(reap), fork(reap), fork(reap)];
    reapers.iter_mut().for_each(|reaper| assert_eq!(reaper.hear(), 0));
    for _ in 0..DEATHS {
        let mut victim = fork(|parent| {
            let queue = queue.rejoin().unwrap();
            let _taken = queue.take_timeout(TIMEOUT).unwrap();
            parent.tell(0);
            parent.forever();
        });
        victim.hear();
        victim.kill();
    }
    reapers.into_iter().for_each(Child::kill);
    Domain::family().unwrap().reap().unwrap();
    let (waiting, letters) = (std::iter::from_fn(|| queue.try_take().ok()), queue.letters().unwrap());
    let mut deliveries = 0;
    let mut items: Vec<u64> = waiting
        .chain(letters)
        .map(|delivery| {
            deliveries += u64::from(delivery.attempts());
            delivery.ack()
        })
        .collect();
    items.sort_unstable();
    assert_eq!((items, deliveries), ((0..ITEMS).collect(), DEATHS));
}

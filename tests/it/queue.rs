//! `Queue`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Error, Queue, spawn};
use serde::{Deserialize, Serialize};

use crate::{LIMIT, Watchdog};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Message {
    Number(u64),
    Text(String),
    Pair(Box<(f64, Vec<u8>)>),
    Stop,
}

/// Cannot be written while it is odd, and not be read back if it is 4.
#[derive(Debug, PartialEq)]
struct Picky(u64);

impl Serialize for Picky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 2 {
            0 => self.0.serialize(serializer),
            _ => Err(serde::ser::Error::custom("odd")),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            4 => Err(serde::de::Error::custom("four")),
            n => Ok(Self(n)),
        }
    }
}

#[test]
fn values_of_any_type_come_out_as_they_went_in() {
    let queue = Queue::bounded(8).unwrap();
    let all = || {
        let pair = Box::new((0.5, vec![1, 2, 3]));
        [Message::Number(u64::MAX), Message::Text("grüße".into()), Message::Pair(pair), Message::Stop]
    };
    for message in all() {
        queue.put(message).unwrap();
    }
    assert_eq!(queue.len(), 4);
    for message in all() {
        assert_eq!(queue.get().unwrap(), message);
    }
    assert!(matches!(queue.try_get(), Err(Error::Empty)));
}

#[test]
fn vectors_and_texts_of_any_length_up_to_the_limit_come_out_as_they_went_in() {
    let bytes = Queue::<Vec<u8>>::with_limit(2, 100_000).unwrap();
    let texts = Queue::<String>::with_limit(2, 100).unwrap();
    let numbers = Queue::<Vec<f64>>::with_limit(2, 800).unwrap();
    for len in [0, 1, 7, 8, 9, 4096, 99_999, 100_000] {
        let sent: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
        bytes.put(sent.clone()).unwrap();
        assert_eq!(bytes.get().unwrap(), sent);
    }
    texts.put("ä".repeat(50)).unwrap();
    assert_eq!(texts.get().unwrap(), "ä".repeat(50));
    numbers.put(vec![0.1; 100]).unwrap();
    assert_eq!(numbers.get().unwrap(), [0.1; 100]);
}

#[test]
fn a_value_that_stays_the_callers_and_one_that_is_replaced_keep_their_memory() {
    let queue = Queue::<Vec<u8>>::with_limit(4, 1 << 20).unwrap();
    let child = spawn(
        |queue: Queue<Vec<u8>>| {
            let mut frame = vec![0; 1 << 20];
            for n in 0..8 {
                frame.fill(n);
                queue.put_ref(&frame).unwrap();
            }
            queue.put_ref(&vec![9; 3]).unwrap();
        },
        queue.clone(),
    );
    let mut seen = Vec::with_capacity(1 << 20);
    let memory = seen.as_ptr();
    for n in 0..8 {
        queue.get_into(&mut seen).unwrap();
        assert!(seen.len() == 1 << 20 && seen.iter().all(|byte| *byte == n));
    }
    queue.get_into(&mut seen).unwrap();
    assert_eq!((&seen[..], seen.as_ptr()), (&[9; 3][..], memory));
    child.unwrap().join().unwrap();
    let nothing = queue.get_into_timeout(&mut seen, Duration::from_millis(1));
    assert!(matches!(nothing, Err(Error::TimedOut)) && seen == [9; 3], "{nothing:?}");
    let refused = queue.put_ref(&vec![0; (1 << 20) + 1]).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
}

#[test]
fn a_value_that_cannot_be_read_leaves_what_it_was_to_replace() {
    let numbers = Queue::<Picky>::bounded(4).unwrap();
    numbers.put_ref(&Picky(2)).unwrap();
    numbers.put_ref(&Picky(4)).unwrap();
    assert!(matches!(numbers.put_ref(&Picky(5)), Err(Error::Encode { .. })));
    let mut seen = Picky(0);
    numbers.get_into(&mut seen).unwrap();
    assert!(matches!(numbers.get_into(&mut seen), Err(Error::Decode { .. })));
    assert_eq!((seen, numbers.len()), (Picky(2), 0));
}

#[test]
fn pain_11_a_message_beyond_the_limit_is_an_error_that_names_both_sizes() {
    let queue = Queue::<Vec<u8>>::with_limit(4, 1000).unwrap();
    queue.put(vec![1; 10]).unwrap();
    let refused = queue.put(vec![2; 1001]).unwrap_err();
    assert!(matches!(refused.error, Error::TooLarge { len_bytes: 1001, limit_bytes: 1000 }), "{refused:?}");
    assert_eq!(refused.value.len(), 1001);
    assert_eq!(refused.to_string(), "a message of 1001 bytes, where 1000 is the limit");
    assert_eq!((queue.len(), queue.max_bytes()), (1, 1000));
    assert_eq!(Queue::<String>::bounded(2).unwrap().max_bytes(), 16 << 10);
}

#[test]
fn the_limit_of_a_type_without_memory_of_its_own_is_enough_for_any_value() {
    fn passes<T: crosslane::Portable + Copy + PartialEq>(value: T) -> bool {
        let queue = Queue::bounded(2).unwrap();
        queue.put(value).unwrap();
        queue.get().unwrap() == value
    }
    assert!(passes(()) && passes(true) && passes(u128::MAX) && passes(i64::MIN) && passes('\u{10ffff}'));
    assert!(passes([u64::MAX; 32]) && passes((u16::MAX, Some(u32::MAX), [Some(i128::MIN); 4])));
    assert!(passes(Some(Some(Some(Some(Duration::MAX))))));
    assert!(passes(std::net::SocketAddr::from(([0xffff; 8], u16::MAX))));
}

#[test]
fn a_full_queue_gives_the_value_back() {
    let queue = Queue::bounded(4).unwrap();
    assert_eq!(queue.capacity(), 4);
    for n in 0..4 {
        queue.try_put(n).unwrap();
    }
    let refused = queue.try_put(4).unwrap_err();
    assert!(matches!(refused.error, Error::Full) && refused.value == 4);
    let start = Instant::now();
    let refused = queue.put_timeout(5, Duration::from_millis(30)).unwrap_err();
    assert!(matches!(refused.error, Error::TimedOut) && refused.value == 5);
    assert!((Duration::from_millis(30)..LIMIT).contains(&start.elapsed()));
    assert_eq!(queue.get().unwrap(), 0);
    queue.try_put(6).unwrap();
    assert_eq!((0..4).map(|_| queue.get().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 6]);
}

#[test]
fn a_get_ends_at_its_deadline_and_consumes_nothing() {
    let queue = Queue::<u64>::bounded(2).unwrap();
    let start = Instant::now();
    assert!(matches!(queue.get_timeout(Duration::from_millis(30)), Err(Error::TimedOut)));
    assert!((Duration::from_millis(30)..LIMIT).contains(&start.elapsed()));
    assert!(matches!(queue.get_timeout(Duration::ZERO), Err(Error::TimedOut)));
    queue.put(1).unwrap();
    assert_eq!(queue.get_timeout(Duration::ZERO).unwrap(), 1);
}

#[test]
fn capacities_are_rounded_up_and_impossible_ones_refused() {
    for (items, capacity) in [(1, 2), (2, 2), (3, 4), (1000, 1024)] {
        assert_eq!(Queue::<u8>::bounded(items).unwrap().capacity(), capacity);
    }
    for items in [0, (1 << 26) + 1, usize::MAX] {
        assert!(matches!(Queue::<u8>::bounded(items), Err(Error::Create(_))), "{items}");
    }
    assert!(matches!(Queue::<Vec<u8>>::with_limit(2, u32::MAX), Err(Error::Create(_))));
}

#[test]
fn pain_20_more_memory_than_there_is_is_an_error_at_once() {
    let refused = Queue::<Vec<u8>>::with_limit(1 << 26, 1 << 25).unwrap_err();
    assert!(matches!(refused, Error::Create(crosslane::CreateError::NotEnoughMemory { .. })), "{refused:?}");
}

#[test]
fn pain_19_what_was_put_is_there_at_once() {
    let _watchdog = Watchdog::new();
    let queue = Queue::<u64>::bounded(64).unwrap();
    let own = Queue::<u64>::bounded(64).unwrap();
    thread::scope(|scope| {
        // Others are at work at the same words.
        let noise = scope.spawn(|| {
            for n in 0..20_000 {
                queue.put(n).unwrap();
                queue.get().unwrap();
            }
        });
        for n in 0..20_000 {
            own.put(n).unwrap();
            assert!(!own.is_empty() && own.len() == 1);
            assert_eq!(own.try_get().unwrap(), n);
            assert!(own.is_empty());
            queue.put(n).unwrap();
            // The other thread may get it before this one does, but then leaves its own.
            queue.get().unwrap();
        }
        noise.join().unwrap();
    });
    assert!(queue.is_empty());
}

#[test]
fn pain_25_a_value_that_cannot_be_written_comes_back_with_the_reason() {
    let queue = Queue::bounded(4).unwrap();
    queue.put(Picky(2)).unwrap();
    let refused = queue.put(Picky(3)).unwrap_err();
    assert!(matches!(refused.error, Error::Encode { .. }) && refused.value == Picky(3), "{refused:?}");
    assert_eq!(queue.len(), 1);
    for n in [6, 8, 10] {
        queue.try_put(Picky(n)).unwrap();
    }
    assert_eq!(queue.get().unwrap(), Picky(2));
}

#[test]
fn a_value_that_cannot_be_read_is_one_error_and_the_next_follows() {
    let queue = Queue::bounded(4).unwrap();
    for n in [2, 4, 6] {
        queue.put(Picky(n)).unwrap();
    }
    queue.close();
    let got: Vec<_> = queue.iter().collect();
    assert!(matches!(&got[..], [Ok(Picky(2)), Err(Error::Decode { .. }), Ok(Picky(6))]), "{got:?}");
}

#[test]
fn a_handle_is_refused_and_comes_back() {
    let queue = Queue::bounded(2).unwrap();
    let inner = Queue::<u64>::bounded(2).unwrap();
    inner.put(7).unwrap();
    let refused = queue.put((1_u32, inner)).unwrap_err();
    assert!(matches!(refused.error, Error::HandleInQueue { handle: "Queue" }), "{refused:?}");
    assert_eq!(refused.value.1.get().unwrap(), 7);
    assert!(queue.is_empty());
}

/// Puts something into another queue while it is written itself.
struct Chatty(&'static Queue<u64>);

impl Serialize for Chatty {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tuple = (1_u64, {
            self.0.put(99).unwrap();
            2_u64
        });
        tuple.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Chatty {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        assert_eq!(<(u64, u64)>::deserialize(deserializer)?, (1, 2));
        Ok(Self(log()))
    }
}

fn log() -> &'static Queue<u64> {
    static LOG: std::sync::OnceLock<Queue<u64>> = std::sync::OnceLock::new();
    LOG.get_or_init(|| Queue::bounded(4).unwrap())
}

#[test]
fn a_value_may_use_queues_while_it_is_written() {
    let queue = Queue::bounded(2).unwrap();
    queue.put(Chatty(log())).unwrap();
    assert_eq!(queue.get().unwrap().0.get().unwrap(), 99);
}

#[test]
fn a_closed_queue_is_drained_and_then_closed() {
    let queue = Queue::bounded(4).unwrap();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    assert!(!queue.is_closed());
    queue.close();
    assert!(queue.is_closed());
    let refused = queue.put(3).unwrap_err();
    assert!(matches!(refused.error, Error::Closed) && refused.value == 3);
    assert_eq!((&queue).into_iter().map(Result::unwrap).collect::<Vec<i32>>(), [1, 2]);
    assert!(matches!(queue.get(), Err(Error::Closed)));
    assert!(matches!(queue.try_get(), Err(Error::Closed)));
    assert!(matches!(queue.get_timeout(LIMIT), Err(Error::Closed)));
}

#[test]
fn closing_wakes_all_who_wait() {
    let _watchdog = Watchdog::new();
    let (empty, full) = (Queue::<u64>::bounded(2).unwrap(), Queue::bounded(2).unwrap());
    full.put(1).unwrap();
    full.put(2).unwrap();
    thread::scope(|scope| {
        let getters = [(); 2].map(|()| scope.spawn(|| empty.get()));
        let putters = [(); 2].map(|()| scope.spawn(|| full.put(3)));
        thread::sleep(Duration::from_millis(20));
        empty.close();
        full.close();
        for getter in getters {
            assert!(matches!(getter.join().unwrap(), Err(Error::Closed)));
        }
        for putter in putters {
            assert!(matches!(putter.join().unwrap().unwrap_err().error, Error::Closed));
        }
    });
}

#[test]
fn every_value_goes_to_one_consumer() {
    const EACH: u64 = 20_000;
    let _watchdog = Watchdog::new();
    let queue = Queue::<u64>::bounded(64).unwrap();
    let sum = AtomicU64::new(0);
    thread::scope(|scope| {
        let producers = [0, 1].map(|side| {
            let queue = queue.clone();
            scope.spawn(move || (0..EACH).for_each(|n| queue.put(2 * n + side).unwrap()))
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = [None; 2];
                for n in &queue {
                    let n = n.unwrap();
                    let before = last[usize::from(n % 2 == 1)].replace(n);
                    assert!(before.is_none_or(|before| before < n), "in order for each producer");
                    sum.fetch_add(n, Ordering::Relaxed);
                }
            });
        }
        for producer in producers {
            producer.join().unwrap();
        }
        queue.close();
    });
    assert_eq!(sum.into_inner(), (0..2 * EACH).sum());
}

#[test]
fn pain_5_a_producer_ends_before_anybody_has_read_what_it_put() {
    let _watchdog = Watchdog::new();
    let queue = Queue::<Vec<u8>>::with_limit(4, 1 << 20).unwrap();
    let put = |queue: Queue<Vec<u8>>| (0..4).for_each(|n| queue.put(vec![n; 1 << 20]).unwrap());
    spawn(put, queue.clone()).unwrap().join().unwrap();
    assert!(!queue.is_empty(), "once its producer has been joined");
    assert_eq!(queue.len(), 4);
    for n in 0..4 {
        assert_eq!(queue.get().unwrap(), vec![n; 1 << 20]);
    }
}

#[test]
fn processes_and_this_one_put_and_get() {
    let _watchdog = Watchdog::new();
    let (queue, results) = (Queue::<Message>::bounded(16).unwrap(), Queue::<u64>::bounded(16).unwrap());
    let consume = |(queue, results): (Queue<Message>, Queue<u64>)| {
        let mut sum = 0;
        loop {
            match queue.get().unwrap() {
                Message::Number(n) => sum += n,
                Message::Stop => break,
                Message::Text(_) | Message::Pair(_) => {}
            }
        }
        results.put(sum).unwrap();
    };
    let produce = |(queue, from): (Queue<Message>, u64)| {
        for n in from..from + 1000 {
            queue.put(Message::Number(n)).unwrap();
            queue.put(Message::Text(n.to_string())).unwrap();
        }
    };
    let consumers = [(); 2].map(|()| spawn(consume, (queue.clone(), results.clone())).unwrap());
    let producer = spawn(produce, (queue.clone(), 0)).unwrap();
    produce((queue.clone(), 1000));
    producer.join().unwrap();
    queue.put(Message::Stop).unwrap();
    queue.put(Message::Stop).unwrap();
    for consumer in consumers {
        consumer.join().unwrap();
    }
    assert_eq!(results.get().unwrap() + results.get().unwrap(), (0..2000).sum());
    assert!(queue.is_empty() && results.is_empty());
}

#[test]
fn pain_21_a_hundred_queues_go_to_a_process_within_the_usual_limit_of_descriptors() {
    let _watchdog = Watchdog::new();
    let queues: Vec<_> = (0..100).map(|_| Queue::<u64>::bounded(4).unwrap()).collect();
    let put = |queues: Vec<Queue<u64>>| {
        let (_, open) = (queues.len(), std::fs::read_dir("/proc/self/fd").unwrap().count());
        for (n, queue) in (0..).zip(&queues) {
            queue.put(n).unwrap();
        }
        open
    };
    let open = spawn(put, queues.clone()).unwrap().join().unwrap();
    assert!(open < 300, "{open} descriptors for 100 queues");
    for (n, queue) in (0..).zip(&queues) {
        assert_eq!(queue.get().unwrap(), n);
    }
}

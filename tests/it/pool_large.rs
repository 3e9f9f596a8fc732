//! Large arguments of pools: they lie in shared memory that comes when it is needed and goes again, and what cannot lie there
//! arrives all the same.

use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crosslane::{Array, Blob, Error, Event, Pool, Value, spawn};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

const MIB: usize = 1 << 20;
/// From so many bytes on an argument lies in shared memory.
const LARGE: usize = 16 << 10;
/// What a pool keeps of that when it has nothing to do.
const KEPT: u64 = 16 << 20;
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `function` in a process of its own, whose limits it may change, and whose memory nobody else uses.
fn alone(function: fn(())) {
    assert_eq!(spawn(function, ()).unwrap().join_timeout(WATCHDOG).unwrap(), Some(()));
}

/// `len` bytes that tell where they belong.
fn pattern(len: usize) -> Vec<u8> {
    let seed = len.wrapping_mul(0x9e37_79b9).to_le_bytes();
    let mut bytes = vec![seed[0]; len];
    bytes.iter_mut().step_by(509).zip(0..).for_each(|(byte, n): (_, u32)| *byte = seed[1] ^ n.to_le_bytes()[0]);
    bytes
}

/// Whether these are the bytes that `pattern` makes; returns how many.
fn checked(bytes: Vec<u8>) -> usize {
    assert!(bytes == pattern(bytes.len()), "{} bytes were changed", bytes.len());
    bytes.len()
}

/// Bytes of memory, and descriptors, of the anonymous shared memory that a process has by descriptor.
fn shared_memory() -> (u64, usize) {
    let (mut bytes, mut count) = (0, 0);
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read_link(&path).is_ok_and(|it| it.to_string_lossy().starts_with("/memfd:")) {
            bytes += std::fs::metadata(&path).map_or(0, |it| it.blocks() * 512);
            count += 1;
        }
    }
    (bytes, count)
}

/// Bytes of the mappings that process `pid` has of anonymous shared memory.
fn mapped_by(pid: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
    };
    maps.lines().filter(|line| line.contains("/memfd:")).filter_map(range).sum()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WATCHDOG, "not {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn values_of_all_lengths_are_right_in_one_map() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let lengths = [
            0,
            1,
            LARGE - 1,
            LARGE,
            MIB,
            LARGE + 1,
            100,
            (64 << 10) - 4,
            (64 << 10) + 1,
            5 * MIB + 3,
            17 * MIB,
            32 << 10,
            3,
            2 * LARGE + 7,
            MIB - 1,
        ];
        for chunk_size in [1, 3] {
            let job = pool.job().chunk_size(chunk_size);
            assert_eq!(job.map(checked, lengths.into_iter().map(pattern)).unwrap(), lengths, "{chunk_size}");
        }
        let few = lengths.into_iter().filter(|len| *len < 2 * MIB).collect::<Vec<_>>();
        let items = || few.iter().map(|&len| pattern(len));
        assert_eq!(pool.map(checked, items()).unwrap(), few);
        assert_eq!(pool.job().chunk_size(few.len()).map(checked, items()).unwrap(), few);
        assert_eq!(pool.imap(checked, items()).collect::<Result<Vec<_>, _>>().unwrap(), few);
    });
}

#[test]
fn types_that_are_not_their_bytes_are_right_too() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let lengths = [10, LARGE - 3, LARGE, MIB, 3 * MIB + 1];
        let named = |(name, bytes): (String, Blob<u8>)| (name, checked(bytes.0));
        let items = lengths.map(|len| (len.to_string(), Blob(pattern(len))));
        assert_eq!(pool.job().chunk_size(2).map(named, items).unwrap(), lengths.map(|len| (len.to_string(), len)));
        let text = "äöü".repeat(100_000);
        assert_eq!(
            pool.apply(|text: String| text.chars().rev().collect::<String>(), text.clone()).unwrap().len(),
            text.len()
        );
        let numbers: Vec<u64> = (0..300_000).collect();
        assert_eq!(
            pool.apply(|numbers: Vec<u64>| numbers.iter().sum::<u64>(), numbers).unwrap(),
            299_999 * 300_000 / 2
        );
        let options: Vec<Option<u16>> = (0..60_000).map(|n| (n % 3 > 0).then_some(n)).collect();
        let count = |options: Vec<Option<u16>>| options.iter().flatten().count();
        assert_eq!(
            pool.with(7).map(|_, item: Vec<Option<u16>>| item.len(), vec![options.clone(); 3]).unwrap(),
            [60_000; 3]
        );
        assert_eq!(pool.broadcast(count, &options).unwrap(), [40_000; 2]);
    });
}

#[test]
fn handles_in_large_arguments_are_the_same_objects() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let (sums, total) = (Array::<u64>::zeroed(8).unwrap(), Value::new(0_u64).unwrap());
        let add = |(at, sums, total, bytes): (usize, Array<u64>, Value<u64>, Blob<u8>)| {
            let len = checked(bytes.0) as u64;
            sums.set(at, len);
            total.fetch_add(len);
        };
        let item = |at| (at, sums.clone(), total.clone(), Blob(pattern(MIB + at)));
        pool.job().chunk_size(3).map(add, (0..8).map(item)).unwrap();
        let lengths: Vec<u64> = (0..8).map(|at| MIB as u64 + at).collect();
        assert_eq!((sums.to_vec(), total.get()), (lengths.clone(), lengths.iter().sum()));
    });
}

#[test]
fn an_item_that_cannot_be_encoded_takes_no_large_one_along() {
    alone(|()| {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Picky(#[serde(serialize_with = "refuse_odd")] usize, Blob<u8>);
        fn refuse_odd<S: serde::Serializer>(n: &usize, serializer: S) -> Result<S::Ok, S::Error> {
            if n % 2 == 1 { Err(serde::ser::Error::custom("odd")) } else { serializer.serialize_u64(*n as u64) }
        }
        let pool = Pool::new(1).unwrap();
        let items = (0..6).map(|n| Picky(n, Blob(pattern(100_000 + n))));
        let job = pool.job().chunk_size(4);
        let results = job.map_all(|Picky(_, bytes): Picky| checked(bytes.0), items).unwrap();
        for (n, result) in results.into_iter().enumerate() {
            match result {
                Ok(len) => assert!(n % 2 == 0 && len == 100_000 + n),
                Err(error) => assert!(n % 2 == 1 && matches!(error, Error::Encode { .. }), "{n}: {error}"),
            }
        }
    });
}

#[test]
fn workers_killed_again_and_again_lose_and_spoil_nothing() {
    alone(|()| {
        let pool = Pool::builder().workers(2).retries(1000).build().unwrap();
        let (is_over, ran) = (AtomicBool::new(false), Value::new(0_u64).unwrap());
        let counted = |ran: &Value<u64>, bytes: Vec<u8>| {
            ran.fetch_add(1);
            checked(bytes)
        };
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let (mut killed, mut before) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    // Where a worker takes longer than that to come up, none would ever do anything.
                    if ran.get() < before + 2 * 4 {
                        continue;
                    }
                    before = ran.get();
                    let pids = pool.worker_pids();
                    if let Some(&pid) = pids.get(killed % pids.len().max(1)) {
                        let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw).unwrap();
                        // It may have been replaced in this moment; its id is not given to another process so soon.
                        let _ = kill_process(pid, Signal::KILL);
                        killed += 1;
                    }
                }
                killed
            });
            let lengths: Vec<_> = (0..300).map(|n| 150_000 + 1000 * n).collect();
            let results = pool.with(ran.clone()).chunk_size(2).map(counted, lengths.iter().map(|&len| pattern(len)));
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(results.unwrap(), lengths);
            assert!(killer.join().unwrap() > 3);
        });
    });
}

#[test]
fn what_is_cancelled_gives_its_room_back() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let go_on = Event::new().unwrap();
        let blocked: Vec<_> =
            (0..2).map(|_| pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap()).collect();
        until("running", || blocked.iter().all(crosslane::Task::is_running));
        let before = shared_memory().0;
        for _ in 0..3 {
            let tasks: Vec<_> = (0..40).map(|n| pool.submit(checked, pattern(MIB + n)).unwrap()).collect();
            let under_way = shared_memory().0 - before;
            assert!(under_way >= 40 * MIB as u64 && under_way < 100 * MIB as u64, "{under_way}");
            assert!(tasks.iter().all(crosslane::Task::cancel));
            assert!(shared_memory().0 - before <= KEPT + MIB as u64, "{:?}", shared_memory());
        }
        go_on.set();
        blocked.into_iter().for_each(|task| task.result().unwrap());
        assert_eq!(pool.map(checked, (0..20).map(|n| pattern(MIB + n))).unwrap().len(), 20);
    });
}

#[test]
fn a_burst_leaves_no_more_than_is_said() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        pool.broadcast(|()| (), &()).unwrap();
        let go_on = Event::new().unwrap();
        let blocked = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
        until("running", || blocked.is_running());
        let ((before, descriptors), worker) = (shared_memory(), pool.worker_pids()[0]);
        let mapped_before = mapped_by(worker);
        // Some have a segment to themselves, most do not.
        let lengths: Vec<_> = (0..40).map(|n| MIB + n).chain([20 * MIB, 30 * MIB]).collect();
        let tasks: Vec<_> = lengths.iter().map(|&len| pool.submit(checked, pattern(len)).unwrap()).collect();
        assert!(shared_memory().0 - before >= 90 * MIB as u64, "{:?}", shared_memory());
        go_on.set();
        blocked.result().unwrap();
        for (task, len) in tasks.into_iter().zip(lengths) {
            assert_eq!(task.result().unwrap(), len);
        }
        let (after, kept) = shared_memory();
        assert!(after - before <= KEPT + MIB as u64 && kept <= descriptors + 1, "{before} {after} {kept}");
        // The worker learns it with what it is sent next.
        until("unmapped", || {
            pool.apply(|()| (), ()).unwrap();
            mapped_by(worker) <= mapped_before + KEPT + MIB as u64
        });
        assert_eq!(pool.worker_pids(), [worker]);
    });
}

#[test]
fn a_pool_that_ends_in_the_middle_leaves_nothing() {
    alone(|()| {
        let (before, descriptors) = shared_memory();
        for n in 0..30 {
            let pool = Pool::new(1).unwrap();
            let tasks: Vec<_> = (0..8).map(|n| pool.submit(checked, pattern(100_000 + n)).unwrap()).collect();
            let mut results = pool.imap_unordered(checked, (0..20).map(|n| pattern(20_000 + n)));
            if n % 2 == 0 {
                assert!(results.next().unwrap().unwrap() >= 20_000);
            }
            drop(results);
            if n % 3 == 0 {
                pool.terminate();
                assert!(matches!(pool.apply(checked, pattern(MIB)), Err(Error::PoolClosed)));
            }
            drop(pool);
            for task in tasks {
                assert!(matches!(task.result(), Ok(_) | Err(Error::Cancelled)));
            }
        }
        // The family's own segments may have come meanwhile.
        let (after, left) = shared_memory();
        assert!(after <= before + MIB as u64 && left <= descriptors + 3, "{before} {after} {descriptors} {left}");
        assert_eq!(std::fs::read_to_string("/proc/thread-self/children").unwrap(), "");
    });
}

fn limit_descriptors(count: u64) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) }).unwrap();
}

#[test]
fn without_descriptors_here_they_arrive_all_the_same() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        pool.broadcast(|()| (), &()).unwrap();
        let (before, _) = shared_memory();
        limit_descriptors(3);
        let lengths: Vec<_> = (0..20).map(|n| MIB + n).collect();
        assert_eq!(pool.map(checked, lengths.iter().map(|&len| pattern(len))).unwrap(), lengths);
        // With room for the directory's.
        limit_descriptors(100);
        assert!(shared_memory().0 - before < MIB as u64);
        assert_eq!(pool.map(checked, lengths.iter().map(|&len| pattern(len))).unwrap(), lengths);
        assert!(shared_memory().0 - before > MIB as u64);
    });
}

#[test]
fn without_descriptors_in_the_worker_they_arrive_all_the_same() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let limit = |count| {
            let before = getrlimit(Resource::Nofile).current;
            limit_descriptors(count);
            before.unwrap_or(u64::MAX)
        };
        let limits = pool.broadcast(limit, &3).unwrap();
        let sums = Array::<u64>::zeroed(1).unwrap();
        for round in 0..2 {
            let lengths: Vec<_> = (0..20).map(|n| if n % 3 == 0 { 10 } else { MIB + n }).collect();
            let items = || lengths.iter().map(|&len| pattern(len));
            assert_eq!(pool.job().chunk_size(2).map(checked, items()).unwrap(), lengths);
            // Once they have descriptors again, handles arrive too, beside what is large.
            pool.broadcast(limit, &limits[0]).unwrap();
            assert_eq!(pool.map(checked, items()).unwrap(), lengths);
            let add = |(sums, bytes): (Array<u64>, Blob<u8>)| {
                sums.elements().fetch_add(0, checked(bytes.0) as u64);
            };
            pool.map(add, lengths.iter().map(|&len| (sums.clone(), Blob(pattern(len))))).unwrap();
            assert_eq!(sums.get(0), (round + 1) * lengths.iter().sum::<usize>() as u64);
            pool.broadcast(limit, &3).unwrap();
        }
    });
}

#[test]
fn where_no_file_may_be_so_long_they_arrive_all_the_same() {
    alone(|()| {
        let most = Rlimit { current: Some(8 << 20), maximum: Some(8 << 20) };
        setrlimit(Resource::Fsize, most).unwrap();
        let pool = Pool::new(2).unwrap();
        let lengths: Vec<_> = (0..10).map(|n| LARGE + 40_000 * n).collect();
        assert_eq!(pool.map(checked, lengths.iter().map(|&len| pattern(len))).unwrap(), lengths);
    });
}

#[test]
fn a_segment_that_was_lent_again_meanwhile_is_withdrawn_all_the_same() {
    alone(|()| {
        /// The worker's: it has no descriptors for handles meanwhile.
        static TURNS: OnceLock<[Event; 4]> = OnceLock::new();
        fn turns() -> &'static [Event; 4] {
            TURNS.get().unwrap()
        }
        let pool = Pool::new(1).unwrap();
        let events = [(); 4].map(|()| Event::new().unwrap());
        let [is_poor, is_sent, is_rich, is_lent] = &events;
        pool.apply(|events: [Event; 4]| drop(TURNS.set(events)), events.clone()).unwrap();
        let worker = pool.worker_pids()[0];
        let mapped_before = mapped_by(worker);
        let (whole, part) = (|| vec![0; 16 * MIB - 64], || pattern(LARGE));
        // It fills the first segment.
        let first = |_: Vec<u8>| {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            limit_descriptors(3);
            turns()[0].set();
            turns()[1].wait();
            limit
        };
        let first = pool.submit(first, whole()).unwrap();
        is_poor.wait();
        // In the second segment, which the worker cannot take.
        let before = pool.submit(checked, part()).unwrap();
        let second = |()| {
            limit_descriptors(1024);
            turns()[2].set();
            turns()[3].wait();
        };
        let second = pool.submit(second, ()).unwrap();
        let behind = pool.submit(checked, part()).unwrap();
        is_sent.set();
        is_rich.wait();
        // The first piece has come back by now: so the segment is lent again, before the next one comes back.
        assert!(second.is_running());
        let filler = pool.submit(|bytes: Vec<u8>| bytes.len(), whole()).unwrap();
        let last = pool.submit(checked, part()).unwrap();
        is_lent.set();
        second.result().unwrap();
        assert!(first.result().unwrap() > 3);
        assert_eq!(filler.result().unwrap(), whole().len());
        for task in [before, behind, last] {
            assert_eq!(task.result().unwrap(), LARGE);
        }
        until("unmapped", || {
            pool.apply(|()| (), ()).unwrap();
            mapped_by(worker) <= mapped_before + KEPT + MIB as u64
        });
    });
}

#[test]
fn a_worker_keeps_no_memory_of_long_results() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        fn resident(_: ()) -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
        }
        let before = pool.apply(resident, ()).unwrap();
        let len = 40 * MIB;
        assert_eq!(pool.apply(|len: usize| vec![1_u8; len], len).unwrap().len(), len);
        let after = pool.apply(resident, ()).unwrap();
        assert!(after < before + 8 * MIB, "{before} {after}");
    });
}

//! Pools at their limits: of descriptors, of lengths, of what is on its way. Whoever meets one is told, and nobody else.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crosslane::{Array, Connection, Descriptor, Error, Event, Pool, Task, Value, pipe, spawn};
use crosslane_sync::spin;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getpid, getrlimit, kill_process, pidfd_getfd,
    pidfd_open, setrlimit,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use rustix::time::{ClockId, clock_gettime};

/// How long a process of these tests may take.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `function` in a process of its own, whose limits it may change.
fn alone(function: fn(())) {
    assert_eq!(spawn(function, ()).unwrap().join_timeout(WATCHDOG).unwrap(), Some(()));
}

/// This process's descriptors of what is called so.
fn descriptors(name: &str) -> Vec<i32> {
    let paths = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| std::fs::read_link(path).is_ok_and(|it| it.to_string_lossy().starts_with(name)));
    paths.map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect()
}

/// This process's sockets, each by another descriptor.
fn sockets() -> Vec<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let copy = |fd| pidfd_getfd(&this, fd, PidfdGetfdFlags::empty()).unwrap();
    descriptors("socket:").into_iter().map(copy).collect()
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

/// As many descriptors as this process may have.
fn unlimit_descriptors(_: ()) {
    limit_descriptors(getrlimit(Resource::Nofile).maximum);
}

/// Leaves this process's sockets as little room as the kernel allows: for about 1,500 descriptors.
fn narrow_sockets(_: ()) {
    sockets().iter().for_each(|socket| sockopt::set_socket_send_buffer_size(socket, 1).unwrap());
}

#[test]
fn more_descriptors_than_a_socket_has_room_for_travel_in_one_argument_and_one_result() {
    alone(|()| {
        unlimit_descriptors(());
        let pool = Pool::new(1).unwrap();
        narrow_sockets(());
        pool.broadcast(|()| (unlimit_descriptors(()), narrow_sockets(())).0, &()).unwrap();
        let files =
            || (0..1700).map(|_| Descriptor(std::fs::File::open("/dev/null").unwrap().into())).collect::<Vec<_>>();
        let back = pool.apply(|files: Vec<Descriptor>| files, files()).unwrap();
        assert_eq!(back.len(), 1700);
        let len = |files: &Vec<Descriptor>, n: usize| files.len() + n;
        assert_eq!(pool.with(back).map(len, [1, 2]).unwrap(), [1701, 1702]);
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

/// In a worker: no more descriptors than it has, and so many; returns the limit that was.
fn leave_descriptors(count: usize) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile).current;
    let next: Vec<_> = (0..count).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let last = next.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    limit_descriptors(Some(u64::try_from(last).unwrap() + 1));
    limit
}

/// No more memory than this process has, and so many bytes.
fn limit_memory_to(more: Option<u64>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib: u64 = status.split("VmSize:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let current = more.map(|more| (kib << 10) + more);
    setrlimit(Resource::As, Rlimit { current, ..getrlimit(Resource::As) }).unwrap();
}

/// In a worker: no more memory than it has, and 16 MiB, if `is_limited`.
fn limit_memory(is_limited: bool) {
    limit_memory_to(is_limited.then_some(16 << 20));
}

/// An array that a worker whose memory is limited has no room for.
fn large() -> Array<u8> {
    Array::zeroed(64 << 20).unwrap()
}

#[test]
fn a_context_that_cannot_be_opened_is_tried_again_with_the_next_item() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        let pid = pool.worker_pids()[0];
        pool.broadcast(limit_memory, &true).unwrap();
        let mut results = pool.with(large()).window(1).imap(|array, n: usize| array.len() + n, 0..);
        for _ in 0..3 {
            let result = results.next().unwrap();
            let Err(Error::Refused { pid: found, message }) = &result else { panic!("{result:?}") };
            assert!(*found == pid && message.contains("memory"), "{result:?}");
        }
        pool.broadcast(limit_memory, &false).unwrap();
        assert_eq!(results.next().unwrap().unwrap(), (64 << 20) + 3);
        assert_eq!(results.next().unwrap().unwrap(), (64 << 20) + 4);
    });
}

#[test]
fn a_context_is_sent_again_if_its_descriptors_were_lost() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        let limit = pool.broadcast(|(): ()| getrlimit(Resource::Nofile).current, &()).unwrap()[0];
        pool.broadcast(limit_descriptors, &Some(0)).unwrap();
        let event = Event::new().unwrap();
        let set = |event: &Event, n: u32| {
            event.set();
            n
        };
        let mut results = pool.with(event.clone()).window(1).imap(set, 0..);
        for _ in 0..3 {
            let result = results.next().unwrap();
            assert!(matches!(result, Err(Error::FdLimit)) && !event.is_set(), "{result:?}");
        }
        pool.broadcast(limit_descriptors, &limit).unwrap();
        assert_eq!(results.next().unwrap().unwrap(), 3);
        assert!(event.is_set());
    });
}

#[test]
fn a_context_needs_no_more_descriptors_than_it_has() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        // The array's, and its lock's.
        let limit = pool.broadcast(leave_descriptors, &2).unwrap()[0];
        let len = |array: &Array<u8>, n: usize| array.len() + n;
        assert_eq!(pool.with(large()).map(len, [1, 2]).unwrap(), [(64 << 20) + 1, (64 << 20) + 2]);
        // Then there is no copy for a second attempt either, until it is sent again with the next piece.
        pool.broadcast(limit_memory, &true).unwrap();
        let mut results = pool.with(large()).chunk_size(2).window(2).imap(len, 0..);
        for _ in 0..3 {
            let (one, two) = (results.next().unwrap(), results.next().unwrap());
            for result in [one, two] {
                assert!(
                    matches!(&result, Err(Error::Refused { message, .. }) if message.contains("memory")),
                    "{result:?}"
                );
            }
        }
        pool.broadcast(limit_memory, &false).unwrap();
        assert_eq!(results.next().unwrap().unwrap(), (64 << 20) + 6);
        drop(results);
        pool.broadcast(limit_descriptors, &limit).unwrap();
    });
}

/// Cannot be read.
#[derive(Debug, serde::Serialize)]
struct Panics(Descriptor);

impl<'de> serde::Deserialize<'de> for Panics {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let _ = Descriptor::deserialize(deserializer)?;
        panic!("it cannot be read")
    }
}

#[test]
fn a_context_that_panics_does_so_for_each_item_with_copies_of_its_descriptors_or_without() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        let fails = || {
            let file = Descriptor(std::fs::File::open("/dev/null").unwrap().into());
            for result in pool.with(Panics(file)).chunk_size(3).map_all(|_, n: u32| n, 0..3).unwrap() {
                assert!(
                    matches!(&result, Err(Error::Panicked(report)) if report.message == "it cannot be read"),
                    "{result:?}"
                );
            }
        };
        fails();
        // Those that it has, and no copies.
        let limit = pool.broadcast(leave_descriptors, &1).unwrap()[0];
        fails();
        pool.broadcast(limit_descriptors, &limit).unwrap();
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

/// The CPU time of this thread for each of so many tasks, none of which has begun, to be cancelled.
fn cancelling(count: usize) -> Duration {
    let pool = Pool::new(2).unwrap();
    let go_on = Event::new().unwrap();
    let busy = [(); 2].map(|()| pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap());
    while !busy.iter().all(Task::is_running) {
        std::thread::yield_now();
    }
    let tasks: Vec<_> = (0..count).map(|n| pool.submit(|n: usize| n, n).unwrap()).collect();
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let begun = now();
    // In a scattered order, each once.
    assert!((0..count).all(|n| tasks[n * 7919 % count].cancel()));
    let taken = now() - begun;
    assert!(tasks.into_iter().all(|task| matches!(task.result(), Err(Error::Cancelled))));
    go_on.set();
    busy.into_iter().for_each(|task| task.result().unwrap());
    taken / u32::try_from(count).unwrap()
}

#[test]
fn to_cancel_one_task_costs_the_same_whatever_their_number() {
    let best = |count| (0..3).map(|_| cancelling(count)).min().unwrap();
    let (few, many) = (best(500), best(16_000));
    assert!(many < 5 * few, "{few:?} and {many:?}");
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_worker_that_cannot_be_replaced_at_once_is_replaced_later() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let limit = getrlimit(Resource::Nofile).current;
        let pids = pool.broadcast(|(): ()| std::process::id(), &()).unwrap();
        limit_descriptors(Some(0));
        pids.iter().for_each(|&pid| signal(pid, Signal::KILL));
        while !pool.worker_pids().is_empty() {
            std::thread::yield_now();
        }
        let mut task = pool.submit(|n: u32| n + 1, 1).unwrap();
        assert!(task.result_timeout(Duration::from_millis(50)).unwrap().is_none());
        limit_descriptors(limit);
        assert_eq!(task.result().unwrap(), 2);
        assert_eq!(pool.broadcast(|(): ()| std::process::id(), &()).unwrap().len(), 2);
    });
}

#[test]
fn workers_that_cannot_be_replaced_end_the_pool_with_the_reason_in_the_end() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        let limit = getrlimit(Resource::Nofile).current;
        let (begun, busy) = (Event::new().unwrap(), |begun: Event| {
            begun.set();
            std::thread::sleep(Duration::from_secs(1000));
        });
        let lost = pool.submit(busy, begun.clone()).unwrap();
        let waiting = pool.submit(|n: u32| n + 1, 1).unwrap();
        begun.wait();
        limit_descriptors(Some(0));
        pool.worker_pids().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        assert!(matches!(lost.result(), Err(Error::Died { .. })));
        let Err(Error::NoWorkers(cause)) = waiting.result() else { panic!() };
        assert!(matches!(*cause, Error::FdLimit), "{cause}");
        limit_descriptors(limit);
        assert!(matches!(pool.submit(|n: u32| n, 1), Err(Error::NoWorkers(_))));
    });
}

#[test]
fn a_lazy_map_reads_no_more_than_its_window_whatever_its_pieces() {
    let pool = Pool::new(2).unwrap();
    for (chunk_size, window, most) in
        [(1, None, 4), (10, None, 40), (7, Some(20), 20), (1000, Some(5), 5), (1, Some(1), 1)]
    {
        let read = std::cell::Cell::new(0);
        let items = (0..100_000_u32).inspect(|_| read.set(read.get() + 1));
        let job = || match window {
            None => pool.job().chunk_size(chunk_size),
            Some(items) => pool.job().chunk_size(chunk_size).window(items),
        };
        let mut results = job().imap(|n: u32| n, items);
        for n in 0..100 {
            assert_eq!(results.next().unwrap().unwrap(), n);
            // One that nobody has chosen may be widened, from two pieces for each worker to 64.
            let most = if window.is_none() && n >= most { most * 32 } else { most };
            assert!(read.get() <= most + n, "{} at {n} with {chunk_size} and {window:?}", read.get());
        }
        drop(results);
        let mut all: Vec<u32> = job().imap_unordered(|n: u32| n, 0..100).map(Result::unwrap).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(job().map(|n: u32| n, 0..100).unwrap(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_window_is_widened_where_results_are_quick_and_only_there() {
    let pool = Pool::new(2).unwrap();
    let read = std::cell::Cell::new(0);
    let items = || {
        read.set(0);
        (0_u32..).inspect(|_| read.set(read.get() + 1))
    };
    let slow = |n: u32| {
        std::thread::sleep(Duration::from_millis(1));
        n
    };
    for (n, result) in (0..30).zip(pool.imap(slow, items())) {
        assert_eq!(result.unwrap(), n);
        assert!(read.get() <= n + 1 + 4, "{} at {n}", read.get());
    }
    let mut results = pool.imap(|n: u32| n, items());
    let widened = (0..300_000).find(|&n| {
        assert_eq!(results.next().unwrap().unwrap(), n);
        assert!(read.get() <= (2 * n + 4).min(n + 128), "{} at {n}", read.get());
        read.get() == n + 128
    });
    assert!(widened > Some(3), "{widened:?}");
}

#[test]
fn long_arguments_are_read_as_workers_need_them() {
    let pool = Pool::new(2).unwrap();
    let made = std::cell::Cell::new(0);
    let items = (0..20_u8).map(|n| {
        made.set(made.get() + 1);
        vec![n; 16 << 20]
    });
    let mut results = pool.job().chunk_size(1).window(20).imap_unordered(|blob: Vec<u8>| blob.len(), items);
    assert_eq!(results.next().unwrap().unwrap(), 16 << 20);
    assert!(made.get() <= 4, "64 MiB: {}", made.get());
}

#[test]
fn workers_that_are_more_than_the_cpus_spin_less() {
    let budgets = |workers| Pool::new(workers).unwrap().broadcast(|(): ()| spin::budget(), &()).unwrap();
    let cpus = usize::try_from(spin::cpus()).unwrap();
    // As many pauses as take about 7 us on this machine, or none.
    assert!(budgets(cpus.min(8)).into_iter().all(|pauses| pauses == 0 || pauses >= 300));
    assert!(budgets(cpus + 1).into_iter().all(|pauses| pauses <= 700 / 4));
}

#[test]
fn no_worker_runs_more_items_than_it_may() {
    let pool = Pool::builder().workers(2).max_tasks_per_worker(5).build().unwrap();
    for chunk_size in [1, 2, 3, 100] {
        let pids = pool.job().chunk_size(chunk_size).map(|_: u32| std::process::id(), 0..60).unwrap();
        let mut counts = std::collections::HashMap::new();
        pids.into_iter().for_each(|pid| *counts.entry(pid).or_insert(0) += 1);
        assert!(counts.values().all(|&count| count <= 5), "{counts:?}");
    }
}

#[test]
fn what_a_stopped_worker_has_not_begun_goes_to_another() {
    let pool = Pool::new(2).unwrap();
    let pids = pool.broadcast(|(): ()| std::process::id(), &()).unwrap();
    signal(pids[0], Signal::STOP);
    let tasks: Vec<_> = (0..8_u32).map(|n| pool.submit(|n: u32| n + 1, n).unwrap()).collect();
    for (n, mut task) in (0..).zip(tasks) {
        assert_eq!(task.result_timeout(WATCHDOG).unwrap(), Some(n + 1));
    }
}

#[test]
fn a_copy_of_a_dead_workers_pidfd_keeps_nobody_busy() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        let pid = pool.broadcast(|(): ()| std::process::id(), &()).unwrap()[0];
        // As the child of a foreign `fork` would have it.
        let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let pidfds = descriptors("anon_inode:[pidfd]");
        let copies: Vec<_> =
            pidfds.into_iter().map(|fd| pidfd_getfd(&this, fd, PidfdGetfdFlags::empty()).unwrap()).collect();
        signal(pid, Signal::KILL);
        while pool.broadcast(|(): ()| std::process::id(), &()).is_ok_and(|pids| pids[0] == pid) {}
        // How often the keeper has slept tells whether it turns on the spot: it has nothing to do.
        let before = keeper_nanos();
        std::thread::sleep(Duration::from_millis(200));
        let spent = keeper_nanos() - before;
        assert!(spent < 20_000_000, "{spent} ns");
        drop(copies);
    });
}

/// Where the kernel tells of this process's threads that are called so.
fn threads(name: &str) -> Vec<std::path::PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let is_so = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == &name[..name.len().min(15)])
    };
    tasks.filter(is_so).collect()
}

/// The CPU time of the pool's thread that waits for ends.
fn keeper_nanos() -> u64 {
    let stat = std::fs::read_to_string(threads("crosslane-keeper")[0].join("schedstat")).unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_thread_looks_for_answers_only_if_nobody_else_does() {
    alone(|()| {
        let sweepers = || threads("crosslane-sweeper").len();
        // One is started, too, if the machine lets this thread wait for long where it looks for nothing.
        let alone = (0..20).find_map(|_| {
            let pool = Pool::new(2).unwrap();
            assert_eq!(pool.broadcast(|n: u32| n + 1, &1).unwrap(), [2, 2]);
            assert_eq!(pool.apply(|n: u32| n + 1, 1).unwrap(), 2);
            assert_eq!(pool.map(|n: u32| n + 1, [1]).unwrap(), [2]);
            // A thread gives itself its name.
            while threads("crosslane-keeper").is_empty() {
                std::thread::yield_now();
            }
            (sweepers() == 0).then_some(pool)
        });
        let pool = alone.unwrap();
        let (runs, ends) = (Event::new().unwrap(), Event::new().unwrap());
        let wait = |(runs, ends): (Event, Event)| {
            runs.set();
            ends.wait();
        };
        let task = pool.submit(wait, (runs.clone(), ends.clone())).unwrap();
        runs.wait();
        while sweepers() != 1 {
            std::thread::yield_now();
        }
        ends.set();
        task.result().unwrap();
        // Half of it is behind other work.
        assert_eq!(pool.job().chunk_size(1).map(|n: u32| n + 1, 0..1000).unwrap().len(), 1000);
        assert_eq!(sweepers(), 1);
    });
}

#[test]
fn items_may_wait_for_what_a_worker_does_with_those_before() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let done = [(); 3].map(|()| Event::new().unwrap());
        // Longer than a worker's ring: somebody has to write on, and this thread is in its items.
        let context = vec![1_u8; 1 << 20];
        let items = done.iter().enumerate().map(|(at, event)| {
            done[..at].iter().for_each(Event::wait);
            event.clone()
        });
        let set = |context: &Vec<u8>, event: Event| {
            event.set();
            context.len()
        };
        assert_eq!(pool.with(context).chunk_size(1).map(set, items).unwrap(), [1 << 20; 3]);
    });
}

#[test]
fn items_may_wait_for_one_whose_worker_died_or_is_stopped() {
    alone(|()| {
        let done = [(); 2].map(|()| Event::new().unwrap());
        let items = |done: &Event| {
            let done = done.clone();
            (0..2_u32).inspect(move |&n| {
                if n == 1 {
                    done.wait();
                }
            })
        };
        let again = |(tries, done): &(Value<u32>, Event), n: u32| {
            if tries.fetch_add(1) == 0 {
                std::process::abort();
            }
            done.set();
            n
        };
        // Its successor's ring is closed until that has come up, and this thread is in its items.
        let pool = Pool::builder().workers(1).retries(1).build().unwrap();
        let context = (Value::new(0).unwrap(), done[0].clone());
        assert_eq!(pool.with(context).chunk_size(1).map(again, items(&done[0])).unwrap(), [0, 1]);

        let pool = Pool::new(2).unwrap();
        pool.broadcast(|()| (), &()).unwrap();
        let first = Pid::from_raw(i32::try_from(pool.worker_pids()[0]).unwrap()).unwrap();
        kill_process(first, Signal::STOP).unwrap();
        let set = |done: &Event, n: u32| {
            done.set();
            n
        };
        assert_eq!(pool.with(done[1].clone()).chunk_size(1).map(set, items(&done[1])).unwrap(), [0, 1]);
    });
}

#[test]
fn what_a_failed_map_has_left_running_is_taken_in_when_it_ends() {
    alone(|()| {
        let pool = Pool::new(2).unwrap();
        let (runs, ends) = (Event::new().unwrap(), Event::new().unwrap());
        let (mut here, there) = pipe::<u32, u32>().unwrap();
        let items = [(0, runs.clone(), ends.clone(), None), (1, runs.clone(), ends.clone(), Some(there))];
        let failed = pool.job().chunk_size(1).map(
            |(n, runs, ends, end): (u32, Event, Event, Option<Connection<u32, u32>>)| {
                if n == 0 {
                    runs.wait();
                    panic!("the first");
                }
                runs.set();
                ends.wait();
                end
            },
            items,
        );
        assert!(matches!(failed, Err(Error::Panicked(_))), "{failed:?}");
        ends.set();
        // The other end is a result that nobody wants: it is dropped when that is taken in.
        assert!(matches!(here.recv(), Err(Error::Closed)));
    });
}

#[test]
fn without_a_thread_for_it_work_goes_on_too() {
    alone(|()| {
        let pool = Pool::new(1).unwrap();
        let done = Value::new(0_u32).unwrap();
        let count = |done: Value<u32>| done.update(|n| *n += 1).unwrap();
        pool.apply(count, done.clone()).unwrap();
        // Not enough for a stack.
        limit_memory_to(Some(1 << 20));
        // More than a worker is given at once, and nobody waits for them.
        let tasks: Vec<_> = (0..100).map(|_| pool.submit(count, done.clone()).unwrap()).collect();
        while done.get() <= 100 {
            std::thread::yield_now();
        }
        assert_eq!(threads("crosslane-sweeper").len(), 0);
        drop(tasks);
        // Nor is anybody busy with trying to start one.
        let before = keeper_nanos();
        std::thread::sleep(Duration::from_millis(300));
        assert!(keeper_nanos() - before < 20_000_000, "{} ns", keeper_nanos() - before);
        let ends = Event::new().unwrap();
        let task = pool.submit(|ends: Event| ends.wait(), ends.clone()).unwrap();
        limit_memory_to(None);
        while threads("crosslane-sweeper").is_empty() {
            std::thread::yield_now();
        }
        ends.set();
        task.result().unwrap();
    });
}

/// A number that cannot be encoded if it is odd.
#[derive(Debug, serde::Deserialize)]
struct Even(u32);

impl serde::Serialize for Even {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(serde::ser::Error::custom("odd"));
        }
        serializer.serialize_newtype_struct("Even", &self.0)
    }
}

#[test]
fn an_item_that_cannot_be_encoded_fails_alone() {
    let pool = Pool::new(2).unwrap();
    let check = |results: Vec<Result<u32, Error>>| {
        assert_eq!(results.len(), 20);
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(found) => assert_eq!((found, n % 2), (n + 1, 0)),
                Err(Error::Encode { .. }) => assert_eq!(n % 2, 1),
                Err(error) => panic!("{n}: {error}"),
            }
        }
    };
    let next = |Even(n): Even| n + 1;
    for chunk_size in [1, 4, 7] {
        check(pool.job().chunk_size(chunk_size).map_all(next, (0..20).map(Even)).unwrap());
        check(pool.job().chunk_size(chunk_size).imap(next, (0..20).map(Even)).collect());
    }
    assert!(matches!(pool.map(next, (0..20).map(Even)), Err(Error::Encode { .. })));
    assert!(matches!(pool.apply(next, Even(3)), Err(Error::Encode { .. })));
    // And one whose result cannot be.
    let results = pool.job().chunk_size(3).map_all(Even, 0..20).unwrap();
    check(results.into_iter().map(|result| result.map(|Even(n)| n + 1)).collect());
}

/// A panic's payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("once more");
    }
}

#[test]
fn a_payload_that_panics_when_it_is_dropped_costs_its_item_alone() {
    let pool = Pool::new(1).unwrap();
    let panics = |n: u32| if n == 1 { std::panic::panic_any(Bomb) } else { n };
    let results = pool.job().chunk_size(3).map_all(panics, 0..3).unwrap();
    assert!(matches!(&results[..], [Ok(0), Err(Error::Panicked(_)), Ok(2)]), "{results:?}");
}

#[test]
fn the_state_of_a_pool_without_an_initializer_is_nothing() {
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.submit_state(|(): &mut (), n: u32| n + 1, 1).unwrap().result().unwrap(), 2);
    assert_eq!(pool.map_state(|(): &mut (), n: u32| n + 1, 0..3).unwrap(), [1, 2, 3]);
}

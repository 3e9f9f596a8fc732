//! What people who use Python's `multiprocessing` meet again and again, of processes and their memory, each with its number
//! in the list of such pains that this project began with. Number 17 is in `family.rs`; those of queues and pipes are in
//! `tests/it/{queue,pipe,killed,descriptors}.rs`.

use std::sync::Mutex;
use std::thread;

use crosslane::shm::{Array as Named, Name, Options};
use crosslane::{Array, Error, Queue, Value, pipe_with_capacity, spawn};

use crate::support::{LIMIT, forever, open_fds};

/// "resource_tracker deletes segments others still use": who only uses one never removes it, however it ends.
#[test]
fn pain_6_the_end_of_who_uses_a_segment_removes_it_for_nobody() {
    let name = format!("pain-6-{}", std::process::id());
    let options = Options::new();
    let owner = Named::<u64>::create(&Name::new(&name).unwrap(), 4, &options).unwrap();
    owner.set(0, 7);
    let attach = |(name, is_killed): (String, bool)| {
        let attached = Named::<u64>::open(&Name::new(&name).unwrap(), &Options::new()).unwrap();
        attached.set(1, attached.get(0));
        if is_killed {
            std::process::abort();
        }
        attached.get(1)
    };
    assert_eq!(spawn(attach, (name.clone(), false)).unwrap().join().unwrap(), 7);
    assert!(spawn(attach, (name.clone(), true)).unwrap().join().is_err());
    // It is there for the next one.
    assert_eq!(spawn(attach, (name.clone(), false)).unwrap().join().unwrap(), 7);
    drop(owner);
    let gone = spawn(|name: String| Named::<u64>::open(&Name::new(&name).unwrap(), &Options::new()).is_err(), name);
    assert!(gone.unwrap().join().unwrap(), "its owner has removed it");
}

/// "Leaked semaphores and segments": nothing of a family's has a name, so nothing can stay behind; and what fails to be
/// made leaves nothing open.
#[test]
fn pain_7_a_killed_family_leaves_no_names_and_a_failure_nothing_open() {
    let family = |mut names: crosslane::Connection<Vec<String>, ()>| {
        let (queue, value) = (Queue::<u64>::bounded(64).unwrap(), Value::new([1_u64; 9]).unwrap());
        let array = Array::<u8>::zeroed(1 << 20).unwrap();
        let before = open_fds();
        assert!(Array::<u8>::zeroed(1 << 50).is_err());
        assert!(Queue::<u8>::with_limit(1 << 20, 1 << 24).is_err());
        assert_eq!(open_fds(), before);
        let in_child = |(_queue, _value, _array): (Queue<u64>, Value<[u64; 9]>, Array<u8>)| forever(());
        let child = spawn(in_child, (queue, value, array)).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        // Also what is mapped without a name has one there: "/memfd:...(deleted)".
        let shared = maps.lines().filter(|line| line.contains("rw-s"));
        names.send(&shared.map(|line| line.split_whitespace().skip(5).collect()).collect()).unwrap();
        forever(());
        drop(child);
    };
    let (mut ours, theirs) = pipe_with_capacity::<(), Vec<String>>(1 << 16).unwrap();
    let parent = spawn(family, theirs).unwrap();
    let names = ours.recv_timeout(LIMIT).unwrap();
    assert!(names.len() >= 3 && names.iter().all(|name| name.ends_with("(deleted)")), "{names:?}");
    parent.kill().unwrap();
    assert!(matches!(parent.join(), Err(Error::Died { .. })));
}

/// "fork and threads deadlock": a child begins with locks of its own, whatever the threads of its parent hold.
#[test]
fn pain_8_what_the_threads_of_the_parent_hold_is_free_in_the_child() {
    static HELD: Mutex<u32> = Mutex::new(0);
    let in_parent = |()| {
        let _held = HELD.lock().unwrap();
        let _stdout = std::io::stdout().lock();
        // Threads that are in the allocator at any moment.
        static STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn(|| {
                    while !STOP.load(std::sync::atomic::Ordering::Relaxed) {
                        drop(std::hint::black_box(vec![0_u8; 100_000]));
                    }
                })
            })
            .collect();
        let in_child = |n: u32| {
            *HELD.lock().unwrap() += n;
            print!("");
            vec![0_u8; 100_000].len()
        };
        let mut children: Vec<_> = (0..10).map(|n| spawn(in_child, n).unwrap()).collect();
        let done = children.iter_mut().all(|child| child.join_timeout(LIMIT).unwrap() == Some(100_000));
        STOP.store(true, std::sync::atomic::Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done
    };
    assert!(spawn(in_parent, ()).unwrap().join().unwrap());
}

/// "Large arrays are pickled and copied several times": what travels is a handle of a few bytes, and there is one array.
#[test]
fn pain_9_a_large_array_travels_as_a_handle() {
    const LEN: usize = 16 << 20;
    let array = Array::<u8>::zeroed(LEN).unwrap();
    let (mut ours, theirs) = pipe_with_capacity::<Array<u8>, u64>(256).unwrap();
    assert!(ours.max_bytes() < 256, "no room for a copy");
    let child = spawn(
        |mut end: crosslane::Connection<u64, Array<u8>>| {
            let array = end.recv().unwrap();
            array.set(0, 1);
            array.set(array.len() - 1, 2);
            end.send(&(array.len() as u64)).unwrap();
            array
        },
        theirs,
    );
    ours.send(&array).unwrap();
    assert_eq!(ours.recv().unwrap(), LEN as u64);
    let back = child.unwrap().join().unwrap();
    array.set(1, 3);
    assert_eq!([array.get(0), back.get(1), back.get(LEN - 1)], [1, 3, 2]);
}

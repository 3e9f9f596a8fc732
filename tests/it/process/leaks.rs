//! What is left behind: nothing. Each test counts in a process of its own.

use std::fs;
use std::thread;

use crosslane::Domain;
use crosslane::shm::{Mutex, Options};
use crosslane::{ProcessBuilder, active_children, spawn};

use crate::support::{forever, open_fds, until};

/// Children of this process, zombies among them.
fn children() -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let list = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found
}

/// Segments that this process has mapped.
fn segments() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("memfd:")).count()
}

#[test]
fn two_hundred_processes_at_once_leave_nothing() {
    let left = |()| {
        // What the first child of a process makes stays: the family's domain, and a pidfd of the process.
        spawn(|()| (), ()).unwrap().join().unwrap();
        let before = (open_fds(), segments(), children());
        thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    let started: Vec<_> = (0..25).map(|n| spawn(|n: u64| n + 1, thread * 25 + n).unwrap()).collect();
                    for (n, child) in started.into_iter().enumerate() {
                        match n % 5 {
                            // Killed, or already done.
                            0 => drop(child),
                            1 => child.detach(),
                            _ => assert_eq!(child.join().unwrap(), thread * 25 + n as u64 + 1),
                        }
                    }
                });
            }
        });
        until("detached ones have ended", || active_children().is_empty());
        (before, (open_fds(), segments(), children()))
    };
    let (before, after) = spawn(left, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
    assert_eq!(after.2, []);
}

#[test]
fn starts_that_fail_leave_nothing() {
    let left = |()| {
        spawn(|()| (), ()).unwrap().join().unwrap();
        let before = (open_fds(), children());
        for _ in 0..10 {
            assert!(ProcessBuilder::new().program("/nowhere/at/all").spawn(|()| (), ()).is_err());
            assert!(ProcessBuilder::new().current_dir("/nowhere/at/all").spawn(|()| (), ()).is_err());
        }
        (before, (open_fds(), children()))
    };
    let (before, after) = spawn(left, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
}

#[test]
fn children_that_are_killed_at_any_moment_leave_nothing() {
    let left = |()| {
        spawn(|()| (), ()).unwrap().join().unwrap();
        let before = (open_fds(), children());
        for n in 0..40 {
            let child = spawn(forever, ()).unwrap();
            // From its loader to its function.
            thread::sleep(std::time::Duration::from_micros(50 * n));
            drop(child);
        }
        (before, (open_fds(), children()))
    };
    let (before, after) = spawn(left, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_child_shares_memory_with_its_family_only_if_it_asks_for_some() {
    let in_child = |()| {
        let untouched = segments();
        let _mutex = Mutex::anonymous(1_u64, &Options::new()).unwrap();
        (untouched, segments())
    };
    let (untouched, used) = spawn(in_child, ()).unwrap().join().unwrap();
    assert_eq!(untouched, 0);
    assert!(used > 0);
}

#[test]
fn whichever_process_of_a_family_and_whichever_thread_first_asks_for_memory_the_domain_is_one() {
    fn domains(depth: u32) -> Vec<[u8; 16]> {
        let mut found = Vec::new();
        // Before this process has used any, and without telling which thread is the first.
        if depth > 0 {
            found = spawn(domains, depth - 1).unwrap().join().unwrap();
        }
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Domain::family().unwrap().id())).collect();
            found.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        });
        found
    }
    let own = Domain::family().unwrap().id();
    assert_eq!(domains(2), [own; 12]);
}

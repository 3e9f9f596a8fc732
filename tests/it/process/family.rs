//! Processes that start processes, and what the end of one means for the others.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crosslane::{Error, Process, ProcessBuilder, active_children, at_exit, current_process, parent_process, spawn};

use crate::support::{LIMIT, forever, is_running, state, until};

/// Starts `function`, which prints process ids, one a line; returns its handle and the ids.
fn started(function: fn(()), lines: usize) -> (Process<()>, Vec<u32>) {
    let mut child = ProcessBuilder::new().stdout(Stdio::piped()).spawn(function, ()).unwrap();
    let output = BufReader::new(child.take_stdout().unwrap());
    let pids: Vec<u32> = output.lines().take(lines).map(|line| line.unwrap().parse().unwrap()).collect();
    assert_eq!(pids.len(), lines);
    (child, pids)
}

fn print(pid: u32) {
    println!("{pid}");
    std::io::stdout().flush().unwrap();
}

/// Starts a child that never returns, and does so itself.
fn parent_of_one(_: ()) {
    let child = spawn(forever, ()).unwrap();
    print(child.id());
    forever(());
}

#[test]
fn pain_17_children_end_within_a_second_of_their_killed_parent() {
    let time = || {
        let (parent, pids) = started(parent_of_one, 1);
        assert!(is_running(pids[0]));
        let start = Instant::now();
        parent.kill().unwrap();
        until("the child has ended", || !is_running(pids[0]));
        start.elapsed()
    };
    // Where a machine stands still for some seconds, so do they: another child tells.
    let mut times = Vec::new();
    while times.last().is_none_or(|time| *time >= Duration::from_secs(1)) {
        assert!(times.len() < 10, "{times:?}");
        times.push(time());
    }
}

#[test]
fn so_do_grandchildren_and_children_that_have_not_begun() {
    fn tree(depth: u32) {
        if depth > 0 {
            let child = spawn(tree, depth - 1).unwrap();
            print(child.id());
            std::mem::forget(child);
        }
        forever(());
    }
    let (parent, pids) = started(|()| tree(3), 3);
    // The last one may still be in its loader.
    parent.kill().unwrap();
    until("all have ended", || pids.iter().all(|pid| !is_running(*pid)));
}

/// Ends a process that the test would leave behind if it failed.
struct Ends(rustix::fd::OwnedFd);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, rustix::process::Signal::KILL);
    }
}

#[test]
fn children_that_are_allowed_no_descriptors_end_with_their_parent() {
    fn confined(_: ()) {
        let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        print(std::process::id());
        forever(());
    }
    let (parent, pids) = started(
        |()| {
            std::mem::forget(spawn(confined, ()).unwrap());
            forever(());
        },
        1,
    );
    let child = rustix::process::Pid::from_raw(pids[0].cast_signed()).unwrap();
    let _ends = Ends(rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()).unwrap());
    // Who is stopped and goes on calls anew what it slept in.
    let is_stopped =
        || std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).is_ok_and(|stat| stat.contains(") T "));
    rustix::process::kill_process(child, rustix::process::Signal::STOP).unwrap();
    until("it is stopped", is_stopped);
    rustix::process::kill_process(child, rustix::process::Signal::CONT).unwrap();
    until("it goes on", || !is_stopped());
    parent.kill().unwrap();
    until("the child has ended", || !is_running(pids[0]));
}

#[test]
fn a_copy_of_the_control_socket_keeps_nobody_alive() {
    let (parent, pids) = started(
        |()| {
            let child = spawn(forever, ()).unwrap();
            // SAFETY: the copy makes system calls only.
            let copy = unsafe { libc::fork() };
            if copy == 0 {
                loop {
                    // SAFETY: no arguments.
                    unsafe { libc::pause() };
                }
            }
            print(child.id());
            print(copy.unsigned_abs());
            forever(());
        },
        2,
    );
    parent.kill().unwrap();
    until("the child has ended", || !is_running(pids[0]));
    assert!(is_running(pids[1]), "the copy holds the socket until now");
    let copy = rustix::process::Pid::from_raw(i32::try_from(pids[1]).unwrap()).unwrap();
    assert!(copy.as_raw_nonzero().get() > 1);
    rustix::process::kill_process(copy, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn children_end_with_a_parent_that_exits_and_forgets_them() {
    let (mut parent, pids) = started(
        |()| {
            let child = spawn(forever, ()).unwrap();
            print(child.id());
            std::mem::forget(child);
        },
        1,
    );
    assert!(parent.wait_timeout(LIMIT).unwrap().expect("it ends").success());
    until("the child has ended", || !is_running(pids[0]));
}

#[test]
fn a_detached_child_outlives_its_killed_parent() {
    fn orphan(_: ()) {
        let parent = parent_process().expect("it was started by another process");
        assert!(parent.join_timeout(LIMIT).unwrap());
        assert!(!parent.is_alive());
        print(std::process::id());
    }
    let mut parent = ProcessBuilder::new()
        .stdout(Stdio::piped())
        .spawn(
            |()| {
                let child = spawn(orphan, ()).unwrap();
                let id = child.id();
                // At once: it may not have begun.
                child.detach();
                // Whoever reads this kills this process.
                print(id);
                forever(());
            },
            (),
        )
        .unwrap();
    let mut lines = BufReader::new(parent.take_stdout().unwrap()).lines();
    let id = lines.next().unwrap().unwrap();
    parent.kill().unwrap();
    assert_eq!(lines.next().expect("the orphan lives").unwrap(), id);
    assert!(lines.next().is_none());
}

#[test]
fn the_end_of_the_thread_that_started_it_does_not_end_a_child() {
    let (reader, writer) = std::io::pipe().unwrap();
    let start = || {
        let wait_for_end = |()| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        ProcessBuilder::new().stdin(reader).spawn(wait_for_end, ()).unwrap()
    };
    let child = std::thread::spawn(start).join().unwrap();
    drop(writer);
    assert_eq!(child.join().unwrap(), 0);
}

#[test]
fn depth_is_limited_and_the_error_says_so() {
    fn deeper(_: ()) -> Result<u32, (u32, u32)> {
        match spawn(deeper, ()) {
            Ok(child) => child.join().unwrap().map(|below| below + 1),
            Err(Error::TooDeep { depth, limit }) => Err((depth, limit)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(deeper(()), Err((33, 32)));
}

#[test]
fn each_process_has_its_own_children() {
    let in_child = |()| {
        let own = spawn(forever, ()).unwrap();
        let listed: Vec<u32> = active_children().iter().map(crosslane::ActiveChild::id).collect();
        listed == [own.id()]
    };
    let other = spawn(forever, ()).unwrap();
    assert!(spawn(in_child, ()).unwrap().join().unwrap());
    drop(other);
}

#[test]
fn exit_hooks_run_in_reverse_order_however_the_child_exits() {
    fn run(end: u32) {
        for n in 0..3 {
            at_exit(move || println!("hook {n} of {}", current_process().name()));
        }
        at_exit(|| panic!("a hook that panics stops no other"));
        match end {
            0 => println!("returns"),
            1 => panic!("panics"),
            _ => std::process::exit(7),
        }
    }
    for (end, said, code) in [(0, "returns\n", 0), (1, "", 1), (2, "", 7)] {
        let builder = ProcessBuilder::new().name("tidy").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = builder.spawn(run, end).unwrap();
        let output = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
        assert_eq!(output, format!("{said}hook 2 of tidy\nhook 1 of tidy\nhook 0 of tidy\n"));
        child.wait().unwrap();
        assert_eq!(child.exit_code(), Some(code));
    }
}

#[test]
fn a_hook_whose_panic_cannot_even_be_dropped_stops_no_other() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a payload that panics");
        }
    }
    let hooks = |()| {
        at_exit(|| println!("the last"));
        at_exit(|| std::panic::panic_any(Panics));
    };
    let mut child = ProcessBuilder::new().stdout(Stdio::piped()).stderr(Stdio::null()).spawn(hooks, ()).unwrap();
    assert_eq!(std::io::read_to_string(child.take_stdout().unwrap()).unwrap(), "the last\n");
    child.wait().unwrap();
    assert_eq!(child.exit_code(), Some(0));
}

#[test]
fn a_raw_fork_of_the_parent_takes_no_result_and_sends_no_signal() {
    let in_child = |()| {
        let (mut ours, theirs) = crosslane::pipe::<(), ()>().unwrap();
        let mut child = spawn(|mut gate: crosslane::Connection<(), ()>| gate.recv().is_ok(), theirs).unwrap();
        // SAFETY: this thread goes on alone in the copy, which exits.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let joined = child.join_timeout(LIMIT);
            let refused = matches!(joined, Err(Error::Forked)) && matches!(child.kill(), Err(Error::Forked));
            std::process::exit(i32::from(!refused));
        }
        let copy = rustix::process::Pid::from_raw(copy).unwrap();
        let (_, status) = rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
        ours.send(&()).unwrap();
        child.join().unwrap()
    };
    assert!(spawn(in_child, ()).unwrap().join().unwrap());
}

#[test]
fn a_raw_fork_of_the_parent_has_no_children_and_ends_none() {
    let in_child = |()| {
        let mut child = spawn(forever, ()).unwrap();
        at_exit(|| println!("once"));
        // SAFETY: this thread goes on alone in the copy, which drops the handle and exits.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            drop(child);
            assert!(active_children().is_empty());
            std::process::exit(0);
        }
        let copy = rustix::process::Pid::from_raw(copy).unwrap();
        let (_, status) = rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
        let is_alive = child.is_alive();
        child.kill().unwrap();
        child.wait().unwrap();
        (is_alive, child.exit_code())
    };
    let mut child = ProcessBuilder::new().stdout(Stdio::piped()).spawn(in_child, ()).unwrap();
    let output = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
    assert_eq!(child.join().unwrap(), (true, Some(-9)));
    assert_eq!(output, "once\n");
}

#[test]
fn a_dead_child_is_no_zombie_once_it_was_looked_at() {
    let child = spawn(|()| (), ()).unwrap();
    until("it has ended", || !child.is_alive());
    assert_eq!(state(child.id()), None);
}

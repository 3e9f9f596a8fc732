//! Ends: exit codes, signals, dropped and detached handles.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crosslane::{Error, Process, ProcessBuilder, Sender, active_children, at_exit, pipe, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{LIMIT, forever, hear_interrupts, is_running, state, until};

/// Waits for its end, and gives its exit code as Python does.
fn code<R>(mut child: Process<R>) -> i32 {
    child.wait_timeout(LIMIT).unwrap().expect("it ends");
    child.exit_code().unwrap()
}

#[test]
fn exit_codes_are_pythons() {
    hear_interrupts();
    assert_eq!(code(spawn(|()| (), ()).unwrap()), 0);
    assert_eq!(code(spawn(|()| -> () { panic!("an exit code of 1") }, ()).unwrap()), 1);
    assert_eq!(code(spawn(|n: i32| -> () { std::process::exit(n) }, 3).unwrap()), 3);
    assert_eq!(code(spawn(|n: i32| -> () { std::process::exit(n) }, 0).unwrap()), 0);
    assert_eq!(code(spawn(|()| -> () { std::process::abort() }, ()).unwrap()), -6);
    let child = spawn(forever, ()).unwrap();
    child.terminate().unwrap();
    assert_eq!(code(child), -15);
    let child = spawn(forever, ()).unwrap();
    child.kill().unwrap();
    assert_eq!(code(child), -9);
    let child = spawn(forever, ()).unwrap();
    child.interrupt().unwrap();
    assert_eq!(code(child), -2);
}

#[test]
fn a_child_that_a_signal_ends_runs_no_hooks() {
    hear_interrupts();
    for end in [Process::kill, Process::terminate, Process::interrupt] {
        let hooked = |mut ready: Sender<()>| {
            at_exit(|| println!("a hook"));
            ready.send(&()).unwrap();
            forever(());
        };
        let (a, b) = pipe::<(), ()>().unwrap();
        let builder = ProcessBuilder::new().stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = builder.spawn(hooked, b.split().0).unwrap();
        a.split().1.recv().unwrap();
        end(&child).unwrap();
        assert_eq!(std::io::read_to_string(child.take_stdout().unwrap()).unwrap(), "");
    }
}

#[test]
fn a_death_carries_pid_and_status() {
    let child = spawn(|()| -> u8 { std::process::abort() }, ()).unwrap();
    let id = child.id();
    match child.join() {
        Err(Error::Died { pid, status }) => assert_eq!((pid, status.signal()), (id, Some(6))),
        other => panic!("{other:?}"),
    }
    match spawn(|()| -> u8 { std::process::exit(0) }, ()).unwrap().join() {
        Err(Error::Died { status, .. }) => assert!(status.success()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_end_is_seen_without_waiting_and_again_and_again() {
    let mut child = spawn(forever, ()).unwrap();
    assert!(child.is_alive());
    assert_eq!((child.exit_status(), child.exit_code()), (None, None));
    child.kill().unwrap();
    until("it has ended", || !child.is_alive());
    for _ in 0..2 {
        assert_eq!(child.exit_code(), Some(-9));
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(matches!(child.join_timeout(Duration::ZERO), Err(Error::Died { .. })));
        // Nobody is there any more, and nobody else is met.
        child.kill().unwrap();
        child.terminate().unwrap();
        child.interrupt().unwrap();
    }
}

#[test]
fn a_dropped_process_is_killed_and_reaped() {
    let child = spawn(forever, ()).unwrap();
    let id = child.id();
    assert!(is_running(id));
    drop(child);
    assert_eq!(state(id), None);
}

#[test]
fn a_detached_process_lives_on_and_is_reaped_by_whoever_looks() {
    let (reader, writer) = std::io::pipe().unwrap();
    let wait_for_end = |()| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    let child = ProcessBuilder::new().name("loose").stdin(reader).spawn(wait_for_end, ()).unwrap();
    let id = child.id();
    child.detach();
    let listed = || active_children().into_iter().find(|child| child.id() == id);
    assert_eq!(listed().expect("it lives").name(), "loose");
    assert!(listed().unwrap().is_alive());
    drop(writer);
    until("it has ended and was reaped", || listed().is_none());
    assert_eq!(state(id), None);
}

#[test]
fn active_children_are_those_that_live() {
    let child = spawn(forever, ()).unwrap();
    let listed = || active_children().into_iter().find(|other| other.id() == child.id());
    assert_eq!(listed().expect("it lives").name(), child.name());
    listed().unwrap().kill().unwrap();
    until("it has ended", || listed().is_none());
    assert_eq!(child.exit_code(), Some(-9));
}

#[test]
fn the_sentinel_is_readable_at_the_end_and_not_before() {
    let child = spawn(forever, ()).unwrap();
    let is_ready = |timeout: Duration| {
        let mut fds = [PollFd::from_borrowed_fd(child.sentinel(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(timeout).unwrap())).unwrap() == 1
    };
    assert!(!is_ready(Duration::from_millis(20)));
    child.kill().unwrap();
    assert!(is_ready(LIMIT));
    assert!(child.as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn a_wait_in_one_thread_sees_what_another_does() {
    let mut child = spawn(forever, ()).unwrap();
    let killer = active_children().into_iter().find(|other| other.id() == child.id()).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || child.wait_timeout(LIMIT).unwrap().expect("it ends").signal());
        killer.terminate().unwrap();
        assert_eq!(waiter.join().unwrap(), Some(15));
    });
    assert!(!killer.is_alive());
}

#[test]
fn a_timeout_takes_as_long_as_it_says() {
    let mut child = spawn(forever, ()).unwrap();
    let start = Instant::now();
    assert!(child.wait_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert!(start.elapsed() >= Duration::from_millis(50));
}

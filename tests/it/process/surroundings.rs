//! What a child gets from its parent, and parents in odd states. What changes a process does so in one of its own.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;

use crosslane::{Error, ProcessBuilder, cpu_count, spawn};
use rustix::process::{Resource, Rlimit};

use crate::support::{LIMIT, forever, open_fds};

#[test]
fn the_environment_is_the_parents_with_the_builders_changes() {
    let seen = |keys: Vec<String>| keys.iter().map(|key| std::env::var(key).ok()).collect::<Vec<_>>();
    let keys = || vec!["PATH".to_owned(), "CROSSLANE_A".to_owned(), "CROSSLANE_B".to_owned()];
    let path = std::env::var("PATH").ok();
    let builder = ProcessBuilder::new().env("CROSSLANE_A", "1").env("CROSSLANE_B", "2").env_remove("CROSSLANE_B");
    assert_eq!(builder.spawn(seen, keys()).unwrap().join().unwrap(), [path, Some("1".into()), None]);
    let builder = ProcessBuilder::new().env("CROSSLANE_A", "1").env_clear().env("CROSSLANE_B", "2");
    assert_eq!(builder.spawn(seen, keys()).unwrap().join().unwrap(), [None, None, Some("2".into())]);
}

#[test]
fn arguments_and_directory_are_the_parents_unless_told_otherwise() {
    let seen = |()| (std::env::args().collect::<Vec<_>>(), std::env::current_dir().unwrap());
    let (args, dir) = spawn(seen, ()).unwrap().join().unwrap();
    assert_eq!((args, dir), (std::env::args().collect(), std::env::current_dir().unwrap()));
    let (_, dir) = ProcessBuilder::new().current_dir("/").spawn(seen, ()).unwrap().join().unwrap();
    assert_eq!(dir.to_str(), Some("/"));
}

#[test]
fn standard_streams_are_empty_inherited_or_given() {
    let echo = |()| {
        let input = std::io::read_to_string(std::io::stdin()).unwrap();
        println!("out {input}");
        eprintln!("err {input}");
        input
    };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let builder = ProcessBuilder::new().stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = builder.spawn(echo, ()).unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    let (mut out, mut err) = (String::new(), String::new());
    child.take_stdout().unwrap().read_to_string(&mut out).unwrap();
    child.take_stderr().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.take_stdout().is_none());
    assert_eq!((child.join().unwrap(), out, err), ("hello".into(), "out hello\n".into(), "err hello\n".into()));
    let builder = ProcessBuilder::new().stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(builder.spawn(echo, ()).unwrap().join().unwrap(), "");
}

#[test]
fn what_stands_in_the_standard_output_is_written_at_the_end() {
    let mut child = ProcessBuilder::new().stdout(Stdio::piped()).spawn(|()| print!("no newline"), ()).unwrap();
    let output = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
    assert_eq!(output, "no newline");
    child.join().unwrap();
}

#[test]
fn a_broken_standard_output_is_an_error_of_who_writes_and_no_signal() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let write =
        |()| std::io::stdout().write_all(&[b'x'; 1 << 16]).unwrap_err().kind() == std::io::ErrorKind::BrokenPipe;
    let child = ProcessBuilder::new().stdout(writer.try_clone().unwrap()).spawn(write, ()).unwrap();
    assert!(child.join().unwrap());
    // What is only flushed at the end is lost, and the result is not.
    let child = ProcessBuilder::new().stdout(writer).spawn(|()| print!("lost"), ()).unwrap();
    child.join().unwrap();
}

#[test]
fn no_descriptor_but_the_standard_streams_is_inherited() {
    let in_parent = |()| {
        let in_child = |()| open_fds();
        let before = spawn(in_child, ()).unwrap().join().unwrap();
        let open: Vec<_> = (0..5).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let siblings: Vec<_> = (0..5).map(|_| spawn(forever, ()).unwrap()).collect();
        (before, open_fds() - open.len() > siblings.len(), spawn(in_child, ()).unwrap().join().unwrap())
    };
    let (before, _, after) = spawn(in_parent, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
}

/// Closes the standard streams of which `which` has the bit.
fn close_streams(which: u32) {
    for fd in (0..3).filter(|fd| which & 1 << fd != 0) {
        // SAFETY: this process's function uses none of them.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

#[test]
fn a_parent_with_closed_standard_streams_starts_children() {
    let in_parent = |which: u32| {
        close_streams(which);
        let child = spawn(|n: u32| std::io::read_to_string(std::io::stdin()).unwrap().len() + n as usize, 7).unwrap();
        // Whatever is written to the streams goes nowhere near the control socket.
        let _ = std::io::stdout().write_all(b"x\n");
        let _ = std::io::stderr().write_all(b"x\n");
        let fds = [child.sentinel().as_raw_fd()];
        assert!(fds.iter().all(|fd| *fd > 2));
        child.join().unwrap()
    };
    for which in 1..8 {
        let builder = ProcessBuilder::new().stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(builder.spawn(in_parent, which).unwrap().join().unwrap(), 7, "{which:03b}");
    }
}

#[test]
fn ignored_child_signals_lose_no_result_and_no_status() {
    let in_parent = |()| {
        // SAFETY: an action that is no function.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let result = spawn(|n: u32| n + 1, 1).unwrap().join().unwrap();
        let mut killed = spawn(forever, ()).unwrap();
        killed.kill().unwrap();
        let error = match killed.join_timeout(LIMIT) {
            // Linux 6.15 and later keep it for the holder of a pidfd.
            Err(Error::Died { .. }) => killed.exit_code() == Some(-9),
            Err(Error::Vanished { pid }) => pid == killed.id(),
            _ => false,
        };
        let dropped = spawn(forever, ()).unwrap();
        drop(dropped);
        (result, error)
    };
    assert_eq!(spawn(in_parent, ()).unwrap().join().unwrap(), (2, true));
}

#[test]
fn a_program_that_ends_at_once_and_that_nobody_waits_for_is_told_so() {
    let in_parent = |()| {
        // SAFETY: an action that is no function.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let end = |_| match ProcessBuilder::new().program("/bin/true").spawn(|()| (), ()).map(|mut child| child.wait())
        {
            // Before it was looked at, or after.
            Ok(Ok(_) | Err(Error::Vanished { .. })) | Err(Error::Vanished { .. }) => None,
            other => Some(format!("{other:?}")),
        };
        (0..60).find_map(end)
    };
    assert_eq!(spawn(in_parent, ()).unwrap().join().unwrap(), None);
}

#[test]
fn a_child_that_somebody_else_has_waited_for_is_seen_to_have_ended() {
    let in_parent = |()| {
        let mut child = spawn(|n: u32| n + 1, 1).unwrap();
        let waited = rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(waited.0.as_raw_nonzero().get().unsigned_abs(), child.id());
        child.join_timeout(LIMIT).unwrap()
    };
    assert_eq!(spawn(in_parent, ()).unwrap().join().unwrap(), Some(2));
}

#[test]
fn a_program_that_runs_no_function_is_told_what_it_lacks() {
    let error = ProcessBuilder::new().program("/bin/true").spawn(|()| (), ()).unwrap().join().unwrap_err();
    assert!(matches!(error, Error::NotInitialized), "{error:?}");
    assert!(error.to_string().contains("must begin with crosslane::init()"), "{error}");
}

/// As a program does that takes care of all its children in a thread.
#[test]
fn children_that_somebody_else_waits_for_meanwhile_lose_no_result_and_hang_nobody() {
    let in_parent = |()| {
        std::thread::spawn(|| {
            // Whichever child ends, until the process does.
            loop {
                let _ = rustix::process::wait(rustix::process::WaitOptions::empty());
                std::thread::yield_now();
            }
        });
        let is_told = |child: Result<crosslane::Process<()>, Error>| match child
            .and_then(|mut child| child.join_timeout(LIMIT))
        {
            Ok(joined) => joined.is_some(),
            Err(Error::Vanished { .. } | Error::Died { .. } | Error::NotInitialized) => true,
            Err(_) => false,
        };
        for n in 0..20 {
            assert_eq!(spawn(|n: u32| n + 1, n).unwrap().join().unwrap(), n + 1);
            let killed = spawn(forever, ()).unwrap();
            killed.kill().unwrap();
            assert!(is_told(Ok(killed)));
            // It may end, and be waited for, at any moment of being started.
            assert!(is_told(ProcessBuilder::new().program("/bin/true").spawn(|()| (), ())));
        }
    };
    spawn(in_parent, ()).unwrap().join().unwrap();
}

#[test]
fn without_descriptors_it_says_so_and_works_again_with_some() {
    let in_parent = |()| {
        spawn(|()| (), ()).unwrap().join().unwrap();
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let mut errors = [0; 2];
        for current in 5..16 {
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).unwrap();
            match spawn(|()| (), ()) {
                Err(Error::FdLimit) => errors[0] += 1,
                // The child has the limit too.
                Ok(child) => match child.join() {
                    Err(Error::FdLimit) => errors[1] += 1,
                    joined => drop(joined),
                },
                Err(error) => panic!("{error:?}"),
            }
            rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        }
        spawn(|()| (), ()).unwrap().join().unwrap();
        errors
    };
    let [in_parent, in_child] = spawn(in_parent, ()).unwrap().join().unwrap();
    assert!((1..11).contains(&in_parent), "{in_parent}");
    assert!((0..11 - in_parent).contains(&in_child), "{in_child}");
}

#[test]
fn cpus_are_those_that_this_process_may_use() {
    assert!(cpu_count() >= 1);
    let pinned = |()| {
        let mut one = rustix::thread::CpuSet::new();
        let all = rustix::thread::sched_getaffinity(None).unwrap();
        one.set((0..1024).find(|cpu| all.is_set(*cpu)).unwrap());
        rustix::thread::sched_setaffinity(None, &one).unwrap();
        (cpu_count(), spawn(|()| cpu_count(), ()).unwrap().join().unwrap())
    };
    assert_eq!(spawn(pinned, ()).unwrap().join().unwrap(), (1, 1));
}

/// Runs this test again as a set-user-id program, in which children would believe no marker.
#[test]
fn a_program_with_rights_that_its_caller_lacks_starts_nothing() {
    // SAFETY: reads a value that the kernel left for this process.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        match spawn(|()| (), ()) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {}
            other => panic!("{other:?}"),
        }
        println!("refused");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make such a program of another user's");
        return;
    }
    let own = std::env::current_exe().unwrap();
    if own.extension().is_some_and(|extension| extension == "privileged") {
        println!("skipped: the file system is mounted without set-user-id bits");
        return;
    }
    let copy = own.with_extension("privileged");
    std::fs::copy(&own, &copy).unwrap();
    std::os::unix::fs::chown(&copy, Some(65_534), None).unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let name = concat!(module_path!(), "::a_program_with_rights_that_its_caller_lacks_starts_nothing");
    let (_, name) = name.split_once("::").unwrap();
    let output = loop {
        match std::process::Command::new(&copy).args(["--exact", name, "--nocapture"]).output() {
            // Another test's child, which has not executed its program yet, has the copy open for writing.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output,
        }
    };
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success() && (said.contains("refused") || said.contains("skipped")), "{output:?}");
}

//! Processes forked or re-executed by a test, and a place for its names. Every process has an alarm, so that a hang ends
//! as a failure.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crosslane_core::OwnerId;
use crosslane_shm::{Domain, Name, Options, Probe};

const WATCHDOG_SECONDS: u32 = 120;

/// (Re)starts this process's watchdog.
pub(crate) fn watchdog() {
    // SAFETY: replaces the timer of an earlier test of this process; SIGALRM ends the process.
    unsafe { libc::alarm(WATCHDOG_SECONDS) };
}

/// A forked process of the test.
#[must_use]
pub(crate) struct Child {
    pub(crate) pid: libc::pid_t,
    from: PipeReader,
    to: PipeWriter,
}

/// What a child has to talk to its parent.
pub(crate) struct Parent {
    from: PipeReader,
    to: PipeWriter,
}

impl Parent {
    /// Sends a number.
    pub(crate) fn tell(&mut self, number: u32) {
        self.to.write_all(&number.to_ne_bytes()).unwrap();
    }

    /// Waits for a number.
    pub(crate) fn hear(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.from.read_exact(&mut bytes).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// Sleeps until killed.
    pub(crate) fn forever(&self) -> ! {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
}

/// Forks a child that runs `work` and ends: with 0 if that did not panic.
pub(crate) fn fork(work: impl FnOnce(&mut Parent)) -> Child {
    watchdog();
    let (child_from, to) = std::io::pipe().unwrap();
    let (from, child_to) = std::io::pipe().unwrap();
    // SAFETY: glibc's fork leaves its allocator usable in the child; the child ends without unwinding out of here.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        drop((from, to));
        watchdog();
        let mut parent = Parent { from: child_from, to: child_to };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut parent))).is_ok();
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    Child { pid, from, to }
}

impl Child {
    /// Waits for a number from the child.
    pub(crate) fn hear(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.from.read_exact(&mut bytes).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// Sends the child a number.
    pub(crate) fn tell(&mut self, number: u32) {
        self.to.write_all(&number.to_ne_bytes()).unwrap();
    }

    /// Waits for an id from the child.
    pub(crate) fn id(&mut self) -> OwnerId {
        OwnerId::from_word(self.hear()).unwrap()
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        assert!(self.pid > 1);
        // SAFETY: a child of ours that was not reaped yet.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// SIGKILL, and reaps.
    pub(crate) fn kill(self) {
        self.signal(libc::SIGKILL);
        let status = self.reap();
        assert!(libc::WIFSIGNALED(status), "status {status}");
    }

    /// Waits for the child's end and asserts that its work was done.
    pub(crate) fn join(self) {
        assert_eq!(self.reap(), 0);
    }

    /// Waits for the child's end, whatever it is.
    pub(crate) fn status(self) -> i32 {
        self.reap()
    }

    /// Waits until the child sleeps in a futex.
    pub(crate) fn await_asleep(&self) {
        // Where system calls may not be looked at, any sleep that a signal ends counts.
        let is_asleep = || match std::fs::read_to_string(format!("/proc/{}/syscall", self.pid)) {
            Ok(line) => [libc::SYS_futex, libc::SYS_futex_waitv].iter().any(|n| line.starts_with(&format!("{n} "))),
            Err(_) => self.state() == 'S',
        };
        while !is_asleep() {
            std::thread::yield_now();
        }
    }

    /// The state letter of `/proc/<pid>/stat`.
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).unwrap()
    }

    fn reap(self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours.
        while unsafe { libc::waitpid(self.pid, &raw mut status, 0) } != self.pid {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
        }
        status
    }
}

/// Probes until `owner` is proven dead. After a reap the address space is gone, so this is usually at once.
pub(crate) fn await_death(domain: &Domain, owner: OwnerId) {
    while domain.probe(owner).unwrap() != Probe::Dead {
        std::thread::yield_now();
    }
}

/// A directory of a test's own on the shared-memory file system; must be empty at the end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        watchdog();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/crosslane-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The directory's, with more patience than a machine stands still in the middle of an open.
    pub(crate) fn options(&self) -> Options {
        Options::new().directory(&self.0).open_timeout(std::time::Duration::from_secs(60))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &Name) -> PathBuf {
        self.0.join(name.as_str())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let left = self.names();
        std::fs::remove_dir_all(&self.0).unwrap();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Makes `victim`'s number lead to what `other` leads to, as an fd-number accident would.
pub(crate) fn replace_fd(victim: BorrowedFd<'_>, other: &impl AsFd) {
    // SAFETY: takes no memory; the test means to pull the file away.
    assert!(unsafe { libc::dup2(other.as_fd().as_raw_fd(), victim.as_raw_fd()) } >= 0);
}

/// Closes every fd from 3 on that the runtime of the test does not need, as a careless program does.
pub(crate) fn close_fds_except(keep: &[libc::c_int]) {
    let limit = 1024;
    for fd in 3..limit {
        if !keep.contains(&fd) {
            // SAFETY: takes no memory; the test means to pull the files away.
            unsafe { libc::close(fd) };
        }
    }
}

impl Parent {
    pub(crate) fn fds(&self) -> [libc::c_int; 2] {
        [self.from.as_raw_fd(), self.to.as_raw_fd()]
    }
}

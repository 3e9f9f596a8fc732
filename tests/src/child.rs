//! Forked children of a single-threaded driver.

use core::time::Duration;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

/// The time between two looks at a child that may be stuck.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// A child that has used more ticks of CPU time (of 10 ms) for a few calls spins.
const SPINS_TICKS: u64 = 3;
/// Where user and system time are in `/proc/<pid>/stat`, counted from behind the name.
const UTIME_AFTER_NAME: usize = 11;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It returned, or called exit with this code.
    Exited(i32),
    /// It was ended by this signal.
    Signalled(i32),
}

/// A forked child. It dies with the driver, and when this handle is dropped.
#[derive(Debug)]
#[must_use = "dropping it kills the child"]
pub struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    end: Option<End>,
}

impl Child {
    /// Forks a child that runs `body` and exits with what it returns; a panic exits with 101.
    ///
    /// The driver must be single-threaded. Limits are inherited: see [`restrain`](crate::watchdog::restrain).
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn fork(body: impl FnOnce() -> i32) -> Self {
        let driver = std::process::id();
        // SAFETY: this process has one thread, so the child finds no lock held by a thread that it does not have.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            run(driver, body);
        }
        // SAFETY: a plain call; the child is ours and not yet reaped, so the pid is its own.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        assert!(pidfd >= 0, "pidfd_open: {}", io::Error::last_os_error());
        let pidfd = i32::try_from(pidfd).expect("descriptors are small");
        // SAFETY: just opened, owned by nobody else.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Self { pid, pidfd, end: None }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Waits for the child's end; `None` when `timeout` is over.
    ///
    /// # Panics
    /// If the kernel does not know the child.
    pub fn wait(&mut self, timeout: Duration) -> Option<End> {
        let deadline = Instant::now() + timeout;
        while self.end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            let ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let mut poll = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            match unsafe { libc::poll(&mut poll, 1, ms) } {
                0 => return None,
                1.. => self.reap(),
                _ => assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::Interrupted),
            }
        }
        self.end
    }

    fn reap(&mut self) {
        let mut status = 0;
        // SAFETY: waits for our own child, writes one int.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(pid, self.pid, "waitpid: {}", io::Error::last_os_error());
        self.end = Some(if libc::WIFSIGNALED(status) {
            End::Signalled(libc::WTERMSIG(status))
        } else {
            End::Exited(libc::WEXITSTATUS(status))
        });
    }

    /// Sends `signal`, if the child has not been reaped.
    pub fn signal(&self, signal: i32) {
        if self.end.is_none() && self.pid > 1 {
            // SAFETY: a child of ours that is not reaped, so the pid cannot have been reused.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    /// Whether the child is blocked in a futex wait (on any word but the one at `except`).
    #[must_use]
    pub fn is_asleep(&self, except: usize) -> bool {
        // Without the right to look at system calls: any interruptible sleep.
        sleeps_in_futex(&format!("/proc/{}/syscall", self.pid), Some(except)).unwrap_or(self.state() == Some('S'))
    }

    /// The state letter of `/proc/<pid>/stat`.
    #[must_use]
    pub fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit(')').next()?.trim_start().chars().next()
    }

    /// Waits until the child sleeps in a futex: `true`; `false` if it has ended or `timeout` is over.
    pub fn wait_asleep(&mut self, except: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.is_asleep(except) {
                return true;
            }
            if self.ended_within(Duration::from_micros(30)) || Instant::now() > deadline {
                return false;
            }
        }
    }

    /// Waits for the end of a child that has little to do and that only other processes could wake, and they do nothing
    /// more: `None` as soon as it was seen asleep in a futex wait twice in a row, or has spun for long, or `timeout` is over.
    pub fn wait_unless_stuck(&mut self, except: usize, timeout: Duration) -> Option<End> {
        let deadline = Instant::now() + timeout;
        let mut asleep = false;
        loop {
            let end = self.wait(BETWEEN_LOOKS);
            let again = asleep;
            asleep = self.is_asleep(except);
            if end.is_some() || (again && asleep) || self.ticks() > SPINS_TICKS || Instant::now() > deadline {
                return end;
            }
        }
    }

    /// Ticks of CPU time that it has used; 0 when it has ended.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        fields.split_whitespace().skip(UTIME_AFTER_NAME).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    }

    fn ended_within(&self, time: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time = libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        // SAFETY: one valid pollfd, one valid timespec, no signal mask.
        unsafe { libc::ppoll(&mut poll, 1, &time, core::ptr::null()) == 1 }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.end.is_none() {
            self.signal(libc::SIGKILL);
            self.reap();
        }
    }
}

/// Whether the thread whose `syscall` file this is waits for a futex word, other than that at `except`; `None`: the file
/// cannot be read.
#[must_use]
pub fn sleeps_in_futex(syscall_file: &str, except: Option<usize>) -> Option<bool> {
    let line = fs::read_to_string(syscall_file).ok()?;
    let mut words = line.split_whitespace();
    let waits = matches!(words.next(), Some("202" | "449"));
    let word = words.next().and_then(|word| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    Some(waits && (except.is_none() || word != except))
}

/// Panics of this process print nothing: its message page says what happened, and a stepped process has no time for it.
pub fn panic_quietly() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Ends this very process by SIGKILL, with everything that it holds. Async-signal-safe.
pub fn die() -> ! {
    // SAFETY: a plain call.
    let me = unsafe { libc::getpid() };
    // SAFETY: signals this process itself.
    unsafe { libc::kill(me, libc::SIGKILL) };
    // SAFETY: a plain call; not reached, unless this is the init process of a container, which no signal ends.
    unsafe { libc::_exit(137) };
}

fn run(driver: u32, body: impl FnOnce() -> i32) -> ! {
    // SAFETY: a plain call; the driver has one thread, so its death is the process's.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let code = if std::os::unix::process::parent_id() == driver {
        std::panic::catch_unwind(core::panic::AssertUnwindSafe(body)).unwrap_or(101)
    } else {
        1
    };
    // SAFETY: ends the child without running the driver's exit handlers.
    unsafe { libc::_exit(code) }
}

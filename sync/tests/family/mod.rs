//! Processes forked by a test, over one anonymous shared mapping, with a liveness that the test controls: a child is
//! dead when it was reaped. Every test starts an alarm, so that a hang ends the run as a failure.
#![allow(dead_code, reason = "each test file uses a part")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use crosslane_core::{Liveness, OwnerId, Parked, Plain, Slice, Trusted, Wait};
use crosslane_sync::{Deadline, Deaths, LeaseLock, Mutex, MutexCell, futex, membarrier, spin, waiter};

const MAPPING_BYTES: usize = 4096;
const PROCESSES: usize = 8;
const WATCHDOG_SECONDS: u32 = 60;

/// What all processes of a test share: an object whose valid start is all zero, and what else they need.
#[repr(C)]
pub(crate) struct Page<C> {
    pub(crate) cell: C,
    /// For the test's own use.
    pub(crate) flags: [AtomicU32; 8],
    deaths: AtomicU32,
    dead: [AtomicU32; PROCESSES],
}

/// The processes of a test, and the object `C` that they share.
pub(crate) struct Processes<C> {
    page: NonNull<Page<C>>,
}

/// Processes that share a mutex.
pub(crate) type Family<T> = Processes<MutexCell<T>>;

// SAFETY: only a pointer to a page whose fields are atomics or behind a lock.
unsafe impl<C> Send for Processes<C> {}
// SAFETY: as above.
unsafe impl<C> Sync for Processes<C> {}

impl<C> Processes<C> {
    pub(crate) fn new() -> Self {
        assert!(size_of::<Page<C>>() <= MAPPING_BYTES);
        // SAFETY: replaces the timer of an earlier test of this process; SIGALRM ends the process.
        unsafe { libc::alarm(WATCHDOG_SECONDS) };
        // SAFETY: a fresh mapping of our own.
        let page = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                MAPPING_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        Self { page: NonNull::new(page.cast()).expect("not null") }
    }

    pub(crate) fn page(&self) -> &Page<C> {
        // SAFETY: mapped while `self` lives; zeroes are a page; atomics and cells inside.
        unsafe { self.page.as_ref() }
    }

    /// The object.
    pub(crate) fn cell(&self) -> NonNull<C> {
        NonNull::from(&self.page().cell)
    }

    /// The surroundings of participant `index` in the calling process.
    pub(crate) fn env(&self, index: u32) -> Env<'_> {
        Env { deaths: &self.page().deaths, dead: &self.page().dead, index, pid: pid() }
    }

    /// Forks a child that runs `work` and ends: 0 if that was true.
    pub(crate) fn fork(&self, work: impl FnOnce() -> bool) -> Child {
        // SAFETY: the child runs `work`, which neither allocates nor takes a lock of the parent's libraries, and ends
        // without unwinding into the parent's frames.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: a watchdog for the child, which does not inherit the parent's.
            unsafe { libc::alarm(WATCHDOG_SECONDS) };
            let done = std::panic::catch_unwind(core::panic::AssertUnwindSafe(work)).unwrap_or(false);
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!done)) };
        }
        Child { pid }
    }

    /// Says that `index` is dead, as the one who proves a death does.
    pub(crate) fn bury(&self, index: u32) {
        self.page().dead[index as usize].store(1, Ordering::Release);
        futex::bump(&self.page().deaths);
    }

    /// Kills `child`, reaps it, and says that participant `index` is dead.
    pub(crate) fn kill(&self, child: Child, index: u32) {
        assert!(child.pid > 1);
        // SAFETY: a child of ours that was not reaped yet.
        unsafe { libc::kill(child.pid, libc::SIGKILL) };
        let status = child.reap();
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "status {status}");
        self.bury(index);
    }

    pub(crate) fn flag(&self, i: usize) -> &AtomicU32 {
        &self.page().flags[i]
    }
}

impl<T: Plain> Family<T> {
    /// The lock word, as bytes.
    pub(crate) fn word(&self) -> &AtomicU32 {
        // SAFETY: the cell begins with its lock word.
        unsafe { self.page.cast().as_ref() }
    }

    /// A handle of participant `index`.
    pub(crate) fn mutex(&self, index: u32) -> Mutex<T, LeaseLock<Env<'_>>> {
        let cell = self.cell();
        // SAFETY: mapped while `self` lives, which `env` borrows; every access goes through such a mutex; a process is
        // called dead when it was reaped.
        unsafe { Mutex::new(cell, self.env(index)) }
    }

    /// As `mutex`, trusted.
    pub(crate) fn trusted(&self, index: u32) -> Mutex<T, LeaseLock<Env<'_>>, Trusted> {
        // SAFETY: the processes of a test run this file's code alone.
        unsafe { self.mutex(index).trust_peers() }
    }
}

impl<C> Drop for Processes<C> {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; nothing borrows `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), MAPPING_BYTES) };
    }
}

#[must_use]
pub(crate) struct Child {
    pid: libc::pid_t,
}

impl Child {
    fn reap(self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours.
        while unsafe { libc::waitpid(self.pid, &raw mut status, 0) } != self.pid {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
        }
        status
    }

    /// Waits for the child and asserts that its work was true.
    pub(crate) fn join(self) {
        assert_eq!(self.reap(), 0);
    }
}

/// Raises `flag` from 0 to 1.
pub(crate) fn raise(flag: &AtomicU32) {
    flag.store(1, Ordering::Release);
}

/// Waits until `condition`; the watchdog ends a wait in vain.
pub(crate) fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Waits until `flag` was raised.
pub(crate) fn await_flag(flag: &AtomicU32) {
    until(|| flag.load(Ordering::Acquire) != 0);
}

/// Waits to be killed.
pub(crate) fn hang() -> ! {
    loop {
        // SAFETY: only sleeps.
        unsafe { libc::pause() };
    }
}

fn pid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::getpid() }
}

/// The surroundings of one process: waits on futexes, and is nobody in a fork child that has not made its own.
#[derive(Debug)]
pub(crate) struct Env<'a> {
    deaths: &'a AtomicU32,
    dead: &'a [AtomicU32; PROCESSES],
    index: u32,
    pid: libc::pid_t,
}

impl Wait for Env<'_> {
    type Deadline = Deadline;
    fn never(&self) -> Deadline {
        Deadline::never()
    }
    fn after(&self, timeout: Duration) -> Deadline {
        Deadline::after(timeout)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        let deaths = Deaths { word: self.deaths, seen: self.deaths.load(Ordering::Relaxed) };
        waiter::park(word, expected, slice, deadline, Some(deaths))
    }
    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        futex::wake(word, count)
    }
    fn spins(&self) -> u32 {
        spin::budget()
    }
    fn in_heavy_barriers(&self) -> bool {
        membarrier::is_registered()
    }
    fn heavy_barrier(&self) -> bool {
        membarrier::heavy()
    }
}

impl Liveness for Env<'_> {
    fn me(&self) -> Option<OwnerId> {
        (self.pid == pid()).then(|| OwnerId::new(self.index, 1).expect("in range"))
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        let index = owner.index() as usize;
        index < PROCESSES && self.dead[index].load(Ordering::Acquire) != 0
    }
}

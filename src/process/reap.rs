//! The children of this process: whether they live, how they ended, and that none stays a zombie.
//!
//! A child is known by its pidfd, never by its pid alone: a pid is another process's as soon as the child was waited for,
//! and somebody else may do that (`SIGCHLD` ignored, a foreign `wait()`). Its end is taken from the kernel once, by
//! whoever looks first, and then stands in `State`. What travelled to it and was never claimed comes back at that moment
//! (`InTransit::lost`), and the family's lease domain is told, so that who waits behind the dead one need not wait for
//! the end of a slice.
#![allow(unsafe_code)]

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crosslane_shm::Domain;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::error::{Error, Result};
use crate::pipe;
use crate::wire::InTransit;

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Known(ExitStatus),
    /// Somebody else has taken its status from the kernel.
    Unknown,
}

/// A process that this one has started.
#[derive(Debug)]
pub(crate) struct Child {
    pid: u32,
    name: String,
    pidfd: OwnedFd,
    /// Whose child it is: a raw `fork()` of that process has this object too, and no child.
    parent: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    in_transit: InTransit,
}

impl Child {
    /// Takes charge of `pid`, which is a child of this process and was not waited for by this crate.
    ///
    /// If it has ended and somebody else has waited for it, its id may be another process's: one that is no child of this
    /// one is refused here. That the id has gone to another child of this process, between its start and this call, is not
    /// seen: it takes all ids of the system to be used up meanwhile.
    ///
    /// # Errors
    /// [`Error::Vanished`]: it has ended, and somebody else has taken its status; [`Error::FdLimit`], [`Error::Io`].
    pub(crate) fn new(pid: u32, name: String) -> Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        let opened = raw.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
        let opened = opened.map_err(|error| match error {
            Errno::SRCH => Error::Vanished { pid },
            error => Error::os("open a pidfd")(error),
        });
        let pidfd = above_stdio(opened?)?;
        if !is_child(pidfd.as_fd()) {
            return Err(Error::Vanished { pid });
        }
        Ok(Self { pid, name, pidfd, parent: std::process::id(), state: Mutex::default() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it is this process that has started it.
    pub(crate) fn is_ours(&self) -> bool {
        self.parent == std::process::id()
    }

    /// # Errors
    /// [`Error::Forked`]: another process than this one has started it, of which this one is a raw fork.
    pub(crate) fn must_be_ours(&self) -> Result<()> {
        if self.is_ours() { Ok(()) } else { Err(Error::Forked) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what travelled to the child, until its end.
    pub(crate) fn keep(&self, in_transit: InTransit) {
        let mut state = self.state();
        if state.end.is_none() {
            state.in_transit = in_transit;
        } else {
            drop(state);
            in_transit.lost();
        }
    }

    /// Takes note of its end, if it has come. Does not block.
    pub(crate) fn end(&self) -> Option<End> {
        let mut state = self.state();
        if state.end.is_some() {
            return state.end;
        }
        let end = look(self.pidfd())?;
        state.end = Some(end);
        let in_transit = mem::take(&mut state.in_transit);
        drop(state);
        if self.is_ours() {
            in_transit.lost();
            // Whoever cannot join the family has nothing of it, and nobody waits for what the child held there.
            let _ = Domain::family().map(|family| family.reap());
            pipe::settle_after_a_death();
        }
        Some(end)
    }

    /// Waits for its end; `None`: the time is up.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<Option<End>> {
        loop {
            if let Some(end) = self.end() {
                return Ok(Some(end));
            }
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            if !poll(&mut fds, deadline)? {
                return Ok(None);
            }
        }
    }

    /// Sends it a signal; a child that has ended gets none, and that is no error.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.must_be_ours()?;
        match rustix::process::pidfd_send_signal(self.pidfd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::os("send a signal")(error)),
        }
    }
}

/// Whether the process is a child of this one's, that nobody has waited for.
fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), options) {
            Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

/// How the process has ended, if it has.
fn look(pidfd: BorrowedFd<'_>) -> Option<End> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => return Some(End::Known(exit_status(&status))),
            Err(Errno::INTR) => {}
            // Not our child any more, or never: somebody else has waited, or the kernel at once, as SIGCHLD is ignored.
            Err(_) if has_ended(pidfd) => return Some(noted_by_kernel(pidfd).map_or(End::Unknown, End::Known)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Whether the process has ended, whosever child it is.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(Instant::now())).unwrap_or(false)
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    /// In a wait status: a core was dumped.
    const CORE: i32 = 0x80;
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xFF) << 8,
        (None, Some(signal)) => signal | if status.dumped() { CORE } else { 0 },
        (None, None) => 0,
    };
    ExitStatus::from_raw(raw)
}

/// The status that the kernel has kept for holders of the pidfd: Linux 6.15 and later.
fn noted_by_kernel(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    // SAFETY: numbers only, all of which may be zero.
    let mut info = unsafe { mem::zeroed::<libc::pidfd_info>() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: `info` is what this request reads and writes, and the request says how long it is.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    let is_there = result == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    is_there.then(|| ExitStatus::from_raw(info.exit_code))
}

/// Whether something that was sent through this socket has not been read by the other side.
pub(crate) fn is_unread(socket: BorrowedFd<'_>) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is what this request writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    result == 0 && bytes > 0
}

/// Waits until one of `fds` is ready; `false`: the time is up. A deadline of `None` never comes.
pub(crate) fn poll(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(fds, timeout.as_ref()) {
            Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::os("wait for a process")(error)),
        }
    }
}

/// When `timeout` will be over; `None`: never.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// The same descriptor at a number of its own, if it has come to lie where standard input, output or error belong: the
/// program has closed these, and others will write there.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    const FIRST: i32 = 3;
    if fd.as_raw_fd() >= FIRST {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, FIRST).map_err(Error::os("duplicate a descriptor"))
}

/// The children that this process has started and not yet taken note of the end of.
static CHILDREN: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

#[derive(Debug)]
enum Entry {
    /// Its `Process` reaps it.
    Held(Weak<Child>),
    /// Nobody else will.
    Detached(Arc<Child>),
}

impl Entry {
    fn child(&self) -> Option<Arc<Child>> {
        match self {
            Self::Held(child) => child.upgrade(),
            Self::Detached(child) => Some(Arc::clone(child)),
        }
    }
}

fn children() -> MutexGuard<'static, Vec<Entry>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a child whose handle will reap it.
pub(crate) fn register(child: &Arc<Child>) {
    children().push(Entry::Held(Arc::downgrade(child)));
}

/// The child's handle is gone, and it lives on.
pub(crate) fn detach(child: Arc<Child>) {
    let mut children = children();
    children.retain(|entry| !matches!(entry, Entry::Held(held) if held.as_ptr() == Arc::as_ptr(&child)));
    children.push(Entry::Detached(child));
}

/// Reaps detached children that have ended. One system call for each that has not; does not block.
pub(crate) fn reap_detached() {
    let mut children = children();
    if children.is_empty() {
        return;
    }
    let (over, left) = mem::take(&mut *children).into_iter().partition(|entry| match entry {
        Entry::Held(child) => child.strong_count() == 0,
        Entry::Detached(child) => !child.is_ours() || child.end().is_some(),
    });
    *children = left;
    drop(children);
    // What they kept may be dropped only outside.
    let over: Vec<Entry> = over;
    drop(over);
}

/// The children that live, detached ones among them. Reaps those that have ended.
pub(crate) fn active() -> Vec<Arc<Child>> {
    reap_detached();
    let known: Vec<_> = children().iter().filter_map(Entry::child).collect();
    known.into_iter().filter(|child| child.is_ours() && child.end().is_none()).collect()
}

/// A pidfd of this process, for its children to watch. One for all of them.
pub(crate) fn own_pidfd() -> Result<Arc<OwnedFd>> {
    static OWN: Mutex<Option<(u32, Arc<OwnedFd>)>> = Mutex::new(None);
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if let Some((of, fd)) = &*own
        && *of == pid
    {
        return Ok(Arc::clone(fd));
    }
    let opened = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let fd = Arc::new(above_stdio(opened.map_err(Error::os("open a pidfd"))?)?);
    *own = Some((pid, Arc::clone(&fd)));
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_nobody_has_read_is_known_while_a_copy_of_the_other_side_is_open() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        assert!(!is_unread(ours.as_fd()));
        ours.write_all(b"a call").unwrap();
        let mut copy = theirs.try_clone().unwrap();
        drop(theirs);
        assert!(is_unread(ours.as_fd()));
        copy.read_exact(&mut [0; 2]).unwrap();
        assert!(is_unread(ours.as_fd()), "a part of it");
        copy.read_exact(&mut [0; 4]).unwrap();
        assert!(!is_unread(ours.as_fd()));
    }

    #[test]
    fn a_process_that_is_no_child_is_not_taken_charge_of() {
        // Whoever has the id of a child that somebody else has waited for.
        let stranger = std::os::unix::process::parent_id();
        let taken = Child::new(stranger, String::new());
        assert!(matches!(taken, Err(Error::Vanished { pid }) if pid == stranger), "{taken:?}");
        let mut own = std::process::Command::new("/bin/true").spawn().unwrap();
        let taken = Child::new(own.id(), String::new()).unwrap();
        assert!(matches!(taken.wait(None), Ok(Some(End::Known(status))) if status.success()));
        assert!(own.wait().is_err(), "it was waited for");
        assert!(matches!(Child::new(own.id(), String::new()), Err(Error::Vanished { .. })));
    }
}

//! Who this process is among its family: its name, its parent, its children.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::marker::Marker;
use super::reap::{self, Child};
use crate::error::{Error, Result};

/// How deep processes may start processes; the first one has depth 0. A recursion without end stops here.
pub(crate) const DEPTH_LIMIT: u32 = 32;
const MAIN_NAME: &str = "MainProcess";

/// Who a child is. What its parent tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Birth {
    pub(crate) name: String,
    /// The numbers of its ancestors among their siblings, and its own.
    pub(crate) path: Vec<u32>,
    parent_name: String,
    parent_pid: u32,
}

struct Me {
    birth: Birth,
    parent_pidfd: Arc<OwnedFd>,
}

/// Set in children, before their function runs.
static ME: OnceLock<Me> = OnceLock::new();

impl Birth {
    /// Who the next child of this process is; `name` if it is to have one of its own choice.
    ///
    /// # Errors
    /// [`Error::TooDeep`].
    pub(crate) fn next(name: Option<String>) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let depth = depth().saturating_add(1);
        if depth > DEPTH_LIMIT {
            return Err(Error::TooDeep { depth, limit: DEPTH_LIMIT });
        }
        let mut path = ME.get().map_or_else(Vec::new, |me| me.birth.path.clone());
        path.push(COUNT.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
        let name = name.unwrap_or_else(|| {
            let numbers: Vec<_> = path.iter().map(u32::to_string).collect();
            format!("Process-{}", numbers.join(":"))
        });
        let CurrentProcess { name: parent_name, id: parent_pid } = current_process();
        Ok(Self { name, path, parent_name, parent_pid })
    }

    /// This process is that child.
    pub(crate) fn become_it(self, parent_pidfd: Arc<OwnedFd>) {
        // Once: a child runs one call.
        let _ = ME.set(Me { birth: self, parent_pidfd });
    }
}

/// Whether this process was started to run a function, and does.
pub(crate) fn is_child() -> bool {
    ME.get().is_some()
}

/// How many generations of processes lie above this one. The environment's word counts too: it reaches the programs that
/// children start by other means, and those that never come to know that they are children.
pub(crate) fn depth() -> u32 {
    let own = ME.get().map_or(0, |me| u32::try_from(me.birth.path.len()).unwrap_or(u32::MAX));
    own.max(Marker::of_this_process().map_or(0, |marker| marker.depth))
}

/// This process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentProcess {
    name: String,
    id: u32,
}

/// This process: the name that its parent has given it, or `MainProcess`.
///
/// # Examples
/// ```
/// use crosslane::{ProcessBuilder, current_process};
///
/// assert_eq!(current_process().name(), "MainProcess");
/// let child = ProcessBuilder::new().name("counter").spawn(|()| current_process().name().to_owned(), ())?;
/// assert_eq!(child.join()?, "counter");
/// # Ok::<(), crosslane::Error>(())
/// ```
#[must_use]
pub fn current_process() -> CurrentProcess {
    let name = ME.get().map_or(MAIN_NAME, |me| &me.birth.name).to_owned();
    CurrentProcess { name, id: std::process::id() }
}

impl CurrentProcess {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// The process that has started this one.
#[derive(Debug, Clone)]
pub struct ParentProcess {
    name: String,
    id: u32,
    pidfd: Arc<OwnedFd>,
}

/// The process that has started this one to run a function; `None` in a program that was started by other means.
#[must_use]
pub fn parent_process() -> Option<ParentProcess> {
    let Me { birth, parent_pidfd } = ME.get()?;
    Some(ParentProcess { name: birth.parent_name.clone(), id: birth.parent_pid, pidfd: Arc::clone(parent_pidfd) })
}

impl ParentProcess {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id. Another process may have it once the parent has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether it lives. A child that was not [detached](crate::Process::detach) will not see it die: it ends with it.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !reap::has_ended(self.pidfd.as_fd())
    }

    /// Waits for its end, at most so long; returns whether it has ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        reap::poll(&mut fds, reap::deadline(timeout))
    }
}

/// A child of this process that lived when it was asked for.
#[derive(Debug, Clone)]
pub struct ActiveChild(Arc<Child>);

/// The children of this process that live, detached ones among them, in the order in which they were started or detached.
///
/// Reaps the detached ones that have ended. Does not block.
#[must_use]
pub fn active_children() -> Vec<ActiveChild> {
    reap::active().into_iter().map(ActiveChild).collect()
}

impl ActiveChild {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Whether it still lives. Does not block.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.end().is_none()
    }

    /// Sends it `SIGTERM`; as [`Process::terminate`](crate::Process::terminate).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Forked`].
    pub fn terminate(&self) -> Result<()> {
        self.0.signal(Signal::TERM)
    }

    /// Sends it `SIGKILL`; as [`Process::kill`](crate::Process::kill).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Forked`].
    pub fn kill(&self) -> Result<()> {
        self.0.signal(Signal::KILL)
    }
}

/// How many CPUs this process may use: by its affinity, and by the least quota of its cgroups (version 1 or 2), rounded down.
/// At least 1.
#[must_use]
pub fn cpu_count() -> usize {
    // The standard library asks for both.
    thread::available_parallelism().map_or(1, usize::from)
}

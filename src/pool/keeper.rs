//! The thread that sleeps until a worker ends, and then sees to its lane.
//!
//! It polls the workers' sentinels, so a death is known when the kernel knows it. While a job with a timeout is under way it
//! also looks every 5 ms which workers are over their time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::crew::Crew;
use crate::error::{Error, Result};

/// Stands for the eventfd among the lanes.
const WAKE: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Keeper {
    epoll: OwnedFd,
    wake: OwnedFd,
}

impl Keeper {
    pub(super) fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::os("make an eventfd"))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(Error::os("make an epoll"))?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN).map_err(Error::os("watch an eventfd"))?;
        Ok(Self { epoll, wake })
    }

    /// Sees to lane `index` when the process of `sentinel` has ended.
    pub(super) fn watch(&self, sentinel: BorrowedFd<'_>, index: usize) -> Result<()> {
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, sentinel, data, EventFlags::IN).map_err(Error::os("watch a process"))
    }

    /// To be called before `sentinel` is closed: the kernel forgets it only when no process has it any more, and a `fork()` by
    /// other code may have copied it.
    pub(super) fn unwatch(&self, sentinel: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, sentinel);
    }

    /// Makes the thread look around.
    pub(super) fn wake(&self) {
        // Full means that it has not looked since, and will.
        let _ = rustix::io::write(self.wake.as_fd(), &1_u64.to_ne_bytes());
    }

    /// Starts the thread; it ends with the crew, or when that is over.
    pub(super) fn start(crew: &Arc<Crew>) -> Result<()> {
        let weak = Arc::downgrade(crew);
        let epoll = crew.keeper().epoll.try_clone().map_err(Error::os("duplicate a descriptor"))?;
        let wake = crew.keeper().wake.try_clone().map_err(Error::os("duplicate a descriptor"))?;
        let thread = std::thread::Builder::new().name("crosslane-keeper".into());
        thread.spawn(move || keep(&weak, &Self { epoll, wake })).map_err(Error::os("start a thread"))?;
        Ok(())
    }
}

fn keep(crew: &Weak<Crew>, keeper: &Keeper) {
    let mut events = Vec::with_capacity(64);
    let mut next = Some(Duration::ZERO);
    loop {
        events.clear();
        let rest = next.and_then(|next| Timespec::try_from(next).ok());
        let waited = epoll::wait(&keeper.epoll, spare_capacity(&mut events), rest.as_ref());
        if waited.is_err_and(|error| error != rustix::io::Errno::INTR) {
            return;
        }
        let Some(crew) = crew.upgrade() else { return };
        for event in &events {
            match event.data.u64() {
                WAKE => {
                    let _ = rustix::io::read(&keeper.wake, &mut [0; 8]);
                }
                index => crew.ended(usize::try_from(index).unwrap_or(usize::MAX)),
            }
        }
        if crew.is_over() {
            return;
        }
        next = crew.tend();
    }
}

//! A queue that knows when everything that was put into it has been done.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use crosslane_core::mpmc::HeldMessage;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::channel::{Channel, Patience};
use super::{Iter, PutError};
use crate::Trusted;
use crate::error::{Error, Result};
use crate::shm::messages::Delivery;
use crate::wire::Portable;

/// A [`Queue`](super::Queue) of tasks: what was got from it is not done before [`task_done`](Self::task_done) says so, and
/// [`join`](Self::join) waits until everything is.
///
/// A task that was got keeps its slot until it is done: [`bounded`](Self::bounded) counts those that wait and those that are
/// being dealt with. Tasks that were got through this handle (or a clone, or in another thread) and are not done when the
/// last clone is dropped are delivered again.
///
/// # Crash
/// The tasks of a killed process that were not done are delivered again, to whoever gets next; each three times at most.
/// A task whose process was killed three times is [given up](Self::given_up), which counts as done.
///
/// # Examples
/// ```
/// let queue = crosslane::JoinableQueue::bounded(16)?;
/// let worker = crosslane::spawn(
///     |queue: crosslane::JoinableQueue<u64>| {
///         for task in &queue {
///             assert!(task.unwrap() < 10);
///             queue.task_done().unwrap();
///         }
///     },
///     queue.clone(),
/// )?;
/// for task in 0..10 {
///     queue.put(task)?;
/// }
/// queue.join()?;
/// assert!(queue.is_empty());
/// queue.close();
/// worker.join()?;
/// # Ok::<(), crosslane::Error>(())
/// ```
pub struct JoinableQueue<T>(Arc<Inner<T>>);

struct Inner<T> {
    channel: Channel<T>,
    /// What was got and is not done, in the order in which it was got.
    held: Mutex<VecDeque<(ThreadId, HeldMessage)>>,
}

impl<T: Portable> JoinableQueue<T> {
    /// As [`Queue::bounded`](super::Queue::bounded).
    ///
    /// # Errors
    /// As [`Queue::bounded`](super::Queue::bounded).
    pub fn bounded(items: usize) -> Result<Self> {
        Self::with_limit(items, Channel::<T>::default_max_bytes())
    }

    /// As [`Queue::with_limit`](super::Queue::with_limit).
    ///
    /// # Errors
    /// As [`Queue::with_limit`](super::Queue::with_limit).
    pub fn with_limit(items: usize, max_bytes: u32) -> Result<Self> {
        Channel::new(items, max_bytes).map(Self::of)
    }

    /// As [`Queue::put`](super::Queue::put).
    ///
    /// # Errors
    /// As [`Queue::put`](super::Queue::put).
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.channel.put(value, Patience::Forever)
    }

    /// As [`Queue::try_put`](super::Queue::try_put).
    ///
    /// # Errors
    /// As [`Queue::try_put`](super::Queue::try_put).
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.channel.put(value, Patience::Try)
    }

    /// As [`Queue::put_timeout`](super::Queue::put_timeout).
    ///
    /// # Errors
    /// As [`Queue::put_timeout`](super::Queue::put_timeout).
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.0.channel.put(value, Patience::Timeout(timeout))
    }

    /// Gets the oldest task, waiting for one. It is this process's until [`task_done`](Self::task_done).
    ///
    /// # Errors
    /// As [`Queue::get`](super::Queue::get). A task that cannot be decoded is done.
    ///
    /// # Crash
    /// The task of a process that is killed before it is done is delivered again.
    pub fn get(&self) -> Result<T> {
        self.0.get(Patience::Forever)
    }

    /// As [`get`](Self::get), without waiting.
    ///
    /// # Errors
    /// As [`Queue::try_get`](super::Queue::try_get).
    pub fn try_get(&self) -> Result<T> {
        self.0.get(Patience::Try)
    }

    /// As [`get`](Self::get), waiting for a task at most for `timeout`.
    ///
    /// # Errors
    /// As [`Queue::get_timeout`](super::Queue::get_timeout).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.0.get(Patience::Timeout(timeout))
    }

    /// Says that a task is done: the oldest that this thread has got and that is not, or, if it has none, the oldest of this
    /// process. Wakes those who join, if it was the last. Does not block.
    ///
    /// # Errors
    /// [`Error::NoTask`]: everything that was got through this handle and its clones is done.
    pub fn task_done(&self) -> Result<()> {
        let held = self.0.take_held().ok_or(Error::NoTask)?;
        self.0.resume(held).done();
        Ok(())
    }

    /// Waits until everything that was put is done, by whomever, and also what is put meanwhile.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn join(&self) -> Result<()> {
        self.0.channel.join(Patience::Forever)
    }

    /// As [`join`](Self::join), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`join`](Self::join), and [`Error::TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.0.channel.join(Patience::Timeout(timeout))
    }

    /// Tasks that are not delivered any more, because the processes that got them were killed too often. Such a one is
    /// overwritten when its slot is needed, and not counted then.
    #[must_use]
    pub fn given_up(&self) -> usize {
        self.0.channel.dead_letters()
    }

    /// The tasks as they come, until the queue is closed and drained. Each is to be [done](Self::task_done).
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(self)
    }

    /// Tasks that wait: as [`Queue::len`](super::Queue::len).
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.channel.len()
    }

    /// Whether no task waits: as [`Queue::is_empty`](super::Queue::is_empty).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.channel.is_empty()
    }

    /// Tasks that there is room for, those that are being dealt with included.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.channel.capacity()
    }

    /// As [`Queue::close`](super::Queue::close). While a task is being dealt with, which may come back, a `get` waits.
    pub fn close(&self) {
        self.0.channel.close();
    }
}

impl<T> JoinableQueue<T> {
    fn of(channel: Channel<T>) -> Self {
        Self(Arc::new(Inner { channel, held: Mutex::default() }))
    }
}

impl<T: Portable> super::iter::Source<T> for JoinableQueue<T> {
    fn next_value(&self) -> Result<T> {
        self.get()
    }
}

impl<T: Portable> Inner<T> {
    fn get(&self, patience: Patience) -> Result<T> {
        let (value, held) = self.channel.get_and_hold(patience)?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push_back((std::thread::current().id(), held));
        Ok(value)
    }

    fn take_held(&self) -> Option<HeldMessage> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let me = std::thread::current().id();
        let own = held.iter().position(|(thread, _)| *thread == me).unwrap_or(0);
        held.remove(own).map(|(_, held)| held)
    }
}

impl<T> Inner<T> {
    /// Takes up again what this handle has held.
    fn resume(&self, held: HeldMessage) -> Delivery<'_, Trusted> {
        // SAFETY: it came from this channel: what `held` keeps is put there by `get` alone.
        unsafe { self.channel.messages().resume(held) }
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (_, held) in held {
            self.resume(held).give_back();
        }
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Serialize for JoinableQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.channel.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for JoinableQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Channel::deserialize(deserializer).map(Self::of)
    }
}

impl<'a, T: Portable> IntoIterator for &'a JoinableQueue<T> {
    type Item = Result<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinableQueue").field(&self.0.channel).finish()
    }
}

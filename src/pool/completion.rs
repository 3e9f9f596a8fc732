//! Several tasks at once: in the order in which they end, or until some of them have.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crosslane_sync::Deadline;

use super::crew::Crew;
use super::task::Task;
use crate::error::Result;
use crate::wire::Portable;

/// Tasks by number, in the order in which they ended.
#[derive(Debug, Default)]
struct Ended {
    numbers: Mutex<VecDeque<usize>>,
    more: Condvar,
}

/// Notes the end of one task.
pub(super) struct Note {
    ended: Arc<Ended>,
    number: usize,
}

impl Note {
    pub(super) fn tell(self) {
        self.ended.push(self.number);
    }
}

impl Ended {
    fn push(&self, number: usize) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).push_back(number);
        self.more.notify_one();
    }

    fn pop(&self) -> Option<usize> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sleeps until a task has ended; the pools' own threads look for that.
    fn sleep(&self, deadline: Deadline) {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        match deadline.remaining() {
            None => drop(self.more.wait_while(numbers, |numbers| numbers.is_empty())),
            Some(rest) => drop(self.more.wait_timeout_while(numbers, rest, |numbers| numbers.is_empty())),
        }
    }

    /// Will be told of the ends of `tasks`, numbered as they stand there.
    fn listen<'t, R: 't>(self: &Arc<Self>, tasks: impl IntoIterator<Item = &'t Task<R>>) {
        for (number, task) in tasks.into_iter().enumerate() {
            task.note_end(Note { ended: Arc::clone(self), number });
        }
    }
}

/// Tasks whose ends are awaited.
#[derive(Debug)]
struct Watch {
    ended: Arc<Ended>,
    /// The pool of all the tasks, if they are of one: then this thread looks for answers itself.
    crew: Option<Arc<Crew>>,
}

impl Watch {
    fn new<'t, R: 't>(tasks: impl Iterator<Item = &'t Task<R>> + Clone) -> Self {
        let ended = Arc::new(Ended::default());
        ended.listen(tasks.clone());
        let mut crews = tasks.map(Task::crew);
        let crew = crews.next().filter(|first| crews.all(|crew| Arc::ptr_eq(first, crew))).cloned();
        Self { ended, crew }
    }

    /// The number of the next task that ends, or `None` if none does until the deadline.
    fn next(&self, deadline: Deadline) -> Option<usize> {
        if self.ended.is_empty() {
            match &self.crew {
                Some(crew) => drop(crew.wait_until(deadline, || !self.ended.is_empty())),
                None => self.ended.sleep(deadline),
            }
        }
        self.ended.pop()
    }
}

/// The tasks' results in the order in which they come, each with the key that was given with its task.
///
/// Tasks may be of several pools.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use crosslane::{Pool, as_completed};
///
/// let pool = Pool::new(3)?;
/// let nap = |tenths: u32| {
///     std::thread::sleep(Duration::from_millis(100) * tenths);
///     tenths
/// };
/// let tasks: Vec<_> = [3, 2, 1].into_iter().map(|n| Ok((n, pool.submit(nap, n)?))).collect::<crosslane::Result<_>>()?;
/// let order: Vec<u32> = as_completed(tasks).map(|(key, result)| result.map(|_| key)).collect::<Result<_, _>>()?;
/// assert_eq!(order, [1, 2, 3]);
/// # Ok::<(), crosslane::Error>(())
/// ```
pub fn as_completed<K, R: Portable>(tasks: impl IntoIterator<Item = (K, Task<R>)>) -> AsCompleted<K, R> {
    let tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    let watch = Watch::new(tasks.iter().flatten().map(|(_, task)| task));
    AsCompleted { left: tasks.len(), tasks, watch }
}

/// What [`as_completed`] returns. Dropping it lets the calls run and forgets their results.
#[must_use = "results come as they are taken"]
pub struct AsCompleted<K, R> {
    /// `None` for those whose results were taken.
    tasks: Vec<Option<(K, Task<R>)>>,
    left: usize,
    watch: Watch,
}

impl<K, R: Portable> AsCompleted<K, R> {
    /// The next result, if one comes within `timeout`; nothing is lost if none does.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<(K, Result<R>)> {
        self.next_until(Deadline::after(timeout))
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<(K, Result<R>)> {
        let number = if self.left == 0 { None } else { self.watch.next(deadline) }?;
        self.left -= 1;
        let (key, task) = self.tasks.get_mut(number)?.take()?;
        Some((key, task.result()))
    }
}

impl<K, R: Portable> Iterator for AsCompleted<K, R> {
    type Item = (K, Result<R>);

    fn next(&mut self) -> Option<(K, Result<R>)> {
        self.next_until(Deadline::never())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, R> fmt::Debug for AsCompleted<K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}

/// What [`wait_tasks`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// One task has ended.
    FirstCompleted,
    /// One task has failed, or all have ended.
    FirstError,
    /// All have ended.
    All,
}

/// Waits until as many of `tasks` have ended as `what` says, or the time is up (`None`: never). Returns those that have,
/// and the others; no result is taken. What concurrent.futures calls `wait`.
pub fn wait_tasks<R: Portable>(
    tasks: Vec<Task<R>>,
    what: WaitFor,
    timeout: Option<Duration>,
) -> (Vec<Task<R>>, Vec<Task<R>>) {
    let deadline = timeout.map_or_else(Deadline::never, Deadline::after);
    let watch = Watch::new(tasks.iter());
    let mut left = tasks.len();
    while left > 0 {
        let Some(number) = watch.next(deadline) else { break };
        left -= 1;
        let has_failed = tasks.get(number).is_some_and(Task::has_failed);
        if what == WaitFor::FirstCompleted || what == WaitFor::FirstError && has_failed {
            break;
        }
    }
    tasks.into_iter().partition(Task::has_ended)
}

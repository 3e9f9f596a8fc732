//! The thread that runs what users hang on tasks: callbacks, and the wakers of futures.
//!
//! It runs them one after the other, and does nothing else: so they may take their time and use the pool, whatever the pool
//! does meanwhile. It is started for the first of them, and ends when the pool has ended and none is left.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crosslane_sync::Deadline;

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Debug, Default)]
pub(super) struct Callbacks {
    queue: Mutex<Queue>,
    more: Condvar,
    /// Where those sleep that wait until none is owed.
    paid: Condvar,
}

#[derive(Default)]
struct Queue {
    callbacks: VecDeque<Callback>,
    /// Those that were hung on tasks and have not returned.
    owed: usize,
    has_thread: bool,
    /// Who runs one at the moment.
    runner: Option<ThreadId>,
    is_over: bool,
}

/// A callback that was hung on a task: owed until this is dropped.
#[derive(Debug)]
pub(super) struct Owed(Arc<Callbacks>);

impl Drop for Owed {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.owed -= 1;
        if queue.owed == 0 {
            self.0.paid.notify_all();
        }
    }
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a callback is hung on a task.
    pub(super) fn owe(self: &Arc<Self>) -> Owed {
        self.lock().owed += 1;
        Owed(Arc::clone(self))
    }

    /// Waits until all callbacks have returned that are hung on tasks; returns whether they have. To a callback, which would
    /// wait for itself, they have.
    pub(super) fn wait_until_paid(&self, deadline: Deadline) -> bool {
        let mut queue = self.lock();
        while queue.owed > 0 && queue.runner != Some(thread::current().id()) {
            let Some(rest) = deadline.remaining() else {
                queue = self.paid.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if rest.is_zero() {
                return false;
            }
            (queue, _) = self.paid.wait_timeout(queue, rest).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Has the thread run `callback`.
    pub(super) fn push(self: &Arc<Self>, callback: Callback) {
        let mut queue = self.lock();
        queue.callbacks.push_back(callback);
        let has_thread = queue.has_thread;
        drop(queue);
        if has_thread {
            self.more.notify_one();
        } else {
            self.start();
        }
    }

    /// Whether some wait for a thread that could not be started.
    pub(super) fn are_stranded(&self) -> bool {
        let queue = self.lock();
        !queue.has_thread && !queue.callbacks.is_empty()
    }

    /// Starts the thread, if there is something to run and it can be had.
    pub(super) fn start(self: &Arc<Self>) {
        let mut queue = self.lock();
        if queue.has_thread || queue.callbacks.is_empty() {
            return;
        }
        queue.has_thread = true;
        drop(queue);
        let callbacks = Arc::clone(self);
        let thread = thread::Builder::new().name("crosslane-callbacks".into());
        if thread.spawn(move || callbacks.run()).is_err() {
            let is_over = {
                let mut queue = self.lock();
                queue.has_thread = false;
                queue.is_over
            };
            if is_over {
                // Nobody tries again, and the pool has nothing left to do that could be held up.
                self.run();
            }
        }
    }

    /// No more are to be expected.
    pub(super) fn close(self: &Arc<Self>) {
        self.lock().is_over = true;
        self.more.notify_one();
        self.start();
    }

    fn run(&self) {
        loop {
            let mut queue = self.lock();
            while queue.callbacks.is_empty() {
                if queue.is_over {
                    queue.has_thread = false;
                    return;
                }
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let callback = queue.callbacks.pop_front();
            queue.runner = Some(thread::current().id());
            drop(queue);
            // The panic hook has told of a panic.
            let _ = catch_unwind(AssertUnwindSafe(|| callback.map(|callback| callback())));
            self.lock().runner = None;
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("callbacks", &self.callbacks.len()).finish_non_exhaustive()
    }
}

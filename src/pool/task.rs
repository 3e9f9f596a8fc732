//! A task: one call that was submitted, and its result, some day.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crosslane_sync::Deadline;

use super::crew::Crew;
use super::lane::{self, FAILED, Failure};
use super::piece::{Cause, Reply, Sink};
use crate::error::{Error, Result};
use crate::wire::{self, Portable};

/// A call that was submitted to a [`Pool`](crate::Pool), and its result, once it has one.
///
/// Dropping it lets the call run and forgets the result. It is a [`Future`]: any runtime can await it.
#[must_use = "dropping a Task forgets its result"]
pub struct Task<R> {
    crew: Arc<Crew>,
    slot: Arc<Slot>,
    argument: &'static str,
    result: PhantomData<fn() -> R>,
}

/// Where the reply of a task arrives.
#[derive(Debug)]
pub(super) struct Slot(Mutex<Stage>);

enum Stage {
    Awaited { waker: Option<Waker>, then: Option<Box<dyn FnOnce(Reply) + Send>>, is_cancelled: bool },
    Done(Reply),
    Taken,
}

impl Slot {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Stage::Awaited { waker: None, then: None, is_cancelled: false })))
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        !matches!(*self.lock(), Stage::Awaited { .. })
    }

    fn wake_at_end(&self, new: &Waker) -> bool {
        let mut stage = self.lock();
        let Stage::Awaited { waker, .. } = &mut *stage else { return false };
        match waker {
            Some(known) => known.clone_from(new),
            None => *waker = Some(new.clone()),
        }
        true
    }

    /// The reply, if it is there; after that, none will ever be.
    fn take(&self) -> Option<Reply> {
        let mut stage = self.lock();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Done(reply) => Some(reply),
            other => {
                *stage = other;
                None
            }
        }
    }
}

impl Sink for Slot {
    fn done(&self, _: usize, reply: Reply) {
        let mut stage = self.lock();
        let Stage::Awaited { waker, then, .. } = &mut *stage else { return };
        let (waker, then) = (waker.take(), then.take());
        if let Some(then) = then {
            *stage = Stage::Taken;
            drop(stage);
            // The thread has other replies to hand over. The panic's message has been printed.
            let _ = catch_unwind(AssertUnwindSafe(|| then(reply)));
        } else {
            *stage = Stage::Done(reply);
            drop(stage);
        }
        if let Some(waker) = waker {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    fn is_cancelled(&self) -> bool {
        matches!(&*self.lock(), Stage::Awaited { is_cancelled: true, .. })
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Awaited { .. } => "Awaited",
            Self::Done(_) => "Done",
            Self::Taken => "Taken",
        })
    }
}

impl<R> Task<R> {
    pub(super) fn new(crew: Arc<Crew>, slot: Arc<Slot>, argument: &'static str) -> Self {
        Self { crew, slot, argument, result: PhantomData }
    }

    /// Whether both are of one pool.
    pub(super) fn has_same_pool(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.crew, &other.crew)
    }

    /// Looks for answers of the pool until `done` or the deadline.
    pub(super) fn drive(&self, deadline: Deadline, done: impl Fn() -> bool) {
        self.crew.wait_until(deadline, done);
    }

    /// Wakes `waker` when the task ends; `false` if it has.
    pub(super) fn wake_at_end(&self, waker: &Waker) -> bool {
        self.slot.wake_at_end(waker)
    }

    /// As far as is known without looking for answers.
    pub(super) fn has_ended(&self) -> bool {
        self.slot.is_done()
    }

    /// Whether it has ended without a result.
    pub(super) fn has_failed(&self) -> bool {
        matches!(&*self.slot.lock(), Stage::Done(reply) if reply.has_failed())
    }

    fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.slot) as _
    }

    /// Whether the result, or the reason that there is none, is there. Looks for answers; does not block.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.crew.wait_until(Deadline::now(), || self.slot.is_done())
    }

    /// Whether a worker is at it right now. Does not block.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.slot.is_done() && self.crew.is_running(&self.sink())
    }

    /// Takes the call back if no worker has begun it; returns whether it was. Its result is [`Error::Cancelled`] then.
    ///
    /// Does not block. A call that is running goes on: [`kill`](Self::kill) ends it.
    pub fn cancel(&self) -> bool {
        self.crew.take_back(&self.sink()) > 0
    }

    /// Takes the call back, or ends the worker that is at it (SIGKILL), which is replaced; returns whether that was so. Its
    /// result is [`Error::Cancelled`] then. The other calls that the worker was given go to others.
    ///
    /// # Errors
    /// [`Error::Io`] if the worker could not be signalled.
    pub fn kill(&self) -> Result<bool> {
        self.crew.kill(&self.sink())
    }
}

impl<R: Portable> Task<R> {
    /// Waits for the result. Takes part in the pool's work meanwhile.
    ///
    /// # Errors
    /// What ended the call instead: [`Error::Panicked`], [`Error::Died`] for its worker, [`Error::Cancelled`],
    /// [`Error::TimedOut`], [`Error::Encode`] or [`Error::Decode`], [`Error::NoWorkers`].
    pub fn result(self) -> Result<R> {
        self.crew.wait_until(Deadline::never(), || self.slot.is_done());
        self.slot.take().map_or(Err(Error::Cancelled), |reply| result_of(reply, self.argument))
    }

    /// Waits at most so long; the result is not lost by that.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    pub fn result_timeout(&mut self, timeout: Duration) -> Result<Option<R>> {
        self.crew.wait_until(Deadline::after(timeout), || self.slot.is_done());
        self.slot.take().map(|reply| result_of(reply, self.argument)).transpose()
    }

    /// Runs `then` with the result, in the thread that finds it, which should not be kept for long. A panic of `then` ends
    /// there.
    pub fn on_done(self, then: impl FnOnce(Result<R>) + Send + 'static) {
        let argument = self.argument;
        let mut stage = self.slot.lock();
        if let Stage::Awaited { then: slot, .. } = &mut *stage {
            *slot = Some(Box::new(move |reply| then(result_of(reply, argument))));
            return;
        }
        drop(stage);
        if let Some(reply) = self.slot.take() {
            then(result_of(reply, argument));
        }
    }
}

impl<R: Portable> Future for Task<R> {
    type Output = Result<R>;

    /// # Panics
    /// If it was polled to its end before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        if self.slot.wake_at_end(context.waker()) {
            return Poll::Pending;
        }
        match self.slot.take() {
            Some(reply) => Poll::Ready(result_of(reply, self.argument)),
            None => panic!("a Task was polled after its end"),
        }
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("stage", &*self.slot.lock()).finish_non_exhaustive()
    }
}

/// The result of a piece of one item.
fn result_of<R: Portable>(reply: Reply, argument: &'static str) -> Result<R> {
    let mut result = Err(Error::Cancelled);
    outcomes(reply, argument, |outcome| {
        result = outcome;
        Ok(())
    })?;
    result
}

/// Hands the outcomes of a piece to `each`, in order, until that fails.
pub(super) fn outcomes<R: Portable>(
    reply: Reply,
    argument: &'static str,
    mut each: impl FnMut(Result<R>) -> Result<()>,
) -> Result<()> {
    let (bytes, fds) = match reply {
        Reply::Items { bytes, fds, .. } => (bytes, fds),
        Reply::Lost(cause) => return Err(cause.into()),
    };
    wire::unpack_many(fds, || {
        let mut rest = &bytes[..];
        while let Some((flag, outcome)) = lane::split_item(&mut rest) {
            let is_failure = flag == FAILED;
            each(if is_failure {
                Err(failure(outcome, argument, type_name::<R>()))
            } else {
                wire::unpack_plain(outcome)
            })?;
        }
        Ok(())
    })
}

/// The results of a piece of `items`, all of which were tried.
pub(super) fn results_of<R: Portable>(reply: Reply, items: u32, argument: &'static str) -> Vec<Result<R>> {
    match reply {
        Reply::Lost(cause) => (0..items).map(|_| Err(cause.clone().into())).collect(),
        reply => {
            let mut results = Vec::with_capacity(items as usize);
            let whole = outcomes(reply, argument, |outcome| {
                results.push(outcome);
                Ok(())
            });
            results.extend(whole.err().map(Err));
            results
        }
    }
}

fn failure(bytes: &[u8], argument: &'static str, result: &'static str) -> Error {
    match postcard::from_bytes::<Failure>(bytes) {
        Ok(failure) => failure.into_error(0, argument, result),
        Err(error) => Error::decoding::<Failure>()(error),
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Died { pid, status } => Self::Died { pid, status },
            Cause::Panicked(report) => Self::Panicked(report),
            Cause::TimedOut => Self::TimedOut,
            Cause::Cancelled => Self::Cancelled,
            Cause::FdLimit => Self::FdLimit,
            Cause::Unfit(cause) => Self::NoWorkers(cause),
        }
    }
}

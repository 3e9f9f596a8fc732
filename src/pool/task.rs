//! A task: one call that was submitted, and its result, some day.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crosslane_sync::Deadline;

use super::callbacks::Callbacks;
use super::completion::Note;
use super::crew::Crew;
use super::lane::{self, FAILED, Failure};
use super::piece::{Cause, Job, Piece, Reply, Sink};
use crate::error::{Error, Result};
use crate::wire::{self, Portable};

/// A call that was submitted to a [`Pool`](crate::Pool), and its result, once it has one.
///
/// Dropping it lets the call run and forgets the result. It is a [`Future`]: any runtime can await it. It outlives its pool:
/// what that had not done is [`Error::Cancelled`] then.
#[must_use = "dropping a Task forgets its result"]
pub struct Task<R> {
    crew: Arc<Crew>,
    slot: Arc<Slot>,
    /// Of its piece.
    ticket: u64,
    given: Given,
    result: PhantomData<fn() -> R>,
}

/// The types of what a function is given, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) argument: &'static str,
    pub(super) context: &'static str,
}

/// Where the reply of a task arrives.
#[derive(Debug)]
pub(super) struct Slot(Mutex<Stage>);

enum Stage {
    Awaited(Option<Listener>),
    Done(Reply),
    Taken,
}

/// Who is told that the reply is there. What users bring runs in a thread for that: see `callbacks.rs`.
pub(super) enum Listener {
    Note(Note),
    Waker(Waker, Arc<Callbacks>),
    Callback(Box<dyn FnOnce(Reply) + Send>, Arc<Callbacks>),
}

impl Slot {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Stage::Awaited(None))))
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        !matches!(*self.lock(), Stage::Awaited(_))
    }

    /// Has `new` told of the reply, and nobody else; gives it back if the reply is there.
    fn listen(&self, new: Listener) -> Option<Listener> {
        let mut stage = self.lock();
        let Stage::Awaited(listener) = &mut *stage else { return Some(new) };
        let old = listener.replace(new);
        // What users bring is dropped without the lock.
        drop(stage);
        drop(old);
        None
    }

    /// Whether `waker` will be woken already.
    fn will_wake(&self, waker: &Waker) -> bool {
        matches!(&*self.lock(), Stage::Awaited(Some(Listener::Waker(known, _))) if known.will_wake(waker))
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
        let Stage::Awaited(listener) = &mut *stage else { return };
        match listener.take() {
            Some(Listener::Callback(then, callbacks)) => {
                *stage = Stage::Taken;
                drop(stage);
                callbacks.push(Box::new(move || then(reply)));
            }
            listener => {
                *stage = Stage::Done(reply);
                drop(stage);
                match listener {
                    Some(Listener::Note(note)) => note.tell(),
                    Some(Listener::Waker(waker, callbacks)) => callbacks.push(Box::new(move || waker.wake())),
                    _ => {}
                }
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        // Who cancels a task takes its piece back, wherever it is.
        false
    }
}

/// A job for single calls. The workers forget it when its last user has left.
#[derive(Debug)]
struct Calls {
    crew: Weak<Crew>,
    job: Arc<Job>,
    /// Its calls that have no outcome yet, and who may make more.
    users: Mutex<usize>,
}

/// One that uses a job, for as long as it lives. May take the pool's mutex when it is dropped.
#[derive(Debug)]
pub(super) struct User(Arc<Calls>);

impl User {
    /// The first one of a job, who may make more calls.
    pub(super) fn first(crew: &Arc<Crew>, job: Job) -> Self {
        Self(Arc::new(Calls { crew: Arc::downgrade(crew), job: Arc::new(job), users: Mutex::new(1) }))
    }

    pub(super) fn job(&self) -> &Arc<Job> {
        &self.0.job
    }
}

impl Clone for User {
    fn clone(&self) -> Self {
        *self.0.users.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut users = self.0.users.lock().unwrap_or_else(PoisonError::into_inner);
        *users -= 1;
        let is_last = *users == 0;
        drop(users);
        if is_last && let Some(crew) = self.0.crew.upgrade() {
            crew.forget(&self.0.job);
        }
    }
}

/// Where the reply of one of these calls arrives.
#[derive(Debug)]
pub(super) struct OneOf {
    /// Until the reply arrives.
    user: Mutex<Option<User>>,
    slot: Arc<Slot>,
}

impl OneOf {
    pub(super) fn new(user: User, slot: &Arc<Slot>) -> Arc<Self> {
        Arc::new(Self { user: Mutex::new(Some(user)), slot: Arc::clone(slot) })
    }
}

impl Sink for OneOf {
    fn done(&self, index: usize, reply: Reply) {
        drop(self.user.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.slot.done(index, reply);
    }

    fn is_cancelled(&self) -> bool {
        self.slot.is_cancelled()
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Awaited(_) => "Awaited",
            Self::Done(_) => "Done",
            Self::Taken => "Taken",
        })
    }
}

impl Given {
    /// An `A`, and what a job is made with.
    pub(super) fn new<A>(context: &'static str) -> Self {
        Self { argument: type_name::<A>(), context }
    }
}

impl<R> Task<R> {
    /// Submits `piece`, whose reply will arrive at `slot`.
    pub(super) fn submit(crew: &Arc<Crew>, piece: Box<Piece>, slot: Arc<Slot>, given: Given) -> Result<Self> {
        let ticket = crew.submit(piece)?;
        Ok(Self { crew: Arc::clone(crew), slot, ticket, given, result: PhantomData })
    }

    pub(super) fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// Has `note` tell of the task's end, at once if it has ended.
    pub(super) fn note_end(&self, note: Note) {
        if let Some(Listener::Note(note)) = self.slot.listen(Listener::Note(note)) {
            note.tell();
        }
    }

    /// As far as is known without looking for answers.
    pub(super) fn has_ended(&self) -> bool {
        self.slot.is_done()
    }

    /// Whether it has ended without a result.
    pub(super) fn has_failed(&self) -> bool {
        matches!(&*self.slot.lock(), Stage::Done(reply) if reply.has_failed())
    }

    /// Whether the result, or the reason that there is none, is there. Looks for answers; does not block.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.crew.wait_until(Deadline::now(), || self.slot.is_done())
    }

    /// Whether a worker is at it right now; it may have ended when this returns. Does not block.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.slot.is_done() && self.crew.is_running(self.ticket)
    }

    /// Takes the call back if no worker has begun it; returns whether it was. Its result is [`Error::Cancelled`] then.
    ///
    /// Does not block, and costs about the same however many calls there are. A call that is running goes on:
    /// [`kill`](Self::kill) ends it.
    pub fn cancel(&self) -> bool {
        !self.slot.is_done() && self.crew.take_back(&[self.ticket]) > 0
    }

    /// Takes the call back, or ends the worker that is at it (SIGKILL), which is replaced; returns whether that was so. Its
    /// result is [`Error::Cancelled`] then. The other calls that the worker was given go to others.
    ///
    /// Does not block: a thread of the pool's reaps the worker and starts another. `false` if the call has ended: then nobody is
    /// killed. A killed call is not tried again, whatever its [retries](crate::PoolBuilder::retries).
    ///
    /// # Errors
    /// [`Error::Io`] if the worker could not be signalled.
    pub fn kill(&self) -> Result<bool> {
        if self.slot.is_done() { Ok(false) } else { self.crew.kill(self.ticket) }
    }
}

impl<R: Portable> Task<R> {
    /// Waits for the result. Takes part in the pool's work meanwhile.
    ///
    /// Blocks until the call has ended: spins for some microseconds, then sleeps. If its worker dies, it ends at once with
    /// that; a worker that is stopped (SIGSTOP) in the middle of it is waited for.
    ///
    /// # Errors
    /// What ended the call instead: [`Error::Panicked`], [`Error::Died`] for its worker, [`Error::Cancelled`],
    /// [`Error::TimedOut`], [`Error::Encode`] or [`Error::Decode`], [`Error::NoWorkers`].
    pub fn result(self) -> Result<R> {
        self.crew.wait_until(Deadline::never(), || self.slot.is_done());
        self.slot.take().map_or(Err(Error::Cancelled), |reply| result_of(reply, self.given))
    }

    /// Waits at most so long (zero: looks only); the result is not lost by that, and the call goes on.
    ///
    /// # Errors
    /// As [`result`](Self::result); [`Error::Cancelled`] too where the result has been taken before.
    pub fn result_timeout(&mut self, timeout: Duration) -> Result<Option<R>> {
        self.crew.wait_until(Deadline::after(timeout), || self.slot.is_done());
        match self.slot.take() {
            Some(reply) => result_of(reply, self.given).map(Some),
            None if self.slot.is_done() => Err(Error::Cancelled),
            None => Ok(None),
        }
    }

    /// Runs `then` with the result, once, whatever becomes of the call and of the pool.
    ///
    /// It runs in a thread of the pool that runs callbacks, one after the other, and nothing else, also if the result is
    /// there already. So it may take its time, wait for other tasks, and use, join or drop the pool; it must not wait for
    /// another callback of the same pool. A panic of `then` is printed by the panic hook and ends there.
    /// [`join`](crate::Pool::join) waits for the callbacks, if it is not called by one.
    pub fn on_done(self, then: impl FnOnce(Result<R>) + Send + 'static) {
        let (given, callbacks) = (self.given, self.crew.callbacks());
        let owed = callbacks.owe();
        let then = Box::new(move |reply| {
            let _owed = owed;
            then(result_of(reply, given));
        });
        if let Some(Listener::Callback(then, callbacks)) =
            self.slot.listen(Listener::Callback(then, Arc::clone(callbacks)))
            && let Some(reply) = self.slot.take()
        {
            callbacks.push(Box::new(move || then(reply)));
            self.crew.mind_callbacks();
        }
    }
}

impl<R: Portable> Future for Task<R> {
    type Output = Result<R>;

    /// The waker is woken in the thread that runs callbacks: see [`on_done`](Task::on_done).
    ///
    /// # Panics
    /// If it was polled to its end before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        let waker = context.waker();
        if self.slot.will_wake(waker)
            || self.slot.listen(Listener::Waker(waker.clone(), Arc::clone(self.crew.callbacks()))).is_none()
        {
            return Poll::Pending;
        }
        match self.slot.take() {
            Some(reply) => Poll::Ready(result_of(reply, self.given)),
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
fn result_of<R: Portable>(reply: Reply, given: Given) -> Result<R> {
    let mut result = Err(Error::Corrupt);
    outcomes(reply, 1, given, |outcome| {
        result = outcome;
        Ok(())
    })?;
    result
}

/// Hands the outcomes of a piece of `items` to `each`, in order, until that fails.
///
/// # Errors
/// What `each` says; [`Error::Corrupt`]: they are not as many. A worker writes as many outcomes as there are items, or up to one
/// that failed: else its memory was written over.
pub(super) fn outcomes<R: Portable>(
    reply: Reply,
    items: usize,
    given: Given,
    mut each: impl FnMut(Result<R>) -> Result<()>,
) -> Result<()> {
    let (has_failed, bytes, fds) = match reply {
        Reply::Items { has_failed, bytes, fds } => (has_failed, bytes, fds),
        Reply::Lost(cause) => return Err(cause.into()),
        Reply::Refused(error) => return Err(error),
    };
    wire::unpack_many(fds, || {
        let (mut rest, mut left) = (&bytes[..], items);
        while let Some((flag, outcome)) = lane::split_outcome(&mut rest) {
            left = left.checked_sub(1).ok_or(Error::Corrupt)?;
            let is_failure = flag == FAILED;
            each(if is_failure { Err(failure(outcome, given, type_name::<R>())) } else { wire::unpack_item(outcome) })?;
        }
        if rest.is_empty() && (left == 0 || has_failed) { Ok(()) } else { Err(Error::Corrupt) }
    })
}

/// The results of a piece of `items`, all of which were tried.
pub(super) fn results_of<R: Portable>(reply: Reply, items: usize, given: Given) -> Vec<Result<R>> {
    match reply {
        Reply::Lost(cause) => (0..items).map(|_| Err(cause.clone().into())).collect(),
        reply => {
            let mut results = Vec::with_capacity(items);
            let whole = outcomes(reply, items, given, |outcome| {
                results.push(outcome);
                Ok(())
            });
            results.extend(whole.err().map(Err));
            results.resize_with(items, || Err(Error::Corrupt));
            results
        }
    }
}

fn failure(bytes: &[u8], given: Given, result: &'static str) -> Error {
    match postcard::from_bytes::<Failure>(bytes) {
        Ok(failure) => failure.into_error(given, result),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_as_many_as_items_or_end_with_a_failure() {
        let reply = |count, has_failed| {
            let mut bytes = Vec::new();
            (0..count).for_each(|_| lane::write_item(&mut bytes, &[7]));
            Reply::Items { has_failed, bytes, fds: Vec::new() }
        };
        let given = Given { argument: "u8", context: "()" };
        let whole =
            |count, items, has_failed| outcomes::<u8>(reply(count, has_failed), items, given, |item| item.map(drop));
        assert!(matches!((whole(2, 2, false), whole(1, 2, true)), (Ok(()), Ok(()))));
        for (count, items) in [(0, 1), (1, 2), (3, 2)] {
            let found = whole(count, items, false);
            assert!(matches!(found, Err(Error::Corrupt)), "{count} of {items}: {found:?}");
        }
    }
}

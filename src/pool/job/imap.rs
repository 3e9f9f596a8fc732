//! The results of a map one by one.

use std::collections::VecDeque;
use std::fmt;
use std::task::Poll;
use std::time::Duration;

use crosslane_sync::Deadline;

use super::Stream;
use super::sliding::Sliding;
use crate::error::{Error, Result};
use crate::pool::piece::Reply;
use crate::pool::task::results_of;
use crate::wire::Portable;

/// What an iterator over results holds.
struct Results<'p, I, R> {
    /// `None` at its end.
    stream: Option<Stream<'p, I, R>>,
    failed: Option<Error>,
    ready: VecDeque<Result<R>>,
    /// Replies that came before those of earlier pieces.
    early: Sliding<(usize, Reply)>,
}

impl<'p, I: Iterator<Item: Portable>, R: Portable> Results<'p, I, R> {
    fn new(stream: Result<Stream<'p, I, R>>) -> Self {
        let (stream, failed) = match stream {
            Ok(stream) => (Some(stream), None),
            Err(error) => (None, Some(error)),
        };
        Self { stream, failed, ready: VecDeque::new(), early: Sliding::default() }
    }

    fn next(&mut self, in_order: bool) -> Option<Result<R>> {
        match self.next_until(in_order, Deadline::never()) {
            Poll::Ready(next) => next,
            Poll::Pending => None,
        }
    }

    fn next_until(&mut self, in_order: bool, deadline: Deadline) -> Poll<Option<Result<R>>> {
        loop {
            if let Some(result) = self.ready.pop_front() {
                return Poll::Ready(Some(result));
            }
            let Some(stream) = &mut self.stream else { return Poll::Ready(self.failed.take().map(Err)) };
            if let Some((items, reply)) = self.early.pop_first() {
                stream.held -= items;
                stream.note_given(items);
                self.ready = results_of(reply, items, stream.given).into();
                continue;
            }
            match stream.receive_until(deadline) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some((_, items, reply))) if !in_order => {
                    stream.note_given(items);
                    self.ready = results_of(reply, items, stream.given).into();
                }
                Poll::Ready(Some((index, items, reply))) => {
                    stream.held += items;
                    self.early.put(index, (items, reply));
                }
                Poll::Ready(None) => {
                    self.failed = stream.failed.take();
                    self.stream = None;
                }
            }
        }
    }
}

/// The results of [`Pool::imap`](crate::Pool::imap), in the items' order. Dropping it takes back what has not begun.
///
/// `next` blocks until the next item has an outcome, and in the iterator over the items: see
/// [`Pool::imap`](crate::Pool::imap). An item whose worker died is an error in its place, and so is one that cannot be
/// encoded; an error that ends the job, as that the pool is closed, is the last result.
#[must_use = "items are read as results are taken"]
pub struct Imap<'p, I, R>(Results<'p, I, R>);

/// The results of [`Pool::imap_unordered`](crate::Pool::imap_unordered), as they come. Dropping it takes back what has not
/// begun.
///
/// `next` blocks until any item has an outcome, and in the iterator over the items, as that of an [`Imap`]. Errors are results
/// among others, as for that; which item one belongs to is not said: let the function return it, or take `imap`.
#[must_use = "items are read as results are taken"]
pub struct ImapUnordered<'p, I, R>(Results<'p, I, R>);

impl<'p, I: Iterator<Item: Portable>, R: Portable> Imap<'p, I, R> {
    pub(super) fn new(stream: Result<Stream<'p, I, R>>) -> Self {
        Self(Results::new(stream))
    }

    /// The next result, if it comes within `timeout`; pending if it does not, and nothing is lost by that. Items are asked for
    /// before, and their iterator may take longer.
    pub fn next_timeout(&mut self, timeout: Duration) -> Poll<Option<Result<R>>> {
        self.0.next_until(true, Deadline::after(timeout))
    }
}

impl<'p, I: Iterator<Item: Portable>, R: Portable> ImapUnordered<'p, I, R> {
    pub(super) fn new(stream: Result<Stream<'p, I, R>>) -> Self {
        Self(Results::new(stream))
    }

    /// The next result, if one comes within `timeout`; pending if none does, and nothing is lost by that. Items are asked for
    /// before, and their iterator may take longer.
    pub fn next_timeout(&mut self, timeout: Duration) -> Poll<Option<Result<R>>> {
        self.0.next_until(false, Deadline::after(timeout))
    }
}

impl<I: Iterator<Item: Portable>, R: Portable> Iterator for Imap<'_, I, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.0.next(true)
    }
}

impl<I: Iterator<Item: Portable>, R: Portable> Iterator for ImapUnordered<'_, I, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.0.next(false)
    }
}

impl<I, R> fmt::Debug for Imap<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").finish_non_exhaustive()
    }
}

impl<I, R> fmt::Debug for ImapUnordered<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").finish_non_exhaustive()
    }
}

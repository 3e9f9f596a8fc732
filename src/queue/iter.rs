//! A queue's values until it ends.

use std::fmt;

use super::channel::{Channel, Patience};
use crate::error::{Error, Result};
use crate::wire::Portable;

/// The values of a queue as they come, waiting for each. Ends when the queue is closed and drained.
///
/// A value that cannot be decoded is an `Err`, and the next one follows; any other error is the last.
#[must_use = "nothing is taken before `next`"]
pub struct Iter<'a, T> {
    source: Option<&'a dyn Source<T>>,
}

/// Where values come from.
pub(super) trait Source<T>: fmt::Debug + Sync {
    /// The next one, waiting for it.
    fn next_value(&self) -> Result<T>;
}

impl<T: Portable> Source<T> for Channel<T> {
    fn next_value(&self) -> Result<T> {
        self.get(Patience::Forever)
    }
}

impl<'a, T> Iter<'a, T> {
    pub(super) fn new(source: &'a dyn Source<T>) -> Self {
        Self { source: Some(source) }
    }
}

impl<T: Portable> Iterator for Iter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let got = self.source?.next_value();
        match got {
            Ok(_) | Err(Error::Decode { .. }) => Some(got),
            Err(Error::Closed) => {
                self.source = None;
                None
            }
            Err(_) => {
                self.source = None;
                Some(got)
            }
        }
    }
}

impl<T: Portable> std::iter::FusedIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("source", &self.source).finish()
    }
}

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
    channel: Option<&'a Channel<T>>,
}

impl<'a, T> Iter<'a, T> {
    pub(super) fn new(channel: &'a Channel<T>) -> Self {
        Self { channel: Some(channel) }
    }
}

impl<T: Portable> Iterator for Iter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let got = self.channel?.get(Patience::Forever);
        match got {
            Ok(_) | Err(Error::Decode { .. }) => Some(got),
            Err(Error::Closed) => {
                self.channel = None;
                None
            }
            Err(_) => {
                self.channel = None;
                Some(got)
            }
        }
    }
}

impl<T: Portable> std::iter::FusedIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("channel", &self.channel).finish()
    }
}

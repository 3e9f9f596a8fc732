//! A queue with the four calls that most need.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::channel::{Channel, Patience};
use super::{Iter, PutError};
use crate::error::Result;
use crate::wire::Portable;

/// A [`Queue`](super::Queue) with fewer calls: put, get, whether it is empty, close.
///
/// It has room for 1,024 values of at most as many bytes as [`Queue::bounded`](super::Queue::bounded) allows; a `put` into
/// a full one waits.
///
/// # Examples
/// ```
/// let queue = crosslane::SimpleQueue::<u64>::new()?;
/// queue.put(7)?;
/// assert!(!queue.is_empty());
/// assert_eq!(queue.get()?, 7);
/// # Ok::<(), crosslane::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct SimpleQueue<T>(Channel<T>);

/// Values that a simple queue has room for.
const ITEMS: usize = 1024;

impl<T: Portable> SimpleQueue<T> {
    /// An empty queue.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create).
    pub fn new() -> Result<Self> {
        Ok(Self(Channel::new(ITEMS, Channel::<T>::default_max_bytes())?))
    }

    /// As [`Queue::put`](super::Queue::put).
    ///
    /// # Errors
    /// As [`Queue::put`](super::Queue::put).
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.put(value, Patience::Forever)
    }

    /// As [`Queue::get`](super::Queue::get).
    ///
    /// # Errors
    /// As [`Queue::get`](super::Queue::get).
    pub fn get(&self) -> Result<T> {
        self.0.get(Patience::Forever)
    }

    /// As [`Queue::is_empty`](super::Queue::is_empty).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`Queue::close`](super::Queue::close).
    pub fn close(&self) {
        self.0.close();
    }

    /// As [`Queue::iter`](super::Queue::iter).
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(&self.0)
    }
}

impl<'a, T: Portable> IntoIterator for &'a SimpleQueue<T> {
    type Item = Result<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for SimpleQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for SimpleQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimpleQueue").field(&self.0).finish()
    }
}

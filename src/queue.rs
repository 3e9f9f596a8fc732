//! Queues of values: any number of producers and consumers in any processes, each value to one consumer.
//!
//! [`Queue`] is the queue for most; a [`JoinableQueue`] knows when everything that was put into it has been done, and a
//! [`SimpleQueue`] has fewer calls. Further down, for items of one `Plain` type and for bytes, also by name between unrelated programs, there are [`shm::Queue`](crate::shm::Queue) and
//! [`shm::Messages`](crate::shm::Messages).
//!
//! Protocol, orderings and crash table: [`crosslane_core::mpmc`]. Here is only what makes messages of values
//! (`channel.rs`).

mod channel;
mod error;
mod iter;
mod joinable;
mod simple;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::channel::{Channel, Patience};
use crate::error::Result;
use crate::wire::Portable;

#[doc(inline)]
pub use crosslane_core::mpmc::{PopError, PushError, Recovered};
#[doc(inline)]
pub use crosslane_shm::messages;
#[doc(inline)]
pub use crosslane_shm::queue::{Delivery, Reservation};

pub use error::PutError;
pub use iter::Iter;
pub use joinable::JoinableQueue;
pub use simple::SimpleQueue;

/// A bounded queue of values of any type that serde can write, with any number of producers and consumers in any processes;
/// each value goes to one of them. First in, first out for each producer.
///
/// A clone is the same queue, and so is what arrives when it is handed to another process: as an argument or result, or
/// through a [`Connection`](crate::Connection).
///
/// There is no thread and no pipe behind it: `put` copies the value into memory that all of them share and returns when it
/// is there, so it outlives its producer, and nobody's exit waits for anybody. A message has room for as many bytes as the
/// queue was made with, in a slot of its own. One file descriptor.
///
/// Putting and getting a small value takes 0.1-0.2 us; a `Vec` of numbers or a `String` travels as its bytes, copied twice.
/// For large ones, memory that is new for each message costs more than the copies: see [`put_ref`](Self::put_ref) and
/// [`get_into`](Self::get_into).
///
/// # Crash
/// A process that is killed in `put` has put its value or not. One that is killed in `get` before it has the value leaves
/// it to be delivered again; a value whose consumers were killed three times is not delivered any more. Whoever waits goes
/// on: at once if the dead one was not in the way, else within 10 ms, and within 1 s if it was killed between putting a
/// value and waking the one that sleeps.
///
/// # Examples
/// ```
/// use crosslane::Queue;
///
/// let queue = Queue::bounded(64)?;
/// queue.put(("first".to_owned(), 1.5))?;
/// queue.put(("second".to_owned(), 2.5))?;
/// queue.close();
/// let all = queue.iter().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(all[1], ("second".to_owned(), 2.5));
/// # Ok::<(), crosslane::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Queue<T>(Channel<T>);

impl<T: Portable> Queue<T> {
    /// A queue with room for `items` values, rounded up to a power of two from 2 on.
    ///
    /// The longest message is 16 KiB for a type that owns memory (a `String`, a `Vec`, a `Box`), and enough for any value
    /// of another one: twice its size and 32 bytes, or a little more. [`with_limit`](Self::with_limit) states another
    /// limit. The memory for all of it is reserved here, so 1,000 `String`s take 16 MiB, and 1,000 `u64` 64 KiB.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create): no room for 0 items, or for more than 2^26, or not enough memory.
    pub fn bounded(items: usize) -> Result<Self> {
        Self::with_limit(items, Channel::<T>::default_max_bytes())
    }

    /// As [`bounded`](Self::bounded), for messages of up to `max_bytes`, in 0..=2^26 - 8. Each of the `items` has that
    /// much memory.
    ///
    /// # Errors
    /// [`Error::Create`](crate::Error::Create).
    pub fn with_limit(items: usize, max_bytes: u32) -> Result<Self> {
        Ok(Self(Channel::new(items, max_bytes)?))
    }

    /// Puts a value, waiting while the queue is full.
    ///
    /// # Errors
    /// The value, with [`Error::Closed`](crate::Error::Closed); [`Error::Encode`](crate::Error::Encode),
    /// [`Error::TooLarge`](crate::Error::TooLarge) and [`Error::HandleInQueue`](crate::Error::HandleInQueue), which leave
    /// the queue as it was; [`Error::Forked`](crate::Error::Forked), [`Error::Corrupt`](crate::Error::Corrupt).
    ///
    /// # Crash
    /// A process killed inside has put the value or has not.
    #[inline]
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.put(value, Patience::Forever)
    }

    /// As [`put`](Self::put), of a value that stays the caller's: the memory of a large vector, which has its pages, serves
    /// for the next message.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Crash
    /// As [`put`](Self::put).
    #[inline]
    pub fn put_ref(&self, value: &T) -> Result<()> {
        self.0.put_ref(value, Patience::Forever)
    }

    /// Puts a value if there is room. Does not block.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Full`](crate::Error::Full).
    #[inline]
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.put(value, Patience::Try)
    }

    /// Puts a value, waiting for room at most for `timeout`.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::TimedOut`](crate::Error::TimedOut).
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.0.put(value, Patience::Timeout(timeout))
    }

    /// Gets the oldest value, waiting for one.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) once the queue is closed and nothing can come any more;
    /// [`Error::Decode`](crate::Error::Decode) for a message of another type, which is consumed;
    /// [`Error::Forked`](crate::Error::Forked), [`Error::Corrupt`](crate::Error::Corrupt).
    ///
    /// # Crash
    /// A process killed inside has consumed the value, or it is delivered again. So is one whose `Deserialize` panics.
    #[inline]
    pub fn get(&self) -> Result<T> {
        self.0.get(Patience::Forever)
    }

    /// Gets the oldest value, waiting for one, in place of `value`. A `Vec` of numbers or a `String` keeps its memory if what
    /// comes fits in there: with [`put_ref`](Self::put_ref) at the other end, large ones travel as fast as memory is copied.
    ///
    /// # Errors
    /// As [`get`](Self::get); `value` is as it was then.
    ///
    /// # Crash
    /// As [`get`](Self::get).
    ///
    /// # Examples
    /// ```
    /// let queue = crosslane::Queue::with_limit(4, 1 << 20)?;
    /// let (frame, mut seen) = (vec![7_u8; 1 << 20], Vec::new());
    /// for _ in 0..3 {
    ///     queue.put_ref(&frame)?;
    ///     queue.get_into(&mut seen)?;
    /// }
    /// assert_eq!(seen, frame);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    pub fn get_into(&self, value: &mut T) -> Result<()> {
        self.0.get_into(value, Patience::Forever)
    }

    /// As [`get_into`](Self::get_into), waiting for a value at most for `timeout`.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout); `value` is as it was then.
    pub fn get_into_timeout(&self, value: &mut T, timeout: Duration) -> Result<()> {
        self.0.get_into(value, Patience::Timeout(timeout))
    }

    /// Gets the oldest value that is there. Does not block; a value that another process is still putting is passed over.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Empty`](crate::Error::Empty); so too of a closed queue while another process is
    /// getting the last value, which it may leave behind.
    #[inline]
    pub fn try_get(&self) -> Result<T> {
        self.0.get(Patience::Try)
    }

    /// Gets the oldest value, waiting for one at most for `timeout`: the whole call is bounded by it.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::TimedOut`](crate::Error::TimedOut).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.0.get(Patience::Timeout(timeout))
    }

    /// The values as they come, until the queue is closed and drained.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(&self.0)
    }

    /// Values that wait. Exact while nobody puts or gets; otherwise a value that comes or goes meanwhile may be missed or
    /// counted. Looks at every slot.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing waits. Never wrong about a value that was put before, by this process or one that has been joined:
    /// it is `false` until somebody gets that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Values that there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// The longest message, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.0.max_bytes()
    }

    /// Ends the queue for everybody: later puts get [`Error::Closed`](crate::Error::Closed), gets what is left and then
    /// that. Wakes all who wait. A put that runs meanwhile may still succeed.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether the queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl<'a, T: Portable> IntoIterator for &'a Queue<T> {
    type Item = Result<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.0).finish()
    }
}

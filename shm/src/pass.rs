//! Passes: what says of something on its way between processes that it can still arrive.
//!
//! # What
//! A pass is a descriptor that travels with a message. Its open file description holds locks on bytes of a segment's file
//! ([`F_OFD_SETLK`](https://man7.org/linux/man-pages/man2/fcntl_locking.2.html)), so the lock lives exactly as long as
//! somebody has the descriptor, or it lies in a socket that somebody may read. Whoever has the segment asks the kernel.
//!
//! # Protocol
//! Sender: 1. a pass; 2. what is on its way says so; 3. the message, with the pass; 4. the own descriptor is closed.
//! Receiver: 1. takes what came, which then no longer says that it is on its way; 2. closes the pass.
//! Anybody: 1. it says that it is on its way; 2. nobody has the pass; 3. it still says so: it is lost. For ends of rings these
//! steps, and their model, are in [`crosslane_core::record`].
//!
//! The kernel orders the receiver's two steps before the end of the lock, and that before the answer to who asks.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | sender 1 and 3 | no pass; and a dead sender |
//! | sender 3 and 4 | the message, which has a pass of its own |
//! | receiver, before 1 | no pass, once the kernel has closed its descriptors |

use std::os::fd::{AsFd, OwnedFd};

use crate::segment::Segment;
use crate::sys::call::OsError;
use crate::sys::file;
use crate::sys::lock::{self, Bytes, Mode};

impl Segment {
    /// A pass for each of `numbers`, all in one descriptor. Who gave out the same number does not matter: it is in use as
    /// long as anybody has a pass of it.
    ///
    /// Only the lowest 29 bits of a number count.
    ///
    /// # Errors
    /// [`OsError`]: of opening the segment's file again, or of locking its bytes.
    pub fn pass(&self, numbers: impl IntoIterator<Item = u32>) -> Result<OwnedFd, OsError> {
        let pass = file::reopen(self.as_fd(), true)?;
        for number in numbers {
            // Nobody locks these bytes for writing.
            lock::try_lock(pass.as_fd(), Bytes::pass(number), Mode::Read)?;
        }
        Ok(pass)
    }

    /// Whether anybody has a pass of this number. One system call.
    ///
    /// # Errors
    /// [`OsError`], of asking the kernel.
    pub fn has_pass(&self, number: u32) -> Result<bool, OsError> {
        lock::is_held(self.as_fd(), Bytes::pass(number), Mode::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_pass_is_there_as_long_as_a_descriptor_of_it() {
        let segment = Segment::anonymous(64, &Options::new()).unwrap();
        let is_there = |number| segment.has_pass(number).unwrap();
        let pass = segment.pass([3, 5]).unwrap();
        assert_eq!([2, 3, 4, 5, 6].map(is_there), [false, true, false, true, false]);
        let (other, again) = (pass.try_clone().unwrap(), segment.pass([5]).unwrap());
        drop(pass);
        assert!(is_there(3));
        drop(other);
        assert_eq!([3, 5].map(is_there), [false, true]);
        drop(again);
        assert!(!is_there(5));
        // Of the numbers that are told apart, the last one is not in the way of leases.
        let last = segment.pass([u32::MAX]).unwrap();
        assert!(is_there((1 << 29) - 1) && !is_there(0));
        drop(last);
    }
}

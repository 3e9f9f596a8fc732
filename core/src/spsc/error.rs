//! Why memory makes no ring, and why nothing was pushed or popped.

use super::{MAX_ALIGN, MAX_CAPACITY};
use crate::owner::OwnerId;

/// Why memory does not make a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The capacity is no power of two in 2..=[`MAX_CAPACITY`].
    Capacity {
        /// What was asked for, in slots.
        slots: u32,
    },
    /// The items' alignment is above [`MAX_ALIGN`].
    Alignment {
        /// The items' alignment, in bytes.
        align: usize,
    },
    /// The memory is too short, or the ring's size does not fit this target's address space.
    TooShort {
        /// Bytes that the ring needs (`u64::MAX`: more than can be addressed).
        needed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The memory is not aligned to 128 bytes.
    Misaligned,
}

impl core::fmt::Display for RingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Capacity { slots } => write!(f, "{slots} slots: a power of two in 2..={MAX_CAPACITY} is needed"),
            Self::Alignment { align } => write!(f, "items aligned to {align} bytes: at most {MAX_ALIGN} is possible"),
            Self::TooShort { needed, found } => write!(f, "the ring needs {needed} bytes and the memory has {found}"),
            Self::Misaligned => f.write_str("the memory is not aligned to 128 bytes"),
        }
    }
}

impl core::error::Error for RingError {}

/// Why nothing was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// Every slot holds an item that has not been popped.
    Full,
    /// The ring stayed full until the deadline.
    TimedOut,
    /// The ring is full and its consumer has ended in order.
    Closed,
    /// The ring is full and its consumer is proven dead; a successor may claim its end.
    PeerDied(OwnerId),
    /// This process is a raw `fork()` child of the one that claimed the end.
    Forked,
    /// A slot holds what no process writes that keeps to the protocol.
    Corrupt,
}

/// Why nothing was popped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PopError {
    /// No item is there.
    Empty,
    /// The ring stayed empty until the deadline.
    TimedOut,
    /// Every item has been popped and the producer has ended in order.
    Closed,
    /// Every item has been popped and the producer is proven dead; a successor may claim its end.
    PeerDied(OwnerId),
    /// This process is a raw `fork()` child of the one that claimed the end.
    Forked,
    /// A slot holds what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for PushError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full"),
            Self::TimedOut => f.write_str("the ring stayed full until the deadline"),
            Self::Closed => f.write_str("the ring is full and its consumer has ended"),
            Self::PeerDied(id) => write!(f, "the ring is full and its consumer, {id}, has died"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::fmt::Display for PopError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("the ring is empty"),
            Self::TimedOut => f.write_str("the ring stayed empty until the deadline"),
            Self::Closed => f.write_str("the ring is empty and its producer has ended"),
            Self::PeerDied(id) => write!(f, "the ring is empty and its producer, {id}, has died"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::error::Error for PushError {}
impl core::error::Error for PopError {}

//! What goes wrong.

use super::{MAX_CAPACITY_BYTES, MIN_CAPACITY_BYTES};
use crate::owner::OwnerId;

/// Why memory does not make a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The capacity is no power of two in [`MIN_CAPACITY_BYTES`]..=[`MAX_CAPACITY_BYTES`].
    Capacity {
        /// What was asked for, in bytes.
        bytes: u32,
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
            Self::Capacity { bytes } => {
                write!(f, "{bytes} bytes: a power of two in {MIN_CAPACITY_BYTES}..={MAX_CAPACITY_BYTES} is needed")
            }
            Self::TooShort { needed, found } => write!(f, "the ring needs {needed} bytes and the memory has {found}"),
            Self::Misaligned => f.write_str("the memory is not aligned to 128 bytes"),
        }
    }
}

impl core::error::Error for RingError {}

/// Why a record could not be pushed or room for it not be reserved. Nothing was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// There is no room until the reader releases more.
    Full,
    /// The record can never fit.
    TooLong {
        /// What was asked for, in bytes.
        len: usize,
        /// [`Ring::max_len_bytes`](super::Ring::max_len_bytes).
        max: usize,
    },
    /// The reader ended in order, and no other has claimed its end since.
    Closed,
    /// The ring is full and its reader is proven dead; a successor may claim the end.
    PeerDied(OwnerId),
    /// This process is a raw `fork()` child of the one that claimed the end.
    Forked,
    /// The time is over.
    TimedOut,
    /// The shared words hold what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for PushError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full"),
            Self::TooLong { len, max } => write!(f, "a record of {len} bytes, where {max} are the most"),
            Self::Closed => f.write_str("the reader has closed its end"),
            Self::PeerDied(owner) => write!(f, "the reader, {owner}, died"),
            Self::Forked => f.write_str("the end belongs to the parent of this fork child"),
            Self::TimedOut => f.write_str("the time is over and the ring still full"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::error::Error for PushError {}

/// Why a record could not be read. The ring is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PopError {
    /// No record is committed.
    Empty,
    /// The record is longer than the buffer and stays in the ring.
    BufferTooShort {
        /// The record's length in bytes.
        needed: usize,
    },
    /// The ring is drained and the writer ended in order; no other has claimed its end since.
    Closed,
    /// The ring is drained and its writer is proven dead; a successor may claim the end.
    PeerDied(OwnerId),
    /// This process is a raw `fork()` child of the one that claimed the end.
    Forked,
    /// The time is over.
    TimedOut,
    /// The shared words hold what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for PopError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("the ring is empty"),
            Self::BufferTooShort { needed } => write!(f, "the record has {needed} bytes, more than the buffer"),
            Self::Closed => f.write_str("the writer has closed its end"),
            Self::PeerDied(owner) => write!(f, "the writer, {owner}, died"),
            Self::Forked => f.write_str("the end belongs to the parent of this fork child"),
            Self::TimedOut => f.write_str("the time is over and the ring still empty"),
            Self::Corrupt => f.write_str("the shared words of the ring are corrupt"),
        }
    }
}

impl core::error::Error for PopError {}

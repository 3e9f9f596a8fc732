//! What can go wrong with cells.

use super::{MAX_ALIGN, MAX_CELLS, TRIES};
use crate::owner::OwnerId;

/// Why memory holds no such cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CellsError {
    /// The number of cells is not in 2..=255.
    Cells {
        /// Cells asked for.
        cells: u32,
    },
    /// The value's alignment is above 64 bytes.
    Alignment {
        /// The alignment, in bytes.
        align: usize,
    },
    /// The memory is too short.
    TooShort {
        /// Bytes that the cells need.
        needed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The memory is not aligned to 128 bytes.
    Misaligned,
}

/// Why nothing was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// This process is a raw `fork()` child of the one that claimed the end.
    Forked,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing was ever published.
    Empty,
    /// Nothing newer than what this reader has read.
    NothingNew,
    /// The writer publishes faster than this process copies: every one of [`TRIES`] copies was overtaken. More cells
    /// help.
    Busy,
    /// Nothing newer came before the deadline.
    TimedOut,
    /// Nothing newer, and the writer has ended in order.
    Closed,
    /// Nothing newer, and the writer is proven dead; a successor may claim its end.
    WriterDied(OwnerId),
    /// The shared words hold what no process writes that keeps to the protocol.
    Corrupt,
}

impl core::fmt::Display for CellsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Cells { cells } => write!(f, "{cells} cells: 2 to {MAX_CELLS} are possible"),
            Self::Alignment { align } => write!(f, "a value aligned to {align} bytes: at most {MAX_ALIGN} is possible"),
            Self::TooShort { needed, found } => write!(f, "the cells need {needed} bytes and the memory has {found}"),
            Self::Misaligned => f.write_str("the memory is not aligned to 128 bytes"),
        }
    }
}

impl core::fmt::Display for PublishError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
        }
    }
}

impl core::fmt::Display for ReadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing was ever published"),
            Self::NothingNew => f.write_str("nothing newer was published"),
            Self::Busy => write!(f, "{TRIES} copies were overtaken by the writer"),
            Self::TimedOut => f.write_str("nothing newer was published before the deadline"),
            Self::Closed => f.write_str("nothing newer was published and the writer has ended"),
            Self::WriterDied(id) => write!(f, "nothing newer was published and the writer, {id}, has died"),
            Self::Corrupt => f.write_str("the shared words are corrupt"),
        }
    }
}

impl core::error::Error for CellsError {}
impl core::error::Error for PublishError {}
impl core::error::Error for ReadError {}

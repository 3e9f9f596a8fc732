//! What can go wrong with arrays.

use super::MAX_ALIGN;
use super::update::TRIES;

/// Why memory holds no such array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArrayError {
    /// The element's alignment is above 128 bytes.
    Alignment {
        /// The alignment, in bytes.
        align: usize,
    },
    /// The memory is too short.
    TooShort {
        /// Bytes that the elements need; `u64::MAX`: more than can be addressed.
        needed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The memory is not aligned to 128 bytes.
    Misaligned,
}

/// There is no such element, or not all of such a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds {
    /// The element asked for, or the first of a range.
    pub start: usize,
    /// Behind the last element of a range, `usize::MAX` if that is larger still; `None` if one element was asked for.
    pub end: Option<usize>,
    /// How many elements there are.
    pub len: usize,
}

impl OutOfBounds {
    /// Panics with its text, at the place that called the caller.
    #[cold]
    #[track_caller]
    pub(super) fn panic(self) -> ! {
        panic!("{self}")
    }
}

/// Other processes changed the element between each of [`TRIES`] looks and the swap after it; it was not updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contended;

impl core::fmt::Display for ArrayError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Alignment { align } => {
                write!(f, "elements aligned to {align} bytes: at most {MAX_ALIGN} is possible")
            }
            Self::TooShort { needed: u64::MAX, .. } => f.write_str("the array is longer than any memory can be"),
            Self::TooShort { needed, found } => write!(f, "the array needs {needed} bytes and the memory has {found}"),
            Self::Misaligned => f.write_str("the memory is not aligned to 128 bytes"),
        }
    }
}

impl core::fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { start, end, len } = *self;
        match end {
            Some(end) => write!(f, "range {start}..{end} is out of bounds, the len is {len}"),
            None => write!(f, "index {start} is out of bounds, the len is {len}"),
        }
    }
}

impl core::fmt::Display for Contended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "others changed the element at each of {TRIES} tries")
    }
}

impl core::error::Error for ArrayError {}
impl core::error::Error for OutOfBounds {}
impl core::error::Error for Contended {}

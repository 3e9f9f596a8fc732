//! A header and a run of words behind it, in memory that the caller hands over.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;

/// Why memory does not make an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// The object cannot have so many places.
    Count {
        /// What was asked for.
        asked: u32,
        /// The most that there can be.
        max: u32,
    },
    /// The object cannot have messages so long.
    Message {
        /// What was asked for, in bytes.
        len_bytes: u32,
        /// The most that there can be, in bytes.
        max_bytes: u32,
    },
    /// The memory is too short.
    TooShort {
        /// Bytes that the object needs (`u64::MAX`: more than can be addressed).
        needed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The memory's start is not aligned to so many bytes.
    Misaligned {
        /// The alignment that the object needs.
        align: u32,
    },
}

impl core::fmt::Display for TableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Count { asked, max } => write!(f, "{asked} places are not within 1..={max}"),
            Self::Message { len_bytes, max_bytes } => {
                write!(f, "messages of {len_bytes} bytes, and the longest have {max_bytes}")
            }
            Self::TooShort { needed, found } => write!(f, "{needed} bytes are needed, and there are {found}"),
            Self::Misaligned { align } => write!(f, "the memory is not aligned to {align} bytes"),
        }
    }
}

impl core::error::Error for TableError {}

/// One `H` and then some `W`, both of atomics alone.
#[derive(Debug)]
pub(crate) struct Table<'m, H, W> {
    pub(crate) header: &'m H,
    pub(crate) words: &'m [W],
}

impl<H, W> Clone for Table<'_, H, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H, W> Copy for Table<'_, H, W> {}

impl<'m, H, W> Table<'m, H, W> {
    /// Where the words begin, and the layout of the whole.
    fn shape(count: u32, max: u32) -> Result<(Layout, usize), TableError> {
        if count == 0 || count > max {
            return Err(TableError::Count { asked: count, max });
        }
        let too_long = TableError::TooShort { needed: u64::MAX, found: 0 };
        let words = usize::try_from(count).ok().and_then(|count| Layout::array::<W>(count).ok());
        let (layout, offset) = words.and_then(|words| Layout::new::<H>().extend(words).ok()).ok_or(too_long)?;
        Ok((layout.pad_to_align(), offset))
    }

    /// The memory that a header and `count` words take, 1..=`max`.
    pub(crate) fn layout(count: u32, max: u32) -> Result<Layout, TableError> {
        Ok(Self::shape(count, max)?.0)
    }

    /// Writes a header and `count` words, and returns them.
    ///
    /// # Safety
    /// As [`attach`](Self::attach), and nobody else uses the memory yet.
    pub(crate) unsafe fn init(
        memory: NonNull<u8>,
        len: usize,
        count: u32,
        max: u32,
        header: H,
        word: impl Fn() -> W,
    ) -> Result<Self, TableError> {
        let offset = Self::check(memory, len, count, max)?;
        // SAFETY: aligned and long enough by `check`; ours alone by the caller's contract.
        unsafe { memory.cast::<H>().write(header) };
        for i in 0..count as usize {
            // SAFETY: word `i` lies inside the memory by `check`.
            let at = unsafe { memory.byte_add(offset + i * size_of::<W>()) };
            // SAFETY: as above, and aligned since `offset` is a multiple of the word's alignment.
            unsafe { at.cast::<W>().write(word()) };
        }
        // SAFETY: the caller's contract, and the words were just written.
        unsafe { Self::attach(memory, len, count, max) }
    }

    /// The header and the words that `init` wrote.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of `len` bytes during `'m`;
    /// - every bit pattern is an `H` and a `W`, and both consist of atomics, or `init` of the same types has written the
    ///   memory and nothing else writes it.
    pub(crate) unsafe fn attach(memory: NonNull<u8>, len: usize, count: u32, max: u32) -> Result<Self, TableError> {
        let offset = Self::check(memory, len, count, max)?;
        // SAFETY: aligned and long enough by `check`; atomics inside, so a shared reference stays right whatever others
        // write.
        let header = unsafe { memory.cast::<H>().as_ref() };
        // SAFETY: the words begin inside the memory by `check`.
        let words = unsafe { memory.byte_add(offset) }.cast::<W>();
        // SAFETY: as for the header; `count` words lie inside by `check`.
        let words = unsafe { core::slice::from_raw_parts(words.as_ptr(), count as usize) };
        Ok(Self { header, words })
    }

    fn check(memory: NonNull<u8>, len: usize, count: u32, max: u32) -> Result<usize, TableError> {
        let (layout, offset) = Self::shape(count, max)?;
        if len < layout.size() {
            return Err(TableError::TooShort { needed: layout.size() as u64, found: len as u64 });
        }
        if !memory.addr().get().is_multiple_of(layout.align()) {
            return Err(TableError::Misaligned { align: u32::try_from(layout.align()).unwrap_or(u32::MAX) });
        }
        Ok(offset)
    }
}

//! What a message hands over of a segment: to whoever takes it out of the message, once.
//!
//! The rows stand in a memfd that travels with the message's descriptors, and not in its bytes, which user code sees: a
//! `Serialize` of the user's may repeat, change or keep them. In the bytes is only which row is meant.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Codec, CodecError, Error, Result};
use crate::frame;

/// What the file begins with, as no segment does.
const MAGIC: &[u8; 16] = b"crosslane-deeds\0";
/// A row: descriptor, start and end of the range.
const ROW_BYTES: usize = 20;

/// A row, in the bytes of a message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Deed {
    /// The descriptor of the rows.
    pub(super) file: u32,
    pub(super) row: u32,
}

/// The rows of a message that is being unpacked, but for those that were taken.
#[derive(Debug)]
pub(super) struct Deeds(Mutex<Vec<Option<Row>>>);

/// The segment's descriptor in the message, and the range.
type Row = (u32, Range<u64>);

/// An empty list.
pub(super) fn create() -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("crosslane-deeds", MemfdFlags::CLOEXEC)?;
    File::from(fd.try_clone()?).write_all(MAGIC)?;
    Ok(fd)
}

/// Adds a row.
pub(super) fn append(fd: &OwnedFd, descriptor: u32, range: &Range<u64>) -> std::io::Result<()> {
    let mut row = [0; ROW_BYTES];
    row[..4].copy_from_slice(&descriptor.to_le_bytes());
    row[4..12].copy_from_slice(&range.start.to_le_bytes());
    row[12..].copy_from_slice(&range.end.to_le_bytes());
    // A file of its own would take another descriptor; rows are too short to be written in part.
    rustix::io::write(fd.as_fd(), &row)?;
    Ok(())
}

impl Deeds {
    /// Those that came as `fd`.
    pub(super) fn read(fd: OwnedFd) -> Result<Self> {
        let mut bytes = Vec::new();
        if !frame::is_file(&fd) {
            return Err(Error::Io { doing: "read a memfd", source: std::io::ErrorKind::InvalidData.into() });
        }
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))
            .map_err(std::io::Error::from)
            .and_then(|_| File::from(fd).take(MAX_BYTES).read_to_end(&mut bytes))
            .map_err(Error::io("read a memfd"))?;
        let rows = bytes.strip_prefix(MAGIC).filter(|rows| rows.len() % ROW_BYTES == 0).ok_or(Error::Decode {
            type_name: "list of parts",
            reason: CodecError(Codec::Length { len_bytes: bytes.len(), element_bytes: ROW_BYTES }),
        })?;
        Ok(Self(Mutex::new(rows.chunks_exact(ROW_BYTES).map(row).collect())))
    }

    /// Row `index`, the first time.
    pub(super) fn take(&self, index: u32) -> Option<Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index as usize)?.take()
    }
}

/// More rows than any message has descriptors, and far less than memory.
const MAX_BYTES: u64 = 1 << 28;

fn row(bytes: &[u8]) -> Option<Row> {
    let (descriptor, range) = bytes.split_first_chunk()?;
    let (start, end) = range.split_first_chunk()?;
    Some((u32::from_le_bytes(*descriptor), u64::from_le_bytes(*start)..u64::from_le_bytes(*end.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn what_is_no_file_is_not_read() {
        let reads = |()| Deeds::read(eventfd(0, EventfdFlags::CLOEXEC).unwrap()).is_err();
        let is_refused = crate::spawn(reads, ()).unwrap().join_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(is_refused, Some(true), "nobody will write there");
        let empty = create().unwrap();
        assert!(Deeds::read(empty).unwrap().take(0).is_none());
    }
}

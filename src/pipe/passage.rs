//! Whether an end on its way can still arrive.
//!
//! An end that is handed over has a [pass](crate::shm::Segment::pass) in its message, and so has a half. While anybody can
//! still take the message, the kernel says so; when nobody can, the peer is told, whoever is alive and whatever they know.

use std::os::fd::OwnedFd;

use crosslane_core::Trusted;

use super::link::Half;
use crate::error::{Error, Result};
use crate::place::{Object, Placed};
use crate::shm::{ObjectId, Record};

type Ring = Placed<Record<Trusted>>;

/// The pass of these halves of an end, whose rings lie in one segment. To be had before they are handed over.
pub(super) fn pass(halves: &[(&Ring, Half)]) -> Result<OwnedFd> {
    let numbers = halves.iter().map(|(ring, half)| {
        let claims = match half {
            Half::Sender => ring.writer_claims(),
            Half::Receiver => ring.reader_claims(),
        };
        number(ring, *half, claims)
    });
    let (home, _) = halves.first().ok_or(Error::Corrupt)?;
    home.segment().pass(numbers).map_err(Error::os("lock a byte of a segment"))
}

/// Whether this half has been handed over, and its message is gone. One system call if it has been handed over.
pub(super) fn is_lost(ring: &Ring, half: Half) -> bool {
    // What cannot be asked is not known to be lost.
    let has_pass = |claims| ring.segment().has_pass(number(ring, half, claims)).unwrap_or(true);
    match half {
        Half::Sender => ring.is_writer_lost(has_pass),
        Half::Receiver => ring.is_reader_lost(has_pass),
    }
}

/// The number of the pass: another one for each ring of a segment, for each half of it, and each time that it is handed over.
/// If two ever have the same one, a loss is seen when both are gone.
fn number(ring: &Ring, half: Half, claims: u32) -> u32 {
    let object = ring.id().map_or(0, ObjectId::number);
    (object << 1 | half as u32) << 16 | claims & 0xFFFF
}

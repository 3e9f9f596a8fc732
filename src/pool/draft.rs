//! The items of a piece while it is being made.
//!
//! An item is its length and its bytes; a large one the mark [`STORED`](super::lane::STORED) and the address of its room. One
//! that is its bytes (`blob.rs`) is copied to its room from where it is; another is encoded in memory of this thread first.

use std::sync::Arc;

use super::lane::{self, FAILED};
use super::store::{Room, Store};
use crate::blob;
use crate::error::{Error, Result};
use crate::wire::{Packer, Parcel, Portable, Scratch};

/// Bytes that a piece has memory for, at least: as much as the outcome of a number needs.
const SHORTEST_BYTES: usize = 24;

pub(super) struct Draft<'s> {
    store: &'s Arc<Store>,
    bytes: Scratch,
    rooms: Vec<Room>,
    stored_bytes: usize,
    items: u32,
}

impl<'s> Draft<'s> {
    pub(super) fn new(store: &'s Arc<Store>) -> Self {
        Self { store, bytes: Scratch::take(), rooms: Vec::new(), stored_bytes: 0, items: 0 }
    }

    pub(super) fn items(&self) -> u32 {
        self.items
    }

    /// Bytes of the items, wherever they lie.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.0.len() + self.stored_bytes
    }

    /// Appends an item; after an error it is not there.
    pub(super) fn push<T: Portable>(&mut self, packer: &mut Packer<'_>, item: &T) -> Result<()> {
        let start = self.bytes.0.len();
        let pushed = match blob::as_raw(item).and_then(|raw| self.store.put(raw)) {
            Some(room) => self.refer_to(room),
            None => self.encode(packer, item),
        };
        match &pushed {
            Ok(()) => self.items += 1,
            Err(_) => self.bytes.0.truncate(start),
        }
        pushed
    }

    fn encode<T: Portable>(&mut self, packer: &mut Packer<'_>, item: &T) -> Result<()> {
        let bytes = &mut self.bytes.0;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        packer.append(item, bytes)?;
        if let Some(room) = self.store.put(&bytes[start + 4..]) {
            bytes.truncate(start);
            return self.refer_to(room);
        }
        let len_bytes = (bytes.len() - start - 4) as u64;
        let len = u32::try_from(len_bytes).ok().filter(|len| len & FAILED == 0);
        let len = len.ok_or(Error::TooLarge { len_bytes, limit_bytes: u64::from(FAILED - 1) })?;
        bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }

    fn refer_to(&mut self, room: Room) -> Result<()> {
        lane::write_address(&mut self.bytes.0, room.address());
        self.stored_bytes += room.address().len as usize;
        self.rooms.push(room);
        Ok(())
    }

    /// The bytes of the piece, in `parcel`, and the rooms that they name, in order.
    pub(super) fn finish(self, mut parcel: Parcel) -> (Parcel, Vec<Room>) {
        // A copy, so that this thread keeps what it has grown.
        parcel.bytes = Vec::with_capacity(self.bytes.0.len().max(SHORTEST_BYTES));
        parcel.bytes.extend_from_slice(&self.bytes.0);
        (parcel, self.rooms)
    }
}

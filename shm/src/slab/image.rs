//! An object before it lies in shared memory.
//!
//! A slab is in its users' hands while an object is carved from it. So the object's first bytes are written privately, by
//! whatever plain stores its kind likes, and go into the slab by atomic words like every payload.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crosslane_core::prim::copy_in;

use crate::content::Content;
use crate::place::{Init, New};
use crate::segment::CreateError;

/// The alignment that `New::init` is promised, in bytes.
#[repr(C, align(128))]
#[derive(Clone)]
struct Block([u8; 128]);

/// What an object is, and its first bytes.
pub(crate) struct Image {
    content: Content,
    blocks: Vec<Block>,
}

impl Image {
    /// Fills private memory as `new` says.
    pub(crate) fn new(new: New<impl Init>) -> Result<Self, CreateError> {
        let New { content, init } = new;
        let wanted = content.len_bytes;
        let too_large = CreateError::Slab(super::CarveError::Full);
        if wanted > u64::from(*super::SLAB_BYTES.end()) {
            return Err(too_large);
        }
        let len = usize::try_from(wanted).map_err(|_| too_large)?;
        let mut blocks = vec![Block([0; 128]); len.div_ceil(128)];
        let start = NonNull::from(&mut *blocks).cast::<u8>();
        init(start, len)?;
        // Plain stores of structs leave their padding without a value, as far as the language is concerned; what a block of
        // assembly may have written has one.
        // SAFETY: no instruction: nothing is changed that the block may not change, which is the private memory behind
        // `start`.
        unsafe { std::arch::asm!("/* {0} */", in(reg) start.as_ptr(), options(nostack, preserves_flags)) };
        Ok(Self { content, blocks })
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Copies the object to `place`, an 8-aligned piece of a slab that has its length in whole words.
    pub(super) fn copy_to(&self, place: NonNull<u8>) {
        let len = usize::try_from(self.content.len_bytes).unwrap_or(0).next_multiple_of(8);
        // SAFETY: the blocks hold the object's length rounded up to 128; the callers carved `len` bytes at `place`.
        unsafe { copy_in(place.cast(), self.blocks.as_ptr().cast(), len) };
    }
}

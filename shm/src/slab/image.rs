//! An object before it lies in shared memory.
//!
//! A slab is in its users' hands while an object is carved from it. So the object's first bytes are written privately, by
//! whatever plain stores its kind likes, and go into the slab by atomic words like every payload. Only those parts go that
//! are not zero, as the slab's memory is where nothing was carved: of a long object's memory most is not touched.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crosslane_core::prim::copy_in;

use crate::content::Content;
use crate::place::{Init, New};
use crate::segment::CreateError;

/// The alignment that `New::init` is promised, in bytes.
const ALIGN_BYTES: usize = 128;
/// How much is looked at, and copied or left, at a time: a page.
const PART_BYTES: usize = 4096;
static ZEROS: [u8; PART_BYTES] = [0; PART_BYTES];

/// What an object is, and its first bytes.
pub(crate) struct Image {
    content: Content,
    /// The object, rounded up to its alignment, and what lies in front to align it.
    memory: Vec<u8>,
    start: usize,
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
        // Zero pages as the system gives them, if it is long.
        let mut memory = vec![0; len.next_multiple_of(ALIGN_BYTES) + ALIGN_BYTES];
        let offset = memory.as_ptr().align_offset(ALIGN_BYTES);
        let start = NonNull::from(&mut memory[offset..]).cast::<u8>();
        init(start, len)?;
        // Plain stores of structs leave their padding without a value, as far as the language is concerned; what a block of
        // assembly may have written has one.
        // SAFETY: no instruction: nothing is changed that the block may not change, which is the private memory behind
        // `start`.
        unsafe { std::arch::asm!("/* {0} */", in(reg) start.as_ptr(), options(nostack, preserves_flags)) };
        Ok(Self { content, memory, start: offset })
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Copies the object to `place`, an 8-aligned piece of a slab that has its length in whole words, and is zero.
    pub(super) fn copy_to(&self, place: NonNull<u8>) {
        let len = usize::try_from(self.content.len_bytes).unwrap_or(0).next_multiple_of(8);
        // The memory holds the length rounded up to more than that.
        for (index, part) in self.memory[self.start..][..len].chunks(PART_BYTES).enumerate() {
            if part == &ZEROS[..part.len()] {
                continue;
            }
            // SAFETY: in front of the part's end, which is at most `len`: so many bytes were carved at `place`.
            let to = unsafe { place.add(index * PART_BYTES) };
            // SAFETY:
            // - both are so long, whole words: `len` and a page are, and so is their difference;
            // - `place` and a page are 8-aligned, and `start` and a page too.
            unsafe { copy_in(to.cast(), part.as_ptr().cast(), part.len()) };
        }
    }
}

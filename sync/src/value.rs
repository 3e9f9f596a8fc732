//! A value in shared memory that is only ever copied: in and out, by atomic words.
#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crosslane_core::Plain;
use crosslane_core::prim::{Word, copy_in, copy_out};

/// Where a `T` lies in shared memory.
///
/// A copy that a peer writes meanwhile is garbage bytes and nothing worse; that copies come out whole is the matter of a
/// lock.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    words: NonNull<Word>,
    kind: PhantomData<T>,
}

impl<T: Plain> Shared<T> {
    /// The value at `words`.
    ///
    /// # Safety
    /// `words` is aligned to 8 and valid for reads and writes of the size of `T` rounded up to 8, as long as the value
    /// is used; every access to it is by shared words, or ordered by a lock.
    pub(crate) const unsafe fn new(words: NonNull<Word>) -> Self {
        Self { words, kind: PhantomData }
    }

    /// A copy of the value.
    #[inline]
    pub(crate) fn get(&self) -> T {
        let mut copy = MaybeUninit::<T>::uninit();
        // SAFETY: `copy` is ours; the shared words are valid by `new`'s contract.
        unsafe { copy_out(copy.as_mut_ptr().cast(), self.words, size_of::<T>()) };
        // SAFETY: every byte was written, and every bit pattern is a `T`.
        unsafe { copy.assume_init() }
    }

    /// Writes `value`.
    #[inline]
    pub(crate) fn set(&self, value: &T) {
        // SAFETY: `value` is a private `T` without padding; the shared words are valid by `new`'s contract.
        unsafe { copy_in(self.words, core::ptr::from_ref(value).cast(), size_of::<T>()) };
    }

    /// The value's first byte.
    pub(crate) const fn ptr(&self) -> NonNull<T> {
        self.words.cast()
    }
}

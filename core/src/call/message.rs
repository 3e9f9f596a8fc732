//! A message where it lies: copied in and out.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::prim::{WORD_BYTES, Word, copy_in, copy_out};

/// Compared at once.
const PIECE_BYTES: usize = 64;

/// A request that a server has received, or the response to a call, where it lies. Copied out of there: a peer that does not
/// keep to the protocol may write it meanwhile, which changes bytes and nothing else.
/// It cannot be copied as a handle: it must not outlive the turn that it is of.
#[derive(Debug)]
pub struct Message<'a> {
    /// Valid for `len_bytes`, rounded up to whole words, during `'a`.
    start: NonNull<Word>,
    len_bytes: usize,
    words: PhantomData<&'a [Word]>,
}

// SAFETY: stands for a shared slice of words, which are atomics.
unsafe impl Send for Message<'_> {}
// SAFETY: as above.
unsafe impl Sync for Message<'_> {}

impl<'a> Message<'a> {
    /// The first `len_bytes` of `words`.
    ///
    /// # Panics
    /// If they are fewer.
    #[inline(always)]
    pub(super) fn new(words: &'a [Word], len_bytes: usize) -> Self {
        assert!(len_bytes <= words.len() * WORD_BYTES);
        Self { start: NonNull::from(words).cast(), len_bytes, words: PhantomData }
    }

    /// Its length, in bytes.
    #[must_use]
    #[inline(always)]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Panics
    /// If `offset + out.len()` is more than the message has.
    #[inline(always)]
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        if offset == 0 {
            // SAFETY: `out` is private and no longer than the message.
            unsafe { copy_out(out.as_mut_ptr(), self.start, out.len()) };
        } else {
            self.copy_to_slow(offset, out);
        }
    }

    /// The whole message, if it has `N` bytes.
    #[must_use]
    #[inline(always)]
    pub fn to_array<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len_bytes != N {
            return None;
        }
        let mut bytes = [0; N];
        // SAFETY: `bytes` is ours and as long as the message.
        unsafe { copy_out(bytes.as_mut_ptr(), self.start, N) };
        Some(bytes)
    }

    fn check(&self, offset: usize, len_bytes: usize) {
        let fits = offset <= self.len_bytes && len_bytes <= self.len_bytes - offset;
        assert!(fits, "{len_bytes} bytes at offset {offset} of a message of {}", self.len_bytes);
    }

    #[cold]
    fn copy_to_slow(&self, offset: usize, out: &mut [u8]) {
        let skew = offset % WORD_BYTES;
        let (front, rest) = out.split_at_mut(if skew == 0 { 0 } else { out.len().min(WORD_BYTES - skew) });
        if skew != 0 {
            front.copy_from_slice(&self.word(offset - skew)[skew..skew + front.len()]);
        }
        if !rest.is_empty() {
            // SAFETY: `rest` is private, and ends where the message does or before, by `check`; a whole word begins here.
            unsafe { copy_out(rest.as_mut_ptr(), self.at(offset + front.len()), rest.len()) };
        }
    }

    /// Whether `bytes` stand at `offset`.
    fn has(&self, offset: usize, bytes: &[u8]) -> bool {
        let mut piece = [0; PIECE_BYTES];
        bytes.chunks(PIECE_BYTES).enumerate().all(|(i, chunk)| {
            let piece = &mut piece[..chunk.len()];
            self.copy_to(offset + i * PIECE_BYTES, piece);
            piece == chunk
        })
    }

    /// Writes the whole message. Only for whose turn it is.
    #[inline(always)]
    pub(super) fn fill(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len_bytes);
        // SAFETY: `bytes` is private and as long as the message.
        unsafe { copy_in(self.start, bytes.as_ptr(), bytes.len()) };
    }

    /// Writes `bytes` at `offset` and leaves the others as they are, but for those behind the message's end in its last word.
    /// Only for whose turn it is.
    pub(super) fn copy_from(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        let skew = offset % WORD_BYTES;
        let (front, rest) = bytes.split_at(if skew == 0 { 0 } else { bytes.len().min(WORD_BYTES - skew) });
        self.patch(offset - skew, skew, front);
        let offset = offset + front.len();
        // Whole words, and the last one too if nothing of the message lies behind it.
        let ends = offset + rest.len() == self.len_bytes;
        let (whole, tail) = rest.split_at(if ends { rest.len() } else { rest.len() & !(WORD_BYTES - 1) });
        if !whole.is_empty() {
            // SAFETY: `whole` is private, and ends where the message does or before, by `check`; a whole word begins here.
            unsafe { copy_in(self.at(offset), whole.as_ptr(), whole.len()) };
        }
        self.patch(offset + whole.len(), 0, tail);
    }

    /// Puts `bytes` into the word at `offset`, `skew` bytes in.
    fn patch(&self, offset: usize, skew: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut word = self.word(offset);
            word[skew..skew + bytes.len()].copy_from_slice(bytes);
            // SAFETY: some of the message lies in this word, so it is one of the message's.
            unsafe { copy_in(self.at(offset), word.as_ptr(), WORD_BYTES) };
        }
    }

    /// The word at `offset`, in which some of the message lies.
    fn word(&self, offset: usize) -> [u8; WORD_BYTES] {
        let mut word = [0; WORD_BYTES];
        // SAFETY: some of the message lies in this word, so it is one of the message's.
        unsafe { copy_out(word.as_mut_ptr(), self.at(offset), WORD_BYTES) };
        word
    }

    /// The word that begins at `offset`, a multiple of 8 below the message's length.
    fn at(&self, offset: usize) -> NonNull<Word> {
        debug_assert!(offset < self.len_bytes && offset.is_multiple_of(WORD_BYTES));
        // SAFETY: inside the words, as the callers have checked.
        unsafe { self.start.add(offset / WORD_BYTES) }
    }
}

/// The bytes are equal.
impl PartialEq for Message<'_> {
    fn eq(&self, other: &Self) -> bool {
        let mut piece = [0; PIECE_BYTES];
        self.len_bytes == other.len_bytes
            && (0..self.len_bytes).step_by(PIECE_BYTES).all(|at| {
                let piece = &mut piece[..PIECE_BYTES.min(self.len_bytes - at)];
                self.copy_to(at, piece);
                other.has(at, piece)
            })
    }
}

/// The bytes are equal.
impl PartialEq<[u8]> for Message<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        self.len_bytes == other.len() && self.has(0, other)
    }
}

/// The bytes are equal.
impl<const N: usize> PartialEq<[u8; N]> for Message<'_> {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

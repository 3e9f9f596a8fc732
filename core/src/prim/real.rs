//! The face that ships.

pub(crate) use core::sync::atomic::compiler_fence;
pub use core::sync::atomic::{AtomicU32, fence};

#[cfg(target_has_atomic = "64")]
pub use core::sync::atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
pub use words::{InPlace, Word, copy_in, copy_out};

/// One pause of a spin loop.
#[inline]
pub(crate) fn pause() {
    core::hint::spin_loop();
}

#[cfg(target_has_atomic = "64")]
mod words {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::super::WORD_BYTES;

    /// Payload from this size on goes through the opaque copy.
    ///
    /// Below it the compiler unrolls the word copy; above it 16-byte moves halve the instructions.
    #[cfg(all(target_arch = "x86_64", not(crosslane_tsan), not(miri)))]
    const OPAQUE_BYTES: usize = 128;

    /// Eight bytes of ring memory: a sequence or length word, or a piece of payload.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct Word(AtomicU64);

    impl Word {
        /// A word that holds `value`.
        #[must_use]
        pub const fn new(value: u64) -> Self {
            Self(AtomicU64::new(value))
        }

        /// Reads the word.
        #[inline]
        pub fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        /// Writes the word.
        #[inline]
        pub fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, order);
        }

        /// Replaces `current` by `new`.
        ///
        /// # Errors
        /// The value found, if it was not `current`.
        #[inline]
        pub fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }

    /// Copies `len` private bytes into shared words; the rest of the last word becomes 0.
    ///
    /// # Safety
    /// - `src` is valid for reads of `len` bytes that nobody writes meanwhile;
    /// - `dst` is valid, as shared words, for `len` bytes rounded up to 8.
    #[inline(always)]
    pub unsafe fn copy_in(dst: NonNull<Word>, src: *const u8, len: usize) {
        #[cfg(crosslane_tsan)]
        // SAFETY: the caller's contract; plain on purpose, so that the sanitizer sees the access.
        unsafe {
            core::ptr::copy_nonoverlapping(src, dst.as_ptr().cast::<u8>(), len);
        }
        #[cfg(not(crosslane_tsan))]
        {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            if len >= OPAQUE_BYTES {
                // SAFETY: the caller's contract, for the whole words of `len`.
                unsafe { opaque_copy(dst.as_ptr().cast::<u8>(), src, len & !(WORD_BYTES - 1)) };
                // SAFETY: `len & !7 <= len`, so both stay inside what the caller vouches for.
                let (dst, src) = unsafe { (dst.add(len / WORD_BYTES), src.add(len & !(WORD_BYTES - 1))) };
                // SAFETY: as above; only the tail is left.
                unsafe { words_in(dst, src, len % WORD_BYTES) };
                return;
            }
            // SAFETY: the caller's contract.
            unsafe { words_in(dst, src, len) };
        }
    }

    /// Copies `len` bytes of shared words out. A peer that writes meanwhile means garbage bytes.
    ///
    /// # Safety
    /// - `dst` is valid for writes of `len` bytes that nobody else touches meanwhile;
    /// - `src` is valid, as shared words, for `len` bytes rounded up to 8.
    #[inline(always)]
    pub unsafe fn copy_out(dst: *mut u8, src: NonNull<Word>, len: usize) {
        #[cfg(crosslane_tsan)]
        // SAFETY: the caller's contract; plain on purpose, so that the sanitizer sees the access.
        unsafe {
            core::ptr::copy_nonoverlapping(src.as_ptr().cast::<u8>(), dst, len);
        }
        #[cfg(not(crosslane_tsan))]
        {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            if len >= OPAQUE_BYTES {
                // SAFETY: the caller's contract, for the whole words of `len`.
                unsafe { opaque_copy(dst, src.as_ptr().cast::<u8>(), len & !(WORD_BYTES - 1)) };
                // SAFETY: `len & !7 <= len`, so both stay inside what the caller vouches for.
                let (dst, src) = unsafe { (dst.add(len & !(WORD_BYTES - 1)), src.add(len / WORD_BYTES)) };
                // SAFETY: as above; only the tail is left.
                unsafe { words_out(dst, src, len % WORD_BYTES) };
                return;
            }
            // SAFETY: the caller's contract.
            unsafe { words_out(dst, src, len) };
        }
    }

    #[cfg(not(crosslane_tsan))]
    #[inline(always)]
    unsafe fn words_in(dst: NonNull<Word>, src: *const u8, len: usize) {
        for i in 0..len / WORD_BYTES {
            // SAFETY: `8 * (i + 1) <= len`, inside the private bytes.
            let value = unsafe { src.add(WORD_BYTES * i).cast::<u64>().read_unaligned() };
            // SAFETY: word `i` is inside the shared words.
            let word = unsafe { dst.add(i).as_ref() };
            // ORDERING: Relaxed. Published by the Release of the word that the ring's protocol names.
            word.store(value, Ordering::Relaxed);
        }
        let tail = len % WORD_BYTES;
        if tail != 0 {
            let mut bytes = [0; WORD_BYTES];
            // SAFETY: the last `tail` of `len` private bytes, into eight private bytes.
            unsafe { core::ptr::copy_nonoverlapping(src.add(len - tail), bytes.as_mut_ptr(), tail) };
            // SAFETY: the last word, which the rounding up covers.
            let word = unsafe { dst.add(len / WORD_BYTES).as_ref() };
            // ORDERING: Relaxed, as above.
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    #[cfg(not(crosslane_tsan))]
    #[inline(always)]
    unsafe fn words_out(dst: *mut u8, src: NonNull<Word>, len: usize) {
        for i in 0..len / WORD_BYTES {
            // SAFETY: word `i` is inside the shared words.
            let word = unsafe { src.add(i).as_ref() };
            // ORDERING: Relaxed. Ordered by the Acquire of the word that the ring's protocol names.
            let value = word.load(Ordering::Relaxed);
            // SAFETY: `8 * (i + 1) <= len`, inside the private bytes.
            unsafe { dst.add(WORD_BYTES * i).cast::<u64>().write_unaligned(value) };
        }
        let tail = len % WORD_BYTES;
        if tail != 0 {
            // SAFETY: the last word, which the rounding up covers.
            let word = unsafe { src.add(len / WORD_BYTES).as_ref() };
            // ORDERING: Relaxed, as above.
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            // SAFETY: the last `tail` of `len` private bytes, from eight private bytes.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), dst.add(len - tail), tail) };
        }
    }

    /// Copies `len` bytes, a multiple of 8, with accesses that the compiler knows nothing of.
    ///
    /// No language-level access takes place, so a race with a peer is no data race here; the machine's accesses are
    /// ordered by the surrounding Acquire and Release because the block may touch all memory.
    ///
    /// # Safety
    /// - `src` readable and `dst` writable for `len` bytes, not overlapping;
    /// - `len` is a multiple of 8.
    #[cfg(all(target_arch = "x86_64", not(crosslane_tsan), not(miri)))]
    #[inline(always)]
    unsafe fn opaque_copy(dst: *mut u8, src: *const u8, len: usize) {
        // SAFETY: reads and writes `len` bytes in steps of 64 and then of 8, as the caller allows; clobbers only the
        // registers named.
        unsafe {
            core::arch::asm!(
                "2:",
                "sub {len}, 64",
                "jb 3f",
                "movups {a}, [{src}]",
                "movups {b}, [{src} + 16]",
                "movups {c}, [{src} + 32]",
                "movups {d}, [{src} + 48]",
                "movups [{dst}], {a}",
                "movups [{dst} + 16], {b}",
                "movups [{dst} + 32], {c}",
                "movups [{dst} + 48], {d}",
                "add {src}, 64",
                "add {dst}, 64",
                "jmp 2b",
                "3:",
                "add {len}, 64",
                "4:",
                "sub {len}, 8",
                "jb 5f",
                "mov {t}, [{src}]",
                "mov [{dst}], {t}",
                "add {src}, 8",
                "add {dst}, 8",
                "jmp 4b",
                "5:",
                len = inout(reg) len => _,
                src = inout(reg) src => _,
                dst = inout(reg) dst => _,
                t = out(reg) _,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack),
            );
        }
    }

    /// A `T` that lies in shared words, for loans.
    #[derive(Debug)]
    pub struct InPlace<T>(NonNull<T>);

    impl<T> InPlace<T> {
        /// The `T` at `words`.
        ///
        /// # Safety
        /// - `words` is valid and aligned for `T` while this value lives, and every bit pattern is a `T`;
        /// - nobody else touches it meanwhile.
        #[must_use]
        pub unsafe fn new(words: NonNull<Word>) -> Self {
            Self(words.cast())
        }

        /// The value in place.
        #[must_use]
        pub fn get(&self) -> &T {
            // SAFETY: `new`'s contract.
            unsafe { self.0.as_ref() }
        }

        /// The value in place, to be changed.
        #[must_use]
        pub fn get_mut(&mut self) -> &mut T {
            // SAFETY: `new`'s contract.
            unsafe { self.0.as_mut() }
        }

        /// Ends the access; what was written is in the words.
        #[inline]
        pub fn write_back(&mut self) {}
    }
}

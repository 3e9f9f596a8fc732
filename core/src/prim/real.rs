//! The face that ships.

pub(crate) use core::sync::atomic::compiler_fence;
pub use core::sync::atomic::{AtomicU32, fence};

#[cfg(target_has_atomic = "64")]
pub use core::sync::atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicU16};
#[cfg(target_has_atomic = "64")]
pub use words::{InPlace, Word, copy_in, copy_out};
/// As `copy_in` and `copy_out`, where the protocol lets a reader and a writer meet in the payload and then throws away what
/// was read.
#[cfg(target_has_atomic = "64")]
pub(crate) use words::{copy_in as race_in, race_out};
#[cfg(target_has_atomic = "64")]
pub(crate) use words::{prefetch, show_fence};

/// One pause of a spin loop.
#[inline]
pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Keeps the compiler from moving memory accesses across: a kill finds done what comes before, and not begun what comes
/// after. For the CPU a kill comes between two instructions anyway. Orders nothing between CPUs.
#[inline]
pub(crate) fn in_program_order() {
    #[cfg(not(miri))]
    // SAFETY: no instruction at all.
    unsafe {
        core::arch::asm!("", options(nostack, preserves_flags));
    }
}

/// A full fence behind a read-modify-write of this thread: orders that, and what came before it, before every later load.
/// Of plain stores between the two it promises nothing.
///
/// On x86 a read-modify-write is a full fence by itself, and a second one would cost as much again (7 ns): only the
/// compiler must be kept from moving loads up.
#[inline]
pub(crate) fn fence_after_rmw(order: core::sync::atomic::Ordering) {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    compiler_fence(order);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    fence(order);
}

/// The pauses after a lost compare-and-swap, the `lost`-th in a row: 1, 2, 4 and so on up to 128.
///
/// The longest, 2 us, is longer than a CPU needs to change over to another thread (1.3 us). With 64, four sides on two CPUs
/// stayed in step: both filled the ring, both found it full and changed over, both emptied it. Who is away for longer comes
/// back to find the other at the other end: half the changes of threads, and nobody to meet (docs/benchmarks.md).
#[cfg(target_has_atomic = "64")]
#[inline]
pub(crate) fn back_off(lost: u32) {
    for _ in 0..1_u32 << lost.min(7) {
        pause();
    }
}

#[cfg(target_has_atomic = "64")]
mod words {
    #[cfg(not(crosslane_tsan))]
    use core::mem::MaybeUninit;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::super::WORD_BYTES;

    /// Payload from this size on goes through the opaque copy.
    ///
    /// Below it the compiler unrolls the word copy; above it 16-byte moves halve the instructions.
    #[cfg(all(target_arch = "x86_64", not(crosslane_tsan), not(miri)))]
    const OPAQUE_BYTES: usize = 128;
    /// Payload above this size is worth a call, for 32-byte moves.
    #[cfg(all(target_arch = "x86_64", not(crosslane_tsan), not(miri)))]
    const BULK_BYTES: usize = 1024;

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

    /// Asks the CPU for the cache line of `word`, to be written soon. A hint: no access takes place.
    #[inline]
    pub(crate) fn prefetch(word: NonNull<Word>) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: no address makes the instruction fail, and it changes nothing but what lies in which cache; CPUs that
        // do not have it take it for a no-op.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags));
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = word;
    }

    /// Shows the thread sanitizer, which knows no fences, what the acquire fence before this call orders: whatever the
    /// store that a relaxed load of `word` read has released. Nothing in any other build.
    #[inline(always)]
    pub(crate) fn show_fence(word: &Word) {
        #[cfg(crosslane_tsan)]
        {
            unsafe extern "C" {
                fn __tsan_acquire(word: *const Word);
            }
            // SAFETY: a note for the sanitizer, whose runtime is linked; touches no memory of ours.
            unsafe { __tsan_acquire(word) };
        }
        #[cfg(not(crosslane_tsan))]
        let _ = word;
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
            #[cfg_attr(
                any(not(target_arch = "x86_64"), miri),
                expect(unused_mut, reason = "no part is copied otherwise")
            )]
            // SAFETY: the caller's contract.
            let mut bytes = unsafe { core::slice::from_raw_parts(src, len) };
            #[cfg_attr(
                any(not(target_arch = "x86_64"), miri),
                expect(unused_mut, reason = "no part is copied otherwise")
            )]
            // SAFETY: the caller's contract; words are atomic, so shared references may alias a peer's writes.
            let mut words = unsafe { core::slice::from_raw_parts(dst.as_ptr(), len.div_ceil(WORD_BYTES)) };
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            if len >= OPAQUE_BYTES {
                let whole = len & !(WORD_BYTES - 1);
                // SAFETY: `whole` is a multiple of 8 and lies inside both.
                unsafe { opaque_copy(dst.as_ptr().cast::<u8>(), src, whole) };
                (bytes, words) = (&bytes[whole..], &words[whole / WORD_BYTES..]);
            }
            let chunks = bytes.chunks_exact(WORD_BYTES);
            let tail = chunks.remainder();
            for (word, chunk) in words.iter().zip(chunks) {
                let mut value = [0; WORD_BYTES];
                value.copy_from_slice(chunk);
                // ORDERING: Relaxed. Published by the Release of the word that the ring's protocol names.
                word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
            }
            if !tail.is_empty() {
                // ORDERING: Relaxed, as above.
                words[words.len() - 1].store(word_of(tail), Ordering::Relaxed);
            }
        }
    }

    /// The word whose first bytes are `tail`, fewer than eight, and whose others are 0. Without a call of memcpy, which takes
    /// longer than small messages otherwise do.
    #[cfg(not(crosslane_tsan))]
    #[inline(always)]
    fn word_of(tail: &[u8]) -> u64 {
        let (mut word, mut bits, mut rest) = (0, 0, tail);
        if let Some((bytes, behind)) = rest.split_first_chunk() {
            (word, bits, rest) = (u64::from(u32::from_le_bytes(*bytes)), u32::BITS, behind);
        }
        if let Some((bytes, behind)) = rest.split_first_chunk() {
            word |= u64::from(u16::from_le_bytes(*bytes)) << bits;
            (bits, rest) = (bits + u16::BITS, behind);
        }
        if let Some(byte) = rest.first() {
            word |= u64::from(*byte) << bits;
        }
        word.to_le()
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
            #[cfg_attr(
                any(not(target_arch = "x86_64"), miri),
                expect(unused_mut, reason = "no part is copied otherwise")
            )]
            // SAFETY: the caller's contract; the bytes are only written.
            let mut bytes = unsafe { core::slice::from_raw_parts_mut(dst.cast::<MaybeUninit<u8>>(), len) };
            #[cfg_attr(
                any(not(target_arch = "x86_64"), miri),
                expect(unused_mut, reason = "no part is copied otherwise")
            )]
            // SAFETY: the caller's contract; words are atomic, so shared references may alias a peer's writes.
            let mut words = unsafe { core::slice::from_raw_parts(src.as_ptr(), len.div_ceil(WORD_BYTES)) };
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            if len >= OPAQUE_BYTES {
                let whole = len & !(WORD_BYTES - 1);
                // SAFETY: `whole` is a multiple of 8 and lies inside both.
                unsafe { opaque_copy(dst, src.as_ptr().cast::<u8>(), whole) };
                (bytes, words) = (&mut bytes[whole..], &words[whole / WORD_BYTES..]);
            }
            let mut chunks = bytes.chunks_exact_mut(WORD_BYTES);
            for (chunk, word) in chunks.by_ref().zip(words) {
                // ORDERING: Relaxed. Ordered by the Acquire of the word that the ring's protocol names.
                let value = word.load(Ordering::Relaxed).to_ne_bytes();
                chunk.copy_from_slice(&value.map(MaybeUninit::new));
            }
            let tail = chunks.into_remainder();
            if !tail.is_empty() {
                // ORDERING: Relaxed, as above.
                let value = words[words.len() - 1].load(Ordering::Relaxed).to_ne_bytes();
                tail.copy_from_slice(&value.map(MaybeUninit::new)[..tail.len()]);
            }
        }
    }

    /// As [`copy_out`], for values that may be moved on: from 32 bytes on by vectors, because a CPU cannot forward eight-byte
    /// stores to the vector loads of a move, and waits for them.
    ///
    /// # Safety
    /// As [`copy_out`].
    #[inline(always)]
    pub(crate) unsafe fn race_out(dst: *mut u8, src: NonNull<Word>, len: usize) {
        #[cfg(all(target_arch = "x86_64", not(crosslane_tsan), not(miri)))]
        if len >= 32 {
            // SAFETY: the caller's contract.
            return unsafe { super::super::bulk::copy(dst, src.as_ptr().cast(), len) };
        }
        // SAFETY: the caller's contract.
        unsafe { copy_out(dst, src, len) }
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
        if len > BULK_BYTES {
            // SAFETY: the caller's contract.
            return unsafe { super::super::bulk::copy(dst, src, len) };
        }
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

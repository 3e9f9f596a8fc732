//! The face that loom explores.
//!
//! Before each access stands a schedule point: loom 0.7.2 does not treat an operation that begins with a load as
//! dependent on the other thread's stores (upstream issues 166 and 392), and without it explores next to nothing of a
//! ring. A relaxed read-modify-write of one model-wide word makes every pair of accesses dependent and orders nothing.

use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use loom::cell::UnsafeCell;

use super::WORD_BYTES;
use crate::model::{mutated, point};

/// One pause of a spin loop: the model never spins.
pub(crate) fn pause() {
    loom::thread::yield_now();
}

/// Takes time, of which the model knows nothing.
pub(crate) fn back_off(_: u32) {}

/// A hint to the CPU, which changes no execution.
pub(crate) fn prefetch(_: NonNull<Word>) {}

/// For the thread sanitizer only.
pub(crate) fn show_fence(_: &Word) {}

/// A compiler fence is modelled as the full fence whose place it takes.
#[track_caller]
pub(crate) fn compiler_fence(order: Ordering) {
    fence(order);
}

/// The models kill between accesses in program order anyway.
pub(crate) fn in_program_order() {}

/// The full fence that it stands for.
#[track_caller]
pub(crate) fn fence_after_rmw(order: Ordering) {
    fence(order);
}

/// A fence.
#[track_caller]
pub fn fence(order: Ordering) {
    if point() {
        match mutated(Location::caller(), order) {
            Ordering::Relaxed => {}
            order => loom::sync::atomic::fence(order),
        }
    }
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        /// loom's atomic behind a schedule point.
        #[derive(Debug)]
        pub struct $name(loom::sync::atomic::$name);

        impl Default for $name {
            #[track_caller]
            fn default() -> Self {
                Self::new(0)
            }
        }

        impl $name {
            /// An atomic that holds `value`.
            #[must_use]
            #[track_caller]
            pub fn new(value: $int) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            /// Reads. A killed thread reads 0.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $int {
                if point() { self.0.load(mutated(Location::caller(), order)) } else { 0 }
            }

            /// Writes. A killed thread writes nothing.
            #[track_caller]
            pub fn store(&self, value: $int, order: Ordering) {
                if point() {
                    self.0.store(value, mutated(Location::caller(), order));
                }
            }

            /// Writes and returns what was there.
            #[track_caller]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                if point() { self.0.swap(value, mutated(Location::caller(), order)) } else { 0 }
            }

            /// Replaces `current` by `new`.
            ///
            /// # Errors
            /// The value found, if it was not `current`.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                if !point() {
                    return Ok(current);
                }
                let success = mutated(Location::caller(), success);
                let failure = if success == Ordering::Relaxed { Ordering::Relaxed } else { failure };
                self.0.compare_exchange(current, new, success, failure)
            }

            /// As `compare_exchange`; the model has no spurious failures.
            ///
            /// # Errors
            /// The value found, if it was not `current`.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                self.compare_exchange(current, new, success, failure)
            }

            /// Adds, wrapping, and returns what was there.
            #[track_caller]
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                if point() { self.0.fetch_add(value, mutated(Location::caller(), order)) } else { 0 }
            }

            /// Ors and returns what was there.
            #[track_caller]
            pub fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                if point() { self.0.fetch_or(value, mutated(Location::caller(), order)) } else { 0 }
            }

            /// Ands and returns what was there.
            #[track_caller]
            pub fn fetch_and(&self, value: $int, order: Ordering) -> $int {
                if point() { self.0.fetch_and(value, mutated(Location::caller(), order)) } else { 0 }
            }

            /// Xors and returns what was there.
            #[track_caller]
            pub fn fetch_xor(&self, value: $int, order: Ordering) -> $int {
                if point() { self.0.fetch_xor(value, mutated(Location::caller(), order)) } else { 0 }
            }

            /// The value as the kernel sees it when it compares and sleeps: no schedule point, no ordering.
            #[track_caller]
            pub fn peek(&self) -> $int {
                self.0.load(Ordering::Relaxed)
            }
        }
    };
}

atomic!(AtomicU8, u8);
atomic!(AtomicU16, u16);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

/// Eight bytes of ring memory: an atomic for when it is a sequence or length word, and a checked cell for when it is a
/// piece of payload. Writing payload changes the atomic too, since both are the same memory in a real build.
#[derive(Debug)]
pub struct Word {
    atomic: AtomicU64,
    payload: UnsafeCell<u64>,
}

// SAFETY: loom checks every access to `payload` for races.
unsafe impl Sync for Word {}
// SAFETY: plain numbers.
unsafe impl Send for Word {}

impl Word {
    /// A word that holds `value`.
    #[must_use]
    #[track_caller]
    pub fn new(value: u64) -> Self {
        Self { atomic: AtomicU64::new(value), payload: UnsafeCell::new(value) }
    }

    /// Reads the word.
    #[track_caller]
    pub fn load(&self, order: Ordering) -> u64 {
        self.atomic.load(order)
    }

    /// Writes the word.
    #[track_caller]
    pub fn store(&self, value: u64, order: Ordering) {
        self.atomic.store(value, order);
    }

    /// Replaces `current` by `new`.
    ///
    /// # Errors
    /// The value found, if it was not `current`.
    #[track_caller]
    pub fn compare_exchange(&self, current: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64> {
        self.atomic.compare_exchange(current, new, success, failure)
    }

    #[track_caller]
    fn write_payload(&self, value: u64) {
        if point() {
            // SAFETY: loom fails the model if the access races.
            self.payload.with_mut(|p| unsafe { *p = value });
            self.atomic.0.store(value, Ordering::Relaxed);
        }
    }

    #[track_caller]
    fn read_payload(&self) -> u64 {
        if point() {
            // SAFETY: loom fails the model if the access races.
            self.payload.with(|p| unsafe { *p })
        } else {
            0
        }
    }
}

/// Copies `len` private bytes into shared words; the rest of the last word becomes 0.
///
/// # Safety
/// - `src` is valid for reads of `len` bytes that nobody writes meanwhile;
/// - `dst` is valid, as shared words, for `len` bytes rounded up to 8.
#[track_caller]
pub unsafe fn copy_in(dst: NonNull<Word>, src: *const u8, len: usize) {
    for i in 0..len.div_ceil(WORD_BYTES) {
        let mut bytes = [0; WORD_BYTES];
        let n = WORD_BYTES.min(len - WORD_BYTES * i);
        // SAFETY: inside the private bytes that the caller vouches for.
        let from = unsafe { src.add(WORD_BYTES * i) };
        // SAFETY: at most eight private bytes into eight private bytes.
        unsafe { core::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), n) };
        // SAFETY: word `i` is inside the shared words.
        let word = unsafe { dst.add(i) };
        // SAFETY: as above.
        let word = unsafe { word.as_ref() };
        word.write_payload(u64::from_ne_bytes(bytes));
    }
}

/// Copies `len` bytes of shared words out.
///
/// # Safety
/// - `dst` is valid for writes of `len` bytes that nobody else touches meanwhile;
/// - `src` is valid, as shared words, for `len` bytes rounded up to 8.
#[track_caller]
pub unsafe fn copy_out(dst: *mut u8, src: NonNull<Word>, len: usize) {
    for i in 0..len.div_ceil(WORD_BYTES) {
        // SAFETY: word `i` is inside the shared words.
        let word = unsafe { src.add(i) };
        // SAFETY: as above.
        let word = unsafe { word.as_ref() };
        let bytes = word.read_payload().to_ne_bytes();
        let n = WORD_BYTES.min(len - WORD_BYTES * i);
        // SAFETY: inside the private bytes that the caller vouches for.
        let to = unsafe { dst.add(WORD_BYTES * i) };
        // SAFETY: at most eight private bytes from eight private bytes.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) };
    }
}

/// As [`copy_in`], where the protocol lets a reader and a writer meet in the payload and then throws away what was read:
/// relaxed atomics, whose stale and mixed values the model explores.
///
/// # Safety
/// As [`copy_in`]'s.
#[track_caller]
pub(crate) unsafe fn race_in(dst: NonNull<Word>, src: *const u8, len: usize) {
    for i in 0..len.div_ceil(WORD_BYTES) {
        let mut bytes = [0; WORD_BYTES];
        let n = WORD_BYTES.min(len - WORD_BYTES * i);
        // SAFETY: inside the private bytes that the caller vouches for.
        let from = unsafe { src.add(WORD_BYTES * i) };
        // SAFETY: at most eight private bytes into eight private bytes.
        unsafe { core::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), n) };
        // SAFETY: word `i` is inside the shared words.
        let word = unsafe { dst.add(i) };
        // SAFETY: as above.
        let word = unsafe { word.as_ref() };
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

/// As [`copy_out`], where the protocol lets a reader and a writer meet in the payload.
///
/// # Safety
/// As [`copy_out`]'s.
#[track_caller]
pub(crate) unsafe fn race_out(dst: *mut u8, src: NonNull<Word>, len: usize) {
    for i in 0..len.div_ceil(WORD_BYTES) {
        // SAFETY: word `i` is inside the shared words.
        let word = unsafe { src.add(i) };
        // SAFETY: as above.
        let word = unsafe { word.as_ref() };
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        let n = WORD_BYTES.min(len - WORD_BYTES * i);
        // SAFETY: inside the private bytes that the caller vouches for.
        let to = unsafe { dst.add(WORD_BYTES * i) };
        // SAFETY: at most eight private bytes from eight private bytes.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) };
    }
}

/// A `T` in shared words, for loans: the model works on a copy and writes it back at the end.
#[derive(Debug)]
pub struct InPlace<T> {
    words: NonNull<Word>,
    value: T,
}

impl<T: Copy> InPlace<T> {
    /// The `T` at `words`.
    ///
    /// # Safety
    /// - `words` is valid for `T` while this value lives, and every bit pattern is a `T`;
    /// - nobody else touches it meanwhile.
    #[must_use]
    #[track_caller]
    pub unsafe fn new(words: NonNull<Word>) -> Self {
        let mut value = core::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: the caller's contract.
        unsafe { copy_out(value.as_mut_ptr().cast(), words, size_of::<T>()) };
        // SAFETY: every bit pattern is a `T`.
        let value = unsafe { value.assume_init() };
        Self { words, value }
    }

    /// The value in place.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The value in place, to be changed.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Ends the access; what was written is in the words.
    #[track_caller]
    pub fn write_back(&mut self) {
        // SAFETY: `new`'s contract.
        unsafe { copy_in(self.words, (&raw const self.value).cast(), size_of::<T>()) };
    }
}

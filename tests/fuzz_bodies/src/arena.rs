//! Memory in which an access out of bounds is seen.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arbitrary::Arbitrary;

/// Alignment of every arena, in bytes: what the rings ask for.
const ALIGN: usize = 128;
/// The largest arena, in bytes.
pub const MAX_BYTES: usize = 32 << 10;
const PAGE_BYTES: usize = 4096;

/// What the other processes can write: zeroed bytes, aligned to 128.
///
/// On the heap, where the address sanitizer guards both sides; or in front of a page without access, which also stops
/// copies in assembly, that the sanitizer does not see.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    len_bytes: usize,
    heap: Option<Layout>,
}

/// The guarded pages of a thread, mapped once and used by one arena at a time.
struct Guarded {
    end: NonNull<u8>,
    is_used: Cell<bool>,
}

thread_local! {
    static GUARDED: Guarded = Guarded { end: map_guarded(), is_used: const { Cell::new(false) } };
}

fn map_guarded() -> NonNull<u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), MAX_BYTES + PAGE_BYTES, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    // SAFETY: the first bytes of our own mapping.
    let opened = unsafe { libc::mprotect(base, MAX_BYTES, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!(opened, 0, "mprotect: {}", std::io::Error::last_os_error());
    // SAFETY: inside the mapping.
    let end = unsafe { base.cast::<u8>().add(MAX_BYTES) };
    NonNull::new(end).expect("not null")
}

impl Arena {
    /// `len_bytes` zero bytes, with the page without access right behind them if `guarded` and the length is a multiple
    /// of 128.
    ///
    /// # Panics
    /// Above [`MAX_BYTES`], or out of memory.
    #[must_use]
    pub fn new(len_bytes: usize, guarded: bool) -> Self {
        assert!((1..=MAX_BYTES).contains(&len_bytes));
        if guarded && len_bytes.is_multiple_of(ALIGN) && !GUARDED.with(|g| g.is_used.replace(true)) {
            // SAFETY: inside the guarded mapping, which has MAX_BYTES in front of its end.
            let base = GUARDED.with(|g| unsafe { g.end.sub(len_bytes) });
            // SAFETY: accessible, and used by nobody else as `is_used` says.
            unsafe { base.as_ptr().write_bytes(0, len_bytes) };
            return Self { base, len_bytes, heap: None };
        }
        let layout = Layout::from_size_align(len_bytes, ALIGN).expect("small");
        // SAFETY: the size is not 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Self { base: NonNull::new(base).expect("out of memory"), len_bytes, heap: Some(layout) }
    }

    /// The first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The 32-bit word number `index`, taken round.
    #[must_use]
    pub fn word32(&self, index: usize) -> &AtomicU32 {
        // SAFETY: inside the arena.
        let word = unsafe { self.base.cast::<AtomicU32>().add(index % (self.len_bytes / 4)) };
        // SAFETY: inside the arena, aligned to 4; accessed atomically by everybody.
        unsafe { word.as_ref() }
    }

    /// The 64-bit word number `index`, taken round.
    #[must_use]
    pub fn word64(&self, index: usize) -> &AtomicU64 {
        // SAFETY: inside the arena.
        let word = unsafe { self.base.cast::<AtomicU64>().add(index % (self.len_bytes / 8)) };
        // SAFETY: inside the arena, aligned to 8; accessed atomically by everybody.
        unsafe { word.as_ref() }
    }

    /// Overwrites the arena with `bytes`, repeated.
    pub fn flood(&self, bytes: &[u8]) {
        let mut bytes = bytes.iter().copied().cycle();
        for word in 0..self.len_bytes / 8 {
            let value = core::array::from_fn(|_| bytes.next().unwrap_or(0));
            self.word64(word).store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        match self.heap {
            // SAFETY: allocated in `new` with this layout.
            Some(layout) => unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) },
            None => GUARDED.with(|g| g.is_used.set(false)),
        }
    }
}

// SAFETY: shared as atomics only, once it is handed to a second thread.
unsafe impl Sync for Arena {}

/// What a ring's memory holds at first.
#[derive(Debug, Clone, Arbitrary)]
pub enum Start {
    /// An honest, empty ring.
    Empty,
    /// These bytes, repeated.
    Bytes(Vec<u8>),
}

/// One store of a hostile peer.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Poke {
    at: u16,
    value: Value,
}

/// What it stores; values that mean something are likelier than by chance.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Value {
    Raw(u64),
    Small(u8),
    /// A power of two, minus one.
    Ones(u8),
    /// What stands there, moved a little.
    Near(i8),
    /// What stands in another word.
    Copy(u16),
    /// A length word of a record ring, at the word's own position: stamp and length + 1.
    Length {
        lap: u8,
        len: u16,
    },
}

impl Poke {
    /// Stores, and returns what stood there. The first `narrow_bytes` of the arena are 32-bit words, but for `wide_at`,
    /// and the rest 64-bit ones, so that every word is accessed in one size.
    pub fn apply(&self, arena: &Arena, narrow_bytes: usize, wide_at: &[usize]) -> Old {
        let byte = usize::from(self.at) * 4 % arena.len_bytes();
        if byte < narrow_bytes && !wide_at.contains(&(byte & !7)) {
            let word = arena.word32(byte / 4);
            let old = word.load(Ordering::Relaxed);
            let other = match self.value {
                Value::Copy(from) => arena.word32(usize::from(from) % (narrow_bytes / 4)).load(Ordering::Relaxed),
                _ => 0,
            };
            #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
            word.store(self.value.of(old.into(), other.into(), 0) as u32, Ordering::Relaxed);
            Old::Narrow(byte / 4, old)
        } else {
            let (word, first) = (arena.word64(byte / 8), narrow_bytes / 8);
            let old = word.load(Ordering::Relaxed);
            let words = arena.len_bytes() / 8 - first;
            let other = match self.value {
                Value::Copy(from) => arena.word64(first + usize::from(from) % words).load(Ordering::Relaxed),
                _ => 0,
            };
            word.store(self.value.of(old, other, (byte / 8).saturating_sub(first) as u64), Ordering::Relaxed);
            Old::Wide(byte / 8, old)
        }
    }
}

/// A word that was overwritten: its number and what it held.
#[derive(Debug, Clone, Copy)]
pub enum Old {
    /// A 32-bit one.
    Narrow(usize, u32),
    /// A 64-bit one.
    Wide(usize, u64),
}

impl Old {
    /// Puts back what stood there.
    pub fn put_back(self, arena: &Arena) {
        match self {
            Self::Narrow(index, old) => arena.word32(index).store(old, Ordering::Relaxed),
            Self::Wide(index, old) => arena.word64(index).store(old, Ordering::Relaxed),
        }
    }
}

impl Value {
    fn of(self, old: u64, other: u64, word_index: u64) -> u64 {
        match self {
            Self::Raw(value) => value,
            Self::Small(value) => value.into(),
            Self::Ones(bits) => u64::MAX.checked_shr(u32::from(bits)).unwrap_or(0),
            Self::Near(by) => old.wrapping_add_signed(by.into()),
            Self::Copy(_) => other,
            Self::Length { lap, len } => (word_index.wrapping_add(u64::from(lap) * 8)) << 32 | (u64::from(len) + 1),
        }
    }
}

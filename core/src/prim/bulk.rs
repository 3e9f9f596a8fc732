//! Copies of shared memory with accesses that the compiler knows nothing of, for x86-64: as fast as memcpy.
//!
//! No language-level access takes place, so a race with a peer is no data race here; the machine's accesses are ordered by
//! the surrounding Acquire and Release, because the blocks may touch all memory and x86-64 keeps loads among loads and
//! stores among stores in order.
//!
//! Every access is 1, 8, 16 or 32 bytes wide and begins a multiple of 8 bytes (a byte in the last seven) from the start. CPUs
//! move such vectors in whole quadwords, so an element of 1, 2, 4 or 8 bytes that is aligned to its size comes over in
//! one piece; the manuals promise that for the 8-byte and, where there is AVX, for aligned 16-byte accesses only.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

/// From here on 32-byte moves are worth a call and a look at what the CPU has.
const WIDE_BYTES: usize = 256;

/// What is known of AVX: nothing yet, no, yes.
static AVX: AtomicU8 = AtomicU8::new(0);

/// Copies `len` bytes.
///
/// # Safety
/// `src` readable and `dst` writable for `len` bytes, not overlapping. Others may write `src` or touch `dst` meanwhile.
#[inline]
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    let mut done = 0;
    if len >= WIDE_BYTES && has_avx() {
        done = len & !127;
        // SAFETY: the CPU has AVX; `done` bytes are a part of what the caller allows.
        unsafe { copy_wide(dst, src, done) };
    }
    // SAFETY: inside, as `done <= len`.
    let dst = unsafe { dst.add(done) };
    // SAFETY: as above.
    let src = unsafe { src.add(done) };
    // SAFETY: the rest of what the caller allows.
    unsafe { copy_narrow(dst, src, len - done) };
}

/// # Safety
/// As `copy`; the CPU has AVX; `len` is a multiple of 128.
#[target_feature(enable = "avx")]
#[inline(never)]
unsafe fn copy_wide(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: reads and writes `len` bytes in steps of 128; clobbers only the registers named.
    unsafe {
        asm!(
            "2:",
            "sub {len}, 128",
            "jb 3f",
            "vmovups ymm0, [{src}]",
            "vmovups ymm1, [{src} + 32]",
            "vmovups ymm2, [{src} + 64]",
            "vmovups ymm3, [{src} + 96]",
            "vmovups [{dst}], ymm0",
            "vmovups [{dst} + 32], ymm1",
            "vmovups [{dst} + 64], ymm2",
            "vmovups [{dst} + 96], ymm3",
            "add {src}, 128",
            "add {dst}, 128",
            "jmp 2b",
            "3:",
            // Dirty upper halves make the SSE instructions after this wait for each other.
            "vzeroupper",
            len = inout(reg) len => _,
            src = inout(reg) src => _,
            dst = inout(reg) dst => _,
            // All of them are touched by `vzeroupper`.
            out("ymm0") _,
            out("ymm1") _,
            out("ymm2") _,
            out("ymm3") _,
            out("ymm4") _,
            out("ymm5") _,
            out("ymm6") _,
            out("ymm7") _,
            out("ymm8") _,
            out("ymm9") _,
            out("ymm10") _,
            out("ymm11") _,
            out("ymm12") _,
            out("ymm13") _,
            out("ymm14") _,
            out("ymm15") _,
            options(nostack),
        );
    }
}

/// # Safety
/// As `copy`.
#[inline(always)]
unsafe fn copy_narrow(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: reads and writes `len` bytes in steps of 64, then of 8, then of 1; clobbers only the registers named.
    unsafe {
        asm!(
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
            "add {len}, 8",
            "jz 7f",
            "6:",
            "mov {t:l}, byte ptr [{src}]",
            "mov byte ptr [{dst}], {t:l}",
            "inc {src}",
            "inc {dst}",
            "dec {len}",
            "jnz 6b",
            "7:",
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

#[inline]
fn has_avx() -> bool {
    // ORDERING: Relaxed. A constant of the machine, computed twice at worst.
    match AVX.load(Ordering::Relaxed) {
        0 => look_for_avx(),
        known => known == 2,
    }
}

/// Asks the CPU whether it has AVX, and whether the operating system saves its registers.
#[cold]
fn look_for_avx() -> bool {
    const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
    const XMM_AND_YMM: u32 = 6;
    let features = core::arch::x86_64::__cpuid(1).ecx;
    let has = features & OSXSAVE_AND_AVX == OSXSAVE_AND_AVX && saved_registers() & XMM_AND_YMM == XMM_AND_YMM;
    AVX.store(if has { 2 } else { 1 }, Ordering::Relaxed);
    has
}

/// The low half of XCR0. Only where the CPU has OSXSAVE.
fn saved_registers() -> u32 {
    let low: u32;
    // SAFETY: the caller has seen OSXSAVE, so the instruction exists; it reads register 0 and changes nothing.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags)) };
    low
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_whole_and_nothing_more() {
        let from: Vec<u8> = (0..2048_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for len in (0..300).chain([511, 512, 513, 1000, 1024, 1151]) {
            for (at, offset) in [(0, 0), (8, 0), (0, 8), (3, 5), (64, 24)] {
                let mut to = std::vec![0xaa; 2048];
                let (dst, src) = (to[at..].as_mut_ptr(), from[offset..].as_ptr());
                assert!(at + len <= to.len() && offset + len <= from.len());
                // SAFETY: inside both.
                unsafe { copy(dst, src, len) };
                assert_eq!(to[at..at + len], from[offset..offset + len], "{len} bytes to {at} from {offset}");
                assert!(to[..at].iter().chain(&to[at + len..]).all(|byte| *byte == 0xaa));
            }
        }
    }
}

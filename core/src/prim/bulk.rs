//! Copies of shared memory with accesses that the compiler knows nothing of, for x86-64: as fast as memcpy.
//!
//! No language-level access takes place, so a race with a peer is no data race here; the machine's accesses are ordered by
//! the surrounding Acquire and Release, because the blocks may touch all memory and x86-64 keeps loads among loads and
//! stores among stores in order.
//!
//! Every access is 1, 2, 4, 8, 16 or 32 bytes wide, begins a multiple of 8 bytes or of its width from the start, and no byte
//! is accessed twice. CPUs move such vectors in whole quadwords, so an element of 1, 2, 4 or 8 bytes that is aligned to
//! its size comes over in one piece; the manuals promise that for the accesses of up to 8 bytes and, where there is AVX,
//! for aligned 16-byte ones only.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

/// From here on 32-byte moves are worth a call and a look at what the CPU has.
const WIDE_BYTES: usize = 128;

/// What is known of AVX: nothing yet, no, yes.
static AVX: AtomicU8 = AtomicU8::new(0);

/// Copies `len` bytes.
///
/// # Safety
/// `src` readable and `dst` writable for `len` bytes, not overlapping. Others may write `src` or touch `dst` meanwhile.
#[inline]
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    if len >= WIDE_BYTES && has_avx() {
        // SAFETY: the CPU has AVX; the rest is the caller's contract.
        unsafe { copy_wide(dst, src, len) };
    } else {
        // SAFETY: the caller's contract.
        unsafe { copy_narrow(dst, src, len) };
    }
}

/// The last seven bytes as 4, 2 and 1, by the low bits of `len`; label 9 stands behind them.
macro_rules! last_seven {
    () => {
        concat!(
            "test {len:l}, 4\n",
            "jz 5f\n",
            "mov {t:e}, [{src}]\n",
            "mov [{dst}], {t:e}\n",
            "add {src}, 4\n",
            "add {dst}, 4\n",
            "5:\n",
            "test {len:l}, 2\n",
            "jz 5f\n",
            "movzx {t:e}, word ptr [{src}]\n",
            "mov [{dst}], {t:x}\n",
            "add {src}, 2\n",
            "add {dst}, 2\n",
            "5:\n",
            "test {len:l}, 1\n",
            "jz 9f\n",
            "movzx {t:e}, byte ptr [{src}]\n",
            "mov [{dst}], {t:l}\n",
            "9:",
        )
    };
}

/// Moves 256 bytes and goes on behind them.
macro_rules! move_256 {
    () => {
        concat!(
            "vmovups ymm0, [{src}]\n",
            "vmovups ymm1, [{src} + 32]\n",
            "vmovups ymm2, [{src} + 64]\n",
            "vmovups ymm3, [{src} + 96]\n",
            "vmovups ymm4, [{src} + 128]\n",
            "vmovups ymm5, [{src} + 160]\n",
            "vmovups ymm6, [{src} + 192]\n",
            "vmovups ymm7, [{src} + 224]\n",
            "vmovups [{dst}], ymm0\n",
            "vmovups [{dst} + 32], ymm1\n",
            "vmovups [{dst} + 64], ymm2\n",
            "vmovups [{dst} + 96], ymm3\n",
            "vmovups [{dst} + 128], ymm4\n",
            "vmovups [{dst} + 160], ymm5\n",
            "vmovups [{dst} + 192], ymm6\n",
            "vmovups [{dst} + 224], ymm7\n",
            "add {src}, 256\n",
            "add {dst}, 256",
        )
    };
}

/// Moves 128 bytes and goes on behind them.
macro_rules! move_128 {
    () => {
        concat!(
            "vmovups ymm0, [{src}]\n",
            "vmovups ymm1, [{src} + 32]\n",
            "vmovups ymm2, [{src} + 64]\n",
            "vmovups ymm3, [{src} + 96]\n",
            "vmovups [{dst}], ymm0\n",
            "vmovups [{dst} + 32], ymm1\n",
            "vmovups [{dst} + 64], ymm2\n",
            "vmovups [{dst} + 96], ymm3\n",
            "add {src}, 128\n",
            "add {dst}, 128",
        )
    };
}

/// Moves what bits 6 to 3 of the length say: 64, 32, 16 and 8 bytes.
macro_rules! move_64_to_8 {
    () => {
        concat!(
            "test {len:l}, 64\n",
            "jz 5f\n",
            "vmovups ymm0, [{src}]\n",
            "vmovups ymm1, [{src} + 32]\n",
            "vmovups [{dst}], ymm0\n",
            "vmovups [{dst} + 32], ymm1\n",
            "add {src}, 64\n",
            "add {dst}, 64\n",
            "5:\n",
            "test {len:l}, 63\n",
            "jz 9f\n",
            "test {len:l}, 32\n",
            "jz 5f\n",
            "vmovups ymm0, [{src}]\n",
            "vmovups [{dst}], ymm0\n",
            "add {src}, 32\n",
            "add {dst}, 32\n",
            "5:\n",
            "test {len:l}, 16\n",
            "jz 5f\n",
            "vmovups xmm0, [{src}]\n",
            "vmovups [{dst}], xmm0\n",
            "add {src}, 16\n",
            "add {dst}, 16\n",
            "5:\n",
            "test {len:l}, 8\n",
            "jz 5f\n",
            "mov {t}, [{src}]\n",
            "mov [{dst}], {t}\n",
            "add {src}, 8\n",
            "add {dst}, 8\n",
            "5:",
        )
    };
}

/// # Safety
/// As `copy`; the CPU has AVX.
#[target_feature(enable = "avx")]
#[inline(never)]
unsafe fn copy_wide(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: reads and writes `len` bytes in steps of 256, then one step of 128, 64 and so on down to 1 for each bit of
    // what is left; clobbers only the registers named.
    unsafe {
        asm!(
            "sub {len}, 256",
            "jb 3f",
            ".p2align 4",
            "2:",
            move_256!(),
            "sub {len}, 256",
            "jae 2b",
            "3:",
            "test {len:l}, {len:l}",
            "jz 9f",
            "jns 4f",
            move_128!(),
            "4:",
            move_64_to_8!(),
            last_seven!(),
            // Dirty upper halves make the SSE instructions after this wait for each other.
            "vzeroupper",
            len = inout(reg) len => _,
            src = inout(reg) src => _,
            dst = inout(reg) dst => _,
            t = out(reg) _,
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
    // SAFETY: reads and writes `len` bytes in steps of 64, then one step of 32, 16 and so on down to 1 for each bit of what
    // is left; clobbers only the registers named.
    unsafe {
        asm!(
            "sub {len}, 64",
            "jb 3f",
            "2:",
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
            "sub {len}, 64",
            "jae 2b",
            "3:",
            "test {len:l}, 63",
            "jz 9f",
            "test {len:l}, 32",
            "jz 5f",
            "movups {a}, [{src}]",
            "movups {b}, [{src} + 16]",
            "movups [{dst}], {a}",
            "movups [{dst} + 16], {b}",
            "add {src}, 32",
            "add {dst}, 32",
            "5:",
            "test {len:l}, 16",
            "jz 5f",
            "movups {a}, [{src}]",
            "movups [{dst}], {a}",
            "add {src}, 16",
            "add {dst}, 16",
            "5:",
            "test {len:l}, 8",
            "jz 5f",
            "mov {t}, [{src}]",
            "mov [{dst}], {t}",
            "add {src}, 8",
            "add {dst}, 8",
            "5:",
            "test {len:l}, 7",
            "jz 9f",
            last_seven!(),
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
    use core::sync::atomic::{AtomicBool, AtomicU32};
    use std::vec::Vec;

    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_whole_and_nothing_more() {
        let from: Vec<u8> = (0..2048_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for len in (0..400).chain([511, 512, 513, 767, 1000, 1024, 1151]) {
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

    #[test]
    fn narrow_moves_copy_every_length_too() {
        let from: Vec<u8> = (0..400_u32).map(|n| n.to_le_bytes()[0] ^ 0x55).collect();
        for len in 0..from.len() {
            let mut to = std::vec![0xaa; 400];
            // SAFETY: inside both.
            unsafe { copy_narrow(to.as_mut_ptr(), from.as_ptr(), len) };
            assert_eq!(to[..len], from[..len], "{len} bytes");
            assert!(to[len..].iter().all(|byte| *byte == 0xaa));
        }
    }

    #[test]
    fn the_last_element_is_not_torn_where_there_are_odd_many() {
        for count in [9, 37] {
            let elements: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        elements[count - 1].store(u32::MAX, Ordering::Relaxed);
                        elements[count - 1].store(0, Ordering::Relaxed);
                    }
                });
                let (mut to, mut seen, mut changes, mut copies) = (std::vec![0_u32; count], 0, 0, 0);
                // Until both have run side by side, or no CPU is left for the other one.
                while changes < 10_000 && copies < 20_000_000 && (seen == 0 || seen == u32::MAX) {
                    // SAFETY: all elements, into as many.
                    unsafe { copy(to.as_mut_ptr().cast(), elements.as_ptr().cast(), 4 * count) };
                    changes += u32::from(to[count - 1] != seen);
                    (seen, copies) = (to[count - 1], copies + 1);
                }
                done.store(true, Ordering::Relaxed);
                assert!(seen == 0 || seen == u32::MAX, "{seen:#x} after {changes} changes in {copies} copies");
            });
        }
    }
}

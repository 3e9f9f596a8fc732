//! Random numbers.
#![allow(unsafe_code)]

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

/// 16 bytes that no other caller gets.
pub(crate) fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom(&mut bytes) || File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).is_ok() {
        return bytes;
    }
    // Uniqueness is all that is asked for: std's seed for hash maps, different for each value, twice.
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_ne_bytes());
    }
    bytes
}

fn getrandom(bytes: &mut [u8; 16]) -> bool {
    // SAFETY: `bytes` is writable for its length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    usize::try_from(got) == Ok(bytes.len())
}

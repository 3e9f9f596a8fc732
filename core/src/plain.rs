//! Types that may lie in shared memory.
#![allow(unsafe_code)]

/// A type whose every bit pattern is a value, with no padding, no pointer and no destructor, so that bytes which
/// another process wrote are always a value of it.
///
/// Implemented for the fixed-width integers and floats and for arrays of `Plain`; `#[derive(Plain)]` of
/// `crosslane-derive` does it for `#[repr(C)]` structs. Not for `usize` and `isize` (their size differs between
/// builds), `bool`, `char`, enums, references and pointers.
///
/// [`FINGERPRINT`](Plain::FINGERPRINT) identifies the type across binaries: two builds agree only if they agree on the
/// type's name, size, alignment and each field's name, offset and type.
///
/// # Safety
/// - every pattern of `size_of::<Self>()` bytes is a valid value;
/// - there are no padding bytes, no pointers and no interior mutability;
/// - `FINGERPRINT` differs between types that do not mean the same bytes.
pub unsafe trait Plain: Copy + Send + Sync + 'static {
    /// Identifies the type's layout and field names.
    const FINGERPRINT: u64;
}

//! Types that have `bytemuck`'s traits, as [`Plain`].

use core::ops::{Deref, DerefMut};

use super::{Fingerprint, Plain};

/// A `T` that is `Pod` of `bytemuck`, as a payload: [`Plain`] without `#[derive(Plain)]`.
///
/// **Fingerprint.** Those traits tell neither a type's name nor its fields. So the fingerprint knows size, alignment and
/// `VERSION` only: two binaries whose `T` have fields swapped or renamed, or are different types of the same size, are *not*
/// refused at open. Raise `VERSION` when the meaning of the bytes changes, or use `#[derive(Plain)]`, which sees to that
/// itself. `usize` inside is told by its size, if at all: use fixed-width integers.
///
/// # Examples
/// ```
/// use crosslane_core::Plain;
/// use crosslane_core::plain::Bytemuck;
/// use bytemuck::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Tick {
///     price: f64,
///     volume: u64,
/// }
///
/// type Payload = Bytemuck<Tick, 2>;
/// let tick: Payload = Bytemuck(Tick { price: 1.5, volume: 3 });
/// assert_eq!(tick.volume, 3);
/// assert_ne!(Payload::FINGERPRINT, <Bytemuck<Tick, 1>>::FINGERPRINT);
/// ```
/// A type with padding is refused: it is not `Pod`.
/// ```compile_fail,E0277
/// use crosslane_core::Plain;
/// use crosslane_core::plain::Bytemuck;
/// use bytemuck::Zeroable;
///
/// #[derive(Clone, Copy, Zeroable)]
/// #[repr(C)]
/// struct Gap {
///     kind: u8,
///     len: u32,
/// }
/// const _: u64 = Bytemuck::<Gap>::FINGERPRINT;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Bytemuck<T, const VERSION: u64 = 0>(pub T);

// SAFETY: the same bytes as `T`, about which
// - `Pod` says that every bit pattern is a value, that no byte is padding or uninitialised, and that there are no pointers,
//   no cells and no atomics inside;
// - `Pod` is `Copy`, so dropping does nothing;
// - size, alignment and the user's version are in the fingerprint, and the documentation says that nothing else is.
unsafe impl<T, const VERSION: u64> Plain for Bytemuck<T, VERSION>
where
    T: ::bytemuck::Pod + Send + Sync,
{
    const FINGERPRINT: u64 = Fingerprint::of_adapter("bytemuck", VERSION, size_of::<T>(), align_of::<T>()).finish();
}

impl<T, const VERSION: u64> Deref for Bytemuck<T, VERSION> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T, const VERSION: u64> DerefMut for Bytemuck<T, VERSION> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T, const VERSION: u64> From<T> for Bytemuck<T, VERSION> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

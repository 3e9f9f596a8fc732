//! Types that have `zerocopy`'s traits, as [`Plain`].

use core::ops::{Deref, DerefMut};

use super::{Fingerprint, Plain};

/// A `T` that is `FromBytes`, `IntoBytes` and `Immutable` of `zerocopy`, as a payload: [`Plain`] without `#[derive(Plain)]`.
///
/// **Fingerprint.** Those traits tell neither a type's name nor its fields. So the fingerprint knows size, alignment and
/// `VERSION` only: two binaries whose `T` have fields swapped or renamed, or are different types of the same size, are *not*
/// refused at open. Raise `VERSION` when the meaning of the bytes changes, or use `#[derive(Plain)]`, which sees to that
/// itself. `usize` inside is told by its size, if at all: use fixed-width integers.
///
/// # Examples
/// ```
/// use crosslane_core::Plain;
/// use crosslane_core::plain::Zerocopy;
/// use zerocopy::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
/// #[repr(C)]
/// struct Tick {
///     price: f64,
///     volume: u64,
/// }
///
/// type Payload = Zerocopy<Tick, 2>;
/// let tick: Payload = Zerocopy(Tick { price: 1.5, volume: 3 });
/// assert_eq!(tick.volume, 3);
/// assert_ne!(Payload::FINGERPRINT, <Zerocopy<Tick, 1>>::FINGERPRINT);
/// ```
/// A type of which not every bit pattern is a value is refused: a `bool` is not `FromBytes`.
/// ```compile_fail,E0277
/// use crosslane_core::Plain;
/// use crosslane_core::plain::Zerocopy;
/// use zerocopy::{Immutable, IntoBytes};
///
/// #[derive(Clone, Copy, Immutable, IntoBytes)]
/// #[repr(C)]
/// struct Flag {
///     on: bool,
/// }
/// const _: u64 = Zerocopy::<Flag>::FINGERPRINT;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Zerocopy<T, const VERSION: u64 = 0>(pub T);

// SAFETY: the same bytes as `T`, about which
// - `FromBytes` says that every pattern of initialised bytes is a value, and so that no reference is inside (raw pointers
//   are not `FromBytes` either);
// - `IntoBytes` says that every byte is initialised: no padding;
// - `Immutable` says that there is no interior mutability, and `Copy` that dropping does nothing;
// - size, alignment and the user's version are in the fingerprint, and the documentation says that nothing else is.
unsafe impl<T, const VERSION: u64> Plain for Zerocopy<T, VERSION>
where
    T: ::zerocopy::FromBytes + ::zerocopy::IntoBytes + ::zerocopy::Immutable + Copy + Send + Sync + 'static,
{
    const FINGERPRINT: u64 = Fingerprint::of_adapter("zerocopy", VERSION, size_of::<T>(), align_of::<T>()).finish();
}

impl<T, const VERSION: u64> Deref for Zerocopy<T, VERSION> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T, const VERSION: u64> DerefMut for Zerocopy<T, VERSION> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T, const VERSION: u64> From<T> for Zerocopy<T, VERSION> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

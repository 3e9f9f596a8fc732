//! The family of locks, each in a segment of its own or in a slab.
//!
//! Protocols and crash tables: [`crosslane_core::lock`]; the calls: `crosslane_sync`. What all of them share, from creation
//! to the file descriptor, is told here once; what differs stands in a file for each.
#![allow(unsafe_code)]

mod barrier;
mod condvar;
mod event;
mod once;
mod rlock;
mod rwlock;
mod semaphore;

use std::ptr::NonNull;

use crosslane_core::Plain;

use crate::content::{Content, Kind};
use crate::env::Env;
use crate::header::HeaderError;
use crate::place::{Init, New, Place};
use crate::segment::{CreateError, OpenError};

pub use barrier::Barrier;
pub use condvar::Condvar;
pub use event::Event;
pub use once::Once;
pub use rlock::RLock;
pub use rwlock::RwLock;
pub use semaphore::{BoundedSemaphore, Semaphore};

/// The largest alignment of a value, in bytes: that of a segment's object.
const MAX_ALIGN: usize = 128;

/// A type `$name` that derefs to `$handle`, with the calls that every lock has.
macro_rules! lock_object {
    (
        $(#[$doc:meta])*
        pub struct $name:ident [$($t:ident)?] derefs to $handle:ty;
        new($($arg:ident: $type:ty),*) is $new:path;
    ) => {
        $(#[$doc])*
        pub struct $name<$($t: crosslane_core::Plain,)? K = crosslane_core::Untrusted> {
            handle: $handle,
            place: $crate::place::Place<K>,
        }

        impl$(<$t: crosslane_core::Plain>)? $name<$($t)?> {
            /// Creates one under `name`.
            ///
            /// # Errors
            /// As [`Segment::create`](crate::Segment::create), and if the arguments make none.
            pub fn create(
                name: &$crate::Name,
                $($arg: $type,)*
                options: &$crate::Options,
            ) -> Result<$crate::Owner<Self>, $crate::CreateError> {
                $new($($arg),*)?.named(name, options)
            }

            /// Opens the one called `name`.
            ///
            /// # Errors
            /// As [`Segment::open`](crate::Segment::open), and [`OpenError::ReadOnly`](crate::OpenError::ReadOnly).
            pub fn open(
                name: &$crate::Name,
                options: &$crate::Options,
            ) -> Result<$crate::Attached<Self>, $crate::OpenError> {
                $crate::place::open(name, options)
            }

            /// Creates one for this process's family; it travels as a file descriptor.
            ///
            /// # Errors
            /// As [`Segment::anonymous_with`](crate::Segment::anonymous_with), and if the arguments make none.
            pub fn anonymous(
                $($arg: $type,)*
                options: &$crate::Options,
            ) -> Result<$name<$($t,)? crosslane_core::Trusted>, $crate::CreateError> {
                $new($($arg),*)?.anonymous(options)
            }

            /// Opens one that came as a file descriptor from a process of this family.
            ///
            /// # Errors
            /// As [`Segment::from_fd`](crate::Segment::from_fd).
            pub fn from_fd(
                fd: std::os::fd::OwnedFd,
                options: &$crate::Options,
            ) -> Result<$name<$($t,)? crosslane_core::Trusted>, $crate::OpenError> {
                $crate::place::from_fd(fd, options)
            }
        }

        impl<$($t: crosslane_core::Plain,)? K: crosslane_core::Trust> $name<$($t,)? K> {
            /// Creates one in `slab`, a [`Slab`](crate::Slab) or [`Slabs`](crate::Slabs): without a segment, an fd or a page
            /// of its own.
            ///
            /// # Errors
            /// [`CreateError::Slab`](crate::CreateError::Slab), and if the arguments make none.
            ///
            /// # Crash
            /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the object.
            pub fn in_slab(
                slab: &impl $crate::slab::Carve<Trust = K>,
                $($arg: $type,)*
            ) -> Result<Self, $crate::CreateError> {
                $new($($arg),*)?.in_slab(slab)
            }

            /// Opens the one called `id` in `slab`.
            ///
            /// # Errors
            /// [`OpenError::Slab`](crate::OpenError::Slab), [`OpenError::Header`](crate::OpenError::Header) if the object is
            /// another one.
            pub fn from_slab(slab: &$crate::Slab<K>, id: $crate::ObjectId) -> Result<Self, $crate::OpenError> {
                $crate::slab::open(slab, id)
            }

            /// In a `fork()` child: this object with a membership of the child's own. Elsewhere another handle.
            ///
            /// # Errors
            /// As [`Segment::rejoin`](crate::Segment::rejoin).
            pub fn rejoin(&self) -> Result<Self, $crate::OpenError> {
                $crate::place::Object::attach(self.place.rejoin()?)
            }
        }

        impl<$($t: crosslane_core::Plain,)? K> $name<$($t,)? K> {
            /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
            #[must_use]
            pub fn object_id(&self) -> Option<$crate::ObjectId> {
                self.place.id()
            }

            /// The segment that it lives in.
            #[must_use]
            pub fn segment(&self) -> &$crate::Segment {
                self.place.segment()
            }
        }

        impl<$($t: crosslane_core::Plain,)? K> std::ops::Deref for $name<$($t,)? K> {
            type Target = $handle;
            fn deref(&self) -> &Self::Target {
                &self.handle
            }
        }

        impl<$($t: crosslane_core::Plain,)? K> std::os::fd::AsFd for $name<$($t,)? K> {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.place.segment().as_fd()
            }
        }

        impl<$($t: crosslane_core::Plain,)? K> std::fmt::Debug for $name<$($t,)? K> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("segment", self.place.segment()).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use lock_object;

/// An object that is a cell `C` around a value `T`.
fn cell_of<T: Plain, C>(kind: Kind, cell: C) -> Result<New<impl Init>, CreateError> {
    let too_aligned = CreateError::Alignment { align: align_of::<C>() };
    if align_of::<C>() > MAX_ALIGN {
        return Err(too_aligned);
    }
    let content = Content { kind, len_bytes: size_of::<C>() as u64, ..Content::value::<T>() };
    Ok(New { content, init: placed(cell) })
}

/// An object that is a few words `C`.
fn words_of<C>(kind: Kind, words: C) -> New<impl Init> {
    let content = Content { kind, len_bytes: size_of::<C>() as u64, ..Content::bytes(1) };
    New { content, init: placed(words) }
}

fn placed<C>(cell: C) -> impl Init {
    move |memory: NonNull<u8>, len: usize| {
        if len < size_of::<C>() || align_of::<C>() > MAX_ALIGN {
            return Err(CreateError::Alignment { align: align_of::<C>() });
        }
        // SAFETY: 128-aligned, and long enough; nobody else can reach it yet.
        unsafe { memory.cast::<C>().write(cell) };
        Ok(())
    }
}

/// The cell `C` at `place`, and its surroundings, which keep it mapped.
fn found<C, K>(place: &Place<K>) -> Result<(NonNull<C>, Env), OpenError> {
    let env = place.env()?;
    let (memory, found) = place.memory();
    let expected = size_of::<C>();
    if found < expected || align_of::<C>() > MAX_ALIGN {
        return Err(HeaderError::TooSmall { found: found as u64, expected: expected as u64 }.into());
    }
    Ok((memory.cast(), env))
}

/// Where the places of a semaphore, a barrier or calls lie, how long that is, and how many there are.
pub(crate) fn places<K>(place: &Place<K>) -> (NonNull<u8>, usize, u32) {
    let (memory, len) = place.memory();
    // Too many for a u32 are too many for any table.
    (memory, len, u32::try_from(place.content().capacity).unwrap_or(u32::MAX))
}

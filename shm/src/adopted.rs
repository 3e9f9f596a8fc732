//! Segments of the `shared_memory` crate as arrays of `T` (feature `shared_memory`).
//!
//! Interop only: nothing of ours stands on that crate, whose segments have no header, no leases and no reservation. What it
//! maps is met as any header-less segment: [`raw`](crate::raw) tells what that means, and opens such segments without
//! this feature too, by [`Name::posix`](crate::Name::posix) of their os_id. This module is for programs that have a `Shmem`
//! already.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crosslane_core::Plain;
use crosslane_core::array::{Array, ArrayError};
use shared_memory::{Shmem, ShmemConf, ShmemError};

use crate::sys::call::OsError;
use crate::sys::gate;
use crate::sys::slot::Slot;

/// A `Shmem` whose memory is accessed as an array of `T`. Whether its drop removes the name is as with the `Shmem`: if that
/// created the segment; but never in a `fork()` child, where a bare `Shmem` removes its parent's.
pub struct Adopted<T> {
    shmem: Option<Shmem>,
    len: u64,
    /// Says 1; a `fork()` child finds 0.
    slot: Slot,
    elements: PhantomData<fn(T) -> T>,
}

/// Why a `Shmem` was not adopted. Those that had one give it back.
#[non_exhaustive]
pub enum AdoptError {
    /// The memory is no whole number of elements long, or empty.
    Length {
        /// Its length, in bytes.
        len_bytes: usize,
        /// An element's size, in bytes.
        elem_size: usize,
        /// As it was.
        shmem: Box<Shmem>,
    },
    /// The element type does not make an array.
    Array(ArrayError, Box<Shmem>),
    /// A system call failed.
    Os(OsError, Box<Shmem>),
    /// The `shared_memory` crate could not open it.
    Open(ShmemError),
}

impl<T: Plain> Adopted<T> {
    /// Takes `shmem` over, as many elements as it holds. What is in it stays. Does not block.
    ///
    /// # Errors
    /// [`AdoptError`], with `shmem`.
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Name, Options, RawSegment, adopted::Adopted};
    ///
    /// let shmem = shared_memory::ShmemConf::new().size(80).create()?;
    /// let numbers = Adopted::<f64>::adopt(shmem).map_err(|error| error.to_string())?;
    /// numbers.elements().set(9, 0.5);
    ///
    /// let name = Name::posix(numbers.os_id())?;
    /// assert_eq!(RawSegment::<f64>::open(&name, &Options::new())?.view().get(9), 0.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(shmem: Shmem) -> Result<Self, AdoptError> {
        let (len_bytes, elem_size) = (shmem.len(), size_of::<T>());
        let len = len_bytes.checked_div(elem_size).unwrap_or(0);
        if len == 0 || len * elem_size != len_bytes {
            return Err(AdoptError::Length { len_bytes, elem_size, shmem: Box::new(shmem) });
        }
        let layout = Array::<T>::layout(len as u64);
        let is_aligned = |align| shmem.as_ptr().addr().is_multiple_of(align);
        match layout {
            Ok(layout) if is_aligned(layout.align()) => {}
            Ok(_) => return Err(AdoptError::Array(ArrayError::Misaligned, Box::new(shmem))),
            Err(error) => return Err(AdoptError::Array(error, Box::new(shmem))),
        }
        let slot = match Slot::take(&mut gate::enter()) {
            Ok(slot) => slot,
            Err(error) => return Err(AdoptError::Os(error, Box::new(shmem))),
        };
        slot.set(1);
        Ok(Self { shmem: Some(shmem), len: len as u64, slot, elements: PhantomData })
    }

    /// Opens what the `shared_memory` crate knows as `os_id`, by that crate.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn open(os_id: &str) -> Result<Self, AdoptError> {
        Self::adopt(ShmemConf::new().os_id(os_id).open().map_err(AdoptError::Open)?)
    }

    /// The elements. What a neighbour stores is a value.
    ///
    /// # Panics
    /// Never: what could make it fail was checked when the memory was adopted.
    #[must_use]
    pub fn elements(&self) -> Array<'_, T> {
        let (memory, len_bytes) = self.memory();
        // SAFETY:
        // - the `Shmem` keeps the memory mapped for writing while `self` lives, from which the array is borrowed;
        // - it was handed over, and other ways to its bytes are unsafe ones, so this process accesses this mapping as an
        //   array of `T` alone: `memory` is for those who answer for more;
        // - what other programs do to it is met by the array's own accesses: whatever they store is a value.
        let array = unsafe { Array::attach(memory, len_bytes, self.len) };
        array.expect("`adopt` has checked length and alignment")
    }
}

impl<T> Adopted<T> {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a mapping has an element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segment's name as the `shared_memory` crate has it, with a `/` before it.
    #[must_use]
    pub fn os_id(&self) -> &str {
        self.shmem.as_ref().map_or("", Shmem::get_os_id)
    }

    /// Start and length (bytes) of the memory, aligned to a page; mapped as long as this value lives. As
    /// [`RawSegment::memory`](crate::RawSegment::memory).
    #[must_use]
    pub fn memory(&self) -> (NonNull<u8>, usize) {
        let memory = self.shmem.as_ref().map(|shmem| (NonNull::new(shmem.as_ptr()), shmem.len()));
        match memory {
            Some((Some(start), len)) => (start, len),
            _ => (NonNull::dangling(), 0),
        }
    }

    /// The `Shmem`, as it was.
    ///
    /// # Panics
    /// Never: it is there until the drop.
    #[must_use]
    pub fn into_shmem(mut self) -> Shmem {
        self.shmem.take().expect("it is there until the drop")
    }
}

impl<T> Drop for Adopted<T> {
    fn drop(&mut self) {
        if self.slot.is_forked()
            && let Some(shmem) = &mut self.shmem
        {
            // A fork child's copy: its parent is the owner.
            shmem.set_owner(false);
        }
        self.slot.give_back(&mut gate::enter());
    }
}

impl<T> fmt::Debug for Adopted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopted").field("os_id", &self.os_id()).field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { len_bytes, elem_size, .. } => {
                write!(f, "{len_bytes} bytes are no whole number of elements of {elem_size} bytes, or none")
            }
            Self::Array(error, _) => error.fmt(f),
            Self::Os(error, _) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AdoptError {}

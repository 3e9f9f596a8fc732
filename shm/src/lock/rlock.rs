//! A value behind a lock that its thread may take again.
#![allow(unsafe_code)]

use crosslane_core::{Plain, Trust};
use crosslane_sync::RLockCell;

use super::{cell_of, found, lock_object};
use crate::content::{Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A value of type `T` in shared memory behind a lock that its thread may take again, and that survives its owner's
    /// death. Its calls are those of [`crosslane_sync::RLock`]; none lends the value, so `K` says only where the memory goes.
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, RLock};
    ///
    /// let lock = RLock::anonymous(40_u64, &Options::new())?;
    /// let outer = lock.lock().unwrap();
    /// let inner = lock.lock().unwrap();
    /// inner.set(outer.get() + 2);
    /// assert_eq!(outer.get(), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct RLock [T] derefs to crosslane_sync::RLock<T, Env>;
    new(value: T) is new;
}

impl<T: Plain, K: Trust> Object for RLock<T, K> {
    type Trust = K;
    const ALIGN: u32 = if align_of::<T>() > 64 { 128 } else { 64 };

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::RLOCK, capacity: Some(1), ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let (cell, env) = found(&place)?;
        // SAFETY: `found` has checked length and alignment; mapped for writing while `env` or `place` lives; the header
        // says that it is such a cell, and no reference to its value is made in this crate.
        Ok(Self { handle: unsafe { crosslane_sync::RLock::new(cell, env) }, place })
    }
}

fn new<T: Plain>(value: T) -> Result<New<impl Init>, CreateError> {
    cell_of::<T, _>(Kind::RLOCK, RLockCell::new(value))
}

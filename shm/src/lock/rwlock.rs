//! A value behind a lock for many readers or one writer.
#![allow(unsafe_code)]

use crosslane_core::{Plain, Trust, Trusted};
use crosslane_sync::{READERS, RwLockCell};

use super::{cell_of, found, lock_object};
use crate::content::{Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A value of type `T` in shared memory behind a lock for many readers, of up to 64 processes at once, or one writer,
    /// which waits for no dead reader and whose death is told. Its calls are those of [`crosslane_sync::RwLock`].
    ///
    /// `K` says whether guards may lend the value in place, as with [`Mutex`](crate::Mutex).
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, RwLock};
    ///
    /// let lock = RwLock::anonymous([0_u64; 2], &Options::new())?;
    /// lock.write().unwrap()[1] = 5;
    /// let (a, b) = (lock.read().unwrap(), lock.read().unwrap());
    /// assert_eq!((a[1], b[1]), (5, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct RwLock [T] derefs to crosslane_sync::RwLock<T, Env, K>;
    new(value: T) is new;
}

impl<T: Plain> RwLock<T> {
    /// Another handle, with the calls that lend the value in place.
    ///
    /// # Errors
    /// As [`Segment::rejoin`](crate::Segment::rejoin) in a `fork()` child; none elsewhere.
    ///
    /// # Safety
    /// As [`Mutex::trust_peers`](crate::Mutex::trust_peers).
    pub unsafe fn trust_peers(&self) -> Result<RwLock<T, Trusted>, OpenError> {
        // SAFETY: the caller's contract.
        RwLock::attach(unsafe { self.place.rejoin()?.trust_peers() })
    }
}

impl<T: Plain, K: Trust> Object for RwLock<T, K> {
    type Trust = K;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::RWLOCK, capacity: Some(1), ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let (cell, env) = found(&place)?;
        // SAFETY: `found` has checked length and alignment; mapped for writing while `env` or `place` lives; the header
        // says that it is such a cell, and no reference to its value is made in this crate.
        let lock = unsafe { crosslane_sync::RwLock::new(cell, env) };
        // SAFETY: a place is `Trusted` only if the peers are.
        Ok(Self { handle: unsafe { lock.with_trust() }, place })
    }
}

fn new<T: Plain>(value: T) -> Result<New<impl Init>, CreateError> {
    cell_of::<T, RwLockCell<T, READERS>>(Kind::RWLOCK, RwLockCell::new(value))
}

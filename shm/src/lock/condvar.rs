//! A value behind a lock, for whose changes processes wait.
#![allow(unsafe_code)]

use crosslane_core::{Plain, Trust, Trusted};
use crosslane_sync::CondvarCell;

use super::{cell_of, found, lock_object};
use crate::content::{Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A value of type `T` in shared memory behind a lock, for whose changes processes wait. Notifiers wait for nobody, and
    /// killed waiters leave nothing behind. Its calls are those of [`crosslane_sync::Condvar`].
    ///
    /// `K` says whether guards may lend the value in place, as with [`Mutex`](crate::Mutex).
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Condvar, Options};
    ///
    /// let ready = Condvar::anonymous(0_u64, &Options::new())?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *ready.lock().unwrap() = 7;
    ///         ready.notify_all();
    ///     });
    ///     let guard = ready.lock().unwrap().wait_while(|n| *n == 0).unwrap();
    ///     assert_eq!(*guard, 7);
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Condvar [T] derefs to crosslane_sync::Condvar<T, Env, K>;
    new(value: T) is new;
}

impl<T: Plain> Condvar<T> {
    /// Another handle, with the calls that lend the value in place.
    ///
    /// # Errors
    /// As [`Segment::rejoin`](crate::Segment::rejoin) in a `fork()` child; none elsewhere.
    ///
    /// # Safety
    /// As [`Mutex::trust_peers`](crate::Mutex::trust_peers).
    pub unsafe fn trust_peers(&self) -> Result<Condvar<T, Trusted>, OpenError> {
        // SAFETY: the caller's contract.
        Condvar::attach(unsafe { self.place.rejoin()?.trust_peers() })
    }
}

impl<T: Plain, K: Trust> Object for Condvar<T, K> {
    type Trust = K;
    const ALIGN: u32 = if align_of::<T>() > 64 { 128 } else { 64 };

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::CONDVAR, capacity: Some(1), ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let (cell, env) = found(&place)?;
        // SAFETY: `found` has checked length and alignment; mapped for writing while `env` or `place` lives; the header
        // says that it is such a cell, and no reference to its value is made in this crate.
        let condvar = unsafe { crosslane_sync::Condvar::new(cell, env) };
        // SAFETY: a place is `Trusted` only if the peers are.
        Ok(Self { handle: unsafe { condvar.with_trust() }, place })
    }
}

fn new<T: Plain>(value: T) -> Result<New<impl Init>, CreateError> {
    cell_of::<T, _>(Kind::CONDVAR, CondvarCell::new(value))
}

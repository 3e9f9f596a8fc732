//! Locks that processes share, and the guards that they give.
//!
//! They are those of std and of Python, made without a name, cloned, and sent to other processes. Each lies in a slab that
//! this process's small objects share, so a thousand of them take no descriptor more than one does.
//!
//! What they have in common: nobody waits for a dead process. The lock of a killed holder goes to the next one within 10 ms
//! as [`LockError::OwnerDied`], with the guard in the error, because what the lock protects may be half changed; permits of a
//! [`BoundedSemaphore`] come back; a [`Barrier`] breaks. A stopped process keeps what it holds.

mod mutex;
mod semaphore;
mod signal;

pub use mutex::{
    Condvar, CondvarGuard, Lock, LockGuard, Mutex, MutexGuard, RLock, RLockGuard, RwLock, RwReadGuard, RwWriteGuard,
};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
pub use signal::{Barrier, Event, Once};

#[doc(inline)]
pub use crate::sync::WaitTimeoutResult;
#[doc(inline)]
pub use crate::sync::{AcquireError, BarrierError, LockError, OnceError, OnceState, OverRelease, Passed};

/// What each handle has beside its own calls: `Debug`, and that of the cheap clone.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident $(<$t:ident>)? is $object:ty) => {
        $(#[$doc])*
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(bound = "")]
        pub struct $name $(<$t: crate::Plain>)? (crate::place::Placed<$object>);

        impl $(<$t: crate::Plain>)? Clone for $name $(<$t>)? {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl $(<$t: crate::Plain>)? std::fmt::Debug for $name $(<$t>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
use handle;

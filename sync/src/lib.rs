//! Futex waits and process-shared locks that report a dead owner instead of hanging.
//!
//! This crate is the first floor of [crosslane](https://docs.rs/crosslane): it gives the state machines of
//! [`crosslane_core`] a clock, a futex and types. It places nothing in memory by itself: it is handed pointers into
//! memory that several processes map (by `crosslane-shm`, or by you), and a [`Liveness`](crosslane_core::Liveness) that
//! knows who is dead.
//!
//! ```text
//!   shared memory                     this process
//!   +------------------+             +----------------------------------------+
//!   | MutexCell<T>     |             | Mutex<T, R> -- lock() --> MutexGuard    |
//!   |   lock word      | <---------- |    R: RawLock = LeaseLock<E>            |
//!   |   value          |             |       E: Wait (futex) + Liveness (lease)|
//!   +------------------+             +----------------------------------------+
//! ```
//!
//! # Which type do I want
//!
//! | to | take |
//! |---|---|
//! | a value behind a lock that tells of a dead owner | [`Mutex`] over a [`MutexCell`] (in a segment: `crosslane_shm::Mutex`) |
//! | a lock that its thread may take again | [`RLock`] over an [`RLockCell`] |
//! | a value that many read and few change | [`RwLock`] over an [`RwLockCell`] |
//! | a value for whose changes others wait | [`Condvar`], which has its mutex inside, over a [`CondvarCell`] |
//! | to meet others, or hear that one of them died | [`Barrier`] over a [core one](crosslane_core::lock::barrier::Barrier) |
//! | a flag that others wait for | [`Event`] |
//! | something done once, by whichever process comes first | [`Once`] |
//! | permits that come back when their holder dies | [`BoundedSemaphore`] over [`Permits`](crosslane_core::lock::permits::Permits) |
//! | a count that any process may raise and lower | [`Semaphore`] |
//! | a lock of one's own behind the same guards | [`RawLock`]; [`LeaseLock`] is ours |
//! | the mutex of the crate `raw_sync` that another program has in its memory | `RawSyncLock`, with the feature `raw-sync` |
//! | a point in time that no change of the wall clock moves | [`Deadline`] |
//! | to sleep and wake for a ring of `crosslane-core` | [`FutexWait`], or the parts: [`waiter`], [`futex`], [`membarrier`], [`spin`] |
//!
//! Linux only. Every wait is on shared (never process-private) futexes and in bounded slices, so that no waiter depends
//! on a waker that may have been killed.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("crosslane-sync needs Linux: futexes that work across processes, and membarrier");

mod barrier;
mod condvar;
pub mod deadline;
mod event;
pub mod futex;
mod lease_lock;
pub mod membarrier;
mod mutex;
mod once;
mod raw_lock;
#[cfg(feature = "raw-sync")]
mod raw_sync;
mod rlock;
mod rwlock;
mod semaphore;
pub mod spin;
mod thread_number;
mod value;
pub mod waiter;

pub use barrier::Barrier;
pub use condvar::{Condvar, CondvarCell, CondvarGuard, WaitTimeoutResult};
pub use crosslane_core::lock::barrier::{BarrierError, Passed};
pub use crosslane_core::lock::permits::{AcquireError, OverRelease};
pub use deadline::Deadline;
pub use event::Event;
pub use lease_lock::LeaseLock;
pub use mutex::{LockError, Mutex, MutexCell, MutexGuard, Repair};
pub use once::{Once, OnceError, OnceState};
pub use raw_lock::{NotAcquired, RawLock};
#[cfg(feature = "raw-sync")]
pub use raw_sync::RawSyncLock;
pub use rlock::{RLock, RLockCell, RLockGuard};
pub use rwlock::{READERS, RwLock, RwLockCell, RwReadGuard, RwRepair, RwWriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
pub use waiter::{Deaths, FutexWait};

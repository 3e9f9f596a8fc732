//! Futex waits and process-shared locks that report a dead owner instead of hanging.
//!
//! This crate is the first floor of [crosslane](https://docs.rs/crosslane): it gives the state machines of
//! [`crosslane_core`] a clock, a futex and types. It places nothing in memory by itself: it is handed pointers into
//! memory that several processes map (by `crosslane-shm`, or by you), and a [`Liveness`](crosslane_core::Liveness) that
//! knows who is dead.
//!
//! - [`Mutex`] over a [`MutexCell`]: a value behind a lock. Its guards say [`LockError::OwnerDied`] when the last owner
//!   was killed while it held the lock.
//! - [`Deadline`]: a point on the monotonic clock; the wall clock is never read.
//! - [`waiter`]: [`FutexWait`] and the free functions for an own [`Wait`](crosslane_core::Wait).
//! - [`futex`], [`membarrier`], [`spin`]: the three means of waiting, each in one file.
//! - [`RawLock`]: what a lock must do to stand behind a [`Mutex`]; [`LeaseLock`] is ours.
//!
//! Linux only. Every wait is on shared (never process-private) futexes and in bounded slices, so that no waiter depends
//! on a waker that may have been killed.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("crosslane-sync needs Linux: futexes that work across processes, and membarrier");

pub mod deadline;
pub mod futex;
mod lease_lock;
pub mod membarrier;
mod mutex;
mod raw_lock;
pub mod spin;
pub mod waiter;

pub use deadline::Deadline;
pub use lease_lock::LeaseLock;
pub use mutex::{LockError, Mutex, MutexCell, MutexGuard, Repair};
pub use raw_lock::{NotAcquired, RawLock};
pub use waiter::{Deaths, FutexWait};

//! Shared-memory segments that say who uses them: named and anonymous, with leases that prove a user's death, and the
//! rings and locks that live in them.
//!
//! This crate is the second floor of [crosslane](https://docs.rs/crosslane): it gives the protocols of
//! [`crosslane_core`] memory that several processes map, and a [`Liveness`](crosslane_core::Liveness) that rests on the
//! kernel alone.
//!
//! ```text
//!    process A                 segment (a memfd, or a file in /dev/shm)                process B
//!   +-----------+     +--------+---------------------+----------------+     +-----------+
//!   | Owner<..> | --> | Header | participants: leases | object         | <-- | Attached  |
//!   +-----------+     +--------+---------------------+----------------+     +-----------+
//!     the name's        what       Domain: who takes   Spsc, Record, Queue,    by name, or
//!     life is its       it is      part, who is dead   Mutex, Slab, bytes      by fd (AsFd, from_fd)
//! ```
//!
//! # Which type do I want
//!
//! | to | take |
//! |---|---|
//! | stream items of one type from one process to one other | [`Spsc`] |
//! | stream byte records of any length from one to one other | [`Record`] |
//! | give work from many to many, each item to one, redelivered if its taker dies | [`Queue`], for bytes [`Messages`] |
//! | share a value behind a lock that tells of a dead owner | [`Mutex`] |
//! | another lock: reentrant, for readers and writers, permits, a condition, a flag, a barrier, done once | [`RLock`], [`RwLock`], [`BoundedSemaphore`], [`Semaphore`], [`Condvar`], [`Event`], [`Barrier`], [`Once`] |
//! | ask one server from many processes, and hear if it died | [`Calls`] |
//! | share many numbers or structs, each read and written by itself or by ranges | [`Array`] |
//! | show many readers the newest value of something | [`Latest`] |
//! | put many small objects into one segment, without a file descriptor each | [`Slab`], [`Slabs`] |
//! | share memory of a layout of one's own | [`Segment`] |
//! | share one value made of atomics, in place | [`Shared`] |
//! | publish a table that never changes again, borrowed as `&[T]` | [`Frozen`] |
//! | share memory with Python's `SharedMemory` or the `shared_memory` crate | [`RawSegment`] |
//! | know who takes part, and who is proven dead | [`Domain`] |
//! | give handles of `crosslane-core` and `crosslane-sync` surroundings of one's own making | [`Env`] |
//! | remove what dead programs left in `/dev/shm` | [`sweep()`] |
//!
//! [Anonymous](Segment::anonymous) segments travel by file descriptor and cannot leak; [named](Segment::create) ones are
//! met by unrelated programs. Any process may be killed at any instruction; nothing is ever decided by a timeout.
//!
//! # Trust
//! Whatever peers write, memory safety holds: each value is taken once and checked. A peer that may open a named segment
//! can deny service: lock its bytes, fill its words with nonsense, or cut its file short (SIGBUS). Anonymous segments
//! are sealed against the last.
//!
//! Linux only, with `/proc`.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("crosslane-shm needs Linux: memfds, O_TMPFILE and open file description locks");

#[cfg(feature = "shared_memory")]
pub mod adopted;
pub mod anonymous;
pub mod array;
pub mod bell;
pub mod calls;
pub mod content;
pub mod domain;
pub mod env;
pub mod frozen;
pub mod header;
pub mod latest;
mod lease;
pub mod lock;
mod mapping;
mod memory;
pub mod messages;
pub mod mutex;
pub mod name;
pub mod named;
pub mod options;
mod pass;
mod place;
pub mod queue;
pub mod raw;
mod reaper;
pub mod record;
pub mod segment;
pub mod shared;
pub mod slab;
pub mod spsc;
pub mod sweep;
mod sys;
mod takeover;
pub mod view;

pub use array::{Array, ArrayView};
pub use bell::{Bell, Belled};
pub use calls::Calls;
pub use content::{Content, Expected, Kind};
pub use domain::{Domain, DomainError, Probe};
pub use env::Env;
pub use frozen::{FreezeError, Frozen, Unfrozen};
pub use header::{Header, HeaderError};
pub use latest::{Latest, LatestView};
pub use lock::{Barrier, BoundedSemaphore, Condvar, Event, Once, RLock, RwLock, Semaphore};
pub use messages::Messages;
pub use mutex::Mutex;
pub use name::{Name, NameError};
pub use named::{Attached, Owner};
pub use options::Options;
pub use queue::Queue;
pub use raw::{RawOwner, RawSegment};
pub use record::Record;
pub use segment::{CopyError, CreateError, OpenError, Segment};
pub use shared::Shared;
pub use slab::{ObjectId, Slab, Slabs};
pub use spsc::Spsc;
pub use sweep::{Swept, sweep, sweep_in, sweep_name};
pub use sys::call::OsError;

#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub use {crosslane_core, crosslane_shm, crosslane_sync};
pub use {crosslane_shm as shm, crosslane_sync as sync};

pub mod array;
mod blob;
mod error;
mod frame;
pub mod lock;
mod owned;
mod pipe;
mod place;
mod pool;
mod process;
pub mod queue;
mod value;
mod wait;
mod wire;

pub use array::Array;
pub use blob::Blob;
pub use error::{CodecError, Error, PanicReport, Result, UnsplitReason};
pub use lock::{Barrier, BoundedSemaphore, Condvar, Event, Lock, Mutex, Once, RLock, RwLock, Semaphore};
pub use lock::{LockError, MutexGuard};
pub use owned::{ArrayPart, OwnedArray, UnsplitError};
pub use pipe::{Connection, Descriptor, Receiver, Sender, pipe, pipe_with_capacity};
pub use pool::{
    AsCompleted, Executor, Imap, ImapUnordered, Job, JobWith, JobWithState, Pool, PoolBuilder, Task, WaitFor,
    as_completed, wait_tasks,
};
pub use process::{
    ActiveChild, CurrentProcess, ParentProcess, Process, ProcessBuilder, active_children, at_exit, cpu_count,
    current_process, init, parent_process, spawn,
};
pub use queue::{JoinableQueue, Queue, SimpleQueue};
pub use value::Value;
pub use wait::{Waitable, wait};
pub use wire::Portable;

#[doc(inline)]
pub use crosslane_core::plain::Plain;
#[doc(inline)]
pub use crosslane_core::share::Share;
#[doc(inline)]
pub use crosslane_core::{OwnerId, Trusted, Untrusted, WakeMode};
/// Implements [`Plain`] for a `#[repr(C)]` struct without padding whose fields are all `Plain`.
///
/// See the documentation of `crosslane-derive` for what is checked.
pub use crosslane_derive::PlainInFacade as Plain;
/// Implements [`Share`] for a `#[repr(C)]` struct without padding whose fields are all `Share`.
///
/// See the documentation of `crosslane-derive` for what is checked.
pub use crosslane_derive::ShareInFacade as Share;
#[doc(inline)]
pub use crosslane_shm::sweep_name;
#[doc(inline)]
pub use crosslane_shm::{Attached, CreateError, Name, NameError, OpenError, Options, Owner, Segment};
#[doc(inline)]
pub use crosslane_shm::{Domain, DomainError, OsError, Probe, sweep_in};
#[doc(inline)]
pub use crosslane_shm::{FreezeError, Frozen, ObjectId, RawOwner, RawSegment, Shared, Slab, Slabs};
#[doc(inline)]
pub use crosslane_shm::{Latest, LatestView, Record, Spsc, Swept};

/// Removes the names of segments in `/dev/shm` that nobody has open: see [`crosslane_shm::sweep`](fn@crosslane_shm::sweep).
///
/// # Errors
/// The directory cannot be read.
pub fn sweep() -> Result<Swept, OsError> {
    crosslane_shm::sweep()
}

/// Rings of fixed-size items: their ends and their errors.
pub mod spsc {
    #[doc(inline)]
    pub use crosslane_core::end::ClaimError;
    #[doc(inline)]
    pub use crosslane_core::spsc::{PopError, PushError};
    #[doc(inline)]
    pub use crosslane_shm::spsc::{Consumer, Producer};
}

/// The newest value of something: its writer, its readers, and their errors.
pub mod latest {
    #[doc(inline)]
    pub use crosslane_core::end::ClaimError;
    #[doc(inline)]
    pub use crosslane_core::latest::{PublishError, ReadError};
    #[doc(inline)]
    pub use crosslane_shm::latest::{Reader, ViewReader, Writer};
}

/// Rings of records of any length: their ends and their errors.
pub mod record {
    #[doc(inline)]
    pub use crosslane_core::end::ClaimError;
    #[doc(inline)]
    pub use crosslane_core::record::{PopError, PushError};
    #[doc(inline)]
    pub use crosslane_shm::record::{Reader, Writer};
}

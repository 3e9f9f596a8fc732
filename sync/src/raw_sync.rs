//! The mutex of the crate `raw_sync` as a [`RawLock`], to share memory with a program that has one there already.
//!
//! For a new segment take [`LeaseLock`](crate::LeaseLock): what this lock lacks is in the lock itself, a plain
//! process-shared pthread mutex, and no adapter can add it.
//!
//! | what | here |
//! |---|---|
//! | its holder is killed | everybody hangs who locks without a timeout, for ever: the mutex is not robust. Nobody gets `OwnerDied` |
//! | its holder panics | the next one gets `Ok`: there is no room for a poison mark |
//! | who holds it | unknown: `TimedOut(None)`, `WouldBlock(None)` |
//! | a lock with a timeout | tried every millisecond by the monotonic clock, so neither in order nor at once |
//! | a thread locks twice | it waits for itself |
//! | hostile bytes | the C library trusts the mutex's words: a peer that scribbles on them can hang this process |
//!
//! `raw_sync`'s own `try_lock(Timeout::Val(..))` is not used: it adds the timeout's nanoseconds to the wall clock's without
//! a carry, so most timeouts that are no whole seconds fail at once with EINVAL. What both sides must agree on, the
//! mutex's place and kind, is tested against `raw_sync` 0.1.5 in two processes; nothing of that crate is compiled in.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::time::Duration;
use std::process;
use std::thread;

use crosslane_core::mutex::Acquired;

use crate::deadline::Deadline;
use crate::raw_lock::{NotAcquired, RawLock};

/// How often a lock with a deadline is tried.
const TRY_EVERY: Duration = Duration::from_millis(1);

/// A `raw_sync::locks::Mutex` in shared memory.
///
/// Dropping it neither unlocks nor destroys the mutex.
#[derive(Debug)]
pub struct RawSyncLock {
    mutex: NonNull<libc::pthread_mutex_t>,
    /// The process that made this value: a `fork()` child must not unlock what its parent holds.
    pid: u32,
}

// SAFETY: a pthread mutex may be used by any thread; the memory is valid by the contract of `init` and `attach`.
unsafe impl Send for RawSyncLock {}
// SAFETY: as above.
unsafe impl Sync for RawSyncLock {}

impl RawSyncLock {
    /// Bytes of the mutex; `raw_sync` calls it `Mutex::size_of(None)`.
    pub const SIZE_BYTES: usize = size_of::<libc::pthread_mutex_t>();
    /// Its alignment. `raw_sync` rounds the address that it is given up to a multiple of a pointer's size.
    pub const ALIGN_BYTES: usize = size_of::<*mut u8>();

    /// Makes an unlocked mutex at `memory`, as `raw_sync`'s `Mutex::new` does; others attach with its `from_existing`.
    ///
    /// # Errors
    /// The errno that the C library returned.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of [`SIZE_BYTES`](Self::SIZE_BYTES) and aligned to
    ///   [`ALIGN_BYTES`](Self::ALIGN_BYTES), for as long as the returned lock lives;
    /// - nobody else uses it until this returns; from then on every process uses it as a pthread mutex alone.
    pub unsafe fn init(memory: NonNull<u8>) -> Result<Self, c_int> {
        // SAFETY: the caller's contract.
        let lock = unsafe { Self::attach(memory) };
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: memory of this call's own.
        checked(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised above.
        checked(unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: memory that nobody else uses, and attributes that were initialised.
        checked(unsafe { libc::pthread_mutex_init(lock.mutex.as_ptr(), attributes.as_ptr()) })?;
        // SAFETY: initialised, and not used again.
        checked(unsafe { libc::pthread_mutexattr_destroy(attributes.as_mut_ptr()) })?;
        Ok(lock)
    }

    /// The mutex at `memory`, which [`init`](Self::init) or `raw_sync` made there.
    ///
    /// # Safety
    /// - `memory` is valid for reads and writes of [`SIZE_BYTES`](Self::SIZE_BYTES) and aligned to
    ///   [`ALIGN_BYTES`](Self::ALIGN_BYTES), for as long as the returned lock lives;
    /// - there is such a mutex, and every process uses it as a pthread mutex alone.
    #[must_use]
    pub unsafe fn attach(memory: NonNull<u8>) -> Self {
        Self { mutex: memory.cast(), pid: process::id() }
    }

    fn is_forked(&self) -> bool {
        self.pid != process::id()
    }
}

// SAFETY:
// - exclusion and order: a process-shared pthread mutex, which the peers use as one by the contract of `init` and
//   `attach`; it can tell nothing of a dead owner, and then nobody succeeds any more;
// - a fork child's copy holds nothing, and its `unlock` changes nothing;
// - nothing here panics.
unsafe impl RawLock for RawSyncLock {
    fn lock(&self, deadline: Deadline) -> Result<Acquired, NotAcquired> {
        if self.is_forked() {
            return Err(NotAcquired::Forked);
        }
        if deadline.is_never() {
            // SAFETY: a live mutex, by the contract of `init` and `attach`.
            return acquired(unsafe { libc::pthread_mutex_lock(self.mutex.as_ptr()) });
        }
        loop {
            match self.try_lock() {
                Err(NotAcquired::Held(_)) if !deadline.has_passed() => {
                    thread::sleep(deadline.remaining().map_or(TRY_EVERY, |left| left.min(TRY_EVERY)));
                }
                done => return done,
            }
        }
    }

    fn try_lock(&self) -> Result<Acquired, NotAcquired> {
        if self.is_forked() {
            return Err(NotAcquired::Forked);
        }
        // SAFETY: a live mutex, by the contract of `init` and `attach`.
        acquired(unsafe { libc::pthread_mutex_trylock(self.mutex.as_ptr()) })
    }

    unsafe fn unlock(&self, _poison: bool) {
        if !self.is_forked() {
            // SAFETY: a live mutex that the caller got from this value in this process. An error changes nothing.
            unsafe { libc::pthread_mutex_unlock(self.mutex.as_ptr()) };
        }
    }
}

fn acquired(errno: c_int) -> Result<Acquired, NotAcquired> {
    match errno {
        0 => Ok(Acquired::Clean),
        libc::EBUSY => Err(NotAcquired::Held(None)),
        _ => Err(NotAcquired::Corrupt),
    }
}

fn checked(errno: c_int) -> Result<(), c_int> {
    if errno == 0 { Ok(()) } else { Err(errno) }
}

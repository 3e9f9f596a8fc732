//! The process-shared primitives of the C library, for the sweep to kill their users.

use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Longer than any deadline of the sweep's.
const LONG_SECONDS: libc::time_t = 10;

/// The library's version.
pub(crate) fn version() -> String {
    // SAFETY: a plain call.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: a string that lives as long as the program.
    unsafe { core::ffi::CStr::from_ptr(version) }.to_string_lossy().into_owned()
}

/// One of each, in shared memory. All zero until [`init`](Self::init).
#[repr(C)]
pub(crate) struct Posix {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    rwlock: UnsafeCell<libc::pthread_rwlock_t>,
    condition: UnsafeCell<libc::pthread_cond_t>,
    semaphore: UnsafeCell<libc::sem_t>,
    barrier: UnsafeCell<libc::pthread_barrier_t>,
    number: AtomicU32,
}

/// Calls `$call($object, ...)` on an object of a [`Posix`]; the value is what it returns.
macro_rules! call {
    ($call:ident($object:expr $(, $more:expr)*)) => {
        // SAFETY: an object in memory that outlives the call, which only these functions touch; the attributes and times
        // beside it live as long.
        unsafe { libc::$call($object $(, $more)*) }
    };
}

/// Calls it, and panics unless it returns 0.
macro_rules! checked {
    ($call:ident $arguments:tt) => {
        assert_eq!(call!($call $arguments), 0, stringify!($call))
    };
}

impl Posix {
    /// Makes all of them anew: a robust mutex, a semaphore of one permit, a barrier of two parties, the number 0.
    pub(crate) fn init(&self) {
        let shared = libc::PTHREAD_PROCESS_SHARED;
        let mut attributes = MaybeUninit::uninit();
        checked!(pthread_mutexattr_init(attributes.as_mut_ptr()));
        checked!(pthread_mutexattr_setpshared(attributes.as_mut_ptr(), shared));
        checked!(pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST));
        checked!(pthread_mutex_init(self.mutex.get(), attributes.as_ptr()));
        let mut attributes = MaybeUninit::uninit();
        checked!(pthread_rwlockattr_init(attributes.as_mut_ptr()));
        checked!(pthread_rwlockattr_setpshared(attributes.as_mut_ptr(), shared));
        checked!(pthread_rwlock_init(self.rwlock.get(), attributes.as_ptr()));
        let mut attributes = MaybeUninit::uninit();
        checked!(pthread_condattr_init(attributes.as_mut_ptr()));
        checked!(pthread_condattr_setpshared(attributes.as_mut_ptr(), shared));
        checked!(pthread_condattr_setclock(attributes.as_mut_ptr(), libc::CLOCK_MONOTONIC));
        checked!(pthread_cond_init(self.condition.get(), attributes.as_ptr()));
        checked!(sem_init(self.semaphore.get(), 1, 1));
        let mut attributes = MaybeUninit::uninit();
        checked!(pthread_barrierattr_init(attributes.as_mut_ptr()));
        checked!(pthread_barrierattr_setpshared(attributes.as_mut_ptr(), shared));
        checked!(pthread_barrier_init(self.barrier.get(), attributes.as_ptr(), 2));
        self.number.store(0, SeqCst);
    }

    /// Takes the mutex, also after a dead owner.
    pub(crate) fn lock(&self) {
        self.own(call!(pthread_mutex_lock(self.mutex.get())));
    }

    /// A mutex that was taken with this result is held and whole.
    fn own(&self, result: c_int) {
        if result == libc::EOWNERDEAD {
            checked!(pthread_mutex_consistent(self.mutex.get()));
        } else {
            assert_eq!(result, 0, "the mutex cannot be taken");
        }
    }

    /// Gives the mutex up.
    pub(crate) fn unlock(&self) {
        checked!(pthread_mutex_unlock(self.mutex.get()));
    }

    /// Begins to read.
    pub(crate) fn read(&self) {
        checked!(pthread_rwlock_rdlock(self.rwlock.get()));
    }

    /// Begins to write.
    pub(crate) fn write(&self) {
        checked!(pthread_rwlock_wrlock(self.rwlock.get()));
    }

    /// Reads or writes no more.
    pub(crate) fn leave(&self) {
        checked!(pthread_rwlock_unlock(self.rwlock.get()));
    }

    /// Waits until the number is at least `number`; with a timeout that is never over, if it is `timed`.
    pub(crate) fn wait_for(&self, number: u32, timed: bool) {
        self.lock();
        while self.number.load(SeqCst) < number {
            let (condition, mutex) = (self.condition.get(), self.mutex.get());
            self.own(if timed {
                let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                checked!(clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until));
                until.tv_sec += LONG_SECONDS;
                call!(pthread_cond_timedwait(condition, mutex, &raw const until))
            } else {
                call!(pthread_cond_wait(condition, mutex))
            });
        }
        self.unlock();
    }

    /// Sets the number, and wakes everybody who waits for it.
    pub(crate) fn set(&self, number: u32) {
        self.lock();
        self.number.store(number, SeqCst);
        checked!(pthread_cond_broadcast(self.condition.get()));
        self.unlock();
    }

    /// Takes a permit.
    pub(crate) fn acquire(&self) {
        checked!(sem_wait(self.semaphore.get()));
    }

    /// Gives one back.
    pub(crate) fn release(&self) {
        checked!(sem_post(self.semaphore.get()));
    }

    /// How many permits there are.
    pub(crate) fn permits(&self) -> i32 {
        let mut value = 0;
        checked!(sem_getvalue(self.semaphore.get(), &raw mut value));
        value
    }

    /// Comes to the barrier, and waits for the other.
    pub(crate) fn meet(&self) {
        let result = call!(pthread_barrier_wait(self.barrier.get()));
        assert!(matches!(result, 0 | libc::PTHREAD_BARRIER_SERIAL_THREAD), "pthread_barrier_wait: {result}");
    }
}

//! What glibc has for locks in shared memory: the mutex is robust, the others cannot be.

use std::mem::MaybeUninit;

use crate::shared::Memory;

const SHARED: libc::c_int = libc::PTHREAD_PROCESS_SHARED;

/// An object of glibc in memory that both sides map; it stays there, and is used through these calls only.
struct Home(Memory);

impl Home {
    fn new() -> Self {
        Self(Memory::new(4096))
    }

    fn at<T>(&self) -> *mut T {
        self.0.start().as_ptr().cast()
    }
}

fn done(results: &[libc::c_int]) {
    assert!(results.iter().all(|result| *result == 0), "pthread: {results:?}");
}

pub struct Mutex(Home);

impl Mutex {
    pub fn new() -> Self {
        Self::of_kind(libc::PTHREAD_MUTEX_DEFAULT)
    }

    /// One that its thread may take again.
    pub fn recursive() -> Self {
        Self::of_kind(libc::PTHREAD_MUTEX_RECURSIVE)
    }

    fn of_kind(kind: libc::c_int) -> Self {
        let home = Home::new();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        done(&[
            // SAFETY: memory of its own, initialised by this first call.
            unsafe { libc::pthread_mutexattr_init(attributes) },
            // SAFETY: initialised.
            unsafe { libc::pthread_mutexattr_settype(attributes, kind) },
            // SAFETY: initialised.
            unsafe { libc::pthread_mutexattr_setpshared(attributes, SHARED) },
            // SAFETY: initialised.
            unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) },
            // SAFETY: room for a mutex that nobody uses yet.
            unsafe { libc::pthread_mutex_init(home.at(), attributes) },
        ]);
        Self(home)
    }

    #[inline(always)]
    pub fn lock(&self) {
        // SAFETY: initialised in `of_kind`, and it does not move.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.0.at()) }, 0);
    }

    /// Called by the holder.
    #[inline(always)]
    pub fn unlock(&self) {
        // SAFETY: initialised, and it does not move; glibc itself tells who does not hold a robust mutex.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.0.at()) }, 0);
    }
}

pub struct RwLock(Home);

impl RwLock {
    pub fn new() -> Self {
        let home = Home::new();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        done(&[
            // SAFETY: memory of its own, initialised by this first call.
            unsafe { libc::pthread_rwlockattr_init(attributes) },
            // SAFETY: initialised.
            unsafe { libc::pthread_rwlockattr_setpshared(attributes, SHARED) },
            // SAFETY: room for a lock that nobody uses yet.
            unsafe { libc::pthread_rwlock_init(home.at(), attributes) },
        ]);
        Self(home)
    }

    /// Takes and gives up the lock for reading.
    #[inline(always)]
    pub fn read(&self) {
        // SAFETY: initialised in `new`, and it does not move.
        assert_eq!(unsafe { libc::pthread_rwlock_rdlock(self.0.at()) }, 0);
        // SAFETY: held by this thread.
        unsafe { libc::pthread_rwlock_unlock(self.0.at()) };
    }

    /// As [`read`](Self::read), for writing.
    #[inline(always)]
    pub fn write(&self) {
        // SAFETY: initialised in `new`, and it does not move.
        assert_eq!(unsafe { libc::pthread_rwlock_wrlock(self.0.at()) }, 0);
        // SAFETY: held by this thread.
        unsafe { libc::pthread_rwlock_unlock(self.0.at()) };
    }
}

pub struct Semaphore(Home);

impl Semaphore {
    pub fn new(count: u32) -> Self {
        let home = Home::new();
        // SAFETY: room for a semaphore that nobody uses yet.
        done(&[unsafe { libc::sem_init(home.at(), SHARED, count) }]);
        Self(home)
    }

    #[inline(always)]
    pub fn acquire_and_release(&self) {
        // SAFETY: initialised in `new`, and it does not move.
        assert_eq!(unsafe { libc::sem_wait(self.0.at()) }, 0);
        // SAFETY: as above.
        unsafe { libc::sem_post(self.0.at()) };
    }
}

pub struct Condvar(Home);

impl Condvar {
    pub fn new() -> Self {
        let home = Home::new();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        done(&[
            // SAFETY: memory of its own, initialised by this first call.
            unsafe { libc::pthread_condattr_init(attributes) },
            // SAFETY: initialised.
            unsafe { libc::pthread_condattr_setpshared(attributes, SHARED) },
            // SAFETY: room for a condition that nobody uses yet.
            unsafe { libc::pthread_cond_init(home.at(), attributes) },
        ]);
        Self(home)
    }

    pub fn notify_one(&self) {
        // SAFETY: initialised in `new`, and it does not move.
        unsafe { libc::pthread_cond_signal(self.0.at()) };
    }

    /// Called by the holder of `mutex`.
    pub fn wait(&self, mutex: &Mutex) {
        // SAFETY: both are initialised and do not move; the caller holds the mutex, or glibc says that it does not.
        assert_eq!(unsafe { libc::pthread_cond_wait(self.0.at(), mutex.0.at()) }, 0);
    }
}

//! The one process-wide mutex of this crate, which `fork()` also takes.
//!
//! Between opening the description that carries a lease and closing its fd, a `fork()` in another thread would copy
//! that fd into the child, and the lease would live as long as the child: a death would stay hidden. So that window is
//! entered only through the gate, and `fork()` waits at it (`pthread_atfork`). What a child must find whole (the
//! registry of domains, the list of free slots) is reached only through the gate too.
//!
//! Not covered: children of raw `clone`/`vfork` system calls, which run no atfork handlers. Such a child that never
//! executes another program may hide its parent's death for as long as it lives (late, never false), and must not use
//! this crate. Nor is a `fork()` that was running other libraries' handlers when the process entered the gate for the first
//! time: its child may find the gate locked. A `fork()` from a signal handler that interrupted the gate's holder waits for ever.
#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

unsafe extern "C" {
    /// In no header of the `libc` crate for Linux; every Linux libc has it.
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> libc::c_int;
}

struct Gate(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is made to be used by several threads.
unsafe impl Sync for Gate {}

static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// Whether `fork()` waits at the gate. No `Once`: a fork during its first call would leave the child's copy "running" for
/// ever. Threads that race here register twice, which [`before_fork`] allows for.
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// How many of this thread's calls of [`before_fork`] have had no [`after_fork`] yet.
    static FORKING: Cell<u32> = const { Cell::new(0) };
}

extern "C" fn lock() {
    // SAFETY: the mutex is static and was initialised statically. A normal mutex's lock cannot fail.
    unsafe { libc::pthread_mutex_lock(GATE.0.get()) };
}

extern "C" fn unlock() {
    // SAFETY: as in `lock`; this thread holds it (in a fork child: the copy of the thread that does).
    unsafe { libc::pthread_mutex_unlock(GATE.0.get()) };
}

extern "C" fn before_fork() {
    let depth = FORKING.get();
    FORKING.set(depth + 1);
    if depth == 0 {
        lock();
    }
}

/// In the parent and in the child.
extern "C" fn after_fork() {
    let depth = FORKING.get() - 1;
    FORKING.set(depth);
    if depth == 0 {
        unlock();
    }
}

/// Proof that this thread is inside the gate.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entered(PhantomData<*const ()>);

/// Waits for the gate. Not re-entrant: whoever is inside must not drop a domain handle.
pub(crate) fn enter() -> Entered {
    // ORDERING: Relaxed. Only saves further registrations; libc's list of handlers has a lock of its own.
    if !IS_REGISTERED.load(Ordering::Relaxed) {
        register_slow();
    }
    lock();
    Entered(PhantomData)
}

#[cold]
fn register_slow() {
    // Before the lock, so that no fork that begins from here on can copy the gate while it is held.
    // SAFETY: the handlers are functions that live as long as the program.
    let result = unsafe { pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    // Its only failure is lack of memory; then forks are not held off, which makes a death late, never false.
    if result == 0 {
        // ORDERING: Relaxed, as in `enter`.
        IS_REGISTERED.store(true, Ordering::Relaxed);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        unlock();
    }
}

/// A value that is reached only from inside the gate.
#[derive(Debug)]
pub(crate) struct Gated<T>(UnsafeCell<T>);

// SAFETY: `get` needs `&mut Entered`, of which there is one at a time in the process.
unsafe impl<T: Send> Sync for Gated<T> {}

impl<T> Gated<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value, for as long as nobody asks for another.
    pub(crate) fn get<'g>(&'g self, _gate: &'g mut Entered) -> &'g mut T {
        // SAFETY:
        // - the thread that holds the one `Entered` is alone inside the gate;
        // - the returned borrow holds that `Entered` mutably, so no second borrow is live.
        unsafe { &mut *self.0.get() }
    }
}

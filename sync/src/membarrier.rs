//! A full memory barrier on every CPU that runs a registered process, so that wakers need none of their own.
//!
//! See [`WakeMode::Asymmetric`](crosslane_core::WakeMode): the process that *wakes* registers once; the one that is
//! about to *sleep* calls [`heavy`]. Both processes may do both.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicU8;
use crosslane_core::prim::Ordering;

/// `MEMBARRIER_CMD_GLOBAL_EXPEDITED` of linux/membarrier.h.
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
/// `MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED`.
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

const UNASKED: u8 = 0;
const REGISTERED: u8 = 1;
const REFUSED: u8 = 2;

/// What this address space knows. A `fork()` child inherits both this byte and the registration; `exec` clears both.
static STATE: AtomicU8 = AtomicU8::new(UNASKED);

/// Registers this process, so that it takes part in every [`heavy`] barrier; `false` if the kernel cannot.
///
/// Once per address space; later calls return what the first one found. Costs 50 us while the process has one thread
/// and 5-13 ms with more, so call it before threads start. Does not fail half-way: threads that call it at the same
/// time, and a `fork()` meanwhile, at most make the system call twice.
pub fn register() -> bool {
    // ORDERING: Relaxed, here and in `is_registered`. The byte says only that the system call has returned, and that
    // call is a full barrier after which every CPU knows of the registration.
    match STATE.load(Ordering::Relaxed) {
        UNASKED => register_slow(),
        state => state == REGISTERED,
    }
}

#[cold]
fn register_slow() -> bool {
    let registered = membarrier(REGISTER_GLOBAL_EXPEDITED);
    let state = if registered { REGISTERED } else { REFUSED };
    // ORDERING: Relaxed. As in `register`. Of two racing calls the kernel treats both alike; should it not, the first
    // answer stays, so that a `true` never turns into `false`.
    let _ = STATE.compare_exchange(UNASKED, state, Ordering::Relaxed, Ordering::Relaxed);
    STATE.load(Ordering::Relaxed) == REGISTERED
}

/// Whether this process is registered. Never turns from `true` to `false`. One load.
#[inline]
#[must_use]
pub fn is_registered() -> bool {
    STATE.load(Ordering::Relaxed) == REGISTERED
}

/// A full barrier on this CPU and on each that runs a thread of a registered process; `false` if the kernel cannot.
///
/// Succeeds even when nobody is registered. Costs 0.2 us when no registered process runs and 2.3 us when one does,
/// whose CPU it interrupts.
#[must_use]
pub fn heavy() -> bool {
    membarrier(GLOBAL_EXPEDITED)
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes three numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0 as libc::c_uint, 0 as libc::c_int) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MEMBARRIER_CMD_GET_REGISTRATIONS`, since Linux 6.3.
    const GET_REGISTRATIONS: libc::c_int = 1 << 9;

    fn kernel_says_registered() -> Option<bool> {
        // SAFETY: as in `membarrier`.
        let commands = unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0 as libc::c_uint, 0) };
        (commands >= 0).then_some(commands & libc::c_long::from(REGISTER_GLOBAL_EXPEDITED) != 0)
    }

    #[test]
    fn registration_is_what_the_kernel_says_also_in_a_fork_child() {
        assert_eq!(register(), is_registered());
        assert_eq!(register(), heavy());
        let Some(kernel) = kernel_says_registered() else {
            println!("skipped: the kernel does not list registrations (before Linux 6.3)");
            return;
        };
        assert_eq!(kernel, is_registered());
        // SAFETY: the child only makes system calls and loads, and ends without running anything of the parent's.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            let same = kernel_says_registered() == Some(is_registered());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!same)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made; `status` is ours.
        let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((reaped, status), (child, 0));
    }
}

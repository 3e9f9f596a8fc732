//! Sleeping on a shared word and waking who sleeps there: the only place that makes futex system calls.
//!
//! Futexes are shared ones: the kernel finds a word by the page that it lies in, so every process that maps the page
//! meets there, at whatever address. Times are absolute on the monotonic clock, so a wait that a signal interrupts
//! goes on to the same moment.
#![allow(unsafe_code)]

use core::time::Duration;

use crosslane_core::prim::{AtomicU32, Ordering};
use std::io;

use crate::deadline::Deadline;

/// `FUTEX2_SIZE_U32` of linux/futex.h: a 32-bit word; without `FUTEX2_PRIVATE` a shared one.
const SIZE_U32: u32 = 2;

/// How long a wait sleeps instead when the kernel refuses the call (a sandbox may), so that callers do not spin.
const REFUSED_SLEEP: Duration = Duration::from_millis(1);

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Somebody called [`wake`], or the kernel woke this thread for no reason.
    Woken,
    /// The word did not hold the expected value (any more); nothing was slept.
    Changed,
    /// The deadline has passed.
    TimedOut,
}

/// `struct futex_waitv` of linux/futex.h.
#[repr(C)]
struct WaitEntry {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<WaitEntry>() == 24);

/// `struct __kernel_timespec`: 64 bits each on every machine.
#[repr(C)]
struct KernelTime {
    seconds: i64,
    nanos: i64,
}

/// Sleeps while `word` holds `expected`, until woken or until the deadline.
///
/// Signals do not end the wait, nor move its end. The comparison and falling asleep are one step with respect to
/// [`wake`].
#[must_use]
pub fn wait(word: &AtomicU32, expected: u32, until: Deadline) -> Woken {
    let time = until.parts().map(|(seconds, nanos)| libc::timespec {
        tv_sec: seconds.try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(nanos),
    });
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    until_uninterrupted(|| {
        // SAFETY:
        // - the address is that of a live 32-bit atomic, which the kernel only reads;
        // - `time` is null or points to a timespec that outlives the call; this operation takes it as an absolute time
        //   of the monotonic clock;
        // - the fourth pointer is not used by this operation.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                core::ptr::from_ref(word),
                libc::FUTEX_WAIT_BITSET,
                expected,
                time,
                core::ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        }
    })
    .unwrap_or_else(refused)
}

/// As [`wait`], on two words at once: ends when either is woken or does not hold its expected value.
///
/// # Errors
/// [`Unsupported`] before Linux 5.16, and in sandboxes that refuse the call.
pub fn wait_either(words: [(&AtomicU32, u32); 2], until: Deadline) -> Result<Woken, Unsupported> {
    let entries = words.map(|(word, expected)| WaitEntry {
        value: u64::from(expected),
        address: core::ptr::from_ref(word).addr() as u64,
        flags: SIZE_U32,
        reserved: 0,
    });
    let time = until.parts().map(|(seconds, nanos)| KernelTime {
        seconds: seconds.try_into().unwrap_or(i64::MAX),
        nanos: i64::from(nanos),
    });
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    until_uninterrupted(|| {
        // SAFETY:
        // - two entries, alive during the call, as the count says, each with the address of a live 32-bit atomic that
        //   the kernel only reads;
        // - `time` is null or points to a kernel timespec that outlives the call.
        unsafe {
            libc::syscall(
                libc::SYS_futex_waitv,
                entries.as_ptr(),
                2 as libc::c_uint,
                0 as libc::c_uint,
                time,
                libc::CLOCK_MONOTONIC,
            )
        }
    })
    .or_else(|errno| match errno {
        libc::ENOSYS | libc::EPERM => Err(Unsupported),
        errno => Ok(refused(errno)),
    })
}

/// The kernel has no call to wait on two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported;

impl core::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the kernel has no futex_waitv, or refuses it")
    }
}

impl core::error::Error for Unsupported {}

/// Wakes at most `count` threads, of any process, that sleep on `word`; returns how many. Does not block.
///
/// Costs 0.2 us when nobody sleeps there and 1.4-2.3 us for a sleeper.
pub fn wake(word: &AtomicU32, count: u32) -> u32 {
    // The kernel takes the count as a signed number.
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: the address is that of a live 32-bit atomic; this operation does not even read it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, core::ptr::from_ref(word), libc::FUTEX_WAKE, count) };
    u32::try_from(woken).unwrap_or(0)
}

/// Adds 1 to `word` and wakes everybody who sleeps on it: for words that only say that something has happened.
pub fn bump(word: &AtomicU32) {
    // ORDERING: Relaxed. What has happened is published by its own words before; the system call is a full barrier.
    word.fetch_add(1, Ordering::Relaxed);
    wake(word, u32::MAX);
}

/// Makes `call` until no signal interrupts it. An unexpected errno comes back as the error.
fn until_uninterrupted(call: impl Fn() -> libc::c_long) -> Result<Woken, i32> {
    loop {
        if call() >= 0 {
            return Ok(Woken::Woken);
        }
        match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
            libc::EINTR => {}
            libc::EAGAIN => return Ok(Woken::Changed),
            libc::ETIMEDOUT => return Ok(Woken::TimedOut),
            errno => return Err(errno),
        }
    }
}

/// What a wait does when the kernel refuses it: a short sleep, then the caller looks again.
fn refused(_errno: i32) -> Woken {
    std::thread::sleep(REFUSED_SLEEP);
    Woken::Woken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(20))
    }

    #[test]
    fn a_changed_word_does_not_sleep() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        assert_eq!(wait(&a, 0, Deadline::never()), Woken::Changed);
        for words in [[(&a, 0), (&b, 2)], [(&a, 1), (&b, 0)]] {
            assert!(matches!(wait_either(words, Deadline::never()), Ok(Woken::Changed) | Err(Unsupported)));
        }
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        let until = soon();
        assert_eq!(wait(&a, 1, until), Woken::TimedOut);
        assert!(until.has_passed());
        let until = soon();
        if let Ok(woken) = wait_either([(&a, 1), (&b, 2)], until) {
            assert_eq!(woken, Woken::TimedOut);
            assert!(until.has_passed());
        }
    }

    #[test]
    fn a_passed_deadline_does_not_block() {
        assert_eq!(wait(&AtomicU32::new(1), 1, Deadline::now()), Woken::TimedOut);
    }

    #[test]
    fn either_word_wakes() {
        let words = [AtomicU32::new(1), AtomicU32::new(2)];
        for i in 0..2 {
            std::thread::scope(|scope| {
                let sleeper = scope
                    .spawn(|| wait_either([(&words[0], 1), (&words[1], 2)], Deadline::after(Duration::from_secs(20))));
                while !sleeper.is_finished() && wake(&words[i], 1) == 0 {
                    std::thread::yield_now();
                }
                assert!(matches!(sleeper.join().expect("no panic"), Ok(Woken::Woken) | Err(Unsupported)));
            });
        }
    }

    #[test]
    fn nobody_asleep_is_nobody_woken() {
        assert_eq!(wake(&AtomicU32::new(0), u32::MAX), 0);
    }
}

//! Turns a hang into a failure, and keeps this process and its children cheap to lose.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::io;

/// Bytes of address space for this process and each child: a runaway allocation fails before the machine notices.
const ADDRESS_SPACE_BYTES: u64 = 256 << 20;

static DOING: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static DOING_LEN: AtomicUsize = AtomicUsize::new(0);

/// Makes this process and all that it forks the first victims of the kernel's OOM killer, with little address space
/// and no core dumps (a dump holds a lease). Call once, before anything else.
///
/// # Panics
/// If a limit cannot be set.
pub fn restrain() {
    std::fs::write("/proc/self/oom_score_adj", "1000").expect("oom_score_adj can always be raised");
    for (what, limit) in [(libc::RLIMIT_AS, ADDRESS_SPACE_BYTES), (libc::RLIMIT_CORE, 0)] {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: a plain call that reads one struct.
        assert_eq!(unsafe { libc::setrlimit(what, &limit) }, 0, "setrlimit: {}", io::Error::last_os_error());
    }
    let handler: extern "C" fn(libc::c_int) = on_alarm;
    // SAFETY: the handler calls only async-signal-safe functions.
    let before = unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR, "signal: {}", io::Error::last_os_error());
}

/// Lets waits go to sleep at once, here and in children: with one CPU to run on, which the budget is measured and kept
/// with, nobody spins. A spin is some thousand instructions that show nothing new.
///
/// # Panics
/// If the CPU set cannot be read or set.
pub fn do_not_spin() {
    // SAFETY: all zero is an empty set.
    let (mut all, mut one): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { core::mem::zeroed() };
    let len = size_of::<libc::cpu_set_t>();
    // SAFETY: writes a set of `len` bytes.
    assert_eq!(unsafe { libc::sched_getaffinity(0, len, &mut all) }, 0, "{}", io::Error::last_os_error());
    let mine = (0..8 * len).find(|cpu| {
        // SAFETY: reads a bit below the set's size.
        unsafe { libc::CPU_ISSET(*cpu, &all) }
    });
    // SAFETY: writes a bit below the set's size.
    unsafe { libc::CPU_SET(mine.expect("a CPU to run on"), &mut one) };
    // SAFETY: reads a set of `len` bytes.
    assert_eq!(unsafe { libc::sched_setaffinity(0, len, &one) }, 0, "{}", io::Error::last_os_error());
    assert_eq!(crosslane_sync::spin::budget(), 0, "nobody spins on one CPU");
    // SAFETY: reads a set of `len` bytes.
    assert_eq!(unsafe { libc::sched_setaffinity(0, len, &all) }, 0, "{}", io::Error::last_os_error());
}

/// Fails the process, naming `doing`, unless this is called again within `seconds`; 0 ends the watch.
pub fn watch(doing: &'static str, seconds: u32) {
    DOING.store(doing.as_ptr().cast_mut(), Ordering::Relaxed);
    DOING_LEN.store(doing.len(), Ordering::Relaxed);
    // SAFETY: a plain call. Children do not inherit the alarm; they die with this process.
    unsafe { libc::alarm(seconds) };
}

extern "C" fn on_alarm(_: libc::c_int) {
    for (bytes, len) in [
        (c"watchdog: hangs: ".as_ptr().cast(), 17),
        (DOING.load(Ordering::Relaxed).cast_const(), DOING_LEN.load(Ordering::Relaxed)),
        (c"\n".as_ptr().cast(), 1),
    ] {
        // SAFETY: `len` bytes of static text; write is async-signal-safe.
        unsafe { libc::write(2, bytes.cast(), len) };
    }
    // SAFETY: async-signal-safe, and ends the process; children get SIGKILL as their parent's death signal.
    unsafe { libc::_exit(3) };
}

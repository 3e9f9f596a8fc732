//! What the tests of processes share.

use std::fs;
use std::time::{Duration, Instant};

/// No test takes so long unless something hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a condition, under a watchdog.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a shell starts in the background is deaf to interrupts, and hands that on. This process and its children are not, from
/// now on.
pub(crate) fn hear_interrupts() {
    // SAFETY: sets what a signal does; there is no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// The state letter of a process, as in `ps`; `None`: there is no such process.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

/// Whether a process is there and has not ended.
pub(crate) fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// A function that never returns.
pub(crate) fn forever(_: ()) {
    loop {
        std::thread::park();
    }
}

/// The number of descriptors that this process has open.
pub(crate) fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

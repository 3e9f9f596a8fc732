//! Ctrl-C in a worker: the parent decides.
#![allow(unsafe_code)]

/// Makes this process ignore SIGINT, which a terminal sends to every process of the foreground group.
pub(super) fn ignore() {
    // SAFETY: no handler is installed, so no code of ours runs in a signal's context.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

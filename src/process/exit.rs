//! The end of a process: exit hooks, and what an exit status says.
#![allow(unsafe_code)]

use std::fmt;
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitStatus;
use std::sync::{Mutex, Once, PoisonError};

/// The exit code of a child whose function panicked, as of a Rust program or a Python process with an uncaught exception,
/// and of one that could not run it.
pub(crate) const FAILURE: i32 = 1;

struct Hook {
    /// Who has registered it: a raw `fork()` of that process runs none of its hooks.
    pid: u32,
    run: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("pid", &self.pid).finish_non_exhaustive()
    }
}

static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());

/// Runs `hook` when this process exits: when the function that it was started for returns or panics, when its `main`
/// returns, or by [`std::process::exit`]. The hooks run in the thread that exits, the last one first, and each even if
/// another one panics.
///
/// A process that is killed by a signal, aborts, or ends because its parent has died runs none.
///
/// # Examples
/// ```
/// use crosslane::{at_exit, spawn};
///
/// let child = spawn(|name: String| at_exit(move || println!("{name} is done")), "tidy".to_owned())?;
/// child.join()?;
/// # Ok::<(), crosslane::Error>(())
/// ```
pub fn at_exit(hook: impl FnOnce() + Send + 'static) {
    static REGISTER: Once = Once::new();
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push(Hook { pid: std::process::id(), run: Box::new(hook) });
    REGISTER.call_once(|| {
        // If there is no memory to register it, hooks still run where a child's function returns.
        // SAFETY: the function never goes away, and does not unwind.
        let _ = unsafe { libc::atexit(run_hooks) };
    });
}

/// Runs the hooks of this process that have not run.
extern "C" fn run_hooks() {
    loop {
        let last = HOOKS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(hook) = last else { return };
        if hook.pid == std::process::id() {
            // The panic hook has reported it. A payload's drop may panic again, and nothing unwinds from here.
            let _ = panic::catch_unwind(AssertUnwindSafe(hook.run)).map_err(mem::forget);
        }
    }
}

/// Ends a child: exit hooks, what the standard output still holds, the C library's hooks.
pub(crate) fn finish(code: i32) -> ! {
    run_hooks();
    std::process::exit(code)
}

/// Ends this process from a thread that must not wait for any other: no hooks.
pub(crate) fn at_once() -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(FAILURE) }
}

/// The exit code as Python gives it: `-n` for signal n.
pub(crate) fn code(status: ExitStatus) -> i32 {
    // One of the two is there, as a status is only made of a process that has ended.
    status.code().or(status.signal().map(|signal| -signal)).unwrap_or(FAILURE)
}

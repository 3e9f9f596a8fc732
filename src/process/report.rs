//! Panics in a child: message, place, thread and backtrace, for the parent.
//!
//! The panic hook knows all of it, and the one who catches the panic knows that it ended the function. So the hook notes
//! what it sees of the serving thread's panics; the backtrace is made into text only for a panic that is sent. Where
//! panics abort, nobody comes after the hook, and it sends the report itself, whichever thread it is.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::thread;

use crate::error::PanicReport;

/// The thread's name in reports: the child's own, which std names only when it runs `main`.
const SERVING: &str = "main";

struct Noted {
    message: String,
    location: String,
    backtrace: Backtrace,
}

thread_local! {
    static IS_SERVING: Cell<bool> = const { Cell::new(false) };
    static LAST: Cell<Option<Noted>> = const { Cell::new(None) };
}

/// Installs the hook before the one that is there, and takes this thread for the one that runs the function. `send` is
/// for panics that nobody will catch.
pub(crate) fn install(send: fn(&PanicReport)) {
    IS_SERVING.set(true);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if cfg!(panic = "abort") {
            send(&report(note(info)));
        } else if IS_SERVING.get() {
            LAST.set(Some(note(info)));
        }
        before(info);
    }));
}

fn note(info: &PanicHookInfo<'_>) -> Noted {
    Noted {
        message: message(info.payload()),
        location: info.location().map_or_else(String::new, ToString::to_string),
        backtrace: Backtrace::force_capture(),
    }
}

fn message(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a payload that is no text").to_owned()
}

fn report(noted: Noted) -> PanicReport {
    let thread = thread::current();
    let nameless = if IS_SERVING.get() { SERVING } else { "<unnamed>" };
    PanicReport {
        message: noted.message,
        location: noted.location,
        thread: thread.name().unwrap_or(nameless).to_owned(),
        backtrace: noted.backtrace.to_string(),
        pid: std::process::id(),
    }
}

/// As [`caught`], where the process goes on: the payload is dropped.
pub(crate) fn caught_and_dropped(payload: Box<dyn Any + Send>) -> PanicReport {
    let report = caught(&*payload);
    // Its drop may panic again. What that panics with is left where it is.
    std::mem::forget(panic::catch_unwind(AssertUnwindSafe(|| drop(payload))));
    report
}

/// The report of a panic that was caught on the serving thread. Some of it is missing if the function has replaced the
/// panic hook, or has resumed a panic of another thread, which runs no hook.
pub(crate) fn caught(payload: &(dyn Any + Send)) -> PanicReport {
    let seen = message(payload);
    let noted = LAST.take().filter(|noted| noted.message == seen);
    report(noted.unwrap_or_else(|| Noted { message: seen, location: String::new(), backtrace: Backtrace::disabled() }))
}

//! What several tests need.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crosslane::{Error, Portable, Process, spawn};

/// Longer than anything here takes, and the time after which whoever waits for another process gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Ends the whole program if a test hangs.
fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        thread::spawn(|| {
            thread::sleep(LIMIT * 3);
            // On the real standard error, which the test harness does not swallow.
            let _ = writeln!(std::io::stderr(), "a test hangs");
            std::process::abort();
        });
    });
}

/// Starts `function` in another process.
pub(crate) fn start<A: Portable, R: Portable>(function: fn(A) -> R, arguments: A) -> Process<R> {
    watch();
    spawn(function, arguments).unwrap()
}

/// Runs `function` in another process.
pub(crate) fn run<A: Portable, R: Portable>(function: fn(A) -> R, arguments: A) -> R {
    done(start(function, arguments))
}

/// What it returns.
pub(crate) fn done<R: Portable>(mut process: Process<R>) -> R {
    process.join_timeout(LIMIT).unwrap().expect("it ends")
}

/// Waits for its end by SIGKILL.
pub(crate) fn killed<R: Portable>(mut process: Process<R>) {
    match process.join_timeout(LIMIT) {
        Err(Error::Died { status, .. }) => assert_eq!(status.signal(), Some(9)),
        _ => panic!("it was to be killed"),
    }
}

/// Kills this process, in the middle of what it does.
pub(crate) fn die() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    unreachable!("SIGKILL cannot be survived")
}

/// Waits for something that is seen by looking only.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a panic said.
pub(crate) fn panic_of(action: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action)).expect_err("it panics");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

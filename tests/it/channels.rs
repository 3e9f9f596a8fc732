//! Queues, pipes, and waiting for several things at once.

mod descriptors;
mod halves;
mod interrupted;
mod joinable_queue;
mod killed;
mod pipe;
mod queue;
mod simple_queue;
mod wait;

use std::io::Write;
use std::time::{Duration, Instant};

/// A wait that is longer than this hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends the test process when a test has taken too long: dropped in time, it does nothing.
struct Watchdog(Option<std::sync::mpsc::Sender<()>>);

impl Watchdog {
    fn new() -> Self {
        let (alive, gone) = std::sync::mpsc::channel::<()>();
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            if gone.recv_timeout(2 * LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // On the real standard error, which the test harness does not swallow.
                let _ = writeln!(std::io::stderr(), "{name} hangs");
                std::process::abort();
            }
        });
        Self(Some(alive))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// The number of descriptors that this process has open.
fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits for a condition.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

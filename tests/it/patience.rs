//! Time limits of calls where a machine may stand still for seconds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longer than a worker is kept from the CPU while it runs a call that does nothing.
const SHORT: Duration = Duration::from_secs(1);
/// The same on a machine that stands still meanwhile.
const LONG: Duration = Duration::from_secs(20);
/// Who sleeps for 5 ms and wakes so late is on such a machine.
const STANDS_STILL: Duration = Duration::from_millis(100);

/// Runs `test` with a time limit for its calls that only those exceed which never end. If it fails and this process itself was
/// kept waiting, then perhaps another call was as well: once more, with a limit that none of those exceeds.
pub(crate) fn patiently(test: impl Fn(Duration)) {
    let is_over = AtomicBool::new(false);
    let (outcome, longest) = std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(Duration::from_millis(5));
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| test(SHORT)));
        is_over.store(true, Ordering::Relaxed);
        (outcome, sleeper.join().unwrap())
    });
    match outcome {
        Ok(()) => {}
        Err(why) if longest < STANDS_STILL => resume_unwind(why),
        Err(_) => test(LONG),
    }
}

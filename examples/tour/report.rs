//! What the stops of the tour check and measure.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Nothing, or why a stop is not as it should be.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A title, and what to run.
pub(crate) type Stop = (&'static str, fn(&mut Report) -> Outcome);

/// What was measured and what went wrong so far.
#[derive(Default)]
pub(crate) struct Report {
    measured: Vec<(String, String)>,
    stops: usize,
    failures: Vec<String>,
}

/// Fails unless `found` is `expected`.
pub(crate) fn expect<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, and should be {expected:?}").into()) }
}

impl Report {
    /// Runs one stop.
    pub(crate) fn run(&mut self, title: &str, stop: fn(&mut Self) -> Outcome) {
        self.stops += 1;
        println!("\n{:>2}. {title}", self.stops);
        let begun = Instant::now();
        if let Err(error) = stop(self) {
            println!("    WRONG: {error}");
            self.failures.push(format!("{title}: {error}"));
        }
        println!("    ({:.1} ms)", begun.elapsed().as_secs_f64() * 1e3);
    }

    /// Runs `work` and notes how long it takes.
    pub(crate) fn time<T>(&mut self, what: &str, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.note(what, format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1e3));
        result
    }

    /// Notes a figure.
    pub(crate) fn note(&mut self, what: &str, figure: String) {
        self.measured.push((what.to_owned(), figure));
    }

    /// Prints what was measured, and whether all was right.
    pub(crate) fn print(self) -> ExitCode {
        println!("\nMeasured");
        let width = self.measured.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, figure) in &self.measured {
            println!("    {what:width$}  {figure}");
        }
        for failure in &self.failures {
            println!("    WRONG: {failure}");
        }
        println!("\n{} of {} stops are as they should be.", self.stops - self.failures.len(), self.stops);
        ExitCode::from(u8::from(!self.failures.is_empty()))
    }
}

/// `count` things in `time`, per second.
pub(crate) fn rate(count: u64, time: Duration) -> String {
    let per_second = count as f64 / time.as_secs_f64();
    if per_second >= 1e6 { format!("{:.1} M/s", per_second / 1e6) } else { format!("{:.1} k/s", per_second / 1e3) }
}

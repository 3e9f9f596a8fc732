//! The whole library at work: small programs, one after the other, each of which prints what it does and checks its own
//! result; then a table of what was measured.
//!
//! `cargo run --release --example tour -- [DIRECTORY]`; the last stop counts the words below DIRECTORY, or below this one.
//! Exits with 1 if a result is not what it must be.

mod failures;
#[expect(dead_code, reason = "a program of its own, of which the tour calls `run`")]
#[path = "../pipeline/main.rs"]
mod pipeline;
mod pools;
mod processes;
mod report;
mod sharing;
mod talking;

use std::ffi::OsString;
use std::process::ExitCode;

use report::{Outcome, Report, Stop, expect};

/// All of it, in order.
const STOPS: &[Stop] = &[
    ("numbers and letters, from two processes", processes::numbers_and_letters),
    ("squares, in five processes", processes::five_squares),
    ("squares and cubes at once", processes::squares_and_cubes),
    ("two seconds of work: one after the other, then at once, then five at once", processes::at_once),
    ("a global is not shared; a Value and an Array are", sharing::global_and_shared),
    ("pool.map of squares, with 3 and with 4 workers", pools::squares),
    ("slow tasks in a pool; close, then join", pools::close_and_join),
    ("a queue: producer, consumer and sentinel", talking::queue),
    ("a pipe: three messages, then the end", talking::pipe),
    ("an Array squared by index, from 7 processes", sharing::array_by_index),
    ("a Value incremented from many processes", sharing::increments),
    ("writing past an Array's end", failures::past_the_end),
    ("the bank, with and without a lock", sharing::bank),
    ("a panic in a worker", failures::panic),
    ("an executor: tasks of 3, 2 and 1 tenths of a second, as they complete", pools::as_they_complete),
    ("a worker killed with SIGKILL in the middle of a map", failures::killed_worker),
    ("the pipeline: four processes count words", words),
];

fn main() -> ExitCode {
    crosslane::init();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The pipeline's processes are this program, started with a role.
    if arguments.iter().any(|argument| argument == "--role") {
        return ExitCode::from(pipeline::run(arguments));
    }
    let mut report = Report::default();
    for &(title, stop) in STOPS {
        report.run(title, stop);
    }
    report.print()
}

/// The pipeline of `examples/pipeline`, which counts again in one process and compares.
fn words(report: &mut Report) -> Outcome {
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let name = format!("crosslane-tour-{}", std::process::id());
    let arguments = ["tour".into(), directory, "--check".into(), "--name".into(), name.into()];
    let code = report.time("pipeline, counted twice", || pipeline::run(arguments));
    expect("the pipeline's exit code", code, 0)
}

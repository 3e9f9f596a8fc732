//! Starting a process, calling a function in it and waiting for its end, beside the same program executed anew to do
//! nothing. Nobody is pinned: a process that starts on its parent's CPU waits for it.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use super::scaled;
use crate::python;
use crate::row::{Row, Unit};
use crate::sides::{unpin, watchdog};

const BARE: &str = "bare std::process, the same program";
const OURS: &str = "crosslane spawn, join";
/// By this argument the program ends at once.
const NOTHING: &str = "--nothing";

pub fn rows(scale: f64) -> Vec<Row> {
    let (times, few) = (scaled(40, scale), scaled(4, scale));
    vec![
        Row::new("start a process, call, join", Unit::Nanos, times)
            .contestant(BARE, move || free(times, bare))
            .contestant(OURS, move || free(times, ours))
            .goal(OURS, BARE, 1.15)
            .rival(OURS, "procspawn", times, move || free(times, procspawn))
            .python(OURS, "Python Process, by spawn", few, &[few], python::PROCESS),
    ]
}

/// To be called first in `main`: the ways by which the contestants' children leave it. crosslane's never reach it.
/// `Some`: this process is the bare one.
pub fn enter() -> Option<ExitCode> {
    if std::env::args().nth(1).is_some_and(|argument| argument == NOTHING) {
        return Some(ExitCode::SUCCESS);
    }
    procspawn::init();
    None
}

fn free(times: u64, once: fn()) -> f64 {
    watchdog();
    unpin();
    let start = Instant::now();
    (0..times).for_each(|_| once());
    start.elapsed().as_secs_f64()
}

fn bare() {
    let status = Command::new("/proc/self/exe").arg(NOTHING).stdin(Stdio::null()).status();
    assert!(status.expect("this program").success());
}

fn ours() {
    let child = crosslane::spawn(|n: u64| n + 1, 1).expect("a process");
    assert_eq!(child.join().expect("a result"), 2);
}

fn procspawn() {
    let child = procspawn::spawn(1_u64, |n| n + 1);
    assert_eq!(child.join().expect("a result"), 2);
}

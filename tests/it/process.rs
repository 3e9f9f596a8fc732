//! Processes: what comes back from them, how they end, and what they leave.

#[path = "process/support.rs"]
mod support;

#[path = "process/ends.rs"]
mod ends;
#[path = "process/leaks.rs"]
mod leaks;
#[path = "process/results.rs"]
mod results;

//! Processes: what comes back from them, how they end, and what they leave.

#[path = "process/support.rs"]
mod support;

#[path = "process/ends.rs"]
mod ends;
#[path = "process/family.rs"]
mod family;
#[path = "process/harness.rs"]
mod harness;
#[path = "process/leaks.rs"]
mod leaks;
#[path = "process/pains.rs"]
mod pains;
#[path = "process/results.rs"]
mod results;
#[path = "process/surroundings.rs"]
mod surroundings;

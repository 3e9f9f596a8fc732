//! Checks with real processes: what happens to everybody else when a process is killed at any instruction.
//!
//! Two engines, both driven by the processor's trap flag, so both are x86-64 Linux only (elsewhere they are absent and
//! the tests print that they were skipped):
//! - [`sweep`]: real processes. A forked victim single-steps through one operation on shared memory and is SIGKILLed
//!   (or paused) after k instructions, for every k; survivors must recover and finish before a deadline.
//! - [`pairs`]: crash pairs on memory images in one process. A dies at k, the recoverer B dies at j, and C must recover
//!   and finish, for all k and j.
//!
//! Every family of cases brings a *seeded bug*, a deliberately broken variant that the engine must find, and every case
//! has a floor on its points: a killer that does not kill turns the build red.
//!
//! A case is a [`sweep::Scene`] or a [`pairs::Drama`]; `crash/` holds those of this repository and is the place to look
//! for examples.
//!
//! # What a sweep shows, and what not
//! A kill drains the victim's store buffer: the memory that survivors find is what the victim's instructions wrote, in
//! order. Missing Acquire or Release is for the loom models of `crosslane-core`. The kernel returns from a system call
//! and runs one more instruction before it traps again; that instruction is a register compare in libc's wrappers.

#[cfg(target_os = "linux")]
pub mod child;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod control;
pub mod document;
#[cfg(target_os = "linux")]
pub mod futex;
#[cfg(target_os = "linux")]
pub mod mapping;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod pairs;
pub mod report;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod sweep;
#[cfg(target_os = "linux")]
pub mod told;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod trap;
#[cfg(target_os = "linux")]
pub mod watchdog;

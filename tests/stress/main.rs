//! Real processes on real segments for a while, with everything that can be counted counted exactly.
//!
//! `cargo test -p crosslane-tests --test stress` takes about six seconds; `-- --seconds 30` spreads that much over the
//! cases, `-- --case TEXT` runs only those whose name contains TEXT, `-- --seed N` repeats a run's choices. Processes and
//! kernel decide the rest: a seed makes a failure likelier to come again, not certain.
//!
//! - `flow`: a producer and a consumer that pause, sleep and are stopped: everything arrives once and in order, and no
//!   wake-up is lost;
//! - `locks`: four processes count behind a mutex and are killed and replaced: the sum is exact;
//! - `restart`: either end of a ring is killed and replaced under load: nothing is lost, and an item comes again only
//!   when a consumer died;
//! - `killer`: sixteen processes at one queue, one of which is killed every 20 ms and replaced: each item is processed, and
//!   again only when a consumer died.
//!
//! At the end no descriptor, no process and no name may be left.

#[cfg(target_os = "linux")]
mod choice;
#[cfg(target_os = "linux")]
mod flow;
#[cfg(target_os = "linux")]
mod killer;
#[cfg(target_os = "linux")]
mod locks;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod restart;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod watched;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: segments need Linux");
}

//! Counts the words of every text file below a directory in processes that meet by name: a reader, two counters, and a
//! collector that starts them, shows how far they are and prints the result.
//!
//! ```text
//!            record ring 0      +-----------+
//!          +------------------> | counter 0 | --+   mutex
//! +--------+                    +-----------+   +-----------+      +-----------+
//! | reader |                                    | the table | <--- | collector |
//! +--------+ record ring 1      +-----------+   +-----------+      +-----------+
//!          +------------------> | counter 1 | --+
//!                               +-----------+
//! ```
//!
//! `cargo run --release --example pipeline -- [PATH]` runs all of it. With `--by-hand` the collector starts nobody and
//! says what to type into other terminals. With `--kill-every N` counters are killed on the way, and the totals are the
//! same: see [`table`].

mod batch;
mod clock;
mod collector;
mod counter;
mod failure;
mod files;
mod reader;
mod sizes;
mod table;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use crosslane_shm::{Name, NameError};

use failure::Failure;

const EXIT_CODES: &str = "\
Exit codes:
  0    done; for --check: the totals agree
  1    --check: the totals differ
  2    bad arguments, or PATH is missing, unreadable or a binary file
  3    done, but some file below PATH could not be read
  4    a line is longer than a record of the ring
  5    the name is in use by a living pipeline
  6    no space or memory for the segments
  7    more different words than the table holds
  8    another process of the pipeline died or failed
  9    shared memory could not be opened, or is corrupt
  10   the result could not be written
  130  interrupted";

/// Counts the words of text files in processes that share memory.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXIT_CODES)]
struct Args {
    /// The file or directory to read. Below a directory, hidden entries and cache directories (CACHEDIR.TAG) are left
    /// out, and so are binary files (a NUL among the first 8 KiB) and symbolic links.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Count again in one process, and compare.
    #[arg(long)]
    check: bool,
    /// Read hidden entries and cache directories too.
    #[arg(long)]
    all: bool,
    /// How many counters, each with a ring of its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=sizes::MAX_COUNTERS as i64))]
    counters: u32,
    /// Bytes of each ring, a power of two; a line may have a few bytes less.
    #[arg(long, default_value_t = 1 << 20, value_parser = ring_bytes)]
    ring_bytes: u32,
    /// The name under which the processes meet.
    #[arg(long, default_value = "crosslane-pipeline")]
    name: String,
    /// Where the segments live.
    #[arg(long, default_value = "/dev/shm")]
    directory: PathBuf,
    /// Start nobody: wait for the other roles to come from other terminals.
    #[arg(long, conflicts_with = "kill_every")]
    by_hand: bool,
    /// Kill a counter with SIGKILL, and start another in its place, each time that N thousand more records are counted.
    #[arg(long, value_name = "N")]
    kill_every: Option<NonZero<u64>>,
    /// What this process does.
    #[arg(long, value_enum, default_value_t = Role::Collector)]
    role: Role,
    /// Which counter this is.
    #[arg(long, default_value_t = 0)]
    index: u32,
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<u32>().map_err(|error| error.to_string())?;
    match crosslane_core::record::Ring::layout(bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Collector,
    Reader,
    Counter,
}

impl Args {
    fn ring(&self, index: u32) -> Result<Name, NameError> {
        Name::new(&format!("{}-ring{index}", self.name))
    }

    fn table(&self) -> Result<Name, NameError> {
        Name::new(&format!("{}-table", self.name))
    }

    fn options(&self) -> crosslane_shm::Options {
        crosslane_shm::Options::new().directory(&self.directory)
    }
}

fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Runs the role that the arguments name, the first of which is the program; returns its exit code. A program that does
/// so must come here too when it is started with `--role`.
pub(crate) fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let args = Args::parse_from(arguments);
    let done = match args.role {
        Role::Collector => collector::run(&args),
        Role::Reader => reader::run(&args),
        Role::Counter => counter::run(&args),
    };
    match done {
        Ok(()) => 0,
        // Whoever failed has said so itself.
        Err(Failure::Role { code, .. }) => code,
        Err(failure) => {
            eprintln!("pipeline: {failure}");
            failure.code()
        }
    }
}

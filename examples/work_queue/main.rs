//! A work queue between programs that meet by name, and of which any may be killed with `kill -9` at any moment.
//!
//! ```text
//! work_queue produce NAME     pushes jobs, as many as you like of these, in any terminals
//! work_queue work NAME        does them, as many as you like of these too
//! work_queue status NAME      prints the accounts, and the dead letters
//! work_queue remove NAME      removes what all have left, with the jobs that nobody did
//! work_queue                  starts producers and workers, kills some all the time, and checks the accounts
//! ```
//!
//! Whoever comes first makes the queue; there is no server. A job that a killed worker had taken goes to another one; a
//! job that three workers died with, or refused, is a dead letter; a killed producer loses at most the job that it was
//! pushing. All that is the queue's doing. The [`ledger`] beside it notes what becomes of each job, so that
//! nobody needs to believe it.

mod demonstration;
mod failure;
mod ledger;
mod meeting;
mod produce;
mod status;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    done; for the demonstration: the accounts agree
  1    the accounts do not agree
  2    bad arguments
  3    there is no queue of that name
  4    the queue or its ledger could not be made or opened
  5    the queue failed
  6    a process of the demonstration could not be started, or failed
  7    the queue is closed: nothing was there to be done, or none may be sent
  8    the queue cannot be removed: somebody has it open
  130  interrupted";

/// A work queue of which any process may be killed at any moment.
#[derive(Debug, Parser)]
#[command(after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Where the segments live.
    #[arg(long, global = true, default_value = "/dev/shm")]
    directory: PathBuf,
    /// The demonstration: for how many seconds to kill processes.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Push jobs, until killed, or until the queue is closed.
    Produce {
        /// The queue's name.
        name: String,
        /// End after so many.
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
        jobs: u64,
        /// Each so-manieth job is one that every worker refuses.
        #[arg(long)]
        refused: Option<u32>,
    },
    /// Do jobs, until killed, or until the queue is closed and empty.
    Work {
        /// The queue's name.
        name: String,
        /// How long a job takes, in microseconds.
        #[arg(long, default_value_t = 100)]
        micros: u64,
    },
    /// Print the accounts and the dead letters.
    Status {
        /// The queue's name.
        name: String,
        /// Close the queue: producers end, and workers too once it is empty.
        #[arg(long)]
        close: bool,
        /// Take the dead letters out.
        #[arg(long)]
        take_letters: bool,
    },
    /// Remove a queue that nobody has open, with the jobs in it; a closed name is free again then.
    Remove {
        /// The queue's name.
        name: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = crosslane_shm::Options::new().directory(&args.directory);
    let done = match &args.role {
        Some(Role::Produce { name, jobs, refused }) => produce::run(name, &options, *jobs, *refused),
        Some(Role::Work { name, micros }) => work::run(name, &options, *micros),
        Some(Role::Status { name, close, take_letters }) => status::run(name, &options, *close, *take_letters),
        Some(Role::Remove { name }) => meeting::remove(name, &options),
        None => demonstration::run(&args.directory, &options, args.seconds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("work_queue: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

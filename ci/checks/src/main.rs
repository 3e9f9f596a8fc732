//! Checks of this repository's own rules, each a subcommand that prints what it looked at and fails with a list.
//!
//! `checks floors`, `checks edges`, `checks lengths` read the sources from the directory that they are run in (the
//! repository's root, or a copy of it); `checks loom <test binary>...` and `checks steps <copy> <target dir>` run models and
//! their mutants.

mod edges;
mod floors;
mod lengths;
mod orderings;
mod run;
mod source;
mod steps;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str =
    "usage: checks floors | edges | lengths | loom <least> <binary>... | steps <least> <copy> <target> [<list>...]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = Path::new(".");
    let found = match args.as_slice() {
        ["floors"] => floors::check(root),
        ["edges"] => edges::check(root),
        ["lengths"] => lengths::check(root),
        ["loom", least, binaries @ ..] if !binaries.is_empty() => orderings::check(root, least, binaries),
        ["steps", least, copy, target, only @ ..] => {
            steps::check(root, least, Path::new(copy), Path::new(target), only)
        }
        _ => Err(USAGE.into()),
    };
    match found {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in &faults {
                eprintln!("fault: {fault}");
            }
            eprintln!("{} faults", faults.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What a check found wrong, one line each; `Err` if it could not look.
type Faults = Result<Vec<String>, Box<dyn std::error::Error>>;

//! crosslane beside its rivals, and beside what the bare hardware and the bare system calls allow.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- [--quick] [--only TEXT] [--rounds N] [--markdown]`
//!
//! Each round measures every contestant of a row once, in rotating order, and ratios are taken within a round, so a
//! machine that wanders from second to second bends the absolute numbers and not the comparison. The two sides of a
//! contestant are pinned to CPUs 0 and 1, processes and threads alike. How far these are from each other (a virtual
//! machine's may be halves of one core now and far apart a minute later) stands under each row. Output is Markdown;
//! with `--markdown` it is the table of `docs/benchmarks.md`.

mod machine;
mod python;
mod row;
mod rows;
mod scratch;
mod shared;
mod sides;

use std::process::ExitCode;

use row::Row;

const USAGE: &str = "usage: crosslane-compare [--quick] [--only TEXT] [--rounds N (at least 1)] [--markdown | --list]";

/// Rounds of a full run: an odd number well above the 15 that a goal needs.
const ROUNDS: usize = 25;
const QUICK_ROUNDS: usize = 5;

/// What the command line asks for.
#[derive(Default)]
struct Options {
    quick: bool,
    only: Option<String>,
    rounds: Option<usize>,
    list: bool,
    markdown: bool,
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--markdown" => options.markdown = true,
            "--only" => options.only = Some(args.next()?),
            "--rounds" => options.rounds = Some(args.next()?.parse().ok().filter(|n| *n > 0)?),
            _ => return None,
        }
    }
    Some(options)
}

/// The rows that have `text` in their name, or, if none has, those with a contestant that has.
fn chosen(mut rows: Vec<Row>, text: &str) -> Vec<Row> {
    let text = text.to_lowercase();
    let is_called = |row: &Row| row.name.to_lowercase().contains(&text);
    if rows.iter().any(is_called) {
        rows.retain(is_called);
    } else {
        rows.retain(|row| row.contestants().iter().any(|name| name.to_lowercase().contains(&text)));
    }
    rows
}

fn main() -> ExitCode {
    if let Some(code) = rows::processes::enter() {
        return code;
    }
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let rounds = options.rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
    let rows = rows::all(if options.quick { 0.1 } else { 1.0 });
    let wanted = chosen(rows, options.only.as_deref().unwrap_or_default());
    if wanted.is_empty() {
        eprintln!("no row and no contestant is called so; --list names them all");
        return ExitCode::FAILURE;
    }
    if options.list {
        wanted.iter().for_each(|row| println!("{}\n    {}", row.name, row.contestants().join("\n    ")));
        return ExitCode::SUCCESS;
    }
    // Before anything is forked.
    let _ = scratch::prefix();
    // Measured once, before anything is pinned: a process that may use one CPU only does not spin.
    let _ = crosslane_sync::spin::budget();
    println!("{}, {rounds} rounds{}\n", machine::description(), if options.quick { ", quick" } else { "" });
    if let Some(warning) = machine::busy() {
        println!("{warning}\n");
        eprintln!("{warning}");
    }
    if !python::is_there() {
        println!("skipped: Python, no python3\n");
    }
    if options.markdown {
        print!("{}", row::SUMMARY_HEAD);
    }
    for mut row in wanted {
        eprintln!("{}", row.name);
        let before = rows::distance_nanos();
        let report = row.run(rounds);
        let after = rows::distance_nanos();
        if options.markdown {
            print!("{}", report.summary((before, after)));
        } else {
            println!("{report}\nthe CPUs: {before:.0} ns there and back before, {after:.0} ns after\n");
        }
    }
    scratch::sweep();
    ExitCode::SUCCESS
}

//! Step mutants: a step of a protocol is left out or swapped in a copy of the sources, and the named test must fail.
//!
//! `ci/mutants/*.txt` holds them, in blocks:
//! ```text
//! mutant: the second wake is left out
//! file: core/src/event.rs
//! test: loom_event::two_sleepers
//! -        if cleared.is_ok() {
//! +        if false {
//! ```
//! The `-` lines must occur exactly once in the file, one after another; the `+` lines take their place. `test` names a file
//! of core/tests without `.rs` (`loom_*` are models) or `lib`, and, after `::`, one test of it; without that, all of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Faults;
use crate::run::{self, Outcome};

/// Seconds that a mutant's models search, on a machine that does much else; the longest takes 5 on one that does not.
const SEARCH: &str = "60";
/// What a mutant's run may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(180);

#[derive(Debug, Default, Clone, PartialEq)]
struct Mutant {
    name: String,
    file: String,
    test: String,
    old: String,
    new: String,
}

impl Mutant {
    /// The file of its test, without `.rs`, or `lib`.
    fn binary(&self) -> &str {
        self.test.split("::").next().unwrap_or_default()
    }
}

/// Tries every mutant of `root`'s lists on the sources in `copy`, building into `target`; with `only`, those of the lists of
/// these names, without `.txt`.
pub(crate) fn check(root: &Path, least: &str, copy: &Path, target: &Path, only: &[&str]) -> Faults {
    let least: usize = if only.is_empty() { least.parse()? } else { only.len() };
    let mut mutants = Vec::new();
    let mut lists: Vec<_> = std::fs::read_dir(root.join("ci/mutants"))?.collect::<Result<_, _>>()?;
    lists.sort_by_key(std::fs::DirEntry::path);
    if !only.is_empty() {
        lists.retain(|list| only.iter().any(|name| list.file_name().to_str() == Some(&format!("{name}.txt"))));
        if lists.len() != only.len() {
            return Err(format!("{} lists are named so: {}", lists.len(), only.join(", ")).into());
        }
    }
    for list in lists {
        let path = list.path();
        let text = std::fs::read_to_string(&path)?;
        mutants.extend(parse(&text).map_err(|why| format!("{}: {why}", path.display()))?);
    }
    // Those of one test binary one after another in one place: each but the first finds most of it built.
    mutants.sort_by(|a, b| a.binary().cmp(b.binary()));
    let mut lists: Vec<&[Mutant]> = mutants.chunk_by(|a, b| a.binary() == b.binary()).collect();
    lists.sort_by_key(|list| std::cmp::Reverse(list.len()));
    // One more than there are CPUs: some mutants only wait, until a test's own watchdog barks.
    let lanes = (run::cpus() + 1).min(lists.len());
    let places = Places::new(copy, target, lanes)?;
    let results = run::in_parallel(lanes, &lists, |_, list| {
        let place = places.take();
        let tried = list.iter().map(|mutant| {
            let start = Instant::now();
            (mutant, attempt(mutant, &place).map_err(|why| why.to_string()), start.elapsed())
        });
        let tried: Vec<_> = tried.collect();
        places.give_back(place);
        Ok(tried)
    })?;
    println!("{:<68} {:>6} {:>6}  result", "step mutant", "built", "ran");
    let mut faults = Vec::new();
    let mut caught = 0;
    for (mutant, result, took) in results.iter().flatten() {
        let text = match result {
            Ok((Outcome::Failed, _)) => "caught".to_owned(),
            Ok((Outcome::Passed, _)) => "SURVIVES".to_owned(),
            Ok((Outcome::Hung, _)) => "HANGS".to_owned(),
            Err(why) => format!("ERROR: {why}"),
        };
        let ran = result.as_ref().map_or(Duration::ZERO, |(_, ran)| *ran);
        let built = took.saturating_sub(ran);
        println!("{:<68} {:>6.2} {:>6.2}  {text}", mutant.name, built.as_secs_f64(), ran.as_secs_f64());
        match result {
            Ok((Outcome::Failed, _)) => caught += 1,
            _ => faults.push(format!("step mutant \"{}\" of {} ({}): {text}", mutant.name, mutant.file, mutant.test)),
        }
    }
    println!("step mutants: {} tried, {caught} caught", mutants.len());
    if mutants.len() < least {
        faults.push(format!("{} step mutants, and there should be at least {least}", mutants.len()));
    }
    Ok(faults)
}

/// Where one mutant at a time is tried: a copy of the sources, and where it is built.
struct Place {
    copy: PathBuf,
    target: PathBuf,
}

/// The places; the first builds beside the models.
struct Places(Mutex<Vec<Place>>);

impl Places {
    /// So many; each finds what the first one's target directory has: nothing but this project's own crates is built again.
    fn new(copy: &Path, target: &Path, count: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let mut places = vec![Place { copy: copy.join("0"), target: target.to_owned() }];
        for i in 1..count {
            let place = Place { copy: copy.join(i.to_string()), target: target.join(format!("mutants-{i}")) };
            copy_tree(&["-a"], &places[0].copy, &place.copy)?;
            for part in ["loom/release", "plain/debug"] {
                let _ = std::fs::remove_dir_all(place.target.join(part));
                std::fs::create_dir_all(place.target.join(part))?;
                // Not the lock, which would be one for all, nor what was built by steps.
                for kind in [".fingerprint", "build", "deps"] {
                    let from = target.join(part).join(kind);
                    if from.is_dir() {
                        copy_tree(&["-a", "-l"], &from, &place.target.join(part).join(kind))?;
                    }
                }
            }
            places.push(place);
        }
        Ok(Self(Mutex::new(places)))
    }

    fn take(&self) -> Place {
        // A place for each thread, so there is one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("a place")
    }

    fn give_back(&self, place: Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }
}

/// `cp` with these options.
fn copy_tree(options: &[&str], from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new("cp").args(options).args([from, to]).status()?;
    if status.success() { Ok(()) } else { Err(format!("cp {}: {status}", from.display()).into()) }
}

fn parse(text: &str) -> Result<Vec<Mutant>, String> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("mutant: ") {
            mutants.push(Mutant { name: name.to_owned(), ..Mutant::default() });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mutant = mutants.last_mut().ok_or_else(|| format!("line {}: no `mutant:` before it", i + 1))?;
        if let Some(file) = line.strip_prefix("file: ") {
            file.clone_into(&mut mutant.file);
        } else if let Some(test) = line.strip_prefix("test: ") {
            test.clone_into(&mut mutant.test);
        } else if let Some(old) = line.strip_prefix('-') {
            mutant.old.push_str(old);
            mutant.old.push('\n');
        } else if let Some(new) = line.strip_prefix('+') {
            mutant.new.push_str(new);
            mutant.new.push('\n');
        } else {
            return Err(format!("line {}: not understood", i + 1));
        }
    }
    match mutants.iter().find(|m| m.file.is_empty() || m.test.is_empty() || m.old.is_empty() || m.old == m.new) {
        Some(mutant) => Err(format!("mutant \"{}\" needs file, test, and lines that change", mutant.name)),
        None => Ok(mutants),
    }
}

/// Changes the copy, builds and runs the test, and changes the copy back. How it ended, and how long it ran.
fn attempt(mutant: &Mutant, Place { copy, target }: &Place) -> Result<(Outcome, Duration), Box<dyn std::error::Error>> {
    let path = copy.join(&mutant.file);
    let whole = std::fs::read_to_string(&path)?;
    let changed = apply(mutant, &whole)?;
    std::fs::write(&path, changed)?;
    let outcome = build(mutant, copy, target).and_then(|binary| {
        let test = mutant.test.split_once("::").map_or("", |(_, test)| test);
        if !test.is_empty() && !run::tests_of(&binary)?.iter().any(|name| name == test) {
            return Err(format!("there is no test {test}").into());
        }
        // The name of a mutant tells the harness not to count accesses, executions and deaths: only a broken promise of
        // the protocol may fail the model, not that the mutant has fewer steps.
        let env =
            [("CROSSLANE_MUTANT", "step"), ("CROSSLANE_MODEL_SECONDS", SEARCH), ("LOOM_CHECKPOINT_INTERVAL", "500")];
        let start = Instant::now();
        let outcome = run::run(&binary, test, &env, LIMIT, &copy.join("mutant.out"))?;
        Ok((outcome, start.elapsed()))
    });
    std::fs::write(&path, whole)?;
    outcome
}

fn apply(mutant: &Mutant, whole: &str) -> Result<String, String> {
    let (lines, old): (Vec<&str>, Vec<&str>) = (whole.lines().collect(), mutant.old.lines().collect());
    let places: Vec<usize> =
        lines.windows(old.len()).enumerate().filter(|(_, window)| *window == old).map(|(i, _)| i).collect();
    let [place] = places[..] else {
        return Err(format!("its lines occur {} times in {}", places.len(), mutant.file));
    };
    let mut changed = lines;
    changed.splice(place..place + old.len(), mutant.new.lines());
    Ok(changed.join("\n") + "\n")
}

/// Builds the mutant's test binary in the copy.
fn build(mutant: &Mutant, copy: &Path, target: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let file = mutant.binary();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(copy).args(["test", "--no-run", "--quiet", "--message-format=json", "-p", "crosslane-core"]);
    // A mutant changes a few lines, and what it depends on was built for the models before.
    command.env("CARGO_INCREMENTAL", "1");
    // Building takes longer than most models search.
    command.args(["--config", "profile.release.package.crosslane-core.opt-level=0"]);
    command.args(["--config", "profile.release.debug=0"]);
    if file.starts_with("loom_") {
        command.args(["--release", "--features", "loom"]).env("RUSTFLAGS", "--cfg crosslane_loom");
        command.env("CARGO_TARGET_DIR", target.join("loom"));
    } else {
        command.env("CARGO_TARGET_DIR", target.join("plain"));
    }
    if file == "lib" {
        command.arg("--lib");
    } else {
        command.args(["--test", file]);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("does not build: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let binary = text.split("\"executable\":\"").skip(1).filter_map(|after| after.split('"').next()).last();
    binary.map(str::to_owned).ok_or_else(|| "no test binary was built".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# why\nmutant: a step\nfile: x.rs\ntest: loom_x::y\n-    b();\n+    c();\n+    d();\n";

    #[test]
    fn a_list_gives_mutants_that_apply_once() {
        let mutants = parse(LIST).unwrap();
        assert_eq!(mutants.len(), 1);
        assert_eq!(apply(&mutants[0], "a();\n    b();\ne();\n"), Ok("a();\n    c();\n    d();\ne();\n".into()));
        assert!(apply(&mutants[0], "a();\n").is_err());
        assert!(apply(&mutants[0], "    b();\n    b();\n").is_err());
        assert!(apply(&mutants[0], "x    b();\n").is_err());
    }

    #[test]
    fn a_list_that_says_too_little_is_refused() {
        assert!(parse("file: x.rs\n").is_err());
        assert!(parse("mutant: a\nfile: x.rs\n-a\n+b\n").is_err());
        assert!(parse("mutant: a\nfile: x.rs\ntest: t\n-a\n+a\n").is_err());
        assert!(parse("mutant: a\nfile: x.rs\ntest: t\n=a\n").is_err());
    }
}

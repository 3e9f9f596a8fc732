//! Runs every loom model, then every ordering mutant: each site whose ordering is not Relaxed is weakened to Relaxed, and
//! some model that passes there must fail.
//!
//! The sites come twice: from the sources, and from what the models touched (`CROSSLANE_SITES`). An ordering in the sources
//! that no model touches is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Faults;
use crate::edges;
use crate::run::{self, Outcome};

/// The longest that one model may take unmutated.
const MODEL_LIMIT: Duration = Duration::from_secs(300);
/// Seconds that a mutant's models search: most mutants fail within the first.
const SEARCHES: [&str; 2] = ["1", "10"];
/// Those of a control, which looks at its clock after 500 executions: all of them have passed before, so what may still fail is the
/// end of a search that is broken off.
const CONTROL: &str = "0";
/// What a mutant's run may take above its search before it counts as hung.
const MUTANT_LIMIT: Duration = Duration::from_secs(90);
/// Lines that a call may have between its name, where the compiler locates it, and its ordering.
const CALL_LINES: usize = 8;

struct Model<'a> {
    binary: &'a str,
    test: String,
}

impl Model<'_> {
    fn name(&self) -> String {
        let file = Path::new(self.binary).file_name().unwrap_or_default().to_string_lossy();
        let stem = file.rsplit_once('-').map_or(&*file, |(stem, _)| stem);
        format!("{stem}::{}", self.test)
    }
}

/// Runs the models in `binaries` and at least `least` mutants.
pub(crate) fn check(root: &Path, least: &str, binaries: &[&str]) -> Faults {
    let least: usize = least.parse()?;
    let scratch = Scratch::new()?;
    let mut models = Vec::new();
    for binary in binaries {
        models.extend(run::tests_of(binary)?.into_iter().map(|test| Model { binary, test }));
    }
    let mut faults = Vec::new();
    let (touched, seconds) = run_models(&models, &scratch, &mut faults)?;
    let unweakened = run_controls(&models, &scratch)?;
    faults.extend(unweakened.into_iter().map(|name| format!("{name} fails with a mutant that does not exist")));
    if faults.is_empty() {
        faults.extend(run_mutants(&models, &cheapest_first(&touched, &seconds), &scratch)?);
    }
    faults.extend(untouched(&edges::sites(root)?, touched.keys()));
    if touched.len() < least {
        faults.push(format!("{} ordering mutants, and there should be at least {least}", touched.len()));
    }
    Ok(faults)
}

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("crosslane-loom-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Which models touch each site.
type Touched = BTreeMap<String, Vec<usize>>;

fn run_models(
    models: &[Model],
    scratch: &Scratch,
    faults: &mut Vec<String>,
) -> Result<(Touched, Vec<Duration>), Box<dyn std::error::Error>> {
    let results = run::in_parallel(run::cpus(), models, |i, model| {
        let (output, sites) = (scratch.file(&format!("{i}.out")), scratch.file(&format!("{i}.sites")));
        let env = [("CROSSLANE_SITES", &*sites.to_string_lossy())];
        let start = Instant::now();
        let outcome = run::run(model.binary, &model.test, &env, MODEL_LIMIT, &output)?;
        let took = start.elapsed();
        let text = String::from_utf8_lossy(&std::fs::read(output)?).into_owned();
        Ok((outcome, took, text, std::fs::read_to_string(sites).unwrap_or_default()))
    })?;
    println!("{:<44} {:>11} {:>9} {:>8}", "model", "executions", "floor", "seconds");
    let (mut touched, mut seconds) = (Touched::new(), Vec::new());
    for (i, (outcome, took, text, sites)) in results.into_iter().enumerate() {
        for [name, executions, floor, seconds] in text.lines().filter_map(explored) {
            println!("{name:<44} {executions:>11} {floor:>9} {seconds:>8}");
        }
        if outcome != Outcome::Passed {
            let tail: Vec<&str> = text.lines().rev().take(30).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            faults.push(format!("{} {outcome:?}:\n{}", models[i].name(), tail.join("\n")));
        }
        // An ordering that a model itself names is no site of core.
        let of_core = |site: &&str| !site.starts_with("loom_");
        let sites: BTreeSet<&str> =
            sites.lines().filter_map(|line| line.split_whitespace().next()).filter(of_core).collect();
        for site in sites {
            touched.entry(site.to_owned()).or_default().push(i);
        }
        seconds.push(took);
    }
    Ok((touched, seconds))
}

/// The same, with the models of each site in the order of their time: most mutants fail in any of them.
fn cheapest_first(touched: &Touched, seconds: &[Duration]) -> Touched {
    let mut touched = touched.clone();
    for models in touched.values_mut() {
        models.sort_by_key(|model| seconds[*model]);
    }
    touched
}

/// The columns of `model NAME: N executions, floor F, S s`.
fn explored(line: &str) -> Option<[&str; 4]> {
    // The test runner may have printed the test's name on the same line.
    let (_, line) = line.split_once("model ")?;
    let (name, rest) = line.split_once(": ")?;
    let (executions, rest) = rest.split_once(" executions, floor ")?;
    let (floor, rest) = rest.split_once(", ")?;
    Some([name, executions, floor, rest.strip_suffix(" s")?])
}

/// The models that fail when a mutant is asked for that no site matches: these would "catch" anything.
fn run_controls(models: &[Model], scratch: &Scratch) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let outcomes = run::in_parallel(run::cpus(), models, |i, model| {
        mutate(model, "nowhere.rs:0", CONTROL, &scratch.file(&format!("{i}.control")))
    })?;
    let failed = models.iter().zip(outcomes).filter(|(_, outcome)| *outcome != Outcome::Passed);
    Ok(failed.map(|(model, _)| model.name()).collect())
}

fn mutate(model: &Model, site: &str, seconds: &str, output: &Path) -> Result<Outcome, Box<dyn std::error::Error>> {
    let env = [
        ("CROSSLANE_MUTANT", site),
        ("CROSSLANE_MODEL_SECONDS", seconds),
        // loom looks at its clock only then.
        ("LOOM_CHECKPOINT_INTERVAL", "500"),
    ];
    run::run(model.binary, &model.test, &env, MUTANT_LIMIT, output)
}

fn run_mutants(
    models: &[Model],
    touched: &Touched,
    scratch: &Scratch,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mutants: Vec<(&String, &Vec<usize>)> = touched.iter().collect();
    let results = run::in_parallel(run::cpus(), &mutants, |i, (site, touching)| {
        let start = Instant::now();
        let output = scratch.file(&format!("{i}.mutant"));
        for seconds in SEARCHES {
            for &model in *touching {
                if mutate(&models[model], site, seconds, &output)? == Outcome::Failed {
                    return Ok((Some(models[model].name()), start.elapsed()));
                }
            }
        }
        Ok((None, start.elapsed()))
    })?;
    println!("{:<28} {:>8}  caught by", "ordering mutant", "seconds");
    let mut survivors = Vec::new();
    for ((site, touching), (killer, took)) in mutants.iter().zip(&results) {
        println!("{site:<28} {:>8.2}  {}", took.as_secs_f64(), killer.as_deref().unwrap_or("NOBODY"));
        if killer.is_none() {
            survivors.push(format!("ordering mutant {site} survives the {} models that touch it", touching.len()));
        }
    }
    println!("ordering mutants: {} tried, {} caught", mutants.len(), mutants.len() - survivors.len());
    Ok(survivors)
}

/// The orderings of the sources that no model touches.
fn untouched<'a>(sites: &[edges::Site], touched: impl Iterator<Item = &'a String>) -> Vec<String> {
    let touched: BTreeSet<(&str, usize)> = touched
        .filter_map(|site| site.rsplit_once(':'))
        .filter_map(|(file, line)| Some((file, line.parse().ok()?)))
        .collect();
    let missed = sites.iter().filter(|site| {
        let file = site.path.strip_prefix("core/src/").unwrap_or(&site.path);
        !(site.line.saturating_sub(CALL_LINES)..=site.line).any(|line| touched.contains(&(file, line)))
    });
    missed.map(|site| format!("{}:{}: no model touches this ordering", site.path, site.line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_line_has_four_columns() {
        let line = "test a ... model spsc.two: 123 executions, floor 100, 0.25 s";
        assert_eq!(explored(line), Some(["spsc.two", "123", "100", "0.25"]));
        assert_eq!(explored("running 3 tests"), None);
    }

    #[test]
    fn an_untouched_ordering_is_a_fault() {
        let site = |line| edges::Site { path: "core/src/ring.rs".into(), line, orders: [].into(), edges: [].into() };
        let touched = ["ring.rs:10".to_owned()];
        assert_eq!(untouched(&[site(10), site(12)], touched.iter()), [""; 0]);
        assert_eq!(untouched(&[site(9), site(40)], touched.iter()).len(), 2);
        assert_eq!(untouched(&[site(10)], ["record/ring.rs:10".to_owned()].iter()).len(), 1);
    }
}

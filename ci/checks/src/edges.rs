//! Every ordering has a name: each Acquire, Release, AcqRel and SeqCst in `core` belongs to an edge that its comment
//! names, that has both sides, and that stands in its module's Orderings table with a model.
//!
//! ```text
//! // ORDERING lock.word: Acquire. Pairs with the Release in `unlock`.     the comment above the site
//! //! | `lock.word` | swap in `unlock` | CAS in `take` | what | `mutex` |  the row of the table
//! core/tests/loom_mutex.rs, or a test or a model of that name in one       the model
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::Faults;
use crate::source::{self, Source};

/// Lines above an ordering within which its comment ends.
const REACH: usize = 8;
/// The harness orders the model's own bookkeeping.
const HARNESS: &str = "core/src/model.rs";

/// A line of `core` with an ordering that is not Relaxed.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) orders: BTreeSet<String>,
    pub(crate) edges: BTreeSet<String>,
}

#[derive(Debug)]
struct Row {
    path: String,
    line: usize,
    edge: String,
    models: Vec<String>,
}

/// Checks that sites, tables and models agree.
pub(crate) fn check(root: &Path) -> Faults {
    let sources = source::read_all(root, &["core/src"])?;
    let models = models(root)?;
    let mut faults = Vec::new();
    let sites = sites_of(&sources, &mut faults);
    let rows = rows_of(&sources, &mut faults);
    faults.extend(unmatched(&sites, &rows, &models));
    println!("edges: {} sites, {} edges in tables, {} names of models", sites.len(), rows.len(), models.len());
    Ok(faults)
}

/// The sites of `core`, for the mutants.
pub(crate) fn sites(root: &Path) -> std::io::Result<Vec<Site>> {
    Ok(sites_of(&source::read_all(root, &["core/src"])?, &mut Vec::new()))
}

fn sites_of(sources: &[Source], faults: &mut Vec<String>) -> Vec<Site> {
    let mut sites = Vec::new();
    for source in sources.iter().filter(|source| source.path != HARNESS) {
        for (i, line) in source.lines.iter().enumerate().filter(|(_, line)| !line.test) {
            if line.code.contains("Ordering::{") || line.code.contains("Ordering::*") {
                faults.push(format!("{}:{}: orderings are written `Ordering::X` at their site", source.path, i + 1));
            }
            let orders = orders_in(&line.code);
            if orders.is_empty() {
                continue;
            }
            let site = Site { path: source.path.clone(), line: i + 1, orders, edges: BTreeSet::new() };
            match edges_above(source, i, &site.orders) {
                Ok(edges) => sites.push(Site { edges, ..site }),
                Err(why) => {
                    faults.push(format!("{}:{}: {why}", site.path, site.line));
                    sites.push(site);
                }
            }
        }
    }
    sites
}

fn orders_in(code: &str) -> BTreeSet<String> {
    let named = source::words(code).filter(|(at, word)| {
        matches!(*word, "Acquire" | "Release" | "AcqRel" | "SeqCst") && code[..*at].ends_with("Ordering::")
    });
    named.map(|(_, word)| word.to_owned()).collect()
}

/// The edges that the comment above line `i` names.
fn edges_above(source: &Source, i: usize, orders: &BTreeSet<String>) -> Result<BTreeSet<String>, &'static str> {
    const NONE: &str = "no `// ORDERING <edge>: ...` within the lines above";
    let begin = (0..=i)
        .rev()
        .take_while(|&j| j == i || !source::words(&source.lines[j].code).any(|(_, word)| word == "fn"))
        .find(|&j| source.lines[j].comment.contains("ORDERING"))
        .ok_or(NONE)?;
    let block: Vec<&str> = source.lines[begin..]
        .iter()
        .map(|line| line.comment.trim_start_matches('/').trim())
        .take_while(|c| !c.is_empty())
        .collect();
    if i > begin + block.len() - 1 + REACH {
        return Err(NONE);
    }
    let comment = block.join(" ");
    let edges: BTreeSet<String> = comment.split_whitespace().filter_map(edge_name).collect();
    if edges.is_empty() {
        return Err("its ORDERING comment names no edge");
    }
    if !orders.iter().all(|order| comment.contains(order.as_str())) {
        return Err("its ORDERING comment speaks of another ordering");
    }
    Ok(edges)
}

/// `a.b` of `a.b:`.
fn edge_name(word: &str) -> Option<String> {
    let edge = word.strip_suffix(':')?;
    let (module, name) = edge.split_once('.')?;
    let is_name =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name(module) && is_name(name)).then(|| edge.to_owned())
}

fn rows_of(sources: &[Source], faults: &mut Vec<String>) -> Vec<Row> {
    let mut rows = Vec::new();
    for source in sources {
        let mut inside = false;
        for (i, line) in source.lines.iter().enumerate() {
            let Some(text) = line.comment.strip_prefix("//!").map(str::trim) else { continue };
            if text.starts_with('#') {
                inside = text == "# Orderings";
            }
            if !inside || !text.starts_with("| `") {
                continue;
            }
            let cells: Vec<&str> = text.trim_matches('|').split('|').map(str::trim).collect();
            if cells.len() != 5 || cells.iter().any(|cell| cell.is_empty()) {
                faults.push(format!("{}:{}: a row has edge, release, acquire, what, model", source.path, i + 1));
                continue;
            }
            let row = |edge| Row { path: source.path.clone(), line: i + 1, edge, models: quoted(cells[4]) };
            rows.extend(quoted(cells[0]).into_iter().map(row));
        }
    }
    rows
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Everything in which sites, rows and models do not fit.
fn unmatched(sites: &[Site], rows: &[Row], models: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut by_edge: BTreeMap<&str, Vec<&Site>> = BTreeMap::new();
    for site in sites {
        for edge in &site.edges {
            by_edge.entry(edge).or_default().push(site);
        }
    }
    for (edge, sites) in &by_edge {
        let first = format!("{}:{}", sites[0].path, sites[0].line);
        if !has_both_sides(sites) {
            faults.push(format!("{first}: edge {edge} has one side only"));
        }
        match rows.iter().filter(|row| row.edge == *edge).count() {
            0 => faults.push(format!("{first}: edge {edge} stands in no Orderings table")),
            1 => {}
            n => faults.push(format!("{first}: edge {edge} stands in {n} tables")),
        }
    }
    for row in rows {
        let at = format!("{}:{}", row.path, row.line);
        if !by_edge.contains_key(row.edge.as_str()) {
            faults.push(format!("{at}: edge {} is named at no site", row.edge));
        }
        if row.models.is_empty() {
            faults.push(format!("{at}: edge {} has no model", row.edge));
        }
        let unknown = row.models.iter().filter(|model| !models.contains(*model));
        faults.extend(unknown.map(|model| format!("{at}: there is no loom test `{model}`")));
    }
    faults
}

/// Whether one site can release what another acquires.
fn has_both_sides(sites: &[&Site]) -> bool {
    let is = |site: &Site, side: &str| {
        site.orders.iter().any(|order| order == side || order == "AcqRel" || order == "SeqCst")
    };
    sites
        .iter()
        .enumerate()
        .any(|(i, a)| is(a, "Release") && sites.iter().enumerate().any(|(j, b)| i != j && is(b, "Acquire")))
}

/// What a table may call a model: a file `core/tests/loom_<name>.rs`, a test function in one, or a name given to `check`.
fn models(root: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for source in source::read_all(root, &["core/tests"])? {
        let Some(name) = source.path.strip_prefix("core/tests/loom_").and_then(|name| name.strip_suffix(".rs")) else {
            continue;
        };
        names.insert(name.to_owned());
        for line in &source.lines {
            let mut words = source::words(&line.code).map(|(_, word)| word);
            if words.by_ref().any(|word| word == "fn") {
                names.extend(words.next().map(str::to_owned));
            }
        }
        let text = std::fs::read_to_string(root.join(&source.path))?;
        names.extend(
            text.split("check(")
                .skip(1)
                .filter_map(|after| after.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)),
        );
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: &str = "//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `ring.slot` | push | pop | the payload | `ring` |
fn push() {
    // ORDERING ring.slot: Release. Pairs with the Acquire in `pop`.
    seq.store(1, Ordering::Release);
}
fn pop() {
    // ORDERING ring.slot: Acquire. Pairs with the Release in `push`.
    seq.load(Ordering::Acquire);
}
";

    fn faults_of(text: &str) -> Vec<String> {
        let sources = [Source::new("core/src/ring.rs".into(), text)];
        let mut faults = Vec::new();
        let sites = sites_of(&sources, &mut faults);
        let rows = rows_of(&sources, &mut faults);
        faults.extend(unmatched(&sites, &rows, &BTreeSet::from(["ring".to_owned()])));
        faults
    }

    #[test]
    fn a_module_that_keeps_the_rules_passes() {
        assert_eq!(faults_of(RING), [""; 0]);
    }

    #[test]
    fn every_broken_rule_is_found() {
        let broken = [
            ("    // ORDERING ring.slot: Release. Pairs with the Acquire in `pop`.\n", ""),
            ("ORDERING ring.slot: Release.", "ORDERING: Release."),
            ("ORDERING ring.slot: Release. Pairs with the Acquire in", "ORDERING ring.slot: Acquire. Pairs with"),
            ("ORDERING ring.slot: Release.", "ORDERING ring.slto: Release."),
            ("store(1, Ordering::Release)", "store(1, Ordering::Relaxed)"),
            ("//! | `ring.slot` | push | pop | the payload | `ring` |\n", ""),
            ("the payload | `ring` |", "the payload | `rnig` |"),
            ("the payload | `ring` |", "the payload | none |"),
            ("the payload | `ring` |", "`ring` |"),
            ("fn pop", "use core::sync::atomic::Ordering::{Acquire};\nfn pop"),
        ];
        for (old, new) in broken {
            let text = RING.replacen(old, new, 1);
            assert_ne!(text, RING, "{old} is in the text");
            assert_ne!(faults_of(&text), [""; 0], "{old} -> {new}");
        }
    }

    #[test]
    fn a_comment_may_name_two_edges() {
        let text =
            RING.replace("ORDERING ring.slot: Acquire. Pairs", "ORDERING ring.slot: Acquire, ring.free: too. Pairs");
        let faults = faults_of(&text);
        assert!(faults.iter().all(|fault| fault.contains("ring.free")), "{faults:?}");
        assert_eq!(faults.len(), 2);
    }
}

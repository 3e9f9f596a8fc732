//! Which file may name what: `core` needs no `std`, atomics and loom have one home, `unsafe` has a list.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Faults;
use crate::source::{self, Source};

/// The list of the files that may allow `unsafe_code`, each with its reason.
const UNSAFE_LIST: &str = "ci/unsafe-files.txt";
/// Crates whose sources are read; each that uses `unsafe` denies it by default.
const CRATES: [&str; 4] = ["core/src", "sync/src", "shm/src", "src"];

/// Checks every rule of this module.
pub(crate) fn check(root: &Path) -> Faults {
    let sources = source::read_all(root, &CRATES)?;
    let list = std::fs::read_to_string(root.join(UNSAFE_LIST))?;
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("core/src/")) {
        faults.extend(std_in_core(source));
        faults.extend(homeless_primitives(source));
    }
    faults.extend(unlisted_unsafe(&sources, &list));
    println!("floors: {} files, {} may allow unsafe code", sources.len(), listed(&list).count());
    Ok(faults)
}

/// `std` and `alloc` are for the model checker and the tests alone.
fn std_in_core(source: &Source) -> Vec<String> {
    if matches!(source.path.as_str(), "core/src/model.rs" | "core/src/prim/modelled.rs") {
        return Vec::new();
    }
    let shipped = source.lines.iter().enumerate().filter(|(_, line)| !line.test && !line.modelled);
    let named = shipped.filter(|(_, line)| {
        let is_path = |at: usize, word: &str| line.code[at + word.len()..].starts_with("::");
        let is_crate = line.code.contains("extern crate");
        source::words(&line.code).any(|(at, word)| {
            matches!(word, "std" | "alloc") && (is_crate || begins_path(&line.code, at) && is_path(at, word))
        })
    });
    named
        .map(|(i, _)| format!("{}:{}: core names std or alloc outside of tests and models", source.path, i + 1))
        .collect()
}

fn begins_path(code: &str, at: usize) -> bool {
    let before = code[..at].trim_end_matches("::");
    before.len() == at || !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Atomics, `UnsafeCell` and loom are named in `prim` only (and loom by the harness).
fn homeless_primitives(source: &Source) -> Vec<String> {
    if source.path.starts_with("core/src/prim/") || source.path == "core/src/model.rs" {
        return Vec::new();
    }
    let named = source.lines.iter().enumerate().filter(|(_, line)| {
        let has = |wanted: &str| source::words(&line.code).any(|(_, word)| word == wanted);
        // The cfg's feature is a literal, and so blank here.
        line.code.contains("sync::atomic") || has("UnsafeCell") || has("loom")
    });
    named
        .map(|(i, _)| {
            format!("{}:{}: atomics, UnsafeCell and loom are named in core/src/prim only", source.path, i + 1)
        })
        .collect()
}

/// `unsafe` is denied by every crate that uses it, and allowed by the files of the list, no more and no fewer.
fn unlisted_unsafe(sources: &[Source], list: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut allowed: BTreeMap<&str, bool> = listed(list).map(|path| (path, false)).collect();
    for source in sources {
        let has = |wanted: &str| source.lines.iter().position(|line| line.code.contains(wanted));
        if let Some(line) = has("allow(unsafe_code").or_else(|| has("expect(unsafe_code")) {
            match allowed.get_mut(source.path.as_str()) {
                Some(seen) => *seen = true,
                None => {
                    faults.push(format!("{}:{}: allows unsafe code and is not in {UNSAFE_LIST}", source.path, line + 1))
                }
            }
        }
    }
    let stale = allowed.iter().filter(|(_, seen)| !**seen);
    faults.extend(stale.map(|(path, _)| format!("{UNSAFE_LIST}: {path} allows no unsafe code")));
    for dir in CRATES {
        let of_crate = |source: &&Source| source.path.starts_with(dir) && source.path[dir.len()..].starts_with('/');
        let uses = sources
            .iter()
            .filter(of_crate)
            .any(|source| source.lines.iter().any(|line| source::words(&line.code).any(|(_, word)| word == "unsafe")));
        let root = sources.iter().filter(of_crate).find(|source| source.path == format!("{dir}/lib.rs"));
        let denies = root.is_some_and(|root| {
            root.lines.iter().any(|line| {
                line.code.contains("#![deny(unsafe_code)]") || line.code.contains("#![forbid(unsafe_code)]")
            })
        });
        if uses && !denies {
            faults.push(format!("{dir}/lib.rs: the crate uses unsafe and does not say #![deny(unsafe_code)]"));
        }
    }
    faults
}

/// The paths of the list: the first word of each line that is no comment.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(text: &str) -> Source {
        Source::new("core/src/ring.rs".into(), text)
    }

    #[test]
    fn std_is_found_outside_of_tests_and_models_only() {
        assert_eq!(std_in_core(&core("use std::vec::Vec;")).len(), 1);
        assert_eq!(std_in_core(&core("extern crate alloc;")).len(), 1);
        assert_eq!(std_in_core(&core("let a = ::alloc::vec![];")).len(), 1);
        assert_eq!(std_in_core(&core("use core::alloc::Layout; // std::x")), [""; 0]);
        assert_eq!(std_in_core(&core("#[cfg(test)]\nmod tests {\n    use std::vec;\n}")), [""; 0]);
        assert_eq!(std_in_core(&core("#[cfg(crosslane_loom)]\nextern crate std;")), [""; 0]);
    }

    #[test]
    fn primitives_have_one_home() {
        assert_eq!(homeless_primitives(&core("use core::sync::atomic::AtomicU32;")).len(), 1);
        assert_eq!(homeless_primitives(&core("use core::cell::UnsafeCell;")).len(), 1);
        assert_eq!(homeless_primitives(&core("#[cfg(crosslane_loom)]\nuse loom::thread;")).len(), 1);
        assert_eq!(homeless_primitives(&core("#[cfg(crosslane_loom)]\nuse crate::prim::AtomicU32;")), [""; 0]);
    }

    #[test]
    fn the_unsafe_list_is_exact() {
        let root = Source::new("core/src/lib.rs".into(), "#![deny(unsafe_code)]");
        let ring = core("#![allow(unsafe_code)]\nunsafe fn a() {}");
        assert_eq!(unlisted_unsafe(&[root, ring], "core/src/ring.rs  why"), [""; 0]);
        let root = Source::new("core/src/lib.rs".into(), "#![deny(unsafe_code)]");
        let ring = core("#![allow(unsafe_code)]");
        assert_eq!(unlisted_unsafe(&[root, ring], "# nobody").len(), 1);
        assert_eq!(unlisted_unsafe(&[], "core/src/ring.rs  why").len(), 1);
        assert_eq!(unlisted_unsafe(&[core("unsafe fn a() {}")], "").len(), 1);
    }
}

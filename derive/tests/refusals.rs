//! What `#[derive(Plain)]` refuses, and with which words.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler whose words the `.stderr` files hold.
const WORDS_OF: &str = "rustc 1.95.";

#[test]
fn unsound_types_are_refused_with_the_reason() {
    if words_are_comparable() {
        trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
        return;
    }
    let copy = cases_without_words();
    trybuild::TestCases::new().compile_fail(copy.join("*.rs"));
    our_words_are_in_theirs(&copy);
}

/// Another compiler words its part of the errors otherwise. What this crate says, and the field that is pointed at, stand
/// in each all the same.
fn our_words_are_in_theirs(copy: &Path) {
    let mut compared = 0;
    for case in std::fs::read_dir("tests/refused").expect("the cases") {
        let case = case.expect("a case").path();
        if case.extension().is_none_or(|extension| extension != "stderr") {
            continue;
        }
        let expected = std::fs::read_to_string(&case).expect("words");
        let found =
            std::fs::read_to_string(copy.join(case.file_name().expect("a name"))).expect("words of this compiler");
        for part in parts_that_are_ours(&expected) {
            assert!(found.contains(part), "{}: {part:?} is not said:\n{found}", case.display());
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared} parts compared");
}

/// The message, if it is this crate's, and the source line that is pointed at.
fn parts_that_are_ours(words: &str) -> impl Iterator<Item = &str> {
    let message = words.lines().next().and_then(|line| line.split_once(": ")).map_or("", |(_, message)| message);
    let message = message.strip_prefix("evaluation panicked: ").unwrap_or(message);
    // In front stands the type as the compiler calls it.
    let message = message.find(" may not ").map_or(message, |at| &message[at..]);
    let is_ours = ["padding", "shared memory", "`Plain`", "`Share`"].iter().any(|word| message.contains(word));
    let line = words.lines().nth(3).and_then(|line| line.split_once("| ")).map_or("", |(_, source)| source.trim());
    is_ours.then_some(message).into_iter().chain((!line.is_empty()).then_some(line))
}

fn words_are_comparable() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("rustc runs").stdout;
    version.starts_with(WORDS_OF.as_bytes())
}

/// A copy of the cases that any refusal satisfies, for compilers that word their part of the errors otherwise.
fn cases_without_words() -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refused");
    let _ = std::fs::remove_dir_all(&copy);
    std::fs::create_dir_all(&copy).expect("a directory for the copy");
    for case in std::fs::read_dir("tests/refused").expect("the cases") {
        let case = case.expect("a case").path();
        if case.extension().is_some_and(|extension| extension == "rs") {
            std::fs::copy(&case, copy.join(case.file_name().expect("a name"))).expect("a copy");
        }
    }
    // SAFETY: this test binary has one test, and nothing else reads the environment meanwhile.
    unsafe { std::env::set_var("TRYBUILD", "overwrite") };
    copy
}

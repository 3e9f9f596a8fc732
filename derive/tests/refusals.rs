//! What `#[derive(Plain)]` refuses, and with which words.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler whose words the `.stderr` files hold.
const WORDS_OF: &str = "rustc 1.95.";

#[test]
fn unsound_types_are_refused_with_the_reason() {
    let cases = if words_are_comparable() { "tests/refused".into() } else { cases_without_words() };
    trybuild::TestCases::new().compile_fail(cases.join("*.rs"));
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

//! The ways in which tests are run.

use std::process::{Command, Output};

/// This program, run with `arguments` as by hand.
fn this(arguments: &[&str]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // What cargo-nextest tells the tests that it runs.
    command.env("NEXTEST", "1").env("NEXTEST_EXECUTION_MODE", "process-per-test");
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// As cargo-nextest does: it asks for the list, and runs each test by itself. `ci/spawn_matrix.sh` has the real one run
/// tests, where it is installed.
#[test]
fn a_test_may_be_the_only_one_of_its_process() {
    let name = "results::functions_generic_functions_and_closures_without_captures_run";
    let list = String::from_utf8(this(&["--list", "--format", "terse"]).stdout).unwrap();
    assert!(list.lines().any(|line| line == format!("{name}: test")), "{list}");
    this(&["--list", "--format", "terse", "--ignored"]);
    let said = String::from_utf8(this(&["--exact", name, "--nocapture"]).stdout).unwrap();
    assert!(said.contains("running 1 test\n") && said.contains("1 passed"), "{said}");
}

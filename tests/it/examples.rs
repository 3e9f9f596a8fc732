//! The examples of one topic each: they check their own output, and say what the reader is told that they say.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;

/// An example, which `cargo test` builds beside this test; `cargo test --test examples` does not.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let program = profile.join("examples").join(name);
    BUILT.call_once(|| {
        if !program.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--examples", "--profile"]);
            build.arg(if profile.ends_with("debug") { "dev" } else { "release" });
            assert!(build.status().unwrap().success(), "the examples do not build");
        }
    });
    program
}

/// Runs an example; returns what it printed.
fn run(name: &str) -> String {
    let program = program(name);
    let output = Command::new(program).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn process() {
    let said = run("process");
    assert!(said.contains("says: hello Ada, from greeter of MainProcess\n"), "{said}");
    assert!(said.ends_with("nobody is left\n"), "{said}");
}

#[test]
fn exit_codes() {
    let said = run("exit_codes");
    assert!(said.starts_with("  an exit hook\nreturns: Some(0)\n"), "{said}");
    assert!(said.contains("  an exit hook, here too\nexits: Some(42)\n"), "{said}");
    assert!(said.ends_with("kill: Some(-9)\ninterrupt: Some(-2)\n"), "{said}");
}

#[test]
fn squares_and_cubes() {
    let said = run("squares_and_cubes");
    assert!(said.ends_with("2: 4, 8\n3: 9, 27\n4: 16, 64\n5: 25, 125\n6: 36, 216\n7: 49, 343\n"), "{said}");
}

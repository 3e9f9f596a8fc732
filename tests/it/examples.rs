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
    if !program.exists() {
        BUILT.call_once(|| {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--examples", "--profile"]);
            build.arg(if profile.ends_with("debug") { "dev" } else { "release" });
            assert!(build.status().unwrap().success(), "the examples do not build");
        });
    }
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
    // What a shell starts in the background is deaf to interrupts, and hands that on.
    // SAFETY: sets what a signal does; there is no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
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

#[test]
fn global_and_shared() {
    let said = run("global_and_shared");
    assert!(
        said.starts_with("the global: 100 in the child, 1 here\nthe value: 100, the array: [1.0, 4.0, 9.0]\n"),
        "{said}"
    );
}

#[test]
fn bank() {
    let said = run("bank");
    assert!(
        said.starts_with("with a lock around it: 100 euros\nbehind a lock, after a holder's death: -999900"),
        "{said}"
    );
}

#[test]
fn event() {
    let said = run("event");
    assert!(said.ends_with("impatient: it was set in the end, after waits in vain\n"), "{said}");
}

#[test]
fn barrier() {
    let said = run("barrier");
    assert_eq!(
        said,
        "all have added up: [60, 60, 60]\n1 of 3 was told to be the leader\nwithout its party: the barrier is broken\n"
    );
}

#[test]
fn queue() {
    let said = run("queue");
    assert!(said.starts_with("101 items wait\n5050, "), "{said}");
}

#[test]
fn pipe() {
    let said = run("pipe");
    assert!(said.ends_with("12 squared is 144\nthe file says: from another process\n"), "{said}");
}

#[test]
fn joinable_queue() {
    assert_eq!(run("joinable_queue"), "all done: 1275\nworkers that died: 1\n");
}

#[test]
fn tour() {
    let said = run("tour");
    assert!(said.ends_with("\n17 of 17 stops are as they should be.\n"), "{said}");
    assert!(!said.contains("WRONG"), "{said}");
}

#[test]
fn an_example_of_one_topic_has_sixty_lines_at_most_and_a_test_here() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let mut topics = 0;
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(text.lines().count() <= 60, "{name}");
        assert!(text.contains("assert"), "{name} checks nothing");
        assert!(include_str!("examples.rs").contains(&format!("\nfn {name}() {{")), "{name} is not run");
        topics += 1;
    }
    assert!(topics >= 10, "{topics}");
}

//! A library that starts processes, used by a test: neither knows of `crosslane::init()`, and it is the test's program that
//! is executed anew, whoever runs the test, alone in its process (cargo-nextest) or with others (`cargo test`).

#[test]
fn a_librarys_functions_run_in_processes_of_a_test() {
    spawn::functions_run();
}

#[test]
fn and_its_deaths_and_panics_come_back() {
    spawn::panics_are_reported();
    spawn::deaths_are_reported();
}

//! A test without the standard harness, whose `main` does not know of processes: it runs in none of them.

use crosslane::spawn;

fn main() {
    assert_eq!(spawn(|n: u8| n + 1, 1).unwrap().join().unwrap(), 2);
    assert_eq!(crosslane::current_process().name(), "MainProcess");
}

//! Calls `crosslane::init()` in the process that the user starts, and forgets it in the children: an error for all of them,
//! and no process without end.

use crosslane::{Error, ProcessBuilder, spawn};

fn main() {
    let is_first = std::env::var_os("FIRST").is_some();
    if is_first {
        crosslane::init();
        let joined = ProcessBuilder::new().env_remove("FIRST").spawn(|n: u32| n + 1, 1).unwrap().join();
        assert!(matches!(&joined, Err(Error::NotInitialized)), "{joined:?}");
        println!("forgotten: {}", joined.unwrap_err());
    } else {
        let error = spawn(|n: u32| n + 1, 1).expect_err("it is a child itself");
        assert!(matches!(&error, Error::NotInitialized), "{error:?}");
        println!("in the child: {error}");
    }
}

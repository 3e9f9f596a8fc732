//! What a program does with processes that must work however it was built. Each of its functions checks one thing, and
//! panics if that does not hold.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crosslane::{Error, ProcessBuilder, spawn};

/// How often the constructor below has run in this process.
static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn construct() {
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = construct;

unsafe extern "C" {
    /// How often the constructor in late.c has run, which is linked behind crosslane's own.
    static late_constructed: u32;
}

/// Runs all of them; `other` is a program of another build.
pub fn check_all(other: &Path) {
    functions_run();
    panics_are_reported();
    deaths_are_reported();
    constructors_have_run_once();
    another_copy_of_the_program_will_do_and_another_build_will_not(other);
}

fn generic<T: std::fmt::Debug>(value: T) -> String {
    format!("{value:?}")
}

/// Functions, generic ones, closures and the standard library's run; nested too, and with large values.
pub fn functions_run() {
    assert_eq!(spawn(|(a, b)| a + b, (1, 2)).unwrap().join().unwrap(), 3);
    assert_eq!(spawn(generic::<Vec<u8>>, vec![1, 2]).unwrap().join().unwrap(), "[1, 2]");
    // A function of the standard library, which is a library of its own with `-C prefer-dynamic`.
    let of_std: fn(Duration) = std::thread::sleep;
    spawn(of_std, Duration::from_millis(1)).unwrap().join().unwrap();
    let nested = |n: u32| spawn(|n: u32| n * 2, n).unwrap().join().unwrap();
    assert_eq!(spawn(nested, 21).unwrap().join().unwrap(), 42);
    let large = spawn(|bytes: Vec<u8>| bytes, vec![7; 1 << 20]).unwrap().join().unwrap();
    assert_eq!(large.len(), 1 << 20);
}

/// A panic comes back with its message and place.
pub fn panics_are_reported() {
    let mut child =
        ProcessBuilder::new().stderr(Stdio::null()).spawn(|n: u32| -> u32 { panic!("boom {n}") }, 7).unwrap();
    child.wait().unwrap();
    assert_eq!(child.exit_code(), Some(if cfg!(panic = "abort") { -6 } else { 1 }));
    let Err(Error::Panicked(report)) = child.join() else { panic!("it panicked") };
    assert_eq!((report.message.as_str(), report.thread.as_str()), ("boom 7", "main"));
    assert!(report.location.starts_with("src/lib.rs:"), "{}", report.location);
    assert!(!report.backtrace.is_empty());
}

/// An abort and a stack overflow come back as deaths.
pub fn deaths_are_reported() {
    let died = spawn(|()| -> () { std::process::abort() }, ()).unwrap().join();
    assert!(matches!(&died, Err(Error::Died { .. })), "{died:?}");
    fn overflow(n: u64) -> u64 {
        if n == 0 { 0 } else { std::hint::black_box([n; 512]).iter().sum::<u64>() + overflow(n + 1) }
    }
    let child = ProcessBuilder::new().stderr(Stdio::null()).spawn(overflow, 1).unwrap();
    let died = child.join();
    assert!(matches!(&died, Err(Error::Died { .. })), "{died:?}");
}

fn constructors_have_run_once() {
    // SAFETY: nobody writes it once constructors have run.
    let constructed = |()| (CONSTRUCTED.load(Ordering::Relaxed), unsafe { late_constructed });
    assert_eq!(constructed(()), (1, 1));
    assert_eq!(spawn(constructed, ()).unwrap().join().unwrap(), (1, 1));
}

fn another_copy_of_the_program_will_do_and_another_build_will_not(other: &Path) {
    let own = std::env::current_exe().unwrap();
    let copy = Removed(own.with_extension("copy"));
    std::fs::copy(&own, &copy.0).unwrap();
    assert_eq!(ProcessBuilder::new().program(&copy.0).spawn(|n: u32| n + 1, 1).unwrap().join().unwrap(), 2);
    match ProcessBuilder::new().program(other).spawn(|n: u32| n + 1, 1).unwrap().join() {
        Err(Error::BuildMismatch { found, expected }) => assert_ne!(found, expected),
        other => panic!("{other:?}"),
    }
    match ProcessBuilder::new().program("/bin/true").spawn(|n: u32| n + 1, 1).unwrap().join() {
        Err(Error::NotInitialized) => {}
        other => panic!("{other:?}"),
    }
}

/// A file that goes with it.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

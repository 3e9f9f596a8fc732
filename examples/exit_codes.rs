//! How processes end, and the exit code of each, as Python gives it.
//!
//! `cargo run --example exit_codes`

use std::process::Stdio;
use std::time::Duration;

use crosslane::{Error, ProcessBuilder, at_exit};

fn returns(_: ()) {
    at_exit(|| println!("  an exit hook"));
}

fn panics(_: ()) {
    panic!("the trace goes to the standard error");
}

fn exits(_: ()) {
    at_exit(|| println!("  an exit hook, here too"));
    std::process::exit(42);
}

fn aborts(_: ()) {
    std::process::abort();
}

fn waits(_: ()) {
    loop {
        std::thread::park();
    }
}

fn main() -> Result<(), Error> {
    crosslane::init();
    let functions: [fn(()); 4] = [returns, panics, exits, aborts];
    for (function, (name, expected)) in
        functions.into_iter().zip([("returns", 0), ("panics", 1), ("exits", 42), ("aborts", -6)])
    {
        let mut child = ProcessBuilder::new().name(name).stderr(Stdio::null()).spawn(function, ())?;
        child.wait()?;
        let code = child.exit_code();
        println!("{name}: {code:?}");
        assert_eq!(code, Some(expected));
    }
    for (name, signal) in [("terminate", 15), ("kill", 9), ("interrupt", 2)] {
        let mut child = ProcessBuilder::new().name(name).spawn(waits, ())?;
        match name {
            "terminate" => child.terminate()?,
            "kill" => child.kill()?,
            _ => child.interrupt()?,
        }
        // A shell makes what it starts in the background deaf to interrupts, and children inherit that.
        child.wait_timeout(Duration::from_secs(10))?;
        println!("{name}: {:?}", child.exit_code());
        assert_eq!(child.exit_code(), Some(-signal));
    }
    Ok(())
}

//! A process: started with arguments, asked who it is, joined for its result, waited for with a limit, ended, let go.
//!
//! `cargo run --example process`

use std::time::Duration;

use crosslane::{Error, ProcessBuilder, active_children, current_process, parent_process, spawn};

fn greet(name: String) -> String {
    let me = current_process();
    let parent = parent_process().expect("this runs in a child");
    format!("hello {name}, from {} of {}", me.name(), parent.name())
}

fn main() -> Result<(), Error> {
    crosslane::init();

    // A function, or a closure that captures nothing: what it needs are its arguments.
    let child = ProcessBuilder::new().name("greeter").spawn(greet, "Ada".to_owned())?;
    let id = child.id();
    let greeting = child.join()?;
    println!("process {id} says: {greeting}");
    assert_eq!(greeting, "hello Ada, from greeter of MainProcess");

    // A timeout loses nothing. This one sleeps until somebody ends it.
    let mut sleeper = spawn(|()| std::thread::sleep(Duration::MAX), ())?;
    assert!(sleeper.join_timeout(Duration::from_millis(50))?.is_none());
    println!("{} lives: {}", sleeper.name(), sleeper.is_alive());
    sleeper.terminate()?;
    match sleeper.join() {
        Err(Error::Died { status, .. }) => println!("and has ended: {status}"),
        other => unreachable!("{other:?}"),
    }

    // A panic is an error that says where.
    match spawn(|n: u32| 100 / n, 0)?.join() {
        Err(Error::Panicked(report)) => {
            println!("panicked: {}, at {}", report.message, report.location);
            assert_eq!(report.message, "attempt to divide by zero");
        }
        other => unreachable!("{other:?}"),
    }

    // Dropped means killed. Detached means on its own; it is listed until it has ended.
    let dropped = spawn(|()| std::thread::sleep(Duration::MAX), ())?;
    assert_eq!(active_children().len(), 1);
    drop(dropped);
    assert!(active_children().is_empty());
    spawn(|()| (), ())?.detach();
    while !active_children().is_empty() {
        std::thread::yield_now();
    }
    println!("nobody is left");
    Ok(())
}

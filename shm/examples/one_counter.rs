//! Two processes, one lock, one counter: `crosslane-shm` and `crosslane-sync` alone.
//!
//! `cargo run -p crosslane-shm --example one_counter`. Or take two terminals and give both the same name:
//! `... --example one_counter -- NAME` in each; the first one creates the counter, the second finds it.

use std::process::Command;

use crosslane_shm::{CreateError, Mutex, Name, Options};
use crosslane_sync::LockError;

const STEPS: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().map_or_else(|| Ok(Name::random()), |name| Name::new(&name))?;
    let second = arguments.next().is_some();

    match Mutex::create(&name, 0_u64, &Options::new()) {
        // The first process: it owns the name, and starts the second unless somebody does so by hand.
        Ok(counter) => {
            let by_hand = std::env::args().len() > 1;
            let mut child = if by_hand {
                None
            } else {
                Some(Command::new(std::env::current_exe()?).args([name.as_str(), "second"]).spawn()?)
            };
            count(&counter)?;
            if let Some(child) = &mut child {
                assert!(child.wait()?.success(), "the second process failed");
                let total = counter.read().map_err(|_| "the counter is broken")?;
                println!("two processes counted to {total}");
                assert_eq!(total, 2 * STEPS);
            } else {
                println!("counted; start me again with the same name, then press enter to remove the counter");
                std::io::stdin().read_line(&mut String::new())?;
                println!("the counter stands at {}", counter.read().map_err(|_| "the counter is broken")?);
            }
        }
        // The second: the name is taken by a living process, so open what it made.
        Err(CreateError::NameInUse { .. }) => {
            count(&*Mutex::<u64>::open(&name, &Options::new())?)?;
            if !second {
                println!("counted on a counter that somebody else owns");
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Steps that no other process's steps get lost in.
fn count(counter: &Mutex<u64>) -> Result<(), String> {
    for _ in 0..STEPS {
        match counter.update(|n| *n += 1) {
            Ok(()) => {}
            // The other process was killed with the lock in its hands. One number is never half written: take it as it is.
            Err(LockError::OwnerDied(mut repair) | LockError::Poisoned(mut repair)) => {
                *repair += 1;
                repair.commit();
            }
            Err(error) => return Err(format!("{error:?}")),
        }
    }
    Ok(())
}

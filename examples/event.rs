//! An event: one process waits for it as long as it takes, another one for a tenth of a second at a time, until the parent
//! sets it.

use std::time::Duration;

use crosslane::{Event, Value, spawn};

fn wait_for_it((go, waiting): (Event, Value<u32>)) -> bool {
    waiting.fetch_add(1);
    go.wait();
    go.is_set()
}

fn wait_a_while((go, waiting): (Event, Value<u32>)) -> u32 {
    let mut in_vain = 0;
    while !go.wait_timeout(Duration::from_millis(100)) {
        in_vain += 1;
        if in_vain == 1 {
            waiting.fetch_add(1);
        }
    }
    in_vain
}

fn main() -> crosslane::Result<()> {
    crosslane::init();
    let (go, waiting) = (Event::new()?, Value::new(0_u32)?);
    let patient = spawn(wait_for_it, (go.clone(), waiting.clone()))?;
    let impatient = spawn(wait_a_while, (go.clone(), waiting.clone()))?;
    while waiting.get() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("main: both wait, and it is {}", if go.is_set() { "set" } else { "not set" });
    assert!(!go.is_set());
    go.set();
    println!("patient: it is set: {}", patient.join()?);
    let in_vain = impatient.join()?;
    println!("impatient: it was set in the end, after {}", if in_vain > 0 { "waits in vain" } else { "no wait" });
    assert!(in_vain > 0);
    Ok(())
}

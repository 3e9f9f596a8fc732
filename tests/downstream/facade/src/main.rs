//! Derives, shares and locks through `crosslane` alone.

use crosslane::shm::Mutex;
use crosslane::{LockError, Name, Options, Plain, Spsc};

#[derive(Debug, Clone, Copy, PartialEq, Plain)]
#[repr(C)]
struct Tick {
    price: f64,
    volume: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (name, options) = (Name::random(), Options::new());
    let ring = Spsc::<Tick>::create(&name, 4, &options)?;
    let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    let tick = Tick { price: 1.5, volume: 2 };
    tx.push(tick)?;
    assert_eq!(rx.pop()?, tick);
    assert!(matches!(rx.try_pop(), Err(crosslane::spsc::PopError::Empty)));
    let last = Mutex::create(&Name::random(), tick, &options)?;
    match last.update(|tick| tick.volume += 1) {
        Ok(()) => {}
        Err(LockError::OwnerDied(_)) => unreachable!("nobody died"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(last.read().map_err(|error| error.to_string())?.volume, 3);
    println!("a crate on crosslane alone runs");
    Ok(())
}

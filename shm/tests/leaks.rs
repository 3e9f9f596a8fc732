//! Ten thousand segments come and go, and everything is as before. Alone in its file: it counts what the process has.

mod family;

use crosslane_core::spsc::PopError;
use crosslane_shm::{Domain, Expected, Mutex, Segment, Spsc};
use family::{Dir, name};

const CYCLES: u32 = 10_000;

/// Open fds, mappings, and resident KiB of this process.
fn possessions() -> (usize, usize, u64) {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (fds, maps.lines().count(), pages * 4)
}

fn cycle(dir: &Dir, turn: u32) {
    let options = dir.options();
    match turn % 4 {
        0 => {
            let owner = Segment::create(&name("s"), 4096, &options).unwrap();
            let opened = Segment::open(&name("s"), &Expected::bytes(), &options).unwrap();
            drop((owner, opened));
        }
        1 => {
            let ring = Spsc::<u32>::anonymous(8, &options).unwrap();
            let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
            drop(ring);
            producer.push(turn).unwrap();
            assert_eq!(consumer.pop(), Ok(turn));
            drop(producer);
            assert_eq!(consumer.pop(), Err(PopError::Closed));
        }
        2 => {
            let mutex = Mutex::create(&name("m"), turn, &options).unwrap();
            mutex.update(|n| *n += 1).unwrap();
            let read_only = Segment::open(&name("m"), &Expected::bytes(), &options.read_only(true));
            assert!(read_only.is_err());
        }
        _ => {
            let owner = Segment::create(&name("r"), 64, &options).unwrap();
            let reader = Segment::open(&name("r"), &Expected::bytes(), &options.read_only(true)).unwrap();
            drop(owner);
            drop(reader);
        }
    }
}

#[test]
fn ten_thousand_cycles_leave_nothing() {
    let dir = Dir::new();
    let family = Domain::family().unwrap();
    // What is cached for good (slots, the boot id, the allocator's arenas) is there after a few.
    (0..100).for_each(|turn| cycle(&dir, turn));
    let before = possessions();
    (0..CYCLES).for_each(|turn| cycle(&dir, turn));
    let after = possessions();
    assert_eq!((before.0, before.1), (after.0, after.1), "fds, mappings");
    assert!(after.2 < before.2 + 1024, "resident KiB: {} before, {} after", before.2, after.2);
    assert!(dir.names().is_empty());
    assert!(family.me().is_some());
}

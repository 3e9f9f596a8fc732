//! Every interleaving of a writer of newest values and its readers, with the writer killed at every access.
#![cfg(crosslane_loom)]

use std::time::Duration;

use crosslane_core::WakeMode;
use crosslane_core::end::ClaimError;
use crosslane_core::latest::{Cells, ReadError, Reader, Writer};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};

/// Two words, so that a value can be torn; value `n` is `[n, n]`.
type Value = [u64; 2];

struct World {
    cells: Cells<'static, Value>,
    peers: Arc<Peers>,
    _memory: Memory,
}

type W = Writer<'static, Value, Process>;
type R = Reader<'static, Value, Process>;

impl World {
    fn new(cells: u32, mode: WakeMode) -> std::sync::Arc<Self> {
        let memory = Memory::new(Cells::<Value>::layout(cells).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let cells = unsafe { Cells::init(memory.ptr(), memory.len_bytes(), cells, mode) }.unwrap();
        std::sync::Arc::new(Self { cells, peers: Peers::new(4), _memory: memory })
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn writer(&self, index: u32) -> W {
        self.cells.writer(self.process(index)).unwrap()
    }

    fn reader(&self, index: u32) -> R {
        self.cells.reader(self.process(index))
    }
}

fn publish(writer: &mut W, n: u64) {
    writer.publish(&[n, n]).unwrap();
}

/// A whole value: its number is its version.
fn whole(reader: &R, value: Value) -> u64 {
    assert_eq!(value, [reader.version(); 2], "a torn value, or another than its version says");
    value[0]
}

/// Reads until the writer does not come between, which it does a few times at most.
fn read(reader: &mut R) -> u64 {
    let value = reader.read().unwrap();
    whole(reader, value)
}

fn readers(name: &str, cells: u32, values: u64, floor: u64) {
    check(name, Some(2), floor, move || {
        let world = World::new(cells, WakeMode::Polling);
        let mut writer = world.writer(0);
        publish(&mut writer, 1);
        let mut reader = world.reader(1);
        let writing = thread::spawn(move || {
            for n in 2..=values {
                publish(&mut writer, n);
            }
            writer
        });
        let first = read(&mut reader);
        let second = read(&mut reader);
        assert!(second >= first, "a reader never goes back");
        let _writer = writing.join().unwrap();
        assert_eq!(read(&mut reader), values);
        assert_eq!(reader.try_read_newer(), Err(ReadError::NothingNew));
    });
}

/// With two cells a reader is disturbed by one value, and torn by two.
#[test]
fn a_value_of_two_cells_is_whole_and_the_newest() {
    readers("latest.two_cells", 2, 3, 700);
}

#[test]
fn a_value_of_three_cells_is_whole_and_the_newest() {
    readers("latest.three_cells", 3, 4, 900);
}

/// The writer dies before each of its accesses; its successor goes on, and a reader gets nothing but whole values, none of
/// them older than the one before.
#[test]
fn a_killed_writer_is_succeeded_while_a_reader_reads() {
    check_deaths("latest.writer_killed", Some(2), 12, 1_000, |death| {
        let world = World::new(2, WakeMode::Polling);
        let mut first = world.writer(3);
        publish(&mut first, 1);
        drop(first);
        let writing = {
            let world = world.clone();
            thread::spawn(move || {
                let mut published = 1;
                let _ = until_killed(death, || {
                    let Ok(mut writer) = world.cells.writer(world.process(0)) else { return };
                    for n in 2..=3 {
                        if writer.publish(&[n, n]).is_ok() {
                            published = n;
                        }
                    }
                    std::mem::forget(writer);
                });
                world.peers.kill(world.process(0).id());
                published
            })
        };
        let mut reader = world.reader(1);
        let seen = read(&mut reader);
        let published = writing.join().unwrap();
        let mut successor = world.writer(2);
        let found = successor.version();
        assert!(found == published || found == published + 1, "{found} found, {published} published");
        assert!(seen <= found);
        assert_eq!(read(&mut reader), found);
        publish(&mut successor, found + 1);
        assert_eq!(read(&mut reader), found + 1);
    });
}

/// The victim is dead, its successor writes the cell that an old reader may still be at.
#[test]
fn a_successor_overwrites_nothing_unseen() {
    check_deaths("latest.successor_overtakes", Some(2), 5, 3_000, |death| {
        let world = World::new(2, WakeMode::Polling);
        let mut writer = world.writer(0);
        publish(&mut writer, 1);
        let mut reader = world.reader(1);
        let writing = {
            let world = world.clone();
            thread::spawn(move || {
                let _ = until_killed(death, || publish(&mut writer, 2));
                std::mem::forget(writer);
                world.peers.kill(world.process(0).id());
                let mut successor = world.writer(2);
                let next = successor.version() + 1;
                publish(&mut successor, next);
                publish(&mut successor, next + 1);
                std::mem::forget(successor);
                next + 1
            })
        };
        let first = read(&mut reader);
        let second = read(&mut reader);
        assert!(second >= first);
        let last = writing.join().unwrap();
        assert_eq!(read(&mut reader), last);
    });
}

fn sleepers(name: &str, mode: WakeMode, asymmetric: bool) {
    check(name, Some(2), 2_000, move || {
        let world = World::new(3, mode);
        let process = |i| if asymmetric { world.process(i).asymmetric() } else { world.process(i) };
        let mut writer = world.cells.writer(process(0)).unwrap();
        let mut reader = world.cells.reader(process(1));
        let reading = thread::spawn(move || {
            let mut last = 0;
            while last < 2 {
                let value = reader.read_newer().unwrap();
                assert!(whole(&reader, value) > last, "newer than the last");
                last = value[0];
            }
        });
        publish(&mut writer, 1);
        publish(&mut writer, 2);
        reading.join().unwrap();
        std::mem::forget(writer);
    });
}

#[test]
fn no_wake_is_lost_fenced() {
    sleepers("latest.sleep_fenced", WakeMode::Fenced, false);
}

#[test]
fn no_wake_is_lost_asymmetric() {
    sleepers("latest.sleep_asymmetric", WakeMode::Asymmetric, true);
}

/// One publication wakes all who sleep.
#[test]
fn every_sleeping_reader_is_woken() {
    check("latest.two_sleepers", Some(2), 5_000, || {
        let world = World::new(3, WakeMode::Fenced);
        let mut writer = world.writer(0);
        let reading = [1, 2].map(|index| {
            let mut reader = world.reader(index);
            thread::spawn(move || reader.read_newer())
        });
        publish(&mut writer, 1);
        for reader in reading {
            assert_eq!(reader.join().unwrap(), Ok([1, 1]));
        }
        std::mem::forget(writer);
    });
}

#[test]
fn a_sleeping_reader_gets_the_last_value_and_then_the_end() {
    check("latest.closed", Some(2), 1_000, || {
        let world = World::new(3, WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let reading = thread::spawn(move || (reader.read_newer(), reader.read_newer(), reader.read()));
        publish(&mut writer, 1);
        drop(writer);
        assert_eq!(reading.join().unwrap(), (Ok([1, 1]), Err(ReadError::Closed), Ok([1, 1])));
    });
}

/// A reader that may not write the memory polls, and sees the last value before the end.
#[test]
fn a_polling_reader_gets_the_last_value_and_then_the_end() {
    check("latest.view_closed", Some(3), 1_500, || {
        let world = World::new(3, WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.cells.view().reader(world.process(1));
        let ending = thread::spawn(move || {
            publish(&mut writer, 1);
            drop(writer);
        });
        let early = reader.read_newer_timeout(Duration::ZERO);
        assert!(matches!(early, Ok([1, 1]) | Err(ReadError::TimedOut)), "closed comes after the value: {early:?}");
        ending.join().unwrap();
        let (end, value) = (Err(ReadError::Closed), Ok([1, 1]));
        let late = reader.read_newer_timeout(Duration::ZERO);
        assert_eq!(late, if early.is_ok() { end } else { value });
    });
}

/// The writer dies before each of its accesses, among them between publishing and waking.
#[test]
fn a_sleeping_reader_gets_the_last_value_of_a_dead_writer_and_then_its_death() {
    check_deaths("latest.writer_died", Some(1), 10, 700, |death| {
        let world = World::new(3, WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let dead = world.process(0).id();
        let reading = thread::spawn(move || {
            let mut last = 0;
            loop {
                match reader.read_newer() {
                    Ok(value) => last = whole(&reader, value),
                    Err(end) => return (last, end),
                }
            }
        });
        let mut published = 0;
        let _ = until_killed(death, || {
            for n in 1..=2 {
                publish(&mut writer, n);
                published = n;
            }
        });
        std::mem::forget(writer);
        world.peers.kill(dead);
        let (last, end) = reading.join().unwrap();
        assert_eq!(end, ReadError::WriterDied(dead));
        assert!(last == published || last == published + 1);
    });
}

#[test]
fn one_writer_at_a_time() {
    check("latest.claim", None, 200, || {
        let world = World::new(2, WakeMode::Polling);
        let other = {
            let world = world.clone();
            thread::spawn(move || world.cells.writer(world.process(1)).map(std::mem::forget))
        };
        let mine = world.cells.writer(world.process(0)).map(std::mem::forget);
        let claims = [mine, other.join().unwrap()];
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1);
        assert!(claims.iter().any(|claim| matches!(claim, Err(ClaimError::EndTaken(_)))));
    });
}

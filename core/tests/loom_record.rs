//! Models of the record ring. Run with `RUSTFLAGS="--cfg crosslane_loom" cargo test --release -p crosslane-core
//! --features loom --test loom_record`.
#![cfg_attr(crosslane_loom, expect(clippy::cast_possible_truncation, reason = "small numbers of this test"))]
#![cfg(crosslane_loom)]

use std::time::Duration;

use crosslane_core::WakeMode;
use crosslane_core::end::{ClaimError, End};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::record::{PopError, PushError, Reader, Ring, Writer};

/// The smallest ring: eight words.
const CAPACITY: u32 = 64;
/// A record of four words and its length: a second one lies where part of the first was, and fits only after that was
/// released.
const LARGE: usize = 28;
/// A record of one word and its length: three fit at once.
const SMALL: usize = 5;

type W = Writer<'static, Process>;
type R = Reader<'static, Process>;

struct World {
    ring: Ring<'static>,
    peers: Arc<Peers>,
    /// Freed last.
    _memory: Memory,
}

impl World {
    fn new(mode: WakeMode, capacity: u32) -> Arc<Self> {
        let memory = Memory::new(Ring::layout(capacity).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), capacity, mode) }.unwrap();
        Arc::new(Self { ring, peers: Peers::new(4), _memory: memory })
    }

    /// A ring of which every word has been in use before.
    fn used(mode: WakeMode) -> Arc<Self> {
        Self::used_of(mode, CAPACITY)
    }

    fn used_of(mode: WakeMode, capacity: u32) -> Arc<Self> {
        let world = Self::new(mode, capacity);
        let (mut writer, mut reader) = (world.writer(3), world.reader(3));
        while writer.position() < u64::from(capacity) {
            push(&mut writer, 0xff, LARGE).unwrap();
            reader.try_read().unwrap().release();
        }
        drop((writer, reader));
        world
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn writer(&self, index: u32) -> W {
        self.ring.writer(self.process(index)).unwrap()
    }

    fn reader(&self, index: u32) -> R {
        self.ring.reader(self.process(index)).unwrap()
    }
}

fn push(writer: &mut W, n: u8, len: usize) -> Result<(), PushError> {
    writer.try_push(&vec![n; len])
}

/// The number that `buffer` is full of.
fn number(buffer: &[u8]) -> u8 {
    assert!(buffer.iter().all(|byte| *byte == buffer[0]), "torn: {buffer:?}");
    buffer[0]
}

fn pop(reader: &mut R) -> Result<u8, PopError> {
    let mut buffer = [0; 64];
    let len = reader.try_pop_into(&mut buffer)?;
    Ok(number(&buffer[..len]))
}

fn pop_blocking(reader: &mut R) -> Result<u8, PopError> {
    let mut buffer = [0; 64];
    let len = reader.pop_into(&mut buffer)?;
    Ok(number(&buffer[..len]))
}

fn drain(reader: &mut R, into: &mut Vec<u8>) {
    loop {
        match pop(reader) {
            Ok(n) => into.push(n),
            Err(PopError::Empty | PopError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn stream(name: &str, preemptions: usize, floor: u64, count: u8, len: usize) {
    check(name, Some(preemptions), floor, move || {
        let world = World::used(WakeMode::Polling);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let pushing = thread::spawn(move || {
            let pushed = (1..=count).take_while(|n| push(&mut writer, *n, len).is_ok()).count();
            (pushed, writer)
        });
        let mut got = Vec::new();
        for _ in 0..count {
            match pop(&mut reader) {
                Ok(n) => got.push(n),
                Err(error) => assert_eq!(error, PopError::Empty),
            }
        }
        let (pushed, mut writer) = pushing.join().unwrap();
        drain(&mut reader, &mut got);
        for n in pushed as u8 + 1..=count {
            push(&mut writer, n, len).unwrap();
            drain(&mut reader, &mut got);
        }
        assert_eq!(got, (1..=count).collect::<Vec<_>>());
    });
}

#[test]
fn records_that_wrap_arrive_whole_and_in_order() {
    stream("record.wrap", 4, 7_000, 3, LARGE);
}

#[test]
fn several_records_in_the_ring_arrive_whole_and_in_order() {
    stream("record.several", 3, 11_000, 4, SMALL);
}

#[test]
fn batches_on_both_sides_arrive_whole_and_in_order() {
    check("record.batch", Some(3), 1_400, || {
        let world = World::used(WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let pushing = thread::spawn(move || {
            let mut batch = writer.batch();
            let pushed = (1..=4).take_while(|n| batch.try_push(&[*n; SMALL]).is_ok()).count() as u8;
            drop(batch);
            (pushed, writer)
        });
        let mut got = Vec::new();
        let mut batch = reader.batch();
        for _ in 0..2 {
            let mut buffer = [0; SMALL];
            if batch.try_pop_into(&mut buffer).is_ok() {
                got.push(number(&buffer));
            }
        }
        drop(batch);
        let (pushed, _writer) = pushing.join().unwrap();
        drain(&mut reader, &mut got);
        assert!(pushed >= 3, "three fit an empty ring");
        assert_eq!(got, (1..=pushed).collect::<Vec<_>>());
    });
}

#[test]
fn a_reserved_record_is_committed_at_its_final_length() {
    check("record.reserve", Some(4), 1_600, || {
        let world = World::used(WakeMode::Polling);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        push(&mut writer, 1, SMALL).unwrap();
        let pushing = thread::spawn(move || {
            let mut pushed = 1;
            if let Ok(mut space) = writer.try_reserve(LARGE + 8) {
                space.copy_from(3, &[2; 3]);
                space.copy_from(0, &[2; 3]);
                drop(space);
            }
            if let Ok(mut space) = writer.try_reserve(LARGE) {
                space.copy_from(0, &[2; 6]);
                space.commit_len(6).unwrap();
                pushed += 1;
            }
            (pushed, writer)
        });
        let record = reader.try_read().unwrap();
        let mut buffer = [0; SMALL];
        record.copy_to(0, &mut buffer);
        assert_eq!(buffer, [1; SMALL]);
        drop(record);
        if let Ok(record) = reader.try_read() {
            assert_eq!(record.len_bytes(), 6);
            record.keep();
        }
        let (pushed, _writer) = pushing.join().unwrap();
        let mut got = vec![1];
        drain(&mut reader, &mut got);
        assert_eq!(got, (1..=pushed).collect::<Vec<_>>());
    });
}

/// The writer is killed before each of its accesses; its successor goes on while the reader moves.
fn writer_killed(name: &str, deaths: u32, floor: u64, len: usize) {
    check_deaths(name, Some(2), deaths, floor, move |death| {
        let world = World::used(WakeMode::Polling);
        let mut reader = world.reader(1);
        let mut first = world.writer(3);
        push(&mut first, 1, SMALL).unwrap();
        drop(first);
        let pushing = {
            let world = world.clone();
            thread::spawn(move || {
                let mut pushed = 1;
                let _ = until_killed(death, || {
                    let Ok(mut writer) = world.ring.writer(world.process(0)) else { return };
                    for n in 2..=3 {
                        if push(&mut writer, n, len).is_ok() {
                            assert_eq!(pushed, n - 1);
                            pushed = n;
                        }
                    }
                    std::mem::forget(writer);
                });
                world.peers.kill(world.process(0).id());
                pushed
            })
        };
        let mut got = Vec::new();
        got.extend(pop(&mut reader).ok());
        match world.ring.writer(world.process(2)) {
            // The victim is dead, or has not come yet and then goes on behind this one.
            Ok(mut successor) => {
                let early = push(&mut successor, 100, len).is_ok();
                drain(&mut reader, &mut got);
                drop(successor);
                let pushed = pushing.join().unwrap();
                drain(&mut reader, &mut got);
                assert_eq!(got.iter().filter(|n| **n == 100).count(), usize::from(early));
                got.retain(|n| *n != 100);
                published_prefix(&got, pushed);
            }
            Err(ClaimError::EndTaken(_)) => {
                got.extend(pop(&mut reader).ok());
                let pushed = pushing.join().unwrap();
                let mut successor = world.writer(2);
                if push(&mut successor, 100, len).is_err() {
                    drain(&mut reader, &mut got);
                    push(&mut successor, 100, len).unwrap();
                }
                drain(&mut reader, &mut got);
                assert_eq!(got.pop(), Some(100));
                published_prefix(&got, pushed);
            }
            Err(error) => panic!("{error}"),
        }
    });
}

/// The victim noted `pushed` after its last push returned: everything up to there arrived, and at most one record more,
/// which was committed in the step at which the victim died.
fn published_prefix(got: &[u8], pushed: u8) {
    let len = got.len() as u8;
    assert_eq!(got, (1..=len).collect::<Vec<_>>());
    assert!(len == pushed || len == pushed + 1, "{len} arrived, {pushed} were pushed");
}

#[test]
fn a_killed_writer_of_records_that_wrap_is_succeeded_while_the_reader_moves_on() {
    writer_killed("record.writer_killed_wrap", 22, 14_300, LARGE);
}

#[test]
fn a_killed_writer_of_several_records_is_succeeded_while_the_reader_moves_on() {
    writer_killed("record.writer_killed", 16, 7_000, SMALL);
}

/// A successor that finds records of its predecessor in the ring starts behind them, whatever the reader released.
#[test]
fn a_successor_overwrites_only_what_the_living_reader_has_released() {
    check("record.successor", Some(4), 7_200, || {
        let world = World::used(WakeMode::Polling);
        let mut reader = world.reader(1);
        let mut first = world.writer(0);
        for n in 1..=3 {
            push(&mut first, n, SMALL).unwrap();
        }
        std::mem::forget(first);
        world.peers.kill(world.process(0).id());
        let succeeding = {
            let world = world.clone();
            thread::spawn(move || {
                let mut writer = world.writer(2);
                let pushed = push(&mut writer, 4, SMALL).is_ok();
                (pushed, writer)
            })
        };
        let mut got = Vec::new();
        got.extend(pop(&mut reader).ok());
        got.extend(pop(&mut reader).ok());
        let (pushed, mut writer) = succeeding.join().unwrap();
        if !pushed {
            push(&mut writer, 4, SMALL).unwrap();
        }
        drain(&mut reader, &mut got);
        assert_eq!(got, [1, 2, 3, 4]);
    });
}

/// Two records are held and taken back, and read once more: the writer overwrites neither, though the reader has found the
/// ring empty in between.
#[test]
fn held_records_stay_whole_until_they_are_released() {
    check("record.held", Some(3), 2_000, || {
        let world = World::used(WakeMode::Polling);
        let (mut writer, mut reader) = (world.writer(0), world.reader(1));
        push(&mut writer, 1, SMALL).unwrap();
        push(&mut writer, 2, SMALL).unwrap();
        let pushing = thread::spawn(move || {
            let pushed = (3..=4).take_while(|n| push(&mut writer, *n, SMALL).is_ok()).count() as u8;
            (writer, pushed)
        });
        let mut buffer = [0; SMALL];
        for _ in 0..2 {
            let mut held = reader.hold_batch();
            for n in 1..=2 {
                held.try_pop_into(&mut buffer).unwrap();
                assert_eq!(number(&buffer), n);
            }
            if held.try_pop_into(&mut buffer).is_ok() {
                assert_eq!(number(&buffer), 3);
            }
        }
        let mut held = reader.hold_batch();
        held.try_pop_into(&mut buffer).unwrap();
        held.try_pop_into(&mut buffer).unwrap();
        held.release();
        let (_writer, pushed) = pushing.join().unwrap();
        let mut got = Vec::new();
        drain(&mut reader, &mut got);
        assert_eq!(got, (3..=2 + pushed).collect::<Vec<_>>());
    });
}

/// The reader is killed before each of its accesses; its successor gets everything that was not released, in order.
fn reader_killed(name: &str, deaths: u32, floor: u64, batched: bool) {
    check_deaths(name, Some(2), deaths, floor, move |death| {
        // A batch releases after each quarter of the ring: two of these records, where the ring has 128 bytes.
        let world = World::used_of(WakeMode::Polling, if batched { 2 * CAPACITY } else { CAPACITY });
        let mut writer = world.writer(0);
        // The end of one who is dead, for a writer does not push to a closed one.
        std::mem::forget(world.reader(3));
        world.peers.kill(world.process(3).id());
        push(&mut writer, 1, SMALL).unwrap();
        push(&mut writer, 2, SMALL).unwrap();
        let reading = {
            let world = world.clone();
            thread::spawn(move || {
                let mut seen = Vec::new();
                let _ = until_killed(death, || {
                    let Ok(mut reader) = world.ring.reader(world.process(1)) else { return };
                    if batched {
                        see_two_in_a_batch(&mut reader, &mut seen);
                    } else {
                        see_two(&mut reader, &mut seen);
                    }
                    std::mem::forget(reader);
                });
                world.peers.kill(world.process(1).id());
                seen
            })
        };
        let mut last = 2;
        while last < 4 && push(&mut writer, last + 1, SMALL).is_ok() {
            last += 1;
        }
        let mut got = Vec::new();
        match world.ring.reader(world.process(2)) {
            Ok(mut early) => {
                got.extend(pop(&mut early).ok());
                drop(early);
                // The victim may come before or after, and sees a run of its own.
                let seen = reading.join().unwrap();
                let mut successor = world.reader(3);
                drain(&mut successor, &mut got);
                for n in 1..=last {
                    assert!(got.contains(&n) || seen.contains(&n), "record {n} is lost: {got:?} {seen:?}");
                }
                assert!(got.is_sorted_by(|a, b| a < b) && seen.is_sorted_by(|a, b| a < b), "{got:?} {seen:?}");
            }
            Err(ClaimError::EndTaken(_)) => {
                let seen = reading.join().unwrap();
                assert_eq!(seen, (1..=seen.len() as u8).collect::<Vec<_>>());
                let mut successor = world.reader(2);
                drain(&mut successor, &mut got);
                let next = got.first().copied().unwrap_or(last + 1);
                assert_eq!(got, (next..=last).collect::<Vec<_>>());
                assert!(usize::from(next) <= seen.len() + 1, "record {} is lost", seen.len() + 1);
                let kept = if batched { 2 } else { 1 };
                assert!(usize::from(next) + kept > seen.len(), "record {next} was released and comes again");
                push(&mut writer, 100, SMALL).unwrap();
                assert_eq!(pop(&mut successor), Ok(100));
            }
            Err(error) => panic!("{error}"),
        }
    });
}

fn see_two(reader: &mut R, seen: &mut Vec<u8>) {
    for _ in 0..2 {
        if let Ok(record) = reader.try_read() {
            let mut buffer = [0; SMALL];
            record.copy_to(0, &mut buffer);
            seen.push(number(&buffer));
        }
    }
}

fn see_two_in_a_batch(reader: &mut R, seen: &mut Vec<u8>) {
    let mut batch = reader.batch();
    for _ in 0..2 {
        if let Ok(record) = batch.try_read() {
            let mut buffer = [0; SMALL];
            record.copy_to(0, &mut buffer);
            seen.push(number(&buffer));
        }
    }
}

#[test]
fn a_killed_reader_is_succeeded_while_the_writer_moves_on() {
    reader_killed("record.reader_killed", 13, 4_400, false);
}

#[test]
fn a_reader_killed_in_a_batch_is_succeeded_while_the_writer_moves_on() {
    reader_killed("record.batch_killed", 12, 3_500, true);
}

fn sleepers(name: &str, floor: u64, mode: WakeMode, asymmetric: bool) {
    check(name, Some(2), floor, move || {
        let world = World::used(mode);
        let process = |i| if asymmetric { world.process(i).asymmetric() } else { world.process(i) };
        let mut writer = world.ring.writer(process(0)).unwrap();
        let mut reader = world.ring.reader(process(1)).unwrap();
        let popping = thread::spawn(move || (0..2).map(|_| pop_blocking(&mut reader).unwrap()).collect::<Vec<_>>());
        // The second waits for the first to be released.
        writer.push(&[1; LARGE]).unwrap();
        writer.push(&[2; LARGE]).unwrap();
        assert_eq!(popping.join().unwrap(), [1, 2]);
    });
}

#[test]
fn no_wake_is_lost_fenced() {
    sleepers("record.sleep_fenced", 2_800, WakeMode::Fenced, false);
}

#[test]
fn no_wake_is_lost_asymmetric() {
    sleepers("record.sleep_asymmetric", 2_800, WakeMode::Asymmetric, true);
}

/// Both sides put their wakes off, and pay them before they sleep.
#[test]
fn no_wake_is_lost_in_batches() {
    check("record.sleep_batch", Some(2), 3_600, || {
        let world = World::used(WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let popping = thread::spawn(move || {
            let mut got = Vec::new();
            while got.len() < 2 {
                got.push(pop_blocking(&mut reader).unwrap());
                let mut batch = reader.batch();
                let mut buffer = [0; LARGE];
                if batch.try_pop_into(&mut buffer).is_ok() {
                    got.push(number(&buffer));
                }
            }
            got
        });
        let mut batch = writer.batch();
        batch.push(&[1; LARGE]).unwrap();
        batch.push(&[2; LARGE]).unwrap();
        drop(batch);
        assert_eq!(popping.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_sleeping_reader_drains_and_then_sees_closed() {
    check("record.closed", Some(3), 15_000, || {
        let world = World::used(WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let popping = thread::spawn(move || (pop_blocking(&mut reader), pop_blocking(&mut reader), pop(&mut reader)));
        push(&mut writer, 1, SMALL).unwrap();
        drop(writer);
        assert_eq!(popping.join().unwrap(), (Ok(1), Err(PopError::Closed), Err(PopError::Closed)));
    });
}

#[test]
fn a_sleeping_writer_of_a_full_ring_sees_that_its_reader_has_ended() {
    check("record.reader_closed", Some(3), 15_800, || {
        let world = World::used(WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        push(&mut writer, 1, LARGE).unwrap();
        let pushing = thread::spawn(move || {
            let second = writer.push(&[2; LARGE]);
            (second, writer.push(&[3; LARGE]))
        });
        assert_eq!(pop(&mut reader), Ok(1));
        drop(reader);
        let (second, third) = pushing.join().unwrap();
        // Between release and close there is room for one.
        assert!(second == Ok(()) || second == Err(PushError::Closed), "{second:?}");
        assert_eq!(third, Err(PushError::Closed));
    });
}

/// The writer dies before each of its accesses, among them between committing and waking.
#[test]
fn a_sleeping_reader_gets_the_last_record_of_a_dead_writer_and_then_its_death() {
    check_deaths("record.writer_died", Some(2), 12, 11_000, |death| {
        let world = World::used(WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let dead = world.process(0).id();
        // A sleep may end without a reason, just before the last record.
        world.peers.end_slices();
        let popping = thread::spawn(move || {
            let mut got = Vec::new();
            loop {
                match pop_blocking(&mut reader) {
                    Ok(n) => got.push(n),
                    Err(end) => return (got, end),
                }
            }
        });
        let mut pushed = 0;
        let _ = until_killed(death, || {
            push(&mut writer, 1, SMALL).unwrap();
            pushed = 1;
        });
        std::mem::forget(writer);
        world.peers.kill(dead);
        let (got, end) = popping.join().unwrap();
        assert_eq!(end, PopError::PeerDied(dead));
        published_prefix(&got, pushed);
    });
}

/// The reader of a full ring dies before each of its accesses, among them between releasing and waking.
#[test]
fn a_sleeping_writer_uses_the_last_room_of_a_dead_reader_and_then_sees_its_death() {
    check_deaths("record.reader_died", Some(2), 13, 12_500, |death| {
        let world = World::used(WakeMode::Fenced);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        let dead = world.process(1).id();
        // A sleep may end without a reason, just before the last release.
        world.peers.end_slices();
        push(&mut writer, 1, LARGE).unwrap();
        let pushing = thread::spawn(move || {
            let second = writer.push(&[2; LARGE]);
            let third = if second.is_ok() { writer.push(&[3; LARGE]) } else { second };
            (second, third, writer)
        });
        let mut popped = false;
        let _ = until_killed(death, || popped = pop(&mut reader) == Ok(1));
        std::mem::forget(reader);
        world.peers.kill(dead);
        let (second, third, _writer) = pushing.join().unwrap();
        assert_eq!(third, Err(PushError::PeerDied(dead)));
        assert!(second.is_ok() || !popped, "the room that was released is used");
        let mut successor = world.reader(2);
        let mut got = Vec::new();
        drain(&mut successor, &mut got);
        assert_eq!(got, [if second.is_ok() { 2 } else { 1 }]);
    });
}

#[test]
fn a_deadline_ends_a_wait_on_either_side() {
    check("record.deadline", Some(2), 1, || {
        let world = World::new(WakeMode::Fenced, CAPACITY);
        let mut writer = world.writer(0);
        let mut reader = world.reader(1);
        assert_eq!(reader.pop_into_timeout(&mut [0; 8], Duration::ZERO), Err(PopError::TimedOut));
        push(&mut writer, 1, LARGE).unwrap();
        assert_eq!(writer.push_timeout(&[2; LARGE], Duration::ZERO), Err(PushError::TimedOut));
        assert!(matches!(world.ring.writer_end(), End::Owned(_)));
    });
}

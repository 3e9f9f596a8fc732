//! The newest value in one process: what readers get, and the errors.
#![cfg(not(crosslane_loom))]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crosslane_core::end::{ClaimError, End};
use crosslane_core::latest::{Cells, CellsError, ReadError, View};
use crosslane_core::wait::Spin;
use crosslane_core::{OwnerId, Plain, WakeMode};

const BYTES: usize = 1 << 20;

#[repr(C, align(128))]
struct Memory([u8; BYTES]);

fn me(index: u32) -> Spin {
    Spin::new(OwnerId::new(index, 1).unwrap())
}

/// Cells in memory that is never freed.
fn cells<T: Plain>(cells: u32) -> Cells<'static, T> {
    let memory = vec![0_u8; BYTES + 128].leak();
    let offset = memory.as_ptr().align_offset(align_of::<Memory>());
    let memory = NonNull::from(&mut memory[offset..]).cast();
    // SAFETY: the memory lives for ever and is used for these cells alone.
    unsafe { Cells::init(memory, BYTES, cells, WakeMode::Fenced) }.unwrap()
}

#[test]
fn readers_get_the_newest_value_and_know_whether_it_is_new() {
    let cells = cells::<u32>(3);
    let (mut reader, mut late) = (cells.reader(me(1)), cells.view().reader(me(2)));
    assert_eq!(reader.read(), Err(ReadError::Empty));
    assert_eq!(reader.try_read_newer(), Err(ReadError::NothingNew));
    let mut writer = cells.writer(me(0)).unwrap();
    for n in 1..=10 {
        writer.publish(&(n * 7)).unwrap();
        assert!(reader.is_newer());
        assert_eq!((reader.try_read_newer(), reader.version()), (Ok(n * 7), u64::from(n)));
        assert_eq!(reader.try_read_newer(), Err(ReadError::NothingNew));
        assert_eq!(reader.read(), Ok(n * 7), "again");
    }
    assert_eq!(late.read_newer(), Ok(70), "what came between is skipped");
    let mut value = 0;
    late.read_into(&mut value).unwrap();
    assert_eq!((value, late.version(), cells.version(), writer.version()), (70, 10, 10, 10));
}

#[test]
fn a_wait_ends_by_the_deadline_or_the_writers_end() {
    let cells = cells::<[u8; 5]>(2);
    let (mut reader, mut view) = (cells.reader(me(1)), cells.view().reader(me(2)));
    let soon = Duration::from_millis(3);
    assert_eq!(reader.read_newer_timeout(soon), Err(ReadError::TimedOut), "there is no writer yet");
    let mut writer = cells.writer(me(0)).unwrap();
    assert_eq!(reader.read_newer_timeout(soon), Err(ReadError::TimedOut));
    assert_eq!(view.read_newer_timeout(soon), Err(ReadError::TimedOut));
    writer.publish(b"hello").unwrap();
    assert_eq!((reader.read_newer(), view.read_newer()), (Ok(*b"hello"), Ok(*b"hello")));
    drop(writer);
    assert_eq!(cells.writer_end(), End::Closed);
    assert_eq!((reader.read_newer(), view.read_newer()), (Err(ReadError::Closed), Err(ReadError::Closed)));
    assert_eq!(reader.read(), Ok(*b"hello"), "the last value stays");
    let mut successor = cells.writer(me(3)).unwrap();
    assert_eq!(successor.version(), 1);
    successor.publish(b"again").unwrap();
    assert_eq!((reader.read_newer(), view.read_newer()), (Ok(*b"again"), Ok(*b"again")));
}

#[test]
fn there_is_one_writer() {
    let cells = cells::<u64>(3);
    let writer = cells.writer(me(0)).unwrap();
    assert_eq!(cells.writer(me(1)).unwrap_err(), ClaimError::EndTaken(OwnerId::new(0, 1).unwrap()));
    drop(writer);
    assert!(cells.writer(me(1)).is_ok());
}

/// Values whose words are all the same, of several sizes, read by two threads while one writes.
fn whole<T: Plain>(count: u32, make: impl Fn(u64) -> T + Sync, words: impl Fn(&T) -> Vec<u64> + Sync) {
    let (cells, done) = (cells::<T>(count), AtomicBool::new(false));
    let (cells, done, words) = (&cells, &done, &words);
    std::thread::scope(|scope| {
        for index in [1, 2] {
            scope.spawn(move || {
                let mut reader = if index == 1 { cells.reader(me(1)) } else { cells.view().reader(me(2)) };
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    match reader.read() {
                        Ok(value) => {
                            let words = words(&value);
                            assert!(words.iter().all(|word| *word == words[0]), "torn: {words:?}");
                            assert!(words[0] == reader.version() && words[0] >= last);
                            last = words[0];
                        }
                        Err(error) => assert!(matches!(error, ReadError::Empty | ReadError::Busy)),
                    }
                }
            });
        }
        let mut writer = cells.writer(me(0)).unwrap();
        (1..20_000).for_each(|n| writer.publish(&make(n)).unwrap());
        done.store(true, Ordering::Release);
    });
}

#[test]
fn values_of_every_size_are_whole() {
    whole::<u64>(2, |n| n, |value| vec![*value]);
    whole::<[u64; 8]>(2, |n| [n; 8], |value| value.to_vec());
    whole::<[u64; 40]>(3, |n| [n; 40], |value| value.to_vec());
    whole::<[u64; 1000]>(4, |n| [n; 1000], |value| value.to_vec());
}

#[test]
fn what_does_not_make_cells_is_refused() {
    for bad in [0, 1, 256] {
        assert_eq!(Cells::<u64>::layout(bad), Err(CellsError::Cells { cells: bad }));
    }
    let layout = Cells::<u64>::layout(3).unwrap();
    assert_eq!((layout.size(), layout.align()), (384 + 3 * 64, 128));
    let memory = NonNull::from(vec![0_u128; 128].leak()).cast::<u8>();
    let offset = memory.as_ptr().align_offset(128);
    let attach = |offset: usize, len_bytes| {
        // SAFETY: inside the memory.
        let memory = unsafe { memory.add(offset) };
        // SAFETY: the memory lives for ever; nothing is accessed.
        unsafe { View::<u64>::attach(memory, len_bytes, 3) }
    };
    assert_eq!(attach(offset, 575).unwrap_err(), CellsError::TooShort { needed: 576, found: 575 });
    assert_eq!(attach(offset + 64, 576).unwrap_err(), CellsError::Misaligned);
    assert_eq!(attach(offset, 576).unwrap().cells(), 3);
}

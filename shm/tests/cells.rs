//! Arrays and newest values in segments, between processes that are forked, executed anew and killed.

mod family;

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use crosslane_core::Plain;
use crosslane_core::WakeMode;
use crosslane_core::array::OutOfBounds;
use crosslane_core::end::{ClaimError, End};
use crosslane_core::latest::{CellsError, PublishError, ReadError};
use crosslane_shm::header::HeaderError;
use crosslane_shm::{Array, CreateError, Latest, Mutex, OpenError, Options, RawSegment, Slab, Slabs};
use family::{Dir, fork, name, watchdog};

const LONG: Duration = Duration::from_secs(60);
/// What a polling reader sleeps, and some more.
const POLL: Duration = Duration::from_millis(20);

/// A version of a struct, and one of the same size with two fields swapped.
mod first {
    #[derive(Clone, Copy, Debug, PartialEq, crosslane_core::Plain)]
    #[repr(C)]
    pub(super) struct Tick {
        pub(super) bid: f64,
        pub(super) ask: f64,
    }
}

mod second {
    #[derive(Clone, Copy, Debug, PartialEq, crosslane_core::Plain)]
    #[repr(C)]
    pub(super) struct Tick {
        pub(super) ask: f64,
        pub(super) bid: f64,
    }
}

/// This test binary, as another program that runs only the test `entry`.
fn program(entry: &str, dir: &Dir) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", entry, "--ignored", "--nocapture"]).env("CROSSLANE_TEST_DIR", dir.path());
    command.stdout(Stdio::null());
    command
}

fn directory() -> Option<Options> {
    std::env::var_os("CROSSLANE_TEST_DIR").map(|directory| Options::new().directory(directory))
}

#[test]
fn a_program_with_two_fields_swapped_is_refused_with_found_and_expected() {
    let dir = Dir::new();
    let ticks = Array::<first::Tick>::create(&name("ticks"), 4, &dir.options()).unwrap();
    let latest = Latest::<first::Tick>::create(&name("tick"), &dir.options()).unwrap();
    ticks.set(1, first::Tick { bid: 1.0, ask: 2.0 });
    latest.writer().unwrap().publish(&first::Tick { bid: 3.0, ask: 4.0 }).unwrap();
    assert!(program("entry_with_swapped_fields", &dir).status().unwrap().success());
    assert_eq!(ticks.get(1).bid, 1.0);
}

#[test]
#[ignore = "the other program of a_program_with_two_fields_swapped_is_refused_with_found_and_expected"]
fn entry_with_swapped_fields() {
    let Some(options) = directory() else { return };
    let refused = HeaderError::WrongType {
        found: first::Tick::FINGERPRINT,
        expected: second::Tick::FINGERPRINT,
        type_name: std::any::type_name::<second::Tick>(),
    };
    assert_eq!(size_of::<first::Tick>(), size_of::<second::Tick>());
    let error = Array::<second::Tick>::open(&name("ticks"), &options).unwrap_err();
    assert_eq!(error, OpenError::Header(refused));
    let text = error.to_string();
    assert!(text.contains("second::Tick") && text.contains(&format!("{:x}", first::Tick::FINGERPRINT)), "{text}");
    assert_eq!(Latest::<second::Tick>::open(&name("tick"), &options).unwrap_err(), OpenError::Header(refused));
    assert_eq!(Latest::<second::Tick>::open_view(&name("tick"), &options).unwrap_err(), OpenError::Header(refused));
    // The same version is let in.
    assert_eq!(Array::<first::Tick>::open(&name("ticks"), &options).unwrap().get(1).ask, 2.0);
    let view = Latest::<first::Tick>::open_view(&name("tick"), &options).unwrap();
    assert_eq!(view.reader().read().unwrap().bid, 3.0);
}

#[test]
fn an_array_is_the_same_by_name_by_fd_in_a_slab_and_for_reading_only() {
    let dir = Dir::new();
    let named = Array::<u32>::create(&name("a"), 1000, &dir.options()).unwrap();
    fork(|_| {
        let array = Array::<u32>::open(&name("a"), &dir.options()).unwrap();
        array.write_slice(10, &[7; 500]);
        array.elements().fetch_add(10, 5);
    })
    .join();
    let view = Array::<u32>::open_view(&name("a"), &dir.options()).unwrap();
    let mut out = [0; 502];
    view.read_slice(9, &mut out);
    assert_eq!((view.len(), view.is_empty(), view.get(10), view.try_get(509)), (1000, false, 12, Ok(7)));
    assert_eq!((out[0], out[1], out[2], out[500], out[501]), (0, 12, 7, 7, 0));
    assert_eq!(view.elements().try_get(1000), Err(OutOfBounds { start: 1000, end: None, len: 1000 }));
    assert!(view.segment().domain().is_none());
    let read_only = dir.options().read_only(true);
    assert_eq!(Array::<u32>::open(&name("a"), &read_only).unwrap_err(), OpenError::ReadOnly);
    drop(named);
    assert_eq!(view.elements().get(10), 12, "the view keeps the memory");

    let anonymous = Array::<f32>::anonymous(16, &Options::new()).unwrap();
    let fd = anonymous.as_fd().try_clone_to_owned().unwrap();
    let same = Array::<f32>::from_fd(fd, &Options::new()).unwrap();
    fork(|_| {
        let same = same.rejoin().unwrap();
        for _ in 0..100 {
            same.elements().fetch_add_float(3, 0.5).unwrap();
        }
    })
    .join();
    assert_eq!((anonymous.get(3), anonymous.len(), anonymous.is_empty()), (50.0, 16, false));

    let slab = Slab::anonymous(&Options::new()).unwrap();
    let small = Array::<u8, _>::in_slab(&slab, 5).unwrap();
    small.set(4, 9);
    let again = Array::<u8, _>::from_slab(&slab, small.object_id().unwrap()).unwrap();
    assert_eq!((again.len(), again.get(4)), (5, 9));
}

#[test]
fn counters_of_several_processes_are_exact_and_parts_are_disjoint() {
    const EACH: u64 = 20_000;
    let array = Array::<u64>::anonymous(64, &Options::new()).unwrap();
    let children: Vec<_> = (0..3)
        .map(|n| {
            let array = &array;
            fork(move |_| {
                let array = array.rejoin().unwrap();
                (0..EACH).for_each(|_| _ = array.elements().fetch_add(0, 1));
                let rest = array.elements().slice(1..64);
                let part = rest.parts(3).nth(n).unwrap();
                let start = 1 + 21 * n;
                assert_eq!(part.len(), 21);
                // SAFETY: each process takes another part, and the test looks when all have ended.
                let mut part = unsafe { array.own(start..start + 21) };
                part.iter_mut().for_each(|element| *element = n as u64);
            })
        })
        .collect();
    children.into_iter().for_each(family::Child::join);
    assert_eq!(array.get(0), 3 * EACH);
    assert!((0..63).all(|i| array.get(1 + i) == i as u64 / 21));
}

#[test]
fn a_killed_writer_is_succeeded_and_its_readers_are_told() {
    let dir = Dir::new();
    let latest = Latest::<[u64; 32]>::create(&name("l"), &dir.options().cells(4)).unwrap();
    assert_eq!((latest.cells(), latest.writer_end()), (4, End::Vacant));
    let mut reader = latest.reader().unwrap();
    assert_eq!(reader.read(), Err(ReadError::Empty));
    let mut last = 0;
    for _ in 0..10 {
        let mut child = fork(|parent| {
            let latest = Latest::<[u64; 32]>::open(&name("l"), &dir.options()).unwrap();
            let mut writer = latest.writer().unwrap();
            parent.tell(latest.segment().domain().unwrap().me().unwrap().to_word());
            for n in writer.version() + 1.. {
                writer.publish(&[n; 32]).unwrap();
            }
        });
        let dead = child.id();
        let taken = latest.writer().unwrap_err();
        assert_eq!(taken, ClaimError::EndTaken(dead));
        let goal = last + 1000;
        while last < goal {
            match reader.read_newer_timeout(LONG) {
                Ok(value) => {
                    assert!(value.iter().all(|n| *n == reader.version()) && value[0] > last, "{value:?}");
                    last = value[0];
                }
                Err(error) => assert_eq!(error, ReadError::Busy),
            }
        }
        child.kill();
        let end = loop {
            match reader.read_newer_timeout(LONG) {
                Ok(value) => last = value[0],
                Err(end) => break end,
            }
        };
        assert_eq!(end, ReadError::WriterDied(dead));
        assert_eq!(reader.read().unwrap(), [last; 32]);
    }
    assert_eq!(latest.writer().unwrap().version(), last);
}

#[test]
fn a_sleeping_reader_is_woken_in_every_wake_mode_and_a_view_polls() {
    let dir = Dir::new();
    let dir = &dir;
    for mode in [WakeMode::Fenced, WakeMode::Asymmetric, WakeMode::Polling] {
        let latest = Latest::<u64>::create(&name("l"), &dir.options().wake_mode(mode)).unwrap();
        let mut writer = latest.writer().unwrap();
        let mut readers: Vec<_> = [false, true]
            .into_iter()
            .map(|view| {
                fork(move |parent| {
                    let (mut reader, mut polling);
                    let mut next: Box<dyn FnMut() -> Result<u64, ReadError>> = if view {
                        polling = Latest::<u64>::open_view(&name("l"), &dir.options()).unwrap().reader();
                        Box::new(move || polling.read_newer())
                    } else {
                        reader = Latest::<u64>::open(&name("l"), &dir.options()).unwrap().reader().unwrap();
                        Box::new(move || reader.read_newer())
                    };
                    parent.tell(0);
                    loop {
                        match next() {
                            Ok(n) => parent.tell(u32::try_from(n).unwrap()),
                            Err(end) => break assert_eq!(end, ReadError::Closed),
                        }
                    }
                })
            })
            .collect();
        readers.iter_mut().for_each(|reader| assert_eq!(reader.hear(), 0));
        for n in 1..=20 {
            writer.publish(&n).unwrap();
            readers.iter_mut().for_each(|reader| assert_eq!(u64::from(reader.hear()), n, "{mode:?}"));
        }
        drop(writer);
        readers.into_iter().for_each(family::Child::join);
    }
}

#[test]
fn a_view_reports_no_death_and_a_fork_child_publishes_nothing() {
    let latest = Latest::<u64>::anonymous(&Options::new()).unwrap();
    let mut writer = latest.writer().unwrap();
    writer.publish(&1).unwrap();
    fork(|_| {
        assert_eq!(writer.publish(&2), Err(PublishError::Forked));
        assert_eq!(latest.writer().unwrap_err(), ClaimError::Forked);
        assert!(matches!(latest.rejoin().unwrap().writer(), Err(ClaimError::EndTaken(_))));
        assert_eq!(latest.reader().unwrap().read(), Ok(1));
    })
    .join();
    assert_eq!(latest.reader().unwrap().read(), Ok(1));
    let dir = Dir::new();
    let named = Latest::<u64>::create(&name("l"), &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let _writer = Latest::<u64>::open(&name("l"), &dir.options()).unwrap().writer().unwrap();
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    child.kill();
    let mut view = Latest::<u64>::open_view(&name("l"), &dir.options()).unwrap().reader();
    assert_eq!(view.read_newer_timeout(POLL), Err(ReadError::TimedOut));
    assert!(matches!(named.reader().unwrap().read_newer(), Err(ReadError::WriterDied(_))));
}

#[test]
fn a_newest_value_in_a_slab_is_found_by_its_id() {
    watchdog();
    let made = Latest::<u64, _>::in_slab(Slabs::family(), &Options::new().cells(2)).unwrap();
    made.writer().unwrap().publish(&6).unwrap();
    let slab = Slab::from_fd(made.as_fd().try_clone_to_owned().unwrap(), &Options::new()).unwrap();
    let same = Latest::<u64, _>::from_slab(&slab, made.object_id().unwrap()).unwrap();
    assert_eq!((same.reader().unwrap().read(), same.cells()), (Ok(6), 2));
}

#[test]
fn what_does_not_make_an_array_or_cells_is_refused() {
    let options = Options::new();
    let error = Latest::<u64>::anonymous(&options.clone().cells(1)).unwrap_err();
    assert_eq!(error, CreateError::Latest(CellsError::Cells { cells: 1 }));
    assert_eq!(error.to_string(), "`Options::cells`: 1 cells: 2 to 255 are possible");
    let wanted = |made: Result<Array<u64, _>, CreateError>| match made.unwrap_err() {
        CreateError::NotEnoughMemory { wanted, available } if available < wanted => wanted,
        error => panic!("{error}"),
    };
    assert_eq!(wanted(Array::anonymous(u64::MAX, &options)), u64::MAX);
    assert_eq!(wanted(Array::in_slab(Slabs::family(), u64::MAX)), u64::MAX);
    assert_eq!(wanted(Array::anonymous((1 << 60) + 1, &options)), (1 << 63) + 8);
    assert!(wanted(Array::anonymous(1 << 50, &options)) > 1 << 53);
    let raw = RawSegment::<u64>::create(&name("long"), u64::MAX, &options).unwrap_err();
    assert!(matches!(raw, CreateError::NotEnoughMemory { wanted: u64::MAX, .. }), "{raw}");
    let empty = Array::<u64>::anonymous(0, &options).unwrap();
    assert!(empty.is_empty());
    let fd = empty.as_fd().try_clone_to_owned().unwrap();
    assert!(matches!(Mutex::<u64>::from_fd(fd, &options).unwrap_err(), OpenError::Header(_)));
    let fd = empty.as_fd().try_clone_to_owned().unwrap();
    assert!(matches!(Latest::<u64>::from_fd(fd, &options).unwrap_err(), OpenError::Header(_)));
}

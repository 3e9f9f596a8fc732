//! Names: who creates, opens, replaces, sweeps and removes them, with real processes.

/// Says on the real standard error, which the test harness does not swallow, that something could not be tried here.
macro_rules! skipped {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stderr(), $($text)*).expect("a standard error");
    }};
}

mod family;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crosslane_shm::{CopyError, CreateError, Expected, Name, OpenError, Options, Owner, Segment, sweep_in, sweep_name};
use family::{Dir, fork, name};

fn create(dir: &Dir, text: &str) -> Result<Owner<Segment>, CreateError> {
    Segment::create(&name(text), 64, &dir.options())
}

fn open(dir: &Dir, text: &str) -> Result<crosslane_shm::Attached<Segment>, OpenError> {
    Segment::open(&name(text), &Expected::bytes(), &dir.options())
}

/// A child that created `text`, wrote `mark` into it, and was killed.
fn leftover(dir: &Dir, text: &str, mark: &[u8; 8]) {
    let mut child = fork(|parent| {
        let owner = create(dir, text).unwrap();
        owner.copy_in(0, mark).unwrap();
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    child.kill();
    assert!(dir.file(&name(text)).exists());
}

fn mark(segment: &Segment) -> [u8; 8] {
    let mut seen = [0; 8];
    segment.copy_out(0, &mut seen).unwrap();
    seen
}

#[test]
fn dropping_the_owner_removes_the_name_and_users_go_on() {
    let dir = Dir::new();
    let owner = create(&dir, "s").unwrap();
    let attached = open(&dir, "s").unwrap();
    assert_eq!(attached.name(), owner.name());
    drop(owner);
    assert_eq!(open(&dir, "s").unwrap_err(), OpenError::NotFound);
    attached.copy_in(8, b"go on...").unwrap();
}

#[test]
fn a_fork_child_of_a_remover_or_opener_keeps_no_name_busy() {
    let dir = Dir::new();
    let _owner = create(&dir, "s").unwrap();
    let is_done = AtomicBool::new(false);
    let children = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let _ = sweep_in(dir.path()).unwrap();
            }
        });
        scope.spawn(|| {
            let reading = dir.options().read_only(true);
            while !is_done.load(Ordering::Relaxed) {
                let _ = Segment::open(&name("s"), &Expected::bytes(), &reading);
            }
        });
        let children: Vec<_> = (0..60).map(|_| fork(|parent| parent.forever())).collect();
        is_done.store(true, Ordering::Relaxed);
        children
    });
    // Nobody removes it now, and nobody opens it: both find it free at the first look.
    let at_once = dir.options().open_timeout(Duration::ZERO);
    fork(|_| drop(Segment::open(&name("s"), &Expected::bytes(), &at_once).unwrap())).join();
    let file = fs::File::open(dir.file(&name("s"))).unwrap();
    // SAFETY: `flock` is plain data, for which all zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(libc::F_WRLCK).unwrap();
    (lock.l_start, lock.l_len) = ((1 << 30) + 1025, 1);
    // SAFETY: `lock` is a valid `flock`, writable for the duration of the call.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) }, 0);
    assert_eq!(i32::from(lock.l_type), libc::F_UNLCK, "a child holds the takeover byte");
    children.into_iter().for_each(family::Child::kill);
}

#[test]
fn an_attachers_end_never_removes_the_name() {
    let dir = Dir::new();
    let owner = create(&dir, "s").unwrap();
    drop(open(&dir, "s").unwrap());
    fork(|_| drop(open(&dir, "s").unwrap())).join();
    let mut child = fork(|parent| {
        let _attached = open(&dir, "s").unwrap();
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    child.kill();
    assert_eq!(dir.names(), ["s"]);
    drop(owner);
}

#[test]
fn an_inherited_owner_dropped_in_a_fork_child_removes_nothing() {
    let dir = Dir::new();
    let owner = create(&dir, "s").unwrap();
    let mut slot = Some(owner);
    fork(|_| drop(slot.take())).join();
    assert_eq!(dir.names(), ["s"]);
    assert!(slot.is_some());
}

#[test]
fn a_living_name_is_in_use_and_says_by_whom() {
    let dir = Dir::new();
    let _owner = create(&dir, "s").unwrap();
    let expected = CreateError::NameInUse { creator: Some(std::process::id()) };
    assert_eq!(create(&dir, "s").unwrap_err(), expected);
    fork(|_| assert_eq!(create(&dir, "s").unwrap_err(), expected)).join();
}

#[test]
fn of_100_racing_creators_one_wins_and_the_others_see_the_name_in_use() {
    let dir = Dir::new();
    for has_leftover in [false, true] {
        if has_leftover {
            leftover(&dir, "race", b"leftover");
        }
        let mut children: Vec<_> = (0..100)
            .map(|_| {
                fork(|parent| {
                    parent.hear();
                    let result = create(&dir, "race");
                    parent.tell(match &result {
                        Ok(_) => 1,
                        Err(CreateError::NameInUse { .. }) => 0,
                        Err(error) => panic!("{error}"),
                    });
                    // The winner's name stays until all have tried.
                    parent.hear();
                })
            })
            .collect();
        children.iter_mut().for_each(|child| child.tell(0));
        let winners: u32 = children.iter_mut().map(family::Child::hear).sum();
        assert_eq!(winners, 1);
        let segment = open(&dir, "race").unwrap();
        assert_eq!(mark(&segment), [0; 8], "the leftover itself");
        drop(segment);
        children.iter_mut().for_each(|child| child.tell(0));
        children.into_iter().for_each(family::Child::join);
        assert!(dir.names().is_empty());
    }
}

#[test]
fn an_opener_sees_a_whole_segment_or_none_while_the_name_comes_and_goes() {
    let dir = Dir::new();
    let mut child = fork(|parent| {
        let mut opened = 0;
        loop {
            match open(&dir, "s") {
                Ok(segment) => {
                    assert_eq!(&mark(&segment), b"whole!!!");
                    opened += 1;
                }
                Err(OpenError::NotFound) => {}
                Err(error) => panic!("{error}"),
            }
            if open(&dir, "stop").is_ok() {
                parent.tell(opened);
                return;
            }
        }
    });
    let content = crosslane_shm::Content::bytes(64);
    for _ in 0..3000 {
        let owner = Segment::create_with(&name("s"), content, &dir.options(), |memory, _| {
            // SAFETY: new memory of 64 bytes.
            unsafe { memory.cast::<[u8; 8]>().write(*b"whole!!!") };
            Ok(())
        });
        // The opener may be the only user of a name whose owner could not wait for it.
        match owner {
            Ok(owner) => drop(owner),
            Err(CreateError::NameInUse { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let stop = create(&dir, "stop").unwrap();
    assert!(child.hear() > 0);
    child.join();
    drop(stop);
    drop(sweep_in(dir.path()).unwrap());
}

#[test]
fn creating_over_a_dead_leftover_works_and_starts_afresh() {
    let dir = Dir::new();
    leftover(&dir, "s", b"leftover");
    let owner = create(&dir, "s").unwrap();
    assert_eq!(mark(&owner), [0; 8]);
}

#[test]
fn what_debug_prints_fits_on_a_line() {
    let dir = Dir::new();
    let owner = create(&dir, "s").unwrap();
    let text = format!("{owner:?}");
    assert!(
        text.starts_with("Owner { name: \"s\", object: Segment { kind: Kind(bytes), len_bytes: 64, memory: named"),
        "{text}"
    );
    assert!(text.len() < 160, "{text}");
    let domain = format!("{:?}", owner.domain().unwrap());
    assert!(domain.starts_with("Domain { id: ") && domain.len() < 100, "{domain}");
}

#[test]
fn a_creator_that_leaves_the_dead_alone_is_told_that_it_is_dead() {
    let dir = Dir::new();
    leftover(&dir, "s", b"leftover");
    for len in [8, 1 << 20] {
        let error = Segment::create(&name("s"), len, &dir.options().leave_dead(true)).unwrap_err();
        assert!(matches!(error, CreateError::NameLeft { creator: 1.. }), "{error}");
        assert!(error.to_string().starts_with("the name leads to a dead segment"), "{error}");
    }
    let opened = Segment::open(&name("s"), &Expected::bytes(), &dir.options()).unwrap();
    assert_eq!(mark(&opened), *b"leftover");
    drop(opened);
    drop(Segment::create(&name("s"), 8, &dir.options()).unwrap());
    drop(Segment::create(&name("s"), 8, &dir.options().leave_dead(true)).unwrap());
}

#[test]
fn a_leftover_can_be_opened_until_it_is_swept() {
    let dir = Dir::new();
    leftover(&dir, "s", b"leftover");
    let attached = open(&dir, "s").unwrap();
    assert_eq!(&mark(&attached), b"leftover");
    assert!(matches!(create(&dir, "s").unwrap_err(), CreateError::NameInUse { creator: Some(_) }));
    let swept = sweep_in(dir.path()).unwrap();
    assert_eq!((swept.removed.len(), swept.kept), (0, vec![name("s")]));
    drop(attached);
    let beside = create(&dir, "beside").unwrap();
    assert_eq!(sweep_name(&name("beside"), &dir.options()).kept, [name("beside")]);
    assert_eq!(sweep_name(&name("s"), &dir.options()).removed, [name("s")]);
    let nothing = sweep_name(&name("s"), &dir.options());
    assert!(nothing.removed.is_empty() && nothing.kept.is_empty() && nothing.errors.is_empty());
    drop(beside);
}

#[test]
fn a_sweep_takes_the_dead_and_leaves_the_living_the_read_only_and_the_foreign() {
    let dir = Dir::new();
    for text in ["dead.1", "dead.2", "read"] {
        leftover(&dir, text, b"leftover");
    }
    let living = create(&dir, "living").unwrap();
    fs::write(dir.path().join("foreign"), [7; 5000]).unwrap();
    fs::write(dir.path().join("empty"), []).unwrap();
    symlink("/dev/null", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    let mut reader = fork(|parent| {
        let options = dir.options().read_only(true);
        let segment = Segment::open(&name("read"), &Expected::bytes(), &options).unwrap();
        assert!(segment.env().is_none());
        assert_eq!(segment.copy_in(0, b"refused!"), Err(CopyError::ReadOnly));
        assert_eq!(&mark(&segment), b"leftover");
        parent.tell(0);
        parent.forever();
    });
    reader.hear();
    let mut swept = sweep_in(dir.path()).unwrap();
    swept.removed.sort();
    swept.kept.sort();
    assert_eq!(swept.removed, [name("dead.1"), name("dead.2")]);
    assert_eq!(swept.kept, [name("living"), name("read")]);
    assert!(swept.errors.is_empty());
    reader.kill();
    assert_eq!(sweep_in(dir.path()).unwrap().removed, [name("read")]);
    assert_eq!(create(&dir, "foreign").unwrap_err(), CreateError::NameInUse { creator: None });
    assert_eq!(create(&dir, "link").unwrap_err(), CreateError::NameInUse { creator: None });
    assert_eq!(create(&dir, "directory").unwrap_err(), CreateError::NameInUse { creator: None });
    for text in ["foreign", "empty", "link"] {
        fs::remove_file(dir.path().join(text)).unwrap();
    }
    fs::remove_dir(dir.path().join("directory")).unwrap();
    drop(living);
}

#[test]
fn an_owner_does_not_remove_a_name_that_has_come_to_lead_elsewhere() {
    let dir = Dir::new();
    let first = create(&dir, "s").unwrap();
    // Somebody else removes the name by hand and creates it anew.
    fs::remove_file(dir.file(&name("s"))).unwrap();
    let second = create(&dir, "s").unwrap();
    drop(first);
    assert_eq!(dir.names(), ["s"]);
    assert!(open(&dir, "s").is_ok());
    drop(second);
}

#[test]
fn names_that_are_created_dropped_and_swept_at_once_are_never_lost_and_never_stay() {
    let dir = Dir::new();
    let mut sweeper = fork(|parent| {
        parent.tell(0);
        while open(&dir, "stop").is_err() {
            let swept = sweep_in(dir.path()).unwrap();
            assert!(swept.removed.is_empty(), "a living segment was swept: {:?}", swept.removed);
            assert!(swept.errors.is_empty(), "{:?}", swept.errors);
        }
    });
    sweeper.hear();
    for _ in 0..3000 {
        let owner = create(&dir, "s").unwrap();
        let same = open(&dir, "s").unwrap();
        assert_eq!(same.header().segment_id, owner.header().segment_id);
    }
    let stop = create(&dir, "stop").unwrap();
    sweeper.join();
    drop(stop);
}

#[test]
fn an_opened_leftover_is_never_swept_away_under_its_opener() {
    let dir = Dir::new();
    let stop = name("stop");
    let mut opener = fork(|parent| {
        let mut opened = 0;
        while !dir.file(&stop).exists() {
            let Ok(segment) = open(&dir, "s") else { continue };
            let led = || fs::metadata(dir.file(&name("s"))).map(|data| data.ino());
            // While it is open here, the name leads to this file: nobody may replace or sweep it.
            let first = led().unwrap();
            assert_eq!(id_of(&dir), segment.header().segment_id);
            assert_eq!(led().unwrap(), first);
            opened += 1;
        }
        parent.tell(opened);
    });
    let sweeper = fork(|_| {
        while !dir.file(&stop).exists() {
            assert!(sweep_in(dir.path()).unwrap().errors.is_empty());
        }
    });
    for _ in 0..4000 {
        match create(&dir, "s") {
            // Dropped without its name: a leftover, as a killed creator would leave it.
            Ok(owner) => drop(owner.keep()),
            Err(error) => assert!(matches!(error, CreateError::NameInUse { .. }), "{error}"),
        }
    }
    fs::write(dir.file(&stop), "").unwrap();
    assert!(opener.hear() > 0);
    opener.join();
    sweeper.join();
    fs::remove_file(dir.file(&stop)).unwrap();
    drop(sweep_in(dir.path()).unwrap());
}

/// The segment id in the file that the name leads to.
fn id_of(dir: &Dir) -> [u8; 16] {
    let mut seen = [0; 16];
    fs::File::open(dir.file(&name("s"))).unwrap().read_exact_at(&mut seen, 24).unwrap();
    seen
}

#[test]
fn a_kept_name_stays_until_the_last_user_is_gone_and_somebody_sweeps() {
    let dir = Dir::new();
    let attached = create(&dir, "s").unwrap().keep();
    assert!(sweep_in(dir.path()).unwrap().removed.is_empty());
    drop(attached);
    assert_eq!(dir.names(), ["s"]);
    assert_eq!(sweep_in(dir.path()).unwrap().removed, [name("s")]);
}

#[test]
fn a_stopped_opener_makes_a_creator_say_in_use_and_not_wait_for_ever() {
    let dir = Dir::new();
    leftover(&dir, "s", b"leftover");
    let mut child = fork(|parent| {
        let file = fs::File::open(dir.file(&name("s"))).unwrap();
        // What an opener that is stopped between locking the takeover byte and taking its lease holds.
        // SAFETY: all zero is a valid `flock`.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_RDLCK.try_into().unwrap();
        lock.l_start = (1 << 30) + 1025;
        lock.l_len = 1;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: `lock` is a valid `flock`.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) }, 0);
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    let options = dir.options().open_timeout(Duration::from_millis(20));
    let refused = Segment::create(&name("s"), 64, &options).unwrap_err();
    assert!(matches!(refused, CreateError::NameInUse { creator: Some(_) }), "{refused}");
    assert_eq!(sweep_in(dir.path()).unwrap().kept, [name("s")]);
    // Another opener shares the byte.
    drop(Segment::open(&name("s"), &Expected::bytes(), &options).unwrap());
    child.kill();
    drop(Segment::create(&name("s"), 64, &options).unwrap());
}

#[test]
fn modes_are_taken_as_they_are_and_permissions_are_reported() {
    let dir = Dir::new();
    let mode = |text: &str| fs::metadata(dir.file(&name(text))).unwrap().permissions().mode() & 0o777;
    let private = create(&dir, "private").unwrap();
    let shared = Segment::create(&name("shared"), 64, &dir.options().mode(0o666)).unwrap();
    assert_eq!((mode("private"), mode("shared")), (0o600, 0o666));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // SAFETY: takes no memory.
    if unsafe { libc::geteuid() } == 0 {
        fork(|_| {
            // SAFETY: takes no memory; the child gives up root.
            assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
            assert!(matches!(create(&dir, "mine").unwrap_err(), CreateError::PermissionDenied(_)));
            assert!(open(&dir, "shared").is_ok());
            assert!(matches!(open(&dir, "private").unwrap_err(), OpenError::PermissionDenied(_)));
            let swept = sweep_in(dir.path()).unwrap();
            assert_eq!((swept.removed.len(), swept.kept, swept.errors.len()), (0, vec![name("shared")], 0));
        })
        .join();
    } else {
        skipped!("skipped: another user's view needs root");
    }
    drop((private, shared));
}

#[test]
fn an_open_waits_for_a_name_as_long_as_it_is_told_to() {
    let dir = Dir::new();
    let wait = |time| Segment::open(&name("late"), &Expected::bytes(), &dir.options().name_timeout(time));
    assert_eq!(wait(Duration::from_millis(5)).unwrap_err(), OpenError::NotFound);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| mark(&wait(Duration::MAX).unwrap()));
        let owner = create(&dir, "late").unwrap();
        opening.join().unwrap();
        drop(owner);
    });
}

#[test]
fn opening_nothing_is_not_found_and_a_bad_directory_is_an_error() {
    let dir = Dir::new();
    assert_eq!(open(&dir, "nothing").unwrap_err(), OpenError::NotFound);
    let options = Options::new().directory(dir.path().join("nowhere"));
    let error = Segment::create(&name("s"), 64, &options).unwrap_err();
    assert!(matches!(error, CreateError::Os(os) if os.errno == libc::ENOENT), "{error}");
    assert!(sweep_in(dir.path().join("nowhere")).is_err());
}

#[test]
fn neither_the_current_directory_nor_the_umask_changes_what_was_asked_for() {
    let dir = Dir::new();
    fork(|_| {
        std::env::set_current_dir(dir.path()).unwrap();
        // SAFETY: takes no memory.
        unsafe { libc::umask(0o277) };
        let owner = Segment::create(&name("s"), 64, &Options::new().directory(".")).unwrap();
        assert_eq!(fs::metadata("s").unwrap().mode() & 0o777, 0o600);
        std::env::set_current_dir("/").unwrap();
        drop(owner);
        assert!(!dir.file(&name("s")).exists());
    })
    .join();
}

#[test]
fn copies_stay_inside_the_object() {
    let dir = Dir::new();
    let owner = create(&dir, "s").unwrap();
    let out_of_bounds = |end| Err(CopyError::OutOfBounds { end, len_bytes: 64 });
    assert_eq!(owner.copy_in(56, &[1; 8]), Ok(()));
    assert_eq!(owner.copy_in(64, &[1; 8]), out_of_bounds(72));
    assert_eq!(owner.copy_out(u64::MAX, &mut [0; 8]), out_of_bounds(u64::MAX));
    assert_eq!(owner.copy_out(4, &mut [0; 8]), Err(CopyError::Unaligned));
    assert_eq!(owner.copy_out(0, &mut [0; 7]), Err(CopyError::Unaligned));
}

#[test]
fn random_names_in_the_default_directory_leave_nothing() {
    let random = Name::random();
    let owner = Segment::create(&random, 64, &Options::new()).unwrap();
    assert!(fs::exists(format!("/dev/shm/{random}")).unwrap());
    drop(owner);
    assert!(!fs::exists(format!("/dev/shm/{random}")).unwrap());
}

#[test]
fn a_read_only_opener_sees_what_is_written_and_writes_nothing() {
    let dir = Dir::new();
    let owner = create(&dir, "s").unwrap();
    fork(|_| {
        let reader =
            Segment::open(&name("s"), &Expected::bytes(), &dir.options().read_only(true).prefault(true)).unwrap();
        owner.copy_in(8, &[5; 8]).unwrap();
        let mut seen = [0; 8];
        reader.copy_out(8, &mut seen).unwrap();
        assert_eq!(seen, [5; 8]);
        assert_eq!(reader.copy_in(8, &[6; 8]), Err(CopyError::ReadOnly));
        // It owns nothing: no id, and no surroundings for an object's handle.
        assert!(reader.domain().is_none() && reader.env().is_none());
        assert_eq!(reader.rejoin().unwrap_err(), OpenError::ReadOnly);
        // The fd could not write either.
        let file = fs::File::from(std::os::fd::AsFd::as_fd(&*reader).try_clone_to_owned().unwrap());
        assert!(file.write_at(&[1], 0).is_err());
    })
    .join();
}

//! More memory than there is, a full file system, and nothing leaked.

/// Says on the real standard error, which the test harness does not swallow, that something could not be tried here.
macro_rules! skipped {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stderr(), $($text)*).expect("a standard error");
    }};
}

mod family;

use std::process::Command;

use crosslane_shm::{CreateError, Options, RawSegment, Segment, Spsc, sweep_in};
use family::{Dir, fork, name};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |key: &str| -> u64 {
        let text = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        text.trim().trim_end_matches(" kB").parse().unwrap()
    };
    line("RssShmem:") + line("RssAnon:")
}

fn machine_shared_kib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let text = info.lines().find_map(|line| line.strip_prefix("Shmem:")).unwrap();
    text.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_tebibyte_is_refused_before_a_page_is_touched() {
    let dir = Dir::new();
    let (mine, all) = (resident_kib(), machine_shared_kib());
    let refused = |error: CreateError| match error {
        CreateError::NotEnoughMemory { wanted, available } => assert!(wanted > available),
        error => panic!("{error}"),
    };
    for len in [1 << 40, 1 << 62, u64::MAX - 100, u64::MAX] {
        refused(Segment::anonymous(len, &Options::new()).unwrap_err());
        refused(Segment::create(&name("s"), len, &dir.options()).unwrap_err());
    }
    refused(Spsc::<[u64; 128]>::anonymous(1 << 30, &Options::new()).unwrap_err());
    assert!(resident_kib() < mine + 1024);
    assert!(machine_shared_kib() < all + 64 * 1024);
}

#[test]
fn the_callers_cap_is_kept() {
    let options = Options::new().memory_cap_bytes(8192);
    assert!(Segment::anonymous(8192 - 256, &options).is_ok());
    let error = Segment::anonymous(8192, &options).unwrap_err();
    assert_eq!(error, CreateError::NotEnoughMemory { wanted: 8192 + 256, available: 8192 });
}

#[test]
fn a_sparse_segment_has_the_pages_that_were_written_and_is_refused_as_any_other() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let pages_of = |segment: &Segment| {
        let file = std::fs::File::from(segment.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().blocks() * 512 / 4096
    };
    let (len, sparse, dir) = (64 << 20, Options::new().sparse(true), Dir::new());
    let segment = Segment::anonymous(len, &sparse).unwrap();
    // The header's page, which may be a huge one.
    let few = pages_of(&segment);
    assert!(few <= 512, "{few}");
    segment.copy_in(len - 8, b"to there").unwrap();
    assert_eq!(pages_of(&segment), 2 * few);
    let mut bytes = [0; 8];
    segment.copy_out(len - 8, &mut bytes).unwrap();
    assert_eq!(&bytes, b"to there");
    let error = Segment::anonymous(1 << 50, &sparse).unwrap_err();
    assert!(matches!(error, CreateError::NotEnoughMemory { .. }), "{error}");
    let named = Segment::create(&name("sparse"), 1 << 20, &dir.options().sparse(true)).unwrap();
    assert!(pages_of(&named) >= 256, "elsewhere a shortage would be a SIGBUS");
}

#[test]
fn a_limit_of_the_length_of_files_is_an_error_value_and_no_signal() {
    let dir = Dir::new();
    let child = fork(|_| {
        let most = 1 << 20;
        // SAFETY: takes no memory but the limits.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: most, rlim_max: most }) }, 0);
        let is_refused = |error| matches!(error, CreateError::NoSpace { available: Some(limit), .. } if limit == most);
        for sparse in [false, true] {
            let options = Options::new().sparse(sparse);
            assert!(is_refused(Segment::anonymous(most, &options).unwrap_err()));
            assert!(Segment::anonymous(most - 4096, &options).is_ok());
        }
        assert!(is_refused(Segment::create(&name("s"), most, &dir.options()).unwrap_err()));
        assert!(Segment::create(&name("s"), most / 2, &dir.options()).is_ok());
        assert!(is_refused(RawSegment::<u8>::create(&name("r"), most + 1, &dir.options()).unwrap_err()));
        assert!(RawSegment::<u8>::create(&name("r"), most, &dir.options()).is_ok());
    });
    child.join();
}

/// Runs inside `unshare -Urm` with a tmpfs of 1 MiB.
#[test]
#[ignore = "run by a_full_file_system_is_an_error_value in a mount namespace of its own"]
fn inside_a_small_file_system() {
    let Ok(directory) = std::env::var("CROSSLANE_SMALL_FS") else { return };
    let options = Options::new().directory(&directory);
    let error = Segment::create(&name("big"), 2 << 20, &options).unwrap_err();
    assert!(matches!(error, CreateError::NoSpace { wanted, available: Some(left) } if left < wanted), "{error}");
    // What fits is usable to its last byte, without a SIGBUS.
    let len = 900 << 10;
    let owner = Segment::create(&name("fits"), len, &options).unwrap();
    owner.copy_in(0, &vec![7; len.try_into().unwrap()]).unwrap();
    let error = Segment::create(&name("more"), 200 << 10, &options).unwrap_err();
    assert!(matches!(error, CreateError::NoSpace { .. }), "{error}");
    drop(owner);
    assert!(Segment::create(&name("more"), 900 << 10, &options).is_ok());
    assert!(std::fs::read_dir(&directory).unwrap().next().is_none());
    assert!(sweep_in(&directory).unwrap().removed.is_empty());
    println!("the small file system was used");
}

#[test]
fn a_full_file_system_is_an_error_value() {
    let dir = Dir::new();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$CROSSLANE_SMALL_FS\" || exit 99; \
                  exec \"$0\" --exact inside_a_small_file_system --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("CROSSLANE_SMALL_FS", &mount)
        .output();
    std::fs::remove_dir(&mount).unwrap();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("the small file system was used"), "{text}");
        }
        Ok(output) if output.status.code() == Some(99) || output.stderr.starts_with(b"unshare:") => {
            skipped!("skipped: unprivileged mounts are not possible here");
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => skipped!("skipped: unshare not installed ({error})"),
    }
}

#[test]
fn prefaulted_memory_is_present_at_once() {
    // In a process of its own: other tests of this one allocate and free meanwhile.
    fork(|_| {
        let len = 8 << 20;
        let before = resident_kib();
        let lazy = Segment::anonymous(len, &Options::new()).unwrap();
        let between = resident_kib();
        let eager = Segment::anonymous(len, &Options::new().prefault(true)).unwrap();
        let after = resident_kib();
        assert!(between - before < 2048, "{before} {between}");
        assert!(after - between >= 8192 - 1024, "{between} {after}");
        drop((lazy, eager));
    })
    .join();
}

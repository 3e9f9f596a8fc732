//! Creating and attaching small segments, against the bare system calls, interleaved in the same run.
//!
//! `cargo bench -p crosslane-shm --bench segment`. Prints microseconds and the ratio's quartiles over the rounds.

use std::ffi::CString;
use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use crosslane_shm::{Expected, Name, Options, Segment};

const ROUNDS: usize = 41;
const TIMES: u32 = 500;
/// Two pages with either header.
const OBJECT_BYTES: u64 = 2048;

fn main() {
    let options = Options::new();
    let segment = Segment::anonymous(8192 - 256, &options).expect("a segment");
    let total = 8192;
    compare(
        "create, anonymous",
        || bare_create(total),
        || {
            drop(black_box(Segment::anonymous(8192 - 256, &options).expect("a segment")));
        },
    );
    compare(
        "attach, anonymous",
        || bare_attach(&segment, total),
        || {
            let fd = segment.as_fd().try_clone_to_owned().expect("an fd");
            drop(black_box(Segment::from_fd(fd, &Expected::bytes(), &options).expect("a segment")));
        },
    );
    let (name, bare) = (Name::random(), c_path(&Name::random()));
    compare(
        "create + unlink, named",
        || bare_create_named(&bare, total),
        || {
            drop(black_box(Segment::create(&name, OBJECT_BYTES, &options).expect("a segment")));
        },
    );
    // The creator is another process, as it would be: each attach here joins and leaves.
    in_another_process(&name, &options);
    let path = c_path(&name);
    compare(
        "attach, named",
        || bare_attach_named(&path),
        || {
            drop(black_box(Segment::open(&name, &Expected::bytes(), &options).expect("a segment")));
        },
    );
    let again = Segment::open(&name, &Expected::bytes(), &options).expect("a segment");
    compare(
        "attach again, named",
        || bare_attach_named(&path),
        || {
            drop(black_box(Segment::open(&name, &Expected::bytes(), &options).expect("a segment")));
        },
    );
    drop(again);
    // SAFETY: a C string.
    unsafe { libc::unlink(path.as_ptr()) };
}

/// Creates the segment and leaves its name behind.
fn in_another_process(name: &Name, options: &Options) {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(Segment::create(name, OBJECT_BYTES, options).expect("a segment").keep());
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: waits for the child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

fn compare(what: &str, mut bare: impl FnMut(), mut ours: impl FnMut()) {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..TIMES).for_each(|_| f());
        start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
    };
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (time(&mut bare), time(&mut ours))).collect();
    let mut quartiles = |key: fn(&(f64, f64)) -> f64| {
        rounds.sort_by(|a, b| key(a).total_cmp(&key(b)));
        [1, 2, 3].map(|q| key(&rounds[ROUNDS * q / 4]))
    };
    let [bare, ours] = [quartiles(|r| r.0)[1], quartiles(|r| r.1)[1]];
    let [low, median, high] = quartiles(|r| r.1 / r.0);
    println!("{what:24} bare {bare:6.2} us, ours {ours:6.2} us, ratio {median:.2} ({low:.2}..{high:.2})");
}

fn c_path(name: &Name) -> CString {
    CString::new(format!("/dev/shm/{name}")).expect("no zero byte")
}

/// Maps, touches each page, unmaps.
fn map(fd: &OwnedFd, len: usize) {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // Behind the header, where a zero changes nothing.
    for byte in (4000..len).step_by(4096) {
        // SAFETY: inside the mapping.
        let byte = unsafe { at.cast::<u8>().add(byte) };
        // SAFETY: as above; it is nobody else's business.
        unsafe { byte.write_volatile(0) };
    }
    // SAFETY: the mapping that was just made.
    unsafe { libc::munmap(at, len) };
}

fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0);
    // SAFETY: just opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bare_create(len: usize) {
    // SAFETY: a C string.
    let fd = owned(unsafe { libc::memfd_create(c"bare".as_ptr(), libc::MFD_CLOEXEC) });
    // SAFETY: takes no memory.
    assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) }, 0);
    map(&fd, len);
}

fn bare_attach(segment: &Segment, len: usize) {
    map(&segment.as_fd().try_clone_to_owned().expect("an fd"), len);
}

fn bare_create_named(path: &CString, len: usize) {
    // SAFETY: a C string and the mode that `O_CREAT` asks for.
    let fd = owned(unsafe { libc::open(path.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600) });
    // SAFETY: takes no memory.
    assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) }, 0);
    map(&fd, len);
    // SAFETY: a C string.
    unsafe { libc::unlink(path.as_ptr()) };
}

fn bare_attach_named(path: &CString) {
    // SAFETY: a C string.
    let fd = owned(unsafe { libc::open(path.as_ptr(), libc::O_RDWR) });
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is writable.
    assert_eq!(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) }, 0);
    // SAFETY: the call filled it.
    let len = unsafe { stat.assume_init() }.st_size;
    map(&fd, usize::try_from(len).expect("small"));
}

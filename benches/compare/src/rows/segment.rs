//! Making a segment and attaching to it, beside the bare calls that do the same: page-sized, one word touched.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use crosslane_shm::{Expected, Options, Segment};

use super::rival::Iceoryx2;
use super::scaled;
use crate::python;
use crate::row::{Row, Unit};
use crate::sides::alone;

const LEN_BYTES: usize = 4096;
const BARE_CREATE: &str = "bare memfd_create, fallocate, mmap, touch";
const CREATE: &str = "crosslane Segment::anonymous";
const BARE_ATTACH: &str = "bare mmap, touch";
const ATTACH: &str = "crosslane Segment::from_fd";

pub fn rows(scale: f64) -> Vec<Row> {
    let (times, few, fewest) = (scaled(2_000, scale), scaled(500, scale), scaled(20, scale));
    vec![
        Row::new("create a segment and drop it", Unit::Nanos, times)
            .contestant(BARE_CREATE, move || bare_create(times))
            .contestant(CREATE, move || create(times))
            .goal(CREATE, BARE_CREATE, 1.30)
            .rival(CREATE, "iceoryx2 node, service and publisher", fewest, move || iceoryx2(fewest))
            .python(CREATE, "Python SharedMemory", few, &[few], python::CREATE),
        Row::new("attach to a segment and let go", Unit::Nanos, times)
            .contestant(BARE_ATTACH, move || bare_attach(times))
            .contestant(ATTACH, move || attach(times))
            .goal(ATTACH, BARE_ATTACH, 1.30)
            .python(ATTACH, "Python SharedMemory", few, &[few], python::ATTACH),
    ]
}

fn checked(result: c_int, call: &str) -> c_int {
    assert!(result >= 0, "{call}: {}", io::Error::last_os_error());
    result
}

fn bare_memfd() -> OwnedFd {
    // SAFETY: a name that outlives the call.
    let fd = checked(unsafe { libc::memfd_create(c"bare".as_ptr(), libc::MFD_CLOEXEC) }, "memfd_create");
    // SAFETY: new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a file descriptor and two numbers.
    checked(unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, LEN_BYTES as libc::off_t) }, "fallocate");
    fd
}

fn bare_map(fd: &OwnedFd) {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of our own.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), LEN_BYTES, protection, flags, fd.as_raw_fd(), 0) };
    let word = NonNull::new(start.cast::<u64>()).filter(|_| start != libc::MAP_FAILED).expect("a mapping");
    // SAFETY: the mapping's first word.
    unsafe { word.write_volatile(1) };
    // SAFETY: mapped above, and not used again.
    unsafe { libc::munmap(start, LEN_BYTES) };
}

fn touch(segment: &Segment) {
    segment.copy_in(0, &1_u64.to_ne_bytes()).expect("inside the segment");
}

fn bare_create(times: u64) -> f64 {
    alone(|| (0..times).for_each(|_| bare_map(&bare_memfd())))
}

fn create(times: u64) -> f64 {
    let options = Options::new();
    let once = || touch(&Segment::anonymous(LEN_BYTES as u64, &options).expect("memory for a segment"));
    once();
    alone(|| (0..times).for_each(|_| once()))
}

fn iceoryx2(times: u64) -> f64 {
    alone(|| (0..times).for_each(|_| drop(Iceoryx2::<u64>::make(16).ice_sender())))
}

fn bare_attach(times: u64) -> f64 {
    let fd = bare_memfd();
    alone(|| (0..times).for_each(|_| bare_map(&fd.try_clone().expect("a file descriptor"))))
}

fn attach(times: u64) -> f64 {
    let options = Options::new();
    let home = Segment::anonymous(LEN_BYTES as u64, &options).expect("memory for a segment");
    let once = || {
        let fd = home.as_fd().try_clone_to_owned().expect("a file descriptor");
        touch(&Segment::from_fd(fd, &Expected::bytes(), &options).expect("a segment"));
    };
    alone(|| (0..times).for_each(|_| once()))
}

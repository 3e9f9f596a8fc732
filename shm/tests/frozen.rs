//! Frozen segments: who can freeze, who can read, and that nobody can write.

mod family;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crosslane_core::Plain;
use crosslane_core::plain::Fingerprint;
use crosslane_shm::header::HeaderError;
use crosslane_shm::{Content, Domain, Frozen, Kind, Mutex, OpenError, Options, Segment, Unfrozen};
use family::{Dir, fork, name, watchdog};

/// Taken by every test that freezes a segment or forks: a child of one would inherit the mapping of another.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn again(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

/// Sends an fd with one byte.
fn send(socket: &UnixStream, fd: RawFd) {
    let mut control = [0_u64; 4];
    let mut byte = [7_u8];
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: plain data, for which all zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as _;
    // SAFETY: the message is whole.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: the message's control buffer has room for one header.
    let header = unsafe { &mut *header };
    (header.cmsg_level, header.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    // SAFETY: computes a number.
    header.cmsg_len = unsafe { libc::CMSG_LEN(4) } as _;
    // SAFETY: computes an address.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: inside the control buffer.
    unsafe { data.cast::<RawFd>().write_unaligned(fd) };
    // SAFETY: the message and what it points to live until the call returns.
    assert_eq!(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) }, 1);
}

/// Receives an fd with one byte.
fn receive(socket: RawFd) -> OwnedFd {
    let mut control = [0_u64; 4];
    let mut byte = [0_u8];
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: plain data, for which all zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control) as _);
    // SAFETY: the message and what it points to live until the call returns.
    assert_eq!(unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) }, 1);
    // SAFETY: the message is whole.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: the kernel filled the control buffer with one header and one fd.
    let header = unsafe { &*header };
    assert_eq!(header.cmsg_type, libc::SCM_RIGHTS);
    // SAFETY: computes an address.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: one fd lies there.
    let fd = unsafe { data.cast::<RawFd>().read_unaligned() };
    // SAFETY: just received, and ours.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whether `fd`'s memory can be changed through it, or through what it can be opened as.
fn can_be_written(fd: &impl AsFd) -> bool {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let writers = [File::from(again(fd)), File::options().read(true).write(true).open(path).unwrap()];
    writers.iter().any(|file| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = unsafe {
            let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), 4096, prot, flags, file.as_raw_fd(), 0)
        };
        if map != libc::MAP_FAILED {
            // SAFETY: just mapped, and used by nobody.
            unsafe { libc::munmap(map, 4096) };
        }
        let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes no memory.
        let punched = unsafe { libc::fallocate(file.as_raw_fd(), flags, 0, 4096) } == 0;
        let (shortened, written) = (file.set_len(0).is_ok(), file.write_at(&[1], 300).is_ok());
        map != libc::MAP_FAILED || punched || shortened || written
    })
}

#[test]
fn frozen_elements_are_what_was_frozen_and_nobody_can_write_them() {
    let values: Vec<u32> = (0..5000).map(|n| n * n).collect();
    let frozen = Frozen::new(&values, &Options::new()).unwrap();
    assert_eq!(frozen[..], values);
    assert!(!can_be_written(&frozen));
    let empty = Frozen::<[u64; 4]>::new(&[], &Options::new()).unwrap();
    assert_eq!(empty.len(), 0);
    assert_eq!(Frozen::<[u64; 4]>::from_fd(again(&empty), &Options::new()).unwrap().len(), 0);
    let control = Segment::anonymous(8192, &Options::new()).unwrap();
    assert!(can_be_written(&control), "the check sees what can be written");
}

#[test]
fn a_program_outside_the_family_borrows_what_came_over_a_socket() {
    watchdog();
    let frozen = Frozen::new(&[3_u64, 1, 4, 1, 5], &Options::new()).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "entry_by_socket", "--ignored", "--nocapture"]).stdout(Stdio::null());
    let mut child = program.env("CROSSLANE_TEST_SOCKET", "0").stdin(OwnedFd::from(theirs)).spawn().unwrap();
    send(&ours, frozen.as_fd().as_raw_fd());
    drop(frozen);
    let mut sum = [0; 8];
    ours.read_exact(&mut sum).unwrap();
    assert_eq!(u64::from_ne_bytes(sum), 14);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the other program of a_program_outside_the_family_borrows_what_came_over_a_socket"]
fn entry_by_socket() {
    if std::env::var_os("CROSSLANE_TEST_SOCKET").is_none() {
        return;
    }
    let options = Options::new().prefault(true);
    let frozen = Frozen::<u64>::from_fd(receive(0), &options).unwrap();
    let borrowed: &[u64] = &frozen;
    let sum: u64 = borrowed.iter().sum();
    File::from(again(&std::io::stdin())).write_all(&sum.to_ne_bytes()).unwrap();
}

#[test]
fn a_segment_is_frozen_with_what_was_written() {
    let _alone = alone();
    let segment = Segment::anonymous(64, &Options::new()).unwrap();
    segment.copy_in(56, &9_i64.to_ne_bytes()).unwrap();
    let frozen = segment.freeze::<i64>().unwrap();
    assert_eq!(frozen[..], [0, 0, 0, 0, 0, 0, 0, 9]);
    assert!(!can_be_written(&frozen));
    let same = Frozen::<i64>::from_fd(again(&frozen), &Options::new()).unwrap();
    assert_eq!(same[..], frozen[..]);
    // No segment that anybody could write in, any more.
    let opened = Segment::from_fd(again(&frozen), &crosslane_shm::Expected::bytes(), &Options::new()).unwrap_err();
    assert!(matches!(opened, OpenError::Os(_) | OpenError::PermissionDenied(_)), "{opened}");
}

#[test]
fn a_handle_of_this_process_keeps_it_from_being_frozen_and_it_comes_back() {
    let _alone = alone();
    let segment = Segment::anonymous(64, &Options::new()).unwrap();
    segment.copy_in(0, &[7; 8]).unwrap();
    let other = segment.clone();
    let error = segment.freeze::<u64>().unwrap_err();
    assert_eq!(error.reason(), Unfrozen::InUse);
    drop(other);
    let segment = error.into_segment().unwrap();
    let env = segment.env();
    let error = segment.freeze::<u64>().unwrap_err();
    assert_eq!(error.reason(), Unfrozen::InUse);
    drop(env);
    assert_eq!(error.into_segment().unwrap().freeze::<u8>().unwrap()[..9], [7, 7, 7, 7, 7, 7, 7, 7, 0]);
}

#[test]
fn a_process_that_can_write_keeps_it_from_being_frozen_until_it_is_gone() {
    let _alone = alone();
    let segment = Segment::anonymous(64, &Options::new()).unwrap();
    // The child has inherited the mapping.
    let mut child = fork(|parent| {
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    let error = segment.freeze::<u64>().unwrap_err();
    assert_eq!(error.reason(), Unfrozen::Busy, "{error}");
    let segment = error.into_segment().unwrap();
    // As it was: written, copied and opened as before.
    segment.copy_in(8, &5_u64.to_ne_bytes()).unwrap();
    let opened = Segment::from_fd(again(&segment), &crosslane_shm::Expected::bytes(), &Options::new()).unwrap();
    let mut seen = [0; 8];
    opened.copy_out(8, &mut seen).unwrap();
    assert_eq!(seen, 5_u64.to_ne_bytes());
    drop(opened);
    child.kill();
    assert_eq!(segment.freeze::<u64>().unwrap()[1], 5);
}

#[test]
fn elements_are_frozen_while_another_thread_forks() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let _alone = alone();
    let done = AtomicBool::new(false);
    let elements = vec![1_u64; 1 << 16];
    let frozen = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Children that live on with what they inherited.
            let mut children = std::collections::VecDeque::new();
            while !done.load(Ordering::Relaxed) {
                children.push_back(fork(|parent| parent.forever()));
                if children.len() > 4 {
                    let oldest = children.pop_front().unwrap();
                    oldest.kill();
                }
            }
            children.into_iter().for_each(family::Child::kill);
        });
        let frozen: Vec<_> = (0..200).map(|_| Frozen::new(&elements, &Options::new()).map(|f| f[9])).collect();
        done.store(true, Ordering::Relaxed);
        frozen
    });
    assert!(frozen.iter().all(|result| *result == Ok(1)), "{frozen:?}");
}

#[test]
fn what_cannot_be_frozen_is_given_back() {
    let dir = Dir::new();
    let refused = |segment: Segment| segment.freeze::<[u8; 24]>().unwrap_err();
    let odd = refused(Segment::anonymous(64, &Options::new()).unwrap());
    assert_eq!(odd.reason(), Unfrozen::Element { len_bytes: 64, elem_size: 24 });
    assert_eq!(odd.into_segment().unwrap().len_bytes(), 64);
    let named = Segment::create(&name("s"), 48, &dir.options()).unwrap();
    let error = refused((*named).clone());
    assert_eq!(error.reason(), Unfrozen::Named);
    drop(error);
    let object = Mutex::anonymous(1_u64, &Options::new()).unwrap();
    assert_eq!(refused(object.segment().clone()).reason(), Unfrozen::Object(Kind::MUTEX));
    assert_eq!(*object.lock().unwrap(), 1);
}

#[test]
fn who_asks_for_other_elements_gets_none() {
    let frozen = Frozen::new(&[1_u64, 2], &Options::new()).unwrap();
    let error = Frozen::<i64>::from_fd(again(&frozen), &Options::new()).unwrap_err();
    assert!(matches!(error, OpenError::Header(HeaderError::WrongType { .. })), "{error}");
    assert!(error.to_string().contains("which is i64 here"), "{error}");
    let error = Frozen::<u32>::from_fd(again(&frozen), &Options::new()).unwrap_err();
    assert!(matches!(error, OpenError::Header(HeaderError::WrongElement { .. })), "{error}");
    let unsealed = Segment::anonymous(16, &Options::new()).unwrap();
    let error = Frozen::<u64>::from_fd(again(&unsealed), &Options::new()).unwrap_err();
    assert!(matches!(error, OpenError::NotSealed { .. }), "{error}");
    let dir = Dir::new();
    let file = File::create(dir.path().join("f")).unwrap();
    std::fs::remove_file(dir.path().join("f")).unwrap();
    let error = Frozen::<u64>::from_fd(file.into(), &Options::new()).unwrap_err();
    assert!(matches!(error, OpenError::NotSealed { found } if found & libc::F_SEAL_WRITE == 0), "{error}");
}

/// A struct of the largest alignment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(128))]
struct Wide([u64; 16]);

// SAFETY: sixteen numbers of eight bytes fill the 128 bytes.
unsafe impl Plain for Wide {
    const FINGERPRINT: u64 = Fingerprint::of_struct("Wide", 128, 128).field("0", 0, <[u64; 16]>::FINGERPRINT).finish();
}

#[test]
fn elements_are_aligned() {
    let frozen = Frozen::new(&[Wide([1; 16]), Wide([2; 16])], &Options::new()).unwrap();
    assert_eq!(frozen[1], Wide([2; 16]));
    assert_eq!(frozen.as_ptr().addr() % 128, 0);
}

#[test]
fn a_sealed_file_with_a_hostile_header_is_a_typed_error() {
    let _alone = alone();
    // Each field that counts, with a number that leads astray: offset in the header, value.
    let (len, count) = (152, 64);
    let changes: [(u64, u64); 8] = [
        (len, 1 << 40),
        (len, 8),
        (count, 1 << 61),
        (count, 3),
        (count, u64::MAX),
        (144, 4096),
        (16, 1 << 30),
        (128, 256),
    ];
    for (at, value) in changes {
        let content = Content { kind: Kind::custom(18), ..frozen_content() };
        let domain = Domain::family().unwrap();
        let segment = Segment::anonymous_with(content, &Options::new(), &domain, |_, _| Ok(())).unwrap();
        let fd = again(&segment);
        drop(segment);
        File::from(again(&fd)).write_all_at(&value.to_le_bytes(), at).unwrap();
        let seals = libc::F_SEAL_WRITE;
        // SAFETY: takes no memory.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
        let error = Frozen::<u64>::from_fd(fd, &Options::new()).unwrap_err();
        assert!(matches!(error, OpenError::Header(_)), "{value} at {at}: {error}");
    }
}

/// What the header of two frozen `u64`s says.
fn frozen_content() -> Content {
    Content {
        elem_size: 8,
        elem_align: u32::try_from(align_of::<u64>()).unwrap(),
        fingerprint: u64::FINGERPRINT,
        capacity: 2,
        ..Content::bytes(16)
    }
}

//! No wait looks at the wall clock, which an administrator or a time server may set: in the sources, and in the system
//! calls of every timed wait. Alone in its file: it replaces the C library's `clock_gettime` for the process.
#![cfg(target_arch = "x86_64")]

mod family;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crosslane_core::lock::barrier::BarrierError;
use crosslane_shm::{
    Barrier, BoundedSemaphore, Calls, Condvar, Event, Mutex, Once, Options, Queue, RLock, RwLock, Semaphore,
};
use family::fork;

const TIMEOUT: Duration = Duration::from_millis(15);

/// The C library reads the clock in user space, where no filter sees it. This one, which the whole program is linked with,
/// asks the kernel.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's contract.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    i32::from(done != 0).wrapping_neg()
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of system calls are small")]
const fn number(call: libc::c_long) -> u32 {
    call.cast_unsigned() as u32
}

/// The offset of the low half of argument `n` in what a filter sees (`struct seccomp_data`).
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

#[expect(clippy::cast_possible_truncation, reason = "the constants are small; their C type is `int`")]
const fn step(code: u32, operand: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: then, jf: otherwise, k: operand }
}

const fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Goes on if it is equal, skips `skipped` steps otherwise.
const fn equal(value: u32, skipped: u8) -> libc::sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skipped)
}

const KILL: libc::sock_filter = step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
const ALLOW: libc::sock_filter = step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0);

/// From here on, this process is killed by SIGSYS when it reads the wall clock or sleeps by it.
fn die_at_the_wall_clock() {
    const REALTIME: u32 = libc::CLOCK_REALTIME.cast_unsigned();
    let mut filter = vec![load(0)];
    for (call, n) in [(libc::SYS_clock_gettime, 0), (libc::SYS_clock_nanosleep, 0), (libc::SYS_futex_waitv, 4)] {
        filter.extend([equal(number(call), 4), load(argument(n)), equal(REALTIME, 1), KILL, ALLOW]);
    }
    for call in [libc::SYS_gettimeofday, libc::SYS_time] {
        filter.extend([equal(number(call), 1), KILL]);
    }
    let by_wall_clock = libc::FUTEX_CLOCK_REALTIME.cast_unsigned();
    filter.extend([
        equal(number(libc::SYS_futex), 3),
        load(argument(1)),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, by_wall_clock, 0, 1),
        KILL,
        ALLOW,
    ]);
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: reads `program` and the steps that it names, which live here.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(done, 0, "seccomp: {}", std::io::Error::last_os_error());
}

#[test]
fn every_timed_wait_ends_in_a_process_that_the_wall_clock_would_kill() {
    let options = Options::new();
    let mutex = Mutex::anonymous(0_u64, &options).unwrap();
    let rlock = RLock::anonymous(0_u64, &options).unwrap();
    let rwlock = RwLock::anonymous(0_u64, &options).unwrap();
    let condvar = Condvar::anonymous(0_u64, &options).unwrap();
    let bounded = BoundedSemaphore::anonymous(1, &options).unwrap();
    let semaphore = Semaphore::anonymous(0, &options).unwrap();
    let event = Event::anonymous(&options).unwrap();
    let barrier = Barrier::anonymous(2, &options).unwrap();
    let once = Once::anonymous(&options).unwrap();
    let calls = Calls::anonymous(2, &options).unwrap();
    let queue = Queue::<u64>::anonymous(2, &options).unwrap();
    let _held = (mutex.lock().unwrap(), rlock.lock().unwrap(), rwlock.write().unwrap(), bounded.acquire().unwrap());
    let _server = calls.server().unwrap();
    let child = || {
        fork(|_| {
            let (mutex, rlock, rwlock) = (mutex.rejoin().unwrap(), rlock.rejoin().unwrap(), rwlock.rejoin().unwrap());
            let (condvar, bounded, semaphore) =
                (condvar.rejoin().unwrap(), bounded.rejoin().unwrap(), semaphore.rejoin().unwrap());
            let (event, barrier, once) = (event.rejoin().unwrap(), barrier.rejoin().unwrap(), once.rejoin().unwrap());
            let (calls, queue) = (calls.rejoin().unwrap(), queue.rejoin().unwrap());
            let others = Calls::anonymous(1, &Options::new()).unwrap();
            die_at_the_wall_clock();
            assert!(mutex.lock_timeout(TIMEOUT).is_err());
            assert!(rlock.lock_timeout(TIMEOUT).is_err());
            assert!(rwlock.read_timeout(TIMEOUT).is_err());
            assert!(rwlock.write_timeout(TIMEOUT).is_err());
            assert!(bounded.acquire_timeout(TIMEOUT).is_err());
            assert!(semaphore.acquire_timeout(TIMEOUT).is_err());
            assert!(!event.wait_timeout(TIMEOUT));
            assert_eq!(barrier.wait_timeout(TIMEOUT), Err(BarrierError::TimedOut));
            assert!(condvar.lock().unwrap().wait_timeout(TIMEOUT).is_ok());
            assert!(once.call_once_timeout(TIMEOUT, |_| ()).is_err());
            assert!(calls.client().unwrap().call_timeout(b"nobody looks", TIMEOUT).is_err());
            assert!(others.server().unwrap().recv_timeout(TIMEOUT).is_err());
            assert!(queue.pop_timeout(TIMEOUT).is_err());
        })
    };
    once.call_once(|_| child().join()).unwrap();
}

#[test]
fn the_wall_clock_kills_in_each_of_its_forms() {
    let later = libc::timespec { tv_sec: 1 << 40, tv_nsec: 0 };
    let call = |number: libc::c_long, arguments: [usize; 5]| {
        let [a, b, c, d, e] = arguments;
        // SAFETY: addresses of `later` or of nothing, which the kernel checks; the filter kills before that.
        unsafe { libc::syscall(number, a, b, c, d, e) };
    };
    let (time, by_wall_clock) = ((&raw const later).addr(), libc::FUTEX_WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME);
    let waits = usize::try_from(by_wall_clock).unwrap();
    let forms: [&dyn Fn(); 5] = [
        &|| assert!(SystemTime::now() > SystemTime::UNIX_EPOCH),
        &|| call(libc::SYS_futex, [0, waits, 0, time, 0]),
        &|| call(libc::SYS_futex_waitv, [0, 0, 0, time, 0]),
        &|| call(libc::SYS_clock_nanosleep, [0, 0, time, 0, 0]),
        &|| call(libc::SYS_gettimeofday, [0, 0, 0, 0, 0]),
    ];
    for form in forms {
        let victim = fork(|_| {
            die_at_the_wall_clock();
            form();
        });
        let status = victim.status();
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS, "status {status:#x}");
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_source_names_the_wall_clock_but_to_date_a_new_segment() {
    let mut found = Vec::new();
    for folder in ["src", "../sync/src", "../core/src"] {
        // A packaged crate stands alone.
        if let Ok(folder) = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).canonicalize() {
            sources(&folder, &mut found);
        }
    }
    let mut named = Vec::new();
    for path in &found {
        let text = std::fs::read_to_string(path).unwrap();
        for word in ["REALTIME", "SystemTime", "gettimeofday", "timerfd", "pthread_cond", "sem_timed"] {
            if text.contains(word) {
                named.push((path.file_name().unwrap().to_str().unwrap(), word));
            }
        }
    }
    assert_eq!(named, [("header.rs", "SystemTime")], "in {} files", found.len());
}

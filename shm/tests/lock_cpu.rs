//! What a blocked process costs. One test, so that nothing else of this process runs beside it.

mod family;

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crosslane_shm::{Event, Options, RLock, Shared};
use crosslane_sync::{Deadline, futex};
use family::{Child, fork};

/// One slice behind a named owner.
const SLICE: Duration = Duration::from_millis(10);
/// Each kind this often at the same time: whatever else the machine does hits all alike.
const EACH: u32 = 4;

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    cpu_us: u32,
    /// How often it went to sleep.
    sleeps: u32,
}

impl Used {
    fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }, 0);
        // SAFETY: plain numbers, for which all zero is valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: writes one rusage.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
        let cpu_us = u32::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000).unwrap();
        Self { cpu_us, sleeps: u32::try_from(usage.ru_nvcsw).unwrap() }
    }
}

/// A child that says what `wait` took, once it is told to begin.
fn measured(prepare: impl FnOnce() -> Box<dyn FnOnce()>) -> Child {
    fork(|parent| {
        let wait = prepare();
        parent.tell(0);
        parent.hear();
        let before = Used::now();
        wait();
        let after = Used::now();
        parent.tell(after.cpu_us - before.cpu_us);
        parent.tell(after.sleeps - before.sleeps);
    })
}

/// On a shared word, as the others.
fn bare_slices(word: &AtomicU32, blocked: Duration) {
    let end = Deadline::after(blocked);
    while !end.has_passed() {
        let _ = futex::wait(word, 0, Deadline::after(SLICE));
    }
}

/// What one process costs that is blocked so long with nobody named, behind a named owner, and in bare slices.
fn costs(blocked: Duration) -> [Used; 3] {
    let (event, lock) = (Event::anonymous(&Options::new()).unwrap(), RLock::anonymous(0, &Options::new()).unwrap());
    let _held = lock.lock().unwrap();
    let waits: [&dyn Fn() -> Box<dyn FnOnce()>; 3] = [
        &|| {
            let event = event.rejoin().unwrap();
            Box::new(move || assert!(!event.wait_timeout(blocked)))
        },
        &|| {
            let lock: RLock<i32, _> = lock.rejoin().unwrap();
            Box::new(move || assert!(lock.lock_timeout(blocked).is_err()))
        },
        &|| {
            let word = Shared::anonymous(AtomicU32::new(0), &Options::new()).unwrap();
            Box::new(move || bare_slices(&word, blocked))
        },
    ];
    let mut children: Vec<_> = (0..EACH).flat_map(|_| waits.map(measured)).collect();
    children.iter_mut().for_each(|child| assert_eq!(child.hear(), 0));
    children.iter_mut().for_each(|child| child.tell(0));
    let mut used = [Used::default(); 3];
    for (n, child) in children.iter_mut().enumerate() {
        used[n % 3].cpu_us += child.hear();
        used[n % 3].sleeps += child.hear();
    }
    children.into_iter().for_each(Child::join);
    let used = used.map(|sum| Used { cpu_us: sum.cpu_us / EACH, sleeps: sum.sleeps / EACH });
    println!("blocked for {blocked:?}, nobody named, behind an owner, in bare slices: {used:?}");
    used
}

#[test]
fn a_blocked_process_costs_next_to_nothing_and_behind_an_owner_wakes_no_more_often_than_its_slices() {
    let blocked = std::env::var("CROSSLANE_BLOCKED_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let [nobody, owner, bare] = costs(Duration::from_secs(blocked));
    // A millisecond in ten seconds; a fifth of that in two, and as much for what a busy machine adds.
    let limit = u32::try_from(1_000.min(100 * blocked + 200)).unwrap();
    assert!(nobody.cpu_us <= limit, "{nobody:?} with nobody named, at most {limit} us");
    assert!(nobody.sleeps <= u32::try_from(blocked).unwrap() + 2, "{nobody:?} with nobody named");
    // In sleeps there is no difference, but for slices that a busy machine prolongs.
    assert!(bare.sleeps > 0 && owner.sleeps * 10 <= bare.sleeps * 12, "{owner:?} behind an owner, {bare:?} in slices");
    // In time each slice has a probe more, which is some 1.35 of a bare slice, and more where nothing is optimised.
    assert!(owner.cpu_us <= 3 * bare.cpu_us, "{owner:?} behind an owner, {bare:?} in slices");
}

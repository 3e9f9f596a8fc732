//! Locks leave nothing behind: no fd, no memory, no place in the participant table. One test, since fds are the process's.

mod family;

use crosslane_core::Trusted;
use crosslane_core::owner::MAX_PARTICIPANTS;
use crosslane_shm::{Barrier, BoundedSemaphore, Condvar, Event, Mutex, Once, Options, RLock, RwLock, Semaphore, Slab};
use crosslane_sync::LockError;
use family::{await_death, fork};

const LOCKS: u64 = 1_000;
/// More than a lease domain has places: if each kept its own, the last would find none.
const HOLDERS: u64 = 1_100;
const _: () = assert!(HOLDERS > MAX_PARTICIPANTS as u64);

/// Open fds, mappings, and resident KiB of this process.
fn possessions() -> (usize, usize, u64) {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (fds, maps.lines().count(), pages * 4)
}

/// A thousand locks in one slab, each taken twice by two handles.
fn carve_and_take(slab: &Slab<Trusted>) {
    let locks: Vec<_> = (0..LOCKS).map(|n| RLock::in_slab(slab, n).unwrap()).collect();
    for (n, lock) in (0..).zip(&locks) {
        let again = RLock::<u64, _>::from_slab(slab, lock.object_id().unwrap()).unwrap();
        let _outer = lock.lock().unwrap();
        assert_eq!(again.lock().unwrap().get(), n);
    }
}

/// A thousand of all other kinds in the same slab, each used.
fn carve_every_kind(slab: &Slab<Trusted>) {
    for n in 0..LOCKS / 8 {
        let (mutex, rwlock) = (Mutex::in_slab(slab, n).unwrap(), RwLock::in_slab(slab, n).unwrap());
        let (condvar, bounded) = (Condvar::in_slab(slab, n).unwrap(), BoundedSemaphore::in_slab(slab, 1).unwrap());
        let (semaphore, event) = (Semaphore::in_slab(slab, 1).unwrap(), Event::in_slab(slab).unwrap());
        let (barrier, once) = (Barrier::in_slab(slab, 1).unwrap(), Once::in_slab(slab).unwrap());
        assert_eq!((*mutex.lock().unwrap(), *rwlock.write().unwrap(), *condvar.lock().unwrap()), (n, n, n));
        drop(bounded.acquire().unwrap());
        semaphore.acquire().unwrap();
        event.set();
        event.wait();
        assert!(barrier.wait().unwrap().is_leader);
        assert_eq!(once.call_once(|_| ()), Ok(true));
    }
}

/// Takes the lock in a new process, and kills that.
fn hold_and_kill(lock: &RLock<u64, Trusted>) {
    let mut child = fork(|parent| {
        let lock = lock.rejoin().unwrap();
        let guard = lock.lock().unwrap();
        guard.set(guard.get() + 1);
        parent.tell(lock.segment().domain().unwrap().me().unwrap().to_word());
        parent.forever();
    });
    let dead = child.id();
    child.kill();
    await_death(lock.segment().domain().unwrap(), dead);
    let Err(LockError::OwnerDied(mut guard)) = lock.lock() else { panic!("its holder was killed") };
    guard.mark_consistent();
}

#[test]
fn a_thousand_locks_and_more_killed_holders_than_places_cost_no_fd_no_memory_and_no_place() {
    let slab = Slab::anonymous(&Options::new().slab_bytes(1 << 20)).unwrap();
    let lock = RLock::anonymous(0_u64, &Options::new()).unwrap();
    // What is made once, and kept, is there after some.
    hold_and_kill(&lock);
    let before = possessions();
    carve_and_take(&slab);
    carve_every_kind(&slab);
    (1..HOLDERS).for_each(|_| hold_and_kill(&lock));
    assert_eq!(lock.lock().unwrap().get(), HOLDERS);
    let after = possessions();
    assert_eq!((before.0, before.1), (after.0, after.1), "fds, mappings");
    // The slab is a mebibyte.
    assert!(after.2 < before.2 + 3 * 1024, "resident KiB: {} before, {} after", before.2, after.2);
}

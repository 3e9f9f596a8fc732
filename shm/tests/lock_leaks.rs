//! Locks leave nothing behind: no fd, no memory, no place in the participant table. One test, since fds are the process's.

mod family;

use crosslane_core::Trusted;
use crosslane_shm::{Options, RLock, Slab};
use crosslane_sync::LockError;
use family::{await_death, fork};

const LOCKS: u64 = 1_000;
const HOLDERS: u64 = 500;

fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
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
fn a_thousand_locks_and_five_hundred_killed_holders_cost_no_fd_and_no_place() {
    let slab = Slab::anonymous(&Options::new().slab_bytes(1 << 20)).unwrap();
    let lock = RLock::anonymous(0_u64, &Options::new()).unwrap();
    hold_and_kill(&lock);
    let before = fds();
    carve_and_take(&slab);
    (1..HOLDERS).for_each(|_| hold_and_kill(&lock));
    assert_eq!(lock.lock().unwrap().get(), HOLDERS);
    assert_eq!(fds(), before);
}

//! `RawSyncLock` beside the crate `raw_sync` itself, in another process.

mod family;

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::time::Duration;

use crosslane_core::Trusted;
use crosslane_core::prim::Word;
use crosslane_sync::{LockError, Mutex, RawSyncLock};
use family::{Family, await_flag, hang, raise};
use raw_sync::Timeout;
use raw_sync::locks::{LockImpl, LockInit};

/// Bytes of the family's value: a mutex, and from `VALUE_BYTES` on what it guards.
type Shared = [u64; 16];
const VALUE_BYTES: usize = 64;

const TIMES: u64 = 20_000;
const HELD: usize = 0;
const SEEN: usize = 1;

/// Whose library makes the mutex.
#[derive(Debug, Clone, Copy)]
enum Maker {
    Ours,
    Theirs,
}

type Ours = Mutex<u64, RawSyncLock, Trusted>;

/// Where the shared value of `family` lies.
fn memory(family: &Family<Shared>) -> NonNull<u8> {
    // SAFETY: the value stands at offset 8 of the cell, which is the page's first field.
    unsafe { NonNull::from(family.word()).cast::<u8>().add(8) }
}

fn value(family: &Family<Shared>) -> NonNull<u64> {
    // SAFETY: inside the shared value.
    unsafe { memory(family).add(VALUE_BYTES) }.cast()
}

fn ours(family: &Family<Shared>, is_new: bool) -> Ours {
    const { assert!(RawSyncLock::SIZE_BYTES <= VALUE_BYTES) };
    let lock = if is_new {
        // SAFETY: memory of the family, aligned to 8, that nobody uses yet.
        unsafe { RawSyncLock::init(memory(family)) }.expect("a mutex")
    } else {
        // SAFETY: a mutex that `raw_sync` has made there.
        unsafe { RawSyncLock::attach(memory(family)) }
    };
    // SAFETY: 8 bytes of the family's memory, which both sides touch under this lock alone.
    let mutex = unsafe { Mutex::from_raw_parts(value(family).cast::<Word>(), lock) };
    // SAFETY: as above.
    unsafe { mutex.trust_peers() }
}

fn theirs(family: &Family<Shared>, is_new: bool) -> Box<dyn LockImpl> {
    let (start, value) = (memory(family).as_ptr(), value(family).cast().as_ptr());
    let made = if is_new {
        // SAFETY: memory of the family, aligned to 8, that nobody uses yet.
        unsafe { raw_sync::locks::Mutex::new(start, value) }
    } else {
        // SAFETY: a mutex that `RawSyncLock` has made there.
        unsafe { raw_sync::locks::Mutex::from_existing(start, value) }
    };
    let (lock, used_bytes) = made.expect("a mutex");
    assert_eq!(used_bytes, RawSyncLock::SIZE_BYTES);
    lock
}

/// Both sides' handles, the mutex made by `maker`.
fn both(family: &Family<Shared>, maker: Maker) -> (Ours, Box<dyn LockImpl>) {
    match maker {
        Maker::Ours => {
            let ours = ours(family, true);
            (ours, theirs(family, false))
        }
        Maker::Theirs => {
            let theirs = theirs(family, true);
            (ours(family, false), theirs)
        }
    }
}

fn add_one(theirs: &dyn LockImpl) {
    let guard = theirs.lock().expect("a lock");
    // SAFETY: the value, under its lock.
    unsafe { *guard.cast::<u64>() += 1 };
}

/// Holds the lock by `raw_sync` in a child, until it is told to let go or killed.
fn held_by_theirs(family: &Family<Shared>, theirs: &dyn LockImpl) -> family::Child {
    let child = family.fork(|| {
        let guard = theirs.lock().expect("free");
        raise(family.flag(HELD));
        await_flag(family.flag(SEEN));
        drop(guard);
        true
    });
    await_flag(family.flag(HELD));
    child
}

#[test]
fn additions_by_both_libraries_in_two_processes_are_all_there() {
    for maker in [Maker::Ours, Maker::Theirs] {
        let family = Family::<Shared>::new();
        let (ours, theirs) = both(&family, maker);
        let child = family.fork(|| {
            (0..TIMES).for_each(|_| add_one(theirs.as_ref()));
            true
        });
        for _ in 0..TIMES {
            *ours.lock().unwrap_or_else(|_| panic!("a clean lock")) += 1;
        }
        child.join();
        assert_eq!(ours.read().ok(), Some(2 * TIMES), "{maker:?}");
    }
}

#[test]
fn each_library_sees_that_the_other_holds_the_lock() {
    let family = Family::<Shared>::new();
    let (ours, theirs) = both(&family, Maker::Theirs);
    let child = held_by_theirs(&family, theirs.as_ref());
    assert!(matches!(ours.try_lock(), Err(LockError::WouldBlock(None))));
    let begin = std::time::Instant::now();
    assert!(matches!(ours.lock_timeout(Duration::from_millis(30)), Err(LockError::TimedOut(None))));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    raise(family.flag(SEEN));
    let guard = ours.lock_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("it was let go"));
    child.join();
    family.fork(|| theirs.try_lock(Timeout::Val(Duration::ZERO)).is_err()).join();
    drop(guard);
    family.fork(|| theirs.try_lock(Timeout::Val(Duration::ZERO)).is_ok()).join();
}

#[test]
fn a_fork_child_neither_locks_nor_unlocks_by_what_it_inherits() {
    let family = Family::<Shared>::new();
    let (ours, theirs) = both(&family, Maker::Ours);
    let guard = ManuallyDrop::new(ours.lock().unwrap_or_else(|_| panic!("a clean lock")));
    let child = family.fork(|| {
        // SAFETY: the child's copy of the guard, which only it drops.
        drop(unsafe { core::ptr::read(&raw const *guard) });
        matches!(ours.try_lock(), Err(LockError::Forked)) && matches!(ours.lock(), Err(LockError::Forked))
    });
    child.join();
    family.fork(|| theirs.try_lock(Timeout::Val(Duration::ZERO)).is_err()).join();
    drop(ManuallyDrop::into_inner(guard));
    family.fork(|| theirs.try_lock(Timeout::Val(Duration::ZERO)).is_ok()).join();
}

/// What the documentation says that it lacks.
#[test]
fn a_killed_holder_is_never_told_of() {
    let family = Family::<Shared>::new();
    let (ours, theirs) = both(&family, Maker::Theirs);
    let child = family.fork(|| {
        let _guard = theirs.lock().expect("free");
        raise(family.flag(HELD));
        hang()
    });
    await_flag(family.flag(HELD));
    family.kill(child, 1);
    assert!(matches!(ours.lock_timeout(Duration::from_millis(50)), Err(LockError::TimedOut(None))));
}

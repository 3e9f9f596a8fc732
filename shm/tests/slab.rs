//! Objects in slabs: carved, opened by others, left by the killed, and met with hostile bytes.

mod family;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use crosslane_core::spsc::PopError;
use crosslane_core::{Plain, Trust};
use crosslane_shm::header::HeaderError;
use crosslane_shm::slab::{CarveError, DEFAULT_SLAB_BYTES, LookError};
use crosslane_shm::{Array, CreateError, Domain, Kind, Mutex, ObjectId, OpenError, Options, Record, Slab, Slabs, Spsc};
use family::{Dir, fork, name, watchdog};

/// Where an anonymous slab's parts are in its file, in bytes.
const HEAD_AT: u64 = 256;
const ENTRIES_AT: u64 = HEAD_AT + 64;
const ENTRY_BYTES: u64 = 48;

fn id_of<T: Plain, K: Trust>(mutex: &Mutex<T, K>) -> ObjectId {
    mutex.object_id().unwrap()
}

/// The slab's bytes from `at` on become `bytes`, as a peer could write them.
fn poke(slab: &impl AsFd, at: u64, bytes: &[u8]) {
    let file = std::fs::File::from(slab.as_fd().try_clone_to_owned().unwrap());
    file.write_all_at(bytes, at).unwrap();
}

fn peek(slab: &impl AsFd, at: u64) -> u32 {
    let file = std::fs::File::from(slab.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).unwrap();
    u32::from_le_bytes(bytes)
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Kilobytes that this process has of shared memory.
fn resident_shared_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn every_kind_of_object_works_between_processes_and_by_its_id() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let counter = Mutex::in_slab(&slab, [7_u64; 3]).unwrap();
    let ring = Spsc::<u32, _>::in_slab(&slab, 16, &Options::new()).unwrap();
    let records = Record::in_slab(&slab, 256, &Options::new()).unwrap();
    let ids = [id_of(&counter), ring.object_id().unwrap(), records.object_id().unwrap()].map(ObjectId::number);
    let mut consumer = ring.consumer().unwrap();
    let child = fork(|_| {
        let slab = slab.rejoin().unwrap();
        let ids = ids.map(ObjectId::new);
        let mut producer = Spsc::<u32, _>::from_slab(&slab, ids[1]).unwrap().producer().unwrap();
        *Mutex::<[u64; 3], _>::from_slab(&slab, ids[0]).unwrap().lock().unwrap() = [8; 3];
        Record::from_slab(&slab, ids[2]).unwrap().writer().unwrap().push(b"hello").unwrap();
        (0..1000).for_each(|n| producer.push(n).unwrap());
    });
    (0..1000).for_each(|n| assert_eq!(consumer.pop(), Ok(n)));
    assert_eq!(consumer.pop(), Err(PopError::Closed));
    child.join();
    assert_eq!(*counter.lock().unwrap(), [8; 3]);
    let mut buffer = [0; 8];
    assert_eq!(records.reader().unwrap().pop_into(&mut buffer), Ok(5));
    let kinds: Vec<_> = slab.objects().map(|(_, content)| content.kind).collect();
    assert_eq!(kinds, [Kind::MUTEX, Kind::SPSC, Kind::RECORD]);
}

#[test]
fn a_named_slab_is_met_by_name_and_its_objects_work_on_copies() {
    let dir = Dir::new();
    let slab = Slab::create(&name("slab"), &dir.options()).unwrap();
    let counter = Mutex::in_slab(&slab, 1_u64).unwrap();
    let id = id_of(&counter).number();
    assert_eq!(id, 0);
    fork(|_| {
        let slab = Slab::open(&name("slab"), &dir.options()).unwrap();
        let counter = Mutex::<u64>::from_slab(&slab, ObjectId::new(id)).unwrap();
        counter.update(|n| *n += 1).unwrap();
    })
    .join();
    assert_eq!(counter.read().unwrap(), 2);
    let read_only = Slab::open(&name("slab"), &dir.options().read_only(true)).unwrap_err();
    assert_eq!(read_only, OpenError::ReadOnly);
    let attached = Slab::open(&name("slab"), &dir.options()).unwrap();
    let rest = std::iter::from_fn(|| Mutex::in_slab(&attached, 0_u64).ok());
    assert_eq!(1 + rest.count(), 477, "as the documentation says");
    drop(attached);
    // Whoever holds an object holds the slab.
    drop(slab);
    counter.update(|n| *n += 1).unwrap();
}

#[test]
fn ten_thousand_locks_cost_neither_an_fd_nor_a_page_each() {
    // In a process of its own, where nobody else opens files or carves.
    fork(|_| ten_thousand_locks()).join();
}

fn ten_thousand_locks() {
    const LOCKS: usize = 10_000;
    drop(Mutex::in_slab(Slabs::family(), 0_u64).unwrap());
    let (fds, shared) = (open_fds(), resident_shared_kib());
    let locks: Vec<_> = (0..LOCKS).map(|n| Mutex::in_slab(Slabs::family(), n as u64).unwrap()).collect();
    let fds = open_fds() - fds;
    let shared = resident_shared_kib() - shared;
    let slabs: BTreeSet<_> = locks.iter().map(|lock| lock.segment().header().segment_id).collect();
    println!("{LOCKS} locks: {fds} fds, {} slabs, {shared} KiB of shared memory", slabs.len());
    assert!((20..=21).contains(&slabs.len()), "{}", slabs.len());
    assert!(fds <= 21, "{fds}");
    assert!(shared <= 21 * 64, "{shared} KiB");
    for (n, lock) in locks.iter().enumerate() {
        assert_eq!(*lock.lock().unwrap(), n as u64);
    }
    // Guards of all of them at once: each word is its own.
    let guards: Vec<_> = locks.iter().map(|lock| lock.try_lock().unwrap()).collect();
    let addresses: BTreeSet<_> = guards.iter().map(|guard| std::ptr::from_ref(&**guard)).collect();
    assert_eq!(addresses.len(), LOCKS);
}

#[test]
fn threads_that_outgrow_a_slab_together_get_an_object_each() {
    watchdog();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn(move || {
                    let make = |m| {
                        let lock = Mutex::in_slab(Slabs::family(), [n, m]).unwrap();
                        assert_eq!(*lock.lock().unwrap(), [n, m]);
                        (lock.segment().header().segment_id, lock.object_id().unwrap(), lock)
                    };
                    (0..700_u64).map(make).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let names: BTreeSet<_> = ids.iter().map(|(slab, id, _)| (slab, id)).collect();
    assert_eq!(names.len(), 2800);
}

#[test]
fn a_fork_child_carves_from_its_familys_slabs() {
    let before = Mutex::in_slab(Slabs::family(), 1_u64).unwrap();
    fork(|_| {
        let slab = Slab::anonymous(&Options::new()).unwrap();
        let lock = Mutex::in_slab(Slabs::family(), 2_u64).unwrap();
        assert_eq!(*lock.lock().unwrap(), 2);
        assert_eq!(*before.rejoin().unwrap().lock().unwrap(), 1);
        assert_eq!(*Mutex::in_slab(&slab, 3_u64).unwrap().lock().unwrap(), 3);
    })
    .join();
    let mine = Slab::anonymous(&Options::new()).unwrap();
    fork(|_| {
        let refused = Mutex::in_slab(&mine, 1_u64).unwrap_err();
        assert!(matches!(refused, CreateError::Domain(_)), "{refused}");
    })
    .join();
}

#[test]
fn a_full_slab_and_a_large_object_are_refused_and_hold_nothing_back() {
    let slab = Slab::anonymous(&Options::new().slab_bytes(8192)).unwrap();
    let mut locks = Vec::new();
    let error = loop {
        match Mutex::in_slab(&slab, locks.len() as u64) {
            Ok(lock) => locks.push(lock),
            Err(error) => break error,
        }
    };
    assert_eq!(error, CreateError::Slab(CarveError::Full));
    assert!(locks.len() >= 60, "{}", locks.len());
    assert_eq!(slab.objects().count(), locks.len());
    let large = Mutex::in_slab(Slabs::family(), [0_u8; DEFAULT_SLAB_BYTES as usize]).unwrap_err();
    assert_eq!(large, CreateError::Slab(CarveError::Full));
    assert!(slab.free_bytes() < 8192);
    let bad = Spsc::<u64, _>::in_slab(&slab, 3, &Options::new()).unwrap_err();
    assert!(matches!(bad, CreateError::Spsc(_)));
}

#[test]
fn an_id_opens_what_it_names_or_nothing() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let id = id_of(&Mutex::in_slab(&slab, 1_u64).unwrap());
    let refused = |result: Result<Mutex<u64, _>, OpenError>| result.unwrap_err();
    let next = ObjectId::new(id.number() + 1);
    assert_eq!(refused(Mutex::from_slab(&slab, next)), OpenError::Slab(LookError::Vacant { index: next.number() }));
    let far = ObjectId::new(u32::MAX);
    let error = refused(Mutex::from_slab(&slab, far));
    assert!(matches!(error, OpenError::Slab(LookError::OutOfRange { index: u32::MAX, .. })), "{error}");
    let other_type = Mutex::<i64, _>::from_slab(&slab, id).unwrap_err();
    assert!(matches!(other_type, OpenError::Header(HeaderError::WrongType { .. })), "{other_type}");
    let other_kind = Spsc::<u64, _>::from_slab(&slab, id).unwrap_err();
    assert!(matches!(other_kind, OpenError::Header(HeaderError::WrongKind { .. })), "{other_kind}");
    assert_eq!(*Mutex::<u64, _>::from_slab(&slab, id).unwrap().lock().unwrap(), 1);
}

#[test]
fn a_head_that_was_turned_back_gives_no_object_twice() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let first = Mutex::in_slab(&slab, 1_u64).unwrap();
    let lent = first.lock().unwrap();
    poke(&slab, HEAD_AT, &[0; 8]);
    let again = Mutex::in_slab(&slab, 2_u64).unwrap_err();
    assert_eq!(again, CreateError::Slab(CarveError::Corrupt));
    assert_eq!(*lent, 1);
    // The next piece is nobody's yet.
    assert_eq!(*Mutex::in_slab(&slab, 3_u64).unwrap().lock().unwrap(), 3);
    assert_eq!(*lent, 1);
}

#[test]
fn an_entry_that_leads_into_another_object_is_refused() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let first = Mutex::in_slab(&slab, [1_u64; 8]).unwrap();
    let second = Mutex::in_slab(&slab, 2_u64).unwrap();
    let lent = first.lock().unwrap();
    let offset_of = |id: ObjectId| ENTRIES_AT + ENTRY_BYTES * u64::from(id.number()) + 4;
    let room_of_first = peek(&slab, offset_of(id_of(&first)));
    assert_eq!(room_of_first, 0);
    // A third entry, a copy of the second's that lies in the first's second line: another value's bytes.
    let second_entry = ENTRIES_AT + ENTRY_BYTES * u64::from(id_of(&second).number());
    for offset in [room_of_first, room_of_first + 64, 1 << 20] {
        let fields: Vec<u32> = (0..12).map(|n| peek(&slab, second_entry + 4 * n)).collect();
        let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        bytes[4..8].copy_from_slice(&offset.to_le_bytes());
        poke(&slab, second_entry + ENTRY_BYTES, &bytes);
        let third = Mutex::<u64, _>::from_slab(&slab, ObjectId::new(id_of(&second).number() + 1)).unwrap_err();
        assert_eq!(third, OpenError::Slab(LookError::Corrupt), "{offset}");
    }
    // Nor may an entry change what is known of its object.
    poke(&slab, offset_of(id_of(&second)), &(1_u32 << 14 | 8).to_le_bytes());
    let unaligned = Mutex::<u64, _>::from_slab(&slab, id_of(&second)).unwrap_err();
    assert_eq!(unaligned, OpenError::Slab(LookError::Corrupt));
    assert_eq!((*lent, *second.lock().unwrap()), ([1; 8], 2));
}

#[test]
fn a_killed_carver_leaves_the_others_going() {
    let slab = Slab::anonymous(&Options::new().slab_bytes(1 << 20)).unwrap();
    for _ in 0..10 {
        let mut child = fork(|parent| {
            let slab = slab.rejoin().unwrap();
            for n in 0..u64::MAX {
                if n == 20 {
                    parent.tell(0);
                }
                match Mutex::in_slab(&slab, [n; 2]) {
                    Ok(_) => {}
                    Err(CreateError::Slab(CarveError::Full)) => {
                        // An earlier child may have lived long enough to fill it.
                        if n < 20 {
                            parent.tell(0);
                        }
                        parent.forever();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        child.hear();
        child.kill();
        for (id, _) in slab.objects().collect::<Vec<_>>() {
            let [a, b] = *Mutex::<[u64; 2], _>::from_slab(&slab, id).unwrap().lock().unwrap();
            assert_eq!(a, b);
        }
    }
    assert!(slab.objects().count() >= 20);
}

#[test]
fn the_slabs_fd_is_what_an_object_is_sent_by() {
    let lock = Mutex::in_slab(Slabs::family(), 5_u64).unwrap();
    let fd = lock.as_fd().try_clone_to_owned().unwrap();
    assert_ne!(fd.as_raw_fd(), lock.as_fd().as_raw_fd());
    let slab = Slab::from_fd(fd, &Options::new()).unwrap();
    let same = Mutex::<u64, _>::from_slab(&slab, id_of(&lock)).unwrap();
    *same.lock().unwrap() = 6;
    assert_eq!(*lock.lock().unwrap(), 6);
    assert_eq!(same.segment().domain().unwrap().id(), Domain::family().unwrap().id());
}

#[test]
fn objects_without_bytes_are_apart_from_what_is_carved_behind_them() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let empty: Vec<_> = (0..3).map(|_| Array::<u64, _>::in_slab(&slab, 0).unwrap()).collect();
    let lock = Mutex::in_slab(&slab, 5_u64).unwrap();
    for array in &empty {
        assert_eq!(Array::<u64, _>::from_slab(&slab, array.object_id().unwrap()).unwrap().len(), 0);
    }
    assert_eq!(*Mutex::<u64, _>::from_slab(&slab, id_of(&lock)).unwrap().lock().unwrap(), 5);
}

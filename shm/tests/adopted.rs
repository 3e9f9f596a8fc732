//! Segments shared with the real `shared_memory` crate.
#![cfg_attr(feature = "shared_memory", expect(clippy::cast_ptr_alignment, reason = "a mapping starts at a page"))]
#![cfg(feature = "shared_memory")]

mod family;

use crosslane_core::spsc::Ring;
use crosslane_core::wait::Spin;
use crosslane_core::{OwnerId, WakeMode};
use crosslane_shm::adopted::{AdoptError, Adopted};
use crosslane_shm::{Name, OpenError, Options, RawSegment};
use family::fork;
use shared_memory::{ShmemConf, ShmemError};

fn name_of(adopted: &Adopted<impl crosslane_core::Plain>) -> Name {
    Name::posix(adopted.os_id()).unwrap()
}

#[test]
fn a_segment_of_theirs_is_read_and_written_by_both_and_removed_by_its_creator() {
    let shmem = ShmemConf::new().size(800).create().unwrap();
    let theirs = shmem.as_ptr().cast::<[u64; 100]>();
    // SAFETY: nobody else uses the memory yet.
    unsafe { theirs.write(std::array::from_fn(|n| 10 * n as u64)) };
    let numbers = Adopted::<u64>::adopt(shmem).unwrap();
    assert_eq!((numbers.len(), numbers.elements().get(7)), (100, 70));
    numbers.elements().set(99, 1);
    let theirs = ShmemConf::new().os_id(numbers.os_id()).open().unwrap();
    // SAFETY: nobody writes meanwhile.
    assert_eq!(unsafe { theirs.as_ptr().cast::<[u64; 100]>().read() }[99], 1);
    drop(theirs);
    let name = name_of(&numbers);
    let ours = RawSegment::<u64>::open_exact(&name, 100, &Options::new()).unwrap();
    assert_eq!(ours.view().get(7), 70);
    drop(Adopted::<u32>::open(numbers.os_id()).unwrap());
    drop(ours);
    assert!(RawSegment::<u64>::open(&name, &Options::new()).is_ok(), "who only opened it removes nothing");
    let shmem = numbers.into_shmem();
    assert!(shmem.is_owner());
    drop(shmem);
    assert_eq!(RawSegment::<u64>::open(&name, &Options::new()).unwrap_err(), OpenError::NotFound);
}

#[test]
fn a_segment_of_ours_is_opened_by_theirs_and_stays_ours() {
    let name = Name::random();
    let numbers = RawSegment::<i64>::create(&name, 10, &Options::new()).unwrap();
    let os_id = format!("/{name}");
    let theirs = ShmemConf::new().os_id(&os_id).open().unwrap();
    assert_eq!(theirs.len(), 80);
    // SAFETY: nobody else uses the memory meanwhile.
    unsafe { theirs.as_ptr().cast::<i64>().write(-3) };
    drop(theirs);
    let adopted = Adopted::<i64>::open(&os_id).unwrap();
    adopted.elements().fetch_add(0, 1);
    drop(adopted);
    assert!(numbers.is_named().unwrap());
    assert_eq!(numbers.view().get(0), -2);
}

#[test]
fn a_fork_childs_drop_removes_nothing() {
    let numbers = Adopted::<u64>::adopt(ShmemConf::new().size(8).create().unwrap()).unwrap();
    fork(|_| {
        // SAFETY: a bitwise copy, whose original this process never drops: it ends before.
        drop(unsafe { std::ptr::read(&raw const numbers) });
    })
    .join();
    assert!(Adopted::<u64>::open(numbers.os_id()).is_ok());
}

#[test]
fn what_does_not_fit_is_given_back() {
    let shmem = ShmemConf::new().size(9).create().unwrap();
    let AdoptError::Length { len_bytes: 9, elem_size: 8, shmem } = Adopted::<u64>::adopt(shmem).unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(Adopted::<[u8; 3]>::adopt(*shmem).unwrap().len(), 3);
    let missing = Adopted::<u8>::open("/crosslane-no-such-segment").unwrap_err();
    assert!(matches!(missing, AdoptError::Open(ShmemError::MapOpenFailed(_))), "{missing}");
}

/// Nothing says there who lives, so both ends spin, and neither has a successor.
#[test]
fn a_ring_of_core_runs_in_their_memory() {
    const CAPACITY: u32 = 256;
    let len = Ring::<u64>::layout(CAPACITY).unwrap().size();
    let theirs = Adopted::<u64>::adopt(ShmemConf::new().size(len).create().unwrap()).unwrap();
    let (memory, len) = theirs.memory();
    // SAFETY: page-aligned and long enough; nobody else uses it yet, and this mapping is used for the ring alone.
    let ring = unsafe { Ring::<u64>::init(memory, len, CAPACITY, WakeMode::Polling) }.unwrap();
    let name = name_of(&theirs);
    let child = fork(|_| {
        let ours = RawSegment::<u64>::open(&name, &Options::new()).unwrap();
        let (memory, len) = ours.memory();
        // SAFETY: the ring that the parent made, in a mapping that is used for it alone and outlives the producer.
        let ring = unsafe { Ring::<u64>::attach(memory, len, CAPACITY, WakeMode::Polling) }.unwrap();
        let mut producer = ring.producer(Spin::new(OwnerId::new(1, 1).unwrap())).unwrap();
        (0..2_000).for_each(|n| producer.push(n).unwrap());
    });
    let mut consumer = ring.consumer(Spin::new(OwnerId::new(2, 1).unwrap())).unwrap();
    (0..2_000).for_each(|n| assert_eq!(consumer.pop(), Ok(n)));
    child.join();
}

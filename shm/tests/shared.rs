//! Values that processes use in place.

mod family;

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crosslane_core::Share;
use crosslane_core::plain::Fingerprint;
use crosslane_shm::header::HeaderError;
use crosslane_shm::{CreateError, Expected, Mutex, OpenError, Options, Segment, Shared, Slab};
use family::{Dir, fork, name};

const ROUNDS: u64 = 10_000;

#[test]
fn a_named_value_is_counted_up_by_unrelated_processes() {
    let dir = Dir::new();
    let hits = Shared::create(&name("hits"), [const { AtomicU64::new(5) }; 3], &dir.options()).unwrap();
    let children: Vec<_> = (0..3)
        .map(|n| {
            let dir = &dir;
            fork(move |_| {
                let hits = Shared::<[AtomicU64; 3]>::open(&name("hits"), &dir.options()).unwrap();
                for _ in 0..ROUNDS {
                    hits[n % 2].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    children.into_iter().for_each(family::Child::join);
    let seen: Vec<_> = hits.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    assert_eq!(seen, [5 + 2 * ROUNDS, 5 + ROUNDS, 5]);
}

#[test]
fn a_value_outlives_its_first_handle_and_a_killed_user() {
    let first = Shared::anonymous(AtomicU32::new(7), &Options::new()).unwrap();
    let fd = first.as_fd().try_clone_to_owned().unwrap();
    let second = first.clone();
    drop(first);
    let mut child = fork(|parent| {
        second.store(8, Ordering::Relaxed);
        parent.tell(0);
        parent.forever();
    });
    child.hear();
    child.kill();
    assert_eq!(second.load(Ordering::Relaxed), 8);
    let third = Shared::<AtomicU32>::from_fd(fd, &Options::new()).unwrap();
    third.store(9, Ordering::Relaxed);
    assert_eq!(second.load(Ordering::Relaxed), 9);
    assert_eq!(format!("{second:?}"), "9");
}

#[test]
fn values_in_a_slab_are_apart_and_found_by_id() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let all: Vec<_> = (0..100).map(|n| Shared::in_slab(&slab, AtomicI8::new(n)).unwrap()).collect();
    for (n, value) in all.iter().enumerate() {
        let same = Shared::<AtomicI8, _>::from_slab(&slab, value.object_id().unwrap()).unwrap();
        assert_eq!(usize::try_from(same.load(Ordering::Relaxed)), Ok(n));
        assert!(std::ptr::eq(&*same, &**value));
    }
}

/// A shared struct by hand, of the largest alignment.
#[repr(C, align(128))]
struct Wide([AtomicU64; 16]);

// SAFETY: sixteen atomics of eight bytes fill the 128 bytes.
unsafe impl Share for Wide {
    const FINGERPRINT: u64 =
        Fingerprint::of_struct("Wide", 128, 128).field("0", 0, <[AtomicU64; 16]>::FINGERPRINT).finish();
}

/// One that does not fit any segment.
#[repr(C, align(256))]
struct Wider([AtomicU64; 32]);

// SAFETY: thirty-two atomics of eight bytes fill the 256 bytes.
unsafe impl Share for Wider {
    const FINGERPRINT: u64 = Fingerprint::of_struct("Wider", 256, 256).finish();
}

#[test]
fn alignment_up_to_128_bytes_is_kept_and_more_is_refused() {
    let slab = Slab::anonymous(&Options::new()).unwrap();
    let small = Shared::in_slab(&slab, AtomicU16::new(1)).unwrap();
    let wide = Shared::in_slab(&slab, Wide(std::array::from_fn(|n| AtomicU64::new(n as u64)))).unwrap();
    assert_eq!(std::ptr::from_ref(&*wide).addr() % 128, 0);
    assert_eq!((wide.0[15].load(Ordering::Relaxed), small.load(Ordering::Relaxed)), (15, 1));
    let refused = Shared::anonymous(Wider(std::array::from_fn(|_| AtomicU64::new(0))), &Options::new()).err();
    assert_eq!(refused, Some(CreateError::Alignment { align: 256 }));
}

#[test]
fn another_type_and_a_read_only_open_are_refused() {
    let dir = Dir::new();
    let owner = Shared::create(&name("v"), AtomicU64::new(1), &dir.options()).unwrap();
    let other = Shared::<[AtomicU32; 2]>::open(&name("v"), &dir.options()).err();
    assert!(matches!(other, Some(OpenError::Header(HeaderError::WrongElement { .. }))), "{other:?}");
    let other = Shared::<std::sync::atomic::AtomicI64>::open(&name("v"), &dir.options()).err();
    let Some(OpenError::Header(error @ HeaderError::WrongType { .. })) = other else { panic!("{other:?}") };
    // A compiler may print the alias or what it stands for.
    assert!(error.to_string().contains(std::any::type_name::<std::sync::atomic::AtomicI64>()), "{error}");
    let other = Mutex::<u64>::open(&name("v"), &dir.options()).err();
    assert!(matches!(other, Some(OpenError::Header(HeaderError::WrongKind { .. }))), "{other:?}");
    let read_only = Shared::<AtomicU64>::open(&name("v"), &dir.options().read_only(true)).err();
    assert_eq!(read_only, Some(OpenError::ReadOnly));
    drop(owner);
}

#[test]
fn a_header_that_was_rewritten_opens_no_second_object_over_the_first() {
    let dir = Dir::new();
    let value = Shared::create(&name("v"), [const { AtomicU64::new(3) }; 2], &dir.options()).unwrap();
    let lock = Mutex::create(&name("m"), 4_u64, &dir.options()).unwrap();
    // A peer makes the value's header say what the lock's does.
    let [mut as_lock, mut as_value] = [[0; 40]; 2];
    let file = |fd: &dyn AsFd| std::fs::File::from(fd.as_fd().try_clone_to_owned().unwrap());
    file(&*lock).read_exact_at(&mut as_lock, 40).unwrap();
    file(&*value).read_exact_at(&mut as_value, 40).unwrap();
    file(&*value).write_all_at(&as_lock, 40).unwrap();
    let second = Mutex::<u64>::open(&name("v"), &dir.options()).err();
    assert!(matches!(second, Some(OpenError::Header(HeaderError::Layout { .. }))), "{second:?}");
    file(&*value).write_all_at(&as_value, 40).unwrap();
    assert_eq!(Shared::<[AtomicU64; 2]>::open(&name("v"), &dir.options()).unwrap()[1].load(Ordering::Relaxed), 3);
}

#[test]
fn a_header_that_was_rewritten_opens_no_object_over_a_slabs_directory() {
    let dir = Dir::new();
    let slab = Slab::create(&name("s"), &dir.options()).unwrap();
    let value = Shared::create(&name("v"), [const { AtomicU32::new(3) }; 2], &dir.options()).unwrap();
    let [mut as_value, mut as_slab] = [[0; 40]; 2];
    let file = |fd: &dyn AsFd| std::fs::File::from(fd.as_fd().try_clone_to_owned().unwrap());
    file(&*value).read_exact_at(&mut as_value, 40).unwrap();
    file(&*slab).read_exact_at(&mut as_slab, 40).unwrap();
    file(&*slab).write_all_at(&as_value, 40).unwrap();
    let second = Shared::<[AtomicU32; 2]>::open(&name("s"), &dir.options()).err();
    assert!(matches!(second, Some(OpenError::Header(HeaderError::Layout { .. }))), "{second:?}");
    file(&*slab).write_all_at(&as_slab, 40).unwrap();
    assert!(Slab::open(&name("s"), &dir.options()).is_ok());
    assert_eq!(Mutex::in_slab(&slab, 5_u64).unwrap().read().unwrap(), 5);
}

#[test]
fn a_header_that_was_rewritten_opens_no_bytes_over_the_first() {
    let dir = Dir::new();
    let value = Shared::create(&name("v"), [const { AtomicU32::new(3) }; 4], &dir.options()).unwrap();
    let bytes = Segment::create(&name("b"), 16, &dir.options()).unwrap();
    let mut as_bytes = [0; 40];
    let file = |fd: &dyn AsFd| std::fs::File::from(fd.as_fd().try_clone_to_owned().unwrap());
    file(&*bytes).read_exact_at(&mut as_bytes, 40).unwrap();
    file(&*value).write_all_at(&as_bytes, 40).unwrap();
    let second = Segment::open(&name("v"), &Expected::bytes(), &dir.options()).err();
    assert!(matches!(second, Some(OpenError::Header(HeaderError::Layout { .. }))), "{second:?}");
    assert_eq!(value[3].load(Ordering::Relaxed), 3);
    assert!(Segment::open(&name("b"), &Expected::bytes(), &dir.options()).is_ok());
}

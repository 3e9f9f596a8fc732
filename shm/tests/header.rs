//! Every way in which a file is not the segment that was asked for has its error, with found and expected.

mod family;

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crosslane_core::{Plain, WakeMode};
use crosslane_shm::header::{Element, FORMAT, MAGIC};
use crosslane_shm::{Domain, Expected, HeaderError, Kind, OpenError, Options, Segment, Spsc};
use family::{Dir, fork, name};

/// The error of opening a ring of four `u64`, after `patch` was written at byte `at` of its file.
fn opened_after(at: u64, patch: &[u8]) -> HeaderError {
    let dir = Dir::new();
    let owner = Spsc::<u64>::create(&name("s"), 4, &dir.options()).unwrap();
    let file = OpenOptions::new().write(true).open(dir.file(&name("s"))).unwrap();
    file.write_all_at(patch, at).unwrap();
    let error = open_elsewhere::<u64>(&dir, &dir.options());
    drop(owner);
    error
}

/// The error of opening the ring "s" in another process, which must be the one of a second open in this process.
fn open_elsewhere<T: Plain>(dir: &Dir, options: &Options) -> HeaderError {
    let open = || match Spsc::<T>::open(&name("s"), options).unwrap_err() {
        OpenError::Header(error) => error,
        error => panic!("{error}"),
    };
    let here = open();
    fork(|_| assert_eq!(open(), here)).join();
    assert_eq!(dir.names(), ["s"]);
    here
}

fn segment_id() -> [u8; 16] {
    [0xab; 16]
}

#[test]
fn each_corrupt_field_has_its_error() {
    let len = Spsc::<u64>::anonymous(4, &Options::new()).unwrap().segment().len_bytes();
    let object = 4480;
    let total = object + len;
    let u32s = |value: u32| value.to_le_bytes().to_vec();
    let u64s = |value: u64| value.to_le_bytes().to_vec();
    let layout = |end| HeaderError::Layout { found: end, expected: total };
    let element = |size, align| HeaderError::WrongElement {
        found: Element { size, align },
        expected: Element { size: 8, align: 8 },
        type_name: "u64",
    };
    let cases = [
        (0, u64s(0), HeaderError::NotACrosslaneSegment { found: 0, expected: MAGIC }),
        (0, u64s(1), HeaderError::NotACrosslaneSegment { found: 1, expected: MAGIC }),
        (8, u32s(9 << 16 | 7), HeaderError::FormatVersion { found: (7, 9), expected: FORMAT }),
        (12, u32s(255), HeaderError::HeaderLength { found: 255, expected: 256 }),
        (16, u64s(total - 1), HeaderError::FileLength { found: total, expected: total - 1 }),
        (16, u64s(u64::MAX), HeaderError::FileLength { found: total, expected: u64::MAX }),
        (40, u32s(0), layout(total)),
        (44, u32s(77), HeaderError::WrongKind { found: Kind::custom(77), expected: Kind::SPSC }),
        (48, u64s(5), HeaderError::WrongType { found: 5, expected: u64::FINGERPRINT, type_name: "u64" }),
        (56, u32s(16), element(16, 8)),
        (60, u32s(4), element(8, 4)),
        (120, u64s(3), HeaderError::WakeMode { found: None, expected: None }),
        (128, u64s(0), layout(total)),
        (128, u64s(64), layout(total)),
        (136, u32s(1025), layout(total)),
        (144, u64s(object + 128), layout(total + 128)),
        (144, u64s(u64::MAX), layout(u64::MAX)),
        (152, u64s(len + 8), layout(total + 8)),
        (152, u64s(u64::MAX), layout(u64::MAX)),
    ];
    for (at, patch, expected) in cases {
        assert_eq!(opened_after(at, &patch), expected, "at byte {at}");
    }
    let wrong_domain = opened_after(104, &segment_id());
    assert!(
        matches!(wrong_domain, HeaderError::WrongDomain { found, expected } if found == segment_id() && expected != found)
    );
}

#[test]
fn a_capacity_that_the_memory_does_not_hold_is_refused() {
    let dir = Dir::new();
    let owner = Spsc::<u64>::create(&name("s"), 4, &dir.options()).unwrap();
    let file = OpenOptions::new().write(true).open(dir.file(&name("s"))).unwrap();
    for capacity in [8, 1 << 30, 3, 0, u64::from(u32::MAX) + 5] {
        file.write_all_at(&capacity.to_le_bytes(), 64).unwrap();
        fork(|_| {
            let error = Spsc::<u64>::open(&name("s"), &dir.options()).unwrap_err();
            assert!(matches!(error, OpenError::Spsc(_)), "{error}");
        })
        .join();
    }
    drop(owner);
}

#[test]
fn what_the_opener_insists_on_is_compared() {
    let dir = Dir::new();
    let owner = Spsc::<u64>::create(&name("s"), 4, &dir.options().wake_mode(WakeMode::Polling)).unwrap();
    let options = dir.options();
    assert_eq!(
        open_elsewhere::<u64>(&dir, &options.clone().wake_mode(WakeMode::Fenced)),
        HeaderError::WakeMode { found: Some(WakeMode::Polling), expected: Some(WakeMode::Fenced) }
    );
    let element = |size, align| Element { size, align };
    assert_eq!(
        open_elsewhere::<u32>(&dir, &options),
        HeaderError::WrongElement { found: element(8, 8), expected: element(4, 4), type_name: "u32" }
    );
    assert_eq!(
        open_elsewhere::<i64>(&dir, &options),
        HeaderError::WrongType { found: u64::FINGERPRINT, expected: i64::FINGERPRINT, type_name: "i64" }
    );
    let content = owner.segment().header().content;
    let all = Expected {
        kind: Kind::SPSC,
        elem_size: Some(content.elem_size),
        elem_align: content.elem_align,
        fingerprint: content.fingerprint,
        type_name: "u64",
        capacity: Some(5),
        wake: None,
    };
    assert_eq!(
        Segment::open(&name("s"), &all, &options).unwrap_err(),
        OpenError::Header(HeaderError::WrongCapacity { found: 4, expected: 5 })
    );
    assert_eq!(
        Segment::open(&name("s"), &Expected::bytes(), &options).unwrap_err(),
        OpenError::Header(HeaderError::WrongKind { found: Kind::SPSC, expected: Kind::BYTES })
    );
    let read_only = Spsc::<u64>::open(&name("s"), &options.read_only(true)).unwrap_err();
    assert_eq!(read_only, OpenError::ReadOnly);
    drop(owner);
}

#[test]
fn a_file_that_was_cut_or_stretched_is_refused() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let total = owner.header().total_len_bytes;
    let file = OpenOptions::new().write(true).open(dir.file(&name("s"))).unwrap();
    for (len, expected) in [
        (total + 1, HeaderError::FileLength { found: total + 1, expected: total }),
        (total - 1, HeaderError::FileLength { found: total - 1, expected: total }),
        (300, HeaderError::FileLength { found: 300, expected: total }),
        (255, HeaderError::TooSmall { found: 255, expected: 256 }),
        (0, HeaderError::TooSmall { found: 0, expected: 256 }),
    ] {
        file.set_len(len).unwrap();
        fork(|_| {
            let error = Segment::open(&name("s"), &Expected::bytes(), &dir.options()).unwrap_err();
            assert_eq!(error, OpenError::Header(expected));
        })
        .join();
        // This process, which has it open, sees the same before it looks at the memory that is gone.
        let error = Segment::open(&name("s"), &Expected::bytes(), &dir.options()).unwrap_err();
        assert_eq!(error, OpenError::Header(expected));
    }
    drop(owner);
}

fn copy(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn an_anonymous_segment_of_another_family_or_without_seals_is_refused() {
    let segment = Segment::anonymous(64, &Options::new()).unwrap();
    let family = Domain::family().unwrap();
    let (domain_fd, domain_id) = (copy(&family), family.id());
    let options = Options::new();
    let same = Segment::from_fd(copy(&segment), &Expected::bytes(), &options).unwrap();
    assert_eq!(same.header(), segment.header());

    let dir = Dir::new();
    let named = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let unsealed = Segment::from_fd(copy(&*named), &Expected::bytes(), &options).unwrap_err();
    assert!(matches!(unsealed, OpenError::NotSealed { .. }), "{unsealed}");
    let error = Segment::from_fd_in(copy(&segment), &Expected::bytes(), &options, named.domain().unwrap()).unwrap_err();
    let expected = named.header().domain_id;
    assert_eq!(error, OpenError::Header(HeaderError::WrongDomain { found: domain_id, expected }));
    drop(named);

    assert_eq!(Domain::join_family(domain_fd).unwrap().id(), domain_id);
    let not_a_domain = Domain::join_family(copy(&segment)).unwrap_err();
    assert!(matches!(not_a_domain, OpenError::Header(HeaderError::WrongKind { .. })), "{not_a_domain}");
}

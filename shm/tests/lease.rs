//! What a lease proves and what it survives, with real processes.

mod family;

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crosslane_core::OwnerId;
use crosslane_core::end::ClaimError;
use crosslane_shm::{Domain, DomainError, Expected, OpenError, Options, Probe, Segment, Spsc};
use family::{Dir, Parent, await_death, close_fds_except, fork, name, replace_fd};

/// Where the participant table's generations start in a named segment, in bytes.
const GENERATIONS: u64 = 256 + 64;

fn me(domain: &Domain) -> OwnerId {
    domain.me().unwrap()
}

/// Opens the segment and says under which id.
fn join(dir: &Dir, parent: &mut Parent) -> crosslane_shm::Attached<Segment> {
    let segment = Segment::open(&name("s"), &Expected::bytes(), &dir.options()).unwrap();
    parent.tell(me(segment.domain().unwrap()).to_word());
    segment
}

#[test]
fn a_killed_participant_is_proven_dead_and_a_living_one_is_not() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let domain = owner.domain().unwrap();
    let mut child = fork(|parent| {
        let _segment = join(&dir, parent);
        parent.forever();
    });
    let id = child.id();
    assert_eq!(domain.probe(id), Ok(Probe::NotProven));
    assert_eq!(domain.probe(me(domain)), Ok(Probe::NotProven));
    child.kill();
    await_death(domain, id);
    assert_eq!(domain.probe(id), Ok(Probe::Dead));
}

#[test]
fn a_zombie_is_proven_dead_before_it_is_reaped() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let _segment = join(&dir, parent);
        parent.forever();
    });
    let id = child.id();
    child.signal(libc::SIGKILL);
    await_death(owner.domain().unwrap(), id);
    child.kill();
}

#[test]
fn leaving_in_order_frees_the_place_and_the_next_generation_differs() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let domain = owner.domain().unwrap();
    let mut seen = std::collections::HashSet::from([me(domain)]);
    // Once around the table and a little: each index rests for 1,023 joins and comes back one generation later.
    let mut child = fork(|parent| {
        for _ in 0..1100 {
            drop(join(&dir, parent));
        }
    });
    for turn in 0..1100_u32 {
        let id = child.id();
        assert!(seen.insert(id), "{id:?} was given out twice");
        let expected = if turn < 1023 { (turn + 1, 1) } else { (turn - 1023 + 1, 2) };
        assert_eq!((id.index(), id.generation()), expected);
    }
    child.join();
    for id in seen {
        let expected = if id == me(domain) { Probe::NotProven } else { Probe::Dead };
        assert_eq!(domain.probe(id), Ok(expected));
    }
}

#[test]
fn a_fork_child_does_not_hide_its_parents_death() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let _segment = join(&dir, parent);
        let grandchild = fork(|inner| inner.forever());
        parent.tell(grandchild.pid.cast_unsigned());
        parent.forever();
    });
    let id = child.id();
    let grandchild = child.hear().cast_signed();
    child.kill();
    await_death(owner.domain().unwrap(), id);
    assert!(grandchild > 1);
    // SAFETY: the process that our child started; it was alive until here.
    assert_eq!(unsafe { libc::kill(grandchild, libc::SIGKILL) }, 0);
}

#[test]
fn closing_every_fd_does_not_lose_the_lease() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let domain = owner.domain().unwrap();
    let mut child = fork(|parent| {
        let segment = join(&dir, parent);
        close_fds_except(&parent.fds());
        // It opens the file again by its name.
        let dead = OwnerId::new(5, 1).unwrap();
        assert_eq!(segment.domain().unwrap().probe(dead), Ok(Probe::Dead));
        let living = OwnerId::new(0, 1).unwrap();
        assert_eq!(segment.domain().unwrap().probe(living), Ok(Probe::NotProven));
        parent.tell(1);
        parent.forever();
    });
    let id = child.id();
    child.hear();
    assert_eq!(domain.probe(id), Ok(Probe::NotProven));
    child.kill();
    await_death(domain, id);
}

#[test]
fn an_fd_that_leads_to_another_domain_proves_nothing() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let segment = join(&dir, parent);
        // Here this process has index 1 too, and index 0 is dead.
        drop(Segment::create(&name("other"), 64, &dir.options()).unwrap().keep());
        let other = Segment::open(&name("other"), &Expected::bytes(), &dir.options()).unwrap();
        let index = |segment: &Segment| me(segment.domain().unwrap()).index();
        assert_eq!(index(&segment), index(&other));
        replace_fd(segment.as_fd(), &other.as_fd());
        let parents = OwnerId::new(0, 1).unwrap();
        assert_eq!(segment.domain().unwrap().probe(parents), Ok(Probe::NotProven));
    });
    child.id();
    child.join();
    drop(owner);
    assert_eq!(crosslane_shm::sweep_in(dir.path()).unwrap().removed, [name("other")]);
}

#[test]
fn a_stopped_process_is_not_dead() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let domain = owner.domain().unwrap();
    let mut child = fork(|parent| {
        let _segment = join(&dir, parent);
        parent.hear();
    });
    let id = child.id();
    child.signal(libc::SIGSTOP);
    let mut status = 0;
    // SAFETY: waits until our child has stopped; `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child.pid, &raw mut status, libc::WUNTRACED) }, child.pid);
    assert!(libc::WIFSTOPPED(status));
    assert_eq!(domain.probe(id), Ok(Probe::NotProven));
    child.signal(libc::SIGCONT);
    child.tell(0);
    child.join();
    await_death(domain, id);
}

#[test]
fn executing_another_program_ends_the_lease_while_the_process_lives() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let _segment = join(&dir, parent);
        let args = [c"sleep".as_ptr(), c"100".as_ptr(), std::ptr::null()];
        // SAFETY: C strings and a null at the end.
        unsafe { libc::execvp(args[0], args.as_ptr()) };
        panic!("no sleep here: {}", std::io::Error::last_os_error());
    });
    let id = child.id();
    await_death(owner.domain().unwrap(), id);
    child.signal(0);
    child.kill();
}

#[test]
fn a_second_open_shares_the_participant_and_the_last_drop_leaves() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let mut child = fork(|parent| {
        let first = join(&dir, parent);
        let second = join(&dir, parent);
        drop(first);
        parent.hear();
        drop(second);
        parent.tell(0);
        parent.hear();
    });
    let (first, second) = (child.id(), child.id());
    assert_eq!(first, second);
    let domain = owner.domain().unwrap();
    assert_eq!(domain.probe(first), Ok(Probe::NotProven));
    child.tell(0);
    child.hear();
    assert_eq!(domain.probe(first), Ok(Probe::Dead));
    child.tell(0);
    child.join();
    assert_eq!(
        me(Segment::open(&name("s"), &Expected::bytes(), &dir.options()).unwrap().domain().unwrap()),
        me(domain)
    );
}

#[test]
fn a_fork_child_is_forked_until_it_joins_anew() {
    let dir = Dir::new();
    let ring = Spsc::<u64>::create(&name("ring"), 8, &dir.options()).unwrap();
    let mut producer = ring.producer().unwrap();
    let before = me(ring.segment().domain().unwrap());
    let mut child = fork(|parent| {
        let domain = ring.segment().domain().unwrap();
        assert_eq!(domain.me(), None);
        assert_eq!(domain.probe(before), Err(DomainError::Forked));
        assert_eq!(producer.try_push(1), Err(crosslane_core::spsc::PushError::Forked));
        assert_eq!(ring.consumer().unwrap_err(), ClaimError::Forked);
        // By name and by what was inherited: one participant.
        let opened = Spsc::<u64>::open(&name("ring"), &dir.options()).unwrap();
        let rejoined = ring.rejoin().unwrap();
        let id = me(opened.segment().domain().unwrap());
        assert_eq!(id, me(rejoined.segment().domain().unwrap()));
        assert_ne!(id, before);
        assert_eq!(ring.producer().unwrap_err(), ClaimError::Forked);
        let mut consumer = rejoined.consumer().unwrap();
        assert_eq!(opened.producer().unwrap_err(), ClaimError::EndTaken(before));
        parent.tell(id.to_word());
        assert_eq!(consumer.pop(), Ok(7));
    });
    let id = child.id();
    assert_eq!(ring.segment().domain().unwrap().probe(id), Ok(Probe::NotProven));
    producer.push(7).unwrap();
    child.join();
    // The child's inherited owner removed no name, its inherited producer closed no end.
    assert_eq!(dir.names(), ["ring"]);
    assert_eq!(ring.producer_end(), crosslane_core::end::End::Owned(before));
    await_death(ring.segment().domain().unwrap(), id);
}

/// Where this process's lease of the file is mapped: shared, without access rights.
fn lease_page(dir: &Dir) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let directory = dir.path().to_str().unwrap();
    let line = maps.lines().find(|line| line.contains("---s") && line.contains(directory)).unwrap();
    usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()
}

#[test]
fn a_fork_child_that_drops_what_it_inherited_unmaps_nothing_of_its_own() {
    let dir = Dir::new();
    let mut owner = Some(Segment::create(&name("s"), 64, &dir.options()).unwrap());
    let page = std::ptr::without_provenance_mut::<libc::c_void>(lease_page(&dir));
    fork(|_| {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: takes the place only if nothing is there: the lease's page is not inherited.
        assert_eq!(unsafe { libc::mmap(page, 4096, prot, flags, -1, 0) }, page);
        drop(owner.take());
        let mut presence = 0_u8;
        // SAFETY: `presence` is writable; the call fails where nothing is mapped.
        assert_eq!(unsafe { libc::mincore(page, 4096, &raw mut presence) }, 0);
    })
    .join();
    assert_eq!(lease_page(&dir), page.addr());
}

#[test]
fn the_family_is_joined_anew_by_a_fork_child() {
    let segment = Segment::anonymous(64, &Options::new()).unwrap();
    let domain = Domain::family().unwrap();
    let mut child = fork(|parent| {
        assert!(segment.domain().unwrap().me().is_none());
        let family = Domain::family().unwrap();
        parent.tell(me(&family).to_word());
        let copy = Segment::from_fd(segment.as_fd().try_clone_to_owned().unwrap(), &Expected::bytes(), &Options::new());
        copy.unwrap().copy_in(0, b"from it.").unwrap();
        parent.forever();
    });
    let id = child.id();
    assert_eq!(domain.probe(id), Ok(Probe::NotProven));
    let mut seen = [0; 8];
    while &seen != b"from it." {
        segment.copy_out(0, &mut seen).unwrap();
    }
    child.kill();
    while !domain.reap().unwrap().contains(&id) {}
    assert_eq!(domain.reap(), Ok(Vec::new()));
}

#[test]
fn a_full_domain_and_an_exhausted_one_say_so() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.file(&name("s"))).unwrap();
    for index in 1..1024 {
        file.write_all_at(&4095_u32.to_ne_bytes(), GENERATIONS + 4 * index).unwrap();
    }
    let refused = |expected: DomainError| {
        fork(|_| {
            let error = Segment::open(&name("s"), &Expected::bytes(), &dir.options()).unwrap_err();
            assert_eq!(error, OpenError::Domain(expected));
        })
        .join();
    };
    // One place is not retired, and this process sits there.
    refused(DomainError::DomainFull);
    file.write_all_at(&4095_u32.to_ne_bytes(), GENERATIONS).unwrap();
    refused(DomainError::DomainExhausted);
    file.write_all_at(&4094_u32.to_ne_bytes(), GENERATIONS + 4 * 9).unwrap();
    let mut child = fork(|parent| drop(join(&dir, parent)));
    let id = child.id();
    assert_eq!((id.index(), id.generation()), (9, 4095));
    child.join();
    refused(DomainError::DomainExhausted);
    drop(owner);
}

#[test]
fn a_hostile_table_neither_panics_nor_loops() {
    let dir = Dir::new();
    let owner = Segment::create(&name("s"), 64, &dir.options()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.file(&name("s"))).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        let mut noise = vec![0_u8; 64 + 4096];
        for byte in &mut noise {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = seed.to_le_bytes()[7];
        }
        file.write_all_at(&noise, 256).unwrap();
        let domain = owner.domain().unwrap();
        for index in 0..1024 {
            domain.probe(OwnerId::new(index, 1 + index).unwrap()).unwrap();
        }
        domain.reap().unwrap();
    }
    fork(|_| match Segment::open(&name("s"), &Expected::bytes(), &dir.options()) {
        Ok(_) | Err(OpenError::Domain(DomainError::DomainFull | DomainError::DomainExhausted)) => {}
        Err(error) => panic!("{error}"),
    })
    .join();
}

//! Named segments and lease domains: join, leave, create, open, unlink, sweep. Whoever is killed (or stopped) in one of
//! them leaves a name that is whole or nothing, never hides a name, never removes a living one.
//!
//! These operations are thousands of instructions, most of them libc's: the edges of every system call are visited, and
//! a stride through the rest.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};

use crosslane_core::OwnerId;
use crosslane_shm::{
    Attached, CreateError, Domain, Expected, Name, OpenError, Options, Owner, Probe, Segment, sweep_in,
};
use crosslane_tests::child::{Child, End, die};
use crosslane_tests::futex::{futex_wait, futex_wake};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};

use crate::Wanted;

/// Bytes of each segment.
const LEN_BYTES: u64 = 64;
/// Instructions between two points that are not at a system call.
const STRIDE: u64 = 149;
/// How long a child of the driver's may take.
const CHILD: Duration = Duration::from_secs(20);
/// How long an open or create waits for somebody who is in the way: the paused one is there until the interlude ends.
const IN_THE_WAY: Duration = Duration::from_millis(4);

/// What a directory of a sweep is called; its pid and a number follow.
const PREFIX: &str = "/dev/shm/crosslane-sweep-";

/// A directory of its own below `/dev/shm`, removed when dropped.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// The directory of this number; those of dead sweeps are removed.
    pub(crate) fn new(number: usize) -> Self {
        Self::remove_dead();
        let path = PathBuf::from(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new directory in /dev/shm");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes the directories of sweeps that were killed.
    fn remove_dead() {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let path = entry.path();
            let rest = path.to_str().and_then(|path| path.strip_prefix(PREFIX));
            let pid = rest.and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The operation under the knife.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Create,
    CreateOverLeftover,
    OpenLiving,
    OpenLeftover,
    Unlink,
    SweepLeftover,
    SweepLiving,
    /// Seeded: makes the file under its name and fills it there.
    CreateInPlace,
    /// Seeded: sees that the name leads to a dead segment, and then removes the name.
    LookThenUnlink,
}

/// What the driver does while the victim is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interlude {
    Nothing,
    Create,
    Open,
    Sweep,
}

struct Play<'a> {
    directory: &'a Path,
    part: Part,
    interlude: Interlude,
    /// The driver's living segment, where it has one.
    mine: Option<Owner<Segment>>,
    opened: Option<Attached<Segment>>,
    victims: Option<Owner<Segment>>,
    robbed: bool,
}

fn name() -> Name {
    Name::new("meeting").expect("a name")
}

fn options(directory: &Path) -> Options {
    Options::new().directory(directory).open_timeout(IN_THE_WAY)
}

fn create(directory: &Path, mark: u64) -> Result<Owner<Segment>, CreateError> {
    let owner = Segment::create(&name(), LEN_BYTES, &options(directory))?;
    owner.copy_in(0, &mark.to_le_bytes()).expect("8 bytes fit");
    Ok(owner)
}

fn open(directory: &Path) -> Result<Attached<Segment>, OpenError> {
    Segment::open(&name(), &Expected::bytes(), &options(directory))
}

fn mark_of(segment: &Segment) -> u64 {
    let mut bytes = [0; 8];
    segment.copy_out(0, &mut bytes).expect("8 bytes are there");
    u64::from_le_bytes(bytes)
}

/// What the driver writes into its segments.
const DRIVERS: u64 = 0xd1;
/// What the dead one wrote.
const LEFTOVERS: u64 = 0x1e;
/// What the victim writes into its own.
const VICTIMS: u64 = 0x7c;

/// Somebody creates the segment and is killed.
fn leave_behind(directory: &Path) {
    let mut child = Child::fork(|| {
        let _owner = create(directory, LEFTOVERS);
        die()
    });
    assert_eq!(child.wait(CHILD), Some(End::Signalled(libc::SIGKILL)), "the leftover's creator");
}

/// Whether a stranger who opens the name finds the segment with `mark`.
fn stranger_finds(directory: &Path, mark: u64) -> Result<(), String> {
    let mut child = Child::fork(|| match open(directory) {
        Ok(segment) if mark_of(&segment) == mark => 0,
        Ok(_) => 2,
        Err(OpenError::NotFound) => 3,
        Err(OpenError::Busy) => 4,
        Err(_) => 5,
    });
    match child.wait(CHILD) {
        Some(End::Exited(0)) => Ok(()),
        Some(End::Exited(2)) => Err("a stranger finds another segment".into()),
        Some(End::Exited(3)) => Err("a living segment's name is gone".into()),
        Some(End::Exited(4)) => Err("a name is hidden: busy".into()),
        other => Err(format!("a stranger cannot open: {other:?}")),
    }
}

impl<'a> Play<'a> {
    fn new(directory: &'a Path, part: Part, interlude: Interlude) -> Self {
        // What an earlier, bad point left.
        let _ = fs::remove_file(directory.join(name().as_str()));
        let mine = match part {
            Part::OpenLiving | Part::SweepLiving => Some(create(directory, DRIVERS).expect("a free name")),
            Part::CreateOverLeftover | Part::OpenLeftover | Part::SweepLeftover | Part::LookThenUnlink => {
                leave_behind(directory);
                None
            }
            Part::Create | Part::Unlink | Part::CreateInPlace => None,
        };
        Self { directory, part, interlude, mine, opened: None, victims: None, robbed: false }
    }

    fn must_exist(&mut self, path: &Path) -> Result<(), CreateError> {
        self.robbed = fs::metadata(path).is_err();
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        let path = self.directory.join(name().as_str());
        let done = match self.part {
            Part::CreateInPlace => {
                let file = fs::File::create(&path).and_then(|file| file.set_len(LEN_BYTES));
                return file.and_then(|()| fs::remove_file(&path)).map_err(|error| error.to_string());
            }
            Part::LookThenUnlink => {
                if fs::metadata(&path).is_ok() {
                    let _ = fs::remove_file(&path);
                }
                Ok(())
            }
            Part::Create | Part::CreateOverLeftover => match create(self.directory, VICTIMS) {
                Ok(owner) => {
                    self.victims = Some(owner);
                    self.must_exist(&path)
                }
                Err(error) => Err(error),
            },
            Part::OpenLiving | Part::OpenLeftover => match open(self.directory) {
                Ok(opened) => {
                    self.opened = Some(opened);
                    // From here on it is in use: nobody may take the name away but its owner.
                    self.must_exist(&path)
                }
                // What it may find when the driver was quicker.
                Err(OpenError::NotFound | OpenError::Busy) if self.interlude != Interlude::Nothing => Ok(()),
                Err(error) => return Err(format!("open: {error:?}")),
            },
            Part::Unlink => {
                drop(self.victims.take());
                Ok(())
            }
            Part::SweepLeftover | Part::SweepLiving => {
                let swept = sweep_in(self.directory).map_err(|error| format!("sweep: {error:?}"))?;
                if swept.errors.is_empty() { Ok(()) } else { return Err(format!("sweep: {:?}", swept.errors)) }
            }
        };
        match done {
            Ok(()) if self.robbed => Err("it is in use, and its name is gone".into()),
            Ok(()) => Ok(()),
            Err(CreateError::NameInUse { .. }) if self.interlude != Interlude::Nothing => Ok(()),
            Err(error) => Err(format!("create: {error:?}")),
        }
    }

    /// Everybody but the driver is dead: what there is, is whole; the living is untouched; the rest can be swept and the
    /// name used again; nothing stays behind.
    fn clean_up(&mut self) -> Result<(), String> {
        if let Some(mine) = self.mine.take() {
            stranger_finds(self.directory, DRIVERS)?;
            drop(mine);
        }
        self.opened = None;
        match open(self.directory) {
            Err(OpenError::NotFound) => {}
            Ok(found) => {
                let mark = mark_of(&found);
                let may = match self.part {
                    Part::Create => &[0, VICTIMS][..],
                    Part::CreateOverLeftover => &[0, VICTIMS, LEFTOVERS],
                    Part::Unlink => &[VICTIMS],
                    Part::OpenLeftover | Part::SweepLeftover | Part::LookThenUnlink => &[LEFTOVERS],
                    Part::OpenLiving | Part::SweepLiving | Part::CreateInPlace => &[],
                };
                if !may.contains(&mark) {
                    return Err(format!("the name leads to a segment with {mark:#x}"));
                }
            }
            Err(error) => return Err(format!("the name cannot be opened: {error:?}")),
        }
        let swept = sweep_in(self.directory).map_err(|error| format!("sweep: {error:?}"))?;
        if !swept.kept.is_empty() || !swept.errors.is_empty() {
            return Err(format!("a dead segment cannot be swept: {swept:?}"));
        }
        let owner = create(self.directory, DRIVERS).map_err(|error| format!("the name cannot be used: {error:?}"))?;
        stranger_finds(self.directory, DRIVERS)?;
        drop(owner);
        let left: Vec<_> = fs::read_dir(self.directory).map_err(|error| error.to_string())?.flatten().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
    }
}

impl Scene for Play<'_> {
    fn prepare(&mut self) {
        if self.part == Part::Unlink {
            self.victims = Some(create(self.directory, VICTIMS).expect("a free name"));
        }
    }

    fn operate(&mut self) {
        if let Err(why) = self.act() {
            panic!("{why}");
        }
    }

    fn interlude(&mut self) -> Result<(), String> {
        match self.interlude {
            Interlude::Nothing => Ok(()),
            Interlude::Create => match create(self.directory, DRIVERS) {
                Ok(owner) => {
                    self.mine = Some(owner);
                    Ok(())
                }
                Err(CreateError::NameInUse { .. }) => Ok(()),
                Err(error) => Err(format!("create beside the paused one: {error:?}")),
            },
            Interlude::Open => match open(self.directory) {
                Ok(opened) => {
                    self.opened = Some(opened);
                    Ok(())
                }
                Err(OpenError::NotFound | OpenError::Busy) => Ok(()),
                Err(error) => Err(format!("open beside the paused one: {error:?}")),
            },
            Interlude::Sweep => {
                let swept = sweep_in(self.directory).map_err(|error| format!("sweep: {error:?}"))?;
                if swept.errors.is_empty() { Ok(()) } else { Err(format!("sweep: {:?}", swept.errors)) }
            }
        }
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        if let Some(opened) = self.opened.take() {
            // Somebody had it open all the while: nobody may have swept it. Its owner may have removed it.
            if self.mine.is_none() && self.part != Part::Unlink {
                stranger_finds(self.directory, mark_of(&opened))?;
            }
        }
        self.clean_up()
    }
}

/// A member joins a domain and leaves it.
struct Membership<'a> {
    segment: &'a Segment,
    joined: Option<Segment>,
    leaves: bool,
}

impl Scene for Membership<'_> {
    fn prepare(&mut self) {
        if self.leaves {
            self.joined = Some(self.segment.rejoin().expect("places are left"));
        }
    }

    fn operate(&mut self) {
        if self.leaves {
            drop(self.joined.take());
        } else {
            self.joined = Some(self.segment.rejoin().expect("places are left"));
        }
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        let domain = self.segment.domain().ok_or("the driver is no member")?;
        let driver = domain.me().ok_or("the driver has no id")?;
        let page = Mapping::new(4);
        // SAFETY: an integer in an atomic: every bit pattern is one.
        let id: &AtomicU32 = unsafe { page.at(0) };
        let mut member = Child::fork(|| {
            let Ok(segment) = self.segment.rejoin() else { return 2 };
            let Some(domain) = segment.domain() else { return 3 };
            if domain.probe(driver) != Ok(Probe::NotProven) {
                return 4;
            }
            let Some(me) = domain.me() else { return 5 };
            id.store(me.to_word(), SeqCst);
            futex_wake(id, 1);
            loop {
                futex_wait(id, me.to_word(), CHILD);
            }
        });
        futex_wait(id, 0, CHILD);
        let id = OwnerId::from_word(id.load(SeqCst));
        let Some(id) = id else { return Err(format!("a newcomer: {:?}", member.wait(CHILD))) };
        domain.reap().map_err(|error| format!("reap: {error:?}"))?;
        if domain.probe(id) != Ok(Probe::NotProven) {
            return Err(format!("the living {id} is taken for dead"));
        }
        member.signal(libc::SIGKILL);
        member.wait(CHILD);
        match domain.probe(id) {
            Ok(Probe::Dead) => Ok(()),
            other => Err(format!("the dead {id}: {other:?}")),
        }
    }
}

/// A newcomer pauses on its way in while the driver looks for the dead; once it has an id, a member must find it alive.
struct Newcomer<'a> {
    segment: &'a Segment,
    joined: Option<Segment>,
    id: &'a AtomicU32,
    probed: &'a AtomicU32,
}

/// In place of an id: there will be none.
const NOBODY: u32 = u32::MAX;

impl Scene for Newcomer<'_> {
    fn operate(&mut self) {
        let segment = self.segment.rejoin().expect("places are left");
        let id = segment.domain().and_then(Domain::me).expect("an id");
        self.joined = Some(segment);
        self.id.store(id.to_word(), SeqCst);
        futex_wake(self.id, 1);
        while self.probed.load(SeqCst) == 0 {
            futex_wait(self.probed, 0, CHILD);
        }
    }

    fn companion(&mut self, _: usize) -> Result<(), String> {
        let segment = self.segment.rejoin().map_err(|error| format!("{error:?}"))?;
        let domain = segment.domain().ok_or("no member")?;
        while self.id.load(SeqCst) == 0 {
            futex_wait(self.id, 0, CHILD);
        }
        let word = self.id.load(SeqCst);
        let found = OwnerId::from_word(word).map(|id| domain.probe(id));
        self.probed.store(1, SeqCst);
        futex_wake(self.probed, 1);
        match found {
            Some(Ok(Probe::NotProven)) => Ok(()),
            _ if word == NOBODY => Ok(()),
            other => Err(format!("the newcomer, who lives: {other:?}")),
        }
    }

    fn interlude(&mut self) -> Result<(), String> {
        let domain = self.segment.domain().ok_or("no member")?;
        domain.reap().map(|_| ()).map_err(|error| format!("reap: {error:?}"))
    }

    fn reap(&mut self) {
        let _ = self.id.compare_exchange(0, NOBODY, SeqCst, SeqCst);
        futex_wake(self.id, 1);
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        Ok(())
    }
}

/// Seeded: members are counted, and who is killed is counted for ever.
struct Counted<'a>(&'a AtomicU32);

impl Scene for Counted<'_> {
    fn operate(&mut self) {
        self.0.fetch_add(1, SeqCst);
        self.0.fetch_sub(1, SeqCst);
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        match self.0.swap(0, SeqCst) {
            0 => Ok(()),
            count => Err(format!("{count} members, all of them dead")),
        }
    }
}

/// Sweeps of names and domains, killed and paused; then broken ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table, directory: &Path) {
    // What a process finds out about the machine at its first segment, and keeps, is not part of any operation.
    drop(create(directory, DRIVERS).expect("a free name"));
    let cut = Cut::Edges { stride: STRIDE };
    let kills = [
        ("names: create", Part::Create),
        ("names: create over dead", Part::CreateOverLeftover),
        ("names: open living", Part::OpenLiving),
        ("names: open dead", Part::OpenLeftover),
        ("names: owner's drop", Part::Unlink),
        ("names: sweep dead", Part::SweepLeftover),
        ("names: sweep living", Part::SweepLiving),
    ];
    for (name, part) in kills {
        play(wanted, table, directory, Plan::new(name, 20).cut(cut), part, Interlude::Nothing);
    }
    let calls = Cut::Edges { stride: 0 };
    let pauses = [
        ("names: create | create", Part::Create, Interlude::Create),
        ("names: create over | create", Part::CreateOverLeftover, Interlude::Create),
        ("names: create over | open", Part::CreateOverLeftover, Interlude::Open),
        ("names: create over | sweep", Part::CreateOverLeftover, Interlude::Sweep),
        ("names: open | create", Part::OpenLeftover, Interlude::Create),
        ("names: open | sweep", Part::OpenLeftover, Interlude::Sweep),
        ("names: drop | create", Part::Unlink, Interlude::Create),
        ("names: drop | open", Part::Unlink, Interlude::Open),
        ("names: sweep | create", Part::SweepLeftover, Interlude::Create),
        ("names: sweep | open", Part::SweepLeftover, Interlude::Open),
    ];
    for (name, part, interlude) in pauses {
        play(wanted, table, directory, Plan::new(name, 10).cut(calls).paused(), part, interlude);
    }
    for (name, leaves, stride) in [("domain: join", false, 5), ("domain: leave", true, 1)] {
        if wanted.is(name) {
            let segment = Segment::anonymous(LEN_BYTES, &Options::new()).expect("a small segment");
            let plan = Plan::new(name, 100).cut(Cut::Edges { stride });
            table.add(sweep(&plan, wanted.effort, || Membership { segment: &segment, joined: None, leaves }));
        }
    }

    let plan = Plan::new("domain: join | reap", 100).role(Role::PeersAsleep(1)).paused().cut(Cut::Edges { stride: 7 });
    if wanted.is(plan.name) {
        let segment = Segment::anonymous(LEN_BYTES, &Options::new()).expect("a small segment");
        let page = Mapping::new(8);
        // SAFETY: integers in atomics: every bit pattern is one.
        let [id, probed]: &[AtomicU32; 2] = unsafe { page.at(0) };
        table.add(sweep(&plan, wanted.effort, || {
            page.clear();
            Newcomer { segment: &segment, joined: None, id, probed }
        }));
    }

    let plan = Plan::new("name filled in place", 1).cut(calls).seeded();
    play(wanted, table, directory, plan, Part::CreateInPlace, Interlude::Nothing);
    let plan = Plan::new("name looked at, then gone", 1).cut(calls).paused().seeded();
    play(wanted, table, directory, plan, Part::LookThenUnlink, Interlude::Create);
    let plan = Plan::new("members are counted", 1).seeded();
    if wanted.is(plan.name) {
        let page = Mapping::new(4);
        // SAFETY: an integer in an atomic: every bit pattern is one.
        let count: &AtomicU32 = unsafe { page.at(0) };
        table.add(sweep(&plan, wanted.effort, || Counted(count)));
    }
}

fn play(wanted: &Wanted, table: &mut Table, directory: &Path, plan: Plan, part: Part, interlude: Interlude) {
    if wanted.is(plan.name) {
        table.add(sweep(&plan, wanted.effort, || Play::new(directory, part, interlude)));
    }
}

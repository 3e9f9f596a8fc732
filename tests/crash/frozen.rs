//! Memory without leases: a freezer killed at every system call of freezing, and a creator of header-less memory. Nothing is
//! ever taken for frozen that somebody could still write, and a name leads to whole memory or to none.

use core::time::Duration;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crosslane_shm::{Expected, Frozen, Name, OpenError, Options, RawSegment, Segment};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Scene, sweep};

use crate::Wanted;

const ELEMENTS: [u64; 4] = [3, 1, 4, 1];
const LEN_BYTES: usize = size_of_val(&ELEMENTS);
/// Instructions between two points that are not at a system call, of freezing and of creating.
const STRIDES: [u64; 2] = [61, 211];
/// How long an opener waits for a creator that has not given its file a length.
const IN_THE_WAY: Duration = Duration::from_millis(4);

fn bytes() -> Vec<u8> {
    ELEMENTS.iter().flat_map(|element| element.to_ne_bytes()).collect()
}

/// The victim freezes what it alone has mapped; who has the fd looks what became of it.
struct Freeze {
    fd: OwnedFd,
    segment: Option<Segment>,
    /// Seeded: a reader that takes the header's word for it.
    believes: bool,
}

impl Freeze {
    fn new(believes: bool) -> Self {
        let segment = Segment::anonymous(LEN_BYTES as u64, &Options::new()).expect("a small segment");
        segment.copy_in(0, &bytes()).expect("it is as long");
        let fd = segment.as_fd().try_clone_to_owned().expect("another fd");
        Self { fd, segment: None, believes }
    }

    fn again(&self) -> OwnedFd {
        self.fd.try_clone().expect("another fd")
    }

    fn open(&self) -> Result<Segment, OpenError> {
        Segment::from_fd(self.again(), &Expected::bytes(), &Options::new())
    }
}

impl Scene for Freeze {
    fn prepare(&mut self) {
        self.segment = Some(self.open().expect("it holds bytes"));
    }

    fn operate(&mut self) {
        let segment = self.segment.take().expect("prepared");
        drop(segment.freeze::<u64>().expect("nobody else has it mapped"));
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        match Frozen::<u64>::from_fd(self.again(), &Options::new()) {
            Ok(frozen) if frozen[..] == ELEMENTS => return Ok(()),
            Ok(frozen) => return Err(format!("frozen: {:?}", &frozen[..])),
            Err(error) if completed => return Err(format!("was frozen: {error}")),
            Err(OpenError::NotSealed { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        match self.open() {
            Ok(segment) => segment.freeze::<u64>().map(|_| ()).map_err(|error| error.to_string()),
            Err(_) if self.believes => Err("the header says frozen, and the memory can be written".into()),
            Err(OpenError::Header(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The victim creates header-less memory and drops its ownership.
struct Create<'a> {
    directory: &'a Path,
    /// Seeded: a file that gets its length under its name.
    in_place: bool,
}

impl Create<'_> {
    fn name() -> Name {
        Name::new("neighbour").expect("a name")
    }

    fn options(&self) -> Options {
        Options::new().directory(self.directory).open_timeout(IN_THE_WAY)
    }
}

impl Scene for Create<'_> {
    fn operate(&mut self) {
        if self.in_place {
            let path = self.directory.join(Self::name().as_str());
            let file = fs::File::create(&path).expect("a file");
            file.set_len(LEN_BYTES as u64).expect("room");
            fs::remove_file(path).expect("it is there");
        } else {
            drop(RawSegment::<u64>::create(&Self::name(), ELEMENTS.len() as u64, &self.options()).expect("room"));
        }
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        let (name, options) = (Self::name(), self.options());
        match RawSegment::<u64>::open_exact(&name, ELEMENTS.len() as u64, &options) {
            Ok(_) if completed => return Err("the name is still there".into()),
            Ok(left) => {
                left.elements().set(3, 1);
                let removed = RawSegment::<u64>::remove(&name, &options).map_err(|error| error.to_string())?;
                let zeros = (0..3).all(|n| left.elements().get(n) == 0);
                if !removed || !zeros {
                    return Err(format!("removed: {removed}, zero: {zeros}"));
                }
            }
            Err(OpenError::NotFound) => {}
            Err(error) => {
                let _ = RawSegment::<u64>::remove(&name, &options);
                return Err(error.to_string());
            }
        }
        let own = RawSegment::<u64>::create(&name, 1, &options).map_err(|error| error.to_string())?;
        if own.elements().get(0) == 0 { Ok(()) } else { Err("not zero".into()) }
    }
}

/// Sweeps of both, then of those that go wrong.
pub(crate) fn run(wanted: &Wanted, table: &mut Table, directory: &Path) {
    let [freezing, creating] = STRIDES.map(|stride| Cut::Edges { stride });
    let sound = |name, cut| Plan::new(name, 20).cut(cut);
    let calls = |name| Plan::new(name, 1).cut(Cut::Edges { stride: 0 }).seeded();
    for (plan, believes) in [(sound("frozen: freeze", freezing), false), (calls("frozen by its header"), true)] {
        if wanted.is(plan.name) {
            table.add(sweep(&plan, wanted.effort, || Freeze::new(believes)));
        }
    }
    for (plan, in_place) in [(sound("raw: create, drop", creating), false), (calls("raw, made in place"), true)] {
        if wanted.is(plan.name) {
            table.add(sweep(&plan, wanted.effort, || Create { directory, in_place }));
        }
    }
}

//! Whole segments of hostile bytes: each kind of object opened by file descriptor and by name.
//!
//! The bytes are those of an honest segment with some of them changed. Opening must give a typed error, or an object
//! whose every call returns and stays inside the mapping, also when a peer goes on writing.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::time::Duration;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use arbitrary::Arbitrary;
use crosslane_core::OwnerId;
use crosslane_shm::{Domain, Expected, Mutex, Name, OpenError, Options, Record, Segment, Spsc};

/// Where a header keeps its fields: a change of one of these is worth more than of any byte.
const FIELDS: [u8; 21] = [0, 8, 10, 12, 16, 24, 40, 44, 48, 56, 60, 64, 88, 104, 120, 128, 136, 140, 144, 152, 160];
/// The longest file.
const MOST_BYTES: usize = 16 << 10;
const SLOTS: u32 = 8;
const RECORD_BYTES: u32 = 256;
const BYTES: u64 = 192;

type Value = [u64; 3];

#[derive(Debug, Arbitrary)]
struct Input {
    by_name: bool,
    /// Whose bytes the file starts from, and what it is opened as.
    made_as: Kind,
    opened_as: Kind,
    read_only: bool,
    is_sealed: bool,
    /// Bytes that the file is longer, or shorter.
    longer: i16,
    before: Vec<Change>,
    after: Vec<Change>,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Kind {
    Bytes,
    Spsc,
    BigSpsc,
    Record,
    Mutex,
}

/// Eight bytes or fewer of the file.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Change {
    place: Place,
    value: u64,
    width: u8,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Place {
    Field(u8),
    Any(u16),
    /// The generation word of a participant.
    Generation(u8),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    /// The next of the later changes.
    Change,
    Claim {
        first: bool,
    },
    Drop {
        first: bool,
    },
    In(u8),
    Out(u8),
    Copy {
        offset: u64,
        len: u8,
    },
    Probe {
        index: u16,
        generation: u16,
    },
    Reap,
    Look,
}

static OPENED: [AtomicU32; 10] = [const { AtomicU32::new(0) }; 10];

/// How many objects could be opened so far in this process: of each kind, by fd and by name in turn.
///
/// Openings that always fail would make a fine fuzz target, and show little.
#[must_use]
pub fn opened() -> [u32; 10] {
    core::array::from_fn(|i| OPENED[i].load(Ordering::Relaxed))
}

/// Runs one input. Planted: an opener that takes a segment's length from its header without a look at the file.
///
/// # Panics
/// When a call panics, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let mut bytes = template(input.made_as, input.by_name).clone();
    bytes.resize(bytes.len().saturating_add_signed(input.longer.into()).min(MOST_BYTES), 0);
    for change in &input.before {
        let (at, value) = change.bytes();
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(&value);
        }
    }
    if planted && bytes.len() >= 24 && bytes.starts_with(b"xlaneSEG") {
        let total_len = u64::from_le_bytes(core::array::from_fn(|i| bytes[16 + i]));
        black_box(&bytes[..usize::try_from(total_len).unwrap_or(usize::MAX)]);
    }
    if input.by_name { open_named(&input, &bytes) } else { open_fd(&input, &bytes) }
}

impl Change {
    fn bytes(self) -> (usize, Vec<u8>) {
        let at = match self.place {
            Place::Field(field) => FIELDS[usize::from(field) % FIELDS.len()].into(),
            Place::Any(at) => usize::from(at) % MOST_BYTES,
            Place::Generation(index) => 256 + 64 + 4 * usize::from(index),
        };
        (at, self.value.to_le_bytes()[..1 + usize::from(self.width % 8)].to_vec())
    }
}

/// The bytes of an honest segment with a few items in it.
fn template(kind: Kind, by_name: bool) -> &'static Vec<u8> {
    static TEMPLATES: [OnceLock<Vec<u8>>; 10] = [const { OnceLock::new() }; 10];
    TEMPLATES[kind as usize * 2 + usize::from(by_name)].get_or_init(|| {
        let folder = Folder::new();
        let options = Options::new().directory(&folder.0);
        let object = if by_name { create_named(kind, &options) } else { create_anonymous(kind, &options) };
        let file = File::from(object.as_fd().try_clone_to_owned().expect("a descriptor more"));
        let mut bytes = vec![0; usize::try_from(file.metadata().expect("stat").len()).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("as long as stat says");
        bytes
    })
}

fn create_anonymous(kind: Kind, options: &Options) -> Box<dyn AsFd> {
    match kind {
        Kind::Bytes => Box::new(Segment::anonymous(BYTES, options).expect("made")),
        Kind::Spsc => {
            let ring = Spsc::<u64>::anonymous(SLOTS, options).expect("made");
            ring.producer().expect("vacant").push_slice(&[1, 2, 3]).expect("room");
            Box::new(ring)
        }
        Kind::BigSpsc => Box::new(Spsc::<[u8; 160]>::anonymous(SLOTS, options).expect("made")),
        Kind::Record => {
            let ring = Record::anonymous(RECORD_BYTES, options).expect("made");
            ring.writer().expect("vacant").push(b"a record").expect("room");
            Box::new(ring)
        }
        Kind::Mutex => Box::new(Mutex::<Value>::anonymous([1, 2, 3], options).expect("made")),
    }
}

fn create_named(kind: Kind, options: &Options) -> Box<dyn AsFd> {
    let name = name();
    let segment = match kind {
        Kind::Bytes => Segment::create(&name, BYTES, options).expect("made").clone(),
        Kind::Spsc => Spsc::<u64>::create(&name, SLOTS, options).expect("made").segment().clone(),
        Kind::BigSpsc => Spsc::<[u8; 160]>::create(&name, SLOTS, options).expect("made").segment().clone(),
        Kind::Record => Record::create(&name, RECORD_BYTES, options).expect("made").segment().clone(),
        Kind::Mutex => Mutex::<Value>::create(&name, [1, 2, 3], options).expect("made").segment().clone(),
    };
    Box::new(segment)
}

fn name() -> Name {
    Name::new("hostile").expect("a valid name")
}

fn open_fd(input: &Input, bytes: &[u8]) {
    // SAFETY: a static name.
    let fd = unsafe { libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: just made, owned by nobody else.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all_at(bytes, 0).expect("written");
    if input.is_sealed {
        // SAFETY: a plain call on our own descriptor.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) };
    }
    let fd = || OwnedFd::from(file.try_clone().expect("a descriptor more"));
    let options = Options::new().read_only(input.read_only);
    let play = Play { file: &file, input };
    assert!(Domain::join_family(fd()).is_err(), "no segment with an object is a family's domain");
    match input.opened_as {
        Kind::Bytes => play.bytes(Segment::from_fd(fd(), &Expected::bytes(), &options)),
        Kind::Spsc => {
            play.spsc(
                Spsc::<u64>::from_fd(fd(), &options),
                Spsc::segment,
                |r| r.producer().ok(),
                |r| r.consumer().ok(),
            );
        }
        Kind::BigSpsc => play.spsc(
            Spsc::<[u8; 160]>::from_fd(fd(), &options),
            Spsc::segment,
            |r| r.producer().ok(),
            |r| r.consumer().ok(),
        ),
        Kind::Record => {
            play.record(Record::from_fd(fd(), &options), Record::segment, |r| r.writer().ok(), |r| r.reader().ok());
        }
        Kind::Mutex => play.mutex(Mutex::<Value>::from_fd(fd(), &options)),
    }
}

fn open_named(input: &Input, bytes: &[u8]) {
    let folder = Folder::new();
    let path = folder.0.join("hostile");
    fs::write(&path, bytes).expect("written");
    let file = File::options().write(true).open(&path).expect("open");
    let options = Options::new().directory(&folder.0).read_only(input.read_only).open_timeout(Duration::ZERO);
    let play = Play { file: &file, input };
    match input.opened_as {
        Kind::Bytes => play.bytes(Segment::open(&name(), &Expected::bytes(), &options).map(|s| s.clone())),
        Kind::Spsc => play.spsc(
            Spsc::<u64>::open(&name(), &options),
            |r| r.segment(),
            |r| r.producer().ok(),
            |r| r.consumer().ok(),
        ),
        Kind::BigSpsc => play.spsc(
            Spsc::<[u8; 160]>::open(&name(), &options),
            |r| r.segment(),
            |r| r.producer().ok(),
            |r| r.consumer().ok(),
        ),
        Kind::Record => {
            play.record(Record::open(&name(), &options), |r| r.segment(), |r| r.writer().ok(), |r| r.reader().ok())
        }
        Kind::Mutex => play.mutex(Mutex::<Value>::open(&name(), &options).map(|m| m.rejoin().expect("no fork"))),
    }
    let swept = crosslane_shm::sweep_in(&folder.0);
    assert!(swept.is_ok(), "{swept:?}");
}

/// What is done with an object that could be opened.
struct Play<'a> {
    file: &'a File,
    input: &'a Input,
}

impl Play<'_> {
    /// The operations, each with those of the later changes that are due before it.
    fn ops(&self) -> impl Iterator<Item = Op> {
        let mut changes = self.input.after.iter();
        self.input.ops.iter().copied().inspect(move |op| {
            if let (Op::Change, Some(change)) = (op, changes.next()) {
                let (at, value) = change.bytes();
                let len = usize::try_from(self.file.metadata().expect("stat").len()).unwrap_or(0);
                // Not past the end: a peer that makes a file longer or shorter is not what this target is about.
                if at + value.len() <= len {
                    self.file.write_all_at(&value, at as u64).expect("written");
                }
            }
        })
    }

    fn bytes(&self, opened: Result<Segment, OpenError>) {
        let Some(segment) = self.checked(opened) else { return };
        self.ops().for_each(|op| common(&segment, op));
    }

    fn spsc<R, T: crate::spsc_ops::Item, K>(
        &self,
        opened: Result<R, OpenError>,
        segment: impl Fn(&R) -> &Segment,
        producer: impl Fn(&R) -> Option<crosslane_shm::spsc::Producer<T, K>>,
        consumer: impl Fn(&R) -> Option<crosslane_shm::spsc::Consumer<T, K>>,
    ) {
        let Some(ring) = self.checked(opened) else { return };
        let (mut first, mut second) = (None, None);
        for op in self.ops() {
            match (op, &mut first, &mut second) {
                (Op::Claim { first: true }, end @ None, _) => *end = producer(&ring),
                (Op::Claim { first: false }, _, end @ None) => *end = consumer(&ring),
                (Op::Drop { first: true }, end, _) => *end = None,
                (Op::Drop { first: false }, _, end) => *end = None,
                (Op::In(n), Some(end), _) => {
                    let _ = end.push_timeout(T::make(n.into()), Duration::ZERO);
                    let _ = end.push_slice(&vec![T::make(0); usize::from(n % 16)]);
                }
                (Op::Out(n), _, Some(end)) => {
                    let _ = black_box(end.pop_timeout(Duration::ZERO));
                    let _ = black_box(end.pop_slice(&mut vec![T::make(0); usize::from(n % 16)]));
                }
                (op, ..) => common(segment(&ring), op),
            }
        }
    }

    fn record<R, K>(
        &self,
        opened: Result<R, OpenError>,
        segment: impl Fn(&R) -> &Segment,
        writer: impl Fn(&R) -> Option<crosslane_shm::record::Writer<K>>,
        reader: impl Fn(&R) -> Option<crosslane_shm::record::Reader<K>>,
    ) {
        let Some(ring) = self.checked(opened) else { return };
        let (mut first, mut second) = (None, None);
        let mut buffer = [0x33; 512];
        for op in self.ops() {
            match (op, &mut first, &mut second) {
                (Op::Claim { first: true }, end @ None, _) => *end = writer(&ring),
                (Op::Claim { first: false }, _, end @ None) => *end = reader(&ring),
                (Op::Drop { first: true }, end, _) => *end = None,
                (Op::Drop { first: false }, _, end) => *end = None,
                (Op::In(n), Some(end), _) => {
                    let _ = end.push_timeout(&buffer[..n.into()], Duration::ZERO);
                }
                (Op::Out(n), _, Some(end)) => {
                    let _ = end.pop_into_timeout(&mut buffer[..usize::from(n) * 2], Duration::ZERO);
                }
                (op, ..) => common(segment(&ring), op),
            }
        }
    }

    fn mutex<K>(&self, opened: Result<Mutex<Value, K>, OpenError>) {
        let Some(mutex) = self.checked(opened) else { return };
        for op in self.ops() {
            match op {
                Op::In(n) => match mutex.try_update(|value| value[0] = value[0].wrapping_add(n.into())) {
                    Err(crosslane_sync::LockError::OwnerDied(repair) | crosslane_sync::LockError::Poisoned(repair)) => {
                        if n % 2 == 0 {
                            repair.commit();
                        }
                    }
                    updated => drop(black_box(updated)),
                },
                Op::Out(_) => drop(black_box(mutex.update_timeout(Duration::ZERO, |value| *value))),
                op => common(mutex.segment(), op),
            }
        }
    }

    /// What was opened; an error must have a text, and what was opened as another kind than made must be an error,
    /// unless the header was changed to say so.
    fn checked<T>(&self, opened: Result<T, OpenError>) -> Option<T> {
        if opened.is_ok() && self.input.before.is_empty() {
            assert_eq!((self.input.made_as, self.input.longer), (self.input.opened_as, 0));
            assert!(self.input.by_name || self.input.is_sealed, "opened without seals");
        }
        if opened.is_ok() {
            let place = self.input.opened_as as usize * 2 + usize::from(self.input.by_name);
            OPENED[place].fetch_add(1, Ordering::Relaxed);
        }
        opened.inspect_err(|error| assert!(!error.to_string().is_empty())).ok()
    }
}

/// What every segment can do.
fn common(segment: &Segment, op: Op) {
    match op {
        Op::Copy { offset, len } => {
            let mut bytes = vec![0; len.into()];
            // Most offsets near the object, some anywhere.
            let offset = if offset % 2 == 0 { offset % 512 } else { offset };
            if segment.copy_out(offset, &mut bytes).is_ok() {
                assert!(offset + u64::from(len) <= segment.len_bytes());
            }
            let _ = segment.copy_in(offset, &bytes);
        }
        Op::Probe { index, generation } => {
            if let (Some(domain), Some(id)) = (segment.domain(), OwnerId::new(index.into(), generation.into())) {
                let _ = black_box(domain.probe(id));
            }
        }
        Op::Reap => drop(black_box(segment.domain().map(Domain::reap))),
        Op::Look => {
            let (start, len) = segment.object();
            assert!(len as u64 == segment.len_bytes() && (len == 0 || start.addr().get().is_multiple_of(128)));
            black_box(format!("{:?}", segment.header()));
            let _ = black_box(segment.rejoin());
        }
        _ => {}
    }
}

/// A directory of our own, removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let path = parent.join(format!("crosslane-fuzz-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

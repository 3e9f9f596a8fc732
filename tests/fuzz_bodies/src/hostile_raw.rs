//! Header-less files of any length and any bytes, opened as arrays, while a neighbour writes: a typed error, or an array whose
//! every call stays inside and gives what the file holds.

use core::hint::black_box;
use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use arbitrary::Arbitrary;
use crosslane_core::Plain;
use crosslane_shm::{Name, OpenError, Options, RawSegment};

const MOST_BYTES: usize = 8 << 10;

#[derive(Debug, Arbitrary)]
struct Input {
    /// The file: these bytes, so many times, and so many more.
    bytes: Vec<u8>,
    times: u8,
    more: u8,
    opened_as: Kind,
    exact: Option<u16>,
    read_only: bool,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    Bytes,
    Numbers,
    Floats,
    Odd,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Poke { at: u16, value: u64 },
    Get(u16),
    Set(u16),
    Read { start: u16, len: u8 },
    Write { start: u16, len: u8 },
}

/// Runs one input. Planted: a reader that takes a file for whole elements, and the last one from behind its end.
///
/// # Panics
/// When a call panics, an answer is wrong, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let mut bytes: Vec<u8> = input.bytes.repeat(input.times.into());
    bytes.resize((bytes.len() + usize::from(input.more)).min(MOST_BYTES), 0x5a);
    match input.opened_as {
        Kind::Bytes => open::<u8>(&input, &bytes, planted),
        Kind::Numbers => open::<u64>(&input, &bytes, planted),
        Kind::Floats => open::<f32>(&input, &bytes, planted),
        Kind::Odd => open::<[u16; 9]>(&input, &bytes, planted),
    }
}

fn open<T: Plain>(input: &Input, bytes: &[u8], planted: bool) {
    if planted && !bytes.is_empty() {
        black_box(bytes[bytes.len().next_multiple_of(size_of::<T>()) - 1]);
    }
    let folder = Folder::new();
    let path = folder.0.join("hostile");
    fs::write(&path, bytes).expect("written");
    let neighbour = File::options().read(true).write(true).open(&path).expect("open");
    let name = Name::new("hostile").expect("a valid name");
    let options = Options::new().directory(&folder.0).read_only(input.read_only).open_timeout(Duration::ZERO);
    let opened = match input.exact {
        Some(len) => RawSegment::<T>::open_exact(&name, len.into(), &options),
        None => RawSegment::<T>::open(&name, &options),
    };
    let whole = bytes.len() / size_of::<T>();
    let is_whole = whole > 0 && whole * size_of::<T>() == bytes.len();
    let is_wanted = is_whole && input.exact.is_none_or(|len| usize::from(len) == whole);
    match opened {
        Ok(segment) => {
            assert!(is_wanted);
            assert_eq!(segment.len(), whole as u64);
            input.ops.iter().for_each(|op| step(&segment, &neighbour, *op, input.read_only));
        }
        Err(error) => {
            assert!(!is_wanted && !error.to_string().is_empty(), "{error}");
            assert!(matches!(error, OpenError::Length { len_bytes, .. } if len_bytes == bytes.len() as u64), "{error}");
        }
    }
}

fn step<T: Plain>(segment: &RawSegment<T>, neighbour: &File, op: Op, read_only: bool) {
    let (len, size) = (usize::try_from(segment.len()).expect("small"), size_of::<T>());
    let view = segment.view();
    match op {
        Op::Poke { at, value } => {
            let at = usize::from(at) % (len * size);
            let value = &value.to_le_bytes()[..8.min(len * size - at)];
            neighbour.write_all_at(value, at as u64).expect("inside the file");
        }
        Op::Get(index) => {
            let got = view.try_get(index.into());
            assert_eq!(got.is_ok(), usize::from(index) < len);
            black_box(got.ok());
        }
        Op::Read { start, len: count } => {
            let Ok(first) = view.try_get(0) else { return };
            let mut out = vec![first; count.into()];
            let is_inside = usize::from(start) + usize::from(count) <= len;
            assert_eq!(view.try_read_slice(start.into(), &mut out).is_ok(), is_inside);
        }
        Op::Set(index) if !read_only => {
            let value = view.get(0);
            assert_eq!(segment.elements().try_set(index.into(), value).is_ok(), usize::from(index) < len);
        }
        Op::Write { start, len: count } if !read_only => {
            let items = vec![view.get(len - 1); count.into()];
            let mut item = vec![0; size];
            neighbour.read_exact_at(&mut item, ((len - 1) * size) as u64).expect("inside the file");
            let is_inside = usize::from(start) + usize::from(count) <= len;
            assert_eq!(segment.elements().try_write_slice(start.into(), &items).is_ok(), is_inside);
            if is_inside && count > 0 {
                let mut found = vec![0; size * usize::from(count)];
                neighbour.read_exact_at(&mut found, (usize::from(start) * size) as u64).expect("inside the file");
                assert_eq!(found, item.repeat(count.into()), "what was written is what the file holds");
            }
        }
        Op::Set(_) | Op::Write { .. } => {}
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
        let path = parent.join(format!("crosslane-fuzz-raw-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

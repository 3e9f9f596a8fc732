//! Header-less segments, with a real Python at the other end.

mod family;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

use crosslane_shm::{Array, CreateError, Kind, Name, OpenError, Options, RawSegment};
use family::{fork, watchdog};

/// Says on the real standard error, which the test harness does not swallow, that something could not be tried here.
macro_rules! skipped {
    ($($text:tt)*) => {
        writeln!(std::io::stderr(), $($text)*).expect("a standard error")
    };
}

/// The recipe of the module's documentation.
const ATTACH: &str = r#"
import sys
from multiprocessing import resource_tracker, shared_memory

def attach(name):
    try:
        return shared_memory.SharedMemory(name=name, track=False)
    except TypeError:
        shm = shared_memory.SharedMemory(name=name)
        resource_tracker.unregister(shm._name, "shared_memory")
        return shm
"#;

/// A name that is removed however the test ends.
struct Used(Name);

impl Used {
    fn new() -> Self {
        Self(Name::random())
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let _ = RawSegment::<u8>::remove(&self.0, &Options::new());
    }
}

/// Whether there is a Python that has shared memory; says so if not.
fn has_python() -> bool {
    watchdog();
    let found = Command::new("python3").args(["-c", "import multiprocessing.shared_memory"]).output();
    let is_there = found.as_ref().is_ok_and(|output| output.status.success());
    if !is_there {
        skipped!("skipped: python3 with multiprocessing.shared_memory not installed");
    }
    is_there
}

fn python(script: &str, name: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("{ATTACH}{script}"), name]).stdin(Stdio::piped()).stdout(Stdio::piped());
    python.stderr(Stdio::piped());
    python
}

/// What the script printed; it must end well, and complain of nothing.
fn said(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

#[test]
fn python_reads_and_writes_an_array_that_rust_made_and_leaves_it_there() {
    if !has_python() {
        return;
    }
    let name = Used::new();
    let numbers = RawSegment::<f64>::create(&name.0, 1000, &Options::new()).unwrap();
    let values: Vec<f64> = (0..1000).map(|n| f64::from(n) / 4.0).collect();
    numbers.elements().write_slice(0, &values);
    let script = "
shm = attach(sys.argv[1])
numbers = shm.buf.cast('d')
print(len(numbers), sum(numbers), numbers[999])
for i in range(len(numbers)):
    numbers[i] *= 2
numbers.release()
shm.close()
";
    let output = python(script, name.0.as_str()).output().unwrap();
    assert_eq!(said(output), "1000 124875.0 249.75");
    let doubled: Vec<f64> = values.iter().map(|value| value * 2.0).collect();
    let mut seen = vec![0.0; 1000];
    numbers.elements().read_slice(0, &mut seen);
    assert_eq!(seen, doubled);
    // Python has ended, its resource tracker too: the name is ours still.
    assert!(numbers.is_named().unwrap());
    assert_eq!(RawSegment::<f64>::open_exact(&name.0, 1000, &Options::new()).unwrap().view().get(999), 499.5);
    drop(numbers);
    assert_eq!(RawSegment::<f64>::open(&name.0, &Options::new()).unwrap_err(), OpenError::NotFound);
}

#[test]
fn rust_reads_and_writes_an_array_that_python_made_and_leaves_it_there() {
    if !has_python() {
        return;
    }
    let script = "
shm = shared_memory.SharedMemory(create=True, size=4 * 500)
numbers = shm.buf.cast('i')
for i in range(500):
    numbers[i] = i - 250
print(shm.name, flush=True)
sys.stdin.readline()
print(sum(numbers), numbers[0])
again = shared_memory.SharedMemory(name=shm.name)
again.close()
numbers.release()
shm.close()
shm.unlink()
";
    let mut python = python(script, "").spawn().unwrap();
    let mut name = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(python.stdout.as_mut().unwrap()), &mut name).unwrap();
    let name = Used(Name::posix(name.trim()).unwrap());
    let numbers = RawSegment::<i32>::open(&name.0, &Options::new()).unwrap();
    assert_eq!(numbers.len(), 500);
    let sum: i32 = (0..500).map(|i| numbers.view().get(i)).sum();
    assert_eq!((numbers.view().get(0), sum), (-250, -250));
    (0..500).for_each(|i| numbers.elements().set(i, 3));
    numbers.elements().fetch_add(0, 4);
    let other_length = RawSegment::<i32>::open_exact(&name.0, 499, &Options::new()).unwrap_err();
    assert_eq!(other_length, OpenError::Length { len_bytes: 2000, elem_size: 4, expected: Some(499) });
    drop(numbers);
    python.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(said(python.wait_with_output().unwrap()), "1504 7");
    assert_eq!(RawSegment::<i32>::open(&name.0, &Options::new()).unwrap_err(), OpenError::NotFound);
}

/// Python before 3.13, without the recipe: the tracker removes the name. Who has the segment mapped goes on, and removes
/// nothing that has come to have the name since.
#[test]
fn an_owner_sees_that_the_name_was_taken_away_and_goes_on() {
    if !has_python() {
        return;
    }
    let name = Used::new();
    let numbers = RawSegment::<u64>::create(&name.0, 8, &Options::new()).unwrap();
    let script = "
shm = shared_memory.SharedMemory(name=sys.argv[1])
shm.buf.cast('Q')[3] = 7
print(sys.version_info >= (3, 13))
shm.close() if sys.version_info >= (3, 13) else None
";
    let output = python(script, name.0.as_str()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(numbers.view().get(3), 7);
    if numbers.is_named().unwrap() {
        assert!(RawSegment::<u64>::remove(&name.0, &Options::new()).unwrap());
    }
    assert!(!numbers.is_named().unwrap());
    let successor = RawSegment::<u64>::create(&name.0, 8, &Options::new()).unwrap();
    assert!(!numbers.is_named().unwrap() && successor.is_named().unwrap());
    drop(numbers);
    assert!(successor.is_named().unwrap());
}

#[test]
fn a_message_passes_by_a_word_that_both_agree_upon() {
    if !has_python() {
        return;
    }
    let name = Used::new();
    let words = RawSegment::<u64>::create(&name.0, 1001, &Options::new()).unwrap();
    // Word 0 counts messages: Rust makes it odd, Python even.
    let script = "
shm = attach(sys.argv[1])
words = shm.buf.cast('Q')
for turn in range(1, 40, 2):
    while words[0] != turn:
        pass
    total = sum(words[1:1001])
    words[1] = total
    words[0] = turn + 1
words.release()
shm.close()
";
    let child = python(script, name.0.as_str()).spawn().unwrap();
    let mut block = vec![0; 1000];
    for turn in (1..40).step_by(2) {
        block.fill(turn);
        words.elements().write_slice(1, &block);
        words.elements().set(0, turn);
        while words.view().get(0) != turn + 1 {
            std::hint::spin_loop();
        }
        assert_eq!(words.view().get(1), 1000 * turn);
    }
    said(child.wait_with_output().unwrap());
}

#[test]
fn names_and_lengths_are_checked() {
    let options = Options::new();
    let name = Used::new();
    assert_eq!(RawSegment::<u8>::open(&name.0, &options).unwrap_err(), OpenError::NotFound);
    let owner = RawSegment::<u8>::create(&name.0, 1001, &options).unwrap();
    let taken = RawSegment::<u8>::create(&name.0, 1, &options).unwrap_err();
    assert_eq!(taken, CreateError::NameInUse { creator: None });
    let ragged = RawSegment::<u16>::open(&name.0, &options).unwrap_err();
    assert_eq!(ragged, OpenError::Length { len_bytes: 1001, elem_size: 2, expected: None });
    assert!(matches!(RawSegment::<u8>::create(&Name::random(), 0, &options).unwrap_err(), CreateError::Array(_)));
    let endless = RawSegment::<u64>::create(&Name::random(), u64::MAX, &options).unwrap_err();
    assert!(matches!(endless, CreateError::Array(_) | CreateError::NotEnoughMemory { .. }), "{endless}");
    let large = RawSegment::<u64>::create(&Name::random(), 1 << 45, &options).unwrap_err();
    assert!(matches!(large, CreateError::NotEnoughMemory { .. }), "{large}");
    // For reading only, and by what shm_open calls it.
    let reader =
        RawSegment::<u8>::open(&Name::posix(&format!("/{}", name.0)).unwrap(), &options.read_only(true)).unwrap();
    owner.elements().set(1000, 9);
    assert_eq!((reader.view().get(1000), reader.len()), (9, 1001));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.elements())).is_err());
    // Nothing of ours is swept away with the dead, nor taken for a segment of ours.
    assert_eq!(crosslane_shm::sweep().unwrap().removed.iter().find(|swept| **swept == name.0), None);
    assert!(owner.is_named().unwrap());
}

#[test]
fn a_segment_with_a_header_is_no_header_less_memory() {
    let (name, options) = (Name::random(), Options::new());
    let array = Array::<u64>::create(&name, 100, &options).unwrap();
    for options in [options.clone(), options.clone().read_only(true)] {
        let refused = RawSegment::<u8>::open(&name, &options).unwrap_err();
        assert_eq!(refused, OpenError::HasHeader { kind: Kind::ARRAY });
    }
    drop(array);
    // What merely begins with the same word is no header.
    let other = RawSegment::<u64>::create(&name, 100, &options).unwrap();
    other.elements().set(0, u64::from_le_bytes(*b"xlaneSEG"));
    assert_eq!(RawSegment::<u64>::open(&name, &options).unwrap().len(), 100);
}

#[test]
fn pages_that_a_creator_did_not_reserve_are_not_taken_beyond_what_there_is() {
    let (name, options) = (Used::new(), Options::new());
    let file = std::fs::File::create_new(format!("/dev/shm/{}", name.0)).unwrap();
    file.set_len(1 << 20).unwrap();
    let capped = options.clone().memory_cap_bytes(64 << 10);
    let short = RawSegment::<u64>::open(&name.0, &capped).unwrap_err();
    assert_eq!(short, OpenError::NotEnoughMemory { wanted: 1 << 20, available: 64 << 10 });
    file.set_len(1 << 45).unwrap();
    let short = RawSegment::<u64>::open(&name.0, &options).unwrap_err();
    assert!(matches!(short, OpenError::NotEnoughMemory { wanted, .. } if wanted == 1 << 45), "{short}");
    assert_eq!(file.metadata().unwrap().blocks(), 0, "no page was touched");
    file.set_len(1 << 20).unwrap();
    assert_eq!(RawSegment::<u64>::open(&name.0, &options).unwrap().len(), 1 << 17);
    assert_eq!(RawSegment::<u64>::open(&name.0, &capped).unwrap().len(), 1 << 17, "all pages are there");
}

#[test]
fn only_the_owners_own_drop_removes_the_name() {
    let name = Used::new();
    let owner = RawSegment::<u32>::create(&name.0, 4, &Options::new()).unwrap();
    fork(|_| {
        let attached = RawSegment::<u32>::open(&name.0, &Options::new()).unwrap();
        attached.elements().set(0, 5);
        drop(attached);
        // Inherited, and dropped here.
        // SAFETY: a bitwise copy of the owner, whose original this process never drops: it ends before.
        drop(unsafe { std::ptr::read(&raw const owner) });
    })
    .join();
    assert!(owner.is_named().unwrap());
    assert_eq!(owner.view().get(0), 5);
    let kept = owner.keep();
    drop(kept);
    assert_eq!(RawSegment::<u32>::open(&name.0, &Options::new()).unwrap().view().get(0), 5);
    assert!(RawSegment::<u32>::remove(&name.0, &Options::new()).unwrap());
    assert!(!RawSegment::<u32>::remove(&name.0, &Options::new()).unwrap());
}

/// A creator that made the name and not yet the memory, as Python and the `shared_memory` crate do.
#[test]
fn an_opener_waits_for_a_creator_between_its_two_steps() {
    let name = Used::new();
    let path = format!("/dev/shm/{}", name.0);
    let short = Options::new().open_timeout(std::time::Duration::from_millis(20));
    let file = std::fs::File::options().create_new(true).read(true).write(true).open(path).unwrap();
    let late = RawSegment::<u64>::open(&name.0, &short).unwrap_err();
    assert_eq!(late, OpenError::Length { len_bytes: 0, elem_size: 8, expected: None });
    let child = fork(|parent| {
        parent.tell(0);
        let patient = Options::new().open_timeout(std::time::Duration::from_secs(60));
        let words = RawSegment::<u64>::open(&name.0, &patient).unwrap();
        words.elements().set(1, 3);
    });
    let mut child = child;
    child.hear();
    file.set_len(16).unwrap();
    child.join();
    let mut seen = [0; 16];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut seen, 0).unwrap();
    assert_eq!(seen[8..], 3_u64.to_ne_bytes());
}

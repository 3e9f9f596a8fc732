//! Every input of the committed corpora, through the same bodies as under the fuzzer, on any compiler.

use std::fs;
use std::path::Path;

use crosslane_fuzz_bodies::{TARGETS, Target, segment_open};

/// The fewest inputs of a corpus: an empty folder replays in no time.
const LEAST_INPUTS: usize = 8;
/// Longest for all of it, in seconds; a call that hangs ends the process.
const SECONDS: u32 = 60;

#[test]
fn every_committed_input_passes() {
    // SAFETY: SIGALRM ends this process.
    #[allow(unsafe_code)]
    unsafe {
        libc::alarm(SECONDS);
    }
    for (name, body) in TARGETS {
        let inputs = replay((name, body));
        println!("{name}: {inputs} inputs");
        assert!(inputs >= LEAST_INPUTS, "{name}: {inputs} inputs in the corpus, {LEAST_INPUTS} are the least");
    }
    let opened = segment_open::opened();
    println!("opened, of each kind by fd and by name: {opened:?}");
    assert!(opened.iter().all(|count| *count > 0), "a kind of object that no input opens: {opened:?}");
}

fn replay((name, body): Target) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs = 0;
    for file in files {
        let path = file.expect("listed").path();
        println!("{}", path.display());
        body(&fs::read(&path).expect("readable"), false);
        inputs += 1;
    }
    inputs
}

#[test]
fn empty_and_endless_inputs_pass() {
    for (_, body) in TARGETS {
        for input in [&[][..], &[0], &[0xff; 4096], &[0x41; 4096]] {
            body(input, false);
        }
    }
}

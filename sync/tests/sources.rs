//! What the sources of this crate may not name.

use std::path::Path;

fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(files.iter().any(|(name, _)| name == "futex.rs"));
    files
}

#[test]
fn no_wait_knows_the_wall_clock() {
    for (name, text) in sources() {
        for word in ["REALTIME", "SystemTime", "gettimeofday"] {
            assert!(!text.contains(word), "{name} names {word}");
        }
    }
}

#[test]
fn futex_calls_are_shared_ones_and_stand_in_one_file() {
    for (name, text) in sources() {
        assert!(!text.contains("FUTEX_PRIVATE_FLAG"), "{name} makes a futex private to the process");
        assert!(name == "futex.rs" || !text.contains("SYS_futex"), "{name} makes futex calls");
    }
}

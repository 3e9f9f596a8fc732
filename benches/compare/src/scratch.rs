//! A directory for rivals that want files: in memory, as ours are, and gone with the measurement.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Scratch {
    path: PathBuf,
    creator: u32,
}

const SHM: &str = "/dev/shm";

/// What the names of this program's files begin with, in its children too.
pub fn prefix() -> &'static str {
    static PREFIX: OnceLock<String> = OnceLock::new();
    PREFIX.get_or_init(|| format!("crosslane-compare.{}.", std::process::id()))
}

/// A name that nothing else has.
pub fn unique(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{}{what}.{}", prefix(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Removes what rivals have left in memory.
pub fn sweep() {
    for entry in fs::read_dir(SHM).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Scratch {
    pub fn new() -> Self {
        let path = PathBuf::from(SHM).join(unique("files"));
        fs::create_dir(&path).expect("a directory in memory");
        Self { path, creator: std::process::id() }
    }

    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// A queue in this directory; its name is unique too, because its semaphore lies elsewhere.
    pub fn cloudtoid(&self, capacity_bytes: usize) -> cloudtoid_interprocess::Options {
        cloudtoid_interprocess::Options::new(unique("queue"), capacity_bytes).with_path(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::process::id() == self.creator {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

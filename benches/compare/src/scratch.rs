//! A directory for rivals that want files: in memory, as ours are, and gone with the measurement.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Scratch {
    path: PathBuf,
    creator: u32,
}

impl Scratch {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (creator, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(format!("/dev/shm/crosslane-compare.{creator}.{number}"));
        fs::create_dir(&path).expect("a directory in memory");
        Self { path, creator }
    }

    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// A queue in this directory; its name is unique too, because its semaphore lies elsewhere.
    pub fn cloudtoid(&self, name: &str, capacity_bytes: usize) -> cloudtoid_interprocess::Options {
        let name = format!("{name}.{}", self.creator);
        cloudtoid_interprocess::Options::new(name, capacity_bytes).with_path(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::process::id() == self.creator {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

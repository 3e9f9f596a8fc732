//! Whether there is memory for a segment, before a page of it is touched.
//!
//! A memfd is bounded by nothing: reserving 1 TiB makes the kernel kill unrelated processes before it gives up. So a
//! size is compared with what the machine has available (`MemAvailable`), with what this process's control groups have
//! left (v1 and v2, each level up to the root) and with the caller's cap.
//!
//! Looking costs some 100 us, ten times the creation of a small segment. So each look grants a credit, a 64th of what it
//! found and at most 16 MiB, that small segments use up before the next look.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The most that may be reserved between two looks, in bytes.
const MAX_CREDIT_BYTES: u64 = 16 << 20;
/// The part of the available memory that may be.
const CREDIT_PART: u64 = 64;

static CREDIT: AtomicU64 = AtomicU64::new(0);

/// Less memory is available than a segment needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) available: u64,
}

/// Checks that `wanted` bytes may be reserved.
pub(crate) fn check(wanted: u64, cap: Option<u64>) -> Result<(), Shortage> {
    if let Some(cap) = cap
        && wanted > cap
    {
        return Err(Shortage { available: cap });
    }
    // ORDERING: Relaxed, here and below: a plain counter.
    if CREDIT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| credit.checked_sub(wanted)).is_ok() {
        return Ok(());
    }
    check_slow(wanted)
}

#[cold]
fn check_slow(wanted: u64) -> Result<(), Shortage> {
    let available = available();
    if wanted > available {
        return Err(Shortage { available });
    }
    let credit = ((available - wanted) / CREDIT_PART).min(MAX_CREDIT_BYTES);
    CREDIT.store(credit, Ordering::Relaxed);
    Ok(())
}

/// Bytes that can be had without pushing anybody out; `u64::MAX` where nothing says.
pub(crate) fn available() -> u64 {
    machine(&read("/proc/meminfo")).min(groups(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup")))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn machine(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// The least that any memory group above this process has left. `membership` is `/proc/self/cgroup`.
fn groups(mount: &Path, membership: &str) -> u64 {
    let mut least = u64::MAX;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, names) = if controllers.is_empty() {
            (mount.to_path_buf(), &V2)
        } else if controllers.split(',').any(|c| c == "memory") {
            (mount.join("memory"), &V1)
        } else {
            continue;
        };
        least = least.min(least_above(&root, path, names));
    }
    least
}

struct FileNames {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` that counts file pages which the kernel would drop first.
    droppable: &'static str,
}

const V1: FileNames =
    FileNames { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", droppable: "total_inactive_file" };
const V2: FileNames = FileNames { limit: "memory.max", usage: "memory.current", droppable: "inactive_file" };

/// Walks from the group up to the root. Inside a container the group's path may not exist under the mount, whose root
/// then is the container's own group: the walk passes it too.
fn least_above(root: &Path, group: &str, names: &FileNames) -> u64 {
    let mut least = u64::MAX;
    let mut relative = PathBuf::from(group.trim_start_matches('/'));
    loop {
        least = least.min(left_in(&root.join(&relative), names));
        if !relative.pop() {
            return least;
        }
    }
}

fn left_in(group: &Path, names: &FileNames) -> u64 {
    // "max", or a file that is not there, is no limit.
    let Some(limit) = number(&group.join(names.limit)) else { return u64::MAX };
    let usage = number(&group.join(names.usage)).unwrap_or(0);
    let stat = read(group.join("memory.stat"));
    let droppable = stat.lines().find_map(|line| line.strip_prefix(names.droppable)?.strip_prefix(' ')?.parse().ok());
    limit.saturating_sub(usage.saturating_sub(droppable.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("crosslane-memory-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_machines_line_is_read_in_kib() {
        assert_eq!(machine("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), 2048 * 1024);
        assert_eq!(machine(""), u64::MAX);
    }

    #[test]
    fn the_tightest_v2_group_above_counts() {
        let dir = Dir::new("v2");
        dir.write("a/b/memory.max", "max\n");
        dir.write("a/memory.max", "1000\n");
        dir.write("a/memory.current", "700\n");
        dir.write("a/memory.stat", "anon 5\ninactive_file 100\n");
        assert_eq!(groups(&dir.0, "0::/a/b\n"), 400);
        assert_eq!(groups(&dir.0, "0::/elsewhere\n"), u64::MAX);
    }

    #[test]
    fn a_v1_group_counts_and_a_hidden_path_falls_back_to_the_mounts_root() {
        let dir = Dir::new("v1");
        dir.write("memory/memory.limit_in_bytes", "5000\n");
        dir.write("memory/memory.usage_in_bytes", "1000\n");
        assert_eq!(groups(&dir.0, "7:pids:/x\n4:cpu,memory:/docker/abc\n"), 4000);
    }

    #[test]
    fn the_cap_and_the_machine_refuse_with_what_there_is() {
        assert_eq!(check(4097, Some(4096)), Err(Shortage { available: 4096 }));
        let shortage = check(1 << 50, None).unwrap_err();
        assert!(shortage.available < 1 << 50);
        assert_eq!(check(4096, Some(4096)), Ok(()));
    }
}

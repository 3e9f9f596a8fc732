//! The cases, the time that each gets, and what must be left at the end.

use core::time::Duration;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crosslane_shm::{Domain, Options};
use crosslane_tests::watchdog;

use crate::choice::Choice;
use crate::{flow, killer, locks, restart};

/// Seconds of all cases together, if nothing is said.
const SECONDS: f64 = 6.0;

/// What a case is given.
pub(crate) struct Given {
    /// How long its processes run.
    pub(crate) time: Duration,
    pub(crate) choice: Choice,
    /// Where its names go.
    pub(crate) options: Options,
}

/// Name, share of the time, body.
type Case = (&'static str, u32, fn(Given) -> String);

const CASES: [Case; 18] = [
    ("flow spsc fenced", 1, flow::spsc_fenced),
    ("flow spsc asymmetric", 1, flow::spsc_asymmetric),
    ("flow spsc polling", 1, flow::spsc_polling),
    ("flow spsc without fences (control)", 1, flow::spsc_without_fences),
    ("flow spsc without wakes (control)", 1, flow::spsc_without_wakes),
    ("flow spsc batches", 1, flow::spsc_batches),
    ("flow record", 1, flow::record),
    ("flow record batches", 1, flow::record_batches),
    ("locks guards", 1, locks::guards),
    ("locks copies", 1, locks::copies),
    ("locks stopped, not killed", 1, locks::stopped),
    ("locks left out (control)", 1, locks::without),
    ("restart spsc", 1, restart::spsc),
    ("restart spsc released first (control)", 1, restart::spsc_released_first),
    ("restart record", 1, restart::record),
    ("killer queue", 10, killer::queue),
    ("killer messages", 4, killer::messages),
    ("killer acknowledged first (control)", 1, killer::acknowledged_first),
];

struct Args {
    seconds: f64,
    seed: u64,
    case: String,
}

fn args() -> Args {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut args = Args { seconds: SECONDS, seed: u64::from(now.subsec_nanos()), case: String::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--seconds" => args.seconds = value().parse().expect("--seconds N"),
            "--seed" => args.seed = value().parse().expect("--seed N"),
            "--case" => args.case = value(),
            // What cargo passes on to every test binary is not for this one.
            _ => {}
        }
    }
    args
}

pub(crate) fn run() -> ExitCode {
    watchdog::restrain();
    let args = args();
    println!("seed {}", args.seed);
    let chosen: Vec<_> = CASES.iter().filter(|(name, ..)| name.contains(&args.case)).collect();
    assert!(!chosen.is_empty(), "no case contains {:?}", args.case);
    let share = args.seconds / chosen.iter().map(|(_, share, _)| f64::from(*share)).sum::<f64>();
    // What is made once, and kept, is made before the count.
    let family = Domain::family().expect("a family");
    let fds = open_fds();
    let folder = Folder::new();
    for (name, shares, case) in &chosen {
        let time = Duration::from_secs_f64(share * f64::from(*shares));
        // Far more than a case needs on a busy machine.
        watchdog::watch(name, 60 + 10 * u32::try_from(time.as_secs()).unwrap_or(60));
        let options = Options::new().directory(&folder.0);
        let choice = Choice::new(args.seed, name);
        let began = Instant::now();
        let report = case(Given { time, choice, options });
        println!("{name:<38} {:5.1} s  {report}", began.elapsed().as_secs_f64());
        assert_eq!(open_fds(), fds, "descriptors are left");
        assert!(folder.names().is_empty(), "names are left: {:?}", folder.names());
        assert!(!has_children(), "a process is left");
    }
    watchdog::watch("the end", 0);
    drop(family);
    println!("{} passed, 0 failed", chosen.len());
    ExitCode::SUCCESS
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn has_children() -> bool {
    // SAFETY: asks only; no status is taken.
    let child = unsafe { libc::waitpid(-1, core::ptr::null_mut(), libc::WNOHANG) };
    child != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ECHILD)
}

/// A directory of our own for names, on the file system of shared memory; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new("/dev/shm").join(format!("crosslane-stress-{}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("our own");
        entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

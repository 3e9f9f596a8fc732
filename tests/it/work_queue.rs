//! The work queue example with real processes that are started and killed by hand, and its demonstration.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "jobs";
/// Slots of the example's queue, and so the jobs that can wait.
const SLOTS: u64 = 1024;

/// A directory for segments, and the processes that were started for it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("crosslane-work-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/dev/shm").join(unique);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--directory").arg(&self.0).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Process {
        Process(Some(self.command(arguments).spawn().unwrap()))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).finish()
    }

    /// What `status` prints: each figure by its name.
    fn status(&self, more: &[&str]) -> HashMap<String, u64> {
        let output = self.run(&[&["status", NAME], more].concat());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let figures = text.lines().filter(|line| !line.starts_with("dead letter: "));
        figures.map(|line| (line[..14].trim().to_owned(), line[14..22].trim().parse().unwrap())).collect()
    }

    /// Waits until `status` has all of these figures.
    fn await_status(&self, wanted: &[(&str, u64)]) {
        let start = Instant::now();
        loop {
            let found = self.status(&[]);
            if wanted.iter().all(|(name, number)| found[*name] == *number) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "wanted {wanted:?}, found {found:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running process, killed when dropped.
struct Process(Option<Child>);

impl Process {
    /// `kill -9`.
    fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it had ended by itself");
    }

    /// Waits for its end.
    fn finish(mut self) -> Output {
        let mut child = self.0.take().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("a process did not end in {LIMIT:?}: {:?}", child.wait_with_output());
            }
            thread::sleep(Duration::from_millis(1));
        }
        child.wait_with_output().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The example, which `cargo test` builds beside this test; `cargo test --test work_queue` does not.
fn program() -> PathBuf {
    static BUILT: Once = Once::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let program = profile.join("examples/work_queue");
    BUILT.call_once(|| {
        if !program.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--example", "work_queue", "--profile"]);
            build.arg(if profile.ends_with("debug") { "dev" } else { "release" });
            assert!(build.status().unwrap().success(), "the example does not build");
        }
    });
    program
}

#[test]
fn started_and_killed_by_hand_the_accounts_are_exact() {
    let place = Place::new();
    // A producer makes the queue, and its jobs outlive it.
    let output = place.run(&["produce", NAME, "--jobs", "50"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "sent 50 jobs\n", "{output:?}");
    place.await_status(&[("sent", 50), ("waiting", 50), ("done", 0)]);

    // Three workers die one after the other with the first job, which then is a dead letter.
    for waiting_then in [50, 50, 49] {
        let worker = place.start(&["work", NAME, "--micros", "3600000000"]);
        place.await_status(&[("waiting", 49), ("dead letters", 0)]);
        worker.kill();
        place.await_status(&[("waiting", waiting_then), ("dead letters", 50 - waiting_then)]);
    }

    // A fourth holds another job for ever; then a producer fills the queue, dropping the letter, and dies with a job that
    // it could not push.
    let holder = place.start(&["work", NAME, "--micros", "3600000000"]);
    place.await_status(&[("waiting", 48)]);
    let producer = place.start(&["produce", NAME]);
    // Job 1 is being held, and the queue is full in front of it.
    let full = SLOTS + 1;
    place.await_status(&[("sent", full), ("being pushed", 1), ("lost", 0)]);
    producer.kill();
    place.await_status(&[("sent", full), ("being pushed", 0), ("lost", 1)]);

    // The rest is done by two, one of which is killed on the way; the held one comes back when its holder dies.
    let [first, second] = ["500", "100"].map(|micros| place.start(&["work", NAME, "--micros", micros]));
    first.kill();
    holder.kill();
    place.await_status(&[("open", 0), ("waiting", 0)]);
    let last = place.status(&["--close"]);
    assert_eq!((last["sent"], last["done"], last["dead letters"], last["lost"]), (full, full - 1, 1, 1));
    // The holder's job, and at most one of the worker that was killed on the way.
    assert!((1..=2).contains(&last["redelivered"]), "{last:?}");
    let output = second.finish();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn who_comes_to_a_closed_queue_is_told_and_the_name_can_be_removed() {
    let place = Place::new();
    let code = |arguments: &[&str]| {
        let output = place.run(arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    place.run(&["produce", NAME, "--jobs", "3"]);
    place.status(&["--close"]);
    let said =
        "work_queue: the queue jobs is closed; once nobody has it open, `remove jobs` makes the name free again\n";
    assert_eq!(code(&["produce", NAME]), (Some(7), said.into()));
    let output = place.run(&["work", NAME]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "did 3 jobs\n", "what is left is done: {output:?}");
    assert_eq!(code(&["work", NAME]), (Some(7), said.into()));

    let name = crosslane_shm::Name::new(&format!("{NAME}-queue")).unwrap();
    let queue = crosslane_shm::Queue::<Job>::open(&name, &crosslane_shm::Options::new().directory(&place.0)).unwrap();
    let said = "work_queue: the queue jobs is not removed: somebody has it open\n";
    assert_eq!(code(&["remove", NAME]), (Some(8), said.into()));
    drop(queue);
    assert_eq!(code(&["remove", NAME]).0, Some(0));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "both names are gone");
    assert_eq!(code(&["remove", NAME]).0, Some(3));
    assert_eq!(code(&["produce", NAME, "--jobs", "1"]).0, Some(0), "a new queue");
}

/// What the example's queue holds.
#[derive(Clone, Copy, crosslane_core::Plain)]
#[repr(C)]
struct Job {
    number: u32,
    is_refused: u32,
}

#[test]
fn a_dead_letter_that_gives_way_unseen_is_accounted_for() {
    let place = Place::new();
    place.run(&["produce", NAME, "--jobs", "0"]);
    let producer = place.start(&["produce", NAME]);
    place.await_status(&[("sent", SLOTS), ("being pushed", 1)]);
    let name = crosslane_shm::Name::new(&format!("{NAME}-queue")).unwrap();
    let queue = crosslane_shm::Queue::<Job>::open(&name, &crosslane_shm::Options::new().directory(&place.0)).unwrap();
    // Three workers die with the first job, whose slot is the one that the producer waits for.
    let start = Instant::now();
    for holders in 1..=3 {
        let worker = place.start(&["work", NAME, "--micros", "3600000000"]);
        while queue.len() as u64 == SLOTS {
            assert!(start.elapsed() < LIMIT, "worker {holders} takes nothing");
            thread::sleep(Duration::from_millis(1));
        }
        worker.kill();
        while (queue.len() as u64, queue.dropped_letters()) != (SLOTS, holders / 3) {
            assert!(start.elapsed() < LIMIT, "{} wait after worker {holders}", queue.len());
            thread::sleep(Duration::from_millis(1));
        }
    }
    producer.kill();
    let worker = place.start(&["work", NAME, "--micros", "0"]);
    place.await_status(&[("done", SLOTS), ("sent", SLOTS + 1), ("open", 1), ("dropped", 1), ("waiting", 0)]);
    place.status(&["--close"]);
    assert!(worker.finish().status.success());
}

#[test]
fn an_interrupt_ends_the_demonstration_and_its_processes() {
    let place = Place::new();
    let mut command = place.command(&["--seconds", "60"]);
    let demonstration = Process(Some(command.process_group(0).spawn().unwrap()));
    // All that the terminal would send it to.
    let group = rustix::process::Pid::from_raw(demonstration.0.as_ref().unwrap().id().cast_signed()).unwrap();
    let start = Instant::now();
    let works = |name: &str| {
        let name = name.strip_suffix("-queue").filter(|name| name.starts_with("work_queue-"));
        let text = name.map(|name| place.run(&["status", name]).stdout).unwrap_or_default();
        String::from_utf8(text).unwrap().lines().any(|line| line.starts_with("done ") && &line[14..22] != "       0")
    };
    while !fs::read_dir(&place.0).unwrap().any(|entry| works(entry.unwrap().file_name().to_str().unwrap())) {
        assert!(start.elapsed() < LIMIT, "it does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    let output = demonstration.finish();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.trim_end()), (Some(130), "work_queue: interrupted"));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "segments left behind");
}

#[test]
fn refused_jobs_are_dead_letters_that_can_be_listed_and_taken() {
    let place = Place::new();
    let worker = place.start(&["work", NAME, "--micros", "0"]);
    let output = place.run(&["produce", NAME, "--jobs", "100", "--refused", "50"]);
    assert!(output.status.success(), "{output:?}");
    place.await_status(&[("sent", 100), ("done", 98), ("waiting", 0)]);
    let listed = || {
        let output = place.run(&["status", NAME, "--take-letters"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("dead letter: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let letters = ["dead letter: job 0, delivered 3 times", "dead letter: job 50, delivered 3 times"];
    assert_eq!(listed(), letters);
    assert_eq!(listed(), [""; 0], "they were taken");
    place.await_status(&[("dead letters", 2), ("open", 0)]);
    place.status(&["--close"]);
    let output = worker.finish();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "did 98 jobs\n", "{output:?}");
}

#[test]
fn the_demonstration_kills_processes_and_its_accounts_agree() {
    let place = Place::new();
    let output = place.run(&["--seconds", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.ends_with("the accounts agree: each job that was sent was done, or is a dead letter\n"), "{text}");
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "segments left behind");
}

#[test]
fn what_cannot_be_is_said_in_clear_words() {
    let place = Place::new();
    let says = |arguments: &[&str], code: i32, words: &str| {
        let output = place.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.trim_end()), (Some(code), words));
    };
    says(
        &["status", NAME],
        3,
        "work_queue: there is no queue of the name jobs; the first `produce` or `work` makes it",
    );
    says(&["work", "a/b"], 2, "work_queue: the name: the name has '/' at byte 1: only A-Z a-z 0-9 . _ - are allowed");
    says(&["--seconds", "4000"], 2, "work_queue: --seconds 4000: 0 to 3600 are possible");
    fs::write(place.0.join("jobs-queue"), "something else").unwrap();
    let output = place.run(&["work", NAME]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.starts_with("work_queue: jobs-queue could not be opened: "), "{said}");
}

//! The pipeline example with real processes: its result, and how it fails.

/// Says on the real standard error, which the test harness does not swallow, that something could not be tried here.
macro_rules! skipped {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stderr(), $($text)*).expect("a standard error");
    }};
}

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const LIMIT: Duration = Duration::from_secs(60);

/// A directory for segments and one for input; both must be empty of segments in the end.
struct Place {
    segments: PathBuf,
    input: PathBuf,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("crosslane-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let segments = Path::new("/dev/shm").join(&unique);
        let input = std::env::temp_dir().join(&unique);
        for directory in [&segments, &input] {
            fs::create_dir(directory).unwrap();
            Command::new("chmod").arg("777").arg(directory).status().unwrap();
        }
        Self { segments, input }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.input.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, path: &Path) -> Command {
        let mut command = Command::new(program());
        command.arg("--directory").arg(&self.segments).arg(path).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    fn run(&self, path: &Path, more: &[&str]) -> Output {
        finish(self.command(path).args(more).spawn().unwrap())
    }

    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(&self.segments).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    fn assert_empty(&self) {
        assert_eq!(self.left(), [] as [&str; 0], "segments left behind");
    }

    /// Waits until the collector has made its segments.
    fn wait_for_segments(&self, count: usize) {
        wait_for("the segments", || self.left().len() == count);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for directory in [&self.segments, &self.input] {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// The example, which `cargo test` builds beside this test; `cargo test --test pipeline` does not.
fn program() -> PathBuf {
    static BUILT: Once = Once::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let program = profile.join("examples/pipeline");
    BUILT.call_once(|| {
        if !program.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--example", "pipeline", "--profile"]);
            build.arg(if profile.ends_with("debug") { "dev" } else { "release" });
            assert!(build.status().unwrap().success(), "the example does not build");
        }
    });
    program
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "{what} did not come in {LIMIT:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for the end of a process, whose output goes through pipes that it does not fill.
fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            panic!("a pipeline did not end in {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, says: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(says), "{errors:?} does not say {says:?}");
    assert_eq!(errors.lines().count(), 1, "one line says what is wrong: {errors:?}");
}

#[test]
fn counts_every_word_of_a_tree() {
    let place = Place::new();
    place.file("a.txt", "one two two\nthree three three\n\nno line feed at the end: three");
    place.file("deeper/b.txt", "two z\u{fc}rich\r\n".repeat(1000));
    place.file("binary", b"three \0 three");
    place.file(".hidden", "three ".repeat(100));
    place.file("cache/CACHEDIR.TAG", "three");
    let output = place.run(&place.input, &["--check"]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    let counts: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(counts[0], ["1,002", "two"]);
    assert_eq!(counts[1], ["1,000", "z\u{fc}rich"]);
    assert_eq!(counts[2], ["4", "three"]);
    assert!(out.contains("in 1,004 lines of 2 files (1 binary files left out)"), "{out}");
    assert!(out.contains("a record's time in the ring: p50"), "{out}");
    assert!(out.contains("check: all"), "{out}");
    place.assert_empty();
    let all = place.run(&place.input, &["--all", "--counters", "3"]);
    assert!(text(&all.stdout).lines().next().unwrap().contains("1,002"), "{}", text(&all.stdout));
    assert!(text(&all.stdout).contains("105  three"), "{}", text(&all.stdout));
    place.assert_empty();
}

#[test]
fn a_path_that_cannot_be_read_is_a_failure() {
    let place = Place::new();
    assert_fails(&place.run(&place.input.join("missing"), &[]), 2, "missing: No such file or directory");
    let binary = place.file("binary", [0, 1, 2]);
    assert_fails(&place.run(&binary, &[]), 2, "a binary file");
    place.assert_empty();
}

#[test]
fn an_unreadable_file_below_the_path_is_reported_and_the_rest_counted() {
    let place = Place::new();
    place.file("a.txt", "one one");
    let closed = place.file("closed.txt", "two");
    Command::new("chmod").arg("000").arg(&closed).status().unwrap();
    let copy = place.input.join("pipeline");
    // By another process: a child of another test's, which has not executed its program yet, would have the copy open for
    // writing, and what is open for writing cannot be executed.
    assert!(Command::new("cp").arg(program()).arg(&copy).status().unwrap().success());
    let mut command = Command::new(&copy);
    command.arg("--directory").arg(&place.segments).arg(&place.input).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        // Nothing is closed to root.
        command.uid(65534).gid(65534);
    }
    let output = finish(command.spawn().unwrap());
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("left out") && errors.contains("closed.txt: Permission denied"), "{errors}");
    assert!(errors.contains("1 files could not be read"), "{errors}");
    assert!(text(&output.stdout).contains("2  one"), "{}", text(&output.stdout));
    place.assert_empty();
}

#[test]
fn a_line_longer_than_the_ring_is_a_failure_that_names_it() {
    let place = Place::new();
    let path = place.file("long.txt", format!("short\n{}\n", "x".repeat(5000)));
    let output = place.run(&path, &["--ring-bytes", "4096"]);
    assert_fails(&output, 4, "long.txt:2: a line of 5000 bytes, where");
    place.assert_empty();
    let odd = place.run(&path, &["--ring-bytes", "5000"]);
    assert_eq!(odd.status.code(), Some(2));
    assert!(text(&odd.stderr).contains("power of two"), "{}", text(&odd.stderr));
    place.assert_empty();
}

#[test]
fn a_name_in_use_is_a_failure_and_a_leftover_is_not() {
    let place = Place::new();
    place.file("a.txt", "one");
    let mut living = place.command(&place.input).arg("--by-hand").spawn().unwrap();
    place.wait_for_segments(3);
    assert_fails(&place.run(&place.input, &[]), 5, "choose another with --name");
    // Killed with its names in place: the next run takes them over without a word.
    kill_process(Pid::from_child(&living), Signal::KILL).unwrap();
    living.wait().unwrap();
    assert_eq!(place.left().len(), 3, "a killed process removes nothing");
    let output = place.run(&place.input, &["--check"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    place.assert_empty();
}

#[test]
fn roles_started_by_hand_meet_by_name() {
    let place = Place::new();
    place.file("a.txt", "one two two\n".repeat(100));
    let collector = place.command(&place.input).arg("--by-hand").spawn().unwrap();
    place.wait_for_segments(3);
    let roles: Vec<_> = [["reader", "0"], ["counter", "1"], ["counter", "0"]]
        .map(|[role, index]| place.command(&place.input).args(["--role", role, "--index", index]).spawn().unwrap())
        .into();
    for role in roles {
        let output = finish(role);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let output = finish(collector);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("200  two"), "{}", text(&output.stdout));
    place.assert_empty();
}

#[test]
fn a_role_without_a_collector_says_so() {
    let place = Place::new();
    place.file("a.txt", "one");
    assert_fails(&place.run(&place.input, &["--role", "counter"]), 9, "is the collector running?");
    place.assert_empty();
}

#[test]
fn an_interrupt_ends_everybody_and_leaves_nothing() {
    let place = Place::new();
    // A fifo that nobody writes to: the reader waits in the middle of its work.
    let fifo = place.input.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = place.command(&fifo).spawn().unwrap();
    let pid = Pid::from_child(&child);
    place.wait_for_segments(3);
    wait_for("the roles", || children(pid).len() == 3);
    let roles = children(pid);
    kill_process_group(pid, Signal::INT).unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "pipeline: interrupted\n");
    for role in roles {
        assert!(!Path::new(&format!("/proc/{role}")).exists(), "process {role} is left");
    }
    place.assert_empty();
}

#[test]
fn a_killed_role_ends_the_pipeline_with_its_name() {
    let place = Place::new();
    let fifo = place.input.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = place.command(&fifo).spawn().unwrap();
    let pid = Pid::from_child(&child);
    wait_for("the roles", || children(pid).len() == 3);
    kill_process(Pid::from_raw(children(pid)[0]).unwrap(), Signal::KILL).unwrap();
    let output = finish(child);
    assert_fails(&output, 8, "the counter 0 was ended by signal: 9");
    place.assert_empty();
}

/// The children of a process, oldest first.
fn children(parent: Pid) -> Vec<i32> {
    let parent = parent.as_raw_nonzero();
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A line that is like its neighbours, and not the same.
fn line(n: u32) -> String {
    format!("line {} of many {} words {}\n", n % 7, n % 101, n % 1009)
}

#[test]
fn the_totals_are_exact_though_counters_are_killed() {
    let place = Place::new();
    place.file("a.txt", (0..60_000).map(line).collect::<String>());
    let output = place.run(&place.input, &["--kill-every", "1", "--check"]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.contains("60,000  line\n"), "{out}");
    assert!(out.contains("in 60,000 lines of 1 files"), "{out}");
    assert!(out.contains("check: all"), "{out}");
    place.assert_empty();
    let by_hand = place.run(&place.input, &["--kill-every", "1", "--by-hand"]);
    assert_eq!(by_hand.status.code(), Some(2), "{}", text(&by_hand.stderr));
}

#[test]
fn counters_are_killed_as_often_as_is_said_and_lose_nothing() {
    const KILLS: u32 = 5;
    /// A kill comes when 1,000 records more are in the table, and half of them make a batch.
    const LINES: u32 = 4_000;
    let place = Place::new();
    let fifo = place.input.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = place.command(&fifo).args(["--kill-every", "1"]).spawn().unwrap();
    let pid = Pid::from_child(&child);
    wait_for("the roles", || children(pid).len() == 3);
    let mut input = fs::File::options().write(true).open(&fifo).unwrap();
    for n in 0..KILLS {
        let before = children(pid);
        input.write_all((0..LINES).map(|m| line(n * LINES + m)).collect::<String>().as_bytes()).unwrap();
        wait_for("a kill", || before.iter().any(|role| !children(pid).contains(role)));
    }
    drop(input);
    let output = finish(child);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.contains("20,000  line\n") && out.contains("in 20,000 lines of 1 files"), "{out}");
    let killed = out.lines().find_map(|line| line.strip_suffix(" counters were killed and replaced")).unwrap();
    assert!(killed.parse::<u32>().unwrap() >= KILLS, "{out}");
    place.assert_empty();
}

#[test]
fn a_full_file_system_is_a_failure_and_not_a_crash() {
    let place = Place::new();
    let path = place.file("a.txt", "one");
    let script = format!(
        "mount -t tmpfs -o size=1m none {0} && exec {1} --directory {0} {2}",
        place.segments.display(),
        program().display(),
        path.display()
    );
    let probe = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none"]).arg(&place.segments).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        skipped!("skipped: unshare -Urm cannot mount a tmpfs here");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    assert_fails(&finish(command.spawn().unwrap()), 6, "bytes");
    place.assert_empty();
}

//! Running one test of a test binary, with a limit on its time.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Failed by itself: a panic, or an abort out of one.
    Failed,
    /// Ran into the limit: neither a proof nor a disproof.
    Hung,
}

/// The names of the tests in `binary`.
pub(crate) fn tests_of(binary: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let output = Command::new(binary).args(["--list", "--format", "terse"]).output()?;
    if !output.status.success() {
        return Err(format!("{binary} --list: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs `test` alone (every test, if it is empty) in `binary`, its output to `output`.
pub(crate) fn run(
    binary: &str,
    test: &str,
    env: &[(&str, &str)],
    limit: Duration,
    output: &Path,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let file = std::fs::File::create(output)?;
    let mut command = Command::new(binary);
    if !test.is_empty() {
        command.args(["--exact", test]);
    }
    command.args(["--nocapture", "--test-threads=1"]).envs(env.iter().copied());
    // A model that fails prints a backtrace for each thread of it otherwise.
    command.env("RUST_BACKTRACE", "0");
    // ci/lib/stacks.rs, where it could be built.
    if let Some(library) = std::env::var_os("CROSSLANE_STACKS") {
        command.env("LD_PRELOAD", library);
    }
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(wait(&mut command.spawn()?, limit)?)
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Outcome> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Outcome::Passed } else { Outcome::Failed });
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(Outcome::Hung);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many threads keep this machine busy: its CPUs, and at most 8.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

/// Does `work` for each of `items` on so many threads, in their order; the first error is returned.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, Box<dyn std::error::Error>> + Sync,
) -> Result<Vec<R>, Box<dyn std::error::Error>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = work(i, item).map_err(|error| error.to_string());
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result.map_err(Into::into)).collect()
}

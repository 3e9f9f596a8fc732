//! What hurts the users of Python's pools: for each pain a test in which Python hangs or fails, and this does not. The numbers
//! are those of a list of 25 pains; the others have their tests with queues, locks and processes.
//!
//! Beside each stands what a real Python does, as a script that says so: `ci/neighbours.sh` runs those.

#[path = "process/support.rs"]
mod support;

mod patience;
mod pool_behaviours;
mod pool_futures;
mod pool_timeouts;

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crosslane::{Error, Event, Executor, Pool, ProcessBuilder, Queue, Task, Value, current_process, pipe, spawn};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, setsid};
use serde::{Deserialize, Deserializer, Serialize};

use crate::patience::patiently;
use crate::support::{LIMIT, forever, hear_interrupts, is_running, open_fds, until};

/// A process id that is safe to send a signal to.
fn target(pid: u32) -> Pid {
    i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw).unwrap()
}

fn one_more(n: u64) -> u64 {
    n + 1
}

/// Waits for a result, under a watchdog.
fn result_of<R: crosslane::Portable>(mut task: Task<R>) -> crosslane::Result<R> {
    task.result_timeout(LIMIT).map(|result| result.expect("it does not hang"))
}

/// The pid and the end of a worker that a task was lost with.
fn death(result: crosslane::Result<()>) -> (u32, ExitStatus) {
    match result {
        Err(Error::Died { pid, status }) => (pid, status),
        other => panic!("{other:?}"),
    }
}

/// Python has this pain: the script says so. All of these were seen with Python 3.11; a later one that has mended one, which
/// the script says too, is a piece of news, and no failure.
fn python_has(pain: &str, script: &str) {
    let said = python(script);
    if !is_mended(&said, pain) {
        assert_eq!(said, pain);
    }
}

/// Whether this Python has mended it. On the real standard error, which the test harness does not swallow.
fn is_mended(said: &str, pain: &str) -> bool {
    let how = said.strip_prefix("mended: ");
    if let Some(how) = how {
        writeln!(std::io::stderr(), "mended: where Python 3.11 says {pain:?}, this one says {how:?}")
            .expect("a standard error");
    }
    how.is_some()
}

/// What `script` printed. It says itself when something has hung.
fn python(script: &str) -> String {
    const PRELUDE: &str = r#"
import multiprocessing as mp, os, shutil, signal, subprocess, sys, tempfile, threading, time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
fork = mp.get_context("fork")
def over(said):
    print(said, flush=True)
    os.killpg(0, signal.SIGKILL)
def mended(how):
    over(f"mended: {how}" if sys.version_info >= (3, 12) else f"not what 3.11 does: {how}")
def comes(condition):
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end: return False
        time.sleep(0.005)
    return True
def until(condition):
    if not comes(condition): over("never")
"#;
    // In a group of its own, which it ends with all its children.
    let mut child = Command::new("python3")
        .args(["-c", &format!("{PRELUDE}{script}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("python3, which ci/neighbours.sh looks for");
    let id = child.id();
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let watchdog = std::thread::spawn({
        let is_over = is_over.clone();
        move || {
            let begun = Instant::now();
            while begun.elapsed() < LIMIT && !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(LIMIT);
            }
            if !is_over.load(Ordering::Relaxed) {
                let _ = kill_process_group(target(id), Signal::KILL);
            }
        }
    });
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    is_over.store(true, Ordering::Relaxed);
    watchdog.thread().unpark();
    watchdog.join().unwrap();
    child.wait().unwrap();
    said.trim().to_owned()
}

/// Python: whoever waits for the task of a worker that died waits for ever, though the worker is replaced; so does `join`.
#[test]
fn pain_1_a_task_ends_with_its_worker_and_says_how() {
    let pool = Pool::new(2).unwrap();
    let killed = pool.submit(|()| forever(()), ()).unwrap();
    until("it runs", || killed.is_running());
    let before = pool.worker_pids();
    // One of the two is at it; the other one has nothing to do, and is replaced as well.
    before.iter().for_each(|&pid| kill_process(target(pid), Signal::KILL).unwrap());
    let (pid, status) = death(result_of(killed));
    assert!(before.contains(&pid) && status.signal() == Some(9), "{pid} {status}");

    let (_, status) = death(result_of(pool.submit(|()| -> () { std::process::abort() }, ()).unwrap()));
    assert_eq!(status.signal(), Some(6));
    for code in [0, 3] {
        let (_, status) = death(result_of(pool.submit(|code: i32| -> () { std::process::exit(code) }, code).unwrap()));
        assert_eq!(status.code(), Some(code));
    }
    assert_eq!(pool.map(one_more, 0..100).unwrap(), (1..101).collect::<Vec<_>>());
    until("there are two workers again", || pool.worker_pids().len() == 2);
    assert!(pool.join_timeout(LIMIT).unwrap(), "it does not hang");
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_1() {
    python_has(
        "waits on",
        r#"
pool = fork.Pool(1)
lost = pool.apply_async(os._exit, (3,))
pool.apply(abs, (-1,)) # by its successor
try: mended(lost.get(0.3))
except mp.TimeoutError: over("waits on")
except Exception as error: mended(repr(error))
"#,
    );
}

/// Python: a thread of the queue's serialises and writes to a pipe some time after `put` has returned, and `get` takes two
/// locks and reads from it.
#[test]
fn pain_10_a_put_needs_no_thread_and_no_pipe() {
    let seen = |()| {
        let queue = Queue::<u64>::bounded(1000).unwrap();
        let possessions = || (std::fs::read_dir("/proc/self/task").unwrap().count(), open_fds());
        let before = possessions();
        for (n, len) in (0..1000).zip(1..) {
            queue.put(n).unwrap();
            assert_eq!((queue.len(), queue.is_empty()), (len, false), "it is there at once");
        }
        assert!((0..1000).all(|n| queue.try_get().unwrap() == n));
        (before, possessions())
    };
    let (before, after) = spawn(seen, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_10() {
    // The time of the CPU, which the machine's other work does not take; unoptimised, so that only the order of magnitude
    // is believed.
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let ours = || {
        let queue = Queue::<u32>::bounded(1024).unwrap();
        let begun = used();
        for _ in 0..4 {
            (0..1000).for_each(|n| queue.put(n).unwrap());
            assert!((0..1000).all(|n| queue.get().unwrap() == n));
        }
        let taken = used() - begun;
        u128::try_from(taken.tv_sec).unwrap() * 1_000_000_000 + u128::try_from(taken.tv_nsec).unwrap()
    };
    let theirs = || -> Option<u128> {
        let said = python(
            r#"
threads = threading.active_count()
queue = fork.Queue(1024)
begun = time.process_time_ns()
for _ in range(4):
    for n in range(1000): queue.put(n)
    for n in range(1000): assert queue.get() == n
taken = time.process_time_ns() - begun
if threading.active_count() == threads: mended("no thread")
over(f"{threading.active_count() - threads} thread, {taken}")
"#,
        );
        let taken = said.strip_prefix("1 thread, ").map(|taken| taken.parse().unwrap());
        assert!(taken.is_some() || is_mended(&said, "1 thread"), "{said}");
        taken
    };
    let ours = (0..3).map(|_| ours()).min().unwrap();
    let Some(theirs) = (0..3).filter_map(|_| theirs()).min() else { return };
    println!("{ours} ns, and Python {theirs} ns");
    assert!(2 * ours < theirs, "{ours} ns, and Python {theirs} ns");
}

/// Python: a message that is longer than its receiver takes costs the receiver its end of the pipe, and the sender is not
/// told.
#[test]
fn pain_11_who_sends_too_much_is_told_and_nothing_else_happens() {
    let (mut here, mut there) = pipe::<Vec<u8>, ()>().unwrap();
    for _ in 0..3 {
        assert!(matches!(here.send(&vec![1; 1 << 20]), Err(Error::TooLarge { .. })));
        here.send(&vec![2; 100]).unwrap();
        assert_eq!(there.recv().unwrap(), [2; 100]);
    }
    let queue = Queue::<Vec<u8>>::with_limit(2, 1000).unwrap();
    let refused = queue.put(vec![3; 2000]).unwrap_err();
    assert!(matches!(refused.error, Error::TooLarge { limit_bytes: 1000, .. }), "{:?}", refused.error);
    assert_eq!(refused.value, [3; 2000], "nothing is lost");
    queue.put(vec![4]).unwrap();
    assert_eq!(queue.get().unwrap(), [4]);
}

/// Both directions are full at once, many times over.
#[test]
fn pain_11_large_arguments_and_results_do_not_wait_for_each_other() {
    let pool = Pool::new(2).unwrap();
    let tasks: Vec<_> = (0..6_u8).map(|n| pool.submit(|bytes: Vec<u8>| bytes, vec![n; 4 << 20]).unwrap()).collect();
    for (n, task) in (0..).zip(tasks) {
        let bytes = result_of(task).unwrap();
        assert!(bytes.len() == 4 << 20 && bytes.iter().all(|byte| *byte == n));
    }
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_11() {
    python_has(
        "connection is write-only",
        r#"
here, there = mp.Pipe()
here.send_bytes(bytes(100))
try: there.recv_bytes(10)
except OSError: pass
here.send_bytes(bytes(1))
try: mended(there.recv_bytes())
except OSError as error: over(error)
"#,
    );
}

/// It can be written but not read back.
#[derive(Debug, Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("nobody can"))
    }
}

/// It can be read but not written.
#[derive(Debug, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("nobody can"))
    }
}

/// Python: an exception that cannot be rebuilt ends the thread that reads the results, and every later task waits for ever.
#[test]
fn pain_12_what_cannot_be_read_fails_one_task() {
    let pool = Pool::new(1).unwrap();
    let unreadable = pool.submit(|()| Unreadable, ()).unwrap();
    let unwritable = pool.submit(|()| Unwritable, ()).unwrap();
    let argument = pool.submit(|_: Unreadable| (), Unreadable).unwrap();
    let no_text = pool.submit(|()| -> () { std::panic::panic_any(7) }, ()).unwrap();
    let other = pool.submit(one_more, 1).unwrap();
    assert!(matches!(result_of(unreadable), Err(Error::Decode { type_name, .. }) if type_name.ends_with("Unreadable")));
    assert!(matches!(result_of(unwritable), Err(Error::Encode { type_name, .. }) if type_name.ends_with("Unwritable")));
    assert!(matches!(result_of(argument), Err(Error::Decode { type_name, .. }) if type_name.ends_with("Unreadable")));
    assert!(matches!(result_of::<()>(no_text), Err(Error::Panicked(report)) if !report.message.is_empty()));
    assert_eq!(result_of(other).unwrap(), 2);
    assert!(matches!(pool.submit(|_: Unwritable| (), Unwritable), Err(Error::Encode { .. })), "before it is sent");
    assert_eq!(pool.map(one_more, 0..3).unwrap(), [1, 2, 3]);
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_12() {
    python_has(
        "waits on",
        r#"
class Bad(Exception):
    def __init__(self, one, two): super().__init__("bad")
def fail(): raise Bad(1, 2)
pool = fork.Pool(1)
lost = pool.apply_async(fail)
until(lambda: lost.ready() or not pool._result_handler.is_alive())
if lost.ready(): mended("the task fails alone")
try: mended(pool.apply_async(abs, (-1,)).get(0.3))
except mp.TimeoutError: over("waits on")
"#,
    );
}

/// Python: a worker whose initializer fails is replaced without end, and nobody is told why.
#[test]
fn pain_13_an_initializer_that_fails_is_tried_a_few_times() {
    let reason = |initializer: fn(Value<u32>)| {
        let tries = Value::new(0_u32).unwrap();
        let pool = Pool::builder().workers(2).initializer(initializer, tries.clone()).build().unwrap();
        let Err(Error::NoWorkers(cause)) = result_of(pool.submit_state(|_, n: u64| n, 1).unwrap()) else { panic!() };
        assert!(matches!(pool.submit(one_more, 1), Err(Error::NoWorkers(_))), "at once, and with the reason");
        until("nobody is left", || pool.worker_pids().is_empty());
        assert!((1..=6).contains(&tries.get()), "{}", tries.get());
        cause
    };
    let panics = |tries: Value<u32>| -> () {
        tries.fetch_add(1);
        panic!("no model")
    };
    let leaves = |tries: Value<u32>| -> () {
        tries.fetch_add(1);
        std::process::exit(3)
    };
    assert!(matches!(&*reason(panics), Error::Panicked(report) if report.message == "no model"));
    assert!(matches!(&*reason(leaves), Error::Died { status, .. } if status.code() == Some(3)));
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_13() {
    python_has(
        "tries on",
        r#"
started = fork.Value("i", 0)
def initialize():
    with started.get_lock(): started.value += 1
    raise OSError("no model")
pool = fork.Pool(1, initialize)
task = pool.apply_async(abs, (-1,))
until(lambda: started.value > 12 or task.ready())
if task.ready(): mended("the task fails")
over("tries on")
"#,
    );
}

/// Python: one death breaks the whole executor. What others are at is lost, and nothing is taken on any more.
#[test]
fn pain_14_a_death_is_nobody_elses() {
    let executor = Executor::new(2).unwrap();
    let events = (Event::new().unwrap(), Event::new().unwrap());
    let other = executor
        .submit(
            |(begun, go_on): (Event, Event)| {
                begun.set();
                go_on.wait();
                7
            },
            events.clone(),
        )
        .unwrap();
    let (begun, go_on) = events;
    begun.wait();
    let lost = executor.submit(|()| -> () { std::process::abort() }, ()).unwrap();
    let behind: Vec<_> = (0..10).map(|n| executor.submit(one_more, n).unwrap()).collect();
    death(result_of(lost));
    assert!(other.is_running());
    for (n, task) in (1..).zip(behind) {
        assert_eq!(result_of(task).unwrap(), n);
    }
    go_on.set();
    assert_eq!(result_of(other).unwrap(), 7);
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_14() {
    python_has(
        "all are broken, and more are refused",
        r#"
go = fork.Event()
def leave():
    go.wait()
    os._exit(3)
executor = ProcessPoolExecutor(2, mp_context=fork)
# Both workers have something to do before anything is behind it, and one of them goes when all is.
other, lost = executor.submit(time.sleep, 60), executor.submit(leave)
behind = [executor.submit(abs, -1) for _ in range(10)]
go.set()
broken = sum(isinstance(task.exception(20), BrokenProcessPool) for task in [other, lost, *behind])
try: refused = executor.submit(abs, -1) is None
except BrokenProcessPool: refused = True
if broken < 12 or not refused: mended(f"{broken} broken, refused: {refused}")
over("all are broken, and more are refused")
"#,
    );
}

/// Python: a limit of tasks for each worker leaves an executor without workers and with work.
#[test]
fn pain_15_limits_of_tasks_and_cancelling_do_not_stop_the_pool() {
    let pool = Pool::builder().workers(2).max_tasks_per_worker(1).build().unwrap();
    let tasks: Vec<_> = (0..10).map(|n| pool.submit(one_more, n).unwrap()).collect();
    assert_eq!(tasks.into_iter().map(|task| result_of(task).unwrap()).sum::<u64>(), 55);
    assert!(pool.join_timeout(LIMIT).unwrap());
}

/// Python: a pipe that wakes the executor's thread is full, and who fills it holds the lock that the thread wants.
#[test]
fn pain_15_many_submits_before_anybody_waits_and_many_cancels_meanwhile() {
    let pool = Pool::new(2).unwrap();
    let mut tasks: Vec<_> = (0..2_000).map(|n| pool.submit(one_more, n).unwrap()).collect();
    let cancelled = tasks.split_off(1_000);
    let count = std::thread::scope(|scope| {
        let cancelling = scope.spawn(|| cancelled.iter().filter(|task| task.cancel()).count());
        for (n, task) in (1..).zip(tasks) {
            assert_eq!(result_of(task).unwrap(), n);
        }
        cancelling.join().unwrap()
    });
    let results = cancelled.into_iter().map(result_of);
    assert_eq!(results.filter(|result| matches!(result, Err(Error::Cancelled))).count(), count);
}

/// Python: a shutdown hangs when a worker dies in it.
#[test]
fn pain_15_a_shutdown_ends_though_workers_die_in_it() {
    for cancel in [false, true] {
        let pool = Pool::new(2).unwrap();
        let tasks: Vec<_> = (0..2).map(|_| pool.submit(forever, ()).unwrap()).collect();
        until("both run", || tasks.iter().all(Task::is_running));
        let behind = pool.submit(one_more, 1).unwrap();
        pool.shutdown(false, cancel).unwrap();
        pool.worker_pids().into_iter().for_each(|pid| kill_process(target(pid), Signal::KILL).unwrap());
        assert!(pool.join_timeout(LIMIT).unwrap());
        tasks.into_iter().for_each(|task| assert!(matches!(result_of(task), Err(Error::Died { .. }))));
        match result_of(behind) {
            Ok(2) if !cancel => {}
            Err(Error::Cancelled) if cancel => {}
            other => panic!("{cancel}: {other:?}"),
        }
    }
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_15() {
    // Its semaphores have names, which the helper process removes that is not of the children: so it ends by itself.
    python_has(
        "stands still",
        r#"
gate = os.path.join(tempfile.mkdtemp(), "gate")
os.mkfifo(gate)
executor = ProcessPoolExecutor(1, max_tasks_per_child=2, mp_context=mp.get_context("spawn"))
# The first one lasts until all are there.
tasks = [executor.submit(os.system, f"read line < {gate}")] + [executor.submit(abs, -1) for _ in range(9)]
open(gate, "w").close()
def done(): return sum(task.done() for task in tasks)
until(lambda: done() >= 2 and (done() == 10 or not mp.active_children()))
shutil.rmtree(os.path.dirname(gate))
if done() < 10: print("stands still", flush=True)
else: print("mended: all are done" if sys.version_info >= (3, 12) else "not what 3.11 does", flush=True)
for child in mp.active_children(): child.kill()
os._exit(0)
"#,
    );
}

/// Python: a task that runs cannot be stopped, nor one that has not begun and is said to run.
#[test]
fn pain_16_a_running_task_can_be_stopped() {
    let pool = Pool::new(1).unwrap();
    let tasks: Vec<_> = (0..3).map(|_| pool.submit(forever, ()).unwrap()).collect();
    until("one runs", || tasks[0].is_running());
    assert_eq!(tasks.iter().filter(|task| task.is_running()).count(), 1, "there is one worker");
    let worker = pool.worker_pids()[0];
    assert!(!tasks[0].cancel() && tasks[1].cancel() && tasks[2].cancel());
    let other = pool.submit(one_more, 1).unwrap();
    assert!(tasks[0].kill().unwrap());
    assert!(tasks.into_iter().all(|task| matches!(result_of(task), Err(Error::Cancelled))));
    assert_eq!(result_of(other).unwrap(), 2);
    until("the worker has ended", || !is_running(worker));

    patiently(|timeout| {
        let job = pool.job().chunk_size(1).timeout(timeout);
        let stop_at_1 = |n: u64| {
            if n == 1 {
                forever(())
            }
        };
        let results = job.map_all(stop_at_1, 0..3).unwrap();
        assert!(matches!(results[..], [Ok(()), Err(Error::TimedOut), Ok(())]), "{results:?}");
    });
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_16() {
    python_has(
        "both are said to run, and none is cancelled",
        r#"
executor = ProcessPoolExecutor(1, mp_context=fork)
tasks = [executor.submit(time.sleep, 60) for _ in range(2)]
if not comes(lambda: tasks[1].running()): mended("one runs")
cancelled = [task for task in tasks if task.cancel()]
if cancelled: mended(f"{len(cancelled)} are cancelled")
over("both are said to run, and none is cancelled")
"#,
    );
}

/// Python: `imap` reads all its input, however few results are taken.
#[test]
fn pain_18_input_is_read_as_results_are_taken() {
    // At first; once results have come quickly it may be wider.
    const WINDOW: u64 = 2 * 2;
    const WIDEST: u64 = 2 * 64;
    let pool = Pool::new(2).unwrap();
    let read = Cell::new(0);
    let without_end = || (0_u64..).inspect(|_| read.set(read.get() + 1));
    for taken in 1..20 {
        let window = if taken <= WINDOW { WINDOW } else { WIDEST };
        read.set(0);
        let mut results = pool.imap(one_more, without_end());
        assert!((1..=taken).all(|n| results.next().unwrap().unwrap() == n));
        assert!(read.get() <= taken + window, "{taken} taken, {} read", read.get());
        drop(results);
        read.set(0);
        let mut results = pool.imap_unordered(one_more, without_end());
        assert!((0..taken).all(|_| results.next().unwrap().is_ok()));
        assert!(read.get() <= taken + window, "{taken} taken, {} read", read.get());
    }
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_18() {
    python_has(
        "more than 1000 for one result",
        r#"
read = 0
def items():
    global read
    while True:
        read += 1
        yield read
pool = fork.Pool(1)
results = pool.imap(abs, items())
next(results)
if not comes(lambda: read > 1000): mended(f"{read} for one result")
over("more than 1000 for one result")
"#,
    );
}

/// Python: a lambda fails when it is submitted, a function of the main module may not be found, and a main module without a
/// guard starts itself over and over. Here what cannot travel does not compile, as the docs of `spawn` and `Pool::with` show.
#[test]
fn pain_22_any_function_without_captures_travels() {
    fn nested(n: u64) -> u64 {
        n * 2
    }
    fn generic<T: Into<u64>>(n: T) -> u64 {
        n.into() * 3
    }
    struct Type;
    impl Type {
        fn method(n: u64) -> u64 {
            n * 4
        }
    }
    let pool = Pool::new(2).unwrap();
    let functions: [fn(u64) -> u64; 6] = [one_more, nested, generic, Type::method, |n| n * 5, u64::count_zeros_of];
    let found = functions.map(|function| pool.apply(function, 10).unwrap());
    assert_eq!(found, [11, 20, 30, 40, 50, 62]);
    assert_eq!(pool.apply(generic::<u8>, 10).unwrap(), 30);
    // No main module is run again: this test is not a program's `main`, and has no guard.
    assert_eq!(pool.apply(|()| current_process().name().len(), ()).unwrap(), "worker-0".len());
}

/// A method of a trait travels too.
trait ZerosOf {
    fn count_zeros_of(self) -> u64;
}

impl ZerosOf for u64 {
    fn count_zeros_of(self) -> u64 {
        u64::from(self.count_zeros())
    }
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_22() {
    python_has(
        "a lambda is not found, bootstrapping: True",
        r#"
executor = ProcessPoolExecutor(1, mp_context=fork)
lambda_fails = executor.submit(lambda: 1).exception(10) is not None
with tempfile.NamedTemporaryFile("w", suffix=".py") as main:
    main.write("import multiprocessing as mp\nmp.get_context('spawn').Process(target=abs, args=(-1,)).start()\n")
    main.flush()
    errors = subprocess.run([sys.executable, main.name], capture_output=True, text=True).stderr
if not lambda_fails: mended("a lambda is found")
if not errors: mended("it needs no guard")
over(f"a lambda is not found, bootstrapping: {'bootstrapping' in errors}")
"#,
    );
}

/// Python: Ctrl-C ends the workers too, each with a trace, and whoever wants what they were at waits for ever.
#[test]
fn pain_23_ctrl_c_ends_a_program_with_its_workers_and_without_a_word() {
    hear_interrupts();
    let pids = Queue::<u32>::bounded(8).unwrap();
    let program = |pids: Queue<u32>| {
        setsid().unwrap();
        let pool = Pool::new(4).unwrap();
        let tasks: Vec<_> = (0..4).map(|_| pool.submit(forever, ()).unwrap()).collect();
        until("all run", || tasks.iter().all(Task::is_running));
        pool.worker_pids().into_iter().for_each(|pid| pids.put(pid).unwrap());
        tasks.into_iter().for_each(|task| task.result().unwrap());
    };
    let mut child = ProcessBuilder::new().stderr(Stdio::piped()).spawn(program, pids.clone()).unwrap();
    let pids: Vec<_> = (0..4).map(|_| pids.get_timeout(LIMIT).unwrap()).collect();
    kill_process_group(target(child.id()), Signal::INT).unwrap();
    assert!(child.wait_timeout(LIMIT).unwrap().expect("it does not hang").signal() == Some(2));
    until("no worker is left", || pids.iter().all(|&pid| !is_running(pid)));
    let mut errors = String::new();
    child.take_stderr().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "");
}

#[test]
fn pain_23_a_program_that_catches_ctrl_c_has_what_was_running() {
    let ready = Event::new().unwrap();
    let program = |ready: Event| {
        setsid().unwrap();
        let interrupted = Event::new().unwrap();
        let handler = interrupted.clone();
        ctrlc::set_handler(move || handler.set()).unwrap();
        let pool = Pool::new(2).unwrap();
        let await_it = |interrupted: Event| interrupted.wait();
        let tasks: Vec<_> = (0..6).map(|_| pool.submit(await_it, interrupted.clone()).unwrap()).collect();
        until("two run", || tasks.iter().filter(|task| task.is_running()).count() == 2);
        ready.set();
        interrupted.wait();
        pool.shutdown(true, true).unwrap();
        // Whoever was at one has ended it, and may have begun another one before the shutdown.
        let (mut has_run, mut cancelled) = (0, 0);
        for task in tasks {
            match task.result() {
                Ok(()) => has_run += 1,
                Err(Error::Cancelled) => cancelled += 1,
                Err(error) => panic!("{error}"),
            }
        }
        (has_run, cancelled)
    };
    let mut child = spawn(program, ready.clone()).unwrap();
    ready.wait();
    kill_process_group(target(child.id()), Signal::INT).unwrap();
    let (has_run, cancelled) = child.join_timeout(LIMIT).unwrap().expect("it does not hang");
    assert!(has_run >= 2 && has_run + cancelled == 6, "{has_run} {cancelled}");
}

#[test]
#[ignore = "what Python does: ci/neighbours.sh"]
fn python_has_pain_23() {
    python_has(
        "traces, and waits on",
        r#"
program = """
import multiprocessing as mp, os, time
fork = mp.get_context("fork")
begun = fork.Value("i", 0)
def work(_):
    with begun.get_lock(): begun.value += 1
    time.sleep(60)
pool = fork.Pool(4)
workers = list(pool._pool)
tasks = pool.map_async(work, range(4), 1)
while begun.value < 4: time.sleep(0.005)
try:
    print("ready", flush=True)
    while True: time.sleep(0.005)
except KeyboardInterrupt: pass
while any(worker.is_alive() for worker in workers): time.sleep(0.005)
try: print(tasks.get(0.3), flush=True)
except mp.TimeoutError: print("waits on", flush=True)
except Exception as error: print(repr(error), flush=True)
os.killpg(0, 9)
"""
child = subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True, start_new_session=True)
child.stdout.readline()
os.killpg(child.pid, signal.SIGINT)
said, errors = child.communicate()
if said.strip() != "waits on": mended(said)
if errors.count("Traceback") <= 1: mended("no traces")
over("traces, and waits on")
"#,
    );
}

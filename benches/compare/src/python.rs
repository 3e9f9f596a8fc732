//! Python's `multiprocessing`, by scripts that print how many seconds they took.

use std::process::{Command, Stdio};

use crate::sides::{unpin, watchdog};

/// Passes small integers through a `Queue`; arguments: producers (and consumers), items of each.
pub const QUEUE: &str = r#"
import multiprocessing as mp, sys, time
pairs, each = int(sys.argv[1]), int(sys.argv[2])
context = mp.get_context("fork")
queue, gate = context.Queue(1024), context.Barrier(2 * pairs + 1)
def produce():
    gate.wait()
    for i in range(each): queue.put(i)
def consume():
    gate.wait()
    for _ in range(each): queue.get()
sides = [context.Process(target=side) for side in [produce, consume] * pairs]
for side in sides: side.start()
gate.wait()
start = time.perf_counter()
for side in sides: side.join()
print(time.perf_counter() - start)
"#;

/// Puts 1 MiB of bytes into a `Queue` and gets them; argument: times.
pub const LARGE_QUEUE: &str = r#"
import multiprocessing as mp, sys, time
context, times = mp.get_context("fork"), int(sys.argv[1])
queue, gate = context.Queue(4), context.Barrier(2)
def produce():
    message = bytes(1 << 20)
    gate.wait()
    for _ in range(times): queue.put(message)
side = context.Process(target=produce)
side.start()
gate.wait()
start = time.perf_counter()
for _ in range(times): queue.get()
print(time.perf_counter() - start)
side.join()
"#;

/// Sends a small integer through a `Pipe` and gets it back; argument: times.
pub const PIPE: &str = r#"
import multiprocessing as mp, sys, time
context, trips = mp.get_context("fork"), int(sys.argv[1])
ours, theirs = context.Pipe()
def answer():
    for _ in range(trips): theirs.send(theirs.recv())
other = context.Process(target=answer)
other.start()
ours.send(0); ours.recv()
start = time.perf_counter()
for i in range(1, trips):
    ours.send(i)
    ours.recv()
print(time.perf_counter() - start)
other.join()
"#;

/// Takes and gives a `Lock`; argument: times.
pub const LOCK: &str = r#"
import multiprocessing as mp, sys, time
lock = mp.Lock()
start = time.perf_counter()
for _ in range(int(sys.argv[1])):
    lock.acquire()
    lock.release()
print(time.perf_counter() - start)
"#;

/// As [`LOCK`], with an `RLock`.
pub const RLOCK: &str = r#"
import multiprocessing as mp, sys, time
lock = mp.RLock()
start = time.perf_counter()
for _ in range(int(sys.argv[1])):
    lock.acquire()
    lock.release()
print(time.perf_counter() - start)
"#;

/// Takes and gives a permit of a `BoundedSemaphore`; arguments: times, permits.
pub const SEMAPHORE: &str = r#"
import multiprocessing as mp, sys, time
semaphore = mp.BoundedSemaphore(int(sys.argv[2]))
start = time.perf_counter()
for _ in range(int(sys.argv[1])):
    semaphore.acquire()
    semaphore.release()
print(time.perf_counter() - start)
"#;

/// Takes turns by a `Condition`; argument: times for both sides.
pub const CONDITION: &str = r#"
import multiprocessing as mp, sys, time
context, trips = mp.get_context("fork"), int(sys.argv[1])
turn, number, gate = context.Condition(), context.Value("q", 0, lock=False), context.Barrier(2)
def side(which):
    gate.wait()
    for i in range(trips):
        with turn:
            turn.wait_for(lambda: number.value == 2 * i + which)
            number.value += 1
            turn.notify()
other = context.Process(target=side, args=(1,))
other.start()
start = time.perf_counter()
side(0)
other.join()
print(time.perf_counter() - start)
"#;

/// Asks by a `Pipe` and waits for the response; arguments: times, bytes each way.
pub const ASK: &str = r#"
import multiprocessing as mp, sys, time
context, trips, length = mp.get_context("fork"), int(sys.argv[1]), int(sys.argv[2])
client, server = context.Pipe()
def serve():
    for _ in range(trips + 1): server.send_bytes(server.recv_bytes())
other = context.Process(target=serve)
other.start()
request = bytes(length)
def ask():
    client.send_bytes(request)
    assert client.recv_bytes() == request
ask()
start = time.perf_counter()
for _ in range(trips): ask()
print(time.perf_counter() - start)
other.join()
"#;

/// Makes a page of shared memory and removes it; argument: times.
pub const CREATE: &str = r#"
import sys, time
from multiprocessing.shared_memory import SharedMemory
start = time.perf_counter()
for _ in range(int(sys.argv[1])):
    memory = SharedMemory(create=True, size=4096)
    memory.buf[0] = 1
    memory.close()
    memory.unlink()
print(time.perf_counter() - start)
"#;

/// Attaches to a page of shared memory; argument: times.
pub const ATTACH: &str = r#"
import sys, time
from multiprocessing.shared_memory import SharedMemory
home = SharedMemory(create=True, size=4096)
start = time.perf_counter()
for _ in range(int(sys.argv[1])):
    memory = SharedMemory(name=home.name)
    memory.buf[0] = 1
    memory.close()
print(time.perf_counter() - start)
home.close()
home.unlink()
"#;

/// Maps a trivial function in a `Pool` of two; arguments: items, chunk size (0: the default; more than there are items:
/// one call after the other, in a pool of one).
pub const POOL: &str = r#"
import multiprocessing as mp, sys, time
items, chunk = int(sys.argv[1]), int(sys.argv[2])
one_by_one = chunk > items
def square(n): return n * n
with mp.get_context("fork").Pool(1 if one_by_one else 2) as pool:
    pool.map(square, range(10))
    start = time.perf_counter()
    if one_by_one:
        for n in range(items): pool.apply(square, (n,))
    elif chunk:
        for _ in pool.imap(square, range(items), chunk): pass
    else:
        pool.map(square, range(items))
    print(time.perf_counter() - start)
"#;

/// Maps a trivial function in a `ProcessPoolExecutor` of two; argument: items.
pub const EXECUTOR: &str = r#"
import multiprocessing as mp, sys, time
from concurrent.futures import ProcessPoolExecutor
items = int(sys.argv[1])
def square(n): return n * n
with ProcessPoolExecutor(2, mp_context=mp.get_context("fork")) as pool:
    list(pool.map(square, range(10)))
    start = time.perf_counter()
    for _ in pool.map(square, range(items)): pass
    print(time.perf_counter() - start)
"#;

/// Starts processes by `spawn` and waits for their result; argument: how many.
pub const PROCESS: &str = r#"
import multiprocessing as mp, sys, time
context = mp.get_context("spawn")
def once():
    results = context.SimpleQueue()
    child = context.Process(target=results.put, args=(2,))
    child.start()
    assert results.get() == 2
    child.join()
once()
start = time.perf_counter()
for _ in range(int(sys.argv[1])): once()
print(time.perf_counter() - start)
"#;

/// Whether there is a Python to measure.
pub fn is_there() -> bool {
    Command::new("python3").args(["-c", "import multiprocessing.shared_memory"]).status().is_ok_and(|it| it.success())
}

/// Runs `script`; returns the seconds that it printed.
pub fn run(script: &str, arguments: &[u64]) -> f64 {
    watchdog();
    unpin();
    let arguments = arguments.iter().map(u64::to_string);
    let output = Command::new("python3").arg("-c").arg(script).args(arguments).stderr(Stdio::null()).output();
    let output = output.expect("python3 was there");
    assert!(output.status.success(), "python3: {}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number of seconds")
}

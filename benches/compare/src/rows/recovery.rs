//! What a death costs the others: from SIGKILL, sent to a producer while it holds the oldest slot, to the next item that a
//! waiting consumer gets; and from SIGKILL, sent to a worker with a job, to its delivery to another that was idle when the job
//! came.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloudtoid_interprocess::{Publisher, Subscriber};
use crosslane_core::{OwnerId, WakeMode};
use crosslane_shm::Probe;

use super::ring::QueueHome;
use crate::row::{Row, Unit};
use crate::scratch::Scratch;
use crate::shared::{Memory, Shared};
use crate::sides::{end, fork, now_nanos, reap};

const SMALL: usize = 4 << 20;
const LARGE: usize = 64 << 20;
const SLOTS: u32 = 16;
const SLICE: Duration = Duration::from_millis(10);

const UNWATCHED_SMALL: &str = "crosslane mpmc, nobody watches, victim of 4 MiB";
const UNWATCHED: &str = "crosslane mpmc, nobody watches, victim of 64 MiB";
const WATCHED_SMALL: &str = "crosslane mpmc, a parent watches, victim of 4 MiB";
const WATCHED: &str = "crosslane mpmc, a parent watches, victim of 64 MiB";
const TEARDOWN: &str = "teardown of 64 MiB: the lease is free";
const IDLE: &str = "crosslane mpmc, nobody watches, worker of 64 MiB, another idle";
const CLOUDTOID: &str = "cloudtoid-interprocess, nobody can watch, victim of 64 MiB";

/// It waits for 10 s each time.
const CLOUDTOID_ROUNDS: usize = 2;

pub fn rows(_: f64) -> Vec<Row> {
    vec![
        Row::new("recovery: SIGKILL to the survivor's next item", Unit::Millis, 1)
            .contestant(UNWATCHED_SMALL, || latency(SMALL, Watch::Nobody))
            .contestant(UNWATCHED, || latency(LARGE, Watch::Nobody))
            .contestant(IDLE, || idle_pair(LARGE))
            .contestant(WATCHED_SMALL, || latency(SMALL, Watch::Parent))
            .contestant(WATCHED, || latency(LARGE, Watch::Parent))
            .contestant(TEARDOWN, || teardown(LARGE))
            .slow(CLOUDTOID, 1, CLOUDTOID_ROUNDS, cloudtoid)
            .within(UNWATCHED, 20.0)
            .within(IDLE, 20.0)
            .within(WATCHED_SMALL, 2.0)
            .above(WATCHED, TEARDOWN, 1.0)
            .within(UNWATCHED_SMALL, 20.0)
            .versus(UNWATCHED, CLOUDTOID),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Nobody,
    Parent,
}

/// What the processes tell each other.
#[derive(Default)]
struct Story {
    victim: AtomicU32,
    is_survivor_there: AtomicU32,
    survived_nanos: AtomicU64,
}

/// A child that holds the oldest slot of `home` and has `resident_bytes` in memory.
fn victim(home: &QueueHome<u64>, story: &Story, resident_bytes: usize) -> libc::pid_t {
    let child = fork(1, || {
        let _memory = Memory::private(resident_bytes.saturating_sub(resident_now()));
        let queue = home.here();
        let _slot = queue.reserve().expect("room");
        let me = queue.segment().domain().and_then(crosslane_shm::Domain::me).expect("a participant");
        story.victim.store(me.to_word(), Ordering::Release);
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    await_word(&story.victim);
    child
}

fn latency(resident_bytes: usize, watch: Watch) -> f64 {
    let home = QueueHome::<u64>::new(SLOTS, WakeMode::Fenced);
    let (queue, story) = (home.here(), Shared::<Story>::new());
    let victim = victim(&home, &story, resident_bytes);
    queue.push(7).expect("room behind the victim's slot");
    let survivor = fork(0, || {
        let queue = home.here();
        story.is_survivor_there.store(1, Ordering::Release);
        assert_eq!(queue.pop(), Ok(7));
        story.survived_nanos.store(now_nanos(), Ordering::Release);
    });
    await_word(&story.is_survivor_there);
    let domain = queue.segment().domain().expect("not for reading only");
    // The sides of earlier measurements.
    domain.reap().expect("a lease of its own");
    // Any time of the survivor's slices is as good as another.
    let phase = Duration::from_nanos(now_nanos() % SLICE.as_nanos() as u64);
    std::thread::sleep(2 * SLICE + phase);
    let process = pidfd(victim);
    let killed_nanos = now_nanos();
    kill(victim);
    if watch == Watch::Parent {
        await_end(&process);
        let proven = domain.reap().expect("a lease of its own");
        // The survivor may have been faster, and have ended.
        assert!(proven.len() <= 2, "only the victim died, and the survivor is done");
    }
    reap(survivor);
    end(victim);
    (story.survived_nanos.load(Ordering::Acquire) - killed_nanos) as f64 / 1e9
}

/// Two workers are idle; a job comes, and who takes it is killed with it.
fn idle_pair(resident_bytes: usize) -> f64 {
    let home = QueueHome::<u64>::new(SLOTS, WakeMode::Fenced);
    let (queue, story) = (home.here(), Shared::<Story>::new());
    let workers = [0, 1].map(|cpu| {
        fork(cpu, || {
            let _memory = Memory::private(resident_bytes.saturating_sub(resident_now()));
            let queue = home.here();
            story.is_survivor_there.fetch_add(1, Ordering::Release);
            let delivery = queue.take().expect("a job");
            if delivery.attempts() == 0 {
                story.victim.store(cpu as u32 + 1, Ordering::Release);
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            story.survived_nanos.store(now_nanos(), Ordering::Release);
            delivery.ack();
        })
    });
    while story.is_survivor_there.load(Ordering::Acquire) < 2 {
        std::thread::yield_now();
    }
    queue.segment().domain().expect("not for reading only").reap().expect("a lease of its own");
    // Both are asleep, and have been for longer than a slice.
    std::thread::sleep(3 * SLICE);
    queue.push(7).expect("room");
    await_word(&story.victim);
    let phase = Duration::from_nanos(now_nanos() % SLICE.as_nanos() as u64);
    std::thread::sleep(2 * SLICE + phase);
    let victim = story.victim.load(Ordering::Acquire) as usize - 1;
    let killed_nanos = now_nanos();
    kill(workers[victim]);
    reap(workers[1 - victim]);
    end(workers[victim]);
    (story.survived_nanos.load(Ordering::Acquire) - killed_nanos) as f64 / 1e9
}

/// From SIGKILL to the proof of the death: the least that any watcher needs.
fn teardown(resident_bytes: usize) -> f64 {
    let home = QueueHome::<u64>::new(SLOTS, WakeMode::Fenced);
    let (queue, story) = (home.here(), Shared::<Story>::new());
    let victim = victim(&home, &story, resident_bytes);
    let owner = OwnerId::from_word(story.victim.load(Ordering::Acquire)).expect("an id");
    let domain = queue.segment().domain().expect("not for reading only");
    let start = Instant::now();
    kill(victim);
    while domain.probe(owner).expect("a lease of its own") != Probe::Dead {
        std::hint::spin_loop();
    }
    let seconds = start.elapsed().as_secs_f64();
    end(victim);
    seconds
}

/// A publisher is killed while it copies a message of 32 MiB; another goes on publishing, and a subscriber polls.
fn cloudtoid() -> f64 {
    const MESSAGE_BYTES: usize = 32 << 20;
    let scratch = Scratch::new();
    let options = scratch.cloudtoid(64 << 20);
    let subscriber = Subscriber::open(&options).expect("a queue");
    let publisher = Publisher::open(&options).expect("a queue");
    let story = Shared::<Story>::new();
    loop {
        story.victim.store(0, Ordering::Relaxed);
        let victim = fork(1, || {
            let publisher = Publisher::open(&options).expect("a queue");
            let message = vec![1; MESSAGE_BYTES];
            story.victim.store(1, Ordering::Release);
            let _ = publisher.try_send(&message);
        });
        await_word(&story.victim);
        // Into the copy, which takes some milliseconds.
        let copying = Instant::now();
        while copying.elapsed() < Duration::from_micros(500) {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        kill(victim);
        end(victim);
        loop {
            // What is sent before the recovery is lost by it, so more is sent.
            let _ = publisher.try_send(b"alive");
            match subscriber.try_recv().expect("a queue") {
                Some(message) if message == b"alive" => break,
                Some(_) | None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        // Killed before or after its copy: no hole, and once more.
        if start.elapsed() > Duration::from_secs(1) {
            return start.elapsed().as_secs_f64();
        }
        while subscriber.try_recv().expect("a queue").is_some() {}
    }
}

fn await_word(word: &AtomicU32) {
    while word.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
}

/// Bytes of this process in memory.
fn resident_now() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn kill(child: libc::pid_t) {
    assert!(child > 1);
    // SAFETY: a child of this process that was not reaped yet.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "kill: {}", io::Error::last_os_error());
}

fn pidfd(child: libc::pid_t) -> OwnedFd {
    // SAFETY: a child of this process, and no flags.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).expect("a pidfd");
    // SAFETY: new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn await_end(process: &OwnedFd) {
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which is ours.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1, "poll: {}", io::Error::last_os_error());
}

//! What the driver and its children tell each other: one shared page.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;

use crate::child::die;
use crate::futex::{futex_wait, futex_wake};
use crate::mapping::Mapping;

/// Bytes of the message that a child can leave.
const MESSAGE_BYTES: usize = 400;
/// Children that can leave one.
const MESSAGES: usize = 4;
/// The two bytes of the `syscall` instruction, as they read little-endian.
const SYSCALL: u16 = 0x050f;

/// Where the victim is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// After so many instructions, from 1.
    Instruction(u64),
    /// At an edge of a system call, from 1: odd ones right before a call, even ones right after it.
    Edge(u64),
    /// Nowhere: only count.
    Nowhere,
}

/// What happens to the victim there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// SIGKILL.
    Kill,
    /// It stops until the driver lets it go on.
    Pause,
}

/// The shared page. All zero is a valid start.
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    instruction: AtomicU64,
    edge: AtomicU64,
    pause: AtomicU32,
    counting: AtomicU32,
    steps: AtomicU64,
    edges: AtomicU64,
    in_call: AtomicU32,
    paused: AtomicU32,
    resume: AtomicU32,
    ready: AtomicU32,
    go: AtomicU32,
    done: AtomicU32,
    rip: AtomicU64,
    code: [AtomicU64; 2],
    messages: [[AtomicU32; MESSAGE_BYTES / 4]; MESSAGES],
}

impl Control {
    /// The page in `mapping`, which nothing else uses.
    #[must_use]
    pub fn of(mapping: &Mapping) -> &Self {
        // SAFETY: only integers in atomics: every bit pattern is one.
        unsafe { mapping.at(0) }
    }

    /// Sets up the next victim's end.
    pub fn arm(&self, at: At, fate: Fate, counting: bool) {
        let (instruction, edge) = match at {
            At::Instruction(k) => (k, u64::MAX),
            At::Edge(k) => (u64::MAX, k),
            At::Nowhere => (u64::MAX, u64::MAX),
        };
        self.instruction.store(instruction, Relaxed);
        self.edge.store(edge, Relaxed);
        self.pause.store(u32::from(fate == Fate::Pause), Relaxed);
        self.steps.store(0, Relaxed);
        self.edges.store(0, Relaxed);
        self.rip.store(0, Relaxed);
        for word in [&self.in_call, &self.paused, &self.resume, &self.ready, &self.go, &self.done] {
            word.store(0, Relaxed);
        }
        for message in &self.messages {
            message[0].store(0, Relaxed);
        }
        self.counting.store(u32::from(counting), SeqCst);
    }

    /// Begins to count the victim's instructions, if it was armed without.
    pub fn count(&self) {
        self.counting.store(1, SeqCst);
    }

    /// Whether the victim's operation has completed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(SeqCst) != 0
    }

    /// The victim's operation has completed.
    pub fn set_done(&self) {
        self.done.store(1, SeqCst);
    }

    /// Instructions counted.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(SeqCst)
    }

    /// Edges of system calls counted.
    #[must_use]
    pub fn edges(&self) -> u64 {
        self.edges.load(SeqCst)
    }

    /// The victim is prepared; it waits for [`start`](Self::start).
    pub fn ready_and_wait(&self) {
        self.ready.store(1, SeqCst);
        futex_wake(&self.ready, u32::MAX);
        while self.go.load(SeqCst) == 0 {
            futex_wait(&self.go, 0, Duration::from_secs(1));
        }
    }

    /// Waits until the victim is prepared; `false` when `timeout` is over.
    #[must_use]
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        self.ready.load(SeqCst) != 0 || {
            futex_wait(&self.ready, 0, timeout);
            self.ready.load(SeqCst) != 0
        }
    }

    /// Lets the prepared victim begin.
    pub fn start(&self) {
        self.go.store(1, SeqCst);
        futex_wake(&self.go, u32::MAX);
    }

    /// The address of the word on which a prepared victim waits.
    #[must_use]
    pub fn go_address(&self) -> usize {
        self.go.as_ptr().addr()
    }

    /// Waits until the victim has paused; `false` when `timeout` is over.
    #[must_use]
    pub fn wait_paused(&self, timeout: Duration) -> bool {
        self.paused.load(SeqCst) != 0 || {
            futex_wait(&self.paused, 0, timeout);
            self.paused.load(SeqCst) != 0
        }
    }

    /// Lets the paused victim go on.
    pub fn resume(&self) {
        self.resume.store(1, SeqCst);
        futex_wake(&self.resume, u32::MAX);
    }

    /// Where the victim was last: the address of its next instruction, and if it was struck there, the bytes.
    #[must_use]
    pub fn place(&self) -> Option<(u64, [u8; 16])> {
        let rip = self.rip.load(SeqCst);
        let mut code = [0; 16];
        for (half, word) in code.chunks_mut(8).zip(&self.code) {
            half.copy_from_slice(&word.load(SeqCst).to_ne_bytes());
        }
        (rip != 0).then_some((rip, code))
    }

    /// One instruction of the victim is over, the next is at `rip`. Async-signal-safe.
    pub(crate) fn step(&self, rip: u64) {
        if self.counting.load(Relaxed) == 0 {
            return;
        }
        let steps = self.steps.load(Relaxed) + 1;
        self.steps.store(steps, Relaxed);
        self.rip.store(rip, Relaxed);
        let code = core::ptr::with_exposed_provenance::<u16>(usize::try_from(rip).unwrap_or(0));
        // SAFETY: the instruction that this process is about to execute: mapped, and readable in ordinary images.
        let calls = unsafe { code.read_unaligned() } == SYSCALL;
        let before = self.edges.load(Relaxed);
        let edges = before + u64::from(self.in_call.load(Relaxed)) + u64::from(calls);
        self.edges.store(edges, Relaxed);
        self.in_call.store(u32::from(calls), Relaxed);
        let edge = self.edge.load(Relaxed);
        if steps == self.instruction.load(Relaxed) || (before < edge && edge <= edges) {
            self.strike(rip);
        }
    }

    #[cold]
    fn strike(&self, rip: u64) {
        for (i, word) in self.code.iter().enumerate() {
            let code = core::ptr::with_exposed_provenance::<u64>(usize::try_from(rip).unwrap_or(0) + 8 * i);
            // SAFETY: code of the running image, which goes on for more than 16 bytes: the exit of this process is
            // linked behind every operation that is stepped.
            word.store(unsafe { code.read_unaligned() }, SeqCst);
        }
        if self.pause.load(Relaxed) == 0 {
            die();
        } else {
            // SAFETY: a plain call: the place of this thread's errno, which the stepped code may be about to read.
            let place = unsafe { libc::__errno_location() };
            // SAFETY: valid as long as the thread.
            let errno = unsafe { *place };
            self.paused.store(1, SeqCst);
            futex_wake(&self.paused, u32::MAX);
            while self.resume.load(SeqCst) == 0 {
                futex_wait(&self.resume, 0, Duration::from_secs(1));
            }
            // SAFETY: as above.
            unsafe { *place = errno };
        }
    }

    /// Leaves `text` as the message of child `who` (0: the victim).
    pub fn say(&self, who: usize, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(MESSAGE_BYTES - 4)];
        let message = &self.messages[who % MESSAGES];
        for (word, chunk) in message[1..].iter().zip(bytes.chunks(4)) {
            let mut four = [b' '; 4];
            four[..chunk.len()].copy_from_slice(chunk);
            word.store(u32::from_ne_bytes(four), Relaxed);
        }
        message[0].store(u32::try_from(bytes.len()).unwrap_or(0), SeqCst);
    }

    /// The message of child `who`; empty if it left none.
    #[must_use]
    pub fn said(&self, who: usize) -> String {
        let message = &self.messages[who % MESSAGES];
        let len = message[0].load(SeqCst) as usize;
        let bytes: Vec<u8> = message[1..].iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).take(len).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

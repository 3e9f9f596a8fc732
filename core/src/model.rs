//! The harness of the loom models, for this crate and for protocols that others build on it.
//!
//! Exists only under `--cfg crosslane_loom`. A model is a closure that [`check`] runs under every interleaving (and
//! every value that the memory model lets a load return) within its bounds. What the harness adds to loom:
//! - a schedule point before every access (`prim`), and a **floor** on the executions explored: a checker that stops
//!   exploring fails;
//! - **death**: [`until_killed`] runs an operation and kills its thread before its k-th access; [`Peers::kill`] then
//!   publishes the death as a released lease would, after the victim's last store;
//! - **mutants**: `CROSSLANE_MUTANT=record/reader.rs:7` weakens the ordering at that line of that file in `src` to
//!   Relaxed, and some model must then fail; `CROSSLANE_SITES=path` appends every place with an ordering to weaken.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::panic::Location;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::sync::{Mutex as StdMutex, OnceLock};
use std::vec::Vec;

use crate::owner::OwnerId;
use crate::prim::AtomicU32;
use crate::wait::{Liveness, Parked, Slice, Wait};

pub use loom::thread;
pub use std::sync::Arc;

loom::lazy_static! {
    static ref SCHEDULE: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
}

loom::thread_local! {
    static FUEL: Cell<Option<u32>> = Cell::new(None);
    static DEAD: Cell<bool> = Cell::new(false);
}

struct Killed;

/// An operation with more accesses has no end.
const MAX_DEATHS: u32 = 500;

std::thread_local! {
    /// Threads killed since the last reset. All threads of a model are coroutines of the one that runs it, so models that
    /// run side by side count apart.
    static KILLS: Cell<u64> = const { Cell::new(0) };
}

/// A schedule point; `false` if this thread has been killed and must touch nothing more.
pub(crate) fn point() -> bool {
    if DEAD.with(Cell::get) {
        return false;
    }
    if let Some(left) = FUEL.with(Cell::get) {
        if left == 0 {
            DEAD.with(|dead| dead.set(true));
            KILLS.with(|kills| kills.set(kills.get() + 1));
            std::panic::resume_unwind(Box::new(Killed));
        }
        FUEL.with(|fuel| fuel.set(Some(left - 1)));
    }
    SCHEDULE.fetch_add(0, Ordering::Relaxed);
    true
}

/// Runs `operation` and kills this thread before its access number `accesses` (from 0); `None` if it was killed.
///
/// A killed operation unwinds without touching shared memory, as a killed process would not.
///
/// # Panics
/// If `operation` panics.
pub fn until_killed<R>(accesses: u32, operation: impl FnOnce() -> R) -> Option<R> {
    FUEL.with(|fuel| fuel.set(Some(accesses)));
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(operation));
    FUEL.with(|fuel| fuel.set(None));
    DEAD.with(|dead| dead.set(false));
    match result {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

fn mutant() -> Option<&'static str> {
    static MUTANT: OnceLock<Option<String>> = OnceLock::new();
    MUTANT.get_or_init(|| std::env::var("CROSSLANE_MUTANT").ok()).as_deref()
}

/// The ordering to use at `place`, and a note of the place for whoever lists mutants.
pub(crate) fn mutated(place: &Location<'_>, order: Ordering) -> Ordering {
    if order == Ordering::Relaxed {
        return order;
    }
    note(place, order);
    match mutant() {
        Some(m) if m == site(place) => Ordering::Relaxed,
        _ => order,
    }
}

/// File and line: the file with its directories inside `src`, two of which have a `reader.rs`; a model's without any.
fn site(place: &Location<'_>) -> String {
    let file = match place.file().rsplit_once("src/") {
        Some((_, inside)) => inside,
        None => place.file().rsplit('/').next().unwrap_or_default(),
    };
    std::format!("{file}:{}", place.line())
}

/// Where sites are noted, and those that were.
struct Sites {
    file: std::fs::File,
    noted: BTreeSet<String>,
}

fn note(place: &Location<'_>, order: Ordering) {
    static SITES: OnceLock<Option<StdMutex<Sites>>> = OnceLock::new();
    let sites = SITES.get_or_init(|| {
        let path = std::env::var("CROSSLANE_SITES").ok()?;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).ok()?;
        Some(StdMutex::new(Sites { file, noted: BTreeSet::new() }))
    });
    let Some(sites) = sites else { return };
    let mut sites = sites.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if sites.noted.insert(site(place)) {
        use std::io::Write;
        let _ = sites.file.write_all(std::format!("{} {order:?}\n", site(place)).as_bytes());
    }
}

/// Explores `model` and prints what was explored.
///
/// `preemptions` bounds the forced switches in one execution (`None`: all of them). `CROSSLANE_PREEMPTIONS` raises
/// every bound; `CROSSLANE_MODEL_SECONDS` ends the search early, for mutants.
///
/// # Panics
/// If an execution fails, or if fewer than `floor` executions were explored.
pub fn check(name: &str, preemptions: Option<usize>, floor: u64, model: impl Fn() + Sync + Send + 'static) {
    let start = std::time::Instant::now();
    let runs = explore(preemptions, model);
    report(name, runs, floor, start);
}

/// Explores `model` once for each death `k` from 0, which it hands to [`until_killed`], until a `k` strikes nobody: then
/// every access of the operation has been a death. Prints the sum.
///
/// # Panics
/// If an execution fails, if fewer than `floor` executions were explored, or if fewer than `deaths - 1` deaths struck.
pub fn check_deaths(
    name: &str,
    preemptions: Option<usize>,
    deaths: u32,
    floor: u64,
    model: impl Fn(u32) + Sync + Send + Clone + 'static,
) {
    let start = std::time::Instant::now();
    let (mut runs, mut struck) = (0, 0);
    loop {
        let model = model.clone();
        KILLS.set(0);
        runs += explore(preemptions, move || model(struck));
        if KILLS.get() == 0 {
            break;
        }
        struck += 1;
        assert!(struck < MAX_DEATHS, "model {name}: an operation of more than {MAX_DEATHS} accesses");
    }
    report(name, runs, floor, start);
    if mutant().is_none() && budget().is_none() {
        assert!(struck + 1 >= deaths, "model {name}: {struck} deaths struck, fewer than its floor");
    }
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) -> u64 {
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = runs.clone();
    let mut builder = loom::model::Builder::new();
    let raised = std::env::var("CROSSLANE_PREEMPTIONS").ok().and_then(|n| n.parse::<usize>().ok());
    builder.preemption_bound = match (preemptions, raised) {
        (Some(ours), Some(raised)) => Some(ours.max(raised)),
        (ours, _) => ours,
    };
    builder.max_branches = 50_000;
    builder.max_duration = budget();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        // The word must exist before the first thread does, or its creation would order threads.
        SCHEDULE.fetch_add(0, Ordering::Relaxed);
        model();
    });
    runs.load(Ordering::Relaxed)
}

fn budget() -> Option<Duration> {
    std::env::var("CROSSLANE_MODEL_SECONDS").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs)
}

fn report(name: &str, runs: u64, floor: u64, start: std::time::Instant) {
    std::println!("model {name}: {runs} executions, floor {floor}, {:.2} s", start.elapsed().as_secs_f64());
    if mutant().is_none() && budget().is_none() {
        assert!(runs >= floor, "model {name} explored {runs} executions, fewer than its floor of {floor}");
    }
}

/// Memory for an object of the model, aligned to 128 and freed when dropped; what lies in it is not dropped.
#[derive(Debug)]
pub struct Memory {
    ptr: core::ptr::NonNull<u8>,
    layout: std::alloc::Layout,
}

// SAFETY: only an allocation; what lies in it is checked by loom.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` zeroed bytes.
    ///
    /// # Panics
    /// If `len` is 0 or the allocation fails.
    #[must_use]
    pub fn new(len: usize) -> Self {
        assert!(len > 0, "an object has a size");
        let layout = std::alloc::Layout::from_size_align(len, 128).expect("a layout");
        // SAFETY: the size is not 0.
        let ptr = unsafe { std::alloc::alloc_zeroed(layout) };
        Self { ptr: core::ptr::NonNull::new(ptr).expect("memory"), layout }
    }

    /// The first byte.
    #[must_use]
    pub fn ptr(&self) -> core::ptr::NonNull<u8> {
        self.ptr
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.ptr.as_ptr(), self.layout) };
    }
}

const WORDS: usize = 4;
const SLICES_AFTER_A_DEATH: u32 = 3;

/// Who sleeps on one word.
#[derive(Debug, Clone, Copy, Default)]
struct Sleepers {
    address: usize,
    asleep: u32,
    /// Wakes that nobody has taken yet. Any of those who slept when one was given may take it, and nobody else.
    tickets: u32,
    /// How many have ever fallen asleep here, and had when the last wake came.
    came: u32,
    wakeable: u32,
}

impl Sleepers {
    fn wake(&mut self, count: u32) -> u32 {
        let woken = self.asleep.min(count);
        self.asleep -= woken;
        self.tickets += woken;
        self.wakeable = self.came;
        woken
    }
}

/// The surroundings that all processes of a model share: who is dead, and who sleeps on which word.
#[derive(Debug)]
pub struct Peers {
    dead: Vec<(OwnerId, loom::sync::atomic::AtomicBool)>,
    /// How many more sleeps of each participant are over at once: slices go on ending after a death.
    slices: StdMutex<Vec<u32>>,
    /// The same of sleeps behind a named participant, where these end by themselves and others do not.
    short_slices: Option<StdMutex<Vec<u32>>>,
    sleepers: loom::sync::Mutex<[Sleepers; WORDS]>,
    wakes: Vec<loom::sync::Condvar>,
    parks: loom::sync::atomic::AtomicUsize,
    calls: loom::sync::atomic::AtomicUsize,
}

/// The surroundings of one process of a model.
#[derive(Debug, Clone)]
pub struct Process {
    peers: Arc<Peers>,
    me: OwnerId,
    asymmetric: bool,
}

impl Peers {
    /// The surroundings of `count` participants, with indices from 0 and generation 1.
    ///
    /// # Panics
    /// If `count` is above 1,024.
    #[must_use]
    pub fn new(count: u32) -> Arc<Self> {
        Self::of((0..count).map(first_generation))
    }

    /// The surroundings of these participants; an index may come with several generations.
    #[must_use]
    pub fn of(ids: impl IntoIterator<Item = OwnerId>) -> Arc<Self> {
        Arc::new(Self::all(ids, None))
    }

    /// As [`new`](Self::new), but a death ends no sleep of those who named nobody to wait for: these must be woken, or be
    /// right to sleep. Who names somebody looks again by itself, so many times before a death, and a few times after it.
    ///
    /// # Panics
    /// If `count` is above 1,024.
    #[must_use]
    pub fn unwatched(count: u32, looks: u32) -> Arc<Self> {
        let looks = StdMutex::new(std::vec![looks; count as usize]);
        Arc::new(Self::all((0..count).map(first_generation), Some(looks)))
    }

    fn all(ids: impl IntoIterator<Item = OwnerId>, short_slices: Option<StdMutex<Vec<u32>>>) -> Self {
        let dead: Vec<_> = ids.into_iter().map(|id| (id, loom::sync::atomic::AtomicBool::new(false))).collect();
        let indices = dead.iter().map(|(id, _)| id.index() as usize + 1).max().unwrap_or(0);
        Self {
            dead,
            slices: StdMutex::new(std::vec![0; indices]),
            short_slices,
            sleepers: loom::sync::Mutex::new([Sleepers::default(); WORDS]),
            wakes: (0..WORDS).map(|_| loom::sync::Condvar::new()).collect(),
            parks: loom::sync::atomic::AtomicUsize::new(0),
            calls: loom::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// Publishes the death of `owner`, as the kernel does by releasing a lease, and lets every sleeper look again, as
    /// the end of a slice does.
    ///
    /// # Panics
    /// If there is no such participant.
    pub fn kill(&self, owner: OwnerId) {
        SCHEDULE.fetch_add(0, Ordering::Relaxed);
        self.flag(owner).store(true, Ordering::Release);
        self.end_slices();
    }

    /// Lets every sleeper look again, and whoever falls asleep next, a few times: slices go on ending after a death.
    /// Not without end, or a waiter that never notices the death would look like one that does.
    ///
    /// # Panics
    /// If a model thread panicked while it held the lock.
    pub fn end_slices(&self) {
        let mut sleepers = self.sleepers.lock().expect("no panic inside");
        let slices = self.short_slices.as_ref().unwrap_or(&self.slices);
        slices.lock().expect("no panic inside").fill(SLICES_AFTER_A_DEATH);
        for (slot, wake) in sleepers.iter_mut().zip(&self.wakes) {
            if self.short_slices.is_none() || slot.address & SHORT != 0 {
                slot.wake(u32::MAX);
                wake.notify_all();
            }
        }
    }

    /// How many wakes went to the kernel.
    #[must_use]
    pub fn wake_calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many parks slept.
    #[must_use]
    pub fn sleeps(&self) -> usize {
        self.parks.load(Ordering::Relaxed)
    }

    fn flag(&self, owner: OwnerId) -> &loom::sync::atomic::AtomicBool {
        &self.dead.iter().find(|(id, _)| *id == owner).expect("a participant of the model").1
    }
}

fn first_generation(index: u32) -> OwnerId {
    OwnerId::new(index, 1).expect("an index in range")
}

/// Beside a word's address: those who sleep there in slices that end by themselves.
const SHORT: usize = 1;

fn slot_of(sleepers: &mut [Sleepers; WORDS], word: &AtomicU32, short: bool) -> usize {
    let address = core::ptr::from_ref(word) as usize | if short { SHORT } else { 0 };
    let slot = sleepers.iter().position(|s| s.address == address || s.address == 0).expect("at most four words sleep");
    sleepers[slot].address = address;
    slot
}

impl Process {
    /// The surroundings of participant `index` in its first generation, for one thread of the model.
    ///
    /// # Panics
    /// If there is no such participant.
    #[must_use]
    pub fn new(peers: &Arc<Peers>, index: u32) -> Self {
        Self::of(peers, first_generation(index))
    }

    /// The surroundings of participant `me`, for one thread of the model.
    ///
    /// # Panics
    /// If there is no such participant.
    #[must_use]
    pub fn of(peers: &Arc<Peers>, me: OwnerId) -> Self {
        let _ = peers.flag(me);
        Self { peers: peers.clone(), me, asymmetric: false }
    }

    /// The same process, its wakers paying by compiler fence.
    #[must_use]
    pub fn asymmetric(mut self) -> Self {
        self.asymmetric = true;
        self
    }

    /// This process's id.
    #[must_use]
    pub fn id(&self) -> OwnerId {
        self.me
    }

    /// What all processes share.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }
}

impl Liveness for Process {
    fn me(&self) -> Option<OwnerId> {
        Some(self.me)
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        if !point() {
            return false;
        }
        self.peers.flag(owner).load(Ordering::Acquire)
    }
}

impl Wait for Process {
    /// Whether the deadline passes at the first sleep.
    type Deadline = bool;

    fn never(&self) -> bool {
        false
    }

    fn after(&self, timeout: Duration) -> bool {
        timeout < Duration::from_secs(1)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: bool) -> Parked {
        if !point() {
            return Parked::Expired;
        }
        let mut sleepers = self.peers.sleepers.lock().expect("no panic inside");
        if word.peek() != expected {
            return Parked::Again;
        }
        if deadline {
            return Parked::Expired;
        }
        if let Some(left @ 1..) = self.peers.slices.lock().expect("no panic inside").get_mut(self.me.index() as usize) {
            *left -= 1;
            return Parked::Again;
        }
        let short = self.peers.short_slices.as_ref().filter(|_| !matches!(slice, Slice::Long | Slice::Unowned));
        if let Some(slices) = short
            && let Some(left @ 1..) = slices.lock().expect("no panic inside").get_mut(self.me.index() as usize)
        {
            *left -= 1;
            return Parked::Again;
        }
        self.peers.parks.fetch_add(1, Ordering::Relaxed);
        let slot = slot_of(&mut sleepers, word, short.is_some());
        sleepers[slot].asleep += 1;
        let number = sleepers[slot].came;
        sleepers[slot].came += 1;
        while sleepers[slot].tickets == 0 || number >= sleepers[slot].wakeable {
            sleepers = self.peers.wakes[slot].wait(sleepers).expect("no panic inside");
        }
        sleepers[slot].tickets -= 1;
        Parked::Again
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        if !point() {
            return 0;
        }
        self.peers.calls.fetch_add(1, Ordering::Relaxed);
        let mut sleepers = self.peers.sleepers.lock().expect("no panic inside");
        let slot = slot_of(&mut sleepers, word, false);
        let mut woken = sleepers[slot].wake(count);
        self.peers.wakes[slot].notify_all();
        let address = core::ptr::from_ref(word) as usize | SHORT;
        if let Some(slot) = sleepers.iter().position(|sleepers| sleepers.address == address) {
            woken += sleepers[slot].wake(count - woken);
            self.peers.wakes[slot].notify_all();
        }
        woken
    }

    fn spins(&self) -> u32 {
        0
    }

    fn in_heavy_barriers(&self) -> bool {
        self.asymmetric
    }

    #[track_caller]
    fn heavy_barrier(&self) -> bool {
        crate::prim::fence(Ordering::SeqCst);
        true
    }
}

/// What a place with a mutant is called, for messages.
#[must_use]
pub fn active_mutant() -> Option<String> {
    mutant().map(ToString::to_string)
}

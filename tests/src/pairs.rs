//! Crash pairs on memory images, in one process: A dies at k, the recoverer B dies at j, C must go on.
//!
//! For each starting state of a [`Drama`]:
//! 1. A's operation is single-stepped and the shared memory photographed at each instruction that changed it;
//! 2. on each of these images B recovers and works, stepped and photographed in the same way;
//! 3. on each of B's images C recovers, finishes and checks the invariants.
//!
//! Two instructions between which the memory did not change leave the same image, and C's verdict on it holds for both:
//! each image is checked once and counts for all pairs (k, j) that lead to it. Nobody sleeps: see
//! [`Told::sleepless`](crate::told::Told::sleepless).

use std::time::Instant;

use crate::mapping::Mapping;
use crate::report::Row;
use crate::sweep::Effort;
use crate::trap;
use crate::watchdog;

/// Images that one stepped run can leave.
const FILM_IMAGES: usize = 1024;
/// After so many bad images a sound case is ended; a seeded bug is found by one.
const ENOUGH_BAD: u64 = 10;

/// One case of crash pairs. A, B and C are roles of this one process; who is dead is what the drama says.
pub trait Drama {
    /// How many starting states there are.
    fn starts(&self) -> usize {
        1
    }

    /// Writes starting state `start` into the memory (all zero before), everybody alive, and prepares A's handles.
    fn set_up(&mut self, start: usize);

    /// A's operation, stepped. Handles that it leaves must not touch the memory when they are dropped.
    fn first(&mut self);

    /// A is dead. B attaches to the memory, recovers, and works; stepped.
    fn second(&mut self);

    /// A and B are dead. C attaches, recovers, finishes, and checks the invariants.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn third(&mut self) -> Result<(), String>;
}

/// What is swept, and how much of it there must be.
#[derive(Debug, Clone, Copy)]
pub struct PairPlan {
    /// The case's name.
    pub name: &'static str,
    /// The fewest pairs of a full run.
    pub floor: u64,
    /// A deliberately broken variant.
    pub seeded: bool,
}

/// Takes pictures of the shared memory while an operation is stepped.
#[derive(Debug)]
pub(crate) struct Camera {
    memory: *const u8,
    len_bytes: usize,
    film: Vec<u8>,
    shots: Vec<Shot>,
    steps: u64,
    torn_film: bool,
}

/// One image: the step at which it was first seen, how many steps it lasted, and the instruction that came next.
#[derive(Debug, Clone, Copy)]
struct Shot {
    step: u64,
    lasted: u64,
    rip: u64,
}

impl Camera {
    fn new(memory: &Mapping) -> Self {
        let len_bytes = memory.len_bytes();
        Self {
            memory: memory.base().as_ptr(),
            len_bytes,
            film: vec![0; len_bytes * FILM_IMAGES],
            shots: Vec::with_capacity(FILM_IMAGES),
            steps: 0,
            torn_film: false,
        }
    }

    fn rewind(&mut self) {
        self.shots.clear();
        self.steps = 0;
        self.look(0);
        self.steps = 0;
    }

    fn image(&self, i: usize) -> &[u8] {
        &self.film[i * self.len_bytes..(i + 1) * self.len_bytes]
    }

    /// One step is over. Async-signal-safe: allocates nothing.
    pub(crate) fn look(&mut self, rip: u64) {
        self.steps += 1;
        // SAFETY: the mapping that the camera was made for outlives it (`pairs` holds both), and while the handler
        // runs the only thread that writes to it does not.
        let now = unsafe { core::slice::from_raw_parts(self.memory, self.len_bytes) };
        let taken = self.shots.len();
        if let Some(last) = self.shots.last_mut()
            && &self.film[(taken - 1) * self.len_bytes..taken * self.len_bytes] == now
        {
            last.lasted += 1;
            return;
        }
        if taken == FILM_IMAGES {
            self.torn_film = true;
            return;
        }
        self.film[taken * self.len_bytes..(taken + 1) * self.len_bytes].copy_from_slice(now);
        self.shots.push(Shot { step: self.steps, lasted: 1, rip });
    }
}

/// Plays `drama`, whose shared bytes are all of `memory`, at every pair of instructions.
///
/// # Panics
/// If a stepped run leaves more images than the film holds.
pub fn pairs<D: Drama>(plan: PairPlan, effort: Effort, memory: &Mapping, drama: &mut D) -> Row {
    let start = Instant::now();
    let mut tally = Tally { a_images: 0, checked: 0, pairs: 0, bad: 0, first_bad: None };
    let (mut of_a, mut of_b) = (Camera::new(memory), Camera::new(memory));
    let states = match effort {
        Effort::Quick if !plan.seeded => drama.starts() / 2..drama.starts() / 2 + 1,
        _ => 0..drama.starts(),
    };
    for state in states {
        watchdog::watch(plan.name, 120);
        memory.clear();
        drama.set_up(state);
        if let Err(why) = filmed(&mut of_a, || drama.first()) {
            tally.bad(format!("start {state}: A {why}"));
        }
        tally.a_images += of_a.shots.len() as u64;
        for k in 0..of_a.shots.len() {
            memory.restore(of_a.image(k));
            let mut unwound = filmed(&mut of_b, || drama.second()).err();
            for j in 0..of_b.shots.len() {
                memory.restore(of_b.image(j));
                let (a, b) = (of_a.shots[k], of_b.shots[j]);
                tally.checked += 1;
                tally.pairs += a.lasted * b.lasted;
                let fine = match unwound.take() {
                    Some(why) => Err(format!("B {why}")),
                    None => caught(|| drama.third()).and_then(|verdict| verdict),
                };
                if let Err(why) = fine {
                    tally.bad(format!(
                        "start {state}, A dead after {} before {}, B after {} before {}: {why}",
                        a.step,
                        place(a.rip),
                        b.step,
                        place(b.rip)
                    ));
                }
                if tally.bad >= if plan.seeded { 1 } else { ENOUGH_BAD } {
                    return tally.row(plan, effort, start);
                }
            }
        }
    }
    tally.row(plan, effort, start)
}

struct Tally {
    a_images: u64,
    checked: u64,
    pairs: u64,
    bad: u64,
    first_bad: Option<String>,
}

impl Tally {
    fn bad(&mut self, why: String) {
        self.bad += 1;
        self.first_bad.get_or_insert(why);
    }

    fn row(self, plan: PairPlan, effort: Effort, start: Instant) -> Row {
        watchdog::watch("between cases", 0);
        let seconds = start.elapsed().as_secs_f64();
        let whole = effort == Effort::Full && self.bad == 0;
        Row {
            name: plan.name,
            role: "crash pairs",
            how: format!("pair: {} x B = {} images", self.a_images, self.checked),
            points: self.pairs,
            bad: self.bad,
            first_bad: self.first_bad,
            floor: if whole { plan.floor } else { 1 },
            seeded: plan.seeded,
            beside: None,
            whys: std::collections::BTreeMap::new(),
            seconds,
        }
    }
}

fn filmed(camera: &mut Camera, operation: impl FnOnce()) -> Result<(), String> {
    camera.rewind();
    let result = caught(|| trap::on_film(camera, operation));
    assert!(!camera.torn_film, "more than {FILM_IMAGES} images of one operation");
    result
}

fn caught<R>(operation: impl FnOnce() -> R) -> Result<R, String> {
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(operation)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map_or("", String::as_str);
        format!("panicked: {}", panic.downcast_ref::<&str>().unwrap_or(&text))
    })
}

fn place(rip: u64) -> String {
    if rip == 0 { "its first instruction".into() } else { trap::source_line(rip) }
}

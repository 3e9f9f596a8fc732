//! SIGKILL at every instruction of an operation, in real processes on shared memory.
//!
//! For each point a fresh [`Scene`] is played:
//! 1. the driver makes the scene; the victim is forked and [prepares](Scene::prepare) (joins, claims; not stepped);
//! 2. by the [`Role`], companions are forked and fall asleep;
//! 3. the victim single-steps through [`Scene::operate`] and is killed (or paused) at the point;
//! 4. the driver [reaps](Scene::reap) as a parent would; the companions must finish on their own; the driver
//!    [survives](Scene::survive): it recovers, finishes and checks the invariants.
//!
//! Everything has a deadline: who does not finish is bad.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use crate::child::{Child, End, die, panic_quietly};
use crate::control::{At, Control, Fate};
use crate::mapping::Mapping;
use crate::report::Row;
use crate::{trap, watchdog};

/// After so many bad points a case is ended: each may cost a deadline.
const ENOUGH_BAD: u64 = 10;
/// The same of somebody else's primitive, of which all bad points are wanted.
const ENOUGH_BAD_BESIDE: u64 = 1_000;
/// Points of a case in a quick run.
const QUICK_POINTS: u64 = 6;
/// After so many bad points a seeded bug counts as found.
const FOUND: u64 = 3;
/// How far apart the points of a hunt's first pass are.
const HUNT_STRIDE: u8 = 32;

/// Who else is there, and what the victim is doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nobody else is active.
    Alone,
    /// So many companions sleep before the victim begins.
    PeersAsleep(usize),
    /// The victim is killed on its way to sleep, and asleep.
    Asleep,
    /// The victim sleeps, is [roused](Scene::rouse), and killed so many instructions later.
    JustWoken,
    /// The same, and a companion sleeps behind it.
    SecondWaiter,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::PeersAsleep(1) => "sleeper present",
            Self::PeersAsleep(_) => "sleepers present",
            Self::Asleep => "falling asleep",
            Self::JustWoken => "just woken",
            Self::SecondWaiter => "second waiter",
        }
    }

    /// Whether the victim sleeps under the knife.
    #[must_use]
    pub fn sleeps(self) -> bool {
        matches!(self, Self::Asleep | Self::JustWoken | Self::SecondWaiter)
    }

    fn is_roused(self) -> bool {
        matches!(self, Self::JustWoken | Self::SecondWaiter)
    }
}

/// Which points of an operation are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Every instruction.
    Every,
    /// Right before and right after every system call, and every `stride`-th instruction between.
    Edges {
        /// Instructions between two points; 0: the edges alone.
        stride: u64,
    },
}

/// One point's play. A fresh one is made for each.
///
/// The methods of the victim and of companions run in forked copies of the scene: what they change in `self` the driver
/// does not see.
pub trait Scene {
    /// In the victim, before it is stepped: joins, claims, whatever leads up to the operation.
    fn prepare(&mut self) {}

    /// In the victim, stepped: the operation under the knife. What it allocates, it also drops, unless killed.
    fn operate(&mut self);

    /// In companion `who` (from 1): blocks, and must come back with the right result by itself.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn companion(&mut self, who: usize) -> Result<(), String> {
        Err(format!("the scene has no part for companion {who}"))
    }

    /// In the driver, while the victim (and who is behind it) sleeps: gives it what it waits for.
    fn rouse(&mut self) {}

    /// In the driver, while the victim is [paused](Fate::Pause) in its operation.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn interlude(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// In the driver, right after the victim's death: what a parent does that learns of it first.
    fn reap(&mut self) {}

    /// In the driver, at the end: recovers, finishes, and checks the invariants. `completed` says whether the operation
    /// had returned.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn survive(&mut self, completed: bool) -> Result<(), String>;
}

/// A case: what is swept, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The case's name.
    pub name: &'static str,
    /// Who else is there.
    pub role: Role,
    /// What happens to the victim.
    pub fate: Fate,
    /// Which points.
    pub cut: Cut,
    /// The fewest points that a whole sweep of this case may have.
    pub floor: u64,
    /// A deliberately broken variant.
    pub seeded: bool,
    /// Somebody else's primitive, for comparison with this case of ours: its bad points are counted, and decide nothing.
    pub beside: Option<&'static str>,
    /// How long anybody may take to finish.
    pub deadline: Duration,
}

impl Plan {
    /// Every instruction of `name`, the victim alone, killed; at most so long for anybody to finish as a
    /// machine that does much else needs for all the traps of a step by step run.
    #[must_use]
    pub fn new(name: &'static str, floor: u64) -> Self {
        let deadline = Duration::from_secs(20);
        let (role, fate, cut) = (Role::Alone, Fate::Kill, Cut::Every);
        Self { name, role, fate, cut, floor, seeded: false, beside: None, deadline }
    }

    /// The same in `role`.
    #[must_use]
    pub fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The same at the points of `cut`.
    #[must_use]
    pub fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// The same, the victim paused instead of killed: an interleaving with one preemption at every instruction.
    #[must_use]
    pub fn paused(self) -> Self {
        Self { fate: Fate::Pause, ..self }
    }

    /// The same as a seeded bug, which must be found; hangs are called so after 300 ms.
    #[must_use]
    pub fn seeded(self) -> Self {
        Self { seeded: true, deadline: Duration::from_millis(300), ..self }
    }

    /// The same as somebody else's primitive, compared with case `ours`. Who sleeps with nobody left to wake it hangs.
    #[must_use]
    pub fn beside(self, ours: &'static str) -> Self {
        Self { beside: Some(ours), ..self }
    }

    fn enough(&self) -> u64 {
        match (self.seeded, self.beside) {
            (true, _) => FOUND,
            (false, Some(_)) => ENOUGH_BAD_BESIDE,
            (false, None) => ENOUGH_BAD,
        }
    }

    fn role_name(&self) -> &'static str {
        match (self.fate, self.role) {
            (Fate::Pause, Role::Alone) => "paused",
            (Fate::Pause, _) => "paused, sleepers",
            (Fate::Kill, role) => role.name(),
        }
    }
}

/// How much of each case is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Some 3 to 6 points of each sound case, evenly spread; of seeded bugs, points ever closer together until one is bad.
    Quick,
    /// Every point of every case.
    Full,
}

/// How a point's victim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// At the point.
    Struck,
    /// Asleep, on the way to the point.
    Asleep,
    /// It got through: the point lies behind its operation.
    Completed,
}

/// A bad point: how its victim ended, and what went wrong, in words.
pub type Bad = (Ended, String);

/// Plays `make`'s scene at every point of `plan`.
pub fn sweep<S: Scene>(plan: &Plan, effort: Effort, mut make: impl FnMut() -> S) -> Row {
    let page = Mapping::new(size_of::<Control>());
    let control = Control::of(&page);
    sweep_by(plan, effort, control, || play(plan, control, &mut make()))
}

/// Calls `turn` for every point of `plan`, with `control` armed for it: for victims that are no forks of the driver.
pub fn sweep_by(plan: &Plan, effort: Effort, control: &Control, mut turn: impl FnMut() -> Result<Ended, Bad>) -> Row {
    let enough = plan.enough();
    let mut run = Run { plan, control, enough, points: 0, bad: 0, first_bad: None, whys: BTreeMap::new() };
    let start = Instant::now();
    let (how, floor) = match (plan.cut, effort) {
        (Cut::Every, Effort::Full) => run.every(&mut turn),
        (Cut::Edges { .. }, Effort::Quick) if plan.seeded => run.edges(0, &mut turn),
        (Cut::Every, Effort::Quick) if plan.seeded => run.hunt(&mut turn),
        (Cut::Every, Effort::Quick) => run.sampled(false, &mut turn),
        (Cut::Edges { stride }, Effort::Full) => run.edges(stride, &mut turn),
        (Cut::Edges { .. }, Effort::Quick) => run.sampled(true, &mut turn),
    };
    watchdog::watch("between cases", 0);
    Row {
        name: plan.name,
        role: plan.role_name(),
        how,
        points: run.points,
        bad: run.bad,
        first_bad: run.first_bad,
        floor,
        seeded: plan.seeded,
        beside: plan.beside,
        whys: run.whys,
        seconds: start.elapsed().as_secs_f64(),
    }
}

struct Run<'a> {
    plan: &'a Plan,
    control: &'a Control,
    enough: u64,
    points: u64,
    bad: u64,
    first_bad: Option<String>,
    whys: BTreeMap<String, u64>,
}

type Turn = Result<Ended, Bad>;

impl Run<'_> {
    fn every(&mut self, turn: &mut impl FnMut() -> Turn) -> (String, u64) {
        let mut k = 1;
        while self.bad < self.enough && self.point(At::Instruction(k), turn) == Ended::Struck {
            k += 1;
        }
        // A seeded bug that stops the sweep early has shown what it must.
        ("instruction: every".into(), if self.bad >= self.enough { 1 } else { self.plan.floor })
    }

    fn edges(&mut self, stride: u64, turn: &mut impl FnMut() -> Turn) -> (String, u64) {
        self.point(At::Nowhere, turn);
        let steps = self.control.steps();
        let mut edge = 1;
        while self.bad < self.enough && self.point(At::Edge(edge), turn) == Ended::Struck {
            edge += 1;
        }
        let mut k = stride;
        while stride > 0 && self.bad < self.enough && self.point(At::Instruction(k), turn) == Ended::Struck {
            k += stride;
        }
        let how = if stride > 0 {
            format!("instruction: calls, every {stride} of {steps}")
        } else {
            format!("instruction: calls, of {steps}")
        };
        (how, if self.bad >= self.enough || stride == 0 { 1 } else { self.plan.floor })
    }

    fn sampled(&mut self, edges: bool, turn: &mut impl FnMut() -> Turn) -> (String, u64) {
        self.point(At::Nowhere, turn);
        let (steps, calls) = (self.control.steps(), self.control.edges());
        let edges = edges && calls >= QUICK_POINTS;
        let of = if edges { calls } else { steps };
        // An operation of many system calls costs the most to play.
        let points = if edges { QUICK_POINTS / 2 } else { QUICK_POINTS };
        let stride = of.div_ceil(points).max(1);
        let mut k = 1;
        while k <= of && self.bad < self.enough {
            self.point(if edges { At::Edge(k) } else { At::Instruction(k) }, turn);
            k += stride;
        }
        let what = if edges { "call edges" } else { "instructions" };
        (format!("instruction: 1 in {stride} of {of} {what}"), self.plan.floor.min(of / stride / 2).max(2))
    }

    /// Every instruction in passes, each between the points of those before, until one is bad.
    fn hunt(&mut self, turn: &mut impl FnMut() -> Turn) -> (String, u64) {
        self.point(At::Nowhere, turn);
        let steps = self.control.steps();
        let passes = (0..HUNT_STRIDE).map(|pass| u64::from(pass.wrapping_mul(13) % HUNT_STRIDE + 1));
        for k in passes.flat_map(|first| (first..=steps).step_by(HUNT_STRIDE.into())) {
            if self.bad > 0 {
                break;
            }
            self.point(At::Instruction(k), turn);
        }
        (format!("instruction: hunt in {steps}"), 1)
    }

    fn point(&mut self, at: At, turn: &mut impl FnMut() -> Turn) -> Ended {
        watchdog::watch(self.plan.name, 120);
        self.control.arm(at, self.plan.fate, !self.plan.role.is_roused());
        let (ended, verdict) = match turn() {
            Ok(ended) => (ended, Ok(())),
            Err((ended, why)) => (ended, Err(why)),
        };
        self.points += 1;
        if let Err(why) = verdict {
            self.bad += 1;
            *self.whys.entry(why.clone()).or_default() += 1;
            self.first_bad.get_or_insert_with(|| format!("{at:?} ({ended:?}): {why}; {}", place(self.control)));
        }
        ended
    }
}

fn play<S: Scene>(plan: &Plan, control: &Control, scene: &mut S) -> Result<Ended, Bad> {
    let fail = |why: &str| (Ended::Struck, why.to_string());
    let mut victim = Child::fork(|| operate(control, scene));
    if !control.wait_ready(plan.deadline) {
        return Err(fail(&format!("the victim could not prepare: {}", control.said(0))));
    }
    let mut companions = Vec::new();
    if let Role::PeersAsleep(count) = plan.role {
        invite(plan, control, scene, &mut companions, count)?;
    }
    control.start();
    let mut ended = None;
    if plan.role.sleeps() && victim.wait_asleep(control.go_address(), plan.deadline) {
        if plan.role == Role::Asleep {
            victim.signal(libc::SIGKILL);
            ended = Some(Ended::Asleep);
        } else {
            if plan.role == Role::SecondWaiter {
                invite(plan, control, scene, &mut companions, 1)?;
            }
            control.count();
            scene.rouse();
        }
    } else if plan.role.is_roused() {
        return Err(fail("the victim never fell asleep"));
    }
    let mut between = Ok(());
    if plan.fate == Fate::Pause && await_pause(plan, control, &mut victim) {
        between = scene.interlude();
        control.resume();
        ended = Some(Ended::Struck);
    }
    match victim.wait(plan.deadline) {
        Some(End::Signalled(libc::SIGKILL)) => {}
        Some(end) => return Err(fail(&format!("the victim failed: {end:?} {}", control.said(0)))),
        None => return Err(fail("the victim hangs")),
    }
    let completed = control.is_done();
    let ended = ended.unwrap_or(if completed { Ended::Completed } else { Ended::Struck });
    scene.reap();
    for (i, companion) in companions.iter_mut().enumerate() {
        let end = if plan.beside.is_some() {
            companion.wait_unless_stuck(control.go_address(), plan.deadline)
        } else {
            companion.wait(plan.deadline)
        };
        match end {
            Some(End::Exited(0)) => {}
            None => return Err((ended, format!("companion {} hangs", i + 1))),
            Some(end) => return Err((ended, format!("companion {}: {end:?} {}", i + 1, control.said(i + 1)))),
        }
    }
    between.and_then(|()| scene.survive(completed)).map(|()| ended).map_err(|why| (ended, why))
}

/// The victim's life; ends by SIGKILL, at the point or after completion.
fn operate<S: Scene>(control: &Control, scene: &mut S) -> i32 {
    panic_quietly();
    let played = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        scene.prepare();
        control.ready_and_wait();
        trap::under_knife(control, || scene.operate());
    }));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
        control.say(0, panic.downcast_ref::<&str>().unwrap_or(&text));
        return 101;
    }
    control.set_done();
    die()
}

fn invite<S: Scene>(
    plan: &Plan,
    control: &Control,
    scene: &mut S,
    companions: &mut Vec<Child>,
    count: usize,
) -> Result<(), Bad> {
    for _ in 0..count {
        let who = companions.len() + 1;
        let mut companion = Child::fork(|| match scene.companion(who) {
            Ok(()) => 0,
            Err(why) => {
                control.say(who, &why);
                1
            }
        });
        if !companion.wait_asleep(control.go_address(), plan.deadline) {
            return Err((Ended::Struck, format!("companion {who} never fell asleep {}", control.said(who))));
        }
        companions.push(companion);
    }
    Ok(())
}

/// Waits until the victim has paused, or has ended without.
fn await_pause(plan: &Plan, control: &Control, victim: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < plan.deadline {
        if control.wait_paused(Duration::from_millis(2)) {
            return true;
        }
        if victim.wait(Duration::ZERO).is_some() {
            return false;
        }
    }
    false
}

/// Where the victim was struck, and the next instruction's bytes.
fn place(control: &Control) -> String {
    let Some((rip, code)) = control.place() else {
        return "not struck".into();
    };
    let code: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("before {} [{code}]", trap::source_line(rip))
}

//! A process that is stopped for seconds keeps what it holds: its lock, its end of a ring, its slots of a queue. Who needs
//! that waits or times out; nobody takes it away; and when it goes on, so does everybody.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use std::time::Instant;

use crosslane_core::mutex::{Acquired, LockError, LockWord};
use crosslane_core::prim;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_shm::{Env, Options, Segment};
use crosslane_tests::child::{Child, End};
use crosslane_tests::futex::{futex_wait, futex_wake};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::{Row, Table};
use crosslane_tests::sweep::Effort;
use crosslane_tests::watchdog;

use crate::Wanted;
use crate::channel::{Channel, Spsc, Stop};
use crate::mpmc::QUEUE_BYTES;
use crate::queue::{Fixed, Hand, Then, Work};

/// How long it is stopped.
const STOPPED: Duration = Duration::from_secs(5);
/// How long a look at what it holds lasts.
const LOOK: Duration = Duration::from_millis(50);
/// How long anybody waits who must come to an end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks that must have been taken while it was stopped.
const LOOKS: u64 = 20;

#[derive(Debug)]
#[repr(C)]
struct World {
    lock: LockWord,
    ready: AtomicU32,
    go: AtomicU32,
}

/// Surroundings that take a holder for dead after some probes: recovery by timeout.
#[derive(Debug, Clone)]
struct Impatient {
    env: Env,
    probes: Cell<u32>,
}

impl Liveness for Impatient {
    fn me(&self) -> Option<OwnerId> {
        self.env.me()
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.probes.set(self.probes.get() + 1);
        self.probes.get() > 3 || self.env.is_dead(owner)
    }
}

impl Wait for Impatient {
    type Deadline = <Env as Wait>::Deadline;
    fn never(&self) -> Self::Deadline {
        self.env.never()
    }
    fn after(&self, timeout: Duration) -> Self::Deadline {
        self.env.after(timeout)
    }
    fn park(&self, word: &prim::AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked {
        self.env.park(word, expected, slice, deadline)
    }
    fn wake(&self, word: &prim::AtomicU32, count: u32) -> u32 {
        self.env.wake(word, count)
    }
    fn spins(&self) -> u32 {
        self.env.spins()
    }
    fn in_heavy_barriers(&self) -> bool {
        self.env.in_heavy_barriers()
    }
    fn heavy_barrier(&self) -> bool {
        self.env.heavy_barrier()
    }
}

fn env_of(segment: &Segment) -> Env {
    segment.rejoin().ok().and_then(|segment| segment.env()).expect("places are left")
}

/// The one that is stopped: holds the lock and the producer's end, and when it goes on, uses both.
fn hold(segment: &Segment, world: &World, ring: Spsc<'_>) -> i32 {
    let env = env_of(segment);
    let Ok(mut producer) = ring.producer(env.clone()) else { return 2 };
    let Ok(Acquired::Clean) = world.lock.lock(&env, env.never()) else { return 3 };
    world.ready.store(1, SeqCst);
    futex_wake(&world.ready, 1);
    while world.go.load(SeqCst) == 0 {
        futex_wait(&world.go, 0, PATIENCE);
    }
    let pushed = Spsc::push(&mut producer, 7);
    world.lock.unlock(&env, false);
    if pushed == Ok(()) { 0 } else { 4 }
}

/// One who waits for the lock all the while, and must get it in order.
fn wait_for_lock(world: &World, env: &(impl Wait + Liveness)) -> i32 {
    match world.lock.lock(env, env.after(PATIENCE)) {
        Ok(Acquired::Clean) => {
            world.lock.unlock(env, false);
            0
        }
        Ok(_) => 5,
        Err(_) => 6,
    }
}

fn play(impatient: bool, stopped: Duration) -> Result<u64, String> {
    let segment = Segment::anonymous(64, &Options::new()).map_err(|error| format!("{error:?}"))?;
    let (memory, page) = (Mapping::new(2048), Mapping::new(size_of::<World>()));
    // SAFETY: only integers in atomics: every bit pattern is one.
    let world: &World = unsafe { page.at(0) };
    let ring = Spsc::make(&memory);
    let env = env_of(&segment);
    let mut holder = Child::fork(|| hold(&segment, world, ring));
    while world.ready.load(SeqCst) == 0 {
        futex_wait(&world.ready, 0, PATIENCE);
    }
    let mut waiter = Child::fork(|| {
        let env = env_of(&segment);
        if impatient {
            wait_for_lock(world, &Impatient { env, probes: Cell::new(0) })
        } else {
            wait_for_lock(world, &env)
        }
    });
    let mut consumer = ring.consumer(env.clone()).map_err(|error| format!("{error:?}"))?;
    if !waiter.wait_asleep(0, PATIENCE) {
        return Err("the waiter does not sleep".into());
    }
    // Who died in earlier cases of this family is not news.
    let _ = segment.domain().map(|domain| domain.reap());
    holder.signal(libc::SIGSTOP);
    let (start, mut looks) = (Instant::now(), 0);
    while start.elapsed() < stopped {
        looks += 1;
        match world.lock.lock(&env, env.after(LOOK)) {
            Err(LockError::TimedOut(Some(_))) => {}
            other => return Err(format!("its lock, while it is stopped: {other:?}")),
        }
        match Spsc::pop_wait(&mut consumer, LOOK) {
            Err(Stop::TimedOut) => {}
            other => return Err(format!("its ring, while it is stopped: {other:?}")),
        }
        let dead = segment.domain().map(|domain| domain.reap());
        if !matches!(&dead, Some(Ok(dead)) if dead.is_empty()) {
            return Err(format!("dead, while it is stopped: {dead:?}"));
        }
        if let Some(end) = waiter.wait(Duration::ZERO) {
            return Err(format!("the waiter ended while it was stopped: {end:?}"));
        }
    }
    if holder.state() != Some('T') {
        return Err(format!("it was not stopped: {:?}", holder.state()));
    }
    world.go.store(1, SeqCst);
    futex_wake(&world.go, 1);
    holder.signal(libc::SIGCONT);
    let item = Spsc::pop_wait(&mut consumer, PATIENCE);
    let ends = (holder.wait(PATIENCE), waiter.wait(PATIENCE));
    if item == Ok(7) && ends == (Some(End::Exited(0)), Some(End::Exited(0))) {
        Ok(looks)
    } else {
        Err(format!("after it went on: {item:?}, {ends:?}"))
    }
}

/// Holds an item and a slot of a queue while it is stopped, then finishes with both.
fn hold_slots(segment: &Segment, world: &World, queue: Fixed<'_>) -> i32 {
    let hand = queue.hand(env_of(segment));
    let waited = |_| {
        world.ready.store(1, SeqCst);
        futex_wake(&world.ready, 1);
        while world.go.load(SeqCst) == 0 {
            futex_wait(&world.go, 0, PATIENCE);
        }
    };
    let taken = hand.take(None, Then::Settle, |item| {
        // The slot is claimed last and committed first.
        if hand.reserve_while(7, || waited(item)).is_err() {
            world.go.store(2, SeqCst);
        }
    });
    if taken == Ok((0, 0)) && world.go.load(SeqCst) == 1 { 0 } else { 4 }
}

/// The queue's items are the driver's, but for the first, which the holder has, and its slot behind them.
fn play_queue(impatient: bool, stopped: Duration) -> Result<u64, String> {
    let segment = Segment::anonymous(64, &Options::new()).map_err(|error| format!("{error:?}"))?;
    let (memory, page) = (Mapping::new(QUEUE_BYTES), Mapping::new(size_of::<World>()));
    // SAFETY: only integers in atomics: every bit pattern is one.
    let world: &World = unsafe { page.at(0) };
    let queue = Fixed::make(&memory, 7);
    let env = env_of(&segment);
    if impatient {
        watch_queue(&queue.hand(Impatient { env, probes: Cell::new(0) }), &segment, world, queue, stopped)
    } else {
        watch_queue(&queue.hand(env), &segment, world, queue, stopped)
    }
}

fn watch_queue(
    hand: &impl Hand,
    segment: &Segment,
    world: &World,
    queue: Fixed<'_>,
    stopped: Duration,
) -> Result<u64, String> {
    hand.push(0, None).map_err(|stop| format!("{stop:?}"))?;
    let mut holder = Child::fork(|| hold_slots(segment, world, queue));
    while world.ready.load(SeqCst) == 0 {
        futex_wait(&world.ready, 0, PATIENCE);
    }
    // Full: the holder's item, its slot, and two more.
    for item in [8, 9] {
        hand.push(item, None).map_err(|stop| format!("item {item}: {stop:?}"))?;
    }
    let _ = segment.domain().map(|domain| domain.reap());
    holder.signal(libc::SIGSTOP);
    let (start, mut looks) = (Instant::now(), 0);
    while start.elapsed() < stopped {
        looks += 1;
        match (hand.push(10, Some(LOOK)), hand.pop(Some(LOOK))) {
            (Err(Stop::TimedOut), Err(Stop::TimedOut)) => {}
            other => return Err(format!("around its slots, while it is stopped: {other:?}")),
        }
        let dead = segment.domain().map(|domain| domain.reap());
        if !matches!(&dead, Some(Ok(dead)) if dead.is_empty()) {
            return Err(format!("dead, while it is stopped: {dead:?}"));
        }
    }
    if holder.state() != Some('T') {
        return Err(format!("it was not stopped: {:?}", holder.state()));
    }
    // Who does not insist on the order goes on meanwhile.
    let skipped = hand.pop_skipping();
    world.go.store(1, SeqCst);
    futex_wake(&world.go, 1);
    holder.signal(libc::SIGCONT);
    let pushed = hand.push(10, Some(PATIENCE));
    let rest = [(); 3].map(|()| hand.take(Some(PATIENCE), Then::Settle, |_| {}));
    let end = holder.wait(PATIENCE);
    let in_order = [Ok((7, 0)), Ok((9, 0)), Ok((10, 0))];
    if (skipped.as_ref(), &pushed, &rest, end) == (Ok(&8), &Ok(()), &in_order, Some(End::Exited(0))) && hand.len() == 0
    {
        Ok(looks)
    } else {
        Err(format!("after it went on: {skipped:?}, {pushed:?}, {rest:?}, {end:?}, {} left", hand.len()))
    }
}

type Case = (&'static str, bool, fn(bool, Duration) -> Result<u64, String>);

const CASES: [Case; 4] = [
    ("holder and producer", false, play),
    ("recovery by timeout", true, play),
    ("mpmc: holder of slots", false, play_queue),
    ("mpmc: slots by timeout", true, play_queue),
];

/// The cases, each then with somebody who recovers by timeout.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    for (name, impatient, play) in CASES {
        if !wanted.is(name) {
            continue;
        }
        watchdog::watch(name, 120);
        let quick = wanted.effort == Effort::Quick || impatient;
        let stopped = if quick { LOOK * 10 } else { STOPPED };
        let start = Instant::now();
        let (points, bad, first_bad) = match play(impatient, stopped) {
            Ok(looks) => (looks, 0, None),
            Err(why) => (1, 1, Some(why)),
        };
        table.add(Row {
            name,
            role: "SIGSTOP, SIGCONT",
            how: format!("looks in {} ms", stopped.as_millis()),
            points,
            bad,
            first_bad,
            floor: if quick { 1 } else { LOOKS },
            seeded: impatient,
            beside: None,
            whys: std::collections::BTreeMap::new(),
            seconds: start.elapsed().as_secs_f64(),
        });
        watchdog::watch("between cases", 0);
    }
}

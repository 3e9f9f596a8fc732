//! The pool's side: what is to be done, who does it, and what came of it.
//!
//! One mutex guards all of it, and it is held for as long as it takes to look through the rings: no thread of the pool
//! stands between a caller and a worker. Whoever waits *sweeps*: takes the answers out of all rings, whoever they are for,
//! and gives the workers more to do. A thread of the pool's own, the *sweeper*, sweeps only while nobody waits, and is not even
//! started before that is so; another, the keeper (`keeper.rs`), sleeps until a worker ends, and while there is work and no
//! sweeper looks every 50 ms whether somebody sweeps: who waits may be long about an item meanwhile.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crosslane_core::event::EventWord;
use crosslane_core::{Slice, Wait, WakeMode};
use crosslane_sync::{Deadline, spin};

use super::call::{Call, Key};
use super::callbacks::Callbacks;
use super::keeper::Keeper;
use super::lane::{self, Companion, Ends, RING_BYTES};
use super::ledger::{Backoff, Ledger, Phase, Sweeper, Watch};
use super::pending::Pending;
use super::piece::{Cause, Deliveries, Job, Piece, Reply, deliver};
use super::post::{End, Lane, Post, drain};
use super::store::Store;
use super::worker::{self, Definition, Initializer, Setup};
use crate::Trusted;
use crate::blob::Blob;
use crate::error::{Error, Result};
use crate::place::Placed;
use crate::process::ProcessBuilder;
use crate::shm::{Env, Options, Shared, Slab};
use crate::wire::Parcel;

/// How long the pool's own thread lets those who wait be, before it looks itself.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// When to try again to start the thread that runs callbacks.
const RETRY_THREAD: Duration = Duration::from_millis(50);
/// How much workers may fail to come up in a row before the pool gives up: see [`End::weight`].
const UNFIT_LIMIT: u32 = 30;

/// What a pool was made with.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) workers: usize,
    /// Items that a worker is given before it is replaced.
    pub(super) items_per_worker: u64,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) retries: u32,
    /// Items of a piece, of a map that does not say it.
    pub(super) chunk_size: Option<usize>,
    pub(super) name: String,
    pub(super) initializer: Option<(Call, Parcel)>,
    pub(super) max_result_bytes: u32,
}
/// The parent's side of a pool.
#[derive(Debug)]
pub(super) struct Crew {
    ledger: Mutex<Ledger>,
    store: Arc<Store>,
    bell: Placed<Shared<EventWord, Trusted>>,
    env: Env,
    /// Where the pool's own sweeping thread sleeps.
    sweeper: Condvar,
    settings: Settings,
    keeper: Keeper,
    callbacks: Arc<Callbacks>,
}

impl Crew {
    pub(super) fn new(settings: Settings) -> Result<Arc<Self>> {
        // For each lane two rings and their heads and words, and a directory of as many entries.
        let len_bytes = (2 * u64::from(RING_BYTES) + 4096) * settings.workers as u64 + (16 << 10);
        let objects = u32::try_from(3 * settings.workers + 1).unwrap_or(u32::MAX);
        let options = Options::new().slab_bytes(u32::try_from(len_bytes).unwrap_or(u32::MAX)).slab_objects(objects);
        // A small map touches few pages of its rings, and to have them all made and given back would cost as much as it does.
        let options = options.sparse(true);
        let slab = Slab::anonymous(&options)?;
        let bell = Placed::new(Shared::in_slab(&slab, EventWord::new())?);
        let env = bell.segment().env().ok_or(Error::Open(crate::OpenError::ReadOnly))?;
        let lanes = (0..settings.workers).map(|_| Lane::new(&slab)).collect::<Result<_>>()?;
        let store = Arc::new(Store::default());
        let ledger = Ledger {
            lanes,
            store: Arc::clone(&store),
            pending: Pending::default(),
            waiting: 0,
            driving: 0,
            sweeps: 0,
            filling: 0,
            sweeper: Sweeper::Awake,
            phase: Phase::Open,
            has_sweeper: false,
            watch: Watch::default(),
            next_job: 0,
            known: HashMap::new(),
            unfit_in_a_row: 0,
            refill: Backoff::default(),
        };
        let (ledger, sweeper) = (Mutex::new(ledger), Condvar::new());
        let (keeper, callbacks) = (Keeper::new()?, Arc::default());
        let crew = Arc::new(Self { ledger, store, bell, env, sweeper, settings, keeper, callbacks });
        for index in 0..crew.settings.workers {
            // What has started is ended when the crew is dropped.
            crew.fill(index)?;
        }
        Keeper::start(&crew)?;
        Ok(crew)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new worker at lane `index`.
    fn fill(&self, index: usize) -> Result<()> {
        self.lock().filling += 1;
        let filled = self.fill_lane(index);
        self.lock().filling -= 1;
        self.bell.wake_all(&self.env);
        filled
    }

    fn fill_lane(&self, index: usize) -> Result<()> {
        let (work, answers, words, is_fresh) = {
            let mut ledger = self.lock();
            let lane = &mut ledger.lanes[index];
            let is_fresh = std::mem::take(&mut lane.is_fresh);
            (lane.work.clone(), lane.answers.clone(), lane.words.clone(), is_fresh)
        };
        let (ours, theirs) = UnixStream::pair().map_err(Error::os("make a pair of sockets"))?;
        let companion = Companion::new(theirs);
        let initializer = match &self.settings.initializer {
            None => None,
            Some((call, config)) => {
                let config = lane::Carried::new(config).map_err(Error::os("duplicate a descriptor"))?;
                Some(Initializer { call: call.clone(), config })
            }
        };
        if !is_fresh {
            // What a dead predecessor has not read is not for its successor: the pool sends it again. From then until that has
            // come up the ring counts as closed, and nothing is written.
            drain(work.reader().map_err(Error::ring)?);
        }
        let (tx, rx) = (work.writer().map_err(Error::ring)?, answers.reader().map_err(Error::ring)?);
        let ends = Ends { work, answers, words, bell: self.bell.clone(), companion };
        let name = format!("{}-{index}", self.settings.name);
        let (max_result_bytes, is_crowded) = (self.settings.max_result_bytes, self.is_crowded());
        let setup = Setup { ends, initializer, max_result_bytes, is_crowded };
        let process = ProcessBuilder::new().name(name).spawn(worker::work, setup)?;
        self.keeper.watch(process.sentinel(), index)?;
        let post = Post::new(process, tx, rx, ours, self.settings.items_per_worker);
        let mut ledger = self.lock();
        if ledger.is_over() {
            drop(ledger);
            drop(post);
        } else {
            ledger.lanes[index].post = Some(post);
            ledger.refill = Backoff::default();
            if !matches!(ledger.phase, Phase::Open) && ledger.pending.is_empty() {
                ledger.lanes[index].let_go();
            }
            let mut deliveries = Vec::new();
            ledger.feed(&mut deliveries);
            drop(ledger);
            self.deliver(deliveries);
        }
        Ok(())
    }

    /// The job of a function without context, which is told to each worker once.
    pub(super) fn plain_job(&self, key: Key, call: impl FnOnce() -> Result<Call>) -> Result<Arc<Job>> {
        if let Some(job) = self.lock().known.get(&key) {
            return Ok(Arc::clone(job));
        }
        let job = Arc::new(self.job(call()?, None, false, self.settings.retries, None)?);
        Ok(Arc::clone(self.lock().known.entry(key).or_insert(job)))
    }

    pub(super) fn job(
        &self,
        call: Call,
        context: Option<Parcel>,
        tries_all: bool,
        retries: u32,
        timeout: Option<Duration>,
    ) -> Result<Job> {
        let (context, fds) = context.map_or_else(Default::default, |parcel| (parcel.bytes, parcel.fds));
        let context = Blob(context);
        let definition = postcard::to_stdvec(&Definition { call, context }).map_err(Error::encoding::<Call>())?;
        let mut ledger = self.lock();
        ledger.next_job = ledger.next_job.wrapping_add(1);
        Ok(Job { number: ledger.next_job, definition, fds, tries_all, retries, timeout })
    }

    /// No piece of `job` will be made any more.
    pub(super) fn forget(&self, job: &Job) {
        let mut ledger = self.lock();
        ledger.lanes.iter_mut().for_each(|lane| lane.forget(job));
        ledger.withdraw();
    }

    /// Where the large items of pieces lie.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn retries(&self) -> u32 {
        self.settings.retries
    }

    pub(super) fn chunk_size(&self) -> Option<usize> {
        self.settings.chunk_size
    }

    /// The most items that a worker may be given at once.
    pub(super) fn items_per_worker(&self) -> usize {
        usize::try_from(self.settings.items_per_worker).unwrap_or(usize::MAX)
    }

    pub(super) fn workers(&self) -> usize {
        self.settings.workers
    }

    /// Whether there are more workers than CPUs: who spins then may keep one of them from its work.
    fn is_crowded(&self) -> bool {
        self.settings.workers > spin::cpus() as usize
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.lock().lanes.iter().filter_map(|lane| Some(lane.post.as_ref()?.process.id())).collect()
    }

    /// Takes a piece of work on, and gives it to a worker if one has room; returns its ticket.
    pub(super) fn submit(self: &Arc<Self>, piece: Box<Piece>) -> Result<u64> {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        match &ledger.phase {
            Phase::Open => {}
            Phase::Closed | Phase::Over(None) => return Err(Error::PoolClosed),
            Phase::Over(Some(cause)) => return Err(Error::NoWorkers(Arc::clone(cause))),
        }
        let (has_limit, is_attended) = (piece.job.timeout.is_some(), piece.is_attended);
        let (ticket, is_easy) = ledger.take_on(piece, &mut deliveries);
        let mut is_for_keeper = has_limit || ledger.lanes.iter().any(|lane| lane.post.is_none());
        if is_attended && is_easy && !ledger.has_sweeper {
            is_for_keeper |= !std::mem::replace(&mut ledger.watch.is_on, true);
            drop(ledger);
        } else {
            self.rouse_sweeper(ledger);
        }
        if is_for_keeper {
            self.keeper.wake();
        }
        self.deliver(deliveries);
        Ok(ticket)
    }

    /// Starts the sweeper, if it has not been, or wakes it, if it sleeps: there is work that nobody else may look after.
    fn rouse_sweeper(self: &Arc<Self>, mut ledger: MutexGuard<'_, Ledger>) {
        let is_new = !std::mem::replace(&mut ledger.has_sweeper, true);
        let is_roused = ledger.rouses_sweeper();
        drop(ledger);
        if is_roused {
            self.sweeper.notify_one();
        }
        if is_new && !self.start_sweeper() {
            self.keeper.wake();
        }
    }

    /// Starts the sweeper, which is said to have been started already; returns whether it was. If not, the keeper stands in.
    fn start_sweeper(self: &Arc<Self>) -> bool {
        let crew = Arc::clone(self);
        let thread = std::thread::Builder::new().name("crosslane-sweeper".into());
        let is_started = thread.spawn(move || crew.sweep_alone()).is_ok();
        let mut ledger = self.lock();
        ledger.has_sweeper = is_started;
        ledger.watch.is_on |= !is_started;
        is_started
    }

    /// For the keeper: starts the sweeper if there has been none, and nobody has swept for a while though there is work;
    /// returns when to look again.
    fn watch(self: &Arc<Self>) -> Option<Duration> {
        let mut ledger = self.lock();
        if ledger.has_sweeper {
            return None;
        }
        let (is_left_alone, next) = ledger.watch();
        ledger.has_sweeper = is_left_alone;
        drop(ledger);
        next.filter(|_| !is_left_alone || !self.start_sweeper())
    }

    /// Hands replies over, and wakes who may sleep for one of them. No lock may be held.
    fn deliver(&self, deliveries: Deliveries) {
        if deliveries.is_empty() {
            return;
        }
        deliver(deliveries);
        self.mind_callbacks();
        // It may be what another thread sleeps for. If none does, this is a fence and a load.
        self.bell.wake(u32::MAX, WakeMode::Fenced, &self.env);
    }

    pub(super) fn callbacks(&self) -> &Arc<Callbacks> {
        &self.callbacks
    }

    /// Sees to it that callbacks run in the end for which no thread could be started.
    pub(super) fn mind_callbacks(&self) {
        if self.callbacks.are_stranded() {
            self.keeper.wake();
        }
    }

    /// Sweeps, spins and sleeps until `done` or the deadline; returns whether it is done.
    pub(super) fn wait_until(self: &Arc<Self>, deadline: Deadline, done: impl Fn() -> bool) -> bool {
        // Whoever sweeps without pause finds something most times, and need not say that it waits.
        if done() || self.sweep() && done() {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        let _waiting = Waiting::new(self);
        self.drive(deadline, done)
    }

    /// Counts this thread among those that sweep, for as long as the result lives.
    pub(super) fn attend(self: &Arc<Self>) -> Waiting<'_> {
        Waiting::new(self)
    }

    fn drive(&self, deadline: Deadline, done: impl Fn() -> bool) -> bool {
        self.lock().driving += 1;
        let is_done = self.look_and_sleep(deadline, done);
        let mut ledger = self.lock();
        ledger.driving -= 1;
        let leaves_others = ledger.driving > 0;
        drop(ledger);
        if leaves_others {
            // The last wake may have been meant for one of them.
            self.bell.wake_all(&self.env);
        }
        is_done
    }

    fn look_and_sleep(&self, deadline: Deadline, done: impl Fn() -> bool) -> bool {
        // A look takes about as long as three pauses. Crowded workers spin for a quarter of the time, too.
        let budget = self.env.spins() / if self.is_crowded() { 12 } else { 3 };
        let mut looks = 0;
        loop {
            if done() {
                return true;
            }
            if self.sweep() {
                looks = 0;
                continue;
            }
            if deadline.has_passed() {
                return done();
            }
            if looks < budget {
                looks += 1;
                std::hint::spin_loop();
                continue;
            }
            let ready = || {
                done() || {
                    let mut ledger = self.lock();
                    ledger.send() | ledger.has_answers()
                }
            };
            self.bell.sleep_unless(WakeMode::Fenced, Slice::Long, deadline, &self.env, ready);
        }
    }

    /// Takes what answers there are, and gives out work; returns whether there was anything to take.
    fn sweep(&self) -> bool {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        let found = ledger.take_answers(&mut deliveries);
        ledger.feed(&mut deliveries);
        ledger.sweeps = ledger.sweeps.wrapping_add(1);
        drop(ledger);
        self.deliver(deliveries);
        found
    }

    /// The pool's own thread: sweeps while there is work and nobody waits for it, and also if those who wait have not done
    /// so for a while: they may be busy making items.
    fn sweep_alone(&self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let mut ledger = self.lock();
            // Those who wait may submit more at any moment: for them it naps for a while before it sleeps.
            while !ledger.is_over() && ledger.is_idle() && (ledger.waiting == 0 || pause == LONGEST_PAUSE) {
                ledger.sweeper = Sweeper::Sleeps;
                ledger = self.sweeper.wait(ledger).unwrap_or_else(PoisonError::into_inner);
                pause = SHORTEST_PAUSE;
            }
            let seen = ledger.sweeps;
            if !ledger.is_over() && ledger.waiting > 0 {
                ledger.sweeper = Sweeper::Naps;
                let is_left = |ledger: &mut Ledger| !ledger.is_over() && ledger.waiting > 0;
                let rest = self.sweeper.wait_timeout_while(ledger, pause, is_left);
                (ledger, _) = rest.unwrap_or_else(PoisonError::into_inner);
            }
            ledger.sweeper = Sweeper::Awake;
            if ledger.is_over() {
                return;
            }
            let (is_attended, is_stale) = (ledger.waiting > 0, ledger.sweeps == seen);
            drop(ledger);
            if is_attended {
                let found = is_stale && self.sweep();
                pause = if found || !is_stale { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            } else {
                self.drive(Deadline::never(), || {
                    let ledger = self.lock();
                    ledger.is_over() || ledger.waiting > 0 || ledger.is_idle()
                });
            }
        }
    }

    /// Takes the pieces back that have not begun, of those that have these tickets, in ascending order; returns how many.
    pub(super) fn take_back(&self, tickets: &[u64]) -> usize {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        let taken = ledger.take_back(tickets);
        let count = taken.len();
        for piece in taken {
            piece.end(Reply::Lost(Cause::Cancelled), &mut deliveries);
        }
        ledger.feed(&mut deliveries);
        drop(ledger);
        self.deliver(deliveries);
        count
    }

    /// Takes everything back that has not begun.
    pub(super) fn take_all_back(&self) {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        let taken = ledger.take_all_back();
        drop(ledger);
        for piece in taken {
            piece.end(Reply::Lost(Cause::Cancelled), &mut deliveries);
        }
        self.deliver(deliveries);
    }

    /// Whether a worker is at the piece with this ticket.
    pub(super) fn is_running(&self, ticket: u64) -> bool {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        ledger.take_answers(&mut deliveries);
        let is_running = ledger.running(ticket).is_some();
        // A piece may have come back with the answers.
        ledger.feed(&mut deliveries);
        drop(ledger);
        self.deliver(deliveries);
        is_running
    }

    /// Takes the piece with this ticket back, or ends the worker that is at it; returns whether one of both was so.
    pub(super) fn kill(&self, ticket: u64) -> Result<bool> {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        let taken = ledger.take_back(&[ticket]);
        ledger.take_answers(&mut deliveries);
        let is_ended = match ledger.running(ticket) {
            _ if !taken.is_empty() => Ok(true),
            Some(place) => ledger.end_worker(place, Cause::Cancelled),
            None => Ok(false),
        };
        for piece in taken {
            piece.end(Reply::Lost(Cause::Cancelled), &mut deliveries);
        }
        ledger.feed(&mut deliveries);
        drop(ledger);
        self.deliver(deliveries);
        is_ended
    }

    /// No more work is taken on.
    pub(super) fn close(&self) {
        let mut ledger = self.lock();
        if matches!(ledger.phase, Phase::Open) {
            ledger.phase = Phase::Closed;
        }
    }

    /// After `close`: waits until all is done and the workers have left.
    pub(super) fn finish(self: &Arc<Self>, deadline: Deadline) -> bool {
        let is_done = self.wait_until(deadline, || {
            let ledger = self.lock();
            ledger.is_over() || ledger.is_idle()
        });
        if !is_done {
            return false;
        }
        self.wait_until(deadline, || {
            let mut ledger = self.lock();
            ledger.lanes.iter_mut().for_each(Lane::let_go);
            ledger.filling == 0 && ledger.lanes.iter().all(|lane| lane.post.is_none())
        })
    }

    /// Why the pool has ended, if not because it was to.
    pub(super) fn failure(&self) -> Option<Arc<Error>> {
        match &self.lock().phase {
            Phase::Over(cause) => cause.clone(),
            Phase::Open | Phase::Closed => None,
        }
    }

    /// Ends the workers, and whatever was not done.
    pub(super) fn terminate(&self) {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        let posts = ledger.end(None, &mut deliveries);
        drop(ledger);
        end_all(posts);
        self.deliver(deliveries);
        self.callbacks.close();
        self.sweeper.notify_all();
        self.bell.wake_all(&self.env);
        self.keeper.wake();
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// For the keeper: the worker at lane `index` has ended.
    pub(super) fn ended(&self, index: usize) {
        let mut deliveries = Vec::new();
        let mut ledger = self.lock();
        let Some(mut post) = ledger.lanes.get_mut(index).and_then(|lane| lane.post.take()) else { return };
        if post.process.is_alive() {
            ledger.lanes[index].post = Some(post);
            return;
        }
        self.keeper.unwatch(post.process.sentinel());
        post.take_answers(&mut deliveries);
        let (was_fit, pid) = (post.is_ready, post.process.id());
        let end = End::of(&mut post);
        let words = ledger.lanes[index].words.clone();
        ledger.give_back(&words, post, &end.cause(pid), &mut deliveries);
        ledger.unfit_in_a_row = if was_fit { 0 } else { ledger.unfit_in_a_row + end.weight() };
        let mut posts = Vec::new();
        if ledger.unfit_in_a_row >= UNFIT_LIMIT {
            posts = ledger.end(Some(Arc::new(end.into_error(pid))), &mut deliveries);
        }
        drop(ledger);
        end_all(posts);
        self.deliver(std::mem::take(&mut deliveries));
        self.fill_vacant(&mut deliveries);
        self.deliver(deliveries);
        self.sweeper.notify_all();
        self.bell.wake_all(&self.env);
    }

    /// Puts workers where there are none and should be; returns when to try again, if one could not be started.
    fn fill_vacant(&self, deliveries: &mut Deliveries) -> Option<Duration> {
        loop {
            let ledger = self.lock();
            let is_wanted = match ledger.phase {
                Phase::Open => self.settings.idle_timeout.is_none() || ledger.wants_workers(),
                Phase::Closed => !ledger.pending.is_empty(),
                Phase::Over(_) => false,
            };
            let vacant = ledger.lanes.iter().position(|lane| lane.post.is_none()).filter(|_| is_wanted)?;
            if let Some(rest) = ledger.refill.rest() {
                return Some(rest);
            }
            drop(ledger);
            if let Err(error) = self.fill(vacant) {
                let mut ledger = self.lock();
                let posts = ledger.could_not_fill(Arc::new(error), deliveries);
                drop(ledger);
                end_all(posts);
            }
        }
    }

    /// For the keeper: ends workers whose piece takes longer than it may, lets go those that have been idle for too long,
    /// and sees to it that there are some if there is work, and that somebody sweeps; returns when to look again.
    pub(super) fn tend(self: &Arc<Self>) -> Option<Duration> {
        let mut deliveries = Vec::new();
        let refill = self.fill_vacant(&mut deliveries);
        self.callbacks.start();
        let stranded = self.callbacks.are_stranded().then_some(RETRY_THREAD);
        let watch = self.watch();
        let mut ledger = self.lock();
        // Who is ready has said so; nobody else may be looking.
        ledger.take_answers(&mut deliveries);
        let limit = ledger.enforce_timeouts();
        let idle = self.settings.idle_timeout.and_then(|timeout| ledger.let_idle_go(timeout));
        ledger.feed(&mut deliveries);
        drop(ledger);
        self.deliver(deliveries);
        [limit, idle, refill, stranded, watch].into_iter().flatten().min()
    }
}

/// Ends workers, all at once, and reaps them.
fn end_all(posts: Vec<Post>) {
    for post in &posts {
        // One that has just ended is reaped all the same.
        let _ = post.process.kill();
    }
    // Dropping a process reaps it.
    drop(posts);
}

/// A thread that sweeps, for as long as this lives.
pub(super) struct Waiting<'c>(&'c Arc<Crew>);

impl<'c> Waiting<'c> {
    fn new(crew: &'c Arc<Crew>) -> Self {
        crew.lock().waiting += 1;
        Self(crew)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut ledger = self.0.lock();
        ledger.waiting -= 1;
        if ledger.waiting == 0 && ledger.has_work() {
            self.0.rouse_sweeper(ledger);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::{Head, Kind};
    use super::*;
    use crate::{Event, Pool};

    #[test]
    fn a_worker_is_not_ended_for_a_call_that_it_has_answered() {
        let pool = Pool::new(1).unwrap();
        let events = [(); 3].map(|()| Event::new().unwrap());
        let [first_ends, second_runs, second_ends] = &events;
        let first = pool.submit(|ends: Event| ends.wait(), first_ends.clone()).unwrap();
        let wait = |(runs, ends): (Event, Event)| {
            runs.set();
            ends.wait();
        };
        let second = pool.submit(wait, (second_runs.clone(), second_ends.clone())).unwrap();
        let third = pool.submit(|n: u32| n + 1, 1).unwrap();
        while !first.is_running() {
            std::thread::yield_now();
        }
        let pids = pool.worker_pids();
        // With the lock, nobody takes answers: the first call still seems to run while the worker is at the second.
        let mut ledger = pool.crew.lock();
        first_ends.set();
        second_runs.wait();
        assert!(!ledger.end_worker((0, 0), Cause::TimedOut).unwrap());
        drop(ledger);
        second_ends.set();
        first.result().unwrap();
        second.result().unwrap();
        assert_eq!((third.result().unwrap(), pool.worker_pids()), (2, pids));
    }

    #[test]
    fn an_answer_out_of_its_turn_ends_the_worker_and_loses_nothing() {
        let pool = Pool::builder().workers(1).retries(1).build().unwrap();
        let go_on = Event::new().unwrap();
        for kind in [Kind::Items, Kind::TakenBack, Kind::Unread] {
            go_on.clear();
            let mut task = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
            while !task.is_running() {
                std::thread::yield_now();
            }
            let mut ledger = pool.crew.lock();
            let post = ledger.lanes[0].post.as_mut().unwrap();
            let slot = post.flying[0].slot + 1;
            post.answered(Head { slot, ..Head::new(kind, 1) }, &mut Vec::new());
            drop(ledger);
            go_on.set();
            let result = task.result_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(result, Some(()), "{kind:?}");
        }
    }

    #[test]
    fn a_piece_that_was_not_taken_back_is_not_answered_as_if_it_were() {
        let pool = Pool::builder().workers(1).retries(1).build().unwrap();
        let go_on = Event::new().unwrap();
        let mut task = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
        while !task.is_running() {
            std::thread::yield_now();
        }
        let mut ledger = pool.crew.lock();
        let post = ledger.lanes[0].post.as_mut().unwrap();
        let slot = post.flying[0].slot;
        post.answered(Head { slot, ..Head::new(Kind::TakenBack, 1) }, &mut Vec::new());
        drop(ledger);
        go_on.set();
        assert_eq!(task.result_timeout(Duration::from_secs(60)).unwrap(), Some(()));
    }

    #[test]
    fn an_answer_without_outcomes_is_corrupt() {
        let pool = Pool::new(1).unwrap();
        let go_on = Event::new().unwrap();
        let task = pool.submit(|go_on: Event| go_on.wait(), go_on.clone()).unwrap();
        while !task.is_running() {
            std::thread::yield_now();
        }
        let (mut deliveries, mut ledger) = (Vec::new(), pool.crew.lock());
        let post = ledger.lanes[0].post.as_mut().unwrap();
        let slot = post.flying[0].slot;
        post.answered(Head { slot, ..Head::new(Kind::Items, 1) }, &mut deliveries);
        drop(ledger);
        deliver(deliveries);
        let result = task.result();
        assert!(matches!(result, Err(Error::Corrupt)), "{result:?}");
        go_on.set();
    }
}

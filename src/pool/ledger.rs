//! What is pending and who has what: all that the pool's mutex guards.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::call::Key;
use super::lane::{self, Words};
use super::pending::Pending;
use super::piece::{Cause, Deliveries, Job, Piece, Reply};
use super::post::{Flying, Lane, Post};
use super::store::Store;
use crate::error::{Error, Result};

/// How often in a row a worker may fail to start, and the pause before the second attempt; each further one is twice as long.
const REFILL_ATTEMPTS: u32 = 8;
const REFILL_PAUSE: Duration = Duration::from_millis(8);
/// How often it is looked whether somebody sweeps.
const WATCH_PAUSE: Duration = Duration::from_millis(50);
/// How often the time of a running piece is looked at.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) lanes: Vec<Lane>,
    /// Where the large items of pieces lie.
    pub(super) store: Arc<Store>,
    pub(super) pending: Pending,
    /// Threads inside `wait_until`.
    pub(super) waiting: usize,
    /// Threads that sweep or sleep until there is something to sweep: those, and the pool's own.
    pub(super) driving: usize,
    /// How often somebody has looked through the rings.
    pub(super) sweeps: u64,
    /// Lanes that are about to have a worker.
    pub(super) filling: usize,
    pub(super) sweeper: Sweeper,
    pub(super) phase: Phase,
    /// Whether the sweeper has been started.
    pub(super) has_sweeper: bool,
    /// While it has not been, or could not be.
    pub(super) watch: Watch,
    pub(super) next_job: u32,
    /// Jobs that need no context, by function.
    pub(super) known: HashMap<Key, Arc<Job>>,
    pub(super) unfit_in_a_row: u32,
    pub(super) refill: Backoff,
}

/// When a worker may be started again, after some could not be.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// How long not yet.
    pub(super) fn rest(&self) -> Option<Duration> {
        let rest = self.not_before?.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// Notes another failure; returns whether there have been too many.
    fn fail(&mut self) -> bool {
        self.failures = (self.failures + 1).min(REFILL_ATTEMPTS);
        self.not_before = Some(Instant::now() + REFILL_PAUSE * (1 << (self.failures - 1)));
        self.failures == REFILL_ATTEMPTS
    }
}

/// How the keeper sees to it that work is looked after.
#[derive(Debug)]
pub(super) struct Watch {
    /// It looks again before long, and need not be woken for new work.
    pub(super) is_on: bool,
    /// When it looked.
    since: Instant,
    /// How often somebody had swept by then, if there was work.
    seen: Option<u64>,
}

impl Default for Watch {
    /// Before there is any work: a pool that does not live longer than a pause wakes nobody.
    fn default() -> Self {
        Self { is_on: true, since: Instant::now(), seen: Some(u64::MAX) }
    }
}

/// What the pool's own thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweeper {
    /// It looks for answers, or was woken to.
    Awake,
    /// It looks again after a pause, and so may be left alone while others look.
    Naps,
    /// It is to be woken for new work.
    Sleeps,
}

#[derive(Debug, Clone)]
pub(super) enum Phase {
    Open,
    /// No more work is taken; what there is is done.
    Closed,
    /// Nothing is done any more.
    Over(Option<Arc<Error>>),
}

impl Ledger {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    pub(super) fn is_idle(&self) -> bool {
        let is_resting = |lane: &Lane| lane.post.as_ref().is_none_or(|post| post.flying.is_empty());
        self.pending.is_empty() && self.lanes.iter().all(is_resting)
    }

    /// Whether a piece waits for an answer; what was taken back does not.
    pub(super) fn has_work(&self) -> bool {
        let is_busy = |post: &Post| post.flying.iter().any(|flying| flying.piece.is_some());
        !self.pending.is_empty() || self.lanes.iter().filter_map(|lane| lane.post.as_ref()).any(is_busy)
    }

    /// For the keeper: whether there is work, and nobody has swept, or slept until there is something to, since it looked;
    /// and when to look again, unless there has been nothing to do for two looks.
    pub(super) fn watch(&mut self) -> (bool, Option<Duration>) {
        let rest = WATCH_PAUSE.saturating_sub(self.watch.since.elapsed());
        if !rest.is_zero() {
            return (false, Some(rest));
        }
        let seen = self.has_work().then_some(self.sweeps);
        let before = std::mem::replace(&mut self.watch.seen, seen);
        (self.watch.is_on, self.watch.since) = (seen.or(before).is_some(), Instant::now());
        (self.driving == 0 && seen.is_some() && seen == before, self.watch.is_on.then_some(WATCH_PAUSE))
    }

    /// Whether the sweeper is to be woken, because there is work; it is taken to be woken then.
    pub(super) fn rouses_sweeper(&mut self) -> bool {
        let is_wanted = match self.sweeper {
            Sweeper::Awake => false,
            Sweeper::Naps => self.waiting == 0,
            Sweeper::Sleeps => true,
        };
        if is_wanted {
            self.sweeper = Sweeper::Awake;
        }
        is_wanted
    }

    pub(super) fn has_answers(&self) -> bool {
        self.lanes.iter().filter_map(|lane| lane.post.as_ref()).any(|post| !post.answers.is_empty())
    }

    pub(super) fn take_answers(&mut self, deliveries: &mut Deliveries) -> bool {
        let mut found = false;
        for lane in &mut self.lanes {
            if let Some(post) = &mut lane.post {
                found |= post.take_answers(deliveries);
                post.unread.drain(..).for_each(|piece| self.pending.put_back(piece));
            }
        }
        found
    }

    /// Writes on what is partly sent; returns whether there was room for any of it.
    pub(super) fn send(&mut self) -> bool {
        let posts = self.lanes.iter_mut().filter_map(|lane| lane.post.as_mut());
        posts.fold(false, |moving, post| {
            let is_moving = post.send();
            post.announce();
            is_moving | moving
        })
    }

    /// Takes a new piece on, and gives it to a lane if it is its turn; returns its ticket, and whether an idle worker has all
    /// of it and needs nothing else of the pool to do it.
    pub(super) fn take_on(&mut self, mut piece: Box<Piece>, deliveries: &mut Deliveries) -> (u64, bool) {
        let ticket = self.pending.number(&mut piece);
        let lane = if self.pending.is_empty() { self.lane_for(&piece) } else { None };
        let Some(lane) = lane.map(|index| &mut self.lanes[index]) else {
            self.pending.push(piece);
            self.feed(deliveries);
            return (ticket, false);
        };
        // Most often: there is nothing else to be seen to. A room may turn out to be one that the worker cannot read.
        let is_easy = lane.flying() == 0 && piece.rooms.is_empty();
        lane.begin(piece);
        let is_whole = lane.post.as_mut().is_some_and(|post| {
            post.announce();
            post.outbox.is_empty()
        });
        (ticket, is_easy && is_whole)
    }

    /// Gives out what is pending, one piece to each lane in turn; what a busy lane has not begun goes to an idle one.
    pub(super) fn feed(&mut self, deliveries: &mut Deliveries) {
        self.withdraw();
        self.send();
        self.give_out(deliveries);
        // Once for all that each was given.
        self.lanes.iter_mut().filter_map(|lane| lane.post.as_mut()).for_each(Post::announce);
    }

    /// Tells the workers which segments of the store have been given up.
    pub(super) fn withdraw(&mut self) {
        for number in self.store.take_gone() {
            self.lanes.iter_mut().for_each(|lane| lane.withdraw(number));
        }
    }

    fn give_out(&mut self, deliveries: &mut Deliveries) {
        let needed = self.pending.first().map_or(1, |piece| u64::from(piece.items));
        for lane in &mut self.lanes {
            if lane.post.as_ref().is_some_and(|post| post.items_left < needed && post.flying.is_empty()) {
                lane.let_go();
            }
        }
        loop {
            if self.pending.is_empty() && !self.level() {
                return;
            }
            let Some((ticket, index)) = self.next_match() else { return };
            let (Some(piece), lane) = (self.pending.take(ticket), &mut self.lanes[index]) else { return };
            if piece.sink.is_cancelled() {
                piece.end(Reply::Lost(Cause::Cancelled), deliveries);
            } else {
                lane.begin(piece);
            }
        }
    }

    /// The ticket of the next pending piece that a lane has room for, and that lane.
    fn next_match(&self) -> Option<(u64, usize)> {
        if !self.lanes.iter().any(|lane| lane.has_room(1)) {
            return None;
        }
        for piece in self.pending.iter() {
            let lane = self.lane_for(piece);
            // One that is for a lane of its own is not in the way of those behind it.
            if lane.is_some() || piece.lane.is_none() {
                return Some((piece.ticket, lane?));
            }
        }
        None
    }

    /// A lane that has room for the piece: the one that it is for, or the one with the least to do.
    fn lane_for(&self, piece: &Piece) -> Option<usize> {
        if let Some(lane) = piece.lane {
            return self.lanes.get(lane).filter(|own| own.has_room(piece.items)).map(|_| lane);
        }
        let rooms = self.lanes.iter().enumerate().filter(|(_, lane)| lane.has_room(piece.items));
        rooms.min_by_key(|(_, lane)| lane.flying()).map(|(lane, _)| lane)
    }

    /// If a lane has nothing to do, takes the piece back that was submitted first, of those that another one has not begun;
    /// returns whether there was one.
    pub(super) fn level(&mut self) -> bool {
        let idle = self.lanes.iter().filter(|lane| lane.has_room(1) && lane.flying() == 0);
        let Some(room) = idle.map(Lane::room).max() else { return false };
        loop {
            let lanes = self.lanes.iter().enumerate();
            let movable =
                lanes.flat_map(|(index, lane)| lane.movable(room).map(move |(at, piece)| (piece.ticket, index, at)));
            let Some((_, index, at)) = movable.min() else { return false };
            let lane = &mut self.lanes[index];
            // If its worker is faster, it is movable no more.
            if let Some(piece) = lane.post.as_mut().and_then(|post| post.take_one_back(at, &lane.words)) {
                self.pending.put_back(piece);
                return true;
            }
        }
    }

    /// Whether there is more to do than there are workers.
    pub(super) fn wants_workers(&self) -> bool {
        let posts = self.lanes.iter().filter_map(|lane| lane.post.as_ref());
        let (workers, flying) = posts.fold((0, 0), |(workers, flying), post| (workers + 1, flying + post.flying.len()));
        !self.pending.is_empty() || flying > workers
    }

    /// Takes the pieces back that have not begun, of those that have these tickets, in ascending order.
    pub(super) fn take_back(&mut self, tickets: &[u64]) -> Vec<Box<Piece>> {
        let mut taken: Vec<_> = tickets.iter().filter_map(|&ticket| self.pending.take(ticket)).collect();
        if taken.len() < tickets.len() {
            let is_meant = |piece: &Piece| tickets.binary_search(&piece.ticket).is_ok();
            taken.extend(self.lanes.iter_mut().flat_map(|lane| lane.take_back(is_meant)));
        }
        taken
    }

    /// Takes all pieces back that have not begun.
    pub(super) fn take_all_back(&mut self) -> Vec<Box<Piece>> {
        let mut taken: Vec<_> = self.pending.take_all().collect();
        taken.extend(self.lanes.iter_mut().flat_map(|lane| lane.take_back(|_| true)));
        taken
    }

    /// Lane and place of the piece with this ticket, if a worker is at it, or was and has answered since answers were taken.
    pub(super) fn running(&self, ticket: u64) -> Option<(usize, usize)> {
        self.lanes.iter().enumerate().find_map(|(index, lane)| {
            let flying = &lane.post.as_ref()?.flying;
            // ORDERING: Relaxed. See `lane.rs`.
            let has_begun = |flying: &Flying| {
                flying.piece.is_some() && lane.words[usize::from(flying.slot)].load(Ordering::Relaxed) == lane::RUNNING
            };
            // It takes one after the other: what it had begun before has been answered.
            let at = flying.iter().rposition(has_begun)?;
            let is_it = flying[at].piece.as_ref().is_some_and(|piece| piece.ticket == ticket);
            is_it.then_some((index, at))
        })
    }

    /// Ends the worker that is at the piece at `at` of lane `index`, whose outcome is `cause` then; returns whether it was.
    /// What else it was given goes to others.
    pub(super) fn end_worker(&mut self, (index, at): (usize, usize), cause: Cause) -> Result<bool> {
        let lane = &mut self.lanes[index];
        let untouched = lane.take_back(|_| true);
        let is_ended = lane.post.as_mut().map_or(Ok(false), |post| post.end_at(at, cause));
        untouched.into_iter().for_each(|piece| self.pending.put_back(piece));
        is_ended
    }

    /// What a worker that has ended had not answered: what it had not begun goes to others, and what it had is lost, or
    /// tried again.
    pub(super) fn give_back(&mut self, words: &Words, post: Post, cause_of_death: &Cause, deliveries: &mut Deliveries) {
        post.unread.into_iter().for_each(|piece| self.pending.put_back(piece));
        for Flying { slot, piece } in post.flying {
            let Some(mut piece) = piece else { continue };
            if lane::advance(&words[usize::from(slot)], lane::TAKEN_BACK) {
                self.pending.put_back(piece);
            } else if let Some(cause) = piece.cause.take() {
                piece.end(Reply::Lost(cause), deliveries);
            } else if piece.retries > 0 && piece.in_transit.is_empty() {
                piece.retries -= 1;
                self.pending.put_back(piece);
            } else {
                std::mem::take(&mut piece.in_transit).lost();
                piece.end(Reply::Lost(cause_of_death.clone()), deliveries);
            }
        }
    }

    /// A worker could not be started. After some attempts, a second in all, the work fails that is for workers that are not
    /// there: all of it, and the pool ends, if there is none. Returns the workers, to be ended without the lock.
    pub(super) fn could_not_fill(&mut self, cause: Arc<Error>, deliveries: &mut Deliveries) -> Vec<Post> {
        if !self.refill.fail() {
            return Vec::new();
        }
        if self.lanes.iter().all(|lane| lane.post.is_none()) {
            return self.end(Some(cause), deliveries);
        }
        let is_hopeless = |piece: &&Piece| piece.lane.is_some_and(|lane| self.lanes[lane].post.is_none());
        let hopeless: Vec<_> = self.pending.iter().filter(is_hopeless).map(|piece| piece.ticket).collect();
        for piece in hopeless.into_iter().filter_map(|ticket| self.pending.take(ticket)) {
            piece.end(Reply::Lost(Cause::Unfit(Arc::clone(&cause))), deliveries);
        }
        Vec::new()
    }

    /// Ends everything; returns the workers, to be dropped without the lock.
    pub(super) fn end(&mut self, cause: Option<Arc<Error>>, deliveries: &mut Deliveries) -> Vec<Post> {
        if self.is_over() {
            return Vec::new();
        }
        let reason = cause.as_ref().map_or(Cause::Cancelled, |cause| Cause::Unfit(Arc::clone(cause)));
        self.phase = Phase::Over(cause);
        // Workers may still read what their pieces' rooms hold.
        self.store.close();
        for piece in self.pending.take_all() {
            piece.end(Reply::Lost(reason.clone()), deliveries);
        }
        let mut posts = Vec::new();
        for mut post in self.lanes.iter_mut().filter_map(|lane| lane.post.take()) {
            for piece in post.flying.drain(..).filter_map(|flying| flying.piece).chain(post.unread.drain(..)) {
                piece.end(Reply::Lost(reason.clone()), deliveries);
            }
            posts.push(post);
        }
        posts
    }

    /// Ends workers whose piece takes longer than it may; returns when to look again.
    pub(super) fn enforce_timeouts(&mut self) -> Option<Duration> {
        let (mut next, mut late) = (None, Vec::new());
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let Some(post) = &mut lane.post else { continue };
            let limit_of = |flying: &Flying| flying.piece.as_ref().and_then(|piece| piece.job.timeout);
            if post.flying.iter().any(|flying| limit_of(flying).is_some()) {
                next = Some(TICK);
            }
            let Some(at) = post.flying.iter().position(|flying| flying.piece.is_some()) else { continue };
            let flying = &mut post.flying[at];
            let (Some(limit), Some(piece)) = (limit_of(flying), &mut flying.piece) else { continue };
            // ORDERING: Relaxed. See `lane.rs`.
            if lane.words[usize::from(flying.slot)].load(Ordering::Relaxed) != lane::RUNNING {
                continue;
            }
            let begun = *piece.begun.get_or_insert_with(Instant::now);
            if begun.elapsed() >= limit && piece.cause.is_none() {
                late.push((index, at));
            }
        }
        for place in late {
            // One that answers in this moment is not late; one that has just ended is reaped all the same.
            let _ = self.end_worker(place, Cause::TimedOut);
        }
        next.or_else(|| self.pending.has_limited().then_some(TICK))
    }

    /// Lets go the workers that have had nothing to do for so long; returns when to look again.
    pub(super) fn let_idle_go(&mut self, timeout: Duration) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for lane in &mut self.lanes {
            let Some(post) = lane.post.as_ref().filter(|post| post.work.is_some()) else { continue };
            let rest = post.idle_since().map_or(timeout, |since| timeout.saturating_sub(since.elapsed()));
            if rest.is_zero() {
                lane.let_go();
            } else {
                next = Some(next.map_or(rest, |next| next.min(rest)));
            }
        }
        next
    }
}

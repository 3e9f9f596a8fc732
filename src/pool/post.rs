//! A lane as the pool sees it, and the worker at it.

use std::collections::{HashMap, VecDeque};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crosslane_core::WakeMode;
use crosslane_core::record::PopError;

use super::companion::{self, Taken};
use super::lane::{self, DEPTH, Failure, HEAD_BYTES, Head, Kind, PART_BYTES, RING_BYTES, Words};
use super::piece::{Cause, Deliveries, Job, Piece, Reply};
use super::store::{Room, Segment};
use super::task::Given;
use crate::Trusted;
use crate::error::{CodecError, Error, Result};
use crate::frame::{Blocking, Receiver};
use crate::place::Placed;
use crate::process::Process;
use crate::shm::record::{Reader, Writer};
use crate::shm::{Options, Record, Shared, Slab};
use crate::wire::Parcel;

/// How long a worker that has nothing else to do may take to begin a piece, before it goes to another one that is idle.
const STUCK: Duration = Duration::from_millis(100);
/// The memory of a piece's items that serves for its outcomes as well, at most.
const SMALL_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) work: Placed<Record<Trusted>>,
    pub(super) answers: Placed<Record<Trusted>>,
    pub(super) words: Placed<Shared<Words, Trusted>>,
    pub(super) post: Option<Post>,
    /// No worker has been at it.
    pub(super) is_fresh: bool,
}

/// A worker at its lane.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) process: Process<()>,
    /// `None` once the lane is closed, and the worker on its way out.
    pub(super) work: Option<Writer<Trusted>>,
    pub(super) answers: Reader<Trusted>,
    pub(super) companion: UnixStream,
    pub(super) receiver: Receiver,
    /// In the order in which they were sent, and will be answered.
    pub(super) flying: VecDeque<Flying>,
    pub(super) next_slot: u8,
    pub(super) outbox: VecDeque<Sending>,
    pub(super) inbox: Vec<u8>,
    /// Jobs that it has been told of and that have not ended, and whether it knows each of them, as far as is known.
    told: HashMap<u32, bool>,
    /// Segments of the store that it was lent and that were not withdrawn, and whether it has each of them, as far as is known.
    lent: HashMap<u32, bool>,
    /// Pieces that it has handed back because it could not read them.
    pub(super) unread: Vec<Box<Piece>>,
    /// The job that it was told of or given a piece of last; 0: none.
    last_told: u32,
    pub(super) items_left: u64,
    pub(super) is_ready: bool,
    /// When another piece came to be the first that flies, or none.
    turned: Instant,
    pub(super) unfit: Option<Failure>,
}

#[derive(Debug)]
pub(super) struct Flying {
    pub(super) slot: u8,
    /// `None`: taken back.
    pub(super) piece: Option<Box<Piece>>,
}

/// What is partly in the ring, or not yet: the last piece that flies, or something else that the worker is told.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) head: Head,
    pub(super) subject: Subject,
    pub(super) offset: usize,
}

/// What is being sent.
#[derive(Debug)]
pub(super) enum Subject {
    /// The piece of the head's slot.
    Piece,
    Job(Arc<Job>),
    Segment(Arc<Segment>),
    /// What the head says is all.
    Nothing,
}

impl Lane {
    pub(super) fn new(slab: &Slab<Trusted>) -> Result<Self> {
        // Taking part in the asymmetric mode's barriers costs a process some 10 ms when it begins.
        let options = Options::new().wake_mode(WakeMode::Fenced);
        let record = || Ok::<_, Error>(Placed::new(Record::in_slab(slab, RING_BYTES, &options)?));
        let words = Placed::new(Shared::in_slab(slab, Words::default())?);
        Ok(Self { work: record()?, answers: record()?, words, post: None, is_fresh: true })
    }

    pub(super) fn flying(&self) -> usize {
        self.post.as_ref().map_or(usize::MAX, |post| post.flying.len())
    }

    /// Whether a piece of so many items may be sent.
    pub(super) fn has_room(&self, items: u32) -> bool {
        self.room() >= u64::from(items)
    }

    /// The most items that a piece may have that is sent; 0: none may be.
    pub(super) fn room(&self) -> u64 {
        let open = |post: &&Post| post.flying.len() < DEPTH && post.outbox.is_empty() && post.work.is_some();
        self.post.as_ref().filter(open).map_or(0, |post| post.items_left)
    }

    /// Sends a piece on its way. There must be room.
    pub(super) fn begin(&mut self, mut piece: Box<Piece>) {
        let Some(post) = &mut self.post else { return };
        if post.last_told != piece.job.number && post.told.insert(piece.job.number, true) != Some(true) {
            let head = Head::new(Kind::Define, piece.job.number);
            post.outbox.push_back(Sending { head, subject: Subject::Job(Arc::clone(&piece.job)), offset: 0 });
        }
        for segment in piece.rooms.iter().map(Room::segment) {
            if post.lent.insert(segment.number(), true) != Some(true) {
                let head = Head::new(Kind::Lend, segment.number());
                post.outbox.push_back(Sending { head, subject: Subject::Segment(Arc::clone(segment)), offset: 0 });
            }
        }
        post.last_told = piece.job.number;
        (piece.begun, piece.cause) = (None, None);
        let slot = post.next_slot;
        post.next_slot = if usize::from(slot) + 1 == DEPTH { 0 } else { slot + 1 };
        // ORDERING: Relaxed. See `lane.rs`: the ring publishes the piece.
        self.words[usize::from(slot)].store(lane::QUEUED, Ordering::Relaxed);
        post.items_left = post.items_left.saturating_sub(u64::from(piece.items));
        let head = Head::new(Kind::Items, piece.job.number);
        let head = Head { slot, items: piece.items, tries_all: piece.job.tries_all, ..head };
        let moved = piece.parcel.depart();
        if !moved.is_empty() {
            piece.in_transit = moved;
        }
        if post.flying.is_empty() {
            post.turned = Instant::now();
        }
        let is_sent = post.outbox.is_empty() && post.send_whole(head, &piece.parcel);
        post.flying.push_back(Flying { slot, piece: Some(piece) });
        if !is_sent {
            post.outbox.push_back(Sending { head, subject: Subject::Piece, offset: 0 });
            post.send();
        }
    }

    /// Takes back what the worker has not begun, of the pieces that are wanted; in their order.
    pub(super) fn take_back(&mut self, is_wanted: impl Fn(&Piece) -> bool) -> Vec<Box<Piece>> {
        let Some(post) = &mut self.post else { return Vec::new() };
        let mut taken = Vec::new();
        for at in 0..post.flying.len() {
            if post.flying[at].piece.as_ref().is_some_and(|piece| is_wanted(piece)) {
                taken.extend(post.take_one_back(at, &self.words));
            }
        }
        taken
    }

    /// The pieces, with their places, that the worker has not begun and another might be given instead, of at most so many
    /// items. The first one it is about to begin; if it does not, it is stopped.
    pub(super) fn movable(&self, most: u64) -> impl Iterator<Item = (usize, &Piece)> {
        let is_free = move |piece: &&Piece| piece.lane.is_none() && u64::from(piece.items) <= most;
        self.post.iter().flat_map(move |post| {
            let skipped = usize::from(post.is_ready && !self.is_stuck(post));
            let flying = post.flying.iter().enumerate().skip(skipped).filter(|(_, flying)| self.is_queued(flying));
            flying.filter_map(move |(at, flying)| Some((at, flying.piece.as_deref().filter(is_free)?)))
        })
    }

    fn is_stuck(&self, post: &Post) -> bool {
        post.flying.front().is_some_and(|first| self.is_queued(first) && post.turned.elapsed() >= STUCK)
    }

    fn is_queued(&self, flying: &Flying) -> bool {
        // ORDERING: Relaxed. See `lane.rs`.
        self.words[usize::from(flying.slot)].load(Ordering::Relaxed) == lane::QUEUED
    }

    /// Tells the worker that a job has ended.
    pub(super) fn forget(&mut self, job: &Job) {
        if let Some(post) = &mut self.post
            && post.told.remove(&job.number).is_some()
        {
            post.last_told = 0;
            post.tell(Kind::Forget, job.number);
        }
    }

    /// Tells the worker that a segment of the store has been given up.
    pub(super) fn withdraw(&mut self, number: u32) {
        if let Some(post) = &mut self.post
            && post.lent.remove(&number).is_some()
        {
            post.tell(Kind::Withdraw, number);
        }
    }

    /// Closes the lane of a worker that is to leave once it has nothing to do.
    pub(super) fn let_go(&mut self) {
        if let Some(post) = &mut self.post {
            post.work = None;
        }
    }
}

impl Post {
    pub(super) fn new(
        process: Process<()>,
        work: Writer<Trusted>,
        answers: Reader<Trusted>,
        companion: UnixStream,
        items_left: u64,
    ) -> Self {
        Self {
            process,
            work: Some(work),
            answers,
            companion,
            receiver: Receiver::default(),
            flying: VecDeque::with_capacity(DEPTH),
            next_slot: 0,
            outbox: VecDeque::new(),
            inbox: Vec::new(),
            told: HashMap::new(),
            lent: HashMap::new(),
            unread: Vec::new(),
            last_told: 0,
            items_left,
            is_ready: false,
            turned: Instant::now(),
            unfit: None,
        }
    }

    /// Takes the piece at `at` back, if it is there and has not begun.
    pub(super) fn take_one_back(&mut self, at: usize, words: &Words) -> Option<Box<Piece>> {
        let flying = self.flying.get_mut(at)?;
        let piece = flying.piece.take_if(|_| lane::advance(&words[usize::from(flying.slot)], lane::TAKEN_BACK))?;
        self.items_left = self.items_left.saturating_add(u64::from(piece.items));
        Some(piece)
    }

    /// Ends the worker if it is at the piece at `at`, whose outcome `cause` is then; returns whether it was. Nothing else
    /// is lost by that if all has been taken back that had not begun: then it begins nothing any more, and the last of what
    /// it had begun is what it is at. All before that is answered, and it leaves no answer out.
    pub(super) fn end_at(&mut self, at: usize, cause: Cause) -> Result<bool> {
        if self.flying.iter().rposition(|flying| flying.piece.is_some()) != Some(at) {
            return Ok(false);
        }
        self.process.kill()?;
        self.work = None;
        if let Some(piece) = &mut self.flying[at].piece {
            piece.cause = Some(cause);
        }
        Ok(true)
    }

    /// Since when it has had nothing to do, if it has nothing.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.is_ready && self.work.is_some() && self.flying.is_empty() && self.outbox.is_empty();
        is_idle.then_some(self.turned)
    }

    /// Tells the worker something that needs no more than a head.
    fn tell(&mut self, kind: Kind, number: u32) {
        self.outbox.push_back(Sending { head: Head::new(kind, number), subject: Subject::Nothing, offset: 0 });
        self.send();
        self.announce();
    }

    /// Writes a piece that is short and has no descriptors, if there is room for it; `false`: it is to go through the outbox.
    fn send_whole(&mut self, head: Head, parcel: &Parcel) -> bool {
        let is_simple = parcel.fds.is_empty() && parcel.bytes.len() <= PART_BYTES;
        is_simple && self.work.as_mut().is_some_and(|work| write(work, head, &parcel.bytes))
    }

    /// Writes what is to be sent, as far as there is room; returns whether anything was. A worker that sleeps is woken by
    /// [`announce`](Self::announce).
    pub(super) fn send(&mut self) -> bool {
        let mut is_moving = false;
        while let (Some(sending), Some(work)) = (self.outbox.front_mut(), &mut self.work) {
            let (socket, head) = (self.companion.as_fd(), &mut sending.head);
            let (body, are_beside) = match &sending.subject {
                Subject::Nothing => (&[][..], true),
                Subject::Segment(segment) => {
                    (&[][..], companion::send_on(socket, &[segment.as_fd()], head, Blocking::No))
                }
                Subject::Job(job) => (&job.definition[..], companion::send_on(socket, &job.fds, head, Blocking::No)),
                Subject::Piece => match piece_of(&self.flying, head.slot).map(|piece| &piece.parcel) {
                    Some(parcel) => (&parcel.bytes[..], companion::send_on(socket, &parcel.fds, head, Blocking::No)),
                    // Of a piece that was taken back, nothing more.
                    None => (&[][..], true),
                },
            };
            if !are_beside {
                break;
            }
            match (sending.head.is_torn, &sending.subject) {
                // The worker has it without its context. It is told anew with the next piece.
                (true, Subject::Job(_)) => {
                    lacks(&mut self.told, sending.head.number);
                    self.last_told = 0;
                }
                (true, Subject::Segment(segment)) => lacks(&mut self.lent, segment.number()),
                _ => {}
            }
            let rest = body.get(sending.offset..).unwrap_or_default();
            let (part, behind) = rest.split_at(rest.len().min(PART_BYTES));
            let head = Head { goes_on: !behind.is_empty(), ..sending.head };
            if !write(work, head, part) {
                break;
            }
            is_moving = true;
            sending.offset += part.len();
            if !head.goes_on {
                self.outbox.pop_front();
            }
        }
        is_moving
    }

    /// Wakes the worker if it sleeps and something was written for it.
    pub(super) fn announce(&mut self) {
        if let Some(work) = &mut self.work {
            work.batch().flush();
        }
    }

    pub(super) fn take_answers(&mut self, deliveries: &mut Deliveries) -> bool {
        let found = self.take_all_answers(deliveries);
        if found {
            self.turned = Instant::now();
        }
        found
    }

    fn take_all_answers(&mut self, deliveries: &mut Deliveries) -> bool {
        let mut found = false;
        loop {
            let record = match self.answers.try_read() {
                Ok(record) => record,
                Err(PopError::Empty | PopError::Closed | PopError::PeerDied(_)) => return found,
                Err(_) => {
                    self.work = None;
                    self.process.kill().ok();
                    return found;
                }
            };
            found = true;
            let (front, back) = record.as_slices();
            let joined;
            let whole = if back.is_empty() {
                front
            } else {
                joined = [front, back].concat();
                &joined
            };
            let head = Head::parse(whole).map(|(head, body)| {
                self.inbox.extend_from_slice(body);
                head
            });
            drop(record);
            match head {
                Some(head) if head.goes_on => {}
                Some(head) => {
                    self.answered(head, deliveries);
                    self.inbox.clear();
                }
                None => self.distrust(),
            }
        }
    }

    pub(super) fn answered(&mut self, head: Head, deliveries: &mut Deliveries) {
        match head.kind {
            Kind::Ready => self.is_ready = true,
            Kind::Unfit => self.unfit = postcard::from_bytes(&self.inbox).ok(),
            // It was not.
            Kind::TakenBack if self.flying.front().is_some_and(|first| first.piece.is_some()) => self.distrust(),
            Kind::Items | Kind::TakenBack => {
                if head.lacks_job {
                    lacks(&mut self.told, head.number);
                    self.last_told = 0;
                }
                let fds = self.fds(head);
                let Some(flying) = self.land(head.slot) else { return };
                // Nobody waits for what was taken back.
                let Some(mut piece) = flying.piece else { return };
                let bytes = self.outcomes_into(std::mem::take(&mut piece.parcel.bytes));
                let reply = match (piece.cause.take(), fds) {
                    // It was faster than the signal, but its caller was told.
                    (Some(cause), _) => Reply::Lost(cause),
                    (None, Some(fds)) => Reply::Items { has_failed: head.has_failed, bytes, fds },
                    (None, None) => Reply::Lost(Cause::FdLimit),
                };
                piece.end(reply, deliveries);
            }
            Kind::Unread => self.not_read(head),
            Kind::Define | Kind::Forget | Kind::Lend | Kind::Withdraw => self.distrust(),
        }
    }

    /// The bytes of an answer: in `memory`, where that of the piece's own items serves.
    fn outcomes_into(&mut self, mut memory: Vec<u8>) -> Vec<u8> {
        if memory.capacity() > SMALL_BYTES || self.inbox.len() > memory.capacity() {
            return std::mem::take(&mut self.inbox);
        }
        memory.clear();
        memory.extend_from_slice(&self.inbox);
        memory
    }

    /// The worker lacks a segment: it is lent again with the next piece in it, and this one travels through the ring.
    fn not_read(&mut self, head: Head) {
        let Some(flying) = self.land(head.slot) else { return };
        lacks(&mut self.lent, head.number);
        if let Some(mut piece) = flying.piece {
            self.items_left = self.items_left.saturating_add(u64::from(piece.items));
            piece.unstore();
            self.unread.push(piece);
        }
    }

    /// What has the word `slot` was answered: `None` if that is not its turn. Nothing is lost by such an answer: what flies
    /// comes back when the worker has ended.
    fn land(&mut self, slot: u8) -> Option<Flying> {
        let landed = self.flying.pop_front_if(|first| first.slot == slot);
        if landed.is_none() {
            self.distrust();
        }
        landed
    }

    /// The descriptors of an answer; `None` if some were lost.
    pub(super) fn fds(&mut self, head: Head) -> Option<Vec<OwnedFd>> {
        if head.fds == 0 && !head.is_torn {
            return Some(Vec::new());
        }
        match companion::take(&mut self.receiver, self.companion.as_fd(), &head) {
            Taken::All(fds) => Some(fds),
            Taken::Torn => None,
            Taken::Missing => {
                self.distrust();
                None
            }
        }
    }

    /// Ends a worker that does not keep to the protocol: something has written over its memory or the ring's.
    pub(super) fn distrust(&mut self) {
        self.work = None;
        // One that has just ended is reaped all the same.
        let _ = self.process.kill();
    }
}

/// Notes that the worker does not have the segment or know the job, which it may have been given again since it said so: it is
/// told of the end of that all the same.
fn lacks(given: &mut HashMap<u32, bool>, number: u32) {
    if let Some(has_it) = given.get_mut(&number) {
        *has_it = false;
    }
}

/// Writes a record, of which the worker is not told yet; `false` if there is no room.
fn write(work: &mut Writer<Trusted>, head: Head, part: &[u8]) -> bool {
    let mut batch = ManuallyDrop::new(work.batch());
    let Ok(mut record) = batch.try_reserve(HEAD_BYTES + part.len()) else { return false };
    record.copy_from(0, &head.to_bytes());
    record.copy_from(HEAD_BYTES, part);
    record.commit().is_ok()
}

/// The piece that has the word `slot`: most often the last one.
fn piece_of(flying: &VecDeque<Flying>, slot: u8) -> Option<&Piece> {
    flying.iter().rfind(|flying| flying.slot == slot)?.piece.as_deref()
}

/// How a worker ended.
pub(super) enum End {
    /// As it should.
    Left,
    Failed(Error),
}

impl End {
    pub(super) fn of(post: &mut Post) -> Self {
        if let Some(failure) = post.unfit.take() {
            let given = Given { argument: "the initializer's argument", context: "()" };
            return Self::Failed(failure.into_error(given, "the state"));
        }
        match post.process.join_timeout(Duration::ZERO) {
            Ok(_) => Self::Left,
            Err(error) => Self::Failed(error),
        }
    }

    /// How much it says against the next worker, if this one had not come up: a failure of its own will come again, of
    /// being killed one does not know.
    pub(super) fn weight(&self) -> u32 {
        match self {
            Self::Failed(Error::Died { status, .. }) if status.signal() == Some(libc::SIGKILL) => 1,
            _ => 10,
        }
    }

    /// What it is to the piece that the worker was at.
    pub(super) fn cause(&self, pid: u32) -> Cause {
        match self {
            Self::Failed(Error::Died { pid, status }) => Cause::Died { pid: *pid, status: *status },
            Self::Failed(Error::Panicked(report)) => Cause::Panicked(report.clone()),
            _ => Cause::Died { pid, status: ExitStatus::default() },
        }
    }

    pub(super) fn into_error(self, pid: u32) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Left => Error::Died { pid, status: ExitStatus::default() },
        }
    }
}

impl Failure {
    /// The error that it is for the caller.
    pub(super) fn into_error(self, given: Given, result: &'static str) -> Error {
        match self {
            Self::Panicked(report) => Error::Panicked(Box::new(report)),
            Self::Argument(reason) => Error::Decode { type_name: given.argument, reason: CodecError(reason) },
            Self::Context(reason) => Error::Decode { type_name: given.context, reason: CodecError(reason) },
            Self::Result(reason) => Error::Encode { type_name: result, reason: CodecError(reason) },
            Self::FdLimit => Error::FdLimit,
            Self::TooLarge { len_bytes, limit_bytes } => Error::TooLarge { len_bytes, limit_bytes },
            Self::BuildMismatch => Error::NotPortable,
            Self::Other { pid, message } => Error::Refused { pid, message },
        }
    }
}

/// Throws away what a ring holds.
pub(super) fn drain(mut ring: Reader<Trusted>) {
    while let Ok(record) = ring.try_read() {
        drop(record);
    }
}

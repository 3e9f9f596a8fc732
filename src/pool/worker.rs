//! The worker's side: what its process runs from beginning to end.

use std::collections::HashMap;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crosslane_core::WakeMode;
use crosslane_core::event::EventWord;
use crosslane_sync::spin;
use serde::{Deserialize, Serialize};

use super::call::{Bench, Call, Context, Out, Resolved};
use super::companion::{self, Taken};
use super::interrupts;
use super::lane::{self, Carried, Ends, FAILED, Failure, Head, Item, Kind, PART_BYTES, Words};
use super::store::Loans;
use crate::Trusted;
use crate::blob::Blob;
use crate::error::{CodecError, Error};
use crate::frame::{Blocking, Receiver};
use crate::place::Placed;
use crate::process::report;
use crate::shm::record::{Reader, Writer};
use crate::shm::{Env, Shared};
use crate::wire::{self, InTransit, Packer};

/// What a worker is started with.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) ends: Ends,
    pub(super) initializer: Option<Initializer>,
    /// The longest result, less than [`FAILED`].
    pub(super) max_result_bytes: u32,
    /// There are more workers than CPUs.
    pub(super) is_crowded: bool,
}

/// How a worker makes its state.
#[derive(Serialize, Deserialize)]
pub(super) struct Initializer {
    pub(super) call: Call,
    pub(super) config: Carried,
}

/// What a job is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) call: Call,
    /// The job's context, encoded.
    pub(super) context: Blob<u8>,
}

/// The pool is gone, or has closed the lane.
struct Over;

struct Worker {
    work: Reader<Trusted>,
    answers: Writer<Trusted>,
    words: Placed<Shared<Words, Trusted>>,
    bell: Placed<Shared<EventWord, Trusted>>,
    env: Env,
    companion: UnixStream,
    receiver: Receiver,
    bench: Bench,
    max_result_bytes: u32,
    jobs: HashMap<u32, Job>,
    loans: Loans,
    /// The outcomes of a piece, kept for the memory.
    out: Vec<u8>,
}

struct Job {
    /// `None` for a function of another build.
    call: Option<Resolved>,
    context: Context,
}

/// The function that a worker's process is started with. Returns when the pool closes the lane or is gone.
pub(super) fn work(setup: Setup) {
    interrupts::ignore();
    let Setup { ends, initializer, max_result_bytes, is_crowded } = setup;
    if is_crowded {
        spin::lower();
    }
    // What cannot be had here is not there because the pool is not either.
    if let Some(mut worker) = Worker::new(ends, max_result_bytes) {
        let (Ok(()) | Err(Over)) = worker.start(initializer).and_then(|()| worker.serve());
    }
}

impl Worker {
    fn new(ends: Ends, max_result_bytes: u32) -> Option<Self> {
        Some(Self {
            work: ends.work.reader().ok()?,
            answers: ends.answers.writer().ok()?,
            env: ends.bell.segment().env()?,
            words: ends.words,
            bell: ends.bell,
            companion: ends.companion.into_socket(),
            receiver: Receiver::default(),
            bench: Bench::default(),
            max_result_bytes,
            jobs: HashMap::new(),
            loans: Loans::default(),
            out: Vec::new(),
        })
    }

    /// Makes the state, and says so.
    fn start(&mut self, initializer: Option<Initializer>) -> Result<(), Over> {
        let made = initializer.map_or(Ok(()), |initializer| make_state(&mut self.bench, initializer));
        match made {
            Ok(()) => self.answer(Head::new(Kind::Ready, 0), &[]),
            Err(failure) => {
                let failure = postcard::to_stdvec(&failure).map_err(|_| Over)?;
                self.answer(Head::new(Kind::Unfit, 0), &failure)?;
                Err(Over)
            }
        }
    }

    fn serve(&mut self) -> Result<(), Over> {
        let mut piece = Vec::new();
        loop {
            piece = wire::recycled(piece);
            let head = self.take(&mut piece)?;
            match head.kind {
                Kind::Define => self.define(head, &piece)?,
                Kind::Forget => drop(self.jobs.remove(&head.number)),
                Kind::Items => self.items(head, &piece)?,
                Kind::Lend => {
                    let fd = self.fds(head)?.and_then(|mut fds| fds.pop());
                    self.loans.lend(head.number, fd);
                }
                Kind::Withdraw => self.loans.withdraw(head.number),
                Kind::TakenBack | Kind::Ready | Kind::Unfit | Kind::Unread => return Err(Over),
            }
        }
    }

    /// Takes the next piece out of the ring, all parts of it.
    fn take(&mut self, piece: &mut Vec<u8>) -> Result<Head, Over> {
        loop {
            let record = self.work.read().map_err(|_| Over)?;
            let (front, back) = record.as_slices();
            let head = if back.is_empty() {
                let (head, body) = Head::parse(front).ok_or(Over)?;
                piece.extend_from_slice(body);
                head
            } else {
                let joined = [front, back].concat();
                let (head, body) = Head::parse(&joined).ok_or(Over)?;
                piece.extend_from_slice(body);
                head
            };
            drop(record);
            if !head.goes_on {
                return Ok(head);
            }
            // There is room for another part.
            self.bell.wake(1, WakeMode::Fenced, &self.env);
        }
    }

    fn define(&mut self, head: Head, piece: &[u8]) -> Result<(), Over> {
        let Some(fds) = self.fds(head)? else {
            self.jobs.remove(&head.number);
            return Ok(());
        };
        let Definition { call, context } = postcard::from_bytes(piece).map_err(|_| Over)?;
        let context = Context::new(context.0, fds);
        self.jobs.insert(head.number, Job { call: call.resolve(), context });
        Ok(())
    }

    /// The descriptors that belong to a piece; `None` if some were lost.
    fn fds(&mut self, head: Head) -> Result<Option<Vec<OwnedFd>>, Over> {
        let taken = companion::take(&mut self.receiver, self.companion.as_fd(), &head);
        if head.fds > 0 {
            // There is room for more.
            self.bell.wake(1, WakeMode::Fenced, &self.env);
        }
        match taken {
            Taken::All(fds) => Ok(Some(fds)),
            Taken::Torn => Ok(None),
            Taken::Missing => Err(Over),
        }
    }

    fn items(&mut self, head: Head, piece: &[u8]) -> Result<(), Over> {
        let fds = self.fds(head)?;
        if let Some(number) = self.loans.missing_of(lane::addresses(piece)) {
            return self.answer(Head { kind: Kind::Unread, number, fds: 0, is_torn: false, ..head }, &[]);
        }
        let word = self.words.get(usize::from(head.slot)).ok_or(Over)?;
        if !lane::advance(word, lane::RUNNING) {
            return self.answer(Head { kind: Kind::TakenBack, fds: 0, is_torn: false, ..head }, &[]);
        }
        // Of a job whose descriptors were lost nothing is known.
        let (Some(fds), Some(job)) = (fds, self.jobs.get_mut(&head.number)) else {
            let lacks_job = !self.jobs.contains_key(&head.number);
            return self.answer(Head { fds: 0, is_torn: true, lacks_job, ..head }, &[]);
        };
        let mut out = mem::take(&mut self.out);
        let (bench, loans) = (&mut self.bench, &self.loans);
        let max_result_bytes = self.max_result_bytes;
        let (has_failed, parcel) = wire::unpack_many(fds, || {
            wire::pack_many(|packer| {
                let mut run = Run { job, bench, loans, packer, out: &mut out, max_result_bytes };
                run.all(head, piece)
            })
        });
        let lacks_job = job.context.is_lost();
        let mut head = Head { has_failed, fds: 0, lacks_job, ..head };
        companion::send_on(self.companion.as_fd(), &parcel.fds, &mut head, Blocking::Yes);
        let answered = self.answer(head, if head.is_torn { &[] } else { &out });
        // An end that is not claimed over there stays this process's until it ends.
        let _: InTransit = parcel.sent();
        self.out = wire::recycled(out);
        if lacks_job {
            self.jobs.remove(&head.number);
        }
        answered
    }

    fn answer(&mut self, head: Head, body: &[u8]) -> Result<(), Over> {
        let mut rest = body;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(PART_BYTES));
            let bytes = Head { goes_on: !behind.is_empty(), ..head }.to_bytes();
            let mut record = self.answers.reserve(bytes.len() + part.len()).map_err(|_| Over)?;
            record.copy_from(0, &bytes);
            record.copy_from(bytes.len(), part);
            record.commit().map_err(|_| Over)?;
            self.bell.wake(1, WakeMode::Fenced, &self.env);
            if behind.is_empty() {
                return Ok(());
            }
            rest = behind;
        }
    }
}

/// The items of one piece.
struct Run<'a, 'p> {
    job: &'a mut Job,
    bench: &'a mut Bench,
    loans: &'a Loans,
    packer: &'a mut Packer<'p>,
    out: &'a mut Vec<u8>,
    max_result_bytes: u32,
}

impl Run<'_, '_> {
    /// Runs the items; returns whether one failed.
    fn all(&mut self, head: Head, piece: &[u8]) -> bool {
        let (mut rest, mut has_failed) = (piece, false);
        for _ in 0..head.items {
            let loans = self.loans;
            let is_ok = match lane::split_item(&mut rest) {
                Some(Item::Here(item)) => Some(self.one(item)),
                Some(Item::Stored(address)) => loans.read(address, |item| self.one(item)),
                None => None,
            };
            let Some(is_ok) = is_ok else { return true };
            has_failed |= !is_ok;
            if has_failed && !head.tries_all {
                break;
            }
        }
        has_failed
    }

    /// Runs one item and writes its outcome; `false` if it failed.
    fn one(&mut self, item: &[u8]) -> bool {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        let outcome = self.outcome(item).and_then(|()| self.result_len(start + 4));
        let is_ok = outcome.is_ok();
        let word = outcome.unwrap_or_else(|failure| {
            self.out.truncate(start + 4);
            // Of plain texts and numbers, which postcard can write.
            let mut failure = postcard::to_stdvec(&failure).unwrap_or_default();
            failure.truncate((FAILED - 1) as usize);
            self.out.extend_from_slice(&failure);
            FAILED | u32::try_from(failure.len()).unwrap_or(0)
        });
        self.out[start..start + 4].copy_from_slice(&word.to_le_bytes());
        is_ok
    }

    /// The length of the result that begins at `start`, if it may be so long.
    fn result_len(&self, start: usize) -> Result<u32, Failure> {
        let (len_bytes, limit_bytes) = ((self.out.len() - start) as u64, u64::from(self.max_result_bytes));
        let len = u32::try_from(len_bytes).ok().filter(|_| len_bytes <= limit_bytes);
        len.ok_or(Failure::TooLarge { len_bytes, limit_bytes })
    }

    fn outcome(&mut self, item: &[u8]) -> Result<(), Failure> {
        let Some(call) = &self.job.call else { return Err(Failure::BuildMismatch) };
        let (context, bench, packer) = (&mut self.job.context, &mut *self.bench, &mut *self.packer);
        let bytes = &mut *self.out;
        let run = AssertUnwindSafe(|| call.run(bench, context, item, Out { bytes, packer }));
        let done =
            catch_unwind(run).unwrap_or_else(|payload| Err(Failure::Panicked(report::caught_and_dropped(payload))));
        done.inspect_err(|failure| context.note(failure))
    }
}

fn make_state(bench: &mut Bench, initializer: Initializer) -> Result<(), Failure> {
    let Initializer { call, config } = initializer;
    let call = call.resolve().ok_or(Failure::BuildMismatch)?;
    let (mut context, mut bytes) = (Context::default(), Vec::new());
    let made = catch_unwind(AssertUnwindSafe(|| {
        let (config, fds) = config.into_parts();
        wire::unpack_many(fds, || {
            let (made, _) =
                wire::pack_many(|packer| call.run(bench, &mut context, &config, Out { bytes: &mut bytes, packer }));
            made
        })
    }));
    match made {
        Ok(made) => made,
        Err(payload) => Err(Failure::Panicked(report::caught_and_dropped(payload))),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Decode { reason: CodecError(reason), .. } => Self::Argument(reason),
            Error::Encode { reason: CodecError(reason), .. } => Self::Result(reason),
            Error::FdLimit => Self::FdLimit,
            Error::TooLarge { len_bytes, limit_bytes } => Self::TooLarge { len_bytes, limit_bytes },
            error => Self::Other { pid: std::process::id(), message: error.to_string() },
        }
    }
}

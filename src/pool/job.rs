//! Maps: one function, many items, in pieces of several. How they are asked for: `ways.rs`; their results one by one: `imap.rs`.

mod imap;
mod sliding;
mod ways;

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use crosslane_sync::Deadline;

pub use self::imap::{Imap, ImapUnordered};
pub use self::ways::{Job, JobWith, JobWithState};

use self::sliding::Sliding;
use self::ways::Plan;

use super::call::Call;
use super::crew::Crew;
use super::draft::Draft;
use super::lane::DEPTH;
use super::piece::{self, Piece, Reply, Sink};
use super::task::{Given, outcomes, results_of};
use crate::error::{Error, Result};
use crate::wire::{self, Portable};

/// Pieces for each worker that a map makes, if nobody says: enough to level out what takes longer.
const PIECES_PER_WORKER: usize = 4;
/// Bytes at which a piece is long enough, if nobody says how many items it has.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces on their way for each worker, of a map that ends when all is done.
const DEEP_WINDOW: usize = DEPTH;
/// As many, of one whose results are taken one by one and that says nothing else, at its beginning.
const SHALLOW_WINDOW: usize = 2;
/// And at its widest: as many may have come before their turn as are on their way, so that one worker may sleep while another
/// goes on.
const WIDEST_WINDOW: usize = 2 * DEPTH;
/// If the results of a whole window come in less, it is widened: a worker that sleeps and is woken for each item costs more
/// than the items.
const QUICK: Duration = Duration::from_millis(1);
/// Bytes of arguments on their way, for each worker and in all, behind which no piece is made that is not needed to keep
/// the workers busy. Measured, of 1 MiB each: 4 or 64 MiB for a worker make no difference in time, only in memory.
const WINDOW_BYTES_PER_WORKER: usize = 4 << 20;
const WINDOW_BYTES: usize = 64 << 20;
/// Pieces for each worker that keep it busy whatever their length: it is at one while the next is made.
const BUSY_PIECES: usize = 2;

/// Replies of a job's pieces, as they come.
#[derive(Debug, Default)]
struct Basket {
    replies: Mutex<VecDeque<(usize, Reply)>>,
    is_cancelled: AtomicBool,
}

impl Basket {
    /// Puts all that have come into `replies`, which is empty.
    fn empty_into(&self, replies: &mut VecDeque<(usize, Reply)>) {
        std::mem::swap(&mut *self.replies.lock().unwrap_or_else(PoisonError::into_inner), replies);
    }

    fn is_empty(&self) -> bool {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Sink for Basket {
    fn done(&self, index: usize, reply: Reply) {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).push_back((index, reply));
    }

    fn is_cancelled(&self) -> bool {
        // ORDERING: Relaxed. A hint: whoever misses it runs what nobody wants.
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// Where a piece ends.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    items: usize,
    bytes: usize,
}

/// How much is on its way.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    items: usize,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    items: usize,
    pieces: usize,
    bytes: usize,
}

impl Window {
    fn new(crew: &Crew, items: usize, pieces: usize) -> Self {
        let bytes = crew.workers().saturating_mul(WINDOW_BYTES_PER_WORKER).min(WINDOW_BYTES);
        Self { items, pieces, bytes }
    }
}

/// How a window is widened that nobody has chosen: while results come quickly, by an item for each that is given to the
/// caller. So it doubles with each window of them, and no more than two items are asked for for each result.
#[derive(Debug)]
struct Growth {
    most: usize,
    /// How many items are still to be given of those that are timed, and since when they are.
    left: usize,
    since: Instant,
    is_quick: bool,
}

impl Growth {
    fn new(window: usize, most: usize) -> Self {
        Self { most, left: window, since: Instant::now(), is_quick: false }
    }

    /// What a window of so many items is from now on, as some more are given to the caller.
    fn widen(&mut self, window: usize, given: usize) -> usize {
        let widened = if self.is_quick { window.saturating_add(given).min(self.most) } else { window };
        self.left = self.left.saturating_sub(given);
        if self.left == 0 {
            self.is_quick = self.since.elapsed() < QUICK;
            (self.left, self.since) = (widened, Instant::now());
        }
        widened
    }
}

/// A map that runs: makes pieces out of items, and has their replies.
struct Stream<'p, I, R> {
    crew: Arc<Crew>,
    job: Arc<piece::Job>,
    basket: Arc<Basket>,
    /// What has been taken out of the basket.
    replies: VecDeque<(usize, Reply)>,
    /// `None` at their end.
    items: Option<I>,
    chunk: Chunk,
    /// What may be on its way at a time.
    window: Window,
    growth: Option<Growth>,
    /// A reply that is there goes before the next item, which may be long in coming.
    gives_first: bool,
    made: usize,
    received: usize,
    /// Items of the pieces that came before their turn: they count as on their way.
    held: usize,
    /// The pieces that are on their way, by index, with the tickets of those that were sent.
    under_way: Sliding<(Size, Option<u64>)>,
    /// All of them.
    load: Size,
    /// Why no more pieces are made, if not for the end of the items.
    failed: Option<Error>,
    /// This thread looks for replies whenever it makes no piece.
    is_attended: bool,
    progress: Option<Box<dyn FnMut(usize) + 'p>>,
    /// Items that have an outcome.
    done: usize,
    given: Given,
    result: PhantomData<fn() -> R>,
}

impl<'p, I: Iterator<Item: Portable>, R: Portable> Stream<'p, I, R> {
    fn whole(plan: Plan<'p>, call: Result<Call>, items: I, tries_all: bool) -> Result<Self> {
        let crew = plan.crew;
        let pieces = crew.workers() * PIECES_PER_WORKER;
        let known = items.size_hint().1;
        let chunk = match plan.chunk_size {
            Some(items) => Chunk { items, bytes: usize::MAX },
            None => {
                Chunk { items: known.map_or(usize::MAX, |items| items.div_ceil(pieces).max(1)), bytes: PIECE_BYTES }
            }
        };
        let window = Window::new(plan.crew, plan.window.unwrap_or(usize::MAX), plan.crew.workers() * DEEP_WINDOW);
        Self::new(plan, call, items, (tries_all, chunk, window))
    }

    fn lazy(plan: Plan<'p>, call: Result<Call>, items: I) -> Result<Self> {
        let chunk = Chunk { items: plan.chunk_size.unwrap_or(1), bytes: usize::MAX };
        let [shallow, widest] = [SHALLOW_WINDOW, WIDEST_WINDOW].map(|pieces| plan.crew.workers() * pieces);
        let [shallow, widest] = [shallow, widest].map(|pieces| chunk.items.saturating_mul(pieces));
        let window = Window::new(plan.crew, plan.window.unwrap_or(shallow), usize::MAX);
        let growth = plan.window.is_none().then(|| Growth::new(shallow, widest));
        let (least, most) = items.size_hint();
        let mut stream = Self::new(plan, call, items, (true, chunk, window))?;
        // Who knows how many items there are has them at hand: then the workers are kept busy while the caller has a result.
        stream.gives_first = most != Some(least);
        stream.growth = growth;
        Ok(stream)
    }

    fn new(
        plan: Plan<'p>,
        call: Result<Call>,
        items: I,
        (tries_all, chunk, window): (bool, Chunk, Window),
    ) -> Result<Self> {
        let crew = plan.crew;
        let job = Arc::new(crew.job(call?, plan.context?, tries_all, plan.retries, plan.timeout)?);
        Ok(Self {
            crew: Arc::clone(crew),
            job,
            basket: Arc::new(Basket::default()),
            replies: VecDeque::new(),
            items: Some(items),
            // A worker that is replaced after so many items is given no more at once.
            chunk: Chunk { items: chunk.items.min(crew.items_per_worker()), ..chunk },
            window,
            growth: None,
            gives_first: false,
            made: 0,
            received: 0,
            held: 0,
            under_way: Sliding::default(),
            load: Size::default(),
            failed: None,
            is_attended: false,
            progress: plan.progress,
            done: 0,
            given: Given::new::<I::Item>(plan.context_type),
            result: PhantomData,
        })
    }

    /// Sends pieces on their way until the window is full or the items end.
    fn fill(&mut self) {
        // A burst costs less than as many single pieces: it finds the workers awake. They have enough until then.
        if self.made - self.received > self.window.pieces / 2 {
            return;
        }
        while self.has_room() && self.items.is_some() && !(self.gives_first && self.has_reply()) {
            // What was made is on its way before the next item is asked for: that may depend on it.
            if let Err(error) = self.send() {
                self.failed = Some(error);
                self.items = None;
            }
        }
    }

    fn has_reply(&self) -> bool {
        !self.replies.is_empty() || !self.basket.is_empty()
    }

    fn has_room(&self) -> bool {
        let pieces = self.made - self.received;
        self.load.items + self.held < self.window.items
            && pieces < self.window.pieces
            && (self.load.bytes < self.window.bytes || pieces < self.crew.workers() * BUSY_PIECES)
    }

    /// Makes a piece of the next items, and sends it.
    fn send(&mut self) -> Result<()> {
        let Some(items) = &mut self.items else { return Ok(()) };
        let mut draft = Draft::new(self.crew.store());
        let most = self.chunk.items.min(self.window.items - self.load.items - self.held);
        let chunk = Chunk { items: most, ..self.chunk };
        let (is_end, parcel) = wire::pack_many(|packer| {
            while (draft.items() as usize) < chunk.items && draft.len_bytes() < chunk.bytes && draft.items() < u32::MAX
            {
                let Some(item) = items.next() else { return Ok(true) };
                draft.push(packer, &item)?;
            }
            Ok::<_, Error>(false)
        });
        let refused = match is_end {
            Ok(is_end) => {
                self.items.take_if(|_| is_end);
                None
            }
            Err(error) if self.job.tries_all => Some(error),
            Err(error) => return Err(error),
        };
        let count = draft.items();
        if count > 0 {
            let size = Size { items: count as usize, bytes: draft.len_bytes() };
            let sink: Arc<dyn Sink> = Arc::clone(&self.basket) as _;
            let mut piece = Piece::new(&self.job, sink, self.made, count, draft.finish(parcel));
            piece.is_attended = self.is_attended;
            let ticket = self.crew.submit(piece)?;
            self.note_made(size, Some(ticket));
        }
        if let Some(error) = refused {
            // It stands where the item would, like the outcome of a piece.
            self.basket.done(self.made, Reply::Refused(error));
            self.note_made(Size { items: 1, bytes: 0 }, None);
        }
        Ok(())
    }

    fn note_made(&mut self, size: Size, ticket: Option<u64>) {
        self.under_way.put(self.made, (size, ticket));
        self.load.items += size.items;
        self.load.bytes += size.bytes;
        self.made += 1;
    }

    /// The next reply that comes: which piece's, of how many items. `None` when all have come.
    fn receive(&mut self) -> Option<(usize, usize, Reply)> {
        match self.receive_until(Deadline::never()) {
            Poll::Ready(received) => received,
            Poll::Pending => None,
        }
    }

    /// As [`receive`](Self::receive); pending if none comes until the deadline.
    fn receive_until(&mut self, deadline: Deadline) -> Poll<Option<(usize, usize, Reply)>> {
        self.fill();
        if self.received == self.made {
            return Poll::Ready(None);
        }
        if self.replies.is_empty() {
            if !self.crew.wait_until(deadline, || !self.basket.is_empty()) {
                return Poll::Pending;
            }
            self.basket.empty_into(&mut self.replies);
        }
        let Some((index, reply)) = self.replies.pop_front() else { return Poll::Ready(None) };
        self.received += 1;
        let (Size { items, bytes }, _) = self.under_way.take(index).unwrap_or_default();
        self.load.items -= items;
        self.load.bytes -= bytes;
        self.done += items;
        if let Some(progress) = &mut self.progress {
            progress(self.done);
        }
        Poll::Ready(Some((index, items, reply)))
    }

    /// So many items are about to be given to the caller.
    fn note_given(&mut self, items: usize) {
        if let Some(growth) = &mut self.growth {
            self.window.items = growth.widen(self.window.items, items);
        }
    }

    /// All results in order, or the first error that is known.
    fn collect_all(mut self) -> Result<Vec<R>> {
        let crew = Arc::clone(&self.crew);
        let _attending = crew.attend();
        self.is_attended = true;
        let mut results = Vec::new();
        let mut early = Sliding::default();
        while let Some((index, items, reply)) = self.receive() {
            if reply.has_failed() {
                // It need not wait for earlier ones.
                outcomes::<R>(reply, items, self.given, |outcome| outcome.map(drop))?;
                return Err(Error::Corrupt);
            }
            early.put(index, (items, reply));
            while let Some((items, reply)) = early.pop_first() {
                outcomes(reply, items, self.given, |outcome| {
                    results.push(outcome?);
                    Ok(())
                })?;
            }
        }
        self.failed.take().map_or(Ok(results), Err)
    }

    /// A result or an error for each item, in order.
    fn collect_each(mut self) -> Result<Vec<Result<R>>> {
        let crew = Arc::clone(&self.crew);
        let _attending = crew.attend();
        self.is_attended = true;
        let mut pieces = BTreeMap::new();
        while let Some((index, items, reply)) = self.receive() {
            pieces.insert(index, results_of(reply, items, self.given));
        }
        self.failed.take().map_or_else(|| Ok(pieces.into_values().flatten().collect()), Err)
    }
}

impl<I, R> Drop for Stream<'_, I, R> {
    fn drop(&mut self) {
        if self.received < self.made {
            // ORDERING: Relaxed. A hint: see `is_cancelled`.
            self.basket.is_cancelled.store(true, Ordering::Relaxed);
            let tickets: Vec<_> = self.under_way.values().filter_map(|(_, ticket)| *ticket).collect();
            self.crew.take_back(&tickets);
        }
        self.crew.forget(&self.job);
    }
}

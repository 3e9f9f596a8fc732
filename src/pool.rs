//! Pools of worker processes: many calls of functions, each in some worker, and their results.
//!
//! | what | file |
//! |---|---|
//! | the pool, and how one is made | this one |
//! | maps over many items; their results one by one | `job.rs`; `job/imap.rs` |
//! | one call and its result | `task.rs` |
//! | several tasks | `completion.rs` |
//! | where callbacks run | `callbacks.rs` |
//! | the pool's side: who sweeps, who waits, what begins and ends | `crew.rs`, `keeper.rs` |
//! | what is pending, and who has what | `ledger.rs`, `pending.rs`, `piece.rs`, `post.rs` |
//! | items on their way: encoding them; where large ones lie | `draft.rs`; `store.rs`, `extents.rs` |
//! | the rings between pool and worker, and the descriptors beside them | `lane.rs`, `companion.rs` |
//! | the worker's side | `worker.rs`, `interrupts.rs` |
//! | functions and trampolines | `call.rs` |
//!
//! # A worker's death
//! loses the piece of work that it was at, which fails with [`Error::Died`] (or is tried again, as often as
//! [`retries`](PoolBuilder::retries) says), and nothing else: what was given to it and not begun goes to others, and a new
//! worker takes its place. A worker that does not come up three times in a row ends the pool with the reason. One that cannot
//! even be started is tried again for a second; after that, work that has no worker fails with the reason.
//!
//! # Where users' code runs
//! Items and progress in the thread that waits for the map; callbacks and wakers in a thread of the pool's for that
//! (`callbacks.rs`); all of it without a lock, and while the pool's work goes on.

#![expect(clippy::vec_box, reason = "a piece of work goes through many hands, in the box that it was made in")]

mod call;
mod callbacks;
mod companion;
mod completion;
mod crew;
mod draft;
mod extents;
mod interrupts;
mod job;
mod keeper;
mod lane;
mod ledger;
mod pending;
mod piece;
mod post;
mod store;
mod task;
mod worker;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crosslane_sync::Deadline;

pub use self::completion::{AsCompleted, WaitFor, as_completed, wait_tasks};
pub use self::job::{Imap, ImapUnordered, Job, JobWith, JobWithState};
pub use self::task::Task;

use self::call::{Call, Key};
use self::crew::{Crew, Settings};
use self::draft::Draft;
use self::piece::{Piece, Sink};
use self::store::Store;
use self::task::{Given, Slot};
use crate::error::{Error, Result};
use crate::process::cpu_count;
use crate::wire::{self, Portable};

/// Worker processes that run functions for this one.
///
/// **Dropping the pool ends it**: its workers are killed, and what they had not done is [`Error::Cancelled`]. To let it
/// finish: [`close`](Self::close), then [`join`](Self::join).
///
/// `S` is what each worker keeps between calls, made by the [initializer](PoolBuilder::initializer).
///
/// Threads may share a pool. Calls begin about in the order in which they were submitted, by whichever thread: a worker runs
/// what it was given in order, up to 32 pieces ahead, and one that has nothing to do takes the earliest that another has not
/// begun.
///
/// # Crash
/// A worker that dies, of whatever, loses the piece that it was at: one call, or as many items as
/// [`chunk_size`](Job::chunk_size) says. That fails with [`Error::Died`] or is tried again
/// ([`retries`](PoolBuilder::retries)); everything else goes to others, and a new worker takes its place. Where no worker
/// comes up any more, all fails with [`Error::NoWorkers`]. Workers end with this process, however it ends.
///
/// # What it costs
/// For each worker a process, three descriptors, and 260 KiB of shared memory; for the pool, a thread, a second one
/// from the first work that nobody waits for, and a few descriptors.
///
/// Arguments of 16 KiB and more lie in shared memory of their own, which is made when the first one comes, and which workers
/// read in place: so a `Vec<u8>`, a [`Blob`](crate::Blob) or a `String` is copied twice on its way, once by each side. While
/// any are under way it takes up to twice what they were at their most, in segments of at least 16 MiB with a descriptor each,
/// 64 at most, each of which stays for as long as something lies in it; of a pool that has nothing to do one such segment is
/// left, the pages of it that were used. Where there is no descriptor or
/// no memory for one, arguments travel through the workers' rings, more slowly.
///
/// # Examples
/// ```
/// use crosslane::Pool;
///
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.map(|x: u64| x * x, 0..5)?, [0, 1, 4, 9, 16]);
/// let task = pool.submit(|(a, b): (u32, u32)| a + b, (1, 2))?;
/// assert_eq!(task.result()?, 3);
/// # Ok::<(), crosslane::Error>(())
/// ```
#[must_use = "dropping a Pool ends its workers"]
pub struct Pool<S = ()> {
    crew: Arc<Crew>,
    state: PhantomData<fn() -> S>,
}

/// A [`Pool`] by the name that concurrent.futures gives it: [`submit`](Pool::submit), [`map`](Pool::map),
/// [`shutdown`](Pool::shutdown).
pub type Executor<S = ()> = Pool<S>;

/// How a [`Pool`] is made.
#[derive(Debug)]
#[must_use = "a builder makes nothing until it is built"]
pub struct PoolBuilder<S = ()> {
    workers: Option<usize>,
    items_per_worker: Option<u64>,
    idle_timeout: Option<Duration>,
    retries: u32,
    chunk_size: Option<usize>,
    name: String,
    max_result_bytes: u32,
    initializer: Option<Result<(Call, wire::Parcel)>>,
    state: PhantomData<fn() -> S>,
}

impl PoolBuilder<()> {
    fn new() -> Self {
        Self {
            workers: None,
            items_per_worker: None,
            idle_timeout: None,
            retries: 0,
            chunk_size: None,
            name: "worker".to_owned(),
            max_result_bytes: lane::FAILED - 1,
            initializer: None,
            state: PhantomData,
        }
    }

    /// Each worker begins with `function(config)`, and keeps what that returns, which need not travel, for
    /// [`map_state`](Pool::map_state) and [`submit_state`](Pool::submit_state).
    pub fn initializer<C: Portable, S: 'static>(self, function: fn(C) -> S, config: C) -> PoolBuilder<S> {
        let packed = Call::to_state(function).and_then(|call| Ok((call, wire::pack_for_several(&config)?)));
        let Self { workers, items_per_worker, idle_timeout, retries, chunk_size, name, max_result_bytes, .. } = self;
        PoolBuilder {
            workers,
            items_per_worker,
            idle_timeout,
            retries,
            chunk_size,
            name,
            max_result_bytes,
            initializer: Some(packed),
            state: PhantomData,
        }
    }
}

impl<S> PoolBuilder<S> {
    /// So many workers, 1 to 1,000; [`cpu_count`](crate::cpu_count), at most 1,000, if this is not called.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Replaces a worker that has been given so many items: for functions that leak.
    pub fn max_tasks_per_worker(mut self, items: u64) -> Self {
        self.items_per_worker = Some(items);
        self
    }

    /// Ends a worker that has had nothing to do for so long. Another one is started when there is work for it.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// How often what a worker was at when it died is tried again; 0 if this is not called. A call that has an effect
    /// outside may have it once for each try.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How many items go to a worker together, in maps that do not say it themselves by
    /// [`Job::chunk_size`]; 0 counts as 1.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items.max(1));
        self
    }

    /// The workers are called `{name}-0`, `{name}-1` and so on; `worker` if this is not called.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A call whose encoded result is longer than so many bytes fails with [`Error::TooLarge`], and nothing of it reaches this
    /// process; 2 GiB - 1 if this is not called, which is also the most.
    pub fn max_result_bytes(mut self, bytes: u32) -> Self {
        self.max_result_bytes = bytes.min(lane::FAILED - 1);
        self
    }

    /// Starts the workers. Returns when all are executed, not when they are ready: what is submitted waits for them.
    ///
    /// # Errors
    /// [`Error::BadPool`] for no workers, more than 1,000, or none of items for each; [`Error::Encode`] and
    /// [`Error::NotPortable`] for the initializer; else as [`ProcessBuilder::spawn`](crate::ProcessBuilder::spawn).
    pub fn build(self) -> Result<Pool<S>> {
        let workers = self.workers.unwrap_or_else(|| cpu_count().min(MAX_WORKERS));
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(Error::BadPool { what: "workers", found: workers as u64, least: 1, most: MAX_WORKERS as u64 });
        }
        let items_per_worker = self.items_per_worker.unwrap_or(u64::MAX);
        if items_per_worker == 0 {
            return Err(Error::BadPool { what: "items for each worker", found: 0, least: 1, most: u64::MAX });
        }
        let initializer = self.initializer.transpose()?;
        let Self { idle_timeout, retries, chunk_size, name, max_result_bytes, .. } = self;
        let crew = Crew::new(Settings {
            workers,
            items_per_worker,
            idle_timeout,
            retries,
            chunk_size,
            name,
            initializer,
            max_result_bytes,
        })?;
        Ok(Pool { crew, state: PhantomData })
    }
}

/// The most workers of a pool: less than a lease domain has participants.
const MAX_WORKERS: usize = 1000;

impl Pool {
    /// A pool of `workers`.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new(workers: usize) -> Result<Self> {
        Self::builder().workers(workers).build()
    }

    /// A pool of as many workers as there are CPUs for this process: [`cpu_count`](crate::cpu_count), at most 1,000.
    ///
    /// Not that of the trait [`Default`], which has no way to say that processes cannot be started.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    ///
    /// # Examples
    /// ```
    /// let pool = crosslane::Pool::default()?;
    /// assert_eq!(pool.size(), crosslane::cpu_count());
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "the trait's cannot fail, and starting processes can")]
    pub fn default() -> Result<Self> {
        Self::builder().build()
    }

    /// Says how the pool is to be.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }
}

impl<S: 'static> Pool<S> {
    /// Runs `function(argument)` in some worker and waits for its result.
    ///
    /// Blocks until the call has ended, behind what was submitted before. This thread spins for some microseconds, in which an
    /// idle worker answers, and then sleeps.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Task::result`].
    pub fn apply<A: Portable, R: Portable>(&self, function: fn(A) -> R, argument: A) -> Result<R> {
        // This thread will look for the answer, so nobody need be woken for that.
        let _attending = self.crew.attend();
        let job = self.crew.plain_job(Call::item_key(function), || Call::item(function))?;
        self.submit_piece(&job, &argument, None, true)?.result()
    }

    /// Has some worker run `function(argument)`. Does not block.
    ///
    /// Encodes the argument, and writes it to a worker if one has room: some microseconds for a short one. What no worker has
    /// room for is kept in memory, however much that is; [`imap`](Self::imap) keeps within a window.
    ///
    /// # Errors
    /// [`Error::Encode`] or another reason why the argument cannot travel, [`Error::PoolClosed`], [`Error::NoWorkers`],
    /// [`Error::NotPortable`].
    pub fn submit<A: Portable, R: Portable>(&self, function: fn(A) -> R, argument: A) -> Result<Task<R>> {
        let key = Call::item_key(function);
        self.submit_call::<A, R>(key, || Call::item(function), &argument)
    }

    /// Has some worker run `function(&mut state, argument)`. Does not block.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_state<A: Portable, R: Portable>(&self, function: fn(&mut S, A) -> R, argument: A) -> Result<Task<R>> {
        let key = Call::state_key(function);
        self.submit_call::<A, R>(key, || Call::state(function), &argument)
    }

    fn submit_call<A: Portable, R: Portable>(
        &self,
        key: Key,
        call: impl FnOnce() -> Result<Call>,
        argument: &A,
    ) -> Result<Task<R>> {
        let job = self.crew.plain_job(key, call)?;
        self.submit_piece(&job, argument, None, false)
    }

    /// Submits one item, for a worker or for that of a lane. For `is_attended` see [`Piece`].
    fn submit_piece<A: Portable, R: Portable>(
        &self,
        job: &Arc<piece::Job>,
        argument: &A,
        lane: Option<usize>,
        is_attended: bool,
    ) -> Result<Task<R>> {
        let slot = Slot::new();
        let mut piece = piece_of_one(self.crew.store(), job, argument, Arc::clone(&slot) as _)?;
        (piece.lane, piece.is_attended) = (lane, is_attended);
        Task::submit(&self.crew, piece, slot, Given::new::<A>("()"))
    }

    /// Runs `function(argument)` once in each worker, and waits for the results, in the workers' order.
    ///
    /// Blocks until each has done what it was given before, and this. For a worker that is being replaced its successor runs it.
    ///
    /// # Errors
    /// That of the first worker whose call failed. The others run to their end.
    pub fn broadcast<A: Portable, R: Portable>(&self, function: fn(A) -> R, argument: &A) -> Result<Vec<R>> {
        let _attending = self.crew.attend();
        let job = self.crew.plain_job(Call::item_key(function), || Call::item(function))?;
        let send = |lane| self.submit_piece(&job, argument, Some(lane), true);
        let tasks = (0..self.size()).map(send).collect::<Result<Vec<Task<R>>>>()?;
        tasks.into_iter().map(Task::result).collect()
    }

    /// `function` of each item, in the items' order. The items are read as the workers need them.
    ///
    /// Blocks until all is done. This thread encodes items and decodes results meanwhile. Items travel in pieces of several,
    /// since each piece costs as much as a single call does, whatever its length.
    ///
    /// # Errors
    /// That of the first item whose failure is known; what has not begun then is not begun. [`job`](Self::job) and
    /// [`map_all`](Job::map_all) for a result or an error for each.
    pub fn map<A: Portable, R: Portable>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.job().map(function, items)
    }

    /// As [`map`](Self::map), for functions of two arguments.
    ///
    /// # Errors
    /// As `map`.
    pub fn starmap<A: Portable, B: Portable, R: Portable>(
        &self,
        function: fn(A, B) -> R,
        items: impl IntoIterator<Item = (A, B)>,
    ) -> Result<Vec<R>> {
        self.job().starmap(function, items)
    }

    /// As [`map`](Self::map), for functions of the worker's state and an item.
    ///
    /// # Errors
    /// As `map`.
    pub fn map_state<A: Portable, R: Portable>(
        &self,
        function: fn(&mut S, A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.job().map_state(function, items)
    }

    /// The results one by one, in the items' order. Items are read as results are taken: at most a
    /// [window](Job::window) of them is on its way, twice as many as there are workers. Where the results of a window come, and
    /// are taken, in less than a millisecond, it is doubled, up to 64 for each worker.
    ///
    /// Does not block; `next` does, until the next item has an outcome, and begins with sending what the window has room for:
    /// nothing is sent, nor any item read, before the first. Items travel singly unless
    /// [`chunk_size`](Job::chunk_size) says otherwise. An error is that of its item alone: the results behind it come all the
    /// same.
    ///
    /// # Items that are long in coming
    /// `next` asks for items itself, one after the other until the window is full, so it also blocks for as long as that takes:
    /// - An iterator that does not know how many there will be (its `size_hint` says so: a channel's receiver, lines of a file,
    ///   `from_fn`, a filter) is asked only while there is nothing to give: a result that is there, of the next item in order,
    ///   is given first. One that comes while an item is waited for is given when that has come.
    ///   So workers may have nothing to do while the caller is long about a result; a longer [`window`](Job::window) helps, or a
    ///   vector of the items.
    /// - One that knows it (a range, a vector) is taken to have them at hand. The window is filled before a result is given, so
    ///   that workers have enough to do whatever the caller does between two results.
    /// - With [`window(1)`](Job::window) nothing is asked for before the result of the item before has been given, whatever the
    ///   iterator: an item may depend on all results that come before.
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// let (pool, last) = (crosslane::Pool::new(2)?, Cell::new(6_u64));
    /// let items = std::iter::from_fn(|| (last.get() != 1).then_some(last.get()));
    /// let step = |n: u64| if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
    /// for result in pool.job().window(1).imap(step, items) {
    ///     last.set(result?);
    /// }
    /// # assert_eq!(last.get(), 1);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    pub fn imap<A: Portable, R: Portable, I: IntoIterator<Item = A>>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> Imap<'_, I::IntoIter, R> {
        self.job().imap(function, items)
    }

    /// As [`imap`](Self::imap), in the order in which they come: nobody waits for an earlier item that takes longer. Whichever
    /// result is there is given before another item is asked for, where `imap` says so.
    pub fn imap_unordered<A: Portable, R: Portable, I: IntoIterator<Item = A>>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> ImapUnordered<'_, I::IntoIter, R> {
        self.job().imap_unordered(function, items)
    }

    /// Says how a map or a call is to be: chunk size, window, timeout, retries, progress. Nothing happens until it is given a
    /// function.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use crosslane::{Error, Pool};
    ///
    /// let pool = Pool::new(2)?;
    /// let nap = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    /// let naps = pool.job().chunk_size(1).timeout(Duration::from_millis(500)).map_all(nap, [1, 60_000, 1])?;
    /// assert!(matches!(naps[..], [Ok(()), Err(Error::TimedOut), Ok(())]));
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    pub fn job(&self) -> Job<'_, S> {
        Job::new(self)
    }

    /// A job whose function is given `context` with each item: what a closure would capture. It is sent once to each worker.
    ///
    /// It is encoded when it is given a function, and decoded in a worker when that comes to the first item. If that fails, as
    /// where a handle in it needs more memory or descriptors than the worker may have, it fails for this item, and is tried
    /// again with the next one.
    /// A worker keeps it until the job has ended. Single calls ([`submit`](JobWith::submit), [`apply`](JobWith::apply)) of one
    /// function are one job, for as long as this lives or one of them has no outcome.
    ///
    /// # Examples
    /// ```
    /// let (pool, factor) = (crosslane::Pool::new(2)?, 3);
    /// assert_eq!(pool.with(factor).map(|factor, n: u64| factor * n, 0..3)?, [0, 3, 6]);
    /// assert_eq!(pool.with(factor).starmap(|factor, a: u64, b: u64| factor * (a + b), [(1, 2)])?, [9]);
    /// let job = pool.with(factor);
    /// let tasks = (0..9).map(|n| job.submit(|factor, n: u64| factor * n, n)).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(tasks.into_iter().last().unwrap().result()?, 24);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    /// A capture is a compile error:
    /// ```compile_fail,E0308
    /// let (pool, factor) = (crosslane::Pool::new(2)?, 3);
    /// assert_eq!(pool.map(|n: u64| factor * n, 0..3)?, [0, 3, 6]);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    pub fn with<C: Portable>(&self, context: C) -> JobWith<'_, C, S> {
        JobWith::new(self, context)
    }

    /// A job whose function is given the worker's state with each item: what its [initializer](PoolBuilder::initializer) made.
    ///
    /// # Examples
    /// ```
    /// use std::collections::HashMap;
    /// use crosslane::Pool;
    ///
    /// let pool = Pool::builder().workers(2).initializer(|()| HashMap::<u64, u64>::new(), ()).build()?;
    /// let square = |known: &mut HashMap<u64, u64>, n: u64| *known.entry(n).or_insert_with(|| n * n);
    /// let squares = pool.with_state().imap(square, [3, 3, 4]).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(squares, [9, 9, 16]);
    /// # Ok::<(), crosslane::Error>(())
    /// ```
    pub fn with_state(&self) -> JobWithState<'_, S> {
        JobWithState::new(self)
    }

    /// No more work is taken on. What there is is done. Does not block; [`join`](Self::join) waits.
    pub fn close(&self) {
        self.crew.close();
    }

    /// Closes the pool, and waits until all is done, the workers have left, and the callbacks ([`Task::on_done`]) have
    /// returned; a callback that calls this does not wait for callbacks.
    ///
    /// Blocks for as long as that takes, and takes part in the pool's work meanwhile.
    ///
    /// # Errors
    /// [`Error::NoWorkers`] if the pool ended because none come up: then not all was done. What became of a call, its task says.
    pub fn join(&self) -> Result<()> {
        self.join_until(Deadline::never()).map(drop)
    }

    /// As [`join`](Self::join), for at most so long; `false` if there is still work, or a callback.
    ///
    /// # Errors
    /// As `join`.
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool> {
        self.join_until(Deadline::after(timeout))
    }

    fn join_until(&self, deadline: Deadline) -> Result<bool> {
        self.crew.close();
        let is_done = self.crew.finish(deadline) && self.crew.callbacks().wait_until_paid(deadline);
        self.crew.failure().map_or(Ok(is_done), |cause| Err(Error::NoWorkers(cause)))
    }

    /// Kills the workers. What they had not done is [`Error::Cancelled`].
    ///
    /// Returns when the kernel has ended them, which takes the longer the more memory they have.
    pub fn terminate(&self) {
        self.crew.terminate();
    }

    /// No more work is taken on; what has not begun is done all the same, or is [`Error::Cancelled`] if `cancel`. With
    /// `wait`, blocks as [`join`](Self::join) does; else not at all.
    ///
    /// # Errors
    /// As `join`, with `wait`.
    pub fn shutdown(&self, wait: bool, cancel: bool) -> Result<()> {
        self.crew.close();
        if cancel {
            self.crew.take_all_back();
        }
        if wait { self.join() } else { Ok(()) }
    }

    /// How many workers the pool has, or is about to have again: as many as it was made with.
    #[must_use]
    pub fn size(&self) -> usize {
        self.crew.workers()
    }

    /// The workers' process ids at the moment; one that is being replaced, or has left for want of work, is missing. Does not
    /// block.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.crew.pids()
    }
}

/// One item of a job.
fn piece_of_one<A: Portable>(
    store: &Arc<Store>,
    job: &Arc<piece::Job>,
    argument: &A,
    sink: Arc<dyn Sink>,
) -> Result<Box<Piece>> {
    let mut draft = Draft::new(store);
    let (packed, parcel) = wire::pack_many(|packer| draft.push(packer, argument));
    packed?;
    Ok(Piece::new(job, sink, 0, 1, draft.finish(parcel)))
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.crew.terminate();
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.crew.workers()).finish_non_exhaustive()
    }
}

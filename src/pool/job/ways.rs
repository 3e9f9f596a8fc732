//! Jobs before they run: what their functions are given beside an item, and the ways to run those.
//!
//! | made by | functions |
//! |---|---|
//! | `Pool::job` | `fn(A) -> R` |
//! | `Pool::with` | `fn(&C, A) -> R` |
//! | `Pool::with_state` | `fn(&mut S, A) -> R` |
//!
//! Each is a type of its own with the same methods, so that a call site says which functions it takes: from that the compiler
//! knows the types of a closure's parameters, which it does not by a bound on a type of functions.

use std::any::type_name;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::{Imap, ImapUnordered, Stream};
use crate::error::Result;
use crate::pool::call::{Call, Key};
use crate::pool::crew::Crew;
use crate::pool::task::{Given, OneOf, Slot, Task, User};
use crate::pool::{Pool, piece_of_one};
use crate::wire::{self, Parcel, Portable};

/// How a job is to be.
pub(super) struct Plan<'p> {
    pub(super) crew: &'p Arc<Crew>,
    /// What the function of a map is given with each item, encoded.
    pub(super) context: Result<Option<Parcel>>,
    pub(super) context_type: &'static str,
    pub(super) chunk_size: Option<usize>,
    pub(super) window: Option<usize>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: u32,
    pub(super) progress: Option<Box<dyn FnMut(usize) + 'p>>,
    known: Known,
}

/// The jobs of the functions that were called so, singly.
#[derive(Default)]
struct Known(RefCell<Vec<(Key, User)>>);

/// Calls of functions of an item, before they run: see [`Pool::job`].
#[derive(Debug)]
#[must_use = "a job does nothing until it is given a function and items"]
pub struct Job<'p, S = ()> {
    plan: Plan<'p>,
    functions: PhantomData<fn(&mut S)>,
}

/// Calls of functions of a context and an item, before they run: see [`Pool::with`].
#[derive(Debug)]
#[must_use = "a job does nothing until it is given a function and items"]
pub struct JobWith<'p, C, S = ()> {
    context: C,
    plan: Plan<'p>,
    functions: PhantomData<fn(&C, &mut S)>,
}

/// Calls of functions of the worker's state and an item, before they run: see [`Pool::with_state`].
#[derive(Debug)]
#[must_use = "a job does nothing until it is given a function and items"]
pub struct JobWithState<'p, S> {
    plan: Plan<'p>,
    functions: PhantomData<fn(&mut S)>,
}

macro_rules! plans {
    () => {
        /// So many items go to a worker together, and come back together; 0 counts as 1. If neither this says it nor
        /// [`PoolBuilder::chunk_size`](crate::PoolBuilder::chunk_size), a map makes four pieces for each worker, or pieces of
        /// 64 KiB, whichever are smaller; `imap` gives items singly.
        pub fn chunk_size(mut self, items: usize) -> Self {
            self.plan.chunk_size = Some(items.max(1));
            self
        }

        /// At most so many items are on their way at a time, or have a result that is not yet taken; 0 counts as 1. If nobody
        /// says, it is two pieces for each worker of an `imap`, and up to 64 once a window of results comes in less than a
        /// millisecond: so that little is read in vain where a result takes long, and no worker sleeps where it does not. It is
        /// 32 of a map that ends when all is done. Beyond 4 MiB of arguments for each worker, and 64 MiB in all, it is never
        /// more than two pieces for each.
        pub fn window(mut self, items: usize) -> Self {
            self.plan.window = Some(items.max(1));
            self
        }

        /// A piece that runs for longer fails with [`Error::TimedOut`](crate::Error::TimedOut), and its worker is ended
        /// (SIGKILL) and replaced.
        ///
        /// A piece is as many items as [`chunk_size`](Self::chunk_size) says, or a map makes of itself: all of them fail.
        /// Its time begins when the pool sees that its worker is at it, and the pool looks every 5 ms: so it may run some
        /// milliseconds longer, never shorter. It is not tried again, whatever [`retries`](Self::retries) says. What else the
        /// worker was given goes to others.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.plan.timeout = Some(timeout);
            self.plan.known = Known::default();
            self
        }

        /// How often a piece is tried again whose worker died; else as the pool was made.
        pub fn retries(mut self, retries: u32) -> Self {
            self.plan.retries = retries;
            self.plan.known = Known::default();
            self
        }

        /// Calls `progress` with the number of items that have an outcome, whenever there are more, in the thread that
        /// waits for the map. It may take its time and use the pool: other work goes on. Its panic is the map's.
        pub fn progress(mut self, progress: impl FnMut(usize) + 'p) -> Self {
            self.plan.progress = Some(Box::new(progress));
            self
        }

        /// Moves `bar` along with the items that have an outcome.
        #[cfg(feature = "indicatif")]
        pub fn progress_bar(self, bar: indicatif::ProgressBar) -> Self {
            self.progress(move |done| bar.set_position(done as u64))
        }
    };
}

/// The ways to run functions of what a job gives them and an item, which are made into calls so.
macro_rules! ways {
    ([$($given:ty)?], $call:ident, $call_of_two:ident, $key:ident, $docs:literal) => {
        #[doc = concat!("As [`Pool::apply`]", $docs, " Of the job's plan, its timeout and its retries matter.")]
        ///
        /// # Errors
        /// As `Pool::apply`, and [`Error::TimedOut`](crate::Error::TimedOut).
        pub fn apply<A: Portable, R: Portable>(&self, function: fn($($given,)? A) -> R, argument: A) -> Result<R> {
            let _attending = self.plan.crew.attend();
            self.submit(function, argument)?.result()
        }

        #[doc = concat!("As [`Pool::submit`]", $docs, " Of the job's plan, its timeout and its retries matter.")]
        ///
        /// # Errors
        /// As `Pool::submit`.
        pub fn submit<A: Portable, R: Portable>(
            &self,
            function: fn($($given,)? A) -> R,
            argument: A,
        ) -> Result<Task<R>> {
            self.plan.submit(Call::$key(function), || Call::$call(function), || self.pack(), &argument)
        }

        #[doc = concat!("As [`Pool::map`]", $docs)]
        ///
        /// # Errors
        /// As `Pool::map`.
        pub fn map<A: Portable, R: Portable>(
            self,
            function: fn($($given,)? A) -> R,
            items: impl IntoIterator<Item = A>,
        ) -> Result<Vec<R>> {
            Stream::whole(self.packed(), Call::$call(function), items.into_iter(), false)?.collect_all()
        }

        /// As [`map`](Self::map), with a result or an error for each item, in the items' order; also for one that cannot be
        /// encoded. All items are tried. With a worker that dies fail all items of the piece that it was at, also those that
        /// it was done with: [`chunk_size(1)`](Self::chunk_size) for that one item alone.
        ///
        /// # Errors
        /// [`Error::PoolClosed`](crate::Error::PoolClosed), [`Error::NoWorkers`](crate::Error::NoWorkers),
        /// [`Error::NotPortable`](crate::Error::NotPortable): then nothing is known of any item.
        pub fn map_all<A: Portable, R: Portable>(
            self,
            function: fn($($given,)? A) -> R,
            items: impl IntoIterator<Item = A>,
        ) -> Result<Vec<Result<R>>> {
            Stream::whole(self.packed(), Call::$call(function), items.into_iter(), true)?.collect_each()
        }

        /// As [`map`](Self::map), for functions of one argument more: an item is a pair.
        ///
        /// # Errors
        /// As `map`.
        pub fn starmap<A: Portable, B: Portable, R: Portable>(
            self,
            function: fn($($given,)? A, B) -> R,
            items: impl IntoIterator<Item = (A, B)>,
        ) -> Result<Vec<R>> {
            Stream::whole(self.packed(), Call::$call_of_two(function), items.into_iter(), false)?.collect_all()
        }

        /// As [`map_all`](Self::map_all), for functions of one argument more: an item is a pair.
        ///
        /// # Errors
        /// As `map_all`.
        pub fn starmap_all<A: Portable, B: Portable, R: Portable>(
            self,
            function: fn($($given,)? A, B) -> R,
            items: impl IntoIterator<Item = (A, B)>,
        ) -> Result<Vec<Result<R>>> {
            Stream::whole(self.packed(), Call::$call_of_two(function), items.into_iter(), true)?.collect_each()
        }

        #[doc = concat!("As [`Pool::imap`]", $docs)]
        pub fn imap<A: Portable, R: Portable, I: IntoIterator<Item = A>>(
            self,
            function: fn($($given,)? A) -> R,
            items: I,
        ) -> Imap<'p, I::IntoIter, R> {
            Imap::new(Stream::lazy(self.packed(), Call::$call(function), items.into_iter()))
        }

        #[doc = concat!("As [`Pool::imap_unordered`]", $docs)]
        pub fn imap_unordered<A: Portable, R: Portable, I: IntoIterator<Item = A>>(
            self,
            function: fn($($given,)? A) -> R,
            items: I,
        ) -> ImapUnordered<'p, I::IntoIter, R> {
            ImapUnordered::new(Stream::lazy(self.packed(), Call::$call(function), items.into_iter()))
        }

        /// The plan of a map.
        fn packed(self) -> Plan<'p> {
            Plan { context: self.pack(), ..self.plan }
        }
    };
}

impl<'p, S: 'static> Job<'p, S> {
    pub(in crate::pool) fn new(pool: &'p Pool<S>) -> Self {
        Self { plan: Plan::new::<()>(&pool.crew), functions: PhantomData }
    }

    plans!();

    ways!([], item, two, item_key, ".");

    fn pack(&self) -> Result<Option<Parcel>> {
        Ok(None)
    }

    /// As [`Pool::map_state`].
    ///
    /// # Errors
    /// As `Pool::map`.
    pub fn map_state<A: Portable, R: Portable>(
        self,
        function: fn(&mut S, A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        JobWithState { plan: self.plan, functions: PhantomData }.map(function, items)
    }
}

impl<'p, C: Portable, S: 'static> JobWith<'p, C, S> {
    pub(in crate::pool) fn new(pool: &'p Pool<S>, context: C) -> Self {
        Self { context, plan: Plan::new::<C>(&pool.crew), functions: PhantomData }
    }

    plans!();

    ways!([&C], context, context_two, context_key, ", for functions of the context and an item.");

    fn pack(&self) -> Result<Option<Parcel>> {
        wire::pack_for_several(&self.context).map(Some)
    }
}

impl<'p, S: 'static> JobWithState<'p, S> {
    pub(in crate::pool) fn new(pool: &'p Pool<S>) -> Self {
        Self { plan: Plan::new::<()>(&pool.crew), functions: PhantomData }
    }

    plans!();

    ways!([&mut S], state, state_two, state_key, ", for functions of the worker's state and an item.");

    fn pack(&self) -> Result<Option<Parcel>> {
        Ok(None)
    }
}

impl<'p> Plan<'p> {
    fn new<C>(crew: &'p Arc<Crew>) -> Self {
        let (context, context_type) = (Ok(None), type_name::<C>());
        let (chunk_size, retries, known) = (crew.chunk_size(), crew.retries(), Known::default());
        Self { crew, context, context_type, chunk_size, window: None, timeout: None, retries, progress: None, known }
    }

    /// Submits one call.
    fn submit<A: Portable, R: Portable>(
        &self,
        key: Key,
        call: impl FnOnce() -> Result<Call>,
        context: impl FnOnce() -> Result<Option<Parcel>>,
        argument: &A,
    ) -> Result<Task<R>> {
        let user = self.user(key, call, context)?;
        let (slot, given, job) = (Slot::new(), Given::new::<A>(self.context_type), Arc::clone(user.job()));
        let piece = piece_of_one(self.crew.store(), &job, argument, OneOf::new(user, &slot))?;
        Task::submit(self.crew, piece, slot, given)
    }

    /// A user of the job of a function that is called singly, which workers are told once.
    fn user(
        &self,
        key: Key,
        call: impl FnOnce() -> Result<Call>,
        context: impl FnOnce() -> Result<Option<Parcel>>,
    ) -> Result<User> {
        if let Some((_, user)) = self.known.0.borrow().iter().find(|(known, _)| *known == key) {
            return Ok(user.clone());
        }
        let job = self.crew.job(call()?, context()?, false, self.retries, self.timeout)?;
        let user = User::first(self.crew, job);
        self.known.0.borrow_mut().push((key, user.clone()));
        Ok(user)
    }
}

impl fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chunk_size, window, timeout, retries, .. } = self;
        f.debug_struct("Plan")
            .field("chunk_size", chunk_size)
            .field("window", window)
            .field("timeout", timeout)
            .field("retries", retries)
            .finish_non_exhaustive()
    }
}

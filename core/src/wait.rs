//! What this crate needs from its surroundings: to park and wake ([`Wait`]), and to know who is dead ([`Liveness`]).
//!
//! `crosslane-sync` implements `Wait` on futexes and `crosslane-shm` adds `Liveness` by leases. An embedder without an
//! operating system can use [`Spin`].

use core::cell::Cell;
use core::time::Duration;

use crate::owner::OwnerId;
use crate::prim::AtomicU32;

/// How the fence between "publish" and "look for sleepers" is paid for; fixed when an object is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WakeMode {
    /// Both sides fence. Costs the waker 6-7 ns for each operation and the sleeper nothing more.
    #[default]
    Fenced,
    /// The sleeper runs a process-wide barrier (`membarrier`) and the waker only a compiler fence. For rings whose
    /// throughput counts; interrupts the peers' CPUs at each sleep.
    Asymmetric,
    /// Nobody is ever woken: publishing costs nothing more, and a blocking call that has spun in vain looks again every
    /// millisecond. For peers that spin on CPUs of their own.
    Polling,
}

/// The longest time that a waiter may sleep before it looks again, by what it waits behind.
///
/// The slices bound what a kill between "publish" and "wake" can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// No store-load fence could be had: at most 1 ms.
    Short,
    /// A named participant must act first: at most 10 ms, then the caller probes it.
    Owner,
    /// Nobody in particular, but a death may be news: at most 1 s.
    Long,
    /// What nobody owns, so that no death changes it: at most 1 s. Only the word's own wake need end the sleep, which
    /// spares the kernel to watch for deaths.
    Unowned,
}

/// Why [`Wait::park`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// Woken, or the word had changed, or the slice is over, or for no reason: look again.
    Again,
    /// The deadline has passed.
    Expired,
}

/// Parking on a shared 32-bit word.
///
/// An implementation must make "the word still holds `expected`" and "this thread sleeps" one step with respect to
/// [`wake`](Wait::wake), as a futex does.
pub trait Wait {
    /// A point in time on a clock that only goes forward, or never.
    type Deadline: Copy;

    /// The deadline that never passes.
    fn never(&self) -> Self::Deadline;

    /// The deadline `timeout` from now. Saturates.
    fn after(&self, timeout: Duration) -> Self::Deadline;

    /// Sleeps while `word` holds `expected`, at most for `slice` and until `deadline`. May return early.
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked;

    /// Wakes at most `count` sleepers of `word`; returns how many were woken.
    fn wake(&self, word: &AtomicU32, count: u32) -> u32;

    /// How many pauses (15-17 ns each) are worth spending before a sleep; 0 where the peers have no CPU of their own.
    fn spins(&self) -> u32;

    /// Whether this process takes part in [`heavy_barrier`](Wait::heavy_barrier)s, so that its wakers need only a
    /// compiler fence. Must not change from `true` to `false` while a handle lives.
    fn in_heavy_barriers(&self) -> bool;

    /// A full barrier on every CPU that runs a thread of a process with [`in_heavy_barriers`](Wait::in_heavy_barriers);
    /// `false` if it could not be had, and the caller then sleeps in short slices.
    fn heavy_barrier(&self) -> bool;
}

/// Who this process is, and who is dead.
pub trait Liveness {
    /// This process's id in the domain; `None` in a child of a raw `fork()`, which has not joined.
    fn me(&self) -> Option<OwnerId>;

    /// Whether this process is `owner`, which it once was: `false` in a child of a raw `fork()`. Asked at each operation;
    /// override it where comparing a word is cheaper than reading an id.
    #[inline]
    fn is_still(&self, owner: OwnerId) -> bool {
        self.me() == Some(owner)
    }

    /// Whether `owner` is proven dead.
    ///
    /// `true` must be the truth for ever, and everything that `owner` stored must be visible to the caller
    /// afterwards. `false` promises nothing. May cost a system call: never called on a fast path.
    fn is_dead(&self, owner: OwnerId) -> bool;
}

impl<W: Wait + ?Sized> Wait for &W {
    type Deadline = W::Deadline;
    fn never(&self) -> Self::Deadline {
        (**self).never()
    }
    fn after(&self, timeout: Duration) -> Self::Deadline {
        (**self).after(timeout)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked {
        (**self).park(word, expected, slice, deadline)
    }
    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        (**self).wake(word, count)
    }
    fn spins(&self) -> u32 {
        (**self).spins()
    }
    fn in_heavy_barriers(&self) -> bool {
        (**self).in_heavy_barriers()
    }
    fn heavy_barrier(&self) -> bool {
        (**self).heavy_barrier()
    }
}

impl<L: Liveness + ?Sized> Liveness for &L {
    #[inline]
    fn me(&self) -> Option<OwnerId> {
        (**self).me()
    }
    #[inline]
    fn is_still(&self, owner: OwnerId) -> bool {
        (**self).is_still(owner)
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        (**self).is_dead(owner)
    }
}

/// Surroundings without an operating system: waits spin, and nobody ever dies.
///
/// Time is the pauses that this value has spent waiting, taken to be 16 ns each.
#[derive(Debug, Clone)]
pub struct Spin {
    me: OwnerId,
    spent: Cell<u64>,
}

const PAUSE_NS: u64 = 16;

impl Spin {
    /// Surroundings for the participant `me`; each thread or core that holds an end needs an id of its own.
    #[must_use]
    pub const fn new(me: OwnerId) -> Self {
        Self { me, spent: Cell::new(0) }
    }
}

impl Wait for Spin {
    /// In pauses; `u64::MAX` never passes.
    type Deadline = u64;
    fn never(&self) -> u64 {
        u64::MAX
    }
    fn after(&self, timeout: Duration) -> u64 {
        let pauses = u64::try_from(timeout.as_nanos() / u128::from(PAUSE_NS)).unwrap_or(u64::MAX);
        self.spent.get().saturating_add(pauses)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: u64) -> Parked {
        let slice_ns = match slice {
            Slice::Short => 1_000_000,
            Slice::Owner => 10_000_000,
            Slice::Long | Slice::Unowned => 1_000_000_000,
        };
        let end = deadline.min(self.spent.get().saturating_add(slice_ns / PAUSE_NS));
        while self.spent.get() < end && crate::prim::is_still(word, expected) {
            self.spent.set(self.spent.get() + 1);
            crate::prim::pause();
        }
        if self.spent.get() >= deadline { Parked::Expired } else { Parked::Again }
    }
    fn wake(&self, _: &AtomicU32, _: u32) -> u32 {
        0
    }
    fn spins(&self) -> u32 {
        300
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for Spin {
    #[inline]
    fn me(&self) -> Option<OwnerId> {
        Some(self.me)
    }
    fn is_dead(&self, _: OwnerId) -> bool {
        false
    }
}

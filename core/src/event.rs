//! A word on which consumers of something sleep until there is more of it, without a system call while nobody sleeps.
//!
//! # What
//! A `u32` = `sequence << 2 | several << 1 | somebody may sleep`. It counts nobody: a sleeper that is killed leaves at most
//! stale flags behind, which cost the next waker one wake in vain and heal. `several`: more than one has announced since
//! the flags were clear. Where one announced alone, its waker takes the flag away with the wake, so the next publication
//! makes no system call.
//!
//! # Protocol
//! Waiter ([`EventWord::sleep_unless`]):
//! 1. has looked and found nothing;
//! 2. `word.fetch_or(1)`: announce; the flag was there: `word.fetch_or(3)`;
//! 3. heavy fence;
//! 4. look again: found something: done;
//! 5. park while the word holds what 2 left there, at most for a slice.
//! 6. A woken waiter that leaves more behind than it takes calls [`EventWord::wake`] itself: the one wake may have been
//!    meant for two.
//!
//! Waker ([`EventWord::wake`]), after it published `n` items:
//! 1. light fence;
//! 2. flag clear: done;
//! 3. `word.fetch_add(4)`: a waiter between its 2 and its 5 does not fall asleep;
//! 4. wake `n`;
//! 5. `several` was clear in 3: CAS the flag away. If that succeeds, nobody has announced since 3, and the one who had done
//!    so before is awake or does not fall asleep. Done;
//! 6. `several` was set, and fewer than `n` were asleep: CAS the flags away, and if that succeeds wake everybody, because
//!    somebody may have announced, which changed nothing in the word, and fallen asleep between the wake and the CAS.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `event.announce` | `Light`: full fence in `wake_after` | `heavy`: full fence in `sleep_unless` | none; store-load order: either the waker sees the flag or the waiter sees the item | `event` |
//! | `event.bump` | `fetch_add` in `wake_all` | `heavy`: full fence in `sleep_unless` | whatever the caller of `wake_all` wrote before | `event` |
//!
//! In [`WakeMode::Asymmetric`] the waker's fence is a compiler fence, if its process takes part in heavy barriers, and
//! the waiter's a process-wide barrier. In [`WakeMode::Polling`] nobody is woken, there is no fence, and the waiter sleeps in
//! slices of 1 ms.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | waiter 2 and 5, or asleep | a stale flag: one wake in vain, then clear |
//! | publish and waker 3 | the items; a sleeper finds them when its slice ends or the reaper wakes all |
//! | waker 3 and 4 | as above |
//! | waker 4 and CAS | stale flags |
//! | waker 6, CAS and wake | the items; those who slept find them when their slices end or the reaper wakes all |
//! | woken waiter before its 6 | the items; others when their slices end or the reaper wakes all |

use crate::prim::{AtomicU32, Ordering, compiler_fence, fence};
use crate::wait::{Parked, Slice, Wait, WakeMode};

/// Somebody may sleep.
const SLEEPERS: u32 = 1;
/// More than one has announced.
const SEVERAL: u32 = 2;
const BOTH: u32 = SLEEPERS | SEVERAL;
const STEP: u32 = 4;

/// The shared word. All zero is a valid start: nobody sleeps.
#[derive(Debug)]
#[repr(transparent)]
pub struct EventWord(AtomicU32);

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<EventWord>() == 4);

/// What came of [`EventWord::sleep_unless`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slept {
    /// The second look found something; nothing was slept.
    Ready,
    /// Look again.
    Again,
    /// The deadline has passed.
    Expired,
}

impl Default for EventWord {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl EventWord {
    /// A word on which nobody sleeps.
    #[must_use]
    #[cfg(not(crosslane_loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A word on which nobody sleeps.
    #[must_use]
    #[cfg(crosslane_loom)]
    #[track_caller]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Wakes up to `items` sleepers after as many items were published. No system call while nobody sleeps.
    #[inline]
    pub fn wake<W: Wait>(&self, items: u32, mode: WakeMode, wait: &W) {
        self.wake_after(Light::of(mode, wait), items, wait);
    }

    /// As [`wake`](Self::wake), for a waker that settled its fence when it came.
    #[inline]
    pub fn wake_after<W: Wait>(&self, light: Light, items: u32, wait: &W) {
        if light == Light::Polling {
            return;
        }
        light.fence();
        self.wake_fenced(items, wait);
    }

    /// Waker's steps 1 and 2 alone: whether somebody may sleep, who announced before what the caller published. For who
    /// then looks whether there is anything to wake for.
    #[cfg(target_has_atomic = "64")]
    pub(crate) fn may_be_awaited(&self, light: Light) -> bool {
        if light == Light::Polling {
            return false;
        }
        light.fence();
        // ORDERING: Relaxed. The fence orders it after the publication.
        self.0.load(Ordering::Relaxed) & SLEEPERS != 0
    }

    /// As [`wake`](Self::wake) in [`WakeMode::Fenced`], for a caller that has put a full fence of its own between its
    /// publication and this call.
    #[inline]
    pub(crate) fn wake_fenced<W: Wait>(&self, items: u32, wait: &W) {
        // ORDERING: Relaxed. The caller's fence orders it after the publication.
        if self.0.load(Ordering::Relaxed) & SLEEPERS != 0 {
            self.wake_slow(items, wait);
        }
    }

    #[cold]
    fn wake_slow<W: Wait>(&self, items: u32, wait: &W) {
        if items == 0 {
            return;
        }
        // ORDERING: Relaxed, here and below. The word itself is the only thing that waiter and waker agree on, and
        // the kernel compares it under its own lock; the items are ordered by their own edges.
        let word = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let woken = wait.wake(&self.0, items);
        let may_be_several = word & SEVERAL != 0;
        if may_be_several && woken >= items {
            return;
        }
        let clear = word & !BOTH;
        let cleared = self.0.compare_exchange(word, clear, Ordering::Relaxed, Ordering::Relaxed);
        if may_be_several && cleared.is_ok() {
            wait.wake(&self.0, u32::MAX);
        }
    }

    /// Wakes every sleeper, flag or no flag: for whoever repairs what a dead waker left undone, and for closing.
    pub fn wake_all<W: Wait>(&self, wait: &W) {
        // ORDERING event.bump: Release. Pairs with the fence in `heavy`: who announces after this step sees what was
        // published before it; who announced before does not fall asleep or is woken.
        self.0.fetch_add(STEP, Ordering::Release);
        wait.wake(&self.0, u32::MAX);
    }

    /// As [`wake_after`](Self::wake_after), if `wanted` says so once the fence is passed.
    #[cfg(target_has_atomic = "64")]
    #[inline]
    pub(crate) fn wake_if<W: Wait>(&self, light: Light, items: u32, wait: &W, wanted: impl FnOnce() -> bool) {
        if light != Light::Polling {
            light.fence();
            if wanted() {
                self.wake_fenced(items, wait);
            }
        }
    }

    /// Announces a sleeper, looks again with `ready`, and sleeps if that is `false`.
    pub fn sleep_unless<W: Wait>(
        &self,
        mode: WakeMode,
        slice: Slice,
        deadline: W::Deadline,
        wait: &W,
        ready: impl FnOnce() -> bool,
    ) -> Slept {
        self.sleep_as(mode, deadline, wait, || if ready() { None } else { Some(slice) })
    }

    /// As [`sleep_unless`](Self::sleep_unless), where the second look says for how long; `None`: it found something.
    pub(crate) fn sleep_as<W: Wait>(
        &self,
        mode: WakeMode,
        deadline: W::Deadline,
        wait: &W,
        look: impl FnOnce() -> Option<Slice>,
    ) -> Slept {
        let (word, is_ordered) = self.announced(mode, wait);
        let Some(slice) = look() else { return Slept::Ready };
        match wait.park(&self.0, word, if is_ordered { slice } else { Slice::Short }, deadline) {
            Parked::Again => Slept::Again,
            Parked::Expired => Slept::Expired,
        }
    }
}

impl EventWord {
    /// Steps 2 and 3 alone, for a waiter that looks again and then sleeps on something else, which its wakers' `Wait::wake`
    /// rings (see [`bell`](crate::bell)). `false`: a waker may miss it, so it sleeps in short slices.
    pub fn announce<W: Wait>(&self, mode: WakeMode, wait: &W) -> bool {
        self.announced(mode, wait).1
    }

    /// Steps 2 and 3: the word as it then is, and whether the fence orders every waker.
    fn announced<W: Wait>(&self, mode: WakeMode, wait: &W) -> (u32, bool) {
        // ORDERING: Relaxed. `heavy` orders it before the second look.
        let before = self.0.fetch_or(SLEEPERS, Ordering::Relaxed);
        // A waker may take the flag away in between, so it is set again.
        let word = match before & SLEEPERS {
            0 => before | SLEEPERS,
            _ => self.0.fetch_or(BOTH, Ordering::Relaxed) | BOTH,
        };
        (word, heavy(mode, wait))
    }

    /// Sleeps at most a short slice (1 ms) and until the word is bumped, without announcing it: for who may not write the
    /// word, and so is woken only by luck. A wake may go to it in place of one who has announced, so wakers of a word on
    /// which somebody dozes wake everybody.
    pub fn doze<W: Wait>(&self, deadline: W::Deadline, wait: &W) -> Slept {
        // ORDERING: Relaxed. Decides only how long to sleep.
        let word = self.0.load(Ordering::Relaxed);
        match wait.park(&self.0, word, Slice::Short, deadline) {
            Parked::Again => Slept::Again,
            Parked::Expired => Slept::Expired,
        }
    }
}

/// The waker's fence between "published" and "does anybody sleep". Who wakes often settles it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Light {
    /// None, and no wake either.
    Polling,
    /// A compiler fence: this process takes part in heavy barriers.
    Compiler,
    /// A full fence.
    Full,
}

impl Light {
    /// The fence of a waker in `mode`. Holds as long as the waker lives: a process that takes part in heavy barriers
    /// does so for good, and one that joins them later may keep its full fences.
    #[inline]
    #[must_use]
    pub fn of<W: Wait>(mode: WakeMode, wait: &W) -> Self {
        match mode {
            WakeMode::Polling => Self::Polling,
            WakeMode::Asymmetric if wait.in_heavy_barriers() => Self::Compiler,
            WakeMode::Asymmetric | WakeMode::Fenced => Self::Full,
        }
    }

    #[inline]
    fn fence(self) {
        // ORDERING event.announce: SeqCst fence. Forbids: the waker's flag load passes its publication (store-load
        // reordering) while the waiter's look passes its announcement, so that each misses the other and the waiter
        // sleeps on an item. Pairs with the fence in `heavy`. When this process takes part in heavy barriers, the
        // waiter's barrier is a full fence here too, and only the compiler must be kept from reordering.
        // And mpmc.watch: SeqCst fence, of who takes an item to keep it; see `mpmc/watch.rs`.
        if self == Self::Compiler {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }
}

/// The waiter's fence between "announced" and "look again"; `false` if none could be had that orders every waker.
fn heavy<W: Wait>(mode: WakeMode, wait: &W) -> bool {
    // ORDERING event.announce: SeqCst fence. The other half of `Light::fence`; see there.
    // And event.bump: SeqCst fence. Pairs with the Release in `wake_all`.
    // And mpmc.watch: SeqCst fence. The other half of `Light::fence`.
    match mode {
        WakeMode::Fenced => {
            fence(Ordering::SeqCst);
            true
        }
        WakeMode::Asymmetric => wait.heavy_barrier(),
        WakeMode::Polling => false,
    }
}

//! A flag that processes wait for: Python's `Event`.
//!
//! # What
//! A `u32` = `sequence << 2 | SLEEPERS << 1 | SET`. The sequence counts how often the flag went from clear to set, so that
//! a waiter that slept through a set and a clear knows that it was set. Nobody is counted.
//!
//! # Protocol
//! Wait ([`FlagWord::wait`]):
//! 1. look: `SET`, or another sequence than at the first look: done;
//! 2. CAS(word -> word | `SLEEPERS`); lost: 1 again;
//! 3. park while the word holds that, at most for a slice of 1 s; 1 again.
//!
//! Set: CAS(word -> next sequence | `SET`, without `SLEEPERS`), or the same word if it is set; there were sleepers: wake
//! all. Clear: take `SET` away. Neither waits for anybody, so both may be called in a signal handler.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `flag.word` | CAS in `set` | loads in `is_set`, `look` | what the setting process did before | `flag` |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | wait 2 and 3, or asleep | a stale `SLEEPERS`: one wake in vain |
//! | set, CAS and wake | the flag; sleepers see it when their slices end, after at most 1 s |

use crate::prim::{AtomicU32, Ordering, pause};
use crate::wait::{Parked, Slice, Wait};

const SET: u32 = 1;
const SLEEPERS: u32 = 2;
const STEP: u32 = 4;
/// Swaps that a wait may lose in a row before it parks all the same, and so looks at its deadline.
const LOST_IN_A_ROW: u32 = 64;

/// The shared word. All zero is a valid start: clear.
#[derive(Debug)]
#[repr(transparent)]
pub struct FlagWord(AtomicU32);

#[cfg(not(crosslane_loom))]
const _: () = assert!(size_of::<FlagWord>() == 4);

impl Default for FlagWord {
    #[track_caller]
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl FlagWord {
    /// Whether the flag is set: old by the time it is known.
    #[must_use]
    #[inline]
    pub fn is_set(&self) -> bool {
        // ORDERING flag.word: Acquire. Pairs with the Release in `set`: what the setting process did is visible.
        self.0.load(Ordering::Acquire) & SET != 0
    }

    /// Sets the flag and wakes everybody who waits. Does not block; a system call only if somebody may sleep.
    ///
    /// # Crash
    /// A process killed inside has set the flag or has not; sleepers see it within 1 s.
    pub fn set<W: Wait>(&self, wait: &W) {
        // ORDERING: Relaxed. The CAS takes exactly this word.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = if word & SET != 0 { word } else { (word & !SLEEPERS).wrapping_add(STEP) | SET };
            // ORDERING flag.word: Release. Pairs with the Acquires in `is_set` and `look`.
            // Publishes what this process did before; also when the flag was set already. Failure: Relaxed, the loop
            // tries again.
            match self.0.compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & (SET | SLEEPERS) == SLEEPERS {
            wait.wake(&self.0, u32::MAX);
        }
    }

    /// Clears the flag. Does not block.
    pub fn clear(&self) {
        // ORDERING: Relaxed. Publishes nothing, and as a read-modify-write continues the release of the last `set`.
        self.0.fetch_and(!SET, Ordering::Relaxed);
    }

    /// Waits until the flag is set, or has been since the call: `true`; `false` at the deadline.
    pub fn wait<W: Wait>(&self, wait: &W, deadline: W::Deadline) -> bool {
        let first = self.look();
        if first & SET != 0 {
            return true;
        }
        for _ in 0..wait.spins() {
            if was_set_since(first, self.look()) {
                return true;
            }
            pause();
        }
        let mut lost = 0;
        loop {
            let word = self.look();
            if was_set_since(first, word) {
                return true;
            }
            // ORDERING: Relaxed. Publishes nothing: `set` swaps this same word, and the kernel compares it under its own
            // lock. Not an or, which would put the flag on a word that is set.
            let announced = word & SLEEPERS != 0
                || self.0.compare_exchange(word, word | SLEEPERS, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            lost += 1;
            if !announced && lost < LOST_IN_A_ROW {
                continue;
            }
            lost = 0;
            if wait.park(&self.0, word | SLEEPERS, Slice::Unowned, deadline) == Parked::Expired {
                return was_set_since(first, self.look());
            }
        }
    }

    /// Wakes everybody to look again: what is left to do for a process that died here.
    pub fn recover<W: Wait>(&self, wait: &W) {
        wait.wake(&self.0, u32::MAX);
    }

    fn look(&self) -> u32 {
        // ORDERING flag.word: Acquire. Pairs with the Release in `set`. A word with another sequence was written by that
        // `set`, or by read-modify-writes behind it.
        self.0.load(Ordering::Acquire)
    }
}

const fn was_set_since(first: u32, word: u32) -> bool {
    word & SET != 0 || word / STEP != first / STEP
}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use core::time::Duration;

    use super::*;

    /// A process whose sleep lasts while somebody does `meanwhile`; the second one expires.
    struct Sleeper(core::cell::Cell<u32>, fn(&FlagWord));

    impl Wait for Sleeper {
        type Deadline = ();
        fn never(&self) {}
        fn after(&self, _: Duration) {}
        fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, (): ()) -> Parked {
            assert_eq!((slice, expected & SLEEPERS), (Slice::Unowned, SLEEPERS));
            self.0.set(self.0.get() + 1);
            if self.0.get() > 1 {
                return Parked::Expired;
            }
            let flag = FlagWord(AtomicU32::new(word.load(Ordering::Relaxed)));
            (self.1)(&flag);
            word.store(flag.0.load(Ordering::Relaxed), Ordering::Relaxed);
            Parked::Again
        }
        fn wake(&self, _: &AtomicU32, _: u32) -> u32 {
            0
        }
        fn spins(&self) -> u32 {
            2
        }
        fn in_heavy_barriers(&self) -> bool {
            false
        }
        fn heavy_barrier(&self) -> bool {
            false
        }
    }

    fn sleeper(meanwhile: fn(&FlagWord)) -> Sleeper {
        Sleeper(core::cell::Cell::new(0), meanwhile)
    }

    #[test]
    fn a_waiter_that_slept_through_a_set_and_a_clear_knows() {
        let flag = FlagWord::default();
        let pulse = |flag: &FlagWord| {
            flag.set(&sleeper(|_| {}));
            flag.clear();
        };
        assert!(flag.wait(&sleeper(pulse), ()));
        assert!(!flag.is_set());
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_at_once_when_the_flag_is_set() {
        let flag = FlagWord::default();
        assert!(!flag.wait(&sleeper(|_| {}), ()));
        flag.set(&sleeper(|_| {}));
        flag.set(&sleeper(|_| {}));
        assert!(flag.wait(&sleeper(|_| panic!("nobody sleeps")), ()));
        flag.clear();
        assert!(!flag.is_set());
    }
}

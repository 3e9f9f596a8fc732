//! Parking on futexes: [`FutexWait`], and [`park`] for whoever implements [`Wait`] and
//! [`Liveness`](crosslane_core::Liveness) in one type.
//!
//! An implementation of its own delegates like this:
//! - `never`, `after`: [`Deadline::never`], [`Deadline::after`];
//! - `park`: [`park`], with the `deaths` word of its lease domain;
//! - `wake`: [`futex::wake`];
//! - `spins`: [`spin::budget`];
//! - `in_heavy_barriers`, `heavy_barrier`: [`membarrier::is_registered`], [`membarrier::heavy`].

use core::sync::atomic::AtomicBool;
use core::time::Duration;

use crosslane_core::prim::{AtomicU32, Ordering};
use crosslane_core::{Parked, Slice, Wait};

use crate::deadline::Deadline;
use crate::futex::{self, Woken};
use crate::{membarrier, spin};

/// The `deaths` word of a lease domain, and the value of it that the caller has acted on.
///
/// Whoever proves a death adds 1 to the word and wakes all who sleep on it. A sleeper that sees it change ends its
/// sleep, looks who has died, and only then takes the new value as seen: read the word *before* looking.
#[derive(Debug, Clone, Copy)]
pub struct Deaths<'a> {
    /// The word.
    pub word: &'a AtomicU32,
    /// What it held before the caller last looked who is dead.
    pub seen: u32,
}

/// Whether the kernel has refused to wait on two words at once, so that it need not be asked again.
static ONE_WORD_ONLY: AtomicBool = AtomicBool::new(false);

/// The longest sleep of `slice`.
#[must_use]
pub const fn length(slice: Slice) -> Duration {
    match slice {
        Slice::Short => Duration::from_millis(1),
        Slice::Owner => Duration::from_millis(10),
        Slice::Long | Slice::Unowned => Duration::from_secs(1),
    }
}

/// Sleeps while `word` holds `expected` and nobody dies, at most for `slice` and until `deadline`.
///
/// With `deaths`, the sleep ends also when that word is not `seen`, unless it is for what nobody owns
/// ([`Slice::Unowned`]); where the kernel cannot wait on two words, it lasts 10 ms at most. Returns [`Parked::Expired`] whenever the deadline has passed, even if the word has changed: so a loop
/// around it ends, whatever a peer writes. Signals neither end the sleep nor prolong it.
#[must_use]
pub fn park(word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline, deaths: Option<Deaths<'_>>) -> Parked {
    let now = Deadline::now();
    if deadline <= now {
        return Parked::Expired;
    }
    let until = deadline.min(now.plus(length(slice)));
    let woken = match deaths {
        Some(deaths) if slice != Slice::Unowned => wait_or_death(word, expected, until, now, deaths),
        // On one word it is cheaper by a tenth of a round trip.
        _ => futex::wait(word, expected, until),
    };
    if woken == Woken::TimedOut && deadline.has_passed() { Parked::Expired } else { Parked::Again }
}

fn wait_or_death(word: &AtomicU32, expected: u32, until: Deadline, now: Deadline, deaths: Deaths<'_>) -> Woken {
    // ORDERING: Relaxed. A hint that stays right: the kernel was or was not asked in vain.
    if !ONE_WORD_ONLY.load(Ordering::Relaxed) {
        if let Ok(woken) = futex::wait_either([(word, expected), (deaths.word, deaths.seen)], until) {
            return woken;
        }
        ONE_WORD_ONLY.store(true, Ordering::Relaxed);
    }
    wait_briefly(word, expected, until.min(now.plus(length(Slice::Owner))), deaths)
}

/// Stands in for the wait on two words: the end of a short sleep shows a death that no wake could.
fn wait_briefly(word: &AtomicU32, expected: u32, until: Deadline, deaths: Deaths<'_>) -> Woken {
    // ORDERING: Relaxed. Decides only whether to look who is dead; the proof of death orders.
    if deaths.word.load(Ordering::Relaxed) != deaths.seen {
        return Woken::Changed;
    }
    futex::wait(word, expected, until)
}

/// [`Wait`] on futexes.
///
/// # Examples
/// ```
/// use crosslane_core::prim::AtomicU32;
/// use crosslane_core::{Parked, Slice, Wait};
/// use crosslane_sync::FutexWait;
/// use std::time::Duration;
///
/// let wait = FutexWait::new();
/// let word = AtomicU32::new(7);
/// let deadline = wait.after(Duration::from_millis(5));
/// assert_eq!(wait.park(&word, 7, Slice::Long, deadline), Parked::Expired);
/// ```
#[derive(Debug)]
pub struct FutexWait<'a> {
    deaths: Option<&'a AtomicU32>,
    seen: AtomicU32,
    spins: u32,
}

impl Default for FutexWait<'static> {
    fn default() -> Self {
        Self::new()
    }
}

impl FutexWait<'static> {
    /// Waits that only look at the word that they are given.
    #[must_use]
    pub fn new() -> Self {
        Self { deaths: None, seen: AtomicU32::new(0), spins: spin::budget() }
    }
}

impl<'a> FutexWait<'a> {
    /// Waits that end also when `deaths` is bumped, but for those for what nobody owns.
    ///
    /// Each bump ends each sleep that is under way, and one that begins later at most once for all threads that share
    /// this value; who misses one looks again when its slice ends.
    #[must_use]
    pub fn with_deaths(deaths: &'a AtomicU32) -> Self {
        // ORDERING: Relaxed, here and in `park`. As in `wait_briefly`.
        let seen = AtomicU32::new(deaths.load(Ordering::Relaxed));
        Self { deaths: Some(deaths), seen, spins: spin::budget() }
    }
}

impl Wait for FutexWait<'_> {
    type Deadline = Deadline;

    fn never(&self) -> Deadline {
        Deadline::never()
    }

    fn after(&self, timeout: Duration) -> Deadline {
        Deadline::after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Deadline) -> Parked {
        let Some(deaths) = self.deaths else {
            return park(word, expected, slice, deadline, None);
        };
        let seen = self.seen.load(Ordering::Relaxed);
        let parked = park(word, expected, slice, deadline, Some(Deaths { word: deaths, seen }));
        // The caller looks after this, so a bump that comes from here on ends the next sleep.
        self.seen.store(deaths.load(Ordering::Relaxed), Ordering::Relaxed);
        parked
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        futex::wake(word, count)
    }

    fn spins(&self) -> u32 {
        self.spins
    }

    fn in_heavy_barriers(&self) -> bool {
        membarrier::is_registered()
    }

    fn heavy_barrier(&self) -> bool {
        membarrier::heavy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_without_expiring() {
        let word = AtomicU32::new(1);
        let start = Deadline::now();
        assert_eq!(park(&word, 1, Slice::Short, Deadline::never(), None), Parked::Again);
        assert!(start.plus(length(Slice::Short)).has_passed());
    }

    #[test]
    fn a_passed_deadline_expires_even_when_the_word_has_changed() {
        assert_eq!(park(&AtomicU32::new(1), 2, Slice::Long, Deadline::now(), None), Parked::Expired);
    }

    #[test]
    fn an_unseen_death_ends_the_sleep_with_and_without_a_wait_on_two_words() {
        let (word, deaths) = (AtomicU32::new(1), AtomicU32::new(5));
        let unseen = Deaths { word: &deaths, seen: 4 };
        assert_eq!(park(&word, 1, Slice::Long, Deadline::never(), Some(unseen)), Parked::Again);
        assert_eq!(wait_briefly(&word, 1, Deadline::never(), unseen), Woken::Changed);
        let seen = Deaths { word: &deaths, seen: 5 };
        let until = Deadline::after(Duration::from_millis(5));
        assert_eq!(wait_briefly(&word, 1, until, seen), Woken::TimedOut);
        assert!(until.has_passed());
    }

    #[test]
    fn no_death_ends_a_sleep_for_what_nobody_owns() {
        let (word, deaths) = (AtomicU32::new(1), AtomicU32::new(5));
        let unseen = Deaths { word: &deaths, seen: 4 };
        let until = Deadline::after(Duration::from_millis(5));
        assert_eq!(park(&word, 1, Slice::Unowned, until, Some(unseen)), Parked::Expired);
        assert!(until.has_passed());
        assert_eq!(park(&word, 2, Slice::Unowned, Deadline::never(), Some(unseen)), Parked::Again);
    }

    #[test]
    fn a_bump_ends_one_sleep() {
        let (word, deaths) = (AtomicU32::new(1), AtomicU32::new(0));
        let wait = FutexWait::with_deaths(&deaths);
        futex::bump(&deaths);
        let start = Deadline::now();
        assert_eq!(wait.park(&word, 1, Slice::Long, Deadline::never()), Parked::Again);
        assert!(!start.plus(length(Slice::Long)).has_passed(), "a death that nobody has seen does not wait");
        let start = Deadline::now();
        assert_eq!(wait.park(&word, 1, Slice::Short, Deadline::never()), Parked::Again);
        assert!(start.plus(length(Slice::Short)).has_passed(), "a death that was seen ends no other sleep");
    }
}

//! The word of a slot: `lap:36 | attempts:3 | state:3 | owner:22`.

use crate::owner::OwnerId;

const OWNER_BITS: u32 = 22;
const STATE_SHIFT: u32 = OWNER_BITS;
const ATTEMPTS_SHIFT: u32 = STATE_SHIFT + 3;
const LAP_SHIFT: u32 = ATTEMPTS_SHIFT + 3;

/// The most deliveries that a word can count.
pub(super) const MAX_ATTEMPTS: u32 = 7;

/// What a slot is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free = 0,
    Writing = 1,
    Full = 2,
    Reading = 3,
    Returned = 4,
    DeadLetter = 5,
}

/// A lap as it stands in a slot's word: the other bits are 0. Wraps with the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lap(u64);

impl Lap {
    /// Of `lap` only the low 36 bits count.
    #[cfg(test)]
    const fn new(lap: u64) -> Self {
        Self(lap << LAP_SHIFT)
    }

    /// The lap of `position` in a ring of `1 << lap_shift` slots.
    #[inline]
    pub(super) const fn of(position: u64, lap_shift: u32) -> Self {
        Self(position >> lap_shift << LAP_SHIFT)
    }

    #[inline]
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1 << LAP_SHIFT))
    }
}

/// One value of a slot's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotWord(pub(super) u64);

impl SlotWord {
    /// A word without owner.
    #[inline]
    pub(super) const fn new(lap: Lap, state: State, attempts: u32) -> Self {
        Self(lap.0 | (attempts as u64) << ATTEMPTS_SHIFT | (state as u64) << STATE_SHIFT)
    }

    /// The same with an owner; `self` has none.
    #[inline]
    pub(super) const fn owned(self, owner: OwnerId) -> Self {
        // A sum of what has no bit in common is one instruction less than an or.
        Self(self.0.wrapping_add(owner.to_word() as u64))
    }

    /// The word without its owner: grows with each step of a lap and from lap to lap, but when a message is returned.
    #[inline]
    pub(super) const fn progress(self) -> u64 {
        self.0 >> OWNER_BITS
    }

    /// `None` for a pattern that nobody writes who keeps to the protocol.
    #[inline]
    pub(super) const fn state(self) -> Option<State> {
        Some(match self.0 >> STATE_SHIFT & 7 {
            0 => State::Free,
            1 => State::Writing,
            2 => State::Full,
            3 => State::Reading,
            4 => State::Returned,
            5 => State::DeadLetter,
            _ => return None,
        })
    }

    #[inline]
    pub(super) const fn lap(self) -> Lap {
        Lap(self.0 >> LAP_SHIFT << LAP_SHIFT)
    }

    /// Deliveries that ended in the consumer's death or in its returning the item, 0..=7.
    #[inline]
    pub(super) const fn attempts(self) -> u32 {
        (self.0 >> ATTEMPTS_SHIFT & 7) as u32
    }

    #[inline]
    pub(super) const fn owner(self) -> Option<OwnerId> {
        OwnerId::from_word((self.0 & ((1 << OWNER_BITS) - 1)) as u32)
    }

    /// How many laps this word is ahead of `lap`; negative: behind. Wraps.
    #[inline]
    #[expect(clippy::cast_possible_wrap, reason = "the wrapping distance is meant")]
    pub(super) const fn ahead_of(self, lap: Lap) -> i64 {
        self.lap().0.wrapping_sub(lap.0) as i64 >> LAP_SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_back_what_was_put_in() {
        let owner = OwnerId::new(1023, 4095).unwrap();
        for state in [State::Free, State::Writing, State::Full, State::Reading, State::Returned, State::DeadLetter] {
            let word = SlotWord::new(Lap::new((1 << 36) - 1), state, 7).owned(owner);
            assert_eq!((word.lap(), word.state(), word.attempts()), (Lap::new((1 << 36) - 1), Some(state), 7));
            assert_eq!(word.owner(), Some(owner));
        }
        assert_eq!(SlotWord(6 << STATE_SHIFT).state(), None);
    }

    #[test]
    fn laps_compare_by_wrapping_distance() {
        let last = (1_u64 << 36) - 1;
        let free = |lap| SlotWord::new(Lap::new(lap), State::Free, 0);
        assert_eq!(free(last + 1).ahead_of(Lap::new(last)), 1);
        assert_eq!(free(last).ahead_of(Lap::new(last).next()), -1);
        assert_eq!(free(5).ahead_of(Lap::new(2)), 3);
    }

    #[test]
    fn a_position_gives_its_lap() {
        assert_eq!(Lap::of(5 * 1024 + 1023, 10), Lap::new(5));
        assert_eq!(Lap::of(u64::MAX, 1), Lap::new((1 << 36) - 1));
        assert_eq!(Lap::of(u64::MAX, 26).next(), Lap::of(u64::MAX.wrapping_add(1), 26));
    }
}

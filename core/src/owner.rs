//! Who owns a shared word: a participant index with a generation.
//!
//! An index names a place in the participant table of a lease domain; the generation counts the processes that have
//! had that place. A dead owner's id therefore never matches a later process in the same place, and a recoverer that
//! was paused between its proof of death and its compare-and-swap fails that swap.

/// Bits of an owner word that hold the index.
pub const INDEX_BITS: u32 = 10;
/// Participants that a domain can have at once.
pub const MAX_PARTICIPANTS: u32 = 1 << INDEX_BITS;
/// The last generation of an index; after it the index is retired, so a truncated generation never comes round.
pub const MAX_GENERATION: u32 = 4095;

const GENERATION_BITS: u32 = 20;
const ID_MASK: u32 = (1 << (INDEX_BITS + GENERATION_BITS)) - 1;

/// The id of one participant of a lease domain: index in 0..1024, generation in 1..=4095.
///
/// Its word form fits the low 30 bits of a `u32` and is never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(u32);

impl OwnerId {
    /// The id of `generation` at `index`; `None` out of range.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Option<Self> {
        if index >= MAX_PARTICIPANTS || generation == 0 || generation > MAX_GENERATION {
            return None;
        }
        Some(Self(generation << INDEX_BITS | index))
    }

    /// The id in the low 30 bits of `word`; `None` if they hold none.
    ///
    /// The two bits above are the flags of the word's user and are ignored.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        let id = word & ID_MASK;
        Self::new(id & (MAX_PARTICIPANTS - 1), id >> INDEX_BITS)
    }

    /// The id whose word form `word` is; `None` if it is 0. Looks at nothing else: for a word in memory of this process
    /// alone, into which only the word form of an id or 0 was written.
    #[inline]
    #[must_use]
    pub const fn from_private_word(word: u32) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// The word form: generation above index, the two high bits clear, never 0.
    #[must_use]
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// The place in the participant table, 0..1024.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 & (MAX_PARTICIPANTS - 1)
    }

    /// The generation, 1..=4095.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 >> INDEX_BITS
    }
}

impl core::fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

impl core::fmt::Display for OwnerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "participant {} generation {}", self.index(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_form_round_trips_and_ignores_flags() {
        for (index, generation) in [(0, 1), (1023, 4095), (7, 300)] {
            let id = OwnerId::new(index, generation).unwrap();
            assert_eq!(OwnerId::from_word(id.to_word() | 3 << 30), Some(id));
            assert_eq!((id.index(), id.generation()), (index, generation));
        }
    }

    #[test]
    fn out_of_range_is_none() {
        assert_eq!(OwnerId::new(1024, 1), None);
        assert_eq!(OwnerId::new(0, 0), None);
        assert_eq!(OwnerId::new(0, 4096), None);
        assert_eq!(OwnerId::from_word(0), None);
        assert_eq!(OwnerId::from_word(4096 << INDEX_BITS), None);
    }
}

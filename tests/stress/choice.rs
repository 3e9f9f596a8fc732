//! Choices that a seed repeats, and pauses of random length.

use core::time::Duration;

/// The generator SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Choice(u64);

impl Choice {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(name.bytes().fold(seed, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into())))
    }

    /// A generator of its own for process number `number`.
    pub(crate) fn branch(&mut self, number: u64) -> Self {
        Self(self.next() ^ number)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Between `low` and `high` microseconds.
    pub(crate) fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(low + self.below(high - low))
    }

    /// Mostly nothing, sometimes a spin of up to some microseconds, seldom a sleep: so that the peer is met at every point.
    pub(crate) fn jitter(&mut self) {
        match self.below(64) {
            0 => std::thread::sleep(self.micros(1, 150)),
            1 | 2 => std::thread::yield_now(),
            3..16 => (0..self.below(400)).for_each(|_| core::hint::spin_loop()),
            _ => {}
        }
    }
}

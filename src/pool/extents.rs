//! Which ranges of some memory are free: first fit, the lowest first.
//!
//! Rooms are few and large, so a list in order, looked through from its start, is quick; and what was given back last is
//! as a rule what is taken next, whose pages are there.

use std::ops::Range;

/// Ranges start at a multiple of so many bytes: a cache line, which suits copies too.
const ALIGN: u32 = 64;

/// The free ranges, in order; no two of them touch.
#[derive(Debug)]
pub(super) struct Extents {
    free: Vec<Range<u32>>,
    len: u32,
}

impl Extents {
    /// Of `len` bytes, which is a multiple of [`ALIGN`] and not 0; all are free.
    pub(super) fn new(len: u32) -> Self {
        debug_assert!(len > 0 && len.is_multiple_of(ALIGN), "{len}");
        Self { free: std::iter::once(0..len).collect(), len }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The bytes that a range of `len` takes.
    pub(super) fn rounded(len: u32) -> Option<u32> {
        len.max(1).checked_next_multiple_of(ALIGN)
    }

    /// Takes a range of at least `len` bytes; returns its start.
    pub(super) fn take(&mut self, len: u32) -> Option<u32> {
        let len = Self::rounded(len)?;
        let at = self.free.iter().position(|free| free.end - free.start >= len)?;
        let free = &mut self.free[at];
        let start = free.start;
        free.start += len;
        if free.start == free.end {
            self.free.remove(at);
        }
        Some(start)
    }

    /// Gives back what [`take`](Self::take) gave for `len`.
    pub(super) fn give_back(&mut self, start: u32, len: u32) {
        let Some(end) = Self::rounded(len).and_then(|len| start.checked_add(len)) else { return };
        let at = self.free.partition_point(|free| free.start < start);
        let joins_next = self.free.get(at).is_some_and(|next| next.start == end);
        let joins_last = at > 0 && self.free[at - 1].end == start;
        match (joins_last, joins_next) {
            (true, true) => self.free[at - 1].end = self.free.remove(at).end,
            (true, false) => self.free[at - 1].end = end,
            (false, true) => self.free[at].start = start,
            (false, false) => self.free.insert(at, start..end),
        }
    }

    /// Whether nothing is taken.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.free[..], [free] if *free == (0..self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u32 = 64 * ALIGN;

    /// Numbers that look random, the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }
    }

    fn overlap((start, len): (u32, u32), (other, other_len): (u32, u32)) -> bool {
        let end = |start, len| start + Extents::rounded(len).unwrap();
        start < end(other, other_len) && other < end(start, len)
    }

    #[test]
    fn a_range_is_the_lowest_that_overlaps_none_and_what_was_given_back_is_one_again() {
        let (mut random, mut found, mut refused) = (Random(7), 0, 0);
        for _ in 0..300 {
            let mut extents = Extents::new(LEN);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for _ in 0..100 {
                if random.below(5) < 3 {
                    let len = u32::try_from(random.below(LEN as usize / 4)).unwrap();
                    let starts = (0..=LEN - Extents::rounded(len).unwrap()).step_by(ALIGN as usize);
                    let is_free = |start: &u32| !taken.iter().any(|other| overlap((*start, len), *other));
                    let lowest = starts.into_iter().find(is_free);
                    assert_eq!(extents.take(len), lowest);
                    taken.extend(lowest.map(|start| (start, len)));
                    *if lowest.is_some() { &mut found } else { &mut refused } += 1;
                } else if !taken.is_empty() {
                    let (start, len) = taken.swap_remove(random.below(taken.len()));
                    extents.give_back(start, len);
                }
                assert_eq!(extents.is_whole(), taken.is_empty());
                assert!(extents.free.windows(2).all(|pair| pair[0].end < pair[1].start), "{extents:?}");
            }
            for (start, len) in taken {
                extents.give_back(start, len);
            }
            assert!(extents.is_whole());
        }
        assert!(found > 10_000 && refused > 1_000, "{found} {refused}");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut extents = Extents::new(LEN);
        assert_eq!(extents.take(LEN + 1), None);
        assert_eq!(extents.take(u32::MAX), None);
        assert!(extents.is_whole());
        assert_eq!(extents.take(LEN), Some(0));
        assert_eq!(extents.take(1), None);
    }
}

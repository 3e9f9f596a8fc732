//! What became of each item: who began to push it, whose push returned, who took it and had done its work with it. Every
//! process writes it, so it outlives the dead; items that come after a death are held against it.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::queue::Taken;

/// Sets of items 0..64. All zero: nothing has happened.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Ledger {
    begun: AtomicU64,
    pushed: AtomicU64,
    done: AtomicU64,
}

/// What a death may cost, by what the dead were doing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Items that may have been popped by somebody who died before the work.
    pub(crate) lost: u32,
    /// Items that may come although their work was done: whoever did it died before it could say so.
    pub(crate) again: u32,
}

fn members(set: u64) -> Vec<u32> {
    (0..64).filter(|item| set >> item & 1 == 1).collect()
}

impl Ledger {
    /// Somebody is about to push `item`.
    pub(crate) fn begin(&self, item: u64) {
        self.begun.fetch_or(1 << item, SeqCst);
    }

    /// The push of `item` has returned.
    pub(crate) fn push(&self, item: u64) {
        self.pushed.fetch_or(1 << item, SeqCst);
    }

    /// The work on `item` is done.
    pub(crate) fn work(&self, item: u64) {
        self.done.fetch_or(1 << item, SeqCst);
    }

    /// Whether the push of `item` has returned.
    pub(crate) fn is_pushed(&self, item: u64) -> bool {
        self.pushed.load(SeqCst) >> item & 1 == 1
    }

    /// Holds `left`, everything that is left, in the order in which it came, against the ledger: nothing comes twice or
    /// from nowhere, nothing is missing, and what was not delivered before comes in the order of `producer`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn check(&self, left: &[Taken], cost: Cost, producer: impl Fn(u64) -> u64) -> Result<(), String> {
        let came = left.iter().fold(0_u64, |set, (item, _)| set | 1 << (item % 64));
        let [begun, pushed, done] = [&self.begun, &self.pushed, &self.done].map(|set| set.load(SeqCst));
        if came.count_ones() as usize != left.len() {
            return Err(format!("an item came twice: {left:?}"));
        }
        if left.iter().any(|(item, _)| *item >= 64) || came & !begun != 0 {
            return Err(format!("items from nowhere: {left:?}, begun {:?}", members(begun)));
        }
        let (lost, again) = (pushed & !(came | done), came & done);
        if lost.count_ones() > cost.lost {
            return Err(format!("lost {:?}; left {left:?}", members(lost)));
        }
        if again.count_ones() > cost.again {
            return Err(format!("done, and left all the same: {:?} in {left:?}", members(again)));
        }
        let firsts: Vec<u64> = left.iter().filter(|(_, attempts)| *attempts == 0).map(|(item, _)| *item).collect();
        let ordered = |pair: &[u64]| producer(pair[0]) != producer(pair[1]) || pair[0] < pair[1];
        if firsts.windows(2).all(ordered) { Ok(()) } else { Err(format!("out of order: {left:?}")) }
    }
}

//! Finding the dead among many owners without asking about each at every turn.

use crate::owner::OwnerId;
use crate::wait::Liveness;

/// Participants that a waiter asks about after one slice: at 0.6-5 us each, little against the slice of 10 ms.
const PROBES: usize = 16;

/// Where a waiter's search goes on.
#[derive(Debug, Default)]
pub(crate) struct Prober {
    next: usize,
}

impl Prober {
    /// A participant other than `me` that stands in one of `places` and is proven dead.
    ///
    /// Asks about at most [`PROBES`] participants, each once, and goes on behind them at the next call: so each of n is
    /// asked about at least once in n / `PROBES` calls, rounded up.
    #[cold]
    pub(crate) fn find_dead<L: Liveness>(
        &mut self,
        places: usize,
        me: OwnerId,
        life: &L,
        owner_at: impl Fn(usize) -> Option<OwnerId>,
    ) -> Option<OwnerId> {
        let mut alive = [None; PROBES];
        let mut asked = 0;
        for step in 0..places {
            let at = (self.next + step) % places;
            let Some(owner) = owner_at(at).filter(|owner| *owner != me) else { continue };
            if alive[..asked].contains(&Some(owner)) {
                continue;
            }
            if asked == PROBES {
                self.next = at;
                return None;
            }
            if life.is_dead(owner) {
                return Some(owner);
            }
            alive[asked] = Some(owner);
            asked += 1;
        }
        None
    }
}

#[cfg(all(test, not(crosslane_loom)))]
mod tests {
    use core::cell::Cell;

    use super::*;

    struct Life {
        dead: u32,
        asked: Cell<u32>,
    }

    impl Liveness for Life {
        fn me(&self) -> Option<OwnerId> {
            OwnerId::new(0, 1)
        }
        fn is_dead(&self, owner: OwnerId) -> bool {
            self.asked.set(self.asked.get() + 1);
            owner.index() == self.dead
        }
    }

    fn owner(at: usize) -> Option<OwnerId> {
        OwnerId::new(u32::try_from(at).unwrap(), 1)
    }

    #[test]
    fn each_owner_is_asked_about_within_as_many_calls_as_it_takes() {
        let (life, mut prober) = (Life { dead: 40, asked: Cell::new(0) }, Prober::default());
        let mut find = || prober.find_dead(50, owner(0).unwrap(), &life, owner);
        assert_eq!((find(), find(), find()), (None, None, owner(40)));
        assert!(life.asked.get() <= 48);
    }

    #[test]
    fn nobody_is_asked_about_twice_and_not_this_process() {
        let (life, mut prober) = (Life { dead: 9, asked: Cell::new(0) }, Prober::default());
        assert_eq!(prober.find_dead(100, owner(0).unwrap(), &life, |at| owner(at % 3)), None);
        assert_eq!(life.asked.get(), 2);
        assert_eq!(prober.find_dead(100, owner(0).unwrap(), &life, |_| None), None);
    }
}

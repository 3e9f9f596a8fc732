//! What was sent through a connection and has not arrived, as far as its sender knows.
//!
//! It stays in a list of the sending half's, until the peer has done with its message or is gone; what was not taken then is
//! closed ([`InTransit::lost`]). Looked at: whenever that half sends, when it is dropped, and when this process learns of a
//! child's end, which is why the lists of all halves of this process are known here.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crosslane_core::Trusted;

use crate::place::Placed;
use crate::shm::Record;
use crate::wire::InTransit;

/// What one half has sent, each with the position behind its message.
#[derive(Debug)]
pub(super) struct Underway {
    ring: Placed<Record<Trusted>>,
    goods: Mutex<Vec<(u64, InTransit)>>,
}

static ALL: Mutex<Vec<Weak<Underway>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Underway {
    /// The list of the half that sends into `ring`.
    pub(super) fn new(ring: Placed<Record<Trusted>>) -> Arc<Self> {
        let underway = Arc::new(Self { ring, goods: Mutex::default() });
        let mut all = locked(&ALL);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&underway));
        underway
    }

    pub(super) fn add(&self, position: u64, goods: InTransit) {
        locked(&self.goods).push((position, goods));
    }

    /// Closes what was not taken of the messages that `is_done` says it of; whether nothing is left.
    pub(super) fn settle(&self, is_done: impl Fn(u64) -> bool) -> bool {
        let mut goods = locked(&self.goods);
        let (done, left): (Vec<_>, Vec<_>) =
            mem::take(&mut *goods).into_iter().partition(|(position, _)| is_done(*position));
        let is_empty = left.is_empty();
        *goods = left;
        drop(goods);
        done.into_iter().for_each(|(_, goods)| goods.lost());
        is_empty
    }
}

/// A child's end is on record: what was on its way to it through any connection of this process is closed.
pub(crate) fn settle_after_a_death() {
    let all: Vec<_> = locked(&ALL).iter().filter_map(Weak::upgrade).collect();
    for underway in all {
        if super::half::is_read(&underway.ring).is_err() {
            underway.settle(|_| true);
        }
    }
}

//! Somebody among the sleeping consumers looks after what the others have taken.
//!
//! # What
//! A consumer that finds the queue empty, and nothing in anybody's hands, has nobody to probe, so it sleeps long. What
//! another takes after that and keeps would stay with it for as long, should it be killed. So who takes an item to keep it
//! wakes one of those who sleep; that one finds the claim, and probes its owner every 10 ms: it *watches*. While somebody
//! watches, nobody is woken for that. Where nothing is kept, nobody watches, and all sleep long.
//!
//! A process that dies takes all its threads along, so a thread is no watcher of what its own process holds; and where all
//! who sleep are threads of the process that holds, nobody need be woken.
//!
//! # Words
//! | `watch` | meaning |
//! |---|---|
//! | 0 | nobody is known to watch |
//! | an id | that participant has a thread that watches |
//! | an id and `ALONE` | whoever may sleep was woken after that participant held something; to itself: nobody else sleeps |
//!
//! # Protocol
//! Keep, after pop 2 ([`Consumers::call_watch`]):
//! 1. light fence;
//! 2. `watch` names another who watches, or me as alone: done;
//! 3. wake one, if one may sleep.
//!
//! Sleep ([`Consumers::sleep`], [`Ring::stand_watch`]), around the steps of `event.rs`:
//! 1. `watch` says that another is alone: CAS it to 0;
//! 2. announce; heavy fence; look for items;
//! 3. a thread of mine reads a slot, and `watch` is 0 or names me: CAS it to me, `ALONE`; then wake everybody;
//! 4. else another holds a slot, and `watch` is 0 or says that somebody is alone: CAS it to me;
//! 5. sleep: at most 10 ms if another holds a slot, else long;
//! 6. `watch` names me: CAS it to 0.
//!
//! Then, in vain: `watch` names one who is proven dead: CAS it to 0.
//!
//! Who relies on a watcher, in 2 of keep, is right: the watcher takes its name back, in 6 of sleep, before the fence of its
//! next look, so either the claim is in that look or the name is not in 2. Two threads of one process may take each other's
//! name back, and one may sleep watching without being named: that costs a wake in vain.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `mpmc.watch` | keep 1: full fence | sleep 2: full fence | none; store-load order: either who keeps sees `watch` and the sleepers' flag as the sleeper left them, or the sleeper sees the claim | `watch` |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | pop 2 and keep 3 | a claim that nobody may watch: found when the sleep of one who sleeps ends, after at most 1 s |
//! | sleep 4 and 6 | a name that stays until somebody's sleep ends in vain, after at most 1 s; what is claimed meanwhile has no watcher |
//! | sleep 3, CAS and wake | a name that says nothing to others |
//!
//! A watcher that is stopped (SIGSTOP) is as one that is killed, but that nobody takes its name away.

use super::Ring;
use super::word::{SlotWord, State};
use crate::event::{EventWord, Light, Slept};
use crate::owner::OwnerId;
use crate::prim::{AtomicU32, Ordering};
use crate::wait::{Liveness, Slice, Wait, WakeMode};

/// Beside an id: no thread of another participant need be woken for what this one holds.
const ALONE: u32 = 1 << 31;

/// What consumers sleep on.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Consumers {
    pub(super) event: EventWord,
    watch: AtomicU32,
}

impl Consumers {
    /// Keep 1-3: wakes one who sleeps if nobody watches.
    #[inline]
    pub(super) fn call_watch<W: Wait>(&self, me: OwnerId, light: Light, wait: &W) {
        // ORDERING mpmc.watch: SeqCst fence, in `wake_if`. Forbids: this load and that of the sleepers' flag pass the claim,
        // while the sleeper's look passes its announcement, so that nobody is woken and the sleeper, who has seen nobody
        // hold anything, sleeps long. Pairs with the fence in `sleep`.
        self.event.wake_if(light, 1, wait, || {
            let seen = self.watch.load(Ordering::Relaxed);
            let is_watched = seen & ALONE == 0 && seen != 0 && seen != me.to_word();
            !is_watched && seen != me.to_word() | ALONE
        });
    }

    /// Sleep 1-6; `look` says for how long.
    pub(super) fn sleep<W: Wait>(
        &self,
        me: OwnerId,
        mode: WakeMode,
        deadline: W::Deadline,
        wait: &W,
        look: impl FnOnce() -> Option<Slice>,
    ) -> Slept {
        // ORDERING: Relaxed, here and below: the fences order.
        let seen = self.watch.load(Ordering::Relaxed);
        if seen & ALONE != 0 && seen != me.to_word() | ALONE {
            self.change(seen, 0);
        }
        // ORDERING mpmc.watch: SeqCst fence, in `sleep_as` between the announcement and the look. Pairs with the one in
        // `call_watch`.
        let slept = self.event.sleep_as(mode, deadline, wait, look);
        self.forget(me);
        slept
    }

    /// Takes a dead watcher's name back.
    pub(super) fn forget_dead<L: Liveness>(&self, life: &L) {
        let seen = self.watch.load(Ordering::Relaxed);
        if let Some(owner) = OwnerId::from_word(seen)
            && seen & ALONE == 0
            && life.me() != Some(owner)
            && life.is_dead(owner)
        {
            self.change(seen, 0);
        }
    }

    /// Takes a watcher's name back.
    pub(super) fn forget(&self, owner: OwnerId) {
        if self.watch.load(Ordering::Relaxed) == owner.to_word() {
            self.change(owner.to_word(), 0);
        }
    }

    fn change(&self, seen: u32, to: u32) -> bool {
        self.watch.compare_exchange(seen, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Ring<'_> {
    /// Sleep 3-5: becomes the watcher if one is needed; for how long to sleep.
    pub(super) fn stand_watch<W: Wait>(&self, me: OwnerId, wait: &W) -> Slice {
        let (mut mine, mut others) = (false, false);
        for slot in self.slots_in(|state| matches!(state, State::Writing | State::Reading)) {
            let word = SlotWord(self.word(slot).load(Ordering::Relaxed));
            mine |= word.owner() == Some(me) && word.state() == Some(State::Reading);
            others |= word.owner().is_some_and(|owner| owner != me);
        }
        let consumers = &self.header().not_empty.0;
        let seen = consumers.watch.load(Ordering::Relaxed);
        if mine && (seen == 0 || seen == me.to_word()) {
            if consumers.change(seen, me.to_word() | ALONE) {
                consumers.event.wake(u32::MAX, self.mode, wait);
            }
        } else if others && (seen == 0 || seen & ALONE != 0) {
            consumers.change(seen, me.to_word());
        }
        // Whoever holds a slot counts as named: it may be dead, and what it held may be what is waited for.
        if others { Slice::Owner } else { Slice::Long }
    }
}

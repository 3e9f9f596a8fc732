//! Queues that are broken on purpose: the sweep must find them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::mpmc::Recovered;
use crosslane_core::{Liveness, OwnerId, Wait};
use crosslane_tests::mapping::Mapping;

use crate::channel::{Stop, mirror, whole};
use crate::queue::{
    Bare, Fixed, FixedHand, Hand, Items, LAP_SHIFT, OWNER, READING, ROOM, Raw, SLOT_WORDS, SLOTS, SLOTS_AT, STATE,
    Taken, Then, Work,
};

type Inner<'m, E> = FixedHand<'m, Bare<Items<'m, E>>>;

/// Seeded: a sound queue, used by somebody who acknowledges before the work.
#[derive(Debug)]
pub(crate) struct AcksFirst<Q>(Q);

/// Its handle.
#[derive(Debug)]
pub(crate) struct AcksFirstHand<H>(H);

impl<'m, Q: Work<'m>> Work<'m> for AcksFirst<Q> {
    type Hand<E: Wait + Liveness> = AcksFirstHand<Q::Hand<E>>;
    fn make(memory: &'m Mapping, max_attempts: u32) -> Self {
        Self(Q::make(memory, max_attempts))
    }
    fn hand<E: Wait + Liveness>(&self, env: E) -> Self::Hand<E> {
        AcksFirstHand(self.0.hand(env))
    }
}

impl<H: Hand> Hand for AcksFirstHand<H> {
    fn push(&self, item: u64, time: Option<Duration>) -> Result<(), Stop> {
        self.0.push(item, time)
    }
    fn take(&self, time: Option<Duration>, then: Then, work: impl FnOnce(u64)) -> Result<Taken, Stop> {
        let taken = self.0.take(time, then, |_| {});
        if let Ok((item, _)) = taken {
            work(item);
        }
        taken
    }
    fn pop(&self, time: Option<Duration>) -> Result<u64, Stop> {
        self.0.pop(time)
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// Seeded: who learns of a death frees all that the dead one held, what it was reading like what it was writing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreesAll<'m>(Fixed<'m>);

/// Its handle.
#[derive(Debug)]
pub(crate) struct FreesAllHand<'m, E>(Inner<'m, E>, &'m Raw);

impl<'m> Work<'m> for FreesAll<'m> {
    type Hand<E: Wait + Liveness> = FreesAllHand<'m, E>;
    fn make(memory: &'m Mapping, max_attempts: u32) -> Self {
        Self(Fixed::make(memory, max_attempts))
    }
    fn hand<E: Wait + Liveness>(&self, env: E) -> Self::Hand<E> {
        FreesAllHand(self.0.hand(env), self.0.1)
    }
}

impl<E: Wait + Liveness> Hand for FreesAllHand<'_, E> {
    fn push(&self, item: u64, time: Option<Duration>) -> Result<(), Stop> {
        self.0.push(item, time)
    }
    fn take(&self, time: Option<Duration>, then: Then, work: impl FnOnce(u64)) -> Result<Taken, Stop> {
        self.0.take(time, then, work)
    }
    fn pop(&self, time: Option<Duration>) -> Result<u64, Stop> {
        self.0.pop(time)
    }
    fn recover(&self, owner: OwnerId) -> Recovered {
        for slot in 0..SLOTS as usize {
            let word = &self.1[SLOTS_AT + SLOT_WORDS * slot];
            let seen = word.load(SeqCst);
            if seen & (STATE | OWNER) == READING | u64::from(owner.to_word()) {
                word.store(((seen >> LAP_SHIFT) + 1) << LAP_SHIFT, SeqCst);
            }
        }
        self.0.recover(owner)
    }
    fn take_letter(&self) -> Result<Option<u64>, Stop> {
        self.0.take_letter()
    }
    fn letters(&self) -> (u64, u64) {
        self.0.letters()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// Seeded: Vyukov's bounded queue (2010), in which a slot that was claimed does not say by whom.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct TicketWords {
    tail: AtomicU64,
    head: AtomicU64,
    /// Sequence and item. The sequence counts from 0 in each slot, so that all zero is an empty queue.
    slots: [[AtomicU64; 3]; SLOTS as usize],
}

/// The queue of tickets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tickets<'m>(&'m TicketWords);

/// Its handle.
#[derive(Debug)]
pub(crate) struct TicketsHand<'m, E: Wait>(&'m TicketWords, E);

impl<'m> Work<'m> for Tickets<'m> {
    type Hand<E: Wait + Liveness> = TicketsHand<'m, E>;
    fn make(memory: &'m Mapping, _: u32) -> Self {
        // SAFETY: only integers in atomics: every bit pattern is one.
        Self(unsafe { memory.at(0) })
    }
    fn hand<E: Wait + Liveness>(&self, env: E) -> Self::Hand<E> {
        TicketsHand(self.0, env)
    }
}

impl<E: Wait> TicketsHand<'_, E> {
    /// Takes a ticket for the slot whose sequence is `due` ahead of the ticket's lap.
    fn ticket(&self, counter: &AtomicU64, due: u64) -> Result<(&[AtomicU64; 3], u64), Stop> {
        loop {
            let ticket = counter.load(SeqCst);
            let slot = &self.0.slots[usize::try_from(ticket % ROOM).unwrap_or(0)];
            let lap = ticket / ROOM * 2 + due;
            if slot[0].load(SeqCst) != lap {
                return Err(Stop::NotNow);
            }
            if counter.compare_exchange(ticket, ticket + 1, SeqCst, SeqCst).is_ok() {
                return Ok((slot, lap));
            }
        }
    }

    /// Repeats `attempt` until it has an answer or the time is over.
    fn wait<R>(&self, time: Option<Duration>, mut attempt: impl FnMut() -> Result<R, Stop>) -> Result<R, Stop> {
        let deadline = self.1.after(time.unwrap_or(Duration::ZERO));
        loop {
            let word = AtomicU32::new(0);
            match attempt() {
                Err(Stop::NotNow) if time.is_none() => return Err(Stop::NotNow),
                Err(Stop::NotNow) => {}
                done => return done,
            }
            let slice = crosslane_core::Slice::Owner;
            if self.1.park(&word, 0, slice, deadline) == crosslane_core::Parked::Expired {
                return Err(Stop::TimedOut);
            }
        }
    }
}

impl<E: Wait + Liveness> Hand for TicketsHand<'_, E> {
    fn push(&self, item: u64, time: Option<Duration>) -> Result<(), Stop> {
        let (slot, lap) = self.wait(time, || self.ticket(&self.0.tail, 0))?;
        slot[1].store(item, SeqCst);
        slot[2].store(mirror(item), SeqCst);
        slot[0].store(lap + 1, SeqCst);
        Ok(())
    }
    fn take(&self, time: Option<Duration>, _: Then, work: impl FnOnce(u64)) -> Result<Taken, Stop> {
        let (slot, lap) = self.wait(time, || self.ticket(&self.0.head, 1))?;
        let item = whole(slot[1].load(SeqCst), slot[2].load(SeqCst))?;
        work(item);
        slot[0].store(lap + 1, SeqCst);
        Ok((item, 0))
    }
    fn pop(&self, time: Option<Duration>) -> Result<u64, Stop> {
        self.take(time, Then::Settle, |_| {}).map(|(item, _)| item)
    }
    fn len(&self) -> u64 {
        self.0.slots.iter().filter(|slot| slot[0].load(SeqCst) % 2 == 1).count() as u64
    }
}

//! The family of locks against what std's would say, were they owned by processes: sequences of calls by processes that die and
//! are replaced.
#![allow(unsafe_code)]

use core::num::NonZeroU32;
use core::time::Duration;
use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use crosslane_core::lock::barrier::{Barrier, BarrierError, Passed};
use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::lock::permits::{AcquireError, OverRelease, Permits, Place};
use crosslane_core::lock::rlock::{NotOwner, RLockError, RLockWords};
use crosslane_core::lock::rwlock::{ReadPlace, RwLockError, RwWords};
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::mutex::{Acquired, LockError};
use crosslane_core::{OwnerId, Wait};

use crate::arena::Arena;
use crate::surroundings::{Env, World};

/// Processes at a time.
const PLACES: usize = 4;
/// The last process that takes a dead one's place: a world tells so many apart.
const LAST: u32 = 120;
/// Permits, and processes that can read at once.
const PERMITS: u32 = 3;

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Kill { who: u8 },
    RLock { who: u8, thread: u8, parks: Option<u8> },
    RUnlock { who: u8, thread: u8 },
    Break { who: u8, thread: u8, broken: bool },
    Read { who: u8, parks: Option<u8> },
    EndRead { which: u8 },
    Write { who: u8, parks: Option<u8> },
    EndWrite { who: u8, poison: bool },
    Acquire { who: u8, parks: Option<u8> },
    Release { which: u8, twice: bool },
    Detach { which: u8 },
    ReleaseAny { who: u8 },
    Count { permits: u8, taken: u8 },
    Flag { sets: bool, parks: u8 },
    Begin { who: u8, parks: u8 },
    Finish { who: u8, done: bool },
    Meet { who: u8, parks: u8 },
    Barrier { who: u8, deed: u8 },
    Reap { who: u8 },
}

/// Runs one input. Planted: a reentrant lock that forgets at depth 3 that what it guards is broken.
///
/// # Panics
/// When a lock and its model differ.
pub fn run(data: &[u8], planted: bool) {
    let Some((parties, ops)) = crate::decode::<(u8, Vec<Op>)>(data) else { return };
    let parties = u32::from(parties % 3) + 1;
    let len = |layout: Result<core::alloc::Layout, _>| layout.expect("few").size();
    let permits = Arena::new(len(Permits::layout(PERMITS)), parties == 1);
    let barrier = Arena::new(len(Barrier::layout(parties)), parties == 1);
    let world = World::default();
    let mut play = Play {
        world: &world,
        // SAFETY: the arena is as long as the layout says, and outlives the handle.
        permits: unsafe { Permits::init(permits.base(), permits.len_bytes(), PERMITS) }.expect("fits"),
        // SAFETY: as above.
        barrier: unsafe { Barrier::init(barrier.base(), barrier.len_bytes(), parties) }.expect("fits"),
        locks: Locks::default(),
        model: Model { party_at: vec![None; parties as usize], ..Model::default() },
        places: [0, 1, 2, 3],
        next: 4,
        planted,
    };
    for op in ops {
        world.next_operation();
        play.step(op);
        play.compare();
    }
}

/// Those that need no memory of their own.
#[derive(Default)]
struct Locks {
    rlock: RLockWords,
    rwlock: RwWords<{ PERMITS as usize }>,
    semaphore: SemaphoreWords,
    flag: FlagWord,
    once: OnceWords,
}

/// A lock with an owner, by index.
#[derive(Debug, Default, Clone, Copy)]
struct Owned {
    by: Option<u32>,
    poisoned: bool,
}

#[derive(Debug, Default)]
struct Model {
    rlock: Owned,
    thread: u8,
    depth: u32,
    gate: Owned,
    /// Whether a writer has been at the value and not said since that it is whole.
    half_done: bool,
    /// Each reader's process.
    readers: Vec<(u32, ReadPlace)>,
    permits: Vec<(u32, Place, bool)>,
    count: u32,
    flag: bool,
    once: Owned,
    done: bool,
    party_at: Vec<Option<u32>>,
    broken: bool,
}

struct Play<'m> {
    world: &'m World,
    permits: Permits<'m>,
    barrier: Barrier<'m>,
    locks: Locks,
    model: Model,
    places: [u32; PLACES],
    next: u32,
    planted: bool,
}

fn thread(number: u8) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(u32::from(number % 2))
}

fn id(index: u32) -> OwnerId {
    OwnerId::new(index, 1).expect("in range")
}

impl Owned {
    /// What taking it gives: how it was left, or who has it.
    fn take(&mut self, me: u32, is_dead: impl Fn(u32) -> bool) -> Result<Acquired, u32> {
        let acquired = match self.by {
            Some(owner) if owner == me || !is_dead(owner) => return Err(owner),
            Some(_) => Acquired::OwnerDied,
            None if self.poisoned => Acquired::Poisoned,
            None => Acquired::Clean,
        };
        *self = Self { by: Some(me), poisoned: acquired != Acquired::Clean };
        Ok(acquired)
    }

    fn free(&mut self, poisoned: bool) {
        *self = Self { by: None, poisoned };
    }
}

impl<'m> Play<'m> {
    fn who(&self, who: u8) -> (u32, Env<'m>) {
        let index = self.places[usize::from(who) % PLACES];
        (index, Env::new(self.world, index))
    }

    fn is_dead(&self) -> impl Fn(u32) -> bool + use<'m> {
        let world = self.world;
        move |index| world.is_buried(index)
    }

    fn deadline(&self, parks: u8) -> u64 {
        self.who(0).1.after(Duration::from_nanos(u64::from(parks % 16)))
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Kill { who } if self.next < LAST => {
                let place = usize::from(who) % PLACES;
                self.world.bury(self.places[place]);
                self.places[place] = self.next;
                self.next += 1;
            }
            Op::Kill { .. } => {}
            Op::RLock { who, thread, parks } => self.rlock(who, thread, parks),
            Op::RUnlock { who, thread } => self.runlock(who, thread),
            Op::Break { who, thread: t, broken } => {
                let (me, env) = self.who(who);
                let is_mine = self.model.rlock.by == Some(me) && self.model.thread == t % 2;
                assert_eq!(self.locks.rlock.set_broken(broken, thread(t), &env), is_mine.then_some(()).ok_or(NotOwner));
                if is_mine {
                    self.model.rlock.poisoned = broken;
                }
            }
            Op::Read { who, parks } => self.read(who, parks),
            Op::EndRead { which } => {
                if !self.model.readers.is_empty() {
                    let at = usize::from(which) % self.model.readers.len();
                    let (reader, place) = self.model.readers.swap_remove(at);
                    self.locks.rwlock.unlock_read(place, &Env::new(self.world, reader));
                }
            }
            Op::Write { who, parks } => self.write(who, parks),
            Op::EndWrite { who, poison } => {
                let (me, env) = self.who(who);
                self.locks.rwlock.unlock_write(&env, poison);
                if self.model.gate.by == Some(me) {
                    self.model.half_done &= poison;
                    self.model.gate.free(poison);
                }
            }
            Op::Count { permits, taken } => self.count(permits.into(), taken),
            Op::Flag { sets, parks } => self.flag(sets, parks),
            _ => self.step_on(op),
        }
    }

    fn step_on(&mut self, op: Op) {
        match op {
            Op::Acquire { who, parks } => self.acquire(who, parks),
            Op::Release { which, twice } => self.release(which, twice),
            Op::Detach { which } => {
                if let Some((holder, place, detached)) = self.permit(which) {
                    let expected = if detached { Err(OverRelease) } else { Ok(()) };
                    assert_eq!(self.permits.detach(place, &Env::new(self.world, holder)), expected);
                    self.model.permits.push((holder, place, true));
                }
            }
            Op::ReleaseAny { who } => {
                let (me, env) = self.who(who);
                let permits = &mut self.model.permits;
                // The first one. There are fewer than ten, so that their names are in their order.
                let detached =
                    (0..permits.len()).filter(|at| matches!(permits[*at], (holder, _, true) if holder == me));
                let first = detached.min_by_key(|at| format!("{:?}", permits[*at].1));
                assert_eq!(self.permits.release_any(&env), first.map(|_| ()).ok_or(OverRelease));
                first.map(|at| permits.swap_remove(at));
            }
            Op::Begin { who, parks } => self.begin(who, parks),
            Op::Finish { who, done } => {
                let (me, env) = self.who(who);
                self.locks.once.finish(done, &env);
                if self.model.once.by == Some(me) {
                    self.model.done |= done;
                    self.model.once.free(!done);
                }
            }
            Op::Meet { who, parks } => self.meet(who, parks),
            Op::Barrier { who, deed } => self.barrier(who, deed),
            Op::Reap { who } => self.reap(who),
            _ => {}
        }
    }

    fn rlock(&mut self, who: u8, t: u8, parks: Option<u8>) {
        let ((me, env), is_dead) = (self.who(who), self.is_dead());
        let again = self.model.rlock.by == Some(me) && self.model.thread == t % 2;
        let expected = if again {
            self.model.depth += 1;
            Ok(if self.model.rlock.poisoned { Acquired::Poisoned } else { Acquired::Clean })
        } else {
            let taken = self.model.rlock.take(me, is_dead).map_err(|owner| RLockError::Held(Some(id(owner))));
            if taken.is_ok() {
                (self.model.thread, self.model.depth) = (t % 2, 1);
            }
            taken
        };
        let found = match parks {
            None => self.locks.rlock.try_lock(thread(t), &env),
            Some(parks) => self.locks.rlock.lock(thread(t), &env, self.deadline(parks)),
        };
        assert_eq!(found, expected);
        if self.planted && self.model.depth == 3 {
            let _ = self.locks.rlock.set_broken(false, thread(t), &env);
        }
    }

    fn runlock(&mut self, who: u8, t: u8) {
        let (me, env) = self.who(who);
        let is_mine = self.model.rlock.by == Some(me) && self.model.thread == t % 2;
        assert_eq!(self.locks.rlock.unlock(thread(t), &env), is_mine.then_some(()).ok_or(NotOwner));
        if is_mine {
            self.model.depth -= 1;
            if self.model.depth == 0 {
                self.model.rlock.free(self.model.rlock.poisoned);
            }
        }
    }

    /// Who reads and lives.
    fn living_readers(&self) -> BTreeMap<u32, usize> {
        let mut readers = BTreeMap::new();
        for (reader, _) in self.model.readers.iter().filter(|(reader, _)| !self.world.is_buried(*reader)) {
            *readers.entry(*reader).or_default() += 1;
        }
        readers
    }

    /// The gate, for one who passes or stays: how the value was left, or who has it.
    fn at_gate(&mut self, me: u32) -> Result<Acquired, RwLockError> {
        let is_dead = self.is_dead();
        match self.model.gate.take(me, is_dead) {
            Err(owner) => Err(RwLockError::Held(Some(id(owner)))),
            Ok(Acquired::OwnerDied) if !self.model.half_done => Ok(Acquired::Clean),
            Ok(acquired) => Ok(acquired),
        }
    }

    fn read(&mut self, who: u8, parks: Option<u8>) {
        let (me, env) = self.who(who);
        let readers = self.living_readers();
        let has_room = readers.contains_key(&me) || readers.len() < PERMITS as usize;
        let expected = self.at_gate(me).and_then(|acquired| {
            self.model.gate.free(acquired != Acquired::Clean);
            if has_room { Ok(acquired) } else { Err(RwLockError::Full) }
        });
        let hint = ReadPlace::hint(u32::from(who) / 4);
        let found = match parks {
            None => self.locks.rwlock.try_read(hint, &env),
            Some(parks) => self.locks.rwlock.read(hint, &env, self.deadline(parks)),
        };
        assert_eq!(found.map(|(_, acquired)| acquired), expected);
        if let Ok((place, _)) = found {
            self.model.readers.push((me, place));
        }
    }

    fn write(&mut self, who: u8, parks: Option<u8>) {
        let (me, env) = self.who(who);
        let readers = self.living_readers();
        let expected = self.at_gate(me);
        let found = match parks {
            None => self.locks.rwlock.try_write(&env),
            Some(parks) => self.locks.rwlock.write(&env, self.deadline(parks)),
        };
        match expected {
            Ok(acquired) if !readers.is_empty() => {
                self.model.gate.free(acquired != Acquired::Clean);
                let Err(RwLockError::Held(Some(reader))) = found else { panic!("{found:?}, and {readers:?} read") };
                assert!(readers.contains_key(&reader.index()), "{reader} reads, and not {readers:?}");
            }
            expected => {
                assert_eq!(found, expected);
                self.model.half_done |= expected.is_ok();
            }
        }
    }

    fn acquire(&mut self, who: u8, parks: Option<u8>) {
        let (me, env) = self.who(who);
        let is_dead = self.is_dead();
        let living = self.model.permits.iter().filter(|(holder, ..)| !is_dead(*holder)).count();
        let found = match parks {
            None => self.permits.try_acquire(&env),
            Some(parks) => self.permits.acquire(&env, self.deadline(parks)),
        };
        if living < PERMITS as usize {
            let place = found.unwrap_or_else(|error| panic!("{error} with {living} held by the living"));
            self.model.permits.retain(|(_, held, _)| *held != place);
            self.model.permits.push((me, place, false));
        } else {
            let none = if parks.is_none() { AcquireError::WouldBlock } else { AcquireError::TimedOut };
            assert_eq!(found, Err(none));
        }
    }

    /// Takes one of the permits that the living hold out of the model.
    fn permit(&mut self, which: u8) -> Option<(u32, Place, bool)> {
        let is_dead = self.is_dead();
        let living: Vec<usize> =
            (0..self.model.permits.len()).filter(|at| !is_dead(self.model.permits[*at].0)).collect();
        let at = living.get(usize::from(which) % living.len().max(1))?;
        Some(self.model.permits.swap_remove(*at))
    }

    fn release(&mut self, which: u8, twice: bool) {
        let Some((holder, place, detached)) = self.permit(which) else { return };
        let env = Env::new(self.world, holder);
        let expected = if detached { Err(OverRelease) } else { Ok(()) };
        assert_eq!(self.permits.release(place, &env), expected);
        if detached {
            self.model.permits.push((holder, place, true));
        } else if twice {
            assert_eq!(self.permits.release(place, &env), Err(OverRelease), "the second time");
        }
    }

    fn count(&mut self, permits: u32, taken: u8) {
        let env = self.who(0).1;
        assert_eq!(self.locks.semaphore.release(permits, &env), Ok(()));
        assert_eq!(self.locks.semaphore.release(u32::MAX - permits, &env), Err(OverRelease));
        self.model.count += permits;
        for n in 0..u32::from(taken) {
            let (expected, left) = match self.model.count.checked_sub(1) {
                Some(left) => (Ok(()), left),
                None if n % 2 == 0 => (Err(AcquireError::WouldBlock), 0),
                None => (Err(AcquireError::TimedOut), 0),
            };
            let semaphore = &self.locks.semaphore;
            let found = if n % 2 == 0 { semaphore.try_acquire() } else { semaphore.acquire(&env, self.deadline(1)) };
            assert_eq!(found, expected);
            self.model.count = left;
        }
    }

    fn flag(&mut self, sets: bool, parks: u8) {
        let env = self.who(0).1;
        if sets {
            self.locks.flag.set(&env);
        } else {
            self.locks.flag.clear();
        }
        self.model.flag = sets;
        assert_eq!(self.locks.flag.wait(&env, self.deadline(parks)), sets);
    }

    fn begin(&mut self, who: u8, parks: u8) {
        let ((me, env), is_dead) = (self.who(who), self.is_dead());
        let expected = if self.model.done {
            Ok(Begun::Done)
        } else {
            let taken = self.model.once.take(me, is_dead);
            taken.map(Begun::Mine).map_err(|owner| LockError::TimedOut(Some(id(owner))))
        };
        assert_eq!(self.locks.once.begin(&env, self.deadline(parks)), expected);
    }

    fn meet(&mut self, who: u8, parks: u8) {
        let ((me, env), is_dead) = (self.who(who), self.is_dead());
        let parties = self.model.party_at.len();
        let mut acted = false;
        let found = self.barrier.wait(&env, self.deadline(parks), || acted = true);
        if self.model.broken {
            assert_eq!((found, acted), (Err(BarrierError::Broken), false));
            return;
        }
        let preferred = [Some(me), None].iter().find_map(|by| self.model.party_at.iter().position(|at| at == by));
        let place = preferred.unwrap_or(0);
        self.model.party_at[place] = Some(me);
        if parties == 1 {
            assert_eq!((found, acted), (Ok(Passed { index: 0, is_leader: true }), true));
            return;
        }
        let dies = self.model.party_at.iter().flatten().any(|party| is_dead(*party));
        let expected = if dies && parks % 16 > 1 { BarrierError::Broken } else { BarrierError::TimedOut };
        assert_eq!((found, acted), (Err(expected), false));
        self.model.broken = true;
    }

    fn barrier(&mut self, who: u8, deed: u8) {
        let ((me, env), is_dead) = (self.who(who), self.is_dead());
        let model = &mut self.model;
        match deed % 3 {
            0 => {
                self.barrier.abort(&env);
                model.broken = true;
            }
            1 => {
                self.barrier.reset(&env);
                model.broken = false;
                model.party_at.iter_mut().filter(|at| at.is_some_and(&is_dead)).for_each(|at| *at = None);
            }
            _ => {
                self.barrier.withdraw(&env);
                model.party_at.iter_mut().filter(|at| **at == Some(me)).for_each(|at| *at = None);
            }
        }
    }

    /// What a reaper does, for everybody who is dead.
    fn reap(&mut self, who: u8) {
        let ((_, env), is_dead) = (self.who(who), self.is_dead());
        self.permits.reap(&env, &env);
        self.locks.rwlock.reap(&env, &env);
        self.barrier.reap(&env, &env);
        self.model.permits.retain(|(holder, ..)| !is_dead(*holder));
        self.model.readers.retain(|(reader, _)| !is_dead(*reader));
        self.model.broken |= self.model.party_at.iter().flatten().any(|party| is_dead(*party));
    }

    fn compare(&self) {
        assert_eq!(self.locks.semaphore.available(), self.model.count);
        assert_eq!(self.locks.flag.is_set(), self.model.flag);
        assert_eq!(self.locks.once.is_done(), self.model.done);
        assert_eq!((self.barrier.is_broken(), self.barrier.waiting()), (self.model.broken, 0));
        let is_dead = self.is_dead();
        let living = self.model.permits.iter().filter(|(holder, ..)| !is_dead(*holder)).count();
        let held = (self.permits.limit() - self.permits.available()) as usize;
        assert!((living..=self.model.permits.len()).contains(&held), "{held} held, {:?}", self.model.permits);
    }
}

//! Every call of the family of locks on memory that a hostile peer writes: reentrant, readers and a writer, permits, a count, a
//! flag, a condition, work done once, and a barrier.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::Wait;
use crosslane_core::lock::barrier::Barrier;
use crosslane_core::lock::condvar::CondvarWord;
use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::lock::permits::{Permits, Place};
use crosslane_core::lock::rlock::RLockWords;
use crosslane_core::lock::rwlock::{ReadPlace, RwWords};
use crosslane_core::lock::semaphore::SemaphoreWords;

use crate::arena::{Arena, Poke, Start};
use crate::surroundings::{Env, World};

/// Where each lock lies, in bytes.
const RLOCK: usize = 0;
const RWLOCK: usize = 64;
const PERMITS: usize = 128;
const SEMAPHORE: usize = 192;
const FLAG: usize = 200;
const CONDVAR: usize = 204;
const ONCE: usize = 208;
const BARRIER: usize = 256;
/// Bytes of all of them, in 32-bit words but for some.
pub(crate) const NARROW_BYTES: usize = 320;
/// And of the arena, whose last words nobody uses.
const BYTES: usize = 384;
/// The holder of the reentrant lock; the barrier's phase, and its places.
pub(crate) const WIDE: &[usize] = &[RLOCK, BARRIER, BARRIER + 16, BARRIER + 24, BARRIER + 32];
/// Readers, permits and parties.
const PLACES: u32 = 3;
/// Places that are held at once.
const MOST_HELD: usize = 6;
const _: () = assert!(size_of::<RwWords<{ PLACES as usize }>>() <= PERMITS - RWLOCK);

#[derive(Debug, Arbitrary)]
struct Input {
    start: Start,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Op {
    Poke(Poke),
    /// A word that names somebody, in one of the narrow ones.
    Owner {
        at: u8,
        index: u16,
        generation: u8,
        flags: u16,
    },
    /// A word that means something to a barrier.
    Barrier {
        at: u8,
        attempt: u8,
        completed: u8,
        state: u8,
        owner: u8,
    },
    Bury(u8),
    RLock {
        who: u8,
        thread: u8,
        parks: u8,
    },
    RUnlock {
        who: u8,
        thread: u8,
        broken: bool,
    },
    Read {
        who: u8,
        hint: u8,
        parks: u8,
    },
    EndRead(u8),
    Write {
        who: u8,
        parks: u8,
    },
    EndWrite {
        who: u8,
        poison: bool,
    },
    Acquire {
        who: u8,
        parks: u8,
    },
    Release(u8),
    Detach(u8),
    ReleaseAny(u8),
    Count {
        who: u8,
        permits: u8,
        parks: u8,
    },
    Flag {
        who: u8,
        sets: u8,
        parks: u8,
    },
    Wait {
        who: u8,
        parks: u8,
    },
    Notify {
        who: u8,
        waiters: u8,
    },
    Once {
        who: u8,
        done: bool,
        parks: u8,
    },
    Meet {
        who: u8,
        parks: u8,
    },
    Abort(u8),
    Reset(u8),
    Withdraw(u8),
    Recover {
        who: u8,
        index: u8,
    },
    Reap(u8),
    Look,
}

/// Runs one input. Planted: a tally of each process's readers with 256 rows, indexed by what a reader's word says.
///
/// # Panics
/// When a call does not return, or the planted bug is found.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let arena = arena(&input.start);
    play(&World::default(), &arena, true, &input.ops);
    if planted {
        tally(&arena);
    }
}

/// An arena with one of each lock, honest or not.
pub(crate) fn arena(start: &Start) -> Arena {
    let arena = Arena::new(BYTES, true);
    // All zero is a valid start of each.
    if let Start::Bytes(bytes) = start {
        arena.flood(bytes);
    }
    arena
}

/// Runs `ops`; pokes only if it is this thread that does.
pub(crate) fn play(world: &World, arena: &Arena, pokes: bool, ops: &[Op]) {
    let mut table = Table { locks: Locks::of(arena), world, arena, pokes, reading: Vec::new(), held: Vec::new() };
    for op in ops {
        world.next_operation();
        if !table.writes(*op) && !table.holds(*op) && !table.waits(*op) {
            table.repairs(*op);
        }
    }
    world.next_operation();
}

/// All of them, in one arena.
struct Locks<'m> {
    rlock: &'m RLockWords,
    rwlock: &'m RwWords<{ PLACES as usize }>,
    permits: Permits<'m>,
    semaphore: &'m SemaphoreWords,
    flag: &'m FlagWord,
    condvar: &'m CondvarWord,
    once: &'m OnceWords,
    barrier: Barrier<'m>,
}

impl<'m> Locks<'m> {
    fn of(arena: &'m Arena) -> Self {
        let bytes = |at: usize| NonNull::from(arena.word32(at / 4)).cast::<u8>();
        let len = |from: usize, to: usize| to - from;
        // SAFETY: inside the arena, aligned, and atomics as in the arena itself; the arena outlives `'m`.
        let permits = unsafe { Permits::attach(bytes(PERMITS), len(PERMITS, SEMAPHORE), PLACES) };
        // SAFETY: as above.
        let barrier = unsafe { Barrier::attach(bytes(BARRIER), len(BARRIER, NARROW_BYTES), PLACES) };
        Self {
            // SAFETY: as above.
            rlock: unsafe { bytes(RLOCK).cast().as_ref() },
            // SAFETY: as above.
            rwlock: unsafe { bytes(RWLOCK).cast().as_ref() },
            permits: permits.expect("fits"),
            // SAFETY: as above.
            semaphore: unsafe { bytes(SEMAPHORE).cast().as_ref() },
            // SAFETY: as above.
            flag: unsafe { bytes(FLAG).cast().as_ref() },
            // SAFETY: as above.
            condvar: unsafe { bytes(CONDVAR).cast().as_ref() },
            // SAFETY: as above.
            once: unsafe { bytes(ONCE).cast().as_ref() },
            barrier: barrier.expect("fits"),
        }
    }
}

struct Table<'m> {
    locks: Locks<'m>,
    world: &'m World,
    arena: &'m Arena,
    pokes: bool,
    reading: Vec<(u8, ReadPlace)>,
    held: Vec<(u8, Place)>,
}

fn pick<C>(claims: &mut Vec<C>, which: u8) -> Option<C> {
    (!claims.is_empty()).then(|| claims.swap_remove(usize::from(which) % claims.len()))
}

fn thread(number: u8) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(u32::from(number % 2))
}

impl<'m> Table<'m> {
    fn env(&self, who: u8) -> Env<'m> {
        Env::new(self.world, u32::from(who % 3))
    }

    fn deadline(&self, who: u8, parks: u8) -> u64 {
        self.env(who).after(Duration::from_nanos(u64::from(parks % 16)))
    }

    fn writes(&self, op: Op) -> bool {
        match op {
            Op::Poke(poke) if self.pokes => _ = poke.apply(self.arena, NARROW_BYTES, WIDE),
            Op::Owner { at, index, generation, flags } if self.pokes => {
                let at = usize::from(at) % (NARROW_BYTES / 4);
                if !WIDE.contains(&((at * 4) & !7)) {
                    let owner = u32::from(index % 1024) | u32::from(generation) << 10;
                    self.arena.word32(at).store(owner | u32::from(flags) << 22, Ordering::Relaxed);
                }
            }
            Op::Barrier { at, attempt, completed, state, owner } if self.pokes => {
                let (at, attempt) = (WIDE[1 + usize::from(at) % 4], u64::from(attempt));
                let word = if at == BARRIER {
                    attempt << 38 | u64::from(completed) << 12 | u64::from(state % 4) << 10
                } else {
                    let owner = Env::new(self.world, owner.into()).id().to_word();
                    attempt << 32 | u64::from(state % 4) << 30 | u64::from(owner)
                };
                self.arena.word64(at / 8).store(word, Ordering::Relaxed);
            }
            Op::Bury(index) => self.world.bury(index.into()),
            Op::Poke(_) | Op::Owner { .. } | Op::Barrier { .. } => {}
            _ => return false,
        }
        true
    }

    fn holds(&mut self, op: Op) -> bool {
        let Locks { rlock, rwlock, permits, .. } = &self.locks;
        match op {
            Op::RLock { who, thread: t, parks } => {
                let _ = rlock.try_lock(thread(t), &self.env(who));
                let _ = rlock.lock(thread(t), &self.env(who), self.deadline(who, parks));
            }
            Op::RUnlock { who, thread: t, broken } => {
                let _ = rlock.set_broken(broken, thread(t), &self.env(who));
                let _ = rlock.unlock(thread(t), &self.env(who));
            }
            Op::Read { who, hint, parks } => {
                let (env, hint) = (self.env(who), ReadPlace::hint(hint.into()));
                let first = rwlock.try_read(hint, &env);
                let second = rwlock.read(hint, &env, self.deadline(who, parks));
                self.reading.extend([first, second].into_iter().flatten().map(|(place, _)| (who, place)));
                self.reading.truncate(MOST_HELD);
            }
            Op::EndRead(which) => {
                if let Some((who, place)) = pick(&mut self.reading, which) {
                    assert!(place.number() < PLACES);
                    rwlock.unlock_read(place, &self.env(who));
                }
            }
            Op::Write { who, parks } => {
                let _ = rwlock.try_write(&self.env(who));
                let _ = rwlock.write(&self.env(who), self.deadline(who, parks));
            }
            Op::EndWrite { who, poison } => rwlock.unlock_write(&self.env(who), poison),
            Op::Acquire { who, parks } => {
                let env = self.env(who);
                let places = [permits.try_acquire(&env), permits.acquire(&env, self.deadline(who, parks))];
                self.held.extend(places.into_iter().flatten().map(|place| (who, place)));
                self.held.truncate(MOST_HELD);
            }
            Op::Release(which) => {
                if let Some((who, place)) = pick(&mut self.held, which) {
                    let _ = permits.release(place, &self.env(who));
                }
            }
            Op::Detach(which) => {
                if let Some((who, place)) = pick(&mut self.held, which) {
                    let _ = permits.detach(place, &self.env(who));
                }
            }
            Op::ReleaseAny(who) => _ = permits.release_any(&self.env(who)),
            _ => return false,
        }
        true
    }

    fn waits(&self, op: Op) -> bool {
        let Locks { semaphore, flag, condvar, once, barrier, .. } = &self.locks;
        match op {
            Op::Count { who, permits, parks } => {
                let _ = semaphore.release(u32::from(permits) << 24 >> (permits % 25), &self.env(who));
                let _ = semaphore.acquire(&self.env(who), self.deadline(who, parks));
                let _ = semaphore.try_acquire();
            }
            Op::Flag { who, sets, parks } => {
                if sets & 1 != 0 {
                    flag.set(&self.env(who));
                }
                if sets & 2 != 0 {
                    flag.clear();
                }
                black_box(flag.wait(&self.env(who), self.deadline(who, parks)));
            }
            Op::Wait { who, parks } => {
                let mut unlocked = 0;
                condvar.wait(&self.env(who), self.deadline(who, parks), || unlocked += 1);
                assert_eq!(unlocked, 1);
            }
            Op::Notify { who, waiters } => condvar.notify(waiters.into(), &self.env(who)),
            Op::Once { who, done, parks } => {
                if let Ok(Begun::Mine(_)) = once.begin(&self.env(who), self.deadline(who, parks)) {
                    once.finish(done, &self.env(who));
                }
            }
            Op::Meet { who, parks } => {
                let mut acted = 0;
                let passed = barrier.wait(&self.env(who), self.deadline(who, parks), || acted += 1);
                assert!(
                    passed.is_ok_and(|passed| passed.index < PLACES && passed.is_leader == (acted == 1))
                        || passed.is_err()
                );
            }
            Op::Abort(who) => barrier.abort(&self.env(who)),
            Op::Reset(who) => barrier.reset(&self.env(who)),
            Op::Withdraw(who) => barrier.withdraw(&self.env(who)),
            _ => return false,
        }
        true
    }

    fn repairs(&self, op: Op) {
        let Locks { rlock, rwlock, permits, semaphore, flag, condvar, once, barrier } = &self.locks;
        match op {
            Op::Recover { who, index } => {
                let (env, owner) = (self.env(who), Env::new(self.world, index.into()).id());
                assert!(permits.recover(owner, &env) <= PLACES);
                rwlock.recover(owner, &env);
                barrier.recover(owner, &env);
            }
            Op::Reap(who) => {
                let env = self.env(who);
                rlock.wake_one(&env);
                once.wake_one(&env);
                rwlock.reap(&env, &env);
                permits.reap(&env, &env);
                barrier.reap(&env, &env);
                semaphore.recover(&env);
                condvar.recover(&env);
                flag.recover(&env);
            }
            Op::Look => {
                assert!(permits.available() <= permits.limit() && barrier.waiting() <= barrier.parties());
                black_box((
                    rlock.is_broken(),
                    flag.is_set(),
                    once.is_done(),
                    barrier.is_broken(),
                    semaphore.available(),
                ));
            }
            _ => {}
        }
    }
}

/// The planted bug: counts each process's readers in a table of 256 rows.
fn tally(arena: &Arena) {
    let mut rows = vec![0_u32; 256];
    for place in 0..PLACES as usize {
        let word = arena.word32((RWLOCK + 16) / 4 + place).load(Ordering::Relaxed);
        if word >> 22 != 0 {
            rows[(word & 1023) as usize] += word >> 22;
        }
    }
    black_box(rows);
}

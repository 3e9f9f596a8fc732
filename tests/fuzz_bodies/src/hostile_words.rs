//! The single words, lock, end and event, on any 32 bits: each call must do what a table of the word's values says.
#![allow(unsafe_code)]

use core::time::Duration;

use arbitrary::Arbitrary;
use core::sync::atomic::{AtomicU32, Ordering};
use crosslane_core::end::{ClaimError, End, EndWord};
use crosslane_core::event::{EventWord, Slept};
use crosslane_core::mutex::{Acquired, LockError, LockWord, TryLockError};
use crosslane_core::{Liveness, OwnerId, Slice, Wait};

use crate::surroundings::{Env, World};

/// Bit 30 of a lock word; bit 31 of a lock word, and of an end word.
const WAITERS: u32 = 1 << 30;
const POISON: u32 = 1 << 31;
const CLOSED: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Op {
    Set(Bits),
    Bury(u8),
    TryLock { me: u8 },
    Lock { me: u8, parks: u8 },
    Unlock { me: u8, poison: bool },
    Claim { me: u8 },
    Close { me: u8 },
    Sleep { mode: u8, ready: bool, parks: u8 },
    Wake { mode: u8, items: u8 },
    WakeAll,
}

/// What a hostile peer writes into a word.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Bits {
    Any(u32),
    Owner { index: u16, generation: u16, flags: u8 },
    Flags(u8),
}

impl Bits {
    fn word(self) -> u32 {
        match self {
            Self::Any(word) => word,
            Self::Owner { index, generation, flags } => {
                u32::from(index % 1024) | u32::from(generation % 4100) << 10 | u32::from(flags % 4) << 30
            }
            Self::Flags(flags) => u32::from(flags % 4) << 30,
        }
    }
}

/// The word, seen by a hostile peer and by each kind of honest one.
#[derive(Debug)]
struct Word(AtomicU32);

impl Word {
    fn bits(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
    fn lock(&self) -> &LockWord {
        // SAFETY: a transparent wrapper of an atomic of the same size.
        unsafe { core::ptr::from_ref(&self.0).cast::<LockWord>().as_ref_unchecked() }
    }
    fn end(&self) -> &EndWord {
        // SAFETY: a `repr(transparent)` wrapper of the same atomic.
        unsafe { core::ptr::from_ref(&self.0).cast::<EndWord>().as_ref_unchecked() }
    }
    fn event(&self) -> &EventWord {
        // SAFETY: as above.
        unsafe { core::ptr::from_ref(&self.0).cast::<EventWord>().as_ref_unchecked() }
    }
}

/// Runs one input. Planted: a table of the owners' names with 1,000 rows, looked up by a word's index.
///
/// # Panics
/// When a call and the table of the word's values differ.
pub fn run(data: &[u8], planted: bool) {
    let Some(ops) = crate::decode::<Vec<Op>>(data) else { return };
    let (word, world) = (Word(AtomicU32::new(0)), World::default());
    for op in ops {
        world.next_operation();
        if planted && OwnerId::from_word(word.bits()).is_some() {
            let rows = [0_u8; 1000];
            core::hint::black_box(rows[(word.bits() & 1023) as usize]);
        }
        step(&word, &world, op);
    }
}

fn step(word: &Word, world: &World, op: Op) {
    match op {
        Op::Set(bits) => word.0.store(bits.word(), Ordering::Relaxed),
        Op::Bury(index) => world.bury(index.into()),
        Op::TryLock { me } => try_lock(word, Env::new(world, me.into())),
        Op::Lock { me, parks } => lock(word, Env::new(world, me.into()), parks),
        Op::Unlock { me, poison } => unlock(word, Env::new(world, me.into()), poison),
        Op::Claim { me } => claim(word, Env::new(world, me.into())),
        Op::Close { me } => close(word, Env::new(world, me.into())),
        Op::Sleep { mode, ready, parks } => sleep(word, Env::new(world, 0), mode, ready, parks),
        Op::Wake { mode, items } => wake(word, Env::new(world, 0), mode, items),
        Op::WakeAll => {
            let before = word.bits();
            word.event().wake_all(&Env::new(world, 0));
            assert_eq!(word.bits(), before.wrapping_add(4));
        }
    }
}

/// What locking a word that holds `bits` must give, when nobody else runs.
fn lockable(bits: u32, env: Env<'_>) -> Result<Acquired, TryLockError> {
    match OwnerId::from_word(bits) {
        _ if bits == 0 => Ok(Acquired::Clean),
        _ if bits == POISON => Ok(Acquired::Poisoned),
        Some(owner) if owner != env.id() && env.is_dead(owner) => Ok(Acquired::OwnerDied),
        Some(owner) => Err(TryLockError::Held(owner)),
        None => Err(TryLockError::Corrupt),
    }
}

fn try_lock(word: &Word, env: Env<'_>) {
    let before = word.bits();
    let expected = lockable(before, env);
    assert_eq!(word.lock().try_lock(&env), expected);
    let after = if expected.is_ok() { env.id().to_word() | before & (WAITERS | POISON) } else { before };
    assert_eq!(word.bits(), after);
}

fn lock(word: &Word, env: Env<'_>, parks: u8) {
    let before = word.bits();
    let expected = lockable(before, env).map_err(|error| match error {
        TryLockError::Held(owner) => LockError::TimedOut(Some(owner)),
        _ => LockError::Corrupt,
    });
    assert_eq!(word.lock().lock(&env, env.after(Duration::from_nanos(parks.into()))), expected);
    match expected {
        Ok(Acquired::Clean | Acquired::Poisoned) => assert_eq!(word.bits(), env.id().to_word() | before),
        Ok(_) => assert_eq!(word.bits(), env.id().to_word() | before & POISON | WAITERS),
        Err(LockError::TimedOut(_)) => assert_eq!(word.bits(), before | WAITERS),
        Err(_) => assert_eq!(word.bits(), before),
    }
}

fn unlock(word: &Word, env: Env<'_>, poison: bool) {
    let before = word.bits();
    word.lock().unlock(&env, poison);
    let mine = OwnerId::from_word(before) == Some(env.id());
    assert_eq!(word.bits(), if mine { u32::from(poison) * POISON } else { before });
}

fn claim(word: &Word, env: Env<'_>) {
    let before = word.bits();
    let expected = match OwnerId::from_word(before) {
        _ if before == 0 || before == CLOSED => Ok(()),
        Some(owner) if owner.to_word() != before => Err(ClaimError::Corrupt),
        Some(owner) if env.is_dead(owner) => Ok(()),
        Some(owner) => Err(ClaimError::EndTaken(owner)),
        None => Err(ClaimError::Corrupt),
    };
    assert_eq!(word.end().claim(&env), expected);
    assert_eq!(word.bits(), if expected.is_ok() { env.id().to_word() } else { before });
}

fn close(word: &Word, env: Env<'_>) {
    let before = word.bits();
    word.end().close(env.id());
    let after = word.bits();
    assert_eq!(after, if before == env.id().to_word() { CLOSED } else { before });
    assert_eq!(word.end().looks_closed(), after == CLOSED);
    assert_eq!(word.end().peer() == End::Closed, after == CLOSED);
}

fn sleep(word: &Word, env: Env<'_>, mode: u8, ready: bool, parks: u8) {
    let before = word.bits();
    let deadline = env.after(Duration::from_nanos(parks.into()));
    let slept = word.event().sleep_unless(crate::mode(mode), Slice::Long, deadline, &env, || ready);
    let expected = match (ready, parks) {
        (true, _) => Slept::Ready,
        (false, 0 | 1) => Slept::Expired,
        (false, _) => Slept::Again,
    };
    // The second one who announces says so.
    let flags = if before & 1 == 0 { 1 } else { 3 };
    assert_eq!((slept, word.bits()), (expected, before | flags));
}

fn wake(word: &Word, env: Env<'_>, mode: u8, items: u8) {
    let before = word.bits();
    word.event().wake(items.into(), crate::mode(mode), &env);
    // Nobody sleeps in these surroundings, so the flags go unless nobody was to be woken.
    let after = match (crate::mode(mode), before & 1, items) {
        (crosslane_core::WakeMode::Polling, _, _) | (_, 0, _) | (_, _, 0) => before,
        _ => before.wrapping_add(4) & !3,
    };
    assert_eq!(word.bits(), after);
}

//! Seeded: things that processes wait for, broken as such things are elsewhere. Each must be found by the sweep or by crash pairs.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::{OwnerId, Parked, Slice};

use crate::awaited::{Around, Awaited, SURVIVOR};
use crate::mutex::PATIENCE;

/// Sleeps until `word` is not `seen`; an error at the deadline.
fn wait_for_change(word: &AtomicU32, seen: u32, env: &impl Around, timeout: Duration) -> Result<(), String> {
    let deadline = env.after(timeout);
    while word.load(SeqCst) == seen {
        if env.park(word, seen, Slice::Owner, deadline) == Parked::Expired {
            return Err("nothing ever changed".into());
        }
    }
    Ok(())
}

/// A condition whose notifier waits until those who waited have said that they are awake: Python's.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Acknowledged {
    number: AtomicU32,
    sleepers: AtomicU32,
}

impl Awaited for Acknowledged {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.number.store(1, SeqCst);
        env.wake(&self.number, u32::MAX);
        let sleepers = self.sleepers.load(SeqCst);
        if sleepers == 0 { Ok(()) } else { wait_for_change(&self.sleepers, sleepers, env, SURVIVOR) }
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        self.sleepers.fetch_add(1, SeqCst);
        let taken = wait_for_change(&self.number, 0, env, timeout);
        self.sleepers.fetch_sub(1, SeqCst);
        env.wake(&self.sleepers, u32::MAX);
        taken
    }
    fn help(&self, env: &impl Around) {
        let _ = self.give(env);
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        self.give(env)
    }
}

/// A flag behind a lock that names nobody: Python's.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LockedFlag {
    lock: AtomicU32,
    flag: AtomicU32,
}

impl LockedFlag {
    fn locked(&self, env: &impl Around, work: impl FnOnce()) -> Result<(), String> {
        while self.lock.swap(1, SeqCst) == 1 {
            wait_for_change(&self.lock, 1, env, SURVIVOR)?;
        }
        work();
        self.lock.store(0, SeqCst);
        Ok(())
    }
}

impl Awaited for LockedFlag {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.locked(env, || self.flag.store(1, SeqCst))
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        wait_for_change(&self.flag, 0, env, timeout)
    }
    fn help(&self, env: &impl Around) {
        let _ = self.give(env);
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        self.give(env)
    }
}

/// A semaphore that hands a permit to one who waits, and counts it only if nobody does.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct HandedOver {
    count: AtomicU32,
    waiters: AtomicU32,
    handed: AtomicU32,
}

impl Awaited for HandedOver {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        if self.waiters.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            self.handed.fetch_add(1, SeqCst);
            env.wake(&self.handed, 1);
        } else {
            self.count.fetch_add(1, SeqCst);
        }
        Ok(())
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        if self.count.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Ok(());
        }
        let handed = self.handed.load(SeqCst);
        self.waiters.fetch_add(1, SeqCst);
        wait_for_change(&self.handed, handed, env, timeout)
    }
    fn help(&self, env: &impl Around) {
        let _ = self.give(env);
    }
}

/// Work whose beginning is a flag, not an owner.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Flagged(AtomicU32);

impl Awaited for Flagged {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.take(env, PATIENCE)
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        match self.0.compare_exchange(0, 1, SeqCst, SeqCst) {
            Ok(_) => {
                self.0.store(2, SeqCst);
                env.wake(&self.0, u32::MAX);
                Ok(())
            }
            Err(1) => wait_for_change(&self.0, 1, env, timeout),
            Err(_) => Ok(()),
        }
    }
    fn help(&self, _: &impl Around) {}
}

/// A barrier of two that knows its parties and breaks when one of them is dead; but while one of them ends the round, nobody
/// looks whether that one lives.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Unwatched {
    parties: [AtomicU32; 2],
    arrived: AtomicU32,
    /// Rounds << 1, and whether one ends just now.
    round: AtomicU32,
}

impl Unwatched {
    fn is_a_party_dead(&self, env: &impl Around) -> bool {
        let dead = |party: &AtomicU32| OwnerId::from_word(party.load(SeqCst)).is_some_and(|owner| env.is_dead(owner));
        self.parties.iter().any(dead)
    }
}

impl Awaited for Unwatched {
    fn prepare(&self, env: &impl Around) {
        self.parties[0].store(env.me().map_or(0, OwnerId::to_word), SeqCst);
    }
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.take(env, PATIENCE)
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        let round = self.round.load(SeqCst);
        if self.arrived.fetch_add(1, SeqCst) == 1 {
            self.round.store(round + 1, SeqCst);
            self.arrived.store(0, SeqCst);
            self.round.store(round + 2, SeqCst);
            env.wake(&self.round, u32::MAX);
            return Ok(());
        }
        let deadline = env.after(timeout);
        loop {
            match self.round.load(SeqCst) {
                // Broken: as good as through, for who only asks whether anybody hangs.
                seen if seen == round && self.is_a_party_dead(env) => return Ok(()),
                seen if seen > round + 1 => return Ok(()),
                seen => {
                    if env.park(&self.round, seen, Slice::Owner, deadline) == Parked::Expired {
                        return Err("the round never ended".into());
                    }
                }
            }
        }
    }
    fn help(&self, _: &impl Around) {}
    fn check(&self, _: &impl Around) -> Result<(), String> {
        Ok(())
    }
}

/// A barrier of which one who recovers takes the dead away under a word that does not name that one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ClearedByNobody {
    clearing: AtomicU32,
    arrived: AtomicU32,
}

impl Awaited for ClearedByNobody {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.take(env, PATIENCE)
    }
    fn take(&self, env: &impl Around, _: Duration) -> Result<(), String> {
        let me = env.me().map_or(0, OwnerId::to_word);
        let free = self.arrived.compare_exchange(0, me, SeqCst, SeqCst).is_ok();
        if free { Ok(()) } else { Err("its place is taken".into()) }
    }
    fn help(&self, env: &impl Around) {
        let _ = self.give(env);
    }
    fn recover(&self, owner: OwnerId, _: &impl Around) {
        if self.arrived.load(SeqCst) == owner.to_word() && self.clearing.swap(1, SeqCst) == 0 {
            self.arrived.store(0, SeqCst);
            self.clearing.store(0, SeqCst);
        }
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        self.take(env, SURVIVOR)
    }
}

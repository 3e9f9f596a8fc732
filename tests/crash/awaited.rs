//! What processes wait for, as a case of the sweep and of crash pairs: conditions, flags, counts, work done once, barriers; and
//! ones that are broken on purpose.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::lock::barrier::{Barrier, BarrierError};
use crosslane_core::lock::condvar::CondvarWord;
use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::once::{Begun, OnceWords};
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::mutex::LockWord;
use crosslane_core::{Liveness, OwnerId, Wait};

use crate::mutex::PATIENCE;

/// How long the driver waits: a survivor that hangs says so itself.
pub(crate) const SURVIVOR: Duration = Duration::from_millis(500);

/// What a process has around it.
pub(crate) trait Around: Wait + Liveness + Sync {}

impl<E: Wait + Liveness + Sync> Around for E {}

/// Something that processes wait for. All zero is a valid start.
pub(crate) trait Awaited {
    /// What the driver does before anybody else comes.
    fn lay_out(&self, _: &impl Around) {}
    /// What the victim does before it is stepped.
    fn prepare(&self, _: &impl Around) {}
    /// What the victim does when it gives.
    fn give(&self, env: &impl Around) -> Result<(), String>;
    /// What a waiter does.
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String>;
    /// What the driver does so that the waiters come through.
    fn help(&self, env: &impl Around);
    /// The same after a death, where nobody is to be helped who can do without.
    fn help_after_death(&self, env: &impl Around) {
        self.help(env);
    }
    /// What a reaper does.
    fn recover(&self, _: OwnerId, _: &impl Around) {}
    /// What must hold at the end.
    fn check(&self, env: &impl Around) -> Result<(), String> {
        self.help(env);
        self.take(env, SURVIVOR)
    }
}

/// A condition: is the number not 0. `ALL` says whether a notifier wakes all or one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Condition<const ALL: bool> {
    lock: LockWord,
    condvar: CondvarWord,
    number: AtomicU32,
}

fn locked(lock: &LockWord, env: &impl Around, timeout: Duration) -> Result<(), String> {
    lock.lock(env, env.after(timeout)).map(|_| ()).map_err(|error| error.to_string())
}

impl<const ALL: bool> Awaited for Condition<ALL> {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        locked(&self.lock, env, PATIENCE)?;
        self.number.store(1, SeqCst);
        self.lock.unlock(env, false);
        self.condvar.notify(if ALL { u32::MAX } else { 1 }, env);
        Ok(())
    }

    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        let deadline = env.after(timeout);
        locked(&self.lock, env, timeout)?;
        while self.number.load(SeqCst) == 0 {
            let in_time = self.condvar.wait(env, deadline, || self.lock.unlock(env, false));
            locked(&self.lock, env, timeout)?;
            if !in_time && self.number.load(SeqCst) == 0 {
                self.lock.unlock(env, false);
                return Err("the condition never came true".into());
            }
        }
        self.lock.unlock(env, false);
        Ok(())
    }

    fn help(&self, env: &impl Around) {
        let _ = self.give(env);
    }
}

impl Awaited for FlagWord {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.set(env);
        Ok(())
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        if self.wait(env, env.after(timeout)) { Ok(()) } else { Err("never set".into()) }
    }
    fn help(&self, env: &impl Around) {
        self.set(env);
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        self.clear();
        if self.wait(env, env.after(Duration::ZERO)) {
            return Err("set, and nobody has".into());
        }
        self.set(env);
        self.take(env, SURVIVOR)
    }
}

impl Awaited for SemaphoreWords {
    fn give(&self, env: &impl Around) -> Result<(), String> {
        self.release(1, env).map_err(|error| error.to_string())
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        self.acquire(env, env.after(timeout)).map_err(|error| error.to_string())
    }
    fn help(&self, env: &impl Around) {
        let _ = self.give(env);
    }
    /// Each waiter takes one. A permit that is there is found without help.
    fn help_after_death(&self, env: &impl Around) {
        for _ in 0..2 {
            if self.available() == 0 {
                self.help(env);
            }
        }
        let _ = self.release(1, env);
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        let before = self.available();
        self.help(env);
        self.take(env, SURVIVOR)?;
        if (before, self.available()) == (before.min(4), before) { Ok(()) } else { Err(format!("{before} permits")) }
    }
}

/// Who has begun the work before the others come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Nobody,
    Victim,
    Driver,
}

/// Work that leaves how often it was begun and ended. `BEGUN` is a [`By`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Work<const BEGUN: u8> {
    once: OnceWords,
    begun: AtomicU32,
    ended: AtomicU32,
}

impl<const BEGUN: u8> Work<BEGUN> {
    fn begin(&self, env: &impl Around, timeout: Duration) -> Result<bool, String> {
        let begun = self.once.begin(env, env.after(timeout)).map_err(|error| error.to_string())?;
        if let Begun::Mine(_) = begun {
            self.begun.fetch_add(1, SeqCst);
        }
        Ok(begun != Begun::Done)
    }
    fn end(&self, env: &impl Around) {
        self.ended.fetch_add(1, SeqCst);
        self.once.finish(true, env);
    }
}

impl<const BEGUN: u8> Awaited for Work<BEGUN> {
    fn lay_out(&self, env: &impl Around) {
        if BEGUN == By::Driver as u8 {
            assert_eq!(self.begin(env, SURVIVOR), Ok(true));
        }
    }
    fn prepare(&self, env: &impl Around) {
        if BEGUN == By::Victim as u8 {
            assert_eq!(self.begin(env, SURVIVOR), Ok(true));
        }
    }
    fn give(&self, env: &impl Around) -> Result<(), String> {
        if BEGUN == By::Victim as u8 {
            self.end(env);
            return Ok(());
        }
        self.take(env, PATIENCE)
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        if self.begin(env, timeout)? {
            self.end(env);
        }
        if self.ended.load(SeqCst) == 0 { Err("done without having been done".into()) } else { Ok(()) }
    }
    fn help(&self, env: &impl Around) {
        if BEGUN == By::Driver as u8 && !self.once.is_done() {
            self.end(env);
        }
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        self.help(env);
        self.take(env, SURVIVOR)?;
        // Each who died may have begun it, and one who did not.
        match (self.begun.load(SeqCst), self.once.is_done()) {
            (1..=3, true) => Ok(()),
            other => Err(format!("begun and done: {other:?}")),
        }
    }
}

/// What the victim does at a barrier, besides coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Come,
    Abort,
    Reset,
    Withdraw,
}

/// A barrier of `N`, 2 or, without a note, 3. `DEED` is a [`Deed`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Parties<const N: u32, const DEED: u8> {
    words: [AtomicU64; 5],
}

impl<const N: u32, const DEED: u8> Parties<N, DEED> {
    pub(crate) fn barrier(&self) -> Barrier<'_> {
        let memory = NonNull::from(&self.words).cast();
        // SAFETY: atomic words that live as long as `self`.
        unsafe { Barrier::attach(memory, size_of_val(&self.words), N) }.expect("room for three")
    }

    /// A word that the barrier does not use.
    pub(crate) fn note(&self) -> &AtomicU64 {
        &self.words[4]
    }

    /// As many threads as there are parties get through.
    fn meet(&self, env: &impl Around) -> Result<(), String> {
        let wait = || self.barrier().wait(env, env.after(SURVIVOR), || ());
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..N).map(|_| scope.spawn(wait)).collect();
            let mine = wait();
            let all = others.into_iter().map(|other| other.join().expect("no panic")).chain([mine]);
            let indexes: Result<Vec<u32>, _> = all.map(|passed| passed.map(|passed| passed.index)).collect();
            match indexes {
                Ok(mut indexes) => {
                    indexes.sort_unstable();
                    if indexes.into_iter().eq(0..N) { Ok(()) } else { Err("two parties with one index".into()) }
                }
                Err(error) => Err(format!("a new barrier, and all come: {error}")),
            }
        })
    }
}

impl<const N: u32, const DEED: u8> Awaited for Parties<N, DEED> {
    /// Known to the barrier: comes, gives up, and makes it new.
    fn prepare(&self, env: &impl Around) {
        let _ = self.barrier().wait(env, env.after(Duration::ZERO), || ());
        self.barrier().reset(env);
    }
    fn give(&self, env: &impl Around) -> Result<(), String> {
        let barrier = self.barrier();
        match DEED {
            deed if deed == Deed::Abort as u8 => barrier.abort(env),
            deed if deed == Deed::Reset as u8 => barrier.reset(env),
            deed if deed == Deed::Withdraw as u8 => barrier.withdraw(env),
            _ => return self.take(env, PATIENCE),
        }
        Ok(())
    }
    fn take(&self, env: &impl Around, timeout: Duration) -> Result<(), String> {
        match self.barrier().wait(env, env.after(timeout), || ()) {
            Ok(_) | Err(BarrierError::Broken) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
    fn help(&self, env: &impl Around) {
        let _ = self.take(env, SURVIVOR);
    }
    fn recover(&self, owner: OwnerId, env: &impl Around) {
        self.barrier().recover(owner, env);
    }
    fn check(&self, env: &impl Around) -> Result<(), String> {
        let barrier = self.barrier();
        barrier.reset(env);
        match barrier.wait(env, env.after(Duration::ZERO), || ()) {
            Err(BarrierError::TimedOut) if barrier.is_broken() => {}
            other => return Err(format!("alone at a new barrier: {other:?}")),
        }
        barrier.reset(env);
        self.meet(env)
    }
}

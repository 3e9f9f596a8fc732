//! Readers.

use core::mem::MaybeUninit;
use core::time::Duration;

use super::{ReadError, View};
use crate::end::End;
use crate::event::Slept;
use crate::plain::Plain;
use crate::prim::{Ordering, fence, pause};
use crate::wait::{Liveness, Slice, Wait};

/// Changes of the writer's end that a waiter looks into before it parks all the same, and so looks at its deadline: a
/// hostile peer could otherwise change it for ever.
const MAX_FLIPS: u32 = 64;

/// A reader, which remembers the version that it has read last. Holds no end: there may be any number.
///
/// `E` is what it parks with, and what keeps the memory mapped.
#[derive(Debug, Clone)]
pub struct Reader<'m, T, E> {
    view: View<'m, T>,
    env: E,
    version: u64,
    /// Whether it may write the sleepers' flag.
    announces: bool,
}

impl<'m, T: Plain, E: Wait + Liveness> Reader<'m, T, E> {
    pub(super) fn new(view: View<'m, T>, env: E, announces: bool) -> Self {
        Self { view, env, version: 0, announces }
    }

    /// The newest value, read before or not. Does not block; copies it once, and again only if the writer published
    /// `cells - 1` values meanwhile.
    ///
    /// The value may be moved once more on its way to the caller; above 16 bytes [`read_into`](Self::read_into) saves that,
    /// which for 64 bytes is half of the time.
    ///
    /// # Errors
    /// [`ReadError::Empty`], [`ReadError::Busy`], [`ReadError::Corrupt`].
    #[inline]
    pub fn read(&mut self) -> Result<T, ReadError> {
        let mut value = MaybeUninit::uninit();
        match self.view.read_once(&mut value) {
            Ok(version) => self.version = version,
            Err(ReadError::Busy) => return self.read_slow(),
            Err(error) => return Err(error),
        }
        // SAFETY: `read_once` wrote all bytes, and every bit pattern is a `T` because `T` is `Plain`.
        Ok(unsafe { value.assume_init() })
    }

    /// With a value of its own, so that the other one can stay in registers.
    #[cold]
    fn read_slow(&mut self) -> Result<T, ReadError> {
        let mut value = MaybeUninit::uninit();
        self.version = self.view.read_slow(&mut value)?;
        // SAFETY: as in `read`.
        Ok(unsafe { value.assume_init() })
    }

    /// As [`read`](Self::read), into memory of the caller's: the fastest way, and the one for large values. After an error
    /// `value` may hold any mixture.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn read_into(&mut self, value: &mut T) -> Result<(), ReadError> {
        // SAFETY: only `T`s' bytes are written there, whatever they are, because `T` is `Plain`.
        let value = unsafe { &mut *core::ptr::from_mut(value).cast::<MaybeUninit<T>>() };
        self.version = match self.view.read_once(value) {
            Err(ReadError::Busy) => self.view.read_slow(value)?,
            read => read?,
        };
        Ok(())
    }

    /// The newest value, if it is newer than the last one that this reader has read. Does not block.
    ///
    /// # Errors
    /// [`ReadError::NothingNew`]; else as [`read`](Self::read).
    #[inline]
    pub fn try_read_newer(&mut self) -> Result<T, ReadError> {
        if self.is_newer() { self.read() } else { Err(ReadError::NothingNew) }
    }

    /// The newest value, waiting for one that is newer than the last that this reader has read, as long as the writer
    /// lives. Waits also while there is no writer yet.
    ///
    /// # Errors
    /// [`ReadError::Closed`] or [`ReadError::WriterDied`] if there is nothing newer and nobody left to publish it;
    /// [`ReadError::Busy`], [`ReadError::Corrupt`].
    #[inline]
    pub fn read_newer(&mut self) -> Result<T, ReadError> {
        if !self.is_newer() {
            self.wait_for_newer(self.env.never())?;
        }
        self.read()
    }

    /// As [`read_newer`](Self::read_newer), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`read_newer`](Self::read_newer), and [`ReadError::TimedOut`].
    #[inline]
    pub fn read_newer_timeout(&mut self, timeout: Duration) -> Result<T, ReadError> {
        if !self.is_newer() {
            self.wait_for_newer(self.env.after(timeout))?;
        }
        self.read()
    }

    /// Whether there is a value that is newer than the last one that this reader has read. `false` may be stale at once.
    #[must_use]
    #[inline]
    pub fn is_newer(&self) -> bool {
        self.view.version() > self.version
    }

    /// The version of the value that this reader has read last, from 1; 0 if it has read none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many cells there are.
    #[must_use]
    pub fn cells(&self) -> u32 {
        self.view.cells
    }

    /// What the writer's word says now.
    fn writer(&self) -> End {
        let end = &self.view.header().writer.0;
        if self.announces {
            return end.peer();
        }
        let seen = if end.looks_closed() { End::Closed } else { End::Vacant };
        // ORDERING end.word: Acquire fence. Pairs with the Release in `close`: who sees `Closed` sees the last value. A
        // fence because only relaxed loads are allowed in memory that is mapped for reading only.
        fence(Ordering::Acquire);
        seen
    }

    #[cold]
    fn wait_for_newer(&self, deadline: E::Deadline) -> Result<(), ReadError> {
        for _ in 0..self.env.spins() {
            if self.is_newer() {
                return Ok(());
            }
            pause();
        }
        let (mut slept, mut flips) = (false, 0);
        loop {
            let writer = self.writer();
            let gone = self.gone(writer, slept);
            // A writer that ended or died may have published as its last step, and its word was read before this look.
            if self.is_newer() {
                return Ok(());
            }
            if let Some(gone) = gone {
                return Err(gone);
            }
            let ready = || self.is_newer() || (flips < MAX_FLIPS && self.writer() != writer);
            if self.sleep(writer, deadline, ready) == Slept::Expired {
                return self.last_look();
            }
            (slept, flips) = (true, flips + 1);
        }
    }

    fn sleep(&self, writer: End, deadline: E::Deadline, ready: impl FnOnce() -> bool) -> Slept {
        let event = &self.view.header().newer.0;
        if !self.announces {
            return event.doze(deadline, &self.env);
        }
        let slice = if matches!(writer, End::Owned(_)) { Slice::Owner } else { Slice::Long };
        event.sleep_unless(self.view.mode, slice, deadline, &self.env, ready)
    }

    fn last_look(&self) -> Result<(), ReadError> {
        let gone = self.gone(self.writer(), true).unwrap_or(ReadError::TimedOut);
        if self.is_newer() { Ok(()) } else { Err(gone) }
    }

    /// Why nothing newer comes, if the writer's word says so and still does. Costs a probe if `probe`.
    fn gone(&self, writer: End, probe: bool) -> Option<ReadError> {
        match writer {
            End::Closed => Some(ReadError::Closed),
            // A successor may have taken the end meanwhile.
            End::Owned(id) if probe && self.env.is_dead(id) && self.writer() == writer => {
                Some(ReadError::WriterDied(id))
            }
            End::Corrupt => Some(ReadError::Corrupt),
            End::Owned(_) | End::Vacant => None,
        }
    }
}

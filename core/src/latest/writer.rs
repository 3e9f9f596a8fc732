//! The writer's end.

use super::{ClaimError, Light, MAX_VERSION, Newest, PublishError, View};
use crate::owner::OwnerId;
use crate::plain::Plain;
use crate::wait::{Liveness, Wait};

/// The writer's end. Dropping it closes the end: readers keep the last value, and who waits for a newer one gets `Closed`.
///
/// `E` is what it wakes readers with, and what keeps the memory mapped.
#[derive(Debug)]
#[must_use = "dropping the writer closes its end"]
pub struct Writer<'m, T: Plain, E: Wait + Liveness> {
    view: View<'m, T>,
    env: E,
    me: OwnerId,
    light: Light,
    newest: Newest,
}

impl<'m, T: Plain, E: Wait + Liveness> Writer<'m, T, E> {
    pub(super) fn claim(view: View<'m, T>, env: E) -> Result<Self, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        view.header().writer.0.claim(&env)?;
        let light = Light::of(view.mode, &env);
        let mut writer = Self { view, env, me, light, newest: Newest { version: 0, cell: 0 } };
        // What the predecessor stored last is visible through its death or its close.
        let found = view.newest();
        if found.version > MAX_VERSION || (found.version != 0 && found.cell >= view.cells) {
            return Err(ClaimError::Corrupt);
        }
        writer.newest = found;
        // Readers that sleep behind nobody learn behind whom they sleep, and so probe in time.
        view.header().newer.0.wake_after(light, u32::MAX, &writer.env);
        Ok(writer)
    }

    /// Makes `value` the newest. Wait-free but for the wake of sleeping readers (two system calls).
    ///
    /// # Errors
    /// [`PublishError::Forked`]; nothing was published.
    ///
    /// # Crash
    /// A process killed inside has published the value or has not; readers get the old or the new one, whole.
    #[inline]
    pub fn publish(&mut self, value: &T) -> Result<(), PublishError> {
        if !self.env.is_still(self.me) {
            return Err(PublishError::Forked);
        }
        let after = self.newest.cell + 1;
        let next = if after < self.view.cells { after } else { 0 };
        if let Some(cell) = self.view.cell(next) {
            self.view.write(cell, value);
        }
        self.newest = Newest { version: self.newest.version + 1, cell: next };
        self.view.publish(self.newest);
        self.view.header().newer.0.wake_after(self.light, u32::MAX, &self.env);
        Ok(())
    }

    /// How many values have been published, by this process and those before it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.newest.version
    }
}

impl<T: Plain, E: Wait + Liveness> Drop for Writer<'_, T, E> {
    fn drop(&mut self) {
        if self.env.is_still(self.me) {
            self.view.header().writer.0.close(self.me);
            self.view.header().newer.0.wake_after(self.light, u32::MAX, &self.env);
        }
    }
}

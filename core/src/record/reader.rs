//! The reading end.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::time::Duration;

use super::{Corrupt, Handover, LENGTH_BYTES, PopError, Ring, WORD_BYTES, behind, slice_behind};
use crate::end::{ClaimError, End};
use crate::event::Slept;
use crate::owner::OwnerId;
use crate::prim::pause;
use crate::trust::{Trusted, Untrusted};
use crate::wait::{Liveness, Wait};

/// The reading end of a [`Ring`]. Dropping it closes the end: the writer gets `Closed`.
#[derive(Debug)]
#[must_use = "dropping the reader closes the ring"]
pub struct Reader<'m, E: Wait + Liveness, K = Untrusted> {
    ring: Ring<'m>,
    env: E,
    me: OwnerId,
    /// The next record.
    position: u64,
    /// What `head` holds: behind `position` only inside a batch.
    released: u64,
    /// Inside a [`HeldBatch`]: nothing is released until it says so.
    holds: bool,
    trust: PhantomData<fn() -> K>,
}

impl<'m, E: Wait + Liveness> Reader<'m, E> {
    pub(super) fn claim(ring: Ring<'m>, env: E) -> Result<Self, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        ring.header().reader.end.claim(&env)?;
        ring.header().reader.count_claim();
        Self::claimed(ring, env, me)
    }

    pub(super) fn take_over(ring: Ring<'m>, handover: Handover, env: E) -> Result<Self, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        ring.header().reader.take_over(handover, &env)?;
        Self::claimed(ring, env, me)
    }

    fn claimed(ring: Ring<'m>, env: E, me: OwnerId) -> Result<Self, ClaimError> {
        // From here on a failure drops the reader and so closes the end.
        let mut reader = Self { ring, env, me, position: 0, released: 0, holds: false, trust: PhantomData };
        reader.position = ring.find_head()?;
        reader.released = reader.position;
        // A writer that sleeps behind nobody learns behind whom it sleeps, and so probes in time.
        ring.header().writer.event.wake(1, ring.mode, &reader.env);
        Ok(reader)
    }
}

impl<'m, E: Wait + Liveness, K> Reader<'m, E, K> {
    /// Moves the next record into `buffer` and returns its length in bytes. Never blocks.
    ///
    /// # Errors
    /// [`PopError::Empty`], [`PopError::BufferTooShort`] (the record stays), [`PopError::Closed`] if the ring is
    /// drained and the writer closed its end, [`PopError::Forked`], [`PopError::Corrupt`]. A dead writer is not
    /// looked for: the ring just stays empty.
    ///
    /// # Crash
    /// A process killed inside has moved the record, or leaves it to its successor.
    #[inline]
    pub fn try_pop_into(&mut self, buffer: &mut [u8]) -> Result<usize, PopError> {
        let len = self.try_next()?;
        self.take(len, buffer)?;
        self.publish();
        Ok(len as usize)
    }

    /// As [`try_pop_into`](Reader::try_pop_into); blocks while there is no record.
    ///
    /// # Errors
    /// As [`try_pop_into`](Reader::try_pop_into) but for `Empty`, and [`PopError::PeerDied`] if the ring is drained
    /// and the writer proven dead.
    #[inline]
    pub fn pop_into(&mut self, buffer: &mut [u8]) -> Result<usize, PopError> {
        let len = self.next_until(self.env.never())?;
        self.take(len, buffer)?;
        self.publish();
        Ok(len as usize)
    }

    /// As [`pop_into`](Reader::pop_into), for at most `timeout`.
    ///
    /// # Errors
    /// As [`pop_into`](Reader::pop_into), and [`PopError::TimedOut`].
    pub fn pop_into_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize, PopError> {
        let len = self.next_until(self.env.after(timeout))?;
        self.take(len, buffer)?;
        self.publish();
        Ok(len as usize)
    }

    /// The next record in place; it is released when the guard is dropped. Never blocks.
    ///
    /// # Errors
    /// As [`try_pop_into`](Reader::try_pop_into) but for `BufferTooShort`.
    ///
    /// # Crash
    /// A record that is not released when this process dies comes to its successor, once more.
    #[inline]
    pub fn try_read(&mut self) -> Result<RecordRef<'_, 'm, E, K>, PopError> {
        let len = self.try_next()?;
        Ok(RecordRef { reader: self, len, publish: true })
    }

    /// As [`try_read`](Reader::try_read); blocks while there is no record.
    ///
    /// # Errors
    /// As [`pop_into`](Reader::pop_into) but for `BufferTooShort`.
    #[inline]
    pub fn read(&mut self) -> Result<RecordRef<'_, 'm, E, K>, PopError> {
        let len = self.next_until(self.env.never())?;
        Ok(RecordRef { reader: self, len, publish: true })
    }

    /// As [`read`](Reader::read), or [`read_timeout`](Reader::read_timeout), for as long as `is_lost` does not say that the
    /// writer's end is nobody's, though its owner lives. It is asked whenever a slice is over.
    ///
    /// # Errors
    /// As [`read_timeout`](Reader::read_timeout); also [`PopError::Closed`] if the end is lost and the ring empty.
    #[inline]
    pub fn read_unless(
        &mut self,
        timeout: Option<Duration>,
        is_lost: impl Fn() -> bool,
    ) -> Result<RecordRef<'_, 'm, E, K>, PopError> {
        let len = match self.try_next() {
            Err(PopError::Empty) => {
                let deadline = timeout.map_or_else(|| self.env.never(), |timeout| self.env.after(timeout));
                self.next_slow(deadline, &is_lost)
            }
            done => done,
        }?;
        Ok(RecordRef { reader: self, len, publish: true })
    }

    /// As [`read`](Reader::read), for at most `timeout`.
    ///
    /// # Errors
    /// As [`read`](Reader::read), and [`PopError::TimedOut`].
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<RecordRef<'_, 'm, E, K>, PopError> {
        let len = self.next_until(self.env.after(timeout))?;
        Ok(RecordRef { reader: self, len, publish: true })
    }

    /// Reads that release, and wake the writer, once: when the batch is dropped, when it finds the ring empty, and
    /// after each quarter of the ring.
    ///
    /// # Crash
    /// All records since the last release come to the successor, once more.
    pub fn batch(&mut self) -> ReadBatch<'_, 'm, E, K> {
        self.holds = false;
        ReadBatch { reader: self }
    }

    /// Reads that release nothing until told to, so that their results can be put into a safe place before: see
    /// [`HeldBatch`].
    ///
    /// # Crash
    /// All records of the batch come to the successor, once more, unless they were released. A successor that knows
    /// the [`position`](Self::position) up to which results are safe can leave out those before it.
    pub fn hold_batch(&mut self) -> HeldBatch<'_, 'm, E, K> {
        self.holds = true;
        HeldBatch { reader: self }
    }

    /// What the writing end's word says; the owner may be dead.
    #[must_use]
    pub fn peer(&self) -> End {
        self.ring.header().writer.end.peer()
    }

    /// Whether a read would find nothing now. May be stale at once: the writer may be pushing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.look() == Ok(None)
    }

    /// Hangs this end's [bell](crate::bell), announces a sleeper and looks again: whether a read would find a record, or the
    /// end of them. If not, the caller sleeps until it is rung, or a slice is over; in any case it calls
    /// [`stop_listening`](Self::stop_listening) then. A dead writer is not looked for.
    #[must_use]
    pub fn listen(&self) -> bool {
        let side = &self.ring.header().reader;
        side.bell.hang();
        side.event.announce(self.ring.mode, &self.env);
        self.look() != Ok(None) || self.ring.header().writer.end.looks_closed()
    }

    /// Takes the bell down.
    pub fn stop_listening(&self) {
        self.ring.header().reader.bell.take_down();
    }

    /// Bytes that records and their length words had taken before the next one to be read, by this process and those before it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Says that the end goes to the process that [takes it over](super::Ring::take_over_reader). Until then it is this
    /// one's, which uses it no more, and in the end [leaves](Self::leave) it, or [keeps](super::Ring::keep_reader) it.
    ///
    /// # Errors
    /// [`ClaimError::EndTaken`]: it was handed over before. [`ClaimError::Forked`], [`ClaimError::Corrupt`].
    pub fn hand_over(&self) -> Result<Handover, ClaimError> {
        if self.forked() {
            return Err(ClaimError::Forked);
        }
        self.ring.header().reader.hand_over(self.me)
    }

    /// Drops this value and leaves the end as it is: to the process that it was handed over to.
    pub fn leave(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment is dropped exactly once.
        unsafe { core::ptr::drop_in_place(&raw mut this.env) };
    }

    /// The same end, allowed to lend references into the ring.
    ///
    /// # Safety
    /// Every process that maps this memory keeps to the protocol while the returned end lives.
    pub unsafe fn trust_peers(self) -> Reader<'m, E, Trusted> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment moves exactly once.
        let env = unsafe { core::ptr::read(&raw const this.env) };
        Reader {
            ring: this.ring,
            env,
            me: this.me,
            position: this.position,
            released: this.released,
            holds: this.holds,
            trust: PhantomData,
        }
    }

    /// The longest record that fits, in bytes.
    #[must_use]
    pub fn max_len_bytes(&self) -> usize {
        self.ring.max_len_bytes()
    }

    #[inline]
    fn forked(&self) -> bool {
        !self.env.is_still(self.me)
    }

    /// Step 1: the length of the next record.
    #[inline]
    fn try_next(&mut self) -> Result<u32, PopError> {
        if self.forked() {
            return Err(PopError::Forked);
        }
        match self.look()? {
            Some(len) => Ok(len),
            None => self.try_next_slow(),
        }
    }

    #[inline]
    fn look(&self) -> Result<Option<u32>, Corrupt> {
        self.ring.length(self.position)
    }

    fn try_next_slow(&mut self) -> Result<u32, PopError> {
        self.flush();
        if !self.ring.header().writer.end.looks_closed() || self.peer() != End::Closed {
            return Err(PopError::Empty);
        }
        // The end was closed after the last commit, so one more look decides.
        self.look()?.ok_or(PopError::Closed)
    }

    #[inline]
    fn next_until(&mut self, deadline: E::Deadline) -> Result<u32, PopError> {
        match self.try_next() {
            Err(PopError::Empty) => self.next_slow(deadline, &|| false),
            done => done,
        }
    }

    #[cold]
    fn next_slow(&mut self, deadline: E::Deadline, is_lost: &dyn Fn() -> bool) -> Result<u32, PopError> {
        for _ in 0..self.env.spins() {
            pause();
            // The words alone: what was put off has been released, and who this is will be asked.
            if self.look() != Ok(None) || self.ring.header().writer.end.looks_closed() {
                break;
            }
        }
        match self.try_next() {
            Err(PopError::Empty) => {}
            done => return done,
        }
        loop {
            let peer = self.peer();
            if peer == End::Corrupt {
                return Err(PopError::Corrupt);
            }
            let ring = self.ring;
            let slept =
                ring.header().reader.event.sleep_unless(ring.mode, slice_behind(peer), deadline, &self.env, || {
                    self.look() != Ok(None) || ring.header().writer.end.looks_closed()
                });
            match self.try_next() {
                Err(PopError::Empty) => {}
                done => return done,
            }
            if let End::Owned(owner) = peer
                && slept != Slept::Ready
                && let Some(end) = self.end_of(owner, is_lost)
            {
                // It commits nothing more, so one more look decides; unless a successor has come.
                match self.try_next() {
                    Err(PopError::Empty) if self.peer() == peer => return Err(end),
                    Err(PopError::Empty) => {}
                    done => return done,
                }
            }
            if slept == Slept::Expired {
                return Err(PopError::TimedOut);
            }
        }
    }

    /// Why nothing comes any more from a peer that has not closed its end.
    fn end_of(&self, owner: OwnerId, is_lost: &dyn Fn() -> bool) -> Option<PopError> {
        match self.env.is_dead(owner) {
            true => Some(PopError::PeerDied(owner)),
            false => is_lost().then_some(PopError::Closed),
        }
    }

    /// Step 2 and the private half of step 3.
    #[inline]
    fn take(&mut self, len: u32, buffer: &mut [u8]) -> Result<(), PopError> {
        let needed = len as usize;
        let out = buffer.get_mut(..needed).ok_or(PopError::BufferTooShort { needed })?;
        self.ring.read(self.position.wrapping_add(LENGTH_BYTES), out);
        self.position = behind(self.position, len);
        Ok(())
    }

    /// Steps 3 and 4, for everything that was read.
    #[inline]
    fn publish(&mut self) {
        self.ring.release(self.position);
        self.released = self.position;
        self.ring.header().writer.event.wake(1, self.ring.mode, &self.env);
    }

    /// Steps 3 and 4, if they were put off and are not held.
    #[inline]
    fn flush(&mut self) {
        if self.position != self.released && !self.holds && !self.forked() {
            self.publish();
        }
    }

    /// Steps 3 and 4, if a quarter of the ring waits for it.
    #[inline]
    fn flush_quarter(&mut self) {
        if self.position.wrapping_sub(self.released) >= u64::from(self.ring.capacity) / 4 {
            self.flush();
        }
    }
}

impl<E: Wait + Liveness, K> Drop for Reader<'_, E, K> {
    fn drop(&mut self) {
        if !self.forked() {
            self.flush();
            self.ring.header().reader.end.close(self.me);
            self.ring.header().writer.event.wake(1, self.ring.mode, &self.env);
        }
    }
}

/// A committed record in place. Dropping it releases the record; [`keep`](RecordRef::keep) leaves it in the ring.
///
/// An untrusted peer may change the bytes while they are looked at: each call copies what is there at its time.
#[derive(Debug)]
#[must_use = "dropping a record releases it"]
pub struct RecordRef<'r, 'm, E: Wait + Liveness, K = Untrusted> {
    reader: &'r mut Reader<'m, E, K>,
    len: u32,
    publish: bool,
}

impl<E: Wait + Liveness, K> RecordRef<'_, '_, E, K> {
    /// The length of the record.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len as usize
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Panics
    /// If `offset + out.len()` is more than the record has.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        let fits = offset <= self.len_bytes() && out.len() <= self.len_bytes() - offset;
        assert!(fits, "{} bytes from offset {offset} of a record of {}", out.len(), self.len);
        let mut offset = offset;
        let mut rest = out;
        let skew = offset % WORD_BYTES;
        if skew != 0 {
            let (front, back) = rest.split_at_mut(rest.len().min(WORD_BYTES - skew));
            let mut word = [0; WORD_BYTES];
            self.reader.ring.read(self.bytes_position(offset - skew), &mut word);
            front.copy_from_slice(&word[skew..skew + front.len()]);
            (offset, rest) = (offset + front.len(), back);
        }
        if !rest.is_empty() {
            self.reader.ring.read(self.bytes_position(offset), rest);
        }
    }

    /// Releases the record, as dropping does.
    pub fn release(self) {}

    /// Leaves the record in the ring: the next read gives it again.
    pub fn keep(self) {
        core::mem::forget(self);
    }

    /// The position of byte `offset`.
    #[inline]
    fn bytes_position(&self, offset: usize) -> u64 {
        self.reader.position.wrapping_add(LENGTH_BYTES).wrapping_add(offset as u64)
    }
}

#[cfg(not(crosslane_loom))]
impl<E: Wait + Liveness> RecordRef<'_, '_, E, Trusted> {
    /// The record's bytes in place, in two parts; the second is empty unless the record wraps around the end of the
    /// buffer.
    #[must_use]
    #[inline]
    pub fn as_slices(&self) -> (&[u8], &[u8]) {
        let (front, back) = self.reader.ring.parts(self.bytes_position(0), self.len_bytes());
        // SAFETY:
        // - inside the words, which are initialised and valid for `'m`;
        // - committed and not released, so the writer, which `trust_peers` vouches for, does not write here while
        //   `self`, which is borrowed for as long as the slices live, exists.
        let front = unsafe { front.as_ref() };
        // SAFETY: as above.
        let back = unsafe { back.as_ref() };
        (front, back)
    }
}

impl<E: Wait + Liveness, K> Drop for RecordRef<'_, '_, E, K> {
    #[inline]
    fn drop(&mut self) {
        if self.reader.forked() {
            return;
        }
        self.reader.position = behind(self.reader.position, self.len);
        if self.publish {
            self.reader.publish();
        } else {
            self.reader.flush_quarter();
        }
    }
}

/// Reads that release once: see [`Reader::batch`].
#[derive(Debug)]
#[must_use = "records are released when the batch is dropped"]
pub struct ReadBatch<'r, 'm, E: Wait + Liveness, K = Untrusted> {
    reader: &'r mut Reader<'m, E, K>,
}

impl<'m, E: Wait + Liveness, K> ReadBatch<'_, 'm, E, K> {
    /// As [`Reader::try_pop_into`]; the record is released with the batch.
    ///
    /// # Errors
    /// As [`Reader::try_pop_into`].
    #[inline]
    pub fn try_pop_into(&mut self, buffer: &mut [u8]) -> Result<usize, PopError> {
        let len = self.reader.try_next()?;
        self.reader.take(len, buffer)?;
        self.reader.flush_quarter();
        Ok(len as usize)
    }

    /// As [`Reader::try_read`]; the record is released with the batch.
    ///
    /// # Errors
    /// As [`Reader::try_read`].
    #[inline]
    pub fn try_read(&mut self) -> Result<RecordRef<'_, 'm, E, K>, PopError> {
        let len = self.reader.try_next()?;
        Ok(RecordRef { reader: self.reader, len, publish: false })
    }

    /// Releases what was read so far.
    pub fn flush(&mut self) {
        self.reader.flush();
    }
}

impl<E: Wait + Liveness, K> Drop for ReadBatch<'_, '_, E, K> {
    fn drop(&mut self) {
        self.reader.flush();
    }
}

/// Reads that release nothing by themselves: see [`Reader::hold_batch`].
///
/// Dropping it takes the reads back: the next read gives the batch's first record again. What it holds takes room in
/// the ring, so a batch that is never released stops the writer in the end. Forgetting it leaves its records read; they
/// are released with the next record.
#[derive(Debug)]
#[must_use = "dropping a held batch takes its reads back"]
pub struct HeldBatch<'r, 'm, E: Wait + Liveness, K = Untrusted> {
    reader: &'r mut Reader<'m, E, K>,
}

impl<E: Wait + Liveness, K> HeldBatch<'_, '_, E, K> {
    /// As [`Reader::try_pop_into`]; the record stays in the ring until [`release`](Self::release).
    ///
    /// # Errors
    /// As [`Reader::try_pop_into`].
    #[inline]
    pub fn try_pop_into(&mut self, buffer: &mut [u8]) -> Result<usize, PopError> {
        let len = self.reader.try_next()?;
        self.reader.take(len, buffer)?;
        Ok(len as usize)
    }

    /// As [`Reader::pop_into_timeout`]; the record stays in the ring until [`release`](Self::release). There is no call
    /// that waits for ever: the writer may wait for the room that this batch holds.
    ///
    /// # Errors
    /// As [`Reader::pop_into_timeout`].
    pub fn pop_into_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize, PopError> {
        let len = self.reader.next_until(self.reader.env.after(timeout))?;
        self.reader.take(len, buffer)?;
        Ok(len as usize)
    }

    /// [`Reader::position`]: where the next record starts.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.reader.position
    }

    /// Bytes of the ring that the batch holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.reader.position.wrapping_sub(self.reader.released)
    }

    /// Releases all records of the batch at once, and wakes the writer.
    pub fn release(self) {
        self.reader.holds = false;
        self.reader.flush();
    }
}

impl<E: Wait + Liveness, K> Drop for HeldBatch<'_, '_, E, K> {
    fn drop(&mut self) {
        self.reader.holds = false;
        if !self.reader.forked() {
            self.reader.position = self.reader.released;
        }
    }
}

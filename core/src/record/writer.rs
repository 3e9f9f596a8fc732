//! The writing end.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::time::Duration;

use super::{Corrupt, Handover, LENGTH_BYTES, PushError, Ring, WORD_BYTES, behind, slice_behind};
use crate::end::{ClaimError, End};
use crate::event::Slept;
use crate::owner::OwnerId;
use crate::prim::pause;
use crate::trust::{Trusted, Untrusted};
use crate::wait::{Liveness, Wait};

/// The writing end of a [`Ring`]. Dropping it closes the end: the reader drains, then gets `Closed`.
#[derive(Debug)]
#[must_use = "dropping the writer closes the ring"]
pub struct Writer<'m, E: Wait + Liveness, K = Untrusted> {
    ring: Ring<'m>,
    env: E,
    me: OwnerId,
    /// Where the next record goes.
    tail: u64,
    /// Nothing before this is in the reader's hands: `head` as last read.
    released: u64,
    /// Records were committed for which the reader has not been woken.
    unannounced: bool,
    trust: PhantomData<fn() -> K>,
}

impl<'m, E: Wait + Liveness> Writer<'m, E> {
    pub(super) fn claim(ring: Ring<'m>, env: E) -> Result<Self, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        ring.header().writer.end.claim(&env)?;
        ring.header().writer.count_claim();
        Self::claimed(ring, env, me)
    }

    pub(super) fn take_over(ring: Ring<'m>, handover: Handover, env: E) -> Result<Self, ClaimError> {
        let me = env.me().ok_or(ClaimError::Forked)?;
        ring.header().writer.take_over(handover, &env)?;
        Self::claimed(ring, env, me)
    }

    fn claimed(ring: Ring<'m>, env: E, me: OwnerId) -> Result<Self, ClaimError> {
        // From here on a failure drops the writer and so closes the end.
        let mut writer = Self { ring, env, me, tail: 0, released: 0, unannounced: false, trust: PhantomData };
        writer.tail = ring.find_tail()?;
        writer.released = writer.tail.wrapping_sub(ring.max_used());
        // A reader that sleeps behind nobody learns behind whom it sleeps, and so probes in time.
        ring.header().reader.event.wake(1, ring.mode, &writer.env);
        Ok(writer)
    }
}

impl<'m, E: Wait + Liveness, K> Writer<'m, E, K> {
    /// Copies `record` into the ring if there is room. Never blocks.
    ///
    /// # Errors
    /// [`PushError::Full`], [`PushError::TooLong`], [`PushError::Closed`] if the reader closed its end,
    /// [`PushError::Forked`], [`PushError::Corrupt`]. A dead reader is not looked for: the ring just fills.
    ///
    /// # Crash
    /// A process killed inside has pushed the whole record or nothing.
    #[inline]
    pub fn try_push(&mut self, record: &[u8]) -> Result<(), PushError> {
        let len = self.try_room(record.len())?;
        self.put(record, len);
        self.announce();
        Ok(())
    }

    /// Copies `record` into the ring; blocks while there is no room.
    ///
    /// # Errors
    /// As [`try_push`](Writer::try_push) but for `Full`, and [`PushError::PeerDied`] if the ring is full and the
    /// reader proven dead.
    ///
    /// # Crash
    /// As for [`try_push`](Writer::try_push).
    #[inline]
    pub fn push(&mut self, record: &[u8]) -> Result<(), PushError> {
        self.push_until(record, self.env.never())
    }

    /// As [`push`](Writer::push), for at most `timeout`.
    ///
    /// # Errors
    /// As [`push`](Writer::push), and [`PushError::TimedOut`].
    pub fn push_timeout(&mut self, record: &[u8], timeout: Duration) -> Result<(), PushError> {
        self.push_until(record, self.env.after(timeout))
    }

    /// Room for a record of up to `len` bytes, to be filled in place. Never blocks.
    ///
    /// # Errors
    /// As [`try_push`](Writer::try_push).
    ///
    /// # Crash
    /// Nothing is published before [`Reservation::commit`].
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_, 'm, E, K>, PushError> {
        let len = self.try_room(len)?;
        Ok(Reservation { writer: self, len, announce: true })
    }

    /// As [`try_reserve`](Writer::try_reserve); blocks while there is no room.
    ///
    /// # Errors
    /// As [`push`](Writer::push).
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_, 'm, E, K>, PushError> {
        let len = self.room_until(len, self.env.never())?;
        Ok(Reservation { writer: self, len, announce: true })
    }

    /// As [`reserve`](Writer::reserve), or [`reserve_timeout`](Writer::reserve_timeout), for as long as `is_lost` does not
    /// say that the reader's end is nobody's, though its owner lives. It is asked whenever a slice is over.
    ///
    /// # Errors
    /// As [`push_timeout`](Writer::push_timeout); also [`PushError::Closed`] if the end is lost and the ring full.
    #[inline]
    pub fn reserve_unless(
        &mut self,
        len: usize,
        timeout: Option<Duration>,
        is_lost: impl Fn() -> bool,
    ) -> Result<Reservation<'_, 'm, E, K>, PushError> {
        let len = self.room_unless(len, timeout, is_lost)?;
        Ok(Reservation { writer: self, len, announce: true })
    }

    /// As [`push`](Writer::push), where [`reserve_unless`](Writer::reserve_unless) waits.
    ///
    /// # Errors
    /// As [`reserve_unless`](Writer::reserve_unless).
    ///
    /// # Crash
    /// As for [`try_push`](Writer::try_push).
    #[inline]
    pub fn push_unless(
        &mut self,
        record: &[u8],
        timeout: Option<Duration>,
        is_lost: impl Fn() -> bool,
    ) -> Result<(), PushError> {
        let len = self.room_unless(record.len(), timeout, is_lost)?;
        self.put(record, len);
        self.announce();
        Ok(())
    }

    /// As [`reserve`](Writer::reserve), for at most `timeout`.
    ///
    /// # Errors
    /// As [`push_timeout`](Writer::push_timeout).
    pub fn reserve_timeout(&mut self, len: usize, timeout: Duration) -> Result<Reservation<'_, 'm, E, K>, PushError> {
        let len = self.room_until(len, self.env.after(timeout))?;
        Ok(Reservation { writer: self, len, announce: true })
    }

    /// Pushes that wake the reader once, when the batch is dropped or has to wait. Each record is committed, and can
    /// be read, by itself.
    pub fn batch(&mut self) -> WriteBatch<'_, 'm, E, K> {
        WriteBatch { writer: self }
    }

    /// What the reading end's word says; the owner may be dead.
    #[must_use]
    pub fn peer(&self) -> End {
        self.ring.header().reader.end.peer()
    }

    /// Bytes that records and their length words have taken so far, by this process and those before it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Whether the reader has released every record before `position`, which this end had [reached](Self::position). A
    /// record's reader is done with it then: what it did before is visible here.
    #[must_use]
    pub fn is_released(&self, position: u64) -> bool {
        let behind = self.tail.wrapping_sub(position);
        self.ring.released(self.tail, self.released).is_ok_and(|head| self.tail.wrapping_sub(head) <= behind)
    }

    /// Says that the end goes to the process that [takes it over](super::Ring::take_over_writer). Until then it is this
    /// one's, which uses it no more, and in the end [leaves](Self::leave) it, or [keeps](super::Ring::keep_writer) it.
    ///
    /// # Errors
    /// [`ClaimError::EndTaken`]: it was handed over before. [`ClaimError::Forked`], [`ClaimError::Corrupt`].
    pub fn hand_over(&self) -> Result<Handover, ClaimError> {
        if self.forked() {
            return Err(ClaimError::Forked);
        }
        self.ring.header().writer.hand_over(self.me)
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
    pub unsafe fn trust_peers(self) -> Writer<'m, E, Trusted> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the environment moves exactly once.
        let env = unsafe { core::ptr::read(&raw const this.env) };
        Writer {
            ring: this.ring,
            env,
            me: this.me,
            tail: this.tail,
            released: this.released,
            unannounced: this.unannounced,
            trust: PhantomData,
        }
    }

    /// The longest record that fits, in bytes.
    #[must_use]
    pub fn max_len_bytes(&self) -> usize {
        self.ring.max_len_bytes()
    }

    #[inline]
    fn push_until(&mut self, record: &[u8], deadline: E::Deadline) -> Result<(), PushError> {
        let len = self.room_until(record.len(), deadline)?;
        self.put(record, len);
        self.announce();
        Ok(())
    }

    /// Why nobody reads any more, though the peer has not closed its end.
    fn end_of(&self, owner: OwnerId, is_lost: &dyn Fn() -> bool) -> Option<PushError> {
        match self.env.is_dead(owner) {
            true => Some(PushError::PeerDied(owner)),
            false => is_lost().then_some(PushError::Closed),
        }
    }

    #[inline]
    fn forked(&self) -> bool {
        !self.env.is_still(self.me)
    }

    /// `len` as a record's length, if there is room for it and somebody to read it.
    #[inline]
    fn try_room(&mut self, len: usize) -> Result<u32, PushError> {
        if self.forked() {
            return Err(PushError::Forked);
        }
        let max = self.ring.max_len_bytes();
        let checked = match u32::try_from(len) {
            Ok(checked) if len <= max => checked,
            _ => return Err(PushError::TooLong { len, max }),
        };
        if self.ring.header().reader.end.looks_closed() {
            return Err(PushError::Closed);
        }
        if self.has_room(checked)? { Ok(checked) } else { Err(PushError::Full) }
    }

    /// Step 1.
    #[inline]
    fn has_room(&mut self, len: u32) -> Result<bool, Corrupt> {
        let end = behind(self.tail, len);
        if end.wrapping_sub(self.released) <= self.ring.max_used() {
            return Ok(true);
        }
        self.released = self.ring.released(self.tail, self.released)?;
        Ok(end.wrapping_sub(self.released) <= self.ring.max_used())
    }

    #[inline]
    fn room_until(&mut self, len: usize, deadline: E::Deadline) -> Result<u32, PushError> {
        match self.try_room(len) {
            Err(PushError::Full) => self.room_slow(len, deadline, &|| false),
            done => done,
        }
    }

    #[inline]
    fn room_unless(
        &mut self,
        len: usize,
        timeout: Option<Duration>,
        is_lost: impl Fn() -> bool,
    ) -> Result<u32, PushError> {
        match self.try_room(len) {
            Err(PushError::Full) => {
                let deadline = timeout.map_or_else(|| self.env.never(), |timeout| self.env.after(timeout));
                self.room_slow(len, deadline, &is_lost)
            }
            done => done,
        }
    }

    #[cold]
    fn room_slow(&mut self, len: usize, deadline: E::Deadline, is_lost: &dyn Fn() -> bool) -> Result<u32, PushError> {
        self.flush();
        for _ in 0..self.env.spins() {
            pause();
            match self.try_room(len) {
                Err(PushError::Full) => {}
                done => return done,
            }
        }
        loop {
            let peer = self.peer();
            if peer == End::Corrupt {
                return Err(PushError::Corrupt);
            }
            let slice = slice_behind(peer);
            let event = &self.ring.header().writer.event;
            let slept = event.sleep_unless(self.ring.mode, slice, deadline, &self.env, || self.look_is_worthwhile(len));
            match self.try_room(len) {
                Err(PushError::Full) => {}
                done => return done,
            }
            if let End::Owned(owner) = peer
                && slept != Slept::Ready
                && let Some(end) = self.end_of(owner, is_lost)
            {
                // It releases nothing more, so one more look decides; unless a successor has come.
                match self.try_room(len) {
                    Err(PushError::Full) if self.peer() == peer => return Err(end),
                    Err(PushError::Full) => {}
                    done => return done,
                }
            }
            if slept == Slept::Expired {
                return Err(PushError::TimedOut);
            }
        }
    }

    /// Whether [`try_room`](Self::try_room) would find room, or a reason to give up.
    fn look_is_worthwhile(&self, len: usize) -> bool {
        // The length was found to fit, so 32 bits hold it.
        let end = behind(self.tail, u32::try_from(len).unwrap_or(u32::MAX));
        self.ring.header().reader.end.looks_closed()
            || self
                .ring
                .released(self.tail, self.released)
                .map_or(true, |head| end.wrapping_sub(head) <= self.ring.max_used())
    }

    /// Steps 2 to 4, for bytes that are all there.
    #[inline]
    fn put(&mut self, record: &[u8], len: u32) {
        self.ring.write(self.tail.wrapping_add(LENGTH_BYTES), record);
        self.tail = self.ring.commit(self.tail, len);
    }

    /// Step 5.
    #[inline]
    fn announce(&mut self) {
        self.unannounced = false;
        self.ring.header().reader.event.wake(1, self.ring.mode, &self.env);
    }

    /// Step 5, if it was put off.
    fn flush(&mut self) {
        if self.unannounced && !self.forked() {
            self.announce();
        }
    }
}

impl<E: Wait + Liveness, K> Drop for Writer<'_, E, K> {
    fn drop(&mut self) {
        if !self.forked() {
            self.ring.header().writer.end.close(self.me);
            self.ring.header().reader.event.wake(1, self.ring.mode, &self.env);
        }
    }
}

/// Room for one record, to be filled in place. Dropping it gives the room back: nothing was published.
///
/// Bytes that are not written hold whatever the ring held there.
#[derive(Debug)]
#[must_use = "nothing is published before `commit`"]
pub struct Reservation<'w, 'm, E: Wait + Liveness, K = Untrusted> {
    writer: &'w mut Writer<'m, E, K>,
    len: u32,
    announce: bool,
}

impl<E: Wait + Liveness, K> Reservation<'_, '_, E, K> {
    /// How many bytes were asked for.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len as usize
    }

    /// Copies `bytes` to `offset` and leaves the other bytes as they are, but for up to 7 behind the end of the
    /// reservation.
    ///
    /// # Panics
    /// If `offset + bytes.len()` is more than was reserved.
    pub fn copy_from(&mut self, offset: usize, bytes: &[u8]) {
        let fits = offset <= self.len_bytes() && bytes.len() <= self.len_bytes() - offset;
        assert!(fits, "{} bytes to offset {offset} of a reservation of {}", bytes.len(), self.len);
        let mut offset = offset;
        let mut rest = bytes;
        let skew = offset % WORD_BYTES;
        if skew != 0 {
            let (front, back) = rest.split_at(rest.len().min(WORD_BYTES - skew));
            self.patch(offset - skew, skew, front);
            (offset, rest) = (offset + front.len(), back);
        }
        // Whole words, and the last one too if nothing of the reservation lies behind it.
        let whole = if offset + rest.len() == self.len_bytes() { rest.len() } else { rest.len() & !(WORD_BYTES - 1) };
        let (whole, tail) = rest.split_at(whole);
        if !whole.is_empty() {
            self.writer.ring.write(self.position(offset), whole);
        }
        if !tail.is_empty() {
            self.patch(offset + whole.len(), 0, tail);
        }
    }

    /// Publishes the whole reservation as a record.
    ///
    /// # Errors
    /// [`PushError::Forked`], if this process is a fork child of the one that reserved.
    #[inline]
    pub fn commit(self) -> Result<(), PushError> {
        let len = self.len_bytes();
        self.commit_len(len)
    }

    /// Publishes the first `len` bytes as a record and gives the rest of the room back.
    ///
    /// # Errors
    /// As [`commit`](Reservation::commit).
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    #[inline]
    pub fn commit_len(self, len: usize) -> Result<(), PushError> {
        let len = match u32::try_from(len) {
            Ok(len) if len <= self.len => len,
            _ => panic!("{len} bytes to commit of a reservation of {}", self.len),
        };
        if self.writer.forked() {
            return Err(PushError::Forked);
        }
        self.writer.tail = self.writer.ring.commit(self.writer.tail, len);
        if self.announce {
            self.writer.announce();
        } else {
            self.writer.unannounced = true;
        }
        Ok(())
    }

    /// The position of byte `offset`.
    #[inline]
    fn position(&self, offset: usize) -> u64 {
        self.writer.tail.wrapping_add(LENGTH_BYTES).wrapping_add(offset as u64)
    }

    /// Puts `bytes` into the word at `offset`, `skew` bytes in.
    fn patch(&self, offset: usize, skew: usize, bytes: &[u8]) {
        let mut word = [0; WORD_BYTES];
        self.writer.ring.read(self.position(offset), &mut word);
        word[skew..skew + bytes.len()].copy_from_slice(bytes);
        self.writer.ring.write(self.position(offset), &word);
    }
}

#[cfg(not(crosslane_loom))]
impl<E: Wait + Liveness> Reservation<'_, '_, E, Trusted> {
    /// The reserved bytes in place, in two parts; the second is empty unless the room wraps around the end of the
    /// buffer.
    #[must_use]
    pub fn as_mut_slices(&mut self) -> (&mut [u8], &mut [u8]) {
        let (mut front, mut back) = self.writer.ring.parts(self.position(0), self.len_bytes());
        // SAFETY:
        // - inside the words, which are initialised and valid for `'m`;
        // - `has_room` showed that no record lies here, so the reader, which `trust_peers` vouches for, stays away;
        // - this process holds the writing end once, and `self` is borrowed for as long as the slices live.
        let front = unsafe { front.as_mut() };
        // SAFETY: as above; the parts do not overlap, being fewer bytes than the buffer has.
        let back = unsafe { back.as_mut() };
        (front, back)
    }
}

/// Pushes that wake the reader once: see [`Writer::batch`].
#[derive(Debug)]
#[must_use = "the reader is woken when the batch is dropped"]
pub struct WriteBatch<'w, 'm, E: Wait + Liveness, K = Untrusted> {
    writer: &'w mut Writer<'m, E, K>,
}

impl<'m, E: Wait + Liveness, K> WriteBatch<'_, 'm, E, K> {
    /// As [`Writer::try_push`].
    ///
    /// # Errors
    /// As [`Writer::try_push`].
    #[inline]
    pub fn try_push(&mut self, record: &[u8]) -> Result<(), PushError> {
        let len = self.writer.try_room(record.len())?;
        self.writer.put(record, len);
        self.writer.unannounced = true;
        Ok(())
    }

    /// As [`Writer::push`]; wakes the reader before it blocks.
    ///
    /// # Errors
    /// As [`Writer::push`].
    #[inline]
    pub fn push(&mut self, record: &[u8]) -> Result<(), PushError> {
        let len = self.writer.room_until(record.len(), self.writer.env.never())?;
        self.writer.put(record, len);
        self.writer.unannounced = true;
        Ok(())
    }

    /// As [`Writer::try_reserve`].
    ///
    /// # Errors
    /// As [`Writer::try_reserve`].
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_, 'm, E, K>, PushError> {
        let len = self.writer.try_room(len)?;
        Ok(Reservation { writer: self.writer, len, announce: false })
    }

    /// Wakes the reader for what was pushed so far.
    pub fn flush(&mut self) {
        self.writer.flush();
    }
}

impl<E: Wait + Liveness, K> Drop for WriteBatch<'_, '_, E, K> {
    fn drop(&mut self) {
        self.writer.flush();
    }
}

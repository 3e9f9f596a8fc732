//! One value that processes share.
//!
//! A value of up to 8 bytes is one word of shared memory, and every call on it is atomic: an update computes on a copy and
//! puts it in by compare-and-swap. So there is no lock that a killed or stopped process could hold, and `set`, `fetch_add`
//! and `update` agree about the order in which they happened; a lock in `update` alone would lose what is set meanwhile.
//!
//! A longer value has two cells behind a lock, and a byte that says which of them holds it. A change is written to the other
//! cell, and then the byte is changed.
//!
//! # Crash
//! | a process is killed | the others find |
//! |---|---|
//! | anywhere in a call on a value of up to 8 bytes | the old value or the new one |
//! | with the lock, before the byte is changed | the old value; the next one takes the lock over within 10 ms |
//! | with the lock, after that | the new value; likewise |
//!
//! Nothing is ever half changed, so nobody is told of the death, as the holder of a `Mutex` would be.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::array::{Contended, Element, Float, Integer};
use crate::error::{Error, Result};
use crate::place::{self, Placed};
use crate::shm::header::HeaderError;
use crate::shm::{self, Env, OpenError, Options, Slabs};
use crate::sync::{LeaseLock, LockError, MutexGuard};
use crate::{Plain, Trusted, wire};

/// A value that processes share: each clone, and what arrives where it was sent, is the same one.
///
/// For numbers, and for plain structs ([`derive(Plain)`](derive@Plain)). Unlike Python's, its updates are atomic. For a
/// value that is changed for long, or of whose changer's death one must learn, use [`Mutex`](crate::Mutex); to wait for a
/// change, [`Condvar`](crate::Condvar).
///
/// | a value of | calls | cost |
/// |---|---|---|
/// | up to 8 bytes | never block | `get` and `set` as an atomic's; `update` one compare-and-swap |
/// | more | take the value's lock | about a [`Mutex`](crate::Mutex) and the copies |
///
/// It takes 176 bytes of a slab that this process's small objects share (112 and three times its length if that is more than 8), and no
/// descriptor of its own.
///
/// # Crash
/// A process that is killed in a call has changed the value or has not, and nobody sees it half changed.
///
/// # Examples
/// ```
/// let total = crosslane::Value::new(0_u64)?;
/// let same = total.clone(); // or sent to another process
/// total.fetch_add(2);
/// let before = same.update(|n| std::mem::replace(n, *n * 21))?;
/// assert_eq!((before, total.get()), (2, 42));
/// # Ok::<(), crosslane::Error>(())
/// ```
pub struct Value<T: Plain>(Kind<T>);

enum Kind<T: Plain> {
    Word(Placed<Word>),
    Cells(Placed<Cells<T>>),
}

/// Where a value of up to 8 bytes lies.
struct Word(shm::Array<u64, Trusted>);

/// Where a longer one does: two cells, and one more of which the first byte says which of them is valid.
struct Cells<T: Plain>(shm::Mutex<[T; 3], Trusted>);

place::renamed!("Value": Word(shm::Array<u64, Trusted>));
place::renamed!("Value": Cells<T>(shm::Mutex<[T; 3], Trusted>));

impl<T: Plain> Value<T> {
    /// A new value.
    ///
    /// # Errors
    /// [`Error::Create`]: there is no memory for it, or its alignment is above 128 bytes.
    pub fn new(value: T) -> Result<Self> {
        let slabs = Slabs::family();
        if size_of::<T>() <= size_of::<u64>() {
            let word = shm::Array::in_slab(slabs, 1)?;
            word.set(0, to_word(value));
            return Ok(Self(Kind::Word(Placed::new(Word(word)))));
        }
        let mut cells = [value; 3];
        set_valid(&mut cells, 0);
        let mutex = shm::Mutex::in_slab(slabs, cells).or_else(|_| shm::Mutex::anonymous(cells, &Options::new()))?;
        Ok(Self(Kind::Cells(Placed::new(Cells(mutex)))))
    }

    /// The value.
    ///
    /// Up to 8 bytes: wait-free. More: blocks while another process or thread is in [`set`](Self::set) or
    /// [`update`](Self::update), until it is done or proven dead.
    ///
    /// # Panics
    /// If it is more than 8 bytes long, and this process is a raw `fork()` child or the lock's word was overwritten by a
    /// process that does not keep to the protocol. `update(|value| *value)` gives an error instead.
    #[must_use]
    #[inline]
    #[track_caller]
    pub fn get(&self) -> T {
        match &self.0 {
            Kind::Word(word) => of_word(word.0.get(0)),
            Kind::Cells(cells) => match cells.locked(|cells| cells[valid(cells)]) {
                Ok(value) => value,
                Err(error) => panic!("{error}"),
            },
        }
    }

    /// Sets the value. Blocks as [`get`](Self::get) does.
    ///
    /// # Panics
    /// As [`get`](Self::get); `update(|place| *place = value)` gives an error instead.
    #[inline]
    #[track_caller]
    pub fn set(&self, value: T) {
        match &self.0 {
            Kind::Word(word) => word.0.set(0, to_word(value)),
            Kind::Cells(cells) => match cells.locked(|cells| commit(cells, valid(cells) ^ 1, value)) {
                Ok(()) => {}
                Err(error) => panic!("{error}"),
            },
        }
    }

    /// Changes the value: calls `change` on a copy, puts the copy in its place, and returns what `change` returned. That is not
    /// the new value: `update(|value| *value += 1)`, where `update(|value| *value + 1)` changes nothing.
    ///
    /// All updates happen one after the other, as if `change` were the only one to touch the value. Up to 8 bytes: without
    /// a lock; if another process has changed the value meanwhile, **`change` is called again** on the new one. More than
    /// 8 bytes: under the value's lock, once; `change` must not use the same value then, or it waits for itself.
    ///
    /// If `change` panics (as `+=` on overflow does in a debug build), the value stays as it was.
    ///
    /// # Errors
    /// - Up to 8 bytes: [`Error::Contended`] after 65,536 calls of `change` that others' changes have overtaken, each time;
    ///   the value was not changed. That takes a `change` that is long beside the pauses of the others.
    /// - More: [`Error::Forked`] in a raw `fork()` child, [`Error::Corrupt`] if the lock's word was overwritten.
    ///
    /// # Crash
    /// A process killed inside has changed the value or has not.
    #[inline]
    pub fn update<O>(&self, mut change: impl FnMut(&mut T) -> O) -> Result<O> {
        match &self.0 {
            Kind::Word(word) => {
                let mut output = None;
                let changed = word.0.elements().fetch_update(0, |found| {
                    let mut copy = of_word(found);
                    output = Some(change(&mut copy));
                    to_word(copy)
                });
                match (changed, output) {
                    (Ok(_), Some(output)) => Ok(output),
                    _ => Err(Error::Contended(Contended)),
                }
            }
            Kind::Cells(cells) => {
                let output = cells.locked(|cells| {
                    let found = valid(cells);
                    let mut copy = cells[found];
                    let output = change(&mut copy);
                    commit(cells, found ^ 1, copy);
                    output
                })?;
                Ok(output)
            }
        }
    }
}

/// For numbers, which are words. None of these blocks.
impl<T: Element> Value<T> {
    /// Sets the value and returns what it was.
    #[inline]
    pub fn swap(&self, value: T) -> T {
        of_word(self.word().swap(0, to_word(value)))
    }

    /// Sets the value to `new` if it is `current`, compared bit by bit: `-0.0` is not `0.0`, and a NaN is itself.
    ///
    /// # Errors
    /// What it was, if that was not `current`.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> Result<(), T> {
        self.word().compare_exchange(0, to_word(current), to_word(new)).map_err(of_word)
    }

    fn word(&self) -> crate::array::Elements<'_, u64> {
        match &self.0 {
            Kind::Word(word) => word.0.elements(),
            Kind::Cells(_) => unreachable!("numbers have up to 8 bytes"),
        }
    }
}

/// Wait-free: one instruction each. Arithmetic wraps, as that of std's atomics does: where it must not,
/// `update(|n| ..)` with `checked_add` says so.
impl<T: Integer> Value<T> {
    /// Adds to the value and returns what it was.
    #[inline]
    pub fn fetch_add(&self, value: T) -> T {
        // The value is at the top of its word, so a carry leaves the word as it leaves a `T`.
        of_word(self.word().fetch_add(0, to_word(value)))
    }

    /// Subtracts from the value and returns what it was.
    #[inline]
    pub fn fetch_sub(&self, value: T) -> T {
        of_word(self.word().fetch_sub(0, to_word(value)))
    }
}

impl<T: Float> Value<T> {
    /// Adds to the value and returns what it was.
    ///
    /// # Errors
    /// [`Error::Contended`]: see [`update`](Self::update).
    #[inline]
    pub fn fetch_add_float(&self, value: T) -> Result<T> {
        self.update(|found| {
            let before = *found;
            *found = before + value;
            before
        })
    }
}

impl<T: Plain> Cells<T> {
    /// Calls `use_cells` under the lock. The guard stays where it is: its copies would wait for their own stores.
    #[inline]
    fn locked<O>(&self, use_cells: impl FnOnce(&mut [T; 3]) -> O) -> Result<O, LockError<()>> {
        match self.0.lock() {
            Ok(mut held) => Ok(use_cells(&mut held)),
            Err(error) => recovered(error).map(|mut held| use_cells(&mut held)),
        }
    }
}

type Held<'a, T> = MutexGuard<'a, [T; 3], LeaseLock<Env>>;

/// The guard in the error. A dead holder has changed the byte or has not, so there is nothing to repair.
#[cold]
fn recovered<T: Plain>(error: LockError<Held<'_, T>>) -> Result<Held<'_, T>, LockError<()>> {
    match error {
        LockError::OwnerDied(mut held) | LockError::Poisoned(mut held) => {
            held.mark_consistent();
            Ok(held)
        }
        error => Err(error.without_guard()),
    }
}

/// Makes `value` the valid one, in the cell that is not valid.
#[inline]
fn commit<T: Plain>(cells: &mut [T; 3], other: usize, value: T) {
    cells[other] = value;
    // A kill interrupts between instructions, as a signal does: the value is whole before the byte leads to it. Other
    // processes look under the lock only, or after the proof of this one's death.
    compiler_fence(Ordering::SeqCst);
    set_valid(cells, other);
}

/// The cell that holds the value: 0 or 1, whatever the byte.
#[inline]
fn valid<T: Plain>(cells: &[T; 3]) -> usize {
    // SAFETY: the first byte of a cell of more than 8, initialised as `Plain` has no padding.
    usize::from(unsafe { (&raw const cells[2]).cast::<u8>().read() } & 1)
}

#[inline]
fn set_valid<T: Plain>(cells: &mut [T; 3], cell: usize) {
    // SAFETY: as in `valid`; each pattern of bytes is a `T`.
    unsafe { (&raw mut cells[2]).cast::<u8>().write_volatile(u8::from(cell == 1)) };
}

/// A value of up to 8 bytes at the top of a word, above zeros, so that adding words adds values.
#[inline]
fn to_word<T: Plain>(value: T) -> u64 {
    let mut bytes = [0_u8; 8];
    let top = &mut bytes[top_of_word(size_of::<T>())..][..size_of::<T>()];
    // SAFETY: both have the size of a `T`, which is `Plain` and so has no padding; they are different variables.
    unsafe { std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), top.as_mut_ptr(), top.len()) };
    u64::from_ne_bytes(bytes)
}

#[inline]
fn of_word<T: Plain>(word: u64) -> T {
    let bytes = word.to_ne_bytes();
    let top = &bytes[top_of_word(size_of::<T>())..][..size_of::<T>()];
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: both have the size of a `T`; they are different variables.
    unsafe { std::ptr::copy_nonoverlapping(top.as_ptr(), value.as_mut_ptr().cast::<u8>(), top.len()) };
    // SAFETY: all its bytes were written, and each pattern of them is a `T`, which is `Plain`.
    unsafe { value.assume_init() }
}

/// Where the highest `size` bytes of a word begin in memory.
const fn top_of_word(size: usize) -> usize {
    if cfg!(target_endian = "little") { size_of::<u64>() - size } else { 0 }
}

impl<T: Plain> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Kind::Word(word) => Kind::Word(word.clone()),
            Kind::Cells(cells) => Kind::Cells(cells.clone()),
        })
    }
}

impl<T: Plain> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").finish_non_exhaustive()
    }
}

impl<T: Plain> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Kind::Word(word) => (T::FINGERPRINT, word).serialize(serializer),
            Kind::Cells(cells) => (T::FINGERPRINT, cells).serialize(serializer),
        }
    }
}

impl<'de, T: Plain> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (found, kind) = if size_of::<T>() <= size_of::<u64>() {
            let (found, word): (_, Placed<Word>) = Deserialize::deserialize(deserializer)?;
            if word.0.len() != 1 {
                return Err(D::Error::custom("a value of several words"));
            }
            (found, Kind::Word(word))
        } else {
            let (found, cells) = Deserialize::deserialize(deserializer)?;
            (found, Kind::Cells(cells))
        };
        // A word does not say what is in it.
        if found != T::FINGERPRINT {
            let (expected, type_name) = (T::FINGERPRINT, std::any::type_name::<T>());
            let why = OpenError::Header(HeaderError::WrongType { found, expected, type_name });
            return Err(wire::refuse_to_arrive(Error::Open(why)));
        }
        Ok(Self(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travel<T: Plain, U: Plain>(value: &Value<T>) -> Result<Value<U>> {
        let parcel = wire::pack(value)?;
        wire::unpack(&parcel.bytes, parcel.fds)
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let word = Value::new(1_u64).unwrap();
        assert_eq!(travel::<u64, u64>(&word).unwrap().get(), 1);
        let wrong = |error| matches!(error, Error::Open(OpenError::Header(HeaderError::WrongType { .. })));
        assert!(wrong(travel::<u64, f64>(&word).unwrap_err()));
        let pair = Value::new([1_u64; 2]).unwrap();
        assert_eq!(travel::<[u64; 2], [u64; 2]>(&pair).unwrap().get(), [1; 2]);
        assert!(travel::<[u64; 2], [i64; 2]>(&pair).is_err());
        assert!(travel::<[u64; 2], u64>(&pair).is_err());
    }

    #[test]
    fn a_short_value_is_at_the_top_of_its_word() {
        assert_eq!(to_word(0x12_u8), 0x12 << 56);
        assert_eq!(to_word(-1_i32), 0xffff_ffff << 32);
        assert_eq!(of_word::<i32>(to_word(-7_i32)), -7);
        assert_eq!(to_word([0_u8; 0]), 0);
    }

    #[test]
    fn a_value_that_was_left_between_its_two_stores_is_the_old_one() {
        let value = Value::new([1_u64; 3]).unwrap();
        let Kind::Cells(cells) = &value.0 else { panic!("24 bytes") };
        for cell in [0, 1] {
            // As a writer that is killed before it changes the byte.
            cells.0.lock().unwrap()[cell ^ 1] = [9; 3];
            assert_eq!(value.get(), [1; 3]);
            // And once all of it is done, the other cell is the valid one.
            value.set([1; 3]);
            assert_eq!(valid(&cells.0.lock().unwrap()), cell ^ 1);
        }
    }
}

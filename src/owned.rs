//! Arrays that are in one process's hands at a time, whole or in parts, and therefore give slices.
//!
//! A part is moved: it is here, or leaving with a message that is being packed, or gone. There is no shared slice (`Deref`)
//! of one, only a mutable one through `&mut self`: whoever serialises a part has a `&self`, and a slice that somebody took
//! through another `&self` would outlive the sending and show what the other process writes.
//!
//! # Why no two processes, and no two handles of one, ever have the same element
//! - A part is made by splitting one, or by taking one out of a message. A message that is being packed takes a part once;
//!   the part is back only if the message was never sent.
//! - Which elements a message hands over stands in a table beside the bytes (`wire/deeds.rs`), which user code never sees;
//!   in the bytes there is only a row's number, and a row is taken once. So bytes that a `Serialize` of the user's doubles,
//!   changes or keeps for later do not double an element.
//! - What several processes get a copy of (a pool's context) takes no part.
//! - The segment's elements have a type of their own (`Sole`), so nothing else can be opened on it.
#![allow(unsafe_code)]

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crosslane_core::plain::Fingerprint;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result, UnsplitReason};
use crate::shm::{self, Options};
use crate::wire::{self, Deed, Moved};
use crate::{Plain, Trusted};

/// An array in shared memory that is in one process's hands at a time: it gives slices, is split into parts for other
/// processes to work on, and joined again. Not `Clone`; for an array that all use at once, [`Array`](crate::Array).
///
/// Sending it, or a part of it, costs a descriptor and no copy, whatever its size. What was sent is gone here: a call on it
/// panics. It has a segment of its own, whose pages are reserved and touched by whoever writes them.
///
/// # Crash
/// Parts that a killed process had are lost: nobody gives them out again, since they might have been passed on.
/// [`unsplit`](Self::unsplit) says which elements are missing, and gives the other parts back.
///
/// # Examples
/// ```
/// use crosslane::{ArrayPart, OwnedArray};
///
/// let squares = OwnedArray::<u64>::zeroed(1000)?;
/// let mut parts = squares.split(4);
/// // As a rule each goes to a process of its own, which returns it.
/// for part in &mut parts {
///     let start = part.start() as u64;
///     for (i, square) in (start..).zip(part.as_mut_slice()) {
///         *square = i * i;
///     }
/// }
/// let mut squares = OwnedArray::unsplit(parts)?;
/// assert_eq!(squares.as_mut_slice()[999], 998_001);
/// # Ok::<(), crosslane::Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedArray<T: Plain>(ArrayPart<T>);

/// Some consecutive elements of an [`OwnedArray`], in one process's hands at a time. Not `Clone`.
///
/// ```compile_fail,E0599
/// let part = crosslane::OwnedArray::<u8>::zeroed(1)?.split(1).remove(0);
/// let (one, two) = (part.clone(), part);
/// # Ok::<(), crosslane::Error>(())
/// ```
/// Its slice ends before it is sent:
/// ```compile_fail,E0502
/// let mut part = crosslane::OwnedArray::<u8>::zeroed(1)?.split(1).remove(0);
/// let (mut ours, _theirs) = crosslane::pipe::<crosslane::ArrayPart<u8>, ()>()?;
/// let slice = part.as_mut_slice();
/// ours.send(&part)?;
/// slice[0] = 1;
/// # Ok::<(), crosslane::Error>(())
/// ```
///
/// What was sent is gone here: a call on it panics, but [`is_here`](Self::is_here).
pub struct ArrayPart<T: Plain> {
    whole: Arc<Whole<T>>,
    range: Range<usize>,
    whereabouts: Arc<AtomicU8>,
}

type Whole<T> = shm::Array<Sole<T>, Trusted>;

/// An element that only one process uses at a time.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Sole<T>(T);

// SAFETY:
// - the same bytes as those of a `T`, which is `Plain`;
// - its name tells it from a `T` and from everything else.
unsafe impl<T: Plain> Plain for Sole<T> {
    const FINGERPRINT: u64 = Fingerprint::of_struct("crosslane::OwnedArray", size_of::<T>(), align_of::<T>())
        .field("0", 0, T::FINGERPRINT)
        .finish();
}

/// In this process, and nowhere else.
const HERE: u8 = 0;
/// Taken by a message that is being packed, or waits to be sent.
const LEAVING: u8 = 1;
/// In another process.
const GONE: u8 = 2;

impl<T: Plain> OwnedArray<T> {
    /// An array of `len` elements of zero bytes.
    ///
    /// # Errors
    /// [`Error::Create`]: there is not so much memory (with the bytes wanted and available), or the element's alignment is
    /// above 128 bytes.
    pub fn zeroed(len: usize) -> Result<Self> {
        let whole = Arc::new(shm::Array::anonymous(len as u64, &Options::new())?);
        remember(
            file_key(&File::from(whole.as_fd().try_clone_to_owned().map_err(Error::io("duplicate a descriptor"))?))?,
            &whole,
        );
        Ok(Self(ArrayPart::new(whole, 0..len)))
    }

    /// An array of these elements.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn from_slice(items: &[T]) -> Result<Self> {
        let mut array = Self::zeroed(items.len())?;
        array.as_mut_slice().copy_from_slice(items);
        Ok(array)
    }

    /// Puts together what was split, in whatever order it comes.
    ///
    /// # Errors
    /// [`UnsplitError`], with the parts: they are not all, or not of one array, or some were sent elsewhere.
    pub fn unsplit(mut parts: Vec<ArrayPart<T>>) -> Result<Self, UnsplitError<T>> {
        parts.sort_by_key(|part| (part.range.start, part.range.end));
        match reason_against(&parts) {
            Some(reason) => Err(UnsplitError { parts, reason }),
            None => Ok(Self(ArrayPart::new(Arc::clone(&parts[0].whole), 0..parts[0].whole.len()))),
        }
    }

    /// The elements.
    ///
    /// # Panics
    /// If the array was sent to another process.
    #[track_caller]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.0.as_mut_slice()
    }

    /// A copy of the elements.
    ///
    /// # Panics
    /// If the array was sent to another process.
    #[must_use]
    #[track_caller]
    pub fn to_vec(&self) -> Vec<T> {
        self.0.to_vec()
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it was not sent to another process.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.0.is_here()
    }

    /// So many parts in order, whose lengths differ by 1 at most: the longer ones first.
    ///
    /// # Panics
    /// If `parts` is 0, or the array was sent to another process.
    #[must_use]
    #[track_caller]
    pub fn split(self, parts: usize) -> Vec<ArrayPart<T>> {
        self.0.split(parts)
    }

    /// The elements before `mid`, and the others.
    ///
    /// # Panics
    /// If `mid` is above the length, or the array was sent to another process.
    #[must_use]
    #[track_caller]
    pub fn split_at(self, mid: usize) -> (ArrayPart<T>, ArrayPart<T>) {
        self.0.split_at(mid)
    }
}

impl<T: Plain> ArrayPart<T> {
    /// The caller has these elements to itself, and gives them up.
    fn new(whole: Arc<Whole<T>>, range: Range<usize>) -> Self {
        Self { whole, range, whereabouts: Arc::new(AtomicU8::new(HERE)) }
    }

    /// The elements.
    ///
    /// # Panics
    /// If the part was sent to another process.
    #[track_caller]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.must_be_here();
        // SAFETY: this process alone has these elements, and this handle alone in it (the module's head); while the slice
        // lives, `self` is borrowed mutably, so nobody can serialise it.
        let mut part = unsafe { self.whole.own(self.range.clone()) };
        let items: *mut [Sole<T>] = &raw mut *part;
        // SAFETY: as above; `Sole` is a transparent `T`, and `self` keeps the memory mapped.
        unsafe { &mut *(items as *mut [T]) }
    }

    /// A copy of the elements.
    ///
    /// # Panics
    /// If the part was sent to another process.
    #[must_use]
    #[track_caller]
    pub fn to_vec(&self) -> Vec<T> {
        self.must_be_here();
        self.range.clone().map(|index| self.whole.get(index).0).collect()
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Elements of the whole array before these.
    #[must_use]
    pub fn start(&self) -> usize {
        self.range.start
    }

    /// Whether it was not sent to another process.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.whereabouts.load(Ordering::Acquire) == HERE
    }

    /// As [`OwnedArray::split`].
    ///
    /// # Panics
    /// If `parts` is 0, or the part was sent to another process.
    #[must_use]
    #[track_caller]
    pub fn split(self, parts: usize) -> Vec<Self> {
        assert!(parts > 0, "an array cannot be split into 0 parts");
        let mut rest = self;
        let mut split = Vec::with_capacity(parts);
        for left in (2..=parts).rev() {
            let (part, behind) = rest.split_at_len(left);
            split.push(part);
            rest = behind;
        }
        rest.must_be_here();
        split.push(rest);
        split
    }

    #[track_caller]
    fn split_at_len(self, left: usize) -> (Self, Self) {
        let mid = self.len().div_ceil(left);
        self.split_at(mid)
    }

    /// The elements before `mid`, and the others.
    ///
    /// # Panics
    /// If `mid` is above the length, or the part was sent to another process.
    #[must_use]
    #[track_caller]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        self.must_be_here();
        assert!(mid <= self.len(), "mid {mid} is out of bounds, the len is {}", self.len());
        let Range { start, end } = self.range;
        let front = Self::new(Arc::clone(&self.whole), start..start + mid);
        (front, Self::new(self.whole, start + mid..end))
    }

    #[track_caller]
    fn must_be_here(&self) {
        assert!(self.is_here(), "this part of an array was sent to another process");
    }
}

/// Why these parts, in order, are not a whole array.
fn reason_against<T: Plain>(parts: &[ArrayPart<T>]) -> Option<UnsplitReason> {
    let Some(first) = parts.first() else { return Some(UnsplitReason::NoParts) };
    let id = |part: &ArrayPart<T>| part.whole.segment().header().segment_id;
    if parts.iter().any(|part| id(part) != id(first)) {
        return Some(UnsplitReason::OtherArray);
    }
    if parts.iter().any(|part| !part.is_here()) {
        return Some(UnsplitReason::Sent);
    }
    let ends = parts.iter().map(|part| part.range.end);
    let starts = parts.iter().skip(1).map(|part| part.range.start).chain([first.whole.len()]);
    let gap = [0]
        .into_iter()
        .chain(ends)
        .zip([first.range.start].into_iter().chain(starts))
        .find(|(end, start)| end != start);
    gap.map(|(start, end)| UnsplitReason::Missing { start, end })
}

/// Why parts could not be joined; with the parts, in order.
pub struct UnsplitError<T: Plain> {
    /// The parts.
    pub parts: Vec<ArrayPart<T>>,
    /// What is wrong with them.
    pub reason: UnsplitReason,
}

impl<T: Plain> fmt::Display for UnsplitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T: Plain> fmt::Debug for UnsplitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsplitError").field("reason", &self.reason).field("parts", &self.parts).finish()
    }
}

impl<T: Plain> std::error::Error for UnsplitError<T> {}

/// Drops the parts.
impl<T: Plain> From<UnsplitError<T>> for Error {
    fn from(error: UnsplitError<T>) -> Self {
        Self::Unsplit(error.reason)
    }
}

impl<T: Plain> fmt::Debug for ArrayPart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayPart").field("range", &self.range).field("is_here", &self.is_here()).finish()
    }
}

/// A part that leaves. Dropped before it was sent, it is back.
#[derive(Debug)]
struct Leaving(Arc<AtomicU8>);

impl Leaving {
    fn begin(whereabouts: &Arc<AtomicU8>) -> Option<Self> {
        let taken = whereabouts.compare_exchange(HERE, LEAVING, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok().then(|| Self(Arc::clone(whereabouts)))
    }
}

impl Moved for Leaving {
    fn sent(&mut self) {
        self.0.store(GONE, Ordering::Release);
    }

    /// It may have been passed on before the process died, so it is not taken back.
    fn lost(&mut self) {}
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(LEAVING, HERE, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl<T: Plain> Serialize for OwnedArray<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.leave("OwnedArray")?.serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for OwnedArray<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = ArrayPart::deserialize(deserializer)?;
        if part.range == (0..part.whole.len()) { Ok(Self(part)) } else { Err(D::Error::custom("a part of an array")) }
    }
}

impl<T: Plain> Serialize for ArrayPart<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.leave("ArrayPart")?.serialize(serializer)
    }
}

impl<T: Plain> ArrayPart<T> {
    /// Puts the part onto the message that is being packed.
    fn leave<E: serde::ser::Error>(&self, handle: &'static str) -> Result<Deed, E> {
        let leaving = Leaving::begin(&self.whereabouts).ok_or_else(|| wire::already_sent(handle))?;
        let segment = self.whole.segment().header().segment_id;
        let descriptor = wire::attach_segment(handle, segment, self.whole.as_fd())?;
        wire::attach_moved(handle, Box::new(leaving))?;
        wire::attach_deed(descriptor, &(self.range.start as u64..self.range.end as u64))
    }
}

impl<'de, T: Plain> Deserialize<'de> for ArrayPart<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (descriptor, range) = wire::arrived_deed(&Deed::deserialize(deserializer)?)?;
        let whole = wire::arrived_shared(descriptor, arrived_whole::<T>)?;
        let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match range {
            Some((start, end)) if start <= end && end <= whole.len() => Ok(Self::new(whole, start..end)),
            _ => Err(D::Error::custom("a part that is not inside of its array")),
        }
    }
}

/// Device and inode: which file a descriptor is of.
type FileKey = (u64, u64);

/// The arrays of which this process has parts, so that a hundred of them take one mapping.
static WHOLES: Mutex<Option<HashMap<FileKey, Weak<dyn Any + Send + Sync>>>> = Mutex::new(None);

fn file_key(file: &File) -> Result<FileKey> {
    let metadata = file.metadata().map_err(Error::io("look at a descriptor"))?;
    Ok((metadata.dev(), metadata.ino()))
}

fn remember<T: Plain>(key: FileKey, whole: &Arc<Whole<T>>) {
    let whole: Arc<dyn Any + Send + Sync> = Arc::clone(whole) as _;
    let mut wholes = WHOLES.lock().unwrap_or_else(PoisonError::into_inner);
    let wholes = wholes.get_or_insert_default();
    // An inode number is used again only when the array is gone, and with it the last upgrade.
    wholes.retain(|_, whole| whole.strong_count() > 0);
    wholes.insert(key, Arc::downgrade(&whole));
}

/// The array that `fd` is, which is mapped if it is not yet.
fn arrived_whole<T: Plain>(fd: OwnedFd) -> Result<Arc<Whole<T>>> {
    let file = File::from(fd);
    let key = file_key(&file)?;
    let known = {
        let wholes = WHOLES.lock().unwrap_or_else(PoisonError::into_inner);
        wholes.as_ref().and_then(|wholes| wholes.get(&key)).and_then(Weak::upgrade)
    };
    if let Some(known) = known.and_then(|known| known.downcast().ok()) {
        return Ok(known);
    }
    let whole = Arc::new(shm::Array::from_fd(file.into(), &Options::new())?);
    remember(key, &whole);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{pack, unpack};

    fn array(len: usize) -> OwnedArray<u32> {
        OwnedArray::zeroed(len).unwrap()
    }

    #[test]
    fn a_part_is_back_if_its_message_was_never_sent() {
        let (front, back) = array(4).split_at(2);
        let both = (front, back);
        let parcel = pack(&both).unwrap();
        assert!(!both.0.is_here() && !both.1.is_here());
        assert!(matches!(pack(&both), Err(Error::AlreadySent { handle: "ArrayPart" })));
        drop(parcel);
        assert!(both.0.is_here() && both.1.is_here());
        let in_transit = pack(&both).unwrap().sent();
        in_transit.lost();
        assert!(!both.0.is_here() && !both.1.is_here());
    }

    #[test]
    fn a_message_that_cannot_be_packed_keeps_nothing() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("refused"))
            }
        }
        impl<'de> Deserialize<'de> for Refuses {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Ok(Self)
            }
        }
        let message = (array(1), Refuses);
        assert!(matches!(pack(&message), Err(Error::Encode { .. })));
        assert!(message.0.is_here());
    }

    #[test]
    fn what_is_refused_outside_of_a_message_is_not_the_next_ones_error() {
        let array = array(1);
        drop(pack(&array).unwrap().sent());
        assert!(serde_json::to_string(&array).unwrap_err().to_string().contains("handed over"));
        assert!(matches!(unpack::<u64>(&[0xff; 20], Vec::new()), Err(Error::Decode { .. })));
    }

    /// What a `Serialize` and a `Deserialize` of the user's can do with the bytes of a part.
    struct Doubled(Vec<ArrayPart<u32>>);

    impl Serialize for Doubled {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let bytes = postcard::to_stdvec(&self.0[0]).map_err(serde::ser::Error::custom)?;
            (bytes.clone(), bytes).serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Doubled {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (one, two) = <(Vec<u8>, Vec<u8>)>::deserialize(deserializer)?;
            let part = |bytes: Vec<u8>| postcard::from_bytes(&bytes).map_err(D::Error::custom);
            Ok(Self(vec![part(one)?, part(two)?]))
        }
    }

    #[test]
    fn bytes_that_are_doubled_do_not_double_the_elements() {
        let parcel = pack(&Doubled(array(4).split(1))).unwrap();
        let doubled = unpack::<Doubled>(&parcel.bytes, parcel.fds);
        assert!(doubled.err().unwrap().to_string().contains("cannot decode"));
    }

    #[test]
    fn an_owned_arrays_memory_is_opened_as_nothing_else() {
        let parcel = pack(&array(4)).unwrap();
        let fd = parcel.fds[0].try_clone().unwrap();
        let shared = shm::Array::<u32>::from_fd(fd, &Options::new());
        assert!(matches!(shared, Err(crate::OpenError::Header(_))), "{shared:?}");
        let other = unpack::<OwnedArray<f32>>(&parcel.bytes, parcel.fds);
        assert!(matches!(other, Err(Error::Open(_))), "{other:?}");
    }

    #[test]
    fn what_several_processes_get_takes_no_part() {
        let array = array(4);
        let refused = wire::pack_for_several(&array);
        assert!(matches!(refused, Err(Error::HandleForSeveral { handle: "OwnedArray" })), "{refused:?}");
        assert!(array.is_here());
        assert!(wire::pack_for_several(&crate::Array::<u8>::zeroed(1).unwrap()).is_ok());
    }

    /// Whatever bytes come with descriptors, they are a value or an error.
    #[test]
    fn bytes_that_were_changed_are_no_panic() {
        type All = (crate::Value<u64>, crate::Value<[u64; 2]>, crate::Array<u8>, crate::Lock, Vec<ArrayPart<u32>>);
        let locks = crate::Lock::new().unwrap();
        let values = (crate::Value::new(1).unwrap(), crate::Value::new([2; 2]).unwrap());
        let all: All = (values.0, values.1, crate::Array::zeroed(3).unwrap(), locks, array(4).split(2));
        let parcel = pack(&all).unwrap();
        let fds = || parcel.fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let (mut refused, mut taken) = (0, 0);
        for at in 0..parcel.bytes.len() {
            for byte in [0, 1, 3, 0xff] {
                let mut bytes = parcel.bytes.clone();
                bytes[at] = byte;
                match unpack::<All>(&bytes, fds()) {
                    Ok(_) => taken += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > taken && taken > 0, "{refused} {taken}");
    }

    #[test]
    fn a_segment_is_no_list_of_parts() {
        let parcel = pack(&(crate::Array::<u8>::zeroed(1 << 16).unwrap(), array(4))).unwrap();
        let (mut bytes, last) = (parcel.bytes.clone(), parcel.bytes.len() - 2);
        assert_eq!(bytes[last], 3, "the list is the message's last descriptor");
        for (file, row) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 0)] {
            bytes[last..].copy_from_slice(&[file, row]);
            let fds = parcel.fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
            assert!(unpack::<(crate::Array<u8>, OwnedArray<u32>)>(&bytes, fds).is_err(), "{file} {row}");
        }
    }
}

//! How values travel: encoded by postcard, with the descriptors that their handles need beside them.
//!
//! A handle (a lock, a queue, an end of a pipe) is serialised like any value: it puts a descriptor onto the message that
//! is being packed, and an index into the bytes. What is being packed stands in a thread-local, because serde has no
//! place for it; so a handle that is serialised by anything else finds nothing there, and refuses.
//!
//! A value of a type that is its bytes (a number, a `Vec<u8>`: see `blob`) skips serde.

mod deeds;
mod reader;
mod strict;
mod told;

use std::any::{Any, type_name};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::deeds::Deed;
use self::deeds::Deeds;
use self::strict::Checked;
use self::told::Told;
use crate::blob;
use crate::error::{Codec, CodecError, Error, Result};
use crate::place::Place;

/// Memory that is kept for the next message, in bytes at most.
const MAX_SCRATCH_BYTES: usize = 4 << 20;

/// What may travel between processes: what serde and postcard can write and read back.
///
/// That is what derives `Serialize` and `Deserialize`, but for serde's attributes that need the names of fields in the
/// message: a field that `skip_serializing_if` leaves out is an [`Error::Encode`], and `untagged`, `tag`, `flatten` and types like
/// `serde_json::Value` are an [`Error::Encode`] or [`Error::Decode`]. A field with `skip_serializing` alone, or
/// `skip_deserializing` alone, nothing can tell from one that is not there: what follows is read in its place, so the value arrives
/// as another one, or as an [`Error::Decode`] where that does not fit or nothing is left. `skip`, which is both, is neither.
///
/// Handles (`Queue`, `Lock`, `Connection`, ...) are among it, and travel with the descriptor that they need.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    note = "what travels is owned data with `#[derive(Serialize, Deserialize)]`, or a handle of crosslane"
)]
pub trait Portable: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Portable for T {}

/// A packed value: its bytes, and what travels beside them.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    moved: Vec<Box<dyn Moved>>,
}

/// Something of which there is only one, and which leaves this process with the parcel.
pub(crate) trait Moved: fmt::Debug + Send + Sync {
    /// The parcel is on its way.
    fn sent(&mut self);

    /// The process that was to get it is dead, or will never read it. It may have arrived all the same.
    fn lost(&mut self);

    /// Its handle's type, if it is what takes messages out of this ring, and so must not travel in one.
    fn receives_from(&self, _ring: Place) -> Option<&'static str> {
        None
    }
}

/// What is on its way, for as long as its sender can be asked to take it back.
#[derive(Debug, Default)]
pub(crate) struct InTransit(Vec<Box<dyn Moved>>);

impl Parcel {
    fn new(bytes: Vec<u8>, beside: Option<Box<Outgoing>>) -> Self {
        match beside {
            None => Self { bytes, ..Self::default() },
            Some(beside) => Self { bytes, fds: beside.fds, moved: beside.moved },
        }
    }

    /// To be called when the parcel has left.
    pub(crate) fn sent(mut self) -> InTransit {
        self.depart()
    }

    /// The type of a handle in it that takes messages out of this ring.
    pub(crate) fn receives_from(&self, ring: Place) -> Option<&'static str> {
        self.moved.iter().find_map(|one| one.receives_from(ring))
    }

    /// As [`sent`](Self::sent), for a parcel that is kept, to be sent again if need be.
    pub(crate) fn depart(&mut self) -> InTransit {
        let mut moved = std::mem::take(&mut self.moved);
        for one in &mut moved {
            one.sent();
        }
        InTransit(moved)
    }
}

impl InTransit {
    /// To be called when the process that was to get the parcel is known to be dead.
    pub(crate) fn lost(self) {
        for mut one in self.0 {
            one.lost();
        }
    }

    /// Whether there is nothing that could be taken back.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What carries the value that is being serialised on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    /// Nothing of ours.
    Foreign,
    /// A message to one process.
    Message,
    /// A message that several processes get.
    Several,
    /// A queue, from which anybody takes.
    Queue,
    /// None: a message that came with descriptors is being unpacked.
    Arrival,
}

/// The message that is being packed or unpacked on this thread.
#[derive(Debug, Clone, Copy)]
struct Current {
    carrier: Carrier,
    /// Which [`REFUSAL`] is of a handle in it; 0: none.
    refusal: u32,
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { carrier: Carrier::Foreign, refusal: 0 }) };
    /// Why a handle refused, and which refusal of this thread's that was: serde's errors are texts, so the reason travels beside
    /// them.
    static REFUSAL: Cell<Option<(u32, Error)>> = const { Cell::new(None) };
    static REFUSALS: Cell<u32> = const { Cell::new(0) };
    /// Boxed, and made when the first is added: most messages have none.
    static OUTGOING: RefCell<Option<Box<Outgoing>>> = const { RefCell::new(None) };
    static INCOMING: RefCell<Vec<Arrived>> = const { RefCell::new(Vec::new()) };
}

/// What goes beside the bytes of the message that is being packed.
#[derive(Default)]
struct Outgoing {
    fds: Vec<OwnedFd>,
    /// Which segment each descriptor is, to send it once.
    segments: BTreeMap<Segment, u32>,
    moved: Vec<Box<dyn Moved>>,
    /// The descriptor of the deeds, and how many there are.
    deeds: Option<(u32, u32)>,
}

/// A segment's id, as in its header.
type Segment = [u8; 16];

/// A descriptor of the message that is being unpacked.
#[derive(Default)]
struct Arrived {
    fd: Option<OwnedFd>,
    /// What it was opened as, for the handles that share it.
    opened: Option<Arc<dyn Any + Send + Sync>>,
}

/// Sets which message it is, and puts back what was there: a value's `serialize` may itself send a message, or panic.
struct Carrying(Current);

impl Carrying {
    #[inline]
    fn begin(carrier: Carrier) -> Self {
        Self(CURRENT.replace(Current { carrier, refusal: 0 }))
    }
}

impl Drop for Carrying {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Packs a message to one process. Nothing has happened to the handles in it until [`Parcel::sent`].
pub(crate) fn pack<T: Portable>(value: &T) -> Result<Parcel> {
    pack_by(Carrier::Message, Vec::new(), value)
}

/// As [`pack`], with the value's bytes behind those that `bytes` has.
pub(crate) fn pack_behind<T: Portable>(bytes: Vec<u8>, value: &T) -> Result<Parcel> {
    pack_by(Carrier::Message, bytes, value)
}

/// As [`pack`], for a message of which several processes get a copy: a handle of which there is only one is refused.
pub(crate) fn pack_for_several<T: Portable>(value: &T) -> Result<Parcel> {
    pack_by(Carrier::Several, Vec::new(), value)
}

fn pack_by<T: Portable>(carrier: Carrier, mut bytes: Vec<u8>, value: &T) -> Result<Parcel> {
    let outer = OUTGOING.take();
    let encoded = {
        let _carrying = Carrying::begin(carrier);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| encode(value, &mut bytes)))
    };
    let beside = OUTGOING.replace(outer);
    encoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(Parcel::new(bytes, beside))
}

/// Packs several values into one message: `f` is given what appends one.
pub(crate) fn pack_many<O>(f: impl FnOnce(&mut Packer<'_>) -> O) -> (O, Parcel) {
    let outer = OUTGOING.take();
    let mut packer = Packer { this_thread: PhantomData, lives: PhantomData };
    let packed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&mut packer)));
    let beside = OUTGOING.replace(outer);
    let packed = packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    (packed, Parcel::new(Vec::new(), beside))
}

/// Appends values to a message: see [`pack_many`].
pub(crate) struct Packer<'p> {
    this_thread: PhantomData<*const ()>,
    lives: PhantomData<&'p mut ()>,
}

impl Packer<'_> {
    /// Appends the bytes of `value`; its descriptors are the message's.
    #[inline]
    pub(crate) fn append<T: Portable>(&mut self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        let _carrying = Carrying::begin(Carrier::Message);
        encode(value, out)
    }
}

/// Runs `f`, in which [`unpack_item`] finds `fds` beside the bytes.
pub(crate) fn unpack_many<O>(fds: Vec<OwnedFd>, f: impl FnOnce() -> O) -> O {
    let arrived = fds.into_iter().map(|fd| Arrived { fd: Some(fd), opened: None }).collect();
    let outer = INCOMING.replace(arrived);
    let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    drop(INCOMING.replace(outer));
    decoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Appends the bytes of a value that goes through a queue. Handles are refused.
pub(crate) fn pack_for_queue<T: Portable>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let _carrying = Carrying::begin(Carrier::Queue);
    encode(value, out)
}

/// Appends the bytes of a value; `None` if there are handles in it: then what was appended is of no use.
pub(crate) fn pack_without_handles<T: Portable>(value: &T, out: &mut Vec<u8>) -> Option<Result<()>> {
    let _carrying = Carrying::begin(Carrier::Queue);
    let encoded = postcard_into(value, out);
    // What became of a refusal is the value's to say.
    if CURRENT.get().refusal != 0 { None } else { Some(encoded.map_err(refused::<T>)) }
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Memory to encode into. A value whose `serialize` puts something into a queue itself gets other memory.
pub(crate) struct Scratch(pub(crate) Vec<u8>);

impl Scratch {
    pub(crate) fn take() -> Self {
        Self(SCRATCH.take())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = recycled(std::mem::take(&mut self.0));
        if memory.capacity() > 0 {
            // At the end of the thread there is no place to keep it any more.
            let _ = SCRATCH.try_with(|scratch| scratch.set(memory));
        }
    }
}

/// Memory for the next message: that of the last one, unless it is too much to keep.
pub(crate) fn recycled(mut memory: Vec<u8>) -> Vec<u8> {
    if memory.capacity() > MAX_SCRATCH_BYTES {
        return Vec::new();
    }
    memory.clear();
    memory
}

/// The value that `bytes` and the descriptors beside them are.
pub(crate) fn unpack<T: Portable>(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<T> {
    let arrived = fds.into_iter().map(|fd| Arrived { fd: Some(fd), opened: None }).collect();
    let outer = INCOMING.replace(arrived);
    let decoded = std::panic::catch_unwind(|| unpack_item(bytes));
    drop(INCOMING.replace(outer));
    decoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The value that `bytes` are, which came without descriptors.
pub(crate) fn unpack_plain<T: Portable>(bytes: &[u8]) -> Result<T> {
    unpack_by(Carrier::Foreign, bytes)
}

/// The value that some bytes of the message are for which [`unpack_many`] was called.
pub(crate) fn unpack_item<T: Portable>(bytes: &[u8]) -> Result<T> {
    unpack_by(Carrier::Arrival, bytes)
}

#[inline]
fn unpack_by<T: Portable>(carrier: Carrier, bytes: &[u8]) -> Result<T> {
    match blob::parse_raw(bytes) {
        Some(raw) => raw.map_err(not_decoded::<T>),
        None => {
            let _carrying = Carrying::begin(carrier);
            match reader::take(bytes) {
                Ok((value, [])) => Ok(value),
                Ok((_, rest)) => Err(left_over::<T>(bytes, rest)),
                Err(Told(error)) => Err(refused_here::<T>(error)),
            }
        }
    }
}

#[cold]
fn left_over<T>(bytes: &[u8], rest: &[u8]) -> Error {
    not_decoded::<T>(Codec::Length { len_bytes: bytes.len(), element_bytes: bytes.len() - rest.len() })
}

#[cold]
fn refused_here<T>(error: postcard::Error) -> Error {
    take_refusal(&error).unwrap_or_else(|| not_decoded::<T>(why(error)))
}

fn not_decoded<T>(reason: Codec) -> Error {
    Error::Decode { type_name: type_name::<T>(), reason: CodecError(reason) }
}

fn why(error: postcard::Error) -> Codec {
    told::reason(&error).map_or(Codec::Postcard(error), Codec::Custom)
}

/// As [`unpack_plain`], in place of `value`, whose memory serves again if it is of a type that travels as its bytes. After an
/// error it is as it was.
pub(crate) fn unpack_plain_into<T: Portable>(bytes: &[u8], value: &mut T) -> Result<()> {
    match blob::parse_raw_into(bytes, value) {
        Some(done) => done.map_err(not_decoded::<T>),
        None => unpack_plain(bytes).map(|new| *value = new),
    }
}

fn encode<T: Portable>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    if let Some(bytes) = blob::as_raw(value) {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    postcard_into(value, out).map_err(refused::<T>)
}

fn postcard_into<T: Portable>(value: &T, out: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::serialize_with_flavor(&Checked(value), Appended(out))
}

#[cold]
fn refused<T>(error: postcard::Error) -> Error {
    let encoding = |reason| Error::Encode { type_name: type_name::<T>(), reason: CodecError(reason) };
    take_refusal(&error).unwrap_or_else(|| encoding(why(error)))
}

/// Takes why a handle of this message refused, if one did and that may be what `error` says.
#[cold]
fn take_refusal(error: &postcard::Error) -> Option<Error> {
    let number = CURRENT.get().refusal;
    match REFUSAL.take() {
        Some((noted, why)) if noted == number && told::says_something(error) => Some(why),
        another => {
            REFUSAL.set(another);
            None
        }
    }
}

#[cold]
fn note_refusal(why: Error) {
    let number = REFUSALS.get().wrapping_add(1).max(1);
    REFUSALS.set(number);
    REFUSAL.set(Some((number, why)));
    CURRENT.set(Current { refusal: number, ..CURRENT.get() });
}

/// The longest message that is encoded on the stack, in bytes.
pub(crate) const SMALL_BYTES: usize = 56;

/// Writes the bytes of a small value, which therefore has no handles in it, to the start of `out`, and returns how many
/// they are. `None`: it is to be packed by other means, which also say what is wrong with it.
#[inline]
pub(crate) fn pack_small<T: Portable>(value: &T, out: &mut [u8]) -> Option<usize> {
    // A handle owns something, so a type without a destructor is none. One that takes another's handle out of nowhere
    // gets a refusal, unless it stands in a message of ours that is being packed.
    if std::mem::needs_drop::<T>() || size_of::<T>() > SMALL_BYTES || CURRENT.get().carrier != Carrier::Foreign {
        return None;
    }
    postcard::to_slice(&Checked(value), out).ok().map(|bytes| bytes.len())
}

/// postcard writes to the end of a vector.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

// What handles call when they are serialised and deserialised.

/// What goes beside the message that is being packed.
fn beside<O>(f: impl FnOnce(&mut Outgoing) -> O) -> O {
    OUTGOING.with_borrow_mut(|out| f(out.get_or_insert_default()))
}

/// Puts a segment's descriptor onto the message that is being packed; returns its index there. `handle` is the type's
/// name, for errors.
pub(crate) fn attach_segment<E: serde::ser::Error>(
    handle: &'static str,
    segment: Segment,
    fd: BorrowedFd<'_>,
) -> Result<u32, E> {
    // What is known may be another message's, inside which this one is packed for a queue.
    may_travel(handle)?;
    let known = beside(|out| out.segments.get(&segment).copied());
    if let Some(index) = known {
        return Ok(index);
    }
    let index = attach(handle, fd)?;
    beside(|out| out.segments.insert(segment, index));
    Ok(index)
}

/// Puts a descriptor onto the message that is being packed; returns its index there.
pub(crate) fn attach<E: serde::ser::Error>(handle: &'static str, fd: BorrowedFd<'_>) -> Result<u32, E> {
    may_travel(handle)?;
    add(fd.try_clone_to_owned().map_err(no_descriptor("duplicate a descriptor"))?)
}

fn add<E: serde::ser::Error>(fd: OwnedFd) -> Result<u32, E> {
    beside(|out| {
        let index = u32::try_from(out.fds.len()).map_err(E::custom)?;
        out.fds.push(fd);
        Ok(index)
    })
}

fn no_descriptor<E: serde::ser::Error>(doing: &'static str) -> impl Fn(std::io::Error) -> E {
    move |source| match source.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => refuse_to_go(Error::FdLimit),
        _ => refuse_to_go(Error::Io { doing, source }),
    }
}

/// Notes that something leaves with the message that is being packed.
pub(crate) fn attach_moved<E: serde::ser::Error>(handle: &'static str, moved: Box<dyn Moved>) -> Result<(), E> {
    may_travel(handle)?;
    if CURRENT.get().carrier == Carrier::Several {
        return Err(refuse_to_go(Error::HandleForSeveral { handle }));
    }
    beside(|out| out.moved.push(moved));
    Ok(())
}

/// Hands over `range` of the segment whose descriptor of the message this is; returns what stands for that in the bytes. To
/// be called after [`attach_moved`] of what loses the range.
pub(crate) fn attach_deed<E: serde::ser::Error>(descriptor: u32, range: &Range<u64>) -> Result<Deed, E> {
    let deeds = beside(|out| out.deeds);
    let (file, row) = match deeds {
        Some(known) => known,
        None => (add(deeds::create().map_err(no_descriptor("make a memfd"))?)?, 0),
    };
    beside(|out| {
        let fd = out.fds.get(file as usize).ok_or_else(|| E::custom("no deeds"))?;
        deeds::append(fd, descriptor, range).map_err(no_descriptor("write to a memfd"))?;
        out.deeds = Some((file, row + 1));
        Ok(Deed { file, row })
    })
}

/// The error of a handle that was handed over before.
pub(crate) fn already_sent<E: serde::ser::Error>(handle: &'static str) -> E {
    refuse_to_go(Error::AlreadySent { handle })
}

/// Takes what `deed` of the message that is being unpacked hands over: the segment's descriptor, and the range.
pub(crate) fn arrived_deed<E: serde::de::Error>(deed: &Deed) -> Result<(u32, Range<u64>), E> {
    let deeds = arrived_shared(deed.file, |fd| Deeds::read(fd).map(Arc::new))?;
    deeds.take(deed.row).ok_or_else(|| E::custom("no such part came with the message, or it was taken before"))
}

fn may_travel<E: serde::ser::Error>(handle: &'static str) -> Result<(), E> {
    match CURRENT.get().carrier {
        Carrier::Message | Carrier::Several => Ok(()),
        Carrier::Queue => Err(refuse_to_go(Error::HandleInQueue { handle })),
        Carrier::Foreign | Carrier::Arrival => Err(E::custom(Error::HandleOutsideMessage { handle })),
    }
}

pub(crate) fn refuse_to_go<E: serde::ser::Error>(why: Error) -> E {
    let text = why.to_string();
    // Nobody would take it, but for the next message that fails.
    if CURRENT.get().carrier != Carrier::Foreign {
        note_refusal(why);
    }
    E::custom(text)
}

/// The error of a handle that cannot be what it should be here; whoever unpacks gets `why` itself.
pub(crate) fn refuse_to_arrive<E: serde::de::Error>(why: Error) -> E {
    let text = why.to_string();
    note_refusal(why);
    E::custom(text)
}

/// Takes descriptor `index` of the message that is being unpacked.
pub(crate) fn arrived<E: serde::de::Error>(index: u32) -> Result<OwnedFd, E> {
    let take = |fds: &mut Vec<Arrived>| fds.get_mut(index as usize)?.fd.take();
    if has_descriptors() { INCOMING.with_borrow_mut(take) } else { None }.ok_or_else(|| missing(index))
}

/// What descriptor `index` of the message that is being unpacked was opened as, or is opened as now.
pub(crate) fn arrived_shared<H: Any + Send + Sync, E: serde::de::Error>(
    index: u32,
    open: impl FnOnce(OwnedFd) -> Result<Arc<H>>,
) -> Result<Arc<H>, E> {
    let find = |fds: &Vec<Arrived>| fds.get(index as usize)?.opened.clone();
    let known = if has_descriptors() { INCOMING.with_borrow(find) } else { None };
    if let Some(known) = known {
        return known.downcast().map_err(|_| E::custom(format_args!("descriptor {index} is of another kind")));
    }
    let shared = open(arrived(index)?).map_err(refuse_to_arrive)?;
    let opened: Arc<dyn Any + Send + Sync> = Arc::clone(&shared) as _;
    INCOMING.with_borrow_mut(|fds| fds.get_mut(index as usize).map(|arrived| arrived.opened = Some(opened)));
    Ok(shared)
}

/// Whether those that have come are of the message that is being unpacked, and not of one around it.
fn has_descriptors() -> bool {
    CURRENT.get().carrier == Carrier::Arrival
}

fn missing<E: serde::de::Error>(index: u32) -> E {
    E::custom(format_args!("no descriptor {index} came with the message"))
}

//! The first 256 bytes of every segment: what it is, so that nothing else is ever taken for it.
//!
//! # What
//! Fixed width, little-endian, every field aligned to its size; `magic` is stored last. A reader takes each field once
//! into a private copy and checks that copy, because a peer may write the bytes at any time.
//!
//! | byte | field | byte | field |
//! |---|---|---|---|
//! | 0 | magic u64 | 80 | start_time u64, ns since 1970, for people |
//! | 8 | format major u16, minor u16 | 88 | boot_id \[u8; 16\] |
//! | 12 | header_len u32 | 104 | domain_id \[u8; 16\] |
//! | 16 | total_len u64 | 120 | flags u64: wake mode in bits 0..2 |
//! | 24 | segment_id \[u8; 16\] | 128 | domain_offset u64: participant table, or 0 |
//! | 40 | state u32, 1 | 136 | participants u32 |
//! | 44 | kind u32 | 140 | reserved u32 |
//! | 48 | fingerprint u64 | 144 | object_offset u64 |
//! | 56 | elem_size u32, elem_align u32 | 152 | object_len u64 |
//! | 64 | capacity u64 | 160 | reserved, 96 bytes of 0 |
//! | 72 | creator pid u32, uid u32 | | |
//!
//! A change of the layout raises the major number (readers refuse) or, if old readers may ignore it, the minor one.
//!
//! # Protocol
//! Creator: 1. write object, table and every other field; 2. `magic.store`. Reader: 1. `magic.load`; 2. the fields.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `segment.ready` | creator 2, `RawHeader::write` | reader 1, `Header::read` | the whole segment | none: a name or an fd reaches a reader through the kernel, which orders everything; the edge covers threads that share a mapping |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | 1 and 2 | no name (a name is linked after 2), or no magic: `NotACrosslaneSegment` |
#![allow(unsafe_code)]

use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crosslane_core::WakeMode;
use crosslane_core::owner::MAX_PARTICIPANTS;

use crate::content::{Content, Expected, Kind};
use crate::domain::TABLE_BYTES;
use crate::mapping::Mapping;

#[cfg(target_endian = "big")]
compile_error!("segments are little-endian");

/// The first eight bytes of a segment: "xlaneSEG".
pub const MAGIC: u64 = u64::from_le_bytes(*b"xlaneSEG");
/// The format that this crate writes and reads: (major, minor).
pub const FORMAT: (u16, u16) = (1, 0);
/// Length of the header, in bytes.
pub const HEADER_BYTES: u32 = 256;
/// Where the object starts in a segment without a participant table of its own.
pub(crate) const OBJECT_OFFSET: u64 = HEADER_BYTES as u64;
/// Where the participant table starts in a segment that is its own lease domain.
pub(crate) const TABLE_OFFSET: u64 = HEADER_BYTES as u64;
/// Where the object starts in a segment that is its own lease domain.
pub(crate) const OBJECT_OFFSET_WITH_TABLE: u64 = (TABLE_OFFSET + TABLE_BYTES).next_multiple_of(128);

const READY: u32 = 1;

/// Size and alignment of an element, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Size, in bytes.
    pub size: u32,
    /// Alignment, in bytes.
    pub align: u32,
}

/// Why a file is not the segment that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file is too short for what it must hold.
    TooSmall {
        /// Its length, in bytes.
        found: u64,
        /// The least that it needs, in bytes.
        expected: u64,
    },
    /// The first eight bytes are not [`MAGIC`]: something else, or a segment that never became whole.
    NotACrosslaneSegment {
        /// The first eight bytes.
        found: u64,
        /// [`MAGIC`].
        expected: u64,
    },
    /// Another major format number.
    FormatVersion {
        /// (major, minor) in the header.
        found: (u16, u16),
        /// [`FORMAT`].
        expected: (u16, u16),
    },
    /// Another header length, in bytes.
    HeaderLength {
        /// In the header.
        found: u32,
        /// [`HEADER_BYTES`].
        expected: u32,
    },
    /// The file is not as long as the header says: it was cut or stretched.
    FileLength {
        /// The file's length, in bytes.
        found: u64,
        /// The header's number, in bytes.
        expected: u64,
    },
    /// The header contradicts itself about where its parts lie.
    Layout {
        /// Where the object ends according to the header, in bytes.
        found: u64,
        /// Where the segment ends, in bytes.
        expected: u64,
    },
    /// Another kind of object.
    WrongKind {
        /// In the header.
        found: Kind,
        /// Asked for.
        expected: Kind,
    },
    /// Elements of another size or alignment.
    WrongElement {
        /// In the header.
        found: Element,
        /// Asked for.
        expected: Element,
        /// The type asked for, as this program calls it.
        type_name: &'static str,
    },
    /// Elements of another type: another name, other fields, or the same fields in another order.
    WrongType {
        /// Fingerprint in the header.
        found: u64,
        /// Fingerprint asked for.
        expected: u64,
        /// The type asked for, as this program calls it. What the creator's was called the header does not say.
        type_name: &'static str,
    },
    /// Another capacity.
    WrongCapacity {
        /// In the header.
        found: u64,
        /// Asked for.
        expected: u64,
    },
    /// Another wake mode, or none that this crate knows.
    WakeMode {
        /// In the header; `None`: unknown.
        found: Option<WakeMode>,
        /// Asked for; `None`: any.
        expected: Option<WakeMode>,
    },
    /// The segment belongs to another lease domain.
    WrongDomain {
        /// In the header.
        found: [u8; 16],
        /// The caller's.
        expected: [u8; 16],
    },
}

/// The shared bytes. Only atomics: a peer may write them at any time.
#[derive(Debug)]
#[repr(C)]
struct RawHeader {
    magic: AtomicU64,
    format: AtomicU32,
    header_len: AtomicU32,
    total_len: AtomicU64,
    segment_id: [AtomicU64; 2],
    state: AtomicU32,
    kind: AtomicU32,
    fingerprint: AtomicU64,
    elem_size: AtomicU32,
    elem_align: AtomicU32,
    capacity: AtomicU64,
    creator_pid: AtomicU32,
    creator_uid: AtomicU32,
    start_time: AtomicU64,
    boot_id: [AtomicU64; 2],
    domain_id: [AtomicU64; 2],
    flags: AtomicU64,
    domain_offset: AtomicU64,
    participants: AtomicU32,
    reserved: AtomicU32,
    object_offset: AtomicU64,
    object_len: AtomicU64,
    reserved_tail: [AtomicU64; 12],
}

const _: () = {
    assert!(size_of::<RawHeader>() == HEADER_BYTES as usize);
    assert!(offset_of!(RawHeader, magic) == 0);
    assert!(offset_of!(RawHeader, format) == 8);
    assert!(offset_of!(RawHeader, header_len) == 12);
    assert!(offset_of!(RawHeader, total_len) == 16);
    assert!(offset_of!(RawHeader, segment_id) == 24);
    assert!(offset_of!(RawHeader, state) == 40);
    assert!(offset_of!(RawHeader, kind) == 44);
    assert!(offset_of!(RawHeader, fingerprint) == 48);
    assert!(offset_of!(RawHeader, elem_size) == 56);
    assert!(offset_of!(RawHeader, elem_align) == 60);
    assert!(offset_of!(RawHeader, capacity) == 64);
    assert!(offset_of!(RawHeader, creator_pid) == 72);
    assert!(offset_of!(RawHeader, creator_uid) == 76);
    assert!(offset_of!(RawHeader, start_time) == 80);
    assert!(offset_of!(RawHeader, boot_id) == 88);
    assert!(offset_of!(RawHeader, domain_id) == 104);
    assert!(offset_of!(RawHeader, flags) == 120);
    assert!(offset_of!(RawHeader, domain_offset) == 128);
    assert!(offset_of!(RawHeader, participants) == 136);
    assert!(offset_of!(RawHeader, object_offset) == 144);
    assert!(offset_of!(RawHeader, object_len) == 152);
    assert!(offset_of!(RawHeader, reserved_tail) == 160);
    assert!(OBJECT_OFFSET.is_multiple_of(128));
};

/// A private, checked copy of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the segment holds.
    pub content: Content,
    /// Length of the whole segment, in bytes.
    pub total_len_bytes: u64,
    /// Random; identifies the segment.
    pub segment_id: [u8; 16],
    /// Identifies the lease domain: the family's, or the segment itself.
    pub domain_id: [u8; 16],
    /// The creator's pid, in its own pid namespace.
    pub creator_pid: u32,
    /// The creator's effective user id.
    pub creator_uid: u32,
    /// When the segment was created, in ns since 1970.
    pub start_time_ns: u64,
    /// The boot in which it was created.
    pub boot_id: [u8; 16],
    pub(crate) has_table: bool,
    pub(crate) object_offset: u64,
}

impl Header {
    /// The header of a new segment; `domain_id` is `None` where it is its own lease domain.
    pub(crate) fn new(content: Content, domain_id: Option<[u8; 16]>) -> Option<Self> {
        let segment_id = crate::sys::random::bytes();
        let has_table = domain_id.is_none();
        let object_offset = if has_table { OBJECT_OFFSET_WITH_TABLE } else { OBJECT_OFFSET };
        Some(Self {
            content,
            total_len_bytes: object_offset.checked_add(content.len_bytes)?,
            segment_id,
            domain_id: domain_id.unwrap_or(segment_id),
            creator_pid: std::process::id(),
            creator_uid: effective_uid(),
            start_time_ns: nanoseconds_since_1970(),
            boot_id: boot_id(),
            has_table,
            object_offset,
        })
    }

    /// Writes the header, magic last. The rest of the segment is whole already.
    pub(crate) fn write(&self, map: &Mapping) {
        let raw = raw(map);
        // ORDERING: Relaxed. Published by the magic.
        let (put32, put64) = (
            |word: &AtomicU32, value| word.store(value, Ordering::Relaxed),
            |word: &AtomicU64, value| word.store(value, Ordering::Relaxed),
        );
        let put16 = |words: &[AtomicU64; 2], bytes: [u8; 16]| {
            for (word, half) in words.iter().zip(bytes.as_chunks::<8>().0) {
                put64(word, u64::from_le_bytes(*half));
            }
        };
        put32(&raw.format, u32::from(FORMAT.1) << 16 | u32::from(FORMAT.0));
        put32(&raw.header_len, HEADER_BYTES);
        put64(&raw.total_len, self.total_len_bytes);
        put16(&raw.segment_id, self.segment_id);
        put32(&raw.state, READY);
        put32(&raw.kind, self.content.kind.number());
        put64(&raw.fingerprint, self.content.fingerprint);
        put32(&raw.elem_size, self.content.elem_size);
        put32(&raw.elem_align, self.content.elem_align);
        put64(&raw.capacity, self.content.capacity);
        put32(&raw.creator_pid, self.creator_pid);
        put32(&raw.creator_uid, self.creator_uid);
        put64(&raw.start_time, self.start_time_ns);
        put16(&raw.boot_id, self.boot_id);
        put16(&raw.domain_id, self.domain_id);
        put64(&raw.flags, wake_number(self.content.wake));
        put64(&raw.domain_offset, if self.has_table { TABLE_OFFSET } else { 0 });
        put32(&raw.participants, if self.has_table { MAX_PARTICIPANTS } else { 0 });
        put64(&raw.object_offset, self.object_offset);
        put64(&raw.object_len, self.content.len_bytes);
        // ORDERING segment.ready: Release. Pairs with the Acquire in `read`. Publishes the whole segment.
        raw.magic.store(MAGIC, Ordering::Release);
    }

    /// Reads and checks what every segment must have; `file_len` is the file's length.
    ///
    /// # Errors
    /// `TooSmall`, `NotACrosslaneSegment`, `FormatVersion`, `HeaderLength`, `FileLength`, `Layout`, `WakeMode`.
    pub(crate) fn read(map: &Mapping, file_len: u64) -> Result<Self, HeaderError> {
        let found = file_len.min(map.len_bytes());
        if found < u64::from(HEADER_BYTES) {
            return Err(HeaderError::TooSmall { found, expected: HEADER_BYTES.into() });
        }
        let raw = raw(map);
        // ORDERING segment.ready: Acquire. Pairs with the Release in `write`.
        let magic = raw.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(HeaderError::NotACrosslaneSegment { found: magic, expected: MAGIC });
        }
        raw.check_format()?;
        let total_len_bytes = get64(&raw.total_len);
        if total_len_bytes != file_len || total_len_bytes > map.len_bytes() {
            return Err(HeaderError::FileLength { found: file_len, expected: total_len_bytes });
        }
        let place = Place {
            table: (get64(&raw.domain_offset), get32(&raw.participants)),
            object: (get64(&raw.object_offset), get64(&raw.object_len)),
            ready: get32(&raw.state) == READY,
        };
        let has_table = place.check(total_len_bytes)?;
        Ok(Self {
            content: raw.content(place.object.1)?,
            total_len_bytes,
            segment_id: get_id(&raw.segment_id),
            domain_id: get_id(&raw.domain_id),
            creator_pid: get32(&raw.creator_pid),
            creator_uid: get32(&raw.creator_uid),
            start_time_ns: get64(&raw.start_time),
            boot_id: get_id(&raw.boot_id),
            has_table,
            object_offset: place.object.0,
        })
    }

    /// Checks the copy against what the opener insists on.
    ///
    /// # Errors
    /// `WrongKind`, `WrongElement`, `WrongType`, `WrongCapacity`, `WakeMode`: the first that differs.
    pub(crate) fn expect(&self, expected: &Expected) -> Result<(), HeaderError> {
        expect(&self.content, expected)
    }

    /// Checks that the segment belongs to the domain `expected`.
    ///
    /// # Errors
    /// `WrongDomain`.
    pub(crate) fn expect_domain(&self, expected: [u8; 16]) -> Result<(), HeaderError> {
        if self.domain_id == expected {
            Ok(())
        } else {
            Err(HeaderError::WrongDomain { found: self.domain_id, expected })
        }
    }
}

/// Checks what an object is said to be against what its opener insists on.
///
/// # Errors
/// As [`Header::expect`].
pub(crate) fn expect(found: &Content, expected: &Expected) -> Result<(), HeaderError> {
    if found.kind != expected.kind {
        return Err(HeaderError::WrongKind { found: found.kind, expected: expected.kind });
    }
    let element = Element { size: found.elem_size, align: found.elem_align };
    let wanted = Element { size: expected.elem_size.unwrap_or(found.elem_size), align: expected.elem_align };
    if element != wanted {
        let type_name = expected.type_name;
        return Err(HeaderError::WrongElement { found: element, expected: wanted, type_name });
    }
    if found.fingerprint != expected.fingerprint {
        return Err(HeaderError::WrongType {
            found: found.fingerprint,
            expected: expected.fingerprint,
            type_name: expected.type_name,
        });
    }
    if let Some(capacity) = expected.capacity
        && found.capacity != capacity
    {
        return Err(HeaderError::WrongCapacity { found: found.capacity, expected: capacity });
    }
    if let Some(wake) = expected.wake
        && found.wake != wake
    {
        return Err(HeaderError::WakeMode { found: Some(found.wake), expected: Some(wake) });
    }
    Ok(())
}

impl RawHeader {
    fn check_format(&self) -> Result<(), HeaderError> {
        let [major_low, major_high, minor_low, minor_high] = get32(&self.format).to_le_bytes();
        let found = (u16::from_le_bytes([major_low, major_high]), u16::from_le_bytes([minor_low, minor_high]));
        if found.0 != FORMAT.0 {
            return Err(HeaderError::FormatVersion { found, expected: FORMAT });
        }
        let found = get32(&self.header_len);
        if found != HEADER_BYTES {
            return Err(HeaderError::HeaderLength { found, expected: HEADER_BYTES });
        }
        Ok(())
    }

    fn content(&self, len_bytes: u64) -> Result<Content, HeaderError> {
        Ok(Content {
            kind: Kind::custom(get32(&self.kind)),
            elem_size: get32(&self.elem_size),
            elem_align: get32(&self.elem_align),
            fingerprint: get64(&self.fingerprint),
            capacity: get64(&self.capacity),
            len_bytes,
            wake: wake_mode(get64(&self.flags)).ok_or(HeaderError::WakeMode { found: None, expected: None })?,
        })
    }
}

// ORDERING: Relaxed, in all three. Ordered by the Acquire of the magic, which comes first; each field is loaded once.
fn get32(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed)
}

fn get64(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn get_id(words: &[AtomicU64; 2]) -> [u8; 16] {
    (u128::from(get64(&words[1])) << 64 | u128::from(get64(&words[0]))).to_le_bytes()
}

/// Where the header says that the parts lie.
struct Place {
    table: (u64, u32),
    object: (u64, u64),
    ready: bool,
}

impl Place {
    /// Whether there is a participant table; both offsets follow from that and are not the writer's to choose.
    fn check(&self, total_len: u64) -> Result<bool, HeaderError> {
        let end = self.object.0.saturating_add(self.object.1);
        let wrong = HeaderError::Layout { found: end, expected: total_len };
        let object_offset = match self.table {
            (0, 0) => OBJECT_OFFSET,
            (TABLE_OFFSET, MAX_PARTICIPANTS) => OBJECT_OFFSET_WITH_TABLE,
            _ => return Err(wrong),
        };
        if !self.ready || self.object.0 != object_offset || end != total_len {
            return Err(wrong);
        }
        Ok(self.table.0 != 0)
    }
}

/// The creator's pid, if the first bytes of a file are the header of a segment of this format: all that may be said of a
/// file that is not mapped.
pub(crate) fn creator_of(bytes: &[u8; HEADER_BYTES as usize]) -> Option<u32> {
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let magic = u64::from(u32_at(4)) << 32 | u64::from(u32_at(0));
    let major = u32_at(offset_of!(RawHeader, format)) & 0xffff;
    (magic == MAGIC && major == u32::from(FORMAT.0)).then(|| u32_at(offset_of!(RawHeader, creator_pid)))
}

/// The kind of object, if these bytes are such a header.
pub(crate) fn kind_of(bytes: &[u8; HEADER_BYTES as usize]) -> Option<Kind> {
    let at = offset_of!(RawHeader, kind);
    let kind = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    creator_of(bytes).map(|_| Kind::custom(kind))
}

fn raw(map: &Mapping) -> &RawHeader {
    // SAFETY:
    // - a mapping is page-aligned and at least a header long (`Mapping` is never shorter than a page, and accesses behind
    //   the end of the file but inside its last page are zeros);
    // - `RawHeader` is made of atomics only, so peers may write meanwhile; read-only mappings are only loaded from.
    unsafe { map.start().cast::<RawHeader>().as_ref() }
}

pub(crate) fn wake_number(mode: WakeMode) -> u64 {
    match mode {
        WakeMode::Fenced => 0,
        WakeMode::Asymmetric => 1,
        WakeMode::Polling => 2,
    }
}

pub(crate) fn wake_mode(flags: u64) -> Option<WakeMode> {
    match flags {
        0 => Some(WakeMode::Fenced),
        1 => Some(WakeMode::Asymmetric),
        2 => Some(WakeMode::Polling),
        _ => None,
    }
}

fn effective_uid() -> u32 {
    // SAFETY: takes no memory and cannot fail.
    unsafe { libc::geteuid() }
}

fn nanoseconds_since_1970() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The id of the running boot; 0 where `/proc` does not say.
fn boot_id() -> [u8; 16] {
    /// High and low half; 0: not read yet. No `OnceLock`: a fork during its first call would block the child for ever.
    static ID: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    // ORDERING: Relaxed, here and below. Whoever reads the file stores the same; neither half of a UUID is 0, as each has
    // a fixed bit that is 1.
    let [high, low] = [0, 1].map(|half: usize| u128::from(ID[half].load(Ordering::Relaxed)));
    if high != 0 && low != 0 {
        return (high << 64 | low).to_be_bytes();
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes = u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes();
    for (word, half) in ID.iter().zip(bytes.as_chunks::<8>().0) {
        word.store(u64::from_be_bytes(*half), Ordering::Relaxed);
    }
    bytes
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { found, expected } => {
                write!(f, "the file has {found} bytes and needs at least {expected}")
            }
            Self::NotACrosslaneSegment { found, expected } => {
                write!(f, "not a crosslane segment: it starts with {found:#018x} in place of {expected:#018x}")
            }
            Self::FormatVersion { found, expected } => {
                write!(f, "format {}.{} found, {}.{} expected", found.0, found.1, expected.0, expected.1)
            }
            Self::HeaderLength { found, expected } => {
                write!(f, "a header of {found} bytes found, {expected} expected")
            }
            Self::FileLength { found, expected } => {
                write!(f, "the file has {found} bytes, and its header says {expected}")
            }
            Self::Layout { found, expected } => {
                write!(f, "the object ends at byte {found} of {expected}: the header contradicts itself")
            }
            Self::WrongKind { found, expected } => write!(f, "the segment holds {found}, not {expected}"),
            Self::WrongElement { found, expected, type_name } => write!(
                f,
                "elements of {} bytes aligned to {} found, {} aligned to {} expected, as {type_name} has here",
                found.size, found.align, expected.size, expected.align
            ),
            Self::WrongType { found, expected, type_name } => write!(
                f,
                "elements of type {found:#018x} found, {expected:#018x} expected, which is {type_name} here (another type, or \
                 another version of it)"
            ),
            Self::WrongCapacity { found, expected } => write!(f, "capacity {found} found, {expected} expected"),
            Self::WakeMode { found, expected } => write!(f, "wake mode {found:?} found, {expected:?} expected"),
            Self::WrongDomain { found, expected } => write!(
                f,
                "the segment belongs to lease domain {:032x}, not {:032x}",
                u128::from_be_bytes(*found),
                u128::from_be_bytes(*expected)
            ),
        }
    }
}

impl std::error::Error for HeaderError {}

//! What a segment holds, as its creator says and as its opener insists.

use std::fmt;

use crosslane_core::{Plain, WakeMode};

/// Numbers below belong to this project.
const FIRST_CUSTOM: u32 = 0x1_0000;

/// What kind of object a segment holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind(u32);

impl Kind {
    /// Bytes that only their users know.
    pub const BYTES: Self = Self(1);
    /// A participant table and nothing else: the lease domain of a process family.
    pub const DOMAIN: Self = Self(2);
    /// A [`Spsc`](crate::Spsc).
    pub const SPSC: Self = Self(3);
    /// A [`Record`](crate::Record).
    pub const RECORD: Self = Self(4);
    /// A [`Mutex`](crate::Mutex).
    pub const MUTEX: Self = Self(5);
    /// A [`Queue`](crate::Queue).
    pub const QUEUE: Self = Self(6);
    /// A [`Messages`](crate::Messages).
    pub const MESSAGES: Self = Self(7);
    /// An [`Array`](crate::Array).
    pub const ARRAY: Self = Self(8);
    /// A [`Latest`](crate::Latest).
    pub const LATEST: Self = Self(9);
    /// A [`RLock`](crate::RLock).
    pub const RLOCK: Self = Self(32);
    /// A [`RwLock`](crate::RwLock).
    pub const RWLOCK: Self = Self(33);
    /// A [`Condvar`](crate::Condvar).
    pub const CONDVAR: Self = Self(34);
    /// A [`Semaphore`](crate::Semaphore).
    pub const SEMAPHORE: Self = Self(35);
    /// A [`BoundedSemaphore`](crate::BoundedSemaphore).
    pub const BOUNDED_SEMAPHORE: Self = Self(36);
    /// An [`Event`](crate::Event).
    pub const EVENT: Self = Self(37);
    /// A [`Barrier`](crate::Barrier).
    pub const BARRIER: Self = Self(38);
    /// A [`Once`](crate::Once).
    pub const ONCE: Self = Self(39);
    /// A [`Calls`](crate::Calls).
    pub const CALLS: Self = Self(40);
    /// A [`Slab`](crate::Slab).
    pub const SLAB: Self = Self(16);
    /// A [`Shared`](crate::Shared).
    pub const SHARED: Self = Self(17);
    /// [`Frozen`](crate::Frozen) elements.
    pub const FROZEN: Self = Self(18);

    /// A kind of the caller's own; numbers below 0x1_0000 belong to this project.
    #[must_use]
    pub const fn custom(number: u32) -> Self {
        Self(number)
    }

    /// Whether this is an object of this project's, and not bytes or a kind of the caller's own.
    pub(crate) fn is_object(self) -> bool {
        self != Self::BYTES && self.0 < FIRST_CUSTOM
    }

    /// The number that stands in the header.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What a segment holds, as its creator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The kind of object.
    pub kind: Kind,
    /// Size of an element, in bytes.
    pub elem_size: u32,
    /// Alignment of an element, in bytes.
    pub elem_align: u32,
    /// [`Plain::FINGERPRINT`] of an element; 0 if it has no type.
    pub fingerprint: u64,
    /// Elements, or bytes, that the object holds.
    pub capacity: u64,
    /// Length of the object in memory, in bytes.
    pub len_bytes: u64,
    /// How wakers find sleepers.
    pub wake: WakeMode,
}

impl Content {
    /// One value of type `T`, of a kind and length that the caller fills in.
    pub(crate) fn value<T: Plain>() -> Self {
        let (elem_size, elem_align) = element::<T>();
        Self { elem_size, elem_align, fingerprint: T::FINGERPRINT, ..Self::bytes(1) }
    }

    /// `len_bytes` bytes that only their users know.
    #[must_use]
    pub const fn bytes(len_bytes: u64) -> Self {
        Self {
            kind: Kind::BYTES,
            elem_size: 1,
            elem_align: 1,
            fingerprint: 0,
            capacity: len_bytes,
            len_bytes,
            wake: WakeMode::Fenced,
        }
    }
}

/// What an opener insists on. [`Expected::bytes`] and the objects' own opens fill it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The kind of object.
    pub kind: Kind,
    /// Size of an element, in bytes; `None`: any.
    pub elem_size: Option<u32>,
    /// Alignment of an element, in bytes.
    pub elem_align: u32,
    /// Fingerprint of an element.
    pub fingerprint: u64,
    /// The element's type in this program, for messages only.
    pub type_name: &'static str,
    /// Elements, or bytes; `None`: any number.
    pub capacity: Option<u64>,
    /// How wakers find sleepers; `None`: any way.
    pub wake: Option<WakeMode>,
}

impl Expected {
    /// Values of type `T`, in an object of a kind that the caller fills in.
    pub(crate) fn value<T: Plain>() -> Self {
        let (elem_size, elem_align) = element::<T>();
        let type_name = std::any::type_name::<T>();
        Self { elem_size: Some(elem_size), elem_align, fingerprint: T::FINGERPRINT, type_name, ..Self::bytes() }
    }

    /// Bytes that only their users know, any number of them.
    #[must_use]
    pub const fn bytes() -> Self {
        Self {
            kind: Kind::BYTES,
            elem_size: Some(1),
            elem_align: 1,
            fingerprint: 0,
            type_name: "bytes",
            capacity: None,
            wake: None,
        }
    }
}

/// Size and alignment of a `T`, in bytes. One of 4 GiB does not fit any object; its creation fails before this number counts.
pub(crate) fn element<T>() -> (u32, u32) {
    let number = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
    (number(size_of::<T>()), number(align_of::<T>()))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BYTES => f.write_str("bytes"),
            Self::DOMAIN => f.write_str("a lease domain"),
            Self::SPSC => f.write_str("an spsc ring"),
            Self::RECORD => f.write_str("a record ring"),
            Self::MUTEX => f.write_str("a mutex"),
            Self::QUEUE => f.write_str("a queue"),
            Self::MESSAGES => f.write_str("a queue of messages"),
            Self::ARRAY => f.write_str("an array"),
            Self::LATEST => f.write_str("a newest value"),
            Self::RLOCK => f.write_str("a re-entrant lock"),
            Self::RWLOCK => f.write_str("a read-write lock"),
            Self::CONDVAR => f.write_str("a condition variable"),
            Self::SEMAPHORE => f.write_str("a semaphore"),
            Self::BOUNDED_SEMAPHORE => f.write_str("a bounded semaphore"),
            Self::EVENT => f.write_str("an event"),
            Self::BARRIER => f.write_str("a barrier"),
            Self::ONCE => f.write_str("a once"),
            Self::CALLS => f.write_str("calls"),
            Self::SLAB => f.write_str("a slab"),
            Self::SHARED => f.write_str("a shared value"),
            Self::FROZEN => f.write_str("frozen elements"),
            Self(number) => write!(f, "kind {number:#x}"),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FIRST_CUSTOM.. => write!(f, "Kind({:#x})", self.0),
            _ => write!(f, "Kind({self})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn a_kind_is_printed_by_its_name() {
        assert_eq!(format!("{:?}, {:?}", Kind::ARRAY, Kind::SEMAPHORE), "Kind(an array), Kind(a semaphore)");
        assert_eq!(format!("{:?}", Kind::custom(0x1_0002)), "Kind(0x10002)");
    }
}

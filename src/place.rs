//! Handles of objects in shared memory: what makes one travel, and what makes it the same object over there.
//!
//! A handle goes into a message as the number of a descriptor there and, for an object that lies in a slab, the object's
//! id. The descriptor is attached once for all of a message's objects in that segment; and a process maps a slab once, for
//! as long as it has objects there, however many messages name it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::shm::{self, ObjectId, OpenError, Options, Segment, Slab};
use crate::{Plain, Share, Trusted, wire};

/// An object that a handle can stand for.
pub(crate) trait Object: Sized + Send + Sync + 'static {
    /// What its handle is called, for errors.
    const HANDLE: &'static str;

    /// The object that lies in a slab.
    fn in_slab(slab: &Slab<Trusted>, id: ObjectId) -> Result<Self, OpenError>;

    /// The object that has a segment to itself.
    fn whole(fd: OwnedFd) -> Result<Self, OpenError>;

    /// Its name in its slab, if it lies in one.
    fn id(&self) -> Option<ObjectId>;

    /// The segment that it lies in.
    fn home(&self) -> &Segment;
}

/// A share of an object: cheap to clone, and able to travel.
pub(crate) struct Placed<O>(Arc<Inner<O>>);

struct Inner<O> {
    object: O,
    /// Keeps the slab where `arrived_slab` finds it; an object that was made here needs none.
    _slab: Option<Arc<Slab<Trusted>>>,
}

impl<O> Placed<O> {
    /// The first share of an object.
    pub(crate) fn new(object: O) -> Self {
        Self(Arc::new(Inner { object, _slab: None }))
    }
}

/// Which object it is: its segment's id, and its number there if it lies in a slab.
pub(crate) type Place = ([u8; 16], Option<u32>);

impl<O: Object> Placed<O> {
    /// Which object it is, whoever holds it.
    pub(crate) fn place(&self) -> Place {
        (self.home().header().segment_id, self.id().map(ObjectId::number))
    }
}

impl<O> Clone for Placed<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O> Deref for Placed<O> {
    type Target = O;

    #[inline]
    fn deref(&self) -> &O {
        &self.0.object
    }
}

impl<O: fmt::Debug> fmt::Debug for Placed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.object.fmt(f)
    }
}

/// What a handle is in the bytes of a message.
#[derive(Serialize, Deserialize)]
struct Ticket {
    descriptor: u32,
    object: Option<u32>,
}

impl<O: Object> Serialize for Placed<O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let home = self.home();
        let descriptor = wire::attach_segment(O::HANDLE, home.header().segment_id, home.as_fd())?;
        Ticket { descriptor, object: self.id().map(ObjectId::number) }.serialize(serializer)
    }
}

impl<'de, O: Object> Deserialize<'de> for Placed<O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Ticket { descriptor, object } = Ticket::deserialize(deserializer)?;
        let inner = match object {
            Some(number) => {
                let slab = wire::arrived_shared(descriptor, arrived_slab)?;
                let object = O::in_slab(&slab, ObjectId::new(number)).map_err(cannot_open)?;
                Inner { object, _slab: Some(slab) }
            }
            None => Inner { object: O::whole(wire::arrived(descriptor)?).map_err(cannot_open)?, _slab: None },
        };
        Ok(Self(Arc::new(inner)))
    }
}

fn cannot_open<E: serde::de::Error>(why: OpenError) -> E {
    wire::refuse_to_arrive(Error::Open(why))
}

/// Device and inode: which file a descriptor is of.
type FileKey = (u64, u64);

/// The slabs that this process was sent and still uses.
static SLABS: Mutex<Option<HashMap<FileKey, Weak<Slab<Trusted>>>>> = Mutex::new(None);

/// The slab that `fd` is, which is mapped if it is not yet.
fn arrived_slab(fd: OwnedFd) -> Result<Arc<Slab<Trusted>>> {
    let file = File::from(fd);
    let metadata = file.metadata().map_err(Error::io("look at a descriptor"))?;
    let key = (metadata.dev(), metadata.ino());
    let mut known = SLABS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(slab) = known.get(&key).and_then(Weak::upgrade) {
        return Ok(slab);
    }
    let slab = Arc::new(Slab::from_fd(file.into(), &Options::new())?);
    // An inode number is used again only when the slab is gone, and with it the last upgrade.
    known.retain(|_, slab| slab.strong_count() > 0);
    known.insert(key, Arc::downgrade(&slab));
    Ok(slab)
}

/// Makes types of crosslane-shm what a handle can stand for.
macro_rules! objects {
    ($($handle:literal: $name:ident $(<$t:ident>)?,)*) => {
        $(impl$(<$t: Plain>)? Object for shm::$name<$($t,)? Trusted> {
            const HANDLE: &'static str = $handle;

            fn in_slab(slab: &Slab<Trusted>, id: ObjectId) -> Result<Self, OpenError> {
                shm::$name::from_slab(slab, id)
            }

            fn whole(fd: OwnedFd) -> Result<Self, OpenError> {
                shm::$name::from_fd(fd, &Options::new())
            }

            fn id(&self) -> Option<ObjectId> {
                self.object_id()
            }

            fn home(&self) -> &Segment {
                self.segment()
            }
        })*
    };
}

objects! {
    "Array": Array<T>,
    "Barrier": Barrier,
    "BoundedSemaphore": BoundedSemaphore,
    "Condvar": Condvar<T>,
    "Event": Event,
    "Mutex": Mutex<T>,
    "Once": Once,
    "Queue": Messages,
    "RLock": RLock<T>,
    "Connection": Record,
    "RwLock": RwLock<T>,
    "Semaphore": Semaphore,
}

impl<T: Share> Object for shm::Shared<T, Trusted> {
    const HANDLE: &'static str = "Shared";

    fn in_slab(slab: &Slab<Trusted>, id: ObjectId) -> Result<Self, OpenError> {
        shm::Shared::from_slab(slab, id)
    }

    fn whole(fd: OwnedFd) -> Result<Self, OpenError> {
        shm::Shared::from_fd(fd, &Options::new())
    }

    fn id(&self) -> Option<ObjectId> {
        self.object_id()
    }

    fn home(&self) -> &Segment {
        self.segment()
    }
}

/// Makes a type around an object one that a handle can stand for, under a name of its own.
macro_rules! renamed {
    ($handle:literal: $outer:ident $(<$t:ident>)? ($inner:ty)) => {
        impl$(<$t: $crate::Plain>)? $crate::place::Object for $outer $(<$t>)? {
            const HANDLE: &'static str = $handle;

            fn in_slab(
                slab: &$crate::shm::Slab<$crate::Trusted>,
                id: $crate::shm::ObjectId,
            ) -> Result<Self, $crate::shm::OpenError> {
                <$inner as $crate::place::Object>::in_slab(slab, id).map(Self)
            }

            fn whole(fd: std::os::fd::OwnedFd) -> Result<Self, $crate::shm::OpenError> {
                <$inner as $crate::place::Object>::whole(fd).map(Self)
            }

            fn id(&self) -> Option<$crate::shm::ObjectId> {
                self.0.id()
            }

            fn home(&self) -> &$crate::shm::Segment {
                self.0.home()
            }
        }
    };
}
pub(crate) use renamed;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::Slabs;

    fn mutex(value: u64) -> Placed<shm::Mutex<u64, Trusted>> {
        Placed::new(shm::Mutex::in_slab(Slabs::family(), value).unwrap())
    }

    fn travel<T: wire::Portable>(value: &T) -> T {
        let parcel = wire::pack(value).unwrap();
        wire::unpack(&parcel.bytes, parcel.fds).unwrap()
    }

    #[test]
    fn a_handle_that_travelled_is_the_same_object() {
        let here = mutex(40);
        let there = travel(&here);
        *there.lock().unwrap() += 2;
        assert_eq!(*here.lock().unwrap(), 42);
    }

    #[test]
    fn objects_of_one_slab_travel_with_one_descriptor_and_one_mapping() {
        let slab = Slab::anonymous(&Options::new()).unwrap();
        let objects: Vec<_> = (0..100).map(|n| Placed::new(shm::Mutex::in_slab(&slab, n).unwrap())).collect();
        assert_eq!(wire::pack(&objects).unwrap().fds.len(), 1);
        let first = travel(&objects);
        let second = travel(&objects);
        let start = |of: &Placed<shm::Mutex<u64, Trusted>>| of.home().object().0;
        assert!(first.iter().chain(&second).all(|object| start(object) == start(&first[0])));
        assert_eq!(*second[99].lock().unwrap(), 99);
    }

    #[test]
    fn an_object_with_a_segment_to_itself_travels_too() {
        let here = Placed::new(shm::Array::<f64>::anonymous(8, &Options::new()).unwrap());
        travel(&here).set(7, 0.5);
        assert_eq!(here.get(7), 0.5);
    }

    #[test]
    fn a_handle_of_another_type_is_refused() {
        let parcel = wire::pack(&mutex(1)).unwrap();
        let other = wire::unpack::<Placed<shm::Mutex<[u32; 2], Trusted>>>(&parcel.bytes, parcel.fds);
        assert!(matches!(other, Err(Error::Open(OpenError::Header(_)))), "{other:?}");
    }

    #[test]
    fn a_handle_refuses_what_cannot_carry_it() {
        let foreign = serde_json::to_string(&mutex(1)).unwrap_err();
        assert!(foreign.to_string().contains("pass it as an argument"), "{foreign}");
        let queued = wire::pack_for_queue(&mutex(1), &mut Vec::new());
        assert!(matches!(queued, Err(Error::HandleInQueue { handle: "Mutex" })), "{queued:?}");
        // Neither attempt leaves anything behind.
        assert_eq!(*travel(&mutex(3)).lock().unwrap(), 3);
    }
}

//! Semaphores: one whose permits come back when their holder dies, and one that nobody owns.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crosslane_core::Trust;
use crosslane_core::lock::permits::Permits;
use crosslane_core::lock::semaphore::{MAX_COUNT, SemaphoreWords};

use super::{found, lock_object, places, words_of};
use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A semaphore in shared memory with 1 to 65,536 permits, which come back when the process that holds them dies. Its
    /// calls are those of [`crosslane_sync::BoundedSemaphore`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{BoundedSemaphore, Options};
    ///
    /// let semaphore = BoundedSemaphore::anonymous(2, &Options::new())?;
    /// let permits = (semaphore.acquire()?, semaphore.acquire()?);
    /// assert!(semaphore.try_acquire().is_err());
    /// drop(permits);
    /// assert_eq!(semaphore.available(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct BoundedSemaphore [] derefs to crosslane_sync::BoundedSemaphore<'static, Env>;
    new(permits: u32) is bounded;
}

impl<K: Trust> Object for BoundedSemaphore<K> {
    type Trust = K;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::BOUNDED_SEMAPHORE, ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let env = place.env()?;
        let (memory, len, permits) = places(&place);
        // SAFETY: mapped for writing while `env` or `place` lives, and the handle holds both; the header says that there is
        // such an object, and it is of atomics.
        let permits = unsafe { Permits::attach(memory, len, permits) }?;
        Ok(Self { handle: crosslane_sync::BoundedSemaphore::new(permits, env), place })
    }
}

fn bounded(permits: u32) -> Result<New<impl Init>, CreateError> {
    let len_bytes = Permits::layout(permits)?.size() as u64;
    let content = Content { kind: Kind::BOUNDED_SEMAPHORE, len_bytes, ..Content::bytes(permits.into()) };
    let init = move |memory: NonNull<u8>, len| {
        // SAFETY: new memory, `len` long; nobody else can reach it yet.
        unsafe { Permits::init(memory, len, permits) }?;
        Ok(())
    };
    Ok(New { content, init })
}

lock_object! {
    /// A count in shared memory, of 0 to 2^31 - 1, that any process raises and lowers. What a killed process had acquired is
    /// lost. Its calls are those of [`crosslane_sync::Semaphore`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Options, Semaphore};
    ///
    /// let items = Semaphore::anonymous(0, &Options::new())?;
    /// items.release(1)?;
    /// items.acquire()?;
    /// assert!(items.try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Semaphore [] derefs to crosslane_sync::Semaphore<Env>;
    new(count: u32) is counting;
}

impl<K: Trust> Object for Semaphore<K> {
    type Trust = K;
    const ALIGN: u32 = 64;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::SEMAPHORE, capacity: Some(1), ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let (words, env) = found(&place)?;
        // SAFETY: `found` has checked length and alignment; mapped for writing while `env` or `place` lives; atomics.
        Ok(Self { handle: unsafe { crosslane_sync::Semaphore::new(words, env) }, place })
    }
}

fn counting(count: u32) -> Result<New<impl Init>, CreateError> {
    let too_many = crosslane_core::lock::TableError::Count { asked: count, max: MAX_COUNT };
    Ok(words_of(Kind::SEMAPHORE, SemaphoreWords::new(count).map_err(|_| too_many)?))
}

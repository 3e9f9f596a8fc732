//! A meeting point of a fixed number of parties.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crosslane_core::Trust;
use crosslane_core::lock::barrier;

use super::{lock_object, places};
use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A barrier in shared memory for 1 to 1,024 parties, which breaks when one of them dies. Its calls are those of
    /// [`crosslane_sync::Barrier`]. Dropping it withdraws this process as a party.
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Barrier, Options};
    ///
    /// let barrier = Barrier::anonymous(2, &Options::new())?;
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| barrier.wait().unwrap());
    ///     let mine = barrier.wait().unwrap();
    ///     assert!(mine.is_leader != other.join().unwrap().is_leader);
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Barrier [] derefs to crosslane_sync::Barrier<'static, Env>;
    new(parties: u32) is new;
}

impl<K: Trust> Object for Barrier<K> {
    type Trust = K;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::BARRIER, ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let env = place.env()?;
        let (memory, len, parties) = places(&place);
        // SAFETY: mapped for writing while `env` or `place` lives, and the handle holds both; the header says that there is
        // such an object, and it is of atomics.
        let barrier = unsafe { barrier::Barrier::attach(memory, len, parties) }?;
        Ok(Self { handle: crosslane_sync::Barrier::new(barrier, env), place })
    }
}

fn new(parties: u32) -> Result<New<impl Init>, CreateError> {
    let len_bytes = barrier::Barrier::layout(parties)?.size() as u64;
    let content = Content { kind: Kind::BARRIER, len_bytes, ..Content::bytes(parties.into()) };
    let init = move |memory: NonNull<u8>, len| {
        // SAFETY: new memory, `len` long; nobody else can reach it yet.
        unsafe { barrier::Barrier::init(memory, len, parties) }?;
        Ok(())
    };
    Ok(New { content, init })
}

//! A flag that processes wait for.
#![allow(unsafe_code)]

use crosslane_core::Trust;
use crosslane_core::lock::flag::FlagWord;

use super::{found, lock_object, words_of};
use crate::content::{Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A flag in shared memory that processes set, clear and wait for. Its calls are those of [`crosslane_sync::Event`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Event, Name, Options};
    ///
    /// let (name, options) = (Name::random(), Options::new());
    /// let stop = Event::create(&name, &options)?;
    /// // In another program, by name:
    /// Event::open(&name, &options)?.set();
    /// stop.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Event [] derefs to crosslane_sync::Event<Env>;
    new() is new;
}

impl<K: Trust> Object for Event<K> {
    type Trust = K;
    const ALIGN: u32 = 64;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::EVENT, capacity: Some(1), ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let (word, env) = found(&place)?;
        // SAFETY: `found` has checked length and alignment; mapped for writing while `env` or `place` lives; an atomic.
        Ok(Self { handle: unsafe { crosslane_sync::Event::new(word, env) }, place })
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the other locks")]
fn new() -> Result<New<impl Init>, CreateError> {
    Ok(words_of(Kind::EVENT, FlagWord::default()))
}

//! Work that one of many processes does, once.
#![allow(unsafe_code)]

use crosslane_core::Trust;
use crosslane_core::lock::once::OnceWords;

use super::{found, lock_object, words_of};
use crate::content::{Expected, Kind};
use crate::env::Env;
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

lock_object! {
    /// A word in shared memory that lets one process do something, once; if it dies at it, the next one does. Its calls are
    /// those of [`crosslane_sync::Once`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Once, Options};
    ///
    /// let once = Once::anonymous(&Options::new())?;
    /// assert_eq!(once.call_once(|_| ()), Ok(true));
    /// assert_eq!(once.call_once(|_| unreachable!()), Ok(false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Once [] derefs to crosslane_sync::Once<Env>;
    new() is new;
}

impl<K: Trust> Object for Once<K> {
    type Trust = K;
    const ALIGN: u32 = 64;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::ONCE, capacity: Some(1), ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let (words, env) = found(&place)?;
        // SAFETY: `found` has checked length and alignment; mapped for writing while `env` or `place` lives; atomics.
        Ok(Self { handle: unsafe { crosslane_sync::Once::new(words, env) }, place })
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the other locks")]
fn new() -> Result<New<impl Init>, CreateError> {
    Ok(words_of(Kind::ONCE, OnceWords::default()))
}

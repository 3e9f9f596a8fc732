//! Requests and responses between many clients and one server.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crosslane_core::Trust;
use crosslane_core::call::{self, ConnectError};
use crosslane_core::end::ClaimError;

use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::lock::{lock_object, places};
use crate::options::Options;
use crate::place::{Init, New, Object, Place};
use crate::segment::{CreateError, OpenError};

/// A client; keeps the segment mapped.
pub type Client = call::Client<'static, Env>;
/// The server's end; keeps the segment mapped.
pub type Server = call::Server<'static, Env>;

lock_object! {
    /// Cells in shared memory for 1 to 1,024 clients and their server: requests and responses of up to 56 bytes each, in one
    /// cache line there and back. Protocol and crash table: [`crosslane_core::call`].
    ///
    /// # Examples
    /// ```
    /// use crosslane_shm::{Calls, Name, Options};
    ///
    /// let (name, options) = (Name::random(), Options::new());
    /// let calls = Calls::create(&name, 8, &options)?;
    /// let mut server = calls.server()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         // In another program, by name:
    ///         let mut client = Calls::open(&name, &options).unwrap().client().unwrap();
    ///         assert_eq!(*client.call(b"40 + 2").unwrap(), *b"42");
    ///     });
    ///     let request = server.recv().unwrap();
    ///     assert_eq!(*request, *b"40 + 2");
    ///     request.respond(b"42");
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Calls [] derefs to Ends;
    new(clients: u32) is new;
}

/// What can be claimed of a [`Calls`].
pub struct Ends {
    calls: call::Calls<'static>,
    env: Env,
}

impl Ends {
    /// Claims a cell for a client.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn client(&self) -> Result<Client, ConnectError> {
        self.calls.client(self.env.clone())
    }

    /// Claims the server's end. Calls that a dead server left are failed.
    ///
    /// # Errors
    /// [`ClaimError::EndTaken`] while a living server holds it, [`ClaimError::Forked`], [`ClaimError::Corrupt`].
    pub fn server(&self) -> Result<Server, ClaimError> {
        self.calls.server(self.env.clone())
    }

    /// How many clients there can be at once.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.calls.capacity()
    }
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<K: Trust> Object for Calls<K> {
    type Trust = K;

    fn expected(_: &Options) -> Expected {
        Expected { kind: Kind::CALLS, ..Expected::bytes() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        let env = place.env()?;
        let (memory, len, clients) = places(&place);
        // SAFETY: mapped for writing while an `Env` of it lives, and every client and server holds one; the header says that
        // there is such an object, and it is of atomics.
        let calls = unsafe { call::Calls::attach(memory, len, clients) }?;
        Ok(Self { handle: Ends { calls, env }, place })
    }
}

fn new(clients: u32) -> Result<New<impl Init>, CreateError> {
    let len_bytes = call::Calls::layout(clients)?.size() as u64;
    let content = Content { kind: Kind::CALLS, len_bytes, ..Content::bytes(clients.into()) };
    let init = move |memory: NonNull<u8>, len| {
        // SAFETY: new memory, `len` long; nobody else can reach it yet.
        unsafe { call::Calls::init(memory, len, clients) }?;
        Ok(())
    };
    Ok(New { content, init })
}

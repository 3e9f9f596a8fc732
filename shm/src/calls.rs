//! Requests and responses between many clients and one server.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crosslane_core::Trust;
use crosslane_core::call::{self, ConnectError, Shape};
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
    /// Cells in shared memory for 1 to 1,024 clients and their server: requests and responses of up to 56 bytes each in one
    /// cache line there and back, longer ones, up to what the creator states, in a room of the cell's own. Protocol and crash
    /// table: [`crosslane_core::call`].
    ///
    /// Created from a number of clients, or from a [`Shape`](crosslane_core::call::Shape) that also says how long messages may
    /// be; openers find that in the segment.
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
    ///         assert_eq!(client.call(b"40 + 2").unwrap(), *b"42");
    ///     });
    ///     let request = server.recv().unwrap();
    ///     assert_eq!(*request, *b"40 + 2");
    ///     request.respond(b"42").unwrap();
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Long messages are copied out, or written in place piece by piece:
    /// ```
    /// use crosslane_core::call::Shape;
    /// use crosslane_shm::{Calls, Options};
    ///
    /// let shape = Shape::new(2).max_request_bytes(100).max_response_bytes(100_000);
    /// let calls = Calls::anonymous(shape, &Options::new())?;
    /// let (mut server, mut client) = (calls.server()?, calls.client()?);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let request = server.recv().unwrap();
    ///         let count = usize::from_ne_bytes(request.to_array().unwrap());
    ///         let mut reply = request.reply(count * 8).unwrap();
    ///         for i in 0..count {
    ///             reply.copy_from(i * 8, &i.to_ne_bytes());
    ///         }
    ///         reply.send().unwrap();
    ///     });
    ///     let response = client.call(&10_000_usize.to_ne_bytes()).unwrap();
    ///     let mut bytes = vec![0; response.len_bytes()];
    ///     response.copy_to(0, &mut bytes);
    ///     assert_eq!(bytes[79_992..], 9_999_usize.to_ne_bytes());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Calls [] derefs to Ends;
    new(shape: impl Into<Shape>) is new;
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

    /// The longest request, in bytes.
    #[must_use]
    pub fn max_request_bytes(&self) -> usize {
        self.calls.max_request_bytes()
    }

    /// The longest response, in bytes.
    #[must_use]
    pub fn max_response_bytes(&self) -> usize {
        self.calls.max_response_bytes()
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

fn new(shape: impl Into<Shape>) -> Result<New<impl Init>, CreateError> {
    let shape = shape.into();
    let len_bytes = call::Calls::layout(shape)?.size() as u64;
    let content = Content { kind: Kind::CALLS, len_bytes, ..Content::bytes(shape.clients().into()) };
    let init = move |memory: NonNull<u8>, len| {
        // SAFETY: new memory, `len` long; nobody else can reach it yet.
        unsafe { call::Calls::init(memory, len, shape) }?;
        Ok(())
    };
    Ok(New { content, init })
}

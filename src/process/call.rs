//! One call of a function in another process: how it is written down, and how it is run there.
//!
//! The function and a *trampoline* travel as code pointers (`image.rs`). The trampoline is a function of this file that
//! the compiler makes once for each pair of types, in the program that spawns: it knows how to decode the arguments and to
//! encode the result. So nothing is registered anywhere, and closures without captures work, being functions.
#![allow(unsafe_code)]

use std::any::type_name;
use std::mem;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::image::{self, CodePointer, ImageId, Program};
use crate::error::{Codec, CodecError, Error, Result};
use crate::wire::{self, Parcel, Portable};

/// The kinds of frames between a process and a child of it.
pub(crate) mod kind {
    /// To the child, first: an `Errand`, the arguments behind it.
    pub(crate) const CALL: u8 = 1;
    /// To the child: its parent may end without it.
    pub(crate) const DETACH: u8 = 2;
    /// To the parent: the encoded result.
    pub(crate) const RETURNED: u8 = 3;
    /// To the parent: a `PanicReport`.
    pub(crate) const PANICKED: u8 = 4;
    /// To the parent: a `Failure`.
    pub(crate) const FAILED: u8 = 5;
}

/// A call, without its arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    trampoline: CodePointer,
    function: CodePointer,
}

/// Why a call gave no result, apart from a panic. What a child sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The function is of another build than the child, which is this one.
    Mismatch(Option<ImageId>),
    Arguments(Codec),
    Result(Codec),
    FdLimit,
    Other(String),
}

type Trampoline = unsafe fn(function: *const (), args: &[u8], fds: Vec<OwnedFd>) -> Result<Parcel>;

/// Decodes, calls, encodes.
///
/// # Safety
/// `function` is a `fn(A) -> R`.
unsafe fn trampoline<A: Portable, R: Portable>(function: *const (), args: &[u8], fds: Vec<OwnedFd>) -> Result<Parcel> {
    // SAFETY: the caller's word.
    let function = unsafe { mem::transmute::<*const (), fn(A) -> R>(function) };
    wire::pack(&function(wire::unpack(args, fds)?))
}

impl Call {
    /// # Errors
    /// [`Error::NotPortable`].
    pub(crate) fn new<A: Portable, R: Portable>(function: fn(A) -> R, program: Program) -> Result<Self> {
        let trampoline: Trampoline = trampoline::<A, R>;
        let pointer = |address: usize| CodePointer::new(address, program).ok_or(Error::NotPortable);
        Ok(Self { trampoline: pointer(trampoline as usize)?, function: pointer(function as usize)? })
    }

    /// Runs it in this process, to which it was sent. A panic of the function comes through.
    pub(crate) fn run(self, args: &[u8], fds: Vec<OwnedFd>) -> Result<Parcel, Failure> {
        let (Some(trampoline), Some(function)) = (self.trampoline.resolve(), self.function.resolve()) else {
            return Err(Failure::Mismatch(image::main().id()));
        };
        let trampoline = std::ptr::with_exposed_provenance::<()>(trampoline);
        // SAFETY: the sender has taken this offset from a `Trampoline`, in an image with the same identity, so the same
        // bytes. Only the process that started this one can send: the socket has no name.
        let trampoline = unsafe { mem::transmute::<*const (), Trampoline>(trampoline) };
        let function = std::ptr::with_exposed_provenance::<()>(function);
        // SAFETY: `new` made the pair of one `fn(A) -> R`, in the same way.
        unsafe { trampoline(function, args, fds) }.map_err(Failure::from)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Decode { reason: CodecError(reason), .. } => Self::Arguments(reason),
            Error::Encode { reason: CodecError(reason), .. } => Self::Result(reason),
            Error::FdLimit => Self::FdLimit,
            error => Self::Other(error.to_string()),
        }
    }
}

/// What the parent knows of a call that it has sent, for the errors that come back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) image: ImageId,
    /// The type of the arguments.
    pub(crate) arguments: &'static str,
    /// The type of the result.
    pub(crate) result: &'static str,
}

impl Sent {
    /// What `call` is known by.
    pub(crate) fn new<A: Portable, R: Portable>(call: &Call) -> Self {
        Self { image: call.function.image, arguments: type_name::<A>(), result: type_name::<R>() }
    }

    /// The error that `failure` of process `pid` is for the caller.
    pub(crate) fn error(self, pid: u32, failure: Failure) -> Error {
        match failure {
            Failure::Mismatch(found) => Error::BuildMismatch {
                found: found.map_or_else(|| "unknown".to_owned(), |id| id.to_string()),
                expected: self.image.to_string(),
            },
            Failure::Arguments(reason) => Error::Decode { type_name: self.arguments, reason: CodecError(reason) },
            Failure::Result(reason) => Error::Encode { type_name: self.result, reason: CodecError(reason) },
            Failure::FdLimit => Error::FdLimit,
            Failure::Other(message) => Error::Refused { pid, message },
        }
    }
}

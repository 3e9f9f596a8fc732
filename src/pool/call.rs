//! What a worker runs: a function and a trampoline for one item, as code pointers, and the context that goes with it.
//!
//! As for a [`Process`](crate::Process), the trampoline is made by the compiler for each combination of types, and knows
//! how to decode an item and to encode its result. There are three of them: for a function of an item, of a job's context
//! and an item, of the worker's state and an item.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::process::image::{CodePointer, Program};
use crate::wire::{self, Packer, Portable};

/// A function for the items of a job, as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Call {
    trampoline: CodePointer,
    function: CodePointer,
}

/// The addresses of a trampoline and a function.
pub(super) type Key = (usize, usize);

/// A function for the items of a job, in the worker.
pub(super) struct Resolved {
    trampoline: Trampoline,
    function: *const (),
}

/// What a function may need beside its item.
#[derive(Default)]
pub(super) struct Bench {
    /// What the initializer made.
    pub(super) state: Option<Box<dyn Any>>,
}

/// A job's context: as it came, and, from its first use on, decoded.
#[derive(Default)]
pub(super) struct Context {
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) value: Option<Box<dyn Any>>,
}

/// Where a result goes.
pub(super) struct Out<'a, 'p> {
    pub(super) bytes: &'a mut Vec<u8>,
    pub(super) packer: &'a mut Packer<'p>,
}

type Trampoline = unsafe fn(*const (), &mut Bench, &mut Context, &[u8], Out<'_, '_>) -> Result<()>;

/// # Safety
/// `function` is a `fn(A) -> R`.
unsafe fn of_item<A: Portable, R: Portable>(
    function: *const (),
    _: &mut Bench,
    _: &mut Context,
    item: &[u8],
    out: Out<'_, '_>,
) -> Result<()> {
    // SAFETY: the caller's word.
    let function = unsafe { mem::transmute::<*const (), fn(A) -> R>(function) };
    out.packer.append(&function(wire::unpack_plain(item)?), out.bytes)
}

/// # Safety
/// `function` is a `fn(A, B) -> R`.
unsafe fn of_two<A: Portable, B: Portable, R: Portable>(
    function: *const (),
    _: &mut Bench,
    _: &mut Context,
    item: &[u8],
    out: Out<'_, '_>,
) -> Result<()> {
    // SAFETY: the caller's word.
    let function = unsafe { mem::transmute::<*const (), fn(A, B) -> R>(function) };
    let (first, second) = wire::unpack_plain(item)?;
    out.packer.append(&function(first, second), out.bytes)
}

/// # Safety
/// `function` is a `fn(&C, A) -> R`.
unsafe fn of_context<C: Portable, A: Portable, R: Portable>(
    function: *const (),
    _: &mut Bench,
    context: &mut Context,
    item: &[u8],
    out: Out<'_, '_>,
) -> Result<()> {
    // SAFETY: the caller's word.
    let function = unsafe { mem::transmute::<*const (), fn(&C, A) -> R>(function) };
    if context.value.is_none() {
        let value: C = wire::unpack(&context.bytes, mem::take(&mut context.fds))?;
        context.value = Some(Box::new(value));
        context.bytes = Vec::new();
    }
    let value = context.value.as_ref().and_then(|value| value.downcast_ref::<C>());
    let value = value.ok_or(Error::NotPortable)?;
    out.packer.append(&function(value, wire::unpack_plain(item)?), out.bytes)
}

/// # Safety
/// `function` is a `fn(&mut S, A) -> R`.
unsafe fn of_state<S: 'static, A: Portable, R: Portable>(
    function: *const (),
    bench: &mut Bench,
    _: &mut Context,
    item: &[u8],
    out: Out<'_, '_>,
) -> Result<()> {
    // SAFETY: the caller's word.
    let function = unsafe { mem::transmute::<*const (), fn(&mut S, A) -> R>(function) };
    let state = bench.state.as_mut().and_then(|state| state.downcast_mut::<S>()).ok_or(Error::NotPortable)?;
    out.packer.append(&function(state, wire::unpack_plain(item)?), out.bytes)
}

/// Makes a worker's state; has no result.
///
/// # Safety
/// `function` is a `fn(C) -> S`.
unsafe fn to_state<C: Portable, S: 'static>(
    function: *const (),
    bench: &mut Bench,
    _: &mut Context,
    config: &[u8],
    _: Out<'_, '_>,
) -> Result<()> {
    // SAFETY: the caller's word.
    let function = unsafe { mem::transmute::<*const (), fn(C) -> S>(function) };
    bench.state = Some(Box::new(function(wire::unpack_plain(config)?)));
    Ok(())
}

impl Call {
    fn new(trampoline: Trampoline, function: usize) -> Result<Self> {
        let pointer = |address: usize| CodePointer::new(address, Program::Same).ok_or(Error::NotPortable);
        Ok(Self { trampoline: pointer(trampoline as usize)?, function: pointer(function)? })
    }

    /// Tells the calls of functions of an item apart, in this process.
    pub(super) fn item_key<A: Portable, R: Portable>(function: fn(A) -> R) -> Key {
        (of_item::<A, R> as Trampoline as usize, function as usize)
    }

    /// As `item_key`, of functions of the worker's state and an item.
    pub(super) fn state_key<S: 'static, A: Portable, R: Portable>(function: fn(&mut S, A) -> R) -> Key {
        (of_state::<S, A, R> as Trampoline as usize, function as usize)
    }

    /// # Errors
    /// [`Error::NotPortable`], as for the others.
    pub(super) fn item<A: Portable, R: Portable>(function: fn(A) -> R) -> Result<Self> {
        Self::new(of_item::<A, R>, function as usize)
    }

    pub(super) fn two<A: Portable, B: Portable, R: Portable>(function: fn(A, B) -> R) -> Result<Self> {
        Self::new(of_two::<A, B, R>, function as usize)
    }

    pub(super) fn context<C: Portable, A: Portable, R: Portable>(function: fn(&C, A) -> R) -> Result<Self> {
        Self::new(of_context::<C, A, R>, function as usize)
    }

    pub(super) fn state<S: 'static, A: Portable, R: Portable>(function: fn(&mut S, A) -> R) -> Result<Self> {
        Self::new(of_state::<S, A, R>, function as usize)
    }

    pub(super) fn to_state<C: Portable, S: 'static>(function: fn(C) -> S) -> Result<Self> {
        Self::new(to_state::<C, S>, function as usize)
    }

    /// The functions that it names in this process; `None` if this is another build.
    pub(super) fn resolve(&self) -> Option<Resolved> {
        let trampoline = std::ptr::with_exposed_provenance::<()>(self.trampoline.resolve()?);
        let function = std::ptr::with_exposed_provenance::<()>(self.function.resolve()?);
        // SAFETY: the sender has taken this offset from a `Trampoline`, in an image with the same identity, so the same
        // bytes. Only the process that started this one can send: the rings are the family's.
        let trampoline = unsafe { mem::transmute::<*const (), Trampoline>(trampoline) };
        Some(Resolved { trampoline, function })
    }
}

impl Resolved {
    /// Runs the function for one item. Its panic comes through.
    pub(super) fn run(&self, bench: &mut Bench, context: &mut Context, item: &[u8], out: Out<'_, '_>) -> Result<()> {
        // SAFETY: `Call::new` made the pair, of a trampoline for functions of that type.
        unsafe { (self.trampoline)(self.function, bench, context, item, out) }
    }
}

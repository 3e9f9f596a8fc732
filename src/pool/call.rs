//! What a worker runs: a function and a trampoline for one item, as code pointers, and the context that goes with it.
//!
//! As for a [`Process`](crate::Process), the trampoline is made by the compiler for each combination of types, and knows
//! how to decode an item and to encode its result. What differs between functions of an item, of a job's context and an
//! item, of the worker's state and an item, is their [`Shape`].
#![allow(unsafe_code)]

use std::any::Any;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::lane::Failure;
use crate::error::{CodecError, Error, Result};
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
pub(super) struct Bench {
    /// What the initializer made; without one, `()`.
    pub(super) state: Box<dyn Any>,
}

impl Default for Bench {
    fn default() -> Self {
        Self { state: Box::new(()) }
    }
}

/// A job's context: as it came, until it has been decoded for an item.
#[derive(Default)]
pub(super) struct Context {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// Decoding it was tried with the descriptors themselves.
    are_fds_spent: bool,
    /// Why that failed.
    lost_for: Option<Failure>,
    value: Option<Box<dyn Any>>,
}

impl Bench {
    fn get<S: 'static>(&mut self) -> Result<&mut S> {
        self.state.downcast_mut().ok_or(Error::NotPortable)
    }
}

impl Context {
    pub(super) fn new(bytes: Vec<u8>, fds: Vec<OwnedFd>) -> Self {
        Self { bytes, fds, ..Self::default() }
    }

    /// Whether it is not decoded and cannot be any more: the worker is to be told of the job again.
    pub(super) fn is_lost(&self) -> bool {
        self.are_fds_spent && self.value.is_none()
    }

    /// An item has failed: if the context is lost since, that is why, and what the items behind it fail for.
    pub(super) fn note(&mut self, failure: &Failure) {
        if self.is_lost() {
            self.lost_for.get_or_insert_with(|| failure.clone());
        }
    }

    fn get<C: Portable>(&mut self) -> Result<&C, Failure> {
        if self.value.is_none() {
            self.value = Some(Box::new(self.decode::<C>()?));
            (self.bytes, self.fds) = Default::default();
        }
        Ok(self.value.as_ref().and_then(|value| value.downcast_ref()).ok_or(Error::NotPortable)?)
    }

    /// What fails for want of something, such as memory, is tried again with the next item. So the descriptors are kept until it
    /// has not failed, and copies are used, if this process may have as many more.
    fn decode<C: Portable>(&mut self) -> Result<C, Failure> {
        if self.is_lost() {
            return Err(self.lost_for.clone().unwrap_or(Failure::FdLimit));
        }
        let copies: Result<Vec<_>, _> = self.fds.iter().map(OwnedFd::try_clone).collect();
        let fds = copies.unwrap_or_else(|_| {
            self.are_fds_spent = true;
            mem::take(&mut self.fds)
        });
        wire::unpack(&self.bytes, fds).map_err(|error| match error {
            Error::Decode { reason: CodecError(reason), .. } => Failure::Context(reason),
            error => error.into(),
        })
    }
}

/// Where a result goes.
pub(super) struct Out<'a, 'p> {
    pub(super) bytes: &'a mut Vec<u8>,
    pub(super) packer: &'a mut Packer<'p>,
}

type Trampoline = unsafe fn(*const (), &mut Bench, &mut Context, &[u8], Out<'_, '_>) -> Result<(), Failure>;

/// A kind of function that workers run: what it is given, and where what it returns goes.
trait Shape: 'static {
    /// A type of function pointers.
    type Function: Copy;
    type Item: Portable;

    fn run(
        function: Self::Function,
        bench: &mut Bench,
        context: &mut Context,
        item: Self::Item,
        out: Out<'_, '_>,
    ) -> Result<(), Failure>;
}

/// Calls a function of a shape.
///
/// # Safety
/// `function` is an `S::Function`.
unsafe fn trampoline<S: Shape>(
    function: *const (),
    bench: &mut Bench,
    context: &mut Context,
    item: &[u8],
    out: Out<'_, '_>,
) -> Result<(), Failure> {
    const { assert!(size_of::<S::Function>() == size_of::<*const ()>()) };
    // SAFETY: the caller's word; a function pointer is as long as that.
    let function = unsafe { mem::transmute_copy::<*const (), S::Function>(&function) };
    S::run(function, bench, context, wire::unpack_item(item)?, out)
}

/// Of an item.
struct OfItem<A, R>(PhantomData<(A, R)>);

impl<A: Portable, R: Portable> Shape for OfItem<A, R> {
    type Function = fn(A) -> R;
    type Item = A;

    fn run(function: fn(A) -> R, _: &mut Bench, _: &mut Context, item: A, out: Out<'_, '_>) -> Result<(), Failure> {
        Ok(out.packer.append(&function(item), out.bytes)?)
    }
}

/// Of an item that is two arguments.
struct OfTwo<A, B, R>(PhantomData<(A, B, R)>);

impl<A: Portable, B: Portable, R: Portable> Shape for OfTwo<A, B, R> {
    type Function = fn(A, B) -> R;
    type Item = (A, B);

    fn run(
        function: fn(A, B) -> R,
        _: &mut Bench,
        _: &mut Context,
        item: (A, B),
        out: Out<'_, '_>,
    ) -> Result<(), Failure> {
        Ok(out.packer.append(&function(item.0, item.1), out.bytes)?)
    }
}

/// Of a job's context and an item.
struct OfContext<C, A, R>(PhantomData<(C, A, R)>);

impl<C: Portable, A: Portable, R: Portable> Shape for OfContext<C, A, R> {
    type Function = fn(&C, A) -> R;
    type Item = A;

    fn run(
        function: fn(&C, A) -> R,
        _: &mut Bench,
        context: &mut Context,
        item: A,
        out: Out<'_, '_>,
    ) -> Result<(), Failure> {
        Ok(out.packer.append(&function(context.get()?, item), out.bytes)?)
    }
}

/// Of a job's context and an item that is two arguments.
struct OfContextAndTwo<C, A, B, R>(PhantomData<(C, A, B, R)>);

impl<C: Portable, A: Portable, B: Portable, R: Portable> Shape for OfContextAndTwo<C, A, B, R> {
    type Function = fn(&C, A, B) -> R;
    type Item = (A, B);

    fn run(
        function: Self::Function,
        _: &mut Bench,
        context: &mut Context,
        item: (A, B),
        out: Out<'_, '_>,
    ) -> Result<(), Failure> {
        Ok(out.packer.append(&function(context.get()?, item.0, item.1), out.bytes)?)
    }
}

/// Of the worker's state and an item.
struct OfState<S, A, R>(PhantomData<(S, A, R)>);

impl<S: 'static, A: Portable, R: Portable> Shape for OfState<S, A, R> {
    type Function = fn(&mut S, A) -> R;
    type Item = A;

    fn run(
        function: fn(&mut S, A) -> R,
        bench: &mut Bench,
        _: &mut Context,
        item: A,
        out: Out<'_, '_>,
    ) -> Result<(), Failure> {
        Ok(out.packer.append(&function(bench.get()?, item), out.bytes)?)
    }
}

/// Of the worker's state and an item that is two arguments.
struct OfStateAndTwo<S, A, B, R>(PhantomData<(S, A, B, R)>);

impl<S: 'static, A: Portable, B: Portable, R: Portable> Shape for OfStateAndTwo<S, A, B, R> {
    type Function = fn(&mut S, A, B) -> R;
    type Item = (A, B);

    fn run(
        function: Self::Function,
        bench: &mut Bench,
        _: &mut Context,
        item: (A, B),
        out: Out<'_, '_>,
    ) -> Result<(), Failure> {
        Ok(out.packer.append(&function(bench.get()?, item.0, item.1), out.bytes)?)
    }
}

/// That makes a worker's state; has no result.
struct ToState<C, S>(PhantomData<(C, S)>);

impl<C: Portable, S: 'static> Shape for ToState<C, S> {
    type Function = fn(C) -> S;
    type Item = C;

    fn run(function: fn(C) -> S, bench: &mut Bench, _: &mut Context, config: C, _: Out<'_, '_>) -> Result<(), Failure> {
        bench.state = Box::new(function(config));
        Ok(())
    }
}

/// The address of a shape's trampoline.
fn address<S: Shape>() -> usize {
    trampoline::<S> as Trampoline as usize
}

impl Call {
    /// The call of the `S::Function` at `function`.
    fn new<S: Shape>(function: usize) -> Result<Self> {
        let pointer = |address: usize| CodePointer::new(address, Program::Same).ok_or(Error::NotPortable);
        Ok(Self { trampoline: pointer(address::<S>())?, function: pointer(function)? })
    }

    /// Tells the calls of functions of an item apart, in this process.
    pub(super) fn item_key<A: Portable, R: Portable>(function: fn(A) -> R) -> Key {
        (address::<OfItem<A, R>>(), function as usize)
    }

    /// As `item_key`, of functions of a context and an item.
    pub(super) fn context_key<C: Portable, A: Portable, R: Portable>(function: fn(&C, A) -> R) -> Key {
        (address::<OfContext<C, A, R>>(), function as usize)
    }

    /// As `item_key`, of functions of the worker's state and an item.
    pub(super) fn state_key<S: 'static, A: Portable, R: Portable>(function: fn(&mut S, A) -> R) -> Key {
        (address::<OfState<S, A, R>>(), function as usize)
    }

    /// # Errors
    /// [`Error::NotPortable`], as for the others.
    pub(super) fn item<A: Portable, R: Portable>(function: fn(A) -> R) -> Result<Self> {
        Self::new::<OfItem<A, R>>(function as usize)
    }

    pub(super) fn two<A: Portable, B: Portable, R: Portable>(function: fn(A, B) -> R) -> Result<Self> {
        Self::new::<OfTwo<A, B, R>>(function as usize)
    }

    pub(super) fn context<C: Portable, A: Portable, R: Portable>(function: fn(&C, A) -> R) -> Result<Self> {
        Self::new::<OfContext<C, A, R>>(function as usize)
    }

    pub(super) fn state<S: 'static, A: Portable, R: Portable>(function: fn(&mut S, A) -> R) -> Result<Self> {
        Self::new::<OfState<S, A, R>>(function as usize)
    }

    pub(super) fn context_two<C: Portable, A: Portable, B: Portable, R: Portable>(
        function: fn(&C, A, B) -> R,
    ) -> Result<Self> {
        Self::new::<OfContextAndTwo<C, A, B, R>>(function as usize)
    }

    pub(super) fn state_two<S: 'static, A: Portable, B: Portable, R: Portable>(
        function: fn(&mut S, A, B) -> R,
    ) -> Result<Self> {
        Self::new::<OfStateAndTwo<S, A, B, R>>(function as usize)
    }

    pub(super) fn to_state<C: Portable, S: 'static>(function: fn(C) -> S) -> Result<Self> {
        Self::new::<ToState<C, S>>(function as usize)
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
    pub(super) fn run(
        &self,
        bench: &mut Bench,
        context: &mut Context,
        item: &[u8],
        out: Out<'_, '_>,
    ) -> Result<(), Failure> {
        // SAFETY: `Call::new` made the pair, of a trampoline for functions of that type.
        unsafe { (self.trampoline)(self.function, bench, context, item, out) }
    }
}

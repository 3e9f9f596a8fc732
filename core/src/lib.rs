//! Lock-free rings and lock state machines for memory that several processes map, any of which may be killed at any
//! instruction.
//!
//! This crate is the bottom floor of [crosslane](https://docs.rs/crosslane): `no_std`, no allocation, no operating
//! system, no dependency. It is handed memory (a pointer and a length), a way to park and wake ([`Wait`]) and a way to
//! ask whether a participant is dead ([`Liveness`]); it holds every compare-and-swap loop and every Acquire and Release
//! of the project. `crosslane-sync` supplies futexes, `crosslane-shm` supplies segments and proofs of death.
//!
//! # Trust
//!
//! Memory safety never rests on what a peer wrote. A peer that scribbles over every shared byte can make an operation
//! return `Corrupt`, a wrong value or an end too early; it cannot cause undefined behaviour, a panic, an endless loop or
//! an access out of bounds. Calls that lend references into shared memory need [`Trusted`] handles.
//!
//! # Targets
//!
//! Modules whose words are 64 bits wide ([`spsc`], [`record`], [`mpmc`], [`slab`]) exist where the target has 64-bit atomics; the lock
//! word, owner ids and event words need 32-bit ones only.
//!
//! # Model checking
//!
//! Under `--cfg crosslane_loom` (and feature `loom`) every atomic and every payload byte is loom's, with a schedule
//! point before each access; `model` is the harness that the models of this crate use, public so that
//! protocols built on these rings can be checked the same way.
#![no_std]
#![deny(unsafe_code)]

#[cfg(crosslane_loom)]
extern crate std;

#[cfg(all(crosslane_loom, not(feature = "loom")))]
compile_error!("--cfg crosslane_loom needs feature `loom` of crosslane-core");

pub mod end;
pub mod event;
#[cfg(crosslane_loom)]
pub mod model;
#[cfg(target_has_atomic = "64")]
pub mod mpmc;
pub mod mutex;
pub mod owner;
pub mod plain;
pub mod prim;
#[cfg(target_has_atomic = "64")]
pub mod record;
#[cfg(target_has_atomic = "64")]
pub mod slab;
#[cfg(target_has_atomic = "64")]
pub mod spsc;
pub mod trust;
pub mod wait;

#[cfg(feature = "derive")]
pub use crosslane_derive::Plain;
pub use owner::OwnerId;
pub use plain::Plain;
pub use trust::{Trust, Trusted, Untrusted};
pub use wait::{Liveness, Parked, Slice, Wait, WakeMode};

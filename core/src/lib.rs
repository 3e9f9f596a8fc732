//! Lock-free rings and lock state machines for memory that several processes map, any of which may be killed at any
//! instruction.
//!
//! This crate is the bottom floor of [crosslane](https://docs.rs/crosslane): `no_std`, no allocation, no operating
//! system, no dependency. It is handed memory (a pointer and a length), a way to park and wake ([`Wait`]) and a way to
//! ask whether a participant is dead ([`Liveness`]); it holds every compare-and-swap loop and every Acquire and Release
//! of the project. `crosslane-sync` supplies futexes, `crosslane-shm` supplies segments and proofs of death.
//!
//! ```text
//!   memory that several processes map (yours, or a segment of crosslane-shm)
//!   +--------------+---------------------------------------------+
//!   | ends, events | slots or words                              |   `Plain` payloads, copied word by word
//!   +--------------+---------------------------------------------+
//!      ^ init, attach: checks the layout, owns nothing
//!   Ring ---- producer(env), consumer(env), ... ----> handle        one process each, or many (mpmc)
//!                                                       |
//!                       env: Wait (park, wake) + Liveness (who am I, is that one dead)
//! ```
//!
//! # Which type do I want
//!
//! | to | take | a push and a pop cost |
//! |---|---|---|
//! | stream items of one type from one process to one other | [`spsc`] | one cache line moved an item, fewer when the ring holds several |
//! | stream byte records of any length from one to one other | [`record`] | the lines that the record fills |
//! | give work from many to many, each item to one, redelivered if its taker dies | [`mpmc`] | one compare-and-swap and one store a side |
//! | show many readers the newest value of something, whole | [`latest`] | one store for the writer, the copy for a reader |
//! | share many numbers or structs, each by itself or by ranges | [`array`](mod@array) | the copy; updates one instruction |
//! | ask one server from many processes, and hear if it died | [`call`] | a request and a response: one line there and back |
//! | exclude each other, and hear of an owner that died | [`mutex`] (a value and guards: `crosslane-sync`) | one compare-and-swap and one swap |
//! | the other locks: reentrant, semaphores | [`lock`] | as above |
//! | put objects of many kinds into one piece of memory, to be found by number | [`slab`] | one compare-and-swap and one store an object |
//! | sleep until somebody says that there is news | [`event`] | nothing while nobody sleeps |
//! | give one process at a time a role that others can take over | [`end`] | one compare-and-swap |
//!
//! # Trust
//!
//! Memory safety never rests on what a peer wrote. A peer that scribbles over every shared byte can make an operation
//! return `Corrupt`, a wrong value or an end too early; it cannot cause undefined behaviour, a panic, an endless loop or
//! an access out of bounds. Calls that lend references into shared memory need [`Trusted`] handles.
//!
//! # Targets
//!
//! Modules whose words are 64 bits wide ([`spsc`], [`record`], [`mpmc`], [`latest`], [`array`](mod@array), [`slab`], some of
//! [`lock`]) exist where the target has 64-bit atomics; the lock word, owner ids and event words need 32-bit ones only.
//!
//! # Model checking
//!
//! Under `--cfg crosslane_loom` (and feature `loom`) every atomic and every payload byte is loom's, with a schedule
//! point before each access; `model` is the harness that the models of this crate use, public so that
//! protocols built on these rings can be checked the same way. A crate does so with a dev-dependency for that cfg alone,
//! ```toml
//! [target.'cfg(crosslane_loom)'.dev-dependencies]
//! crosslane-core = { version = "0.1", features = ["loom"] }
//! ```
//! its shared words from [`prim`], and a test that begins with `#![cfg(crosslane_loom)]`:
//! ```text
//! check_deaths("payments", Some(2), 8, 500, |death| {
//!     let memory = Memory::new(Ring::layout(64).unwrap().size());
//!     // Sound: aligned, as long as said, used for nothing but the ring, and freed last.
//!     let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), 64, WakeMode::Polling) }.unwrap();
//!     let peers = Peers::new(3);
//!     // One thread reads and is killed before its access number `death`; a successor goes on; the sum must be right.
//! });
//! ```
//! It runs with `RUSTFLAGS="--cfg crosslane_loom" cargo test --release`. `tests/downstream/payments` in the repository is
//! the whole of it, with the bug that the model finds.
//!
//! # Fuzzing
//!
//! A ring needs memory and a [`wait::Spin`], so a fuzz target needs no processes: `tests/downstream/messages` in the
//! repository sends a message type of its own through a [`record`] ring in private memory, decodes what comes out, and
//! shows that the fuzzer finds a planted bug.
#![no_std]
#![deny(unsafe_code)]

#[cfg(crosslane_loom)]
extern crate std;

#[cfg(all(crosslane_loom, not(feature = "loom")))]
compile_error!("--cfg crosslane_loom needs feature `loom` of crosslane-core");

#[cfg(target_has_atomic = "64")]
pub mod array;
pub mod bell;
#[cfg(target_has_atomic = "64")]
pub mod call;
pub mod end;
pub mod event;
#[cfg(target_has_atomic = "64")]
pub mod latest;
pub mod lock;
#[cfg(crosslane_loom)]
pub mod model;
#[cfg(target_has_atomic = "64")]
pub mod mpmc;
pub mod mutex;
pub mod owner;
pub mod plain;
pub mod prim;
mod probe;
#[cfg(target_has_atomic = "64")]
pub mod record;
pub mod share;
#[cfg(target_has_atomic = "64")]
pub mod slab;
#[cfg(target_has_atomic = "64")]
pub mod spsc;
mod table;
pub mod trust;
pub mod wait;

#[cfg(feature = "derive")]
pub use crosslane_derive::{Plain, Share};
pub use owner::OwnerId;
pub use plain::Plain;
pub use share::Share;
pub use trust::{Trust, Trusted, Untrusted};
pub use wait::{Liveness, Parked, Slice, Wait, WakeMode};

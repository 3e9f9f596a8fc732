//! The family of locks: each a few shared words and a state table, none of which hangs because somebody was killed.
//!
//! | lock | words | a dead holder | a dead waiter |
//! |---|---|---|---|
//! | [`crate::mutex`] | owner | the next one gets `OwnerDied` | nothing |
//! | [`rlock`] | owner, thread, depth | the same, however deep | nothing |
//! | [`permits`] | an owner for each permit | its permits come back | nothing |
//! | [`semaphore`] | a count | not known: its permits are gone | nothing |
//! | [`rwlock`] | an owner at the gate, one for each reading process | a writer: `OwnerDied`; a reader: not waited for | nothing |
//! | [`condvar`] | a sequence | nobody holds it | nothing; who was just woken costs others at most 1 s |
//! | [`barrier`] | a round, and an owner for each party | nobody holds it | broken for all until a reset |
//! | [`flag`] | a sequence and whether it is set | nobody holds it | nothing |
//! | [`once`] | an owner, and whether it is done | the next one does it | nothing |
//!
//! Nobody waits for a waiter, a wait is in slices, and behind a named owner each slice ends with the question whether
//! that owner is dead. The types with guards are in `crosslane-sync`.

#[cfg(target_has_atomic = "64")]
pub mod barrier;
pub mod condvar;
pub mod flag;
pub mod once;
pub mod permits;
#[cfg(target_has_atomic = "64")]
pub mod rlock;
pub mod rwlock;
pub mod semaphore;

pub use crate::table::TableError;

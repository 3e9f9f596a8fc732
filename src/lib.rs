#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub use {crosslane_core, crosslane_shm, crosslane_sync};

#[doc(inline)]
pub use crosslane_core::{OwnerId, Plain, WakeMode};
#[doc(inline)]
pub use crosslane_shm::{Mutex, Name, Options, Record, Spsc, Swept, sweep};

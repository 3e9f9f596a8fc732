//! Values, arrays and locks that processes share, as arguments and results of functions in other processes.

#[path = "objects/array.rs"]
mod array;
#[path = "objects/lock.rs"]
mod lock;
#[path = "objects/many.rs"]
mod many;
#[path = "objects/owned.rs"]
mod owned;
#[path = "objects/semaphore.rs"]
mod semaphore;
#[path = "objects/signal.rs"]
mod signal;
#[path = "objects/support.rs"]
mod support;
#[path = "objects/value.rs"]
mod value;

//! Everything that only Linux has: one system call or one kernel object per file.

pub(crate) mod call;
pub(crate) mod file;
pub(crate) mod gate;
pub(crate) mod lock;
pub(crate) mod random;
pub(crate) mod slot;

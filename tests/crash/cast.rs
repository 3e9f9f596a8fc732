//! Who is who: participant numbers of the cases' processes.

/// Somebody who died before the scene begins.
pub(crate) const PREDECESSOR: u32 = 9;
/// The process that makes the scene and survives.
pub(crate) const DRIVER: u32 = 1;
/// The process under the knife; A in crash pairs.
pub(crate) const VICTIM: u32 = 2;
/// Companion `n` is this plus `n`; B in crash pairs.
pub(crate) const COMPANION: u32 = 3;

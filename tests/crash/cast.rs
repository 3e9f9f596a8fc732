//! Who is who in a scene, and how each comes by its surroundings.

use crosslane_core::{Liveness, Wait};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::told::{Graveyard, Told, owner};

/// Somebody who died before the scene begins.
pub(crate) const PREDECESSOR: u32 = 9;
/// The process that makes the scene and survives.
pub(crate) const DRIVER: u32 = 1;
/// The process under the knife; A in crash pairs.
pub(crate) const VICTIM: u32 = 2;
/// Companion `n` is this plus `n`; B in crash pairs.
pub(crate) const COMPANION: u32 = 3;

/// Gives a scene's processes their surroundings.
pub(crate) trait Cast: Copy {
    /// What an end or a lock is handed.
    type Env: Wait + Liveness;
    /// Surroundings for `who`; called in the process that plays it.
    fn join(self, who: u32) -> Self::Env;
    /// Somebody does `deed` and is dead before this returns.
    fn die_after(self, deed: impl FnOnce(&Self::Env));
    /// The driver has reaped the victim.
    fn bury_victim(self);
}

/// A cast without leases: the driver tells who is dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToldCast<'a>(&'a Graveyard);

impl<'a> ToldCast<'a> {
    /// A cast that all lives, with its graveyard in `mapping`.
    pub(crate) fn new(mapping: &'a Mapping) -> Self {
        mapping.clear();
        Self(Graveyard::of(mapping, 0))
    }
}

impl<'a> Cast for ToldCast<'a> {
    type Env = Told<'a>;

    fn join(self, who: u32) -> Told<'a> {
        Told::new(who, self.0)
    }

    fn die_after(self, deed: impl FnOnce(&Told<'a>)) {
        deed(&self.join(PREDECESSOR));
        self.0.bury(owner(PREDECESSOR));
    }

    fn bury_victim(self) {
        self.0.bury(owner(VICTIM));
    }
}

//! Who is who in a scene, and how each comes by its surroundings.

use core::time::Duration;

use crosslane_core::{Liveness, Wait};
use crosslane_shm::{Env, Options, Segment};
use crosslane_tests::child::{Child, End, die};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::sweep::Role;
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
    type Env: Wait + Liveness + Clone;
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

/// The lease domain of a case: an anonymous segment, which is joined anew by each process.
#[derive(Debug)]
pub(crate) struct LeasedHome {
    segment: Segment,
    reaps: bool,
}

impl LeasedHome {
    /// The driver joins. It looks who has died as a parent does, unless there are companions, who must find out alone.
    pub(crate) fn new(role: Role) -> Self {
        let segment = Segment::anonymous(64, &Options::new()).expect("a small segment");
        Self { segment, reaps: matches!(role, Role::Alone | Role::Asleep | Role::JustWoken) }
    }

    /// The driver joins, and always looks who has died.
    pub(crate) fn watched() -> Self {
        Self { reaps: true, ..Self::new(Role::Alone) }
    }

    /// Whether a stepped victim gets to sleep in `role`. A slice ends 10 ms after the clock was read, and an unoptimised
    /// build may need longer than that, stepped, from the clock to the futex.
    pub(crate) fn lets_sleep(role: Role) -> bool {
        !role.sleeps() || !cfg!(debug_assertions)
    }

    /// The cast of one scene.
    pub(crate) fn cast(&self) -> LeasedCast<'_> {
        LeasedCast(self)
    }
}

/// A cast whose lives and deaths are leases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeasedCast<'a>(&'a LeasedHome);

impl Cast for LeasedCast<'_> {
    type Env = Env;

    fn join(self, _: u32) -> Env {
        let segment = self.0.segment.rejoin().expect("places are left");
        segment.env().expect("a member")
    }

    fn die_after(self, deed: impl FnOnce(&Env)) {
        let mut child = Child::fork(|| {
            deed(&self.join(PREDECESSOR));
            die()
        });
        assert_eq!(child.wait(Duration::from_secs(20)), Some(End::Signalled(libc::SIGKILL)), "the predecessor's end");
    }

    fn bury_victim(self) {
        if self.0.reaps {
            let domain = self.0.segment.domain().expect("a member");
            domain.reap().expect("the driver's own lease is held");
        }
    }
}

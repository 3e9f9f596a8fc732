//! The queues of `crosslane-shm` as they are handed out: each scene makes one in a segment of its own, and each process
//! opens it with a membership, a mapping and a lease of its own. They are swept by the scenes of `crosslane-core`'s.

use crosslane_core::{Liveness, Trusted, Wait};
use crosslane_shm::{Messages, Options, Queue};
use crosslane_tests::mapping::Mapping;

use crate::queue::{FixedHand, MOST_BYTES, MessagesHand, SLOTS, Work};

/// [`Queue`].
#[derive(Debug)]
pub(crate) struct SharedItems(Queue<[u64; 2], Trusted>);

/// [`Messages`].
#[derive(Debug)]
pub(crate) struct SharedMessages(Messages<Trusted>);

/// A queue joins by itself: what a process was given to join with only says that it is one.
impl<'m> Work<'m> for SharedItems {
    type Hand<E: Wait + Liveness> = FixedHand<'m, Queue<[u64; 2], Trusted>>;

    fn make(_: &'m Mapping, max_attempts: u32) -> Self {
        Self(Queue::anonymous(SLOTS, &Options::new().max_deliveries(max_attempts)).expect("a small segment"))
    }

    fn hand<E: Wait + Liveness>(&self, _: E) -> Self::Hand<E> {
        FixedHand(self.0.rejoin().expect("places are left"), None)
    }
}

/// As above.
impl<'m> Work<'m> for SharedMessages {
    type Hand<E: Wait + Liveness> = MessagesHand<'m, Messages<Trusted>>;

    fn make(_: &'m Mapping, max_attempts: u32) -> Self {
        let options = Options::new().max_deliveries(max_attempts);
        Self(Messages::anonymous(SLOTS, MOST_BYTES, &options).expect("a small segment"))
    }

    fn hand<E: Wait + Liveness>(&self, _: E) -> Self::Hand<E> {
        MessagesHand(self.0.rejoin().expect("places are left"), None)
    }
}

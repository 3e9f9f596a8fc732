//! Every interleaving of participants that claim and close an end, with the owner killed at every access.
#![cfg(crosslane_loom)]

use crosslane_core::OwnerId;
use crosslane_core::end::{ClaimError, End, EndWord};
use crosslane_core::model::{Arc, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{AtomicU32, Ordering};

/// An end, and one thing that its owner does to the ring, which only the end's edge orders.
struct World {
    end: EndWord,
    done: AtomicU32,
    peers: Arc<Peers>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { end: EndWord::default(), done: AtomicU32::new(0), peers: Peers::new(3) })
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn claim(&self, index: u32) -> Result<(), ClaimError> {
        self.end.claim(&self.process(index))
    }

    fn work_and_close(&self, index: u32) {
        self.done.store(1, Ordering::Relaxed);
        self.end.close(self.process(index).id());
    }
}

#[test]
fn who_sees_closed_sees_what_the_owner_did() {
    check("end.closed", None, 18, || {
        let world = World::new();
        world.claim(0).unwrap();
        let owner = {
            let world = world.clone();
            thread::spawn(move || world.work_and_close(0))
        };
        match world.end.peer() {
            End::Closed => assert_eq!(world.done.load(Ordering::Relaxed), 1),
            seen => assert_eq!(seen, End::Owned(world.process(0).id())),
        }
        owner.join().unwrap();
        assert_eq!(world.end.peer(), End::Closed);
    });
}

#[test]
fn a_successor_sees_what_its_predecessor_did() {
    check("end.succession", None, 30, || {
        let world = World::new();
        world.claim(0).unwrap();
        let owner = {
            let world = world.clone();
            thread::spawn(move || world.work_and_close(0))
        };
        match world.claim(1) {
            Ok(()) => assert_eq!(world.done.load(Ordering::Relaxed), 1),
            Err(error) => assert_eq!(error, ClaimError::EndTaken(world.process(0).id())),
        }
        owner.join().unwrap();
    });
}

#[test]
fn a_vacant_end_has_one_claimant() {
    check("end.claim", None, 50, || {
        let world = World::new();
        let other = {
            let world = world.clone();
            thread::spawn(move || world.claim(1))
        };
        let claims = [world.claim(0), other.join().unwrap()];
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:?}");
    });
}

/// The owner dies before each of its accesses; of two who want to succeed it one does, and only once it is dead or has closed.
#[test]
fn a_dead_owner_has_one_successor() {
    check_deaths("end.dead_owner", Some(2), 6, 2_900, |death| {
        let world = World::new();
        let victim = {
            let world = world.clone();
            thread::spawn(move || {
                let me = world.process(0).id();
                let _ = until_killed(death, || {
                    if world.claim(0).is_ok() {
                        assert_eq!(world.end.peer(), End::Owned(me), "nobody takes a living owner's end");
                        world.work_and_close(0);
                    }
                });
                world.peers.kill(me);
            })
        };
        let other = {
            let world = world.clone();
            thread::spawn(move || world.claim(1))
        };
        let claims = [world.claim(2), other.join().unwrap()];
        victim.join().unwrap();
        match claims.iter().filter(|claim| claim.is_ok()).count() {
            0 => world.claim(2).unwrap(),
            n => assert_eq!(n, 1, "{claims:?}"),
        }
    });
}

#[test]
fn an_end_is_closed_by_its_owner_only() {
    check("end.close", None, 8, || {
        let world = World::new();
        world.claim(0).unwrap();
        let other = {
            let world = world.clone();
            thread::spawn(move || world.end.close(world.process(1).id()))
        };
        assert_eq!(world.end.peer(), End::Owned(world.process(0).id()));
        other.join().unwrap();
        assert_eq!(world.end.peer(), End::Owned(world.process(0).id()));
    });
}

/// A claimant has proven the owner dead and is paused, while the dead one's index goes to a new process that claims the
/// end. Only one of them may then work on the ring.
#[test]
fn a_claimant_paused_while_the_index_is_reused_leaves_the_new_owner_alone() {
    check("end.generations", None, 175, || {
        let [dead, reborn, other] = [(0, 1), (0, 2), (1, 1)].map(|(i, g)| OwnerId::new(i, g).unwrap());
        let peers = Peers::of([dead, reborn, other]);
        let world = Arc::new(World { end: EndWord::default(), done: AtomicU32::new(0), peers });
        let claim = |world: &World, me| world.end.claim(&Process::of(&world.peers, me)).is_ok();
        assert!(claim(&world, dead));
        world.peers.kill(dead);
        let second = {
            let world = world.clone();
            thread::spawn(move || claim(&world, reborn))
        };
        let first = claim(&world, other);
        assert!(first != second.join().unwrap());
        assert_eq!(world.end.peer(), End::Owned(if first { other } else { reborn }));
    });
}

/// The message that names the end orders nothing by itself here.
#[test]
fn who_takes_over_sees_what_the_sender_did() {
    check("end.handed", None, 22, || {
        let world = World::new();
        let message = Arc::new(AtomicU32::new(0));
        world.claim(0).unwrap();
        let sender = {
            let (world, message) = (world.clone(), message.clone());
            thread::spawn(move || {
                world.done.store(1, Ordering::Relaxed);
                assert!(world.end.hand_over(world.process(0).id()));
                message.store(1, Ordering::Relaxed);
            })
        };
        if message.load(Ordering::Relaxed) == 1 {
            let me = world.process(1);
            world.end.take_over(world.process(0).id(), &me).unwrap();
            assert_eq!(world.done.load(Ordering::Relaxed), 1);
            assert_eq!(world.end.peer(), End::Owned(me.id()));
        }
        sender.join().unwrap();
    });
}

#[test]
fn an_end_is_taken_over_or_withdrawn() {
    check("end.withdrawn", None, 9, || {
        let world = World::new();
        world.claim(0).unwrap();
        let (from, receiver) = (world.process(0).id(), world.process(1));
        assert!(world.end.hand_over(from));
        let taking = {
            let (world, receiver) = (world.clone(), receiver.clone());
            thread::spawn(move || world.end.take_over(from, &receiver))
        };
        world.end.close(from);
        match taking.join().unwrap() {
            Ok(()) => assert_eq!(world.end.peer(), End::Owned(receiver.id())),
            Err(error) => {
                assert_eq!((error, world.end.peer()), (ClaimError::Withdrawn, End::Closed));
                assert_eq!(world.end.take_over(from, &world.process(2)), Err(ClaimError::Withdrawn));
            }
        }
        assert!(!world.end.hand_over(from));
    });
}

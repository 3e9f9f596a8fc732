//! Somebody among the sleeping consumers looks after what others keep, in every interleaving: nobody else learns of a death.
#![cfg(crosslane_loom)]

use std::sync::Arc;

use crosslane_core::WakeMode;
use crosslane_core::model::{Memory, Peers, Process, check, thread};
use crosslane_core::mpmc::{Delivery, Payload, PopError, Queue, Ring};

/// How often who sleeps behind a named participant looks again by itself.
const LOOKS: u32 = 0;
/// Who takes an item and dies with it, and who must get it then.
const HOLDER: u32 = 1;
const SURVIVOR: u32 = 2;

struct World {
    ring: Ring<'static>,
    peers: Arc<Peers>,
    _memory: Memory,
}

type Q = Queue<'static, u64, Process>;

impl World {
    fn new() -> Arc<Self> {
        let payload = Payload::of::<u64>().unwrap();
        let memory = Memory::new(Ring::layout(2, payload).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), 2, payload, 7, WakeMode::Fenced) }.unwrap();
        Arc::new(Self { ring, peers: Peers::unwatched(3, LOOKS), _memory: memory })
    }

    fn queue(&self, index: u32) -> Q {
        Queue::new(self.ring, Process::new(&self.peers, index)).unwrap()
    }

    /// The holder dies with what it has taken, and nobody is told.
    fn die_with(&self, taken: Result<Delivery<'_, '_, u64, Process>, PopError>) {
        if taken.is_ok() {
            core::mem::forget(taken);
            self.peers.kill(Process::new(&self.peers, HOLDER).id());
        }
    }

    /// Waits for an item, and dies with it.
    fn holder(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || world.die_with(world.queue(HOLDER).take()))
    }

    fn survivor(self: &Arc<Self>) -> thread::JoinHandle<u64> {
        let queue = self.queue(SURVIVOR);
        thread::spawn(move || queue.take().unwrap().ack())
    }
}

/// Two sleep; the one that is woken takes the item and dies with it.
#[test]
fn who_fell_asleep_before_an_item_was_taken_gets_it_from_the_dead() {
    check("watch.taken", Some(0), 100, || {
        let world = World::new();
        let (holder, survivor) = (world.holder(), world.survivor());
        let queue = world.queue(0);
        queue.try_push(1).unwrap();
        assert_eq!(survivor.join().unwrap(), 1);
        queue.close();
        holder.join().unwrap();
    });
}

/// Before that, the survivor may have watched what somebody else held.
#[test]
fn who_watches_no_more_is_not_relied_upon() {
    check("watch.second", Some(0), 10, || {
        let world = World::new();
        let queue = world.queue(0);
        queue.try_push(1).unwrap();
        let first = queue.try_take().unwrap();
        let survivor = world.survivor();
        thread::yield_now();
        let holder = world.holder();
        thread::yield_now();
        first.ack();
        world.peers.end_slices();
        thread::yield_now();
        queue.try_push(2).unwrap();
        assert_eq!(survivor.join().unwrap(), 2);
        queue.close();
        holder.join().unwrap();
    });
}

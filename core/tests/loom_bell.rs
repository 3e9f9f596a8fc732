//! Every interleaving of a record ring's writer with a reader that sleeps in a place of its own, where the writer rings it.
#![cfg(crosslane_loom)]

use core::time::Duration;

use crosslane_core::bell::BellWord;
use crosslane_core::end::{ClaimError, End};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{AtomicU32, Ordering};
use crosslane_core::record::{Handover, PopError, Reader, Ring, Writer};
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode};

struct World {
    ring: Ring<'static>,
    peers: Arc<Peers>,
    /// What the reader sleeps on instead: how often it was rung.
    socket: AtomicU32,
    /// Freed last.
    _memory: Memory,
}

/// The surroundings of a process that rings.
#[derive(Clone)]
struct Ringing {
    process: Process,
    bell: &'static BellWord,
    world: Arc<World>,
}

impl Wait for Ringing {
    type Deadline = bool;
    fn never(&self) -> bool {
        self.process.never()
    }
    fn after(&self, timeout: Duration) -> bool {
        self.process.after(timeout)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: bool) -> Parked {
        self.process.park(word, expected, slice, deadline)
    }
    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        let woken = self.process.wake(word, count);
        if !self.bell.ring() {
            return woken;
        }
        self.world.ring_socket(&self.process);
        woken + 1
    }
    fn spins(&self) -> u32 {
        0
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        self.process.heavy_barrier()
    }
}

impl Liveness for Ringing {
    fn me(&self) -> Option<OwnerId> {
        self.process.me()
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.process.is_dead(owner)
    }
}

impl World {
    fn new() -> Arc<Self> {
        let memory = Memory::new(Ring::layout(64).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), 64, WakeMode::Fenced) }.unwrap();
        Arc::new(Self { ring, peers: Peers::new(3), socket: AtomicU32::new(0), _memory: memory })
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn ringing(self: &Arc<Self>, index: u32) -> Ringing {
        Ringing { process: self.process(index), bell: self.ring.reader_bell(), world: self.clone() }
    }

    fn writer(self: &Arc<Self>, index: u32) -> Writer<'static, Ringing> {
        self.ring.writer(self.ringing(index)).unwrap()
    }

    fn reader(&self, index: u32) -> Reader<'static, Process> {
        self.ring.reader(self.process(index)).unwrap()
    }

    fn ring_socket(&self, process: &Process) {
        self.socket.fetch_add(1, Ordering::Relaxed);
        process.wake(&self.socket, 1);
    }

    /// A read that sleeps on the socket.
    fn read(&self, reader: &mut Reader<'static, Process>, process: &Process) -> Result<usize, PopError> {
        loop {
            match reader.try_pop_into(&mut [0; 8]) {
                Err(PopError::Empty) => {}
                done => return done,
            }
            let rung = self.socket.fetch_add(0, Ordering::Relaxed);
            if !reader.listen() {
                process.park(&self.socket, rung, Slice::Long, process.never());
            }
            reader.stop_listening();
        }
    }
}

#[test]
fn a_listener_is_rung_for_each_record_that_it_sleeps_for() {
    check("bell.records", Some(2), 900, || {
        let world = World::new();
        let (mut writer, mut reader) = (world.writer(0), world.reader(1));
        let reading = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || {
                assert_eq!(world.read(&mut reader, &process), Ok(1));
                assert_eq!(world.read(&mut reader, &process), Ok(2));
            })
        };
        writer.try_push(&[1]).unwrap();
        writer.try_push(&[2, 2]).unwrap();
        reading.join().unwrap();
    });
}

#[test]
fn a_listener_is_rung_at_the_end() {
    check("bell.end", Some(3), 590, || {
        let world = World::new();
        let (writer, mut reader) = (world.writer(0), world.reader(1));
        let reading = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || assert_eq!(world.read(&mut reader, &process), Err(PopError::Closed)))
        };
        drop(writer);
        reading.join().unwrap();
    });
}

/// The writer dies before each of its accesses; its socket's end rings the listener, which finds what was pushed.
#[test]
fn a_killed_writers_record_is_found_when_its_socket_ends() {
    check_deaths("bell.dead_writer", Some(2), 5, 5100, |death| {
        let world = World::new();
        let (mut writer, mut reader) = (world.writer(0), world.reader(1));
        let reading = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || {
                let rung = world.socket.fetch_add(0, Ordering::Relaxed);
                while reader.is_empty() && !process.is_dead(world.process(0).id()) {
                    if !reader.listen() {
                        process.park(&world.socket, rung, Slice::Long, process.never());
                    }
                    reader.stop_listening();
                }
                reader.try_pop_into(&mut [0; 8]).ok()
            })
        };
        let pushed = until_killed(death, || writer.try_push(&[1]).unwrap());
        std::mem::forget(writer);
        world.peers.kill(world.process(0).id());
        world.ring_socket(&world.process(2));
        let got = reading.join().unwrap();
        assert!(pushed.is_none() || got == Some(1));
    });
}

fn take_over(world: &Arc<World>, handover: Handover, index: u32) -> Result<Writer<'static, Ringing>, ClaimError> {
    // SAFETY: the models leave what they hand over.
    unsafe { world.ring.take_over_writer(handover, world.ringing(index)) }
}

#[test]
fn who_takes_an_end_over_goes_on_where_the_sender_stopped() {
    check("bell.handover", Some(2), 5000, || {
        let world = World::new();
        let (mut writer, mut reader) = (world.writer(0), world.reader(2));
        writer.try_push(&[1]).unwrap();
        let handover = writer.hand_over().unwrap();
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                let mut writer = take_over(&world, handover, 1).unwrap();
                writer.try_push(&[2, 2]).unwrap();
            })
        };
        writer.leave();
        let process = world.process(2);
        assert_eq!([1, 2, 3].map(|_| world.read(&mut reader, &process)), [Ok(1), Ok(2), Err(PopError::Closed)]);
        other.join().unwrap();
    });
}

/// By two threads of the sender's own process, whose name is in the word before and after.
#[test]
fn an_end_that_is_handed_over_is_taken_over_once() {
    check("bell.once", Some(3), 210, || {
        let world = World::new();
        let writer = world.writer(0);
        let claims = world.ring.writer_claims();
        let handover = writer.hand_over().unwrap();
        assert_eq!(claims, handover.claims);
        assert_eq!(writer.hand_over(), Err(ClaimError::EndTaken(handover.from)));
        writer.leave();
        let other = {
            let world = world.clone();
            thread::spawn(move || take_over(&world, handover, 0).map(std::mem::forget).is_ok())
        };
        let own = take_over(&world, handover, 0).map(std::mem::forget).is_ok();
        assert!(own != other.join().unwrap());
        assert!(!world.ring.is_writer_lost(|_| false));
    });
}

/// The pass of a message, as the kernel's lock: given back in order, or by a death.
struct Pass(AtomicU32);

impl Pass {
    fn is_there(&self) -> bool {
        // ORDERING: Acquire, and below Release: what the kernel gives at least.
        self.0.load(Ordering::Acquire) != 0
    }

    fn give_back(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// The receiver dies before each of its accesses, while the peer looks: what it has taken over is never lost, and what it
/// has not is.
#[test]
fn an_end_is_lost_when_nobody_can_take_it_over() {
    check_deaths("bell.pass", Some(3), 5, 360, |death| {
        let world = World::new();
        let pass = Arc::new(Pass(AtomicU32::new(1)));
        let writer = world.writer(0);
        let handover = writer.hand_over().unwrap();
        writer.leave();
        let receiver = {
            let (world, pass) = (world.clone(), pass.clone());
            thread::spawn(move || {
                let taken = until_killed(death, || take_over(&world, handover, 1).map(std::mem::forget).unwrap());
                // Its process closes it, or the kernel does that for a dead one.
                pass.give_back();
                taken.is_some()
            })
        };
        let is_lost = || {
            world.ring.is_writer_lost(|claims| {
                assert_eq!(claims, handover.claims);
                pass.is_there()
            })
        };
        let was_lost = is_lost();
        let is_taken = receiver.join().unwrap();
        assert!(!(was_lost && is_taken), "it was taken over");
        assert!(!was_lost || is_lost(), "what is lost stays so");
        // Killed between the word and the count, it is a dead one's: its peer is told of that.
        let is_dead_ones = world.ring.writer_end() == End::Owned(world.process(1).id());
        assert!(is_taken || is_lost() || is_dead_ones);
    });
}

/// The receiver dies before each of its accesses, and the sender then withdraws: the end is closed, or a dead one's. If
/// the receiver has sent it back, it stays with the sender.
#[test]
fn an_end_that_was_not_taken_over_is_withdrawn_and_one_that_came_back_is_not() {
    check_deaths("bell.withdraw", Some(2), 6, 29, |death| {
        let world = World::new();
        let writer = world.writer(0);
        let first = writer.hand_over().unwrap();
        writer.leave();
        let (me, receiver) = (world.process(0).id(), world.process(1).id());
        let victim = {
            let world = world.clone();
            thread::spawn(move || {
                let back = until_killed(death, || {
                    let writer = take_over(&world, first, 1).unwrap();
                    let back = writer.hand_over().unwrap();
                    writer.leave();
                    back
                });
                world.peers.kill(receiver);
                back
            })
        };
        let back = victim.join().unwrap();
        let again = back.map(|back| {
            let world = world.clone();
            thread::spawn(move || take_over(&world, back, 0).unwrap())
        });
        if world.process(2).is_dead(receiver) {
            world.ring.withdraw_writer(first, &world.process(0));
        }
        match again {
            Some(again) => {
                let writer = again.join().unwrap();
                assert_eq!(world.ring.writer_end(), End::Owned(me));
                std::mem::forget(writer);
            }
            None => assert!([End::Closed, End::Owned(receiver)].contains(&world.ring.writer_end())),
        }
    });
}

#[test]
fn a_reader_that_sleeps_sees_a_withdrawn_end() {
    check("bell.withdrawn", Some(3), 730, || {
        let world = World::new();
        let (writer, mut reader) = (world.writer(0), world.reader(1));
        let handover = writer.hand_over().unwrap();
        writer.leave();
        let reading = {
            let (world, process) = (world.clone(), world.process(1));
            thread::spawn(move || assert_eq!(world.read(&mut reader, &process), Err(PopError::Closed)))
        };
        world.ring.withdraw_writer(handover, &world.ringing(0));
        reading.join().unwrap();
    });
}

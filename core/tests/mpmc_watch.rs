//! Who is woken, and how long who sleeps, when items are taken and kept: step by step, in one thread.
#![cfg(all(not(crosslane_loom), target_has_atomic = "64"))]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::time::Duration;

use crosslane_core::mpmc::{Delivery, Payload, PopError, Queue, Ring};
use crosslane_core::prim::{AtomicU32, Ordering};
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode};

const CAPACITY: u32 = 4;

#[derive(Clone)]
#[repr(align(128))]
#[expect(dead_code, reason = "only its address is used")]
struct Line([u8; 128]);

/// What all participants share.
#[derive(Debug, Default)]
struct Peers {
    asleep: Cell<u32>,
    /// How many each wake was meant for.
    wakes: RefCell<Vec<u32>>,
    dead: RefCell<Vec<OwnerId>>,
    /// Sleeps in which a scene was played.
    played: Cell<usize>,
}

type Scene<'a> = Box<dyn FnOnce(Slice) + 'a>;

/// A process that plays a scene in each of its sleeps; after the last its deadline has passed.
struct Actor<'a> {
    me: OwnerId,
    peers: &'a Peers,
    scenes: RefCell<VecDeque<Scene<'a>>>,
}

impl Liveness for Actor<'_> {
    fn me(&self) -> Option<OwnerId> {
        Some(self.me)
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.peers.dead.borrow().contains(&owner)
    }
}

impl Wait for Actor<'_> {
    type Deadline = ();
    fn never(&self) {}
    fn after(&self, _: Duration) {}
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, (): ()) -> Parked {
        if word.load(Ordering::Relaxed) != expected {
            return Parked::Again;
        }
        let Some(scene) = self.scenes.borrow_mut().pop_front() else { return Parked::Expired };
        self.peers.asleep.set(self.peers.asleep.get() + 1);
        self.peers.played.set(self.peers.played.get() + 1);
        scene(slice);
        self.peers.asleep.set(self.peers.asleep.get() - 1);
        Parked::Again
    }
    fn wake(&self, _: &AtomicU32, count: u32) -> u32 {
        self.peers.wakes.borrow_mut().push(count);
        self.peers.asleep.get().min(count)
    }
    fn spins(&self) -> u32 {
        0
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

/// A queue, and who uses it.
struct Stage {
    lines: Vec<Line>,
    start: NonNull<u8>,
    peers: Peers,
}

type Q<'a> = Queue<'a, u64, Actor<'a>>;
type D<'q, 'a> = Delivery<'q, 'a, u64, Actor<'a>>;

impl Stage {
    fn new() -> Self {
        let payload = Payload::of::<u64>().unwrap();
        let size = Ring::layout(CAPACITY, payload).unwrap().size();
        let mut lines = vec![Line([0; 128]); size.div_ceil(128)];
        let start = NonNull::from(lines.as_mut_slice()).cast();
        // SAFETY: this test's own memory, used as this queue only.
        unsafe { Ring::init(start, lines.len() * 128, CAPACITY, payload, 7, WakeMode::Fenced) }.unwrap();
        Self { lines, start, peers: Peers::default() }
    }

    /// `who`'s handle; each scene is played in one of its sleeps.
    fn queue<'a>(&'a self, who: u32, scenes: impl IntoIterator<Item = Scene<'a>>) -> Q<'a> {
        let payload = Payload::of::<u64>().unwrap();
        let len_bytes = self.lines.len() * 128;
        // SAFETY: `new` made a queue here, and the memory outlives the borrow.
        let ring = unsafe { Ring::attach(self.start, len_bytes, CAPACITY, payload, WakeMode::Fenced) }.unwrap();
        let scenes = RefCell::new(scenes.into_iter().collect());
        Queue::new(ring, Actor { me: id(who), peers: &self.peers, scenes }).unwrap()
    }

    /// `who` waits for an item that does not come, and sleeps once for each scene.
    fn sleep<'a, const N: usize>(&'a self, who: u32, scenes: [Scene<'a>; N]) {
        let before = self.peers.played.get();
        assert!(matches!(self.queue(who, scenes).take_timeout(Duration::from_secs(1)), Err(PopError::TimedOut)));
        assert!(self.peers.played.get() >= before + N, "fewer sleeps than scenes");
    }

    /// Plays `scene` while `who` sleeps too. An item that one alone waits for wakes it, and so needs to wake nobody when it is
    /// taken.
    fn sleep_beside<'a>(&'a self, who: u32, play: impl FnOnce() + 'a) {
        self.sleep(who, [scene(|_| play())]);
    }

    /// `queue`'s process pushes an item and takes it; the wakes for which it called.
    fn take<'q, 'a>(&self, queue: &'q Q<'a>) -> (D<'q, 'a>, Vec<u32>) {
        queue.try_push(1).unwrap();
        self.peers.wakes.take();
        let delivery = queue.try_take().unwrap();
        (delivery, self.peers.wakes.take())
    }

    /// The same, and done with it.
    fn work(&self, queue: &Q<'_>) -> Vec<u32> {
        let (delivery, called) = self.take(queue);
        delivery.ack();
        called
    }
}

fn id(index: u32) -> OwnerId {
    OwnerId::new(index, 1).unwrap()
}

fn scene<'a>(play: impl FnOnce(Slice) + 'a) -> Scene<'a> {
    Box::new(play)
}

const HOLDER: u32 = 1;
const SLEEPER: u32 = 2;
const OTHER: u32 = 3;
const BYSTANDER: u32 = 4;
const ONE: [u32; 1] = [1];
const NOBODY: [u32; 0] = [];

#[test]
fn one_who_sleeps_is_called_and_watches_until_nothing_is_kept() {
    let stage = Stage::new();
    let (holder, other) = (stage.queue(HOLDER, []), stage.queue(OTHER, []));
    let held = RefCell::new(None);
    stage.sleep_beside(BYSTANDER, || {
        stage.sleep(
            SLEEPER,
            [
                scene(|slice| {
                    assert_eq!(slice, Slice::Long, "nobody is named");
                    let (delivery, called) = stage.take(&holder);
                    assert_eq!(called, ONE);
                    *held.borrow_mut() = Some(delivery);
                }),
                scene(|slice| {
                    assert_eq!((slice, stage.work(&other)), (Slice::Owner, NOBODY.into()), "somebody watches");
                }),
                scene(|slice| {
                    assert_eq!((slice, stage.work(&other)), (Slice::Owner, NOBODY.into()), "and goes on");
                    held.take().map(Delivery::ack);
                }),
                scene(|slice| assert_eq!((slice, stage.work(&holder)), (Slice::Long, ONE.into()), "no more")),
            ],
        );
    });
    assert_eq!(stage.work(&holder), NOBODY, "nobody sleeps");
}

/// The dead holder's item comes to who slept before it was taken.
#[test]
fn who_watches_gets_what_the_dead_had_taken() {
    let stage = Stage::new();
    let holder = stage.queue(HOLDER, []);
    let queue = stage.queue(
        SLEEPER,
        [
            scene(|_| core::mem::forget(stage.take(&holder).0)),
            scene(|slice| {
                assert_eq!(slice, Slice::Owner);
                stage.peers.dead.borrow_mut().push(id(HOLDER));
            }),
        ],
    );
    let delivery = queue.take().unwrap();
    assert_eq!((*delivery, delivery.attempts()), (1, 1));
    delivery.ack();
}

#[test]
fn a_thread_is_no_watcher_of_its_own_process() {
    let stage = Stage::new();
    let (holder, other) = (stage.queue(HOLDER, []), stage.queue(OTHER, []));
    let held = stage.take(&other).0;
    stage.sleep(
        HOLDER,
        [scene(|slice| {
            assert_eq!(slice, Slice::Owner, "a thread of the holder's watches");
            stage.sleep(
                SLEEPER,
                [scene(|_| {
                    assert_eq!(stage.work(&other), NOBODY, "another is watched by it");
                    assert_eq!(stage.work(&holder), ONE);
                })],
            );
        })],
    );
    held.ack();
}

#[test]
fn where_only_threads_of_the_holder_sleep_they_are_called_once() {
    let stage = Stage::new();
    let holder = stage.queue(HOLDER, []);
    let held = RefCell::new(None);
    stage.sleep_beside(HOLDER, || {
        stage.sleep(
            HOLDER,
            [
                scene(|_| {
                    let (delivery, called) = stage.take(&holder);
                    assert_eq!(called, ONE);
                    *held.borrow_mut() = Some(delivery);
                    stage.peers.wakes.take();
                }),
                scene(|slice| {
                    assert!(stage.peers.wakes.take().contains(&u32::MAX), "it passes the call on to all");
                    assert_eq!(slice, Slice::Long);
                    stage.sleep_beside(HOLDER, || {
                        assert_eq!(stage.work(&holder), NOBODY, "all who sleep were called");
                    });
                    held.take().map(Delivery::ack);
                    // Nothing is held, so this one sleeps long; but the holder is alone no more.
                    stage.sleep_beside(SLEEPER, || {
                        let works = |slice| assert_eq!((slice, stage.work(&holder)), (Slice::Long, ONE.into()));
                        stage.sleep(SLEEPER, [scene(works)]);
                    });
                }),
            ],
        );
    });
}

#[test]
fn a_dead_watchers_name_is_taken_back_by_whose_sleep_ends() {
    let stage = Stage::new();
    let (holder, other) = (stage.queue(HOLDER, []), stage.queue(OTHER, []));
    let held = stage.take(&other).0;
    let died = RefCell::new(Some(held));
    stage.sleep(
        HOLDER + 8,
        [scene(|_| {
            // Whoever watches is killed; what it watched comes to an end.
            stage.peers.dead.borrow_mut().push(id(HOLDER + 8));
            died.take().map(Delivery::ack);
            stage.sleep(
                SLEEPER,
                [
                    scene(|slice| {
                        assert_eq!((slice, stage.work(&holder)), (Slice::Long, NOBODY.into()), "not known yet")
                    }),
                    scene(|_| assert_eq!(stage.work(&holder), ONE)),
                ],
            );
        })],
    );
}

#[test]
fn who_recovers_a_dead_watcher_takes_its_name_back() {
    let stage = Stage::new();
    let (holder, other) = (stage.queue(HOLDER, []), stage.queue(OTHER, []));
    let scenes = || {
        let held = stage.take(&other).0;
        let dies = |_| {
            stage.peers.dead.borrow_mut().push(id(SLEEPER));
            assert_eq!(stage.work(&holder), NOBODY);
            other.recover(id(SLEEPER));
            assert_eq!(stage.work(&holder), ONE);
        };
        stage.sleep(SLEEPER, [scene(dies)]);
        held.ack();
    };
    stage.sleep_beside(BYSTANDER, || stage.sleep_beside(BYSTANDER, scenes));
}

//! One item there and one back, each side asleep when its turn comes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crosslane_core::end::ClaimError;
use crosslane_core::spsc::Ring;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode};
use crosslane_shm::Env;

use super::ring::Home;
use super::rival::{self, IpcChannel, Rival, ShmemIpc};
use super::scaled;
use crate::row::{Row, Unit};
use crate::scratch::unique;
use crate::shared::{Memory, Shared};
use crate::sides::{Cpus, Kind, now_nanos, race, race_on};

const SLOTS: u32 = 1024;
pub(super) const BARE: &str = "bare futex ping-pong";
pub(super) const BARE_ASLEEP: &str = "bare futex ping-pong, of trips that both slept in";
const FENCED: &str = "crosslane spsc, fenced";
const ASYMMETRIC: &str = "crosslane spsc, asymmetric";

pub fn rows(scale: f64) -> Vec<Row> {
    let trips = scaled(5_000, scale);
    vec![
        Row::new("round trip, asleep each time, u64, two processes", Unit::Nanos, trips)
            .contestant(BARE, move || bare(trips))
            .contestant(FENCED, move || crosslane(WakeMode::Fenced, trips))
            .contestant(ASYMMETRIC, move || crosslane(WakeMode::Asymmetric, trips))
            .goal(FENCED, BARE, 1.05)
            .versus(ASYMMETRIC, BARE)
            .rival(FENCED, "shmem-ipc, eventfds", trips, move || shmem_ipc(trips))
            .rival(FENCED, "ipc-channel", trips, move || rival::round_trip::<IpcChannel>(SLOTS, trips))
            .rival(FENCED, "raw_sync events", trips, move || raw_sync(trips))
            .rival(FENCED, "iceoryx2 events", trips, move || iceoryx2(trips)),
    ]
}

#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU32);

impl Line {
    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
        // SAFETY: a live word.
        unsafe { libc::syscall(libc::SYS_futex, &raw const self.0, libc::FUTEX_WAKE, 1) };
    }

    /// Returns whether it slept.
    fn await_change(&self, from: u32) -> bool {
        let mut has_slept = false;
        while self.0.load(Ordering::Acquire) == from {
            let forever = std::ptr::null::<libc::timespec>();
            // SAFETY: a live word, and no time.
            has_slept |=
                0 == unsafe { libc::syscall(libc::SYS_futex, &raw const self.0, libc::FUTEX_WAIT, from, forever) };
        }
        has_slept
    }
}

#[derive(Default)]
struct Lines {
    there: Line,
    back: Line,
}

pub(super) fn bare(trips: u64) -> f64 {
    bare_on(Cpus::Two, trips)
}

pub(super) fn bare_on(cpus: Cpus, trips: u64) -> f64 {
    let trips = u32::try_from(trips).expect("few");
    let lines = Shared::<Lines>::new();
    race_on(
        cpus,
        Kind::Processes,
        |start| {
            start.go();
            for i in 0..trips {
                lines.there.set(i + 1);
                lines.back.await_change(i);
            }
        },
        |start| {
            start.go();
            for i in 0..trips {
                lines.there.await_change(i);
                lines.back.set(i + 1);
            }
        },
    )
}

#[derive(Default)]
struct Timed {
    lines: Lines,
    /// Whether the second side slept before this trip.
    other_slept: AtomicBool,
    nanos: AtomicU64,
}

/// As [`bare`], but only of the trips in which both sides slept: an answer that comes before the asking side sleeps finds it
/// awake, and the next question finds the answering side so. Half of the trips may be of that kind, and take a twentieth of
/// the time.
pub(super) fn bare_asleep(trips: u64) -> f64 {
    /// Instead of a trip's number.
    const OVER: u32 = u32::MAX;
    let most = u32::try_from(100 * trips).expect("few");
    let timed = Shared::<Timed>::new();
    let Lines { there, back } = &timed.lines;
    race_on(
        Cpus::Two,
        Kind::Processes,
        |start| {
            start.go();
            let (mut counted, mut nanos, mut begun) = (0, 0, now_nanos());
            for i in 0..most {
                there.set(i + 1);
                let both_slept = back.await_change(i) && timed.other_slept.load(Ordering::Relaxed);
                let end = now_nanos();
                if both_slept {
                    counted += 1;
                    nanos += end - begun;
                }
                if counted == trips {
                    break;
                }
                begun = end;
            }
            there.set(OVER);
            assert_eq!(counted, trips, "in {most} trips");
            timed.nanos.store(nanos, Ordering::Relaxed);
        },
        |start| {
            start.go();
            for i in 0.. {
                let has_slept = there.await_change(i);
                if there.0.load(Ordering::Relaxed) == OVER {
                    return;
                }
                timed.other_slept.store(has_slept, Ordering::Relaxed);
                back.set(i + 1);
            }
        },
    );
    timed.nanos.load(Ordering::Relaxed) as f64 / 1e9
}

fn crosslane(mode: WakeMode, trips: u64) -> f64 {
    let there = Home::<u64>::new(SLOTS, mode);
    let back = Home::<u64>::new(SLOTS, mode);
    race(
        Kind::Processes,
        |start| {
            let (mut to, mut from) = (sleepy(&there, Ring::producer), sleepy(&back, Ring::consumer));
            start.go();
            for i in 0..trips {
                to.push(i).expect("the peer lives");
                assert_eq!(from.pop(), Ok(i));
            }
        },
        |start| {
            let (mut to, mut from) = (sleepy(&back, Ring::producer), sleepy(&there, Ring::consumer));
            start.go();
            for _ in 0..trips {
                let item = from.pop().expect("the peer lives");
                to.push(item).expect("the peer lives");
            }
        },
    )
}

fn shmem_ipc(trips: u64) -> f64 {
    type To = <ShmemIpc as Rival>::Sender;
    type From = <ShmemIpc as Rival>::Receiver;
    let (there, back) = (ShmemIpc::new(SLOTS), ShmemIpc::new(SLOTS));
    let send = |to: &mut To, number: u64| {
        let write = |place: *mut u64, _| {
            // SAFETY: room for at least one, as its contract says.
            unsafe { place.write(number) };
            1
        };
        to.send_raw(write).expect("a ring");
    };
    let receive = |from: &mut From| {
        let mut number = 0;
        from.block_until_readable().expect("a ring");
        let read = |place: *const u64, _| {
            // SAFETY: at least one item, as its contract says.
            number = unsafe { place.read() };
            1
        };
        from.receive_raw(read).expect("a ring");
        number
    };
    race(
        Kind::Processes,
        |start| {
            let (mut to, mut from) = (there.sender(), back.receiver());
            start.go();
            for i in 0..trips {
                send(&mut to, i);
                assert_eq!(receive(&mut from), i);
            }
        },
        |start| {
            let (mut from, mut to) = (there.receiver(), back.sender());
            start.go();
            for _ in 0..trips {
                let number = receive(&mut from);
                send(&mut to, number);
            }
        },
    )
}

/// Two events that reset themselves; they carry nothing.
fn raw_sync(trips: u64) -> f64 {
    use raw_sync::Timeout;
    use raw_sync::events::{Event, EventImpl, EventInit, EventState};
    const ROOM_BYTES: usize = 256;
    let memory = Memory::new(4096);
    let place = |i: usize| memory.start().as_ptr().wrapping_add(i * ROOM_BYTES);
    for i in 0..2 {
        // SAFETY: room enough for an event, which nobody uses yet.
        drop(unsafe { Event::new(place(i), true) }.expect("an event"));
    }
    let event = |i| -> Box<dyn EventImpl> {
        // SAFETY: made above, and mapped as long as the measurement takes.
        unsafe { Event::from_existing(place(i)) }.expect("an event").0
    };
    race(
        Kind::Processes,
        |start| {
            let (there, back) = (event(0), event(1));
            start.go();
            for _ in 0..trips {
                there.set(EventState::Signaled).expect("an event");
                back.wait(Timeout::Infinite).expect("an event");
            }
        },
        |start| {
            let (there, back) = (event(0), event(1));
            start.go();
            for _ in 0..trips {
                there.wait(Timeout::Infinite).expect("an event");
                back.set(EventState::Signaled).expect("an event");
            }
        },
    )
}

/// Notifier and listener in both directions; they carry a number.
fn iceoryx2(trips: u64) -> f64 {
    use iceoryx2::prelude::ipc;
    let (there, back) = (unique("there"), unique("back"));
    let open = |name: &str| {
        let node = rival::ice_node();
        node.service_builder(&name.try_into().expect("a name")).event().open_or_create().expect("a service")
    };
    let wait = |listener: &iceoryx2::port::listener::Listener<ipc::Service>| {
        let mut events = 0;
        while events == 0 {
            listener.blocking_wait(|_| events += 1).expect("a listener");
        }
    };
    race(
        Kind::Processes,
        |start| {
            let listener = open(&back).listener_builder().create().expect("a listener");
            let notifier = open(&there).notifier_builder().create().expect("a notifier");
            start.go();
            for _ in 0..trips {
                notifier.notify().expect("a listener");
                wait(&listener);
            }
        },
        |start| {
            let listener = open(&there).listener_builder().create().expect("a listener");
            let notifier = open(&back).notifier_builder().create().expect("a notifier");
            start.go();
            for _ in 0..trips {
                wait(&listener);
                notifier.notify().expect("a listener");
            }
        },
    )
}

/// An end whose waits do not spin.
fn sleepy<End>(home: &Home<u64>, claim: fn(&Ring<'static, u64>, Sleepy) -> Result<End, ClaimError>) -> End {
    let ring = home.here();
    let segment = ring.segment();
    let (memory, len_bytes) = segment.object();
    let env = Sleepy(segment.env().expect("not for reading only"));
    // SAFETY: the memory of such a ring, mapped as long as the `Env` that the end holds.
    let ring = unsafe { Ring::attach(memory, len_bytes, SLOTS, segment.header().content.wake) };
    claim(&ring.expect("the ring that is there"), env).unwrap_or_else(|error| panic!("{error}"))
}

/// [`Env`], but sleeping at once when there is nothing to do.
struct Sleepy(Env);

impl Wait for Sleepy {
    type Deadline = <Env as Wait>::Deadline;

    fn never(&self) -> Self::Deadline {
        self.0.never()
    }

    fn after(&self, timeout: Duration) -> Self::Deadline {
        self.0.after(timeout)
    }

    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: Self::Deadline) -> Parked {
        self.0.park(word, expected, slice, deadline)
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        self.0.wake(word, count)
    }

    fn spins(&self) -> u32 {
        0
    }

    fn in_heavy_barriers(&self) -> bool {
        self.0.in_heavy_barriers()
    }

    fn heavy_barrier(&self) -> bool {
        self.0.heavy_barrier()
    }
}

impl Liveness for Sleepy {
    fn me(&self) -> Option<OwnerId> {
        self.0.me()
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        self.0.is_dead(owner)
    }
}

//! A request and its response, both sides spinning.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crosslane_shm::{Calls, Options};

use super::rival::ice_node;
use super::scaled;
use crate::python;
use crate::row::{Row, Unit};
use crate::scratch::unique;
use crate::shared::Shared;
use crate::sides::{Kind, race, spin};

const BARE: &str = "bare one-line ping-pong";
const BARE_SHORT: &str = "bare line that carries 8 bytes";
const BARE_LONG: &str = "bare line that carries 56 bytes";
const SHORT: &str = "crosslane call, 8 bytes, two processes";
const LONG: &str = "crosslane call, 56 bytes, two processes";
const PYTHON: &str = "Python multiprocessing.Pipe, 8 bytes, asleep each time";
const ICEORYX2: &str = "iceoryx2 request-response, 8 bytes, two processes";

pub fn rows(scale: f64) -> Vec<Row> {
    let (trips, some) = (scaled(100_000, scale), scaled(10_000, scale));
    vec![
        Row::new("call, spinning", Unit::Nanos, trips)
            .contestant(BARE, move || bare(trips))
            .contestant(BARE_SHORT, move || carrying::<1>(trips))
            .contestant(BARE_LONG, move || carrying::<7>(trips))
            .contestant(SHORT, move || crosslane::<8>(trips))
            .contestant(LONG, move || crosslane::<56>(trips))
            .goal(SHORT, BARE, 1.25)
            .goal(LONG, BARE, 1.25)
            .versus(SHORT, BARE_SHORT)
            .versus(LONG, BARE_LONG)
            .versus(BARE_SHORT, BARE)
            .versus(BARE_LONG, BARE)
            .rival(SHORT, ICEORYX2, some, move || iceoryx2(some))
            .python(SHORT, PYTHON, some, &[some, 8], python::ASK),
    ]
}

/// A number that goes up by one in each direction.
#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU64);

fn bare(trips: u64) -> f64 {
    let line = Shared::<Line>::new();
    let await_number = |number| spin(|| (line.0.load(Ordering::Acquire) == number).then_some(()));
    race(
        Kind::Processes,
        |start| {
            start.go();
            for i in 0..trips {
                line.0.store(2 * i + 1, Ordering::Release);
                await_number(2 * i + 2);
            }
        },
        |start| {
            start.go();
            for i in 0..trips {
                await_number(2 * i + 1);
                line.0.store(2 * i + 2, Ordering::Release);
            }
        },
    )
}

/// A word for each direction, and what both carry: the least that a request and its response in one line can cost. Nobody
/// sleeps, dies, gives up or is another one.
#[derive(Default)]
#[repr(C, align(128))]
struct Carrier {
    asked: AtomicU32,
    answered: AtomicU32,
    words: [AtomicU64; 7],
}

impl Carrier {
    #[inline(always)]
    fn put<const WORDS: usize>(&self, words: [u64; WORDS]) {
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn get<const WORDS: usize>(&self) -> [u64; WORDS] {
        std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed))
    }
}

/// Whether each word is `expected`. One by one: to compare them as an array reads by vectors what was stored by words, which
/// takes 30 ns for 56 bytes, half of a round trip.
#[inline(always)]
fn are_all(words: impl IntoIterator<Item = u64>, expected: u64) -> bool {
    words.into_iter().all(|word| word == expected)
}

fn carrying<const WORDS: usize>(trips: u64) -> f64 {
    let line = Shared::<Carrier>::new();
    race(
        Kind::Processes,
        |start| {
            start.go();
            for i in 0..trips as u32 {
                line.put([u64::from(i); WORDS]);
                line.asked.store(i + 1, Ordering::Release);
                spin(|| (line.answered.load(Ordering::Acquire) == i + 1).then_some(()));
                assert!(are_all(line.get::<WORDS>(), u64::from(i)));
            }
        },
        |start| {
            start.go();
            for i in 0..trips as u32 {
                spin(|| (line.asked.load(Ordering::Acquire) == i + 1).then_some(()));
                let response = line.get::<WORDS>();
                line.put(response);
                line.answered.store(i + 1, Ordering::Release);
            }
        },
    )
}

fn crosslane<const LEN: usize>(trips: u64) -> f64 {
    let home = Calls::anonymous(1, &Options::new()).expect("memory for calls");
    race(
        Kind::Processes,
        |start| {
            let calls = home.rejoin().expect("a member");
            let mut client = calls.client().expect("a cell");
            start.go();
            for i in 0..trips {
                let response = client.call(&[i as u8; LEN]).expect("a response");
                let response: [u8; LEN] = response.to_array().expect("a response of this length");
                let words = response.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
                assert!(are_all(words, u64::from_ne_bytes([i as u8; 8])));
            }
        },
        |start| {
            let calls = home.rejoin().expect("a member");
            let mut server = calls.server().expect("no other server");
            start.go();
            for _ in 0..trips {
                let request = server.recv().expect("a request");
                let response: [u8; LEN] = request.to_array().expect("a request of this length");
                request.respond(&response).expect("it fits");
            }
        },
    )
}

fn iceoryx2(trips: u64) -> f64 {
    let name = unique("compare");
    let open = || {
        let node = ice_node();
        let builder = node.service_builder(&name.as_str().try_into().expect("a name"));
        builder.request_response::<u64, u64>().open_or_create().expect("a service")
    };
    race(
        Kind::Processes,
        |start| {
            let client = open().client_builder().create().expect("a client");
            start.go();
            for i in 0..trips {
                let pending = client.send_copy(i).expect("a server");
                assert_eq!(spin(|| pending.receive().expect("a connection").map(|response| *response)), i);
            }
        },
        |start| {
            let server = open().server_builder().create().expect("a server");
            start.go();
            for _ in 0..trips {
                let request = spin(|| server.receive().expect("a connection"));
                request.send_copy(*request).expect("a client");
            }
        },
    )
}

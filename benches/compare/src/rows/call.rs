//! A request and its response, both sides spinning.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane_shm::{Calls, Options};

use super::rival::ice_node;
use super::scaled;
use crate::row::{Row, Unit};
use crate::scratch::unique;
use crate::shared::Shared;
use crate::sides::{Kind, race, spin};

const BARE: &str = "bare one-line ping-pong";
const SHORT: &str = "crosslane call, 8 bytes, two processes";
const LONG: &str = "crosslane call, 56 bytes, two processes";
const ICEORYX2: &str = "iceoryx2 request-response, 8 bytes, two processes";

pub fn rows(scale: f64) -> Vec<Row> {
    let (trips, some) = (scaled(100_000, scale), scaled(10_000, scale));
    vec![
        Row::new("call, spinning", Unit::Nanos, trips)
            .contestant(BARE, move || bare(trips))
            .contestant(SHORT, move || crosslane::<8>(trips))
            .contestant(LONG, move || crosslane::<56>(trips))
            .goal(SHORT, BARE, 1.25)
            .goal(LONG, BARE, 1.25)
            .rival(SHORT, ICEORYX2, some, move || iceoryx2(some)),
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

fn crosslane<const LEN: usize>(trips: u64) -> f64 {
    let home = Calls::anonymous(1, &Options::new()).expect("memory for calls");
    race(
        Kind::Processes,
        |start| {
            let calls = home.rejoin().expect("a member");
            let mut client = calls.client().expect("a cell");
            start.go();
            for i in 0..trips {
                let request = [i as u8; LEN];
                assert_eq!(*client.call(&request).expect("a response"), request);
            }
        },
        |start| {
            let calls = home.rejoin().expect("a member");
            let mut server = calls.server().expect("no other server");
            start.go();
            for _ in 0..trips {
                let request = server.recv().expect("a request");
                let mut response = [0; LEN];
                response.copy_from_slice(&request);
                request.respond(&response);
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

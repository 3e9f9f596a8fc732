//! A request and its response, both sides spinning.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane_shm::{Calls, Options};

use super::scaled;
use crate::row::{Row, Unit};
use crate::shared::Shared;
use crate::sides::{Kind, race, spin};

const BARE: &str = "bare one-line ping-pong";
const SMALL: &str = "crosslane call, 8 bytes, two processes";
const FULL: &str = "crosslane call, 56 bytes, two processes";

pub fn rows(scale: f64) -> Vec<Row> {
    let trips = scaled(100_000, scale);
    vec![
        Row::new("request and response, spinning", Unit::Nanos, trips)
            .contestant(BARE, move || bare(trips))
            .contestant(SMALL, move || call::<8>(trips))
            .contestant(FULL, move || call::<56>(trips))
            .goal(SMALL, BARE, 1.25)
            .goal(FULL, BARE, 1.25),
    ]
}

#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU64);

fn bare(trips: u64) -> f64 {
    let line = Shared::<Line>::new();
    let await_value = |value| spin(|| (line.0.load(Ordering::Acquire) == value).then_some(()));
    race(
        Kind::Processes,
        |start| {
            start.go();
            for i in 1..=trips {
                line.0.store(2 * i - 1, Ordering::Release);
                await_value(2 * i);
            }
        },
        |start| {
            start.go();
            for i in 1..=trips {
                await_value(2 * i - 1);
                line.0.store(2 * i, Ordering::Release);
            }
        },
    )
}

fn call<const BYTES: usize>(trips: u64) -> f64 {
    let calls = Calls::anonymous(1, &Options::new()).expect("memory for calls");
    race(
        Kind::Processes,
        |start| {
            let calls = calls.rejoin().expect("a member");
            let mut client = calls.client().expect("a cell");
            start.go();
            for _ in 0..trips {
                let response = client.call(&[7; BYTES]).expect("a response");
                assert_eq!(response.len(), BYTES);
            }
        },
        |start| {
            let calls = calls.rejoin().expect("a member");
            let mut server = calls.server().expect("nobody else serves");
            start.go();
            for _ in 0..trips {
                let request = server.recv().expect("a request");
                assert_eq!(request.len(), BYTES);
                request.respond(&[8; BYTES]);
            }
        },
    )
}

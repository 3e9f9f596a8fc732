//! What it costs a ring of spinning peers that they might sleep: blocking calls in each wake mode.

use crosslane_core::WakeMode;

use super::one_by_one;
use super::ring::Home;
use super::scaled;
use crate::row::{Row, Unit};
use crate::sides::{Kind, race};

const SPINNING: &str = "polling, spinning";
const ASYMMETRIC: &str = "asymmetric, blocking calls";
const TRYING: &str = "asymmetric, spinning";
const FENCED: &str = "fenced, blocking calls";

pub fn rows(scale: f64) -> Vec<Row> {
    let items = scaled(3_000_000, scale);
    let row = |name, slots: u32| {
        Row::new(name, Unit::Millions, items)
            .contestant(SPINNING, move || one_by_one::crosslane(Kind::Processes, WakeMode::Polling, slots, items))
            .contestant(ASYMMETRIC, move || blocking(WakeMode::Asymmetric, slots, items))
            .contestant(TRYING, move || one_by_one::crosslane(Kind::Processes, WakeMode::Asymmetric, slots, items))
            .contestant(FENCED, move || blocking(WakeMode::Fenced, slots, items))
            .goal(ASYMMETRIC, SPINNING, 0.90)
            .versus(TRYING, SPINNING)
            .versus(FENCED, SPINNING)
    };
    vec![row("wake modes, u64, 1,024 slots", 1 << 10), row("wake modes, u64, 65,536 slots", 1 << 16)]
}

fn blocking(mode: WakeMode, slots: u32, items: u64) -> f64 {
    let home = Home::<u64>::new(slots, mode);
    race(
        Kind::Processes,
        |start| {
            let mut producer = home.producer();
            start.go();
            for i in 0..items {
                producer.push(i).expect("the consumer lives");
            }
        },
        |start| {
            let mut consumer = home.consumer();
            start.go();
            for i in 0..items {
                assert_eq!(consumer.pop().expect("the producer lives"), i);
            }
        },
    )
}

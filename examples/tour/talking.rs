//! Processes that talk.

use std::time::Instant;

use crosslane::{Connection, Error, Queue, pipe as new_pipe, spawn};
use serde::{Deserialize, Serialize};

use crate::report::{Outcome, Report, expect, rate};

#[derive(Serialize, Deserialize)]
enum Message {
    Number(u64),
    Over,
}

pub(crate) fn queue(report: &mut Report) -> Outcome {
    const NUMBERS: u64 = 100_000;
    let queue = Queue::<Message>::bounded(1024)?;
    let produce = |queue: Queue<Message>| {
        for n in 1..=NUMBERS {
            queue.put(Message::Number(n)).expect("somebody takes them");
        }
        queue.put(Message::Over).expect("somebody takes it");
    };
    let consume = |queue: Queue<Message>| {
        let mut sum = 0;
        while let Message::Number(n) = queue.get().expect("the sentinel comes") {
            sum += n;
        }
        sum
    };
    let begun = Instant::now();
    let (producer, consumer) = (spawn(produce, queue.clone())?, spawn(consume, queue.clone())?);
    producer.join()?;
    let sum = consumer.join()?;
    report.note("messages through a Queue, processes' start included", rate(NUMBERS, begun.elapsed()));
    println!("    the consumer's sum of 1 to {NUMBERS}: {sum}");
    expect("the sum", sum, NUMBERS * (NUMBERS + 1) / 2)?;
    expect("the queue is empty", queue.is_empty(), true)
}

pub(crate) fn pipe(_: &mut Report) -> Outcome {
    let (mut ours, theirs) = new_pipe::<(), String>()?;
    let talk = |mut end: Connection<String, ()>| {
        for word in ["one", "two", "three"] {
            end.send(&word.to_owned()).expect("somebody listens");
        }
    };
    let child = spawn(talk, theirs)?;
    let mut heard = Vec::new();
    let end = loop {
        match ours.recv() {
            Ok(word) => heard.push(word),
            Err(error) => break error,
        }
    };
    child.join()?;
    println!("    heard {heard:?}, then: {end}");
    expect("what was heard", heard, ["one", "two", "three"].map(str::to_owned).to_vec())?;
    expect("the end is an orderly one", matches!(end, Error::Closed), true)
}

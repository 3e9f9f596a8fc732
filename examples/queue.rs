//! A queue: producers in two processes, one of them this one, a consumer in a third, and a sentinel that ends it.
//!
//! `cargo run --example queue`

use crosslane::{Queue, spawn};
use serde::{Deserialize, Serialize};

/// What goes through the queue: values of several types, by an enum.
#[derive(Debug, Serialize, Deserialize)]
enum Item {
    Number(u64),
    Text(String),
    Samples(Vec<f64>),
    /// Nothing comes any more.
    End,
}

fn produce(queue: Queue<Item>) {
    for n in 1..=100 {
        queue.put(Item::Number(n)).expect("an open queue");
    }
    queue.put(Item::Text("that was all of them".into())).expect("an open queue");
}

fn consume(queue: Queue<Item>) -> (u64, Vec<String>, f64) {
    let (mut sum, mut texts, mut total) = (0, Vec::new(), 0.0);
    loop {
        match queue.get().expect("an item") {
            Item::Number(n) => sum += n,
            Item::Text(text) => texts.push(text),
            Item::Samples(samples) => total += samples.iter().sum::<f64>(),
            Item::End => return (sum, texts, total),
        }
    }
}

fn main() -> crosslane::Result<()> {
    crosslane::init();
    let queue = Queue::bounded(128)?;

    spawn(produce, queue.clone())?.join()?;
    // What was put is there once its producer has been joined: nobody has read it yet.
    assert!(!queue.is_empty());
    println!("{} items wait", queue.len());

    let consumer = spawn(consume, queue.clone())?;
    queue.put(Item::Text("and a second producer".into()))?;
    queue.put(Item::Samples(vec![0.5; 1000]))?;
    queue.put(Item::End)?;

    let (sum, texts, total) = consumer.join()?;
    println!("{sum}, {texts:?}, {total}");
    assert_eq!((sum, texts.len(), total), (5050, 2, 500.0));
    assert!(queue.is_empty());
    Ok(())
}

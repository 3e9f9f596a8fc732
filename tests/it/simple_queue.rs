//! `SimpleQueue`.

use std::thread;

use crosslane::{Error, SimpleQueue};

use crate::Watchdog;

#[test]
fn it_is_a_queue() {
    let queue = SimpleQueue::new().unwrap();
    assert!(queue.is_empty());
    queue.put("a".to_owned()).unwrap();
    queue.put("b".to_owned()).unwrap();
    assert!(!queue.is_empty());
    assert_eq!(queue.get().unwrap(), "a");
    queue.close();
    assert!(matches!(queue.put("c".to_owned()).unwrap_err().error, Error::Closed));
    assert_eq!(queue.iter().collect::<Result<Vec<_>, _>>().unwrap(), ["b"]);
}

#[test]
fn a_put_waits_for_room() {
    let _watchdog = Watchdog::new();
    let queue = SimpleQueue::<u64>::new().unwrap();
    thread::scope(|scope| {
        let putter = scope.spawn(|| (0..3000).for_each(|n| queue.put(n).unwrap()));
        assert_eq!((0..3000).map(|_| queue.get().unwrap()).sum::<u64>(), (0..3000).sum());
        putter.join().unwrap();
    });
}

//! Numbers that are right: lengths as soon as a push has returned, bytes to the last zero.

mod family;

use std::time::Duration;

use crosslane_core::mpmc::PopError;
use crosslane_shm::{Messages, Options, Queue};
use family::fork;

#[test]
fn a_queue_that_was_pushed_to_is_not_empty_for_anybody_and_one_that_was_emptied_is() {
    const ROUNDS: u32 = 200;
    let queue = Queue::<u32>::anonymous(4, &Options::new()).unwrap();
    let mut peer = fork(|parent| {
        let queue = queue.rejoin().unwrap();
        for round in 0..ROUNDS {
            let pushed = parent.hear() as usize;
            assert_eq!((queue.len(), queue.is_empty()), (pushed, false), "round {round}");
            for _ in 0..pushed {
                assert_eq!(queue.try_pop(), Ok(round));
            }
            parent.tell(round);
        }
    });
    for round in 0..ROUNDS {
        let count = 1 + round % 4;
        (0..count).for_each(|_| queue.try_push(round).unwrap());
        assert_eq!((queue.len(), queue.is_empty()), (count as usize, false));
        peer.tell(count);
        assert_eq!(peer.hear(), round);
        assert_eq!((queue.len(), queue.is_empty(), queue.try_pop()), (0, true, Err(PopError::Empty)));
    }
    peer.join();
    queue.close();
    assert_eq!((queue.is_closed(), queue.pop_timeout(Duration::ZERO)), (true, Err(PopError::Closed)));
}

#[test]
fn messages_keep_their_last_zero_bytes_and_what_does_not_fit_is_said_and_sends_nothing() {
    const MOST: u32 = 32;
    let messages = Messages::anonymous(8, MOST, &Options::new()).unwrap();
    let sent: [&[u8]; 5] = [b"", b"\0", b"ab\0\0", &[0; 32], "g\u{e4}nse\0".as_bytes()];
    let sender = fork(|_| {
        let messages = messages.rejoin().unwrap();
        for message in sent {
            messages.push(message).unwrap();
            assert!(messages.push(&[1; 33]).is_err());
        }
    });
    for message in sent {
        let mut buffer = [0xff; MOST as usize];
        let len = messages.pop_into(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], message);
    }
    sender.join();
    assert!(messages.is_empty());
}

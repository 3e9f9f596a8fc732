//! A worker.

use std::thread;
use std::time::Duration;

use crosslane_core::mpmc::PopError;
use crosslane_shm::Options;
use crosslane_shm::queue::Delivery;

use crate::failure::Failure;
use crate::ledger::{Job, Ledger};
use crate::meeting;

pub(crate) fn run(name: &str, options: &Options, micros: u64) -> Result<(), Failure> {
    let meeting = meeting::join(name, options)?;
    // Closed before this worker came: what is left is to be done all the same.
    let is_late = meeting.queue.is_closed();
    let (mut taken, mut done): (u64, u64) = (0, 0);
    loop {
        match meeting.queue.take() {
            Ok(delivery) => {
                taken += 1;
                done += u64::from(one(delivery, &meeting.ledger, Duration::from_micros(micros)));
            }
            Err(PopError::Closed) if is_late && taken == 0 => return Err(Failure::Closed { name: name.into() }),
            Err(PopError::Closed) => break,
            Err(error) => return Err(Failure::Pop(error)),
        }
    }
    println!("did {done} jobs");
    Ok(())
}

/// Does one job, and says whether it could be done. Until it is acknowledged it is this worker's, and another one's should
/// this one be killed.
pub(crate) fn one(delivery: Delivery<'_, Job>, ledger: &Ledger, takes: Duration) -> bool {
    let Job { number, is_refused } = *delivery;
    thread::sleep(takes);
    if is_refused != 0 {
        // Dropping gives it back: another worker may try, until it has been delivered often enough.
        ledger.letter(number);
        drop(delivery);
        return false;
    }
    ledger.done(number, delivery.attempts());
    delivery.ack();
    true
}

//! A producer.

use crosslane_core::Liveness;
use crosslane_core::mpmc::PushError;
use crosslane_shm::{DomainError, Options};

use crate::failure::Failure;
use crate::ledger::{Job, MAX_JOBS};
use crate::meeting;

pub(crate) fn run(name: &str, options: &Options, jobs: u64, refused: Option<u32>) -> Result<(), Failure> {
    let meeting = meeting::join(name, options)?;
    let (queue, ledger) = (&*meeting.queue, &**meeting.ledger);
    let me = queue.segment().env().and_then(|env| env.me()).ok_or(DomainError::Forked)?;
    if queue.is_closed() {
        return Err(Failure::Closed { name: name.into() });
    }
    let mut sent = 0;
    while sent < jobs {
        let Some(number) = ledger.begin(me) else {
            println!("the ledger is full: it holds {MAX_JOBS} jobs");
            break;
        };
        let is_refused = refused.is_some_and(|every| number.is_multiple_of(every));
        match queue.push(Job { number, is_refused: is_refused.into() }) {
            Ok(()) => ledger.sent(number),
            Err(PushError::Closed) => {
                ledger.taken_back(number);
                break;
            }
            Err(error) => return Err(Failure::Push(error)),
        }
        sent += 1;
    }
    println!("sent {sent} jobs");
    Ok(())
}

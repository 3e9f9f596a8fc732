//! The accounts, for people.

use crosslane_core::mpmc::PopError;
use crosslane_shm::{Options, Queue};

use crate::failure::Failure;
use crate::ledger::{Accounts, Job, Ledger};
use crate::meeting;

pub(crate) fn run(name: &str, options: &Options, close: bool, take_letters: bool) -> Result<(), Failure> {
    let meeting = meeting::open(name, options)?;
    let (queue, ledger) = (&*meeting.queue, &**meeting.ledger);
    if close {
        queue.close();
    }
    let domain = queue.segment().domain().ok_or(Failure::Pop(PopError::Forked))?;
    // Gives back at once what killed workers held.
    domain.reap()?;
    for (number, attempts) in letters(queue, ledger, take_letters)? {
        println!("dead letter: job {number}, delivered {attempts} times");
    }
    print(&ledger.accounts(domain), queue);
    Ok(())
}

/// The dead letters, noted in the ledger: numbers, and how often each was delivered.
pub(crate) fn letters(queue: &Queue<Job>, ledger: &Ledger, take: bool) -> Result<Vec<(u32, u32)>, Failure> {
    let letters = queue.letters().map_err(Failure::Pop)?;
    let seen = letters.map(|letter| {
        let seen = (letter.number, letter.attempts());
        ledger.letter(letter.number);
        if take {
            letter.ack();
        }
        seen
    });
    Ok(seen.collect())
}

/// One figure on a line, its name in front.
pub(crate) fn print(accounts: &Accounts, queue: &Queue<Job>) {
    let line = |name: &str, number: u64, what: &str| println!("{name:<14}{number:>8}  {what}");
    line("sent", accounts.sent, "jobs that arrived in the queue");
    line("done", accounts.done, "");
    line("redelivered", accounts.redelivered, "times a killed worker's job went to another, which did it");
    line("dead letters", accounts.dead_letters, "refused, or too many workers died with it");
    let waiting = queue.len() as u64;
    line("open", accounts.open, "sent, and neither done nor known to be a dead letter");
    line("  waiting", waiting, "of these: in the queue");
    line("  taken", accounts.open.saturating_sub(waiting), "of these: with a worker, or dropped before anybody looked");
    line("dropped", queue.dropped_letters().into(), "dead letters whose room a producer needed");
    line("being pushed", accounts.under_way, "with a producer, not sent yet");
    line("lost", accounts.lost, "with producers that were killed before they had pushed");
}

//! The demonstration: starts producers and workers, kills some of them all the time, and checks the accounts.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crosslane_shm::{Name, Options};

use crate::failure::{self, Failure};
use crate::ledger::Accounts;
use crate::{meeting, status, work};

const PRODUCERS: usize = 3;
const WORKERS: usize = 3;
/// How long a job takes, in microseconds.
const MICROS: u64 = 150;
/// Each so-manieth job is refused.
const REFUSED: u32 = 1000;
/// Between two kills.
const TICK: Duration = Duration::from_millis(20);
/// How long the processes may take to end in order, and the kernel to end a killed one.
const ENDING: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

pub(crate) fn run(directory: &Path, options: &Options, seconds: f64) -> Result<(), Failure> {
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(Failure::Seconds(seconds));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::Start(std::io::Error::other(error)))?;

    let name = format!("work_queue-{}", Name::random().as_str());
    // Dropped in reverse: the processes end before the names go.
    let meeting = meeting::create(&name, options)?;
    let (queue, ledger) = (&*meeting.queue, &**meeting.ledger);
    let domain = queue.segment().domain().ok_or(crosslane_shm::DomainError::Forked)?;
    println!("{PRODUCERS} producers and {WORKERS} workers; one of them is killed every {TICK:?}, for {seconds} s");
    let mut crew = Crew::start(&name, directory)?;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        thread::sleep(TICK);
        crew.kill_one()?;
        // Not needed: a worker that waits finds the dead by itself. But sooner is better, and this process knows.
        domain.reap()?;
        status::letters(queue, ledger, true)?;
    }
    queue.close();
    crew.finish()?;
    // What the last victims held, should the workers have ended before it came back.
    let end = Instant::now() + ENDING;
    let accounts = loop {
        domain.reap()?;
        while let Ok(delivery) = queue.try_take() {
            work::one(delivery, ledger, Duration::ZERO);
        }
        status::letters(queue, ledger, true)?;
        let accounts = ledger.accounts(domain);
        if accounts.open <= u64::from(queue.dropped_letters()) || Instant::now() > end {
            break accounts;
        }
    };
    status::print(&accounts, queue);
    let [producers, workers] = crew.killed;
    println!("killed: {producers} producers and {workers} workers");
    check(&accounts, queue.dropped_letters().into(), crew.killed)?;
    println!("the accounts agree: each job that was sent was done, or is a dead letter");
    Ok(())
}

fn check(accounts: &Accounts, dropped: u64, [producers, workers]: [u64; 2]) -> Result<(), Failure> {
    let Accounts { sent, done, redelivered, dead_letters, open, under_way, lost } = *accounts;
    let mut wrong = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    demand(sent > 0 && producers + workers > 0, "nothing was sent, or nobody killed".into());
    // A letter that is dropped before anybody has looked at it is noted nowhere but in the queue's count.
    demand(open <= dropped, format!("{open} jobs were sent and are nowhere, and {dropped} letters were dropped"));
    demand(under_way == 0, format!("{under_way} jobs are being pushed, and no producer is left"));
    let ended = done + dead_letters + open;
    demand(sent == ended, format!("{sent} jobs sent, {done} done and {dead_letters} dead letters"));
    demand(lost <= producers, format!("{lost} jobs lost with {producers} dead producers, which push one at a time"));
    demand(redelivered <= workers, format!("{redelivered} deliveries again after {workers} dead workers"));
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Accounts(wrong)) }
}

/// The other processes; dropping kills and reaps those that still run.
struct Crew {
    name: String,
    directory: std::path::PathBuf,
    members: Vec<(Part, Child)>,
    /// Producers, workers.
    killed: [u64; 2],
    draws: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Producer,
    Worker,
}

impl Crew {
    fn start(name: &str, directory: &Path) -> Result<Self, Failure> {
        let (name, directory) = (name.into(), directory.to_path_buf());
        let mut crew = Self { name, directory, members: Vec::new(), killed: [0; 2], draws: 0 };
        for part in [[Part::Producer; PRODUCERS].as_slice(), &[Part::Worker; WORKERS]].concat() {
            let child = crew.spawn(part)?;
            crew.members.push((part, child));
        }
        Ok(crew)
    }

    fn spawn(&self, part: Part) -> Result<Child, Failure> {
        let mut command = Command::new(std::env::current_exe().map_err(Failure::Start)?);
        match part {
            Part::Producer => command.args(["produce", &self.name, "--refused", &REFUSED.to_string()]),
            Part::Worker => command.args(["work", &self.name, "--micros", &MICROS.to_string()]),
        };
        // Of a process group of its own: an interrupt at the terminal is the demonstration's, which ends the others.
        command.process_group(0);
        command.arg("--directory").arg(&self.directory).stdout(Stdio::null()).spawn().map_err(Failure::Start)
    }

    /// Kills one at random, at whatever instruction it is, and starts another in its place.
    fn kill_one(&mut self) -> Result<(), Failure> {
        self.draws += 1;
        let draw = RandomState::new().hash_one(self.draws);
        let which = usize::try_from(draw % self.members.len() as u64).unwrap_or(0);
        let (part, child) = &mut self.members[which];
        let part = *part;
        child.kill().map_err(Failure::Start)?;
        let status = child.wait().map_err(Failure::Start)?;
        if status.signal() == Some(SIGKILL) {
            self.killed[part as usize] += 1;
        } else if !status.success() {
            return Err(Failure::Role { role: part.name(), status });
        }
        self.members[which].1 = self.spawn(part)?;
        Ok(())
    }

    /// Waits until all have ended in order.
    fn finish(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + ENDING;
        for (part, child) in &mut self.members {
            let status = loop {
                match child.try_wait().map_err(Failure::Start)? {
                    Some(status) => break status,
                    None if Instant::now() > end => {
                        return Err(Failure::Accounts(vec![format!("a {} does not end", part.name())]));
                    }
                    None => thread::sleep(Duration::from_millis(1)),
                }
            };
            // One that was started last may have come when the queue was closed already.
            if !status.success() && status.code() != Some(failure::CLOSED.into()) {
                return Err(Failure::Role { role: part.name(), status });
            }
        }
        Ok(())
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for (_, child) in &mut self.members {
            // Both fail only for a child that has been reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

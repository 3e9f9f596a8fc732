//! The collector: makes the segments, starts the other roles, shows how far they are, and prints what came of it.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crosslane_shm::{CreateError, Mutex, Owner, Record};
use hdrhistogram::serialization::Deserializer;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::files::{self, Files, Read};
use super::table::{self, Counts, Shared, Table};
use super::{Args, Role, counter};

const TOP: usize = 20;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const TICK: Duration = Duration::from_millis(20);
/// How often the killer looks, and for how long at most it then waits.
const KILL_TICK: Duration = Duration::from_millis(1);
const KILL_WITHIN_NS: u64 = 4_000_000;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::Start(std::io::Error::other(error)))?;

    let found = Files::below(&args.path, args.all)?;
    // Dropped in reverse: the roles end before their segments lose their names.
    let rings = (0..args.counters).map(|index| ring(args, index)).collect::<Result<Vec<_>, _>>()?;
    let owner = owned_table(args)?;
    let table = table::trusted(&owner).map_err(|error| Failure::Open { what: "table".into(), error })?;
    let mut roles = if args.by_hand { by_hand(args) } else { Roles::start(args)? };

    let mut killer = Killer::new(args);
    let bar = ProgressBar::new(found.total_bytes()).with_style(style());
    let ended = loop {
        thread::sleep(if args.kill_every.is_some() { KILL_TICK } else { TICK });
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        let ended = if args.by_hand { rings_are_done(&rings, &table)? } else { roles.ended()? };
        let totals = table::lock(&table)?.totals;
        bar.set_position(totals.bytes);
        killer.look(&mut roles, args, totals.lines)?;
        if ended {
            break table::lock(&table)?;
        }
    };
    bar.finish_and_clear();
    // Whoever reads the result may have had enough of it (`| head`): that is no failure.
    let out = &mut io::stdout().lock();
    quietly(report(&ended, out))?;
    if args.kill_every.is_some() {
        quietly(writeln!(out, "{} counters were killed and replaced", HumanCount(killer.killed)))?;
    }
    if args.check {
        let words = check(&ended, &found)?;
        quietly(writeln!(out, "check: all {} words have the same count in one process", HumanCount(words)))?;
    }
    match ended.unreadable_files {
        0 => Ok(()),
        files => Err(Failure::Unreadable { files }),
    }
}

fn ring(args: &Args, index: u32) -> Result<Owner<Record>, Failure> {
    let name = args.ring(index)?;
    Record::create(&name, args.ring_bytes, &args.options())
        .map_err(|error| create_failure(format!("ring {name}"), error))
}

fn owned_table(args: &Args) -> Result<Owner<Mutex<Table>>, Failure> {
    let name = args.table()?;
    Mutex::create_zeroed(&name, &args.options()).map_err(|error| create_failure(format!("table {name}"), error))
}

fn create_failure(what: String, error: CreateError) -> Failure {
    Failure::Create { what, error }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}").expect("a constant template")
}

/// The other processes; dropping kills and reaps those that still run.
struct Roles(Vec<(String, Child)>);

impl Roles {
    fn start(args: &Args) -> Result<Self, Failure> {
        let mut roles = Self(Vec::new());
        for index in 0..args.counters {
            roles.spawn(format!("counter {index}"), args, Role::Counter, index)?;
        }
        roles.spawn("reader".into(), args, Role::Reader, 0)?;
        Ok(roles)
    }

    fn spawn(&mut self, what: String, args: &Args, role: Role, index: u32) -> Result<(), Failure> {
        self.0.push((what, started(args, role, index)?));
        Ok(())
    }

    /// Whether all have ended in order.
    fn ended(&mut self) -> Result<bool, Failure> {
        let mut all = true;
        for (role, child) in &mut self.0 {
            match child.try_wait().map_err(Failure::Start)? {
                None => all = false,
                Some(status) if status.success() => {}
                // The terminal interrupts the whole group, and a role may be faster than this process.
                Some(status) if status.signal() == Some(SIGINT) => return Err(Failure::Interrupted),
                Some(status) => {
                    let code = status.code().and_then(|code| u8::try_from(code).ok());
                    if code.is_none() {
                        eprintln!("pipeline: the {role} was ended by {status}");
                    }
                    return Err(Failure::Role { role: role.clone(), code: code.unwrap_or(8) });
                }
            }
        }
        Ok(all)
    }
}

/// Kills counters, in turn, by how many records were counted since the last kill: so there is progress in between.
struct Killer {
    every: Option<u64>,
    next: u64,
    victim: usize,
    killed: u64,
}

impl Killer {
    fn new(args: &Args) -> Self {
        let every = args.kill_every.map(|thousands| thousands.get().saturating_mul(1000));
        Self { every, next: every.unwrap_or(u64::MAX), victim: 0, killed: 0 }
    }

    /// Kills one and starts its successor, if it is time.
    fn look(&mut self, roles: &mut Roles, args: &Args, records: u64) -> Result<(), Failure> {
        let Some(every) = self.every.filter(|_| records >= self.next) else { return Ok(()) };
        self.next = records.saturating_add(every);
        let counters = args.counters as usize;
        self.victim = (self.victim + 1) % counters;
        // At once, the victim is often between a batch's unlock and the release of its records; some time later it may
        // have the lock, which this process had just now.
        let random = RandomState::new().hash_one(records);
        if random.is_multiple_of(2) {
            thread::sleep(Duration::from_nanos(random % KILL_WITHIN_NS));
        }
        // The counters were started first.
        let (role, child) = &mut roles.0[self.victim];
        child.kill().map_err(Failure::Start)?;
        let status = child.wait().map_err(Failure::Start)?;
        // One that ended before the signal came has nothing left to be done.
        if status.signal() == Some(SIGKILL) {
            self.killed += 1;
            *child = started(args, Role::Counter, u32::try_from(self.victim).unwrap_or(0))?;
        } else if !status.success() {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Err(Failure::Role { role: role.clone(), code: code.unwrap_or(8) });
        }
        Ok(())
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // Both fail only for a child that has been reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn started(args: &Args, role: Role, index: u32) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(Failure::Start)?;
    Command::new(program).args(arguments(args, role, index)).spawn().map_err(Failure::Start)
}

fn arguments(args: &Args, role: Role, index: u32) -> Vec<std::ffi::OsString> {
    let role = if role == Role::Reader { "reader" } else { "counter" };
    let mut list: Vec<std::ffi::OsString> = Vec::new();
    list.extend(["--role", role, "--name", &args.name].map(Into::into));
    list.extend(["--index".into(), index.to_string().into(), "--counters".into(), args.counters.to_string().into()]);
    list.extend(["--ring-bytes".into(), args.ring_bytes.to_string().into()]);
    list.extend(["--directory".into(), args.directory.clone().into()]);
    if args.all {
        list.push("--all".into());
    }
    if let Some(thousands) = args.kill_every {
        list.extend(["--kill-every".into(), thousands.to_string().into()]);
    }
    list.extend(["--".into(), args.path.clone().into()]);
    list
}

fn by_hand(args: &Args) -> Roles {
    println!("start in other terminals, in any order:");
    let program = std::env::current_exe().unwrap_or_else(|_| "pipeline".into());
    let counters = (0..args.counters).map(|index| (Role::Counter, index));
    for (role, index) in counters.chain([(Role::Reader, 0)]) {
        let words = arguments(args, role, index);
        println!("  {} {}", program.display(), words.join(" ".as_ref()).display());
    }
    Roles(Vec::new())
}

/// Without children to wait for: done when every counter has left its histogram.
fn rings_are_done(rings: &[Owner<Record>], table: &Shared) -> Result<bool, Failure> {
    Ok(table::lock(table)?.latencies().count() == rings.len())
}

fn report(table: &Table, out: &mut impl Write) -> io::Result<()> {
    let mut words: Vec<_> = table.words().collect();
    words.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    for (word, count) in words.iter().take(TOP) {
        writeln!(out, "{:>12}  {}", HumanCount(*count).to_string(), String::from_utf8_lossy(word))?;
    }
    let seconds = Duration::from_nanos(table.last_ns.saturating_sub(table.first_ns)).as_secs_f64().max(1e-9);
    writeln!(
        out,
        "{} words, {} different, in {} lines of {} files ({} binary files left out)",
        HumanCount(words.iter().map(|(_, count)| count).sum()),
        HumanCount(words.len() as u64),
        HumanCount(table.totals.lines),
        HumanCount(table.files - table.binary_files),
        table.binary_files,
    )?;
    #[expect(clippy::cast_precision_loss, reason = "only printed")]
    let (lines, bytes) = (table.totals.lines as f64 / seconds, table.totals.bytes as f64 / seconds / 1e6);
    writeln!(out, "{} in {seconds:.3} s: {lines:.0} lines/s, {bytes:.1} MB/s", HumanBytes(table.totals.bytes))?;

    let mut latency = counter::histogram();
    for mut bytes in table.latencies() {
        let one = Deserializer::new().deserialize::<u64, _>(&mut bytes);
        if one.map(|one| latency.add(one)).is_err() {
            writeln!(out, "a histogram of the time in the ring does not decode")?;
        }
    }
    if !latency.is_empty() {
        let us = |ns: u64| Duration::from_nanos(ns);
        writeln!(
            out,
            "a record's time in the ring: p50 {:?}, p99 {:?}, max {:?}",
            us(latency.value_at_quantile(0.5)),
            us(latency.value_at_quantile(0.99)),
            us(latency.max())
        )?;
    }
    Ok(())
}

/// A reader that has gone is no failure.
fn quietly(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

/// Counts again in this process, and compares.
fn check(table: &Table, found: &Files) -> Result<u64, Failure> {
    let mut counts = Counts::default();
    for (path, _) in &found.readable {
        let read = files::lines(path, |line, _| {
            for word in files::words(line) {
                *counts.entry(word.into()).or_default() += 1;
            }
            Ok::<(), std::convert::Infallible>(())
        });
        // What cannot be read here could not be read there, and was reported.
        let Ok(Ok(Read::Text | Read::Binary)) = read else { continue };
    }
    let shared: Counts = table.words().map(|(word, count)| (word.into(), count)).collect();
    let differ = |ours: &Counts, theirs: &Counts| ours.iter().filter(|(word, n)| theirs.get(*word) != Some(n)).count();
    match differ(&counts, &shared).max(differ(&shared, &counts)) {
        0 => Ok(counts.len() as u64),
        words => Err(Failure::Differs { words }),
    }
}

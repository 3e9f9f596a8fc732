//! The sweep with victims that the driver has spawned, for what is handed to processes: the victim is a program that was
//! executed anew, unpacks its arguments, and answers; the driver is its parent, which joins it, and a survivor.
//!
//! The page through which a victim is told its point travels as the first argument, a [`Knife`]. It may be drawn in the
//! victim's function, around one operation; while the arguments behind it are unpacked ([`Drawn`]); or from the function's
//! end to the end of the process ([`Knife::to_the_end`]).
//!
//! At each point nothing may be left in the driver: no descriptor, no child.

use core::time::Duration;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::Instant;

use crosslane::{Descriptor, Error, Portable, Process};
use crosslane_tests::control::Control;
use crosslane_tests::mapping::Mapping;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Bad, Ended, Plan, Role, sweep_by};
use crosslane_tests::{child, trap, watchdog};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Wanted;
use crate::cast::LeasedHome;

/// The longest that a sound wait takes: to spawn a victim, for its end, of its survivors. A seeded bug's survivor waits in
/// vain for less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a victim's argument is to be struck with.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Knife(Descriptor);

/// A knife that is drawn where it is unpacked: the arguments behind it are unpacked under it, until [`trap::end`].
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Drawn(pub(crate) Knife);

impl Knife {
    fn control(&self) -> &'static Control {
        let file = File::from(self.0.0.try_clone().expect("a descriptor more"));
        // A victim needs it until its end.
        Control::of(Box::leak(Box::new(Mapping::of_file(&file, size_of::<Control>()))))
    }

    /// Runs `operation` when the driver says so.
    pub(crate) fn under<O>(&self, operation: impl FnOnce() -> O) -> O {
        let control = self.control();
        control.ready_and_wait();
        trap::under_knife(control, operation)
    }

    /// Steps from here, when the driver says so, to the end of the process.
    pub(crate) fn to_the_end(&self) {
        let control = self.control();
        control.ready_and_wait();
        trap::begin(control);
    }
}

impl<'de> Deserialize<'de> for Knife {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        watchdog::do_not_spin();
        Descriptor::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Drawn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let knife = Knife::deserialize(deserializer)?;
        knife.to_the_end();
        Ok(Self(knife))
    }
}

/// How a victim has ended: what joining it gave.
pub(crate) type Answer<R> = Result<R, Error>;

/// One point's play.
pub(crate) trait Story: Send {
    /// What the victim's function returns.
    type Output: Portable + Send;

    /// Spawns the victim.
    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<Self::Output>>;

    /// In a thread of the driver's that sleeps before the victim begins, with [`Role::PeersAsleep`].
    ///
    /// # Errors
    /// What went wrong, in words.
    fn attend(&mut self) -> Result<(), String> {
        Err("the story has no part for a sleeper".into())
    }

    /// While the victim sleeps: gives it what it waits for.
    fn rouse(&mut self) {}

    /// At the end, the victim having been joined: finishes, and checks the invariants.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn survive(self, answer: Answer<Self::Output>) -> Result<(), String>;
}

/// Plays `make`'s story at every point of `plan`, and adds the row.
pub(crate) fn tell<S: Story>(wanted: &Wanted, table: &mut Table, plan: &Plan, mut make: impl FnMut() -> S) {
    if !wanted.is(plan.name) || !LeasedHome::lets_sleep(plan.role) {
        return;
    }
    let file = page_file();
    let page = Mapping::of_file(&file, size_of::<Control>());
    let control = Control::of(&page);
    // What the family makes once, and keeps, is nobody's leak.
    drop(crosslane::Value::new(0_u64));
    drop(crosslane::spawn(|_: Descriptor| (), Descriptor(file.try_clone().expect("a descriptor more").into())));
    let row = sweep_by(plan, wanted.effort, control, || {
        let before = open_fds();
        let knife = Knife(Descriptor(file.try_clone().expect("a descriptor more").into()));
        let ended = play(plan, control, knife, make())?;
        let (after, children) = (open_fds(), crosslane::active_children().len());
        match (after == before, children) {
            (true, 0) => Ok(ended),
            _ => Err((ended, format!("left behind: descriptors {before} -> {after}, {children} children"))),
        }
    });
    table.add(row);
}

fn page_file() -> File {
    // SAFETY: a C string, and no flag that needs more.
    let fd = unsafe { libc::memfd_create(c"knife".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: just opened, owned by nobody else.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a directory of the kernel's").count()
}

fn play<S: Story>(plan: &Plan, control: &Control, knife: Knife, mut story: S) -> Result<Ended, Bad> {
    let fail = |why: String| (Ended::Struck, why);
    if plan.role.sleeps() {
        // So that it sleeps nowhere but in its operation.
        control.start();
    }
    let mut victim = story.start(knife).map_err(|error| fail(format!("spawn: {error}")))?;
    if !control.wait_ready(PATIENCE) {
        let answer = victim.join_timeout(Duration::ZERO).map(|answer| answer.is_some());
        return Err(fail(format!("the victim could not prepare: {answer:?}")));
    }
    let mut ended = None;
    let mut attended = Ok(());
    let answer = if matches!(plan.role, Role::PeersAsleep(_)) {
        thread::scope(|scope| {
            let sleeper = Sleeper::start(scope, &mut story);
            control.start();
            let answer = victim.join_timeout(PATIENCE);
            attended = sleeper.and_then(Sleeper::join);
            answer
        })
    } else {
        if plan.role.sleeps() && await_sleep(&victim) {
            if plan.role == Role::Asleep {
                victim.kill().map_err(|error| fail(format!("kill: {error}")))?;
                ended = Some(Ended::Asleep);
            } else {
                control.count();
                story.rouse();
            }
        }
        control.start();
        victim.join_timeout(PATIENCE)
    };
    let answer = match answer {
        Ok(None) => return Err(fail("the victim hangs".into())),
        Ok(Some(output)) => Ok(output),
        Err(error) => Err(error),
    };
    let ended = match (ended, how_it_ended(victim.exit_status(), &answer)) {
        (Some(asleep), Ok(_)) => asleep,
        (None, Ok(ended)) => ended,
        (_, Err(why)) => return Err(fail(why)),
    };
    drop(victim);
    attended.and_then(|()| story.survive(answer)).map(|()| ended).map_err(|why| (ended, why))
}

/// Struck or through; its exit status and what it answered must agree.
fn how_it_ended<R>(status: Option<ExitStatus>, answer: &Answer<R>) -> Result<Ended, String> {
    let told = answer.as_ref().map(|_| "a result");
    match status.ok_or("nobody knows how it ended")? {
        status if status.signal() == Some(libc::SIGKILL) => match answer {
            // It may have answered before.
            Ok(_) => Ok(Ended::Struck),
            Err(Error::Died { status: died, .. }) if *died == status => Ok(Ended::Struck),
            Err(error) => Err(format!("it was killed, and join said: {error}")),
        },
        status if status.success() && answer.is_ok() => Ok(Ended::Completed),
        status => Err(format!("the victim failed: {status}, {told:?}")),
    }
}

/// A thread of the driver's that plays a part of the story.
struct Sleeper<'scope>(thread::ScopedJoinHandle<'scope, Result<(), String>>);

impl<'scope> Sleeper<'scope> {
    /// Starts it, and waits until it sleeps.
    fn start<'env, S: Story>(scope: &'scope thread::Scope<'scope, 'env>, story: &'scope mut S) -> Result<Self, String> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sleeper = scope.spawn(move || {
            // SAFETY: a plain call.
            let _ = sender.send(unsafe { libc::gettid() });
            story.attend()
        });
        let tid = receiver.recv().map_err(|_| "the sleeper is gone")?;
        let start = Instant::now();
        let call = format!("/proc/self/task/{tid}/syscall");
        while !child::sleeps_in_futex(&call, None).unwrap_or(false) {
            if sleeper.is_finished() || start.elapsed() > PATIENCE {
                return Err(format!("the sleeper never fell asleep: {:?}", sleeper.join()));
            }
            thread::sleep(Duration::from_micros(30));
        }
        Ok(Self(sleeper))
    }

    fn join(self) -> Result<(), String> {
        self.0.join().unwrap_or_else(|_| Err("the sleeper panicked".into()))
    }
}

/// Waits until the victim sleeps in its operation; `false` if it ends before.
fn await_sleep<R>(victim: &Process<R>) -> bool {
    let (start, call) = (Instant::now(), format!("/proc/{}/syscall", victim.id()));
    while start.elapsed() < PATIENCE && victim.is_alive() {
        if child::sleeps_in_futex(&call, None).unwrap_or(false) {
            return true;
        }
        thread::sleep(Duration::from_micros(30));
    }
    false
}

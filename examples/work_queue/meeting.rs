//! How the processes find each other: a queue and a ledger of one name, made by whoever comes first.

use crosslane_shm::{Attached, CreateError, Name, OpenError, Options, Owner, Queue, Shared, sweep_name};

use crate::failure::Failure;
use crate::ledger::{Job, Ledger};

/// Jobs that may wait.
const SLOTS: u32 = 1024;

/// The queue and the ledger, as everybody has them.
pub(crate) struct Meeting {
    pub(crate) queue: Attached<Queue<Job>>,
    pub(crate) ledger: Attached<Shared<Ledger>>,
}

/// The same, as one process has them whose end removes the names.
pub(crate) struct Owned {
    pub(crate) queue: Owner<Queue<Job>>,
    pub(crate) ledger: Owner<Shared<Ledger>>,
}

struct Names {
    queue: Name,
    ledger: Name,
}

impl Names {
    fn of(name: &str) -> Result<Self, Failure> {
        Ok(Self { queue: Name::new(&format!("{name}-queue"))?, ledger: Name::new(&format!("{name}-ledger"))? })
    }
}

/// Opens both, or makes what is not there. What is made here stays when this process ends: the jobs belong to nobody.
pub(crate) fn join(name: &str, options: &Options) -> Result<Meeting, Failure> {
    let names = Names::of(name)?;
    let options = &options.clone().leave_dead(true);
    Ok(Meeting {
        queue: open_or_create(
            &names.queue,
            || Queue::open(&names.queue, options),
            || Queue::create(&names.queue, SLOTS, options),
        )?,
        ledger: open_or_create(
            &names.ledger,
            || Shared::open(&names.ledger, options),
            || Shared::create(&names.ledger, Ledger::new(), options),
        )?,
    })
}

/// Opens both, and makes nothing.
pub(crate) fn open(name: &str, options: &Options) -> Result<Meeting, Failure> {
    let names = Names::of(name)?;
    let failure = |what: &Name, error| match error {
        OpenError::NotFound => Failure::NoQueue { name: name.into() },
        error => Failure::Open { what: what.to_string(), error },
    };
    Ok(Meeting {
        queue: Queue::open(&names.queue, options).map_err(|error| failure(&names.queue, error))?,
        ledger: Shared::open(&names.ledger, options).map_err(|error| failure(&names.ledger, error))?,
    })
}

/// Makes both.
pub(crate) fn create(name: &str, options: &Options) -> Result<Owned, Failure> {
    let names = Names::of(name)?;
    let failure = |what: &Name, error| Failure::Create { what: what.to_string(), error };
    Ok(Owned {
        queue: Queue::create(&names.queue, SLOTS, options).map_err(|error| failure(&names.queue, error))?,
        ledger: Shared::create(&names.ledger, Ledger::new(), options).map_err(|error| failure(&names.ledger, error))?,
    })
}

/// Removes both, if nobody has them open.
pub(crate) fn remove(name: &str, options: &Options) -> Result<(), Failure> {
    let names = Names::of(name)?;
    let mut removed = 0;
    for what in [&names.queue, &names.ledger] {
        let swept = sweep_name(what, options);
        if let Some((what, error)) = swept.errors.into_iter().next() {
            return Err(Failure::Remove { what: what.to_string(), error });
        }
        if !swept.kept.is_empty() {
            return Err(Failure::InUse { name: name.into() });
        }
        removed += swept.removed.len();
    }
    if removed == 0 {
        return Err(Failure::NoQueue { name: name.into() });
    }
    println!("removed the queue {name}");
    Ok(())
}

/// Several may come first at once: one of them makes it, and the others find it then.
fn open_or_create<T>(
    name: &Name,
    open: impl Fn() -> Result<Attached<T>, OpenError>,
    create: impl Fn() -> Result<Owner<T>, CreateError>,
) -> Result<Attached<T>, Failure> {
    loop {
        match open() {
            Err(OpenError::NotFound) => {}
            Ok(opened) => return Ok(opened),
            Err(error) => return Err(Failure::Open { what: name.to_string(), error }),
        }
        match create() {
            // Somebody was faster, whether it lives or not. What is no segment at all does not open either.
            Err(CreateError::NameInUse { .. } | CreateError::NameLeft { .. }) => {}
            Ok(owner) => return Ok(owner.keep()),
            Err(error) => return Err(Failure::Create { what: name.to_string(), error }),
        }
    }
}

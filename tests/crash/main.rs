//! Kills a process at every instruction of every operation on shared memory; everybody else must go on.
//!
//! `cargo test -p crosslane-tests --test crash` takes some points of each case; `-- --full` (in release) all of them;
//! `-- --case TEXT` only the cases whose name contains TEXT, all points. A table of cases is printed at the end, and then
//! the seeded bugs, each of which must be found, and the same of glibc's primitives, which is counted for comparison.
//! `-- --markdown PATH` also writes the table there; `-- --documented PATH` fails if the table there names other cases.
//!
//! Some processes share the work, a section of cases at a time: most points are spent waiting for a lease or a death.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod account;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod awaited;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod call;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cast;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod channel;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod event;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod frozen;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod glibc;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod handed;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod held;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod latest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod ledger;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod locks;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod meetings;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod misfits;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod mpmc;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod mutex;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod names;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pipeline;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pipes;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod posix;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod queue;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod readers;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod reaper;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod recoverers;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod rings;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod shared;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod slab;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod spawned;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stopped;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod unawaited;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    // Some victims are spawned, and are this program.
    crosslane::init();
    sweep::run()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("skipped: the kill sweep needs the trap flag of x86-64 and Linux");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use sweep::Wanted;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sweep {
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use core::time::Duration;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use crosslane_tests::child::{Child, End};
    use crosslane_tests::document;
    use crosslane_tests::mapping::Mapping;
    use crosslane_tests::report::Table;
    use crosslane_tests::sweep::Effort;
    use crosslane_tests::watchdog;

    use crate::names::Directory;

    /// The longest that a whole run may take, on a machine that does much else.
    const LONGEST: Duration = Duration::from_secs(900);
    /// The fewest kill points of a full run, over all sound cases.
    const POINTS_FLOOR: u64 = 3_000;
    /// The fewest crash pairs of a full run, over all sound cases.
    const PAIRS_FLOOR: u64 = 100_000;

    /// What of it all is wanted.
    #[derive(Debug)]
    pub(crate) struct Wanted {
        /// How many points.
        pub(crate) effort: Effort,
        case: Option<String>,
        markdown: Option<PathBuf>,
        documented: Option<PathBuf>,
    }

    impl Wanted {
        /// Whether the case of this name is.
        #[must_use]
        pub(crate) fn is(&self, name: &str) -> bool {
            self.case.as_ref().is_none_or(|text| name.contains(text.as_str()))
        }

        fn from_args() -> Self {
            let mut wanted = Self { effort: Effort::Quick, case: None, markdown: None, documented: None };
            let mut args = std::env::args().skip(1);
            while let Some(arg) = args.next() {
                match arg.as_str() {
                    "--full" => wanted.effort = Effort::Full,
                    "--case" => {
                        wanted.effort = Effort::Full;
                        wanted.case = args.next();
                    }
                    "--markdown" => wanted.markdown = args.next().map(PathBuf::from),
                    "--documented" => wanted.documented = args.next().map(PathBuf::from),
                    // What cargo passes on to every test binary is not for this one.
                    _ => {}
                }
            }
            wanted
        }
    }

    /// Sweeps some cases; those with names in a directory use the one given.
    type Section = fn(&Wanted, &mut Table, &Path);

    /// Everything, as the table lists it.
    const SECTIONS: &[Section] = &[
        |wanted, table, _| crate::mutex::run(wanted, table),
        |wanted, table, _| crate::rings::run(wanted, table),
        |wanted, table, _| crate::held::run(wanted, table),
        |wanted, table, _| crate::mpmc::run(wanted, table),
        |wanted, table, _| crate::recoverers::run(wanted, table),
        |wanted, table, _| crate::event::run(wanted, table),
        |wanted, table, _| crate::locks::run(wanted, table),
        |wanted, table, _| crate::readers::run(wanted, table),
        |wanted, table, _| crate::meetings::run(wanted, table),
        |wanted, table, _| crate::slab::run(wanted, table),
        |wanted, table, _| crate::latest::run(wanted, table),
        |wanted, table, _| crate::call::run(wanted, table),
        |wanted, table, _| crate::mutex::leased(wanted, table),
        |wanted, table, _| crate::rings::leased(wanted, table),
        |wanted, table, _| crate::mpmc::leased(wanted, table),
        |wanted, table, _| crate::mpmc::shared(wanted, table),
        |wanted, table, _| crate::locks::leased(wanted, table),
        |wanted, table, _| crate::readers::leased(wanted, table),
        |wanted, table, _| crate::meetings::leased(wanted, table),
        |wanted, table, _| crate::latest::leased(wanted, table),
        |wanted, table, _| crate::call::leased(wanted, table),
        crate::names::run,
        crate::frozen::run,
        |wanted, table, _| crate::reaper::run(wanted, table),
        |wanted, table, _| crate::pipeline::run(wanted, table),
        |wanted, table, _| crate::pipes::run(wanted, table),
        |wanted, table, _| crate::handed::run(wanted, table),
        |wanted, table, _| crate::stopped::run(wanted, table),
        #[cfg(target_env = "gnu")]
        |wanted, table, _| crate::glibc::run(wanted, table),
    ];
    /// How many sweep at once. They wait more than they compute.
    const LANES: usize = 3;

    /// The drivers are children, so that their directories go away however they end.
    pub(crate) fn run() -> ExitCode {
        watchdog::restrain();
        watchdog::do_not_spin();
        let wanted = Wanted::from_args();
        let next = Mapping::new(size_of::<AtomicUsize>());
        let directories: Vec<_> = (0..LANES).map(Directory::new).collect();
        let lane = |directory: &Directory| Child::fork(|| drive(&wanted, &next, directory.path()));
        let mut lanes: Vec<Child> = directories.iter().map(lane).collect();
        let ends: Vec<_> = lanes.iter_mut().map(|lane| lane.wait(LONGEST)).collect();
        if ends.iter().any(|end| *end != Some(End::Exited(0))) {
            eprintln!("the sweep failed: {ends:?}");
            return ExitCode::FAILURE;
        }
        let mut table = Table::default();
        for section in 0..SECTIONS.len() {
            let mut files =
                directories.iter().filter_map(|directory| std::fs::read(rows(directory.path(), section)).ok());
            table.append(files.next().expect("every section was swept"));
        }
        if judge(&wanted, &table) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Where the rows of a section are left by who swept it.
    fn rows(directory: &Path, section: usize) -> PathBuf {
        directory.join(format!("rows-{section}"))
    }

    /// Sweeps what nobody else has begun, until nothing is left.
    fn drive(wanted: &Wanted, next: &Mapping, directory: &Path) -> i32 {
        // SAFETY: zeros are a counter, at the front of the mapping.
        let next = unsafe { next.at::<AtomicUsize>(0) };
        let names = directory.join("names");
        std::fs::create_dir(&names).expect("a new directory in one of our own");
        loop {
            let section = next.fetch_add(1, Relaxed);
            let Some(sweep) = SECTIONS.get(section) else { return 0 };
            let mut table = Table::default();
            sweep(wanted, &mut table, &names);
            std::fs::write(rows(directory, section), table.to_bytes()).expect("room for some rows");
        }
    }

    /// Prints the table; whether everything is as it must be.
    fn judge(wanted: &Wanted, table: &Table) -> bool {
        print!("{}", table.render());
        let (points, pairs) = (table.points("instruction"), table.points("pair"));
        println!("{points} kill points and {pairs} crash pairs of sound cases");
        let whole = wanted.effort == Effort::Full && wanted.case.is_none();
        let enough = !whole || (points >= POINTS_FLOOR && pairs >= PAIRS_FLOOR);
        if !enough {
            eprintln!("too little: {POINTS_FLOOR} kill points and {PAIRS_FLOOR} crash pairs are the least");
        }
        for (name, role) in table.ambiguous() {
            eprintln!("two cases are named {name} / {role}");
        }
        let compares = wanted.case.is_some() || table.compares();
        if !compares {
            eprintln!("none of the others' primitives is broken by any death: is anybody killed?");
        }
        let documented = is_documented(wanted, table, whole);
        enough && compares && documented && table.is_right()
    }

    fn libc_version() -> String {
        #[cfg(target_env = "gnu")]
        return crate::posix::version();
        #[cfg(not(target_env = "gnu"))]
        String::new()
    }

    /// Writes the document where it is wanted; whether the one that there must be names what was run.
    fn is_documented(wanted: &Wanted, table: &Table, whole: bool) -> bool {
        if let Some(path) = &wanted.markdown {
            std::fs::write(path, document::markdown(table, &libc_version())).expect("a file that can be written");
        }
        let Some(path) = &wanted.documented else { return true };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let stale = document::stale(&text, table, whole);
        for line in &stale {
            eprintln!("{}: {line}", path.display());
        }
        stale.is_empty()
    }
}

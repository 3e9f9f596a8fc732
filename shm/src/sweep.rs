//! Removing the named segments whose users are all dead.

use std::fs;
use std::path::Path;

use crate::name::Name;
use crate::options::Options;
use crate::sys::call::OsError;
use crate::sys::file;
use crate::takeover::{self, Vacated};

/// What a sweep did.
#[derive(Debug, Default)]
#[must_use]
pub struct Swept {
    /// Segments that nobody had open; their names are gone.
    pub removed: Vec<Name>,
    /// Segments that somebody has open, for reading only too, or is opening just now.
    pub kept: Vec<Name>,
    /// Names that could not be looked at or removed, and why.
    pub errors: Vec<(Name, OsError)>,
}

/// Sweeps `/dev/shm`: removes every named segment that nobody has open. See [`sweep_in`].
///
/// # Errors
/// [`OsError`] if the directory cannot be read.
pub fn sweep() -> Result<Swept, OsError> {
    sweep_in("/dev/shm")
}

/// Removes every named segment in `directory` that nobody has open. Does not block; about ten system calls for each file.
///
/// Files that are no segments of this format are left alone, and so are files that this process may not open: they are
/// their users' to sweep. Safe at any time, beside creators, openers and other sweeps.
///
/// # Errors
/// [`OsError`] if the directory cannot be read; trouble with one name is in [`Swept::errors`].
///
/// # Crash
/// A process killed inside leaves some names swept and some not.
pub fn sweep_in(directory: impl AsRef<Path>) -> Result<Swept, OsError> {
    let directory = directory.as_ref();
    let entries = fs::read_dir(directory).map_err(|error| OsError::from_io("opendir", &error))?;
    let mut swept = Swept::default();
    for entry in entries {
        let entry = entry.map_err(|error| OsError::from_io("readdir", &error))?;
        // A file whose name could not be a segment's is none.
        let Some(name) = entry.file_name().to_str().and_then(|text| Name::new(text).ok()) else { continue };
        match vacate(&entry.path()) {
            Err(error) if error.is_permission() => {}
            vacated => swept.note(name, vacated),
        }
    }
    Ok(swept)
}

/// Sweeps one name, in [`Options::directory`]: removes it if it leads to a segment that nobody has open. Does not block.
///
/// The name is in one of the lists of what is returned, or in none: then there is no such name, or it is no segment's.
///
/// # Crash
/// A process killed inside leaves the name or has removed it.
pub fn sweep_name(name: &Name, options: &Options) -> Swept {
    let mut swept = Swept::default();
    swept.note(name.clone(), vacate(&options.directory.join(name.as_str())));
    swept
}

fn vacate(path: &Path) -> Result<Vacated, OsError> {
    takeover::vacate(&file::c_path(path)?, false)
}

impl Swept {
    fn note(&mut self, name: Name, vacated: Result<Vacated, OsError>) {
        match vacated {
            Ok(Vacated::Removed) => self.removed.push(name),
            Ok(Vacated::Living { .. } | Vacated::Left { .. } | Vacated::Busy { .. }) => self.kept.push(name),
            Ok(Vacated::Gone | Vacated::Foreign) => {}
            Err(error) => self.errors.push((name, error)),
        }
    }
}

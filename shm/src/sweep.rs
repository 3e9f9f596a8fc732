//! Removing the named segments whose users are all dead.

use std::fs;
use std::path::Path;

use crate::name::Name;
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
        let vacated = file::c_path(&entry.path()).and_then(|path| takeover::vacate(&path, false));
        match vacated {
            Ok(Vacated::Removed) => swept.removed.push(name),
            Ok(Vacated::Living { .. } | Vacated::Left { .. } | Vacated::Busy { .. }) => swept.kept.push(name),
            Ok(Vacated::Gone | Vacated::Foreign) => {}
            Err(error) if error.is_permission() => {}
            Err(error) => swept.errors.push((name, error)),
        }
    }
    Ok(swept)
}

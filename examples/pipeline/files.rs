//! Which files are read, and their lines.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// A NUL among this many first bytes makes a file binary, as for git.
const TEXT_PROBE_BYTES: usize = 8 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// The files that PATH stands for, and those that nobody could look at.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) readable: Vec<(PathBuf, u64)>,
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
}

impl Files {
    /// PATH itself, or every file below it in the order of their names.
    pub(crate) fn below(path: &Path, all: bool) -> Result<Self, Failure> {
        let fail = |error| Failure::Path { path: path.to_owned(), error };
        let about = fs::metadata(path).map_err(fail)?;
        let mut files = Self::default();
        if about.is_dir() {
            // Only PATH itself is a failure of the whole; what lies below is reported and left out.
            fs::read_dir(path).map_err(fail)?;
            files.walk(path, all);
        } else {
            files.readable.push((path.to_owned(), about.len()));
        }
        Ok(files)
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.readable.iter().map(|(_, len)| len).sum()
    }

    fn walk(&mut self, directory: &Path, all: bool) {
        let entries = fs::read_dir(directory).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.unreadable.push((directory.to_owned(), error)),
        };
        if !all && entries.iter().any(|entry| entry.file_name() == "CACHEDIR.TAG") {
            return;
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if !all && entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match entry.metadata() {
                Ok(about) if about.is_dir() => self.walk(&entry.path(), all),
                Ok(about) if about.is_file() => self.readable.push((entry.path(), about.len())),
                Ok(_) => {}
                Err(error) => self.unreadable.push((entry.path(), error)),
            }
        }
    }
}

/// What came of reading a file.
pub(crate) enum Read {
    Text,
    Binary,
}

/// Hands every line of a text file to `each`, without its line feed, with its number from 1.
pub(crate) fn lines<E>(path: &Path, mut each: impl FnMut(&[u8], u64) -> Result<(), E>) -> io::Result<Result<Read, E>> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let start = file.fill_buf()?;
    if start[..start.len().min(TEXT_PROBE_BYTES)].contains(&0) {
        return Ok(Ok(Read::Binary));
    }
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if let Err(error) = each(&line, number) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(Read::Text))
}

/// The words of a line: runs of ASCII letters, digits and `_`, and of bytes from 128 on, so that words in UTF-8 stay
/// whole.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 128)).filter(|word| !word.is_empty())
}

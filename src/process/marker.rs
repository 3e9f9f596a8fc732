//! The environment variable by which a process knows that it was started to run a function.
//!
//! It says how the process takes over, the inode of the socket that is its standard input, and how deep it lies. A process
//! believes it only if its standard input *is* that socket, made by its own user, and never in a set-user-id program: a
//! variable that was inherited by accident, or forged, means nothing. It is left where it is, because to change the
//! environment is not safe once there are threads.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::fs::FileType;

/// Its name.
pub(crate) const VARIABLE: &str = "CROSSLANE_CHILD";

/// What the variable says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) entry: Entry,
    /// Of the child's end of the socket.
    pub(crate) inode: u64,
    pub(crate) depth: u32,
}

/// Where a child leaves the way of the program that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Before `main`.
    Hook,
    /// In `main`, by `init()`.
    Init,
    /// At the first of the two that it has.
    Any,
}

impl Marker {
    /// What the variable said when it was first looked at.
    pub(crate) fn of_this_process() -> Option<Self> {
        static MARKER: OnceLock<Option<Marker>> = OnceLock::new();
        *MARKER.get_or_init(|| Self::parse(&std::env::var_os(VARIABLE)?))
    }

    /// The variable's value.
    pub(crate) fn value(self) -> String {
        let entry = match self.entry {
            Entry::Hook => "hook",
            Entry::Init => "init",
            Entry::Any => "any",
        };
        format!("{entry}:{}:{}", self.inode, self.depth)
    }

    fn parse(value: &OsStr) -> Option<Self> {
        let mut words = value.to_str()?.split(':');
        let entry = match words.next()? {
            "hook" => Entry::Hook,
            "init" => Entry::Init,
            "any" => Entry::Any,
            _ => return None,
        };
        let marker = Self { entry, inode: words.next()?.parse().ok()?, depth: words.next()?.parse().ok()? };
        words.next().is_none().then_some(marker)
    }

    /// Whether it is for this process, which has not taken its call yet.
    pub(crate) fn is_for_us(self) -> bool {
        let stdin = io::stdin();
        let stdin = stdin.as_fd();
        !is_privileged()
            && rustix::fs::fstat(stdin).is_ok_and(|stat| {
                stat.st_ino == self.inode && FileType::from_raw_mode(stat.st_mode) == FileType::Socket
            })
            && rustix::net::sockopt::socket_peercred(stdin).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
    }
}

/// Whether the program has rights that its caller lacks: a set-user-id program, one with capabilities of its file's.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: reads a value that the kernel left for this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        for entry in [Entry::Hook, Entry::Init, Entry::Any] {
            let marker = Marker { entry, inode: u64::MAX, depth: 3 };
            assert_eq!(Marker::parse(OsStr::new(&marker.value())), Some(marker));
        }
    }

    #[test]
    fn anything_else_is_no_marker() {
        for value in ["", "hook", "hook:1", "hook:1:2:3", "main:1:2", "hook:x:2", "hook:1:-2", "hook:1:4294967296"] {
            assert_eq!(Marker::parse(OsStr::new(value)), None, "{value}");
        }
    }

    #[test]
    fn a_marker_is_believed_only_beside_its_socket() {
        let stat = rustix::fs::fstat(io::stdin()).unwrap();
        for inode in [stat.st_ino, 1, 0] {
            assert!(!Marker { entry: Entry::Hook, inode, depth: 1 }.is_for_us());
        }
    }
}

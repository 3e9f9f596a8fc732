//! A file descriptor as a value.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire;

/// A file descriptor that travels: as an argument or result of a function in another process, or through a
/// [`Connection`](crate::Connection). What arrives is a duplicate, closed with the value.
///
/// # Examples
/// ```
/// use std::io::{Read, Seek, Write};
/// use crosslane::Descriptor;
///
/// let (mut here, mut there) = crosslane::pipe::<Descriptor, ()>()?;
/// let file = tempfile()?;
/// here.send(&Descriptor(file.try_clone()?.into()))?;
/// let mut received = std::fs::File::from(there.recv()?.0);
/// received.write_all(b"written there")?;
/// received.rewind()?;
/// let mut text = String::new();
/// (&file).read_to_string(&mut text)?;
/// assert_eq!(text, "written there");
/// # fn tempfile() -> std::io::Result<std::fs::File> {
/// #     let path = std::env::temp_dir().join(format!("crosslane-descriptor-{}", std::process::id()));
/// #     let file = std::fs::File::options().read(true).write(true).create(true).open(&path)?;
/// #     std::fs::remove_file(path)?;
/// #     Ok(file)
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Descriptor(pub OwnedFd);

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wire::attach("Descriptor", self.0.as_fd())?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        wire::arrived(u32::deserialize(deserializer)?).map(Self)
    }
}

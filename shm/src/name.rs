//! Names of segments.

use std::fmt;

use crate::sys::random;

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// A name by which unrelated processes find a segment: 1 to [`MAX_NAME_BYTES`] of `A-Z a-z 0-9 . _ -`, not starting
/// with a dot.
///
/// Names are one flat space for each directory; in `/dev/shm` all programs of the machine share it, so start yours with
/// your program's name.
///
/// # Examples
/// ```
/// use crosslane_shm::{Name, NameError};
///
/// assert_eq!(Name::new("feed.prices").unwrap().as_str(), "feed.prices");
/// assert_eq!(Name::new("a/b"), Err(NameError::Character { found: '/', at_byte: 1 }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty.
    Empty,
    /// It is longer than [`MAX_NAME_BYTES`].
    TooLong {
        /// Its length, in bytes.
        len_bytes: usize,
    },
    /// It has a character that names must not have.
    Character {
        /// The character.
        found: char,
        /// Where it stands, in bytes from the start.
        at_byte: usize,
    },
    /// It starts with a dot.
    LeadingDot,
}

impl Name {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`NameError`], one variant for each rule.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { len_bytes: text.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((at_byte, found)) = text.char_indices().find(|&(_, c)| !allowed(c)) {
            return Err(NameError::Character { found, at_byte });
        }
        if text.starts_with('.') {
            return Err(NameError::LeadingDot);
        }
        Ok(Self(text.into()))
    }

    /// A private name, `crosslane-` and 32 random hexadecimal digits, for where a name is only a means.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("crosslane-{:032x}", u128::from_ne_bytes(random::bytes())).into())
    }

    /// The name that `shm_open` knows as `text`, which may start with a `/`: what Python's `SharedMemory.name` and the
    /// `shared_memory` crate's `get_os_id` give.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// assert_eq!(crosslane_shm::Name::posix("/psm_21467c46").unwrap().as_str(), "psm_21467c46");
    /// ```
    pub fn posix(text: &str) -> Result<Self, NameError> {
        Self::new(text.strip_prefix('/').unwrap_or(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name is empty"),
            Self::TooLong { len_bytes } => {
                write!(f, "the name has {len_bytes} bytes, and {MAX_NAME_BYTES} are the most")
            }
            Self::Character { found, at_byte } => {
                write!(f, "the name has {found:?} at byte {at_byte}: only A-Z a-z 0-9 . _ - are allowed")
            }
            Self::LeadingDot => f.write_str("the name starts with a dot"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_error() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(&"x".repeat(201)), Err(NameError::TooLong { len_bytes: 201 }));
        assert_eq!(Name::new("ab\0"), Err(NameError::Character { found: '\0', at_byte: 2 }));
        assert_eq!(Name::new("é"), Err(NameError::Character { found: 'é', at_byte: 0 }));
        assert_eq!(Name::new(".."), Err(NameError::LeadingDot));
        assert!(Name::new(&"x".repeat(200)).is_ok());
    }

    #[test]
    fn random_names_are_valid_and_differ() {
        let (a, b) = (Name::random(), Name::random());
        assert_ne!(a, b);
        assert_eq!(Name::new(a.as_str()), Ok(a));
    }
}

//! `Name` against a second reading of its rules, and what a valid name may mean as a path.

use std::path::{Component, Path};

use crosslane_shm::Name;
use crosslane_shm::name::MAX_NAME_BYTES;

/// Runs one input. Planted: a rule that takes `~` for an allowed character.
///
/// # Panics
/// When the rules differ, or a valid name is no plain file name.
pub fn run(data: &[u8], planted: bool) {
    let text = String::from_utf8_lossy(data);
    let allowed =
        |b: u8| matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-') || planted && b == b'~';
    let expected = (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed);
    let name = Name::new(&text);
    assert_eq!(name.is_ok(), expected, "{text:?}: {name:?}");
    match name {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            let components: Vec<_> = Path::new(name.as_str()).components().collect();
            assert!(matches!(components[..], [Component::Normal(part)] if part == &*text), "{text:?} is a path");
            assert_eq!(text.parse::<Name>().as_ref(), Ok(&name));
            assert_eq!(name.to_string(), text);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

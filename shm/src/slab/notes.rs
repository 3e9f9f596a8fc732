//! What this process has made or opened in a mapping, so that no two of its objects lie in the same bytes.
//!
//! A peer may write any entry of a slab, turn its head back, or write another header for a second opening. The objects of
//! other processes meet each other's bytes by their own protocols; but within one process the handles of two objects that overlap would access the same bytes as words of
//! different sizes, or lend what another one writes. So the first object that this process knows in some bytes is the
//! only one there, for as long as the memory is mapped. A slab counts as the object of its head and its directory.

use std::collections::BTreeMap;

use crate::content::Content;

/// How an object was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Find {
    /// It was just carved: nobody may have known its bytes.
    New,
    /// It was opened: this process may have it already.
    Any,
}

/// Objects by where they start, in bytes from the mapping's start. They do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<u64, Content>);

impl Notes {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Notes the object that starts at `offset`; `false` if another one is known in these bytes, or, for a `Find::New`,
    /// any.
    pub(crate) fn note(&mut self, offset: u64, content: &Content, find: Find) -> bool {
        let end = end_of(offset, content);
        // Of those that start before this one's end the last reaches furthest.
        match self.0.range(..end).next_back() {
            Some((start, known)) if *start == offset && known == content => find == Find::Any,
            Some((start, known)) if end_of(*start, known) > offset => false,
            _ => self.0.insert(offset, *content).is_none(),
        }
    }

    /// The objects that are known: where each starts, in bytes from the mapping's start, and what it is.
    pub(crate) fn objects(&self) -> Vec<(u64, Content)> {
        self.0.iter().map(|(offset, content)| (*offset, *content)).collect()
    }
}

/// Where the object's last word ends. An object without bytes has a word all the same, so that it is found here.
fn end_of(offset: u64, content: &Content) -> u64 {
    offset.saturating_add(content.len_bytes.max(1)).saturating_add(7) & !7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_one_object() {
        let mut notes = Notes::new();
        let object = |len| Content::bytes(len);
        let mut know = |offset, object: &_| notes.note(offset, object, Find::Any);
        assert!(know(128, &object(16)));
        assert!(know(128, &object(16)), "the same again");
        for (offset, len) in [(128, 8), (128, 24), (136, 8), (120, 16), (64, 1024), (143, 0), (140, 4)] {
            assert!(!know(offset, &object(len)), "{len} bytes at {offset}");
        }
        assert!(know(120, &object(8)));
        assert!(know(144, &object(0)));
        assert!(!know(144, &object(1)), "another object");
        assert!(know(152, &object(1)));
        assert!(!notes.note(152, &object(1), Find::New), "the same, carved anew");
        assert!(notes.note(160, &object(1), Find::New));
    }
}

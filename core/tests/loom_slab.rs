//! Every interleaving of carvers and readers of a slab, with a carver killed at every access.
#![cfg(crosslane_loom)]

use core::ptr::NonNull;

use crosslane_core::model::{Arc, check, check_deaths, thread, until_killed};
use crosslane_core::prim::{Word, copy_in, copy_out};
use crosslane_core::slab::{CarveError, Description, Directory, Entry, Extent, Head, LookError};

/// Length of the models' objects, in bytes: one word.
const WORD: u32 = 8;

/// A slab of four entries with room for three words.
struct World {
    head: Head,
    entries: [Entry; 4],
    room: [Word; 3],
}

impl World {
    fn new() -> Arc<Self> {
        let entries = std::array::from_fn(|_| Entry::default());
        Arc::new(Self { head: Head::default(), entries, room: std::array::from_fn(|_| Word::new(0)) })
    }

    fn slab(&self) -> Directory<'_> {
        Directory::new(&self.head, &self.entries, 3 * WORD)
    }

    fn word(&self, extent: Extent) -> NonNull<Word> {
        assert_eq!(extent.len_bytes, WORD);
        NonNull::from(&self.room[extent.offset_bytes as usize / 8])
    }

    /// Carves a word that holds `number`, and says so in its entry.
    fn carve(&self, number: u64) -> Result<(u32, Extent), CarveError> {
        let claim = self.slab().carve(WORD, WORD)?;
        let (extent, bytes) = (claim.extent(), number.to_ne_bytes());
        // SAFETY: a word of the room, which lives as long as the world.
        unsafe { copy_in(self.word(extent), bytes.as_ptr(), 8) };
        let index = claim.index();
        claim.commit(&description(number));
        Ok((index, extent))
    }

    /// The number of the object at `index`, which must be whole.
    fn read(&self, index: u32) -> Result<u64, LookError> {
        let (extent, found) = self.slab().look(index)?;
        let mut bytes = [0; 8];
        // SAFETY: a word of the room, which lives as long as the world.
        unsafe { copy_out(bytes.as_mut_ptr(), self.word(extent), 8) };
        let number = u64::from_ne_bytes(bytes);
        assert_eq!(found, description(number), "an entry and its object");
        Ok(number)
    }

    /// The numbers of all objects, in order of their entries.
    fn all(&self) -> Vec<u64> {
        (0..self.slab().taken()).filter_map(|index| self.read(index).ok()).collect()
    }
}

fn description(number: u64) -> Description {
    let word = u32::try_from(number).unwrap();
    Description { kind: word, wake: word, elem_size: word, elem_align: word, fingerprint: number, capacity: number }
}

#[test]
fn who_sees_an_entry_sees_its_object() {
    check("slab.entry", None, 58, || {
        let world = World::new();
        let carver = {
            let world = world.clone();
            thread::spawn(move || world.carve(7).unwrap())
        };
        match world.read(0) {
            Ok(number) => assert_eq!(number, 7),
            Err(error) => assert_eq!(error, LookError::Vacant { index: 0 }),
        }
        assert_eq!(carver.join().unwrap().0, 0);
        assert_eq!(world.read(0), Ok(7));
        assert_eq!(world.read(1), Err(LookError::Vacant { index: 1 }));
    });
}

#[test]
fn two_carvers_get_two_pieces() {
    check("slab.carvers", Some(3), 1_400, || {
        let world = World::new();
        let other = {
            let world = world.clone();
            thread::spawn(move || world.carve(1).unwrap())
        };
        let mine = world.carve(2).unwrap();
        let other = other.join().unwrap();
        assert_ne!(mine.0, other.0);
        assert_ne!(mine.1.offset_bytes, other.1.offset_bytes);
        assert_eq!((world.read(other.0), world.read(mine.0)), (Ok(1), Ok(2)));
    });
}

#[test]
fn the_last_piece_has_one_taker() {
    check("slab.last", Some(3), 360, || {
        let world = World::new();
        world.carve(1).unwrap();
        world.carve(2).unwrap();
        let other = {
            let world = world.clone();
            thread::spawn(move || world.carve(3).map(drop))
        };
        let both = [world.carve(3).map(drop), other.join().unwrap()];
        assert!(both.contains(&Ok(())) && both.contains(&Err(CarveError::Full)), "{both:?}");
        assert_eq!(world.all(), [1, 2, 3]);
    });
}

/// A carver dies before each of its accesses, beside another one: what it left is whole or not to be seen, and the other
/// goes on.
#[test]
fn a_dead_carver_leaves_a_hole_or_an_object() {
    check_deaths("slab.dead_carver", Some(2), 13, 2_100, |death| {
        let world = World::new();
        let victim = {
            let world = world.clone();
            thread::spawn(move || until_killed(death, || world.carve(1).unwrap()).is_some())
        };
        let mine = world.carve(2).unwrap().0;
        let completed = victim.join().unwrap();
        world.carve(3).unwrap();
        assert_eq!(world.read(mine), Ok(2));
        let all = world.all();
        assert_eq!(all.iter().filter(|number| [2, 3].contains(*number)).count(), 2, "{all:?}");
        assert_eq!(all.len(), if completed { 3 } else { 2 }, "{all:?}");
    });
}

//! Carving from a slab: a killed carver leaves a hole or a whole object, and slabs that are broken on purpose.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crosslane_core::Trusted;
use crosslane_core::prim::{copy_in, copy_out};
use crosslane_core::slab::{Description, Directory, Entry, Head};
use crosslane_shm::{Mutex, Options, Slab};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Scene, sweep};

use crate::Wanted;

const ENTRIES: usize = 8;
/// An object is a number, twice.
const OBJECT_BYTES: u32 = 16;
const ROOM_BYTES: u32 = 8 * OBJECT_BYTES;
/// Tries for what a killed process may hold: then it counts as a hang.
const TRIES: u32 = 1000;

/// A way to put an object into shared memory. All zero: nothing is taken.
trait Shelf {
    /// Carves an object of `number`, not 0.
    fn put(&self, number: u64) -> Result<(), String>;
    /// The numbers of all objects, each of which must be whole and by itself.
    fn all(&self) -> Result<Vec<u64>, String>;
}

#[derive(Debug)]
#[repr(C)]
struct Sound {
    head: Head,
    entries: [Entry; ENTRIES],
    room: [AtomicU64; ENTRIES * 2],
}

impl Sound {
    fn directory(&self) -> Directory<'_> {
        Directory::new(&self.head, &self.entries, ROOM_BYTES)
    }

    fn words(&self, offset: u32) -> NonNull<crosslane_core::prim::Word> {
        NonNull::from(&self.room[offset as usize / 8]).cast()
    }

    fn fill(&self, offset: u32, number: u64) {
        let bytes = [number.to_ne_bytes(), number.to_ne_bytes()].concat();
        // SAFETY: two words of the room, atomics that are accessed so by everybody.
        unsafe { copy_in(self.words(offset), bytes.as_ptr(), bytes.len()) };
    }
}

fn description(number: u64) -> Description {
    Description { kind: 1, capacity: number, ..Description::default() }
}

impl Shelf for Sound {
    fn put(&self, number: u64) -> Result<(), String> {
        let claim = self.directory().carve(OBJECT_BYTES, 16).map_err(|error| error.to_string())?;
        self.fill(claim.extent().offset_bytes, number);
        claim.commit(&description(number));
        Ok(())
    }

    fn all(&self) -> Result<Vec<u64>, String> {
        let (mut numbers, mut places) = (Vec::new(), Vec::new());
        for index in 0..self.directory().taken() {
            let Ok((extent, found)) = self.directory().look(index) else { continue };
            let mut bytes = [0; 16];
            // SAFETY: two words of the room, which the directory has checked.
            unsafe { copy_out(bytes.as_mut_ptr(), self.words(extent.offset_bytes), bytes.len()) };
            let [first, second] =
                [&bytes[..8], &bytes[8..]].map(|half| u64::from_ne_bytes(half.try_into().expect("8")));
            if first != second || first == 0 || found != description(first) || places.contains(&extent.offset_bytes) {
                return Err(format!("entry {index} at {}: {first}, {second}, {found:?}", extent.offset_bytes));
            }
            places.push(extent.offset_bytes);
            numbers.push(first);
        }
        Ok(numbers)
    }
}

/// Seeded: an entry can be seen before its object is whole.
#[derive(Debug)]
#[repr(transparent)]
struct CommitsFirst(Sound);

impl Shelf for CommitsFirst {
    fn put(&self, number: u64) -> Result<(), String> {
        let claim = self.0.directory().carve(OBJECT_BYTES, 16).map_err(|error| error.to_string())?;
        let offset = claim.extent().offset_bytes;
        claim.commit(&description(number));
        self.0.fill(offset, number);
        Ok(())
    }

    fn all(&self) -> Result<Vec<u64>, String> {
        self.0.all()
    }
}

/// Seeded: a count of objects behind a flag that nobody owns.
#[derive(Debug)]
#[repr(C)]
struct Flagged {
    is_busy: AtomicU64,
    sound: Sound,
}

impl Shelf for Flagged {
    fn put(&self, number: u64) -> Result<(), String> {
        let mut tries = 0;
        while self.is_busy.swap(1, SeqCst) != 0 {
            tries += 1;
            if tries > TRIES {
                return Err("the flag is up, and nobody says whose it is".into());
            }
        }
        let done = self.sound.put(number);
        self.is_busy.store(0, SeqCst);
        done
    }

    fn all(&self) -> Result<Vec<u64>, String> {
        self.sound.all()
    }
}

const BEFORE: u64 = 7;
const VICTIMS: u64 = 8;
const SURVIVORS: u64 = 9;

struct Play<'a, S> {
    shelf: &'a S,
    between: bool,
}

impl<S: Shelf> Scene for Play<'_, S> {
    fn operate(&mut self) {
        if let Err(why) = self.shelf.put(VICTIMS) {
            panic!("{why}");
        }
    }

    fn interlude(&mut self) -> Result<(), String> {
        self.between = true;
        self.shelf.all()?;
        self.shelf.put(SURVIVORS)
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        if !self.between {
            self.shelf.put(SURVIVORS)?;
        }
        let mut all = self.shelf.all()?;
        all.sort_unstable();
        let with: &[u64] = &[BEFORE, VICTIMS, SURVIVORS];
        let without: &[u64] = &[BEFORE, SURVIVORS];
        if all == with || (all == without && !completed) { Ok(()) } else { Err(format!("{all:?}")) }
    }
}

fn play<S: Shelf>(wanted: &Wanted, table: &mut Table, plan: &Plan) {
    if wanted.is(plan.name) {
        let memory = Mapping::new(size_of::<S>());
        table.add(sweep(plan, wanted.effort, || {
            memory.clear();
            // SAFETY: only integers in atomics: every bit pattern is one.
            let shelf: &S = unsafe { memory.at(0) };
            shelf.put(BEFORE).expect("an empty slab");
            Play { shelf, between: false }
        }));
    }
}

/// A dies carving, B dies carving, C carves and finds every object whole.
struct TwoDeaths<'a, S>(&'a S);

impl<S: Shelf> Drama for TwoDeaths<'_, S> {
    fn set_up(&mut self, _: usize) {
        self.0.put(BEFORE).expect("an empty slab");
    }

    fn first(&mut self) {
        let _ = self.0.put(VICTIMS);
    }

    fn second(&mut self) {
        let _ = self.0.put(VICTIMS + 2);
    }

    fn third(&mut self) -> Result<(), String> {
        self.0.put(SURVIVORS)?;
        let all = self.0.all()?;
        let is_whole = [BEFORE, SURVIVORS].iter().all(|number| all.iter().filter(|n| *n == number).count() == 1);
        if is_whole && all.len() <= 4 { Ok(()) } else { Err(format!("{all:?}")) }
    }
}

fn two_deaths<S: Shelf>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    if wanted.is(plan.name) {
        let memory = Mapping::new(size_of::<S>());
        // SAFETY: only integers in atomics: every bit pattern is one.
        let shelf: &S = unsafe { memory.at(0) };
        table.add(pairs(plan, wanted.effort, &memory, &mut TwoDeaths(shelf)));
    }
}

/// A mutex carved from a real segment: private image, note, copy and all.
struct Lock<'a> {
    slab: &'a Slab<Trusted>,
    joined: Option<Slab<Trusted>>,
    before: usize,
}

impl Scene for Lock<'_> {
    fn prepare(&mut self) {
        self.joined = self.slab.rejoin().ok();
    }

    fn operate(&mut self) {
        if let Some(slab) = &self.joined {
            drop(Mutex::in_slab(slab, [VICTIMS; 2]).expect("room"));
        }
    }

    fn survive(&mut self, completed: bool) -> Result<(), String> {
        drop(Mutex::in_slab(self.slab, [SURVIVORS; 2]).map_err(|error| error.to_string())?);
        let mut count = 0;
        for (id, _) in self.slab.objects() {
            let lock = Mutex::<[u64; 2], _>::from_slab(self.slab, id).map_err(|error| error.to_string())?;
            let value = *lock.try_lock().map_err(|error| error.to_string())?;
            if value != [VICTIMS; 2] && value != [SURVIVORS; 2] {
                return Err(format!("{id:?} holds {value:?}"));
            }
            count += 1;
        }
        let grown = count - self.before;
        if grown == 2 || (grown == 1 && !completed) { Ok(()) } else { Err(format!("{grown} objects more")) }
    }
}

/// A slab of a size that no case fills.
const SLAB_BYTES: u32 = 16 << 20;

/// Sweeps of carving, then of broken slabs.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    play::<Sound>(wanted, table, &Plan::new("slab: carve", 280));
    play::<Sound>(wanted, table, &Plan::new("slab: carve", 280).paused());
    two_deaths::<Sound>(wanted, table, PairPlan { name: "slab: carve", floor: 100_000, seeded: false });
    let plan = Plan::new("leased: mutex in a slab", 120).cut(Cut::Edges { stride: 11 });
    if wanted.is(plan.name) {
        let slab = Slab::anonymous(&Options::new().slab_bytes(SLAB_BYTES)).expect("a slab");
        table.add(sweep(&plan, wanted.effort, || Lock { slab: &slab, joined: None, before: slab.objects().count() }));
    }

    play::<CommitsFirst>(wanted, table, &Plan::new("slab that commits first", 1).seeded());
    play::<Flagged>(wanted, table, &Plan::new("slab behind a flag", 1).seeded());
    two_deaths::<CommitsFirst>(wanted, table, PairPlan { name: "slab that commits first", floor: 1, seeded: true });
}

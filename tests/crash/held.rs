//! Reads that are held until they are released: a reader killed in the middle has moved the whole batch or nothing of it. And
//! readers that hold wrongly.

use core::time::Duration;

use crosslane_core::end::ClaimError;
use crosslane_core::{Liveness, Wait, record};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::PairPlan;
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Plan, Role};

use crate::Wanted;
use crate::channel::{
    Channel, RECORD_BYTES, RECORD_RING_BYTES, SOUND, Stop, decode, encode, record_pop, record_push, record_ring,
};
use crate::rings::{Notes, Part, both_ends, play};

/// Releases the records of a batch one by one.
const ONE_BY_ONE: u8 = 1;
/// Releases what it should take back.
const RELEASES: u8 = 2;

/// The record ring, read in held batches with bug number `BUG`.
#[derive(Debug, Clone, Copy)]
struct Held<'m, const BUG: u8>(record::Ring<'m>);

type Reader<'m, E> = record::Reader<'m, E>;
type Batch<'r, 'm, E> = record::HeldBatch<'r, 'm, E>;

/// Reads `count` records into `batch`.
fn hold<E: Wait + Liveness>(batch: &mut Batch<'_, '_, E>, count: u64) -> Result<u64, Stop> {
    let mut first = None;
    for _ in 0..count {
        let mut bytes = [0; RECORD_BYTES];
        let len = batch.try_pop_into(&mut bytes).map_err(record_pop)?;
        let item = decode(len, bytes)?;
        first.get_or_insert(item);
    }
    first.ok_or(Stop::NotNow)
}

/// Holds `count` records, and releases them.
fn take<E: Wait + Liveness>(reader: &mut Reader<'_, E>, count: u64) -> Result<u64, Stop> {
    let mut batch = reader.hold_batch();
    let first = hold(&mut batch, count)?;
    batch.release();
    Ok(first)
}

/// Holds `count` records, and gives them back.
fn give_back<E: Wait + Liveness, const BUG: u8>(reader: &mut Reader<'_, E>, count: u64) -> Result<(), Stop> {
    let mut batch = reader.hold_batch();
    hold(&mut batch, count)?;
    if BUG == RELEASES {
        batch.release();
    } else {
        drop(batch);
    }
    Ok(())
}

impl<'m, const BUG: u8> Channel<'m> for Held<'m, BUG> {
    const ROOM: u64 = 5;
    const WHOLE_BATCHES: bool = true;
    type Producer<E: Wait + Liveness> = record::Writer<'m, E>;
    type Consumer<E: Wait + Liveness> = Reader<'m, E>;

    fn make(memory: &'m Mapping) -> Self {
        Self(record_ring(memory))
    }
    fn producer<E: Wait + Liveness>(self, env: E) -> Result<Self::Producer<E>, ClaimError> {
        self.0.writer(env)
    }
    fn consumer<E: Wait + Liveness>(self, env: E) -> Result<Self::Consumer<E>, ClaimError> {
        self.0.reader(env)
    }
    fn push<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64) -> Result<(), Stop> {
        end.try_push(&encode(item)).map_err(record_push)
    }
    fn push_wait<E: Wait + Liveness>(end: &mut Self::Producer<E>, item: u64, time: Duration) -> Result<(), Stop> {
        end.push_timeout(&encode(item), time).map_err(record_push)
    }
    fn pop<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<u64, Stop> {
        take(end, 1)
    }
    fn pop_wait<E: Wait + Liveness>(end: &mut Self::Consumer<E>, time: Duration) -> Result<u64, Stop> {
        let mut batch = end.hold_batch();
        let mut bytes = [0; RECORD_BYTES];
        let len = batch.pop_into_timeout(&mut bytes, time).map_err(record_pop)?;
        batch.release();
        decode(len, bytes)
    }
    fn pop_two<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<(), Stop> {
        if BUG == ONE_BY_ONE {
            take(end, 1)?;
            take(end, 1)?;
        } else {
            take(end, 2)?;
        }
        Ok(())
    }
    fn give_back<E: Wait + Liveness>(end: &mut Self::Consumer<E>) -> Result<(), Stop> {
        give_back::<E, BUG>(end, 2)?;
        take(end, 1)?;
        Ok(())
    }
    fn pop_some<E: Wait + Liveness>(end: &mut Self::Consumer<E>, count: u64) {
        // Fewer may be there.
        for count in (1..=count).rev() {
            if give_back::<E, BUG>(end, count).is_ok() && take(end, count).is_ok() {
                return;
            }
        }
    }
}

/// Sweeps of held reads, then of wrong ones.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    use Role::{Alone, Asleep, JustWoken, PeersAsleep};
    let (memory, notes) = (Mapping::new(RECORD_RING_BYTES), Mapping::new(size_of::<Notes>()));
    let (m, n) = (&memory, &notes);
    let cases: [(&str, Part, &[Role]); 3] = [
        ("record: hold, release", Part::PopTwo, &[Alone, PeersAsleep(1)]),
        ("record: hold, waiting", Part::PopWait, &[Asleep, JustWoken]),
        ("record: hold, give back", Part::GiveBack, &[Alone]),
    ];
    for (name, part, roles) in cases {
        for role in roles {
            play::<Held<'_, SOUND>>(wanted, table, m, n, &Plan::new(name, 100).role(*role), part);
        }
    }
    let plan = PairPlan { name: "record: held reads", floor: 100_000, seeded: false };
    both_ends::<Held<'_, SOUND>>(wanted, table, plan, RECORD_RING_BYTES);
    let seed = |name| Plan::new(name, 1).seeded();
    play::<Held<'_, ONE_BY_ONE>>(wanted, table, m, n, &seed("held, released singly"), Part::PopTwo);
    play::<Held<'_, RELEASES>>(wanted, table, m, n, &seed("held, not given back"), Part::GiveBack);
}

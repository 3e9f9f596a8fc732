//! The reaper: repairs whatever dead participants held in the segments that this process has mapped, and wakes whoever
//! waits there.
//!
//! # What
//! There is no reaper process. Whoever learns of a death does the work for the segments that it has mapped: the prover
//! of the death, everybody whom the `deaths` word wakes, and whoever asks ([`Domain::reap`],
//! [`Segment::reap`](crate::Segment::reap)). It looks for *all* participants whose death is on record, and not for a
//! particular one, so a later death repairs what an earlier reaper left undone.
//!
//! | kind | repaired | woken |
//! |---|---|---|
//! | a queue, of items or messages | slots that name the dead: skipped, or to be delivered again | producers, consumers |
//! | an spsc or record ring | nothing: an end keeps its dead owner's name until a successor claims it | both ends: they see `PeerDied` |
//! | a newest value | nothing: its writer's end as above | readers: they see `WriterDied` |
//! | a mutex | nothing: the word keeps the dead owner's name until a waiter takes over | one waiter, which takes over as `OwnerDied` and wakes the next |
//! | a reentrant lock, work done once | the same | the same |
//! | a reader-writer lock | readers' words that name the dead: free | a writer that waits for readers, and one at the gate |
//! | a bounded semaphore | permits that name the dead: free | all who wait |
//! | a barrier | broken, if the dead was a party | all who wait |
//! | calls | nothing: the end keeps its dead server's name until a successor claims it | the server; a dead one's clients: they see `PeerDied` |
//! | a condition, a flag, a counting semaphore | nothing | all who wait: they look again |
//! | others | nothing | nobody |
//! | a slab | each object in it that this process has carved or opened | as theirs |
//!
//! Waiting calls need none of this to be right: each probes the one whom it waits for when its slice ends, and repairs what
//! it meets. The reaper makes it quick, wakes those whom the dead should have woken, and frees what nobody waits for.
//!
//! # Protocol
//! Tell (`domain.rs`, probe 5): 1. mark the death in the table; 2. bump `deaths`; 3. wake all who sleep on it.
//!
//! Keep up ([`keep_up`]), after a proof, and after a sleep in which `deaths` was bumped:
//! 1. read `deaths`; take that number as acted upon (one word per process and domain); it was already: done;
//! 2. inside the gate, list the segments of the domain that this process has mapped; leave the gate;
//! 3. for each object in each of them: CAS the words that name somebody whose death is on record, each from exactly the dead
//!    word; then wake its sleepers.
//!
//! Nothing is held over 3 but the mappings: no lock, no gate, no word in shared memory. The table alone says who is dead there,
//! so it makes no proof, and a proof never leads to another: no recursion, although `keep_up` runs inside the waits of locks,
//! rings and queues.
//!
//! # Orderings
//! `domain.deaths` and `domain.proof` of `domain.rs`: who sees the bump sees the mark, and who sees the mark sees what the
//! dead participant stored.
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | tell 1 and 2 | a death on record that nobody was told of: who waits behind the dead finds it within 10 ms, who waits for nobody in particular within 1 s; the next death's reapers repair the rest |
//! | tell 2 and 3 | the same, but whose sleep ends keeps up |
//! | keep up 1 and the end of 3 | a prefix of the work. Others who have the segment mapped were woken by the same bump and do all of it; who opens the segment later repairs what it meets |
//! | CAS and wake of one object | repaired words and sleepers that the others' wakes reach, or their slices' ends |
//!
//! Each process does each segment on its own account: of n processes that have it mapped, n look at it after a death. A look
//! at a queue reads a word of each slot.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use crosslane_core::call::Calls;
use crosslane_core::latest::Cells;
use crosslane_core::lock::barrier::Barrier;
use crosslane_core::lock::condvar::CondvarWord;
use crosslane_core::lock::flag::FlagWord;
use crosslane_core::lock::once::OnceWords;
use crosslane_core::lock::permits::Permits;
use crosslane_core::lock::rlock::RLockWords;
use crosslane_core::lock::rwlock::RwWords;
use crosslane_core::lock::semaphore::SemaphoreWords;
use crosslane_core::mpmc::{self, Bytes, Payload};
use crosslane_core::mutex::LockWord;
use crosslane_core::prim::{AtomicU32, Ordering, fence};
use crosslane_core::{Liveness, OwnerId, record, spsc};
use crosslane_sync::{FutexWait, READERS};

use crate::content::{Content, Kind};
use crate::domain::Domain;
use crate::header::Header;
use crate::mapping::Mapping;
use crate::sys::gate::{self, Gated};

/// The segments of one domain that this process has mapped.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// The value of the `deaths` word that this process last acted upon.
    acted_upon: AtomicU32,
    sites: Gated<Vec<Site>>,
}

/// A mapped segment.
#[derive(Debug, Clone)]
struct Site {
    map: Weak<Mapping>,
    header: Header,
}

impl Mapped {
    pub(crate) const fn new() -> Self {
        Self { acted_upon: AtomicU32::new(0), sites: Gated::new(Vec::new()) }
    }

    /// Notes a segment, once for each mapping.
    pub(crate) fn note(&self, map: &Arc<Mapping>, header: &Header) {
        let mut gate = gate::enter();
        let sites = self.sites.get(&mut gate);
        let map = Arc::downgrade(map);
        if sites.iter().rev().any(|site| site.map.ptr_eq(&map)) {
            return;
        }
        if sites.len() == sites.capacity() {
            sites.retain(|site| site.map.strong_count() > 0);
        }
        sites.push(Site { map, header: *header });
    }

    fn list(&self) -> Vec<Site> {
        self.sites.get(&mut gate::enter()).clone()
    }
}

/// Repairs what this process has mapped, if a death has been told of since it last did.
pub(crate) fn keep_up(domain: &Domain) {
    let acted_upon = &domain.mapped().acted_upon;
    // ORDERING: Relaxed, in all three. The fence orders; a thread that finds the number taken leaves the work to the one
    // that took it, and repairs by itself whatever it waits for.
    let told = domain.deaths().load(Ordering::Relaxed);
    if acted_upon.load(Ordering::Relaxed) == told || acted_upon.swap(told, Ordering::Relaxed) == told {
        return;
    }
    everything(domain);
}

/// Repairs what this process has mapped in `domain`.
pub(crate) fn everything(domain: &Domain) {
    if domain.is_forked() {
        return;
    }
    // ORDERING domain.deaths: Acquire fence. Pairs with the Release fence in `tell`: what was told of is on record.
    fence(Ordering::Acquire);
    for site in domain.mapped().list() {
        if let Some(map) = site.map.upgrade() {
            segment(&map, &site.header, domain);
        }
    }
}

/// Repairs one segment; `header` is this process's checked copy. Of a slab: the objects that this process knows, which do
/// not overlap, whatever the slab's directory says.
pub(crate) fn segment(map: &Mapping, header: &Header, domain: &Domain) {
    if map.is_read_only() {
        return;
    }
    if header.content.kind == Kind::SLAB {
        let pieces = map.notes().get(&mut gate::enter()).objects();
        pieces.iter().for_each(|(offset, content)| object(map, *offset, content, domain));
    } else {
        object(map, header.object_offset, &header.content, domain);
    }
}

/// Who is dead according to the table, without a system call.
struct Known<'a>(&'a Domain);

impl Liveness for Known<'_> {
    fn me(&self) -> Option<OwnerId> {
        self.0.me()
    }

    fn is_dead(&self, owner: OwnerId) -> bool {
        self.0.is_on_record(owner)
    }
}

/// Repairs the object that `content` says to lie at `offset`. A capacity or length that makes no object is left alone: its
/// handles have refused it too.
fn object(map: &Mapping, offset: u64, content: &Content, domain: &Domain) {
    let Some(memory) = map.at(offset, content.len_bytes) else { return };
    let (Ok(len), Ok(capacity)) = (usize::try_from(content.len_bytes), u32::try_from(content.capacity)) else { return };
    let wait = FutexWait::new();
    match content.kind {
        Kind::QUEUE => {
            let payload = Payload { len_bytes: content.elem_size, align: content.elem_align };
            queue(memory, len, content, payload, domain);
        }
        Kind::MESSAGES => {
            if let Ok(payload) = Bytes::payload(content.elem_size) {
                queue(memory, len, content, payload, domain);
            }
        }
        Kind::SPSC => {
            // SAFETY: as in `queue`. Of the ring only the event words are touched, which lie in front of the items; a ring
            // of single bytes is no longer than one of any other items.
            let ring = unsafe { spsc::Ring::<u8>::attach(memory, len, capacity, content.wake) };
            ring.into_iter().for_each(|ring| ring.wake_all(&wait));
        }
        Kind::LATEST => {
            // SAFETY: as in `queue`. Only the event word is touched, which lies in front of the cells; cells of single bytes
            // are no longer than those of any other values.
            let cells = unsafe { Cells::<u8>::attach(memory, len, capacity, content.wake) };
            cells.into_iter().for_each(|cells| cells.wake_all(&wait));
        }
        Kind::RECORD => {
            // SAFETY: as in `queue`.
            let ring = unsafe { record::Ring::attach(memory, len, capacity, content.wake) };
            ring.into_iter().for_each(|ring| ring.wake_all(&wait));
        }
        Kind::MUTEX if len >= size_of::<LockWord>() => {
            // SAFETY: the object starts with the lock word, an atomic; it is aligned, long enough, and stays mapped.
            let word: &LockWord = unsafe { memory.cast().as_ref() };
            word.wake_one(&wait);
        }
        _ => lock(memory, len, capacity, content.kind, domain),
    }
}

/// Repairs one of the other locks.
fn lock(memory: NonNull<u8>, len: usize, capacity: u32, kind: Kind, domain: &Domain) {
    let (life, wait) = (Known(domain), FutexWait::new());
    match kind {
        Kind::RLOCK => words(memory, len, |lock: &RLockWords| lock.wake_one(&wait)),
        Kind::RWLOCK => words(memory, len, |lock: &RwWords<READERS>| lock.reap(&life, &wait)),
        Kind::CONDVAR => words(memory, len, |words: &CondvarWords| words.recover(&wait)),
        Kind::SEMAPHORE => words(memory, len, |semaphore: &SemaphoreWords| semaphore.recover(&wait)),
        Kind::EVENT => words(memory, len, |flag: &FlagWord| flag.recover(&wait)),
        Kind::ONCE => words(memory, len, |once: &OnceWords| once.wake_one(&wait)),
        Kind::BOUNDED_SEMAPHORE => {
            // SAFETY: as in `queue`.
            let permits = unsafe { Permits::attach(memory, len, capacity) };
            permits.into_iter().for_each(|permits| permits.reap(&life, &wait));
        }
        Kind::CALLS => {
            // SAFETY: as in `queue`.
            let calls = unsafe { Calls::attach(memory, len, capacity) };
            calls.into_iter().for_each(|calls| calls.reap(&life, &wait));
        }
        Kind::BARRIER => {
            // SAFETY: as in `queue`.
            let barrier = unsafe { Barrier::attach(memory, len, capacity) };
            barrier.into_iter().for_each(|barrier| barrier.reap(&life, &wait));
        }
        _ => {}
    }
}

/// With what a condition's cell starts.
#[repr(C)]
struct CondvarWords {
    condition: CondvarWord,
    reserved: u32,
    lock: LockWord,
}

impl CondvarWords {
    fn recover(&self, wait: &FutexWait<'_>) {
        self.condition.recover(wait);
        self.lock.wake_one(wait);
    }
}

/// Hands the words with which an object starts to `repair`.
fn words<W>(memory: NonNull<u8>, len: usize, repair: impl FnOnce(&W)) {
    if len >= size_of::<W>() {
        // SAFETY: by the object's kind it starts with such words, atomics; it is aligned to a cache line, long enough, and
        // stays mapped.
        repair(unsafe { memory.cast().as_ref() });
    }
}

fn queue(memory: NonNull<u8>, len: usize, content: &Content, payload: Payload, domain: &Domain) {
    let Ok(capacity) = u32::try_from(content.capacity) else { return };
    // SAFETY:
    // - mapped for writing, `len` bytes long, and for as long as the caller keeps the mapping;
    // - the header says that there is such an object, so processes that keep to the protocol access it so, and the others'
    //   writes are met by its own checks.
    let ring = unsafe { mpmc::Ring::attach(memory, len, capacity, payload, content.wake) };
    ring.into_iter().for_each(|ring| ring.reap(&Known(domain), &FutexWait::new()));
}

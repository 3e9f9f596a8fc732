//! Lease domains: who takes part, under which id, and who is proven dead.
//!
//! # What
//! A domain is a file with a participant table: 1,024 generations, a cursor, and the `deaths` word. A process joins it
//! once, however often it opens it, and then is `(index, generation)`. Its lease (`lease.rs`) on byte
//! `index` is the only thing that says that it lives. A named segment is a domain of its own; the anonymous segments of a
//! process family share the [family's](Domain::family).
//!
//! # Protocol
//! Join, inside the process's gate; this process already takes part: share that.
//! 1. `start = cursor`, which stands behind the place that was taken last: indices come round in order, and each rests as
//!    long as possible;
//! 2. for each index from `start`: last generation reached: retired, the next one; else lock its byte; taken: next one;
//! 3. the lock is held: read the generation again, store generation + 1 without the mark. In the other order, a process
//!    between the two would be named by the table and not hold its byte: a false death. The predecessor's death was not on
//!    record: bump `deaths` and wake all, as it is now;
//! 4. release fence; from here on the id may be written into words.
//!
//! Probe of `(i, g)`:
//! 1. acquire fence: who saw the id in a word sees the table at least as its owner left it;
//! 2. `table[i]` marked with `g`, or another generation: dead (the lock of `i` was free, or is its successor's);
//! 3. byte `i` exclusively locked (`F_OFD_GETLK` of a read lock, so that readers' locks do not count): not dead;
//! 4. the same description must be this domain's file and, if 3 found the byte free, show this process's own byte locked. Of
//!    a byte that is held, the file is looked at once in 16 probes: the look costs as much as all the rest of a slice.
//!    Else nothing was proven, because the fd may have been closed and reused by an accident: 3 and 4 once more by a
//!    description that is opened through the mapping (`Mapping::reopen`); without one, `LeaseLost` or the call's error;
//! 5. CAS(`table[i]`: `g` -> `g` marked): who wins bumps `deaths` and wakes all who sleep on it;
//! 6. dead: repair what this process has mapped, unless that was done since the last bump (`reaper.rs`).
//!
//! Leave, by the last handle's drop: forget the domain, unmap the lease. A fork child only forgets.
//!
//! # Orderings
//! | edge | release side | acquire side | what is published | model |
//! |---|---|---|---|---|
//! | `domain.join` | release fence, join 4, through any word that holds the id | acquire fence, probe 1 | the generation and the lock of the id's owner | none: half of it is the kernel's |
//! | `domain.deaths` | release fence, probe 5 and join 3, before the bump | acquire fence, `reaper::keep_up` | the mark, or the successor | none: half of it is the kernel's |
//! | `domain.proof` | CAS, probe 5; store, join 3 | load, probe 2 | everything that the dead participant stored (the kernel's lock ordered it before the prover) | none: half of it is the kernel's |
//!
//! # Crash
//! | killed between | others see |
//! |---|---|
//! | join 1 and 2, 2 and 3 | the byte free again; nobody knew |
//! | join 3 and 4 | a generation that nobody used |
//! | probe 2 and 5 | nothing |
//! | probe 5, CAS and bump, bump and wake | a death that is on record; sleepers see it when their slice ends (at most 1 s) |
//! | probe 5 and 6, in 6 | others who have the same segments mapped were woken, and repair them |
//! | leave, anywhere | a participant that is proven dead |
//!
//! Limit: a survivor whose domain's fd was closed or replaced by somebody else (`close_range`, as daemons do) can probe
//! only if it can open the file again: by the name of a named segment, as long as it leads there, or with
//! `CAP_CHECKPOINT_RESTORE` (root has it) by its mapping. Others, so anonymous segments' users as a rule, cannot.
//! `Domain::probe` says so by an error; `Env::is_dead` takes that for "not proven", so `lock()`, `push` and `pop` go on
//! waiting for a dead owner until another participant proves the death.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use crosslane_core::OwnerId;
use crosslane_core::owner::{MAX_GENERATION, MAX_PARTICIPANTS};
use crosslane_core::prim::{AtomicU32, Ordering, fence};

use crate::lease::{Lease, Page, Window};
use crate::mapping::Mapping;
use crate::reaper::{self, Mapped};
use crate::sys::call::OsError;
use crate::sys::file::{self, FileKey};
use crate::sys::gate::{self, Entered, Gated};
use crate::sys::lock::{self, Bytes, Mode};
use crate::sys::slot::Slot;

/// Length of the participant table, in bytes.
pub(crate) const TABLE_BYTES: u64 = size_of::<Table>() as u64;

/// In a generation word: proven dead.
const DEAD: u32 = 1 << 31;

#[derive(Debug)]
#[repr(C)]
struct Table {
    deaths: AtomicU32,
    cursor: AtomicU32,
    reserved: [AtomicU32; 14],
    generations: [AtomicU32; MAX_PARTICIPANTS as usize],
}

const _: () = assert!(size_of::<Table>() == 64 + 4 * 1024);

/// Why a domain could not be joined, or nothing could be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainError {
    /// All 1,024 places are taken by living participants or retired.
    DomainFull,
    /// Every place has reached its last generation: the domain has seen 4.19 million participants.
    DomainExhausted,
    /// This process is a raw `fork()` child and has not joined the domain itself.
    Forked,
    /// This process cannot see its own lease any more (its fd was closed by somebody else): nothing can be proven.
    LeaseLost,
    /// The segment was opened for reading only: this process takes no part in its domain.
    ReadOnly,
    /// The family's domain is in use already, and is another one.
    OtherFamily,
    /// The kernel lacks what leases need (`/proc`, open file description locks, `MADV_WIPEONFORK`).
    Unsupported(OsError),
    /// A system call failed.
    Os(OsError),
}

impl From<OsError> for DomainError {
    fn from(error: OsError) -> Self {
        match (error.call, error.errno) {
            ("open(/proc/self/fd)", libc::ENOENT) | (_, libc::ENOSYS | libc::EINVAL) => Self::Unsupported(error),
            _ => Self::Os(error),
        }
    }
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DomainFull => write!(f, "all {MAX_PARTICIPANTS} places of the lease domain are taken"),
            Self::DomainExhausted => f.write_str("the lease domain has used up every generation of every place"),
            Self::Forked => f.write_str("this process is a fork child that has not joined"),
            Self::LeaseLost => f.write_str("this process's own lease cannot be seen: nothing can be proven"),
            Self::ReadOnly => f.write_str("the segment is open for reading only: no part in its lease domain"),
            Self::OtherFamily => f.write_str("this process belongs to another family already"),
            Self::Unsupported(error) => write!(f, "the system lacks what leases need: {error}"),
            Self::Os(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u128::from_be_bytes(self.id());
        f.debug_struct("Domain").field("id", &format_args!("{id:032x}")).field("me", &self.me()).finish()
    }
}

impl std::error::Error for DomainError {}

/// This process's membership in a lease domain. Cheap to clone; the last clone's drop leaves the domain.
///
/// In a raw `fork()` child every call gives `Forked` or nothing, until the child joins anew ([`Domain::rejoin`],
/// [`Domain::family`], or opening the segment by name).
#[derive(Clone)]
pub struct Domain(Arc<Participant>);

struct Participant {
    map: Arc<Mapping>,
    table: NonNull<Table>,
    lease: Lease,
    /// Not the lease's own description: through this one the lease is seen from outside.
    fd: Arc<OwnedFd>,
    key: FileKey,
    domain_id: [u8; 16],
    mapped: Mapped,
    /// How often a byte was found held.
    held: AtomicU32,
}

// SAFETY: `table` leads into `map`, which lives as long; it is made of atomics only.
unsafe impl Send for Participant {}
// SAFETY: as above.
unsafe impl Sync for Participant {}

/// Of so many bytes that were found held, one is looked at closely: is it in this domain's file? A description that was
/// replaced by that of another file, one whose same byte is held, hides a death for so many slices, of 10 ms each.
const LOOKED_AT_EACH: u32 = 16;

/// The domains that this process takes part in.
static REGISTRY: Gated<Vec<(FileKey, Weak<Participant>)>> = Gated::new(Vec::new());

/// A mapped file that has a participant table, ready to be joined.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) map: Arc<Mapping>,
    pub(crate) key: FileKey,
    pub(crate) table_offset: u64,
    pub(crate) domain_id: [u8; 16],
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Proven dead, for ever.
    Dead,
    /// Its lease is held: it lives, or the kernel has not finished with it.
    NotProven,
}

impl Domain {
    /// This process's membership in the domain of the file `key`, if it has one.
    pub(crate) fn of_file(key: FileKey) -> Option<Self> {
        // Declared before the gate, so dropped behind it: a last drop enters the gate itself.
        let found;
        {
            let mut gate = gate::enter();
            found = find(&mut gate, key);
        }
        found.filter(|domain| !domain.is_forked())
    }

    /// Joins the domain of `ground`, or shares this process's membership in it.
    pub(crate) fn join(ground: Ground) -> Result<Self, DomainError> {
        // Declared before the gate, so dropped behind it.
        let mut stale = None;
        let mut gate = gate::enter();
        Self::join_or_share(&mut gate, ground, &mut stale)
    }

    /// As [`join`](Self::join), inside the gate. What is left in `stale` must be dropped outside.
    pub(crate) fn join_or_share(
        gate: &mut Entered,
        ground: Ground,
        stale: &mut Option<Self>,
    ) -> Result<Self, DomainError> {
        *stale = find(gate, ground.key);
        match stale.take_if(|domain| !domain.is_forked()) {
            Some(shared) => Ok(shared),
            None => Self::join_inside(gate, ground),
        }
    }

    fn join_inside(gate: &mut Entered, ground: Ground) -> Result<Self, DomainError> {
        let Ground { fd, map, key, table_offset, domain_id } = ground;
        let unmapped = DomainError::Os(OsError { call: "mmap", errno: libc::EFAULT });
        let table = map.at(table_offset, TABLE_BYTES).ok_or(unmapped)?.cast::<Table>();
        let slot = Slot::take(gate)?;
        // SAFETY: inside the mapping, 64-aligned as the callers' offsets are, and made of atomics only.
        let seated = seat(gate, unsafe { table.as_ref() }, fd.as_fd());
        let (id, page) = match seated {
            Ok(seated) => seated,
            Err(error) => {
                slot.give_back(gate);
                return Err(error);
            }
        };
        let lease = Lease::new(page, slot, id.to_word());
        // ORDERING domain.join: Release fence. Pairs with the Acquire fence in `probe`: whoever reads this id in any
        // word, stored after this line, sees the generation that belongs to it. Without it a prober could see the id and
        // the table's earlier generation, and take a living participant for a dead one.
        fence(Ordering::Release);
        let mapped = Mapped::new();
        let participant =
            Arc::new(Participant { map, table, lease, fd, key, domain_id, mapped, held: AtomicU32::new(0) });
        let registry = REGISTRY.get(gate);
        registry.retain(|(known, _)| *known != key);
        registry.push((key, Arc::downgrade(&participant)));
        Ok(Self(participant))
    }

    /// Joins this domain from a `fork()` child; in any other process gives another handle.
    ///
    /// Handles made before the fork stay `Forked`; make new ones from the returned domain.
    ///
    /// # Errors
    /// [`DomainError`].
    pub fn rejoin(&self) -> Result<Self, DomainError> {
        if !self.is_forked() {
            return Ok(self.clone());
        }
        let p = &*self.0;
        let table_offset = p.table.addr().get() - p.map.start().addr().get();
        Self::join(Ground {
            fd: Arc::clone(&p.fd),
            map: Arc::clone(&p.map),
            key: p.key,
            table_offset: table_offset as u64,
            domain_id: p.domain_id,
        })
    }

    /// This process's id; `None` in a fork child. One load and a branch.
    #[inline]
    #[must_use]
    pub fn me(&self) -> Option<OwnerId> {
        // ORDERING: Relaxed. Set before any handle existed; see `Slot`.
        OwnerId::from_private_word(self.0.lease.slot().word().load(Ordering::Relaxed))
    }

    /// Identifies the domain; stands in the header of each of its segments.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.0.domain_id
    }

    /// The word in which [`me`](Self::me) stands. Valid while this domain is.
    pub(crate) fn me_word(&self) -> &'static AtomicU32 {
        self.0.lease.slot().word()
    }

    /// What this process has mapped in this domain.
    pub(crate) fn mapped(&self) -> &Mapped {
        &self.0.mapped
    }

    /// Bumped at each proof of a death.
    pub(crate) fn deaths(&self) -> &AtomicU32 {
        &self.table().deaths
    }

    /// The memory with the table.
    pub(crate) fn map(&self) -> &Arc<Mapping> {
        &self.0.map
    }

    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.0.fd
    }

    pub(crate) fn key(&self) -> FileKey {
        self.0.key
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.0.lease.slot().is_forked()
    }

    /// Whether `owner` is proven dead. At most three system calls (some more once the fd was lost), about 1 us with few participants; does not block.
    ///
    /// The first proof of a death in a domain wakes everybody who waits in it for what somebody can own. This process then repairs what the dead
    /// participant held in the segments of the domain that it has mapped, and those who are woken what they have mapped.
    ///
    /// # Errors
    /// [`DomainError::Forked`], [`DomainError::LeaseLost`], [`DomainError::Os`]: nothing was proven. The last two are
    /// what a process gets whose domain's fd was closed behind its back (`close_range`), if it cannot open the file again
    /// (by its name, or as root by its mapping): its own lease stays, but it can prove no death, and its waits for a dead owner end by their timeout only, or by another process's proof.
    pub fn probe(&self, owner: OwnerId) -> Result<Probe, DomainError> {
        let probed = self.prove(owner)?;
        if probed == Probe::Dead {
            reaper::keep_up(self);
        }
        Ok(probed)
    }

    /// Steps 1 to 5 of a probe.
    fn prove(&self, owner: OwnerId) -> Result<Probe, DomainError> {
        let me = self.me().ok_or(DomainError::Forked)?;
        if owner == me {
            return Ok(Probe::NotProven);
        }
        if self.is_on_record(owner) {
            return Ok(Probe::Dead);
        }
        let is_held = match self.is_held(self.0.fd.as_fd(), owner, me) {
            Err(error) => self.is_held_slow(owner, me).unwrap_or(Err(error)),
            seen => seen,
        };
        if is_held? {
            return Ok(Probe::NotProven);
        }
        // ORDERING domain.proof: Release. Publishes what the kernel's lock has made visible here. Failure: Relaxed,
        // somebody else recorded the same death, or a successor has the place: dead either way.
        let (seen, word) = (owner.generation(), self.generation(owner.index()));
        if word.compare_exchange(seen, seen | DEAD, Ordering::Release, Ordering::Relaxed).is_ok() {
            tell(self.deaths());
        }
        Ok(Probe::Dead)
    }

    /// Steps 1 and 2 of a probe: whether somebody has proven this death, or taken the dead one's place. No system call.
    pub(crate) fn is_on_record(&self, owner: OwnerId) -> bool {
        // ORDERING domain.join: Acquire fence. Pairs with the Release fence in `join_inside`.
        fence(Ordering::Acquire);
        // ORDERING domain.proof: Acquire. Pairs with the Release in the CAS of `prove` and in `seat`: who takes somebody
        // else's proof, or finds a successor, sees what the dead participant stored.
        let seen = self.generation(owner.index()).load(Ordering::Acquire);
        // Marked, or a successor's (which holds the lock that the dead one lost), or never given out.
        seen != owner.generation()
    }

    /// Probes every participant that the table names and is not yet proven dead, and repairs what the dead held in the
    /// segments that this process has mapped; returns the deaths that this call was the first to prove. Two system calls
    /// for each living participant (0.6-5 us), and a look at each object that is mapped; does not block.
    ///
    /// For a parent whose pidfd says that a child has ended: others need not wait for their slices' ends then.
    ///
    /// # Errors
    /// As [`probe`](Self::probe).
    pub fn reap(&self) -> Result<Vec<OwnerId>, DomainError> {
        let mut proven = Vec::new();
        for index in 0..MAX_PARTICIPANTS {
            // ORDERING: Relaxed. `prove` reads it again.
            let generation = self.generation(index).load(Ordering::Relaxed);
            let Some(id) = OwnerId::new(index, generation) else { continue };
            if self.prove(id)? == Probe::Dead {
                proven.push(id);
            }
        }
        reaper::everything(self);
        Ok(proven)
    }

    /// Steps 3 and 4 of a probe: whether `owner`'s byte is locked, as seen through `fd`.
    fn is_held(&self, fd: BorrowedFd<'_>, owner: OwnerId, me: OwnerId) -> Result<bool, DomainError> {
        let is_held = lock::is_held(fd, Bytes::participant(owner.index()), Mode::Read)?;
        // ORDERING: Relaxed. Decides only when to look closely: nothing is proven by a byte that is held.
        if is_held && !self.0.held.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKED_AT_EACH) {
            return Ok(true);
        }
        let own = is_held || lock::is_held(fd, Bytes::participant(me.index()), Mode::Read)?;
        if !own || file::stat(fd)?.key != self.0.key {
            return Err(DomainError::LeaseLost);
        }
        Ok(is_held)
    }

    /// As `is_held`, by the mapping, which nobody can close; `None` if the kernel does not let this process.
    #[cold]
    fn is_held_slow(&self, owner: OwnerId, me: OwnerId) -> Option<Result<bool, DomainError>> {
        let fd = self.0.map.reopen().ok()?;
        Some(self.is_held(fd.as_fd(), owner, me))
    }

    fn table(&self) -> &Table {
        // SAFETY: inside `map`, which this handle keeps; made of atomics only.
        unsafe { self.0.table.as_ref() }
    }

    fn generation(&self, index: u32) -> &AtomicU32 {
        &self.table().generations[(index % MAX_PARTICIPANTS) as usize]
    }
}

fn find(gate: &mut Entered, key: FileKey) -> Option<Domain> {
    REGISTRY.get(gate).iter().find(|(known, _)| *known == key).and_then(|(_, weak)| weak.upgrade()).map(Domain)
}

/// Steps 1 to 3 of joining: finds a place, locks it, takes its next generation.
fn seat(gate: &Entered, table: &Table, fd: BorrowedFd<'_>) -> Result<(OwnerId, Page), DomainError> {
    let window = Window::open(gate, fd, Mode::Write)?;
    // ORDERING: Relaxed, here and below. A hint; the lock decides.
    let start = table.cursor.load(Ordering::Relaxed);
    let mut is_any_alive = false;
    for step in 0..MAX_PARTICIPANTS {
        let index = start.wrapping_add(step) % MAX_PARTICIPANTS;
        let word = &table.generations[index as usize];
        if next_id(index, word).is_none() {
            continue;
        }
        if !window.try_lock(Bytes::participant(index))? {
            is_any_alive = true;
            continue;
        }
        // Once more: the place may have been used for the last time between the look and the lock.
        if let Some(id) = next_id(index, word) {
            // ORDERING domain.proof: Release. Pairs with the Acquire in `probe`: whoever finds a successor's generation
            // here sees what the dead predecessor stored, as its lock's end has made it visible to this process.
            let before = word.swap(id.generation(), Ordering::Release);
            if before != 0 && before & DEAD == 0 {
                tell(&table.deaths);
            }
            // ORDERING: Relaxed, as above.
            table.cursor.store(index + 1, Ordering::Relaxed);
            return Ok((id, window.into_page()?));
        }
        window.unlock(Bytes::participant(index))?;
    }
    Err(if is_any_alive { DomainError::DomainFull } else { DomainError::DomainExhausted })
}

/// Says that a death is on record, and wakes all who wait in the domain for what somebody can own.
fn tell(deaths: &AtomicU32) {
    // ORDERING domain.deaths: Release fence. Pairs with the Acquire fence in `reaper::keep_up`: who sees the new number
    // sees the record.
    fence(Ordering::Release);
    crosslane_sync::futex::bump(deaths);
}

/// The id that the next participant at `index` gets; `None` if the place is retired.
fn next_id(index: u32, word: &AtomicU32) -> Option<OwnerId> {
    // ORDERING: Relaxed, as in `seat`; the predecessor's store was ordered by its lock's end.
    let last = word.load(Ordering::Relaxed) & !DEAD;
    if last >= MAX_GENERATION { None } else { OwnerId::new(index, last + 1) }
}

impl Drop for Participant {
    fn drop(&mut self) {
        let mut gate = gate::enter();
        // A later membership of this process, after this one's last handle was gone, must stay.
        REGISTRY.get(&mut gate).retain(|(_, weak)| weak.strong_count() != 0);
        self.lease.end(&mut gate);
    }
}

impl AsFd for Domain {
    /// The file with the table: what a child needs to join its family ([`Domain::join_family`]).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease domain {:032x}", u128::from_be_bytes(self.0.domain_id))
    }
}

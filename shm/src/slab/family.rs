//! The slabs of a process: another one is opened when one is full.

use crosslane_core::Trusted;

use super::{CarveError, Carver, Image, Slab};
use crate::options::Options;
use crate::place::Place;
use crate::segment::{CreateError, OpenError};
use crate::sys::gate::{self, Gated};

/// A process's growing set of anonymous slabs of 64 KiB: where small objects go that nobody has chosen a slab for.
///
/// Objects of a family's processes meet in a slab if one carves and sends the slab's fd and the object's id. Each process
/// carves from slabs of its own; a `fork()` child from its parent's until that is full. A slab is unmapped with the last
/// object in it, and its fd closed.
///
/// # Examples
/// ```
/// use crosslane_shm::{Mutex, Slabs};
///
/// let locks: Vec<_> = (0..1000_u64).map(|n| Mutex::in_slab(Slabs::family(), n)).collect::<Result<_, _>>()?;
/// assert_eq!(*locks[999].lock().unwrap(), 999);
/// # Ok::<(), crosslane_shm::CreateError>(())
/// ```
#[derive(Debug)]
pub struct Slabs {
    current: Gated<Option<Slab<Trusted>>>,
}

static FAMILY: Slabs = Slabs { current: Gated::new(None) };

impl Slabs {
    /// This process's set.
    #[must_use]
    pub fn family() -> &'static Self {
        &FAMILY
    }

    /// The slab that is carved from, which this process can use.
    fn current(&self) -> Result<Slab<Trusted>, CreateError> {
        // Bound outside the gate: dropping a segment may leave a domain, which enters it.
        let known = {
            let mut gate = gate::enter();
            self.current.get(&mut gate).clone()
        };
        match known {
            Some(slab) if !is_forked(&slab) => Ok(slab),
            Some(stale) => {
                let slab = stale.rejoin().map_err(|error| match error {
                    OpenError::Domain(error) => CreateError::Domain(error),
                    _ => CreateError::Slab(CarveError::Corrupt),
                })?;
                Ok(self.replace(&stale, slab))
            }
            None => self.grow(None),
        }
    }

    /// Opens another slab in place of `full`, unless another thread was faster.
    fn grow(&self, full: Option<&Slab<Trusted>>) -> Result<Slab<Trusted>, CreateError> {
        let new = Slab::anonymous(&Options::new())?;
        match full {
            Some(full) => Ok(self.replace(full, new)),
            None => {
                let (slab, _unused) = self.exchange(new, |_| false);
                Ok(slab)
            }
        }
    }

    fn replace(&self, old: &Slab<Trusted>, new: Slab<Trusted>) -> Slab<Trusted> {
        let (slab, _unused) = self.exchange(new, |known| is_same(known, old) && is_forked(known) == is_forked(old));
        slab
    }

    /// Makes `new` the current slab if there is none or one that `is_old`; returns the current one, and the other one for
    /// its drop outside the gate.
    fn exchange(
        &self,
        new: Slab<Trusted>,
        is_old: impl FnOnce(&Slab<Trusted>) -> bool,
    ) -> (Slab<Trusted>, Option<Slab<Trusted>>) {
        let mut gate = gate::enter();
        let current = self.current.get(&mut gate);
        match current {
            Some(known) if !is_old(known) => (known.clone(), Some(new)),
            _ => (new.clone(), current.replace(new)),
        }
    }
}

fn is_forked(slab: &Slab<Trusted>) -> bool {
    slab.segment().domain().is_none_or(crate::Domain::is_forked)
}

fn is_same(one: &Slab<Trusted>, other: &Slab<Trusted>) -> bool {
    one.segment().header().segment_id == other.segment().header().segment_id
}

impl Carver for Slabs {
    type Trust = Trusted;

    #[expect(private_interfaces, reason = "sealed: nobody outside can name or call it")]
    fn carve(&self, image: &Image, align_bytes: u32) -> Result<Place<Trusted>, CreateError> {
        let mut slab = self.current()?;
        loop {
            match slab.carve(image, align_bytes) {
                // A slab that is still empty will not hold it, nor will the next.
                Err(CreateError::Slab(CarveError::Full)) if slab.is_used() => slab = self.grow(Some(&slab))?,
                result => return result,
            }
        }
    }
}

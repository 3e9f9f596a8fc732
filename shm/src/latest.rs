//! The newest value of something, of `crosslane-core`, in a segment of its own.
//!
//! Protocol, orderings and crash table: [`crosslane_core::latest`]. The header says what is in the segment (type, number of
//! cells and wake mode); the writer's end is claimed by a lease, so a killed writer's successor goes on.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crosslane_core::end::{ClaimError, End};
use crosslane_core::latest::{self, Cells, CellsError, View};
use crosslane_core::{Plain, Trust, Trusted, Untrusted, WakeMode};

use crate::content::{Content, Expected, Kind};
use crate::env::Env;
use crate::name::Name;
use crate::named::{Attached, Owner};
use crate::options::Options;
use crate::place::{self, Init, New, Object, Place};
use crate::segment::{CreateError, OpenError, Segment};
use crate::slab::{self, Carve, ObjectId, Slab};
use crate::view::Spectator;

/// The writer's end; keeps the segment mapped.
pub type Writer<T> = latest::Writer<'static, T, Env>;
/// A reader; keeps the segment mapped.
pub type Reader<T> = latest::Reader<'static, T, Env>;
/// A reader of a segment that is open for reading only, which polls; keeps the segment mapped.
pub type ViewReader<T> = latest::Reader<'static, T, Spectator>;

/// The newest value of type `T` in shared memory: one writer, any number of readers in any processes. Readers never wait
/// for the writer, get whole values only, and skip those that they are too slow for.
///
/// Nothing is ever lent, so `K` says only where the memory goes: to the family, or to whoever knows the name.
///
/// # Examples
/// ```
/// use crosslane_shm::{Latest, Name, Options};
///
/// let (name, options) = (Name::random(), Options::new());
/// let position = Latest::<[f64; 3]>::create(&name, &options)?;
/// let mut writer = position.writer()?;
/// writer.publish(&[0.0; 3])?;
/// writer.publish(&[1.0, 2.0, 3.0])?;
///
/// // In another program, by name:
/// let position = Latest::<[f64; 3]>::open(&name, &options)?;
/// let mut reader = position.reader()?;
/// assert_eq!(reader.read(), Ok([1.0, 2.0, 3.0]));
///
/// // In a third one, which may only read:
/// let view = Latest::<[f64; 3]>::open_view(&name, &options)?;
/// assert_eq!(view.reader().read_newer(), Ok([1.0, 2.0, 3.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Latest<T, K = Untrusted> {
    place: Place<K>,
    cells: u32,
    values: PhantomData<fn(T) -> T>,
}

impl<T: Plain> Latest<T> {
    /// Creates a place for values under `name`, in which nothing was published yet, with [`Options::cells`].
    ///
    /// Wake mode if the options leave it open: `Asymmetric`, which registers this process for barriers at its first use
    /// (50 us, 5-13 ms once threads run).
    ///
    /// # Errors
    /// As [`Segment::create`], and [`CreateError::Latest`].
    pub fn create(name: &Name, options: &Options) -> Result<Owner<Self>, CreateError> {
        new::<T>(options)?.named(name, options)
    }

    /// Opens the place `name`, for writing and reading.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::ReadOnly`], [`OpenError::Latest`].
    pub fn open(name: &Name, options: &Options) -> Result<Attached<Self>, OpenError> {
        place::open(name, options)
    }

    /// Opens the place `name` for reading only: this process takes no part in its domain, cannot write the memory, and
    /// polls when it waits.
    ///
    /// # Errors
    /// As [`Segment::open`], and [`OpenError::Latest`].
    pub fn open_view(name: &Name, options: &Options) -> Result<Attached<LatestView<T>>, OpenError> {
        let attached = Segment::open(name, &Self::expected(options), &options.clone().read_only(true))?;
        attached.try_map(LatestView::attach)
    }

    /// Creates a place for values for this process's family; it travels as a file descriptor ([`AsFd`]).
    ///
    /// # Errors
    /// As [`Segment::anonymous_with`], and [`CreateError::Latest`].
    pub fn anonymous(options: &Options) -> Result<Latest<T, Trusted>, CreateError> {
        new::<T>(options)?.anonymous(options)
    }

    /// Opens a place that came as a file descriptor from a process of this family.
    ///
    /// # Errors
    /// As [`Segment::from_fd`], and [`OpenError::Latest`].
    pub fn from_fd(fd: OwnedFd, options: &Options) -> Result<Latest<T, Trusted>, OpenError> {
        place::from_fd(fd, options)
    }
}

impl<T: Plain, K: Trust> Latest<T, K> {
    /// Creates a place for values in `slab`, a [`Slab`] or [`Slabs`](crate::Slabs): without a segment, an fd or a page of
    /// its own. Of the options the cells and the wake mode count.
    ///
    /// # Errors
    /// [`CreateError::Slab`], [`CreateError::Latest`], and for `Slabs` as [`anonymous`](Latest::anonymous).
    ///
    /// # Crash
    /// A process killed inside leaves the slab as it was, bytes that nobody uses, or the place.
    pub fn in_slab(slab: &impl Carve<Trust = K>, options: &Options) -> Result<Self, CreateError> {
        new::<T>(options)?.in_slab(slab)
    }

    /// Opens the place `id` of `slab`.
    ///
    /// # Errors
    /// [`OpenError::Slab`], [`OpenError::Header`] if the object is another one, [`OpenError::Latest`].
    pub fn from_slab(slab: &Slab<K>, id: ObjectId) -> Result<Self, OpenError> {
        slab::open(slab, id)
    }
}

impl<T: Plain, K> Latest<T, K> {
    /// The cells; callers give them handles that hold an [`Env`], or use them while `self` lives.
    fn all(&self) -> Result<Cells<'static, T>, CellsError> {
        let (memory, len) = self.place.memory();
        // SAFETY:
        // - the object's memory stays mapped while the place or an `Env` of it lives, and every handle holds one;
        // - it is mapped for writing: read-only segments are refused in `attach`;
        // - the header says that the object is such cells, so processes that keep to the protocol access it so, and the
        //   others' writes are met by the cells' own checks.
        unsafe { Cells::attach(memory, len, self.cells, self.place.content().wake) }
    }

    /// Cells and surroundings; both were there when this value was made.
    fn parts(&self) -> Result<(Cells<'static, T>, Env), ClaimError> {
        let cells = self.all().map_err(|_| ClaimError::Corrupt)?;
        Ok((cells, self.place.env().map_err(|_| ClaimError::Corrupt)?))
    }

    /// Claims the writer's end; takes over from a writer that is proven dead. Does not block.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn writer(&self) -> Result<Writer<T>, ClaimError> {
        let (cells, env) = self.parts()?;
        cells.writer(env)
    }

    /// A reader; there may be any number. It claims nothing.
    ///
    /// # Errors
    /// None today; [`ClaimError::Corrupt`] if the segment could no longer be used.
    pub fn reader(&self) -> Result<Reader<T>, ClaimError> {
        let (cells, env) = self.parts()?;
        Ok(cells.reader(env))
    }

    /// How many cells there are.
    #[must_use]
    pub fn cells(&self) -> u32 {
        self.cells
    }

    /// Who holds the writer's end. The answer may be stale by the time it is read; an owner may be dead.
    #[must_use]
    pub fn writer_end(&self) -> End {
        self.all().map_or(End::Corrupt, |cells| cells.writer_end())
    }

    /// Its name in the slab that [`segment`](Self::segment) is; `None` if it has the segment to itself.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.place.id()
    }

    /// The segment that the cells live in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        self.place.segment()
    }

    /// In a `fork()` child: this place with a membership of the child's own. Elsewhere another handle.
    ///
    /// # Errors
    /// As [`Segment::rejoin`].
    pub fn rejoin(&self) -> Result<Self, OpenError> {
        Ok(Self { place: self.place.rejoin()?, ..*self })
    }
}

/// The newest value of type `T` in a segment that is open for reading only.
#[derive(Debug)]
pub struct LatestView<T> {
    view: View<'static, T>,
    segment: Segment,
}

impl<T: Plain> LatestView<T> {
    fn attach(segment: Segment) -> Result<Self, OpenError> {
        let cells = cells(&segment.header().content)?;
        let (memory, len) = segment.object();
        // SAFETY: as in `Latest::all`, but for reading only; every reader holds the segment.
        let view = unsafe { View::attach(memory, len, cells) }?;
        Ok(Self { view, segment })
    }

    /// A reader, which looks every millisecond when it waits. It cannot tell that a writer has died, only that one has
    /// ended in order.
    #[must_use]
    pub fn reader(&self) -> ViewReader<T> {
        self.view.reader(Spectator::new(self.segment.clone()))
    }

    /// The segment that the cells live in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl<T, K> AsFd for Latest<T, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.segment().as_fd()
    }
}

impl<T, K> fmt::Debug for Latest<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest").field("cells", &self.cells).field("segment", self.place.segment()).finish()
    }
}

impl<T: Plain, K: Trust> Object for Latest<T, K> {
    type Trust = K;

    fn expected(options: &Options) -> Expected {
        Expected { kind: Kind::LATEST, wake: options.wake, ..Expected::value::<T>() }
    }

    fn attach(place: Place<K>) -> Result<Self, OpenError> {
        place.env()?;
        let (cells, wake) = (cells(place.content())?, place.content().wake);
        let latest = Self { place, cells, values: PhantomData };
        latest.all()?;
        place::register(wake);
        Ok(latest)
    }
}

fn cells(content: &Content) -> Result<u32, CellsError> {
    u32::try_from(content.capacity).map_err(|_| CellsError::Cells { cells: u32::MAX })
}

/// Memory that is all zero holds cells in which nothing was published yet.
fn new<T: Plain>(options: &Options) -> Result<New<impl Init + use<T>>, CreateError> {
    let content = Content {
        kind: Kind::LATEST,
        capacity: options.cells.into(),
        len_bytes: Cells::<T>::layout(options.cells)?.size() as u64,
        wake: options.wake.unwrap_or(WakeMode::Asymmetric),
        ..Content::value::<T>()
    };
    Ok(New { content, init: |_, _| Ok(()) })
}

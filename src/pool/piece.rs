//! Work, cut into pieces, and what came of each.

use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{self, Item};
use super::store::Room;
use crate::error::{Error, PanicReport};
use crate::wire::{InTransit, Parcel};

/// A job: one function, for any number of items.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u32,
    /// A `Definition`, encoded.
    pub(super) definition: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) tries_all: bool,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
}

/// A piece of work: some items of a job, which go to one worker together.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) job: Arc<Job>,
    pub(super) sink: Arc<dyn Sink>,
    /// Its place in the order in which pieces were submitted.
    pub(super) ticket: u64,
    /// Which of its sink's pieces it is.
    pub(super) index: usize,
    pub(super) items: u32,
    /// The one lane that it is for, if it is for one.
    pub(super) lane: Option<usize>,
    /// Whether the thread that submits it looks for answers from then on, but while it makes another piece.
    pub(super) is_attended: bool,
    pub(super) parcel: Parcel,
    /// Where those of its items lie that are large, in their order: as long as this lives, they lie there.
    pub(super) rooms: Vec<Room>,
    pub(super) retries: u32,
    pub(super) in_transit: InTransit,
    /// When its worker was first seen at it, of one that has a time limit.
    pub(super) begun: Option<Instant>,
    /// Why its worker is ended: its outcome, whatever the worker answers.
    pub(super) cause: Option<Cause>,
}

/// Where the outcome of a piece goes.
pub(super) trait Sink: std::fmt::Debug + Send + Sync {
    /// The outcome of piece `index`. Called once for each, in any order, with no lock held.
    fn done(&self, index: usize, reply: Reply);

    /// Whether nobody wants the outcome any more: what has not begun need not.
    fn is_cancelled(&self) -> bool;
}

/// What came of a piece.
#[derive(Debug)]
pub(super) enum Reply {
    /// The outcomes of its items, as the worker wrote them: of all, or up to the first failure.
    Items { has_failed: bool, bytes: Vec<u8>, fds: Vec<OwnedFd> },
    /// None, and why.
    Lost(Cause),
    /// It was not sent, because the one item that it is cannot be encoded.
    Refused(Error),
}

impl Reply {
    /// Whether there is a failure in it.
    pub(super) fn has_failed(&self) -> bool {
        !matches!(self, Self::Items { has_failed: false, .. })
    }
}

/// Why a piece has no outcome.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Died {
        pid: u32,
        status: ExitStatus,
    },
    Panicked(Box<PanicReport>),
    TimedOut,
    Cancelled,
    FdLimit,
    /// No worker comes up.
    Unfit(Arc<Error>),
}

/// Pieces that have ended, with their replies, which are on their way to their sinks.
pub(super) type Deliveries = Vec<(Box<Piece>, Reply)>;

impl Piece {
    /// A piece of so many items, which are in `parcel` or lie in `rooms`. In a box: it goes through many hands.
    pub(super) fn new(
        job: &Arc<Job>,
        sink: Arc<dyn Sink>,
        index: usize,
        items: u32,
        (parcel, rooms): (Parcel, Vec<Room>),
    ) -> Box<Self> {
        Box::new(Self {
            job: Arc::clone(job),
            sink,
            ticket: 0,
            index,
            items,
            lane: None,
            is_attended: false,
            parcel,
            rooms,
            retries: job.retries,
            in_transit: InTransit::default(),
            begun: None,
            cause: None,
        })
    }

    /// Takes its items out of their rooms, and into its bytes. No worker may be given it meanwhile.
    pub(super) fn unstore(&mut self) {
        let (stored, mut rooms) = (std::mem::take(&mut self.parcel.bytes), std::mem::take(&mut self.rooms).into_iter());
        let mut rest = &stored[..];
        while let Some(item) = lane::split_item(&mut rest) {
            let taken;
            let bytes = match item {
                Item::Here(bytes) => bytes,
                Item::Stored(_) => {
                    taken = rooms.next().map(Room::into_bytes).unwrap_or_default();
                    &taken
                }
            };
            lane::write_item(&mut self.parcel.bytes, bytes);
        }
    }

    pub(super) fn end(self: Box<Self>, reply: Reply, deliveries: &mut Deliveries) {
        deliveries.push((self, reply));
    }
}

/// Hands replies to their sinks. No lock may be held.
pub(super) fn deliver(deliveries: Deliveries) {
    for (piece, reply) in deliveries {
        let Piece { sink, index, in_transit, parcel, rooms, job, .. } = *piece;
        // Whoever is told finds their descriptors closed here.
        drop((parcel, rooms, job));
        // What was claimed over there stays there.
        in_transit.lost();
        sink.done(index, reply);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use super::*;

    /// Looks whether the other sides of its sockets are closed.
    #[derive(Debug)]
    struct Looks {
        sockets: [UnixStream; 2],
        seen: Mutex<Vec<Result<usize, ErrorKind>>>,
    }

    impl Sink for Looks {
        fn done(&self, _: usize, _: Reply) {
            let look = |mut socket: &UnixStream| socket.read(&mut [0]).map_err(|error| error.kind());
            *self.seen.lock().unwrap() = self.sockets.iter().map(look).collect();
        }

        fn is_cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn whoever_is_told_finds_no_descriptor_of_the_piece_open() {
        let [(ours, items), (ours_too, context)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let sockets = [ours, ours_too];
        // Copies may be on their way through a `fork` of another test.
        sockets.iter().for_each(|socket| socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap());
        let (definition, fds) = (Vec::new(), vec![context.into()]);
        let job = Arc::new(Job { number: 1, definition, fds, tries_all: false, retries: 0, timeout: None });
        let sink = Arc::new(Looks { sockets, seen: Mutex::default() });
        let mut parcel = Parcel::default();
        parcel.fds.push(items.into());
        let piece = Piece::new(&job, Arc::clone(&sink) as _, 0, 1, (parcel, Vec::new()));
        drop(job);
        let mut deliveries = Vec::new();
        piece.end(Reply::Lost(Cause::Cancelled), &mut deliveries);
        deliver(deliveries);
        assert_eq!(*sink.seen.lock().unwrap(), [Ok(0), Ok(0)]);
    }
}

//! The pieces that no worker has been given, in the order in which they were submitted.
//!
//! Each has a *ticket*, which says when it was submitted, and keeps it when it comes back from a worker that had not begun
//! it: so it stands again where it stood. One that is taken out of the middle leaves a hole, and there are never more holes
//! than pieces. So taking one out, by its ticket, costs a binary search, and on average nothing that grows with their number.

use std::collections::VecDeque;

use super::piece::Piece;

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// In the order of their tickets. There is a piece at either end.
    places: VecDeque<Place>,
    /// Pieces.
    len: usize,
    /// Those that have a time limit.
    limited: usize,
    /// The ticket of the next piece that is submitted.
    next_ticket: u64,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    /// `None`: a hole.
    piece: Option<Box<Piece>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a piece that has a time limit is among them.
    pub(super) fn has_limited(&self) -> bool {
        self.limited > 0
    }

    pub(super) fn first(&self) -> Option<&Piece> {
        self.iter().next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.places.iter().filter_map(|place| place.piece.as_deref())
    }

    /// Gives a new piece its ticket, with which it stands behind all others; returns that.
    pub(super) fn number(&mut self, piece: &mut Piece) -> u64 {
        piece.ticket = self.next_ticket;
        self.next_ticket += 1;
        piece.ticket
    }

    /// Puts the piece behind all others that was given its ticket last.
    pub(super) fn push(&mut self, piece: Box<Piece>) {
        self.count(&piece);
        self.places.push_back(Place { ticket: piece.ticket, piece: Some(piece) });
    }

    /// Puts a piece where its ticket says.
    pub(super) fn put_back(&mut self, piece: Box<Piece>) {
        self.count(&piece);
        let ticket = piece.ticket;
        let place = Place { ticket, piece: Some(piece) };
        match self.find(ticket) {
            Ok(hole) => self.places[hole] = place,
            Err(at) => self.places.insert(at, place),
        }
    }

    /// Takes the piece with this ticket out, if it is there.
    pub(super) fn take(&mut self, ticket: u64) -> Option<Box<Piece>> {
        let piece = if self.places.front()?.ticket == ticket {
            self.places.pop_front()?.piece?
        } else {
            let at = self.find(ticket).ok()?;
            self.places[at].piece.take()?
        };
        self.len -= 1;
        self.limited -= usize::from(piece.job.timeout.is_some());
        if self.places.len() > self.len {
            self.close_holes();
        }
        Some(piece)
    }

    /// Takes all out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Box<Piece>> + use<> {
        (self.len, self.limited) = (0, 0);
        std::mem::take(&mut self.places).into_iter().filter_map(|place| place.piece)
    }

    fn count(&mut self, piece: &Piece) {
        self.len += 1;
        self.limited += usize::from(piece.job.timeout.is_some());
    }

    fn find(&self, ticket: u64) -> Result<usize, usize> {
        self.places.binary_search_by_key(&ticket, |place| place.ticket)
    }

    fn close_holes(&mut self) {
        while self.places.pop_front_if(|place| place.piece.is_none()).is_some() {}
        while self.places.pop_back_if(|place| place.piece.is_none()).is_some() {}
        if self.places.len() > 2 * self.len {
            self.places.retain(|place| place.piece.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::piece::{Job, Reply, Sink};

    #[derive(Debug)]
    struct Nobody;

    impl Sink for Nobody {
        fn done(&self, _: usize, _: Reply) {}

        fn is_cancelled(&self) -> bool {
            false
        }
    }

    fn piece(timeout: Option<std::time::Duration>) -> Box<Piece> {
        let (definition, fds) = Default::default();
        let job = Arc::new(Job { number: 1, definition, fds, tries_all: false, retries: 0, timeout });
        Piece::new(&job, Arc::new(Nobody), 0, 1, Default::default())
    }

    fn submit(pending: &mut Pending, mut piece: Box<Piece>) -> u64 {
        let ticket = pending.number(&mut piece);
        pending.push(piece);
        ticket
    }

    fn tickets(pending: &Pending) -> Vec<u64> {
        pending.iter().map(|piece| piece.ticket).collect()
    }

    #[test]
    fn a_piece_that_comes_back_stands_where_it_stood() {
        let mut pending = Pending::default();
        (0..8).for_each(|ticket| assert_eq!(submit(&mut pending, piece(None)), ticket));
        let [first, third, fifth, last] = [0, 2, 4, 7].map(|ticket| pending.take(ticket).unwrap());
        assert_eq!(tickets(&pending), [1, 3, 5, 6]);
        assert!(pending.take(2).is_none() && pending.take(0).is_none() && pending.take(8).is_none());
        [fifth, last, first, third].into_iter().for_each(|piece| pending.put_back(piece));
        assert_eq!(tickets(&pending), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((pending.first().unwrap().ticket, submit(&mut pending, piece(None))), (0, 8));
        assert_eq!(pending.take_all().count(), 9);
        assert!(pending.is_empty() && pending.first().is_none());
        assert_eq!(submit(&mut pending, piece(None)), 9, "no ticket is given out twice");
    }

    #[test]
    fn holes_are_never_more_than_pieces_and_never_at_the_ends() {
        let mut pending = Pending::default();
        (0..1000).for_each(|ticket| assert_eq!(submit(&mut pending, piece(None)), ticket));
        // In a scattered order.
        for n in 0..1000 {
            assert!(pending.take(n * 707 % 1000).is_some());
            let holes = pending.places.len() - pending.len;
            assert!(holes <= pending.len, "{holes} among {}", pending.len);
            let is_hole = |place: &Place| place.piece.is_none();
            assert!(!pending.places.front().is_some_and(is_hole) && !pending.places.back().is_some_and(is_hole));
        }
        assert!(pending.is_empty() && pending.places.is_empty());
    }

    #[test]
    fn it_is_known_whether_one_has_a_time_limit() {
        let mut pending = Pending::default();
        let limit = Some(std::time::Duration::from_secs(1));
        for limit in [None, limit, limit, None] {
            submit(&mut pending, piece(limit));
        }
        assert!(pending.has_limited());
        let kept = pending.take(1).unwrap();
        pending.take(2);
        assert!(!pending.has_limited());
        pending.put_back(kept);
        assert!(pending.has_limited());
        pending.take_all().for_each(drop);
        assert!(!pending.has_limited());
    }
}

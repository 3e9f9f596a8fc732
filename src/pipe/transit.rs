//! Ends on their way to another process.
//!
//! # Protocol
//! Words, claims and withdrawal: [`crosslane_core::record`]'s hand-over. Here:
//! 1. the sender hands both ends over and puts segment and socket onto the message; nothing has changed yet, and a message
//!    that is not sent changes nothing. If the connection is dropped meanwhile, its ends are the message's: sent with it, or
//!    closed;
//! 2. the message has left ([`Moved::sent`]): the sender's connection is inert, and its socket closed, so that the only
//!    socket of this side is the one on its way;
//! 3. the receiver takes both ends over.
//! 4. The receiver is known to be dead, or never to read the message ([`Moved::lost`]): the sender withdraws what was not
//!    taken.
//!
//! # Crash
//! | killed between | the peer sees |
//! |---|---|
//! | 1 and 2, the sender | `PeerDied`, unless the receiver comes first |
//! | 2 and 3, the sender | the same |
//! | 2 and 3, the receiver | the end, as soon as the sender learns of the death |
//! | inside 3, the receiver | of the end that it has taken `PeerDied`, of the other one what the row before says |
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crosslane_core::record::Handover;
use crosslane_core::{OwnerId, Trusted};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::half::HANDLE;
use super::link::{Half, Link};
use super::{Connection, Receiver, Sender};
use crate::error::{Error, Result};
use crate::place::Placed;
use crate::shm::Record;
use crate::wire::{self, Moved, Portable};

/// An end of a pipe in the bytes of a message.
#[derive(Serialize, Deserialize)]
struct Ticket {
    outgoing: Placed<Record<Trusted>>,
    incoming: Placed<Record<Trusted>>,
    /// Whom to take them over from.
    from: u32,
    socket: u32,
    next_tag: u64,
    /// Descriptors that were received and not asked for.
    early: Vec<(u64, Vec<u32>)>,
}

/// What a sender keeps of ends that it has handed over.
#[derive(Debug)]
struct Leaving {
    link: Arc<Link>,
    outgoing: (Placed<Record<Trusted>>, Handover),
    incoming: (Placed<Record<Trusted>>, Handover),
}

impl Drop for Leaving {
    fn drop(&mut self) {
        for half in self.link.unpack() {
            match half {
                Half::Sender => self.outgoing.0.withdraw_writer(self.outgoing.1),
                Half::Receiver => self.incoming.0.withdraw_reader(self.incoming.1),
            }
        }
    }
}

impl Moved for Leaving {
    fn sent(&mut self) {
        self.link.close();
    }

    fn lost(&mut self) {
        self.outgoing.0.withdraw_writer(self.outgoing.1);
        self.incoming.0.withdraw_reader(self.incoming.1);
    }

    fn has_arrived(&self) -> bool {
        !self.outgoing.0.is_writer_on_its_way(self.outgoing.1) && !self.incoming.0.is_reader_on_its_way(self.incoming.1)
    }
}

impl<S: Portable, R: Portable> Serialize for Connection<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let (sender, receiver) = (&self.sender, &self.receiver);
        let (Some(writer), Some(reader), Some(socket)) = (&sender.writer, &receiver.reader, sender.link.socket())
        else {
            return Err(wire::already_sent(HANDLE));
        };
        let handed = |error| wire::refuse_to_go(super::half::unclaimed(error));
        // Before anything is handed over: whether it may travel at all.
        let socket = wire::attach(HANDLE, socket.as_fd())?;
        let outgoing = (sender.ring.clone(), writer.hand_over().map_err(handed)?);
        let incoming = (receiver.ring.clone(), reader.hand_over().map_err(handed)?);
        let early = {
            let inbox = sender.link.settle().map_err(wire::refuse_to_go)?;
            let attach = |fds: &Vec<OwnedFd>| {
                fds.iter().map(|fd| wire::attach(HANDLE, fd.as_fd())).collect::<Result<Vec<u32>, Z::Error>>()
            };
            inbox.descriptors.iter().map(|(tag, fds)| Ok((*tag, attach(fds)?))).collect::<Result<_, Z::Error>>()?
        };
        let ticket = Ticket {
            outgoing: outgoing.0.clone(),
            incoming: incoming.0.clone(),
            from: outgoing.1.from.to_word(),
            socket,
            next_tag: sender.next_tag,
            early,
        };
        if !sender.link.pack() {
            return Err(wire::already_sent(HANDLE));
        }
        let leaving = Leaving { link: Arc::clone(&sender.link), outgoing, incoming };
        wire::attach_moved(HANDLE, Box::new(leaving))?;
        ticket.serialize(serializer)
    }
}

impl<'de, S: Portable, R: Portable> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ticket = Ticket::deserialize(deserializer)?;
        let from = OwnerId::from_word(ticket.from).ok_or_else(|| wire::refuse_to_arrive(Error::Corrupt))?;
        let socket = wire::arrived(ticket.socket)?;
        let take = |indices: Vec<u32>| indices.into_iter().map(wire::arrived).collect::<Result<Vec<_>, D::Error>>();
        let early = ticket.early.into_iter().map(|(tag, indices)| Ok((tag, take(indices)?)));
        let link = Link::new(socket, early.collect::<Result<_, D::Error>>()?);
        // SAFETY: a process that handed the ends over keeps a connection that is inert: its link is closed, so each of its
        // calls refuses, and its drop leaves both ends.
        let writer = |ring: &Record<Trusted>, link| unsafe { ring.take_over_writer(from, link) };
        let sender = Sender::new(ticket.outgoing, Arc::clone(&link), ticket.next_tag, writer);
        // SAFETY: as above.
        let reader = |ring: &Record<Trusted>| unsafe { ring.take_over_reader(from) };
        let receiver = Receiver::new(ticket.incoming, link, reader);
        match (sender, receiver) {
            (Ok(sender), Ok(receiver)) => Ok(Self { sender, receiver }),
            (Err(error), _) | (_, Err(error)) => Err(wire::refuse_to_arrive(error)),
        }
    }
}

//! Ends on their way to another process.
//!
//! # Protocol
//! Words, claims and withdrawal: [`crosslane_core::record`]'s hand-over. Here:
//! 1. the sender puts a pass (`passage.rs`), segment and socket onto the message, and hands both ends over; nothing has changed
//!    yet, and a message that is not sent changes nothing. If the connection is dropped meanwhile, its ends are the message's:
//!    sent with it, or closed;
//! 2. the message has left ([`Moved::sent`]): the sender's connection is inert, and its socket and its copy of the pass closed,
//!    so that the only ones are those on their way;
//! 3. the receiver takes both ends over, and closes the pass.
//! 4. The receiver is known to be dead, or never to read the message ([`Moved::lost`]): the sender withdraws what was not
//!    taken.
//! 5. The message is gone, whether the sender knows or not: with it the kernel closes the pass, and the peer, which finds the
//!    end still on its way and no pass for that, takes it for closed.
//!
//! A half of a connection travels in the same way, with one end, a pass and a socket of its own: the sender's socket is closed
//! when both halves have left.
//!
//! # Crash
//! | killed between | the peer sees |
//! |---|---|
//! | 1 and 2, the sender | `PeerDied`, unless the receiver comes first |
//! | 2 and 3, the sender | the same |
//! | 2 and 3, the receiver | `Closed`, by step 5, or earlier by step 4 |
//! | inside 3, the receiver | of the end that it has taken `PeerDied`, of the other one what the row before says |
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crosslane_core::end::ClaimError;
use crosslane_core::record::Handover;
use crosslane_core::{OwnerId, Trusted};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::half::{HANDLE, RECEIVER, SENDER};
use super::link::{Half, Link};
use super::{Connection, Receiver, Sender, passage};
use crate::error::{Error, Result};
use crate::place::{Place, Placed};
use crate::shm::Record;
use crate::wire::{self, Moved, Portable};

/// Descriptors that were received and not asked for, by the tags of their messages.
type Early = Vec<(u64, Vec<u32>)>;

/// A sending half in the bytes of a message.
#[derive(Serialize, Deserialize)]
struct Outgoing {
    ring: Placed<Record<Trusted>>,
    /// Whom to take it over from, and how often it had been claimed.
    from: u32,
    claims: u32,
    next_tag: u64,
}

/// A receiving half in the bytes of a message.
#[derive(Serialize, Deserialize)]
struct Incoming {
    ring: Placed<Record<Trusted>>,
    from: u32,
    claims: u32,
    early: Early,
}

/// What a sender keeps of an end of a ring that it has handed over. Dropped before it was sent, the end is back.
#[derive(Debug)]
struct Left {
    link: Arc<Link>,
    half: Half,
    ring: Placed<Record<Trusted>>,
    handover: Handover,
}

impl Left {
    fn withdraw(&self) {
        match self.half {
            Half::Sender => self.ring.withdraw_writer(self.handover),
            Half::Receiver => self.ring.withdraw_reader(self.handover),
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        match self.half {
            _ if self.link.is_closed(self.half) => {}
            Half::Sender => self.ring.keep_writer(self.handover),
            Half::Receiver => {
                self.ring.keep_reader(self.handover);
                self.link.stay();
            }
        }
    }
}

/// What it keeps of a connection, or of a half of one.
#[derive(Debug)]
struct Leaving {
    link: Arc<Link>,
    ends: Vec<Left>,
    handle: &'static str,
    /// Until the message is sent; closed behind the ends, which then are back.
    pass: Option<OwnedFd>,
}

impl Leaving {
    /// # Errors
    /// One of the ends is in a message already.
    fn new<E: serde::ser::Error>(
        link: &Arc<Link>,
        pass: OwnedFd,
        ends: Vec<Left>,
        handle: &'static str,
    ) -> Result<Self, E> {
        let mut leaving = Self { link: Arc::clone(link), ends: Vec::new(), handle, pass: Some(pass) };
        for end in ends {
            if !link.pack(end.half) {
                return Err(wire::already_sent(handle));
            }
            leaving.ends.push(end);
        }
        Ok(leaving)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        for end in &self.ends {
            if self.link.unpack(end.half) {
                end.withdraw();
            }
        }
    }
}

impl Moved for Leaving {
    fn sent(&mut self) {
        self.link.close(self.ends.iter().map(|end| end.half));
        self.pass = None;
    }

    fn lost(&mut self) {
        self.ends.iter().for_each(Left::withdraw);
    }

    fn receives_from(&self, ring: Place) -> Option<&'static str> {
        let does = |end: &Left| end.half == Half::Receiver && end.ring.place() == ring;
        self.ends.iter().any(does).then_some(self.handle)
    }
}

/// Puts the socket of `link` onto the message, before anything is handed over: whether it may travel at all.
fn attach_socket<E: serde::ser::Error>(link: &Link, half: Half, handle: &'static str) -> Result<u32, E> {
    match link.socket().filter(|_| !link.is_closed(half)) {
        Some(socket) => wire::attach(handle, socket.as_fd()),
        None => Err(wire::already_sent(handle)),
    }
}

/// Puts the pass of these halves onto the message; what is left of it here is to be kept until the message is sent.
fn attach_pass<E: serde::ser::Error>(
    halves: &[(&Placed<Record<Trusted>>, Half)],
    handle: &'static str,
) -> Result<(u32, OwnedFd), E> {
    let pass = passage::pass(halves).map_err(wire::refuse_to_go)?;
    Ok((wire::attach(handle, pass.as_fd())?, pass))
}

fn handed<E: serde::ser::Error>(error: ClaimError) -> E {
    wire::refuse_to_go(super::half::unclaimed(error))
}

fn handover(from: u32, claims: u32) -> Result<Handover> {
    Ok(Handover { from: OwnerId::from_word(from).ok_or(Error::Corrupt)?, claims })
}

impl<S: Portable> Sender<S> {
    fn hand_over<E: serde::ser::Error>(&self) -> Result<(Outgoing, Left), E> {
        let writer = self.writer.as_ref().ok_or_else(|| wire::already_sent(self.handle))?;
        let handover = writer.hand_over().map_err(handed)?;
        let left = Left { link: Arc::clone(&self.link), half: Half::Sender, ring: self.ring.clone(), handover };
        let (ring, from, claims) = (self.ring.clone(), handover.from.to_word(), handover.claims);
        Ok((Outgoing { ring, from, claims, next_tag: self.next_tag }, left))
    }

    fn take_over(outgoing: Outgoing, link: Arc<Link>) -> Result<Self> {
        let handover = handover(outgoing.from, outgoing.claims)?;
        // SAFETY: a process that handed an end over keeps a half that is inert: its link is closed, so each of its calls
        // refuses, and its drop leaves the end.
        let writer = |ring: &Record<Trusted>, link| unsafe { ring.take_over_writer(handover, link) };
        Self::new(outgoing.ring, link, outgoing.next_tag, writer)
    }
}

impl<R: Portable> Receiver<R> {
    fn hand_over<E: serde::ser::Error>(&self) -> Result<(Incoming, Left), E> {
        let reader = self.reader.as_ref().ok_or_else(|| wire::already_sent(self.handle))?;
        let handover = reader.hand_over().map_err(handed)?;
        let left = Left { link: Arc::clone(&self.link), half: Half::Receiver, ring: self.ring.clone(), handover };
        let early = {
            let inbox = self.link.settle().map_err(wire::refuse_to_go)?;
            let attach = |fds: &Vec<OwnedFd>| {
                fds.iter().map(|fd| wire::attach(self.handle, fd.as_fd())).collect::<Result<Vec<u32>, E>>()
            };
            inbox.descriptors.iter().map(|(tag, fds)| Ok((*tag, attach(fds)?))).collect::<Result<_, E>>()?
        };
        let (ring, from, claims) = (self.ring.clone(), handover.from.to_word(), handover.claims);
        Ok((Incoming { ring, from, claims, early }, left))
    }

    fn take_over(incoming: Incoming, link: Arc<Link>) -> Result<Self> {
        let handover = handover(incoming.from, incoming.claims)?;
        // SAFETY: as for the sending half.
        let reader = |ring: &Record<Trusted>| unsafe { ring.take_over_reader(handover) };
        Self::new(incoming.ring, link, reader)
    }
}

/// The link of an end that has come, with the descriptors that had been received for it.
fn link_of<E: serde::de::Error>(socket: u32, early: Early) -> Result<Arc<Link>, E> {
    let socket = wire::arrived(socket)?;
    let take = |indices: Vec<u32>| indices.into_iter().map(wire::arrived).collect::<Result<Vec<_>, E>>();
    let early = early.into_iter().map(|(tag, indices)| Ok((tag, take(indices)?)));
    Ok(Link::new(socket, early.collect::<Result<_, E>>()?))
}

impl<S: Portable, R: Portable> Serialize for Connection<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let link = &self.sender.link;
        let socket = attach_socket(link, Half::Sender, HANDLE)?;
        let rings = [(&self.sender.ring, Half::Sender), (&self.receiver.ring, Half::Receiver)];
        let (number, pass) = attach_pass(&rings, HANDLE)?;
        let ((outgoing, writer), (incoming, reader)) = (self.sender.hand_over()?, self.receiver.hand_over()?);
        wire::attach_moved(HANDLE, Box::new(Leaving::new(link, pass, vec![writer, reader], HANDLE)?))?;
        (socket, number, outgoing, incoming).serialize(serializer)
    }
}

impl<'de, S: Portable, R: Portable> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (socket, pass, outgoing, mut incoming) = <(u32, u32, Outgoing, Incoming)>::deserialize(deserializer)?;
        // Closed at the end.
        let _pass = wire::arrived(pass)?;
        let link = link_of(socket, std::mem::take(&mut incoming.early))?;
        let sender = Sender::take_over(outgoing, Arc::clone(&link)).map_err(wire::refuse_to_arrive);
        let receiver = Receiver::take_over(incoming, link).map_err(wire::refuse_to_arrive);
        Ok(Self { sender: sender?, receiver: receiver? })
    }
}

impl<S: Portable> Serialize for Sender<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let socket = attach_socket(&self.link, Half::Sender, SENDER)?;
        let (number, pass) = attach_pass(&[(&self.ring, Half::Sender)], SENDER)?;
        let (outgoing, writer) = self.hand_over()?;
        wire::attach_moved(SENDER, Box::new(Leaving::new(&self.link, pass, vec![writer], SENDER)?))?;
        (socket, number, outgoing).serialize(serializer)
    }
}

impl<'de, S: Portable> Deserialize<'de> for Sender<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (socket, pass, outgoing) = <(u32, u32, Outgoing)>::deserialize(deserializer)?;
        let _pass = wire::arrived(pass)?;
        let link = link_of(socket, Early::new())?;
        let mut sender = Self::take_over(outgoing, link).map_err(wire::refuse_to_arrive)?;
        sender.handle = SENDER;
        Ok(sender)
    }
}

impl<R: Portable> Serialize for Receiver<R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let socket = attach_socket(&self.link, Half::Receiver, RECEIVER)?;
        let (number, pass) = attach_pass(&[(&self.ring, Half::Receiver)], RECEIVER)?;
        let (incoming, reader) = self.hand_over()?;
        wire::attach_moved(RECEIVER, Box::new(Leaving::new(&self.link, pass, vec![reader], RECEIVER)?))?;
        (socket, number, incoming).serialize(serializer)
    }
}

impl<'de, R: Portable> Deserialize<'de> for Receiver<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (socket, pass, mut incoming) = <(u32, u32, Incoming)>::deserialize(deserializer)?;
        let _pass = wire::arrived(pass)?;
        let link = link_of(socket, std::mem::take(&mut incoming.early))?;
        let mut receiver = Self::take_over(incoming, link).map_err(wire::refuse_to_arrive)?;
        receiver.handle = RECEIVER;
        Ok(receiver)
    }
}

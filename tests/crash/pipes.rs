//! Pipes between spawned processes: an end's owner is killed while it sends or receives, whatever is in the message.
//!
//! A message comes whole or not at all, the peer is told of the death, and what was in a message that never came (a
//! descriptor, an end of another pipe) has no owner left.

use std::fs::File;
use std::io::{PipeReader, Read, Write};

use crosslane::{
    Connection, Descriptor, Error, Portable, Process, Queue, Receiver, Semaphore, Sender, pipe_with_capacity, spawn,
};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role};

use crate::Wanted;
use crate::spawned::{Answer, Knife, PATIENCE, Story, tell};

type Pipe<M> = Connection<M, M>;

/// Bytes of each direction of a pipe.
const CAPACITY_BYTES: usize = 1 << 10;
/// A message that is copied by blocks, and wraps around the ring's end.
const BULK_BYTES: usize = 600;
/// Instructions between two points, where most of them are serde's, libc's or a copy's.
const STRIDE: u64 = 127;

/// What is in a message.
trait Freight: Portable + Send {
    /// What shows, in the driver, what has become of it.
    type Witness: Send;
    fn load() -> (Self, Self::Witness);
    /// It came to the driver.
    fn inspect(self, witness: Self::Witness) -> Result<(), String>;
    /// Everybody who had it is dead, or has dropped it.
    fn lost(_: Self::Witness) -> Result<(), String> {
        Ok(())
    }
}

const NUMBER: u64 = 0x0123_4567_89ab_cdef;

fn must_be<T: PartialEq>(what: &str, found: &T, due: &T) -> Result<(), String> {
    if found == due { Ok(()) } else { Err(format!("{what} is not what it was")) }
}

impl Freight for u64 {
    type Witness = ();

    fn load() -> (Self, ()) {
        (NUMBER, ())
    }

    fn inspect(self, (): ()) -> Result<(), String> {
        must_be("the number", &self, &NUMBER)
    }
}

impl Freight for Vec<u8> {
    type Witness = ();

    fn load() -> (Self, ()) {
        ((0..BULK_BYTES).map(|i| (i % 251).to_le_bytes()[0]).collect(), ())
    }

    fn inspect(self, (): ()) -> Result<(), String> {
        must_be("the bytes", &self, &Self::load().0)
    }
}

impl Freight for Queue<u64> {
    type Witness = Self;

    fn load() -> (Self, Self) {
        let queue = Self::bounded(2).expect("a small queue");
        (queue.clone(), queue)
    }

    fn inspect(self, witness: Self) -> Result<(), String> {
        self.put_timeout(NUMBER, PATIENCE).map_err(|error| format!("put: {error}"))?;
        must_be("the number", &witness.get_timeout(PATIENCE).map_err(|error| format!("get: {error}"))?, &NUMBER)
    }

    fn lost(witness: Self) -> Result<(), String> {
        witness.clone().inspect(witness)
    }
}

/// The writing end of a kernel's pipe.
impl Freight for Descriptor {
    type Witness = PipeReader;

    fn load() -> (Self, PipeReader) {
        let (reader, writer) = std::io::pipe().expect("two descriptors");
        (Self(writer.into()), reader)
    }

    fn inspect(self, mut witness: PipeReader) -> Result<(), String> {
        File::from(self.0).write_all(&[7]).map_err(|error| error.to_string())?;
        let mut byte = [0];
        witness.read_exact(&mut byte).map_err(|error| error.to_string())?;
        must_be("the byte", &byte, &[7])?;
        Self::lost(witness)
    }

    fn lost(witness: PipeReader) -> Result<(), String> {
        crosslane::wait(&[&witness], Some(PATIENCE))
            .map_err(|error| error.to_string())
            .and_then(|ready| if ready.is_empty() { Err("somebody keeps the descriptor".into()) } else { Ok(()) })
    }
}

/// An end of another pipe.
impl Freight for Pipe<u64> {
    type Witness = Self;

    fn load() -> (Self, Self) {
        pipe_with_capacity(64).expect("a small pipe")
    }

    fn inspect(mut self, mut witness: Self) -> Result<(), String> {
        self.send(&NUMBER).map_err(|error| format!("the end that came: {error}"))?;
        let got = witness.recv_timeout(PATIENCE).map_err(|error| format!("its peer: {error}"))?;
        must_be("the number", &got, &NUMBER)?;
        drop(self);
        Self::lost(witness)
    }

    fn lost(mut witness: Self) -> Result<(), String> {
        match witness.recv_timeout(PATIENCE) {
            Err(Error::Closed | Error::PeerDied) => Ok(()),
            other => Err(format!("the peer of the end that is lost: {other:?}")),
        }
    }
}

/// A half of an end, the other half of which the driver keeps.
impl Freight for Sender<u64> {
    type Witness = (Pipe<u64>, Receiver<u64>);

    fn load() -> (Self, Self::Witness) {
        let (peer, end) = Pipe::load();
        let (sender, receiver) = end.split();
        (sender, (peer, receiver))
    }

    fn inspect(mut self, (mut peer, mut receiver): Self::Witness) -> Result<(), String> {
        self.send(&NUMBER).map_err(|error| format!("the half that came: {error}"))?;
        must_be("the number", &peer.recv_timeout(PATIENCE).map_err(|error| format!("its peer: {error}"))?, &NUMBER)?;
        peer.send(&NUMBER).map_err(|error| format!("to the half that stayed: {error}"))?;
        must_be("the number", &receiver.recv().map_err(|error| format!("the half that stayed: {error}"))?, &NUMBER)?;
        drop(self);
        Self::lost((peer, receiver))
    }

    fn lost((peer, _receiver): Self::Witness) -> Result<(), String> {
        Pipe::lost(peer)
    }
}

/// A pipe through which enough went that the next long message goes round its ring's end.
fn used_pipe<M: Freight>() -> (Pipe<M>, Pipe<M>) {
    let (mut a, mut b) = pipe_with_capacity(CAPACITY_BYTES).expect("a small pipe");
    for _ in 0..2 {
        a.send_bytes(&[1; BULK_BYTES / 2]).expect("there is room");
        b.send_bytes(&[1; BULK_BYTES / 2]).expect("there is room");
        a.recv_bytes().and_then(|_| b.recv_bytes()).expect("they were sent");
    }
    (a, b)
}

/// What the driver's end says when the victim is gone.
fn gone<M: Freight>(a: &mut Pipe<M>, was_killed: bool) -> Result<(), String> {
    match (a.recv_timeout(PATIENCE).map(|_| ()), was_killed) {
        (Err(Error::PeerDied), true) | (Err(Error::Closed), false) => Ok(()),
        (other, _) => Err(format!("of a peer that is gone: {other:?}")),
    }
}

/// The victim sends.
struct Sending<M: Freight> {
    a: Pipe<M>,
    b: Option<Pipe<M>>,
    freight: Option<M>,
    witness: M::Witness,
    got: Option<crosslane::Result<M>>,
}

impl<M: Freight> Sending<M> {
    fn new() -> Self {
        let ((a, b), (freight, witness)) = (used_pipe(), M::load());
        Self { a, b: Some(b), freight: Some(freight), witness, got: None }
    }
}

impl<M: Freight> Story for Sending<M> {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let send = |(knife, mut b, freight): (Knife, Pipe<M>, M)| knife.under(|| b.send(&freight)).expect("it is sent");
        spawn(send, (knife, self.b.take().expect("once"), self.freight.take().expect("once")))
    }

    fn attend(&mut self) -> Result<(), String> {
        self.got = Some(self.a.recv_timeout(PATIENCE));
        Ok(())
    }

    fn survive(mut self, answer: Answer<()>) -> Result<(), String> {
        let got = self.got.take().unwrap_or_else(|| self.a.recv_timeout(PATIENCE));
        match (got, answer.is_err()) {
            (Ok(freight), was_killed) => {
                gone(&mut self.a, was_killed)?;
                freight.inspect(self.witness)
            }
            (Err(Error::PeerDied), true) => {
                drop(self.a);
                M::lost(self.witness)
            }
            (Err(error), was_killed) => Err(format!("no message, killed {was_killed}: {error}")),
        }
    }
}

/// The victim receives; what it got is its result.
struct Receiving<M: Freight> {
    a: Pipe<M>,
    b: Option<Pipe<M>>,
    freight: Option<M>,
    witness: M::Witness,
}

impl<M: Freight> Receiving<M> {
    /// `is_sent`: before the victim begins.
    fn new(is_sent: bool) -> Self {
        let ((a, b), (freight, witness)) = (used_pipe(), M::load());
        let mut story = Self { a, b: Some(b), freight: Some(freight), witness };
        if is_sent {
            story.rouse();
        }
        story
    }

    /// Sent before the victim begins, by who then hands its end on: nobody knows any more what was on its way.
    fn forgotten() -> Self {
        let mut story = Self::new(true);
        story.freight = None;
        let (mut here, mut there) = pipe_with_capacity::<Pipe<M>, ()>(CAPACITY_BYTES).expect("a small pipe");
        here.send(&story.a).expect("there is room");
        story.a = there.recv().expect("it was sent");
        story
    }
}

impl<M: Freight> Story for Receiving<M> {
    type Output = M;

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<M>> {
        let receive = |(knife, mut b): (Knife, Pipe<M>)| knife.under(|| b.recv()).expect("it comes");
        spawn(receive, (knife, self.b.take().expect("once")))
    }

    fn rouse(&mut self) {
        let freight = self.freight.take().expect("once");
        self.a.send(&freight).expect("there is room");
    }

    fn survive(mut self, answer: Answer<M>) -> Result<(), String> {
        drop(self.freight);
        gone(&mut self.a, answer.is_err())?;
        // Though the connection is neither used nor dropped: the victim's parent knows that it is dead.
        match answer {
            Ok(freight) => freight.inspect(self.witness),
            Err(_) => M::lost(self.witness),
        }
    }
}

/// The victim sends into a pipe that is full.
struct Filled {
    a: Pipe<u64>,
    b: Option<Pipe<u64>>,
    sent: u64,
    got: u64,
}

impl Filled {
    fn new() -> Self {
        let (a, mut b) = used_pipe();
        let sent = (0..).find(|number| b.try_send(number).is_err()).expect("it is full at last");
        Self { a, b: Some(b), sent, got: 0 }
    }

    fn receive(&mut self) -> Result<(), Error> {
        let number = self.a.recv_timeout(PATIENCE)?;
        if number != self.got {
            return Err(Error::Corrupt);
        }
        self.got += 1;
        Ok(())
    }
}

impl Story for Filled {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let send = |(knife, mut b, last): (Knife, Pipe<u64>, u64)| knife.under(|| b.send(&last)).expect("it is sent");
        spawn(send, (knife, self.b.take().expect("once"), self.sent))
    }

    fn rouse(&mut self) {
        // A sender is woken when there is room for more than one.
        for _ in 0..self.sent / 2 + 1 {
            self.receive().expect("it was sent");
        }
    }

    fn survive(mut self, answer: Answer<()>) -> Result<(), String> {
        let end = loop {
            if let Err(error) = self.receive() {
                break error;
            }
        };
        let whole = self.got == self.sent + 1 || self.got == self.sent && answer.is_err();
        let is_told = matches!((&end, answer.is_err()), (Error::PeerDied, true) | (Error::Closed, false));
        if whole && is_told { Ok(()) } else { Err(format!("{} of {} came, then: {end}", self.got, self.sent + 1)) }
    }
}

/// Seeded: a message that is sent in two parts.
struct InParts(Pipe<u64>, Option<Pipe<u64>>);

impl Story for InParts {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let send = |(knife, mut b): (Knife, Pipe<u64>)| {
            knife.under(|| {
                b.send(&1).expect("it is sent");
                // A system call between them, where points are.
                let _ = std::os::unix::process::parent_id();
                b.send(&2).expect("it is sent");
            });
        };
        spawn(send, (knife, self.1.take().expect("once")))
    }

    fn survive(mut self, _: Answer<()>) -> Result<(), String> {
        match (self.0.recv_timeout(PATIENCE), self.0.recv_timeout(PATIENCE)) {
            (Ok(1), Ok(2)) | (Err(_), Err(_)) => Ok(()),
            _ => Err("half a message".into()),
        }
    }
}

/// Seeded: receivers that take turns by a semaphore, as those of Python's queues do.
struct InTurn(Pipe<u64>, Option<Pipe<u64>>, Semaphore);

impl Story for InTurn {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        self.0.send(&1)?;
        let receive = |(knife, mut b, turn): (Knife, Pipe<u64>, Semaphore)| {
            knife.under(|| {
                turn.acquire().expect("a turn");
                let _ = b.recv();
                turn.release(1).expect("it was taken");
            });
        };
        spawn(receive, (knife, self.1.take().expect("once"), self.2.clone()))
    }

    fn survive(self, _: Answer<()>) -> Result<(), String> {
        self.2
            .acquire_timeout(core::time::Duration::from_millis(50))
            .map_err(|error| format!("the next one's turn: {error}"))
    }
}

fn both<M: Freight>(wanted: &Wanted, table: &mut Table, names: [&'static str; 2], stride: u64) {
    let cut = Cut::Edges { stride };
    tell(wanted, table, &Plan::new(names[0], 20).cut(cut), Sending::<M>::new);
    tell(wanted, table, &Plan::new(names[1], 20).cut(cut), || Receiving::<M>::new(true));
}

/// The sweeps, and what must be found.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let (send, receive) = (Plan::new("pipe: send", 50), Plan::new("pipe: receive", 50));
    let at = |plan: &Plan, role, stride| plan.clone().role(role).cut(Cut::Edges { stride });
    tell(wanted, table, &at(&send, Role::Alone, 2), Sending::<u64>::new);
    tell(wanted, table, &at(&send, Role::PeersAsleep(1), 3), Sending::<u64>::new);
    tell(wanted, table, &at(&send, Role::Asleep, 3), Filled::new);
    tell(wanted, table, &at(&send, Role::JustWoken, 2), Filled::new);
    tell(wanted, table, &at(&receive, Role::Alone, 2), || Receiving::<u64>::new(true));
    tell(wanted, table, &at(&receive, Role::Asleep, 3), || Receiving::<u64>::new(false));
    tell(wanted, table, &at(&receive, Role::JustWoken, 2), || Receiving::<u64>::new(false));
    both::<Vec<u8>>(wanted, table, ["pipe: send 600 bytes", "pipe: receive 600 bytes"], 19);
    both::<Queue<u64>>(wanted, table, ["pipe: send a queue", "pipe: receive a queue"], STRIDE);
    both::<Descriptor>(wanted, table, ["pipe: send a file", "pipe: receive a file"], STRIDE);
    both::<Pipe<u64>>(wanted, table, ["pipe: send an end", "pipe: receive an end"], STRIDE);
    both::<Sender<u64>>(wanted, table, ["pipe: send a half", "pipe: receive a half"], 499);
    let forgotten = Plan::new("pipe: half on no list", 20).cut(Cut::Edges { stride: 499 });
    tell(wanted, table, &forgotten, Receiving::<Sender<u64>>::forgotten);

    tell(wanted, table, &Plan::new("message in two parts", 1).cut(Cut::Edges { stride: 0 }).seeded(), || {
        let (a, b) = used_pipe();
        InParts(a, Some(b))
    });
    tell(wanted, table, &Plan::new("receivers in turn", 1).seeded(), || {
        let (a, b) = used_pipe();
        InTurn(a, Some(b), Semaphore::new(1).expect("a small object"))
    });
}

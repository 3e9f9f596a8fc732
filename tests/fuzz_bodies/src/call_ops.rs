//! Requests and responses against a model of each call: several clients, a server that acts while they wait, both of which
//! leave, die and are replaced; and the same calls on memory that a hostile peer writes.
#![allow(unsafe_code)]

use core::cell::{Cell, RefCell};
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use arbitrary::Arbitrary;
use crosslane_core::call::{CallError, Calls, Client, ConnectError, LINE_BYTES, RespondError, Server, Shape};
use crosslane_core::end::ClaimError;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};

use crate::arena::{Arena, Poke, Start};
use crate::surroundings::{Env, World};

/// Where the cells begin, how long each is, and where its 64-bit words lie.
const CELLS_AT: usize = 128;
const CELL_BYTES: usize = 128;
const LINE: core::ops::Range<usize> = 8..64;
/// Participants of one run; the world tells 128 apart.
const MOST: u32 = 100;

#[derive(Debug, Arbitrary)]
struct Input {
    clients: u8,
    max_request: u16,
    max_response: u16,
    guarded: bool,
    /// Whether the peer is hostile, and with what it begins.
    hostile: Option<Start>,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Arbitrary)]
enum Op {
    Connect,
    Leave(u8),
    KillClient(u8),
    Call { client: u8, len: u16, draft: bool, parks: u8, meanwhile: [Act; 3] },
    Act(Act),
}

/// What the server, or a hostile peer, does, also while a client waits.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Act {
    Nothing,
    Respond(u16),
    Reply(u16, u8),
    Drop,
    Claim,
    Close,
    Kill,
    Reap,
    Poke(Poke),
}

/// Runs one input. Planted: a server that forgets the last byte of long responses; or, if the peer is hostile, a table by a
/// length that a peer wrote.
///
/// # Panics
/// When calls and model differ, or a call does not return.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let clients = 1 + u32::from(input.clients % 4);
    let (request, response) = (u32::from(input.max_request % 600), u32::from(input.max_response % 600));
    let shape = Shape::new(clients).max_request_bytes(request).max_response_bytes(response);
    let len = Calls::layout(shape).expect("a few cells").size();
    let (arena, world) = (Arena::new(len, input.guarded), World::default());
    // SAFETY: the arena is as long as the layout says, and the handles end before it.
    let _ = unsafe { Calls::init(arena.base(), len, shape) }.expect("fits");
    if let Some(Start::Bytes(bytes)) = &input.hostile {
        arena.flood(bytes);
    }
    // SAFETY: as above.
    let Ok(calls) = (unsafe { Calls::attach(arena.base(), len, clients) }) else {
        return assert!(input.hostile.is_some());
    };
    let office = Office {
        calls,
        arena: &arena,
        world: &world,
        hostile: input.hostile.is_some(),
        planted,
        participants: Cell::new(0),
        server: RefCell::new(None),
        seat: Cell::new(Seat::Vacant),
        call: RefCell::new(Call::default()),
        clean: RefCell::new(Vec::new()),
    };
    let mut guests = Vec::new();
    for op in &input.ops {
        world.next_operation();
        office.step(op, &mut guests);
    }
    drop(guests);
    drop(office.server.take());
}

/// What is known of the server's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Vacant,
    Open(u32),
    Closed,
    Dead(u32),
}

/// What is known of the call that is under way.
#[derive(Debug, Default)]
struct Call {
    request: Vec<u8>,
    /// What the server is to do in the client's next parks.
    meanwhile: Vec<Act>,
    /// The request stands in its cell at the first park for sure.
    is_sent: bool,
    /// The server has had it.
    seen: bool,
    /// The server's end was vacant, closed or dead at some time.
    unserved: bool,
    failed: bool,
    response: Option<Vec<u8>>,
}

struct Office<'m> {
    calls: Calls<'m>,
    arena: &'m Arena,
    world: &'m World,
    hostile: bool,
    planted: bool,
    participants: Cell<u32>,
    server: RefCell<Option<Server<'m, Env<'m>>>>,
    seat: Cell<Seat>,
    call: RefCell<Call>,
    /// Participants whose cells hold no call that was given up.
    clean: RefCell<Vec<u32>>,
}

/// A client that is connected, and the participant that it is.
struct Guest<'o, 'm> {
    client: Client<'m, Visitor<'o, 'm>>,
    index: u32,
}

/// The surroundings of a client: while it would sleep, the server acts.
#[derive(Clone, Copy)]
struct Visitor<'o, 'm> {
    env: Env<'m>,
    office: &'o Office<'m>,
}

impl Wait for Visitor<'_, '_> {
    type Deadline = u64;
    fn never(&self) -> u64 {
        self.env.never()
    }
    fn after(&self, timeout: Duration) -> u64 {
        self.env.after(timeout)
    }
    fn park(&self, word: &AtomicU32, expected: u32, slice: Slice, deadline: u64) -> Parked {
        let act = self.office.call.borrow_mut().meanwhile.pop();
        self.office.act(act.unwrap_or(Act::Nothing));
        self.env.park(word, expected, slice, deadline)
    }
    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        self.env.wake(word, count)
    }
    fn spins(&self) -> u32 {
        self.env.spins()
    }
    fn in_heavy_barriers(&self) -> bool {
        self.env.in_heavy_barriers()
    }
    fn heavy_barrier(&self) -> bool {
        self.env.heavy_barrier()
    }
}

impl Liveness for Visitor<'_, '_> {
    fn me(&self) -> Option<OwnerId> {
        self.env.me()
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.env.is_dead(owner)
    }
}

/// `len` bytes that tell their place and `salt`.
fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + salt) % 251).unwrap_or(0)).collect()
}

/// One call, and a copy of its response.
fn ask<E: Wait + Liveness>(
    client: &mut Client<'_, E>,
    request: &[u8],
    draft: bool,
    time: Duration,
) -> Result<Vec<u8>, CallError> {
    let message = if draft {
        let mut draft = client.draft_timeout(request.len(), time)?;
        for (i, piece) in request.chunks(5).enumerate() {
            draft.copy_from(i * 5, piece);
        }
        draft.call_timeout(time)
    } else {
        client.call_timeout(request, time)
    }?;
    let mut copy = vec![0; message.len_bytes()];
    message.copy_to(0, &mut copy);
    Ok(copy)
}

impl<'m> Office<'m> {
    fn join(&self) -> Option<u32> {
        let index = self.participants.get() + 1;
        self.participants.set(index.min(MOST));
        (index < MOST).then_some(index)
    }

    fn step<'o>(&'o self, op: &Op, guests: &mut Vec<Guest<'o, 'm>>) {
        let of = |number: u8| (!guests.is_empty()).then(|| usize::from(number) % guests.len());
        match op {
            Op::Connect => self.connect(guests),
            Op::Leave(number) => {
                if let Some(at) = of(*number) {
                    drop(guests.swap_remove(at));
                }
            }
            Op::KillClient(number) => {
                if let Some(at) = of(*number) {
                    let guest = guests.swap_remove(at);
                    self.world.bury(guest.index);
                    core::mem::forget(guest.client);
                }
            }
            Op::Call { client, len, draft, parks, meanwhile } => {
                if let Some(at) = of(*client) {
                    self.call(&mut guests[at], usize::from(*len) % 620, *draft, *parks, meanwhile);
                }
            }
            Op::Act(act) => {
                *self.call.borrow_mut() = Call { failed: true, ..Call::default() };
                self.act(*act);
            }
        }
    }

    fn connect<'o>(&'o self, guests: &mut Vec<Guest<'o, 'm>>) {
        let Some(index) = self.join() else { return };
        let env = Env::new(self.world, index);
        match self.calls.client(Visitor { env, office: self }) {
            Ok(client) => {
                assert!(self.hostile || guests.len() < self.calls.capacity() as usize);
                // Its cell may be one in which a dead client's request waits.
                self.clean.borrow_mut().retain(|clean| *clean != index);
                guests.push(Guest { client, index });
            }
            Err(ConnectError::Full) => {
                assert!(self.hostile || guests.len() == self.calls.capacity() as usize);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn call(&self, guest: &mut Guest<'_, 'm>, len: usize, draft: bool, parks: u8, meanwhile: &[Act; 3]) {
        let serves = matches!(self.seat.get(), Seat::Open(_));
        let request = bytes(len, guest.index as usize + usize::from(parks));
        let is_sent = serves && self.clean.borrow().contains(&guest.index);
        let call = Call { request: request.clone(), meanwhile: meanwhile.to_vec(), is_sent, ..Call::default() };
        *self.call.borrow_mut() = Call { unserved: !serves, ..call };
        self.clean.borrow_mut().retain(|index| *index != guest.index);
        let time = Duration::from_nanos(u64::from(parks));
        let max_bytes = guest.client.max_request_bytes();
        let found = ask(&mut guest.client, &request, draft, time);
        let call = self.call.take();
        if self.hostile {
            black_box(found.ok());
            return;
        }
        let right = match &found {
            Ok(response) => call.response.as_ref() == Some(response),
            Err(CallError::TooLong { len_bytes, max_bytes: max }) => {
                (*len_bytes, *max) == (len, max_bytes) && len > max_bytes
            }
            Err(CallError::PeerDied | CallError::NoServer) => call.unserved || call.failed,
            // Also of a call that failed in the moment of its deadline.
            Err(CallError::TimedOut) => call.response.is_none(),
            Err(_) => false,
        };
        assert!(right, "{:?} of {call:?}", found.as_ref().map(Vec::len));
        if found.is_ok() {
            self.clean.borrow_mut().push(guest.index);
        }
    }

    fn act(&self, act: Act) {
        match act {
            Act::Respond(len) => self.serve(usize::from(len) % 620, None),
            Act::Reply(len, piece) => self.serve(usize::from(len) % 620, Some(usize::from(piece) + 1)),
            Act::Drop => self.drop_request(),
            Act::Claim => self.claim(),
            Act::Close => {
                if self.server.take().is_some() {
                    self.seat.set(Seat::Closed);
                    self.call.borrow_mut().failed = true;
                }
            }
            Act::Kill => {
                if let (Some(server), Seat::Open(index)) = (self.server.take(), self.seat.get()) {
                    core::mem::forget(server);
                    self.world.bury(index);
                    self.seat.set(Seat::Dead(index));
                }
            }
            Act::Reap => {
                let env = Env::new(self.world, MOST);
                self.calls.reap(&env, &env);
            }
            Act::Poke(poke) if self.hostile => self.poke(poke),
            Act::Nothing | Act::Poke(_) => {}
        }
        if !matches!(self.seat.get(), Seat::Open(_)) {
            self.call.borrow_mut().unserved = true;
        }
    }

    /// Notes that the server has a request, which must be that of the call under way, and for the first time.
    fn note(&self, found: &[u8]) {
        let mut call = self.call.borrow_mut();
        assert!(self.hostile || !call.seen && call.request == found, "{} bytes, and {call:?}", found.len());
        call.seen = true;
    }

    fn serve(&self, len: usize, piece: Option<usize>) {
        let mut server = self.server.borrow_mut();
        let Some(server) = server.as_mut() else { return };
        let Ok(request) = server.try_recv() else { return self.missed() };
        let mut found = vec![0; request.len_bytes()];
        request.copy_to(0, &mut found);
        self.note(&found);
        let response = bytes(len, found.len() + 7);
        let max = request.max_response_bytes();
        let sent = match piece {
            _ if self.planted && len > LINE_BYTES && len <= max => request.respond(&response[..len - 1]),
            None => request.respond(&response),
            Some(piece) => request.reply(len).and_then(|mut reply| {
                for (i, bytes) in response.chunks(piece).enumerate() {
                    reply.copy_from(i * piece, bytes);
                }
                reply.send()
            }),
        };
        let mut call = self.call.borrow_mut();
        match sent {
            Ok(waited) => {
                assert!(self.hostile || waited, "the client waits");
                call.response = Some(response);
            }
            Err(RespondError::TooLong { len_bytes, max_bytes }) => {
                assert!(len > max && (len_bytes, max_bytes) == (len, max));
                call.failed = true;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn drop_request(&self) {
        let mut server = self.server.borrow_mut();
        let Some(server) = server.as_mut() else { return };
        let Ok(request) = server.try_recv() else { return self.missed() };
        let mut found = vec![0; request.len_bytes()];
        request.copy_to(0, &mut found);
        drop(request);
        self.note(&found);
        self.call.borrow_mut().failed = true;
    }

    /// The server has found no request.
    fn missed(&self) {
        let call = self.call.borrow();
        let due = call.is_sent && !call.seen && !call.unserved && !call.failed;
        assert!(self.hostile || !due, "no request, and {call:?}");
    }

    fn claim(&self) {
        let Some(index) = self.join() else { return };
        let claimed = self.calls.server(Env::new(self.world, index));
        match claimed {
            Ok(server) => {
                assert!(self.hostile || !matches!(self.seat.get(), Seat::Open(_)), "two servers");
                self.server.replace(Some(server));
                self.seat.set(Seat::Open(index));
                self.call.borrow_mut().failed = true;
                // Nothing is asked any more, of whoever there is.
                *self.clean.borrow_mut() = (1..MOST).collect();
            }
            Err(ClaimError::EndTaken(owner)) => {
                assert!(self.hostile || self.seat.get() == Seat::Open(owner.index()));
            }
            Err(error) => assert!(self.hostile, "{error}"),
        }
    }

    fn poke(&self, poke: Poke) {
        let cells = self.calls.capacity() as usize;
        let wide: Vec<_> =
            (0..cells).flat_map(|i| LINE.step_by(8).map(move |at| CELLS_AT + i * CELL_BYTES + at)).collect();
        // The last bytes of the last cell are nobody's, and count as the first of the rooms.
        let _ = poke.apply(self.arena, CELLS_AT + cells * CELL_BYTES - 8, &wide);
        if self.planted {
            let table = vec![0_u8; 1 << 10];
            let len = self.arena.word32(CELLS_AT / 4).load(Ordering::Relaxed) & 0x1fff_ffff;
            black_box(table[len as usize]);
        }
    }
}

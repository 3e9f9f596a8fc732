//! Calls in one process without sleepers: messages, limits, withdrawals, hostile words.
#![cfg(not(crosslane_loom))]
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use crosslane_core::OwnerId;
use crosslane_core::call::{
    CallError, Calls, ConnectError, LINE_BYTES, MAX_BYTES, MAX_CLIENTS, Message, RespondError, ServeError, Shape,
};
use crosslane_core::end::ClaimError;
use crosslane_core::lock::TableError;
use crosslane_core::wait::Spin;

const CLIENTS: u32 = 2;
/// The header and two cells.
const WORDS: usize = 96;

#[repr(C, align(128))]
struct Memory([AtomicU32; WORDS]);

impl Memory {
    fn new() -> Self {
        Self([const { AtomicU32::new(0) }; WORDS])
    }

    fn calls(&self) -> Calls<'_> {
        // SAFETY: atomic words that live as long as `self`; all zero is a valid start.
        unsafe { Calls::attach(NonNull::from(self).cast(), size_of::<Self>(), CLIENTS) }.unwrap()
    }
}

/// Memory of any length, with cells in it.
struct Room {
    lines: Vec<Line>,
    clients: u32,
}

#[repr(C, align(128))]
#[derive(Default)]
struct Line([AtomicU32; 32]);

impl Room {
    fn new(shape: Shape) -> Self {
        let lines = Calls::layout(shape).unwrap().size() / size_of::<Line>();
        let room = Self { lines: (0..lines).map(|_| Line::default()).collect(), clients: shape.clients() };
        // SAFETY: ours alone until this returns, as long as the layout says, and zero.
        unsafe { Calls::init(room.start(), room.len(), shape) }.unwrap();
        room
    }

    fn calls(&self) -> Calls<'_> {
        // SAFETY: atomic words that live as long as `self`.
        unsafe { Calls::attach(self.start(), self.len(), self.clients) }.unwrap()
    }

    fn start(&self) -> NonNull<u8> {
        NonNull::from(&self.lines[..]).cast()
    }

    fn len(&self) -> usize {
        size_of_val(&self.lines[..])
    }
}

fn env(index: u32) -> Spin {
    Spin::new(OwnerId::new(index, 1).unwrap())
}

/// Bytes that tell their place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

fn copied(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.len_bytes()];
    message.copy_to(0, &mut bytes);
    bytes
}

/// A client asks with `lens` bytes each, and is answered with the same bytes the other way round.
fn echo(calls: Calls<'_>, lens: impl Iterator<Item = usize> + Clone + Send) {
    std::thread::scope(|scope| {
        let mut server = calls.server(env(0)).unwrap();
        let times = lens.clone().count();
        scope.spawn(move || {
            for _ in 0..times {
                let request = server.recv().unwrap();
                let mut response = copied(&request);
                response.reverse();
                assert!(request.respond(&response).unwrap());
            }
        });
        let mut client = calls.client(env(1)).unwrap();
        for len in lens {
            let mut expected = bytes(len);
            expected.reverse();
            assert_eq!(client.call(&bytes(len)).unwrap(), expected[..]);
        }
    });
}

#[test]
fn messages_of_every_length_go_there_and_back() {
    let memory = Memory::new();
    echo(memory.calls(), 0..=LINE_BYTES);
    let mut client = memory.calls().client(env(1)).unwrap();
    let too_long = client.call(&[0; LINE_BYTES + 1]);
    assert_eq!(too_long, Err(CallError::TooLong { len_bytes: LINE_BYTES + 1, max_bytes: LINE_BYTES }));
}

#[test]
fn long_messages_lie_in_the_cells_own_room() {
    const MAX: u32 = 1_003;
    let room = Room::new(Shape::new(CLIENTS).max_request_bytes(MAX).max_response_bytes(MAX));
    // The second cell, so that a room that is not its own would be seen.
    let first = room.calls().client(env(2)).unwrap();
    echo(room.calls(), (LINE_BYTES - 2..LINE_BYTES + 20).chain([127, 128, 129, 1_000, MAX as usize]));
    drop(first);
    echo(room.calls(), [3, MAX as usize, 3].into_iter());
}

#[test]
fn each_direction_has_a_limit_of_its_own() {
    let room = Room::new(Shape::new(1).max_request_bytes(200).max_response_bytes(9));
    let calls = room.calls();
    assert_eq!((calls.max_request_bytes(), calls.max_response_bytes()), (200, LINE_BYTES));
    let mut server = calls.server(env(0)).unwrap();
    let mut client = calls.client(env(1)).unwrap();
    let too_long = CallError::TooLong { len_bytes: 201, max_bytes: 200 };
    assert_eq!(client.call(&[0; 201]), Err(too_long));
    assert_eq!(client.draft(201).err(), Some(too_long));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for by_reply in [false, true] {
                let request = server.recv().unwrap();
                assert_eq!((request.len_bytes(), request.max_response_bytes()), (200, LINE_BYTES));
                let refused = if by_reply { request.reply(57).err() } else { request.respond(&[0; 57]).err() };
                assert_eq!(refused, Some(RespondError::TooLong { len_bytes: 57, max_bytes: LINE_BYTES }));
            }
        });
        // A response that does not fit fails the call, whatever the server does about it.
        for _ in 0..2 {
            assert_eq!(client.call(&[0; 200]), Err(CallError::PeerDied));
        }
    });
}

#[test]
fn drafts_and_replies_are_written_piece_by_piece() {
    let room = Room::new(Shape::new(1).max_request_bytes(300).max_response_bytes(300));
    let calls = room.calls();
    let mut server = calls.server(env(0)).unwrap();
    let mut client = calls.client(env(1)).unwrap();
    // Pieces that begin and end everywhere in a word.
    let pieces = |len: usize| (0..len).step_by(5).map(move |at| at..len.min(at + 5)).rev();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for len in [13, 56, 57, 300] {
                let request = server.recv().unwrap();
                assert_eq!(*request, bytes(len)[..]);
                let mut whole = vec![0; len];
                pieces(len).for_each(|piece| request.copy_to(piece.start, &mut whole[piece]));
                assert_eq!(whole, bytes(len));
                assert_eq!(request.to_array::<57>().is_some(), len == 57);
                let mut reply = request.reply(len - 1).unwrap();
                assert_eq!(reply.len_bytes(), len - 1);
                pieces(len - 1).for_each(|piece| reply.copy_from(piece.start, &whole[1..][piece]));
                assert!(reply.send().unwrap());
            }
            drop(server.recv().unwrap().reply(10).unwrap());
        });
        for len in [13, 56, 57, 300] {
            let mut draft = client.draft(len).unwrap();
            assert_eq!(draft.len_bytes(), len);
            pieces(len).for_each(|piece| draft.copy_from(piece.start, &bytes(len)[piece]));
            assert_eq!(draft.call().unwrap(), bytes(len)[1..]);
            // One that is dropped asks nothing.
            client.draft(300).unwrap().copy_from(0, b"never mind");
        }
        assert_eq!(client.call(b"a reply that is dropped"), Err(CallError::PeerDied));
    });
}

#[test]
fn a_piece_outside_of_a_message_is_the_callers_bug() {
    let room = Room::new(Shape::new(1).max_request_bytes(80));
    let calls = room.calls();
    let _server = calls.server(env(0)).unwrap();
    for (len, at, piece) in [(70, 70, 1), (70, 71, 0), (70, usize::MAX, 1), (9, 8, 2), (0, 0, 1)] {
        let wrong = std::panic::catch_unwind(|| {
            let mut client = calls.client(env(1)).unwrap();
            client.draft(len).unwrap().copy_from(at, &[0; 2][..piece]);
        });
        assert!(wrong.is_err(), "{piece} bytes at {at} of {len}");
    }
}

#[test]
fn there_is_one_server_and_as_many_clients_as_cells() {
    let memory = Memory::new();
    let calls = memory.calls();
    let mut first = calls.client(env(1)).unwrap();
    assert_eq!(first.call(b"?"), Err(CallError::NoServer));
    let server = calls.server(env(0)).unwrap();
    assert!(matches!(calls.server(env(2)), Err(ClaimError::EndTaken(owner)) if owner.index() == 0));
    let second = calls.client(env(1)).unwrap();
    assert!(matches!(calls.client(env(3)), Err(ConnectError::Full)));
    drop(second);
    assert!(calls.client(env(3)).is_ok());
    drop(server);
    assert_eq!(first.call(b"?"), Err(CallError::NoServer));
    assert!(calls.server(env(2)).is_ok());
}

#[test]
fn a_request_that_was_given_up_is_answered_for_nobody_and_one_that_is_dropped_fails() {
    let memory = Memory::new();
    let calls = memory.calls();
    let mut server = calls.server(env(0)).unwrap();
    let mut client = calls.client(env(1)).unwrap();
    assert_eq!(client.call_timeout(b"a", Duration::from_micros(100)), Err(CallError::TimedOut));
    assert!(matches!(server.try_recv(), Err(ServeError::Empty)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = server.recv().unwrap();
            assert_eq!(*request, *b"b");
            drop(request);
            let request = server.recv().unwrap();
            assert!(request.respond(b"yes").unwrap());
        });
        assert_eq!(client.call(b"b"), Err(CallError::PeerDied));
        assert_eq!(client.call(b"c").unwrap(), *b"yes");
    });
    assert!(matches!(server.recv_timeout(Duration::from_micros(100)), Err(ServeError::TimedOut)));
}

#[test]
fn what_cannot_be_calls_is_refused() {
    for clients in [0, MAX_CLIENTS + 1] {
        assert_eq!(Calls::layout(clients), Err(TableError::Count { asked: clients, max: MAX_CLIENTS }));
    }
    assert_eq!(Calls::layout(CLIENTS).unwrap().size(), size_of::<Memory>());
    let asked = Shape::new(1).max_response_bytes(MAX_BYTES + 1);
    let refused = TableError::Message { len_bytes: MAX_BYTES + 1, max_bytes: MAX_BYTES };
    assert_eq!(Calls::layout(asked), Err(refused));
    let memory = Memory::new();
    // SAFETY: shorter than the memory.
    let short = unsafe { Calls::attach(NonNull::from(&memory).cast(), 383, CLIENTS) };
    assert!(matches!(short, Err(TableError::TooShort { needed: 384, found: 383 })));
}

#[test]
fn hostile_words_end_in_errors() {
    for hostile in [u32::MAX, 57, 1 << 28, 1 << 29, 1 << 30, 1 << 31, 0x8000_0039, 0xe000_0039, 0xe000_0001] {
        let memory = Memory::new();
        let calls = memory.calls();
        let mut server = calls.server(env(0)).unwrap();
        let mut client = calls.client(env(1)).unwrap();
        // All of the first cell but its owner: both words and the bytes.
        memory.0[32..48].iter().for_each(|word| word.store(hostile, Ordering::Relaxed));
        assert!(matches!(server.try_recv(), Err(ServeError::Empty)), "{hostile:#x}");
        let answer = client.call_timeout(b"x", Duration::from_micros(100));
        assert!(matches!(answer, Err(CallError::TimedOut)), "{hostile:#x}: {answer:?}");
        // A request without a length that there is.
        memory.0[32].store(57 | !memory.0[33].load(Ordering::Relaxed) & 1 << 31, Ordering::Relaxed);
        assert!(matches!(server.try_recv(), Err(ServeError::Empty)));
        assert_eq!(memory.0[33].load(Ordering::Relaxed) & !(1 << 31), 1 << 30, "it has failed");
    }
}

#[test]
fn a_response_of_a_hostile_length_is_corrupt() {
    for hostile in [57, 1 << 28, 1 << 29, 1 << 30 | 1, (1 << 31) - 1] {
        let memory = Memory::new();
        let calls = memory.calls();
        let _server = calls.server(env(0)).unwrap();
        let mut client = calls.client(env(1)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while memory.0[32].load(Ordering::Acquire) == 0 {
                    std::thread::yield_now();
                }
                memory.0[33].store(1 << 31 | hostile, Ordering::Release);
            });
            assert_eq!(client.call(b"x"), Err(CallError::Corrupt), "{hostile:#x}");
        });
    }
}

#[test]
fn lengths_in_the_header_are_checked_against_the_memory() {
    for (request, response) in [(57, 0), (0, 57), (MAX_BYTES, 0), (0, MAX_BYTES), (MAX_BYTES + 1, 0), (0, u32::MAX)] {
        let memory = Memory::new();
        // The header's fifth and sixth word.
        memory.0[4].store(request, Ordering::Relaxed);
        memory.0[5].store(response, Ordering::Relaxed);
        // SAFETY: as long as it is said to be, and atomics.
        let found = unsafe { Calls::attach(NonNull::from(&memory).cast(), size_of::<Memory>(), CLIENTS) };
        let too_long = request.max(response) > MAX_BYTES;
        match found.map(|_| ()) {
            Err(TableError::Message { max_bytes: MAX_BYTES, .. }) => assert!(too_long),
            Err(TableError::TooShort { found: 384, .. }) => assert!(!too_long),
            other => panic!("{other:?}"),
        }
    }
}

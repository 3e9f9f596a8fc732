//! Calls in one process without sleepers: messages, limits, withdrawals, hostile words.
#![cfg(not(crosslane_loom))]
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use crosslane_core::OwnerId;
use crosslane_core::call::{CallError, Calls, ConnectError, MAX_BYTES, MAX_CLIENTS, ServeError};
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

fn env(index: u32) -> Spin {
    Spin::new(OwnerId::new(index, 1).unwrap())
}

#[test]
fn messages_of_every_length_go_there_and_back() {
    let memory = Memory::new();
    let calls = memory.calls();
    std::thread::scope(|scope| {
        let mut server = calls.server(env(0)).unwrap();
        scope.spawn(move || {
            for _ in 0..=MAX_BYTES {
                let request = server.recv().unwrap();
                let response: Vec<u8> = request.iter().rev().copied().collect();
                assert!(request.respond(&response));
            }
        });
        let mut client = calls.client(env(1)).unwrap();
        for len in 0..=MAX_BYTES {
            let request: Vec<u8> = (0..u8::try_from(len).unwrap()).collect();
            let response: Vec<u8> = request.iter().rev().copied().collect();
            assert_eq!(*client.call(&request).unwrap(), response[..]);
        }
        let too_long = client.call(&[0; MAX_BYTES + 1]);
        assert_eq!(too_long, Err(CallError::TooLong { len_bytes: MAX_BYTES + 1 }));
    });
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
            assert!(request.respond(b"yes"));
        });
        assert_eq!(client.call(b"b"), Err(CallError::PeerDied));
        assert_eq!(*client.call(b"c").unwrap(), *b"yes");
    });
    assert!(matches!(server.recv_timeout(Duration::from_micros(100)), Err(ServeError::TimedOut)));
}

#[test]
fn what_cannot_be_calls_is_refused() {
    for clients in [0, MAX_CLIENTS + 1] {
        assert_eq!(Calls::layout(clients), Err(TableError::Count { asked: clients, max: MAX_CLIENTS }));
    }
    assert_eq!(Calls::layout(CLIENTS).unwrap().size(), size_of::<Memory>());
    let memory = Memory::new();
    // SAFETY: shorter than the memory.
    let short = unsafe { Calls::attach(NonNull::from(&memory).cast(), 383, CLIENTS) };
    assert!(matches!(short, Err(TableError::TooShort { needed: 384, found: 383 })));
}

#[test]
fn hostile_words_end_in_errors() {
    for hostile in [u32::MAX, 5, 6, 7, 8, 0x8000_0001, 1 << 10 | 9] {
        let memory = Memory::new();
        let calls = memory.calls();
        let mut server = calls.server(env(0)).unwrap();
        let mut client = calls.client(env(1)).unwrap();
        // All of the first cell: its word, its length, its payload, its owner.
        memory.0[32..64].iter().for_each(|word| word.store(hostile, Ordering::Relaxed));
        assert!(matches!(server.try_recv(), Err(ServeError::Empty)), "{hostile:#x}");
        let answer = client.call_timeout(b"x", Duration::from_micros(100));
        assert!(matches!(answer, Err(CallError::Corrupt | CallError::TimedOut)), "{hostile:#x}: {answer:?}");
        // A request without a length that there is.
        memory.0[32].store(1, Ordering::Relaxed);
        memory.0[33].store(57, Ordering::Relaxed);
        assert!(matches!(server.try_recv(), Err(ServeError::Empty)));
        drop(client);
    }
}

//! Requests and responses between processes that are killed.

mod family;

use std::time::{Duration, Instant};

use crosslane_core::call::{CallError, ConnectError, Shape};
use crosslane_core::end::ClaimError;
use crosslane_shm::{Calls, Domain, Options};
use family::{Child, Dir, await_death, fork, name};

#[test]
fn a_killed_servers_clients_know_and_its_successor_goes_on() {
    let dir = Dir::new();
    let calls = Calls::create(&name("calls"), 2, &dir.options()).unwrap();
    let mut victim = fork(|parent| {
        let calls = Calls::open(&name("calls"), &dir.options()).unwrap();
        let mut server = calls.server().unwrap();
        parent.tell(calls.segment().domain().unwrap().me().unwrap().to_word());
        server.recv().unwrap().respond(b"first").unwrap();
        let _taken = server.recv().unwrap();
        parent.tell(0);
        parent.forever();
    });
    let dead = victim.id();
    let mut client = calls.client().unwrap();
    assert_eq!(client.call(b"one").unwrap(), *b"first");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.call(b"two").err());
        assert_eq!(victim.hear(), 0);
        assert!(matches!(calls.server(), Err(ClaimError::EndTaken(owner)) if owner == dead));
        victim.kill();
        assert_eq!(asking.join().unwrap(), Some(CallError::PeerDied));
    });
    let mut server = calls.server().unwrap();
    assert!(server.try_recv().is_err(), "what the dead one had begun is not done again");
    std::thread::scope(|scope| {
        scope.spawn(|| server.recv().unwrap().respond(b"second").unwrap());
        assert_eq!(client.call(b"three").unwrap(), *b"second");
    });
    drop(server);
    assert_eq!(client.call(b"four").err(), Some(CallError::NoServer));
}

#[test]
fn killed_clients_leave_their_cells_and_a_server_that_serves_on() {
    let calls = Calls::anonymous(2, &Options::new()).unwrap();
    let mut server = calls.server().unwrap();
    let mut children = [0, 1].map(|_| {
        fork(|parent| {
            let calls = calls.rejoin().unwrap();
            let mut client = calls.client().unwrap();
            parent.tell(calls.segment().domain().unwrap().me().unwrap().to_word());
            let _ = client.call(b"never answered");
        })
    });
    let dead = children.each_mut().map(Child::id);
    assert!(matches!(calls.client(), Err(ConnectError::Full)));
    let taken = server.recv().unwrap();
    for (child, dead) in children.into_iter().zip(dead) {
        child.kill();
        await_death(&Domain::family().unwrap(), dead);
    }
    taken.respond(b"for nobody").unwrap();
    let mut clients = [calls.client().unwrap(), calls.client().unwrap()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let request = loop {
                    let request = server.recv().unwrap();
                    // The other dead client's request is withdrawn by the cell's next client, or answered for nobody.
                    if *request != *b"never answered" {
                        break request;
                    }
                };
                let response: [u8; 1] = request.to_array().unwrap();
                assert!(request.respond(&response).unwrap());
            }
        });
        for (client, text) in clients.iter_mut().zip([b"a", b"b"]) {
            assert_eq!(client.call(text).unwrap(), *text);
        }
    });
}

#[test]
fn sleepers_answer_each_other() {
    const CALLS: u32 = 200;
    let calls = Calls::anonymous(1, &Options::new()).unwrap();
    let child = fork(|_| {
        let calls = calls.rejoin().unwrap();
        let mut server = calls.server().unwrap();
        for n in 0..CALLS {
            let request = server.recv().unwrap();
            assert_eq!(*request, n.to_ne_bytes());
            // Longer than anybody spins.
            std::thread::sleep(Duration::from_micros(200));
            assert!(request.respond(&(n + 1).to_ne_bytes()).unwrap());
        }
    });
    let mut client = calls.client().unwrap();
    let start = Instant::now();
    for n in 0..CALLS {
        let response = loop {
            match client.call(&n.to_ne_bytes()).map(|response| response.to_array()) {
                Err(CallError::NoServer) => std::thread::yield_now(),
                response => break response.unwrap(),
            }
        };
        assert_eq!(response, Some((n + 1).to_ne_bytes()));
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    child.join();
}

#[test]
fn long_messages_go_by_name_and_a_server_killed_inside_one_leaves_a_cell_that_works() {
    const LONG: u32 = 1 << 20;
    let dir = Dir::new();
    let shape = Shape::new(2).max_request_bytes(LONG).max_response_bytes(3 * LONG);
    let calls = Calls::create(&name("long"), shape, &dir.options()).unwrap();
    let mut victim = fork(|parent| {
        let calls = Calls::open(&name("long"), &dir.options()).unwrap();
        assert_eq!((calls.max_request_bytes(), calls.max_response_bytes()), (LONG as usize, 3 * LONG as usize));
        let mut server = calls.server().unwrap();
        parent.tell(calls.segment().domain().unwrap().me().unwrap().to_word());
        let mut reply = server.recv().unwrap().reply(3 * LONG as usize).unwrap();
        reply.copy_from(0, &vec![0xdd; LONG as usize]);
        parent.tell(0);
        parent.forever();
    });
    victim.id();
    let mut client = calls.client().unwrap();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.call(&vec![1; LONG as usize]).err());
        assert_eq!(victim.hear(), 0);
        victim.kill();
        assert_eq!(asking.join().unwrap(), Some(CallError::PeerDied));
    });
    let mut server = calls.server().unwrap();
    let too_long = CallError::TooLong { len_bytes: LONG as usize + 1, max_bytes: LONG as usize };
    assert_eq!(client.call(&vec![0; LONG as usize + 1]), Err(too_long));
    let request: Vec<u8> = (0..LONG).map(|i| i.to_ne_bytes()[i as usize % 4]).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = server.recv().unwrap();
            let mut copy = vec![0; request.len_bytes()];
            request.copy_to(0, &mut copy);
            assert!(request.respond(&[&copy[..], &copy, &copy].concat()).unwrap());
        });
        let response = client.call(&request).unwrap();
        assert_eq!(response, [&request[..], &request, &request].concat()[..]);
    });
}

//! Requests and responses between processes that are killed.

mod family;

use std::time::{Duration, Instant};

use crosslane_core::call::{CallError, ConnectError};
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
        server.recv().unwrap().respond(b"first");
        let _taken = server.recv().unwrap();
        parent.tell(0);
        parent.forever();
    });
    let dead = victim.id();
    let mut client = calls.client().unwrap();
    assert_eq!(*client.call(b"one").unwrap(), *b"first");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.call(b"two"));
        assert_eq!(victim.hear(), 0);
        assert!(matches!(calls.server(), Err(ClaimError::EndTaken(owner)) if owner == dead));
        victim.kill();
        assert_eq!(asking.join().unwrap(), Err(CallError::PeerDied));
    });
    let mut server = calls.server().unwrap();
    assert!(server.try_recv().is_err(), "what the dead one had begun is not done again");
    std::thread::scope(|scope| {
        scope.spawn(|| server.recv().unwrap().respond(b"second"));
        assert_eq!(*client.call(b"three").unwrap(), *b"second");
    });
    drop(server);
    assert_eq!(client.call(b"four"), Err(CallError::NoServer));
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
    taken.respond(b"for nobody");
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
                let response = request.to_vec();
                assert!(request.respond(&response));
            }
        });
        for (client, text) in clients.iter_mut().zip([b"a", b"b"]) {
            assert_eq!(*client.call(text).unwrap(), *text);
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
            assert!(request.respond(&(n + 1).to_ne_bytes()));
        }
    });
    let mut client = calls.client().unwrap();
    let start = Instant::now();
    for n in 0..CALLS {
        let response = loop {
            match client.call(&n.to_ne_bytes()) {
                Err(CallError::NoServer) => std::thread::yield_now(),
                response => break response.unwrap(),
            }
        };
        assert_eq!(*response, (n + 1).to_ne_bytes());
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    child.join();
}

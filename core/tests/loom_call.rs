//! Every interleaving of a client, a server, their deaths, and a client that gives up.
#![cfg(crosslane_loom)]

use crosslane_core::call::{CallError, Calls, Client};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};

struct World {
    memory: Memory,
    peers: Arc<Peers>,
}

impl World {
    fn new() -> Arc<Self> {
        let memory = Memory::new(Calls::layout(1).unwrap().size());
        // SAFETY: the memory is ours, and nobody else uses it yet.
        let _ = unsafe { Calls::init(memory.ptr(), memory.len_bytes(), 1) }.unwrap();
        Arc::new(Self { memory, peers: Peers::new(3) })
    }

    fn calls(&self) -> Calls<'_> {
        // SAFETY: the memory lives as long as `self`, and only calls of this layout use it.
        unsafe { Calls::attach(self.memory.ptr(), self.memory.len_bytes(), 1) }.unwrap()
    }

    fn process(&self, index: u32) -> Process {
        Process::new(&self.peers, index)
    }

    fn spawn<R: 'static>(
        self: &Arc<Self>,
        index: u32,
        work: impl FnOnce(&Self, &Process) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || work(&world, &Process::new(&world.peers, index)))
    }
}

/// One call of `number`, whose response is one more.
fn ask(client: &mut Client<'_, &Process>, number: u8, deadline: bool) -> Result<(), CallError> {
    let response = client.call_until(&[number], deadline)?;
    assert_eq!(&*response, [number + 1], "the response of this request");
    Ok(())
}

/// Serves a request, if one comes before it would sleep.
fn serve(world: &World, process: &Process) {
    let mut server = world.calls().server(process).expect("nobody else serves");
    if let Ok(request) = server.recv_until(true) {
        let number = request[0];
        request.respond(&[number + 1]);
    }
    // Its end is left to the kernel: who is killed closes nothing.
    core::mem::forget(server);
}

#[test]
fn each_request_gets_its_response() {
    check("call.two", Some(2), 1_400, || {
        let world = World::new();
        let process = world.process(0);
        let server = world.calls().server(&process).unwrap();
        let client = world.spawn(1, |world, process| {
            let mut client = world.calls().client(process).unwrap();
            ask(&mut client, 7, false).unwrap();
            ask(&mut client, 9, false).unwrap();
        });
        let mut server = server;
        for _ in 0..2 {
            let request = server.recv().unwrap();
            let number = request[0];
            assert!(request.respond(&[number + 1]));
        }
        client.join().unwrap();
        drop(server);
        let mut client = world.calls().client(&process).unwrap();
        assert_eq!(ask(&mut client, 1, false), Err(CallError::NoServer));
    });
}

#[test]
fn a_server_killed_at_any_access_leaves_a_client_that_knows_and_an_end_for_a_successor() {
    check_deaths("call.server_killed", Some(1), 10, 430, |k| {
        let world = World::new();
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || serve(world, process));
            world.peers.kill(process.id());
        });
        let process = world.process(0);
        let mut client = world.calls().client(&process).unwrap();
        let first = ask(&mut client, 7, false);
        assert!(matches!(first, Ok(()) | Err(CallError::PeerDied | CallError::NoServer)), "{first:?}");
        victim.join().unwrap();
        let successor = world.process(2);
        let mut server = world.calls().server(&successor).expect("the last one died");
        assert!(server.try_recv().is_err(), "what the dead one had is not done again");
        client_again(&mut client, &mut server);
    });
}

/// A call that gives up at once is withdrawn, and the server frees the cell.
fn client_again(client: &mut Client<'_, &Process>, server: &mut crosslane_core::call::Server<'_, &Process>) {
    assert_eq!(ask(client, 3, true), Err(CallError::TimedOut));
    assert!(server.try_recv().is_err(), "it was withdrawn");
    assert_eq!(ask(client, 5, true), Err(CallError::TimedOut), "the cell is free again");
}

#[test]
fn a_client_killed_at_any_access_leaves_its_cell_to_the_next() {
    check_deaths("call.client_killed", Some(1), 10, 610, |k| {
        let world = World::new();
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || {
                let mut client = world.calls().client(process).unwrap();
                let _ = ask(&mut client, 7, false);
            });
            world.peers.kill(process.id());
        });
        // Serves it if it comes in time.
        if let Ok(request) = server.recv_until(true) {
            let number = request[0];
            request.respond(&[number + 1]);
        }
        drop(server);
        world.peers.end_slices();
        victim.join().unwrap();
        let mut server = world.calls().server(&process).unwrap();
        let next = world.process(2);
        let mut client = world.calls().client(&next).expect("its client died or left");
        client_again(&mut client, &mut server);
    });
}

#[test]
fn a_client_that_gives_up_never_gets_an_earlier_response() {
    check("call.withdrawn", Some(2), 3_200, || {
        let world = World::new();
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let client = world.spawn(1, |world, process| {
            let mut client = world.calls().client(process).unwrap();
            let hasty = ask(&mut client, 7, true);
            assert!(matches!(hasty, Ok(()) | Err(CallError::TimedOut)), "{hasty:?}");
            let patient = ask(&mut client, 9, false);
            assert!(matches!(patient, Ok(()) | Err(CallError::PeerDied)), "{patient:?}");
        });
        loop {
            let request = server.recv().unwrap();
            let number = request[0];
            request.respond(&[number + 1]);
            if number == 9 {
                break;
            }
        }
        client.join().unwrap();
    });
}

#[test]
fn a_cells_next_client_comes_after_the_last_one_has_read_its_response() {
    check("call.handed_on", Some(3), 8_600, || {
        let world = World::new();
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let first = world.spawn(1, |world, process| {
            let mut client = world.calls().client(process).unwrap();
            ask(&mut client, 7, false).unwrap();
        });
        let request = server.recv().unwrap();
        request.respond(&[8]);
        let second = world.process(2);
        if let Ok(mut client) = world.calls().client(&second) {
            assert_eq!(ask(&mut client, 3, true), Err(CallError::TimedOut));
        }
        first.join().unwrap();
    });
}

#[test]
fn what_a_dead_server_had_begun_is_not_done_again() {
    check("call.successor", Some(2), 1_400, || {
        let world = World::new();
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let client = world.spawn(1, |world, process| {
            let mut client = world.calls().client(process).unwrap();
            assert_eq!(ask(&mut client, 7, false), Err(CallError::PeerDied));
        });
        core::mem::forget(server.recv().unwrap());
        core::mem::forget(server);
        world.peers.kill(process.id());
        let successor = world.process(2);
        let mut server = world.calls().server(&successor).expect("the last one died");
        assert!(server.try_recv().is_err(), "it may have been done");
        client.join().unwrap();
    });
}

//! Every interleaving of a client, a server, their deaths, and a client that gives up.
#![cfg(crosslane_loom)]

use crosslane_core::call::{CallError, Calls, Client, Request, Server, Shape};
use crosslane_core::model::{Arc, Memory, Peers, Process, check, check_deaths, thread, until_killed};

struct World {
    memory: Memory,
    peers: Arc<Peers>,
}

impl World {
    fn new() -> Arc<Self> {
        Self::of(Shape::new(1))
    }

    fn of(shape: Shape) -> Arc<Self> {
        let memory = Memory::new(Calls::layout(shape).unwrap().size());
        // SAFETY: the memory is ours, and nobody else uses it yet.
        let _ = unsafe { Calls::init(memory.ptr(), memory.len_bytes(), shape) }.unwrap();
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
    assert_eq!(response.to_array(), Some([number + 1]), "the response of this request");
    Ok(())
}

/// Answers a request by one more; whose it was, and whether somebody waited.
fn respond(request: Request<'_, '_, &Process>) -> (u8, bool) {
    let [number] = request.to_array().expect("one byte");
    (number, request.respond(&[number + 1]).expect("no fork"))
}

/// Serves a request, if one comes before it would sleep.
fn serve(world: &World, process: &Process) {
    let mut server = world.calls().server(process).expect("nobody else serves");
    if let Ok(request) = server.recv_until(true) {
        respond(request);
    }
    // Its end is left to the kernel: who is killed closes nothing.
    core::mem::forget(server);
}

#[test]
fn each_request_gets_its_response() {
    check("call.two", Some(2), 1_350, || {
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
            assert!(respond(server.recv().unwrap()).1);
        }
        client.join().unwrap();
        drop(server);
        let mut client = world.calls().client(&process).unwrap();
        assert_eq!(ask(&mut client, 1, false), Err(CallError::NoServer));
    });
}

/// A message that does not fit into the line.
const LONG: usize = 57;

#[test]
fn long_messages_are_whole_in_both_directions() {
    check("call.long", Some(2), 1_500, || {
        let world = World::of(Shape::new(1).max_request_bytes(60).max_response_bytes(57));
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let client = world.spawn(1, |world, process| {
            let mut client = world.calls().client(process).unwrap();
            assert_eq!(client.call(&[7; LONG]).unwrap(), [8; LONG]);
            ask(&mut client, 9, false).unwrap();
        });
        let request = server.recv().unwrap();
        assert_eq!(request.to_array(), Some([7; LONG]));
        assert!(request.respond(&[8; LONG]).unwrap());
        respond(server.recv().unwrap());
        client.join().unwrap();
    });
}

#[test]
fn a_long_message_of_the_killed_is_never_taken_for_the_nexts() {
    check_deaths("call.long_killed", Some(1), 10, 300, |k| {
        let world = World::of(Shape::new(1).max_request_bytes(57));
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let victim = world.spawn(1, move |world, process| {
            until_killed(k, || {
                let mut client = world.calls().client(process).unwrap();
                let _ = client.call_until(&[7; LONG], true);
            });
            world.peers.kill(process.id());
        });
        if let Ok(request) = server.recv_until(true) {
            assert_eq!(request.to_array(), Some([7; LONG]));
            request.respond(&[8; 3]).unwrap();
        }
        victim.join().unwrap();
        let next = world.process(2);
        let mut client = world.calls().client(&next).expect("its client died or left");
        // What the dead one asked is in the way of the first call only.
        let first = client.call_until(&[1; LONG], true).err();
        assert_eq!(first, Some(CallError::TimedOut));
        assert!(server.try_recv().is_err(), "it was withdrawn");
        assert_eq!(client.call_until(&[2; LONG], true).err(), Some(CallError::TimedOut));
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
fn client_again(client: &mut Client<'_, &Process>, server: &mut Server<'_, &Process>) {
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
            respond(request);
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
fn a_dead_clients_successor_waits_until_the_server_has_done_with_its_request() {
    check_deaths("call.inherited", Some(1), 10, 1_000, |k| {
        let world = World::new();
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let clients = world.spawn(1, move |world, process| {
            until_killed(k, || {
                let mut client = world.calls().client(process).unwrap();
                let _ = ask(&mut client, 7, true);
            });
            world.peers.kill(process.id());
            let next = world.process(2);
            let mut client = world.calls().client(&next).expect("its client died or left");
            let asked = ask(&mut client, 3, true);
            assert!(matches!(asked, Ok(()) | Err(CallError::TimedOut)), "{asked:?}");
        });
        for _ in 0..2 {
            if let Ok(request) = server.recv_until(true) {
                assert!(matches!(respond(request).0, 3 | 7));
            }
        }
        clients.join().unwrap();
    });
}

#[test]
fn a_client_that_gives_up_never_gets_an_earlier_response() {
    check("call.withdrawn", Some(2), 5_000, || {
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
            if respond(server.recv().unwrap()).0 == 9 {
                break;
            }
        }
        client.join().unwrap();
    });
}

#[test]
fn a_cells_next_client_comes_after_the_last_one_has_read_its_response() {
    check("call.handed_on", Some(2), 730, || {
        let world = World::new();
        let process = world.process(0);
        let mut server = world.calls().server(&process).unwrap();
        let first = world.spawn(1, |world, process| {
            let mut client = world.calls().client(process).unwrap();
            ask(&mut client, 7, false).unwrap();
        });
        respond(server.recv().unwrap());
        let second = world.process(2);
        if let Ok(mut client) = world.calls().client(&second) {
            assert_eq!(ask(&mut client, 3, true), Err(CallError::TimedOut));
        }
        first.join().unwrap();
    });
}

#[test]
fn what_a_dead_server_had_begun_is_not_done_again() {
    check("call.successor", Some(2), 3_200, || {
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

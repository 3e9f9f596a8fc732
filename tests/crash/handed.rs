//! What is handed to a process, and what it hands back: a child is killed while it unpacks its arguments, and on its way
//! from its result to its end. Also shared values and arrays that it is killed in.
//!
//! The parent's objects go on, `join` gives the result or the death, and what was the child's alone has no owner left.

use core::time::Duration;
use std::io::PipeReader;

use crosslane::sync::LockError;
use crosslane::{
    Array, ArrayPart, Connection, Descriptor, Error, Event, OwnedArray, Portable, Process, Queue, Semaphore, Value,
    pipe_with_capacity, spawn,
};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan};
use crosslane_tests::trap;

use crate::Wanted;
use crate::spawned::{Answer, Drawn, Knife, PATIENCE, Story, tell};

type End = Connection<u64, u64>;
/// A value of more than 8 bytes, which has a lock: all numbers in it are always the same.
type Long = [u64; 4];

/// How long the survivor of a seeded bug waits in vain.
const IN_VAIN: Duration = Duration::from_millis(50);
/// Elements of arrays.
const LEN: usize = 8;

/// Everything that can be an argument, and what the parent keeps.
struct Arrival {
    queue: Queue<u64>,
    value: Value<Long>,
    array: Array<u64>,
    kept: ArrayPart<u64>,
    peer: End,
    reader: PipeReader,
    alone: Option<(End, ArrayPart<u64>, Descriptor)>,
}

impl Arrival {
    fn new() -> Self {
        let (peer, end) = pipe_with_capacity(64).expect("a small pipe");
        let (kept, part) = OwnedArray::zeroed(LEN).expect("a small array").split_at(LEN / 2);
        let (reader, writer) = std::io::pipe().expect("two descriptors");
        Self {
            queue: Queue::bounded(2).expect("a small queue"),
            value: Value::new([0; 4]).expect("a small object"),
            array: Array::zeroed(LEN).expect("a small object"),
            kept,
            peer,
            reader,
            alone: Some((end, part, Descriptor(writer.into()))),
        }
    }
}

impl Story for Arrival {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        type All = (Drawn, Queue<u64>, Value<Long>, Array<u64>, End, ArrayPart<u64>, Descriptor);
        let child = |_: All| trap::end();
        let (end, part, file) = self.alone.take().expect("once");
        let shared = (self.queue.clone(), self.value.clone(), self.array.clone());
        spawn(child, (Drawn(knife), shared.0, shared.1, shared.2, end, part, file))
    }

    fn survive(mut self, answer: Answer<()>) -> Result<(), String> {
        let was_killed = answer.is_err();
        match self.peer.recv_timeout(PATIENCE) {
            Err(Error::Closed) => {}
            Err(Error::PeerDied) if was_killed => {}
            other => return Err(format!("the peer of what was the child's: {other:?}")),
        }
        let ready = crosslane::wait(&[&self.reader], Some(PATIENCE)).map_err(|error| error.to_string())?;
        if ready.is_empty() {
            return Err("somebody keeps the file".into());
        }
        self.kept.as_mut_slice().fill(3);
        self.value.update(|all| all.fill(3)).map_err(|error| error.to_string())?;
        self.array.lock_timeout(PATIENCE).map_err(|error| error.to_string())?.set(0, 3);
        // The next child gets them all the same.
        let next = |(queue, value): (Queue<u64>, Value<Long>)| queue.put(value.get()[3]).expect("there is room");
        let next = spawn(next, (self.queue.clone(), self.value.clone())).map_err(|error| error.to_string())?;
        let got = self.queue.get_timeout(PATIENCE).map_err(|error| error.to_string())?;
        next.join().map_err(|error| error.to_string())?;
        if got == 3 { Ok(()) } else { Err(format!("{got} came through the queue")) }
    }
}

/// What a victim returns.
trait Outcome: Portable + Send {
    fn make() -> Self;
    fn is_right(&self) -> bool;
}

impl Outcome for u64 {
    fn make() -> Self {
        42
    }

    fn is_right(&self) -> bool {
        *self == 42
    }
}

/// More than travels through a socket.
impl Outcome for Vec<u8> {
    fn make() -> Self {
        vec![7; 33 << 10]
    }

    fn is_right(&self) -> bool {
        *self == Self::make()
    }
}

impl Outcome for Queue<u64> {
    fn make() -> Self {
        let queue = Self::bounded(2).expect("a small queue");
        queue.put(42).expect("it is empty");
        queue
    }

    fn is_right(&self) -> bool {
        self.get_timeout(PATIENCE).is_ok_and(|number| number.is_right())
    }
}

/// The victim is stepped from its function's end to its process's.
struct Departure<R>(core::marker::PhantomData<R>);

impl<R: Outcome> Departure<R> {
    fn new() -> Self {
        Self(core::marker::PhantomData)
    }
}

impl<R: Outcome> Story for Departure<R> {
    type Output = R;

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<R>> {
        let child = |knife: Knife| {
            let outcome = R::make();
            knife.to_the_end();
            outcome
        };
        spawn(child, knife)
    }

    fn survive(self, answer: Answer<R>) -> Result<(), String> {
        match answer {
            Ok(outcome) if !outcome.is_right() => Err("another result".into()),
            // That an error is the death, the driver has seen.
            _ => Ok(()),
        }
    }
}

/// An end of a pipe that the victim was given, and returns.
struct Return {
    peer: End,
    end: Option<End>,
}

impl Return {
    fn new() -> Self {
        let (peer, end) = pipe_with_capacity(64).expect("a small pipe");
        Self { peer, end: Some(end) }
    }
}

impl Story for Return {
    type Output = End;

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<End>> {
        let child = |(knife, end): (Knife, End)| {
            knife.to_the_end();
            end
        };
        spawn(child, (knife, self.end.take().expect("once")))
    }

    fn survive(mut self, answer: Answer<End>) -> Result<(), String> {
        if let Ok(mut end) = answer {
            end.send(&5).map_err(|error| format!("the end that came back: {error}"))?;
            let got = self.peer.recv_timeout(PATIENCE);
            return if matches!(got, Ok(5)) { Ok(()) } else { Err(format!("through the end that came back: {got:?}")) };
        }
        match self.peer.recv_timeout(PATIENCE) {
            Err(Error::PeerDied | Error::Closed) => Ok(()),
            other => Err(format!("the peer of an end that went down: {other:?}")),
        }
    }
}

/// The victim updates a value.
struct Update<T: crosslane::Plain>(Value<T>);

/// A value before and after.
trait Changed: crosslane::Plain + PartialEq + core::fmt::Debug {
    const OLD: Self;
    const NEW: Self;
}

impl Changed for u64 {
    const OLD: Self = 1;
    const NEW: Self = 2;
}

impl Changed for Long {
    const OLD: Self = [1; 4];
    const NEW: Self = [2; 4];
}

impl<T: Changed> Story for Update<T> {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let child =
            |(knife, value): (Knife, Value<T>)| knife.under(|| value.update(|it| *it = T::NEW)).expect("a value");
        spawn(child, (knife, self.0.clone()))
    }

    fn survive(self, answer: Answer<()>) -> Result<(), String> {
        let found = self.0.update(|it| core::mem::replace(it, T::OLD)).map_err(|error| error.to_string())?;
        let is_due = found == T::NEW || found == T::OLD && answer.is_err();
        if is_due { Ok(()) } else { Err(format!("{found:?}")) }
    }
}

/// The victim changes an array with its lock in hand.
struct Locked(Array<u64>);

impl Locked {
    /// The next one who takes the lock.
    fn next(&self) -> Result<(), String> {
        match self.0.lock_timeout(PATIENCE) {
            Ok(_) if self.0.get(0) == self.0.get(1) => Ok(()),
            Ok(_) => Err("half changed, and nobody says so".into()),
            Err(LockError::OwnerDied(mut guard)) => {
                guard.update(.., |items| items.fill(9));
                guard.mark_consistent();
                Ok(())
            }
            Err(error) => Err(format!("the lock of the dead one: {error}")),
        }
    }
}

impl Story for Locked {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let child = |(knife, array): (Knife, Array<u64>)| {
            knife.under(|| {
                let guard = array.lock().expect("it is free");
                guard.set(0, 2);
                guard.set(1, 2);
            });
        };
        spawn(child, (knife, self.0.clone()))
    }

    fn survive(self, _: Answer<()>) -> Result<(), String> {
        self.next()?;
        // And nobody hears of that death any more.
        self.0.lock_timeout(PATIENCE).map(|_| ()).map_err(|error| format!("once it was put in order: {error}"))
    }
}

/// Seeded: who hands over waits until the child says that it has come, and for nothing else.
struct Announced(Event);

impl Story for Announced {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let child = |(_, come): (Drawn, Event)| {
            come.set();
            trap::end();
        };
        spawn(child, (Drawn(knife), self.0.clone()))
    }

    fn survive(self, _: Answer<()>) -> Result<(), String> {
        if self.0.wait_timeout(IN_VAIN) { Ok(()) } else { Err("the parent waits for ever".into()) }
    }
}

/// Seeded: a result beside its process, and an event that says that it is there.
struct Beside(Value<u64>, Event);

impl Story for Beside {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let child = |(knife, result, there): (Knife, Value<u64>, Event)| {
            knife.under(|| {
                result.set(42);
                there.set();
            });
        };
        spawn(child, (knife, self.0.clone(), self.1.clone()))
    }

    fn survive(self, _: Answer<()>) -> Result<(), String> {
        if self.1.wait_timeout(IN_VAIN) { Ok(()) } else { Err("who joins waits for ever".into()) }
    }
}

/// Seeded: two values that belong together.
struct Pair(Value<u64>, Value<u64>);

impl Story for Pair {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let child = |(knife, one, other): (Knife, Value<u64>, Value<u64>)| {
            knife.under(|| one.fetch_add(1) + other.fetch_add(1));
        };
        spawn(child, (knife, self.0.clone(), self.1.clone()))
    }

    fn survive(self, _: Answer<()>) -> Result<(), String> {
        if self.0.get() == self.1.get() { Ok(()) } else { Err("half changed, and nobody says so".into()) }
    }
}

/// Seeded: an array behind a semaphore.
struct Ownerless(Array<u64>, Semaphore);

impl Story for Ownerless {
    type Output = ();

    fn start(&mut self, knife: Knife) -> crosslane::Result<Process<()>> {
        let child = |(knife, array, gate): (Knife, Array<u64>, Semaphore)| {
            knife.under(|| {
                gate.acquire().expect("it is free");
                array.set(0, 1);
                gate.release(1).expect("it was taken");
            });
        };
        spawn(child, (knife, self.0.clone(), self.1.clone()))
    }

    fn survive(self, _: Answer<()>) -> Result<(), String> {
        self.1.acquire_timeout(IN_VAIN).map_err(|error| format!("the next one: {error}"))
    }
}

/// The sweeps, and what must be found.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let plan = |name, stride| Plan::new(name, 20).cut(Cut::Edges { stride });
    tell(wanted, table, &plan("spawn: unpack the arguments", 1999), Arrival::new);
    tell(wanted, table, &plan("join: result", 61), Departure::<u64>::new);
    tell(wanted, table, &plan("join: result, 33 KiB", 1009), Departure::<Vec<u8>>::new);
    tell(wanted, table, &plan("join: result, a queue", 127), Departure::<Queue<u64>>::new);
    tell(wanted, table, &plan("join: result, an end", 127), Return::new);
    tell(wanted, table, &Plan::new("value: update", 5), || Update(Value::new(u64::OLD).expect("a small object")));
    tell(wanted, table, &Plan::new("value: update, 32 bytes", 40), || {
        Update(Value::new(Long::OLD).expect("a small object"))
    });
    tell(wanted, table, &Plan::new("array: lock, change, unlock", 40), || {
        Locked(Array::zeroed(2).expect("a small object"))
    });

    let new_event = || Event::new().expect("a small object");
    let new_value = || Value::new(0).expect("a small object");
    let calls = Cut::Edges { stride: 0 };
    tell(wanted, table, &Plan::new("arrival that is announced", 1).cut(calls).seeded(), || Announced(new_event()));
    tell(wanted, table, &Plan::new("result beside its process", 1).seeded(), || Beside(new_value(), new_event()));
    tell(wanted, table, &Plan::new("values in two steps", 1).seeded(), || Pair(new_value(), new_value()));
    tell(wanted, table, &Plan::new("array behind a semaphore", 1).seeded(), || {
        Ownerless(Array::zeroed(1).expect("a small object"), Semaphore::new(1).expect("a small object"))
    });
}

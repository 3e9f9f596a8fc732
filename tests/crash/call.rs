//! Request and response: a client and a server killed at every instruction of asking, waiting, serving, claiming and closing,
//! with others in every role; and a desk that is broken on purpose.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;

use crosslane_core::call::{CallError, Calls, Client, ServeError, Server, Shape};
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait};
use crosslane_tests::mapping::Mapping;
use crosslane_tests::pairs::{Drama, PairPlan, pairs};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Role, Scene, sweep};
use crosslane_tests::told::{Graveyard, Told, owner};

use crate::Wanted;
use crate::cast::{COMPANION, Cast, DRIVER, LeasedHome, PREDECESSOR, ToldCast, VICTIM};

/// Longer than any deadline of the sweep's, so that a hang shows as one.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the driver waits: a survivor that gets no answer says so itself.
const SURVIVOR: Duration = Duration::from_millis(500);
const CLIENTS: u32 = 3;
const LEDGER_AT: usize = 3072;
const OFFICE_BYTES: usize = 4096;

/// How often each request was done, and whether companions may go home.
#[repr(C)]
struct Ledger {
    done: [AtomicU32; 32],
    is_over: AtomicU32,
}

impl Ledger {
    fn of(memory: &Mapping) -> &Self {
        // SAFETY: only atomic integers: every bit pattern is one.
        unsafe { memory.at(LEDGER_AT) }
    }

    fn check(&self) -> Result<(), String> {
        let twice = self.done.iter().position(|done| done.load(SeqCst) > 1);
        twice.map_or(Ok(()), |number| Err(format!("request {number} was done twice")))
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Answered,
    /// Nobody answers, and the client was told so.
    Told,
    TimedOut,
}

/// Where requests are made: number `n` is answered by `n + 1`.
trait Desk<'m>: Copy + Sync {
    type Client<E: Wait + Liveness>;
    type Server<E: Wait + Liveness>: Send
    where
        E: Send;
    fn at(memory: &'m Mapping) -> Self;
    fn client<E: Wait + Liveness>(self, env: E) -> Result<Self::Client<E>, String>;
    fn server<E: Wait + Liveness + Send>(self, env: E) -> Result<Self::Server<E>, String>;
    fn ask<E: Wait + Liveness>(client: &mut Self::Client<E>, number: u8, time: Duration) -> Result<Asked, String>;
    /// The request that was done, if one came in `time`; `answers`: not dropped.
    fn serve<E: Wait + Liveness + Send>(
        server: &mut Self::Server<E>,
        ledger: &Ledger,
        time: Duration,
        answers: bool,
    ) -> Result<Option<u8>, String>;
}

/// Cells with requests and responses of `LEN` bytes.
#[derive(Clone, Copy)]
struct Cells<'m, const LEN: usize>(Calls<'m>);

impl<'m, const LEN: usize> Desk<'m> for Cells<'m, LEN> {
    type Client<E: Wait + Liveness> = Client<'m, E>;
    type Server<E: Wait + Liveness>
        = Server<'m, E>
    where
        E: Send;

    fn at(memory: &'m Mapping) -> Self {
        let len = u32::try_from(LEN).expect("a short message");
        let shape = Shape::new(CLIENTS).max_request_bytes(len).max_response_bytes(len);
        assert!(Calls::layout(shape).expect("a few cells").size() <= LEDGER_AT);
        // SAFETY: the mapping lives for 'm, and below the ledger it is used for these cells alone.
        Self(unsafe { Calls::init(memory.base(), LEDGER_AT, shape) }.expect("room for cells"))
    }
    fn client<E: Wait + Liveness>(self, env: E) -> Result<Client<'m, E>, String> {
        self.0.client(env).map_err(|error| error.to_string())
    }
    fn server<E: Wait + Liveness + Send>(self, env: E) -> Result<Server<'m, E>, String> {
        self.0.server(env).map_err(|error| error.to_string())
    }
    fn ask<E: Wait + Liveness>(client: &mut Client<'m, E>, number: u8, time: Duration) -> Result<Asked, String> {
        match client.call_timeout(&[number; LEN], time) {
            Ok(response) if response == [number + 1; LEN] => Ok(Asked::Answered),
            Ok(response) => Err(format!("{:?} after {number}", response.to_array::<LEN>())),
            Err(CallError::PeerDied | CallError::NoServer) => Ok(Asked::Told),
            Err(CallError::TimedOut) => Ok(Asked::TimedOut),
            Err(error) => Err(error.to_string()),
        }
    }
    fn serve<E: Wait + Liveness + Send>(
        server: &mut Server<'m, E>,
        ledger: &Ledger,
        time: Duration,
        answers: bool,
    ) -> Result<Option<u8>, String> {
        let request = match server.recv_timeout(time) {
            Ok(request) => request,
            Err(ServeError::TimedOut) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let bytes: [u8; LEN] = request.to_array().ok_or("a request of another length")?;
        let number = bytes[0];
        if bytes != [number; LEN] {
            return Err(format!("a torn request: {bytes:?}"));
        }
        if answers {
            ledger.done[usize::from(number)].fetch_add(1, SeqCst);
            request.respond(&[number + 1; LEN]).map_err(|error| error.to_string())?;
        }
        Ok(Some(number))
    }
}

/// Seeded: one state word that names nobody. Who waits asks nobody whether the server lives, and a successor does again what a
/// dead server had begun.
#[derive(Clone, Copy)]
struct Nameless<'m>(&'m [AtomicU32; 2]);

impl<'m> Desk<'m> for Nameless<'m> {
    type Client<E: Wait + Liveness> = (Self, E);
    type Server<E: Wait + Liveness>
        = (Self, E)
    where
        E: Send;

    fn at(memory: &'m Mapping) -> Self {
        // SAFETY: only atomic integers: every bit pattern is one.
        Self(unsafe { memory.at(0) })
    }
    fn client<E: Wait + Liveness>(self, env: E) -> Result<(Self, E), String> {
        Ok((self, env))
    }
    fn server<E: Wait + Liveness + Send>(self, env: E) -> Result<(Self, E), String> {
        Ok((self, env))
    }
    fn ask<E: Wait + Liveness>((desk, env): &mut (Self, E), number: u8, time: Duration) -> Result<Asked, String> {
        let [state, value] = desk.0;
        value.store(number.into(), SeqCst);
        state.store(1, SeqCst);
        let deadline = env.after(time);
        while state.load(SeqCst) == 1 {
            if env.park(state, 1, Slice::Owner, deadline) == Parked::Expired {
                return Ok(Asked::TimedOut);
            }
        }
        let answer = value.load(SeqCst);
        if answer == u32::from(number) + 1 { Ok(Asked::Answered) } else { Err(format!("{answer} after {number}")) }
    }
    fn serve<E: Wait + Liveness + Send>(
        (desk, env): &mut (Self, E),
        ledger: &Ledger,
        time: Duration,
        _: bool,
    ) -> Result<Option<u8>, String> {
        let [state, value] = desk.0;
        let deadline = env.after(time);
        while state.load(SeqCst) != 1 {
            if env.park(state, state.load(SeqCst), Slice::Owner, deadline) == Parked::Expired {
                return Ok(None);
            }
        }
        let number = value.load(SeqCst);
        ledger.done[number as usize % 32].fetch_add(1, SeqCst);
        value.store(number + 1, SeqCst);
        state.store(2, SeqCst);
        env.wake(state, 1);
        Ok(u8::try_from(number).ok())
    }
}

/// The operation under the knife.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A companion serves.
    Ask,
    /// The same in a cell whose client died with a request that it had given up.
    AskAfterTheDead,
    /// Nobody serves what was asked, and it is given up, twice.
    GiveUp,
    /// The driver serves, once the client sleeps.
    Wait,
    /// Companions ask.
    Serve,
    ServeAndClose,
    DropRequests,
    /// Of a dead server that had taken a request.
    ClaimEnd,
    /// The driver asks, once the server sleeps.
    Receive,
}

impl Part {
    /// Whether the victim is a client.
    fn asks(self) -> bool {
        matches!(self, Self::Ask | Self::AskAfterTheDead | Self::GiveUp | Self::Wait)
    }
}

const OF_DEAD: u8 = 1;
const OF_VICTIM: u8 = 2;
const OF_DRIVER: u8 = 6;
const OF_COMPANION: u8 = 10;

struct Play<'m, K: Cast, D: Desk<'m>>
where
    K::Env: Send,
{
    desk: D,
    ledger: &'m Ledger,
    cast: K,
    part: Part,
    role: Role,
    victim: Option<K::Env>,
    client: Option<D::Client<K::Env>>,
    server: Option<D::Server<K::Env>>,
}

impl<'m, K: Cast, D: Desk<'m>> Play<'m, K, D>
where
    K::Env: Send,
{
    fn new(memory: &'m Mapping, cast: K, part: Part, role: Role) -> Self {
        memory.clear();
        let (desk, ledger) = (D::at(memory), Ledger::of(memory));
        let mut play = Self { desk, ledger, cast, part, role, victim: None, client: None, server: None };
        match part {
            Part::AskAfterTheDead | Part::ClaimEnd => cast.die_after(|env| {
                let mut server = desk.server(env.clone()).expect("nobody serves yet");
                let mut client = desk.client(env.clone()).expect("every cell is free");
                let asked = D::ask(&mut client, OF_DEAD, Duration::ZERO);
                assert_eq!(asked, Ok(Asked::TimedOut), "its server is itself");
                let _ = &mut server;
                core::mem::forget((client, server));
            }),
            Part::GiveUp | Part::Wait => play.server = Some(desk.server(cast.join(DRIVER)).expect("nobody serves yet")),
            Part::Receive => play.client = Some(desk.client(cast.join(DRIVER)).expect("every cell is free")),
            _ => {}
        }
        play
    }

    fn serve(&mut self, time: Duration, answers: bool) -> Result<Option<u8>, String> {
        let server = self.server.as_mut().ok_or("no server")?;
        D::serve(server, self.ledger, time, answers)
    }

    fn ask(&mut self, number: u8, time: Duration) -> Result<Asked, String> {
        D::ask(self.client.as_mut().ok_or("no client")?, number, time)
    }

    /// A server that goes home when all is over.
    fn serve_as(&self, env: K::Env) -> Result<(), String> {
        let mut server = self.desk.server(env)?;
        while self.ledger.is_over.load(SeqCst) == 0 {
            D::serve(&mut server, self.ledger, Duration::from_millis(5), true)?;
        }
        Ok(())
    }
}

impl<'m, K: Cast, D: Desk<'m>> Scene for Play<'m, K, D>
where
    K::Env: Send,
{
    fn prepare(&mut self) {
        let env = self.cast.join(VICTIM);
        match self.part {
            Part::AskAfterTheDead | Part::ClaimEnd => self.victim = Some(env),
            part if part.asks() => self.client = Some(self.desk.client(env).expect("a free cell")),
            _ => self.server = Some(self.desk.server(env).expect("nobody serves yet")),
        }
    }

    fn operate(&mut self) {
        match self.part {
            Part::Ask | Part::Wait => {
                let _ = self.ask(OF_VICTIM, PATIENCE).expect("what was asked for");
            }
            Part::AskAfterTheDead => {
                self.client = Some(self.desk.client(self.victim.take().expect("prepared")).expect("a free cell"));
                let _ = self.ask(OF_VICTIM, PATIENCE).expect("what was asked for");
            }
            Part::GiveUp => {
                assert_eq!(self.ask(OF_VICTIM, Duration::ZERO), Ok(Asked::TimedOut));
                assert_eq!(self.ask(OF_VICTIM + 1, Duration::ZERO), Ok(Asked::TimedOut));
            }
            Part::ClaimEnd => {
                self.server = Some(self.desk.server(self.victim.take().expect("prepared")).expect("its owner is dead"));
            }
            Part::Serve | Part::ServeAndClose | Part::DropRequests | Part::Receive => {
                let times = if let Role::PeersAsleep(count) = self.role { count } else { 1 };
                let times = if self.part == Part::ServeAndClose { 1 } else { times };
                for _ in 0..times {
                    self.serve(PATIENCE, self.part != Part::DropRequests).expect("a request");
                }
                if self.part == Part::ServeAndClose {
                    drop(self.server.take());
                }
            }
        }
    }

    fn companion(&mut self, who: usize) -> Result<(), String> {
        let who = u8::try_from(who).unwrap_or(0);
        let env = self.cast.join(COMPANION + u32::from(who));
        if matches!(self.part, Part::Ask | Part::AskAfterTheDead) {
            return self.serve_as(env);
        }
        let mut client = self.desk.client(env)?;
        match D::ask(&mut client, OF_COMPANION + who, PATIENCE)? {
            Asked::Answered => Ok(()),
            Asked::Told if !self.part.asks() => Ok(()),
            asked => Err(format!("{asked:?}")),
        }
    }

    fn rouse(&mut self) {
        if self.part == Part::Receive {
            // The victim may be dead by the time.
            self.ask(OF_DRIVER, Duration::from_millis(2)).expect("an answer, or none");
        } else {
            let pending = if self.role == Role::SecondWaiter { 2 } else { 1 };
            for _ in 0..pending {
                self.serve(SURVIVOR, true).expect("a request");
            }
        }
    }

    fn interlude(&mut self) -> Result<(), String> {
        // The paused victim serves: no false death.
        if self.desk.server(self.cast.join(DRIVER)).is_ok() { Err("two servers".into()) } else { Ok(()) }
    }

    fn reap(&mut self) {
        self.ledger.is_over.store(1, SeqCst);
        self.cast.bury_victim();
    }

    /// Every cell is of use, to clients of a server that lives.
    fn survive(&mut self, completed: bool) -> Result<(), String> {
        self.client = None;
        let mut server = match self.server.take() {
            Some(server) => server,
            None => self.desk.server(self.cast.join(DRIVER)).map_err(|error| format!("the end: {error}"))?,
        };
        let ledger = self.ledger;
        ledger.is_over.store(0, SeqCst);
        std::thread::scope(|scope| {
            let serving = scope.spawn(move || {
                while ledger.is_over.load(SeqCst) == 0 {
                    D::serve(&mut server, ledger, Duration::from_millis(2), true)?;
                }
                Ok::<_, String>(())
            });
            let asked = (0..CLIENTS).try_for_each(|i| {
                let number = OF_DRIVER + 1 + u8::try_from(i).unwrap_or(0);
                // Kept until the end, so that the next one gets another cell.
                let client = self.desk.client(self.cast.join(DRIVER)).map_err(|error| format!("a cell: {error}"))?;
                let client = Box::leak(Box::new(client));
                match D::ask(client, number, SURVIVOR)? {
                    Asked::Answered => Ok(()),
                    asked => Err(format!("{asked:?}, and a server is there")),
                }
            });
            ledger.is_over.store(1, SeqCst);
            asked.and(serving.join().map_err(|_| "the server panicked")?)
        })?;
        let done = ledger.done[usize::from(OF_VICTIM)].load(SeqCst);
        if completed && matches!(self.part, Part::Ask | Part::AskAfterTheDead | Part::Wait) && done != 1 {
            return Err(format!("answered, and done {done} times"));
        }
        ledger.check()
    }
}

/// Told surroundings whose process dies when it would sleep.
#[derive(Clone, Copy)]
struct DiesAsleep<'a>(Told<'a>);

impl Wait for DiesAsleep<'_> {
    type Deadline = Option<u64>;
    fn never(&self) -> Option<u64> {
        self.0.never()
    }
    fn after(&self, timeout: Duration) -> Option<u64> {
        self.0.after(timeout)
    }
    fn park(&self, _: &AtomicU32, _: u32, _: Slice, _: Option<u64>) -> Parked {
        std::panic::resume_unwind(Box::new(()))
    }
    fn wake(&self, word: &AtomicU32, count: u32) -> u32 {
        self.0.wake(word, count)
    }
    fn spins(&self) -> u32 {
        0
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for DiesAsleep<'_> {
    fn me(&self) -> Option<OwnerId> {
        self.0.me()
    }
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.0.is_dead(owner)
    }
}

/// A dies, then B, each asking or serving; then C must find an end and cells that work, and nothing done twice.
struct Deaths<'m, D> {
    memory: &'m Mapping,
    dead: &'m Graveyard,
    desk: Option<D>,
    start: usize,
}

impl<'m, D: Desk<'m>> Deaths<'m, D> {
    fn bury(&self, dead: &[u32]) {
        self.dead.clear();
        dead.iter().for_each(|who| self.dead.bury(owner(*who)));
    }

    /// Asks, and dies when it would sleep.
    fn ask_and_die(&self, who: u32, number: u8) {
        self.ask_in(DiesAsleep(Told::sleepless(who, self.dead)), number);
    }

    /// Asks, and gives up when it would sleep.
    fn ask(&self, who: u32, number: u8) {
        self.ask_in(Told::sleepless(who, self.dead), number);
    }

    fn ask_in<E: Wait + Liveness>(&self, env: E, number: u8) {
        let Some(Ok(client)) = self.desk.map(|desk| desk.client(env)) else { return };
        let mut client = core::mem::ManuallyDrop::new(client);
        let _ = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| D::ask(&mut client, number, PATIENCE)));
    }

    /// Claims the end, serves what is there, and keeps the end.
    fn serve(&self, who: u32) {
        let Some(Ok(server)) = self.desk.map(|desk| desk.server(Told::sleepless(who, self.dead))) else { return };
        let mut server = core::mem::ManuallyDrop::new(server);
        for _ in 0..2 {
            let _ = D::serve(&mut server, Ledger::of(self.memory), PATIENCE, true);
        }
    }
}

impl<'m, D: Desk<'m>> Drama for Deaths<'m, D> {
    fn starts(&self) -> usize {
        4
    }

    fn set_up(&mut self, start: usize) {
        self.bury(&[]);
        self.start = start;
        self.desk = Some(D::at(self.memory));
        // A server that lives until A begins, and a client that sleeps on a request of its own.
        self.serve(PREDECESSOR);
        if start != 0 {
            self.ask_and_die(DRIVER + 10, OF_DEAD);
        }
        if start == 1 {
            self.serve(PREDECESSOR);
        }
    }

    fn first(&mut self) {
        match self.start {
            // In a fresh cell, and behind a dead client's, whose cell it gets because no other is free.
            0 | 1 => self.ask(VICTIM, OF_VICTIM),
            _ => {
                self.bury(&[PREDECESSOR]);
                self.serve(VICTIM);
            }
        }
    }

    fn second(&mut self) {
        self.bury(&[PREDECESSOR, VICTIM]);
        match self.start {
            3 => self.ask(COMPANION, OF_COMPANION),
            _ => self.serve(COMPANION),
        }
    }

    fn third(&mut self) -> Result<(), String> {
        self.bury(&[PREDECESSOR, VICTIM, COMPANION, DRIVER + 10]);
        let desk = self.desk.ok_or("no desk")?;
        let ledger = Ledger::of(self.memory);
        let mut server = desk.server(Told::sleepless(DRIVER, self.dead))?;
        for number in OF_DRIVER..OF_DRIVER + 3 {
            // In each of the cells, one after the other.
            self.ask_and_die(DRIVER, number);
            let served = D::serve(&mut server, ledger, PATIENCE, true)?;
            if served != Some(number) {
                return Err(format!("{served:?} where request {number} was due"));
            }
        }
        ledger.check()
    }
}

fn play<'m, D: Desk<'m>>(wanted: &Wanted, table: &mut Table, memory: &'m Mapping, plan: &Plan, part: Part) {
    if wanted.is(plan.name) {
        let graves = Mapping::new(size_of::<Graveyard>());
        table
            .add(sweep(plan, wanted.effort, || Play::<'m, _, D>::new(memory, ToldCast::new(&graves), part, plan.role)));
    }
}

fn deaths<'m, D: Desk<'m>>(wanted: &Wanted, table: &mut Table, plan: PairPlan) {
    if wanted.is(plan.name) {
        // The desk's lifetime is its caller's choice, so its memory lives as long as the program.
        let memory: &'m Mapping = Box::leak(Box::new(Mapping::new(OFFICE_BYTES)));
        let dead: &'m Graveyard = Graveyard::of(Box::leak(Box::new(Mapping::new(size_of::<Graveyard>()))), 0);
        let mut drama = Deaths::<D> { memory, dead, desk: None, start: 0 };
        table.add(pairs(plan, wanted.effort, memory, &mut drama));
    }
}

/// Sweeps of request and response, then of a broken desk.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    use Role::{Alone, Asleep, JustWoken, PeersAsleep, SecondWaiter};
    type Short<'m> = Cells<'m, 8>;
    type Long<'m> = Cells<'m, 100>;
    let memory = Mapping::new(OFFICE_BYTES);
    let cases: [(&str, Part, u64, &[Role]); 9] = [
        ("call: ask", Part::Ask, 100, &[PeersAsleep(1)]),
        ("call: ask after the dead", Part::AskAfterTheDead, 100, &[PeersAsleep(1)]),
        ("call: give up", Part::GiveUp, 100, &[Alone]),
        ("call: wait for the answer", Part::Wait, 30, &[Asleep, JustWoken, SecondWaiter]),
        ("call: serve", Part::Serve, 50, &[PeersAsleep(1)]),
        ("call: serve and close", Part::ServeAndClose, 50, &[PeersAsleep(1), PeersAsleep(2)]),
        ("call: drop a request", Part::DropRequests, 50, &[PeersAsleep(1)]),
        ("call: claim the server's end", Part::ClaimEnd, 30, &[Alone]),
        ("call: receive", Part::Receive, 50, &[Asleep, JustWoken]),
    ];
    for (name, part, floor, roles) in cases {
        for role in roles {
            play::<Short<'_>>(wanted, table, &memory, &Plan::new(name, floor).role(*role), part);
        }
    }
    let long = |name| Plan::new(name, 50).role(PeersAsleep(1)).cut(Cut::Edges { stride: 3 });
    play::<Long<'_>>(wanted, table, &memory, &long("call: ask, 100 bytes"), Part::Ask);
    play::<Long<'_>>(wanted, table, &memory, &long("call: serve, 100 bytes"), Part::Serve);
    let paused = Plan::new("call: serve", 50).role(PeersAsleep(1)).paused().cut(Cut::Edges { stride: 3 });
    play::<Short<'_>>(wanted, table, &memory, &paused, Part::Serve);
    deaths::<Short<'_>>(wanted, table, PairPlan { name: "call: deaths of both sides", floor: 500_000, seeded: false });
    deaths::<Long<'_>>(wanted, table, PairPlan { name: "call: deaths, 100 bytes", floor: 500_000, seeded: false });

    let seed = Plan::new("desk without names", 1).role(PeersAsleep(1)).seeded();
    play::<Nameless<'_>>(wanted, table, &memory, &seed, Part::Serve);
    deaths::<Nameless<'_>>(wanted, table, PairPlan { name: "desk without names", floor: 1, seeded: true });
}

/// The same by leases: who is dead is what the kernel says.
pub(crate) fn leased(wanted: &Wanted, table: &mut Table) {
    let memory = Mapping::new(OFFICE_BYTES);
    let cases = [
        ("leased call: ask", Part::Ask, Role::PeersAsleep(1)),
        ("leased call: serve", Part::Serve, Role::PeersAsleep(1)),
    ];
    for (name, part, role) in cases {
        if wanted.is(name) && LeasedHome::lets_sleep(role) {
            let home = LeasedHome::new(role);
            let plan = Plan::new(name, 50).role(role);
            let make = || Play::<'_, _, Cells<'_, 8>>::new(&memory, home.cast(), part, role);
            table.add(sweep(&plan, wanted.effort, make));
        }
    }
}

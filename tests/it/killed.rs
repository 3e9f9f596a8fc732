//! A process that is killed in a blocking call leaves the others at work.

use std::thread;
use std::time::Duration;

use crosslane::{
    Barrier, BoundedSemaphore, Condvar, Connection, Error, Event, JoinableQueue, Lock, Mutex, Portable, Process, Queue,
    RLock, RwLock, Semaphore, Value, pipe, spawn, wait,
};

use crate::{LIMIT, Watchdog, until};

/// Starts `f` in a process and kills that when it sleeps in the call that `f` ends in.
fn kill_asleep<A: Portable>(f: fn(A), args: A) {
    let child = spawn(f, args).unwrap();
    await_sleep(&child);
    child.kill().unwrap();
    assert!(matches!(child.join(), Err(Error::Died { .. })));
}

/// Waits until the child's main thread sleeps in a futex or a poll, not having been there on its way only.
fn await_sleep<R>(child: &Process<R>) {
    let path = format!("/proc/{}/task/{0}/syscall", child.id());
    let is_asleep = || {
        let number = std::fs::read_to_string(&path).unwrap_or_default();
        let number = number.split(' ').next().and_then(|number| number.parse::<i64>().ok());
        number.is_some_and(|n| [libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_poll, libc::SYS_ppoll].contains(&n))
    };
    until("the child sleeps", || {
        let first = is_asleep();
        thread::sleep(Duration::from_millis(3));
        first && is_asleep()
    });
}

#[test]
fn pain_4_a_consumer_killed_while_it_waits_leaves_the_queue_to_others() {
    let _watchdog = Watchdog::new();
    let queue = Queue::<u64>::bounded(4).unwrap();
    for n in 0..3 {
        kill_asleep(|queue: Queue<u64>| drop(queue.get()), queue.clone());
        queue.put(n).unwrap();
        assert_eq!(queue.get_timeout(LIMIT).unwrap(), n);
    }
    // Also of two who wait, one of whom is killed.
    let other = spawn(|queue: Queue<u64>| queue.get().unwrap(), queue.clone()).unwrap();
    kill_asleep(|queue: Queue<u64>| drop(queue.get()), queue.clone());
    queue.put(9).unwrap();
    assert_eq!(other.join().unwrap(), 9);
}

#[test]
fn pain_4_a_producer_killed_in_the_middle_of_large_messages_blocks_nobody() {
    let _watchdog = Watchdog::new();
    let queue = Queue::<Vec<u8>>::with_limit(4, 1 << 20).unwrap();
    for _ in 0..3 {
        let producer = spawn(
            |queue: Queue<Vec<u8>>| {
                for n in 0_u8.. {
                    queue.put(vec![n; 1 << 20]).unwrap();
                }
            },
            queue.clone(),
        );
        let producer = producer.unwrap();
        for _ in 0..5 {
            queue.get_timeout(LIMIT).unwrap();
        }
        // It is most likely killed inside a copy; the kill sweep of `tests/crash` goes through every instruction.
        producer.kill().unwrap();
        assert!(producer.join().is_err());
        while let Ok(bytes) = queue.get_timeout(Duration::from_millis(30)) {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "no half of a message");
        }
        queue.put(vec![7]).unwrap();
        assert_eq!(queue.get_timeout(LIMIT).unwrap(), [7]);
    }
}

#[test]
fn a_producer_killed_while_it_waits_for_room_leaves_the_queue_to_others() {
    let _watchdog = Watchdog::new();
    let queue = Queue::<u64>::bounded(2).unwrap();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    kill_asleep(|queue: Queue<u64>| drop(queue.put(3)), queue.clone());
    let other = spawn(|queue: Queue<u64>| queue.put(4).unwrap(), queue.clone()).unwrap();
    assert_eq!([(); 3].map(|()| queue.get_timeout(LIMIT).unwrap()), [1, 2, 4]);
    other.join().unwrap();
}

#[test]
fn who_is_killed_while_joining_leaves_the_queue_to_others() {
    let _watchdog = Watchdog::new();
    let queue = JoinableQueue::<u64>::bounded(2).unwrap();
    queue.put(1).unwrap();
    kill_asleep(|queue: JoinableQueue<u64>| drop(queue.join()), queue.clone());
    let other = spawn(|queue: JoinableQueue<u64>| queue.join().unwrap(), queue.clone()).unwrap();
    assert_eq!(queue.get_timeout(LIMIT).unwrap(), 1);
    queue.task_done().unwrap();
    queue.join_timeout(LIMIT).unwrap();
    other.join().unwrap();
}

/// One process is killed while it waits in `call`, and another one that waits there too goes on after `release`; then
/// there is nothing that anybody waits for.
fn leaves_to_others<H: Portable + Clone>(handle: &H, call: fn(H), release: impl FnOnce()) {
    kill_asleep(call, handle.clone());
    let mut other = spawn(call, handle.clone()).unwrap();
    await_sleep(&other);
    kill_asleep(call, handle.clone());
    release();
    other.join_timeout(LIMIT).unwrap().expect("it goes on");
    call(handle.clone());
}

#[test]
fn who_is_killed_waiting_for_a_lock_leaves_it_to_others() {
    let _watchdog = Watchdog::new();
    let mutex = Mutex::new(0_u8).unwrap();
    let guard = mutex.lock().unwrap();
    leaves_to_others(&mutex, |mutex| drop(mutex.lock().unwrap()), || drop(guard));
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    leaves_to_others(&lock, |lock| drop(lock.lock().unwrap()), || drop(guard));
    let lock = RLock::new().unwrap();
    let guard = lock.lock().unwrap();
    leaves_to_others(&lock, |lock| drop(lock.lock().unwrap()), || drop(guard));
    let shared = RwLock::new(0_u8).unwrap();
    let guard = shared.write().unwrap();
    leaves_to_others(&shared, |shared| drop(shared.read().unwrap()), || drop(guard));
    let guard = shared.read().unwrap();
    leaves_to_others(&shared, |shared| drop(shared.write().unwrap()), || drop(guard));
    let seats = BoundedSemaphore::new(1).unwrap();
    let permit = seats.acquire().unwrap();
    leaves_to_others(&seats, |seats| drop(seats.acquire().unwrap()), || drop(permit));
    let count = Semaphore::new(0).unwrap();
    let pass = |count: Semaphore| {
        count.acquire().unwrap();
        count.release(1).unwrap();
    };
    leaves_to_others(&count, pass, || count.release(1).unwrap());
}

#[test]
fn who_is_killed_waiting_for_others_to_do_something_leaves_them_alone() {
    let _watchdog = Watchdog::new();
    let event = Event::new().unwrap();
    leaves_to_others(&event, |event| event.wait(), || event.set());
    let condition = Condvar::new(0_u8).unwrap();
    let set = || {
        *condition.lock().unwrap() = 1;
        condition.notify_all();
    };
    leaves_to_others(&condition, |condition| drop(condition.lock().unwrap().wait_while(|n| *n == 0)), set);
    // A barrier whose party is dead is broken for all, until it is reset.
    let barrier = Barrier::new(2).unwrap();
    let pass = |barrier: Barrier| {
        let _ = barrier.wait();
    };
    kill_asleep(pass, barrier.clone());
    assert!(barrier.wait_timeout(LIMIT).is_err() && barrier.is_broken());
    barrier.reset();
    let other = spawn(|barrier: Barrier| barrier.wait().is_ok(), barrier.clone()).unwrap();
    assert!(barrier.wait_timeout(LIMIT).is_ok());
    assert!(other.join().unwrap());
}

type Pipe = Connection<Vec<u8>, Vec<u8>>;

#[test]
fn the_peer_of_one_that_was_killed_receiving_is_told() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<Vec<u8>, Vec<u8>>().unwrap();
    kill_asleep(|mut b: Pipe| drop(b.recv()), b);
    assert!(matches!(a.recv(), Err(Error::PeerDied)));
    assert!(a.poll(Duration::ZERO).unwrap());
    let full = (0..100).find_map(|_| a.send(&vec![0; 10_000]).err());
    assert!(matches!(full, Some(Error::PeerDied)), "{full:?}");
}

#[test]
fn the_peer_of_one_that_was_killed_sending_reads_what_was_sent_and_is_told() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<Vec<u8>, Vec<u8>>().unwrap();
    kill_asleep(|mut b: Pipe| while b.send(&vec![5; 1000]).is_ok() {}, b);
    let mut got = 0;
    let end = loop {
        match a.recv() {
            Ok(bytes) => assert_eq!(bytes, [5; 1000]),
            Err(error) => break error,
        }
        got += 1;
    };
    assert!(got > 50 && matches!(end, Error::PeerDied), "{got} {end}");
}

#[test]
fn the_peer_of_one_that_was_killed_waiting_is_told_while_it_waits_itself() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<Vec<u8>, Vec<u8>>().unwrap();
    let (_c, d) = pipe::<u8, u8>().unwrap();
    let waiting = thread::spawn(move || {
        assert_eq!(wait(&[&d, &a], None).unwrap(), [1]);
        assert!(matches!(a.recv(), Err(Error::PeerDied)));
    });
    kill_asleep(|b: Pipe| drop(wait(&[&b], None)), b);
    waiting.join().unwrap();
}

/// Sends until it kills itself in the system call that would wake or ring a peer: after a message was published, and before
/// anybody is told of it. Notes each message before it is sent.
fn send_and_die((mut b, sent): (Connection<u64, ()>, Value<u64>)) {
    // load the call's number; is it `sendto`, or a `futex` that wakes; kill the process.
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut filter = [
        step(load, 0, 0, 0),
        step(equal, 3, 0, number(libc::SYS_sendto)),
        step(equal, 0, 3, number(libc::SYS_futex)),
        step(load, 0, 0, 24),
        step(equal, 0, 1, u32::try_from(libc::FUTEX_WAKE).unwrap()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: a plain call.
    let no_new = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program outlives the call. Only this thread is filtered, which is the one that sends.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!((no_new, filtered), (0, 0));
    for n in 0.. {
        sent.set(n);
        b.send(&n).unwrap();
        // The receiver is awake now and then also while it waits, and finds a message by itself.
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_message_whose_sender_was_killed_before_it_could_wake_anybody_is_found() {
    let _watchdog = Watchdog::new();
    for is_waiting in [true, false] {
        let (mut a, b) = pipe::<(), u64>().unwrap();
        let sent = Value::new(0_u64).unwrap();
        let child = spawn(send_and_die, (b, sent.clone())).unwrap();
        let mut got = 0;
        let end = loop {
            if is_waiting {
                assert_eq!(wait(&[&a], None).unwrap(), [0]);
            }
            match a.recv() {
                Ok(n) => assert_eq!(n, got),
                Err(end) => break end,
            }
            got += 1;
        };
        assert!(matches!(end, Error::PeerDied), "{end:?}");
        assert!(matches!(child.join(), Err(Error::Died { .. })));
        assert_eq!(got, sent.get() + 1, "the last one too");
    }
}

#[test]
fn an_end_whose_receiver_died_before_it_came_is_closed() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<u8, u8>().unwrap();
    let (mut carrier, other) = pipe::<Connection<u8, u8>, ()>().unwrap();
    let child = spawn(
        |_other: Connection<(), Connection<u8, u8>>| -> () {
            loop {
                thread::park();
            }
        },
        other,
    );
    let child = child.unwrap();
    carrier.send(&b).unwrap();
    drop(b);
    assert!(!a.poll(Duration::from_millis(20)).unwrap(), "it is on its way");
    child.kill().unwrap();
    assert!(child.join().is_err());
    // At once, as this process has seen the child's end.
    assert!(matches!(a.recv(), Err(Error::Closed)));
    // Closed, if it died before it had its own end.
    assert!(matches!(carrier.recv(), Err(Error::PeerDied | Error::Closed)));
}

#[test]
fn an_end_among_the_arguments_of_a_process_that_dies_at_once_ends() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<u8, u8>().unwrap();
    let child = spawn(|_: Connection<u8, u8>| -> () { std::process::abort() }, b).unwrap();
    let end = a.recv();
    assert!(matches!(end, Err(Error::PeerDied | Error::Closed)), "{end:?}");
    assert!(child.join().is_err());
}

#[test]
fn the_peer_of_an_end_on_its_way_is_told_when_the_sender_dies() {
    let _watchdog = Watchdog::new();
    let (mut a, b) = pipe::<u8, u8>().unwrap();
    let child = spawn(
        |b: Connection<u8, u8>| -> () {
            let (mut carrier, _other) = pipe::<Connection<u8, u8>, ()>().unwrap();
            carrier.send(&b).unwrap();
            std::process::abort();
        },
        b,
    );
    assert!(matches!(a.recv(), Err(Error::PeerDied)));
    assert!(child.unwrap().join().is_err());
}

//! Two threads on one mapping of each protocol of `crosslane-core`, for the thread sanitizer.
//!
//! Built by `ci/tsan.sh` with rustc alone, together with the core, so that every instruction of it is instrumented. The
//! threads are made with pthread_create: std is not instrumented, and its own synchronisation would hide missing edges
//! or give false reports. Payload copies are plain under `--cfg crosslane_tsan`.
//!
//! `tsan CASE ITEMS`: exits 0 when every item came in order; what the sanitizer thinks is its own exit status.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use crosslane_core::mutex::{Acquired, LockWord};
use crosslane_core::prim::is_still;
use crosslane_core::{Liveness, OwnerId, Parked, Slice, Wait, WakeMode, array, latest, mpmc, record, spsc};

unsafe extern "C" {
    fn pthread_create(
        thread: *mut usize,
        attributes: *const c_void,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> i32;
    fn pthread_join(thread: usize, value: *mut *mut c_void) -> i32;
    fn sched_yield() -> i32;
}

/// Slots of the ring, few so that it is often full and often empty.
const SLOTS: u32 = 8;
/// Bytes of the record ring.
const RECORD_BYTES: u32 = 256;
const MEMORY_BYTES: usize = 8192;

#[repr(C, align(128))]
struct Memory([u8; MEMORY_BYTES]);

/// The thread of this number; nobody dies, and who waits lets others run.
#[derive(Clone, Copy)]
struct Env(u32);

impl Wait for Env {
    type Deadline = ();
    fn never(&self) {}
    fn after(&self, _: Duration) {}
    fn park(&self, word: &AtomicU32, expected: u32, _: Slice, (): ()) -> Parked {
        for _ in 0..100 {
            if !is_still(word, expected) {
                break;
            }
            // SAFETY: a plain call.
            unsafe { sched_yield() };
        }
        Parked::Again
    }
    fn wake(&self, _: &AtomicU32, _: u32) -> u32 {
        0
    }
    fn spins(&self) -> u32 {
        20
    }
    fn in_heavy_barriers(&self) -> bool {
        false
    }
    fn heavy_barrier(&self) -> bool {
        false
    }
}

impl Liveness for Env {
    fn me(&self) -> Option<OwnerId> {
        OwnerId::new(self.0, 1)
    }
    fn is_dead(&self, _: OwnerId) -> bool {
        false
    }
}

/// What both threads are given.
struct Shared {
    memory: NonNull<u8>,
    items: u64,
    run: fn(&Shared, u32),
}

struct Argument<'a>(&'a Shared, u32);

extern "C" fn start(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `both` passes an `Argument` that outlives the thread.
    let Argument(shared, thread) = unsafe { &*argument.cast::<Argument<'_>>() };
    (shared.run)(shared, *thread);
    null_mut()
}

fn both(shared: &Shared) {
    let arguments = [Argument(shared, 0), Argument(shared, 1)];
    let threads = [0, 1].map(|i: usize| {
        let mut thread = 0;
        let argument = (&raw const arguments[i]).cast_mut().cast();
        // SAFETY: the argument lives until the thread has been joined below.
        let failed = unsafe { pthread_create(&mut thread, core::ptr::null(), start, argument) };
        assert_eq!(failed, 0);
        thread
    });
    for thread in threads {
        // SAFETY: created above and joined once.
        assert_eq!(unsafe { pthread_join(thread, null_mut()) }, 0);
    }
}

type Item = [u64; 5];

fn item(number: u64) -> Item {
    [number, !number, number ^ 7, number, number]
}

fn spsc_ring(shared: &Shared) -> spsc::Ring<'_, Item> {
    // SAFETY: the memory lives as long as `shared` is borrowed, and is used for this ring alone.
    unsafe { spsc::Ring::attach(shared.memory, MEMORY_BYTES, SLOTS, WakeMode::Fenced) }.expect("fits")
}

fn record_ring(shared: &Shared) -> record::Ring<'_> {
    // SAFETY: as above.
    unsafe { record::Ring::attach(shared.memory, MEMORY_BYTES, RECORD_BYTES, WakeMode::Fenced) }.expect("fits")
}

fn spsc_singles(shared: &Shared, thread: u32) {
    if thread == 0 {
        let mut producer = spsc_ring(shared).producer(Env(0)).expect("vacant");
        (0..shared.items).for_each(|i| producer.push(item(i)).expect("the consumer lives"));
    } else {
        let mut consumer = spsc_ring(shared).consumer(Env(1)).expect("vacant");
        (0..shared.items).for_each(|i| assert_eq!(consumer.pop(), Ok(item(i))));
    }
}

fn spsc_batches(shared: &Shared, thread: u32) {
    let mut done = 0;
    if thread == 0 {
        let mut producer = spsc_ring(shared).producer(Env(0)).expect("vacant");
        while done < shared.items {
            let batch: Vec<Item> = (done..shared.items).take(5).map(item).collect();
            match producer.push_slice(&batch) {
                Ok(count) => done += count as u64,
                // SAFETY: a plain call.
                Err(_) => _ = unsafe { sched_yield() },
            }
        }
    } else {
        let mut consumer = spsc_ring(shared).consumer(Env(1)).expect("vacant");
        let mut batch = [item(0); 3];
        while done < shared.items {
            let count = consumer.pop_slice(&mut batch).unwrap_or(0);
            for popped in &batch[..count] {
                assert_eq!(*popped, item(done));
                done += 1;
            }
        }
    }
}

fn spsc_loans(shared: &Shared, thread: u32) {
    let mut done = 0;
    if thread == 0 {
        let producer = spsc_ring(shared).producer(Env(0)).expect("vacant");
        // SAFETY: both ends are this program's.
        let mut producer = unsafe { producer.trust_peers() };
        while done < shared.items {
            if let Ok(mut loan) = producer.loan() {
                *loan = item(done);
                loan.commit();
                done += 1;
            }
        }
    } else {
        let consumer = spsc_ring(shared).consumer(Env(1)).expect("vacant");
        // SAFETY: as above.
        let mut consumer = unsafe { consumer.trust_peers() };
        while done < shared.items {
            if let Ok(front) = consumer.front() {
                assert_eq!(*front, item(done));
                drop(front);
                done += 1;
            }
        }
    }
}

fn bytes(number: u64) -> Vec<u8> {
    (0..number % 61).map(|i| (number + i).to_le_bytes()[0]).collect()
}

fn records(shared: &Shared, thread: u32) {
    if thread == 0 {
        let mut writer = record_ring(shared).writer(Env(0)).expect("vacant");
        (0..shared.items).for_each(|i| writer.push(&bytes(i)).expect("the reader lives"));
    } else {
        let mut reader = record_ring(shared).reader(Env(1)).expect("vacant");
        let mut buffer = [0; 64];
        for i in 0..shared.items {
            let len = reader.pop_into(&mut buffer).expect("the writer lives or has closed");
            assert_eq!(buffer[..len], bytes(i));
        }
    }
}

fn record_loans(shared: &Shared, thread: u32) {
    if thread == 0 {
        let writer = record_ring(shared).writer(Env(0)).expect("vacant");
        // SAFETY: both ends are this program's.
        let mut writer = unsafe { writer.trust_peers() };
        for i in 0..shared.items {
            let record = bytes(i);
            let mut room = writer.reserve(record.len()).expect("the reader lives");
            let (front, back) = room.as_mut_slices();
            front.copy_from_slice(&record[..front.len()]);
            back.copy_from_slice(&record[front.len()..]);
            room.commit().expect("no fork");
        }
    } else {
        let reader = record_ring(shared).reader(Env(1)).expect("vacant");
        // SAFETY: as above.
        let mut reader = unsafe { reader.trust_peers() };
        for i in 0..shared.items {
            let record = reader.read().expect("the writer lives or has closed");
            let (front, back) = record.as_slices();
            assert_eq!([front, back].concat(), bytes(i));
        }
    }
}

type Queue<'a> = mpmc::Queue<'a, Item, Env, crosslane_core::Trusted>;

fn item_slot() -> mpmc::Payload {
    mpmc::Payload::of::<Item>().expect("short")
}

fn queue(shared: &Shared, thread: u32) -> Queue<'_> {
    // SAFETY: the memory lives as long as `shared` is borrowed, and is used for this queue alone.
    let ring = unsafe { mpmc::Ring::attach(shared.memory, MEMORY_BYTES, SLOTS, item_slot(), WakeMode::Fenced) };
    let queue = mpmc::Queue::new(ring.expect("fits"), Env(thread)).expect("of this payload");
    // SAFETY: both threads are this program's.
    unsafe { queue.trust_peers() }
}

fn mpmc_singles(shared: &Shared, thread: u32) {
    let queue = queue(shared, thread);
    if thread == 0 {
        (0..shared.items).for_each(|i| queue.push(item(i)).expect("not closed"));
    } else {
        (0..shared.items).for_each(|i| assert_eq!(queue.pop(), Ok(item(i))));
    }
}

fn mpmc_claims(shared: &Shared, thread: u32) {
    let queue = queue(shared, thread);
    for i in 0..shared.items {
        if thread == 0 {
            let mut slot = queue.reserve().expect("not closed");
            *slot = item(i);
            slot.commit();
        } else {
            assert_eq!(queue.take().expect("not closed").ack(), item(i));
        }
    }
}

/// Items that were acknowledged. Relaxed, so that it orders nothing.
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

/// Both consume: who gets an item first gives it back, who gets it again keeps it.
fn mpmc_returns(shared: &Shared, thread: u32) {
    let (queue, mut pushed) = (queue(shared, thread), 0);
    while ACKNOWLEDGED.load(Ordering::Relaxed) < shared.items {
        if thread == 0 && pushed < shared.items && queue.try_push(item(pushed)).is_ok() {
            pushed += 1;
        }
        let Ok(delivery) = queue.try_take() else {
            // SAFETY: a plain call.
            _ = unsafe { sched_yield() };
            continue;
        };
        assert_eq!(*delivery, item(delivery[0]));
        if delivery.attempts() > 0 {
            delivery.ack();
            ACKNOWLEDGED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn mpmc_bytes(shared: &Shared, thread: u32) {
    let payload = mpmc::Bytes::payload(64).expect("short");
    // SAFETY: as in `queue`.
    let ring = unsafe { mpmc::Ring::attach(shared.memory, MEMORY_BYTES, SLOTS, payload, WakeMode::Fenced) };
    let queue = mpmc::Bytes::new(ring.expect("fits"), 64, Env(thread)).expect("of this payload");
    let mut buffer = [0; 64];
    for i in 0..shared.items {
        if thread == 0 {
            queue.push(&bytes(i)).expect("not closed");
        } else {
            let len = queue.pop_into(&mut buffer).expect("not closed");
            assert_eq!(buffer[..len], bytes(i));
        }
    }
}

/// Values that one writer publishes: no cell is written twice, so that only the edge of publishing can race. What is
/// overtaken in the other one is thrown away, which the sanitizer cannot know.
const VALUES: u64 = 100;

fn newest(shared: &Shared, thread: u32) {
    let cells = u32::try_from(VALUES + 1).expect("few");
    // SAFETY: as in `spsc_ring`.
    let cells = unsafe { latest::Cells::<Item>::attach(shared.memory, MEMORY_BYTES, cells, WakeMode::Fenced) };
    let cells = cells.expect("fits");
    if thread == 0 {
        let mut writer = cells.writer(Env(0)).expect("vacant");
        (1..=VALUES).for_each(|i| writer.publish(&item(i)).expect("no fork"));
    } else {
        let mut reader = cells.reader(Env(1));
        let mut version = 0;
        while version < VALUES {
            match reader.read() {
                Ok(value) => assert_eq!(value, item(reader.version())),
                Err(latest::ReadError::Empty) => {
                    // SAFETY: a plain call.
                    _ = unsafe { sched_yield() };
                }
                Err(error) => panic!("{error}"),
            }
            assert!(reader.version() >= version);
            version = reader.version();
        }
    }
}

/// A range handed to and fro by the element before it, which says whose turn it is.
fn ranges(shared: &Shared, thread: u32) {
    const LEN: usize = 9;
    // SAFETY: as in `spsc_ring`.
    let array = unsafe { array::Array::<u64>::attach(shared.memory, MEMORY_BYTES, LEN as u64 + 1) }.expect("fits");
    let mut found = [0; LEN];
    for i in (u64::from(thread)..shared.items).step_by(2) {
        while array.fetch_add(0, 0) != i {
            // SAFETY: a plain call.
            _ = unsafe { sched_yield() };
        }
        array.read_slice(1, &mut found);
        assert_eq!(found, [i; LEN]);
        array.write_slice(1, &[i + 1; LEN]);
        array.fetch_add(0, 1);
    }
}

fn mutex(shared: &Shared, thread: u32) {
    let env = Env(thread);
    // SAFETY: zeroed memory is a free lock; the counters stand behind it.
    let word = unsafe { shared.memory.cast::<LockWord>().as_ref() };
    // SAFETY: inside the memory, aligned.
    let counters = unsafe { shared.memory.add(128) }.cast::<[u64; 4]>();
    for _ in 0..shared.items {
        assert_eq!(word.lock(&env, ()), Ok(Acquired::Clean));
        // SAFETY: the lock is held, so nobody else touches the counters.
        unsafe { (*counters.as_ptr()).iter_mut().for_each(|counter| *counter += 1) };
        word.unlock(&env, false);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().expect("a case");
    let items = arguments.next().and_then(|n| n.parse().ok()).expect("a number of items");
    let run = match case.as_str() {
        "spsc" => spsc_singles,
        "batches" => spsc_batches,
        "loans" => spsc_loans,
        "record" => records,
        "record_loans" => record_loans,
        "mpmc" => mpmc_singles,
        "mpmc_claims" => mpmc_claims,
        "mpmc_returns" => mpmc_returns,
        "mpmc_bytes" => mpmc_bytes,
        "latest" => newest,
        "array" => ranges,
        "mutex" => mutex,
        other => panic!("no case {other}"),
    };
    let mut memory = Box::new(Memory([0; MEMORY_BYTES]));
    let start = NonNull::from(&mut memory.0).cast();
    // SAFETY: nobody else uses the memory yet.
    match case.as_str() {
        "spsc" | "batches" | "loans" => {
            _ = unsafe { spsc::Ring::<Item>::init(start, MEMORY_BYTES, SLOTS, WakeMode::Fenced) }.expect("fits");
        }
        "mpmc" | "mpmc_claims" | "mpmc_returns" | "mpmc_bytes" => {
            let bytes = mpmc::Bytes::payload(64).expect("short");
            let payload = if case == "mpmc_bytes" { bytes } else { item_slot() };
            _ = unsafe { mpmc::Ring::init(start, MEMORY_BYTES, SLOTS, payload, 7, WakeMode::Fenced) }.expect("fits");
        }
        // All zero is a valid start.
        "mutex" | "array" | "latest" => {}
        _ => _ = unsafe { record::Ring::init(start, MEMORY_BYTES, RECORD_BYTES, WakeMode::Fenced) }.expect("fits"),
    }
    let shared = Shared { memory: start, items, run };
    let rounds = if case == "latest" { (items / VALUES).max(1) } else { 1 };
    both(&shared);
    for _ in 1..rounds {
        // SAFETY: both threads have ended.
        unsafe { start.write_bytes(0, MEMORY_BYTES) };
        both(&shared);
    }
    if case == "mutex" {
        // SAFETY: both threads have ended.
        assert_eq!(unsafe { start.add(128).cast::<[u64; 4]>().read() }, [2 * items; 4]);
    }
    println!("{case}: {items} items");
}

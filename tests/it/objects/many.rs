//! Many objects at once: descriptors, and what happens when there are not enough.

use crosslane::{Array, BoundedSemaphore, Condvar, Event, Lock, Mutex, Queue, RwLock, Value, pipe, spawn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{run, start};

type Objects = (Value<u64>, Array<u64>, Lock, Mutex<u64>, Event);

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn limit_fds(most: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
}

fn make(n: u64) -> Objects {
    let value = Value::new(n).unwrap();
    let array = Array::from_slice(&[n; 4]).unwrap();
    (value, array, Lock::new().unwrap(), Mutex::new(n).unwrap(), Event::new().unwrap())
}

/// A thousand objects go to a child and back in one message each, within a fraction of the usual limit of descriptors.
#[test]
fn pain_21_a_thousand_small_objects_take_few_descriptors() {
    let count = |()| {
        limit_fds(64);
        let before = open_fds();
        let objects: Vec<_> = (0..250).map(make).collect();
        let back = run(use_all, objects.clone());
        for ((mine, theirs), n) in objects.iter().zip(&back).zip(1..) {
            assert_eq!((mine.0.get(), *theirs.3.lock().unwrap(), mine.4.is_set()), (n, n, true));
        }
        (back.len(), open_fds() - before)
    };
    let (objects, fds) = run(count, ());
    assert_eq!(objects, 250);
    assert!(fds < 40, "{fds}");
}

fn use_all(objects: Vec<Objects>) -> Vec<Objects> {
    for (value, array, lock, mutex, event) in &objects {
        let _guard = lock.lock().unwrap();
        let n = *mutex.lock().unwrap();
        assert_eq!((value.fetch_add(1), array.get(3)), (n, n));
        *mutex.lock().unwrap() += 1;
        event.set();
    }
    objects
}

/// pytorch's "received 0 items of ancdata".
#[test]
fn more_descriptors_than_the_receiver_may_have_are_an_error_and_no_fewer_arrays() {
    let arrays: Vec<_> = (0..80).map(|_| Array::<u8>::zeroed(1 << 13).unwrap()).collect();
    let few = |()| {
        limit_fds(48);
        let arrays = |count: usize| (0..count).map(|_| Array::<u8>::zeroed(1 << 13)).collect::<Result<Vec<_>, _>>();
        assert!(arrays(60).is_err());
        let handed = spawn(|arrays: Vec<Array<u8>>| arrays.len(), arrays(24).unwrap());
        format!("{:?}", handed.and_then(|child| child.join()))
    };
    assert_eq!(run(few, ()), "Err(FdLimit)");
    assert_eq!(run(|arrays: Vec<Array<u8>>| arrays.len(), arrays), 80);
}

#[test]
fn every_kind_goes_as_a_result_too() {
    type All = (Value<[u8; 20]>, Array<f32>, Lock, RwLock<u64>, Condvar<u32>, BoundedSemaphore);
    let make = |()| -> All {
        let value = Value::new([7; 20]).unwrap();
        let array = Array::zeroed(3).unwrap();
        let locks = (Lock::new().unwrap(), RwLock::new(1).unwrap(), Condvar::new(2).unwrap());
        (value, array, locks.0, locks.1, locks.2, BoundedSemaphore::new(3).unwrap())
    };
    // Their maker has ended.
    let (value, array, lock, shared, condition, seats) = run(make, ());
    assert_eq!((value.get(), array.len(), *shared.read().unwrap()), ([7; 20], 3, 1));
    assert!(lock.lock().is_ok());
    assert_eq!(*condition.lock().unwrap(), 2);
    assert_eq!(seats.available(), 3);
    let again = start(|value: Value<[u8; 20]>| value.get()[19], value);
    assert_eq!(crate::support::done(again), 7);
}

#[test]
fn a_handle_outside_of_a_message_says_what_to_do() {
    for text in [
        serde_json::to_string(&Value::new(1_u8).unwrap()).unwrap_err().to_string(),
        serde_json::to_string(&Value::new([1_u64; 2]).unwrap()).unwrap_err().to_string(),
    ] {
        assert!(text.starts_with("a Value cannot be serialised by itself: pass it as an argument"), "{text}");
    }
    let text = serde_json::to_string(&Lock::new().unwrap()).unwrap_err().to_string();
    assert!(text.starts_with("a Lock cannot"), "{text}");
}

#[test]
fn objects_go_through_a_connection_and_not_through_a_queue() {
    let (mut ours, theirs) = pipe::<Objects, u64>().unwrap();
    let other = start(
        |mut end: crosslane::Connection<u64, Objects>| {
            for _ in 0..20 {
                let (value, array, lock, ..) = end.recv().unwrap();
                let _guard = lock.lock().unwrap();
                end.send(&(value.fetch_add(1) + array.get(0))).unwrap();
            }
        },
        theirs,
    );
    for n in 0..20 {
        let objects = make(n);
        ours.send(&objects).unwrap();
        assert_eq!(ours.recv().unwrap(), 2 * n);
        assert_eq!(objects.0.get(), n + 1);
    }
    crate::support::done(other);

    let queue = Queue::<Lock>::bounded(4).unwrap();
    let refused = queue.put(Lock::new().unwrap()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("a Lock cannot be put into a queue: pass it as an argument"), "{text}");
    assert!(queue.is_empty());
}

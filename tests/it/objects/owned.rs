//! Arrays in one process's hands at a time.

use crosslane::{ArrayPart, Connection, Error, OwnedArray, Pool, UnsplitReason, pipe};

use crate::support::{die, done, killed, panic_of, run, start};

fn fill(mut part: ArrayPart<u64>) -> ArrayPart<u64> {
    let start = part.start() as u64;
    (start..).zip(part.as_mut_slice()).for_each(|(i, place)| *place = i * i);
    part
}

#[test]
fn parts_are_filled_in_place_by_processes_and_joined_in_any_order() {
    const LEN: usize = 1_000_003;
    let parts = OwnedArray::<u64>::zeroed(LEN).unwrap().split(4);
    assert_eq!(parts.iter().map(ArrayPart::len).collect::<Vec<_>>(), [250_001, 250_001, 250_001, 250_000]);
    let fillers: Vec<_> = parts.into_iter().map(|part| start(fill, part)).collect();
    let mut parts: Vec<_> = fillers.into_iter().map(done).collect();
    parts.reverse();
    let mut array = OwnedArray::unsplit(parts).unwrap();
    assert!(array.as_mut_slice().iter().enumerate().all(|(i, n)| *n == (i as u64).pow(2)));
    // And a whole one, with two halves of it in one message.
    let array = run(
        |mut array: OwnedArray<u64>| {
            array.as_mut_slice()[0] = 7;
            array
        },
        array,
    );
    let (front, back) = array.split_at(10);
    let swap = |(mut front, mut back): (ArrayPart<u64>, ArrayPart<u64>)| {
        std::mem::swap(&mut front.as_mut_slice()[0], &mut back.as_mut_slice()[0]);
        vec![front, back]
    };
    let array = OwnedArray::unsplit(run(swap, (front, back))).unwrap();
    assert_eq!(array.to_vec()[..2], [100, 1]);
}

#[test]
fn parts_that_come_back_take_no_descriptors_of_their_own() {
    let count = |()| {
        let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let parts = OwnedArray::<u64>::zeroed(1 << 16).unwrap().split(20);
        let before = fds();
        let parts: Vec<_> = parts.into_iter().map(|part| run(|part: ArrayPart<u64>| part, part)).collect();
        (parts.len(), fds() - before)
    };
    let (parts, fds) = run(count, ());
    assert_eq!(parts, 20);
    // The pidfds and sockets of what has ended are gone.
    assert!(fds <= 3, "{fds}");
}

#[test]
fn what_was_sent_is_gone() {
    let (front, back) = OwnedArray::<u8>::zeroed(10).unwrap().split_at(4);
    let shared = std::rc::Rc::new(std::cell::RefCell::new(front));
    assert!(shared.borrow().is_here());
    // A part that is still somewhere else when it is sent: in what a `Serialize` of the user's borrows.
    let both = Borrowed(shared.clone());
    assert_eq!(run(|part: Borrowed| part.0.borrow().len(), both), 4);
    assert!(!shared.borrow().is_here());
    assert_eq!(
        panic_of(|| _ = shared.borrow_mut().as_mut_slice()),
        "this part of an array was sent to another process"
    );
    let again = crosslane::spawn(|_: Borrowed| (), Borrowed(shared.clone()));
    assert!(matches!(again, Err(Error::AlreadySent { handle: "ArrayPart" })), "{:?}", again.err());
    let front = std::rc::Rc::into_inner(shared).unwrap().into_inner();
    let refused = OwnedArray::unsplit(vec![back, front]).unwrap_err();
    assert_eq!((refused.parts.len(), refused.reason), (2, UnsplitReason::Sent));
}

/// A part that is shared in this process, and sent once.
struct Borrowed(std::rc::Rc<std::cell::RefCell<ArrayPart<u8>>>);

impl serde::Serialize for Borrowed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.borrow().serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Borrowed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ArrayPart::deserialize(deserializer).map(|part| Self(std::rc::Rc::new(std::cell::RefCell::new(part))))
    }
}

#[test]
fn parts_that_are_not_a_whole_array_come_back_with_the_reason() {
    let array = |len| OwnedArray::<u8>::zeroed(len).unwrap();
    let reason = |parts| OwnedArray::unsplit(parts).unwrap_err().reason;
    assert_eq!(reason(vec![]), UnsplitReason::NoParts);
    let mut parts = array(10).split(5);
    parts.extend(array(2).split(1));
    assert_eq!(reason(parts), UnsplitReason::OtherArray);
    let mut parts = array(10).split(5);
    parts.remove(2);
    let refused = OwnedArray::unsplit(parts).unwrap_err();
    assert_eq!(refused.reason, UnsplitReason::Missing { start: 4, end: 6 });
    assert_eq!(refused.parts.iter().map(ArrayPart::start).collect::<Vec<_>>(), [0, 2, 6, 8]);
    let mut parts = array(10).split(5);
    parts.pop();
    assert_eq!(reason(parts), UnsplitReason::Missing { start: 8, end: 10 });
    let parts = array(3).split(5);
    assert_eq!(parts.iter().map(ArrayPart::len).collect::<Vec<_>>(), [1, 1, 1, 0, 0]);
    assert_eq!(OwnedArray::unsplit(parts).unwrap().len(), 3);
    assert_eq!(OwnedArray::unsplit(array(0).split(2)).unwrap().len(), 0);
    assert_eq!(panic_of(|| _ = array(3).split(0)), "an array cannot be split into 0 parts");
}

#[test]
fn a_killed_processs_part_is_missing_and_the_others_are_whole() {
    let mut parts = OwnedArray::<u64>::zeroed(100).unwrap().split(2);
    let last = parts.pop().unwrap();
    let die_with_it = |mut part: ArrayPart<u64>| -> ArrayPart<u64> {
        part.as_mut_slice()[0] = 1;
        die()
    };
    killed(start(die_with_it, last));
    parts[0].as_mut_slice().fill(1);
    let refused = OwnedArray::unsplit(parts).unwrap_err();
    assert_eq!(refused.reason, UnsplitReason::Missing { start: 50, end: 100 });
    assert_eq!(refused.parts[0].to_vec(), [1; 50]);
}

#[test]
fn the_workers_of_a_pool_fill_parts_in_place() {
    let pool = Pool::new(2).unwrap();
    let parts = OwnedArray::<u64>::zeroed(100_000).unwrap().split(40);
    let parts = pool.map(fill, parts).unwrap();
    let array = OwnedArray::unsplit(parts).unwrap();
    assert!(array.to_vec().iter().enumerate().all(|(i, n)| *n == (i as u64).pow(2)));
    // A context goes to every worker, and there is only one of the array.
    let refused = pool.with(array).map(|array, i: usize| array.len() + i, [1]);
    assert!(matches!(refused, Err(Error::HandleForSeveral { handle: "OwnedArray" })), "{refused:?}");
}

#[test]
fn a_part_goes_to_and_fro_through_a_connection() {
    type End = Connection<ArrayPart<u64>, ArrayPart<u64>>;
    let (mut ours, theirs) = pipe::<ArrayPart<u64>, ArrayPart<u64>>().unwrap();
    let filler = start(
        |mut end: End| {
            while let Ok(part) = end.recv() {
                end.send(&fill(part)).unwrap();
            }
        },
        theirs,
    );
    let mut filled = Vec::new();
    for part in OwnedArray::<u64>::zeroed(1_000).unwrap().split(10) {
        ours.send(&part).unwrap();
        assert!(!part.is_here());
        assert!(matches!(ours.send(&part), Err(Error::AlreadySent { handle: "ArrayPart" })));
        filled.push(ours.recv().unwrap());
    }
    drop(ours);
    done(filler);
    assert_eq!(OwnedArray::unsplit(filled).unwrap().to_vec()[999], 998_001);
}

//! Arrays: elements, ranges, the lock, and the errors.

use crosslane::array::OutOfBounds;
use crosslane::{Array, CreateError, Error, LockError, OwnedArray};

use crate::support::{die, done, killed, panic_of, run, start};

#[test]
fn small_and_large_arrays_are_the_same_in_parent_and_child() {
    for len in [1, 100, 1 << 20] {
        let array = Array::<f64>::zeroed(len).unwrap();
        let change = |array: Array<f64>| {
            array.set(array.len() - 1, 0.5);
            array
        };
        let back = run(change, array.clone());
        assert_eq!((array.len(), array.get(len - 1)), (len, 0.5));
        back.set(0, 1.5);
        assert_eq!(array.get(0), 1.5);
    }
}

#[test]
fn an_array_of_no_elements_is_an_array() {
    let array = Array::<u64>::zeroed(0).unwrap();
    assert_eq!(
        run(|array: Array<u64>| (array.len(), array.is_empty(), array.to_vec()), array.clone()),
        (0, true, vec![])
    );
    array.update(.., |all| assert!(all.is_empty())).unwrap();
    assert_eq!(array.try_get(0), Err(OutOfBounds { start: 0, end: None, len: 0 }));
}

#[test]
fn elements_and_ranges_go_in_and_out() {
    let array = Array::from_slice(&[1_u16, 2, 3, 4, 5]).unwrap();
    array.write_slice(3, &[7, 8]);
    let mut out = [0; 3];
    array.read_slice(2, &mut out);
    assert_eq!(out, [3, 7, 8]);
    assert_eq!(array.iter().rev().collect::<Vec<_>>(), [8, 7, 3, 2, 1]);
    assert_eq!(array.update(1.., |slice| slice.iter().sum::<u16>()).unwrap(), 20);
    array.update(..=1, |slice| slice.reverse()).unwrap();
    array.fetch_add(4, u16::MAX);
    assert_eq!(array.to_vec(), [2, 1, 3, 7, 7]);
    array.fill(9);
    assert_eq!(array.to_vec(), [9; 5]);
}

#[test]
fn an_index_out_of_range_is_a_panic_with_index_and_length_or_an_error() {
    let array = Array::from_slice(&[1_u8, 2, 3]).unwrap();
    assert_eq!(panic_of(|| _ = array.get(3)), "index 3 is out of bounds, the len is 3");
    assert_eq!(panic_of(|| array.set(usize::MAX, 0)), format!("index {} is out of bounds, the len is 3", usize::MAX));
    assert_eq!(panic_of(|| array.write_slice(2, &[1, 2])), "range 2..4 is out of bounds, the len is 3");
    assert_eq!(panic_of(|| _ = array.update(2..5, |_| ())), "range 2..5 is out of bounds, the len is 3");
    #[expect(clippy::reversed_empty_ranges, reason = "the caller's error")]
    let reversed = || _ = array.update(2..1, |_| ());
    assert_eq!(panic_of(reversed), "a range starts at 2 but ends at 1");
    let why = OutOfBounds { start: 3, end: None, len: 3 };
    assert_eq!((array.try_get(3), array.try_set(3, 0)), (Err(why), Err(why)));
    assert_eq!(array.to_vec(), [1, 2, 3]);
    // None of the panics has held or broken the lock.
    assert!(array.try_lock().is_ok());
}

/// What a full /dev/shm answers with a SIGBUS, much later.
#[test]
fn pain_20_an_array_for_which_there_is_no_memory_is_an_error_with_both_numbers() {
    match Array::<u64>::zeroed(1 << 47) {
        Err(Error::Create(CreateError::NotEnoughMemory { wanted, available })) => {
            assert!(wanted >= 1 << 50 && available < wanted, "{wanted} {available}");
        }
        other => panic!("{other:?}"),
    }
    // More than there are addresses, or than a number of bytes can say.
    for error in [
        Array::<u8>::zeroed(usize::MAX).unwrap_err(),
        Array::<[u64; 8]>::zeroed(usize::MAX).unwrap_err(),
        OwnedArray::<u8>::zeroed(usize::MAX).unwrap_err(),
        OwnedArray::<u64>::zeroed(usize::MAX / 4).unwrap_err(),
    ] {
        match error {
            Error::Create(CreateError::NotEnoughMemory { wanted, available }) => {
                assert!(wanted > isize::MAX as u64 && available < wanted, "{wanted} {available}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pain_25_no_update_is_lost() {
    let counts = Array::<u32>::zeroed(3).unwrap();
    let sums = Array::<f64>::zeroed(3).unwrap();
    let add = |(counts, sums): (Array<u32>, Array<f64>)| {
        for i in 0..3_000 {
            counts.fetch_add(i % 3, 1);
            sums.fetch_add_float(0, 0.5).unwrap();
            // Not atomic by itself: the lock makes it so.
            sums.update(1..3, |pair| pair.iter_mut().for_each(|sum| *sum += 1.0)).unwrap();
        }
    };
    let adders: Vec<_> = (0..4).map(|_| start(add, (counts.clone(), sums.clone()))).collect();
    adders.into_iter().for_each(done);
    assert_eq!(counts.to_vec(), [4_000; 3]);
    assert_eq!(sums.to_vec(), [6_000.0, 12_000.0, 12_000.0]);
}

#[test]
fn the_lock_keeps_out_those_who_take_it() {
    let array = Array::<u8>::zeroed(4).unwrap();
    let mut guard = array.lock().unwrap();
    let try_it = |array: Array<u8>| {
        array.set(0, 1);
        matches!(array.try_lock(), Err(LockError::WouldBlock(Some(_))))
    };
    assert!(run(try_it, array.clone()));
    guard.update(1..2, |slice| slice[0] = 2);
    guard.set(2, 3);
    drop(guard);
    assert!(!run(try_it, array.clone()));
    assert_eq!(array.to_vec(), [1, 2, 3, 0]);
}

#[test]
fn the_death_of_the_locks_holder_is_told_once_and_is_poison_until_repaired() {
    let array = Array::<u64>::zeroed(2).unwrap();
    let die_inside = |array: Array<u64>| -> () {
        let _ = array.update(.., |slice| {
            slice[0] = 1;
            die();
        });
    };
    killed(start(die_inside, array.clone()));
    let Err(LockError::OwnerDied(guard)) = array.lock() else { panic!("the holder died") };
    // The copy was not written.
    assert_eq!(guard.to_vec(), [0, 0]);
    drop(guard);
    let Err(LockError::Poisoned(mut guard)) = array.lock() else { panic!("nobody repaired it") };
    guard.set(1, 1);
    guard.mark_consistent();
    drop(guard);
    assert!(array.lock().is_ok());
}

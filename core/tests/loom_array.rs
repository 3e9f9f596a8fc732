//! Every interleaving of small arrays: what an element's reader sees of its writer, and updates that are all counted.
#![cfg(crosslane_loom)]

use std::sync::Arc;

use crosslane_core::Plain;
use crosslane_core::array::{Array, Element};
use crosslane_core::model::{Memory, check, check_deaths, thread, until_killed};

struct World<T> {
    array: Array<'static, T>,
    _memory: Memory,
}

impl<T: Plain> World<T> {
    fn new(len: u64) -> Arc<Self> {
        let memory = Memory::new(Array::<T>::layout(len).unwrap().size());
        // SAFETY: the memory lives as long as the world, which every thread of the model holds.
        let array = unsafe { Array::init(memory.ptr(), memory.len_bytes(), len) }.unwrap();
        Arc::new(Self { array, _memory: memory })
    }
}

/// One thread writes element 0 and then, as `signal` says, element 1; who sees 1 there sees what was written before.
fn message<T: Element + From<u8> + PartialEq + std::fmt::Debug>(
    name: &str,
    floor: u64,
    signal: impl Fn(&Array<'_, T>) + Send + Sync + Copy + 'static,
    look: impl Fn(&Array<'_, T>) -> T + Send + Sync + Copy + 'static,
) {
    check(name, None, floor, move || {
        let world = World::<T>::new(2);
        let writing = {
            let world = world.clone();
            thread::spawn(move || {
                world.array.set(0, T::from(7));
                signal(&world.array);
            })
        };
        if look(&world.array) == T::from(1) {
            assert_eq!(world.array.get(0), T::from(7));
        }
        writing.join().unwrap();
    });
}

#[test]
fn who_reads_an_element_sees_what_its_writer_did_before() {
    message::<u64>("array.set_get", 10, |a| a.set(1, 1), |a| a.get(1));
    message::<u8>("array.set_get_u8", 10, |a| a.set(1, 1), |a| a.get(1));
    message::<f32>("array.set_swap", 10, |a| a.set(1, 1.0), |a| a.swap(1, 5.0));
    message::<u16>("array.swap_get", 10, |a| _ = a.swap(1, 1), |a| a.get(1));
    message::<u32>("array.exchange", 10, |a| a.compare_exchange(1, 0, 1).unwrap(), |a| a.get(1));
    message::<u32>("array.exchanged", 10, |a| a.set(1, 1), |a| a.compare_exchange(1, 1, 2).map_or(0, |()| 1));
    message::<u32>("array.not_exchanged", 10, |a| a.set(1, 1), |a| a.compare_exchange(1, 9, 2).unwrap_err());
    message::<u64>("array.add", 10, |a| _ = a.fetch_add(1, 1), |a| a.fetch_add(1, 0));
    message::<u64>("array.or", 10, |a| _ = a.fetch_or(1, 1), |a| a.fetch_or(1, 0));
    message::<u64>("array.xor", 10, |a| _ = a.fetch_xor(1, 1), |a| a.fetch_xor(1, 0));
}

/// An and makes the signal out of what the model starts with.
#[test]
fn an_and_publishes_and_acquires() {
    check("array.and", None, 10, || {
        let world = World::<u64>::new(2);
        world.array.set(1, 3);
        let writing = {
            let world = world.clone();
            thread::spawn(move || {
                world.array.set(0, 7);
                world.array.fetch_and(1, 1);
            })
        };
        if world.array.fetch_and(1, 0xff) == 1 {
            assert_eq!(world.array.get(0), 7);
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_range_is_published_as_its_elements_are() {
    check("array.range", Some(3), 50, || {
        let world = World::<[u64; 2]>::new(3);
        let writing = {
            let world = world.clone();
            thread::spawn(move || {
                world.array.write_slice(0, &[[1, 2], [3, 4]]);
                world.array.set(2, [5, 5]);
            })
        };
        let mut out = [[0; 2]; 2];
        if world.array.get(2)[0] == 5 {
            world.array.read_slice(0, &mut out);
            assert_eq!(out, [[1, 2], [3, 4]]);
        }
        writing.join().unwrap();
    });
}

fn counted<T: Element + PartialEq + std::fmt::Debug>(
    name: &str,
    floor: u64,
    add: impl Fn(&Array<'_, T>) + Send + Sync + Copy + 'static,
    total: T,
) {
    check(name, Some(2), floor, move || {
        let world = World::<T>::new(1);
        let other = {
            let world = world.clone();
            thread::spawn(move || (0..2).for_each(|_| add(&world.array)))
        };
        (0..2).for_each(|_| add(&world.array));
        other.join().unwrap();
        assert_eq!(world.array.get(0), total);
    });
}

#[test]
fn updates_are_all_counted() {
    counted::<u32>("array.count", 20, |a| _ = a.fetch_add(0, 1), 4);
    counted::<i64>("array.count_down", 20, |a| _ = a.fetch_sub(0, 1), -4);
    counted::<u8>("array.update", 50, |a| _ = a.fetch_update(0, |n| n + 1).unwrap(), 4);
    counted::<f64>("array.add_float", 50, |a| _ = a.fetch_add_float(0, 0.5).unwrap(), 2.0);
}

/// An element of up to eight bytes is one unit.
#[test]
fn an_element_is_never_torn() {
    check("array.torn", None, 4, || {
        let world = World::<u64>::new(1);
        let writing = {
            let world = world.clone();
            thread::spawn(move || world.array.set(0, u64::MAX))
        };
        assert!([0, u64::MAX].contains(&world.array.get(0)));
        writing.join().unwrap();
    });
}

/// A process killed in an update has updated or has not, and nobody else's update is lost.
#[test]
fn an_updater_is_killed_at_every_access() {
    check_deaths("array.killed", None, 3, 10, |death| {
        let world = World::<f64>::new(1);
        let other = {
            let world = world.clone();
            thread::spawn(move || until_killed(death, || world.array.fetch_add_float(0, 1.0)).is_some())
        };
        world.array.fetch_add_float(0, 4.0).unwrap();
        let done = other.join().unwrap();
        let total = world.array.get(0);
        assert!(total == 5.0 || (total == 4.0 && !done), "{total}");
    });
}

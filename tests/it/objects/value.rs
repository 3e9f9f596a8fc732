//! One value: its calls, from several processes and after deaths.

use std::time::Duration;

use crosslane::{Plain, Value};

use crate::support::{die, done, killed, panic_of, run, start, until};

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(C)]
struct Small {
    a: u16,
    b: i16,
    c: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(C)]
struct Large {
    name: [u8; 16],
    count: u64,
}

/// A value of any length is the same in the child, which changes it, and here.
fn is_shared<T: Plain + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned>(old: T, new: T) {
    let value = Value::new(old).unwrap();
    let change = |(value, new): (Value<T>, T)| {
        let before = value.get();
        value.set(new);
        before
    };
    assert_eq!(run(change, (value.clone(), new)), old);
    assert_eq!(value.get(), new);
}

#[test]
fn a_value_of_each_size_is_the_same_in_parent_and_child() {
    is_shared(1_u8, 255);
    is_shared(-1_i8, i8::MIN);
    is_shared(1_u16, u16::MAX);
    is_shared([1_u8, 2, 3], [4, 5, 6]);
    is_shared(-1_i32, i32::MIN);
    is_shared(0.5_f32, f32::INFINITY);
    is_shared(1_u64, u64::MAX);
    is_shared(-0.0_f64, f64::MIN_POSITIVE);
    is_shared([1_u8; 9], [7; 9]);
    // Python's lists and strings lose the zeros at the end.
    is_shared([1_u8; 5], [7, 0, 7, 0, 0]);
    is_shared([1_u8; 12], [7, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    is_shared([1_u64, 2, 3], [4, 5, 6]);
}

#[test]
fn plain_structs_of_the_users_are_values() {
    let small = Value::new(Small { a: 1, b: -2, c: 0.5 }).unwrap();
    let large = Value::new(Large { name: *b"sixteen bytes!!!", count: 1 }).unwrap();
    let change = |(small, large): (Value<Small>, Value<Large>)| {
        small.update(|s| s.b -= 1).unwrap();
        large.update(|l| l.count += 41).unwrap();
    };
    run(change, (small.clone(), large.clone()));
    assert_eq!(small.get(), Small { a: 1, b: -3, c: 0.5 });
    assert_eq!((large.get().name, large.get().count), (*b"sixteen bytes!!!", 42));
}

/// Python's `v.value += 1` lost 855 of 40,000.
#[test]
fn pain_25_no_update_is_lost() {
    const TIMES: u64 = 5_000;
    let small = Value::new(0_u64).unwrap();
    let float = Value::new(0.0_f64).unwrap();
    let large = Value::new([0_u64; 3]).unwrap();
    let add = |(small, float, large): (Value<u64>, Value<f64>, Value<[u64; 3]>)| {
        for i in 0..TIMES {
            match i % 2 {
                0 => small.update(|n| *n += 1).unwrap(),
                _ => _ = small.fetch_add(1),
            }
            float.fetch_add_float(0.5).unwrap();
            large.update(|all| all.iter_mut().for_each(|n| *n += 1)).unwrap();
        }
    };
    let adders: Vec<_> = (0..4).map(|_| start(add, (small.clone(), float.clone(), large.clone()))).collect();
    adders.into_iter().for_each(done);
    assert_eq!((small.get(), float.get(), large.get()), (4 * TIMES, 2.0 * TIMES as f64, [4 * TIMES; 3]));
}

#[test]
fn what_is_set_while_another_process_updates_is_not_overwritten() {
    let value = Value::new([0_u32; 2]).unwrap();
    let entered = Value::new(0_u8).unwrap();
    let slow = |(value, entered): (Value<[u32; 2]>, Value<u8>)| {
        let mut calls = 0;
        let update = |pair: &mut [u32; 2]| {
            calls += 1;
            if calls == 1 {
                entered.set(1);
                while entered.get() != 2 {
                    std::hint::spin_loop();
                }
            }
            pair[1] = pair[0] + 1;
        };
        value.update(update).unwrap();
        calls
    };
    let other = start(slow, (value.clone(), entered.clone()));
    until("the other one is in its update", || entered.get() == 1);
    value.set([7, 0]);
    entered.set(2);
    assert_eq!(done(other), 2);
    assert_eq!(value.get(), [7, 8]);
}

#[test]
fn arithmetic_wraps_at_the_types_own_width() {
    let byte = Value::new(u8::MAX).unwrap();
    assert_eq!((byte.fetch_add(2), byte.get()), (255, 1));
    assert_eq!((byte.fetch_sub(2), byte.get()), (1, 255));
    let word = Value::new(i32::MAX).unwrap();
    assert_eq!((word.fetch_add(1), word.get()), (i32::MAX, i32::MIN));
    let short = Value::new(-3_i16).unwrap();
    assert_eq!((short.fetch_add(5), short.get()), (-3, 2));
    let long = Value::new(u64::MAX).unwrap();
    assert_eq!((long.fetch_add(1), long.get()), (u64::MAX, 0));
}

#[test]
fn an_update_that_panics_leaves_the_value() {
    let word = Value::new(i32::MAX).unwrap();
    let add = || _ = word.update(|n| *n = n.checked_add(1).expect("it fits"));
    assert_eq!(panic_of(add), "it fits");
    assert_eq!(word.get(), i32::MAX);
    let large = Value::new([1_u64; 4]).unwrap();
    let change = || {
        _ = large.update(|all| {
            all[0] = 2;
            panic!("half way");
        })
    };
    assert_eq!(panic_of(change), "half way");
    assert_eq!(large.get(), [1; 4]);
    large.set([3; 4]);
    assert_eq!(large.get(), [3; 4]);
}

#[test]
fn swaps_and_exchanges_are_those_of_atomics() {
    let value = Value::new(-1_i16).unwrap();
    assert_eq!(value.swap(5), -1);
    assert_eq!(value.compare_exchange(4, 6), Err(5));
    assert_eq!(value.compare_exchange(5, 6), Ok(()));
    assert_eq!(value.get(), 6);
}

#[test]
fn a_process_killed_in_an_update_leaves_the_old_value_and_holds_nobody_up() {
    let small = Value::new(1_u32).unwrap();
    let kill_small = |small: Value<u32>| -> () {
        _ = small.update(|n| {
            *n = 2;
            die();
        })
    };
    killed(start(kill_small, small.clone()));
    assert_eq!(small.update(|n| std::mem::replace(n, 3)).unwrap(), 1);

    let large = Value::new([1_u64; 100]).unwrap();
    let kill_large = |large: Value<[u64; 100]>| -> () {
        _ = large.update(|all| {
            all[..50].fill(2);
            die();
        })
    };
    killed(start(kill_large, large.clone()));
    assert_eq!(large.get(), [1; 100]);
    killed(start(kill_large, large.clone()));
    large.set([3; 100]);
    assert_eq!(large.get(), [3; 100]);
}

#[test]
fn a_long_value_is_never_seen_half_changed() {
    let value = Value::new([0_u64; 32]).unwrap();
    let writer = |value: Value<[u64; 32]>| {
        for n in 1..=20_000 {
            value.set([n; 32]);
        }
    };
    let writer = start(writer, value.clone());
    let mut last = 0;
    while last < 20_000 {
        let all = value.get();
        assert!(all.iter().all(|n| *n == all[0]), "{all:?}");
        assert!(all[0] >= last);
        last = all[0];
    }
    done(writer);
}

/// Forty writers, each killed somewhere in its loop, which is copying for the most part.
#[test]
fn a_value_is_whole_wherever_its_writer_is_killed() {
    type Long = [u64; 1500];
    let value = Value::new([0; 1500]).unwrap();
    let write = |value: Value<Long>| -> () {
        let both = [[1; 1500], [2; 1500]];
        loop {
            value.set(both[0]);
            value.set(both[1]);
        }
    };
    for n in 0..40 {
        value.set([0; 1500]);
        let writer = start(write, value.clone());
        until("it writes", || value.get()[0] > 0);
        // It has just waited for the lock: another moment each time, for it to get somewhere else.
        std::thread::sleep(Duration::from_micros(1_000 + 17 * n));
        writer.kill().unwrap();
        killed(writer);
        let all = value.get();
        assert!(all.iter().all(|n| *n == all[0]) && all[0] > 0, "{:?}", [all[0], all[1499]]);
    }
}

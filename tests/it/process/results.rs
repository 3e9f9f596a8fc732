//! Results, and what can keep one from coming.

use std::collections::HashMap;
use std::time::Duration;

use crosslane::{Error, Pool, Process, ProcessBuilder, Queue, current_process, parent_process, pipe, spawn};
use serde::{Deserialize, Serialize};

use crate::support::LIMIT;

fn fibonacci(n: u32) -> u64 {
    if n < 2 { n.into() } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

fn doubled<T: std::ops::Add<Output = T> + Copy>(x: T) -> T {
    x + x
}

#[test]
fn a_function_runs_in_another_process() {
    let child = spawn(|()| std::process::id(), ()).unwrap();
    let id = child.id();
    assert_eq!(child.join().unwrap(), id);
    assert_ne!(id, std::process::id());
}

#[test]
fn functions_generic_functions_and_closures_without_captures_run() {
    assert_eq!(spawn(fibonacci, 15).unwrap().join().unwrap(), 610);
    assert_eq!(spawn(doubled::<f64>, 1.5).unwrap().join().unwrap(), 3.0);
    assert_eq!(spawn(|(a, b): (i32, String)| format!("{a}{b}"), (1, "2".into())).unwrap().join().unwrap(), "12");
}

#[test]
fn arguments_and_results_are_any_serde_values() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Named { name: String, sides: Vec<(f64, Option<u8>)> },
        Nested(HashMap<u32, Box<Shape>>),
    }
    let named = Shape::Named { name: "square".into(), sides: vec![(1.0, None), (2.0, Some(3))] };
    let value = Shape::Nested(HashMap::from([(1, Box::new(named)), (2, Box::new(Shape::Empty))]));
    assert_eq!(spawn(|shape: Shape| shape, value.clone()).unwrap().join().unwrap(), value);
}

#[test]
fn arguments_and_results_of_every_size_travel() {
    let reversed = |mut bytes: Vec<u8>| {
        bytes.reverse();
        bytes
    };
    for len in [0, 1, 32 * 1024 - 200, 32 * 1024, 32 * 1024 + 1, 300_000, 20 << 20] {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut back = spawn(reversed, bytes.clone()).unwrap().join().unwrap();
        back.reverse();
        assert!(back == bytes, "{len}");
    }
}

#[test]
fn a_child_with_a_large_result_ends_though_nobody_reads_it() {
    let mut child = spawn(|len: usize| vec![7_u8; len], 8 << 20).unwrap();
    let status = child.wait_timeout(LIMIT).unwrap().expect("the child has ended");
    assert!(status.success());
    assert_eq!(child.join().unwrap().len(), 8 << 20);
}

#[test]
fn a_timeout_loses_nothing() {
    let mut child = spawn(
        |()| {
            std::io::stdin().read_line(&mut String::new()).unwrap();
            7
        },
        (),
    )
    .unwrap();
    // Its input is empty, so it may be done at any moment.
    let mut result = None;
    while result.is_none() {
        result = child.join_timeout(Duration::from_micros(100)).unwrap();
    }
    assert_eq!(result, Some(7));
    assert!(matches!(child.join_timeout(Duration::ZERO), Err(Error::Closed)));
}

#[test]
fn a_timeout_of_zero_polls_and_the_longest_never_comes() {
    let (reader, writer) = std::io::pipe().unwrap();
    let wait_for_end = |()| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    let mut child = ProcessBuilder::new().stdin(reader).spawn(wait_for_end, ()).unwrap();
    assert_eq!(child.join_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(child.join_timeout(Duration::from_millis(20)).unwrap(), None);
    assert!(child.is_alive());
    drop(writer);
    assert_eq!(child.join_timeout(Duration::MAX).unwrap(), Some(0));
    assert!(!child.is_alive());
}

#[test]
fn a_panic_carries_message_place_thread_and_backtrace() {
    let child = spawn(|n: u32| if n > 1 { panic!("boom {n}") } else { n }, 7).unwrap();
    let pid = child.id();
    let Err(Error::Panicked(report)) = child.join() else { panic!("it panicked") };
    assert_eq!(report.message, "boom 7");
    assert!(report.location.starts_with("tests/it/process/results.rs:"), "{}", report.location);
    assert_eq!(report.thread, "main");
    assert!(report.backtrace.contains("a_panic_carries"), "{}", report.backtrace);
    assert_eq!(report.pid, pid);
}

#[test]
fn panics_that_are_caught_are_no_failure_and_those_of_other_payloads_are() {
    let caught = spawn(|()| std::panic::catch_unwind(|| panic!("inner")).is_err(), ()).unwrap();
    assert!(caught.join().unwrap());
    let odd = spawn(|()| -> () { std::panic::panic_any(7_u8) }, ()).unwrap();
    let Err(Error::Panicked(report)) = odd.join() else { panic!("it panicked") };
    assert_eq!(report.message, "a payload that is no text");
    let in_thread = |()| {
        let panic = std::thread::spawn(|| panic!("in a thread")).join().unwrap_err();
        std::panic::resume_unwind(panic)
    };
    // One whose drop no child could live through.
    struct Fatal;
    impl Drop for Fatal {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    let fatal = spawn(|()| -> () { std::panic::panic_any(Fatal) }, ()).unwrap();
    let Err(Error::Panicked(report)) = fatal.join() else { panic!("it panicked") };
    assert_eq!(report.message, "a payload that is no text");
    let Err(Error::Panicked(report)) = spawn::<(), ()>(in_thread, ()).unwrap().join() else { panic!("it panicked") };
    assert_eq!(report.message, "in a thread");
}

#[test]
fn a_value_that_does_not_decode_is_an_error_that_names_the_type() {
    #[derive(Debug, Serialize)]
    struct OneWay(u8);
    impl<'de> Deserialize<'de> for OneWay {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("one way only"))
        }
    }
    let is_told = |error: &Error| matches!(error, Error::Decode { type_name, reason } if type_name.contains("OneWay") && reason.to_string() == "one way only");
    let arguments = spawn(|_: OneWay| (), OneWay(1)).unwrap().join().unwrap_err();
    assert!(is_told(&arguments), "{arguments:?}");
    let result = spawn(|()| OneWay(1), ()).unwrap().join().unwrap_err();
    assert!(is_told(&result), "{result:?}");
    let pool = Pool::new(1).unwrap();
    let argument = pool.apply(|_: OneWay| (), OneWay(1)).unwrap_err();
    assert!(is_told(&argument), "{argument:?}");
    let result = pool.apply(|()| OneWay(1), ()).unwrap_err();
    assert!(is_told(&result), "{result:?}");
    let context = pool.with(OneWay(1)).map(|_, ()| (), [()]).unwrap_err();
    assert!(is_told(&context), "{context:?}");
}

#[test]
fn a_value_that_does_not_encode_is_an_error_before_anything_starts_or_of_the_result() {
    #[derive(Debug, Deserialize)]
    struct NoWay(#[expect(dead_code, reason = "never read")] u8);
    impl Serialize for NoWay {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no way"))
        }
    }
    let is_told = |error: &Error| matches!(error, Error::Encode { type_name, reason } if type_name.contains("NoWay") && reason.to_string() == "no way");
    let error = spawn(|_: NoWay| (), NoWay(1)).unwrap_err();
    assert!(is_told(&error), "{error:?}");
    let error = spawn(|()| NoWay(1), ()).unwrap().join().unwrap_err();
    assert!(is_told(&error), "{error:?}");
}

/// With postcard, which writes no names, the last number would arrive as the first, and the message as too short.
#[test]
fn a_field_that_is_left_out_is_an_error_and_no_other_value() {
    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
        last: u8,
    }
    let sparse = |first| Sparse { first, last: 1 };
    assert_eq!(spawn(|sparse: Sparse| sparse, sparse(Some(2))).unwrap().join().unwrap(), sparse(Some(2)));
    let queue = Queue::bounded(2).unwrap();
    let refused = queue.put(sparse(None)).unwrap_err();
    assert_eq!(refused.value, sparse(None));
    let (mut there, _here) = pipe::<Sparse, ()>().unwrap();
    for error in [
        spawn(|_: Sparse| (), sparse(None)).unwrap_err(),
        spawn(|()| Sparse { first: None, last: 1 }, ()).unwrap().join().unwrap_err(),
        Pool::new(1).unwrap().apply(|()| Sparse { first: None, last: 1 }, ()).unwrap_err(),
        refused.error,
        there.send(&sparse(None)).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, Error::Encode { .. }) && text.contains("the field `first` is left out"), "{text}");
    }
}

/// This process's name and id, and its parent's.
fn who(_: ()) -> (String, u32, String, u32) {
    let parent = parent_process().expect("a child has a parent");
    assert!(parent.is_alive());
    assert!(!parent.join_timeout(Duration::ZERO).unwrap());
    (current_process().name().to_owned(), current_process().id(), parent.name().to_owned(), parent.id())
}

#[test]
fn names_and_parents_are_known_in_the_child() {
    let child = ProcessBuilder::new().name("namesake").spawn(who, ()).unwrap();
    assert_eq!(child.name(), "namesake");
    let id = child.id();
    assert_eq!(child.join().unwrap(), ("namesake".into(), id, "MainProcess".into(), std::process::id()));
    assert!(parent_process().is_none());
    let nested = spawn(|()| spawn(who, ()).unwrap().join().unwrap(), ()).unwrap();
    let (outer, outer_id) = (nested.name().to_owned(), nested.id());
    let (name, _, parent, parent_id) = nested.join().unwrap();
    assert_eq!((name, parent, parent_id), (format!("{outer}:1"), outer, outer_id));
}

#[test]
fn results_of_many_processes_come_to_their_own_handles() {
    let children: Vec<Process<u64>> = (0..8).map(|n| spawn(|n: u64| n * n, n).unwrap()).collect();
    let results: Vec<u64> = children.into_iter().map(|child| child.join().unwrap()).collect();
    assert_eq!(results, [0, 1, 4, 9, 16, 25, 36, 49]);
}

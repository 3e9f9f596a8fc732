//! A global is not shared between processes; a `Value` and an `Array` are.

use std::sync::atomic::{AtomicU64, Ordering};

use crosslane::{Array, OwnedArray, Value, spawn};

static GLOBAL: AtomicU64 = AtomicU64::new(1);

fn change((value, array): (Value<u64>, Array<f64>)) -> u64 {
    GLOBAL.store(100, Ordering::Relaxed);
    value.set(100);
    for i in 0..array.len() {
        array.set(i, array.get(i) * array.get(i));
    }
    GLOBAL.load(Ordering::Relaxed)
}

fn main() -> crosslane::Result<()> {
    crosslane::init();
    let (value, array) = (Value::new(1_u64)?, Array::from_slice(&[1.0, 2.0, 3.0])?);
    let seen = spawn(change, (value.clone(), array.clone()))?.join()?;
    println!("the global: {seen} in the child, {} here", GLOBAL.load(Ordering::Relaxed));
    println!("the value: {}, the array: {:?}", value.get(), array.to_vec());
    assert_eq!((seen, GLOBAL.load(Ordering::Relaxed), value.get()), (100, 1, 100));
    assert_eq!(array.to_vec(), [1.0, 4.0, 9.0]);

    // Adding is one step, so nothing is lost when four do it at once.
    let add = |value: Value<u64>| (0..10_000).for_each(|_| _ = value.fetch_add(1));
    let adders: Vec<_> = (0..4).map(|_| spawn(add, value.clone())).collect::<Result<_, _>>()?;
    adders.into_iter().try_for_each(crosslane::Process::join)?;
    println!("after 40,000 additions: {}", value.get());
    assert_eq!(value.get(), 40_100);

    // Memory that changes hands: each process has its part to itself, as a slice, and nothing is copied.
    let fill = |mut part: crosslane::ArrayPart<u64>| {
        let start = part.start() as u64;
        (start..).zip(part.as_mut_slice()).for_each(|(i, place)| *place = i);
        part
    };
    let parts = OwnedArray::zeroed(1_000_000)?.split(4);
    let fillers: Vec<_> = parts.into_iter().map(|part| spawn(fill, part)).collect::<Result<_, _>>()?;
    let parts = fillers.into_iter().map(crosslane::Process::join).collect::<Result<_, _>>()?;
    let mut whole = OwnedArray::unsplit(parts)?;
    let sum: u64 = whole.as_mut_slice().iter().sum();
    println!("the sum of what four processes wrote: {sum}");
    assert_eq!(sum, 999_999 * 1_000_000 / 2);
    Ok(())
}

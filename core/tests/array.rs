//! Arrays in one process: bounds, updates, parts, copies of every length and width.
#![cfg(not(crosslane_loom))]

use std::cell::Cell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use crosslane_core::Plain;
use crosslane_core::array::{Array, ArrayError, Element, OutOfBounds, View};

const BYTES: usize = 8192;

#[repr(C, align(128))]
struct Memory([u8; BYTES]);

/// An array of `len` in memory that is never freed.
fn array<T: Plain>(len: u64) -> Array<'static, T> {
    let memory = NonNull::from(Box::leak(Box::new(Memory([0xee; BYTES]))));
    // SAFETY: the memory lives for ever and is used for this array alone.
    unsafe { Array::init(memory.cast(), BYTES, len) }.unwrap()
}

#[test]
fn elements_are_zero_at_first_and_then_what_was_set() {
    let array = array::<f32>(10);
    assert!((0..10).all(|i| array.get(i) == 0.0));
    array.set(3, 1.5);
    array.try_set(9, -2.0).unwrap();
    assert_eq!((array.get(3), array.try_get(9), array.get(4)), (1.5, Ok(-2.0), 0.0));
    array.fill(7.0);
    assert!((0..10).all(|i| array.get(i) == 7.0));
    assert_eq!((array.len(), array.is_empty()), (10, false));
}

#[test]
fn an_index_out_of_bounds_is_an_error_or_a_panic_with_both_numbers() {
    let array = array::<u16>(3);
    assert_eq!(array.try_get(3), Err(OutOfBounds { start: 3, end: None, len: 3 }));
    assert_eq!(array.try_set(usize::MAX, 1), Err(OutOfBounds { start: usize::MAX, end: None, len: 3 }));
    assert_eq!(array.try_write_slice(1, &[1, 2, 3]), Err(OutOfBounds { start: 1, end: Some(4), len: 3 }));
    let beyond = OutOfBounds { start: usize::MAX, end: Some(usize::MAX), len: 3 };
    assert_eq!(array.try_read_slice(usize::MAX, &mut [0; 2]), Err(beyond));
    assert_eq!(array.try_read_slice(3, &mut []), Ok(()));
    assert!((0..3).all(|i| array.get(i) == 0), "nothing was copied");
    type Call = fn(&Array<'_, u16>);
    let calls: [(&str, Call); 6] = [
        ("index 3 is out of bounds, the len is 3", |a| _ = a.get(3)),
        ("index 4 is out of bounds, the len is 3", |a| a.set(4, 1)),
        ("index 5 is out of bounds, the len is 3", |a| _ = a.fetch_add(5, 1)),
        ("range 2..4 is out of bounds, the len is 3", |a| a.write_slice(2, &[1, 2])),
        ("range 2..4 is out of bounds, the len is 3", |a| _ = a.slice(2..4)),
        ("range 0..4 is out of bounds, the len is 3", |a| _ = a.split_at(4)),
    ];
    for (text, call) in calls {
        let panic = std::panic::catch_unwind(|| call(&array)).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains(text), "{text}");
    }
}

#[test]
fn a_panic_names_the_line_that_asked_for_too_much() {
    thread_local!(static FILE: Cell<Option<String>> = const { Cell::new(None) });
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        FILE.set(info.location().map(|place| place.file().to_owned()));
        before(info);
    }));
    let array = array::<u16>(8);
    let calls: [fn(&Array<'_, u16>); 8] = [
        |a| _ = a.get(8),
        |a| a.set(8, 1),
        |a| a.read_slice(4, &mut [0; 8]),
        |a| a.write_slice(4, &[0; 8]),
        |a| _ = a.slice(4..12),
        |a| _ = a.slice(Range { start: 2, end: 1 }),
        |a| _ = a.view().slice(4..12),
        |a| _ = a.fetch_add(8, 1),
    ];
    for (number, call) in calls.iter().enumerate() {
        std::panic::catch_unwind(|| call(&array)).unwrap_err();
        assert_eq!(FILE.take().as_deref(), Some(file!()), "call {number}");
    }
}

fn copies<T: Plain + PartialEq + std::fmt::Debug>(make: impl Fn(usize) -> T) {
    let len = BYTES / size_of::<T>();
    let array = array::<T>(len as u64);
    let items: Vec<T> = (0..len).map(&make).collect();
    let zero = array.get(0);
    for count in (0..len.min(70)).chain([100, 128, 129, 255, 700]).filter(|count| *count <= len) {
        for start in [0, 1, 2, 3, 7].into_iter().filter(|start| start + count <= len) {
            array.fill(zero);
            array.write_slice(start, &items[start..start + count]);
            let mut out = vec![make(9999); len];
            array.read_slice(0, &mut out);
            let (before, rest) = out.split_at(start);
            let (written, behind) = rest.split_at(count);
            assert_eq!(written, &items[start..start + count]);
            assert!(before.iter().chain(behind).all(|item| *item == zero), "{count} from {start}");
            let mut out = vec![zero; count];
            array.read_slice(start, &mut out);
            assert_eq!(out, items[start..start + count]);
            assert!((0..count).all(|i| array.get(start + i) == items[start + i]));
        }
    }
}

#[test]
fn ranges_of_every_length_and_width_are_copied_whole() {
    let mixed = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    copies(|i| mixed(i).to_le_bytes()[3]);
    copies(|i| u16::from_ne_bytes([mixed(i).to_le_bytes()[5], mixed(i).to_le_bytes()[2]]));
    let word = |i| *mixed(i).to_le_bytes().first_chunk::<4>().unwrap();
    copies(|i| u32::from_ne_bytes(word(i)));
    copies(mixed);
    copies(|i| mixed(i).to_le_bytes().first_chunk::<3>().copied().unwrap());
    copies(|i| mixed(i).to_le_bytes().first_chunk::<6>().copied().unwrap());
    copies(|i| [u32::from_ne_bytes(word(i)), 5, 7]);
    copies(|i| [mixed(i); 5]);
}

#[test]
fn integers_are_updated_wrapping() {
    let array = array::<i8>(2);
    array.set(1, 127);
    assert_eq!((array.fetch_add(1, 1), array.get(1)), (127, -128));
    assert_eq!((array.fetch_sub(1, 1), array.get(1)), (-128, 127));
    assert_eq!((array.fetch_and(1, 0x0f), array.get(1)), (127, 15));
    assert_eq!((array.fetch_or(1, 0x70), array.get(1)), (15, 127));
    assert_eq!((array.fetch_xor(1, -1), array.get(1)), (127, -128));
    assert_eq!((array.swap(1, 5), array.get(1)), (-128, 5));
    assert_eq!(array.compare_exchange(1, 4, 9), Err(5));
    assert_eq!((array.compare_exchange(1, 5, 9), array.get(1)), (Ok(()), 9));
    assert_eq!((array.fetch_update(1, |n| n * 2), array.get(1)), (Ok(9), 18));
    assert_eq!(array.get(0), 0, "its neighbour in the same word is untouched");
}

#[test]
fn floats_are_compared_by_bits_and_added_to() {
    let array = array::<f64>(3);
    assert_eq!(array.compare_exchange(0, -0.0, 1.0), Err(0.0));
    assert_eq!(array.compare_exchange(0, 0.0, f64::NAN), Ok(()));
    assert_eq!(array.compare_exchange(0, f64::NAN, 2.0), Ok(()));
    assert_eq!((array.fetch_add_float(0, 0.5), array.get(0)), (Ok(2.0), 2.5));
    assert_eq!((array.get(1), array.get(2)), (0.0, 0.0));
}

fn many_threads<T: Element + PartialEq + std::fmt::Debug>(add: impl Fn(&Array<'_, T>) + Sync, total: T) {
    let array = array::<T>(5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| add(&array)));
        }
    });
    assert_eq!(array.get(3), total);
}

#[test]
fn updates_of_many_threads_are_all_counted() {
    many_threads::<u32>(|array| _ = array.fetch_add(3, 1), 4000);
    many_threads::<u16>(|array| _ = array.fetch_update(3, |n| n + 1).unwrap(), 4000);
    many_threads::<f32>(|array| _ = array.fetch_add_float(3, 1.0).unwrap(), 4000.0);
    many_threads::<f64>(|array| _ = array.fetch_add_float(3, 0.5).unwrap(), 2000.0);
}

/// A writer goes between two values whose halves differ, by single elements and by ranges; a reader must see one or the other.
fn untorn<T: Plain + PartialEq + std::fmt::Debug>(a: T, b: T) {
    let (array, done) = (array::<T>(64), AtomicBool::new(false));
    array.fill(a);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                array.write_slice(1, &[b; 63]);
                array.set(5, a);
                array.write_slice(0, &[a; 64]);
                array.set(6, b);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let mut out = [a; 63];
            array.read_slice(1, &mut out);
            for value in out.into_iter().chain([array.get(5), array.get(63)]) {
                assert!(value == a || value == b, "{value:?} is torn");
            }
        }
    });
}

#[test]
fn elements_of_up_to_eight_bytes_are_never_torn() {
    untorn(0_u16, 0xffff);
    untorn(1_u32, u32::MAX - 1);
    untorn(0x0102_0304_0506_0708_u64, u64::MAX);
    untorn([1_u32, 2], [3, 4]);
    untorn([0.5_f32, 1.5], [2.5, 3.5]);
}

#[test]
fn parts_are_disjoint_in_order_and_together_everything() {
    for (len, count) in [(10, 3), (10, 1), (3, 5), (0, 2), (64, 8)] {
        let array = array::<u32>(len);
        for (n, part) in (1..).zip(array.parts(count)) {
            part.fill(n);
        }
        let lens: Vec<_> = array.parts(count).map(|part| part.len()).collect();
        assert_eq!((lens.len(), lens.iter().sum::<usize>() as u64), (count, len));
        assert!(lens.is_sorted_by(|a, b| a >= b) && lens[0] - lens[count - 1] <= 1, "{lens:?}");
        let expected: Vec<u32> = (1..).zip(&lens).flat_map(|(n, len)| std::iter::repeat_n(n, *len)).collect();
        let mut all = vec![0; array.len()];
        array.read_slice(0, &mut all);
        assert_eq!(all, expected);
    }
    assert_eq!(array::<u32>(4).parts(0).count(), 0);
}

#[test]
fn owned_parts_are_slices_that_can_be_split_and_joined() {
    let array = array::<u64>(10);
    // SAFETY: only this test's, and accessed through the part alone until it is given up.
    let mut part = unsafe { array.own() };
    part.copy_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let (mut front, mut back) = part.split_at(4);
    std::thread::scope(|scope| {
        scope.spawn(|| front.iter_mut().for_each(|n| *n += 100));
        scope.spawn(|| back.reverse());
    });
    assert_eq!((&*front, &*back), (&[100, 101, 102, 103][..], &[9, 8, 7, 6, 5, 4][..]));
    let (back, front) = back.unsplit(front).expect_err("in the wrong order");
    let whole = front.unsplit(back).expect("side by side");
    let [one, two, three] = whole.parts(3).collect::<Vec<_>>().try_into().expect("three");
    let (one, three) = one.unsplit(three).expect_err("not side by side");
    let whole = one.unsplit(two).and_then(|both| both.unsplit(three)).expect("in order");
    assert_eq!(*whole, [100, 101, 102, 103, 9, 8, 7, 6, 5, 4]);
    let array = whole.give_up();
    assert_eq!((array.len(), array.get(9)), (10, 4));
}

#[test]
fn what_does_not_make_an_array_is_refused() {
    #[derive(Clone, Copy)]
    #[repr(C, align(256))]
    struct Wide([u8; 256]);
    // SAFETY: 256 bytes without padding.
    unsafe impl Plain for Wide {
        const FINGERPRINT: u64 = 1;
    }
    assert_eq!(Array::<Wide>::layout(1), Err(ArrayError::Alignment { align: 256 }));
    let most = isize::MAX as u64;
    let too_long = |needed| Err(ArrayError::TooShort { needed, found: most });
    assert_eq!(Array::<u64>::layout(u64::MAX), too_long(u64::MAX));
    assert_eq!(Array::<u64>::layout((1 << 60) + 1), too_long((1 << 63) + 8));
    assert_eq!(Array::<u8>::layout(most), too_long(most), "it is not a multiple of its alignment");
    let memory = NonNull::from(Box::leak(Box::new(Memory([0; BYTES])))).cast::<u8>();
    let attach = |offset: usize, len_bytes, len| {
        // SAFETY: inside the memory.
        let memory = unsafe { memory.add(offset) };
        // SAFETY: the memory lives for ever; nothing is accessed.
        unsafe { View::<u32>::attach(memory, len_bytes, len) }
    };
    assert_eq!(attach(0, 15, 4).unwrap_err(), ArrayError::TooShort { needed: 16, found: 15 });
    assert_eq!(attach(64, 16, 4).unwrap_err(), ArrayError::Misaligned);
    assert_eq!(attach(0, 16, 4).unwrap().len(), 4);
    assert_eq!(attach(0, 0, 0).unwrap().len(), 0);
}

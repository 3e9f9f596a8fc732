//! The array against a `Vec`: elements, ranges, updates, parts; and whatever bytes a peer writes into the elements.
#![allow(unsafe_code)]

use arbitrary::Arbitrary;
use crosslane_core::Plain;
use crosslane_core::array::{Array, Integer, OutOfBounds};

use crate::arena::Arena;

#[derive(Debug, Arbitrary)]
struct Input {
    element: u8,
    len: u8,
    guarded: bool,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, Arbitrary)]
enum Op {
    /// A hostile peer overwrites everything: elements have no wrong bytes.
    Flood(Vec<u8>),
    Get(u8),
    Set(u8, u64),
    ReadSlice(u8, u8),
    WriteSlice(u8, u8, u64),
    Update(u8, Update, u64),
    Parts(u8),
    Split(u8),
    Narrow(u8, u8),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Update {
    Swap,
    Exchange,
    ExchangeOther,
    Add,
    Sub,
    And,
    Or,
    Xor,
    Twice,
}

/// An element, made from a number.
trait Item: Plain + PartialEq + core::fmt::Debug {
    fn make(number: u64) -> Self;
    /// Updates element `index`, if the type can be updated, and the model.
    fn update(array: &Array<'_, Self>, index: usize, update: Update, number: u64, model: &mut Self);
}

macro_rules! integers {
    ($($int:ident)*) => {$(
        impl Item for $int {
            #[expect(clippy::allow_attributes, reason = "only some of them truncate")]
            #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
            fn make(number: u64) -> Self {
                number as $int
            }
            fn update(array: &Array<'_, Self>, index: usize, update: Update, number: u64, model: &mut Self) {
                integer(array, index, update, Self::make(number), model, (Self::wrapping_add, Self::wrapping_sub));
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 i64);

impl Item for f32 {
    fn make(number: u64) -> Self {
        f32::from(number.to_le_bytes()[0])
    }
    fn update(array: &Array<'_, Self>, index: usize, _: Update, number: u64, model: &mut Self) {
        // A peer may have written a NaN, which no comparison knows again.
        if model.is_nan() {
            array.set(index, 0.0);
            *model = 0.0;
        }
        let value = Self::make(number);
        assert_eq!(array.fetch_add_float(index, value), Ok(*model));
        *model += value;
    }
}

impl<const N: usize> Item for [u8; N] {
    fn make(number: u64) -> Self {
        core::array::from_fn(|i| number.to_le_bytes()[i % 8].wrapping_add(u8::try_from(i).unwrap_or(0)))
    }
    fn update(_: &Array<'_, Self>, _: usize, _: Update, _: u64, _: &mut Self) {}
}

type Arithmetic<T> = (fn(T, T) -> T, fn(T, T) -> T);

fn integer<T>(array: &Array<'_, T>, index: usize, update: Update, value: T, model: &mut T, (add, sub): Arithmetic<T>)
where
    T: Integer + PartialEq + core::fmt::Debug,
    T: core::ops::BitAnd<Output = T> + core::ops::BitOr<Output = T> + core::ops::BitXor<Output = T>,
{
    let old = *model;
    let (found, new) = match update {
        Update::Swap => (array.swap(index, value), value),
        Update::Exchange => (array.compare_exchange(index, old, value).map_or_else(|found| found, |()| old), value),
        Update::ExchangeOther if value == old => (old, old),
        Update::ExchangeOther => (array.compare_exchange(index, value, value).unwrap_err(), old),
        Update::Add => (array.fetch_add(index, value), add(old, value)),
        Update::Sub => (array.fetch_sub(index, value), sub(old, value)),
        Update::And => (array.fetch_and(index, value), old & value),
        Update::Or => (array.fetch_or(index, value), old | value),
        Update::Xor => (array.fetch_xor(index, value), old ^ value),
        Update::Twice => (array.fetch_update(index, |n| add(n, n)).expect("nobody else"), add(old, old)),
    };
    assert_eq!(found, old, "{update:?}");
    *model = new;
}

/// Runs one input. Planted: a range of five elements is written without its last.
///
/// # Panics
/// When array and model differ.
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    match input.element % 9 {
        0 => play::<u8>(&input, planted),
        1 => play::<u16>(&input, planted),
        2 => play::<u32>(&input, planted),
        3 => play::<u64>(&input, planted),
        4 => play::<i64>(&input, planted),
        5 => play::<f32>(&input, planted),
        6 => play::<[u8; 3]>(&input, planted),
        7 => play::<[u8; 12]>(&input, planted),
        _ => play::<[u8; 40]>(&input, planted),
    }
}

fn play<T: Item>(input: &Input, planted: bool) {
    let len = usize::from(input.len);
    let arena = Arena::new((len * size_of::<T>()).next_multiple_of(128).max(128), input.guarded);
    // SAFETY: the arena is long enough, and the array ends before it.
    let whole = unsafe { Array::<T>::init(arena.base(), arena.len_bytes(), len as u64) }.expect("fits");
    let mut model: Vec<T> = (0..len).map(|index| whole.get(index)).collect();
    let (mut array, mut start) = (whole, 0);
    for op in &input.ops {
        let part = start..start + array.len();
        match op {
            Op::Flood(bytes) => {
                arena.flood(bytes);
                model = (0..len).map(|index| whole.get(index)).collect();
            }
            Op::Narrow(from, to) => {
                let (from, to) = (usize::from(*from).min(array.len()), usize::from(*to).min(array.len()));
                if from <= to {
                    (array, start) = (array.slice(from..to), start + from);
                } else {
                    (array, start) = (whole, 0);
                }
            }
            op => one(&array, op, &mut model[part], planted),
        }
    }
    compare(&whole, &model);
}

/// The array as it is read back is the model, but for NaNs, whose bits a comparison does not see.
fn compare<T: Item>(array: &Array<'_, T>, model: &[T]) {
    for (index, expected) in model.iter().enumerate() {
        let found = array.get(index);
        #[expect(clippy::eq_op, reason = "false of a NaN")]
        let is_nan = *expected != *expected;
        assert!(found == *expected || is_nan, "element {index}: {found:?} for {expected:?}");
    }
}

fn one<T: Item>(array: &Array<'_, T>, op: &Op, model: &mut [T], planted: bool) {
    let out = |index: usize| OutOfBounds { start: index, end: None, len: model.len() };
    match op {
        Op::Get(index) => {
            let index = usize::from(*index);
            assert_eq!(array.try_get(index).is_ok(), index < model.len());
        }
        Op::Set(index, number) => {
            let (index, value) = (usize::from(*index), T::make(*number));
            let expected = if index < model.len() { Ok(()) } else { Err(out(index)) };
            assert_eq!(array.try_set(index, value), expected);
            if let Some(element) = model.get_mut(index) {
                *element = value;
            }
        }
        Op::ReadSlice(start, count) => {
            let (start, count) = (usize::from(*start), usize::from(*count));
            let mut items = vec![T::make(7); count];
            let read = array.try_read_slice(start, &mut items);
            match model.get(start..start + count) {
                Some(expected) => {
                    assert_eq!(read, Ok(()));
                    #[expect(clippy::eq_op, reason = "false of a NaN")]
                    let same = items.iter().zip(expected).all(|(found, due)| found == due || due != due);
                    assert!(same, "{items:?} for {expected:?}");
                }
                None => {
                    let end = Some(start + count);
                    assert_eq!(read, Err(OutOfBounds { start, end, len: model.len() }));
                }
            }
        }
        Op::WriteSlice(start, count, number) => write(array, (*start).into(), (*count).into(), *number, model, planted),
        Op::Update(index, update, number) => {
            if let Some(element) = model.get_mut(usize::from(*index)) {
                T::update(array, (*index).into(), *update, *number, element);
            }
        }
        Op::Parts(count) => {
            let parts: Vec<_> = array.parts((*count).into()).collect();
            let lens: usize = parts.iter().map(|part| part.len()).sum();
            assert_eq!((parts.len(), lens), ((*count).into(), if *count == 0 { 0 } else { model.len() }));
        }
        Op::Split(mid) => {
            // SAFETY: nobody else uses the array until the parts are gone.
            let whole = unsafe { array.own() };
            let (mut front, mut back) = whole.split_at(usize::from(*mid).min(model.len()));
            front.reverse();
            back.reverse();
            let whole = front.unsplit(back).expect("side by side");
            assert_eq!(whole.len(), model.len());
            let mid = usize::from(*mid).min(model.len());
            model[..mid].reverse();
            model[mid..].reverse();
        }
        Op::Flood(_) | Op::Narrow(..) => {}
    }
}

fn write<T: Item>(array: &Array<'_, T>, start: usize, count: usize, number: u64, model: &mut [T], planted: bool) {
    let items: Vec<T> = (0..count as u64).map(|i| T::make(number.wrapping_add(i))).collect();
    let shown = if planted && count == 5 { &items[..4] } else { &items[..] };
    let written = array.try_write_slice(start, shown);
    let len = model.len();
    match model.get_mut(start..start + count) {
        Some(range) => {
            assert_eq!(written, Ok(()));
            range.copy_from_slice(&items);
        }
        None if planted => {}
        None => assert_eq!(written, Err(OutOfBounds { start, end: Some(start + count), len })),
    }
}

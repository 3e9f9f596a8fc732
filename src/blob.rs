//! Values that travel as the bytes they are: numbers, `Vec<u8>`, `String`, vectors of [`Plain`] elements.
//!
//! serde hands a vector over element by element, at about 1 ns for each; these are copied as a whole. A message that
//! *is* a number, a `Vec` of such or a `String` is recognised; inside of other values, and for vectors of one's
//! own `Plain` structs, [`Blob`] says it.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::Plain;
use crate::error::Codec;

/// A vector of plain elements that travels as one run of bytes.
///
/// For fields and tuples; a message that is a whole `Vec<u8>`, or another primitive's, needs no `Blob`. To a format for
/// people (JSON) it is a sequence of bytes.
///
/// # Examples
/// ```
/// use crosslane::Blob;
///
/// let job = (7_u32, Blob(vec![0.5_f64; 1 << 16]));
/// let bytes = postcard::to_stdvec(&job)?;
/// let (id, samples): (u32, Blob<f64>) = postcard::from_bytes(&bytes)?;
/// assert_eq!((id, samples.len()), (7, 1 << 16));
/// # Ok::<(), postcard::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob<T>(pub Vec<T>);

impl<T> Deref for Blob<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Blob<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> From<Vec<T>> for Blob<T> {
    fn from(elements: Vec<T>) -> Self {
        Self(elements)
    }
}

impl<T: fmt::Debug> fmt::Debug for Blob<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Plain> Serialize for Blob<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes_of(&self.0))
    }
}

impl<'de, T: Plain> Deserialize<'de> for Blob<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytes(PhantomData))
    }
}

struct Bytes<T>(PhantomData<fn() -> T>);

impl<'de, T: Plain> Visitor<'de> for Bytes<T> {
    type Value = Blob<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes in elements of {}", size_of::<T>())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob<T>, E> {
        elements_of(bytes).map(Blob).map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Blob<T>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element::<u8>()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}

/// The bytes of plain elements.
fn bytes_of<T: Plain>(elements: &[T]) -> &[u8] {
    // SAFETY:
    // - the range is that of a slice that is borrowed for as long;
    // - `Plain` has no padding, so each byte is initialised, and no interior mutability, so none changes meanwhile.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), size_of_val(elements)) }
}

/// Plain elements out of their bytes.
fn elements_of<T: Plain>(bytes: &[u8]) -> Result<Vec<T>, Codec> {
    let mut elements = Vec::new();
    replace_elements(&mut elements, bytes)?;
    Ok(elements)
}

/// Plain elements out of their bytes, in the memory of `elements` if they fit. After an error that is as it was.
fn replace_elements<T: Plain>(elements: &mut Vec<T>, bytes: &[u8]) -> Result<(), Codec> {
    let (len_bytes, element_bytes) = (bytes.len(), size_of::<T>());
    if len_bytes != 0 && (element_bytes == 0 || !len_bytes.is_multiple_of(element_bytes)) {
        return Err(Codec::Length { len_bytes, element_bytes });
    }
    let len = len_bytes.checked_div(element_bytes).unwrap_or(0);
    elements.clear();
    elements.reserve(len);
    // SAFETY: both ranges have `len_bytes` bytes, and the second was reserved just above.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), elements.as_mut_ptr().cast::<u8>(), len_bytes) };
    // SAFETY: `len` elements have been written, and every pattern of bytes is a value of a `Plain` type.
    unsafe { elements.set_len(len) };
    Ok(())
}

/// A type of message that travels as its bytes.
trait Raw: Any + Sized {
    fn bytes(&self) -> &[u8];
    fn parse(bytes: &[u8]) -> Result<Self, Codec>;
    /// As `parse`, in this value's memory. After an error it is as it was.
    fn replace(&mut self, bytes: &[u8]) -> Result<(), Codec>;
}

impl<T: Plain> Raw for Vec<T> {
    fn bytes(&self) -> &[u8] {
        bytes_of(self)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Codec> {
        elements_of(bytes)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), Codec> {
        replace_elements(self, bytes)
    }
}

macro_rules! impl_raw_for_numbers {
    ($($number:ty),*) => {$(
        impl Raw for $number {
            #[inline]
            fn bytes(&self) -> &[u8] {
                bytes_of(std::slice::from_ref(self))
            }

            #[inline]
            fn parse(bytes: &[u8]) -> Result<Self, Codec> {
                let length = Codec::Length { len_bytes: bytes.len(), element_bytes: size_of::<Self>() };
                bytes.try_into().map(Self::from_ne_bytes).map_err(|_| length)
            }

            fn replace(&mut self, bytes: &[u8]) -> Result<(), Codec> {
                *self = Self::parse(bytes)?;
                Ok(())
            }
        }
    )*};
}
impl_raw_for_numbers!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Raw for String {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Codec> {
        str::from_utf8(bytes).map(str::to_owned).map_err(|_| Codec::NotUtf8)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), Codec> {
        let text = str::from_utf8(bytes).map_err(|_| Codec::NotUtf8)?;
        self.clear();
        self.push_str(text);
        Ok(())
    }
}

/// The types that are recognised. `as_raw` and `parse_raw` of one type agree, because both compare the same type ids.
macro_rules! each_raw {
    ($what:ident) => {
        $what!(
            u8,
            i8,
            u16,
            i16,
            u32,
            i32,
            u64,
            i64,
            f32,
            f64,
            Vec<u8>,
            String,
            Vec<i8>,
            Vec<u16>,
            Vec<i16>,
            Vec<u32>,
            Vec<i32>,
            Vec<u64>,
            Vec<i64>,
            Vec<f32>,
            Vec<f64>
        )
    };
}

/// The bytes that `value` travels as, if it is of a type that travels as its bytes.
#[inline]
pub(crate) fn as_raw<T: Any>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    macro_rules! try_each {
        ($($raw:ty),*) => {
            $(if let Some(value) = value.downcast_ref::<$raw>() {
                return Some(value.bytes());
            })*
        };
    }
    each_raw!(try_each);
    None
}

/// The value that `bytes` are, if `T` is a type that travels as its bytes.
#[inline]
pub(crate) fn parse_raw<T: Any>(bytes: &[u8]) -> Option<Result<T, Codec>> {
    let mut out = None;
    {
        let slot: &mut dyn Any = &mut out;
        macro_rules! try_each {
            ($($raw:ty),*) => {
                $(if let Some(slot) = slot.downcast_mut::<Option<$raw>>() {
                    match <$raw>::parse(bytes) {
                        Ok(value) => *slot = Some(value),
                        Err(error) => return Some(Err(error)),
                    }
                })*
            };
        }
        each_raw!(try_each);
    }
    out.map(Ok)
}

/// As [`parse_raw`], in place of `value`, whose memory serves again.
#[inline]
pub(crate) fn parse_raw_into<T: Any>(bytes: &[u8], value: &mut T) -> Option<Result<(), Codec>> {
    let value: &mut dyn Any = value;
    macro_rules! try_each {
        ($($raw:ty),*) => {
            $(if let Some(value) = value.downcast_mut::<$raw>() {
                return Some(value.replace(bytes));
            })*
        };
    }
    each_raw!(try_each);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_replaced_keeps_its_memory_and_what_is_refused_leaves_it_alone() {
        let mut numbers = vec![7_u16; 100];
        let memory = numbers.as_ptr();
        assert_eq!(parse_raw_into(&[1, 0, 3, 2], &mut numbers), Some(Ok(())));
        assert_eq!((&numbers[..], numbers.as_ptr()), (&[1, 0x0203][..], memory));
        assert!(matches!(parse_raw_into(&[1], &mut numbers), Some(Err(Codec::Length { .. }))));
        assert_eq!(numbers, [1, 0x0203]);
        let mut text = "long enough".to_owned();
        assert_eq!(parse_raw_into(b"ab", &mut text), Some(Ok(())));
        assert_eq!(parse_raw_into(&[0xff], &mut text), Some(Err(Codec::NotUtf8)));
        assert_eq!(text, "ab");
        let mut number = 7_u8;
        assert_eq!((parse_raw_into(&[1], &mut number), number), (Some(Ok(())), 1));
        assert_eq!(parse_raw_into(&[1], &mut (7_u8,)), None);
    }

    #[test]
    fn a_vector_of_primitives_and_a_text_travel_as_their_bytes() {
        assert_eq!(as_raw(&vec![1_u16, 0x0203]), Some(&[1, 0, 3, 2][..]));
        assert_eq!(as_raw(&"ab".to_owned()), Some(&b"ab"[..]));
        assert_eq!(as_raw(&vec![Some(1_u8)]), None);
        assert_eq!(parse_raw::<Vec<u16>>(&[1, 0, 3, 2]), Some(Ok(vec![1_u16, 0x0203])));
        assert_eq!(parse_raw::<String>(b"ab"), Some(Ok("ab".to_owned())));
        assert_eq!((as_raw(&0x0203_u16), parse_raw::<u16>(&[3, 2])), (Some(&[3, 2][..]), Some(Ok(0x0203))));
        assert_eq!((as_raw(&(1_u8, 2_u8)), parse_raw::<(u8, u8)>(&[1, 2])), (None, None));
    }

    #[test]
    fn bytes_that_are_no_whole_elements_and_no_text_are_refused() {
        let odd = || Some(Codec::Length { len_bytes: 3, element_bytes: 2 });
        assert_eq!(parse_raw::<Vec<u16>>(&[1, 0, 3]).and_then(Result::err), odd());
        assert_eq!(parse_raw::<u16>(&[1, 0, 3]).and_then(Result::err), odd());
        assert_eq!(parse_raw::<String>(&[0xff]), Some(Err(Codec::NotUtf8)));
    }

    #[test]
    fn empty_vectors_stay_empty() {
        assert_eq!(parse_raw::<Vec<f64>>(&[]), Some(Ok(Vec::new())));
        let none = Blob::<[u8; 0]>(vec![[], []]);
        assert_eq!(postcard::from_bytes::<Blob<[u8; 0]>>(&postcard::to_stdvec(&none).unwrap()), Ok(Blob(Vec::new())));
    }
}

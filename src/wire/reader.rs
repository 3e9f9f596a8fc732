//! Reads what postcard has written: its deserialiser, but for what errors say.
//!
//! The errors of postcard are codes, in which what a type says of why it cannot be read is lost; and a deserialiser around its
//! own would move each value once more wherever an error is translated, for 5 % more instructions of a small message. So this
//! is one of its [format], which knows the same codes, and keeps the texts as `told.rs` tells.
//!
//! # Trust
//! Bytes are anybody's. Nothing is read beyond them, and a length reserves nothing: what it says is the reader's to believe,
//! and those of serde reserve 1 MiB at most. Elements that take no bytes are [`MOST_EMPTY`] at most.
//!
//! [format]: https://postcard.jamesmunns.com/wire-format

use postcard::Error as Code;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::told::Told;

/// The most elements of a sequence that has fewer bytes than elements: a length that nobody means would be counted for years.
const MOST_EMPTY: u64 = 1 << 24;

type Fault = Told<Code>;
type Names = &'static [&'static str];
type Result<T> = std::result::Result<T, Fault>;

/// The value that `bytes` begin with, and what is behind it.
#[inline]
pub(super) fn take<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<(T, &'de [u8])> {
    let mut reader = Reader { bytes, at: 0 };
    let value = T::deserialize(&mut reader)?;
    Ok((value, reader.rest()))
}

/// The bytes, and how many of them have been read.
struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
}

/// So many elements of what is read.
struct Elements<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: u64,
}

macro_rules! numbers {
    ($($unsigned:ident, $long:ident, $signed:ident;)*) => {$(
        #[inline]
        fn $unsigned(&mut self) -> Result<$unsigned> {
            match self.byte()? {
                byte @ ..0x80 => Ok(byte.into()),
                first => self.$long(first),
            }
        }

        /// Seven bits of a byte, the lowest first, as long as the eighth is set.
        fn $long(&mut self, first: u8) -> Result<$unsigned> {
            let (mut value, mut shift) = ($unsigned::from(first & 0x7F), 7);
            while shift < $unsigned::BITS {
                let byte = self.byte()?;
                let bits = $unsigned::from(byte & 0x7F);
                if shift + 7 > $unsigned::BITS && bits >> ($unsigned::BITS - shift) != 0 {
                    break;
                }
                value |= bits << shift;
                if byte < 0x80 {
                    return Ok(value);
                }
                shift += 7;
            }
            Err(Told(Code::DeserializeBadVarint))
        }

        /// The sign is the lowest bit, so that small numbers are short.
        #[inline]
        fn $signed(&mut self) -> Result<$signed> {
            let folded = self.$unsigned()?;
            Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
        }
    )*};
}

impl<'de> Reader<'de> {
    #[inline]
    fn rest(&self) -> &'de [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or(Told(Code::DeserializeUnexpectedEnd))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn some(&mut self, len: u64) -> Result<&'de [u8]> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let some = self.rest().get(..len).ok_or(Told(Code::DeserializeUnexpectedEnd))?;
        self.at += len;
        Ok(some)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = *self.rest().first_chunk().ok_or(Told(Code::DeserializeUnexpectedEnd))?;
        self.at += N;
        Ok(array)
    }

    #[inline]
    fn bool(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Told(Code::DeserializeBadBool)),
        }
    }

    #[inline]
    fn i8(&mut self) -> Result<i8> {
        self.byte().map(u8::cast_signed)
    }

    #[inline]
    fn f32(&mut self) -> Result<f32> {
        self.array().map(f32::from_le_bytes)
    }

    #[inline]
    fn f64(&mut self) -> Result<f64> {
        self.array().map(f64::from_le_bytes)
    }

    numbers! {
        u16, long_u16, i16;
        u32, long_u32, i32;
        u64, long_u64, i64;
        u128, long_u128, i128;
    }

    /// As many bytes as their length in front says.
    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8]> {
        let len = self.u64()?;
        self.some(len)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Told(Code::DeserializeBadUtf8))
    }

    /// A text of one `char`.
    fn char(&mut self) -> Result<char> {
        let bytes = match self.u64()? {
            len @ ..=4 => self.some(len)?,
            _ => return Err(Told(Code::DeserializeBadChar)),
        };
        let text = std::str::from_utf8(bytes).ok();
        text.and_then(|text| text.chars().next()).ok_or(Told(Code::DeserializeBadChar))
    }

    /// As many elements as their number in front says.
    #[inline]
    fn counted(&mut self) -> Result<Elements<'_, 'de>> {
        let left = self.u64()?;
        if left > MOST_EMPTY && left > self.rest().len() as u64 {
            return Err(Told(Code::DeserializeUnexpectedEnd));
        }
        Ok(Elements { reader: self, left })
    }
}

macro_rules! read {
    ($($method:ident: $visit:ident($read:ident);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            let value = self.$read()?;
            visitor.$visit(value)
        }
    )*};
}

/// What only a format with names can tell.
macro_rules! refuse {
    ($($method:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
            Err(Told(Code::WontImplement))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Fault;

    read! {
        deserialize_bool: visit_bool(bool);
        deserialize_i8: visit_i8(i8);
        deserialize_i16: visit_i16(i16);
        deserialize_i32: visit_i32(i32);
        deserialize_i64: visit_i64(i64);
        deserialize_i128: visit_i128(i128);
        deserialize_u8: visit_u8(byte);
        deserialize_u16: visit_u16(u16);
        deserialize_u32: visit_u32(u32);
        deserialize_u64: visit_u64(u64);
        deserialize_u128: visit_u128(u128);
        deserialize_f32: visit_f32(f32);
        deserialize_f64: visit_f64(f64);
        deserialize_char: visit_char(char);
        deserialize_str: visit_borrowed_str(text);
        deserialize_string: visit_str(text);
        deserialize_bytes: visit_borrowed_bytes(bytes);
        deserialize_byte_buf: visit_bytes(bytes);
        deserialize_seq: visit_seq(counted);
        deserialize_map: visit_map(counted);
    }

    refuse! {
        deserialize_any;
        deserialize_identifier;
        deserialize_ignored_any;
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(Told(Code::DeserializeBadOption)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Elements { reader: self, left: len as u64 })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, len: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: Names, visitor: V) -> Result<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: Names, visitor: V) -> Result<V::Value> {
        visitor.visit_enum(self)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Elements<'_, '_> {
    #[inline]
    fn hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok().filter(|left| *left <= self.reader.rest().len())
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.reader)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::EnumAccess<'de> for &mut Reader<'de> {
    type Error = Fault;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        let index: de::value::U32Deserializer<Fault> = self.u32()?.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Reader<'de> {
    type Error = Fault;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, fields: Names, visitor: V) -> Result<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use super::*;

    /// Reads bytes as both do: what is found, and what is left or wrong.
    fn agrees<T: for<'de> Deserialize<'de> + Debug>(bytes: &[u8]) {
        let ours = take::<T>(bytes).map_err(|Told(code)| code);
        let theirs = postcard::take_from_bytes::<T>(bytes);
        if matches!((&ours, &theirs), (Err(Code::DeserializeUnexpectedEnd), Err(_))) {
            // A length that nobody means is found before what else is wrong.
            return;
        }
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "{} of {bytes:?}", std::any::type_name::<T>());
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "read by `Debug`")]
    enum Variant {
        Unit,
        Newtype(i64),
        Tuple(u8, String),
        Struct { number: u16, more: Option<Box<Self>> },
    }

    #[derive(Debug, Deserialize)]
    struct Unit;

    #[test]
    fn whatever_the_bytes_it_reads_what_postcard_reads() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        for round in 0..20_000 {
            // Many of them small, or with the eighth bit set.
            let byte = |[a, b, ..]: [u8; 8]| [a, a | 0x80, a % 4, 0xFF][usize::from(b % 4)];
            let bytes: Vec<_> = (0..round % 24).map(|_| byte(random())).collect();
            agrees::<(u8, i8, bool)>(&bytes);
            agrees::<u16>(&bytes);
            agrees::<(i16, u32)>(&bytes);
            agrees::<(i32, Unit, u64)>(&bytes);
            agrees::<i64>(&bytes);
            agrees::<u128>(&bytes);
            agrees::<i128>(&bytes);
            agrees::<(f32, f64)>(&bytes);
            agrees::<Vec<char>>(&bytes);
            agrees::<(String, Vec<u8>)>(&bytes);
            agrees::<Option<Vec<u16>>>(&bytes);
            agrees::<BTreeMap<u8, (String, Option<()>)>>(&bytes);
            agrees::<Vec<Variant>>(&bytes);
            agrees::<crate::Blob<u8>>(&bytes);
            agrees::<serde_json::Value>(&bytes);
        }
    }

    #[test]
    fn a_char_is_a_text_of_one_char_and_at_most_four_bytes() {
        for bytes in [
            &b"\x00"[..],
            b"\x01a",
            b"\x02ab",
            b"\x02\xC3\xA9",
            b"\x01\xC3",
            b"\x04\xF0\x9F\x98\x80",
            b"\x05abcde",
            b"\x04abc",
        ] {
            agrees::<char>(bytes);
        }
    }

    #[test]
    fn what_takes_no_bytes_is_not_counted_for_ever() {
        let whole = postcard::to_stdvec(&vec![(); 100_000]).unwrap();
        assert_eq!(take::<Vec<()>>(&whole).unwrap().0.len(), 100_000);
        let endless = postcard::to_stdvec(&u64::MAX).unwrap();
        assert!(take::<Vec<()>>(&endless).is_err());
        assert!(take::<Vec<Unit>>(&endless).is_err());
        assert!(take::<BTreeMap<(), ()>>(&endless).is_err());
        let mut long = postcard::to_stdvec(&(MOST_EMPTY + 1)).unwrap();
        long.resize(long.len() + usize::try_from(MOST_EMPTY + 1).unwrap(), 0);
        let all = Reader { bytes: &long, at: 0 }.counted().map(|elements| elements.left);
        assert_eq!(all, Ok(MOST_EMPTY + 1), "what has its bytes may be longer");
    }
}

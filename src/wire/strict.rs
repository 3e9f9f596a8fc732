//! A serialiser around another one, which refuses what would arrive as something else, and keeps what errors say.
//!
//! postcard writes no names of fields: what is left out by `skip_serializing_if` would be read all the same, out of what
//! follows. A derived `Serialize` tells its serialiser of it, and this one refuses. What errors say is kept as `told.rs` tells.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{self, Error as _, Serializer};

use super::told::Told;

/// A value that is to be serialised by a [`Strict`].
pub(super) struct Checked<'v, T: ?Sized>(pub(super) &'v T);

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Strict(serializer)).map_err(|Told(error)| error)
    }
}

/// A serialiser, or one of a compound, around another.
struct Strict<S>(S);

macro_rules! plain {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method(self $(, $name: $type)*) -> Result<S::Ok, Told<S::Error>> {
            self.0.$method($($name),*).map_err(Told)
        }
    )*};
}

macro_rules! around {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<T: Serialize + ?Sized>(self $(, $name: $type)*, value: &T) -> Result<S::Ok, Told<S::Error>> {
            self.0.$method($($name,)* &Checked(value)).map_err(Told)
        }
    )*};
}

macro_rules! compound {
    ($($method:ident($($name:ident: $type:ty),*) -> $compound:ident;)*) => {$(
        #[inline]
        fn $method(self $(, $name: $type)*) -> Result<Strict<S::$compound>, Told<S::Error>> {
            self.0.$method($($name),*).map(Strict).map_err(Told)
        }
    )*};
}

type Name = &'static str;

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = Told<S::Error>;
    type SerializeSeq = Strict<S::SerializeSeq>;
    type SerializeTuple = Strict<S::SerializeTuple>;
    type SerializeTupleStruct = Strict<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Strict<S::SerializeTupleVariant>;
    type SerializeMap = Strict<S::SerializeMap>;
    type SerializeStruct = Strict<S::SerializeStruct>;
    type SerializeStructVariant = Strict<S::SerializeStructVariant>;

    plain! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: Name);
        serialize_unit_variant(name: Name, index: u32, variant: Name);
    }

    around! {
        serialize_some();
        serialize_newtype_struct(name: Name);
        serialize_newtype_variant(name: Name, index: u32, variant: Name);
    }

    compound! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: Name, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: Name, index: u32, variant: Name, len: usize) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: Name, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: Name, index: u32, variant: Name, len: usize) -> SerializeStructVariant;
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, Told<S::Error>> {
        self.0.collect_str(value).map_err(Told)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! elements {
    ($($trait:ident: $($method:ident),*;)*) => {$(
        impl<S: ser::$trait> ser::$trait for Strict<S> {
            type Ok = S::Ok;
            type Error = Told<S::Error>;

            $(
                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Told<S::Error>> {
                    self.0.$method(&Checked(value)).map_err(Told)
                }
            )*

            #[inline]
            fn end(self) -> Result<S::Ok, Told<S::Error>> {
                self.0.end().map_err(Told)
            }
        }
    )*};
}

elements! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
    SerializeMap: serialize_key, serialize_value;
}

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl<S: ser::$trait> ser::$trait for Strict<S> {
            type Ok = S::Ok;
            type Error = Told<S::Error>;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: Name, value: &T) -> Result<(), Told<S::Error>> {
                self.0.serialize_field(key, &Checked(value)).map_err(Told)
            }

            fn skip_field(&mut self, key: Name) -> Result<(), Told<S::Error>> {
                Err(Told::custom(format_args!(
                    "the field `{key}` is left out (skip_serializing_if), and as fields travel without their names, what \
                     follows would be taken for it"
                )))
            }

            #[inline]
            fn end(self) -> Result<S::Ok, Told<S::Error>> {
                self.0.end().map_err(Told)
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::reader;
    use super::super::told::reason;
    use super::*;

    /// All shapes that serde knows.
    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    struct Shapes {
        signed: (i8, i16, i32, i64, i128),
        unsigned: (u8, u16, u32, u64, u128),
        others: (bool, f32, f64, char),
        text: String,
        some: Option<Box<Self>>,
        newtype: Newtype,
        pair: Pair,
        unit: Unit,
        variants: Vec<Variant>,
        map: BTreeMap<u8, String>,
        address: Option<std::net::Ipv6Addr>,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    struct Newtype(u32);

    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    struct Pair(u32, String);

    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    struct Unit;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Variant {
        Unit,
        Newtype(u32),
        Tuple(u8, String),
        Struct { number: u64 },
    }

    fn shapes() -> Shapes {
        let inner = Shapes {
            signed: (-1, -2, -3, -4, -5),
            unsigned: (6, 7, 8, 9, 10),
            others: (true, 1.5, -2.5, 'é'),
            text: "text".into(),
            newtype: Newtype(11),
            pair: Pair(12, "pair".into()),
            variants: vec![
                Variant::Unit,
                Variant::Newtype(13),
                Variant::Tuple(14, "tuple".into()),
                Variant::Struct { number: 15 },
            ],
            map: [(1, "one".into()), (2, "two".into())].into(),
            address: Some(std::net::Ipv6Addr::LOCALHOST),
            ..Shapes::default()
        };
        Shapes { some: Some(Box::new(inner)), ..Shapes::default() }
    }

    #[test]
    fn whatever_is_whole_is_written_as_without_it() {
        let shapes = shapes();
        let bytes = postcard::to_stdvec(&Checked(&shapes)).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&shapes).unwrap());
        assert_eq!(postcard::from_bytes::<Shapes>(&bytes).unwrap(), shapes);
        assert_eq!(reader::take::<Shapes>(&bytes).unwrap(), (shapes, &[][..]));
    }

    #[derive(Serialize)]
    struct Sparse {
        id: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }

    #[derive(Serialize)]
    enum SparseVariant {
        Only {
            #[serde(skip_serializing_if = "Option::is_none")]
            note: Option<String>,
        },
    }

    #[test]
    fn a_field_that_is_left_out_is_refused_at_any_depth_and_by_name() {
        let sparse = |note: Option<&str>| Sparse { id: 1, note: note.map(str::to_owned) };
        assert!(postcard::to_stdvec(&Checked(&sparse(Some("here")))).is_ok());
        let only = SparseVariant::Only { note: None };
        refuses(&sparse(None));
        refuses(&Some((1, vec![sparse(Some("here")), sparse(None)])));
        refuses(&BTreeMap::from([(1, only)]));
    }

    fn refuses(value: &impl Serialize) {
        let text = reason(&postcard::to_stdvec(&Checked(value)).unwrap_err()).unwrap();
        assert!(text.starts_with("the field `note` is left out"), "{text}");
    }

    #[test]
    fn a_field_that_both_sides_skip_is_whole_and_one_that_one_side_skips_is_another() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Cached {
            key: u8,
            #[serde(skip)]
            both: u8,
            value: u8,
        }
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct OneSided {
            key: u8,
            #[serde(skip_serializing)]
            one: u8,
            value: u8,
        }
        let cached = Cached { key: 1, both: 0, value: 3 };
        let bytes = postcard::to_stdvec(&Checked(&cached)).unwrap();
        assert_eq!(reader::take::<Cached>(&bytes).unwrap(), (cached, &[][..]));
        let one_sided = || OneSided { key: 1, one: 2, value: 3 };
        let bytes = postcard::to_stdvec(&Checked(&one_sided())).unwrap();
        assert!(reader::take::<OneSided>(&bytes).is_err(), "nothing is left for `value`");
        let bytes = postcard::to_stdvec(&Checked(&(one_sided(), 4_u8))).unwrap();
        let (other, _) = reader::take::<OneSided>(&bytes).unwrap();
        assert_eq!(other, OneSided { key: 1, one: 3, value: 4 });
    }

    #[test]
    fn what_was_said_of_another_error_is_not_said_of_this_one() {
        let error = postcard::to_stdvec(&Checked(&Sparse { id: 1, note: None })).unwrap_err();
        let other = postcard::to_slice(&Checked(&[0; 4]), &mut []).unwrap_err();
        assert_eq!((reason(&other), reason(&error)), (None, None));
    }
}

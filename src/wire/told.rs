//! Errors that keep what they say.
//!
//! The errors of postcard are codes: what a type says of why it cannot be written or read is kept beside them, for
//! [`reason`]. Each error that a type makes replaces the last one's text, so if a message fails by such an error, the text is
//! its own.

use std::cell::Cell;
use std::error;
use std::fmt::{self, Display};

use serde::{de, ser};

thread_local! {
    /// What the last error said that a type made itself.
    static REASON: Cell<Option<String>> = const { Cell::new(None) };
}

/// What was said of why a value could not be written or read, if `error` is of the kind that says something.
#[cold]
pub(super) fn reason(error: &postcard::Error) -> Option<String> {
    REASON.take().filter(|_| says_something(error))
}

/// Whether a type made `error`.
pub(super) fn says_something(error: &postcard::Error) -> bool {
    matches!(error, postcard::Error::SerdeSerCustom | postcard::Error::SerdeDeCustom)
}

/// Another one's error, of which what it says has been noted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told<E>(pub(super) E);

impl<E: Display> Display for Told<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: error::Error> error::Error for Told<E> {}

impl<E: ser::Error> ser::Error for Told<E> {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self(note(message, |text| E::custom(text)))
    }
}

impl<E: de::Error> de::Error for Told<E> {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self(note(message, |text| E::custom(text)))
    }
}

fn note<E>(message: impl Display, make: impl FnOnce(&str) -> E) -> E {
    let text = message.to_string();
    let error = make(&text);
    REASON.set(Some(text));
    error
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::error::{CodecError, Error};
    use crate::place::Placed;
    use crate::shm::{Mutex, Slabs};
    use crate::{Trusted, wire};

    type Handle = Placed<Mutex<u64, Trusted>>;
    type OtherHandle = Placed<Mutex<[u32; 2], Trusted>>;

    fn handle() -> Handle {
        Placed::new(Mutex::in_slab(Slabs::family(), 1).unwrap())
    }

    /// What a value does when it is written or read.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Does {
        Fails,
        /// It tries a handle, and does not mind if that refuses.
        Tries,
        TriesAndFails,
        TriesAndSays,
        TriesAndPanics,
        /// It packs another value meanwhile, and fails if that does not fail as it should.
        TriesAndPacks,
    }

    #[derive(Debug)]
    struct Odd(Does);

    impl Serialize for Odd {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let tried = || postcard::to_stdvec(&handle()).is_err();
            match self.0 {
                Does::Fails => Err(S::Error::custom("odd")),
                Does::Tries => serializer.serialize_bool(tried()),
                Does::TriesAndFails if tried() => serializer.collect_seq(std::iter::repeat_n(1, 2).filter(|_| true)),
                Does::TriesAndSays if tried() => Err(S::Error::custom("it was tried")),
                Does::TriesAndPacks if tried() => {
                    fails(Does::Tries, Does::Fails);
                    Err(S::Error::custom("it was tried"))
                }
                Does::TriesAndPanics if tried() => panic!(),
                _ => serializer.serialize_bool(false),
            }
        }
    }

    impl<'de> Deserialize<'de> for Odd {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom("never"))
        }
    }

    fn put(does: Does) -> Result<(), Error> {
        wire::pack_for_queue(&Odd(does), &mut Vec::new())
    }

    #[track_caller]
    fn says(error: &Error, text: &str) {
        let (Error::Encode { reason, .. } | Error::Decode { reason, .. }) = error else { panic!("{error:?}") };
        assert_eq!(reason.to_string(), text);
    }

    /// The second one fails for its own reason, whatever the first one did.
    #[track_caller]
    fn fails(first: Does, second: Does) {
        put(first).unwrap();
        says(&put(second).unwrap_err(), "odd");
    }

    #[test]
    fn a_refusal_that_is_swallowed_is_not_the_next_messages() {
        fails(Does::Tries, Does::Fails);
        assert!(catch_unwind(|| put(Does::TriesAndPanics)).is_err());
        says(&put(Does::Fails).unwrap_err(), "odd");
    }

    #[test]
    fn a_refusal_is_what_a_message_fails_for_however_its_type_says_it() {
        let refused = put(Does::TriesAndSays);
        assert!(matches!(refused, Err(Error::HandleInQueue { .. })), "{refused:?}");
    }

    #[test]
    fn a_refusal_is_not_what_a_message_fails_for_by_an_error_of_the_formats() {
        let unsized_sequence = put(Does::TriesAndFails);
        assert!(matches!(&unsized_sequence, Err(Error::Encode { .. })), "{unsized_sequence:?}");
    }

    #[test]
    fn a_message_inside_of_another_has_reasons_of_its_own() {
        let outer = put(Does::TriesAndPacks).unwrap_err();
        assert!(!outer.to_string().contains("odd"), "{outer:?}");
    }

    /// Is read as a handle of another type; fails as it says.
    #[derive(Serialize)]
    struct Tried(Handle, u8);

    impl<'de> Deserialize<'de> for Tried {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            /// Swallows what is wrong with the handle.
            struct Swallowed(bool);
            impl<'de> Deserialize<'de> for Swallowed {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    Ok(Self(OtherHandle::deserialize(deserializer).is_err()))
                }
            }
            match <(Swallowed, u8)>::deserialize(deserializer)? {
                (Swallowed(true), 0) => Ok(Self(handle(), 0)),
                (Swallowed(true), 1) => panic!(),
                (Swallowed(true), _) => {
                    says(&wire::unpack_plain::<Odd>(&[]).unwrap_err(), "never");
                    Ok(Self(handle(), 0))
                }
                (Swallowed(false), _) => Err(D::Error::custom("it was not refused")),
            }
        }
    }

    #[test]
    fn a_refusal_to_arrive_is_its_messages_alone() {
        for way in [0, 1, 2] {
            let parcel = wire::pack(&Tried(handle(), way)).unwrap();
            wire::unpack_many(parcel.fds, || {
                let first = catch_unwind(AssertUnwindSafe(|| wire::unpack_item::<Tried>(&parcel.bytes)));
                assert_eq!(first.is_err(), way == 1);
                if let Ok(value) = first {
                    value.unwrap();
                }
                says(&wire::unpack_plain::<Odd>(&[]).unwrap_err(), "never");
            });
        }
        let parcel = wire::pack(&handle()).unwrap();
        let refused = wire::unpack::<OtherHandle>(&parcel.bytes, parcel.fds);
        assert!(matches!(refused, Err(Error::Open(_))), "{refused:?}");
    }

    #[test]
    fn a_message_inside_of_another_has_none_of_its_descriptors() {
        let parcel = wire::pack(&handle()).unwrap();
        wire::unpack_many(parcel.fds, || {
            says(&wire::unpack_plain::<Handle>(&parcel.bytes).unwrap_err(), "no descriptor 0 came with the message");
            assert_eq!(*wire::unpack_item::<Handle>(&parcel.bytes).unwrap().lock().unwrap(), 1);
        });
    }

    #[test]
    fn what_a_type_says_of_why_it_cannot_be_read_is_kept_at_any_depth() {
        #[derive(Debug, Serialize, Deserialize)]
        enum Variant {
            Tuple(u8, Option<Odder>),
            Struct { odder: Vec<(u8, Odder)> },
            Newtype(std::collections::BTreeMap<u8, Odder>),
        }
        /// Read from any number but 7.
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(try_from = "u8")]
        struct Odder(u8);
        impl TryFrom<u8> for Odder {
            type Error = &'static str;
            fn try_from(value: u8) -> Result<Self, &'static str> {
                if value == 7 { Err("it is seven") } else { Ok(Self(value)) }
            }
        }
        let refuses = |value: Variant| {
            let bytes = postcard::to_stdvec(&value).unwrap();
            says(&wire::unpack_plain::<Variant>(&bytes).unwrap_err(), "it is seven");
        };
        refuses(Variant::Tuple(1, Some(Odder(7))));
        refuses(Variant::Struct { odder: vec![(1, Odder(1)), (2, Odder(7))] });
        refuses(Variant::Newtype([(1, Odder(1)), (2, Odder(7))].into()));
        says(
            &wire::unpack_plain::<Variant>(&[3]).unwrap_err(),
            "invalid value: integer `3`, expected variant index 0 <= i < 3",
        );
        let short = wire::unpack_plain::<Variant>(&[0, 1]).unwrap_err();
        let Error::Decode { reason: CodecError(reason), .. } = short else { panic!("{short:?}") };
        assert_eq!(reason, crate::error::Codec::Postcard(postcard::Error::DeserializeUnexpectedEnd));
    }
}
